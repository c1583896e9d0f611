//! The media folder: blobs by their SHA-256, uploads on their way in, thumbnails.
//!
//! `uploads/` holds what is being received and is emptied at start. A file appears in `blobs/` or `thumbnails/` whole and synced, by
//! renaming. Only this module knows paths, and all are made from hashes and numbers, never from what a client sent.

use std::{
    fs::File,
    path::Path as FilePath,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, PutPayloadMut, local::LocalFileSystem, path::Path,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    sync::{Mutex, MutexGuard},
};

use crate::{Error, Result, size::Wanted};

/// The SHA-256 of a blob.
pub(crate) type Hash = [u8; 32];

/// Bytes gathered before they are written, and read at a time.
const CHUNK: usize = 128 << 10;
/// Locks of blobs are striped: blobs that share a stripe wait for each other, and memory stays bounded.
const STRIPES: usize = 64;
/// Thumbnails kept of one image. Whoever asks for more sizes than this has the cache of that image start anew.
const VARIANTS_MAX: usize = 32;

/// A file's bytes, streamed.
pub struct Body {
    /// How many bytes follow.
    pub size: u64,
    /// The bytes.
    pub stream: BoxStream<'static, Result<Bytes>>,
}

impl Body {
    pub(crate) fn of(bytes: Bytes) -> Self {
        Self { size: bytes.len() as u64, stream: stream::iter([Ok(bytes)]).boxed() }
    }
}

/// The media folder.
pub(crate) struct Blobs {
    files: Arc<LocalFileSystem>,
    uploads: AtomicU64,
    stripes: Vec<Mutex<()>>,
}

impl Blobs {
    /// Opens the folder, making it where there is none, and removes what a crash left of unfinished uploads.
    pub(crate) fn open(folder: &FilePath) -> Result<Self> {
        let unwritable = |error: std::io::Error| Error::Unwritable(format!("{}: {error}", folder.display()));
        let uploads = folder.join("uploads");
        match std::fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unwritable(error)),
            _ => std::fs::create_dir_all(&uploads).map_err(unwritable)?,
        }
        let files = LocalFileSystem::new_with_prefix(folder).map_err(not_written)?.with_fsync(true);
        let stripes = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Ok(Self { files: Arc::new(files), uploads: AtomicU64::new(0), stripes })
    }

    /// Keeps anyone else from placing or removing this blob.
    pub(crate) async fn lock(&self, hash: &Hash) -> MutexGuard<'_, ()> {
        self.stripes[usize::from(hash[0]) % STRIPES].lock().await
    }

    /// Begins to receive a file.
    pub(crate) async fn receive(&self) -> Result<Receiving> {
        let path = Path::from_iter(["uploads".to_owned(), self.uploads.fetch_add(1, Ordering::Relaxed).to_string()]);
        let parts = self.files.put_multipart(&path).await.map_err(not_written)?;
        let files = Arc::clone(&self.files);
        Ok(Receiving { files, path, parts, hasher: Sha256::new(), size: 0, gathered: PutPayloadMut::new() })
    }

    /// Makes what was received a blob, durably. Hold its lock until the row that names it is committed.
    pub(crate) async fn place(&self, mut received: Received) -> Result<()> {
        self.files.rename(&received.path, &blob(&received.sha256)).await.map_err(not_written)?;
        received.placed = true;
        Ok(())
    }

    /// Removes a blob and its thumbnails. Tells whether any of them was there. Hold its lock.
    pub(crate) async fn remove(&self, hash: &Hash) -> Result<bool> {
        let blob = self.delete(&blob(hash)).await?;
        Ok(self.remove_thumbnails(hash).await? || blob)
    }

    /// The whole blob, or these bytes of it.
    pub(crate) async fn read(&self, hash: &Hash, range: Option<std::ops::Range<u64>>) -> Result<Body> {
        let (file, size) = self.opened(&blob(hash)).await?.ok_or_else(|| missing(hash))?;
        let range = range.unwrap_or(0..size);
        Ok(Body { size: range.end.saturating_sub(range.start), stream: read_file(file, range) })
    }

    /// The blob as a file for a decoder, with its size in bytes.
    pub(crate) async fn file(&self, hash: &Hash) -> Result<(File, u64)> {
        self.opened(&blob(hash)).await?.ok_or_else(|| missing(hash))
    }

    /// A thumbnail that was made before.
    pub(crate) async fn thumbnail(&self, hash: &Hash, wanted: &Wanted) -> Result<Option<Body>> {
        let Some((file, size)) = self.opened(&thumbnail(hash, wanted)).await? else { return Ok(None) };
        Ok(Some(Body { size, stream: read_file(file, 0..size) }))
    }

    /// Keeps a thumbnail for the next time.
    pub(crate) async fn keep_thumbnail(&self, hash: &Hash, wanted: &Wanted, bytes: Bytes) -> Result<()> {
        if self.files.list(Some(&sharded("thumbnails", hash))).count().await >= VARIANTS_MAX {
            self.remove_thumbnails(hash).await?;
        }
        self.files.put(&thumbnail(hash, wanted), PutPayload::from(bytes)).await.map_err(not_written)?;
        Ok(())
    }

    /// The hashes of all blobs, and of what there are thumbnails of: one for each file.
    pub(crate) fn hashes(&self) -> BoxStream<'static, Result<Hash>> {
        let files = |prefix: &str| self.files.list(Some(&Path::from(prefix)));
        let hash = |meta: object_store::ObjectMeta| meta.location.parts().find_map(|part| from_hex(part.as_ref()));
        let all = files("blobs").chain(files("thumbnails"));
        all.try_filter_map(move |meta| std::future::ready(Ok(hash(meta)))).map_err(not_read).boxed()
    }

    async fn remove_thumbnails(&self, hash: &Hash) -> Result<bool> {
        let mut removed = false;
        let mut variants = self.files.list(Some(&sharded("thumbnails", hash)));
        while let Some(variant) = variants.try_next().await.map_err(not_read)? {
            removed |= self.delete(&variant.location).await?;
        }
        Ok(removed)
    }

    async fn delete(&self, path: &Path) -> Result<bool> {
        match self.files.delete(path).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(not_written(error)),
        }
    }

    async fn opened(&self, path: &Path) -> Result<Option<(File, u64)>> {
        match self.files.get(path).await {
            Ok(found) => match found.payload {
                GetResultPayload::File(file, _) => Ok(Some((file, found.meta.size))),
                GetResultPayload::Stream(_) => Err(Error::Unreadable(format!("{path} is no file"))),
            },
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(not_read(error)),
        }
    }
}

/// A file on its way in. Dropped, it leaves nothing.
pub(crate) struct Receiving {
    files: Arc<LocalFileSystem>,
    path: Path,
    parts: Box<dyn MultipartUpload>,
    hasher: Sha256,
    size: u64,
    gathered: PutPayloadMut,
}

impl Receiving {
    /// Bytes received so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        self.gathered.push(bytes);
        if self.gathered.content_length() >= CHUNK { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.gathered);
        self.parts.put_part(part.freeze()).await.map_err(not_written)
    }

    /// Syncs the file to disk.
    pub(crate) async fn finish(mut self) -> Result<Received> {
        self.flush().await?;
        self.parts.complete().await.map_err(not_written)?;
        Ok(Received { files: self.files, path: self.path, sha256: self.hasher.finalize().into(), size: self.size, placed: false })
    }
}

/// A whole file that was received and belongs to nothing yet. Dropped, it is removed.
pub struct Received {
    files: Arc<LocalFileSystem>,
    path: Path,
    sha256: Hash,
    size: u64,
    placed: bool,
}

impl Received {
    /// The SHA-256 of its bytes.
    #[must_use]
    pub fn sha256(&self) -> Hash {
        self.sha256
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        if let Ok(path) = self.files.path_to_filesystem(&self.path) {
            // What cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The bytes of `range`, as they are asked for.
fn read_file(file: File, range: std::ops::Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK);
    let next = move |(mut file, at, end): (tokio::fs::File, Option<u64>, u64)| async move {
        if let Some(start) = at.filter(|start| *start > 0) {
            file.seek(std::io::SeekFrom::Start(start)).await?;
        }
        let left = usize::try_from(end).unwrap_or(usize::MAX).min(CHUNK);
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = bytes::BytesMut::with_capacity(left);
        let read = (&mut file).take(left as u64).read_buf(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((chunk.freeze(), (file, None, end - read as u64))))
    };
    let left = range.end.saturating_sub(range.start);
    stream::try_unfold((file, Some(range.start), left), next)
        .map_err(|error: std::io::Error| Error::Unreadable(error.to_string()))
        .boxed()
}

fn blob(hash: &Hash) -> Path {
    sharded("blobs", hash)
}

fn thumbnail(hash: &Hash, wanted: &Wanted) -> Path {
    sharded("thumbnails", hash).join(wanted.to_string())
}

/// Two levels of folders, so that none grows too long.
fn sharded(folder: &str, hash: &Hash) -> Path {
    let hex = to_hex(hash);
    Path::from_iter([folder, &hex[..2], &hex[2..4], &hex])
}

/// A hash as text.
pub(crate) fn to_hex(hash: &Hash) -> String {
    hash.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn missing(hash: &Hash) -> Error {
    Error::Unreadable(format!("the file {} is missing", to_hex(hash)))
}

fn not_written(error: object_store::Error) -> Error {
    Error::Unwritable(error.to_string())
}

fn not_read(error: object_store::Error) -> Error {
    Error::Unreadable(error.to_string())
}
