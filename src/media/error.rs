//! What can go wrong with media.

/// Why media cannot be stored or served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such media, or nobody may see it.
    #[error("there is no such media")]
    NotFound,
    /// The media id was created, but nothing was uploaded to it in the time that the download waited.
    #[error("the media has not been uploaded yet")]
    NotYetUploaded,
    /// The media id already has content, which never changes.
    #[error("the media was already uploaded")]
    AlreadyUploaded,
    /// The media id was created by another user.
    #[error("the media id belongs to another user")]
    NotOwner,
    /// The user's uploads take all the room that they may.
    #[error("the user's uploads take {limit} bytes, which is all they may")]
    OverQuota {
        /// Bytes that a user's uploads may take.
        limit: u64,
    },
    /// The file is larger than files may be.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// The largest file, in bytes.
        limit: u64,
    },
    /// The user has as many media ids without content as one may.
    #[error("the user has too many media ids that await their upload")]
    TooManyPending {
        /// When the first of them expires, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// The upload ended before it was complete.
    #[error("the upload broke off")]
    BrokenOff,
    /// The file is no image of a kind that is thumbnailed, or a broken one.
    #[error("the content is no image that can be thumbnailed: {0}")]
    NotAnImage(String),
    /// The image is larger than images that are thumbnailed.
    #[error("the image is too large to be thumbnailed")]
    ImageTooLarge,
    /// A thumbnail of no width or height was asked for.
    #[error("a thumbnail has a width and a height of at least 1")]
    NoSize,
    /// No part of the file lies in the range that was asked for.
    #[error("the range lies outside of the file's {size} bytes")]
    OutOfRange {
        /// The file's size in bytes.
        size: u64,
    },
    /// The media folder is full, read-only or broken. What was acknowledged is safe.
    #[error("the media folder cannot be written: free some space or mend the disk ({0})")]
    Unwritable(String),
    /// The media folder cannot be read, or a file that should be there is not.
    #[error("the media folder cannot be read ({0}): mend the disk or restore a backup")]
    Unreadable(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The result of a media operation.
pub type Result<T> = std::result::Result<T, Error>;
