//! Invitations of users of one server into a room of another: each signs what the other asks of it, and no more.
//!
//! Specification: server-server API, "Inviting to a room".

use std::sync::Arc;

use protocol::{
    event::Event,
    json::Object,
    parse::RawPdu,
    sign,
    verify::Verified,
    version::{EventIdFormat, RoomVersion},
};
use rooms::{NewEvent, Sender, events, head, members::Membership, policy, receive::Outcome, remote, state, template};
use ruma::{EventId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use store::RoomNo;
use users::accounts;
use views::stripped::TYPES;

use crate::{
    Error, Federation, Result,
    fetch::v1,
    known::{Known, raw},
    path,
    policy::{UNRECOMMENDED, as_policy},
};

/// An invitation that another server asks this one to sign.
#[derive(Debug, Deserialize)]
pub struct Invitation {
    /// The room's version.
    pub room_version: String,
    /// The event.
    pub event: Object,
    /// What identifies the room.
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    pub invite_room_state: Vec<Box<RawValue>>,
}

impl Federation {
    /// Invites a user of another server: their server signs the invitation, then it is part of the room.
    ///
    /// # Errors
    /// Those of sending, and those of the other server.
    pub async fn invite(&self, sender: &Sender, room: RoomNo, target: &UserId, content: Object) -> Result<()> {
        let mut content = content;
        content.insert("membership".to_owned(), Membership::Invite.as_str().into());
        let new = NewEvent::state("m.room.member", target.as_str(), content);
        let event = template::unsent(&self.store, &self.identity, room, sender, new, self.now_ms())?.durable().await?;
        let db = self.store.snapshot();
        let known = self.known(&db, &event.room_id)?.ok_or(rooms::Error::UnknownRoom)?;
        // The invited user is told of nothing that the room's policy server refuses.
        let event = match policy::policy(&db, known.no, head(&db, known.no)?.state)? {
            Some(policy) => self.recommended(&policy.server, &known, &event).await.map_err(as_policy)?.into_event(),
            None => event,
        };
        let signed = self.ask_to_sign(&known, target.server_name(), &event).await?;
        match self.tell_recommended(&known, signed).await? {
            Outcome::Accepted(_) | Outcome::Duplicate => Ok(()),
            Outcome::Rejected(reason) | Outcome::SoftFailed(reason) => Err(Error::Refuses(reason)),
            Outcome::Unsigned(_) => Err(Error::Refuses(UNRECOMMENDED.to_owned())),
            Outcome::Missing(_) => Err(Error::Internal("an event of this server lacks what it cites".to_owned())),
        }
    }

    async fn ask_to_sign(&self, known: &Known, server: &ServerName, event: &Arc<Event>) -> Result<Verified> {
        #[derive(Deserialize)]
        struct Signed {
            event: Object,
        }
        let told = self.told_of(known, &event.sender)?;
        let body = json!({ "room_version": known.version.id, "event": raw(&event.json)?, "invite_room_state": told });
        let (room, id) = (known.id.as_str(), event.id.as_str());
        let signed = match self.put::<Signed>(server, path(&["_matrix", "federation", "v2", "invite", room, id]), &body).await {
            Ok(Signed { event }) => event,
            // A server of old.
            Err(Error::Refused(refusal))
                if known.version.event_ids == EventIdFormat::Chosen && matches!(refusal.status.as_u16(), 400 | 404) =>
            {
                let (_, Signed { event }) =
                    self.put::<(u16, Signed)>(server, v1!("invite", room, id), &raw(&event.json)?).await?;
                event
            }
            Err(error) => return Err(error),
        };
        // What the other server may add is its signature: the rest is as it was sent.
        let signature = signed.get("signatures").and_then(|all| all.get(server.as_str())).cloned();
        let mut object = event.object().map_err(rooms::Error::from)?;
        if let (Some(all), Some(signature)) = (object.get_mut("signatures").and_then(|all| all.as_object_mut()), signature) {
            all.insert(server.to_string(), signature);
        }
        let verified = self.verify(vec![RawPdu::from_object(object)], known.version).await?.pop();
        verified
            .and_then(std::result::Result::ok)
            .ok_or_else(|| Error::BadAnswer("an invitation with a wrong signature".to_owned()))
    }

    /// The events that identify a room to those who are not in it, and who invites them.
    fn told_of(&self, known: &Known, inviter: &UserId) -> Result<Vec<Box<RawValue>>> {
        let db = self.store.snapshot();
        let root = head(&db, known.no)?.state;
        let mut told = Vec::with_capacity(TYPES.len() + 1);
        for (kind, key) in TYPES.iter().map(|kind| (*kind, "")).chain([("m.room.member", inviter.as_str())]) {
            if let Some(stored) = state::event(&db, known.no, root, kind, key)? {
                told.push(raw(&stored.event.json)?);
            }
        }
        Ok(told)
    }

    /// What identifies a room to a user of another server who knocked at it.
    ///
    /// # Errors
    /// [`rooms::Error::UnknownRoom`].
    pub fn told_of_knock(&self, room: &RoomId, knock: &EventId) -> Result<Vec<Box<RawValue>>> {
        let db = self.store.snapshot();
        let known = self.known(&db, room)?.ok_or(rooms::Error::UnknownRoom)?;
        let (_, stored) = events::by_id(&db, known.no, knock)?.ok_or(rooms::Error::NotFound("the knock"))?;
        self.told_of(&known, &stored.event.sender)
    }

    /// Signs an invitation of a local user by a user of `origin`, and lets the user know of it.
    ///
    /// # Errors
    /// [`Error::IncompatibleVersion`], [`Error::BadRequest`], [`rooms::Error::Forbidden`].
    pub async fn sign_invitation(
        &self,
        origin: &ServerName,
        room: &RoomId,
        event_id: &EventId,
        invitation: Invitation,
    ) -> Result<Box<RawValue>> {
        let Invitation { room_version, mut event, invite_room_state } = invitation;
        let version = RoomVersion::named(&room_version).ok_or(Error::UnknownVersion)?;
        if invite_room_state.len() > remote::STATE_MAX {
            return Err(Error::BadRequest("too much invite_room_state".to_owned()));
        }
        sign::cosign_object(&mut event, version, self.name(), &self.identity.key)
            .map_err(|error| Error::BadRequest(error.to_string()))?;
        let verified = self.verify_one(event, version).await?;
        let event = verified.event();
        self.check_invitation(origin, room, event_id, event)?;
        self.check_told(version, room, &invite_room_state).await?;
        remote::put(&self.store, (room, version), event, &invite_room_state, origin)?.durable().await?;
        raw(&event.json)
    }

    fn check_invitation(&self, origin: &ServerName, room: &RoomId, event_id: &EventId, event: &Event) -> Result<()> {
        let wrong = |what: &str| Err(Error::BadRequest(what.to_owned()));
        if event.id != event_id || event.room_id != room {
            return wrong("the event is not the one of the path");
        }
        if event.sender.server_name() != origin {
            return wrong("the sender is not of your server");
        }
        let Some(("m.room.member", target)) = event.state_pair() else { return wrong("the event is no invitation") };
        if Membership::of(event) != Membership::Invite {
            return wrong("the event is no invitation");
        }
        let target = UserId::parse(target).map_err(|error| Error::BadRequest(error.to_string()))?;
        if target.server_name() != self.name() {
            return wrong("the invited user is not of this server");
        }
        let db = self.store.snapshot();
        let account = match users::numbers::number(&db, &target)? {
            Some(no) => accounts::account(&db, no)?,
            None => None,
        };
        match account {
            Some(account) if !account.deactivated => Ok(()),
            _ => Err(rooms::Error::NotFound("the invited user").into()),
        }
    }

    /// From room version 12 on, what an invitation tells of a room must prove to be of that room.
    async fn check_told(&self, version: &'static RoomVersion, room: &RoomId, told: &[Box<RawValue>]) -> Result<()> {
        if !version.version_12 {
            return Ok(());
        }
        let events = self.verified(told.to_vec(), version).await?.events;
        let of_room = events.iter().all(|event| event.event().room_id == room);
        let create = events.iter().any(|event| event.event().state_pair() == Some(("m.room.create", "")));
        if of_room && create && events.len() == told.len() {
            return Ok(());
        }
        Err(Error::BadRequest("invite_room_state must hold events of the room, its create event among them".to_owned()))
    }
}
