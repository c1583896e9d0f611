//! Canonical JSON: reading objects from untrusted bytes, and writing the one form that hashes and signatures cover.
//!
//! Specification: appendices, "Canonical JSON", and "Canonical JSON" of each room version.
//!
//! Objects are `serde_json` maps, which are sorted by the bytes of their keys; in UTF-8 that is the order of code
//! points that the specification asks for. Where an object names a key twice the last value counts, as in the other
//! servers; what is hashed, stored and forwarded is written anew from the map, so nobody sees the first value.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::version::RoomVersion;

/// A JSON object: sorted by key, each key once.
pub type Object = Map<String, Value>;

/// The greatest integer of canonical JSON, 2^53 - 1; the least is its negative.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// From this magnitude, 2^63, on `serde_json` may have read an integer as a float and lost digits.
const INEXACT_FROM: f64 = 9_223_372_036_854_775_808.0;

/// Why JSON cannot be read, or has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The bytes are not JSON, not an object, not UTF-8, or nested deeper than 127 levels.
    #[error("not a JSON object: {0}")]
    Syntax(#[from] serde_json::Error),
    /// The bytes are more than the caller's limit.
    #[error("JSON of {length} bytes, more than {limit}")]
    TooLarge {
        /// The length in bytes.
        length: usize,
        /// The most that the caller takes, in bytes.
        limit: usize,
    },
    /// A number with a fraction or exponent, or negative zero, where only integers are allowed.
    #[error("a number is not an integer")]
    Float,
    /// Arrays and objects are nested deeper than the caller's limit.
    #[error("JSON nested deeper than {limit} levels")]
    TooDeep {
        /// The deepest nesting that the caller takes.
        limit: usize,
    },
    /// An integer beyond 2^53 - 1 either way, or, in old room versions, one that 64 bits cannot hold.
    #[error("an integer is out of range")]
    Range,
}

/// Which numbers have a canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Room version 6 on: integers within 53 bits, nothing else.
    Strict,
    /// JSON outside of events: as `Strict`, but whole numbers written as `1e10` or `-0` become integers, as the
    /// examples of the appendix do.
    Normalised,
    /// Room versions 1 to 5: also 64-bit integers, and floats in the form that Synapse gives them. It made nearly all
    /// such events, its hashes cover that form, and `50.0` must stay what it is to match them.
    Lenient,
}

impl Numbers {
    /// What events of this room version may contain.
    #[must_use]
    pub fn of(version: &RoomVersion) -> Self {
        if version.strict_json { Self::Strict } else { Self::Lenient }
    }
}

/// Reads one JSON object of at most `limit` bytes.
///
/// # Errors
/// [`JsonError::TooLarge`] and [`JsonError::Syntax`].
pub fn parse_object(bytes: &[u8], limit: usize) -> Result<Object, JsonError> {
    if bytes.len() > limit {
        return Err(JsonError::TooLarge { length: bytes.len(), limit });
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// How deep the arrays and objects of an object are nested: 1 where it has none.
#[must_use]
pub fn nesting(object: &Object) -> usize {
    1 + object.values().map(value_nesting).max().unwrap_or(0)
}

fn value_nesting(value: &Value) -> usize {
    match value {
        Value::Object(object) => nesting(object),
        Value::Array(items) => 1 + items.iter().map(value_nesting).max().unwrap_or(0),
        _ => 0,
    }
}

/// The canonical form of a value outside of events ([`Numbers::Normalised`]).
///
/// # Errors
/// [`JsonError::Float`] and [`JsonError::Range`].
pub fn canonical(value: &Value) -> Result<String, JsonError> {
    let mut out = String::new();
    write_value(&mut out, value, Numbers::Normalised)?;
    Ok(out)
}

/// The canonical form of an object without some of its keys: hashes and signatures each leave some out.
///
/// # Errors
/// [`JsonError::Float`] and [`JsonError::Range`], as `numbers` has it.
pub fn canonical_without(object: &Object, left_out: &[&str], numbers: Numbers) -> Result<String, JsonError> {
    let mut out = String::with_capacity(1024);
    let entries = object.iter().filter(|(key, _)| !left_out.contains(&key.as_str()));
    write_object(&mut out, entries, numbers)?;
    Ok(out)
}

/// The canonical form of a whole object.
///
/// # Errors
/// [`JsonError::Float`] and [`JsonError::Range`], as `numbers` has it.
pub fn canonical_object(object: &Object, numbers: Numbers) -> Result<String, JsonError> {
    canonical_without(object, &[], numbers)
}

fn write_value(out: &mut String, value: &Value, numbers: Numbers) -> Result<(), JsonError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number, numbers)?,
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item, numbers)?;
            }
            out.push(']');
        }
        Value::Object(object) => write_object(out, object.iter(), numbers)?,
    }
    Ok(())
}

fn write_object<'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a String, &'a Value)>,
    numbers: Numbers,
) -> Result<(), JsonError> {
    out.push('{');
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        write_value(out, value, numbers)?;
    }
    out.push('}');
    Ok(())
}

/// Writes a string in quotes, with the escapes of the grammar and no others.
pub(crate) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // What is escaped is ASCII, so both ends lie between characters.
        out.push_str(&text[plain_from..index]);
        plain_from = index + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            0x08 => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            0x0C => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            control => {
                out.push_str("\\u00");
                out.push(if control < 0x10 { '0' } else { '1' });
                out.push(char::from(b"0123456789abcdef"[usize::from(control & 0x0F)]));
            }
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

fn write_number(out: &mut String, number: &serde_json::Number, numbers: Numbers) -> Result<(), JsonError> {
    let text = if let Some(integer) = number.as_i64() {
        if numbers != Numbers::Lenient && !(-MAX_INTEGER..=MAX_INTEGER).contains(&integer) {
            return Err(JsonError::Range);
        }
        integer.to_string()
    } else if let Some(integer) = number.as_u64() {
        if numbers != Numbers::Lenient {
            return Err(JsonError::Range);
        }
        integer.to_string()
    } else {
        let float = number.as_f64().ok_or(JsonError::Float)?;
        match numbers {
            Numbers::Strict => return Err(JsonError::Float),
            Numbers::Normalised => whole(float)?,
            Numbers::Lenient => lenient_float(float)?,
        }
    };
    out.push_str(&text);
    Ok(())
}

/// A whole float as the integer that it is.
fn whole(float: f64) -> Result<String, JsonError> {
    // 2^53 is exact as a float, and all whole floats below it are exact integers.
    if float.fract() != 0.0 {
        Err(JsonError::Float)
    } else if float.abs() >= 9_007_199_254_740_992.0 {
        Err(JsonError::Range)
    } else if float == 0.0 {
        Ok("0".to_owned())
    } else {
        Ok(format!("{float:.0}"))
    }
}

/// A float as Python writes it: the shortest digits that read back the same, an exponent from 1e16 and below 1e-4.
fn lenient_float(float: f64) -> Result<String, JsonError> {
    if float.abs() >= INEXACT_FROM {
        return Err(JsonError::Range);
    }
    if float == 0.0 {
        // `-0` is an integer to Python and a float to serde_json, which cannot tell it from `-0.0`.
        return Ok(if float.is_sign_negative() { "0" } else { "0.0" }.to_owned());
    }
    let magnitude = float.abs();
    if (1e-4..1e16).contains(&magnitude) {
        let text = float.to_string();
        return Ok(if text.contains('.') { text } else { format!("{text}.0") });
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').ok_or(JsonError::Float)?;
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    Ok(format!("{digits}e{sign}{exponent:0>2}"))
}

/// Reads `null` as an empty list or map, which is how servers written in Go answer one: for `#[serde(deserialize_with)]`.
///
/// # Errors
/// As the value.
pub fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn null_is_an_empty_list_where_it_may_be() {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default, deserialize_with = "null_is_empty")]
            list: Vec<u8>,
        }
        for (text, list) in [("{\"list\":null}", vec![]), ("{}", vec![]), ("{\"list\":[1]}", vec![1])] {
            assert_eq!(serde_json::from_str::<Answer>(text).unwrap().list, list);
        }
        assert!(serde_json::from_str::<Answer>("{\"list\":0}").is_err());
    }

    fn lenient(text: &str) -> Result<String, JsonError> {
        canonical_object(&parse_object(text.as_bytes(), 4096)?, Numbers::Lenient)
    }

    fn strict(text: &str) -> Result<String, JsonError> {
        canonical_object(&parse_object(text.as_bytes(), 4096)?, Numbers::Strict)
    }

    #[test]
    fn the_examples_of_the_appendix_hold() {
        let nested = r#"{ "auth": { "success": true, "mxid": "@john.doe:example.com", "profile": { "display_name": "John Doe",
            "three_pids": [ { "medium": "email", "address": "john.doe@example.org" },
                            { "medium": "msisdn", "address": "123456789" } ] } } }"#;
        let examples = [
            ("{}", "{}"),
            (r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#),
            (r#"{ "b": "2", "a": "1" }"#, r#"{"a":"1","b":"2"}"#),
            (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
            (
                nested,
                r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
            ),
            (r#"{ "a": "日本語" }"#, r#"{"a":"日本語"}"#),
            (r#"{ "本": 2, "日": 1 }"#, r#"{"日":1,"本":2}"#),
            (r#"{ "a": "\u65E5" }"#, r#"{"a":"日"}"#),
            (r#"{ "a": null }"#, r#"{"a":null}"#),
            (r#"{ "a": -0, "b": 1e10 }"#, r#"{"a":0,"b":10000000000}"#),
        ];
        for (text, expected) in examples {
            assert_eq!(canonical(&read(text)).unwrap(), expected);
        }
    }

    #[test]
    fn maps_are_sorted_however_they_were_filled() {
        // Would fail if a dependency switched on the feature `preserve_order` of serde_json.
        let mut object = Object::new();
        for key in ["b", "\u{10000}", "a", "\u{FFFF}", "Z", "aa"] {
            object.insert(key.to_owned(), Value::Null);
        }
        let order: Vec<_> = object.keys().map(String::as_str).collect();
        assert_eq!(order, ["Z", "a", "aa", "b", "\u{FFFF}", "\u{10000}"], "by code point, not by UTF-16 unit");
    }

    #[test]
    fn strings_are_escaped_as_the_grammar_says_and_no_more() {
        let text = "\u{0}\u{7}\u{8}\t\n\u{b}\u{c}\r\u{e}\u{1f} \"\\/\u{7f}é\u{2028}";
        let expected = "\"\\u0000\\u0007\\b\\t\\n\\u000b\\f\\r\\u000e\\u001f \\\"\\\\/\u{7f}é\u{2028}\"";
        assert_eq!(canonical(&Value::String(text.to_owned())).unwrap(), expected);
    }

    #[test]
    fn strict_json_has_only_integers_of_53_bits() {
        assert_eq!(
            strict(r#"{"a":9007199254740991,"b":-9007199254740991}"#).unwrap(),
            r#"{"a":9007199254740991,"b":-9007199254740991}"#
        );
        for out_of_range in ["9007199254740992", "-9007199254740992", "9223372036854775807", "18446744073709551615"] {
            let refused = strict(&format!("{{\"a\":[{out_of_range}]}}"));
            assert!(matches!(refused, Err(JsonError::Range)), "{out_of_range}: {refused:?}");
        }
        for float in ["1.5", "1.0", "1e10", "-0", "-0.0", "18446744073709551616", "1e400"] {
            assert!(strict(&format!("{{\"a\":{float}}}")).is_err(), "{float}");
        }
    }

    #[test]
    fn integers_never_pass_through_floats() {
        let text = r#"{"a":9223372036854775807,"b":-9223372036854775808,"c":18446744073709551615,"d":9007199254740993}"#;
        assert_eq!(lenient(text).unwrap(), text, "old room versions keep every digit of 64-bit integers");
        assert!(
            matches!(lenient(r#"{"a":18446744073709551616}"#), Err(JsonError::Range)),
            "larger ones are refused rather than rounded"
        );
    }

    #[test]
    fn old_room_versions_keep_floats_as_python_writes_them() {
        // The right column is what `json.dumps` of Python gives for the left.
        let floats = [
            ("50.0", "50.0"),
            ("1e10", "10000000000.0"),
            ("0.5", "0.5"),
            ("-1.25", "-1.25"),
            ("0.1", "0.1"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.5e17", "1.5e+17"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.25e-7", "1.25e-07"),
            ("1e-100", "1e-100"),
            ("123456789.123456789", "123456789.12345679"),
            ("0.0", "0.0"),
            ("-0", "0"),
        ];
        for (text, expected) in floats {
            assert_eq!(lenient(&format!("{{\"a\":{text}}}")).unwrap(), format!("{{\"a\":{expected}}}"));
        }
    }

    #[test]
    fn t10_of_a_key_named_twice_the_last_value_counts() {
        assert_eq!(strict(r#"{"a":1,"b":{"c":1,"c":2},"a":3}"#).unwrap(), r#"{"a":3,"b":{"c":2}}"#);
    }

    #[test]
    fn nesting_is_counted_in_levels() {
        for (text, levels) in [("{}", 1), (r#"{"a":1}"#, 1), (r#"{"a":[]}"#, 2), (r#"{"a":{"b":[{}]},"c":[1]}"#, 4)] {
            assert_eq!(nesting(&parse_object(text.as_bytes(), 64).unwrap()), levels, "{text}");
        }
    }

    #[test]
    fn what_is_too_long_too_deep_or_no_object_is_refused() {
        assert!(matches!(parse_object(b"{\"a\":1}", 6), Err(JsonError::TooLarge { length: 7, limit: 6 })));
        let nested = |levels: usize| format!("{}{}{}", "{\"a\":".repeat(levels), 1, "}".repeat(levels));
        assert!(parse_object(nested(127).as_bytes(), 4096).is_ok());
        assert!(parse_object(nested(128).as_bytes(), 4096).is_err());
        let bomb = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(parse_object(bomb.as_bytes(), 1 << 20).is_err());
        for text in ["", "[]", "1", "{} {}", "{\"a\":NaN}", "{\"a\":01}", "{\"a\":\"\\ud800\"}", "{'a':1}", "{\"a\":\"\n\"}"] {
            assert!(matches!(parse_object(text.as_bytes(), 4096), Err(JsonError::Syntax(_))), "{text}");
        }
        assert!(parse_object(b"{\"a\":\"\xFF\"}", 4096).is_err(), "not UTF-8");
    }
}
