use super::*;
use crate::{
    Error, accounts, devices,
    passwords::{self, Hashed},
    profiles, registration_tokens,
    registration_tokens::Bounds,
};

fn hashed(text: &str) -> Hashed {
    Hashed(format!("not really hashed: {text}"))
}

#[test]
fn a_user_id_is_given_once_even_when_many_want_it() {
    let store = store();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| register_with(&store, "alice", None, None, 0))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Error::UserInUse))));
    let (alice, _) = accounts::find(&store.snapshot(), &user_id("alice")).unwrap().unwrap();
    accounts::deactivate(&store, alice, false, &[]).unwrap().wait().unwrap();
    assert!(matches!(register_with(&store, "alice", None, None, 1), Err(Error::UserInUse)), "nor after a deactivation");
}

#[test]
fn user_names_are_of_the_grammar() {
    let wanted = |name: &str| accounts::wanted_user_id(name, "localhost".try_into().unwrap());
    assert_eq!(wanted("Alice.B-1/x+=_").unwrap(), "@alice.b-1/x+=_:localhost");
    for hostile in ["", "@alice", "al ice", "alïce", "a:b", "a\0", "a\n", "[a]", &"x".repeat(250)] {
        assert!(matches!(wanted(hostile), Err(Error::InvalidUsername(_))), "{hostile:?}");
    }
    assert!(accounts::drawn_user_id(&mut rand::rng(), "localhost".try_into().unwrap()).is_ok());
}

#[test]
fn a_registration_token_makes_as_many_accounts_as_it_says() {
    let store = store();
    let bounds = Bounds { uses_allowed: Some(2), expires_ms: Some(100) };
    registration_tokens::create(&store, "sesame", bounds).unwrap().wait().unwrap();
    assert!(registration_tokens::create(&store, "sesame", bounds).is_err(), "there is one");
    assert!(matches!(register_with(&store, "late", Some("sesame"), None, 100), Err(Error::InvalidRegistrationToken)));
    let made = std::thread::scope(|scope| {
        let make = |n: usize| register_with(&store, &format!("user{n}"), Some("sesame"), None, 1).is_ok();
        let threads: Vec<_> = (0..5).map(|n| scope.spawn(move || make(n))).collect();
        threads.into_iter().filter(|_| true).map(|thread| thread.join().unwrap()).filter(|made| *made).count()
    });
    assert_eq!(made, 2);
    let token = registration_tokens::token(&store.snapshot(), "sesame").unwrap().unwrap();
    assert_eq!(token.completed, 2);
    assert!(!registration_tokens::is_valid(&store.snapshot(), "sesame", 1).unwrap());
    assert!(!registration_tokens::is_valid(&store.snapshot(), "", 1).unwrap());
    for hostile in ["", "a b", "ä", &"x".repeat(65)] {
        assert!(registration_tokens::create(&store, hostile, Bounds::default()).is_err(), "{hostile:?}");
    }
    assert_eq!(accounts::accounts(&store.snapshot(), None, 10).unwrap().len(), 2, "who failed has no account");
}

#[test]
fn deactivation_leaves_nothing_to_log_in_with() {
    let store = store();
    let (alice, login) = register(&store, "alice");
    let token = sessions::issue_login_token(&store, &mut rand::rng(), alice, &config(), 0).unwrap().wait().unwrap().into_text();
    accounts::set_password(&store, alice, hashed("sesame"), None, &[]).unwrap().wait().unwrap();
    profiles::put(&store, alice, "displayname", "Alice".into()).unwrap().wait().unwrap();
    accounts::deactivate(&store, alice, true, &[ROOM]).unwrap().wait().unwrap();
    let db = store.snapshot();
    assert!(matches!(session(&store, &login, 1), Err(Error::UnknownToken { soft_logout: false })));
    assert!(accounts::password(&db, alice).unwrap().is_none());
    assert!(devices::devices(&db, alice).unwrap().is_empty());
    assert!(profiles::profile(&db, alice).unwrap().is_empty());
    assert_eq!(accounts::departures(&db, 10).unwrap(), [alice], "rooms are still to be left");
    let again = Login::default();
    let (mut rng, config) = (rand::rng(), config());
    assert!(matches!(sessions::login(&store, &mut rng, alice, again, &config, 1), Err(Error::Deactivated)));
    assert!(matches!(sessions::login_by_token(&store, &mut rng, &token, again, &config, 1), Err(Error::Deactivated)));
    assert!(matches!(accounts::set_password(&store, alice, hashed("x"), None, &[]), Err(Error::Deactivated)));
    assert!(matches!(accounts::set_admin(&store, alice, true), Err(Error::Deactivated)));
}

#[test]
fn a_locked_user_keeps_the_session_but_may_only_log_out() {
    let store = store();
    let (alice, login) = register(&store, "alice");
    accounts::set_locked(&store, alice, true).unwrap().wait().unwrap();
    let again = Login::default();
    assert!(matches!(session(&store, &login, 1), Err(Error::Locked)));
    assert!(matches!(sessions::login(&store, &mut rand::rng(), alice, again, &config(), 1), Err(Error::Locked)));
    let text = login.tokens.access_token.clone().into_text();
    assert!(sessions::authenticate_even_locked(&store.snapshot(), &text, 1).is_ok());
    accounts::set_locked(&store, alice, false).unwrap().wait().unwrap();
    accounts::set_suspended(&store, alice, true).unwrap().wait().unwrap();
    assert!(session(&store, &login, 1).unwrap().suspended);
}

#[test]
fn a_new_password_ends_the_other_sessions() {
    let store = store();
    let (alice, phone) = register(&store, "alice");
    let on_laptop = Login { device_id: Some("LAPTOP".into()), ..Login::default() };
    let laptop = sessions::login(&store, &mut rand::rng(), alice, on_laptop, &config(), 0).unwrap().wait().unwrap();
    let keep = devices::Keep::This(session(&store, &phone, 1).unwrap().device);
    accounts::set_password(&store, alice, hashed("sesame"), Some(keep), &[]).unwrap().wait().unwrap();
    assert!(session(&store, &phone, 1).is_ok());
    assert!(matches!(session(&store, &laptop, 1), Err(Error::UnknownToken { .. })));
    assert!(!passwords::matches("sesame", accounts::password(&store.snapshot(), alice).unwrap().as_ref()), "no hash, no login");
}

#[test]
fn administrators_page_through_accounts() {
    let store = store();
    for n in 0..5 {
        register(&store, &format!("user{n}"));
    }
    let first = accounts::accounts(&store.snapshot(), None, 3).unwrap();
    let rest = accounts::accounts(&store.snapshot(), Some(first[2].0), 3).unwrap();
    let names: Vec<_> = first.into_iter().chain(rest).map(|(_, id, _)| id.localpart().to_owned()).collect();
    assert_eq!(names, ["user0", "user1", "user2", "user3", "user4"]);
}
