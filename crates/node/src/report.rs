//! The words every report uses: `--json`, `/api/v1/stats` and benchmarks alike. Ratios from 0 to 1, times in ms, rates in bit/s.

use std::collections::BTreeMap;

use caudal_tracker::descriptor::{Delivery, Rendition};
use serde::Serialize;

use crate::edge::shelf::EdgeReport;

/// Version of this vocabulary.
pub const SCHEMA: u32 = 1;

/// Percentiles of something, ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

/// Chunks by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Chunks {
    /// Those that were due.
    pub due: u64,
    /// Of those, in time for a playout delay of 1,500 ms.
    pub on_time: u64,
    /// Of those, too late for it.
    pub late: u64,
    /// Of those, never received.
    pub missing: u64,
    /// Chunks that came again.
    pub duplicate: u64,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerReport {
    /// Its id.
    pub peer: String,
    /// It publishes the channel.
    pub source: bool,
    /// Useful payload bytes received from it.
    pub useful_bytes_in: u64,
    /// Payload bytes sent to it.
    pub bytes_out: u64,
    /// Round-trip time.
    pub rtt_ms: f64,
    /// Substreams that it sends to this node.
    pub parent_in: u32,
    /// Substreams that this node sends to it.
    pub child_in: u32,
    /// Useful payload received from it over the last second or so.
    pub rate_in_bps: u64,
    /// Payload sent to it over the last second or so.
    pub rate_out_bps: u64,
    /// Which substreams it sends to this node.
    pub substreams_in: Vec<u8>,
    /// Which substreams this node sends to it.
    pub substreams_out: Vec<u8>,
    /// Whether it is in this node's own network; nothing where no map says so.
    pub inside: Option<bool>,
}

/// The network that this node is in, as a map says, and how much stays inside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NetworkReport {
    /// Its name in the map (PID); nothing where no fresh map knows this node's address.
    pub pid: Option<String>,
    /// Of the useful bytes received since the network is known, those from inside it.
    pub received_inside: Option<f64>,
    /// Of the bytes sent since then, those to inside it.
    pub sent_inside: Option<f64>,
    /// Since the map's server last showed that the map is its newest.
    pub map_age_ms: Option<u64>,
}

/// What a page's gauge needs, beside a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Gauge {
    /// How far the end of the newest part that players can have is behind the source's clock; absent before the first, and
    /// negative where a clock is wrong.
    pub edge_behind_ms: Option<i64>,
    /// Media ready beyond what a player 1.5 s behind would have played.
    pub buffer_ms: i64,
    /// Measured stream rate.
    pub rate_bps: u64,
    /// Useful payload received over the last second or so.
    pub rate_in_bps: u64,
    /// Payload sent over the last second or so.
    pub rate_out_bps: u64,
    /// What a player should keep ahead of the picture at its lowest between two parts, by how unevenly parts arrive, and the most
    /// that it should; a viewer's alone.
    pub wanted_ms: Option<u64>,
    /// See `wanted_ms`.
    pub wanted_most_ms: Option<u64>,
    /// The source's clock at the end of the newest part, since the Unix epoch.
    pub last_part_unix_ms: Option<u64>,
    /// The end of the newest part on the media timeline (decode times of the stream).
    pub last_part_media_ms: Option<u64>,
}

/// Something that must hold, and whether it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// Figures.
    pub detail: String,
}

/// A viewer's report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ViewerReport {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Of the program.
    pub commit: &'static str,
    /// As it was typed.
    pub command: String,
    /// `viewer` or `edge`
    pub role: &'static str,
    /// The channel's id.
    pub channel: String,
    /// This node's id.
    pub peer: String,
    /// *joining*, *live*, *waiting* (the source is silent), *ended*, *taken down*, *unreachable*.
    pub state: &'static str,
    /// Why it is *unreachable* or was *taken down*.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since the process started.
    pub duration_ms: u64,
    /// Measured stream rate.
    pub rate_bps: u64,
    /// From signature to verification.
    pub chunk_delay_ms: Percentiles,
    /// Counts by upper bound in ms, for adding up over viewers.
    pub chunk_delay_histogram_ms: BTreeMap<u64, u64>,
    /// Times between one new chunk and the next: counts by upper bound in ms.
    pub arrival_gap_histogram_ms: BTreeMap<u64, u64>,
    /// Share of due chunks that came in time, by playout delay in ms; nothing where none was due.
    pub continuity: BTreeMap<u64, f64>,
    /// From the start of the process to the first decodable part; absent before.
    pub startup_ms: Option<f64>,
    /// See [`Chunks`].
    pub chunks: Chunks,
    /// Duplicates ÷ chunks received.
    pub duplicate_ratio: f64,
    /// Control bytes sent and received ÷ useful bytes.
    pub control_ratio: f64,
    /// Useful bytes from peers ÷ useful bytes.
    pub offload_ratio: f64,
    /// Unique payload bytes received.
    pub useful_bytes: u64,
    /// Of those, from the source.
    pub useful_bytes_from_source: u64,
    /// Of those, over HTTP from an edge or a CDN in front of one: the server's, as the source's are.
    pub useful_bytes_from_edge: u64,
    /// The line is paid by the byte: nothing is sent to peers.
    pub metered: bool,
    /// Payload bytes sent to peers.
    pub bytes_out: u64,
    /// What the uplink is believed to carry, bit/s of chunks; absent while nothing has queued on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_capacity_bps: Option<u64>,
    /// How long a chunk to be sent now would wait for the uplink.
    pub upload_wait_ms: u64,
    /// Substreams that a neighbour pushes to this node.
    pub parents: u8,
    /// Neighbours that this node pushes to, over all substreams.
    pub children: u32,
    /// Chunks received.
    pub chunks_received: u64,
    /// Of those, in answer to a request.
    pub chunks_pulled: u64,
    /// Chunks that were forged.
    pub chunks_forged: u64,
    /// Mean payload of a chunk.
    pub chunk_payload_bytes: u64,
    /// Parts handed to players.
    pub parts: u64,
    /// Holes stepped over.
    pub gaps: u64,
    /// Media ready beyond what a player 1.5 s behind would have played.
    pub buffer_ms: i64,
    /// What a player should keep ahead of the picture, by how unevenly parts arrive (`--max-delay`, `--smooth`).
    pub wanted_ms: u64,
    /// By how much all but one in a thousand parts were later than the soonest; absent before enough have come.
    pub jitter_ms: Option<u64>,
    /// Times that such a player would have stood still.
    pub stalls: u64,
    /// Neighbours dropped for what they did, with the reason.
    pub dropped: Vec<String>,
    /// The rendition that plays.
    pub rendition: u8,
    /// What was chosen: `auto`, a number or a height.
    pub rendition_wanted: String,
    /// The rendition that is tried beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendition_tried: Option<u8>,
    /// How often another one was gone over to.
    pub rendition_changes: u32,
    /// Why it was, the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendition_reason: Option<&'static str>,
    /// The renditions that the channel has, as its descriptor says.
    pub renditions: Vec<Rendition>,
    /// The own network.
    pub network: NetworkReport,
    /// What an edge has and served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeReport>,
    /// Neighbours.
    pub peers: Vec<PeerReport>,
    /// What must hold.
    pub checks: Vec<Check>,
    /// Whether all of it did.
    pub ok: bool,
}

/// A source's report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceReport {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Of the program.
    pub commit: &'static str,
    /// As it was typed.
    pub command: String,
    /// `source`
    pub role: &'static str,
    /// The channel's id.
    pub channel: String,
    /// This node's id.
    pub peer: String,
    /// *waiting* (for the encoder), *live*, *ended*, *taken down*.
    pub state: &'static str,
    /// Since the process started.
    pub duration_ms: u64,
    /// Measured stream rate.
    pub rate_bps: u64,
    /// The broadcast.
    pub epoch: u64,
    /// Stream bytes signed.
    pub useful_bytes: u64,
    /// Payload bytes sent.
    pub bytes_out: u64,
    /// Who carries the stream to viewers.
    pub delivery: Delivery,
    /// `bytes_out` ÷ `useful_bytes`; headers not counted.
    pub source_copies: f64,
    /// Control bytes sent and received.
    pub control_bytes: u64,
    /// Chunks signed.
    pub chunks_signed: u64,
    /// Viewers, as the tracker counts them.
    pub viewers: u32,
    /// What arrives from the encoder, of the first rendition.
    pub input: InputReport,
    /// Each rendition, the first one first.
    pub renditions: Vec<SourceRenditionReport>,
    /// What the broadcaster was told.
    pub advice: Vec<String>,
    /// The own network.
    pub network: NetworkReport,
    /// Neighbours.
    pub peers: Vec<PeerReport>,
    /// What must hold.
    pub checks: Vec<Check>,
    /// Whether all of it did.
    pub ok: bool,
}

/// One rendition that a source publishes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceRenditionReport {
    /// Its number.
    pub id: u8,
    /// What arrives of it.
    pub input: InputReport,
    /// Bytes of it signed.
    pub useful_bytes: u64,
    /// Payload bytes of it sent.
    pub bytes_out: u64,
}

/// What arrives from the encoder.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct InputReport {
    /// Codecs (RFC 6381), comma-separated.
    pub codecs: String,
    /// Picture size.
    pub width: u32,
    /// Picture size.
    pub height: u32,
    /// Frames per second.
    pub fps: f64,
    /// Between key frames.
    pub key_interval_ms: Option<u64>,
    /// Measured bit rate.
    pub rate_bps: u64,
    /// Unsteadiness of arrival.
    pub jitter_ms: f64,
    /// How far the encoder's clock has run away.
    pub drift_ms: i64,
    /// Access units received.
    pub samples: u64,
    /// Breaks in the timeline.
    pub discontinuities: u64,
}
