//! The test card against an independent decoder: what `ffmpeg` reads must be what was stamped.
//!
//! Needs `ffmpeg` in the path and fails without it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caudal_media::sample::{Codec, Ingest, Sample, TrackConfig, TrackKind};
use caudal_media::testcard::code::{self, Code};
use caudal_media::testcard::{CardError, TestCard, TestCardConfig};

const START_US: u64 = 1_763_806_210_123_456;

/// A folder of this test's own, gone at its end unless the test fails.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("caudal-testcard-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Runs ffmpeg with `args` on `input`, asserts that it had nothing to complain about, and returns its output.
fn ffmpeg(input: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i"])
        .arg(input)
        .args(args)
        .arg("-")
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg must be installed for this test");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "ffmpeg on {}: {complaints}", input.display());
    output.stdout
}

/// What came out of a card, by track.
struct Recording {
    tracks: Vec<(TrackKind, TrackConfig)>,
    video: Vec<Sample>,
    audio: Vec<Sample>,
    /// Time spent in `tick`.
    spent: Duration,
}

fn stamp(frame: u64) -> u64 {
    START_US + frame * 1_000_000 / 30
}

fn record(config: TestCardConfig, frames: impl IntoIterator<Item = u64>) -> Recording {
    let mut card = TestCard::new(config).expect("settings within range");
    let mut recording = Recording { tracks: vec![], video: vec![], audio: vec![], spent: Duration::ZERO };
    for frame in frames {
        let started = Instant::now();
        let said = card.tick(frame, stamp(frame));
        recording.spent += started.elapsed();
        for ingest in said {
            match ingest {
                Ingest::Track(kind, track) => {
                    assert!(recording.video.is_empty(), "tracks come first and do not change");
                    recording.tracks.push((kind, track));
                }
                Ingest::Sample(sample) if sample.track == TrackKind::Video => recording.video.push(sample),
                Ingest::Sample(sample) => recording.audio.push(sample),
                other => panic!("frame {frame}: {other:?}"),
            }
        }
    }
    recording
}

impl Recording {
    /// Annex B with the parameter sets of the `avcC` at the head, as a player would set up its decoder.
    fn annex_b(&self) -> Vec<u8> {
        let Codec::H264 { avcc } = &self.tracks[0].1.codec else { panic!("not H.264") };
        assert_eq!((avcc[0], avcc[4] & 3, avcc[5] & 31), (1, 3, 1), "version, length size, SPS count");
        let sps_len = usize::from(u16::from_be_bytes([avcc[6], avcc[7]]));
        let (sps, rest) = avcc[8..].split_at(sps_len);
        assert_eq!(rest[0], 1, "PPS count");
        let pps_len = usize::from(u16::from_be_bytes([rest[1], rest[2]]));
        let pps = &rest[3..];
        assert_eq!(pps.len(), pps_len, "the record ends with its PPS");
        assert_eq!((sps[0] & 31, pps[0] & 31), (7, 8));
        assert_eq!(avcc[1..4], sps[1..4], "profile, compatibility, level");
        let mut out = Vec::new();
        for nal in [sps, pps].into_iter().chain(self.video.iter().flat_map(nals)) {
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(nal);
        }
        out
    }

    fn adts(&self) -> Vec<u8> {
        let Codec::Aac { config } = &self.tracks[1].1.codec else { panic!("not AAC") };
        assert_eq!(config[..2], [0x11, 0x90], "AAC-LC, 48 kHz, stereo");
        let mut out = Vec::new();
        for sample in &self.audio {
            let len = sample.data.len() + 7;
            out.extend_from_slice(&[0xFF, 0xF1, 0x4C, 0x80 | (len >> 11) as u8, (len >> 3) as u8]);
            out.extend_from_slice(&[(len << 5) as u8 | 0x1F, 0xFC]);
            out.extend_from_slice(&sample.data);
        }
        out
    }

    fn bits(&self) -> usize {
        self.video.iter().chain(&self.audio).map(|sample| sample.data.len() * 8).sum()
    }

    fn key_frames(&self) -> Vec<i64> {
        self.video.iter().filter(|sample| sample.key).map(|sample| sample.dts / 3000).collect()
    }
}

/// The NAL units of a sample with lengths of four bytes; panics when they do not fill it.
fn nals(sample: &Sample) -> Vec<&[u8]> {
    let (mut rest, mut out) = (&sample.data[..], Vec::new());
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (nal, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
        out.push(nal);
        rest = tail;
    }
    assert!(rest.is_empty());
    out
}

fn write(folder: &Folder, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.0.join(name);
    std::fs::write(&path, bytes).expect("a writable temporary folder");
    path
}

/// Decodes to grey pictures of `width`×`height` and reads every code.
fn codes(path: &Path, width: usize, height: usize) -> Vec<Option<Code>> {
    let scale = format!("scale={width}:{height}");
    let pictures = ffmpeg(path, &["-vf", &scale, "-pix_fmt", "gray", "-f", "rawvideo"]);
    assert_eq!(pictures.len() % (width * height), 0);
    pictures.chunks(width * height).map(|luma| code::read(luma, width, height, width)).collect()
}

fn expected(frames: impl IntoIterator<Item = u64>) -> Vec<Option<Code>> {
    frames.into_iter().map(|n| Some(Code { unix_ms: stamp(n) / 1000, frame: n as u32 })).collect()
}

#[test]
fn three_seconds_decode_cleanly_and_every_code_reads_back() {
    let folder = Folder::new("codes");
    let recording = record(TestCardConfig::default(), 0..90);
    let kinds: Vec<TrackKind> = recording.tracks.iter().map(|track| track.0).collect();
    assert_eq!(kinds, [TrackKind::Video, TrackKind::Audio]);
    let video = &recording.tracks[0].1;
    assert_eq!((video.width, video.height, video.timescale), (1280, 720, 90_000));
    assert!(recording.video.iter().zip(0..).all(|(s, n)| s.dts == n * 3000 && s.pts == s.dts));
    assert!(recording.video.iter().zip(0..).all(|(s, n)| s.arrived_unix_us == stamp(n)));
    for (sample, kind) in
        recording.video.iter().flat_map(|s| nals(s).into_iter().map(move |n| (s, n[0] & 31)))
    {
        assert_eq!(kind, if sample.key { 5 } else { 1 }, "slices only, no parameter sets in the stream");
    }
    assert_eq!(recording.key_frames(), [0, 30, 60]);

    let path = write(&folder, "card.h264", &recording.annex_b());
    assert_eq!(codes(&path, 1280, 720), expected(0..90));
    assert_eq!(codes(&path, 640, 360), expected(0..90));
}

#[test]
fn codes_survive_the_lowest_rate_and_odd_sizes() {
    let folder = Folder::new("low");
    let config = TestCardConfig { bitrate_bps: 300_000, ..TestCardConfig::default() };
    let path = write(&folder, "low.h264", &record(config, 0..45).annex_b());
    assert_eq!(codes(&path, 640, 360), expected(0..45));
    let config =
        TestCardConfig { width: 854, height: 480, bitrate_bps: 800_000, ..TestCardConfig::default() };
    let path = write(&folder, "480.h264", &record(config, 0..20).annex_b());
    assert_eq!(codes(&path, 854, 480), expected(0..20));
    let config =
        TestCardConfig { width: 640, height: 360, bitrate_bps: 500_000, ..TestCardConfig::default() };
    let path = write(&folder, "360.h264", &record(config, 0..20).annex_b());
    assert_eq!(codes(&path, 640, 360), expected(0..20));
}

#[test]
fn key_frames_follow_the_interval_also_when_frames_are_skipped() {
    let small = TestCardConfig { width: 640, height: 360, bitrate_bps: 400_000, ..TestCardConfig::default() };
    let every = |ms| TestCardConfig { keyframe_interval: Duration::from_millis(ms), ..small.clone() };
    assert_eq!(record(every(2000), 0..125).key_frames(), [0, 60, 120]);
    assert_eq!(record(every(8300), 0..255).key_frames(), [0, 249]);
    assert_eq!(record(every(1), 0..4).key_frames(), [0, 1, 2, 3]);
    let skipping = record(every(1000), [5, 6, 29, 33, 34, 100]);
    assert_eq!(skipping.key_frames(), [5, 33, 100]);
    let dts: Vec<i64> = skipping.video.iter().map(|sample| sample.dts / 3000).collect();
    assert_eq!(dts, [5, 6, 29, 33, 34, 100]);
    let folder = Folder::new("skipping");
    let path = write(&folder, "skipping.h264", &skipping.annex_b());
    assert_eq!(codes(&path, 640, 360), expected([5, 6, 29, 33, 34, 100]));
}

/// Power of one frequency in a block, by Goertzel's recurrence.
fn power(samples: &[f32], hz: f64) -> f64 {
    let step = 2.0 * (std::f64::consts::TAU * hz / 48_000.0).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for &sample in samples {
        (one, two) = (f64::from(sample) + step * one - two, one);
    }
    (one * one + two * two - step * one * two) / (samples.len() as f64).powi(2)
}

#[test]
fn the_tone_has_its_frequency_and_level() {
    let folder = Folder::new("tone");
    for hz in [440, 1000] {
        let config = TestCardConfig { tone_hz: hz, width: 640, height: 360, ..TestCardConfig::default() };
        let recording = record(config, 0..90);
        assert!(recording.audio.iter().zip(0..).all(|(s, n)| s.key && s.dts == n * 1024 && s.pts == s.dts));
        assert_eq!(recording.audio.len(), 141, "sound that begins before the end of the third second");
        let path = write(&folder, &format!("{hz}.aac"), &recording.adts());
        let pcm = ffmpeg(&path, &["-af", "pan=mono|c0=c1", "-f", "f32le"]);
        let pcm: Vec<f32> =
            pcm.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert!(pcm.len() >= 2 * 48_000 + 4800, "{} samples", pcm.len());
        let second = &pcm[4800..4800 + 48_000];
        let rms = (second.iter().map(|s| f64::from(s * s)).sum::<f64>() / 48_000.0).sqrt();
        assert!((0.08..0.10).contains(&rms), "{rms}: a sine at -18 dBFS has 0.089");
        let at_tone = power(second, f64::from(hz));
        // Of a sine's power, Goertzel sees half at the positive frequency.
        assert!(at_tone > 0.98 * rms * rms / 2.0, "{hz} Hz holds {at_tone} of {}", rms * rms / 2.0);
        for other in [hz / 2, hz * 2, hz * 3, hz + 50] {
            assert!(power(second, f64::from(other)) < at_tone / 1000.0, "{other} Hz beside {hz} Hz");
        }
    }
}

#[test]
fn a_long_gap_does_not_bring_hours_of_sound() {
    let config = TestCardConfig { width: 640, height: 360, ..TestCardConfig::default() };
    let recording = record(config, [0, 30, 30 * 3600, 30 * 3600 + 1]);
    assert!(recording.audio.len() < 60, "{} access units", recording.audio.len());
    let last = recording.audio.last().unwrap().dts;
    assert!((last - 3600 * 48_000).abs() < 4800, "{last}");
    assert!(recording.audio.windows(2).all(|pair| pair[0].dts < pair[1].dts));
}

#[test]
fn frame_numbers_that_do_not_advance_yield_nothing() {
    let config = TestCardConfig { width: 640, height: 360, audio: false, ..TestCardConfig::default() };
    let mut card = TestCard::new(config).unwrap();
    let first = card.tick(7, START_US);
    assert!(
        matches!(&first[..], [Ingest::Track(TrackKind::Video, _), Ingest::Sample(_)]),
        "no sound: {first:?}"
    );
    assert!(card.tick(7, START_US).is_empty());
    assert!(card.tick(3, START_US).is_empty());
    assert_eq!(card.tick(8, START_US).len(), 1);
    assert_eq!(card.tick(u64::MAX, u64::MAX).len(), 1, "the end of time is a frame as any other");
    assert_eq!(card.due(45), Duration::from_millis(1500));
}

#[test]
fn the_stream_fills_its_bit_rate() {
    for (bitrate_bps, interval) in
        [(500_000, 1000), (1_000_000, 1000), (3_000_000, 1000), (3_000_000, 8300), (6_000_000, 2000)]
    {
        let keyframe_interval = Duration::from_millis(interval);
        let config = TestCardConfig { bitrate_bps, keyframe_interval, ..TestCardConfig::default() };
        let recording = record(config, 0..120);
        assert_eq!(recording.video.len(), 120, "no frame is skipped");
        let share = recording.bits() as f64 / 4.0 / f64::from(bitrate_bps);
        let ms = recording.spent.as_secs_f64() * 1000.0 / 120.0;
        println!("{bitrate_bps} bit/s, key every {interval} ms: {:.0} %, {ms:.1} ms a frame", share * 100.0);
        assert!((0.8..1.1).contains(&share), "{bitrate_bps} bit/s: {:.0} %", share * 100.0);
    }
}

#[test]
fn a_card_can_move_to_another_thread() {
    fn check<T: Send + 'static>() {}
    check::<TestCard>();
}

#[test]
fn any_title_makes_a_card() {
    for title in [
        "",
        "📺🎉👩‍👩‍👧‍👦",
        "قناة الأخبار",
        "\u{202E}\u{0}\n\t\u{FEFF}",
        &"長い題名 ".repeat(2000),
        &"W\u{301}".repeat(5000),
    ] {
        let config =
            TestCardConfig { title: title.to_owned(), width: 640, height: 360, ..TestCardConfig::default() };
        let recording = record(config, 0..2);
        assert_eq!(recording.video.len(), 2);
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let refused = |config: TestCardConfig| match TestCard::new(config) {
        Err(CardError::Config { name, .. }) => name,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let good = TestCardConfig::default;
    assert_eq!(refused(TestCardConfig { width: 0, ..good() }), "width");
    assert_eq!(refused(TestCardConfig { width: 1281, ..good() }), "width");
    assert_eq!(refused(TestCardConfig { height: 100_000, ..good() }), "height");
    assert_eq!(refused(TestCardConfig { fps: 0, ..good() }), "fps");
    assert_eq!(refused(TestCardConfig { bitrate_bps: 1000, ..good() }), "bitrate_bps");
    assert_eq!(refused(TestCardConfig { tone_hz: 48_000, ..good() }), "tone_hz");
    assert_eq!(
        refused(TestCardConfig { keyframe_interval: Duration::ZERO, ..good() }),
        "keyframe_interval (ms)"
    );
    assert_eq!(
        refused(TestCardConfig { keyframe_interval: Duration::MAX, ..good() }),
        "keyframe_interval (ms)"
    );
}
