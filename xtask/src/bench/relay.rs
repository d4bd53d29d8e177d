//! `cargo xtask bench relay`: a tracker, a source with the test card, and viewers, each in a namespace of its own.
//!
//! Viewers join over a few seconds; after a warm-up, everything is read, and read again at the end of a window: bytes on
//! the wire at the bridge, the nodes' own stats, processor time and context switches of each process. Then everything
//! is told to end and says its last. Nothing is left behind on Ctrl-C or failure, and each process would also end alone.

use super::figures::{Shape, Snapshot, Stats, Window};
use super::netns::{self, Uplink, World};
use super::process::{self, Process};
use super::report::{self, Setup, Shaped};
use super::{figures::Run, units};
use crate::{sh, system, workspace};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between one viewer's start and the next.
const JOIN_INTERVAL: Duration = Duration::from_millis(250);
/// The port of every peer, and of the tracker: each has a namespace to itself.
const PEER_PORT: u16 = 4433;
const HTTP_PORT: u16 = 8080;
const TRACKER_PORT: u16 = 7700;

/// Arguments of `cargo xtask bench relay`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many viewers.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..netns::PEERS_MAX as i64))]
    viewers: u16,
    /// The stream's bit rate.
    #[arg(long, default_value = "1M", value_parser = units::rate)]
    rate: u64,
    /// How long each run is measured.
    #[arg(long, default_value = "60s", value_parser = units::duration)]
    duration: Duration,
    /// How long the swarm may settle before.
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    warm_up: Duration,
    /// How many runs for each shape; medians are reported beside the worst.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,
    /// Uplinks as fast as the machine, narrowed, or one after the other.
    #[arg(long, value_enum, default_value_t = Which::Both)]
    shape: Which,
    /// Copies of the stream that the source may send.
    #[arg(long, default_value_t = 2)]
    source_copies: usize,
    /// Viewers' uplinks when narrowed.
    #[arg(long, default_value = "1.5M", value_parser = units::rate)]
    viewer_uplink: u64,
    /// The source's uplink when narrowed.
    #[arg(long, default_value = "6M", value_parser = units::rate)]
    source_uplink: u64,
    /// Tell the nodes their narrowed uplink (`--upload-limit`) instead of letting them find out.
    #[arg(long)]
    tell_limits: bool,
    /// Write the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table into docs/benchmarks.md (three runs or more).
    #[arg(long)]
    write_docs: bool,
    /// Measure this binary instead of building one.
    #[arg(long, value_name = "FILE")]
    caudal: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Open,
    Narrow,
    Both,
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    if args.write_docs && args.runs < 3 {
        bail!("--write-docs needs --runs 3 or more: one run says little");
    }
    let needs = if args.caudal.is_some() { &system::TO_BENCH[1..] } else { system::TO_BENCH };
    system::ensure(needs)?;
    let caudal = match &args.caudal {
        Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?,
        None => workspace::build("dist")?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot watch for Ctrl-C")?;
    }
    let narrow = Shape::Narrow { source_bps: args.source_uplink, viewer_bps: args.viewer_uplink };
    let shapes: &[Shape] = match args.shape {
        Which::Open => &[Shape::Open],
        Which::Narrow => &[narrow],
        Which::Both => &[Shape::Open, narrow],
    };
    let mut results = Vec::new();
    for shape in shapes {
        let mut runs = Vec::new();
        for number in 1..=args.runs {
            sh::say(&format!("uplinks {}, run {number} of {}", shape.name(), args.runs));
            let dir = workspace::target_dir()?.join(format!("bench/relay-{}-{number}", shape.name()));
            let run = Bench { args, shape: *shape, caudal: &caudal, dir: &dir, stop: &stop }.run()?;
            if args.write_docs {
                report::may_write_docs(&run.commit)?;
            }
            runs.push(run);
        }
        let shaped = Shaped { shape: *shape, runs };
        println!("\n{}\n\n{}", report::title(*shape), report::table(&shaped));
        results.push(shaped);
    }
    println!("{}", report::FOOTNOTE);
    let setup = Setup {
        viewers: args.viewers.into(),
        rate_bps: args.rate,
        duration_ms: args.duration.as_millis().try_into().unwrap_or(u64::MAX),
        source_copies: args.source_copies,
        command: command_line(),
        commit: results[0].runs[0].commit.clone(),
    };
    let (ok, json) = report::report(&setup, &results);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json).context("cannot write the report as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.write_docs {
        report::write_docs(&setup, &results)?;
    }
    Ok(ok)
}

fn command_line() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", args.join(" "))
}

/// One run.
struct Bench<'a> {
    args: &'a Args,
    shape: Shape,
    caudal: &'a Path,
    dir: &'a Path,
    stop: &'a AtomicBool,
}

impl Bench<'_> {
    fn run(&self) -> Result<Run> {
        if self.dir.exists() {
            std::fs::remove_dir_all(self.dir)
                .with_context(|| format!("cannot empty {}", self.dir.display()))?;
        }
        std::fs::create_dir_all(self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let viewers = usize::from(self.args.viewers);
        // Dropped last, after the processes inside have ended.
        let world = World::new(&self.uplinks(viewers))?;
        let started = Instant::now();
        let tracker = self.start("tracker", world.hub(), &self.tracker_args())?;
        let source = self.start("source", world.peer(0), &self.source_args())?;
        let link = source.ready["link"].as_str().context("the source's ready line has no link")?.to_owned();
        let mut audience = Vec::with_capacity(viewers);
        for number in 1..=viewers {
            let args = self.viewer_args(number, &link);
            audience.push(self.start(&format!("viewer-{number:03}"), world.peer(number), &args)?);
            self.pause(JOIN_INTERVAL)?;
        }
        eprintln!("    {viewers} viewers joined; settling for {}", sh::seconds(self.args.warm_up));
        self.pause(self.args.warm_up)?;
        eprintln!("    measuring for {}", sh::seconds(self.args.duration));
        let before = snapshot(started, &world, &source, &audience)?;
        self.pause(self.args.duration)?;
        let after = snapshot(started, &world, &source, &audience)?;
        let oversize_packets = world.oversize_packets()?;

        audience.iter().for_each(Process::tell_to_end);
        let reports =
            audience.into_iter().map(|viewer| viewer.report().map(Stats::new)).collect::<Result<Vec<_>>>()?;
        source.tell_to_end();
        let commit = Stats::new(source.report()?).text("commit").unwrap_or("unknown").to_owned();
        drop(tracker);
        let (source_copies, shape) = (self.args.source_copies, self.shape);
        let mut run = Window {
            before: &before,
            after: &after,
            reports: &reports,
            oversize_packets,
            source_copies,
            shape,
        }
        .run();
        run.commit = commit;
        Ok(run)
    }

    fn start(&self, name: &str, namespace: &str, args: &[String]) -> Result<Process> {
        Process::start(name, Some(namespace), self.caudal, args, self.dir, &|| {
            self.stop.load(Ordering::Relaxed)
        })
    }

    fn pause(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    fn uplinks(&self, viewers: usize) -> Vec<Option<Uplink>> {
        match self.shape {
            Shape::Open => vec![None; viewers + 1],
            Shape::Narrow { source_bps, viewer_bps } => {
                let mut uplinks = vec![Some(Uplink { bps: viewer_bps }); viewers + 1];
                uplinks[0] = Some(Uplink { bps: source_bps });
                uplinks
            }
        }
    }

    /// After this long a process ends by itself, should nobody be left to tell it.
    fn lifetime(&self) -> String {
        let joining = JOIN_INTERVAL * u32::from(self.args.viewers) * 4;
        let lifetime = self.args.warm_up + self.args.duration + joining + Duration::from_secs(120);
        format!("{}s", lifetime.as_secs())
    }

    fn tracker_args(&self) -> Vec<String> {
        let listen = format!("{}:{TRACKER_PORT}", World::hub_address());
        owned(&["tracker", "--listen", &listen, "--lan"])
    }

    fn source_args(&self) -> Vec<String> {
        let (rate, copies) = (self.args.rate.to_string(), self.args.source_copies.to_string());
        let tracker = format!("http://{}:{TRACKER_PORT}", World::hub_address());
        let mut args = owned(&["publish", "--name", "Benchmark", "--tracker", &tracker, "--input", "test"]);
        args.extend(owned(&["--card-rate", &rate, "--card-keyframe", "2s", "--source-copies", &copies]));
        args.extend(self.node_args(0));
        args
    }

    fn viewer_args(&self, number: usize, link: &str) -> Vec<String> {
        let mut args = owned(&["watch", link, "--lan"]);
        args.extend(self.node_args(number));
        args
    }

    fn node_args(&self, index: usize) -> Vec<String> {
        let bind = format!("{}:{PEER_PORT}", World::address(index));
        let listen = format!("127.0.0.1:{HTTP_PORT}");
        let mut args = owned(&["--bind", &bind, "--listen", &listen, "--duration", &self.lifetime()]);
        if let (true, Shape::Narrow { source_bps, viewer_bps }) = (self.args.tell_limits, self.shape) {
            let limit = if index == 0 { source_bps } else { viewer_bps };
            args.extend(owned(&["--upload-limit", &limit.to_string()]));
        }
        args
    }
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn snapshot(started: Instant, world: &World, source: &Process, viewers: &[Process]) -> Result<Snapshot> {
    // The cheap and exact figures first and together; the stats take a request each.
    let at_s = started.elapsed().as_secs_f64();
    let wire = world.wire()?;
    let costs = std::iter::once(source).chain(viewers).map(Process::cost).collect::<Result<_>>()?;
    let machine = process::machine_seconds()?;
    let source = Stats::new(source.stats()?);
    let viewers = viewers.iter().map(|viewer| viewer.stats().map(Stats::new)).collect::<Result<_>>()?;
    Ok(Snapshot { at_s, source, viewers, wire, costs, machine })
}
