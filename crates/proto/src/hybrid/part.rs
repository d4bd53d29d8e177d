//! A part as HTTP carries it: its chunks as they were signed, index 0 to the last, back to back (`docs/protocol.md`,
//! *Parts over HTTP*). Each chunk says its own length, and every one is verified before anybody sees it.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::broadcast::Certificate;
use crate::chunk::{Chunk, HEADER_LEN, VerifiedChunk, Verify, encoded_len};
use crate::id::{RenditionId, SIGNATURE_LEN};

/// Which part was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartId {
    /// The rendition.
    pub rendition: RenditionId,
    /// The broadcast.
    pub epoch: u64,
    /// Its number in that broadcast and rendition, from 0.
    pub part: u64,
}

/// What is wrong with a part that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartBodyError {
    /// Not chunks back to back.
    #[error("it is not made of chunks: {0}")]
    Malformed(&'static str),
    /// Chunks of another part, broadcast or rendition, or not one after another.
    #[error("it is not the part that was asked for")]
    Foreign,
    /// A signature does not hold.
    #[error("a chunk in it was not signed by the broadcast")]
    Forged,
}

/// What came of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRead {
    /// The chunks that are genuine and belong to it.
    pub chunks: Vec<VerifiedChunk>,
    /// The first thing that was wrong; with none the part is whole.
    pub error: Option<PartBodyError>,
    /// Chunks whose signature did not hold.
    pub forged: u64,
}

/// Cuts `body` into the chunks of part `wanted` and verifies each. What is genuine is kept, whatever stands beside it.
pub fn read_part(
    body: &Bytes,
    wanted: PartId,
    certificate: &Certificate,
    verifier: &mut (impl Verify + ?Sized),
) -> PartRead {
    let mut read = PartRead { chunks: Vec::new(), error: None, forged: 0 };
    let (mut at, mut index, mut count) = (0, 0u16, None);
    while at < body.len() {
        let chunk = match cut(body, at) {
            Ok(chunk) => chunk,
            Err(error) => {
                read.error.get_or_insert(error);
                return read;
            }
        };
        at += chunk.encoded().len();
        let header = *chunk.header();
        let belongs = header.epoch == wanted.epoch
            && certificate.epoch == wanted.epoch
            && header.part == wanted.part
            && header.rendition == wanted.rendition
            && header.index == index
            && *count.get_or_insert(header.count) == header.count;
        if !belongs {
            read.error.get_or_insert(PartBodyError::Foreign);
            return read;
        }
        index += 1;
        match VerifiedChunk::new(chunk, &certificate.channel, &certificate.broadcast, verifier) {
            Ok(chunk) => read.chunks.push(chunk),
            Err(_) => {
                read.forged += 1;
                read.error.get_or_insert(PartBodyError::Forged);
            }
        }
    }
    if count != Some(index) {
        read.error.get_or_insert(PartBodyError::Malformed("it ends before its last chunk"));
    }
    read
}

/// The chunk that begins at `at`; nothing is copied.
fn cut(body: &Bytes, at: usize) -> Result<Chunk, PartBodyError> {
    let rest = &body[at..];
    if rest.len() < HEADER_LEN + SIGNATURE_LEN {
        return Err(PartBodyError::Malformed("it ends within a chunk's header"));
    }
    let len = encoded_len(rest);
    if rest.len() < len {
        return Err(PartBodyError::Malformed("it ends within a chunk"));
    }
    Chunk::decode(body.slice(at..at + len)).map_err(|error| PartBodyError::Malformed(error.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::CertificateTerms;
    use crate::chunk::{Ed25519Verifier, Flags, PartIn, Signer};
    use crate::id::{BroadcastId, SecretKey};

    fn signed() -> (Certificate, Vec<Vec<VerifiedChunk>>) {
        let (channel, key) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let terms = CertificateTerms {
            epoch: 5,
            not_before_unix_us: 0,
            not_after_unix_us: 1,
            substreams: 4,
            rate_bps: 1_000_000,
        };
        let certificate = Certificate::sign(&channel, BroadcastId(key.public()), terms);
        let mut signer = Signer::new(key, channel.channel(), 5, RenditionId(0), 1024);
        let part = |byte: u8| PartIn {
            flags: Flags::SEGMENT_START,
            capture_unix_us: 1,
            payload: alloc::vec![byte; 2500].into(),
        };
        (certificate, (0..2).map(|byte| signer.sign(&part(byte), 2)).collect())
    }

    fn body(chunks: &[VerifiedChunk]) -> Vec<u8> {
        chunks.iter().flat_map(|chunk| chunk.encoded().to_vec()).collect()
    }

    fn read(body: Vec<u8>, part: u64) -> PartRead {
        read_of(RenditionId(0), body, part)
    }

    fn read_of(rendition: RenditionId, body: Vec<u8>, part: u64) -> PartRead {
        read_part(&body.into(), PartId { rendition, epoch: 5, part }, &signed().0, &mut Ed25519Verifier)
    }

    #[test]
    fn a_part_comes_back_as_it_was_signed() {
        let (_, parts) = signed();
        let whole = read(body(&parts[1]), 1);
        assert_eq!((whole.error, whole.forged), (None, 0));
        assert_eq!(whole.chunks, parts[1]);
    }

    #[test]
    fn no_flipped_byte_gets_through_and_what_is_genuine_beside_it_does() {
        let (_, parts) = signed();
        let good = body(&parts[0]);
        for at in (0..good.len()).step_by(13) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let got = read(bad, 0);
            assert!(got.error.is_some(), "byte {at}");
            assert!(got.chunks.iter().all(|chunk| parts[0].contains(chunk)), "byte {at}");
        }
        let mut bad = good;
        *bad.last_mut().unwrap() ^= 1;
        let got = read(bad, 0);
        assert_eq!((got.error, got.forged, got.chunks.len()), (Some(PartBodyError::Forged), 1, 2));
    }

    #[test]
    fn another_part_a_half_one_and_noise_are_none() {
        let (_, parts) = signed();
        assert_eq!(
            read(body(&parts[0]), 1).error,
            Some(PartBodyError::Foreign),
            "yesterday's under a new name"
        );
        assert_eq!(
            read(body(&parts[0][1..]), 0).error,
            Some(PartBodyError::Foreign),
            "not from its beginning"
        );
        let other = read_of(RenditionId(1), body(&parts[0]), 0);
        assert_eq!(other.error, Some(PartBodyError::Foreign), "the same number in another rendition");
        let good = body(&parts[0]);
        for len in (0..good.len()).step_by(17) {
            assert!(read(good[..len].to_vec(), 0).error.is_some(), "{len} bytes");
        }
        assert!(read([good.as_slice(), b"more"].concat(), 0).error.is_some());
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let noise = (0..rng.usize(..600)).map(|_| rng.u8(..)).collect();
            assert!(read(noise, 0).error.is_some());
        }
    }
}
