//! The one door from [`Chunk`] to [`VerifiedChunk`]. Nothing unverified is relayed or played, because only this
//! module can make what is.

use core::ops::Deref;

use super::{Chunk, HEADER_LEN, signed_message};
use crate::id::{BroadcastId, ChannelId, Domain};

/// Checks a chunk's signature. Handed in, so that a simulator can memoise what thousands of peers would repeat.
pub trait Verify {
    /// Whether `key` signed this chunk as one of `channel`.
    fn verify(&mut self, channel: &ChannelId, key: &BroadcastId, chunk: &Chunk) -> bool;
}

/// The real check: Ed25519 over header and BLAKE3 of the payload; 50–110 µs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Ed25519Verifier;

impl Verify for Ed25519Verifier {
    fn verify(&mut self, channel: &ChannelId, key: &BroadcastId, chunk: &Chunk) -> bool {
        let message = signed_message(channel, &chunk.encoded[..HEADER_LEN], &chunk.payload());
        key.verify(Domain::Chunk, &message, &chunk.signature())
    }
}

/// A chunk whose signature held, or that this node signed itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChunk(Chunk);

impl VerifiedChunk {
    /// Verifies `chunk`; gives it back when its signature does not hold.
    pub fn new(
        chunk: Chunk,
        channel: &ChannelId,
        key: &BroadcastId,
        verifier: &mut (impl Verify + ?Sized),
    ) -> Result<Self, Chunk> {
        if verifier.verify(channel, key, &chunk) { Ok(Self(chunk)) } else { Err(chunk) }
    }

    /// A chunk that this node signed.
    pub(super) fn own(chunk: Chunk) -> Self {
        Self(chunk)
    }
}

impl Deref for VerifiedChunk {
    type Target = Chunk;
    fn deref(&self) -> &Chunk {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CHUNK_PAYLOAD_MAX, Flags, NUMBER_MAX, PartIn, Signer};
    use super::*;
    use crate::id::{RenditionId, SecretKey};
    use alloc::vec;
    use bytes::Bytes;

    #[test]
    fn a_part_survives_the_cut_and_no_flipped_bit_does() {
        let (channel, key) = (SecretKey::from_bytes(&[1; 32]).channel(), SecretKey::from_bytes(&[2; 32]));
        let id = BroadcastId(key.public());
        let mut signer = Signer::new(key, channel, 5, RenditionId(0), CHUNK_PAYLOAD_MAX);
        let payload: Bytes = (0..40_000u32).map(|i| i as u8).collect::<alloc::vec::Vec<_>>().into();
        let part = PartIn { flags: Flags::SEGMENT_START, capture_unix_us: 10, payload: payload.clone() };
        let chunks = signer.sign(&part, 25);
        assert_eq!((chunks.len(), signer.next_number(), signer.next_part()), (3, 3, 1));
        let joined: alloc::vec::Vec<u8> = chunks.iter().flat_map(|c| c.payload()).collect();
        assert_eq!(joined, payload);
        let chunk = &chunks[1];
        assert_eq!((chunk.header().part_start(), chunk.header().signed_unix_us()), (0, 25));
        let again = Chunk::decode(chunk.encoded().clone()).expect("decodes");
        assert!(VerifiedChunk::new(again.clone(), &channel, &id, &mut Ed25519Verifier).is_ok());
        let other = SecretKey::from_bytes(&[9; 32]).channel();
        assert!(VerifiedChunk::new(again, &other, &id, &mut Ed25519Verifier).is_err());
        for byte in (0..chunk.encoded().len()).step_by(37).chain(0..HEADER_LEN + 64) {
            let mut bad = chunk.encoded().to_vec();
            bad[byte] ^= 4;
            let refused = Chunk::decode(bad.into())
                .is_ok_and(|bad| VerifiedChunk::new(bad, &channel, &id, &mut Ed25519Verifier).is_ok());
            assert!(!refused, "byte {byte}");
        }
        for (number, is_right) in [(NUMBER_MAX - 1, true), (NUMBER_MAX, false), (u64::MAX, false)] {
            let mut far = chunk.encoded().to_vec();
            far[8..16].copy_from_slice(&number.to_be_bytes());
            assert_eq!(Chunk::decode(far.into()).is_ok(), is_right, "{number}");
        }
        for len in 0..chunk.encoded().len() {
            assert!(Chunk::decode(chunk.encoded().slice(..len)).is_err(), "cut at {len}");
        }
        assert!(signer.sign(&PartIn { payload: vec![].into(), ..part }, 25).is_empty());
    }
}
