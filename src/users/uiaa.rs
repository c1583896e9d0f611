//! User-interactive authentication: which stages of which flows a request has passed ("User-Interactive Authentication API").
//!
//! The caller proves a stage (compares the password, looks at the token) and notes it here; nothing that a client sent is
//! kept but the registration token. A session belongs to one method, path and user, and lets one request through. Sessions
//! are in memory, bounded in number and age; who authenticates without an account cannot push out those who have one.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use protocol::base64;
use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use store::UserNo;

/// How long a session lasts, in milliseconds.
const SESSION_MS: u64 = 15 * 60_000;
/// The most sessions at once, of requests with an account and of those without: the oldest goes when another begins.
const SESSIONS_MAX: usize = 10_000;

/// A step of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The account's password.
    Password,
    /// Nothing: for flows that would be empty.
    Dummy,
    /// A registration token.
    RegistrationToken,
    /// Agreement to the terms of service.
    Terms,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Password, Self::Dummy, Self::RegistrationToken, Self::Terms];

    /// The name in the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "m.login.password",
            Self::Dummy => "m.login.dummy",
            Self::RegistrationToken => "m.login.registration_token",
            Self::Terms => "m.login.terms",
        }
    }

    /// The stage of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == name)
    }
}

/// Stages that together suffice.
pub type Flow = Vec<Stage>;

/// A stage that the caller has seen proven.
#[derive(Clone)]
pub enum Proof {
    /// The password is the account's.
    Password,
    /// The client wanted nothing.
    Dummy,
    /// This token is valid. It is used up when the account is made.
    RegistrationToken(String),
    /// The user agreed.
    Terms,
}

impl Proof {
    fn stage(&self) -> Stage {
        match self {
            Self::Password => Stage::Password,
            Self::Dummy => Stage::Dummy,
            Self::RegistrationToken(_) => Stage::RegistrationToken,
            Self::Terms => Stage::Terms,
        }
    }
}

/// The request that a session lets through.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// Who asks, where that is known.
    pub user: Option<UserNo>,
}

impl Scope<'_> {
    fn digest(&self) -> [u8; 32] {
        let user = self.user.map_or_else(String::new, |user| user.0.to_string());
        Sha256::digest(format!("{}\0{}\0{user}", self.method, self.path)).into()
    }
}

/// What is asked of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The session's id.
    pub session: String,
    /// The flows to choose from.
    pub flows: Vec<Flow>,
    /// The stages that are done.
    pub completed: Vec<Stage>,
}

impl Challenge {
    /// Whether a stage is part of any flow.
    #[must_use]
    pub fn offers(&self, stage: Stage) -> bool {
        self.flows.iter().any(|flow| flow.contains(&stage))
    }
}

/// A finished authentication.
#[derive(Clone, Default)]
pub struct Completed {
    /// The registration token to use up.
    pub registration_token: Option<String>,
}

/// The sessions of one server.
#[derive(Default)]
pub struct Sessions {
    anonymous: Mutex<Shelf>,
    of_users: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    sessions: HashMap<String, Session>,
    /// With the time of their end, in milliseconds since 1970; the oldest first. Names finished sessions too.
    order: VecDeque<(u64, String)>,
}

struct Session {
    scope: [u8; 32],
    flows: Vec<Flow>,
    completed: Vec<Stage>,
    registration_token: Option<String>,
    ends_ms: u64,
}

impl Sessions {
    fn shelf(&self, scope: Scope<'_>) -> &Mutex<Shelf> {
        if scope.user.is_some() { &self.of_users } else { &self.anonymous }
    }

    /// Begins a session.
    pub fn begin(&self, rng: &mut impl CryptoRng, scope: Scope<'_>, flows: Vec<Flow>, now_ms: u64) -> Challenge {
        let mut id = [0; 24];
        rng.fill_bytes(&mut id);
        let id = base64::encode_url_safe(&id);
        let ends_ms = now_ms.saturating_add(SESSION_MS);
        let session =
            Session { scope: scope.digest(), flows: flows.clone(), completed: Vec::new(), registration_token: None, ends_ms };
        let mut shelf = self.shelf(scope).lock();
        while shelf.order.len() >= SESSIONS_MAX || shelf.order.front().is_some_and(|(ends_ms, _)| *ends_ms <= now_ms) {
            if let Some((_, oldest)) = shelf.order.pop_front() {
                shelf.sessions.remove(&oldest);
            }
        }
        shelf.order.push_back((ends_ms, id.clone()));
        shelf.sessions.insert(id.clone(), session);
        Challenge { session: id, flows, completed: Vec::new() }
    }

    /// Where a session stands; `None` if it is not one of this request.
    pub fn resume(&self, session: &str, scope: Scope<'_>, now_ms: u64) -> Option<Challenge> {
        let mut shelf = self.shelf(scope).lock();
        let known = shelf.session(session, scope, now_ms)?;
        Some(Challenge { session: session.to_owned(), flows: known.flows.clone(), completed: known.completed.clone() })
    }

    /// Notes a stage as passed. What is no stage of the session's flows is passed over.
    pub fn pass(&self, session: &str, scope: Scope<'_>, proof: Proof, now_ms: u64) {
        let mut shelf = self.shelf(scope).lock();
        let Some(known) = shelf.session(session, scope, now_ms) else { return };
        let stage = proof.stage();
        if !known.flows.iter().any(|flow| flow.contains(&stage)) {
            return;
        }
        if !known.completed.contains(&stage) {
            known.completed.push(stage);
        }
        if let Proof::RegistrationToken(token) = proof {
            known.registration_token = Some(token);
        }
    }

    /// Ends a session of which a flow is complete, which lets one request through.
    pub fn finish(&self, session: &str, scope: Scope<'_>, now_ms: u64) -> Option<Completed> {
        let mut shelf = self.shelf(scope).lock();
        let known = shelf.session(session, scope, now_ms)?;
        if !known.flows.iter().any(|flow| flow.iter().all(|stage| known.completed.contains(stage))) {
            return None;
        }
        let finished = shelf.sessions.remove(session)?;
        Some(Completed { registration_token: finished.registration_token })
    }
}

impl Shelf {
    fn session(&mut self, id: &str, scope: Scope<'_>, now_ms: u64) -> Option<&mut Session> {
        let digest = scope.digest();
        self.sessions.get_mut(id).filter(|session| session.scope == digest && now_ms < session.ends_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const REGISTER: Scope<'static> = Scope { method: "POST", path: "/register", user: None };
    const DELETE: Scope<'static> = Scope { method: "DELETE", path: "/devices/A", user: Some(UserNo(1)) };

    fn begin(sessions: &Sessions, scope: Scope<'_>, flows: &[&[Stage]]) -> String {
        sessions.begin(&mut rand::rng(), scope, flows.iter().map(|flow| flow.to_vec()).collect(), 0).session
    }

    #[test]
    fn a_flow_of_two_stages_lets_one_request_through() {
        let sessions = Sessions::default();
        let id = begin(&sessions, REGISTER, &[&[Stage::RegistrationToken, Stage::Terms], &[Stage::Password]]);
        assert!(sessions.finish(&id, REGISTER, 1).is_none());
        sessions.pass(&id, REGISTER, Proof::RegistrationToken("sesame".into()), 1);
        sessions.pass(&id, REGISTER, Proof::Dummy, 1);
        assert!(sessions.finish(&id, REGISTER, 1).is_none(), "a stage of no flow is no progress");
        assert_eq!(sessions.resume(&id, REGISTER, 1).unwrap().completed, [Stage::RegistrationToken]);
        sessions.pass(&id, REGISTER, Proof::Terms, 1);
        assert_eq!(sessions.finish(&id, REGISTER, 1).unwrap().registration_token.unwrap(), "sesame");
        assert!(sessions.finish(&id, REGISTER, 1).is_none(), "once");
    }

    #[test]
    fn a_session_is_good_for_its_own_request_only() {
        let sessions = Sessions::default();
        let id = begin(&sessions, DELETE, &[&[Stage::Password]]);
        let others = [
            Scope { path: "/devices/B", ..DELETE },
            Scope { method: "PUT", ..DELETE },
            Scope { user: Some(UserNo(2)), ..DELETE },
            Scope { user: None, ..DELETE },
        ];
        for other in others {
            sessions.pass(&id, other, Proof::Password, 1);
            assert!(sessions.resume(&id, other, 1).is_none() && sessions.finish(&id, other, 1).is_none());
        }
        assert!(sessions.finish(&id, DELETE, 1).is_none());
        sessions.pass(&id, DELETE, Proof::Password, 1);
        assert!(sessions.finish(&id, DELETE, SESSION_MS).is_none(), "too late");
        assert!(sessions.finish(&id, DELETE, SESSION_MS - 1).is_some());
    }

    #[test]
    fn t33_a_flood_of_strangers_pushes_out_strangers_only() {
        let sessions = Sessions::default();
        let (mine, theirs) = (begin(&sessions, DELETE, &[&[Stage::Password]]), begin(&sessions, REGISTER, &[&[Stage::Dummy]]));
        for _ in 0..SESSIONS_MAX {
            begin(&sessions, REGISTER, &[&[Stage::Dummy]]);
        }
        assert!(sessions.resume(&mine, DELETE, 1).is_some());
        assert!(sessions.resume(&theirs, REGISTER, 1).is_none());
        let shelf = sessions.anonymous.lock();
        assert_eq!((shelf.sessions.len(), shelf.order.len()), (SESSIONS_MAX, SESSIONS_MAX));
    }

    #[test]
    fn stages_have_the_names_of_the_specification() {
        for stage in Stage::ALL {
            assert_eq!(Stage::named(stage.as_str()), Some(stage));
        }
        assert_eq!(Stage::named("m.login.sso"), None);
    }
}
