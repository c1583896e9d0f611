//! Cross-signing keys: the master, self-signing and user-signing key of a user, and the signatures they make.
//!
//! Specification: client-server API, "Cross-signing". The server holds the chain together: a stored self-signing or
//! user-signing key is always signed by the stored master key, and every stored signature was verified. What a user-signing
//! key signed is kept with the signer and shown to nobody else, so that the server does not leak who knows whom.

use protocol::{
    json::Object,
    keys::{ED25519, PublicKey},
    sign,
};
use ruma::UserId;
use serde::{Deserialize, Serialize};
use store::{Json, Lead, Lock, Owner, Pending, Range, Read, Seq, Store, Table, Topic, Tx, UserNo};

use crate::{KeyError, devices, key_changes, keys, signed};

static KEYS: Table<(UserNo, u8), Json<Object>> = Table::new(
    "cross_signing_keys",
    "The cross-signing keys of a user: 1 master (with signatures of the user's devices), 2 self-signing, 3 user-signing \
     (both signed by the master).",
)
.owned_by(Owner::User);
static SIGNED_USERS: Table<(UserNo, UserNo), SignedUser> = Table::new(
    "signed_users",
    "The signature that the first user's user-signing key made of the second user's master key. Only the first may see it.",
)
.owned_by(Owner::User);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 2] = [KEYS.spec(), SIGNED_USERS.spec()];

/// A signature by a user-signing key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SignedUser {
    /// The id of the master key that is signed; void where the user has another by now.
    pub(crate) master_key_id: String,
    /// The id of the user-signing key.
    pub(crate) key_id: String,
    pub(crate) signature: String,
    /// Where `key_changes` lists it.
    pub(crate) at: Seq,
}

/// What a cross-signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Master,
    SelfSigning,
    UserSigning,
}

impl Usage {
    fn number(self) -> u8 {
        match self {
            Self::Master => 1,
            Self::SelfSigning => 2,
            Self::UserSigning => 3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// The cross-signing keys of a user, as stored or as uploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CrossSigningKeys {
    /// The master key.
    #[serde(default, rename = "master_key")]
    pub master: Option<Object>,
    /// The self-signing key.
    #[serde(default, rename = "self_signing_key")]
    pub self_signing: Option<Object>,
    /// The user-signing key.
    #[serde(default, rename = "user_signing_key")]
    pub user_signing: Option<Object>,
}

impl CrossSigningKeys {
    fn each(&self) -> impl Iterator<Item = (Usage, &Object)> {
        let keys =
            [(Usage::Master, &self.master), (Usage::SelfSigning, &self.self_signing), (Usage::UserSigning, &self.user_signing)];
        keys.into_iter().filter_map(|(usage, key)| Some((usage, key.as_ref()?)))
    }
}

pub(crate) fn stored(db: &impl Read, user: UserNo, usage: Usage) -> store::Result<Option<Object>> {
    Ok(db.get(&KEYS, &(user, usage.number()))?.map(|row| row.0))
}

pub(crate) fn put(tx: &mut Tx<'_>, user: UserNo, usage: Usage, key: Object) -> store::Result<()> {
    tx.put(&KEYS, &(user, usage.number()), &Json(key))
}

/// The one public key of a cross-signing key, with its id.
pub(crate) fn public(key: &Object) -> Option<(String, PublicKey)> {
    let (key_id, _) = key.get("keys")?.as_object()?.iter().next()?;
    Some((key_id.clone(), signed::public_key(key, key_id)?))
}

fn stored_public(db: &impl Read, user: UserNo, usage: Usage) -> store::Result<Option<(String, PublicKey)>> {
    Ok(stored(db, user, usage)?.as_ref().and_then(public))
}

/// The id and public key of a user's self-signing key.
pub(crate) fn self_signing_key(db: &impl Read, user: UserNo) -> store::Result<Option<(String, PublicKey)>> {
    stored_public(db, user, Usage::SelfSigning)
}

/// Whether this text is the public part of one of the user's cross-signing keys. No device may have it as its id, because
/// both name signing keys in the same way.
///
/// # Errors
/// As the store.
pub fn is_public_key(db: &impl Read, user: UserNo, text: &str) -> store::Result<bool> {
    let key_id = format!("{ED25519}{text}");
    for usage in [Usage::Master, Usage::SelfSigning, Usage::UserSigning] {
        if stored_public(db, user, usage)?.is_some_and(|(stored, _)| stored == key_id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys of `user` as `requester` (nobody for another server) may see them: the user-signing key only if it is its own,
/// and the master key with its own signature only.
///
/// # Errors
/// As the store.
pub fn visible_keys(db: &impl Read, requester: Option<(UserNo, &UserId)>, user: UserNo) -> store::Result<CrossSigningKeys> {
    let mut keys = CrossSigningKeys {
        master: stored(db, user, Usage::Master)?,
        self_signing: stored(db, user, Usage::SelfSigning)?,
        user_signing: None,
    };
    match requester {
        Some((requester, _)) if requester == user => keys.user_signing = stored(db, user, Usage::UserSigning)?,
        Some(requester) => {
            if let Some(master) = &mut keys.master {
                show_signature(db, requester, user, master)?;
            }
        }
        None => {}
    }
    Ok(keys)
}

/// Adds to another user's master key the signature that the requester made of it, which only they may see.
///
/// # Errors
/// As the store.
pub fn show_signature(
    db: &impl Read,
    (requester, requester_id): (UserNo, &UserId),
    user: UserNo,
    master: &mut Object,
) -> store::Result<()> {
    if let Some(signature) = db.get(&SIGNED_USERS, &(requester, user))?
        && public(master).is_some_and(|(key_id, _)| key_id == signature.master_key_id)
    {
        sign::add_signature(master, requester_id.as_str(), &signature.key_id, signature.signature);
    }
    Ok(())
}

/// Whether an upload needs user-interactive authentication: there is a master key, and the request has a key that is not
/// stored yet.
///
/// # Errors
/// As the store.
pub fn needs_auth(db: &impl Read, user: UserNo, uploaded: &CrossSigningKeys) -> store::Result<bool> {
    if stored(db, user, Usage::Master)?.is_none() {
        return Ok(false);
    }
    for (usage, key) in uploaded.each() {
        if stored(db, user, usage)?.is_none_or(|stored| !signed::same_body(&stored, key)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stores cross-signing keys: `/keys/device_signing/upload`. `authenticated` says that the user has just proved who it is
/// (or that an appservice acts); else only what [`needs_auth`] allows is stored. `touch`, the rooms of the user, is woken.
///
/// # Errors
/// [`KeyError`]: nothing is stored then.
pub fn upload(
    store: &Store,
    user: UserNo,
    user_id: &UserId,
    uploaded: &CrossSigningKeys,
    authenticated: bool,
    touch: &[Topic],
) -> Result<Pending<()>, KeyError> {
    for (usage, key) in uploaded.each() {
        check(user_id, usage, key)?;
    }
    store.transact(&[Lock::User(user)], |tx| {
        if !authenticated && needs_auth(tx, user, uploaded)? {
            return Err(KeyError::NeedsAuthentication);
        }
        let mut changed = false;
        for (usage, key) in uploaded.each() {
            changed |= store_key(tx, user, user_id, usage, key)?;
        }
        if changed {
            key_changes::record(tx, user, None, touch)?;
        }
        Ok(())
    })
}

/// Checks the shape of a cross-signing key and whose it is.
pub(crate) fn check(user_id: &UserId, usage: Usage, key: &Object) -> Result<(), KeyError> {
    signed::check_owner(key, user_id)?;
    let usages = signed::strings(key, "usage", "usage must be an array of strings")?;
    if usages != [usage.name()] {
        return Err(KeyError::Invalid("usage is not that of this key"));
    }
    if key.contains_key("signatures") {
        signed::check_signatures(key)?;
    }
    let public = signed::string_map(key.get("keys"), "keys must map a key id to a string")?;
    let &[(key_id, public)] = public.as_slice() else {
        return Err(KeyError::Invalid("keys must have exactly one property"));
    };
    if key_id.strip_prefix(ED25519) != Some(public) || PublicKey::from_base64(public).is_err() {
        return Err(KeyError::Invalid("a cross-signing key is written ed25519:<public key>: <public key>"));
    }
    Ok(())
}

/// Stores a checked key, masters first. Returns whether anything changed.
fn store_key(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, usage: Usage, key: &Object) -> Result<bool, KeyError> {
    let (key_id, _) = public(key).ok_or(KeyError::Invalid("not a cross-signing key"))?;
    let device = key_id.strip_prefix(ED25519).unwrap_or_default();
    if devices::number(tx, user, device.into())?.is_some() {
        return Err(KeyError::KeyIdInUse);
    }
    let mut kept = key.clone();
    if usage == Usage::Master {
        retain_device_signatures(tx, user, user_id, &mut kept)?;
    } else {
        let (master_id, master) = stored_public(tx, user, Usage::Master)?.ok_or(KeyError::NoMasterKey)?;
        if !signed::is_signed(key, user_id, &master_id, &master) {
            return Err(KeyError::Signature("the key is not signed by the master key"));
        }
        signed::retain_signatures(&mut kept, user_id, |signer| signer == master_id);
    }
    let previous = stored(tx, user, usage)?;
    if let Some(mut previous) = previous {
        if signed::same_body(&previous, &kept) {
            let merged = signed::merge_signatures(&mut previous, &kept, user_id);
            if merged {
                put(tx, user, usage, previous)?;
            }
            return Ok(merged);
        }
        remove_dependents(tx, user, user_id, usage, &previous)?;
    }
    put(tx, user, usage, kept)?;
    Ok(true)
}

/// Leaves only the signatures of the user's devices on a master key.
fn retain_device_signatures(db: &impl Read, user: UserNo, user_id: &UserId, key: &mut Object) -> Result<(), KeyError> {
    let mut verified = Vec::new();
    for (signer, _) in signed::signatures_of(key, user_id) {
        let Some(public) = device_key(db, user, signer)? else { continue };
        if !signed::is_signed(key, user_id, signer, &public) {
            return Err(KeyError::Signature("the signature of a device on the master key is wrong"));
        }
        verified.push(signer.to_owned());
    }
    signed::retain_signatures(key, user_id, |signer| verified.iter().any(|known| known == signer));
    Ok(())
}

/// The public key of the device in a key id such as `ed25519:DEVICE`.
pub(crate) fn device_key(db: &impl Read, user: UserNo, key_id: &str) -> store::Result<Option<PublicKey>> {
    let Some(device) = key_id.strip_prefix(ED25519) else { return Ok(None) };
    Ok(keys::device_keys(db, user, device)?.and_then(|keys| signed::public_key(&keys, key_id)))
}

/// Removes what only the replaced key vouched for: keys and signatures that nobody could verify any more.
fn remove_dependents(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, usage: Usage, replaced: &Object) -> store::Result<()> {
    match usage {
        Usage::Master => {
            for dependent in [Usage::SelfSigning, Usage::UserSigning] {
                if let Some(key) = stored(tx, user, dependent)? {
                    tx.delete(&KEYS, &(user, dependent.number()))?;
                    remove_dependents(tx, user, user_id, dependent, &key)?;
                }
            }
        }
        Usage::SelfSigning => {
            let Some((old, _)) = public(replaced) else { return Ok(()) };
            for (device, mut keys) in keys::all_device_keys(tx, user)? {
                if sign::signature(&keys, user_id.as_str(), &old).is_some() {
                    signed::retain_device_signatures(&mut keys, user_id, |signer| signer != old);
                    keys::put_device_keys(tx, user, &device, keys)?;
                }
            }
        }
        Usage::UserSigning => {
            let rows = tx.range(&SIGNED_USERS, &Range::of(&Lead((user,))))?;
            let rows = rows.map(|row| row.map(|((_, of), signature)| (of, signature.at)));
            for (of, at) in rows.collect::<store::Result<Vec<_>>>()? {
                tx.delete(&SIGNED_USERS, &(user, of))?;
                key_changes::forget_signed(tx, user, of, at)?;
            }
        }
    }
    Ok(())
}

/// Removes the signature of a device that is going on its user's master key.
pub(crate) fn forget_device(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, device: &str) -> store::Result<()> {
    let key_id = format!("{ED25519}{device}");
    if let Some(mut master) = stored(tx, user, Usage::Master)?
        && sign::signature(&master, user_id.as_str(), &key_id).is_some()
    {
        signed::retain_signatures(&mut master, user_id, |signer| signer != key_id);
        put(tx, user, Usage::Master, master)?;
    }
    Ok(())
}

/// Forgets the cross-signing keys of a user whose account goes, and whom it trusted. Returns whether there were any, so
/// that others must be told.
pub(crate) fn forget(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId) -> store::Result<bool> {
    let Some(master) = stored(tx, user, Usage::Master)? else { return Ok(false) };
    remove_dependents(tx, user, user_id, Usage::Master, &master)?;
    tx.delete(&KEYS, &(user, Usage::Master.number()))?;
    Ok(true)
}

/// Stores a verified signature of `of`'s master key by `user`'s user-signing key.
pub(crate) fn put_signed_user(
    tx: &mut Tx<'_>,
    user: UserNo,
    of: UserNo,
    master_key_id: String,
    key_id: String,
    signature: String,
) -> store::Result<()> {
    let previous = tx.get(&SIGNED_USERS, &(user, of))?;
    let same = |stored: &SignedUser| stored.master_key_id == master_key_id && stored.signature == signature;
    if previous.as_ref().is_some_and(same) {
        return Ok(());
    }
    let at = key_changes::record_signed(tx, user, of, previous.map(|previous| previous.at))?;
    tx.put(&SIGNED_USERS, &(user, of), &SignedUser { master_key_id, key_id, signature, at })
}
