//! The key codec: tuples of fixed-width big-endian numbers whose last part may be free text.
//!
//! Encoded keys sort as the tuples do. Only leading parts form a prefix, as types ([`Prefix`]), so that a scan
//! by something that is not a prefix does not compile.

use std::fmt::Debug;

/// A part of fixed width, whose encoding sorts as its values do.
pub trait KeyPart: Sized + Copy + Debug {
    /// Bytes it takes.
    const WIDTH: usize;
    /// Appends exactly [`Self::WIDTH`] bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads exactly [`Self::WIDTH`] bytes; `None` where they are no valid value.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! unsigned_parts {
    ($($number:ty)*) => { $(
        impl KeyPart for $number {
            const WIDTH: usize = size_of::<$number>();
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_be_bytes(bytes.try_into().ok()?))
            }
        }
    )* };
}
unsigned_parts!(u8 u16 u32 u64);

/// With the sign bit flipped, so that negative numbers sort before positive ones.
impl KeyPart for i64 {
    const WIDTH: usize = 8;
    fn write(&self, out: &mut Vec<u8>) {
        (self.cast_unsigned() ^ (1 << 63)).write(out);
    }
    fn read(bytes: &[u8]) -> Option<Self> {
        Some((u64::read(bytes)? ^ (1 << 63)).cast_signed())
    }
}

/// A hash, as of a token or a blob.
impl KeyPart for [u8; 32] {
    const WIDTH: usize = 32;
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

/// The last part of a key: a [`KeyPart`] or free text.
pub trait KeyTail: Sized + Debug {
    /// Appends the encoding.
    fn write_tail(&self, out: &mut Vec<u8>);
    /// Reads all of `bytes`.
    fn read_tail(bytes: &[u8]) -> Option<Self>;
}

impl<P: KeyPart> KeyTail for P {
    fn write_tail(&self, out: &mut Vec<u8>) {
        self.write(out);
    }
    fn read_tail(bytes: &[u8]) -> Option<Self> {
        if bytes.len() == P::WIDTH { P::read(bytes) } else { None }
    }
}

impl KeyTail for String {
    fn write_tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn read_tail(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// What a table's rows are found by.
pub trait Key: Prefix<Self> + Sized + Debug {
    /// Reads a whole key; `None` where the bytes are none.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Leading parts of `K`, up to all of it.
pub trait Prefix<K> {
    /// Appends the encoding of these parts.
    fn encode(&self, out: &mut Vec<u8>);
}

/// All parts of `K`, owned or with its text borrowed.
pub trait AsKey<K>: Prefix<K> {}

/// No part: all rows.
impl<K> Prefix<K> for () {
    fn encode(&self, _: &mut Vec<u8>) {}
}

impl<T: KeyTail> Key for T {
    fn decode(bytes: &[u8]) -> Option<Self> {
        T::read_tail(bytes)
    }
}
impl<T: KeyTail> Prefix<T> for T {
    fn encode(&self, out: &mut Vec<u8>) {
        self.write_tail(out);
    }
}
impl<T: KeyTail> AsKey<T> for T {}
impl Prefix<String> for &str {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}
impl AsKey<String> for &str {}

macro_rules! tuple_keys {
    ($($head:ident $at:tt),+; $last:tt) => {
        impl<$($head: KeyPart,)+ Tail: KeyTail> Key for ($($head,)+ Tail) {
            fn decode(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                Some(($({
                    let (part, after) = rest.split_at_checked($head::WIDTH)?;
                    rest = after;
                    $head::read(part)?
                },)+ Tail::read_tail(rest)?))
            }
        }
        impl<$($head: KeyPart,)+ Tail: KeyTail> Prefix<($($head,)+ Tail)> for ($($head,)+ Tail) {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$at.write(out);)+
                self.$last.write_tail(out);
            }
        }
        impl<$($head: KeyPart,)+ Tail: KeyTail> AsKey<($($head,)+ Tail)> for ($($head,)+ Tail) {}
        impl<$($head: KeyPart,)+> Prefix<($($head,)+ String)> for ($($head,)+ &str) {
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$at.write(out);)+
                out.extend_from_slice(self.$last.as_bytes());
            }
        }
        impl<$($head: KeyPart,)+> AsKey<($($head,)+ String)> for ($($head,)+ &str) {}
    };
}
tuple_keys!(A 0; 1);
tuple_keys!(A 0, B 1; 2);
tuple_keys!(A 0, B 1, C 2; 3);
tuple_keys!(A 0, B 1, C 2, D 3; 4);

/// Leading parts shorter than the key, as a tuple that says so: `(room,)`, `(room, user)`.
macro_rules! prefixes {
    ($($part:ident $at:tt),+; $($rest:ident),+) => {
        impl<$($part: KeyPart,)+ $($rest,)+> Prefix<($($part,)+ $($rest,)+)> for Lead<($($part,)+)> {
            fn encode(&self, out: &mut Vec<u8>) {
                $((self.0).$at.write(out);)+
            }
        }
    };
}
/// The leading parts of a longer key.
#[derive(Clone, Copy, Debug)]
pub struct Lead<T>(pub T);
prefixes!(A 0; B);
prefixes!(A 0; B, C);
prefixes!(A 0; B, C, D);
prefixes!(A 0; B, C, D, E);
prefixes!(A 0, B 1; C);
prefixes!(A 0, B 1; C, D);
prefixes!(A 0, B 1; C, D, E);
prefixes!(A 0, B 1, C 2; D);
prefixes!(A 0, B 1, C 2; D, E);

/// Declares numbers that stand for something named elsewhere: fixed width in keys, small in values.
#[macro_export]
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub struct $name(pub $inner);
        impl $crate::KeyPart for $name {
            const WIDTH: usize = <$inner as $crate::KeyPart>::WIDTH;
            fn write(&self, out: &mut Vec<u8>) {
                $crate::KeyPart::write(&self.0, out);
            }
            fn read(bytes: &[u8]) -> Option<Self> {
                <$inner as $crate::KeyPart>::read(bytes).map(Self)
            }
        }
    )* };
}

numbers! {
    /// The number of a commit, from 1: the one sequence. A sync token is one of these.
    Seq(u64);
    /// The number that stands for a room id.
    RoomNo(u32);
    /// The number that stands for a user id, local or remote.
    UserNo(u32);
}

/// A part of a table's rows, in key order or against it.
#[derive(Clone, Debug)]
pub struct Range<K> {
    pub(crate) lower: Vec<u8>,
    /// Exclusive; empty where nothing bounds it.
    pub(crate) upper: Vec<u8>,
    pub(crate) reversed: bool,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K> Range<K> {
    /// The rows whose keys begin with these parts.
    pub fn of(prefix: &impl Prefix<K>) -> Self {
        let mut lower = Vec::with_capacity(32);
        prefix.encode(&mut lower);
        let upper = successor(&lower);
        Self { lower, upper, reversed: false, key: std::marker::PhantomData }
    }

    /// Not before this key (or leading parts).
    #[must_use]
    pub fn from(mut self, key: &impl Prefix<K>) -> Self {
        let mut lower = Vec::with_capacity(32);
        key.encode(&mut lower);
        self.lower = self.lower.max(lower);
        self
    }

    /// After this whole key.
    #[must_use]
    pub fn after(mut self, key: &impl AsKey<K>) -> Self {
        let mut lower = Vec::with_capacity(32);
        key.encode(&mut lower);
        lower.push(0);
        self.lower = self.lower.max(lower);
        self
    }

    /// Before this key (or leading parts), excluding it.
    #[must_use]
    pub fn before(mut self, key: &impl Prefix<K>) -> Self {
        let mut upper = Vec::with_capacity(32);
        key.encode(&mut upper);
        if self.upper.is_empty() || upper < self.upper {
            self.upper = upper;
        }
        self
    }

    /// Up to this key (or leading parts), and all that begins with it.
    #[must_use]
    pub fn through(mut self, key: &impl Prefix<K>) -> Self {
        let mut upper = Vec::with_capacity(32);
        key.encode(&mut upper);
        let upper = successor(&upper);
        if self.upper.is_empty() || (!upper.is_empty() && upper < self.upper) {
            self.upper = upper;
        }
        self
    }

    /// From the last row to the first.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reversed = true;
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.upper.is_empty() && self.lower >= self.upper
    }
}

/// The least byte string above all that begin with `bytes`; empty where there is none.
fn successor(bytes: &[u8]) -> Vec<u8> {
    let mut next = bytes.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            break;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn encoded<K: Key>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn keys_come_back_and_sort_as_tuples(a in any::<(u32, i64, String)>(), b in any::<(u32, i64, String)>()) {
            prop_assert_eq!(<(u32, i64, String)>::decode(&encoded(&a)).unwrap(), a.clone());
            prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), a.cmp(&b));
        }

        #[test]
        fn a_prefix_range_holds_what_begins_with_it(lead in any::<u32>(), key in any::<(u32, u64)>()) {
            let range = Range::<(u32, u64)>::of(&Lead((lead,)));
            let bytes = encoded(&key);
            let inside = bytes >= range.lower && (range.upper.is_empty() || bytes < range.upper);
            prop_assert_eq!(inside, key.0 == lead);
        }

        #[test]
        fn no_bytes_panic_the_decoder(bytes in any::<Vec<u8>>()) {
            let _ = <(u32, [u8; 32], String)>::decode(&bytes);
            prop_assert!(<(u32, u64)>::decode(&bytes).is_none() || bytes.len() == 12);
        }

        #[test]
        fn fixed_keys_are_prefix_free(a in any::<(u32, u64)>(), b in any::<(u32, u64)>()) {
            prop_assert!(a == b || !encoded(&a).starts_with(&encoded(&b)));
        }
    }

    #[test]
    fn the_successor_of_the_greatest_prefix_is_open() {
        assert_eq!(successor(&[1, 255]), [2]);
        assert!(successor(&[255, 255]).is_empty());
    }
}
