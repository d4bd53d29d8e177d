//! `cargo xtask bench sim`: populations in virtual time, row by row, beside what the throw-away prototype reached.
//!
//! Every row is one `caudal sim` command over some seeds; figures are means over them, beside the worst seed. What a row needs
//! of another (a delay without attackers) is taken from the first.

use super::report::{self, Target, Unit};
use super::simulated;
use super::trial;
use crate::system;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Arguments of `cargo xtask bench sim`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these rows (default: all); `--row list` names them.
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Viewers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    peers: u32,
    /// How many seeds, from 1.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    seeds: u8,
    #[command(flatten)]
    program: trial::Program,
}

/// A figure, what the prototype reached, and the target; for one seed alone, too, where that was asked for.
#[derive(Clone, Copy)]
struct Goal {
    path: &'static str,
    label: &'static str,
    unit: Unit,
    prototype: &'static str,
    mean: Target,
    worst: Target,
}

const fn goal(
    path: &'static str,
    label: &'static str,
    unit: Unit,
    prototype: &'static str,
    mean: Target,
) -> Goal {
    Goal { path, label, unit, prototype, mean, worst: Target::None }
}

const fn and_worst(goal: Goal, worst: Target) -> Goal {
    Goal { worst, ..goal }
}

/// One population and what is asked of it.
struct Row {
    name: &'static str,
    what: &'static str,
    /// Beyond what all have in common.
    args: &'static [&'static str],
    /// A tenth of the viewers is there at first.
    is_crowd: bool,
    /// There is enough for attackers too: see [`ENOUGH`].
    is_fed: bool,
    goals: &'static [Goal],
}

const fn row(
    name: &'static str,
    what: &'static str,
    args: &'static [&'static str],
    goals: &'static [Goal],
) -> Row {
    Row { name, what, args, is_crowd: false, is_fed: false, goals }
}

/// Attackers, and enough for all.
const fn fed(name: &'static str, what: &'static str, args: &'static [&'static str]) -> Row {
    Row { is_fed: true, ..row(name, what, args, HONEST) }
}

use Target::{AtLeast, AtMost, None as Free};
use Unit::{Ms, Percent, Ratio};

const P50: Goal = goal("delay_ratio/p50", "p50 ÷ greedy snowball", Ratio, "1.27", Free);
const P99: Goal = goal("delay_ratio/p99", "p99 ÷ greedy snowball", Ratio, "1.70", Free);
const ON_TIME: Goal = goal("continuity/1500", "on time at 1.5 s", Percent, "", Free);
const HONEST: &[Goal] =
    &[goal("continuity/3000", "honest peers on time at 3 s", Percent, "", AtLeast(0.99)), ON_TIME];
/// What honest peers upload where the attackers, who take a copy each, leave them about what they have in the first row.
const ENOUGH: [&str; 2] = ["--upload-mean", "1.6"];
/// Relative to the first row.
const TO_FIRST: &str = "p99 ÷ first row's p99";

const ROWS: &[Row] = &[
    row(
        "usual",
        "mean upload 1.25, sessions of 10 minutes",
        &[],
        &[
            Goal { mean: AtMost(1.4), ..P50 },
            Goal { mean: AtMost(1.9), ..P99 },
            Goal { mean: AtLeast(0.9999), prototype: "99.999 %", ..ON_TIME },
            goal("startup_ms/p95", "startup delay p95", Ms, "495 ms", AtMost(500.0)),
            goal("duplicate_ratio", "duplicates", Percent, "0.37 %", AtMost(0.005)),
            goal("control_ratio", "control, IP bytes", Percent, "1.15 %", AtMost(0.015)),
            goal("source_copies", "source copies", Ratio, "2.75", AtMost(3.0)),
        ],
    ),
    row(
        "sessions-60s",
        "sessions of 60 s",
        &["--churn", "60s"],
        &[
            Goal { mean: AtLeast(0.999), prototype: "99.92 %", ..ON_TIME },
            goal("duplicate_ratio", "duplicates", Percent, "", AtMost(0.01)),
            goal("control_ratio", "control, IP bytes", Percent, "", AtMost(0.02)),
        ],
    ),
    row(
        "leave-30",
        "30 % leave at once",
        &["--churn", "none", "--event", "leave 30% at 20s"],
        &[
            goal(
                "events/0/stayers_continuity",
                "stayers on time, next 10 s",
                Percent,
                "99.79 %",
                AtLeast(0.998),
            ),
            goal("events/0/normal_after_ms", "normal again after", Ms, "", AtMost(3000.0)),
        ],
    ),
    row(
        "leave-50",
        "50 % leave at once",
        &["--churn", "none", "--event", "leave 50% at 20s"],
        &[
            and_worst(
                goal(
                    "events/0/stayers_continuity",
                    "stayers on time, next 10 s",
                    Percent,
                    "98.9 %",
                    AtLeast(0.99),
                ),
                AtLeast(0.98),
            ),
            goal("events/0/normal_after_ms", "normal again after", Ms, "", AtMost(3000.0)),
        ],
    ),
    Row {
        is_crowd: true,
        ..row(
            "flash-crowd",
            "a tenth of the viewers, then all within 10 s",
            &["--churn", "none"],
            &[
                goal("events/0/startup_ms/p95", "first part p95 of those who come", Ms, "", AtMost(2000.0)),
                goal(
                    "events/0/stayers_continuity",
                    "those already there on time",
                    Percent,
                    "",
                    AtLeast(0.995),
                ),
            ],
        )
    },
    row("takers", "20 % upload nothing, in addition", &["--attack", "free-rider=20%"], HONEST),
    row("polluters", "20 % send forgeries", &["--attack", "polluter=20%"], HONEST),
    row("replayers", "20 % send old chunks", &["--attack", "replayer=20%"], HONEST),
    row("silent", "20 % say nothing", &["--attack", "silent=20%"], HONEST),
    row("delayers", "20 % hold chunks back", &["--attack", "delayer=20%"], HONEST),
    row("false-haves", "20 % claim what they lack", &["--attack", "false-have=20%"], HONEST),
    row("flooders", "20 % flood requests", &["--attack", "flooder=20%"], HONEST),
    row("eclipse", "20 % try to surround others", &["--attack", "eclipse=20%"], HONEST),
    fed("fed-polluters", "polluters, and enough for all", &["--attack", "polluter=20%"]),
    fed("fed-replayers", "replayers, and enough for all", &["--attack", "replayer=20%"]),
    fed("fed-silent", "silent ones, and enough for all", &["--attack", "silent=20%"]),
    fed("fed-delayers", "delayers, and enough for all", &["--attack", "delayer=20%"]),
    fed("fed-false-haves", "false maps, and enough for all", &["--attack", "false-have=20%"]),
    fed("fed-flooders", "flooders, and enough for all", &["--attack", "flooder=20%"]),
    fed("fed-eclipse", "eclipse, and enough for all", &["--attack", "eclipse=20%"]),
    fed("fed-free-riders", "20 % upload nothing, and enough for all", &["--attack", "free-rider=20%"]),
    row(
        "free-riders",
        "50 % upload nothing, the others twice the mean",
        &["--attack", "free-rider=50%", "--upload-mean", "2.5"],
        &[goal(TO_FIRST, TO_FIRST, Ratio, "", AtMost(1.0)), ON_TIME],
    ),
    row(
        "edge",
        "mean upload 1.12",
        &["--upload-mean", "1.12"],
        &[and_worst(
            goal("continuity/3000", "on time at 3 s", Percent, "98.7 % at 1.05", AtLeast(0.99)),
            AtLeast(0.97),
        )],
    ),
    row(
        "misjudged",
        "uplinks misjudged by ±20 %",
        &["--told", "±20%"],
        &[goal(TO_FIRST, TO_FIRST, Ratio, "1.09", AtMost(1.1)), ON_TIME],
    ),
    row(
        "measured",
        "uplinks measured, not told",
        &["--told", "nothing"],
        &[goal(TO_FIRST, TO_FIRST, Ratio, "", AtMost(1.1)), P50, P99, ON_TIME],
    ),
    row("tree", "trees without pulls for order", &["--overlay", "tree"], &[P50, P99, ON_TIME]),
    row("mesh", "pulls only", &["--overlay", "mesh"], &[P50, P99, ON_TIME]),
];

const FOOTNOTE: &str =
    "Prototype: N = 1,000, with 0.6 % for headers where QUIC takes 7.5 %, known uplinks and one clock.";

/// A row's reports, one for each seed.
struct Done {
    row: &'static Row,
    reports: Vec<Value>,
    /// Mean 99th percentile of the first row's delays, ms.
    first_p99_ms: Option<f64>,
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    if args.rows.iter().any(|name| name == "list") {
        for row in ROWS {
            println!("{:14} {}", row.name, row.what);
        }
        return Ok(true);
    }
    if let Some(name) = args.rows.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
        bail!("there is no row {name:?}: `--row list` names them");
    }
    if args.program.write_docs && !args.rows.is_empty() {
        bail!("--write-docs needs every row run");
    }
    let caudal = args.program.get(&system::TO_BENCH[..1])?;
    let mut done: Vec<Done> = Vec::new();
    for row in ROWS.iter().filter(|row| args.rows.is_empty() || args.rows.iter().any(|name| name == row.name))
    {
        crate::sh::say(&format!("{}: {}", row.name, row.what));
        let reports = args.simulate(row, &caudal)?;
        // Without the first row there is nothing to hold delays against.
        let first = done.first().map_or((row, &reports), |done: &Done| (done.row, &done.reports));
        let first_p99_ms =
            mean(&values(first.1, "chunk_delay_ms/p99")).filter(|_| first.0.name == ROWS[0].name);
        done.push(Done { row, reports, first_p99_ms });
        println!("\n{}", table(&done[done.len() - 1..]));
    }
    println!("{}\n{FOOTNOTE}", table(&done));
    for done in done.iter().filter(|done| !done.is_sound()) {
        crate::sh::say(&format!("{}: a check of the simulator failed; its report says which", done.row.name));
    }
    let ok = done.iter().all(|done| done.is_sound() && done.row.goals.iter().all(|goal| done.holds(goal)));
    args.program.write_json(&args.report(&done, ok))?;
    if args.program.write_docs {
        let commit =
            done.first().and_then(|done| done.reports.first()?["commit"].as_str()).unwrap_or("unknown");
        report::may_write_docs(commit)?;
        report::write_section("sim", &args.section(&done, commit)?)?;
    }
    Ok(ok)
}

impl Args {
    fn simulate(&self, row: &Row, caudal: &Path) -> Result<Vec<Value>> {
        let mut command = Command::new(caudal);
        command.args(["sim", "--json", "--part", "0ms", "--ramp", "4s"]);
        let peers = if row.is_crowd { self.peers / 10 } else { self.peers };
        command.args(["--peers", &peers.to_string(), "--seeds", &self.seeds.to_string()]).args(row.args);
        if row.is_fed {
            command.args(ENOUGH);
        }
        if row.is_crowd {
            command.args(["--event", &format!("join {} at 20s over 10s", self.peers - peers)]);
        }
        simulated::run(&mut command, usize::from(self.seeds))
    }

    fn report(&self, done: &[Done], ok: bool) -> Value {
        let rows: Vec<Value> = done
            .iter()
            .map(|done| {
                json!({
                    "row": done.row.name, "what": done.row.what, "reports": done.reports,
                    "checks": done.row.goals.iter().map(|goal| json!({
                        "name": goal.label, "ok": done.holds(goal),
                        "mean": mean(&done.values(goal)), "worst": done.worst(goal),
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "schema": 1, "command": trial::command_line(), "machine": report::machine(), "peers": self.peers,
            "seeds": self.seeds, "rows": rows, "ok": ok,
        })
    }

    fn section(&self, done: &[Done], commit: &str) -> Result<String> {
        Ok(format!(
            "{}, commit {commit}. {} viewers, 3 Mbit/s in 16 KiB chunks, 60 s measured after 30 s, means over seeds 1 to {} beside the worst \
             of them.\nCommand: `{}`\n\n{}\n{FOOTNOTE}\n",
            report::today()?,
            self.peers,
            self.seeds,
            trial::command_line(),
            table(done),
        ))
    }
}

impl Done {
    fn values(&self, goal: &Goal) -> Vec<f64> {
        if goal.path != TO_FIRST {
            return values(&self.reports, goal.path);
        }
        let Some(first) = self.first_p99_ms else { return Vec::new() };
        values(&self.reports, "chunk_delay_ms/p99").into_iter().map(|p99| p99 / first).collect()
    }

    fn worst(&self, goal: &Goal) -> Option<f64> {
        let values = self.values(goal).into_iter();
        match goal.unit {
            Percent if !goal.path.ends_with("_ratio") => values.min_by(f64::total_cmp),
            _ => values.max_by(f64::total_cmp),
        }
    }

    /// Everything that the simulator checks held.
    fn is_sound(&self) -> bool {
        self.reports.iter().all(|report| report["ok"] == true)
    }

    /// A figure that a seed did not report misses its target.
    fn holds(&self, goal: &Goal) -> bool {
        if goal.mean.shown(goal.unit).is_none() && goal.worst.shown(goal.unit).is_none() {
            return true;
        }
        let values = self.values(goal);
        values.len() == self.reports.len()
            && mean(&values).is_some_and(|mean| goal.mean.met(mean))
            && self.worst(goal).is_some_and(|worst| goal.worst.met(worst))
    }
}

/// What each report says at a path like `events/0/at_ms`.
fn values(reports: &[Value], path: &str) -> Vec<f64> {
    let pointer = format!("/{path}");
    reports.iter().filter_map(|report| report.pointer(&pointer)?.as_f64()).collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn table(done: &[Done]) -> String {
    let mut lines = vec![["row", "figure", "mean", "worst seed", "target", "prototype"].map(str::to_owned)];
    for done in done {
        for (number, goal) in done.row.goals.iter().enumerate() {
            let shown =
                |value: Option<f64>| value.map_or_else(|| "not reported".to_owned(), |v| goal.unit.shown(v));
            let verdict = if done.holds(goal) { "ok" } else { "FAIL" };
            let worst =
                goal.worst.shown(goal.unit).map(|worst| format!(", worst {worst}")).unwrap_or_default();
            lines.push([
                if number == 0 { done.row.name.to_owned() } else { String::new() },
                goal.label.to_owned(),
                shown(mean(&done.values(goal))),
                shown(done.worst(goal)),
                goal.mean
                    .shown(goal.unit)
                    .map(|target| format!("{target}{worst} {verdict}"))
                    .unwrap_or_default(),
                goal.prototype.to_owned(),
            ]);
        }
    }
    report::aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(name: &str, reports: Vec<Value>, first_p99_ms: Option<f64>) -> Done {
        let row = ROWS.iter().find(|row| row.name == name).expect("a row");
        Done { row, reports, first_p99_ms }
    }

    #[test]
    fn the_mean_and_the_worst_seed_decide_and_what_was_not_reported_fails() {
        let verdicts = |stayers: &[f64], normal: Option<f64>| {
            let report =
                |share: &f64| json!({"events": [{"stayers_continuity": share, "normal_after_ms": normal}]});
            let done = done("leave-50", stayers.iter().map(report).collect(), None);
            done.row.goals.iter().map(|goal| done.holds(goal)).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&[0.995, 0.999], Some(2000.0)), [true, true]);
        assert_eq!(
            verdicts(&[0.970, 1.0, 1.0], Some(4000.0)),
            [false, false],
            "the worst seed, and too late"
        );
        assert_eq!(verdicts(&[0.985, 0.985], None), [false, false], "the mean, and not while measured");
    }

    #[test]
    fn delays_are_held_against_the_first_row() {
        let report = |p99: f64| json!({"chunk_delay_ms": {"p99": p99}, "continuity": {"1500": 1.0}});
        let riders = done("free-riders", vec![report(300.0), report(500.0)], Some(400.0));
        assert_eq!(mean(&riders.values(&riders.row.goals[0])), Some(1.0));
        assert!(
            riders.holds(&riders.row.goals[0])
                && !done("free-riders", Vec::new(), None).holds(&riders.row.goals[0])
        );
    }

    #[test]
    fn names_of_rows_are_told_apart() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
