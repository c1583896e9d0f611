//! Lists of devices of another server's user: what is told follows what is kept, or the list is stale.

use crate::{
    device_lists::{self, DeviceList, Update},
    foreign_keys::{self, ToldKeys, UserKeys},
    key_changes,
};

use super::{cross_signing::Identity, *};

fn carol() -> &'static UserId {
    user_id!("@carol:elsewhere.org")
}

/// A server that keeps the list of a user of another.
struct Keeper {
    store: Store,
    user: UserNo,
}

impl Keeper {
    fn new() -> Self {
        let store = store();
        let user = numbers::ensure(&store, carol()).unwrap();
        Self { store, user }
    }

    fn seq(&self) -> Seq {
        self.store.snapshot().seq()
    }

    /// Keeps what was told now.
    fn keep(&self, stream_id: Option<u64>, keys: UserKeys) -> bool {
        self.keep_asked(self.seq(), stream_id, keys)
    }

    fn keep_asked(&self, asked: Seq, stream_id: Option<u64>, keys: UserKeys) -> bool {
        let list = DeviceList { stream_id, asked, stale: false, keys };
        let kept = self.store.transact(&[Lock::User(self.user)], |tx| device_lists::keep(tx, self.user, &list));
        kept.unwrap().wait().unwrap()
    }

    /// Takes in an update. Returns whether the list must be asked for, and whether others hear of a change.
    fn told(&self, edu_type: &str, content: Value) -> (bool, bool) {
        let before = self.seq();
        let update = Update::parse(edu_type, &content.to_string());
        let receive = |tx: &mut store::Tx<'_>| device_lists::receive(tx, (self.user, carol()), &update, &[ROOM]);
        let stale = self.store.transact(&[Lock::User(self.user)], receive).unwrap().wait().unwrap();
        let heard = key_changes::last_change(&self.store.snapshot(), self.user).unwrap().is_some_and(|last| last > before);
        assert_eq!(woken(&self.store, before, ROOM), heard);
        (stale, heard)
    }

    fn device(&self, content: Value) -> (bool, bool) {
        self.told("m.device_list_update", content)
    }

    fn list(&self) -> Option<DeviceList> {
        device_lists::list(&self.store.snapshot(), self.user).unwrap()
    }

    fn kept(&self) -> DeviceList {
        self.list().unwrap()
    }

    fn devices(&self) -> Vec<String> {
        self.kept().keys.devices.into_keys().collect()
    }
}

/// A device of carol's, whose own server is of no concern here.
fn device(id: &str) -> Device {
    Device { user: UserNo(0), user_id: carol().to_owned(), device: DeviceNo(0), id: id.into(), key: key(id) }
}

fn keys_of(devices: &[(&str, Object)], signing: Option<&Identity>) -> UserKeys {
    let signing = signing.map(Identity::keys).unwrap_or_default();
    let of_carol = |key: Option<Object>| key.map(|key| (carol().to_string(), Value::Object(key))).into_iter().collect();
    let devices = devices.iter().map(|(id, keys)| ((*id).to_owned(), Value::Object(keys.clone()))).collect();
    let told = ToldKeys {
        device_keys: [(carol().to_string(), devices)].into(),
        master_keys: of_carol(signing.master),
        self_signing_keys: of_carol(signing.self_signing),
    };
    foreign_keys::believed(told, &[(carol().to_owned(), Vec::new())].into()).remove(carol()).unwrap()
}

fn update(stream_id: u64, prev_id: &[u64], id: &str) -> Value {
    json!({ "user_id": carol(), "device_id": id, "stream_id": stream_id, "prev_id": prev_id, "keys": device(id).device_keys(),
        "device_display_name": "a phone" })
}

const CURRENT: (bool, bool) = (false, true);
const NOTHING_NEW: (bool, bool) = (false, false);
const STALE: (bool, bool) = (true, true);

#[test]
fn updates_that_follow_are_applied() {
    let keeper = Keeper::new();
    assert_eq!(keeper.device(update(4, &[3], "A")), CURRENT, "nothing is kept, and clients ask");
    assert_eq!(keeper.list(), None);
    assert!(!keeper.keep(Some(5), keys_of(&[("A", device("A").device_keys())], None)));
    assert_eq!(keeper.device(update(6, &[5], "B")), CURRENT);
    assert_eq!(keeper.devices(), ["A", "B"]);
    assert_eq!(keeper.kept().keys.devices["B"]["unsigned"], json!({ "device_display_name": "a phone" }));
    assert_eq!(keeper.device(update(6, &[5], "B")), NOTHING_NEW, "the same again");
    assert_eq!(keeper.device(update(7, &[6], "B")), NOTHING_NEW, "the same keys");
    assert_eq!(keeper.device(json!({ "device_id": "A", "stream_id": 8, "prev_id": [7], "deleted": true })), CURRENT);
    assert_eq!((keeper.devices(), keeper.kept().stream_id), (vec!["B".to_owned()], Some(8)));
    assert_eq!(keeper.device(json!({ "device_id": "B", "stream_id": 9, "prev_id": [8] })), CURRENT);
    assert_eq!(keeper.devices(), [""; 0], "a device without keys");
}

#[test]
fn updates_that_do_not_follow_make_a_list_stale() {
    let mut wrong = update(6, &[5], "B");
    wrong["keys"]["user_id"] = json!("@dave:elsewhere.org");
    let unfounded = [
        update(6, &[], "B"),
        update(7, &[6], "B"),
        update(7, &[5, 6], "B"),
        update(4, &[3], "B"),
        wrong,
        json!({ "device_id": "B", "stream_id": "six" }),
        json!({}),
    ];
    for content in unfounded {
        let keeper = Keeper::new();
        keeper.keep(Some(5), keys_of(&[("A", device("A").device_keys())], None));
        assert_eq!(keeper.device(content.clone()), STALE, "{content}");
        assert_eq!((keeper.devices(), keeper.kept().stale), (vec!["A".to_owned()], true), "{content}");
        assert_eq!(keeper.device(update(6, &[5], "B")), STALE, "what follows a stale list is not known");
        assert!(keeper.keep(Some(6), keys_of(&[("B", device("B").device_keys())], None)), "others hear of it");
        assert_eq!((keeper.devices(), keeper.kept().stale), (vec!["B".to_owned()], false));
    }
    let keeper = Keeper::new();
    keeper.keep(None, keys_of(&[], None));
    assert_eq!(keeper.device(update(6, &[5], "B")), STALE, "of an answer that did not say how far it goes");
}

#[test]
fn an_answer_that_something_came_after_is_not_kept() {
    let keeper = Keeper::new();
    let asked = keeper.seq();
    assert_eq!(keeper.device(update(6, &[5], "B")), CURRENT);
    assert!(!keeper.keep_asked(asked, Some(5), keys_of(&[("A", device("A").device_keys())], None)));
    assert_eq!(keeper.list(), None);
    let early = keeper.seq();
    keeper.store.transact(&[], |tx| numbers::intern(tx, bob())).unwrap().wait().unwrap();
    keeper.keep(Some(6), keys_of(&[("B", device("B").device_keys())], None));
    assert!(!keeper.keep_asked(early, None, keys_of(&[], None)), "an earlier answer that took longer");
    assert_eq!((keeper.devices(), keeper.kept().stream_id), (vec!["B".to_owned()], Some(6)));
}

#[test]
fn new_signing_keys_are_believed_and_what_they_signed_is_asked_for() {
    let (old, new) = (Identity::new(carol(), "old"), Identity::new(carol(), "new"));
    let by_new = new.cross_sign(&device("A"));
    let keeper = Keeper::new();
    keeper.keep(Some(5), keys_of(&[("A", old.cross_sign(&device("A")))], Some(&old)));
    let keys = new.keys();
    let told = json!({ "user_id": carol(), "master_key": keys.master, "self_signing_key": keys.self_signing });
    assert_eq!(keeper.told("m.signing_key_update", told), STALE);
    let kept = keeper.kept().keys;
    assert_eq!((&kept.master, &kept.self_signing), (&keys.master, &keys.self_signing));
    assert_eq!(kept.devices["A"], device("A").device_keys(), "without the signature of the old key");
    keeper.keep(Some(6), keys_of(&[("A", by_new.clone())], Some(&new)));
    assert_eq!(keeper.kept().keys.devices["A"], by_new);

    let forged = old.keys();
    assert_eq!(keeper.told("m.signing_key_update", json!({ "self_signing_key": forged.self_signing })), STALE);
    assert_eq!(keeper.kept().keys.self_signing, keys.self_signing, "the master key did not sign it");

    let keeper = Keeper::new();
    keeper.keep(Some(5), keys_of(&[], None));
    assert_eq!(keeper.told("m.signing_key_update", json!({ "master_key": old.keys().master })), CURRENT);
    assert_eq!(keeper.kept().keys.master, old.keys().master);
}

#[test]
fn a_list_that_is_too_large_is_not_kept() {
    let keeper = Keeper::new();
    let mut large = device("A").device_keys();
    large.insert("padding".to_owned(), "x".repeat(30 << 10).into());
    let devices: Vec<String> = (0..40).map(|number| format!("D{number}")).collect();
    let of = |id: &String| {
        let mut keys = large.clone();
        keys.insert("device_id".to_owned(), id.clone().into());
        keys.insert("keys".to_owned(), json!({ format!("ed25519:{id}"): key(id).public().to_base64() }));
        keys
    };
    let told: Vec<(&str, Object)> = devices.iter().map(|id| (id.as_str(), of(id))).collect();
    keeper.keep(Some(5), keys_of(&told[..10], None));
    assert_eq!(keeper.devices().len(), 10);
    keeper.keep(Some(5), keys_of(&told, None));
    assert_eq!(keeper.list(), None);
}
