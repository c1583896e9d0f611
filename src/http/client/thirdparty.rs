//! Bridged networks ("Third-party Networks"). Without a bridge there is none, and nothing is found in any.

use std::collections::BTreeMap;

use ruma::api::client::thirdparty::{
    get_location_for_protocol, get_location_for_room_alias, get_protocol, get_protocols::v3 as protocols, get_user_for_protocol,
    get_user_for_user_id,
};

use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(User, Class::Free, protocols),
        endpoint(User, Class::Free, not_found::<get_protocol::v3::Request>),
        endpoint(User, Class::Free, not_found::<get_location_for_protocol::v3::Request>),
        endpoint(User, Class::Free, not_found::<get_user_for_protocol::v3::Request>),
        endpoint(User, Class::Free, not_found::<get_location_for_room_alias::v3::Request>),
        endpoint(User, Class::Free, not_found::<get_user_for_user_id::v3::Request>),
    ]
}

async fn protocols(_: Call<Session>, _: protocols::Request) -> Result<protocols::Response> {
    Ok(protocols::Response::new(BTreeMap::new()))
}

async fn not_found<R: Send>(_: Call<Session>, _: R) -> Result<Json<()>> {
    Err(Error::not_found("No bridge knows this network, or what was asked for in it"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn without_a_bridge_no_network_is_known() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        let base = "/_matrix/client/v3/thirdparty";
        assert_eq!(alice.get(&format!("{base}/protocols")).await.ok(), json!({}));
        for path in ["protocol/irc", "location/irc?x=y", "user/irc", "location?alias=%23a:x", "user?userid=@a:x"] {
            alice.get(&format!("{base}/{path}")).await.fails(404, "M_NOT_FOUND");
        }
        hearth.get(&format!("{base}/protocols")).await.fails(401, "M_MISSING_TOKEN");
    }
}
