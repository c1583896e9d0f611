//! Unpadded base64 as the specification uses it for hashes, keys and signatures.
//!
//! Specification: appendices, "Unpadded Base64". Decoding also takes padding and stray trailing bits, because keys and
//! hashes with either are in use.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Unpadded base64 of the standard alphabet.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Unpadded base64 of the URL-safe alphabet.
#[must_use]
pub fn encode_url_safe(bytes: &[u8]) -> String {
    URL_SAFE.encode(bytes)
}

/// The bytes of base64 in the standard alphabet, with or without padding, or `None` where it is none.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_examples_of_the_appendix_encode_and_decode() {
        let examples = [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in examples {
            assert_eq!(encode(plain.as_bytes()), encoded);
            assert_eq!(decode(encoded).unwrap(), plain.as_bytes());
        }
        assert_eq!(decode("Zm8=").unwrap(), b"fo", "padding is taken");
        assert_eq!(decode("Zm9").unwrap(), b"fo", "trailing bits are taken");
        assert_eq!(decode("Z"), None);
        assert_eq!(decode("Zm 8"), None);
        assert_eq!(encode_url_safe(&[0xFB, 0xFF]), "-_8");
        assert_eq!(encode(&[0xFB, 0xFF]), "+/8");
    }
}
