//! Fetching keys: from the servers themselves, else from notaries that the operator trusts. Each server is asked once at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use protocol::verify::VerifyKey;
use ruma::{OwnedServerName, ServerName};
use serde_json::json;

use super::{
    Document, KeySet, Wanted, counts,
    document::{self, DOCUMENT_MAX},
    rows::{self, Source},
};
use crate::{
    Error, Federation, Result,
    call::{path, unsigned},
    collect,
    gates::Gates,
};

/// How long one server may take to tell its keys.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Servers that are asked at the same time for one caller.
const AT_ONCE: usize = 32;
/// After the first vain fetch a server is left alone for this long. It doubles with each.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// It is asked again after this at the latest: a new key must not stay unknown for long.
const PAUSE_LONGEST: Duration = Duration::from_secs(300);
/// For this long after the first vain fetch keys may still come, and what they are needed for is not given up.
const LATE: Duration = Duration::from_secs(150);
/// Servers whose vain fetches are remembered. Beyond it all are forgotten.
const PAUSES_MAX: usize = 10_000;
/// The largest answer of a notary: a document for each server that it was asked for, which is one.
const NOTARY_ANSWER_MAX: usize = 4 * DOCUMENT_MAX;

/// What is under way, and what was asked for in vain.
#[derive(Default)]
pub(crate) struct Fetching {
    gates: Gates<OwnedServerName>,
    /// Documents learned since it was last looked whether there are too many.
    learned: AtomicUsize,
    pauses: Mutex<HashMap<OwnedServerName, Pause>>,
}

#[derive(Clone, Copy)]
struct Pause {
    since: Duration,
    until: Duration,
    vain: u32,
}

impl Fetching {
    /// Whether at least so many documents were learned; then they count anew.
    pub(super) fn take_learned(&self, min: usize) -> bool {
        let taken = |learned: usize| (learned >= min).then_some(0);
        self.learned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn is_paused(&self, server: &ServerName, now: Duration) -> bool {
        self.pauses.lock().get(server).is_some_and(|pause| pause.until > now)
    }

    /// Whether a server's keys were asked for in vain only lately.
    pub(crate) fn may_come(&self, server: &ServerName, now: Duration) -> bool {
        self.pauses.lock().get(server).is_some_and(|pause| now < pause.since + LATE)
    }

    fn note(&self, server: &ServerName, found: bool, now: Duration) {
        let mut pauses = self.pauses.lock();
        if found {
            pauses.remove(server);
            return;
        }
        if pauses.len() >= PAUSES_MAX {
            pauses.clear();
        }
        let pause = pauses.entry(server.to_owned()).or_insert(Pause { since: now, until: now, vain: 0 });
        pause.until = now + PAUSE_FIRST.saturating_mul(1 << pause.vain.min(10)).min(PAUSE_LONGEST);
        pause.vain = pause.vain.saturating_add(1);
    }
}

impl Federation {
    /// The keys that are to be had of those wanted. One that is not is left out.
    ///
    /// # Errors
    /// Only where Hearth fails.
    pub async fn fetch_keys(&self, wanted: Wanted) -> Result<KeySet> {
        let mut set = KeySet::default();
        let mut fetches = Vec::new();
        let db = self.store.snapshot();
        for (server, ids) in wanted.0 {
            if server == self.name() {
                set.add(&server, self.own_keys()?);
                continue;
            }
            let keys = rows::known(&db, &server)?.map(|row| row.keys()).unwrap_or_default();
            if self.lacks(&keys, &ids) {
                fetches.push((server, ids));
            } else {
                set.add(&server, keys);
            }
        }
        drop(db);
        let fetch = |(server, ids): (OwnedServerName, BTreeMap<String, u64>)| async move {
            let keys = self.fetch_of(&server, &ids).await?;
            Ok::<_, Error>((server, keys))
        };
        let mut fetched = stream::iter(fetches).map(fetch).buffer_unordered(AT_ONCE);
        while let Some(fetched) = fetched.next().await {
            let (server, keys) = fetched?;
            set.add(&server, keys);
        }
        Ok(set)
    }

    /// Whether all of the wanted keys are known, so that nobody needs to be asked.
    ///
    /// # Errors
    /// As the store.
    pub fn knows(&self, wanted: &Wanted) -> Result<bool> {
        let db = self.store.snapshot();
        for (server, ids) in wanted.0.iter().filter(|(server, _)| *server != self.name()) {
            let keys = rows::known(&db, server)?.map(|row| row.keys()).unwrap_or_default();
            if self.lacks(&keys, ids) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether any of the wanted keys is not known, or not for its time. Nobody knows now which keys count tomorrow.
    pub(super) fn lacks(&self, keys: &BTreeMap<String, VerifyKey>, wanted: &BTreeMap<String, u64>) -> bool {
        let now_ms = self.now_ms();
        wanted.iter().any(|(id, at_ms)| !keys.get(id).is_some_and(|key| counts(key, now_ms.min(*at_ms))))
    }

    /// All keys of one server, after it was asked for those that are lacking.
    pub(super) async fn fetch_of(
        &self,
        server: &ServerName,
        wanted: &BTreeMap<String, u64>,
    ) -> Result<BTreeMap<String, VerifyKey>> {
        let gate = self.keys.gates.at(server.to_owned());
        let _one_at_a_time = gate.lock().await;
        let known = rows::known(&self.store.snapshot(), server)?.map(|row| row.keys()).unwrap_or_default();
        let now = self.clock.elapsed();
        if !self.lacks(&known, wanted) || !self.config.enabled || self.keys.is_paused(server, now) {
            return Ok(known);
        }
        let mut keys = match self.learn_from_itself(server).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::debug!(%server, %error, "a server does not tell its keys");
                known
            }
        };
        for notary in &self.config.trusted_key_servers {
            if !self.lacks(&keys, wanted) {
                break;
            }
            match self.learn_from_notary(notary, server, wanted).await {
                Ok(learned) => keys = learned,
                Err(error) => tracing::debug!(%server, %notary, %error, "a notary does not tell a server's keys"),
            }
        }
        self.keys.note(server, !self.lacks(&keys, wanted), self.clock.elapsed());
        Ok(keys)
    }

    async fn learn_from_itself(&self, server: &ServerName) -> Result<BTreeMap<String, VerifyKey>> {
        let body = self.ask_unsigned(server, path(&["_matrix", "key", "v2", "server"]), None, DOCUMENT_MAX).await?;
        let object = document::object(&body).map_err(wrong)?;
        let document = Document::read(object, server, self.now_ms()).map_err(wrong)?;
        self.keys.learned.fetch_add(1, Ordering::Relaxed);
        Ok(rows::learn(&self.store, server, &document, Source::Itself, self.now_ms()).await?.keys())
    }

    async fn learn_from_notary(
        &self,
        notary: &ServerName,
        server: &ServerName,
        wanted: &BTreeMap<String, u64>,
    ) -> Result<BTreeMap<String, VerifyKey>> {
        #[derive(serde::Deserialize)]
        struct Answer {
            server_keys: Vec<protocol::json::Object>,
        }
        if notary == server || notary == self.name() {
            return Err(Error::Itself);
        }
        // Its own keys are not asked of others, so this ends.
        let known = rows::known(&self.store.snapshot(), notary)?.map(|row| row.keys()).unwrap_or_default();
        let now_ms = self.now_ms();
        let of_notary =
            if known.values().any(|key| counts(key, now_ms)) { known } else { self.learn_from_itself(notary).await? };
        let criteria: serde_json::Map<String, serde_json::Value> =
            wanted.iter().map(|(id, at_ms)| (id.clone(), json!({ "minimum_valid_until_ts": now_ms.min(*at_ms) }))).collect();
        let body = json!({ "server_keys": { server.as_str(): criteria } }).to_string();
        let place = path(&["_matrix", "key", "v2", "query"]);
        let answer = self.ask_unsigned(notary, place, Some(body.into()), NOTARY_ANSWER_MAX).await?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| Error::BadAnswer(error.to_string()))?;
        let mut keys = None;
        for object in answer.server_keys {
            let Ok(document) = Document::read(object, server, now_ms) else { continue };
            if document.is_signed_by(notary, &of_notary) {
                self.keys.learned.fetch_add(1, Ordering::Relaxed);
                keys = Some(rows::learn(&self.store, server, &document, Source::Notary, now_ms).await?.keys());
            }
        }
        keys.ok_or_else(|| Error::BadAnswer("it has no document of the server that both signed".to_owned()))
    }

    /// Asks for what everybody may see. Back-off does not hold here: a server that was gone comes back with a request, whose
    /// key must be had.
    async fn ask_unsigned(&self, server: &ServerName, path: String, body: Option<Bytes>, max: usize) -> Result<Bytes> {
        let request = unsigned(path, body)?;
        let asking = async {
            let response = self.transport.carry(server, request).await?;
            if !response.status().is_success() {
                return Err(Error::BadAnswer(format!("status {}", response.status())));
            }
            collect(response.into_body(), max).await
        };
        tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| Error::TimedOut)?
    }
}

fn wrong(error: document::WrongKeys) -> Error {
    Error::BadAnswer(error.to_string())
}
