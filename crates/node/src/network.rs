//! The UDP side of a node: its key, its endpoint, its driver.

use std::net::{Ipv4Addr, SocketAddr};

use caudal_net::{Driver, Handle, IrohConfig, IrohLink};
use caudal_proto::engine::EngineConfig;
use caudal_proto::id::{PeerId, SecretKey};
use caudal_proto::io::Event;
use caudal_tracker::url::AllowedUrl;
use tokio::sync::mpsc;

use crate::NodeError;
use crate::metered::Metered;

/// What the UDP side is told.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    /// Where to listen; empty: everywhere, on a free port.
    pub bind: Vec<SocketAddr>,
    /// Most upload, bit/s; `None`: as measured.
    pub upload_limit_bps: Option<u64>,
    /// A relay's URL; `None`: none.
    pub relay: Option<String>,
    /// Whether the line is paid by the byte: then a viewer sends nothing.
    pub metered: Metered,
}

/// A node on the network.
#[derive(Debug)]
pub struct Network {
    /// Talks to the driver.
    pub handle: Handle,
    /// What the driver tells.
    pub events: mpsc::Receiver<Event>,
    /// This node's key; its public half is its peer id.
    pub key: SecretKey,
}

impl Network {
    /// Binds and starts. A node takes a new key each time: what it is known by is the channel, never the viewer.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn start(config: NetworkConfig) -> Result<Self, NodeError> {
        let key = random_key()?;
        let mut iroh = IrohConfig::new(key.clone());
        iroh.bind = config.bind;
        iroh.relay = config.relay;
        let link = IrohLink::bind(iroh).await?;
        let engine = EngineConfig {
            local: PeerId(key.public()),
            seed: u64::from_be_bytes(random()?),
            upload_limit_bps: config.upload_limit_bps,
        };
        let (handle, events) = Driver::spawn(engine, link);
        Ok(Self { handle, events, key })
    }

    /// Leaves, and passes on why: an endpoint that is just dropped takes no leave of its peers, and complains.
    pub(crate) async fn give_up(self, error: impl Into<NodeError>) -> NodeError {
        self.handle.shutdown().await;
        error.into()
    }

    /// UDP ports at which this node is reachable, smallest first.
    pub async fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.handle.local_addrs().await.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// A fresh key.
///
/// # Errors
/// When the system gives no random numbers.
pub fn random_key() -> Result<SecretKey, NodeError> {
    Ok(SecretKey::from_bytes(&random()?))
}

/// Bytes from the system's secure source.
///
/// # Errors
/// When it gives none.
pub fn random<const N: usize>() -> Result<[u8; N], NodeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| NodeError::Random(error.to_string()))?;
    Ok(bytes)
}

/// LAN mode: every tracker is on this computer's own network. One inside must not open it to the peers of one outside.
pub(crate) fn is_lan(trackers: &[AllowedUrl]) -> bool {
    !trackers.is_empty() && trackers.iter().all(AllowedUrl::is_lan)
}

/// Where others reach a server that listens on `addr`. One that listens on every address is shown with this computer's own:
/// nobody can dial 0.0.0.0.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    if !addr.ip().is_unspecified() {
        return addr;
    }
    // Connecting a UDP socket sends nothing: it asks which of this computer's addresses leads out (RFC 5737's network).
    let own = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr())
    });
    let ip = own.map_or(Ipv4Addr::LOCALHOST.into(), |own| own.ip());
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_dial_every_address() {
        let here: SocketAddr = "192.168.1.2:7777".parse().unwrap();
        assert_eq!(reachable(here), here);
        for all in ["0.0.0.0:7777", "[::]:7777"] {
            let shown = reachable(all.parse().unwrap());
            assert!(!shown.ip().is_unspecified() && shown.port() == 7777, "{shown}");
        }
    }
}
