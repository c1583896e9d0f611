//! `hearth registration-token …`

use admin::registration_tokens::{self as tokens, Token};
use clap::{Args, Subcommand};

use super::{Place, Result, operator::Operator, say, time};

/// An hour, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a token.
    Create {
        /// The token; without it the server draws one.
        token: Option<String>,
        /// How many accounts it may make [default: any number].
        #[arg(long)]
        uses: Option<u32>,
        /// For how many hours it holds [default: for ever].
        #[arg(long, value_name = "HOURS")]
        hours: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// List all tokens, those that no longer hold too.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Delete a token. Who registered with it stays.
    Delete {
        /// The token.
        token: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What all commands about tokens have.
#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    place: Place,
    /// Answer in JSON, for scripts.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Create { token, uses, hours, common } => {
            let expires_in_ms = hours.map(|hours| hours.saturating_mul(HOUR_MS));
            let made = Operator::find(&common.place)?.ask(tokens::Create { token, uses_allowed: uses, expires_in_ms })?;
            common.say(&made)
        }
        Command::List { common } => list(&common),
        Command::Delete { token, common } => Operator::find(&common.place)?.ask(tokens::Delete { token }),
    }
}

fn list(common: &Common) -> Result<()> {
    let mut operator = Operator::find(&common.place)?;
    let mut after = None;
    loop {
        let tokens::Page { tokens, more } = operator.ask(tokens::List { after })?;
        tokens.iter().try_for_each(|token| common.say(token))?;
        after = tokens.last().map(|token| token.token.clone());
        if !more || after.is_none() {
            return Ok(());
        }
    }
}

impl Common {
    fn say(&self, token: &Token) -> Result<()> {
        if self.json {
            return say(&serde_json::to_string(token)?);
        }
        let Token { token, uses_allowed, completed, expires_ms } = token;
        let of = uses_allowed.map(|uses| format!(" of {uses}")).unwrap_or_default();
        let until = expires_ms.map(|ms| format!("  until {}", time::utc(ms))).unwrap_or_default();
        say(&format!("{token}  used {completed}{of}{until}"))
    }
}
