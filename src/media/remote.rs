//! Media of other servers: a cache of bounded size, whose files are blobs like any other. What nobody asked for longest goes first.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};
use store::{Preset, Range, Read, Store, Table, Tx};

use crate::{
    Content, Media, MediaId, Received, Result,
    blobs::Hash,
    rows::{MEDIA_BY_HASH, content, day},
};

pub(crate) static REMOTE: Table<String, Remote> =
    Table::new("remote_media", "Media of other servers that is kept, by server/media_id.");
pub(crate) static REMOTE_BY_USE: Table<(u32, String), ()> =
    Table::new("remote_media_by_use", "The same by the day when it was last asked for, to find what goes first.")
        .read_by(Preset::Scan);
pub(crate) static REMOTE_USAGE: Table<String, u64> =
    Table::new("remote_media_usage", "What all kept media of other servers takes, in bytes (key: bytes).");

/// The one key of [`REMOTE_USAGE`].
const BYTES: &str = "bytes";
/// Files that one addition drops at most. The next goes on.
const DROPPED_MAX: usize = 1000;

/// Media of another server, by the two parts of its `mxc://` URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteId {
    /// Whose media it is.
    pub server: OwnedServerName,
    /// Its id there.
    pub id: MediaId,
}

impl RemoteId {
    /// The key of its row. A media id holds no slash, so that this is none of this server's ids.
    fn key(&self) -> String {
        format!("{}/{}", self.server, self.id)
    }
}

/// Kept media of another server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remote {
    content: Content,
    used_day: u32,
}

impl Media {
    /// What is kept of another server's media. Notes that it was asked for.
    ///
    /// # Errors
    /// As the database says.
    pub fn remote(&self, store: &Store, id: &RemoteId, now_ms: u64) -> Result<Option<Content>> {
        let (key, today) = (id.key(), day(now_ms));
        let Some(row) = store.snapshot().get(&REMOTE, &key.as_str())? else { return Ok(None) };
        if row.used_day < today {
            store.note(&[], |tx| used(tx, &key, today))?;
        }
        Ok(Some(row.content))
    }

    /// Keeps a file that was received from another server, and drops others where they take too much together.
    ///
    /// # Errors
    /// [`crate::Error::Unwritable`].
    pub async fn keep_remote(
        &self,
        store: &Store,
        id: &RemoteId,
        received: Received,
        content_type: Option<&str>,
        filename: Option<&str>,
        now_ms: u64,
    ) -> Result<Content> {
        let kept = content(received.sha256(), received.size(), content_type, filename, now_ms);
        let row = Remote { content: kept.clone(), used_day: day(now_ms) };
        let mut dropped = Vec::new();
        let add = || {
            store.transact(&[], |tx| {
                dropped = add(tx, &id.key(), &row, self.config.max_remote_bytes)?;
                Ok(())
            })
        };
        self.place(store, received, add).await?;
        for hash in dropped {
            self.remove_unused(store, &hash).await?;
        }
        Ok(kept)
    }

    /// Forgets what is kept of one server: `None` where there is nothing.
    ///
    /// # Errors
    /// As the database says.
    pub async fn forget_remote(&self, store: &Store, id: &RemoteId) -> Result<Option<Content>> {
        let removed = store.transact(&[], |tx| remove(tx, &id.key()))?.durable().await?;
        if let Some(content) = &removed {
            self.remove_unused(store, &content.sha256).await?;
        }
        Ok(removed)
    }
}

/// Adds a row. Gives the blobs of those that had to go.
fn add(tx: &mut Tx<'_>, key: &str, row: &Remote, max: u64) -> Result<Vec<Hash>> {
    let mut dropped = Vec::new();
    dropped.extend(remove(tx, key)?.map(|content| content.sha256).filter(|hash| *hash != row.content.sha256));
    let mut total = tx.latest(&REMOTE_USAGE, &BYTES)?.unwrap_or(0).saturating_add(row.content.size);
    // From this read on nobody else writes these rows until the transaction ends.
    let oldest = tx.range(&REMOTE_BY_USE, Range::of(&()))?.take(DROPPED_MAX);
    let mut oldest: Vec<_> = oldest.map(|row| row.map(|((_, key), ())| key)).collect::<store::Result<_>>()?;
    oldest.retain(|other| other != key);
    tx.put(&REMOTE_USAGE, &BYTES, &total)?;
    for other in oldest {
        if total <= max {
            break;
        }
        if let Some(content) = remove(tx, &other)? {
            total = total.saturating_sub(content.size);
            dropped.push(content.sha256);
        }
    }
    tx.put(&REMOTE, &key, row)?;
    tx.put(&REMOTE_BY_USE, &(row.used_day, key), &())?;
    tx.put(&MEDIA_BY_HASH, &(row.content.sha256, key), &())?;
    Ok(dropped)
}

/// Removes a row, as it is now.
fn remove(tx: &mut Tx<'_>, key: &str) -> Result<Option<Content>> {
    let Some(row) = tx.latest(&REMOTE, &key)? else { return Ok(None) };
    tx.delete(&REMOTE, &key)?;
    tx.delete(&REMOTE_BY_USE, &(row.used_day, key))?;
    tx.delete(&MEDIA_BY_HASH, &(row.content.sha256, key))?;
    let total = tx.latest(&REMOTE_USAGE, &BYTES)?.unwrap_or(0).saturating_sub(row.content.size);
    tx.put(&REMOTE_USAGE, &BYTES, &total)?;
    Ok(Some(row.content))
}

fn used(tx: &mut Tx<'_>, key: &str, today: u32) -> Result<()> {
    let Some(row) = tx.latest(&REMOTE, &key)? else { return Ok(()) };
    tx.delete(&REMOTE_BY_USE, &(row.used_day, key))?;
    tx.put(&REMOTE_BY_USE, &(today, key), &())?;
    Ok(tx.put(&REMOTE, &key, &Remote { used_day: today, ..row })?)
}
