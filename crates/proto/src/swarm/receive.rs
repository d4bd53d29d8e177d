//! A chunk arrives: is it wanted, is it genuine, and what follows from it.

use core::time::Duration;

use super::Swarm;
use super::store::Held;
use crate::broadcast::Certificate;
use crate::chunk::{Chunk, Flags, VerifiedChunk};
use crate::id::PeerId;
use crate::time::Timestamp;
use crate::wire::{ChunkHead, Message, RangeList};

/// After a new broadcast began, chunks of the old one may still be on their way for this long.
const EPOCH_GRACE: Duration = Duration::from_secs(10);
/// Chunks this far below the window are late, not replayed.
pub(super) const LATE_MAX: u64 = 512;
/// A lag of the hops that is believed, ms.
const LAG_BELIEVED_MS: u16 = 2_000;
/// After leaving a swarm and joining it again so long what was sent before the others heard of it still comes.
const STRAGGLERS: Duration = Duration::from_secs(3);

impl Swarm {
    /// This node left the same swarm then.
    pub(crate) fn was_left(&mut self, at: Timestamp) {
        self.stragglers_until = at + STRAGGLERS;
    }

    /// What nobody asked for is an offence, but for what was on its way when this node left and came again.
    pub(super) fn strike_unasked(&mut self, now: Timestamp, peer: PeerId, why: &'static str) {
        if now >= self.stragglers_until {
            self.strike(now, peer, why);
        }
    }

    pub(super) fn receive(&mut self, now: Timestamp, peer: PeerId, head: &ChunkHead, chunk: Chunk) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.hear(now);
        let header = *chunk.header();
        let asked =
            neighbour.asked.remove(&header.number).is_some() || neighbour.requested.contains(header.number);
        if header.rendition != self.config.rendition {
            self.drop_peer(now, peer, "it sent a chunk of another rendition");
            return;
        }
        let Some(certificate) = self.certificate.filter(|certificate| certificate.epoch == header.epoch)
        else {
            // Nobody is asked for what this node does not follow, so of a newer broadcast none can be on its way.
            if header.epoch > self.epoch() {
                self.strike(now, peer, "it sent chunks of a broadcast that this node does not follow");
            } else if header.epoch != self.epoch_before || now.since(self.epoch_since) > EPOCH_GRACE {
                self.strike(now, peer, "it sent chunks of an older broadcast");
            }
            return;
        };
        let repeat = neighbour.standing.taken.note(header.number);
        let s = (header.number % u64::from(certificate.substreams)) as u8;
        let welcome = asked || self.was_parent(now, &peer, s);
        if let Some(held) = self.store.get(header.number) {
            if held.chunk.encoded() != chunk.encoded() {
                self.stats.forged += 1;
                self.drop_peer(now, peer, "it sent a forged chunk");
            } else if repeat {
                self.strike(now, peer, "it replayed chunks");
            } else if welcome {
                if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                    neighbour.chunk_at = now;
                }
                self.stats.duplicates += 1;
                self.note_late_push(&peer, s);
            } else {
                self.strike_unasked(now, peer, "it sent chunks that nobody asked it for");
            }
            return;
        }
        if header.number < self.store.start() {
            if repeat || !welcome || header.number + LATE_MAX < self.store.start() {
                self.strike_unasked(now, peer, "it replayed chunks from before the window");
            } else {
                // Too late to be of use; a forgery all the same, if it is one.
                let _late = self.verify(now, peer, chunk, &certificate);
            }
            return;
        }
        // A forgery is one whether it was asked for or not; five genuine ones at most are looked at for nothing.
        let Some(chunk) = self.verify(now, peer, chunk, &certificate) else { return };
        if !welcome {
            self.strike_unasked(now, peer, "it sent chunks that nobody asked it for");
        } else {
            self.take(now, peer, head, chunk, s);
        }
    }

    /// The chunk, when it is genuine; otherwise whoever sent it goes.
    fn verify(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        chunk: Chunk,
        certificate: &Certificate,
    ) -> Option<VerifiedChunk> {
        let (channel, broadcast) = (&self.config.channel, &certificate.broadcast);
        let verified = VerifiedChunk::new(chunk, channel, broadcast, &mut *self.config.verifier);
        if verified.is_err() {
            self.stats.forged += 1;
            self.drop_peer(now, peer, "it sent a forged chunk");
        }
        verified.ok()
    }

    fn take(&mut self, now: Timestamp, peer: PeerId, head: &ChunkHead, chunk: VerifiedChunk, s: u8) {
        let header = *chunk.header();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.chunk_at = now;
        neighbour.have.insert(header.number);
        neighbour.fade();
        // Nobody signs the lag: what no push can have taken is not believed.
        let hops = (head.lag_ms < LAG_BELIEVED_MS && !head.requested)
            .then(|| u64::from(head.lag_ms) * 1000 + neighbour.rtt.as_micros() as u64 / 2);
        let unix_us = now.as_micros().saturating_add_signed(self.unix_offset_us);
        let difference_us = unix_us.wrapping_sub(header.signed_unix_us()) as i64;
        if let Some(hops) = hops {
            neighbour.skew.note(now, difference_us.saturating_sub(hops as i64));
        }
        let bytes = u64::from(header.len);
        neighbour.useful_bytes_in += bytes;
        neighbour.standing.proven = true;
        if neighbour.source {
            self.stats.useful_bytes_from_source += bytes;
        }
        if neighbour.is_own_pid() {
            self.stats.useful_bytes_own_pid += bytes;
        }
        self.led_by_edge = false;
        self.stats.received += 1;
        self.stats.useful_bytes += bytes;
        self.stats.pulled += u64::from(head.requested);
        let since = self.store.known_since(header.number);
        if !self.store.insert(Held { chunk: chunk.clone(), received: now, hops_us: hops }) {
            return;
        }
        if let Some(holder) = self.locks.remove(&header.number)
            && holder != peer
        {
            self.take_back(holder, header.number);
        }
        if let Some(parent) = self.substreams[usize::from(s)].parent().filter(|parent| *parent != peer) {
            // It may still wait there to be pushed; sent twice, it would delay what nobody has yet.
            self.send(parent, &Message::Cancel(RangeList::from_numbers([header.number])));
        }
        if self.skew_us.is_none() {
            self.measure_skew();
        }
        let lag_us = self.lag_us(difference_us, hops);
        self.note_arrival(now, peer, header.number, lag_us, since, head.requested);
        self.note_traced(now, &chunk, Some(peer), hops, head.requested);
        self.push(now, &chunk, hops, Some(peer));
        if header.index == 0 && header.flags.has(Flags::SEGMENT_START) {
            self.tell_newcomers(now);
        }
        self.deliver(now, chunk);
    }

    /// This node signed these itself.
    pub(crate) fn publish(&mut self, now: Timestamp, chunks: alloc::vec::Vec<VerifiedChunk>) {
        for chunk in chunks {
            if chunk.header().epoch == self.epoch()
                && self.store.insert(Held { chunk: chunk.clone(), received: now, hops_us: Some(0) })
            {
                self.note_traced(now, &chunk, None, Some(0), false);
                self.push(now, &chunk, Some(0), None);
                if chunk.header().index == 0 && chunk.header().flags.has(Flags::SEGMENT_START) {
                    self.tell_newcomers(now);
                }
            }
        }
        self.flush();
    }

    /// The stream's rate over the last seconds, by capture time.
    pub(super) fn measure_rate(&mut self) {
        let edge = self.store.edge();
        let mut newest = None;
        let (mut bytes, mut oldest) = (0u64, None);
        for (_, held) in self.store.range(edge.saturating_sub(160)..edge) {
            let header = held.chunk.header();
            oldest.get_or_insert(header.capture_unix_us);
            newest = Some(header.capture_unix_us);
            bytes += u64::from(header.len);
        }
        let (Some(oldest), Some(newest)) = (oldest, newest) else { return };
        let span_us = newest.saturating_sub(oldest);
        if span_us > 1_500_000 {
            self.rate_bps = (bytes * 8 * 1_000_000 / span_us).max(64_000);
        }
    }
}
