//! What the background jobs of a running server do, for who watches it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::{Error, Homeserver, Operation, Result};

/// What is known of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it does.
    pub about: String,
    /// Whether it is at it.
    pub running: bool,
    /// How often it ran since the server's start.
    pub runs: u64,
    /// How many of these runs failed.
    pub failures: u64,
    /// When it last began, in milliseconds since 1970.
    pub started_ms: Option<u64>,
    /// When it last ended.
    pub ended_ms: Option<u64>,
    /// When it runs next, if nothing wakes it before.
    pub next_ms: Option<u64>,
    /// What its last run did, or why it failed.
    pub outcome: Option<String>,
}

/// The status of all jobs of a server.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<&'static str, Status>>);

impl Board {
    /// Notes that there is a job, which will run at `next_ms`.
    pub fn planned(&self, name: &'static str, about: &'static str, next_ms: u64) {
        let status = Status { about: about.into(), next_ms: Some(next_ms), ..Status::default() };
        self.0.lock().insert(name, status);
    }

    /// Notes that a job begins.
    pub fn started(&self, name: &'static str, now_ms: u64) {
        if let Some(status) = self.0.lock().get_mut(name) {
            (status.running, status.started_ms, status.next_ms) = (true, Some(now_ms), None);
        }
    }

    /// Notes how a run ended: what it did, or why it failed.
    pub fn ended(&self, name: &'static str, outcome: std::result::Result<String, String>, now_ms: u64, next_ms: u64) {
        if let Some(status) = self.0.lock().get_mut(name) {
            status.runs += 1;
            status.failures += u64::from(outcome.is_err());
            (status.running, status.ended_ms, status.next_ms) = (false, Some(now_ms), Some(next_ms));
            status.outcome = Some(outcome.unwrap_or_else(|failed| failed));
        }
    }
}

/// Lists the background jobs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {}

impl Operation for List {
    const NAME: &'static str = "jobs_list";
    type Output = BTreeMap<String, Status>;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Self::Output> {
        let board = server.jobs.as_ref().ok_or(Error::NotRunning)?;
        Ok(board.0.lock().iter().map(|(name, status)| ((*name).to_owned(), status.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::testing::{ask, homeserver};

    #[test]
    fn the_board_tells_how_a_job_fares() {
        let board = Arc::new(Board::default());
        let server = Homeserver { jobs: Some(Arc::clone(&board)), ..homeserver() };
        let status = || ask(&server, &List {}).unwrap()["sweep"].clone();
        board.planned("sweep", "Sweeps", 10);
        assert_eq!((status().next_ms, status().runs), (Some(10), 0));
        board.started("sweep", 10);
        assert!(status().running && status().next_ms.is_none());
        board.ended("sweep", Err("no broom".into()), 12, 22);
        board.started("sweep", 22);
        board.ended("sweep", Ok("3 rooms".into()), 23, 33);
        let Status { running, runs, failures, started_ms, ended_ms, next_ms, outcome, about } = status();
        assert_eq!((running, runs, failures, started_ms, ended_ms, next_ms), (false, 2, 1, Some(22), Some(23), Some(33)));
        assert_eq!((outcome.as_deref(), about.as_str()), (Some("3 rooms"), "Sweeps"));
    }
}
