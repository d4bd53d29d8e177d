//! What is known of traced chunks: hop reports that hold, put together as the tree that a chunk went along, with delays.
//!
//! Owns what is shown and in which words. Every report's signature is checked here, because nobody on its way did that. What is
//! measured and what is inferred: `docs/protocol.md`, *Hop report*.

mod tree;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_proto::hop::{Hop, HopReport};
use caudal_proto::id::{ChannelId, RenditionId};

pub use tree::{Kind, Row, Summary, TraceView};

/// Chunks whose reports are kept.
const CHUNKS_MAX: usize = 16;
/// Reports of one chunk that are kept …
const HOPS_MAX: usize = 512;
/// … and whose signatures are checked, whatever they turn out to be.
const CHECKED_MAX: usize = 768;
/// A chunk's reports are all there this long after the first of them.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

/// The reports of one chunk.
#[derive(Debug)]
struct Traced {
    epoch: u64,
    rendition: RenditionId,
    number: u64,
    since: Instant,
    hops: Vec<Hop>,
    checked: usize,
    forged: u32,
    /// It was taken as one that has settled.
    taken: bool,
}

/// A channel's traced chunks.
#[derive(Debug)]
pub struct Traces {
    channel: ChannelId,
    chunks: Mutex<VecDeque<Traced>>,
}

impl Traces {
    /// Nothing yet.
    pub fn new(channel: ChannelId) -> Self {
        Self { channel, chunks: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Traced>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A report came. The first genuine one of a peer counts.
    pub fn add(&self, hop: Hop) {
        self.add_checked(hop, Instant::now(), |report| report.is_genuine(&self.channel));
    }

    fn add_checked(&self, hop: Hop, now: Instant, is_genuine: impl FnOnce(&HopReport) -> bool) {
        let HopReport { epoch, rendition, number, .. } = hop.report;
        let mut chunks = self.lock();
        let known = chunks
            .iter()
            .position(|traced| (traced.epoch, traced.rendition, traced.number) == (epoch, rendition, number));
        let at = known.unwrap_or_else(|| {
            if chunks.len() == CHUNKS_MAX {
                chunks.pop_front();
            }
            chunks.push_back(Traced {
                epoch,
                rendition,
                number,
                since: now,
                hops: Vec::new(),
                checked: 0,
                forged: 0,
                taken: false,
            });
            chunks.len() - 1
        });
        let Some(traced) = chunks.get_mut(at) else { return };
        let known = traced.hops.iter_mut().find(|other| other.report.peer == hop.report.peer);
        let is_known = known.is_some();
        if let Some(known) = known.filter(|known| known.above == 0 && known.report == hop.report) {
            known.above = hop.above;
        }
        if is_known || traced.hops.len() == HOPS_MAX || traced.checked == CHECKED_MAX {
            return;
        }
        traced.checked += 1;
        if is_genuine(&hop.report) {
            traced.hops.push(hop);
        } else {
            traced.forged += 1;
        }
    }

    /// The newest chunk whose reports are all there, or of those that are not yet the newest.
    pub fn newest(&self) -> Option<TraceView> {
        let chunks = self.lock();
        let shown = || chunks.iter().rev().filter(|traced| !traced.hops.is_empty());
        let settled = shown().find(|traced| traced.since.elapsed() >= SETTLED_AFTER);
        settled.or_else(|| shown().next()).map(Traced::view)
    }

    /// Chunks whose reports are all there by now, each once, the oldest first; with `all` also the others.
    pub fn take_settled(&self, all: bool) -> Vec<TraceView> {
        let mut chunks = self.lock();
        let due = chunks.iter_mut().filter(|traced| !traced.taken && !traced.hops.is_empty());
        let due = due.filter(|traced| all || traced.since.elapsed() >= SETTLED_AFTER);
        due.map(|traced| {
            traced.taken = true;
            traced.view()
        })
        .collect()
    }
}

impl Traced {
    fn view(&self) -> TraceView {
        tree::view(self.epoch, self.number, &self.hops, self.forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_proto::id::{PeerId, SecretKey};
    use caudal_proto::record::Ed25519Records;

    fn report(key: u8, channel: &ChannelId) -> HopReport {
        let key = SecretKey::from_bytes(&[key; 32]);
        let mut report = HopReport {
            epoch: 1,
            number: 5,
            rendition: RenditionId(0),
            peer: PeerId(key.public()),
            from: 0,
            requested: false,
            source: false,
            arrived_unix_us: 0,
            lag_us: 0,
            hops_us: 0,
            rtt_us: 0,
            forwards: Vec::new(),
            signature: [0; 64],
        };
        report.sign(&mut Ed25519Records(key), channel);
        report
    }

    #[test]
    fn forged_and_repeated_reports_are_not_shown_and_cost_a_bounded_time() {
        let channel = ChannelId([7; 32]);
        let traces = Traces::new(channel);
        let mut forged = report(1, &channel);
        forged.lag_us += 1;
        traces.add(Hop { above: 0, report: forged });
        traces.add(Hop { above: 0, report: report(2, &ChannelId([8; 32])) });
        assert!(traces.newest().is_none(), "nothing genuine yet");
        for _ in 0..2 {
            traces.add(Hop { above: 0, report: report(1, &channel) });
        }
        let view = traces.newest().expect("one");
        assert_eq!((view.summary.reported, view.forged), (1, 2));
        // Where it belongs may be said later, of the very same word.
        let other = HopReport { lag_us: 9, ..report(1, &channel) };
        for (above, report) in [(5, other), (7, report(1, &channel)), (8, report(1, &channel))] {
            traces.add(Hop { above, report });
        }
        assert_eq!(traces.lock()[0].hops[0].above, 7);
        let mut checks = 0;
        for n in 0..2 * CHECKED_MAX as u64 {
            let mut report = report(1, &channel);
            report.peer.0[..8].copy_from_slice(&n.to_be_bytes());
            traces.add_checked(Hop { above: 0, report }, Instant::now(), |_| {
                checks += 1;
                false
            });
        }
        assert!(checks < CHECKED_MAX);
        for number in 0..2 * CHUNKS_MAX as u64 {
            let report = HopReport { number, ..report(1, &channel) };
            traces.add_checked(Hop { above: 0, report }, Instant::now(), |_| true);
        }
        assert_eq!(traces.lock().len(), CHUNKS_MAX);
        assert_eq!(traces.take_settled(false).len(), 0, "they may not be complete");
        assert_eq!(traces.take_settled(true).len(), CHUNKS_MAX);
        assert_eq!(traces.take_settled(true).len(), 0, "each once");
    }
}
