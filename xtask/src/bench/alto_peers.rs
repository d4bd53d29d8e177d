//! `cargo xtask bench alto-peers`: real processes in four ranges of addresses of unequal size: what crosses between the ranges
//! without a map of the network, with one that the tracker alone has, and with one that all have.
//!
//! Bytes are counted on the kernel's bridge, by source and destination address, from the IP header on. All peers are equally near
//! to each other as the round trip goes, so that the map alone makes the difference. The source is in the first range.

use super::figures::{Run, Shape, median};
use super::report::{self, Target, Unit};
use super::trial::{self, Bench, Input, Network, Plan, Ranges};
use super::units;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

/// How many of a hundred peers each range has.
const SHARES: [usize; 4] = [40, 30, 20, 10];
/// What a map must save at least, of the bytes that cross without it.
const SAVED_MIN: f64 = 0.6;
/// Copies of the stream that a range may import.
const IMPORTED_MAX: f64 = 1.5;
/// How much later chunks may come: 95th percentile ÷ the same without a map.
const DELAY_MAX: f64 = 1.05;
/// How much of continuity may be lost.
const CONTINUITY_LOST_MAX: f64 = 0.001;

/// Arguments of `cargo xtask bench alto-peers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many viewers.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(16..200))]
    viewers: u16,
    /// The stream's bit rate.
    #[arg(long, default_value = "1M", value_parser = units::rate)]
    rate: u64,
    /// How long each run is measured.
    #[arg(long, default_value = "30s", value_parser = units::duration)]
    duration: Duration,
    /// How long the swarm may settle before.
    #[arg(long, default_value = "20s", value_parser = units::duration)]
    warm_up: Duration,
    /// Copies of the stream that the source may send.
    #[arg(long, default_value_t = 2)]
    source_copies: usize,
    #[command(flatten)]
    common: trial::Common,
}

/// Who has the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Nobody,
    Tracker,
    All,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "none",
            Self::Tracker => "the tracker's alone",
            Self::All => "everybody's",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Nobody => "alto-peers-off",
            Self::Tracker => "alto-peers-tracker",
            Self::All => "alto-peers-on",
        }
    }
}

/// Every run of one case.
struct Done {
    case: Case,
    runs: Vec<Run>,
}

/// Bytes between ranges, worked out.
struct Traffic {
    /// Of all that peers sent to peers, what crossed from one range to another.
    cross_ratio: f64,
    cross_bytes: f64,
    /// Copies of the stream that each range took from others.
    imported: Vec<f64>,
}

impl Traffic {
    fn of(run: &Run) -> Self {
        let between = &run.between;
        let all: u64 = between.iter().flatten().sum();
        let inside: u64 = between.iter().enumerate().map(|(range, row)| row[range]).sum();
        let into = |to: usize| -> u64 {
            let rows = between.iter().enumerate().filter(|(from, _)| *from != to);
            rows.map(|(_, row)| row[to]).sum()
        };
        let imported = (0..between.len()).map(|to| into(to) as f64 / run.stream_bytes.max(1.0)).collect();
        Self {
            cross_ratio: (all - inside) as f64 / all.max(1) as f64,
            cross_bytes: (all - inside) as f64,
            imported,
        }
    }
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    let bench = Bench::begin(&args.common, true)?;
    let mut done = Vec::new();
    for case in [Case::Nobody, Case::Tracker, Case::All] {
        let what = format!("{} viewers in {} ranges, map: {}", args.viewers, SHARES.len(), case.name());
        let runs = bench.runs(case.folder(), &what, |_| args.plan(case))?;
        done.push(Done { case, runs });
        println!("\n{}", args.tables(&done));
    }
    let checks = checks(&done);
    for (name, ok, detail) in &checks {
        println!("{} {name}: {detail}", if *ok { "ok  " } else { "FAIL" });
    }
    let ok = checks.iter().all(|(_, ok, _)| *ok);
    args.common.program.write_json(&args.report(&done, &checks, ok))?;
    if args.common.program.write_docs {
        report::write_section("alto-peers", &args.section(&done, &checks, &report::today()?))?;
    }
    Ok(ok)
}

/// Peers in each range, the source with them.
fn sizes(peers: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = SHARES.iter().map(|share| (peers * share / 100).max(2)).collect();
    sizes[0] += peers - sizes.iter().sum::<usize>();
    sizes
}

/// How much would cross, were partners drawn by lot: 1 − Σ p².
fn expected(sizes: &[usize]) -> f64 {
    let all: usize = sizes.iter().sum();
    1.0 - sizes.iter().map(|size| (*size as f64 / all as f64).powi(2)).sum::<f64>()
}

impl Args {
    fn plan(&self, case: Case) -> Plan {
        let ranges = Ranges { sizes: self.sizes(), tracker: case != Case::Nobody, nodes: case == Case::All };
        Plan {
            viewers: self.viewers.into(),
            input: Input::Card { rate_bps: self.rate },
            warm_up: self.warm_up,
            duration: self.duration,
            source_copies: self.source_copies,
            delivery: None,
            shape: Shape::Open,
            tell_limits: false,
            network: Network::Bridge,
            ranges: Some(ranges),
            killed_percent: 0,
        }
    }

    fn sizes(&self) -> Vec<usize> {
        sizes(usize::from(self.viewers) + 1)
    }

    fn tables(&self, done: &[Done]) -> String {
        let sizes = self.sizes();
        let mut text = format!(
            "Peers in each range: {}. By lot {} would cross.\n\n{}",
            sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
            Unit::Percent.shown(expected(&sizes)),
            figures(done),
        );
        for Done { case, runs } in done {
            text.push_str(&format!(
                "\nMB from the range on the left to the one above, map: {}\n\n",
                case.name()
            ));
            text.push_str(&matrix(runs));
        }
        text
    }

    fn report(&self, done: &[Done], checks: &[(String, bool, String)], ok: bool) -> Value {
        let cases: Vec<Value> = done
            .iter()
            .map(|Done { case, runs }| {
                let runs: Vec<Value> = runs
                    .iter()
                    .map(|run| {
                        let traffic = Traffic::of(run);
                        json!({
                            "figures": run.figures, "bytes_between": run.between, "stream_bytes": run.stream_bytes,
                            "cross_ratio": traffic.cross_ratio, "cross_bytes": traffic.cross_bytes,
                            "copies_imported": traffic.imported,
                        })
                    })
                    .collect();
                json!({ "map": case.name(), "runs": runs })
            })
            .collect();
        let checks: Vec<Value> = checks
            .iter()
            .map(|(name, ok, detail)| json!({ "name": name, "ok": ok, "detail": detail }))
            .collect();
        json!({
            "schema": 1, "commit": done[0].runs[0].commit, "command": trial::command_line(), "machine": report::machine(),
            "peers": self.viewers, "duration_ms": self.duration.as_millis() as u64, "rate_bps": self.rate,
            "ranges": self.sizes(), "cross_ratio_by_lot": expected(&self.sizes()), "cases": cases, "checks": checks,
            "ok": ok,
        })
    }

    fn section(&self, done: &[Done], checks: &[(String, bool, String)], date: &str) -> String {
        let lines: Vec<String> = checks
            .iter()
            .map(|(name, ok, detail)| format!("- {}{name}: {detail}", if *ok { "" } else { "**missed** " }))
            .collect();
        format!(
            "{date}, commit {}, {}. {} viewers at {} kbit/s, {} s measured after {} s, {} runs each, the source sends {} \
             copies.\nCommand: `{}`\n\n{}\nWith everybody's map beside none:\n\n{}\n",
            done[0].runs[0].commit,
            report::machine(),
            self.viewers,
            self.rate / 1000,
            self.duration.as_secs(),
            self.warm_up.as_secs(),
            self.common.runs,
            self.source_copies,
            trial::command_line(),
            self.tables(done),
            lines.join("\n"),
        )
    }
}

fn of(runs: &[Run], value: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    median(&runs.iter().filter_map(value).collect::<Vec<_>>())
}

fn figures(done: &[Done]) -> String {
    let header =
        ["map", "crosses", "MB across", "imported copies", "p95", "continuity", "missing", "wire ÷ useful"];
    let mut lines = vec![header.map(str::to_owned)];
    for Done { case, runs } in done {
        let shown = |value: Option<f64>, unit: Unit| value.map_or_else(|| "–".to_owned(), |v| unit.shown(v));
        let ranges = runs.first().map_or(0, |run| run.between.len());
        let imported = (0..ranges)
            .map(|range| shown(of(runs, |run| Some(Traffic::of(run).imported[range])), Unit::Ratio));
        let across = of(runs, |run| Some(Traffic::of(run).cross_bytes / 1e6));
        lines.push([
            case.name().to_owned(),
            shown(of(runs, |run| Some(Traffic::of(run).cross_ratio)), Unit::Percent),
            across.map_or_else(|| "–".to_owned(), |mb| format!("{mb:.1}")),
            imported.collect::<Vec<_>>().join(", "),
            shown(of(runs, |run| run.get("chunk_delay_ms/p95")), Unit::Ms),
            shown(of(runs, |run| run.get("continuity/1500")), Unit::Percent),
            shown(of(runs, |run| run.get("missing_since_start")), Unit::Count),
            shown(of(runs, |run| run.get("wire_ratio")), Unit::Ratio),
        ]);
    }
    report::aligned(&lines)
}

/// Means of the runs.
fn matrix(runs: &[Run]) -> String {
    let mean = |from: usize, to: usize| {
        let sum: u64 = runs.iter().map(|run| run.between[from][to]).sum();
        format!("{:.1}", sum as f64 / runs.len() as f64 / 1e6)
    };
    let mut lines = vec![["", "0", "1", "2", "3"].map(str::to_owned)];
    for from in 0..SHARES.len() {
        lines.push([from.to_string(), mean(from, 0), mean(from, 1), mean(from, 2), mean(from, 3)]);
    }
    report::aligned(&lines)
}

/// What is asked of everybody's map, beside none: name, whether it holds, figures. By medians of the runs.
fn checks(done: &[Done]) -> Vec<(String, bool, String)> {
    let find = |case: Case| done.iter().find(|done| done.case == case).map(|done| done.runs.as_slice());
    let (Some(off), Some(on)) = (find(Case::Nobody), find(Case::All)) else { return Vec::new() };
    let cross = |runs: &[Run]| of(runs, |run| Some(Traffic::of(run).cross_bytes)).unwrap_or(f64::NAN);
    let saved = 1.0 - cross(on) / cross(off);
    let imported =
        of(on, |run| Traffic::of(run).imported.into_iter().max_by(f64::total_cmp)).unwrap_or(f64::NAN);
    let figure = |runs: &[Run], path: &str| of(runs, |run| run.get(path)).unwrap_or(f64::NAN);
    let delay = figure(on, "chunk_delay_ms/p95") / figure(off, "chunk_delay_ms/p95");
    let lost = figure(off, "continuity/1500") - figure(on, "continuity/1500");
    let check = |name: &str, value: f64, target: Target, unit: Unit| {
        let asked = target.shown(unit).unwrap_or_default();
        (name.to_owned(), target.met(value), format!("{} (asked: {asked})", unit.shown(value)))
    };
    vec![
        check("bytes across that a map saves", saved, Target::AtLeast(SAVED_MIN), Unit::Percent),
        check("copies that a range imports, at most", imported, Target::AtMost(IMPORTED_MAX), Unit::Ratio),
        check("chunk delay p95, with ÷ without", delay, Target::AtMost(DELAY_MAX), Unit::Ratio),
        check("continuity lost", lost, Target::AtMost(CONTINUITY_LOST_MAX), Unit::Percent),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_unequal_and_hold_everybody() {
        for peers in [17, 41, 200] {
            let sizes = sizes(peers);
            assert_eq!(sizes.iter().sum::<usize>(), peers);
            assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes[0] > sizes[3], "{sizes:?}");
        }
        assert!((expected(&[40, 30, 20, 10]) - 0.7).abs() < 1e-9);
    }

    #[test]
    fn what_crosses_and_what_is_imported() {
        let run = Run { between: vec![vec![50, 10], vec![30, 10]], stream_bytes: 20.0, ..Run::default() };
        let traffic = Traffic::of(&run);
        assert_eq!((traffic.cross_ratio, traffic.cross_bytes), (0.4, 40.0));
        assert_eq!(traffic.imported, [1.5, 0.5]);
    }
}
