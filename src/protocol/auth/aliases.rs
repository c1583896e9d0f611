//! `m.room.aliases`: rule 4 of versions 1 to 5.

use super::rules::{Grant, Rule};
use super::{Denied, Room, State};

pub(super) fn authorize<S: State>(room: &Room<'_, S>) -> Result<Grant, Denied> {
    // Rule 4.1.
    let Some(state_key) = &room.event.state_key else {
        return Err(room.denied(Rule::AliasesStateKey, "no state key"));
    };
    // Rule 4.2.
    if state_key != room.event.sender.server_name().as_str() {
        return Err(room.denied(Rule::AliasesDomain, "the state key is not the sender's server"));
    }
    // Rule 4.3.
    Ok(Grant::Aliases)
}
