//! Cross-signing: the chain of keys holds, forgeries are refused, and nobody sees whom others trust.

use crate::{
    cross_signing::{self, CrossSigningKeys},
    key_changes,
    signatures::{self, Failures},
};

use super::*;

/// The private halves of a user's cross-signing keys.
pub(super) struct Identity {
    user_id: OwnedUserId,
    master: SigningKey,
    self_signing: SigningKey,
    user_signing: SigningKey,
}

fn id(key: &SigningKey) -> String {
    format!("ed25519:{}", key.public().to_base64())
}

impl Identity {
    pub(super) fn new(user_id: &UserId, name: &str) -> Self {
        let key = |usage: &str| key(&format!("{user_id} {name} {usage}"));
        let (master, self_signing, user_signing) = (key("master"), key("self"), key("user"));
        Self { user_id: user_id.to_owned(), master, self_signing, user_signing }
    }

    fn public(&self, usage: &str, key: &SigningKey) -> Object {
        let public = key.public().to_base64();
        object(json!({ "user_id": self.user_id, "usage": [usage], "keys": { id(key): public } }))
    }

    fn master(&self) -> Object {
        self.public("master", &self.master)
    }

    fn signed(&self, usage: &str, key: &SigningKey) -> Object {
        let mut object = self.public(usage, key);
        sign_as(&mut object, &self.user_id, &id(&self.master), &self.master);
        object
    }

    pub(super) fn keys(&self) -> CrossSigningKeys {
        CrossSigningKeys {
            master: Some(self.master()),
            self_signing: Some(self.signed("self_signing", &self.self_signing)),
            user_signing: Some(self.signed("user_signing", &self.user_signing)),
        }
    }

    fn upload(&self, store: &Store, authenticated: bool) -> Result<(), KeyError> {
        upload(store, &self.user_id, &self.keys(), authenticated)
    }

    /// A device's keys with the signature of the self-signing key.
    pub(super) fn cross_sign(&self, device: &Device) -> Object {
        let mut keys = device.device_keys();
        sign_as(&mut keys, &self.user_id, &id(&self.self_signing), &self.self_signing);
        keys
    }
}

fn upload(store: &Store, user_id: &UserId, keys: &CrossSigningKeys, authenticated: bool) -> Result<(), KeyError> {
    let user = numbers::ensure(store, user_id).unwrap();
    Ok(cross_signing::upload(store, user, user_id, keys, authenticated, &[ROOM])?.wait()?)
}

fn sign(store: &Store, by: &Device, of: &UserId, name: &str, object: Object) -> Failures {
    let uploaded = BTreeMap::from([(of.to_owned(), BTreeMap::from([(name.to_owned(), Value::Object(object))]))]);
    signatures::upload(store, by.user, &by.user_id, &uploaded, &BTreeMap::new(), &[ROOM]).unwrap().wait().unwrap()
}

fn has(object: &Object, user: &UserId, key_id: &str) -> bool {
    protocol::sign::signature(object, user.as_str(), key_id).is_some()
}

#[test]
fn the_first_keys_and_the_same_again_need_no_password_and_new_ones_do() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let identity = Identity::new(alice(), "first");
    let needs = |keys: &CrossSigningKeys| cross_signing::needs_auth(&store.snapshot(), phone.user, keys).unwrap();
    let only_master = CrossSigningKeys { master: Some(identity.master()), ..CrossSigningKeys::default() };
    assert!(!needs(&only_master));
    upload(&store, alice(), &only_master, false).unwrap();
    assert!(!needs(&only_master));
    upload(&store, alice(), &only_master, false).unwrap();

    let only_self_signing = CrossSigningKeys { self_signing: identity.keys().self_signing, ..CrossSigningKeys::default() };
    for new in [&only_self_signing, &identity.keys(), &Identity::new(alice(), "second").keys()] {
        assert!(needs(new));
        assert!(matches!(upload(&store, alice(), new, false), Err(KeyError::NeedsAuthentication)));
    }
    upload(&store, alice(), &only_self_signing, true).unwrap();
    assert!(!needs(&only_self_signing), "it is stored now");
    identity.upload(&store, true).unwrap();
    assert!(!needs(&identity.keys()));
    let since = store.snapshot().seq();
    identity.upload(&store, false).unwrap();
    assert!(!woken(&store, since, ROOM), "the same keys are no change");
}

#[test]
fn an_upload_tells_those_who_share_rooms() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let since = store.snapshot().seq();
    Identity::new(alice(), "first").upload(&store, false).unwrap();
    assert_eq!(key_changes::changed_since(&store.snapshot(), since, 9).unwrap().unwrap(), [phone.user]);
    assert!(woken(&store, since, ROOM) && woken(&store, since, Topic::User(phone.user)));
}

#[test]
fn a_broken_chain_is_refused_whole() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    let identity = Identity::new(alice(), "first");
    let mallory = Identity::new(alice(), "mallory");
    let refused = |keys: CrossSigningKeys| {
        let error = upload(&store, alice(), &keys, true).unwrap_err();
        assert_eq!(phone.query(&store, alice()).master_keys.len(), 0, "nothing was stored");
        error
    };
    let alone = CrossSigningKeys { self_signing: identity.keys().self_signing, ..CrossSigningKeys::default() };
    assert!(matches!(refused(alone), KeyError::NoMasterKey));
    let foreign = CrossSigningKeys { self_signing: mallory.keys().self_signing, ..identity.keys() };
    assert!(matches!(refused(foreign), KeyError::Signature(_)));
    let unsigned = identity.public("user_signing", &identity.user_signing);
    assert!(matches!(refused(CrossSigningKeys { user_signing: Some(unsigned), ..identity.keys() }), KeyError::Signature(_)));
    // Signed by another key under the master key's name.
    let mut forged = identity.public("user_signing", &identity.user_signing);
    sign_as(&mut forged, alice(), &id(&identity.master), &mallory.master);
    assert!(matches!(refused(CrossSigningKeys { user_signing: Some(forged), ..identity.keys() }), KeyError::Signature(_)));

    let master = |master: Value| CrossSigningKeys { master: Some(object(master)), ..CrossSigningKeys::default() };
    let public = key("x").public().to_base64();
    let key_id = format!("ed25519:{public}");
    let wrong = [
        json!({ "user_id": "@bob:localhost", "usage": ["master"], "keys": { &key_id: public } }),
        json!({ "user_id": "@alice:localhost", "usage": ["self_signing"], "keys": { &key_id: public } }),
        json!({ "user_id": "@alice:localhost", "usage": ["master", "self_signing"], "keys": { &key_id: public } }),
        json!({ "user_id": "@alice:localhost", "usage": ["master"], "keys": { &key_id: public, "ed25519:b": "b" } }),
        json!({ "user_id": "@alice:localhost", "usage": ["master"], "keys": {} }),
        json!({ "user_id": "@alice:localhost", "usage": ["master"], "keys": { "ed25519:other": public } }),
        json!({ "user_id": "@alice:localhost", "usage": ["master"], "keys": { "ed25519:short": "short" } }),
    ];
    for wrong in wrong {
        assert!(matches!(refused(master(wrong)), KeyError::Invalid(_)));
    }
    let malformed = json!({ "user_id": "@alice:localhost", "usage": "master", "keys": { &key_id: public } });
    assert!(matches!(refused(master(malformed)), KeyError::Malformed(_)));
    let device = Device::log_in(&store, alice(), &public);
    let collides = json!({ "user_id": "@alice:localhost", "usage": ["master"], "keys": { &key_id: public } });
    assert!(matches!(refused(master(collides)), KeyError::KeyIdInUse), "{} is a device", device.id);
}

#[test]
fn a_new_master_key_leaves_nothing_of_the_old_chain() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    phone.upload_device_keys(&store);
    let (first, second) = (Identity::new(alice(), "first"), Identity::new(alice(), "second"));
    let other = Identity::new(bob(), "other");
    first.upload(&store, false).unwrap();
    other.upload(&store, false).unwrap();
    assert!(sign(&store, &phone, alice(), "PHONE", first.cross_sign(&phone)).is_empty());
    let mut of_bob = other.master();
    sign_as(&mut of_bob, alice(), &id(&first.user_signing), &first.user_signing);
    assert!(sign(&store, &phone, bob(), &other.master.public().to_base64(), of_bob).is_empty());

    let only_master = CrossSigningKeys { master: Some(second.master()), ..CrossSigningKeys::default() };
    upload(&store, alice(), &only_master, true).unwrap();
    let seen = phone.query(&store, alice());
    assert_eq!(seen.master_keys[alice()], second.master());
    assert!(seen.self_signing_keys.is_empty() && seen.user_signing_keys.is_empty());
    assert!(!has(&seen.device_keys[alice()]["PHONE"], alice(), &id(&first.self_signing)));
    assert!(has(&seen.device_keys[alice()]["PHONE"], alice(), "ed25519:PHONE"), "its own signature stays");
    assert_eq!(phone.query(&store, bob()).master_keys[bob()], other.master());
    assert!(key_changes::signed_since(&store.snapshot(), phone.user, Seq(0), 9).unwrap().is_empty());
    assert_eq!(laptop.query(&store, alice()).master_keys[alice()], second.master());
}

#[test]
fn each_sees_only_the_signatures_that_are_its_business() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    phone.upload_device_keys(&store);
    let (hers, his) = (Identity::new(alice(), "first"), Identity::new(bob(), "first"));
    hers.upload(&store, false).unwrap();
    his.upload(&store, false).unwrap();
    let name = hers.master.public().to_base64();
    let since = store.snapshot().seq();

    let mut trusted = hers.master();
    sign_as(&mut trusted, bob(), &id(&his.user_signing), &his.user_signing);
    assert!(sign(&store, &laptop, alice(), &name, trusted.clone()).is_empty());
    assert_eq!(laptop.query(&store, alice()).master_keys[alice()], trusted);
    assert_eq!(phone.query(&store, alice()).master_keys[alice()], hers.master(), "she does not see that he trusts her");
    let to_servers = keys::query(&store.snapshot(), None, &BTreeMap::from([(alice().to_owned(), Vec::new())])).unwrap();
    assert_eq!(to_servers.master_keys[alice()], hers.master(), "nor do other servers");
    assert!(to_servers.user_signing_keys.is_empty());
    assert_eq!(key_changes::signed_since(&store.snapshot(), laptop.user, since, 9).unwrap(), [phone.user]);
    assert!(woken(&store, since, Topic::User(laptop.user)) && !woken(&store, since, Topic::User(phone.user)));
    assert_eq!(key_changes::changed_since(&store.snapshot(), since, 9).unwrap().unwrap(), []);

    let seen = laptop.query(&store, alice());
    assert!(seen.user_signing_keys.is_empty(), "her user-signing key is hers alone");
    assert_eq!(seen.self_signing_keys[alice()], hers.keys().self_signing.unwrap());
    assert_eq!(phone.query(&store, alice()).user_signing_keys[alice()], hers.keys().user_signing.unwrap());

    let since = store.snapshot().seq();
    assert!(sign(&store, &phone, alice(), "PHONE", hers.cross_sign(&phone)).is_empty());
    let mut vouched = hers.master();
    sign_as(&mut vouched, alice(), "ed25519:PHONE", &phone.key);
    assert!(sign(&store, &phone, alice(), &name, vouched).is_empty());
    let seen = laptop.query(&store, alice());
    assert!(has(&seen.device_keys[alice()]["PHONE"], alice(), &id(&hers.self_signing)));
    assert!(
        has(&seen.master_keys[alice()], alice(), "ed25519:PHONE")
            && has(&seen.master_keys[alice()], bob(), &id(&his.user_signing))
    );
    assert_eq!(key_changes::changed_since(&store.snapshot(), since, 9).unwrap().unwrap(), [phone.user]);

    phone.upload_device_keys(&store);
    let seen = laptop.query(&store, alice());
    assert!(has(&seen.device_keys[alice()]["PHONE"], alice(), &id(&hers.self_signing)), "an upload again loses nothing");
    devices::delete(&store, phone.user, std::slice::from_ref(&phone.id), &[ROOM]).unwrap().wait().unwrap();
    let master = &laptop.query(&store, alice()).master_keys[alice()];
    assert!(!has(master, alice(), "ed25519:PHONE"), "a device takes its signature with it");
}

#[test]
fn t26_forged_signatures_fail_alone() {
    let store = store();
    let (phone, laptop) = (Device::log_in(&store, alice(), "PHONE"), Device::log_in(&store, bob(), "LAPTOP"));
    phone.upload_device_keys(&store);
    let (hers, his) = (Identity::new(alice(), "first"), Identity::new(bob(), "first"));
    hers.upload(&store, false).unwrap();
    his.upload(&store, false).unwrap();
    let (her_master, his_master) = (hers.master.public().to_base64(), his.master.public().to_base64());
    let mallory = key("mallory");

    // By a wrong key under a right name, by a key that may not sign this, of something else, of nothing.
    let mut wrong_key = phone.device_keys();
    sign_as(&mut wrong_key, alice(), &id(&hers.self_signing), &mallory);
    let mut wrong_role = phone.device_keys();
    sign_as(&mut wrong_role, alice(), &id(&hers.user_signing), &hers.user_signing);
    let mut something_else = phone.device_keys();
    something_else.insert("algorithms".into(), json!([]));
    sign_as(&mut something_else, alice(), &id(&hers.self_signing), &hers.self_signing);
    let mut by_other = hers.master();
    sign_as(&mut by_other, alice(), &id(&mallory), &mallory);
    for (name, forged) in [("PHONE", wrong_key), ("PHONE", wrong_role), (&her_master, by_other)] {
        let failures = sign(&store, &phone, alice(), name, forged);
        assert!(matches!(failures[alice()][name], KeyError::Signature(_)), "{failures:?}");
    }
    let failures = sign(&store, &phone, alice(), "PHONE", something_else);
    assert!(matches!(failures[alice()]["PHONE"], KeyError::Invalid(_)));
    let failures = sign(&store, &phone, alice(), "LOST", hers.cross_sign(&phone));
    assert!(matches!(failures[alice()]["LOST"], KeyError::NotFound(_)));
    let mut by_master = his.master();
    sign_as(&mut by_master, alice(), &id(&hers.master), &hers.master);
    let failures = sign(&store, &phone, bob(), &his_master, by_master);
    assert!(matches!(failures[bob()][&his_master], KeyError::Signature(_)), "only the user-signing key signs others");
    assert_eq!(laptop.query(&store, alice()).device_keys[alice()]["PHONE"]["signatures"], phone.device_keys()["signatures"]);

    // A good one beside a bad one and beside what is not an object.
    let mixed = BTreeMap::from([(
        alice().to_owned(),
        BTreeMap::from([
            ("PHONE".to_owned(), Value::Object(hers.cross_sign(&phone))),
            ("LOST".to_owned(), json!({})),
            (her_master.clone(), json!("no object")),
        ]),
    )]);
    let failures = signatures::upload(&store, phone.user, alice(), &mixed, &BTreeMap::new(), &[ROOM]).unwrap().wait().unwrap();
    let failed = failures[alice()].iter().map(|(name, error)| (name.as_str(), matches!(error, KeyError::Malformed(_))));
    assert_eq!(failed.collect::<BTreeMap<_, _>>(), BTreeMap::from([("LOST", true), (her_master.as_str(), true)]));
    assert!(has(&laptop.query(&store, alice()).device_keys[alice()]["PHONE"], alice(), &id(&hers.self_signing)));
}

#[test]
fn a_master_key_keeps_the_signature_of_a_known_device_only() {
    let store = store();
    let phone = Device::log_in(&store, alice(), "PHONE");
    phone.upload_device_keys(&store);
    let identity = Identity::new(alice(), "first");
    let mut forged = identity.master();
    sign_as(&mut forged, alice(), "ed25519:PHONE", &key("mallory"));
    let keys = CrossSigningKeys { master: Some(forged), ..CrossSigningKeys::default() };
    assert!(matches!(upload(&store, alice(), &keys, false), Err(KeyError::Signature(_))));
    let mut master = identity.master();
    sign_as(&mut master, alice(), "ed25519:PHONE", &phone.key);
    let good = master.clone();
    sign_as(&mut master, alice(), "ed25519:LOST", &key("mallory"));
    let keys = CrossSigningKeys { master: Some(master), ..CrossSigningKeys::default() };
    upload(&store, alice(), &keys, false).unwrap();
    assert_eq!(phone.query(&store, alice()).master_keys[alice()], good);
    let is_key = |text: &str| cross_signing::is_public_key(&store.snapshot(), phone.user, text).unwrap();
    assert!(is_key(&identity.master.public().to_base64()) && !is_key("PHONE"));
    let taken: OwnedDeviceId = identity.master.public().to_base64().into();
    let open = |tx: &mut store::Tx<'_>| devices::open(tx, phone.user, &taken, NewDevice::default(), 0);
    let refused = store.transact(&[Lock::User(phone.user)], open).map(drop);
    assert!(matches!(refused, Err(crate::Error::InvalidParam(_))), "no device gets the id of such a key");
}
