//! A node that publishes to a crowd: engine, driver and link are the real ones, its stream is noise.

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use caudal_net::Driver;
use caudal_net::iroh_link::config::Control;
use caudal_proto::broadcast::{Certificate, CertificateTerms};
use caudal_proto::chunk::{Ed25519Verifier, Flags, PartIn, Signer};
use caudal_proto::engine::EngineConfig;
use caudal_proto::id::{BroadcastId, ChannelId, RenditionId};
use caudal_proto::io::Input;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig};
use serde_json::{Value, json};

use crate::watch::Watch;

/// The source's key, the channel's, and the broadcast's.
pub(crate) const SEED: u8 = 1;
const CHANNEL_SEED: u8 = 101;
const BROADCAST_SEED: u8 = 102;
const PART: Duration = Duration::from_millis(200);
const SUBSTREAMS: u8 = 8;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    bind: SocketAddr,
    /// Bit/s of the stream.
    #[arg(long)]
    rate: u32,
    /// Bytes of a chunk.
    #[arg(long, default_value_t = 8 * 1024)]
    chunk: usize,
    /// Seconds until it ends.
    #[arg(long, value_parser = crate::seconds)]
    duration: Duration,
    /// Seconds until round-trip times count.
    #[arg(long, value_parser = crate::seconds)]
    warm_up: Duration,
}

pub(crate) fn channel() -> ChannelId {
    crate::key(CHANNEL_SEED).channel()
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

pub(crate) async fn run(args: &Args) -> Result<Value> {
    let (began, policy) = (Instant::now(), Policy::default());
    let (link, seen) = Watch::new(crate::link(SEED, args.bind, Control::Ours).await?, began, policy.clone());
    // Not told what its line carries: it finds out.
    let config = EngineConfig { local: crate::id(SEED), seed: 5, upload_limit_bps: None };
    let (node, mut events) = Driver::spawn(config, link);
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let (epoch, key) = (unix_us() / 1000, crate::key(BROADCAST_SEED));
    let terms = CertificateTerms {
        epoch,
        not_before_unix_us: unix_us() - 1_000_000,
        not_after_unix_us: unix_us() + 3_600_000_000,
        substreams: SUBSTREAMS,
        rate_bps: args.rate,
    };
    let certificate = Certificate::sign(&crate::key(CHANNEL_SEED), BroadcastId(key.public()), terms);
    node.input(Input::Open(Box::new(SwarmConfig {
        channel: channel(),
        rendition: RenditionId(0),
        role: Role::Source { certificate, copies_percent: None, alone: false },
        upload: true,
        retention: Duration::from_secs(60),
        lan: true,
        policy,
        verifier: Box::new(Ed25519Verifier),
        records: Box::new(caudal_proto::record::Ed25519Records(crate::key(SEED))),
        network_map: None,
    })))
    .await?;
    println!("{}", json!({"ready": true}));
    let mut signer = Signer::new(key, channel(), epoch, RenditionId(0), args.chunk);
    let payload = vec![1; (f64::from(args.rate) / 8.0 * PART.as_secs_f64()) as usize];
    let mut ticks = tokio::time::interval(PART);
    let mut parts = 0u64;
    while began.elapsed() < args.duration {
        ticks.tick().await;
        let begins = parts.is_multiple_of(5);
        let flags = Flags::default().with(Flags::SEGMENT_START, begins).with(Flags::INIT, begins);
        let part = PartIn { flags, capture_unix_us: unix_us(), payload: payload.clone().into() };
        node.input(Input::Publish(channel().into(), signer.sign(&part, unix_us()))).await?;
        parts += 1;
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(json!({
        "schema": 1,
        "rtt_ms": seen.rtts.between(args.warm_up, args.duration),
        "rtt_ms_by_second": seen.rtts.largest(),
        "released": seen.released,
        "released_bytes": seen.bytes,
        "choices": seen.choices,
        "out_of_order": seen.wrong,
        "refused": seen.refused,
    }))
}
