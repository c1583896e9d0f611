//! The numbers that stand for user ids, local and remote: four bytes in every key in place of a name.
//!
//! A number is drawn once and never changes its meaning, so both directions may be kept in memory.

use std::collections::BTreeSet;

use ruma::{OwnedUserId, UserId};
use store::{Error, Lock, Range, Read, Result, Store, Table, Tx, UserNo};

static NUMBERS: Table<String, UserNo> = Table::new("user_numbers", "The number of a user id, local or remote.").cached();
static USERS: Table<UserNo, OwnedUserId> = Table::new("user_ids", "The user id of a number.").cached();
static LAST: Table<String, u32> = Table::new("user_counter", "The last number drawn for a user id.");

/// The tables of this module.
pub(crate) const TABLES: [&store::TableSpec; 3] = [NUMBERS.spec(), USERS.spec(), LAST.spec()];

/// The number of a user, drawing one for a user that has none. A user who is new with this transaction may be written in it.
///
/// # Errors
/// As the store.
pub fn intern(tx: &mut Tx<'_>, user: &UserId) -> Result<UserNo> {
    if let Some(known) = number(tx, user)? {
        return Ok(known);
    }
    // Another transaction may have drawn it after this one began.
    if let Some(known) = tx.latest(&NUMBERS, &user.as_str())? {
        return Ok(known);
    }
    let drawn = UserNo(tx.draw(&LAST, "user")?);
    tx.put(&NUMBERS, &user.as_str(), &drawn)?;
    tx.put(&USERS, &drawn, &user.to_owned())?;
    tx.own_new(Lock::User(drawn));
    Ok(drawn)
}

/// The number of a user, for those who need it to know which lock to take. A number that is drawn here and then not used
/// stays drawn, so do not call it for what a stranger only asks about.
///
/// # Errors
/// As the store.
pub fn ensure(store: &Store, user: &UserId) -> Result<UserNo> {
    match number(&store.snapshot(), user)? {
        Some(known) => Ok(known),
        // Whatever is written next is acknowledged after this is on disk: commits are synced in their order.
        None => Ok(store.transact(&[], |tx| intern(tx, user))?.soft()),
    }
}

/// The number of a user who has one.
///
/// # Errors
/// As the store.
pub fn number(db: &impl Read, user: &UserId) -> Result<Option<UserNo>> {
    Ok(db.shared(&NUMBERS, &user.as_str())?.map(|number| *number))
}

/// All users who have a number, read as they are asked for: for jobs, since they may be many.
///
/// # Errors
/// As the store.
pub fn all(db: &impl Read) -> Result<impl Iterator<Item = Result<(String, UserNo)>> + '_> {
    db.range(&NUMBERS, Range::of(&()))
}

/// The user of a number.
///
/// # Errors
/// [`Error::Corrupt`] where the number was never drawn.
pub fn user_id(db: &impl Read, number: UserNo) -> Result<OwnedUserId> {
    match db.shared(&USERS, &number)? {
        Some(user) => Ok(user.as_ref().clone()),
        None => Err(Error::Corrupt { table: USERS.spec().name, key: format!("{:08x}", number.0) }),
    }
}

/// The numbers of those of some users who are known here.
///
/// # Errors
/// As the store.
pub fn known<'u>(db: &impl Read, users: impl IntoIterator<Item = &'u UserId>) -> Result<BTreeSet<UserNo>> {
    users.into_iter().filter_map(|user| number(db, user).transpose()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_user_has_one_number_whoever_asks_first() {
        let store = Store::in_memory("localhost", crate::TABLES).unwrap();
        let drawn: Vec<u32> = std::thread::scope(|scope| {
            let ask = || ensure(&store, user_id!("@alice:localhost")).unwrap().0;
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(drawn, [1; 4]);
        assert_eq!(ensure(&store, user_id!("@bob:elsewhere.org")).unwrap(), UserNo(2));
        store.transact(&[], |_| Ok::<_, Error>(())).unwrap().wait().unwrap();
        let snapshot = store.snapshot();
        assert_eq!(number(&snapshot, user_id!("@bob:elsewhere.org")).unwrap(), Some(UserNo(2)));
        assert_eq!(super::user_id(&snapshot, UserNo(1)).unwrap(), user_id!("@alice:localhost"));
        assert_eq!(number(&snapshot, user_id!("@carol:localhost")).unwrap(), None);
        assert!(matches!(super::user_id(&snapshot, UserNo(3)), Err(Error::Corrupt { .. })));
    }
}
