//! Profiles ("Profiles"). Those of other servers are asked for over federation.

use ruma::{
    UserId,
    api::client::profile::{delete_profile_field, get_profile, get_profile_field, set_profile_field},
};
use serde_json::{Map, Value};
use store::{Read, UserNo};
use users::{
    accounts::{self, Kind},
    profiles,
};

use super::with::{With, may_publish, own};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Public, Session, UserOrGuest},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(Public, Class::Read, read),
        endpoint(Public, Class::Read, read_field),
        endpoint(UserOrGuest, Class::Write, set_field).body_max(BODY_MAX),
        endpoint(UserOrGuest, Class::Write, delete_field),
    ]
}

/// A profile has at most 64 KiB, and a field of it a name of 255 bytes.
const BODY_MAX: usize = (64 << 10) + 1024;

/// A user of this server whose profile is shown. Of one who was erased nothing is left to be shown.
pub(crate) fn shown(db: &impl Read, user: &UserId) -> Result<UserNo> {
    let found = accounts::find(db, user)?;
    let shown = found.filter(|(_, account)| !account.erased);
    shown.map(|(number, _)| number).ok_or_else(|| Error::not_found("There is no such user, or no profile"))
}

async fn read(call: Call<()>, request: get_profile::v3::Request) -> Result<Json<Map<String, Value>>> {
    if request.user_id.server_name() != call.server.name {
        return Ok(Json(call.server.federation.profile(&request.user_id, None).await?));
    }
    let db = call.snapshot();
    Ok(Json(profiles::profile(&db, shown(&db, &request.user_id)?)?))
}

async fn read_field(call: Call<()>, request: get_profile_field::v3::Request) -> Result<Json<Map<String, Value>>> {
    let name = request.field.as_str();
    let value = if request.user_id.server_name() == call.server.name {
        let db = call.snapshot();
        profiles::field(&db, shown(&db, &request.user_id)?, name)?
    } else {
        call.server.federation.profile(&request.user_id, Some(name)).await?.remove(name)
    };
    let value = value.ok_or_else(|| Error::not_found("The profile has no such field"))?;
    Ok(Json(Map::from_iter([(name.to_owned(), value)])))
}

async fn set_field(
    call: Call<Session>,
    request: With<set_profile_field::v3::Request, Map<String, Value>>,
) -> Result<set_profile_field::v3::Response> {
    let name = request.arg(1).to_owned();
    changeable(&call.session, &request.user_arg(0)?, &name)?;
    let mut body = request.body;
    let value = body.remove(&name).ok_or_else(|| Error::missing_param(format!("The body has no {name}")))?;
    profiles::put(&call.server.store, call.session.user, &name, value)?.durable().await?;
    Ok(set_profile_field::v3::Response::new())
}

async fn delete_field(
    call: Call<Session>,
    request: delete_profile_field::v3::Request,
) -> Result<delete_profile_field::v3::Response> {
    changeable(&call.session, &request.user_id, request.field.as_str())?;
    profiles::delete(&call.server.store, call.session.user, request.field.as_str())?.durable().await?;
    Ok(delete_profile_field::v3::Response::new())
}

/// Guests have a name, and nothing else of a profile ("Guest Access").
fn changeable(session: &Session, user: &UserId, field: &str) -> Result<()> {
    own(session, user)?;
    if session.kind == Kind::Guest && field != profiles::DISPLAYNAME {
        return Err(Error::guests_forbidden());
    }
    may_publish(session)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn a_profile_is_written_by_its_user_and_read_by_anybody() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let path = format!("/_matrix/client/v3/profile/{}", alice.user_id);
        assert_eq!(hearth.get(&path).await.ok(), json!({}));
        alice.put(&format!("{path}/displayname"), json!({ "displayname": "Alice" })).await.ok();
        alice.put(&format!("{path}/m.tz"), json!({ "m.tz": "Europe/Oslo" })).await.ok();
        assert_eq!(hearth.get(&path).await.ok(), json!({ "displayname": "Alice", "m.tz": "Europe/Oslo" }));
        assert_eq!(bob.get(&format!("{path}/displayname")).await.ok(), json!({ "displayname": "Alice" }));
        alice.delete(&format!("{path}/m.tz")).await.ok();
        hearth.get(&format!("{path}/m.tz")).await.fails(404, "M_NOT_FOUND");
        hearth.get("/_matrix/client/v3/profile/@nobody:hearth.test").await.fails(404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn hostile_changes_are_refused() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let path = format!("/_matrix/client/v3/profile/{}", alice.user_id);
        bob.put(&format!("{path}/displayname"), json!({ "displayname": "Eve" })).await.fails(403, "M_FORBIDDEN");
        bob.delete(&format!("{path}/displayname")).await.fails(403, "M_FORBIDDEN");
        alice.put(&format!("{path}/displayname"), json!({ "avatar_url": "x" })).await.fails(400, "M_MISSING_PARAM");
        alice.put(&format!("{path}/displayname"), json!({ "displayname": 5 })).await.fails(400, "M_BAD_JSON");
        alice.put(&format!("{path}/Job"), json!({ "Job": 5 })).await.fails(400, "M_INVALID_PARAM");
        let name = format!("m.{}", "x".repeat(254));
        alice.put(&format!("{path}/{name}"), json!({ &name: 5 })).await.fails(400, "M_KEY_TOO_LARGE");
        let large = json!({ "m.x": "x".repeat(65_530) });
        alice.put(&format!("{path}/m.x"), large).await.fails(400, "M_PROFILE_TOO_LARGE");
        users::accounts::set_suspended(&hearth.server.store, alice.user, true)
            .expect("alice exists")
            .durable()
            .await
            .expect("memory");
        alice.put(&format!("{path}/displayname"), json!({ "displayname": "A" })).await.fails(403, "M_USER_SUSPENDED");
    }
}
