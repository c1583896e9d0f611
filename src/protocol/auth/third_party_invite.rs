//! `m.room.third_party_invite`: rule 7.

use super::rules::{Grant, Rule};
use super::{Denied, Room, State};
use crate::power_levels::PowerLevels;

pub(super) fn authorize<S: State>(room: &Room<'_, S>, levels: &PowerLevels<'_>) -> Result<Grant, Denied> {
    let malformed = |malformed| room.malformed(Rule::ThirdPartyInvitePower, malformed);
    // Rule 7.1.
    if levels.user(&room.event.sender).map_err(malformed)? < levels.invite().map_err(malformed)? {
        return Err(room.denied(Rule::ThirdPartyInvitePower, "the sender may not invite"));
    }
    Ok(Grant::ThirdPartyInvite)
}
