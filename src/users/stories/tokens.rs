use super::*;
use crate::{Error, openid};

#[test]
fn a_token_stands_for_its_device_until_logout() {
    let store = store();
    let (alice, login) = register(&store, "alice");
    let found = session(&store, &login, u64::MAX).unwrap();
    assert_eq!((found.user, found.user_id.as_str(), found.device_id.as_str()), (alice, "@alice:localhost", "PHONE"));
    assert!(!found.admin && !found.suspended && !found.is_offered());
    sessions::logout(&store, &found, &[ROOM]).unwrap().wait().unwrap();
    assert!(matches!(session(&store, &login, 1), Err(Error::UnknownToken { soft_logout: false })));
    assert!(crate::devices::devices(&store.snapshot(), alice).unwrap().is_empty(), "the device went with it");
}

#[test]
fn what_is_no_token_stands_for_nobody() {
    let store = store();
    let (_, login) = register(&store, "alice");
    let text = login.tokens.access_token.into_text();
    assert!(text.starts_with("hsa_") && text.len() == 47, "256 bits: {text}");
    let long = "x".repeat(100_000);
    for hostile in ["", " ", "hsa_", &text[..46], &text.to_lowercase(), &format!("{text} "), "\0", long.as_str()] {
        let outcome = sessions::authenticate(&store.snapshot(), hostile, 0);
        assert!(matches!(outcome, Err(Error::UnknownToken { soft_logout: false })), "{hostile:?}");
    }
    let stored = store.dump(crate::TABLES).unwrap();
    assert!(!stored.contains(&text[4..]), "only its hash is stored");
}

#[test]
fn another_login_on_a_device_ends_its_session_and_keeps_its_name() {
    let store = store();
    let (alice, first) = register(&store, "alice");
    let again = Login { device_id: Some("PHONE".into()), display_name: Some("other"), ..Login::default() };
    let second = sessions::login(&store, &mut rand::rng(), alice, again, &config(), 1).unwrap().wait().unwrap();
    assert!(matches!(session(&store, &first, 1), Err(Error::UnknownToken { .. })));
    let found = session(&store, &second, 1).unwrap();
    let devices = crate::devices::devices(&store.snapshot(), alice).unwrap();
    assert_eq!((devices.len(), devices[0].display_name.as_deref(), devices[0].number), (1, Some("a phone"), found.device));
}

#[test]
fn a_late_logout_does_not_touch_the_next_device_of_that_id() {
    let store = store();
    let (alice, first) = register(&store, "alice");
    let late = session(&store, &first, 0).unwrap();
    sessions::logout_all(&store, alice, &[]).unwrap().wait().unwrap();
    let again = Login { device_id: Some("PHONE".into()), ..Login::default() };
    let second = sessions::login(&store, &mut rand::rng(), alice, again, &config(), 1).unwrap().wait().unwrap();
    sessions::logout(&store, &late, &[]).unwrap().wait().unwrap();
    assert_ne!(session(&store, &second, 1).unwrap().device, late.device, "numbers are not given again");
}

#[test]
fn a_lasting_token_expires_where_the_operator_says_so() {
    let store = store();
    let config = sessions::Config { lasting_token_ms: Some(10), ..config() };
    let alice = register(&store, "alice").0;
    let login = Login::default();
    let login = sessions::login(&store, &mut rand::rng(), alice, login, &config, 5).unwrap().wait().unwrap();
    assert_eq!(login.tokens.expires_in_ms, Some(10));
    assert!(session(&store, &login, 14).is_ok());
    assert!(matches!(session(&store, &login, 15), Err(Error::UnknownToken { soft_logout: true })), "the device stays");
}

#[test]
fn a_login_token_is_good_once_and_for_two_minutes() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let (mut rng, config) = (rand::rng(), config());
    let issue = || sessions::issue_login_token(&store, &mut rand::rng(), alice, &config, 0).unwrap().wait().unwrap().into_text();
    let (used, late) = (issue(), issue());
    let mut log_in = |token: &str, now_ms: u64| {
        let login = Login { display_name: Some("tablet"), ..Login::default() };
        sessions::login_by_token(&store, &mut rng, token, login, &config, now_ms).map(|login| login.wait().unwrap())
    };
    assert_eq!(log_in(&used, 119_999).unwrap().user_id, "@alice:localhost");
    assert!(matches!(log_in(&used, 1), Err(Error::WrongCredentials)), "used up");
    assert!(matches!(log_in(&late, 120_000), Err(Error::WrongCredentials)), "too late");
    assert!(matches!(log_in("", 1), Err(Error::WrongCredentials)));
    sessions::purge(&store, 120_000).unwrap().wait().unwrap();
    assert!(matches!(log_in(&late, 1), Err(Error::WrongCredentials)), "purged");
}

#[test]
fn an_openid_token_tells_who_someone_is_and_no_more() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let token = openid::issue(&store, &mut rand::rng(), alice, 0).unwrap().wait().unwrap().into_text();
    let owner = |now_ms: u64| openid::owner(&store.snapshot(), &token, now_ms).unwrap();
    assert_eq!((owner(openid::HOLDS_MS - 1), owner(openid::HOLDS_MS)), (Some(alice), None));
    assert!(sessions::authenticate(&store.snapshot(), &token, 1).is_err(), "it opens nothing");
    assert_eq!(openid::owner(&store.snapshot(), "", 1).unwrap(), None);
    crate::accounts::set_locked(&store, alice, true).unwrap().wait().unwrap();
    assert_eq!(owner(1), None);
    sessions::purge(&store, openid::HOLDS_MS).unwrap().wait().unwrap();
    assert_eq!(store.dump(&openid::TABLES).unwrap(), "openid_tokens\n");
}
