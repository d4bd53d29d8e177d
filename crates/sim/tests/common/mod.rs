//! The simulator's world, driven by hand over lines that are all alike, and a diary of what each peer was given: for
//! scenarios in which one thing happens at a time. Owns no queue, no link and no clock.
//!
//! Whatever must always hold is checked by the world itself; here it fails the test at once: honest nodes deliver and relay
//! only what the source signed, once each, never before they said where they joined, and do not drop each other.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::chunk::VerifiedChunk;
use caudal_proto::hop::{Hop, Tracing};
use caudal_proto::id::{ChannelId, PeerId};
use caudal_proto::io::{Candidate, Event, Input, Transmit};
use caudal_proto::swarm::SwarmStats;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::time::Timestamp;
use caudal_sim::SimConfig;
use caudal_sim::attack::{Hostile, Scene};
use caudal_sim::config::Told;
use caudal_sim::profile::{Class, Network, Profile};
use caudal_sim::world::{Arrival, Uplink};

pub const S: fn(u64) -> Duration = Duration::from_secs;
pub const MS: fn(u64) -> Duration = Duration::from_millis;

/// A line that is never what holds anything up.
const WIDE_BPS: u64 = 1_000_000_000;

/// What links do, and what is broadcast.
#[derive(Debug, Clone)]
pub struct Net {
    pub one_way: Duration,
    pub jitter: Duration,
    /// Of packets, each by itself.
    pub loss: f64,
    /// Upload of each viewer; `None` is as good as unlimited, and nobody is told.
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
    /// About one chunk in so many is marked for tracing; 0: none.
    pub traced_every: u64,
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
            traced_every: 0,
        }
    }
}

impl Net {
    /// One region, one class.
    pub fn network(&self) -> Network {
        Network {
            region_share: vec![1.0],
            one_way_ms: vec![vec![self.one_way.as_secs_f64() * 1000.0]],
            jitter_ms: self.jitter.as_secs_f64() * 1000.0,
            loss: self.loss,
            loss_burst: 1.0,
            reordered: 0.0,
            reordered_ms: 0.0,
            duplicated: 0.0,
            download: 1000.0,
        }
    }

    fn config(&self, seed: u64) -> SimConfig {
        let class = vec![Class { name: "all".to_owned(), share: 1.0, upload: 1.0, download: None }];
        let mut config = SimConfig::new(1, Profile { class, network: self.network(), isp: Vec::new() });
        config.rate_bps = u64::from(self.rate_bps);
        config.chunk_payload_bytes = self.chunk_payload;
        config.substreams = self.substreams;
        config.key_interval = config.part * self.key_every_parts as u32;
        config.policy = self.policy.clone();
        config.seed = seed;
        config.traced_every = self.traced_every;
        // One queue for all: words wait behind chunks, which is harder than at home.
        config.transport.control_wait_percent = 100;
        config.command = format!("a network of seed {seed}");
        config
    }

    fn uplink(&self, bps: Option<u64>) -> Uplink {
        let told = if self.tell_upload && bps.is_some() { Told::Share(1.0) } else { Told::Nothing };
        Uplink { bps: bps.unwrap_or(WIDE_BPS), told }
    }
}

/// What a hostile node makes of what its engine wants sent.
pub type Twist = Box<dyn FnMut(&mut fastrand::Rng, Transmit) -> Vec<Transmit>>;
/// What a hostile node sends of its own accord, every 20 ms, to the peers it is connected to.
pub type Extra = Box<dyn FnMut(&mut fastrand::Rng, Timestamp, &[PeerId]) -> Vec<Transmit>>;

struct Villain {
    twist: Option<Twist>,
    extra: Option<Extra>,
}

impl Hostile for Villain {
    fn period_us(&self) -> u64 {
        20_000
    }

    fn twist(&mut self, transmit: Transmit, rng: &mut fastrand::Rng) -> Vec<(u64, Transmit)> {
        let out = match &mut self.twist {
            Some(twist) => twist(rng, transmit),
            None => vec![transmit],
        };
        out.into_iter().map(|transmit| (0, transmit)).collect()
    }

    fn extra(&mut self, scene: &Scene<'_>, rng: &mut fastrand::Rng) -> Vec<Transmit> {
        self.extra.as_mut().map_or_else(Vec::new, |extra| extra(rng, scene.now, scene.peers))
    }
}

/// One peer's diary.
pub struct Node {
    pub id: PeerId,
    pub alive: bool,
    pub hostile: bool,
    pub opened: Timestamp,
    pub joined: Vec<(u64, u64, Timestamp)>,
    pub got: BTreeMap<(u64, u64), Timestamp>,
    pub ended: bool,
    pub dropped: Vec<(PeerId, String, Timestamp)>,
    pub missed: u64,
    /// Hop reports that it was told of.
    pub hops: Vec<Hop>,
    pub dials: u64,
    pub chunk_bytes_sent: u64,
}

/// The world, and the diaries.
pub struct World {
    pub net: Net,
    pub now: Timestamp,
    pub nodes: Vec<Node>,
    pub certificate: Option<Certificate>,
    pub note: Option<LiveNote>,
    pub published: BTreeMap<(u64, u64), (Timestamp, VerifiedChunk)>,
    source: Option<usize>,
    inner: caudal_sim::World,
}

impl World {
    pub fn new(net: Net, seed: u64) -> Self {
        let inner = caudal_sim::World::by_hand(net.config(seed)).expect("it makes sense");
        let (nodes, published) = (Vec::new(), BTreeMap::new());
        let now = inner.now();
        Self { net, now, nodes, certificate: None, note: None, published, source: None, inner }
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

    pub fn channel(&self) -> ChannelId {
        self.inner.channel()
    }

    pub fn unix_us(&self) -> u64 {
        self.inner.unix_us()
    }

    /// A source begins a broadcast; its first part comes at once.
    pub fn source(&mut self) -> usize {
        let uplink = self.net.uplink(self.net.source_bps);
        let index = self.inner.begin_source(uplink, self.net.copies_percent);
        self.source = Some(index);
        self.sync();
        index
    }

    /// The source's process comes back under the same peer id: nobody is told that the old connections are gone.
    pub fn restart_source(&mut self, index: usize) {
        self.inner.begin_source_again(self.net.copies_percent);
        self.source = Some(index);
        self.sync();
    }

    /// A viewer comes and hears of others from the tracker.
    pub fn viewer(&mut self) -> usize {
        self.viewer_with(self.net.viewer_bps, 0)
    }

    pub fn viewer_with(&mut self, upload: Option<u64>, skew_us: i64) -> usize {
        let index = self.inner.come(self.net.uplink(upload), skew_us);
        self.track(index);
        index
    }

    /// A viewer comes that knows nobody but `host`.
    pub fn invited(&mut self, host: usize) -> usize {
        let index = self.inner.come(self.net.uplink(self.net.viewer_bps), 0);
        let candidate = self.candidate(host, false);
        self.input(index, Input::Candidates(self.channel().into(), vec![candidate]));
        index
    }

    /// A viewer that does to its messages what `twist` does, and sends what `extra` gives.
    pub fn hostile(&mut self, upload: Option<u64>, twist: Option<Twist>, extra: Option<Extra>) -> usize {
        let index = self.inner.come(self.net.uplink(upload), 0);
        self.turn(index, twist, extra);
        self.track(index);
        index
    }

    /// Makes a viewer that is there hostile.
    pub fn turn(&mut self, index: usize, twist: Option<Twist>, extra: Option<Extra>) {
        self.inner.turn(index, Box::new(Villain { twist, extra }));
        self.sync();
    }

    /// The tracker answers `index` now, if it is there.
    pub fn track(&mut self, index: usize) {
        self.inner.track(index);
        self.sync();
    }

    pub fn set_tracker(&mut self, is_there: bool) {
        self.inner.set_tracker(is_there);
    }

    pub fn set_line(&mut self, index: usize, bps: u64) {
        self.inner.set_line(index, bps);
    }

    pub fn set_clock(&mut self, index: usize, skew_us: i64) {
        self.inner.set_clock(index, skew_us);
        self.sync();
    }

    pub fn candidate(&self, index: usize, source: bool) -> Candidate {
        Candidate { source, ..self.inner.candidate(index) }
    }

    /// As `kill -9` would: nobody is told.
    pub fn kill(&mut self, index: usize) {
        self.inner.kill(index);
        self.sync();
    }

    /// Ctrl-C: it says goodbye and is gone.
    pub fn leave(&mut self, index: usize) {
        self.inner.leave(index);
        self.sync();
    }

    /// Nothing crosses between `side` and the rest for `span`; what was sent arrives afterwards.
    pub fn part_world(&mut self, side: impl IntoIterator<Item = usize>, span: Duration) {
        self.inner.cut(side, span);
    }

    /// The broadcaster ends the broadcast.
    pub fn end(&mut self) {
        self.inner.end_broadcast();
        self.sync();
    }

    pub fn run(&mut self, span: Duration) {
        self.inner.run_for(span);
        self.sync();
    }

    pub fn input(&mut self, index: usize, input: Input) {
        self.inner.input(index, input);
        self.sync();
    }

    pub fn stats(&self, index: usize) -> SwarmStats {
        self.inner.stats(index).expect("it takes part")
    }

    /// The newest chunk that is marked for tracing, and its way so far.
    pub fn followed(&self) -> (Option<(u64, u64)>, Vec<Arrival>) {
        self.inner.followed()
    }

    pub fn trace_hops(&mut self, index: usize, reports: bool, wants: bool) {
        self.input(index, Input::Trace(self.channel().into(), Tracing { reports, wants }));
    }

    /// FNV-like, over everything that was transmitted.
    pub fn trace(&self) -> u64 {
        self.inner.trace_hash()
    }

    /// Brings the diaries up to date, and fails where the world's checks did.
    fn sync(&mut self) {
        self.now = self.inner.now();
        (self.certificate, self.note) = self.inner.on_air();
        for (at, chunk) in self.inner.published(self.published.len()) {
            let key = (chunk.header().epoch, chunk.header().number);
            self.published.insert(key, (at, chunk.clone()));
        }
        for index in self.nodes.len()..self.inner.len() {
            let look = self.inner.look_at(index);
            self.nodes.push(Node {
                id: look.id,
                alive: true,
                hostile: false,
                opened: look.opened,
                joined: Vec::new(),
                got: BTreeMap::new(),
                ended: false,
                dropped: Vec::new(),
                missed: 0,
                hops: Vec::new(),
                dials: 0,
                chunk_bytes_sent: 0,
            });
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let look = self.inner.look_at(index);
            (node.alive, node.hostile) = (look.is_alive, !look.is_honest);
            (node.dials, node.chunk_bytes_sent) = (look.dials, look.chunk_bytes_sent);
        }
        for (at, index, event) in self.inner.take_events() {
            let node = &mut self.nodes[index];
            match event {
                Event::Chunk(_, chunk) => {
                    node.got.entry((chunk.header().epoch, chunk.header().number)).or_insert(at);
                }
                Event::Joined { epoch, number, .. } => node.joined.push((epoch, number, at)),
                Event::Ended(..) => node.ended = true,
                Event::Dropped { peer, reason, .. } => node.dropped.push((peer, reason, at)),
                Event::Missed(_, range) => node.missed += range.end - range.start,
                Event::Hop(_, hop) => node.hops.push(*hop),
                _ => {}
            }
        }
        let failures = self.inner.failures();
        assert!(failures.is_empty(), "{failures:#?}");
    }

    /// The honest viewers that are there.
    pub fn viewers(&self) -> Vec<usize> {
        self.inner.viewers().filter(|i| !self.nodes[*i].hostile).collect()
    }

    /// No honest node ever dropped an honest one.
    pub fn assert_peace(&self) {
        for (i, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.hostile) {
            for (peer, reason, at) in &node.dropped {
                let other = self.inner.index(peer).expect("a node");
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

    /// A note that the broadcaster signed when it was `unix_us`, for those who replay it.
    pub fn old_note(&self, certificate: &Certificate, unix_us: u64) -> LiveNote {
        let (_, key) = self.inner.keys();
        LiveNote::sign(key, certificate.channel, certificate.epoch, 1_000, unix_us, false)
    }
}

/// The seeds of a scenario: `usual` of them, or as many as the environment variable SEEDS says.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

pub fn percentile(sorted: &[Duration], p: usize) -> Duration {
    sorted.get((sorted.len() * p / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
