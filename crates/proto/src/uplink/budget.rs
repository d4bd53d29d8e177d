//! How much this node can upload: configured, or measured from how long chunks take to be acknowledged.
//!
//! In the manner of LEDBAT (RFC 6817): a queue that stands in front of the uplink shows as delay above the smallest
//! delay seen. While none stands, nothing is known but what got through; when one does, what gets through is the
//! capacity. The connections' own congestion control stays underneath.

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
/// The smallest capacity that is believed.
const CAPACITY_MIN_BPS: u64 = 100_000;
/// Connections whose base delay is kept.
const BASES_MAX: usize = 64;
/// A base delay is forgotten after this long, so that a changed path is learnt.
const BASE_AGE_MAX: Duration = Duration::from_secs(60);

/// The upload budget.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bps: Option<u64>,
    /// Known only once a queue has stood.
    capacity_bps: Option<u64>,
    proven_bps: u64,
    /// Smallest delay per connection, and since when.
    bases: BTreeMap<PeerId, (Duration, Timestamp)>,
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
            interval_start: None,
            bytes: 0,
            samples: 0,
            least_excess: Duration::MAX,
            draining: false,
        }
    }

    /// The rate at which chunks are let go; `None`: as they come.
    pub(super) fn pace_bps(&self) -> Option<u64> {
        let capacity = self.capacity_bps.map(|bps| if self.draining { bps * 8 / 10 } else { bps });
        match (self.limit_bps, capacity) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Upload as far as it is known: the limit, or less when the line gives less.
    pub(super) fn upload_bps(&self) -> Option<u64> {
        match (self.limit_bps, self.capacity_bps) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The most that got through in an interval.
    pub(super) fn proven_bps(&self) -> u64 {
        self.proven_bps
    }

    pub(super) fn released(&mut self, now: Timestamp) {
        self.interval_start.get_or_insert(now);
    }

    pub(super) fn delivered(&mut self, now: Timestamp, peer: PeerId, bytes: u64, took: Duration) {
        if self.bases.len() >= BASES_MAX && !self.bases.contains_key(&peer) {
            self.bases.clear();
        }
        let base = self.bases.entry(peer).or_insert((took, now));
        if took < base.0 || now.since(base.1) > BASE_AGE_MAX {
            *base = (took, now);
        }
        let excess = took.saturating_sub(base.0);
        self.bytes += bytes;
        self.samples += 1;
        self.least_excess = self.least_excess.min(excess);
        let start = *self.interval_start.get_or_insert(now);
        if now.since(start) >= INTERVAL {
            self.weigh(now.since(start));
            self.interval_start = Some(now);
            (self.bytes, self.samples, self.least_excess) = (0, 0, Duration::MAX);
        }
    }

    fn weigh(&mut self, span: Duration) {
        let got_bps = self.bytes * 8_000_000 / (span.as_micros() as u64).max(1);
        self.proven_bps = self.proven_bps.max(got_bps);
        if self.samples < SAMPLES_MIN {
            return;
        }
        if self.least_excess > STANDING_QUEUE {
            let got = got_bps.max(CAPACITY_MIN_BPS);
            // One bad interval does not halve what many good ones proved.
            let floor = self.capacity_bps.map_or(0, |capacity| capacity * 7 / 10);
            self.capacity_bps = Some(got.max(floor));
            self.draining = true;
            return;
        }
        self.draining = false;
        if let Some(capacity) = self.capacity_bps
            && got_bps * 5 > capacity * 4
        {
            self.capacity_bps = Some(capacity + capacity / 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of 8 KiB through a line of `line_bps`, offered at `offered_bps` or what the budget says, for 20 s.
    fn run(budget: &mut Budget, line_bps: u64, offered_bps: u64) -> Duration {
        let (bytes, peer) = (8192u64, PeerId([1; 32]));
        let (mut now, mut line_free) = (Timestamp::ZERO, Timestamp::ZERO);
        let mut last = Duration::ZERO;
        while now < Timestamp::from_millis(20_000) {
            budget.released(now);
            line_free = line_free.max(now) + Duration::from_micros(bytes * 8_000_000 / line_bps);
            last = line_free.since(now) + Duration::from_millis(20);
            budget.delivered(line_free + Duration::from_millis(20), peer, bytes, last);
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
        assert_eq!(Budget::new(Some(7)).pace_bps(), Some(7));
    }
}
