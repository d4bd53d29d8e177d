//! Bytes per second of each neighbour and in all, from counters that only grow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use caudal_proto::id::PeerId;
use caudal_proto::swarm::SwarmStats;

/// Looks nearer than this to the last tell nothing.
const PERIOD: Duration = Duration::from_millis(900);

/// In and out.
type Pair = (u64, u64);

/// Rates over the last second or so, bit/s.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    looked: Option<Instant>,
    total: Pair,
    /// As many as the swarm has neighbours.
    counters: BTreeMap<PeerId, Pair>,
    all: Pair,
    of: BTreeMap<PeerId, Pair>,
}

impl Rates {
    /// Takes the counters of `stats`.
    pub(crate) fn look(&mut self, now: Instant, stats: &SwarmStats) {
        let past = self.looked.map(|looked| now.saturating_duration_since(looked));
        if past.is_some_and(|past| past < PERIOD) {
            return;
        }
        self.looked = Some(now);
        let seconds = past.map_or(f64::INFINITY, |past| past.as_secs_f64());
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 * 8.0 / seconds) as u64;
        let pair = |now: Pair, before: Pair| (rate(now.0, before.0), rate(now.1, before.1));
        let total = (stats.useful_bytes, stats.bytes_out);
        self.all = pair(total, self.total);
        self.total = total;
        let counters: BTreeMap<_, _> =
            stats.neighbours.iter().map(|n| (n.peer, (n.useful_bytes_in, n.bytes_out))).collect();
        let before = |peer| self.counters.get(peer).copied().unwrap_or_default();
        self.of = counters.iter().map(|(peer, now)| (*peer, pair(*now, before(peer)))).collect();
        self.counters = counters;
    }

    /// In all.
    pub(crate) fn all(&self) -> Pair {
        self.all
    }

    /// Of one neighbour.
    pub(crate) fn of(&self, peer: &PeerId) -> Pair {
        self.of.get(peer).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_megabyte_in_two_seconds_is_four_megabits() {
        let (mut rates, begin) = (Rates::default(), Instant::now());
        let stats = |bytes| SwarmStats { useful_bytes: bytes, bytes_out: 2 * bytes, ..SwarmStats::default() };
        rates.look(begin, &stats(5_000_000));
        assert_eq!(rates.all(), (0, 0), "what was before the first look is nobody's rate");
        rates.look(begin + Duration::from_millis(100), &stats(9_000_000));
        assert_eq!(rates.all(), (0, 0), "too early to tell");
        rates.look(begin + Duration::from_secs(2), &stats(6_000_000));
        assert_eq!(rates.all(), (4_000_000, 8_000_000));
    }
}
