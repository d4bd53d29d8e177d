//! Real processes on loopback for the end-to-end tests: started, asked, ended; nothing outlives a test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod capture;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that is not the test's own subject: these machines are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder that goes with the test, also the home of its processes.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("caudal-e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running `caudal`.
pub struct Caudal {
    pub name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
    /// Its ready line.
    pub ready: Value,
}

impl Caudal {
    /// Starts `caudal ARGS --json` and waits for its ready line.
    pub fn start(home: &Folder, args: &[&str]) -> Self {
        Self::spawn(home, args).await_ready(args)
    }

    fn await_ready(mut self, args: &[&str]) -> Self {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("caudal {args:?} did not get ready: {}", self.errors()));
        self.ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a ready line: {line}"));
        assert_eq!(self.ready["ready"], true);
        self
    }

    /// The same, below a command that runs others, such as one that enters a network namespace.
    pub fn start_within(home: &Folder, runner: &[&str], args: &[&str]) -> Self {
        let mut command = Command::new(runner[0]);
        command.args(&runner[1..]).arg(env!("CARGO_BIN_EXE_caudal"));
        Self::spawn_as(command, home, args).await_ready(args)
    }

    /// Starts it without waiting for anything.
    pub fn spawn(home: &Folder, args: &[&str]) -> Self {
        Self::spawn_as(Command::new(env!("CARGO_BIN_EXE_caudal")), home, args)
    }

    fn spawn_as(mut command: Command, home: &Folder, args: &[&str]) -> Self {
        let mut child = command
            .args(args)
            .arg("--json")
            .env("HOME", home.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("caudal starts");
        let lines = read_lines(child.stdout.take().expect("piped"));
        let errors = read_lines(child.stderr.take().expect("piped"));
        Self { name: args.join(" "), child, lines, errors, ready: Value::Null }
    }

    /// The next line that it prints.
    pub fn line(&self, within: Duration) -> Value {
        let line = self.lines.recv_timeout(within);
        let line =
            line.unwrap_or_else(|_| panic!("{}: printed nothing; it said: {}", self.name, self.errors()));
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"))
    }

    pub fn told(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_else(|| panic!("{}: no {key} in {}", self.name, self.ready))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr since the last look.
    pub fn errors(&self) -> String {
        self.errors.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// Waits until a line with `text` appears on stderr.
    pub fn wait_for_error(&self, text: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        let mut seen = Vec::new();
        while let Ok(line) = self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("{}: {text:?} was not said; instead: {}", self.name, seen.join("\n"));
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its report, now.
    pub fn stats(&self) -> Value {
        let (status, body) = get(self.told("http"), "/api/v1/stats");
        assert_eq!(status, 200);
        serde_json::from_slice(&body).expect("stats are JSON")
    }

    /// Looks at its report until `is` holds.
    pub fn wait_until(&self, what: &str, within: Duration, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        loop {
            let stats = self.stats();
            if is(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "{}: not {what} in time: {stats}", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; its report and exit status.
    pub fn end(mut self) -> (Value, ExitStatus) {
        signal(self.child.id(), "TERM");
        let status = wait(&mut self.child, PATIENCE);
        let report = self.lines.iter().last().and_then(|line| serde_json::from_str(&line).ok());
        (report.unwrap_or(Value::Null), status)
    }

    /// Waits for it to end by itself; its status, its last line and what it said.
    pub fn ended(mut self) -> (ExitStatus, Option<String>, String) {
        let status = wait(&mut self.child, PATIENCE);
        let errors = self.errors.iter().collect::<Vec<_>>().join("\n");
        (status, self.lines.iter().last(), errors)
    }
}

impl Drop for Caudal {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_lines(pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

pub fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {id}");
}

fn wait(child: &mut Child, within: Duration) -> ExitStatus {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        assert!(Instant::now() < deadline, "process {} did not end in time", child.id());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A tracker on a free port.
pub fn tracker(home: &Folder) -> Caudal {
    tracker_at(home, "127.0.0.1:0", &[])
}

/// A tracker that listens elsewhere, with `more` arguments.
pub fn tracker_at(home: &Folder, listen: &str, more: &[&str]) -> Caudal {
    Caudal::start(home, &[&["tracker", "--listen", listen], more].concat())
}

/// `GET` of a small answer: status and body.
pub fn get(base: &str, path: &str) -> (u16, Vec<u8>) {
    let addr: SocketAddr = base.trim_start_matches("http://").parse().expect("http://IP:PORT");
    request(addr, &format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"))
}

/// What stands on the broadcaster's desk: status and JSON.
pub fn desk(source: &Caudal) -> (u16, Value) {
    let addr = source.told("http").trim_start_matches("http://").parse().expect("http://IP:PORT");
    let token = source.told("page").rsplit('=').next().expect("a token");
    let text = format!(
        "GET /api/v1/desk HTTP/1.1\r\nHost: {addr}\r\nX-Caudal-Token: {token}\r\nConnection: close\r\n\r\n"
    );
    let (status, body) = request(addr, &text);
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Sends `text`, reads to the end: status and body (chunked bodies are joined).
pub fn request(addr: SocketAddr, text: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(addr).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(text.as_bytes()).expect("the request is taken");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..split]).to_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.get(split + 4..).unwrap_or_default();
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_vec() };
    (status, body)
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line) = body.windows(2).position(|w| w == b"\r\n") {
        let len = usize::from_str_radix(String::from_utf8_lossy(&body[..line]).trim(), 16).unwrap_or(0);
        let Some(chunk) = body.get(line + 2..line + 2 + len).filter(|chunk| !chunk.is_empty()) else { break };
        out.extend_from_slice(chunk);
        body = body.get(line + 2 + len + 2..).unwrap_or_default();
    }
    out
}

/// A number in a report, by JSON pointer.
pub fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {path} in {value}"))
}

/// The link with which `source` may be watched.
pub fn link(source: &Caudal) -> String {
    source.told("link").to_owned()
}

/// A test card of 640x360 at 1 Mbit/s, published with `more` arguments.
pub fn publish_card(home: &Folder, tracker: &Caudal, more: &[&str]) -> Caudal {
    let card =
        ["publish", "--name", "Card", "--input", "test", "--card-rate", "1M", "--card-size", "640x360"];
    let args = [&card[..], &["--tracker", tracker.told("http")], more].concat();
    let source = Caudal::start(home, &args);
    source.wait_until("live", PATIENCE, |stats| stats["state"] == "live");
    source
}

/// Waits until a viewer has had a few parts.
pub fn wait_until_playing(viewer: &Caudal) {
    viewer.wait_until("playing", PATIENCE, |stats| number(stats, "/parts") >= 5.0);
}

/// Starts `ffmpeg` or another program that the system must have.
pub fn start_tool(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{command:?} is needed: {error}"))
}

/// Runs a program to its end: it must succeed and print no error. Gives what it printed.
pub fn run_clean(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} is needed: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {}: {errors}", output.status);
    output.stdout
}

/// Ends a helper with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `web/test/NAME.mjs`, which looks at the page in a real Chromium: it must be content.
pub fn browse(home: &Folder, name: &str, args: &[&str], within: Duration) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../web/test/{name}.mjs"));
    let mut command = Command::new("node");
    command.arg(script).args(args).env("HOME", home.path()).stdin(Stdio::null());
    if let Ok(folder) = std::env::var("CAUDAL_PAGE_SHOTS") {
        command.args(["--shots", &folder]);
    }
    let mut run = Ended(command.spawn().expect("Node.js is needed: `cargo xtask test` installs it"));
    let status = wait_for(&mut run.0, within);
    assert!(status.success(), "the page broke a promise: the lines that begin with FAIL say which");
}

/// Waits for a process of the test's own.
pub fn wait_for(child: &mut Child, within: Duration) -> ExitStatus {
    wait(child, within)
}
