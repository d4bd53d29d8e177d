//! Tests of [`super`]: windows made by hand, with round numbers.

use super::*;
use serde_json::json;

/// A viewer that has received so many chunks of 10,000 bytes, half of them from the source.
fn viewer(chunks: u64, duplicates: u64) -> Stats {
    Stats::new(json!({
        "useful_bytes": chunks * 10_000, "useful_bytes_from_source": chunks * 5_000, "chunk_payload_bytes": 10_000,
        "chunks": {"due": chunks, "on_time": chunks, "late": 0, "missing": 0, "duplicate": duplicates},
        "chunk_delay_ms": {"p50": 30, "p95": 60, "p99": 80, "max": 95}, "control_ratio": 0.01,
        "chunk_delay_histogram_ms": {"20": chunks / 2, "50": chunks - chunks / 2, "inf": 0},
        "peers": [{"rtt_ms": 4.0}, {"rtt_ms": 0.0}, {"rtt_ms": 9.5}],
        "startup_ms": 400, "continuity": {"1500": 0.999},
    }))
}

/// A snapshot with a source and two viewers after `seconds` at 10 chunks a second.
fn snapshot(seconds: u64) -> Snapshot {
    let chunks = seconds * 10;
    let wire = |bytes| Wire { out_bytes: bytes, out_packets: bytes / 1400 };
    let cost = |share: f64| Cost { cpu_seconds: share * seconds as f64, switches: 50 * seconds };
    Snapshot {
        at_s: seconds as f64,
        source: Stats::new(json!({"useful_bytes": chunks * 10_000})),
        viewers: vec![viewer(chunks, 0), viewer(chunks, seconds / 5)],
        wire: vec![wire(chunks * 12_000), wire(chunks * 4_000), wire(chunks * 5_000)],
        costs: vec![cost(0.4), cost(0.01), cost(0.03)],
        machine: (seconds as f64, 2.0 * seconds as f64),
    }
}

fn run_of(shape: Shape) -> Run {
    let (before, after) = (snapshot(10), snapshot(110));
    let reports = [viewer(1100, 0), viewer(1100, 22)];
    Window { before: &before, after: &after, reports: &reports, oversize_packets: 0, source_copies: 1, shape }
        .run()
}

#[track_caller]
fn assert_figure(run: &Run, path: &str, expected: f64) {
    let value = run.get(path).unwrap_or_else(|| panic!("{path} is absent"));
    assert!((value - expected).abs() < 1e-9, "{path}: {value}, expected {expected}");
}

#[test]
fn a_window_counts_what_happened_between_its_ends() {
    let run = run_of(Shape::Open);
    // 1,000 chunks to two viewers; 21,000 bytes on the wire for each chunk.
    assert_figure(&run, "useful_bytes", 20e6);
    assert_figure(&run, "wire_ratio", 1.05);
    assert_figure(&run, "source_copies", 1.2);
    assert_figure(&run, "offload_ratio", 0.5);
    assert_figure(&run, "rate_bps", 800_000.0);
    assert_figure(&run, "duplicate_ratio", 20.0 / 2000.0);
    assert_figure(&run, "cpu_core_share_per_peer", 0.02);
    assert_figure(&run, "cpu_core_share_per_peer_max", 0.03);
    assert_figure(&run, "context_switches_per_second", 50.0);
    assert_figure(&run, "machine_busy_ratio", 0.5);
    assert_figure(&run, "chunk_delay_ms/p50", 20.0);
    assert_figure(&run, "chunk_delay_ms/p95", 50.0);
    assert_figure(&run, "startup_ms/p95", 400.0);
    assert_eq!(run.get("reference_delay_ms/p95"), None);
}

#[test]
fn who_heard_nothing_missed_what_the_source_signed() {
    let (mut before, mut after) = (snapshot(10), snapshot(110));
    let silent =
        json!({"useful_bytes": 0, "chunks": {"due": 0, "on_time": 0, "missing": 0}, "duration_ms": 5_000});
    (before.viewers[1], after.viewers[1]) = (Stats::new(silent.clone()), Stats::new(silent));
    after.viewers[1].json["duration_ms"] = 105_000.into();
    (before.source.json["chunks_signed"], after.source.json["chunks_signed"]) = (100.into(), 1100.into());
    let (shape, reports) = (Shape::Open, [viewer(1100, 0), Stats::new(json!({"startup_ms": null}))]);
    let run = Window {
        before: &before,
        after: &after,
        reports: &reports,
        oversize_packets: 0,
        source_copies: 1,
        shape,
    }
    .run();
    assert_figure(&run, "on_time_ratio", 0.5);
    assert_figure(&run, "on_time_ratio_min", 0.0);
    assert_figure(&run, "received_ratio", 0.5);
    assert_figure(&run, "received_bps/mean", 400_000.0);
    assert_figure(&run, "received_bps/min", 0.0);
    assert_figure(&run, "started_ratio", 0.5);
    // 1,000 chunks in 100 s, 12,000 bytes for each.
    assert_figure(&run, "source_bps/mean", 960_000.0);
}

#[test]
fn narrow_uplinks_are_held_against_the_snowball() {
    let run = run_of(Shape::Narrow { source_bps: 4_208_000, viewer_bps: 841_600 });
    // 10,000 bytes with their headers take 20 ms from the source and 100 ms from a viewer; half of 4 ms to arrive.
    assert_figure(&run, "reference_delay_ms/p50", 22.0);
    assert_figure(&run, "reference_delay_ms/p95", 124.0);
    assert_figure(&run, "delay_ratio/p95", 50.0 / 124.0);
    assert_figure(&run, "reference_delay_unlimited_source_ms/p95", 42.0);
}

#[test]
fn what_a_node_does_not_report_is_absent_and_not_guessed() {
    let (mut before, mut after) = (snapshot(10), snapshot(110));
    for snapshot in [&mut before, &mut after] {
        snapshot.viewers[1] = Stats::new(json!({"chunk_delay_ms": {"p50": 50, "p95": 70}}));
    }
    let shape = Shape::Open;
    let run =
        Window { before: &before, after: &after, reports: &[], oversize_packets: 3, source_copies: 1, shape }
            .run();
    for path in ["wire_ratio", "duplicate_ratio", "offload_ratio", "chunk_payload_bytes", "startup_ms/p50"] {
        assert_eq!(run.get(path), None, "{path}");
    }
    // Without histograms: the median viewer's median, the worst viewer's tail.
    assert_figure(&run, "chunk_delay_ms/p50", 40.0);
    assert_figure(&run, "chunk_delay_ms/p95", 70.0);
    assert_figure(&run, "oversize_packets", 3.0);
}

#[test]
fn percentiles_are_nearest_ranks() {
    let values: Vec<f64> = (1..=20).map(f64::from).collect();
    assert_eq!(percentile(&values, 50.0), Some(10.0));
    assert_eq!(percentile(&values, 95.0), Some(19.0));
    assert_eq!(percentile(&values, 99.0), Some(20.0));
    assert_eq!(percentile(&values[..1], 50.0), Some(1.0));
    assert_eq!(percentile(&[], 50.0), None);
    assert_eq!(median(&[3.0, 1.0]), Some(2.0));
    assert_eq!(median(&[3.0, 1.0, 7.0]), Some(3.0));
}

#[test]
fn the_last_bucket_has_no_upper_end() {
    let histogram = Stats::new(json!({"delays": {"2.5": 98, "+Inf": 2}})).histogram("delays").unwrap();
    assert_eq!(histogram_percentile_ms(&histogram, 95.0), Some(2.5));
    assert_eq!(histogram_percentile_ms(&histogram, 99.0), Some(f64::INFINITY));
    assert_eq!(histogram_percentile_ms(&BTreeMap::new(), 99.0), None);
}
