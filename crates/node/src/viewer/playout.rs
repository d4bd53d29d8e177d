//! Chunks to parts in order, and when to stop waiting for one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use caudal_media::assemble::{AssembleError, Assembler, AssemblerOutput, ChunkIn};
use caudal_media::part::Part;
use caudal_proto::chunk::{Flags, VerifiedChunk};

/// A part that is missing while later ones are there is waited for this long.
const PATIENCE: Duration = Duration::from_secs(6);
/// Chunks kept until it is known which part joining began with.
const EARLY_MAX: usize = 4096;
/// Joining that lacks its first part for this long begins with another.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// What came out.
#[derive(Debug)]
pub(crate) enum Played {
    /// The next part.
    Part(Part),
    /// This many parts were stepped over.
    Gap(u64),
}

/// Puts one channel's parts together, broadcast after broadcast.
#[derive(Debug)]
pub(crate) struct Playout {
    assembler: Assembler,
    epoch: u64,
    /// Joining began at this chunk; its part is not known yet.
    start: Option<(u64, Instant)>,
    early: BTreeMap<u64, VerifiedChunk>,
    newest_part: u64,
    newest_number: u64,
    /// First chunk of each part that is not out yet.
    part_starts: BTreeMap<u64, u64>,
    next_number: u64,
    waiting: Option<(u64, Instant)>,
    /// Parts given up because the stream had run too far ahead of them; not told yet.
    stepped_over: u64,
    /// The next part begins a new broadcast.
    fresh: bool,
    played_before: bool,
}

impl Playout {
    pub(crate) fn new() -> Self {
        Self {
            assembler: Assembler::start_at(0),
            epoch: 0,
            start: None,
            early: BTreeMap::new(),
            newest_part: 0,
            newest_number: 0,
            part_starts: BTreeMap::new(),
            next_number: 0,
            waiting: None,
            stepped_over: 0,
            fresh: false,
            played_before: false,
        }
    }

    /// A broadcast begins, for this viewer, at chunk `number`.
    pub(crate) fn begin(&mut self, epoch: u64, number: u64) {
        self.epoch = epoch;
        self.start = Some((number, Instant::now()));
        self.early.clear();
        self.newest_part = 0;
        self.newest_number = 0;
        self.part_starts.clear();
        self.next_number = number;
        self.waiting = None;
        self.fresh = self.played_before;
    }

    /// The broadcast that is played; 0 before the first.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn chunk(&mut self, chunk: VerifiedChunk) {
        let header = *chunk.header();
        if header.epoch != self.epoch {
            return;
        }
        let Some((start, since)) = self.start else {
            self.take(&chunk);
            return;
        };
        if self.early.len() < EARLY_MAX {
            self.early.insert(header.number, chunk);
        }
        let first = self.early.values().map(|chunk| chunk.header()).find(|h| h.part_start() == start);
        let begin = match first {
            Some(header) => header.part,
            None if since.elapsed() > START_PATIENCE => {
                let starts = self.early.values().map(|chunk| chunk.header());
                let Some(other) = starts.filter(|h| h.flags.has(Flags::SEGMENT_START)).map(|h| h.part).min()
                else {
                    return;
                };
                other
            }
            None => return,
        };
        self.start = None;
        self.assembler.reset(begin);
        for chunk in std::mem::take(&mut self.early).into_values() {
            self.take(&chunk);
        }
    }

    fn take(&mut self, chunk: &VerifiedChunk) {
        let header = chunk.header();
        self.newest_part = self.newest_part.max(header.part);
        self.newest_number = self.newest_number.max(header.number);
        self.part_starts.insert(header.part, header.part_start());
        self.part_starts.insert(header.part + 1, header.part_start() + u64::from(header.count));
        let piece = || ChunkIn {
            part: header.part,
            index: header.index,
            count: header.count,
            segment_start: header.flags.has(Flags::SEGMENT_START),
            discontinuity: header.flags.has(Flags::DISCONTINUITY),
            capture_unix_us: header.capture_unix_us,
            payload: chunk.payload(),
        };
        let mut taken = self.assembler.push(piece());
        if matches!(taken, Err(AssembleError::TooFar { .. })) {
            // This computer slept, or was cut off: what it was waiting for is long gone.
            self.stepped_over += header.part.saturating_sub(self.assembler.next_part());
            self.assembler.reset(header.part);
            self.part_starts = self.part_starts.split_off(&header.part);
            self.next_number = header.part_start();
            self.waiting = None;
            taken = self.assembler.push(piece());
        }
        if let Err(error) = taken {
            // The source signed it; nothing that a peer could do leads here.
            tracing::warn!("from the source: {error}");
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Played> {
        if self.stepped_over > 0 {
            return Some(Played::Gap(std::mem::take(&mut self.stepped_over)));
        }
        match self.assembler.poll()? {
            AssemblerOutput::Part(mut part) => {
                part.discontinuity |= std::mem::take(&mut self.fresh);
                self.played_before = true;
                self.part_starts = self.part_starts.split_off(&(part.number + 1));
                if let Some((_, number)) = self.part_starts.first_key_value() {
                    self.next_number = *number;
                }
                Some(Played::Part(part))
            }
            AssemblerOutput::Gap { from, to } => Some(Played::Gap(to - from)),
        }
    }

    /// Time passed: a part waited for too long is given up.
    pub(crate) fn tick(&mut self) {
        let next = self.assembler.next_part();
        if self.start.is_some() || self.newest_part <= next {
            self.waiting = None;
            return;
        }
        match self.waiting {
            Some((part, since)) if part == next => {
                if since.elapsed() > PATIENCE {
                    self.assembler.skip_to_next_segment();
                    self.waiting = None;
                }
            }
            _ => self.waiting = Some((next, Instant::now())),
        }
    }

    /// The newest chunk that came.
    pub(crate) fn newest_number(&self) -> u64 {
        self.newest_number
    }

    /// The first chunk that playing still needs.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use caudal_proto::chunk::{PartIn, Signer};
    use caudal_proto::id::{RenditionId, SecretKey};

    use super::*;

    #[test]
    fn a_computer_that_slept_plays_on_from_the_next_segment() {
        let key = SecretKey::from_bytes(&[7; 32]);
        let channel = key.channel();
        let mut signer = Signer::new(key, channel, 1, RenditionId(0), 16_384);
        // Four minutes of parts of 200 ms, a segment each second.
        let chunks: Vec<VerifiedChunk> = (0..1200)
            .flat_map(|number| {
                let segment_start = number % 5 == 0;
                let part = Part {
                    number,
                    segment_start,
                    discontinuity: false,
                    capture_unix_us: number * 200_000,
                    duration_us: 200_000,
                    init: segment_start.then(|| Bytes::from_static(b"init")),
                    media: Bytes::from_static(b"media"),
                };
                let flags = Flags::default().with(Flags::SEGMENT_START, segment_start);
                let flags = flags.with(Flags::INIT, segment_start);
                let capture_unix_us = part.capture_unix_us;
                signer.sign(&PartIn { flags, capture_unix_us, payload: part.to_payload() }, capture_unix_us)
            })
            .collect();
        let mut playout = Playout::new();
        playout.begin(1, 0);
        let (mut parts, mut gap) = (Vec::new(), 0);
        // It sleeps from part 10 to part 1152, which starts no segment.
        for chunk in chunks.into_iter().filter(|chunk| !(10..1152).contains(&chunk.header().part)) {
            playout.chunk(chunk);
            while let Some(played) = playout.poll() {
                match played {
                    Played::Part(part) => parts.push(part.number),
                    Played::Gap(missing) => gap += missing,
                }
            }
        }
        assert_eq!(parts, (0..10).chain(1155..1200).collect::<Vec<u64>>());
        assert_eq!(gap, 1142);
        assert_eq!(playout.next_number(), 1200);
    }
}
