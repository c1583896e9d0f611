//! Where a password of the command line comes from: a terminal, without echo; standard input, where asked to; else the server draws it.

use std::io::{self, IsTerminal as _, Read as _};

use admin::Secret;
use clap::Args;

use super::{Failure, Result};

/// The longest password that is read, in bytes. What a password may be is decided later.
const READ_MAX: u64 = 4096;

/// How to choose a password.
#[derive(Args)]
pub(super) struct Password {
    /// Read the password from the first line of standard input. Without this, a terminal is asked for one, and elsewhere the
    /// server draws one and tells it.
    #[arg(long)]
    password_stdin: bool,
}

impl Password {
    /// The password, or none where the server is to draw it.
    pub(super) fn read(&self) -> Result<Option<Secret>> {
        if self.password_stdin {
            return first_line(io::stdin()).map(Some);
        }
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let password = rpassword::prompt_password("Password (empty: the server draws one): ")?;
        if password.is_empty() {
            return Ok(None);
        }
        if rpassword::prompt_password("The same again: ")? != password {
            return Err(Failure("the two passwords differ".into()));
        }
        Ok(Some(Secret(password)))
    }
}

fn first_line(input: impl io::Read) -> Result<Secret> {
    let mut text = String::new();
    input.take(READ_MAX).read_to_string(&mut text)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret(line.to_owned())),
        _ => Err(Failure("standard input holds no password".into())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        assert!(first_line("correct horse\nbattery".as_bytes()).unwrap() == Secret("correct horse".into()));
        assert!(first_line("  spaces stay \r\n".as_bytes()).unwrap() == Secret("  spaces stay ".into()));
        assert!(first_line("\n".as_bytes()).is_err());
        assert!(first_line("".as_bytes()).is_err());
    }
}
