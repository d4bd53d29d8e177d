//! `cargo xtask check`: what no test sees. Runs every check even when one fails, and ends with the list of those that did.

mod fences;
mod lengths;
mod licences;
mod no_std;
mod pages;
mod wasm;

pub(crate) use lengths::rust_files;

use crate::{sh, system, web, workspace};
use anyhow::Result;
use std::process::Command;

/// Arguments of `cargo xtask check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also build `caudal-proto` and `caudal-media` for wasm32, as a browser would run them.
    #[arg(long)]
    wasm: bool,
}

/// Runs all checks; true when all passed.
pub(crate) fn run(args: &Args) -> Result<bool> {
    system::ensure(system::TO_BUILD)?;
    let mut failed: Vec<&str> = Vec::new();
    let mut note = |name: &'static str, ok: bool| {
        if !ok {
            failed.push(name);
        }
    };
    note("format (fix: cargo fmt --all)", cargo_step("checking the format", &["fmt", "--all", "--check"])?);
    note("who may depend on whom", fences::run()?);
    note("file lengths", lengths::run()?);
    note("pages", pages::run()?);
    note("the page's types", web::check()?);
    note("licences and bans", licences::run()?);
    note("proto without std", no_std::run()?);
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    note("clippy", cargo_step("clippy on everything (minutes the first time)", &clippy)?);
    note("documentation", documentation()?);
    if args.wasm {
        note("wasm32", wasm::run()?);
    }
    if failed.is_empty() {
        sh::say("all checks passed");
    } else {
        sh::say(&format!("checks that failed: {}", failed.join("; ")));
    }
    Ok(failed.is_empty())
}

fn cargo(args: &[&str]) -> Command {
    let mut command = sh::cargo();
    command.current_dir(workspace::root()).args(args);
    command
}

fn cargo_step(what: &str, args: &[&str]) -> Result<bool> {
    sh::step(what, &mut cargo(args))
}

fn documentation() -> Result<bool> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    sh::step("building the documentation, warnings are errors", doc.env("RUSTDOCFLAGS", "-D warnings"))
}
