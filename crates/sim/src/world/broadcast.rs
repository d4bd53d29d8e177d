//! The broadcaster: parts are cut and signed once; what engines deliver is booked against it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Chunk, Ed25519Verifier, Flags, PartIn, Signer, VerifiedChunk, Verify};
use caudal_proto::id::{BroadcastId, ChannelId, RenditionId, SecretKey, SwarmId};
use caudal_proto::io::{Input, Playout};

use super::{Happening, UNIX_START_US, World};
use crate::config::SimConfig;

/// Live notes are signed this often, µs.
const NOTE_PERIOD_US: u64 = 3_000_000;
/// Players are looked at this often, µs.
const PLAY_PERIOD_US: u64 = 250_000;

/// Where an encoded chunk names its rendition.
const RENDITION_AT: usize = 28;

/// A chunk that was published.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) at: u64,
    pub(crate) chunk: VerifiedChunk,
}

/// Remembers what the source signed, so that a thousand honest checks cost one comparison; all else is checked for real.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoVerifier(Arc<RwLock<HashMap<Named, Bytes>>>);

/// What names a chunk: epoch, rendition, number.
type Named = (u64, RenditionId, u64);

impl MemoVerifier {
    fn remember(&self, chunk: &VerifiedChunk) {
        let key = (chunk.header().epoch, chunk.header().rendition, chunk.header().number);
        if let Ok(mut memo) = self.0.write() {
            memo.insert(key, chunk.encoded().clone());
        }
    }
}

impl Verify for MemoVerifier {
    fn verify(&mut self, channel: &ChannelId, key: &BroadcastId, chunk: &Chunk) -> bool {
        let named = (chunk.header().epoch, chunk.header().rendition, chunk.header().number);
        let known = self.0.read().ok().and_then(|memo| memo.get(&named).cloned());
        known.is_some_and(|known| is_same(&known, chunk.encoded()))
            || Ed25519Verifier.verify(channel, key, chunk)
    }
}

/// Equal bytes; the same buffer is not compared.
pub(crate) fn is_same(a: &Bytes, b: &Bytes) -> bool {
    (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b
}

/// A rendition of the channel.
pub(crate) struct Lane {
    pub(crate) rate_bps: u64,
    payload: usize,
    signer: Option<Signer>,
    pub(crate) note: Option<LiveNote>,
    /// Each broadcast's epoch and the places of its chunks in `published`, by number.
    epochs: Vec<(u64, Vec<u32>)>,
}

impl Lane {
    fn serials(&self) -> &[u32] {
        self.epochs.last().map_or(&[], |(_, serials)| serials)
    }
}

/// What is on the air.
pub(crate) struct Broadcast {
    pub(crate) channel_key: SecretKey,
    pub(super) key: SecretKey,
    pub(crate) certificate: Option<Certificate>,
    /// What the channel has, the best first; the rendition's number is its place.
    pub(crate) lanes: Vec<Lane>,
    /// Counts broadcasts; what belongs to an older one is not done.
    turn: u32,
    parts: u64,
    /// Each broadcast's epoch, and when it began, µs.
    epochs: Vec<(u64, u64)>,
    /// Every chunk of every rendition, in order.
    pub(crate) published: Vec<Published>,
    pub(crate) verifier: MemoVerifier,
}

impl Broadcast {
    pub(super) fn new(config: &SimConfig) -> Self {
        let lanes = config.rates().into_iter().enumerate().map(|(place, rate_bps)| Lane {
            rate_bps,
            payload: config.chunk_payload_of(place),
            signer: None,
            note: None,
            epochs: Vec::new(),
        });
        let mut rng = fastrand::Rng::with_seed(config.seed ^ 0xb0ad_ca57);
        let mut key = || SecretKey::from_bytes(&core::array::from_fn(|_| rng.u8(..)));
        Self {
            channel_key: key(),
            key: key(),
            certificate: None,
            lanes: lanes.collect(),
            turn: 0,
            parts: 0,
            epochs: Vec::new(),
            published: Vec::new(),
            verifier: MemoVerifier::default(),
        }
    }

    /// The place of a chunk in `published`.
    pub(crate) fn serial(&self, epoch: u64, rendition: RenditionId, number: u64) -> Option<usize> {
        let epochs = &self.lanes.get(usize::from(rendition.0))?.epochs;
        let (_, serials) = epochs.iter().rev().find(|(e, _)| *e == epoch)?;
        serials.get(usize::try_from(number).ok()?).map(|serial| *serial as usize)
    }

    /// Chunks of the newest broadcast's first rendition so far.
    pub(crate) fn edge(&self) -> u64 {
        self.lanes[0].serials().len() as u64
    }

    /// When the broadcast of this epoch began, µs.
    pub(crate) fn began(&self, epoch: u64) -> Option<u64> {
        self.epochs.iter().rev().find(|(e, _)| *e == epoch).map(|(_, began)| *began)
    }

    /// The chunk that `body` is, byte for byte.
    pub(crate) fn find(&self, body: &Bytes) -> Option<usize> {
        let word =
            |at: usize| body.get(at..at + 8).and_then(|raw| raw.try_into().ok()).map(u64::from_be_bytes);
        let rendition = RenditionId(*body.get(RENDITION_AT)?);
        let serial = self.serial(word(0)?, rendition, word(8)?)?;
        self.published.get(serial).is_some_and(|p| is_same(p.chunk.encoded(), body)).then_some(serial)
    }
}

impl World {
    /// The channel that everybody watches.
    pub fn channel(&self) -> ChannelId {
        self.broadcast.channel_key.channel()
    }

    /// The swarm of one of its renditions.
    pub fn swarm(&self, rendition: RenditionId) -> SwarmId {
        SwarmId { channel: self.channel(), rendition }
    }

    /// The true wall clock, µs since the Unix epoch.
    pub fn unix_us(&self) -> u64 {
        UNIX_START_US + self.now
    }

    /// Begins a broadcast: a new epoch, its certificate, a signer.
    pub(super) fn begin_broadcast(&mut self) -> Certificate {
        let (now, channel) = (self.unix_us(), self.channel());
        let epoch = now / 1000;
        let terms = CertificateTerms {
            epoch,
            not_before_unix_us: now,
            not_after_unix_us: now + 86_400_000_000,
            substreams: self.config.substreams,
            rate_bps: self.config.rate_bps as u32,
        };
        let broadcast = &mut self.broadcast;
        let id = BroadcastId(broadcast.key.public());
        let certificate = Certificate::sign(&broadcast.channel_key, id, terms);
        for (lane, place) in broadcast.lanes.iter_mut().zip(0..) {
            let signer = Signer::new(broadcast.key.clone(), channel, epoch, RenditionId(place), lane.payload);
            lane.signer = Some(signer.with_traced(self.config.traced_every));
            lane.note = None;
            lane.epochs.push((epoch, Vec::new()));
        }
        (broadcast.certificate, broadcast.parts) = (Some(certificate), 0);
        broadcast.turn += 1;
        broadcast.epochs.push((epoch, self.now));
        let turn = broadcast.turn;
        self.queue.push(self.now, Happening::Note(turn));
        self.queue.push(self.now, Happening::Part(turn));
        certificate
    }

    /// The source is away: nothing is published any more.
    pub(super) fn stop_broadcast(&mut self) {
        self.broadcast.lanes.iter_mut().for_each(|lane| lane.signer = None);
    }

    /// How long a part is, µs.
    pub(crate) fn part_us(&self) -> u64 {
        match self.config.part.as_micros() as u64 {
            0 => self.config.chunk_payload_bytes as u64 * 8_000_000 / self.config.rate_bps,
            part => part,
        }
    }

    /// The next part of each rendition is cut.
    pub(super) fn part(&mut self, turn: u32) {
        if turn != self.broadcast.turn || self.broadcast.lanes.iter().all(|lane| lane.signer.is_none()) {
            return;
        }
        let number = self.broadcast.parts;
        self.broadcast.parts += 1;
        for place in 0..self.broadcast.lanes.len() {
            self.cut_part(place, number);
        }
        self.queue.push(self.now + self.part_us(), Happening::Part(turn));
    }

    /// Part `number` of the rendition in this place.
    fn cut_part(&mut self, place: usize, number: u64) {
        let (unix_us, now, span_us) = (self.unix_us(), self.now, self.part_us());
        let swarm = self.swarm(RenditionId(place as u8));
        let config = &self.config;
        let lane = &mut self.broadcast.lanes[place];
        let (rate, chunk) = (lane.rate_bps, lane.payload as u64);
        let per_key = (config.key_interval.as_micros() as u64 / span_us).max(1);
        let Some(signer) = lane.signer.as_mut() else { return };
        let is_key = number.is_multiple_of(per_key);
        let mean = rate * span_us / 8_000_000;
        let len = if config.part.is_zero() {
            chunk
        } else if is_key {
            (mean as f64 * config.key_size) as u64
        } else {
            // The others are smaller, so that the mean is the rate.
            let rest = (per_key as f64 - config.key_size) / (per_key as f64 - 1.0).max(1.0);
            (mean as f64 * rest.max(0.05)) as u64
        };
        let flags = Flags::default().with(Flags::SEGMENT_START, is_key).with(Flags::INIT, is_key);
        let payload: Bytes = vec![number as u8; len.max(1) as usize].into();
        let part = PartIn { flags, capture_unix_us: unix_us - span_us, payload };
        let chunks = signer.sign(&part, unix_us);
        for chunk in &chunks {
            self.broadcast.verifier.remember(chunk);
            if self.config.trace.is_none() && chunk.header().flags.has(Flags::TRACED) {
                self.trace.follow(self.broadcast.published.len());
            }
            self.ledger.published += 1;
            self.ledger.published_bytes += u64::from(chunk.header().len);
            if let Some((_, serials)) = self.broadcast.lanes[place].epochs.last_mut() {
                serials.push(self.broadcast.published.len() as u32);
            }
            self.broadcast.published.push(Published { at: now, chunk: chunk.clone() });
        }
        self.input(self.source, Input::Publish(swarm, chunks));
    }

    /// Players give up what has been missing for too long: their nodes no longer ask for it.
    pub(super) fn play(&mut self) {
        self.queue.push(self.now + PLAY_PERIOD_US, Happening::Play);
        let patience = self.config.patience.as_micros() as u64;
        let Some(&(epoch, _)) = self.broadcast.epochs.last() else { return };
        let published = &self.broadcast.published;
        let is_given_up = |serial: &u32| published[*serial as usize].at + patience < self.now;
        let next = |lane: &Lane| lane.serials().partition_point(is_given_up) as u64;
        let next: Vec<u64> = self.broadcast.lanes.iter().map(next).collect();
        for index in self.viewers().collect::<Vec<_>>() {
            for (&next_number, place) in next.iter().zip(0..) {
                if self.nodes[index].members[usize::from(place)].epoch == epoch {
                    let playout = Playout { buffer_ms: 0, next_number };
                    self.input(index, Input::Playout(self.swarm(RenditionId(place)), playout));
                }
            }
        }
    }

    pub(super) fn sign_note(&mut self, turn: u32, is_end: bool) {
        let unix_us = self.unix_us().saturating_add_signed(self.nodes[self.source].skew_us);
        let Some((epoch, _)) = self.broadcast.epochs.last().copied() else { return };
        for place in 0..self.broadcast.lanes.len() {
            let swarm = self.swarm(RenditionId(place as u8));
            let broadcast = &mut self.broadcast;
            let lane = &mut broadcast.lanes[place];
            let Some(signer) = lane.signer.as_ref().filter(|_| turn == broadcast.turn) else { return };
            let note = LiveNote::sign(&broadcast.key, swarm, epoch, signer.next_number(), unix_us, is_end);
            lane.note = Some(note);
            self.input(self.source, Input::PublishNote(note));
        }
        if is_end {
            self.stop_broadcast();
        } else {
            self.queue.push(self.now + NOTE_PERIOD_US, Happening::Note(turn));
        }
    }

    /// The broadcaster says that this was all.
    pub(super) fn end_note(&mut self) {
        self.sign_note(self.broadcast.turn, true);
    }

    /// A chunk stream reached `to`, before its engine sees it.
    pub(super) fn arrived(&mut self, from: usize, to: usize, head: &[u8], body: &Bytes, sent: u64) {
        let Some(serial) = self.broadcast.find(body) else {
            self.nodes[to].record.forgeries += 1;
            return;
        };
        let depth = self.nodes[from].record.depth(serial).saturating_add(1);
        let bytes = body.len() as u64;
        let is_requested = head.get(2) == Some(&1);
        self.trace.arrived(serial, from, to, sent, self.now, is_requested);
        let is_honest = self.nodes[to].is_honest();
        let record = &mut self.nodes[to].record;
        if !record.has(serial) {
            record.set_depth(serial, depth);
            self.ledger.pulled += u64::from(is_requested && is_honest);
        } else if is_honest {
            self.ledger.duplicate(bytes);
        }
    }

    /// An engine delivered a chunk in the swarm of `rendition`.
    pub(super) fn delivered(&mut self, index: usize, rendition: RenditionId, chunk: &VerifiedChunk) {
        let header = *chunk.header();
        if header.rendition != rendition {
            self.fail_rendition(index, header.rendition, rendition);
        }
        let serial = self.broadcast.serial(header.epoch, header.rendition, header.number);
        let published = serial.and_then(|serial| self.broadcast.published.get(serial));
        let Some((serial, published)) =
            serial.zip(published).filter(|(_, p)| is_same(p.chunk.encoded(), chunk.encoded()))
        else {
            self.fail_delivered(index, "delivered a chunk that was never published");
            return;
        };
        let delay = self.now - published.at;
        let now = self.now;
        let part_start = serial.saturating_sub(usize::from(header.index));
        let member = &self.nodes[index].members[usize::from(header.rendition.0)];
        let is_early = member.start.is_none_or(|start| serial < start);
        let record = &mut self.nodes[index].record;
        let is_new = record.book(serial, delay);
        // A player begins with the first part, or where a later segment does when something of it got lost.
        let may_begin = record.start == Some(part_start) || header.flags.has(Flags::SEGMENT_START);
        if record.startup.is_none() && !is_early && may_begin {
            record.begin(now, part_start, header.count);
        }
        let is_from_source = record.depth(serial) == 1;
        if self.nodes[index].is_honest() {
            self.ledger.useful(rendition, u64::from(header.len), is_from_source);
        }
        if is_early {
            self.fail_delivered(index, "delivered a chunk from before it joined");
        }
        let member = &mut self.nodes[index].members[usize::from(header.rendition.0)];
        if !is_new && !member.again.remove(&serial) {
            self.fail_delivered(index, "delivered a chunk twice");
        }
        self.came(index, &header);
    }

    pub(super) fn joined(&mut self, index: usize, rendition: RenditionId, epoch: u64, number: u64) {
        let Some(serial) = self.broadcast.serial(epoch, rendition, number) else { return };
        let count = self.broadcast.published.get(serial).map_or(1, |p| p.chunk.header().count);
        let now = self.now;
        let node = &mut self.nodes[index];
        let member = &mut node.members[usize::from(rendition.0)];
        let before = member.start.replace(serial);
        // In the same broadcast it begins once more, later, and is given once more what it holds from there on. So is who left
        // the swarm and came back, from wherever it likes.
        let is_again = member.epoch == epoch;
        member.again =
            if is_again || member.has_left { node.record.given_from(serial) } else { BTreeSet::new() };
        member.epoch = epoch;
        let goes_back = is_again && before.is_some_and(|before| serial <= before);
        let record = &mut node.record;
        if record.start.is_none() || node.watching.is_none() {
            record.start = Some(serial);
        }
        if record.startup.is_none() {
            record.joined = now;
            record.begin(now, serial, count);
        }
        if goes_back {
            self.fail_delivered(index, "began again, and earlier");
        }
        self.begins(index, rendition, epoch, number);
    }
}
