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

/// Of chunks that are sampled for tracing one comes at least this often …
const TRACED_PERIOD_US: u64 = 15_000_000;
/// … and no two closer than this.
const TRACED_GAP_US: u64 = 1_000_000;
/// As many as there can be substreams: every one has its turn.
const TRACED_TURNS: u64 = 16;

/// Which chunks are traced.
#[derive(Debug)]
struct Marks {
    every: u64,
    /// The number from which on the next one is due, and when the last one was.
    next: u64,
    last_unix_us: Option<u64>,
}

impl Marks {
    fn takes(&mut self, number: u64, now_unix_us: u64) -> bool {
        let last_us = *self.last_unix_us.get_or_insert(now_unix_us);
        let since_us = now_unix_us.saturating_sub(last_us);
        if since_us >= TRACED_PERIOD_US {
            self.next = self.next.min(number + turn(number));
        }
        let takes = number >= self.next && since_us >= TRACED_GAP_US;
        if takes {
            self.next = number.saturating_add(self.every).saturating_add(turn(number));
            self.last_unix_us = Some(now_unix_us);
        }
        takes
    }
}

/// A few chunks more or less, by the number alone: at even distances only some substreams would ever be traced.
fn turn(number: u64) -> u64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % TRACED_TURNS
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
    marks: Option<Marks>,
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
        Self { key, channel, epoch, rendition, payload_max, next_number: 0, next_part: 0, marks: None }
    }

    /// Marks about one chunk in `every` for tracing, and one each 15 s at least; 0: none.
    #[must_use]
    pub fn with_traced(mut self, every: u64) -> Self {
        self.marks = (every > 0).then_some(Marks { every, next: every, last_unix_us: None });
        self
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
                let number = self.next_number + index as u64;
                let traced = self.marks.as_mut().is_some_and(|marks| marks.takes(number, now_unix_us));
                let header = Header {
                    epoch: self.epoch,
                    number,
                    part: self.next_part,
                    index: index as u16,
                    count: count as u16,
                    rendition: self.rendition,
                    flags: part.flags.with(Flags::TRACED, traced),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of traced chunks in so many seconds of `per_part` chunks each 200 ms.
    fn traced(every: u64, per_part: u64, seconds: u64) -> Vec<u64> {
        let mut marks = Marks { every, next: every, last_unix_us: None };
        (0..seconds * 5 * per_part)
            .filter(|number| marks.takes(*number, number / per_part * 200_000))
            .collect()
    }

    #[test]
    fn about_one_chunk_in_so_many_is_traced_and_every_substream_has_its_turn() {
        let marked = traced(500, 10, 2000);
        assert!((190..=200).contains(&marked.len()), "{}", marked.len());
        let slow = traced(500, 1, 3000);
        assert!((150..=200).contains(&slow.len()), "one each 15 s or little more: {}", slow.len());
        for (marked, k) in [&marked, &slow].into_iter().flat_map(|marked| (1..=16).map(move |k| (marked, k)))
        {
            let mut substreams: Vec<u64> = marked.iter().map(|n| n % k).collect();
            substreams.sort_unstable();
            substreams.dedup();
            assert_eq!(substreams.len() as u64, k, "{substreams:?}");
        }
        assert!(traced(1, 20, 10).len() <= 10, "one a second at most");
        assert_eq!(traced(u64::MAX, 1, 20).len(), 1, "one each 15 s all the same");
    }

    #[test]
    fn a_mark_is_signed_and_nobody_marks_unasked() {
        let key = SecretKey::from_bytes(&[1; 32]);
        let signer =
            |every| Signer::new(key.clone(), key.channel(), 1, RenditionId(0), 1024).with_traced(every);
        let part = |capture_unix_us| PartIn {
            flags: Flags::SEGMENT_START,
            capture_unix_us,
            payload: alloc::vec![0; 20_000].into(),
        };
        let marked = |mut signer: Signer| {
            let chunks = [0, 2_000_000].map(|at| signer.sign(&part(at), at));
            chunks.into_iter().flatten().filter(|chunk| chunk.header().flags.has(Flags::TRACED)).count()
        };
        assert_eq!((marked(signer(5)), marked(signer(0))), (1, 0));
    }
}
