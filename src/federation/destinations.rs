//! Back-off: a server that does not answer is asked less and less often, until it shows life.

use std::ops::Range;

use rand::RngExt as _;
use ruma::ServerName;
use serde::{Deserialize, Serialize};
use store::{Preset, Read as _, Table};

use crate::{Error, Federation, Result};

pub(crate) static DESTINATIONS: Table<String, Destination> =
    Table::new("destinations", "Other servers that did not answer: how often, and when they are asked again.")
        .read_by(Preset::Scan);

/// The wait after the first failure. It doubles with each.
const FIRST_MS: u64 = 5_000;
/// The longest wait.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;
/// What a wait is multiplied with, so that servers do not ask all at once.
const JITTER: Range<f64> = 0.8..1.2;
/// How long one that is not asked any more is remembered.
const KEPT_MS: u64 = 14 * 24 * 60 * 60 * 1000;

/// A server that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Destination {
    failures: u32,
    retry_ms: u64,
}

impl Destination {
    /// Whether it is not to be asked yet. A time further off than it was ever put off is from before the clock was set back.
    fn waits(&self, now_ms: u64) -> bool {
        let longest_ms = (wait_ms(self.failures) as f64 * JITTER.end) as u64;
        (now_ms + 1..=now_ms.saturating_add(longest_ms)).contains(&self.retry_ms)
    }
}

/// How long a server is not asked after so many failures.
fn wait_ms(failures: u32) -> u64 {
    FIRST_MS.saturating_mul(1_u64 << failures.saturating_sub(1).min(20)).min(LONGEST_MS)
}

impl Federation {
    /// When this server may be asked again, in milliseconds since 1970; `None` where it may be now.
    ///
    /// # Errors
    /// As the store.
    pub fn backed_off_until(&self, destination: &ServerName) -> Result<Option<u64>> {
        let row = self.store.snapshot().get(&DESTINATIONS, &destination.as_str())?;
        Ok(row.filter(|row| row.waits(self.now_ms())).map(|row| row.retry_ms))
    }

    pub(crate) fn check_backoff(&self, destination: &ServerName) -> Result<()> {
        self.backed_off_until(destination)?.map_or(Ok(()), |until_ms| Err(Error::BackedOff { until_ms }))
    }

    /// Notes that a server did not answer. Of those who asked at the same time only the first counts.
    pub(crate) async fn note_failure(&self, destination: &ServerName) -> Result<()> {
        let (now_ms, jitter) = (self.now_ms(), self.rng().random_range(JITTER));
        let note = |tx: &mut store::Tx<'_>| {
            let row = tx.latest(&DESTINATIONS, &destination.as_str())?;
            let row = row.unwrap_or(Destination { failures: 0, retry_ms: 0 });
            if row.waits(now_ms) {
                return Ok(());
            }
            let failures = row.failures.saturating_add(1);
            let retry_ms = now_ms.saturating_add((wait_ms(failures) as f64 * jitter) as u64);
            let row = Destination { failures, retry_ms };
            tx.put(&DESTINATIONS, &destination.as_str(), &row)
        };
        // A sign of life that comes after this must find it.
        Ok(self.store.transact(&[], note)?.durable().await?)
    }

    /// Notes that a server shows life: it answered, or sent a request with a valid signature.
    ///
    /// # Errors
    /// As the store.
    pub fn note_life(&self, destination: &ServerName) -> Result<()> {
        self.outbound.alive(destination);
        if !self.store.snapshot().contains(&DESTINATIONS, &destination.as_str())? {
            return Ok(());
        }
        self.store.transact(&[], |tx| tx.delete(&DESTINATIONS, &destination.as_str()))?.soft();
        Ok(())
    }

    /// Forgets up to `max` servers that have not been asked for long, and says how many those were.
    ///
    /// # Errors
    /// As the store.
    pub fn prune_destinations(&self, max: usize) -> Result<usize> {
        let before_ms = self.now_ms().saturating_sub(KEPT_MS);
        let db = self.store.snapshot();
        let mut old = Vec::new();
        for row in db.range(&DESTINATIONS, store::Range::of(&()))? {
            let (name, row) = row?;
            if row.retry_ms < before_ms {
                old.push(name);
            }
            if old.len() >= max {
                break;
            }
        }
        let forget = |tx: &mut store::Tx<'_>| old.iter().try_for_each(|name| tx.delete(&DESTINATIONS, &name.as_str()));
        self.store.transact(&[], forget)?.soft();
        Ok(old.len())
    }
}
