//! Who is online, over restarts and for good.

use store::{Lock, Seq};

use super::*;
use crate::{
    accounts,
    devices::DeviceNo,
    presence::{self, By, GONE_MS, IDLE_MS, Online, State},
};

const PHONE: DeviceNo = DeviceNo(1);
const LAPTOP: DeviceNo = DeviceNo(2);

fn put(store: &Store, online: &Online, user: UserNo, status: Option<&str>, now_ms: u64) -> bool {
    let status = status.map(|status| Some(status.to_owned()));
    store.transact(&[Lock::User(user)], |tx| presence::put(tx, online, user, status, now_ms)).unwrap().wait().unwrap()
}

fn state(store: &Store, user: UserNo) -> State {
    presence::presence(&store.snapshot(), user).unwrap().state
}

#[test]
fn the_most_present_device_counts() {
    let (store, online) = (store(), Online::default());
    let (alice, _) = register(&store, "alice");
    assert!(!online.says(alice, PHONE, Some(State::Offline), By::Sync, 0), "who hides is not noticed");
    assert!(online.says(alice, PHONE, Some(State::Unavailable), By::Sync, 0));
    assert!(put(&store, &online, alice, None, 0));
    assert!(online.says(alice, LAPTOP, None, By::Sync, 1));
    assert!(put(&store, &online, alice, None, 1) && !put(&store, &online, alice, None, 2), "no change, no row");
    assert_eq!(state(&store, alice), State::Online);
    online.left(alice, LAPTOP, 10);
    assert!(online.due(9 + GONE_MS).is_empty());
    assert_eq!(online.due(10 + GONE_MS), [alice], "the laptop is gone, the phone waits");
    put(&store, &online, alice, None, 10 + GONE_MS);
    assert_eq!(state(&store, alice), State::Unavailable);
    online.left(alice, PHONE, 2 * GONE_MS);
    assert_eq!(online.due(3 * GONE_MS), [alice]);
    put(&store, &online, alice, None, 3 * GONE_MS);
    assert_eq!(state(&store, alice), State::Offline);
    assert!(online.due(9 * GONE_MS).is_empty() && online.active_ms(alice).is_none(), "nothing is kept of who is gone");
}

#[test]
fn who_was_online_before_a_restart_may_come_back_unnoticed() {
    let (store, before) = (store(), Online::default());
    let (alice, bob) = (register(&store, "alice").0, register(&store, "bob").0);
    for user in [alice, bob] {
        before.says(user, PHONE, Some(State::Online), By::Word, 5);
        put(&store, &before, user, Some("Here"), 5);
    }
    let then = store.snapshot().seq();
    let after = Online::default();
    after.recover(&store.snapshot(), 1_000).unwrap();
    assert!(after.due(1_000).is_empty());
    assert!(!after.says(alice, PHONE, None, By::Sync, 2_000));
    assert_eq!(after.due(1_000 + GONE_MS), [bob]);
    put(&store, &after, bob, None, 1_000 + GONE_MS);
    let gone = presence::presence(&store.snapshot(), bob).unwrap();
    assert_eq!((gone.state, gone.status_msg.as_deref(), gone.active_ms), (State::Offline, Some("Here"), Some(5)));
    assert_eq!(presence::changed_since(&store.snapshot(), then, 10).unwrap(), [bob]);
    assert_eq!(presence::changed_since(&store.snapshot(), Seq(0), 10).unwrap(), [bob, alice], "the last first, each once");
}

#[test]
fn who_does_something_is_no_longer_idle() {
    let (store, online) = (store(), Online::default());
    let (alice, _) = register(&store, "alice");
    assert!(!online.acts(alice, PHONE, 0), "who does not sync is not online");
    online.says(alice, PHONE, None, By::Sync, 0);
    put(&store, &online, alice, None, 0);
    assert_eq!(online.due(IDLE_MS), [alice]);
    put(&store, &online, alice, None, IDLE_MS);
    assert_eq!(state(&store, alice), State::Unavailable);
    assert!(online.acts(alice, PHONE, IDLE_MS + 1));
    put(&store, &online, alice, None, IDLE_MS + 1);
    assert_eq!(state(&store, alice), State::Online);
    online.says(alice, PHONE, Some(State::Unavailable), By::Sync, IDLE_MS + 2);
    put(&store, &online, alice, None, IDLE_MS + 2);
    assert!(online.acts(alice, PHONE, IDLE_MS + 3), "though the client said otherwise");
}

#[test]
fn nothing_stays_of_who_goes_for_good() {
    let (store, online) = (store(), Online::default());
    let (alice, _) = register(&store, "alice");
    online.says(alice, PHONE, Some(State::Online), By::Word, 0);
    put(&store, &online, alice, Some("Bye"), 0);
    accounts::deactivate(&store, alice, false, &[]).unwrap().wait().unwrap();
    assert_eq!(store.dump(&presence::TABLES).unwrap(), "presence\npresence_changes\n");
    online.due(GONE_MS);
    assert!(!put(&store, &online, alice, None, GONE_MS), "the job leaves it so");
}
