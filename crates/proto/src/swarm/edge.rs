//! Holes that a player is about to meet, filled by parts that the node fetches over HTTP.
//!
//! Finds which part a hole is in and when it is due; whether it is fetched is [`hybrid`](crate::hybrid)'s decision.

use alloc::vec::Vec;
use core::time::Duration;

use super::Swarm;
use super::store::Held;
use crate::chunk::{Flags, VerifiedChunk};
use crate::hybrid::part::PartId;
use crate::io::{Event, FetchedPart};
use crate::time::Timestamp;
use crate::wire::{Message, RangeList};

/// Holes that are looked at; those beyond are not due yet.
const HOLES_MAX: usize = 64;

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
        for hole in self.due_holes() {
            if self.urgent.admits(now, self.rate_bps, hole.part, hole.due, hole.since) {
                self.event(Event::FetchPart(self.config.channel, hole.part));
            }
        }
    }

    /// Parts with holes in what the player needs next, the earliest first.
    fn due_holes(&self) -> Vec<Hole> {
        let (next, edge) = (self.playout.next_number, self.store.edge());
        let mut holes: Vec<Hole> = Vec::new();
        // Before anything plays, and of a player that still speaks of another broadcast, nothing is due.
        let Some(played) = self.store.range(0..next).next_back().filter(|_| next <= edge) else {
            return holes;
        };
        let played_us = played.1.chunk.header().capture_unix_us;
        let buffered = self.playout_at + Duration::from_millis(u64::from(self.playout.buffer_ms));
        for number in self.store.have().missing(next.max(self.store.start())..edge).take(HOLES_MAX) {
            // The first hole after what is held is in that chunk's part, or begins the next one: others must wait until it is filled.
            let Some((_, before)) = self.store.range(0..number).next_back() else { continue };
            let header = before.chunk.header();
            let end = header.part_start().saturating_add(u64::from(header.count));
            let part = match number {
                _ if number < end => header.part,
                _ if number == end => header.part.saturating_add(1),
                _ => continue,
            };
            let ahead_us = header.capture_unix_us.saturating_sub(played_us);
            let part = PartId { epoch: self.epoch(), part };
            if holes.iter().all(|hole| hole.part != part) {
                let due = buffered + Duration::from_micros(ahead_us);
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
