//! One rendition of a broadcast: what cuts and signs it, its swarm at the trackers, what is measured of it.
//!
//! The first rendition's tracker side listens for all of them, and brings the channel's descriptor.

use std::time::{Duration, Instant};

use caudal_media::ingest::health::Facts;
use caudal_proto::id::{RenditionId, SwarmId};
use caudal_proto::swarm::{NeighbourStats, SwarmStats};
use caudal_tracker::descriptor::Rendition;

use super::cutter::Cutter;
use super::input_report;
use crate::tracking::Tracking;

/// What a source does for one rendition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) swarm: SwarmId,
    pub(super) cutter: Cutter,
    /// The first rendition's is the source's own.
    pub(super) tracking: Option<Tracking>,
    /// When a part was cut last.
    pub(super) cut_at: Option<Instant>,
}

/// What others may see of a lane.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) rendition: RenditionId,
    pub(super) bytes: u64,
    pub(super) chunks: u64,
    pub(super) facts: Facts,
    pub(super) stats: SwarmStats,
}

/// A lane that has cut nothing for so long is told of no longer, while others have.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(10);
/// Where none has for so long, the source pauses.
pub(super) const PAUSED_AFTER: Duration = Duration::from_secs(3);

impl Lane {
    /// Whether something has been cut lately.
    pub(super) fn cut_within(&self, span: Duration) -> bool {
        self.cut_at.is_some_and(|at| at.elapsed() < span)
    }

    /// What the descriptor says of it; `None` while there is nothing to say.
    pub(super) fn rendition(&self) -> Option<Rendition> {
        let input = input_report(&self.cutter.facts());
        if input.codecs.is_empty() || input.rate_bps == 0 {
            return None;
        }
        let picture = input.width > 0;
        Some(Rendition {
            id: self.swarm.rendition.0,
            codecs: input.codecs,
            width: picture.then_some(input.width),
            height: picture.then_some(input.height),
            fps: (input.fps > 0.0).then_some((input.fps * 100.0).round() / 100.0),
            bandwidth_bps: input.rate_bps,
        })
    }
}

/// All swarms of a node's channel as one: counters add up, gauges are the first one's.
pub(crate) fn sum<'a>(all: impl IntoIterator<Item = &'a SwarmStats>) -> SwarmStats {
    let mut all = all.into_iter();
    let Some(first) = all.next() else { return SwarmStats::default() };
    let mut sum = first.clone();
    for one in all {
        sum.bytes_out += one.bytes_out;
        sum.received += one.received;
        sum.useful_bytes += one.useful_bytes;
        sum.useful_bytes_from_source += one.useful_bytes_from_source;
        sum.useful_bytes_from_edge += one.useful_bytes_from_edge;
        sum.useful_bytes_own_pid += one.useful_bytes_own_pid;
        sum.bytes_out_own_pid += one.bytes_out_own_pid;
        sum.duplicates += one.duplicates;
        sum.missed += one.missed;
        sum.pulled += one.pulled;
        sum.forged += one.forged;
        sum.control_bytes_out += one.control_bytes_out;
        sum.control_bytes_in += one.control_bytes_in;
        sum.children += one.children;
        for neighbour in &one.neighbours {
            match sum.neighbours.iter_mut().find(|known| known.peer == neighbour.peer) {
                Some(known) => add(known, neighbour),
                None => sum.neighbours.push(neighbour.clone()),
            }
        }
    }
    sum
}

fn add(known: &mut NeighbourStats, other: &NeighbourStats) {
    known.source |= other.source;
    known.parent_in |= other.parent_in;
    known.child_in |= other.child_in;
    known.useful_bytes_in += other.useful_bytes_in;
    known.bytes_out += other.bytes_out;
}
