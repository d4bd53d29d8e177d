//! `caudal` processes under measurement: starting them in a namespace, their two JSON lines, their stats over HTTP, what
//! they cost by `/proc`, and ending them. Every process ends with its handle, whatever happens.

use super::netns;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a process may take until it says that it is ready, and until its report after it is told to end.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer of `/api/v1/stats` that is read.
const STATS_BYTES_MAX: u64 = 16 << 20;
/// The kernel shows processor time in hundredths of a second on every architecture that Debian runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// One running `caudal`, with its JSON lines.
pub(super) struct Process {
    name: String,
    namespace: Option<String>,
    child: Child,
    lines: Receiver<Value>,
    log: PathBuf,
    /// What it said when it was ready.
    pub(super) ready: Value,
}

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Processor time, user and system, of all threads that ever were.
    pub(super) cpu_seconds: f64,
    /// Voluntary and involuntary context switches of the threads that exist.
    pub(super) switches: u64,
}

impl Process {
    /// Starts `caudal` with `args` (and `--json`) and waits until it says that it is ready. Its state and its log go
    /// below `dir`; `interrupted` ends the wait.
    pub(super) fn start(
        name: &str,
        namespace: Option<&str>,
        caudal: &Path,
        args: &[String],
        dir: &Path,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let home = dir.join(name);
        std::fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let log = dir.join(format!("{name}.log"));
        let mut command = match namespace {
            Some(namespace) => netns::in_namespace(namespace, &caudal.display().to_string())?,
            None => Command::new(caudal),
        };
        command.args(args).arg("--json").env("HOME", &home);
        for (variable, folder) in [
            ("CONFIG_HOME", "config"),
            ("STATE_HOME", "state"),
            ("DATA_HOME", "data"),
            ("CACHE_HOME", "cache"),
            ("RUNTIME_DIR", "run"),
        ] {
            command.env(format!("XDG_{variable}"), home.join(folder));
        }
        // A process group of its own: Ctrl-C reaches only us, and we end the processes in order.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&log).with_context(|| format!("cannot create {}", log.display()))?);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", caudal.display()))?;
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line) {
                    let _ = sender.send(value);
                }
            }
        });
        let namespace = namespace.map(str::to_owned);
        let mut process = Self { name: name.to_owned(), namespace, child, lines, log, ready: Value::Null };
        process.ready = process.wait_for(READY_TIMEOUT, interrupted, |line| line["ready"] == true)?;
        Ok(process)
    }

    fn wait_for(
        &self,
        patience: Duration,
        interrupted: &dyn Fn() -> bool,
        wanted: fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{}", self.complaint("ended before it said what was expected"))
                }
                Err(RecvTimeoutError::Timeout) if interrupted() => bail!("interrupted"),
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    bail!("{}", self.complaint(&format!("said nothing for {} s", patience.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// A complaint with the end of the process's log, which says more than we can.
    fn complaint(&self, what: &str) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n    ");
        format!("{} {what}; its log ends with:\n    {tail}", self.name)
    }

    /// `GET /api/v1/stats` at the address of the ready line, from inside the process's namespace.
    pub(super) fn stats(&self) -> Result<Value> {
        let url =
            self.ready["http"].as_str().with_context(|| format!("{} named no http address", self.name))?;
        let (address, path) = stats_address(url)?;
        let ask = move || get(address, &path);
        let body = match &self.namespace {
            Some(namespace) => netns::inside(namespace, ask),
            None => ask(),
        };
        let body = body.with_context(|| self.complaint("did not answer with its stats"))?;
        serde_json::from_str(&body).with_context(|| format!("the stats of {} are no JSON", self.name))
    }

    /// What the process has used so far.
    pub(super) fn cost(&self) -> Result<Cost> {
        cost_of(self.child.id()).with_context(|| self.complaint("is gone"))
    }

    /// Tells the process to end.
    pub(super) fn tell_to_end(&self) {
        self.signal(Signal::INT);
    }

    /// Ends the process as a crash or a power cut would.
    pub(super) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The report of a process that was told to end; it has ended when this returns.
    pub(super) fn report(mut self) -> Result<Value> {
        let report = self.wait_for(REPORT_TIMEOUT, &|| false, |line| line.get("schema").is_some())?;
        self.end();
        Ok(report)
    }

    fn signal(&self, signal: Signal) {
        // Our own child, not yet waited for: its number cannot have been given to another process.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The socket address and the path of the stats below a node's http address, keeping its query.
fn stats_address(url: &str) -> Result<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| anyhow!("{url:?} is no http address"))?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let host = rest.split('/').next().unwrap_or(rest);
    let address = host.parse().with_context(|| format!("{host:?} is no address and port"))?;
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    Ok((address, format!("/api/v1/stats{query}")))
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    // HTTP/1.0: the answer is neither chunked nor followed by another.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(STATS_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("GET {path}: {status}");
    }
    Ok(body.to_owned())
}

pub(super) fn cost_of(pid: u32) -> Result<Cost> {
    let proc = Path::new("/proc").join(pid.to_string());
    let cpu_seconds = cpu_seconds(&std::fs::read_to_string(proc.join("stat"))?)?;
    let mut switches = 0;
    for thread in std::fs::read_dir(proc.join("task"))? {
        // A thread may end while the list is read.
        switches +=
            std::fs::read_to_string(thread?.path().join("status")).map_or(0, |status| switches_in(&status));
    }
    Ok(Cost { cpu_seconds, switches })
}

/// Processor time of the thread that asks.
pub(super) fn cpu_of_this_thread() -> Result<f64> {
    cpu_seconds(&std::fs::read_to_string("/proc/thread-self/stat").context("cannot read /proc")?)
}

/// Processor time of a process and of all that it started and that still are.
pub(super) fn cpu_of_tree(pid: u32) -> Result<f64> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.with_context(|| format!("process {pid} is gone"))?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok()).map(cpu_of_tree);
    Ok(cost_of(pid)?.cpu_seconds + children.sum::<Result<f64>>()?)
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted behind the program's name, which may contain anything.
fn cpu_seconds(stat: &str) -> Result<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS_PER_SECOND),
        _ => bail!("cannot read processor times from {stat:?}"),
    }
}

fn switches_in(status: &str) -> u64 {
    let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
    counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum()
}

/// How many seconds all cores together have worked and have existed: the two numbers of `/proc/stat`.
pub(super) fn machine_seconds() -> Result<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|t| t.parse().ok())
        .collect();
    let [user, nice, system, idle, iowait, rest @ ..] = ticks.as_slice() else {
        bail!("/proc/stat is empty")
    };
    let busy = user + nice + system + rest.iter().sum::<f64>();
    Ok((busy / TICKS_PER_SECOND, (busy + idle + iowait) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that behaves as `caudal` does, in a folder of its own.
    fn fake(body: &str) -> (PathBuf, PathBuf) {
        use std::os::unix::fs::PermissionsExt;
        static DIRS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = DIRS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("caudal-xtask-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let script = dir.join("caudal");
        std::fs::write(&script, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, script)
    }

    #[test]
    fn a_process_says_that_it_is_ready_and_reports_when_told_to_end() {
        let (dir, script) = fake(
            r#"trap 'echo "{\"schema\":1,\"args\":\"$*\",\"ok\":true}"; exit 0' INT
               echo 'not JSON'; echo '{"ready":true,"http":"http://127.0.0.1:1"}'
               while :; do sleep 0.05; done"#,
        );
        let process = Process::start("viewer", None, &script, &["watch".into()], &dir, &|| false).unwrap();
        assert_eq!(process.ready["http"], "http://127.0.0.1:1");
        assert!(process.stats().is_err(), "nobody listens there");
        let before = process.cost().unwrap();
        assert!(before.switches > 0);
        process.tell_to_end();
        let report = process.report().unwrap();
        assert_eq!(report["args"], "watch --json");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_process_that_ends_early_is_quoted() {
        let (dir, script) = fake("echo 'port 4433 is in use' >&2; exit 3");
        let Err(error) = Process::start("viewer", None, &script, &[], &dir, &|| false) else {
            panic!("was ready")
        };
        assert!(error.to_string().contains("port 4433 is in use"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_interrupt_ends_the_wait_and_the_process() {
        let (dir, script) = fake("echo $$ > \"$HOME/pid\"; while :; do sleep 0.05; done");
        assert!(
            Process::start("viewer", None, &script, &[], &dir, &|| dir.join("viewer/pid").exists()).is_err()
        );
        let pid = std::fs::read_to_string(dir.join("viewer/pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid} still runs");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn stats_lie_below_the_address_of_the_ready_line() {
        let address = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(stats_address("http://127.0.0.1:8080").unwrap(), (address, "/api/v1/stats".into()));
        assert_eq!(
            stats_address("http://127.0.0.1:8080/?t=x").unwrap(),
            (address, "/api/v1/stats?t=x".into())
        );
        assert!(stats_address("https://127.0.0.1:8080").is_err());
        assert!(stats_address("http://localhost").is_err());
    }

    #[test]
    fn proc_is_read_right_whatever_the_program_is_called() {
        let stat = "7 (a) b ) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 100 1000 10";
        assert_eq!(cpu_seconds(stat).unwrap(), 3.0);
        assert!(cpu_seconds("7 (a").is_err());
        assert_eq!(
            switches_in("Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"),
            42
        );
        assert!(cost_of(std::process::id()).unwrap().switches > 0);
        let (busy, all) = machine_seconds().unwrap();
        assert!(busy > 0.0 && busy < all);
    }
}
