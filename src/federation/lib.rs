//! Talking to other homeservers: names and keys, signed requests, and what is asked of them.
//!
//! [`Federation`] is given to whoever asks another server something; its methods are spread over the modules of their nouns. It
//! reaches the network only through a [`Transport`], so that servers of one process can federate in memory. Everything that
//! another server says is bounded, typed and verified before it leaves this layer.

mod call;
mod computing;
mod config;
mod destinations;
mod device_lists;
pub mod directory;
mod early;
mod edus;
mod error;
mod fetch;
mod gates;
pub mod hierarchy;
pub mod history;
mod inbound;
pub mod invite;
pub mod join;
pub mod keys;
mod known;
mod media;
mod multipart;
mod network;
mod outbound;
mod policy;
mod presence;
mod profiles;
pub mod public_rooms;
pub mod resident;
mod resync;
mod staged;
pub mod third_party;
mod transport;
pub mod user_keys;
mod verify;
mod wire;
pub mod x_matrix;

use std::sync::Arc;

pub use call::{Ask, path, query};
pub use computing::Computing;
pub use config::Config;
pub use edus::Edu;
pub use error::{Error, Refusal, Result};
use gates::Gates;
pub use inbound::{Answer, Transaction};
pub use network::Network;
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use ruma::{OwnedRoomId, OwnedServerName, ServerName};
use store::{Clock, RoomNo, Store, TableSpec};
pub use transport::{Body, Carrying, NoNetwork, Transport, TransportError, collect};
use users::presence::Online;
pub use verify::Unverified;
pub use wire::Wire;

/// All tables of this layer.
pub const TABLES: &[&TableSpec] = &[
    destinations::DESTINATIONS.spec(),
    inbound::ANSWERS.spec(),
    keys::OWN_KEYS.spec(),
    keys::SERVER_KEYS.spec(),
    staged::STAGED.spec(),
    outbound::CURSOR.spec(),
    outbound::NAMES.spec(),
    outbound::NUMBERS.spec(),
    outbound::COUNTER.spec(),
    outbound::QUEUE.spec(),
];

/// What [`Federation`] is made of.
pub struct Parts {
    /// Who this server is.
    pub identity: Arc<rooms::Identity>,
    /// What is allowed.
    pub config: Config,
    /// All that is stored.
    pub store: Arc<Store>,
    /// Uploaded files, and those of other servers.
    pub media: Arc<::media::Media>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// What carries requests.
    pub transport: Arc<dyn Transport>,
    /// Who is connected, where presence is known at all.
    pub online: Option<Arc<Online>>,
    /// Where work runs that computes long.
    pub computing: Computing,
    /// Where randomness comes from.
    pub rng: StdRng,
}

/// What is asked of other servers, and what must be known of them to answer theirs.
pub struct Federation {
    /// Who this server is.
    pub identity: Arc<rooms::Identity>,
    /// What is allowed.
    pub config: Config,
    /// All that is stored.
    pub store: Arc<Store>,
    /// Uploaded files, and those of other servers.
    pub media: Arc<::media::Media>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    transport: Arc<dyn Transport>,
    computing: Computing,
    keys: keys::Fetching,
    downloads: media::Downloads,
    /// One transaction at a time of each server.
    inbound: Gates<OwnedServerName>,
    /// One change at a time of each room by what others send.
    rooms: Gates<RoomNo>,
    /// One user at a time who enters each room.
    entering: Gates<OwnedRoomId>,
    /// What comes of a room while a user enters it.
    early: early::Early,
    outbound: outbound::Outbound,
    spaces: hierarchy::Spaces,
    online: Option<Arc<Online>>,
    spreading: Mutex<presence::Spreading>,
    /// Rooms that lack what other servers have to tell.
    resyncs: resync::Resyncs,
    /// Users of whose devices something was missed.
    device_lists: device_lists::Fetching,
    rng: Mutex<StdRng>,
}

impl Federation {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { identity, config, store, media, clock, transport, online, computing, rng } = parts;
        let spreading = presence::Spreading::at(&store.snapshot(), clock.now_ms());
        Arc::new(Self {
            identity,
            config,
            store,
            media,
            clock,
            transport,
            computing,
            keys: keys::Fetching::default(),
            downloads: self::media::Downloads::default(),
            inbound: Gates::default(),
            rooms: Gates::default(),
            entering: Gates::default(),
            early: early::Early::default(),
            outbound: outbound::Outbound::default(),
            spaces: hierarchy::Spaces::default(),
            spreading: Mutex::new(spreading),
            online,
            resyncs: resync::Resyncs::default(),
            device_lists: device_lists::Fetching::default(),
            rng: Mutex::new(rng),
        })
    }

    /// Does what nobody waits for, until `stop` resolves: tells other servers what there is to tell, and asks for what rooms and lists of devices lack. What
    /// is not done by then is done after the next start, or when somebody needs it. Where federation is switched off, what would be told is forgotten: who is
    /// told again later finds what they missed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn run(self: &Arc<Self>, stop: impl Future<Output = ()>) -> Result<()> {
        tokio::select! {
            // In this order, and not in one that is drawn: a simulation must go the same way again.
            biased;
            () = stop => Ok(()),
            failed = self.tell_all() => failed,
            failed = self.resync_all(), if self.config.enabled => failed,
            never = self.fetch_device_lists(), if self.config.enabled => match never {},
        }
    }

    /// This server's name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.identity.server_name
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// A generator of its own for whoever needs randomness.
    #[must_use]
    pub fn rng(&self) -> StdRng {
        StdRng::from_rng(&mut *self.rng.lock())
    }
}
