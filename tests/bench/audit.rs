//! All rooms of a scenario with what was acknowledged in them, and the followers that must see it.

use std::collections::HashMap;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::delivery::{EventId, RoomLedger};
use crate::failure::Failure;
use crate::follower::{Arrival, Follower};
use crate::load::Sent;
use crate::matrix::Room;
use crate::summary::Run;

/// What was acknowledged so far, by room id.
#[derive(Debug, Default)]
pub struct Audit {
    rooms: HashMap<Box<str>, RoomLedger>,
    failures: Vec<Failure>,
}

/// Followers that are following.
#[derive(Debug)]
pub struct Live {
    followers: Vec<Following>,
}

#[derive(Debug)]
struct Following {
    target: watch::Sender<Option<usize>>,
    rooms: Vec<Room>,
    task: JoinHandle<Result<Follower, Failure>>,
}

impl Audit {
    /// Notes what senders were told.
    pub fn note(&mut self, sent: Sent) {
        self.failures.extend(sent.failures);
        for (sender, room, event) in sent.acknowledged {
            self.rooms.entry(room.id.as_ref().into()).or_default().acknowledge(sender, event);
        }
    }

    /// Lets followers fetch all that they have not seen yet.
    pub async fn catch_up(&self, followers: Vec<Follower>) -> Result<Vec<Follower>, Failure> {
        follow(followers, None).finish(self).await
    }

    /// Holds what the followers saw against what was acknowledged, for the run's verdict.
    pub fn close(mut self, followers: Vec<Follower>, run: &mut Run) {
        for (room, seen) in followers.into_iter().flat_map(Follower::into_seen) {
            self.deliver(&room, seen);
        }
        run.verdict.failed += self.failures.len();
        run.first_failure = self.failures.first().map(ToString::to_string);
        for ledger in self.rooms.values() {
            run.verdict += ledger.check();
        }
    }

    /// Notes all that one more reader saw in a room.
    pub fn deliver(&mut self, room: &Room, seen: Vec<EventId>) {
        self.rooms.entry(room.id.as_ref().into()).or_default().deliver(seen);
    }

    fn expected(&self, rooms: &[Room]) -> usize {
        rooms.iter().filter_map(|room| self.rooms.get(&*room.id)).map(RoomLedger::acknowledged).sum()
    }
}

/// Starts following, with a copy of each arrival for whoever measures.
pub fn follow(followers: Vec<Follower>, arrivals: Option<&mpsc::Sender<Arrival>>) -> Live {
    let start = |follower: Follower| {
        let (target, known) = watch::channel(None);
        let rooms = follower.rooms().cloned().collect();
        Following { target, rooms, task: tokio::spawn(follower.follow(arrivals.cloned(), known)) }
    };
    Live { followers: followers.into_iter().map(start).collect() }
}

impl Live {
    /// Lets each follower go on until it has seen all that was acknowledged.
    pub async fn finish(self, audit: &Audit) -> Result<Vec<Follower>, Failure> {
        for follower in &self.followers {
            follower.target.send_replace(Some(audit.expected(&follower.rooms)));
        }
        let mut finished = Vec::with_capacity(self.followers.len());
        for follower in self.followers {
            finished.push(follower.task.await??);
        }
        Ok(finished)
    }
}
