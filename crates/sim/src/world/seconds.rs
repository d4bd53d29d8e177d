//! How a run goes, second by second: for whoever waits for it, and for whoever looks for the moment when it went wrong.

use core::fmt;

use super::{Happening, World};
use crate::ledger::Ledger;

/// One second, µs.
const SECOND_US: u64 = 1_000_000;
/// On time is what arrives within this, µs.
const PLAYOUT_US: u64 = 1_500_000;

/// One second of a run. Ratios are of all honest viewers that are there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// Its end, since the broadcast began, s.
    pub at: u64,
    /// Honest viewers.
    pub viewers: usize,
    /// Of them, those that have begun to play.
    pub started: f64,
    /// Of all their substreams, those without a parent.
    pub orphaned: f64,
    /// Chunk payload bytes that were new ÷ what they need.
    pub useful: f64,
    /// Of those chunks, those that came on request.
    pub pulled: f64,
    /// Chunks that came again ÷ those that were new.
    pub twice: f64,
    /// IP bytes of control ÷ payload bytes that were new.
    pub control: f64,
    /// IP bytes of new connections ÷ payload bytes that were new.
    pub connections: f64,
    /// IP bytes sent ÷ what the uplinks carry.
    pub used: f64,
    /// IP bytes that the source sent ÷ the stream's payload.
    pub source_copies: f64,
    /// Of the chunks that were signed 2.5 to 1.5 s ago and were due, those that came within 1.5 s.
    pub on_time: f64,
}

impl Second {
    /// What the columns of its display are.
    pub const HEAD: &str =
        "   s  viewers started orphaned  useful pulled  twice control connect   used source on time";
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: f64| ratio * 100.0;
        write!(f, "{:4} {:8}", self.at, self.viewers)?;
        write!(f, "{:7.1}%{:8.1}%", percent(self.started), percent(self.orphaned))?;
        write!(f, "{:7.1}%{:6.1}%{:6.2}%", percent(self.useful), percent(self.pulled), percent(self.twice))?;
        write!(f, "{:7.2}%{:7.2}%", percent(self.control), percent(self.connections))?;
        write!(f, "{:6.1}%{:7.2}{:7.2}%", percent(self.used), self.source_copies, percent(self.on_time))
    }
}

impl World {
    /// Looks at the second that ends now, if anybody asked for it.
    pub(super) fn second(&mut self) {
        let Some(tell) = self.config.each_second else { return };
        self.queue.push(self.now + SECOND_US, Happening::Second);
        let before = std::mem::replace(&mut self.second_before, self.ledger.clone());
        tell(&self.second_since(&before));
    }

    fn second_since(&self, before: &Ledger) -> Second {
        let now = &self.ledger;
        let (mut viewers, mut started, mut substreams, mut orphaned, mut lines) = (0, 0u64, 0u64, 0u64, 0u64);
        for index in self.viewers().filter(|i| self.nodes[*i].is_honest()) {
            viewers += 1;
            started += u64::from(self.nodes[index].record.startup.is_some());
            lines += self.nodes[index].place.upload_bps;
            for stats in self.all_stats(index) {
                substreams += u64::from(stats.substreams);
                orphaned += u64::from(stats.substreams.saturating_sub(stats.parents));
            }
        }
        let ratio = |part: u64, of: u64| part as f64 / of.max(1) as f64;
        let stream = self.config.rate_bps / 8;
        let useful = now.useful_bytes - before.useful_bytes;
        let chunks = now.useful_chunks - before.useful_chunks;
        Second {
            at: self.now / SECOND_US,
            viewers,
            started: ratio(started, viewers as u64),
            orphaned: ratio(orphaned, substreams),
            useful: ratio(useful, stream * viewers as u64),
            pulled: ratio(now.pulled - before.pulled, chunks),
            twice: ratio(now.duplicates - before.duplicates, chunks),
            control: ratio(now.control_wire_bytes - before.control_wire_bytes, useful),
            connections: ratio(now.handshake_bytes - before.handshake_bytes, useful),
            used: ratio(now.wire_bytes - before.wire_bytes, lines / 8),
            source_copies: ratio(now.source_wire_bytes - before.source_wire_bytes, stream),
            on_time: self.on_time_lately(),
        }
    }

    fn on_time_lately(&self) -> f64 {
        let from = self.now.saturating_sub(PLAYOUT_US + SECOND_US);
        let signed = from..self.now.saturating_sub(PLAYOUT_US);
        let published = &self.broadcast.published;
        let serials = published.partition_point(|p| p.at < signed.start)
            ..published.partition_point(|p| p.at < signed.end);
        let (mut due, mut on_time) = (0u64, 0u64);
        for index in self.viewers().filter(|i| self.nodes[*i].is_honest()) {
            let record = &self.nodes[index].record;
            let Some(start) = record.start.filter(|_| record.opened < signed.start) else {
                due += if record.opened < signed.start { serials.len() as u64 } else { 0 };
                continue;
            };
            let is_due = |serial: &usize| *serial >= start && self.nodes[index].is_due(&published[*serial]);
            for serial in serials.clone().filter(is_due) {
                due += 1;
                on_time +=
                    u64::from(record.delay(serial).is_some_and(|delay| u64::from(delay) <= PLAYOUT_US));
            }
        }
        on_time as f64 / due.max(1) as f64
    }
}
