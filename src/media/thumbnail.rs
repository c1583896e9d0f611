//! Thumbnails: made once, kept beside the blobs, within limits on how many are made at one time.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use image::ImageFormat;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::{
    Body, Config, Content, Error, Job, Media, Rendered, Result, Wanted,
    blobs::Hash,
    picture::{Picture, content_type},
};

/// Turns are striped: images that share a stripe wait for each other, which costs little where few are made at one time.
const STRIPES: usize = 64;

/// A thumbnail to serve.
pub struct Thumbnail {
    /// What it is: always a type that is safe inline.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: Body,
}

/// Who may make a thumbnail now.
pub(crate) struct Turns {
    stripes: Vec<Arc<tokio::sync::Mutex<()>>>,
    at_once: Arc<Semaphore>,
    pixels: Arc<Pixels>,
}

/// Held while a thumbnail is made, by the job itself, so that it counts even if nobody waits for it any more.
pub(crate) struct Turn {
    _image: OwnedMutexGuard<()>,
    _one: OwnedSemaphorePermit,
    pub(crate) pixels: Arc<Pixels>,
}

impl Turns {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Arc::default()).collect(),
            at_once: Arc::new(Semaphore::new(config.thumbnails_at_once.clamp(1, Semaphore::MAX_PERMITS))),
            pixels: Arc::new(Pixels::new(config.max_thumbnail_pixels)),
        }
    }

    /// Waits until no one else makes a thumbnail of this image.
    async fn of(&self, hash: &Hash) -> OwnedMutexGuard<()> {
        Arc::clone(&self.stripes[usize::from(hash[0]) % STRIPES]).lock_owned().await
    }

    async fn begin(&self, image: OwnedMutexGuard<()>) -> Result<Turn> {
        let one = Arc::clone(&self.at_once).acquire_owned().await.map_err(|_| store::Error::Closed)?;
        Ok(Turn { _image: image, _one: one, pixels: Arc::clone(&self.pixels) })
    }
}

/// The pixels that may be decoded at one time, so that memory is bounded by them and not by how many thumbnails are made.
pub(crate) struct Pixels {
    /// The most at one time, and of one image.
    pub(crate) limit: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

impl Pixels {
    fn new(limit: u64) -> Self {
        Self { limit, free: Mutex::new(limit), freed: Condvar::new() }
    }

    /// Blocks until this many are free. Only the few threads that make thumbnails wait here.
    pub(crate) fn take(&self, pixels: u64) -> TakenPixels<'_> {
        let taken = pixels.min(self.limit);
        let mut free = self.free.lock();
        while *free < taken {
            self.freed.wait(&mut free);
        }
        *free -= taken;
        TakenPixels { from: self, taken }
    }
}

pub(crate) struct TakenPixels<'a> {
    from: &'a Pixels,
    taken: u64,
}

impl Drop for TakenPixels<'_> {
    fn drop(&mut self) {
        *self.from.free.lock() += self.taken;
        self.from.freed.notify_all();
    }
}

impl Media {
    /// A thumbnail of media: the one that is kept, else a new one, which `run` makes by calling [`Job::run`] on a thread that
    /// may block. Who asks for one that is being made waits for it.
    ///
    /// # Errors
    /// [`Error::NotAnImage`], [`Error::ImageTooLarge`]; what `run` returns.
    pub async fn thumbnail<E, F>(
        &self,
        content: &Content,
        wanted: Wanted,
        run: impl FnOnce(Job) -> F,
    ) -> std::result::Result<Thumbnail, E>
    where
        E: From<Error>,
        F: Future<Output = std::result::Result<Rendered, E>>,
    {
        if let Some(kept) = self.kept(&content.sha256, &wanted).await? {
            return Ok(kept);
        }
        let turn = self.turns.of(&content.sha256).await;
        if let Some(kept) = self.kept(&content.sha256, &wanted).await? {
            return Ok(kept);
        }
        let (file, size) = self.blobs.file(&content.sha256).await?;
        let job = Job::new(file, size, wanted, self.turns.begin(turn).await?);
        let Rendered { picture, turn: _held } = run(job).await?;
        match picture {
            Picture::Original(format) => {
                Ok(Thumbnail { content_type: content_type(format), body: self.blobs.read(&content.sha256, None).await? })
            }
            Picture::New(format, bytes) => {
                let bytes = Bytes::from(bytes);
                // The answer is ready: that it cannot be kept is the operator's concern, not the client's.
                if let Err(error) = self.blobs.keep_thumbnail(&content.sha256, &wanted, bytes.clone()).await {
                    tracing::warn!(%error, "a thumbnail could not be kept");
                }
                Ok(Thumbnail { content_type: content_type(format), body: Body::of(bytes) })
            }
        }
    }

    async fn kept(&self, hash: &Hash, wanted: &Wanted) -> Result<Option<Thumbnail>> {
        let Some(mut body) = self.blobs.thumbnail(hash, wanted).await? else { return Ok(None) };
        let Some(first) = body.stream.next().await.transpose()? else { return Ok(None) };
        let format = image::guess_format(&first).unwrap_or(ImageFormat::Png);
        let stream = stream::iter([Ok(first)]).chain(body.stream).boxed();
        Ok(Some(Thumbnail { content_type: content_type(format), body: Body { size: body.size, stream } }))
    }
}
