//! Objects that users sign: device keys and cross-signing keys.
//!
//! They are served to other users and servers as they are stored, so their shape is checked before, and of their
//! signatures only those are kept that somebody can verify.

use protocol::{json::Object, keys::PublicKey, sign};
use ruma::UserId;
use serde_json::Value;

use crate::KeyError;

/// The most bytes of one signed object. Post-quantum keys and signatures of several kilobytes fit.
pub(crate) const SIGNED_OBJECT_BYTES_MAX: usize = 32 << 10;
/// The most signatures on one object: those of a user's devices on the master key are the most there can be.
pub(crate) const SIGNATURES_MAX: usize = 512;

/// Whether two objects are the same but for `signatures` and `unsigned`, which no signature covers.
pub(crate) fn same_body(a: &Object, b: &Object) -> bool {
    let body = |object: &'_ Object| object.iter().filter(|(key, _)| !is_outside(key)).count();
    body(a) == body(b) && a.iter().filter(|(key, _)| !is_outside(key)).all(|(key, value)| b.get(key) == Some(value))
}

fn is_outside(key: &str) -> bool {
    key == "signatures" || key == "unsigned"
}

/// Refuses objects that are too large, or that belong to somebody else.
pub(crate) fn check_owner(object: &Object, user: &UserId) -> Result<(), KeyError> {
    let length = serde_json::to_string(object).map_or(usize::MAX, |text| text.len());
    KeyError::limit("bytes of a key object", length, SIGNED_OBJECT_BYTES_MAX)?;
    match object.get("user_id") {
        Some(Value::String(owner)) if owner == user.as_str() => Ok(()),
        Some(Value::String(_)) => Err(KeyError::Invalid("user_id is not the user of these keys")),
        _ => Err(KeyError::Malformed("user_id must be a string")),
    }
}

/// The strings of an array.
pub(crate) fn strings<'a>(object: &'a Object, key: &str, wrong: &'static str) -> Result<Vec<&'a str>, KeyError> {
    let Some(Value::Array(items)) = object.get(key) else { return Err(KeyError::Malformed(wrong)) };
    items.iter().map(|item| item.as_str().ok_or(KeyError::Malformed(wrong))).collect()
}

/// The entries of an object whose values are strings.
pub(crate) fn string_map<'a>(value: Option<&'a Value>, wrong: &'static str) -> Result<Vec<(&'a str, &'a str)>, KeyError> {
    let Some(Value::Object(entries)) = value else { return Err(KeyError::Malformed(wrong)) };
    let pair = |(key, value): (&'a String, &'a Value)| value.as_str().map(|text| (key.as_str(), text));
    entries.iter().map(|entry| pair(entry).ok_or(KeyError::Malformed(wrong))).collect()
}

/// Refuses `signatures` that are not a map of maps of strings.
pub(crate) fn check_signatures(object: &Object) -> Result<(), KeyError> {
    const WRONG: &str = "signatures must map users to maps of key ids to signatures";
    let Some(Value::Object(signers)) = object.get("signatures") else { return Err(KeyError::Malformed(WRONG)) };
    let mut count = 0;
    for signer in signers.values() {
        count += string_map(Some(signer), WRONG)?.len();
    }
    KeyError::limit("signatures of a key object", count, SIGNATURES_MAX)
}

/// The signatures of a user on an object, as key ids and signatures.
pub(crate) fn signatures_of<'a>(object: &'a Object, user: &UserId) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    let own = object.get("signatures").and_then(|signers| signers.get(user.as_str())).and_then(Value::as_object);
    own.into_iter().flatten().filter_map(|(key_id, signature)| Some((key_id.as_str(), signature.as_str()?)))
}

/// Leaves only those signatures of `user` whose key ids `keep` accepts, and no `unsigned`.
pub(crate) fn retain_signatures(object: &mut Object, user: &UserId, keep: impl Fn(&str) -> bool) {
    let kept = signatures_of(object, user).filter(|(key_id, _)| keep(key_id));
    let kept: Object = kept.map(|(key_id, signature)| (key_id.to_owned(), Value::from(signature))).collect();
    object.remove("unsigned");
    object.remove("signatures");
    if !kept.is_empty() {
        object.insert("signatures".into(), serde_json::json!({ user.as_str(): kept }));
    }
}

/// [`retain_signatures`] of device keys, which have `signatures` even where there are none.
pub(crate) fn retain_device_signatures(keys: &mut Object, user: &UserId, keep: impl Fn(&str) -> bool) {
    retain_signatures(keys, user, keep);
    keys.entry("signatures").or_insert_with(|| serde_json::json!({}));
}

/// Adds the signatures of `user` that `from` has and `to` lacks or has differently. Returns whether there were any.
pub(crate) fn merge_signatures(to: &mut Object, from: &Object, user: &UserId) -> bool {
    let mut merged = false;
    for (key_id, signature) in signatures_of(from, user) {
        if sign::signature(to, user.as_str(), key_id) != Some(signature) {
            sign::add_signature(to, user.as_str(), key_id, signature.to_owned());
            merged = true;
        }
    }
    merged
}

/// The ed25519 public key that an object holds under this id.
pub(crate) fn public_key(object: &Object, key_id: &str) -> Option<PublicKey> {
    PublicKey::from_base64(object.get("keys")?.get(key_id)?.as_str()?).ok()
}

/// Whether an object has a signature of this user's key that holds.
pub(crate) fn is_signed(object: &Object, user: &UserId, key_id: &str, key: &PublicKey) -> bool {
    sign::verify_json(object, user.as_str(), key_id, key).is_ok()
}
