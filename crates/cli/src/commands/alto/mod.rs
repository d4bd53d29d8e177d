//! `caudal alto`: serve maps, ask servers, make maps.

mod args;
mod build;
mod query;
mod serve;
mod show;

pub(crate) use args::AltoArgs;
use args::AltoCommand;

use crate::run::{self, Failure};

pub(crate) fn run(args: AltoArgs) -> Result<(), Failure> {
    match args.command {
        AltoCommand::Serve(args) => run::on_threads(serve::run(args)),
        AltoCommand::Query(args) => run::on_one_thread(query::run(args)),
        AltoCommand::Build(args) => build::run(&args),
    }
}
