//! `cargo xtask bench congestion`: real QUIC connections over the link emulator, case by case, where a congestion control
//! shows what it is worth; beside the transport's own one, Cubic.
//!
//! The load is a program of its own, `crates/net/examples/load`, which uses the nodes' link, driver and engine; here it is
//! run in namespaces and measured from the outside.

mod cases;
mod runs;

use super::figures::median;
use super::report::{self, Target};
use super::{trial, units};
use crate::{sh, system, workspace};
use anyhow::{Context, Result, bail};
use cases::{CASES, Case, Figure};
use runs::{Figures, Runner};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Fewer runs are no base for a figure in the documentation.
const RUNS_FOR_DOCS: u8 = 3;
/// The seed of the first run; each further run has the next.
const SEED: u64 = 1;

/// Arguments of `cargo xtask bench congestion`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these cases (default: all); `--case list` names them.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// How many runs of each case; medians are reported beside the worst.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,
    /// How long each load lasts, the first five seconds of which do not count.
    #[arg(long, default_value = "20s", value_parser = units::duration)]
    duration: Duration,
    /// Write the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table into docs/benchmarks.md (everything that there is to run, three times or more).
    #[arg(long)]
    write_docs: bool,
    /// Run this load instead of building one.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
}

/// Every run of one case.
struct Done {
    case: &'static Case,
    runs: Vec<Figures>,
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    if args.cases.iter().any(|name| name == "list") {
        for case in CASES {
            println!("{:10} {}", case.name, case.what);
        }
        return Ok(true);
    }
    if let Some(name) = args.cases.iter().find(|name| CASES.iter().all(|case| case.name != **name)) {
        bail!("there is no case {name:?}: `--case list` names them");
    }
    if args.write_docs && (args.runs < RUNS_FOR_DOCS || !args.cases.is_empty() || args.load.is_some()) {
        bail!("--write-docs needs --runs {RUNS_FOR_DOCS} or more, every case, and a load that is built here");
    }
    let commit = workspace::commit();
    if args.write_docs {
        report::may_write_docs(&commit)?;
    }
    let load = load(args.load.as_deref())?;
    let stop = trial::stop_signal()?;
    let mut done = Vec::new();
    for case in CASES.iter().filter(|case| args.cases.is_empty() || args.cases.iter().any(|n| n == case.name))
    {
        let mut runs = Vec::new();
        for number in 1..=args.runs {
            sh::say(&format!("{}: {}; run {number} of {}", case.name, case.what, args.runs));
            let dir = workspace::target_dir()?.join(format!("bench/congestion-{}-{number}", case.name));
            let seed = SEED + u64::from(number) - 1;
            let runner = Runner { load: &load, dir: &dir, seed, duration: args.duration, stop: &stop };
            runs.push(runner.run(case)?);
        }
        done.push(Done { case, runs });
        println!("\n{}", table(&done[done.len() - 1..]));
    }
    println!("{}\n{}", table(&done), cases::FOOTNOTE);
    let ok = done.iter().all(|done| done.case.figures.iter().all(|figure| figure.holds(&done.runs)));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&args.report(&done, ok, &commit))?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.write_docs {
        report::write_section("congestion", &args.section(&done, &commit)?)?;
    }
    Ok(ok)
}

/// The load: the one named, or one that is built. What it carries is a few Mbit/s: the tests' profile is fast enough.
fn load(named: Option<&Path>) -> Result<PathBuf> {
    system::ensure(&system::TO_BENCH[1..])?;
    if let Some(path) = named {
        return path.canonicalize().with_context(|| format!("cannot find {}", path.display()));
    }
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(workspace::root()).args(["build", "--package", "caudal-net", "--example", "load"]);
    sh::must("building the load", &mut build)?;
    Ok(workspace::target_dir()?.join("debug/examples/load"))
}

impl Args {
    fn report(&self, done: &[Done], ok: bool, commit: &str) -> Value {
        let cases: Vec<Value> = done
            .iter()
            .map(|done| {
                json!({
                    "case": done.case.name,
                    "what": done.case.what,
                    "runs": done.runs,
                    "checks": done.case.figures.iter().map(|figure| json!({
                        "name": figure.path,
                        "ok": figure.holds(&done.runs),
                        "worst": figure.worst(&done.runs),
                        "median": figure.median(&done.runs),
                        "baseline": figure.baseline(&done.runs),
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "schema": 1, "commit": commit, "command": trial::command_line(), "machine": report::machine(),
            "duration_ms": self.duration.as_millis() as u64, "cases": cases, "ok": ok,
        })
    }

    fn section(&self, done: &[Done], commit: &str) -> Result<String> {
        Ok(format!(
            "{}, commit {commit}, {}. {} runs each (seeds {SEED} and on).\nCommand: `{}`\n\n{}\n{}\n",
            report::today()?,
            report::machine(),
            self.runs,
            trial::command_line(),
            table(done),
            cases::FOOTNOTE,
        ))
    }
}

impl Figure {
    fn values(&self, runs: &[Figures]) -> Vec<f64> {
        runs.iter().filter_map(|run| run.get(self.path).copied()).collect()
    }

    fn median(&self, runs: &[Figures]) -> Option<f64> {
        median(&self.values(runs))
    }

    fn worst(&self, runs: &[Figures]) -> Option<f64> {
        let values = self.values(runs).into_iter();
        let more_is_better = matches!(self.target, Target::AtLeast(_))
            || matches!(self.path, "ours/first" | "ours/tcp" | "ours/used");
        if more_is_better { values.min_by(f64::total_cmp) } else { values.max_by(f64::total_cmp) }
    }

    /// The same figure of the transport's own control, the median.
    fn baseline(&self, runs: &[Figures]) -> Option<f64> {
        let path = self.path.replacen("ours/", "cubic/", 1);
        median(&runs.iter().filter_map(|run| run.get(&path).copied()).collect::<Vec<_>>())
    }

    /// A figure that a run did not report misses its target.
    fn holds(&self, runs: &[Figures]) -> bool {
        self.target.shown(self.unit).is_none()
            || self.values(runs).len() == runs.len()
                && self.worst(runs).is_some_and(|worst| self.target.met(worst))
    }
}

fn table(done: &[Done]) -> String {
    let mut lines = vec![["case", "figure", "median", "worst", "target", "Cubic"].map(str::to_owned)];
    for Done { case, runs } in done {
        for (number, figure) in case.figures.iter().enumerate() {
            let shown = |value: Option<f64>| {
                value.map_or_else(|| "not reported".to_owned(), |v| figure.unit.shown(v))
            };
            let verdict = if figure.holds(runs) { "ok" } else { "FAIL" };
            lines.push([
                if number == 0 { case.name.to_owned() } else { String::new() },
                figure.label.to_owned(),
                shown(figure.median(runs)),
                shown(figure.worst(runs)),
                figure
                    .target
                    .shown(figure.unit)
                    .map(|target| format!("{target} {verdict}"))
                    .unwrap_or_default(),
                figure.baseline(runs).map(|value| figure.unit.shown(value)).unwrap_or_default(),
            ]);
        }
    }
    report::aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_run_decides_and_what_was_not_reported_fails() {
        let figure = &CASES[0].figures[0];
        let run = |ms: Option<f64>| -> Figures {
            let ours = ms.map(|ms| (figure.path.to_owned(), ms));
            ours.into_iter().chain([("cubic/chunk_ms/p99".to_owned(), 9_000.0)]).collect()
        };
        assert!(figure.holds(&[run(Some(200.0)), run(Some(300.0))]));
        assert!(!figure.holds(&[run(Some(200.0)), run(Some(500.0))]));
        assert!(!figure.holds(&[run(Some(200.0)), run(None)]));
        assert_eq!(figure.baseline(&[run(Some(200.0))]), Some(9_000.0));
    }

    #[test]
    fn names_of_cases_and_paths_are_told_apart() {
        let mut names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
        for case in CASES {
            let mut paths: Vec<&str> = case.figures.iter().map(|figure| figure.path).collect();
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), case.figures.len(), "{}", case.name);
        }
    }
}
