//! The media repository's promises, as stories.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod pending;
mod remote;
mod thumbnails;
mod uploads;

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use rand::{SeedableRng, rngs::StdRng};
use store::{Store, UserNo};

use crate::*;

const ALICE: UserNo = UserNo(1);
const BOB: UserNo = UserNo(2);
const NOW: u64 = 1_700_000_000_000;
const NO_WAIT: Duration = Duration::ZERO;

/// A server's media in a folder of its own.
struct World {
    store: Store,
    media: Media,
    rng: StdRng,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let media = Media::open(&folder.path().join("media"), config).unwrap();
        Self { store: Store::in_memory("localhost", TABLES).unwrap(), media, rng: StdRng::seed_from_u64(7), folder }
    }

    fn new_id(&mut self) -> MediaId {
        MediaId::random(&mut self.rng)
    }

    async fn received(&self, bytes: &[u8]) -> Result<Received> {
        let chunks: Vec<_> = bytes.chunks(10_000).map(|chunk| Ok::<_, Error>(Bytes::copy_from_slice(chunk))).collect();
        self.media.receive(Some(bytes.len() as u64), stream::iter(chunks)).await
    }

    async fn try_upload(&mut self, owner: UserNo, bytes: &[u8], content_type: &str) -> Result<MediaId> {
        let id = self.new_id();
        let received = self.received(bytes).await?;
        self.media.upload(&self.store, &id, received, &upload(owner, content_type)).await?;
        Ok(id)
    }

    async fn upload(&mut self, bytes: &[u8], content_type: &str) -> MediaId {
        self.try_upload(ALICE, bytes, content_type).await.unwrap()
    }

    async fn content(&self, id: &MediaId) -> Result<Content> {
        self.media.content(&self.store, id, NO_WAIT, NOW).await
    }

    async fn download(&self, id: &MediaId) -> Result<Vec<u8>> {
        let content = self.content(id).await?;
        Ok(bytes(self.media.read(&content, None).await?).await)
    }

    async fn thumbnail(&self, id: &MediaId, wanted: Wanted) -> Result<(&'static str, Vec<u8>)> {
        let content = self.content(id).await?;
        let run = |job: Job| async move { tokio::task::spawn_blocking(move || job.run()).await.unwrap() };
        let thumbnail: Thumbnail = self.media.thumbnail(&content, wanted, run).await?;
        Ok((thumbnail.content_type, bytes(thumbnail.body).await))
    }

    /// The paths of all files in the folder, without it.
    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    files.push(path.strip_prefix(self.folder.path()).unwrap().to_owned())
                }
            }
        }
        files.sort();
        files
    }
}

fn upload(owner: UserNo, content_type: &str) -> Upload {
    Upload { owner, content_type: Some(content_type.into()), filename: Some("a.bin".into()), now_ms: NOW }
}

async fn bytes(body: Body) -> Vec<u8> {
    let size = body.size;
    let parts: Vec<Bytes> = body.stream.try_collect().await.unwrap();
    let all = parts.concat();
    assert_eq!(all.len() as u64, size);
    all
}
