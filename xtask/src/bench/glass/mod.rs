//! `cargo xtask bench glass`: from the encoder's picture to the one on a viewer's screen, share by share.
//!
//! The ends are real: x264 in ffmpeg, and a browser that shows a stream of this machine. Delivery and what players keep ahead are the
//! simulator's, since nobody has a thousand viewers at hand: `proto::qos` says for each how much that is.

mod encoder;
mod screen;

use super::figures::percentile;
use super::report::{self, Target, Unit, aligned};
use super::simulated;
use super::trial;
use crate::{sh, system, web, workspace};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;
use std::process::Command;

/// Arguments of `cargo xtask bench glass`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Viewers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    peers: u32,
    /// How many seeds, from 1.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=30))]
    seeds: u8,
    #[command(flatten)]
    program: trial::Program,
}

/// What a part waits to be full, as the simulator's parts do: the browser's share has it already.
const PART_MS: f64 = 200.0;
/// What all of it may take.
const GOAL: Target = Target::AtMost(2_000.0);
/// The stream, and what its source may send: twenty copies.
const RATE_BPS: u32 = 3_000_000;
const COPIES: u32 = 20;

/// One share of the delay, ms.
struct Share {
    label: &'static str,
    how: &'static str,
    p50_ms: f64,
    p95_ms: f64,
}

impl Share {
    /// Of measured times, ms, sorted.
    fn of(label: &'static str, how: &'static str, times: &[f64]) -> Self {
        let [p50_ms, p95_ms] = [50.0, 95.0].map(|share| percentile(times, share).unwrap_or_default());
        Self { label, how, p50_ms, p95_ms }
    }
}

/// From camera to screen, under one of the viewer's presets.
struct Glass {
    p50_ms: f64,
    p95_ms: f64,
    /// Of parts, those in time for what is kept ahead.
    on_time: f64,
}

impl Glass {
    fn is_met(&self) -> bool {
        GOAL.met(self.p95_ms)
    }

    fn json(&self) -> Value {
        json!({"p50_ms": self.p50_ms, "p95_ms": self.p95_ms, "on_time_ratio": self.on_time})
    }
}

impl fmt::Display for Glass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {}, p95 {} (asked: {}) {}; {} of parts are in time for what is kept ahead",
            Unit::Ms.shown(self.p50_ms),
            Unit::Ms.shown(self.p95_ms),
            GOAL.shown(Unit::Ms).unwrap_or_default(),
            if self.is_met() { "ok" } else { "FAIL" },
            Unit::Percent.shown(self.on_time),
        )
    }
}

/// Runs the benchmark; true when the target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    let caudal = args.program.get(&system::TO_BENCH[..1])?;
    system::ensure(system::TO_ENCODE_AND_LOOK)?;
    web::build_or_fail()?;
    sh::say(&format!(
        "x264 by ffmpeg, {}×{}, {} pictures",
        encoder::WIDTH,
        encoder::HEIGHT,
        encoder::PICTURES
    ));
    let encoder = Share::of("encoder", "x264 in ffmpeg, as for streaming", &encoder::times()?);
    sh::say("a browser that shows the test card");
    let ends = screen::times(&caudal, RATE_BPS, &workspace::target_dir()?.join("bench/glass"))?;
    let ends = Share::of("part, player and screen", "headless Chromium, with the test card's encoder", &ends);
    sh::say(&format!("{} viewers in virtual time, seeds 1 to {}", args.peers, args.seeds));
    let simulated = simulate(args, &caudal)?;
    let mean = |path: &str| {
        let values = simulated.iter().filter_map(|report| report.pointer(path)?.as_f64());
        let values: Vec<f64> = values.collect();
        ensure!(values.len() == simulated.len(), "the simulator said nothing of {path}");
        Ok(values.iter().sum::<f64>() / values.len() as f64)
    };
    let of = |label, how, path: &str| -> Result<Share> {
        let [p50_ms, p95_ms] = ["p50", "p95"].map(|share| mean(&format!("/{path}/{share}")));
        Ok(Share { label, how, p50_ms: p50_ms?, p95_ms: p95_ms? })
    };
    // Way and buffer are not each at their worst for the same viewer: their sum is known, with the part that fills.
    let without_part =
        |share: Share| Share { p50_ms: share.p50_ms - PART_MS, p95_ms: share.p95_ms - PART_MS, ..share };
    let usual = without_part(of("way and kept ahead", "simulated, each viewer's sum", "playout/behind_ms")?);
    let within = without_part(of(
        "the same, asked for 2 s at most",
        "simulated, `--max-delay 2s`",
        "playout_at_most_2s/behind_ms",
    )?);
    let shares = [
        encoder,
        of("way through the swarm", "simulated, the part that came soonest", "playout/way_ms")?,
        of("kept ahead", "simulated, as `proto::qos` wants", "playout/wanted_ms")?,
        usual,
        within,
        ends,
    ];
    let [encoder, .., usual, within, ends] = &shares;
    let glass = |swarm: &Share, preset: &str| -> Result<Glass> {
        Ok(Glass {
            p50_ms: encoder.p50_ms + swarm.p50_ms + ends.p50_ms,
            p95_ms: encoder.p95_ms + swarm.p95_ms + ends.p95_ms,
            on_time: mean(&format!("/{preset}/on_time"))?,
        })
    };
    let (usual, within) = (glass(usual, "playout")?, glass(within, "playout_at_most_2s")?);
    let ok = usual.is_met() && within.is_met();
    let text = format!("{}\nGlass to glass: {usual}.\nWith `--max-delay 2s`: {within}.\n", table(&shares));
    println!("\n{text}");
    let commit = simulated.first().and_then(|report| report["commit"].as_str()).unwrap_or("unknown");
    args.program.write_json(&json!({
        "schema": 1, "commit": commit, "command": trial::command_line(), "machine": report::machine(), "ok": ok,
        "shares": shares.iter().map(|share| json!({
            "name": share.label, "how": share.how, "p50_ms": share.p50_ms, "p95_ms": share.p95_ms,
        })).collect::<Vec<_>>(),
        "usual": usual.json(), "at_most_2s": within.json(),
    }))?;
    if args.program.write_docs {
        report::may_write_docs(commit)?;
        let section = format!(
            "{}, commit {commit}, {}. {} viewers, seeds 1 to {}.\nCommand: `{}`\n\n{text}",
            report::today()?,
            report::machine(),
            args.peers,
            args.seeds,
            trial::command_line(),
        );
        report::write_section("glass", &section)?;
    }
    Ok(ok)
}

fn table(shares: &[Share]) -> String {
    let row = |share: &Share| {
        [
            share.label.to_owned(),
            Unit::Ms.shown(share.p50_ms),
            Unit::Ms.shown(share.p95_ms),
            share.how.to_owned(),
        ]
    };
    let mut lines = vec![["share", "median", "p95", "how"].map(str::to_owned)];
    lines.extend(shares.iter().map(row));
    aligned(&lines)
}

fn simulate(args: &Args, caudal: &Path) -> Result<Vec<Value>> {
    let mut command = Command::new(caudal);
    command.args([
        "sim",
        "--json",
        "--delivery",
        "hybrid",
        "--ramp",
        "30s",
        "--warmup",
        "70s",
        "--duration",
        "120s",
    ]);
    command.args(["--peers", &args.peers.to_string(), "--seeds", &args.seeds.to_string()]);
    command.args(["--rate", &RATE_BPS.to_string(), "--source-copies", &COPIES.to_string()]);
    simulated::run(&mut command, usize::from(args.seeds))
}
