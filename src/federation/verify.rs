//! Events of other servers: parsed, and believed once their signatures are checked with keys that were fetched for all at once.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use protocol::{
    json::Object,
    parse::{PduError, RawPdu},
    verify::{Parsed, Verified, VerifyError},
    version::RoomVersion,
};

use crate::{Error, Federation, Result, keys::Wanted};

/// Why an event cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// It is no event of its room version.
    #[error(transparent)]
    Pdu(#[from] PduError),
    /// Its signatures do not hold, or the keys are not to be had.
    #[error(transparent)]
    Signature(#[from] VerifyError),
}

/// The fewest events that are worth another thread.
const AT_ONCE_MIN: usize = 8;
/// The most events that are parsed or verified by one thread without a break.
const AT_ONCE_MAX: usize = 16;
/// Threads that parse or verify the events of one request.
const THREADS_MAX: usize = 4;

impl Federation {
    /// Parses and verifies events of one room version, in their order. Each fails alone.
    ///
    /// # Errors
    /// Only where Hearth fails.
    pub async fn verify(
        &self,
        raw: Vec<RawPdu>,
        version: &'static RoomVersion,
    ) -> Result<Vec<std::result::Result<Verified, Unverified>>> {
        self.verify_read(raw, Ok, version).await
    }

    /// [`Federation::verify`] of what `read` reads as events: none is held as an object for longer than it takes to parse it.
    pub(crate) async fn verify_read<T: Send + 'static>(
        &self,
        raw: Vec<T>,
        read: impl Fn(T) -> std::result::Result<RawPdu, PduError> + Clone + Send + 'static,
        version: &'static RoomVersion,
    ) -> Result<Vec<std::result::Result<Verified, Unverified>>> {
        let parsed: Vec<std::result::Result<Parsed, PduError>> =
            self.computed_each(raw, move |raw| read(raw).and_then(|pdu| pdu.parse(version))).await?;
        let mut wanted = Wanted::default();
        for event in parsed.iter().flatten() {
            for (server, key_id) in event.wanted_keys() {
                wanted.add(server, key_id, event.event().origin_server_ts);
            }
        }
        let keys = Arc::new(self.fetch_keys(wanted).await?);
        let verify = move |event: std::result::Result<Parsed, PduError>| {
            event?.verify(|server, key_id| keys.key(server, key_id)).map_err(Unverified::from)
        };
        self.computed_each(parsed, verify).await
    }

    /// Runs what computes long for each of these, on several threads where there are many, and gives what came of them in their order.
    async fn computed_each<T: Send + 'static, U: Send + 'static>(
        &self,
        items: Vec<T>,
        work: impl Fn(T) -> U + Clone + Send + 'static,
    ) -> Result<Vec<U>> {
        let mut done = Vec::with_capacity(items.len());
        // In parts of one size: none is left over for one thread while the others wait.
        let parts = (items.len() / AT_ONCE_MIN).clamp(1, THREADS_MAX).max(items.len().div_ceil(AT_ONCE_MAX));
        let at_once = items.len().div_ceil(parts);
        let mut items = items.into_iter().peekable();
        let parts = std::iter::from_fn(move || {
            items.peek()?;
            Some(items.by_ref().take(at_once).collect::<Vec<T>>())
        });
        let computing = parts.map(|part| {
            self.computed({
                let work = work.clone();
                move || part.into_iter().map(work).collect::<Vec<U>>()
            })
        });
        let mut computed = stream::iter(computing).buffered(THREADS_MAX);
        while let Some(part) = computed.next().await {
            done.extend(part?);
        }
        Ok(done)
    }

    /// Runs what computes long.
    pub(crate) async fn computed<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.computing.run(work).await.map_err(|error| Error::Internal(error.to_string()))
    }

    /// Parses and verifies one event that another server asks this one to take or to sign.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where it cannot be believed.
    pub(crate) async fn verify_one(&self, event: Object, version: &'static RoomVersion) -> Result<Verified> {
        let verified = self.verify(vec![RawPdu::from_object(event)], version).await?.pop();
        let verified = verified.ok_or(Error::Internal("an event without an answer".to_owned()))?;
        verified.map_err(|error| Error::BadRequest(error.to_string()))
    }
}
