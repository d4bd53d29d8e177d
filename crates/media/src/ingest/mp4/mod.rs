//! MP4 files, progressive (index before or behind the media) and fragmented, as samples in decode order.
//!
//! Owns: finding the boxes in the file, interleaving its tracks, reading one sample at a time. Memory is bounded by
//! the file's index and one sample. Timescales are the file's own, so nothing is rounded. Standard: ISO/IEC 14496-12.

mod boxes;
mod fragments;
mod tables;

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;

use self::boxes::{BoxIn, Track};
pub use self::fragments::FRAGMENT_SAMPLES_MAX;
pub use self::tables::SAMPLES_MAX;
use self::tables::{Cursor, SampleRef};
use super::codec;
use crate::sample::{Sample, TrackConfig, TrackKind};

/// Most bytes of index (`moov` or one `moof`) that are read; a day of video has under 40 MB.
pub const INDEX_LEN_MAX: u64 = 128 << 20;
/// Most bytes one sample may have.
pub const SAMPLE_LEN_MAX: u32 = 32 << 20;
/// Most boxes looked at before the index is found.
pub const TOP_LEVEL_BOXES_MAX: usize = 100_000;

/// Why a file cannot be played, or not further. Offsets count bytes from its start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Mp4Error {
    /// Reading failed.
    #[error("reading the MP4 file failed: {0}")]
    Io(#[from] std::io::Error),
    /// A box that breaks the standard.
    #[error("malformed MP4: the “{kind}” box at byte {offset}: {reason}")]
    Malformed {
        /// Where the box starts.
        offset: u64,
        /// Its four-letter type.
        kind: String,
        /// What is wrong.
        reason: String,
    },
    /// The file ends too early.
    #[error(
        "truncated MP4: the file ends at byte {file_len}, inside {what} at byte {offset}: {missing} bytes are missing"
    )]
    Truncated {
        /// Where that which is cut starts.
        offset: u64,
        /// What is cut.
        what: String,
        /// How much is not there.
        missing: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// There is no index.
    #[error(
        "the MP4 file has no index (“moov” box) up to its end at byte {file_len}: it was not finished when it was \
         written. Record as fragmented MP4 or FLV to survive that"
    )]
    NoIndex {
        /// Length of the file.
        file_len: u64,
    },
    /// Nothing in it can be played.
    #[error("the MP4 file has no track that can be played: {0}")]
    NoTracks(String),
}

/// One track while it plays.
#[derive(Debug, Default)]
struct Playing {
    cursor: Cursor,
    /// Samples of fragments read ahead.
    queue: VecDeque<SampleRef>,
    ahead: Option<SampleRef>,
    next_dts: i64,
    last_out: i64,
}

/// An open file.
///
/// Contract: [`next_sample`](Self::next_sample) yields both tracks interleaved by decode time; per track `dts` strictly
/// increases from near 0 in [`TrackConfig::timescale`]; presentation times honour the edit list's start.
#[derive(Debug)]
pub struct Mp4File<R> {
    reader: R,
    len: u64,
    tracks: Vec<Track>,
    playing: Vec<Playing>,
    warnings: Vec<String>,
    /// Where the first box that may be a fragment starts, and where the next one to read does.
    fragments: Option<u64>,
    next_fragment: Option<u64>,
    /// What is added to each track's times so that the earliest is 0.
    shift: Vec<i64>,
}

impl<R: Read + Seek> Mp4File<R> {
    /// Reads the index.
    ///
    /// # Errors
    /// [`Mp4Error`]: no index, a malformed one, or no track of a supported codec.
    pub fn open(mut reader: R) -> Result<Self, Mp4Error> {
        let len = reader.seek(SeekFrom::End(0))?;
        let mut at = 0;
        let mut cut = None;
        let mut first_moof = None;
        let mut movie = None;
        for _ in 0..TOP_LEVEL_BOXES_MAX {
            let Some(head) = read_head(&mut reader, at, len)? else { break };
            if head.end > len {
                let missing = head.end - len;
                let what = format!("the “{}” box", boxes::text(head.kind));
                cut = Some(Mp4Error::Truncated { offset: at, what, missing, file_len: len });
                break;
            }
            match &head.kind {
                b"moov" => {
                    let body = read_body(&mut reader, &head)?;
                    movie = Some(boxes::movie(head.with(&body))?);
                    first_moof.get_or_insert(head.end);
                    break;
                }
                b"moof" => {
                    first_moof.get_or_insert(at);
                }
                _ => {}
            }
            at = head.end;
        }
        let Some(movie) = movie else { return Err(cut.unwrap_or(Mp4Error::NoIndex { file_len: len })) };
        if movie.tracks.is_empty() {
            let why = if movie.warnings.is_empty() { "none at all".into() } else { movie.warnings.join(" ") };
            return Err(Mp4Error::NoTracks(why));
        }
        let mut file = Self {
            reader,
            len,
            playing: Vec::new(),
            shift: vec![0; movie.tracks.len()],
            tracks: movie.tracks,
            warnings: movie.warnings,
            fragments: first_moof.filter(|_| movie.fragmented),
            next_fragment: None,
        };
        file.rewind();
        file.fill()?;
        file.align();
        Ok(file)
    }

    /// The tracks, in file order: one of each kind at most.
    pub fn tracks(&self) -> impl Iterator<Item = (TrackKind, &TrackConfig)> {
        self.tracks.iter().map(|track| (track.kind, &track.config))
    }

    /// What of the file is left out, in words for the broadcaster.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Starts over.
    pub fn rewind(&mut self) {
        self.playing.clear();
        self.playing.resize_with(self.tracks.len(), || Playing { last_out: -1, ..Playing::default() });
        self.next_fragment = self.fragments;
    }

    /// The next sample in decode order and its duration in its track's timescale, or `None` at the end. Its
    /// `arrived_unix_us` is 0.
    ///
    /// # Errors
    /// [`Mp4Error::Truncated`] at the first sample that is not whole: all before it were.
    pub fn next_sample(&mut self) -> Result<Option<(Sample, u32)>, Mp4Error> {
        loop {
            self.fill()?;
            let scaled = |index: usize, sample: &SampleRef| {
                let ticks = i128::from(sample.dts) + i128::from(self.shift[index]);
                (ticks, i128::from(self.tracks[index].config.timescale))
            };
            let earliest = (0..self.tracks.len())
                .filter_map(|index| {
                    self.playing[index].ahead.as_ref().map(|sample| (index, scaled(index, sample)))
                })
                .min_by(|(_, a), (_, b)| (a.0 * b.1).cmp(&(b.0 * a.1)))
                .map(|(index, _)| index);
            let Some(index) = earliest else { return Ok(None) };
            let Some(sample) = self.playing[index].ahead.take() else { return Ok(None) };
            let duration = self.tracks[index].unit_duration.unwrap_or(sample.duration);
            if let Some(read) = self.read_sample(index, sample)? {
                return Ok(Some((read, duration)));
            }
        }
    }

    /// Reads the bytes of a sample; `None` when it has none that can be played.
    fn read_sample(&mut self, index: usize, sample: SampleRef) -> Result<Option<Sample>, Mp4Error> {
        let track = &self.tracks[index];
        if sample.size == 0 {
            return Ok(None);
        }
        let end = sample.offset.saturating_add(sample.size.into());
        if sample.size > SAMPLE_LEN_MAX || end > self.len {
            let what = match track.kind {
                TrackKind::Video => "a video sample".to_owned(),
                TrackKind::Audio => "an audio sample".to_owned(),
            };
            if end <= self.len {
                let reason = format!("a sample of {} bytes is longer than {SAMPLE_LEN_MAX}", sample.size);
                return Err(Mp4Error::Malformed { offset: sample.offset, kind: "mdat".into(), reason });
            }
            let missing = end - self.len.max(sample.offset);
            return Err(Mp4Error::Truncated { offset: sample.offset, what, missing, file_len: self.len });
        }
        let mut data = vec![0; sample.size as usize];
        self.reader.seek(SeekFrom::Start(sample.offset))?;
        self.reader.read_exact(&mut data)?;
        let mut data = Bytes::from(data);
        let mut key = sample.key;
        if track.kind == TrackKind::Video {
            // The same cleaning as live input gets.
            let Some(unit) = codec::h264_access_unit(&data, track.length_size) else {
                let reason = "NAL unit lengths in a video sample do not add up".to_owned();
                return Err(Mp4Error::Malformed { offset: sample.offset, kind: "mdat".into(), reason });
            };
            if !unit.slices {
                return Ok(None);
            }
            key |= unit.idr;
            data = unit.data;
        }
        let playing = &mut self.playing[index];
        let placed = sample.dts.saturating_add(self.shift[index]);
        let dts = placed.max(playing.last_out.saturating_add(1));
        playing.last_out = dts;
        let pts =
            if track.kind == TrackKind::Audio { dts } else { placed.saturating_add(sample.composition) };
        Ok(Some(Sample { track: track.kind, dts, pts, key, data, arrived_unix_us: 0 }))
    }

    /// Looks ahead by one sample on every track, reading fragments as needed.
    fn fill(&mut self) -> Result<(), Mp4Error> {
        for (track, playing) in self.tracks.iter().zip(&mut self.playing) {
            if playing.ahead.is_none() {
                playing.ahead = playing.cursor.next(&track.tables).or_else(|| playing.queue.pop_front());
                if let Some(sample) = &playing.ahead {
                    playing.next_dts =
                        playing.next_dts.max(sample.dts.saturating_add(sample.duration.into()));
                }
            }
        }
        while self.playing.iter().any(|playing| playing.ahead.is_none()) && self.read_fragment()? {
            for playing in &mut self.playing {
                if playing.ahead.is_none() {
                    playing.ahead = playing.queue.pop_front();
                }
            }
        }
        Ok(())
    }

    /// Reads the next `moof`, if there is one and room to keep its samples.
    fn read_fragment(&mut self) -> Result<bool, Mp4Error> {
        if self.playing.iter().map(|playing| playing.queue.len()).sum::<usize>() >= FRAGMENT_SAMPLES_MAX {
            return Ok(false);
        }
        while let Some(at) = self.next_fragment {
            let Some(head) = read_head(&mut self.reader, at, self.len)? else {
                self.next_fragment = None;
                break;
            };
            // A cut `mdat` is found out by its samples; a cut `moof` has none to tell.
            self.next_fragment = Some(head.end).filter(|end| *end < self.len);
            if &head.kind != b"moof" {
                continue;
            }
            let body = read_body(&mut self.reader, &head)?;
            let moof = head.with(&body);
            let mut next_dts: Vec<i64> = self.playing.iter().map(|playing| playing.next_dts).collect();
            let queues = &mut self.playing;
            fragments::moof(moof, &self.tracks, &mut next_dts, |index, sample| {
                queues[index].queue.push_back(sample);
            })?;
            for (playing, dts) in self.playing.iter_mut().zip(next_dts) {
                playing.next_dts = dts;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Chooses the shifts: edit lists are applied, then all tracks move together so that the earliest starts at 0.
    fn align(&mut self) {
        let starts = self.tracks.iter().zip(&self.playing).filter_map(|(track, playing)| {
            let start = i128::from(playing.ahead?.dts) + i128::from(track.edit);
            Some((start, i128::from(track.config.timescale)))
        });
        let Some((start, scale)) = starts.min_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1))) else { return };
        for (shift, track) in self.shift.iter_mut().zip(&self.tracks) {
            let own = (start * i128::from(track.config.timescale)).div_euclid(scale);
            *shift = (i128::from(track.edit) - own).clamp(-(1 << 58), 1 << 58) as i64;
        }
    }
}

/// A top-level box.
struct Head {
    kind: [u8; 4],
    offset: u64,
    body: u64,
    end: u64,
}

impl Head {
    fn with<'a>(&self, body: &'a [u8]) -> BoxIn<'a> {
        BoxIn { kind: self.kind, offset: self.offset, body_offset: self.body, body }
    }
}

/// Reads the box header at `at`; `None` at the end of the file.
fn read_head<R: Read + Seek>(reader: &mut R, at: u64, len: u64) -> Result<Option<Head>, Mp4Error> {
    if len.saturating_sub(at) < 8 {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(at))?;
    let mut head = [0; 8];
    reader.read_exact(&mut head)?;
    let kind = [head[4], head[5], head[6], head[7]];
    let mut size = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
    let mut body = at + 8;
    if size == 1 {
        if len - at < 16 {
            return Ok(None);
        }
        reader.read_exact(&mut head)?;
        size = u64::from_be_bytes(head);
        body += 8;
    } else if size == 0 {
        size = len - at;
    }
    let end = at.saturating_add(size);
    if end < body {
        let reason = format!("its length is {size}, less than its own header's");
        return Err(Mp4Error::Malformed { offset: at, kind: boxes::text(kind), reason });
    }
    Ok(Some(Head { kind, offset: at, body, end }))
}

/// Reads a whole box into memory, which the file must have.
fn read_body<R: Read + Seek>(reader: &mut R, head: &Head) -> Result<Vec<u8>, Mp4Error> {
    let len = head.end - head.body;
    if len > INDEX_LEN_MAX {
        let reason = format!("it is {len} bytes long, more than {INDEX_LEN_MAX}");
        return Err(Mp4Error::Malformed { offset: head.offset, kind: boxes::text(head.kind), reason });
    }
    reader.seek(SeekFrom::Start(head.body))?;
    let mut body = Vec::new();
    let read = reader.by_ref().take(len).read_to_end(&mut body)? as u64;
    if read < len {
        let what = format!("the “{}” box", boxes::text(head.kind));
        let file_len = head.body + read;
        return Err(Mp4Error::Truncated { offset: head.offset, what, missing: len - read, file_len });
    }
    Ok(body)
}
