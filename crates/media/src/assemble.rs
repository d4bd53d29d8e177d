//! Chunks back to parts in order, and parts to one playable byte stream.
//!
//! [`Assembler`] owns the order of parts and the rule for gaps: after one, playback resumes at a segment start.
//! It never decides when to stop waiting (the caller knows deadlines) and never checks a signature (what
//! it is given is verified). [`StreamWriter`] owns which init segment the reader of a stream already has, and where a
//! recording's timeline begins.

mod carry;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use carry::Carry;

use crate::fmp4::{Fmp4Error, InitTrack, fragment_start_us, move_times, read_init};
use crate::part::{PART_LEN_MAX, Part, PartError};

/// How far ahead of the next part a chunk may be: two minutes of 200 ms parts and more.
pub const PARTS_AHEAD_MAX: u64 = 1024;
/// A part that begins so much before the last one ended belongs to another timeline, µs.
const RESTART_US: u64 = 1_000_000;
/// What a chunk costs beside its payload, bytes: without it, empty chunks would be held for nothing.
const CHUNK_OVERHEAD: usize = 64;
/// Most payload bytes (and overhead) held for parts that are not delivered yet.
pub const HELD_BYTES_MAX: usize = 256 << 20;

/// One verified chunk, as the caller unpacks it from its signed header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkIn {
    /// Number of the part it belongs to.
    pub part: u64,
    /// Its place in that part, from 0.
    pub index: u16,
    /// Chunks in that part.
    pub count: u16,
    /// The part starts a segment.
    pub segment_start: bool,
    /// The part does not continue the one before.
    pub discontinuity: bool,
    /// When the part's first sample arrived at the source, µs since the Unix epoch.
    pub capture_unix_us: u64,
    /// This chunk's share of the part's payload.
    pub payload: Bytes,
}

/// What an assembler hands out, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssemblerOutput {
    /// The next part.
    Part(Part),
    /// Parts `from` up to, but not including, `to` will not come; the part that follows starts a segment.
    Gap {
        /// First missing part.
        from: u64,
        /// The part that follows.
        to: u64,
    },
}

/// Why a chunk was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// Index and count do not fit each other.
    #[error("part {part}: chunk {index} of {count} cannot be; expected an index below the count")]
    BadIndex {
        /// Part number.
        part: u64,
        /// The chunk's index.
        index: u16,
        /// The chunk's count.
        count: u16,
    },
    /// Two chunks of one part disagree about it.
    #[error("part {0}: its chunks disagree about count, flags or capture time")]
    Inconsistent(u64),
    /// More than [`PARTS_AHEAD_MAX`] parts ahead, or more bytes held than [`HELD_BYTES_MAX`].
    #[error("part {part} is beyond what may be held ({limit}); give up what is missing first")]
    TooFar {
        /// Part number.
        part: u64,
        /// Which limit.
        limit: &'static str,
    },
    /// The chunks of one part add up to more than a part may have.
    #[error("part {0} is longer than {PART_LEN_MAX} bytes")]
    TooLong(u64),
    /// The part is complete, but its payload is not a part: it counts as missing.
    #[error("part {part}: {source}")]
    Envelope {
        /// Part number.
        part: u64,
        /// What is wrong with it.
        source: PartError,
    },
}

/// Puts chunks together: [`Assembler::push`], then [`Assembler::poll`] until `None`.
#[derive(Debug, Default)]
pub struct Assembler {
    /// The next part to hand out.
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Nothing before this part is waited for any longer.
    abandoned: u64,
    /// The first part that was not handed out, since a gap opened.
    gap_from: Option<u64>,
    /// The next part handed out must start a segment.
    need_segment_start: bool,
    /// Mark the next part handed out.
    mark_discontinuity: bool,
}

#[derive(Debug)]
struct Held {
    count: u16,
    segment_start: bool,
    discontinuity: bool,
    capture_unix_us: u64,
    /// Payload bytes received.
    bytes: usize,
    /// What the held bytes count it for.
    cost: usize,
    chunks: BTreeMap<u16, Bytes>,
    state: PartState,
}

#[derive(Debug)]
enum PartState {
    Collecting,
    Complete(Part),
    /// Complete, but not a part.
    Broken,
}

impl Held {
    fn complete(&self) -> bool {
        matches!(self.state, PartState::Complete(_))
    }

    fn agrees(&self, chunk: &ChunkIn) -> bool {
        self.count == chunk.count
            && self.segment_start == chunk.segment_start
            && self.discontinuity == chunk.discontinuity
            && self.capture_unix_us == chunk.capture_unix_us
    }
}

impl Assembler {
    /// An assembler whose first part is `part`, or the first segment start after it.
    pub fn start_at(part: u64) -> Self {
        Self { next: part, abandoned: part, need_segment_start: true, ..Self::default() }
    }

    /// Forgets everything and starts again at `part` of another broadcast epoch; its first part is a discontinuity.
    pub fn reset(&mut self, part: u64) {
        *self = Self { mark_discontinuity: true, ..Self::start_at(part) };
    }

    /// The next part that is waited for.
    pub fn next_part(&self) -> u64 {
        self.next
    }

    /// Payload bytes held, with [`HELD_BYTES_MAX`]'s overhead per chunk.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes one chunk; chunks already held, or of parts already handed out or given up, are ignored.
    ///
    /// # Errors
    /// [`AssembleError`]: the chunk was not taken, what was held before is unchanged (except after `Envelope`).
    pub fn push(&mut self, chunk: ChunkIn) -> Result<(), AssembleError> {
        let ChunkIn { part, index, count, .. } = chunk;
        if index >= count {
            return Err(AssembleError::BadIndex { part, index, count });
        }
        if part < self.next {
            return Ok(());
        }
        if part - self.next >= PARTS_AHEAD_MAX {
            return Err(AssembleError::TooFar { part, limit: "1024 parts ahead" });
        }
        let cost = chunk.payload.len() + CHUNK_OVERHEAD;
        let held_bytes = self.held_bytes + cost;
        if let Some(held) = self.held.get(&part) {
            if !held.agrees(&chunk) {
                return Err(AssembleError::Inconsistent(part));
            }
            if !matches!(held.state, PartState::Collecting) || held.chunks.contains_key(&index) {
                return Ok(());
            }
            if held.bytes + chunk.payload.len() > PART_LEN_MAX {
                return Err(AssembleError::TooLong(part));
            }
        }
        if held_bytes > HELD_BYTES_MAX {
            return Err(AssembleError::TooFar { part, limit: "256 MiB held" });
        }
        let held = self.held.entry(part).or_insert_with(|| Held {
            count,
            segment_start: chunk.segment_start,
            discontinuity: chunk.discontinuity,
            capture_unix_us: chunk.capture_unix_us,
            bytes: 0,
            cost: 0,
            chunks: BTreeMap::new(),
            state: PartState::Collecting,
        });
        held.bytes += chunk.payload.len();
        held.cost += cost;
        held.chunks.insert(index, chunk.payload);
        self.held_bytes = held_bytes;
        if held.chunks.len() < usize::from(count) {
            return Ok(());
        }
        let result = held.finish(part);
        if result.is_err() {
            self.held_bytes -= held.cost;
            held.cost = 0;
        }
        result
    }

    /// Stops waiting for what is missing before `part`: playback resumes at the earliest segment start from which
    /// everything up to `part` is here, or else at the first segment start from `part` on.
    pub fn give_up_before(&mut self, part: u64) {
        self.abandoned = self.abandoned.max(part);
    }

    /// Stops waiting for the part that is missing: playback resumes at the next segment start that is known, or comes.
    pub fn skip_to_next_segment(&mut self) {
        // Complete parts before the hole are still handed out.
        let hole = (self.next..).find(|number| !self.held.get(number).is_some_and(Held::complete));
        let Some(hole) = hole else { return };
        let start = self.held.range(hole + 1..).find(|(_, held)| held.segment_start);
        self.abandoned = self.abandoned.max(start.map_or(hole + 1, |(number, _)| *number));
    }

    /// The next part or gap, when it is known.
    pub fn poll(&mut self) -> Option<AssemblerOutput> {
        loop {
            let ready = self
                .held
                .get(&self.next)
                .is_some_and(|held| held.complete() && (held.segment_start || !self.need_segment_start));
            if ready {
                if let Some(from) = self.gap_from.take() {
                    return Some(AssemblerOutput::Gap { from, to: self.next });
                }
                return self.take_next();
            }
            let target = self.resume_point()?;
            self.open_gap_to(target);
        }
    }

    /// Where to go on instead of waiting for `next`; `None` to wait.
    fn resume_point(&self) -> Option<u64> {
        // A part known not to start a segment is of no use after a gap, complete or not.
        if self.need_segment_start && self.held.get(&self.next).is_some_and(|held| !held.segment_start) {
            return Some(self.next.saturating_add(1));
        }
        if self.next >= self.abandoned {
            return None;
        }
        let usable =
            |start: &u64| (*start..self.abandoned).all(|n| self.held.get(&n).is_some_and(Held::complete));
        let starts = self.held.range(self.next..self.abandoned);
        let start = starts.filter(|(_, held)| held.segment_start).map(|(number, _)| *number).find(usable);
        Some(start.unwrap_or(self.abandoned))
    }

    fn open_gap_to(&mut self, part: u64) {
        // Parts skipped before the first one handed out are no gap: the viewer joins there.
        if !self.joining() {
            self.gap_from.get_or_insert(self.next);
            self.mark_discontinuity = true;
        }
        self.need_segment_start = true;
        let kept = self.held.split_off(&part);
        for held in std::mem::replace(&mut self.held, kept).into_values() {
            self.held_bytes -= held.cost;
        }
        self.next = part;
    }

    fn joining(&self) -> bool {
        self.need_segment_start && self.gap_from.is_none()
    }

    fn take_next(&mut self) -> Option<AssemblerOutput> {
        let held = self.held.remove(&self.next)?;
        self.held_bytes -= held.cost;
        let PartState::Complete(mut part) = held.state else { return None };
        part.discontinuity |= std::mem::take(&mut self.mark_discontinuity);
        self.need_segment_start = false;
        self.next = self.next.saturating_add(1);
        self.abandoned = self.abandoned.max(self.next);
        Some(AssemblerOutput::Part(part))
    }
}

impl Held {
    /// All chunks are here: reads the envelope.
    fn finish(&mut self, number: u64) -> Result<(), AssembleError> {
        let mut chunks = std::mem::take(&mut self.chunks).into_values();
        // A part of one chunk is not copied.
        let payload = if self.count == 1 {
            chunks.next().unwrap_or_default()
        } else {
            let mut payload = BytesMut::with_capacity(self.bytes);
            chunks.for_each(|chunk| payload.extend_from_slice(&chunk));
            payload.freeze()
        };
        let (start, discontinuity) = (self.segment_start, self.discontinuity);
        match Part::from_payload(number, start, discontinuity, self.capture_unix_us, &payload) {
            Ok(part) if start && part.init.is_none() => {
                self.state = PartState::Broken;
                let source = PartError("a segment start without init data");
                Err(AssembleError::Envelope { part: number, source })
            }
            Ok(part) => {
                self.state = PartState::Complete(part);
                Ok(())
            }
            Err(source) => {
                self.state = PartState::Broken;
                Err(AssembleError::Envelope { part: number, source })
            }
        }
    }
}

/// Parts to one playable fragmented MP4 stream: `ftyp moov (prft moof mdat)*`.
///
/// The init data is written first. Where only the picture's parameters change afterwards, they come in band from then on,
/// before each key frame: demuxers skip a second `moov`. Where more changes (the sound, another track) the new init
/// data is written too, which MediaSource accepts. Nothing else is rewritten, but for the times of a recording. Parts
/// before the first segment start give nothing.
#[derive(Debug, Default)]
pub struct StreamWriter {
    /// What the reader was told.
    init: Option<Bytes>,
    /// What holds now.
    current: Option<Bytes>,
    /// How parts are written since they differ.
    carry: Option<Carry>,
    recording: Option<Timeline>,
}

/// A recording's own timeline: from 0, whenever in the broadcast it was begun.
#[derive(Debug, Default)]
struct Timeline {
    tracks: Vec<InitTrack>,
    /// What its times are moved by, µs.
    by_us: Option<i64>,
    /// Where what was written ends on the broadcast's timeline, µs.
    end_us: u64,
}

impl Timeline {
    fn place(&mut self, part: &Part) -> Result<Bytes, Fmp4Error> {
        if let Some(init) = &part.init {
            self.tracks = read_init(init)?;
        }
        let Some(start) = fragment_start_us(&part.media, &self.tracks)? else {
            return Ok(part.media.clone());
        };
        let by = match self.by_us {
            // Another broadcast's timeline begins anew: it goes on where the last one ended.
            Some(by) if start + RESTART_US < self.end_us => by + (self.end_us - start) as i64,
            Some(by) => by,
            None => -(start as i64),
        };
        self.by_us = Some(by);
        self.end_us = start + u64::from(part.duration_us);
        move_times(&part.media, &self.tracks, by)
    }
}

impl StreamWriter {
    /// A writer for a new reader.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer for a recording: its times begin at 0, as a file's do, and do not run backwards when the source was
    /// restarted.
    pub fn recording() -> Self {
        Self { recording: Some(Timeline::default()), ..Self::default() }
    }

    /// The bytes that this part adds to the stream, in order.
    pub fn write(&mut self, part: &Part) -> impl Iterator<Item = Bytes> + use<> {
        let changed = part.init.clone().filter(|init| self.current.as_ref() != Some(init));
        let told = changed.and_then(|changed| self.change(changed));
        let media = self.init.is_some().then(|| match &mut self.recording {
            // What cannot be read is written as it came.
            Some(timeline) => timeline.place(part).unwrap_or_else(|_| part.media.clone()),
            None => part.media.clone(),
        });
        let media = media.map(|media| match &self.carry {
            Some(carry) => carry.rewrite(part.number, &media).unwrap_or(media),
            None => media,
        });
        told.into_iter().chain(media)
    }

    /// The init data is another from here on; gives what the reader must be told.
    fn change(&mut self, init: Bytes) -> Option<Bytes> {
        self.current = Some(init.clone());
        if let Some(told) = &self.init {
            let carry = read_init(told).ok().zip(read_init(&init).ok());
            self.carry = carry.and_then(|(told, now)| Carry::new(&told, &now));
            if self.carry.is_some() {
                return None;
            }
        }
        self.init = Some(init.clone());
        Some(init)
    }
}

#[cfg(test)]
mod tests;
