//! `GET /voip/turnServer`: credentials for calls ("Voice over IP").

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use ruma::api::client::voip::get_turn_server_info::v3::Request;
use serde_json::{Value, json};
use sha1::Sha1;

use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User},
    config::Turn,
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Read, turn_server)]
}

/// 404 where there is no TURN server: an answer must hold credentials.
async fn turn_server(call: Call<Session>, _: Request) -> Result<Json<Value>> {
    let turn = call.server.config.turn.as_ref().ok_or_else(|| Error::not_found("This server has no TURN server"))?;
    credentials(turn, call.session.user_id.as_str(), call.now_ms() / 1000).map(Json)
}

/// With a secret, a user name that begins with its end, and the HMAC of it: the REST API for TURN that coturn implements.
fn credentials(turn: &Turn, user: &str, now_s: u64) -> Result<Value> {
    let ttl = if turn.ttl_s == 0 { 86_400 } else { turn.ttl_s };
    let (username, password) = match &turn.secret {
        None => (turn.username.clone(), turn.password.clone()),
        Some(secret) => {
            let username = format!("{}:{user}", now_s.saturating_add(ttl));
            let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(Error::internal)?;
            mac.update(username.as_bytes());
            let password = BASE64_STANDARD.encode(mac.finalize().into_bytes());
            (username, password)
        }
    };
    Ok(json!({ "username": username, "password": password, "uris": turn.uris, "ttl": ttl }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_gives_each_user_credentials_that_end() {
        let turn = Turn { uris: vec!["turn:turn.test".into()], ttl_s: 3600, secret: Some("secret".into()), ..Turn::default() };
        let told = credentials(&turn, "@alice:hearth.test", 1_000).unwrap();
        // printf '4600:@alice:hearth.test' | openssl dgst -sha1 -hmac secret -binary | base64
        let expected = "9yRGeXkDFyzfu1A/ylOy6cjjDmM=";
        assert_eq!(
            told,
            json!({ "username": "4600:@alice:hearth.test", "password": expected, "uris": ["turn:turn.test"], "ttl": 3600 })
        );
    }

    #[test]
    fn without_a_secret_all_share_one_password() {
        let turn = Turn { username: "u".into(), password: "p".into(), ..Turn::default() };
        let told = credentials(&turn, "@alice:hearth.test", 0).unwrap();
        assert_eq!(told, json!({ "username": "u", "password": "p", "uris": [], "ttl": 86_400 }));
    }
}
