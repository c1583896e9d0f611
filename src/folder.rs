//! The data folder: the database, the uploads, the signing key.
//!
//! ```text
//! data/db/          the store
//! data/media/       uploads and thumbnails
//! data/signing.key  what the server signs its events with
//! data/admin.sock   where the commands of the operator reach the running server
//! ```

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use protocol::keys::SigningKey;
use rand::{CryptoRng, RngExt as _};
use ruma::{OwnedServerName, ServerName};
use store::Store;

use crate::{config::Config, tables};

/// The name of a server whose operator named none.
const DEFAULT_NAME: &str = "localhost";
/// The letters of a new key's version, and how many.
const VERSION: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const VERSION_LENGTH: usize = 4;
/// Only the server's own user reads the data folder.
const FOLDER_MODE: u32 = 0o700;
/// Only the server's own user reads secrets.
const SECRET_MODE: u32 = 0o600;

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{0}: {1}{advice}", advice = advice(.1))]
    File(PathBuf, io::Error),
    /// The store says why.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The uploads' folder says why.
    #[error(transparent)]
    Media(#[from] media::Error),
    /// The key is not one.
    #[error("{0}: {1}")]
    Key(PathBuf, protocol::keys::KeyError),
    /// The key of a server that exists is gone.
    #[error(
        "{0} is missing: other servers know this server by that key. Restore it from a backup; if it is lost for good, make \
         another with `hearth generate-signing-key`"
    )]
    NoKey(PathBuf),
    /// There is a key, which must not be overwritten.
    #[error("there is a key in {0} already: move it away first")]
    KeyExists(PathBuf),
}

/// What to do where the data folder cannot be written.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (Hearth writes to its data folder: let its user do so, or name another folder with --data)"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => " (free some space first)",
        _ => "",
    }
}

/// A data folder that is open. No other process can open it meanwhile.
pub struct Folder {
    /// The server's name.
    pub name: OwnedServerName,
    /// The store, with the tables of all layers.
    pub store: Store,
}

/// Where a data folder has its parts.
pub struct Layout<'a>(pub &'a Path);

impl Layout<'_> {
    /// The store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.join("db")
    }

    /// Uploads.
    #[must_use]
    pub fn media(&self) -> PathBuf {
        self.0.join("media")
    }

    /// The signing key.
    #[must_use]
    pub fn signing_key(&self) -> PathBuf {
        self.0.join("signing.key")
    }

    /// The operator's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// Whether a server lives here.
    #[must_use]
    pub fn is_inhabited(&self) -> bool {
        self.store().join("CURRENT").exists()
    }

    /// Makes the folder where there is none.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn make(&self) -> Result<(), Error> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(self.0).map_err(|error| Error::File(self.0.into(), error))
    }
}

/// Opens the store of the configured folder under the configured name; without one under the name that the folder has.
///
/// # Errors
/// [`Error`].
pub fn open(config: &Config) -> Result<Folder, Error> {
    let layout = Layout(&config.data);
    layout.make()?;
    let open = |name: &ServerName| {
        let path = layout.store();
        let config = store::Config { path, server_name: name.to_string(), memory_bytes: config.memory_bytes };
        Store::open(&config, &tables(), &[])
    };
    if let Some(name) = &config.server_name {
        return Ok(Folder { store: open(name)?, name: name.clone() });
    }
    let parse = |name: &str| {
        OwnedServerName::try_from(name).map_err(|_| store::Error::Database(format!("the folder has the invalid name {name:?}")))
    };
    let default = parse(DEFAULT_NAME)?;
    match open(&default) {
        Ok(store) => Ok(Folder { store, name: default }),
        Err(store::Error::OtherServer { stored, .. }) => {
            let name = parse(&stored)?;
            Ok(Folder { store: open(&name)?, name })
        }
        Err(error) => Err(error.into()),
    }
}

/// The server's signing key. A new server gets one, before its store is made: so whoever has a store and no key has lost it.
///
/// # Errors
/// [`Error::NoKey`], [`Error::Key`], [`Error::File`].
pub fn signing_key(layout: &Layout<'_>, rng: &mut impl CryptoRng) -> Result<SigningKey, Error> {
    layout.make()?;
    let path = layout.signing_key();
    match fs::read_to_string(&path) {
        Ok(text) => SigningKey::from_line(text.trim()).map_err(|error| Error::Key(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && layout.is_inhabited() => Err(Error::NoKey(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => generate_signing_key(layout, rng),
        Err(error) => Err(Error::File(path, error)),
    }
}

/// Writes a new signing key where there is none, in the format of Synapse.
///
/// # Errors
/// [`Error::KeyExists`], [`Error::File`].
pub fn generate_signing_key(layout: &Layout<'_>, rng: &mut impl CryptoRng) -> Result<SigningKey, Error> {
    layout.make()?;
    let path = layout.signing_key();
    let version: String = (0..VERSION_LENGTH).map(|_| char::from(VERSION[rng.random_range(0..VERSION.len())])).collect();
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    let key = SigningKey::from_seed(&format!("a_{version}"), &seed).map_err(|error| Error::Key(path.clone(), error))?;
    match place(&path, &format!("{}\n", key.to_line())) {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::KeyExists(path)),
        Err(error) => Err(Error::File(path, error)),
    }
}

/// Writes a secret file whole or not at all, and never over another.
fn place(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(SECRET_MODE).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let placed = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    placed?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_folder_gets_a_key_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        let layout = Layout(&data);
        let key = signing_key(&layout, &mut rand::rng()).unwrap();
        let text = fs::read_to_string(layout.signing_key()).unwrap();
        assert!(text.starts_with("ed25519 a_") && text.ends_with('\n'), "the format of Synapse");
        assert_eq!(fs::metadata(layout.signing_key()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(signing_key(&layout, &mut rand::rng()).unwrap().id(), key.id(), "the same at the next start");
        assert!(matches!(generate_signing_key(&layout, &mut rand::rng()), Err(Error::KeyExists(_))));
        assert_eq!(fs::read_to_string(layout.signing_key()).unwrap(), text);
    }

    #[test]
    fn a_lost_key_is_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data: dir.path().into(), ..Config::default() };
        let layout = Layout(dir.path());
        signing_key(&layout, &mut rand::rng()).unwrap();
        drop(open(&config).unwrap());
        fs::remove_file(layout.signing_key()).unwrap();
        assert!(matches!(signing_key(&layout, &mut rand::rng()), Err(Error::NoKey(_))));
        assert!(generate_signing_key(&layout, &mut rand::rng()).is_ok());
        fs::write(layout.signing_key(), "ed25519 a_1 nonsense").unwrap();
        assert!(matches!(signing_key(&layout, &mut rand::rng()), Err(Error::Key(..))));
    }

    #[test]
    fn a_folder_keeps_the_name_that_it_was_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let named = |name: Option<&str>| Config {
            data: dir.path().into(),
            server_name: name.map(|name| name.try_into().unwrap()),
            ..Config::default()
        };
        drop(open(&named(Some("example.org"))).unwrap());
        assert_eq!(open(&named(None)).unwrap().name, "example.org");
        assert!(matches!(open(&named(Some("other.org"))), Err(Error::Store(store::Error::OtherServer { .. }))));
    }
}
