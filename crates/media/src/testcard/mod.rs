//! The built-in live test card: a picture with clock, colour bars and moving water, and a tone, as H.264 and AAC.
//!
//! Owns drawing and encoding; never waits, reads a clock or starts a thread. Each frame carries, besides the clock for
//! people, the strip of [`code`] for machines, so that delay can be measured at any point downstream.
//!
//! | module | owns |
//! |---|---|
//! | `scene` | what stands where, drawn straight in Y'CbCr |
//! | `canvas`, `text`, `clock`, `river` | shapes, type, civil time, the textured moving part |
//! | `fill` | how coarse the quantiser and how strong the texture must be for the stream to have its bit rate |
//! | `video`, `audio` | OpenH264 and the AAC encoder |
//!
//! # Pace
//!
//! Frame `n` is due `n / fps` after the start ([`TestCard::due`]); the caller paces. A caller that fell behind may skip
//! frame numbers: time stamps follow the frame number, and the sound of the gap comes with the next frame.

mod audio;
mod canvas;
mod clock;
mod fill;
mod river;
mod scene;
mod text;
mod video;

use std::time::Duration;

pub use crate::testcard_code as code;

use crate::sample::{Codec, Ingest, Sample, TrackConfig, TrackKind};

/// Ticks a second of the picture's time stamps.
const VIDEO_TIMESCALE: u32 = 90_000;
/// Bounds of [`TestCardConfig::width`] and [`TestCardConfig::height`], frame rate and bit rate.
pub const WIDTH_MIN: u32 = 640;
/// See [`WIDTH_MIN`].
pub const WIDTH_MAX: u32 = 1920;
/// See [`WIDTH_MIN`].
pub const HEIGHT_MIN: u32 = 360;
/// See [`WIDTH_MIN`].
pub const HEIGHT_MAX: u32 = 1080;
/// See [`WIDTH_MIN`].
pub const FPS_MAX: u32 = 60;
/// See [`WIDTH_MIN`].
pub const BITRATE_BPS_MIN: u32 = 250_000;
/// See [`WIDTH_MIN`].
pub const BITRATE_BPS_MAX: u32 = 20_000_000;
/// Highest tone: well below half the sampling rate.
pub const TONE_HZ_MAX: u32 = 15_000;
/// Most access units of sound made up for when frame numbers were skipped: 5 s. A longer gap stays silent.
const AUDIO_CATCH_UP_MAX: u64 = 5 * audio::SAMPLE_RATE as u64 / audio::FRAME_SAMPLES;

/// What the card shows and how it is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestCardConfig {
    /// The channel's name. Any text: it is cut to one line, and runs of characters outside Latin, Greek and Cyrillic
    /// are shown as a dot.
    pub title: String,
    /// Pixels, even, [`WIDTH_MIN`] to [`WIDTH_MAX`].
    pub width: u32,
    /// Pixels, even, [`HEIGHT_MIN`] to [`HEIGHT_MAX`].
    pub height: u32,
    /// Frames a second, 1 to [`FPS_MAX`].
    pub fps: u32,
    /// Picture and sound together, bit/s, [`BITRATE_BPS_MIN`] to [`BITRATE_BPS_MAX`]. The stream averages close to it;
    /// below 500 kbit/s a picture of 1280×720 with a key frame every second exceeds it.
    pub bitrate_bps: u32,
    /// Media time between key frames, rounded to whole frames, at least one.
    pub keyframe_interval: Duration,
    /// Whether there is a sound track.
    pub audio: bool,
    /// Frequency of the tone, 20 to [`TONE_HZ_MAX`] Hz.
    pub tone_hz: u32,
}

impl Default for TestCardConfig {
    fn default() -> Self {
        Self {
            title: "Caudal".to_owned(),
            width: 1280,
            height: 720,
            fps: 30,
            bitrate_bps: 3_000_000,
            keyframe_interval: Duration::from_secs(1),
            audio: true,
            tone_hz: 440,
        }
    }
}

/// Why there is no test card, or no frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// A setting is out of range.
    #[error("test card: {name} is {value}, expected {expected}")]
    Config {
        /// The field of [`TestCardConfig`].
        name: &'static str,
        /// What it was set to.
        value: u128,
        /// What is allowed.
        expected: &'static str,
    },
    /// The bundled font could not be read.
    #[error("test card: the bundled font is unusable: {0}")]
    Font(&'static str),
    /// OpenH264 refused.
    #[error("test card: H.264 encoder: {0}")]
    Video(#[source] openh264::Error),
    /// OpenH264 returned no picture although told not to skip.
    #[error("test card: the H.264 encoder returned no picture")]
    Skipped,
    /// The AAC encoder refused.
    #[error("test card: AAC encoder: {0}")]
    Audio(String),
}

/// A live stream made from nothing. See the [module](self) for how to pace it.
pub struct TestCard {
    config: TestCardConfig,
    key_frames: u64,
    scene: scene::Scene,
    video: video::Video,
    fill: fill::Fill,
    tone: Option<audio::Tone>,
    /// Access units of sound emitted or passed over so far.
    audio_units: u64,
    last_frame: Option<u64>,
    /// The last frame failed: decoders cannot continue from it.
    needs_key: bool,
    announced: Option<bytes::Bytes>,
}

impl TestCard {
    /// Checks the settings and prepares drawing and both encoders (tens of milliseconds).
    ///
    /// # Errors
    /// [`CardError::Config`] names the setting that is out of range; the others mean a broken build.
    pub fn new(config: TestCardConfig) -> Result<Self, CardError> {
        check(&config)?;
        let tone = if config.audio { Some(audio::Tone::new(config.tone_hz)?) } else { None };
        let video_bps = config.bitrate_bps - if config.audio { audio::BITRATE_BPS } else { 0 };
        let key_frames = (config.keyframe_interval.as_secs_f64() * f64::from(config.fps)).round() as u64;
        let fill = fill::Fill::new(&config, video_bps);
        Ok(Self {
            key_frames: key_frames.max(1),
            scene: scene::Scene::new(&config)?,
            video: video::Video::new(config.fps, video_bps, fill.qp())?,
            fill,
            tone,
            audio_units: 0,
            last_frame: None,
            needs_key: false,
            announced: None,
            config,
        })
    }

    /// When `frame` is due, counted from the start.
    #[must_use]
    pub fn due(&self, frame: u64) -> Duration {
        let fps = u64::from(self.config.fps);
        Duration::from_secs(frame / fps) + Duration::from_nanos(frame % fps * 1_000_000_000 / fps)
    }

    /// Key frames are the first frame and every frame whose number is a multiple of this (or, when that one was
    /// skipped, the next).
    #[must_use]
    pub fn keyframe_interval_frames(&self) -> u64 {
        self.key_frames
    }

    /// Draws and encodes frame `frame`, stamped with `now_unix_us`, and the sound that begins before it ends.
    ///
    /// The first call yields the tracks first. `dts` and `pts` are `frame / fps`; no frame is reordered. A number
    /// that is not above the last one yields nothing. An encoder that fails yields [`Ingest::Warning`] and no
    /// sample, and the next frame is tried afresh as a key frame.
    pub fn tick(&mut self, frame: u64, now_unix_us: u64) -> Vec<Ingest> {
        if self.last_frame.is_some_and(|last| frame <= last) {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(6);
        match self.tick_video(frame, now_unix_us, &mut out) {
            Ok(()) => self.needs_key = false,
            Err(error) => {
                self.needs_key = true;
                out.push(Ingest::Warning(error.to_string()));
            }
        }
        self.last_frame = Some(frame);
        if let Err(error) = self.tick_audio(frame, now_unix_us, &mut out) {
            self.tone = None;
            out.push(Ingest::Warning(format!("{error}; the sound ends here")));
        }
        out
    }

    fn tick_video(&mut self, frame: u64, now_unix_us: u64, out: &mut Vec<Ingest>) -> Result<(), CardError> {
        let crossed = |last: u64| frame / self.key_frames != last / self.key_frames;
        let key = self.needs_key || self.last_frame.is_none_or(crossed);
        let at_ms = u64::try_from(self.due(frame).as_millis()).unwrap_or(u64::MAX);
        let picture = self.scene.draw(frame, now_unix_us, self.fill.grain());
        let encoded = self.video.encode(picture, key, at_ms)?;
        self.fill.produced(encoded.data.len(), encoded.key);
        let avcc = self.video.avcc().ok_or(CardError::Skipped)?;
        if self.announced.as_ref() != Some(&avcc) {
            let first = self.announced.is_none();
            out.push(Ingest::Track(TrackKind::Video, self.video_track(avcc.clone())));
            self.announced = Some(avcc);
            if let (true, Some(tone)) = (first, &self.tone) {
                out.push(Ingest::Track(TrackKind::Audio, audio_track(tone)));
            }
        }
        let dts = ticks(frame, VIDEO_TIMESCALE, self.config.fps);
        out.push(Ingest::Sample(Sample {
            track: TrackKind::Video,
            dts,
            pts: dts,
            key: encoded.key,
            data: encoded.data,
            arrived_unix_us: now_unix_us,
        }));
        Ok(())
    }

    fn tick_audio(&mut self, frame: u64, now_unix_us: u64, out: &mut Vec<Ingest>) -> Result<(), CardError> {
        // Sound without its track would be refused downstream, so it waits for the first picture.
        let (Some(tone), Some(_)) = (&mut self.tone, &self.announced) else { return Ok(()) };
        let frame_end = ticks(frame.saturating_add(1), audio::SAMPLE_RATE, self.config.fps);
        let due_units = (frame_end as u64).div_ceil(audio::FRAME_SAMPLES);
        if due_units.saturating_sub(self.audio_units) > AUDIO_CATCH_UP_MAX {
            let frame_start = ticks(frame, audio::SAMPLE_RATE, self.config.fps);
            self.audio_units = (frame_start as u64) / audio::FRAME_SAMPLES;
        }
        while self.audio_units < due_units {
            let dts =
                i64::try_from(self.audio_units.saturating_mul(audio::FRAME_SAMPLES)).unwrap_or(i64::MAX);
            out.push(Ingest::Sample(Sample {
                track: TrackKind::Audio,
                dts,
                pts: dts,
                key: true,
                data: tone.encode()?,
                arrived_unix_us: now_unix_us,
            }));
            self.audio_units += 1;
        }
        Ok(())
    }

    fn video_track(&self, avcc: bytes::Bytes) -> TrackConfig {
        TrackConfig {
            codec: Codec::H264 { avcc },
            timescale: VIDEO_TIMESCALE,
            width: self.config.width,
            height: self.config.height,
            channels: 0,
            sample_rate: 0,
        }
    }
}

fn audio_track(tone: &audio::Tone) -> TrackConfig {
    TrackConfig {
        codec: Codec::Aac { config: tone.config() },
        timescale: audio::SAMPLE_RATE,
        width: 0,
        height: 0,
        channels: audio::CHANNELS,
        sample_rate: audio::SAMPLE_RATE,
    }
}

/// When `frame` begins, in ticks of `timescale`; saturates after some 10 billion years.
fn ticks(frame: u64, timescale: u32, fps: u32) -> i64 {
    i64::try_from(u128::from(frame) * u128::from(timescale) / u128::from(fps)).unwrap_or(i64::MAX)
}

fn check(config: &TestCardConfig) -> Result<(), CardError> {
    let within = |name, value: u32, least: u32, most: u32, even: bool, expected| {
        let fits = (least..=most).contains(&value) && !(even && value % 2 == 1);
        if fits { Ok(()) } else { Err(CardError::Config { name, value: u128::from(value), expected }) }
    };
    within("width", config.width, WIDTH_MIN, WIDTH_MAX, true, "an even number of pixels from 640 to 1920")?;
    within(
        "height",
        config.height,
        HEIGHT_MIN,
        HEIGHT_MAX,
        true,
        "an even number of pixels from 360 to 1080",
    )?;
    within("fps", config.fps, 1, FPS_MAX, false, "1 to 60 frames a second")?;
    let rates = (BITRATE_BPS_MIN, BITRATE_BPS_MAX);
    within("bitrate_bps", config.bitrate_bps, rates.0, rates.1, false, "250,000 to 20,000,000 bit/s")?;
    if config.audio {
        within("tone_hz", config.tone_hz, 20, TONE_HZ_MAX, false, "20 to 15,000 Hz")?;
    }
    if config.keyframe_interval.is_zero() || config.keyframe_interval > Duration::from_secs(60) {
        let value = config.keyframe_interval.as_millis();
        let expected = "more than 0 and at most 60,000 ms";
        return Err(CardError::Config { name: "keyframe_interval (ms)", value, expected });
    }
    Ok(())
}
