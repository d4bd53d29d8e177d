//! What a run looked like, for people and for sweeps.

use std::time::Duration;

use caudal_proto::time::Timestamp;

use super::{World, percentile};

/// One run in figures.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
    pub max: Duration,
    /// p95 of the parts without a key frame.
    pub p95_small: Duration,
    /// Mean payload of a chunk, bytes.
    pub chunk: usize,
    pub late: usize,
    pub duplicates: f64,
    pub pulled: f64,
    pub copies: f64,
    pub control: f64,
    /// From opening to the first whole part, the slowest viewer.
    pub startup: Duration,
    /// Chunks that viewers lacked at 1.5 s, from where each started.
    pub lacked: usize,
    /// Each viewer's time from opening to its first part whole.
    pub startups: Vec<Duration>,
    /// The same at 3.5 s, when a player has stepped over them.
    pub lost: usize,
}

/// The counters that only grow, taken before what is measured begins.
pub struct Before {
    from: Timestamp,
    received: u64,
    duplicates: u64,
    pulled: u64,
    control: u64,
    source: u64,
}

impl World {
    pub fn before(&self) -> Before {
        let sum = |f: fn(&caudal_proto::swarm::SwarmStats) -> u64| -> u64 {
            self.viewers().iter().map(|&i| f(&self.stats(i))).sum()
        };
        Before {
            from: self.now,
            received: sum(|s| s.received),
            duplicates: sum(|s| s.duplicates),
            pulled: sum(|s| s.pulled),
            control: sum(|s| s.control_bytes_out),
            // As they are, without what the wire adds.
            source: self.nodes[0].chunk_bytes_sent + self.stats(0).control_bytes_out,
        }
    }

    /// Figures of everything published since `before` and at least 2 s ago.
    pub fn figures(&self, before: &Before) -> Figures {
        let to = self.now.saturating_sub(super::S(2));
        let after = self.before();
        let viewers = self.viewers();
        let mut delays: Vec<Duration> = viewers.iter().flat_map(|&i| self.delays(i, before.from)).collect();
        delays.sort_unstable();
        let flags =
            |key| self.published.get(key).filter(|p| p.0 >= before.from).map(|p| (p.0, p.1.header().flags));
        let mut small: Vec<Duration> = viewers
            .iter()
            .flat_map(|&i| self.nodes[i].got.iter())
            .filter_map(|(key, got)| flags(key).map(|(at, flags)| (flags, got.since(at))))
            .filter(|(flags, _)| !flags.has(caudal_proto::chunk::Flags::SEGMENT_START))
            .map(|(_, delay)| delay)
            .collect();
        small.sort_unstable();
        let received = (after.received - before.received).max(1) as f64;
        let useful: u64 =
            self.published.values().filter(|p| p.0 >= before.from).map(|p| u64::from(p.1.header().len)).sum();
        let since = |i: usize| self.nodes[i].joined.last().map(|joined| joined.2);
        let lacked = |after| {
            viewers.iter().filter_map(|&i| Some(self.late(i, after, since(i)?, to).len())).sum::<usize>()
        };
        Figures {
            p50: percentile(&delays, 50),
            p95: percentile(&delays, 95),
            p99: percentile(&delays, 99),
            max: percentile(&delays, 100),
            chunk: useful as usize / self.published.values().filter(|p| p.0 >= before.from).count().max(1),
            p95_small: percentile(&small, 95),
            late: viewers.iter().map(|&i| self.late(i, super::MS(1500), before.from, to).len()).sum(),
            duplicates: (after.duplicates - before.duplicates) as f64 / received,
            pulled: (after.pulled - before.pulled) as f64 / received,
            copies: (after.source - before.source) as f64 / useful as f64,
            lacked: lacked(super::MS(1500)),
            lost: lacked(super::MS(3500)),
            startups: viewers.iter().map(|&i| self.startup(i)).collect(),
            startup: viewers.iter().map(|&i| self.startup(i)).max().unwrap_or_default(),
            control: (after.control - before.control) as f64 / (useful as f64 * viewers.len() as f64),
        }
    }

    /// From opening to the first whole part, of the start that held.
    pub fn startup(&self, viewer: usize) -> Duration {
        let node = &self.nodes[viewer];
        let Some(&(epoch, number, _)) = node.joined.last() else { return Duration::MAX };
        let part = self.published[&(epoch, number)].1.header().part;
        let first = self.published.iter().filter(|(_, p)| p.1.header().part == part).map(|(key, _)| key);
        let whole = first.map(|key| node.got.get(key).copied().unwrap_or(Timestamp::FAR_FUTURE)).max();
        whole.unwrap_or_default().since(node.opened)
    }

    /// One line for each node.
    pub fn report(&self, from: Timestamp) {
        for i in (0..self.nodes.len()).filter(|i| self.nodes[*i].alive) {
            let (stats, delays) = (self.stats(i), self.delays(i, from));
            println!(
                "{i:2} startup {:4} joined {:?} p50 {:4} p95 {:4} max {:4} ms got {:5} dup {:3} pulled {:3} src {:3}% parents {}/{} children {:2} nb {:2} missed {} sent {} dropped {:?}",
                if i == 0 { 0 } else { self.startup(i).as_millis() },
                self.nodes[i]
                    .joined
                    .iter()
                    .map(|j| (j.1, j.2.since(self.nodes[i].opened).as_millis()))
                    .collect::<Vec<_>>(),
                percentile(&delays, 50).as_millis(),
                percentile(&delays, 95).as_millis(),
                percentile(&delays, 100).as_millis(),
                stats.received,
                stats.duplicates,
                stats.pulled,
                stats.useful_bytes_from_source * 100 / stats.useful_bytes.max(1),
                stats.parents,
                stats.substreams,
                stats.children,
                stats.neighbours.len(),
                stats.missed,
                self.nodes[i].chunk_bytes_sent,
                self.nodes[i].dropped,
            );
        }
    }
}
