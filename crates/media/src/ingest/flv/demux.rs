//! FLV files into tags, incrementally (Adobe FLV 10.1 annex E.2–E.4.1). Never looks inside a tag.

use bytes::{Buf, Bytes, BytesMut};

/// Most bytes a tag may have: its length field has 24 bits.
pub const TAG_LEN_MAX: usize = 0xff_ffff;
/// Most bytes of header before the first tag.
const HEADER_LEN_MAX: u32 = 1 << 16;

/// Why a file is not FLV, or not whole. Offsets count bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlvError {
    /// The signature or header is wrong.
    #[error("not an FLV file: byte {offset} should be part of {expected}")]
    NotFlv {
        /// Where.
        offset: u64,
        /// What should be there.
        expected: &'static str,
    },
    /// A tag of a type that does not exist: the file is damaged here.
    #[error(
        "malformed FLV: at byte {offset} a tag (audio 8, video 9 or script 18) should start, not type {found}"
    )]
    BadTag {
        /// Where.
        offset: u64,
        /// The type found.
        found: u8,
    },
    /// An encrypted tag.
    #[error("FLV: the tag at byte {offset} is encrypted; export the file without protection")]
    Encrypted {
        /// Where.
        offset: u64,
    },
    /// The file ends inside a tag.
    #[error("truncated FLV: the tag at byte {offset} needs {missing} more bytes than the file has")]
    Truncated {
        /// Where the cut tag starts.
        offset: u64,
        /// How many bytes are missing, as far as is known.
        missing: u64,
    },
}

/// One tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// 8 audio, 9 video, 18 script data.
    pub tag_type: u8,
    /// Milliseconds, wrapping at 32 bits.
    pub timestamp_ms: u32,
    /// What [`Tags::push`](super::Tags::push) reads.
    pub body: Bytes,
}

/// Contract: [`push`](Self::push) bytes as they come, then call [`next`](Self::next) until it returns `None`; at
/// the end of the file, [`finish`](Self::finish) tells whether it was whole. It buffers what was pushed and not
/// yet read, never more.
#[derive(Debug, Default)]
pub struct Demuxer {
    buffer: BytesMut,
    /// Offset in the file of the buffer's first byte.
    offset: u64,
    header_read: bool,
    /// Header bytes beyond the fixed nine, and the size field before a tag, still to be passed over.
    skip: usize,
}

impl Demuxer {
    /// At the start of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole tag, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FlvError`] with the offset of what is wrong; the same again when called again.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Tag>, FlvError> {
        if !self.header_read && !self.read_header()? {
            return Ok(None);
        }
        let skipped = self.skip.min(self.buffer.len());
        self.advance(skipped);
        self.skip -= skipped;
        if self.skip > 0 || self.buffer.len() < 11 {
            return Ok(None);
        }
        let head = &self.buffer[..11];
        let found = head[0];
        if found & 0x20 != 0 && found & 0xc0 == 0 {
            return Err(FlvError::Encrypted { offset: self.offset });
        }
        if !matches!(found, super::TAG_AUDIO | super::TAG_VIDEO | super::TAG_SCRIPT) {
            return Err(FlvError::BadTag { offset: self.offset, found });
        }
        let len = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let timestamp_ms = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        if self.buffer.len() < 11 + len {
            return Ok(None);
        }
        self.advance(11);
        let body = self.buffer.split_to(len).freeze();
        self.offset += len as u64;
        // The size of this tag, written again behind it. Many writers get it wrong, so it is not compared.
        self.skip = 4;
        Ok(Some(Tag { tag_type: found, timestamp_ms, body }))
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// [`FlvError::Truncated`] when the file ends inside a tag, [`FlvError::NotFlv`] when inside its header.
    pub fn finish(&self) -> Result<(), FlvError> {
        if !self.header_read {
            return Err(FlvError::NotFlv { offset: self.buffer.len() as u64, expected: "the 9-byte header" });
        }
        let have = self.buffer.len() as u64;
        if have == 0 {
            return Ok(());
        }
        let needed = match self.buffer.get(1..4) {
            Some(len) if have >= 11 => 11 + u64::from(u32::from_be_bytes([0, len[0], len[1], len[2]])),
            _ => 11,
        };
        Err(FlvError::Truncated { offset: self.offset, missing: needed.saturating_sub(have) })
    }

    fn read_header(&mut self) -> Result<bool, FlvError> {
        for (at, (found, expected)) in self.buffer.iter().zip(b"FLV\x01").enumerate() {
            if found != expected {
                return Err(FlvError::NotFlv {
                    offset: at as u64,
                    expected: "the signature “FLV” and version 1",
                });
            }
        }
        if self.buffer.len() < 9 {
            return Ok(false);
        }
        let len = u32::from_be_bytes([self.buffer[5], self.buffer[6], self.buffer[7], self.buffer[8]]);
        if !(9..=HEADER_LEN_MAX).contains(&len) {
            return Err(FlvError::NotFlv { offset: 5, expected: "a header length of 9" });
        }
        self.advance(9);
        // The rest of the header, then the size of "the tag before the first", always 0.
        self.skip = len as usize - 9 + 4;
        self.header_read = true;
        Ok(true)
    }

    fn advance(&mut self, count: usize) {
        self.buffer.advance(count);
        self.offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for (kind, ms, body) in [(18, 0u32, &b"meta"[..]), (9, 0x0102_0304, b"picture"), (8, 40, b"")] {
            let [_, a, b, c] = (body.len() as u32).to_be_bytes();
            let [high, x, y, z] = ms.to_be_bytes();
            file.extend([kind, a, b, c, x, y, z, high, 0, 0, 0]);
            file.extend(body);
            file.extend((body.len() as u32 + 11).to_be_bytes());
        }
        file
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<Tag>, FlvError> {
        let mut demuxer = Demuxer::new();
        let mut tags = Vec::new();
        for piece in bytes.chunks(step) {
            demuxer.push(piece);
            while let Some(tag) = demuxer.next()? {
                tags.push(tag);
            }
        }
        demuxer.finish().map(|()| tags)
    }

    #[test]
    fn any_cutting_of_the_input_gives_the_same_tags() {
        let whole = read(&file(), usize::MAX).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!(
            (whole[1].tag_type, whole[1].timestamp_ms, &whole[1].body[..]),
            (9, 0x0102_0304, &b"picture"[..])
        );
        for step in 1..40 {
            assert_eq!(read(&file(), step).unwrap(), whole);
        }
    }

    #[test]
    fn errors_name_the_byte() {
        assert_eq!(
            read(b"GIF89a", 9),
            Err(FlvError::NotFlv { offset: 0, expected: "the signature “FLV” and version 1" })
        );
        let mut bad = file();
        bad[32] = 77;
        assert_eq!(read(&bad, 9), Err(FlvError::BadTag { offset: 32, found: 77 }));
        bad[32] = 0x29;
        assert_eq!(read(&bad, 9), Err(FlvError::Encrypted { offset: 32 }));
        let cut = file()[..46].to_vec();
        assert_eq!(read(&cut, 9), Err(FlvError::Truncated { offset: 32, missing: 4 }));
        assert!(read(&cut, 9).unwrap_err().to_string().contains("byte 32 needs 4 more bytes"));
        assert!(read(b"FLV", 1).is_err());
        // A file may end right behind a body, without the size field.
        assert!(read(&file()[..file().len() - 4], 9).is_ok());
    }
}
