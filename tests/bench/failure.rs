//! What can stop a scenario. Failed sends in a measured phase do not: they are counted.

use std::time::Duration;

/// Why a request or a whole scenario failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// No connection.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The connection broke, or did not speak HTTP.
    #[error("{request}: {cause}")]
    Broken {
        /// Method and path.
        request: String,
        /// What went wrong on the wire.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{request}: no answer within {after:?}")]
    Timeout {
        /// Method and path.
        request: String,
        /// How long the generator waited.
        after: Duration,
    },
    /// An answer other than 200.
    #[error("{request}: {status} {body}")]
    Refused {
        /// Method and path.
        request: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the answer, which is a standard error response.
        body: String,
    },
    /// An answer of 200 that is not what the specification says.
    #[error("{request}: unexpected answer: {cause}")]
    Malformed {
        /// Method and path without query.
        request: String,
        /// What the parser said.
        cause: serde_json::Error,
    },
    /// The server's process cannot be started, measured or stopped.
    #[error("the server's process: {0}")]
    Process(String),
    /// A task of the generator itself died.
    #[error("a task of the generator died: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The result cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}
