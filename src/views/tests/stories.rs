//! What happens to a user, as their client is told it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use rooms::{create::Preset, membership::Action};
use serde_json::Value;

use super::world::{Client, World, events};

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
