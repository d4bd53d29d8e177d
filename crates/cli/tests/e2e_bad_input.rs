//! Bad input of every kind: a message names what was wrong and what to do, and the channel or the viewer survives.

mod common;
mod encoder;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use caudal_media::hls::MULTIVARIANT_URI;
use common::{Caudal, Folder, link, number, tracker};
use encoder::{Ffmpeg, Rtmp, Tag, make_flv, read_flv};

const S: fn(u64) -> Duration = Duration::from_secs;
/// Parts of one group of pictures of the test files (1 s), and one to spare.
const PARTS_PER_GOP: f64 = 6.0;

fn publish(home: &Folder, tracker: &Caudal, more: &[&str]) -> Caudal {
    Caudal::start(
        home,
        &[&["publish", "--name", "Bad input", "--tracker", tracker.told("http")], more].concat(),
    )
}

fn card(home: &Folder, tracker: &Caudal) -> Caudal {
    publish(home, tracker, &["--input", "test", "--card-rate", "1M", "--card-size", "640x360"])
}

/// It ends with 3 and says all of `words`.
fn cannot(home: &Folder, args: &[&str], words: &[&str]) {
    ends_with(3, home, args, words);
}

/// It ends with 2, for what was typed makes no sense, and says all of `words`.
fn misused(home: &Folder, args: &[&str], words: &[&str]) {
    ends_with(2, home, args, words);
}

fn ends_with(code: i32, home: &Folder, args: &[&str], words: &[&str]) {
    let (status, _, said) = Caudal::spawn(home, args).ended();
    println!("{said}");
    assert_eq!(status.code(), Some(code), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?}: {word:?} is missing in: {said}");
    }
    let complaints = said.lines().filter(|line| line.starts_with("caudal: ")).count();
    assert_eq!(complaints, 1, "one sentence says it: {said}");
    assert!(!said.contains("ERROR"), "nothing but the sentence: {said}");
}

#[test]
fn what_cannot_be_done_is_said_with_the_remedy() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let url = tracker.told("http");
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = held.local_addr().expect("bound").to_string();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let udp_taken = udp.local_addr().expect("bound").to_string();
    let base = ["publish", "--name", "x", "--tracker", url];
    let publish = |more: &[&str], words: &[&str]| cannot(&home, &[&base[..], more].concat(), words);
    let card = ["--input", "test"];
    let channel = "a".repeat(52);
    let good = format!("caudal:{channel}?tracker={url}");
    let watch = |more: &[&str], words: &[&str]| cannot(&home, &[&["watch"], more].concat(), words);
    // Ports in use.
    cannot(&home, &["tracker", "--listen", &taken], &[&taken, "--listen", "in use"]);
    publish(&[&card[..], &["--listen", &taken]].concat(), &[&taken, "--listen", "in use"]);
    publish(&["--input", &format!("rtmp://{taken}/live")], &[&taken, "--input rtmp://", "in use"]);
    publish(&[&card[..], &["--bind", &udp_taken]].concat(), &[&udp_taken, "in use"]);
    // A channel that is on the air already.
    let on_air = Caudal::start(&home, &[&base[..], &card, &["--card-rate", "1M"]].concat());
    publish(&card, &["on the air already", "--name", "--key"]);
    drop(on_air);
    watch(&[&good, "--listen", &taken], &[&taken, "--listen", "in use"]);
    watch(&[&good, "--bind", &udp_taken], &[&udp_taken, "in use"]);
    // Links.
    let watch_link = |link: &str, words: &[&str]| misused(&home, &["watch", link], words);
    watch_link("nonsense", &["\"nonsense\"", "caudal:CHANNEL?tracker="]);
    watch_link("caudal:abc?tracker=http://127.0.0.1:1", &["caudal:abc", "52 characters"]);
    watch_link(&format!("caudal:{channel}"), &["no tracker", "caudal:CHANNEL?tracker="]);
    watch_link(&format!("caudal:{channel}?tracker=gopher://x"), &["gopher://x", "https://"]);
    for inward in ["http://192.168.1.7:7777", "https://10.0.0.1", "http://[fd00::1]:7777"] {
        watch_link(&format!("caudal:{channel}?tracker={inward}"), &[inward, "local network", "--lan"]);
    }
    watch_link(&format!("caudal:{channel}?tracker=http://169.254.169.254"), &["169.254.169.254", "metadata"]);
    watch_link(&format!("caudal:{channel}?tracker=http://example.org"), &["example.org", "https://"]);
    // Files.
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(home.join(name), bytes).expect("a folder of the test's own");
        home.join(name).display().to_string()
    };
    let no_key = file("no.key", b"this is no key\n");
    publish(&[&card[..], &["--key", &no_key]].concat(), &[&no_key, "not a channel key", "caudal key new"]);
    publish(&[&card[..], &["--key", "/proc/no/such.key"]].concat(), &["/proc/no"]);
    watch(&[&good, "--output", "/no/such/folder/x.mp4"], &["/no/such/folder/x.mp4", "folder"]);
    publish(&["--input", "/no/such/film.mp4"], &["/no/such/film.mp4", "MP4 or FLV"]);
    misused(
        &home,
        &[&base[..], &["--input", "srt://127.0.0.1"]].concat(),
        &["srt://127.0.0.1", "rtmp://HOST:PORT/APP"],
    );
    publish(&["--input", "rtmp://no-such-host.invalid/live"], &["no-such-host.invalid", "127.0.0.1:1935"]);
    let noise = file("noise.bin", &(0..5000u32).map(|n| ((n * n) >> 3) as u8).collect::<Vec<_>>());
    publish(&["--input", &noise], &[&noise, "MP4 or FLV is needed", "ffmpeg -i"]);
    let junk = file("junk.flv", &[b"FLV\x01\x05\0\0\0\x09\0\0\0\0".as_slice(), &[0x4a; 4000]].concat());
    publish(&["--input", &junk], &[&junk, "malformed FLV", "byte 13"]);
    make_flv(&home.join("a.flv"), 2, "320x180");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(home.join("a.flv"))
        .args(["-c", "copy"])
        .arg(home.join("a.mp4"))
        .status();
    assert!(made.expect("ffmpeg is installed").success());
    let whole = std::fs::read(home.join("a.mp4")).expect("made");
    let cut = file("cut.mp4", &whole[..whole.len() / 3]);
    let at = format!("byte {}", whole.len() / 3);
    publish(&["--input", &cut], &[&cut, "truncated MP4", &at]);
    // Words.
    misused(&home, &["publish", "--name", "", "--tracker", url, "--input", "test"], &["--name", "1 to 64"]);
    misused(&home, &["publish", "--name", "x", "--tracker", "x.example"], &["x.example", "https://"]);
    publish(&[&card[..], &["--card-size", "3x3"]].concat(), &["width is 3", "640"]);
    // None of those broadcasts began but one: only its key is kept.
    let keys = std::fs::read_dir(home.join(".local/share/caudal/keys")).expect("keys");
    assert_eq!(keys.count(), 1);
    cannot(
        &home,
        &["channels", "--tracker", "http://127.0.0.1:1"],
        &["http://127.0.0.1:1", "caudal tracker"],
    );
}

/// Files that are damaged further in: what is whole is played, and the file and the byte are named.
#[test]
fn a_damaged_file_plays_as_far_as_it_is_whole() {
    let home = Folder::new();
    let tracker = tracker(&home);
    make_flv(&home.join("a.flv"), 3, "320x180");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(home.join("a.flv"))
        .args(["-c", "copy", "-movflags", "+faststart"])
        .arg(home.join("a.mp4"))
        .status();
    assert!(made.expect("ffmpeg is installed").success());
    for name in ["a.flv", "a.mp4"] {
        let whole = std::fs::read(home.join(name)).expect("made");
        let mut bytes = whole[..whole.len() * 2 / 3].to_vec();
        if name == "a.flv" {
            bytes.extend([0x99; 3000]);
        }
        let damaged = home.join(&format!("damaged-{name}"));
        std::fs::write(&damaged, bytes).expect("written");
        let path = damaged.display().to_string();
        let source = publish(&home, &tracker, &["--input", &path]);
        let line = source.wait_for_error("What is whole is played", S(15));
        assert!(line.contains(&path) && line.contains("byte"), "{line}");
        let viewer = Caudal::start(&home, &["watch", &link(&source)]);
        // Longer than one pass.
        viewer.wait_until("playing on", S(15), |stats| number(stats, "/parts") >= 15.0);
        assert_eq!(number(&viewer.stats(), "/gaps"), 0.0);
    }
}

#[test]
fn who_cannot_reach_the_tracker_keeps_trying_and_says_so() {
    let home = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let url = format!("http://{port}");
    let source = Caudal::start(
        &home,
        &[
            "publish",
            "--name",
            "x",
            "--tracker",
            &url,
            "--input",
            "test",
            "--card-rate",
            "1M",
            "--card-size",
            "640x360",
        ],
    );
    let viewer = Caudal::start(&home, &["watch", &link(&source)]);
    for process in [&source, &viewer] {
        let line = process.wait_for_error(&url, S(10));
        assert!(line.contains("cannot be reached") && line.contains("keep trying"), "{line}");
    }
    let _tracker = Caudal::start(&home, &["tracker", "--listen", &port.to_string()]);
    viewer.wait_until("playing", S(10), |stats| number(stats, "/parts") >= 3.0);
}

/// An RTMP channel with one viewer.
struct Studio {
    home: Folder,
    _tracker: Caudal,
    source: Caudal,
    viewer: Caudal,
}

impl Studio {
    fn open(output: Option<&str>) -> Self {
        let home = Folder::new();
        let tracker = tracker(&home);
        let source = publish(&home, &tracker, &["--input", "rtmp://127.0.0.1:0/live"]);
        let link = link(&source);
        let path = output.map(|name| home.join(name).display().to_string());
        let mut args = vec!["watch", &link];
        if let Some(path) = &path {
            args.extend(["--output", path]);
        }
        let viewer = Caudal::start(&home, &args);
        Self { home, _tracker: tracker, source, viewer }
    }

    fn parts(&self) -> f64 {
        number(&self.viewer.stats(), "/parts")
    }

    fn rtmp(&self) -> (&str, &str) {
        (self.source.told("rtmp_url"), self.source.told("stream_key"))
    }
}

#[test]
fn encoders_with_a_wrong_key_or_too_many_or_that_vanish() {
    let studio = Studio::open(None);
    let (url, key) = studio.rtmp();
    let file = studio.home.join("a.flv");
    make_flv(&file, 4, "320x180");
    // Wrong key.
    let mut wrong = Ffmpeg::publish(&file, url, "not-the-key");
    let code = wrong.ended(S(10));
    assert!(code.is_some_and(|code| code != 0), "ffmpeg is told: {code:?}");
    let said = studio.source.wait_for_error("wrong stream key", S(5));
    assert!(said.contains("caudal publish printed"), "{said}");
    // The right key in the wrong place.
    let mut wrong = Ffmpeg::publish(&file, &url.replace("/live", "/stream"), key);
    let code = wrong.ended(S(10));
    assert!(code.is_some_and(|code| code != 0), "ffmpeg is told: {code:?}");
    let said = studio.source.wait_for_error("wrong server URL", S(5));
    assert!(said.contains("end in /live") && said.contains("\"stream\""), "{said}");
    // Connections that ask for nothing keep nobody out.
    let addr = url.trim_start_matches("rtmp://").split('/').next().expect("an address");
    let _idle: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(addr).expect("it listens")).collect();
    // A second publisher.
    let mut first = Ffmpeg::publish(&file, url, key);
    studio.viewer.wait_until("playing", S(15), |stats| number(stats, "/parts") >= 5.0);
    let mut second = Ffmpeg::publish(&file, url, key);
    let code = second.ended(S(10));
    assert!(code.is_some_and(|code| code != 0), "the second is told: {code:?}");
    let said = studio.source.wait_for_error("publishing already", S(5));
    assert!(said.contains("stop it first"), "{said}");
    assert_eq!(first.ended(Duration::ZERO), None, "the first goes on");
    // It vanishes, and returns.
    let before = number(&studio.source.stats(), "/input/discontinuities");
    drop(first);
    studio.source.wait_for_error("The encoder left", S(5));
    std::thread::sleep(S(1));
    let parts = studio.parts();
    let back = Instant::now();
    let _again = Ffmpeg::publish(&file, url, key);
    studio.viewer.wait_until("resumed", S(10), |stats| number(stats, "/parts") > parts);
    println!("resumed {:?} after the encoder returned", back.elapsed());
    studio.viewer.wait_until("playing on", S(10), |stats| number(stats, "/parts") >= parts + 15.0);
    let stats = studio.viewer.stats();
    assert_eq!((number(&stats, "/gaps"), number(&stats, "/chunks/missing")), (0.0, 0.0), "{stats}");
    let after = number(&studio.source.stats(), "/input/discontinuities");
    println!("discontinuities {before} → {after}");
}

type Stamp = fn(usize, &Tag) -> u32;

/// Timestamps that jump, wrap or run backwards; sound or picture alone; another resolution: the viewer loses a group of
/// pictures at most each time, and what it recorded can be decoded.
#[test]
fn odd_timestamps_lone_tracks_and_new_resolutions_are_survived() {
    let studio = Studio::open(Some("recorded.mp4"));
    let (url, key) = studio.rtmp();
    for (name, size) in [("a.flv", "320x180"), ("b.flv", "480x272")] {
        make_flv(&studio.home.join(name), 3, size);
    }
    let (small, large) = (read_flv(&studio.home.join("a.flv")), read_flv(&studio.home.join("b.flv")));
    let only = |kind: u8| small.iter().filter(|tag| tag.kind == kind).cloned().collect::<Vec<_>>();
    let then = |mut first: Vec<Tag>, second: &[Tag]| {
        first.extend(second.iter().cloned().map(|mut tag| {
            tag.timestamp_ms += 3000;
            tag
        }));
        first
    };
    let plain: Stamp = |_, tag| tag.timestamp_ms;
    let cases: Vec<(&str, Vec<Tag>, Stamp)> = vec![
        ("as it should be", small.clone(), plain),
        ("jumps by three hours", small.clone(), |_, tag| {
            tag.timestamp_ms + if tag.timestamp_ms >= 1500 { 3 * 3_600_000 } else { 0 }
        }),
        ("runs backwards by ten seconds", small.clone(), |_, tag| {
            tag.timestamp_ms + if tag.timestamp_ms >= 1500 { 0 } else { 10_000 }
        }),
        ("wraps 32 bits", small.clone(), |_, tag| tag.timestamp_ms.wrapping_sub(1500)),
        ("wraps the 31st bit", small.clone(), |_, tag| tag.timestamp_ms + 0x7fff_ffff - 1500),
        ("every timestamp is 0", small.clone(), |_, _| 0),
        ("sound only", only(8), plain),
        ("picture only", only(9), plain),
        ("another resolution midway", then(small.clone(), &large), plain),
    ];
    for (name, tags, stamp) in cases {
        let before = studio.parts();
        let mut encoder = Rtmp::publish(url, key);
        let taken = encoder.play(&tags, stamp);
        drop(encoder);
        std::thread::sleep(Duration::from_millis(700));
        let got = studio.parts() - before;
        let stats = studio.source.stats();
        println!("{name}: all taken {taken}, {got} parts; {}; {}", stats["advice"], studio.source.errors());
        let seconds = f64::from(tags.last().expect("tags").timestamp_ms) / 1000.0;
        if name == "every timestamp is 0" {
            // Nothing to go by; the channel goes on with the next encoder.
            continue;
        }
        assert!(taken, "{name}: the encoder was thrown out");
        assert!(got >= seconds * 5.0 - PARTS_PER_GOP, "{name}: {got} parts in {seconds} s");
    }
    let stats = studio.viewer.stats();
    assert_eq!((number(&stats, "/gaps"), number(&stats, "/chunks/missing")), (0.0, 0.0), "{stats}");
    let path = studio.home.join("recorded.mp4");
    let (_, status) = studio.viewer.end();
    assert!(status.success());
    probes(&path);
    decodes(&path);
}

/// ffmpeg decodes the picture, whatever size it has: all but a group of pictures for each change.
fn decodes(path: &Path) {
    let out = Command::new("ffprobe")
        .args(["-v", "quiet", "-select_streams", "v", "-count_frames", "-count_packets", "-of", "csv=p=0"])
        .args(["-show_entries", "stream=nb_read_frames,nb_read_packets"])
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    let counts = String::from_utf8_lossy(&out.stdout);
    let counts: Vec<f64> = counts.trim().split(',').filter_map(|count| count.parse().ok()).collect();
    let [frames, packets] = counts[..] else { panic!("ffprobe counted {counts:?}") };
    println!("{frames} of {packets} pictures can be decoded");
    assert!(packets > 300.0 && frames >= packets * 0.97, "{frames} of {packets} pictures can be decoded");
}

fn probes(path: &Path) {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_type"])
        .arg(path)
        .output();
    let out = out.expect("ffprobe is installed");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("video"));
}

/// A small file system that goes with the test.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: std::path::PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&path).expect("a mount point");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(&path)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "this test mounts a tmpfs: run it as root");
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_watching() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = card(&home, &tracker);
    let disk = Tmpfs::mount(home.join("disk"), "300k");
    let file = disk.0.join("recording.mp4");
    let path = file.display().to_string();
    let viewer = Caudal::start(&home, &["watch", &link(&source), "--output", &path]);
    let said = viewer.wait_for_error("cannot write", S(20));
    assert!(said.contains(&path) && said.contains("space") && said.contains("goes on"), "{said}");
    let parts = number(&viewer.stats(), "/parts");
    viewer.wait_until("playing on", S(5), |stats| number(stats, "/parts") >= parts + 8.0);
    let (status, playlist) = common::get(viewer.told("http"), &format!("/hls/{MULTIVARIANT_URI}"));
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&playlist).contains("#EXTM3U"));
    let (report, status) = viewer.end();
    assert_eq!(status.code(), Some(3), "what was asked for could not be done");
    assert_eq!(number(&report, "/gaps"), 0.0, "{report}");
    probes(&file);
    let out =
        Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(&file).args(["-f", "null", "-"]).output();
    let out = out.expect("ffmpeg is installed");
    assert!(out.stderr.is_empty(), "it ends with a whole part: {}", String::from_utf8_lossy(&out.stderr));
}
