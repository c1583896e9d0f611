//! A load generator for Matrix homeservers. It knows nothing of the server but its client-server API and its process, checks that what
//! is acknowledged is delivered, and prints each cost at a size N and at 10 N. README.md says what is measured.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::connection::Address;
use crate::failure::Failure;
use crate::process::Server;
use crate::report::Report;
use crate::scenarios::{Bench, Scenario};
use crate::summary::Run;

mod audit;
mod connection;
mod delivery;
mod failure;
mod follower;
mod load;
mod matrix;
mod process;
mod report;
mod scenarios;
mod summary;

/// Each scenario runs at this multiple of its size as well.
const GROWTH: usize = 10;
/// Exit code when the generator could not do what it was asked to.
const EXIT_TROUBLE: u8 = 2;

/// Loads a Matrix homeserver and prints what it costs.
#[derive(Debug, Parser)]
#[command(name = "hearth-bench", version)]
enum Command {
    /// Runs scenarios. Exits with 1 if an acknowledged event was not delivered exactly once, or a scenario failed.
    Run(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Where the server listens, without TLS.
    #[arg(long, default_value = "http://127.0.0.1:8008")]
    base: String,
    /// Process id of the running server, for its CPU time and memory.
    #[arg(long, conflicts_with = "server_command")]
    pid: Option<u32>,
    /// Start the server by this simple command, and end it by SIGTERM. cold-start and memory need it. The server's output goes
    /// nowhere unless the command redirects it.
    #[arg(long)]
    server_command: Option<String>,
    /// Names of scenarios separated by commas, or all.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    scenario: Vec<String>,
    /// Multiplies all sizes.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// The server's data directory, for the bytes on disk that an event takes.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Register users by Synapse's registration_shared_secret instead of open registration.
    #[arg(long)]
    shared_secret: Option<String>,
    /// Print one JSON object per scenario.
    #[arg(long)]
    json: bool,
}

impl Options {
    /// The scenarios to run. Those that must start the server are left out of `all` if they cannot.
    fn scenarios(&self) -> Result<Vec<Scenario>, Failure> {
        let may_restart = self.server_command.is_some();
        let mut chosen = Vec::new();
        for name in &self.scenario {
            if name == "all" {
                chosen.extend(Scenario::value_variants().iter().filter(|scenario| may_restart || !scenario.restarts_server()));
                continue;
            }
            let scenario = Scenario::from_str(name, false).map_err(|_| {
                let names: Vec<_> = Scenario::value_variants().iter().map(|scenario| scenario.name()).collect();
                Failure::Usage(format!("there is no scenario {name}; there are all, {}", names.join(", ")))
            })?;
            if scenario.restarts_server() && !may_restart {
                return Err(Failure::Usage(format!("{name} stops and starts the server, so it needs --server-command")));
            }
            chosen.push(scenario);
        }
        Ok(chosen)
    }

    /// A scenario's size N.
    fn size(&self, scenario: Scenario) -> usize {
        ((scenario.size().1 as f64 * self.scale).round() as usize).max(1)
    }

    fn bench(&self) -> Result<Bench, Failure> {
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(Failure::Usage("--scale must be a number above 0".to_owned()));
        }
        let server = match &self.server_command {
            Some(command) => Server::ours(command.clone()),
            None => Server::external(self.pid)?,
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = format!("bench-{:x}", since_epoch.as_millis());
        Ok(Bench::new(Address::parse(&self.base)?, server, self.data.clone(), self.shared_secret.clone(), prefix))
    }
}

/// One thread: the server needs the other cores more, and nothing here computes for long.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Command::Run(options) = Command::parse();
    match run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            // Nothing is left to be done if stderr is closed.
            let _ = writeln!(io::stderr(), "hearth-bench: {failure}");
            ExitCode::from(EXIT_TROUBLE)
        }
    }
}

/// Runs the chosen scenarios and returns whether all were clean. A server that was started is stopped whatever happens.
async fn run(options: &Options) -> Result<bool, Failure> {
    let scenarios = options.scenarios()?;
    let mut bench = options.bench()?;
    bench.start().await?;
    let result = tokio::select! {
        result = run_scenarios(options, &scenarios, &mut bench) => result,
        signal = signalled() => Err(signal),
    };
    bench.quiet();
    bench.server.stop().await?;
    result
}

/// Ends when the generator is asked to end.
async fn signalled() -> Failure {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let name = tokio::select! {
        _ = terminate.recv() => "terminated",
        _ = tokio::signal::ctrl_c() => "interrupted",
    };
    Failure::Usage(name.to_owned())
}

async fn run_scenarios(options: &Options, scenarios: &[Scenario], bench: &mut Bench) -> Result<bool, Failure> {
    let mut clean = true;
    for &scenario in scenarios {
        let report = Report { scenario, runs: run_sizes(scenario, options.size(scenario), bench).await };
        clean &= report.is_clean();
        bench.quiet();
        let mut out = io::stdout().lock();
        if options.json {
            writeln!(out, "{}", report.json())?;
        } else {
            writeln!(out, "{}", report.table())?;
        }
    }
    Ok(clean)
}

async fn run_sizes(scenario: Scenario, size: usize, bench: &mut Bench) -> Result<[Run; 2], Failure> {
    bench.announce(scenario, size);
    let small = scenario.run(bench, size).await?;
    bench.announce(scenario, size * GROWTH);
    let large = scenario.run(bench, size * GROWTH).await?;
    Ok([small, large])
}
