//! Presence across servers of one process: who is told, what is believed, and how long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use users::presence::WORD_HOLDS_MS;

use super::{
    federation::{Running, eventually, is, join, room, run, running},
    federation_hostile::{EVIL, Evil},
};
use crate::testing::{Hearth, Network, Person};

/// A server that tells others of the presence of its users.
fn telling(network: &Network, name: &str) -> Running {
    run(Hearth::built_in(network, name, federation::Config { send_presence: true, ..Default::default() }))
}

async fn says(who: &Person, presence: &str, status: &str) {
    let path = format!("/_matrix/client/v3/presence/{}/status", who.user_id);
    who.put(&path, json!({ "presence": presence, "status_msg": status })).await.ok();
}

async fn seen(by: &Person, of: &str) -> Value {
    by.hearth.settle().await;
    let answer = by.get(&format!("/_matrix/client/v3/presence/{of}/status")).await;
    if answer.status.is_success() { answer.json() } else { Value::Null }
}

async fn sees(by: &Person, of: &str, status: &str) -> Value {
    let ask = async || Some(seen(by, of).await).filter(|seen| seen["status_msg"] == status);
    eventually("presence", ask).await
}

fn refresh(hearth: &Hearth) {
    rooms::presence::refresh(&hearth.server.store, &hearth.server.online, hearth.server.now_ms()).unwrap();
}

#[tokio::test]
async fn presence_is_told_to_servers_that_share_a_room() {
    let network = Network::default();
    let (one, two, three) = (telling(&network, "one.test"), telling(&network, "two.test"), running(&network, "three.test"));
    let (alice, bob, eve) =
        (one.hearth.register("alice").await, two.hearth.register("bob").await, three.hearth.register("eve").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    join(&bob, &room, "one.test").await;
    is(&alice, &room, &bob.user_id, "join").await;
    let since = bob.get("/_matrix/client/v3/sync?set_presence=offline").await.ok()["next_batch"].as_str().unwrap().to_owned();
    says(&alice, "online", "at the fire").await;
    let shown = sees(&bob, &alice.user_id, "at the fire").await;
    assert_eq!((&shown["presence"], &shown["currently_active"]), (&json!("online"), &json!(true)), "{shown}");
    let path = format!("/_matrix/client/v3/sync?since={since}&set_presence=offline");
    let told = eventually("presence in a sync", async || {
        let answer = bob.get(&path).await.ok();
        answer["presence"]["events"].as_array().into_iter().flatten().find(|event| event["sender"] == alice.user_id).cloned()
    });
    assert_eq!(told.await["content"]["status_msg"], "at the fire");

    says(&bob, "unavailable", "asleep").await;
    assert_eq!(sees(&alice, &bob.user_id, "asleep").await["presence"], "unavailable");

    // A server that tells nobody, as is the default, and that is in no room with them.
    join(&eve, &room, "one.test").await;
    is(&alice, &room, &eve.user_id, "join").await;
    says(&eve, "online", "unseen").await;
    says(&alice, "online", "to all").await;
    sees(&eve, &alice.user_id, "to all").await;
    assert_eq!(seen(&alice, &eve.user_id).await["presence"], "offline");
}

#[tokio::test]
async fn who_is_online_is_told_again_before_others_stop_believing_it() {
    let network = Network::default();
    let (one, two) = (telling(&network, "one.test"), running(&network, "two.test"));
    let (alice, bob) = (one.hearth.register("alice").await, two.hearth.register("bob").await);
    let room = room(&alice, json!({ "preset": "public_chat" })).await;
    says(&alice, "online", "early").await;
    join(&bob, &room, "one.test").await;
    assert_eq!(seen(&bob, &alice.user_id).await["presence"], "offline", "a server that came later");
    one.hearth.clock.advance(WORD_HOLDS_MS);
    sees(&bob, &alice.user_id, "early").await;

    two.hearth.clock.advance(WORD_HOLDS_MS - 1);
    refresh(&two.hearth);
    assert_eq!(seen(&bob, &alice.user_id).await["presence"], "online");
    two.hearth.clock.advance(1);
    refresh(&two.hearth);
    assert_eq!(seen(&bob, &alice.user_id).await["presence"], "offline", "the other server is silent");
}

#[tokio::test]
async fn a_server_speaks_only_for_its_own_users_in_common_rooms() {
    let network = Network::default();
    let one = Hearth::named_in(&network, "one.test");
    let (alice, mallory) = (one.register("alice").await, format!("@mallory:{EVIL}"));
    let evil = Evil::new(&network, &one);
    let room = room(&alice, json!({ "preset": "public_chat", "room_version": "11" })).await;
    evil.join(&room, &mallory).await;
    let of = |user: &str| json!({ "user_id": user, "presence": "online", "last_active_ago": 5000, "status_msg": "mine" });
    let mut lies = vec![
        json!("nonsense"),
        json!({ "user_id": mallory, "presence": "asleep" }),
        json!({ "user_id": mallory, "presence": "online", "last_active_ago": -1 }),
        of(&alice.user_id),
        of(&format!("@stranger:{EVIL}")),
    ];
    lies.extend(vec![of(&format!("@nobody:{EVIL}")); 95]);
    lies.push(of(&mallory));
    let push = |push: Value| json!({ "edu_type": "m.presence", "content": { "push": push } });
    evil.send("p1", &[], &[push(json!(lies)), push(json!({})), push(Value::Null)]).await.ok();
    assert_eq!(seen(&alice, &alice.user_id).await["presence"], "offline");
    assert_eq!(seen(&alice, &mallory).await["presence"], "offline", "beyond the limit of one message");

    let mut long = of(&mallory);
    long["status_msg"] = "x".repeat(2000).into();
    evil.send("p2", &[], &[push(json!([long]))]).await.ok();
    let shown = seen(&alice, &mallory).await;
    let expected = json!({ "presence": "online", "last_active_ago": 5000, "currently_active": false });
    assert_eq!(shown, expected, "a status that is too long is left out");
    evil.send("p3", &[], &[push(json!([{ "user_id": mallory, "presence": "offline" }]))]).await.ok();
    assert_eq!(seen(&alice, &mallory).await["presence"], "offline");
}
