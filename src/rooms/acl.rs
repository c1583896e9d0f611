//! Which servers a room's `m.room.server_acl` lets take part.

use protocol::acl::Acl;
use ruma::ServerName;
use store::{Read, RoomNo};

use crate::{Result, head, state};

/// Whether the room's current state lets this server take part. Where it has no such list, or one that cannot be read, it does.
///
/// # Errors
/// As the database says.
pub fn allows(db: &impl Read, room: RoomNo, server: &ServerName) -> Result<bool> {
    let acl: Option<Acl> = state::content(db, room, head(db, room)?.state, "m.room.server_acl", "")?;
    Ok(acl.is_none_or(|acl| acl.allows(server)))
}
