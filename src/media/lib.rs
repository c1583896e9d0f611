//! Uploaded files: their bytes on disk, their metadata, thumbnails, and what makes serving them safe ("Content repository").
//!
//! A file's bytes are a *blob*, stored once under its SHA-256 however often it is uploaded. Bytes are streamed in and out and
//! never held whole. A blob is synced to disk before the row that names it is committed, and removed after the last such row
//! is gone for good; so a crash at any moment leaves a blob without a row at worst, which [`Media::sweep`] removes.
//!
//! Thumbnails are a cache beside the blobs. Their decoders run within limits on pixels, memory and time, on the thread that
//! the caller gives them.

mod animation;
mod blobs;
mod config;
mod error;
mod id;
mod media;
mod picture;
mod remote;
mod rows;
mod serve;
mod size;
#[cfg(test)]
mod tests;
mod thumbnail;

pub use blobs::{Body, Received};
pub use config::Config;
pub use error::{Error, Result};
pub use id::MediaId;
pub use media::{Media, Swept};
pub use picture::{Job, Rendered};
pub use remote::RemoteId;
pub use rows::{Content, Metadata, TABLES, Upload, Usage, metadata, of_user, quarantine, usage};
pub use serve::{Disposition, byte_range, content_disposition, disposition, normalized_type};
pub use size::{Method, Wanted};
pub use thumbnail::Thumbnail;
