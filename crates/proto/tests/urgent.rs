//! A source and a viewer in virtual time, and a part that never gets through: it is fetched over HTTP when a player is about to miss
//! it, never before, and no more of that than a channel may have.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Ed25519Verifier, Flags, PartIn, Signer, VerifiedChunk};
use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::hybrid::part::PartId;
use caudal_proto::hybrid::urgent::DUE_WITHIN;
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::io::{
    Candidate, ChunkOutcome, Connected, Event, FetchedPart, Input, Output, Playout, Transmit,
};
use caudal_proto::record::Ed25519Records;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig, SwarmStats};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::FrameReader;

const MS: fn(u64) -> Duration = Duration::from_millis;
const UNIX_START_US: u64 = 1_800_000_000_000_000;
const EPOCH: u64 = UNIX_START_US / 1000;
const ONE_WAY: Duration = Duration::from_millis(10);
const PART_MS: u64 = 200;
/// The player is this far behind.
const DELAY_MS: u64 = 1500;

/// Who is who: the source's place, and the viewer's.
const SOURCE: usize = 0;
const VIEWER: usize = 1;

struct World {
    engines: [Engine; 2],
    now: Timestamp,
    channel: ChannelId,
    key: SecretKey,
    certificate: Certificate,
    signer: Signer,
    parts: BTreeMap<u64, Vec<VerifiedChunk>>,
    /// What is on its way, to whom.
    wire: Vec<(Timestamp, usize, Input)>,
    /// Chunks of these parts never get through.
    lost: Box<dyn Fn(u64) -> bool>,
    held: BTreeMap<u64, (u64, u64)>,
    /// What the viewer had fetched, and when.
    fetches: Vec<(PartId, Timestamp)>,
    joined: Option<u64>,
    /// From then on nothing gets through.
    cut: Timestamp,
    /// Asked for before they were there.
    waiting: Vec<PartId>,
}

fn peer_key(place: usize) -> SecretKey {
    SecretKey::from_bytes(&[place as u8 + 3; 32])
}

fn id(place: usize) -> PeerId {
    PeerId(peer_key(place).public())
}

impl World {
    fn new(share_percent: u32, lost: impl Fn(u64) -> bool + 'static) -> Self {
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
        let mut world = Self {
            engines: [engine(SOURCE), engine(VIEWER)],
            now: Timestamp::from_millis(1),
            channel,
            signer: Signer::new(key.clone(), channel, EPOCH, RenditionId(0), 5300),
            key,
            certificate,
            parts: BTreeMap::new(),
            wire: Vec::new(),
            lost: Box::new(lost),
            held: BTreeMap::new(),
            fetches: Vec::new(),
            joined: None,
            cut: Timestamp::FAR_FUTURE,
            waiting: Vec::new(),
        };
        for place in [SOURCE, VIEWER] {
            let role = if place == SOURCE {
                Role::Source { certificate, copies_percent: None, alone: false }
            } else {
                Role::Viewer
            };
            world.input(place, Input::UnixTime(UNIX_START_US));
            world.open(place, role);
        }
        world.run(MS(3000));
        world.input(VIEWER, Input::Edge(channel, share_percent));
        world.meet();
        world
    }

    fn open(&mut self, place: usize, role: Role) {
        let config = SwarmConfig {
            channel: self.channel,
            rendition: RenditionId(0),
            role,
            upload: true,
            retention: Duration::from_secs(60),
            lan: true,
            policy: Policy::default(),
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Ed25519Records(peer_key(place))),
            network_map: None,
        };
        self.input(place, Input::Open(Box::new(config)));
    }

    /// The viewer is told of the broadcast and of its source.
    fn meet(&mut self) {
        self.input(VIEWER, Input::Broadcast(self.channel.into(), self.certificate, None));
        let addrs = vec![([127, 0, 0, 1], 4433).into()];
        let candidate = Candidate { peer: id(SOURCE), addrs, source: true, cost: 0 };
        self.input(VIEWER, Input::Candidates(self.channel.into(), vec![candidate]));
    }

    /// The viewer leaves the swarm and joins again, as one does that goes from rendition to rendition.
    fn rejoin(&mut self) {
        self.input(VIEWER, Input::Leave(self.channel.into()));
        self.joined = None;
        self.held.clear();
        self.open(VIEWER, Role::Viewer);
        self.meet();
    }

    fn input(&mut self, place: usize, input: Input) {
        self.engines[place].handle_input(self.now, input);
        let (other, at) = (1 - place, self.now + ONE_WAY);
        loop {
            match self.engines[place].poll_output() {
                Output::Transmit(Transmit::Connect { .. }) => {
                    for to in [SOURCE, VIEWER] {
                        let addr = Some(([127, 0, 0, 1], 4433).into());
                        let connected =
                            Connected { peer: id(1 - to), addr, rtt: ONE_WAY * 2, dialled: to == place };
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
                    let part = u64::from_be_bytes(body[16..24].try_into().unwrap());
                    if place == VIEWER || !(self.lost)(part) {
                        self.wire.push((at, other, Input::ChunkParts(id(place), head, body)));
                    }
                    let done = Input::ChunkDone(id(other), token, ChunkOutcome::Delivered);
                    self.wire.push((at + ONE_WAY, place, done));
                }
                Output::Event(event) if place == VIEWER => self.hear(event),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Joined { number, .. } => {
                self.joined = Some(number);
                self.held.clear();
            }
            Event::Chunk(_, chunk) => {
                let header = chunk.header();
                self.held.insert(header.number, (header.part, header.capture_unix_us));
            }
            Event::FetchPart(_, part, _) => {
                self.fetches.push((part, self.now));
                self.answer(part);
            }
            _ => {}
        }
    }

    /// As an edge does, which waits for what is being made.
    fn answer(&mut self, part: PartId) {
        let Some(chunks) = self.parts.get(&part.part).cloned() else {
            self.waiting.push(part);
            return;
        };
        let bytes = chunks.iter().map(|chunk| chunk.encoded().len() as u64).sum();
        let fetched = FetchedPart { part, chunks, bytes };
        self.wire.push((self.now + MS(60), VIEWER, Input::Fetched(self.channel.into(), fetched)));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS(5);
            let now = self.now;
            for (_, place, input) in self.wire.extract_if(.., |due| due.0 <= now).collect::<Vec<_>>() {
                let is_cut = now >= self.cut && !matches!(input, Input::Fetched(..));
                if !is_cut {
                    self.input(place, input);
                }
            }
            let ms = now.as_micros() / 1000;
            if ms / PART_MS > self.signer.next_part() {
                self.publish();
            }
            if ms % 1000 < 5 {
                self.report();
            }
            self.input(SOURCE, Input::Tick);
            self.input(VIEWER, Input::Tick);
        }
    }

    fn publish(&mut self) {
        let unix_us = UNIX_START_US + self.now.as_micros();
        let number = self.signer.next_part();
        let flags = Flags::default().with(Flags::SEGMENT_START, number.is_multiple_of(5));
        let payload = vec![1; 25_000].into();
        let chunks =
            self.signer.sign(&PartIn { flags, capture_unix_us: unix_us - PART_MS * 1000, payload }, unix_us);
        self.parts.insert(number, chunks.clone());
        for part in std::mem::take(&mut self.waiting) {
            self.answer(part);
        }
        self.input(SOURCE, Input::Publish(self.channel.into(), chunks));
        if number.is_multiple_of(5) {
            let next = self.signer.next_number();
            let note = LiveNote::sign(&self.key, self.channel, EPOCH, next, unix_us, false);
            self.input(SOURCE, Input::PublishNote(note));
        }
    }

    /// What the player holds: a player 1.5 s behind, which waits at a hole.
    fn report(&mut self) {
        let Some(start) = self.joined else { return };
        let next = (start..).find(|number| !self.held.contains_key(number)).unwrap();
        let Some((_, captured_us)) = self.held.get(&(next.max(1) - 1)) else { return };
        let buffer_ms = self.buffer_ms(*captured_us);
        let playout = Playout { buffer_ms: u32::try_from(buffer_ms).unwrap_or(0), next_number: next };
        self.input(VIEWER, Input::Playout(self.channel.into(), playout));
    }

    /// Until the part captured at `captured_us` has been played.
    fn buffer_ms(&self, captured_us: u64) -> i64 {
        let ends_ms = (captured_us - UNIX_START_US) / 1000 + PART_MS;
        (ends_ms + DELAY_MS) as i64 - (self.now.as_micros() / 1000) as i64
    }

    fn stats(&self) -> SwarmStats {
        self.engines[VIEWER].stats(&self.channel.into()).unwrap()
    }
}

#[test]
fn a_part_that_never_comes_is_fetched_once_and_only_when_a_player_would_miss_it() {
    let mut world = World::new(10, |part| part == 60);
    world.run(Duration::from_secs(17));
    let fetched: Vec<u64> = world.fetches.iter().map(|(part, _)| part.part).collect();
    assert_eq!(fetched, [60], "nothing else is a server's business");
    let (part, at) = world.fetches[0];
    assert_eq!(part.epoch, EPOCH);
    // The part before it was captured 200 ms earlier; it is due when that one has been played.
    let due_ms = (world.parts[&59][0].header().capture_unix_us - UNIX_START_US) / 1000 + PART_MS + DELAY_MS;
    let at_ms = at.as_micros() / 1000;
    let earliest = due_ms - DUE_WITHIN.as_millis() as u64;
    // A report is a second old at most: by so much less is known of the player.
    assert!((earliest..due_ms).contains(&at_ms), "{at_ms} ms, due at {due_ms} ms");
    let stats = world.stats();
    assert_eq!(stats.useful_bytes_from_edge, 25_000);
    assert_eq!(stats.useful_bytes, stats.useful_bytes_from_edge + stats.useful_bytes_from_source);
    assert!(world.held.values().any(|(part, _)| *part == 60), "and it is played");
}

#[test]
fn without_an_edge_nothing_is_fetched() {
    let mut world = World::new(0, |part| part == 60);
    world.run(Duration::from_secs(17));
    assert_eq!(world.fetches, []);
    assert_eq!(world.stats().useful_bytes_from_edge, 0);
}

#[test]
fn a_swarm_that_fails_gets_its_share_from_the_edge_and_no_more() {
    // From the eighth second on half of the stream never gets through.
    let mut world = World::new(10, |part| part > 40 && part % 2 == 1);
    world.run(Duration::from_secs(40));
    let from_edge = world.stats().useful_bytes_from_edge;
    let whole = 125_000 * 40;
    // A tenth, and what may be spent to begin with.
    assert!(from_edge <= whole / 10 + 125_000, "{from_edge}");
    assert!(from_edge > whole / 20, "{from_edge}");
}

#[test]
fn who_goes_from_swarm_to_swarm_of_a_channel_has_no_more_of_the_edge() {
    let mut world = World::new(10, |part| part > 40 && part % 2 == 1);
    let mut from_edge = 0;
    for _ in 0..4 {
        world.run(Duration::from_secs(10));
        from_edge += world.stats().useful_bytes_from_edge;
        world.rejoin();
    }
    let whole = 125_000 * 40;
    assert!(from_edge <= whole / 10 + 125_000, "the account is the channel's: {from_edge}");
    assert!(from_edge > whole / 20, "and goes on for whoever joins: {from_edge}");
}

#[test]
fn who_is_cut_off_plays_on_from_an_edge_that_may_give_all() {
    let mut world = World::new(100, |_| false);
    world.run(Duration::from_secs(9));
    assert_eq!(world.fetches, []);
    world.cut = world.now;
    for _ in 0..200 {
        world.run(MS(50));
        let newest = world.held.values().map(|(_, captured_us)| *captured_us).max().unwrap();
        assert!(
            world.buffer_ms(newest) > 0,
            "it stands still {:?} after the cut",
            world.now.since(world.cut)
        );
    }
    // One after another, each once.
    let fetched: Vec<u64> = world.fetches.iter().map(|(part, _)| part.part).collect();
    assert!(fetched.len() >= 40, "{fetched:?}");
    assert!(fetched.windows(2).all(|two| two[1] == two[0] + 1), "{fetched:?}");
}

#[test]
fn what_nobody_asked_for_or_did_not_come_changes_nothing() {
    let mut world = World::new(10, |_| false);
    world.run(Duration::from_secs(5));
    let part = PartId { rendition: RenditionId(0), epoch: EPOCH, part: 3 };
    let fetched = FetchedPart { part, chunks: world.parts[&3].clone(), bytes: 25_000 };
    let before = world.stats();
    world.input(VIEWER, Input::Fetched(world.channel.into(), fetched));
    world.input(
        VIEWER,
        Input::Fetched(world.channel.into(), FetchedPart { part, chunks: Vec::new(), bytes: 0 }),
    );
    assert_eq!(world.stats().useful_bytes, before.useful_bytes);
}
