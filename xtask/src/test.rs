//! `cargo xtask test`: the examples in the documentation first, if there are any, then every other test, so that the runner's count comes last.
//!
//! End-to-end tests run the real binary and load the machine: their files are called `tests/e2e_*.rs`, they run one at a
//! time, and `--quick` leaves them out.

use crate::{check, sh, system, web, workspace};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What the names of end-to-end test files start with. `.config/nextest.toml` says the same.
const E2E_PREFIX: &str = "e2e_";

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the end-to-end tests (files called `e2e_*`), which run the real binary.
    #[arg(long)]
    quick: bool,
    /// Run only tests whose name contains this; examples in the documentation are then left out.
    filter: Option<String>,
}

/// Runs the tests; true when all passed.
pub(crate) fn run(args: &Args) -> Result<bool> {
    system::ensure(system::TO_TEST)?;
    web::build_or_fail()?;
    // As the runners build, so that nothing is built twice.
    let mut build = cargo();
    build.args(["test", "--no-run", "--workspace", "--all-features"]);
    sh::must("building the tests and what they run (minutes the first time)", &mut build)?;

    let mut ok = true;
    if args.filter.is_none() {
        ok &= web::test()?;
    }
    if args.filter.is_none() && has_examples()? {
        let mut doc = cargo();
        doc.args(["test", "--quiet", "--workspace", "--all-features", "--doc", "--no-fail-fast"]);
        ok &= sh::step("testing the examples in the documentation", &mut doc)?;
    }
    ok &= if has_nextest() { nextest(args)? } else { plain(args)? };
    Ok(ok)
}

fn cargo() -> Command {
    let mut command = sh::cargo();
    command.current_dir(workspace::root());
    command
}

/// Whether a public item's documentation has an example: looking for them takes a compiler minutes.
fn has_examples() -> Result<bool> {
    let mut files = Vec::new();
    check::rust_files(&workspace::root().join("crates"), &mut files)?;
    for file in &files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        if has_example(&text) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A fence without the name of another language begins one.
fn has_example(text: &str) -> bool {
    let docs = text.lines().map(str::trim_start).filter_map(|line| {
        line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim_start)
    });
    let fences = docs.filter_map(|words| words.strip_prefix("```"));
    // The first opens, the next closes.
    fences.step_by(2).any(|language| {
        let first = language.split(',').next().unwrap_or_default().trim();
        matches!(first, "" | "rust" | "no_run" | "should_panic" | "compile_fail")
    })
}

fn has_nextest() -> bool {
    cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn nextest(args: &Args) -> Result<bool> {
    let mut run = cargo();
    run.args(["nextest", "run", "--workspace", "--all-features"]);
    if args.quick {
        run.args(["-E", &format!("not binary(/^{E2E_PREFIX}/)")]);
    }
    run.args(&args.filter);
    sh::say(&format!("testing: {}", sh::shown(&run)));
    // Nothing is printed after this: nextest's summary is the last word.
    let status = run.status().context("cannot start cargo nextest")?;
    Ok(status.success())
}

/// `cargo test`, in two rounds: everything that may run in parallel, then the end-to-end tests one at a time.
fn plain(args: &Args) -> Result<bool> {
    let tests = workspace::integration_tests(&workspace::metadata(false)?);
    let (e2e, parallel): (Vec<_>, Vec<_>) = tests.iter().partition(|name| name.starts_with(E2E_PREFIX));
    let mut count = Count::default();
    let mut round = cargo();
    round.args(["test", "--workspace", "--all-features", "--no-fail-fast", "--lib", "--bins"]);
    round.args(parallel.iter().flat_map(|name| ["--test", name]));
    round.args(&args.filter);
    let mut ok = counted(&mut round, &mut count)?;
    if !args.quick && !e2e.is_empty() {
        let mut round = cargo();
        round.args(["test", "--workspace", "--all-features", "--no-fail-fast"]);
        round.args(e2e.iter().flat_map(|name| ["--test", name]));
        round.args(&args.filter).args(["--", "--test-threads=1"]);
        ok &= counted(&mut round, &mut count)?;
    }
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    Ok(ok && count.failed == 0)
}

/// Runs a round of `cargo test`, passing its output on and adding up its results.
fn counted(command: &mut Command, count: &mut Count) -> Result<bool> {
    sh::say(&format!("testing: {}", sh::shown(command)));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what cargo test prints")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        count.add(&line);
    }
    Ok(child.wait().context("cargo test got lost")?.success())
}

/// What the test binaries' closing lines add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Count {
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for item in rest.split([';', '.']) {
            let mut words = item.split_whitespace();
            let (Some(Ok(n)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += n,
                "failed" => self.failed += n,
                "ignored" | "filtered" => self.skipped += n,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_binaries_add_up() {
        let mut count = Count::default();
        count.add("test wire::tests::golden ... ok");
        count.add(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.52s",
        );
        count.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!(count, Count { passed: 15, failed: 2, skipped: 4 });
    }

    #[test]
    fn an_example_is_what_a_compiler_would_run() {
        assert!(has_example("/// Adds.\n/// ```\n/// assert_eq!(1 + 1, 2);\n/// ```\nfn f() {}"));
        assert!(has_example("//! ```text\n//! a\n//! ```\n//! ```no_run\n//! b();\n//! ```"));
        assert!(!has_example("//! ```text\n//! a picture\n//! ```\nlet s = \"```\";"));
    }

    #[test]
    fn nextest_is_configured_for_the_same_prefix() {
        let config = std::fs::read_to_string(workspace::root().join(".config/nextest.toml")).unwrap();
        assert!(config.contains(&format!("binary(/^{E2E_PREFIX}/)")), "{config}");
    }
}
