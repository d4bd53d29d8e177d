//! Targets, the table that a person reads, the JSON report, and the table in `docs/benchmarks.md`.
//! A target is held against the worst run, and a figure that was not reported misses it.

use super::figures::{Run, Shape, median};
use crate::{sh, workspace};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::Command;

/// How a figure is written.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Ratio,
    Percent,
    Ms,
    Count,
}

/// What a figure must be.
#[derive(Clone, Copy)]
pub(super) enum Target {
    None,
    AtMost(f64),
    AtLeast(f64),
    Below(f64),
}

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    path: &'static str,
    label: &'static str,
    unit: Unit,
    open: Target,
    narrow: Target,
    /// PeerStreamer's older engine with 20 peers at 1 Mbit/s, where it was measured.
    peerstreamer: Option<f64>,
}

const fn row(path: &'static str, label: &'static str, unit: Unit, open: Target, narrow: Target) -> Row {
    Row { path, label, unit, open, narrow, peerstreamer: None }
}

const fn cited(row: Row, peerstreamer: f64) -> Row {
    Row { peerstreamer: Some(peerstreamer), ..row }
}

use Target::{AtLeast, AtMost, Below, None as Free};
use Unit::{Count, Ms, Percent, Ratio};

const ROWS: &[Row] = &[
    cited(row("wire_ratio", "wire ÷ useful", Ratio, AtMost(1.12), Free), 1.043),
    row("duplicate_ratio", "duplicates", Percent, Below(0.005), Free),
    row("missing_since_start", "chunks lost, all viewers", Count, AtMost(0.0), AtMost(0.0)),
    cited(row("chunk_delay_ms/p50", "chunk delay p50", Ms, Free, Free), 56.0),
    cited(row("chunk_delay_ms/p95", "chunk delay p95", Ms, AtMost(250.0), Free), 167.0),
    cited(row("chunk_delay_ms/p99", "chunk delay p99", Ms, Free, Free), 272.0),
    row("chunk_delay_ms/max", "chunk delay, largest since start", Ms, Free, Free),
    row("reference_delay_ms/p50", "greedy snowball p50", Ms, Free, Free),
    row("reference_delay_ms/p95", "greedy snowball p95", Ms, Free, Free),
    row("reference_delay_ms/p99", "greedy snowball p99", Ms, Free, Free),
    row("reference_delay_unlimited_source_ms/p95", "greedy snowball p95, source unlimited", Ms, Free, Free),
    row("reference_stream_delay_ms/p95", "greedy reference for whole parts p95", Ms, Free, Free),
    row("stream_delay_ratio/p95", "p95 ÷ that reference", Ratio, Free, Free),
    row("work_bound_ms/p50", "work bound p50", Ms, Free, Free),
    row("work_bound_ms/p95", "work bound p95", Ms, Free, Free),
    row("work_bound_ratio/p50", "p50 ÷ work bound", Ratio, Free, Free),
    row("work_bound_ratio/p95", "p95 ÷ work bound", Ratio, Free, Free),
    row("delay_ratio/p50", "p50 ÷ snowball", Ratio, Free, Free),
    row("delay_ratio/p95", "p95 ÷ snowball", Ratio, Free, AtMost(1.5)),
    row("delay_ratio/p99", "p99 ÷ snowball", Ratio, Free, Free),
    cited(
        row("cpu_core_share_per_peer", "CPU of a core per viewer, median", Percent, AtMost(0.015), Free),
        0.010,
    ),
    row("cpu_core_share_per_peer_max", "CPU of a core per viewer, largest", Percent, Free, Free),
    row("context_switches_per_second", "context switches per viewer and second, median", Count, Free, Free),
    row(
        "context_switches_per_second_max",
        "context switches per viewer and second, largest",
        Count,
        Free,
        Free,
    ),
    row("cpu_core_share_source", "CPU of a core, source (with its encoder)", Percent, Free, Free),
    row("machine_busy_ratio", "the whole machine's cores busy", Percent, Free, Free),
    row("source_copies", "source copies", Ratio, Free, Free),
    row("offload_ratio", "offload", Percent, Free, Free),
    row("control_ratio", "control", Percent, Free, Free),
    row("continuity/1500", "continuity at 1.5 s, worst viewer", Percent, Free, Free),
    row("startup_ms/p50", "startup p50", Ms, Free, Free),
    row("startup_ms/p95", "startup p95", Ms, Free, Free),
    row("chunk_payload_bytes", "chunk payload, bytes", Count, Free, Free),
    row("oversize_packets", "packets larger than the MTU", Count, AtMost(0.0), AtMost(0.0)),
];

/// All runs of one shape.
pub(super) struct Shaped {
    pub(super) shape: Shape,
    pub(super) runs: Vec<Run>,
}

/// What was asked for.
pub(super) struct Setup {
    pub(super) viewers: usize,
    pub(super) rate_bps: u64,
    pub(super) duration_ms: u64,
    pub(super) source_copies: usize,
    pub(super) command: String,
    /// What the measured program was built from.
    pub(super) commit: String,
}

/// A target that a figure was held against.
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

impl Row {
    fn target(&self, shape: Shape) -> Target {
        if shape == Shape::Open { self.open } else { self.narrow }
    }

    fn values(&self, shaped: &Shaped) -> Vec<f64> {
        shaped.runs.iter().filter_map(|run| run.get(self.path)).collect()
    }

    /// The worst of the runs: the smallest where more is better, else the largest.
    fn worst(&self, shaped: &Shaped) -> Option<f64> {
        let values = self.values(shaped).into_iter();
        let more_is_better = matches!(self.path, "offload_ratio" | "continuity/1500");
        if more_is_better { values.min_by(f64::total_cmp) } else { values.max_by(f64::total_cmp) }
    }

    fn check(&self, shaped: &Shaped) -> Option<Check> {
        let target = self.target(shaped.shape);
        let asked = target.shown(self.unit)?;
        let complete = self.values(shaped).len() == shaped.runs.len();
        let worst = self.worst(shaped).filter(|_| complete);
        let shown = worst.map_or_else(|| "not reported".to_owned(), |worst| self.unit.shown(worst));
        Some(Check {
            name: format!("{}: {}", shaped.shape.name(), self.path),
            ok: worst.is_some_and(|worst| target.met(worst)),
            detail: format!("{}: worst of {} {shown}, target {asked}", self.label, shaped.runs.len()),
        })
    }
}

impl Target {
    pub(super) fn met(self, value: f64) -> bool {
        match self {
            Free => true,
            AtMost(limit) => value <= limit,
            AtLeast(limit) => value >= limit,
            Below(limit) => value < limit,
        }
    }

    pub(super) fn shown(self, unit: Unit) -> Option<String> {
        match self {
            Free => None,
            AtMost(0.0) => Some("none".to_owned()),
            AtMost(limit) => Some(format!("≤ {}", unit.shown(limit))),
            AtLeast(limit) => Some(format!("≥ {}", unit.shown(limit))),
            Below(limit) => Some(format!("< {}", unit.shown(limit))),
        }
    }
}

impl Unit {
    pub(super) fn shown(self, value: f64) -> String {
        match self {
            Ratio => format!("{value:.3}"),
            Percent => format!("{:.2} %", value * 100.0),
            Ms => format!("{value:.0} ms"),
            Count => format!("{value:.0}"),
        }
    }
}

/// Whether every target was met, and the report as JSON in the project's vocabulary.
pub(super) fn report(setup: &Setup, shapes: &[Shaped]) -> (bool, Value) {
    let checks: Vec<Check> =
        shapes.iter().flat_map(|shaped| ROWS.iter().filter_map(|row| row.check(shaped))).collect();
    let ok = checks.iter().all(|check| check.ok);
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| json!({"name": check.name, "ok": check.ok, "detail": check.detail}))
        .collect();
    let mut results = Map::new();
    for shaped in shapes {
        let runs: Vec<Value> = shaped
            .runs
            .iter()
            .map(|run| {
                let mut value = nested(run.figures.iter().map(|(path, figure)| (*path, *figure)));
                value["delay_basis"] = run.delay_basis.into();
                value
            })
            .collect();
        let medians = paths(shaped).into_iter().filter_map(|path| {
            let values: Vec<f64> = shaped.runs.iter().filter_map(|run| run.get(path)).collect();
            Some((path, median(&values)?))
        });
        let mut result = nested(medians);
        result["worst"] = nested(ROWS.iter().filter_map(|row| Some((row.path, row.worst(shaped)?))));
        result["runs"] = runs.into();
        if let Shape::Narrow { source_bps, viewer_bps } = shaped.shape {
            result["uplink_bps"] = json!({"source": source_bps, "viewer": viewer_bps});
        }
        results.insert(shaped.shape.name().to_owned(), result);
    }
    let report = json!({
        "schema": 1, "commit": setup.commit, "command": setup.command, "machine": machine(),
        "peers": setup.viewers, "duration_ms": setup.duration_ms, "rate_bps": setup.rate_bps,
        "source_copies_budget": setup.source_copies, "shapes": results, "checks": checks, "ok": ok,
    });
    (ok, report)
}

fn paths(shaped: &Shaped) -> Vec<&'static str> {
    let mut paths: Vec<&'static str> =
        shaped.runs.iter().flat_map(|run| run.figures.keys().copied()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// `{"a/b": 1}` as `{"a": {"b": 1}}`.
fn nested<'a>(figures: impl Iterator<Item = (&'a str, f64)>) -> Value {
    let mut object = json!({});
    for (path, figure) in figures {
        let mut at = &mut object;
        for key in path.split('/') {
            at = &mut at[key];
        }
        *at = json!(figure);
    }
    object
}

/// The table of one shape, as Markdown that also reads well in a terminal.
pub(super) fn table(shaped: &Shaped) -> String {
    let header = ["figure", "median", "worst", "target", "", "PeerStreamer ¹"].map(str::to_owned);
    let mut lines = vec![header];
    for row in ROWS {
        let values = row.values(shaped);
        let target = row.target(shaped.shape).shown(row.unit);
        if values.is_empty() && target.is_none() {
            continue;
        }
        let shown = |value: Option<f64>| {
            value.map_or_else(|| "not reported".to_owned(), |value| row.unit.shown(value))
        };
        let verdict = row.check(shaped).map_or("", |check| if check.ok { "ok" } else { "FAIL" });
        let cited = row.peerstreamer.filter(|_| shaped.shape == Shape::Open);
        lines.push([
            row.label.to_owned(),
            shown(median(&values)),
            shown(row.worst(shaped)),
            target.unwrap_or_default(),
            verdict.to_owned(),
            cited.map(|value| row.unit.shown(value)).unwrap_or_default(),
        ]);
    }
    aligned(&lines)
}

/// A Markdown table whose columns stand below each other; the first line is its head.
pub(super) fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("| {cell:<width$} "));
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let (left, right) = if column == 0 { (":", "-") } else { ("-", ":") };
                text.push_str(&format!("|{left}{}{right}", "-".repeat(*width)));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// What PeerStreamer's figures are.
pub(super) const FOOTNOTE: &str = "¹ PeerStreamer's older engine, 20 peers at 1 Mbit/s, our own earlier measurement \
    on two cores: jumbo frames (its wire ÷ useful would be higher at MTU 1,500) and no cryptography.";

/// The section for `docs/benchmarks.md`.
fn section(setup: &Setup, shapes: &[Shaped], date: &str) -> String {
    let mut text = format!(
        "{date}, commit {}, {}. {} viewers at {} kbit/s, {} s measured, {} runs, the source sends {} copies.\n\
         Command: `{}`\n",
        setup.commit,
        machine(),
        setup.viewers,
        setup.rate_bps / 1000,
        setup.duration_ms / 1000,
        shapes.first().map_or(0, |shaped| shaped.runs.len()),
        setup.source_copies,
        setup.command,
    );
    for shaped in shapes {
        text.push_str(&format!("\n{}\n\n{}", title(shaped.shape), table(shaped)));
        if let Some(run) = shaped.runs.first() {
            text.push_str(&format!("\nDelays: {}.\n", run.delay_basis));
        }
    }
    text.push_str(&format!("\n{FOOTNOTE}\n"));
    text
}

/// What a shape is, as a heading.
pub(super) fn title(shape: Shape) -> String {
    match shape {
        Shape::Open => "### Uplinks open".to_owned(),
        Shape::Narrow { source_bps, viewer_bps } => {
            format!(
                "### Uplinks narrowed: viewers {:.1} Mbit/s, source {:.1} Mbit/s",
                viewer_bps as f64 / 1e6,
                source_bps as f64 / 1e6
            )
        }
    }
}

/// The lines in `docs/benchmarks.md` between which a benchmark's section stands.
fn markers(bench: &str) -> (String, String) {
    (
        format!("<!-- bench {bench}: begin (written by `cargo xtask bench {bench} --write-docs`) -->"),
        format!("<!-- bench {bench}: end -->"),
    )
}

/// Only the program of the commit that is checked out may fill the page.
pub(super) fn may_write_docs(built_from: &str) -> Result<()> {
    let here = workspace::commit();
    if built_from != here || here.ends_with("-dirty") {
        bail!(
            "--write-docs: the program was built from {built_from}, and {here} is checked out. \
             Commit, then build it again"
        );
    }
    Ok(())
}

/// Writes what `bench relay` measured into `docs/benchmarks.md`.
pub(super) fn write_docs(setup: &Setup, shapes: &[Shaped]) -> Result<()> {
    write_section("relay", &section(setup, shapes, &today()?))
}

/// Today, as year, month and day.
pub(super) fn today() -> Result<String> {
    Ok(sh::output(Command::new("date").args(["--utc", "+%F"]))?.trim().to_owned())
}

/// Replaces what stands between a benchmark's markers in `docs/benchmarks.md`.
pub(super) fn write_section(bench: &str, section: &str) -> Result<()> {
    let path = workspace::root().join("docs/benchmarks.md");
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replaced(&page, bench, section)?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    sh::say(&format!("written to {}", path.display()));
    Ok(())
}

fn replaced(page: &str, bench: &str, section: &str) -> Result<String> {
    let (begin, end) = markers(bench);
    let (before, rest) =
        page.split_once(&begin).with_context(|| format!("docs/benchmarks.md lacks the line {begin}"))?;
    let (_, after) =
        rest.split_once(&end).with_context(|| format!("docs/benchmarks.md lacks the line {end}"))?;
    Ok(format!("{before}{begin}\n{section}{end}{after}"))
}

/// Processor, cores and kernel.
pub(super) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new("/proc").join(path)).unwrap_or_default();
    let cpuinfo = read("cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let release = read("sys/kernel/osrelease");
    // Only the version: what follows it names a machine, not a kernel.
    let kernel = release.trim().split('-').next().unwrap_or("unknown").to_owned();
    format!("{model}, {cores} cores, Linux {kernel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(shape: Shape, runs: &[&[(&'static str, f64)]]) -> Shaped {
        let run = |figures: &&[(&'static str, f64)]| Run {
            commit: "test".into(),
            figures: figures.iter().copied().collect(),
            delay_basis: "test",
            ..Run::default()
        };
        Shaped { shape, runs: runs.iter().map(run).collect() }
    }

    fn setup() -> Setup {
        Setup {
            viewers: 20,
            rate_bps: 1_000_000,
            duration_ms: 60_000,
            source_copies: 2,
            command: "test".into(),
            commit: "test".into(),
        }
    }

    fn good() -> Vec<(&'static str, f64)> {
        vec![
            ("wire_ratio", 1.08),
            ("duplicate_ratio", 0.001),
            ("missing_since_start", 0.0),
            ("chunk_delay_ms/p95", 200.0),
            ("cpu_core_share_per_peer", 0.012),
            ("offload_ratio", 0.9),
            ("oversize_packets", 0.0),
        ]
    }

    #[test]
    fn targets_are_held_against_the_worst_run() {
        let mut bad = good();
        bad[0].1 = 1.13;
        let (ok, _) = report(&setup(), &[shaped(Shape::Open, &[&good(), &good(), &good()])]);
        assert!(ok);
        let (ok, json) = report(&setup(), &[shaped(Shape::Open, &[&good(), &bad, &good()])]);
        assert!(!ok && json["ok"] == false);
        let failed: Vec<&Value> =
            json["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0]["name"], "open: wire_ratio");
        assert_eq!(failed[0]["detail"], "wire ÷ useful: worst of 3 1.130, target ≤ 1.120");
    }

    #[test]
    fn what_is_not_reported_misses_its_target() {
        let shape = Shape::Narrow { source_bps: 6_000_000, viewer_bps: 1_500_000 };
        let shaped = shaped(shape, &[&good()]);
        let (ok, json) = report(&setup(), &[shaped]);
        assert!(!ok);
        let check = json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == "narrow: delay_ratio/p95");
        assert!(check.unwrap()["detail"].as_str().unwrap().contains("not reported"));
    }

    #[test]
    fn the_report_uses_the_shared_vocabulary() {
        let mut late = good();
        late[3].1 = 240.0;
        let (_, json) = report(&setup(), &[shaped(Shape::Open, &[&good(), &late, &good()])]);
        assert_eq!(json["schema"], 1);
        assert_eq!(json["shapes"]["open"]["chunk_delay_ms"]["p95"], 200.0);
        assert_eq!(json["shapes"]["open"]["worst"]["chunk_delay_ms"]["p95"], 240.0);
        assert_eq!(json["shapes"]["open"]["runs"][1]["chunk_delay_ms"]["p95"], 240.0);
    }

    #[test]
    fn the_table_says_ok_or_fail_and_cites_the_baseline() {
        let mut bad = good();
        bad[4].1 = 0.02;
        let table = table(&shaped(Shape::Open, &[&bad]));
        let line = |label: &str| table.lines().find(|line| line.contains(label)).unwrap().to_owned();
        assert!(line("wire ÷ useful").contains("| ok ") && line("wire ÷ useful").contains("1.043"));
        assert!(line("CPU of a core per viewer, median").contains("FAIL"));
        assert!(line("CPU of a core per viewer, median").contains("≤ 1.50 %"));
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let (begin, end) = markers("relay");
        let page = format!("# Head\n{begin}\nold\n{end}\ntail\n");
        let page = replaced(&page, "relay", "new\n").unwrap();
        assert_eq!(page, format!("# Head\n{begin}\nnew\n{end}\ntail\n"));
        assert!(replaced("no markers", "relay", "new").is_err());
        let real = std::fs::read_to_string(workspace::root().join("docs/benchmarks.md")).unwrap();
        for bench in ["relay", "swarm", "scale"] {
            assert!(replaced(&real, bench, "new\n").is_ok());
        }
    }
}
