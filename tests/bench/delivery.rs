//! The correctness check of every scenario: an acknowledged event reaches every member exactly once, and all members in one order.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::sync::Arc;

use serde::Serialize;

/// An event id, shared by all lists that mention it.
pub type EventId = Arc<str>;

/// What one room was given and what its members saw.
#[derive(Debug, Default)]
pub struct RoomLedger {
    /// Sender and event id. The events of one sender are in the order in which they were acknowledged, and a sender waits
    /// for each acknowledgement before it sends again.
    acknowledged: Vec<(usize, EventId)>,
    /// For each member the events in the order of their delivery.
    delivered: Vec<Vec<EventId>>,
}

/// What went wrong; all zero but the first is what a homeserver owes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Events that the server acknowledged.
    pub acknowledged: usize,
    /// Deliveries that did not happen: an event that two members miss counts twice.
    pub undelivered: usize,
    /// Deliveries beyond the first of an event to a member.
    pub duplicates: usize,
    /// Neighbours in a member's order that another member saw the other way round, or that one sender sent the other way round.
    pub misordered: usize,
    /// Delivered events that nobody was told of: a second event for one transaction id, or a request that failed halfway.
    pub unasked: usize,
    /// Requests to send that failed.
    pub failed: usize,
}

impl Verdict {
    /// Whether nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.undelivered + self.duplicates + self.misordered + self.unasked + self.failed == 0
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.undelivered += other.undelivered;
        self.duplicates += other.duplicates;
        self.misordered += other.misordered;
        self.unasked += other.unasked;
        self.failed += other.failed;
    }
}

impl RoomLedger {
    /// Notes that the server answered a request to send with this event id.
    pub fn acknowledge(&mut self, sender: usize, event: EventId) {
        self.acknowledged.push((sender, event));
    }

    /// Notes all that one member was given from before the first acknowledged event to now.
    pub fn deliver(&mut self, events: Vec<EventId>) {
        self.delivered.push(events);
    }

    /// How many events were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Compares what was acknowledged with what each member saw.
    pub fn check(&self) -> Verdict {
        let known: HashMap<&str, usize> = self.acknowledged.iter().map(|(sender, event)| (&**event, *sender)).collect();
        let mut verdict = Verdict { acknowledged: known.len(), ..Verdict::default() };
        // Two acknowledgements with one event id: one of the two messages is gone for everybody.
        verdict.undelivered += (self.acknowledged.len() - known.len()) * self.delivered.len();
        let mut reference: Vec<&str> = Vec::new();
        let mut orders = Vec::new();
        for events in &self.delivered {
            let order = unique(events, &known, &mut verdict);
            verdict.undelivered += known.len() - order.len();
            if order.len() > reference.len() {
                reference.clone_from(&order);
            }
            orders.push(order);
        }
        verdict.misordered += self.against_senders(&reference);
        let rank: HashMap<&str, usize> = reference.iter().enumerate().map(|(rank, event)| (*event, rank)).collect();
        verdict.misordered +=
            orders.iter().map(|order| descents(order.iter().filter_map(|event| rank.get(event)))).sum::<usize>();
        verdict
    }

    /// How often one sender's events stand in `order` other than acknowledged.
    fn against_senders(&self, order: &[&str]) -> usize {
        let nth: HashMap<&str, (usize, usize)> =
            self.acknowledged.iter().enumerate().map(|(nth, (sender, event))| (&**event, (*sender, nth))).collect();
        let mut by_sender: HashMap<usize, Vec<usize>> = HashMap::new();
        for (sender, nth) in order.iter().filter_map(|event| nth.get(event)) {
            by_sender.entry(*sender).or_default().push(*nth);
        }
        by_sender.values().map(|sent| descents(sent.iter())).sum()
    }
}

/// The acknowledged events of a delivery in order and each once; what is left out is counted in `verdict`.
fn unique<'a>(events: &'a [EventId], known: &HashMap<&str, usize>, verdict: &mut Verdict) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    let mut order = Vec::with_capacity(events.len());
    for event in events {
        if !seen.insert(&**event) {
            verdict.duplicates += 1;
        } else if known.contains_key(&**event) {
            order.push(&**event);
        } else {
            verdict.unasked += 1;
        }
    }
    order
}

/// How many values are smaller than the one before.
fn descents<'a>(values: impl Iterator<Item = &'a usize>) -> usize {
    let mut last = 0;
    let mut count = 0;
    for &value in values {
        count += usize::from(value < last);
        last = value;
    }
    count
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    /// `acknowledged` is written as sender and event, "1a 2b"; each delivery as events, "a b".
    fn check(acknowledged: &str, delivered: &[&str]) -> Verdict {
        let mut ledger = RoomLedger::default();
        for item in acknowledged.split_whitespace() {
            let (sender, event) = item.split_at(1);
            ledger.acknowledge(sender.parse().unwrap(), event.into());
        }
        for events in delivered {
            ledger.deliver(events.split_whitespace().map(EventId::from).collect());
        }
        ledger.check()
    }

    fn clean(acknowledged: usize) -> Verdict {
        Verdict { acknowledged, ..Verdict::default() }
    }

    #[test]
    fn same_order_for_all_is_clean() {
        let verdict = check("1a 1b 2c 2d", &["a c b d", "a c b d"]);
        assert_eq!(verdict, clean(4));
        assert!(verdict.is_clean());
    }

    #[test]
    fn nothing_sent_is_clean() {
        assert_eq!(check("", &["", ""]), clean(0));
    }

    #[test]
    fn each_missing_delivery_counts() {
        let verdict = check("1a 1b", &["a", "a b", ""]);
        assert_eq!(verdict, Verdict { undelivered: 3, ..clean(2) });
        assert!(!verdict.is_clean());
    }

    #[test]
    fn one_event_id_for_two_messages_is_a_loss() {
        assert_eq!(check("1a 2a 1b", &["a b"]), Verdict { undelivered: 1, ..clean(2) });
    }

    #[test]
    fn duplicates_count_once_each() {
        assert_eq!(check("1a 1b", &["a b a a", "a b"]), Verdict { duplicates: 2, ..clean(2) });
    }

    #[test]
    fn members_that_disagree_are_misordered() {
        assert_eq!(check("1a 2b", &["a b", "b a"]), Verdict { misordered: 1, ..clean(2) });
    }

    #[test]
    fn order_is_compared_without_the_missing() {
        assert_eq!(check("1a 2b 3c", &["a b c", "c a"]), Verdict { misordered: 1, undelivered: 1, ..clean(3) });
    }

    #[test]
    fn one_senders_events_keep_their_order() {
        assert_eq!(check("1a 1b 2c", &["b a c"]), Verdict { misordered: 1, ..clean(3) });
        assert_eq!(check("1a 1b 2c", &["c a b"]), clean(3));
    }

    #[test]
    fn unknown_events_are_unasked() {
        assert_eq!(check("1a", &["a x"]), Verdict { unasked: 1, ..clean(1) });
    }

    #[test]
    fn verdicts_add_up() {
        let mut sum = check("1a", &[""]);
        sum += check("1a", &["a a"]);
        assert_eq!(sum, Verdict { undelivered: 1, duplicates: 1, ..clean(2) });
    }
}
