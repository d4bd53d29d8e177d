//! Chunks on one connection: at a rate, as a stream comes, or as fast as they go.
//!
//! What the connection cannot take yet waits here, in order, as it would in a node's own queue; a chunk's time counts
//! from when it was offered until its receiver has acknowledged all of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use caudal_net::link::CHUNKS_OUT_MAX;
use caudal_net::{IrohLink, Link as _};
use caudal_proto::io::{ChunkOutcome, ChunkToken, Input, Transmit};
use serde_json::{Value, json};

use crate::series::{BySecond, Samples};
use crate::{Controller, sink, tcp};

/// Chunks under way of those that are always more.
const GREEDY_UNDER_WAY: usize = 32;
const TURN: Duration = Duration::from_millis(5);
const RTT_EVERY: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    bind: SocketAddr,
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, value_enum)]
    control: Controller,
    /// Bit/s offered; 0: always more.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Bytes of a chunk.
    #[arg(long, default_value_t = 16 * 1024)]
    chunk: usize,
    /// Seconds of sending.
    #[arg(long, value_parser = crate::seconds)]
    duration: Duration,
    /// Seconds until figures count.
    #[arg(long, value_parser = crate::seconds)]
    warm_up: Duration,
    /// Seconds from which a TCP Cubic flow sends beside it.
    #[arg(long, value_parser = crate::seconds, requires = "tcp_until")]
    tcp_from: Option<Duration>,
    /// Seconds until which it does.
    #[arg(long, value_parser = crate::seconds)]
    tcp_until: Option<Duration>,
}

struct Load<'a> {
    args: &'a Args,
    link: IrohLink,
    began: Instant,
    body: Bytes,
    /// When each chunk was offered: those that wait here, and those under way.
    waiting: VecDeque<Duration>,
    under_way: BTreeMap<ChunkToken, Duration>,
    next: u64,
    /// When the next chunk is offered.
    due: Duration,
    arrived: BySecond,
    took: Samples,
    rtts: Samples,
    rtt_at: Duration,
    dropped: u64,
}

pub(crate) async fn run(args: &Args) -> Result<Value> {
    let mut link = crate::link(1, args.bind, args.control.into()).await?;
    println!("{}", json!({"ready": true}));
    let peer = crate::id(sink::SEED);
    link.execute(Transmit::Connect { peer, addrs: vec![args.to] });
    let mut inputs = Vec::new();
    while !inputs.iter().any(|input| matches!(input, Input::Connected(_))) {
        link.inputs(&mut inputs, 64).await;
        if inputs.iter().any(|input| matches!(input, Input::DialFailed(_))) {
            bail!("{} does not answer", args.to);
        }
    }
    let mut load = Load {
        args,
        link,
        began: Instant::now(),
        body: vec![7; args.chunk].into(),
        waiting: VecDeque::new(),
        under_way: BTreeMap::new(),
        next: 0,
        due: Duration::ZERO,
        arrived: BySecond::default(),
        took: Samples::default(),
        rtts: Samples::default(),
        rtt_at: Duration::ZERO,
        dropped: 0,
    };
    let flow = args.tcp_from.zip(args.tcp_until);
    let flow = flow.map(|(from, until)| tcp::Flow::start(args.to, load.began, from, until));
    while load.began.elapsed() < args.duration {
        load.turn().await?;
    }
    load.report(flow)
}

impl Load<'_> {
    async fn turn(&mut self) -> Result<()> {
        self.offer();
        let mut batch = Vec::new();
        let _ = tokio::time::timeout(TURN, self.link.inputs(&mut batch, 64)).await;
        let now = self.began.elapsed();
        for input in batch {
            match input {
                Input::ChunkDone(_, token, outcome) => {
                    let Some(offered) = self.under_way.remove(&token) else { continue };
                    if outcome == ChunkOutcome::Delivered {
                        self.arrived.add(now, self.args.chunk as f64);
                        self.took.add(offered, (now - offered).as_secs_f64() * 1000.0);
                    } else {
                        self.dropped += 1;
                    }
                }
                Input::Disconnected(_) => bail!("the connection was lost after {now:?}"),
                _ => {}
            }
        }
        if now >= self.rtt_at {
            self.rtt_at = now + RTT_EVERY;
            if let Some(rtt) = crate::rtt_ms(&self.link, crate::id(sink::SEED)) {
                self.rtts.add(now, rtt);
            }
        }
        Ok(())
    }

    /// Offers what is due, and hands over what the connection may be given.
    fn offer(&mut self) {
        let now = self.began.elapsed();
        let most = if self.args.rate == 0 {
            self.waiting.resize(GREEDY_UNDER_WAY.saturating_sub(self.under_way.len()), now);
            GREEDY_UNDER_WAY
        } else {
            while self.due <= now {
                self.waiting.push_back(self.due);
                self.due += Duration::from_secs_f64(self.args.chunk as f64 * 8.0 / self.args.rate as f64);
            }
            CHUNKS_OUT_MAX
        };
        while self.under_way.len() < most {
            let Some(offered) = self.waiting.pop_front() else { return };
            self.next += 1;
            let (peer, token) = (crate::id(sink::SEED), ChunkToken(self.next));
            self.under_way.insert(token, offered);
            let (head, body) = (Bytes::from_static(b"head"), self.body.clone());
            self.link.execute(Transmit::Chunk { peer, token, priority: 0, head, body });
        }
    }

    fn report(mut self, flow: Option<tcp::Flow>) -> Result<Value> {
        let (from, until) = (self.args.warm_up, self.args.duration);
        let unfinished = self.waiting.len() + self.under_way.len();
        if self.args.rate > 0 {
            // What has not arrived yet takes at least so long.
            for offered in self.waiting.iter().chain(self.under_way.values()) {
                self.took.add(*offered, (until - (*offered).min(until)).as_secs_f64() * 1000.0);
            }
        }
        let tcp = flow.map(tcp::Flow::end).transpose()?.unwrap_or_default();
        let after = self.args.tcp_until.map_or(until, |until| until + Duration::from_secs(5));
        Ok(json!({
            "schema": 1,
            "chunk_ms": self.took.between(from, until),
            "rtt_ms": self.rtts.between(from, until),
            "rtt_after_ms": self.rtts.between(after, until),
            "rtt_ms_by_second": self.rtts.largest(),
            "bps": self.arrived.bps(),
            "tcp_bps": tcp.bps(),
            "offered": self.next + self.waiting.len() as u64,
            "unfinished": unfinished,
            "dropped": self.dropped,
        }))
    }
}
