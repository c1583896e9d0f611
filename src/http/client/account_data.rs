//! Account data and tags ("Client Config", "Room Tagging").

use ruma::{
    RoomId, UserId,
    api::client::{
        config::{get_global_account_data, get_room_account_data, set_global_account_data, set_room_account_data},
        tag::{create_tag, delete_tag, get_tags},
    },
};
use serde_json::{Map, Value, json, value::RawValue};
use store::RoomNo;
use users::account_data;

use super::with::{With, own};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(User, Class::Read, read_global),
        endpoint(User, Class::Write, set_global).body_max(account_data::CONTENT_MAX_BYTES),
        endpoint(User, Class::Read, read_room),
        endpoint(User, Class::Write, set_room).body_max(account_data::CONTENT_MAX_BYTES),
        endpoint(User, Class::Read, tags),
        endpoint(User, Class::Write, set_tag),
        endpoint(User, Class::Write, remove_tag),
    ]
}

/// The number of a room that the caller has or had to do with. Of others it is not told whether they are known here.
fn room(call: &Call<Session>, user: &UserId, room: &RoomId) -> Result<RoomNo> {
    own(&call.session, user)?;
    let db = call.snapshot();
    let number = super::rooms::known_room(&db, room)?;
    match rooms::members::user_room(&db, call.session.user, number)? {
        Some(_) => Ok(number),
        None => Err(rooms::Error::UnknownRoom.into()),
    }
}

fn read(call: &Call<Session>, room: Option<RoomNo>, event_type: &str) -> Result<Json<Box<RawValue>>> {
    let content = account_data::content(&call.snapshot(), call.session.user, room, event_type)?;
    let content = content.ok_or_else(|| Error::not_found("There is no account data of this type"))?;
    Ok(Json(RawValue::from_string(content).map_err(Error::internal)?))
}

async fn read_global(call: Call<Session>, request: get_global_account_data::v3::Request) -> Result<Json<Box<RawValue>>> {
    own(&call.session, &request.user_id)?;
    read(&call, None, &request.event_type.to_string())
}

async fn set_global(
    call: Call<Session>,
    request: With<set_global_account_data::v3::Request, Box<RawValue>>,
) -> Result<set_global_account_data::v3::Response> {
    own(&call.session, &request.user_arg(0)?)?;
    account_data::set(&call.server.store, call.session.user, None, request.arg(1), &request.body)?.durable().await?;
    Ok(set_global_account_data::v3::Response::new())
}

async fn read_room(call: Call<Session>, request: get_room_account_data::v3::Request) -> Result<Json<Box<RawValue>>> {
    let room = room(&call, &request.user_id, &request.room_id)?;
    read(&call, Some(room), &request.event_type.to_string())
}

async fn set_room(
    call: Call<Session>,
    request: With<set_room_account_data::v3::Request, Box<RawValue>>,
) -> Result<set_room_account_data::v3::Response> {
    let id = request.room_arg(1)?;
    let room = room(&call, &request.user_arg(0)?, &id)?;
    account_data::set(&call.server.store, call.session.user, Some(room), request.arg(2), &request.body)?.durable().await?;
    Ok(set_room_account_data::v3::Response::new())
}

async fn tags(call: Call<Session>, request: get_tags::v3::Request) -> Result<Json<Value>> {
    let room = room(&call, &request.user_id, &request.room_id)?;
    Ok(Json(json!({ "tags": account_data::tags(&call.snapshot(), call.session.user, room)? })))
}

async fn set_tag(
    call: Call<Session>,
    request: With<create_tag::v3::Request, Map<String, Value>>,
) -> Result<create_tag::v3::Response> {
    let id = request.room_arg(1)?;
    let room = room(&call, &request.user_arg(0)?, &id)?;
    let tag = request.arg(2).to_owned();
    account_data::set_tag(&call.server.store, call.session.user, room, &tag, request.body)?.durable().await?;
    Ok(create_tag::v3::Response::new())
}

async fn remove_tag(call: Call<Session>, request: delete_tag::v3::Request) -> Result<delete_tag::v3::Response> {
    let room = room(&call, &request.user_id, &request.room_id)?;
    account_data::delete_tag(&call.server.store, call.session.user, room, &request.tag)?.durable().await?;
    Ok(delete_tag::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn account_data_belongs_to_its_user() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let path = format!("/_matrix/client/v3/user/{}/account_data", alice.user_id);
        alice.put(&format!("{path}/m.direct"), json!({ "@b:x": ["!r:x"] })).await.ok();
        assert_eq!(alice.get(&format!("{path}/m.direct")).await.ok(), json!({ "@b:x": ["!r:x"] }));
        alice.get(&format!("{path}/m.none")).await.fails(404, "M_NOT_FOUND");
        let rules = alice.get(&format!("{path}/m.push_rules")).await.ok();
        assert!(rules["global"]["override"].is_array(), "they are there from the beginning");
        alice.put(&format!("{path}/m.push_rules"), json!({})).await.fails(405, "M_BAD_JSON");
        alice.put(&format!("{path}/m.direct"), json!([])).await.fails(400, "M_BAD_JSON");
        bob.get(&format!("{path}/m.direct")).await.fails(403, "M_FORBIDDEN");
        bob.put(&format!("{path}/m.direct"), json!({})).await.fails(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn rooms_have_account_data_and_tags_for_those_who_know_them() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let room = alice.post("/_matrix/client/v3/createRoom", json!({})).await.ok();
        let room = room["room_id"].as_str().unwrap_or_default();
        let of = |user: &str| format!("/_matrix/client/v3/user/{user}/rooms/{room}");
        let path = of(&alice.user_id);
        alice.put(&format!("{path}/account_data/org.example"), json!({ "n": 1 })).await.ok();
        assert_eq!(alice.get(&format!("{path}/account_data/org.example")).await.ok(), json!({ "n": 1 }));
        alice.put(&format!("{path}/account_data/m.fully_read"), json!({})).await.fails(405, "M_BAD_JSON");
        assert_eq!(alice.get(&format!("{path}/tags")).await.ok(), json!({ "tags": {} }));
        alice.put(&format!("{path}/tags/m.favourite"), json!({ "order": 0.25 })).await.ok();
        alice.put(&format!("{path}/tags/u.work"), json!({})).await.ok();
        alice.delete(&format!("{path}/tags/u.work")).await.ok();
        assert_eq!(alice.get(&format!("{path}/tags")).await.ok(), json!({ "tags": { "m.favourite": { "order": 0.25 } } }));
        let stranger = bob.put(&format!("{}/tags/u.work", of(&bob.user_id)), json!({})).await.fails(404, "M_NOT_FOUND");
        let nowhere = format!("/_matrix/client/v3/user/{}/rooms/!none:hearth.test/tags/u.work", bob.user_id);
        assert_eq!(bob.put(&nowhere, json!({})).await.fails(404, "M_NOT_FOUND"), stranger, "no hint of which rooms there are");
    }
}
