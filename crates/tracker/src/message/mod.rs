//! The messages between peers and trackers: RFC 7846 (PPSTP) in JSON, and the directory's.
//!
//! Shapes and codes follow the RFC; what Caudal adds stands beside them: who asks is proven by a signature, a source
//! shows its broadcast certificate, answers carry the live note and say when a channel was taken down. Requests with
//! members that are not known are refused (a misspelt one would otherwise be silently without effect); answers may
//! grow. Field by field: `docs/tracker.md`.

mod answer;
mod directory;
mod proof;

use std::net::IpAddr;

pub use caudal_proto::id::SwarmId;
use caudal_proto::id::{PeerId, RENDITION_ID_END};
use serde::{Deserialize, Serialize};

use crate::descriptor::SignedDescriptor;
use crate::text::{as_text, base64url};

pub use answer::{LiveBroadcast, PeerAddress, PeerGroup, PeerInfo, Response, SwarmResult, Takedown};
pub use directory::{
    ChannelEntry, ChannelPage, ChannelState, ErrorBody, Gone, QUALITY_REPORTS_MIN, Quality, RenditionViewers,
    Viewers,
};
pub use proof::{sign_request, source_proof_bytes, verify_request};

/// PPSTP's version.
pub const VERSION: u32 = 1;
/// Longest request body, bytes.
pub const REQUEST_LEN_MAX: usize = 16 * 1024;
/// Longest transaction id, bytes.
pub const TRANSACTION_ID_LEN_MAX: usize = 64;
/// Most swarms in one request.
pub const SWARMS_PER_REQUEST_MAX: usize = 8;
/// Most UDP ports or addresses that a peer may claim.
pub const PEER_ADDRESSES_MAX: usize = 4;
/// Lowest UDP port that is registered: below lie services that a peer's claim should send nobody to.
pub const PEER_PORT_MIN: u16 = 1024;
/// Peers in an answer unless asked otherwise.
pub const PEER_COUNT_DEFAULT: u32 = 20;
/// Most peers in an answer.
pub const PEER_COUNT_MAX: u32 = 50;
/// How far a request's timestamp may lie from the tracker's clock, ms.
pub const REQUEST_AGE_MAX_MS: u64 = 60_000;
/// The HTTP header that carries the request's signature.
pub const SIGNATURE_HEADER: &str = "caudal-signature";

/// Result of a request or of one swarm in it. Up to 6 they are RFC 7846's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// Done.
    Ok,
    /// The request is malformed or a value is out of its limits.
    BadRequest,
    /// Another version of PPSTP.
    UnsupportedVersion,
    /// Not allowed, for example FIND before CONNECT.
    Forbidden,
    /// The tracker failed.
    Internal,
    /// The tracker or the swarm is full.
    Unavailable,
    /// A signature or a proof is missing or does not match.
    AuthenticationRequired,
    /// The tracker does not know the peer in this swarm (any more): CONNECT again.
    UnknownPeer,
    /// The operator took the channel down.
    TakenDown,
    /// The request's timestamp is too far from the tracker's clock.
    Clock,
    /// Asked too often.
    TooManyRequests,
    /// A newer epoch or descriptor is known.
    Superseded,
    /// This request was seen before.
    Replayed,
    /// A code of a later version.
    Other(u16),
}

impl Code {
    const TABLE: [(Self, u16, u16); 13] = [
        (Self::Ok, 0, 200),
        (Self::BadRequest, 1, 400),
        (Self::UnsupportedVersion, 2, 400),
        (Self::Forbidden, 3, 403),
        (Self::Internal, 4, 500),
        (Self::Unavailable, 5, 503),
        (Self::AuthenticationRequired, 6, 401),
        (Self::UnknownPeer, 64, 404),
        (Self::TakenDown, 65, 451),
        (Self::Clock, 66, 400),
        (Self::TooManyRequests, 67, 429),
        (Self::Superseded, 68, 409),
        (Self::Replayed, 69, 409),
    ];

    /// The number in `error_code` and `result`.
    pub fn number(self) -> u16 {
        match self {
            Self::Other(number) => number,
            known => Self::TABLE.iter().find(|row| row.0 == known).map_or(4, |row| row.1),
        }
    }

    /// The HTTP status that goes with it.
    pub fn http_status(self) -> u16 {
        Self::TABLE.iter().find(|row| row.0 == self).map_or(400, |row| row.2)
    }

    /// The code of a number.
    pub fn from_number(number: u16) -> Self {
        Self::TABLE.iter().find(|row| row.1 == number).map_or(Self::Other(number), |row| row.0)
    }
}

/// A message's outer object.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope<T> {
    #[serde(rename = "PPSPTrackerProtocol")]
    pub(crate) body: T,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestType {
    /// Join and leave swarms.
    #[serde(rename = "CONNECT")]
    Connect,
    /// More peers of a swarm.
    #[serde(rename = "FIND")]
    Find,
    /// Still here, and how it goes.
    #[serde(rename = "STAT_REPORT")]
    StatReport,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// Which of the three objects below there is.
    pub request_type: RequestType,
    /// Chosen by the peer, up to [`TRANSACTION_ID_LEN_MAX`] bytes; the answer repeats it.
    pub transaction_id: String,
    /// Who asks; its key signs the request.
    #[serde(with = "as_text")]
    pub peer_id: PeerId,
    /// When it was made, ms since the Unix epoch; a peer never uses one twice.
    pub timestamp_unix_ms: u64,
    /// The tracker's URL as the peer knows it, so that no tracker can use the request at another.
    pub tracker: String,
    /// For CONNECT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Connect>,
    /// For FIND.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<Find>,
    /// For STAT_REPORT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stat_report: Option<StatReport>,
}

/// How many peers are wanted, and what the asker can give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerNum {
    /// Most peers in the answer; 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_count: Option<u32>,
    /// Upload that the peer means to give, bit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bps: Option<u64>,
}

/// CONNECT: joins and leaves swarms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Peers wanted at once: a joiner needs one round trip.
    #[serde(default)]
    pub peer_num: PeerNum,
    /// The peer's UDP ports; 1 to [`PEER_ADDRESSES_MAX`] unless it only leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer_addr: Vec<ClaimedAddress>,
    /// 1 to [`SWARMS_PER_REQUEST_MAX`].
    pub swarm_action: Vec<SwarmAction>,
}

/// A UDP port that the peer claims, on the address that the tracker sees unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimedAddress {
    /// The port, from [`PEER_PORT_MIN`].
    pub port: u16,
    /// Another address of the peer. It is registered only when validated, and otherwise has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<WireIp>,
}

/// An IP address in RFC 7846's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireIp {
    /// `ipv4` or `ipv6`.
    pub address_type: AddressType,
    /// The address as text.
    #[serde(with = "as_text")]
    pub address: IpAddr,
}

/// Which IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl From<IpAddr> for WireIp {
    fn from(address: IpAddr) -> Self {
        let address_type = if address.is_ipv4() { AddressType::Ipv4 } else { AddressType::Ipv6 };
        Self { address_type, address }
    }
}

/// Join or leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Join the swarm.
    Join,
    /// Leave it.
    Leave,
}

/// What a peer is in a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PeerMode {
    /// A source of the channel; it proves it with a [`Broadcast`].
    Seed,
    /// A viewer.
    Leech,
}

/// One swarm in CONNECT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwarmAction {
    /// The swarm.
    #[serde(with = "as_text")]
    pub swarm_id: SwarmId,
    /// Join or leave.
    pub action: Action,
    /// As what; needed to join.
    pub peer_mode: PeerMode,
    /// A source's proof; needed with [`PeerMode::Seed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<Broadcast>,
    /// A source's descriptor of the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<SignedDescriptor>,
}

/// A source's broadcast: certificate and live note as `docs/protocol.md` lays them out, and the proof that this very
/// peer, in this very request, has the broadcast key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broadcast {
    /// The certificate's bytes, base64url.
    #[serde(with = "base64url")]
    pub certificate: Vec<u8>,
    /// The live note's bytes, base64url.
    #[serde(with = "base64url")]
    pub live_note: Vec<u8>,
    /// The broadcast key's signature over [`source_proof_bytes`] ([`caudal_proto::id::Domain::Request`]), base64url. Everybody has the
    /// certificate and the note, so they prove nothing by themselves.
    #[serde(with = "base64url")]
    pub proof: Vec<u8>,
}

/// FIND: more peers of a swarm that the asker is connected to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// The swarm.
    #[serde(with = "as_text")]
    pub swarm_id: SwarmId,
    /// How many.
    #[serde(default)]
    pub peer_num: PeerNum,
}

/// STAT_REPORT: still here, and how it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatReport {
    /// `STREAM_STATS`.
    #[serde(rename = "type")]
    pub kind: StatKind,
    /// 1 to [`SWARMS_PER_REQUEST_MAX`].
    pub stat: Vec<Stat>,
}

/// The one kind of report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatKind {
    /// Per swarm.
    #[serde(rename = "STREAM_STATS")]
    StreamStats,
}

/// One swarm in STAT_REPORT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stat {
    /// The swarm.
    #[serde(with = "as_text")]
    pub swarm_id: SwarmId,
    /// What the viewer measured.
    #[serde(default)]
    pub qos: Qos,
    /// A source's renewed live note, and perhaps a new epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<Broadcast>,
    /// A source's renewed descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<SignedDescriptor>,
}

/// What a viewer measured since it joined. Only aggregates ever leave the tracker. What it does not know of a newer viewer's it passes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Qos {
    /// Bytes sent to peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploaded_bytes: Option<u64>,
    /// Bytes received from anyone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloaded_bytes: Option<u64>,
    /// Unique stream bytes received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub useful_bytes: Option<u64>,
    /// Upload that was measured to be there, bit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_bps: Option<u64>,
    /// Continuity index, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuity: Option<f64>,
    /// Offload ratio, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload_ratio: Option<f64>,
    /// Of useful bytes, those that came over HTTP from an edge, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_ratio: Option<f64>,
    /// Startup delay, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_ms: Option<f64>,
    /// Chunk delay, median, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_p50_ms: Option<f64>,
    /// Chunk delay, 95th percentile, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_p95_ms: Option<f64>,
    /// Media ahead of the playout point, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_ms: Option<f64>,
    /// Times that playback stood still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalls: Option<u64>,
    /// The rendition that plays, where the channel has several: below [`RENDITION_ID_END`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendition: Option<u8>,
}

impl Qos {
    /// The first value that is out of its limits, if any: ratios 0 to 1, times up to an hour, counts below 2^53, a rendition's
    /// number below [`RENDITION_ID_END`].
    pub fn wrong_member(&self) -> Option<&'static str> {
        let ratios = [
            ("continuity", self.continuity),
            ("offload_ratio", self.offload_ratio),
            ("edge_ratio", self.edge_ratio),
        ];
        let times = [
            ("startup_ms", self.startup_ms),
            ("delay_p50_ms", self.delay_p50_ms),
            ("delay_p95_ms", self.delay_p95_ms),
            ("buffer_ms", self.buffer_ms),
        ];
        let counts = [
            ("uploaded_bytes", self.uploaded_bytes),
            ("downloaded_bytes", self.downloaded_bytes),
            ("useful_bytes", self.useful_bytes),
            ("upload_bps", self.upload_bps),
            ("stalls", self.stalls),
        ];
        let outside = |range: std::ops::RangeInclusive<f64>, value: Option<f64>| {
            value.is_some_and(|value| !range.contains(&value))
        };
        let ratio = ratios.into_iter().find(|(_, value)| outside(0.0..=1.0, *value)).map(|(name, _)| name);
        let time =
            times.into_iter().find(|(_, value)| outside(0.0..=3_600_000.0, *value)).map(|(name, _)| name);
        let count = counts.into_iter().find(|(_, value)| value.is_some_and(|value| value >= 1 << 53));
        let rendition = self.rendition.filter(|id| *id >= RENDITION_ID_END).map(|_| "rendition");
        ratio.or(time).or(count.map(|(name, _)| name)).or(rendition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_proto::id::SecretKey;

    #[test]
    fn codes_and_numbers_match_both_ways() {
        for (code, number, _) in Code::TABLE {
            assert_eq!((code.number(), Code::from_number(number)), (number, code));
        }
        assert_eq!(Code::from_number(999).number(), 999);
    }

    #[test]
    fn the_documented_codes_are_the_real_ones() {
        let page = include_str!("../../../../docs/tracker.md");
        for (code, number, http) in Code::TABLE {
            assert!(page.contains(&format!("\n| {number} | {http} | ")), "{code:?}");
        }
    }

    #[test]
    fn swarm_ids_survive_text() {
        let channel = SecretKey::from_bytes(&[1; 32]).channel();
        for rendition in [0, 1, 63] {
            let id = SwarmId { channel, rendition: caudal_proto::id::RenditionId(rendition) };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!(format!("{channel}/64").parse::<SwarmId>().is_err());
        assert!(format!("{channel}/").parse::<SwarmId>().is_err());
    }

    #[test]
    fn a_request_is_signed_over_its_exact_bytes() {
        let key = SecretKey::from_bytes(&[1; 32]);
        let peer = PeerId(key.public());
        let header = sign_request(&key, b"{}");
        assert!(verify_request(&peer, b"{}", &header));
        assert!(!verify_request(&peer, b"{ }", &header));
        assert!(!verify_request(&PeerId([3; 32]), b"{}", &header));
        for bad in ["", "x", &header[1..], &format!("{header}A")] {
            assert!(!verify_request(&peer, b"{}", bad));
        }
    }

    #[test]
    fn quality_values_have_limits() {
        assert_eq!(Qos::default().wrong_member(), None);
        assert_eq!(Qos { continuity: Some(1.01), ..Qos::default() }.wrong_member(), Some("continuity"));
        assert_eq!(Qos { buffer_ms: Some(-1.0), ..Qos::default() }.wrong_member(), Some("buffer_ms"));
        assert_eq!(Qos { stalls: Some(u64::MAX), ..Qos::default() }.wrong_member(), Some("stalls"));
        assert_eq!(Qos { rendition: Some(63), ..Qos::default() }.wrong_member(), None);
        assert_eq!(Qos { rendition: Some(64), ..Qos::default() }.wrong_member(), Some("rendition"));
    }

    #[test]
    fn a_report_may_say_which_rendition_plays_and_need_not() {
        let read = |text: &str| serde_json::from_str::<Qos>(text);
        let told = Qos { rendition: Some(2), ..Qos::default() };
        assert_eq!(read(r#"{"rendition":2}"#).unwrap(), told);
        assert_eq!(read("{}").unwrap(), Qos::default());
        assert_eq!(serde_json::to_string(&told).unwrap(), r#"{"rendition":2}"#);
        assert_eq!(
            serde_json::to_string(&Qos::default()).unwrap(),
            "{}",
            "nothing that an older tracker would refuse"
        );
        for bad in
            [r#"{"rendition":-1}"#, r#"{"rendition":256}"#, r#"{"rendition":"720p"}"#, r#"{"rendition":[0]}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
