//! Passwords on their way through an operation.

use serde::{Deserialize, Serialize};

/// A password in the clear, given by an administrator or drawn for one. No `Debug`: it must not reach a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);
