//! One run: a tracker, a source with the test card or a film, and viewers, each in a namespace of its own; and what every
//! benchmark does with runs: how often, with which program, and where the report goes.
//!
//! Viewers join over a few seconds; after a warm-up, everything is read, and read again at the end of a window: bytes on
//! the wire, the nodes' own stats, processor time and context switches of each process. Then everything
//! is told to end and says its last. Nothing is left behind on Ctrl-C or failure, and each process would also end alone.

use super::emulator::model;
use super::figures::{Run, Shape, Snapshot, Stats, Window};
use super::meter::Meter;
use super::netns::{Uplink, World};
use super::process::{self, Process};
use super::report;
use crate::{sh, system, workspace};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Fewer runs are no base for a figure in the documentation.
const RUNS_FOR_DOCS: u8 = 3;
/// Between one viewer's start and the next.
pub(super) const JOIN_INTERVAL: Duration = Duration::from_millis(250);
/// The port of every peer, and of the tracker: each has a namespace to itself.
const PEER_PORT: u16 = 4433;
const HTTP_PORT: u16 = 8080;
const TRACKER_PORT: u16 = 7700;
const ALTO_PORT: u16 = 7780;
/// How long a packet waits for its uplink at most before it is dropped, on the bridge and in the emulator.
pub(super) const UPLINK_QUEUE: Duration = Duration::from_millis(400);

/// What joins the peers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Network {
    /// The kernel's bridge.
    Bridge,
    /// The link emulator.
    Emulated {
        /// Every path between two peers.
        path: model::Path,
        /// Of losses and jitter.
        seed: u64,
    },
}

/// What is broadcast.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// The test card, encoded by the source.
    Card {
        /// Its bit rate.
        rate_bps: u64,
    },
    /// A file, looped.
    Film(PathBuf),
}

/// What is run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) viewers: usize,
    pub(super) input: Input,
    /// How long the swarm may settle before it is measured.
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) source_copies: usize,
    /// How the source shares its work with the viewers, where `source_copies` does not say it.
    pub(super) delivery: Option<Delivery>,
    pub(super) shape: Shape,
    /// Nodes are told what their lines carry.
    pub(super) tell_limits: bool,
    pub(super) network: Network,
    /// Ranges of addresses, and who goes by a map of them.
    pub(super) ranges: Option<Ranges>,
    /// So many of the viewers are killed as the window begins; the others are measured.
    pub(super) killed_percent: usize,
}

/// What a source is told beside its input: who carries the stream, and the most that it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    /// As `--delivery` takes it.
    pub(super) name: &'static str,
    pub(super) upload_limit_bps: u64,
}

/// Ranges of addresses of the peers, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    /// Peers in each; the source is the first of the first.
    pub(super) sizes: Vec<usize>,
    /// The tracker has a map of them.
    pub(super) tracker: bool,
    /// So have the nodes, from the tracker.
    pub(super) nodes: bool,
}

/// What every benchmark can be told.
#[derive(clap::Args)]
pub(super) struct Common {
    /// How many runs of each case; medians are reported beside the worst.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(super) runs: u8,
    #[command(flatten)]
    pub(super) program: Program,
}

/// What is measured, and where the results go.
#[derive(clap::Args)]
pub(super) struct Program {
    /// Write the report to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table into docs/benchmarks.md (everything that there is to run, three times or more).
    #[arg(long)]
    pub(super) write_docs: bool,
    /// Measure this binary instead of building one.
    #[arg(long, value_name = "FILE")]
    caudal: Option<PathBuf>,
}

impl Program {
    /// Writes the report to the file that was asked for, if one was.
    pub(super) fn write_json(&self, report: &Value) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// The program to measure: the one named, or one that is built. Of `needs` the first is for building.
    pub(super) fn get(&self, needs: &[system::Need]) -> Result<PathBuf> {
        system::ensure(if self.caudal.is_some() { &needs[1..] } else { needs })?;
        match &self.caudal {
            Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display())),
            None => workspace::build("dist"),
        }
    }
}

/// A benchmark under way.
pub(super) struct Bench<'a> {
    common: &'a Common,
    caudal: PathBuf,
    stop: Arc<AtomicBool>,
}

impl<'a> Bench<'a> {
    /// Looks at what was asked for and gets the program ready. `whole`: everything that there is to run was asked for.
    pub(super) fn begin(common: &'a Common, whole: bool) -> Result<Self> {
        if common.program.write_docs && (common.runs < RUNS_FOR_DOCS || !whole) {
            bail!("--write-docs needs --runs {RUNS_FOR_DOCS} or more and everything run: less says little");
        }
        Ok(Self { common, caudal: common.program.get(system::TO_BENCH)?, stop: stop_signal()? })
    }

    /// Every run of one case, whose plan may depend on the run's number; `name` is its folder's, `what` a person's word.
    pub(super) fn runs(&self, name: &str, what: &str, plan: impl Fn(u8) -> Plan) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for number in 1..=self.common.runs {
            sh::say(&format!("{what}; run {number} of {}", self.common.runs));
            let dir = workspace::target_dir()?.join(format!("bench/{name}-{number}"));
            let plan = plan(number);
            let run = Trial { plan: &plan, caudal: &self.caudal, dir: &dir, stop: &self.stop }.run()?;
            if self.common.program.write_docs {
                report::may_write_docs(&run.commit)?;
            }
            runs.push(run);
        }
        Ok(runs)
    }

    /// Becomes true on Ctrl-C.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// The program under test.
    pub(super) fn caudal(&self) -> &Path {
        &self.caudal
    }
}

/// Becomes true on Ctrl-C.
pub(super) fn stop_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot watch for Ctrl-C")?;
    }
    Ok(stop)
}

/// Waits, unless `stop` becomes true.
pub(super) fn pause(duration: Duration, stop: &AtomicBool) -> Result<()> {
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    Ok(())
}

/// What was typed.
pub(super) fn command_line() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", args.join(" "))
}

/// One run.
struct Trial<'a> {
    plan: &'a Plan,
    caudal: &'a Path,
    /// Emptied, then filled with the processes' state and logs.
    dir: &'a Path,
    stop: &'a AtomicBool,
}

impl Trial<'_> {
    fn run(&self) -> Result<Run> {
        if self.dir.exists() {
            std::fs::remove_dir_all(self.dir)
                .with_context(|| format!("cannot empty {}", self.dir.display()))?;
        }
        std::fs::create_dir_all(self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let viewers = self.plan.viewers;
        // Dropped last, after the processes inside have ended.
        let world = self.world()?;
        let started = Instant::now();
        if let Some(ranges) = &self.plan.ranges {
            world.count_between(&ranges.sizes)?;
        }
        let meter = self.meter(&world, started)?;
        let map = self.map_server(&world)?;
        let tracker = self.start("tracker", world.hub(), &self.tracker_args())?;
        let source = self.start("source", world.peer(0), &self.source_args())?;
        let link = source.ready["link"].as_str().context("the source's ready line has no link")?.to_owned();
        let mut audience = Vec::with_capacity(viewers);
        for number in self.joining() {
            let args = self.viewer_args(number, &link);
            let viewer = self.start(&format!("viewer-{number:03}"), world.peer(number), &args)?;
            audience.push((number, viewer));
            self.pause(JOIN_INTERVAL)?;
        }
        audience.sort_by_key(|(number, _)| *number);
        let mut audience: Vec<Process> = audience.into_iter().map(|(_, viewer)| viewer).collect();
        eprintln!("    {viewers} viewers joined; settling for {}", sh::seconds(self.plan.warm_up));
        self.pause(self.plan.warm_up)?;
        let stays = viewers - viewers * self.plan.killed_percent / 100;
        if stays < viewers {
            eprintln!("    killing {} viewers at once", viewers - stays);
            audience.split_off(stays).into_iter().for_each(Process::kill);
        }
        eprintln!("    measuring for {}", sh::seconds(self.plan.duration));
        let between_before = self.between(&world)?;
        let before = snapshot(started, &world, &source, &audience)?;
        self.pause(self.plan.duration)?;
        let after = snapshot(started, &world, &source, &audience)?;
        let between_after = self.between(&world)?;
        let oversize_packets = world.oversize_packets()?;
        if let Some(tally) = world.tally() {
            eprintln!(
                "    the emulator lost {} packets, dropped {} at full queues, and was {} ms late at worst",
                tally.lost,
                tally.dropped,
                tally.late.as_millis()
            );
        }

        audience.iter().for_each(Process::tell_to_end);
        let reports =
            audience.into_iter().map(|viewer| viewer.report().map(Stats::new)).collect::<Result<Vec<_>>>()?;
        source.tell_to_end();
        let commit = Stats::new(source.report()?).text("commit").unwrap_or("unknown").to_owned();
        drop((tracker, map));
        let (source_copies, shape) = (self.plan.source_copies, self.plan.shape);
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
        if let Some(meter) = meter {
            let most = meter.end()?.most_in(1.0);
            run.set("source_bps/second_max", most.map(|bytes| bytes * 8.0));
        }
        let signed = |snapshot: &Snapshot| snapshot.source.number("useful_bytes").unwrap_or_default();
        run.stream_bytes = signed(&after) - signed(&before);
        run.between = minus(&between_after, &between_before);
        Ok(run)
    }

    /// The order in which viewers join. Ranges take turns: who comes first carries more, and that must not be one range's doing.
    fn joining(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (1..=self.plan.viewers).collect();
        if self.plan.ranges.is_some() {
            // Multiples of the golden ratio fall evenly into every stretch.
            let turn = |number: &usize| (*number as f64 * 0.618_033_988_749_895).fract();
            order.sort_by(|a, b| turn(a).total_cmp(&turn(b)));
        }
        order
    }

    /// An ALTO server with a map of the ranges, where somebody goes by it.
    fn map_server(&self, world: &World) -> Result<Option<Process>> {
        let Some(ranges) = self.plan.ranges.as_ref().filter(|ranges| ranges.tracker) else { return Ok(None) };
        let file = self.dir.join("alto.toml");
        std::fs::write(&file, map_of(&ranges.sizes))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let listen = format!("{}:{ALTO_PORT}", World::hub_address());
        let args = owned(&["alto", "serve", "--config", &file.display().to_string(), "--listen", &listen]);
        self.start("alto", world.hub(), &args).map(Some)
    }

    /// Looks at what the source sends, where a limit of it is asked for.
    fn meter(&self, world: &World, began: Instant) -> Result<Option<Meter>> {
        let is_asked = self.plan.delivery.is_some() && self.plan.network == Network::Bridge;
        is_asked.then(|| Meter::start(world.peer(0), "eth0", began)).transpose()
    }

    fn between(&self, world: &World) -> Result<Vec<Vec<u64>>> {
        match &self.plan.ranges {
            Some(ranges) => world.between(ranges.sizes.len()),
            None => Ok(Vec::new()),
        }
    }

    fn start(&self, name: &str, namespace: &str, args: &[String]) -> Result<Process> {
        Process::start(name, Some(namespace), self.caudal, args, self.dir, &|| {
            self.stop.load(Ordering::Relaxed)
        })
    }

    fn pause(&self, duration: Duration) -> Result<()> {
        pause(duration, self.stop)
    }

    fn world(&self) -> Result<World> {
        let (source, viewer) = match self.plan.shape {
            Shape::Open => (None, None),
            Shape::Narrow { source_bps, viewer_bps } => (Some(source_bps), Some(viewer_bps)),
        };
        let rates = std::iter::once(source).chain(std::iter::repeat_n(viewer, self.plan.viewers));
        match self.plan.network {
            Network::Bridge => {
                let uplinks: Vec<Option<Uplink>> =
                    rates.map(|bps| bps.map(|bps| Uplink { bps, queue: UPLINK_QUEUE })).collect();
                World::new(&uplinks)
            }
            Network::Emulated { path, seed } => {
                let lines: Vec<model::Line> =
                    rates.map(|bps| model::Line { bps, queue: UPLINK_QUEUE }).collect();
                World::emulated(&lines, path, seed)
            }
        }
    }

    /// After this long a process ends by itself, should nobody be left to tell it.
    fn lifetime(&self) -> String {
        let joining = JOIN_INTERVAL * self.plan.viewers as u32 * 4;
        let lifetime = self.plan.warm_up + self.plan.duration + joining + Duration::from_secs(120);
        format!("{}s", lifetime.as_secs())
    }

    fn tracker_args(&self) -> Vec<String> {
        let listen = format!("{}:{TRACKER_PORT}", World::hub_address());
        let mut args = owned(&["tracker", "--listen", &listen, "--lan"]);
        if self.plan.ranges.as_ref().is_some_and(|ranges| ranges.tracker) {
            args.extend(owned(&["--alto", &format!("http://{}:{ALTO_PORT}/", World::hub_address())]));
        }
        args
    }

    fn source_args(&self) -> Vec<String> {
        let tracker = format!("http://{}:{TRACKER_PORT}", World::hub_address());
        let mut args = owned(&["publish", "--name", "Benchmark", "--tracker", &tracker, "--input"]);
        match &self.plan.input {
            Input::Card { rate_bps } => {
                args.extend(owned(&["test", "--card-rate", &rate_bps.to_string(), "--card-keyframe", "2s"]));
            }
            Input::Film(film) => args.push(film.display().to_string()),
        }
        match self.plan.delivery {
            Some(Delivery { name, upload_limit_bps }) => {
                args.extend(owned(&["--delivery", name, "--upload-limit", &upload_limit_bps.to_string()]));
            }
            None => args.extend(owned(&["--source-copies", &self.plan.source_copies.to_string()])),
        }
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
        if let (true, Shape::Narrow { source_bps, viewer_bps }) = (self.plan.tell_limits, self.plan.shape) {
            let limit = if index == 0 { source_bps } else { viewer_bps };
            args.extend(owned(&["--upload-limit", &limit.to_string()]));
        }
        if self.plan.ranges.as_ref().is_some_and(|ranges| !ranges.nodes) {
            args.extend(owned(&["--alto", "off"]));
        }
        args
    }
}

/// A map in which each range is a PID, all equally far from each other.
fn map_of(sizes: &[usize]) -> String {
    let mut text = String::from("[pids]\n");
    let mut first = 0;
    for (range, size) in sizes.iter().enumerate() {
        let hosts: Vec<String> =
            (first..first + size).map(|peer| format!("\"{}/32\"", World::address(peer))).collect();
        text.push_str(&format!("range-{range} = [{}]\n", hosts.join(", ")));
        first += size;
    }
    text.push_str("rest = [\"0.0.0.0/0\", \"::/0\"]\n[costs]\nsame = 1\ntransit = 20\n");
    text
}

fn minus(after: &[Vec<u64>], before: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let row = |(after, before): (&Vec<u64>, &Vec<u64>)| {
        after.iter().zip(before).map(|(after, before)| after.saturating_sub(*before)).collect()
    };
    after.iter().zip(before).map(row).collect()
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
