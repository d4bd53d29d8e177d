//! Ingest against what ffmpeg really writes and sends: every access unit is compared, by hash, with ffmpeg's own
//! account of the same stream. Needs `ffmpeg` with libx264 and aac in the path.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use caudal_media::ingest::file::FileSource;
use caudal_media::ingest::flv::{Demuxer, Tags};
use caudal_media::ingest::health::Advisor;
use caudal_media::ingest::mp4::{Mp4Error, Mp4File};
use caudal_media::ingest::rtmp::{RtmpOutput, Session};
use caudal_media::sample::{Ingest, Sample, TrackConfig, TrackKind};
use sha2::{Digest, Sha256};

const KEY: &str = "s3cret";

fn run(program: &str, args: &str) -> Output {
    Command::new(program)
        .args(args.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed by these tests and does not start: {error}"))
}

fn ffmpeg(args: &str) -> Output {
    let output = run("ffmpeg", &format!("-v error -y {args}"));
    assert!(output.status.success(), "ffmpeg {args}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Four seconds of picture with B-frames and sound, once as a moov-last MP4 and remuxed from that.
struct Files {
    mp4: PathBuf,
    faststart: PathBuf,
    fragmented: PathBuf,
    flv: PathBuf,
}

impl Files {
    fn in_folder(dir: &Path) -> Self {
        let path = |name: &str| dir.join(name);
        Self {
            mp4: path("plain.mp4"),
            faststart: path("faststart.mp4"),
            fragmented: path("fragmented.mp4"),
            flv: path("plain.flv"),
        }
    }

    fn all(&self) -> [&PathBuf; 4] {
        [&self.mp4, &self.faststart, &self.fragmented, &self.flv]
    }
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        // Each test is a process of its own, and they begin together: what one reads, no other writes.
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ingest");
        let own = dir.join(std::process::id().to_string());
        std::fs::create_dir_all(&own).unwrap();
        let files = Files::in_folder(&own);
        ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=320x180:r=25 -f lavfi -i sine=f=440:r=48000 -t 4 -c:v libx264 -preset veryfast \
             -bf 3 -g 25 -pix_fmt yuv420p -c:a aac -b:a 64k -ac 2 {}",
            files.mp4.display()
        ));
        for (file, how) in [
            (&files.faststart, "-movflags +faststart"),
            (&files.fragmented, "-movflags +frag_keyframe+delay_moov+default_base_moof"),
            (&files.flv, "-f flv"),
        ] {
            ffmpeg(&format!("-i {} -c copy {how} {}", files.mp4.display(), file.display()));
        }
        let shared = Files::in_folder(&dir);
        for (from, to) in files.all().into_iter().zip(shared.all()) {
            std::fs::rename(from, to).unwrap();
        }
        std::fs::remove_dir(&own).unwrap();
        shared
    })
}

/// What ffmpeg says is in a track: (dts, pts, hash) in its time base, which is the second value.
fn reference(file: &Path, track: &str) -> (Vec<(i64, i64, String)>, f64) {
    let output =
        ffmpeg(&format!("-i {} -map 0:{track} -c copy -copyts -f framehash -hash sha256 -", file.display()));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut base = 0.0;
    let mut packets = Vec::new();
    for line in text.lines() {
        if let Some(fraction) = line.strip_prefix("#tb 0: ") {
            let (num, den) = fraction.split_once('/').unwrap();
            base = num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap();
        } else if !line.starts_with('#') {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            packets.push((fields[1].parse().unwrap(), fields[2].parse().unwrap(), fields[5].to_owned()));
        }
    }
    assert!(packets.len() >= 50 && base > 0.0, "{text}");
    (packets, base)
}

fn hash(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of(samples: &[Sample], track: TrackKind) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.track == track).collect()
}

fn read_mp4(path: &Path) -> (BTreeMap<TrackKind, TrackConfig>, Vec<Sample>) {
    let mut file = Mp4File::open(File::open(path).unwrap()).unwrap();
    assert_eq!(file.warnings(), [""; 0]);
    let tracks = file.tracks().map(|(kind, config)| (kind, config.clone())).collect();
    let mut samples = Vec::new();
    while let Some((sample, _)) = file.next_sample().unwrap() {
        samples.push(sample);
    }
    (tracks, samples)
}

#[test]
fn mp4_of_every_layout_gives_what_ffmpeg_reads() {
    for path in [&files().mp4, &files().faststart, &files().fragmented] {
        let (tracks, samples) = read_mp4(path);
        let video = &tracks[&TrackKind::Video];
        assert_eq!((video.width, video.height), (320, 180));
        assert_eq!((tracks[&TrackKind::Audio].timescale, tracks[&TrackKind::Audio].channels), (48_000, 2));
        let mut starts = Vec::new();
        for (kind, name) in [(TrackKind::Video, "v"), (TrackKind::Audio, "a")] {
            let (expected, base) = reference(path, name);
            let ours = of(&samples, kind);
            let hashes: Vec<String> = ours.iter().map(|sample| hash(&sample.data)).collect();
            assert_eq!(
                hashes,
                expected.iter().map(|packet| packet.2.clone()).collect::<Vec<_>>(),
                "{path:?} {name}"
            );
            let scale = f64::from(tracks[&kind].timescale);
            for (sample, packet) in ours.iter().zip(&expected) {
                let presented =
                    (sample.pts - ours[0].pts) as f64 / scale - (packet.1 - expected[0].1) as f64 * base;
                let decoded =
                    (sample.dts - ours[0].dts) as f64 / scale - (packet.0 - expected[0].0) as f64 * base;
                assert!(
                    presented.abs() < 1e-6 && decoded.abs() < 1e-6,
                    "{path:?} {name}: {sample:?} {packet:?}"
                );
            }
            starts.push((ours[0].pts as f64 / scale, expected[0].1 as f64 * base));
        }
        let sync = (starts[0].0 - starts[1].0) - (starts[0].1 - starts[1].1);
        assert!(
            sync.abs() < 1e-4,
            "{path:?}: picture and sound are {sync} s apart from where ffmpeg has them"
        );
        assert!(samples.iter().map(|sample| sample.dts).min() == Some(0));
        let keys = of(&samples, TrackKind::Video).iter().filter(|sample| sample.key).count();
        assert_eq!(keys, 4, "one key frame a second");
        let seconds = |s: &Sample| s.dts as f64 / f64::from(tracks[&s.track].timescale);
        assert!(samples.windows(2).all(|w| seconds(&w[0]) <= seconds(&w[1])), "{path:?} is not interleaved");
    }
}

fn read_flv(bytes: &[u8], step: usize) -> Vec<Ingest> {
    let (mut demuxer, mut tags) = (Demuxer::new(), Tags::new());
    let mut events = std::collections::VecDeque::new();
    for piece in bytes.chunks(step) {
        demuxer.push(piece);
        while let Some(tag) = demuxer.next().unwrap() {
            tags.push(tag.tag_type, tag.timestamp_ms, tag.body, 1, &mut events);
        }
    }
    demuxer.finish().unwrap();
    events.into()
}

fn samples_of(events: &[Ingest]) -> Vec<Sample> {
    let pick = |event: &Ingest| if let Ingest::Sample(sample) = event { Some(sample.clone()) } else { None };
    events.iter().filter_map(pick).collect()
}

/// Asserts that RTMP or FLV brought exactly the access units of the MP4 file, on a clean timeline.
fn assert_whole(events: &[Ingest], from: &str) {
    let samples = samples_of(events);
    for (kind, name) in [(TrackKind::Video, "v"), (TrackKind::Audio, "a")] {
        let hashes: Vec<String> = of(&samples, kind).iter().map(|sample| hash(&sample.data)).collect();
        let expected: Vec<String> =
            reference(&files().mp4, name).0.into_iter().map(|packet| packet.2).collect();
        assert_eq!(hashes, expected, "{from} {name}");
    }
    let video = of(&samples, TrackKind::Video);
    assert!(video.windows(2).all(|w| w[1].dts - w[0].dts == 3600), "25 fps are exact in milliseconds");
    assert!(video.iter().any(|sample| sample.pts - sample.dts > 3600), "B-frames reorder");
    let audio = of(&samples, TrackKind::Audio);
    assert!(audio.windows(2).all(|w| w[1].dts - w[0].dts == 1024), "the audio clock is exact");
    let tracks = events.iter().filter(|event| matches!(event, Ingest::Track(..))).count();
    assert_eq!(tracks, 2, "each track is announced once");
    assert!(
        !events.iter().any(|event| matches!(event, Ingest::Discontinuity | Ingest::Warning(_))),
        "{from}"
    );
}

#[test]
fn flv_files_however_they_are_cut() {
    let bytes = std::fs::read(&files().flv).unwrap();
    for step in [17, 4096, usize::MAX] {
        assert_whole(&read_flv(&bytes, step), "FLV");
    }
}

/// Takes one connection and admits `KEY` only; returns what came and why it closed.
fn serve(listener: &TcpListener) -> (Vec<Ingest>, String) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut session = Session::new();
    let mut events = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let len = match socket.read(&mut buffer) {
            Ok(0) => return (events, "the connection was closed".into()),
            Ok(len) => len,
            Err(error) => return (events, error.to_string()),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        if let Err(error) = session.handle_data(now, &buffer[..len]) {
            return (events, error.to_string());
        }
        while let Some(output) = session.poll_output() {
            match output {
                RtmpOutput::Write(bytes) => socket.write_all(&bytes).unwrap(),
                RtmpOutput::PublishRequest { app, stream_key } => {
                    assert_eq!(app, "live");
                    if stream_key == KEY {
                        session.accept().unwrap();
                    } else {
                        session.reject("Wrong stream key: copy it again from caudal publish.");
                    }
                }
                RtmpOutput::Ingest(event) => events.push(event),
                RtmpOutput::Close(reason) => return (events, reason),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

/// Runs an ffmpeg against a server of one connection; `URL` in `args` is its address.
fn against_server(program: &str, args: &str) -> (Output, Vec<Ingest>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtmp://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || serve(&listener));
    let output = run(program, &format!("-v error -y {}", args.replace("URL", &url)));
    let (events, reason) = server.join().unwrap();
    (output, events, reason)
}

/// ffmpeg of the system, and a newer static one where Python's `imageio-ffmpeg` is installed.
fn publishers() -> Vec<String> {
    let mut found = vec!["ffmpeg".to_owned()];
    found.extend(static_ffmpeg());
    found
}

fn static_ffmpeg() -> Option<String> {
    let ask = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
    let output =
        Command::new("python3").args(["-c", ask]).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn rtmp_from_ffmpeg_brings_every_access_unit() {
    for program in publishers() {
        let args = format!("-i {} -c copy -f flv URL/live/{KEY}", files().mp4.display());
        let (output, events, reason) = against_server(&program, &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_whole(&events, &program);
        assert_eq!(events.last(), Some(&Ingest::End), "{reason}");
        let mut advisor = Advisor::new(None);
        events.iter().for_each(|event| advisor.observe(event));
        let facts = advisor.facts();
        let video = facts.video.unwrap();
        assert!(video.codec.starts_with("avc1.64"), "{}", video.codec);
        assert_eq!((video.width, video.height, video.key_interval_us), (320, 180, Some(1_000_000)));
        assert!((video.fps - 25.0).abs() < 0.1);
        assert_eq!(facts.audio.unwrap().codec, "mp4a.40.2");
    }
}

#[test]
fn rtmp_live_encodes_of_one_track_each() {
    let picture = "-f lavfi -i testsrc2=s=160x90:r=30 -t 2 -c:v libx264 -preset ultrafast -g 30";
    let sound = "-f lavfi -i sine=r=44100 -t 2 -c:a aac";
    for (input, kind, least) in [(picture, TrackKind::Video, 60), (sound, TrackKind::Audio, 86)] {
        let (output, events, _) = against_server("ffmpeg", &format!("{input} -f flv URL/live/{KEY}"));
        assert!(output.status.success());
        let samples = samples_of(&events);
        assert!(samples.len() >= least && samples.iter().all(|sample| sample.track == kind));
        assert!(samples.windows(2).all(|w| w[0].dts < w[1].dts));
    }
}

#[test]
fn rtmp_refuses_a_wrong_key_and_players() {
    for program in publishers() {
        let args = format!("-i {} -c copy -f flv URL/live/wrong", files().mp4.display());
        let (output, events, reason) = against_server(&program, &args);
        assert!(!output.status.success(), "{program} went on with a wrong key");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("Wrong stream key: copy it again"), "{program}: {said}");
        assert!(events.is_empty() && reason.contains("Wrong stream key"));

        let (output, _, reason) = against_server(&program, &format!("-i URL/live/{KEY} -f null -"));
        assert!(!output.status.success());
        assert!(reason.contains("does not play"), "{program}: {reason}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("caudal watch"), "{program}: {said}");
    }
}

#[test]
fn enhanced_rtmp_codecs_are_named() {
    let Some(program) = static_ffmpeg() else { return };
    let input = "-f lavfi -i testsrc2=s=160x90:r=25 -f lavfi -i sine=r=48000 -t 1";
    let args = format!("{input} -c:v libx265 -x265-params log-level=none -c:a libopus -f flv URL/live/{KEY}");
    let (output, events, _) = against_server(&program, &args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let warnings: Vec<&Ingest> = events.iter().filter(|event| matches!(event, Ingest::Warning(_))).collect();
    assert_eq!(warnings.len(), 2, "{events:?}");
    let said = format!("{warnings:?}");
    assert!(said.contains("HEVC") && said.contains("Opus") && said.contains("OBS"), "{said}");
}

/// Plays a source for `seconds` of media.
fn play<R: Read + std::io::Seek>(source: &mut FileSource<R>, seconds: u64) -> Vec<Ingest> {
    let mut events = Vec::new();
    let mut before = 0;
    loop {
        let (due, event) = source.next_event().unwrap();
        // Picture and sound may alternate a little out of order in FLV.
        assert!(due + 200_000 > before, "due times run backwards from {before} to {due}");
        before = before.max(due);
        if due > seconds * 1_000_000 {
            return events;
        }
        if let Ingest::Sample(sample) = &event {
            assert_eq!(sample.arrived_unix_us, 1_000_000_000 + due);
        }
        events.push(event);
    }
}

#[test]
fn files_loop_without_a_seam() {
    for path in [&files().mp4, &files().fragmented, &files().flv] {
        let mut source = FileSource::open(File::open(path).unwrap(), 1_000_000_000).unwrap();
        let events = play(&mut source, 14);
        assert_eq!(events.iter().filter(|event| matches!(event, Ingest::Track(..))).count(), 2, "{path:?}");
        assert!(
            !events.iter().any(|event| matches!(event, Ingest::Discontinuity | Ingest::Warning(_))),
            "{path:?}"
        );
        let samples = samples_of(&events);
        let Some(Ingest::Track(_, config)) =
            events.iter().find(|event| matches!(event, Ingest::Track(TrackKind::Video, _)))
        else {
            panic!("no picture")
        };
        let frame = i64::from(config.timescale) / 25;
        let video = of(&samples, TrackKind::Video);
        for pair in video.windows(2) {
            let step = pair[1].dts - pair[0].dts;
            assert!(step > frame / 3 && step < frame * 2, "{path:?}: a frame lasts {step} ticks of {frame}");
        }
        let audio = of(&samples, TrackKind::Audio);
        assert!(audio.windows(2).all(|w| w[1].dts - w[0].dts == 1024), "{path:?}: the sound has a seam");
        // Every pass begins with the same key frame, and its picture stays with its sound.
        let starts = |track: &[&Sample], scale: f64| -> Vec<f64> {
            track.iter().filter(|s| s.data == track[0].data).map(|s| s.dts as f64 / scale).collect()
        };
        let (pictures, sounds) = (starts(&video, f64::from(config.timescale)), starts(&audio, 48_000.0));
        assert_eq!((pictures.len(), sounds.len()), (4, 4), "{path:?}");
        for (picture, sound) in pictures.iter().zip(&sounds) {
            let apart = (picture - sound) - (pictures[0] - sounds[0]);
            assert!(
                apart.abs() < if path == &files().flv { 0.05 } else { 0.0001 },
                "{path:?}: {apart} s apart"
            );
        }
    }
}

#[test]
fn truncated_files_say_where_and_play_what_is_whole() {
    let whole = std::fs::read(&files().faststart).unwrap();
    let cut = &whole[..whole.len() * 2 / 3];
    let mut file = Mp4File::open(Cursor::new(cut)).unwrap();
    let mut count = 0;
    let error = loop {
        match file.next_sample() {
            Ok(Some(_)) => count += 1,
            Ok(None) => panic!("the cut was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(count > 50);
    let Mp4Error::Truncated { file_len, missing, .. } = &error else { panic!("{error}") };
    assert!(*file_len == cut.len() as u64 && *missing > 0);
    assert!(error.to_string().contains("sample at byte"), "{error}");

    let flv = std::fs::read(&files().flv).unwrap();
    for bytes in [cut, &flv[..flv.len() / 2]] {
        let mut source = FileSource::open(Cursor::new(bytes), 1_000_000_000).unwrap();
        let events = play(&mut source, 9);
        let warnings: Vec<_> = events.iter().filter(|event| matches!(event, Ingest::Warning(_))).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(format!("{warnings:?}").contains("truncated"), "{warnings:?}");
    }

    // The index is behind the media: without it nothing can be played.
    let whole = std::fs::read(&files().mp4).unwrap();
    let error = Mp4File::open(Cursor::new(&whole[..whole.len() / 2])).unwrap_err().to_string();
    assert!(error.contains("truncated") && error.contains("“mdat” box at byte"), "{error}");
}

#[test]
fn another_size_and_clock_midway_loses_nothing() {
    let other = files().flv.with_file_name("other.flv");
    ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=640x360:r=25 -f lavfi -i sine=r=44100 -t 2 -c:v libx264 -preset ultrafast -bf 2 -g 25 \
         -pix_fmt yuv420p -c:a aac {}",
        other.display()
    ));
    // As when the encoder is reconfigured: the second file's tags, from time 0 again, on the same stream.
    let mut tags = Tags::new();
    let mut events = std::collections::VecDeque::new();
    let mut sent = 0;
    for path in [&files().flv, &other] {
        let mut demuxer = Demuxer::new();
        demuxer.push(&std::fs::read(path).unwrap());
        while let Some(tag) = demuxer.next().unwrap() {
            tags.push(tag.tag_type, tag.timestamp_ms, tag.body, 1, &mut events);
        }
        sent += reference(path, "v").0.len();
    }
    let events: Vec<Ingest> = events.into();
    let sizes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Ingest::Track(_, config) => Some((config.width, config.sample_rate)),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, [(320, 0), (0, 48_000), (640, 0), (0, 44_100)]);
    assert_eq!(events.iter().filter(|event| matches!(event, Ingest::Discontinuity)).count(), 1);
    let samples = samples_of(&events);
    let video = of(&samples, TrackKind::Video);
    assert_eq!(video.len(), sent);
    assert!(video.windows(2).all(|w| w[1].dts > w[0].dts && w[1].dts - w[0].dts < 3600 * 5));
    let ends = |track, scale: f64| of(&samples, track).last().unwrap().dts as f64 / scale;
    let apart = ends(TrackKind::Video, 90_000.0) - ends(TrackKind::Audio, 44_100.0);
    assert!(apart.abs() < 0.2, "{apart}");
}

/// `FUZZ_ROUNDS=20000 cargo test -p caudal-media --test ingest damaged` looks harder than the default does. A failure
/// prints its round, which `FUZZ_FIRST=ROUND` starts with.
#[test]
fn damaged_files_never_panic_or_hang() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, rounds) = (number("FUZZ_FIRST").unwrap_or(0), number("FUZZ_ROUNDS").unwrap_or(150));
    for path in [&files().faststart, &files().fragmented, &files().flv] {
        let whole = std::fs::read(path).unwrap();
        for round in first..first + rounds {
            println!("{path:?}, round {round}");
            let mut state = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let mut bytes = whole.clone();
            // Most damage goes where the structure is: the front, and for fragments all over.
            for _ in 0..1 + next() % 8 {
                let range = if round % 3 == 0 { bytes.len() } else { 4000 };
                let at = next() as usize % range;
                bytes[at] =
                    if next() % 2 == 0 { next() as u8 } else { [0, 1, 0x7f, 0xff][next() as usize % 4] };
            }
            if round % 5 == 0 {
                bytes.truncate(next() as usize % bytes.len());
            }
            let Ok(mut source) = FileSource::open(Cursor::new(bytes), 0) else { continue };
            let mut last = BTreeMap::new();
            for _ in 0..700 {
                let Ok((_, event)) = source.next_event() else { break };
                match event {
                    // Damage may announce another timescale.
                    Ingest::Track(kind, _) => drop(last.remove(&kind)),
                    Ingest::Sample(sample) => {
                        let before = last.insert(sample.track, sample.dts);
                        assert!(
                            before.is_none_or(|before| before < sample.dts),
                            "{before:?} before {sample:?}"
                        );
                        assert!(sample.dts >= 0, "{sample:?}");
                    }
                    _ => {}
                }
            }
        }
    }
}
