//! `cargo xtask bench alto`: the ALTO server with a large map: endpoint costs per second of a core, how long the map takes to
//! be read, and how soon an edit reaches a subscriber.
//!
//! One server process, asked over loopback by threads of this one, each on a connection that stays open, one request at a time.
//! What is held against the target is pairs ÷ processor time of the server (`/proc/PID/stat`), HTTP and JSON included. All
//! addresses are random, so that no two look-ups go the same way.

use super::process::cost_of;
use super::report::{self, Target, Unit};
use super::trial;
use crate::{sh, system};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Arguments of `cargo xtask bench alto`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Prefixes of the map, a fifth of them IPv6.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    prefixes: u32,
    /// How long each kind of request is sent, s.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Edits of the map whose way to a subscriber is timed.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    edits: u32,
    #[command(flatten)]
    program: trial::Program,
}

/// PIDs of the map.
const PIDS: u32 = 200;
/// Connections that ask at once.
const CONNECTIONS: u64 = 2;
/// Different requests of each kind on each connection.
const REQUESTS: usize = 64;
/// What the server must do on a core.
const PAIRS_PER_CORE_SECOND: f64 = 50_000.0;
/// How soon an edit must arrive.
const EDIT_MS: f64 = 2_000.0;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sources and destinations of a request, and what must be reached.
const SHAPES: [(usize, usize, Target); 3] = [
    (1, 100, Target::AtLeast(PAIRS_PER_CORE_SECOND)),
    (100, 100, Target::AtLeast(PAIRS_PER_CORE_SECOND)),
    (1, 1, Target::None),
];

/// One line of the table.
struct Figure {
    label: String,
    value: f64,
    unit: Unit,
    target: Target,
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    let caudal = args.program.get(&system::TO_BENCH[..1])?;
    let folder = Folder::new()?;
    let map = folder.0.join("alto.toml");
    std::fs::write(&map, text(args.prefixes, 20)).context("cannot write the map")?;
    sh::say(&format!("a map of {} prefixes in {PIDS} PIDs", args.prefixes));
    let server = Server::start(&caudal, &map)?;
    let mut figures = vec![Figure {
        label: "from start to ready".to_owned(),
        value: server.ready_ms,
        unit: Unit::Ms,
        target: Target::None,
    }];
    for (srcs, dsts, target) in SHAPES {
        sh::say(&format!("requests of {srcs} × {dsts} endpoints for {} s", args.seconds));
        let (pairs, elapsed_s, cpu_s) = server.measure(srcs, dsts, Duration::from_secs(args.seconds))?;
        let name = format!("{srcs} × {dsts}");
        figures.push(Figure {
            label: format!("{name}: pairs per second of a core"),
            value: pairs / cpu_s,
            unit: Unit::Count,
            target,
        });
        let (value, unit) = (pairs / elapsed_s, Unit::Count);
        figures.push(Figure {
            label: format!("{name}: pairs per second"),
            value,
            unit,
            target: Target::None,
        });
    }
    figures.extend(edits(&server, &map, args)?);
    let memory = server.memory_mib()?;
    figures.push(Figure {
        label: "memory of the server at most, MiB".to_owned(),
        value: memory,
        unit: Unit::Count,
        target: Target::None,
    });
    let ok = figures.iter().all(|figure| figure.target.met(figure.value));
    println!("\n{}", table(&figures));
    let commit = crate::workspace::commit();
    args.program.write_json(&json!({
        "schema": 1, "command": trial::command_line(), "commit": commit, "machine": report::machine(),
        "prefixes": args.prefixes, "pids": PIDS, "ok": ok,
        "figures": figures.iter().map(|f| json!({ "name": f.label, "value": f.value, "ok": f.target.met(f.value) })).collect::<Vec<_>>(),
    }))?;
    if args.program.write_docs {
        let section = format!(
            "{}, commit {commit}, {}. {} prefixes in {PIDS} PIDs, {CONNECTIONS} connections.\nCommand: `{}`\n\n{}",
            report::today()?,
            report::machine(),
            args.prefixes,
            trial::command_line(),
            table(&figures)
        );
        report::write_section("alto", &section)?;
    }
    Ok(ok)
}

fn table(figures: &[Figure]) -> String {
    let mut lines = vec![["figure", "value", "target", ""].map(str::to_owned)];
    for figure in figures {
        let target = figure.target.shown(figure.unit).unwrap_or_default();
        let verdict = match (target.is_empty(), figure.target.met(figure.value)) {
            (true, _) => "",
            (false, true) => "ok",
            (false, false) => "FAIL",
        };
        lines.push([figure.label.clone(), figure.unit.shown(figure.value), target, verdict.to_owned()]);
    }
    report::aligned(&lines)
}

/// The map's file; `cost` is the one between different PIDs.
fn text(prefixes: u32, cost: u32) -> String {
    let mut text =
        format!("[costs]\nsame = 1\ntransit = {cost}\n[pids]\ndefault = [\"0.0.0.0/0\", \"::/0\"]\n");
    for pid in 0..PIDS {
        // Writing to a string cannot fail.
        let _written = write!(text, "p{pid} = [");
        for number in (pid..prefixes).step_by(PIDS as usize) {
            let _written = if number % 5 == 0 {
                let net = (0x2001_0db8_u128 << 96) | (u128::from(number) << 72);
                write!(text, "\"{}/56\", ", Ipv6Addr::from_bits(net))
            } else {
                write!(text, "\"{}/20\", ", Ipv4Addr::from_bits(number << 12))
            };
        }
        text.push_str("]\n");
    }
    text
}

/// How long edits take to reach a subscriber: the median and the longest.
fn edits(server: &Server, map: &Path, args: &Args) -> Result<[Figure; 2]> {
    sh::say(&format!("{} edits, and a subscriber", args.edits));
    let mut stream = connect(server.address)?;
    let body = json!({ "add": { "costs": { "resource-id": "network-num-routingcost" } } }).to_string();
    stream.write_all(&request("/updates", "updatestreamparams", &body))?;
    let mut reader = BufReader::new(stream);
    next_event(&mut reader)?;
    let mut took_ms = Vec::new();
    for edit in 0..args.edits {
        let new = map.with_extension("new");
        std::fs::write(&new, text(args.prefixes, 30 + edit)).context("cannot write the map")?;
        let begun = Instant::now();
        std::fs::rename(&new, map).context("cannot replace the map")?;
        next_event(&mut reader)?;
        took_ms.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    took_ms.sort_by(f64::total_cmp);
    let figure =
        |label: &str, value, target| Figure { label: label.to_owned(), value, unit: Unit::Ms, target };
    let (median, longest) = (took_ms[took_ms.len() / 2], took_ms.last().copied().unwrap_or_default());
    Ok([
        figure("edit to subscriber, median", median, Target::None),
        figure("edit to subscriber, longest", longest, Target::Below(EDIT_MS)),
    ])
}

/// Reads up to and including the next event's name and data.
fn next_event(reader: &mut BufReader<TcpStream>) -> Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the update stream ended");
        if line.starts_with("HTTP/1.1") {
            ensure!(line.contains(" 200 "), "the subscription was refused: {line}");
        }
        if line.starts_with("data: ") {
            return Ok(());
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).context("cannot connect to the server")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn request(path: &str, media_type: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: alto\r\nContent-Type: application/alto-{media_type}+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    /// A multiplicative generator: nothing depends on how good it is.
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn endpoint(&mut self, prefixes: u32) -> String {
        let number = self.next() % prefixes;
        if number.is_multiple_of(5) {
            let net = (0x2001_0db8_u128 << 96) | (u128::from(number) << 72) | u128::from(self.next());
            format!("ipv6:{}", Ipv6Addr::from_bits(net))
        } else {
            format!("ipv4:{}", Ipv4Addr::from_bits((number << 12) | (self.next() & 0xfff)))
        }
    }
}

struct Server {
    child: Child,
    address: SocketAddr,
    ready_ms: f64,
    prefixes: u32,
}

impl Server {
    fn start(caudal: &Path, map: &Path) -> Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(caudal);
        command.args(["alto", "serve", "--listen", "127.0.0.1:0", "--json", "--config"]).arg(map);
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut server =
            Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), ready_ms: 0.0, prefixes: 0 };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        server.ready_ms = begun.elapsed().as_secs_f64() * 1000.0;
        let ready: Value = serde_json::from_str(&line).context("the server did not become ready")?;
        let url = ready["http"].as_str().and_then(|url| url.strip_prefix("http://"));
        server.address = url.context("the server told no address")?.parse()?;
        let summary = ready["maps"][0].as_str().unwrap_or_default();
        let count = summary.split(", ").find_map(|part| part.strip_suffix(" prefixes"));
        server.prefixes =
            count.and_then(|count| count.parse().ok()).context("the server told no prefixes")?;
        Ok(server)
    }

    /// Pairs, seconds, and processor seconds of the server.
    fn measure(&self, srcs: usize, dsts: usize, duration: Duration) -> Result<(f64, f64, f64)> {
        let before = cost_of(self.child.id())?.cpu_seconds;
        let begun = Instant::now();
        let ask = |seed| self.ask(srcs, dsts, seed, begun + duration);
        let answers: Result<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS).map(|seed| scope.spawn(move || ask(seed))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread that asks does not panic")).sum()
        });
        let elapsed_s = begun.elapsed().as_secs_f64();
        let cpu_s = cost_of(self.child.id())?.cpu_seconds - before;
        Ok((answers? as f64 * (srcs * dsts) as f64, elapsed_s, cpu_s))
    }

    /// Answers to requests of one kind.
    fn ask(&self, srcs: usize, dsts: usize, seed: u64, until: Instant) -> Result<u64> {
        let mut numbers = Numbers(seed + 1);
        let prefixes = self.prefixes.saturating_sub(2).max(1);
        let mut list = |count: usize| (0..count).map(|_| numbers.endpoint(prefixes)).collect::<Vec<_>>();
        let requests: Vec<Vec<u8>> = (0..REQUESTS)
            .map(|_| {
                let body = json!({
                    "cost-type": { "cost-mode": "numerical", "cost-metric": "routingcost" },
                    "endpoints": { "srcs": list(srcs), "dsts": list(dsts) },
                });
                request("/endpointcost", "endpointcostparams", &body.to_string())
            })
            .collect();
        let mut reader = BufReader::with_capacity(1 << 20, connect(self.address)?);
        let mut answers = 0;
        let mut body = Vec::new();
        for request in requests.iter().cycle() {
            if Instant::now() >= until {
                break;
            }
            reader.get_mut().write_all(request)?;
            read_answer(&mut reader, &mut body)?;
            if answers == 0 {
                check(&body, srcs, dsts)?;
            }
            answers += 1;
        }
        Ok(answers)
    }

    /// The most memory that the server had.
    fn memory_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let peak: f64 = peak.and_then(|peak| peak.trim().parse().ok()).context("no VmHWM of the server")?;
        Ok(peak / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// One answer of a connection that stays open.
fn read_answer(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<()> {
    let mut length = None;
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "the server closed the connection");
        if line.starts_with("HTTP/") && !line.contains(" 200 ") {
            bail!("the server answered {}", line.trim());
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = Some(value.trim().parse::<usize>()?);
        }
        if line == "\r\n" {
            break;
        }
    }
    body.resize(length.context("an answer without its length")?, 0);
    Ok(reader.read_exact(body)?)
}

/// An answer has a cost for every pair (repeated addresses count once).
fn check(body: &[u8], srcs: usize, dsts: usize) -> Result<()> {
    let answer: Value = serde_json::from_slice(body).context("an answer is no JSON")?;
    let costs = answer["endpoint-cost-map"].as_object().context("an answer has no costs")?;
    let pairs: usize = costs.values().filter_map(|row| Some(row.as_object()?.len())).sum();
    ensure!(pairs * 100 >= srcs * dsts * 98, "an answer has {pairs} costs of {}", srcs * dsts);
    Ok(())
}

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("caudal-bench-alto-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_as_many_prefixes_as_asked_for_each_once() {
        let text = text(5_000, 20);
        let mut prefixes: Vec<&str> = text.split('"').filter(|part| part.contains('/')).collect();
        assert_eq!(prefixes.len(), 5_002);
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(prefixes.len(), 5_002);
    }

    #[test]
    fn what_misses_its_target_says_so() {
        let figure = |target| Figure { label: "a".to_owned(), value: 1.0, unit: Unit::Count, target };
        let text = table(&[figure(Target::None), figure(Target::AtLeast(2.0)), figure(Target::AtLeast(1.0))]);
        assert_eq!((text.matches("FAIL").count(), text.matches("ok").count()), (1, 1), "{text}");
    }
}
