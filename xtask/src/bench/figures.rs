//! What nodes report, and what a run comes to. A figure that a node does not report is absent here, never guessed.

use super::netns::Wire;
use super::process::Cost;
use super::snowball::Snowball;
use super::stream::Stream;
use serde_json::Value;
use std::collections::BTreeMap;

/// How much media a part is, ms.
const PART_MS: f64 = 200.0;

/// A viewer that counts fewer chunks as due than this share of what the source signed has not heard of them.
const DUE_LEAST: f64 = 0.9;

/// A viewer's or a source's stats at one moment; counters run from the node's start.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats {
    json: Value,
}

impl Stats {
    pub(super) fn new(json: Value) -> Self {
        Self { json }
    }

    /// The number at a path like `chunks/missing`.
    pub(super) fn number(&self, path: &str) -> Option<f64> {
        path.split('/').try_fold(&self.json, |value, key| value.get(key)).and_then(Value::as_f64)
    }

    /// The text under `key`.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.json.get(key).and_then(Value::as_str)
    }

    /// How often something took at most so many microseconds, not cumulative.
    fn histogram(&self, key: &str) -> Option<BTreeMap<u64, u64>> {
        let buckets = self.json.get(key)?.as_object()?;
        let mut histogram = BTreeMap::new();
        for (upper_ms, count) in buckets {
            // The last bucket has no upper end ("inf", "+Inf").
            let upper_us = match upper_ms.parse::<f64>() {
                Ok(ms) if ms.is_finite() => (ms * 1e3).round() as u64,
                _ => u64::MAX,
            };
            *histogram.entry(upper_us).or_default() += count.as_u64()?;
        }
        Some(histogram)
    }

    /// The least round-trip time to any neighbour.
    fn rtt_ms(&self) -> Option<f64> {
        let peers = self.json.get("peers")?.as_array()?;
        peers
            .iter()
            .filter_map(|peer| peer["rtt_ms"].as_f64())
            .filter(|rtt| *rtt > 0.0)
            .min_by(f64::total_cmp)
    }
}

/// Everything that was read at one end of the measured window.
pub(super) struct Snapshot {
    pub(super) at_s: f64,
    pub(super) source: Stats,
    pub(super) viewers: Vec<Stats>,
    /// The source first, then the viewers; so is `costs`.
    pub(super) wire: Vec<Wire>,
    pub(super) costs: Vec<Cost>,
    /// Seconds worked and seconds available on all cores.
    pub(super) machine: (f64, f64),
}

/// How the peers' uplinks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As fast as the machine.
    Open,
    /// Bit/s of the source and of each viewer.
    Narrow { source_bps: u64, viewer_bps: u64 },
}

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Narrow { .. } => "narrow",
        }
    }
}

/// The figures of one run, by the path that they have in a report.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// What the measured program says it was built from.
    pub(super) commit: String,
    pub(super) figures: BTreeMap<&'static str, f64>,
    /// What the delays are: of the window by histogram, or by the nodes' own percentiles since their start.
    pub(super) delay_basis: &'static str,
    /// IP bytes from each range of addresses to each, where the plan has ranges.
    pub(super) between: Vec<Vec<u64>>,
    /// Stream bytes that the source signed meanwhile.
    pub(super) stream_bytes: f64,
}

impl Run {
    pub(super) fn set(&mut self, path: &'static str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.figures.insert(path, value);
        }
    }

    pub(super) fn get(&self, path: &str) -> Option<f64> {
        self.figures.get(path).copied()
    }
}

/// What happened between two snapshots, with the nodes' final reports.
pub(super) struct Window<'a> {
    pub(super) before: &'a Snapshot,
    pub(super) after: &'a Snapshot,
    pub(super) reports: &'a [Stats],
    pub(super) oversize_packets: u64,
    pub(super) source_copies: usize,
    pub(super) shape: Shape,
}

impl Window<'_> {
    /// Works the run out.
    pub(super) fn run(&self) -> Run {
        let mut run = Run::default();
        self.bytes(&mut run);
        self.chunks(&mut run);
        self.received(&mut run);
        self.delays(&mut run);
        self.costs(&mut run);
        let of_reports =
            |path: &str| self.reports.iter().filter_map(|report| report.number(path)).collect::<Vec<_>>();
        let mut startups = of_reports("startup_ms");
        startups.sort_by(f64::total_cmp);
        run.set("startup_ms/p50", percentile(&startups, 50.0));
        run.set("startup_ms/p90", percentile(&startups, 90.0));
        run.set("startup_ms/p95", percentile(&startups, 95.0));
        for at in ["continuity/1500", "continuity/2000"] {
            run.set(at, of_reports(at).into_iter().min_by(f64::total_cmp));
        }
        run.set("missing_since_start", all(self.reports, |report| report.number("chunks/missing")));
        run.set("oversize_packets", Some(self.oversize_packets as f64));
        self.reference(&mut run);
        run
    }

    /// The growth of a counter in the window, summed over the viewers; `None` when any does not report it.
    fn growth(&self, path: &str) -> Option<f64> {
        let pairs = self.before.viewers.iter().zip(&self.after.viewers);
        pairs.map(|(before, after)| Some(after.number(path)? - before.number(path)?)).sum()
    }

    fn bytes(&self, run: &mut Run) {
        let out: Vec<f64> = self
            .before
            .wire
            .iter()
            .zip(&self.after.wire)
            .map(|(before, after)| (after.out_bytes - before.out_bytes) as f64)
            .collect();
        let wire: f64 = out.iter().sum();
        let useful = self.growth("useful_bytes");
        run.set("wire_ratio", useful.map(|useful| wire / useful));
        run.set("useful_bytes", useful);
        let from_source = self.growth("useful_bytes_from_source");
        run.set(
            "offload_ratio",
            from_source.zip(useful).map(|(from_source, useful)| 1.0 - from_source / useful),
        );
        let stream = self.after.source.number("useful_bytes").zip(self.before.source.number("useful_bytes"));
        let stream = stream.map(|(after, before)| after - before);
        run.set("source_copies", stream.zip(out.first()).map(|(stream, out)| out / stream));
        let own = self.after.source.number("duration_ms").zip(self.before.source.number("duration_ms"));
        let seconds =
            own.map_or(self.after.at_s - self.before.at_s, |(after, before)| (after - before) / 1e3);
        run.set("rate_bps", stream.map(|stream| stream * 8.0 / seconds));
    }

    fn chunks(&self, run: &mut Run) {
        let [due, on_time, late, missing, duplicate] = ["due", "on_time", "late", "missing", "duplicate"]
            .map(|name| self.growth(&format!("chunks/{name}")));
        run.set("chunks/due", due);
        run.set("chunks/on_time", on_time);
        run.set("chunks/late", late);
        run.set("chunks/missing", missing);
        run.set("chunks/duplicate", duplicate);
        let received =
            self.growth("chunks_received").or(due.zip(missing).map(|(due, missing)| due - missing));
        run.set("duplicate_ratio", duplicate.zip(received).map(|(duplicate, received)| duplicate / received));
        let ratios = self.after.viewers.iter().map(|viewer| viewer.number("control_ratio"));
        run.set(
            "control_ratio",
            ratios.sum::<Option<f64>>().map(|sum| sum / self.after.viewers.len() as f64),
        );
        let sizes: Option<Vec<f64>> =
            self.after.viewers.iter().map(|viewer| viewer.number("chunk_payload_bytes")).collect();
        run.set("chunk_payload_bytes", sizes.and_then(|sizes| median(&sizes)));
    }

    /// What each viewer got of the stream, and by when, and what the source sent for it.
    fn received(&self, run: &mut Run) {
        let window_s = self.after.at_s - self.before.at_s;
        let viewers = || self.before.viewers.iter().zip(&self.after.viewers);
        let grown =
            |(before, after): (&Stats, &Stats), path: &str| Some(after.number(path)? - before.number(path)?);
        // Nodes are asked one after the other: each by its own clock, where it says what that is.
        let rate = |pair: (&Stats, &Stats)| {
            let seconds = grown(pair, "duration_ms").map_or(window_s, |ms| ms / 1e3);
            Some(grown(pair, "useful_bytes")? * 8.0 / seconds)
        };
        if let Some(rates) = viewers().map(rate).collect::<Option<Vec<f64>>>() {
            run.set("received_bps/mean", Some(rates.iter().sum::<f64>() / rates.len() as f64));
            run.set("received_bps/min", rates.into_iter().min_by(f64::total_cmp));
        }
        let each = |path: &str| viewers().map(|pair| grown(pair, path)).collect::<Option<Vec<f64>>>();
        if let (Some(due), Some(on_time), Some(missing)) =
            (each("chunks/due"), each("chunks/on_time"), each("chunks/missing"))
        {
            let signed =
                grown((&self.before.source, &self.after.source), "chunks_signed").unwrap_or_default();
            // Who hears nothing does not know what is due; otherwise the two differ by what is under way.
            let expected: Vec<f64> =
                due.iter().map(|due| if *due < signed * DUE_LEAST { signed } else { *due }).collect();
            let all = expected.iter().sum::<f64>();
            run.set("on_time_ratio", Some(on_time.iter().sum::<f64>() / all));
            let ratios = on_time.iter().zip(&expected).map(|(on_time, expected)| on_time / expected);
            run.set("on_time_ratio_min", ratios.min_by(f64::total_cmp));
            let came = due.iter().sum::<f64>() - missing.iter().sum::<f64>();
            run.set("received_ratio", Some(came / all));
        }
        let started = self.reports.iter().filter(|report| report.number("startup_ms").is_some()).count();
        run.set("started_ratio", Some(started as f64 / self.reports.len() as f64));
        let source = self.before.wire.first().zip(self.after.wire.first());
        let out = source.map(|(before, after)| (after.out_bytes - before.out_bytes) as f64);
        run.set("source_bps/mean", out.map(|out| out * 8.0 / window_s));
    }

    fn delays(&self, run: &mut Run) {
        let of = |path: &'static str| self.after.viewers.iter().filter_map(move |viewer| viewer.number(path));
        run.set("chunk_delay_ms/max", of("chunk_delay_ms/max").max_by(f64::total_cmp));
        let gaps = self.histogram("arrival_gap_histogram_ms");
        run.set("arrival_gap_ms/window_max", gaps.and_then(|gaps| histogram_percentile_ms(&gaps, 100.0)));
        if let Some(histogram) = self.histogram("chunk_delay_histogram_ms") {
            run.delay_basis = "all chunks of all viewers in the window, upper ends of histogram buckets";
            run.set("chunk_delay_ms/p50", histogram_percentile_ms(&histogram, 50.0));
            run.set("chunk_delay_ms/p95", histogram_percentile_ms(&histogram, 95.0));
            run.set("chunk_delay_ms/p99", histogram_percentile_ms(&histogram, 99.0));
            run.set("chunk_delay_ms/window_max", histogram_percentile_ms(&histogram, 100.0));
        } else {
            run.delay_basis = "median viewer's p50, worst viewer's p95 and p99, since each viewer's start";
            run.set("chunk_delay_ms/p50", median(&of("chunk_delay_ms/p50").collect::<Vec<_>>()));
            run.set("chunk_delay_ms/p95", of("chunk_delay_ms/p95").max_by(f64::total_cmp));
            run.set("chunk_delay_ms/p99", of("chunk_delay_ms/p99").max_by(f64::total_cmp));
        }
    }

    /// The growth of a histogram in the window, summed over the viewers.
    fn histogram(&self, key: &str) -> Option<BTreeMap<u64, u64>> {
        let mut sum: BTreeMap<u64, u64> = BTreeMap::new();
        for (before, after) in self.before.viewers.iter().zip(&self.after.viewers) {
            let before = before.histogram(key)?;
            for (upper, count) in after.histogram(key)? {
                *sum.entry(upper).or_default() +=
                    count.saturating_sub(before.get(&upper).copied().unwrap_or(0));
            }
        }
        Some(sum)
    }

    fn costs(&self, run: &mut Run) {
        let seconds = self.after.at_s - self.before.at_s;
        let pairs = || self.before.costs.iter().zip(&self.after.costs);
        let cpu: Vec<f64> =
            pairs().map(|(before, after)| (after.cpu_seconds - before.cpu_seconds) / seconds).collect();
        let switches: Vec<f64> = pairs()
            .map(|(before, after)| after.switches.saturating_sub(before.switches) as f64 / seconds)
            .collect();
        let (Some((source_cpu, cpu)), Some((_, switches))) = (cpu.split_first(), switches.split_first())
        else {
            return;
        };
        run.set("cpu_core_share_source", Some(*source_cpu));
        run.set("cpu_core_share_per_peer", median(cpu));
        run.set("cpu_core_share_per_peer_max", cpu.iter().copied().max_by(f64::total_cmp));
        run.set("context_switches_per_second", median(switches));
        run.set("context_switches_per_second_max", switches.iter().copied().max_by(f64::total_cmp));
        let (busy, all) =
            (self.after.machine.0 - self.before.machine.0, self.after.machine.1 - self.before.machine.1);
        run.set("machine_busy_ratio", Some(busy / all));
    }

    /// The greedy snowball for this run's chunk size and round-trip time, where uplinks are narrow.
    fn reference(&self, run: &mut Run) {
        let Shape::Narrow { source_bps, viewer_bps } = self.shape else { return };
        let rtts = self.before.viewers.iter().filter_map(Stats::rtt_ms);
        let (Some(chunk_bytes), Some(rtt_ms)) = (run.get("chunk_payload_bytes"), rtts.min_by(f64::total_cmp))
        else {
            return;
        };
        run.set("reference_rtt_ms", Some(rtt_ms));
        let ball = Snowball {
            chunk_bytes,
            source_bps: source_bps as f64,
            source_copies: Some(self.source_copies),
            peers_bps: vec![viewer_bps as f64; self.after.viewers.len()],
            propagation_ms: rtt_ms / 2.0,
        };
        let delays = ball.delays_ms();
        for (measured, reference, ratio, p) in [
            ("chunk_delay_ms/p50", "reference_delay_ms/p50", "delay_ratio/p50", 50.0),
            ("chunk_delay_ms/p95", "reference_delay_ms/p95", "delay_ratio/p95", 95.0),
            ("chunk_delay_ms/p99", "reference_delay_ms/p99", "delay_ratio/p99", 99.0),
        ] {
            let value = percentile(&delays, p);
            run.set(reference, value);
            run.set(ratio, run.get(measured).zip(value).map(|(measured, value)| measured / value));
        }
        let chunks_per_part =
            run.get("rate_bps").map_or(1.0, |bps| bps * PART_MS / 8e3 / chunk_bytes).round();
        let stream =
            Stream { ball: &ball, chunks_per_part: chunks_per_part.max(1.0) as usize, part_ms: PART_MS };
        let p95 = percentile(&stream.delays_ms(), 95.0);
        run.set("reference_stream_delay_ms/p95", p95);
        run.set("stream_delay_ratio/p95", run.get("chunk_delay_ms/p95").zip(p95).map(|(a, b)| a / b));
        let work = stream.work_bound_ms();
        for (bound, ratio, measured, p) in [
            ("work_bound_ms/p50", "work_bound_ratio/p50", "chunk_delay_ms/p50", 50.0),
            ("work_bound_ms/p95", "work_bound_ratio/p95", "chunk_delay_ms/p95", 95.0),
        ] {
            let value = percentile(&work, p);
            run.set(bound, value);
            run.set(ratio, run.get(measured).zip(value).map(|(measured, value)| measured / value));
        }
        let unlimited = Snowball { source_copies: None, ..ball }.delays_ms();
        run.set("reference_delay_unlimited_source_ms/p50", percentile(&unlimited, 50.0));
        run.set("reference_delay_unlimited_source_ms/p95", percentile(&unlimited, 95.0));
        run.set("reference_delay_unlimited_source_ms/p99", percentile(&unlimited, 99.0));
    }
}

/// A sum in which nothing may be absent.
fn all(stats: &[Stats], figure: impl Fn(&Stats) -> Option<f64>) -> Option<f64> {
    stats.iter().map(figure).sum()
}

/// The nearest-rank percentile of sorted values.
pub(super) fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    let rank = (p / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

/// The median; the mean of the two middle values when their number is even.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

/// The upper end of the bucket in which the percentile lies; infinite in the last bucket.
fn histogram_percentile_ms(histogram: &BTreeMap<u64, u64>, p: f64) -> Option<f64> {
    let total: u64 = histogram.values().sum();
    let rank = (p / 100.0 * total as f64).ceil().max(1.0) as u64;
    let mut below = 0;
    histogram.iter().find_map(|(upper_us, count)| {
        below += count;
        (below >= rank).then_some(if *upper_us == u64::MAX { f64::INFINITY } else { *upper_us as f64 / 1e3 })
    })
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
