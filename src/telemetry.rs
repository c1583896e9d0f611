//! What the process says of itself: text for people, JSON for machines, severities for the journal of systemd.

use std::{fmt, io::IsTerminal as _, os::unix::fs::MetadataExt as _};

use serde::Deserialize;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Writer},
    },
    prelude::*,
    registry::LookupSpan,
};

/// What is logged and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The form of a line.
    pub format: Form,
    /// What is logged, by level and part of Hearth: `info`, or `info,hearth_http=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Form::default(), filter: "info".into() }
    }
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// For people. In the journal of systemd: with its severities, and without the time, which the journal knows.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The filter is not one.
#[derive(Debug, thiserror::Error)]
#[error("log.filter: {0}")]
pub struct BadFilter(tracing_subscriber::filter::ParseError);

/// Checks a configuration without using it.
///
/// # Errors
/// [`BadFilter`].
pub fn check(config: &Config) -> Result<Targets, BadFilter> {
    config.filter.parse().map_err(BadFilter)
}

/// Sends what the whole process logs to standard error from now on. Called once, by the command line: libraries and tests of Hearth
/// log to whatever their process has.
///
/// # Errors
/// [`BadFilter`].
pub fn start(config: &Config) -> Result<(), BadFilter> {
    let filtered = tracing_subscriber::registry().with(check(config)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match config.format {
        Form::Json => filtered.with(lines.json().flatten_event(true)).init(),
        Form::Text if is_journal() => {
            let journal = Journal(format::format().without_time());
            filtered.with(lines.with_ansi(false).event_format(journal)).init();
        }
        Form::Text => {
            let is_colourful = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            filtered.with(lines.with_ansi(is_colourful)).init();
        }
    }
    Ok(())
}

/// Whether standard error is the journal's: systemd says which file that is.
fn is_journal() -> bool {
    let said = std::env::var("JOURNAL_STREAM").ok();
    let file = std::fs::metadata("/proc/self/fd/2").ok().map(|file| format!("{}:{}", file.dev(), file.ino()));
    said.is_some() && said == file
}

/// Lines that begin with their severity as `sd-daemon(3)` has it.
struct Journal(format::Format<format::Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let severity = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{severity}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_gets_severities_and_no_colours() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(Journal(format::format().without_time()))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(room = 1, "slow");
            tracing::error!("broken");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let mut text = text.lines();
        assert!(text.next().unwrap().starts_with("<4> WARN"));
        assert!(text.next().unwrap().starts_with("<3>ERROR"));
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        assert!(check(&Config { filter: "info,hearth_http=debug".into(), ..Config::default() }).is_ok());
        assert!(check(&Config { filter: "room=loudly".into(), ..Config::default() }).is_err());
    }
}
