//! Peers that ask a node for more than its line carries: each has a connection of its own and asks now for something
//! urgent, now for something that has time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::BytesMut;
use caudal_net::iroh_link::config::Control;
use caudal_net::{IrohLink, Link as _};
use caudal_proto::id::{PeerId, RenditionId};
use caudal_proto::io::{Input, Transmit};
use caudal_proto::wire::{ChunkHead, FrameWriter, Handshake, Message, Messages, RangeList, Request};
use serde_json::{Value, json};

use crate::source;

/// The first peer's key; the others' follow.
const SEED: u8 = 20;
/// What a request's answer is good for.
const DEADLINE_MS: u16 = 400;
/// Each asks about this often.
const ASK_EVERY: Duration = Duration::from_millis(150);
/// Chunks of a request at most.
const ASKED_MAX: u64 = 3;
/// Only the newest are asked for: what is overdue has a turn of its own.
const NEW: u64 = 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The first peer's address; the others listen at the ports after it.
    #[arg(long)]
    bind: SocketAddr,
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    peers: u8,
    #[arg(long, value_parser = crate::seconds)]
    duration: Duration,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn run(args: &Args) -> Result<Value> {
    println!("{}", json!({"ready": true}));
    let mut peers = tokio::task::JoinSet::new();
    for number in 0..args.peers {
        let bind = SocketAddr::new(args.bind.ip(), args.bind.port() + u16::from(number));
        let link = crate::link(SEED + number, bind, Control::Ours).await?;
        let peer = Peer {
            link,
            node: crate::id(source::SEED),
            rng: fastrand::Rng::with_seed(args.seed * 1000 + u64::from(number)),
            newest: 0,
            asked: 0,
            got: 0,
        };
        peers.spawn(peer.run(args.to, args.duration));
    }
    let got = peers.join_all().await;
    Ok(json!({"schema": 1, "chunks": got}))
}

struct Peer {
    link: IrohLink,
    node: PeerId,
    rng: fastrand::Rng,
    /// One past the newest chunk that the node has announced, and that was asked for.
    newest: u64,
    asked: u64,
    got: u64,
}

impl Peer {
    async fn run(mut self, to: SocketAddr, duration: Duration) -> u64 {
        let (node, end) = (self.node, Instant::now() + duration);
        self.link.execute(Transmit::Connect { peer: node, addrs: vec![to] });
        let mut ask_at = Instant::now();
        while Instant::now() < end {
            let mut batch = Vec::new();
            let left = ask_at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let _ = tokio::time::timeout(left, self.link.inputs(&mut batch, 64)).await;
            for input in batch {
                self.hear(input);
            }
            if Instant::now() >= ask_at {
                ask_at = Instant::now() + ASK_EVERY.mul_f64(0.5 + self.rng.f64());
                self.ask();
            }
        }
        self.got
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Connected(_) => {
                let (channel, rendition) = (source::channel(), RenditionId(0));
                let handshake = Handshake { channel, rendition, source: false, upload_kbps: 0 };
                self.say(&Message::Handshake(handshake));
            }
            Input::ChunkStream(_, stream) => {
                self.got += u64::from(ChunkHead::decode(stream).is_ok());
            }
            Input::Control(_, frame) => {
                let Ok(messages) = Messages::open(frame) else { return };
                for message in messages.flatten() {
                    match message {
                        Message::Ping(number) => self.say(&Message::Pong(number)),
                        Message::Have(have) => {
                            let ends = have.chunks.iter().map(|range| range.end);
                            self.newest = ends.fold(self.newest, u64::max);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// Asks for some of the newest that it has not asked for: at once or, as one that joins, with time.
    fn ask(&mut self) {
        let first = self.asked.max(self.newest.saturating_sub(NEW));
        let last = self.newest.min(first + self.rng.u64(1..=ASKED_MAX));
        if first >= last {
            return;
        }
        self.asked = last;
        let (joining, chunks) = (self.rng.bool(), RangeList::from_numbers(first..last));
        self.say(&Message::Request(Request { deadline_ms: DEADLINE_MS, joining, chunks }));
    }

    fn say(&mut self, message: &Message) {
        let (mut writer, mut bytes) = (FrameWriter::new(0), BytesMut::new());
        bytes.extend(writer.push(message));
        bytes.extend(writer.finish());
        self.link.execute(Transmit::Control { peer: self.node, bytes: bytes.freeze() });
    }
}
