//! How far behind viewers are: chunk delay, startup delay, and the delay of the picture as a camera before the screen
//! would measure it.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use caudal_media::fmp4::{prft_unix_us, read_samples};
use caudal_media::sample::TrackKind;
use caudal_media::testcard_code::{self, Code};
use common::{Caudal, Folder, PATIENCE, link, number, publish_card, tracker, wait_until_playing};

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const JOINS: usize = 20;
/// Viewers that a newcomer meets.
const RESIDENTS: usize = 3;
/// Joins are this much apart beside what they take, so that they meet every phase of the key-frame interval.
const JOIN_PAUSE: Duration = Duration::from_millis(130);
/// How long the picture is watched.
const WATCH: Duration = Duration::from_secs(8);
/// Pictures of this first while do not count: a player first works off what lies since the last key frame.
const SETTLE: Duration = Duration::from_secs(2);

/// One swarm at a time: delays are the subject, and the machine is small.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(home: &Folder, source: &Caudal, count: usize) -> Vec<Caudal> {
    let viewers: Vec<_> = (0..count).map(|_| Caudal::start(home, &["watch", &link(source)])).collect();
    viewers.iter().for_each(wait_until_playing);
    viewers
}

/// The value that `share` of `values` do not exceed.
fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[test]
fn chunks_and_pictures_come_soon() {
    let _alone = alone();
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--source-copies", "2"]);
    let viewers = watch(&home, &source, 6);
    let pictures = watch_pictures(&viewers[5]);
    std::thread::sleep(Duration::from_secs(4));
    for viewer in viewers {
        let (report, status) = viewer.end();
        assert!(status.success(), "{report}");
        println!("chunk delay {}", report["chunk_delay_ms"]);
        assert!(number(&report, "/chunks/due") > 100.0, "{report}");
        assert!(number(&report, "/chunk_delay_ms/p95") <= 250.0, "{report}");
    }

    // End to end, by the clock in the picture and by the wall clock in the stream.
    let by_code: Vec<f64> = pictures.iter().map(|p| p.shown_ms - p.code_ms).collect();
    let by_prft: Vec<f64> = pictures.iter().map(|p| p.shown_ms - p.prft_ms).collect();
    let apart: Vec<f64> = pictures.iter().map(|p| (p.code_ms - p.prft_ms).abs()).collect();
    let [code, prft] = [&by_code, &by_prft].map(|delays| percentile(delays, 0.5));
    println!(
        "picture delay {code:.0} ms by its code (p95 {:.0}), {prft:.0} ms by prft; apart by {:.0} ms (median), {:.0} ms (p95)",
        percentile(&by_code, 0.95),
        percentile(&apart, 0.5),
        percentile(&apart, 0.95)
    );
    assert!((code - prft).abs() <= 100.0, "{code} and {prft} ms");
    assert!(percentile(&apart, 0.95) <= 100.0, "{apart:?}");
    // A part (at most half a second), the swarm's delay, and decoding; a delay below zero would be a clock gone wrong.
    assert!((0.0..1000.0).contains(&code), "{code} ms from card to picture");
}

/// One decoded picture.
struct Picture {
    /// When the decoder gave it out, ms since the Unix epoch.
    shown_ms: f64,
    /// When the card was drawn, as it says itself.
    code_ms: f64,
    /// When its sample arrived, by the `prft` of its part and its place in the part.
    prft_ms: f64,
}

/// Decodes a viewer's low-latency stream for a while.
fn watch_pictures(viewer: &Caudal) -> Vec<Picture> {
    let mut decoder = Decoder::start(viewer);
    let (frames, stream) = decoder.run();
    let times = prft_times(&stream);
    let settled = frames[0].0 + SETTLE.as_secs_f64() * 1000.0;
    // Nothing is reordered in a test card, so the nth picture is the nth sample if none was left out: neither later, which
    // the numbers in the pictures tell, nor at the start, which the count does.
    assert!(frames.len() >= times.len(), "{} pictures of {} samples", frames.len(), times.len());
    let first = frames[0].1.frame;
    let shown = frames.iter().zip(&times).enumerate();
    let pictures: Vec<_> = shown
        .inspect(|(n, ((_, code), _))| assert_eq!(code.frame, first + *n as u32, "a picture was left out"))
        .filter(|(_, ((shown_ms, _), _))| *shown_ms >= settled)
        .map(|(_, ((shown_ms, code), prft_ms))| Picture {
            shown_ms: *shown_ms,
            code_ms: code.unix_ms as f64,
            prft_ms: *prft_ms,
        })
        .collect();
    assert!(pictures.len() >= 100, "{} pictures were decoded", pictures.len());
    pictures
}

fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1000.0
}

/// ffmpeg, fed with what a viewer serves, that gives out bare pictures.
struct Decoder {
    ffmpeg: Child,
    feeder: Option<JoinHandle<Vec<u8>>>,
}

impl Decoder {
    fn start(viewer: &Caudal) -> Self {
        let mut command = Command::new("ffmpeg");
        // Not with "nobuffer": ffmpeg would throw away the pictures that it looked at to know the stream.
        command.args(["-v", "error", "-flags", "low_delay", "-threads", "1"]);
        command.args(["-analyzeduration", "0", "-i", "pipe:0", "-map", "0:v", "-vsync", "passthrough"]);
        command.args(["-f", "rawvideo", "-pix_fmt", "gray", "-flush_packets", "1", "pipe:1"]);
        let ffmpeg = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut ffmpeg = ffmpeg.unwrap_or_else(|error| panic!("ffmpeg is needed: {error}"));
        let into = ffmpeg.stdin.take().expect("piped");
        let addr = viewer.told("http").trim_start_matches("http://").to_owned();
        let feeder = Some(std::thread::spawn(move || feed(&addr, into)));
        Self { ffmpeg, feeder }
    }

    /// Pictures with the time they came out, and the stream that they were decoded from.
    fn run(&mut self) -> (Vec<(f64, Code)>, Vec<u8>) {
        let mut pictures = self.ffmpeg.stdout.take().expect("piped");
        let (mut frames, mut luma) = (Vec::new(), vec![0; WIDTH * HEIGHT]);
        while pictures.read_exact(&mut luma).is_ok() {
            let code = testcard_code::read(&luma, WIDTH, HEIGHT, WIDTH).expect("a test card");
            frames.push((unix_ms(), code));
        }
        assert!(!frames.is_empty(), "nothing was decoded");
        (frames, self.feeder.take().expect("run once").join().expect("the feeder ends"))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let _ = self.ffmpeg.kill();
        let _ = self.ffmpeg.wait();
    }
}

/// Reads the streaming response for a while and hands it on as it comes; gives all of it.
fn feed(addr: &str, mut into: ChildStdin) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("the viewer listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    // HTTP/1.0: the body comes as it is, without chunked coding.
    write!(stream, "GET /live.mp4 HTTP/1.0\r\nHost: {addr}\r\n\r\n").expect("the request is taken");
    let (mut received, mut body) = (Vec::new(), None);
    let (began, mut buffer) = (Instant::now(), vec![0; 64 * 1024]);
    while began.elapsed() < WATCH {
        let len = stream.read(&mut buffer).expect("the stream goes on");
        assert!(len > 0, "the stream ended");
        received.extend_from_slice(&buffer[..len]);
        let from = *match &mut body {
            Some(from) => from,
            None => match received.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => body.insert(end + 4),
                None => continue,
            },
        };
        let new = (received.len() - len).max(from);
        into.write_all(&received[new..]).expect("ffmpeg reads");
    }
    received.split_off(body.expect("an answer"))
}

/// When each picture's sample arrived at the source by `prft`, ms since the Unix epoch, in decoding order.
fn prft_times(stream: &[u8]) -> Vec<f64> {
    let (mut init, mut part, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(header) = stream.get(at..at + 8) {
        let len = u32::from_be_bytes(header[..4].try_into().expect("four bytes")) as usize;
        // The last box may be cut off.
        let Some(found) = stream.get(at..at + len) else { break };
        match &header[4..] {
            b"ftyp" => init = found.to_vec(),
            b"moov" => init.extend_from_slice(found),
            b"mdat" => {
                part.extend_from_slice(found);
                times.extend(times_of_part(&init, &part));
                part.clear();
            }
            _ => part.extend_from_slice(found),
        }
        at += len;
    }
    times
}

fn times_of_part(init: &[u8], part: &[u8]) -> Vec<f64> {
    let arrived_ms = prft_unix_us(part).expect("a part has prft") as f64 / 1000.0;
    let samples = read_samples(&Bytes::from([init, part].concat())).expect("a part can be read");
    let dts_ms: Vec<f64> = samples
        .iter()
        .filter(|sample| sample.track == TrackKind::Video)
        .map(|sample| sample.dts as f64 * 1000.0 / f64::from(sample.timescale))
        .collect();
    dts_ms.iter().map(|dts| arrived_ms + dts - dts_ms[0]).collect()
}

/// Startup delays of viewers that come one after another, ms.
fn startups(keyframe: &str) -> Vec<f64> {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--source-copies", "2", "--card-keyframe", keyframe]);
    let _residents = watch(&home, &source, RESIDENTS);
    let joins = (0..JOINS).map(|_| {
        std::thread::sleep(JOIN_PAUSE);
        let viewer = Caudal::start(&home, &["watch", &link(&source)]);
        let stats = viewer.wait_until("started", PATIENCE, |stats| stats["startup_ms"].is_number());
        viewer.end();
        number(&stats, "/startup_ms")
    });
    joins.collect()
}

#[test]
fn newcomers_start_soon() {
    let _alone = alone();
    let cases = [("1s", 700.0), ("2s", 700.0), ("8300ms", 1500.0)];
    let measured = cases.map(|(keyframe, limit)| (keyframe, limit, startups(keyframe)));
    for (keyframe, _, startups) in &measured {
        let [p50, p95] = [0.5, 0.95].map(|share| percentile(startups, share));
        println!(
            "key frames every {keyframe}: startup {p50:.0} ms (median), {p95:.0} ms (p95); {startups:.0?}"
        );
    }
    for (keyframe, limit, startups) in &measured {
        let p95 = percentile(startups, 0.95);
        assert!(p95 <= *limit, "key frames every {keyframe}: p95 {p95:.0} ms of {startups:.0?}");
    }
}
