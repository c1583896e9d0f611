//! Who calls: the kinds of authentication that a route can demand, as types, so that a handler of a route without a session
//! cannot ask for one.

use std::{future::Future, sync::Arc};

use http::{HeaderMap, header, request::Parts};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::Deserialize;
pub use users::sessions::Session;
use users::{accounts::Kind, appservices::Appservice, sessions};

use crate::{
    error::{Error, Result},
    server::Server,
};

/// What a route demands of its caller. A line of the table names one of the unit structs below.
pub trait Auth: Copy + Send + Sync + 'static {
    /// What the handler finds in [`crate::Call::session`].
    type Session: Send + 'static;
    /// The name in the list of endpoints.
    const NAME: &'static str;

    /// Who calls.
    ///
    /// # Errors
    /// 401 without a valid token, 403 where this caller may not.
    fn authenticate(self, server: &Server, parts: &Parts) -> impl Future<Output = Result<Self::Session>> + Send;

    /// The session, if there is one.
    fn session(session: &Self::Session) -> Option<&Session>;

    /// Whether no rate limit holds for the caller: an application service whose registration says so, and its own user.
    fn is_unlimited(session: &Self::Session) -> bool {
        Self::session(session).is_some_and(Session::is_unlimited)
    }
}

/// Anybody. A token is not looked at.
#[derive(Clone, Copy, Debug)]
pub struct Public;
/// Anybody. The handler may ask for the application service whose token there is.
#[derive(Clone, Copy, Debug)]
pub struct PublicOrService;
/// Anybody; a token, where there is one, must be valid.
#[derive(Clone, Copy, Debug)]
pub struct Optional;
/// A user of this server who is neither a guest nor locked.
#[derive(Clone, Copy, Debug)]
pub struct User;
/// A user of this server, or a guest.
#[derive(Clone, Copy, Debug)]
pub struct UserOrGuest;
/// Anyone with a token, even of a locked account: to log out ("Account locking").
#[derive(Clone, Copy, Debug)]
pub struct EvenLocked;
/// An administrator of this server.
#[derive(Clone, Copy, Debug)]
pub struct Admin;

impl Auth for Public {
    type Session = ();
    const NAME: &'static str = "public";

    async fn authenticate(self, _: &Server, _: &Parts) -> Result<()> {
        Ok(())
    }

    fn session((): &()) -> Option<&Session> {
        None
    }
}

impl Auth for Optional {
    type Session = Option<Session>;
    const NAME: &'static str = "optional";

    async fn authenticate(self, server: &Server, parts: &Parts) -> Result<Option<Session>> {
        match token(parts)? {
            None => Ok(None),
            Some(token) => unlocked(server, &token, parts).await.map(Some),
        }
    }

    fn session(session: &Option<Session>) -> Option<&Session> {
        session.as_ref()
    }
}

impl Auth for PublicOrService {
    type Session = Presented;
    const NAME: &'static str = "public-or-appservice";

    async fn authenticate(self, server: &Server, parts: &Parts) -> Result<Presented> {
        let token = token(parts);
        let found = token.as_ref().ok().and_then(Option::as_ref);
        let appservice = found.and_then(|token| server.users.appservices.by_token(token));
        Ok(Presented { token: token.map(|token| token.is_some()), appservice })
    }

    fn session(_: &Presented) -> Option<&Session> {
        None
    }

    fn is_unlimited(presented: &Presented) -> bool {
        presented.appservice.as_ref().is_some_and(|appservice| !appservice.rate_limited)
    }
}

/// What came as a token at an endpoint that needs none, where it may be an application service's.
pub struct Presented {
    token: Result<bool>,
    appservice: Option<Arc<Appservice>>,
}

impl Presented {
    /// The application service.
    ///
    /// # Errors
    /// 401 where there is no token, or that of nobody.
    pub fn appservice(self) -> Result<Arc<Appservice>> {
        match (self.appservice, self.token?) {
            (Some(appservice), _) => Ok(appservice),
            (None, true) => Err(Error::unknown_token(false)),
            (None, false) => Err(Error::missing_token()),
        }
    }
}

/// The kinds whose handlers always have a session: their names, how they find it, and what they demand of it.
macro_rules! with_session {
    ($($kind:ident $name:literal $find:ident $demand:expr;)*) => { $(
        impl Auth for $kind {
            type Session = Session;
            const NAME: &'static str = $name;

            async fn authenticate(self, server: &Server, parts: &Parts) -> Result<Session> {
                let token = token(parts)?.ok_or_else(Error::missing_token)?;
                $demand($find(server, &token, parts).await?)
            }

            fn session(session: &Session) -> Option<&Session> {
                Some(session)
            }
        }
    )* };
}

with_session! {
    User "user" unlocked no_guest;
    UserOrGuest "user-or-guest" unlocked anybody;
    EvenLocked "even-locked" even_locked anybody;
    Admin "admin" unlocked administrator;
}

async fn unlocked(server: &Server, token: &str, parts: &Parts) -> Result<Session> {
    if let Some(appservice) = server.users.appservices.by_token(token) {
        return masquerade(server, appservice, parts);
    }
    confirmed(server, sessions::authenticate(&server.snapshot(), token, server.now_ms())?).await
}

async fn even_locked(server: &Server, token: &str, parts: &Parts) -> Result<Session> {
    if let Some(appservice) = server.users.appservices.by_token(token) {
        return masquerade(server, appservice, parts);
    }
    confirmed(server, sessions::authenticate_even_locked(&server.snapshot(), token, server.now_ms())?).await
}

/// An application service acts as its own user, or as the one that the query names ("Identity assertion").
fn masquerade(server: &Server, appservice: Arc<Appservice>, parts: &Parts) -> Result<Session> {
    #[derive(Deserialize)]
    struct As {
        user_id: Option<OwnedUserId>,
        device_id: Option<OwnedDeviceId>,
        #[serde(rename = "org.matrix.msc3202.device_id")]
        unstable_device_id: Option<OwnedDeviceId>,
    }
    let query = parts.uri.query().unwrap_or_default();
    let wrong = |_| Error::invalid_param("The query's user_id or device_id cannot be one");
    let As { user_id, device_id, unstable_device_id } = serde_html_form::from_str(query).map_err(wrong)?;
    let device_id = device_id.or(unstable_device_id);
    Ok(Session::of_appservice(&server.snapshot(), appservice, user_id.as_deref(), device_id.as_deref())?)
}

/// The first use of a refreshed token revokes the one before it ("Refreshing access tokens").
async fn confirmed(server: &Server, session: Session) -> Result<Session> {
    // A disk that refuses writes ends no session: the token before stays valid until this one is used again.
    if session.is_offered() && server.store.failure().is_none() {
        sessions::confirm(&server.store, &session)?.durable().await?;
    }
    Ok(session)
}

fn anybody(session: Session) -> Result<Session> {
    Ok(session)
}

fn no_guest(session: Session) -> Result<Session> {
    if session.kind == Kind::Guest { Err(Error::guests_forbidden()) } else { Ok(session) }
}

fn administrator(session: Session) -> Result<Session> {
    if session.admin { Ok(session) } else { Err(Error::forbidden("Only administrators of this server may do this")) }
}

/// The access token: of the `Authorization` header, else of the query ("Using access tokens"). An empty one is none.
fn token(parts: &Parts) -> Result<Option<String>> {
    if let Some(token) = bearer(&parts.headers)? {
        return Ok(Some(token));
    }
    let query = parts.uri.query().unwrap_or_default();
    let found = query.split('&').find_map(|pair| pair.strip_prefix("access_token="));
    Ok(found.filter(|token| !token.is_empty()).map(Into::into))
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| Error::unknown_token(false))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Error::missing_token());
    }
    Ok(Some(token.into()))
}
