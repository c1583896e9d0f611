//! Entering rooms of other servers, and leaving those that this server is not in.
//!
//! Specification: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)". The template that the other
//! server gives is never signed as it comes: the event is made anew of what it may decide, which is its place in the graph.

use std::{sync::Arc, time::Duration};

use protocol::{
    draft::{self, Draft, Reference},
    event::Event,
    json::Object,
    parse::RawPdu,
    verify::Verified,
    version::{EventIdFormat, RoomVersion},
};
use rand::RngExt as _;
use rooms::{
    Sender,
    members::Membership,
    partial::{self, Omitted},
    receive::{self, Outcome},
    remote, servers,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use store::RoomNo;

use crate::{
    Ask, Error, Federation, Result,
    fetch::{Believed, STATE_BYTES_MAX, v1},
    known::Known,
    path, query,
};

/// Servers that are tried, one after the other.
const SERVERS_MAX: usize = 10;
/// How long a server may take to tell of a large room.
const JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a join waits until all members are known.
const SMALL_ROOM: Duration = Duration::from_secs(2);

/// What the other server says an event must be made of.
#[derive(Deserialize)]
struct Made {
    room_version: Option<String>,
    event: Object,
}

/// What the other server says once it has the join.
#[derive(Deserialize)]
struct Sent {
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    auth_chain: Vec<Box<RawValue>>,
    #[serde(deserialize_with = "protocol::json::null_is_empty")]
    state: Vec<Box<RawValue>>,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    members_omitted: bool,
    #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
    servers_in_room: Vec<String>,
}

/// A change of a local user's own membership, of a room of other servers.
#[derive(Clone, Debug)]
pub struct Entering {
    /// The user.
    pub user: Sender,
    /// The room.
    pub room: OwnedRoomId,
    /// Servers that may be in it.
    pub via: Vec<OwnedServerName>,
    /// More of the member event's content: display name, avatar, reason.
    pub content: Object,
}

impl Federation {
    /// Makes a user a member of a room by way of the first of the servers that lets them in. This server is in the room then, though of a large
    /// room it may not know all members yet.
    ///
    /// # Errors
    /// The last server's [`Error`].
    pub async fn join(&self, entering: &Entering) -> Result<()> {
        let gate = self.entering.at(entering.room.clone());
        let alone = gate.lock().await;
        let early = self.early.begin(&entering.room);
        let join = self.by_way_of(entering, Membership::Join).await?;
        let Some(room) = rooms::numbers::number(&self.store.snapshot(), &entering.room)? else { return Ok(()) };
        for (origin, pdu) in early.end(join.depth) {
            self.stage(&origin, room, &pdu)?;
        }
        self.resyncs.due(room);
        drop(alone);
        // Of a small room all is known before anybody looks.
        self.whole_within(room, SMALL_ROOM).await?;
        Ok(())
    }

    /// Asks a room of other servers to let a user in.
    ///
    /// # Errors
    /// The last server's [`Error`].
    pub async fn knock(&self, entering: &Entering) -> Result<()> {
        self.by_way_of(entering, Membership::Knock).await.map(drop)
    }

    /// Declines an invitation, or takes back a knock, of a room that this server is not in. Where no server of the room answers, the user has left
    /// all the same.
    ///
    /// # Errors
    /// Only where Hearth fails.
    pub async fn leave(&self, entering: &Entering, member: &Event, version: &'static RoomVersion) -> Result<()> {
        match self.by_way_of(entering, Membership::Leave).await {
            Err(error) if error.is_theirs() => {
                tracing::info!(%error, room = %entering.room, user = %entering.user.id, "left a room whose servers do not answer");
                let left = self.left_alone(entering, member, version)?;
                self.put_remote(entering, self.name(), (&left, version), Vec::new()).await
            }
            left => left.map(drop),
        }
    }

    /// The member event that the first of the servers took.
    async fn by_way_of(&self, entering: &Entering, to: Membership) -> Result<Arc<Event>> {
        let mut last = Error::NoServer;
        for server in entering.via.iter().filter(|server| *server != self.name()).take(SERVERS_MAX) {
            let done = match to {
                Membership::Join => self.join_by(entering, server).await,
                Membership::Knock => self.knock_by(entering, server).await,
                _ => self.leave_by(entering, server).await,
            };
            match done {
                Ok(event) => return Ok(event),
                Err(error) if error.is_theirs() || matches!(error, Error::Refuses(_)) => {
                    tracing::debug!(%error, room = %entering.room, %server, "nothing came of asking a server");
                    last = last.or_more_telling(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn knock_by(&self, entering: &Entering, server: &ServerName) -> Result<Arc<Event>> {
        #[derive(Deserialize)]
        struct Told {
            #[serde(default, deserialize_with = "protocol::json::null_is_empty")]
            knock_room_state: Vec<Box<RawValue>>,
        }
        let (event, version) = self.make(entering, server, Membership::Knock).await?;
        let path = v1!("send_knock", entering.room.as_str(), event.event().id.as_str());
        let told: Told = self.put(server, path, &body(&event)?).await?;
        self.put_remote(entering, server, (event.event(), version), told.knock_room_state).await?;
        Ok(Arc::clone(event.event()))
    }

    async fn leave_by(&self, entering: &Entering, server: &ServerName) -> Result<Arc<Event>> {
        let (event, version) = self.make(entering, server, Membership::Leave).await?;
        let path = path(&["_matrix", "federation", "v2", "send_leave", entering.room.as_str(), event.event().id.as_str()]);
        let _: Value = self.put(server, path, &body(&event)?).await?;
        self.put_remote(entering, server, (event.event(), version), Vec::new()).await?;
        Ok(Arc::clone(event.event()))
    }

    /// The leave that nobody else knows of.
    fn left_alone(&self, entering: &Entering, member: &Event, version: &'static RoomVersion) -> Result<Arc<Event>> {
        let made = Object::from_iter([
            ("auth_events".to_owned(), Value::Array(Vec::new())),
            ("prev_events".to_owned(), Value::Array(Vec::new())),
            ("depth".to_owned(), Value::from(member.depth.saturating_add(1))),
        ]);
        Ok(Arc::clone(self.finish(entering, version, Membership::Leave, &made)?.event()))
    }

    async fn put_remote(
        &self,
        entering: &Entering,
        via: &ServerName,
        (event, version): (&Arc<Event>, &'static RoomVersion),
        mut state: Vec<Box<RawValue>>,
    ) -> Result<()> {
        state.truncate(remote::STATE_MAX);
        remote::put(&self.store, (&entering.room, version), event, &state, via)?.durable().await?;
        Ok(())
    }

    async fn join_by(&self, entering: &Entering, server: &ServerName) -> Result<Arc<Event>> {
        let (event, version) = self.make(entering, server, Membership::Join).await?;
        let made = Arc::clone(event.event());
        let path = path(&["_matrix", "federation", "v2", "send_join", entering.room.as_str(), made.id.as_str()]);
        let omit = [("omit_members", if self.may_omit(&entering.room)? { "true" } else { "false" })];
        let ask = Ask::put(query(path, &omit), &body(&event)?)?.timeout(JOIN_TIMEOUT).body_max(STATE_BYTES_MAX);
        let sent: Sent = self.call(server, ask).await?;
        self.enter(entering, server, (event, version), sent).await?;
        Ok(made)
    }

    /// Whether members may be left out of the state before a join: where the room is whole, it must stay so.
    fn may_omit(&self, room: &RoomId) -> Result<bool> {
        let db = self.store.snapshot();
        Ok(match self.known(&db, room)? {
            Some(known) => partial::is_partial(&db, known.no)?,
            None => true,
        })
    }

    async fn enter(
        &self,
        entering: &Entering,
        server: &ServerName,
        (event, version): (Verified, &'static RoomVersion),
        sent: Sent,
    ) -> Result<()> {
        let Sent { auth_chain, state, event: signed, members_omitted, servers_in_room } = sent;
        let event = match signed {
            Some(signed) => self.as_signed(signed, version, &event).await?,
            None => event,
        };
        let Believed { events: state, late } = self.verified(state, version).await?;
        let create = state.iter().find(|event| event.event().state_pair() == Some(("m.room.create", ""))).cloned();
        let create = create.ok_or_else(|| Error::BadAnswer("a state without a create event".to_owned()))?;
        let no = self.import(entering, create, version).await?;
        let known = Known { no, id: entering.room.clone(), version };
        let ids: Vec<OwnedEventId> = state.iter().map(|event| event.event().id.clone()).collect();
        let Believed { events: mut outliers, late: late_of_chain } = self.verified(auth_chain, version).await?;
        outliers.extend(state);
        self.put_outliers(&known, outliers).await?;
        if servers::is_in(&self.store.snapshot(), no, self.name())? && !self.all_placed(&known, &event.event().prev_events)? {
            // What let the user in may not be here yet.
            let gate = self.rooms.at(no);
            let _alone = gate.lock().await;
            self.fetch_gap(server, &known, &event).await?;
        }
        let here = self.here(ids)?;
        let servers = servers_in_room.into_iter().filter_map(|name| OwnedServerName::try_from(name).ok());
        // What cannot be believed yet is asked for again with the members.
        let is_partial = members_omitted || late.or(late_of_chain).is_some();
        let omitted = is_partial.then(|| Omitted { via: server.to_owned(), servers: servers.collect() });
        let (store, identity, user) = (self.store.clone(), self.identity.clone(), entering.user.clone());
        let entering = move || receive::enter(&store, &identity, &user, no, event, &here, omitted);
        let entered = self.computed(entering).await??.durable().await?;
        match entered {
            Outcome::Accepted(_) | Outcome::Duplicate => Ok(()),
            Outcome::Rejected(reason) | Outcome::SoftFailed(reason) => {
                Err(Error::Refuses(format!("The room as {server} tells it refuses the join: {reason}")))
            }
            Outcome::Unsigned(_) | Outcome::Missing(_) => {
                Err(Error::BadAnswer("a state without the events that the join cites".to_owned()))
            }
        }
    }

    async fn import(&self, entering: &Entering, create: Verified, version: &'static RoomVersion) -> Result<RoomNo> {
        let event = create.event();
        let raw = RawPdu::from_bytes(event.json.as_bytes()).map_err(|error| Error::BadAnswer(error.to_string()))?;
        if event.room_id != entering.room || raw.created_version() != Some(version.id) {
            return Err(Error::BadAnswer("a create event of another room or version".to_owned()));
        }
        match receive::import(&self.store, create, version) {
            Ok(no) => Ok(no.durable().await?),
            Err(rooms::Error::Denied(denied)) => Err(Error::BadAnswer(denied.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// The join as the other server has signed it too.
    async fn as_signed(&self, signed: Box<RawValue>, version: &'static RoomVersion, own: &Verified) -> Result<Verified> {
        let signed = self.verified(vec![signed], version).await?.events.pop();
        // What another server may add is signatures.
        Ok(signed.filter(|signed| signed.event().id == own.event().id).unwrap_or_else(|| own.clone()))
    }

    /// Asks a server for a template, and makes the event of it.
    async fn make(&self, entering: &Entering, server: &ServerName, to: Membership) -> Result<(Verified, &'static RoomVersion)> {
        let what = match to {
            Membership::Join => "make_join",
            Membership::Knock => "make_knock",
            _ => "make_leave",
        };
        let mut path = v1!(what, entering.room.as_str(), entering.user.id.as_str());
        if to != Membership::Leave {
            let versions: Vec<_> = RoomVersion::all().iter().map(|version| ("ver", version.id)).collect();
            path = query(path, &versions);
        }
        let made: Made = self.get(server, path).await?;
        let version = made.room_version.as_deref().unwrap_or("1");
        let version =
            RoomVersion::named(version).ok_or_else(|| Error::BadAnswer(format!("room version {version:?} is unknown")))?;
        self.check_template(entering, to, &made.event)?;
        Ok((self.finish(entering, version, to, &made.event)?, version))
    }

    /// Refuses a template that is not for what was asked.
    fn check_template(&self, entering: &Entering, to: Membership, made: &Object) -> Result<()> {
        let text = |key: &str| made.get(key).and_then(Value::as_str);
        let membership = made.get("content").and_then(|content| content.get("membership")).and_then(Value::as_str);
        let user = Some(entering.user.id.as_str());
        let right = text("type") == Some("m.room.member")
            && (text("sender"), text("state_key")) == (user, user)
            && text("room_id") == Some(entering.room.as_str())
            && membership == Some(to.as_str());
        if right { Ok(()) } else { Err(Error::BadAnswer("a template for something else".to_owned())) }
    }

    /// The user's event at the place that the template gives it.
    fn finish(&self, entering: &Entering, version: &'static RoomVersion, to: Membership, made: &Object) -> Result<Verified> {
        let wrong = |what: &str| Error::BadAnswer(format!("a template without {what}"));
        let mut content = entering.content.clone();
        content.insert("membership".to_owned(), to.as_str().into());
        let by = made.get("content").and_then(|content| content.get("join_authorised_via_users_server"));
        if let Some(by) = by.filter(|_| to == Membership::Join && version.restricted_joins) {
            let by: OwnedUserId = serde_json::from_value(by.clone()).map_err(|_| wrong("a user who authorises"))?;
            content.insert("join_authorised_via_users_server".to_owned(), by.as_str().into());
        }
        let depth = made.get("depth").and_then(Value::as_u64).ok_or_else(|| wrong("a depth"))?;
        let now_ms = self.now_ms();
        let draft = Draft {
            room_id: Some(entering.room.clone()),
            sender: entering.user.id.clone(),
            kind: "m.room.member".to_owned(),
            state_key: Some(entering.user.id.to_string()),
            content,
            redacts: None,
            origin_server_ts: now_ms,
            depth,
            prev_events: references(made.get("prev_events"), version).ok_or_else(|| wrong("prev_events"))?,
            auth_events: references(made.get("auth_events"), version).ok_or_else(|| wrong("auth_events"))?,
            opaque_id: (version.event_ids == EventIdFormat::Chosen).then(|| format!("{now_ms}-{:x}", self.rng().random::<u64>())),
        };
        let built = draft::build(version, draft, &self.identity.key, self.name());
        built.map_err(|error| Error::BadAnswer(format!("a template that makes no event: {error}")))
    }
}

/// What an event is sent as.
pub(crate) fn body(event: &Verified) -> Result<Box<RawValue>> {
    crate::known::raw(&event.event().json)
}

/// The events that a template cites: ids, or in versions 1 and 2 pairs of an id and hashes.
fn references(cited: Option<&Value>, version: &RoomVersion) -> Option<Vec<Reference>> {
    let cited = cited?.as_array()?;
    let reference = |cited: &Value| match version.event_ids {
        EventIdFormat::Chosen => {
            let (id, hashes) = (cited.get(0)?.as_str()?, cited.get(1)?);
            let hash = match hashes.get("sha256") {
                Some(hash) => Some(protocol::base64::decode(hash.as_str()?)?.try_into().ok()?),
                None => None,
            };
            Some(Reference { id: id.try_into().ok()?, hash })
        }
        EventIdFormat::Base64 | EventIdFormat::UrlSafe => Some(Reference { id: cited.as_str()?.try_into().ok()?, hash: None }),
    };
    cited.iter().map(reference).collect()
}
