//! One CMAF part: what the segmenter cuts, the swarm carries whole, and players read.
//!
//! A part crosses the swarm as an opaque payload in the envelope written by [`Part::to_payload`];
//! what the swarm itself must know of it (number, flags, capture time) travels in the signed chunk header.

use bytes::{BufMut, Bytes, BytesMut};

/// Most bytes a part's payload may have: half a second at 100 Mbit/s and some.
pub const PART_LEN_MAX: usize = 8 << 20;

/// Most bytes of init data: `ftyp` and `moov` without samples are a kilobyte or two.
pub const INIT_LEN_MAX: usize = 256 << 10;

/// One CMAF part (a `moof` + `mdat`, preceded by `prft`), ~200 ms of interleaved picture and sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Counts every part of a broadcast from 0.
    pub number: u64,
    /// First part of a segment: starts with a key frame (or is audio only), carries `init`.
    pub segment_start: bool,
    /// The timeline or decoder configuration does not continue the part before.
    pub discontinuity: bool,
    /// When the part's first sample arrived, µs since the Unix epoch.
    pub capture_unix_us: u64,
    /// Media time covered, µs.
    pub duration_us: u32,
    /// `ftyp` + `moov`: on every part that starts a segment, so that a joiner needs nothing older.
    pub init: Option<Bytes>,
    /// `prft` + `moof` + `mdat`.
    pub media: Bytes,
}

impl Part {
    /// What keeping it takes, bytes.
    pub fn kept_len(&self) -> usize {
        self.media.len() + self.init.as_ref().map_or(0, Bytes::len)
    }
}

/// Why a payload is not a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed part envelope: {0}")]
pub struct PartError(pub &'static str);

impl Part {
    /// The envelope: version (1 byte, 1), flags (1 byte: bit 0 = has init), media duration in µs (u32 BE),
    /// length of `init` (u32 BE, 0 when absent), `init`, `media` to the end.
    pub fn to_payload(&self) -> Bytes {
        let init = self.init.as_deref().unwrap_or_default();
        let mut out = BytesMut::with_capacity(10 + init.len() + self.media.len());
        out.put_u8(1);
        out.put_u8(u8::from(self.init.is_some()));
        out.put_u32(self.duration_us);
        out.put_u32(init.len() as u32);
        out.extend_from_slice(init);
        out.extend_from_slice(&self.media);
        out.freeze()
    }

    /// Reads the envelope back; `number`, `segment_start`, `discontinuity` and `capture_unix_us` come from the signed
    /// chunk header.
    pub fn from_payload(
        number: u64,
        segment_start: bool,
        discontinuity: bool,
        capture_unix_us: u64,
        payload: &Bytes,
    ) -> Result<Self, PartError> {
        if payload.len() < 10 {
            return Err(PartError("shorter than its fixed fields"));
        }
        if payload[0] != 1 {
            return Err(PartError("unknown version"));
        }
        let be =
            |at: usize| u32::from_be_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
        let has_init = match payload[1] {
            0 => false,
            1 => true,
            _ => return Err(PartError("unknown flags")),
        };
        let init_len = be(6) as usize;
        if init_len > payload.len() - 10 || (init_len > 0) != has_init {
            return Err(PartError("init length does not fit"));
        }
        if init_len > INIT_LEN_MAX {
            return Err(PartError("init data is too long"));
        }
        Ok(Self {
            number,
            segment_start,
            discontinuity,
            capture_unix_us,
            duration_us: be(2),
            init: has_init.then(|| payload.slice(10..10 + init_len)),
            media: payload.slice(10 + init_len..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_data_has_a_limit() {
        let part = |len: usize| Part {
            number: 0,
            segment_start: true,
            discontinuity: false,
            capture_unix_us: 0,
            duration_us: 200_000,
            init: Some(vec![1; len].into()),
            media: Bytes::from_static(b"media"),
        };
        let read = |len| Part::from_payload(0, true, false, 0, &part(len).to_payload());
        assert_eq!(read(INIT_LEN_MAX), Ok(part(INIT_LEN_MAX)));
        assert_eq!(part(INIT_LEN_MAX).kept_len(), INIT_LEN_MAX + 5);
        assert!(read(INIT_LEN_MAX + 1).is_err());
    }
}
