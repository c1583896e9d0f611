//! What is known of each file: whose it is, what it is called, which blob it is.

use serde::{Deserialize, Serialize};
use store::{Lead, Lock, Owner, Pending, Preset, Range, Read, Store, Table, TableSpec, Tx, UserNo};

use crate::{
    Config, Error, MediaId, Result,
    blobs::{Hash, to_hex},
    remote,
    serve::normalized_type,
};

/// A media id's row. The key is the media id alone: this server's media.
static MEDIA: Table<String, Metadata> =
    Table::new("media", "A media id of this server: its owner, and its content once uploaded.");
/// Media ids that await their upload, with the time that they expire. Its changes wake the downloads that wait.
static MEDIA_PENDING: Table<(UserNo, String), u64> =
    Table::new("media_pending", "A user's media ids that await their upload: when they expire (ms).")
        .owned_by(Owner::User)
        .wakes(Owner::User)
        .read_by(Preset::Scan);
static MEDIA_OF_USER: Table<(UserNo, String), ()> =
    Table::new("media_of_user", "A user's uploaded media.").owned_by(Owner::User).read_by(Preset::Scan);
static MEDIA_USAGE: Table<UserNo, Usage> =
    Table::new("media_usage", "What a user's uploads take together.").owned_by(Owner::User);
pub(crate) static MEDIA_BY_HASH: Table<(Hash, String), ()> =
    Table::new("media_by_hash", "The media ids that share a blob. A blob without any is removed.").read_by(Preset::Scan);

/// This layer's tables.
pub const TABLES: &[&TableSpec] = &[
    MEDIA.spec(),
    MEDIA_PENDING.spec(),
    MEDIA_OF_USER.spec(),
    MEDIA_USAGE.spec(),
    MEDIA_BY_HASH.spec(),
    remote::REMOTE.spec(),
    remote::REMOTE_BY_USE.spec(),
    remote::REMOTE_USAGE.spec(),
];

/// The longest file name kept, in bytes.
const FILENAME_MAX: usize = 1024;
/// Milliseconds of a day: how exactly the last access is known, so that a download seldom writes.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is known of a media id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Who uploaded it, or created the id.
    pub owner: UserNo,
    /// When the id was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// When the id expires if nothing is uploaded to it.
    pub unused_expires_ms: u64,
    /// The content, once uploaded. It never changes.
    pub content: Option<Content>,
    /// Nobody but administrators may see it.
    pub quarantined: bool,
    /// When it was last downloaded, in days since 1970.
    pub accessed_day: u32,
}

/// An uploaded file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The SHA-256 of its bytes.
    pub sha256: Hash,
    /// Its size in bytes.
    pub size: u64,
    /// What the uploader says it is, normalised.
    pub content_type: String,
    /// What the uploader calls it.
    pub filename: Option<String>,
    /// When it was uploaded, in milliseconds since 1970.
    pub uploaded_ms: u64,
}

impl Content {
    /// The `ETag` of its bytes: their hash, in quotes.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{}\"", to_hex(&self.sha256))
    }
}

/// What a user's uploads take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// How many there are.
    pub files: u64,
    /// Their bytes, counting a file as often as it was uploaded.
    pub bytes: u64,
}

/// What an upload says besides its bytes.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Who uploads.
    pub owner: UserNo,
    /// The `Content-Type` of the request.
    pub content_type: Option<String>,
    /// The `filename` of the request.
    pub filename: Option<String>,
    /// The time in milliseconds since 1970.
    pub now_ms: u64,
}

impl Upload {
    pub(crate) fn content(&self, sha256: Hash, size: u64) -> Content {
        content(sha256, size, self.content_type.as_deref(), self.filename.as_deref(), self.now_ms)
    }
}

/// A file as it is kept: its type normalised, its name not too long.
pub(crate) fn content(sha256: Hash, size: u64, content_type: Option<&str>, filename: Option<&str>, now_ms: u64) -> Content {
    let filename = filename.filter(|name| !name.is_empty()).map(|name| {
        let end = (0..=name.len().min(FILENAME_MAX)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        name[..end].to_owned()
    });
    Content { sha256, size, content_type: normalized_type(content_type), filename, uploaded_ms: now_ms }
}

/// What is known of this media id, be it expired, pending or quarantined: for administrators.
///
/// # Errors
/// As the database says.
pub fn metadata(read: &impl Read, id: &MediaId) -> Result<Option<Metadata>> {
    Ok(read.get(&MEDIA, &id.as_str())?)
}

/// What is known of this media id where any user may see it.
pub(crate) fn visible(read: &impl Read, id: &MediaId, now_ms: u64) -> Result<Metadata> {
    let live = |found: &Metadata| !found.quarantined && (found.content.is_some() || now_ms < found.unused_expires_ms);
    metadata(read, id)?.filter(live).ok_or(Error::NotFound)
}

/// The uploads of a user, in the order of their ids, after this one.
///
/// # Errors
/// As the database says.
pub fn of_user(read: &impl Read, owner: UserNo, after: Option<&MediaId>, limit: usize) -> Result<Vec<MediaId>> {
    let range = Range::of(&Lead((owner,)));
    let range = match after {
        Some(id) => range.after(&(owner, id.as_str())),
        None => range,
    };
    let rows = read.range(&MEDIA_OF_USER, &range)?.take(limit);
    let ids = rows.map(|row| row.map(|((_, id), ())| MediaId::parse(&id))).collect::<store::Result<Vec<_>>>()?;
    Ok(ids.into_iter().flatten().collect())
}

/// What a user's uploads take together.
///
/// # Errors
/// As the database says.
pub fn usage(read: &impl Read, owner: UserNo) -> Result<Usage> {
    Ok(read.get(&MEDIA_USAGE, &owner)?.unwrap_or_default())
}

/// What a user's uploads take with another file of this size, where that is allowed.
pub(crate) fn with_another(read: &impl Read, config: &Config, owner: UserNo, size: u64) -> Result<Usage> {
    let used = usage(read, owner)?;
    let used = Usage { files: used.files + 1, bytes: used.bytes.saturating_add(size) };
    match config.max_user_bytes {
        Some(limit) if used.bytes > limit => Err(Error::OverQuota { limit }),
        _ => Ok(used),
    }
}

/// Whether any media is this blob.
pub(crate) fn is_used(read: &impl Read, hash: &Hash) -> Result<bool> {
    Ok(read.first(&MEDIA_BY_HASH, Range::of(&Lead((*hash,))))?.is_some())
}

/// Creates a media id for a later upload, and forgets those of the user that have expired. Gives the time that it expires.
pub(crate) fn create(tx: &mut Tx<'_>, config: &Config, owner: UserNo, id: &MediaId, now_ms: u64) -> Result<u64> {
    forget_expired(tx, owner, now_ms)?;
    let pending: Vec<u64> =
        tx.range(&MEDIA_PENDING, &Range::of(&Lead((owner,))))?.map(|row| row.map(|(_, at)| at)).collect::<store::Result<_>>()?;
    if pending.len() >= config.max_pending_uploads {
        let first = pending.into_iter().min().unwrap_or(now_ms);
        return Err(Error::TooManyPending { retry_after_ms: first.saturating_sub(now_ms) });
    }
    let unused_expires_ms = now_ms.saturating_add(config.pending_expiry_ms);
    let accessed_day = day(now_ms);
    let row = Metadata { owner, created_ms: now_ms, unused_expires_ms, content: None, quarantined: false, accessed_day };
    tx.put(&MEDIA, &id.as_str(), &row)?;
    tx.put(&MEDIA_PENDING, &(owner, id.as_str()), &unused_expires_ms)?;
    Ok(unused_expires_ms)
}

/// Whether this user may upload to this media id.
pub(crate) fn may_complete(read: &impl Read, owner: UserNo, id: &MediaId, now_ms: u64) -> Result<Metadata> {
    let row = metadata(read, id)?.ok_or(Error::NotFound)?;
    match row {
        row if row.owner != owner => Err(Error::NotOwner),
        row if row.content.is_some() => Err(Error::AlreadyUploaded),
        row if now_ms >= row.unused_expires_ms => Err(Error::NotFound),
        row => Ok(row),
    }
}

/// Gives a created media id its content.
pub(crate) fn complete(tx: &mut Tx<'_>, config: &Config, owner: UserNo, id: &MediaId, content: Content) -> Result<()> {
    let row = may_complete(tx, owner, id, content.uploaded_ms)?;
    tx.delete(&MEDIA_PENDING, &(owner, id.as_str()))?;
    insert(tx, config, id, row, content)
}

/// Adds a new media id with its content.
pub(crate) fn add(tx: &mut Tx<'_>, config: &Config, owner: UserNo, id: &MediaId, content: Content) -> Result<()> {
    let now_ms = content.uploaded_ms;
    let accessed_day = day(now_ms);
    let row = Metadata { owner, created_ms: now_ms, unused_expires_ms: now_ms, content: None, quarantined: false, accessed_day };
    insert(tx, config, id, row, content)
}

fn insert(tx: &mut Tx<'_>, config: &Config, id: &MediaId, row: Metadata, content: Content) -> Result<()> {
    let used = with_another(tx, config, row.owner, content.size)?;
    tx.put(&MEDIA_USAGE, &row.owner, &used)?;
    tx.put(&MEDIA_OF_USER, &(row.owner, id.as_str()), &())?;
    tx.put(&MEDIA_BY_HASH, &(content.sha256, id.as_str()), &())?;
    Ok(tx.put(&MEDIA, &id.as_str(), &Metadata { content: Some(content), ..row })?)
}

/// Forgets a media id. Gives its content, whose blob may now be unused.
pub(crate) fn delete(tx: &mut Tx<'_>, id: &MediaId) -> Result<Option<Content>> {
    let Some(row) = metadata(tx, id)? else { return Ok(None) };
    tx.delete(&MEDIA, &id.as_str())?;
    tx.delete(&MEDIA_PENDING, &(row.owner, id.as_str()))?;
    let Some(content) = row.content else { return Ok(None) };
    let used = usage(tx, row.owner)?;
    let used = Usage { files: used.files.saturating_sub(1), bytes: used.bytes.saturating_sub(content.size) };
    tx.put(&MEDIA_USAGE, &row.owner, &used)?;
    tx.delete(&MEDIA_OF_USER, &(row.owner, id.as_str()))?;
    tx.delete(&MEDIA_BY_HASH, &(content.sha256, id.as_str()))?;
    Ok(Some(content))
}

/// Hides media from everyone but administrators, or shows it again. Tells whether there is such media.
///
/// # Errors
/// As the database says.
pub fn quarantine(store: &Store, id: &MediaId, hidden: bool) -> Result<Pending<bool>> {
    let owner = metadata(&store.snapshot(), id)?.map(|row| Lock::User(row.owner));
    store.transact(owner.as_slice(), |tx| match owner {
        Some(_) => change(tx, id, |row| row.quarantined = hidden),
        None => Ok(false),
    })
}

/// Notes that media was downloaded, to the day. Costs a write only on the first download of a day.
pub(crate) fn note_access(store: &Store, id: &MediaId, row: &Metadata, now_ms: u64) -> Result<()> {
    let today = day(now_ms);
    if row.accessed_day >= today {
        return Ok(());
    }
    store.note(&[Lock::User(row.owner)], |tx| {
        change(tx, id, |row| row.accessed_day = row.accessed_day.max(today))?;
        Ok(())
    })
}

fn change(tx: &mut Tx<'_>, id: &MediaId, change: impl FnOnce(&mut Metadata)) -> Result<bool> {
    let Some(mut row) = metadata(tx, id)? else { return Ok(false) };
    change(&mut row);
    tx.put(&MEDIA, &id.as_str(), &row)?;
    Ok(true)
}

/// The users who have media ids that expired before their upload.
pub(crate) fn owners_of_expired(read: &impl Read, now_ms: u64) -> Result<Vec<UserNo>> {
    let mut owners = Vec::new();
    for row in read.range(&MEDIA_PENDING, &Range::of(&()))? {
        let ((owner, _), expires_ms) = row?;
        if expires_ms <= now_ms && owners.last() != Some(&owner) {
            owners.push(owner);
        }
    }
    Ok(owners)
}

/// Forgets the media ids of a user that expired before their upload. Tells how many.
pub(crate) fn forget_expired(tx: &mut Tx<'_>, owner: UserNo, now_ms: u64) -> Result<usize> {
    let mut expired = Vec::new();
    for row in tx.range(&MEDIA_PENDING, &Range::of(&Lead((owner,))))? {
        let ((_, id), expires_ms) = row?;
        if expires_ms <= now_ms {
            expired.push(id);
        }
    }
    for id in &expired {
        tx.delete(&MEDIA_PENDING, &(owner, id.as_str()))?;
        tx.delete(&MEDIA, &id.as_str())?;
    }
    Ok(expired.len())
}

pub(crate) fn day(now_ms: u64) -> u32 {
    u32::try_from(now_ms / DAY_MS).unwrap_or(u32::MAX)
}
