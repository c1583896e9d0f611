//! `/sync` in its third version.
//!
//! Specification: client-server API, "Syncing".

mod response;
mod room;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rooms::{
    members::{Membership, UserRoom},
    receipts,
};
use ruma::{OwnedUserId, api::client::filter::FilterDefinition};
use store::{RoomNo, Seq, Snapshot, Topic, UserNo};
use users::{
    account_data::{self, AccountData},
    numbers, one_time_keys,
    presence::Online,
    to_device,
};

pub use self::response::Response;
use self::{response::Events, room::Rooms};
use crate::{
    Memory, Result, filter,
    sync::{
        Who,
        affected::{Affected, Extent, Part, affected},
        device_lists::{DeviceLists, device_lists},
        presence,
        state::Target,
    },
    token::SyncToken,
};

/// The messages to the device that one response holds at most ("Send-to-Device messaging" recommends it).
pub const TO_DEVICE_MAX: usize = 100;

/// What a device asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The device.
    pub who: Who,
    /// What it knows: the last `next_batch`.
    pub since: Option<SyncToken>,
    /// What it wants to know.
    pub filter: FilterDefinition,
    /// Whether it wants the whole state of its rooms, though it knows some of it.
    pub full_state: bool,
    /// To which place of the timeline its state sections lead.
    pub target: Target,
}

/// What there is to tell a device that asks, now. Without `online` nothing of presence.
///
/// # Errors
/// As the database says.
pub fn sync(db: &Snapshot, memory: &Memory, online: Option<&Online>, request: &Request, now_ms: u64) -> Result<Response> {
    let who = &request.who;
    let since = request.since.map(|token| token.clamped(db.seq()));
    let all = memory.rooms(db, who.user)?;
    let news = News::new(db, who, since)?;
    let mut rooms = Rooms::new(db, memory, request, &news, now_ms);
    for found in affected_rooms(db, request, since, &all, &news)? {
        rooms.add(&found)?;
    }
    let (rooms, moved) = rooms.finish();
    let device_lists = match since {
        Some(since) if news.of_user || !moved.is_empty() => device_lists(db, who, &all, since.seq, &moved)?,
        _ => DeviceLists::default(),
    };
    let presence = match online {
        Some(online) => {
            let (filter, ignored) = (&request.filter.presence, &news.ignored);
            let asked = presence::Asked { db, memory, online, who, rooms: &all, filter, ignored, now_ms };
            asked.events(since.map(|since| since.seq), &device_lists.changed)?
        }
        None => Vec::new(),
    };
    let waiting = news.to_device(db, who, since)?;
    let keys = one_time_keys::counts(db, who.user, who.device)?;
    Ok(Response {
        next_batch: SyncToken { seq: db.seq(), to_device: waiting.through }.to_string(),
        rooms,
        presence: presence.into(),
        account_data: news.account_data(None, |kind| filter::wants_global(&request.filter.account_data, kind, None))?,
        to_device: waiting.events.into(),
        device_lists,
        device_one_time_keys_count: keys.one_time_keys,
        device_unused_fallback_key_types: keys.unused_fallback_key_types,
    })
}

/// What may wake a sync of a user with these rooms.
#[must_use]
pub fn topics(who: &Who, rooms: &[(RoomNo, UserRoom)]) -> Vec<Topic> {
    let joined = rooms.iter().filter(|(_, of)| of.membership == Membership::Join);
    std::iter::once(Topic::User(who.user)).chain(joined.map(|(room, _)| Topic::Room(*room))).collect()
}

fn affected_rooms(
    db: &Snapshot,
    request: &Request,
    since: Option<SyncToken>,
    rooms: &[(RoomNo, UserRoom)],
    news: &News,
) -> Result<Vec<Affected>> {
    let whole = since.is_none() || request.full_state;
    let archived = whole && request.filter.room.include_leave;
    let extent = Extent { since: since.map(|since| since.seq), all_joined: whole, archived };
    let mut found = affected(db, &request.who, rooms, extent)?;
    // Rooms where what is the user's alone changed: account data and private receipts.
    let known: BTreeSet<RoomNo> = found.iter().map(|found| found.room).collect();
    let after = since.map(|since| rooms::Pos::last_of(since.seq));
    let own = news.account_data.keys().flatten().chain(&news.read);
    for room in own.copied().collect::<BTreeSet<_>>().difference(&known) {
        let standing = rooms.iter().find(|(no, of)| no == room && of.membership == Membership::Join);
        found.extend(standing.map(|(room, of)| Affected {
            room: *room,
            standing: of.clone(),
            part: Part::Join { after },
            completed: false,
        }));
    }
    Ok(found)
}

/// What is new for the user beside the rooms' events.
pub(super) struct News {
    /// Whether anything of the user's own may have changed.
    of_user: bool,
    /// By room; `None` for what belongs to all rooms.
    account_data: BTreeMap<Option<RoomNo>, Vec<AccountData>>,
    /// The rooms in which private receipts of the user's moved.
    read: BTreeSet<RoomNo>,
    /// Whose events the user does not want to see.
    ignored: BTreeSet<OwnedUserId>,
    /// Their numbers.
    ignored_nos: Arc<BTreeSet<UserNo>>,
}

impl News {
    fn new(db: &Snapshot, who: &Who, since: Option<SyncToken>) -> Result<Self> {
        let from = since.map_or(Seq(0), |since| since.seq.min(since.to_device));
        let of_user = since.is_none() || !db.changed_since(from, [Topic::User(who.user)]).is_empty();
        let mut account_data: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let changed = match since {
            None => account_data::all(db, who.user, None)?,
            Some(since) if of_user => account_data::changed_since(db, who.user, since.seq)?,
            Some(_) => Vec::new(),
        };
        for data in changed {
            account_data.entry(data.room).or_default().push(data);
        }
        let read = match since {
            Some(since) if of_user => receipts::private_rooms(db, who.user, since.seq)?,
            _ => BTreeSet::new(),
        };
        let ignored = account_data::ignored_users(db, who.user)?;
        let ignored_nos = Arc::new(numbers::known(db, ignored.iter().map(AsRef::as_ref))?);
        Ok(Self { of_user, account_data, read, ignored, ignored_nos })
    }

    fn account_data(&self, room: Option<RoomNo>, wants: impl Fn(&str) -> bool) -> Result<Events> {
        Events::of_account_data(self.account_data.get(&room).map_or(&[][..], Vec::as_slice), wants)
    }

    fn to_device(&self, db: &Snapshot, who: &Who, since: Option<SyncToken>) -> Result<to_device::Waiting> {
        let until = db.seq();
        if !self.of_user {
            return Ok(to_device::Waiting { events: Vec::new(), through: until });
        }
        let delivered = since.map_or(Seq(0), |since| since.to_device);
        Ok(to_device::pending(db, who.user, who.device, delivered, until, TO_DEVICE_MAX)?)
    }
}
