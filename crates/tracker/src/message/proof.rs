//! Who asks: the request's signature, and a source's proof that it has the broadcast key.

use caudal_proto::broadcast::{BroadcastError, Certificate, LiveNote};
use caudal_proto::id::{ChannelId, Domain, PeerId, SIGNATURE_LEN, SecretKey};
use data_encoding::BASE64URL_NOPAD;

use crate::message::{Broadcast, LiveBroadcast};

/// The bytes by which a source proves, with its broadcast key, that it is `peer`, in the request of that time.
pub fn source_proof_bytes(certificate: &Certificate, peer: &PeerId, timestamp_unix_ms: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(7 + 32 + 8 + 32 + 8);
    bytes.extend_from_slice(b"source\0");
    bytes.extend_from_slice(&certificate.channel.0);
    bytes.extend_from_slice(&certificate.epoch.to_be_bytes());
    bytes.extend_from_slice(&peer.0);
    bytes.extend_from_slice(&timestamp_unix_ms.to_be_bytes());
    bytes
}

impl Broadcast {
    /// What a source shows in the request of that time.
    pub fn prove(
        certificate: &Certificate,
        live_note: &LiveNote,
        broadcast_key: &SecretKey,
        peer: &PeerId,
        timestamp_unix_ms: u64,
    ) -> Self {
        let proof =
            broadcast_key.sign(Domain::Request, &source_proof_bytes(certificate, peer, timestamp_unix_ms));
        let LiveBroadcast { certificate, live_note } = LiveBroadcast::new(certificate, live_note);
        Self { certificate, live_note, proof: proof.to_vec() }
    }

    /// Checks all three signatures.
    ///
    /// # Errors
    /// When one does not match: the peer is then no source.
    pub fn open(
        &self,
        channel: &ChannelId,
        peer: &PeerId,
        timestamp_unix_ms: u64,
    ) -> Result<(Certificate, LiveNote), BroadcastError> {
        let certificate = Certificate::decode(channel, &self.certificate)?;
        let note = LiveNote::decode(&certificate, &self.live_note)?;
        let proof: &[u8; SIGNATURE_LEN] =
            self.proof.as_slice().try_into().map_err(|_| BroadcastError::Malformed("source proof"))?;
        let bytes = source_proof_bytes(&certificate, peer, timestamp_unix_ms);
        if certificate.broadcast.verify(Domain::Request, &bytes, proof) {
            Ok((certificate, note))
        } else {
            Err(BroadcastError::Signature)
        }
    }
}

/// Signs a request's body, for the [`crate::message::SIGNATURE_HEADER`].
pub fn sign_request(key: &SecretKey, body: &[u8]) -> String {
    BASE64URL_NOPAD.encode(&key.sign(Domain::Request, body))
}

/// Whether `header` is `peer`'s signature over `body`.
pub fn verify_request(peer: &PeerId, body: &[u8], header: &str) -> bool {
    let mut signature = [0; SIGNATURE_LEN];
    let well_formed = BASE64URL_NOPAD.decode_len(header.len()) == Ok(SIGNATURE_LEN)
        && BASE64URL_NOPAD.decode_mut(header.as_bytes(), &mut signature) == Ok(SIGNATURE_LEN);
    well_formed && peer.verify(Domain::Request, body, &signature)
}
