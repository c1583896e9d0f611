//! Device keys: what is served is what was uploaded, and only what is sound is taken.

use crate::key_changes;

use super::*;

#[test]
fn two_devices_see_each_others_keys_with_names() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    phone.upload_device_keys(&store);
    let mut expected = phone.device_keys();
    expected.insert("unsigned".into(), json!({ "device_display_name": "a phone" }));
    let answer = laptop.query(&store, alice());
    assert_eq!(answer.device_keys[alice()], BTreeMap::from([("PHONE".to_owned(), expected.clone())]));
    assert!(answer.master_keys.is_empty() && answer.self_signing_keys.is_empty() && answer.user_signing_keys.is_empty());

    let named = |ids: &[&str]| BTreeMap::from([(alice().to_owned(), ids.iter().map(|id| (*id).into()).collect())]);
    let one = keys::query(&store.snapshot(), Some(bob()), &named(&["PHONE", "LOST"])).unwrap();
    assert_eq!(one.device_keys[alice()], BTreeMap::from([("PHONE".to_owned(), expected)]));

    let nobody = laptop.query(&store, user_id!("@nobody:localhost"));
    assert!(nobody.device_keys.is_empty(), "unknown users are missing");
    let without = phone.query(&store, bob());
    assert_eq!(without.device_keys[bob()], BTreeMap::new(), "known users without keys have an empty entry");
}

#[test]
fn t26_only_sound_keys_of_the_device_itself_are_taken() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    type Break = fn(&mut Object);
    let broken: [(&str, Break); 13] = [
        ("malformed", |keys| drop(keys.remove("user_id"))),
        ("malformed", |keys| drop(keys.remove("device_id"))),
        ("malformed", |keys| drop(keys.remove("algorithms"))),
        ("malformed", |keys| drop(keys.remove("keys"))),
        ("malformed", |keys| drop(keys.remove("signatures"))),
        ("malformed", |keys| drop(keys.insert("algorithms".into(), json!([1])))),
        ("malformed", |keys| drop(keys.insert("keys".into(), json!({ "ed25519:PHONE": { "a": 1 } })))),
        ("malformed", |keys| drop(keys.insert("signatures".into(), json!({ "@alice:localhost": "none" })))),
        ("invalid", |keys| drop(keys.insert("user_id".into(), json!("@bob:localhost")))),
        ("invalid", |keys| drop(keys.insert("device_id".into(), json!("OTHER")))),
        ("invalid", |keys| drop(keys.insert("keys".into(), json!({ "ed25519:PHONE": "short" })))),
        ("invalid", |keys| drop(keys.insert("keys".into(), json!({ "ed25519:OTHER": "short" })))),
        ("too large", |keys| drop(keys.insert("padding".into(), json!("x".repeat(40_000))))),
    ];
    for (expected, breaks) in broken {
        let mut device_keys = phone.device_keys();
        breaks(&mut device_keys);
        let found = match phone.upload(&store, &KeysUpload { device_keys: Some(device_keys), ..KeysUpload::default() }) {
            Err(KeyError::Malformed(_)) => "malformed",
            Err(KeyError::Invalid(_)) => "invalid",
            Err(KeyError::TooLarge { .. }) => "too large",
            outcome => panic!("{outcome:?}"),
        };
        assert_eq!(found, expected);
    }
    assert!(phone.query(&store, alice()).device_keys[alice()].is_empty(), "nothing of all this was stored");
    assert_eq!(key_changes::last_change(&store.snapshot(), phone.user).unwrap(), None);
}

#[test]
fn whether_a_device_signed_its_keys_is_for_others_to_check() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let mut unsigned = phone.unsigned_keys();
    unsigned.insert("signatures".into(), json!({}));
    let mut forged = unsigned.clone();
    sign_as(&mut forged, alice(), "ed25519:PHONE", &key("another"));
    for device_keys in [unsigned, forged] {
        let upload = KeysUpload { device_keys: Some(device_keys.clone()), ..KeysUpload::default() };
        phone.upload(&store, &upload).unwrap();
        let mut served = phone.query(&store, alice()).device_keys[alice()]["PHONE"].clone();
        served.remove("unsigned");
        assert_eq!(served, device_keys, "as it was uploaded, with what the specification demands");
    }
}

#[test]
fn null_device_keys_are_no_device_keys() {
    assert!(serde_json::from_str::<KeysUpload>(r#"{"device_keys":null}"#).is_err());
    assert!(serde_json::from_str::<KeysUpload>("{}").unwrap().device_keys.is_none());
}

#[test]
fn signatures_that_nobody_can_check_are_not_kept() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let mut device_keys = phone.device_keys();
    sign::add_signature(&mut device_keys, "@alice:localhost", "ed25519:unknown", "c2ln".into());
    sign::add_signature(&mut device_keys, "@mallory:localhost", "ed25519:M", "c2ln".into());
    phone.upload(&store, &KeysUpload { device_keys: Some(device_keys), ..KeysUpload::default() }).unwrap();
    let served = &phone.query(&store, alice()).device_keys[alice()]["PHONE"];
    assert_eq!(served["signatures"], phone.device_keys()["signatures"]);
}

#[test]
fn the_same_keys_again_are_no_change_and_others_are() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    phone.upload_device_keys(&store);
    let first = key_changes::last_change(&store.snapshot(), phone.user).unwrap().unwrap();
    assert!(woken(&store, Seq(0), ROOM));
    let since = store.snapshot().seq();
    phone.upload_device_keys(&store);
    assert_eq!(key_changes::last_change(&store.snapshot(), phone.user).unwrap(), Some(first));
    assert!(!woken(&store, since, ROOM), "nobody is woken for what they know");

    phone.upload_one_time_keys(&store, &["AAAA"]).unwrap();
    let reset = Device { key: key("a new identity"), ..phone };
    reset.upload_device_keys(&store);
    let counts = reset.upload(&store, &KeysUpload::default()).unwrap();
    assert_eq!(counts["signed_curve25519"], 0, "the one-time keys of the lost identity are gone");
    assert_eq!(reset.upload_one_time_keys(&store, &["AAAA"]).unwrap()["signed_curve25519"], 1, "and their ids are free");
    let users = key_changes::changed_since(&store.snapshot(), first, 10).unwrap().unwrap();
    assert_eq!(users, [reset.user]);
}

#[test]
fn a_deleted_device_takes_its_keys_with_it_and_others_hear() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    phone.upload_device_keys(&store);
    phone.upload_one_time_keys(&store, &["a", "b"]).unwrap();
    let since = store.snapshot().seq();
    devices::delete(&store, phone.user, std::slice::from_ref(&phone.id), &[ROOM]).unwrap().wait().unwrap();
    assert!(phone.query(&store, alice()).device_keys[alice()].is_empty());
    assert_eq!(key_changes::changed_since(&store.snapshot(), since, 10).unwrap().unwrap(), [phone.user]);
    assert!(woken(&store, since, ROOM) && woken(&store, since, Topic::User(phone.user)));
    let late = phone.upload(&store, &KeysUpload { device_keys: Some(phone.device_keys()), ..KeysUpload::default() });
    assert!(matches!(late, Err(KeyError::NotFound(_))), "a request under way does not bring it back");
    let again = Device::log_in(&store, alice(), "PHONE");
    assert_eq!(again.upload(&store, &KeysUpload::default()).unwrap()["signed_curve25519"], 0);
}

#[test]
fn the_log_names_each_user_once_and_gives_up_beyond_its_limit() {
    let store = store();
    let mut users = Vec::new();
    for n in 0..4 {
        let user: OwnedUserId = format!("@user{n}:localhost").try_into().unwrap();
        let device = Device::log_in(&store, &user, "PHONE");
        device.upload_device_keys(&store);
        users.push(device);
    }
    let since = store.snapshot().seq();
    for device in [&users[2], &users[0], &users[2]] {
        devices::rename(&store, device.user, &device.id, &format!("{since:?}{:?}", store.snapshot().seq()), &[ROOM])
            .unwrap()
            .wait()
            .unwrap();
    }
    let changed = |limit| key_changes::changed_since(&store.snapshot(), since, limit).unwrap();
    assert_eq!(changed(2).unwrap(), [users[0].user, users[2].user], "in the order of the last change");
    assert_eq!(changed(1), None);
    let all = key_changes::changed_since(&store.snapshot(), Seq(0), 10).unwrap().unwrap();
    assert_eq!(all.len(), 4);
}

#[test]
fn users_of_other_servers_are_parted_by_server() {
    let asked = ["@a:localhost", "@b:one.org", "@c:two.org", "@d:one.org"].map(|id| (OwnedUserId::try_from(id).unwrap(), ()));
    let (local, remote) = keys::split_remote(BTreeMap::from(asked), "localhost".try_into().unwrap());
    assert_eq!(local.len(), 1);
    let servers: Vec<_> = remote.iter().map(|(server, users)| (server.as_str(), users.len())).collect();
    assert_eq!(servers, [("one.org", 2), ("two.org", 1)]);
}
