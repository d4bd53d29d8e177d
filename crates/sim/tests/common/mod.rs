//! A small, seeded, lossy network in virtual time that steps real engines: links with delay, jitter, loss repaired by
//! retransmission, uplinks that serialise, partitions, a tracker. The simulator will take its place.
//!
//! The world itself asserts what must always hold: honest nodes deliver and relay only what the source signed, once
//! each, and never before they said where they joined.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod paper;
pub mod reference;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caudal_proto::broadcast::{BroadcastError, Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Chunk, Ed25519Verifier, Flags, PartIn, Signer, VerifiedChunk, Verify};
use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::io::{Candidate, ChunkOutcome, ChunkToken, Connected, Event, Input, Output, Transmit};
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig, SwarmStats};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::{FrameReader, Message};

/// The wall clock at virtual time 0, µs.
pub const UNIX_START_US: u64 = 1_800_000_000_000_000;
/// Line bits for each chunk byte: what headers and acknowledgements cost.
pub const LINE_BITS_PER_BYTE_TENTHS: u64 = 85;

/// Line bits of a control frame beyond its own bytes, and of what acknowledges a chunk: IP, UDP and QUIC headers.
const CONTROL_BITS: u64 = 70 * 8;
const ACK_BITS: u64 = 2 * 80 * 8;

pub const S: fn(u64) -> Duration = Duration::from_secs;
pub const MS: fn(u64) -> Duration = Duration::from_millis;

/// What links do.
#[derive(Debug, Clone)]
pub struct Net {
    pub one_way: Duration,
    pub jitter: Duration,
    /// A loss delays by a round trip and some, as a retransmission would.
    pub loss: f64,
    /// Upload of each viewer; `None` is unlimited.
    pub viewer_bps: Option<u64>,
    pub source_bps: Option<u64>,
    /// Nodes are told what their line carries; otherwise they must find out.
    pub tell_upload: bool,
    pub copies_percent: Option<u32>,
    pub rate_bps: u32,
    pub substreams: u8,
    pub chunk_payload: usize,
    pub key_every_parts: u64,
    /// Time between two viewers' coming.
    pub join_gap: Duration,
    pub policy: Policy,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            one_way: MS(10),
            jitter: MS(2),
            loss: 0.0,
            viewer_bps: Some(4_000_000),
            source_bps: None,
            tell_upload: true,
            copies_percent: Some(200),
            rate_bps: 1_000_000,
            substreams: 8,
            chunk_payload: 5_300,
            key_every_parts: 5,
            join_gap: MS(60),
            policy: Policy::default(),
        }
    }
}

/// Remembers what the source signed, so that a thousand honest checks cost one comparison; all else is checked for real.
#[derive(Debug, Clone, Default)]
struct MemoVerifier(Arc<Mutex<BTreeMap<(u64, u64), Bytes>>>);

impl Verify for MemoVerifier {
    fn verify(&mut self, channel: &ChannelId, key: &BroadcastId, chunk: &Chunk) -> bool {
        let number = (chunk.header().epoch, chunk.header().number);
        let known = self.0.lock().expect("no panic while held").get(&number).cloned();
        known.is_some_and(|known| known == *chunk.encoded()) || Ed25519Verifier.verify(channel, key, chunk)
    }
}

/// What a hostile node makes of what its engine wants sent.
pub type Twist = Box<dyn FnMut(&mut fastrand::Rng, Transmit) -> Vec<Transmit>>;
/// What a hostile node sends of its own accord, every 20 ms, to the peers it is connected to.
pub type Extra = Box<dyn FnMut(&mut fastrand::Rng, Timestamp, &[PeerId]) -> Vec<Transmit>>;

enum Happening {
    Input(usize, Input),
    /// Arrives only while the link that it was sent on stands.
    Arrive {
        link: (usize, usize),
        generation: u64,
        to: usize,
        input: Input,
    },
    Wire {
        link: (usize, usize),
        generation: u64,
        to: usize,
        from: PeerId,
        bytes: Bytes,
    },
    Chunk {
        link: (usize, usize),
        generation: u64,
        from: usize,
        to: usize,
        token: ChunkToken,
        stream: Bytes,
    },
    Wake(usize),
    Track(usize),
    Extra(usize),
    Part(u64),
    Note(u64),
}

/// One peer.
pub struct Node {
    pub id: PeerId,
    pub engine: Engine,
    pub alive: bool,
    pub hostile: bool,
    pub twist: Option<Twist>,
    pub extra: Option<Extra>,
    pub upload: Option<u64>,
    pub skew_us: i64,
    pub opened: Timestamp,
    pub joined: Vec<(u64, u64, Timestamp)>,
    pub again: BTreeSet<(u64, u64)>,
    pub got: BTreeMap<(u64, u64), Timestamp>,
    pub ended: bool,
    pub dropped: Vec<(PeerId, String, Timestamp)>,
    pub missed: u64,
    pub dials: u64,
    line_free: Timestamp,
    wake: Timestamp,
    readers: BTreeMap<PeerId, FrameReader>,
    pub sent_bytes: u64,
    pub sent_chunks: u64,
}

struct Broadcaster {
    node: usize,
    signer: Signer,
    epoch: u64,
    parts: u64,
}

/// The world.
pub struct World {
    pub net: Net,
    pub now: Timestamp,
    pub nodes: Vec<Node>,
    pub channel_key: SecretKey,
    pub broadcast_key: SecretKey,
    broadcaster: Option<Broadcaster>,
    broadcasts: u64,
    pub certificate: Option<Certificate>,
    pub note: Option<LiveNote>,
    pub tracker: bool,
    pub published: BTreeMap<(u64, u64), (Timestamp, VerifiedChunk)>,
    verifier: MemoVerifier,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    seq: u64,
    rng: fastrand::Rng,
    ids: BTreeMap<PeerId, usize>,
    links: BTreeMap<(usize, usize), u64>,
    /// When the last control bytes of a link and direction arrive: the control stream is ordered.
    ordered: BTreeMap<(usize, usize), Timestamp>,
    resets: BTreeSet<(usize, ChunkToken)>,
    /// One side of a partition, and until when nothing crosses it.
    partition: Option<(BTreeSet<usize>, Timestamp)>,
    /// A millisecond and what happened in it: engines must not spin.
    spin: (Timestamp, u32),
    /// Prints what this node and its peers say to each other, HAVE and STATE left out.
    pub watch: Option<usize>,
    /// FNV-1a over everything that was transmitted.
    pub trace: u64,
}

impl World {
    pub fn new(net: Net, seed: u64) -> Self {
        Self {
            net,
            now: Timestamp::from_millis(1),
            nodes: Vec::new(),
            channel_key: SecretKey::from_bytes(&[1; 32]),
            broadcast_key: SecretKey::from_bytes(&[2; 32]),
            broadcaster: None,
            broadcasts: 0,
            certificate: None,
            note: None,
            tracker: true,
            published: BTreeMap::new(),
            verifier: MemoVerifier::default(),
            queue: BTreeMap::new(),
            seq: 0,
            rng: fastrand::Rng::with_seed(seed),
            ids: BTreeMap::new(),
            links: BTreeMap::new(),
            ordered: BTreeMap::new(),
            resets: BTreeSet::new(),
            partition: None,
            spin: (Timestamp::ZERO, 0),
            watch: std::env::var("WATCH").ok().and_then(|node| node.parse().ok()),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub fn channel(&self) -> ChannelId {
        self.channel_key.channel()
    }

    pub fn unix_us(&self) -> u64 {
        UNIX_START_US + self.now.as_micros()
    }

    /// A source, `viewers` viewers that came 60 ms apart, and 5 s of rest.
    pub fn swarm(net: Net, viewers: usize, seed: u64) -> Self {
        let mut world = Self::new(net, seed);
        world.source();
        world.run(S(3));
        for _ in 0..viewers {
            world.viewer();
            world.run(world.net.join_gap);
        }
        world.run(S(5));
        world
    }

    fn engine(&mut self, id: PeerId, upload: Option<u64>) -> Engine {
        let upload_limit_bps = upload.filter(|_| self.net.tell_upload);
        Engine::new(EngineConfig { local: id, seed: self.rng.u64(..), upload_limit_bps })
    }

    pub fn add(&mut self, role: Role, upload: Option<u64>, skew_us: i64) -> usize {
        let index = self.nodes.len();
        let mut id = [0u8; 32];
        id[..8].copy_from_slice(&fastrand::Rng::with_seed(index as u64 + 77).u64(..).to_be_bytes());
        id[31] = index as u8;
        let id = PeerId(id);
        let engine = self.engine(id, upload);
        self.ids.insert(id, index);
        self.nodes.push(Node {
            id,
            engine,
            alive: true,
            hostile: false,
            twist: None,
            extra: None,
            upload,
            skew_us,
            opened: self.now,
            joined: Vec::new(),
            again: BTreeSet::new(),
            got: BTreeMap::new(),
            ended: false,
            dropped: Vec::new(),
            missed: 0,
            dials: 0,
            line_free: self.now,
            wake: Timestamp::FAR_FUTURE,
            readers: BTreeMap::new(),
            sent_bytes: 0,
            sent_chunks: 0,
        });
        self.open(index, role);
        index
    }

    fn open(&mut self, index: usize, role: Role) {
        let config = SwarmConfig {
            channel: self.channel(),
            rendition: RenditionId(0),
            role,
            upload: true,
            retention: S(60),
            lan: true,
            policy: self.net.policy.clone(),
            verifier: Box::new(self.verifier.clone()),
            records: Box::new(paper::PaperKeys(self.nodes[index].id)),
        };
        let unix_us = self.unix_us().saturating_add_signed(self.nodes[index].skew_us);
        self.input(index, Input::UnixTime(unix_us));
        self.input(index, Input::Open(Box::new(config)));
    }

    fn begin_broadcast(&mut self) -> (Certificate, Signer) {
        let epoch = self.unix_us() / 1000;
        let terms = CertificateTerms {
            epoch,
            not_before_unix_us: self.unix_us(),
            not_after_unix_us: self.unix_us() + 86_400_000_000,
            substreams: self.net.substreams,
            rate_bps: self.net.rate_bps,
        };
        let id = BroadcastId(self.broadcast_key.public());
        let certificate = Certificate::sign(&self.channel_key, id, terms);
        self.certificate = Some(certificate);
        self.note = None;
        let key = self.broadcast_key.clone();
        (certificate, Signer::new(key, self.channel(), epoch, RenditionId(0), self.net.chunk_payload))
    }

    /// A source begins a broadcast; its first part comes at once.
    pub fn source(&mut self) -> usize {
        let (certificate, signer) = self.begin_broadcast();
        let role = Role::Source { certificate, copies_percent: self.net.copies_percent };
        let index = self.add(role, self.net.source_bps, 0);
        self.start_broadcast(index, signer, certificate.epoch);
        index
    }

    fn start_broadcast(&mut self, node: usize, signer: Signer, epoch: u64) {
        self.broadcasts += 1;
        self.broadcaster = Some(Broadcaster { node, signer, epoch, parts: 0 });
        self.track(node);
        self.at(Duration::ZERO, Happening::Note(self.broadcasts));
        self.at(Duration::ZERO, Happening::Part(self.broadcasts));
    }

    /// The source's process comes back under the same peer id: nobody is told that the old connections are gone.
    pub fn restart_source(&mut self, index: usize) {
        let (certificate, signer) = self.begin_broadcast();
        self.links.retain(|link, _| link.0 != index && link.1 != index);
        let id = self.nodes[index].id;
        let engine = self.engine(id, self.net.source_bps);
        let node = &mut self.nodes[index];
        node.engine = engine;
        node.alive = true;
        node.wake = Timestamp::FAR_FUTURE;
        node.readers.clear();
        self.open(index, Role::Source { certificate, copies_percent: self.net.copies_percent });
        self.start_broadcast(index, signer, certificate.epoch);
    }

    /// A viewer comes and hears of everybody from the tracker.
    pub fn viewer(&mut self) -> usize {
        self.viewer_with(self.net.viewer_bps, 0)
    }

    pub fn viewer_with(&mut self, upload: Option<u64>, skew_us: i64) -> usize {
        let index = self.add(Role::Viewer, upload, skew_us);
        self.track(index);
        index
    }

    /// A viewer comes that knows nobody but `host`.
    pub fn invited(&mut self, host: usize) -> usize {
        let index = self.add(Role::Viewer, self.net.viewer_bps, 0);
        let candidate = self.candidate(host, false);
        self.input(index, Input::Candidates(self.channel(), vec![candidate]));
        index
    }

    /// A viewer that does to its messages what `twist` does, and sends what `extra` gives.
    pub fn hostile(&mut self, upload: Option<u64>, twist: Option<Twist>, extra: Option<Extra>) -> usize {
        let index = self.add(Role::Viewer, upload, 0);
        let node = &mut self.nodes[index];
        (node.hostile, node.twist, node.extra) = (true, twist, extra);
        self.track(index);
        self.at(MS(20), Happening::Extra(index));
        index
    }

    /// What a tracker would answer `index` now.
    pub fn track(&mut self, index: usize) {
        if !self.tracker {
            return;
        }
        let source = self.broadcaster.as_ref().map(|broadcaster| broadcaster.node);
        let mut candidates: Vec<Candidate> = (0..self.nodes.len())
            .filter(|&i| i != index && self.nodes[i].alive)
            .map(|i| self.candidate(i, Some(i) == source))
            .collect();
        self.rng.shuffle(&mut candidates);
        candidates.sort_by_key(|c| !c.source);
        candidates.truncate(20);
        let channel = self.channel();
        if let Some(certificate) = self.certificate {
            let note = self.note;
            self.input(index, Input::Broadcast(channel, certificate, note));
        }
        self.input(index, Input::Candidates(channel, candidates));
    }

    pub fn candidate(&self, index: usize, source: bool) -> Candidate {
        Candidate { peer: self.nodes[index].id, addrs: vec![addr(index)], source, cost: 0 }
    }

    /// As `kill -9` would: nobody is told.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].alive = false;
        if self.broadcaster.as_ref().is_some_and(|broadcaster| broadcaster.node == index) {
            self.broadcaster = None;
        }
    }

    /// Ctrl-C: it says goodbye and is gone.
    pub fn leave(&mut self, index: usize) {
        let channel = self.channel();
        self.input(index, Input::Leave(channel));
        self.kill(index);
    }

    /// Nothing crosses between `side` and the rest for `span`; what was sent arrives afterwards.
    pub fn part_world(&mut self, side: impl IntoIterator<Item = usize>, span: Duration) {
        self.partition = Some((side.into_iter().collect(), self.now + span));
    }

    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((&(at, seq), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let Some(happening) = self.queue.remove(&(at, seq)) else { break };
            if at.since(self.spin.0) > MS(1) {
                self.spin = (at, 0);
            }
            self.spin.1 += 1;
            assert!(self.spin.1 < 50_000, "the world spins at {at:?}");
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Input(index, input) => self.input(index, input),
            Happening::Arrive { link, generation, to, input } => {
                if self.links.get(&link) == Some(&generation) {
                    self.input(to, input);
                }
            }
            Happening::Wire { link, generation, to, from, bytes } => {
                if self.links.get(&link) == Some(&generation) {
                    self.wire(to, from, &bytes);
                }
            }
            Happening::Chunk { link, generation, from, to, token, stream } => {
                if self.links.get(&link) == Some(&generation) && !self.resets.contains(&(from, token)) {
                    let (sender, receiver) = (self.nodes[from].id, self.nodes[to].id);
                    self.input(to, Input::ChunkStream(sender, stream));
                    let back = self.travel(from, to) + self.occupy(to, ACK_BITS);
                    if self.nodes[to].alive {
                        let input = Input::ChunkDone(receiver, token, ChunkOutcome::Delivered);
                        self.at(back, Happening::Arrive { link, generation, to: from, input });
                    }
                }
            }
            Happening::Wake(index) => {
                if self.nodes[index].wake <= self.now {
                    self.nodes[index].wake = Timestamp::FAR_FUTURE;
                    self.input(index, Input::Tick);
                }
            }
            Happening::Track(index) => self.track(index),
            Happening::Extra(index) => self.extra(index),
            Happening::Part(broadcast) => self.part(broadcast),
            Happening::Note(broadcast) => self.sign_note(broadcast),
        }
    }

    pub fn stats(&self, index: usize) -> SwarmStats {
        self.nodes[index].engine.stats(&self.channel()).expect("it takes part")
    }

    fn part(&mut self, broadcast: u64) {
        let (channel, unix_us, keys) = (self.channel(), self.unix_us(), self.net.key_every_parts);
        let usual = (self.net.rate_bps / 40) as usize;
        let Some(broadcaster) = self.broadcaster.as_mut().filter(|_| broadcast == self.broadcasts) else {
            return;
        };
        let key = broadcaster.parts.is_multiple_of(keys);
        // A key frame makes its part twice as large as the mean.
        let len = if key { usual * 2 } else { usual * (keys as usize - 2) / (keys as usize - 1) };
        let flags = Flags::default().with(Flags::SEGMENT_START, key).with(Flags::INIT, key);
        let payload: Bytes = vec![broadcaster.parts as u8; len].into();
        broadcaster.parts += 1;
        let source = broadcaster.node;
        let part = PartIn { flags, capture_unix_us: unix_us - 200_000, payload };
        let chunks = broadcaster.signer.sign(&part, unix_us);
        let mut memo = self.verifier.0.lock().expect("no panic while held");
        for chunk in &chunks {
            let key = (chunk.header().epoch, chunk.header().number);
            memo.insert(key, chunk.encoded().clone());
            self.published.insert(key, (self.now, chunk.clone()));
        }
        drop(memo);
        self.input(source, Input::Publish(channel, chunks));
        self.at(MS(200), Happening::Part(broadcast));
    }

    fn sign_note(&mut self, broadcast: u64) {
        let (channel, unix_us) = (self.channel(), self.unix_us());
        let Some(broadcaster) = self.broadcaster.as_ref().filter(|_| broadcast == self.broadcasts) else {
            return;
        };
        let (source, epoch, next) = (broadcaster.node, broadcaster.epoch, broadcaster.signer.next_number());
        let unix_us = unix_us.saturating_add_signed(self.nodes[source].skew_us);
        let note = LiveNote::sign(&self.broadcast_key, channel, epoch, next, unix_us, false);
        self.note = Some(note);
        self.input(source, Input::PublishNote(note));
        self.at(S(3), Happening::Note(broadcast));
    }

    /// The broadcaster ends the broadcast.
    pub fn end(&mut self) {
        let (channel, unix_us) = (self.channel(), self.unix_us());
        let Some(broadcaster) = self.broadcaster.take() else { return };
        let (epoch, next) = (broadcaster.epoch, broadcaster.signer.next_number());
        let note = LiveNote::sign(&self.broadcast_key, channel, epoch, next, unix_us, true);
        self.note = Some(note);
        self.input(broadcaster.node, Input::PublishNote(note));
    }

    fn at(&mut self, after: Duration, happening: Happening) {
        self.seq += 1;
        self.queue.insert((self.now + after, self.seq), happening);
    }

    pub fn input(&mut self, index: usize, input: Input) {
        if !self.nodes[index].alive {
            return;
        }
        let now = self.now;
        self.nodes[index].engine.handle_input(now, input);
        loop {
            match self.nodes[index].engine.poll_output() {
                Output::Transmit(transmit) => self.transmit(index, transmit),
                Output::Event(event) => self.event(index, event),
                Output::Timeout(at) => {
                    if at < self.nodes[index].wake {
                        self.nodes[index].wake = at;
                        self.seq += 1;
                        let at = at.max(now + Duration::from_micros(1));
                        self.queue.insert((at, self.seq), Happening::Wake(index));
                    }
                    return;
                }
            }
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        let now = self.now;
        if matches!(event, Event::NeedPeers(_)) {
            self.at(MS(20), Happening::Track(index));
        }
        let node = &mut self.nodes[index];
        match event {
            Event::Chunk(_, chunk) if !node.hostile => {
                let key = (chunk.header().epoch, chunk.header().number);
                let published = self.published.get(&key).map(|p| &p.1);
                assert_eq!(Some(&chunk), published, "only what was published is delivered");
                let from = node.joined.last().map(|joined| (joined.0, joined.1));
                assert!(
                    from.is_some_and(|from| from.0 == key.0 && from.1 <= key.1),
                    "{key:?} before {from:?}"
                );
                let is_new = !node.got.contains_key(&key);
                assert!(is_new || node.again.remove(&key), "chunk {key:?} came twice");
                node.got.entry(key).or_insert(now);
            }
            Event::Joined { epoch, number, .. } => {
                // What it had been given from there on it is given once more.
                node.again = node.got.range((epoch, number)..).map(|(key, _)| *key).collect();
                node.joined.push((epoch, number, now));
            }
            Event::Ended(..) => node.ended = true,
            Event::Dropped { peer, reason, .. } => node.dropped.push((peer, reason, now)),
            Event::Missed(_, range) => node.missed += range.end - range.start,
            _ => {}
        }
    }

    pub fn index(&self, peer: &PeerId) -> Option<usize> {
        self.ids.get(peer).copied()
    }

    /// Time over a link: propagation, jitter, and a retransmission for each loss or for as long as a partition lasts.
    fn travel(&mut self, from: usize, to: usize) -> Duration {
        let mut time =
            self.net.one_way + Duration::from_micros(self.rng.u64(..=self.net.jitter.as_micros() as u64));
        while self.rng.f64() < self.net.loss {
            time += self.net.one_way * 3;
        }
        if let Some((side, until)) = &self.partition
            && self.now < *until
            && side.contains(&from) != side.contains(&to)
        {
            // Retransmissions back off: the first to get through comes a while after the world is whole.
            time += until.since(self.now) + MS(self.rng.u64(..400));
        }
        time
    }

    fn transmit(&mut self, index: usize, transmit: Transmit) {
        match self.nodes[index].twist.take() {
            None => self.carry(index, transmit),
            Some(mut twist) => {
                let out = twist(&mut self.rng, transmit);
                self.nodes[index].twist = Some(twist);
                out.into_iter().for_each(|transmit| self.carry(index, transmit));
            }
        }
    }

    fn extra(&mut self, index: usize) {
        if !self.nodes[index].alive {
            return;
        }
        if let Some(mut extra) = self.nodes[index].extra.take() {
            let ends = self.links.keys().filter(|(a, b)| *a == index || *b == index);
            let peers: Vec<PeerId> = ends.map(|(a, b)| self.nodes[a + b - index].id).collect();
            let out = extra(&mut self.rng, self.now, &peers);
            self.nodes[index].extra = Some(extra);
            out.into_iter().for_each(|transmit| self.carry(index, transmit));
        }
        self.at(MS(20), Happening::Extra(index));
    }

    fn carry(&mut self, index: usize, transmit: Transmit) {
        self.note_trace(index, &transmit);
        self.print(index, &transmit);
        match transmit {
            Transmit::Connect { peer, .. } => self.connect(index, peer),
            // Who wants to be listened to does not hang up.
            Transmit::Disconnect { .. } if self.nodes[index].hostile => {}
            Transmit::Disconnect { peer, .. } => {
                let Some(other) = self.index(&peer) else { return };
                if self.links.remove(&(index.min(other), index.max(other))).is_some() {
                    let gone = Input::Disconnected(self.nodes[index].id);
                    self.at(self.net.one_way, Happening::Input(other, gone));
                }
            }
            Transmit::Control { peer, bytes } => {
                let Some((other, link, generation)) = self.linked(index, &peer) else { return };
                self.nodes[index].sent_bytes += bytes.len() as u64;
                let from = self.nodes[index].id;
                let line = self.occupy(index, (bytes.len() as u64) * 8 + CONTROL_BITS);
                let arrives = self.now + line + self.travel(index, other);
                let last = self.ordered.entry((index, other)).or_insert(arrives);
                *last = arrives.max(*last + Duration::from_micros(1));
                let after = last.since(self.now);
                self.at(after, Happening::Wire { link, generation, to: other, from, bytes });
            }
            Transmit::Chunk { peer, token, head, body, .. } => {
                let Some((other, link, generation)) = self.linked(index, &peer) else { return };
                let bytes = (head.len() + body.len()) as u64;
                let travel = self.travel(index, other);
                let node = &mut self.nodes[index];
                if !node.hostile {
                    let chunk = Chunk::decode(body.clone()).expect("honest nodes relay chunks");
                    let published = self.published.get(&(chunk.header().epoch, chunk.header().number));
                    assert_eq!(
                        published.map(|p| p.1.encoded()),
                        Some(&body),
                        "only what was signed is relayed"
                    );
                }
                node.sent_bytes += bytes;
                node.sent_chunks += 1;
                let there = self.occupy(index, bytes * LINE_BITS_PER_BYTE_TENTHS / 10) + travel;
                let mut stream = BytesMut::from(&head[..]);
                stream.extend_from_slice(&body);
                let stream = stream.freeze();
                self.at(there, Happening::Chunk { link, generation, from: index, to: other, token, stream });
            }
            Transmit::Reset { peer, token } => {
                let Some((_, link, generation)) = self.linked(index, &peer) else { return };
                self.resets.insert((index, token));
                let input = Input::ChunkDone(peer, token, ChunkOutcome::Dropped);
                self.at(Duration::ZERO, Happening::Arrive { link, generation, to: index, input });
            }
        }
    }

    /// Puts `bits` on the uplink of `index`, behind what is there; how long until they have left.
    fn occupy(&mut self, index: usize, bits: u64) -> Duration {
        let node = &mut self.nodes[index];
        let us = node.upload.map_or(0, |bps| bits * 1_000_000 / bps);
        node.line_free = node.line_free.max(self.now) + Duration::from_micros(us);
        node.line_free.since(self.now)
    }

    fn connect(&mut self, index: usize, peer: PeerId) {
        self.nodes[index].dials += 1;
        let Some(other) = self.index(&peer).filter(|&other| self.nodes[other].alive) else {
            self.at(S(3), Happening::Input(index, Input::DialFailed(peer)));
            return;
        };
        let link = (index.min(other), index.max(other));
        if self.links.contains_key(&link) {
            return;
        }
        self.seq += 1;
        let generation = self.seq;
        self.links.insert(link, generation);
        self.ordered.remove(&(index, other));
        self.ordered.remove(&(other, index));
        let rtt = self.net.one_way * 2;
        let connected = |peer: usize, dialled| Connected {
            peer: self.nodes[peer].id,
            addr: Some(addr(peer)),
            rtt,
            dialled,
        };
        let (mine, theirs) = (connected(other, true), connected(index, false));
        self.nodes[index].readers.insert(mine.peer, FrameReader::default());
        self.nodes[other].readers.insert(theirs.peer, FrameReader::default());
        let wait = self.travel(index, other) + self.net.one_way;
        let (mine, theirs) = (Input::Connected(mine), Input::Connected(theirs));
        self.at(wait, Happening::Arrive { link, generation, to: index, input: mine });
        self.at(wait, Happening::Arrive { link, generation, to: other, input: theirs });
    }

    fn linked(&self, index: usize, peer: &PeerId) -> Option<(usize, (usize, usize), u64)> {
        let other = self.index(peer)?;
        let link = (index.min(other), index.max(other));
        self.links.get(&link).map(|generation| (other, link, *generation))
    }

    fn wire(&mut self, to: usize, from: PeerId, bytes: &[u8]) {
        let (mut frames, mut bad) = (Vec::new(), false);
        if let Some(reader) = self.nodes[to].readers.get_mut(&from) {
            reader.extend(bytes);
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(_) => {
                        bad = true;
                        *reader = FrameReader::default();
                        break;
                    }
                }
            }
        }
        for frame in frames {
            self.input(to, Input::Control(from, frame));
        }
        if bad {
            self.input(to, Input::Violation(from, "it sent a frame that is too long"));
        }
    }

    fn print(&self, index: usize, transmit: &Transmit) {
        let Some(watched) = self.watch else { return };
        let (Transmit::Connect { peer, .. }
        | Transmit::Disconnect { peer, .. }
        | Transmit::Control { peer, .. }
        | Transmit::Chunk { peer, .. }
        | Transmit::Reset { peer, .. }) = transmit;
        let other = self.index(peer).unwrap_or(usize::MAX);
        if index != watched && other != watched {
            return;
        }
        let at = self.now.as_micros() / 1000;
        match transmit {
            Transmit::Control { bytes, .. } => {
                let mut reader = FrameReader::default();
                reader.extend(bytes);
                while let Ok(Some(frame)) = reader.next_frame() {
                    for message in caudal_proto::wire::Messages::open(frame).expect("a frame").flatten() {
                        let text = match message {
                            Message::Have(_) | Message::State(_) | Message::LiveNote(_) => continue,
                            Message::Request(r) => {
                                format!("REQUEST {:?}", r.chunks.iter().collect::<Vec<_>>())
                            }
                            Message::Refuse { reason, chunks } => {
                                format!("REFUSE {reason:?} {:?}", chunks.iter().collect::<Vec<_>>())
                            }
                            Message::Cancel(chunks) => {
                                format!("CANCEL {:?}", chunks.iter().collect::<Vec<_>>())
                            }
                            other => format!("{other:?}"),
                        };
                        println!("{at} {index}->{other} {text}");
                    }
                }
            }
            Transmit::Chunk { head, body, .. } => {
                let number = Chunk::decode(body.clone()).map_or(u64::MAX, |chunk| chunk.header().number);
                println!("{at} {index}->{other} CHUNK {number} requested {} lag {:?}", head[2], &head[3..]);
            }
            Transmit::Connect { .. } => println!("{at} {index}->{other} CONNECT"),
            Transmit::Disconnect { code, .. } => println!("{at} {index}->{other} DISCONNECT {code:?}"),
            Transmit::Reset { .. } => println!("{at} {index}->{other} RESET"),
        }
    }

    fn note_trace(&mut self, index: usize, transmit: &Transmit) {
        let mut hash = self.trace;
        let mut eat = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        eat(&self.now.as_micros().to_be_bytes());
        eat(&[index as u8]);
        match transmit {
            Transmit::Connect { peer, addrs } => eat(format!("c{peer}{addrs:?}").as_bytes()),
            Transmit::Disconnect { peer, code } => eat(format!("d{peer}{code:?}").as_bytes()),
            Transmit::Control { peer, bytes } => {
                eat(&peer.0);
                eat(bytes);
            }
            Transmit::Chunk { peer, token, priority, head, body } => {
                eat(&peer.0);
                eat(&token.0.to_be_bytes());
                eat(&priority.to_be_bytes());
                eat(head);
                // Header and signature stand for the payload, which they cover.
                eat(&body[..108.min(body.len())]);
            }
            Transmit::Reset { peer, token } => eat(format!("r{peer}{token:?}").as_bytes()),
        }
        self.trace = hash;
    }

    /// The honest viewers that are there.
    pub fn viewers(&self) -> Vec<usize> {
        let source = self.broadcaster.as_ref().map(|broadcaster| broadcaster.node);
        let here = |&i: &usize| self.nodes[i].alive && !self.nodes[i].hostile && Some(i) != source && i != 0;
        (0..self.nodes.len()).filter(here).collect()
    }

    /// No honest node ever dropped an honest one.
    pub fn assert_peace(&self) {
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.hostile) {
            for (peer, reason, at) in &node.dropped {
                let other = self.index(peer).expect("a node");
                assert!(self.nodes[other].hostile, "{i} dropped honest {other} at {at:?}: {reason}");
            }
        }
    }

    /// Chunks that were published while the viewer took part, and not received within `deadline` of being published.
    pub fn late(&self, index: usize, deadline: Duration, from: Timestamp, to: Timestamp) -> Vec<u64> {
        let node = &self.nodes[index];
        let Some(&(epoch, start, _)) = node.joined.last() else { return vec![u64::MAX] };
        self.published
            .iter()
            .filter(|((e, n), (at, _))| *e == epoch && *n >= start && *at >= from && *at < to)
            .filter(|(key, (at, _))| node.got.get(key).is_none_or(|got| got.since(*at) > deadline))
            .map(|((_, n), _)| *n)
            .collect()
    }

    /// Every honest viewer got every chunk published from `from` to 2 s ago within 1.5 s.
    pub fn assert_nothing_late(&self, from: Timestamp) {
        let to = self.now.saturating_sub(S(2));
        for viewer in self.viewers() {
            let late = self.late(viewer, MS(1500), from, to);
            assert!(late.is_empty(), "viewer {viewer} lacked {late:?} at 1.5 s");
        }
    }

    /// Delays of all chunks received by `index` of those published after `from`, sorted.
    pub fn delays(&self, index: usize, from: Timestamp) -> Vec<Duration> {
        let node = &self.nodes[index];
        let mut delays: Vec<Duration> = node
            .got
            .iter()
            .filter_map(|(key, got)| self.published.get(key).filter(|p| p.0 >= from).map(|p| got.since(p.0)))
            .collect();
        delays.sort_unstable();
        delays
    }
}

/// A note that a broadcaster of long ago signed, for those who replay it.
pub fn old_note(world: &World, certificate: &Certificate, unix_us: u64) -> LiveNote {
    LiveNote::sign(&world.broadcast_key, certificate.channel, certificate.epoch, 1_000, unix_us, false)
}

/// Whether bytes are a certificate of the world's channel.
pub fn reads(world: &World, bytes: &[u8]) -> Result<Certificate, BroadcastError> {
    Certificate::decode(&world.channel(), bytes)
}

/// The seeds of a scenario: `usual` of them, or as many as the environment variable SEEDS says.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

pub fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + index as u16))
}

pub fn percentile(sorted: &[Duration], p: usize) -> Duration {
    sorted.get((sorted.len() * p / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
