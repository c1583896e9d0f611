//! The user directory: who goes by a name ("User Directory").
//!
//! Every account that is a person's or a bridge's, and not deactivated, is found by any member of the server: the
//! specification lets a server choose whom it shows beyond those whom the searcher meets in rooms, and colleagues look for
//! each other. Of users of other servers the caller says whom the searcher may see, and as whom. Each word of the localpart and of
//! the display name is a row, so that a search costs what it finds.

use std::collections::BTreeSet;

use ruma::{OwnedUserId, UserId};
use serde_json::Value;
use store::{Preset, Range, Read, Table, Tx, UserNo};

use crate::{
    accounts::{self, Account, Kind},
    numbers, profiles,
};

static WORDS: Table<String, UserNo> = Table::new(
    "directory_words",
    "A word of the localpart or display name of a user whom searches find, a NUL, and the user's number in hexadecimal.",
)
.read_by(Preset::Scan);
static FOREIGN_WORDS: Table<String, UserNo> = Table::new(
    "directory_foreign_words",
    "The same of users of other servers who were in rooms here, with words of names that they had before.",
)
.read_by(Preset::Scan);

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 2] = [WORDS.spec(), FOREIGN_WORDS.spec()];

/// The most characters of a word that count.
const WORD_MAX_CHARS: usize = 64;
/// The most words of a text that count.
const WORDS_MAX: usize = 32;
/// The most rows that a search looks at.
const SCANNED_MAX: usize = 1000;

/// Whom a search found.
pub struct Found {
    /// The users, those of this server first.
    pub users: Vec<Listed>,
    /// Whether there are more.
    pub limited: bool,
}

/// A user as the directory shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Who it is.
    pub user_id: OwnedUserId,
    /// What they are called.
    pub displayname: Option<String>,
    /// Their picture.
    pub avatar_url: Option<String>,
}

/// A user of this server as all others of it see them, if they do.
///
/// # Errors
/// As the store.
pub fn listed(db: &impl Read, user: UserNo) -> store::Result<Option<Listed>> {
    if !accounts::account(db, user)?.is_some_and(|account| is_listed(&account)) {
        return Ok(None);
    }
    let text = |name: &str| -> store::Result<Option<String>> {
        Ok(profiles::field(db, user, name)?.as_ref().and_then(Value::as_str).map(str::to_owned))
    };
    let (displayname, avatar_url) = (text(profiles::DISPLAYNAME)?, text(profiles::AVATAR_URL)?);
    Ok(Some(Listed { user_id: numbers::user_id(db, user)?, displayname, avatar_url }))
}

/// The users whose id and display name have, for each word of the term, a word that begins with it: at most `limit`. A whole user id
/// finds that user only. `foreign` says as whom a user of another server is shown, if at all.
///
/// # Errors
/// As the store and `foreign`.
pub fn search<E: From<store::Error>>(
    db: &impl Read,
    term: &str,
    limit: usize,
    foreign: impl Fn(UserNo) -> Result<Option<Listed>, E>,
) -> Result<Found, E> {
    let shown = |user: UserNo| -> Result<Option<Listed>, E> {
        if accounts::account(db, user)?.is_some() { Ok(listed(db, user)?) } else { foreign(user) }
    };
    if let Ok(user_id) = UserId::parse(term.trim().to_lowercase())
        && let Some(user) = numbers::number(db, &user_id)?
        && let Some(only) = shown(user)?
    {
        return Ok(Found { users: Vec::from_iter((limit > 0).then_some(only)), limited: limit == 0 });
    }
    let wanted: Vec<String> = words(term).collect();
    let mut found = Found { users: Vec::new(), limited: false };
    // Of a user id, the first word is the localpart's: its server's name is no row.
    let Some(first) = wanted.first() else { return Ok(found) };
    let mut seen = BTreeSet::new();
    for table in [&WORDS, &FOREIGN_WORDS] {
        for (scanned, row) in db.range(table, &Range::of(&first.as_str()))?.enumerate() {
            let (_, user) = row?;
            if found.users.len() > limit || scanned == SCANNED_MAX {
                found.limited = true;
                break;
            }
            if seen.insert(user) {
                found.users.extend(shown(user)?.filter(|listed| is_called(listed, &wanted)));
            }
        }
    }
    found.limited |= found.users.len() > limit;
    found.users.truncate(limit);
    Ok(found)
}

fn is_called(listed: &Listed, wanted: &[String]) -> bool {
    let mut names: BTreeSet<String> = words(listed.user_id.as_str()).collect();
    names.extend(words(listed.displayname.as_deref().unwrap_or_default()));
    wanted.iter().all(|wanted| names.iter().any(|name| name.starts_with(wanted.as_str())))
}

fn displayname(db: &impl Read, user: UserNo) -> store::Result<String> {
    let name = profiles::field(db, user, profiles::DISPLAYNAME)?;
    Ok(name.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Notes the words by which a user of another server is found who is in a room by this name; nothing of a user of this server, who is
/// found by their profile. The words of their former names stay: a search looks what
/// they are called now, where the searcher meets them.
///
/// # Errors
/// As the store.
pub fn meet(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, displayname: Option<&str>) -> store::Result<()> {
    if accounts::account(tx, user)?.is_some() {
        return Ok(());
    }
    words_of(user_id, displayname).iter().try_for_each(|word| tx.put(&FOREIGN_WORDS, &key(word, user).as_str(), &user))
}

/// Takes back what [`meet`] noted of a user by this name.
///
/// # Errors
/// As the store.
pub fn part(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, displayname: Option<&str>) -> store::Result<()> {
    words_of(user_id, displayname).iter().try_for_each(|word| tx.delete(&FOREIGN_WORDS, &key(word, user).as_str()))
}

fn words_of(user_id: &UserId, displayname: Option<&str>) -> BTreeSet<String> {
    words(user_id.localpart()).chain(words(displayname.unwrap_or_default())).collect()
}

/// Puts a new account into the directory, by its user id.
pub(crate) fn enter(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId, account: &Account) -> store::Result<()> {
    let words: BTreeSet<String> = if is_listed(account) { words(user_id.localpart()).collect() } else { BTreeSet::new() };
    words.iter().try_for_each(|word| tx.put(&WORDS, &key(word, user).as_str(), &user))
}

/// Takes a user who goes out of the directory, before the profile goes.
pub(crate) fn withdraw(tx: &mut Tx<'_>, user: UserNo, user_id: &UserId) -> store::Result<()> {
    let mut gone: BTreeSet<String> = words(user_id.localpart()).collect();
    gone.extend(words(&displayname(tx, user)?));
    gone.iter().try_for_each(|word| tx.delete(&WORDS, &key(word, user).as_str()))
}

/// Notes what the display name of a user is now, in place of the one that the profile still has.
pub(crate) fn rename(tx: &mut Tx<'_>, user: UserNo, displayname_now: &str) -> store::Result<()> {
    if !accounts::account(tx, user)?.is_some_and(|account| is_listed(&account)) {
        return Ok(());
    }
    let of_id: BTreeSet<String> = words(numbers::user_id(tx, user)?.localpart()).collect();
    let before: BTreeSet<String> = words(&displayname(tx, user)?).filter(|word| !of_id.contains(word)).collect();
    let now: BTreeSet<String> = words(displayname_now).filter(|word| !of_id.contains(word)).collect();
    before.difference(&now).try_for_each(|word| tx.delete(&WORDS, &key(word, user).as_str()))?;
    now.difference(&before).try_for_each(|word| tx.put(&WORDS, &key(word, user).as_str(), &user))
}

/// Guests come and go, and who is gone cannot be talked with.
fn is_listed(account: &Account) -> bool {
    account.kind != Kind::Guest && !account.deactivated
}

/// The words of a text in the form in which they are compared.
fn words(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase();
    let words = lower.split(|sign: char| !sign.is_alphanumeric()).filter(|word| !word.is_empty()).take(WORDS_MAX);
    words.map(|word| word.chars().take(WORD_MAX_CHARS).collect()).collect::<Vec<String>>().into_iter()
}

fn key(word: &str, user: UserNo) -> String {
    format!("{word}\0{:08x}", user.0)
}
