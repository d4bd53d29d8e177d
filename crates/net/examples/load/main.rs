//! Load for the congestion control: what `cargo xtask bench congestion` runs in its namespaces.
//!
//! | command | what it is |
//! |---|---|
//! | `sink` | takes chunks and discards them; beside it whatever comes by TCP |
//! | `send` | chunks on one connection, at a rate or as fast as they go; beside them a TCP Cubic flow for a while |
//! | `source` | a node that publishes, whose releases are watched: does the earliest deadline leave first? |
//! | `crowd` | peers that ask such a node for chunks, each on a connection of its own |
//!
//! Each writes a line of JSON when it is ready, and its report as another at the end. The nodes' own link, driver and
//! engine carry everything; nothing here is part of the product.

mod crowd;
mod send;
mod series;
mod sink;
mod source;
mod tcp;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use caudal_net::iroh_link::config::Control;
use caudal_net::{IrohConfig, IrohLink};
use caudal_proto::id::{PeerId, SecretKey};
use clap::{Parser, Subcommand, ValueEnum};
use iroh::endpoint::Path;

/// Load for the congestion control.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Accepted for the benchmark's sake: everything is JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    Sink(sink::Args),
    Send(send::Args),
    Source(source::Args),
    Crowd(crowd::Args),
}

/// Whose congestion control sends.
#[derive(Clone, Copy, ValueEnum)]
enum Controller {
    Ours,
    Cubic,
}

impl From<Controller> for Control {
    fn from(controller: Controller) -> Self {
        match controller {
            Controller::Ours => Self::Ours,
            Controller::Cubic => Self::Cubic,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let report = match Cli::parse().command {
        Command::Sink(args) => sink::run(&args).await?,
        Command::Send(args) => send::run(&args).await?,
        Command::Source(args) => source::run(&args).await?,
        Command::Crowd(args) => crowd::run(&args).await?,
    };
    println!("{report}");
    Ok(())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// The key of the load's node `seed`: both sides know it.
fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn id(seed: u8) -> PeerId {
    PeerId(key(seed).public())
}

async fn link(seed: u8, bind: SocketAddr, control: Control) -> Result<IrohLink> {
    Ok(IrohLink::bind(IrohConfig { bind: vec![bind], control, ..IrohConfig::new(key(seed)) }).await?)
}

/// The round-trip time of the path in use, as the transport smooths it.
fn rtt_ms(link: &IrohLink, peer: PeerId) -> Option<f64> {
    let paths = link.connection(peer)?.paths();
    let rtt = paths.iter().find(Path::is_selected)?.rtt();
    Some(rtt.as_secs_f64() * 1000.0)
}
