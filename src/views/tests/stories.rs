//! What happens to a user, as their client is told it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use rooms::{
    NewEvent,
    create::Preset,
    membership::Action,
    receipts::{self, Kind, Mark, Thread},
    typing,
};
use serde_json::{Value, json};
use store::Topic;

use super::world::{Client, World, events, object};
use crate::sync::state::Target;

fn bodies(section: &Value) -> Vec<String> {
    events(section).iter().filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

#[test]
fn what_is_said_arrives_once() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room(&alice, Preset::PublicChat);
    let id = world.id(room);
    let mut client = Client::plain(&bob);
    assert!(client.sync(&world)["rooms"].is_null());
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let joined = client.sync(&world);
    assert_eq!(joined["rooms"]["join"][&id]["timeline"]["limited"], true, "older events may be known from an earlier stay");
    world.say(&alice, room, "hello").unwrap();
    let told = client.sync(&world);
    assert_eq!(bodies(&told["rooms"]["join"][&id]["timeline"]), ["hello"]);
    assert_eq!(told["rooms"]["join"][&id]["timeline"]["limited"], false);
    assert_eq!(events(&told["rooms"]["join"][&id]["timeline"])[0]["unsigned"]["membership"], "join");
    assert!(client.sync(&world)["rooms"].is_null());
}

#[test]
fn typing_and_receipts_are_told_as_they_change() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room(&alice, Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let event = world.say(&alice, room, "hello").unwrap();
    let mut client = Client::plain(&alice);
    let id = world.id(room);
    let mut told = || events(&client.sync(&world)["rooms"]["join"][&id]["ephemeral"]);
    assert!(told().is_empty());

    // The clock of this world's clients stands at 5000.
    typing::set(&world.store, bob.no, room, Some(1_000), 4_500).unwrap();
    let mark = |kind| {
        let mark = Mark::Read { kind, thread: Thread::Unthreaded, event: event.as_str().try_into().unwrap() };
        receipts::mark(&world.store, &bob, room, &[mark], 7).unwrap().wait().unwrap();
    };
    mark(Kind::Public);
    let typing = json!({ "type": "m.typing", "content": { "user_ids": ["@bob:localhost"] } });
    let read = json!({ &event: { "m.read": { "@bob:localhost": { "ts": 7 } } } });
    assert_eq!(told(), [typing, json!({ "type": "m.receipt", "content": read })]);

    mark(Kind::Private);
    assert!(told().is_empty(), "what he reads in private is not told");
    typing::set(&world.store, bob.no, room, None, 4_600).unwrap();
    world.say(&bob, room, "done").unwrap();
    assert_eq!(told(), [json!({ "type": "m.typing", "content": { "user_ids": [] } })]);
    assert!(told().is_empty());

    let none = json!({ "room": { "ephemeral": { "types": [] } } });
    let mut silent = Client::new(&alice, none, Target::Start);
    assert!(events(&silent.sync(&world)["rooms"]["join"][&id]["ephemeral"]).is_empty());
    let fresh = Client::plain(&alice).sync(&world);
    assert_eq!(events(&fresh["rooms"]["join"][&id]["ephemeral"])[0]["type"], "m.receipt");
}

#[test]
fn what_is_unread_is_counted_until_it_is_read() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room(&alice, Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let id = world.id(room);
    let by_thread = json!({ "room": { "timeline": { "unread_thread_notifications": true }, "ephemeral": { "types": [] } } });
    let (mut client, mut threaded) = (Client::plain(&bob), Client::new(&bob, by_thread, Target::Start));
    let mut told = || [&mut client, &mut threaded].map(|client| client.sync(&world)["rooms"]["join"][&id].clone());
    let count = |notifications: u32| json!({ "notification_count": notifications, "highlight_count": 0 });
    assert_eq!(told().map(|room| room["unread_notifications"].clone()), [count(0), count(0)]);

    let root = world.say(&alice, room, "root").unwrap();
    let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
    let content = object(json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": relates_to }));
    let reply = world.send(&alice, room, NewEvent { kind: "m.room.message".into(), content, ..NewEvent::default() }).unwrap();
    let [plain, by_thread] = told();
    assert_eq!((&plain["unread_notifications"], &plain["unread_thread_notifications"]), (&count(2), &Value::Null));
    assert_eq!(by_thread["unread_notifications"], count(1));
    assert_eq!(by_thread["unread_thread_notifications"], json!({ root: count(1) }));

    let mark = Mark::Read { kind: Kind::Private, thread: Thread::Unthreaded, event: reply.as_str().try_into().unwrap() };
    receipts::mark(&world.store, &bob, room, &[mark], 7).unwrap().wait().unwrap();
    let read = told();
    assert_eq!(
        read.each_ref().map(|room| &room["unread_notifications"]),
        [&count(0), &count(0)],
        "told, even with receipts filtered"
    );
    assert!(told().iter().all(Value::is_null));
}

#[test]
fn counts_go_on_by_the_rules_of_their_time() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room(&alice, Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let id = world.id(room);
    let mut client = Client::plain(&bob);
    let mut counted =
        || client.sync(&world)["rooms"]["join"][&id]["unread_notifications"]["notification_count"].as_u64().unwrap();
    assert_eq!(counted(), 0);
    let first = world.say(&alice, room, "1").unwrap();
    assert_eq!(counted(), 1);
    world.say(&alice, room, "2").unwrap();
    assert_eq!(counted(), 2);
    let redacts = Some(first.as_str().try_into().unwrap());
    world.send(&alice, room, NewEvent { kind: "m.room.redaction".into(), redacts, ..NewEvent::default() }).unwrap();
    assert_eq!(counted(), 1, "what is redacted is no longer counted");
    world.say(&bob, room, "3").unwrap();
    assert_eq!(counted(), 0, "who speaks has read");
    world.say(&alice, room, "4").unwrap();
    assert_eq!(counted(), 1);
    let master = |on| {
        let (kind, id) = ("override".into(), ".m.rule.master");
        users::push_rules::set_enabled(&world.store, bob.no, kind, id, on).unwrap().wait().unwrap();
    };
    master(true);
    world.say(&alice, room, "5").unwrap();
    assert_eq!(counted(), 1, "what was notified of stays, what comes now does not notify");
    master(false);
    world.say(&alice, room, "6").unwrap();
    assert_eq!(counted(), 2);
}

#[test]
fn a_private_receipt_wakes_its_owner_alone() {
    let world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room(&alice, Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let said = world.say(&alice, room, "hello").unwrap();
    let (mut own, mut other) = (Client::plain(&bob), Client::plain(&alice));
    own.sync(&world);
    other.sync(&world);
    let before = world.store.snapshot().seq();
    let mark = |kind| {
        let mark = Mark::Read { kind, thread: Thread::Unthreaded, event: said.as_str().try_into().unwrap() };
        receipts::mark(&world.store, &bob, room, &[mark], 7).unwrap().wait().unwrap();
    };
    mark(Kind::Private);
    let db = world.store.snapshot();
    assert!(db.changed_since(before, [Topic::Room(room)]).is_empty());
    assert_eq!(db.changed_since(before, [Topic::User(bob.no)]), [Topic::User(bob.no)]);
    let told = own.sync(&world)["rooms"]["join"][&world.id(room)].clone();
    assert_eq!(events(&told["ephemeral"])[0]["content"][&said]["m.read.private"][bob.id.as_str()]["ts"], 7);
    assert_eq!(told["unread_notifications"]["notification_count"], 0);
    assert!(other.sync(&world)["rooms"].is_null());
    assert!(own.sync(&world)["rooms"].is_null(), "told once");
    mark(Kind::Public);
    assert!(!world.store.snapshot().changed_since(before, [Topic::Room(room)]).is_empty());
}

#[test]
fn a_long_count_is_kept_over_a_restart() {
    let mut world = World::new();
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room(&alice, Preset::PublicChat);
    world.change(&bob, room, &bob, Action::Join).unwrap();
    let id = world.id(room);
    for said in 0..300 {
        world.say(&alice, room, &said.to_string()).unwrap();
    }
    let count = |world: &World| {
        let answer = Client::plain(&bob).sync(world);
        answer["rooms"]["join"][&id]["unread_notifications"]["notification_count"].as_u64().unwrap()
    };
    assert_eq!(count(&world), 300);
    let unsaved = world.memory.unsaved(bob.no);
    assert_eq!(unsaved.len(), 1);
    assert!(world.memory.unsaved(bob.no).is_empty(), "taken once");
    rooms::unread::save(&world.store, bob.no, &unsaved).unwrap().wait().unwrap();
    world.say(&alice, room, "more").unwrap();
    world.memory = crate::Memory::new(world.store.spare_memory());
    assert_eq!(count(&world), 301);
    assert!(world.memory.unsaved(bob.no).is_empty(), "only what came since was judged");
}
