//! A file as an endless live stream: MP4 or FLV, told apart by content, looping without a seam.
//!
//! Owns: where one pass ends and the next begins. Never waits: the caller paces by the media time it is given.

use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};

use super::flv::{Demuxer, FlvError, Tags};
use super::mp4::{Mp4Error, Mp4File};
use super::timeline::{pass_length, rescale};
use crate::sample::{Ingest, Sample, TrackConfig, TrackKind};

/// Bytes read from an FLV file at a time.
const READ_LEN: usize = 64 << 10;

/// Why a file cannot be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Reading failed.
    #[error("reading the file failed: {0}")]
    Io(#[from] std::io::Error),
    /// See [`FlvError`].
    #[error(transparent)]
    Flv(#[from] FlvError),
    /// See [`Mp4Error`].
    #[error(transparent)]
    Mp4(#[from] Mp4Error),
    /// Neither MP4 nor FLV.
    #[error(
        "the file is {found}, and MP4 or FLV is needed. Convert it: \
         ffmpeg -i INPUT -c:v libx264 -g 60 -c:a aac OUTPUT.mp4 (-c copy is enough when it holds H.264 and AAC)"
    )]
    Unknown {
        /// What it looks like.
        found: &'static str,
    },
    /// There is nothing to play in it.
    #[error("the file holds no picture or sound that can be played")]
    Empty,
    /// Its samples last no time: played in real time it would be sent thousands of times over.
    #[error(
        "the file's sample durations are wrong (more than {SAMPLES_PER_SECOND_MAX} samples a second). Write them anew: \
         ffmpeg -i INPUT -c:v libx264 -r 30 -g 60 -c:a aac OUTPUT.mp4"
    )]
    TooFast,
}

/// Most samples a second, picture and sound together: four times what cameras for slow motion give.
const SAMPLES_PER_SECOND_MAX: u64 = 1000;
/// So many samples are played before their rate is judged.
const JUDGED_AFTER: u64 = 500;

/// Endless [`Ingest`] from a file.
///
/// Contract: [`next_event`](Self::next_event) never ends; per track `dts` strictly increases across passes; every pass
/// begins with a key frame; tracks are announced once unless they change. A file that is damaged or cut is
/// played as far as it is whole, which a warning says once.
#[derive(Debug)]
pub struct FileSource<R> {
    demux: Demux<R>,
    start_unix_us: u64,
    queue: VecDeque<Ingest>,
    media_time_us: u64,
    /// Timescales of video and audio.
    scales: [u32; 2],
    /// Video samples before the first key frame of a pass are left out.
    key_seen: bool,
    samples_in_pass: u64,
    pace: Pace,
    damage_said: bool,
}

#[derive(Debug)]
enum Demux<R> {
    Mp4(Box<Mp4Pass<R>>),
    Flv { reader: R, demuxer: Demuxer, tags: Box<Tags> },
}

impl<R: Read + Seek> FileSource<R> {
    /// Opens a file. Samples are stamped as if they arrived at `start_unix_us` plus their media time, which is when a
    /// caller who paces hands them on.
    ///
    /// # Errors
    /// [`FileError`]; one that is only damaged further in opens.
    pub fn open(mut reader: R, start_unix_us: u64) -> Result<Self, FileError> {
        let mut head = Vec::new();
        reader.by_ref().take(12).read_to_end(&mut head)?;
        reader.seek(SeekFrom::Start(0))?;
        let mut queue = VecDeque::new();
        let demux = match (head.get(..3), head.get(4..8)) {
            (Some(b"FLV"), _) => Demux::Flv { reader, demuxer: Demuxer::new(), tags: Box::default() },
            (
                _,
                Some(b"ftyp" | b"styp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide" | b"moof" | b"pnot"),
            ) => {
                let file = Mp4File::open(reader)?;
                queue.extend(file.warnings().iter().cloned().map(Ingest::Warning));
                queue.extend(file.tracks().map(|(kind, config)| Ingest::Track(kind, config.clone())));
                Demux::Mp4(Box::new(Mp4Pass::new(file)))
            }
            _ => return Err(FileError::Unknown { found: looks_like(&head) }),
        };
        let mut source = Self {
            demux,
            start_unix_us,
            queue: VecDeque::new(),
            media_time_us: 0,
            scales: [1, 1],
            key_seen: false,
            samples_in_pass: 0,
            pace: Pace::default(),
            damage_said: false,
        };
        for event in queue {
            source.give(event);
        }
        Ok(source)
    }

    /// The next event, and the media time in µs since the start at which it is due.
    ///
    /// # Errors
    /// [`FileError`] when reading fails or nothing can be played; calling again tries again from where it was.
    pub fn next_event(&mut self) -> Result<(u64, Ingest), FileError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                if let Ingest::Sample(sample) = &event {
                    self.media_time_us = sample.arrived_unix_us - self.start_unix_us;
                }
                return Ok((self.media_time_us, event));
            }
            if let Err(damage) = self.read() {
                self.end_of_pass(damage)?;
            }
            self.check_pace()?;
        }
    }

    /// Reads on. An error ends the pass: `None` is the plain end of the file.
    fn read(&mut self) -> Result<(), Option<FileError>> {
        match &mut self.demux {
            Demux::Mp4(pass) => match pass.next_sample() {
                Ok(Some(sample)) => self.give(Ingest::Sample(sample)),
                Ok(None) => return Err(None),
                Err(error) => return Err(Some(error.into())),
            },
            Demux::Flv { reader, demuxer, tags } => {
                let mut events = VecDeque::new();
                let result = read_flv(reader, demuxer, tags, &mut events);
                for event in events {
                    self.give(event);
                }
                result?;
            }
        }
        Ok(())
    }

    /// An error that no further pass can mend.
    fn check_pace(&self) -> Result<(), FileError> {
        if self.pace.too_fast { Err(FileError::TooFast) } else { Ok(()) }
    }

    /// Stamps an event and queues it.
    fn give(&mut self, event: Ingest) {
        let event = match event {
            Ingest::Sample(mut sample) => {
                self.key_seen |= sample.track == TrackKind::Video && sample.key;
                if sample.track == TrackKind::Video && !self.key_seen {
                    return;
                }
                self.samples_in_pass += 1;
                let scale = self.scales[sample.track as usize];
                sample.arrived_unix_us =
                    self.start_unix_us + rescale(sample.dts.max(0), scale, 1_000_000) as u64;
                self.pace.count(sample.arrived_unix_us);
                Ingest::Sample(sample)
            }
            Ingest::Track(kind, config) => {
                self.scales[kind as usize] = config.timescale;
                Ingest::Track(kind, config)
            }
            other => other,
        };
        self.queue.push_back(event);
    }

    fn end_of_pass(&mut self, damage: Option<FileError>) -> Result<(), FileError> {
        if self.samples_in_pass == 0 {
            return Err(damage.unwrap_or(FileError::Empty));
        }
        if let Some(damage) = damage {
            if matches!(damage, FileError::Io(_) | FileError::Mp4(Mp4Error::Io(_))) {
                return Err(damage);
            }
            if !std::mem::replace(&mut self.damage_said, true) {
                self.queue
                    .push_back(Ingest::Warning(format!("{damage}. What is whole is played in a loop.")));
            }
        }
        self.key_seen = false;
        self.samples_in_pass = 0;
        match &mut self.demux {
            Demux::Mp4(pass) => pass.splice(),
            Demux::Flv { reader, demuxer, tags } => {
                reader.seek(SeekFrom::Start(0))?;
                *demuxer = Demuxer::new();
                tags.splice();
            }
        }
        Ok(())
    }
}

/// Samples a second, judged [`JUDGED_AFTER`] at a time.
#[derive(Debug, Default)]
struct Pace {
    samples: u64,
    since_us: u64,
    too_fast: bool,
}

impl Pace {
    fn count(&mut self, at_us: u64) {
        if self.samples == 0 {
            self.since_us = at_us;
        }
        self.samples += 1;
        if self.samples > JUDGED_AFTER {
            let least_us = JUDGED_AFTER * 1_000_000 / SAMPLES_PER_SECOND_MAX;
            self.too_fast = at_us.saturating_sub(self.since_us) < least_us;
            self.samples = 0;
        }
    }
}

/// Reads until there are events. Arrival is stamped later, so the timeline sees none.
fn read_flv<R: Read>(
    reader: &mut R,
    demuxer: &mut Demuxer,
    tags: &mut Tags,
    events: &mut VecDeque<Ingest>,
) -> Result<(), Option<FileError>> {
    while events.is_empty() {
        if let Some(tag) = demuxer.next().map_err(|error| Some(error.into()))? {
            tags.push(tag.tag_type, tag.timestamp_ms, tag.body, 0, events);
            continue;
        }
        let mut piece = Vec::new();
        reader.by_ref().take(READ_LEN as u64).read_to_end(&mut piece).map_err(|error| Some(error.into()))?;
        if piece.is_empty() {
            demuxer.finish().map_err(|error| Some(error.into()))?;
            return Err(None);
        }
        demuxer.push(&piece);
    }
    Ok(())
}

fn looks_like(head: &[u8]) -> &'static str {
    match head {
        [] => "empty",
        [0x1a, 0x45, 0xdf, 0xa3, ..] => "Matroska or WebM",
        [0x47, ..] => "probably an MPEG transport stream",
        [b'R', b'I', b'F', b'F', ..] => "AVI or WAV",
        [0, 0, 0, 1, ..] | [0, 0, 1, ..] => "a bare video or MPEG program stream",
        [b'I', b'D', b'3', ..] | [0xff, ..] => "MP3 or bare AAC",
        [b'O', b'g', b'g', ..] => "Ogg",
        _ => "of an unknown kind",
    }
}

/// An MP4 file played again and again on one timeline.
#[derive(Debug)]
struct Mp4Pass<R> {
    file: Mp4File<R>,
    /// Passes done, and how long one lasts: ticks, and ticks per second.
    passes: i128,
    length: Option<(i128, i128)>,
    video: Lane,
    audio: Lane,
}

/// One track of a pass, in its timescale.
#[derive(Debug, Default)]
struct Lane {
    scale: i128,
    /// Where a pass starts, where it ends so far, and the duration of its last sample.
    start: Option<i128>,
    end: i128,
    last_duration: i128,
    /// The last decode time given out.
    last_out: Option<i64>,
}

impl<R: Read + Seek> Mp4Pass<R> {
    fn new(file: Mp4File<R>) -> Self {
        let lane = |wanted| Lane {
            scale: file
                .tracks()
                .find(|(kind, _)| *kind == wanted)
                .map_or(0, |(_, config): (_, &TrackConfig)| config.timescale.into()),
            ..Lane::default()
        };
        let (video, audio) = (lane(TrackKind::Video), lane(TrackKind::Audio));
        Self { file, passes: 0, length: None, video, audio }
    }

    fn next_sample(&mut self) -> Result<Option<Sample>, Mp4Error> {
        let Some((mut sample, duration)) = self.file.next_sample()? else { return Ok(None) };
        let lane = match sample.track {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        };
        lane.start.get_or_insert(sample.dts.into());
        lane.last_duration = if duration == 0 { lane.last_duration } else { duration.into() };
        lane.end = i128::from(sample.dts) + lane.last_duration;
        if let Some((ticks, scale)) = self.length {
            let offset = (self.passes * ticks * lane.scale * 2 + scale).div_euclid(scale * 2);
            let offset = offset.clamp(0, 1 << 62) as i64;
            let composition = sample.pts - sample.dts;
            let floor = lane.last_out.map_or(0, |last| last.saturating_add(1));
            sample.dts = sample.dts.saturating_add(offset).max(floor);
            sample.pts = sample.dts.saturating_add(composition);
        }
        lane.last_out = Some(sample.dts);
        Ok(Some(sample))
    }

    /// Starts over. All tracks move on by the same time, so that their sync holds for ever.
    fn splice(&mut self) {
        let span = |lane: &Lane| (lane.end - lane.start.unwrap_or(lane.end), lane.scale);
        let (video, audio) = (span(&self.video), span(&self.audio));
        self.length.get_or_insert_with(|| pass_length(video, self.video.last_duration, audio));
        self.passes += 1;
        self.file.rewind();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn other_files_are_named_with_the_cure() {
        for (bytes, name) in [
            (&b"\x1a\x45\xdf\xa3 matroska"[..], "Matroska"),
            (b"", "empty"),
            (b"hello, world", "unknown kind"),
            (b"\x47@\0\x10", "transport stream"),
        ] {
            let error = FileSource::open(Cursor::new(bytes), 0).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("ffmpeg -i"), "{error}");
        }
    }

    #[test]
    fn samples_without_duration_are_noticed() {
        let judge = |step_us: u64| {
            let mut pace = Pace::default();
            (0..JUDGED_AFTER + 1).for_each(|i| pace.count(1_000_000 + i * step_us));
            pace.too_fast
        };
        assert!(judge(0) && judge(100));
        // 240 frames and 94 sounds a second.
        assert!(!judge(2_994));
    }

    #[test]
    fn empty_and_broken_files_do_not_loop_for_ever() {
        let mut flv = FileSource::open(Cursor::new(b"FLV\x01\x05\0\0\0\x09\0\0\0\0"), 0).unwrap();
        assert!(matches!(flv.next_event(), Err(FileError::Empty)));
        let mut flv =
            FileSource::open(Cursor::new(b"FLV\x01\x05\0\0\0\x09\0\0\0\0garbagegarbage"), 0).unwrap();
        assert!(matches!(flv.next_event(), Err(FileError::Flv(FlvError::BadTag { offset: 13, .. }))));
        let error =
            FileSource::open(Cursor::new(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\x10\0mdat1234"), 0).unwrap_err();
        assert!(error.to_string().contains("“mdat” box at byte 16: 4084 bytes are missing"), "{error}");
    }
}
