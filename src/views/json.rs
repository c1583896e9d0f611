//! Events that consist of a type and a content only: account data, typing notifications, receipts.

use protocol::json::JsonError;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::Result;

/// An event of this type.
pub(crate) fn event(kind: &str, content: impl Serialize) -> Result<Box<RawValue>> {
    #[derive(Serialize)]
    struct Event<'a, C> {
        #[serde(rename = "type")]
        kind: &'a str,
        content: C,
    }
    raw_of(&Event { kind, content })
}

/// Any value as JSON.
pub(crate) fn raw_of(value: &impl Serialize) -> Result<Box<RawValue>> {
    Ok(to_raw_value(value).map_err(JsonError::from).map_err(rooms::Error::from)?)
}

/// Stored JSON text as a value that is copied and not looked into.
pub(crate) fn raw(text: &str) -> Result<&RawValue> {
    Ok(serde_json::from_str(text).map_err(JsonError::from).map_err(rooms::Error::from)?)
}
