//! Reading and writing fields: big-endian fixed integers and QUIC's variable-length ones (RFC 9000 §16).

use alloc::vec::Vec;

use bytes::{Buf as _, Bytes};

use super::WireError;

/// Largest value of a variable-length integer.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// Takes fields off the front of a message; every read is checked.
#[derive(Debug, Clone)]
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.0.try_get_u8().map_err(|_| WireError::Short)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.0.try_get_u16().map_err(|_| WireError::Short)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.0.try_get_u32().map_err(|_| WireError::Short)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.0.try_get_u64().map_err(|_| WireError::Short)
    }

    /// A variable-length integer. Longer encodings than needed are accepted, as RFC 9000 does.
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let first = *self.0.first().ok_or(WireError::Short)?;
        match first >> 6 {
            0 => self.u8().map(|v| u64::from(v & 0x3f)),
            1 => self.u16().map(|v| u64::from(v & 0x3fff)),
            2 => self.u32().map(|v| u64::from(v & 0x3fff_ffff)),
            _ => self.u64().map(|v| v & VARINT_MAX),
        }
    }

    /// A variable-length integer of at most `max`.
    pub(crate) fn varint_up_to(&mut self, max: u64) -> Result<u64, WireError> {
        let value = self.varint()?;
        if value > max { Err(WireError::OutOfRange) } else { Ok(value) }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<Bytes, WireError> {
        if len > self.0.len() { Err(WireError::Short) } else { Ok(self.0.split_to(len)) }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.bytes(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&bytes);
        Ok(out)
    }
}

/// Appends `value`, cut to [`VARINT_MAX`], in the fewest bytes.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let value = value.min(VARINT_MAX);
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 9000 appendix A.1.
    #[test]
    fn varints_are_those_of_rfc_9000() {
        let examples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in examples {
            assert_eq!(Reader(Bytes::copy_from_slice(bytes)).varint(), Ok(value));
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(Reader(out.clone().into()).varint(), Ok(value));
            assert!(out.len() <= bytes.len());
        }
        assert_eq!(Reader(Bytes::from_static(&[0xc2, 0x19])).varint(), Err(WireError::Short));
    }
}
