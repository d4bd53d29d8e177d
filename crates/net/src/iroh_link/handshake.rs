//! Dialling and accepting: from an address or a first packet to a connection whose control stream is open.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use caudal_proto::id::PeerId;
use caudal_proto::io::{CloseCode, Connected};
use caudal_proto::wire::ALPN;
use iroh::endpoint::{
    ConnectOptions, Connection, ConnectionError, Incoming, IncomingAddr, Path, PathId, ReadExactError,
    RecvStream, VarInt,
};
use iroh::{EndpointAddr, EndpointId, TransportAddr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::table::Candidate;
use super::{
    CLOSE_DUPLICATE, HANDSHAKES_MAX, HANDSHAKES_PER_HOST_MAX, HANDSHAKES_UNVALIDATED_MAX, PREFACE, Shared,
    config, connection, peer_id,
};

/// Why a handshake came to nothing. Only told in traces: to the engine it is a failed dial, or nothing at all.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no connection: {0}")]
    Connect(String),
    #[error(transparent)]
    Lost(#[from] ConnectionError),
    #[error("the control stream did not open: {0}")]
    Control(#[from] ReadExactError),
    #[error("the control stream did not open: {0}")]
    Write(#[from] iroh::endpoint::WriteError),
    #[error("the control stream does not begin with the preface")]
    Preface,
}

impl Failure {
    /// The peer closed this connection because another one between the two stands, or is about to.
    fn is_duplicate(&self) -> bool {
        use iroh::endpoint::{ReadError, WriteError};
        let lost = match self {
            Self::Lost(error)
            | Self::Control(ReadExactError::ReadError(ReadError::ConnectionLost(error)))
            | Self::Write(WriteError::ConnectionLost(error)) => error,
            _ => return false,
        };
        matches!(lost, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(CLOSE_DUPLICATE))
    }
}

impl Shared {
    /// Begins to dial; the answer comes as news.
    pub(super) fn dial(self: &Arc<Self>, peer: PeerId, addrs: &[SocketAddr]) {
        let Some(dial) = self.begin_dial(peer) else { return };
        let Ok(id) = EndpointId::from_bytes(&peer.0) else {
            self.dial_failed(peer, dial);
            return;
        };
        let ip = addrs.iter().copied().map(TransportAddr::Ip);
        let target = EndpointAddr::from_parts(id, ip.chain(self.relay.clone().map(TransportAddr::Relay)));
        let slot = Arc::clone(&self.dialled).try_acquire_owned();
        let (Ok(slot), false) = (slot, target.is_empty() || peer == self.local) else {
            self.dial_failed(peer, dial);
            return;
        };
        let shared = Arc::clone(self);
        let task = tokio::spawn(async move {
            let dialled = timeout(shared.dial_timeout, shared.dial_one(target, peer, dial, slot)).await;
            if !matches!(dialled, Ok(Ok(()))) {
                tracing::debug!(%peer, ?dialled, "dial failed");
                shared.dial_failed(peer, dial);
            }
        });
        self.dial_runs(peer, dial, task.abort_handle());
    }

    async fn dial_one(
        self: &Arc<Self>,
        target: EndpointAddr,
        peer: PeerId,
        dial: u64,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), Failure> {
        match self.dial_and_open(target, peer, dial, slot).await {
            // The other's connection is on its way to this node: it aborts this task, or the dial's timeout does.
            Err(failure) if failure.is_duplicate() => std::future::pending().await,
            other => other,
        }
    }

    async fn dial_and_open(
        self: &Arc<Self>,
        target: EndpointAddr,
        peer: PeerId,
        dial: u64,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), Failure> {
        let config = config::dialler_config(self.idle_timeout, self.control);
        let options = ConnectOptions::new().with_transport_config(config);
        let connecting = self
            .endpoint
            .connect_with_opts(target, ALPN, options)
            .await
            .map_err(|error| Failure::Connect(format!("{error:#}")))?;
        let connection = connecting.await.map_err(|error| Failure::Connect(format!("{error:#}")))?;
        if !self.dial_counts(peer, dial) {
            return Err(Failure::Connect("overtaken".into()));
        }
        let (mut send, mut recv) = connection.open_bi().await?;
        // The smaller id settles simultaneous dials, so its own needs no confirmation, and nothing is written on it
        // before the table has taken it.
        let settles = self.local < peer;
        if !settles {
            send.write_all(&[PREFACE]).await?;
            read_preface(&mut recv).await?;
        }
        let connected = Connected {
            peer,
            addr: direct_addr(&connection),
            rtt: connection::rtt(&connection).unwrap_or(config::INITIAL_RTT),
            dialled: true,
        };
        let candidate = Candidate {
            connection,
            send,
            recv,
            expects_preface: settles,
            owes_preface: settles,
            connected,
            slot,
        };
        self.admit_dialled(peer, dial, candidate);
        Ok(())
    }

    async fn accept_one(
        self: &Arc<Self>,
        incoming: Incoming,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), Failure> {
        let addr = match incoming.remote_addr() {
            IncomingAddr::Ip(addr) => Some(canonical(addr)),
            _ => None,
        };
        let connection = incoming.accept()?.await.map_err(|error| Failure::Connect(format!("{error:#}")))?;
        let peer = peer_id(connection.remote_id());
        let (send, mut recv) = connection.accept_bi().await?;
        if let Err(failure) = read_preface(&mut recv).await {
            connection.close(VarInt::from_u32(CloseCode::Violation as u32), b"preface");
            return Err(failure);
        }
        let rtt = connection.rtt(PathId::ZERO).unwrap_or(config::INITIAL_RTT);
        let candidate = Candidate {
            connection,
            send,
            recv,
            expects_preface: false,
            owes_preface: true,
            connected: Connected { peer, addr, rtt, dialled: false },
            slot,
        };
        self.admit_accepted(peer, candidate);
        Ok(())
    }
}

/// Accepts connections until the endpoint is closed.
pub(super) async fn accept(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let hosts = Hosts::default();
    while let Some(incoming) = shared.endpoint.accept().await {
        let under_way = HANDSHAKES_MAX - handshakes.available_permits();
        if under_way >= HANDSHAKES_UNVALIDATED_MAX && !incoming.remote_addr_validated() {
            if let Err(refused) = incoming.retry() {
                refused.into_incoming().refuse();
            }
            continue;
        }
        let handshake = Arc::clone(&handshakes).try_acquire_owned();
        let slot = Arc::clone(&shared.accepted).try_acquire_owned();
        let (Ok(handshake), Ok(slot)) = (handshake, slot) else {
            incoming.refuse();
            continue;
        };
        let host = hosts.enter(&incoming.remote_addr());
        let Some(host) = host else {
            incoming.refuse();
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let accepted = timeout(shared.dial_timeout, shared.accept_one(incoming, slot)).await;
            if !matches!(accepted, Ok(Ok(()))) {
                tracing::debug!(?accepted, "an incoming connection came to nothing");
            }
            drop((handshake, host));
        });
    }
}

/// Handshakes under way, by host; never more than [`HANDSHAKES_MAX`].
#[derive(Debug, Default, Clone)]
struct Hosts(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// A host's handshake, while it lasts.
#[derive(Debug)]
struct Guest {
    hosts: Hosts,
    ip: Option<IpAddr>,
}

impl Hosts {
    /// A host begins a handshake; `None`: it has enough of them under way. Relayed ones have no host.
    fn enter(&self, addr: &IncomingAddr) -> Option<Guest> {
        let ip = match addr {
            IncomingAddr::Ip(addr) => Some(host(addr.ip())),
            _ => None,
        };
        if let Some(ip) = ip {
            let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = hosts.entry(ip).or_default();
            if *count >= HANDSHAKES_PER_HOST_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Guest { hosts: self.clone(), ip })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(ip) = self.ip else { return };
        let mut hosts = self.hosts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = hosts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                hosts.remove(&ip);
            }
        }
    }
}

/// An IPv6 host has all addresses of its network (RFC 6177): it counts as one.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) >> 64 << 64)),
        ip @ IpAddr::V4(_) => ip,
    }
}

async fn read_preface(recv: &mut RecvStream) -> Result<(), Failure> {
    let mut preface = [0];
    recv.read_exact(&mut preface).await?;
    if preface == [PREFACE] { Ok(()) } else { Err(Failure::Preface) }
}

/// An IPv4 address as such, whatever socket it came from.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The peer's address, when the path in use is direct.
fn direct_addr(connection: &Connection) -> Option<SocketAddr> {
    let paths = connection.paths();
    let path = paths.iter().find(Path::is_selected).or_else(|| paths.iter().next())?;
    match path.remote_addr() {
        TransportAddr::Ip(addr) => Some(canonical(*addr)),
        _ => None,
    }
}
