//! Real H.264 and AAC through the segmenter, the envelope and the assembler, judged by ffmpeg and ffprobe.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::LazyLock;

use bytes::Bytes;
use caudal_media::{
    assemble::{Assembler, AssemblerOutput, ChunkIn, StreamWriter},
    fmp4::{self, ReadSample},
    part::Part,
    sample::{Ingest, TrackConfig, TrackKind},
};
use support::{
    EPOCH_US, Source, TempFile, assert_continuous, decoded, ingest, packets, part_samples, path, run,
    segment, stream, us,
};

/// 6 s, a key frame every 2 s.
static MAIN: LazyLock<Bytes> = LazyLock::new(|| Source::default().encode());
/// Another size, another sound, a key frame every second.
static OTHER: LazyLock<Bytes> = LazyLock::new(|| {
    Source { size: "192x128", seconds: "3", gop: "25", rate: "25", audio_rate: "44100", ..Source::default() }
        .encode()
});

fn of(samples: &[ReadSample], kind: TrackKind) -> Vec<&ReadSample> {
    samples.iter().filter(|sample| sample.track == kind).collect()
}

fn data(samples: &[ReadSample], kind: TrackKind) -> Vec<Bytes> {
    of(samples, kind).into_iter().map(|sample| sample.data.clone()).collect()
}

fn segments(parts: &[Part]) -> Vec<&[Part]> {
    parts.chunk_by(|_, next| !next.segment_start).collect()
}

/// Moves every sample in time.
fn later(items: Vec<Ingest>, by_us: i64) -> Vec<Ingest> {
    let mut timescales = [1_i64; 2];
    items
        .into_iter()
        .map(|item| match item {
            Ingest::Track(kind, config) => {
                timescales[kind as usize] = i64::from(config.timescale);
                Ingest::Track(kind, config)
            }
            Ingest::Sample(mut sample) => {
                let ticks = by_us * timescales[sample.track as usize] / 1_000_000;
                sample.dts += ticks;
                sample.pts += ticks;
                sample.arrived_unix_us = sample.arrived_unix_us.wrapping_add_signed(by_us);
                Ingest::Sample(sample)
            }
            other => other,
        })
        .collect()
}

fn only(items: &[Ingest], kind: TrackKind) -> Vec<Ingest> {
    let keep = |item: &&Ingest| match item {
        Ingest::Track(track, _) => *track == kind,
        Ingest::Sample(sample) => sample.track == kind,
        _ => true,
    };
    items.iter().filter(keep).cloned().collect()
}

fn arrival(item: &Ingest) -> u64 {
    match item {
        Ingest::Sample(sample) => sample.arrived_unix_us,
        _ => 0,
    }
}

#[test]
fn every_packet_survives_bit_for_bit_and_time_for_time() {
    let parts = segment(ingest(&MAIN));
    let output = stream(&parts);
    let (before, after) =
        (TempFile::with("in.mp4", [MAIN.clone()]), TempFile::with("out.mp4", [output.clone()]));
    assert_eq!(run("ffprobe", &["-v", "error", path(&after)]).1, "");
    for track in ["v", "a"] {
        let expected = packets(path(&before), track);
        assert!(expected.len() > 150);
        assert_eq!(packets(path(&after), track), expected);
    }
    let (pictures, sounds) = decoded(path(&after));
    assert_eq!(pictures, 180);
    assert!(sounds >= 280);

    let (read_in, read_out) = (fmp4::read_samples(&MAIN).unwrap(), fmp4::read_samples(&output).unwrap());
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let times = |s: &ReadSample| (s.dts, s.pts, s.key, s.duration);
        // The encoder trims its last sound frame to the length of the source: no live stream could tell.
        let before_last = |samples| -> Vec<_> {
            let all = of(samples, kind);
            all[..all.len() - 1].iter().map(|sample| times(sample)).collect()
        };
        assert_eq!(before_last(&read_out), before_last(&read_in));
        assert_continuous(&read_out, kind);
    }
    let early = |s: &&ReadSample| s.track == TrackKind::Video && s.pts < s.dts as i64;
    assert!(read_out.iter().find(early).is_some(), "negative composition offsets must survive");
}

#[test]
fn parts_are_200_ms_and_segments_start_at_key_frames() {
    let parts = segment(ingest(&MAIN));
    assert_eq!(parts.iter().map(|part| part.duration_us).collect::<Vec<_>>()[..29], [200_000; 29]);
    assert_eq!(parts.len(), 30);
    assert_eq!(segments(&parts).iter().map(|segment| segment.len()).collect::<Vec<_>>(), [10, 10, 10]);
    for (part, samples) in parts.iter().zip(part_samples(&parts)) {
        let video = of(&samples, TrackKind::Video);
        assert_eq!(video.len(), 6);
        assert_eq!(video[0].key, part.segment_start);
        assert!(video[1..].iter().all(|sample| !sample.key));
        assert!(!of(&samples, TrackKind::Audio).is_empty(), "sound is interleaved");
        assert!(!part.discontinuity);
        // Stamped with the arrival of the first sample, in the header and in the boxes.
        assert_eq!(part.capture_unix_us, EPOCH_US + us(video[0]));
        assert_eq!(fmp4::prft_unix_us(&part.media).unwrap(), part.capture_unix_us);
        // Beside the samples: prft, moof and mdat headers.
        let bytes: usize = samples.iter().map(|sample| sample.data.len()).sum();
        assert!(part.media.len() - bytes < 420, "{} bytes of boxes", part.media.len() - bytes);
    }
    let inits: Vec<_> = parts.iter().filter_map(|part| part.init.as_ref()).collect();
    assert!(inits.windows(2).all(|pair| pair[0] == pair[1]), "the same tracks give the same init data");
}

#[test]
fn each_segment_decodes_alone() {
    let parts = segment(ingest(&MAIN));
    for segment in segments(&parts) {
        let file = TempFile::with("segment.mp4", [stream(segment)]);
        let (pictures, sounds) = decoded(path(&file));
        assert_eq!(pictures, 60);
        assert!((90..=97).contains(&sounds), "{sounds} sound frames");
    }
}

#[test]
fn other_frame_rates_give_parts_nearest_to_the_target() {
    let items = ingest(&OTHER);
    let parts = segment(items);
    assert_eq!(segments(&parts).len(), 3);
    assert!(parts[..14].iter().all(|part| part.duration_us == 200_000));
    let film = Source { rate: "24", seconds: "2", gop: "48", audio: false, ..Source::default() }.encode();
    let parts = segment(ingest(&film));
    let frames: Vec<usize> = part_samples(&parts).iter().map(Vec::len).collect();
    assert_eq!(
        frames,
        [5, 5, 5, 5, 5, 5, 5, 5, 5, 3],
        "five pictures of 41.7 ms are nearer to 200 ms than four"
    );
}

#[test]
fn the_swarm_gives_back_the_same_parts() {
    let parts = segment(ingest(&MAIN));
    let mut assembler = Assembler::start_at(0);
    let mut got = Vec::new();
    for part in &parts {
        let payload = part.to_payload();
        let count = payload.len().div_ceil(1200) as u16;
        for index in (0..count).rev() {
            let at = usize::from(index) * 1200;
            let chunk = ChunkIn {
                part: part.number,
                index,
                count,
                segment_start: part.segment_start,
                discontinuity: part.discontinuity,
                capture_unix_us: part.capture_unix_us,
                payload: payload.slice(at..payload.len().min(at + 1200)),
            };
            assembler.push(chunk).unwrap();
        }
        got.extend(std::iter::from_fn(|| assembler.poll()));
    }
    assert_eq!(got, parts.into_iter().map(AssemblerOutput::Part).collect::<Vec<_>>());
}

#[test]
fn sound_alone_has_segments_of_two_seconds() {
    let items = only(&ingest(&MAIN), TrackKind::Audio);
    let parts = segment(items);
    let input = fmp4::read_samples(&MAIN).unwrap();
    let output = stream(&parts);
    let samples = fmp4::read_samples(&output).unwrap();
    assert_eq!(data(&samples, TrackKind::Audio), data(&input, TrackKind::Audio));
    assert_continuous(&samples, TrackKind::Audio);
    assert_eq!(fmp4::read_init(&output).unwrap().len(), 1);
    let lengths: Vec<u32> =
        segments(&parts).iter().map(|s| s.iter().map(|part| part.duration_us).sum()).collect();
    assert!(lengths[..lengths.len() - 1].iter().all(|us| (1_900_000..2_100_000).contains(us)), "{lengths:?}");
    assert!(parts[..parts.len() - 1].iter().all(|part| (180_000..220_000).contains(&part.duration_us)));
    let file = TempFile::with("sound.mp4", [output]);
    assert!(decoded(path(&file)).1 > 280);
}

#[test]
fn a_picture_alone_needs_no_sound() {
    for announce_sound in [false, true] {
        let all = ingest(&MAIN);
        let mut items = only(&all, TrackKind::Video);
        if announce_sound {
            // Announced, but never sent: players must not wait for it.
            items.splice(0..0, only(&all[..2], TrackKind::Audio));
        }
        let parts = segment(items);
        let output = stream(&parts);
        let samples = fmp4::read_samples(&output).unwrap();
        assert_eq!(data(&samples, TrackKind::Video).len(), 180);
        assert_eq!(fmp4::read_init(&output).unwrap().len(), 1);
        assert_continuous(&samples, TrackKind::Video);
        assert_eq!(parts.iter().filter(|part| part.discontinuity).count(), 0);
        assert_eq!(decoded(path(&TempFile::with("picture.mp4", [output]))).0, 180);
    }
}

/// Sound that comes before the picture, by 0.3 s (waited for) or 2 s (sound alone first).
#[test]
fn sound_first_loses_nothing() {
    for (lead_us, switches) in [(300_000, 0), (2_000_000, 1)] {
        let all = ingest(&MAIN);
        let mut items: Vec<Ingest> = only(&all, TrackKind::Audio);
        items.extend(later(only(&all, TrackKind::Video), lead_us));
        let announced_us = EPOCH_US + lead_us as u64;
        items.sort_by_key(|item| match item {
            Ingest::Track(TrackKind::Video, _) => announced_us,
            item => arrival(item),
        });
        let parts = segment(items);
        let samples = fmp4::read_samples(&stream(&parts)).unwrap();
        let input = fmp4::read_samples(&MAIN).unwrap();
        for kind in [TrackKind::Video, TrackKind::Audio] {
            assert_eq!(data(&samples, kind), data(&input, kind), "{lead_us}: {kind:?}");
            assert_continuous(&samples, kind);
        }
        assert_eq!(parts.iter().filter(|part| part.discontinuity).count(), switches);
    }
}

#[test]
fn sound_that_comes_late_joins_at_a_key_frame_and_the_picture_goes_on() {
    let all = ingest(&MAIN);
    let (mut items, sound) = (only(&all, TrackKind::Video), only(&all, TrackKind::Audio));
    let from_us = EPOCH_US + 2_500_000;
    items.extend(sound.into_iter().filter(|item| arrival(item) == 0 || arrival(item) >= from_us));
    items.sort_by_key(|item| match item {
        Ingest::Track(TrackKind::Audio, _) => from_us,
        item => arrival(item),
    });
    let parts = segment(items);
    let samples = fmp4::read_samples(&stream(&parts)).unwrap();
    let input = fmp4::read_samples(&MAIN).unwrap();
    assert_eq!(data(&samples, TrackKind::Video), data(&input, TrackKind::Video));
    assert_continuous(&samples, TrackKind::Video);
    let first_sound = of(&samples, TrackKind::Audio)[0];
    assert!((3_970_000..4_001_000).contains(&us(first_sound)), "the key frame at 4 s: {}", us(first_sound));
    let breaks: Vec<u64> = parts.iter().filter(|part| part.discontinuity).map(|part| part.number).collect();
    assert_eq!(breaks, [20]);
}

fn config_of(items: &[Ingest], wanted: TrackKind) -> TrackConfig {
    let find = items.iter().find_map(|item| match item {
        Ingest::Track(kind, config) if *kind == wanted => Some(config.clone()),
        _ => None,
    });
    find.unwrap()
}

#[test]
fn another_size_and_sound_start_a_segment_with_new_init_data() {
    let first = ingest(&MAIN);
    let second = later(ingest(&OTHER), 6_100_000);
    assert_ne!(config_of(&first, TrackKind::Video), config_of(&second, TrackKind::Video));
    let parts = segment(first.into_iter().chain(second));
    let breaks: Vec<&Part> = parts.iter().filter(|part| part.discontinuity).collect();
    assert_eq!(breaks.len(), 1, "both tracks change at once");
    assert_ne!(breaks[0].init, parts[0].init);
    let output = stream(&parts);
    let samples = fmp4::read_samples(&output).unwrap();
    assert_eq!(samples.last().unwrap().init, 1, "the stream carries both moovs");
    let input: Vec<_> = [&*MAIN, &*OTHER].into_iter().map(|file| fmp4::read_samples(file).unwrap()).collect();
    for kind in [TrackKind::Video, TrackKind::Audio] {
        assert_eq!(data(&samples, kind), [data(&input[0], kind), data(&input[1], kind)].concat());
        // Each half stands alone, on one rising timeline.
        assert!(of(&samples, kind).windows(2).all(|pair| us(pair[0]) <= us(pair[1])));
    }
    let at = breaks[0].number as usize;
    let (old, new) = (
        TempFile::with("old.mp4", [stream(&parts[..at])]),
        TempFile::with("new.mp4", [stream(&parts[at..])]),
    );
    assert_eq!(decoded(path(&old)).0, 180);
    assert_eq!(decoded(path(&new)).0, 75);
}

#[test]
fn a_picture_of_another_size_is_decoded_whole_from_one_stream() {
    let small = Source { size: "192x128", seconds: "3", ..Source::default() }.encode();
    let items = ingest(&MAIN)
        .into_iter()
        .chain(later(ingest(&small), 6_100_000))
        .chain(later(ingest(&MAIN), 9_200_000));
    let parts = segment(items);
    assert_eq!(parts.iter().filter(|part| part.discontinuity).count(), 2);
    for mut writer in [StreamWriter::new(), StreamWriter::recording()] {
        let output: Bytes =
            parts.iter().flat_map(|part| writer.write(part)).flatten().collect::<Vec<u8>>().into();
        let samples = fmp4::read_samples(&output).unwrap();
        assert_eq!(samples.last().unwrap().init, 0, "one moov");
        for kind in [TrackKind::Video, TrackKind::Audio] {
            assert!(of(&samples, kind).windows(2).all(|pair| us(pair[0]) <= us(pair[1])));
        }
        // ffmpeg decodes every picture and complains of none.
        let file = TempFile::with("sizes.mp4", [output]);
        assert_eq!(decoded(path(&file)).0, 180 + 90 + 180);
    }
    // Who joins after a change needs nothing in band.
    let at = parts.iter().rposition(|part| part.discontinuity).unwrap();
    assert_eq!(data(&fmp4::read_samples(&stream(&parts[at..])).unwrap(), TrackKind::Video).len(), 180);
    assert_eq!(decoded(path(&TempFile::with("last.mp4", [stream(&parts[at..])]))).0, 180);
}

#[test]
fn a_discontinuity_continues_the_timeline_at_the_next_key_frame() {
    let jump_us = 7_200_000_000;
    for announced in [true, false] {
        // A new publisher that says so, and one whose timestamps just jump by two hours.
        let mut items = ingest(&MAIN);
        items.truncate(items.len() - 100);
        let cut = items
            .iter()
            .filter(|item| matches!(item, Ingest::Sample(s) if s.track == TrackKind::Video))
            .count();
        if announced {
            items.push(Ingest::Discontinuity);
        }
        let mut again = later(ingest(&MAIN), jump_us);
        // It is caught in the middle of a GOP.
        again.retain(|item| !matches!(item, Ingest::Sample(s) if s.track == TrackKind::Video && s.dts < 15_360 * 7200 + 10_000));
        items.extend(again);
        let parts = segment(items);
        let breaks: Vec<u64> =
            parts.iter().filter(|part| part.discontinuity).map(|part| part.number).collect();
        assert_eq!(breaks.len(), 1);
        let before: u64 = parts[..breaks[0] as usize].iter().map(|part| u64::from(part.duration_us)).sum();
        let samples = part_samples(&parts);
        let resumed = of(&samples[breaks[0] as usize], TrackKind::Video)[0];
        assert!(resumed.key);
        let gap_us = us(resumed) as i64 - before as i64;
        assert!(
            (0..600_000).contains(&gap_us),
            "the timeline continues, less the sound before the key frame: {gap_us}"
        );
        let all: Vec<ReadSample> = samples.concat();
        for kind in [TrackKind::Video, TrackKind::Audio] {
            assert!(
                of(&all, kind)
                    .windows(2)
                    .all(|pair| pair[0].dts + u64::from(pair[0].duration) <= pair[1].dts)
            );
        }
        assert_eq!(of(&all, TrackKind::Video).len(), cut + 120, "all but the broken GOP");
        let at = breaks[0] as usize;
        for half in [&parts[..at], &parts[at..]] {
            decoded(path(&TempFile::with("half.mp4", [stream(half)])));
        }
    }
}

#[test]
fn timestamps_in_milliseconds_give_steady_parts() {
    // As RTMP stamps them: 33, 33, 34 ms; sound at 21 or 22 ms.
    let items = ingest(&MAIN).into_iter().map(|item| match item {
        Ingest::Track(kind, config) => Ingest::Track(kind, TrackConfig { timescale: 1000, ..config }),
        Ingest::Sample(mut s) => {
            let scale = if s.track == TrackKind::Video { 15_360 } else { 48_000 };
            (s.dts, s.pts) = (s.dts * 1000 / scale, (s.pts * 1000).div_euclid(scale));
            Ingest::Sample(s)
        }
        other => other,
    });
    let parts = segment(items);
    assert_eq!(parts.len(), 30);
    assert!(parts[..29].iter().all(|part| (199_000..=201_000).contains(&part.duration_us)));
    let samples = fmp4::read_samples(&stream(&parts)).unwrap();
    for kind in [TrackKind::Video, TrackKind::Audio] {
        assert_continuous(&samples, kind);
        assert_eq!(data(&samples, kind).len(), data(&fmp4::read_samples(&MAIN).unwrap(), kind).len());
    }
}

#[test]
fn a_track_that_falls_silent_is_left_out_and_comes_back() {
    let long = Source { seconds: "14", gop: "30", size: "64x64", ..Source::default() }.encode();
    for kind in [TrackKind::Video, TrackKind::Audio] {
        // 8 s of silence from 2 s on.
        let silent = EPOCH_US + 2_000_000..EPOCH_US + 10_000_000;
        let items: Vec<Ingest> = ingest(&long)
            .into_iter()
            .filter(|item| !matches!(item, Ingest::Sample(s) if s.track == kind && silent.contains(&s.arrived_unix_us)))
            .collect();
        let sent = items.iter().filter(|item| matches!(item, Ingest::Sample(_))).count();
        let parts = segment(items);
        let samples = fmp4::read_samples(&stream(&parts)).unwrap();
        let lost = sent - samples.len();
        // Sound that comes back waits for the next key frame, at most a GOP of 1 s.
        assert!(if kind == TrackKind::Video { lost == 0 } else { lost < 50 }, "{lost} of {sent} lost");
        let breaks = parts.iter().filter(|part| part.discontinuity).count();
        assert_eq!(breaks, 2, "{kind:?} leaves and comes back");
        assert_eq!(samples.iter().filter(|s| s.init == 1 && s.track == kind).count(), 0);
        assert!(parts.iter().all(|part| part.duration_us < 1_000_000), "playback goes on in parts");
    }
}

/// A file as a viewer records it.
fn recorded<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Bytes {
    let mut writer = StreamWriter::recording();
    parts.into_iter().flat_map(|part| writer.write(part)).flatten().collect::<Vec<u8>>().into()
}

#[test]
fn a_recording_begins_at_zero_whenever_it_was_begun() {
    const HOURS_US: i64 = 30 * 3600 * 1_000_000;
    let parts = segment(later(ingest(&MAIN), HOURS_US));
    // Joined at the second segment, 30 hours and 2 s into the broadcast.
    let joined = segments(&parts)[1..].concat();
    let (output, raw) = (recorded(&joined), stream(&joined));
    let file = TempFile::with("late.mp4", [output.clone()]);
    let format = ["-v", "error", "-show_entries", "format=start_time,duration", "-of", "csv=p=0"];
    let (times, complaints) = run("ffprobe", &[&format[..], &[path(&file)]].concat());
    assert_eq!(complaints, "");
    let times: Vec<f64> = times.trim().split(',').map(|time| time.parse().unwrap()).collect();
    // B-frames: what is shown first may be decoded up to 0.1 s before it.
    assert!(times[0].abs() < 0.15 && (3.5..4.5).contains(&times[1]), "{times:?}");
    // All tracks were moved alike, and nothing else changed.
    let (before, after) = (fmp4::read_samples(&raw).unwrap(), fmp4::read_samples(&output).unwrap());
    assert_eq!(before.len(), after.len());
    let moved: Vec<f64> =
        before.iter().zip(&after).map(|(b, a)| (b.dts - a.dts) as f64 / f64::from(a.timescale)).collect();
    assert!(moved.iter().all(|by| (by - moved[0]).abs() < 0.001), "picture and sound keep their distance");
    for kind in [TrackKind::Video, TrackKind::Audio] {
        assert_eq!(data(&before, kind), data(&after, kind));
    }
}

#[test]
fn a_recording_goes_on_where_a_restarted_source_begins_anew() {
    let (first, second) = (segment(later(ingest(&MAIN), 7_200_000_000)), segment(ingest(&OTHER)));
    let samples = fmp4::read_samples(&recorded(first.iter().chain(&second))).unwrap();
    for kind in [TrackKind::Video, TrackKind::Audio] {
        let seconds = |s: &&ReadSample| s.dts as f64 / f64::from(s.timescale);
        let times: Vec<f64> = of(&samples, kind).iter().map(seconds).collect();
        let steps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (-0.05..0.3).contains(step)), "{kind:?}: {steps:?}");
        assert!((8.5..9.5).contains(times.last().unwrap()), "{kind:?} ends at {:?}", times.last());
    }
}
