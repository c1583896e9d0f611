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
        check_acl(db, &room, origin)?;
        Ok(room)
    }

    /// A room in which both servers are or were, and the last of its events that the other may ask for. What the last user of this server did in it was
    /// told to others, who may lack what it cites.
    ///
    /// # Errors
    /// As [`Federation::known_to`], and [`rooms::Error::Forbidden`] where the other never was in it.
    pub(crate) fn shared_with(&self, db: &impl Read, id: &RoomId, origin: &ServerName) -> Result<(Known, EventNo)> {
        let no = numbers::number(db, id)?.ok_or(rooms::Error::UnknownRoom)?;
        servers::asks_until(db, no, self.name())?.ok_or(rooms::Error::UnknownRoom)?;
        let room = Known { no, id: id.to_owned(), version: numbers::room(db, no)?.version()? };
        check_acl(db, &room, origin)?;
        let forbidden = rooms::Error::Forbidden("Your server is not in the room");
        let until = servers::asks_until(db, room.no, origin)?.ok_or(forbidden)?;
        Ok((room, until))
    }
}

fn check_acl(db: &impl Read, room: &Known, origin: &ServerName) -> Result<()> {
    match acl::allows(db, room.no, origin)? {
        true => Ok(()),
        false => Err(rooms::Error::Forbidden("The room's access list denies your server").into()),
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
