//! Making accounts: `POST /register` and its kin, and Synapse's endpoint for scripts that share a secret with the server
//! ("Account registration and management").

use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::{
        auth_scheme::NoAuthentication,
        client::account::{check_registration_token_validity, get_username_availability, register},
    },
    metadata,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use users::{
    accounts::{self, Kind, NewAccount},
    appservices::Appservice,
    passwords::{self, Hashed},
    registration::{self, Registered, Registration},
    registration_tokens,
    sessions::{self, LoggedIn, Login},
    shared_secret::Wanted,
    uiaa::Scope,
};

use super::{
    uiaa::{Auth, interactive},
    with::{Nothing, With},
};
use crate::{
    Call, Class, Client, Error, Json, Result, Route, Server,
    auth::{Presented, Public, PublicOrService},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(PublicOrService, Class::Register, register),
        endpoint(Public, Class::Read, available),
        endpoint(Public, Class::Login, token_validity),
        endpoint(Public, Class::Admin, shared_secret_nonce),
        endpoint(Public, Class::Admin, shared_secret_register),
    ]
}

/// How application services register and log in as their users.
pub(crate) const APPLICATION_SERVICE: &str = "m.login.application_service";

#[derive(Deserialize)]
struct Body {
    auth: Option<Auth>,
    username: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    #[serde(default)]
    refresh_token: bool,
    #[serde(rename = "type")]
    login_type: Option<String>,
    /// The token of a guest who becomes a person.
    guest_access_token: Option<String>,
}

async fn register(call: Call<Presented>, request: With<register::v3::Request, Body>) -> Result<Json<Value>> {
    let (server, client) = (&call.server, &call.client);
    if request.body.login_type.as_deref() == Some(APPLICATION_SERVICE) {
        let appservice = call.session.appservice()?;
        return register_of(server, client, &appservice, request.body).await;
    }
    match kind(&request.query) {
        Some("guest") => register_guest(server, client, request.body).await,
        Some("user") | None => register_user(server, client, request.body).await,
        Some(_) => Err(Error::invalid_param("The kind of an account is user or guest")),
    }
}

fn kind(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("kind="))
}

async fn register_guest(server: &Server, client: &Client, body: Body) -> Result<Json<Value>> {
    let body = Body { guest_access_token: None, ..body };
    if !server.users.registration.guests {
        return Err(Error::guests_forbidden());
    }
    let user_id = accounts::drawn_user_id(&mut server.rng(), &server.name)?;
    let account = NewAccount { kind: Kind::Guest, admin: false, password: None, displayname: None };
    store(server, client, &user_id, account, None, &body).await
}

/// A user of an application service: without a password, in its namespace.
async fn register_of(server: &Server, client: &Client, appservice: &Appservice, body: Body) -> Result<Json<Value>> {
    let body = Body { guest_access_token: None, ..body };
    let username = body.username.as_deref().ok_or_else(|| Error::missing_param("The user needs a username"))?;
    let user_id = accounts::wanted_user_id(username, &server.name)?;
    if !appservice.covers_user(&user_id) {
        return Err(users::Error::Exclusive.into());
    }
    server.users.appservices.check_user(&user_id, Some(appservice))?;
    let account = NewAccount { kind: Kind::Appservice, admin: false, password: None, displayname: None };
    store(server, client, &user_id, account, None, &body).await
}

async fn register_user(server: &Server, client: &Client, body: Body) -> Result<Json<Value>> {
    let closed = || Error::forbidden("Registration is closed on this server");
    let flows = server.users.registration.flows().ok_or_else(closed)?;
    let user_id = match (&body.guest_access_token, &body.username) {
        (Some(token), username) => guest(server, token, username.as_deref())?,
        (None, Some(username)) => wanted(server, username)?,
        (None, None) => accounts::drawn_user_id(&mut server.rng(), &server.name)?,
    };
    if let Some(password) = &body.password {
        passwords::check(password, server.users.registration.min_password_length)?;
    }
    let mut body = body;
    let scope = Scope { method: "POST", path: "/register", user: None };
    let passed = interactive(server, scope, None, &flows, body.auth.take()).await?;
    let password = body.password.take().ok_or_else(|| Error::missing_param("An account needs a password"))?;
    let (password, displayname) = (Some(hash(server, password).await?), Some(user_id.localpart().to_owned()));
    let account = NewAccount { kind: Kind::Person, admin: false, password, displayname };
    store(server, client, &user_id, account, passed.registration_token.as_deref(), &body).await
}

/// The guest who wants to become a person: by their own token, and under the name that they have.
fn guest(server: &Server, token: &str, username: Option<&str>) -> Result<OwnedUserId> {
    let username = username.ok_or_else(|| Error::missing_param("A guest becomes a person under the same username"))?;
    let session = sessions::authenticate(&server.snapshot(), token, server.now_ms())?;
    let is_same = session.user_id.localpart() == username.to_ascii_lowercase();
    if session.kind != Kind::Guest || !is_same {
        return Err(Error::forbidden("The token is none of a guest of this name"));
    }
    Ok(session.user_id)
}

/// The user id that a name stands for, if nobody has it.
fn wanted(server: &Server, username: &str) -> Result<OwnedUserId> {
    let user_id = accounts::wanted_user_id(username, &server.name)?;
    server.users.appservices.check_user(&user_id, None)?;
    accounts::check_available(&server.snapshot(), &user_id)?;
    Ok(user_id)
}

/// The hash of a password, computed off the async threads.
pub(crate) async fn hash(server: &Server, password: String) -> Result<Hashed> {
    let mut rng = server.rng();
    server.blocking(move || passwords::hash(&password, &mut rng)).await
}

async fn store(
    server: &Server,
    client: &Client,
    user_id: &OwnedUserId,
    account: NewAccount,
    token: Option<&str>,
    body: &Body,
) -> Result<Json<Value>> {
    let first = Login {
        device_id: body.device_id.as_deref(),
        display_name: body.initial_device_display_name.as_deref(),
        refresh: body.refresh_token,
        address: client.address,
    };
    let login = (!body.inhibit_login).then_some(first);
    let upgrades_guest = body.guest_access_token.is_some();
    let registration = Registration { user_id, account, token, upgrades_guest, login };
    let pending =
        registration::register(&server.store, &mut server.rng(), registration, &server.users.sessions, server.now_ms())?;
    let Registered { user_id, session, .. } = pending.durable().await?;
    let mut answer = session.map(tokens).unwrap_or_default();
    answer.insert("user_id".into(), user_id.as_str().into());
    Ok(Json(answer.into()))
}

/// A session as responses to `/register` and `/login` have it.
pub(crate) fn tokens(session: LoggedIn) -> Map<String, Value> {
    let LoggedIn { user_id, device_id, tokens } = session;
    let mut answer = Map::new();
    answer.insert("home_server".into(), user_id.server_name().as_str().into());
    answer.insert("user_id".into(), user_id.as_str().into());
    answer.insert("device_id".into(), device_id.as_str().into());
    answer.insert("access_token".into(), tokens.access_token.into_text().into());
    if let Some(token) = tokens.refresh_token {
        answer.insert("refresh_token".into(), token.into_text().into());
    }
    if let Some(ms) = tokens.expires_in_ms {
        answer.insert("expires_in_ms".into(), ms.into());
    }
    answer
}

async fn available(
    call: Call<()>,
    request: get_username_availability::v3::Request,
) -> Result<get_username_availability::v3::Response> {
    if call.server.users.registration.flows().is_none() {
        return Err(Error::forbidden("Registration is closed on this server"));
    }
    wanted(&call.server, &request.username)?;
    Ok(get_username_availability::v3::Response::new(true))
}

async fn token_validity(
    call: Call<()>,
    request: check_registration_token_validity::v1::Request,
) -> Result<check_registration_token_validity::v1::Response> {
    if call.server.users.registration.mode != registration::Mode::Token {
        return Err(Error::forbidden("Registration on this server takes no token"));
    }
    let valid = registration_tokens::is_valid(&call.snapshot(), &request.token, call.now_ms())?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}

/// Where a script gets a nonce.
mod nonce {
    use super::{NoAuthentication, metadata};

    pub(super) struct Request;
    metadata! { method: GET, rate_limited: true, authentication: NoAuthentication, path: "/_synapse/admin/v1/register" }
}

/// Where a script makes an account.
mod scripted {
    use super::{NoAuthentication, metadata};

    pub(super) struct Request;
    metadata! { method: POST, rate_limited: true, authentication: NoAuthentication, path: "/_synapse/admin/v1/register" }
}

fn secret(server: &Server) -> Result<&str> {
    let secret = server.users.registration.shared_secret.as_deref().filter(|secret| !secret.is_empty());
    secret.ok_or_else(Error::unrecognized)
}

async fn shared_secret_nonce(call: Call<()>, _: With<nonce::Request, Nothing>) -> Result<Json<Value>> {
    secret(&call.server)?;
    let nonce = call.server.nonces.draw(&mut call.server.rng(), call.now_ms());
    Ok(Json(json!({ "nonce": nonce })))
}

#[derive(Deserialize)]
struct Scripted {
    nonce: String,
    username: String,
    displayname: Option<String>,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    mac: String,
    #[serde(default)]
    inhibit_login: bool,
}

async fn shared_secret_register(call: Call<()>, request: With<scripted::Request, Scripted>) -> Result<Json<Value>> {
    let server = &call.server;
    let Scripted { nonce, username, displayname, password, admin, user_type, mac, inhibit_login } = request.body;
    let wanted_account = Wanted { username: &username, password: &password, admin, user_type: user_type.as_deref() };
    server.nonces.check(secret(server)?, &nonce, wanted_account, &mac, server.now_ms())?;
    let user_id = wanted(server, &username)?;
    passwords::check(&password, server.users.registration.min_password_length)?;
    let displayname = displayname.or_else(|| Some(username.clone()));
    let account = NewAccount { kind: Kind::Person, admin, password: Some(hash(server, password).await?), displayname };
    let body = Body {
        auth: None,
        username: None,
        password: None,
        device_id: None,
        initial_device_display_name: None,
        inhibit_login,
        refresh_token: false,
        login_type: None,
        guest_access_token: None,
    };
    store(server, &call.client, &user_id, account, None, &body).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hmac::{Hmac, KeyInit, Mac};
    use serde_json::{Value, json};
    use users::{
        Config,
        registration::{self, Mode, Terms, Translation},
        registration_tokens::{self, Bounds},
    };

    use crate::testing::{Answer, Hearth};

    const REGISTER: &str = "/_matrix/client/v3/register";

    fn hearth(registration: registration::Config) -> Hearth {
        Hearth::with_users(Config { registration, ..Config::default() })
    }

    async fn register(hearth: &Hearth, username: &str, auth: Value) -> Answer {
        hearth.post(REGISTER, json!({ "username": username, "password": "correct horse", "auth": auth })).await
    }

    fn dummy() -> Value {
        json!({ "type": "m.login.dummy" })
    }

    /// What a client is asked to do: the session, and the rest of the body.
    fn asked(answer: &Answer) -> (String, Value) {
        assert_eq!(answer.status, 401, "{:?}", answer.body);
        let mut body = answer.json();
        let session = body.as_object_mut().unwrap().remove("session").unwrap();
        (session.as_str().unwrap().to_owned(), body)
    }

    #[tokio::test]
    async fn anybody_registers_where_registration_is_open() {
        let hearth = Hearth::start();
        let (session, body) = asked(&hearth.post(REGISTER, json!({})).await);
        assert_eq!(body, json!({ "flows": [{ "stages": ["m.login.dummy"] }], "params": {} }));
        let auth = json!({ "type": "m.login.dummy", "session": session });
        let made = register(&hearth, "Alice", auth.clone()).await.ok();
        assert_eq!(made["user_id"], "@alice:hearth.test");
        let whoami = hearth.get("/_matrix/client/v3/account/whoami").token(made["access_token"].as_str().unwrap()).await.ok();
        assert_eq!(whoami, json!({ "user_id": "@alice:hearth.test", "device_id": made["device_id"] }));
        let profile = hearth.get("/_matrix/client/v3/profile/@alice:hearth.test").await.ok();
        assert_eq!(profile, json!({ "displayname": "alice" }), "a name to begin with");
        assert_eq!(register(&hearth, "bob", auth).await.status, 401, "a session lets one request through");
        let made =
            hearth.post(REGISTER, json!({ "password": "correct horse", "auth": dummy(), "inhibit_login": true })).await.ok();
        assert!(made["user_id"].is_string() && made.get("access_token").is_none());
    }

    #[tokio::test]
    async fn names_and_passwords_are_checked_before_anything_is_asked_for() {
        let hearth = Hearth::start();
        register(&hearth, "alice", dummy()).await.ok();
        register(&hearth, "ALICE", Value::Null).await.fails(400, "M_USER_IN_USE");
        for hostile in ["", "a b", "a!", "@a", "é", "a\n", &"x".repeat(300)] {
            register(&hearth, hostile, dummy()).await.fails(400, "M_INVALID_USERNAME");
        }
        let weak = json!({ "username": "bob", "password": "short", "auth": dummy() });
        hearth.post(REGISTER, weak).await.fails(400, "M_WEAK_PASSWORD");
        hearth.post(REGISTER, json!({ "username": "bob", "auth": dummy() })).await.fails(400, "M_MISSING_PARAM");
        hearth.post(REGISTER, json!({ "username": 5 })).await.fails(400, "M_BAD_JSON");
        let available = |name: &str| hearth.get(&format!("{REGISTER}/available?username={name}"));
        assert_eq!(available("bob").await.ok(), json!({ "available": true }));
        available("alice").await.fails(400, "M_USER_IN_USE");
        available("a%20b").await.fails(400, "M_INVALID_USERNAME");
    }

    #[tokio::test]
    async fn by_default_registration_is_closed_for_users_and_guests() {
        let hearth = hearth(registration::Config::default());
        register(&hearth, "alice", dummy()).await.fails(403, "M_FORBIDDEN");
        hearth.get(&format!("{REGISTER}/available?username=alice")).await.fails(403, "M_FORBIDDEN");
        hearth.post(&format!("{REGISTER}?kind=guest"), json!({})).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
        hearth.post(REGISTER, json!({ "type": "m.login.application_service" })).await.fails(401, "M_MISSING_TOKEN");
        hearth.get("/_synapse/admin/v1/register").await.fails(404, "M_UNRECOGNIZED");
    }

    #[tokio::test]
    async fn guests_get_an_account_where_they_may() {
        let hearth = hearth(registration::Config { guests: true, ..registration::Config::default() });
        let guest = hearth.post(&format!("{REGISTER}?kind=guest"), json!({})).await.ok();
        let token = guest["access_token"].as_str().unwrap();
        let whoami = hearth.get("/_matrix/client/v3/account/whoami").token(token).await.ok();
        assert_eq!(whoami["is_guest"], true);
        hearth.get("/_matrix/client/v3/capabilities").token(token).await.fails(403, "M_GUEST_ACCESS_FORBIDDEN");
        hearth.post(&format!("{REGISTER}?kind=admin"), json!({})).await.fails(400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn a_guest_becomes_a_person_who_keeps_everything() {
        let config = registration::Config { guests: true, mode: Mode::Open, ..registration::Config::default() };
        let hearth = hearth(config);
        let guest = hearth.post(&format!("{REGISTER}?kind=guest"), json!({})).await.ok();
        let (token, user_id) = (guest["access_token"].as_str().unwrap(), guest["user_id"].as_str().unwrap());
        let name = user_id[1..].split(':').next().unwrap();
        let profile = format!("/_matrix/client/v3/profile/{user_id}/displayname");
        hearth.ask(http::Method::PUT, &profile).token(token).json(&json!({ "displayname": "Visitor" })).await.ok();
        let upgrade = |username: Value, token: &str| {
            let password = "correct horse";
            let body = json!({ "username": username, "password": password, "auth": dummy(), "guest_access_token": token });
            hearth.post(REGISTER, body)
        };
        upgrade(Value::Null, token).await.fails(400, "M_MISSING_PARAM");
        upgrade("alice".into(), token).await.fails(403, "M_FORBIDDEN");
        upgrade(name.into(), "guess").await.fails(401, "M_UNKNOWN_TOKEN");
        let alice = register(&hearth, "alice", dummy()).await.ok();
        upgrade("alice".into(), alice["access_token"].as_str().unwrap()).await.fails(403, "M_FORBIDDEN");
        let person = upgrade(name.into(), token).await.ok();
        assert_eq!(person["user_id"], user_id);
        for token in [token, person["access_token"].as_str().unwrap()] {
            let whoami = hearth.get("/_matrix/client/v3/account/whoami").token(token).await.ok();
            assert_eq!((&whoami["user_id"], whoami.get("is_guest")), (&json!(user_id), None));
            hearth.get("/_matrix/client/v3/capabilities").token(token).await.ok();
        }
        assert_eq!(hearth.get(&profile).await.ok()["displayname"], "Visitor");
        upgrade(name.into(), token).await.fails(403, "M_FORBIDDEN");
        let login = json!({ "type": "m.login.password", "user": name, "password": "correct horse" });
        hearth.post("/_matrix/client/v3/login", login).await.ok();
    }

    #[tokio::test]
    async fn a_token_and_the_terms_are_two_stages() {
        let translation = Translation { name: "Terms".into(), url: "https://hearth.test/terms".into() };
        let terms = Terms { version: "2".into(), translations: [("en".into(), translation)].into() };
        let config = registration::Config { mode: Mode::Token, terms: [("tos".into(), terms)].into(), ..Default::default() };
        let hearth = hearth(config);
        let bounds = Bounds { uses_allowed: Some(1), expires_ms: None };
        registration_tokens::create(&hearth.server.store, "sesame", bounds).unwrap().durable().await.unwrap();
        let validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=sesame";
        assert_eq!(hearth.get(validity).await.ok(), json!({ "valid": true }));

        let (session, body) = asked(&register(&hearth, "alice", Value::Null).await);
        assert_eq!(body["flows"], json!([{ "stages": ["m.login.registration_token", "m.login.terms"] }]));
        let policy = &body["params"]["m.login.terms"]["policies"]["tos"];
        assert_eq!(policy, &json!({ "version": "2", "en": { "name": "Terms", "url": "https://hearth.test/terms" } }));
        let stage = |kind: &str, token: &str| json!({ "type": kind, "token": token, "session": session });
        let (_, body) = asked(&register(&hearth, "alice", stage("m.login.registration_token", "guess")).await);
        assert_eq!(body["errcode"], "M_UNAUTHORIZED");
        let (_, body) = asked(&register(&hearth, "alice", stage("m.login.dummy", "")).await);
        assert_eq!(body["errcode"], "M_UNRECOGNIZED", "not offered");
        let (_, body) = asked(&register(&hearth, "alice", stage("m.login.registration_token", "sesame")).await);
        assert_eq!((&body["completed"], body.get("errcode")), (&json!(["m.login.registration_token"]), None));
        register(&hearth, "alice", stage("m.login.terms", "")).await.ok();

        assert_eq!(hearth.get(validity).await.ok(), json!({ "valid": false }));
        let (_, body) =
            asked(&register(&hearth, "bob", json!({ "type": "m.login.registration_token", "token": "sesame" })).await);
        assert_eq!(body["errcode"], "M_UNAUTHORIZED", "used up");
    }

    #[tokio::test]
    async fn scripts_register_by_the_shared_secret() {
        let hearth = hearth(registration::Config { shared_secret: Some("shared".into()), ..Default::default() });
        let path = "/_synapse/admin/v1/register";
        let nonce = hearth.get(path).await.ok()["nonce"].as_str().unwrap().to_owned();
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"shared").unwrap();
        mac.update(format!("{nonce}\0root\0correct horse\0admin").as_bytes());
        let mac: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let request = json!({ "nonce": nonce, "username": "root", "password": "correct horse", "admin": true, "mac": mac });
        let made = hearth.post(path, request.clone()).await.ok();
        assert_eq!((&made["user_id"], &made["home_server"]), (&json!("@root:hearth.test"), &json!("hearth.test")));
        hearth.post(path, request).await.fails(403, "M_FORBIDDEN");
        let (_, account) =
            users::accounts::find(&hearth.server.snapshot(), "@root:hearth.test".try_into().unwrap()).unwrap().unwrap();
        assert!(account.admin);
    }
}
