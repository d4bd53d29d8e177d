//! Takes chunks and discards them, and whatever comes by TCP; tells the TCP flow's sender how much arrived.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use caudal_net::Link as _;
use caudal_net::iroh_link::config::Control;
use caudal_proto::io::Input;
use serde_json::{Value, json};

use crate::tcp;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    bind: SocketAddr,
    /// Seconds until it ends by itself.
    #[arg(long, value_parser = crate::seconds)]
    duration: Duration,
}

/// The sink's key.
pub(crate) const SEED: u8 = 2;

pub(crate) async fn run(args: &Args) -> Result<Value> {
    let mut link = crate::link(SEED, args.bind, Control::Ours).await?;
    tcp::serve(args.bind)?;
    println!("{}", json!({"ready": true}));
    let (end, mut batch, mut chunks) = (Instant::now() + args.duration, Vec::new(), 0u64);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let _ = tokio::time::timeout(left, link.inputs(&mut batch, 64)).await;
        chunks += batch.drain(..).filter(|input| matches!(input, Input::ChunkStream(..))).count() as u64;
    }
    Ok(json!({"schema": 1, "chunks": chunks}))
}
