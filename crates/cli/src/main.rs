//! The `caudal` command: what a person types, and what they read.
//!
//! Owns arguments, messages, exit codes and where state lives on disk. Everything that happens on a network is
//! `node`'s and `tracker`'s.

mod args;
mod commands;
mod consent;
mod desktop;
mod messages;
mod player;
mod run;
mod state;
mod tui;
mod units;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;

use args::{Args, Command};
use run::Failure;

fn main() -> ExitCode {
    let started = Instant::now();
    let args = Args::parse();
    // Colours are for a terminal, not for the pane of a view.
    let is_viewed = matches!(&args.command, Command::Watch(watch) if watch.tui);
    let is_clicked = matches!(&args.command, Command::Watch(watch) if watch.foreign_link);
    init_log(args.verbose, std::io::stderr().is_terminal() && !is_viewed);
    let context = run::Context { started, typed: run::shown(std::env::args().skip(1)) };
    let result = match args.command {
        Command::Tracker(args) => run::on_threads(commands::tracker::run(args)),
        Command::Publish(args) => run::on_one_thread(commands::publish::run(*args, context)),
        Command::Watch(args) => run::on_one_thread(commands::watch::run(args, context)),
        Command::Edge(args) => run::on_threads(commands::edge::run(args, context)),
        Command::Trace(args) => run::on_one_thread(commands::trace::run(args, context)),
        Command::Channels(args) => run::on_one_thread(commands::channels::run(args)),
        Command::Key(args) => commands::key::run(args),
        Command::Alto(args) => commands::alto::run(args),
        Command::Demo(args) => run::on_one_thread(commands::demo::run(args)),
        Command::Sim(args) => commands::sim::run(&args, &context),
        Command::RegisterLinks(args) => commands::register_links::run(&args),
    };
    // What was kept for a view that did not come to be.
    for line in messages::release() {
        eprintln!("{}", line.text);
    }
    let code = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::NotOk) => ExitCode::from(1),
        Err(Failure::Usage(error)) => {
            eprintln!("caudal: {}", explain(&error));
            ExitCode::from(2)
        }
        Err(Failure::CouldNot(error)) => {
            eprintln!("caudal: {}", explain(&error));
            ExitCode::from(3)
        }
    };
    if is_clicked {
        run::until_read();
    }
    code
}

/// The error and its causes, each said once: messages that name their cause hold its words already. Plain, because some
/// of the words are strangers'.
fn explain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    messages::plain(&text)
}

fn init_log(verbose: u8, colours: bool) {
    let level = match verbose {
        // An endpoint whose peers do not answer is left to the system after a second; iroh calls that an error.
        0 => "warn,iroh=error,iroh::socket=off,noq=error,noq_proto=error,iroh_relay=error,netwatch=error",
        1 => "info,iroh=warn,noq=warn,noq_proto=warn,netwatch=warn",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAUDAL_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| messages::Writer)
        .with_ansi(colours)
        .with_target(false);
    // Who did not ask for a log reads warnings as sentences.
    if verbose == 0 { log.without_time().init() } else { log.init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_moves_no_cursor_and_turns_no_text_around() {
        let error = anyhow::anyhow!("unknown `\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}1m\u{202e}`")
            .context("two\nlines\r\u{8}");
        assert_eq!(explain(&error), "two\nlines: unknown `]0;x[2J1m`");
    }
}
