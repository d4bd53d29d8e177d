//! One channel's swarm, as one node sees it: what it holds, whom it knows, who feeds whom.
//!
//! ```text
//! peers ── whom to dial ──► neighbour ── HAVE, STATE ──► join ── where to start
//! live ── which broadcast ──►   │                          │
//!                               ├──► tree ── ATTACH, push ─┤──► store ──► Event::Chunk
//!                               └──► pull ── REQUEST, serve┘
//! ```
//!
//! [`policy`] takes every choice between peers, [`hybrid`](crate::hybrid) those about HTTP; the other modules keep the books. The swarm never orders its own
//! sending: chunks to send are offered to the node's [`uplink`](crate::uplink), which every swarm shares.

mod admission;
mod children;
mod class;
mod climb;
mod config;
mod edge;
mod gossip;
mod have;
mod join;
mod live;
mod locality;
mod neighbour;
mod overdue;
mod peers;
mod pex;
pub mod policy;
mod pull;
mod receive;
mod record;
mod skew;
mod spread;
mod standing;
mod store;
mod trace;
mod tree;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use crate::broadcast::{Certificate, LiveNote};
use crate::chunk::VerifiedChunk;
use crate::id::PeerId;
use crate::io::{CloseCode, Connected, Event, Playout};
use crate::peer_map::PeerMap;
use crate::time::Timestamp;
use crate::wire::{ChunkHead, Handshake, Message};

use admission::Admission;
pub use config::{NeighbourStats, Role, SwarmConfig, SwarmStats};
pub(crate) use edge::Hole;
use join::{Joining, Phase};
pub use locality::{NetworkMap, PathCost};
use neighbour::Neighbour;
use overdue::Overdue;
use peers::Known;
use pull::REQUESTED_MAX;
use record::OwnRecords;
use standing::Standings;
use store::Store;
use trace::Traces;
use tree::Substream;

/// Time between looks at everything that time changes.
const TICK: Duration = Duration::from_millis(80);
/// A settled swarm looks around with messages, too, this often at most.
const TEND_PERIOD: Duration = Duration::from_millis(25);
/// One that seeks a start or parents looks around this often at most.
const TEND_PERIOD_UNSETTLED: Duration = Duration::from_millis(4);
/// Most peers remembered as banned.
const BANNED_MAX: usize = 1024;
/// Most outputs that wait to be polled; a driver that drains after each input never meets it.
const OUTPUTS_MAX: usize = 65_536;

/// What a swarm wants done.
#[derive(Debug)]
pub(crate) enum SwarmOutput {
    Connect(PeerId, Vec<SocketAddr>),
    Disconnect(PeerId, CloseCode),
    Control(PeerId, Bytes),
    Offer(Offer),
    /// The peer no longer needs this chunk.
    Withdraw(PeerId, u64),
    /// The peer is no child in this substream any more: what waits for it as such is not sent.
    WithdrawPushes(PeerId, u8),
    /// The peer is silent: nothing that waits for it is sent.
    WithdrawAll(PeerId),
    /// The peer has left this swarm, and may still be in another: nothing of this one is of use to it.
    Left(PeerId),
    /// A player is about to miss a part: whether it is fetched is the channel's account's to say.
    Urgent(Hole),
    Event(Event),
}

/// A chunk for the uplink.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) peer: PeerId,
    pub(crate) chunk: VerifiedChunk,
    /// Orders the queue: the earliest goes first.
    pub(crate) due: Timestamp,
    /// Not worth sending after this.
    pub(crate) expires: Timestamp,
    pub(crate) requested: bool,
    /// It was charged to what old holes may have.
    pub(crate) overdue: bool,
    /// When it was put into the queue.
    pub(crate) offered: Timestamp,
    /// When this node had the chunk.
    pub(crate) received: Timestamp,
    /// Time from signing to here as the hops added it up, µs; `None` when one of them did not know.
    pub(crate) hops_us: Option<u64>,
}

/// What the uplink tells its swarms.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UplinkView {
    /// Measured or configured upload; `None` before anything was measured.
    pub(crate) upload_bps: Option<u64>,
    /// The most that ever got through, bit/s.
    pub(crate) proven_bps: u64,
    /// The rate at which chunks are let go, or one that means: as they come.
    pub(crate) pace_bps: u64,
    /// How long a chunk offered now would wait.
    pub(crate) wait: Duration,
    /// The least of that lately: a queue that does not go away between two parts of the stream.
    pub(crate) standing_wait: Duration,
    /// How long pushed chunks waited lately.
    pub(crate) usual_wait: Duration,
}

impl UplinkView {
    /// What a swarm sees that may have `part` of `all`.
    pub(crate) fn share(self, part: u64, all: u64) -> Self {
        let of = |bps: u64| (u128::from(bps) * u128::from(part) / u128::from(all.max(1))) as u64;
        Self { upload_bps: self.upload_bps.map(of), proven_bps: of(self.proven_bps), ..self }
    }
}

/// One channel's swarm.
pub(crate) struct Swarm {
    config: SwarmConfig,
    local: PeerId,
    handle: u8,
    rng: fastrand::Rng,
    /// What overdue holes may have.
    overdue: Overdue,
    /// Chunks that this source gave to anybody.
    given_out: neighbour::Recent,
    /// Those that it let through to a first asker, whatever was spent, and that have not expired since.
    promised: neighbour::Recent,
    /// Which substreams this node relays as a matter of course, see [`Policy::is_interior`](policy::Policy).
    class: u8,
    /// It is not changed before.
    class_at: Timestamp,
    unix_offset_us: i64,
    /// What the neighbours make of the difference between this clock and the source's.
    skew_us: Option<i64>,
    certificate: Option<Certificate>,
    note: Option<LiveNote>,
    epoch_since: Timestamp,
    /// The broadcast that was followed before: its last chunks may be on their way.
    epoch_before: u64,
    /// What those who left had earned and forfeited.
    standings: Standings,
    phase: Phase,
    joining: Joining,
    store: Store,
    substreams: Vec<Substream>,
    neighbours: PeerMap<Neighbour>,
    known: PeerMap<Known>,
    banned: BTreeSet<PeerId>,
    /// Which neighbour has been asked for a chunk, until the lock ends.
    locks: BTreeMap<u64, PeerId>,
    /// Chunks that nobody is asked for on a guess until then; as many as there are requests under way.
    guess_after: BTreeMap<u64, Timestamp>,
    playout: Playout,
    /// When the player said so.
    playout_at: Timestamp,
    /// There is an edge to fetch parts from.
    has_edge: bool,
    /// Nobody but an edge brings what is new.
    led_by_edge: bool,
    /// Measured stream rate, bit/s; the certificate's until there is enough.
    rate_bps: u64,
    uplink: UplinkView,
    /// Bytes that a source with a set number of copies may still send, and since when they were counted.
    savings: i64,
    saved_at: Timestamp,
    admission: Admission,
    /// The source feeds everybody: other viewers are not met.
    served_alone: bool,
    /// What was on its way to this node when it left the same swarm is no offence until then.
    stragglers_until: Timestamp,
    /// No neighbour beyond the first ones is dialled before.
    dial_at: Timestamp,
    /// No neighbour is left for bringing nothing before.
    starved_at: Timestamp,
    /// No idle neighbour makes room for another before.
    make_room_at: Timestamp,
    /// No grandparent is dialled before.
    climb_at: Timestamp,
    /// No hole is asked for before.
    pull_at: Timestamp,
    /// No child is displaced before.
    displace_at: Timestamp,
    /// The neighbour whose path was looked up last.
    looked_up: Option<PeerId>,
    /// The same of those who are known and not connected.
    looked_up_known: Option<PeerId>,
    /// Some neighbours are in the own PID, some are not.
    sides_differ: bool,
    /// The least and the most that leaving the own PID costs.
    costs: (u32, u32),
    /// Nobody is dialled for being near before, and how long it is until then.
    seek_near_at: Timestamp,
    seek_near_after: Duration,
    next_ping: u32,
    tick_at: Timestamp,
    look_around_at: Timestamp,
    /// When this node last looked around.
    tended: Timestamp,
    second_at: Timestamp,
    need_peers_at: Timestamp,
    need_peers_after: Duration,
    announced: gossip::Announced,
    /// Traced chunks.
    traces: Traces,
    own: OwnRecords,
    /// Peers for whom there was no place, and until when they may hear of others.
    turned_away: BTreeMap<PeerId, Timestamp>,
    /// The one whose first words are being heard.
    at_the_door: Option<PeerId>,
    stats: SwarmStats,
    /// Neighbours for whom messages wait.
    unsent: Vec<PeerId>,
    out: VecDeque<SwarmOutput>,
}

impl core::fmt::Debug for Swarm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Swarm")
            .field("config", &self.config)
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

impl Swarm {
    pub(crate) fn new(now: Timestamp, config: SwarmConfig, local: PeerId, handle: u8, seed: u64) -> Self {
        let mut swarm = Self {
            local,
            handle,
            rng: fastrand::Rng::with_seed(seed),
            overdue: Overdue::new(now),
            given_out: neighbour::Recent::default(),
            promised: neighbour::Recent::default(),
            class: config.policy.usual_class(&local),
            class_at: now,
            unix_offset_us: 0,
            skew_us: None,
            certificate: None,
            note: None,
            epoch_since: now,
            epoch_before: 0,
            standings: Standings::default(),
            phase: Phase::Waiting,
            joining: Joining::default(),
            store: Store::default(),
            substreams: Vec::new(),
            neighbours: PeerMap::default(),
            known: PeerMap::default(),
            banned: BTreeSet::new(),
            locks: BTreeMap::new(),
            guess_after: BTreeMap::new(),
            playout: Playout::default(),
            playout_at: now,
            has_edge: false,
            led_by_edge: false,
            rate_bps: 1_000_000,
            uplink: UplinkView::default(),
            savings: i64::MAX / 2,
            saved_at: now,
            admission: Admission::default(),
            served_alone: false,
            stragglers_until: Timestamp::ZERO,
            pull_at: now,
            dial_at: now,
            make_room_at: now,
            climb_at: now,
            starved_at: now,
            displace_at: now,
            looked_up: None,
            looked_up_known: None,
            sides_differ: false,
            costs: (0, 0),
            seek_near_at: now,
            seek_near_after: Duration::from_secs(1),
            next_ping: 0,
            tick_at: now,
            look_around_at: now,
            tended: now,
            second_at: now,
            need_peers_at: now,
            need_peers_after: Duration::from_millis(500),
            announced: gossip::Announced::default(),
            traces: Traces::default(),
            own: OwnRecords::default(),
            turned_away: BTreeMap::new(),
            at_the_door: None,
            stats: SwarmStats::default(),
            unsent: Vec::new(),
            out: VecDeque::new(),
            config,
        };
        if let Role::Source { certificate, .. } = &swarm.config.role {
            let certificate = *certificate;
            swarm.follow(now, certificate);
            swarm.phase = Phase::Source;
        }
        swarm
    }

    pub(crate) fn is_source(&self) -> bool {
        matches!(self.config.role, Role::Source { .. })
    }

    /// The wall clock is `now` + `offset_us`.
    pub(crate) fn set_unix_offset(&mut self, offset_us: i64) {
        self.clock_stepped(self.unix_offset_us.abs_diff(offset_us));
        self.unix_offset_us = offset_us;
    }

    pub(crate) fn set_uplink(&mut self, view: UplinkView) {
        self.uplink = view;
    }

    /// What its neighbours would take together, bit/s: its share of the uplink is counted by it.
    pub(crate) fn demand(&self) -> u64 {
        self.rate_bps * self.neighbours.len() as u64
    }

    pub(crate) fn set_playout(&mut self, now: Timestamp, playout: Playout) {
        (self.playout, self.playout_at) = (playout, now);
    }

    /// When [`Swarm::tick`] wants to be called.
    pub(crate) fn timeout(&self) -> Timestamp {
        self.tick_at
    }

    pub(crate) fn poll(&mut self) -> Option<SwarmOutput> {
        self.out.pop_front()
    }

    /// Everything that time changes.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        if now < self.tick_at {
            return;
        }
        self.tick_at = now + TICK;
        if now >= self.second_at {
            self.second_at = now + Duration::from_secs(1);
            self.every_second(now);
        }
        self.tell_paths();
        self.watch_neighbours(now);
        self.close_turned_away(now);
        self.tend(now);
        self.tell_urgent(now);
        self.gossip(now);
        self.report_hops(now);
        self.flush();
    }

    /// What messages may change, too.
    fn tend(&mut self, now: Timestamp) {
        self.tended = now;
        self.try_join(now);
        self.tend_trees(now);
        self.pull(now);
    }

    /// It seeks a start or parents: messages may help.
    fn is_unsettled(&self) -> bool {
        !self.phase.is_joined() || !self.is_source() && self.substreams.iter().any(|sub| !sub.has_parent())
    }

    fn every_second(&mut self, now: Timestamp) {
        self.measure_rate();
        self.measure_skew();
        self.look_up_paths();
        self.watch_water();
        self.leave_viewers(now);
        self.shed(now);
        self.hand_over_to_swarm(now);
        self.lift_the_stronger(now);
        self.watch_spread(now);
        let missed = self.store.discard(now, self.config.retention);
        for range in missed {
            let range = range.start.max(self.joining.first)..range.end.max(self.joining.first);
            if range.is_empty() {
                continue;
            }
            self.stats.missed += range.end - range.start;
            self.event(Event::Missed(self.config.swarm_id(), range));
        }
        self.tend_peers(now);
        self.ask_for_hops(now);
    }

    /// A connection stands; `wanted`: this node dialled it for this channel.
    pub(crate) fn connected(&mut self, now: Timestamp, connected: &Connected) {
        if self.banned.contains(&connected.peer) {
            self.out.push_back(SwarmOutput::Disconnect(connected.peer, CloseCode::Misbehaviour));
            return;
        }
        if self.neighbours.contains_key(&connected.peer) {
            return;
        }
        if self.neighbours.len() >= self.neighbours_max() && !self.make_room(now) {
            self.turn_away(now, connected.peer);
            return;
        }
        self.not_turned_away(&connected.peer);
        let standing = self.standings.of(now, &connected.peer);
        let mut neighbour = Neighbour::new(now, self.handle, connected, standing);
        neighbour.path = self.path_to(&connected.addr);
        let handshake = self.handshake();
        neighbour.send(&mut self.unsent, &Message::Handshake(handshake));
        self.neighbours.insert(connected.peer, neighbour);
        if let Some(known) = self.known.get_mut(&connected.peer) {
            known.connected();
        }
        self.greet(now, connected.peer);
        self.flush();
        self.event(Event::NeighbourUp(self.config.swarm_id(), connected.peer));
    }

    fn handshake(&self) -> Handshake {
        Handshake {
            channel: self.config.channel,
            rendition: self.config.rendition,
            source: self.is_source(),
            upload_kbps: self.upload_kbps(),
        }
    }

    pub(crate) fn is_neighbour(&self, peer: &PeerId) -> bool {
        self.neighbours.contains_key(peer)
    }

    /// A connection is gone.
    pub(crate) fn disconnected(&mut self, now: Timestamp, peer: PeerId) {
        self.not_turned_away(&peer);
        if self.forget(now, peer) {
            self.tend(now);
            self.flush();
        }
    }

    pub(crate) fn path(&mut self, peer: &PeerId, rtt: Duration, least: Duration) {
        if let Some(neighbour) = self.neighbours.get_mut(peer) {
            (neighbour.rtt, neighbour.least_rtt) = (rtt, least);
        }
    }

    /// A control message of `peer`; true when the swarm is better off looking around at once.
    pub(crate) fn message(&mut self, now: Timestamp, peer: PeerId, message: Message) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else {
            self.hear_at_the_door(now, peer, &message);
            return;
        };
        neighbour.hear(now);
        match message {
            Message::Handshake(handshake) if handshake.rendition != self.config.rendition => {}
            Message::Handshake(handshake) => {
                neighbour.met = true;
                neighbour.source = handshake.source;
                neighbour.upload_kbps = handshake.upload_kbps;
                self.keep_the_stronger(now);
            }
            Message::Certificate(bytes) => self.hear_certificate(now, peer, &bytes),
            Message::LiveNote(bytes) => self.hear_note(now, peer, &bytes),
            Message::Have(have) => self.hear_have(now, peer, &have),
            Message::State(state) => {
                neighbour.upload_kbps = state.upload_kbps;
                neighbour.state = state;
            }
            Message::Attach(attach) => self.hear_attach(now, peer, attach),
            Message::Accept(accept) => self.hear_accept(now, peer, accept),
            Message::Path(path) => self.hear_path(now, peer, path),
            Message::Reject(reject) => self.hear_reject(now, peer, &reject),
            Message::Detach { substream } => self.hear_detach(peer, substream),
            Message::Request(request)
                if !neighbour.standing.may_ask(now, request.chunks.numbers(REQUESTED_MAX).count() as u64) =>
            {
                self.hear_too_much(now, peer);
            }
            Message::Request(request) => self.serve(now, peer, &request),
            Message::Cancel(chunks) => self.hear_cancel(peer, &chunks),
            Message::Refuse { reason, chunks } => self.hear_refuse(now, peer, reason, &chunks),
            Message::Ping(number) => neighbour.send(&mut self.unsent, &Message::Pong(number)),
            Message::Pong(_) => {}
            Message::Pex(peers) => self.hear_pex(now, peer, &peers),
            Message::Seen(addr) => self.hear_seen(now, peer, addr),
            Message::Record(record) => self.hear_record(now, peer, record),
            Message::Trace(trace) => self.hear_trace(now, peer, trace),
            Message::Hop(hop) => self.hear_hop(now, peer, *hop),
            Message::Bye => {
                self.put(SwarmOutput::Left(peer));
                self.known.remove(&peer);
                self.disconnected(now, peer);
            }
        }
    }

    /// All messages of a frame were handed in.
    pub(crate) fn frame_done(&mut self, now: Timestamp) {
        self.close_door();
        // Nobody looks around at every message: of those that come together the last one matters.
        let is_unsettled = self.is_unsettled();
        let at = self.tended + if is_unsettled { TEND_PERIOD_UNSETTLED } else { TEND_PERIOD };
        if now >= at {
            self.tend(now);
        } else if is_unsettled {
            self.tick_at = self.tick_at.min(at);
        }
        self.flush();
    }

    /// A chunk of `peer`.
    pub(crate) fn chunk(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        head: &ChunkHead,
        chunk: crate::chunk::Chunk,
    ) {
        self.receive(now, peer, head, chunk);
        self.flush();
    }

    /// Says goodbye to everybody.
    pub(crate) fn leave(&mut self) {
        for neighbour in self.neighbours.values_mut() {
            neighbour.send(&mut self.unsent, &Message::Bye);
        }
        self.flush();
    }

    /// Drops a neighbour for what it did, and refuses it from now on.
    fn drop_peer(&mut self, now: Timestamp, peer: PeerId, reason: &str) {
        self.ban(peer);
        self.forget(now, peer);
        self.out.push_back(SwarmOutput::Disconnect(peer, CloseCode::Misbehaviour));
        self.event(Event::Dropped { channel: Some(self.config.channel), peer, reason: reason.to_string() });
    }

    /// Refuses `peer` from now on; its connection is closed elsewhere.
    pub(crate) fn ban(&mut self, peer: PeerId) {
        if self.banned.len() >= BANNED_MAX {
            // Any: whoever could choose which would come back first.
            let place = self.rng.u64(..self.banned.len() as u64) as usize;
            if let Some(one) = self.banned.iter().nth(place).copied() {
                self.banned.remove(&one);
            }
        }
        self.banned.insert(peer);
        self.known.remove(&peer);
        self.forget_word_of(&peer);
    }

    /// One false step of `peer`; the last one drops it.
    fn strike(&mut self, now: Timestamp, peer: PeerId, reason: &str) {
        let (max, decay) = (self.config.policy.strikes_max, self.config.policy.strike_decay);
        if self.neighbours.get_mut(&peer).is_some_and(|neighbour| neighbour.standing.strike(now, max, decay))
        {
            self.drop_peer(now, peer, reason);
        }
    }

    /// Of questions beyond what anybody can want none is answered.
    fn hear_too_much(&mut self, now: Timestamp, peer: PeerId) {
        if self.neighbours.get_mut(&peer).is_some_and(|neighbour| neighbour.standing.presses(now)) {
            self.strike(now, peer, "floods with requests");
        }
    }

    fn forget(&mut self, now: Timestamp, peer: PeerId) -> bool {
        let Some(neighbour) = self.neighbours.remove(&peer) else { return false };
        self.standings.keep(now, peer, neighbour.standing);
        self.locks.retain(|_, holder| *holder != peer);
        let was_fed = self.feeds(&peer);
        self.lose_everywhere(now, peer);
        // Who was no child leaves no place: whoever comes and goes all the time is no news.
        if was_fed {
            self.tell_room(now);
        }
        if let Some(known) = self.known.get_mut(&peer) {
            known.lost(now, &self.config.policy);
        }
        self.need_peers_after = Duration::from_millis(500);
        self.need_peers_at = self.need_peers_at.min(now + Duration::from_secs(1));
        self.event(Event::NeighbourDown(self.config.swarm_id(), peer));
        true
    }

    fn event(&mut self, event: Event) {
        self.put(SwarmOutput::Event(event));
    }

    fn put(&mut self, output: SwarmOutput) {
        debug_assert!(self.out.len() < OUTPUTS_MAX, "the driver drains after each input");
        self.out.push_back(output);
    }

    fn flush(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let mut unsent = core::mem::take(&mut self.unsent);
        unsent.sort_unstable();
        for peer in unsent.drain(..) {
            // Gone, or gone and back: nothing waits.
            let Some(bytes) = self.neighbours.get_mut(&peer).and_then(Neighbour::flush) else { continue };
            self.stats.control_bytes_out += bytes.len() as u64;
            self.out.push_back(SwarmOutput::Control(peer, bytes));
        }
        self.unsent = unsent;
    }

    fn epoch(&self) -> u64 {
        self.certificate.map_or(0, |certificate| certificate.epoch)
    }

    pub(crate) fn substream_count(&self) -> u8 {
        self.substreams.len() as u8
    }

    fn unix_us(&self, now: Timestamp) -> u64 {
        now.as_micros().saturating_add_signed(self.unix_offset_us)
    }

    /// Upload that this node offers the swarm, bit/s: measured, or until then enough for its fair share and some.
    fn upload_bps(&self) -> u64 {
        if !self.config.upload {
            return 0;
        }
        let measured =
            self.uplink.upload_bps.unwrap_or((self.rate_bps * 3 / 2).max(self.uplink.proven_bps * 5 / 4));
        match self.config.role {
            Role::Source { copies_percent: Some(percent), .. } => {
                measured.max(self.rate_bps).min(self.rate_bps * u64::from(percent) / 100)
            }
            _ => measured,
        }
    }

    fn upload_kbps(&self) -> u32 {
        u32::try_from(self.upload_bps() / 1000).unwrap_or(u32::MAX)
    }

    /// Counters and gauges.
    pub(crate) fn stats(&self) -> SwarmStats {
        let bit = |on: bool, s: usize| if on { 1u16 << s } else { 0 };
        let neighbours = self.neighbours.values().map(|n| {
            let each = || self.substreams.iter().enumerate();
            NeighbourStats {
                peer: n.peer,
                source: n.source,
                rtt_us: n.rtt.as_micros() as u64,
                path: n.path,
                parent_in: each().map(|(s, sub)| bit(sub.is_parent(&n.peer), s)).sum(),
                child_in: each().map(|(s, sub)| bit(sub.is_child(&n.peer), s)).sum(),
                useful_bytes_in: n.useful_bytes_in,
                bytes_out: n.bytes_out,
            }
        });
        SwarmStats {
            epoch: self.epoch(),
            rate_bps: self.rate_bps,
            edge: self.store.edge(),
            held: self.store.len() as u64,
            upload_capacity_bps: self.uplink.upload_bps,
            upload_wait_us: self.uplink.wait.as_micros() as u64,
            uplinks_clear: self.uplinks_clear(),
            parents: self.substreams.iter().filter(|s| s.has_parent()).count() as u8,
            substreams: self.substream_count(),
            children: self.substreams.iter().map(Substream::children).sum(),
            neighbours: neighbours.collect(),
            ..self.stats.clone()
        }
    }
}

/// A reason for the log with a peer's error in it.
fn reason(what: &str, error: &dyn core::fmt::Display) -> String {
    let mut text = String::from(what);
    text.push_str(": ");
    text.push_str(&error.to_string());
    text
}
