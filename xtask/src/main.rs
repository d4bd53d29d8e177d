//! Every developer command of Caudal: `cargo xtask demo | test | check | web | bench`.
//!
//! | module | owns |
//! |---|---|
//! | [`sh`] | running commands with progress in plain words |
//! | [`system`] | what a job needs from the system, and installing it where that is allowed |
//! | [`workspace`] | where the workspace is, and what `cargo metadata` says about it |
//! | [`demo`], [`mod@test`], [`check`], [`web`], [`mod@bench`] | one command each |
//!
//! Nothing here is part of the product: it builds, runs and measures the `caudal` binary from the outside.
//!
//! Exit codes: 0 fine, 1 a test, a check or a target failed, 2 bad usage, 3 the command could not do its work.

mod bench;
mod check;
mod demo;
mod sh;
mod system;
mod test;
mod web;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Build, run, test and measure Caudal.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build `caudal` in release and run `caudal demo`: a tracker, a source with the test card, and viewers.
    Demo(demo::Args),
    /// Run the tests: documentation examples first, then everything else.
    Test(test::Args),
    /// Check what no test sees: format, lints, documentation, `proto` without `std`, licences, file lengths.
    Check(check::Args),
    /// Build the page in `web/`, to be embedded in the next build of the binary (needs Node.js).
    Web,
    /// Measure, with real processes.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Task::Demo(args) => demo::run(args),
        Task::Test(args) => test::run(args),
        Task::Check(args) => check::run(args),
        Task::Web => web::run(),
        Task::Bench(bench) => bench::run(bench),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
