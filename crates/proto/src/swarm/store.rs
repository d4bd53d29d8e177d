//! The retention window: the verified chunks this node holds, offers and serves, and where the live edge is.
//!
//! Knows nothing of neighbours beyond whom a chunk came from.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::have::HaveMap;
use crate::chunk::{Flags, VerifiedChunk};
use crate::time::Timestamp;
use crate::wire::{SEGMENT_STARTS_MAX, SegmentStart};

/// Most chunks held, whatever the retention.
pub(crate) const CHUNKS_HELD_MAX: usize = 32_768;
/// Most payload bytes held, whatever the retention.
pub(crate) const BYTES_HELD_MAX: usize = 256 << 20;
/// Steps of the edge that are remembered; older ones count as known for long.
const EDGE_STEPS_MAX: usize = 512;
/// A longer pause of the broadcast than this is no measure for the next.
const STEP_GAP_MAX: Duration = Duration::from_millis(600);
/// Steps closer than this are told as one.
const EDGE_STEP_MIN: Duration = Duration::from_millis(5);

/// A chunk and how it came.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) chunk: VerifiedChunk,
    pub(crate) received: Timestamp,
    /// How long it had travelled since it was signed, as the hops added it up, µs; `None` when one did not know.
    pub(crate) hops_us: Option<u64>,
}

/// The chunks of one broadcast.
#[derive(Debug, Default)]
pub(crate) struct Store {
    chunks: BTreeMap<u64, Held>,
    bytes: usize,
    have: HaveMap,
    /// Where this node's interest begins; below it nothing is wanted.
    start: u64,
    /// One past the newest number known to exist by a signature.
    edge: u64,
    /// When the edge passed each number: (edge, since).
    edge_steps: VecDeque<(u64, Timestamp)>,
    /// The longest time between steps lately, fading.
    step_gap: Duration,
    /// One past what two neighbours say exists, and since when: good enough to ask for it, not to blame anybody.
    rumour: (u64, Timestamp),
    /// First chunks of segments, ascending, with the time they came.
    segment_starts: VecDeque<(u64, Timestamp)>,
}

impl Store {
    pub(crate) fn have(&self) -> &HaveMap {
        &self.have
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn edge(&self) -> u64 {
        self.edge
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Held> {
        self.chunks.get(&number)
    }

    /// The held chunks of `range`, ascending.
    pub(crate) fn range(&self, range: Range<u64>) -> impl DoubleEndedIterator<Item = (u64, &Held)> {
        self.chunks.range(range).map(|(&number, held)| (number, held))
    }

    /// Sets where interest begins, above or below where it was; what lies below is discarded.
    pub(crate) fn begin_at(&mut self, number: u64) {
        self.start = number;
        self.drop_below(number);
    }

    /// Adds a chunk; false when it was held already or lies below the window.
    pub(crate) fn insert(&mut self, held: Held) -> bool {
        let header = *held.chunk.header();
        if header.number < self.start || self.have.contains(header.number) {
            return false;
        }
        self.raise_edge(header.number + 1, held.received);
        if header.index == 0 && header.flags.has(Flags::SEGMENT_START) {
            let at = self.segment_starts.partition_point(|&(number, _)| number < header.number);
            self.segment_starts.insert(at, (header.number, held.received));
            if self.segment_starts.len() > SEGMENT_STARTS_MAX * 8 {
                self.segment_starts.pop_front();
            }
        }
        self.bytes += usize::from(header.len);
        self.have.insert(header.number);
        self.chunks.insert(header.number, held);
        true
    }

    /// The edge is at least `edge`: a signature said so.
    pub(crate) fn raise_edge(&mut self, edge: u64, now: Timestamp) {
        if edge <= self.edge {
            return;
        }
        if let Some(last) = self.edge_steps.back() {
            let gap = now.since(last.1).min(STEP_GAP_MAX);
            self.step_gap = gap.max(self.step_gap - self.step_gap / 64);
        }
        self.edge = edge;
        match self.edge_steps.back_mut() {
            Some(last) if now.since(last.1) < EDGE_STEP_MIN => last.0 = edge,
            _ => self.edge_steps.push_back((edge, now)),
        }
        if self.edge_steps.len() > EDGE_STEPS_MAX {
            self.edge_steps.pop_front();
        }
    }

    /// How long the edge has stood still beyond what is usual: nothing comes from anybody.
    pub(crate) fn stalled(&self, now: Timestamp) -> Duration {
        let Some(last) = self.edge_steps.back() else { return Duration::ZERO };
        now.since(last.1).saturating_sub(self.step_gap + self.step_gap / 4)
    }

    /// Two neighbours say that they hold chunks up to `edge`.
    pub(crate) fn raise_rumour(&mut self, edge: u64, now: Timestamp) {
        let first = self.rumour.0 <= self.edge;
        if edge > self.rumour.0.max(self.edge) {
            // The oldest of what is rumoured counts: it is what is asked for first.
            self.rumour = (edge, if first { now } else { self.rumour.1 });
        }
    }

    /// One past the newest number that is worth asking for.
    pub(crate) fn far_edge(&self) -> u64 {
        self.edge.max(self.rumour.0)
    }

    /// Since when `number` is known to exist; `None` when it is not, or has been for longer than remembered.
    pub(crate) fn known_since(&self, number: u64) -> Option<Timestamp> {
        if number >= self.edge {
            // While signatures keep coming, what is claimed beyond them is no older than the last of them.
            let signed = self.edge_steps.back().map_or(Timestamp::ZERO, |(_, since)| *since);
            return (number < self.rumour.0).then_some(self.rumour.1.max(signed));
        }
        self.signed_since(number)
    }

    /// Since when a signature says that `number` exists: a parent is not judged by what others claim.
    pub(crate) fn signed_since(&self, number: u64) -> Option<Timestamp> {
        if number >= self.edge {
            return None;
        }
        let at = self.edge_steps.partition_point(|&(edge, _)| edge <= number);
        self.edge_steps.get(at).map(|&(_, since)| since)
    }

    /// The newest segment starts held, for a newcomer.
    pub(crate) fn segment_starts(&self, now: Timestamp) -> impl Iterator<Item = SegmentStart> {
        let skip = self.segment_starts.len().saturating_sub(SEGMENT_STARTS_MAX);
        self.segment_starts.iter().skip(skip).map(move |&(number, since)| SegmentStart {
            number,
            age_ms: u32::try_from(now.since(since).as_millis()).unwrap_or(u32::MAX),
        })
    }

    /// Discards what is older than `retention` or beyond the limits; gives the ranges that left the window without having been held.
    pub(crate) fn discard(&mut self, now: Timestamp, retention: Duration) -> Vec<Range<u64>> {
        let before = self.start;
        let mut floor = self.start;
        let (mut count, mut bytes) = (self.chunks.len(), self.bytes);
        for (&number, held) in &self.chunks {
            if count <= CHUNKS_HELD_MAX && bytes <= BYTES_HELD_MAX {
                break;
            }
            count -= 1;
            bytes -= usize::from(held.chunk.header().len);
            floor = number + 1;
        }
        if let Some(reached) =
            self.chunks.iter().take_while(|(_, held)| now.since(held.received) > retention).last()
        {
            floor = floor.max((reached.0 + 1).min(self.edge));
        }
        let missed = self.have.gaps(before..floor).collect();
        self.begin_at(floor);
        missed
    }

    fn drop_below(&mut self, floor: u64) {
        while let Some(entry) = self.chunks.first_entry() {
            if *entry.key() >= floor {
                break;
            }
            self.bytes -= usize::from(entry.remove().chunk.header().len);
        }
        self.have.discard_below(floor);
        while self.segment_starts.front().is_some_and(|&(number, _)| number < floor) {
            self.segment_starts.pop_front();
        }
    }
}
