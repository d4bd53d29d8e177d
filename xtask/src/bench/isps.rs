//! `cargo xtask bench sim-alto`: what maps of the network (ALTO) change, in virtual time: a swarm over four providers, with random
//! selection and with maps that are right, wrong, gone or changing.
//!
//! Every row is one `caudal sim` command over some seeds; figures are means with 95 % confidence intervals. What is held against
//! random selection is compared seed by seed.

use super::report::{self, Target, Unit};
use super::simulated;
use super::trial;
use crate::system;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments of `cargo xtask bench sim-alto`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these rows (default: all); `--row list` names them.
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Viewers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    peers: u32,
    /// How many seeds, from 1.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=30))]
    seeds: u8,
    /// How long is measured, after 30 s.
    #[arg(long, default_value = "60s", value_name = "TIME")]
    duration: String,
    #[command(flatten)]
    program: trial::Program,
}

/// Fewer seeds are no base for a figure in the documentation.
const SEEDS_FOR_DOCS: u8 = 5;

/// One kind of map.
struct Row {
    name: &'static str,
    what: &'static str,
    alto: &'static str,
    /// The third provider's customers upload a third of what others do.
    is_under_seeded: bool,
    /// The row with random selection.
    beside: &'static str,
    goals: &'static [Goal],
}

/// A figure of a row.
#[derive(Clone, Copy)]
struct Goal {
    label: &'static str,
    figure: Figure,
    target: Target,
}

#[derive(Clone, Copy)]
enum Figure {
    /// What each report says at a path.
    Plain(&'static str, Unit),
    /// The same ÷ what the report with random selection of the same seed says.
    OfRandom(&'static str),
    /// The same less than what that says.
    LessThanRandom(&'static str),
    /// Bytes between providers ÷ 1 − Σ share².
    OfExpected,
}

const CROSS: &str = "isps/cross_ratio";
const P95: &str = "chunk_delay_ms/p95";
const ON_TIME: &str = "continuity/1500";
const IMPORTED: &str = "isps/copies_imported";

const fn goal(label: &'static str, figure: Figure, target: Target) -> Goal {
    Goal { label, figure, target }
}
const SHARE: Goal = goal("chunk bytes between ISPs", Figure::Plain(CROSS, Unit::Percent), Target::None);
const COPIES: Goal = goal("copies imported by an ISP", Figure::Plain(IMPORTED, Unit::Ratio), Target::None);
const DELAY: Goal = goal("chunk delay p95", Figure::Plain(P95, Unit::Ms), Target::None);
const KEPT: Goal = goal("on time at 1.5 s", Figure::Plain(ON_TIME, Unit::Percent), Target::None);
/// Nothing is lost beside random selection.
const NO_LATER: Goal = goal("p95 ÷ random selection's", Figure::OfRandom(P95), Target::AtMost(1.05));
const NO_LESS: Goal =
    goal("on time, less than with random selection", Figure::LessThanRandom(ON_TIME), Target::AtMost(0.001));
const RANDOM: &[Goal] = &[
    SHARE,
    goal("the same ÷ (1 − Σ share²)", Figure::OfExpected, Target::AtMost(1.03)),
    COPIES,
    DELAY,
    KEPT,
];
const MAPS: &[Goal] = &[
    SHARE,
    goal("the same ÷ random selection's", Figure::OfRandom(CROSS), Target::AtMost(0.2)),
    Goal { target: Target::AtMost(1.5), ..COPIES },
    DELAY,
    NO_LATER,
    KEPT,
    NO_LESS,
];
const HARM: &[Goal] = &[SHARE, COPIES, DELAY, NO_LATER, KEPT, NO_LESS];

const ROWS: &[Row] = &[
    row("random", "random selection", "off", RANDOM),
    row("maps", "a map that is right", "on", MAPS),
    row("lying", "a map by which only the first ISP is near", "lying", HARM),
    row("flat", "a map by which all are in one PID", "flat", HARM),
    row("down", "maps gone as measuring begins", "down", HARM),
    row("changing", "a map dealt anew every 10 s", "changing", HARM),
    Row {
        is_under_seeded: true,
        beside: "under-seeded-random",
        ..row("under-seeded-random", "one ISP uploads a third, random selection", "off", RANDOM)
    },
    Row {
        is_under_seeded: true,
        beside: "under-seeded-random",
        ..row("under-seeded", "the same, a map that is right", "on", HARM)
    },
];

const fn row(name: &'static str, what: &'static str, alto: &'static str, goals: &'static [Goal]) -> Row {
    Row { name, what, alto, is_under_seeded: false, beside: "random", goals }
}

/// A row's reports, one for each seed.
struct Done {
    row: &'static Row,
    reports: Vec<Value>,
    /// Those with random selection.
    random: Vec<Value>,
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    if args.rows.iter().any(|name| name == "list") {
        for row in ROWS {
            println!("{:20} {}", row.name, row.what);
        }
        return Ok(true);
    }
    if let Some(name) = args.rows.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
        bail!("there is no row {name:?}: `--row list` names them");
    }
    if args.program.write_docs && (!args.rows.is_empty() || args.seeds < SEEDS_FOR_DOCS) {
        bail!("--write-docs needs every row run, with {SEEDS_FOR_DOCS} seeds or more");
    }
    let caudal = args.program.get(&system::TO_BENCH[..1])?;
    let folder = crate::workspace::target_dir()?.join("bench/sim-alto");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut done: Vec<Done> = Vec::new();
    for row in ROWS.iter().filter(|row| args.rows.is_empty() || args.rows.iter().any(|name| name == row.name))
    {
        crate::sh::say(&format!("{}: {}", row.name, row.what));
        let reports = args.simulate(row, &caudal, &folder)?;
        let random = done.iter().find(|done| done.row.name == row.beside);
        let random = random.map_or_else(Vec::new, |done| done.reports.clone());
        done.push(Done { row, reports, random });
        println!("\n{}", table(&done[done.len() - 1..]));
    }
    println!("{}", table(&done));
    let is_sound = |done: &Done| done.reports.iter().all(|report| report["ok"] == true);
    for done in done.iter().filter(|done| !is_sound(done)) {
        crate::sh::say(&format!("{}: a check of the simulator failed; its report says which", done.row.name));
    }
    let ok = done.iter().all(|done| is_sound(done) && done.row.goals.iter().all(|goal| done.holds(goal)));
    args.program.write_json(&args.report(&done, ok))?;
    if args.program.write_docs {
        let commit =
            done.first().and_then(|done| done.reports.first()?["commit"].as_str()).unwrap_or("unknown");
        report::may_write_docs(commit)?;
        report::write_section("sim-alto", &args.section(&done, commit)?)?;
    }
    Ok(ok)
}

impl Args {
    fn simulate(&self, row: &Row, caudal: &Path, folder: &Path) -> Result<Vec<Value>> {
        let mut command = Command::new(caudal);
        command.args(["sim", "--json", "--part", "0ms", "--ramp", "4s", "--duration", &self.duration]);
        command.args(["--peers", &self.peers.to_string(), "--seeds", &self.seeds.to_string()]);
        command.args(["--alto", row.alto, "--isps"]);
        if row.is_under_seeded {
            command.arg(under_seeded(folder)?);
        } else {
            command.arg("4");
        }
        simulated::run(&mut command, usize::from(self.seeds))
    }

    fn report(&self, done: &[Done], ok: bool) -> Value {
        let rows: Vec<Value> = done
            .iter()
            .map(|done| {
                json!({
                    "row": done.row.name, "what": done.row.what, "reports": done.reports,
                    "checks": done.row.goals.iter().map(|goal| {
                        let (mean, within) = interval(&done.values(goal)).unzip();
                        json!({ "name": goal.label, "ok": done.holds(goal), "mean": mean, "within": within })
                    }).collect::<Vec<_>>(),
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
            "{}, commit {commit}. {} viewers of four ISPs (40, 30, 20 and 10 %), 3 Mbit/s, {} measured after 30 s; means over seeds 1 to {} \
             with 95 % confidence intervals. What is compared with random selection is so seed by seed.\nCommand: `{}`\n\n{}",
            report::today()?,
            self.peers,
            self.duration,
            self.seeds,
            trial::command_line(),
            table(done),
        ))
    }
}

/// A file with four providers, of which the third has a third of the others' upload.
fn under_seeded(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("under-seeded.toml");
    let isp = |(i, share): (usize, &str)| {
        let upload = if i == 2 { "0.333" } else { "1.0" };
        format!("[[isp]]\nname = \"isp-{}\"\nshare = {share}\nupload = {upload}\n", i + 1)
    };
    let text: String = ["0.4", "0.3", "0.2", "0.1"].into_iter().enumerate().map(isp).collect();
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

impl Done {
    fn values(&self, goal: &Goal) -> Vec<f64> {
        let at = |report: &Value, path: &str| report.pointer(&format!("/{path}"))?.as_f64();
        let beside = |path: &str, how: &dyn Fn(f64, f64) -> f64| {
            let pairs = self.reports.iter().zip(&self.random);
            pairs.filter_map(|(report, random)| Some(how(at(report, path)?, at(random, path)?))).collect()
        };
        match goal.figure {
            Figure::Plain(path, _) => self.reports.iter().filter_map(|report| at(report, path)).collect(),
            Figure::OfRandom(path) => beside(path, &|here, random| here / random),
            Figure::LessThanRandom(path) => beside(path, &|here, random| random - here),
            Figure::OfExpected => {
                let ratio =
                    |report: &Value| Some(at(report, CROSS)? / at(report, "isps/random_cross_ratio")?);
                self.reports.iter().filter_map(ratio).collect()
            }
        }
    }

    /// The mean meets the target; a figure that a seed did not report misses it.
    fn holds(&self, goal: &Goal) -> bool {
        let values = self.values(goal);
        goal.target.shown(goal.unit()).is_none()
            || values.len() == self.reports.len()
                && interval(&values).is_some_and(|(mean, _)| goal.target.met(mean))
    }
}

impl Goal {
    fn unit(&self) -> Unit {
        match self.figure {
            Figure::Plain(_, unit) => unit,
            Figure::LessThanRandom(_) => Unit::Percent,
            Figure::OfRandom(_) | Figure::OfExpected => Unit::Ratio,
        }
    }
}

/// Student's t for 95 %, by degrees of freedom from 1.
const T: [f64; 29] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
];

/// The mean, and within how much of it the true one is with 95 % confidence.
fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let t = T.get(values.len().checked_sub(2)?)?;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Some((mean, t * (variance / n).sqrt()))
}

fn table(done: &[Done]) -> String {
    let mut lines = vec![["row", "figure", "mean", "±", "target"].map(str::to_owned)];
    for done in done {
        for (number, goal) in done.row.goals.iter().enumerate() {
            let unit = goal.unit();
            let found = interval(&done.values(goal));
            let shown =
                |value: Option<f64>| value.map_or_else(|| "not reported".to_owned(), |v| unit.shown(v));
            let verdict = if done.holds(goal) { "ok" } else { "FAIL" };
            lines.push([
                if number == 0 { done.row.name.to_owned() } else { String::new() },
                goal.label.to_owned(),
                shown(found.map(|(mean, _)| mean)),
                shown(found.map(|(_, within)| within)),
                goal.target.shown(unit).map(|target| format!("{target} {verdict}")).unwrap_or_default(),
            ]);
        }
    }
    report::aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        assert_eq!(interval(&[3.0]), None, "one seed says nothing of the spread");
        let (mean, within) = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]).expect("five seeds");
        // s = 1.5811, t(4) = 2.776, √5 = 2.2361.
        assert!((mean - 3.0).abs() < 1e-9 && (within - 1.963).abs() < 1e-3, "{mean} ± {within}");
    }

    #[test]
    fn rows_are_held_against_random_selection_seed_by_seed() {
        let report = |p95: f64, on_time: f64| json!({"ok": true, "chunk_delay_ms": {"p95": p95}, "continuity": {"1500": on_time}});
        let row = ROWS.iter().find(|row| row.name == "lying").expect("a row");
        let random = vec![report(100.0, 0.999), report(200.0, 0.998)];
        let verdicts = |reports: Vec<Value>, random: &[Value]| {
            let done = Done { row, reports, random: random.to_vec() };
            [done.holds(&NO_LATER), done.holds(&NO_LESS)]
        };
        assert_eq!(verdicts(vec![report(104.0, 0.9985), report(208.0, 0.9975)], &random), [true, true]);
        assert_eq!(verdicts(vec![report(110.0, 0.997), report(204.0, 0.997)], &random), [false, false]);
        assert_eq!(verdicts(vec![report(100.0, 1.0), report(100.0, 1.0)], &[]), [false, false], "no base");
    }
}
