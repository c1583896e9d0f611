//! What is told of an event with it, and which threads and times a room has.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ruma::OwnedEventId;
use serde_json::{Value, json};
use store::UserNo;

use super::*;

impl World {
    fn put_at(&self, who: &Sender, room: RoomNo, kind: &str, content: Value, now_ms: u64) -> Result<OwnedEventId> {
        let content = content.as_object().unwrap().clone();
        let new = NewEvent { kind: kind.into(), content, ..NewEvent::default() };
        Ok(send::send(&self.store, &self.identity, who, room, new, None, now_ms)?.wait()?)
    }

    fn relating(&self, who: &Sender, room: RoomNo, (rel_type, to): (&str, &OwnedEventId), body: &str) -> OwnedEventId {
        let relation = json!({ "rel_type": rel_type, "event_id": to });
        let mut content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relation });
        if rel_type == "m.replace" {
            content["m.new_content"] = json!({ "msgtype": "m.text", "body": body });
        }
        self.put_at(who, room, "m.room.message", content, 2000).unwrap()
    }

    fn redact(&self, who: &Sender, room: RoomNo, event: &OwnedEventId) {
        let new = NewEvent { kind: "m.room.redaction".into(), redacts: Some(event.clone()), ..NewEvent::default() };
        send::send(&self.store, &self.identity, who, room, new, None, 1).unwrap().wait().unwrap();
    }

    /// What a user who ignores some others is told of an event's relations.
    pub(super) fn told(&self, who: &Sender, room: RoomNo, event: &OwnedEventId, ignored: &[&Sender]) -> Value {
        let db = self.store.snapshot();
        let (_, stored) = events::by_id(&db, room, event).unwrap().unwrap();
        let ignored: BTreeSet<UserNo> = ignored.iter().map(|user| user.no).collect();
        let (until, ignored) = (Pos(i64::MAX), Arc::new(ignored));
        let format = format::Format { user: who.no, device: None, with_room_id: false, now_ms: 0, until, ignored };
        let event = format::client_event(&db, room, &stored, None, &format).unwrap();
        serde_json::from_str::<Value>(event.get()).unwrap()["unsigned"]["m.relations"].clone()
    }

    fn of_two(&self) -> (Sender, Sender, RoomNo) {
        let (alice, bob) = (self.user("alice"), self.user("bob"));
        let (room, _) = self.room(&alice, "12", Preset::PublicChat);
        self.change(&bob, room, &bob, Action::Join).unwrap();
        (alice, bob, room)
    }
}

#[test]
fn edits_and_threads_are_told_with_the_event() {
    let world = World::new();
    let (alice, bob, room) = world.of_two();
    let root = world.say(&alice, room, "root").unwrap();
    let told = || world.told(&bob, room, &root, &[]);
    assert!(told().is_null());
    let edit = world.relating(&alice, room, ("m.replace", &root), "first edit");
    world.relating(&bob, room, ("m.replace", &root), "bob may not edit what alice said");
    assert_eq!(told()["m.replace"]["content"]["body"], "first edit");
    world.relating(&alice, room, ("m.thread", &root), "one");
    assert_eq!(told()["m.thread"]["current_user_participated"], false);
    let reply = world.relating(&bob, room, ("m.thread", &root), "two");
    assert_eq!(told()["m.thread"]["count"], 2);
    assert_eq!(told()["m.thread"]["latest_event"]["content"]["body"], "two");
    assert_eq!(told()["m.thread"]["current_user_participated"], true);
    let ignoring = world.told(&alice, room, &root, &[&bob]);
    assert_eq!(ignoring["m.thread"]["count"], 1, "what ignored users said is not counted");
    assert_eq!(ignoring["m.thread"]["latest_event"]["content"]["body"], "one");
    for (who, gone) in [(&alice, edit), (&bob, reply)] {
        world.redact(who, room, &gone);
    }
    assert!(told()["m.replace"].is_null());
    assert_eq!(told()["m.thread"]["count"], 1);
    assert_eq!(told()["m.thread"]["latest_event"]["content"]["body"], "one");
    assert_eq!(told()["m.thread"]["current_user_participated"], false);
    assert!(world.told(&bob, room, &root, &[&alice]).is_null(), "a thread of ignored users alone is none");
}

#[test]
fn the_newest_event_of_a_thread_is_told_with_its_own_relations() {
    let world = World::new();
    let (alice, bob, room) = world.of_two();
    let root = world.say(&alice, room, "root").unwrap();
    let reply = world.relating(&bob, room, ("m.thread", &root), "one");
    world.relating(&bob, room, ("m.replace", &reply), "one, better");
    let latest = &world.told(&alice, room, &root, &[])["m.thread"]["latest_event"];
    assert_eq!(latest["unsigned"]["m.relations"]["m.replace"]["content"]["m.new_content"]["body"], "one, better");
    let content = json!({ "body": "x", "m.relates_to": { "rel_type": "m.thread", "event_id": reply } });
    assert!(matches!(world.put_at(&bob, room, "m.room.message", content, 1), Err(Error::BadThread)));
}

#[test]
fn references_are_told_with_the_event() {
    let world = World::new();
    let (alice, bob, room) = world.of_two();
    let poll = world.say(&alice, room, "cake?").unwrap();
    let one = world.relating(&alice, room, ("m.reference", &poll), "yes");
    let two = world.relating(&bob, room, ("m.reference", &poll), "no");
    let ids = |ids: &[&OwnedEventId]| json!(ids.iter().map(|id| json!({ "event_id": id })).collect::<Vec<_>>());
    assert_eq!(world.told(&bob, room, &poll, &[])["m.reference"]["chunk"], ids(&[&one, &two]));
    assert_eq!(world.told(&alice, room, &poll, &[&bob])["m.reference"]["chunk"], ids(&[&one]));
    world.redact(&alice, room, &one);
    assert_eq!(world.told(&bob, room, &poll, &[])["m.reference"]["chunk"], ids(&[&two]));
    world.redact(&bob, room, &two);
    assert!(world.told(&bob, room, &poll, &[]).is_null());
}

#[test]
fn the_most_recent_valid_edit_counts() {
    let world = World::new();
    let (alice, bob, room) = world.of_two();
    let original = world.say(&alice, room, "original").unwrap();
    let edit = |who: &Sender, kind: &str, body: Option<&str>, to: &OwnedEventId, now_ms| {
        let mut content = json!({ "body": "*", "m.relates_to": { "rel_type": "m.replace", "event_id": to } });
        if let Some(body) = body {
            content["m.new_content"] = json!({ "body": body });
        }
        world.put_at(who, room, kind, content, now_ms).unwrap()
    };
    let told = |id| world.told(&bob, room, id, &[])["m.replace"]["content"]["m.new_content"]["body"].clone();
    let message = "m.room.message";
    edit(&alice, message, None, &original, 5000);
    edit(&alice, "m.room.encrypted", Some("of another type"), &original, 5000);
    edit(&bob, message, Some("by another"), &original, 5000);
    assert!(told(&original).is_null(), "none of these is valid");
    let last = edit(&alice, message, Some("last"), &original, 3000);
    let middle = edit(&alice, message, Some("middle"), &original, 2500);
    let first = edit(&alice, message, Some("first"), &original, 2000);
    assert_eq!(told(&original), "last", "by their time, not by their arrival");
    edit(&alice, message, Some("edit of an edit"), &last, 6000);
    assert!(told(&last).is_null());
    world.redact(&alice, room, &last);
    assert_eq!(told(&original), "middle");
    world.redact(&alice, room, &first);
    assert_eq!(told(&original), "middle");
    world.redact(&alice, room, &middle);
    assert!(told(&original).is_null());

    let encrypted = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "a" });
    let original = world.put_at(&alice, room, "m.room.encrypted", encrypted, 1).unwrap();
    let edit = edit(&alice, "m.room.encrypted", None, &original, 2);
    assert_eq!(world.told(&bob, room, &original, &[])["m.replace"]["event_id"], edit.as_str(), "its new content is within");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn threads_are_in_order_of_their_newest_events(steps in prop::collection::vec((0..4_usize, any::<bool>(), any::<usize>()), 1..40)) {
        let world = World::new();
        let (alice, bob, room) = world.of_two();
        let roots: Vec<_> = (0..4).map(|root| world.say(&alice, room, &root.to_string()).unwrap()).collect();
        let mut replies: Vec<(usize, OwnedEventId)> = Vec::new();
        for (thread, redact, which) in steps {
            if redact && !replies.is_empty() {
                let (_, gone) = replies.remove(which % replies.len());
                world.redact(&bob, room, &gone);
            } else {
                replies.push((thread, world.relating(&bob, room, ("m.thread", &roots[thread]), "reply")));
            }
            let mut expected: Vec<&OwnedEventId> = Vec::new();
            for (thread, _) in replies.iter().rev() {
                if !expected.contains(&&roots[*thread]) {
                    expected.push(&roots[*thread]);
                }
            }
            let db = world.store.snapshot();
            let found: Vec<_> = threads::roots(&db, room, Pos(i64::MAX)).unwrap().map(|root| root.unwrap().1).collect();
            let found: Vec<_> = found.iter().map(|no| events::event(&db, room, *no).unwrap().header.id.clone()).collect();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn the_closest_event_is_found_whatever_the_order_of_times(at in prop::collection::vec(0..50_u64, 1..20), asked in 0..50_u64) {
        let world = World::new();
        let (alice, _, room) = world.of_two();
        let hour = 3_600_000;
        for at in &at {
            world.put_at(&alice, room, "m.room.message", json!({ "body": "x" }), hour + at).unwrap();
        }
        let db = world.store.snapshot();
        let closest = |ts, direction| {
            let found = times::closest(&db, room, ts, direction).unwrap().next();
            found.map(|found| found.unwrap().0)
        };
        let asked = hour + asked;
        prop_assert_eq!(closest(asked, Direction::Forward), at.iter().map(|at| hour + at).filter(|at| *at >= asked).min());
        let before = at.iter().map(|at| hour + at).filter(|at| *at <= asked).max();
        // Before all of them lies the room's beginning.
        prop_assert_eq!(closest(asked, Direction::Backward).filter(|at| *at >= hour), before);
        prop_assert_eq!(closest(0, Direction::Backward), None);
    }
}
