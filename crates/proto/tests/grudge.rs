//! One engine and peers who mean no good: what they did counts when they come back, and what they hold up is theirs alone.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caudal_proto::broadcast::{Certificate, CertificateTerms};
use caudal_proto::chunk::{Ed25519Verifier, Flags, PartIn, Signer};
use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::io::{ChunkOutcome, ChunkToken, CloseCode, Connected, Event, Input, Output, Transmit};
use caudal_proto::record::Ed25519Records;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::{
    Attach, ChunkHead, FrameReader, FrameWriter, Handshake, Message, Messages, RangeList, Request,
};

const MS: fn(u64) -> Duration = Duration::from_millis;
const UNIX_START_US: u64 = 1_800_000_000_000_000;
const EPOCH: u64 = UNIX_START_US / 1000;

/// A source (or a viewer that follows its broadcast), and what it did.
struct Bench {
    engine: Engine,
    now: Timestamp,
    channel: ChannelId,
    signer: Signer,
    parts: u64,
    /// Chunk bytes sent to each peer.
    sent: BTreeMap<PeerId, usize>,
    /// Round trip of those who acknowledge, and the acknowledgements on their way.
    honest: BTreeMap<PeerId, Duration>,
    acks: Vec<(Timestamp, PeerId, ChunkToken)>,
    /// What everybody answers, at once.
    pings: Vec<(PeerId, u32)>,
    dropped: Vec<(PeerId, String)>,
    refused: Vec<PeerId>,
    sent_away: Vec<PeerId>,
}

fn id(n: u8) -> PeerId {
    let mut id = [0; 32];
    id[0] = n;
    PeerId(id)
}

impl Bench {
    fn new(is_source: bool, copies_percent: Option<u32>) -> Self {
        let (channel_key, key) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let channel = channel_key.channel();
        let terms = CertificateTerms {
            epoch: EPOCH,
            not_before_unix_us: UNIX_START_US,
            not_after_unix_us: UNIX_START_US + 86_400_000_000,
            substreams: 8,
            rate_bps: 1_000_000,
        };
        let certificate = Certificate::sign(&channel_key, BroadcastId(key.public()), terms);
        let role =
            if is_source { Role::Source { certificate, copies_percent, alone: false } } else { Role::Viewer };
        let mut bench = Self {
            engine: Engine::new(EngineConfig { local: id(1), seed: 5, upload_limit_bps: None }),
            now: Timestamp::from_millis(1),
            channel,
            signer: Signer::new(key, channel, EPOCH, RenditionId(0), 5300),
            parts: 0,
            sent: BTreeMap::new(),
            honest: BTreeMap::new(),
            acks: Vec::new(),
            pings: Vec::new(),
            dropped: Vec::new(),
            refused: Vec::new(),
            sent_away: Vec::new(),
        };
        bench.input(Input::UnixTime(UNIX_START_US));
        bench.input(Input::Open(Box::new(SwarmConfig {
            channel,
            rendition: RenditionId(0),
            role,
            upload: true,
            retention: Duration::from_secs(60),
            lan: true,
            policy: Policy::default(),
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Ed25519Records(SecretKey::from_bytes(&[3; 32]))),
            network_map: None,
        })));
        if !is_source {
            bench.input(Input::Broadcast(channel.into(), certificate, None));
        }
        bench
    }

    fn input(&mut self, input: Input) {
        self.engine.handle_input(self.now, input);
        loop {
            match self.engine.poll_output() {
                Output::Transmit(Transmit::Chunk { peer, token, body, .. }) => {
                    *self.sent.entry(peer).or_default() += body.len();
                    let rtt = self.honest.get(&peer);
                    self.acks.extend(rtt.map(|rtt| (self.now + *rtt, peer, token)));
                }
                Output::Transmit(Transmit::Control { peer, bytes }) => {
                    let mut reader = FrameReader::default();
                    reader.extend(&bytes);
                    while let Ok(Some(frame)) = reader.next_frame() {
                        let pings = Messages::open(frame).unwrap().filter_map(|message| match message {
                            Ok(Message::Ping(number)) => Some((peer, number)),
                            _ => None,
                        });
                        self.pings.extend(pings);
                    }
                }
                Output::Transmit(Transmit::Disconnect { peer, code: CloseCode::Misbehaviour }) => {
                    self.refused.push(peer);
                }
                Output::Transmit(Transmit::Disconnect { peer, code: CloseCode::Full }) => {
                    self.sent_away.push(peer);
                }
                Output::Event(Event::Dropped { peer, reason, .. }) => self.dropped.push((peer, reason)),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
    }

    fn connect(&mut self, peer: PeerId, rtt: Duration) {
        self.connect_with(peer, rtt, 9_000);
    }

    fn connect_with(&mut self, peer: PeerId, rtt: Duration, upload_kbps: u32) {
        let addr = Some(([127, 0, 0, 1], 4433).into());
        self.input(Input::Connected(Connected { peer, addr, rtt, dialled: false }));
        self.greet_with(peer, upload_kbps);
    }

    fn greet(&mut self, peer: PeerId) {
        self.greet_with(peer, 9_000);
    }

    fn greet_with(&mut self, peer: PeerId, upload_kbps: u32) {
        let handshake =
            Handshake { channel: self.channel, rendition: RenditionId(0), source: false, upload_kbps };
        self.say(peer, &Message::Handshake(handshake));
    }

    fn say(&mut self, peer: PeerId, message: &Message) {
        let (mut writer, mut bytes) = (FrameWriter::new(0), BytesMut::new());
        bytes.extend(writer.push(message));
        bytes.extend(writer.finish());
        let mut reader = FrameReader::default();
        reader.extend(&bytes);
        while let Ok(Some(frame)) = reader.next_frame() {
            self.input(Input::Control(peer, frame));
        }
    }

    /// A chunk that nobody signed, as of the broadcast `epoch`.
    fn forge(&mut self, peer: PeerId, epoch: u64, number: u64) {
        let key = SecretKey::from_bytes(&[66; 32]);
        let mut signer = Signer::new(key, self.channel, epoch, RenditionId(0), 5300);
        let part = PartIn {
            flags: Flags::default(),
            capture_unix_us: UNIX_START_US,
            payload: Bytes::from_static(&[9; 100]),
        };
        let mut body = signer.sign(&part, UNIX_START_US).remove(0).encoded().to_vec();
        body[8..16].copy_from_slice(&number.to_be_bytes());
        let mut stream = BytesMut::new();
        stream.extend_from_slice(&ChunkHead { handle: 0, requested: false, lag_ms: 0 }.encode());
        stream.extend_from_slice(&body);
        self.input(Input::ChunkStream(peer, stream.freeze()));
    }

    /// Publishes in real time; who is honest acknowledges.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS(5);
            let now = self.now;
            let due: Vec<_> = self.acks.extract_if(.., |ack| ack.0 <= now).collect();
            for (_, peer, token) in due {
                self.input(Input::ChunkDone(peer, token, ChunkOutcome::Delivered));
            }
            if self.now.as_micros() / 200_000 > self.parts {
                self.parts += 1;
                let unix_us = UNIX_START_US + self.now.as_micros();
                let begins = self.parts % 5 == 1;
                let flags = Flags::default().with(Flags::SEGMENT_START, begins).with(Flags::INIT, begins);
                let payload = vec![1; 25_000].into();
                let part = PartIn { flags, capture_unix_us: unix_us - 200_000, payload };
                let chunks = self.signer.sign(&part, unix_us);
                self.input(Input::Publish(self.channel.into(), chunks));
            }
            for (peer, number) in std::mem::take(&mut self.pings) {
                self.say(peer, &Message::Pong(number));
            }
            self.input(Input::Tick);
        }
    }
}

#[test]
fn an_unasked_forgery_drops_its_sender_at_once() {
    let mut bench = Bench::new(true, None);
    bench.connect(id(100), MS(10));
    bench.run(MS(1000));
    bench.forge(id(100), EPOCH, 1_000_000);
    assert_eq!(bench.dropped.len(), 1);
    assert!(bench.dropped[0].1.contains("forged"), "{:?}", bench.dropped);
}

#[test]
fn strikes_outlive_a_goodbye_and_a_connection() {
    for reconnects in [false, true] {
        let mut bench = Bench::new(true, None);
        let peer = id(100);
        bench.connect(peer, MS(10));
        bench.run(MS(1000));
        // Chunks of a newer broadcast than there is: nobody can have them.
        let mut offences = 0;
        while bench.dropped.is_empty() && offences < 50 {
            bench.forge(peer, EPOCH + 1, 7);
            offences += 1;
            if reconnects {
                bench.input(Input::Disconnected(peer));
                bench.connect(peer, MS(10));
            } else {
                bench.say(peer, &Message::Bye);
                bench.greet(peer);
            }
            bench.run(MS(20));
        }
        assert_eq!(offences, 5, "reconnects: {reconnects}");
        bench.input(Input::Disconnected(peer));
        bench.refused.clear();
        bench.connect(peer, MS(10));
        assert_eq!(bench.refused, [peer], "and is not taken again");
    }
}

#[test]
fn yesterdays_broadcast_is_no_excuse_for_who_came_today() {
    let mut bench = Bench::new(false, None);
    bench.connect(id(100), MS(10));
    let mut offences = 0;
    while bench.dropped.is_empty() && offences < 50 {
        bench.forge(id(100), EPOCH - 86_400_000, offences);
        offences += 1;
    }
    assert_eq!(offences, 5);
}

#[test]
fn who_acknowledges_nothing_holds_up_nobody_else() {
    let mut bench = Bench::new(true, Some(200));
    bench.run(MS(1000));
    for n in 0..3 {
        bench.connect(id(100 + n), MS(60));
        for _ in 0..5 {
            let edge = bench.signer.next_number();
            let chunks = RangeList::from_numbers(edge.saturating_sub(20)..edge);
            bench.say(id(100 + n), &Message::Request(Request { deadline_ms: 400, joining: true, chunks }));
            bench.run(MS(100));
        }
    }
    let honest = id(50);
    bench.honest.insert(honest, MS(20));
    bench.connect(honest, MS(10));
    for substream in 0..8 {
        let attach = Attach { substream, interior: true, urgent: true, upload_kbps: 4_000, from: 0 };
        bench.say(honest, &Message::Attach(attach));
    }
    bench.run(Duration::from_secs(20));
    // 20 s of 1 Mbit/s, but for what passes until they are seen through.
    assert!(bench.sent[&honest] > 2_000_000, "{}", bench.sent[&honest]);
}

#[test]
fn requests_that_expire_at_once_use_up_nothing() {
    let mut bench = Bench::new(true, Some(200));
    for n in [50, 51] {
        bench.honest.insert(id(n), MS(20));
        bench.connect(id(n), MS(10));
    }
    bench.connect(id(100), MS(10));
    bench.run(MS(5000));
    for _ in 0..50 {
        let edge = bench.signer.next_number();
        let chunks = RangeList::from_numbers(edge.saturating_sub(64)..edge);
        bench.say(id(100), &Message::Request(Request { deadline_ms: 0, joining: false, chunks }));
        bench.run(MS(50));
    }
    let before = bench.sent.get(&id(51)).copied().unwrap_or(0);
    let edge = bench.signer.next_number();
    let chunks = RangeList::from_numbers(edge - 40..edge - 36);
    bench.say(id(51), &Message::Request(Request { deadline_ms: 400, joining: false, chunks }));
    bench.run(MS(500));
    assert!(bench.sent.get(&id(51)).copied().unwrap_or(0) - before > 4 * 4_000, "its repair was served");
}

#[test]
fn who_is_about_to_give_up_is_served_though_others_have_used_up_what_there_was() {
    let mut bench = Bench::new(true, Some(200));
    let last = id(60);
    for peer in (50..58).map(id).chain([last]) {
        bench.honest.insert(peer, MS(20));
        bench.connect(peer, MS(10));
    }
    // Chunks of which the youngest is `age` old.
    let ask = |bench: &mut Bench, peer: PeerId, age: Duration, count: u64| {
        let to = bench.signer.next_number() - age.as_millis() as u64 / 40;
        let chunks = RangeList::from_numbers(to - count..to);
        bench.say(peer, &Message::Request(Request { deadline_ms: 400, joining: false, chunks }));
    };
    // What `last` is sent of three chunks of that age, while others ask for whatever is 1.4 to 2.8 s old.
    let served = |bench: &mut Bench, age: Duration| {
        let before = bench.sent.get(&last).copied().unwrap_or(0);
        for n in 0..40 {
            ask(bench, id(50 + n % 8), MS(1400), 35);
            if n >= 35 {
                ask(bench, last, age, 1);
            }
            bench.run(MS(100));
        }
        bench.sent.get(&last).copied().unwrap_or(0) - before
    };
    bench.run(MS(6000));
    assert_eq!(served(&mut bench, MS(2000)), 0, "the copies are spent, and so is what old holes may have");
    let sent = served(&mut bench, MS(5000));
    assert!(sent >= 3 * 5_000, "nobody can wait for longer: {sent}");
    // What is asked for and not taken uses up nothing.
    bench.connect(id(100), MS(10));
    let before = bench.sent[&last];
    for n in 0..20 {
        let to = bench.signer.next_number() - 130 - n;
        let chunks = RangeList::from_numbers(to - 60..to);
        bench.say(id(100), &Message::Request(Request { deadline_ms: 0, joining: false, chunks }));
        bench.run(MS(5));
    }
    ask(&mut bench, last, MS(7000), 3);
    bench.run(MS(50));
    assert_eq!(bench.sent.get(&id(100)), None);
    assert!(bench.sent[&last] - before > 2 * 5_000);
}

#[test]
fn who_came_first_stays_with_a_source_whatever_others_claim() {
    // Fewer copies than neighbours: most are fed nothing.
    let mut bench = Bench::new(true, Some(100));
    bench.run(MS(1000));
    for n in 0..20 {
        bench.connect_with(id(10 + n), MS(10), 500);
        bench.run(MS(20));
    }
    for n in 0..120 {
        bench.connect_with(id(100 + n), MS(10), 900_000);
        bench.run(MS(20));
    }
    let first = (10..30).filter(|n| !bench.sent_away.contains(&id(*n))).count();
    assert!((8..=12).contains(&first), "{first} of those who came first are left");
    assert!(bench.sent_away.iter().any(|peer| *peer >= id(100)), "a great word is no better than another");
}

#[test]
fn who_asks_for_more_than_anybody_can_want_is_dropped_and_a_crisis_is_not_more() {
    let mut bench = Bench::new(false, None);
    bench.connect(id(100), MS(10));
    bench.connect(id(101), MS(10));
    let ask = |bench: &mut Bench, peer, chunks: u64| {
        let chunks = RangeList::from_ranges(std::iter::once(1000..1000 + chunks));
        bench.say(peer, &Message::Request(Request { deadline_ms: 500, joining: false, chunks }));
    };
    // Twelve at a time, refused each time, ten times a second, for a minute.
    for _ in 0..600 {
        ask(&mut bench, id(100), 12);
        bench.run(MS(100));
    }
    assert_eq!(bench.dropped, []);
    for _ in 0..100 {
        ask(&mut bench, id(101), 64);
        bench.run(MS(100));
    }
    assert_eq!(bench.dropped, [(id(101), "floods with requests".to_owned())]);
    assert_eq!(bench.refused.last(), Some(&id(101)));
}
