//! Invites that accept a third-party invite: rule 5.4.1.

use std::collections::BTreeMap;

use ruma::UserId;
use serde_json::value::RawValue;

use super::super::rules::{Grant, Rule};
use super::super::{Denied, Membership, Room, State};
use crate::content::{Text, field, text, text_field};
use crate::event::Event;
use crate::keys::{ED25519, PublicKey};

/// How many pairs of a signature and a key are tried at most. Real invites have one signature and two keys; two events
/// of 64 KiB could otherwise demand hundreds of thousands of checks.
const SIGNATURE_CHECKS_LIMIT: usize = 128;

pub(super) fn invite<S: State>(room: &Room<'_, S>, target: &UserId, invite: &RawValue) -> Result<Grant, Denied> {
    // Rule 5.4.1.1.
    if room.membership(target.as_str()) == Membership::Ban {
        return Err(room.denied(Rule::ThirdPartyBanned, "the target is banned"));
    }
    // Rule 5.4.1.2.
    let signed = field(invite, "signed").ok_or_else(|| room.denied(Rule::ThirdPartySigned, "nothing is signed"))?;
    // Rule 5.4.1.3.
    let (Some(mxid), Some(token)) = (text_field(signed, "mxid"), text_field(signed, "token")) else {
        return Err(room.denied(Rule::ThirdPartyFields, "no mxid or no token"));
    };
    // Rule 5.4.1.4.
    if mxid != target.as_str() {
        return Err(room.denied(Rule::ThirdPartyMxid, "mxid is not the target"));
    }
    // Rule 5.4.1.5.
    let Some(promise) = (room.state)("m.room.third_party_invite", &token) else {
        return Err(room.denied(Rule::ThirdPartyToken, "the room has no third-party invite of this token"));
    };
    // Rule 5.4.1.6.
    if promise.sender != room.event.sender {
        return Err(room.denied(Rule::ThirdPartySender, "another user sent the third-party invite"));
    }
    // Rule 5.4.1.7.
    if is_signed(signed, &public_keys(&promise)) {
        return Ok(Grant::ThirdPartySigned);
    }
    // Rule 5.4.1.8.
    Err(room.denied(Rule::ThirdPartySignature, "no signature by a key of the third-party invite"))
}

/// The keys of an `m.room.third_party_invite`: `public_key` and those of `public_keys`.
fn public_keys(promise: &Event) -> Vec<PublicKey> {
    let listed = field(&promise.content, "public_keys")
        .and_then(|keys| serde_json::from_str::<Vec<&RawValue>>(keys.get()).ok())
        .unwrap_or_default();
    let listed = listed.into_iter().filter_map(|key| text_field(key, "public_key"));
    let single = text_field(&promise.content, "public_key");
    single
        .into_iter()
        .chain(listed)
        .take(SIGNATURE_CHECKS_LIMIT)
        .filter_map(|key| PublicKey::from_either_base64(&key).ok())
        .collect()
}

/// Whether any signature of the object, of whatever server and key id, is by any of the keys.
fn is_signed(signed: &RawValue, keys: &[PublicKey]) -> bool {
    let Some(message) = signed_bytes(signed) else { return false };
    let servers = field(signed, "signatures").and_then(object).unwrap_or_default();
    let by_key = servers.into_values().filter_map(object).flatten();
    by_key
        .filter(|(key_id, _)| key_id.0.starts_with(ED25519))
        .filter_map(|(_, signature)| text(signature))
        .flat_map(|signature| keys.iter().map(move |key| (signature.clone(), key)))
        .take(SIGNATURE_CHECKS_LIMIT)
        .any(|(signature, key)| key.verifies(message.as_bytes(), &signature))
}

/// What is signed: the object as canonical JSON without `signatures` and `unsigned`. The content is canonical, so the
/// fields that stay are taken as they are.
fn signed_bytes(signed: &RawValue) -> Option<String> {
    let mut fields = object(signed)?;
    fields.retain(|key, _| key.0 != "signatures" && key.0 != "unsigned");
    serde_json::to_string(&fields).ok()
}

fn object(value: &RawValue) -> Option<BTreeMap<Text<'_>, &RawValue>> {
    serde_json::from_str(value.get()).ok()
}
