//! How power levels are written: integers, and in older room versions also strings and floats.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

use super::{Malformed, Named};
use crate::content::Text;
use crate::version::RoomVersion;

/// A value where a level is expected, whatever room version it is of.
pub(super) enum Level {
    Integer(i64),
    /// An integer above all levels.
    Large,
    Float(f64),
    Text(Box<str>),
    /// What is a level in no version.
    Other,
}

impl Level {
    fn of(value: &RawValue) -> Self {
        match serde_json::from_str(value.get()) {
            Ok(Value::String(text)) => Level::Text(text.into()),
            Ok(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Level::Integer(integer),
                (None, _) if number.is_u64() => Level::Large,
                (None, Some(float)) => Level::Float(float),
                (None, None) => Level::Other,
            },
            _ => Level::Other,
        }
    }

    /// The level, where the version has this format.
    pub(super) fn read(&self, version: &RoomVersion) -> Option<i64> {
        let (texts, floats) = (!version.integer_power_levels, !version.strict_json);
        match self {
            Level::Integer(level) => Some(*level),
            // Versions 6 to 9: also integers in strings, with sign and white space.
            Level::Text(text) if texts => text.trim().parse().ok(),
            // Versions 1 to 5: also floats, truncated. A cast to an integer truncates, and saturates at what an `i64` can hold.
            Level::Float(level) if floats => Some(*level as i64),
            Level::Large if floats => Some(i64::MAX),
            _ => None,
        }
    }
}

/// An object of levels; `None` where there is something else. Some of the levels may be malformed.
pub(super) type Levels = Option<BTreeMap<Box<str>, Level>>;

fn levels(map: &RawValue) -> Levels {
    let entries: BTreeMap<Text<'_>, &RawValue> = serde_json::from_str(map.get()).ok()?;
    Some(entries.into_iter().map(|(key, value)| (key.0.into(), Level::of(value))).collect())
}

/// The content of an `m.room.power_levels`, read once.
pub(super) struct Fields {
    named: [Option<Level>; Named::ALL.len()],
    pub(super) users: Option<Levels>,
    pub(super) events: Option<Levels>,
    pub(super) notifications: Option<Levels>,
}

impl Fields {
    pub(super) fn read(content: &RawValue) -> Result<Self, Malformed> {
        let raw: RawFields<'_> = serde_json::from_str(content.get()).map_err(|_| Malformed("content"))?;
        let named = [raw.users_default, raw.events_default, raw.state_default, raw.ban, raw.redact, raw.kick, raw.invite];
        let [users, events, notifications] = [raw.users, raw.events, raw.notifications].map(|map| map.map(levels));
        Ok(Fields { named: named.map(|value| value.map(Level::of)), users, events, notifications })
    }

    pub(super) fn named(&self, name: Named) -> Option<&Level> {
        self.named.get(name as usize).and_then(Option::as_ref)
    }
}

/// The top level of the content, each value unread. A `null` is present, and no level.
#[derive(Deserialize)]
struct RawFields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    users_default: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    events_default: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    state_default: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ban: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    redact: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    kick: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    invite: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    users: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    events: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    notifications: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
