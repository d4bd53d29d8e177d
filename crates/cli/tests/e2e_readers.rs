//! One node, three readers at once: its standard output into ffmpeg, LL-HLS read by ffmpeg, and by hls.js in a browser. Nobody
//! stalls, and the node does not grow.
//!
//! `CAUDAL_READERS_SECONDS` makes it longer than the few seconds of every day; the figures of ten minutes stand in
//! `docs/benchmarks.md`. Growth is judged from [`LONG_S`] on: before that the node still fills what it keeps.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use common::{
    Caudal, Folder, PATIENCE, link, publish_card, start_tool, tracker, wait_for, wait_until_playing,
};
use serde_json::Value;

/// A reader has stalled when it gets nothing new for so long: two parts that were lost and asked for again take less.
const STALL: Duration = Duration::from_secs(2);
/// A run of so many seconds or more also judges memory: twice what a node keeps, and a minute to compare with.
const LONG_S: u64 = 240;
/// The median of the last minute may be so much above that of the third, KiB: allocators are not exact.
const GROWTH_MAX_KIB: u64 = 4096;

/// Media time that ffmpeg has read, as its `-progress` tells, and when it last told more.
struct Progress {
    name: &'static str,
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    media_us: u64,
    moved: Instant,
    /// The longest without anything new.
    longest: Duration,
}

impl Progress {
    /// ffmpeg decoding `input` to nowhere.
    fn start(name: &'static str, input: &str, stdin: Option<ChildStdout>) -> Self {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostats", "-stats_period", "0.2", "-progress", "pipe:1", "-i", input]);
        command.args(["-map", "0", "-f", "null", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match stdin {
            Some(stdin) => command.stdin(stdin).spawn().expect("ffmpeg is installed"),
            None => start_tool(&mut command),
        };
        let seen = Arc::new(Mutex::new(Seen { media_us: 0, moved: Instant::now(), longest: Duration::ZERO }));
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let told = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some(us) = line.strip_prefix("out_time_us=").and_then(|us| us.parse().ok()) else {
                    continue;
                };
                let mut seen = look(&told);
                if us > seen.media_us {
                    (seen.media_us, seen.moved) = (us, Instant::now());
                }
                let still = seen.moved.elapsed();
                seen.longest = seen.longest.max(still);
            }
        });
        Self { name, child, seen }
    }

    fn media_us(&self) -> u64 {
        look(&self.seen).media_us
    }

    fn begun(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.media_us() == 0 {
            assert!(Instant::now() < deadline, "{}: nothing was decoded", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        look(&self.seen).longest = Duration::ZERO;
    }

    /// It read as fast as time went by, without standing still, and complained of nothing.
    fn judge(mut self, before_us: u64, wall: Duration) {
        let (media, longest) = {
            let seen = look(&self.seen);
            (Duration::from_micros(seen.media_us - before_us), seen.longest.max(seen.moved.elapsed()))
        };
        let _ = self.child.kill();
        let said = std::io::read_to_string(self.child.stderr.take().expect("piped")).unwrap_or_default();
        let _ = self.child.wait();
        println!(
            "{}: {:.1} s of media in {:.1} s, still for {longest:.1?} at most",
            self.name,
            media.as_secs_f64(),
            wall.as_secs_f64()
        );
        assert!(longest < STALL, "{} stalled for {longest:?}", self.name);
        assert!(media + STALL > wall, "{}: {media:?} of media in {wall:?}", self.name);
        assert_eq!(said, "", "{}", self.name);
    }
}

/// Nobody panics while it holds the lock.
fn look(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("no panic")
}

/// The node under test: its standard output is the stream, so it tells its addresses on stderr.
struct Node {
    child: Child,
    page: String,
}

impl Node {
    fn start(home: &Folder, link: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_caudal"))
            .args(["watch", link, "--output", "-"])
            .env("HOME", home.path())
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("caudal starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let page = said
            .find_map(|line| line.strip_prefix("Watch it on its page: ").map(str::to_owned))
            .expect("it says where its page is");
        std::thread::spawn(move || said.for_each(drop));
        Self { child, page }
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
        line.trim().trim_end_matches(" kB").trim().parse().expect("KiB")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn three_kinds_of_readers_at_one_node_do_not_stall_and_it_does_not_grow() {
    let seconds: u64 =
        std::env::var("CAUDAL_READERS_SECONDS").map_or(4, |text| text.parse().expect("seconds"));
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--listed"]);
    let other = Caudal::start(&home, &["watch", &link(&source)]);
    wait_until_playing(&other);

    let mut node = Node::start(&home, &link(&source));
    let http = node.page.split("/#").next().expect("a first piece").to_owned();
    let pipe = Progress::start("--output - into ffmpeg", "pipe:0", node.child.stdout.take());
    pipe.begun();
    let hls = Progress::start("LL-HLS read by ffmpeg", &format!("{http}/hls/index.m3u8"), None);
    hls.begun();
    let mut browser = Command::new("node");
    browser
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/test/readers.mjs"))
        .args(["--page", &node.page, "--name", "Card", "--seconds", &seconds.to_string()])
        .env("HOME", home.path())
        .stdout(Stdio::piped());
    let mut browser = start_tool(&mut browser);

    let (began, before) = (Instant::now(), [pipe.media_us(), hls.media_us()]);
    let mut resident = Vec::new();
    while browser.try_wait().expect("a child can be waited for").is_none() {
        assert!(began.elapsed() < Duration::from_secs(seconds) + 2 * PATIENCE, "the browser does not end");
        std::thread::sleep(Duration::from_millis(500));
        resident.push((began.elapsed().as_secs(), node.resident_kib()));
    }
    let wall = began.elapsed();
    hls.judge(before[1], wall);
    pipe.judge(before[0], wall);

    let told = std::io::read_to_string(browser.stdout.take().expect("piped")).expect("text");
    println!("hls.js in Chromium: {}", told.trim());
    assert!(wait_for(&mut browser, PATIENCE).success());
    let told: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("JSON");
    let number = |key: &str| told[key].as_f64().unwrap_or(f64::NAN);
    assert_eq!((told["how"].as_str(), number("stalls")), (Some("hls.js"), 0.0), "{told}");
    assert!(number("still_ms") < STALL.as_secs_f64() * 1000.0, "{told}");
    assert!((number("media_s") - number("wall_s")).abs() < STALL.as_secs_f64(), "{told}");
    assert_eq!(told["complaints"].as_array().map(Vec::len), Some(0), "{told}");

    let median = |from: u64, to: u64| {
        let mut of: Vec<_> =
            resident.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, kib)| *kib).collect();
        of.sort_unstable();
        of.get(of.len() / 2).copied().unwrap_or_default()
    };
    if seconds >= LONG_S {
        let (then, now) = (median(120, 180), median(wall.as_secs() - 60, wall.as_secs()));
        println!("resident: {then} KiB in the third minute, {now} KiB in the last");
        assert!(now < then + GROWTH_MAX_KIB, "it grew from {then} to {now} KiB");
    }
}
