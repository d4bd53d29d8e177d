//! A network inside one process: a [`Hub`] carries what its [`MemoryLink`]s send after a delay that can be set.
//!
//! It keeps the promises of [`link`](crate::link) without sockets, tasks or cryptography, on tokio's clock, so that a
//! test with paused time runs in no time. It loses nothing, and never reorders between two links.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caudal_proto::id::PeerId;
use caudal_proto::io::{ChunkOutcome, ChunkToken, Connected, Input, Transmit};
use caudal_proto::wire::{CHUNK_STREAM_LEN_MAX, FrameReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::link::{CHUNKS_OUT_MAX, CONTROL_OUT_BYTES_MAX, Link};

/// Unless set otherwise, a dial that nobody answers fails after this long.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Unless set otherwise, a peer that vanishes is missed after this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The network between memory links. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct Hub(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    delay: Duration,
    dial_timeout: Duration,
    idle_timeout: Duration,
    /// Orders what arrives at the same moment, and names connections.
    sequence: u64,
    nodes: BTreeMap<PeerId, Node>,
    /// The connection between two peers, the smaller first.
    connections: BTreeMap<(PeerId, PeerId), u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            dial_timeout: DIAL_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            sequence: 0,
            nodes: BTreeMap::new(),
            connections: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
struct Node {
    addr: SocketAddr,
    /// Bounded by the limits of those who send: [`CHUNKS_OUT_MAX`] and [`CONTROL_OUT_BYTES_MAX`] per connection.
    sender: mpsc::UnboundedSender<Arrival>,
}

/// What reaches a link, and when.
#[derive(Debug)]
struct Arrival {
    at: Instant,
    sequence: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Dial { from: PeerId, addrs: Vec<SocketAddr>, give_up: Instant },
    DialTimeout(PeerId),
    Connected(u64, Connected),
    Disconnected(u64, PeerId),
    Control(u64, PeerId, Bytes),
    ControlTaken(u64, PeerId, usize),
    Chunk(u64, PeerId, ChunkToken, Bytes),
    ChunkDone(u64, PeerId, ChunkToken, ChunkOutcome),
    Reset(u64, PeerId, ChunkToken),
}

impl Hub {
    /// A network without delay.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long everything travels one way, from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Sets after how long a vain dial fails and a vanished peer is missed.
    pub fn set_timeouts(&self, dial: Duration, idle: Duration) {
        let mut state = self.state();
        state.dial_timeout = dial;
        state.idle_timeout = idle;
    }

    /// A link of a new node, under an address of its own on 127.0.0.1 that nothing listens on.
    pub fn link(&self, local: PeerId) -> MemoryLink {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        state.sequence += 1;
        let port = 1 + u16::try_from(state.sequence % 60_000).unwrap_or_default();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        state.nodes.insert(local, Node { addr, sender });
        drop(state);
        MemoryLink {
            hub: self.clone(),
            local,
            addr,
            receiver,
            arriving: BTreeMap::new(),
            ready: Vec::new(),
            peers: BTreeMap::new(),
            dialling: BTreeMap::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic of another test thread does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self, to: PeerId, after: Duration, what: What) {
        self.sequence += 1;
        if let Some(node) = self.nodes.get(&to) {
            let arrival = Arrival { at: Instant::now() + after, sequence: self.sequence, what };
            // A link that was dropped between two statements hears nothing, like a process that ended.
            let _ = node.sender.send(arrival);
        }
    }
}

fn pair(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    (a.min(b), a.max(b))
}

/// One node's end of a [`Hub`]. Dropped without [`Link::close`], it vanishes without a word.
#[derive(Debug)]
pub struct MemoryLink {
    hub: Hub,
    local: PeerId,
    addr: SocketAddr,
    receiver: mpsc::UnboundedReceiver<Arrival>,
    arriving: BTreeMap<(Instant, u64), What>,
    ready: Vec<Input>,
    peers: BTreeMap<PeerId, Peer>,
    /// Until when a dial may be answered.
    dialling: BTreeMap<PeerId, Instant>,
}

#[derive(Debug)]
struct Peer {
    connection: u64,
    /// Chunks that were handed over and are not done; reset or not.
    chunks: BTreeMap<ChunkToken, bool>,
    control_out: usize,
    frames: FrameReader,
    violated: bool,
}

impl MemoryLink {
    fn dial(&mut self, peer: PeerId, addrs: Vec<SocketAddr>) {
        if self.peers.contains_key(&peer) || self.dialling.contains_key(&peer) {
            return;
        }
        if peer == self.local {
            self.ready.push(Input::DialFailed(peer));
            return;
        }
        let mut state = self.hub.state();
        let (delay, patience) = (state.delay, state.dial_timeout);
        let give_up = Instant::now() + patience;
        self.dialling.insert(peer, give_up);
        state.send(peer, delay, What::Dial { from: self.local, addrs, give_up });
        state.send(self.local, patience, What::DialTimeout(peer));
    }

    /// A dial arrived. Both sides' dials meet here at the latest, under the hub's lock, so that one connection stands.
    fn answer(&self, from: PeerId, addrs: &[SocketAddr], give_up: Instant) {
        let mut state = self.hub.state();
        let key = pair(self.local, from);
        let delay = state.delay;
        if !(addrs.is_empty() || addrs.contains(&self.addr))
            || state.connections.contains_key(&key)
            || give_up <= Instant::now() + delay
        {
            return;
        }
        let Some(from_addr) = state.nodes.get(&from).map(|node| node.addr) else { return };
        state.sequence += 1;
        let connection = state.sequence;
        state.connections.insert(key, connection);
        let rtt = delay * 2;
        let here = Connected { peer: from, addr: Some(from_addr), rtt, dialled: false };
        let there = Connected { peer: self.local, addr: Some(self.addr), rtt, dialled: true };
        state.send(self.local, Duration::ZERO, What::Connected(connection, here));
        state.send(from, delay, What::Connected(connection, there));
    }

    fn disconnect(&mut self, peer: PeerId) {
        if self.dialling.remove(&peer).is_some() {
            self.ready.push(Input::DialFailed(peer));
        }
        let Some(gone) = self.peers.remove(&peer) else { return };
        self.ready.push(Input::Disconnected(peer));
        let mut state = self.hub.state();
        if state.connections.get(&pair(self.local, peer)) == Some(&gone.connection) {
            state.connections.remove(&pair(self.local, peer));
        }
        let delay = state.delay;
        state.send(peer, delay, What::Disconnected(gone.connection, self.local));
    }

    fn send_control(&mut self, to: PeerId, bytes: Bytes) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.control_out += bytes.len();
        if peer.control_out > CONTROL_OUT_BYTES_MAX {
            self.disconnect(to);
            return;
        }
        let mut state = self.hub.state();
        let delay = state.delay;
        state.send(to, delay, What::Control(peer.connection, self.local, bytes));
    }

    fn send_chunk(&mut self, to: PeerId, token: ChunkToken, head: &[u8], body: &[u8]) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if peer.chunks.len() >= CHUNKS_OUT_MAX {
            self.ready.push(Input::ChunkDone(to, token, ChunkOutcome::Dropped));
            return;
        }
        peer.chunks.insert(token, false);
        let mut stream = BytesMut::with_capacity(head.len() + body.len());
        stream.extend_from_slice(head);
        stream.extend_from_slice(body);
        let mut state = self.hub.state();
        let delay = state.delay;
        state.send(to, delay, What::Chunk(peer.connection, self.local, token, stream.freeze()));
    }

    /// A reset is instantaneous: what has not arrived yet never will. (It overtakes the chunk, as a stream's reset
    /// makes the receiver forget what it holds of it.)
    fn reset(&mut self, to: PeerId, token: ChunkToken) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        let Some(reset) = peer.chunks.get_mut(&token) else { return };
        if !std::mem::replace(reset, true) {
            let connection = peer.connection;
            self.hub.state().send(to, Duration::ZERO, What::Reset(connection, self.local, token));
        }
    }

    fn arrive(&mut self, what: What) {
        match what {
            What::Dial { from, addrs, give_up } => self.answer(from, &addrs, give_up),
            What::DialTimeout(peer) => {
                if self.dialling.get(&peer).is_some_and(|&until| until <= Instant::now()) {
                    self.dialling.remove(&peer);
                    self.ready.push(Input::DialFailed(peer));
                }
            }
            What::Connected(connection, connected) => self.connected(connection, connected),
            What::Disconnected(connection, peer) => {
                if self.peer(connection, peer).is_some() {
                    self.peers.remove(&peer);
                    self.ready.push(Input::Disconnected(peer));
                }
            }
            What::Control(connection, peer, bytes) => self.read_control(connection, peer, &bytes),
            What::ControlTaken(connection, peer, len) => {
                if let Some(peer) = self.peer(connection, peer) {
                    peer.control_out -= len;
                }
            }
            What::Chunk(connection, peer, token, stream) => self.read_chunk(connection, peer, token, stream),
            What::ChunkDone(connection, from, token, outcome) => {
                if self.peer(connection, from).is_some_and(|peer| peer.chunks.remove(&token).is_some()) {
                    self.ready.push(Input::ChunkDone(from, token, outcome));
                }
            }
            What::Reset(connection, peer, token) => self.forget_chunk(connection, peer, token),
        }
    }

    fn connected(&mut self, connection: u64, connected: Connected) {
        let peer = connected.peer;
        self.dialling.remove(&peer);
        if self.hub.state().connections.get(&pair(self.local, peer)) != Some(&connection) {
            return; // It ended on its way.
        }
        let state = Peer {
            connection,
            chunks: BTreeMap::new(),
            control_out: 0,
            frames: FrameReader::default(),
            violated: false,
        };
        self.peers.insert(peer, state);
        self.ready.push(Input::Connected(connected));
    }

    fn read_control(&mut self, connection: u64, from: PeerId, bytes: &[u8]) {
        let local = self.local;
        let Some(peer) = self.peer(connection, from) else { return };
        if peer.violated {
            return;
        }
        peer.frames.extend(bytes);
        let mut inputs = Vec::new();
        loop {
            match peer.frames.next_frame() {
                Ok(Some(frame)) => inputs.push(Input::Control(from, frame)),
                Ok(None) => break,
                Err(_) => {
                    peer.violated = true;
                    inputs.push(Input::Violation(from, crate::link::VIOLATION_FRAME));
                    break;
                }
            }
        }
        self.ready.append(&mut inputs);
        let mut state = self.hub.state();
        let delay = state.delay;
        state.send(from, delay, What::ControlTaken(connection, local, bytes.len()));
    }

    fn read_chunk(&mut self, connection: u64, from: PeerId, token: ChunkToken, stream: Bytes) {
        let local = self.local;
        let Some(peer) = self.peer(connection, from) else { return };
        let outcome = if peer.violated {
            return;
        } else if stream.len() > CHUNK_STREAM_LEN_MAX {
            peer.violated = true;
            self.ready.push(Input::Violation(from, crate::link::VIOLATION_CHUNK));
            ChunkOutcome::Dropped
        } else {
            self.ready.push(Input::ChunkStream(from, stream));
            ChunkOutcome::Delivered
        };
        let mut state = self.hub.state();
        let delay = state.delay;
        state.send(from, delay, What::ChunkDone(connection, local, token, outcome));
    }

    fn forget_chunk(&mut self, connection: u64, from: PeerId, token: ChunkToken) {
        let travelling = self.arriving.iter().find_map(|(key, what)| match what {
            What::Chunk(on, by, named, _) if (*on, *by, *named) == (connection, from, token) => Some(*key),
            _ => None,
        });
        let Some(key) = travelling else { return };
        self.arriving.remove(&key);
        let local = self.local;
        let dropped = What::ChunkDone(connection, local, token, ChunkOutcome::Dropped);
        self.hub.state().send(from, Duration::ZERO, dropped);
    }

    fn peer(&mut self, connection: u64, peer: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&peer).filter(|peer| peer.connection == connection)
    }

    /// Sorts what was sent by when it arrives. A reset acts at once, on what is still travelling.
    fn sort(&mut self, arrival: Arrival) {
        if let What::Reset(..) = arrival.what {
            self.arrive(arrival.what);
        } else {
            self.arriving.insert((arrival.at, arrival.sequence), arrival.what);
        }
    }

    fn leave(&mut self, silently: bool) {
        let mut state = self.hub.state();
        let after = if silently { state.idle_timeout } else { state.delay };
        state.nodes.remove(&self.local);
        for (peer, gone) in std::mem::take(&mut self.peers) {
            state.connections.remove(&pair(self.local, peer));
            state.send(peer, after, What::Disconnected(gone.connection, self.local));
        }
    }
}

impl Link for MemoryLink {
    fn local(&self) -> PeerId {
        self.local
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![self.addr]
    }

    fn execute(&mut self, transmit: Transmit) {
        match transmit {
            Transmit::Connect { peer, addrs } => self.dial(peer, addrs),
            Transmit::Disconnect { peer, code: _ } => self.disconnect(peer),
            Transmit::Control { peer, bytes } => self.send_control(peer, bytes),
            Transmit::Chunk { peer, token, priority: _, head, body } => {
                self.send_chunk(peer, token, &head, &body);
            }
            Transmit::Reset { peer, token } => self.reset(peer, token),
        }
    }

    async fn inputs(&mut self, into: &mut Vec<Input>, max: usize) {
        loop {
            while let Ok(arrival) = self.receiver.try_recv() {
                self.sort(arrival);
            }
            let now = Instant::now();
            while into.len() + self.ready.len() < max {
                match self.arriving.first_key_value() {
                    Some((&(at, _), _)) if at <= now => {}
                    _ => break,
                }
                if let Some((_, what)) = self.arriving.pop_first() {
                    self.arrive(what);
                }
            }
            if !self.ready.is_empty() {
                into.append(&mut self.ready);
                return;
            }
            let next = self.arriving.first_key_value().map(|(&(at, _), _)| at);
            tokio::select! {
                arrival = self.receiver.recv() => match arrival {
                    Some(arrival) => self.sort(arrival),
                    None => std::future::pending().await,
                },
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
        }
    }

    async fn close(&mut self) {
        self.leave(false);
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.leave(true);
    }
}
