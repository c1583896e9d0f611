//! Which events a client wants: one place for `/sync`, `/messages`, `/context` and search.
//!
//! Specification: client-server API, "Filtering".

use protocol::event::Event;
use ruma::{
    RoomId, UserId,
    api::client::filter::{Filter, LazyLoadOptions, RoomEventFilter, RoomFilter, UrlFilter},
};
use serde::Deserialize;

/// The most events of a timeline or page, whatever a filter asks for.
pub const LIMIT_MAX: usize = 1_000;

/// How many events a filter asks for.
#[must_use]
pub fn limit(filter: &RoomEventFilter, default: usize) -> usize {
    filter.limit.map_or(default, |limit| usize::try_from(u64::from(limit)).unwrap_or(LIMIT_MAX)).min(LIMIT_MAX)
}

/// Whether a filter of rooms lets this room through.
#[must_use]
pub fn wants_room(filter: &RoomFilter, room: &RoomId) -> bool {
    in_lists(filter.rooms.as_deref(), &filter.not_rooms, |listed| listed == room)
}

/// Whether a filter of events lets events of this room through.
#[must_use]
pub fn wants_events_of(filter: &RoomEventFilter, room: &RoomId) -> bool {
    in_lists(filter.rooms.as_deref(), &filter.not_rooms, |listed| listed == room)
}

/// Whether a filter lets this event of a room that it [`wants_events_of`] through.
#[must_use]
pub fn wants(filter: &RoomEventFilter, event: &Event) -> bool {
    wants_kind(filter, &event.kind)
        && in_lists(filter.senders.as_deref(), &filter.not_senders, |listed| *listed == event.sender)
        && match filter.url_filter {
            None => true,
            Some(UrlFilter::EventsWithUrl) => has_url(event),
            Some(UrlFilter::EventsWithoutUrl) => !has_url(event),
        }
}

/// Whether a filter lets events of this type through that have no sender: account data, typing, receipts.
#[must_use]
pub fn wants_kind(filter: &RoomEventFilter, kind: &str) -> bool {
    in_lists(filter.types.as_deref(), &filter.not_types, |pattern| matches(pattern, kind))
}

/// [`wants_kind`] for what is in no room, with its sender if it has one.
#[must_use]
pub fn wants_global(filter: &Filter, kind: &str, sender: Option<&UserId>) -> bool {
    in_lists(filter.types.as_deref(), &filter.not_types, |pattern| matches(pattern, kind))
        && sender.is_none_or(|sender| in_lists(filter.senders.as_deref(), &filter.not_senders, |listed| listed == sender))
}

/// Whether members are sent only as they are needed, and whether those sent before are sent again
/// ("Lazy-loading room members").
#[must_use]
pub fn lazy_members(filter: &RoomEventFilter) -> Option<Redundant> {
    match filter.lazy_load_options {
        LazyLoadOptions::Disabled => None,
        LazyLoadOptions::Enabled { include_redundant_members: true } => Some(Redundant::Send),
        LazyLoadOptions::Enabled { include_redundant_members: false } => Some(Redundant::Omit),
    }
}

/// What becomes of a member event that the device has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redundant {
    /// It may be left out.
    Omit,
    /// It is sent again.
    Send,
}

/// What is excluded is out even where it is included too. An empty list of inclusions includes nothing.
fn in_lists<T>(included: Option<&[T]>, excluded: &[T], is: impl Fn(&T) -> bool) -> bool {
    !excluded.iter().any(&is) && included.is_none_or(|included| included.iter().any(&is))
}

/// Whether a type matches a pattern in which `*` stands for any sequence of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    // Each part is found as far left as possible, so nothing is tried twice.
    while let Some((part, more)) = rest.split_once('*') {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
        rest = more;
    }
    text.ends_with(rest)
}

fn has_url(event: &Event) -> bool {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "url")]
        _url: String,
    }
    event.content.get().contains("\"url\"") && serde_json::from_str::<Content>(event.content.get()).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use ruma::{api::client::filter::FilterDefinition, room_id, user_id};
    use serde_json::json;

    use super::*;

    fn filter(json: serde_json::Value) -> RoomEventFilter {
        serde_json::from_value(json).unwrap()
    }

    proptest! {
        /// A valid filter with some characters replaced.
        #[test]
        fn a_changed_filter_is_refused_or_reads_as_its_print(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..4)) {
            let valid = r#"{"event_fields":["type","content.body"],"event_format":"client","presence":{"limit":5,"types":["m.*"]},"room":{"rooms":["!a:b"],"include_leave":true,"timeline":{"limit":10,"lazy_load_members":true,"not_senders":["@a:b"],"contains_url":false}}}"#;
            let mut letters: Vec<char> = valid.chars().collect();
            for (index, letter) in changes {
                let at = index.index(letters.len());
                letters[at] = letter;
            }
            let text: String = letters.into_iter().collect();
            if let Ok(read) = serde_json::from_str::<FilterDefinition>(&text) {
                let printed = serde_json::to_string(&read).unwrap();
                let again: FilterDefinition = serde_json::from_str(&printed).unwrap();
                prop_assert_eq!(serde_json::to_string(&again).unwrap(), printed);
                prop_assert!(limit(&read.room.timeline, 20) <= LIMIT_MAX);
                for kind in ["m.room.message", "", "*"] {
                    prop_assert_eq!(wants_kind(&read.room.timeline, kind), wants_kind(&again.room.timeline, kind));
                }
            }
        }

        #[test]
        fn patterns_match_as_regular_expressions_do(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| slow(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
                }
            }
            prop_assert_eq!(matches(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn what_is_excluded_is_out_even_if_included() {
        let types = filter(json!({ "types": ["m.room.*"], "not_types": ["m.room.member"] }));
        assert!(wants_kind(&types, "m.room.name"));
        assert!(!wants_kind(&types, "m.room.member") && !wants_kind(&types, "m.sticker"));
        assert!(!wants_kind(&filter(json!({ "types": [] })), "m.room.name"));
        let rooms = filter(json!({ "rooms": ["!a:x"], "not_rooms": ["!b:x"] }));
        assert!(wants_events_of(&rooms, room_id!("!a:x")));
        assert!(!wants_events_of(&rooms, room_id!("!b:x")) && !wants_events_of(&rooms, room_id!("!c:x")));
        let global: Filter = serde_json::from_value(json!({ "not_senders": ["@a:x"], "types": ["m.presence"] })).unwrap();
        assert!(wants_global(&global, "m.presence", Some(user_id!("@b:x"))));
        assert!(!wants_global(&global, "m.presence", Some(user_id!("@a:x"))) && !wants_global(&global, "m.tag", None));
    }

    #[test]
    fn limits_have_a_default_and_a_maximum() {
        assert_eq!(limit(&filter(json!({})), 10), 10);
        assert_eq!(limit(&filter(json!({ "limit": 3 })), 10), 3);
        assert_eq!(limit(&filter(json!({ "limit": 1_000_000 })), 10), LIMIT_MAX);
    }
}
