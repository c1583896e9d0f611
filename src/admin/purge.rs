//! Removes a room with all that is stored of it, a part at a time.

use rand::rngs::StdRng;
use rooms::purge::{self, Step};
use ruma::OwnedRoomId;
use serde::{Deserialize, Serialize};

use crate::{Error, Homeserver, Operation, Result};

/// Does a part of the purge of a room that nobody of this server is in. What is begun is finished by a job, should nobody ask again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// The room.
    pub room: OwnedRoomId,
}

/// What a part came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Of how many users or events the rows are gone.
    pub removed: usize,
    /// Whether the room is gone.
    pub done: bool,
}

impl Operation for Purge {
    const NAME: &'static str = "room_purge";
    type Output = Part;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Part> {
        let no = purge::begin(&server.store, &server.name, &self.room).map_err(|error| match error {
            rooms::Error::UnknownRoom => Error::NoSuchRoom(self.room.to_string()),
            other => other.into(),
        })?;
        Ok(match purge::step(&server.store, &server.name, no)? {
            Step::More(removed) => Part { removed, done: false },
            Step::Done => Part { removed: 0, done: true },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        graph::Graph,
        testing::{ask, homeserver},
        why::Why,
    };

    #[test]
    fn a_room_that_is_not_known_is_named() {
        let (server, room) = (homeserver(), OwnedRoomId::try_from("!nowhere:hearth.test").unwrap());
        let refused = |error: Error| matches!(&error, Error::NoSuchRoom(named) if *named == *room);
        assert!(refused(ask(&server, &Purge { room: room.clone() }).unwrap_err()));
        assert!(refused(ask(&server, &Graph { room: room.clone(), last: 10 }).unwrap_err()));
        let why = Why { room: room.clone(), user: "@alice:hearth.test".try_into().unwrap(), after: Default::default() };
        assert!(refused(ask(&server, &why).unwrap_err()));
    }
}
