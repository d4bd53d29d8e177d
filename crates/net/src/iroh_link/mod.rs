//! The network over QUIC: nodes are dialled by public key, one connection per peer.
//!
//! On a connection, control frames travel on one bidirectional stream, which the dialler opens; each side's first
//! byte on it is [`PREFACE`]. Each chunk travels on a unidirectional stream of its own. See `docs/protocol.md`.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | addresses, timeouts, and the one place where QUIC is tuned |
//! | `table` | which connection to a peer counts, when both sides dial or one comes back |
//! | `handshake` | dialling and accepting |
//! | `connection` | one connection's control stream and end |
//! | `chunk` | one chunk's stream, out or in |
//!
//! Tasks: one that accepts, three per connection (control out, control in, chunks in), one per chunk under way. No
//! timer of ours runs per connection.

mod chunk;
pub mod config;
mod congestion;
mod connection;
mod handshake;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use caudal_proto::id::PeerId;
use caudal_proto::io::{ChunkOutcome, ChunkToken, CloseCode, Connected, Input, Transmit};
use iroh::endpoint::Connection;
use iroh::{Endpoint, EndpointId, RelayUrl};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::error::NetError;
use crate::link::{CHUNKS_OUT_MAX, CONTROL_OUT_BYTES_MAX, Link, PATH_EVERY, rtt_is_news};

pub use config::IrohConfig;

/// Connections that others dialled, at most; further ones are refused.
pub const ACCEPTED_MAX: usize = 64;
/// Connections that this node dialled or is dialling, at most; a further dial fails at once.
pub const DIALLED_MAX: usize = 64;
/// Incoming handshakes under way, at most; further ones are refused.
pub const HANDSHAKES_MAX: usize = 32;
/// From this many incoming handshakes on, a dialler must first prove its address (RFC 9000 §8.1).
pub const HANDSHAKES_UNVALIDATED_MAX: usize = 8;
/// Of [`HANDSHAKES_MAX`], those that one host may have under way.
pub const HANDSHAKES_PER_HOST_MAX: usize = 12;
/// Chunk streams of one peer that are open, or whole and not yet taken by the engine.
pub const CHUNKS_IN_MAX: usize = 32;
/// Control frames of one peer that the engine has not taken yet.
pub const FRAMES_IN_MAX: usize = 64;
/// Each side's first byte on the control stream.
pub const PREFACE: u8 = b'c';
/// The application error code that closes the superfluous one of two connections; beside proto's close codes.
pub const CLOSE_DUPLICATE: u32 = 16;
/// When disconnecting, what was written to the control stream may take this long to arrive.
pub const DISCONNECT_FLUSH_MAX: Duration = Duration::from_millis(200);

/// What connections say to the link. Unbounded as a channel, bounded by what each message holds: a connection's slot,
/// a chunk's or a frame's share of its peer's limit; and one message per chunk sent, connection or violation.
struct Envelope {
    peer: PeerId,
    connection: u64,
    news: News,
    /// Freed when the engine takes the message.
    _share: Option<OwnedSemaphorePermit>,
}

enum News {
    Connected(Connected, Peer),
    DialFailed,
    Disconnected,
    Input(Input),
}

/// A connection as the link holds it, from when the engine hears of it.
struct Peer {
    id: u64,
    connection: Connection,
    commands: mpsc::UnboundedSender<Command>,
    /// Control bytes handed over and not yet written.
    control_out: Arc<AtomicUsize>,
    /// Chunks that are not done, with the means to reset them.
    chunks: BTreeMap<ChunkToken, Option<oneshot::Sender<()>>>,
    rtt_told: Duration,
    violated: bool,
}

/// For a connection's control task.
enum Command {
    Control(Bytes),
    Close(CloseCode),
}

/// What tasks share.
struct Shared {
    endpoint: Endpoint,
    local: PeerId,
    relay: Option<RelayUrl>,
    dial_timeout: Duration,
    idle_timeout: Duration,
    control: config::Control,
    table: Mutex<table::Table>,
    news: mpsc::UnboundedSender<Envelope>,
    accepted: Arc<Semaphore>,
    dialled: Arc<Semaphore>,
    /// Held by every connection's control task until it has said goodbye.
    farewell: Mutex<Option<mpsc::Sender<()>>>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, table::Table> {
        // The table is whole between statements; a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, peer: PeerId, connection: u64, news: News, share: Option<OwnedSemaphorePermit>) {
        // Without a receiver the link is gone, and so is everyone who could care.
        let _ = self.news.send(Envelope { peer, connection, news, _share: share });
    }
}

/// A node's network over QUIC.
pub struct IrohLink {
    shared: Arc<Shared>,
    news: mpsc::UnboundedReceiver<Envelope>,
    batch: Vec<Envelope>,
    ready: VecDeque<Input>,
    peers: BTreeMap<PeerId, Peer>,
    paths_told: Instant,
    farewell: mpsc::Receiver<()>,
    accepting: AbortHandle,
}

impl std::fmt::Debug for IrohLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IrohLink").field("local", &self.shared.local).finish_non_exhaustive()
    }
}

impl IrohLink {
    /// Opens the sockets and begins to accept. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Bind`], [`NetError::SameFamily`] or [`NetError::Relay`].
    pub async fn bind(config: IrohConfig) -> Result<Self, NetError> {
        let relay = config.relay_url()?;
        let endpoint = config::bind(&config, relay.as_ref()).await?;
        let (news_in, news) = mpsc::unbounded_channel();
        let (farewell_in, farewell) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            local: PeerId(*endpoint.id().as_bytes()),
            relay,
            dial_timeout: config.dial_timeout,
            idle_timeout: config.idle_timeout,
            control: config.control,
            table: Mutex::default(),
            news: news_in,
            accepted: Arc::new(Semaphore::new(ACCEPTED_MAX)),
            dialled: Arc::new(Semaphore::new(DIALLED_MAX)),
            farewell: Mutex::new(Some(farewell_in)),
            endpoint,
        });
        let accepting = tokio::spawn(handshake::accept(Arc::clone(&shared))).abort_handle();
        Ok(Self {
            shared,
            news,
            batch: Vec::new(),
            ready: VecDeque::new(),
            peers: BTreeMap::new(),
            paths_told: Instant::now(),
            farewell,
            accepting,
        })
    }

    /// The connection to a peer, for measurements.
    pub fn connection(&self, peer: PeerId) -> Option<&Connection> {
        self.peers.get(&peer).map(|peer| &peer.connection)
    }

    /// Messages from connections that the driver has not taken yet.
    pub fn queued(&self) -> usize {
        self.news.len() + self.ready.len()
    }

    fn send_control(&mut self, to: PeerId, bytes: Bytes) {
        let Some(peer) = self.peers.get(&to) else { return };
        let queued = peer.control_out.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        if queued > CONTROL_OUT_BYTES_MAX {
            self.disconnect(to, CloseCode::Silent);
        } else {
            // When the task has ended, so has the connection, and the news of it is on its way.
            let _ = peer.commands.send(Command::Control(bytes));
        }
    }

    fn send_chunk(&mut self, to: PeerId, token: ChunkToken, priority: i32, head: Bytes, body: Bytes) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if peer.chunks.len() >= CHUNKS_OUT_MAX {
            self.ready.push_back(Input::ChunkDone(to, token, ChunkOutcome::Dropped));
            return;
        }
        let (reset, on_reset) = oneshot::channel();
        peer.chunks.insert(token, Some(reset));
        let (shared, connection, id) = (Arc::clone(&self.shared), peer.connection.clone(), peer.id);
        tokio::spawn(async move {
            let outcome = chunk::send(&connection, priority, [head, body], on_reset).await;
            shared.send(to, id, News::Input(Input::ChunkDone(to, token, outcome)), None);
        });
    }

    fn reset(&mut self, to: PeerId, token: ChunkToken) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if let Some(reset) = peer.chunks.get_mut(&token).and_then(Option::take) {
            // An error means that the chunk is done, and the news of it is on its way.
            let _ = reset.send(());
        }
    }

    fn disconnect(&mut self, peer: PeerId, code: CloseCode) {
        self.peers.remove(&peer);
        self.shared.disconnect(peer, code);
    }

    /// Makes an input of a message, unless it belongs to a connection that the engine has done with.
    fn take(&mut self, envelope: Envelope) -> Option<Input> {
        let Envelope { peer, connection, news, _share } = envelope;
        match news {
            News::Connected(connected, state) => {
                self.peers.insert(peer, state);
                Some(Input::Connected(connected))
            }
            News::Disconnected => {
                if self.peers.get(&peer).is_some_and(|known| known.id == connection) {
                    self.peers.remove(&peer);
                }
                Some(Input::Disconnected(peer))
            }
            News::DialFailed => Some(Input::DialFailed(peer)),
            News::Input(input) => {
                let known = self.peers.get_mut(&peer).filter(|known| known.id == connection)?;
                match &input {
                    Input::ChunkDone(_, token, _) => _ = known.chunks.remove(token),
                    // One violation is enough: what follows it, a second one included, is not worth reading.
                    _ if known.violated => return None,
                    Input::Violation(..) => known.violated = true,
                    _ => {}
                }
                Some(input)
            }
        }
    }

    /// Round-trip times that changed, once in a while, when something else woke the driver anyway.
    fn tell_paths(&mut self, into: &mut Vec<Input>) {
        let now = Instant::now();
        if now.saturating_duration_since(self.paths_told) < PATH_EVERY {
            return;
        }
        self.paths_told = now;
        for (&id, peer) in &mut self.peers {
            let Some(rtt) = connection::rtt(&peer.connection) else { continue };
            if rtt_is_news(peer.rtt_told, rtt) {
                peer.rtt_told = rtt;
                into.push(Input::Path(id, rtt));
            }
        }
    }
}

impl Link for IrohLink {
    fn local(&self) -> PeerId {
        self.shared.local
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        config::local_addrs(&self.shared.endpoint)
    }

    fn execute(&mut self, transmit: Transmit) {
        match transmit {
            Transmit::Connect { peer, addrs } => self.shared.dial(peer, &addrs),
            Transmit::Disconnect { peer, code } => self.disconnect(peer, code),
            Transmit::Control { peer, bytes } => self.send_control(peer, bytes),
            Transmit::Chunk { peer, token, priority, head, body } => {
                self.send_chunk(peer, token, priority, head, body);
            }
            Transmit::Reset { peer, token } => self.reset(peer, token),
        }
    }

    async fn inputs(&mut self, into: &mut Vec<Input>, max: usize) {
        loop {
            into.extend(self.ready.drain(..));
            if !into.is_empty() {
                return;
            }
            // Nothing is awaited after this line before what it received is handed over: that is what makes it
            // cancel-safe.
            self.news.recv_many(&mut self.batch, max).await;
            let mut batch = std::mem::take(&mut self.batch);
            into.extend(batch.drain(..).filter_map(|envelope| self.take(envelope)));
            self.batch = batch;
            self.tell_paths(into);
            if !into.is_empty() {
                return;
            }
        }
    }

    async fn close(&mut self) {
        self.accepting.abort();
        self.peers.clear();
        self.shared.leave();
        // Returns when every control task has let go of its sender.
        let _ = timeout(DISCONNECT_FLUSH_MAX, self.farewell.recv()).await;
        self.shared.endpoint.close().await;
    }
}

impl Drop for IrohLink {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.leave();
    }
}

fn peer_id(id: EndpointId) -> PeerId {
    PeerId(*id.as_bytes())
}
