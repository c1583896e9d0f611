//! Checking the signatures and the content hash of events: `Parsed` -> `Verified`.
//!
//! Specification: server-server API, "Validating hashes and signatures on received events"; "Signing key validity period"
//! of room version 5. Fetching keys is the caller's: [`Parsed::wanted_keys`] names them.

use std::{ops::Deref, sync::Arc};

use ruma::{OwnedServerName, ServerName};
use serde_json::Value;

use crate::{
    event::Event,
    ids,
    json::Object,
    keys::{ED25519, POLICY_KEY_ID, PublicKey},
    parse::PduError,
    version::RoomVersion,
};

/// An event whose format is right and whose id is known. Who made it is not: nothing of it may be believed yet.
#[derive(Clone, Debug)]
pub struct Parsed {
    event: Event,
    signed: String,
    signatures: Object,
    signers: Vec<OwnedServerName>,
    intact: bool,
    version: &'static RoomVersion,
}

/// An event that its server made: signatures and content hash hold, because they were checked or because this server has
/// just made them. Where the hash did not hold, it is the redacted form.
///
/// An invite for a third party needs no signature ("Third-party invites"): who made it is only known once the authorisation
/// rules have checked the `signed` block that it carries.
#[derive(Clone, Debug)]
pub struct Verified(Arc<Event>);

/// A key of another server and when it may be used.
#[derive(Clone, Copy, Debug)]
pub struct VerifyKey {
    /// The key.
    pub key: PublicKey,
    /// For which events it counts.
    pub validity: Validity,
}

/// For which events a key counts, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From `verify_keys`: until `valid_until_ts`, or 7 days after it was fetched where that is less.
    /// Room versions 1 to 4 do not ask.
    Until(u64),
    /// From `old_verify_keys`: for events from before `expired_ts`, in every room version.
    ExpiredAt(u64),
}

impl VerifyKey {
    fn counts_at(&self, origin_server_ts: u64, version: &RoomVersion) -> bool {
        match self.validity {
            Validity::Until(until) => !version.key_validity || origin_server_ts <= until,
            Validity::ExpiredAt(expired) => origin_server_ts < expired,
        }
    }
}

/// Why an event cannot be believed. It is dropped, or tried again once keys were fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A server that must sign the event did not.
    #[error("the event is not signed by {0}")]
    Unsigned(OwnedServerName),
    /// The server signed, but only with keys that are unknown, or not valid at the time of the event.
    #[error("the event is signed by {0} with no key that is known and valid")]
    UnknownKey(OwnedServerName),
    /// A signature is wrong.
    #[error("the event's signature by {0} is wrong")]
    WrongSignature(OwnedServerName),
}

impl Parsed {
    pub(crate) fn new(
        event: Event,
        signed: String,
        signatures: Object,
        signers: Vec<OwnedServerName>,
        intact: bool,
        version: &'static RoomVersion,
    ) -> Self {
        Self { event, signed, signatures, signers, intact, version }
    }

    /// The event in the form that counts: as it came, or redacted where its content hash did not hold.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Whether the content hash held, so that the event is as its server made it.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.intact
    }

    /// The keys that [`Self::verify`] will ask for: (server, key id) of all signatures that must hold.
    pub fn wanted_keys(&self) -> impl Iterator<Item = (&ServerName, &str)> {
        self.signers.iter().flat_map(|server| self.signatures_of(server).map(move |(key_id, _)| (server.as_ref(), key_id)))
    }

    /// Checks the signatures of all servers that must sign. `key` gives a server's key by its id, without waiting.
    ///
    /// Of each server at least one signature must be by a key that is known and valid, and all such must be right.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(self, key: impl Fn(&ServerName, &str) -> Option<VerifyKey>) -> Result<Verified, VerifyError> {
        for server in &self.signers {
            self.verify_server(server, &key)?;
        }
        Ok(Verified(Arc::new(self.event)))
    }

    fn verify_server(
        &self,
        server: &ServerName,
        key: &impl Fn(&ServerName, &str) -> Option<VerifyKey>,
    ) -> Result<(), VerifyError> {
        let mut failure = Some(VerifyError::Unsigned(server.to_owned()));
        for (key_id, signature) in self.signatures_of(server) {
            let Some(known) = key(server, key_id).filter(|known| known.counts_at(self.event.origin_server_ts, self.version))
            else {
                failure = failure.map(|_| VerifyError::UnknownKey(server.to_owned()));
                continue;
            };
            if !known.key.verifies(self.signed.as_bytes(), signature) {
                return Err(VerifyError::WrongSignature(server.to_owned()));
            }
            failure = None;
        }
        failure.map_or(Ok(()), Err)
    }

    /// The (key id, signature) pairs of a server, of the algorithm that is known.
    fn signatures_of(&self, server: &ServerName) -> impl Iterator<Item = (&str, &str)> {
        let signatures = self.signatures.get(server.as_str()).and_then(Value::as_object);
        signatures
            .into_iter()
            .flatten()
            // A policy server's recommendation is checked by the key that the room names, and proves nothing of who made the event.
            .filter(|(key_id, _)| key_id.starts_with(ED25519) && *key_id != POLICY_KEY_ID)
            .map(|(key_id, signature)| (key_id.as_str(), signature.as_str().unwrap_or_default()))
    }
}

impl Verified {
    /// Takes an event that this server has just hashed and signed.
    pub(crate) fn built(event: Event) -> Self {
        Self(Arc::new(event))
    }

    /// The event, to share.
    #[must_use]
    pub fn into_event(self) -> Arc<Event> {
        self.0
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Arc<Event> {
        &self.0
    }
}

impl Deref for Verified {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.0
    }
}

/// The servers whose signatures an event needs, given the form of it that will be used. Were the exception for third-party
/// invites taken from a form that is then redacted, anybody could forge invites.
pub(crate) fn required_signers(event: &Object, version: &RoomVersion) -> Result<Vec<OwnedServerName>, PduError> {
    let text = |key: &'static str| event.get(key).and_then(Value::as_str).ok_or(PduError::Missing(key));
    let content = event.get("content").and_then(Value::as_object).ok_or(PduError::Missing("content"))?;
    let is_member = text("type")? == "m.room.member";
    let mut servers = Vec::with_capacity(2);
    if !(is_member && is_third_party_invite(content)) {
        servers.push(ids::user_id(text("sender")?)?.server_name().to_owned());
    }
    if version.event_ids == crate::version::EventIdFormat::Chosen {
        let id = ids::event_id(text("event_id")?, version)?;
        servers.extend(id.server_name().map(ToOwned::to_owned));
    }
    // The authorisation rules ask for it with any membership, and have no other way to know.
    if let Some(user) = content.get("join_authorised_via_users_server").filter(|_| is_member && version.restricted_joins) {
        let user = user.as_str().ok_or(PduError::Malformed("join_authorised_via_users_server"))?;
        servers.push(ids::user_id(user)?.server_name().to_owned());
    }
    servers.sort();
    servers.dedup();
    Ok(servers)
}

/// An invite that stands for one to an e-mail address or the like is sent by the invited user's server in the name of the
/// inviter. The authorisation rules check the token that it carries.
fn is_third_party_invite(content: &Object) -> bool {
    content.get("membership").is_some_and(|membership| membership == "invite")
        && content.get("third_party_invite").and_then(|invite| invite.get("signed")).is_some_and(Value::is_object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::{
        fixtures::{NOW_MS, draft, key_of, known_keys, message, parse, sent_by, server, version},
        sign,
    };

    fn no_keys(_: &ServerName, _: &str) -> Option<VerifyKey> {
        None
    }

    /// The same key for everybody, with this validity.
    fn keys(validity: Validity) -> impl Fn(&ServerName, &str) -> Option<VerifyKey> {
        move |server, key_id| known_keys(server, key_id).map(|known| VerifyKey { validity, ..known })
    }

    /// Alice's join with this content, signed by alice.org alone.
    fn join(version: &'static RoomVersion, content: Value) -> Parsed {
        let join = draft(version, "m.room.member", Some("@alice:alice.org"), content);
        parse(&sent_by("alice.org", version, join, |_| {}), version).unwrap()
    }

    #[test]
    fn an_event_signed_by_its_senders_server_is_verified() {
        for version in RoomVersion::all() {
            let sent = sent_by("alice.org", version, message(version), |_| {});
            let parsed = parse(&sent, version).unwrap();
            let wanted: Vec<_> = parsed.wanted_keys().map(|(server, key)| format!("{server} {key}")).collect();
            assert_eq!(wanted, ["alice.org ed25519:1"]);
            let verified = parsed.verify(known_keys).unwrap();
            assert_eq!(verified.content.get(), r#"{"body":"Hello","msgtype":"m.text"}"#);
        }
    }

    #[test]
    fn signatures_of_others_do_not_count() {
        let version = version("11");
        let forged = sent_by("mallory.org", version, message(version), |_| {});
        let refused = parse(&forged, version).unwrap().verify(known_keys).unwrap_err();
        assert_eq!(refused, VerifyError::Unsigned(server("alice.org")));

        let mut claimed = forged;
        let signature = sign::signature(&claimed, "mallory.org", "ed25519:1").unwrap().to_owned();
        sign::add_signature(&mut claimed, "alice.org", "ed25519:1", signature);
        let refused = parse(&claimed, version).unwrap().verify(known_keys).unwrap_err();
        assert_eq!(refused, VerifyError::WrongSignature(server("alice.org")));
    }

    #[test]
    fn unknown_keys_are_passed_over_but_one_must_be_known() {
        let version = version("11");
        let mut event = sent_by("alice.org", version, message(version), |_| {});
        assert_eq!(parse(&event, version).unwrap().verify(no_keys).unwrap_err(), VerifyError::UnknownKey(server("alice.org")),);
        sign::add_signature(&mut event, "alice.org", "ed25519:policy_server", "c2ln".to_owned());
        sign::add_signature(&mut event, "alice.org", "rsa:1", "c2ln".to_owned());
        parse(&event, version).unwrap().verify(known_keys).unwrap();
    }

    #[test]
    fn one_wrong_signature_of_a_known_key_spoils_the_event_whatever_its_order() {
        let version = version("11");
        for key_id in ["ed25519:0", "ed25519:2"] {
            let mut event = sent_by("alice.org", version, message(version), |_| {});
            sign::add_signature(&mut event, "alice.org", key_id, key_of("alice.org").sign(b"another"));
            let both_known = |server: &ServerName, _: &str| known_keys(server, "ed25519:1");
            let refused = parse(&event, version).unwrap().verify(both_known).unwrap_err();
            assert_eq!(refused, VerifyError::WrongSignature(server("alice.org")));
        }
    }

    #[test]
    fn keys_count_while_they_are_valid() {
        let verifies = |version_id: &str, validity: Validity| {
            let version = version(version_id);
            parse(&sent_by("alice.org", version, message(version), |_| {}), version).unwrap().verify(keys(validity)).is_ok()
        };
        assert!(verifies("5", Validity::Until(NOW_MS)));
        assert!(!verifies("5", Validity::Until(NOW_MS - 1)));
        assert!(verifies("4", Validity::Until(NOW_MS - 1)), "validity is enforced from version 5 on");
        for version in ["4", "5", "12"] {
            assert!(verifies(version, Validity::ExpiredAt(NOW_MS + 1)), "from before the key was retired");
            assert!(!verifies(version, Validity::ExpiredAt(NOW_MS)));
        }
    }

    #[test]
    fn content_that_was_tampered_with_is_redacted_and_the_essence_stays() {
        for version in RoomVersion::all() {
            let mut sent = sent_by("alice.org", version, message(version), |_| {});
            let id = parse(&sent, version).unwrap().event().id.clone();
            sent.insert("content".to_owned(), json!({ "body": "Pay mallory", "msgtype": "m.text" }));
            sent.insert("org.example.extra".to_owned(), json!(1));
            let parsed = parse(&sent, version).unwrap();
            assert!(!parsed.is_intact());
            let verified = parsed.verify(known_keys).unwrap();
            assert_eq!((verified.content.get(), &verified.id), ("{}", &id));
            assert!(!verified.json.contains("extra") && !verified.json.contains("mallory"));
        }
    }

    #[test]
    fn the_server_in_the_id_signs_too_in_versions_1_and_2() {
        for (version_id, needed) in [("1", true), ("2", true), ("3", false)] {
            let version = version(version_id);
            let sent = sent_by("alice.org", version, message(version), |event| {
                event.insert("event_id".to_owned(), json!("$1:bob.org"));
            });
            let event = parse(&sent, version);
            if !needed {
                assert!(event.is_ok());
                continue;
            }
            let parsed = event.unwrap();
            assert_eq!(parsed.clone().verify(known_keys).unwrap_err(), VerifyError::Unsigned(server("bob.org")));
            let both = sign::cosign(parsed.event(), version, &server("bob.org"), &key_of("bob.org")).unwrap();
            parse(&both.object().unwrap(), version).unwrap().verify(known_keys).unwrap();
        }
    }

    #[test]
    fn a_restricted_join_is_signed_by_the_server_that_allowed_it() {
        let content = json!({ "membership": "join", "join_authorised_via_users_server": "@bob:bob.org" });
        join(version("7"), content.clone()).verify(known_keys).unwrap();
        for version in ["8", "9", "10", "11", "12"].map(version) {
            let parsed = join(version, content.clone());
            assert_eq!(parsed.clone().verify(known_keys).unwrap_err(), VerifyError::Unsigned(server("bob.org")));
            let allowed = sign::cosign(parsed.event(), version, &server("bob.org"), &key_of("bob.org")).unwrap();
            let verified = parse(&allowed.object().unwrap(), version).unwrap().verify(known_keys).unwrap();
            assert_eq!(verified.id, parsed.event().id);
        }
    }

    #[test]
    fn an_authorising_user_that_is_no_user_is_refused() {
        let version = version("11");
        for user in [json!(1), json!("bob"), json!("@bob:")] {
            let content = json!({ "membership": "join", "join_authorised_via_users_server": user });
            let join = draft(version, "m.room.member", Some("@alice:alice.org"), content);
            assert!(parse(&sent_by("alice.org", version, join, |_| {}), version).is_err());
        }
    }

    /// An invite in alice's name that bob.org made, with this content.
    fn invite_by_bob(version: &'static RoomVersion, content: Value) -> crate::json::Object {
        let mut invite = draft(version, "m.room.member", Some("@bob:bob.org"), content);
        invite.opaque_id = invite.opaque_id.map(|_| "invite".to_owned());
        sent_by("bob.org", version, invite, |event| {
            if event.contains_key("event_id") {
                event.insert("event_id".to_owned(), json!("$invite:bob.org"));
            }
        })
    }

    #[test]
    fn a_third_party_invite_is_sent_by_the_invited_server_in_anothers_name() {
        let content =
            json!({ "membership": "invite", "third_party_invite": { "display_name": "b", "signed": { "token": "t" } } });
        for version in RoomVersion::all() {
            parse(&invite_by_bob(version, content.clone()), version).unwrap().verify(known_keys).unwrap();
        }
    }

    #[test]
    fn an_invite_cannot_be_forged_by_a_third_party_invite_that_is_then_redacted() {
        let content =
            json!({ "membership": "invite", "third_party_invite": { "display_name": "b", "signed": { "token": "t" } } });
        for version in RoomVersion::all() {
            let mut forged = invite_by_bob(version, content.clone());
            forged.insert("hashes".to_owned(), json!({ "sha256": "AAAA" }));
            let parsed = parse(&forged, version).unwrap();
            assert!(!parsed.is_intact());
            let verified = parsed.verify(known_keys);
            if version.version_11 {
                // Here redaction keeps what is signed, which authorisation then checks.
                let kept = verified.map(|event| event.content.get().contains("signed"));
                assert!(kept.is_err() || kept == Ok(true), "version {}", version.id);
            } else {
                assert!(verified.is_err(), "version {}", version.id);
            }
        }
    }

    #[test]
    fn an_invite_without_what_is_signed_is_no_third_party_invite() {
        let version = version("11");
        for third_party_invite in [json!({}), json!("x"), json!({ "signed": 1 })] {
            let content = json!({ "membership": "invite", "third_party_invite": third_party_invite });
            let refused = parse(&invite_by_bob(version, content), version).unwrap().verify(known_keys).unwrap_err();
            assert_eq!(refused, VerifyError::Unsigned(server("alice.org")));
        }
    }
}
