//! What happens to a user, as their client is told it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use rooms::{
    create::Preset,
    membership::Action,
    receipts::{self, Kind, Mark, Thread},
    typing,
};
use serde_json::{Value, json};

use super::world::{Client, World, events};
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
