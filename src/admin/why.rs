//! Why a user is what they are in a room, told a part of its events at a time, so that a running server is not kept from its work.

use rand::rngs::StdRng;
use rooms::{
    EventNo, numbers,
    why::{self, Standpoint, Step},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{Error, Homeserver, Operation, Result};

/// The most events that one part looks at.
const PART_MAX: u32 = 1_000;

/// Explains a user's membership and power level in a room.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The room.
    pub room: OwnedRoomId,
    /// The user.
    pub user: OwnedUserId,
    /// Where the part before ended.
    #[serde(default)]
    pub after: EventNo,
}

/// A part of the explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What the user is now.
    pub now: Standpoint,
    /// What came of the events of this part, in the order in which they came.
    pub steps: Vec<Step>,
    /// How to go on; none at the end.
    pub next: Option<EventNo>,
}

impl Operation for Why {
    const NAME: &'static str = "room_why";
    type Output = Part;

    fn run(self, server: &Homeserver, _: u64, _: &mut StdRng) -> Result<Part> {
        let db = server.store.snapshot();
        let no = numbers::number(&db, &self.room)?.ok_or_else(|| Error::NoSuchRoom(self.room.to_string()))?;
        let found = why::steps(&db, no, &self.user, self.after, PART_MAX)?;
        Ok(Part { now: why::now(&db, no, &self.user)?, steps: found.steps, next: found.more_after })
    }
}
