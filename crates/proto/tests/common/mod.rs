//! A small, seeded, lossy network in virtual time that steps real engines: links with delay, jitter and loss repaired by
//! retransmission, uplinks that serialise. The simulator will take its place.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Ed25519Verifier, Flags, PartIn, Signer, VerifiedChunk};
use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::io::{Candidate, ChunkOutcome, ChunkToken, Connected, Event, Input, Output, Transmit};
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig, SwarmStats};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::FrameReader;

/// The wall clock at virtual time 0, µs.
pub const UNIX_START_US: u64 = 1_800_000_000_000_000;

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
    pub copies_percent: Option<u32>,
    pub rate_bps: u32,
    pub substreams: u8,
    pub chunk_payload: usize,
    pub key_every_parts: u64,
    pub policy: Policy,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            one_way: Duration::from_millis(10),
            jitter: Duration::from_millis(2),
            loss: 0.0,
            viewer_bps: Some(4_000_000),
            source_bps: None,
            copies_percent: Some(200),
            rate_bps: 1_000_000,
            substreams: 8,
            chunk_payload: 5_300,
            key_every_parts: 5,
            policy: Policy::default(),
        }
    }
}

enum Happening {
    Input(usize, Input),
    Wire { to: usize, from: PeerId, bytes: Bytes },
    Wake(usize),
    Part,
    Note,
}

/// One peer.
pub struct Node {
    pub id: PeerId,
    pub engine: Engine,
    pub alive: bool,
    pub upload: Option<u64>,
    pub opened: Timestamp,
    pub joined: Vec<(u64, u64, Timestamp)>,
    pub got: BTreeMap<(u64, u64), Timestamp>,
    pub ended: bool,
    pub dropped: Vec<(PeerId, String)>,
    pub missed: u64,
    line_free: Timestamp,
    wake: Timestamp,
    readers: BTreeMap<PeerId, FrameReader>,
    pub sent_bytes: u64,
    pub inbox_log: u64,
}

/// The world.
pub struct World {
    pub net: Net,
    pub now: Timestamp,
    pub nodes: Vec<Node>,
    pub channel_key: SecretKey,
    broadcast_key: SecretKey,
    signer: Option<(usize, Signer, u64)>,
    pub certificate: Option<Certificate>,
    pub note: Option<LiveNote>,
    pub published: BTreeMap<(u64, u64), (Timestamp, VerifiedChunk)>,
    parts: u64,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    seq: u64,
    rng: fastrand::Rng,
    links: BTreeSet<(usize, usize)>,
    resets: BTreeSet<(usize, ChunkToken)>,
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
            signer: None,
            certificate: None,
            note: None,
            published: BTreeMap::new(),
            parts: 0,
            queue: BTreeMap::new(),
            seq: 0,
            rng: fastrand::Rng::with_seed(seed),
            links: BTreeSet::new(),
            resets: BTreeSet::new(),
            trace: 0,
        }
    }

    pub fn channel(&self) -> ChannelId {
        self.channel_key.channel()
    }

    pub fn unix_us(&self) -> u64 {
        UNIX_START_US + self.now.as_micros()
    }

    fn add(&mut self, role: Role, upload: Option<u64>, upload_on: bool) -> usize {
        let index = self.nodes.len();
        let mut id = [0u8; 32];
        id[..8].copy_from_slice(&fastrand::Rng::with_seed(index as u64 + 77).u64(..).to_be_bytes());
        id[31] = index as u8;
        let id = PeerId(id);
        let engine =
            Engine::new(EngineConfig { local: id, seed: self.rng.u64(..), upload_limit_bps: upload });
        self.nodes.push(Node {
            id,
            engine,
            alive: true,
            upload,
            opened: self.now,
            joined: Vec::new(),
            got: BTreeMap::new(),
            ended: false,
            dropped: Vec::new(),
            missed: 0,
            line_free: self.now,
            wake: Timestamp::FAR_FUTURE,
            readers: BTreeMap::new(),
            sent_bytes: 0,
            inbox_log: 0,
        });
        let config = SwarmConfig {
            channel: self.channel(),
            rendition: RenditionId(0),
            role,
            upload: upload_on,
            retention: Duration::from_secs(60),
            lan: true,
            policy: self.net.policy.clone(),
            verifier: Box::new(Ed25519Verifier),
        };
        let unix_us = self.unix_us();
        self.input(index, Input::UnixTime(unix_us));
        self.input(index, Input::Open(Box::new(config)));
        index
    }

    /// A source begins a broadcast; its first part comes at once.
    pub fn source(&mut self) -> usize {
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
        let signer = Signer::new(
            self.broadcast_key.clone(),
            self.channel(),
            epoch,
            RenditionId(0),
            self.net.chunk_payload,
        );
        let role = Role::Source { certificate, copies_percent: self.net.copies_percent };
        let index = self.add(role, self.net.source_bps, true);
        self.signer = Some((index, signer, epoch));
        self.parts = 0;
        self.at(Duration::ZERO, Happening::Part);
        self.at(Duration::ZERO, Happening::Note);
        index
    }

    /// A viewer comes and hears of everybody from the tracker.
    pub fn viewer(&mut self) -> usize {
        let index = self.add(Role::Viewer, self.net.viewer_bps, true);
        self.nodes[index].upload = self.net.viewer_bps;
        self.track(index);
        index
    }

    /// What a tracker would answer `index` now.
    pub fn track(&mut self, index: usize) {
        let source = self.signer.as_ref().map(|signer| signer.0);
        let mut candidates: Vec<Candidate> = (0..self.nodes.len())
            .filter(|&i| i != index && self.nodes[i].alive)
            .map(|i| Candidate {
                peer: self.nodes[i].id,
                addrs: vec![addr(i)],
                source: Some(i) == source,
                cost: 0,
            })
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

    /// As `kill -9` would: nobody is told.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].alive = false;
        if self.signer.as_ref().is_some_and(|signer| signer.0 == index) {
            self.signer = None;
        }
    }

    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some((&(at, seq), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let Some(happening) = self.queue.remove(&(at, seq)) else { break };
            self.now = self.now.max(at);
            match happening {
                Happening::Input(index, input) => self.input(index, input),
                Happening::Wire { to, from, bytes } => self.wire(to, from, &bytes),
                Happening::Wake(index) => {
                    if self.nodes[index].wake <= self.now {
                        self.nodes[index].wake = Timestamp::FAR_FUTURE;
                        self.input(index, Input::Tick);
                    }
                }
                Happening::Part => self.part(),
                Happening::Note => self.sign_note(),
            }
        }
        self.now = end;
    }

    pub fn stats(&self, index: usize) -> SwarmStats {
        self.nodes[index].engine.stats(&self.channel()).expect("it takes part")
    }

    fn part(&mut self) {
        let unix_us = self.unix_us();
        let bytes = (self.net.rate_bps / 40) as usize;
        let Some((source, signer, _)) = self.signer.as_mut() else { return };
        let source = *source;
        let key = self.parts.is_multiple_of(self.net.key_every_parts);
        let flags = Flags::default().with(Flags::SEGMENT_START, key).with(Flags::INIT, key);
        let payload: Bytes = vec![self.parts as u8; if key { bytes * 2 } else { bytes * 3 / 4 }].into();
        let part = PartIn { flags, capture_unix_us: unix_us - 200_000, payload };
        self.parts += 1;
        let chunks = signer.sign(&part, unix_us);
        for chunk in &chunks {
            let key = (chunk.header().epoch, chunk.header().number);
            self.published.insert(key, (self.now, chunk.clone()));
        }
        let channel = self.channel();
        self.input(source, Input::Publish(channel, chunks));
        self.at(Duration::from_millis(200), Happening::Part);
    }

    fn sign_note(&mut self) {
        let (channel, unix_us) = (self.channel(), self.unix_us());
        let Some((source, signer, epoch)) = &self.signer else { return };
        let note = LiveNote::sign(&self.broadcast_key, channel, *epoch, signer.next_number(), unix_us, false);
        let source = *source;
        self.note = Some(note);
        self.input(source, Input::PublishNote(note));
        self.at(Duration::from_secs(3), Happening::Note);
    }

    /// The broadcaster ends the broadcast.
    pub fn end(&mut self) {
        let (channel, unix_us) = (self.channel(), self.unix_us());
        let Some((source, signer, epoch)) = self.signer.take() else { return };
        let note = LiveNote::sign(&self.broadcast_key, channel, epoch, signer.next_number(), unix_us, true);
        self.input(source, Input::PublishNote(note));
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
                        self.queue.insert(
                            (at.max(now + Duration::from_micros(1)), self.seq),
                            Happening::Wake(index),
                        );
                    }
                    return;
                }
            }
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        let now = self.now;
        let node = &mut self.nodes[index];
        match event {
            Event::Chunk(_, chunk) => {
                let key = (chunk.header().epoch, chunk.header().number);
                assert_eq!(
                    Some(&chunk),
                    self.published.get(&key).map(|p| &p.1),
                    "only what was published is delivered"
                );
                let again = node.got.insert(key, now);
                assert!(again.is_none(), "chunk {key:?} came twice");
                self.trace = self.trace.wrapping_mul(31).wrapping_add(key.1 ^ now.as_micros() ^ index as u64);
            }
            Event::Joined { epoch, number, .. } => node.joined.push((epoch, number, now)),
            Event::Ended(..) => node.ended = true,
            Event::Dropped { peer, reason, .. } => node.dropped.push((peer, reason)),
            Event::Missed(_, range) => node.missed += range.end - range.start,
            Event::NeedPeers(_) => self.at(Duration::from_millis(5), Happening::Input(index, Input::Tick)),
            _ => {}
        }
    }

    fn index(&self, peer: &PeerId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *peer)
    }

    /// Time over a link: propagation, jitter, and a retransmission for each loss.
    fn travel(&mut self) -> Duration {
        let mut time =
            self.net.one_way + Duration::from_micros(self.rng.u64(..=self.net.jitter.as_micros() as u64));
        while self.rng.f64() < self.net.loss {
            time += self.net.one_way * 3;
        }
        time
    }

    fn transmit(&mut self, index: usize, transmit: Transmit) {
        match transmit {
            Transmit::Connect { peer, .. } => {
                let Some(other) = self.index(&peer) else { return };
                let rtt = self.net.one_way * 2;
                if !self.nodes[other].alive {
                    self.at(Duration::from_secs(3), Happening::Input(index, Input::DialFailed(peer)));
                    return;
                }
                let link = (index.min(other), index.max(other));
                if !self.links.insert(link) {
                    return;
                }
                let connected = |peer: usize, dialled| Connected {
                    peer: self.nodes[peer].id,
                    addr: Some(addr(peer)),
                    rtt,
                    dialled,
                };
                let (mine, theirs) = (connected(other, true), connected(index, false));
                self.nodes[index].readers.insert(mine.peer, FrameReader::default());
                self.nodes[other].readers.insert(theirs.peer, FrameReader::default());
                self.at(rtt, Happening::Input(index, Input::Connected(mine)));
                self.at(rtt, Happening::Input(other, Input::Connected(theirs)));
            }
            Transmit::Disconnect { peer, .. } => {
                let Some(other) = self.index(&peer) else { return };
                self.links.remove(&(index.min(other), index.max(other)));
                let gone = Input::Disconnected(self.nodes[index].id);
                self.at(self.net.one_way, Happening::Input(other, gone));
            }
            Transmit::Control { peer, bytes } => {
                let Some(other) = self.linked(index, &peer) else { return };
                // The control stream is ordered: no jitter, so that nothing overtakes.
                self.nodes[index].sent_bytes += bytes.len() as u64;
                let from = self.nodes[index].id;
                self.at(self.net.one_way, Happening::Wire { to: other, from, bytes });
            }
            Transmit::Chunk { peer, token, head, body, .. } => {
                let Some(other) = self.linked(index, &peer) else { return };
                let bytes = head.len() + body.len();
                let (now, upload) = (self.now, self.nodes[index].upload);
                let node = &mut self.nodes[index];
                node.sent_bytes += bytes as u64;
                let line = Duration::from_micros(upload.map_or(0, |bps| bytes as u64 * 8_500_000 / bps));
                node.line_free = node.line_free.max(now) + line;
                let queued = node.line_free.since(now);
                let from = node.id;
                let there = queued + self.travel();
                let back = there + self.net.one_way;
                let mut stream = BytesMut::from(&head[..]);
                stream.extend_from_slice(&body);
                let done = if self.nodes[other].alive {
                    self.at(there, Happening::Input(other, Input::ChunkStream(from, stream.freeze())));
                    ChunkOutcome::Delivered
                } else {
                    return;
                };
                self.at(back, Happening::Input(index, Input::ChunkDone(peer, token, done)));
            }
            Transmit::Reset { peer, token } => {
                self.resets.insert((index, token));
                self.at(
                    Duration::ZERO,
                    Happening::Input(index, Input::ChunkDone(peer, token, ChunkOutcome::Dropped)),
                );
            }
        }
    }

    fn linked(&self, index: usize, peer: &PeerId) -> Option<usize> {
        let other = self.index(peer)?;
        self.links.contains(&(index.min(other), index.max(other))).then_some(other)
    }

    fn wire(&mut self, to: usize, from: PeerId, bytes: &[u8]) {
        let mut frames = Vec::new();
        if let Some(reader) = self.nodes[to].readers.get_mut(&from) {
            reader.extend(bytes);
            while let Ok(Some(frame)) = reader.next_frame() {
                frames.push(frame);
            }
        }
        for frame in frames {
            self.input(to, Input::Control(from, frame));
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

    /// Delays of all chunks received by `index` after `from`, sorted.
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

pub fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + index as u16))
}

pub fn percentile(sorted: &[Duration], p: usize) -> Duration {
    sorted.get((sorted.len() * p / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
