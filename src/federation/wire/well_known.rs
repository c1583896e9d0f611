//! `/.well-known/matrix/server`: where a server's name says its server is. Cached, whether it says so or not (step 3 of "Resolving
//! server names").

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use store::Clock;

use super::pages::{PageError, Pages};
use crate::{collect, gates::Gates};

/// How long an answer holds that does not say.
const KEPT_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an answer holds at most, and at least.
const KEPT_MAX: Duration = Duration::from_secs(48 * 60 * 60);
const KEPT_MIN: Duration = Duration::from_secs(5 * 60);
/// After the first failure the name is not asked for this long. It doubles with each.
const FAILED_FIRST: Duration = Duration::from_secs(2 * 60);
const FAILED_MAX: Duration = Duration::from_secs(60 * 60);
/// How long the last answer serves on while the name does not answer.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest document, in bytes.
const DOCUMENT_MAX: usize = 50 << 10;
/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Names whose answers are remembered. Beyond it those that no longer hold are forgotten, else all.
const REMEMBERED_MAX: usize = 16_384;

/// What names answered.
pub(super) struct WellKnown {
    pages: Pages,
    /// 443, but in tests.
    port: u16,
    clock: Arc<dyn Clock>,
    rng: Mutex<StdRng>,
    known: Mutex<HashMap<OwnedServerName, Known>>,
    gates: Gates<OwnedServerName>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// Where the server is; `None` where the name does not say.
    server: Option<OwnedServerName>,
    /// Until when this is not asked again.
    until: Duration,
    /// Until when [`Self::server`] holds though the name does not answer.
    grace_until: Duration,
    failures: u32,
}

/// Why a name says nothing.
#[derive(Debug)]
enum Silence {
    /// It has no such document, or a wrong one.
    Nothing(&'static str),
    /// It does not answer now.
    Failure(String),
}

impl WellKnown {
    pub(super) fn new(pages: Pages, port: u16, clock: Arc<dyn Clock>, rng: &mut StdRng) -> Self {
        let rng = Mutex::new(StdRng::from_rng(rng));
        Self { pages, port, clock, rng, known: Mutex::default(), gates: Gates::default() }
    }

    /// The server that a name without a port delegates to.
    pub(super) async fn delegated(&self, name: &ServerName) -> Option<OwnedServerName> {
        if let Some(known) = self.fresh(name) {
            return known.server;
        }
        let gate = self.gates.at(name.to_owned());
        let _one_at_a_time = gate.lock().await;
        if let Some(known) = self.fresh(name) {
            return known.server;
        }
        let asked = tokio::time::timeout(TIMEOUT, self.ask(name)).await;
        let asked = asked.unwrap_or_else(|_| Err(Silence::Failure("it took too long".to_owned())));
        let known = self.learned(name, asked);
        let server = known.server.clone();
        let mut all = self.known.lock();
        if all.len() >= REMEMBERED_MAX {
            let now = self.clock.elapsed();
            all.retain(|_, known| known.until > now);
        }
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(name.to_owned(), known);
        server
    }

    fn fresh(&self, name: &ServerName) -> Option<Known> {
        let now = self.clock.elapsed();
        self.known.lock().get(name).filter(|known| known.until > now).cloned()
    }

    fn learned(&self, name: &ServerName, asked: Result<(OwnedServerName, Duration), Silence>) -> Known {
        let before = self.known.lock().get(name).cloned().unwrap_or_default();
        let now = self.clock.elapsed();
        let jitter = self.rng.lock().random_range(0.9..1.1);
        let failures = before.failures.saturating_add(1);
        let pause = FAILED_FIRST.saturating_mul(1 << before.failures.min(10)).min(FAILED_MAX).mul_f64(jitter);
        match asked {
            Ok((server, kept)) => {
                let kept = kept.mul_f64(jitter);
                Known { server: Some(server), until: now + kept, grace_until: now + kept + GRACE, failures: 0 }
            }
            Err(Silence::Failure(error)) => {
                tracing::debug!(%name, error, "a well-known document cannot be had");
                let server = before.server.filter(|_| before.grace_until > now);
                Known { server, until: now + pause, grace_until: before.grace_until, failures }
            }
            Err(Silence::Nothing(why)) => {
                tracing::debug!(%name, why, "a name delegates to no other");
                Known { server: None, until: now + FAILED_MAX.mul_f64(jitter), grace_until: now, failures: 0 }
            }
        }
    }

    async fn ask(&self, name: &ServerName) -> Result<(OwnedServerName, Duration), Silence> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(rename = "m.server")]
            server: String,
        }
        let url = format!("https://{}:{}/.well-known/matrix/server", name.host(), self.port);
        let response = self.pages.get(&url).await.map_err(|error| match error {
            PageError::Transport(error) => Silence::Failure(error.to_string()),
            PageError::Nowhere(why) => Silence::Nothing(why),
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Silence::Failure(format!("status {status}")));
        }
        if status != StatusCode::OK {
            return Err(Silence::Nothing("there is no such document"));
        }
        let text = collect(response.into_body(), DOCUMENT_MAX).await;
        let text = text.map_err(|error| Silence::Failure(error.to_string()))?;
        let document: Document = serde_json::from_slice(&text).map_err(|_| Silence::Nothing("the document is malformed"))?;
        let server = OwnedServerName::try_from(document.server).map_err(|_| Silence::Nothing("it names no server"))?;
        Ok((server, kept(&headers)))
    }
}

/// How long an answer with these headers holds.
fn kept(headers: &HeaderMap) -> Duration {
    let control = headers.get(header::CACHE_CONTROL).and_then(|control| control.to_str().ok()).unwrap_or_default();
    let mut kept = KEPT_DEFAULT;
    for directive in control.split(',').map(str::trim) {
        match directive.split_once('=') {
            Some((name, seconds)) if name.eq_ignore_ascii_case("max-age") => {
                kept = seconds.trim_matches('"').parse().map_or(kept, Duration::from_secs);
            }
            None if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") => {
                return KEPT_MIN;
            }
            _ => {}
        }
    }
    kept.clamp(KEPT_MIN, KEPT_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_hold_as_long_as_they_say_within_limits() {
        for (control, seconds) in [
            ("", 86_400),
            ("max-age=3600", 3600),
            ("public, Max-Age=\"7200\"", 7200),
            ("max-age=1", 300),
            ("max-age=99999999", 172_800),
            ("max-age=x", 86_400),
            ("no-store", 300),
            ("max-age=3600, no-cache", 300),
        ] {
            let headers = [(header::CACHE_CONTROL, control.parse().unwrap())].into_iter().collect();
            assert_eq!(kept(&headers), Duration::from_secs(seconds), "{control}");
        }
    }
}
