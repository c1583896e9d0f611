//! How power levels are written: integers, and in older room versions also strings and floats.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::content::Text;
use crate::version::RoomVersion;

/// How a room version writes levels.
#[derive(Clone, Copy)]
pub(super) enum LevelFormat {
    /// From version 10 on: integers.
    Integer,
    /// Versions 6 to 9: also integers in strings, with sign and white space.
    String,
    /// Versions 1 to 5: also floats, truncated.
    Float,
}

impl LevelFormat {
    pub(super) fn of(version: &RoomVersion) -> Self {
        if version.integer_power_levels {
            LevelFormat::Integer
        } else if version.strict_json {
            LevelFormat::String
        } else {
            LevelFormat::Float
        }
    }

    /// Reads one level.
    pub(super) fn level(self, value: &RawValue) -> serde_json::Result<i64> {
        self.deserialize(&mut serde_json::Deserializer::from_str(value.get()))
    }

    /// Reads one entry of an object of levels; the others may be malformed.
    pub(super) fn entry(self, map: &RawValue, key: &str) -> serde_json::Result<Option<i64>> {
        serde_json::Deserializer::from_str(map.get()).deserialize_map(EntryVisitor { key, format: self })
    }

    /// Reads an object of levels.
    pub(super) fn entries(self, map: &RawValue) -> serde_json::Result<BTreeMap<Cow<'_, str>, i64>> {
        serde_json::Deserializer::from_str(map.get()).deserialize_map(EntriesVisitor { format: self })
    }
}

impl<'de> DeserializeSeed<'de> for LevelFormat {
    type Value = i64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for LevelFormat {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a power level")
    }

    fn visit_i64<E: Error>(self, level: i64) -> Result<i64, E> {
        Ok(level)
    }

    fn visit_u64<E: Error>(self, level: u64) -> Result<i64, E> {
        match self {
            LevelFormat::Float => Ok(i64::try_from(level).unwrap_or(i64::MAX)),
            LevelFormat::Integer | LevelFormat::String => i64::try_from(level).map_err(E::custom),
        }
    }

    fn visit_f64<E: Error>(self, level: f64) -> Result<i64, E> {
        match self {
            // A cast to an integer truncates, and saturates at what an `i64` can hold.
            LevelFormat::Float => Ok(level as i64),
            LevelFormat::Integer | LevelFormat::String => Err(E::custom("a float")),
        }
    }

    fn visit_str<E: Error>(self, level: &str) -> Result<i64, E> {
        match self {
            LevelFormat::Integer => Err(E::custom("a string")),
            LevelFormat::String | LevelFormat::Float => level.trim().parse().map_err(E::custom),
        }
    }
}

struct EntryVisitor<'k> {
    key: &'k str,
    format: LevelFormat,
}

impl<'de> Visitor<'de> for EntryVisitor<'_> {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of power levels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(key)) = map.next_key()? {
            if key == self.key {
                found = Some(map.next_value_seed(self.format)?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct EntriesVisitor {
    format: LevelFormat,
}

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = BTreeMap<Cow<'de, str>, i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of power levels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(Text(key)) = map.next_key()? {
            entries.insert(key, map.next_value_seed(self.format)?);
        }
        Ok(entries)
    }
}
