//! `caudal sim`: a swarm of any size in virtual time; all of it is `caudal_sim`'s.

use caudal_sim::args::SimArgs;
use caudal_sim::report::Summary;
use caudal_sim::{Report, SimError};

use crate::run::{COMMIT, Context, Failure, print_json, say};

/// Runs the seeds that were asked for and prints their reports.
pub(crate) fn run(args: &SimArgs, context: &Context) -> Result<(), Failure> {
    let mut printed = Ok(());
    let print = |report: &Report| {
        if !args.json {
            say!("{report}\n");
        } else if printed.is_ok() {
            printed = print_json(report);
        }
    };
    let reports = match args.run(&context.typed, COMMIT, print) {
        Ok(reports) => reports,
        Err(error @ SimError::Plot(..)) => return Err(error.into()),
        Err(error) => {
            use clap::CommandFactory as _;
            let mut whole = crate::args::Args::command();
            whole.build();
            let mut own = whole.find_subcommand("sim").cloned().unwrap_or(whole);
            own.error(clap::error::ErrorKind::ValueValidation, error).exit();
        }
    };
    printed?;
    if reports.len() > 1 && !args.json {
        say!("{}", Summary(&reports));
    }
    if reports.iter().all(|report| report.ok) { Ok(()) } else { Err(Failure::NotOk) }
}
