//! Which servers a room lets take part.
//!
//! Specification: client-server API, "Server Access Control Lists (ACLs) for rooms".

use std::net::{Ipv4Addr, Ipv6Addr};

use ruma::ServerName;
use serde::Deserialize;

use crate::push::glob::{self, Place, Steps};

/// The content of `m.room.server_acl`.
#[derive(Clone, Debug, Deserialize)]
pub struct Acl {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default = "yes")]
    allow_ip_literals: bool,
}

fn yes() -> bool {
    true
}

impl Acl {
    /// Whether the server of this name may take part. Its port does not count, nor does case.
    #[must_use]
    pub fn allows(&self, server: &ServerName) -> bool {
        let host = server.host();
        if !self.allow_ip_literals && is_ip_literal(host) {
            return false;
        }
        let mut steps = Steps::new();
        let mut matches =
            |patterns: &[String]| patterns.iter().any(|pattern| glob::matches(pattern, host, Place::Whole, &mut steps));
        !matches(&self.deny) && matches(&self.allow)
    }
}

fn is_ip_literal(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<Ipv4Addr>().is_ok() || bare.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn denied_before_allowed_and_without_regard_to_case_or_port() {
        let acl: Acl =
            serde_json::from_value(json!({ "allow": ["*"], "deny": ["*.Evil.org", "bad?.com"], "allow_ip_literals": false }))
                .unwrap();
        let allows = |name: &str| acl.allows(<&ServerName>::try_from(name).unwrap());
        assert!(allows("good.org") && allows("evil.org") && allows("bad.com"));
        assert!(!allows("a.evil.ORG") && !allows("a.evil.org:8448") && !allows("BAD1.com"));
        assert!(!allows("1.2.3.4") && !allows("[::1]:8448"));
        let none: Acl = serde_json::from_value(json!({})).unwrap();
        assert!(!none.allows(<&ServerName>::try_from("good.org").unwrap()), "who is not allowed is denied");
    }
}
