//! Tokens: points in the history of the server (`s`) or in one room's timeline (`t`), as clients hold them.
//!
//! They mean the same on every node and for every user: nothing is remembered for them. `/messages`, `/members?at=` and
//! `/keys/changes` take what `/sync` gave.

use std::{fmt, str::FromStr};

use rooms::Pos;
use store::Seq;

use crate::Error;

/// Numbers beyond this are no commits: it keeps arithmetic on what clients send within its type.
const SEQ_MAX: u64 = 1 << 50;

/// What a `/sync` was answered from: `next_batch` and `since`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncToken {
    /// The last commit that was looked at.
    pub seq: Seq,
    /// The last commit whose messages to the device were delivered. Less than `seq` only while more of them wait than one
    /// response holds; the token has a second number then.
    pub to_device: Seq,
}

impl SyncToken {
    /// The same token, where it is from the future (of a server that was restored from a backup) a token of now.
    #[must_use]
    pub fn clamped(self, now: Seq) -> Self {
        Self { seq: self.seq.min(now), to_device: self.to_device.min(now) }
    }
}

impl From<Seq> for SyncToken {
    fn from(seq: Seq) -> Self {
        Self { seq, to_device: seq }
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.seq.0)?;
        if self.to_device == self.seq { Ok(()) } else { write!(f, "_{}", self.to_device.0) }
    }
}

impl FromStr for SyncToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let numbers = text.strip_prefix('s').ok_or(Error::BadToken)?;
        match numbers.split_once('_') {
            None => Ok(seq(numbers)?.into()),
            Some((all, to_device)) => {
                let token = Self { seq: seq(all)?, to_device: seq(to_device)? };
                if token.to_device <= token.seq { Ok(token) } else { Err(Error::BadToken) }
            }
        }
    }
}

fn seq(text: &str) -> Result<Seq, Error> {
    digits(text)?.parse().ok().filter(|number| *number <= SEQ_MAX).map(Seq).ok_or(Error::BadToken)
}

/// Numbers as they are written here: `str::parse` would take a sign.
fn digits(text: &str) -> Result<&str, Error> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { Ok(text) } else { Err(Error::BadToken) }
}

/// A point in a room's timeline: right behind a place. What lies before it is at that place or earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point(pub Pos);

impl Point {
    /// The point right before an event's place.
    #[must_use]
    pub fn before(pos: Pos) -> Self {
        Self(Pos(pos.0.saturating_sub(1)))
    }

    /// The point at which a commit's reader stands.
    #[must_use]
    pub fn at(seq: Seq) -> Self {
        Self(Pos::last_of(seq))
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0.0)
    }
}

/// A timeline's token, or that of a sync.
impl FromStr for Point {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(number) = text.strip_prefix('t') else {
            return Ok(Self::at(SyncToken::from_str(text)?.seq));
        };
        digits(number.strip_prefix('-').unwrap_or(number))?;
        number.parse().map(|number| Self(Pos(number))).map_err(|_| Error::BadToken)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_come_back(seq in 0..=SEQ_MAX, less in 0..=SEQ_MAX, pos in any::<i64>()) {
            let token = SyncToken { seq: Seq(seq), to_device: Seq(less.min(seq)) };
            prop_assert_eq!(token.to_string().parse::<SyncToken>().unwrap(), token);
            prop_assert_eq!(Point(Pos(pos)).to_string().parse::<Point>().unwrap(), Point(Pos(pos)));
            prop_assert_eq!(token.to_string().parse::<Point>().unwrap(), Point::at(Seq(seq)));
        }

        #[test]
        fn garbage_is_refused_and_never_panics(text in any::<String>(), number in any::<String>()) {
            for text in [text, format!("s{number}"), format!("t{number}"), format!("s{number}_{number}")] {
                let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || b"_-".contains(&byte));
                let fine = text.len() > 1 && text.is_char_boundary(1) && digits(&text[1..]);
                prop_assert!(fine || text.parse::<SyncToken>().is_err());
                prop_assert!(fine || text.parse::<Point>().is_err());
            }
        }
    }

    #[test]
    fn what_no_server_gave_is_no_token() {
        for text in ["", "s", "s-1", "s+1", "s1_2", "s1_", "12", "t", "s99999999999999999999", "s2000000000000000", "s1_2_3"] {
            assert!(text.parse::<SyncToken>().is_err(), "{text}");
        }
        assert_eq!("s2_1".parse::<SyncToken>().unwrap().clamped(Seq(1)), SyncToken::from(Seq(1)));
    }
}
