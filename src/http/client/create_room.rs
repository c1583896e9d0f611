//! `POST /createRoom` ("Creation").

use protocol::{json::Object, version::RoomVersion};
use rand::Rng;
use rooms::{
    NewEvent,
    create::{NewRoom, Preset},
};
use ruma::{
    OwnedUserId, RoomAliasId, RoomId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, Response, RoomPreset},
    },
    serde::Raw,
};
use serde::Deserialize;

use super::{
    rooms::{content, profile, room, sender},
    with::may_publish,
};
use crate::{
    Call, Class, Error, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Join, create)]
}

async fn create(call: Call<Session>, request: Request) -> Result<Response> {
    may_publish(&call.session)?;
    let server = &call.server;
    let new = new_room(&call, request)?;
    let is_direct = new.is_direct;
    let invited = new.invite.iter().map(|(user, _)| user.clone());
    let others: Vec<OwnedUserId> = invited.filter(|user| user.server_name() != server.name).collect();
    let created = rooms::create::create(&server.store, &server.identity, &sender(&call.session), new, call.now_ms());
    let created = created.map_err(|error| match error {
        // It is not the creator who lacks power: what they ask for cannot be the beginning of a room.
        rooms::Error::Denied(denied) => Error::invalid_room_state(denied.to_string()),
        other => other.into(),
    })?;
    let room_id = created.durable().await?;
    invite_others(&call, &room_id, others, is_direct).await?;
    Ok(Response::new(room_id))
}

/// Invites users of other servers. The room is there: who cannot be invited can be later.
async fn invite_others(call: &Call<Session>, room_id: &RoomId, users: Vec<OwnedUserId>, is_direct: bool) -> Result<()> {
    if users.is_empty() {
        return Ok(());
    }
    let no = room(&call.snapshot(), room_id)?;
    for user in users {
        let content = if is_direct { Object::from_iter([("is_direct".to_owned(), true.into())]) } else { Object::new() };
        if let Err(error) = call.server.federation.invite(&sender(&call.session), no, &user, content).await {
            tracing::info!(%error, room = %room_id, %user, "a user of another server could not be invited to a new room");
        }
    }
    Ok(())
}

fn new_room(call: &Call<Session>, request: Request) -> Result<NewRoom> {
    let db = call.snapshot();
    let version = match &request.room_version {
        Some(id) => RoomVersion::named(id.as_str()).ok_or_else(|| rooms::Error::UnsupportedVersion(id.to_string()))?,
        None => call.server.rooms.default_version,
    };
    let public = request.visibility == Visibility::Public;
    let preset = match request.preset {
        Some(RoomPreset::PrivateChat) => Preset::PrivateChat,
        Some(RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivateChat,
        Some(RoomPreset::PublicChat) => Preset::PublicChat,
        None if public => Preset::PublicChat,
        None => Preset::PrivateChat,
        Some(_) => return Err(Error::invalid_param("The preset is not known")),
    };
    if let Some(alias) =
        request.room_alias_name.as_ref().and_then(|name| RoomAliasId::parse(format!("#{name}:{}", call.server.name)).ok())
    {
        call.server.users.appservices.check_alias(&alias, call.session.appservice.as_deref())?;
    }
    if !request.invite_3pid.is_empty() {
        return Err(Error::forbidden("This server does not invite by e-mail address or telephone number"));
    }
    let mut invite = Vec::with_capacity(request.invite.len());
    for user in request.invite {
        if user != call.session.user_id && !invite.iter().any(|(invited, _)| *invited == user) {
            let profile = profile(&db, &user)?;
            invite.push((user, profile));
        }
    }
    Ok(NewRoom {
        version,
        preset,
        creation_content: request.creation_content.as_ref().map(content).transpose()?.unwrap_or_default(),
        initial_state: request.initial_state.iter().map(initial_state).collect::<Result<_>>()?,
        name: request.name,
        topic: request.topic,
        invite,
        is_direct: request.is_direct,
        power_levels: request.power_level_content_override.as_ref().map(content).transpose()?.unwrap_or_default(),
        alias: request.room_alias_name,
        public,
        profile: profile(&db, &call.session.user_id)?,
        opaque_id: opaque_id(&mut call.server.rng()),
    })
}

fn initial_state<T>(raw: &Raw<T>) -> Result<NewEvent> {
    #[derive(Deserialize)]
    struct Given {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        state_key: String,
    }
    let given: Given = serde_json::from_str(raw.json().get()).map_err(|error| Error::bad_json(error.to_string()))?;
    let mut event = content(raw)?;
    match event.remove("content") {
        Some(serde_json::Value::Object(content)) => Ok(NewEvent::state(&given.kind, &given.state_key, content)),
        _ => Err(Error::bad_json("An initial state event has no content")),
    }
}

/// 18 letters, as other servers make them.
pub(super) fn opaque_id(rng: &mut impl Rng) -> String {
    use rand::RngExt;
    (0..18).map(|_| char::from(if rng.random() { b'a' } else { b'A' } + rng.random_range(0..26))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn a_beginning_that_the_rules_forbid_is_a_bad_request() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        let create = |version: &str, powers| {
            let users = json!({ "users": { &alice.user_id: powers } });
            let request = json!({ "room_version": version, "name": "Mine", "power_level_content_override": users });
            alice.post("/_matrix/client/v3/createRoom", request)
        };
        create("11", 101).await.ok();
        create("11", 10).await.fails(400, "M_INVALID_ROOM_STATE");
        create("12", 101).await.fails(400, "M_INVALID_ROOM_STATE");
    }
}
