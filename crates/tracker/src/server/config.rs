//! What an operator can set, with the reason for each default.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use caudal_proto::addr::{Class, classify};
use serde::Deserialize;

use crate::page::Page;

/// A tracker's configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackerConfig {
    /// LAN mode: peers on private and loopback addresses are registered. Unset: implied when the tracker listens on
    /// such an address and no trusted proxy stands in front of it.
    pub lan: Option<bool>,
    /// Addresses of reverse proxies (they add TLS) whose `X-Forwarded-For` is believed; without this the peers behind
    /// one would all seem to be at the proxy.
    pub trusted_proxies: Vec<IpAddr>,
    /// The URLs by which peers know this tracker. When given, a request made for another tracker is refused, so that no
    /// other tracker can pass off a peer's request here.
    pub public_urls: Vec<String>,
    /// Only these channels are served: a file, one channel id per line, `#` begins a comment.
    pub allow_list: Option<PathBuf>,
    /// These channels are taken down: a file, one channel id per line, then perhaps the reason.
    pub deny_list: Option<PathBuf>,
    /// A map of the network, by which peers near to an asker are preferred: the address of an ALTO server, or an `alto.toml`,
    /// which is then served below `/alto`.
    pub alto: Option<String>,
    /// The address of the ALTO server as peers reach it; the tracker's own way to it unless given.
    pub public_alto: Option<String>,
    /// The page for people at `/`; not from a file.
    #[serde(skip)]
    pub page: Page,
    /// Everything that is bounded.
    pub limits: Limits,
}

/// Bounds on what the tracker keeps and accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// A peer silent for so long is forgotten, ms. Three reports of 20 s, so that two lost ones do no harm.
    pub peer_expiry_ms: u64,
    /// A channel without peers is forgotten after so long, ms: longer than a source needs to be restarted.
    pub channel_expiry_ms: u64,
    /// Most channels. One with a descriptor takes up to 20 KB.
    pub channels: usize,
    /// Most peers of one channel.
    pub peers_per_channel: usize,
    /// Most registrations (a peer in a channel) in all. One takes about 400 bytes.
    pub registrations: usize,
    /// Most registrations from one network (IPv4 /24, IPv6 /56); local ones are exempt in LAN mode.
    pub registrations_per_network: u32,
    /// Most peers whose last timestamps are remembered against replay.
    pub replay_peers: usize,
    /// Most TCP connections.
    pub connections: usize,
    /// Most TCP connections from one address (IPv6: one /64); local ones are exempt in LAN mode.
    pub connections_per_address: u32,
    /// Most subscribers to events, each of which holds a connection. Below `connections`, so that announces get through.
    pub subscribers: usize,
    /// Requests per second from one address (IPv6: one /64); local ones are exempt in LAN mode.
    pub requests_per_second: u32,
    /// Requests that an address may make at once.
    pub requests_burst: u32,
    /// How long a client may take to send a request's head, ms; also how long a connection may idle.
    pub header_timeout_ms: u64,
    /// How long a client may take to send a request's body, ms.
    pub body_timeout_ms: u64,
    /// How long a client may leave an answer unread, ms.
    pub write_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peer_expiry_ms: 60_000,
            channel_expiry_ms: 600_000,
            channels: 10_000,
            peers_per_channel: 20_000,
            registrations: 100_000,
            registrations_per_network: 64,
            replay_peers: 200_000,
            connections: 4096,
            connections_per_address: 128,
            subscribers: 3072,
            requests_per_second: 20,
            requests_burst: 100,
            header_timeout_ms: 10_000,
            body_timeout_ms: 5_000,
            write_timeout_ms: 30_000,
        }
    }
}

impl Limits {
    /// How often peers are asked to report: three times within the expiry.
    pub fn interval_ms(&self) -> u64 {
        (self.peer_expiry_ms / 3).max(1)
    }

    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }
}

impl TrackerConfig {
    /// Whether a tracker that listens on `listen` is in LAN mode.
    pub fn is_lan(&self, listen: SocketAddr) -> bool {
        let local = matches!(classify(listen.ip().to_canonical()), Class::Loopback | Class::Private);
        self.lan.unwrap_or(local && self.trusted_proxies.is_empty())
    }
}

/// Whether per-address limits are waived for `ip`: in LAN mode a whole house, or a test with many processes, is behind
/// one address or one network.
pub(crate) fn is_exempt(ip: IpAddr, lan: bool) -> bool {
    lan && matches!(classify(ip), Class::Loopback | Class::Private)
}

/// The network whose registrations are counted together: IPv4 /24, IPv6 /56.
pub(crate) fn network(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => ip.to_bits() >> 72 << 72,
    }
}

/// The host whose requests and connections are counted together: an IPv4 address, an IPv6 /64.
pub(crate) fn host(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}
