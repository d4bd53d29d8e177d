//! Traced chunks: this node's own hop reports, and those of others that it hands on.
//!
//! A report goes back the way that its chunk came, hop by hop, to the source; each hop also hands it to the few neighbours that
//! asked for reports. Chunks are never touched. Relays check no signatures: they hand on only what a neighbour to whom they gave
//! that very chunk may say of it, once each, within limits that have names. Whoever shows a report verifies it.
//!
//! What a report gives away is who got a chunk from whom and when. So only those report who chose to, and nobody else is
//! named: a neighbour that does not report is 0 in every report.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::standing::Bucket;
use super::{Offer, Swarm};
use crate::chunk::{Flags, VerifiedChunk};
use crate::hop::{DELAY_UNKNOWN_US, FORWARDS_MAX, Forward, Hop, HopReport, Tracing};
use crate::id::{PeerId, SIGNATURE_LEN};
use crate::io::Event;
use crate::time::Timestamp;
use crate::wire::{Message, TRACE_WANTS_MAX, Trace};

/// Traced chunks that are remembered.
const TRACED_MAX: usize = 8;
/// Traced chunks that come closer to the last one are carried and not traced: a source that marks all of them makes no flood.
const TRACED_GAP: Duration = Duration::from_millis(500);
/// A hop is reported this long after the chunk arrived: by then it was handed on, or no longer is.
const REPORT_AFTER: Duration = Duration::from_millis(1500);
/// Reports of a chunk are handed on for this long after it arrived.
const REPORT_AGE_MAX: Duration = Duration::from_secs(12);
/// Most reports of one chunk that are handed on.
const REPORTS_PER_CHUNK_MAX: usize = 512;
/// Most of them that one neighbour may bring, and that this node hands to where the chunk came from.
const REPORTS_PER_NEIGHBOUR_MAX: u32 = 256;
/// Reports of one neighbour that are heard at once …
const HEARD_MAX: u64 = 512;
/// … and for as long as it likes, one each this long.
const HEARD_PERIOD: Duration = Duration::from_millis(10);
/// Reports that this node hands to one neighbour, from which their chunks came, at once …
const UP_MAX: u64 = 256;
/// … and for as long as it likes, one each this long: far from what counts as a flood of messages.
const UP_PERIOD: Duration = Duration::from_millis(10);
/// Neighbours that are handed all reports, because they asked.
const WANTING_MAX: usize = 4;
/// Reports that one of them is handed at once …
const HANDED_MAX: u64 = 128;
/// … and for as long as it likes, one each this long.
const HANDED_PERIOD: Duration = Duration::from_millis(50);
/// Who wants reports says so again this often …
const WANT_PERIOD: Duration = Duration::from_secs(5);
/// … this often while it knows nobody who reports …
const SEEK_PERIOD: Duration = Duration::from_millis(900);
/// … and is forgotten after this long.
const WANT_LIFETIME: Duration = Duration::from_secs(16);
/// Neighbours that this node asks for reports.
const ASKED_MAX: usize = 3;

/// What a neighbour and this node have told each other of tracing.
#[derive(Debug, Default)]
pub(crate) struct TraceSide {
    /// It reports, and may be named.
    reports: bool,
    /// It is handed reports until then, and may have others asked so many hops further on.
    wanting: Option<(Timestamp, u8)>,
    /// It may hand this node reports, which asked for them, until then.
    asked: Option<Timestamp>,
    /// What it was told last.
    told: Trace,
    heard: Bucket,
    handed: Bucket,
    up: Bucket,
}

/// A traced chunk that passed this node.
#[derive(Debug)]
struct Traced {
    number: u64,
    at: Timestamp,
    from: Option<PeerId>,
    /// What this node will say of it; signed when it is reported.
    own: HopReport,
    /// To whom it was given, and how long after it came, µs.
    forwards: Vec<(PeerId, u32)>,
    is_reported: bool,
    /// Reports that were handed on, by their signatures, and who brought them.
    seen: BTreeMap<u64, PeerId>,
    /// How many each neighbour brought.
    brought: BTreeMap<PeerId, u32>,
    /// Reports handed to where the chunk came from.
    sent_up: u32,
}

/// Where this node stands, and what it remembers.
#[derive(Debug, Default)]
pub(super) struct Traces {
    own: Tracing,
    chunks: VecDeque<Traced>,
    /// Nobody is asked for reports before.
    want_at: Timestamp,
    /// No neighbour is asked, nor was lately.
    is_quiet: bool,
}

impl Traces {
    fn get_mut(&mut self, number: u64) -> Option<&mut Traced> {
        self.chunks.iter_mut().find(|traced| traced.number == number)
    }

    /// A new broadcast: numbers begin again.
    pub(super) fn forget_chunks(&mut self) {
        self.chunks.clear();
    }
}

impl Swarm {
    /// What the person chose.
    pub(crate) fn set_tracing(&mut self, now: Timestamp, tracing: Tracing) {
        self.traces.own = tracing;
        self.traces.want_at = now;
        if !tracing.reports {
            self.neighbours.values_mut().for_each(|n| n.trace.wanting = None);
        }
        let peers: Vec<PeerId> = self.neighbours.values().map(|n| n.peer).collect();
        for peer in peers {
            self.tell_tracing(peer);
        }
        self.ask_for_hops(now);
        self.flush();
    }

    /// Tells `peer` whether this node reports, where that is news: who says nothing does not.
    pub(super) fn tell_tracing(&mut self, peer: PeerId) {
        let reports = self.traces.own.reports;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if neighbour.trace.told.reports != reports {
            neighbour.trace.told.reports = reports;
            neighbour.send(&mut self.unsent, &Message::Trace(neighbour.trace.told));
        }
    }

    pub(super) fn hear_trace(&mut self, now: Timestamp, peer: PeerId, trace: Trace) {
        let wanting = |n: &super::neighbour::Neighbour| n.trace.wanting.is_some_and(|(until, _)| now < until);
        let others = self.neighbours.values().filter(|n| n.peer != peer && wanting(n)).count();
        let serves = self.traces.own.reports && others < WANTING_MAX;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.trace.reports = trace.reports;
        let before = neighbour.trace.wanting.is_some();
        neighbour.trace.wanting =
            (serves && trace.wants > 0).then(|| (now + WANT_LIFETIME, trace.wants.min(TRACE_WANTS_MAX)));
        if before != neighbour.trace.wanting.is_some() {
            // Whoever asks through this node need not wait for the next turn.
            self.traces.want_at = now;
        }
    }

    /// How many hops further on this node may have reports asked for; 0: it wants none.
    fn wanted_hops(&self, now: Timestamp) -> u8 {
        if self.traces.own.wants {
            return TRACE_WANTS_MAX;
        }
        let wanting = self.neighbours.values().filter_map(|n| n.trace.wanting);
        wanting.filter(|(until, _)| now < *until).map(|(_, hops)| hops - 1).max().unwrap_or(0)
    }

    /// Asks those nearest to the source for the reports that they learn, for as long as this node, or somebody who asked it,
    /// wants any. The path of ancestors has no loops, and each hop may ask for one hop less: no question feeds itself.
    pub(super) fn ask_for_hops(&mut self, now: Timestamp) {
        if self.is_source() || now < self.traces.want_at {
            return;
        }
        self.traces.want_at = now + WANT_PERIOD;
        let hops = self.wanted_hops(now);
        if hops == 0 && self.traces.is_quiet {
            return;
        }
        self.traces.is_quiet = hops == 0;
        let sources = self.neighbours.values().filter(|n| n.met && n.source).map(|n| n.peer);
        let mut asked: Vec<PeerId> = sources.collect();
        for parent in self.substreams.iter().filter_map(super::Substream::parent) {
            if !asked.contains(&parent) {
                asked.push(parent);
            }
        }
        let most = if self.traces.own.wants { ASKED_MAX } else { 1 };
        asked.retain(|peer| self.neighbours.get(peer).is_some_and(|n| n.trace.reports));
        asked.truncate(if hops == 0 { 0 } else { most });
        if hops > 0 && asked.is_empty() {
            // Whoever has just come soon knows somebody.
            self.traces.want_at = now + SEEK_PERIOD;
        }
        for neighbour in self.neighbours.values_mut() {
            let wants = if asked.contains(&neighbour.peer) { hops } else { 0 };
            if wants > 0 {
                neighbour.trace.asked = Some(now + WANT_LIFETIME * 2);
            }
            if wants > 0 || neighbour.trace.told.wants > 0 {
                neighbour.trace.told.wants = wants;
                neighbour.send(&mut self.unsent, &Message::Trace(neighbour.trace.told));
            }
        }
    }

    /// A chunk came, `from` somebody or signed here; what is traced is remembered.
    pub(super) fn note_traced(
        &mut self,
        now: Timestamp,
        chunk: &VerifiedChunk,
        from: Option<PeerId>,
        hops_us: Option<u64>,
        requested: bool,
    ) {
        let header = chunk.header();
        let too_soon = self.traces.chunks.back().is_some_and(|last| now.since(last.at) < TRACED_GAP);
        if !header.flags.has(Flags::TRACED) || too_soon {
            return;
        }
        if self.traces.chunks.len() == TRACED_MAX {
            self.traces.chunks.pop_front();
        }
        let arrived_unix_us = self.unix_us(now);
        let lag_us = arrived_unix_us.wrapping_sub(header.capture_unix_us) as i64;
        let rtt = from.and_then(|from| self.neighbours.get(&from)).map_or(Duration::ZERO, |n| n.rtt);
        let own = HopReport {
            epoch: header.epoch,
            number: header.number,
            rendition: header.rendition,
            peer: self.local,
            from: 0,
            requested,
            source: self.is_source(),
            arrived_unix_us,
            lag_us: lag_us.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
            hops_us: hops_us.map_or(DELAY_UNKNOWN_US, below_unknown),
            rtt_us: below_unknown(rtt.as_micros() as u64),
            forwards: Vec::new(),
            signature: [0; SIGNATURE_LEN],
        };
        self.traces.chunks.push_back(Traced {
            number: header.number,
            at: now,
            from,
            own,
            forwards: Vec::new(),
            is_reported: false,
            seen: BTreeMap::new(),
            brought: BTreeMap::new(),
            sent_up: 0,
        });
    }

    /// A traced chunk is handed to a connection.
    pub(crate) fn note_forward(&mut self, now: Timestamp, offer: &Offer) {
        let Some(traced) = self.traces.get_mut(offer.chunk.header().number) else { return };
        if traced.forwards.len() < FORWARDS_MAX && traced.forwards.iter().all(|(to, _)| *to != offer.peer) {
            let after_us = below_unknown(now.since(traced.at).as_micros() as u64);
            traced.forwards.push((offer.peer, after_us));
        }
    }

    /// Reports the hops that are due.
    pub(super) fn report_hops(&mut self, now: Timestamp) {
        if !self.traces.own.reports {
            return;
        }
        let due = |traced: &Traced| !traced.is_reported && now.since(traced.at) >= REPORT_AFTER;
        while let Some(at) = self.traces.chunks.iter().position(due) {
            let traced = &mut self.traces.chunks[at];
            traced.is_reported = true;
            let neighbours = &self.neighbours;
            let tag =
                |peer: &PeerId| neighbours.get(peer).filter(|n| n.trace.reports).map_or(0, |n| n.peer.tag());
            let mut report = traced.own.clone();
            report.from = traced.from.as_ref().map_or(0, tag);
            let forwards = traced.forwards.iter();
            report.forwards =
                forwards.map(|(to, after_us)| Forward { to: tag(to), after_us: *after_us }).collect();
            report.sign(&mut *self.config.records, &self.config.channel);
            let (number, local) = (traced.number, self.local);
            traced.seen.insert(report.key(), local);
            self.hand_on(now, number, Hop { above: 0, report }, local);
        }
    }

    /// A report that `peer` hands on.
    pub(super) fn hear_hop(&mut self, now: Timestamp, peer: PeerId, hop: Hop) {
        let number = hop.report.number;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let was_asked = neighbour.trace.asked.is_some_and(|until| now < until);
        if !neighbour.trace.heard.take(now, 1, HEARD_MAX, HEARD_PERIOD)
            || hop.report.epoch != self.epoch()
            || hop.report.rendition != self.config.rendition
        {
            return;
        }
        let Some(held) = self.store.get(number) else {
            if !was_asked && number >= self.store.start() {
                self.strike_unasked(now, peer, "it sent hop reports of chunks that it did not get here");
            }
            return;
        };
        if !held.chunk.header().flags.has(Flags::TRACED) {
            self.strike(now, peer, "it sent hop reports of chunks that are not traced");
            return;
        }
        let Some(traced) = self.traces.get_mut(number) else { return };
        if now.since(traced.at) > REPORT_AGE_MAX {
            return;
        }
        let is_fed = traced.forwards.iter().any(|(to, _)| *to == peer);
        if !is_fed && !was_asked {
            if traced.forwards.len() == FORWARDS_MAX {
                // It may be one beyond those that are remembered.
                return;
            }
            self.strike_unasked(now, peer, "it sent hop reports that nobody asked it for");
            return;
        }
        let key = hop.report.key();
        if let Some(before) = traced.seen.get(&key) {
            // The same word comes on two ways where one of them was asked for.
            if *before == peer && !was_asked {
                self.strike(now, peer, "it replayed hop reports");
            } else if was_asked && hop.above != 0 && self.traces.own.wants {
                // It came from its peer itself before; now it says below whom it belongs.
                self.event(Event::Hop(self.config.swarm_id(), Box::new(hop)));
            }
            return;
        }
        let brought = traced.brought.entry(peer).or_default();
        *brought += 1;
        if *brought > REPORTS_PER_NEIGHBOUR_MAX {
            if !was_asked {
                self.strike(now, peer, "it floods this node with hop reports");
            }
            return;
        }
        if traced.seen.len() < REPORTS_PER_CHUNK_MAX {
            traced.seen.insert(key, peer);
            self.hand_on(now, number, hop, peer);
        }
    }

    /// Gives a report to this node's person, to where the chunk came from, and to those who want reports.
    fn hand_on(&mut self, now: Timestamp, number: u64, mut hop: Hop, by: PeerId) {
        let (own, tag) = (self.traces.own, self.local.tag());
        let Some(traced) = self.traces.get_mut(number) else { return };
        let is_from_below = by == self.local || traced.forwards.iter().any(|(to, _)| *to == by);
        let is_open = hop.above == 0 && hop.report.from == 0 && !hop.report.source;
        if is_open && own.reports && by != self.local && is_from_below {
            hop.above = tag;
        }
        let mut up = traced.from.filter(|from| is_from_below && *from != by);
        up = up.filter(|_| traced.sent_up < REPORTS_PER_NEIGHBOUR_MAX);
        traced.sent_up += u32::from(up.is_some());
        let message = Message::Hop(Box::new(hop));
        for neighbour in self.neighbours.values_mut() {
            let wants = neighbour.trace.wanting.is_some_and(|(until, _)| now < until);
            let is_up = Some(neighbour.peer) == up;
            let side = &mut neighbour.trace;
            if is_up && side.up.take(now, 1, UP_MAX, UP_PERIOD)
                || !is_up
                    && wants
                    && neighbour.peer != by
                    && side.handed.take(now, 1, HANDED_MAX, HANDED_PERIOD)
            {
                neighbour.send(&mut self.unsent, &message);
            }
        }
        if own.wants
            && let Message::Hop(hop) = message
        {
            self.event(Event::Hop(self.config.swarm_id(), hop));
        }
    }
}

/// What a report can say of a delay.
fn below_unknown(us: u64) -> u32 {
    u32::try_from(us).unwrap_or(DELAY_UNKNOWN_US).min(DELAY_UNKNOWN_US - 1)
}
