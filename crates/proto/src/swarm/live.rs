//! Which broadcast the swarm follows: certificates, epochs, live notes, freshness.

use super::join::Phase;
use super::store::Store;
use super::tree::Substream;
use super::{Swarm, reason};
use crate::broadcast::{BroadcastError, Certificate, LiveNote};
use crate::id::PeerId;
use crate::io::Event;
use crate::time::Timestamp;
use crate::wire::Message;

impl Swarm {
    pub(super) fn hear_certificate(&mut self, now: Timestamp, peer: PeerId, bytes: &[u8]) {
        if self.certificate.is_some_and(|current| current.encode() == bytes) {
            return;
        }
        // Whoever has a pile of old ones gets no signature check for each.
        let epoch = Certificate::claimed_epoch(bytes).unwrap_or(u64::MAX);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let told = neighbour.epoch_told;
        neighbour.epoch_told = told.max(epoch);
        if epoch <= told {
            self.strike(now, peer, "it repeats certificates");
            return;
        }
        if epoch <= self.epoch() {
            return;
        }
        match Certificate::decode(&self.config.channel, bytes) {
            Ok(certificate) => {
                self.offer_certificate(now, certificate);
            }
            Err(error) => self.drop_peer(now, peer, &reason("it sent a bad certificate", &error)),
        }
    }

    /// A certificate whose signature holds, from a peer or a tracker.
    pub(crate) fn offer_certificate(&mut self, now: Timestamp, certificate: Certificate) {
        let foreign = certificate.channel != self.config.channel;
        if foreign || self.is_source() || certificate.epoch <= self.epoch() {
            return;
        }
        if certificate.check_time(self.unix_us(now)).is_ok() {
            self.follow(now, certificate);
        }
    }

    /// A new broadcast: everything of the old one goes; neighbours stay.
    pub(super) fn follow(&mut self, now: Timestamp, certificate: Certificate) {
        self.epoch_before = self.epoch();
        self.certificate = Some(certificate);
        self.note = None;
        self.epoch_since = now;
        self.rate_bps = u64::from(certificate.rate_bps);
        self.store = Store::default();
        self.locks.clear();
        self.joining = super::join::Joining::default();
        self.skew_us = None;
        self.neighbours.values_mut().for_each(|neighbour| neighbour.skew = super::skew::Skew::default());
        self.playout = crate::io::Playout::default();
        self.phase = Phase::Waiting;
        self.substreams = (0..certificate.substreams).map(|_| Substream::new(now)).collect();
        for neighbour in self.neighbours.values_mut() {
            neighbour.asked.clear();
            neighbour.state.substreams.clear();
            neighbour.refused_until = super::neighbour::BySubstream::default();
            neighbour.standing.forget_chunks();
            neighbour.note_told_us = 0;
            if neighbour.epoch != certificate.epoch {
                neighbour.have = super::have::HaveMap::default();
                neighbour.segment_starts.clear();
            }
            neighbour.state_due = now;
        }
        self.standings.forget_chunks();
        self.traces.forget_chunks();
        self.event(Event::Certificate(certificate));
    }

    pub(super) fn hear_note(&mut self, now: Timestamp, peer: PeerId, bytes: &[u8]) {
        let Some(certificate) = self.certificate else { return };
        if self.note.is_some_and(|note| note.encode() == bytes) {
            self.remember_note_of(peer);
            return;
        }
        if let Some((_, unix_us)) = LiveNote::claimed(bytes).filter(|(epoch, _)| *epoch == certificate.epoch)
        {
            let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
            let told = neighbour.note_told_us;
            neighbour.note_told_us = told.max(unix_us);
            let is_known = self.note.is_some_and(|note| note.unix_us >= unix_us);
            // Whoever has a pile of old ones gets no signature check for each.
            if unix_us <= told || is_known {
                self.remember_note_of(peer);
                return;
            }
        }
        match LiveNote::decode(&certificate, bytes) {
            Ok(note) if note.rendition != self.config.rendition => {
                self.drop_peer(now, peer, "it sent a live note of another rendition");
            }
            Ok(note) => {
                self.offer_note(now, note);
                self.remember_note_of(peer);
            }
            // Of another epoch: one of the two has not heard the news yet.
            Err(BroadcastError::Foreign) => {}
            Err(error) => self.drop_peer(now, peer, &reason("it sent a bad live note", &error)),
        }
    }

    fn remember_note_of(&mut self, peer: PeerId) {
        let newest = self.note.map_or(0, |note| note.unix_us);
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.note_sent_us = neighbour.note_sent_us.max(newest);
        }
    }

    /// A note whose signature holds, from a peer, a tracker or this source.
    pub(crate) fn offer_note(&mut self, now: Timestamp, note: LiveNote) {
        let older = self.note.is_some_and(|current| note.unix_us <= current.unix_us);
        // A tracker keeps the first rendition's alone; the others' come from neighbours.
        if note.rendition != self.config.rendition
            || note.epoch != self.epoch()
            || older
            || !note.is_fresh(self.unix_us(now))
        {
            return;
        }
        let was_ended = self.note.is_some_and(|current| current.ended);
        self.note = Some(note);
        if self.phase.is_joined() {
            self.store.raise_edge(note.next_number, now);
        }
        self.event(Event::Note(note));
        if note.ended && !was_ended {
            self.event(Event::Ended(self.config.swarm_id(), note.next_number));
        }
    }

    /// Tells `peer` of the broadcast what it may not know.
    pub(super) fn tell_broadcast(&mut self, peer: PeerId) {
        let (certificate, note) = (self.certificate, self.note);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let Some(certificate) = certificate else { return };
        if neighbour.certificate_sent != certificate.epoch {
            neighbour.certificate_sent = certificate.epoch;
            neighbour.note_sent_us = 0;
            neighbour.send(&mut self.unsent, &Message::Certificate(certificate.encode().into()));
        }
        if let Some(note) = note.filter(|note| note.unix_us > neighbour.note_sent_us) {
            neighbour.note_sent_us = note.unix_us;
            neighbour.send(&mut self.unsent, &Message::LiveNote(note.encode().into()));
        }
    }
}
