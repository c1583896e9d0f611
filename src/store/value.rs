//! The value codec. Every value begins with a format byte, so that a migration can tell old rows from new ones.

use serde::{Serialize, de::DeserializeOwned};

/// The format byte of [`postcard`] rows.
const POSTCARD: u8 = 1;
/// The format byte of JSON rows.
const JSON: u8 = 2;

/// What a table's rows hold.
pub trait Value: Sized {
    /// Appends the encoding; `None` where the value has none.
    fn encode(&self, out: &mut Vec<u8>) -> Option<()>;
    /// Reads all of `bytes`; `None` where they are no such value.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Plain types are stored compactly by position: a changed struct needs a migration.
impl<T: Serialize + DeserializeOwned> Value for T {
    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        out.push(POSTCARD);
        let taken = std::mem::take(out);
        *out = postcard::to_extend(self, taken).ok()?;
        Some(())
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&POSTCARD, body) = bytes.split_first()? else { return None };
        postcard::from_bytes(body).ok()
    }
}

/// A type whose shape the specification owns, or which holds JSON itself: stored as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Value for Json<T> {
    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        out.push(JSON);
        serde_json::to_writer(out, &self.0).ok()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&JSON, body) = bytes.split_first()? else { return None };
        serde_json::from_slice(body).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_come_back(value in any::<(u64, String, Option<i32>, Vec<u8>)>()) {
            let mut bytes = Vec::new();
            value.encode(&mut bytes).unwrap();
            prop_assert_eq!(<(u64, String, Option<i32>, Vec<u8>)>::decode(&bytes).unwrap(), value);
        }

        #[test]
        fn no_bytes_panic_the_decoder(bytes in any::<Vec<u8>>()) {
            let _ = <(u64, String, Option<i32>)>::decode(&bytes);
            let _ = Json::<serde_json::Value>::decode(&bytes);
        }
    }

    #[test]
    fn formats_are_told_apart() {
        let mut bytes = Vec::new();
        Json(vec![1, 2]).encode(&mut bytes).unwrap();
        assert!(Vec::<i32>::decode(&bytes).is_none());
        assert_eq!(Json::<Vec<i32>>::decode(&bytes).unwrap().0, [1, 2]);
    }
}
