//! The head of a chunk's unidirectional stream: what this hop adds to a chunk; the chunk itself follows unchanged.

use alloc::vec::Vec;

use bytes::Bytes;

use super::codec::{Reader, put_varint};
use super::{LAG_UNKNOWN_MS, WireError};
use crate::chunk::{CHUNK_LEN_MAX, Chunk};

/// Most bytes of a chunk stream's head.
pub const CHUNK_HEAD_LEN_MAX: usize = 5;
/// Most bytes of a chunk's stream.
pub const CHUNK_STREAM_LEN_MAX: usize = CHUNK_HEAD_LEN_MAX + CHUNK_LEN_MAX;
const TYPE_CHUNK: u8 = 1;

/// What the sender says of this hop. Unsigned: advice for choosing parents, never for playing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    /// The sender's handle for the swarm.
    pub handle: u8,
    /// The chunk answers a REQUEST; otherwise it was pushed by a parent.
    pub requested: bool,
    /// How long the chunk has travelled since it was signed, up to this sending, as the hops added it up; ms,
    /// [`LAG_UNKNOWN_MS`] when the sender cannot say. Free of clock skew.
    pub lag_ms: u16,
}

impl ChunkHead {
    /// The bytes before the chunk.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(CHUNK_HEAD_LEN_MAX);
        out.extend_from_slice(&[TYPE_CHUNK, self.handle, u8::from(self.requested)]);
        put_varint(&mut out, u64::from(self.lag_ms.min(LAG_UNKNOWN_MS)));
        out.into()
    }

    /// Reads a whole stream: head and chunk.
    pub fn decode(stream: Bytes) -> Result<(Self, Chunk), WireError> {
        let mut reader = Reader(stream);
        let head = Self::read(&mut reader)?;
        Ok((head, Chunk::decode(reader.0)?))
    }

    /// Reads a stream that is at hand in two pieces: all of the head, and the chunk.
    pub fn decode_parts(head: Bytes, body: Bytes) -> Result<(Self, Chunk), WireError> {
        let mut reader = Reader(head);
        let head = Self::read(&mut reader)?;
        if !reader.is_empty() {
            return Err(WireError::OutOfRange);
        }
        Ok((head, Chunk::decode(body)?))
    }

    fn read(reader: &mut Reader) -> Result<Self, WireError> {
        match reader.u8()? {
            TYPE_CHUNK => {}
            other => return Err(WireError::UnknownType(other)),
        }
        let handle = reader.u8()?;
        let requested = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::OutOfRange),
        };
        let lag_ms = reader.varint_up_to(u64::from(LAG_UNKNOWN_MS))? as u16;
        Ok(Self { handle, requested, lag_ms })
    }
}
