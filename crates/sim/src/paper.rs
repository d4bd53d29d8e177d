//! Signatures on paper: what stands in for Ed25519 on peer records, so that a thousand peers cost no more than their bytes.
//!
//! Anybody could forge them who knew how; in this world nobody does: who attacks signs for itself alone, as with real keys.

use std::net::SocketAddr;

use caudal_proto::id::{ChannelId, PeerId, SIGNATURE_LEN};
use caudal_proto::record::{PeerRecord, Record, RecordKeys};

/// The pen of one peer.
#[derive(Debug, Clone, Copy)]
pub struct PaperKeys(pub PeerId);

impl RecordKeys for PaperKeys {
    fn sign(&mut self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        signature(&self.0, message)
    }

    fn verify(&mut self, peer: &PeerId, message: &[u8], given: &[u8; SIGNATURE_LEN]) -> bool {
        *given == signature(peer, message)
    }
}

/// What `peer` signs of where it is.
pub fn record(peer: PeerId, channel: &ChannelId, addr: SocketAddr, expires_unix_s: u32) -> PeerRecord {
    PeerRecord { peer, record: Record::sign(&mut PaperKeys(peer), channel, addr, expires_unix_s) }
}

/// FNV-1a over both, spread over the whole length.
fn signature(peer: &PeerId, message: &[u8]) -> [u8; SIGNATURE_LEN] {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let mut hash = peer.0.iter().chain(message).fold(0xcbf2_9ce4_8422_2325, mix);
    let mut out = [0; SIGNATURE_LEN];
    for word in out.chunks_mut(8) {
        hash = mix(hash.rotate_left(17), &0x5a);
        word.copy_from_slice(&hash.to_be_bytes());
    }
    out
}
