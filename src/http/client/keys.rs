//! End-to-end keys: upload, query, claim, changes, cross-signing, signatures ("Key management API").

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use protocol::json::Object;
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId,
    api::client::keys::{
        claim_keys::v3 as claim_keys, get_key_changes::v3 as get_changes, get_keys::v3 as get_keys,
        upload_keys::v3 as upload_keys, upload_signatures::v3 as upload_signatures,
        upload_signing_keys::v3 as upload_signing_keys,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use users::{
    KeyError,
    accounts::Kind,
    cross_signing::{self, CrossSigningKeys},
    keys::{self, ActingDevice, KeysUpload, QueriedKeys},
    numbers,
    one_time_keys::{self, Claimed, Claims},
    signatures::{self, Signatures},
};
use views::{
    sync::{
        Who,
        device_lists::{self, DeviceLists},
    },
    token::SyncToken,
};

use super::{
    account::touch,
    uiaa::{self, Auth},
    with::With,
};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User, UserOrGuest},
    endpoint,
};

/// The body of an upload: a hundred one-time keys, the post-quantum ones too.
const UPLOAD_BODY_MAX: usize = 1 << 20;
/// The body of a query or claim: the devices of all members of a large room.
const MANY_DEVICES_BODY_MAX: usize = 4 << 20;
/// Users up to whom a query or claim is answered at once; more are read beside the threads that serve requests.
const INLINE_USERS_MAX: usize = 50;
/// Users of other servers whose keys are signed in one request: one verifies them by hand.
const FOREIGN_MAX: usize = 100;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(UserOrGuest, Class::Keys, upload).body_max(UPLOAD_BODY_MAX),
        endpoint(UserOrGuest, Class::Keys, query).body_max(MANY_DEVICES_BODY_MAX),
        endpoint(UserOrGuest, Class::Keys, claim).body_max(MANY_DEVICES_BODY_MAX),
        endpoint(User, Class::Keys, changes),
        endpoint(User, Class::Keys, cross_sign),
        endpoint(User, Class::Keys, sign).body_max(UPLOAD_BODY_MAX),
    ]
}

/// The caller as the device that acts.
pub(crate) fn acting(session: &Session) -> ActingDevice<'_> {
    let Session { user, user_id, device, device_id, .. } = session;
    ActingDevice { user: *user, user_id, device: *device, device_id }
}

/// Of servers that did not answer, why.
type Failures = BTreeMap<OwnedServerName, Value>;

/// How long a client waits for other servers, where it does not say, and at most.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Other servers that are asked at the same time for one client.
const SERVERS_AT_ONCE: usize = 32;

/// Asks each server for what is wanted of it: what is found, and why not more is.
async fn ask_others<A, T, Asking>(
    wanted: BTreeMap<OwnedServerName, A>,
    ask: impl Fn(OwnedServerName, A) -> Asking,
) -> (Vec<T>, Failures)
where
    Asking: Future<Output = (T, Option<federation::Error>)>,
{
    let one = |(server, wanted): (OwnedServerName, A)| {
        let asking = ask(server.clone(), wanted);
        async move { (server, asking.await) }
    };
    let mut asked = stream::iter(wanted).map(one).buffer_unordered(SERVERS_AT_ONCE);
    let (mut answers, mut failures) = (Vec::new(), Failures::new());
    while let Some((server, (answer, failure))) = asked.next().await {
        answers.push(answer);
        if let Some(error) = failure {
            failures.insert(server, Error::from(error).into_body());
        }
    }
    (answers, failures)
}

fn patience(asked: Option<Duration>) -> Duration {
    asked.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX)
}

#[derive(Serialize)]
struct Uploaded {
    one_time_key_counts: BTreeMap<String, u64>,
}

async fn upload(call: Call<Session>, request: With<upload_keys::Request, KeysUpload>) -> Result<Json<Uploaded>> {
    if call.session.device_id.as_str().is_empty() {
        return Err(Error::missing_param("Keys belong to a device: name it by device_id"));
    }
    // Only identity keys concern others.
    let touch = if request.body.device_keys.is_some() { touch(&call)? } else { Vec::new() };
    let counts = keys::upload(&call.server.store, &acting(&call.session), &request.body, &touch)?.durable().await?;
    Ok(Json(Uploaded { one_time_key_counts: counts.one_time_keys }))
}

#[derive(Serialize)]
struct Queried {
    failures: Failures,
    #[serde(flatten)]
    keys: QueriedKeys,
}

async fn query(call: Call<Session>, request: get_keys::Request) -> Result<Json<Queried>> {
    let wait = patience(request.timeout);
    let (local, remote) = keys::split_remote(request.device_keys, &call.server.name);
    let (db, requester) = (call.snapshot(), call.session.user_id.clone());
    let large = local.len() > INLINE_USERS_MAX;
    let work = move || keys::query(&db, Some(&requester), &local);
    let federation = &call.server.federation;
    let ask = |server: OwnedServerName, asked| async move { federation.query_keys(&server, asked, wait).await };
    let others = ask_others(remote, ask);
    let here = async { if large { call.server.blocking(work).await } else { Ok(work()?) } };
    let (keys, (answers, failures)) = futures_util::future::join(here, others).await;
    let mut keys = keys?;
    let (db, requester) = (call.snapshot(), (call.session.user, &*call.session.user_id));
    for mut answer in answers {
        for (of, master) in &mut answer.master_keys {
            if let Some(of) = numbers::number(&db, of)? {
                cross_signing::show_signature(&db, requester, of, master)?;
            }
        }
        keys.device_keys.extend(answer.device_keys);
        keys.master_keys.extend(answer.master_keys);
        keys.self_signing_keys.extend(answer.self_signing_keys);
    }
    Ok(Json(Queried { failures, keys }))
}

#[derive(Serialize)]
struct ClaimedKeys {
    failures: Failures,
    one_time_keys: Claimed,
}

#[derive(Deserialize)]
struct Claiming {
    one_time_keys: Claims,
    /// In milliseconds.
    timeout: Option<u64>,
}

async fn claim(call: Call<Session>, request: With<claim_keys::Request, Claiming>) -> Result<Json<ClaimedKeys>> {
    let wait = patience(request.body.timeout.map(Duration::from_millis));
    let (local, remote) = keys::split_remote(request.body.one_time_keys, &call.server.name);
    let store = call.server.store.clone();
    let large = local.len() > INLINE_USERS_MAX;
    let work = move || one_time_keys::claim(&store, &local);
    let federation = &call.server.federation;
    let ask = |server: OwnedServerName, asked| async move {
        match federation.claim_keys(&server, &asked, wait).await {
            Ok(claimed) => (claimed, None),
            Err(error) => (Claimed::default(), Some(error)),
        }
    };
    let others = ask_others(remote, ask);
    let here = async {
        let claimed = if large { call.server.blocking(work).await? } else { work()? };
        Ok::<_, Error>(claimed.durable().await?)
    };
    let (claimed, (answers, failures)) = futures_util::future::join(here, others).await;
    let mut one_time_keys = claimed?;
    answers.into_iter().for_each(|answer| one_time_keys.extend(answer));
    Ok(Json(ClaimedKeys { failures, one_time_keys }))
}

/// What `/sync` would tell of device lists since `from`. All that changed up to now is told: `to` is but a hint.
async fn changes(call: Call<Session>, request: get_changes::Request) -> Result<Json<Value>> {
    let from: SyncToken = request.from.parse().map_err(Error::from)?;
    request.to.parse::<SyncToken>().map_err(Error::from)?;
    let (db, server) = (call.snapshot(), Arc::clone(&call.server));
    let Session { user, user_id, device, device_id, .. } = call.session;
    let who = Who { user, user_id, device, device_id };
    let work = move || device_lists::changes(&db, &server.memory, &who, from.seq);
    let DeviceLists { changed, left } = call.server.blocking(work).await?;
    Ok(Json(json!({ "changed": changed, "left": left })))
}

#[derive(Deserialize)]
struct CrossSigning {
    #[serde(flatten)]
    keys: CrossSigningKeys,
    auth: Option<Auth>,
}

async fn cross_sign(
    call: Call<Session>,
    request: With<upload_signing_keys::Request, CrossSigning>,
) -> Result<upload_signing_keys::Response> {
    let CrossSigning { keys, auth } = request.body;
    let Session { user, ref user_id, kind, .. } = call.session;
    let trusted = kind == Kind::Appservice;
    let touch = touch(&call)?;
    let upload = |authenticated| cross_signing::upload(&call.server.store, user, user_id, &keys, authenticated, &touch);
    let pending = match upload(trusted) {
        // Not asked beforehand, because another device may upload the first keys at the same time.
        Err(KeyError::NeedsAuthentication) => {
            uiaa::password(&call, "POST", "/keys/device_signing/upload", auth).await?;
            upload(true)?
        }
        outcome => outcome?,
    };
    pending.durable().await?;
    Ok(upload_signing_keys::Response::new())
}

#[derive(Serialize)]
struct Signed {
    failures: BTreeMap<OwnedUserId, BTreeMap<String, Value>>,
}

async fn sign(call: Call<Session>, request: With<upload_signatures::Request, Signatures>) -> Result<Json<Signed>> {
    let (store, touch) = (call.server.store.clone(), touch(&call)?);
    let (user, user_id) = (call.session.user, call.session.user_id.clone());
    let foreign = foreign_masters(&call, &request.body).await;
    let work = move || signatures::upload(&store, user, &user_id, &request.body, &foreign, &touch);
    let failed = call.server.blocking(work).await?.durable().await?;
    let told = |objects: BTreeMap<String, KeyError>| {
        objects.into_iter().map(|(name, error)| (name, Error::from(error).into_body())).collect()
    };
    let failures = failed.into_iter().map(|(user, objects)| (user, told(objects))).collect();
    Ok(Json(Signed { failures }))
}

/// The master keys of those users of other servers whose keys are signed. A server that does not tell them has its users' left out.
async fn foreign_masters(call: &Call<Session>, signed: &Signatures) -> BTreeMap<OwnedUserId, Object> {
    let asked = signed.keys().filter(|user| user.server_name() != call.server.name).take(FOREIGN_MAX);
    let asked: BTreeMap<OwnedUserId, Vec<OwnedDeviceId>> = asked.map(|user| (user.clone(), Vec::new())).collect();
    let (_, remote) = keys::split_remote(asked, &call.server.name);
    let federation = &call.server.federation;
    let ask = |server: OwnedServerName, asked| async move { federation.query_keys(&server, asked, WAIT_DEFAULT).await };
    let (answers, _) = ask_others(remote, ask).await;
    answers.into_iter().flat_map(|answer| answer.master_keys).collect()
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
