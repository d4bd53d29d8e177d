//! `cargo xtask demo`: everything between a fresh clone and a running stream. Never interprets the demo's arguments.

use crate::{sh, system, web, workspace};
use anyhow::{Context, Result};
use std::process::Command;

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `caudal demo`, e.g. `--peers 12`, or `--headless --duration 20s`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Builds and becomes `caudal demo`: on success this does not return, so that Ctrl-C and exit codes are the demo's own.
pub(crate) fn run(args: &Args) -> Result<bool> {
    use std::os::unix::process::CommandExt;
    system::ensure(system::TO_BUILD)?;
    web::build_if_possible()?;
    let caudal = workspace::build("release")?;
    let mut demo = Command::new(&caudal);
    demo.arg("demo").args(&args.args);
    sh::say(&sh::shown(&demo));
    let error = demo.exec();
    Err(error).with_context(|| format!("cannot start {}", caudal.display()))
}
