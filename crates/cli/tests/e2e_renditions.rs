//! A channel in three renditions, and a viewer whose line drops from 5 to 1 Mbit/s and comes back: no stall for a player that is
//! two seconds behind, down within two seconds, up within twenty, and one stream for players all the while. Then the same way down for one
//! that has everything from an edge.
//!
//! The line is a network namespace of its own behind a token bucket, which takes root: without it the test says so and is over.
//!
//! And the page's menu of such a channel, in a real Chromium (`web/test/renditions.mjs`).

mod common;

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use caudal_media::fmp4::prft_unix_us;
use common::{
    Caudal, Folder, PATIENCE, browse, link, number, request, run_clean, start_tool, tracker, tracker_at,
    wait_for,
};
use serde_json::Value;

const HERE: &str = "10.89.77.1";
const THERE: &str = "10.89.77.2";
const GOOD: &str = "5mbit";
const BAD: &str = "1mbit";
/// What a player is behind.
const BEHIND: Duration = Duration::from_secs(2);

/// A namespace with one line into it, which carries so much.
struct Line {
    namespace: String,
    device: String,
}

impl Line {
    /// `None` without root.
    fn new() -> Option<Self> {
        let id = Command::new("id").arg("-u").output().ok()?;
        if id.stdout.trim_ascii() != b"0" {
            return None;
        }
        let pid = std::process::id();
        let line = Self { namespace: format!("caudal-r{pid}"), device: format!("cr{pid}") };
        let (space, device) = (&line.namespace, &line.device);
        ip(&format!("netns add {space}"));
        ip(&format!("link add {device} type veth peer name cv netns {space}"));
        ip(&format!("addr add {HERE}/30 dev {device}"));
        ip(&format!("link set {device} up"));
        ip(&format!("-n {space} addr add {THERE}/30 dev cv"));
        ip(&format!("-n {space} link set cv up"));
        ip(&format!("-n {space} link set lo up"));
        line.carries(GOOD);
        Some(line)
    }

    fn carries(&self, rate: &str) {
        let line = format!("qdisc replace dev {} root tbf rate {rate} burst 10k latency 200ms", self.device);
        run_clean(Command::new("tc").args(line.split_whitespace()));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

fn ip(line: &str) {
    run_clean(Command::new("ip").args(line.split_whitespace()));
}

/// Ten seconds with a key frame every so many pictures (25 are a second); all have the same sound.
fn encode(path: &Path, size: &str, kbps: u32, key_every: u32) -> Child {
    let keys = key_every.to_string();
    let (rate, buffer) = (format!("{kbps}k"), format!("{}k", kbps / 2));
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", &format!("testsrc2=s={size}:r=25:d=10")])
        .args(["-f", "lavfi", "-i", "sine=r=48000:d=10", "-vf", "noise=alls=50:allf=t"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-g", &keys, "-keyint_min", &keys])
        .args(["-sc_threshold", "0", "-bf", "0", "-pix_fmt", "yuv420p"])
        .args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &buffer, "-c:a", "aac", "-b:a", "64k"])
        .arg(path);
    start_tool(&mut command)
}

fn encode_all(home: &Folder, ladder: &[(&str, u32)], key_every: u32) -> Vec<PathBuf> {
    let files: Vec<PathBuf> = ladder.iter().map(|(size, _)| home.join(&format!("{size}.mp4"))).collect();
    let begun = files.iter().zip(ladder).map(|(file, (size, kbps))| encode(file, size, *kbps, key_every));
    for mut running in begun.collect::<Vec<_>>() {
        assert!(wait_for(&mut running, PATIENCE).success());
    }
    files
}

fn publish(home: &Folder, tracker: &Caudal, files: &[PathBuf], more: &[&str]) -> Caudal {
    let mut args = vec!["publish", "--name", "Ladder", "--tracker", tracker.told("http")];
    args.extend(more);
    for file in files {
        args.extend(["--input", file.to_str().expect("text")]);
    }
    let source = Caudal::start(home, &args);
    source.wait_until("live", PATIENCE, |stats| stats["state"] == "live");
    source
}

/// What a player gets, and when: so many bytes were there at such a time, µs.
struct Tape {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<(Vec<u8>, Came)>,
}

type Came = Vec<(usize, u64)>;

impl Tape {
    fn start(addr: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(addr).expect("the viewer listens");
        let ask = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n");
        std::io::Write::write_all(&mut stream, ask.as_bytes()).expect("the request is taken");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            let (mut all, mut came) = (Vec::new(), Came::new());
            let mut buffer = vec![0; 64 << 10];
            while !stopped.load(Ordering::Relaxed) {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => {
                        all.extend_from_slice(&buffer[..len]);
                        came.push((all.len(), unix_us()));
                    }
                    Err(_) => {}
                }
            }
            let head = all.windows(4).position(|end| end == b"\r\n\r\n").expect("an answer") + 4;
            came.iter_mut().for_each(|(len, _)| *len = len.saturating_sub(head));
            (all.split_off(head), came)
        });
        Self { stop, reader }
    }

    /// Its bytes up to the last whole part, and for each part when it was captured and when it was there, µs.
    fn end(self) -> (Vec<u8>, Vec<(u64, u64)>) {
        self.stop.store(true, Ordering::Relaxed);
        let (bytes, came) = self.reader.join().expect("a tape");
        let (mut at, mut whole, mut parts, mut prft) = (0, 0, Vec::new(), None);
        while let Some(head) = bytes.get(at..at + 8) {
            let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let Some(body) = bytes.get(at..at + len) else { break };
            match &head[4..8] {
                b"prft" => prft = prft_unix_us(&Bytes::copy_from_slice(body)).ok(),
                b"mdat" => {
                    whole = at + len;
                    let arrived = came.iter().find(|(end, _)| *end >= whole).map_or(0, |(_, us)| *us);
                    parts.extend(prft.take().map(|captured| (captured, arrived)));
                }
                _ => {}
            }
            at += len;
        }
        (bytes[..whole].to_vec(), parts)
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

/// The viewer in the namespace: where it answers.
struct Viewer {
    caudal: Caudal,
    addr: SocketAddr,
    prefix: String,
}

impl Viewer {
    fn start(home: &Folder, line: &Line, link: &str, more: &[&str]) -> Self {
        let listen = format!("{THERE}:0");
        let args = [&["watch", link, "--lan", "--listen", &listen], more].concat();
        let caudal = Caudal::start_within(home, &["ip", "netns", "exec", &line.namespace], &args);
        let addr = caudal.told("http").trim_start_matches("http://").parse().expect("IP:PORT");
        let page = caudal.told("page").to_owned();
        let path = page.splitn(4, '/').nth(3).expect("a path with the token");
        Self { caudal, addr, prefix: format!("/{}", path.trim_end_matches('/')) }
    }

    fn stats(&self) -> Value {
        let Self { addr, prefix, .. } = self;
        let ask = format!("GET {prefix}/api/v1/stats HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        let (status, body) = request(*addr, &ask);
        assert_eq!(status, 200);
        serde_json::from_slice(&body).expect("stats are JSON")
    }

    fn choose(&self, rendition: &str) {
        let Self { addr, prefix, .. } = self;
        let id = self.session();
        let body = format!("{{\"rendition\":\"{rendition}\"}}");
        let len = body.len();
        let ask = format!(
            "POST {prefix}/api/v1/sessions/{id}/rendition HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n\
             Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"
        );
        let (status, said) = request(*addr, &ask);
        assert_eq!(status, 204, "{}", String::from_utf8_lossy(&said));
    }

    fn session(&self) -> String {
        let Self { addr, prefix, .. } = self;
        let ask =
            format!("GET {prefix}/api/v1/sessions HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        let sessions: Value = serde_json::from_slice(&request(*addr, &ask).1).expect("sessions are JSON");
        sessions[0]["id"].as_str().expect("an id").to_owned()
    }

    /// How long until the report says so.
    fn until(&self, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let stats = self.stats();
            if is(&stats) {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < within,
                "not {what} in time: {stats}; it said {}",
                self.caudal.errors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Times of one track's packets as ffprobe sees them, s.
fn packets(path: &Path, track: &str) -> Vec<f64> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", track, "-show_entries", "packet=dts_time"]);
    let told = run_clean(command.args(["-of", "csv=p=0"]).arg(path));
    let told = String::from_utf8(told).expect("text");
    told.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect()
}

#[test]
fn a_line_that_drops_to_a_fifth_and_comes_back() {
    let Some(line) = Line::new() else {
        println!("not root: no line can be made, and nothing was tested");
        return;
    };
    let home = Folder::new();
    let ladder = [("640x360", 2700), ("480x270", 1100), ("320x180", 350)];
    let files = encode_all(&home, &ladder, 25);
    let tracker = tracker_at(&home, &format!("{HERE}:0"), &["--lan"]);
    let source = publish(&home, &tracker, &files, &["--lan", "--listen", "127.0.0.1:0"]);
    let edge = Caudal::start(&home, &["edge", &link(&source), "--lan", "--listen", &format!("{HERE}:0")]);
    let viewer = Viewer::start(&home, &line, &link(&source), &[]);
    viewer.until("playing", PATIENCE, |stats| number(stats, "/parts") >= 15.0);
    viewer.until("told of all renditions", PATIENCE, |stats| {
        stats["renditions"].as_array().is_some_and(|all| all.len() == 3)
    });
    let tape = Tape::start(viewer.addr, &format!("{}/live.mp4", viewer.prefix));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(number(&viewer.stats(), "/rendition"), 0.0, "a line that suffices: the best");

    line.carries(BAD);
    let down = viewer.until("down", BEHIND, |stats| number(stats, "/rendition") == 2.0);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(number(&viewer.stats(), "/rendition"), 2.0);
    line.carries(GOOD);
    let up = viewer.until("up", Duration::from_secs(20), |stats| number(stats, "/rendition") == 0.0);
    // By hand, and against what would be chosen.
    viewer.choose("270p");
    let by_hand = viewer.until("as chosen", PATIENCE, |stats| number(stats, "/rendition") == 1.0);
    std::thread::sleep(Duration::from_secs(1));

    let (bytes, parts) = tape.end();
    let (report, status) = viewer.caudal.end();
    let latest = parts.iter().map(|(captured, arrived)| arrived.saturating_sub(*captured)).max();
    let latest = Duration::from_micros(latest.expect("parts"));
    println!(
        "down after {down:?}, up after {up:?}, by hand after {by_hand:?}; the latest part came {latest:?} after its capture"
    );
    assert!(latest <= BEHIND, "a player two seconds behind would have stood still");
    assert!(status.success() && report["ok"] == true, "{report}");
    assert_eq!(number(&report, "/gaps"), 0.0);
    assert!((4.0..=6.0).contains(&number(&report, "/rendition_changes")), "{report}");

    let (sound, picture) = is_one_stream(&home, &bytes);
    assert!(sound > 500 && picture > 300, "{sound} and {picture}");
    over_http(&home, &line, &edge);
}

/// Who has everything from an edge goes down as well, and loses nothing.
fn over_http(home: &Folder, line: &Line, edge: &Caudal) {
    line.carries(GOOD);
    let viewer = Viewer::start(home, line, edge.told("link"), &["--no-p2p"]);
    viewer.until("playing", PATIENCE, |stats| number(stats, "/parts") >= 5.0);
    let tape = Tape::start(viewer.addr, &format!("{}/live.mp4", viewer.prefix));
    // What a newcomer is behind says nothing of its line.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(number(&viewer.stats(), "/rendition"), 0.0, "a line that suffices: the best");
    line.carries(BAD);
    let down = viewer.until("down", BEHIND, |stats| number(stats, "/rendition") == 2.0);
    let parts = number(&viewer.stats(), "/parts");
    viewer.until("playing on", BEHIND, |stats| number(stats, "/parts") >= parts + 3.0);
    let (bytes, _) = tape.end();
    let (report, status) = viewer.caudal.end();
    println!("over HTTP: down after {down:?}");
    assert!(status.success() && report["ok"] == true, "{report}");
    assert_eq!((number(&report, "/gaps"), number(&report, "/rendition_changes")), (0.0, 1.0), "{report}");
    assert_eq!(report["useful_bytes"], report["useful_bytes_from_edge"], "{report}");
    is_one_stream(home, &bytes);
}

/// No gap in sound, none in the picture, and a decoder takes it; gives how many packets there are of each.
fn is_one_stream(home: &Folder, bytes: &[u8]) -> (usize, usize) {
    let tape = home.join("tape.mp4");
    std::fs::write(&tape, bytes).expect("a file");
    let sound = packets(&tape, "a");
    for pair in sound.windows(2) {
        let step = pair[1] - pair[0];
        assert!((0.015..0.030).contains(&step), "sound of {step} s at {} s", pair[0]);
    }
    let picture = packets(&tape, "v");
    for pair in picture.windows(2) {
        let step = pair[1] - pair[0];
        // A frame where the files begin again is shown a little longer.
        assert!(step > 0.0 && step < 0.120, "a picture of {step} s at {} s", pair[0]);
    }
    let mut decode = Command::new("ffmpeg");
    // What is decoded in an instant, since another rendition's segment was entered in its middle, is not shown.
    run_clean(decode.args(["-v", "error", "-i"]).arg(&tape).args(["-fps_mode", "vfr", "-f", "null", "-"]));
    (sound.len(), picture.len())
}

/// Pictures between key frames: what is chosen by hand is entered in the middle of such a segment.
const KEY_EVERY: u32 = 50;

#[test]
fn the_pages_menu_changes_the_picture_in_mid_stream() {
    let home = Folder::new();
    let files = encode_all(&home, &[("640x360", 800), ("480x270", 500), ("320x180", 250)], KEY_EVERY);
    let tracker = tracker(&home);
    let source = publish(&home, &tracker, &files, &[]);
    let viewer = Caudal::start(&home, &["watch", &link(&source), "--rendition", "360p"]);
    viewer.wait_until("told of all renditions", PATIENCE, |stats| {
        stats["renditions"].as_array().is_some_and(|all| all.len() == 3)
    });
    browse(&home, "renditions", &["--page", viewer.told("page")], Duration::from_secs(120));
    let (report, status) = viewer.end();
    assert!(status.success() && report["ok"] == true && number(&report, "/gaps") == 0.0, "{report}");
    assert!(number(&report, "/rendition_changes") >= 2.0 && report["rendition_wanted"] == "auto", "{report}");
}
