//! Forgetting the keys of strangers: servers of which no user was ever in a room here. Any name server can make up as many of them as it likes, and their keys are
//! fetched again when they come again. Those of other servers stay: events are signed by them that are kept.

use std::collections::BTreeSet;

use rooms::members;
use ruma::OwnedServerName;
use store::{Range, Read as _, Store};
use users::numbers;

use super::rows::SERVER_KEYS;
use crate::{Federation, Result};

/// Strangers whose keys are kept: at most 24 KiB each.
const STRANGERS_MAX: usize = 5_000;
/// Where there are more, those that were seen last stay, so many.
const STRANGERS_KEPT: usize = 4_000;
/// Documents that were learned before it is worth looking.
const LEARNED_MAX: usize = 500;
/// Rows that are removed in one write.
const REMOVED_AT_ONCE: usize = 500;

impl Federation {
    /// Forgets the keys of strangers that were not seen for longest, where they are many. Returns how many servers those were. It reads much: not for an
    /// async thread.
    ///
    /// # Errors
    /// As the store.
    pub fn prune_server_keys(&self) -> Result<usize> {
        if !self.keys.take_learned(LEARNED_MAX) {
            return Ok(0);
        }
        prune(&self.store, &self.config.trusted_key_servers, STRANGERS_MAX, STRANGERS_KEPT)
    }
}

fn prune(store: &Store, trusted: &[OwnedServerName], max: usize, kept: usize) -> Result<usize> {
    let db = store.snapshot();
    let mut servers: Vec<(u64, String)> = Vec::new();
    for row in db.range(&SERVER_KEYS, Range::of(&()))? {
        let (name, keys) = row?;
        servers.push((keys.seen_ms(), name));
    }
    if servers.len() <= max {
        return Ok(0);
    }
    let mut known: BTreeSet<String> = trusted.iter().map(ToString::to_string).collect();
    for row in numbers::all(&db)? {
        let (id, user) = row?;
        let Some((_, server)) = id.split_once(':') else { continue };
        if !known.contains(server) && members::has_rooms(&db, user)? {
            known.insert(server.to_owned());
        }
    }
    servers.retain(|(_, name)| !known.contains(name));
    if servers.len() <= max {
        return Ok(0);
    }
    servers.sort_unstable();
    servers.truncate(servers.len().saturating_sub(kept));
    for some in servers.chunks(REMOVED_AT_ONCE) {
        let forget = |tx: &mut store::Tx<'_>| some.iter().try_for_each(|(_, name)| tx.delete(&SERVER_KEYS, &name.as_str()));
        store.transact(&[], forget)?.soft();
    }
    Ok(servers.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{json::Object, version::RoomVersion};
    use rooms::create::{self, NewRoom, Preset};

    use super::{super::rows::ServerKeys, *};

    #[test]
    fn strangers_are_forgotten_and_others_are_not() {
        let tables: Vec<_> = [crate::TABLES, rooms::TABLES, users::TABLES].concat();
        let store = Store::in_memory("here.test", &tables).unwrap();
        let identity = rooms::Identity {
            server_name: "friend.test".try_into().unwrap(),
            key: protocol::keys::SigningKey::from_seed("a", &[1; 32]).unwrap(),
        };
        // A room of a friend's, which is how this server came to know them.
        let alice = ruma::user_id!("@alice:friend.test");
        let no = numbers::ensure(&store, alice).unwrap();
        let alice = rooms::Sender { no, id: alice.to_owned() };
        let room = NewRoom {
            version: RoomVersion::named("11").unwrap(),
            preset: Preset::PrivateChat,
            creation_content: Object::new(),
            initial_state: Vec::new(),
            name: None,
            topic: None,
            invite: Vec::new(),
            is_direct: false,
            power_levels: Object::new(),
            alias: None,
            public: false,
            profile: Object::new(),
            opaque_id: "a".to_owned(),
        };
        create::create(&store, &identity, &alice, room, 1).unwrap().wait().unwrap();
        numbers::ensure(&store, ruma::user_id!("@writer:seen.test")).unwrap();
        let put = |name: &str, seen_ms| {
            let row = ServerKeys::seen_at(seen_ms);
            store.transact(&[], |tx| tx.put(&SERVER_KEYS, &name, &row)).unwrap().wait().unwrap();
        };
        put("friend.test", 1);
        put("notary.test", 2);
        for (seen_ms, name) in [(10, "old.test"), (11, "seen.test"), (12, "new.test"), (13, "newest.test")] {
            put(name, seen_ms);
        }
        let trusted = ["notary.test".try_into().unwrap()];
        assert_eq!(prune(&store, &trusted, 4, 2).unwrap(), 0, "four strangers are not too many");
        assert_eq!(prune(&store, &trusted, 3, 2).unwrap(), 2);
        // What is written after it is on disk after it.
        put("friend.test", 1);
        let db = store.snapshot();
        let left: Vec<String> = db.range(&SERVER_KEYS, Range::of(&())).unwrap().map(|row| row.unwrap().0).collect();
        assert_eq!(left, ["friend.test", "new.test", "newest.test", "notary.test"]);
    }
}
