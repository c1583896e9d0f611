//! `m.room.power_levels`: rule 10.

use std::collections::BTreeMap;

use ruma::UserId;

use super::rules::{Grant, Rule};
use super::{Denied, Room, State};
use crate::power_levels::{Malformed, Named, Power, PowerLevels, is_creator};

type Levels<'a> = BTreeMap<&'a str, i64>;

/// `current` are the room's levels, or `None` where it has no `m.room.power_levels`; `power` is the sender's by them.
pub(super) fn authorize<S: State>(room: &Room<'_, S>, current: Option<&PowerLevels<'_>>, power: Power) -> Result<Grant, Denied> {
    let new = room.power_levels(Some(room.event), Rule::LevelsUsers)?;
    if room.version.integer_power_levels {
        check_integers(room, &new)?;
    }
    let new_users = check_users(room, &new)?;
    // Rule 10.5.
    let Some(current) = current else { return Ok(Grant::LevelsFirst) };
    check_named(room, current, &new, power)?;
    check_entries(room, PowerLevels::events, current, &new, power)?;
    if room.version.notification_levels_checked {
        check_entries(room, PowerLevels::notifications, current, &new, power)?;
    }
    let current_users = current.users().map_err(|malformed| room.malformed(Rule::LevelsUsers, malformed))?;
    check_user_changes(room, &current_users, &new_users, power)?;
    // Rule 10.11.
    Ok(Grant::Levels)
}

fn check_integers<S: State>(room: &Room<'_, S>, new: &PowerLevels<'_>) -> Result<(), Denied> {
    // Rule 10.1.
    for name in Named::ALL {
        new.explicit(name).map_err(|malformed| room.malformed(Rule::LevelsNamed, malformed))?;
    }
    // Rule 10.2.
    let malformed = |malformed| room.malformed(Rule::LevelsMaps, malformed);
    new.events().map_err(malformed)?;
    new.notifications().map_err(malformed)?;
    Ok(())
}

fn check_users<'b, S: State>(room: &Room<'_, S>, new: &PowerLevels<'b>) -> Result<Levels<'b>, Denied> {
    let users = new.users().map_err(|malformed| room.malformed(Rule::LevelsUsers, malformed))?;
    for user in users.keys() {
        // Rule 10.3.
        let Ok(user) = <&UserId>::try_from(*user) else {
            return Err(room.denied(Rule::LevelsUsers, "a key of users is no user id"));
        };
        // Rule 10.4.
        if room.version.version_12 && is_creator(room.version, room.create, user) {
            return Err(room.denied(Rule::LevelsCreators, "users may not list a creator"));
        }
    }
    Ok(users)
}

/// Rule 10.6. An absent property counts with its default.
fn check_named<S: State>(
    room: &Room<'_, S>,
    current: &PowerLevels<'_>,
    new: &PowerLevels<'_>,
    power: Power,
) -> Result<(), Denied> {
    let malformed = |malformed| room.malformed(Rule::LevelsNamed, malformed);
    for name in Named::ALL {
        let (old, new) = (current.explicit(name).map_err(malformed)?, new.explicit(name).map_err(malformed)?);
        if old == new {
            continue;
        }
        if power < old.unwrap_or(name.default_level()) {
            return Err(room.denied(Rule::LevelsNamedCurrent, format!("{} is above the sender", name.as_str())));
        }
        if power < new.unwrap_or(name.default_level()) {
            return Err(room.denied(Rule::LevelsNamedNew, format!("{} would be above the sender", name.as_str())));
        }
    }
    Ok(())
}

/// Rules 10.7 and 10.8, of `events` or `notifications`.
fn check_entries<'b, S: State>(
    room: &Room<'_, S>,
    entries: impl Fn(&PowerLevels<'b>) -> Result<Levels<'b>, Malformed>,
    current: &PowerLevels<'b>,
    new: &PowerLevels<'b>,
    power: Power,
) -> Result<(), Denied> {
    let malformed = |malformed| room.malformed(Rule::LevelsMaps, malformed);
    let (current, new) = (entries(current).map_err(malformed)?, entries(new).map_err(malformed)?);
    for (key, old) in changed(&current, &new) {
        if power < old {
            return Err(room.denied(Rule::LevelsEntryCurrent, format!("the level of {key} is above the sender")));
        }
    }
    for (key, level) in changed(&new, &current) {
        if power < level {
            return Err(room.denied(Rule::LevelsEntryNew, format!("the level of {key} would be above the sender")));
        }
    }
    Ok(())
}

/// Rules 10.9 and 10.10.
fn check_user_changes<S: State>(room: &Room<'_, S>, current: &Levels<'_>, new: &Levels<'_>, power: Power) -> Result<(), Denied> {
    for (user, old) in changed(current, new) {
        if power <= old && user != room.event.sender.as_str() {
            return Err(room.denied(Rule::LevelsUserCurrent, format!("{user} is not below the sender")));
        }
    }
    for (user, level) in changed(new, current) {
        if power < level {
            return Err(room.denied(Rule::LevelsUserNew, format!("{user} would be above the sender")));
        }
    }
    Ok(())
}

/// The entries of `these` that `others` lacks or has with another level.
fn changed<'m>(these: &'m Levels<'_>, others: &'m Levels<'_>) -> impl Iterator<Item = (&'m str, i64)> {
    these.iter().filter(|(key, level)| others.get(*key) != Some(level)).map(|(key, level)| (*key, *level))
}
