//! The grammars of identifiers, where those of `ruma` are wider than the specification's or know no room version.
//!
//! Specification: appendices, "Identifier Grammar"; "Event IDs" and "Event format" of each room version.

use ruma::{
    EventId, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, ServerName, UserId,
};

use crate::version::{EventIdFormat, RoomVersion};

/// The longest identifier in bytes, sigil and server name included.
pub const MAX_ID_BYTES: usize = 255;
/// The longest DNS name in a server name.
const MAX_DNS_NAME_BYTES: usize = 255;
/// The characters of 32 bytes in unpadded base64.
const HASH_CHARACTERS: usize = 43;

/// Text that is not an identifier of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct InvalidId(
    /// The kind of identifier, as `user id`.
    pub &'static str,
);

/// A user id that this server may give to a new account: the current grammar, not the historical one.
///
/// # Errors
/// [`InvalidId`].
pub fn new_user_id(localpart: &str, server: &ServerName) -> Result<OwnedUserId, InvalidId> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+');
    if localpart.is_empty() || !localpart.bytes().all(allowed) {
        return Err(InvalidId("localpart"));
    }
    user_id(&format!("@{localpart}:{server}"))
}

/// A user id as events may hold it: historical ones too, with any characters but `:` and NUL, even an empty localpart.
///
/// # Errors
/// [`InvalidId`].
pub fn user_id(text: &str) -> Result<OwnedUserId, InvalidId> {
    let id = UserId::parse(text).map_err(|_| InvalidId("user id"))?;
    if is_server_name(id.server_name().as_str()) { Ok(id) } else { Err(InvalidId("user id")) }
}

/// Whether clients may be told of this user outside of events: the localpart is not empty and of printable ASCII
/// ("Historical User IDs").
#[must_use]
pub fn is_compliant(user: &UserId) -> bool {
    let localpart = user.localpart();
    !localpart.is_empty() && localpart.bytes().all(|byte| (0x21..=0x7E).contains(&byte))
}

/// A server name.
///
/// # Errors
/// [`InvalidId`].
pub fn server_name(text: &str) -> Result<OwnedServerName, InvalidId> {
    if !is_server_name(text) {
        return Err(InvalidId("server name"));
    }
    ServerName::parse(text).map_err(|_| InvalidId("server name"))
}

/// `ruma` also takes ports such as `+80` and `000080`, which are none to the grammar, and the whole is longer than its parts.
fn is_server_name(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()));
    port_fits && host.len() <= MAX_DNS_NAME_BYTES && <&ServerName>::try_from(text).is_ok()
}

/// A room id of this version: before 12 `!opaque:server`, from 12 on `!` and the hash of the create event.
///
/// # Errors
/// [`InvalidId`].
pub fn room_id(text: &str, version: &RoomVersion) -> Result<OwnedRoomId, InvalidId> {
    let fits = match text.strip_prefix('!') {
        Some(opaque) if version.version_12 => is_hash(opaque, version.event_ids),
        Some(opaque) => opaque.split_once(':').is_some_and(|(_, server)| is_server_name(server)),
        None => false,
    };
    if !fits {
        return Err(InvalidId("room id"));
    }
    RoomId::parse(text).map_err(|_| InvalidId("room id"))
}

/// An event id of this version: in 1 and 2 `$opaque:server`, from 3 on `$` and a hash in base64.
///
/// # Errors
/// [`InvalidId`].
pub fn event_id(text: &str, version: &RoomVersion) -> Result<OwnedEventId, InvalidId> {
    let fits = match text.strip_prefix('$') {
        Some(opaque) if version.event_ids == EventIdFormat::Chosen => {
            opaque.split_once(':').is_some_and(|(local, server)| !local.is_empty() && is_server_name(server))
        }
        Some(opaque) => is_hash(opaque, version.event_ids),
        None => false,
    };
    if !fits || text.len() > MAX_ID_BYTES || text.contains('\0') {
        return Err(InvalidId("event id"));
    }
    EventId::parse(text).map_err(|_| InvalidId("event id"))
}

fn is_hash(text: &str, format: EventIdFormat) -> bool {
    let extra: &[u8] = if format == EventIdFormat::Base64 { b"+/" } else { b"-_" };
    text.len() == HASH_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
}

/// A room alias, `#localpart:server`.
///
/// # Errors
/// [`InvalidId`].
pub fn room_alias(text: &str) -> Result<OwnedRoomAliasId, InvalidId> {
    let id = RoomAliasId::parse(text).map_err(|_| InvalidId("room alias"))?;
    if is_server_name(id.server_name().as_str()) { Ok(id) } else { Err(InvalidId("room alias")) }
}

/// Whether this is an opaque identifier: 1 to 255 of the characters that need no escape in a URL.
#[must_use]
pub fn is_opaque(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether this is of the "Common Namespaced Identifier Grammar", as `m.login.password`.
#[must_use]
pub fn is_namespaced(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    text.len() <= MAX_ID_BYTES && text.starts_with(|first: char| first.is_ascii_lowercase()) && text.bytes().all(allowed)
}

/// Whether this can be a device id. The specification gives no grammar; clients choose them, so anything printable of
/// 1 to 255 bytes is taken.
#[must_use]
pub fn is_device_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether this is the id of a server's key, `algorithm:version`.
#[must_use]
pub fn is_server_key_id(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, version)| is_namespaced(algorithm) && is_key_version(version))
}

/// Whether this is the version in a server's key id: `[a-zA-Z0-9_]`.
#[must_use]
pub fn is_key_version(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const HASH: &str = "Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg";
    const OLD_HASH: &str = "acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk";

    fn version(id: &str) -> &'static RoomVersion {
        RoomVersion::named(id).unwrap()
    }

    /// Checks a table: all of the first are taken, all of the second refused.
    fn check(takes: impl Fn(&str) -> bool, valid: &[&str], invalid: &[&str]) {
        for text in valid {
            assert!(takes(text), "{text:?} is valid");
        }
        for text in invalid {
            assert!(!takes(text), "{text:?} is not valid");
        }
    }

    #[test]
    fn server_names() {
        let long = "a".repeat(256);
        check(
            |text| server_name(text).is_ok(),
            &[
                "matrix.org",
                "matrix.org:8888",
                "1.2.3.4",
                "1.2.3.4:1234",
                "[1234:5678::abcd]",
                "[1234:5678::abcd]:5678",
                "localhost",
                "UPPER.example",
            ],
            &[
                "",
                ":8448",
                "a:",
                "a:b",
                "a:+80",
                "a:000080",
                "a:99999",
                "a_b",
                "a b",
                "a/b",
                "[::1",
                "[::1]x",
                "[]",
                "[1.2]",
                "::1",
                "[::1]:",
                "ex\u{e4}mple.org",
                "a\0",
                &long,
            ],
        );
    }

    #[test]
    fn new_users_get_the_current_grammar() {
        let server = server_name("example.org").unwrap();
        let (longest, too_long) = ("a".repeat(255 - "@:example.org".len()), "a".repeat(256 - "@:example.org".len()));
        check(
            |localpart| new_user_id(localpart, &server).is_ok(),
            &["alice", "a", "0", "a.b_c=d-e/f+g", &longest],
            &["", "Alice", "a:b", "a b", "a@b", "ü", "a\0", "a*", "a~", &too_long],
        );
    }

    #[test]
    fn users_of_history_are_accepted() {
        let (longest, too_long) = (format!("@{}:a.b", "a".repeat(250)), format!("@{}:a.b", "a".repeat(251)));
        check(
            |text| user_id(text).is_ok(),
            &[
                "@alice:example.org",
                "@Alice:example.org:8448",
                "@:example.org",
                "@ü ♥:example.org",
                "@a\u{1}b:[::1]",
                "@a*:b",
                &longest,
            ],
            &["", "@", "@alice", "alice:example.org", "@a:", "@a\0:b", "@a:b:+80", "@a:b:c:d", "@a: b", "#a:b", &too_long],
        );
        check(
            |text| is_compliant(&user_id(text).unwrap()),
            &["@alice:example.org", "@Alice!:example.org"],
            &["@:example.org", "@a b:example.org", "@ü:example.org", "@\u{7f}:example.org"],
        );
    }

    #[test]
    fn room_ids_depend_on_the_version() {
        let (hash, short) = (format!("!{HASH}"), format!("!{}", &HASH[1..]));
        let named = ["!abc:example.org", "!a b♥:[::1]:80", "!:example.org"];
        check(
            |text| room_id(text, version("11")).is_ok(),
            &named,
            &[&hash, "", "!", "!abc", "abc:example.org", "!a\0:b", "!a:b:+1", "#a:b"],
        );
        check(
            |text| room_id(text, version("12")).is_ok(),
            &[&hash],
            &["", "!", "!abc", named[0], &short, &hash.replace('-', "+")],
        );
    }

    #[test]
    fn event_ids_depend_on_the_version() {
        let (url_safe, standard) = (format!("${HASH}"), format!("${OLD_HASH}"));
        let too_long = format!("${}:b", "a".repeat(255));
        check(
            |text| event_id(text, version("1")).is_ok(),
            &["$abc:example.org", "$0:domain", "$a/b+c:d"],
            &[&url_safe, "$abc", "$:b", "abc:b", "$a:", "$a\0:b", "", &too_long],
        );
        check(|text| event_id(text, version("3")).is_ok(), &[&standard], &[&url_safe, "$abc:example.org", "$", ""]);
        check(
            |text| event_id(text, version("4")).is_ok(),
            &[&url_safe],
            &[&standard, "$abc:example.org", "$", &url_safe[1..], &format!("{url_safe}="), &format!("{url_safe}:b")],
        );
    }

    #[test]
    fn room_aliases() {
        let too_long = format!("#{}:a.b", "a".repeat(251));
        check(
            |text| room_alias(text).is_ok(),
            &["#general:example.org", "#ü ♥:example.org:80", "#:example.org"],
            &["", "#", "#a", "a:b", "#a\0:b", "#a:b:+80", "#a:b c", "!a:b", &too_long],
        );
    }

    #[test]
    fn opaque_and_namespaced_identifiers() {
        let (longest, too_long) = ("a".repeat(255), "a".repeat(256));
        check(is_opaque, &["a", "A-Z.0_9~", &longest], &["", "a b", "a/b", "a+b", "ü", "a\0", &too_long]);
        check(
            is_namespaced,
            &["m", "m.login.password", "org.example.a-b_c", &longest],
            &["", "M", ".a", "0a", "_a", "a b", "a:b", &too_long],
        );
    }

    #[test]
    fn devices_and_keys() {
        let too_long = "a".repeat(256);
        check(is_device_id, &["ABCDEFGHIJ", "my phone", "ü"], &["", "a\0", "a\nb", &too_long]);
        check(
            is_server_key_id,
            &["ed25519:1", "ed25519:a_AbCd", "ed25519:auto"],
            &["", "ed25519", "ed25519:", ":1", "ed25519:a-b", "ed25519:a.b", "ed25519:ü"],
        );
    }
}
