//! The command line of Hearth.

use std::process::ExitCode;

/// The system's allocator keeps what a burst of password hashes took; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hearth::cli::main()
}
