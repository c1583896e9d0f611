//! Refused events in the log: for an administrator who asks why something is not seen. `hearth room why` tells of them afterwards.

use store::RoomNo;

use crate::{
    events::{Standing, StoredEvent},
    numbers::Room,
};

/// Notes that an event was refused, by which rule and why. Other servers can send such without end, so it is said only where one asks for it.
pub(crate) fn log((no, room): (RoomNo, &Room), stored: &StoredEvent) {
    let (how, reason) = match &stored.header.standing {
        Standing::Rejected(reason) => ("rejected", reason),
        Standing::SoftFailed(reason) => ("soft-failed", reason),
        Standing::Accepted | Standing::Outlier => return,
    };
    let (event, kind, sender) = (&stored.header.id, &stored.event.kind, &stored.event.sender);
    tracing::debug!(target: "refused", room = %room.id, room_no = no.0, %event, kind, %sender, reason, "an event was {how}");
}
