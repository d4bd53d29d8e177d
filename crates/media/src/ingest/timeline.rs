//! One monotonic timeline out of the timestamps that encoders send.
//!
//! Owns: unrolling of wrapping counters, the decision that a timestamp jumped, the audio clock by sample count.
//! Never looks inside an access unit and never reads a clock.
//!
//! Times come in as 90 kHz ticks (1 ms of RTMP is exactly 90, MPEG-TS and RTP video count in them), so that nothing
//! drifts by rounding. Each track remembers the *epoch* its stamps belong to: what is subtracted from them to land
//! on the output timeline. A jump opens a new epoch where the output ended; the other track moves over to it
//! when its own stamps do, so samples of both eras may interleave and still keep their sync.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::sample::{Ingest, Sample, TrackKind};

/// Ticks per second of the stamps handed in, and of the video track that comes out.
pub const TICKS_PER_SECOND: u32 = 90_000;
/// A stamp further ahead than this of its own track and of the other is a jump.
pub const JUMP_TICKS: i64 = 2 * TICKS_PER_SECOND as i64;
/// A hole this long is not a jump when as much time passed at the receiver: the encoder dropped frames or idles.
pub const REAL_GAP_TICKS_MAX: i64 = 30 * TICKS_PER_SECOND as i64;
/// How far stamps may run backwards (some encoders send presentation times) before it is a jump.
pub const REORDER_TICKS: i64 = TICKS_PER_SECOND as i64 / 2;
/// Composition offsets beyond this are nonsense, and are taken as 0.
pub const COMPOSITION_TICKS_MAX: i64 = 10 * TICKS_PER_SECOND as i64;
/// How far the audio clock may stray from the stamps before it is set again; below what ears notice.
pub const AUDIO_SLACK_TICKS: i64 = TICKS_PER_SECOND as i64 / 20;
/// Straying this far is corrected at once; less only when [`AUDIO_STRAY_FRAMES`] in a row agree, since stamps jitter.
pub const AUDIO_BREAK_TICKS: i64 = TICKS_PER_SECOND as i64 / 4;
/// See [`AUDIO_BREAK_TICKS`].
pub const AUDIO_STRAY_FRAMES: u32 = 10;

/// Streams that ended within this ended together: each goes on where it was, without a hole.
const TOGETHER_TICKS: i64 = TICKS_PER_SECOND as i64 / 2;
/// Duration assumed for a video frame when no second one has been seen (30 fps).
const FRAME_TICKS_DEFAULT: i64 = 3_000;
/// Stamps are held within this, some 400,000 years.
const STAMP_MAX: i64 = 1 << 60;
/// Lets the receiver's time differ from the stamps' by this much across a real gap.
const REAL_GAP_SLACK_TICKS: i64 = TICKS_PER_SECOND as i64;

/// Turns a counter of `bits` bits that wraps into one that does not.
#[derive(Debug, Clone)]
pub struct Unroll {
    shift: u32,
    last: Option<i64>,
}

impl Unroll {
    /// For a counter of `bits` bits, 1 to 63: 32 for RTMP milliseconds, 33 for MPEG-TS.
    pub fn new(bits: u32) -> Self {
        Self { shift: 64 - bits.clamp(1, 63), last: None }
    }

    /// The value nearest to the one before that has these low bits.
    pub fn unroll(&mut self, raw: u64) -> i64 {
        let value = match self.last {
            None => (raw << self.shift >> self.shift) as i64,
            Some(last) => {
                let step = ((raw.wrapping_sub(last as u64) << self.shift) as i64) >> self.shift;
                last.saturating_add(step)
            }
        };
        self.last = Some(value);
        value
    }
}

/// One access unit with the stamp that its encoder gave it.
#[derive(Debug, Clone)]
pub struct Stamped {
    /// The track it belongs to.
    pub track: TrackKind,
    /// Unrolled decode time, 90 kHz.
    pub dts: i64,
    /// Presentation minus decode time, 90 kHz; may be negative.
    pub composition: i64,
    /// Decoding may start here.
    pub key: bool,
    /// The access unit.
    pub data: Bytes,
    /// When it arrived, µs since the Unix epoch.
    pub arrived_unix_us: u64,
}

/// What is known of one track.
#[derive(Debug, Clone)]
struct Lane {
    /// Stamps minus this are output ticks; `None` before the first sample or after a splice.
    offset: Option<i64>,
    /// The last stamp, the highest one of this epoch, and when the last one arrived.
    last_stamp: i64,
    high_stamp: i64,
    last_arrived_us: u64,
    /// Where the last sample lies on the output timeline, and how long it is thought to last, in ticks.
    last_out: Option<i64>,
    duration: i64,
    /// Where its first sample since the beginning or the last splice was placed, and where the next one goes.
    pass_start: Option<i64>,
    resume: Option<i64>,
}

impl Lane {
    fn new() -> Self {
        Self {
            offset: None,
            last_stamp: 0,
            high_stamp: 0,
            last_arrived_us: 0,
            last_out: None,
            duration: FRAME_TICKS_DEFAULT,
            pass_start: None,
            resume: None,
        }
    }

    fn end(&self) -> i64 {
        self.last_out.map_or(0, |out| out + self.duration)
    }

    fn continues(&self, stamp: i64, arrived_us: u64) -> bool {
        if stamp < self.high_stamp - REORDER_TICKS {
            return false;
        }
        let step = stamp - self.last_stamp;
        let passed = (i128::from(arrived_us.saturating_sub(self.last_arrived_us)) * 9 / 100) as i64;
        step <= JUMP_TICKS || (step <= REAL_GAP_TICKS_MAX && (step - passed).abs() <= REAL_GAP_SLACK_TICKS)
    }
}

/// The audio clock: counts samples, and looks at stamps only to notice that it strayed.
#[derive(Debug, Clone)]
struct AudioClock {
    rate: u32,
    frame_len: u32,
    /// Output time of the next access unit, in samples.
    next: Option<i64>,
    stray_frames: u32,
}

impl AudioClock {
    fn to_ticks(&self, samples: i64) -> i64 {
        rescale(samples, self.rate, TICKS_PER_SECOND)
    }

    /// The decode time of the access unit stamped `stamped` (output ticks), or `None` to leave it out because
    /// the clock has already passed it.
    fn tick(&mut self, stamped: i64) -> Option<i64> {
        let next = match self.next {
            None => rescale(stamped.max(0), TICKS_PER_SECOND, self.rate),
            Some(next) => {
                let ahead = self.to_ticks(next) - stamped;
                if ahead.abs() <= AUDIO_SLACK_TICKS {
                    self.stray_frames = 0;
                } else {
                    self.stray_frames += 1;
                }
                let correct = self.stray_frames >= AUDIO_STRAY_FRAMES || ahead.abs() > AUDIO_BREAK_TICKS;
                if correct && ahead > AUDIO_SLACK_TICKS {
                    return None;
                }
                if correct && ahead < -AUDIO_SLACK_TICKS {
                    self.stray_frames = 0;
                    rescale(stamped, TICKS_PER_SECOND, self.rate).max(next)
                } else {
                    next
                }
            }
        };
        self.next = Some(next + i64::from(self.frame_len));
        Some(next)
    }
}

/// Which stamps of an encoder lie where: what a second one needs, to be placed beside the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    offset: i64,
    latest: i64,
}

/// See the [module](self).
///
/// Contract: [`push`](Self::push) appends to the queue at most one [`Ingest::Discontinuity`] or [`Ingest::Resumed`] and one
/// [`Ingest::Sample`]. Per track and timescale, `dts` of what comes out strictly increases and starts near 0 (video in 90 kHz
/// ticks, audio in samples at the rate given to [`set_audio`](Self::set_audio)).
#[derive(Debug, Clone)]
pub struct Timeline {
    video: Lane,
    audio: Lane,
    clock: AudioClock,
    /// Offset of the newest epoch, and its latest stamp on any track; `None` before the first and after a splice.
    epoch: Option<(i64, i64)>,
    /// The next epoch is announced although none is before it.
    announce_next: bool,
    /// It comes back beside others.
    resumes: bool,
    /// The first stamp is its own place on the timeline.
    as_stamped: bool,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    /// An empty timeline; audio counts 1024-sample units at 48 kHz until told otherwise.
    pub fn new() -> Self {
        let clock = AudioClock { rate: 48_000, frame_len: 1024, next: None, stray_frames: 0 };
        Self {
            video: Lane::new(),
            audio: Lane::new(),
            clock,
            epoch: None,
            announce_next: false,
            resumes: false,
            as_stamped: false,
        }
    }

    /// A timeline beside one that is there: stamps near to its latest lie where they lie there; others begin where it is now.
    pub fn beside(origin: Origin) -> Self {
        let now = Some(origin.latest.saturating_sub(origin.offset).max(0));
        let lane = || Lane { resume: now, ..Lane::new() };
        let epoch = Some((origin.offset, origin.latest));
        Self { video: lane(), audio: lane(), epoch, ..Self::new() }
    }

    /// A timeline that begins at `ticks`, whatever its stamps: where others that are over came to.
    pub fn at(ticks: i64) -> Self {
        let lane = || Lane { resume: Some(ticks.max(0)), ..Lane::new() };
        Self { video: lane(), audio: lane(), ..Self::new() }
    }

    /// A timeline whose encoder stamps as it lies, from whatever it begins with.
    pub fn as_stamped() -> Self {
        Self { as_stamped: true, ..Self::new() }
    }

    /// For [`beside`](Self::beside); `None` before the first sample.
    pub fn origin(&self) -> Option<Origin> {
        self.epoch.map(|(offset, latest)| Origin { offset, latest })
    }

    /// Tells the sampling rate (also the timescale of what comes out) and the samples per access unit.
    pub fn set_audio(&mut self, rate: u32, frame_len: u32) {
        let rate = rate.max(1);
        // A new timescale continues at the same instant.
        self.clock.next = self.clock.next.map(|next| rescale_up(next, self.clock.rate, rate));
        self.clock.rate = rate;
        self.clock.frame_len = frame_len;
        self.audio.duration = self.clock.to_ticks(i64::from(frame_len)).max(1);
    }

    /// The same stretch of media begins again: the next samples follow without a break, whatever their stamps.
    pub fn splice(&mut self) {
        let span = |lane: &Lane| lane.pass_start.map_or(0, |start| i128::from(lane.end() - start));
        let scale = i128::from(TICKS_PER_SECOND);
        let (video, audio) = (span(&self.video), span(&self.audio));
        let (length, _) = pass_length((video, scale), self.video.duration.into(), (audio, scale));
        for lane in [&mut self.video, &mut self.audio] {
            lane.offset = None;
            lane.resume = lane.pass_start.take().map(|start| start + length as i64);
        }
        self.epoch = None;
    }

    /// Something else begins, such as a new connection: the next samples follow behind a discontinuity.
    pub fn restart(&mut self) {
        for lane in [&mut self.video, &mut self.audio] {
            (lane.offset, lane.pass_start, lane.resume) = (None, None, None);
        }
        self.announce_next = self.announce_next || self.epoch.take().is_some();
        self.resumes = false;
    }

    /// The same beside another timeline, which went on meanwhile: as in [`beside`](Self::beside), and never before what was.
    pub fn restart_beside(&mut self, origin: Origin) {
        self.restart();
        let now = origin.latest.saturating_sub(origin.offset).max(self.end_ticks());
        for lane in [&mut self.video, &mut self.audio] {
            lane.resume = Some(now);
        }
        self.epoch = Some((origin.offset, origin.latest));
        (self.announce_next, self.resumes) = (true, true);
    }

    /// The same where nobody went on: at `ticks`, where others came to before they were over, or where it was if that is near.
    pub fn restart_at(&mut self, ticks: i64) {
        self.restart();
        let end = self.end_ticks();
        if ticks <= end.saturating_add(TOGETHER_TICKS) {
            return;
        }
        for lane in [&mut self.video, &mut self.audio] {
            lane.resume = Some(ticks);
        }
        (self.announce_next, self.resumes) = (true, true);
    }

    /// Where the output ends, in 90 kHz ticks.
    pub fn end_ticks(&self) -> i64 {
        self.video.end().max(self.audio.end())
    }

    /// Places one access unit on the timeline.
    pub fn push(&mut self, unit: Stamped, out: &mut VecDeque<Ingest>) {
        // A hostile counter may climb for ever; sums of a few of these still fit.
        let stamp = unit.dts.clamp(-STAMP_MAX, STAMP_MAX);
        if self.place(unit.track, stamp, unit.arrived_unix_us) {
            let resumes = std::mem::take(&mut self.resumes);
            out.push_back(if resumes { Ingest::Resumed } else { Ingest::Discontinuity });
        }
        let lane = self.lane(unit.track);
        let stamped = stamp - lane.offset.unwrap_or(stamp);
        let composition = if unit.composition.abs() > COMPOSITION_TICKS_MAX { 0 } else { unit.composition };
        let (dts, pts) = match unit.track {
            TrackKind::Video => {
                let floor = lane.last_out.map_or(0, |last| last + 1);
                let dts = stamped.max(floor);
                if let Some(last) = lane.last_out.replace(dts)
                    && (1..=JUMP_TICKS).contains(&(dts - last))
                {
                    lane.duration = dts - last;
                }
                (dts, stamped.saturating_add(composition))
            }
            TrackKind::Audio => {
                let Some(dts) = self.clock.tick(stamped) else { return };
                self.audio.last_out = Some(self.clock.to_ticks(dts));
                (dts, dts)
            }
        };
        out.push_back(Ingest::Sample(Sample {
            track: unit.track,
            dts,
            pts,
            key: unit.key,
            data: unit.data,
            arrived_unix_us: unit.arrived_unix_us,
        }));
    }

    fn lane(&mut self, track: TrackKind) -> &mut Lane {
        match track {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }

    /// Finds the epoch that a stamp belongs to; true when it opened a new one that must be announced.
    fn place(&mut self, track: TrackKind, stamp: i64, arrived_us: u64) -> bool {
        let end = self.end_ticks();
        if std::mem::take(&mut self.as_stamped) {
            self.epoch = Some((0, stamp));
        }
        let newest = self.epoch;
        let lane = self.lane(track);
        let kept = lane.offset.filter(|own| {
            // A hole in one track is no jump while the other goes on in the same epoch.
            let hole = newest.is_some_and(|(offset, latest)| {
                offset == *own && stamp > lane.high_stamp && stamp <= latest.saturating_add(JUMP_TICKS)
            });
            hole || lane.continues(stamp, arrived_us)
        });
        let joined = newest
            .filter(|(offset, latest)| lane.offset != Some(*offset) && (stamp - latest).abs() <= JUMP_TICKS)
            .map(|(offset, _)| offset);
        let offset = kept.or(joined).unwrap_or_else(|| stamp - lane.resume.unwrap_or(end));

        lane.high_stamp = if kept.is_some() { lane.high_stamp.max(stamp) } else { stamp };
        lane.offset = Some(offset);
        lane.last_stamp = stamp;
        lane.last_arrived_us = arrived_us;

        lane.pass_start.get_or_insert(stamp - offset);
        lane.resume = None;

        let opened = kept.or(joined).is_none();
        let announce = std::mem::take(&mut self.announce_next) || opened && newest.is_some();
        self.epoch = match newest {
            Some((newest, latest)) if newest == offset => Some((newest, latest.max(stamp))),
            // A straggler of an older epoch does not bring that back.
            Some(newest) if !opened => Some(newest),
            _ => Some((offset, stamp)),
        };
        announce
    }
}

/// How long one pass of looping media lasts, from the spans of its tracks and the duration of the last video frame: by
/// the sound's length where the picture ends near it (a frame shown a little longer or shorter goes unseen, a hole
/// in the sound is heard), otherwise by the longer one's. Spans and the answer are (ticks, ticks per second).
pub(crate) fn pass_length(video: (i128, i128), last_frame: i128, audio: (i128, i128)) -> (i128, i128) {
    match (video.0, audio.0) {
        (0, _) => audio,
        (_, 0) => video,
        _ if audio.0 * video.1 * 2 > (video.0 * 2 - last_frame) * audio.1 => audio,
        _ => video,
    }
}

/// `value` counted in units of 1/`from` s, in units of 1/`to` s, rounded to nearest.
pub(crate) fn rescale(value: i64, from: u32, to: u32) -> i64 {
    let (from, to) = (i128::from(from.max(1)), i128::from(to));
    let scaled = (i128::from(value) * to * 2 + from).div_euclid(from * 2);
    scaled.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// As [`rescale`], rounded up, so that what follows never precedes what was.
fn rescale_up(value: i64, from: u32, to: u32) -> i64 {
    let (from, to) = (i128::from(from.max(1)), i128::from(to));
    let scaled = (i128::from(value) * to + from - 1).div_euclid(from);
    scaled.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use TrackKind::{Audio, Video};

    struct Run {
        timeline: Timeline,
        unroll: Unroll,
        out: VecDeque<Ingest>,
        now_us: u64,
    }

    impl Run {
        fn new() -> Self {
            let mut timeline = Timeline::new();
            timeline.set_audio(48_000, 1024);
            Self { timeline, unroll: Unroll::new(32), out: VecDeque::new(), now_us: 1_000_000 }
        }

        fn push(&mut self, track: TrackKind, ms: u32) {
            let dts = self.unroll.unroll(ms.into()) * 90;
            self.timeline.push(
                Stamped {
                    track,
                    dts,
                    composition: 0,
                    key: true,
                    data: Bytes::new(),
                    arrived_unix_us: self.now_us,
                },
                &mut self.out,
            );
        }

        /// One second of 25 fps video and AAC whose stamps start at `from_ms` (wrapping), as an encoder interleaves.
        fn second(&mut self, from_ms: u32) {
            let (mut video, mut audio) = (0, 0);
            while video < 25 || audio < 47 {
                let (video_ms, audio_ms) = (video * 40, audio * 1024 / 48);
                if video < 25 && (video_ms <= audio_ms || audio == 47) {
                    self.push(Video, from_ms.wrapping_add(video_ms));
                    video += 1;
                } else {
                    self.push(Audio, from_ms.wrapping_add(audio_ms));
                    audio += 1;
                }
                self.now_us += 1_000_000 / 72;
            }
        }

        fn breaks(&self) -> usize {
            self.out.iter().filter(|event| matches!(event, Ingest::Discontinuity)).count()
        }

        /// Decode times of a track, in seconds; asserts that they strictly increase from near 0.
        fn seconds(&self, track: TrackKind) -> Vec<f64> {
            let scale = if track == Video { 90_000.0 } else { 48_000.0 };
            let times: Vec<f64> = self
                .out
                .iter()
                .filter_map(|event| match event {
                    Ingest::Sample(sample) if sample.track == track => Some(sample.dts as f64 / scale),
                    _ => None,
                })
                .collect();
            assert!(times.windows(2).all(|w| w[0] < w[1]), "{track:?} runs backwards: {times:?}");
            assert!(times.first().is_none_or(|first| (0.0..0.5).contains(first)));
            times
        }

        fn assert_in_sync(&self, length: f64, slack: f64) {
            let (video, audio) = (self.seconds(Video), self.seconds(Audio));
            let (v, a) = (video[video.len() - 1], audio[audio.len() - 1]);
            assert!((v - a).abs() < 0.07 + slack, "picture ends at {v}, sound at {a}");
            assert!((v - length).abs() < 0.1 + slack, "picture ends at {v}, not at {length}");
        }
    }

    #[test]
    fn unrolls_both_ways_across_the_wrap() {
        let mut unroll = Unroll::new(32);
        assert_eq!(unroll.unroll(0xffff_ffff), 0xffff_ffff);
        assert_eq!(unroll.unroll(5), 0x1_0000_0005);
        assert_eq!(unroll.unroll(0xffff_fff0), 0xffff_fff0);
        let mut mpeg = Unroll::new(33);
        assert_eq!(mpeg.unroll((1 << 33) - 1), (1 << 33) - 1);
        assert_eq!(mpeg.unroll(0), 1 << 33);
    }

    #[test]
    fn the_32_bit_wrap_is_seamless() {
        let mut run = Run::new();
        let start = u32::MAX - 1_499;
        for second in 0..4u32 {
            run.second(start.wrapping_add(second * 1000));
        }
        assert_eq!(run.breaks(), 0);
        assert_eq!(run.seconds(Video).len(), 100);
        assert_eq!(run.seconds(Audio).len(), 188);
        run.assert_in_sync(4.0, 0.0);
    }

    #[test]
    fn jumps_of_hours_either_way_break_once_and_keep_sync() {
        for to in [5 * 3_600_000u32, 0u32.wrapping_sub(3 * 3_600_000), 4_000] {
            let mut run = Run::new();
            run.second(10_000);
            run.second(11_000);
            run.second(to);
            run.second(to.wrapping_add(1000));
            assert_eq!(run.breaks(), 1, "jump to {to}");
            run.assert_in_sync(4.0, 0.05);
            assert_eq!(run.seconds(Video).len(), 100);
            assert!(
                run.seconds(Audio).len() >= 186,
                "a few access units may go, not {}",
                run.seconds(Audio).len()
            );
        }
    }

    #[test]
    fn stragglers_of_the_old_era_do_not_flap() {
        let mut run = Run::new();
        run.second(0);
        run.push(Video, 7_200_000);
        for late in 0..8 {
            run.push(Audio, 1_003 + late * 21);
            run.push(Video, 7_200_040 + late * 40);
        }
        run.push(Audio, 7_200_360);
        run.push(Video, 7_200_360);
        assert_eq!(run.breaks(), 1);
        assert_eq!(run.seconds(Video).len(), 25 + 1 + 8 + 1);
    }

    #[test]
    fn small_steps_back_are_reordering_and_large_ones_breaks() {
        let mut run = Run::new();
        for ms in [0, 80, 40, 160, 120] {
            run.push(Video, ms);
        }
        assert_eq!(run.breaks(), 0);
        assert_eq!(run.seconds(Video).len(), 5);
        // Creeping back by less than the tolerance each time is noticed too.
        let mut run = Run::new();
        for step in 0..20 {
            run.push(Video, 10_000 - step * 300);
        }
        assert!(run.breaks() > 3);
        run.seconds(Video);
    }

    #[test]
    fn holes_that_took_real_time_are_no_break() {
        let mut run = Run::new();
        run.second(0);
        run.now_us += 5_000_000;
        run.second(6_000);
        assert_eq!(run.breaks(), 0);
        run.assert_in_sync(7.0, 0.0);
        // The same stamps without the time passing are a jump.
        let mut run = Run::new();
        run.second(0);
        run.second(6_000);
        assert_eq!(run.breaks(), 1);
        run.assert_in_sync(2.0, 0.05);
    }

    #[test]
    fn a_hole_in_one_track_is_no_break() {
        let mut run = Run::new();
        run.second(0);
        for frame in 0..100 {
            run.push(Video, 1000 + frame * 40);
        }
        run.second(5_000);
        assert_eq!(run.breaks(), 0);
        run.assert_in_sync(6.0, 0.0);
    }

    #[test]
    fn audio_counts_samples_under_jitter_and_follows_real_drift() {
        let mut run = Run::new();
        for n in 0..2_000u32 {
            let jitter = [0, 18, 3, 30, 9][n as usize % 5];
            run.push(Audio, n * 1024 / 48 + jitter);
        }
        let dts = run.seconds(Audio);
        assert_eq!(dts.len(), 2_000);
        for pair in dts.windows(2) {
            assert!(((pair[1] - pair[0]) * 48_000.0 - 1024.0).abs() < 0.01, "an exact clock does not jitter");
        }
        // An encoder whose clock runs 1 % slow or fast is followed, by holes or by leaving units out.
        for percent in [99u32, 101] {
            let mut run = Run::new();
            let mut stamp = 0;
            for n in 0..4_000u32 {
                stamp = (u64::from(n) * 1024 * u64::from(percent) / 4800) as u32;
                run.push(Audio, stamp);
            }
            let dts = run.seconds(Audio);
            let last = dts[dts.len() - 1];
            assert!((last - f64::from(stamp) / 1000.0).abs() < 0.3, "{percent} %: {last} against {stamp} ms");
            assert!(dts.len() >= 3_900);
        }
    }

    #[test]
    fn a_splice_continues_silently_even_in_a_short_file() {
        let mut run = Run::new();
        for _ in 0..5 {
            for n in 0..10 {
                run.push(Video, n * 40);
                run.push(Audio, n * 40);
            }
            run.timeline.splice();
        }
        assert_eq!(run.breaks(), 0);
        let video = run.seconds(Video);
        assert_eq!(video.len(), 50);
        assert!((video[49] - 1.96).abs() < 0.2, "{}", video[49]);
    }

    #[test]
    fn a_restart_follows_behind_one_discontinuity() {
        let mut run = Run::new();
        run.timeline.restart();
        run.second(5_000);
        assert_eq!(run.breaks(), 0, "nothing was before");
        run.timeline.restart();
        run.timeline.restart();
        run.second(0);
        assert_eq!(run.breaks(), 1);
        run.assert_in_sync(2.0, 0.05);
    }

    #[test]
    fn a_new_sampling_rate_continues_at_the_same_instant() {
        let mut run = Run::new();
        run.second(0);
        run.timeline.set_audio(44_100, 1024);
        run.push(Audio, 1_003);
        let Some(Ingest::Sample(sample)) = run.out.back() else { panic!("no sample") };
        assert!((sample.dts as f64 / 44_100.0 - 1.0027).abs() < 0.001);
    }

    #[test]
    fn any_stamps_at_all_yield_rising_times() {
        let mut state = 7u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..200 {
            let mut run = Run::new();
            let mut stamp = next() as u32;
            for _ in 0..200 {
                stamp = match next() % 8 {
                    0 => next() as u32,
                    1 => stamp.wrapping_sub((next() % 3_000) as u32),
                    _ => stamp.wrapping_add((next() % 100) as u32),
                };
                run.now_us += next() % 100_000;
                run.push(if next() % 2 == 0 { Video } else { Audio }, stamp);
            }
            let rising = |track| {
                let dts: Vec<i64> = run
                    .out
                    .iter()
                    .filter_map(|e| match e {
                        Ingest::Sample(s) if s.track == track => Some(s.dts),
                        _ => None,
                    })
                    .collect();
                assert!(dts.windows(2).all(|w| w[0] < w[1]));
                assert!(dts.first().is_none_or(|d| *d >= 0));
            };
            rising(Video);
            rising(Audio);
        }
    }

    /// Where the first picture lies, ms.
    fn first_ms(run: &Run) -> i64 {
        let sample = run.out.iter().find_map(|event| match event {
            Ingest::Sample(sample) if sample.track == Video => Some(sample.dts / 90),
            _ => None,
        });
        sample.unwrap()
    }

    #[test]
    fn a_second_encoder_lies_beside_the_first() {
        let mut first = Run::new();
        first.second(70_000);
        first.second(71_000);
        let origin = first.timeline.origin().unwrap();
        let beside = |from_ms: u32| {
            let mut run = Run::new();
            run.timeline = Timeline::beside(origin);
            run.timeline.set_audio(48_000, 1024);
            run.second(from_ms);
            first_ms(&run)
        };
        assert_eq!(beside(71_400), 1_400, "by its stamps, which are the same clock's");
        assert_eq!(beside(72_600), 2_600);
        assert!((1_900..=2_000).contains(&beside(5_000)), "by when it comes: {}", beside(5_000));
    }

    #[test]
    fn who_comes_back_lies_beside_those_who_went_on() {
        let mut first = Run::new();
        first.second(70_000);
        let mut second = Run::new();
        second.timeline = Timeline::beside(first.timeline.origin().unwrap());
        second.timeline.set_audio(48_000, 1024);
        second.second(5_000);
        // The first is away for ten seconds.
        for s in 6..15 {
            second.second(s * 1_000);
        }
        let (origin, end) = (second.timeline.origin().unwrap(), second.timeline.end_ticks() / 90);
        for stamps_ms in [15_000, 400_000] {
            let mut back = Run { timeline: first.timeline.clone(), ..Run::new() };
            back.timeline.restart_beside(origin);
            back.unroll = Unroll::new(32);
            back.second(stamps_ms);
            let resumed = back.out.iter().filter(|event| **event == Ingest::Resumed).count();
            assert_eq!((resumed, back.breaks()), (1, 0), "it is said");
            let at = first_ms(&back);
            assert!((at - end).abs() <= 100, "it came back at {at} ms, the other ended at {end} ms");
        }
    }

    #[test]
    fn who_comes_back_first_begins_where_the_last_one_ended() {
        let (mut long, mut short) = (Run::new(), Run::new());
        (0..30).for_each(|s| long.second(s * 1_000));
        (0..5).for_each(|s| short.second(s * 1_000));
        let end = long.timeline.end_ticks();
        // All were away; the one that had been away for longest comes first, and the other beside it.
        let back = |run: &Run| Run { timeline: run.timeline.clone(), ..Run::new() };
        let (mut short, mut long, mut new) = (back(&short), back(&long), Run::new());
        short.timeline.restart_at(end);
        short.second(7_000);
        assert_eq!(first_ms(&short), end / 90);
        assert_eq!(
            (short.out.iter().filter(|event| **event == Ingest::Resumed).count(), short.breaks()),
            (1, 0)
        );
        long.timeline.restart_beside(short.timeline.origin().unwrap());
        long.second(90_000);
        let ahead = first_ms(&long) - end / 90;
        assert!((0..=1_100).contains(&ahead), "it came a second later, and lies {ahead} ms behind the end");
        // So does one that was never there; and who came furthest goes on as if alone.
        new.timeline = Timeline::at(end);
        new.timeline.set_audio(48_000, 1024);
        new.second(500_000);
        assert_eq!((first_ms(&new), new.breaks()), (end / 90, 0));
        let mut alone = Run { timeline: long.timeline.clone(), ..Run::new() };
        let near = alone.timeline.end_ticks() + TOGETHER_TICKS;
        alone.timeline.restart_at(near);
        alone.second(3_000);
        assert_eq!(alone.breaks(), 1, "it ended together with that one");
    }

    #[test]
    fn who_stamps_as_the_timeline_lies_is_believed() {
        let mut run = Run::new();
        run.timeline = Timeline::as_stamped();
        run.timeline.set_audio(48_000, 1024);
        run.second(83_000);
        assert_eq!((first_ms(&run), run.breaks()), (83_000, 0));
    }
}
