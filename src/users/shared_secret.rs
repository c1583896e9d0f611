//! Registration by a secret that the operator's scripts share with the server, at `/_synapse/admin/v1/register`.
//!
//! The protocol is Synapse's: the script asks for a nonce and sends back, with the wanted account, an HMAC-SHA1 under the
//! secret of the nonce and the account's properties. Nonces hold for a minute, once.

use std::collections::VecDeque;

use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use rand::CryptoRng;
use sha1::Sha1;

use crate::{Error, Result};

/// How long a nonce holds, in milliseconds.
const NONCE_MS: u64 = 60_000;
/// The most nonces at once: the oldest goes when another is asked for.
const NONCES_MAX: usize = 1_000;

const WRONG: Error = Error::Forbidden("the HMAC or the nonce is wrong");

/// The nonces of one server that are out.
#[derive(Default)]
pub struct Nonces {
    /// With the time of their end, in milliseconds since 1970; the oldest first.
    out: Mutex<VecDeque<(u64, String)>>,
}

/// What the HMAC covers.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The localpart.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
    /// Whether the account may administrate the server.
    pub admin: bool,
    /// Synapse's type of user, where the script gives one.
    pub user_type: Option<&'a str>,
}

impl Nonces {
    /// A new nonce.
    pub fn draw(&self, rng: &mut impl CryptoRng, now_ms: u64) -> String {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        let nonce = hex(&bytes);
        let mut out = self.out.lock();
        while out.len() >= NONCES_MAX || out.front().is_some_and(|(ends_ms, _)| *ends_ms <= now_ms) {
            out.pop_front();
        }
        out.push_back((now_ms.saturating_add(NONCE_MS), nonce.clone()));
        nonce
    }

    /// Checks a request and uses its nonce up, be the HMAC right or wrong. `mac` is in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn check(&self, secret: &str, nonce: &str, wanted: Wanted<'_>, mac: &str, now_ms: u64) -> Result<()> {
        let mut out = self.out.lock();
        let place = out.iter().position(|(ends_ms, known)| known == nonce && now_ms < *ends_ms).ok_or(WRONG)?;
        out.remove(place);
        drop(out);
        let mac = unhex(mac).ok_or(WRONG)?;
        keyed(secret, nonce, wanted)?.verify_slice(&mac).map_err(|_| WRONG)
    }
}

fn keyed(secret: &str, nonce: &str, wanted: Wanted<'_>) -> Result<Hmac<Sha1>> {
    let Wanted { username, password, admin, user_type } = wanted;
    let mut keyed = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_err(|_| Error::Internal("the key of an HMAC"))?;
    let parts = [nonce, username, password, if admin { "admin" } else { "notadmin" }];
    for (number, part) in parts.into_iter().chain(user_type).enumerate() {
        // With NUL between the parts, and none within: else two requests could have the same HMAC.
        if part.contains('\0') {
            return Err(WRONG);
        }
        if number > 0 {
            keyed.update(b"\0");
        }
        keyed.update(part.as_bytes());
    }
    Ok(keyed)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PEPPER: Wanted<'static> = Wanted { username: "pepper", password: "pigs", admin: true, user_type: None };

    #[test]
    fn the_hmac_is_that_of_synapse() {
        // printf 'thisisanonce\0pepper\0pigs\0admin' | openssl sha1 -hmac shared
        let mac = keyed("shared", "thisisanonce", PEPPER).unwrap().finalize().into_bytes();
        assert_eq!(hex(&mac), "6f515b0456059978df739917e06302ef8afb6db0");
    }

    #[test]
    fn a_nonce_is_good_once_and_for_a_minute() {
        let (nonces, mut rng) = (Nonces::default(), rand::rng());
        let mac = |nonce: &str| hex(&keyed("shared", nonce, PEPPER).unwrap().finalize().into_bytes());
        let nonce = nonces.draw(&mut rng, 0);
        assert!(nonces.check("shared", &nonce, PEPPER, &mac(&nonce), 1).is_ok());
        assert!(nonces.check("shared", &nonce, PEPPER, &mac(&nonce), 1).is_err(), "used");
        let nonce = nonces.draw(&mut rng, 0);
        assert!(nonces.check("shared", &nonce, PEPPER, &mac(&nonce), NONCE_MS).is_err(), "too late");
        let nonce = nonces.draw(&mut rng, 0);
        let plain = Wanted { admin: false, ..PEPPER };
        assert!(
            nonces
                .check("shared", &nonce, PEPPER, &hex(&keyed("shared", &nonce, plain).unwrap().finalize().into_bytes()), 1)
                .is_err()
        );
        assert!(nonces.check("shared", "made up", PEPPER, "zz", 1).is_err());
        (0..2 * NONCES_MAX).for_each(|_| drop(nonces.draw(&mut rng, 0)));
        assert_eq!(nonces.out.lock().len(), NONCES_MAX);
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let shifted = Wanted { username: "pepper\0pigs", password: "x", admin: true, user_type: None };
        assert!(keyed("shared", "n", shifted).is_err());
    }
}
