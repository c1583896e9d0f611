//! User-interactive authentication of requests, and what is wrong with an attempt ("User-Interactive Authentication API").

use ruma::{
    UserId,
    api::{
        client::uiaa::{AuthFlow, UiaaInfo},
        error::{ErrorKind, StandardErrorBody},
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::to_raw_value};
use users::{
    accounts, passwords, registration_tokens,
    uiaa::{Challenge, Completed, Flow, Proof, Scope, Stage},
};

use crate::{Call, Class, Error, Result, Server, auth::Session, limits::Payer};

/// The `auth` of a request. Old clients name the user by `user` in place of `identifier`.
#[derive(Default, Deserialize)]
pub(crate) struct Auth {
    #[serde(rename = "type")]
    kind: Option<String>,
    session: Option<String>,
    identifier: Option<Identifier>,
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
}

/// Who a client says that its user is ("Identifier types").
#[derive(Deserialize)]
pub(crate) struct Identifier {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) user: Option<String>,
}

/// Why a stage is not passed.
enum Fault {
    /// The client sees it beside what it is to do.
    Told(ErrorKind, &'static str),
    /// The request fails altogether.
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Lets a user's request through who proves to know the account's password.
pub(crate) async fn password(call: &Call<Session>, method: &str, path: &str, auth: Option<Auth>) -> Result<()> {
    let scope = Scope { method, path, user: Some(call.session.user) };
    interactive(&call.server, scope, Some(&call.session), &[vec![Stage::Password]], auth).await?;
    Ok(())
}

/// Lets a request through once a flow is complete; else what it fails with says what the client is to do.
pub(crate) async fn interactive(
    server: &Server,
    scope: Scope<'_>,
    caller: Option<&Session>,
    flows: &[Flow],
    auth: Option<Auth>,
) -> Result<Completed> {
    let now_ms = server.now_ms();
    let auth = auth.unwrap_or_default();
    let resumed = auth.session.as_ref().and_then(|session| server.interactive.resume(session, scope, now_ms));
    let lost = auth.session.is_some() && resumed.is_none();
    let challenge = resumed.unwrap_or_else(|| server.interactive.begin(&mut server.rng(), scope, flows.to_vec(), now_ms));
    if lost {
        let told = "the authentication session is unknown, has expired, or belongs to another request";
        return Err(ask(server, &challenge, Some((ErrorKind::Unknown, told))));
    }
    if let Some(kind) = &auth.kind {
        let stage = Stage::named(kind).filter(|stage| challenge.offers(*stage));
        let stage = stage.ok_or_else(|| ask(server, &challenge, Some((ErrorKind::Unrecognized, "this stage is not offered"))))?;
        match prove(server, caller, stage, &auth).await {
            Ok(proof) => server.interactive.pass(&challenge.session, scope, proof, now_ms),
            Err(Fault::Told(kind, told)) => return Err(ask(server, &challenge, Some((kind, told)))),
            Err(Fault::Failed(error)) => return Err(error),
        }
    }
    if let Some(completed) = server.interactive.finish(&challenge.session, scope, now_ms) {
        return Ok(completed);
    }
    let challenge = server.interactive.resume(&challenge.session, scope, now_ms).unwrap_or(challenge);
    Err(ask(server, &challenge, None))
}

async fn prove(server: &Server, caller: Option<&Session>, stage: Stage, auth: &Auth) -> std::result::Result<Proof, Fault> {
    match stage {
        Stage::Dummy => Ok(Proof::Dummy),
        Stage::Terms => Ok(Proof::Terms),
        Stage::RegistrationToken => {
            let token = auth.token.clone().ok_or(Fault::Told(ErrorKind::MissingParam, "the stage needs a token"))?;
            let valid = registration_tokens::is_valid(&server.snapshot(), &token, server.now_ms()).map_err(Error::from)?;
            if valid {
                Ok(Proof::RegistrationToken(token))
            } else {
                Err(Fault::Told(ErrorKind::Unauthorized, "the token is not valid"))
            }
        }
        Stage::Password => {
            let caller = caller.ok_or(Fault::Told(ErrorKind::Forbidden, "a password needs an account"))?;
            let password = auth.password.clone().ok_or(Fault::Told(ErrorKind::MissingParam, "the stage needs a password"))?;
            let named = auth.identifier.as_ref().and_then(|identifier| identifier.user.as_deref()).or(auth.user.as_deref());
            if !named.is_none_or(|named| names(named, &caller.user_id)) {
                // No second attempt would make the session theirs.
                return Err(Error::forbidden("The identifier names another user than the one who asks").into());
            }
            server.limits.take(Class::Login.into(), Payer::User(caller.user), server.elapsed())?;
            let stored = accounts::password(&server.snapshot(), caller.user).map_err(Error::from)?;
            let right = server.blocking(move || Ok::<_, Error>(passwords::matches(&password, stored.as_ref()))).await?;
            if right { Ok(Proof::Password) } else { Err(Fault::Told(ErrorKind::Forbidden, "wrong password")) }
        }
    }
}

/// Whether this is the user's id or localpart.
fn names(named: &str, user: &UserId) -> bool {
    named == user.as_str() || named.eq_ignore_ascii_case(user.localpart())
}

/// What the client is to do, and what was wrong with what it did.
fn ask(server: &Server, challenge: &Challenge, fault: Option<(ErrorKind, &str)>) -> Error {
    let flow = |flow: &Flow| AuthFlow::new(flow.iter().map(|stage| stage.as_str().into()).collect());
    let mut info = UiaaInfo::new(challenge.flows.iter().map(flow).collect());
    info.completed = challenge.completed.iter().map(|stage| stage.as_str().into()).collect();
    info.session = Some(challenge.session.clone());
    info.params = to_raw_value(&params(server, challenge)).ok();
    info.auth_error = fault.map(|(kind, told)| Box::new(StandardErrorBody::new(kind, told.to_owned())));
    Error::interactive(info)
}

/// What stages need to be shown: the documents of the terms.
fn params(server: &Server, challenge: &Challenge) -> Map<String, Value> {
    let mut params = Map::new();
    if challenge.offers(Stage::Terms) {
        let policies = server.users.registration.terms.iter().map(|(id, terms)| {
            let translations = terms.translations.iter();
            let mut policy: Map<String, Value> = translations
                .map(|(language, shown)| (language.clone(), json!({ "name": shown.name, "url": shown.url })))
                .collect();
            policy.insert("version".into(), terms.version.as_str().into());
            (id.clone(), policy.into())
        });
        params.insert(Stage::Terms.as_str().into(), json!({ "policies": policies.collect::<Map<_, _>>() }));
    }
    params
}
