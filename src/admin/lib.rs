//! Named operations of administrators: typed input, typed output, used alike by the command line, the administration API and the
//! console.
//!
//! An operation is a struct, its input, with a name and an output ([`Operation`]). The operator's socket finds it by name
//! ([`run`]); code that knows its type calls it directly. Operations are synchronous, and some compute for long (password
//! hashes): run them off the async threads.

pub mod check;
mod error;
pub mod graph;
pub mod jobs;
pub mod purge;
pub mod registration_tokens;
mod secret;
pub mod users;
pub mod why;

use std::sync::Arc;

use protocol::verify::VerifyKey;
use rand::rngs::StdRng;
use ruma::{OwnedServerName, ServerName};
use serde::{Serialize, de::DeserializeOwned};
use store::Store;

pub use error::{Error, Result};
pub use secret::Secret;

/// Gives a server's key by its id, where it is known.
pub type KnownKeys = Box<dyn Fn(&ServerName, &str) -> Option<VerifyKey> + Send + Sync>;

/// The homeserver that is administrated, running or not.
pub struct Homeserver {
    /// Its name in identifiers.
    pub name: OwnedServerName,
    /// All that is stored.
    pub store: Arc<Store>,
    /// The keys with which events can be checked: its own, and what is known of others'.
    pub keys: KnownKeys,
    /// What its background jobs do, where it is running.
    pub jobs: Option<Arc<jobs::Board>>,
}

/// What an administrator does: the input, and what comes of it.
pub trait Operation: Serialize + DeserializeOwned {
    /// The name, as `users_create`.
    const NAME: &'static str;
    /// What is told to the administrator.
    type Output: Serialize + DeserializeOwned;

    /// Does it, durably.
    ///
    /// # Errors
    /// [`Error`]: nothing was changed.
    fn run(self, server: &Homeserver, now_ms: u64, rng: &mut StdRng) -> Result<Self::Output>;
}

type Entry = (&'static str, fn(&[u8], &Homeserver, u64, &mut StdRng) -> Result<Vec<u8>>);

const fn entry<O: Operation>() -> Entry {
    (O::NAME, run_encoded::<O>)
}

/// All operations.
const OPERATIONS: &[Entry] = &[
    entry::<check::Check>(),
    entry::<jobs::List>(),
    entry::<registration_tokens::Create>(),
    entry::<registration_tokens::Delete>(),
    entry::<registration_tokens::List>(),
    entry::<graph::Graph>(),
    entry::<purge::Purge>(),
    entry::<why::Why>(),
    entry::<users::Create>(),
    entry::<users::Deactivate>(),
    entry::<users::List>(),
    entry::<users::ResetPassword>(),
    entry::<users::SetAdmin>(),
];

/// The names of all operations.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name)
}

/// Runs the operation of this name. Input and output are JSON.
///
/// # Errors
/// [`Error::UnknownOperation`], [`Error::BadInput`], and what the operation says.
pub fn run(name: &str, input: &[u8], server: &Homeserver, now_ms: u64, rng: &mut StdRng) -> Result<Vec<u8>> {
    let (_, run) = OPERATIONS.iter().find(|(known, _)| *known == name).ok_or(Error::UnknownOperation)?;
    run(input, server, now_ms, rng)
}

fn run_encoded<O: Operation>(input: &[u8], server: &Homeserver, now_ms: u64, rng: &mut StdRng) -> Result<Vec<u8>> {
    let operation: O = serde_json::from_slice(input).map_err(|error| Error::BadInput(error.to_string()))?;
    tracing::info!(operation = O::NAME, "an administrator's operation");
    let output = operation.run(server, now_ms, rng)?;
    serde_json::to_vec(&output).map_err(|error| Error::Internal(error.to_string()))
}

#[cfg(test)]
mod testing {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng as _;

    use super::*;

    /// A server in memory.
    pub(crate) fn homeserver() -> Homeserver {
        let tables = [::users::TABLES, rooms::TABLES, media::TABLES].concat();
        let store = Arc::new(Store::in_memory("hearth.test", &tables).unwrap());
        Homeserver { name: "hearth.test".try_into().unwrap(), store, keys: Box::new(|_, _| None), jobs: None }
    }

    /// Runs an operation as the socket does: by name, through JSON.
    pub(crate) fn ask<O: Operation>(server: &Homeserver, operation: &O) -> Result<O::Output> {
        let input = serde_json::to_vec(operation).unwrap();
        let output = run(O::NAME, &input, server, 1_000, &mut StdRng::seed_from_u64(1))?;
        Ok(serde_json::from_slice(&output).unwrap())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn names_are_unique_and_in_order() {
        assert!(names().is_sorted_by(|one, other| one < other));
    }

    #[test]
    fn what_is_no_operation_or_no_input_is_refused() {
        let (server, mut rng) = (testing::homeserver(), StdRng::seed_from_u64(1));
        let mut run = |name: &str, input: &[u8]| super::run(name, input, &server, 0, &mut rng).unwrap_err();
        assert!(matches!(run("users_explode", b"{}"), Error::UnknownOperation));
        assert!(matches!(run("users_create", b"{"), Error::BadInput(_)));
        assert!(matches!(run("users_create", b"{\"username\":\"a\",\"admin\":false,\"root\":1}"), Error::BadInput(_)));
        assert!(matches!(run("jobs_list", b"{}"), Error::NotRunning));
    }
}
