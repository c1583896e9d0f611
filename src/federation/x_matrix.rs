//! The `X-Matrix` authentication scheme: who a request is from, and for whom ("Request Authentication").

use protocol::{
    json::{self, JsonError, Numbers, Object},
    keys::ED25519,
};
use ruma::{OwnedServerName, ServerName};

/// The scheme's name.
const SCHEME: &str = "X-Matrix";

/// The `Authorization` header of a request of another server. Nothing of it may be believed before its signature is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XMatrix {
    /// Who says to have sent it.
    pub origin: OwnedServerName,
    /// For whom; old servers do not say.
    pub destination: Option<OwnedServerName>,
    /// The id of the key that signed it.
    pub key: String,
    /// The signature in base64.
    pub signature: String,
}

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query, as they go over the wire.
    pub uri: &'a str,
    /// Who sends.
    pub origin: &'a ServerName,
    /// Who receives.
    pub destination: &'a ServerName,
    /// The body, if there is one.
    pub content: Option<&'a Object>,
}

impl Signed<'_> {
    /// The bytes that the signature covers.
    ///
    /// # Errors
    /// Where the body has no canonical form. Numbers are taken as leniently as the oldest room versions do: bodies hold events
    /// of all versions.
    pub fn canonical(&self) -> Result<String, JsonError> {
        let named = [
            ("destination", self.destination.as_str()),
            ("method", self.method),
            ("origin", self.origin.as_str()),
            ("uri", self.uri),
        ];
        let rest: Object = named.into_iter().map(|(key, text)| (key.to_owned(), text.into())).collect();
        let rest = json::canonical_object(&rest, Numbers::Lenient)?;
        let Some(content) = self.content else { return Ok(rest) };
        // The first of the keys, and large: it is not copied into an object with them.
        Ok(format!(r#"{{"content":{},{}"#, json::canonical_object(content, Numbers::Lenient)?, rest.trim_start_matches('{')))
    }
}

/// The header of a request of ours. All values are quoted, which the oldest servers ask for.
#[must_use]
pub fn header(origin: &ServerName, destination: &ServerName, key: &str, signature: &str) -> String {
    format!(r#"{SCHEME} origin="{origin}",destination="{destination}",key="{key}",sig="{signature}""#)
}

impl XMatrix {
    /// Reads the header's value. `None` where it is of another scheme, lacks something, says something twice, or names what
    /// cannot be a server or a key.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let (mut origin, mut destination, mut key, mut signature) = (None, None, None, None);
        for (name, value) in parameters(rest)? {
            let place = match name.to_ascii_lowercase().as_str() {
                "origin" => &mut origin,
                "destination" => &mut destination,
                "key" => &mut key,
                "sig" => &mut signature,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        let server = |name: String| OwnedServerName::try_from(name).ok();
        let destination = match destination {
            Some(name) => Some(server(name)?),
            None => None,
        };
        let key = key.filter(|key| key.strip_prefix(ED25519).is_some_and(protocol::ids::is_key_version))?;
        Some(Self { origin: server(origin?)?, destination, key, signature: signature? })
    }
}

/// `name=value` pairs between commas. A value is quoted, with backslashes as escapes, or goes on to the next comma.
fn parameters(text: &str) -> Option<Vec<(&str, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (value, behind) = behind.split_at(behind.find(',').unwrap_or(behind.len()));
                (value.trim_end().to_owned(), behind)
            }
        };
        found.push((name.trim(), value));
        let behind = behind.trim_start_matches([' ', '\t']);
        if !behind.is_empty() && !behind.starts_with(',') {
            return None;
        }
        rest = behind.trim_start_matches([' ', '\t', ',']);
    }
    Some(found)
}

/// The value up to the closing quote, and what stands behind that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(text: &str) -> Option<(String, Option<String>, String, String)> {
        let XMatrix { origin, destination, key, signature } = XMatrix::parse(text)?;
        Some((origin.to_string(), destination.map(|name| name.to_string()), key, signature))
    }

    #[test]
    fn headers_are_read_as_the_specification_writes_them() {
        let expected = Some(("a.test:1".to_owned(), Some("b.test".to_owned()), "ed25519:k_1".to_owned(), "ab+/".to_owned()));
        for text in [
            r#"X-Matrix origin="a.test:1",destination="b.test",key="ed25519:k_1",sig="ab+/""#,
            "X-Matrix origin=a.test:1,destination=b.test,key=ed25519:k_1,sig=ab+/",
            "x-matrix   SIG=\"ab+/\" ,\tKey=ed25519:k_1 , destination=\"b.test\",origin=a.test:1,",
            r#"X-Matrix origin="a.te\st:1",new="a,\"b=",destination="b.test",key="ed25519:k_1",sig="ab+/""#,
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
        assert_eq!(parsed("X-Matrix origin=a.test,key=ed25519:1,sig=x").unwrap().1, None);
    }

    #[test]
    fn headers_that_are_none_are_refused() {
        for text in [
            "",
            "X-Matrix",
            "X-Matrix ",
            "Bearer abc",
            "X-Matrix origin=a.test,key=ed25519:1",
            "X-Matrix origin=a.test,origin=b.test,key=ed25519:1,sig=x",
            "X-Matrix origin=\"a.test,key=ed25519:1,sig=x",
            "X-Matrix origin=\"a.test\"x,key=ed25519:1,sig=x",
            "X-Matrix origin=a test,key=ed25519:1,sig=x",
            "X-Matrix origin=a.test,destination=,key=ed25519:1,sig=x",
            "X-Matrix origin=a.test,key=rsa:1,sig=x",
            "X-Matrix origin=a.test,key=ed25519:,sig=x",
            "X-Matrix origin=a/../b,key=ed25519:1,sig=x",
            "X-Matrix origin",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_signed_is_canonical() {
        let (origin, destination) = (ruma::server_name!("a.test"), ruma::server_name!("b.test"));
        let content = json::parse_object(r#"{ "b": 1.0, "a": "é" }"#.as_bytes(), 100).unwrap();
        let signed = Signed { method: "PUT", uri: "/x?y=%20", origin, destination, content: Some(&content) };
        let expected =
            r#"{"content":{"a":"é","b":1.0},"destination":"b.test","method":"PUT","origin":"a.test","uri":"/x?y=%20"}"#;
        assert_eq!(signed.canonical().unwrap(), expected);
        let bare = Signed { content: None, ..signed };
        assert_eq!(bare.canonical().unwrap(), r#"{"destination":"b.test","method":"PUT","origin":"a.test","uri":"/x?y=%20"}"#);
    }
}
