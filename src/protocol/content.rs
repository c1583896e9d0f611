//! Reading single fields of an event's content without building it.
//!
//! Authorisation looks at one or two fields of contents that may be 64 KiB, so fields are found by one pass
//! that allocates nothing and skips what it does not want.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The field's JSON, or `None` where the content is no object or has no such field.
pub(crate) fn field<'a>(content: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    serde_json::Deserializer::from_str(content.get()).deserialize_map(FieldVisitor { name }).ok().flatten()
}

/// The field where it is a string.
pub(crate) fn text_field<'a>(content: &'a RawValue, name: &str) -> Option<Cow<'a, str>> {
    field(content, name).and_then(text)
}

/// The value where it is a string, borrowed unless it has escapes.
pub(crate) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// A string that borrows from its JSON where it can.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(value.to_owned())))
    }
}

struct FieldVisitor<'n> {
    name: &'n str,
}

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(key)) = map.next_key()? {
            if key == self.name {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn fields_are_found_by_their_decoded_name() {
        let content = raw(r#"{"a":{"b":1},"c\u0061":"x\ny","n":null}"#);
        assert_eq!(field(&content, "a").unwrap().get(), r#"{"b":1}"#);
        assert_eq!(text_field(&content, "ca").unwrap(), "x\ny");
        assert_eq!(field(&content, "n").unwrap().get(), "null");
        assert!(field(&content, "b").is_none());
        assert!(text_field(&content, "a").is_none());
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for json in ["[]", "1", "null", "\"a\""] {
            assert!(field(&raw(json), "a").is_none(), "{json}");
        }
    }
}
