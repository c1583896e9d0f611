//! The push rules of a user ("Push Rules"): the server's defaults as the user changed them, and rules of the user's own.
//!
//! They are account data of the type `m.push_rules`, so that a sync delivers them. What is read is brought up to the
//! defaults of this version first, so that a new default rule reaches accounts made before it.

use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    push::{
        Action, AnyPushRule, AnyPushRuleRef, ConditionalPushRule, NewPushRule, PatternedPushRule, PushCondition, RuleKind,
        Ruleset, SimplePushRule,
    },
};
use serde::{Deserialize, Serialize};
use store::{Lock, Pending, Read, Store, Tx, UserNo};

use crate::{
    Error, Result,
    account_data::{self, PUSH_RULES},
    numbers,
};

/// The most rules of a user's own.
pub const RULES_MAX: usize = 1_000;
/// The most bytes of a rule's id.
pub const RULE_ID_MAX_BYTES: usize = 255;
/// The most bytes of a pattern. Each is matched against every message of every room.
pub const PATTERN_MAX_BYTES: usize = 512;
/// The most conditions of a rule.
pub const CONDITIONS_MAX: usize = 32;
/// The most actions of a rule.
pub const ACTIONS_MAX: usize = 16;

const NO_RULE: Error = Error::NotFound("there is no such push rule");

/// The content of `m.push_rules`.
#[derive(Deserialize)]
struct Content {
    global: Ruleset,
}

/// Rules as clients read them: with a list of every kind, be it empty, because some expect each.
#[derive(Debug, Serialize)]
pub struct Listed {
    content: Vec<PatternedPushRule>,
    #[serde(rename = "override")]
    override_: Vec<ConditionalPushRule>,
    room: Vec<SimplePushRule<OwnedRoomId>>,
    sender: Vec<SimplePushRule<OwnedUserId>>,
    underride: Vec<ConditionalPushRule>,
}

impl From<Ruleset> for Listed {
    fn from(rules: Ruleset) -> Self {
        Self {
            content: rules.content.into_iter().collect(),
            override_: rules.override_.into_iter().collect(),
            room: rules.room.into_iter().collect(),
            sender: rules.sender.into_iter().collect(),
            underride: rules.underride.into_iter().collect(),
        }
    }
}

/// Rules of all scopes, of which there is one.
#[derive(Debug, Serialize)]
pub struct Scopes {
    global: Listed,
}

impl From<Ruleset> for Scopes {
    fn from(rules: Ruleset) -> Self {
        Self { global: rules.into() }
    }
}

/// Where a rule goes among the user's own rules of its kind, by their ids. Without either a new rule comes first and one that
/// is there stays in its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// Right before this one.
    pub before: Option<&'a str>,
    /// Right after this one.
    pub after: Option<&'a str>,
}

/// The rules of a user.
///
/// # Errors
/// As the store.
pub fn rules(db: &impl Read, user: UserNo) -> store::Result<Ruleset> {
    let stored = account_data::stored(db, user, PUSH_RULES)?;
    current(db, user, stored.as_deref())
}

/// The content of `m.push_rules` as it is now, of what was stored once.
pub(crate) fn up_to_date(db: &impl Read, user: UserNo, stored: &str) -> store::Result<String> {
    text(current(db, user, Some(stored))?)
}

fn current(db: &impl Read, user: UserNo, stored: Option<&str>) -> store::Result<Ruleset> {
    let defaults = Ruleset::server_default(&numbers::user_id(db, user)?);
    let Some(stored) = stored else { return Ok(defaults) };
    match serde_json::from_str::<Content>(stored) {
        Ok(Content { mut global }) => {
            global.update_with_server_default(defaults);
            Ok(global)
        }
        Err(error) => {
            tracing::warn!(user = user.0, %error, "stored push rules cannot be read: the defaults stand in for them");
            Ok(defaults)
        }
    }
}

fn text(global: Ruleset) -> store::Result<String> {
    serde_json::to_string(&Scopes::from(global)).map_err(|_| store::Error::Unencodable { table: "account_data" })
}

/// The first rules of an account.
pub(crate) fn put_defaults(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId) -> Result<()> {
    let text = text(Ruleset::server_default(user_id))?;
    account_data::put(tx, user, None, PUSH_RULES, &text)
}

/// One rule.
///
/// # Errors
/// [`Error::NotFound`].
pub fn rule(db: &impl Read, user: UserNo, kind: RuleKind, id: &str) -> Result<AnyPushRule> {
    Ok(rules(db, user)?.get(kind, id).ok_or(NO_RULE)?.to_owned())
}

fn change(store: &Store, user: UserNo, change: impl FnOnce(&mut Ruleset) -> Result<()>) -> Result<Pending<()>> {
    store.transact(&[Lock::User(user)], |tx| {
        let mut rules = rules(tx, user)?;
        change(&mut rules)?;
        account_data::put(tx, user, None, PUSH_RULES, &text(rules)?)
    })
}

/// Lets `add` add rules of the user's own, which are kept where it says that it did.
///
/// # Errors
/// [`Error::TooLarge`].
pub(crate) fn extend(tx: &mut Tx<'_>, user: UserNo, add: impl FnOnce(&mut Ruleset) -> bool) -> Result<()> {
    let mut rules = rules(tx, user)?;
    if !add(&mut rules) {
        return Ok(());
    }
    limit(&rules)?;
    account_data::put(tx, user, None, PUSH_RULES, &text(rules)?)
}

fn limit(rules: &Ruleset) -> Result<()> {
    Error::limit("push rules", rules.iter().filter(|rule| !rule.is_server_default()).count(), RULES_MAX)
}

/// Makes a rule, or replaces the one of its kind and id; whether that is enabled stays.
///
/// # Errors
/// [`Error::InvalidParam`], [`Error::TooLarge`]; [`Error::NotFound`] where there is no rule to place it by.
pub fn put(store: &Store, user: UserNo, rule: NewPushRule, place: Place<'_>) -> Result<Pending<()>> {
    check(&rule)?;
    if [place.before, place.after].into_iter().flatten().any(|id| id.starts_with('.')) {
        return Err(Error::InvalidParam("a rule cannot be placed by a default rule"));
    }
    change(store, user, |rules| {
        insert(rules, rule, place)?;
        limit(rules)
    })
}

/// Deletes a rule of the user's own.
///
/// # Errors
/// [`Error::NotFound`], [`Error::InvalidParam`] for a default rule.
pub fn delete(store: &Store, user: UserNo, kind: RuleKind, id: &str) -> Result<Pending<()>> {
    change(store, user, |rules| {
        if rules.get(kind.clone(), id).ok_or(NO_RULE)?.is_server_default() {
            return Err(Error::InvalidParam("a default rule cannot be deleted: disable it"));
        }
        rules.remove(kind, id).map_err(|_| NO_RULE)
    })
}

/// Enables or disables a rule.
///
/// # Errors
/// [`Error::NotFound`].
pub fn set_enabled(store: &Store, user: UserNo, kind: RuleKind, id: &str, enabled: bool) -> Result<Pending<()>> {
    change(store, user, |rules| rules.set_enabled(kind, id, enabled).map_err(|_| NO_RULE))
}

/// Sets what a rule does.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TooLarge`].
pub fn set_actions(store: &Store, user: UserNo, kind: RuleKind, id: &str, actions: Vec<Action>) -> Result<Pending<()>> {
    Error::limit("actions of a push rule", actions.len(), ACTIONS_MAX)?;
    change(store, user, |rules| rules.set_actions(kind, id, actions).map_err(|_| NO_RULE))
}

/// Whether a rule is enabled.
///
/// # Errors
/// [`Error::NotFound`].
pub fn is_enabled(db: &impl Read, user: UserNo, kind: RuleKind, id: &str) -> Result<bool> {
    rules(db, user)?.get(kind, id).map(AnyPushRuleRef::enabled).ok_or(NO_RULE)
}

/// What a rule does.
///
/// # Errors
/// [`Error::NotFound`].
pub fn actions(db: &impl Read, user: UserNo, kind: RuleKind, id: &str) -> Result<Vec<Action>> {
    rules(db, user)?.get(kind, id).map(|rule| rule.actions().to_vec()).ok_or(NO_RULE)
}

fn check(rule: &NewPushRule) -> Result<()> {
    let id = rule.rule_id();
    if id.is_empty() || id.len() > RULE_ID_MAX_BYTES || id.starts_with('.') || id.contains(['/', '\\']) {
        return Err(Error::InvalidParam("the id of a push rule has 1 to 255 bytes, no slash, and no dot in front"));
    }
    let (actions, conditions) = match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => (&rule.actions, rule.conditions.as_slice()),
        NewPushRule::Content(rule) => {
            Error::limit("bytes of a pattern", rule.pattern.len(), PATTERN_MAX_BYTES)?;
            (&rule.actions, [].as_slice())
        }
        NewPushRule::Room(rule) => (&rule.actions, [].as_slice()),
        NewPushRule::Sender(rule) => (&rule.actions, [].as_slice()),
        _ => return Err(Error::InvalidParam("push rules of this kind are not known")),
    };
    Error::limit("actions of a push rule", actions.len(), ACTIONS_MAX)?;
    Error::limit("conditions of a push rule", conditions.len(), CONDITIONS_MAX)?;
    conditions.iter().try_for_each(|condition| match condition {
        PushCondition::EventMatch(matching) => Error::limit("bytes of a pattern", matching.pattern.len(), PATTERN_MAX_BYTES),
        _ => Ok(()),
    })
}

/// Puts a rule into the set of its kind. `$first` is where a new rule goes by default.
macro_rules! insert_into {
    ($set:expr, $rule:expr, $id:expr, $first:expr, $place:expr) => {{
        let (mut rule, id) = ($rule, $id);
        let replaced = $set.shift_remove_full(id.as_str());
        if let Some((_, replaced)) = &replaced {
            rule.enabled = replaced.enabled;
        }
        let index = match index($place, |id| $set.get_index_of(id))? {
            Some(index) => index,
            None => replaced.map_or($first, |(index, _)| index),
        };
        let end = $set.len();
        $set.shift_insert(index.min(end), rule);
    }};
}

fn insert(rules: &mut Ruleset, rule: NewPushRule, place: Place<'_>) -> Result<()> {
    let id = rule.rule_id().to_owned();
    match rule {
        // The master rule stays before all others.
        NewPushRule::Override(rule) => insert_into!(rules.override_, ConditionalPushRule::from(rule), id, 1, place),
        NewPushRule::Underride(rule) => insert_into!(rules.underride, ConditionalPushRule::from(rule), id, 0, place),
        NewPushRule::Content(rule) => insert_into!(rules.content, PatternedPushRule::from(rule), id, 0, place),
        NewPushRule::Room(rule) => insert_into!(rules.room, SimplePushRule::from(rule), id, 0, place),
        NewPushRule::Sender(rule) => insert_into!(rules.sender, SimplePushRule::from(rule), id, 0, place),
        _ => return Err(Error::InvalidParam("push rules of this kind are not known")),
    }
    Ok(())
}

/// The index that a place means in a set without the rule that is to be placed.
fn index(place: Place<'_>, find: impl Fn(&str) -> Option<usize>) -> Result<Option<usize>> {
    let find = |id: &str| find(id).ok_or(Error::NotFound("there is no push rule to place this one by"));
    let after = place.after.map(find).transpose()?.map(|index| index + 1);
    let before = place.before.map(find).transpose()?;
    if let (Some(after), Some(before)) = (after, before)
        && before < after
    {
        return Err(Error::InvalidParam("the rule to place this one before comes before the one to place it after"));
    }
    Ok(before.or(after))
}
