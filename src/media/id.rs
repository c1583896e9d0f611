//! The media id of an `mxc://` URI.

use std::fmt;

use rand::{Rng, RngExt, distr::Alphanumeric};

/// Letters of a new media id: 142 bits, so that knowing one is not guessing one.
const LENGTH: usize = 24;
/// Letters that an id of a request may have. Ours are shorter; those of other servers may not be.
const LENGTH_MAX: usize = 255;

/// The part of an `mxc://` URI after the server's name: only letters, digits, `_` and `-`, so that it cannot name a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaId(String);

impl MediaId {
    /// Reads an id; `None` where it holds any other letter ("Content repository, Security considerations").
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        ((1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed)).then(|| Self(text.to_owned()))
    }

    /// A new id.
    pub fn random(rng: &mut impl Rng) -> Self {
        Self((0..LENGTH).map(|_| char::from(rng.sample(Alphanumeric))).collect())
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MediaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
