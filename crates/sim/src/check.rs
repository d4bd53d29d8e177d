//! What must hold at every moment of every run. A failed check ends nothing: the report names it, and how to replay it.

use bytes::Bytes;
use caudal_proto::id::{PeerId, RenditionId};

use crate::config::Delivery;
use crate::event::What;
use crate::world::{Happening, Published, World};

/// Most failures that are kept in words, and the first of each check.
const FAILURES_MAX: usize = 20;
/// A peer that is told that another is gone may have said one thing to it in the same breath, but nothing later, µs.
const SAME_BREATH_US: u64 = 1_000;
/// Somebody who is gone without a word is found out by then, µs.
const FOUND_OUT_US: u64 = 12_000_000;
/// What was lost in a partition is there this long after it, µs.
const HEALED_US: u64 = 6_000_000;
/// Departures that a peer remembers having been told of.
const DEPARTED_MAX: usize = 32;
/// A swarm holds no more chunks than these many seconds of the stream.
const HELD_SECONDS_MAX: u64 = 70;
/// The checks' names, in the order of the report.
pub(crate) const NAMES: [&str; 9] = [
    "nothing unverified is delivered",
    "nothing unverified is relayed",
    "tables stay within their limits",
    "nobody talks to departed peers",
    "chunks are conserved",
    "honest peers keep the peace",
    "everything arrives once the network heals",
    "no chunk comes in another rendition",
    "no part is missing where renditions change",
];

/// Failures by check.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) counts: [u64; NAMES.len()],
    pub(crate) words: Vec<String>,
    /// The largest tables seen: neighbours, chunks held.
    pub(crate) neighbours_most: usize,
    pub(crate) held_most: u64,
    /// Chunks that had to arrive after a partition, over all peers.
    pub(crate) owed: u64,
}

impl Checks {
    fn fail(&mut self, which: usize, words: String) {
        self.counts[which] += 1;
        if self.words.len() < FAILURES_MAX || self.counts[which] == 1 {
            self.words.push(words);
        }
    }
}

impl crate::world::Record {
    pub(crate) fn note_departed(&mut self, peer: u32, now: u64) {
        if self.departed.len() >= DEPARTED_MAX {
            self.departed.remove(0);
        }
        self.departed.push((peer, now));
    }
}

impl World {
    fn fail(&mut self, which: usize, index: usize, what: &str) {
        let at = self.now as f64 / 1e6;
        self.checks.fail(which, format!("{}: at {at:.3} s peer {index} {what}", NAMES[which]));
    }

    pub(crate) fn fail_delivered(&mut self, index: usize, what: &str) {
        if self.nodes[index].is_honest() {
            self.fail(0, index, what);
        }
    }

    pub(crate) fn fail_rendition(&mut self, index: usize, of: RenditionId, came_in: RenditionId) {
        self.fail(7, index, &format!("was given a chunk of rendition {} in {}", of.0, came_in.0));
    }

    /// `to` is entered with a part that begins after what was given.
    pub(crate) fn fail_hole(&mut self, index: usize, to: RenditionId, us: i64) {
        self.fail(8, index, &format!("lacks {} ms before rendition {}", us / 1000, to.0));
    }

    /// An honest peer relays exactly what was signed.
    pub(crate) fn check_relay(&mut self, index: usize, body: &Bytes) {
        if self.nodes[index].is_honest() && self.broadcast.find(body).is_none() {
            self.fail(1, index, "relayed bytes that the source never signed");
        }
    }

    /// `index` speaks to `to`, with whom it has no connection.
    pub(crate) fn check_gone(&mut self, index: usize, to: usize) {
        let record = &self.nodes[index].record;
        let told = record.departed.iter().rev().find(|(peer, _)| *peer == to as u32).map(|(_, at)| *at);
        let is_stale = told.is_none_or(|at| self.now > at + SAME_BREATH_US);
        if is_stale && self.nodes[index].is_honest() && index != self.source {
            self.fail(3, index, &format!("spoke to peer {to}, to whom it has no connection"));
        }
    }

    /// `index` speaks to `to`; the connection stands as far as it can know.
    pub(crate) fn check_departed(&mut self, index: usize, to: usize) {
        let left = self.nodes[to].record.left.filter(|_| !self.nodes[to].is_alive());
        if left.is_some_and(|left| self.now > left + FOUND_OUT_US) && self.nodes[index].is_honest() {
            self.fail(3, index, &format!("still speaks to peer {to}, which left long ago"));
        }
    }

    pub(crate) fn dropped(&mut self, index: usize, peer: &PeerId, reason: &str) {
        let Some(other) = self.index(peer) else { return };
        if !self.nodes[index].is_honest() {
            return;
        }
        if self.nodes[other].is_honest() {
            self.nodes[index].record.dropped.0 += 1;
            self.fail(5, index, &format!("dropped honest peer {other}: {reason}"));
        } else {
            self.nodes[index].record.dropped.1 += 1;
        }
    }

    /// Looks at every table.
    pub(crate) fn look(&mut self) {
        let policy = &self.config.policy;
        let source_bps = self.config.source_bps();
        let source_max = |rate_bps: u64| match self.config.delivery {
            Delivery::ServerOnly => policy.source_neighbours(u64::MAX),
            Delivery::SwarmOnly | Delivery::Hybrid => policy.source_neighbours(source_bps / rate_bps),
        };
        let viewer_max = policy.neighbours_max;
        let held_max = |place: usize| {
            let chunks = self.broadcast.lanes[place].rate_bps * HELD_SECONDS_MAX
                / 8
                / self.config.chunk_payload_of(place) as u64;
            // Key frames' parts are cut into more, smaller chunks.
            chunks * 3 / 2 + 64
        };
        let limits = |place: usize| (held_max(place), source_max(self.broadcast.lanes[place].rate_bps));
        let limits: Vec<(u64, usize)> = (0..self.broadcast.lanes.len()).map(limits).collect();
        for index in 0..self.nodes.len() {
            for (place, (held_max, source_max)) in limits.iter().enumerate() {
                let Some(stats) = self.stats_of(index, RenditionId(place as u8)) else { continue };
                let neighbours = stats.neighbours.len();
                if self.nodes[index].is_honest() && index != self.source {
                    self.checks.neighbours_most = self.checks.neighbours_most.max(neighbours);
                }
                self.checks.held_most = self.checks.held_most.max(stats.held);
                if neighbours > if index == self.source { *source_max } else { viewer_max } {
                    self.fail(2, index, &format!("has {neighbours} neighbours"));
                }
                if stats.held > *held_max {
                    self.fail(2, index, &format!("holds {} chunks", stats.held));
                }
            }
        }
    }

    /// What can be said at the end only.
    pub(crate) fn finish(&mut self) {
        let on_the_way = self.queue.iter().filter(|what| matches!(what, Happening::Chunk(_))).count() as u64;
        let ledger = &self.ledger;
        let ended =
            ledger.chunks_delivered + ledger.chunks_reset + ledger.chunks_cut_off + ledger.chunks_to_nobody;
        let sent = ledger.chunks_sent;
        if sent != ended + on_the_way {
            self.fail(
                4,
                0,
                &format!("and all others sent {sent} chunks; {ended} ended, {on_the_way} are on the way"),
            );
        }
        self.check_healed();
    }

    /// Whoever was there throughout has every chunk of a partition that players still waited for when it healed, and all
    /// that came afterwards.
    fn check_healed(&mut self) {
        let end = self.end();
        let patience = self.config.patience.as_micros() as u64;
        let partitions: Vec<(u64, u64)> = self
            .events()
            .filter_map(|(at, what, _)| match what {
                What::Partition(_, span) => Some((at, at + span.as_micros() as u64)),
                _ => None,
            })
            .filter(|(_, healed)| healed + HEALED_US <= end)
            .collect();
        for (at, healed) in partitions {
            // What is asked for then needs a moment to come.
            let from = at.max((healed + HEALED_US).saturating_sub(patience));
            let of_that_time = |at_: u64| (from..end - HEALED_US).contains(&at_);
            for index in 1..self.nodes.len() {
                let node = &self.nodes[index];
                let was_there = node.record.startup.is_some() && node.record.joined < at && node.is_alive();
                if !was_there || !node.is_honest() {
                    continue;
                }
                let is_owed = |(_, p): &(usize, &Published)| of_that_time(p.at) && node.is_due(p);
                let owed = self.broadcast.published.iter().enumerate().filter(is_owed);
                let (mut count, mut missing) = (0, 0);
                for (serial, _) in owed {
                    count += 1;
                    missing += usize::from(!node.record.has(serial));
                }
                self.checks.owed += count;
                if missing > 0 {
                    self.fail(6, index, &format!("lacks {missing} of {count} chunks after a partition"));
                }
            }
        }
    }
}
