//! The world: peers that are real engines, links that delay, lose and repair, a broadcaster, a tracker. One seed, one
//! thread, virtual time: the same seed and commit give the same bytes.
//!
//! Takes no delivery, queueing or pacing decision: engines say what to send, the world says when it arrives.

mod broadcast;
mod carry;
mod hand;
mod hostile;
mod isps;
mod node;
mod people;
mod player;
mod seconds;
mod watching;

use std::collections::BTreeMap;

use bytes::Bytes;
use caudal_proto::id::{PeerId, RenditionId};
use caudal_proto::io::{ChunkToken, Event, Input, Output, Transmit};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::FrameReader;

use crate::check::Checks;
use crate::config::SimConfig;
use crate::error::SimError;
use crate::event::What;
use crate::isp::Maps;
use crate::ledger::Ledger;
use crate::profile::Place;
use crate::queue::Queue;
use crate::trace::{Hash, Trace};
use crate::traffic::Traffic;
use crate::transport::Flow;
pub(crate) use broadcast::{Broadcast, Published};
pub use hand::{Arrival, Look, Uplink};
pub(crate) use node::{Node, Record};
pub use seconds::Second;

/// The wall clock at virtual time 0, µs since the Unix epoch.
pub const UNIX_START_US: u64 = 1_800_000_000_000_000;
/// A driver's timer is not finer than this, µs.
const TIMER_MIN_US: u64 = 1_000;
/// Tables are looked at this often, µs.
const LOOK_PERIOD_US: u64 = 5_000_000;

/// A defect put into one honest peer, to prove that the checks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It sends chunks with a flipped bit.
    RelaysForgeries,
    /// It speaks to a peer that it is not connected to.
    SpeaksToStrangers,
    /// Some of its chunks vanish without a trace.
    LosesChunks,
}

/// A connection, or one that is being made.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [u32; 2],
    pub(crate) is_closed: bool,
    pub(crate) one_way_us: u64,
    /// From `ends[0]` and from `ends[1]`.
    pub(crate) flows: [Flow; 2],
    /// Chunks that were reset on their way.
    pub(crate) resets: Vec<(u32, ChunkToken)>,
}

/// Something that will happen.
pub(crate) enum Happening {
    Wake(u32),
    Control {
        link: u32,
        from: u32,
        to: u32,
        bytes: Bytes,
    },
    Chunk(ChunkOnItsWay),
    /// A chunk that waits at its sender for the line.
    Held(u32, PeerId, ChunkToken, Bytes, Bytes),
    Acked {
        link: u32,
        to: u32,
        token: ChunkToken,
        bytes: u32,
        delivered: bool,
    },
    /// This end of a connection learns that it stands.
    Stands {
        link: u32,
        end: u32,
    },
    /// An end learns that a connection is gone.
    Gone {
        link: u32,
        from: u32,
        to: u32,
    },
    DialFailed {
        to: u32,
        peer: PeerId,
    },
    Part(u32),
    Note(u32),
    /// Players step over what did not come in time.
    Play,
    Track(u32, RenditionId),
    /// A viewer looks at what plays.
    Watch(u32),
    Unlist(u32),
    Extra(u32),
    Viewer(Place),
    /// A viewer comes that knows one of those who are there.
    Invited(Place),
    Attacker(usize),
    /// What a hostile peer held back.
    Late(u32, Box<Transmit>),
    /// A session ends.
    Depart(u32),
    Scenario(usize),
    ScenarioEnd(usize),
    Measure,
    Second,
    Look,
    /// The map of the network changes.
    Remap,
}

/// A chunk between two peers.
pub(crate) struct ChunkOnItsWay {
    pub(crate) link: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) token: ChunkToken,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
    pub(crate) sent: u64,
    /// It has passed the receiver's line.
    pub(crate) is_through: bool,
}

/// What the tracker knows of a swarm.
#[derive(Debug, Default)]
struct Tracked {
    /// What it would name.
    listed: Vec<u32>,
    /// It named the source to so many that its account is even then.
    source_named_until: u64,
}

/// The world.
pub struct World {
    pub(crate) config: SimConfig,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    /// Who broadcasts, or did last.
    pub(crate) source: usize,
    pub(crate) links: Vec<Link>,
    pub(crate) broadcast: Broadcast,
    pub(crate) ledger: Ledger,
    pub(crate) before: Ledger,
    /// Of a second ago.
    second_before: Ledger,
    /// Between providers, and when measuring began.
    pub(crate) traffic: Traffic,
    pub(crate) traffic_before: Traffic,
    /// Who was there when measuring began.
    pub(crate) measured: Vec<Place>,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    /// Of all that engines transmitted.
    pub(crate) hash: Hash,
    /// Inputs handed to engines.
    pub(crate) inputs: u64,
    uploads_bps: Vec<u64>,
    pub(crate) queue: Queue<Happening>,
    /// Delays and losses.
    rng: fastrand::Rng,
    /// Who comes and goes.
    people: fastrand::Rng,
    /// What the tracker knows of each rendition's swarm.
    tracked: Vec<Tracked>,
    /// Attackers.
    pub(crate) hostile: Vec<u32>,
    is_tracker_away: bool,
    /// Sides and until when nothing crosses.
    partition: Option<(Vec<bool>, u64)>,
    /// Whose chunk is being handed in.
    carrier: Option<u32>,
    fault: Option<(Fault, usize)>,
    /// Unfinished frames of hostile peers, by link and sender.
    halves: BTreeMap<(u32, u32), FrameReader>,
    /// What engines reported, for whoever drives the world by hand.
    events: Option<Vec<(Timestamp, usize, Event)>>,
    spin: (u64, u32),
    /// Everybody's map of the network.
    maps: Maps,
    /// Deals out maps.
    dealer: fastrand::Rng,
}

impl core::fmt::Debug for World {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl World {
    /// A world before anything happened, in which the configured population comes, and its events happen.
    ///
    /// # Errors
    /// [`SimError`] when the configuration makes no sense.
    pub fn new(config: SimConfig) -> Result<Self, SimError> {
        let mut world = Self::bare(config)?;
        world.draw_map();
        world.populate();
        Ok(world)
    }

    /// A world without anybody.
    fn bare(config: SimConfig) -> Result<Self, SimError> {
        config.check()?;
        let mut seeds = fastrand::Rng::with_seed(config.seed);
        let uploads_bps = config.profile.uploads_bps(config.rate_bps, config.upload_mean);
        Ok(Self {
            now: 1_000,
            nodes: Vec::new(),
            source: 0,
            links: Vec::new(),
            broadcast: Broadcast::new(&config),
            ledger: Ledger::default(),
            before: Ledger::default(),
            second_before: Ledger::default(),
            traffic: Traffic::new(config.profile.isp.len()),
            traffic_before: Traffic::new(config.profile.isp.len()),
            maps: Maps::default(),
            dealer: fastrand::Rng::with_seed(config.seed ^ 0xa170),
            measured: Vec::new(),
            checks: Checks::default(),
            trace: Trace::default(),
            hash: Hash::default(),
            inputs: 0,
            uploads_bps,
            queue: Queue::new(),
            rng: seeds.fork(),
            people: seeds.fork(),
            tracked: config.rates().iter().map(|_| Tracked::default()).collect(),
            hostile: Vec::new(),
            is_tracker_away: false,
            partition: None,
            carrier: None,
            fault: None,
            halves: BTreeMap::new(),
            events: None,
            spin: (0, 0),
            config,
        })
    }

    /// When measuring begins, µs.
    pub(crate) fn measured_from(&self) -> u64 {
        self.config.warmup.as_micros() as u64
    }

    /// When the run ends, µs.
    pub(crate) fn end(&self) -> u64 {
        self.measured_from() + self.config.duration.as_micros() as u64
    }

    /// Makes viewer `index` misbehave although it counts as honest.
    pub fn plant(&mut self, fault: Fault, index: usize) {
        self.fault = Some((fault, index));
    }

    /// Runs until `until` µs.
    pub fn run_until(&mut self, until: u64) {
        while let Some((at, happening)) = self.queue.pop(until) {
            if at - self.spin.0 > 1_000 {
                self.spin = (at, 0);
            }
            self.spin.1 += 1;
            assert!(self.spin.1 < 2_000_000, "engines spin at {at} µs: {}", self.config.command);
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Runs all of it.
    pub fn run(&mut self) {
        self.run_until(self.end());
        self.look();
        self.finish();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(index) => self.wake(index as usize),
            Happening::Control { link, from, to, bytes } => self.arrive_control(link, from, to, &bytes),
            Happening::Chunk(chunk) => self.arrive_chunk(chunk),
            Happening::Held(index, peer, token, head, body) => {
                self.go_on(index as usize, &peer, token, head, body);
            }
            Happening::Acked { link, to, token, bytes, delivered } => {
                self.acked(link, to, token, u64::from(bytes), delivered);
            }
            Happening::Stands { link, end } => self.stands(link, end),
            Happening::Gone { link, from, to } => self.gone(link, from, to),
            Happening::DialFailed { to, peer } => self.input(to as usize, Input::DialFailed(peer)),
            Happening::Part(broadcast) => self.part(broadcast),
            Happening::Note(broadcast) => self.sign_note(broadcast, false),
            Happening::Play => self.play(),
            Happening::Track(index, rendition) => self.track_in(index as usize, rendition),
            Happening::Watch(index) => self.watch(index as usize),
            Happening::Unlist(index) => self.unlist(index as usize),
            Happening::Extra(index) => self.extra(index as usize),
            Happening::Viewer(place) => _ = self.viewer(place),
            Happening::Invited(place) => self.invited(place),
            Happening::Attacker(which) => self.attacker(which),
            Happening::Late(index, transmit) => self.carry(index as usize, *transmit),
            Happening::Depart(index) => self.depart(index as usize),
            Happening::Scenario(index) => self.begin_event(index),
            Happening::ScenarioEnd(index) => self.end_event(index),
            Happening::Measure => self.measure(),
            Happening::Second => self.second(),
            Happening::Remap => self.remap(),
            Happening::Look => {
                self.look();
                self.queue.push(self.now + LOOK_PERIOD_US, Happening::Look);
            }
        }
    }

    fn measure(&mut self) {
        self.before = self.ledger.clone();
        self.traffic_before = self.traffic.clone();
        self.measured = crate::report::places(self);
        for node in &mut self.nodes {
            (node.record.sent_before, node.record.relayed) = (node.record.sent, 0);
        }
        if let Some(number) = self.config.trace {
            self.trace.follow(self.broadcast.published.len() + number as usize);
        }
    }

    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.wake != self.now {
            return;
        }
        node.wake = u64::MAX;
        if node.timeout > self.now {
            // It was put off meanwhile.
            self.schedule(index);
        } else {
            self.input(index, Input::Tick);
        }
    }

    /// Makes sure that the engine is called when it wants to be.
    fn schedule(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.timeout < node.wake && node.timeout != u64::MAX {
            node.wake = node.timeout.max(self.now + TIMER_MIN_US);
            self.queue.push(node.wake, Happening::Wake(index as u32));
        }
    }

    /// Hands an input to the engine of peer `index`, if it is there, and does what it says.
    pub fn input(&mut self, index: usize, input: Input) {
        let now = Timestamp::from_micros(self.now);
        let Some(engine) = self.nodes[index].engine.as_mut() else { return };
        self.inputs += 1;
        engine.handle_input(now, input);
        while let Some(engine) = self.nodes[index].engine.as_mut() {
            match engine.poll_output() {
                Output::Transmit(transmit) => self.transmit(index, transmit),
                Output::Event(event) => self.event(index, event),
                Output::Timeout(at) => {
                    self.nodes[index].timeout = at.as_micros();
                    self.schedule(index);
                    self.show(index);
                    return;
                }
            }
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        if let Some(events) = &mut self.events {
            events.push((Timestamp::from_micros(self.now), index, event.clone()));
        }
        match event {
            Event::Chunk(swarm, chunk) => self.delivered(index, swarm.rendition, &chunk),
            Event::Joined { swarm, epoch, number } => self.joined(index, swarm.rendition, epoch, number),
            Event::NeedPeers(swarm) => {
                self.queue.push(self.now + 20_000, Happening::Track(index as u32, swarm.rendition));
            }
            Event::Dropped { peer, reason, .. } => self.dropped(index, &peer, &reason),
            Event::Missed(_, range) => self.ledger.missed += range.end - range.start,
            _ => {}
        }
    }

    /// The place of the peer with this id.
    pub fn index(&self, peer: &PeerId) -> Option<usize> {
        let mut raw = [0; 4];
        raw.copy_from_slice(&peer.0[28..]);
        let index = u32::from_be_bytes(raw) as usize;
        self.nodes.get(index).is_some_and(|node| node.id == *peer).then_some(index)
    }

    /// What of the scenario began, with its time: for reports and plots.
    pub(crate) fn events(&self) -> impl Iterator<Item = (u64, What, &str)> {
        let from = self.measured_from();
        self.config
            .events
            .iter()
            .map(move |event| (from + event.at.as_micros() as u64, event.what, event.text.as_str()))
    }
}
