//! The command line: what it understands, and which file does it.

mod check;
mod check_config;
mod generate_signing_key;
mod notify;
mod operator;
mod password;
mod registration_token;
mod room;
mod serve;
mod socket;
mod time;
mod user;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use figment::value::{Dict, Value};
use ruma::OwnedServerName;

use crate::{
    appservices,
    config::{self, Flag, Loaded},
    folder, telemetry,
};

/// A Matrix homeserver: one binary, its database inside.
#[derive(Parser)]
#[command(name = "hearth", version, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until it is asked to stop. It needs no configuration.
    Serve {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        serve: Serve,
    },
    /// Make, list and change users, whether the server is running or not.
    #[command(subcommand)]
    User(user::Command),
    /// Make, list and delete the tokens that let people register, whether the server is running or not.
    #[command(subcommand)]
    RegistrationToken(registration_token::Command),
    /// Look into a room, or remove one, whether the server is running or not.
    #[command(subcommand)]
    Room(room::Command),
    /// Check that what is stored holds together, whether the server is running or not.
    Check(check::Options),
    /// Check the configuration without starting anything.
    CheckConfig {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        serve: Serve,
    },
    /// Write a new signing key into the data folder, for who lost the old one.
    GenerateSigningKey {
        #[command(flatten)]
        place: Place,
    },
    /// Tell the version.
    Version,
}

/// Which server a command is about.
#[derive(Args)]
struct Place {
    /// The configuration file.
    #[arg(long, short, env = "HEARTH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of all that is stored [default: ./data].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The server's name in user ids, which can never be changed [default: that of the data folder, else localhost].
    #[arg(long, value_name = "NAME")]
    server_name: Option<OwnedServerName>,
}

/// What `serve` lets one choose without a file.
#[derive(Args)]
struct Serve {
    /// Where to listen [default: 127.0.0.1:8008].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Who may make an account: anyone, who has a registration token, or nobody [default: closed].
    #[arg(long)]
    registration: Option<Registration>,
    /// Whether clients are slowed down who ask too much [default: on].
    #[arg(long)]
    rate_limits: Option<Switch>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Registration {
    Open,
    Token,
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Place {
    fn flags(&self) -> Vec<Flag> {
        let data = self.data.as_ref().map(|data| ("data", data.display().to_string().into()));
        let name = self.server_name.as_ref().map(|name| ("server_name", name.as_str().into()));
        data.into_iter().chain(name).collect()
    }

    /// The configuration with these flags and more.
    fn load(&self, more: Vec<Flag>) -> Result<Loaded> {
        Ok(config::load(self.config.as_deref(), &[self.flags(), more].concat())?)
    }
}

impl Serve {
    fn flags(&self) -> Vec<Flag> {
        let listen = self.listen.map(|address| {
            let listener = Value::from(Dict::from([("address".to_owned(), Value::from(address.to_string()))]));
            ("http.listeners", Value::from(vec![listener]))
        });
        let registration = self.registration.map(|registration| {
            let word = match registration {
                Registration::Open => "open",
                Registration::Token => "token",
                Registration::Closed => "closed",
            };
            ("registration.mode", Value::from(word))
        });
        let limits = self.rate_limits.map(|switch| ("http.limits.enabled", Value::from(switch == Switch::On)));
        listen.into_iter().chain(registration).chain(limits).collect()
    }
}

/// Why a command failed, in words for its user.
#[derive(Debug)]
struct Failure(String);

type Result<T> = std::result::Result<T, Failure>;

macro_rules! failures {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })+
    };
}
failures!(appservices::Error, config::Error, folder::Error, telemetry::BadFilter, admin::Error, serde_json::Error, io::Error);

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            // Who cannot even be told has nobody to complain to.
            let _ = writeln!(io::stderr(), "hearth: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve { place, serve } => serve::run(&place, &serve),
        Command::User(command) => user::run(command),
        Command::RegistrationToken(command) => registration_token::run(command),
        Command::Room(command) => room::run(command),
        Command::Check(options) => check::run(options),
        Command::CheckConfig { place, serve } => check_config::run(&place, &serve),
        Command::GenerateSigningKey { place } => generate_signing_key::run(&place),
        Command::Version => say(&format!("hearth {}", crate::VERSION)),
    }
}

/// A line of what the command was asked for.
fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
