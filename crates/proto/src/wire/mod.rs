//! What peers say to each other, to the byte: `docs/protocol.md` is this module's other half.
//!
//! A control stream carries frames: a length (variable-length integer, at most [`FRAME_LEN_MAX`]), then that many
//! bytes: the sender's handle for a swarm (one byte, named by its HANDSHAKE) and one or more messages. A message is a
//! type byte and fields in fixed order. HAVE, REQUEST, CANCEL and PEX are RFC 7574's; the others are Caudal's.
//!
//! Every length is checked before use, lists keep the bytes they came in, and nothing here trusts what it reads.

pub(crate) mod codec;
mod message;
mod range;
mod record;
mod stream;

use alloc::vec::Vec;

use bytes::Bytes;
use codec::{Reader, put_varint};

pub use codec::VARINT_MAX;
pub use message::{
    Accept, Attach, Handshake, Have, LAG_UNKNOWN_MS, Message, PATH_LEN_MAX, PEX_LEN_MAX, Path, RefuseReason,
    Reject, RejectReason, Request, SEGMENT_STARTS_MAX, SUGGESTIONS_MAX, SegmentStart, State, SubstreamState,
    TRACE_WANTS_MAX, Trace,
};
pub use range::{RANGES_MAX, RangeList};
pub use stream::{CHUNK_HEAD_LEN_MAX, CHUNK_STREAM_LEN_MAX, ChunkHead};

/// This protocol's version; peers of another are refused.
pub const VERSION: u8 = 1;
/// The transport's application protocol name (ALPN).
pub const ALPN: &[u8] = b"caudal/1";
/// Most bytes of a frame after its length.
pub const FRAME_LEN_MAX: usize = 4096;
/// Most bytes of a frame's length.
pub const FRAME_PREFIX_LEN_MAX: usize = 2;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A field ends after its message.
    #[error("the message ends inside a field")]
    Short,
    /// A field's value is outside its range.
    #[error("a field is out of range")]
    OutOfRange,
    /// No such message type.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// The frame is longer than allowed.
    #[error("a frame of {0} bytes is longer than {FRAME_LEN_MAX}")]
    FrameTooLong(u64),
    /// The chunk is not one.
    #[error(transparent)]
    Chunk(#[from] crate::chunk::ChunkError),
}

/// Collects messages of one swarm into frames, each at most [`FRAME_LEN_MAX`] long, length included in the output.
#[derive(Debug)]
pub struct FrameWriter {
    handle: u8,
    body: Vec<u8>,
}

impl FrameWriter {
    /// A writer of frames with this node's `handle` for the swarm.
    pub fn new(handle: u8) -> Self {
        Self { handle, body: Vec::new() }
    }

    /// Adds a message; gives a finished frame when it no longer fits into the one begun.
    pub fn push(&mut self, message: &Message) -> Option<Bytes> {
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        debug_assert!(encoded.len() < FRAME_LEN_MAX, "every message's limits keep it within a frame");
        let full = !self.body.is_empty() && 1 + self.body.len() + encoded.len() > FRAME_LEN_MAX;
        let done = if full { self.finish() } else { None };
        self.body.extend_from_slice(&encoded);
        done
    }

    /// Whether no frame is begun.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The frame begun, if any.
    pub fn finish(&mut self) -> Option<Bytes> {
        if self.body.is_empty() {
            return None;
        }
        let mut frame = Vec::with_capacity(FRAME_PREFIX_LEN_MAX + 1 + self.body.len());
        put_varint(&mut frame, 1 + self.body.len() as u64);
        frame.push(self.handle);
        frame.append(&mut self.body);
        Some(frame.into())
    }
}

/// Cuts a control stream into frames: hand in what arrives, take out whole frames (without their length).
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Appends what arrived. Take the frames out before adding more: the buffer never holds more than one read and
    /// one unfinished frame.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(&first) = self.buffer.first() else { return Ok(None) };
        let prefix = match first >> 6 {
            0 => 1,
            1 => 2,
            _ => return Err(WireError::FrameTooLong(u64::from(first))),
        };
        if self.buffer.len() < prefix {
            return Ok(None);
        }
        let len = Reader(Bytes::copy_from_slice(&self.buffer[..prefix])).varint()?;
        if len > FRAME_LEN_MAX as u64 {
            return Err(WireError::FrameTooLong(len));
        }
        let end = prefix + len as usize;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let frame = Bytes::copy_from_slice(&self.buffer[prefix..end]);
        self.buffer.drain(..end);
        Ok(Some(frame))
    }
}

/// The messages of one frame, read one at a time.
#[derive(Debug)]
pub struct Messages {
    /// The sender's handle for the swarm that the messages are about.
    pub handle: u8,
    reader: Reader,
    failed: bool,
}

impl Messages {
    /// Opens a frame.
    pub fn open(frame: Bytes) -> Result<Self, WireError> {
        if frame.len() > FRAME_LEN_MAX {
            return Err(WireError::FrameTooLong(frame.len() as u64));
        }
        let mut reader = Reader(frame);
        let handle = reader.u8()?;
        Ok(Self { handle, reader, failed: false })
    }
}

impl Iterator for Messages {
    type Item = Result<Message, WireError>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.is_empty() {
            return None;
        }
        let message = Message::decode(&mut self.reader);
        self.failed = message.is_err();
        Some(message)
    }
}

#[cfg(test)]
mod tests;
