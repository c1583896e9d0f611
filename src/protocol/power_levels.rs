//! Power levels of a room: who has which power, and which power an action needs.
//!
//! Specification: `m.room.power_levels` of the client-server API, "Definitions" of the authorisation rules, and
//! the deprecated formats (strings, floats) of the older room versions. A content is read once. A value that the version does not allow is an error, so that whoever asks for a permission
//! has to refuse.

mod format;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use ruma::UserId;
use serde_json::value::RawValue;

use crate::content::{Text, field, text_field};
use crate::event::Event;
use crate::version::RoomVersion;
use format::{Fields, Levels};

/// What the creator has in a room without `m.room.power_levels`.
const CREATOR_DEFAULT: i64 = 100;
/// What a kind of notification needs unless `notifications` says otherwise.
const NOTIFICATION_DEFAULT: i64 = 50;

/// The power of a user. Creators of version 12 rooms stand above every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// A level of `m.room.power_levels`, or a default.
    Level(i64),
    /// A creator of a room of version 12 on.
    Infinite,
}

impl PartialEq<i64> for Power {
    fn eq(&self, level: &i64) -> bool {
        *self == Power::Level(*level)
    }
}

impl PartialOrd<i64> for Power {
    fn partial_cmp(&self, level: &i64) -> Option<Ordering> {
        Some(self.cmp(&Power::Level(*level)))
    }
}

/// The content is not as the room version demands, so no permission can be derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed power levels: {0}")]
pub struct Malformed(
    /// The property at fault.
    pub &'static str,
);

/// The properties with one level each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// `users_default`
    UsersDefault,
    /// `events_default`
    EventsDefault,
    /// `state_default`
    StateDefault,
    /// `ban`
    Ban,
    /// `redact`
    Redact,
    /// `kick`
    Kick,
    /// `invite`
    Invite,
}

impl Named {
    /// All, in the order in which the authorisation rules list them.
    pub const ALL: [Named; 7] =
        [Named::UsersDefault, Named::EventsDefault, Named::StateDefault, Named::Ban, Named::Redact, Named::Kick, Named::Invite];

    /// The property's name in the content.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Named::UsersDefault => "users_default",
            Named::EventsDefault => "events_default",
            Named::StateDefault => "state_default",
            Named::Ban => "ban",
            Named::Redact => "redact",
            Named::Kick => "kick",
            Named::Invite => "invite",
        }
    }

    /// The level where the property or the whole event is absent.
    #[must_use]
    pub fn default_level(self) -> i64 {
        match self {
            Named::UsersDefault | Named::EventsDefault | Named::Invite => 0,
            Named::StateDefault | Named::Ban | Named::Redact | Named::Kick => 50,
        }
    }
}

/// The levels in an event's content, read when they are first asked for: a room's every event is judged by them.
#[derive(Default)]
pub(crate) struct Memo(OnceLock<Result<Fields, Malformed>>);

impl Memo {
    fn fields(&self, content: &RawValue) -> Result<&Fields, Malformed> {
        self.0.get_or_init(|| Fields::read(content)).as_ref().map_err(|malformed| *malformed)
    }
}

/// The copy of an event may get another content.
impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

/// The power levels of a room by its create and `m.room.power_levels` events.
#[derive(Clone, Copy)]
pub struct PowerLevels<'a> {
    version: &'a RoomVersion,
    create: Option<&'a Event>,
    /// `None`: the room has no `m.room.power_levels`.
    fields: Option<&'a Fields>,
}

impl<'a> PowerLevels<'a> {
    /// A view of the room's levels. `create` tells who the creators are; without it nobody is.
    ///
    /// # Errors
    /// Where the content is no object.
    pub fn new(version: &'a RoomVersion, create: Option<&'a Event>, power_levels: Option<&'a Event>) -> Result<Self, Malformed> {
        let fields = match power_levels {
            None => None,
            Some(event) => Some(event.levels.fields(&event.content)?),
        };
        Ok(PowerLevels { version, create, fields })
    }

    /// The user's power.
    ///
    /// # Errors
    /// Where the level that applies is malformed.
    pub fn user(&self, user: &UserId) -> Result<Power, Malformed> {
        let creator = || self.create.is_some_and(|create| is_creator(self.version, create, user));
        if self.version.version_12 && creator() {
            return Ok(Power::Infinite);
        }
        let Some(fields) = self.fields else {
            return Ok(Power::Level(if creator() { CREATOR_DEFAULT } else { Named::UsersDefault.default_level() }));
        };
        match self.entry(fields.users.as_ref(), "users", user.as_str())? {
            Some(level) => Ok(Power::Level(level)),
            None => self.named(Named::UsersDefault).map(Power::Level),
        }
    }

    /// What sending an event of this type needs ("required power level").
    ///
    /// # Errors
    /// Where the level that applies is malformed.
    pub fn event(&self, kind: &str, is_state: bool) -> Result<i64, Malformed> {
        let events = self.fields.and_then(|fields| fields.events.as_ref());
        match self.entry(events, "events", kind)? {
            Some(level) => Ok(level),
            None => self.named(if is_state { Named::StateDefault } else { Named::EventsDefault }),
        }
    }

    /// What banning needs.
    ///
    /// # Errors
    /// Where the level is malformed, as with the others.
    pub fn ban(&self) -> Result<i64, Malformed> {
        self.named(Named::Ban)
    }

    /// What kicking needs.
    ///
    /// # Errors
    /// Where the level is malformed.
    pub fn kick(&self) -> Result<i64, Malformed> {
        self.named(Named::Kick)
    }

    /// What inviting needs.
    ///
    /// # Errors
    /// Where the level is malformed.
    pub fn invite(&self) -> Result<i64, Malformed> {
        self.named(Named::Invite)
    }

    /// What redacting the events of others needs.
    ///
    /// # Errors
    /// Where the level is malformed.
    pub fn redact(&self) -> Result<i64, Malformed> {
        self.named(Named::Redact)
    }

    /// What causing a notification of this kind needs; `room` is that of `@room`.
    ///
    /// # Errors
    /// Where the level is malformed.
    pub fn notification(&self, kind: &str) -> Result<i64, Malformed> {
        let notifications = self.fields.and_then(|fields| fields.notifications.as_ref());
        Ok(self.entry(notifications, "notifications", kind)?.unwrap_or(NOTIFICATION_DEFAULT))
    }

    /// The property's level or its default.
    ///
    /// # Errors
    /// Where the level is malformed.
    pub fn named(&self, name: Named) -> Result<i64, Malformed> {
        Ok(self.explicit(name)?.unwrap_or(name.default_level()))
    }

    /// The property's level, or `None` where the content does not have it.
    ///
    /// # Errors
    /// Where the level is malformed.
    pub fn explicit(&self, name: Named) -> Result<Option<i64>, Malformed> {
        let level = self.fields.and_then(|fields| fields.named(name));
        level.map(|level| level.read(self.version).ok_or(Malformed(name.as_str()))).transpose()
    }

    /// All entries of `users`. The keys are as in the content: a user id each, where the event passed authorisation.
    ///
    /// # Errors
    /// Where it is no object of levels, as with the others.
    pub fn users(&self) -> Result<BTreeMap<&'a str, i64>, Malformed> {
        self.entries(self.fields.and_then(|fields| fields.users.as_ref()), "users")
    }

    /// All entries of `events`.
    ///
    /// # Errors
    /// Where it is no object of levels.
    pub fn events(&self) -> Result<BTreeMap<&'a str, i64>, Malformed> {
        self.entries(self.fields.and_then(|fields| fields.events.as_ref()), "events")
    }

    /// All entries of `notifications`.
    ///
    /// # Errors
    /// Where it is no object of levels.
    pub fn notifications(&self) -> Result<BTreeMap<&'a str, i64>, Malformed> {
        self.entries(self.fields.and_then(|fields| fields.notifications.as_ref()), "notifications")
    }

    fn entry(&self, levels: Option<&Levels>, name: &'static str, key: &str) -> Result<Option<i64>, Malformed> {
        let Some(levels) = levels else { return Ok(None) };
        let level = levels.as_ref().ok_or(Malformed(name))?.get(key);
        level.map(|level| level.read(self.version).ok_or(Malformed(name))).transpose()
    }

    fn entries(&self, levels: Option<&'a Levels>, name: &'static str) -> Result<BTreeMap<&'a str, i64>, Malformed> {
        let Some(levels) = levels else { return Ok(BTreeMap::new()) };
        let levels = levels.as_ref().ok_or(Malformed(name))?.iter();
        levels.map(|(key, level)| Ok((&**key, level.read(self.version).ok_or(Malformed(name))?))).collect()
    }
}

/// Whether the user is a creator of the room: the create event's `creator` until version 10, its sender in 11, and
/// its sender and `additional_creators` in 12.
#[must_use]
pub fn is_creator(version: &RoomVersion, create: &Event, user: &UserId) -> bool {
    if !version.version_11 {
        return text_field(&create.content, "creator").is_some_and(|creator| creator == user.as_str());
    }
    create.sender == user || (version.version_12 && additional_creators(create).iter().any(|id| id.0 == user.as_str()))
}

/// The `additional_creators` of a version 12 room. The rules for create events hold that they are user ids.
fn additional_creators(create: &Event) -> Vec<Text<'_>> {
    field(&create.content, "additional_creators").and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::scenario::{Draft, user};

    /// A version, alice's create event and perhaps power levels.
    fn room(version: &str, levels: Option<Value>) -> (&'static RoomVersion, Arc<Event>, Option<Arc<Event>>) {
        let version = RoomVersion::named(version).unwrap();
        let create = Draft::create(version, &json!({ "additional_creators": ["@carol:c"] })).build();
        let levels = levels.map(|levels| Draft::new(version, "$l:a", "alice", "m.room.power_levels", Some(""), levels).build());
        (version, create, levels)
    }

    #[test]
    fn without_an_event_the_creator_has_100_and_others_nothing() {
        for version in ["1", "10", "11"] {
            let (version, create, _) = room(version, None);
            let levels = PowerLevels::new(version, Some(&create), None).unwrap();
            assert_eq!(levels.user(&user("alice")), Ok(Power::Level(100)));
            assert_eq!(levels.user(&user("carol")), Ok(Power::Level(0)));
            assert_eq!([levels.ban(), levels.kick(), levels.redact()], [Ok(50); 3]);
            assert_eq!(levels.invite(), Ok(0));
            assert_eq!(levels.event("m.room.topic", true), Ok(50));
            assert_eq!(levels.event("m.room.message", false), Ok(0));
            assert_eq!(levels.notification("room"), Ok(50));
            assert_eq!(PowerLevels::new(version, None, None).unwrap().user(&user("alice")), Ok(Power::Level(0)));
        }
    }

    #[test]
    fn creators_of_version_12_are_above_every_level() {
        for content in [None, Some(json!({ "users": { "@alice:a": 1 }, "users_default": i64::MAX }))] {
            let (version, create, levels) = room("12", content);
            let levels = PowerLevels::new(version, Some(&create), levels.as_deref()).unwrap();
            for creator in ["alice", "carol"] {
                assert_eq!(levels.user(&user(creator)), Ok(Power::Infinite));
                assert!(levels.user(&user(creator)).unwrap() > i64::MAX);
            }
            assert!(levels.user(&user("bob")).unwrap() < Power::Infinite);
        }
    }

    #[test]
    fn an_event_gives_entries_before_defaults() {
        let content = json!({
            "users": { "@bob:b": 7 }, "users_default": 1, "events": { "m.room.name": 3 }, "events_default": 2, "state_default": 4,
            "ban": 11, "kick": 12, "invite": 13, "redact": 14, "notifications": { "room": 20 },
        });
        let (version, create, event) = room("11", Some(content));
        let levels = PowerLevels::new(version, Some(&create), event.as_deref()).unwrap();
        assert_eq!(levels.user(&user("bob")), Ok(Power::Level(7)));
        assert_eq!(levels.user(&user("alice")), Ok(Power::Level(1)), "the creator is no exception");
        assert_eq!([levels.ban(), levels.kick(), levels.invite(), levels.redact()], [Ok(11), Ok(12), Ok(13), Ok(14)]);
        assert_eq!([levels.event("m.room.name", true), levels.event("m.room.name", false)], [Ok(3); 2]);
        assert_eq!([levels.event("x", true), levels.event("x", false)], [Ok(4), Ok(2)]);
        assert_eq!([levels.notification("room"), levels.notification("x")], [Ok(20), Ok(50)]);
        assert_eq!(levels.users().unwrap(), BTreeMap::from([("@bob:b", 7)]));
    }

    #[test]
    fn old_versions_read_strings_and_floats() {
        let cases = [
            (json!("100"), Some(100), Some(100)),
            (json!(" -0012\n"), Some(-12), Some(-12)),
            (json!("+7"), Some(7), Some(7)),
            (json!(50.57), Some(50), None),
            (json!(-50.57), Some(-50), None),
            (json!(5.114_698e4), Some(51146), None),
            (json!(1e300), Some(i64::MAX), None),
            (json!(u64::MAX), Some(i64::MAX), None),
            (json!("1.5"), None, None),
            (json!(null), None, None),
            (json!(true), None, None),
        ];
        for (value, floaty, stringy) in cases {
            for (version, expected) in [("1", floaty), ("5", floaty), ("6", stringy), ("9", stringy), ("10", None), ("12", None)]
            {
                let (version, create, event) = room(version, Some(json!({ "ban": value, "users": { "@bob:b": value } })));
                let levels = PowerLevels::new(version, Some(&create), event.as_deref()).unwrap();
                assert_eq!(levels.ban(), expected.ok_or(Malformed("ban")), "version {} {value}", version.id);
                assert_eq!(levels.user(&user("bob")), expected.map(Power::Level).ok_or(Malformed("users")));
            }
        }
    }
}
