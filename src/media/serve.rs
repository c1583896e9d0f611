//! What makes serving strangers' files safe: which type is claimed, what a browser may show, which name it saves
//! ("Serving inline content").

use std::{fmt::Write, ops::Range};

use crate::{Error, Result};

/// What is claimed where nothing better is known.
const UNKNOWN: &str = "application/octet-stream";
/// The longest content type that is kept, in bytes.
const TYPE_MAX: usize = 255;
/// The types that browsers may show, in lower case, without parameters.
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Whether a browser may show content in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It may.
    Inline,
    /// It only offers to save it.
    Attachment,
}

/// A `Content-Type` as it is kept and served: the type in lower case, its parameters only where all are plain. What is no type
/// becomes `application/octet-stream`, so that no browser reads it otherwise than [`disposition`] does.
#[must_use]
pub fn normalized_type(raw: Option<&str>) -> String {
    let raw = raw.unwrap_or_default().trim();
    let (essence, parameters) = raw.split_once(';').unwrap_or((raw, ""));
    let essence = essence.trim().to_ascii_lowercase();
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if !is_type || essence.len() > TYPE_MAX {
        return UNKNOWN.to_owned();
    }
    let mut normalized = essence.clone();
    for parameter in parameters.split(';').map(str::trim).filter(|parameter| !parameter.is_empty()) {
        let plain = parameter.split_once('=').is_some_and(|(name, value)| is_token(name) && is_parameter(value));
        if !plain || normalized.len() + parameter.len() + 2 > TYPE_MAX {
            return essence;
        }
        normalized += "; ";
        normalized += parameter;
    }
    normalized
}

/// How content of this normalised type is served.
#[must_use]
pub fn disposition(content_type: &str) -> Disposition {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if INLINE.contains(&essence) { Disposition::Inline } else { Disposition::Attachment }
}

/// The `Content-Disposition` header (RFC 6266): a name of plain letters as it is, any other also in UTF-8 (RFC 5987).
#[must_use]
pub fn content_disposition(disposition: Disposition, filename: Option<&str>) -> String {
    let mut header = match disposition {
        Disposition::Inline => "inline",
        Disposition::Attachment => "attachment",
    }
    .to_owned();
    let Some(name) = filename.filter(|name| !name.is_empty()) else { return header };
    let mut plain = true;
    header += "; filename=\"";
    for letter in name.chars() {
        match letter {
            '"' | '\\' => header.extend(['\\', letter]),
            ' '..='~' => header.push(letter),
            _ => {
                plain = false;
                header.push('_');
            }
        }
    }
    header.push('"');
    if !plain {
        header += "; filename*=UTF-8''";
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                header.push(char::from(byte));
            } else {
                let _ = write!(header, "%{byte:02X}");
            }
        }
    }
    header
}

/// The bytes that a `Range` header (RFC 9110, section 14) asks for; `None` for all: where there is no header, or one of more
/// than one range or another unit, which a server may ignore.
///
/// # Errors
/// [`Error::OutOfRange`].
pub fn byte_range(header: Option<&str>, size: u64) -> Result<Option<Range<u64>>> {
    let range = header.and_then(|header| header.trim().strip_prefix("bytes=")).and_then(|ranges| ranges.trim().split_once('-'));
    let Some((first, last)) = range else { return Ok(None) };
    let range = match (first.trim(), last.trim()) {
        ("", last) => match number(last) {
            Some(length) => size.saturating_sub(length)..size,
            None => return Ok(None),
        },
        (first, "") => match number(first) {
            Some(first) => first..size,
            None => return Ok(None),
        },
        (first, last) => match number(first).zip(number(last)) {
            Some((first, last)) if first <= last => first..size.min(last.saturating_add(1)),
            _ => return Ok(None),
        },
    };
    if range.is_empty() { Err(Error::OutOfRange { size }) } else { Ok(Some(range)) }
}

/// A number of digits alone. One too large for any file counts as larger than all.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A token, or a quoted text without commas and escapes: browsers read a comma as the beginning of another type.
fn is_parameter(text: &str) -> bool {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    quoted
        .map_or_else(|| is_token(text), |text| text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\",\\".contains(&byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_claimed_what_is_served_is_a_type(raw in any::<String>(), like in "[a-zA-Z/;=\", .\\r\\n+]{0,40}") {
            for raw in [raw, like] {
                let normalized = normalized_type(Some(&raw));
                prop_assert_eq!(&normalized_type(Some(&normalized)), &normalized);
                prop_assert!(normalized.len() <= TYPE_MAX && normalized.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }

        #[test]
        fn any_name_is_a_header_of_one_line(name in any::<String>()) {
            let header = content_disposition(Disposition::Attachment, Some(&name));
            prop_assert!(header.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", header);
        }

        #[test]
        fn a_range_lies_within_the_file(header in any::<String>(), like in "bytes=[-0-9, +]{0,30}", size in any::<u64>()) {
            for header in [header, like] {
                if let Ok(Some(range)) = byte_range(Some(&header), size) {
                    prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }
    }

    #[test]
    fn types_are_folded_and_what_is_none_is_unknown() {
        let cases = [
            (None, "application/octet-stream"),
            (Some(""), "application/octet-stream"),
            (Some("Image/PNG"), "image/png"),
            (Some(" text/plain;Charset=UTF-8 "), "text/plain; Charset=UTF-8"),
            (Some("video/mp4; codecs=\"avc1.42E01E\""), "video/mp4; codecs=\"avc1.42E01E\""),
            (Some("video/mp4; codecs=\"a, text/html\""), "video/mp4"),
            (Some("image/png;, text/html"), "image/png"),
            (Some("image/png, text/html"), "application/octet-stream"),
            (Some("image/png\r\nSet-Cookie: a=b"), "application/octet-stream"),
            (Some("image"), "application/octet-stream"),
            (Some("image/"), "application/octet-stream"),
            (Some("image/sv\u{131}g"), "application/octet-stream"),
        ];
        for (raw, normalized) in cases {
            assert_eq!(normalized_type(raw), normalized, "{raw:?}");
        }
        assert_eq!(normalized_type(Some(&format!("a/{}", "b".repeat(300)))), UNKNOWN);
        assert!(normalized_type(Some(&format!("a/b{}", ";c=d".repeat(100)))).len() <= TYPE_MAX);
    }

    #[test]
    fn only_the_allowed_types_are_shown() {
        for content_type in ["image/png", "text/plain; charset=utf-8", "video/mp4"] {
            assert_eq!(disposition(content_type), Disposition::Inline, "{content_type}");
        }
        for raw in [
            "IMAGE/SVG+XML",
            "text/html",
            "Text/HTML; charset=utf-8",
            "application/xhtml+xml",
            "application/pdf",
            "x",
            "image/svg+xml;a=b",
        ] {
            assert_eq!(disposition(&normalized_type(Some(raw))), Disposition::Attachment, "{raw}");
        }
    }

    #[test]
    fn names_are_quoted_and_other_letters_encoded() {
        let cases = [
            (None, "inline"),
            (Some(""), "inline"),
            (Some("War and Peace.pdf"), "inline; filename=\"War and Peace.pdf\""),
            (Some("a\"b\\c;d"), "inline; filename=\"a\\\"b\\\\c;d\""),
            (Some("naïve.txt"), "inline; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
            (Some("a\r\nb"), "inline; filename=\"a__b\"; filename*=UTF-8''a%0D%0Ab"),
        ];
        for (name, header) in cases {
            assert_eq!(content_disposition(Disposition::Inline, name), header);
        }
    }

    #[test]
    fn ranges_are_of_the_file() {
        let cases = [
            (None, Some(None)),
            (Some("bytes=0-3"), Some(Some(0..4))),
            (Some("bytes=4-"), Some(Some(4..10))),
            (Some("bytes=-3"), Some(Some(7..10))),
            (Some("bytes=-30"), Some(Some(0..10))),
            (Some("bytes=4-400"), Some(Some(4..10))),
            (Some("bytes=0-99999999999999999999999"), Some(Some(0..10))),
            (Some("bytes=10-"), None),
            (Some("bytes=-0"), None),
            (Some("bytes=3-1"), Some(None)),
            (Some("bytes=0-1,4-5"), Some(None)),
            (Some("bytes=+1-2"), Some(None)),
            (Some("lines=1-2"), Some(None)),
        ];
        for (header, expected) in cases {
            assert_eq!(byte_range(header, 10).ok(), expected, "{header:?}");
        }
        assert!(matches!(byte_range(Some("bytes=0-"), 0), Err(Error::OutOfRange { size: 0 })));
    }
}
