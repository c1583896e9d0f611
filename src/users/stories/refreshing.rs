use super::*;
use crate::{
    Error,
    sessions::{Issued, authenticate, confirm, refresh},
};

/// What a client holds: its tokens in the clear.
struct Client {
    access: String,
    refresh: String,
}

impl Client {
    fn of(issued: Issued) -> Self {
        Self { access: issued.access_token.into_text(), refresh: issued.refresh_token.unwrap().into_text() }
    }

    fn log_in(store: &Store, localpart: &str) -> Self {
        let first = Login { device_id: Some("PHONE".into()), refresh: true, ..Login::default() };
        Self::of(register_with(store, localpart, None, Some(first), 0).unwrap().session.unwrap().tokens)
    }

    fn refresh(&self, store: &Store, now_ms: u64) -> Result<Self> {
        Ok(Self::of(refresh(store, &mut rand::rng(), &self.refresh, &config(), now_ms)?.wait()?))
    }

    /// A request, as the edge makes it.
    fn works(&self, store: &Store, now_ms: u64) -> bool {
        let Ok(session) = authenticate(&store.snapshot(), &self.access, now_ms) else { return false };
        if session.is_offered() {
            confirm(store, &session).unwrap().wait().unwrap();
        }
        true
    }
}

#[test]
fn an_expired_token_is_a_soft_logout_until_refreshed() {
    let store = store();
    let first = Client::log_in(&store, "alice");
    assert!(first.works(&store, 59_999));
    let outcome = authenticate(&store.snapshot(), &first.access, 60_000);
    assert!(matches!(outcome, Err(Error::UnknownToken { soft_logout: true })));
    let second = first.refresh(&store, 60_000).unwrap();
    assert!(second.works(&store, 119_999));
    assert!(!second.works(&store, 120_000));
}

#[test]
fn the_old_tokens_hold_until_the_new_access_token_is_used() {
    let store = store();
    let first = Client::log_in(&store, "alice");
    let second = first.refresh(&store, 1).unwrap();
    assert!(first.works(&store, 2));
    assert!(second.works(&store, 2));
    assert!(!first.works(&store, 3));
    assert!(matches!(first.refresh(&store, 3), Err(Error::UnknownToken { soft_logout: false })));
    assert!(second.works(&store, 3));
}

#[test]
fn the_old_tokens_hold_until_the_new_refresh_token_is_used() {
    let store = store();
    let first = Client::log_in(&store, "alice");
    let second = first.refresh(&store, 1).unwrap();
    let third = second.refresh(&store, 2).unwrap();
    assert!(!first.works(&store, 3) && first.refresh(&store, 3).is_err());
    assert!(second.works(&store, 3), "the one before the offer holds");
    assert!(third.works(&store, 3));
}

#[test]
fn a_lost_answer_can_be_asked_for_again() {
    let store = store();
    let first = Client::log_in(&store, "alice");
    let lost = first.refresh(&store, 1).unwrap();
    let second = first.refresh(&store, 2).unwrap();
    assert!(!lost.works(&store, 3) && lost.refresh(&store, 3).is_err());
    assert!(second.works(&store, 3));
    assert!(first.refresh(&store, 4).is_err());
}

#[test]
fn logout_ends_tokens_that_were_only_offered() {
    let store = store();
    let first = Client::log_in(&store, "alice");
    let second = first.refresh(&store, 1).unwrap();
    let session = authenticate(&store.snapshot(), &first.access, 2).unwrap();
    sessions::logout(&store, &session, &[]).unwrap().wait().unwrap();
    assert!(!second.works(&store, 3) && second.refresh(&store, 3).is_err() && first.refresh(&store, 3).is_err());
    let tokens = [sessions::TABLES[0], sessions::TABLES[1], sessions::TABLES[2]];
    assert_eq!(store.dump(&tokens).unwrap().lines().count(), 3, "nothing is left behind but the names of the tables");
}

#[test]
fn locked_and_deactivated_users_do_not_refresh() {
    let store = store();
    let client = Client::log_in(&store, "alice");
    let user = crate::accounts::find(&store.snapshot(), &user_id("alice")).unwrap().unwrap().0;
    crate::accounts::set_locked(&store, user, true).unwrap().wait().unwrap();
    assert!(matches!(client.refresh(&store, 1), Err(Error::Locked)));
    crate::accounts::deactivate(&store, user, false, &[]).unwrap().wait().unwrap();
    assert!(matches!(client.refresh(&store, 1), Err(Error::UnknownToken { soft_logout: false })));
    assert!(matches!(refresh(&store, &mut rand::rng(), "", &config(), 1), Err(Error::UnknownToken { .. })));
}
