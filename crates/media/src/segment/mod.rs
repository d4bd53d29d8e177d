//! When a part and a segment end: samples in, CMAF parts out.
//!
//! Owns the output timeline (monotonic whatever the encoder does), which tracks are in it, and discontinuities.
//! Never decodes, never looks at a clock (arrival times come with the samples), and never writes a box itself
//! ([`crate::fmp4`] does). ISO/IEC 23000-19 (CMAF) §6.6: a segment starts with a sync sample, a part is a CMAF chunk.
//!
//! ```text
//! gathering ──(every announced track has a sample, or `start_wait` of media passed)──► running
//!     ▲                                                                                 │
//!     └──────────── Discontinuity, Resumed, End, a jump of the timestamps ──────────────┘
//! ```
//!
//! While running, a new track or configuration takes effect at the next video key frame (at once when there is no
//! video), because a segment must start there: the other track is not interrupted. A track that
//! falls silent for [`TRACK_SILENT_MAX`] is left out, so that players do not wait for it, and comes back as a new track.

mod gather;
mod queue;
mod running;

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    fmp4::{self, Fmp4Error},
    part::Part,
    sample::{Ingest, Sample, TrackConfig, TrackKind},
};
use gather::{Gather, Plan};
use queue::{Timebase, to_us};
use running::{Running, Sink};

/// Longest access unit accepted, bytes: a key frame of a 100 Mbit/s stream and some.
pub const SAMPLE_LEN_MAX: usize = 4 << 20;
/// A part is cut early once it holds this many bytes, so that with one more sample it fits [`crate::part::PART_LEN_MAX`].
pub const PART_BYTES_MAX: usize = 7 << 19;
/// A part is cut early once it holds this many samples.
pub const PART_SAMPLES_MAX: usize = 2048;
/// Most samples kept while waiting for tracks to show up, or for a key frame.
pub const PENDING_SAMPLES_MAX: usize = 2048;
/// Most bytes kept while waiting.
pub const PENDING_BYTES_MAX: usize = 32 << 20;
/// Finished parts that may wait for [`Segmenter::poll`] before `push` refuses more.
pub const READY_PARTS_MAX: usize = 256;
/// Forward jump of a track's timestamps that starts a new timeline.
pub const JUMP_FORWARD_MAX: Duration = Duration::from_secs(10);
/// Backward jump that starts a new timeline; smaller ones are flattened.
pub const JUMP_BACK_MAX: Duration = Duration::from_secs(1);
/// How long (by arrival) one track may send nothing while the other goes on before it is left out.
pub const TRACK_SILENT_MAX: Duration = Duration::from_secs(5);
/// How much sound is kept, waiting for the first key frame of an announced picture, before starting without it.
pub const KEY_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a segmenter may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmenterConfig {
    /// Media per part, 100–500 ms (clamped); a part ends at the sample boundary nearest to it. 200 ms: ten times less
    /// delay than a segment, and boxes of about 400 bytes still cost under 1 % at 1 Mbit/s.
    pub part_target: Duration,
    /// Length of a segment when there is no picture whose key frames decide it.
    pub audio_segment: Duration,
    /// Media to wait for a second track before starting with one: encoders announce both within a few frames.
    pub start_wait: Duration,
}

impl Default for SegmenterConfig {
    fn default() -> Self {
        Self {
            part_target: Duration::from_millis(200),
            audio_segment: Duration::from_secs(2),
            start_wait: Duration::from_millis(500),
        }
    }
}

/// Why something pushed was not taken. The segmenter stays usable: what was pushed before is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A sample before its track was described.
    #[error(
        "a {0:?} sample came before its track's configuration; the encoder must send the configuration first"
    )]
    NoConfig(TrackKind),
    /// A sample longer than [`SAMPLE_LEN_MAX`].
    #[error(
        "a {track:?} sample of {len} bytes exceeds the limit of {SAMPLE_LEN_MAX}; lower the encoder's bit rate"
    )]
    SampleTooLong {
        /// Which track.
        track: TrackKind,
        /// Bytes.
        len: usize,
    },
    /// [`READY_PARTS_MAX`] parts wait to be polled.
    #[error("{READY_PARTS_MAX} finished parts wait: poll them before pushing more")]
    NotDrained,
    /// A configuration that cannot be written, or a fragment that cannot.
    #[error(transparent)]
    Boxes(#[from] Fmp4Error),
}

/// Cuts samples into parts: [`Segmenter::push`], then [`Segmenter::poll`] until `None`.
#[derive(Debug)]
pub struct Segmenter {
    config: SegmenterConfig,
    /// What each track was last said to be.
    announced: [Option<TrackConfig>; 2],
    state: State,
    /// Sound of a configuration that takes effect at the next key frame.
    held: VecDeque<Sample>,
    /// Where the next timeline starts, µs; `None` before the first.
    resume_us: Option<i64>,
    /// What the encoder's own times are moved by, µs.
    offset_us: i64,
    /// What comes next lies where its times say, if that is further on.
    keeps_place: bool,
    sink: Sink,
    dropped: u64,
}

#[derive(Debug)]
enum State {
    Gathering(Gather),
    Running(Box<Running>),
}

impl Segmenter {
    /// A segmenter whose first part has number 0.
    pub fn new(mut config: SegmenterConfig) -> Self {
        config.part_target = config.part_target.clamp(Duration::from_millis(100), Duration::from_millis(500));
        config.audio_segment = config.audio_segment.clamp(config.part_target, Duration::from_secs(10));
        config.start_wait = config.start_wait.min(KEY_WAIT_MAX);
        Self {
            config,
            announced: [None, None],
            state: State::Gathering(Gather::default()),
            held: VecDeque::new(),
            resume_us: None,
            offset_us: 0,
            keeps_place: false,
            sink: Sink::default(),
            dropped: 0,
        }
    }

    /// Takes the next thing an ingest says. After [`Ingest::End`] everything is ready to be polled, and what
    /// follows starts a new timeline.
    ///
    /// # Errors
    /// [`SegmentError`]: this item was not taken; later ones may be.
    pub fn push(&mut self, item: Ingest) -> Result<(), SegmentError> {
        if self.sink.ready.len() >= READY_PARTS_MAX {
            return Err(SegmentError::NotDrained);
        }
        match item {
            Ingest::Track(kind, config) => self.announce(kind, config),
            Ingest::Sample(sample) => {
                let track = sample.track;
                if self.announced[track as usize].is_none() {
                    return Err(SegmentError::NoConfig(track));
                }
                if sample.data.len() > SAMPLE_LEN_MAX {
                    return Err(SegmentError::SampleTooLong { track, len: sample.data.len() });
                }
                self.sample(sample)
            }
            Ingest::Discontinuity | Ingest::End => self.end_timeline(),
            Ingest::Resumed => {
                self.end_timeline()?;
                self.keeps_place = true;
                Ok(())
            }
            Ingest::Warning(_) => Ok(()),
        }
    }

    /// The next finished part, in order.
    pub fn poll(&mut self) -> Option<Part> {
        self.sink.ready.pop_front()
    }

    /// Samples that could not be part of any segment: before the first key frame of their configuration.
    pub fn dropped_samples(&self) -> u64 {
        self.dropped
    }

    fn announce(&mut self, kind: TrackKind, config: TrackConfig) -> Result<(), SegmentError> {
        fmp4::write_init(&[&config])?;
        if self.announced[kind as usize].as_ref() == Some(&config) {
            return Ok(());
        }
        // Samples gathered under the old configuration still belong to it.
        if let State::Gathering(gather) = &self.state
            && gather.has(kind)
        {
            self.start(true)?;
        }
        self.announced[kind as usize] = Some(config);
        if kind == TrackKind::Audio {
            self.dropped += self.held.drain(..).len() as u64;
        }
        Ok(())
    }

    fn sample(&mut self, sample: Sample) -> Result<(), SegmentError> {
        let State::Running(running) = &mut self.state else {
            return self.gather(sample);
        };
        if running.jumped(&sample) {
            self.end_timeline()?;
            return self.gather(sample);
        }
        let kind = sample.track;
        let current = running.config(kind) == self.announced[kind as usize].as_ref();
        match kind {
            TrackKind::Video if sample.key => {
                let sound_changes = running.config(TrackKind::Audio)
                    != self.announced[TrackKind::Audio as usize].as_ref()
                    && !self.held.is_empty();
                if !current || sound_changes || running.silent(TrackKind::Audio, &sample) {
                    self.reconfigure(&sample)?;
                }
            }
            TrackKind::Video if !current => {
                self.dropped += 1;
                return Ok(());
            }
            TrackKind::Video => {}
            TrackKind::Audio if running.silent(TrackKind::Video, &sample) => self.reconfigure(&sample)?,
            TrackKind::Audio if !current && running.has(TrackKind::Video) => {
                self.hold(sample);
                return Ok(());
            }
            TrackKind::Audio if !current => self.reconfigure(&sample)?,
            TrackKind::Audio => {}
        }
        match &mut self.state {
            State::Running(running) => running.push(sample, &mut self.sink),
            State::Gathering(_) => self.gather(sample),
        }
    }

    /// Keeps sound for the next key frame; the oldest goes first, as it would precede that key frame.
    fn hold(&mut self, sample: Sample) {
        if self.held.len() >= PENDING_SAMPLES_MAX / 8 {
            self.held.pop_front();
            self.dropped += 1;
        }
        self.held.push_back(sample);
    }

    fn gather(&mut self, sample: Sample) -> Result<(), SegmentError> {
        let State::Gathering(gather) = &mut self.state else {
            return self.sample(sample);
        };
        if sample.track == TrackKind::Video && !sample.key && !gather.has(TrackKind::Video) {
            self.dropped += 1;
            return Ok(());
        }
        let Some(config) = &self.announced[sample.track as usize] else {
            return Err(SegmentError::NoConfig(sample.track));
        };
        gather.push(sample, config.timescale);
        self.start(false)
    }

    /// Leaves the gathering state when enough is known (or `now`), and replays what was gathered.
    fn start(&mut self, now: bool) -> Result<(), SegmentError> {
        let State::Gathering(gather) = &mut self.state else { return Ok(()) };
        let announced = TrackKind::BOTH.map(|kind| self.announced[kind as usize].is_some());
        let Some(plan) = gather.plan(announced, now, &self.config) else { return Ok(()) };
        let mut gathered = std::mem::take(gather);
        if let Plan { key_us: Some(key_us), .. } = plan {
            self.dropped += gathered.drop_audio_before(key_us.saturating_sub(us(self.config.start_wait)));
        }
        // The first timeline keeps the encoder's own times unless they are absurd; later ones continue where the last
        // one ended, or further on where that was said: other renditions went on meanwhile.
        let first_us = gathered.first_us();
        let keeps_place = std::mem::take(&mut self.keeps_place);
        let own_us = first_us.saturating_add(self.offset_us);
        let offset_us = match self.resume_us {
            Some(resume)
                if keeps_place && (resume..resume.saturating_add(AHEAD_MAX_US)).contains(&own_us) =>
            {
                self.offset_us
            }
            Some(resume) => resume.saturating_sub(first_us),
            None if (0..=FIRST_TIME_MAX_US).contains(&first_us) => 0,
            None => first_us.saturating_neg(),
        };
        let tracks = TrackKind::BOTH.map(|kind| {
            let config = self.announced[kind as usize].as_ref().filter(|_| plan.tracks[kind as usize])?;
            Some((config.clone(), plan.arrived_unix_us))
        });
        self.offset_us = offset_us;
        let start_us = plan.key_us.unwrap_or(first_us).saturating_add(offset_us);
        let floor_us = self.resume_us.unwrap_or(0);
        let base = Timebase { offset_us, start_us: start_us.max(floor_us), floor_us };
        let mut running = Running::new(&self.config, base, tracks)?;
        running.discontinuity = self.sink.number > 0;
        self.state = State::Running(Box::new(running));
        for sample in gathered.into_samples() {
            self.sample(sample)?;
        }
        Ok(())
    }

    /// Everything received so far becomes parts; the next sample starts a new timeline.
    fn end_timeline(&mut self) -> Result<(), SegmentError> {
        self.start(true)?;
        self.dropped += self.held.drain(..).len() as u64;
        let gathering = State::Gathering(Gather::default());
        match std::mem::replace(&mut self.state, gathering) {
            State::Running(mut running) => {
                running.flush(&mut self.sink)?;
                self.dropped += running.waiting() as u64;
                self.resume_us = Some(running.end_us());
            }
            State::Gathering(gather) => self.dropped += gather.into_samples().len() as u64,
        }
        Ok(())
    }

    /// The tracks change at `at`, on the same timeline: the running part is finished, a new segment begins.
    fn reconfigure(&mut self, at: &Sample) -> Result<(), SegmentError> {
        let State::Running(running) = &mut self.state else { return Ok(()) };
        let wanted = TrackKind::BOTH.map(|kind| {
            let announced = self.announced[kind as usize].as_ref()?;
            // A track goes on, if under another configuration whose samples are yet to come. One that was not there
            // before must have sent something: players would wait for it.
            let alive = running.has(kind) && !running.silent(kind, at);
            let held = kind == TrackKind::Audio && !self.held.is_empty();
            (kind == at.track || alive || held).then(|| announced.clone())
        });
        let timescale = wanted[at.track as usize].as_ref().map_or(1, |config| config.timescale);
        let at_us = to_us(at.dts, timescale);
        self.dropped += running.reconfigure(wanted, at, timescale, &mut self.sink)? as u64;
        let sound =
            running.config(TrackKind::Audio).map(|c| (c.timescale, fmp4::frame_ticks(c).unwrap_or(0)));
        for held in std::mem::take(&mut self.held) {
            match sound {
                Some((timescale, frame)) if to_us(held.dts.saturating_add(frame), timescale) > at_us => {
                    running.push(held, &mut self.sink)?;
                }
                _ => self.dropped += 1,
            }
        }
        Ok(())
    }
}

impl TrackKind {
    pub(crate) const BOTH: [Self; 2] = [Self::Video, Self::Audio];
}

/// So far ahead a discontinuity may lead, µs: a day.
const AHEAD_MAX_US: i64 = 24 * 3600 * 1_000_000;
/// First decode time of a stream that is believed, µs (some 35 years, an encoder that stamps Unix time included).
const FIRST_TIME_MAX_US: i64 = 1 << 51;

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn init_of(tracks: [Option<&TrackConfig>; 2]) -> Result<Bytes, SegmentError> {
    let tracks: Vec<&TrackConfig> = tracks.into_iter().flatten().collect();
    Ok(fmp4::write_init(&tracks)?)
}
