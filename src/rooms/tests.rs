//! Rooms without a runtime: a store in memory, a few users, and what they see.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bounds;
mod checks;
mod collect;
mod expected;
mod explained;
mod imported;
mod purge;
mod receipts;
mod relations;
mod replicas;
mod shared;
mod told;
mod typing;
mod unread;

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use protocol::{json::Object, keys::SigningKey, version::RoomVersion};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::json;
use store::{Lock, RoomNo, Store, TableSpec};

use crate::{
    create::{NewRoom, Preset},
    head::{Head, OpenRoom},
    members::Membership,
    membership::{Action, Change},
    state::Root,
    timeline::Direction,
    visibility::Viewer,
    *,
};

struct World {
    store: Store,
    identity: Identity,
    /// Rooms that were made.
    rooms: Cell<u32>,
}

impl World {
    fn new() -> Self {
        Self::of("localhost", 7)
    }

    /// The server of this name, with the key of this seed.
    fn of(server: &str, seed: u8) -> Self {
        let tables: Vec<&'static TableSpec> = users::TABLES.iter().chain(TABLES).copied().collect();
        let key = SigningKey::from_seed("1", &[seed; 32]).unwrap();
        let identity = Identity { server_name: server.try_into().unwrap(), key };
        Self { store: Store::in_memory(server, &tables).unwrap(), identity, rooms: Cell::new(0) }
    }

    fn user(&self, name: &str) -> Sender {
        let id = OwnedUserId::try_from(format!("@{name}:localhost")).unwrap();
        Sender { no: users::numbers::ensure(&self.store, &id).unwrap(), id }
    }

    fn room(&self, creator: &Sender, version: &str, preset: Preset) -> (RoomNo, OwnedRoomId) {
        self.rooms.set(self.rooms.get() + 1);
        let new = NewRoom {
            version: RoomVersion::named(version).unwrap(),
            preset,
            creation_content: Object::new(),
            initial_state: Vec::new(),
            name: Some("The room".into()),
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            power_levels: Object::new(),
            alias: None,
            public: false,
            profile: Object::new(),
            opaque_id: format!("opaque{}", self.rooms.get()),
        };
        let id = create::create(&self.store, &self.identity, creator, new, 1000).unwrap().wait().unwrap();
        (numbers::number(&self.store.snapshot(), &id).unwrap().unwrap(), id)
    }

    fn say(&self, who: &Sender, room: RoomNo, body: &str) -> Result<ruma::OwnedEventId> {
        let content = json!({ "msgtype": "m.text", "body": body }).as_object().unwrap().clone();
        let new = NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() };
        Ok(send::send(&self.store, &self.identity, who, room, new, None, 2000)?.wait()?)
    }

    fn change(&self, who: &Sender, room: RoomNo, target: &Sender, to: Action) -> Result<()> {
        let change = Change { target: target.id.clone(), to, content: Object::new() };
        Ok(membership::change(&self.store, &self.identity, who, room, change, 3000)?.wait()?)
    }

    /// What a user sees of a room, oldest first: bodies of messages, and types with state keys of the rest.
    fn seen(&self, who: &Sender, room: RoomNo) -> Vec<String> {
        let db = self.store.snapshot();
        let mut viewer = Viewer::new(&db, room, &who.id, who.no).unwrap();
        let all = timeline::read(&db, room, Direction::Forward, Pos(i64::MIN), None).unwrap();
        let shown = all.map(Result::unwrap).filter(|placed| viewer.sees(&db, &placed.stored).unwrap());
        let text = |placed: timeline::Placed| {
            let content: serde_json::Value = serde_json::from_str(placed.stored.event.content.get()).unwrap();
            content["body"].as_str().map_or_else(|| placed.stored.event.kind.clone(), str::to_owned)
        };
        shown.map(text).collect()
    }
}

#[test]
fn an_event_that_was_just_sent_is_kept_as_it_will_be_read() {
    let world = World::new();
    let alice = world.user("alice");
    for version in RoomVersion::all() {
        let (room, _) = world.room(&alice, version.id, Preset::PrivateChat);
        let said = world.say(&alice, room, "a word, and another").unwrap();
        let new = NewEvent { kind: "m.room.redaction".into(), redacts: Some(said), ..NewEvent::default() };
        send::send(&world.store, &world.identity, &alice, room, new, None, 2500).unwrap().wait().unwrap();
        let db = world.store.snapshot();
        for kept in timeline::read(&db, room, Direction::Forward, Pos(i64::MIN), None).unwrap() {
            let (kept, mut bytes) = (kept.unwrap().stored, Vec::new());
            store::Value::encode(&*kept, &mut bytes).unwrap();
            let read = <events::StoredEvent as store::Value>::decode(&bytes).unwrap();
            assert_eq!(format!("{kept:?}"), format!("{read:?}"), "version {}", version.id);
        }
    }
}

#[test]
fn a_room_of_every_version_is_made_and_chatted_in() {
    let world = World::new();
    let alice = world.user("alice");
    for version in RoomVersion::all() {
        let (room, _) = world.room(&alice, version.id, Preset::PrivateChat);
        world.say(&alice, room, "hello").unwrap();
        let seen = world.seen(&alice, room);
        let expected = [
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.guest_access",
            "m.room.name",
            "hello",
        ];
        assert_eq!(seen, expected, "version {}", version.id);
    }
}

#[test]
fn a_transaction_sent_twice_makes_one_event() {
    let world = World::new();
    let alice = world.user("alice");
    let (room, _) = world.room(&alice, "12", Preset::PrivateChat);
    let send = || {
        let new = NewEvent { kind: "m.room.message".into(), ..NewEvent::default() };
        let txn = events::Txn { device: "PHONE".into(), id: "1".into() };
        send::send(&world.store, &world.identity, &alice, room, new, Some(txn), 1).unwrap().wait().unwrap()
    };
    assert_eq!(send(), send());
}

#[test]
fn state_set_to_what_it_is_makes_no_event() {
    let world = World::new();
    let alice = world.user("alice");
    let (room, _) = world.room(&alice, "12", Preset::PrivateChat);
    let name = |name: &str| {
        let new = NewEvent::state("m.room.name", "", json!({ "name": name }).as_object().unwrap().clone());
        send::send(&world.store, &world.identity, &alice, room, new, None, 1).unwrap().wait().unwrap()
    };
    let first = name("Lounge");
    assert_eq!(first, name("Lounge"));
    assert_ne!(first, name("Kitchen"));
}

#[test]
fn strangers_neither_speak_nor_see_and_leavers_see_up_to_their_leave() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, _) = world.room(&alice, "12", Preset::PrivateChat);
    world.say(&alice, room, "before").unwrap();
    assert!(matches!(world.say(&bob, room, "let me in"), Err(Error::Denied(_))));
    assert!(world.seen(&bob, room).is_empty());
    assert!(matches!(world.change(&bob, room, &bob, Action::Join), Err(Error::Denied(_))));

    world.change(&alice, room, &bob, Action::Invite).unwrap();
    assert!(matches!(world.change(&alice, room, &alice, Action::Invite), Err(Error::AlreadyJoined)));
    world.change(&bob, room, &bob, Action::Join).unwrap();
    assert!(world.seen(&bob, room).contains(&"before".to_owned()), "history is shared with who joins");
    world.change(&alice, room, &bob, Action::Kick).unwrap();
    world.say(&alice, room, "after").unwrap();
    let seen = world.seen(&bob, room);
    assert_eq!(seen.last().unwrap(), "m.room.member", "the kick is the last they see");
    assert!(!seen.contains(&"after".to_owned()));
    let db = world.store.snapshot();
    assert_eq!(members::user_room(&db, bob.no, room).unwrap().unwrap().membership, Membership::Leave);
    assert_eq!(head(&db, room).unwrap().joined, 1);
}

#[test]
fn a_redacted_event_loses_its_content_for_good() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, _) = world.room(&alice, "12", Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let secret = world.say(&alice, room, "secret").unwrap();
    let redact = |who: &Sender| {
        let new = NewEvent { kind: "m.room.redaction".into(), redacts: Some(secret.clone()), ..NewEvent::default() };
        send::send(&world.store, &world.identity, who, room, new, None, 1)
    };
    assert!(matches!(redact(&bob), Err(Error::Forbidden(_))), "bob may not redact what alice said");
    redact(&alice).unwrap().wait().unwrap();
    assert!(!world.seen(&bob, room).contains(&"secret".to_owned()));
    assert!(!world.store.dump(TABLES).unwrap().contains("secret"), "nothing of it is stored");
}

#[test]
fn a_user_reacts_with_one_key_once() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, _) = world.room(&alice, "12", Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let message = world.say(&alice, room, "cake?").unwrap();
    let react = |who: &Sender, key: &str| {
        let relation = json!({ "rel_type": "m.annotation", "event_id": message, "key": key });
        let content = Object::from_iter([("m.relates_to".to_owned(), relation)]);
        let new = NewEvent { kind: "m.reaction".into(), content, ..NewEvent::default() };
        send::send(&world.store, &world.identity, who, room, new, None, 1).map(|sent| sent.wait().unwrap())
    };
    react(&alice, "yes").unwrap();
    react(&alice, "no").unwrap();
    react(&bob, "yes").unwrap();
    assert!(matches!(react(&bob, "yes"), Err(Error::DuplicateAnnotation)));
}

#[test]
fn an_upgraded_room_keeps_its_name_and_silences_the_old_one() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (room, id) = world.room(&alice, "10", Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let upgrade = |who: &Sender| {
        let version = RoomVersion::named("12").unwrap();
        let upgrade =
            upgrade::Upgrade { version, additional_creators: Vec::new(), profile: Object::new(), opaque_id: "new".into() };
        upgrade::upgrade(&world.store, &world.identity, who, room, upgrade, 5000)
    };
    assert!(matches!(upgrade(&bob), Err(Error::Denied(_))), "bob has no power to end the room");
    let new_id = upgrade(&alice).unwrap().wait().unwrap();
    let db = world.store.snapshot();
    let new = numbers::number(&db, &new_id).unwrap().unwrap();
    let content = |room, kind| {
        let root = head(&db, room).unwrap().state;
        state::content::<serde_json::Value>(&db, room, root, kind, "").unwrap().unwrap()
    };
    assert_eq!(content(new, "m.room.name")["name"], "The room");
    assert_eq!(content(new, "m.room.create")["predecessor"]["room_id"], id.as_str());
    assert_eq!(content(new, "m.room.join_rules")["join_rule"], "public");
    assert_eq!(content(room, "m.room.tombstone")["replacement_room"], new_id.as_str());
    assert!(matches!(world.say(&bob, room, "still here"), Err(Error::Denied(_))));
    assert!(world.say(&alice, new, "here now").is_ok());
}

#[test]
fn a_restricted_room_lets_the_members_of_another_in() {
    let world = World::new();
    let (alice, bob, eve) = (world.user("alice"), world.user("bob"), world.user("eve"));
    let (club, club_id) = world.room(&alice, "11", Preset::PublicChat);
    let (room, _) = world.room(&alice, "12", Preset::PrivateChat);
    let rules = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club_id }] });
    let new = NewEvent::state("m.room.join_rules", "", rules.as_object().unwrap().clone());
    send::send(&world.store, &world.identity, &alice, room, new, None, 1).unwrap().wait().unwrap();
    world.change(&bob, club, &bob, Action::Join).unwrap();
    world.change(&bob, room, &bob, Action::Join).unwrap();
    assert!(matches!(world.change(&eve, room, &eve, Action::Join), Err(Error::Forbidden(_))));

    let show = |profile: serde_json::Value| {
        let profile = profile.as_object().unwrap().clone();
        membership::show_profile(&world.store, &world.identity, &bob, room, profile, 1).unwrap().wait().unwrap();
        let db = world.store.snapshot();
        let root = head(&db, room).unwrap().state;
        state::content::<serde_json::Value>(&db, room, root, "m.room.member", bob.id.as_str()).unwrap().unwrap()
    };
    let joined = json!({ "membership": "join", "join_authorised_via_users_server": alice.id });
    assert_eq!(show(json!({})), joined, "a profile that is shown already is not sent anew");
    assert_eq!(
        show(json!({ "displayname": "Bob" })),
        json!({ "membership": "join", "displayname": "Bob" }),
        "bob needs nobody now"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_state_reads_and_differs_as_a_map(steps in proptest::collection::vec((0..4_u8, 0..40_u8, 1..1000_u32), 1..60), cut in 0..60_usize) {
        let world = World::new();
        let room = RoomNo(9);
        let check = |tx: &mut store::Tx<'_>| -> Result<()> {
            tx.own_new(Lock::Room(room));
            let mut head = Head::default();
            let (mut root, mut model) = (Root::default(), BTreeMap::new());
            let mut past = (root, model.clone());
            for (step, (kind, key, event)) in steps.iter().enumerate() {
                let (kind, key) = (format!("type{kind}"), format!("key{key}"));
                root = state::with(tx, room, &mut head, root, (&kind, &key), EventNo(*event))?;
                model.insert((kind, key), EventNo(*event));
                if step == cut {
                    past = (root, model.clone());
                }
            }
            for ((kind, key), event) in &model {
                assert_eq!(state::entry(tx, room, root, kind, key)?, Some(*event));
            }
            assert_eq!(state::entry(tx, room, root, "type0", "absent")?, None);
            let mut all = state::all(tx, room, root)?;
            all.sort_unstable();
            let mut expected: Vec<_> = model.values().copied().collect();
            expected.sort_unstable();
            assert_eq!(all, expected);
            let mut difference = state::difference(tx, room, past.0, root)?;
            difference.sort_unstable();
            let mut expected: Vec<_> = model
                .iter()
                .map(|(place, event)| (past.1.get(place).copied(), Some(*event)))
                .filter(|(old, new)| old != new)
                .collect();
            expected.sort_unstable();
            assert_eq!(difference, expected);
            Ok(())
        };
        world.store.transact(&[], check).unwrap().wait().unwrap();
    }
}

#[test]
fn a_member_event_in_a_large_room_writes_few_bytes_of_state() {
    let world = World::new();
    let room = RoomNo(9);
    let written = |tx: &mut store::Tx<'_>| -> Result<u32> {
        tx.own_new(Lock::Room(room));
        let mut head = Head::default();
        let mut root = Root::default();
        for member in 0..10_000_u32 {
            root =
                state::with(tx, room, &mut head, root, ("m.room.member", &format!("@{member}:localhost")), EventNo(member + 1))?;
        }
        let before = head.nodes;
        state::with(tx, room, &mut head, root, ("m.room.member", "@5000:localhost"), EventNo(10_001))?;
        Ok(head.nodes - before)
    };
    let nodes = world.store.transact(&[], written).unwrap().wait().unwrap();
    assert!(nodes <= 6, "{nodes} nodes of at most 16 children each");
}

#[test]
fn an_open_room_numbers_what_it_appends() {
    let world = World::new();
    let alice = world.user("alice");
    let (room, _) = world.room(&alice, "12", Preset::PrivateChat);
    let places = |tx: &mut store::Tx<'_>| -> Result<(Pos, Pos)> {
        let mut open = OpenRoom::new(tx, room)?;
        Ok((open.next_pos()?, open.next_pos()?))
    };
    let (first, second) = world.store.transact(&[Lock::Room(room)], places).unwrap().wait().unwrap();
    assert_eq!(second.0, first.0 + 1);
    assert_eq!(first.seq().0, world.store.snapshot().seq().0 + 1);
}
