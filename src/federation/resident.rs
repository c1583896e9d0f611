//! What a server that is in a room does for one whose user wants in, or out: templates, and the events made of them.
//!
//! Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms".

use std::collections::BTreeSet;

use protocol::{json::Object, sign, verify::Verified};
use rooms::{
    EventNo, chains,
    events::{self, StoredEvent},
    members::Membership,
    partial,
    receive::Outcome,
    servers, state, template,
};
use ruma::{EventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use views::sync::members;

use crate::{
    Error, Federation, Result,
    known::{Known, raw},
    policy::UNRECOMMENDED,
};

/// An event that a server is to finish and to sign.
#[derive(Debug, Serialize)]
pub struct Template {
    /// The room's version.
    pub room_version: &'static str,
    /// The event without hashes and signatures.
    pub event: Object,
}

/// What a server that has joined is told of the room.
#[derive(Debug, Serialize)]
pub struct Joined {
    /// The name of this server.
    pub origin: OwnedServerName,
    /// The state before the join.
    pub state: Vec<Box<RawValue>>,
    /// The auth chain of that state.
    pub auth_chain: Vec<Box<RawValue>>,
    /// The join, as it was signed.
    pub event: Box<RawValue>,
    /// Whether the state lacks members.
    pub members_omitted: bool,
    /// The servers in the room before the join, where members were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers_in_room: Option<Vec<OwnedServerName>>,
}

/// How a user of another server changes their own membership.
#[derive(Debug, Deserialize)]
struct Own {
    membership: Membership,
    join_authorised_via_users_server: Option<OwnedUserId>,
}

impl Federation {
    /// The event by which a user of `origin` would join, knock, or leave.
    ///
    /// # Errors
    /// Those of [`template::own_membership`]; [`Error::IncompatibleVersion`] where the other server does not know the room's version.
    pub async fn template(
        &self,
        origin: &ServerName,
        room: &RoomId,
        user: &UserId,
        to: Membership,
        versions: Option<&[String]>,
    ) -> Result<Template> {
        check_user(user, origin)?;
        let db = self.store.snapshot();
        let known = self.known_to(&db, room, origin)?;
        check_whole(&db, &known, to)?;
        let room_version = known.version.id;
        if versions.is_some_and(|versions| !versions.iter().any(|version| version == room_version)) {
            return Err(Error::IncompatibleVersion(room_version));
        }
        let event = template::own_membership(&self.store, &self.identity, known.no, user, to, self.now_ms())?;
        Ok(Template { room_version, event: event.durable().await? })
    }

    /// Takes in the join of a user of `origin`, tells the room's other servers of it, and tells that one of the room.
    ///
    /// # Errors
    /// [`rooms::Error::Forbidden`] where the room refuses it.
    pub async fn take_join(
        &self,
        origin: &ServerName,
        room: &RoomId,
        event_id: &EventId,
        event: Object,
        omit_members: bool,
    ) -> Result<Joined> {
        let before = self.store.snapshot();
        let known = self.known_to(&before, room, origin)?;
        let was_in = servers::is_in(&before, known.no, origin)?;
        let event = self.take_own(origin, &known, event_id, event, Membership::Join).await?;
        let db = self.store.snapshot();
        let (_, stored) = events::by_id(&db, known.no, &event.event().id)?.ok_or(rooms::Error::NotFound("the join"))?;
        let mut joined = joined(&db, &known, &stored, omit_members, self.name().to_owned())?;
        if !was_in && let Some(servers) = &mut joined.servers_in_room {
            servers.retain(|server| server != origin);
        }
        Ok(joined)
    }

    /// Takes in the leave or the knock of a user of `origin`, and tells the room's other servers of it.
    ///
    /// # Errors
    /// As [`Federation::take_join`].
    pub async fn take_member(
        &self,
        origin: &ServerName,
        room: &RoomId,
        event_id: &EventId,
        event: Object,
        to: Membership,
    ) -> Result<()> {
        let known = self.known_to(&self.store.snapshot(), room, origin)?;
        self.take_own(origin, &known, event_id, event, to).await.map(drop)
    }

    async fn take_own(
        &self,
        origin: &ServerName,
        known: &Known,
        event_id: &EventId,
        mut event: Object,
        to: Membership,
    ) -> Result<Verified> {
        check_whole(&self.store.snapshot(), known, to)?;
        self.check_own(origin, known, &event, to)?;
        self.vouch(known, &mut event)?;
        let event = self.verify_one(event, known.version).await?;
        if event.event().id != event_id {
            return Err(Error::BadRequest("the event's id is not that of the path".to_owned()));
        }
        let gate = self.rooms.at(known.no);
        let _alone = gate.lock().await;
        let outcome = self.receive_and_tell(origin, known, &event).await?;
        match outcome {
            Outcome::Accepted(_) | Outcome::Duplicate => Ok(event),
            Outcome::Rejected(reason) | Outcome::SoftFailed(reason) => Err(Error::Refuses(reason)),
            Outcome::Unsigned(_) => Err(Error::Refuses(UNRECOMMENDED.to_owned())),
            Outcome::Missing(_) => Err(Error::BadRequest("the event cites events that cannot be had".to_owned())),
        }
    }

    async fn receive_and_tell(&self, origin: &ServerName, known: &Known, event: &Verified) -> Result<Outcome> {
        let outcome = self.tell_recommended(known, event.clone()).await?;
        if !matches!(outcome, Outcome::Missing(_)) {
            return Ok(outcome);
        }
        // The template was another server's of the room.
        self.fetch_gap(origin, known, event).await?;
        self.tell_recommended(known, event.clone()).await
    }

    /// The event is a change of the own membership of a user of `origin`, of this room.
    fn check_own(&self, origin: &ServerName, known: &Known, event: &Object, to: Membership) -> Result<()> {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let wrong = |what: &str| Err(Error::BadRequest(what.to_owned()));
        let sender = text("sender").and_then(|sender| <&UserId>::try_from(sender).ok());
        let Some(sender) = sender else { return wrong("the event has no sender") };
        check_user(sender, origin)?;
        if text("type") != Some("m.room.member") || text("state_key") != Some(sender.as_str()) {
            return wrong("the event is not the sender's own member event");
        }
        if text("room_id") != Some(known.id.as_str()) {
            return wrong("the event is of another room");
        }
        match own(event) {
            Some(own) if own.membership == to => Ok(()),
            _ => wrong("the event has another membership"),
        }
    }

    /// Signs a join for which a user of this server answers, where the room's rules let them.
    fn vouch(&self, known: &Known, event: &mut Object) -> Result<()> {
        let by = own(event).and_then(|own| own.join_authorised_via_users_server);
        let Some(by) = by.filter(|by| by.server_name() == self.name() && known.version.restricted_joins) else { return Ok(()) };
        let sender = event.get("sender").and_then(Value::as_str).unwrap_or_default();
        let sender = UserId::parse(sender).map_err(|error| Error::BadRequest(error.to_string()))?;
        let may = template::may_vouch(&self.store, &self.identity, known.no, &sender, &by)?.soft();
        if may {
            sign::cosign_object(event, known.version, self.name(), &self.identity.key)
                .map_err(|error| Error::BadRequest(error.to_string()))?;
        }
        Ok(())
    }
}

/// Who wants into a room is let in by servers that know all of it.
fn check_whole(db: &store::Snapshot, known: &Known, to: Membership) -> Result<()> {
    if to != Membership::Leave && partial::is_partial(db, known.no)? {
        return Err(rooms::Error::NotFound("all members of the room: ask another server").into());
    }
    Ok(())
}

fn own(event: &Object) -> Option<Own> {
    serde_json::from_value(event.get("content")?.clone()).ok()
}

fn check_user(user: &UserId, origin: &ServerName) -> Result<()> {
    if user.server_name() == origin { Ok(()) } else { Err(rooms::Error::Forbidden("The user is not of your server").into()) }
}

/// The state before a join and its auth chain.
fn joined(
    db: &store::Snapshot,
    known: &Known,
    join: &StoredEvent,
    omit_members: bool,
    origin: OwnedServerName,
) -> Result<Joined> {
    let mut numbers = state::all(db, known.no, join.header.before)?;
    if omit_members {
        let members: BTreeSet<EventNo> = state::of_type(db, known.no, join.header.before, "m.room.member")?.into_iter().collect();
        let mut needed = auth_members(db, known, join)?;
        needed.extend(heroes(db, known, join)?);
        numbers.retain(|no| !members.contains(no) || needed.contains(no));
    }
    let chain = chains::auth_chain(db, known.no, numbers.iter().copied())?;
    let in_state: BTreeSet<EventNo> = numbers.iter().copied().collect();
    let written = |no: EventNo| raw(&events::event(db, known.no, no)?.event.json);
    let servers_in_room = match omit_members {
        true => Some(servers::servers(db, known.no)?.collect::<rooms::Result<_>>()?),
        false => None,
    };
    Ok(Joined {
        origin,
        state: numbers.into_iter().map(written).collect::<Result<_>>()?,
        auth_chain: chain.into_iter().filter(|no| !in_state.contains(no)).map(written).collect::<Result<_>>()?,
        event: raw(&join.event.json)?,
        members_omitted: omit_members,
        servers_in_room,
    })
}

/// The member events of those whom a room without a name is called after.
fn heroes(db: &store::Snapshot, known: &Known, join: &StoredEvent) -> Result<Vec<EventNo>> {
    let before = join.header.before;
    if members::is_named(db, known.no, before)? {
        return Ok(Vec::new());
    }
    let heroes = members::heroes(db, (join.header.sender, &join.event.sender), known.no, before)?;
    let entry = |user: OwnedUserId| Ok(state::entry(db, known.no, before, "m.room.member", user.as_str())?);
    Ok(heroes.into_iter().map(entry).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The member events that a join without the others comes with: those it cites.
fn auth_members(db: &store::Snapshot, known: &Known, join: &StoredEvent) -> Result<BTreeSet<EventNo>> {
    let mut needed = BTreeSet::new();
    for id in &join.event.auth_events {
        needed.extend(events::by_id(db, known.no, id)?.map(|(no, _)| no));
    }
    Ok(needed)
}
