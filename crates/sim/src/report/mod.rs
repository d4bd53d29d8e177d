//! A run in figures, in the words every report of Caudal uses: ratios from 0 to 1, times in ms, rates in bit/s.

mod isps;
mod measure;
mod playout;
mod renditions;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::check::NAMES;
use crate::world::World;
pub use isps::{IspReport, IspsReport};
use measure::AROUND_PAYLOAD_BYTES;
#[cfg(feature = "plot")]
pub(crate) use measure::BIN_US;
use measure::Measured;
pub(crate) use measure::{Bin, places};
pub use playout::PlayoutReport;
pub use renditions::{RenditionReport, RenditionsReport};
pub use text::Summary;

/// Version of the vocabulary.
pub const SCHEMA: u32 = 1;
/// Playout delays that continuity is reported for, ms.
pub const PLAYOUT_DELAYS_MS: [u64; 5] = [750, 1000, 1500, 2000, 3000];
/// What players are asked to stay within that do not simply keep what suits most.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(2);
/// The one that counts as on time where only one is named, and its place above.
pub(crate) const ON_TIME: usize = 2;

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

/// Chunks by what became of them, over all viewers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Chunks {
    /// Those that were due.
    pub due: u64,
    /// Of those, in time for a playout delay of 1,500 ms.
    pub on_time: u64,
    /// Of those, too late for it.
    pub late: u64,
    /// Of those, not there after 3 s.
    pub missing: u64,
    /// Chunks that came again.
    pub duplicate: u64,
}

/// A class of peers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// From the profile.
    pub name: String,
    /// Peers of it that took part while measured.
    pub peers: u64,
    /// Its uplink ÷ rate.
    pub upload: f64,
    /// Chunk bytes that one of them sent ÷ the stream's.
    pub copies: f64,
    /// IP bytes sent ÷ what its lines could have carried.
    pub upload_use: f64,
    /// Chunk delay of its peers.
    pub chunk_delay_ms: Percentiles,
}

/// What an event did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventReport {
    /// As it was typed.
    pub event: String,
    /// From the start of measuring.
    pub at_ms: f64,
    /// Those who were there before and stayed: chunks of the next 10 s that were on time at 1.5 s.
    pub stayers_continuity: f64,
    /// The same for the one with the fewest.
    pub stayers_worst: f64,
    /// From then on at least 99.9 % of each quarter second's chunks were on time again; `None`: not while measured.
    pub normal_after_ms: Option<f64>,
    /// Startup of those who came with it.
    pub startup_ms: Option<Percentiles>,
}

/// What attackers came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttackReport {
    /// Their kind.
    pub attack: String,
    /// How many they were.
    pub peers: u64,
    /// Times that an honest peer dropped one of them.
    pub dropped: u64,
    /// Forged chunks that reached honest peers; every one was refused.
    pub forgeries: u64,
    /// Connections between honest peers and them at the end.
    pub links: u64,
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

/// One hop of the followed chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HopReport {
    /// Peers by number; 0 is the source.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// Hops from the source.
    pub depth: u8,
    /// Since the chunk was signed: handed to the connection.
    pub sent_ms: f64,
    /// Since the chunk was signed: there.
    pub arrived_ms: f64,
    /// In answer to a request.
    pub requested: bool,
}

/// A run in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// Of the program.
    pub commit: String,
    /// What repeats this run.
    pub command: String,
    /// Of the run.
    pub seed: u64,
    /// Viewers asked for.
    pub peers: usize,
    /// Measured time.
    pub duration_ms: u64,
    /// The stream's rate.
    pub rate_bps: u64,
    /// From signature to verification.
    pub chunk_delay_ms: Percentiles,
    /// Greedy snowball, lossless, for this population.
    pub reference_delay_ms: Percentiles,
    /// The better reference.
    pub reference_better_ms: Percentiles,
    /// Chunk delay ÷ greedy snowball.
    pub delay_ratio: Percentiles,
    /// Highest rate that could reach everybody.
    pub rate_max_bps: f64,
    /// Share of due chunks on time, by playout delay in ms.
    pub continuity: BTreeMap<u64, f64>,
    /// The same of the viewer with the lowest, at 1,500 ms.
    pub continuity_worst: f64,
    /// What players make of it; none where every chunk is a part of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playout: Option<PlayoutReport>,
    /// The same where they were asked to stay within 2 s of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playout_at_most_2s: Option<PlayoutReport>,
    /// From coming to the first decodable part.
    pub startup_ms: Percentiles,
    /// Of those who came while measured and never started.
    pub never_started: u64,
    /// See [`Chunks`].
    pub chunks: Chunks,
    /// Duplicates ÷ chunks received.
    pub duplicate_ratio: f64,
    /// Chunks received in answer to a request ÷ chunks received.
    pub pulled_ratio: f64,
    /// Control IP bytes (with what their packets cost) ÷ useful bytes.
    pub control_ratio: f64,
    /// Control bytes alone ÷ useful bytes.
    pub control_payload_ratio: f64,
    /// IP bytes on the wire ÷ useful bytes.
    pub wire_ratio: f64,
    /// The source's IP bytes ÷ the stream's bytes.
    pub source_copies: f64,
    /// Useful bytes from peers ÷ useful bytes.
    pub offload_ratio: f64,
    /// The most that could be.
    pub offload_ceiling: f64,
    /// Hops from the source.
    pub depth: BTreeMap<u8, f64>,
    /// IP bytes sent ÷ what all lines could have carried, source left out.
    pub upload_use: f64,
    /// Neighbours of a viewer, mean.
    pub neighbours: f64,
    /// Viewers by class.
    pub classes: Vec<ClassReport>,
    /// What viewers made of renditions, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renditions: Option<RenditionsReport>,
    /// What crossed between providers, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isps: Option<IspsReport>,
    /// What happened.
    pub events: Vec<EventReport>,
    /// Who attacked.
    pub attacks: Vec<AttackReport>,
    /// The followed chunk's path.
    pub trace: Vec<HopReport>,
    /// Virtual time is free: what the machine took, and inputs handed to engines.
    pub wall_ms: u64,
    /// See `wall_ms`.
    pub inputs: u64,
    /// Of all that was transmitted.
    pub trace_hash: String,
    /// What must hold.
    pub checks: Vec<Check>,
    /// Whether all of it did.
    pub ok: bool,
    /// For plots: quarter seconds from the start of measuring.
    #[serde(skip)]
    pub(crate) bins: Vec<Bin>,
    /// For plots: delays in ms by percent of chunks, 0 to 100: measured, greedy snowball, better reference.
    #[serde(skip)]
    pub(crate) curves: [Vec<f64>; 3],
}

impl Report {
    /// What `world` came to.
    pub fn new(world: &World) -> Self {
        Measured::of(world).report(world)
    }
}

pub(super) fn checks(world: &World) -> Vec<Check> {
    let detail = |which: usize| match which {
        2 => format!(
            "at most {} neighbours and {} chunks held",
            world.checks.neighbours_most, world.checks.held_most
        ),
        4 => format!("{} chunks sent", world.ledger.chunks_sent),
        6 if world.checks.owed > 0 => format!("{} chunks were due", world.checks.owed),
        _ => String::new(),
    };
    let check = |(which, name): (usize, &&str)| {
        let count = world.checks.counts[which];
        let ok = count == 0;
        let words = world.checks.words.iter().find(|words| words.starts_with(*name));
        let detail = match words.filter(|_| !ok) {
            Some(words) => format!("{count} times, first: {words}"),
            None => detail(which),
        };
        Check { name: (*name).to_owned(), ok, detail }
    };
    NAMES.iter().enumerate().map(check).collect()
}
