//! Names of rooms across servers.
//!
//! Specification: server-server API, "GET query/directory".

use rooms::{aliases, servers};
use ruma::{OwnedRoomId, OwnedServerName, RoomAliasId};
use serde::{Deserialize, Serialize};

use crate::{Federation, Result, fetch::v1, path, query};

/// The most servers that are told, or believed.
const SERVERS_MAX: usize = 50;

/// The room that an alias names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Named {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    pub servers: Vec<OwnedServerName>,
}

impl Federation {
    /// The room that an alias names, of this server or of another.
    ///
    /// # Errors
    /// [`rooms::Error::NotFound`], and those of the other server.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Named> {
        if alias.server_name() == self.name() {
            return self.own_alias(alias);
        }
        let mut named: Named =
            self.get(alias.server_name(), query(v1!("query", "directory"), &[("room_alias", alias.as_str())])).await?;
        named.servers.truncate(SERVERS_MAX);
        if !named.servers.iter().any(|server| server == alias.server_name()) {
            named.servers.push(alias.server_name().to_owned());
        }
        Ok(named)
    }

    /// The room that an alias of this server names.
    ///
    /// # Errors
    /// [`rooms::Error::NotFound`].
    pub fn own_alias(&self, alias: &RoomAliasId) -> Result<Named> {
        let db = self.store.snapshot();
        let (room, _) = aliases::resolve(&db, alias)?.ok_or(rooms::Error::NotFound("the alias"))?;
        let room_id = rooms::numbers::room(&db, room)?.id.clone();
        let mut servers = servers::servers(&db, room)?.take(SERVERS_MAX).collect::<rooms::Result<Vec<_>>>()?;
        // This one first, which knows of the alias.
        servers.sort_by_key(|server| server != self.name());
        Ok(Named { room_id, servers })
    }
}
