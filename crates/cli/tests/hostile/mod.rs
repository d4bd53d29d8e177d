//! A peer that speaks the protocol over the real transport and says and sends what its behaviour tells it to.
#![allow(unreachable_pub, reason = "shared by the tests of one file")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use caudal_net::{IrohConfig, IrohLink, Link as _};
use caudal_proto::chunk::Chunk;
use caudal_proto::id::{ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::io::{ChunkToken, Input, Transmit};
use caudal_proto::wire::{
    ChunkHead, FrameWriter, Handshake, Have, Message, Messages, RangeList, Request, State, SubstreamState,
};
use caudal_tracker::client::{Join, TrackerClient};
use caudal_tracker::message::SwarmId;
use caudal_tracker::url::{AllowedUrl, TrackerUrl, UrlOrigin};

/// What a neighbour told this node.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub have: Option<Have>,
    pub chunks: BTreeMap<u64, Chunk>,
    /// What the behaviour counts.
    pub deeds: u32,
    /// When it last did something.
    pub last: Option<Instant>,
}

/// What the test looks at while the node runs.
#[derive(Debug, Default, Clone)]
pub struct Account {
    /// Deeds so far, by victim; also of victims that hung up.
    pub deeds: BTreeMap<PeerId, u32>,
    /// Connections that the other side closed.
    pub closed: u32,
    /// The newest certificate and live note heard.
    pub certificate: Option<Bytes>,
    pub note: Option<Bytes>,
}

/// Something that a behaviour may react to.
#[derive(Debug)]
pub enum Happening {
    Connected,
    Said(Message),
    /// A chunk came: it is among those seen.
    Chunk,
    /// Every few milliseconds, for each neighbour.
    Tick,
}

pub struct Node {
    pub id: PeerId,
    pub addr: SocketAddr,
    pub channel: ChannelId,
    link: IrohLink,
    token: u64,
    pub peers: BTreeMap<PeerId, Seen>,
    pub account: Arc<Mutex<Account>>,
    /// Not every neighbour is a victim.
    pub source: Option<PeerId>,
}

pub type Behaviour = Box<dyn FnMut(&mut Node, PeerId, Happening) + Send>;

impl Node {
    pub async fn bind(channel: ChannelId) -> (Self, SecretKey) {
        let key = SecretKey::from_bytes(&std::array::from_fn(|_| fastrand::u8(..)));
        let mut config = IrohConfig::new(key.clone());
        config.bind = vec!["127.0.0.1:0".parse().expect("an address")];
        let link = IrohLink::bind(config).await.expect("binds");
        let addr = link.local_addrs()[0];
        let node = Self {
            id: PeerId(key.public()),
            addr,
            channel,
            link,
            token: 0,
            peers: BTreeMap::new(),
            account: Arc::default(),
            source: None,
        };
        (node, key)
    }

    pub fn dial(&mut self, peer: PeerId, addr: SocketAddr) {
        self.link.execute(Transmit::Connect { peer, addrs: vec![addr] });
    }

    pub fn say(&mut self, peer: PeerId, messages: &[Message]) {
        let mut writer = FrameWriter::new(0);
        let mut frames: Vec<Bytes> = messages.iter().filter_map(|message| writer.push(message)).collect();
        frames.extend(writer.finish());
        for bytes in frames {
            self.raw(peer, bytes);
        }
    }

    /// Bytes on the control stream as they are.
    pub fn raw(&mut self, peer: PeerId, bytes: Bytes) {
        self.link.execute(Transmit::Control { peer, bytes });
    }

    pub fn send(&mut self, peer: PeerId, requested: bool, body: Bytes) {
        self.token += 1;
        let head = ChunkHead { handle: 0, requested, lag_ms: 1 }.encode();
        let token = ChunkToken(self.token);
        self.link.execute(Transmit::Chunk { peer, token, priority: 0, head, body });
    }

    pub fn ask(&mut self, peer: PeerId, numbers: impl IntoIterator<Item = u64>) {
        let chunks = RangeList::from_numbers(numbers);
        self.say(peer, &[Message::Request(Request { deadline_ms: 1000, joining: true, chunks })]);
    }

    pub fn greet(&mut self, peer: PeerId) {
        let handshake = Handshake {
            channel: self.channel,
            rendition: RenditionId(0),
            source: false,
            upload_kbps: 100_000,
        };
        self.say(peer, &[Message::Handshake(handshake)]);
    }

    /// "I receive everything at once and take everybody."
    pub fn boast() -> Message {
        let substream = SubstreamState { lag_ms: 0, accept: 0 };
        Message::State(State { upload_kbps: 100_000, wait_ms: 0, substreams: vec![substream; 8] })
    }

    pub fn did(&mut self, peer: PeerId) -> u32 {
        let seen = self.peers.entry(peer).or_default();
        seen.deeds += 1;
        seen.last = Some(Instant::now());
        *self.account.lock().expect("whole").deeds.entry(peer).or_default() += 1;
        seen.deeds
    }

    /// The newest have map of any neighbour.
    pub fn newest_have(&self) -> Option<Have> {
        let haves = self.peers.values().filter_map(|seen| seen.have.clone());
        haves.max_by_key(|have| have.chunks.iter().last().map_or(0, |range| range.end))
    }

    /// Runs until it is aborted.
    pub async fn run(mut self, mut behaviour: Behaviour) {
        let mut batch = Vec::new();
        loop {
            let _ = tokio::time::timeout(Duration::from_millis(20), self.link.inputs(&mut batch, 64)).await;
            for input in std::mem::take(&mut batch) {
                self.take(input, &mut behaviour);
            }
            for peer in self.peers.keys().copied().collect::<Vec<_>>() {
                behaviour(&mut self, peer, Happening::Tick);
            }
        }
    }

    fn take(&mut self, input: Input, behaviour: &mut Behaviour) {
        match input {
            Input::Connected(connected) => {
                self.peers.insert(connected.peer, Seen::default());
                self.greet(connected.peer);
                behaviour(self, connected.peer, Happening::Connected);
            }
            Input::Disconnected(peer) => {
                self.peers.remove(&peer);
                self.account.lock().expect("whole").closed += 1;
            }
            Input::Control(peer, frame) => {
                let messages =
                    Messages::open(frame).expect("honest frames").map(|m| m.expect("honest messages"));
                for message in messages.collect::<Vec<_>>() {
                    match &message {
                        Message::Have(have) => {
                            let seen = self.peers.entry(peer).or_default();
                            let mut have = have.clone();
                            if have.segment_starts.is_empty()
                                && let Some(old) = &seen.have
                            {
                                have.segment_starts.clone_from(&old.segment_starts);
                            }
                            seen.have = Some(have);
                        }
                        Message::Handshake(handshake) if handshake.source => self.source = Some(peer),
                        Message::Certificate(bytes) => {
                            self.account.lock().expect("whole").certificate = Some(bytes.clone());
                        }
                        Message::LiveNote(bytes) => {
                            self.account.lock().expect("whole").note = Some(bytes.clone());
                        }
                        Message::Ping(number) => self.say(peer, &[Message::Pong(*number)]),
                        _ => {}
                    }
                    behaviour(self, peer, Happening::Said(message));
                }
            }
            Input::ChunkStream(peer, stream) => {
                let (_, chunk) = ChunkHead::decode(stream).expect("honest chunks");
                let number = chunk.header().number;
                self.peers.entry(peer).or_default().chunks.insert(number, chunk);
                behaviour(self, peer, Happening::Chunk);
            }
            _ => {}
        }
    }
}

/// Makes a tracker hand this node out to viewers.
pub async fn register(tracker: &str, node: &Node, key: SecretKey) -> TrackerClient {
    let url: TrackerUrl = tracker.parse().expect("a URL");
    let url: AllowedUrl = url.check(UrlOrigin::Typed, true).expect("typed");
    let client = TrackerClient::new(url, key).expect("a client");
    let join = Join {
        swarm: SwarmId { channel: node.channel, rendition: RenditionId(0) },
        ports: &[node.addr.port()],
        addresses: &[node.addr],
        upload_bps: Some(100_000_000),
        peer_count: 0,
        source: None,
    };
    client.connect(&join).await.expect("registered");
    client
}
