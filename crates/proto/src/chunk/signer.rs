//! Cuts parts into chunks of near-equal size and signs them: the source's side of the chunk format.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::{
    CHUNK_PAYLOAD_MAX, CHUNKS_PER_PART_MAX, Chunk, Flags, HEADER_LEN, Header, VerifiedChunk, signed_message,
};
use crate::id::{ChannelId, Domain, RenditionId, SIGNATURE_LEN, SecretKey};

/// A part to publish; its payload is opaque here.
#[derive(Debug, Clone)]
pub struct PartIn {
    /// What the part is; [`Flags::SEGMENT_START`] and so on.
    pub flags: Flags,
    /// When its first sample reached the source, µs since the Unix epoch.
    pub capture_unix_us: u64,
    /// The payload, 1 byte to `CHUNKS_PER_PART_MAX` chunks.
    pub payload: Bytes,
}

/// Signs one rendition of one broadcast: numbers parts and chunks from 0.
#[derive(Debug)]
pub struct Signer {
    key: SecretKey,
    channel: ChannelId,
    epoch: u64,
    rendition: RenditionId,
    payload_max: usize,
    next_number: u64,
    next_part: u64,
}

impl Signer {
    /// A signer with the broadcast key `key`. `payload_max`: the largest payload of a chunk, at most
    /// [`CHUNK_PAYLOAD_MAX`]: smaller chunks travel faster along a chain, larger ones cost less.
    pub fn new(
        key: SecretKey,
        channel: ChannelId,
        epoch: u64,
        rendition: RenditionId,
        payload_max: usize,
    ) -> Self {
        let payload_max = payload_max.clamp(1024, CHUNK_PAYLOAD_MAX);
        Self { key, channel, epoch, rendition, payload_max, next_number: 0, next_part: 0 }
    }

    /// Changes the largest payload of a chunk, from the next part on.
    pub fn set_payload_max(&mut self, payload_max: usize) {
        self.payload_max = payload_max.clamp(1024, CHUNK_PAYLOAD_MAX);
    }

    /// The number that the next chunk will have.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The number that the next part will have.
    pub fn next_part(&self) -> u64 {
        self.next_part
    }

    /// Cuts and signs the next part; `now_unix_us` is when. An empty or too large part gives no chunk and takes no number.
    pub fn sign(&mut self, part: &PartIn, now_unix_us: u64) -> Vec<VerifiedChunk> {
        let len = part.payload.len();
        let count = len.div_ceil(self.payload_max);
        if count == 0 || count > usize::from(CHUNKS_PER_PART_MAX) {
            return Vec::new();
        }
        let sign_delay_us = now_unix_us.saturating_sub(part.capture_unix_us).min(u64::from(u32::MAX)) as u32;
        let chunks = (0..count)
            .map(|index| {
                let payload = &part.payload[len * index / count..len * (index + 1) / count];
                let header = Header {
                    epoch: self.epoch,
                    number: self.next_number + index as u64,
                    part: self.next_part,
                    index: index as u16,
                    count: count as u16,
                    rendition: self.rendition,
                    flags: part.flags,
                    capture_unix_us: part.capture_unix_us,
                    sign_delay_us,
                    len: payload.len() as u16,
                };
                self.sign_one(header, payload)
            })
            .collect();
        self.next_number += count as u64;
        self.next_part += 1;
        chunks
    }

    fn sign_one(&self, header: Header, payload: &[u8]) -> VerifiedChunk {
        let head = header.encode();
        let signature = self.key.sign(Domain::Chunk, &signed_message(&self.channel, &head, payload));
        let mut encoded = BytesMut::with_capacity(HEADER_LEN + SIGNATURE_LEN + payload.len());
        encoded.extend_from_slice(&head);
        encoded.extend_from_slice(&signature);
        encoded.extend_from_slice(payload);
        VerifiedChunk::own(Chunk { header, encoded: encoded.freeze() })
    }
}
