//! Holes that a player is about to meet, filled by parts that the node fetches over HTTP.
//!
//! Finds which part a hole is in and when it is due; whether it is fetched is [`hybrid`](crate::hybrid)'s decision.

use alloc::vec::Vec;
use core::time::Duration;

use super::Swarm;
use super::store::Held;
use crate::chunk::{Flags, VerifiedChunk};
use crate::hybrid::part::PartId;
use crate::hybrid::urgent::part_len_max;
use crate::io::{Event, FetchedPart};
use crate::time::Timestamp;
use crate::wire::{Message, RangeList};

/// Holes that are looked at; those beyond are not due yet.
const HOLES_MAX: usize = 64;
/// When nothing has come from anybody for this long beyond what is usual, the next part may be one that only others have.
const STALLED_FOR: Duration = Duration::from_millis(500);

/// A part that lacks chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    part: PartId,
    due: Timestamp,
    since: Option<Timestamp>,
}

impl Swarm {
    /// There is an edge, for `share_percent` of the stream's rate.
    pub(crate) fn set_edge(&mut self, now: Timestamp, share_percent: u32) {
        self.urgent.set_share(now, share_percent, self.rate_bps);
    }

    /// Has parts fetched that a player would miss.
    pub(super) fn fetch_urgent(&mut self, now: Timestamp) {
        if !self.urgent.is_on() || self.is_source() || !self.phase.is_joined() {
            return;
        }
        let mut holes = self.due_holes();
        if holes.is_empty() {
            holes.extend(self.next_part(now));
        }
        for hole in holes {
            if self.urgent.admits(now, self.rate_bps, hole.part, hole.due, hole.since) {
                self.event(Event::FetchPart(self.config.swarm_id(), hole.part, part_len_max(self.rate_bps)));
            }
        }
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
        let part = PartId { epoch: self.epoch(), part: header.part.saturating_add(1) };
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
            let part = PartId { epoch: self.epoch(), part };
            let Some(due) = self.due_after(header.capture_unix_us) else { return holes };
            if holes.iter().all(|hole| hole.part != part) {
                holes.push(Hole { part, due, since: self.store.known_since(number) });
            }
        }
        holes
    }

    /// What the node fetched, or that it could not.
    pub(crate) fn fetched(&mut self, now: Timestamp, fetched: FetchedPart) {
        if !self.urgent.done(now, fetched.part, fetched.bytes, fetched.chunks.is_empty()) {
            return;
        }
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
