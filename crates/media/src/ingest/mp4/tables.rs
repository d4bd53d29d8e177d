//! Sample tables walked sample by sample (ISO/IEC 14496-12 §8.6–8.7), without unrolling them into memory.

use mp4_atom::{CttsEntry, StscEntry, StszSamples, SttsEntry};

/// Most samples of one track: two weeks at 30 fps. Small tables can claim billions.
pub const SAMPLES_MAX: u32 = 40_000_000;

/// Where a sample lies and when it plays, in the file's own times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SampleRef {
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) dts: i64,
    pub(super) composition: i64,
    pub(super) duration: u32,
    pub(super) key: bool,
}

#[derive(Debug)]
pub(super) enum ChunkOffsets {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl ChunkOffsets {
    fn get(&self, chunk: usize) -> Option<u64> {
        match self {
            Self::Narrow(offsets) => offsets.get(chunk).map(|offset| u64::from(*offset)),
            Self::Wide(offsets) => offsets.get(chunk).copied(),
        }
    }
}

/// The boxes of one track.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) stts: Vec<SttsEntry>,
    pub(super) ctts: Vec<CttsEntry>,
    pub(super) stsc: Vec<StscEntry>,
    pub(super) sizes: StszSamples,
    pub(super) chunks: ChunkOffsets,
    /// Numbers of key samples, counted from 1; `None`: every sample is one.
    pub(super) sync: Option<Vec<u32>>,
}

/// A place in [`Tables`].
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    sample: u32,
    dts: i64,
    /// Index in `stts`, `ctts` with how much of the entry is used; index in `stss`.
    stts: (usize, u32),
    ctts: (usize, u32),
    sync: usize,
    /// Index in `stsc`, of the next chunk, samples left in the open chunk and where its next one lies.
    stsc: usize,
    chunk: usize,
    left: u32,
    offset: u64,
    skip_chunk: bool,
}

impl Cursor {
    /// The next sample of the first sample description, or `None` at the end of the shortest table.
    pub(super) fn next(&mut self, tables: &Tables) -> Option<SampleRef> {
        loop {
            if self.sample >= SAMPLES_MAX {
                return None;
            }
            while self.left == 0 {
                self.open_chunk(tables)?;
            }
            let size = match &tables.sizes {
                StszSamples::Identical { count, size } => (self.sample < *count).then_some(*size)?,
                StszSamples::Different { sizes } => *sizes.get(self.sample as usize)?,
            };
            let duration = self.duration(tables);
            let found = SampleRef {
                offset: self.offset,
                size,
                dts: self.dts,
                composition: self.composition(tables),
                duration,
                key: self.key(tables),
            };
            self.left -= 1;
            self.offset = self.offset.saturating_add(size.into());
            self.dts = self.dts.saturating_add(duration.into());
            self.sample += 1;
            if !self.skip_chunk {
                return Some(found);
            }
        }
    }

    fn open_chunk(&mut self, tables: &Tables) -> Option<()> {
        self.offset = tables.chunks.get(self.chunk)?;
        while tables.stsc.get(self.stsc + 1).is_some_and(|next| next.first_chunk as usize <= self.chunk + 1) {
            self.stsc += 1;
        }
        let run = tables.stsc.get(self.stsc)?;
        self.left = run.samples_per_chunk;
        self.skip_chunk = run.sample_description_index > 1;
        self.chunk += 1;
        Some(())
    }

    fn duration(&mut self, tables: &Tables) -> u32 {
        while tables.stts.get(self.stts.0).is_some_and(|entry| self.stts.1 >= entry.sample_count) {
            self.stts = (self.stts.0 + 1, 0);
        }
        self.stts.1 = self.stts.1.saturating_add(1);
        let entry = tables.stts.get(self.stts.0).or(tables.stts.last());
        // Old writers put negative steps here; a sample lasts something.
        entry.map_or(1, |entry| entry.sample_delta).clamp(0, i32::MAX as u32)
    }

    fn composition(&mut self, tables: &Tables) -> i64 {
        while tables.ctts.get(self.ctts.0).is_some_and(|entry| self.ctts.1 >= entry.sample_count) {
            self.ctts = (self.ctts.0 + 1, 0);
        }
        self.ctts.1 = self.ctts.1.saturating_add(1);
        // Version 0 is unsigned, yet some writers put negative numbers into it.
        tables.ctts.get(self.ctts.0).map_or(0, |entry| i64::from(entry.sample_offset as i32))
    }

    fn key(&mut self, tables: &Tables) -> bool {
        let Some(sync) = &tables.sync else { return true };
        while sync.get(self.sync).is_some_and(|number| *number <= self.sample) {
            self.sync += 1;
        }
        sync.get(self.sync).is_some_and(|number| *number == self.sample + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_chunks_of_several_sizes() {
        let tables = Tables {
            stts: vec![
                SttsEntry { sample_count: 2, sample_delta: 10 },
                SttsEntry { sample_count: 0, sample_delta: 99 },
                SttsEntry { sample_count: 3, sample_delta: 20 },
            ],
            ctts: vec![
                CttsEntry { sample_count: 1, sample_offset: 5 },
                CttsEntry { sample_count: 4, sample_offset: 0xffff_fffe },
            ],
            stsc: vec![
                StscEntry { first_chunk: 1, samples_per_chunk: 2, sample_description_index: 1 },
                StscEntry { first_chunk: 2, samples_per_chunk: 1, sample_description_index: 1 },
            ],
            sizes: StszSamples::Different { sizes: vec![3, 4, 5, 6, 7] },
            chunks: ChunkOffsets::Narrow(vec![100, 200, 300]),
            sync: Some(vec![1, 3]),
        };
        let mut cursor = Cursor::default();
        let mut read = Vec::new();
        while let Some(sample) = cursor.next(&tables) {
            read.push((sample.offset, sample.size, sample.dts, sample.composition, sample.key));
        }
        // Three chunks hold four samples; the fifth size has no place.
        assert_eq!(
            read,
            [(100, 3, 0, 5, true), (103, 4, 10, -2, false), (200, 5, 20, -2, true), (300, 6, 40, -2, false)]
        );
    }
}
