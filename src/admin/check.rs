//! Checks that what is stored holds together, a part at a time, so that a running server is not kept from its work.

use rand::rngs::StdRng;
use rooms::{EventNo, check, numbers};
use ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};
use store::{Read, RoomNo};

use crate::{Error, Homeserver, Operation, Result};

/// The most events of one part.
const PART_MAX: u32 = 1_000;

/// Checks a part of the rooms.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Only this room.
    #[serde(default)]
    pub room: Option<OwnedRoomId>,
    /// Where the part before ended.
    #[serde(default)]
    pub after: Option<Cursor>,
}

/// Where a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    room: RoomNo,
    /// The last event that was checked, of a room with more of them.
    event: Option<EventNo>,
}

impl Cursor {
    /// Whether it stands behind the last event of a room.
    #[must_use]
    pub fn ends_a_room(&self) -> bool {
        self.event.is_none()
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The room that was checked; none where there are no more.
    pub room: Option<OwnedRoomId>,
    /// How many of its events.
    pub events: usize,
    /// How many of these are signed only with keys that are not known here.
    pub unknown_keys: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// How to go on; none at the end.
    pub next: Option<Cursor>,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The room.
    pub room: OwnedRoomId,
    /// The event, where it is about one.
    pub event: Option<OwnedEventId>,
    /// What is wrong.
    pub what: String,
}

impl Operation for Check {
    const NAME: &'static str = "check";
    type Output = Part;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Part> {
        let db = server.store.snapshot();
        let Some((no, event)) = self.begin(&db)? else {
            return Ok(Part::default());
        };
        let id = numbers::room(&db, no)?.id.clone();
        let checked = check::events(&db, no, event, PART_MAX)?;
        let signatures = check::signatures(&db, no, event, PART_MAX, &server.keys)?;
        let mut faults = checked.faults;
        faults.extend(signatures.faults);
        if checked.more_after.is_none() {
            faults.extend(check::end(&db, no)?);
        }
        let more = checked.more_after.is_some() || self.room.is_none();
        let fault = |fault: check::Fault| Fault { room: id.clone(), event: fault.event, what: fault.what };
        Ok(Part {
            events: checked.events,
            unknown_keys: signatures.unknown,
            faults: faults.into_iter().map(fault).collect(),
            next: more.then_some(Cursor { room: no, event: checked.more_after }),
            room: Some(id),
        })
    }
}

impl Check {
    /// The room of this part, and the event after which it begins.
    fn begin(&self, db: &impl Read) -> Result<Option<(RoomNo, EventNo)>> {
        if let Some(Cursor { room, event: Some(event) }) = self.after {
            return Ok(Some((room, event)));
        }
        if let Some(room) = &self.room {
            let no = numbers::number(db, room)?.ok_or_else(|| Error::NoSuchRoom(room.to_string()))?;
            return Ok(Some((no, EventNo::default())));
        }
        let after = self.after.map_or(RoomNo(0), |cursor| cursor.room);
        let next = numbers::rooms(db, after)?.next().transpose()?;
        Ok(next.map(|(no, _)| (no, EventNo::default())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{ask, homeserver};

    #[test]
    fn a_server_without_rooms_is_well() {
        let part = ask(&homeserver(), &Check::default()).unwrap();
        assert_eq!(part, Part::default());
        let unknown = Check { room: Some("!nowhere:hearth.test".try_into().unwrap()), after: None };
        assert!(matches!(ask(&homeserver(), &unknown), Err(Error::NoSuchRoom(_))));
    }
}
