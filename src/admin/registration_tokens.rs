//! Registration tokens: what lets people make their own accounts on a server that is not open to all.

use ::users::registration_tokens::{self as tokens, Bounds, RegistrationToken};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::{Homeserver, Operation, Result};

/// The most tokens of one page of a list.
pub const LIST_MAX: usize = 1_000;

/// Makes a token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The token; without one the server draws it.
    #[serde(default)]
    pub token: Option<String>,
    /// How many accounts it may make; without it any number.
    #[serde(default)]
    pub uses_allowed: Option<u32>,
    /// How long it holds, in milliseconds; without it for ever.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
}

/// A token, as administrators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The token.
    pub token: String,
    /// How many accounts it may make.
    pub uses_allowed: Option<u32>,
    /// How many it made.
    pub completed: u32,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

impl From<RegistrationToken> for Token {
    fn from(token: RegistrationToken) -> Self {
        let RegistrationToken { token, bounds: Bounds { uses_allowed, expires_ms }, completed } = token;
        Self { token, uses_allowed, completed, expires_ms }
    }
}

impl Operation for Create {
    const NAME: &'static str = "registration_tokens_create";
    type Output = Token;

    fn run(self, server: &Homeserver, now_ms: u64, rng: &mut StdRng) -> Result<Token> {
        let Self { token, uses_allowed, expires_in_ms } = self;
        let token = token.unwrap_or_else(|| tokens::draw(rng));
        let bounds = Bounds { uses_allowed, expires_ms: expires_in_ms.map(|ms| now_ms.saturating_add(ms)) };
        Ok(tokens::create(&server.store, &token, bounds)?.wait()?.into())
    }
}

/// Lists tokens, also those that no longer hold, a page at a time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The last token of the page before.
    #[serde(default)]
    pub after: Option<String>,
}

/// A page of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The tokens.
    pub tokens: Vec<Token>,
    /// Whether there are more.
    pub more: bool,
}

impl Operation for List {
    const NAME: &'static str = "registration_tokens_list";
    type Output = Page;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Page> {
        let mut rows = tokens::tokens(&server.store.snapshot(), self.after.as_deref(), LIST_MAX + 1)?;
        let more = rows.len() > LIST_MAX;
        rows.truncate(LIST_MAX);
        Ok(Page { tokens: rows.into_iter().map(Token::from).collect(), more })
    }
}

/// Deletes a token. Who registered with it stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// The token.
    pub token: String,
}

impl Operation for Delete {
    const NAME: &'static str = "registration_tokens_delete";
    type Output = ();

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<()> {
        Ok(tokens::delete(&server.store, &self.token)?.wait()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{ask, homeserver};

    #[test]
    fn tokens_come_and_go() {
        let server = homeserver();
        let made = ask(&server, &Create { uses_allowed: Some(3), expires_in_ms: Some(5_000), ..Create::default() }).unwrap();
        assert_eq!((made.uses_allowed, made.completed, made.expires_ms), (Some(3), 0, Some(6_000)));
        let named = ask(&server, &Create { token: Some("~welcome".into()), ..Create::default() }).unwrap();
        assert_eq!(ask(&server, &List::default()).unwrap(), Page { tokens: vec![made.clone(), named.clone()], more: false });
        assert_eq!(ask(&server, &List { after: Some(made.token.clone()) }).unwrap().tokens, [named]);
        ask(&server, &Delete { token: "~welcome".into() }).unwrap();
        assert!(ask(&server, &Delete { token: "~welcome".into() }).is_err());
        assert_eq!(ask(&server, &List::default()).unwrap().tokens, [made]);
    }
}
