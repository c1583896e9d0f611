use ruma::push::{Action, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule, RuleKind};

use super::*;
use crate::{
    Error,
    account_data::{self, PUSH_RULES},
    push_rules::{self, Place},
};

fn word(id: &str, pattern: &str) -> NewPushRule {
    NewPushRule::Content(NewPatternedPushRule::new(id.into(), pattern.into(), vec![Action::Notify]))
}

fn put(store: &Store, user: UserNo, rule: NewPushRule, before: Option<&str>, after: Option<&str>) -> Result<()> {
    Ok(push_rules::put(store, user, rule, Place { before, after })?.wait()?)
}

/// The user's own words in their order.
fn words(store: &Store, user: UserNo) -> String {
    let rules = push_rules::rules(&store.snapshot(), user).unwrap();
    rules.content.iter().map(|rule| rule.rule_id.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn rules_go_where_they_are_placed() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    for id in ["a", "b", "c"] {
        put(&store, alice, word(id, id), None, None).unwrap();
    }
    assert_eq!(words(&store, alice), "c b a", "a new rule comes first");
    put(&store, alice, word("d", "d"), None, Some("a")).unwrap();
    assert_eq!(words(&store, alice), "c b a d");
    put(&store, alice, word("c", "c"), None, Some("d")).unwrap();
    assert_eq!(words(&store, alice), "b a d c");
    put(&store, alice, word("c", "c"), Some("b"), None).unwrap();
    assert_eq!(words(&store, alice), "c b a d");
    put(&store, alice, word("d", "d"), Some("a"), Some("c")).unwrap();
    assert_eq!(words(&store, alice), "c b d a");
    put(&store, alice, word("b", "other"), None, None).unwrap();
    assert_eq!(words(&store, alice), "c b d a", "without a place it stays where it is");
}

#[test]
fn no_place_panics_or_leaves_half_a_change() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    put(&store, alice, word("a", "a"), None, None).unwrap();
    put(&store, alice, word("b", "b"), None, None).unwrap();
    let before = words(&store, alice);
    for (rule, before, after) in [
        ("b", None, Some("b")),
        ("b", Some("b"), None),
        ("b", None, Some("none")),
        ("c", Some("none"), None),
        ("c", None, Some("")),
    ] {
        assert!(
            matches!(put(&store, alice, word(rule, "x"), before, after), Err(Error::NotFound(_))),
            "{rule} {before:?} {after:?}"
        );
    }
    assert!(
        matches!(put(&store, alice, word("c", "c"), Some("b"), Some("a")), Err(Error::InvalidParam(_))),
        "against their order"
    );
    assert!(matches!(put(&store, alice, word("c", "c"), None, Some(".m.rule.contains_user_name")), Err(Error::InvalidParam(_))));
    assert_eq!(words(&store, alice), before);
    let everything = NewPushRule::Override(NewConditionalPushRule::new("all".into(), Vec::new(), Vec::new()));
    put(&store, alice, everything, None, None).unwrap();
    let rules = push_rules::rules(&store.snapshot(), alice).unwrap();
    let first: Vec<&str> = rules.override_.iter().take(2).map(|rule| rule.rule_id.as_str()).collect();
    assert_eq!(first, [".m.rule.master", "all"]);
}

#[test]
fn hostile_rules_are_refused() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    for id in ["", ".mine", "a/b", "a\\b", &"x".repeat(256)] {
        assert!(matches!(put(&store, alice, word(id, "x"), None, None), Err(Error::InvalidParam(_))), "{id}");
    }
    assert!(matches!(put(&store, alice, word("a", &"*".repeat(513)), None, None), Err(Error::TooLarge { .. })));
    let noisy = NewPatternedPushRule::new("a".into(), "x".into(), vec![Action::Notify; push_rules::ACTIONS_MAX + 1]);
    assert!(matches!(put(&store, alice, NewPushRule::Content(noisy), None, None), Err(Error::TooLarge { .. })));
    for n in 0..push_rules::RULES_MAX {
        let rule = NewSimplePushRule::new(user_id(&format!("u{n}")), Vec::new());
        match put(&store, alice, NewPushRule::Sender(rule), None, None) {
            Ok(()) => {}
            Err(Error::TooLarge { .. }) => return,
            Err(error) => panic!("{n}: {error}"),
        }
    }
    let one_more = NewSimplePushRule::new(user_id("one.more"), Vec::new());
    assert!(matches!(put(&store, alice, NewPushRule::Sender(one_more), None, None), Err(Error::TooLarge { .. })));
}

#[test]
fn default_rules_are_changed_but_not_deleted() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let (kind, id) = (RuleKind::Override, ".m.rule.master");
    assert!(!push_rules::is_enabled(&store.snapshot(), alice, kind.clone(), id).unwrap());
    push_rules::set_enabled(&store, alice, kind.clone(), id, true).unwrap().wait().unwrap();
    push_rules::set_actions(&store, alice, kind.clone(), id, vec![Action::Notify]).unwrap().wait().unwrap();
    assert!(push_rules::is_enabled(&store.snapshot(), alice, kind.clone(), id).unwrap());
    assert_eq!(push_rules::actions(&store.snapshot(), alice, kind.clone(), id).unwrap().len(), 1);
    assert!(matches!(push_rules::delete(&store, alice, kind, id), Err(Error::InvalidParam(_))));
    put(&store, alice, word("cake", "cake*lie"), None, None).unwrap();
    push_rules::set_enabled(&store, alice, RuleKind::Content, "cake", false).unwrap().wait().unwrap();
    put(&store, alice, word("cake", "pie"), None, None).unwrap();
    assert!(!push_rules::is_enabled(&store.snapshot(), alice, RuleKind::Content, "cake").unwrap(), "it stays disabled");
    push_rules::delete(&store, alice, RuleKind::Content, "cake").unwrap().wait().unwrap();
    assert!(matches!(push_rules::delete(&store, alice, RuleKind::Content, "cake"), Err(Error::NotFound(_))));
    assert!(matches!(push_rules::rule(&store.snapshot(), alice, RuleKind::from("custom"), "cake"), Err(Error::NotFound(_))));
}

#[test]
fn rules_of_an_older_version_get_the_new_defaults_and_keep_the_users_changes() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let old = r#"{"global":{"override":[
        {"rule_id":".m.rule.master","default":true,"enabled":true,"actions":[]},
        {"rule_id":".m.rule.gone","default":true,"enabled":true,"actions":[]},
        {"rule_id":"mine","default":false,"enabled":true,"actions":["notify"],"conditions":[]}]}}"#;
    let write = |text: &str| {
        let change = |tx: &mut store::Tx<'_>| account_data::put(tx, alice, None, PUSH_RULES, text);
        store.transact(&[store::Lock::User(alice)], change).unwrap().wait().unwrap();
    };
    write(old);
    let rules = push_rules::rules(&store.snapshot(), alice).unwrap();
    assert!(rules.get(RuleKind::Override, ".m.rule.master").unwrap().enabled());
    assert!(rules.get(RuleKind::Override, ".m.rule.gone").is_none() && rules.get(RuleKind::Override, "mine").is_some());
    assert!(rules.get(RuleKind::Override, ".m.rule.is_user_mention").is_some());
    let shown = account_data::content(&store.snapshot(), alice, None, PUSH_RULES).unwrap().unwrap();
    assert!(shown.contains(".m.rule.is_user_mention"), "a sync shows them too");
    write(r#"{"global":[]}"#);
    assert!(push_rules::rules(&store.snapshot(), alice).unwrap().get(RuleKind::Override, ".m.rule.master").is_some());
}
