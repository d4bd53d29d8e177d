//! What goes into the [`Engine`](crate::engine::Engine) and what comes out: the whole contract with a driver.
//!
//! A driver owns sockets and clocks and decides nothing. It hands every [`Input`] in with the time, then drains
//! `poll_output` until it yields [`Output::Timeout`], and comes back at that time or with the next input.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use crate::broadcast::{Certificate, LiveNote};
use crate::chunk::VerifiedChunk;
use crate::hop::{Hop, Tracing};
use crate::hybrid::part::PartId;
use crate::id::{ChannelId, PeerId, SwarmId};
use crate::swarm::{SwarmConfig, SwarmStats};
use crate::time::Timestamp;

/// Most candidates in one [`Input::Candidates`]; the rest is ignored.
pub const CANDIDATES_PER_INPUT_MAX: usize = 64;

/// Something happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Nothing but time.
    Tick,
    /// The wall clock, µs since the Unix epoch: handed in first, and again when it may have jumped.
    UnixTime(u64),
    /// Take part in a channel's swarm.
    Open(Box<SwarmConfig>),
    /// Leave a channel's swarm.
    Leave(SwarmId),
    /// Peers that may be dialled, from a tracker or the user.
    Candidates(SwarmId, Vec<Candidate>),
    /// The broadcast certificate and live note that a tracker holds; checked here.
    Broadcast(SwarmId, Certificate, Option<LiveNote>),
    /// Chunks that this node signed (the source).
    Publish(SwarmId, Vec<VerifiedChunk>),
    /// A live note that this node signed (the source).
    PublishNote(LiveNote),
    /// What the player holds.
    Playout(SwarmId, Playout),
    /// An edge is known from which holes in any rendition of the channel may be filled, with at most this share of the stream's rate
    /// for all of them, percent; 0: none is. See [`Event::FetchPart`].
    Edge(ChannelId, u32),
    /// The channel's source feeds everybody itself: a viewer meets no other, and leaves those that it has met; false: as usual.
    ServedAlone(SwarmId, bool),
    /// Whether this viewer sends to others from now on: a line may become one that is paid by the byte.
    Upload(SwarmId, bool),
    /// Whether this node reports hops of traced chunks, and whether it wants those of others.
    Trace(SwarmId, Tracing),
    /// How fetching a part ended.
    Fetched(SwarmId, FetchedPart),
    /// A connection stands, dialled by either side; control and chunks may flow.
    Connected(Connected),
    /// A dial failed, or was refused.
    DialFailed(PeerId),
    /// A connection is gone.
    Disconnected(PeerId),
    /// The round-trip time of a connection, told about once a second.
    Path(PeerId, Duration),
    /// A whole control frame (without its length).
    Control(PeerId, Bytes),
    /// A whole chunk stream, from its first byte to its FIN.
    ChunkStream(PeerId, Bytes),
    /// The same in two pieces, head and body: what a driver has that carries within one process, so that a body is
    /// shared and not copied.
    ChunkParts(PeerId, Bytes, Bytes),
    /// The peer broke the rules below messages: an endless stream, a frame too long, too many streams.
    Violation(PeerId, &'static str),
    /// What became of a [`Transmit::Chunk`]: every one of them ends in one of these or in [`Input::Disconnected`].
    ChunkDone(PeerId, ChunkToken, ChunkOutcome),
}

/// A peer that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id, which is also the key that the transport checks.
    pub peer: PeerId,
    /// Where it may be reached; may be empty when the transport can find it otherwise.
    pub addrs: Vec<SocketAddr>,
    /// The tracker says that it publishes the channel.
    pub source: bool,
    /// An opaque cost of reaching it (ALTO, later); lower is nearer, 0 = unknown.
    pub cost: u32,
}

/// A new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// Who, as the transport's handshake proved.
    pub peer: PeerId,
    /// The remote address, when the path is direct.
    pub addr: Option<SocketAddr>,
    /// Round-trip time of the handshake.
    pub rtt: Duration,
    /// This node dialled.
    pub dialled: bool,
}

/// What the player holds: the only thing that flows back from playout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Playout {
    /// Media ready to play, ms.
    pub buffer_ms: u32,
    /// The first chunk that playing still needs.
    pub next_number: u64,
}

/// A part that the node was to fetch over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPart {
    /// Which.
    pub part: PartId,
    /// Its chunks; none when it could not be had, or not all of them were genuine.
    pub chunks: Vec<VerifiedChunk>,
    /// What came, of use or not, bytes.
    pub bytes: u64,
}

/// Names a released chunk towards the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkToken(pub u64);

/// What became of a released chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkOutcome {
    /// The peer acknowledged all of it.
    Delivered,
    /// It was reset, or the peer stopped it.
    Dropped,
}

/// Something for the driver to do or to tell.
#[derive(Debug)]
pub enum Output {
    /// For the network.
    Transmit(Transmit),
    /// For the node.
    Event(Event),
    /// Nothing more now: call again at this time at the latest.
    Timeout(Timestamp),
}

/// For the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// Dial; answer with [`Input::Connected`] or [`Input::DialFailed`].
    Connect {
        /// Whom.
        peer: PeerId,
        /// Where.
        addrs: Vec<SocketAddr>,
    },
    /// Close the connection.
    Disconnect {
        /// To whom.
        peer: PeerId,
        /// Why; told to the peer.
        code: CloseCode,
    },
    /// Bytes for the control stream, in order.
    Control {
        /// To whom.
        peer: PeerId,
        /// One or more frames with their lengths.
        bytes: Bytes,
    },
    /// One chunk on a unidirectional stream of its own: head, body, FIN.
    Chunk {
        /// To whom.
        peer: PeerId,
        /// How the driver speaks of it.
        token: ChunkToken,
        /// Among the streams of this connection: higher goes first.
        priority: i32,
        /// The stream's first bytes.
        head: Bytes,
        /// The rest.
        body: Bytes,
    },
    /// Reset a chunk's stream: its deadline has passed.
    Reset {
        /// To whom.
        peer: PeerId,
        /// Which.
        token: ChunkToken,
    },
}

/// Why a connection is closed; the QUIC application error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing in common any more.
    Done = 0,
    /// Too many neighbours.
    Full = 1,
    /// The peer broke the protocol.
    Violation = 2,
    /// The peer sent what its channel did not sign, or claims or replays falsely.
    Misbehaviour = 3,
    /// The peer no longer answers.
    Silent = 4,
}

/// For the node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A chunk arrived and is genuine. Since the last [`Event::Joined`] chunks come once each, in any order, none older than
    /// where that began.
    Chunk(SwarmId, VerifiedChunk),
    /// Joining chose where to start: the first chunk of this part, in this epoch. Also on a new broadcast of the channel,
    /// and when a newer segment is the better start. Forget what came before: all that is held from there on comes (again).
    Joined {
        /// In which swarm.
        swarm: SwarmId,
        /// The broadcast.
        epoch: u64,
        /// The first chunk that will be delivered.
        number: u64,
    },
    /// A player is about to miss this part: fetch it over HTTP, of at most so many bytes, and answer with [`Input::Fetched`] whatever
    /// becomes of it.
    FetchPart(SwarmId, PartId, usize),
    /// These chunks left the discard window without arriving: playing must step over them.
    Missed(SwarmId, core::ops::Range<u64>),
    /// The broadcaster ended the broadcast.
    Ended(SwarmId, u64),
    /// The newest genuine live note, for the tracker and the page.
    Note(LiveNote),
    /// A newer certificate was accepted.
    Certificate(Certificate),
    /// A peer was dropped for what it did.
    Dropped {
        /// The channel, where one is concerned.
        channel: Option<ChannelId>,
        /// Who.
        peer: PeerId,
        /// What it did, in words.
        reason: String,
    },
    /// A neighbour came.
    NeighbourUp(SwarmId, PeerId),
    /// A neighbour went.
    NeighbourDown(SwarmId, PeerId),
    /// A hop of a traced chunk, for whoever wanted it ([`Tracing::wants`]). Its signature is not checked: who shows it does that.
    Hop(SwarmId, Box<Hop>),
    /// More candidates are needed: ask the tracker.
    NeedPeers(SwarmId),
}

/// A look at a swarm for reports; see [`SwarmStats`].
pub type Stats = SwarmStats;
