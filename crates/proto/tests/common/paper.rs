//! Signatures on paper: what stands in for Ed25519 on peer records in this world, whose ids are no keys.

use caudal_proto::id::{ChannelId, PeerId, SIGNATURE_LEN};
use caudal_proto::record::{PeerRecord, Record, RecordKeys};

/// The pen of one peer.
#[derive(Debug, Clone, Copy)]
pub struct PaperKeys(pub PeerId);

impl RecordKeys for PaperKeys {
    fn sign(&mut self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let hash = self.0.0.iter().chain(message).fold(0xcbf2_9ce4_8422_2325, mix);
        let mut out = [0x5a; SIGNATURE_LEN];
        out[..8].copy_from_slice(&hash.to_be_bytes());
        out
    }

    fn verify(&mut self, peer: &PeerId, message: &[u8], given: &[u8; SIGNATURE_LEN]) -> bool {
        *given == Self(*peer).sign(message)
    }
}

/// What `peer` would sign.
pub fn record(peer: PeerId, channel: &ChannelId, addr: std::net::SocketAddr, unix_us: u64) -> PeerRecord {
    let expires_unix_s = (unix_us / 1_000_000 + 300) as u32;
    PeerRecord { peer, record: Record::sign(&mut PaperKeys(peer), channel, addr, expires_unix_s) }
}
