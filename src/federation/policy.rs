//! Asking a room's policy server to recommend an event.
//!
//! Specification: server-server API, "Asking for a Policy Server signature on an event". What it answers is one signature, which is checked by the key that the room
//! names, when the event is received.

use std::time::Duration;

use protocol::{event::Event, keys::POLICY_KEY_ID, parse::RawPdu, sign, verify::Verified};
use rooms::{
    numbers,
    policy::Unsent,
    receive::{self, Outcome},
};
use ruma::{OwnedEventId, ServerName};
use serde_json::Value;
use store::Pending;

use crate::{
    Ask, Error, Federation, Result,
    known::{Known, raw},
    path,
};

/// How long a policy server may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;
/// Why an event is refused that came from elsewhere.
pub(crate) const UNRECOMMENDED: &str = "The room's policy server does not recommend this";

/// A refusal as that of a policy server.
pub(crate) fn as_policy(error: Error) -> Error {
    match error {
        Error::Refused(refusal) => Error::Policy(refusal),
        error => error,
    }
}

impl Federation {
    /// The event with the signature of a policy server.
    ///
    /// # Errors
    /// Those of the policy server.
    pub(crate) async fn recommended(&self, policy: &ServerName, room: &Known, event: &Event) -> Result<Verified> {
        let ask = Ask::post(path(&["_matrix", "policy", "v1", "sign"]), &raw(&event.json)?)?;
        let answer: Value = self.call(policy, ask.timeout(ANSWER_TIME).body_max(ANSWER_MAX)).await?;
        let signature = answer.get(policy.as_str()).and_then(|keys| keys.get(POLICY_KEY_ID)).and_then(Value::as_str);
        let signature = signature.ok_or_else(|| Error::BadAnswer("no signature".to_owned()))?;
        let mut object = event.object().map_err(rooms::Error::from)?;
        sign::add_signature(&mut object, policy.as_str(), POLICY_KEY_ID, signature.to_owned());
        let signed = self.verify(vec![RawPdu::from_object(object)], room.version).await?.pop();
        signed.and_then(std::result::Result::ok).ok_or_else(|| Error::BadAnswer("a signature that cannot be added".to_owned()))
    }

    /// What a local user sends, once it is on disk; where the room's policy server has to sign it first, it is asked, and `done` makes the result of the
    /// event's id.
    ///
    /// # Errors
    /// As [`Federation::send_recommended`].
    pub async fn sent<T>(&self, sending: rooms::Result<Pending<T>>, done: impl FnOnce(OwnedEventId) -> T) -> Result<T> {
        match sending {
            Err(rooms::Error::Unsigned(unsent)) => self.send_recommended(*unsent).await.map(done),
            sending => Ok(sending?.durable().await?),
        }
    }

    /// Sends an event of a local user once the room's policy server recommends it.
    ///
    /// # Errors
    /// [`Error::Policy`] where it does not; those of sending, and of asking it.
    pub async fn send_recommended(&self, unsent: Unsent) -> Result<OwnedEventId> {
        let db = self.store.snapshot();
        let room = numbers::room(&db, unsent.room)?;
        let known = Known { no: unsent.room, id: room.id.clone(), version: room.version()? };
        let signed = self.recommended(&unsent.policy, &known, &unsent.event).await.map_err(as_policy)?;
        Ok(receive::send_signed(&self.store, &self.identity, unsent, self.now_ms(), signed)?.durable().await?)
    }

    /// Receives an event that this server answers for and tells others of, with the recommendation of the room's policy server, where there is one.
    pub(crate) async fn tell_recommended(&self, room: &Known, event: Verified) -> Result<Outcome> {
        let tell = |event| receive::receive_and_tell(&self.store, &self.identity, room.no, event);
        match tell(event.clone())?.durable().await? {
            Outcome::Unsigned(policy) => {
                let signed = self.recommended(&policy, room, event.event()).await.map_err(as_policy)?;
                Ok(tell(signed)?.durable().await?)
            }
            outcome => Ok(outcome),
        }
    }
}
