//! One-time keys: each is handed out once, in order, and a fallback key stands behind them.

use std::collections::BTreeSet;

use crate::one_time_keys::{self, ALGORITHMS_MAX, Claimed, Claims, ONE_TIME_KEYS_MAX};

use super::*;

fn claims(device: &Device) -> Claims {
    let of_device = BTreeMap::from([(device.id.clone(), "signed_curve25519".to_owned())]);
    BTreeMap::from([(device.user_id.clone(), of_device)])
}

/// The id of the key that a claim hands out.
fn claim(store: &Store, device: &Device) -> Option<String> {
    let claimed: Claimed = one_time_keys::claim(store, &claims(device)).unwrap().wait().unwrap();
    let keys = claimed.get(&device.user_id)?.get(&device.id)?;
    assert_eq!(keys.len(), 1);
    keys.keys().next().cloned()
}

fn fallback(device: &Device, name: &str) -> KeysUpload {
    KeysUpload { fallback_keys: device.one_time_keys(&[name]), ..KeysUpload::default() }
}

fn unused_fallback(store: &Store, device: &Device) -> BTreeSet<String> {
    one_time_keys::counts(&store.snapshot(), device.user, device.device).unwrap().unused_fallback_key_types
}

#[test]
fn keys_go_in_the_order_of_their_uploads_and_then_there_are_none() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let counts = one_time_keys::counts(&store.snapshot(), phone.user, phone.device).unwrap();
    assert_eq!(counts.one_time_keys["signed_curve25519"], 0, "a new device is told to upload some");
    phone.upload_one_time_keys(&store, &["1"]).unwrap();
    assert_eq!(phone.upload_one_time_keys(&store, &["0"]).unwrap()["signed_curve25519"], 2);
    assert_eq!(claim(&store, &phone).unwrap(), "signed_curve25519:1");
    let since = store.snapshot().seq();
    let claimed = one_time_keys::claim(&store, &claims(&phone)).unwrap().wait().unwrap();
    assert_eq!(claimed[alice()][&phone.id], phone.one_time_keys(&["0"]), "with its signature");
    assert!(woken(&store, since, Topic::User(phone.user)), "the last one wakes the device to upload more");
    assert_eq!(claim(&store, &phone), None);
    let counts = one_time_keys::counts(&store.snapshot(), phone.user, phone.device).unwrap();
    assert_eq!(counts.one_time_keys, BTreeMap::from([("signed_curve25519".to_owned(), 0)]), "zero is said explicitly");
}

#[test]
fn an_upload_again_is_nothing_new_and_another_key_of_the_same_id_is_refused() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    phone.upload_one_time_keys(&store, &["a", "b", "c"]).unwrap();
    assert_eq!(phone.upload_one_time_keys(&store, &["b", "c", "d"]).unwrap()["signed_curve25519"], 4);
    let other = BTreeMap::from([
        ("signed_curve25519:e".to_owned(), phone.one_time_key("e")),
        ("signed_curve25519:a".to_owned(), phone.one_time_key("not a")),
    ]);
    let refused = phone.upload(&store, &KeysUpload { one_time_keys: other, ..KeysUpload::default() });
    assert!(matches!(refused, Err(KeyError::OneTimeKeyExists(id)) if id == "signed_curve25519:a"));
    assert_eq!(phone.upload(&store, &KeysUpload::default()).unwrap()["signed_curve25519"], 4, "and nothing with it");
}

#[test]
fn a_repeated_upload_does_not_bring_a_claimed_key_back() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    phone.upload_one_time_keys(&store, &["a", "b"]).unwrap();
    assert_eq!(claim(&store, &phone).unwrap(), "signed_curve25519:a");
    // The answer was lost, so the client uploads again.
    assert_eq!(phone.upload_one_time_keys(&store, &["a", "b"]).unwrap()["signed_curve25519"], 1);
    assert_eq!(claim(&store, &phone).unwrap(), "signed_curve25519:b");
    assert_eq!(claim(&store, &phone), None);
}

#[test]
fn the_fallback_key_stays_and_is_used_until_another_comes() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let algorithm = BTreeSet::from(["signed_curve25519".to_owned()]);
    phone.upload_one_time_keys(&store, &["a"]).unwrap();
    phone.upload(&store, &fallback(&phone, "f")).unwrap();
    assert_eq!(unused_fallback(&store, &phone), algorithm);
    assert_eq!(claim(&store, &phone).unwrap(), "signed_curve25519:a", "one-time keys go first");
    assert_eq!(unused_fallback(&store, &phone), algorithm);
    let since = store.snapshot().seq();
    assert_eq!(claim(&store, &phone).unwrap(), "signed_curve25519:f");
    assert!(woken(&store, since, Topic::User(phone.user)), "the device must replace it");
    let since = store.snapshot().seq();
    assert_eq!(claim(&store, &phone).unwrap(), "signed_curve25519:f");
    assert!(!woken(&store, since, Topic::User(phone.user)), "it knows");
    phone.upload(&store, &fallback(&phone, "f")).unwrap();
    assert!(unused_fallback(&store, &phone).is_empty(), "the same key stays used");
    phone.upload(&store, &fallback(&phone, "g")).unwrap();
    assert_eq!(unused_fallback(&store, &phone), algorithm);
    assert_eq!(claim(&store, &phone).unwrap(), "signed_curve25519:g");
    let two = KeysUpload { fallback_keys: phone.one_time_keys(&["h", "i"]), ..KeysUpload::default() };
    assert!(matches!(phone.upload(&store, &two), Err(KeyError::Invalid(_))), "one an algorithm");
}

#[test]
fn claims_from_many_threads_never_get_the_same_key() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let names: Vec<String> = (0..60).map(|n| format!("k{n}")).collect();
    phone.upload_one_time_keys(&store, &names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let claimed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..10).filter_map(|_| claim(&store, &phone)).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claimed.len(), 60, "all are handed out");
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 60, "each once");
}

#[test]
fn what_is_not_there_is_missing_from_the_answer() {
    let store = store();
    let (phone, other) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "OTHER"));
    phone.upload_one_time_keys(&store, &["a"]).unwrap();
    let mut asked = claims(&phone);
    asked.insert(bob().to_owned(), BTreeMap::from([(other.id, "signed_curve25519".into()), ("LOST".into(), "x".into())]));
    asked.insert("@nobody:localhost".try_into().unwrap(), BTreeMap::from([("LOST".into(), "signed_curve25519".into())]));
    let claimed = one_time_keys::claim(&store, &asked).unwrap().wait().unwrap();
    assert_eq!(claimed.keys().collect::<Vec<_>>(), [alice()]);
    let half = BTreeMap::from([(phone.id.clone(), "signed_curve".to_owned())]);
    let claimed = one_time_keys::claim(&store, &BTreeMap::from([(alice().to_owned(), half)])).unwrap().wait().unwrap();
    assert!(claimed.is_empty(), "half of an algorithm's name is none");
}

#[test]
fn malformed_keys_and_too_many_are_refused() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let curve = key("c").public().to_base64();
    let wrong = [
        ("nocolon", json!({ "key": curve, "signatures": {} })),
        (":id", json!({ "key": curve, "signatures": {} })),
        ("signed_curve25519:", json!({ "key": curve, "signatures": {} })),
        ("signed_curve25519:a", json!(curve)),
        ("signed_curve25519:a", json!({ "key": curve })),
        ("signed_curve25519:a", json!({ "signatures": {} })),
        ("signed_curve25519:a", json!({ "key": "short", "signatures": {} })),
        ("signed_curve25519:a", json!({ "key": curve, "signatures": [] })),
        ("signed_curve25519:a", json!(null)),
        ("curve25519:a", json!("short")),
    ];
    for (id, key) in wrong {
        let one_time_keys = BTreeMap::from([(id.to_owned(), key)]);
        let outcome = phone.upload(&store, &KeysUpload { one_time_keys, ..KeysUpload::default() });
        assert!(matches!(outcome, Err(KeyError::Malformed(_) | KeyError::Invalid(_))), "{id}: {outcome:?}");
    }
    let many = |from: usize, count: usize| KeysUpload {
        one_time_keys: (from..from + count).map(|n| (format!("signed_curve25519:{n}"), phone.one_time_key("x"))).collect(),
        ..KeysUpload::default()
    };
    phone.upload(&store, &many(0, ONE_TIME_KEYS_MAX)).unwrap();
    assert!(matches!(phone.upload(&store, &many(ONE_TIME_KEYS_MAX, 1)), Err(KeyError::TooLarge { .. })));
    let algorithms = (0..=ALGORITHMS_MAX).map(|n| (format!("m.algorithm{n}:a"), json!("key"))).collect();
    let algorithms = KeysUpload { one_time_keys: algorithms, ..KeysUpload::default() };
    let other = Device::log_in(&store, bob(), "OTHER");
    assert!(matches!(other.upload(&store, &algorithms), Err(KeyError::TooLarge { .. })));
    let algorithms = KeysUpload { fallback_keys: algorithms.one_time_keys, ..KeysUpload::default() };
    assert!(matches!(other.upload(&store, &algorithms), Err(KeyError::TooLarge { .. })));
}
