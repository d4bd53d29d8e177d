//! Addresses, timeouts, and the one place where QUIC is tuned.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use caudal_proto::chunk::CHUNK_LEN_MAX;
use caudal_proto::id::SecretKey;
use caudal_proto::wire::ALPN;
use iroh::endpoint::{
    BindOpts, IdleTimeout, MtuDiscoveryConfig, QuicTransportConfig, QuicTransportConfigBuilder, VarInt,
    presets,
};
use iroh::{Endpoint, RelayMode, RelayUrl, Watcher as _};
use tokio::time::timeout;

use super::CHUNKS_IN_MAX;
use super::congestion::ByDelay;
use crate::error::NetError;

/// A connection on which nothing arrives for this long is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet connection is kept alive this often: two of these may be lost within [`IDLE_TIMEOUT`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// A dial that was not answered by then has failed.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one stream that may be on their way to this node: eight chunks. The transport says that there is room again as soon as
/// an eighth was read; with less, in the middle of each chunk, in a packet that is acknowledged in another.
pub const STREAM_WINDOW: u32 = 8 * (CHUNK_LEN_MAX + 1024) as u32;
/// Bytes of one connection that may be on their way to this node.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one connection that this node holds until they are acknowledged.
pub const SEND_WINDOW: u64 = 1024 * 1024;
/// Assumed until measured (RFC 9002, section 6.2.2). Less would repeat a first packet sooner that was lost, but it also paces
/// the probes of NAT traversal, 1,200 bytes each: with 100 ms a connection made on a narrow uplink cost nine of them and as
/// many answers.
pub const INITIAL_RTT: Duration = Duration::from_millis(333);
/// More than half of the way from the least MTU to the largest that is looked for.
const MTU_STEP: u16 = 130;
/// How long binding waits for the operating system to list its addresses.
const ADDRS_TIMEOUT: Duration = Duration::from_millis(500);

/// What an [`IrohLink`](super::IrohLink) needs to know.
#[derive(Debug, Clone)]
pub struct IrohConfig {
    /// The node's key; its public half is the node's id.
    pub key: SecretKey,
    /// Where to listen: one IPv4 and one IPv6 address at most. Empty: `0.0.0.0:0`, and `[::]:0` where there is IPv6.
    pub bind: Vec<SocketAddr>,
    /// A relay's URL, for peers that cannot be reached directly. `None`: none.
    pub relay: Option<String>,
    /// See [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// See [`DIAL_TIMEOUT`].
    pub dial_timeout: Duration,
    /// Who decides how much a connection may have under way.
    pub control: Control,
}

/// The congestion control of a node's connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Control {
    /// The engine's, by delay.
    #[default]
    Ours,
    /// The transport's own, Cubic (RFC 9438): what ours is measured against.
    Cubic,
}

impl IrohConfig {
    /// A node that listens on every address, without a relay.
    pub fn new(key: SecretKey) -> Self {
        Self {
            key,
            bind: Vec::new(),
            relay: None,
            idle_timeout: IDLE_TIMEOUT,
            dial_timeout: DIAL_TIMEOUT,
            control: Control::Ours,
        }
    }

    pub(super) fn relay_url(&self) -> Result<Option<RelayUrl>, NetError> {
        let Some(url) = &self.relay else { return Ok(None) };
        let refused = |reason: String| NetError::Relay { url: url.clone(), reason };
        if !(url.starts_with("https://") || url.starts_with("http://")) {
            return Err(refused("another scheme".into()));
        }
        url.parse().map(Some).map_err(|error| refused(format!("{error}")))
    }
}

/// How a connection behaves: every choice about QUIC is made here, congestion control too.
///
/// Fairness among streams is off: a chunk that is whole early is worth more
/// than two that are half there.
///
/// The ACK-frequency extension stays off. Asking for an acknowledgement of every sixth packet took 2 to 3 % off the wire
/// where packets arrive one by one, but noq-proto 1.4.0 writes the ACK_FREQUENCY frame without looking whether the
/// packet has room for it, and panics in a handshake whose last datagram is nearly full.
pub fn transport_config(idle_timeout: Duration, control: Control) -> QuicTransportConfigBuilder {
    let idle = IdleTimeout::try_from(idle_timeout).unwrap_or_else(|_| VarInt::MAX.into());
    let keep_alive = KEEP_ALIVE.min(idle_timeout * 2 / 5);
    let builder = QuicTransportConfig::builder();
    let builder = match control {
        Control::Ours => builder.congestion_controller_factory(Arc::new(ByDelay)),
        Control::Cubic => builder,
    };
    builder
        .max_idle_timeout(Some(idle))
        .default_path_max_idle_timeout(idle_timeout.min(IDLE_TIMEOUT))
        .keep_alive_interval(keep_alive)
        .default_path_keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu_discovery()))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(CHUNKS_IN_MAX as u32))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
}

/// One probe, of Ethernet's size, and no search between it and QUIC's least: four probes on each of twenty new connections
/// would fill a narrow uplink for half a second.
fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut config = MtuDiscoveryConfig::default();
    config.minimum_change(MTU_STEP);
    config
}

/// What the dialler of a connection allows: as everybody, but the other side opens no bidirectional stream.
pub(super) fn dialler_config(idle_timeout: Duration, control: Control) -> QuicTransportConfig {
    transport_config(idle_timeout, control).max_concurrent_bidi_streams(VarInt::from_u32(0)).build()
}

pub(super) async fn bind(config: &IrohConfig, relay: Option<&RelayUrl>) -> Result<Endpoint, NetError> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&config.key.to_bytes()))
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(relay.map_or(RelayMode::Disabled, |url| RelayMode::custom([url.clone()])))
        .transport_config(transport_config(config.idle_timeout, config.control).build());
    if !config.bind.is_empty() {
        builder = builder.clear_ip_transports();
    }
    for &addr in &config.bind {
        let required = BindOpts::default().set_is_required(true);
        builder = builder.bind_addr_with_opts(addr, required).map_err(|_| NetError::SameFamily(addr))?;
    }
    let endpoint = builder
        .bind()
        .await
        .map_err(|error| NetError::Bind { addrs: config.bind.clone(), reason: format!("{error:#}") })?;
    if local_addrs(&endpoint).is_empty() {
        // The interfaces are listed in the background; a node that announces itself wants to know them.
        let mut watcher = endpoint.watch_addr();
        let _ = timeout(ADDRS_TIMEOUT, async {
            while local_addrs(&endpoint).is_empty() && watcher.updated().await.is_ok() {}
        })
        .await;
    }
    Ok(endpoint)
}

/// Addresses of this node that others may dial: those of its interfaces where it listens on all, and those that peers
/// or a relay observed.
pub(super) fn local_addrs(endpoint: &Endpoint) -> Vec<SocketAddr> {
    let mut addrs: Vec<_> = endpoint.addr().ip_addrs().copied().collect();
    addrs.extend(endpoint.bound_sockets().into_iter().filter(|addr| !addr.ip().is_unspecified()));
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_must_be_a_url() {
        let mut config = IrohConfig::new(SecretKey::from_bytes(&[1; 32]));
        assert!(config.relay_url().unwrap().is_none());
        config.relay = Some("https://relay.example.org".into());
        assert!(config.relay_url().unwrap().is_some());
        for bad in ["relay.example.org", "ftp://relay.example.org", "https://", ""] {
            config.relay = Some(bad.into());
            let error = config.relay_url().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        let config = IrohConfig::new(SecretKey::from_bytes(&[0xab; 32]));
        let text = format!("{config:?}");
        assert!(!text.contains("171") && !text.to_lowercase().contains("abab"), "{text}");
    }
}
