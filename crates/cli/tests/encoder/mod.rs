//! Encoders: ffmpeg, and one that sends FLV tags over RTMP with whatever timestamps the test wants.
#![allow(dead_code, unreachable_pub, reason = "shared by the tests of two files")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One FLV tag (Adobe FLV 10.1, annex E.4.1).
#[derive(Debug, Clone)]
pub struct Tag {
    /// 8 audio, 9 video, 18 script.
    pub kind: u8,
    pub timestamp_ms: u32,
    pub body: Vec<u8>,
}

/// Makes an FLV file of `seconds` with a key frame each second.
pub fn make_flv(path: &Path, seconds: u32, size: &str) {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", &format!("testsrc=s={size}:r=25")])
        .args(["-f", "lavfi", "-i", "sine=r=44100", "-t", &seconds.to_string()])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25"])
        .args(["-pix_fmt", "yuv420p", "-b:v", "200k", "-c:a", "aac", "-f", "flv"])
        .arg(path)
        .status();
    assert!(made.expect("ffmpeg is installed").success());
}

pub fn read_flv(path: &Path) -> Vec<Tag> {
    let bytes = std::fs::read(path).expect("made before");
    let (mut at, mut tags) = (13, Vec::new());
    while at + 15 <= bytes.len() {
        let be24 = |at: usize| u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]);
        let len = be24(at + 1) as usize;
        let timestamp_ms = be24(at + 4) | (u32::from(bytes[at + 7]) << 24);
        tags.push(Tag { kind: bytes[at], timestamp_ms, body: bytes[at + 11..at + 11 + len].to_vec() });
        at += 11 + len + 4;
    }
    tags
}

/// An RTMP publisher.
pub struct Rtmp(TcpStream);

impl Rtmp {
    pub fn publish(url: &str, key: &str) -> Self {
        let (host, app) =
            url.strip_prefix("rtmp://").and_then(|rest| rest.split_once('/')).expect("rtmp://HOST/APP");
        let addr: SocketAddr = host.parse().expect("IP:PORT");
        let mut stream = TcpStream::connect(addr).expect("the source listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut hello = vec![0; 1537];
        hello[0] = 3;
        stream.write_all(&hello).expect("C0 and C1");
        let mut answer = vec![0; 1 + 1536 * 2];
        stream.read_exact(&mut answer).expect("S0, S1 and S2");
        stream.write_all(&answer[1..1537]).expect("C2");
        // What else the server says is read and not looked at.
        let mut reader = stream.try_clone().expect("a second handle");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while reader.read(&mut buffer).is_ok_and(|len| len > 0) {}
        });
        let mut rtmp = Self(stream);
        assert!(rtmp.message(2, 1, 0, 0, &65_536u32.to_be_bytes()));
        let mut connect = [string("connect"), float(1.0), vec![3]].concat();
        connect.extend([property("app", app), property("tcUrl", url), vec![0, 0, 9]].concat());
        assert!(rtmp.message(3, 20, 0, 0, &connect));
        assert!(rtmp.message(3, 20, 0, 0, &[string("createStream"), float(2.0), vec![5]].concat()));
        std::thread::sleep(Duration::from_millis(200));
        let publish = [string("publish"), float(3.0), vec![5], string(key), string("live")].concat();
        assert!(rtmp.message(3, 20, 1, 0, &publish));
        std::thread::sleep(Duration::from_millis(100));
        rtmp
    }

    /// Sends tags in real time, each with the timestamp that `stamp` gives it; false when the server hung up.
    pub fn play(&mut self, tags: &[Tag], stamp: impl Fn(usize, &Tag) -> u32) -> bool {
        let began = Instant::now();
        tags.iter().enumerate().all(|(i, tag)| {
            let due = began + Duration::from_millis(u64::from(tag.timestamp_ms));
            // No test file has a pause; one that seems to is not worth waiting for.
            std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(200)));
            let stream = if tag.kind == 9 { 6 } else { 4 };
            self.message(stream, tag.kind, 1, stamp(i, tag), &tag.body)
        })
    }

    /// One message in one chunk (RTMP 1.0, section 5.3): the chunk size was set above any message's.
    fn message(&mut self, chunk_stream: u8, kind: u8, stream: u32, timestamp: u32, body: &[u8]) -> bool {
        let extended = timestamp >= 0x00ff_ffff;
        let short = if extended { 0x00ff_ffff } else { timestamp };
        let mut out = vec![chunk_stream];
        out.extend_from_slice(&short.to_be_bytes()[1..]);
        out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        out.push(kind);
        out.extend_from_slice(&stream.to_le_bytes());
        if extended {
            out.extend_from_slice(&timestamp.to_be_bytes());
        }
        out.extend_from_slice(body);
        self.0.write_all(&out).is_ok()
    }
}

fn string(text: &str) -> Vec<u8> {
    [&[2][..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn property(name: &str, value: &str) -> Vec<u8> {
    [&(name.len() as u16).to_be_bytes()[..], name.as_bytes(), &string(value)].concat()
}

fn float(value: f64) -> Vec<u8> {
    [&[0][..], &value.to_be_bytes()].concat()
}

/// ffmpeg, publishing a file in real time; killed when dropped.
pub struct Ffmpeg(pub Child);

impl Ffmpeg {
    pub fn publish(file: &Path, url: &str, key: &str) -> Self {
        let child = Command::new("ffmpeg")
            .args(["-v", "error", "-re", "-stream_loop", "-1", "-i"])
            .arg(file)
            .args(["-c", "copy", "-f", "flv", &format!("{url}/{key}")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("ffmpeg is installed"))
    }

    /// Its exit code, when it ends by itself in time.
    pub fn ended(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.0.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Rtmp {
    fn drop(&mut self) {
        // The reader holds the connection, too.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
