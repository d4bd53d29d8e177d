//! How commands end: Ctrl-C leaves no process and no half-written file, exit codes are those documented, standard
//! output holds what was asked for and nothing else.

mod common;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Caudal, Folder, get, link, number, signal, tracker};

const S: fn(u64) -> Duration = Duration::from_secs;

fn publish(home: &Folder, tracker: &Caudal) -> Caudal {
    let card = ["--input", "test", "--card-rate", "1M", "--card-size", "640x360"];
    Caudal::start(
        home,
        &[&["publish", "--name", "Exit", "--tracker", tracker.told("http")], &card[..]].concat(),
    )
}

/// Whether `id` is a running process; one that has ended and waits for its parent does not run.
fn runs(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

fn children(id: u32) -> BTreeSet<u32> {
    let text = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Top-level boxes of an MP4: panics when the last one is not whole.
fn boxes(bytes: &[u8]) -> Vec<String> {
    let (mut at, mut names) = (0, Vec::new());
    while at < bytes.len() {
        assert!(bytes.len() >= at + 8, "a box is cut at byte {at} of {}", bytes.len());
        let len = u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        names.push(String::from_utf8_lossy(&bytes[at + 4..at + 8]).into_owned());
        at += len;
        assert!(len >= 8 && at <= bytes.len(), "box {names:?} ends at {at} of {}", bytes.len());
    }
    names
}

fn decodes(path: &std::path::Path) {
    let out = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(path).args(["-f", "null", "-"]).output();
    let out = out.expect("ffmpeg is installed");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.is_empty(), "{}: {said}", path.display());
}

#[test]
fn ctrl_c_ends_publish_and_watch_in_order_and_the_recording_is_whole() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish(&home, &tracker);
    let file = home.join("recording.mp4");
    let path = file.display().to_string();
    let viewer = Caudal::start(&home, &["watch", &link(&source), "--output", &path]);
    viewer.wait_until("playing", S(20), |stats| number(stats, "/parts") >= 10.0);
    every_playlist_that_is_named_is_served(&viewer);
    signal(viewer.id(), "INT");
    let (status, report, said) = viewer.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(report.is_some_and(|report| report.contains("\"role\":\"viewer\"")), "a report is the last line");
    boxes(&std::fs::read(&file).expect("recorded"));
    decodes(&file);
    let asked = Instant::now();
    signal(source.id(), "INT");
    let (status, report, said) = source.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(report.is_some_and(|report| report.contains("\"role\":\"source\"")));
    assert!(asked.elapsed() < S(5));
    signal(tracker.id(), "INT");
    assert_eq!(tracker.ended().0.code(), Some(0));
    // Nothing that was begun and not finished: no epoch under its temporary name.
    let state = home.join(".local/state/caudal");
    let names: Vec<_> =
        std::fs::read_dir(state).expect("state").flatten().map(|file| file.file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{names:?}");
}

/// What the front page and the help tell people to open.
fn every_playlist_that_is_named_is_served(viewer: &Caudal) {
    let help =
        Command::new(env!("CARGO_BIN_EXE_caudal")).args(["watch", "--help"]).output().expect("runs").stdout;
    for text in [get(viewer.told("http"), "/").1, help] {
        let text = String::from_utf8_lossy(&text).into_owned();
        let at = text.find("/hls/").expect("a playlist is named");
        let path = text[at..].split_whitespace().next().expect("a path");
        assert_eq!(get(viewer.told("http"), path).0, 200, "{path}");
    }
}

/// Ctrl-C while it runs, Ctrl-C while it starts, and `kill -9`: no process of a demo outlives it.
#[test]
fn a_demo_leaves_no_process() {
    for (name, when, expected) in
        [("INT", 2, Some(0)), ("INT", 1, Some(1)), ("KILL", 2, None), ("TERM", 2, Some(0))]
    {
        let home = Folder::new();
        let demo = Caudal::spawn(&home, &["demo", "--peers", "2", "--rate", "1M"]);
        let deadline = Instant::now() + S(20);
        let wanted = if when == 1 { 2 } else { 4 };
        while children(demo.id()).len() < wanted && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if when == 2 {
            std::thread::sleep(S(2));
        }
        let all = children(demo.id());
        assert!(all.len() >= wanted, "{all:?}");
        signal(demo.id(), name);
        let (status, ..) = demo.ended();
        assert_eq!(status.code(), expected, "{name} at {when}");
        let deadline = Instant::now() + S(4);
        while all.iter().any(|id| runs(*id)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let left: Vec<&u32> = all.iter().filter(|id| runs(**id)).collect();
        assert!(left.is_empty(), "{name} at {when} leaves {left:?}");
        // No lock, no epoch, and nothing that is said once is used up.
        assert!(!home.join(".local").exists(), "{name} at {when} leaves state");
    }
}

#[test]
fn standard_output_holds_the_stream_alone() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish(&home, &tracker);
    let mut viewer = Command::new(env!("CARGO_BIN_EXE_caudal"))
        .args(["watch", &link(&source), "--output", "-", "--json", "--duration", "4s"])
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("caudal starts");
    let (mut stream, mut said) = (Vec::new(), String::new());
    viewer.stdout.take().expect("piped").read_to_end(&mut stream).expect("read");
    viewer.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(viewer.wait().expect("ended").code(), Some(0), "{said}");
    let names = boxes(&stream);
    assert_eq!(names[..2], ["ftyp", "moov"]);
    assert!(names.iter().filter(|name| *name == "moof").count() > 5, "{names:?}");
    let known = ["ftyp", "moov", "moof", "mdat", "prft", "styp", "emsg", "sidx"];
    assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    let report = said.lines().rfind(|line| line.starts_with('{')).expect("the report goes to stderr");
    assert!(report.contains("\"ok\":true"), "{report}");
}

#[test]
fn every_command_has_help_with_an_example_and_wrong_usage_is_2() {
    let caudal =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_caudal")).args(args).output().expect("runs");
    for command in ["tracker", "publish", "watch", "edge", "channels", "key", "demo"] {
        let out = caudal(&[command, "--help"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(0), "{command}");
        assert!(text.contains("Example") && text.contains(&format!("caudal {command}")), "{command}: {text}");
        let out = caudal(&[command, "--no-such-flag"]);
        assert_eq!(out.status.code(), Some(2), "{command}");
        assert!(!out.stderr.is_empty() && out.stdout.is_empty());
    }
    let out = caudal(&["--help"]);
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("Exit codes"));
    for wrong in [
        &["publish", "--tracker", "http://127.0.0.1:1"][..],
        &["publish", "--name", "x", "--tracker", "http://127.0.0.1:1", "--upload-limit", "much"],
        &["watch", "caudal:x", "--duration", "10"],
        &["watch"],
        &["watch", "caudal:x", "--no-p2p", "--bind", "127.0.0.1:0"],
        &["edge"],
        &["tracker", "--listen", "nowhere"],
        &["demo", "--peers", "0"],
        &[],
    ] {
        assert_eq!(caudal(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// 1: the report is not ok.
#[test]
fn a_viewer_that_saw_nothing_says_so_by_its_exit_code() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let nobody = format!("caudal:{}?tracker={}", "a".repeat(52), tracker.told("http"));
    let viewer = Caudal::start(&home, &["watch", &nobody, "--duration", "1s"]);
    let (status, report, _) = viewer.ended();
    assert_eq!(status.code(), Some(1));
    assert!(report.is_some_and(|report| report.contains("\"ok\":false")));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = Folder::new();
    let file = home.join("channel.key");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let new = Command::new(env!("CARGO_BIN_EXE_caudal"))
        .args(["key", "new", "--file"])
        .arg(&file)
        .env("HOME", home.path())
        .stdout(writer)
        .output()
        .expect("caudal starts");
    assert_eq!(new.status.code(), Some(0), "{}", String::from_utf8_lossy(&new.stderr));
    assert!(new.stderr.is_empty() && file.exists());
}
