//! The cases that MSC1442, "State Resolution: Reloaded", argues with.

use super::cases::{check, levels, room};
use super::{Graph, show, versions};

/// "Appendix": alice takes bob's power while he uses it, and both set topics.
#[test]
fn the_appendix_at_messages_2_and_3() {
    for version in versions(2..=12) {
        let (taken, used) = (levels(version, ""), levels(version, r#""@bob:b":50,"@carol:c":50"#));
        let text = room(version)
            + &format!(
                "topic2 < carol : alice topic two @20
                 p2 < topic2 : alice levels {taken} @21
                 p3 < carol : bob levels {used} @19
                 topic3 < p3 : bob topic three @22
                 message2 < p2 topic3 : alice message two @23
                 topic4 < p2 : alice topic four @1
                 message3 < message2 topic4 : alice message three @24"
            );
        let graph = Graph::parse(version, &text);
        let at_2 = "alice=alice bob=bob carol=carol levels=p2 rule=rule topic=topic2";
        check(&graph, "p2 topic3", at_2);
        assert_eq!(show(&graph.after("message2")[0]), at_2);
        // The fourth topic cites newer power levels, whatever its time says. Version 2.1 starts from nothing, so that power levels on which all
        // agree make no mainline, and the time decides.
        let at_3 = if version.version_12 { at_2.to_owned() } else { at_2.replace("topic=topic2", "topic=topic4") };
        check(&graph, "message2 topic4", &at_3);
        assert_eq!(show(&graph.after("message3")[0]), at_3);
    }
}

/// "Ordering and Authing": alice gives bob power (A), bob gives it on (B), and who got it uses it (C).
#[test]
fn power_that_was_passed_on_holds() {
    for version in versions(2..=12) {
        let (a, b) = (levels(version, r#""@bob:b":60"#), levels(version, r#""@bob:b":60,"@carol:c":50"#));
        let c = b.replacen('{', r#"{"ban":40,"#, 1);
        let text = room(version)
            + &format!(
                "a < carol : alice levels {a}
                 x < a : alice message x
                 b < a : bob levels {b}
                 c < b : carol levels {c}"
            );
        check(&Graph::parse(version, &text), "x c", "alice=alice bob=bob carol=carol levels=c rule=rule");
    }
}

/// "Ordering and Authing": who left (A), joined (B) and left again (C) is not joined by a fork.
#[test]
fn who_left_stays_out() {
    for version in versions(2..=12) {
        let text = room(version)
            + "a < carol : bob leave
               x < a : alice message x
               b < a : bob join
               y < b : alice message y
               c < b : bob leave";
        let graph = Graph::parse(version, &text);
        let state = |bob: &str| format!("alice=alice bob={bob} carol=carol levels=levels rule=rule");
        check(&graph, "x c", &state("c"));
        check(&graph, "y c", &state("c"));
        check(&graph, "x y", &state("b"));
        check(&graph, "x y c", &state("c"));
    }
}

/// … as it is in version 1.
#[test]
fn version_1_joins_again_who_left() {
    for version in versions(1..=1) {
        let text = room(version)
            + "a < carol : bob leave
               x < a : alice message x
               b < a : bob join
               y < b : alice message y
               c < b : bob leave";
        let graph = Graph::parse(version, &text);
        let bob = |heads: &str| {
            let shown = show(&graph.resolve(&graph.after(heads)));
            shown.split_whitespace().find_map(|entry| entry.strip_prefix("bob=")).unwrap().to_owned()
        };
        assert_eq!((bob("x c"), bob("x y")), ("a".to_owned(), "b".to_owned()));
    }
}

/// "State Resets": a topic of who was banned later is lost where the states before and after both meet.
#[test]
fn a_topic_of_who_was_banned_later_is_lost() {
    for version in versions(2..=12) {
        let text = room(version)
            + "topic < carol : bob topic mine
               ban < topic : alice ban bob";
        check(&Graph::parse(version, &text), "carol ban", "alice=alice bob=ban carol=carol levels=levels rule=rule");
    }
}

/// "Auth Events": a join after a ban was lifted holds because it cites the lifting, as servers let it do today; else it falls to the ban.
#[test]
fn a_join_holds_over_a_ban_if_it_cites_that_the_ban_was_lifted() {
    for version in versions(2..=12) {
        let create = if version.version_12 { "" } else { "create," };
        let text = room(version)
            + &format!(
                "ban < carol : alice ban bob
                 x < ban : alice message x
                 lifted < ban : alice leave bob
                 bob2 < lifted : bob join
                 bob3 < lifted : bob join auth={create}levels,rule"
            );
        let graph = Graph::parse(version, &text);
        let state = |bob: &str| format!("alice=alice bob={bob} carol=carol levels=levels rule=rule");
        check(&graph, "x bob2", &state("bob2"));
        check(&graph, "x bob3", &state("ban"));
    }
}

/// "Current Algorithm": new entries of a fork are checked against the other's rules, though nothing else conflicts there.
#[test]
fn what_only_one_fork_has_is_checked_too() {
    for version in versions(2..=12) {
        let text = room(version)
            + "closed < carol : alice rule invite
               ban < closed : alice ban carol
               dave < carol : dave join @1
               topic < dave : carol message x @2";
        let graph = Graph::parse(version, &text);
        check(&graph, "ban topic", "alice=alice bob=bob carol=ban levels=levels rule=closed");
    }
    for version in versions(1..=1) {
        let text = room(version) + "closed < carol : alice rule invite\ndave < carol : dave join @1";
        let graph = Graph::parse(version, &text);
        let resolved = show(&graph.resolve(&graph.after("closed dave")));
        assert_eq!(resolved, "alice=alice bob=bob carol=carol dave=dave levels=levels rule=closed", "version 1 checks nothing");
    }
}

/// "Mainline": who lies about the time loses to a new epoch.
#[test]
fn new_power_levels_end_the_effect_of_false_times() {
    for version in versions(2..=12) {
        let (again, other) = (levels(version, r#""@bob:b":50,"@dave:d":1"#), "alice=alice bob=bob carol=carol");
        let text = room(version)
            + &format!(
                "liar < carol : bob topic liar @9000
                 fix < carol : alice topic fix @20
                 epoch < fix : alice levels {again} @21
                 fixed < epoch : alice topic fixed @22"
            );
        let graph = Graph::parse(version, &text);
        check(&graph, "liar fix", &format!("{other} levels=levels rule=rule topic=liar"));
        check(&graph, "liar fixed", &format!("{other} levels=epoch rule=rule topic=fixed"));
    }
}
