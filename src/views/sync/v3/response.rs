//! The shape of the answer. What is empty is left out, but for what clients look into without asking whether it is there.

use std::collections::{BTreeMap, BTreeSet};

use ruma::OwnedRoomId;
use serde::Serialize;
use serde_json::value::RawValue;
use users::account_data::AccountData;

use crate::{
    Result, json,
    sync::{device_lists::DeviceLists, members::Summary, unread::Unread},
};

/// An answer of `/sync`.
#[derive(Debug, Default, Serialize)]
pub struct Response {
    /// The token to go on from.
    pub next_batch: String,
    /// The rooms with news.
    #[serde(skip_serializing_if = "Rooms::is_empty")]
    pub rooms: Rooms,
    /// Who came online or went.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub presence: Events,
    /// Account data of all rooms.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events,
    /// Messages to the device.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub to_device: Events,
    /// Whose devices changed.
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    pub device_lists: DeviceLists,
    /// Unclaimed keys by algorithm.
    pub device_one_time_keys_count: BTreeMap<String, u64>,
    /// Algorithms whose fallback key was not handed out.
    pub device_unused_fallback_key_types: BTreeSet<String>,
}

impl Response {
    /// Whether there is nothing that a long poll waits for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
            && self.presence.is_empty()
            && self.account_data.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_empty()
    }
}

/// Events of any kind.
#[derive(Debug, Default, Serialize)]
pub struct Events {
    /// The events.
    pub events: Vec<Box<RawValue>>,
}

impl Events {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Account data of these types as events.
    pub(super) fn of_account_data(data: &[AccountData], wants: impl Fn(&str) -> bool) -> Result<Self> {
        let wanted = data.iter().filter(|data| wants(&data.event_type));
        let events = wanted.map(|data| json::event(&data.event_type, json::raw(&data.content)?)).collect::<Result<_>>()?;
        Ok(Self { events })
    }
}

impl From<Vec<Box<RawValue>>> for Events {
    fn from(events: Vec<Box<RawValue>>) -> Self {
        Self { events }
    }
}

/// Rooms by what the user has to do with them.
#[derive(Debug, Default, Serialize)]
pub struct Rooms {
    /// Those that the user is in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub join: BTreeMap<OwnedRoomId, Joined>,
    /// Those that the user is invited to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invite: BTreeMap<OwnedRoomId, Invited>,
    /// Those that the user knocks at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub knock: BTreeMap<OwnedRoomId, Knocked>,
    /// Those that the user left or was removed from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leave: BTreeMap<OwnedRoomId, Left>,
}

impl Rooms {
    /// Whether no room has news.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty() && self.leave.is_empty()
    }
}

/// A room that the user is in.
#[derive(Debug, Default, Serialize)]
pub struct Joined {
    /// Who is in it, in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// State and timeline.
    #[serde(flatten)]
    pub history: History,
    /// What is left to read.
    #[serde(flatten)]
    pub unread: Unread,
    /// Typing notifications and receipts.
    pub ephemeral: Events,
    /// The user's own data about the room.
    pub account_data: Events,
}

/// A room that the user left.
#[derive(Debug, Default, Serialize)]
pub struct Left {
    /// State and timeline.
    #[serde(flatten)]
    pub history: History,
    /// The user's own data about the room.
    pub account_data: Events,
}

/// How a room changed: exactly one of the state sections is there.
#[derive(Debug, Default, Serialize)]
pub struct History {
    /// State at the start of the timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Events>,
    /// State at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_after: Option<Events>,
    /// State at its end under its older name.
    #[serde(rename = "org.matrix.msc4222.state_after", skip_serializing_if = "Option::is_none")]
    pub unstable_state_after: Option<Events>,
    /// The newest events.
    pub timeline: Timeline,
}

/// The newest events of a room.
#[derive(Debug, Default, Serialize)]
pub struct Timeline {
    /// Oldest first.
    pub events: Vec<Box<RawValue>>,
    /// Whether events between these and what the device knows are left out.
    pub limited: bool,
    /// Where older events are to be read from.
    pub prev_batch: String,
}

/// A room that the user is invited to.
#[derive(Debug, Serialize)]
pub struct Invited {
    /// What identifies it.
    pub invite_state: Events,
}

/// A room that the user knocks at.
#[derive(Debug, Serialize)]
pub struct Knocked {
    /// What identifies it.
    pub knock_state: Events,
}
