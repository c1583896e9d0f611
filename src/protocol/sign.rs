//! Signatures of JSON objects and of events.
//!
//! Specification: appendices, "Signing JSON"; server-server API, "Signing Events".

use ruma::ServerName;
use serde_json::Value;

use crate::{
    event::Event,
    hash::{NOT_SIGNED, essential_json},
    json::{self, JsonError, Numbers, Object},
    keys::{PublicKey, SigningKey},
    parse::{self, PduError},
    version::RoomVersion,
};

/// Why a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The object has no signature of this entity with this key.
    #[error("there is no such signature")]
    Missing,
    /// The signature is not that of the key over the object.
    #[error("the signature is wrong")]
    Wrong,
    /// What is signed has no canonical form.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Signs an object that is not an event in the name of an entity: a server, or a user where keys of users sign.
///
/// # Errors
/// Where the object has no canonical form.
pub fn sign_json(object: &mut Object, entity: &str, key: &SigningKey) -> Result<(), JsonError> {
    let signed = json::canonical_without(object, &NOT_SIGNED, Numbers::Normalised)?;
    add_signature(object, entity, key.id(), key.sign(signed.as_bytes()));
    Ok(())
}

/// Checks one signature of an object that is not an event.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_json(object: &Object, entity: &str, key_id: &str, key: &PublicKey) -> Result<(), SignatureError> {
    let signature = signature(object, entity, key_id).ok_or(SignatureError::Missing)?;
    let signed = json::canonical_without(object, &NOT_SIGNED, Numbers::Normalised)?;
    if key.verifies(signed.as_bytes(), signature) { Ok(()) } else { Err(SignatureError::Wrong) }
}

/// The signature of an entity with a key, in base64, if the object has one.
#[must_use]
pub fn signature<'a>(object: &'a Object, entity: &str, key_id: &str) -> Option<&'a str> {
    object.get("signatures")?.get(entity)?.get(key_id)?.as_str()
}

/// Adds a signature beside those that are there. An old one of the same entity with the same key is replaced.
pub fn add_signature(object: &mut Object, entity: &str, key_id: &str, signature: String) {
    let mut signatures = taken(object, "signatures");
    let mut own = taken(&mut signatures, entity);
    own.insert(key_id.to_owned(), Value::String(signature));
    signatures.insert(entity.to_owned(), Value::Object(own));
    object.insert("signatures".to_owned(), Value::Object(signatures));
}

/// Takes out the object under this key, or an empty one where there is none.
fn taken(object: &mut Object, key: &str) -> Object {
    match object.remove(key) {
        Some(Value::Object(child)) => child,
        _ => Object::new(),
    }
}

/// Hashes and signs an event in the federation format, in place ("Adding hashes and signatures to outgoing events").
/// [`crate::draft::build`] does the same faster from a draft.
///
/// # Errors
/// Where the event has no canonical form in its room version.
pub fn hash_and_sign(event: &mut Object, version: &RoomVersion, server: &ServerName, key: &SigningKey) -> Result<(), JsonError> {
    let hash = crate::base64::encode(&crate::hash::content_hash(event, version)?);
    event.insert("hashes".to_owned(), serde_json::json!({ "sha256": hash }));
    let signed = essential_json(event.clone(), version)?;
    add_signature(event, server.as_str(), key.id(), key.sign(signed.as_bytes()));
    Ok(())
}

/// The event with one more signature, as an invited, an authorising or a policy server adds it.
/// Signatures that are there stay, those of the same server with other keys too.
///
/// # Errors
/// Where the event with it is too large.
pub fn with_signature(
    event: &Event,
    version: &RoomVersion,
    server: &ServerName,
    key_id: &str,
    signature: &str,
) -> Result<Event, PduError> {
    let mut object = event.object()?;
    add_signature(&mut object, server.as_str(), key_id, signature.to_owned());
    parse::event_from_object(&object, event.id.clone(), version)
}

/// The event with this server's signature as well.
///
/// # Errors
/// As [`with_signature`].
pub fn cosign(event: &Event, version: &RoomVersion, server: &ServerName, key: &SigningKey) -> Result<Event, PduError> {
    let mut object = event.object()?;
    cosign_object(&mut object, version, server, key)?;
    parse::event_from_object(&object, event.id.clone(), version)
}

/// Signs an event that is not parsed yet, beside those who have: its other signatures are checked with this one.
///
/// # Errors
/// Where the event has no canonical form in its room version.
pub fn cosign_object(event: &mut Object, version: &RoomVersion, server: &ServerName, key: &SigningKey) -> Result<(), JsonError> {
    let signature = key.sign(essential_json(event.clone(), version)?.as_bytes());
    add_signature(event, server.as_str(), key.id(), signature);
    Ok(())
}

/// Checks one signature of an event, such as a policy server's, with a key that the caller knows.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_event(
    event: &Object,
    version: &RoomVersion,
    server: &ServerName,
    key_id: &str,
    key: &PublicKey,
) -> Result<(), SignatureError> {
    let signature = signature(event, server.as_str(), key_id).ok_or(SignatureError::Missing)?;
    let signed = essential_json(event.clone(), version)?;
    if key.verifies(signed.as_bytes(), signature) { Ok(()) } else { Err(SignatureError::Wrong) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::fixtures::{key_of, message, object, sent_by, server, version};

    /// The key of the appendix, "Cryptographic Test Vectors".
    fn vector_key() -> SigningKey {
        SigningKey::from_line("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").ok().unwrap()
    }

    #[test]
    fn json_is_signed_as_in_the_appendix() {
        let vectors = [
            (json!({}), "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
            (
                json!({ "one": 1, "two": "Two" }),
                "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
            ),
        ];
        for (plain, signature) in vectors {
            let mut signed = object(plain.clone());
            sign_json(&mut signed, "domain", &vector_key()).unwrap();
            assert_eq!(signed.remove("signatures"), Some(json!({ "domain": { "ed25519:1": signature } })));
            assert_eq!(Value::Object(signed), plain, "nothing else changes");
        }
    }

    #[test]
    fn events_are_hashed_and_signed_as_in_the_appendix() {
        let minimal = json!({
            "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1_000_000, "signatures": {},
            "hashes": {}, "type": "X", "content": {}, "prev_events": [], "auth_events": [], "depth": 3,
            "unsigned": { "age_ts": 1_000_000 }
        });
        let redactable = json!({
            "content": { "body": "Here is the message content" }, "event_id": "$0:domain", "origin": "domain",
            "origin_server_ts": 1_000_000, "type": "m.room.message", "room_id": "!r:domain", "sender": "@u:domain",
            "signatures": {}, "unsigned": { "age_ts": 1_000_000 }
        });
        let vectors = [
            (
                minimal,
                "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
                "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
            ),
            (
                redactable,
                "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
                "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
            ),
        ];
        let (version, domain, key) = (version("1"), server("domain"), vector_key());
        for (plain, hash, signature) in vectors {
            let mut event = object(plain.clone());
            hash_and_sign(&mut event, version, &domain, &key).unwrap();
            let mut expected = object(plain);
            expected.insert("hashes".to_owned(), json!({ "sha256": hash }));
            expected.insert("signatures".to_owned(), json!({ "domain": { "ed25519:1": signature } }));
            assert_eq!(event, expected);
            verify_event(&event, version, &domain, "ed25519:1", &key.public()).unwrap();
        }
    }

    #[test]
    fn a_signature_covers_all_but_signatures_and_unsigned() {
        let (key, other) = (key_of("a.org"), key_of("b.org"));
        let mut signed = object(json!({ "name": "a", "unsigned": { "age": 1.5 } }));
        sign_json(&mut signed, "a.org", &key).unwrap();
        sign_json(&mut signed, "b.org", &other).unwrap();
        signed.insert("unsigned".to_owned(), json!({ "age": 7 }));
        verify_json(&signed, "a.org", "ed25519:1", &key.public()).unwrap();
        verify_json(&signed, "b.org", "ed25519:1", &other.public()).unwrap();

        let missing = |entity, key_id| verify_json(&signed, entity, key_id, &key.public());
        assert!(matches!(missing("c.org", "ed25519:1"), Err(SignatureError::Missing)));
        assert!(matches!(missing("a.org", "ed25519:2"), Err(SignatureError::Missing)));
        assert!(matches!(verify_json(&signed, "a.org", "ed25519:1", &other.public()), Err(SignatureError::Wrong)));
        signed.insert("name".to_owned(), json!("b"));
        assert!(matches!(verify_json(&signed, "a.org", "ed25519:1", &key.public()), Err(SignatureError::Wrong)));
    }

    #[test]
    fn malformed_signatures_are_wrong_or_missing_and_never_a_panic() {
        let key = key_of("a.org").public();
        for signatures in [json!(1), json!({ "a.org": 1 }), json!({ "a.org": { "ed25519:1": 1 } })] {
            let signed = object(json!({ "signatures": signatures }));
            assert!(matches!(verify_json(&signed, "a.org", "ed25519:1", &key), Err(SignatureError::Missing)));
        }
        for signature in ["", "AAAA", "!", "é"] {
            let signed = object(json!({ "signatures": { "a.org": { "ed25519:1": signature } } }));
            assert!(matches!(verify_json(&signed, "a.org", "ed25519:1", &key), Err(SignatureError::Wrong)));
        }
    }

    #[test]
    fn a_second_server_signs_an_event_beside_the_first_and_the_id_stays() {
        let version = version("11");
        let event = sent_by("alice.org", version, message(version), |_| {});
        let event = crate::fixtures::parse(&event, version).unwrap().event().clone();
        let both = cosign(&event, version, &server("bob.org"), &key_of("bob.org")).unwrap();
        // A policy server may sign with a key of its own under the same name as the sender's server.
        let three = with_signature(&both, version, &server("alice.org"), "ed25519:policy_server", "c2ln").unwrap();

        let object = three.object().unwrap();
        for name in ["alice.org", "bob.org"] {
            verify_event(&object, version, &server(name), "ed25519:1", &key_of(name).public()).unwrap();
        }
        assert_eq!(signature(&object, "alice.org", "ed25519:policy_server"), Some("c2ln"));
        assert_eq!(three.id, event.id);
        assert_eq!(three.content.get(), event.content.get());
    }
}
