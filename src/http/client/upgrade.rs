//! `POST /rooms/{roomId}/upgrade` ("Room Upgrades").

use protocol::version::RoomVersion;
use rooms::upgrade::Upgrade;
use ruma::api::client::room::upgrade_room::v3::{Request, Response};

use super::{
    create_room::opaque_id,
    rooms::{profile, room, sender, whole},
    with::may_publish,
};
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Join, upgrade)]
}

async fn upgrade(call: Call<Session>, request: Request) -> Result<Response> {
    may_publish(&call.session)?;
    let db = call.snapshot();
    let no = room(&db, &request.room_id)?;
    if !rooms::members::is_joined(&db, call.session.user, no)? {
        return Err(Error::forbidden("You are not in this room"));
    }
    // The bans go with the room.
    whole(&call, no).await?;
    let id = request.new_version.as_str();
    let upgrade = Upgrade {
        version: RoomVersion::named(id).ok_or_else(|| rooms::Error::UnsupportedVersion(id.to_owned()))?,
        additional_creators: request.additional_creators,
        profile: profile(&db, &call.session.user_id)?,
        opaque_id: opaque_id(&mut call.server.rng()),
    };
    let (server, sender) = (&call.server, sender(&call.session));
    let made = rooms::upgrade::upgrade(&server.store, &server.identity, &sender, no, upgrade, call.now_ms())?;
    Ok(Response::new(made.durable().await?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use crate::testing::{Hearth, Person};

    const V3: &str = "/_matrix/client/v3";

    async fn mute(who: &Person, room: &str) {
        who.put(&format!("{V3}/pushrules/global/room/{room}"), json!({ "actions": [] })).await.ok();
    }

    async fn has_muted(who: &Person, room: &str) -> bool {
        let rules = who.get(&format!("{V3}/pushrules/global/")).await.ok();
        rules["room"].as_array().unwrap().iter().any(|rule| rule["rule_id"] == room)
    }

    fn id(made: &Value, key: &str) -> String {
        made[key].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn members_keep_what_they_had_set_for_the_old_room() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let old = id(&alice.post(&format!("{V3}/createRoom"), json!({ "preset": "public_chat" })).await.ok(), "room_id");
        bob.post(&format!("{V3}/join/{old}"), json!({})).await.ok();
        mute(&alice, &old).await;
        mute(&bob, &old).await;
        let tags = |room: &str| format!("{V3}/user/{}/rooms/{room}/tags", bob.user_id);
        bob.put(&format!("{}/u.work", tags(&old)), json!({})).await.ok();

        let upgraded = alice.post(&format!("{V3}/rooms/{old}/upgrade"), json!({ "new_version": "11" })).await.ok();
        let new = id(&upgraded, "replacement_room");
        assert!(has_muted(&alice, &new).await && !has_muted(&bob, &new).await);
        bob.post(&format!("{V3}/join/{new}"), json!({})).await.ok();
        assert!(has_muted(&bob, &new).await && has_muted(&bob, &old).await);
        assert_eq!(bob.get(&tags(&new)).await.ok(), json!({ "tags": { "u.work": {} } }));
    }

    #[tokio::test]
    async fn a_stranger_cannot_say_that_their_room_replaces_another() {
        let hearth = Hearth::start();
        let (alice, bob, eve) = (hearth.register("alice").await, hearth.register("bob").await, hearth.register("eve").await);
        let old = id(&alice.post(&format!("{V3}/createRoom"), json!({ "preset": "public_chat" })).await.ok(), "room_id");
        bob.post(&format!("{V3}/join/{old}"), json!({})).await.ok();
        mute(&bob, &old).await;
        let succeeding = json!({ "preset": "public_chat", "creation_content": { "predecessor": { "room_id": old } } });
        let false_one = id(&eve.post(&format!("{V3}/createRoom"), succeeding.clone()).await.ok(), "room_id");
        bob.post(&format!("{V3}/join/{false_one}"), json!({})).await.ok();
        assert!(!has_muted(&bob, &false_one).await);

        // Made by hand, by who may end the old room.
        let new = id(&alice.post(&format!("{V3}/createRoom"), succeeding).await.ok(), "room_id");
        let tombstone = json!({ "body": "gone", "replacement_room": new });
        alice.put(&format!("{V3}/rooms/{old}/state/m.room.tombstone/"), tombstone).await.ok();
        bob.post(&format!("{V3}/join/{new}"), json!({})).await.ok();
        assert!(has_muted(&bob, &new).await);
    }
}
