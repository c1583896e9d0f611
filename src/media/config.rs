//! What an operator can choose.

use serde::{Deserialize, Serialize};

/// The media repository's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The largest file that may be uploaded, in bytes. Clients are told.
    pub max_upload_bytes: u64,
    /// What one user's uploads may take together, in bytes; no limit where absent.
    pub max_user_bytes: Option<u64>,
    /// What the kept media of other servers may take together, in bytes. What was not asked for longest goes first.
    pub max_remote_bytes: u64,
    /// How many media ids one user may have created and not yet uploaded to.
    pub max_pending_uploads: usize,
    /// How long a created media id waits for its upload, in milliseconds.
    pub pending_expiry_ms: u64,
    /// How long a download may wait for an upload that is still under way, in milliseconds, whatever the client asks.
    pub max_wait_ms: u64,
    /// The largest image that is thumbnailed, in pixels, and the most that are decoded at one time. The worst image
    /// takes ten bytes of memory a pixel meanwhile.
    pub max_thumbnail_pixels: u64,
    /// How many thumbnails are made at one time.
    pub thumbnails_at_once: usize,
    /// Media uploaded before this moment (milliseconds since 1970) is still served without an access token by the
    /// deprecated endpoints. 0 serves none, as the specification asks of new servers.
    pub unauthenticated_before_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_upload_bytes: 100 << 20,
            max_user_bytes: None,
            max_remote_bytes: 4 << 30,
            max_pending_uploads: 64,
            pending_expiry_ms: 24 * 60 * 60 * 1000,
            max_wait_ms: 60_000,
            max_thumbnail_pixels: 32_000_000,
            thumbnails_at_once: 2,
            unauthenticated_before_ms: 0,
        }
    }
}
