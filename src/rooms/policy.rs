//! Policy servers: who has to recommend the events of a room before they are sent or shown.
//!
//! Specification: server-server API, "Policy Servers". The recommendation is a signature by the key that the room's current state names. Nothing here
//! waits: an event without it is handed back, for the caller to ask, and comes again.

use std::sync::Arc;

use protocol::{
    event::Event,
    keys::{POLICY_KEY_ID, PublicKey},
    sign,
    version::RoomVersion,
};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use store::{Read, RoomNo, UserNo};

use crate::{
    Result,
    events::Txn,
    head::OpenRoom,
    servers,
    state::{self, Root},
};

const KIND: &str = "m.room.policy";

/// The policy server of a room.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name.
    pub server: OwnedServerName,
    /// Its key, where the room names one that can be.
    key: Option<PublicKey>,
}

impl Policy {
    /// Whether it recommends an event by its signature.
    fn recommends(&self, event: &Event, version: &RoomVersion) -> bool {
        let (Some(key), Ok(object)) = (&self.key, event.object()) else { return false };
        sign::verify_event(&object, version, &self.server, POLICY_KEY_ID, key).is_ok()
    }
}

/// An event of a local user that the room's policy server has to recommend before it is sent.
#[derive(Clone, Debug)]
pub struct Unsent {
    /// The room.
    pub room: RoomNo,
    /// The event, with the signature of this server.
    pub event: Arc<Event>,
    /// The policy server.
    pub policy: OwnedServerName,
    /// The transaction that asked for it.
    pub(crate) txn: Option<(UserNo, Txn)>,
}

/// The policy server that a state of a room designates: one that is in the room.
///
/// # Errors
/// As the database says.
pub fn policy(db: &impl Read, room: RoomNo, root: Root) -> Result<Option<Policy>> {
    #[derive(Deserialize)]
    struct Content {
        via: String,
        public_keys: Keys,
    }
    #[derive(Deserialize)]
    struct Keys {
        ed25519: String,
    }
    let Some(Content { via, public_keys }) = state::content(db, room, root, KIND, "")? else { return Ok(None) };
    let Ok(server) = ServerName::parse(via) else { return Ok(None) };
    if !servers::is_in(db, room, &server)? {
        return Ok(None);
    }
    Ok(Some(Policy { server, key: PublicKey::from_either_base64(&public_keys.ed25519).ok() }))
}

/// The policy server that is still to recommend an event at the end of a room, if there is one.
pub(crate) fn to_ask(room: &OpenRoom<'_, '_>, event: &Event) -> Result<Option<OwnedServerName>> {
    if event.state_pair() == Some((KIND, "")) {
        return Ok(None);
    }
    let policy = policy(room.tx, room.no, room.head.state)?;
    Ok(policy.filter(|policy| !policy.recommends(event, room.version)).map(|policy| policy.server))
}
