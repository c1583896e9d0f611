//! Redactions and relations that come before what they are about.

use ruma::{EventId, OwnedEventId};

use super::{
    shared::{Shared, state_event},
    *,
};
use crate::{
    expected,
    receive::{self, Outcome},
    relations,
};

fn redaction_of(event: &EventId) -> NewEvent {
    NewEvent { kind: "m.room.redaction".into(), redacts: Some(event.to_owned()), ..NewEvent::default() }
}

#[test]
fn a_redaction_waits_for_what_it_redacts() {
    for version in ["1", "6", "11", "12"] {
        let shared = Shared::new(version);
        let said = shared.here.say(&shared.alice, shared.room, "oops").unwrap();
        let original = shared.sent(&shared.here, &said);
        let redaction = shared.alice_sends(redaction_of(&said));
        assert!(matches!(shared.give_with_state(&redaction), Outcome::Accepted(_)));
        let (store, copy) = (&shared.there.store, shared.copy);
        let outcome = receive::receive(store, copy, original).unwrap().wait().unwrap();
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        let copied = shared.copy_of(&said);
        assert!(!copied.event.json.contains("oops"), "version {version}: {}", copied.event.json);
        let (by, _) = events::by_id(&store.snapshot(), copy, &redaction).unwrap().unwrap();
        assert_eq!(copied.header.redacted_by, Some(by));
        assert!(!shared.there.seen(&shared.bob, copy).contains(&"oops".to_owned()));
        assert!(!store.dump(&[expected::EXPECTED.spec()]).unwrap().contains("RoomNo"), "nothing waits any more");
    }
}

#[test]
fn a_redaction_without_the_right_waits_in_vain() {
    let shared = Shared::new("11");
    let said = shared.here.say(&shared.alice, shared.room, "precious").unwrap();
    // Bob's server does not ask whether he may.
    let forged = |tx: &mut store::Tx<'_>| -> Result<OwnedEventId> {
        let mut open = OpenRoom::new(tx, shared.copy)?;
        let (_, event) = send::send_in(&mut open, &shared.there.identity, &shared.bob, redaction_of(&said), None, 5000)?;
        open.save()?;
        Ok(event.id.clone())
    };
    let redaction = shared.there.store.transact(&[Lock::Room(shared.copy)], forged).unwrap().wait().unwrap();
    assert!(matches!(shared.give(&said), Outcome::Accepted(_)));
    assert!(shared.copy_of(&said).event.json.contains("precious"), "it is there");
    assert!(matches!(shared.take(&redaction), Outcome::Accepted(_)));
    let (_, stored) = events::by_id(&shared.here.store.snapshot(), shared.room, &said).unwrap().unwrap();
    assert!(stored.header.redacted_by.is_none() && stored.event.json.contains("precious"), "and here");
}

#[test]
fn the_power_before_a_redaction_counts_and_not_that_of_when_its_event_comes() {
    let shared = Shared::new("11");
    let levels =
        |bob: i64| state_event("m.room.power_levels", "", json!({ "users": { "@alice:localhost": 100, "@bob:other.org": bob } }));
    let promoted = shared.alice_sends(levels(50));
    assert!(matches!(shared.give(&promoted), Outcome::Accepted(_)));
    let said = shared.here.say(&shared.alice, shared.room, "regretted").unwrap();
    let redaction = {
        let sent = |tx: &mut store::Tx<'_>| -> Result<OwnedEventId> {
            let mut open = OpenRoom::new(tx, shared.copy)?;
            let (_, event) = send::send_in(&mut open, &shared.there.identity, &shared.bob, redaction_of(&said), None, 5000)?;
            open.save()?;
            Ok(event.id.clone())
        };
        shared.there.store.transact(&[Lock::Room(shared.copy)], sent).unwrap().wait().unwrap()
    };
    let demoted = shared.alice_sends(levels(0));
    // There, the demotion comes before what was redacted when bob still had the power to.
    assert!(matches!(shared.give_with_state(&demoted), Outcome::Accepted(_)));
    assert!(matches!(shared.give(&said), Outcome::Accepted(_)));
    assert!(!shared.copy_of(&said).event.json.contains("regretted"));
    assert!(matches!(shared.take(&redaction), Outcome::Accepted(_)));
}

#[test]
fn relations_wait_for_what_they_relate_to() {
    let shared = Shared::new("12");
    let (alice, room) = (&shared.alice, shared.room);
    let root = shared.here.say(alice, room, "root").unwrap();
    let related: Vec<OwnedEventId> = ["m.thread", "m.thread", "m.replace", "m.reference", "m.reference", "m.annotation"]
        .iter()
        .enumerate()
        .map(|(at, rel_type)| {
            let relation = json!({ "rel_type": rel_type, "event_id": root });
            let text = format!("relation {at}");
            let content =
                json!({ "msgtype": "m.text", "body": text, "m.relates_to": relation, "m.new_content": { "body": text } });
            let content = content.as_object().unwrap().clone();
            shared.alice_sends(NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() })
        })
        .collect();
    let (first, later) = related.split_first().unwrap();
    assert!(matches!(shared.give_with_state(first), Outcome::Accepted(_)));
    later.iter().for_each(|id| assert!(matches!(shared.give(id), Outcome::Accepted(_))));
    // One that is redacted while it waits relates to nothing.
    let redacted = shared.alice_sends(redaction_of(&related[4]));
    assert!(matches!(shared.give(&redacted), Outcome::Accepted(_)));
    assert!(matches!(shared.give(&root), Outcome::Accepted(_)));

    let told = |world: &World, who: &Sender, room| world.told(who, room, &root, &[]);
    let bob_here = Sender { no: users::numbers::ensure(&shared.here.store, &shared.bob.id).unwrap(), id: shared.bob.id.clone() };
    let there = told(&shared.there, &shared.bob, shared.copy);
    assert_eq!(there, told(&shared.here, &bob_here, room));
    assert_eq!(there["m.thread"]["count"], 2);
    assert_eq!(there["m.reference"]["chunk"], json!([{ "event_id": related[3] }]));
    assert_eq!(there["m.replace"]["event_id"], json!(related[2]));
    let db = shared.there.store.snapshot();
    let (no, _) = events::by_id(&db, shared.copy, &root).unwrap().unwrap();
    assert_eq!(relations::children(&db, shared.copy, no).unwrap().count(), 5);
    assert_eq!(threads::roots(&db, shared.copy, Pos(i64::MAX)).unwrap().map(|row| row.unwrap().1).collect::<Vec<_>>(), [no]);
}
