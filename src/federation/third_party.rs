//! Invitations of people by an address, such as that of their e-mail: once the address belongs to a user, the invitation becomes one of that user.
//!
//! Specification: server-server API, "Third-party invites"; client-server API, "Third-party invites". An identity server that knows whose the address is tells the
//! server of that user, and signs what it tells. That server hands it to the server of who invited them, which alone can make the invitation. Each
//! takes only what the identity server signed out of what it is told; the rules of rooms check that signature again, on every server.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future;
use protocol::{
    json::{self, Numbers, Object},
    keys::PublicKey,
};
use rooms::{
    Sender, head,
    members::{self, Membership},
    membership::{self, Action, Change},
    state,
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use users::{accounts, numbers};

use crate::{Ask, Error, Federation, Result, collect, fetch::v1, known::Known, path, query};

/// The most invitations that an identity server tells of at once.
const INVITES_MAX: usize = 20;
/// The most keys and signatures that are tried with each other.
const CHECKS_MAX: usize = 128;
/// How long an identity server may take to say whether a key is valid.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The largest answer of an identity server, in bytes.
const ANSWER_MAX: usize = 4 << 10;

/// What an identity server tells: an address now belongs to a user.
#[derive(Debug, Deserialize)]
pub struct Bound {
    /// The user.
    pub mxid: OwnedUserId,
    /// The invitations that wait for the address.
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    pub invites: Vec<Waiting>,
}

/// An invitation that waits for an address.
#[derive(Debug, Deserialize)]
pub struct Waiting {
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    signed: Object,
}

/// The invitation that a server asks another to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exchange {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    membership: Membership,
    third_party_invite: Invite,
}

#[derive(Debug, Serialize, Deserialize)]
struct Invite {
    #[serde(default)]
    display_name: String,
    signed: Object,
}

impl Federation {
    /// Has the invitations made that waited for an address of a user of this server. One that fails, fails alone: the identity server is no party of it.
    ///
    /// # Errors
    /// [`rooms::Error::NotFound`] where there is no such user; [`Error::BadRequest`] for more than [`INVITES_MAX`] invitations.
    pub async fn bound(&self, bound: Bound) -> Result<()> {
        let Bound { mxid, invites } = bound;
        let db = self.store.snapshot();
        let account = if mxid.server_name() == self.name() { accounts::find(&db, &mxid)? } else { None };
        if account.is_none_or(|(_, account)| account.deactivated) {
            return Err(rooms::Error::NotFound("the user").into());
        }
        if invites.len() > INVITES_MAX {
            return Err(Error::BadRequest(format!("more than {INVITES_MAX} invitations")));
        }
        let invites = invites.into_iter().filter(|invite| text(&invite.signed, "mxid") == Some(mxid.as_str()));
        for done in future::join_all(invites.map(|invite| self.hand_on(&mxid, invite))).await {
            match done {
                Ok(()) => {}
                Err(Error::Store(error)) => return Err(error.into()),
                Err(error) => tracing::info!(%error, user = %mxid, "an invitation by address came to nothing"),
            }
        }
        Ok(())
    }

    async fn hand_on(&self, target: &UserId, waiting: Waiting) -> Result<()> {
        let Waiting { room_id, sender, signed } = waiting;
        if sender.server_name() == self.name() {
            let known = self.known(&self.store.snapshot(), &room_id)?.ok_or(rooms::Error::UnknownRoom)?;
            return self.invite_by_address(&known, &sender, target, signed).await;
        }
        let place = v1!("exchange_third_party_invite", room_id.as_str());
        let content =
            Content { membership: Membership::Invite, third_party_invite: Invite { display_name: String::new(), signed } };
        let server = sender.server_name().to_owned();
        let exchange = Exchange { kind: "m.room.member".to_owned(), room_id, sender, state_key: target.to_owned(), content };
        self.call::<Value>(&server, Ask::put(place, &exchange)?).await.map(drop)
    }

    /// Makes the invitation of a user of `origin` whom a user of this server invited by an address.
    ///
    /// # Errors
    /// [`Error::BadRequest`] where a field is not what it must be; [`rooms::Error::Forbidden`] and those of the room's rules; those of the invited user's server.
    pub async fn exchange_invitation(&self, origin: &ServerName, room: &RoomId, asked: Exchange) -> Result<()> {
        let wrong = |what: &str| Err(Error::BadRequest(what.to_owned()));
        if asked.kind != "m.room.member" || asked.content.membership != Membership::Invite {
            return wrong("the event is no invitation");
        }
        if asked.room_id != room {
            return wrong("the event is of another room than the path");
        }
        if asked.sender.server_name() != self.name() {
            return wrong("the sender is not of this server");
        }
        if asked.state_key.server_name() != origin {
            return Err(rooms::Error::Forbidden("The invited user is not of your server").into());
        }
        let known = self.known_to(&self.store.snapshot(), room, origin)?;
        self.invite_by_address(&known, &asked.sender, &asked.state_key, asked.content.third_party_invite.signed).await
    }

    /// The event is made anew: of what was told only the signed part is in it, and its name is that of the invitation by address.
    async fn invite_by_address(&self, known: &Known, sender: &UserId, target: &UserId, signed: Object) -> Result<()> {
        let db = self.store.snapshot();
        let forbidden = |why: &'static str| Error::from(rooms::Error::Forbidden(why));
        if text(&signed, "mxid") != Some(target.as_str()) {
            return Err(forbidden("What is signed is about another user"));
        }
        let token = text(&signed, "token").unwrap_or_default();
        let promise = state::event(&db, known.no, head(&db, known.no)?.state, "m.room.third_party_invite", token)?;
        let promise = promise.filter(|promise| promise.event.sender == sender && !token.is_empty());
        let promise = promise.ok_or_else(|| forbidden("The user invited nobody by this token"))?;
        let promise: Object = serde_json::from_str(promise.event.content.get()).unwrap_or_default();
        self.check_signer(&promise, &signed).await?;
        if let Some(target) = numbers::number(&db, target)?
            && members::is_joined(&db, target, known.no)?
        {
            return Err(rooms::Error::AlreadyJoined.into());
        }
        let no = numbers::number(&db, sender)?.ok_or_else(|| forbidden("There is no such user"))?;
        let sender = Sender { no, id: sender.to_owned() };
        let name = text(&promise, "display_name").unwrap_or_default();
        let mut content = Object::new();
        content.insert("third_party_invite".to_owned(), json!({ "display_name": name, "signed": signed }));
        if target.server_name() != self.name() {
            return self.invite(&sender, known.no, target, content).await;
        }
        let change = Change { target: target.to_owned(), to: Action::Invite, content };
        self.sent(membership::change(&self.store, &self.identity, &sender, known.no, change, self.now_ms()), drop).await
    }

    /// One of the keys that the invitation by address names signed, and whoever keeps watch over it still calls it valid.
    async fn check_signer(&self, promise: &Object, signed: &Object) -> Result<()> {
        for (key, validity_url) in signers(promise, signed)? {
            let Some(url) = validity_url else { return Ok(()) };
            if self.is_valid(&url, &key).await? {
                return Ok(());
            }
        }
        Err(rooms::Error::Forbidden("No valid key of the invitation by address signed this").into())
    }

    async fn is_valid(&self, url: &str, key: &str) -> Result<bool> {
        #[derive(Deserialize)]
        struct Validity {
            valid: bool,
        }
        if !self.config.enabled {
            return Err(Error::Disabled);
        }
        if !url.starts_with("https://") || url.contains('#') {
            return Ok(false);
        }
        let asked = query(String::new(), &[("public_key", key)]);
        // The question may be part of the place already.
        let url = if url.contains('?') { format!("{url}&{}", &asked[1..]) } else { format!("{url}{asked}") };
        let asking = async {
            let response = self.transport.fetch(&url).await?;
            let succeeds = response.status().is_success();
            Ok::<_, Error>(succeeds.then_some(collect(response.into_body(), ANSWER_MAX).await?))
        };
        let answer = tokio::time::timeout(ANSWER_TIME, asking).await.map_err(|_| Error::TimedOut)??;
        Ok(answer.is_some_and(|answer| serde_json::from_slice::<Validity>(&answer).is_ok_and(|answer| answer.valid)))
    }
}

/// The keys that an invitation by address names and that signed, each with the URL that tells whether it is valid.
fn signers(promise: &Object, signed: &Object) -> Result<Vec<(String, Option<String>)>> {
    let wrong = |error: json::JsonError| Error::BadRequest(error.to_string());
    let message = json::canonical_without(signed, &["signatures", "unsigned"], Numbers::Normalised).map_err(wrong)?;
    let listed = promise.get("public_keys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let named = [promise].into_iter().chain(listed);
    let named = named.filter_map(|key| Some((text(key, "public_key")?, text(key, "key_validity_url"))));
    let signatures = signed.get("signatures").and_then(Value::as_object).into_iter().flatten();
    let signatures: BTreeSet<&str> = signatures
        .filter_map(|(_, by_key)| by_key.as_object())
        .flatten()
        .filter(|(id, _)| id.starts_with("ed25519:"))
        .filter_map(|(_, signature)| signature.as_str())
        .collect();
    let pairs = named.flat_map(|named| signatures.iter().map(move |signature| (named, *signature))).take(CHECKS_MAX);
    let signs = |key: &str, signature: &str| {
        PublicKey::from_either_base64(key).is_ok_and(|key| key.verifies(message.as_bytes(), signature))
    };
    let signing = pairs.filter(|((key, _), signature)| signs(key, signature));
    Ok(signing.map(|((key, url), _)| (key.to_owned(), url.map(str::to_owned))).collect())
}

fn text<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}
