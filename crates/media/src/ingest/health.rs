//! What arrives, measured, and what to tell the broadcaster about it.
//!
//! Owns: the numbers ([`Facts`]) and thresholds ([`Advice`]). It only watches [`Ingest`] go by and changes nothing. Every
//! condition is said once, and again only after it was gone.

use std::collections::{BTreeSet, VecDeque};

use super::codec::rfc6381;
use super::timeline::rescale;
use crate::sample::{Ingest, Sample, TrackConfig, TrackKind};

/// Key frames further apart than this make joining slow: 1 or 2 s is what is asked for, and some encoders are a frame late.
pub const KEY_INTERVAL_US_MAX: u64 = 2_500_000;
/// No key frame for this long is said without waiting for the next.
pub const KEY_MISSING_US: u64 = 20_000_000;
/// Drift between media and arrival that is worth a word.
pub const DRIFT_US_MAX: i64 = 1_500_000;
/// Reordering that is worth a word.
pub const REORDER_US_MAX: u64 = 400_000;
/// One track without the other for this long is worth a word.
pub const TRACK_MISSING_US: u64 = 5_000_000;

/// Bit rate and frame rate are measured over this.
const WINDOW_US: u64 = 10_000_000;
/// Samples kept for that, whatever their times.
const WINDOW_SAMPLES_MAX: usize = 8_192;
/// Steadiness is judged by buckets of this length, and so many of them.
const BUCKET_US: u64 = 2_000_000;
const BUCKETS: usize = 15;
/// Drift compares the quickest arrivals within windows of this length.
const DRIFT_WINDOW_US: u64 = 5_000_000;
/// Advice not fetched beyond this is dropped; there are fewer conditions.
const ADVICE_MAX: usize = 32;

/// One thing to tell the broadcaster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// Stable name of the condition, such as `keyframe-interval`.
    pub code: &'static str,
    /// What is wrong, what it does, what to set.
    pub text: String,
}

/// What is known of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoFacts {
    /// RFC 6381 name, such as `avc1.64001f`.
    pub codec: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames per second over the last seconds; 0 until known.
    pub fps: f64,
    /// Time between the last two key frames, µs.
    pub key_interval_us: Option<u64>,
    /// Bit/s over the last seconds.
    pub rate_bps: u64,
    /// Longest presentation delay by reordering seen, µs.
    pub reorder_us: u64,
}

/// What is known of the sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioFacts {
    /// RFC 6381 name, such as `mp4a.40.2`.
    pub codec: String,
    /// Hz.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u16,
    /// Bit/s over the last seconds.
    pub rate_bps: u64,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// `None` while there is no picture.
    pub video: Option<VideoFacts>,
    /// `None` while there is no sound.
    pub audio: Option<AudioFacts>,
    /// Unsteadiness of arrival, µs, smoothed as in RFC 3550 §6.4.1.
    pub jitter_us: u64,
    /// How much later (or earlier, negative) media arrives than it did at first, µs.
    pub drift_us: i64,
    /// Media received, µs.
    pub duration_us: u64,
    /// Access units received.
    pub samples: u64,
    /// Breaks in the timeline.
    pub discontinuities: u64,
}

/// One track's meters. Times are media times in µs.
#[derive(Debug, Default)]
struct Meter {
    config: Option<TrackConfig>,
    window: VecDeque<(u64, usize)>,
    window_bytes: u64,
    first_us: Option<u64>,
    last: Option<(u64, u64)>,
    jitter_us: f64,
}

impl Meter {
    fn add(&mut self, media_us: u64, arrived_us: u64, len: usize) {
        self.first_us.get_or_insert(media_us);
        self.window.push_back((media_us, len));
        self.window_bytes += len as u64;
        while let Some((oldest, len)) = self.window.front().copied()
            && (media_us.saturating_sub(oldest) > WINDOW_US || self.window.len() > WINDOW_SAMPLES_MAX)
        {
            self.window.pop_front();
            self.window_bytes -= len as u64;
        }
        if let Some((media, arrived)) = self.last.replace((media_us, arrived_us)) {
            let step = arrived_us as i64 - arrived as i64 - (media_us as i64 - media as i64);
            self.jitter_us += (step.unsigned_abs() as f64 - self.jitter_us) / 16.0;
        }
    }

    /// Time from the first to the last sample of the window.
    fn span_us(&self) -> u64 {
        match (self.window.front(), self.window.back()) {
            (Some(first), Some(last)) => last.0.saturating_sub(first.0),
            _ => 0,
        }
    }

    fn per_second(&self) -> f64 {
        if self.window.len() < 2 || self.span_us() == 0 {
            return 0.0;
        }
        (self.window.len() - 1) as f64 * 1e6 / self.span_us() as f64
    }

    fn rate_bps(&self) -> u64 {
        if self.window.len() < 2 || self.span_us() == 0 {
            return 0;
        }
        // The last sample's own duration belongs to the time that its bytes fill.
        let span = u128::from(self.span_us()) * self.window.len() as u128 / (self.window.len() as u128 - 1);
        (u128::from(self.window_bytes) * 8_000_000 / span) as u64
    }
}

/// Watches one broadcast. See the [module](self).
#[derive(Debug, Default)]
pub struct Advisor {
    nominal_bps: Option<u64>,
    video: Meter,
    audio: Meter,
    media_us: u64,
    samples: u64,
    discontinuities: u64,
    reorder_us: u64,
    last_key_us: Option<u64>,
    key_interval_us: Option<u64>,
    good_intervals: u32,
    buckets: VecDeque<u64>,
    bucket_start_us: u64,
    /// Lag (arrival less media) at first, and the least in the open window, which began at an arrival time.
    drift_base: Option<i64>,
    drift_us: i64,
    drift_window: Option<(u64, i64)>,
    active: BTreeSet<&'static str>,
    advice: VecDeque<Advice>,
}

impl Advisor {
    /// `nominal_bps` is the bit rate that the broadcaster said to plan for, in bit/s.
    pub fn new(nominal_bps: Option<u64>) -> Self {
        Self { nominal_bps, ..Self::default() }
    }

    /// Sees one event, in order.
    pub fn observe(&mut self, event: &Ingest) {
        match event {
            Ingest::Track(kind, config) => self.meter(*kind).config = Some(config.clone()),
            Ingest::Sample(sample) => self.sample(sample),
            Ingest::Discontinuity | Ingest::Resumed => {
                self.discontinuities += 1;
                self.drift_base = None;
                self.drift_window = None;
                self.last_key_us = None;
                (self.video.last, self.audio.last) = (None, None);
                // Another encoder, perhaps: what the last one sent says nothing of it.
                (self.video.first_us, self.audio.first_us) = (None, None);
            }
            Ingest::Warning(_) | Ingest::End => {}
        }
    }

    /// The next thing to say, if any.
    pub fn poll_advice(&mut self) -> Option<Advice> {
        self.advice.pop_front()
    }

    /// The measurements so far.
    pub fn facts(&self) -> Facts {
        let video = self.video.config.as_ref().map(|config| VideoFacts {
            codec: rfc6381(&config.codec),
            width: config.width,
            height: config.height,
            fps: self.video.per_second(),
            key_interval_us: self.key_interval_us,
            rate_bps: self.video.rate_bps(),
            reorder_us: self.reorder_us,
        });
        let audio = self.audio.config.as_ref().map(|config| AudioFacts {
            codec: rfc6381(&config.codec),
            sample_rate: config.sample_rate,
            channels: config.channels,
            rate_bps: self.audio.rate_bps(),
        });
        Facts {
            video,
            audio,
            jitter_us: self.video.jitter_us.max(self.audio.jitter_us) as u64,
            drift_us: self.drift_us,
            duration_us: self.media_us,
            samples: self.samples,
            discontinuities: self.discontinuities,
        }
    }

    fn meter(&mut self, kind: TrackKind) -> &mut Meter {
        match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }

    fn sample(&mut self, sample: &Sample) {
        let Some(config) = &self.meter(sample.track).config else { return };
        let timescale = config.timescale;
        let micros = |ticks: i64| rescale(ticks.max(0), timescale, 1_000_000) as u64;
        let now = micros(sample.dts);
        self.meter(sample.track).add(now, sample.arrived_unix_us, sample.data.len());
        self.media_us = self.media_us.max(now);
        self.samples += 1;
        if sample.track == TrackKind::Video {
            self.reordering(micros(sample.pts.saturating_sub(sample.dts)));
            self.key_frames(now, sample.key);
            self.steadiness(now, sample.data.len());
        }
        self.rate();
        self.drift(now, sample.arrived_unix_us);
        self.missing_track();
    }

    /// Raises or clears a condition; the text is made only when it is news.
    fn condition(&mut self, code: &'static str, holds: Option<bool>, text: impl FnOnce(&Self) -> String) {
        match holds {
            Some(true) if !self.active.contains(code) => {
                self.active.insert(code);
                if self.advice.len() < ADVICE_MAX {
                    let text = text(self);
                    self.advice.push_back(Advice { code, text });
                }
            }
            Some(false) => {
                self.active.remove(code);
            }
            _ => {}
        }
    }

    fn key_frames(&mut self, now: u64, key: bool) {
        let since = self.last_key_us.map(|last| now.saturating_sub(last));
        if !key {
            let missing = since.is_some_and(|since| since > KEY_MISSING_US).then_some(true);
            self.condition("keyframe-missing", missing, |this| {
                format!(
                    "No key frame for {} s: nobody can join. {}",
                    KEY_MISSING_US / 1_000_000,
                    this.key_frame_settings()
                )
            });
            return;
        }
        self.last_key_us = Some(now);
        self.condition("keyframe-missing", Some(false), |_| String::new());
        let Some(interval) = since else { return };
        self.key_interval_us = Some(interval);
        let long = interval > KEY_INTERVAL_US_MAX;
        self.good_intervals = if long { 0 } else { self.good_intervals + 1 };
        let holds = if long { Some(true) } else { (self.good_intervals >= 3).then_some(false) };
        self.condition("keyframe-interval", holds, |this| {
            let seconds = interval as f64 / 1e6;
            format!("Key frames every {seconds:.1} s: viewers join slowly. {}", this.key_frame_settings())
        });
    }

    fn key_frame_settings(&self) -> String {
        let frames = match self.video.per_second() {
            fps if fps > 0.5 => (fps * 2.0).round() as u64,
            _ => 60,
        };
        format!("In OBS: Settings → Output → Keyframe Interval: 1 or 2 s. In ffmpeg: -g {frames}.")
    }

    fn reordering(&mut self, delay: u64) {
        self.reorder_us = self.reorder_us.max(delay);
        self.condition("reordering", (delay > REORDER_US_MAX).then_some(true), |_| {
            format!(
                "B-frames delay the picture by {} ms. In OBS: fewer B-frames (Max B-frames: 2), or Tune: zerolatency. \
                 In ffmpeg: -bf 2.",
                delay / 1000
            )
        });
    }

    fn rate(&mut self) {
        let Some(nominal) = self.nominal_bps.filter(|nominal| *nominal > 0) else { return };
        // Half a window, or the first key frame passes for the bit rate.
        if self.video.span_us().max(self.audio.span_us()) < WINDOW_US / 2 {
            return;
        }
        let rate = self.video.rate_bps() + self.audio.rate_bps();
        let holds =
            if rate * 2 > nominal * 3 { Some(true) } else { (rate * 5 < nominal * 6).then_some(false) };
        self.condition("bitrate-high", holds, |_| {
            format!(
                "The stream has {:.1} Mbit/s, {:.1} were planned: viewers with slow lines fall behind. \
                 In OBS: Settings → Output → Bitrate: {} Kbps, Rate Control: CBR. In ffmpeg: -b:v, -maxrate and -bufsize.",
                rate as f64 / 1e6,
                nominal as f64 / 1e6,
                nominal / 1000
            )
        });
    }

    fn steadiness(&mut self, now: u64, len: usize) {
        if self.buckets.is_empty() || now >= self.bucket_start_us + BUCKET_US {
            self.bucket_start_us = now;
            self.buckets.push_back(0);
            if self.buckets.len() > BUCKETS + 1 {
                self.buckets.pop_front();
            }
        }
        if let Some(open) = self.buckets.back_mut() {
            *open += len as u64;
        }
        if self.buckets.len() <= BUCKETS {
            return;
        }
        let closed = self.buckets.iter().take(BUCKETS);
        let most = closed.clone().max().copied().unwrap_or(0);
        let total: u64 = closed.sum();
        let ratio = most as f64 * BUCKETS as f64 / total.max(1) as f64;
        let holds = if ratio > 4.0 { Some(true) } else { (ratio < 2.5).then_some(false) };
        self.condition("bitrate-unsteady", holds, |_| {
            format!(
                "The bit rate is unsteady: peaks of {:.1} Mbit/s, {ratio:.1} times the average. Upload and viewers stumble \
                 at the peaks. In OBS: Rate Control: CBR. In ffmpeg: -maxrate and -bufsize.",
                most as f64 * 8.0 / BUCKET_US as f64
            )
        });
    }

    fn drift(&mut self, media_us: u64, arrived_us: u64) {
        let lag = arrived_us as i64 - media_us as i64;
        let (start, least) = self.drift_window.get_or_insert((arrived_us, lag));
        *least = lag.min(*least);
        let least = *least;
        if arrived_us.saturating_sub(*start) < DRIFT_WINDOW_US {
            return;
        }
        self.drift_window = None;
        let base = *self.drift_base.get_or_insert(least);
        let drift = least - base;
        self.drift_us = drift;
        let state = |past: bool| {
            if past { Some(true) } else { (drift.abs() < DRIFT_US_MAX / 2).then_some(false) }
        };
        let seconds = drift.unsigned_abs() as f64 / 1e6;
        self.condition("clock-slow", state(drift > DRIFT_US_MAX), |_| {
            format!(
                "The stream fell {seconds:.1} s behind real time: the encoder or its connection does not keep up. \
                 In OBS: a faster CPU preset (veryfast), a lower resolution or Bitrate. In ffmpeg: -preset veryfast; \
                 its “speed=” should be 1x."
            )
        });
        self.condition("clock-fast", state(drift < -DRIFT_US_MAX), |_| {
            format!(
                "The stream runs {seconds:.1} s ahead of real time: viewers' buffers overflow. \
                 When ffmpeg sends a file, put -re before its -i."
            )
        });
    }

    fn missing_track(&mut self) {
        let alone = |here: &Meter, other: &Meter| {
            if other.first_us.is_some() {
                return Some(false);
            }
            let since = here.first_us?;
            (here.last?.0.saturating_sub(since) >= TRACK_MISSING_US).then_some(true)
        };
        let (video_only, audio_only) = (alone(&self.video, &self.audio), alone(&self.audio, &self.video));
        self.condition("no-audio", video_only, |_| {
            "There is no sound. If that is not intended: in OBS, look at the Audio Mixer and at Settings → Output → \
             Audio Track; in ffmpeg, add -c:a aac."
                .to_owned()
        });
        self.condition("no-video", audio_only, |_| {
            "There is no picture, only sound. If that is not intended, look at the encoder's video settings."
                .to_owned()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Codec;
    use bytes::Bytes;

    const START: u64 = 1_700_000_000_000_000;

    struct Watch(Advisor, Vec<Advice>);

    impl Watch {
        fn new(nominal: Option<u64>, kinds: &[TrackKind]) -> Self {
            let mut advisor = Advisor::new(nominal);
            for kind in kinds {
                let codec = match kind {
                    TrackKind::Video => {
                        Codec::H264 { avcc: Bytes::from_static(super::super::codec::tests::AVCC_720P) }
                    }
                    TrackKind::Audio => Codec::Aac { config: Bytes::from_static(&[0x11, 0x90]) },
                };
                let config = TrackConfig {
                    codec,
                    timescale: 90_000,
                    width: 1280,
                    height: 720,
                    channels: 2,
                    sample_rate: 48_000,
                };
                advisor.observe(&Ingest::Track(*kind, config));
            }
            Self(advisor, Vec::new())
        }

        /// 25 fps from `from` to `to` seconds, key frames every `gop` frames, arriving at `speed` of real time.
        fn video(&mut self, from: u64, to: u64, gop: u64, len: usize, speed: f64) -> &mut Self {
            for frame in from * 25..to * 25 {
                let media_us = frame * 40_000;
                self.0.observe(&Ingest::Sample(Sample {
                    track: TrackKind::Video,
                    dts: frame as i64 * 3600,
                    pts: frame as i64 * 3600 + 7200,
                    key: frame % gop == 0,
                    data: vec![0; len].into(),
                    arrived_unix_us: START + (media_us as f64 / speed) as u64,
                }));
            }
            self.1.extend(std::iter::from_fn(|| self.0.poll_advice()));
            self
        }

        fn codes(&self) -> Vec<&str> {
            self.1.iter().map(|advice| advice.code).collect()
        }
    }

    const BOTH: &[TrackKind] = &[TrackKind::Video, TrackKind::Audio];

    #[test]
    fn a_good_stream_gets_no_advice_and_right_facts() {
        let mut watch = Watch::new(Some(2_000_000), &[TrackKind::Video]);
        watch.video(0, 4, 50, 10_000, 1.0);
        assert_eq!(watch.codes(), [""; 0]);
        let facts = watch.0.facts();
        let video = facts.video.unwrap();
        assert_eq!((&*video.codec, video.width, video.height), ("avc1.4d401f", 1280, 720));
        assert!((video.fps - 25.0).abs() < 0.01, "{}", video.fps);
        assert!((1_990_000..2_010_000).contains(&video.rate_bps), "{}", video.rate_bps);
        assert_eq!((video.key_interval_us, video.reorder_us), (Some(2_000_000), 80_000));
        assert_eq!((facts.audio, facts.drift_us, facts.jitter_us), (None, 0, 0));
    }

    #[test]
    fn far_key_frames_are_said_once_and_again_after_they_were_near() {
        let mut watch = Watch::new(None, BOTH);
        watch.video(0, 33, 208, 100, 1.0);
        assert_eq!(watch.codes().iter().filter(|code| **code == "keyframe-interval").count(), 1);
        let text = &watch.1.iter().find(|advice| advice.code == "keyframe-interval").unwrap().text;
        assert!(text.contains("every 8.3 s") && text.contains("-g 50") && text.contains("OBS"), "{text}");
        watch.video(34, 50, 50, 100, 1.0).video(50, 80, 208, 100, 1.0);
        assert_eq!(watch.codes().iter().filter(|code| **code == "keyframe-interval").count(), 2);
        watch.video(80, 120, 100_000, 100, 1.0);
        assert!(watch.codes().contains(&"keyframe-missing"));
    }

    #[test]
    fn rates_above_plan_and_unsteady_ones() {
        let mut watch = Watch::new(Some(1_000_000), BOTH);
        watch.video(0, 20, 50, 10_000, 1.0);
        assert!(watch.codes().contains(&"bitrate-high"));
        let mut watch = Watch::new(None, BOTH);
        for second in 0..40 {
            let len = if second == 20 || second == 21 { 100_000 } else { 1000 };
            watch.video(second, second + 1, 25, len, 1.0);
        }
        assert!(watch.codes().contains(&"bitrate-unsteady"), "{:?}", watch.codes());
    }

    #[test]
    fn encoders_off_real_time() {
        for (speed, code) in [(0.9, "clock-slow"), (1.1, "clock-fast")] {
            let mut watch = Watch::new(None, BOTH);
            watch.video(0, 40, 50, 100, speed);
            let codes = watch.codes();
            assert_eq!(codes.iter().filter(|c| c.starts_with("clock")).collect::<Vec<_>>(), [&code]);
        }
        // A burst at the start (what the encoder had buffered) is no drift.
        let mut watch = Watch::new(None, BOTH);
        watch.video(0, 2, 50, 100, 100.0);
        watch.video(0, 40, 50, 100, 1.0);
        assert!(!watch.codes().contains(&"clock-fast"));
    }

    #[test]
    fn one_track_alone_is_noted() {
        let mut watch = Watch::new(None, &[TrackKind::Video]);
        watch.video(0, 10, 50, 100, 1.0);
        assert_eq!(watch.codes(), ["no-audio"]);
        assert!(watch.1[0].text.contains("no sound"));
    }

    #[test]
    fn each_encoder_is_told_what_it_lacks() {
        let sound = |watch: &mut Watch, from: u64, to: u64| {
            for n in from * 50..to * 50 {
                watch.0.observe(&Ingest::Sample(Sample {
                    track: TrackKind::Audio,
                    dts: n as i64 * 1800,
                    pts: n as i64 * 1800,
                    key: true,
                    data: Bytes::from_static(&[0; 200]),
                    arrived_unix_us: START + n * 20_000,
                }));
            }
            watch.1.extend(std::iter::from_fn(|| watch.0.poll_advice()));
        };
        let mut watch = Watch::new(None, BOTH);
        watch.video(0, 1, 50, 100, 1.0);
        sound(&mut watch, 0, 1);
        assert_eq!(watch.codes(), [""; 0]);
        watch.0.observe(&Ingest::Discontinuity);
        sound(&mut watch, 2, 20);
        assert_eq!(watch.codes(), ["no-video"]);
        watch.0.observe(&Ingest::Discontinuity);
        watch.video(21, 40, 50, 100, 1.0);
        assert_eq!(watch.codes(), ["no-video", "no-audio"]);
        watch.0.observe(&Ingest::Discontinuity);
        sound(&mut watch, 41, 60);
        assert_eq!(watch.codes(), ["no-video", "no-audio", "no-video"]);
    }
}
