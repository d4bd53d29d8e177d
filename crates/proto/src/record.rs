//! Peer records: a peer's own signed word that it is reached at an address, for one channel, until a time of day.
//!
//! Owns what is signed and how it is checked. Whom to believe, what to keep and what to pass on is the swarm's; when it is
//! is told. Layout: `docs/protocol.md`.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::id::{ChannelId, Domain, PeerId, SIGNATURE_LEN, SecretKey};

/// A record holds for this long from its signature.
pub const RECORD_LIFETIME: Duration = Duration::from_secs(600);

/// "I am reached at this address": whose word it is stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The UDP address.
    pub addr: SocketAddr,
    /// When it ends, seconds since the Unix epoch.
    pub expires_unix_s: u32,
    /// The peer's signature, see [`Record::sign`].
    pub signature: [u8; SIGNATURE_LEN],
}

/// A peer and its record, as others pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRecord {
    /// Who.
    pub peer: PeerId,
    /// Its word.
    pub record: Record,
}

/// Signs this node's records and checks those of others. Handed in: this crate makes no keys, and a simulator need not pay
/// for thousands of signatures.
pub trait RecordKeys {
    /// This node's signature over `message` as a record.
    fn sign(&mut self, message: &[u8]) -> [u8; SIGNATURE_LEN];
    /// Whether `peer` signed `message` as a record.
    fn verify(&mut self, peer: &PeerId, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool;

    /// The same of a hop report ([`hop`](crate::hop)). Keys that tell no domains apart sign it as they do records.
    fn sign_hop(&mut self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.sign(message)
    }

    /// See [`RecordKeys::sign_hop`].
    fn verify_hop(&mut self, peer: &PeerId, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.verify(peer, message, signature)
    }
}

/// The real ones: Ed25519 with the node's key, which is what the transport dials it by; some 50 µs each.
#[derive(Debug, Clone)]
pub struct Ed25519Records(pub SecretKey);

impl RecordKeys for Ed25519Records {
    fn sign(&mut self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(Domain::Record, message)
    }

    fn verify(&mut self, peer: &PeerId, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        peer.verify(Domain::Record, message, signature)
    }

    fn sign_hop(&mut self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(Domain::Hop, message)
    }

    fn verify_hop(&mut self, peer: &PeerId, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        peer.verify(Domain::Hop, message, signature)
    }
}

impl Record {
    /// The word of whoever `keys` are that it is at `addr` until then.
    pub fn sign(
        keys: &mut (impl RecordKeys + ?Sized),
        channel: &ChannelId,
        addr: SocketAddr,
        expires_unix_s: u32,
    ) -> Self {
        let signature = keys.sign(&signed_message(channel, &addr, expires_unix_s));
        Self { addr, expires_unix_s, signature }
    }

    /// Whether `peer` said so, of this channel.
    pub fn verify(&self, keys: &mut (impl RecordKeys + ?Sized), channel: &ChannelId, peer: &PeerId) -> bool {
        keys.verify(peer, &signed_message(channel, &self.addr, self.expires_unix_s), &self.signature)
    }
}

/// The channel, the address and the end. Not the peer: the key says who it is.
fn signed_message(channel: &ChannelId, addr: &SocketAddr, expires_unix_s: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(32 + 19 + 4);
    message.extend_from_slice(&channel.0);
    encode_addr(&mut message, addr);
    message.extend_from_slice(&expires_unix_s.to_be_bytes());
    message
}

/// 4 or 6, the address, the port.
pub(crate) fn encode_addr(out: &mut Vec<u8>, addr: &SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_peers_for_one_channel_address_and_time() {
        let keys = |n: u8| Ed25519Records(SecretKey::from_bytes(&[n; 32]));
        let (peer, stranger) = (PeerId(keys(3).0.public()), PeerId(keys(4).0.public()));
        let (channel, other) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let addr: SocketAddr = "192.0.2.1:4000".parse().expect("an address");
        let record = Record::sign(&mut keys(3), &channel, addr, 1_800_000_000);
        assert!(record.verify(&mut keys(9), &channel, &peer));
        assert!(!record.verify(&mut keys(9), &channel, &stranger), "of somebody else");
        assert!(!record.verify(&mut keys(9), &other, &peer), "of another channel");
        let elsewhere = ["192.0.2.1:4001", "192.0.2.2:4000", "[::ffff:192.0.2.1]:4000"];
        for addr in elsewhere.map(|text| text.parse().expect("an address")) {
            assert!(!Record { addr, ..record }.verify(&mut keys(9), &channel, &peer), "{addr}");
        }
        let later = Record { expires_unix_s: record.expires_unix_s + 1, ..record };
        assert!(!later.verify(&mut keys(9), &channel, &peer), "for longer");
    }
}
