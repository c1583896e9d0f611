//! Push-rule evaluation: which of a user's rules an event meets, and what it then does.
//!
//! Specification: "Push Rules" of the client-server API. An event is prepared once ([`PushEvent`]) and then judged for
//! each member, so that a big room costs one walk through small rulesets. Rulesets are ruma's; its evaluation is
//! not used, because it is asynchronous, builds a regular expression for each pattern, and writes out the path of every
//! value of an event.

mod event;
pub(crate) mod glob;
#[cfg(test)]
mod tests;

use std::ops::RangeBounds;

use ruma::push::{Action, AnyPushRuleRef, PushCondition, Ruleset, ScalarJsonValue};
use ruma::{UInt, UserId};
use serde_json::Value;

pub use event::PushEvent;
use glob::{Place, Steps};

/// The property whose patterns match words instead of all of it.
const BODY: &str = "content.body";
/// ruma deprecates the variant of this condition, since new rules should not use it; old ones do.
const CONTAINS_DISPLAY_NAME: &str = "contains_display_name";

/// The user whose rules are judged.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Their id.
    pub user: &'a UserId,
    /// Their display name in the room, if they have one.
    pub display_name: Option<&'a str>,
}

/// The rule that decides about an event.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'r> {
    /// The rule. A rule without `notify` keeps quiet.
    pub rule: AnyPushRuleRef<'r>,
}

impl<'r> Matched<'r> {
    /// Its actions.
    #[must_use]
    pub fn actions(&self) -> &'r [Action] {
        self.rule.actions()
    }

    /// Whether the event notifies the user.
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.actions().iter().any(Action::should_notify)
    }

    /// Whether it is highlighted too.
    #[must_use]
    pub fn highlights(&self) -> bool {
        self.notifies() && self.actions().iter().any(Action::is_highlight)
    }

    /// The sound that it makes, `default` or a name.
    #[must_use]
    pub fn sound(&self) -> Option<&'r str> {
        self.actions().iter().filter(|_| self.notifies()).find_map(Action::sound).map(AsRef::as_ref)
    }
}

/// The first enabled rule that the event meets for this member, by kind and then by order, or `None`: also for
/// the sender's own events.
#[must_use]
pub fn evaluate<'r>(rules: &'r Ruleset, event: &PushEvent<'_>, member: Member<'_>) -> Option<Matched<'r>> {
    if event.event.sender == member.user {
        return None;
    }
    let mut steps = Steps::new();
    rules.iter().find(|rule| rule.enabled() && meets(*rule, event, member, &mut steps)).map(|rule| Matched { rule })
}

fn meets(rule: AnyPushRuleRef<'_>, event: &PushEvent<'_>, member: Member<'_>, steps: &mut Steps) -> bool {
    match rule {
        AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => {
            rule.conditions.iter().all(|condition| holds(condition, event, member, steps))
        }
        AnyPushRuleRef::Content(rule) => event_match(BODY, &rule.pattern, event, steps),
        AnyPushRuleRef::Room(rule) => event.event.room_id == rule.rule_id,
        AnyPushRuleRef::Sender(rule) => event.event.sender == rule.rule_id,
        _ => false,
    }
}

/// Whether a condition holds. Unknown ones never do.
fn holds(condition: &PushCondition, event: &PushEvent<'_>, member: Member<'_>, steps: &mut Steps) -> bool {
    match condition {
        PushCondition::EventMatch(data) => event_match(&data.key, &data.pattern, event, steps),
        PushCondition::EventPropertyIs(data) => event.property(&data.key).is_some_and(|value| is(value, &data.value)),
        PushCondition::EventPropertyContains(data) => event
            .property(&data.key)
            .and_then(Value::as_array)
            .is_some_and(|values| values.iter().any(|value| is(value, &data.value))),
        PushCondition::RoomMemberCount(data) => data.is.contains(&UInt::new_saturating(event.member_count)),
        PushCondition::SenderNotificationPermission(data) => event.may_notify(data.key.as_ref()),
        other if other.kind() == CONTAINS_DISPLAY_NAME => member.display_name.is_some_and(|name| {
            event.property(BODY).and_then(Value::as_str).is_some_and(|body| glob::contains_words(name, body, steps))
        }),
        _ => false,
    }
}

fn event_match(key: &str, pattern: &str, event: &PushEvent<'_>, steps: &mut Steps) -> bool {
    let place = if key == BODY { Place::Words } else { Place::Whole };
    event.property(key).and_then(Value::as_str).is_some_and(|text| glob::matches(pattern, text, place, steps))
}

/// Exact equality of non-compound values.
fn is(value: &Value, wanted: &ScalarJsonValue) -> bool {
    match wanted {
        ScalarJsonValue::Null => value.is_null(),
        ScalarJsonValue::Bool(wanted) => value.as_bool() == Some(*wanted),
        ScalarJsonValue::Integer(wanted) => value.as_i64() == Some(i64::from(*wanted)),
        ScalarJsonValue::String(wanted) => value.as_str() == Some(wanted),
    }
}
