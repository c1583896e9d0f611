//! Uploading, downloading, removing: the order of file and row that no crash can break.
//!
//! A blob is placed before its row is committed, and removed after its last row is gone from disk. Both happen under the
//! blob's lock, so that an upload of bytes that are just being removed stores them anew.

use std::{ops::Range, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use store::{Lock, Pending, Snapshot, Store, Topic, UserNo};

use crate::{
    Body, Config, Content, Error, MediaId, Metadata, Received, Result, Upload,
    blobs::{Blobs, Hash},
    rows,
    thumbnail::Turns,
};

/// The media of one server: its folder and settings.
pub struct Media {
    pub(crate) blobs: Blobs,
    pub(crate) config: Config,
    pub(crate) turns: Turns,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that belonged to no media.
    pub blobs: usize,
    /// Media ids that expired before their upload.
    pub expired: usize,
}

impl Media {
    /// Opens the folder, making it where there is none.
    ///
    /// # Errors
    /// [`Error::Unwritable`].
    pub fn open(folder: &Path, config: Config) -> Result<Self> {
        Ok(Self { blobs: Blobs::open(folder)?, turns: Turns::new(&config), config })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Creates a media id that `owner` may upload to later. Gives the time that it expires unused, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Error::TooManyPending`].
    pub fn create(&self, store: &Store, owner: UserNo, id: &MediaId, now_ms: u64) -> Result<Pending<u64>> {
        store.transact(&[Lock::User(owner)], |tx| rows::create(tx, &self.config, owner, id, now_ms))
    }

    /// Whether `owner` may upload another file, to be asked before it is received. `declared`: its size, where the request says it.
    ///
    /// # Errors
    /// [`Error::OverQuota`]; [`Error::TooLarge`].
    pub fn may_upload(&self, snapshot: &Snapshot, owner: UserNo, declared: Option<u64>) -> Result<()> {
        let limit = self.config.max_upload_bytes;
        if declared.is_some_and(|size| size > limit) {
            return Err(Error::TooLarge { limit });
        }
        rows::with_another(snapshot, &self.config, owner, declared.unwrap_or(0)).map(drop)
    }

    /// Receives a file into the folder, where it belongs to nothing yet. `declared`: its size, where the request says it.
    ///
    /// # Errors
    /// [`Error::TooLarge`], as soon as that is known; [`Error::BrokenOff`]; [`Error::Unwritable`]; what `body` ends with.
    pub async fn receive<B, E>(
        &self,
        declared: Option<u64>,
        body: impl Stream<Item = std::result::Result<Bytes, B>>,
    ) -> std::result::Result<Received, E>
    where
        E: From<Error> + From<B>,
    {
        let limit = self.config.max_upload_bytes;
        if declared.is_some_and(|size| size > limit) {
            return Err(Error::TooLarge { limit }.into());
        }
        let mut body = std::pin::pin!(body);
        let mut receiving = self.blobs.receive().await?;
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            if receiving.size() + bytes.len() as u64 > limit {
                return Err(Error::TooLarge { limit }.into());
            }
            receiving.write(bytes).await?;
        }
        if declared.is_some_and(|size| size != receiving.size()) {
            return Err(Error::BrokenOff.into());
        }
        Ok(receiving.finish().await?)
    }

    /// Makes a received file media of a new id. Once this returns, no crash can lose it.
    ///
    /// # Errors
    /// [`Error::OverQuota`]; [`Error::Unwritable`].
    pub async fn upload(&self, store: &Store, id: &MediaId, received: Received, upload: &Upload) -> Result<()> {
        let content = upload.content(received.sha256(), received.size());
        let commit = || store.transact(&[Lock::User(upload.owner)], |tx| rows::add(tx, &self.config, upload.owner, id, content));
        self.place(store, received, commit).await
    }

    /// Whether `owner` may upload to a created id, to be asked before the file is received.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it was not created or has expired; [`Error::NotOwner`]; [`Error::AlreadyUploaded`].
    pub fn may_complete(&self, snapshot: &Snapshot, owner: UserNo, id: &MediaId, now_ms: u64) -> Result<()> {
        rows::may_complete(snapshot, owner, id, now_ms).map(drop)
    }

    /// Makes a received file the content of a created id, and wakes the downloads that wait for it.
    ///
    /// # Errors
    /// As [`Media::may_complete`] and [`Media::upload`].
    pub async fn complete(&self, store: &Store, id: &MediaId, received: Received, upload: &Upload) -> Result<()> {
        let content = upload.content(received.sha256(), received.size());
        let commit =
            || store.transact(&[Lock::User(upload.owner)], |tx| rows::complete(tx, &self.config, upload.owner, id, content));
        self.place(store, received, commit).await
    }

    pub(crate) async fn place(
        &self,
        store: &Store,
        received: Received,
        commit: impl FnOnce() -> Result<Pending<()>>,
    ) -> Result<()> {
        let hash = received.sha256();
        let held = self.blobs.lock(&hash).await;
        self.blobs.place(received).await?;
        let committed = commit();
        drop(held);
        match committed {
            Ok(pending) => Ok(pending.durable().await?),
            Err(refused) => {
                self.remove_unused(store, &hash).await?;
                Err(refused)
            }
        }
    }

    /// The content of media, after waiting up to `wait` where it is still to be uploaded. Notes that it was asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for quarantined media; [`Error::NotYetUploaded`].
    pub async fn content(&self, store: &Store, id: &MediaId, wait: Duration, now_ms: u64) -> Result<Content> {
        let row = match rows::visible(&store.snapshot(), id, now_ms)? {
            row if row.content.is_some() => row,
            row => {
                let wait = wait.min(Duration::from_millis(self.config.max_wait_ms));
                let uploaded = uploaded(store, id, row.owner, now_ms);
                tokio::time::timeout(wait, uploaded).await.map_err(|_| Error::NotYetUploaded)??
            }
        };
        rows::note_access(store, id, &row, now_ms)?;
        row.content.ok_or(Error::NotYetUploaded)
    }

    /// Whether media may be served without an access token, by the deprecated endpoints.
    #[must_use]
    pub fn is_unauthenticated(&self, content: &Content) -> bool {
        content.uploaded_ms < self.config.unauthenticated_before_ms
    }

    /// The bytes of media, all or these.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub async fn read(&self, content: &Content, range: Option<Range<u64>>) -> Result<Body> {
        self.blobs.read(&content.sha256, range).await
    }

    /// Removes media, and its bytes where no other media has the same. Tells whether there was such media.
    ///
    /// # Errors
    /// [`Error::Unwritable`] where the bytes could not be removed: the media is gone, and a sweep will try again.
    pub async fn delete(&self, store: &Store, id: &MediaId) -> Result<bool> {
        let Some(row) = rows::metadata(&store.snapshot(), id)? else { return Ok(false) };
        let deleted = store.transact(&[Lock::User(row.owner)], |tx| rows::delete(tx, id))?.durable().await?;
        if let Some(content) = deleted {
            self.remove_unused(store, &content.sha256).await?;
        }
        Ok(true)
    }

    /// Removes blobs that no media has (what a crash may leave) and media ids that expired before their upload. It may be
    /// cut off and run again at any time, beside everything else.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Unwritable`].
    pub async fn sweep(&self, store: &Store, now_ms: u64) -> Result<Swept> {
        let mut swept = Swept::default();
        for owner in rows::owners_of_expired(&store.snapshot(), now_ms)? {
            let forget = store.transact(&[Lock::User(owner)], |tx| rows::forget_expired(tx, owner, now_ms))?;
            swept.expired += forget.durable().await?;
        }
        let mut hashes = self.blobs.hashes();
        while let Some(hash) = hashes.try_next().await? {
            if !rows::is_used(&store.snapshot(), &hash)? && self.remove_unused(store, &hash).await? {
                swept.blobs += 1;
            }
        }
        Ok(swept)
    }

    /// Removes a blob that no row names, neither on disk (a crash could bring that row back) nor in a commit that is on its
    /// way. Tells whether there was anything to remove.
    pub(crate) async fn remove_unused(&self, store: &Store, hash: &Hash) -> Result<bool> {
        let _held = self.blobs.lock(hash).await;
        let committed = store.transact(&[], |tx| rows::is_used(tx, hash))?.soft();
        if committed || rows::is_used(&store.snapshot(), hash)? {
            return Ok(false);
        }
        self.blobs.remove(hash).await
    }
}

/// Waits until media is uploaded or gone. A watch made before the row is read misses no upload.
async fn uploaded(store: &Store, id: &MediaId, owner: UserNo, now_ms: u64) -> Result<Metadata> {
    let watch = store.watch(vec![Topic::User(owner)]);
    loop {
        let row = rows::visible(&store.snapshot(), id, now_ms)?;
        if row.content.is_some() {
            return Ok(row);
        }
        watch.changed().await;
    }
}
