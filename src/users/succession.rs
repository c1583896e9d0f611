//! What a user has set for a room goes over to the room that replaces it: push rules, tags, and that it is a direct chat.
//!
//! Specification: client-server API, "Room Upgrades", server behaviour. What the user has set for the new room already stays.

use ruma::{
    RoomId,
    push::{PushCondition, Ruleset},
};
use serde_json::{Map, Value};
use store::{RoomNo, Tx, UserNo};

use crate::{
    Error, Result,
    account_data::{self, TAG},
    push_rules,
};

/// The type of the list of direct chats.
const DIRECT: &str = "m.direct";
/// The property by which an override rule is about one room.
const ROOM_ID: &str = "room_id";

/// Lets a room take over from another what a user has set for that. Asks for the commit's number, so call it late.
///
/// # Errors
/// As the store.
pub fn succeed(tx: &mut Tx<'_>, user: UserNo, (old_no, old): (RoomNo, &RoomId), (new_no, new): (RoomNo, &RoomId)) -> Result<()> {
    unless_full(push_rules::extend(tx, user, |rules| with_successor(rules, old, new)))?;
    if account_data::content(tx, user, Some(new_no), TAG)?.is_none()
        && let Some(tags) = account_data::content(tx, user, Some(old_no), TAG)?
    {
        account_data::put(tx, user, Some(new_no), TAG, &tags)?;
    }
    let direct = account_data::content(tx, user, None, DIRECT)?;
    let direct = direct.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    match direct.and_then(|direct| with_chat(direct, old, new)) {
        Some(direct) => unless_full(account_data::put(tx, user, None, DIRECT, &Value::Object(direct).to_string())),
        None => Ok(()),
    }
}

/// A list that is full stays as it is: the user is in the new room all the same.
fn unless_full(put: Result<()>) -> Result<()> {
    match put {
        Err(Error::TooLarge { .. }) => Ok(()),
        put => put,
    }
}

/// Adds rules for the new room like those for the old. Returns whether there were any.
fn with_successor(rules: &mut Ruleset, old: &RoomId, new: &RoomId) -> bool {
    let mut changed = false;
    if let Some((index, rule)) = rules.room.get_full(old.as_str())
        && !rules.room.contains(new.as_str())
    {
        let mut rule = rule.clone();
        rule.rule_id = new.to_owned();
        changed |= rules.room.shift_insert(index, rule);
    }
    // Clients mute a room by such a rule, which they name after it.
    if let Some((index, rule)) = rules.override_.get_full(old.as_str())
        && !rules.override_.contains(new.as_str())
    {
        let mut rule = rule.clone();
        rule.rule_id = new.to_string();
        rule.conditions.iter_mut().for_each(|condition| lead(condition, old, new));
        changed |= rules.override_.shift_insert(index, rule);
    }
    changed
}

/// Makes a condition that is about the old room one about the new.
fn lead(condition: &mut PushCondition, old: &RoomId, new: &RoomId) {
    if let PushCondition::EventMatch(matching) = condition
        && matching.key == ROOM_ID
        && matching.pattern == old.as_str()
    {
        matching.pattern = new.to_string();
    }
}

/// The list of direct chats with the new room wherever the old one is, if it is anywhere.
fn with_chat(mut direct: Map<String, Value>, old: &RoomId, new: &RoomId) -> Option<Map<String, Value>> {
    let mut changed = false;
    for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
        let has = |room: &RoomId| rooms.iter().any(|listed| listed.as_str() == Some(room.as_str()));
        if has(old) && !has(new) {
            rooms.push(new.as_str().into());
            changed = true;
        }
    }
    changed.then_some(direct)
}
