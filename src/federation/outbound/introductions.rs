//! Telling servers that come to share a room with a local user to ask for the user's devices: what changed while they shared none, they were not told.
//!
//! Specification: server-server API, "Device Management". Only servers of the room are looked at; and of those that a user meets, who get the user's changes
//! through another room are passed over. That servers come is no reason to tell them: they know that they know nothing of whom they meet.

use std::collections::BTreeSet;

use rooms::{
    Pos,
    events::StoredEvent,
    members::{self, Membership},
    outgoing::Acquainted,
    servers,
};
use ruma::OwnedServerName;
use store::{RoomNo, Tx, UserNo};
use users::numbers;

use super::queue::{Filled, Item};
use crate::{Federation, Result};

/// How often servers are looked for in a user's other rooms. Beyond that they count as new, which costs them a question.
const LOOKS_MAX: usize = 10_000;
/// The most local users of whom servers are told that turned out to be in a room.
const USERS_MAX: usize = 1_000;

impl Federation {
    /// The local user who entered a room with this event of theirs.
    pub(super) fn entered(&self, tx: &Tx<'_>, room: RoomNo, stored: &StoredEvent) -> Result<Option<UserNo>> {
        let event = &stored.event;
        let own =
            event.sender.server_name() == self.name() && event.state_pair() == Some(("m.room.member", event.sender.as_str()));
        if !own || Membership::of(event) != Membership::Join {
            return Ok(None);
        }
        let was_in = members::replaced_by(tx, room, stored)? == Membership::Join;
        Ok((!was_in).then_some(stored.header.sender))
    }

    /// Has those asked for a user's devices who came to share a room with them at this place.
    pub(super) fn introduce(
        &self,
        tx: &mut Tx<'_>,
        (pos, room): (Pos, RoomNo),
        who: &Acquainted,
        filled: &mut Filled,
    ) -> Result<()> {
        match who {
            Acquainted::User(user) => {
                let Some(edu) = self.introduction(tx, *user)? else { return Ok(()) };
                let servers = servers::servers_at(tx, room, pos)?.collect::<rooms::Result<BTreeSet<_>>>()?;
                let strangers = self.strangers(tx, room, *user, &servers)?;
                filled.put(tx, strangers, &Item::message(&edu)?)
            }
            // Those that share another room now too: they counted on what they were told in this one.
            Acquainted::Servers(servers) => self.local_users(tx, room)?.into_iter().try_for_each(|user| {
                let Some(edu) = self.introduction(tx, user)? else { return Ok(()) };
                filled.put(tx, servers.iter().filter(|server| *server != self.name()).cloned(), &Item::message(&edu)?)
            }),
        }
    }

    fn local_users(&self, tx: &Tx<'_>, room: RoomNo) -> Result<Vec<UserNo>> {
        let mut users = Vec::new();
        for member in members::members(tx, room)? {
            let (user, membership) = member?;
            if membership == Membership::Join && numbers::user_id(tx, user)?.server_name() == self.name() {
                users.push(user);
            }
            if users.len() == USERS_MAX {
                break;
            }
        }
        Ok(users)
    }

    /// Those of a room's servers that share no other room with a user.
    fn strangers(
        &self,
        tx: &Tx<'_>,
        room: RoomNo,
        user: UserNo,
        servers: &BTreeSet<OwnedServerName>,
    ) -> Result<Vec<OwnedServerName>> {
        let mut others = members::joined_rooms(tx, user)?;
        others.retain(|other| *other != room);
        let mut looks = LOOKS_MAX;
        let mut strangers = Vec::new();
        for server in servers.iter().filter(|server| *server != self.name()) {
            let mut shares = false;
            for other in others.iter().take(looks) {
                looks -= 1;
                shares = servers::is_in(tx, *other, server)?;
                if shares {
                    break;
                }
            }
            if !shares {
                strangers.push(server.clone());
            }
        }
        Ok(strangers)
    }
}
