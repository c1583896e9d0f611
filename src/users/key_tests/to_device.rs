//! Messages to devices: each arrives once, in order, whatever happens in between.

use crate::to_device::{self, CONTENT_BYTES_MAX, MESSAGES_MAX, Messages};

use super::*;

fn to(user: &UserId, device: &str, content: Value) -> Messages {
    BTreeMap::from([(user.to_owned(), BTreeMap::from([(device.to_owned(), object(content))]))])
}

fn send(store: &Store, from: &Device, txn_id: &str, messages: Messages) -> Result<to_device::Sent, KeyError> {
    let this = "localhost".try_into().unwrap();
    Ok(to_device::send(store, this, &from.acting(), "m.test", txn_id, messages)?.wait()?)
}

/// A client that syncs: it acknowledges what its token says, and takes what waits.
struct Client<'a> {
    device: &'a Device,
    token: Seq,
}

impl Client<'_> {
    /// What a sync brings, and the token that comes with it.
    fn answer(&self, store: &Store, limit: usize) -> (Vec<Value>, Seq) {
        to_device::acknowledge(store, self.device.user, self.device.device, self.token).unwrap();
        let snapshot = store.snapshot();
        let (user, device) = (self.device.user, self.device.device);
        let waiting = to_device::pending(&snapshot, user, device, self.token, snapshot.seq(), limit).unwrap();
        (waiting.events.iter().map(|event| serde_json::from_str(event.get()).unwrap()).collect(), waiting.through)
    }

    fn sync(&mut self, store: &Store, limit: usize) -> Vec<i64> {
        let (events, token) = self.answer(store, limit);
        self.token = token;
        events.iter().map(|event| event["content"]["n"].as_i64().unwrap()).collect()
    }
}

/// How many messages are stored, once acknowledgements are done with.
fn waiting(store: &Store) -> usize {
    store.transact(&[], |_| Ok::<_, store::Error>(())).unwrap().wait().unwrap();
    let text = store.dump(&crate::to_device::TABLES).unwrap();
    text.lines().skip_while(|line| *line != "to_device").skip(1).take_while(|line| line.starts_with("  ")).count()
}

#[test]
fn a_message_arrives_once_and_in_order() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    let mut client = Client { device: &laptop, token: Seq(0) };
    for n in 0..5 {
        send(&store, &phone, &format!("t{n}"), to(bob(), "LAPTOP", json!({ "n": n }))).unwrap();
    }
    let (events, _) = client.answer(&store, 1);
    assert_eq!(events, [json!({ "content": { "n": 0 }, "sender": "@alice:localhost", "type": "m.test" })]);
    assert_eq!(client.sync(&store, 2), [0, 1], "what was not acknowledged comes again");
    assert_eq!(waiting(&store), 5);
    assert_eq!(client.sync(&store, 2), [2, 3]);
    assert_eq!(waiting(&store), 3, "the token proves that the first two arrived");
    send(&store, &phone, "t5", to(bob(), "LAPTOP", json!({ "n": 5 }))).unwrap();
    assert_eq!(client.sync(&store, 100), [4, 5]);
    assert_eq!(client.sync(&store, 100), [0; 0]);
    assert_eq!(waiting(&store), 0);
    // The last acknowledgement is on disk by now, and there is none to come.
    assert_eq!(client.sync(&store, 100), [0; 0]);
    assert_eq!(client.token, store.snapshot().seq(), "nothing waits, so the token is that of the snapshot");
    let mut new = Client { device: &laptop, token: Seq(0) };
    assert_eq!(new.sync(&store, 100), [0; 0], "a client that starts anew does not get it again");
}

#[test]
fn nothing_is_lost_or_doubled_by_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = store::Config { path: folder.path().join("db"), server_name: "localhost".into(), memory_bytes: 16 << 20 };
    let open = || Store::open(&config, crate::TABLES, &[]).unwrap();
    let store = open();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    for n in 0..3 {
        send(&store, &phone, &format!("t{n}"), to(bob(), "LAPTOP", json!({ "n": n }))).unwrap();
    }
    let mut client = Client { device: &laptop, token: Seq(0) };
    assert_eq!(client.sync(&store, 2), [0, 1]);
    drop(store);
    let store = open();
    assert_eq!(client.sync(&store, 2), [2]);
    assert!(send(&store, &phone, "t2", to(bob(), "LAPTOP", json!({ "n": 2 }))).unwrap().repeated, "nor sent twice");
    drop(store);
    let store = open();
    assert_eq!(client.sync(&store, 2), [0; 0]);
    assert_eq!(waiting(&store), 0);
}

#[test]
fn a_repeated_request_sends_nothing() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    let mut messages = to(bob(), "LAPTOP", json!({ "n": 1 }));
    messages.extend(to(user_id!("@carol:elsewhere.org"), "*", json!({ "n": 2 })));
    let first = send(&store, &phone, "t", messages.clone()).unwrap();
    assert!(!first.repeated);
    assert_eq!(first.remote.len(), 1);
    assert_eq!(first.remote.values().next().unwrap().keys().collect::<Vec<_>>(), [user_id!("@carol:elsewhere.org")]);
    let again = send(&store, &phone, "t", messages.clone()).unwrap();
    assert!(again.repeated && again.remote.is_empty());
    let mut client = Client { device: &laptop, token: Seq(0) };
    assert_eq!(client.sync(&store, 100), [1]);
    let tablet = Device::log_in(&store, alice(), "TABLET");
    assert!(!send(&store, &tablet, "t", messages.clone()).unwrap().repeated, "another device has its own");
    let this = "localhost".try_into().unwrap();
    let other_type = to_device::send(&store, this, &phone.acting(), "m.other", "t", messages).unwrap().wait().unwrap();
    assert!(!other_type.repeated, "and so has another type");
}

#[test]
fn all_devices_means_those_that_are_not_named() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let devices: Vec<_> = ["ONE", "TWO", "THREE"].iter().map(|id| Device::log_in(&store, bob(), id)).collect();
    let mut messages = to(bob(), "*", json!({ "n": 1 }));
    messages.get_mut(bob()).unwrap().insert("TWO".into(), object(json!({ "n": 2 })));
    messages.get_mut(bob()).unwrap().insert("LOST".into(), object(json!({ "n": 3 })));
    messages.extend(to(user_id!("@nobody:localhost"), "*", json!({ "n": 4 })));
    let since = store.snapshot().seq();
    send(&store, &phone, "t", messages).unwrap();
    let got: Vec<_> = devices.iter().map(|device| Client { device, token: Seq(0) }.sync(&store, 9)).collect();
    assert_eq!(got, [vec![1], vec![2], vec![1]]);
    assert!(woken(&store, since, Topic::User(devices[0].user)) && !woken(&store, since, Topic::User(phone.user)));
    let since = store.snapshot().seq();
    to_device::acknowledge(&store, devices[0].user, devices[0].device, since).unwrap();
    send(&store, &phone, "u", to(bob(), "LOST", json!({ "n": 5 }))).unwrap();
    assert!(!woken(&store, since, Topic::User(devices[0].user)), "neither an acknowledgement nor a lost message wakes");
}

#[test]
fn what_waits_for_a_device_goes_with_it() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    send(&store, &phone, "t", to(bob(), "LAPTOP", json!({ "n": 1 }))).unwrap();
    devices::delete(&store, laptop.user, std::slice::from_ref(&laptop.id), &[]).unwrap().wait().unwrap();
    assert_eq!(waiting(&store), 0);
    let again = Device::log_in(&store, bob(), "LAPTOP");
    assert_eq!(Client { device: &again, token: Seq(0) }.sync(&store, 9), [0; 0]);
}

#[test]
fn messages_of_other_servers_arrive_here_and_are_not_passed_on() {
    let store = store();
    let laptop = Device::log_in(&store, bob(), "LAPTOP");
    let mut messages = to(bob(), "LAPTOP", json!({ "n": 1 }));
    messages.extend(to(user_id!("@carol:elsewhere.org"), "*", json!({ "n": 2 })));
    let (this, sender) = ("localhost".try_into().unwrap(), user_id!("@dave:elsewhere.org"));
    // The second time is the other server's, which did not hear that the first arrived.
    for _ in 0..2 {
        to_device::receive(&store, this, sender, "m.test", "id1", messages.clone()).unwrap().wait().unwrap();
    }
    let (events, _) = Client { device: &laptop, token: Seq(0) }.answer(&store, 9);
    assert_eq!(events, [json!({ "content": { "n": 1 }, "sender": sender, "type": "m.test" })]);
}

#[test]
fn t23_too_much_is_refused_and_a_full_queue_drops() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    let large = json!({ "n": 1, "padding": "x".repeat(CONTENT_BYTES_MAX) });
    assert!(matches!(send(&store, &phone, "t", to(bob(), "LAPTOP", large)), Err(KeyError::TooLarge { .. })));
    let many = (0..=MESSAGES_MAX).map(|n| (format!("D{n}"), Object::new())).collect();
    let many = BTreeMap::from([(bob().to_owned(), many)]);
    assert!(matches!(send(&store, &phone, "t", many), Err(KeyError::TooLarge { .. })));
    let this = "localhost".try_into().unwrap();
    let long = to_device::send(&store, this, &phone.acting(), &"x".repeat(256), "t", Messages::new());
    assert!(matches!(long, Err(KeyError::TooLarge { .. })));

    to_device::fill(&store, laptop.user, laptop.device);
    send(&store, &phone, "t", to(bob(), "LAPTOP", json!({ "n": 1 }))).unwrap();
    assert_eq!(waiting(&store), 0, "the queue says that it is full");
}

#[test]
fn senders_at_once_lose_nothing() {
    let store = store();
    let laptop = Device::log_in(&store, bob(), "LAPTOP");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let user: OwnedUserId = format!("@user{thread}:localhost").try_into().unwrap();
                let from = Device::log_in(store, &user, "PHONE");
                for n in 0..20 {
                    send(store, &from, &format!("t{n}"), to(bob(), "LAPTOP", json!({ "n": 100 * thread + n }))).unwrap();
                }
            });
        }
    });
    let mut client = Client { device: &laptop, token: Seq(0) };
    let mut got = Vec::new();
    while got.len() < 80 {
        let page = client.sync(&store, 7);
        assert!(!page.is_empty(), "{got:?}");
        got.extend(page);
    }
    for thread in 0..4 {
        let of_thread: Vec<_> = got.iter().copied().filter(|n| n / 100 == thread).collect();
        assert_eq!(of_thread, (0..20).map(|n| 100 * thread + n).collect::<Vec<_>>(), "in the order of each sender");
    }
}
