//! The registrations of application services: files that the configuration names, each of YAML.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use ruma::ServerName;
use users::appservices::{Appservices, Invalid, Registration};

/// The largest file, in bytes. Real ones have less than 2 KiB; a wrong path may name anything.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Why the registrations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not there or cannot be read.
    #[error("the registration {0} of `appservices` cannot be read: {1}. Its path is taken from where Hearth is started")]
    Unreadable(PathBuf, io::Error),
    /// A file is not a registration.
    #[error("the registration {0} is not as application services have it: {1}")]
    Malformed(PathBuf, String),
    /// What they say cannot be.
    #[error("a registration of `appservices` cannot be used: {0}")]
    Invalid(#[from] Invalid),
}

/// Reads and checks all registrations.
///
/// # Errors
/// [`Error`]: the first thing that is wrong.
pub fn load(files: &[PathBuf], server: &ServerName) -> Result<Appservices, Error> {
    let registrations = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(Appservices::new(&registrations, server)?)
}

fn read(path: &Path) -> Result<Registration, Error> {
    let unreadable = |error| Error::Unreadable(path.to_owned(), error);
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text)).map_err(unreadable)?;
    serde_saphyr::from_str(&text).map_err(|error| Error::Malformed(path.to_owned(), error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ruma::server_name;

    use super::*;

    /// The example of the specification.
    const EXAMPLE: &str = r##"
id: "IRC Bridge"
url: "http://127.0.0.1:1234"
as_token: "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: "_irc_bot" # Will result in @_irc_bot:example.org
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
  aliases:
    - exclusive: false
      regex: "#_irc_bridge_.*"
  rooms: []
"##;

    fn said(text: &str) -> Result<Appservices, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("irc.yaml");
        std::fs::write(&file, text).unwrap();
        load(&[file], server_name!("example.org")).map_err(|error| error.to_string())
    }

    #[test]
    fn registrations_are_read_as_they_come() {
        let known = said(EXAMPLE).unwrap();
        let irc = known.by_token("30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46").unwrap();
        assert_eq!((irc.id.as_str(), irc.sender.as_str()), ("IRC Bridge", "@_irc_bot:example.org"));
        assert!(irc.rate_limited && irc.covers_user("@_irc_bridge_alice:example.org".try_into().unwrap()));
        let synapse = format!("{EXAMPLE}de.sorunome.msc2409.push_ephemeral: true\nrate_limited: false\n")
            .replace("\"http://127.0.0.1:1234\"", "null");
        assert!(said(&synapse).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_the_file() {
        let missing = said(&EXAMPLE.replace("hs_token", "hstoken")).unwrap_err();
        assert!(missing.contains("irc.yaml") && missing.contains("hs_token"), "{missing}");
        assert!(said("just words").unwrap_err().contains("irc.yaml"));
        assert!(said("a: [").unwrap_err().contains("irc.yaml"));
        assert!(said(&EXAMPLE.replace("@_irc_bridge_.*", "@(")).unwrap_err().contains("namespaces.users"));
        let absent = load(&["/nowhere/irc.yaml".into()], server_name!("example.org")).unwrap_err().to_string();
        assert!(absent.contains("/nowhere/irc.yaml") && absent.contains("cannot be read"), "{absent}");
    }
}
