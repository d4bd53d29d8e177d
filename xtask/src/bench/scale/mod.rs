//! `cargo xtask bench scale`: what each viewer gets as viewers become more, by a server alone, by the swarm alone and by both.
//!
//! Real processes on the kernel's bridge, every uplink shaped; the simulator goes on where the machine ends. Bytes are counted from
//! the IP header on.
//!
//! | module | owns |
//! |---|---|
//! | [`points`] | what was measured, what theory says, the targets, tables |
//! | [`film`] | what is broadcast |
//! | [`hls`], [`client`], [`playlist`] | the usual streaming: nginx, and viewers of ordinary HLS |
//! | [`virtual_time`] | the same in the simulator |
//! | [`plot`] | the pictures |

mod client;
mod film;
mod hls;
mod playlist;
mod plot;
mod points;
mod virtual_time;

use super::figures::{Run, Shape};
use super::report;
use super::trial::{self, Bench, Delivery, Input, Network, Plan};
use super::{netns, units};
use crate::{sh, system, workspace};
use anyhow::{Context, Result};
use film::Films;
use hls::Hls;
use points::{Point, Setup};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// So many segments are between the newest and what a viewer of HLS plays.
const PLAYOUT_SEGMENTS: usize = 3;
/// Viewers, where nothing else is asked for.
const VIEWERS: &str = "1,10,20,30,60";
/// Viewers in the simulator, where nothing else is asked for.
const SIMULATED: &str = "100,1000,10000";
/// Copies that the source sends into a swarm that is to carry itself.
const SWARM_COPIES: usize = 2;

/// Arguments of `cargo xtask bench scale`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many viewers.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = VIEWERS,
          value_parser = clap::value_parser!(u16).range(1..netns::PEERS_MAX as i64))]
    viewers: Vec<u16>,
    /// Only these modes (default: all).
    #[arg(long = "mode", value_name = "MODE", value_enum, value_delimiter = ',')]
    modes: Vec<Mode>,
    /// The stream's bit rate.
    #[arg(long, default_value = "1M", value_parser = units::rate)]
    rate: u64,
    /// The most that the origin may send.
    #[arg(long, default_value = "20M", value_parser = units::rate)]
    cap: u64,
    /// What the origin's line carries, where that is not the cap: then it is the origin alone that keeps it.
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    origin_line: Option<u64>,
    /// Viewers' uplinks.
    #[arg(long, default_value = "1.5M", value_parser = units::rate)]
    viewer_uplink: u64,
    /// How long each run is measured: best a multiple of HLS segments, 2 s.
    #[arg(long, default_value = "20s", value_parser = units::duration)]
    duration: Duration,
    /// How long everything may settle before.
    #[arg(long, default_value = "15s", value_parser = units::duration)]
    warm_up: Duration,
    /// Go on with so many viewers in the simulator.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', num_args = 0..=1, require_equals = true,
          default_missing_value = SIMULATED, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    simulate: Vec<u32>,
    /// Folder of the pictures (default: target/bench/scale; docs/images, too, with --write-docs).
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    #[command(flatten)]
    common: trial::Common,
}

/// Who carries the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// nginx serves HLS.
    Nginx,
    /// The source to each viewer.
    ServerOnly,
    /// The viewers to each other.
    SwarmOnly,
    /// The source while it can, the viewers beyond.
    Hybrid,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Nginx, Self::ServerOnly, Self::SwarmOnly, Self::Hybrid];

    /// As `--mode` and `--delivery` take it.
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::ServerOnly => "server-only",
            Self::SwarmOnly => "swarm-only",
            Self::Hybrid => "hybrid",
        }
    }

    fn label(self) -> &'static str {
        if self == Self::Nginx { "nginx, HLS" } else { self.name() }
    }
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    if args.modes().contains(&Mode::Nginx) {
        system::ensure(system::TO_SERVE_HLS)?;
    }
    system::ensure(system::TO_ENCODE)?;
    let bench = Bench::begin(&args.common, args.is_whole())?;
    let modes = args.able(bench.caudal())?;
    let films = Films::encode(&workspace::target_dir()?.join("bench/scale-films"), args.rate)?;
    let mut points = Vec::new();
    for viewers in args.viewers.iter().map(|viewers| usize::from(*viewers)) {
        for mode in modes.iter().copied() {
            let runs = match args.runs(&bench, &films, mode, viewers) {
                Err(error) if bench.stop().load(Ordering::Relaxed) => return Err(error),
                // What could not be run misses its targets; the others are still worth having.
                Err(error) => {
                    eprintln!("    not measured, {} with {viewers} viewers: {error:#}", mode.name());
                    Vec::new()
                }
                Ok(runs) => runs,
            };
            points.push(Point { mode, viewers, runs, is_simulated: false });
            println!("\n{}", args.setup(&points).table(&points[points.len() - 1..]));
        }
    }
    for viewers in args.simulate.iter().map(|viewers| *viewers as usize) {
        let known: Vec<Mode> = args.modes().into_iter().filter(|mode| virtual_time::knows(*mode)).collect();
        // Nothing here depends on how fast the machine is: the modes may share it.
        let simulated = std::thread::scope(|scope| {
            let (args, points, caudal) = (&args, &points, bench.caudal());
            let started: Vec<_> = known
                .iter()
                .map(|mode| scope.spawn(move || args.simulated(caudal, *mode, viewers, points)))
                .collect();
            started.into_iter().map(|run| run.join().expect("a simulation panicked")).collect::<Vec<_>>()
        });
        for (mode, run) in known.into_iter().zip(simulated) {
            let runs = match run {
                Err(error) if bench.stop().load(Ordering::Relaxed) => return Err(error),
                Err(error) => {
                    eprintln!("    not simulated, {} with {viewers} viewers: {error:#}", mode.name());
                    continue;
                }
                Ok(run) => vec![run],
            };
            points.push(Point { mode, viewers, runs, is_simulated: true });
            println!("\n{}", args.setup(&points).table(&points[points.len() - 1..]));
        }
    }
    args.conclude(&points)
}

impl Args {
    fn modes(&self) -> Vec<Mode> {
        if self.modes.is_empty() { Mode::ALL.to_vec() } else { self.modes.clone() }
    }

    /// Modes that the program under test has.
    fn able(&self, caudal: &Path) -> Result<Vec<Mode>> {
        let help = sh::output(Command::new(caudal).args(["publish", "--help"]))?;
        let mut modes = self.modes();
        if !help.contains("--delivery") {
            for mode in modes.iter().filter(|mode| **mode != Mode::Nginx) {
                println!("{}: not run: this binary has no --delivery", mode.name());
            }
            modes.retain(|mode| *mode == Mode::Nginx);
        }
        Ok(modes)
    }

    /// Nothing was left out.
    fn is_whole(&self) -> bool {
        let all: Vec<String> = self.viewers.iter().map(u16::to_string).collect();
        self.modes.is_empty() && all.join(",") == VIEWERS
    }

    fn runs(&self, bench: &Bench<'_>, films: &Films, mode: Mode, viewers: usize) -> Result<Vec<Run>> {
        let name = format!("scale-{}-{viewers}", mode.name());
        let what = format!("{}, {viewers} viewers", mode.label());
        if mode != Mode::Nginx {
            return bench.runs(&name, &what, |_| self.plan(&films.ours, mode, viewers));
        }
        let run = |number: u8| {
            sh::say(&format!("{what}; run {number} of {}", self.common.runs));
            let dir = workspace::target_dir()?.join(format!("bench/{name}-{number}"));
            let hls = Hls {
                viewers,
                film: &films.hls,
                origin_bps: self.origin_line.unwrap_or(self.cap).min(self.cap),
                viewer_bps: self.viewer_uplink,
                warm_up: self.warm_up,
                duration: self.duration,
                dir: &dir,
                stop: bench.stop(),
            };
            hls.run()
        };
        (1..=self.common.runs).map(run).collect()
    }

    fn shape(&self) -> Shape {
        Shape::Narrow { source_bps: self.origin_line.unwrap_or(self.cap), viewer_bps: self.viewer_uplink }
    }

    fn plan(&self, film: &Path, mode: Mode, viewers: usize) -> Plan {
        Plan {
            viewers,
            input: Input::Film(film.to_owned()),
            warm_up: self.warm_up,
            duration: self.duration,
            source_copies: SWARM_COPIES,
            delivery: Some(Delivery { name: mode.name(), upload_limit_bps: self.cap }),
            shape: self.shape(),
            tell_limits: false,
            network: Network::Bridge,
            ranges: None,
            killed_percent: 0,
        }
    }

    /// The same in virtual time, with chunks as long as those of the real runs, if there were any.
    fn simulated(&self, caudal: &Path, mode: Mode, viewers: usize, points: &[Point]) -> Result<Run> {
        sh::say(&format!("{}, {viewers} viewers, in the simulator", mode.label()));
        let measured = points.iter().filter(|point| point.mode == mode && !point.is_simulated);
        let chunk_bytes = measured.filter_map(|point| point.median("chunk_payload_bytes")).next_back();
        let swarm = virtual_time::Swarm {
            mode,
            viewers,
            rate_bps: self.rate,
            shape: self.shape(),
            chunk_bytes: chunk_bytes.map(|bytes| bytes as u64),
            warm_up: self.warm_up,
            duration: self.duration,
        };
        let profile = workspace::target_dir()?.join(format!("bench/scale-simulated-{}.toml", mode.name()));
        swarm.simulate(caudal, &profile)
    }

    fn setup(&self, points: &[Point]) -> Setup {
        let runs = points.iter().flat_map(|point| &point.runs);
        let commit = runs.map(|run| run.commit.as_str()).find(|commit| !commit.is_empty());
        Setup {
            rate_bps: self.rate,
            cap_bps: self.cap,
            viewer_bps: self.viewer_uplink,
            commit: commit.unwrap_or("unknown").to_owned(),
        }
    }

    /// Says what came of it: tables, targets, pictures, JSON, the documentation.
    fn conclude(&self, points: &[Point]) -> Result<bool> {
        let setup = self.setup(points);
        println!("{}\n{}\n", setup.table(points), points::FOOTNOTE);
        let checks = setup.checks(points);
        for check in &checks {
            println!("{} {}: {}", if check.ok { "ok  " } else { "FAIL" }, check.name, check.detail);
        }
        let ok = checks.iter().all(|check| check.ok);
        let folder = match &self.plots {
            Some(folder) => folder.clone(),
            None => workspace::target_dir()?.join("bench/scale"),
        };
        for file in plot::write(&setup, points, &folder, &["svg", "png"])? {
            sh::say(&format!("drawn: {}", file.display()));
        }
        self.common.program.write_json(&json!({
            "schema": 1, "commit": setup.commit, "command": trial::command_line(), "machine": report::machine(),
            "duration_ms": self.duration.as_millis() as u64, "rate_bps": self.rate, "source_cap_bps": self.cap,
            "viewer_uplink_bps": self.viewer_uplink, "points": setup.json(points),
            "checks": checks.iter().map(points::Check::json).collect::<Vec<_>>(), "ok": ok,
        }))?;
        if self.common.program.write_docs {
            let images = workspace::root().join("docs/images");
            plot::write(&setup, points, &images, &["png"]).context("cannot draw into docs/images")?;
            report::write_section("scale", &self.section(&setup, points, &checks)?)?;
        }
        Ok(ok)
    }

    fn section(&self, setup: &Setup, points: &[Point], checks: &[points::Check]) -> Result<String> {
        let lines: Vec<String> = checks
            .iter()
            .map(|check| {
                format!("- {}{}: {}", if check.ok { "" } else { "**missed** " }, check.name, check.detail)
            })
            .collect();
        let pictures: Vec<String> = plot::PICTURES
            .iter()
            .map(|picture| format!("![{}](images/{}.png)\n", picture.what, picture.name))
            .collect();
        Ok(format!(
            "{}, commit {}, {}. {} kbit/s, the origin's uplink {} Mbit/s, viewers' {} Mbit/s, {} s measured after {} s, {} runs each \
             (medians).\nCommand: `{}`\n\n{}\n{}\n{}\n\n{}\n",
            report::today()?,
            setup.commit,
            report::machine(),
            self.rate / 1000,
            self.cap as f64 / 1e6,
            self.viewer_uplink as f64 / 1e6,
            self.duration.as_secs(),
            self.warm_up.as_secs(),
            self.common.runs,
            trial::command_line(),
            pictures.join("\n"),
            setup.table(points),
            points::FOOTNOTE,
            lines.join("\n"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::try_parse_from(format!("scale {line}").split_whitespace()).unwrap().args
    }

    #[test]
    fn what_is_run_can_be_chosen() {
        let all = args("");
        assert!(all.is_whole() && all.simulate.is_empty());
        assert_eq!((all.modes().len(), all.viewers.as_slice()), (4, [1, 10, 20, 30, 60].as_slice()));
        assert_eq!(args("--simulate").simulate, [100, 1_000, 10_000]);
        assert_eq!(args("--simulate=100").simulate, [100]);
        let some = args("--viewers 5,20 --mode hybrid --mode nginx");
        assert!(!some.is_whole());
        assert_eq!(
            (some.viewers.as_slice(), some.modes()),
            ([5, 20].as_slice(), vec![Mode::Hybrid, Mode::Nginx])
        );
    }

    #[test]
    fn a_wider_line_is_the_origins_alone_and_not_for_nginx() {
        let wide = args("--origin-line 40M");
        assert_eq!(wide.shape(), Shape::Narrow { source_bps: 40_000_000, viewer_bps: 1_500_000 });
        let plan = wide.plan(Path::new("film.mp4"), Mode::Hybrid, 3);
        assert_eq!(plan.delivery, Some(Delivery { name: "hybrid", upload_limit_bps: 20_000_000 }));
        assert_eq!(args("").shape(), Shape::Narrow { source_bps: 20_000_000, viewer_bps: 1_500_000 });
    }
}
