//! The events that must allow an event, and the check of those that it claims.
//!
//! Specification: "Auth events selection" of the server-server API, and rule 3 (2 before version 12).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::rules::Rule;
use super::{Denied, Membership};
use crate::content::{field, text, text_field};
use crate::event::Event;
use crate::version::RoomVersion;

/// One of the events that an event names in `auth_events`.
#[derive(Clone, Copy, Debug)]
pub struct AuthEvent<'a> {
    /// The event.
    pub event: &'a Event,
    /// Whether it was itself rejected on receipt.
    pub rejected: bool,
}

/// The state entries from which an event's `auth_events` are taken, without duplicates.
///
/// What the content lacks, or has in another shape, selects nothing: the rules then reject the event.
#[must_use]
pub fn auth_types<'a>(
    version: &RoomVersion,
    kind: &str,
    state_key: Option<&'a str>,
    sender: &'a str,
    content: &'a RawValue,
) -> Vec<(&'static str, Cow<'a, str>)> {
    if kind == "m.room.create" {
        return Vec::new();
    }
    let mut types = Vec::with_capacity(6);
    if !version.version_12 {
        types.push(("m.room.create", Cow::Borrowed("")));
    }
    types.push(("m.room.power_levels", Cow::Borrowed("")));
    types.push(("m.room.member", Cow::Borrowed(sender)));
    if kind == "m.room.member" {
        select_for_member(version, state_key, content, &mut types);
    }
    types
}

/// Whether any event may name one of this type among its `auth_events`: [`auth_types`] selects no others.
#[must_use]
pub fn may_be_cited(kind: &str) -> bool {
    let selected = ["m.room.create", "m.room.power_levels", "m.room.member", "m.room.join_rules", "m.room.third_party_invite"];
    selected.contains(&kind)
}

/// [`auth_types`] of an event that exists.
#[must_use]
pub fn auth_types_of<'a>(version: &RoomVersion, event: &'a Event) -> Vec<(&'static str, Cow<'a, str>)> {
    auth_types(version, &event.kind, event.state_key.as_deref(), event.sender.as_str(), &event.content)
}

fn select_for_member<'a>(
    version: &RoomVersion,
    target: Option<&'a str>,
    content: &'a RawValue,
    types: &mut Vec<(&'static str, Cow<'a, str>)>,
) {
    let mut select = |kind, key| {
        if !types.contains(&(kind, Cow::clone(&key))) {
            types.push((kind, key));
        }
    };
    if let Some(target) = target {
        select("m.room.member", Cow::Borrowed(target));
    }
    let membership = text_field(content, "membership").map(|name| Membership::named(&name));
    if let Some(Membership::Join | Membership::Invite | Membership::Knock) = membership {
        select("m.room.join_rules", Cow::Borrowed(""));
    }
    if membership == Some(Membership::Invite)
        && let Some(token) = field(content, "third_party_invite")
            .and_then(|invite| field(invite, "signed"))
            .and_then(|signed| text_field(signed, "token"))
    {
        select("m.room.third_party_invite", token);
    }
    if membership == Some(Membership::Join)
        && version.restricted_joins
        && let Some(user) = field(content, "join_authorised_via_users_server").and_then(text)
    {
        select("m.room.member", user);
    }
}

/// Checks the events that the event names in `auth_events`; the caller has found all of them.
///
/// That they allow the event is for [`authorize`](super::authorize) with them as the state.
///
/// # Errors
/// [`Denied`] names a rule that rejects the event.
pub fn check_auth_events(version: &RoomVersion, event: &Event, auth_events: &[AuthEvent<'_>]) -> Result<(), Denied> {
    // Rule 1 alone judges a create event.
    if event.kind == "m.room.create" {
        return Ok(());
    }
    let selected = auth_types_of(version, event);
    let mut seen = vec![false; selected.len()];
    for AuthEvent { event: auth_event, rejected } in auth_events {
        // Rule 3.2: what is no state event matches no entry.
        let entry = auth_event
            .state_pair()
            .and_then(|(kind, key)| selected.iter().position(|entry| entry.0 == kind && entry.1 == key))
            .ok_or_else(|| Rule::AuthUnselected.denies(version, format!("{} is not selected", auth_event.id)))?;
        // Rule 3.1.
        if std::mem::replace(&mut seen[entry], true) {
            return Err(Rule::AuthDuplicate.denies(version, format!("two events of type {}", auth_event.kind)));
        }
        // Rule 3.3.
        if *rejected {
            return Err(Rule::AuthRejected.denies(version, format!("{} was rejected", auth_event.id)));
        }
        // Rule 3.5.
        if auth_event.room_id != event.room_id {
            return Err(Rule::AuthRoom.denies(version, format!("{} is of another room", auth_event.id)));
        }
    }
    // Rule 2.4, until version 11.
    let has_create = selected.iter().zip(&seen).any(|(entry, seen)| entry.0 == "m.room.create" && *seen);
    if !version.version_12 && !has_create {
        return Err(Rule::NoCreate.denies(version, "no create event among the auth events"));
    }
    Ok(())
}
