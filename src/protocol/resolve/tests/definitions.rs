//! The specification's definitions for version 2 of state resolution, one by one ("State resolution" of room version 2).

use super::cases::{check, check_states, levels, room};
use super::v1::Rejecting;
use super::{Graph, id, show, versions};
use crate::resolve::resolve_states;

#[test]
fn power_events_of_greater_power_come_first_whatever_their_time() {
    for version in versions(2..=12) {
        // Alice's rule comes first, so that bob's, which was sent before it, stands.
        let text = room(version) + "one < carol : alice rule invite @9\ntwo < carol : bob rule knock @1";
        check(&Graph::parse(version, &text), "one two", "alice=alice bob=bob carol=carol levels=levels rule=two");
    }
}

#[test]
fn power_is_that_by_the_events_own_auth_events() {
    for version in versions(2..=12) {
        // When bob set his rule he had more power than carol had when she set hers, though she has more than he in the end.
        let (more, most) = (levels(version, r#""@bob:b":60,"@carol:c":50"#), levels(version, r#""@bob:b":50,"@carol:c":90"#));
        let text = room(version)
            + &format!(
                "more < carol : alice levels {more} @1
                 one < more : bob rule invite @9
                 two < more : carol rule knock @8
                 most < two : alice levels {most} @10"
            );
        check(&Graph::parse(version, &text), "one most", "alice=alice bob=bob carol=carol levels=most rule=two");
    }
}

#[test]
fn power_events_come_after_those_they_cite_whatever_their_time() {
    for version in versions(2..=12) {
        let [one, two, three] = [1, 2, 3].map(|level| levels(version, &format!("\"@bob:b\":50,\"@dave:d\":{level}")));
        let text = room(version)
            + &format!(
                "one < carol : alice levels {one} @20
                 two < one : alice levels {two} @10
                 three < carol : alice levels {three} @15"
            );
        check(&Graph::parse(version, &text), "two three", "alice=alice bob=bob carol=carol levels=two rule=rule");
    }
}

#[test]
fn leaving_is_no_power_event_and_being_kicked_is() {
    for version in versions(2..=12) {
        let state = |carol: &str| format!("alice=alice bob=bob carol={carol} levels=levels rule=rule");
        let text = room(version) + "gone < carol : carol leave @20\nagain < carol : carol join @21";
        check(&Graph::parse(version, &text), "gone again", &state("again"));
        let text = text.replace("@21", "@19");
        check(&Graph::parse(version, &text), "gone again", &state("gone"));
        // The kick comes first, however late it was, and who was kicked may come back.
        let text = text.replace("carol leave", "bob leave carol");
        check(&Graph::parse(version, &text), "gone again", &state("again"));
    }
}

#[test]
fn power_levels_off_the_mainline_count_as_where_they_left_it() {
    for version in versions(2..=12) {
        let [up, side] = [1, 2].map(|level| levels(version, &format!("\"@bob:b\":50,\"@dave:d\":{level}")));
        let text = room(version)
            + &format!(
                "side < carol : alice levels {side} @10
                 old < side : alice topic old @50
                 up < carol : alice levels {up} @20
                 new < up : alice topic new @21"
            );
        check(&Graph::parse(version, &text), "old new", "alice=alice bob=bob carol=carol levels=up rule=rule topic=new");
    }
}

#[test]
fn what_cites_no_power_levels_is_the_oldest() {
    for version in versions(2..=12) {
        let text = format!(
            "create : alice create {{}}
             alice : alice join
             rule : alice rule public
             old : alice topic old @50
             levels < rule : alice levels {} @20
             new : alice topic new @21",
            levels(version, "")
        );
        check(&Graph::parse(version, &text), "old new", "alice=alice levels=levels rule=rule topic=new");
    }
}

#[test]
fn what_a_state_lacks_for_a_check_is_taken_from_the_auth_events() {
    for version in versions(2..=12) {
        let text = room(version) + "again < carol : bob rule public\ntwo : bob topic two";
        let graph = Graph::parse(version, &text);
        // Neither has bob, whom the rule of both leads to.
        let states = [graph.state_of("create alice levels again two"), graph.state_of("create alice levels again")];
        check_states(&graph, states.to_vec(), "alice=alice levels=levels rule=again topic=two");
        // Of one that was rejected nothing is taken.
        let resolved = resolve_states(version, &states, &Rejecting(&graph, id("bob"))).unwrap();
        assert_eq!(show(&resolved), "alice=alice levels=levels rule=again", "version {}", version.id);
    }
}

#[test]
fn what_all_agree_on_judges_in_version_2_and_only_ends_it_in_2_1() {
    for version in versions(2..=12) {
        let text = room(version)
            + "open : alice rule public
               dave : dave join
               erin < open : erin join
               closed < open : alice rule invite";
        let graph = Graph::parse(version, &text);
        // Both joins were allowed by a rule that neither state has any more.
        let states = [
            graph.state_of("create alice levels closed bob carol dave"),
            graph.state_of("create alice levels closed bob carol erin"),
        ];
        let expected = if version.version_12 {
            "alice=alice bob=bob carol=carol dave=dave erin=erin levels=levels rule=closed"
        } else {
            "alice=alice bob=bob carol=carol levels=levels rule=closed"
        };
        check_states(&graph, states.to_vec(), expected);
    }
}

#[test]
fn restricted_joins_and_third_party_invites_are_judged_again() {
    for version in versions(8..=12) {
        // The authoriser loses the power to invite meanwhile.
        let invites = |level: i64| levels(version, "\"@bob:b\":50").replacen('{', &format!("{{\"invite\":{level},"), 1);
        let text = room(version)
            + &format!(
                "some < carol : alice levels {}
                 closed : alice rule restricted
                 dave < closed : dave via bob
                 none < closed : alice levels {}",
                invites(50),
                invites(60)
            );
        let graph = Graph::parse(version, &text);
        check(&graph, "dave none", "alice=alice bob=bob carol=carol levels=none rule=closed");
        check(&graph, "dave closed", "alice=alice bob=bob carol=carol dave=dave levels=some rule=closed");
    }
    for version in versions(2..=12) {
        let text = room(version)
            + "promise < carol : bob promise token
               taken < promise : alice message x
               back < promise : bob promise token
               zoe < promise : bob redeem token
               ban < carol : alice ban bob";
        let graph = Graph::parse(version, &text);
        check(&graph, "zoe taken", "alice=alice bob=bob carol=carol levels=levels rule=rule third_party_invite=promise zoe=zoe");
        // Who was promised an invite gets it though the promiser was banned: the rules ask only for the promise.
        check(&graph, "zoe ban", "alice=alice bob=ban carol=carol levels=levels rule=rule zoe=zoe");
        let either = "alice=alice bob=bob carol=carol levels=levels rule=rule third_party_invite=back zoe=zoe";
        check(&graph, "zoe back", either);
    }
}
