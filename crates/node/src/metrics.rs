//! A report as Prometheus reads it (text exposition format 0.0.4): base units, counters end in `_total`. No label ever holds
//! an address, a peer or a channel.

use std::fmt::Write as _;

use serde_json::Value;

/// What Prometheus is told a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    /// A gauge in seconds, of a figure in milliseconds.
    Seconds,
}

/// Where a figure stands in a report, its name and kind, and what it says. Those that a report lacks are left out.
const FAMILIES: [(&str, &str, Kind, &str); 45] = [
    ("/ok", "ok", Kind::Gauge, "Whether all that must hold does."),
    ("/duration_ms", "uptime_seconds", Kind::Seconds, "Since the process started."),
    ("/rate_bps", "stream_rate_bps", Kind::Gauge, "Measured stream rate, bit/s."),
    (
        "/useful_bytes",
        "useful_bytes_total",
        Kind::Counter,
        "Unique payload bytes received, or signed by a source.",
    ),
    (
        "/useful_bytes_from_source",
        "useful_bytes_from_source_total",
        Kind::Counter,
        "Of those received, from the source.",
    ),
    (
        "/useful_bytes_from_edge",
        "useful_bytes_from_edge_total",
        Kind::Counter,
        "Of those received, over HTTP from an edge or a CDN in front of one.",
    ),
    ("/bytes_out", "payload_bytes_out_total", Kind::Counter, "Payload bytes sent to peers."),
    ("/control_bytes", "control_bytes_total", Kind::Counter, "Control bytes sent and received."),
    ("/control_ratio", "control_ratio", Kind::Gauge, "Control bytes sent and received / useful bytes."),
    ("/offload_ratio", "offload_ratio", Kind::Gauge, "Useful bytes from peers / useful bytes."),
    ("/duplicate_ratio", "duplicate_ratio", Kind::Gauge, "Duplicates / chunks received."),
    ("/source_copies", "source_copies", Kind::Gauge, "Payload bytes sent / stream bytes signed."),
    (
        "/startup_ms",
        "startup_seconds",
        Kind::Seconds,
        "From the start of the process to the first decodable part.",
    ),
    ("/chunks/due", "chunks_due_total", Kind::Counter, "Chunks that were due."),
    (
        "/chunks/on_time",
        "chunks_on_time_total",
        Kind::Counter,
        "Due chunks in time for a playout delay of 1.5 s.",
    ),
    ("/chunks/late", "chunks_late_total", Kind::Counter, "Due chunks that came later."),
    ("/chunks/missing", "chunks_missing_total", Kind::Counter, "Due chunks that never came."),
    ("/chunks/duplicate", "chunks_duplicate_total", Kind::Counter, "Chunks that came again."),
    ("/chunks_received", "chunks_received_total", Kind::Counter, "Chunks verified and new."),
    ("/chunks_pulled", "chunks_pulled_total", Kind::Counter, "Of those, in answer to a request."),
    ("/chunks_forged", "chunks_forged_total", Kind::Counter, "Chunks that were forged."),
    ("/chunks_signed", "chunks_signed_total", Kind::Counter, "Chunks signed."),
    ("/parts", "parts_total", Kind::Counter, "Parts handed to players."),
    ("/gaps", "gaps_total", Kind::Counter, "Holes stepped over."),
    ("/stalls", "stalls_total", Kind::Counter, "Times that a player 1.5 s behind would have stood still."),
    ("/rendition", "rendition", Kind::Gauge, "The number of the rendition that plays."),
    (
        "/rendition_changes",
        "rendition_changes_total",
        Kind::Counter,
        "How often another rendition was gone over to.",
    ),
    (
        "/buffer_ms",
        "buffer_seconds",
        Kind::Seconds,
        "Media ready beyond what a player 1.5 s behind would have played.",
    ),
    (
        "/upload_capacity_bps",
        "upload_capacity_bps",
        Kind::Gauge,
        "What the uplink is believed to carry, bit/s of chunks.",
    ),
    (
        "/upload_wait_ms",
        "upload_wait_seconds",
        Kind::Seconds,
        "How long a chunk to be sent now would wait for the uplink.",
    ),
    ("/parents", "parents", Kind::Gauge, "Substreams that a neighbour pushes to this node."),
    ("/children", "children", Kind::Gauge, "Neighbours that this node pushes to, over all substreams."),
    (
        "/network/received_inside",
        "received_inside_ratio",
        Kind::Gauge,
        "Useful bytes from the own network / useful bytes, where a map of the network says what that is.",
    ),
    ("/network/sent_inside", "sent_inside_ratio", Kind::Gauge, "The same of what was sent."),
    (
        "/network/map_age_ms",
        "map_age_seconds",
        Kind::Seconds,
        "Since it was last shown that the map of the network is the newest.",
    ),
    ("/edge/parts_held", "edge_parts_held", Kind::Gauge, "Whole parts that an edge holds."),
    ("/edge/bytes_held", "edge_held_bytes", Kind::Gauge, "Bytes of signed parts that an edge holds."),
    ("/edge/requests", "edge_requests_total", Kind::Counter, "Requests that an edge answered."),
    ("/edge/parts_sent", "edge_parts_sent_total", Kind::Counter, "Parts that an edge sent."),
    ("/edge/bytes_sent", "edge_bytes_sent_total", Kind::Counter, "Bytes that an edge sent, without heads."),
    ("/viewers", "viewers", Kind::Gauge, "Viewers, as the tracker counts them."),
    ("/input/rate_bps", "input_rate_bps", Kind::Gauge, "What the encoder sends, bit/s."),
    ("/input/samples", "input_samples_total", Kind::Counter, "Access units received from the encoder."),
    ("/input/jitter_ms", "input_jitter_seconds", Kind::Seconds, "Unsteadiness of the encoder's arrival."),
    (
        "/input/discontinuities",
        "input_discontinuities_total",
        Kind::Counter,
        "Breaks in the encoder's timeline.",
    ),
];

/// `report`, a viewer's or a source's, as text.
pub fn prometheus(report: &Value) -> String {
    let mut text = String::with_capacity(8192);
    for (pointer, name, kind, help) in FAMILIES {
        let value = match report.pointer(pointer) {
            Some(Value::Bool(flag)) => f64::from(u8::from(*flag)),
            Some(Value::Number(number)) => number.as_f64().unwrap_or_default(),
            _ => continue,
        };
        let value = if kind == Kind::Seconds { value / 1e3 } else { value };
        let of_type = if kind == Kind::Counter { "counter" } else { "gauge" };
        head(&mut text, name, of_type, help);
        line(&mut text, name, value);
    }
    let count = report.pointer("/peers").and_then(Value::as_array).map(Vec::len);
    if let Some(count) = count {
        head(&mut text, "neighbours", "gauge", "Neighbours.");
        line(&mut text, "neighbours", count as f64);
    }
    delays(&mut text, report);
    text
}

/// The histogram of chunk delays. Its sum is taken at the buckets' upper ends, as the report's percentiles are.
fn delays(text: &mut String, report: &Value) {
    let Some(buckets) = report.pointer("/chunk_delay_histogram_ms").and_then(Value::as_object) else {
        return;
    };
    let mut buckets: Vec<(u64, u64)> =
        buckets.iter().filter_map(|(bound, count)| Some((bound.parse().ok()?, count.as_u64()?))).collect();
    buckets.sort_unstable();
    let name = "chunk_delay_seconds";
    head(text, name, "histogram", "From signature at the source to verification here.");
    let (mut count, mut sum) = (0u64, 0.0);
    for (bound_ms, in_bucket) in buckets {
        let bound = bound_ms as f64 / 1e3;
        count += in_bucket;
        sum += bound * in_bucket as f64;
        line(text, &format!("{name}_bucket{{le=\"{bound}\"}}"), count as f64);
    }
    line(text, &format!("{name}_bucket{{le=\"+Inf\"}}"), count as f64);
    line(text, &format!("{name}_sum"), sum);
    line(text, &format!("{name}_count"), count as f64);
}

fn head(text: &mut String, name: &str, of_type: &str, help: &str) {
    // Writing to a String cannot fail.
    let _infallible = write!(text, "# HELP caudal_{name} {help}\n# TYPE caudal_{name} {of_type}\n");
}

fn line(text: &mut String, name: &str, value: f64) {
    let _infallible = writeln!(text, "caudal_{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counters_gauges_and_a_histogram_as_prometheus_expects_them() {
        let report = json!({
            "ok": true, "duration_ms": 1500, "chunks": {"due": 7}, "startup_ms": null, "command": "caudal watch",
            "peers": [{}, {}], "chunk_delay_histogram_ms": {"100": 1, "20": 3},
        });
        let expected = "\
# HELP caudal_ok Whether all that must hold does.
# TYPE caudal_ok gauge
caudal_ok 1
# HELP caudal_uptime_seconds Since the process started.
# TYPE caudal_uptime_seconds gauge
caudal_uptime_seconds 1.5
# HELP caudal_chunks_due_total Chunks that were due.
# TYPE caudal_chunks_due_total counter
caudal_chunks_due_total 7
# HELP caudal_neighbours Neighbours.
# TYPE caudal_neighbours gauge
caudal_neighbours 2
# HELP caudal_chunk_delay_seconds From signature at the source to verification here.
# TYPE caudal_chunk_delay_seconds histogram
caudal_chunk_delay_seconds_bucket{le=\"0.02\"} 3
caudal_chunk_delay_seconds_bucket{le=\"0.1\"} 4
caudal_chunk_delay_seconds_bucket{le=\"+Inf\"} 4
caudal_chunk_delay_seconds_sum 0.16
caudal_chunk_delay_seconds_count 4
";
        assert_eq!(prometheus(&report), expected);
    }

    #[test]
    fn only_counters_are_called_total() {
        for (_, name, kind, _) in FAMILIES {
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), kind == Kind::Seconds, "{name}");
        }
    }
}
