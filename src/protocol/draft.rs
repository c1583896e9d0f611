//! Making this server's own events: hash, sign, and compute the id. It is on the path of every message sent, so the JSON is
//! written straight from the draft, and the content is serialised once.
//!
//! Specification: server-server API, "Adding hashes and signatures to outgoing events".

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, ServerName};
use serde_json::Value;

use crate::{
    base64,
    event::Event,
    hash,
    ids::{self, InvalidId, MAX_ID_BYTES},
    json::{self, JsonError, Numbers, Object, write_string},
    keys::SigningKey,
    parse::{self, MAX_AUTH_EVENTS, MAX_EVENT_BYTES, MAX_PREV_EVENTS, PduError},
    power_levels::Memo,
    redact,
    verify::Verified,
    version::{EventIdFormat, RoomVersion},
};

/// The deepest nesting of content that this server sends. Readers of JSON stop at 128 levels, some earlier, and on its way
/// an event is itself nested in transactions and answers: one that nobody can read must not get into a room.
pub const MAX_CONTENT_NESTING: usize = 100;

/// An event before it is hashed and signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The room; `None` for the create event of version 12, whose id the room's id is made of.
    pub room_id: Option<OwnedRoomId>,
    /// The user who sends it.
    pub sender: OwnedUserId,
    /// The type.
    pub kind: String,
    /// The state key, of state events.
    pub state_key: Option<String>,
    /// The content.
    pub content: Object,
    /// What a redaction redacts. It goes where the room version has it: to the top level, or from 11 on into the content,
    /// where it may be already.
    pub redacts: Option<OwnedEventId>,
    /// Milliseconds since the epoch.
    pub origin_server_ts: u64,
    /// One more than the greatest depth of `prev_events`. It is cut to what the room version allows.
    pub depth: u64,
    /// The forward extremities.
    pub prev_events: Vec<Reference>,
    /// The state events that allow this one.
    pub auth_events: Vec<Reference>,
    /// In versions 1 and 2 the part of the event id before the colon: unique on this server, chosen by the caller.
    pub opaque_id: Option<String>,
}

/// One event naming another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The event.
    pub id: OwnedEventId,
    /// Its reference hash ([`hash::reference_hash`]), which versions 1 and 2 ask for. Servers leave it out of templates, and nobody checks it.
    pub hash: Option<hash::Hash>,
}

impl From<OwnedEventId> for Reference {
    fn from(id: OwnedEventId) -> Self {
        Self { id, hash: None }
    }
}

/// Why a draft makes no event.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The content has numbers that the room version does not allow, or is nested too deep: `M_BAD_JSON` to a client.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The JSON as a whole, or the key named, is larger than events may be: `M_TOO_LARGE` to a client.
    #[error("the event's {what} is over the limit of {limit}")]
    TooLarge {
        /// The key, or `JSON`.
        what: &'static str,
        /// The limit in bytes, or in entries of a list.
        limit: usize,
    },
    /// The draft lacks what its room version needs, or has what that does not know. A mistake of the caller.
    #[error("the draft's {0} does not fit the room version")]
    Draft(&'static str),
}

impl From<PduError> for BuildError {
    fn from(error: PduError) -> Self {
        match error {
            PduError::Json(error) => Self::Json(error),
            PduError::TooLarge { what, limit } => Self::TooLarge { what, limit },
            PduError::Missing(key) | PduError::Malformed(key) | PduError::Id(InvalidId(key)) => Self::Draft(key),
        }
    }
}

/// Makes an event of a draft: checks limits, hashes, signs in the name of `server`, and computes the id.
///
/// # Errors
/// [`BuildError`].
pub fn build(version: &RoomVersion, mut draft: Draft, key: &SigningKey, server: &ServerName) -> Result<Verified, BuildError> {
    check(version, &draft)?;
    if version.version_11
        && let Some(redacts) = &draft.redacts
    {
        draft.content.insert("redacts".to_owned(), Value::String(redacts.to_string()));
    } else if version.version_11 {
        draft.redacts = parse::redacts(&draft.content, &draft.kind, version);
    }
    let chosen_id = chosen_id(version, &draft, server)?;
    let numbers = Numbers::of(version);
    let content = json::canonical_object(&draft.content, numbers)?;

    let mut text = EventText { version, draft: &draft, chosen_id: chosen_id.as_deref(), hash: None, signature: None };
    let hash = base64::encode(&hash::sha256(text.write(&content, true)?.as_bytes()));
    text.hash = Some(&hash);
    let essential = text.write(&essential_content(version, &draft, &content)?, false)?;
    let signature = key.sign(essential.as_bytes());
    text.signature = Some((server, key.id(), &signature));
    let json = text.write(&content, true)?;
    parse::check_size("JSON", json.len(), MAX_EVENT_BYTES)?;

    let id = hash::event_id(&hash::sha256(essential.as_bytes()), version).or(chosen_id).ok_or(BuildError::Draft("event id"))?;
    let room_id = draft.room_id.or_else(|| hash::room_id_of_create(&id)).ok_or(BuildError::Draft("room_id"))?;
    Ok(Verified::built(Event {
        id,
        room_id,
        sender: draft.sender,
        kind: draft.kind,
        state_key: draft.state_key,
        origin_server_ts: draft.origin_server_ts,
        depth: draft.depth.min(version.max_depth()),
        prev_events: draft.prev_events.into_iter().map(|reference| reference.id).collect(),
        auth_events: draft.auth_events.into_iter().map(|reference| reference.id).collect(),
        redacts: draft.redacts,
        content: parse::raw(content)?,
        json: json.into_boxed_str(),
        levels: Memo::default(),
    }))
}

fn check(version: &RoomVersion, draft: &Draft) -> Result<(), BuildError> {
    parse::check_size("type", draft.kind.len(), MAX_ID_BYTES)?;
    parse::check_size("state_key", draft.state_key.as_ref().map_or(0, String::len), MAX_ID_BYTES)?;
    parse::check_size("prev_events", draft.prev_events.len(), MAX_PREV_EVENTS)?;
    parse::check_size("auth_events", draft.auth_events.len(), MAX_AUTH_EVENTS)?;
    ids::user_id(draft.sender.as_str()).map_err(PduError::from)?;
    let makes_room_id = version.version_12 && draft.kind == "m.room.create";
    match &draft.room_id {
        Some(room_id) if !makes_room_id => ids::room_id(room_id.as_str(), version).map(drop).map_err(PduError::from)?,
        None if makes_room_id => {}
        _ => return Err(BuildError::Draft("room_id")),
    }
    if let Some(redacts) = &draft.redacts
        && (draft.kind != "m.room.redaction" || ids::event_id(redacts.as_str(), version).is_err())
    {
        return Err(BuildError::Draft("redacts"));
    }
    if json::nesting(&draft.content) > MAX_CONTENT_NESTING {
        return Err(JsonError::TooDeep { limit: MAX_CONTENT_NESTING }.into());
    }
    let max_ts = if version.strict_json { json::MAX_INTEGER } else { i64::MAX };
    if draft.origin_server_ts > max_ts.unsigned_abs() {
        return Err(JsonError::Range.into());
    }
    for reference in draft.prev_events.iter().chain(&draft.auth_events) {
        ids::event_id(reference.id.as_str(), version).map_err(PduError::from)?;
    }
    Ok(())
}

/// The id of an event of versions 1 and 2.
fn chosen_id(version: &RoomVersion, draft: &Draft, server: &ServerName) -> Result<Option<OwnedEventId>, BuildError> {
    match (&draft.opaque_id, version.event_ids) {
        (Some(opaque), EventIdFormat::Chosen) => {
            Ok(Some(ids::event_id(&format!("${opaque}:{server}"), version).map_err(PduError::from)?))
        }
        (None, EventIdFormat::Base64 | EventIdFormat::UrlSafe) => Ok(None),
        _ => Err(BuildError::Draft("opaque_id")),
    }
}

/// What redaction leaves of the content, as canonical JSON. For most events that is nothing.
fn essential_content(version: &RoomVersion, draft: &Draft, content: &str) -> Result<String, JsonError> {
    if draft.content.keys().all(|key| key != "third_party_invite" && redact::keeps_content_key(&draft.kind, key, version)) {
        return Ok(content.to_owned());
    }
    let kept = draft.content.iter().filter(|(key, _)| redact::keeps_content_key(&draft.kind, key, version));
    let mut kept: Object = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    redact::redact_content(&mut kept, &draft.kind, version);
    json::canonical_object(&kept, Numbers::of(version))
}

/// Writes an event as canonical JSON, that is with its keys in order, in the stages of being hashed and signed.
struct EventText<'a> {
    version: &'a RoomVersion,
    draft: &'a Draft,
    chosen_id: Option<&'a EventId>,
    hash: Option<&'a str>,
    signature: Option<(&'a ServerName, &'a str, &'a str)>,
}

impl EventText<'_> {
    /// The event with this content, and with what redaction takes from the top level only if it is `whole`.
    fn write(&self, content: &str, whole: bool) -> Result<String, BuildError> {
        let draft = self.draft;
        let mut out = String::with_capacity(content.len() + 1024);
        out.push_str("{\"auth_events\":");
        self.write_references(&mut out, &draft.auth_events);
        out.push_str(",\"content\":");
        out.push_str(content);
        out.push_str(",\"depth\":");
        out.push_str(&draft.depth.min(self.version.max_depth()).to_string());
        write_member(&mut out, "event_id", self.chosen_id.map(EventId::as_str));
        if let Some(hash) = self.hash {
            out.push_str(",\"hashes\":{\"sha256\":");
            write_string(&mut out, hash);
            out.push('}');
        }
        out.push_str(",\"origin_server_ts\":");
        out.push_str(&draft.origin_server_ts.to_string());
        out.push_str(",\"prev_events\":");
        self.write_references(&mut out, &draft.prev_events);
        let redacts = draft.redacts.as_ref().filter(|_| whole && !self.version.version_11);
        write_member(&mut out, "redacts", redacts.map(AsRef::as_ref));
        write_member(&mut out, "room_id", draft.room_id.as_ref().map(AsRef::as_ref));
        write_member(&mut out, "sender", Some(draft.sender.as_str()));
        if let Some((server, key_id, signature)) = self.signature {
            out.push_str(",\"signatures\":{");
            write_string(&mut out, server.as_str());
            out.push_str(":{");
            write_string(&mut out, key_id);
            out.push(':');
            write_string(&mut out, signature);
            out.push_str("}}");
        }
        write_member(&mut out, "state_key", draft.state_key.as_deref());
        write_member(&mut out, "type", Some(&draft.kind));
        out.push('}');
        Ok(out)
    }

    fn write_references(&self, out: &mut String, references: &[Reference]) {
        out.push('[');
        for (index, reference) in references.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            if self.version.event_ids == EventIdFormat::Chosen {
                out.push('[');
                write_string(out, reference.id.as_str());
                out.push_str(",{");
                if let Some(hash) = &reference.hash {
                    out.push_str("\"sha256\":");
                    write_string(out, &base64::encode(hash));
                }
                out.push_str("}]");
            } else {
                write_string(out, reference.id.as_str());
            }
        }
        out.push(']');
    }
}

fn write_member(out: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.push_str(",\"");
        out.push_str(key);
        out.push_str("\":");
        write_string(out, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::fixtures::{draft, key_of, message, object, parse, reference, sent_by, server, version};

    fn build_in(version_id: &str, draft: Draft) -> Result<Verified, BuildError> {
        build(version(version_id), draft, &key_of("alice.org"), &server("alice.org"))
    }

    /// One draft of every kind that hashing, signing and redaction treat in a way of its own.
    fn drafts(version: &RoomVersion) -> Vec<Draft> {
        let mut redaction = draft(version, "m.room.redaction", None, json!({ "reason": "spam" }));
        redaction.redacts = Some(reference(version, 9).id);
        let mut deep = message(version);
        deep.depth = version.max_depth();
        vec![
            message(version),
            redaction,
            deep,
            draft(
                version,
                "m.room.create",
                Some(""),
                json!({ "creator": "@alice:alice.org", "room_version": version.id, "x": [] }),
            ),
            draft(version, "m.room.power_levels", Some(""), json!({ "ban": 50, "invite": 0, "notifications": { "room": 50 } })),
            draft(version, "m.room.join_rules", Some(""), json!({ "join_rule": "restricted", "allow": [{ "type": "x" }] })),
            draft(version, "m.room.topic", Some(""), json!({ "topic": "\"quotes\" \\ \u{1} 日本" })),
            draft(version, "m.room.aliases", Some("alice.org"), json!({ "aliases": ["#a:alice.org"] })),
            draft(
                version,
                "m.room.member",
                Some("@bob:bob.org"),
                json!({ "membership": "invite", "displayname": "Bob", "third_party_invite": { "display_name": "b", "signed": {} } }),
            ),
            draft(version, "org.\"odd\" kind", Some("\n"), json!({})),
        ]
    }

    #[test]
    fn what_is_built_is_what_the_specifications_steps_give() {
        for version in RoomVersion::all() {
            for draft in drafts(version) {
                let what = format!("{} in version {}", draft.kind, version.id);
                let built = build_in(version.id, draft.clone()).unwrap();
                let by_steps = sent_by("alice.org", version, draft, |event| {
                    if event.contains_key("event_id") {
                        event.insert("event_id".to_owned(), json!("$opaque:alice.org"));
                    }
                });
                assert_eq!(built.json.as_ref(), json::canonical_object(&by_steps, Numbers::of(version)).unwrap(), "{what}");
            }
        }
    }

    #[test]
    fn what_is_built_is_parsed_and_verified_as_the_same_event() {
        for version in RoomVersion::all() {
            for draft in drafts(version) {
                let what = format!("{} in version {}", draft.kind, version.id);
                let built = build_in(version.id, draft).unwrap();
                let parsed = parse(&built.object().unwrap(), version).unwrap();
                assert!(parsed.is_intact(), "{what}");
                let verified = parsed.verify(crate::fixtures::known_keys).unwrap();
                assert_eq!(format!("{:?}", verified.event()), format!("{:?}", built.event()), "{what}");
            }
        }
    }

    #[test]
    fn versions_1_and_2_name_events_by_pairs_whose_hash_is_the_reference_hash() {
        let version = version("2");
        let first = build_in("2", message(version)).unwrap();
        assert_eq!(first.id, "$opaque:alice.org");
        let hash = hash::reference_hash(&first, version).unwrap();
        let mut second = message(version);
        second.prev_events = vec![Reference { id: first.id.clone(), hash: Some(hash) }];
        let second = build_in("2", second).unwrap();
        let pair = json!([["$opaque:alice.org", { "sha256": base64::encode(&hash) }]]);
        assert_eq!(second.object().unwrap()["prev_events"], pair);
    }

    #[test]
    fn the_reference_hash_of_a_stored_event_is_its_id_from_version_3_on() {
        for version in &RoomVersion::all()[2..] {
            let built = build_in(version.id, message(version)).unwrap();
            let hash = hash::reference_hash(&built, version).unwrap();
            assert_eq!(hash::event_id(&hash, version), Some(built.id.clone()));
        }
    }

    #[test]
    fn too_much_is_refused() {
        let version = version("11");
        let refusal = |change: &dyn Fn(&mut Draft)| {
            let mut draft = message(version);
            change(&mut draft);
            build_in("11", draft).map(drop).map_err(|error| error.to_string()).unwrap_err()
        };
        assert_eq!(refusal(&|draft| draft.kind = "x".repeat(256)), "the event's type is over the limit of 255");
        assert_eq!(refusal(&|draft| draft.state_key = Some("é".repeat(128))), "the event's state_key is over the limit of 255");
        assert_eq!(
            refusal(&|draft| drop(draft.content.insert("body".to_owned(), json!("x".repeat(65_536))))),
            "the event's JSON is over the limit of 65536"
        );
        let many = |count| (0..count).map(|number| reference(version, number)).collect();
        assert_eq!(refusal(&|draft| draft.prev_events = many(21)), "the event's prev_events is over the limit of 20");
        assert_eq!(refusal(&|draft| draft.auth_events = many(11)), "the event's auth_events is over the limit of 10");
        assert_eq!(refusal(&|draft| drop(draft.content.insert("a".to_owned(), json!(1.5)))), "a number is not an integer");
        assert_eq!(refusal(&|draft| draft.origin_server_ts = u64::MAX), "an integer is out of range");
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(build_in("11", draft(version, "x", None, nested(100))).is_ok());
        assert_eq!(refusal(&|draft| draft.content = object(nested(101))), "JSON nested deeper than 100 levels");
    }

    #[test]
    fn drafts_must_fit_their_version() {
        let refused = |version_id: &str, change: &dyn Fn(&mut Draft)| {
            let mut draft = message(version(version_id));
            change(&mut draft);
            matches!(build_in(version_id, draft), Err(BuildError::Draft(_)))
        };
        assert!(refused("11", &|draft| draft.room_id = None), "only the create event of version 12 makes its room id");
        assert!(refused("12", &|draft| draft.kind = "m.room.create".to_owned()), "and it has none yet");
        assert!(refused("11", &|draft| draft.room_id = Some("!abc".try_into().unwrap())));
        assert!(refused("1", &|draft| draft.opaque_id = None));
        assert!(refused("3", &|draft| draft.opaque_id = Some("x".to_owned())));
        assert!(!refused("1", &|draft| draft.prev_events[0].hash = None), "templates of other servers leave it out");
        assert!(refused("11", &|draft| draft.redacts = Some(reference(version("11"), 1).id)));
        let redact = |draft: &mut Draft| {
            draft.kind = "m.room.redaction".to_owned();
            draft.redacts = Some("$1:alice.org".try_into().unwrap());
        };
        assert!(!refused("1", &redact));
        assert!(refused("11", &redact), "no event of this version has such an id");
        assert!(refused("4", &|draft| draft.prev_events = vec![reference(version("1"), 1)]));
    }

    #[test]
    fn a_redaction_may_name_its_event_in_its_content_from_version_11_on() {
        for version in RoomVersion::all() {
            let id = reference(version, 9).id;
            let built = build_in(version.id, draft(version, "m.room.redaction", None, json!({ "redacts": id }))).unwrap();
            assert_eq!(built.redacts, version.version_11.then_some(id), "version {}", version.id);
        }
    }

    #[test]
    fn depth_stops_at_what_the_version_allows() {
        for version in RoomVersion::all() {
            let mut draft = message(version);
            draft.depth = u64::MAX;
            let built = build_in(version.id, draft).unwrap();
            assert_eq!(built.depth, version.max_depth());
            assert_eq!(built.object().unwrap()["depth"], json!(version.max_depth()));
        }
    }
}
