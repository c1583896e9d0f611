//! Upload of signatures on keys: of a user's self-signing key on its devices, of its devices on its master key, and of its
//! user-signing key on the master keys of others.
//!
//! Specification: client-server API, `POST /keys/signatures/upload`. Each signature is verified; what fails is reported
//! without failing the rest.

use std::collections::BTreeMap;

use protocol::{json::Object, keys::ED25519};
use ruma::{OwnedUserId, UserId};
use serde_json::Value;
use store::{Lock, Pending, Store, Topic, Tx, UserNo};

use crate::{
    KeyError,
    cross_signing::{self, Usage},
    key_changes, keys, numbers, signed,
};

/// The most signed objects in one upload. Each may cost a few signature checks.
pub const SIGNED_OBJECTS_MAX: usize = 1_000;

/// Signed objects by user and by device id or cross-signing public key.
pub type Signatures = BTreeMap<OwnedUserId, BTreeMap<String, Value>>;
/// Why objects were refused, under the names that they were uploaded by.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, KeyError>>;

/// Adds signatures to stored keys. `foreign`: the master keys of users of other servers, as those tell them now. `touch`, the rooms of the user, is woken where others can see a change.
///
/// # Errors
/// [`KeyError::TooLarge`], and what the store says. What is wrong with one object is in the answer.
pub fn upload(
    store: &Store,
    user: UserNo,
    user_id: &UserId,
    uploaded: &Signatures,
    foreign: &BTreeMap<OwnedUserId, Object>,
    touch: &[Topic],
) -> Result<Pending<Failures>, KeyError> {
    KeyError::limit("signed objects", uploaded.values().map(BTreeMap::len).sum(), SIGNED_OBJECTS_MAX)?;
    store.transact(&[Lock::User(user)], |tx| {
        let mut failures = Failures::new();
        let mut changed = Vec::new();
        for (of_id, objects) in uploaded {
            for (name, object) in objects {
                let outcome = match object.as_object() {
                    None => Err(KeyError::Malformed("a signed key must be an object")),
                    Some(object) if of_id == user_id => sign_own(tx, user, user_id, name, object),
                    Some(object) => {
                        sign_other(tx, (user, user_id), of_id, foreign.get(of_id), (name.as_str(), object)).map(|()| false)
                    }
                };
                match outcome {
                    Ok(is_changed) => changed.extend(is_changed.then_some(name)),
                    Err(KeyError::Store(error)) => return Err(error.into()),
                    Err(failure) => {
                        failures.entry(of_id.clone()).or_default().insert(name.clone(), failure);
                    }
                }
            }
        }
        if let Some(first) = changed.first() {
            let only_device = changed.len() == 1 && keys::device_keys(tx, user, first)?.is_some();
            key_changes::record(tx, user, only_device.then(|| first.as_str().into()), touch)?;
        }
        Ok(failures)
    })
}

/// Adds signatures to the user's own device keys or master key. Returns whether there were new ones.
fn sign_own(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, name: &str, object: &Object) -> Result<bool, KeyError> {
    signed::check_owner(object, user_id)?;
    signed::check_signatures(object)?;
    if let Some(stored) = keys::device_keys(tx, user, name)? {
        let (key_id, key) = cross_signing::self_signing_key(tx, user)?
            .ok_or(KeyError::Signature("there is no self-signing key to sign a device with"))?;
        let merged = with_verified(stored, object, user_id, |signer| Ok((signer == key_id).then_some(key)))?;
        let Some(merged) = merged else { return Ok(false) };
        keys::put_device_keys(tx, user, name, merged)?;
        return Ok(true);
    }
    let master = cross_signing::stored(tx, user, Usage::Master)?;
    let master = master.filter(|key| is_named(key, name)).ok_or(KeyError::NotFound("there is no such key"))?;
    let merged = with_verified(master, object, user_id, |signer| cross_signing::device_key(tx, user, signer))?;
    let Some(merged) = merged else { return Ok(false) };
    cross_signing::put(tx, user, Usage::Master, merged)?;
    Ok(true)
}

/// Whether this is the public part of a cross-signing key.
fn is_named(key: &Object, name: &str) -> bool {
    cross_signing::public(key).is_some_and(|(key_id, _)| key_id.strip_prefix(ED25519) == Some(name))
}

/// The stored object with the uploaded one's new signatures, if there are any. Each of them must be by a key that
/// `signer_key` knows as one that may sign this, and must hold.
fn with_verified(
    mut stored: Object,
    uploaded: &Object,
    user_id: &UserId,
    signer_key: impl Fn(&str) -> store::Result<Option<protocol::keys::PublicKey>>,
) -> Result<Option<Object>, KeyError> {
    if !signed::same_body(&stored, uploaded) {
        return Err(KeyError::Invalid("the signed object is not the stored key"));
    }
    let mut found = false;
    let mut verified = Vec::new();
    for (signer, signature) in signed::signatures_of(uploaded, user_id) {
        found = true;
        if protocol::sign::signature(&stored, user_id.as_str(), signer) == Some(signature) {
            continue;
        }
        let key = signer_key(signer)?.ok_or(KeyError::Signature("a signature is by a key that may not sign this"))?;
        if !signed::is_signed(uploaded, user_id, signer, &key) {
            return Err(KeyError::Signature("a signature is wrong"));
        }
        verified.push((signer, signature));
    }
    if !found {
        return Err(KeyError::Signature("there is no signature by this user"));
    }
    if verified.is_empty() {
        return Ok(None);
    }
    for (signer, signature) in verified {
        protocol::sign::add_signature(&mut stored, user_id.as_str(), signer, signature.to_owned());
    }
    Ok(Some(stored))
}

/// Stores the signature of the user's user-signing key on another user's master key.
fn sign_other(
    tx: &mut Tx<'_>,
    (user, user_id): (UserNo, &UserId),
    of_id: &UserId,
    foreign: Option<&Object>,
    (name, object): (&str, &Object),
) -> Result<(), KeyError> {
    signed::check_owner(object, of_id)?;
    signed::check_signatures(object)?;
    let of = match foreign {
        Some(_) => numbers::intern(tx, of_id)?,
        None => numbers::number(tx, of_id)?.ok_or(KeyError::NotFound("there is no such user"))?,
    };
    let master = match foreign {
        Some(master) => Some(master.clone()),
        None => cross_signing::stored(tx, of, Usage::Master)?,
    };
    let master = master.filter(|key| is_named(key, name)).ok_or(KeyError::NotFound("there is no such master key"))?;
    if !signed::same_body(&master, object) {
        return Err(KeyError::Invalid("the signed object is not the stored key"));
    }
    let own = cross_signing::stored(tx, user, Usage::UserSigning)?;
    let (key_id, key) =
        own.as_ref().and_then(cross_signing::public).ok_or(KeyError::Signature("there is no user-signing key"))?;
    if !signed::is_signed(object, user_id, &key_id, &key) {
        return Err(KeyError::Signature("there is no valid signature by the user-signing key"));
    }
    let signature = protocol::sign::signature(object, user_id.as_str(), &key_id).unwrap_or_default().to_owned();
    let (master_id, _) = cross_signing::public(&master).ok_or(KeyError::NotFound("there is no such master key"))?;
    Ok(cross_signing::put_signed_user(tx, user, of, master_id, key_id, signature)?)
}
