//! The configuration: flags over environment over file over defaults.
//!
//! Each layer owns a plain struct; this file parses them all. An unknown key is refused. A size or time may be written with its unit,
//! and then its key leaves out what it is counted in: `grace = "10s"` is `grace_ms = 10000`.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    error::Kind,
    providers::{Env, Format, Toml},
    value::{Dict, Map, Value},
};
use ruma::OwnedServerName;
use serde::Deserialize;

use crate::telemetry;

/// What the names of all environment variables begin with. `__` leads into a section: `HEARTH_HTTP__GRACE`.
const ENV_PREFIX: &str = "HEARTH_";
/// The keys that an operator is told of where nobody chose them.
const MAIN_KEYS: [&str; 5] = ["server_name", "data", "memory_bytes", "registration.mode", "http.listeners"];
/// The most keys that are written with units.
const UNITS_MAX: usize = 1000;

/// All that an operator chooses.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The server's name in identifiers: the part of `@alice:example.org` after the colon. It can never be changed. Where it is
    /// absent, the name that the data folder has, else `localhost`.
    pub server_name: Option<OwnedServerName>,
    /// The folder of all that is stored.
    pub data: PathBuf,
    /// The memory that the database and the caches of all layers share, in bytes.
    pub memory_bytes: usize,
    /// The registrations of bridges and bots: files of YAML, as application services come with.
    pub appservices: Vec<PathBuf>,
    /// Whether users see who of those they share a room with is online.
    pub presence: bool,
    /// What is logged and how.
    pub log: telemetry::Config,
    /// Listeners, limits, discovery, calls.
    pub http: http_layer::Config,
    /// How accounts are made.
    pub registration: users::registration::Config,
    /// How long tokens hold.
    pub sessions: users::sessions::Config,
    /// How rooms are made.
    pub rooms: rooms::Config,
    /// Uploads and thumbnails.
    pub media: media::Config,
    /// Other servers.
    pub federation: federation::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_name: None,
            data: "./data".into(),
            memory_bytes: 128 << 20,
            appservices: Vec::new(),
            presence: true,
            log: telemetry::Config::default(),
            http: http_layer::Config::default(),
            registration: users::registration::Config::default(),
            sessions: users::sessions::Config::default(),
            rooms: rooms::Config::default(),
            media: media::Config::default(),
            federation: federation::Config::default(),
        }
    }
}

/// A configuration, and which of the main keys nobody chose.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Main keys that have their defaults.
    pub defaults: Vec<&'static str>,
    /// Names of environment variables that look like ours and mean nothing.
    pub ignored: Vec<String>,
}

/// What a flag sets: a key such as `http.listeners`, and its value.
pub type Flag = (&'static str, Value);

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or cannot be read.
    #[error("the configuration file {0} cannot be read: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// A key is not known.
    #[error("{place} is not a key of the configuration{source_name}: it may have {}", with_units(allowed))]
    UnknownKey {
        /// The key with its sections.
        place: String,
        /// Where it stands.
        source_name: String,
        /// The keys that there may be in its place.
        allowed: Vec<String>,
    },
    /// A value cannot be what it is.
    #[error("{0}")]
    Invalid(Box<figment::Error>),
}

/// Reads the file, where there is one, the environment, and the flags.
///
/// # Errors
/// [`Error`]: the first thing that is wrong.
pub fn load(file: Option<&Path>, flags: &[Flag]) -> Result<Loaded, Error> {
    let text = match file {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| Error::Unreadable(path.into(), error))?),
    };
    let (env, ignored) = environment();
    let file = text.map(|text| (text, file.map(|path| path.display().to_string()).unwrap_or_default()));
    let (figment, config) = extract(|units| {
        let mut figment = Figment::new();
        if let Some((text, name)) = &file {
            figment = figment.merge(Source { inner: Toml::string(text), name: Some(name), units });
        }
        figment = figment.merge(Source { inner: env.clone(), name: None, units });
        flags.iter().fold(figment, |figment, (key, value)| figment.merge((*key, value.clone())))
    })?;
    let defaults = MAIN_KEYS.into_iter().filter(|key| figment.find_value(key).is_err()).collect();
    Ok(Loaded { config, defaults, ignored })
}

/// The configuration that a text holds by itself.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str) -> Result<Config, Error> {
    let (_, config) = extract(|units| Figment::new().merge(Source { inner: Toml::string(text), name: None, units }))?;
    Ok(config)
}

/// Our environment variables, and the names of those that mean nothing. Such are not refused, because others set
/// them too: Kubernetes gives every container a `HEARTH_PORT` where a service is called `hearth`.
fn environment() -> (Env, Vec<String>) {
    let known = known_sections();
    let section = |key: &str| key.split("__").next().unwrap_or_default().to_ascii_lowercase();
    let ours = move |key: &str| known.iter().any(|known| section(key) == *known || format!("{}_bytes", section(key)) == *known);
    // `HEARTH_CONFIG` names the file.
    let ignored = std::env::vars_os()
        .filter_map(|(name, _)| name.to_str()?.strip_prefix(ENV_PREFIX).map(str::to_owned))
        .filter(|key| key != "CONFIG" && !ours(key))
        .map(|key| format!("{ENV_PREFIX}{key}"))
        .collect();
    (Env::prefixed(ENV_PREFIX).filter(move |key| ours(key.as_str())).split("__"), ignored)
}

/// The keys outside of all sections.
fn known_sections() -> &'static [&'static str] {
    match Figment::from(("?", "")).extract::<Config>() {
        Err(figment::Error { kind: Kind::UnknownField(_, known), .. }) => known,
        _ => &[],
    }
}

/// Extracts the configuration. A key that is unknown, but known with a unit, is one whose value has the unit.
fn extract(figment: impl Fn(&[Unit]) -> Figment) -> Result<(Figment, Config), Error> {
    let mut units = Vec::new();
    loop {
        let figment = figment(&units);
        let error = match figment.extract::<Config>() {
            Ok(config) => return Ok((figment, config)),
            Err(error) => error,
        };
        let Kind::UnknownField(field, expected) = &error.kind else { return Err(Error::Invalid(Box::new(error))) };
        let suffix = SUFFIXES.iter().find(|suffix| expected.contains(&format!("{field}{}", suffix.name).as_str()));
        let unit = suffix.map(|suffix| Unit { section: section(&error.path, field), key: field.clone(), suffix });
        match unit.filter(|unit| !units.contains(unit) && units.len() < UNITS_MAX) {
            Some(unit) => units.push(unit),
            None => return Err(unknown_key(&error, field, expected)),
        }
    }
}

/// The section of an unknown key, whether or not figment counts the key itself to the path.
fn section(path: &[String], field: &str) -> Vec<String> {
    path.strip_suffix(&[field.to_owned()]).unwrap_or(path).to_vec()
}

fn unknown_key(error: &figment::Error, field: &str, expected: &[&str]) -> Error {
    let mut place = section(&error.path, field);
    place.push(field.to_owned());
    let source_name = error.metadata.as_ref().map(|metadata| format!(" in {}", metadata.name)).unwrap_or_default();
    let allowed = expected.iter().map(|key| (*key).to_owned()).collect();
    Error::UnknownKey { place: place.join("."), source_name, allowed }
}

/// Keys as they are best written: with an example of the unit where there is one.
fn with_units(keys: &[String]) -> String {
    let with_unit = |key: &String| {
        let known = SUFFIXES.iter().find_map(|suffix| Some((key.strip_suffix(suffix.name)?, suffix)));
        known.map_or_else(|| key.clone(), |(key, suffix)| format!("{key} (as {})", suffix.example))
    };
    keys.iter().map(with_unit).collect::<Vec<_>>().join(", ")
}

/// What a key is counted in, and the units that its value may be written in.
#[derive(Debug, PartialEq)]
struct Suffix {
    name: &'static str,
    example: &'static str,
    units: &'static [(&'static str, u64)],
}

const SUFFIXES: [Suffix; 3] = [
    Suffix {
        name: "_bytes",
        example: "\"64MiB\"",
        units: &[
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
        ],
    },
    Suffix {
        name: "_ms",
        example: "\"10s\"",
        units: &[("ms", 1), ("s", 1_000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
    },
    Suffix { name: "_s", example: "\"10s\"", units: &[("s", 1), ("min", 60), ("m", 60), ("h", 3_600), ("d", 86_400)] },
];

impl Suffix {
    /// The number of what the key is counted in.
    fn number(&self, text: &str) -> Option<u64> {
        let text = text.trim();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (_, times) = self.units.iter().find(|(name, _)| *name == unit.trim())?;
        number.parse::<u64>().ok()?.checked_mul(*times)
    }
}

/// A key whose value has its unit.
#[derive(Debug, PartialEq)]
struct Unit {
    section: Vec<String>,
    key: String,
    suffix: &'static Suffix,
}

impl Unit {
    /// Puts the number in the place of the text.
    fn apply(&self, dict: &mut Dict) {
        let mut section = dict;
        for name in &self.section {
            match section.get_mut(name) {
                Some(Value::Dict(_, inner)) => section = inner,
                _ => return,
            }
        }
        let Some(number) = section.get(&self.key).and_then(Value::as_str).and_then(|text| self.suffix.number(text)) else {
            return;
        };
        let name = format!("{}{}", self.key, self.suffix.name);
        // Written twice it stays unknown, and is refused.
        if !section.contains_key(&name) {
            section.remove(&self.key);
            section.insert(name, Value::from(number));
        }
    }
}

/// A source whose values with units become numbers.
struct Source<'a, P> {
    inner: P,
    name: Option<&'a str>,
    units: &'a [Unit],
}

impl<P: Provider> Provider for Source<'_, P> {
    fn metadata(&self) -> Metadata {
        match self.name {
            Some(name) => Metadata::named(format!("the file {name}")),
            None => self.inner.metadata(),
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut data = self.inner.data()?;
        for dict in data.values_mut() {
            self.units.iter().for_each(|unit| unit.apply(dict));
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn without_a_word_all_is_default() {
        let config = parse("").unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn sizes_and_times_take_units_or_numbers() {
        let text = "memory = '64MiB'\nhttp.grace = '3 s'\nhttp.body_timeout_ms = 5\nmedia.max_upload = '2GB'\nsessions.access_token = '5m'";
        let config = parse(text).unwrap();
        assert_eq!((config.memory_bytes, config.http.grace_ms, config.http.body_timeout_ms), (64 << 20, 3_000, 5));
        assert_eq!((config.media.max_upload_bytes, config.sessions.access_token_ms), (2_000_000_000, 300_000));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert!(said("memry = '64MiB'").starts_with("memry is not a key of the configuration"), "{}", said("memry = 1"));
        let grease = said("[http]\ngrease = 1");
        assert!(grease.starts_with("http.grease is not") && grease.contains("grace (as \"10s\")"), "{grease}");
        assert!(said("memory = '64 apples'").starts_with("memory is not a key"), "{}", said("memory = '64 apples'"));
        assert!(said("memory = '1MiB'\nmemory_bytes = 1").starts_with("memory is not a key"));
        assert!(said("memory_bytes = 'much'").contains("memory_bytes"), "{}", said("memory_bytes = 'much'"));
        assert!(said("memory = '99999999999999TiB'").starts_with("memory is not"));
        assert!(said("server_name = 'not a name'").contains("server_name"), "{}", said("server_name = 'not a name'"));
    }

    /// T20: no secret of the configuration is shown, nor by what is said of mistakes in it.
    #[test]
    fn t20_secrets_are_not_shown() {
        let secrets = "[registration]\nshared_secret = 'hunter-one'\n[http.turn]\nuris = ['turn:x']\nsecret = 'hunter-two'\npassword = 'hunter-three'";
        let shown = format!("{:?} {:#?}", parse(secrets).unwrap(), parse(secrets).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
        for wrong in ["[registration]\nmode = 'nonsense'", "[http.turn]\nttl = 'nonsense'", "[registration]\nnonsense = 1"] {
            let (section, key) = wrong.split_once('\n').unwrap();
            let said = parse(&secrets.replacen(section, &format!("{section}\n{key}"), 1)).unwrap_err();
            assert!(!format!("{said} {said:?}").contains("hunter"), "{said:?}");
        }
        for wrong in
            ["[registration]\nshared_secret = ['hunter-one']", "[http.turn]\nuris = []\nsecret = { hunter = 'hunter-two' }"]
        {
            let said = parse(wrong).unwrap_err().to_string();
            assert!(!said.contains("hunter-"), "{said}");
        }
    }

    #[test]
    fn flags_come_before_the_file_and_defaults_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hearth.toml");
        std::fs::write(&file, "server_name = 'file.test'\nmemory = '1GiB'").unwrap();
        let loaded = load(Some(&file), &[("server_name", "flag.test".into())]).unwrap();
        assert_eq!(loaded.config.server_name.unwrap(), "flag.test");
        assert_eq!(loaded.config.memory_bytes, 1 << 30);
        assert_eq!(loaded.defaults, ["data", "registration.mode", "http.listeners"]);
        assert!(matches!(load(Some(&dir.path().join("absent")), &[]), Err(Error::Unreadable(..))));
    }
}
