//! `cargo xtask bench relay`: what relaying costs, on the kernel's bridge, with uplinks open and narrowed.

use super::figures::Shape;
use super::report::{self, Setup, Shaped};
use super::trial::{self, Bench, Input, Network, Plan};
use super::{netns, units};
use anyhow::Result;
use std::time::Duration;

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
    #[command(flatten)]
    common: trial::Common,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Open,
    Narrow,
    Both,
}

/// Runs the benchmark; true when every target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    // The table has a section for each shape, and takes those that were run.
    let bench = Bench::begin(&args.common, true)?;
    let narrow = Shape::Narrow { source_bps: args.source_uplink, viewer_bps: args.viewer_uplink };
    let shapes: &[Shape] = match args.shape {
        Which::Open => &[Shape::Open],
        Which::Narrow => &[narrow],
        Which::Both => &[Shape::Open, narrow],
    };
    let mut results = Vec::new();
    for shape in shapes {
        let (name, what) = (format!("relay-{}", shape.name()), format!("uplinks {}", shape.name()));
        let runs = bench.runs(&name, &what, |_| args.plan(*shape))?;
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
        command: trial::command_line(),
        commit: results[0].runs[0].commit.clone(),
    };
    let (ok, json) = report::report(&setup, &results);
    args.common.program.write_json(&json)?;
    if args.common.program.write_docs {
        report::write_docs(&setup, &results)?;
    }
    Ok(ok)
}

impl Args {
    fn plan(&self, shape: Shape) -> Plan {
        Plan {
            viewers: self.viewers.into(),
            input: Input::Card { rate_bps: self.rate },
            warm_up: self.warm_up,
            duration: self.duration,
            source_copies: self.source_copies,
            delivery: None,
            shape,
            tell_limits: self.tell_limits,
            network: Network::Bridge,
            ranges: None,
            killed_percent: 0,
        }
    }
}
