//! `GET /capabilities`: what a user may do here ("Capabilities negotiation").

use ruma::api::client::discovery::get_capabilities::v3::Request;
use serde_json::{Map, Value, json};

use crate::{
    Call, Class, Json, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Free, capabilities)]
}

async fn capabilities(call: Call<Session>, _: Request) -> Result<Json<Value>> {
    let versions: Map<String, Value> =
        protocol::version::RoomVersion::all().iter().map(|version| (version.id.to_owned(), "stable".into())).collect();
    let mut capabilities = json!({
        "m.change_password": { "enabled": true },
        "m.room_versions": { "default": call.server.rooms.default_version.id, "available": versions },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.3pid_changes": { "enabled": false },
        "m.get_login_token": { "enabled": true },
        "m.forget_forced_upon_leave": { "enabled": false },
        "m.profile_fields": { "enabled": true },
    });
    if call.session.admin {
        capabilities["m.account_moderation"] = json!({ "suspend": true, "lock": true });
    }
    Ok(Json(json!({ "capabilities": capabilities })))
}

#[cfg(test)]
mod tests {
    use crate::testing::Hearth;

    #[tokio::test]
    async fn users_learn_which_room_versions_there_are() {
        let hearth = Hearth::start();
        hearth.get("/_matrix/client/v3/capabilities").await.fails(401, "M_MISSING_TOKEN");
        let alice = hearth.register("alice").await;
        let told = alice.get("/_matrix/client/v3/capabilities").await.ok();
        assert_eq!(told["capabilities"]["m.room_versions"]["available"]["12"], "stable");
    }
}
