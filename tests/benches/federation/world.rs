//! Servers of one process.

use std::{sync::Arc, time::Duration};

use http_layer::testing::{Hearth, Network, Person};
use rooms::{Sender, membership};
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};
use store::RoomNo;

/// The server that has the room.
pub const HERE: &str = "one.test";
/// The other.
pub const THERE: &str = "two.test";

/// Runs a measurement on as many threads as the machine has.
pub fn run(measurement: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(measurement);
}

/// A server that tells others what there is to tell, until the process ends.
pub fn running(network: &Network, name: &str) -> Hearth {
    let hearth = Hearth::named_in(network, name);
    let server = Arc::clone(&hearth.server);
    tokio::spawn(async move { server.federation.run(server.stopping()).await.unwrap() });
    hearth
}

/// A public room, and its number on the server of its creator.
pub async fn room(of: &Person) -> (String, RoomNo) {
    let request = json!({ "preset": "public_chat", "room_version": "11", "name": "Hall" });
    let created = of.post("/_matrix/client/v3/createRoom", request).await.ok();
    let id = created["room_id"].as_str().unwrap().to_owned();
    let no = number(&of.hearth, &id).unwrap();
    (id, no)
}

/// The number of a room on a server that knows it.
pub fn number(hearth: &Hearth, room: &str) -> Option<RoomNo> {
    rooms::numbers::number(&hearth.server.store.snapshot(), room.try_into().unwrap()).unwrap()
}

/// A user of a server, without an account.
pub fn user(hearth: &Hearth, localpart: &str) -> Sender {
    let id = OwnedUserId::try_from(format!("@{localpart}:{}", hearth.server.name)).unwrap();
    Sender { no: users::numbers::ensure(&hearth.server.store, &id).unwrap(), id }
}

/// Has so many users of a server join a room of it.
pub async fn fill(hearth: &Hearth, room: RoomNo, members: u32) {
    let server = &hearth.server;
    for member in 0..members {
        let member = user(hearth, &format!("member{member}"));
        let change = membership::Change { target: member.id.clone(), to: membership::Action::Join, content: Map::new() };
        membership::change(&server.store, &server.identity, &member, room, change, server.now_ms()).unwrap().soft();
    }
    hearth.settle().await;
}

/// A path of the client-server API within a room.
pub fn path(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v3/rooms{}/{rest}", federation::path(&[room]))
}

/// Enters a room of the other server.
pub async fn join(who: &Person, room: &str) {
    who.post(&format!("/_matrix/client/v3/join{}?via={HERE}", federation::path(&[room])), json!({})).await.ok();
}

/// A text.
pub fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// Waits for something.
pub async fn until(mut is: impl AsyncFnMut() -> bool) {
    while !is().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Bytes of memory that this process has (`VmRSS`), or has had at most (`VmHWM`).
pub fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Has the kernel forget what this process had at most.
pub fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
