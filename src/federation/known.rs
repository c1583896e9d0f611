//! Rooms that this server is in, as other servers name them.

use protocol::version::RoomVersion;
use rooms::{EventNo, acl, numbers, servers};
use ruma::{OwnedRoomId, RoomId, ServerName};
use serde::Serialize;
use serde_json::value::RawValue;
use store::{Read, RoomNo};

use crate::{Error, Federation, Result};

/// A room that this server is in.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub no: RoomNo,
    pub id: OwnedRoomId,
    pub version: &'static RoomVersion,
}

impl Federation {
    /// A room that this server is in.
    pub(crate) fn known(&self, db: &impl Read, id: &RoomId) -> Result<Option<Known>> {
        let Some(no) = numbers::number(db, id)? else { return Ok(None) };
        if !servers::is_in(db, no, self.name())? {
            return Ok(None);
        }
        Ok(Some(Known { no, id: id.to_owned(), version: numbers::room(db, no)?.version()? }))
    }

    /// A room that this server is in, and that lets the other server take part.
    ///
    /// # Errors
    /// [`rooms::Error::UnknownRoom`]; [`rooms::Error::Forbidden`] where the room's access list denies it.
    pub(crate) fn known_to(&self, db: &impl Read, id: &RoomId, origin: &ServerName) -> Result<Known> {
        let room = self.known(db, id)?.ok_or(rooms::Error::UnknownRoom)?;
        if !acl::allows(db, room.no, origin)? {
            return Err(rooms::Error::Forbidden("The room's access list denies your server").into());
        }
        Ok(room)
    }

    /// [`Federation::known_to`] where the other server is in the room too, or was; and the last event that it may ask for.
    ///
    /// # Errors
    /// As there, and [`rooms::Error::Forbidden`] where it never was.
    pub(crate) fn shared_with(&self, db: &impl Read, id: &RoomId, origin: &ServerName) -> Result<(Known, EventNo)> {
        let room = self.known_to(db, id, origin)?;
        let forbidden = rooms::Error::Forbidden("Your server is not in the room");
        let until = servers::asks_until(db, room.no, origin)?.ok_or(forbidden)?;
        Ok((room, until))
    }
}

/// A JSON text that is one already.
pub(crate) fn raw(json: &str) -> Result<Box<RawValue>> {
    RawValue::from_string(json.to_owned()).map_err(|error| Error::Internal(error.to_string()))
}

/// What is serialised as JSON.
pub(crate) fn written(value: &impl Serialize) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value).map_err(|error| Error::Internal(error.to_string()))
}
