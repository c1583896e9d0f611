//! Users are found by the names that they have.

use serde_json::json;

use super::{ROOM, register, store};
use crate::{
    accounts::{self, Kind, NewAccount},
    directory, numbers, profiles,
};
use store::{Lock, Store, UserNo};

/// A search of whom only this server has.
fn search(store: &Store, term: &str, limit: usize) -> directory::Found {
    directory::search::<store::Error>(&store.snapshot(), term, limit, |_| Ok(None)).unwrap()
}

fn found(store: &Store, term: &str) -> Vec<String> {
    search(store, term, 10).users.iter().map(|listed| listed.user_id.localpart().to_owned()).collect()
}

fn call(store: &Store, user: UserNo, name: &str) {
    profiles::put(store, user, profiles::DISPLAYNAME, json!(name)).unwrap().wait().unwrap();
}

#[test]
fn a_user_is_found_by_the_beginning_of_any_word() {
    let store = store();
    let alice = register(&store, "alice").0;
    register(&store, "bob.builder");
    call(&store, alice, "Alice Äppel-Meyer");
    for term in ["alice", "AL", "@alice:localhost", "äpp", "meyer ali", "Alice Äppel-Meyer", "alice:local"] {
        assert_eq!(found(&store, term), ["alice"], "{term}");
    }
    for term in ["bob", "build", "bob.builder", "@bob"] {
        assert_eq!(found(&store, term), ["bob.builder"], "{term}");
    }
    for term in ["", "@", "lice", "alice bob", "alice:elsewhere", "localhost", "\0"] {
        assert_eq!(found(&store, term), [""; 0], "{term}");
    }
}

#[test]
fn a_whole_user_id_finds_that_user_only() {
    let store = store();
    for name in ["ann", "ann.smith", "anna"] {
        register(&store, name);
    }
    assert_eq!(found(&store, "@ann"), ["ann", "ann.smith", "anna"]);
    assert_eq!(found(&store, " @Ann:localhost "), ["ann"]);
    assert_eq!(search(&store, "@ann:localhost", 0).users, []);
}

#[test]
fn the_directory_follows_names_and_forgets_who_goes() {
    let store = store();
    let alice = register(&store, "alice").0;
    call(&store, alice, "Alice Meyer");
    call(&store, alice, "Alice Schmidt");
    assert_eq!((found(&store, "meyer").len(), found(&store, "schmidt").len(), found(&store, "alice").len()), (0, 1, 1));
    profiles::delete(&store, alice, profiles::DISPLAYNAME).unwrap().wait().unwrap();
    assert_eq!((found(&store, "schmidt").len(), found(&store, "alice").len()), (0, 1));
    call(&store, alice, "Schmidt");
    accounts::deactivate(&store, alice, false, &[ROOM]).unwrap().wait().unwrap();
    assert_eq!((found(&store, "schmidt").len(), found(&store, "alice").len()), (0, 0));
    accounts::deactivate(&store, alice, true, &[ROOM]).unwrap().wait().unwrap();
    assert_eq!(found(&store, "alice").len(), 0);
}

#[test]
fn guests_are_not_found_and_long_answers_are_cut() {
    let store = store();
    for number in 0..5 {
        register(&store, &format!("worker{number}"));
    }
    let guest = NewAccount { kind: Kind::Guest, admin: false, password: None, displayname: Some("Worker".into()) };
    let guest_id = super::user_id("workless");
    let user = numbers::ensure(&store, &guest_id).unwrap();
    store.transact(&[Lock::User(user)], |tx| accounts::create(tx, user, &guest_id, guest, 0)).unwrap().wait().unwrap();
    let cut = search(&store, "work", 3);
    assert_eq!((cut.users.len(), cut.limited), (3, true));
    let whole = search(&store, "work", 5);
    assert_eq!((whole.users.len(), whole.limited), (5, false));
}
