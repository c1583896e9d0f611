//! `GET /sync` ("Syncing"): a long poll that costs nothing while it waits.

use std::{sync::Arc, time::Duration};

use ruma::api::{auth_scheme::AccessToken, client::filter::FilterDefinition, metadata, request};
use store::{Snapshot, Topic, UserNo, Watch};
use tokio::time::Instant;
use users::{filters, to_device};
use views::{
    RoomList,
    sync::{Who, state::Target, v3},
    token::SyncToken,
};

use super::presence;
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, UserOrGuest},
    endpoint,
    server::Server,
};

/// The longest wait, whatever a client asks for: proxies and phones give up earlier.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A gap of more commits than this, or no `since` at all, is computed beside the threads that serve requests.
const INLINE_COMMITS_MAX: u64 = 1_000;

metadata! {
    method: GET,
    rate_limited: false,
    authentication: AccessToken,
    history: {
        1.0 => "/_matrix/client/r0/sync",
        1.1 => "/_matrix/client/v3/sync",
    }
}

/// The answer, which the request's macro asks for under this name.
type Response = Json<v3::Response>;

/// The request, with what ruma's lacks: the unstable name of `use_state_after`.
#[request]
pub struct Request {
    /// The id of a filter, or a filter.
    #[ruma_api(query)]
    filter: Option<String>,
    /// The last `next_batch`.
    #[ruma_api(query)]
    since: Option<String>,
    /// Whether to tell the whole state of all rooms.
    #[ruma_api(query)]
    #[serde(default)]
    full_state: bool,
    /// How long to wait for news, in milliseconds.
    #[ruma_api(query)]
    #[serde(default)]
    timeout: u64,
    /// Whether state sections lead to the end of the timeline.
    #[ruma_api(query)]
    #[serde(default)]
    use_state_after: bool,
    /// `use_state_after` before it was specified (MSC4222).
    #[ruma_api(query)]
    #[serde(default, rename = "org.matrix.msc4222.use_state_after")]
    unstable_use_state_after: bool,
    /// How the user is, by this device.
    #[ruma_api(query)]
    set_presence: Option<String>,
}

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(UserOrGuest, Class::Sync, sync)]
}

async fn sync(call: Call<Session>, request: Request) -> Result<Response> {
    let deadline = Instant::now() + Duration::from_millis(request.timeout).min(TIMEOUT_MAX);
    let _online = presence::arrive(&call, request.set_presence.as_deref())?;
    let asked = asked(&call, request)?;
    if let Some(since) = asked.since {
        to_device::acknowledge(&call.server.store, asked.who.user, asked.who.device, since.to_device)?;
    }
    poll(&call.server, asked, deadline).await.map(Json)
}

fn asked(call: &Call<Session>, request: Request) -> Result<v3::Request> {
    let Session { user, user_id, device, device_id, .. } = call.session.clone();
    let now = call.snapshot().seq();
    let since = request.since.as_deref().filter(|since| !since.is_empty()).map(str::parse::<SyncToken>).transpose()?;
    let since = since.map(|since| since.clamped(now));
    let target = match (request.use_state_after, request.unstable_use_state_after) {
        (true, _) => Target::End,
        (false, true) => Target::UnstableEnd,
        (false, false) => Target::Start,
    };
    let filter = match request.filter.as_deref() {
        None | Some("") => FilterDefinition::default(),
        Some(json) if json.starts_with('{') => crate::json(json.as_bytes())?,
        Some(id) => {
            let stored = filters::definition(&call.snapshot(), user, id)?;
            stored.ok_or_else(|| Error::invalid_param("There is no filter of this id"))?
        }
    };
    let who = Who { user, user_id, device, device_id };
    Ok(v3::Request { who, since, filter, full_state: request.full_state, target })
}

/// Answers once there is news, or when the time is over. While it waits it holds no thread and no snapshot.
async fn poll(server: &Arc<Server>, mut asked: v3::Request, deadline: Instant) -> Result<v3::Response> {
    let waits = asked.since.is_some() && !asked.full_state && deadline > Instant::now();
    let mut watched: Option<(Arc<RoomList>, Watch)> = None;
    loop {
        let db = server.snapshot();
        let rooms = server.memory.rooms(&db, asked.who.user)?;
        let response = answer(server, &db, &asked).await?;
        keep_counts(server, asked.who.user);
        if !waits || !response.is_empty() {
            return Ok(response);
        }
        // What brought no news is not looked at again.
        asked.since = Some(db.seq().into());
        let watch = match watched.take().filter(|(of, _)| Arc::ptr_eq(of, &rooms)) {
            Some((_, watch)) => watch,
            None => {
                let topics = v3::topics(&asked.who, &rooms);
                let watch = server.store.watch(topics.clone());
                // What changed before the watch began does not wake it.
                let topics = topics.into_iter().chain([Topic::Presence]);
                if !server.snapshot().changed_since(db.seq(), topics).is_empty() {
                    watched = Some((rooms, watch));
                    continue;
                }
                watch
            }
        };
        drop(db);
        tokio::select! {
            // In this order, and not in one that is drawn: a simulation must go the same way again.
            biased;
            () = watch.changed() => watched = Some((rooms, watch)),
            () = tokio::time::sleep_until(deadline) => return Ok(response),
            () = server.stopping() => return Ok(response),
        }
    }
}

/// Stores what was counted for the answer, where that is worth it. An answer is right without.
fn keep_counts(server: &Server, user: UserNo) {
    let unsaved = server.memory.unsaved(user);
    if unsaved.is_empty() {
        return;
    }
    if let Err(error) = rooms::unread::save(&server.store, user, &unsaved) {
        tracing::warn!(user = user.0, %error, "counts of unread notifications are not stored");
    }
}

async fn answer(server: &Arc<Server>, db: &Snapshot, asked: &v3::Request) -> Result<v3::Response> {
    let now_ms = server.now_ms();
    let is_short = asked.since.is_some_and(|since| db.seq().0.saturating_sub(since.seq.0) <= INLINE_COMMITS_MAX);
    if is_short && !asked.full_state {
        return Ok(v3::sync(db, &server.memory, presence::online(server), asked, now_ms)?);
    }
    let (server, db, asked) = (Arc::clone(server), db.clone(), asked.clone());
    let of = Arc::clone(&server);
    of.blocking(move || v3::sync(&db, &server.memory, presence::online(&server), &asked, now_ms)).await
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
