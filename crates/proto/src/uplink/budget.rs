//! How much this node can upload: configured, or measured from how long chunks take to be acknowledged.
//!
//! While chunks queue in front of the line, acknowledgements come at the line's own rate: what is acknowledged between
//! a chunk's release and its own acknowledgement, divided by that time, is the capacity (BBR's delivery rate), whatever
//! the round trips are. Whether chunks queue shows, in the manner of LEDBAT (RFC 6817), as delay above the smallest
//! delay seen. While none do, nothing is known but what got through. The connections' own congestion control stays
//! underneath.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::id::PeerId;
use crate::time::Timestamp;

/// Evidence is weighed this often.
const INTERVAL: Duration = Duration::from_millis(500);
/// Even the fastest chunk of an interval was delayed by this much: a queue stands.
const STANDING_QUEUE: Duration = Duration::from_millis(100);
/// Fewer chunks than this prove nothing.
const SAMPLES_MIN: u32 = 4;
/// A chunk that took this much longer than twice the least of its connection waited behind others.
const QUEUED: Duration = Duration::from_millis(20);
/// The first capacity is believed when a chunk waited this long.
const QUEUED_FIRST: Duration = Duration::from_millis(80);
/// Other chunks under way when a chunk was released that waited for this line, and not for somebody else's.
const UNDER_WAY_MIN: usize = 2;
/// A chunk that took longer than this was held up by something else: a loss, or silence.
const QUEUED_MAX: Duration = Duration::from_millis(1000);
/// Intervals of which the best counts.
const RECENT: usize = 8;
/// What a limit of 100 bytes on the line is good for in chunk bytes: the rest is headers, acknowledgements and control.
const LIMIT_USEFUL_PERCENT: u64 = 89;
/// Chunks that may be under way on all connections together while nothing is known of the line; one more for each that
/// did not queue, as in a slow start.
const WINDOW_FIRST: usize = 6;
/// The smallest capacity that is believed.
const CAPACITY_MIN_BPS: u64 = 100_000;
/// Connections whose base delay is kept.
const BASES_MAX: usize = 64;
/// A base delay is forgotten after this long, so that a changed path is learnt.
const BASE_AGE_MAX: Duration = Duration::from_secs(60);

/// What had got through when a chunk was let go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Bytes acknowledged so far …
    bytes: u64,
    /// … and when the last of them were, or when the line was idle last.
    at: Timestamp,
    /// Chunks under way then: with few, it is not this line that they wait for.
    under_way: usize,
}

/// The upload budget.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bps: Option<u64>,
    /// Known only once chunks have queued.
    capacity_bps: Option<u64>,
    proven_bps: u64,
    /// Smallest delay per connection, and since when.
    bases: BTreeMap<PeerId, (Duration, Timestamp)>,
    /// Bytes acknowledged since the beginning.
    acknowledged: u64,
    acknowledged_at: Timestamp,
    /// What the last intervals with a queue gave. Acknowledgements that queue elsewhere make some too small.
    recent: [u64; RECENT],
    window: usize,
    /// The chunk of this interval that queued longest, and the rate of acknowledgements meanwhile.
    longest: Option<(Duration, u64)>,
    /// How many of the interval's chunks queued.
    queued: u32,
    interval_start: Option<Timestamp>,
    bytes: u64,
    samples: u32,
    least_excess: Duration,
    /// The interval before this one was congested: the queue is draining.
    draining: bool,
}

impl Budget {
    pub(super) fn new(limit_bps: Option<u64>) -> Self {
        Self {
            limit_bps,
            capacity_bps: None,
            proven_bps: 0,
            bases: BTreeMap::new(),
            acknowledged: 0,
            acknowledged_at: Timestamp::ZERO,
            recent: [0; RECENT],
            window: WINDOW_FIRST,
            longest: None,
            queued: 0,
            interval_start: None,
            bytes: 0,
            samples: 0,
            least_excess: Duration::MAX,
            draining: false,
        }
    }

    /// The rate at which chunks are let go; `None`: as they come.
    pub(super) fn pace_bps(&self) -> Option<u64> {
        let known = self.upload_bps()?;
        Some(if self.draining { known * 8 / 10 } else { known })
    }

    /// Upload as far as it is known, in chunk bytes: the limit, or less when the line gives less.
    pub(super) fn upload_bps(&self) -> Option<u64> {
        let limit = self.limit_bps.map(|bps| bps * LIMIT_USEFUL_PERCENT / 100);
        match (limit, self.capacity_bps) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Chunks that may be under way on all connections together.
    pub(super) fn window(&self) -> usize {
        if self.upload_bps().is_some() { usize::MAX } else { self.window }
    }

    /// The most that got through in an interval.
    pub(super) fn proven_bps(&self) -> u64 {
        self.proven_bps
    }

    /// A chunk is let go while so many others are under way.
    pub(super) fn released(&mut self, now: Timestamp, under_way: usize) -> Mark {
        self.interval_start.get_or_insert(now);
        if under_way == 0 {
            self.acknowledged_at = now;
        }
        Mark { bytes: self.acknowledged, at: self.acknowledged_at, under_way }
    }

    /// A chunk was acknowledged that took so long since its release at `mark`.
    pub(super) fn delivered(&mut self, now: Timestamp, peer: PeerId, bytes: u64, took: Duration, mark: Mark) {
        if self.bases.len() >= BASES_MAX && !self.bases.contains_key(&peer) {
            self.bases.clear();
        }
        let base = self.bases.entry(peer).or_insert((took, now));
        if took < base.0 || now.since(base.1) > BASE_AGE_MAX {
            *base = (took, now);
        }
        let base = base.0;
        self.acknowledged += bytes;
        self.acknowledged_at = now;
        self.bytes += bytes;
        self.samples += 1;
        self.least_excess = self.least_excess.min(took.saturating_sub(base));
        if took <= base * 2 + QUEUED {
            self.window = self.window.saturating_add(1);
        }
        if took > base * 2 + QUEUED && took < QUEUED_MAX && mark.under_way >= UNDER_WAY_MIN {
            self.queued += 1;
            let span_us = now.since(mark.at).as_micros() as u64;
            let bps = (self.acknowledged - mark.bytes) * 8_000_000 / span_us.max(1);
            if self.longest.is_none_or(|(longest, _)| took > longest) {
                self.longest = Some((took, bps.max(CAPACITY_MIN_BPS)));
            }
            if self.capacity_bps.is_none() && self.is_queueing() && took > base * 2 + QUEUED_FIRST {
                // The first burst tells: nobody waits for the end of an interval.
                self.capacity_bps = Some(bps);
            }
        }
        let start = *self.interval_start.get_or_insert(now);
        if now.since(start) >= INTERVAL {
            self.weigh(now.since(start));
            self.interval_start = Some(now);
            (self.bytes, self.samples, self.queued) = (0, 0, 0);
            (self.longest, self.least_excess) = (None, Duration::MAX);
        }
    }

    /// Chunks queue, and not only here and there one that was lost.
    fn is_queueing(&self) -> bool {
        self.queued >= SAMPLES_MIN && self.queued * 4 >= self.samples
    }

    fn weigh(&mut self, span: Duration) {
        let got_bps = self.bytes * 8_000_000 / (span.as_micros() as u64).max(1);
        self.proven_bps = self.proven_bps.max(got_bps);
        if self.samples < SAMPLES_MIN {
            return;
        }
        self.draining = self.least_excess > STANDING_QUEUE;
        if let Some((_, bps)) = self.longest.filter(|_| self.is_queueing()) {
            self.recent.rotate_right(1);
            self.recent[0] = bps;
            self.capacity_bps = self.recent.iter().max().copied();
        } else if let Some(capacity) = self.capacity_bps
            && got_bps * 5 > capacity * 4
        {
            self.capacity_bps = Some(capacity + capacity / 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;

    /// Chunks of 8 KiB through a line of `line_bps`, offered at `offered_bps` or what the budget says, for 20 s.
    fn run(budget: &mut Budget, line_bps: u64, offered_bps: u64) -> Duration {
        let (bytes, peer) = (8192u64, PeerId([1; 32]));
        let (mut now, mut line_free) = (Timestamp::ZERO, Timestamp::ZERO);
        let mut last = Duration::ZERO;
        let mut flying: VecDeque<(Timestamp, Timestamp, Mark)> = VecDeque::new();
        while now < Timestamp::from_millis(20_000) {
            while let Some(&(at, released, before)) = flying.front().filter(|flight| flight.0 <= now) {
                last = at.since(released);
                budget.delivered(at, peer, bytes, last, before);
                flying.pop_front();
            }
            let before = budget.released(now, flying.len());
            line_free = line_free.max(now) + Duration::from_micros(bytes * 8_000_000 / line_bps);
            flying.push_back((line_free + Duration::from_millis(20), now, before));
            let bps = budget.pace_bps().unwrap_or(u64::MAX).min(offered_bps);
            now += Duration::from_micros(bytes * 8_000_000 / bps);
        }
        last
    }

    #[test]
    fn a_slow_line_is_found_out_and_its_queue_drains() {
        let mut budget = Budget::new(None);
        let delay = run(&mut budget, 1_500_000, 6_000_000);
        let capacity = budget.upload_bps().expect("congested");
        assert!((1_200_000..1_700_000).contains(&capacity), "{capacity}");
        assert!(delay < Duration::from_millis(500), "{delay:?}");
    }

    #[test]
    fn a_fast_line_is_never_mistaken_for_a_slow_one() {
        let mut budget = Budget::new(None);
        run(&mut budget, 100_000_000, 6_000_000);
        assert_eq!(budget.upload_bps(), None);
        assert!(budget.proven_bps() > 5_000_000);
        assert_eq!(Budget::new(Some(700)).pace_bps(), Some(623));
    }
}
