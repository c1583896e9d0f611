//! Events of other servers: parsed, and believed once their signatures are checked with keys that were fetched for all at once.

use std::sync::Arc;

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
        let parse = move || raw.into_iter().map(|pdu| pdu.parse(version)).collect::<Vec<_>>();
        let parsed: Vec<std::result::Result<Parsed, PduError>> = self.computed(parse).await?;
        let mut wanted = Wanted::default();
        for event in parsed.iter().flatten() {
            for (server, key_id) in event.wanted_keys() {
                wanted.add(server, key_id, event.event().origin_server_ts);
            }
        }
        let keys = Arc::new(self.fetch_keys(wanted).await?);
        let verify = move || {
            let verified = |event: Parsed| event.verify(|server, key_id| keys.key(server, key_id)).map_err(Unverified::from);
            parsed.into_iter().map(|event| verified(event?)).collect()
        };
        self.computed(verify).await
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
