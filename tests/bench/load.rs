//! Senders: simulated users that send one event after the other, each on its own connection and all at the same time.

use std::time::Instant;

use bytes::Bytes;
use indicatif::ProgressBar;

use crate::delivery::EventId;
use crate::failure::Failure;
use crate::matrix::{Room, Session};
use crate::summary::Latencies;

/// How many state keys the state events are spread over.
const STATE_KEYS: usize = 16;
/// The length of a message's text.
const TEXT_BYTES: usize = 80;

/// Which requests to send.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Messages.
    Message,
    /// State events.
    State,
}

/// A user that sends to its rooms in turn.
#[derive(Debug)]
pub struct Sender {
    number: usize,
    session: Session,
    rooms: Vec<Room>,
    /// How many requests it has made: their transaction ids are these numbers.
    made: usize,
}

/// What senders were told.
#[derive(Debug, Default)]
pub struct Sent {
    /// Sender's number, room and event id; the events of one sender in its order.
    pub acknowledged: Vec<(usize, Room, EventId)>,
    /// From a request to its acknowledgement.
    pub latencies: Latencies,
    /// Why requests were not acknowledged.
    pub failures: Vec<Failure>,
}

impl Sent {
    fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.latencies.merge(other.latencies);
        self.failures.extend(other.failures);
    }
}

impl Sender {
    /// A user that sends to these rooms, of which there is at least one. `number` tells it from the other senders.
    pub fn new(number: usize, session: Session, rooms: Vec<Room>) -> Self {
        Self { number, session, rooms, made: 0 }
    }

    /// Sends one event and notes the answer.
    pub async fn send(&mut self, kind: Kind, sent: &mut Sent) {
        let Some(room) = self.rooms.get(self.made % self.rooms.len().max(1)) else { return };
        let transaction = self.made;
        self.made += 1;
        let content = content(kind, self.number, transaction);
        let started = Instant::now();
        let answer = match kind {
            Kind::Message => self.session.send(room, &transaction.to_string(), content).await,
            Kind::State => self.session.set_state(room, &(transaction % STATE_KEYS).to_string(), content).await,
        };
        match answer {
            Ok(event) => {
                sent.latencies.push(started.elapsed());
                sent.acknowledged.push((self.number, room.clone(), event));
            }
            Err(failure) => sent.failures.push(failure),
        }
    }

    async fn send_series(mut self, kind: Kind, count: usize, progress: ProgressBar) -> (Self, Sent) {
        let mut sent = Sent::default();
        for _ in 0..count {
            self.send(kind, &mut sent).await;
            progress.inc(1);
        }
        (self, sent)
    }
}

/// Lets all senders send at the same time, `total` events together, and gives them back.
pub async fn send_all(senders: &mut Vec<Sender>, kind: Kind, total: usize, progress: &ProgressBar) -> Result<Sent, Failure> {
    let count = senders.len().max(1);
    let share = |nth: usize| total / count + usize::from(nth < total % count);
    let tasks: Vec<_> = senders
        .drain(..)
        .enumerate()
        .map(|(nth, sender)| tokio::spawn(sender.send_series(kind, share(nth), progress.clone())))
        .collect();
    let mut all = Sent::default();
    for task in tasks {
        let (sender, sent) = task.await?;
        senders.push(sender);
        all.merge(sent);
    }
    Ok(all)
}

/// An event's content. The text differs from event to event, so that it does not compress better than what people write.
fn content(kind: Kind, sender: usize, nth: usize) -> Bytes {
    let text = text(((sender as u64) << 32) | nth as u64);
    match kind {
        Kind::Message => format!(r#"{{"msgtype":"m.text","body":"{text}"}}"#),
        Kind::State => format!(r#"{{"value":"{text}"}}"#),
    }
    .into()
}

/// Letters and spaces that follow from the number alone (a multiplicative generator; Knuth's MMIX constants).
fn text(number: u64) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz  eats";
    let mut state = number;
    (0..TEXT_BYTES)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(ALPHABET[(state >> 59) as usize])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn contents_are_json_and_differ() {
        for kind in [Kind::Message, Kind::State] {
            let (first, second) = (content(kind, 1, 2), content(kind, 1, 3));
            assert_ne!(first, second);
            assert_eq!(first, content(kind, 1, 2));
            let parsed: serde_json::Value = serde_json::from_slice(&first).unwrap();
            let field = if matches!(kind, Kind::Message) { "body" } else { "value" };
            assert_eq!(parsed[field].as_str().unwrap().len(), TEXT_BYTES);
        }
    }
}
