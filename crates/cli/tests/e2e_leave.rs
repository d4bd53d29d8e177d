//! What commands leave behind when they never began, and what they say when something ends: a broadcast, a reader, a
//! broadcast that nobody could find.

mod common;

use std::fs::File;
use std::io::Read as _;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Caudal, Folder, PATIENCE, link, publish_card, signal, tracker, wait_for, wait_until_playing};

const S: fn(u64) -> Duration = Duration::from_secs;
const CARD: [&str; 6] = ["--input", "test", "--card-rate", "1M", "--card-size", "640x360"];

/// A `caudal` whose standard output is the test's.
fn caudal(home: &Folder, args: &[&str], stdout: impl Into<Stdio>) -> Child {
    Command::new(env!("CARGO_BIN_EXE_caudal"))
        .args(args)
        .env("HOME", home.path())
        .env_remove("XDG_DATA_HOME")
        .env_remove("XDG_STATE_HOME")
        .env("CAUDAL_LOG", "error")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("caudal starts")
}

fn said_by(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
    text
}

#[test]
fn a_broadcast_that_never_began_leaves_nothing() {
    let home = Folder::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let base = ["publish", "--name", "x", "--tracker", "http://127.0.0.1:1"];
    for more in [&["--bind", &taken][..], &["--description", "\u{202e}"], &["--input", "/no/such/film.mp4"]] {
        let (status, _, said) = Caudal::spawn(&home, &[&base[..], &CARD[..], more].concat()).ended();
        assert!(matches!(status.code(), Some(2 | 3)), "{more:?}: {said}");
        assert!(!home.join(".local").exists(), "{more:?}");
    }
}

/// One that is refused because the channel is on the air does not take the other's lock away.
#[test]
fn a_refused_broadcast_leaves_the_others_lock() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let args = [&["publish", "--name", "x", "--tracker", tracker.told("http")], &CARD[..]].concat();
    let _on_air = Caudal::start(&home, &args);
    for _ in 0..2 {
        let (status, _, said) = Caudal::spawn(&home, &args).ended();
        assert_eq!(status.code(), Some(3), "{said}");
        assert!(said.contains("on the air already"), "{said}");
    }
}

#[test]
fn a_recording_that_never_began_leaves_no_file() {
    let home = Folder::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("bound").to_string();
    let (file, link) = (home.join("x.mp4"), format!("caudal:{}?tracker=http://127.0.0.1:1", "a".repeat(52)));
    let path = file.display().to_string();
    let (status, _, said) =
        Caudal::spawn(&home, &["watch", &link, "--output", &path, "--bind", &taken]).ended();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains(&taken) && !file.exists(), "{said}");
}

#[test]
fn a_broadcast_that_no_tracker_took_is_not_ok() {
    let home = Folder::new();
    let url = "http://127.0.0.1:1";
    let source = Caudal::start(&home, &[&["publish", "--name", "x", "--tracker", url], &CARD[..]].concat());
    source.wait_for_error("keep trying", S(10));
    signal(source.id(), "INT");
    let (status, report, said) = source.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    let report = report.expect("a report");
    assert!(report.contains("\"ok\":false") && report.contains("no tracker took the channel"), "{report}");
    let args = [&["publish", "--name", "x", "--tracker", url, "--duration", "2s"], &CARD[..]].concat();
    let mut source = caudal(&home, &args, Stdio::null());
    assert_eq!(wait_for(&mut source, PATIENCE).code(), Some(1));
    let said = said_by(&mut source);
    assert!(said.contains("no tracker took the channel") && said.contains("--tracker"), "{said}");
}

#[test]
fn what_is_said_once_is_said_at_the_first_watch_and_fits_it() {
    let home = Folder::new();
    let link = format!("caudal:{}?tracker=http://127.0.0.1:1", "a".repeat(52));
    let watch = |more: &[&str]| {
        let args = [&["watch", &link, "--duration", "200ms"], more].concat();
        Caudal::spawn(&home, &args).ended().2
    };
    for (more, upload, addresses) in [
        (&["--no-upload"][..], false, true),
        (&["--no-upload"], false, false),
        (&[], true, true),
        (&[], false, false),
        (&["--no-upload"], false, false),
    ] {
        let said = watch(more);
        assert_eq!(said.contains("you upload to them"), upload, "{more:?}: {said}");
        assert_eq!(said.contains("see your network address"), addresses, "{more:?}: {said}");
    }
}

#[test]
fn localhost_may_be_listened_on_and_other_names_may_not() {
    let home = Folder::new();
    let tracker = Caudal::start(&home, &["tracker", "--listen", "localhost:0"]);
    assert!(tracker.told("http").starts_with("http://127.0.0.1:"), "{}", tracker.ready);
    let (status, _, said) = Caudal::spawn(&home, &["tracker", "--listen", "example.org:7791"]).ended();
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("example.org:7791") && said.contains("localhost:7777"), "{said}");
}

#[test]
fn a_key_is_not_backed_up_into_a_folder_that_is_not_there() {
    let home = Folder::new();
    let (key, to) = (home.join("channel.key"), home.join("usb/channel.key"));
    let run = |args: &[&str]| {
        let mut child = caudal(&home, args, Stdio::null());
        let code = wait_for(&mut child, PATIENCE).code();
        (code, said_by(&mut child))
    };
    let (key, to) = (key.display().to_string(), to.display().to_string());
    assert_eq!(run(&["key", "new", "--file", &key]).0, Some(0));
    let backup = ["key", "backup", "--file", &key, "--to", &to];
    let (code, said) = run(&backup);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("usb does not exist") && !home.join("usb").exists(), "{said}");
    std::fs::create_dir(home.join("usb")).expect("made");
    assert_eq!(run(&backup).0, Some(0));
}

/// Killed, it may come back; ended, it is over.
#[test]
fn a_viewer_is_told_once_when_the_broadcaster_stops_and_when_it_returns() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let mut source = publish_card(&home, &tracker, &[]);
    let viewer = Caudal::start(&home, &["watch", &link(&source)]);
    wait_until_playing(&viewer);
    source.kill();
    let line = viewer.line(S(20));
    assert!(line["state"] == "waiting" && line["silent_ms"].as_u64() >= Some(8000), "{line}");
    viewer.wait_for_error("the broadcaster has stopped, or cannot be reached", S(1));
    std::thread::sleep(S(2));
    assert!(!viewer.errors().contains("has stopped"), "said once");
    let source = publish_card(&home, &tracker, &[]);
    let line = viewer.line(PATIENCE);
    assert_eq!(line["state"], "live", "{line}");
    viewer.wait_for_error("The broadcast goes on.", S(1));
    drop(source.end());
    let (status, report, said) = viewer.ended();
    assert!(said.contains("The broadcaster ended the broadcast."), "{said}");
    assert!(report.is_some_and(|report| report.contains("\"state\":\"ended\"")), "{said}");
    assert_eq!(status.code(), Some(0), "{said}");
}

/// Also while nothing comes that could be written.
#[test]
fn watching_ends_with_the_reader_of_its_output() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let mut source = publish_card(&home, &tracker, &[]);
    let mut viewer = caudal(&home, &["watch", &link(&source), "--output", "-"], Stdio::piped());
    let mut stream = viewer.stdout.take().expect("piped");
    stream.read_exact(&mut [0; 1000]).expect("a stream");
    source.kill();
    // What came before is taken, so that the next write is a part that never comes.
    let taken = Instant::now();
    let taker = std::thread::spawn(move || {
        let mut piece = [0; 16_384];
        while taken.elapsed() < S(3) {
            let mut ready = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::IN)];
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if rustix::event::poll(&mut ready, Some(&wait)).is_ok_and(|count| count > 0) {
                let _ = stream.read(&mut piece);
            }
        }
        stream
    });
    let stream = taker.join().expect("read");
    assert!(viewer.try_wait().expect("asked").is_none());
    let asked = Instant::now();
    drop(stream);
    let status = wait_for(&mut viewer, S(10));
    let said = said_by(&mut viewer);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(asked.elapsed() < S(8), "{:?}", asked.elapsed());
    // Who goes before anything came did not want it.
    let nobody = format!("caudal:{}?tracker={}", "a".repeat(52), tracker.told("http"));
    let mut viewer = caudal(&home, &["watch", &nobody, "--output", "-"], Stdio::piped());
    drop(viewer.stdout.take());
    assert_eq!(wait_for(&mut viewer, S(10)).code(), Some(0));
}

/// Peers that do not answer do not keep a node from ending, and are no error that a person reads about.
#[test]
fn an_endpoint_is_closed_on_every_way_out() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let mut source = publish_card(&home, &tracker, &[]);
    let link = link(&source);
    // Nobody reads the ready line: it cannot be done, and its peers are told.
    let full = File::options().write(true).open("/dev/full").expect("the system has it");
    let mut viewer = caudal(&home, &["watch", &link, "--json"], full.try_clone().expect("opened"));
    assert_eq!(wait_for(&mut viewer, PATIENCE).code(), Some(3));
    let words = said_by(&mut viewer);
    assert!(words.contains("No space left") && !words.contains("Endpoint"), "{words}");
    let publish = ["publish", "--name", "Full", "--tracker", tracker.told("http"), "--json"];
    let mut other = caudal(&home, &[&publish[..], &CARD].concat(), full);
    assert_eq!(wait_for(&mut other, PATIENCE).code(), Some(3));
    let words = said_by(&mut other);
    assert!(words.contains("No space left") && !words.contains("Endpoint"), "{words}");
    // The tracker still names a source that is gone.
    source.kill();
    let viewer = Caudal::start(&home, &["watch", &link]);
    std::thread::sleep(S(1));
    let asked = Instant::now();
    signal(viewer.id(), "INT");
    let (status, _, said) = viewer.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("Endpoint") && asked.elapsed() < S(8), "{:?}: {said}", asked.elapsed());
}
