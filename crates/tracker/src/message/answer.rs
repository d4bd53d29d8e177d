//! Answers: what a tracker says about a request and each swarm in it.

use std::net::SocketAddr;

use caudal_proto::broadcast::{BroadcastError, Certificate, LiveNote};
use caudal_proto::id::{ChannelId, PeerId};
use serde::{Deserialize, Serialize};

use crate::message::{SwarmId, WireIp};
use crate::text::{as_text, base64url};

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`crate::message::VERSION`].
    pub version: u32,
    /// 0 when done, 1 when refused.
    pub response_type: u8,
    /// A [`crate::message::Code`]'s number. When the request named one swarm, also that swarm's.
    pub error_code: u16,
    /// What was wrong and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    /// The tracker's clock, ms since the Unix epoch.
    pub time_unix_ms: u64,
    /// How often to report, ms; a peer silent for three times as long is forgotten.
    #[serde(default)]
    pub interval_ms: u64,
    /// The address that the tracker saw and registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_addr: Option<PeerAddress>,
    /// One per swarm of the request, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub swarm_result: Vec<SwarmResult>,
}

/// What came of one swarm in a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmResult {
    /// The swarm.
    #[serde(with = "as_text")]
    pub swarm_id: SwarmId,
    /// A [`crate::message::Code`]'s number.
    pub result: u16,
    /// What was wrong and what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Peers, for FIND and for CONNECT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_group: Option<PeerGroup>,
    /// The channel's newest certificate and live note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<LiveBroadcast>,
    /// Viewers of the channel.
    #[serde(default)]
    pub viewers: u32,
    /// Where the map of the network is (the directory of an ALTO server), for CONNECT and FIND: an address, or a path below the
    /// tracker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alto: Option<String>,
    /// Why the operator took the channel down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takedown: Option<Takedown>,
}

/// Why the operator took a channel down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takedown {
    /// The operator's words.
    pub reason: String,
}

/// A channel's certificate and live note, as they travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveBroadcast {
    /// The certificate's bytes, base64url.
    #[serde(with = "base64url")]
    pub certificate: Vec<u8>,
    /// The live note's bytes, base64url.
    #[serde(with = "base64url")]
    pub live_note: Vec<u8>,
}

impl LiveBroadcast {
    /// Encodes both.
    pub fn new(certificate: &Certificate, live_note: &LiveNote) -> Self {
        Self { certificate: certificate.encode(), live_note: live_note.encode() }
    }

    /// Checks both signatures; freshness is for whoever has a clock.
    ///
    /// # Errors
    /// When either is not `channel`'s.
    pub fn open(&self, channel: &ChannelId) -> Result<(Certificate, LiveNote), BroadcastError> {
        let certificate = Certificate::decode(channel, &self.certificate)?;
        let note = LiveNote::decode(&certificate, &self.live_note)?;
        Ok((certificate, note))
    }
}

/// Peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerGroup {
    /// Never the asker.
    pub peer_info: Vec<PeerInfo>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its id, which is its public key.
    #[serde(with = "as_text")]
    pub peer_id: PeerId,
    /// Where it is.
    pub peer_addr: Vec<PeerAddress>,
    /// Whether it has proven to be a source of the channel's present epoch.
    #[serde(default)]
    pub source: bool,
    /// What it costs to get from the asker to it by the tracker's map of the network, in thousandths of the map's own numbers,
    /// from 1; absent where no map speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
}

/// An address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddress {
    /// The address.
    pub ip_address: WireIp,
    /// The UDP port.
    pub port: u16,
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { ip_address: address.ip().into(), port: address.port() }
    }
}

impl From<&PeerAddress> for SocketAddr {
    fn from(address: &PeerAddress) -> Self {
        Self::new(address.ip_address.address, address.port)
    }
}
