//! Passwords: what may be one, and how it is kept.
//!
//! [`hash`] and [`matches`] take tens of milliseconds and tens of MiB by design: run them on the bounded blocking pool,
//! never within a transaction or on an async thread.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use rand::CryptoRng;

use crate::{Error, Result};

/// The shortest password, in characters, where nothing else is configured. Length is what counts (NIST SP 800-63B); what kinds of characters does not.
pub const LENGTH_MIN: usize = 8;
/// The longest password in bytes, so that hashing one has a bounded cost.
pub const LENGTH_MAX_BYTES: usize = 512;

/// Argon2id with the memory, passes and lanes of OWASP's first recommendation: 19 MiB, 2, 1.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The most memory that a stored hash may ask for, as one brought from another server: 256 MiB.
const MEMORY_MAX_KIB: u32 = 256 * 1024;
/// The most passes that a stored hash may ask for.
const PASSES_MAX: u32 = 16;

/// A password hash in PHC form, as `$argon2id$v=19$m=19456,t=2,p=1$...`. No `Debug`: it must not reach a log.
#[derive(Clone)]
pub struct Hashed(pub(crate) String);

impl Hashed {
    /// A hash that another server made, to be stored as it is; `None` where [`matches`] would not understand it.
    #[must_use]
    pub fn imported(phc: String) -> Option<Self> {
        let hashed = Self(phc);
        if readable(&hashed).is_some() { Some(hashed) } else { None }
    }
}

/// Refuses what may not be a password: what is shorter than this, in characters, or too long to be hashed.
///
/// # Errors
/// [`Error::WeakPassword`].
pub fn check(password: &str, length_min: usize) -> Result<()> {
    if password.len() > LENGTH_MAX_BYTES {
        return Err(Error::WeakPassword(format!("a password has at most {LENGTH_MAX_BYTES} bytes")));
    }
    if password.chars().count() < length_min {
        return Err(Error::WeakPassword(format!("a password has at least {length_min} characters")));
    }
    Ok(())
}

/// The hash to keep of a password.
///
/// # Errors
/// [`Error::Internal`] where memory is out.
pub fn hash(password: &str, rng: &mut impl CryptoRng) -> Result<Hashed> {
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    hash_with(password, &salt)
}

fn hash_with(password: &str, salt: &[u8]) -> Result<Hashed> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| Error::Internal("the parameters of argon2"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hashed = argon2.hash_password_with_salt(password.as_bytes(), salt);
    Ok(Hashed(hashed.map_err(|_| Error::Internal("the hash of a password"))?.to_string()))
}

/// Whether this is the password, compared in constant time. A hash that cannot be read matches nothing. Without a stored
/// hash it takes as long as with one, so that time does not tell which accounts exist or have a password.
///
/// Other algorithms of imported accounts (bcrypt, `$2b$`) belong here, told apart by the prefix of the hash.
#[must_use]
pub fn matches(password: &str, stored: Option<&Hashed>) -> bool {
    if password.len() > LENGTH_MAX_BYTES {
        return false;
    }
    match stored.map(readable) {
        Some(Some(stored)) => Argon2::default().verify_password(password.as_bytes(), &stored).is_ok(),
        Some(None) => {
            tracing::warn!("a stored password hash cannot be read: reset the password");
            false
        }
        None => {
            let _ = std::hint::black_box(hash_with(password, &[0; 16]));
            false
        }
    }
}

fn readable(stored: &Hashed) -> Option<PasswordHash> {
    let parsed = PasswordHash::new(&stored.0).ok()?;
    let params = Params::try_from(&parsed).ok()?;
    let affordable = params.m_cost() <= MEMORY_MAX_KIB && params.t_cost() <= PASSES_MAX;
    (affordable && Algorithm::try_from(parsed.algorithm.as_str()).is_ok()).then_some(parsed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let mut rng = rand::rng();
        let (one, two) = (hash("correct horse", &mut rng).unwrap(), hash("correct horse", &mut rng).unwrap());
        assert!(one.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", one.0);
        assert_ne!(one.0, two.0, "salted");
        assert!(matches("correct horse", Some(&one)) && matches("correct horse", Some(&two)));
        assert!(!matches("correct hors", Some(&one)));
        assert!(!matches("", Some(&one)));
        assert!(!matches("correct horse", None));
    }

    #[test]
    fn hostile_hashes_match_nothing_and_cost_nothing() {
        let bombs = ["", "plain", "$argon2id$v=19$m=4294967295,t=4294967295,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", "$2b$12$abc"];
        for bomb in bombs {
            assert!(Hashed::imported(bomb.into()).is_none(), "{bomb}");
            assert!(!matches("password", Some(&Hashed(bomb.into()))));
        }
    }

    #[test]
    fn length_is_the_policy() {
        assert!(check("sesame", LENGTH_MIN).is_err());
        assert!(check("пароль12", LENGTH_MIN).is_ok());
        assert!(check(&"x".repeat(513), LENGTH_MIN).is_err());
    }
}
