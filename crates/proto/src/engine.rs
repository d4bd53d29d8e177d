//! All of a node's swarms above its one uplink: the state machine that a driver runs.
//!
//! Owns connections and which swarms speak on them. Never decides about delivery: swarms choose, the uplink orders.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::chunk::{Chunk, Flags};
use crate::hybrid::urgent::{Urgent, part_len_max};
use crate::id::{ChannelId, PeerId, SwarmId};
use crate::io::{ChunkOutcome, CloseCode, Connected, Event, FetchedPart, Input, Output, Transmit};
use crate::peer_map::PeerMap;
use crate::swarm::{Swarm, SwarmOutput, SwarmStats, UplinkView};
use crate::time::Timestamp;
use crate::uplink::{Done, Uplink};
use crate::wire::{ChunkHead, FrameWriter, LAG_UNKNOWN_MS, Message, Messages, WireError};

/// Most swarms of one node.
pub const SWARMS_MAX: usize = 8;
/// Most connections of one node, whoever dialled.
pub const CONNECTIONS_MAX: usize = 96;
/// Control messages of one peer that are heard at once …
pub const MESSAGES_MAX: u64 = 2000;
/// … and in a second, for as long as it likes; more is a flood.
pub const MESSAGES_PER_SECOND: u64 = 400;
/// Peers that acknowledge nothing are looked for this often.
const STALLS_PERIOD: Duration = Duration::from_millis(50);
/// Chunks on handles without a meaning that a connection may bring: those that were on their way when it replaced another.
const STRAYS_MAX: u32 = 64;
/// A connection that no swarm uses is closed after this long.
const UNUSED_FOR: Duration = Duration::from_secs(5);

/// A node's settings.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This node.
    pub local: PeerId,
    /// Seeds every random choice.
    pub seed: u64,
    /// Most upload in bit/s, all swarms together; `None`: as measured.
    pub upload_limit_bps: Option<u64>,
}

#[derive(Debug)]
struct Connection {
    connected: Connected,
    /// The peer's handles, and what they stand for.
    handles: Vec<(u8, SwarmId)>,
    used: Timestamp,
    /// Control messages that it may still send, and since when they were counted.
    messages_left: u64,
    messages_at: Timestamp,
    /// Chunks that came on handles without a meaning.
    strays: u32,
}

impl Connection {
    fn new(now: Timestamp, connected: Connected) -> Self {
        Self {
            connected,
            handles: Vec::new(),
            used: now,
            messages_left: MESSAGES_MAX,
            messages_at: now,
            strays: 0,
        }
    }

    /// What the peer's `handle` stands for.
    fn swarm(&self, handle: u8) -> Option<SwarmId> {
        self.handles.iter().find(|(known, _)| *known == handle).map(|(_, swarm)| *swarm)
    }

    /// From now on `handle` stands for `swarm`; false when there are too many.
    fn introduce(&mut self, handle: u8, swarm: SwarmId) -> bool {
        if let Some((_, known)) = self.handles.iter_mut().find(|(known, _)| *known == handle) {
            *known = swarm;
            return true;
        }
        let has_room = self.handles.len() < SWARMS_MAX;
        if has_room {
            self.handles.push((handle, swarm));
        }
        has_room
    }

    /// One more chunk on a handle without a meaning; true when there are too many.
    fn strayed(&mut self) -> bool {
        self.strays += 1;
        self.strays > STRAYS_MAX
    }

    /// One more message; false when they are a flood.
    fn hear_message(&mut self, now: Timestamp) -> bool {
        let earned = now.since(self.messages_at).as_micros() as u64 * MESSAGES_PER_SECOND / 1_000_000;
        if earned > 0 {
            self.messages_left = (self.messages_left + earned).min(MESSAGES_MAX);
            self.messages_at = now;
        }
        self.messages_left = self.messages_left.saturating_sub(1);
        self.messages_left > 0
    }
}

/// One swarm that this node takes part in.
#[derive(Debug)]
struct Member {
    id: SwarmId,
    /// Names it on the wire.
    handle: u8,
    swarm: Box<Swarm>,
}

/// A node's whole protocol state.
///
/// Hand inputs in with [`Engine::handle_input`], then drain [`Engine::poll_output`] until it gives
/// [`Output::Timeout`], and come back then or with the next input. Time never runs backwards.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    rng: fastrand::Rng,
    now: Timestamp,
    unix_offset_us: i64,
    /// A handful, in the order in which they were opened: searched faster than a tree.
    swarms: Vec<Member>,
    connections: PeerMap<Connection>,
    uplink: Uplink,
    /// Swarms left last, and when: what others still send there comes to whoever joins again.
    left: VecDeque<(SwarmId, Timestamp)>,
    /// What each channel may fetch from edges, whichever of its renditions plays; also while none is joined.
    urgent: VecDeque<(ChannelId, Urgent)>,
    /// Handles go round: one that comes back soon would be taken for what it stood for before.
    next_handle: u8,
    sweep_at: Timestamp,
    stalls_at: Timestamp,
    out: VecDeque<Output>,
}

impl Engine {
    /// A node that takes part in nothing yet.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(config.seed),
            now: Timestamp::ZERO,
            unix_offset_us: 0,
            swarms: Vec::new(),
            connections: PeerMap::default(),
            uplink: Uplink::new(config.upload_limit_bps),
            left: VecDeque::new(),
            urgent: VecDeque::new(),
            next_handle: 0,
            sweep_at: Timestamp::ZERO,
            stalls_at: Timestamp::ZERO,
            out: VecDeque::new(),
            config,
        }
    }

    /// Something happened at `now`. Drain [`Engine::poll_output`] afterwards.
    pub fn handle_input(&mut self, now: Timestamp, input: Input) {
        self.now = self.now.max(now);
        let now = self.now;
        let view = self.uplink.view(now);
        self.share_uplink(view);
        self.dispatch(now, input);
        if now >= self.stalls_at {
            self.stalls_at = now + STALLS_PERIOD;
            for peer in self.uplink.stalled(now) {
                self.swarms.iter_mut().for_each(|member| member.swarm.stalled(now, peer));
            }
            for (peer, takes_nothing) in self.uplink.takes_nothing(now) {
                self.swarms.iter_mut().for_each(|member| member.swarm.takes_nothing(peer, takes_nothing));
            }
        }
        for swarm in self.swarms_mut() {
            swarm.tick(now);
        }
        self.sweep(now);
        self.pump(now);
    }

    /// Each swarm is told its share of what the uplink carries, by how many it may feed and at what rate: each alone would
    /// promise all of it.
    fn share_uplink(&mut self, view: UplinkView) {
        let all = match self.swarms.len() {
            0 | 1 => 0,
            _ => self.swarms.iter().map(|member| member.swarm.demand()).sum::<u64>(),
        };
        for swarm in self.swarms_mut() {
            let view = if all == 0 { view } else { view.share(swarm.demand(), all) };
            swarm.set_uplink(view);
        }
    }

    /// The next thing to do; after [`Output::Timeout`] there is nothing more until the next input.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.out.pop_front() {
            return output;
        }
        let swarms = self.swarms.iter().map(|member| member.swarm.timeout());
        let at = swarms.chain([self.uplink.timeout(self.now)]).min().unwrap_or(Timestamp::FAR_FUTURE);
        Output::Timeout(at)
    }

    /// A look at a swarm.
    pub fn stats(&self, id: &SwarmId) -> Option<SwarmStats> {
        self.place(id).map(|at| self.swarms[at].swarm.stats())
    }

    fn dispatch(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Tick => {}
            Input::UnixTime(unix_us) => {
                self.unix_offset_us = unix_us.wrapping_sub(now.as_micros()) as i64;
                let offset = self.unix_offset_us;
                self.swarms_mut().for_each(|swarm| swarm.set_unix_offset(offset));
            }
            Input::Open(config) => self.open(now, *config),
            Input::Leave(id) => {
                if let Some(at) = self.place(&id) {
                    self.swarms[at].swarm.leave();
                    self.drain(now, at);
                    self.swarms.remove(at);
                    self.uplink.forget(&id);
                    if self.left.len() == SWARMS_MAX {
                        self.left.pop_front();
                    }
                    self.left.push_back((id, now));
                }
            }
            Input::Candidates(id, mut candidates) => {
                // Who is connected already is where it is.
                for candidate in candidates.iter_mut().filter(|candidate| candidate.addrs.is_empty()) {
                    let connection = self.connections.get(&candidate.peer);
                    candidate.addrs.extend(connection.and_then(|connection| connection.connected.addr));
                }
                self.with(&id, |swarm| swarm.candidates(now, candidates));
            }
            Input::Broadcast(id, certificate, note) => self.with(&id, |swarm| {
                swarm.offer_certificate(now, certificate);
                if let Some(note) = note {
                    swarm.offer_note(now, note);
                }
                swarm.frame_done(now);
            }),
            Input::Publish(id, chunks) => self.with(&id, |swarm| swarm.publish(now, chunks)),
            Input::PublishNote(note) => self.with(&note.swarm(), |swarm| swarm.offer_note(now, note)),
            Input::Playout(id, playout) => self.with(&id, |swarm| swarm.set_playout(now, playout)),
            Input::Upload(id, so) => self.with(&id, |swarm| swarm.set_upload(now, so)),
            Input::ServedAlone(id, so) => self.with(&id, |swarm| swarm.set_served_alone(now, so)),
            Input::Edge(channel, share) => self.set_edge(now, channel, share),
            Input::Trace(id, tracing) => self.with(&id, |swarm| swarm.set_tracing(now, tracing)),
            Input::Fetched(id, part) => self.fetched(now, &id, part),
            Input::Connected(connected) => self.connected(now, connected),
            Input::DialFailed(peer) => {
                self.swarms_mut().for_each(|swarm| swarm.dial_failed(now, peer));
            }
            Input::Disconnected(peer) => self.disconnected(now, peer),
            Input::Path(peer, rtt) => {
                if self.connections.contains_key(&peer) {
                    let least = self.uplink.connected(now, peer, rtt);
                    self.swarms_mut().for_each(|swarm| swarm.path(&peer, rtt, least));
                }
            }
            Input::Control(peer, frame) => self.control(now, peer, frame),
            Input::ChunkStream(peer, stream) => self.chunk_stream(now, peer, ChunkHead::decode(stream)),
            Input::ChunkParts(peer, head, body) => {
                self.chunk_stream(now, peer, ChunkHead::decode_parts(head, body));
            }
            Input::Violation(peer, reason) => self.violation(now, peer, reason),
            Input::ChunkDone(peer, token, outcome) => {
                let done = self.uplink.ended(now, &peer, token, outcome == ChunkOutcome::Delivered);
                self.tell(done);
            }
        }
    }

    fn with(&mut self, id: &SwarmId, f: impl FnOnce(&mut Swarm)) {
        if let Some(at) = self.place(id) {
            f(&mut self.swarms[at].swarm);
        }
    }

    /// The channel's swarms may have holes filled from an edge, with one account for all of them.
    fn set_edge(&mut self, now: Timestamp, channel: ChannelId, share_percent: u32) {
        let of_channel = self.swarms.iter_mut().filter(|member| member.id.channel == channel);
        let mut rate_bps = 0;
        for member in of_channel {
            member.swarm.set_edge(share_percent > 0);
            rate_bps = member.swarm.rate_bps().max(rate_bps);
        }
        if self.urgent(&channel).is_none() {
            if self.urgent.len() == SWARMS_MAX {
                self.urgent.pop_front();
            }
            self.urgent.push_back((channel, Urgent::default()));
        }
        if let Some(urgent) = self.urgent(&channel) {
            urgent.set_share(now, share_percent, rate_bps);
        }
    }

    fn urgent(&mut self, channel: &ChannelId) -> Option<&mut Urgent> {
        self.urgent.iter_mut().find(|(of, _)| of == channel).map(|(_, urgent)| urgent)
    }

    fn fetched(&mut self, now: Timestamp, id: &SwarmId, fetched: FetchedPart) {
        let is_nothing = fetched.chunks.is_empty();
        let urgent = self.urgent(&id.channel);
        // Also what came for a swarm that was left since is paid for.
        if urgent.is_some_and(|urgent| urgent.done(now, fetched.part, fetched.bytes, is_nothing)) {
            self.with(id, |swarm| swarm.fetched(now, fetched));
        }
    }

    fn place(&self, id: &SwarmId) -> Option<usize> {
        self.swarms.iter().position(|member| member.id == *id)
    }

    fn swarms_mut(&mut self) -> impl Iterator<Item = &mut Swarm> {
        self.swarms.iter_mut().map(|member| &mut *member.swarm)
    }

    fn open(&mut self, now: Timestamp, config: crate::swarm::SwarmConfig) {
        let id = config.swarm_id();
        let mut round = (0..SWARMS_MAX as u8).map(|n| (self.next_handle + n) % SWARMS_MAX as u8);
        let free = round.find(|handle| self.swarms.iter().all(|member| member.handle != *handle));
        let Some(handle) = free.filter(|_| self.place(&id).is_none()) else { return };
        self.next_handle = (handle + 1) % SWARMS_MAX as u8;
        let mut swarm = Box::new(Swarm::new(now, config, self.config.local, handle, self.rng.u64(..)));
        swarm.set_unix_offset(self.unix_offset_us);
        swarm.set_edge(self.urgent(&id.channel).is_some_and(|urgent| urgent.is_on()));
        if let Some((_, left_at)) = self.left.iter().rev().find(|(left, _)| *left == id) {
            swarm.was_left(*left_at);
        }
        self.swarms.push(Member { id, handle, swarm });
        // Who left one rendition for another has nothing to give in the first: what is still to be sent there would only delay this one.
        for (peer, token) in self.uplink.under_way_outside(|id| self.swarms.iter().any(|m| m.id == *id)) {
            self.transmit(Transmit::Reset { peer, token });
        }
    }

    fn connected(&mut self, now: Timestamp, connected: Connected) {
        let peer = connected.peer;
        // A peer that restarted is back before its old connection has ended.
        self.disconnected(now, peer);
        if self.connections.len() >= CONNECTIONS_MAX {
            self.transmit(Transmit::Disconnect { peer, code: CloseCode::Full });
            return;
        }
        self.connections.insert(peer, Connection::new(now, connected));
        self.uplink.connected(now, peer, connected.rtt);
        for swarm in self.swarms_mut() {
            // A channel is named first by the one who knows that the other watches it.
            if swarm.knows(&peer) {
                swarm.connected(now, &connected);
            }
        }
    }

    fn disconnected(&mut self, now: Timestamp, peer: PeerId) {
        if self.connections.remove(&peer).is_some() {
            for done in self.uplink.disconnected(&peer) {
                self.tell(Some(done));
            }
        }
        self.swarms_mut().for_each(|swarm| swarm.disconnected(now, peer));
    }

    fn control(&mut self, now: Timestamp, peer: PeerId, frame: Bytes) {
        let Ok(messages) = Messages::open(frame) else {
            self.violation(now, peer, "it sent an empty or endless frame");
            return;
        };
        let handle = messages.handle;
        let mut touched = None;
        for message in messages {
            let Some(connection) = self.connections.get_mut(&peer) else { return };
            if !connection.hear_message(now) {
                self.violation(now, peer, "it floods this node with control messages");
                return;
            }
            match message {
                Ok(Message::Handshake(handshake)) => {
                    let id = SwarmId { channel: handshake.channel, rendition: handshake.rendition };
                    let Some(at) = self.place(&id) else { continue };
                    let Some(connection) = self.connections.get_mut(&peer) else { return };
                    if !connection.introduce(handle, id) {
                        continue;
                    }
                    let swarm = &mut self.swarms[at].swarm;
                    if !swarm.is_neighbour(&peer) {
                        swarm.connected(now, &connection.connected);
                    }
                    swarm.message(now, peer, Message::Handshake(handshake));
                    touched = Some(id);
                }
                Ok(message) => {
                    let Some(id) = connection.swarm(handle) else { continue };
                    self.with(&id, |swarm| swarm.message(now, peer, message));
                    touched = Some(id);
                }
                Err(error) => {
                    self.violation(now, peer, &error.to_string());
                    return;
                }
            }
        }
        if let Some(id) = touched {
            self.with(&id, |swarm| swarm.frame_done(now));
        }
    }

    fn chunk_stream(&mut self, now: Timestamp, peer: PeerId, read: Result<(ChunkHead, Chunk), WireError>) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        match read {
            Ok((head, chunk)) => {
                if let Some(id) = connection.swarm(head.handle) {
                    self.with(&id, |swarm| swarm.chunk(now, peer, &head, chunk));
                } else if connection.strayed() {
                    self.violation(now, peer, "it sends chunks on handles that it did not introduce");
                }
            }
            Err(error) => self.violation(now, peer, &error.to_string()),
        }
    }

    /// The peer broke the protocol: it goes, in every swarm.
    fn violation(&mut self, now: Timestamp, peer: PeerId, reason: &str) {
        if self.connections.contains_key(&peer) {
            for swarm in self.swarms_mut() {
                swarm.ban(peer);
            }
            self.close(now, peer, CloseCode::Violation);
            self.out.push_back(Output::Event(Event::Dropped {
                channel: None,
                peer,
                reason: reason.to_string(),
            }));
        }
    }

    fn close(&mut self, now: Timestamp, peer: PeerId, code: CloseCode) {
        if self.connections.contains_key(&peer) {
            self.disconnected(now, peer);
            self.transmit(Transmit::Disconnect { peer, code });
        }
    }

    /// Closes connections that no swarm uses.
    fn sweep(&mut self, now: Timestamp) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + Duration::from_secs(1);
        let mut unused = Vec::new();
        for (peer, connection) in self.connections.iter_mut() {
            if self.swarms.iter().any(|member| member.swarm.is_neighbour(peer)) {
                connection.used = now;
            } else if now.since(connection.used) > UNUSED_FOR {
                unused.push(*peer);
            }
        }
        for peer in unused {
            self.close(now, peer, CloseCode::Done);
        }
    }

    /// Moves what swarms want into the uplink, and what the uplink releases out.
    fn pump(&mut self, now: Timestamp) {
        for at in 0..self.swarms.len() {
            self.drain(now, at);
        }
        for done in self.uplink.expire(now) {
            self.tell(Some(done));
        }
        while let Some(release) = self.uplink.release(now) {
            let Some(at) = self.place(&release.swarm) else { continue };
            if release.offer.chunk.header().flags.has(Flags::TRACED) {
                self.swarms[at].swarm.note_forward(now, &release.offer);
            }
            let unknown = u64::from(LAG_UNKNOWN_MS);
            let lag_ms = release.hops_us.map_or(unknown, |us| (us / 1000).min(unknown - 1)) as u16;
            let head =
                ChunkHead { handle: self.swarms[at].handle, requested: release.offer.requested, lag_ms };
            self.transmit(Transmit::Chunk {
                peer: release.offer.peer,
                token: release.token,
                priority: if release.offer.requested { 1 } else { 0 },
                head: head.encode(),
                body: release.offer.chunk.encoded().clone(),
            });
        }
    }

    /// Carries out what the swarm at `at` wants.
    fn drain(&mut self, now: Timestamp, at: usize) {
        let id = self.swarms[at].id;
        while let Some(output) = self.swarms[at].swarm.poll() {
            let swarm = &mut self.swarms[at].swarm;
            match output {
                SwarmOutput::Connect(peer, addrs) => {
                    match self.connections.get(&peer) {
                        Some(connection) => swarm.connected(now, &connection.connected),
                        None => self.transmit(Transmit::Connect { peer, addrs }),
                    };
                }
                SwarmOutput::Disconnect(peer, code) => {
                    let others = self.swarms.iter().filter(|member| member.id != id);
                    let shared = others.map(|member| &member.swarm).any(|other| other.is_neighbour(&peer));
                    if !shared || code == CloseCode::Misbehaviour {
                        self.close(now, peer, code);
                    } else {
                        // Another swarm keeps the connection: the peer is to know that it is no neighbour in this one.
                        let mut farewell = FrameWriter::new(self.swarms[at].handle);
                        let first = farewell.push(&Message::Bye);
                        for bytes in first.into_iter().chain(farewell.finish()) {
                            self.transmit(Transmit::Control { peer, bytes });
                        }
                    }
                }
                SwarmOutput::Control(peer, bytes) => self.transmit(Transmit::Control { peer, bytes }),
                SwarmOutput::Offer(offer) => {
                    if let Some(done) = self.uplink.offer(id, offer) {
                        swarm.offer_done(&done);
                    }
                }
                SwarmOutput::Withdraw(peer, number) => {
                    let (done, token) = self.uplink.withdraw(&id, &peer, number);
                    if let Some(done) = done {
                        swarm.offer_done(&done);
                    }
                    if let Some(token) = token {
                        self.transmit(Transmit::Reset { peer, token });
                    }
                }
                SwarmOutput::WithdrawPushes(peer, s) => {
                    let count = u64::from(swarm.substream_count()).max(1);
                    self.uplink.withdraw_pushes(&id, &peer, |number| number % count == u64::from(s));
                }
                SwarmOutput::WithdrawAll(peer) => {
                    for done in self.uplink.withdraw_all(&id, &peer) {
                        swarm.offer_done(&done);
                    }
                }
                SwarmOutput::Left(peer) => {
                    for done in self.uplink.withdraw_all(&id, &peer) {
                        swarm.offer_done(&done);
                    }
                    for token in self.uplink.under_way(&id, &peer) {
                        self.transmit(Transmit::Reset { peer, token });
                    }
                }
                SwarmOutput::Urgent(hole) => {
                    let rate_bps = swarm.rate_bps();
                    let urgent = self.urgent(&id.channel);
                    if urgent
                        .is_some_and(|urgent| urgent.admits(now, rate_bps, hole.part, hole.due, hole.since))
                    {
                        let fetch = Event::FetchPart(id, hole.part, part_len_max(rate_bps));
                        self.out.push_back(Output::Event(fetch));
                    }
                }
                SwarmOutput::Event(event) => self.out.push_back(Output::Event(event)),
            }
        }
    }

    fn tell(&mut self, done: Option<Done>) {
        if let Some(done) = done {
            self.with(&done.swarm, |swarm| swarm.offer_done(&done));
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        self.out.push_back(Output::Transmit(transmit));
    }
}
