//! A real encoder over RTMP: what six viewers record is what it sent, and players find no fault with what they are served.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    Caudal, Folder, PATIENCE, link, number, run_clean, start_tool, tracker, wait_for, wait_until_playing,
};

/// The encoder runs this long; what every viewer must have is at least [`OVERLAP_S`] of it.
const ENCODE_S: u64 = 78;
const OVERLAP_S: usize = 60;
const FPS: usize = 25;
const SAMPLE_RATE: usize = 44_100;
/// Samples in an AAC access unit.
const AAC_FRAME: usize = 1024;
const VIEWERS: usize = 6;

/// H.264 with three B-frames and AAC, in real time, to RTMP and as it is into a file: one encoder, so the file is the truth.
fn encoder(url: &str, truth: &Path) -> Child {
    let outputs = format!(
        "[f=flv]{url}|[f=mp4:movflags=frag_keyframe+empty_moov+default_base_moof]{}",
        truth.display()
    );
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25"]);
    command.args(["-re", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"]);
    command.args(["-t", &ENCODE_S.to_string(), "-map", "0:v", "-map", "1:a"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", "3", "-g", "25"]);
    command.args(["-b:v", "1M", "-c:a", "aac", "-b:a", "96k", "-flags", "+global_header", "-f", "tee"]);
    start_tool(command.arg(outputs).stderr(Stdio::piped()))
}

/// The MD5 of every access unit of a file, in order: picture, sound. ffprobe must find nothing wrong with it.
fn access_units(file: &Path) -> [Vec<String>; 2] {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "packet=codec_type,data_hash", "-show_data_hash", "md5"]);
    let listing = run_clean(command.args(["-of", "csv=p=0"]).arg(file));
    let listing = String::from_utf8(listing).expect("ffprobe prints text");
    let of = |kind: &str| {
        let lines = listing.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(','));
        lines.map(str::to_owned).collect()
    };
    [of("video"), of("audio")]
}

/// Frames (picture and sound) that ffmpeg decodes of `url` in `seconds` of it, without complaint.
fn decoded(url: &str, seconds: u32) -> [usize; 2] {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-i", url, "-map", "0:v", "-map", "0:a", "-t", &seconds.to_string()]);
    let listing = run_clean(command.args(["-vsync", "passthrough", "-f", "framemd5", "-"]));
    let listing = String::from_utf8(listing).expect("framemd5 is text");
    let of = |stream: &str| listing.lines().filter(|line| line.starts_with(stream)).count();
    [of("0,"), of("1,")]
}

/// Where in `truth` a recording lies: it must be a run of access units up to the last one, without a hole.
fn start_in(truth: &[String], recorded: &[String], what: &str) -> usize {
    assert!(recorded.len() <= truth.len(), "{what}: {} of {} access units", recorded.len(), truth.len());
    let start = truth.len() - recorded.len();
    let differs = recorded.iter().zip(&truth[start..]).position(|(recorded, sent)| recorded != sent);
    if let Some(at) = differs {
        let found = truth.iter().position(|sent| *sent == recorded[at]);
        panic!(
            "{what}: access unit {at} of {} is number {found:?} of the encoder's {}, not {}",
            recorded.len(),
            truth.len(),
            start + at
        );
    }
    start
}

#[test]
fn six_recordings_are_what_the_encoder_sent() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let tracker_url = tracker.told("http");
    let source = Caudal::start(
        &home,
        &["publish", "--name", "Real", "--tracker", tracker_url, "--input", "rtmp://127.0.0.1:0/live"],
    );
    let truth = home.join("truth.mp4");
    let began = Instant::now();
    let mut encoder = encoder(&format!("{}/{}", source.told("rtmp_url"), source.told("stream_key")), &truth);

    let files: Vec<_> = (0..VIEWERS).map(|n| home.join(&format!("viewer-{n}.mp4"))).collect();
    let viewers: Vec<Caudal> = files
        .iter()
        .map(|file| {
            let file = file.to_str().expect("a temporary path is text");
            Caudal::start(&home, &["watch", &link(&source), "--output", file])
        })
        .collect();
    viewers.iter().for_each(wait_until_playing);

    // Players, while it is on the air.
    let http = viewers[1].told("http");
    let [pictures, sounds] = decoded(&format!("{http}/hls/index.m3u8"), 8);
    assert!(pictures >= 7 * FPS && sounds >= 7 * SAMPLE_RATE / AAC_FRAME, "LL-HLS: {pictures}, {sounds}");
    let [pictures, sounds] = decoded(&format!("{}/live.mp4", viewers[2].told("http")), 8);
    assert!(pictures >= 7 * FPS && sounds >= 7 * SAMPLE_RATE / AAC_FRAME, "live.mp4: {pictures}, {sounds}");

    let left = Duration::from_secs(ENCODE_S).saturating_sub(began.elapsed());
    let status = wait_for(&mut encoder, left + PATIENCE);
    let said = std::io::read_to_string(encoder.stderr.take().expect("piped")).expect("ffmpeg prints text");
    assert!(status.success() && said.is_empty(), "the encoder: {status}: {said}");
    let (report, status) = source.end();
    assert!(status.success(), "{report}");
    assert_eq!(number(&report, "/input/discontinuities"), 0.0, "{report}");

    let truth = access_units(&truth);
    assert!(truth[0].len() >= (ENCODE_S as usize - 1) * FPS, "the encoder sent {} pictures", truth[0].len());
    assert_eq!(number(&report, "/input/samples"), (truth[0].len() + truth[1].len()) as f64, "{report}");
    for (viewer, file) in viewers.into_iter().zip(&files) {
        let name = viewer.name.clone();
        let (status, last, errors) = viewer.ended();
        assert!(status.success(), "{name}: {status}: {errors}");
        let report: serde_json::Value = serde_json::from_str(&last.expect("a report")).expect("JSON");
        assert_eq!(report["state"], "ended", "{report}");
        let recorded = access_units(file);
        for (track, what, overlap) in
            [(0, "picture", OVERLAP_S * FPS), (1, "sound", OVERLAP_S * SAMPLE_RATE / AAC_FRAME)]
        {
            let start = start_in(&truth[track], &recorded[track], &format!("{name}: {what}"));
            println!(
                "{what}: {} of {} access units, from number {start}",
                recorded[track].len(),
                truth[track].len()
            );
            assert!(recorded[track].len() >= overlap, "{name}: only {} of {what}", recorded[track].len());
        }
    }
    // One of them to its end through a decoder: identical access units in a wrong order of time would show here.
    let mut command = Command::new("ffmpeg");
    run_clean(command.args(["-v", "error", "-i"]).arg(&files[0]).args(["-f", "null", "-"]));
}
