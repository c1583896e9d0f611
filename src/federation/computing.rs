//! Where work runs that computes long: an argument, so that a simulation goes the same way again.

use std::{fmt, sync::Arc, time::Duration};

use tokio::task::JoinError;

/// Where work runs that computes long.
#[derive(Clone, Default)]
pub enum Computing {
    /// Beside the threads that serve requests.
    #[default]
    Beside,
    /// Where it is asked for, after a time that this draws: nothing depends on how threads are scheduled.
    Simulated(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl Computing {
    /// Runs it.
    ///
    /// # Errors
    /// Where it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        let span = tracing::Span::current();
        let work = move || span.in_scope(work);
        match self {
            Self::Beside => tokio::task::spawn_blocking(work).await,
            Self::Simulated(took) => {
                tokio::time::sleep(took()).await;
                Ok(work())
            }
        }
    }
}

impl fmt::Debug for Computing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beside => "Beside",
            Self::Simulated(_) => "Simulated",
        })
    }
}
