//! From one rendition's parts to another's, without a gap in picture or sound.
//!
//! Renditions of a channel lie on one timeline. Where their key frames are aligned, a segment of the one begins where the other was
//! left, and nothing needs to be done. Where one must be left in the middle of a segment, the other's segment is entered
//! from its key frame: pictures that lie before the point reached are decoded in an instant, right before it, and sound before it is left out. Never
//! decides when to go over: its caller does.

use crate::fmp4::{Fmp4Error, Fragment, InitTrack, Run, RunSample, fragment_start_us, prft_unix_us};
use crate::fmp4::{ReadSample, read_init, read_part};
use crate::part::Part;
use crate::sample::TrackKind;

/// Pictures nearer than this to the point reached lie on it, µs: renditions count in ticks of their own.
const ON_POINT_US: i64 = 3_000;
/// What begins so much later leaves a hole, µs: more than a frame.
const HOLE_US: i64 = 60_000;
/// What ended so much later than the other begins is of another timeline, µs.
const OTHER_TIMELINE_US: i64 = 20_000_000;
/// Most pictures that are decoded in an instant; with more the seam waits for the next key frame.
pub const HURRIED_MAX: usize = 600;

/// Where what was given ends, and what is on its way into another rendition.
#[derive(Debug, Default)]
pub struct Seam {
    tracks: Vec<InitTrack>,
    /// Where the last picture's and the last sound's time ends, µs, by [`TrackKind`].
    ends_us: [Option<i64>; 2],
    /// Where the last part ends, µs.
    end_us: Option<i64>,
    entering: Option<Entering>,
}

/// Another rendition is entered.
#[derive(Debug, Default)]
struct Entering {
    tracks: Vec<InitTrack>,
    init: Option<bytes::Bytes>,
    /// Pictures before the point reached.
    hurried: Vec<ReadSample>,
    /// Sound after it, of parts whose pictures all lie before it.
    sounds: Vec<ReadSample>,
}

impl Seam {
    /// Nothing was given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where everything given ends, µs on the channel's timeline.
    pub fn end_us(&self) -> Option<i64> {
        self.end_us
    }

    /// When a part begins whose segment's init data is `init`, µs.
    pub fn start_us(part: &Part, init: &[InitTrack]) -> Option<i64> {
        let start = fragment_start_us(&part.media, init).ok().flatten()?;
        i64::try_from(start).ok()
    }

    /// The next part given is another rendition's, and starts a segment.
    pub fn enter(&mut self) {
        self.entering = Some(Entering::default());
    }

    /// Whether another rendition is entered, and `part`, its first, begins after what was given.
    pub fn leaves_hole(&self, part: &Part) -> bool {
        let Some((end, entering)) = self.end_us.zip(self.entering.as_ref()) else { return false };
        let init = part.init.as_ref().filter(|_| entering.init.is_none());
        let tracks = init.and_then(|init| read_init(init).ok()).unwrap_or_default();
        Self::start_us(part, &tracks).is_some_and(|start| start > end + HOLE_US)
    }

    /// Takes the next part; gives what players get: itself, what is new of it, or nothing of it.
    pub fn pass(&mut self, part: Part) -> Option<Part> {
        let Some(entering) = self.entering.take() else {
            self.note(&part);
            return Some(part);
        };
        match self.join(entering, &part) {
            Ok(joined) => joined,
            // What cannot be read is given as it came.
            Err(_) => {
                self.note(&part);
                Some(part)
            }
        }
    }

    fn note(&mut self, part: &Part) {
        if let Some(tracks) = part.init.as_ref().and_then(|init| read_init(init).ok()) {
            self.tracks = tracks;
        }
        let Ok(samples) = read_part(&part.media, &self.tracks) else { return };
        for sample in &samples {
            let end = us(sample.dts as i64 + i64::from(sample.duration), sample.timescale);
            self.ends_us[sample.track as usize] = Some(end);
        }
        let start = Self::start_us(part, &self.tracks);
        self.end_us = start.map(|start| start + i64::from(part.duration_us)).or(self.end_us);
    }

    fn join(&mut self, mut entering: Entering, part: &Part) -> Result<Option<Part>, Fmp4Error> {
        if let Some(init) = &part.init {
            entering.tracks = read_init(init)?;
            entering.init = Some(init.clone());
            // A later segment needs nothing of the one before.
            entering.hurried.clear();
        }
        if entering.init.is_none() {
            self.entering = Some(entering);
            return Ok(None);
        }
        let begins = Self::start_us(part, &entering.tracks);
        if begins.zip(self.end_us).is_some_and(|(start, end)| start + OTHER_TIMELINE_US < end) {
            (self.ends_us, self.end_us) = ([None, None], Some(i64::MIN));
        }
        let samples = read_part(&part.media, &entering.tracks)?;
        let has_picture = entering.tracks.iter().any(|track| track.kind == TrackKind::Video);
        let [picture_us, sound_us] = self.ends_us.map(|end| end.or(self.end_us).unwrap_or(i64::MIN));
        let (mut pictures, mut sounds) = (Vec::new(), std::mem::take(&mut entering.sounds));
        for sample in samples {
            match sample.track {
                TrackKind::Video
                    if us(sample.dts as i64, sample.timescale) < picture_us.saturating_sub(ON_POINT_US) =>
                {
                    entering.hurried.push(sample);
                }
                TrackKind::Video => pictures.push(sample),
                // Half of it decides: one that was heard for the most part is not heard again.
                TrackKind::Audio => {
                    let middle = us(sample.dts as i64 * 2 + i64::from(sample.duration), sample.timescale) / 2;
                    if middle >= sound_us {
                        sounds.push(sample);
                    }
                }
            }
        }
        if has_picture && pictures.is_empty() || !has_picture && sounds.is_empty() {
            let has_room = entering.hurried.len() <= HURRIED_MAX && sounds.len() <= HURRIED_MAX;
            self.entering =
                Some(if has_room { Entering { sounds, ..entering } } else { Entering::default() });
            return Ok(None);
        }
        let is_whole = entering.hurried.is_empty() && part.segment_start;
        let runs = [picture_run(&entering.hurried, &pictures), sound_run(&sounds)];
        let runs: Vec<Run> = runs.into_iter().flatten().collect();
        let begins = runs.iter().filter_map(|run| {
            let track = entering.tracks.iter().find(|track| track.kind == run.kind)?;
            Some(us(run.base_dts as i64, track.config.timescale))
        });
        let begin_us = begins.min().unwrap_or(0);
        let end_us = Self::start_us(part, &entering.tracks).map(|start| start + i64::from(part.duration_us));
        let length_us = end_us.map_or(i64::from(part.duration_us), |end| end - begin_us);
        let sequence = (part.number as u32).wrapping_add(1);
        let media = Fragment { sequence, arrived_unix_us: prft_unix_us(&part.media)?, runs }.write()?;
        let joined = Part {
            segment_start: true,
            discontinuity: part.discontinuity || self.end_us.is_some(),
            duration_us: u32::try_from(length_us.max(1)).unwrap_or(u32::MAX),
            init: entering.init,
            media: if is_whole && sounds_are_whole(&sounds, &part.media, &entering.tracks) {
                part.media.clone()
            } else {
                media
            },
            ..part.clone()
        };
        self.tracks = entering.tracks;
        self.note(&joined);
        self.end_us = end_us.or(self.end_us);
        Ok(Some(joined))
    }
}

/// Whether all sound of the part is among `kept`.
fn sounds_are_whole(kept: &[ReadSample], media: &bytes::Bytes, tracks: &[InitTrack]) -> bool {
    let all = read_part(media, tracks).unwrap_or_default();
    all.iter().filter(|sample| sample.track == TrackKind::Audio).count() == kept.len()
}

/// `hurried` right before the rest, one tick each.
fn picture_run(hurried: &[ReadSample], pictures: &[ReadSample]) -> Option<Run> {
    let first = pictures.first()?;
    let base_dts = first.dts.saturating_sub(hurried.len() as u64);
    let mut times: Vec<u64> = Vec::with_capacity(hurried.len() + pictures.len());
    for sample in hurried.iter().chain(pictures) {
        let least = times.last().map_or(base_dts, |last| last + 1);
        let is_new = sample.dts >= first.dts;
        times.push(if is_new { sample.dts.max(least) } else { least });
    }
    let end = pictures.last().map_or(0, |last| last.dts + u64::from(last.duration));
    let all = hurried.iter().chain(pictures).enumerate();
    let samples = all.map(|(i, sample)| {
        let next = times.get(i + 1).copied().unwrap_or(end.max(times[i] + 1));
        // What was to be seen before the point reached is seen when it is decoded.
        let pts = sample.pts.max(times[i] as i64);
        RunSample {
            duration: u32::try_from(next - times[i]).unwrap_or(u32::MAX),
            cts: i32::try_from(pts - times[i] as i64).unwrap_or(0),
            key: sample.key,
            data: sample.data.clone(),
        }
    });
    Some(Run { kind: TrackKind::Video, base_dts, samples: samples.collect() })
}

fn sound_run(sounds: &[ReadSample]) -> Option<Run> {
    let base_dts = sounds.first()?.dts;
    let samples = sounds.iter().map(|sample| RunSample {
        duration: sample.duration,
        cts: 0,
        key: true,
        data: sample.data.clone(),
    });
    Some(Run { kind: TrackKind::Audio, base_dts, samples: samples.collect() })
}

fn us(ticks: i64, timescale: u32) -> i64 {
    let us = i128::from(ticks) * 1_000_000 / i128::from(timescale.max(1));
    i64::try_from(us).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::sample::{Codec, Ingest, Sample, TrackConfig};
    use crate::segment::{Segmenter, SegmenterConfig};

    const SCALE: u32 = 90_000;
    const FRAME: i64 = 3_600;

    /// Ten seconds at 25 fps with sound, a key frame each `gop` frames; samples say whose they are.
    fn parts(mark: u8, gop: i64) -> Vec<Part> {
        let avcc = [1, 66, 0, 30, 0xff, 0xe1, 0, 4, 0x67, 66, mark, 30, 1, 0, 2, 0x68, mark];
        let video = TrackConfig {
            codec: Codec::H264 { avcc: Bytes::copy_from_slice(&avcc) },
            timescale: SCALE,
            width: 640,
            height: 360,
            channels: 0,
            sample_rate: 0,
        };
        let audio = TrackConfig {
            codec: Codec::Aac { config: Bytes::from_static(&[0x11, 0x90]) },
            timescale: 48_000,
            width: 0,
            height: 0,
            channels: 2,
            sample_rate: 48_000,
        };
        let mut segmenter = Segmenter::new(SegmenterConfig::default());
        segmenter.push(Ingest::Track(TrackKind::Video, video)).unwrap();
        segmenter.push(Ingest::Track(TrackKind::Audio, audio)).unwrap();
        let mut parts = Vec::new();
        let (mut sound, mut seconds) = (0i64, 0.0);
        for n in 0..250i64 {
            let sample = |track, dts, key| Sample {
                track,
                dts,
                pts: dts,
                key,
                data: Bytes::copy_from_slice(&[0, 0, 0, 4, 0x65, mark, (n % 256) as u8, 0]),
                arrived_unix_us: 1_000_000 + n as u64 * 40_000,
            };
            segmenter.push(Ingest::Sample(sample(TrackKind::Video, n * FRAME, n % gop == 0))).unwrap();
            seconds += 0.04;
            while (sound as f64) < seconds * 48_000.0 {
                segmenter.push(Ingest::Sample(sample(TrackKind::Audio, sound, true))).unwrap();
                sound += 1024;
            }
            parts.extend(std::iter::from_fn(|| segmenter.poll()));
        }
        parts
    }

    /// Every sample of what was given: strictly ascending decode times, sound without a gap, and no picture missing for longer
    /// than a frame. Gives how many samples came of each mark.
    fn check(given: &[Part]) -> (usize, usize) {
        let mut tracks = Vec::new();
        let mut ends: [Option<(u64, u32)>; 2] = [None, None];
        let mut marks = (0, 0);
        for part in given {
            if let Some(init) = &part.init {
                tracks = read_init(init).unwrap();
            }
            for sample in read_part(&part.media, &tracks).unwrap() {
                if sample.data[5] == 1 {
                    marks.0 += 1;
                } else {
                    marks.1 += 1;
                }
                let end = &mut ends[sample.track as usize];
                if let Some((end, scale)) = *end {
                    assert_eq!(scale, sample.timescale);
                    let slack = if sample.track == TrackKind::Audio { 0 } else { 300 };
                    assert!(
                        sample.dts.abs_diff(end) <= slack,
                        "{:?} {} after {end}",
                        sample.track,
                        sample.dts
                    );
                }
                *end = Some((sample.dts + u64::from(sample.duration), sample.timescale));
            }
        }
        marks
    }

    fn go_over(from: &[Part], to: &[Part], leave_at: usize) -> Vec<Part> {
        let mut seam = Seam::new();
        let mut given: Vec<Part> =
            from[..leave_at].iter().filter_map(|part| seam.pass(part.clone())).collect();
        let end = seam.end_us().unwrap();
        let tracks = read_init(to[0].init.as_ref().unwrap()).unwrap();
        let begins = |part: &Part| Seam::start_us(part, &tracks).unwrap();
        let start =
            to.iter().rposition(|part| part.segment_start && begins(part) <= end + ON_POINT_US).unwrap();
        seam.enter();
        given.extend(to[start..].iter().filter_map(|part| seam.pass(part.clone())));
        given
    }

    #[test]
    fn a_seam_at_a_key_frame_changes_no_byte() {
        let (one, two) = (parts(1, 25), parts(2, 25));
        let given = go_over(&one, &two, 10);
        assert!(given[10].segment_start && given[10].discontinuity);
        assert_eq!(given[10].media, two[10].media);
        assert_eq!(given.len(), two.len());
        check(&given);
    }

    #[test]
    fn wherever_one_is_left_the_other_follows_without_a_gap() {
        // Key frames of the other lie elsewhere, too.
        for gop in [25, 40] {
            let (one, two) = (parts(1, 25), parts(2, gop));
            for leave_at in 1..20 {
                let given = go_over(&one, &two, leave_at);
                let joined = &given[leave_at];
                assert!(joined.segment_start && joined.init == two[0].init, "part {leave_at}");
                let (from, to) = check(&given);
                assert!(from > 0 && to > 0);
                let total: u64 = given.iter().map(|part| u64::from(part.duration_us)).sum();
                let all: u64 = two.iter().map(|part| u64::from(part.duration_us)).sum();
                assert!(total.abs_diff(all) < 10_000, "{total} and {all}");
            }
        }
    }

    #[test]
    fn what_is_not_a_part_is_given_as_it_came() {
        let mut seam = Seam::new();
        seam.pass(parts(1, 25)[0].clone()).unwrap();
        seam.enter();
        let part = Part { media: Bytes::from_static(b"junk"), ..parts(2, 25)[0].clone() };
        assert_eq!(seam.pass(part.clone()), Some(part));
    }
}
