//! Logging in and refreshing tokens ("Login", "Refreshing access tokens").

use std::time::Duration;

use ruma::{
    OwnedDeviceId, OwnedUserId, ServerName, UserId,
    api::client::session::{get_login_token, get_login_types, login, refresh_token},
};
use serde::Deserialize;
use serde_json::{Value, json};
use store::UserNo;
use users::{
    accounts,
    appservices::Appservice,
    passwords,
    sessions::{self, LoggedIn, Login},
};

use super::{
    register::{APPLICATION_SERVICE, tokens},
    uiaa::{self, Auth, Identifier},
    with::With,
};
use crate::{
    Call, Class, Client, Error, Json, Result, Route, Server,
    auth::{Presented, Public, PublicOrService, Session, User},
    endpoint,
    limits::Payer,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(Public, Class::Read, types),
        endpoint(PublicOrService, Class::Login, log_in),
        endpoint(User, Class::Write, login_token),
        endpoint(Public, Class::Write, refresh),
    ]
}

async fn types(_: Call<()>, _: get_login_types::v3::Request) -> Result<Json<Value>> {
    let token = json!({ "type": "m.login.token", "get_login_token": true });
    Ok(Json(json!({ "flows": [{ "type": "m.login.password" }, token, { "type": APPLICATION_SERVICE }] })))
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Identifier>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

async fn log_in(call: Call<Presented>, request: With<login::v3::Request, Body>) -> Result<Json<Value>> {
    let body = request.body;
    let session = match body.kind.as_str() {
        "m.login.password" => by_password(&call.server, &call.client, body).await?,
        "m.login.token" => by_token(&call.server, &call.client, body).await?,
        APPLICATION_SERVICE => {
            let appservice = call.session.appservice()?;
            by_service(&call.server, &call.client, &appservice, body).await?
        }
        _ => return Err(Error::unknown("This login type is not known")),
    };
    Ok(Json(tokens(session).into()))
}

impl Body {
    /// Whom a client says that its user is.
    fn named(&self) -> Result<&str> {
        match (&self.identifier, &self.user) {
            (Some(Identifier { kind, user: Some(user) }), _) if kind == "m.id.user" => Ok(user),
            (None, Some(user)) => Ok(user),
            (Some(Identifier { kind, .. }), _) if kind != "m.id.user" => Err(users::Error::WrongCredentials.into()),
            _ => Err(Error::missing_param("The login needs an identifier with a user")),
        }
    }

    fn login(&self, client: &Client) -> Login<'_> {
        Login {
            device_id: self.device_id.as_deref(),
            display_name: self.initial_device_display_name.as_deref(),
            refresh: self.refresh_token,
            address: client.address,
        }
    }
}

/// A user of an application service, on its word.
async fn by_service(server: &Server, client: &Client, appservice: &Appservice, body: Body) -> Result<LoggedIn> {
    let user_id = user_id(body.named()?, &server.name).filter(|user_id| appservice.covers_user(user_id));
    let user_id = user_id.ok_or(users::Error::Exclusive)?;
    let (user, _) = accounts::find(&server.snapshot(), &user_id)?.ok_or(users::Error::WrongCredentials)?;
    start(server, user, body.login(client)).await
}

async fn start(server: &Server, user: UserNo, login: Login<'_>) -> Result<LoggedIn> {
    let pending = sessions::login(&server.store, &mut server.rng(), user, login, &server.users.sessions, server.now_ms())?;
    Ok(pending.durable().await?)
}

async fn by_password(server: &Server, client: &Client, body: Body) -> Result<LoggedIn> {
    let named = body.named()?;
    let password = body.password.clone().ok_or_else(|| Error::missing_param("The login needs a password"))?;
    let db = server.snapshot();
    let found = match user_id(named, &server.name) {
        Some(user_id) => accounts::find(&db, &user_id)?,
        None => None,
    };
    let user = found.map(|(user, _)| user);
    let stored = match user {
        Some(user) => {
            server.limits.take(Class::Login.into(), Payer::User(user), server.elapsed())?;
            accounts::password(&db, user)?
        }
        None => None,
    };
    drop(db);
    let right = server.blocking(move || Ok::<_, Error>(passwords::matches(&password, stored.as_ref()))).await?;
    start(server, user.filter(|_| right).ok_or(users::Error::WrongCredentials)?, body.login(client)).await
}

/// The user of this server who is named by the whole user id or its localpart, in any case.
fn user_id(named: &str, server: &ServerName) -> Option<OwnedUserId> {
    let localpart = if named.starts_with('@') {
        let user_id = UserId::parse(named).ok()?;
        if user_id.server_name() != server {
            return None;
        }
        user_id.localpart().to_owned()
    } else {
        named.to_owned()
    };
    accounts::wanted_user_id(&localpart, server).ok()
}

async fn by_token(server: &Server, client: &Client, body: Body) -> Result<LoggedIn> {
    let token = body.token.clone().ok_or_else(|| Error::missing_param("The login needs a token"))?;
    let (mut rng, config) = (server.rng(), &server.users.sessions);
    let pending = sessions::login_by_token(&server.store, &mut rng, &token, body.login(client), config, server.now_ms())?;
    Ok(pending.durable().await?)
}

#[derive(Deserialize)]
struct Authenticated {
    auth: Option<Auth>,
}

async fn login_token(
    call: Call<Session>,
    request: With<get_login_token::v1::Request, Authenticated>,
) -> Result<get_login_token::v1::Response> {
    uiaa::password(&call, "POST", "/login/get_token", request.body.auth).await?;
    let (server, config) = (&call.server, &call.server.users.sessions);
    let pending = sessions::issue_login_token(&server.store, &mut server.rng(), call.session.user, config, call.now_ms())?;
    let token = pending.durable().await?.into_text();
    Ok(get_login_token::v1::Response::new(Duration::from_millis(config.login_token_ms), token))
}

async fn refresh(call: Call<()>, request: refresh_token::v3::Request) -> Result<refresh_token::v3::Response> {
    let (server, config) = (&call.server, &call.server.users.sessions);
    let pending = sessions::refresh(&server.store, &mut server.rng(), &request.refresh_token, config, call.now_ms())?;
    let issued = pending.durable().await?;
    let mut response = refresh_token::v3::Response::new(issued.access_token.into_text());
    response.refresh_token = issued.refresh_token.map(users::Token::into_text);
    response.expires_in_ms = issued.expires_in_ms.map(Duration::from_millis);
    Ok(response)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};
    use users::{accounts, passwords};

    use crate::testing::{Answer, Hearth, Person};

    const LOGIN: &str = "/_matrix/client/v3/login";

    /// A new user whose password is `correct horse`.
    pub(crate) async fn with_password(hearth: &Hearth, localpart: &str) -> Person {
        let person = hearth.register(localpart).await;
        let hashed = passwords::hash("correct horse", &mut hearth.server.rng()).unwrap();
        accounts::set_password(&hearth.server.store, person.user, hashed, None, &[]).unwrap().durable().await.unwrap();
        person
    }

    /// The `auth` of a user who knows the password.
    pub(crate) fn auth(person: &Person) -> Value {
        let identifier = json!({ "type": "m.id.user", "user": person.user_id });
        json!({ "type": "m.login.password", "identifier": identifier, "password": "correct horse" })
    }

    async fn log_in(hearth: &Hearth, user: &str, password: &str) -> Answer {
        let identifier = json!({ "type": "m.id.user", "user": user });
        hearth.post(LOGIN, json!({ "type": "m.login.password", "identifier": identifier, "password": password })).await
    }

    #[tokio::test]
    async fn users_log_in_by_name_or_id_and_password() {
        let hearth = Hearth::start();
        with_password(&hearth, "alice").await;
        let flows = hearth.get(LOGIN).await.ok();
        assert_eq!(flows["flows"][0]["type"], "m.login.password");
        for name in ["alice", "ALICE", "@alice:hearth.test"] {
            let session = log_in(&hearth, name, "correct horse").await.ok();
            assert_eq!(session["user_id"], "@alice:hearth.test");
            let token = session["access_token"].as_str().unwrap();
            hearth.get("/_matrix/client/v3/account/whoami").token(token).await.ok();
        }
        let old = json!({ "type": "m.login.password", "user": "alice", "password": "correct horse", "device_id": "PHONE" });
        assert_eq!(hearth.post(LOGIN, old).await.ok()["device_id"], "PHONE");
    }

    #[tokio::test]
    async fn a_wrong_password_and_an_unknown_user_look_alike() {
        let hearth = Hearth::start();
        with_password(&hearth, "alice").await;
        hearth.register("carol").await;
        let told = log_in(&hearth, "alice", "wrong").await.fails(403, "M_FORBIDDEN");
        for name in ["bob", "carol", "@alice:elsewhere.test", "@", "", "a b"] {
            assert_eq!(log_in(&hearth, name, "correct horse").await.fails(403, "M_FORBIDDEN"), told, "{name}");
        }
        log_in(&hearth, "alice", &"x".repeat(60_000)).await.fails(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn hostile_logins_are_refused_and_do_not_panic() {
        let hearth = Hearth::start();
        hearth.post(LOGIN, json!({})).await.fails(400, "M_MISSING_PARAM");
        hearth.post(LOGIN, json!({ "type": 5 })).await.fails(400, "M_BAD_JSON");
        hearth.post(LOGIN, json!({ "type": "m.login.magic" })).await.fails(400, "M_UNKNOWN");
        hearth.post(LOGIN, json!({ "type": "m.login.password" })).await.fails(400, "M_MISSING_PARAM");
        hearth.post(LOGIN, json!({ "type": "m.login.password", "user": "alice" })).await.fails(400, "M_MISSING_PARAM");
        hearth.post(LOGIN, json!({ "type": "m.login.token" })).await.fails(400, "M_MISSING_PARAM");
        hearth.post(LOGIN, json!({ "type": "m.login.token", "token": "" })).await.fails(403, "M_FORBIDDEN");
        let by_mail = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b.c" });
        let by_mail = json!({ "type": "m.login.password", "identifier": by_mail, "password": "correct horse" });
        hearth.post(LOGIN, by_mail).await.fails(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn a_device_lets_another_one_in() {
        let hearth = Hearth::start();
        let alice = with_password(&hearth, "alice").await;
        let path = "/_matrix/client/v1/login/get_token";
        assert_eq!(alice.post(path, json!({})).await.status, 401, "the password is asked for");
        let issued = alice.post(path, json!({ "auth": auth(&alice) })).await.ok();
        assert_eq!(issued["expires_in_ms"], 120_000);
        let by_token = json!({ "type": "m.login.token", "token": issued["login_token"] });
        assert_eq!(hearth.post(LOGIN, by_token.clone()).await.ok()["user_id"], "@alice:hearth.test");
        hearth.post(LOGIN, by_token).await.fails(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn a_token_that_expires_is_refreshed() {
        let hearth = Hearth::start();
        with_password(&hearth, "alice").await;
        let request = json!({ "type": "m.login.password", "user": "alice", "password": "correct horse", "refresh_token": true });
        let first = hearth.post(LOGIN, request).await.ok();
        let whoami = async |tokens: &Value| {
            hearth.get("/_matrix/client/v3/account/whoami").token(tokens["access_token"].as_str().unwrap()).await
        };
        whoami(&first).await.ok();
        hearth.clock.advance(first["expires_in_ms"].as_u64().unwrap());
        assert_eq!(whoami(&first).await.fails(401, "M_UNKNOWN_TOKEN")["soft_logout"], true);
        let refresh = async |tokens: &Value| {
            hearth.post("/_matrix/client/v3/refresh", json!({ "refresh_token": tokens["refresh_token"] })).await
        };
        let second = refresh(&first).await.ok();
        assert!(second["expires_in_ms"].is_u64() && second["refresh_token"] != first["refresh_token"]);
        whoami(&second).await.ok();
        assert_eq!(refresh(&first).await.fails(401, "M_UNKNOWN_TOKEN")["soft_logout"], false, "revoked by the use of the second");
    }

    #[tokio::test]
    async fn guesses_are_counted_for_the_account_too() {
        let config = crate::Config { trusted_proxies: Vec::new(), ..crate::Config::default() };
        let hearth = Hearth::with(config);
        with_password(&hearth, "alice").await;
        let mut outcomes = Vec::new();
        for n in 0..25 {
            let guess = json!({ "type": "m.login.password", "user": "alice", "password": "guess" });
            outcomes.push(hearth.post(LOGIN, guess).from(&format!("192.0.2.{n}")).await.status.as_u16());
        }
        assert_eq!((outcomes[0], outcomes[24]), (403, 429), "though each guess comes from another address");
    }
}
