//! The signed unit of transfer: a part's payload cut into chunks of at most 16 KiB, each of which stands alone.
//!
//! PPSPP's content integrity method 2, "Sign All" (RFC 7574 §5.1): every chunk carries an Ed25519 signature over its
//! header and the BLAKE3 hash of its payload, so there is no manifest and no Merkle proof to wait for. A chunk is
//! relayed exactly as it was signed: [`Chunk::encoded`] is the buffer that arrived.

mod signer;
mod verify;

use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::{ChannelId, RenditionId, SIGNATURE_LEN};

pub use signer::{PartIn, Signer};
pub use verify::{Ed25519Verifier, VerifiedChunk, Verify};

/// Most payload bytes in a chunk.
pub const CHUNK_PAYLOAD_MAX: usize = 16 * 1024;
/// Bytes of the header as it travels.
pub const HEADER_LEN: usize = 8 + 8 + 8 + 2 + 2 + 1 + 1 + 8 + 4 + 2;
/// Most bytes of a chunk as it travels.
pub const CHUNK_LEN_MAX: usize = HEADER_LEN + SIGNATURE_LEN + CHUNK_PAYLOAD_MAX;
/// Most chunks in a part.
pub const CHUNKS_PER_PART_MAX: u16 = 1024;
/// Chunks are numbered below this, as varints are (RFC 9000, section 16): who counts on from one never overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// What a chunk says of itself; all of it is signed, together with the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The broadcast it belongs to.
    pub epoch: u64,
    /// Counts every chunk of the broadcast from 0.
    pub number: u64,
    /// The part it is cut from, counted from 0.
    pub part: u64,
    /// Its place in that part.
    pub index: u16,
    /// How many chunks that part has.
    pub count: u16,
    /// The rendition it belongs to.
    pub rendition: RenditionId,
    /// See [`Flags`].
    pub flags: Flags,
    /// When the part's first sample reached the source, µs since the Unix epoch.
    pub capture_unix_us: u64,
    /// From then to the signature, µs.
    pub sign_delay_us: u32,
    /// Payload bytes.
    pub len: u16,
}

/// A chunk's signed flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u8);

impl Flags {
    /// The part starts a segment (with a key frame): a joiner may start here.
    pub const SEGMENT_START: Self = Self(1);
    /// The part does not continue the timeline before it.
    pub const DISCONTINUITY: Self = Self(2);
    /// The part carries init data.
    pub const INIT: Self = Self(4);
    /// Peers are asked to report this chunk's path.
    pub const TRACED: Self = Self(8);
    const ALL: u8 = 15;

    /// Whether all of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self` with `other` set when `on`.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { self }
    }
}

/// Why bytes are not a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunk: {0}")]
pub struct ChunkError(pub &'static str);

/// A chunk as it travels, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    header: Header,
    encoded: Bytes,
}

impl Chunk {
    /// Reads a chunk that fills `encoded`; nothing is copied.
    pub fn decode(encoded: Bytes) -> Result<Self, ChunkError> {
        if encoded.len() < HEADER_LEN + SIGNATURE_LEN {
            return Err(ChunkError("shorter than header and signature"));
        }
        let header = Header::decode(&encoded)?;
        if encoded.len() != HEADER_LEN + SIGNATURE_LEN + usize::from(header.len) {
            return Err(ChunkError("its length is not what its header says"));
        }
        Ok(Self { header, encoded })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes that travel: header, signature, payload.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The payload.
    pub fn payload(&self) -> Bytes {
        self.encoded.slice(HEADER_LEN + SIGNATURE_LEN..)
    }

    fn signature(&self) -> [u8; SIGNATURE_LEN] {
        let mut signature = [0; SIGNATURE_LEN];
        signature.copy_from_slice(&self.encoded[HEADER_LEN..HEADER_LEN + SIGNATURE_LEN]);
        signature
    }
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..8].copy_from_slice(&self.epoch.to_be_bytes());
        out[8..16].copy_from_slice(&self.number.to_be_bytes());
        out[16..24].copy_from_slice(&self.part.to_be_bytes());
        out[24..26].copy_from_slice(&self.index.to_be_bytes());
        out[26..28].copy_from_slice(&self.count.to_be_bytes());
        out[28] = self.rendition.0;
        out[29] = self.flags.0;
        out[30..38].copy_from_slice(&self.capture_unix_us.to_be_bytes());
        out[38..42].copy_from_slice(&self.sign_delay_us.to_be_bytes());
        out[42..44].copy_from_slice(&self.len.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        let u64_at = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(raw)
        };
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let header = Self {
            epoch: u64_at(0),
            number: u64_at(8),
            part: u64_at(16),
            index: u16_at(24),
            count: u16_at(26),
            rendition: RenditionId(bytes[28]),
            flags: Flags(bytes[29]),
            capture_unix_us: u64_at(30),
            sign_delay_us: u32::from_be_bytes([bytes[38], bytes[39], bytes[40], bytes[41]]),
            len: u16_at(42),
        };
        if header.count == 0 || header.count > CHUNKS_PER_PART_MAX || header.index >= header.count {
            return Err(ChunkError("its place in its part is impossible"));
        }
        let is_possible = (u64::from(header.index)..NUMBER_MAX).contains(&header.number);
        if !is_possible || header.part > header.number {
            return Err(ChunkError("its number is impossible"));
        }
        if header.len == 0 || usize::from(header.len) > CHUNK_PAYLOAD_MAX {
            return Err(ChunkError("its payload length is out of range"));
        }
        if header.flags.0 & !Flags::ALL != 0 {
            return Err(ChunkError("unknown flags"));
        }
        Ok(header)
    }

    /// The number of the first chunk of its part.
    pub fn part_start(&self) -> u64 {
        self.number - u64::from(self.index)
    }

    /// When it was signed, µs since the Unix epoch.
    pub fn signed_unix_us(&self) -> u64 {
        self.capture_unix_us.saturating_add(u64::from(self.sign_delay_us))
    }
}

/// How long the chunk that `bytes` begin with says it is; they hold at least its header and signature.
pub(crate) fn encoded_len(bytes: &[u8]) -> usize {
    let payload = u16::from_be_bytes([bytes[HEADER_LEN - 2], bytes[HEADER_LEN - 1]]);
    HEADER_LEN + SIGNATURE_LEN + usize::from(payload)
}

/// The message that a chunk's signature covers: channel, header, BLAKE3 hash of the payload.
fn signed_message(channel: &ChannelId, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(32 + HEADER_LEN + 32);
    message.extend_from_slice(&channel.0);
    message.extend_from_slice(header);
    message.extend_from_slice(blake3::hash(payload).as_bytes());
    message
}
