//! The world driven by hand, for tests of the engine: whoever calls says who comes and goes, what is cut and for how long,
//! hands in what they like, looks into any engine, and steps to any time.
//!
//! Nothing happens by itself here but the broadcast: no ramp, no sessions, no players that give up. Takes no decision of
//! an engine's.

use core::time::Duration;

use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::chunk::VerifiedChunk;
use caudal_proto::id::{PeerId, RenditionId, SecretKey};
use caudal_proto::io::{Event, Input};
use caudal_proto::swarm::{Role, SwarmStats};
use caudal_proto::time::Timestamp;

use super::{Happening, LOOK_PERIOD_US, World};
use crate::attack::Hostile;
use crate::config::{SimConfig, Told};
use crate::error::SimError;
use crate::profile::Place;

/// Somebody's line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uplink {
    /// IP bit/s; 0 = it does not upload.
    pub bps: u64,
    /// What its engine is told of that.
    pub told: Told,
}

/// One arrival of a chunk that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// From whom.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// When it was handed to the connection.
    pub sent: Timestamp,
    /// When it was whole.
    pub arrived: Timestamp,
}

/// What can be seen of a peer from outside its engine.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Who it is.
    pub id: PeerId,
    /// When it came.
    pub opened: Timestamp,
    /// It has not left, nor was it killed.
    pub is_alive: bool,
    /// Nothing twists what its engine says.
    pub is_honest: bool,
    /// Connections that it asked for.
    pub dials: u64,
    /// Chunk bytes that it handed to connections, headers beyond the chunk's own left out.
    pub chunk_bytes_sent: u64,
}

impl World {
    /// A world without anybody, whose tracker is there and in which engines' events are kept for [`Self::take_events`].
    /// Of `config` it uses the stream, the distances and losses, the policy and the seed.
    ///
    /// # Errors
    /// [`SimError`] when the configuration makes no sense.
    pub fn by_hand(config: SimConfig) -> Result<Self, SimError> {
        let mut world = Self::bare(config)?;
        world.events = Some(Vec::new());
        world.queue.push(LOOK_PERIOD_US, Happening::Look);
        Ok(world)
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span.as_micros() as u64);
    }

    /// The keys of the channel and of its broadcasts, for whoever signs what is old or wrong.
    pub fn keys(&self) -> (&SecretKey, &SecretKey) {
        (&self.broadcast.channel_key, &self.broadcast.key)
    }

    /// What the tracker knows of the broadcast.
    pub fn on_air(&self) -> (Option<Certificate>, Option<LiveNote>) {
        (self.broadcast.certificate, self.broadcast.lanes[0].note)
    }

    /// Chunks that were published, with their times, from the `from`th of all on.
    pub fn published(&self, from: usize) -> impl Iterator<Item = (Timestamp, &VerifiedChunk)> {
        let published = self.broadcast.published.get(from..).unwrap_or_default();
        published.iter().map(|p| (Timestamp::from_micros(p.at), &p.chunk))
    }

    /// A source comes that nobody has met, and begins a broadcast: its first part comes at once. It pushes up to
    /// `copies_percent` of the stream.
    pub fn begin_source(&mut self, uplink: Uplink, copies_percent: Option<u32>) -> usize {
        self.source = self.add(place(uplink), true, uplink.told);
        self.start_source(copies_percent);
        self.track(self.source);
        self.source
    }

    /// The source that is gone comes back under its old id with a new broadcast; nobody is told that its connections are
    /// gone.
    pub fn begin_source_again(&mut self, copies_percent: Option<u32>) {
        self.restart_source(copies_percent);
        self.track(self.source);
    }

    /// The broadcaster says that this was all.
    pub fn end_broadcast(&mut self) {
        self.end_note();
    }

    /// A viewer comes, whose clock is off by `skew_us`. The tracker lists it; it has not asked yet ([`Self::track`]).
    pub fn come(&mut self, uplink: Uplink, skew_us: i64) -> usize {
        let index = self.add(place(uplink), false, uplink.told);
        self.nodes[index].skew_us = skew_us;
        self.open(index);
        self.enter(index, RenditionId(0), Role::Viewer, self.config.policy.clone());
        self.list(index, RenditionId(0));
        index
    }

    /// From now on the line of `index` carries this much, IP bit/s; its engine is told nothing.
    pub fn set_line(&mut self, index: usize, bps: u64) {
        self.nodes[index].up.bps = bps;
    }

    /// From now on this twists what `index` says.
    pub fn turn(&mut self, index: usize, into: Box<dyn Hostile>) {
        self.queue.push(self.now + into.period_us(), Happening::Extra(index as u32));
        self.nodes[index].hostility = Some(into);
        self.hostile.push(index as u32);
    }

    /// Sets the clock of `index` this far from the truth.
    pub fn set_clock(&mut self, index: usize, skew_us: i64) {
        self.nodes[index].skew_us = skew_us;
        let unix_us = self.unix_us().saturating_add_signed(skew_us);
        self.input(index, Input::UnixTime(unix_us));
    }

    /// Whether the tracker answers.
    pub fn set_tracker(&mut self, is_there: bool) {
        self.is_tracker_away = !is_there;
    }

    /// Nothing crosses between `side` and the rest for `span`; what was sent arrives afterwards.
    pub fn cut(&mut self, side: impl IntoIterator<Item = usize>, span: Duration) {
        let mut is_inside = vec![false; self.nodes.len()];
        side.into_iter().for_each(|index| is_inside[index] = true);
        self.partition = Some((is_inside, self.now + span.as_micros() as u64));
    }

    /// How many have come so far; they are counted from 0, and keep their places when they go.
    #[expect(clippy::len_without_is_empty, reason = "a count of people, not a container")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How the engine of `index` stands in the first rendition; `None` when it is gone.
    pub fn stats(&self, index: usize) -> Option<SwarmStats> {
        self.stats_of(index, RenditionId(0))
    }

    /// The same in the swarm of a rendition; `None` where it is not in it.
    pub fn stats_of(&self, index: usize, rendition: RenditionId) -> Option<SwarmStats> {
        self.nodes[index].engine.as_ref()?.stats(&self.swarm(rendition))
    }

    /// The same in every swarm that it is in.
    pub fn all_stats(&self, index: usize) -> impl Iterator<Item = SwarmStats> {
        (0..self.broadcast.lanes.len())
            .filter_map(move |place| self.stats_of(index, RenditionId(place as u8)))
    }

    /// A peer from outside.
    pub fn look_at(&self, index: usize) -> Look {
        let node = &self.nodes[index];
        Look {
            id: node.id,
            opened: Timestamp::from_micros(node.record.opened),
            is_alive: node.is_alive(),
            is_honest: node.is_honest(),
            dials: node.record.dials,
            chunk_bytes_sent: node.record.relayed,
        }
    }

    /// What engines reported since this was asked last, in order: when, who, what.
    pub fn take_events(&mut self) -> Vec<(Timestamp, usize, Event)> {
        self.events.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What must always hold and did not, in words.
    pub fn failures(&self) -> &[String] {
        &self.checks.words
    }

    /// The newest chunk that is marked for tracing, as `(epoch, number)`, and its way so far.
    pub fn followed(&self) -> (Option<(u64, u64)>, Vec<Arrival>) {
        let published = self.trace.serial().and_then(|serial| self.broadcast.published.get(serial));
        let arrivals = self.trace.hops.iter().map(|hop| Arrival {
            from: hop.from,
            to: hop.to,
            sent: Timestamp::from_micros(hop.sent),
            arrived: Timestamp::from_micros(hop.arrived),
        });
        let header = published.map(|published| published.chunk.header());
        (header.map(|header| (header.epoch, header.number)), arrivals.collect())
    }

    /// Of all that engines transmitted so far.
    pub fn trace_hash(&self) -> u64 {
        self.hash.value()
    }
}

fn place(uplink: Uplink) -> Place {
    Place { class: usize::MAX, region: 0, isp: 0, upload_bps: uplink.bps }
}
