//! What changed for a user between two positions, and its forms: `/sync` (v3).
//!
//! A position is a commit. [`affected`] finds from memory which rooms may have news; [`excerpt`] reads what a room's
//! timeline and state gained; the rest of the files are one kind of news each. [`v3`] is an encoder of them.

pub mod affected;
pub mod device_lists;
pub mod ephemeral;
pub mod excerpt;
pub mod members;
pub mod presence;
pub mod state;
pub mod unread;
pub mod v3;

use ruma::{OwnedDeviceId, OwnedUserId};
use store::UserNo;
use users::devices::DeviceNo;

/// The device that asks.
#[derive(Clone, Debug)]
pub struct Who {
    /// The user's number.
    pub user: UserNo,
    /// The user.
    pub user_id: OwnedUserId,
    /// The device's number.
    pub device: DeviceNo,
    /// The device.
    pub device_id: OwnedDeviceId,
}
