//! Real streams for the tests: made by ffmpeg, demuxed by the crate's own reader, judged by ffmpeg and ffprobe.

#![allow(
    dead_code,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "shared by test crates, each of which uses a part"
)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use caudal_media::{
    assemble::StreamWriter,
    fmp4::{self, ReadSample},
    part::Part,
    sample::{Ingest, Sample, TrackKind},
    segment::{Segmenter, SegmenterConfig},
};

/// When the first sample of a test stream arrives, µs since the Unix epoch.
pub const EPOCH_US: u64 = 1_763_800_000_000_000;

/// A file that goes away with the test.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("caudal-media-{}-{count}-{name}", std::process::id())))
    }

    pub fn with(name: &str, pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let file = Self::new(name);
        let all: Vec<u8> = pieces.into_iter().flatten().collect();
        std::fs::write(&file.0, all).unwrap();
        file
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a tool that must be there and succeed; returns (stdout, stderr).
pub fn run(tool: &str, args: &[&str]) -> (String, String) {
    let output = Command::new(tool).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{tool} must be installed for this test: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{tool} {args:?} failed:\n{stderr}");
    (stdout, stderr)
}

/// What an encoder would be asked for.
pub struct Source<'a> {
    pub size: &'a str,
    pub seconds: &'a str,
    pub gop: &'a str,
    pub rate: &'a str,
    pub audio_rate: &'a str,
    pub video: bool,
    pub audio: bool,
}

impl Default for Source<'_> {
    fn default() -> Self {
        Self {
            size: "320x180",
            seconds: "6",
            gop: "60",
            rate: "30",
            audio_rate: "48000",
            video: true,
            audio: true,
        }
    }
}

impl Source<'_> {
    /// Encodes H.264 with B-frames and AAC as fragmented MP4.
    pub fn encode(&self) -> Bytes {
        let file = TempFile::new("source.mp4");
        let picture = format!("testsrc2=size={}:rate={}:duration={}", self.size, self.rate, self.seconds);
        let sound = format!("sine=frequency=440:sample_rate={}:duration={}", self.audio_rate, self.seconds);
        let mut args = vec!["-v", "error", "-y"];
        for (wanted, input) in [(self.video, &picture), (self.audio, &sound)] {
            if wanted {
                args.extend(["-f", "lavfi", "-i", input]);
            }
        }
        if self.video {
            args.extend(["-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", self.gop]);
            args.extend(["-sc_threshold", "0", "-pix_fmt", "yuv420p"]);
        }
        if self.audio {
            args.extend(["-c:a", "aac"]);
        }
        args.extend([
            "-movflags",
            "frag_keyframe+delay_moov+default_base_moof+negative_cts_offsets",
            path(&file),
        ]);
        run("ffmpeg", &args);
        std::fs::read(&file.0).unwrap().into()
    }
}

pub fn path(file: &TempFile) -> &str {
    Path::to_str(&file.0).unwrap()
}

pub fn us(sample: &ReadSample) -> u64 {
    sample.dts * 1_000_000 / u64::from(sample.timescale)
}

/// What an ingest would say of this file, in the order of decode times, arriving in real time.
pub fn ingest(file: &Bytes) -> Vec<Ingest> {
    let tracks = fmp4::read_init(file).unwrap();
    let mut samples = fmp4::read_samples(file).unwrap();
    samples.sort_by_key(|sample| (us(sample), sample.track));
    let announce = tracks.into_iter().map(|track| Ingest::Track(track.kind, track.config));
    announce.chain(samples.iter().map(|s| Ingest::Sample(sample(s)))).collect()
}

pub fn sample(read: &ReadSample) -> Sample {
    Sample {
        track: read.track,
        dts: read.dts as i64,
        pts: read.pts,
        key: read.key,
        data: read.data.clone(),
        arrived_unix_us: EPOCH_US + us(read),
    }
}

/// Everything through a segmenter, ended.
pub fn segment(items: impl IntoIterator<Item = Ingest>) -> Vec<Part> {
    let mut segmenter = Segmenter::new(SegmenterConfig::default());
    let mut parts = Vec::new();
    for item in items.into_iter().chain([Ingest::End]) {
        segmenter.push(item).unwrap();
        parts.extend(std::iter::from_fn(|| segmenter.poll()));
    }
    assert_numbered(&parts);
    parts
}

fn assert_numbered(parts: &[Part]) {
    for (number, part) in parts.iter().enumerate() {
        assert_eq!(part.number, number as u64);
        assert_eq!(part.segment_start, part.init.is_some());
        assert!(part.segment_start || !part.discontinuity);
    }
}

/// One byte stream.
pub fn stream(parts: &[Part]) -> Bytes {
    let mut writer = StreamWriter::new();
    parts.iter().flat_map(|part| writer.write(part)).flatten().collect::<Vec<u8>>().into()
}

/// Samples of each part, by a reader that is given nothing but the init data.
pub fn part_samples(parts: &[Part]) -> Vec<Vec<ReadSample>> {
    let mut init = Bytes::new();
    let read = |part: &Part| {
        init = part.init.clone().unwrap_or(init.clone());
        let bytes: Vec<u8> = [&init[..], &part.media].concat();
        fmp4::read_samples(&bytes.into()).unwrap()
    };
    parts.iter().map(read).collect()
}

/// Decode times and durations of one track fit without gap or overlap.
pub fn assert_continuous(samples: &[ReadSample], kind: TrackKind) {
    let mut next = None;
    for sample in samples.iter().filter(|sample| sample.track == kind) {
        if let Some(next) = next {
            assert_eq!(sample.dts, next, "{kind:?} does not continue");
        }
        assert!(sample.duration > 0);
        next = Some(sample.dts + u64::from(sample.duration));
    }
}

/// Times, size, flags and hash of every packet of one track (`v` or `a`), as ffprobe reads them.
pub fn packets(file: &str, track: &str) -> Vec<String> {
    let entries = "packet=pts,dts,size,flags,data_hash";
    let format = ["-show_packets", "-show_data_hash", "md5", "-show_entries", entries, "-of", "csv=p=0"];
    // Encoders hide their priming by an edit list, which is not part of a live stream.
    let input = if file.ends_with(".mp4") { &["-ignore_editlist", "1", file][..] } else { &[file] };
    let args = [&["-v", "error", "-select_streams", track][..], &format, input].concat();
    let (stdout, stderr) = run("ffprobe", &args);
    assert_eq!(stderr, "", "ffprobe complained about {file}");
    stdout.lines().map(str::to_owned).collect()
}

/// Decodes everything; no error line is allowed. Returns how many pictures and sound frames came out.
pub fn decoded(file: &str) -> (usize, usize) {
    let (stdout, stderr) = run("ffmpeg", &["-v", "warning", "-i", file, "-f", "framecrc", "-"]);
    assert_eq!(stderr, "", "ffmpeg complained about {file}");
    let tracks: Vec<&str> = stdout.lines().filter(|l| l.starts_with("#media_type")).collect();
    let count = |kind: &str| {
        let Some(index) = tracks.iter().position(|line| line.ends_with(kind)) else { return 0 };
        stdout.lines().filter(|line| line.starts_with(&format!("{index},"))).count()
    };
    (count("video"), count("audio"))
}
