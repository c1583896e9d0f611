//! What servers tell each other beside events: who is typing, who has read what, who is online, messages to devices, whose keys changed. Of a message's users all must
//! be of the server that sends it.
//!
//! Specification: server-server API, "EDUs", and the modules of each.

use std::collections::{BTreeMap, BTreeSet};

use protocol::json::Object;
use rooms::{
    Pos, Sender, acl, members, partial,
    receipts::{self, Kind, Mark, Thread},
    servers, typing,
};
use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use store::{Lock, Read, RoomNo, Seq, Topic, Tx, UserNo};
use users::{
    device_lists::{self, Update},
    key_changes::{self, Change},
    numbers,
    to_device::{self, Messages},
};

use crate::{Error, Federation, Result, known::written};

/// How long a user of another server counts as typing, in milliseconds, where it is not said again.
const TYPING_MS: u64 = 30_000;
/// The most receipts of one message.
const RECEIPTS_MAX: usize = 1_000;
/// The most rooms of a user whose members or servers are told at once of something.
pub(crate) const ROOMS_MAX: usize = 1_000;

/// A message between servers that is no event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Edu {
    /// Its type.
    pub edu_type: String,
    /// What it says.
    pub content: Box<RawValue>,
}

impl Edu {
    /// A message of this type.
    ///
    /// # Errors
    /// Where the content cannot be JSON.
    pub fn new(edu_type: &str, content: &impl Serialize) -> Result<Self> {
        Ok(Self { edu_type: edu_type.to_owned(), content: written(content)? })
    }

    /// Whether it is for devices.
    pub(crate) fn is_to_device(&self) -> bool {
        self.edu_type == "m.direct_to_device"
    }
}

#[derive(Deserialize)]
struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    typing: bool,
}

#[derive(Deserialize)]
struct Receipt {
    event_ids: Vec<OwnedEventId>,
    #[serde(default)]
    data: ReceiptData,
}

#[derive(Default, Deserialize)]
struct ReceiptData {
    ts: Option<u64>,
    thread_id: Option<String>,
}

/// By room, kind and user.
type Receipts = BTreeMap<OwnedRoomId, BTreeMap<String, BTreeMap<OwnedUserId, Receipt>>>;

#[derive(Deserialize)]
struct ToDevice {
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
    message_id: String,
    messages: Messages,
}

#[derive(Deserialize)]
struct KeysChanged {
    user_id: OwnedUserId,
}

impl Federation {
    /// Takes in what another server tells. What is malformed, or not its to tell, is left out. Returns the users whose lists of devices must be asked for, once
    /// this is on disk.
    pub(crate) async fn receive_edus(&self, origin: &ServerName, edus: Vec<Edu>) -> Result<BTreeSet<UserNo>> {
        let mut missed = BTreeSet::new();
        for edu in edus {
            match self.receive_edu(origin, &edu, &mut missed) {
                Ok(()) => {}
                Err(Error::Store(error)) => return Err(error.into()),
                Err(error) => tracing::debug!(%error, server = %origin, kind = edu.edu_type, "a message was left out"),
            }
        }
        Ok(missed)
    }

    fn receive_edu(&self, origin: &ServerName, edu: &Edu, missed: &mut BTreeSet<UserNo>) -> Result<()> {
        let content = edu.content.get();
        match edu.edu_type.as_str() {
            "m.typing" => self.receive_typing(origin, parse(content)?),
            "m.receipt" => self.receive_receipts(origin, parse(content)?),
            "m.presence" => self.receive_presence(origin, parse(content)?),
            "m.direct_to_device" => self.receive_to_device(origin, parse(content)?),
            "m.device_list_update" | "m.signing_key_update" => {
                missed.extend(self.receive_keys_changed(origin, &parse(content)?, &Update::parse(&edu.edu_type, content))?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn receive_typing(&self, origin: &ServerName, said: Typing) -> Result<()> {
        let (room, user) = self.member(origin, &said.room_id, &said.user_id)?;
        typing::set(&self.store, user, room, said.typing.then_some(TYPING_MS), self.now_ms())?;
        Ok(())
    }

    fn receive_receipts(&self, origin: &ServerName, said: Receipts) -> Result<()> {
        let receipts = said.into_iter().flat_map(|(room, kinds)| {
            let public = kinds.into_iter().filter(|(kind, _)| kind == "m.read").flat_map(|(_, users)| users);
            public.map(move |(user, receipt)| (room.clone(), user, receipt))
        });
        for (room, id, receipt) in receipts.take(RECEIPTS_MAX) {
            let Ok((room, no)) = self.member(origin, &room, &id) else { continue };
            let thread = Thread::parse(receipt.data.thread_id.as_deref())?;
            let marks: Vec<Mark> = receipt
                .event_ids
                .into_iter()
                .take(1)
                .map(|event| Mark::Read { kind: Kind::Public, thread: thread.clone(), event })
                .collect();
            let at_ms = receipt.data.ts.unwrap_or_else(|| self.now_ms());
            // An event that is not here yet has been read all the same: the next receipt will say so.
            match receipts::mark(&self.store, &Sender { no, id }, room, &marks, at_ms) {
                Ok(pending) => pending.soft(),
                Err(rooms::Error::Store(error)) => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "a receipt of another server was left out"),
            }
        }
        Ok(())
    }

    fn receive_to_device(&self, origin: &ServerName, said: ToDevice) -> Result<()> {
        of(origin, &said.sender)?;
        let sent = to_device::receive(&self.store, self.name(), &said.sender, &said.kind, &said.message_id, said.messages);
        sent.map_err(|error| Error::BadRequest(error.to_string()))?.soft();
        Ok(())
    }

    /// Those who share a room with the user ask for the keys again. Returns the user where this server must, too.
    fn receive_keys_changed(&self, origin: &ServerName, said: &KeysChanged, update: &Update) -> Result<Option<UserNo>> {
        of(origin, &said.user_id)?;
        let db = self.store.snapshot();
        let Some(user) = numbers::number(&db, &said.user_id)? else { return Ok(None) };
        let rooms: Vec<Topic> = members::joined_rooms(&db, user)?.into_iter().take(ROOMS_MAX).map(Topic::Room).collect();
        if rooms.is_empty() {
            return Ok(None);
        }
        let receive = |tx: &mut Tx<'_>| device_lists::receive(tx, (user, &said.user_id), update, &rooms);
        let missed = self.store.transact(&[Lock::User(user)], receive)?.soft();
        Ok(missed.then_some(user))
    }

    /// The other servers that share a room with a user since this place or before. At most `limit` rows of them are looked at.
    pub(crate) fn sharing(&self, db: &impl Read, user: UserNo, pos: Pos, limit: usize) -> Result<BTreeSet<OwnedServerName>> {
        let (mut found, mut left) = (BTreeSet::new(), limit);
        for room in members::joined_rooms_at(db, user, pos)?.into_iter().take(ROOMS_MAX) {
            for server in servers::servers_at(db, room, pos)?.take(left) {
                found.insert(server?);
                left -= 1;
            }
        }
        found.remove(self.name());
        Ok(found)
    }

    /// A room that this server is in and lets the other take part, and a user of that who may be in it.
    fn member(&self, origin: &ServerName, room: &OwnedRoomId, user: &UserId) -> Result<(RoomNo, UserNo)> {
        of(origin, user)?;
        let db = self.store.snapshot();
        let room = self.known(&db, room)?.ok_or(rooms::Error::UnknownRoom)?.no;
        if !acl::allows(&db, room, origin)? || !servers::is_in(&db, room, origin)? {
            return Err(rooms::Error::Forbidden("the server is not in the room").into());
        }
        let no = match numbers::number(&db, user)? {
            Some(no) => no,
            // Of a member that this server was not told yet it has heard nothing.
            None if partial::is_partial(&db, room)? => numbers::ensure(&self.store, user)?,
            None => return Err(rooms::Error::NotFound("the user").into()),
        };
        Ok((room, no))
    }

    /// Tells a room's other servers whether a local user is typing.
    ///
    /// # Errors
    /// As the store.
    pub fn tell_typing(&self, room: RoomNo, user: &UserId, typing: bool) -> Result<()> {
        self.tell_room(room, |room| Edu::new("m.typing", &json!({ "room_id": room, "user_id": user, "typing": typing })))
    }

    /// Tells a room's other servers what a local user has read.
    ///
    /// # Errors
    /// As the store.
    pub fn tell_read(&self, room: RoomNo, user: &UserId, event: &OwnedEventId, thread: Option<&str>) -> Result<()> {
        self.tell_room(room, |room| {
            let mut data = json!({ "ts": self.now_ms() });
            if let (Some(thread), Some(data)) = (thread, data.as_object_mut()) {
                data.insert("thread_id".to_owned(), thread.into());
            }
            Edu::new("m.receipt", &json!({ room: { "m.read": { user: { "data": data, "event_ids": [event] } } } }))
        })
    }

    /// Tells a room's other servers, where there are any, something that may be lost.
    fn tell_room(&self, room: RoomNo, edu: impl FnOnce(&RoomId) -> Result<Edu>) -> Result<()> {
        let db = self.store.snapshot();
        let servers = servers::servers(&db, room)?.collect::<rooms::Result<Vec<_>>>()?;
        if servers.iter().any(|server| server != self.name()) {
            self.tell(servers, &edu(&rooms::numbers::room(&db, room)?.id)?);
        }
        Ok(())
    }

    /// Sends messages to devices of users of other servers, which arrive once.
    ///
    /// # Errors
    /// As the store.
    pub async fn send_to_devices(
        &self,
        sender: &UserId,
        kind: &str,
        message_id: &str,
        messages: BTreeMap<OwnedServerName, Messages>,
    ) -> Result<()> {
        let edu = |messages: &Messages| {
            let content = json!({ "sender": sender, "type": kind, "message_id": message_id, "messages": messages });
            Edu::new("m.direct_to_device", &content)
        };
        let edus = messages.iter().map(|(server, messages)| Ok((server.clone(), edu(messages)?))).collect::<Result<Vec<_>>>()?;
        self.tell_surely(edus).await
    }

    /// What other servers are told of a local user whose keys changed.
    pub(crate) fn keys_changed(
        &self,
        db: &impl Read,
        (at, user): (Seq, UserNo),
        change: &Change,
    ) -> Result<Option<(Edu, BTreeSet<OwnedServerName>)>> {
        let id = numbers::user_id(db, user)?;
        if id.server_name() != self.name() {
            return Ok(None);
        }
        let edu = match &change.device {
            Some(device) => device_changed(db, (user, &id), device, (at, change.before))?,
            None => ask_again(db, user, &id, at)?,
        };
        // Servers that came to share a room with the user since then ask of themselves, or are told to as the user comes.
        Ok(Some((edu, self.sharing(db, user, Pos::last_of(at), usize::MAX)?)))
    }

    /// What servers are told that came to share a room with a local user: to ask for the user's devices. None of a user who never had any to tell of.
    pub(crate) fn introduction(&self, db: &impl Read, user: UserNo) -> Result<Option<Edu>> {
        let Some(at) = key_changes::last_change(db, user)? else { return Ok(None) };
        let id = numbers::user_id(db, user)?;
        if id.server_name() == self.name() { ask_again(db, user, &id, at).map(Some) } else { Ok(None) }
    }
}

/// How a device is now, and after which change: whoever knows of that one need not ask.
fn device_changed(db: &impl Read, (user, id): (UserNo, &UserId), device: &str, (at, before): (Seq, Option<Seq>)) -> Result<Edu> {
    #[derive(Serialize)]
    struct Changed<'a> {
        user_id: &'a UserId,
        device_id: &'a str,
        stream_id: u64,
        prev_id: Vec<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        device_display_name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        keys: Option<Object>,
        deleted: bool,
    }
    let known = users::devices::device(db, user, device.into())?;
    let content = Changed {
        user_id: id,
        device_id: device,
        stream_id: at.0,
        prev_id: before.iter().map(|before| before.0).collect(),
        deleted: known.is_none(),
        device_display_name: known.and_then(|known| known.display_name),
        keys: users::keys::device_keys(db, user, device)?,
    };
    Edu::new("m.device_list_update", &content)
}

/// With nothing said of what was before, servers ask for the whole list.
fn ask_again(db: &impl Read, user: UserNo, id: &UserId, at: Seq) -> Result<Edu> {
    let device: Option<OwnedDeviceId> = users::devices::devices(db, user)?.into_iter().next().map(|device| device.id);
    let content =
        json!({ "user_id": id, "device_id": device.unwrap_or_else(|| "none".into()), "stream_id": at.0, "prev_id": [] });
    Edu::new("m.device_list_update", &content)
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::BadRequest(error.to_string()))
}

/// A server speaks for its own users.
pub(crate) fn of(origin: &ServerName, user: &UserId) -> Result<()> {
    if user.server_name() == origin { Ok(()) } else { Err(rooms::Error::Forbidden("the user is of another server").into()) }
}
