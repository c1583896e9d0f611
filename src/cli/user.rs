//! `hearth user …`

use admin::{Secret, users};
use clap::{Args, Subcommand};

use super::{Place, Result, Switch, operator::Operator, password::Password, say, time};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a user.
    Create {
        /// The part of the user id before the colon.
        name: String,
        /// The user may administrate the server.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        common: Common,
    },
    /// List all users.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Give a user another password and end their sessions.
    ResetPassword {
        /// The user id, or its part before the colon.
        user: String,
        /// The user stays logged in everywhere.
        #[arg(long)]
        keep_sessions: bool,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        common: Common,
    },
    /// Let a user administrate the server, or no longer.
    Admin {
        /// The user id, or its part before the colon.
        user: String,
        /// Whether the user may.
        #[arg(default_value = "on")]
        admin: Switch,
        #[command(flatten)]
        common: Common,
    },
    /// Deactivate a user for good: no login, no sessions, no rooms, and nobody gets their name.
    Deactivate {
        /// The user id, or its part before the colon.
        user: String,
        /// Their profile goes too.
        #[arg(long)]
        erase: bool,
        #[command(flatten)]
        common: Common,
    },
}

/// What all commands about users have.
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
        Command::Create { name, admin, password, common } => {
            let mut operator = Operator::find(&common.place)?;
            let made = operator.ask(users::Create { username: name, password: password.read()?, admin })?;
            common.say_password(&made, "was made")
        }
        Command::List { common } => list(&common),
        Command::ResetPassword { user, keep_sessions, password, common } => {
            let mut operator = Operator::find(&common.place)?;
            let reset = operator.ask(users::ResetPassword { user, password: password.read()?, keep_sessions })?;
            common.say_password(&reset, "has another password")
        }
        Command::Admin { user, admin, common } => {
            let admin = admin == Switch::On;
            let changed = Operator::find(&common.place)?.ask(users::SetAdmin { user, admin })?;
            common.say_changed(&changed, if admin { "may administrate the server" } else { "may not administrate the server" })
        }
        Command::Deactivate { user, erase, common } => {
            let changed = Operator::find(&common.place)?.ask(users::Deactivate { user, erase })?;
            common.say_changed(&changed, "is deactivated")
        }
    }
}

fn list(common: &Common) -> Result<()> {
    let mut operator = Operator::find(&common.place)?;
    let mut after = None;
    loop {
        let users::Page { users, more } = operator.ask(users::List { after })?;
        for user in &users {
            say(&if common.json { serde_json::to_string(user)? } else { line(user) })?;
        }
        after = users.last().map(|user| user.user_id.clone());
        if !more || after.is_none() {
            return Ok(());
        }
    }
}

/// A user in words: who, since when, and what is special.
fn line(user: &users::User) -> String {
    let users::User { user_id, created_ms, admin, deactivated, locked, suspended, guest, appservice } = user;
    let special = [
        (admin, "admin"),
        (deactivated, "deactivated"),
        (locked, "locked"),
        (suspended, "suspended"),
        (guest, "guest"),
        (appservice, "appservice"),
    ];
    let special = special.into_iter().filter(|(is, _)| **is).map(|(_, word)| format!("  {word}"));
    format!("{user_id}  {}{}", time::utc(*created_ms), special.collect::<String>())
}

impl Common {
    fn say_password(&self, user: &users::WithPassword, what: &str) -> Result<()> {
        if self.json {
            return say(&serde_json::to_string(user)?);
        }
        say(&format!("{} {what}.", user.user_id))?;
        match &user.password {
            Some(Secret(password)) => say(&format!("Password: {password}")),
            None => Ok(()),
        }
    }

    fn say_changed(&self, changed: &users::Changed, what: &str) -> Result<()> {
        if self.json {
            return say(&serde_json::to_string(changed)?);
        }
        say(&format!("{} {what}.", changed.user_id))
    }
}
