//! A source and a viewer in virtual time, in several swarms of one channel over one connection: chunks and notes stay with their
//! rendition, another is joined while one plays and with no dialling, and who has left one is sent nothing of it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Ed25519Verifier, Flags, PartIn, Signer};
use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey, SwarmId};
use caudal_proto::io::{Candidate, ChunkOutcome, Connected, Event, Input, Output, Transmit};
use caudal_proto::record::Ed25519Records;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::FrameReader;

const MS: fn(u64) -> Duration = Duration::from_millis;
const UNIX_START_US: u64 = 1_800_000_000_000_000;
const EPOCH: u64 = UNIX_START_US / 1000;
const PART_MS: u64 = 200;
const SOURCE: usize = 0;
const VIEWER: usize = 1;
/// Payload of a part of each rendition.
const PART_LEN: [usize; 2] = [50_000, 10_000];

struct World {
    engines: [Engine; 2],
    one_way: Duration,
    now: Timestamp,
    channel: ChannelId,
    key: SecretKey,
    certificate: Certificate,
    signers: [Signer; 2],
    wire: Vec<(Timestamp, usize, Input)>,
    dials: u32,
    /// Where the viewer began in each rendition, at what time, and the parts it has had.
    joined: BTreeMap<u8, (u64, Timestamp)>,
    parts: BTreeMap<u8, Vec<u64>>,
    dropped: Vec<String>,
}

fn peer_key(place: usize) -> SecretKey {
    SecretKey::from_bytes(&[place as u8 + 3; 32])
}

fn id(place: usize) -> PeerId {
    PeerId(peer_key(place).public())
}

impl World {
    fn new() -> Self {
        Self::apart(MS(10))
    }

    /// The two are this far apart.
    fn apart(one_way: Duration) -> Self {
        let (channel_key, key) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let channel = channel_key.channel();
        let terms = CertificateTerms {
            epoch: EPOCH,
            not_before_unix_us: UNIX_START_US,
            not_after_unix_us: UNIX_START_US + 86_400_000_000,
            substreams: 8,
            rate_bps: 1_000_000,
        };
        let certificate = Certificate::sign(&channel_key, BroadcastId(key.public()), terms);
        let engine = |place| Engine::new(EngineConfig { local: id(place), seed: 5, upload_limit_bps: None });
        let signer = |n| Signer::new(key.clone(), channel, EPOCH, RenditionId(n), 5300);
        let mut world = Self {
            engines: [engine(SOURCE), engine(VIEWER)],
            one_way,
            now: Timestamp::from_millis(1),
            channel,
            certificate,
            signers: [signer(0), signer(1)],
            key,
            wire: Vec::new(),
            dials: 0,
            joined: BTreeMap::new(),
            parts: BTreeMap::new(),
            dropped: Vec::new(),
        };
        world.input(SOURCE, Input::UnixTime(UNIX_START_US));
        world.input(VIEWER, Input::UnixTime(UNIX_START_US));
        for rendition in 0..2 {
            let role = Role::Source { certificate, copies_percent: None, alone: false };
            world.open(SOURCE, rendition, role, Policy::default());
        }
        world.run(MS(3000));
        world
    }

    fn swarm(&self, rendition: u8) -> SwarmId {
        SwarmId { channel: self.channel, rendition: RenditionId(rendition) }
    }

    fn open(&mut self, place: usize, rendition: u8, role: Role, policy: Policy) {
        let config = SwarmConfig {
            channel: self.channel,
            rendition: RenditionId(rendition),
            role,
            upload: true,
            retention: Duration::from_secs(60),
            lan: true,
            policy,
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Ed25519Records(peer_key(place))),
            network_map: None,
        };
        self.input(place, Input::Open(Box::new(config)));
    }

    /// The viewer joins a rendition, told of nobody but the source.
    fn join(&mut self, rendition: u8, addrs: Vec<std::net::SocketAddr>, policy: Policy) {
        let (swarm, certificate) = (self.swarm(rendition), self.certificate);
        self.open(VIEWER, rendition, Role::Viewer, policy);
        self.input(VIEWER, Input::Broadcast(swarm, certificate, None));
        let candidate = Candidate { peer: id(SOURCE), addrs, source: true, cost: 0 };
        self.input(VIEWER, Input::Candidates(swarm, vec![candidate]));
    }

    fn input(&mut self, place: usize, input: Input) {
        self.engines[place].handle_input(self.now, input);
        let (other, at) = (1 - place, self.now + self.one_way);
        loop {
            match self.engines[place].poll_output() {
                Output::Transmit(Transmit::Connect { .. }) => {
                    self.dials += 1;
                    for to in [SOURCE, VIEWER] {
                        let addr = Some(([127, 0, 0, 1], 4433).into());
                        let connected =
                            Connected { peer: id(1 - to), addr, rtt: self.one_way * 2, dialled: to == place };
                        self.wire.push((at, to, Input::Connected(connected)));
                    }
                }
                Output::Transmit(Transmit::Control { bytes, .. }) => {
                    let mut reader = FrameReader::default();
                    reader.extend(&bytes);
                    while let Ok(Some(frame)) = reader.next_frame() {
                        self.wire.push((at, other, Input::Control(id(place), frame)));
                    }
                }
                Output::Transmit(Transmit::Chunk { token, head, body, .. }) => {
                    self.wire.push((at, other, Input::ChunkParts(id(place), head, body)));
                    let done = Input::ChunkDone(id(other), token, ChunkOutcome::Delivered);
                    self.wire.push((at + self.one_way, place, done));
                }
                Output::Event(Event::Joined { swarm, number, .. }) => {
                    self.joined.insert(swarm.rendition.0, (number, self.now));
                }
                Output::Event(Event::Chunk(swarm, chunk)) => {
                    assert_eq!(chunk.header().rendition, swarm.rendition);
                    self.parts.entry(swarm.rendition.0).or_default().push(chunk.header().part);
                }
                Output::Event(Event::Note(note)) if place == VIEWER => {
                    let next = self.signers[usize::from(note.rendition.0)].next_number();
                    assert!(note.next_number <= next, "{} of {next}", note.next_number);
                }
                Output::Event(Event::Dropped { reason, .. }) => self.dropped.push(reason),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS(5);
            let now = self.now;
            for (_, place, input) in self.wire.extract_if(.., |due| due.0 <= now).collect::<Vec<_>>() {
                self.input(place, input);
            }
            if now.as_micros() / 1000 / PART_MS > self.signers[0].next_part() {
                self.publish();
            }
            self.input(SOURCE, Input::Tick);
            self.input(VIEWER, Input::Tick);
        }
    }

    fn publish(&mut self) {
        let unix_us = UNIX_START_US + self.now.as_micros();
        for rendition in 0..2u8 {
            let (swarm, len) = (self.swarm(rendition), PART_LEN[usize::from(rendition)]);
            let signer = &mut self.signers[usize::from(rendition)];
            let number = signer.next_part();
            let flags = Flags::default().with(Flags::SEGMENT_START, number.is_multiple_of(5));
            let payload = vec![1; len].into();
            let capture_unix_us = unix_us - PART_MS * 1000;
            let chunks = signer.sign(&PartIn { flags, capture_unix_us, payload }, unix_us);
            let next = signer.next_number();
            self.input(SOURCE, Input::Publish(swarm, chunks));
            if number.is_multiple_of(5) {
                let note = LiveNote::sign(&self.key, swarm, EPOCH, next, unix_us, false);
                self.input(SOURCE, Input::PublishNote(note));
            }
        }
    }

    fn useful_bytes(&self, rendition: u8) -> u64 {
        self.engines[VIEWER].stats(&self.swarm(rendition)).map_or(0, |stats| stats.useful_bytes)
    }

    fn sent_bytes(&self, rendition: u8) -> u64 {
        self.engines[SOURCE].stats(&self.swarm(rendition)).map_or(0, |stats| stats.bytes_out)
    }
}

#[test]
fn another_rendition_is_joined_beside_what_plays_and_the_first_one_left() {
    let mut world = World::new();
    world.join(0, vec![([127, 0, 0, 1], 4433).into()], Policy::default());
    world.run(MS(3000));
    assert_eq!((world.dials, world.joined.len()), (1, 1));
    // In the middle of a segment, to begin with the next.
    world.run(MS(500));
    let before = world.useful_bytes(0);
    let asked = world.now;
    world.join(1, Vec::new(), Policy { join_next: true, ..Policy::default() });
    world.run(MS(2000));
    assert_eq!(world.dials, 1, "over the connection that stands");
    let (_, at) = world.joined[&1];
    assert!(at - asked <= MS(1200), "at the next segment: after {:?}", at - asked);
    assert_eq!(world.parts[&1].first().unwrap() % 5, 0, "which a segment starts");
    assert!(world.useful_bytes(0) > before, "what plays goes on");
    // Both are followed to the edge.
    for rendition in [0, 1] {
        let newest = world.parts[&rendition].last().unwrap();
        assert!(newest + 2 >= world.signers[0].next_part(), "rendition {rendition}: {newest}");
    }

    let left = world.swarm(0);
    world.input(VIEWER, Input::Leave(left));
    world.run(MS(100));
    let (sent, parts) = (world.sent_bytes(0), world.parts[&1].len());
    world.run(MS(8000));
    assert_eq!(world.sent_bytes(0), sent, "nothing of what was left");
    assert!(world.parts[&1].len() > parts + 30, "the other goes on");
    assert!(world.engines[VIEWER].stats(&left).is_none());
    assert_eq!(world.dropped, Vec::<String>::new());
}

#[test]
fn who_comes_to_a_place_begins_no_later_than_there() {
    for behind in [200, 700, 1500, 3500] {
        let mut world = World::new();
        world.join(0, vec![([127, 0, 0, 1], 4433).into()], Policy::default());
        world.run(MS(4100));
        let reached = world.signers[0].next_part() - 1 - behind / PART_MS;
        let policy = Policy {
            join_back: MS(behind + 350),
            join_back_max: MS(behind + 10_000),
            join_leaps: false,
            ..Policy::default()
        };
        let left = world.swarm(0);
        world.input(VIEWER, Input::Leave(left));
        world.join(1, Vec::new(), policy);
        world.run(MS(1500));
        let first = *world.parts[&1].iter().min().unwrap();
        assert!(first <= reached, "{first} is after {reached}");
        assert!(first + 8 >= reached, "{first} is long before {reached}");
        assert_eq!((world.dials, world.dropped.len()), (1, 0), "{:?}", world.dropped);
    }
}

/// What the source sent before it heard that the viewer left arrives in the swarm that the viewer has joined again: no offence.
#[test]
fn who_leaves_a_rendition_and_comes_back_at_once_drops_nobody() {
    for phase in 0..10 {
        let mut world = World::apart(MS(150));
        world.join(0, vec![([127, 0, 0, 1], 4433).into()], Policy::default());
        world.join(1, Vec::new(), Policy::default());
        world.run(MS(5000 + phase * 20 + 5));
        for _ in 0..3 {
            let left = world.swarm(0);
            world.input(VIEWER, Input::Leave(left));
            world.join(0, Vec::new(), Policy::default());
            world.run(MS(350));
        }
        world.run(MS(3000));
        assert_eq!(world.dropped, Vec::<String>::new(), "phase {phase}");
        let newest = world.parts[&0].last().unwrap();
        assert!(
            newest + 5 >= world.signers[0].next_part(),
            "phase {phase}: it is followed to the edge: {newest}"
        );
    }
}
