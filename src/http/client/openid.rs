//! OpenID tokens, and whose they are ("OpenID"). The third party asks at the path of the server-server API, as anybody may.

use std::time::Duration;

use ruma::{
    api::{auth_scheme::NoAuthentication, client::account::request_openid_token},
    authentication::TokenType,
    metadata,
};
use serde_json::{Value, json};
use users::{numbers, openid};

use super::with::{Nothing, With, own};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Public, Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Write, issue)]
}

/// What a third party asks, which may reach only what other servers reach.
pub(crate) fn for_servers() -> Vec<Route> {
    vec![endpoint(Public, Class::Read, user_info)]
}

async fn issue(call: Call<Session>, request: request_openid_token::v3::Request) -> Result<request_openid_token::v3::Response> {
    own(&call.session, &request.user_id)?;
    let server = &call.server;
    let token = openid::issue(&server.store, &mut server.rng(), call.session.user, call.now_ms())?.durable().await?;
    let holds = Duration::from_millis(openid::HOLDS_MS);
    Ok(request_openid_token::v3::Response::new(token.into_text(), TokenType::Bearer, server.name.clone(), holds))
}

/// Where a third party asks.
mod asked {
    use super::{NoAuthentication, metadata};

    pub(super) struct Request;
    metadata! { method: GET, rate_limited: true, authentication: NoAuthentication, path: "/_matrix/federation/v1/openid/userinfo" }
}

async fn user_info(call: Call<()>, request: With<asked::Request, Nothing>) -> Result<Json<Value>> {
    let db = call.snapshot();
    let token = request.query.split('&').find_map(|pair| pair.strip_prefix("access_token="));
    let token = token.ok_or_else(|| Error::missing_param("The query names no access_token"))?;
    let user = openid::owner(&db, token, call.now_ms())?.ok_or_else(|| Error::unknown_token(false))?;
    Ok(Json(json!({ "sub": numbers::user_id(&db, user)? })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn a_third_party_learns_who_someone_is() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let path = format!("/_matrix/client/v3/user/{}/openid/request_token", alice.user_id);
        let issued = alice.post(&path, json!({})).await.ok();
        assert_eq!((&issued["token_type"], &issued["expires_in"]), (&json!("Bearer"), &json!(3600)));
        let ask = |token: &str| hearth.get(&format!("/_matrix/federation/v1/openid/userinfo?access_token={token}"));
        let token = issued["access_token"].as_str().unwrap_or_default();
        assert_eq!(ask(token).await.ok(), json!({ "sub": "@alice:hearth.test" }));
        ask(&alice.token).await.fails(401, "M_UNKNOWN_TOKEN");
        ask("").await.fails(401, "M_UNKNOWN_TOKEN");
        hearth.get("/_matrix/federation/v1/openid/userinfo").await.fails(400, "M_MISSING_PARAM");
        hearth.get("/_matrix/client/v3/account/whoami").token(token).await.fails(401, "M_UNKNOWN_TOKEN");
        bob.post(&path, json!({})).await.fails(403, "M_FORBIDDEN");
    }
}
