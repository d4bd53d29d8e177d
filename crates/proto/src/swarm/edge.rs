//! Holes that a player is about to meet, filled by parts that the node fetches over HTTP.
//!
//! Finds which part a hole is in and when it is due; whether it is fetched is [`hybrid`](crate::hybrid)'s decision, by an account that
//! all swarms of a channel share.

use alloc::vec::Vec;
use core::time::Duration;

use super::store::Held;
use super::{Swarm, SwarmOutput};
use crate::chunk::{Flags, VerifiedChunk};
use crate::hybrid::part::PartId;
use crate::io::FetchedPart;
use crate::time::Timestamp;
use crate::wire::{Message, RangeList};

/// Holes that are looked at; those beyond are not due yet.
const HOLES_MAX: usize = 64;
/// When nothing has come from anybody for this long beyond what is usual, the next part may be one that only others have.
const STALLED_FOR: Duration = Duration::from_millis(500);

/// A part that lacks chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) part: PartId,
    pub(crate) due: Timestamp,
    /// Since when it was known; none: it is not known to exist.
    pub(crate) since: Option<Timestamp>,
}

impl Swarm {
    /// Whether there is an edge.
    pub(crate) fn set_edge(&mut self, has_edge: bool) {
        self.has_edge = has_edge;
    }

    /// The stream's rate, bit/s.
    pub(crate) fn rate_bps(&self) -> u64 {
        self.rate_bps
    }

    /// Says which parts a player would miss.
    pub(super) fn tell_urgent(&mut self, now: Timestamp) {
        if !self.has_edge || self.is_source() || !self.phase.is_joined() {
            return;
        }
        let mut holes = self.due_holes();
        if holes.is_empty() {
            holes.extend(self.next_part(now));
        }
        self.out.extend(holes.into_iter().map(SwarmOutput::Urgent));
    }

    fn part_id(&self, part: u64) -> PartId {
        PartId { rendition: self.config.rendition, epoch: self.epoch(), part }
    }

    /// When what follows a part captured at `captured_us` is due. Nothing is before anything plays, and of a player that still
    /// speaks of another broadcast.
    fn due_after(&self, captured_us: u64) -> Option<Timestamp> {
        let next = self.playout.next_number;
        let (_, played) = self.store.range(0..next).next_back().filter(|_| next <= self.store.edge())?;
        let ahead_us = captured_us.saturating_sub(played.chunk.header().capture_unix_us);
        let buffered = self.playout_at + Duration::from_millis(u64::from(self.playout.buffer_ms));
        Some(buffered + Duration::from_micros(ahead_us))
    }

    /// The part after all that is known, when nobody brings anything: notes tell of it too late.
    fn next_part(&self, now: Timestamp) -> Option<Hole> {
        let is_over = self.note.is_none_or(|note| note.ended);
        if is_over || !(self.led_by_edge || self.store.stalled(now) >= STALLED_FOR) {
            return None;
        }
        let (_, newest) = self.store.range(0..self.store.edge()).next_back()?;
        let header = newest.chunk.header();
        let part = self.part_id(header.part.saturating_add(1));
        Some(Hole { part, due: self.due_after(header.capture_unix_us)?, since: None })
    }

    /// Parts with holes in what the player needs next, the earliest first.
    fn due_holes(&self) -> Vec<Hole> {
        let (next, edge) = (self.playout.next_number, self.store.edge());
        let mut holes: Vec<Hole> = Vec::new();
        let start = next.max(self.store.start());
        for number in self.store.have().missing(start.min(edge)..edge).take(HOLES_MAX) {
            // The first hole after what is held is in that chunk's part, or begins the next one: others must wait until it is filled.
            let Some((_, before)) = self.store.range(0..number).next_back() else { continue };
            let header = before.chunk.header();
            let end = header.part_start().saturating_add(u64::from(header.count));
            let part = match number {
                _ if number < end => header.part,
                _ if number == end => header.part.saturating_add(1),
                _ => continue,
            };
            let part = self.part_id(part);
            let Some(due) = self.due_after(header.capture_unix_us) else { return holes };
            if holes.iter().all(|hole| hole.part != part) {
                holes.push(Hole { part, due, since: self.store.known_since(number) });
            }
        }
        holes
    }

    /// What the node fetched.
    pub(crate) fn fetched(&mut self, now: Timestamp, fetched: FetchedPart) {
        for chunk in fetched.chunks {
            if chunk.header().epoch == self.epoch() && chunk.header().rendition == self.config.rendition {
                self.take_from_edge(now, chunk);
            }
        }
        self.flush();
    }

    fn take_from_edge(&mut self, now: Timestamp, chunk: VerifiedChunk) {
        let header = *chunk.header();
        self.led_by_edge |= header.number >= self.store.edge();
        if !self.store.insert(Held { chunk: chunk.clone(), received: now, hops_us: None }) {
            return;
        }
        let bytes = u64::from(header.len);
        self.stats.received += 1;
        self.stats.useful_bytes += bytes;
        self.stats.useful_bytes_from_edge += bytes;
        if let Some(holder) = self.locks.remove(&header.number) {
            self.take_back(holder, header.number);
        }
        let s = (header.number % u64::from(self.substream_count()).max(1)) as usize;
        if let Some(parent) = self.substreams.get(s).and_then(super::tree::Substream::parent) {
            // It may still wait there to be pushed.
            self.send(parent, &Message::Cancel(RangeList::from_numbers([header.number])));
        }
        self.push(now, &chunk, None, None);
        if header.index == 0 && header.flags.has(Flags::SEGMENT_START) {
            self.tell_newcomers(now);
        }
        self.deliver(now, chunk);
    }
}
