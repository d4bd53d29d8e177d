//! One engine, real keys, and neighbours that speak of others: whom it believes, whom it dials, what it tells, what it costs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use caudal_proto::chunk::Ed25519Verifier;
use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::id::{ChannelId, PeerId, RenditionId, SIGNATURE_LEN, SecretKey};
use caudal_proto::io::{Candidate, CloseCode, Connected, Event, Input, Output, Transmit};
use caudal_proto::record::{Ed25519Records, PeerRecord, RECORD_LIFETIME, Record, RecordKeys};
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::{
    FrameReader, FrameWriter, Handshake, Message, Messages, PEX_LEN_MAX, Reject, RejectReason,
};

const CHANNEL: ChannelId = ChannelId([8; 32]);
const UNIX_START_S: u64 = 1_800_000_000;
const S: fn(u64) -> Duration = Duration::from_secs;

fn key(n: u16) -> SecretKey {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_bytes(&seed)
}

fn id(n: u16) -> PeerId {
    PeerId(key(n).public())
}

/// Each peer's own host.
fn addr(n: u16) -> SocketAddr {
    let [a, b] = n.to_be_bytes();
    ([8, 8, a, b], 4000).into()
}

fn handshake() -> Message {
    Message::Handshake(Handshake {
        channel: CHANNEL,
        rendition: RenditionId(0),
        source: false,
        upload_kbps: 9_000,
    })
}

/// Real keys that count what is checked.
struct Counted(Ed25519Records, Arc<AtomicU64>);

impl RecordKeys for Counted {
    fn sign(&mut self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message)
    }

    fn verify(&mut self, peer: &PeerId, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify(peer, message, signature)
    }
}

/// A viewer, and what it did.
struct Bench {
    engine: Engine,
    now: Timestamp,
    checks: Arc<AtomicU64>,
    said: Vec<(PeerId, Message)>,
    dialled: Vec<(PeerId, Vec<SocketAddr>)>,
    dropped: Vec<(PeerId, String)>,
    refused: Vec<PeerId>,
    sent_away: Vec<PeerId>,
}

impl Bench {
    fn new() -> Self {
        let checks = Arc::new(AtomicU64::new(0));
        let mut bench = Self {
            engine: Engine::new(EngineConfig { local: id(0), seed: 5, upload_limit_bps: None }),
            now: Timestamp::from_millis(1),
            checks: Arc::clone(&checks),
            said: Vec::new(),
            dialled: Vec::new(),
            dropped: Vec::new(),
            refused: Vec::new(),
            sent_away: Vec::new(),
        };
        bench.input(Input::UnixTime(UNIX_START_S * 1_000_000));
        bench.input(Input::Open(Box::new(SwarmConfig {
            channel: CHANNEL,
            rendition: RenditionId(0),
            role: Role::Viewer,
            upload: true,
            retention: S(60),
            lan: false,
            policy: Policy::default(),
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Counted(Ed25519Records(key(0)), checks)),
            network_map: None,
        })));
        bench
    }

    fn input(&mut self, input: Input) {
        self.engine.handle_input(self.now, input);
        loop {
            match self.engine.poll_output() {
                Output::Transmit(Transmit::Control { peer, bytes }) => {
                    let mut reader = FrameReader::default();
                    reader.extend(&bytes);
                    while let Ok(Some(frame)) = reader.next_frame() {
                        let messages = Messages::open(frame).unwrap().map(|message| (peer, message.unwrap()));
                        self.said.extend(messages);
                    }
                }
                Output::Transmit(Transmit::Connect { peer, addrs }) => self.dialled.push((peer, addrs)),
                Output::Transmit(Transmit::Disconnect { peer, code: CloseCode::Misbehaviour }) => {
                    self.refused.push(peer);
                }
                Output::Transmit(Transmit::Disconnect { peer, code: CloseCode::Full }) => {
                    self.sent_away.push(peer);
                }
                Output::Event(Event::Dropped { peer, reason, .. }) => self.dropped.push((peer, reason)),
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }

    /// Peer `n` dials in from its host.
    fn connect(&mut self, n: u16) {
        self.connect_and_say(n, &[]);
    }

    fn connect_and_say(&mut self, n: u16, also: &[Message]) {
        let connected =
            Connected { peer: id(n), addr: Some(addr(n)), rtt: Duration::from_millis(20), dialled: false };
        self.input(Input::Connected(connected));
        let first = [vec![handshake()], also.to_vec()].concat();
        self.say_all(n, &first);
    }

    fn say(&mut self, n: u16, message: &Message) {
        self.say_all(n, core::slice::from_ref(message));
    }

    /// Messages of one frame.
    fn say_all(&mut self, n: u16, messages: &[Message]) {
        let (mut writer, mut bytes) = (FrameWriter::new(0), BytesMut::new());
        for message in messages {
            bytes.extend(writer.push(message));
        }
        bytes.extend(writer.finish());
        let mut reader = FrameReader::default();
        reader.extend(&bytes);
        while let Ok(Some(frame)) = reader.next_frame() {
            self.input(Input::Control(id(n), frame));
        }
    }

    /// Time passes; PINGs are answered, dials fail.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(100);
            self.input(Input::Tick);
            let pings: Vec<(PeerId, u32)> = self
                .said
                .extract_if(.., |(_, message)| matches!(message, Message::Ping(_)))
                .filter_map(|(peer, message)| match message {
                    Message::Ping(number) => Some((peer, number)),
                    _ => None,
                })
                .collect();
            for (peer, number) in pings {
                let n = (0..100).find(|n| id(*n) == peer).unwrap();
                self.say(n, &Message::Pong(number));
            }
            for place in 0..self.dialled.len() {
                self.input(Input::DialFailed(self.dialled[place].0));
            }
        }
    }

    fn unix_s(&self) -> u32 {
        (UNIX_START_S + self.now.as_micros() / 1_000_000) as u32
    }

    /// What `n` signs of itself.
    fn record(&self, n: u16) -> Record {
        Record::sign(&mut Ed25519Records(key(n)), &CHANNEL, addr(n), self.unix_s() + 300)
    }

    fn told(&self, n: u16) -> PeerRecord {
        PeerRecord { peer: id(n), record: self.record(n) }
    }

    fn checked(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    fn has_dialled(&self, n: u16) -> bool {
        self.dialled.iter().any(|(peer, addrs)| *peer == id(n) && *addrs == [addr(n)])
    }

    /// The records of itself that it sent to `n`.
    fn own_records(&self, n: u16) -> Vec<Record> {
        let to = self.said.iter().filter(|(peer, _)| *peer == id(n));
        to.filter_map(|(_, message)| if let Message::Record(record) = message { Some(*record) } else { None })
            .collect()
    }

    /// Whom it named to `n`.
    fn named_to(&self, n: u16) -> BTreeSet<PeerId> {
        let to = self.said.iter().filter(|(peer, _)| *peer == id(n));
        to.filter_map(|(_, message)| if let Message::Pex(told) = message { Some(told) } else { None })
            .flatten()
            .map(|told| told.peer)
            .collect()
    }
}

#[test]
fn whoever_signed_it_is_dialled_where_it_says() {
    let mut bench = Bench::new();
    bench.connect(1);
    bench.say(1, &Message::Pex(vec![bench.told(50)]));
    bench.run(S(2));
    assert!(bench.has_dialled(50), "{:?}", bench.dialled);
    assert!(bench.dropped.is_empty(), "{:?}", bench.dropped);
}

#[test]
fn whoever_passes_on_what_its_subject_did_not_sign_is_dropped() {
    let good = Bench::new().told(50);
    let change = |change: fn(&mut PeerRecord)| {
        let mut told = good;
        change(&mut told);
        told
    };
    let other_channel =
        Record::sign(&mut Ed25519Records(key(50)), &ChannelId([9; 32]), addr(50), good.record.expires_unix_s);
    let forged = [
        change(|told| told.peer = id(51)),
        change(|told| told.record.addr = addr(51)),
        change(|told| told.record.addr.set_port(4001)),
        change(|told| told.record.expires_unix_s += 1),
        change(|told| told.record.signature[9] ^= 1),
        PeerRecord { record: other_channel, ..good },
    ];
    for (which, told) in forged.into_iter().enumerate() {
        let mut bench = Bench::new();
        bench.connect(1);
        bench.say(1, &Message::Pex(vec![told]));
        bench.run(S(2));
        assert!(bench.dialled.is_empty(), "{which}: {:?}", bench.dialled);
        assert_eq!(bench.refused, [id(1)], "{which}");
        assert!(bench.dropped[0].1.contains("forged peer record"), "{:?}", bench.dropped);
    }
}

#[test]
fn what_is_over_or_claims_too_much_or_points_inwards_is_ignored_unread() {
    let mut bench = Bench::new();
    bench.connect(1);
    bench.run(S(20));
    let unix_s = bench.unix_s();
    let most = unix_s + RECORD_LIFETIME.as_secs() as u32 + 30;
    let sign = |n: u16, addr: SocketAddr, expires_unix_s: u32| PeerRecord {
        peer: id(n),
        record: Record::sign(&mut Ed25519Records(key(n)), &CHANNEL, addr, expires_unix_s),
    };
    let inwards = |text: &str| sign(54, text.parse().unwrap(), unix_s + 60);
    let bad = [
        sign(51, addr(51), unix_s),
        sign(52, addr(52), unix_s - 4000),
        sign(53, addr(53), most + 2),
        sign(53, addr(53), u32::MAX),
        inwards("192.168.1.1:80"),
        inwards("127.0.0.1:4000"),
        inwards("169.254.169.254:80"),
        inwards("[::ffff:8.8.8.8]:53"),
        inwards("8.8.8.8:0"),
        sign(0, addr(0), unix_s + 60),
        sign(1, addr(1), unix_s + 60),
    ];
    for told in bad {
        bench.say(1, &Message::Pex(vec![told]));
    }
    bench.run(S(2));
    assert_eq!((bench.checked(), bench.dialled.len(), bench.dropped.len()), (0, 0, 0), "{:?}", bench.dropped);
    // Clocks may be half a minute apart.
    bench.say(1, &Message::Pex(vec![sign(55, addr(55), most)]));
    bench.run(S(2));
    assert!(bench.has_dialled(55));
}

#[test]
fn a_neighbour_is_named_to_others_only_by_a_record_for_where_it_is_connected() {
    let mut bench = Bench::new();
    for n in 1..8 {
        bench.connect(n);
    }
    let elsewhere = Record::sign(&mut Ed25519Records(key(2)), &CHANNEL, addr(60), bench.unix_s() + 300);
    bench.say(1, &Message::Record(bench.record(1)));
    bench.say(2, &Message::Record(elsewhere));
    bench.say(3, &Message::Record(bench.record(2)));
    let eternal = Record::sign(&mut Ed25519Records(key(4)), &CHANNEL, addr(4), bench.unix_s() + 3600);
    bench.say(4, &Message::Record(eternal));
    bench.say(7, &Message::Pex(Vec::new()));
    assert_eq!(bench.named_to(7), BTreeSet::from([id(1)]));
    assert!(bench.dropped.is_empty(), "{:?}", bench.dropped);
    // Its own word, with a signature that is not its own.
    let mut forged = bench.record(5);
    forged.signature = bench.record(6).signature;
    bench.say(5, &Message::Record(forged));
    assert_eq!(bench.refused, [id(5)]);
}

#[test]
fn records_are_passed_on_while_they_hold_and_the_connection_lives() {
    let mut bench = Bench::new();
    for n in 1..6 {
        bench.connect(n);
        bench.say(n, &Message::Record(bench.record(n)));
    }
    let ask = |bench: &mut Bench| {
        bench.said.clear();
        bench.say(5, &Message::Pex(Vec::new()));
        bench.named_to(5)
    };
    assert_eq!(ask(&mut bench), BTreeSet::from([id(1), id(2), id(3), id(4)]));
    assert_eq!(ask(&mut bench), BTreeSet::new(), "who asks again at once is not answered");
    bench.input(Input::Disconnected(id(2)));
    bench.run(S(200));
    bench.say(3, &Message::Record(bench.record(3)));
    bench.run(S(50));
    assert_eq!(ask(&mut bench), BTreeSet::from([id(3)]), "the others end within the minute");
    bench.run(S(300));
    assert_eq!(ask(&mut bench), BTreeSet::new(), "nobody renewed anything");
}

#[test]
fn neighbours_are_told_where_they_are_seen_and_given_a_record_for_where_they_see_this_node() {
    let mut bench = Bench::new();
    bench.connect(1);
    assert!(bench.said.contains(&(id(1), Message::Seen(addr(1)))), "{:?}", bench.said);
    assert!(bench.own_records(1).is_empty(), "nobody has told it yet");
    bench.say(1, &Message::Seen(addr(0)));
    let [record] = bench.own_records(1)[..] else { panic!("one record: {:?}", bench.said) };
    assert_eq!((record.addr, record.expires_unix_s), (addr(0), bench.unix_s() + 600));
    assert!(record.verify(&mut Ed25519Records(key(9)), &CHANNEL, &id(0)));
    // The next one has it in the first flight, and a repeated word changes nothing.
    bench.connect(2);
    assert_eq!(bench.own_records(2), [record]);
    bench.say(2, &Message::Seen(addr(0)));
    bench.say(1, &Message::Seen(addr(0)));
    assert_eq!((bench.own_records(1).len(), bench.own_records(2).len()), (1, 1));
    // It is renewed well before it ends.
    bench.run(S(400));
    let renewed = bench.own_records(1)[1];
    assert!(renewed.expires_unix_s >= record.expires_unix_s + 300, "{renewed:?}");
    assert_eq!((renewed.addr, bench.own_records(2).len()), (addr(0), 2));
    // A clock that was put right makes what was signed before wrong.
    let unix_us = (UNIX_START_S + 3600) * 1_000_000 + bench.now.as_micros();
    bench.input(Input::UnixTime(unix_us));
    bench.run(S(3));
    assert!(bench.own_records(1)[2].expires_unix_s >= renewed.expires_unix_s + 3500);
}

#[test]
fn a_node_does_not_sign_that_it_is_where_most_neighbours_do_not_see_it() {
    let mut bench = Bench::new();
    for n in 1..=3 {
        bench.connect(n);
        bench.say(n, &Message::Seen(addr(0)));
    }
    bench.connect(4);
    let victim = "1.2.3.4:53".parse().unwrap();
    bench.say(4, &Message::Seen(victim));
    // Of another family than the connection's, and such as nobody could dial.
    bench.say(4, &Message::Seen("[2606:4700::1111]:53".parse().unwrap()));
    bench.say(4, &Message::Seen("169.254.169.254:80".parse().unwrap()));
    bench.run(S(5));
    let all: BTreeSet<SocketAddr> = (1..5).flat_map(|n| bench.own_records(n)).map(|r| r.addr).collect();
    assert_eq!(all, BTreeSet::from([addr(0)]));
    // One liar does not keep it from signing what is right.
    bench.connect(5);
    bench.say(5, &Message::Seen(addr(0)));
    assert_eq!(bench.own_records(5).len(), 1);
}

#[test]
fn a_flood_of_records_costs_a_bounded_number_of_signatures() {
    let mut bench = Bench::new();
    bench.connect(1);
    let mut n = 100;
    for _ in 0..100 {
        for _ in 0..3 {
            let told = (n..n + PEX_LEN_MAX as u16).map(|n| bench.told(n)).collect();
            bench.say(1, &Message::Pex(told));
            n += PEX_LEN_MAX as u16;
        }
        bench.say(
            1,
            &Message::Reject(Reject {
                substream: 0,
                reason: RejectReason::Full,
                suggestions: vec![bench.told(n)],
            }),
        );
        let expires_unix_s = bench.unix_s() + u32::from(n % 600);
        let own = Record::sign(&mut Ed25519Records(key(1)), &CHANNEL, addr(1), expires_unix_s);
        bench.say(1, &Message::Record(own));
        bench.say(1, &Message::Seen(([9, 9, 9, n as u8], 1000).into()));
        bench.run(Duration::from_millis(100));
    }
    assert!((16..=16 + 6).contains(&bench.checked()), "{} in ten seconds", bench.checked());
    let signed: BTreeSet<_> = bench.own_records(1).iter().map(|record| record.addr).collect();
    assert!(signed.len() <= 21, "two signatures a second: {}", signed.len());
    assert!(bench.dropped.is_empty(), "{:?}", bench.dropped);
    // What is known is not checked again, however often it is told.
    let mut bench = Bench::new();
    bench.connect(1);
    for _ in 0..50 {
        bench.say(1, &Message::Pex(vec![bench.told(50)]));
    }
    assert_eq!(bench.checked(), 1);
}

#[test]
fn who_leaves_and_comes_back_has_no_more_checked() {
    let mut bench = Bench::new();
    let mut n = 100;
    for _ in 0..10 {
        bench.connect(1);
        for _ in 0..5 {
            bench.say(1, &Message::Pex((n..n + 4).map(|n| bench.told(n)).collect()));
            n += 4;
        }
        bench.input(Input::Disconnected(id(1)));
    }
    assert!(bench.checked() <= 17, "{}", bench.checked());
}

#[test]
fn who_finds_no_place_and_knows_nobody_is_told_whom_to_try_before_it_goes() {
    let mut bench = Bench::new();
    let max = Policy::default().neighbours_max as u16;
    for n in 1..=max {
        bench.connect(n);
        bench.say(n, &Message::Record(bench.record(n)));
    }
    bench.connect(39);
    assert_eq!(bench.sent_away, [id(39)], "it does not ask");
    for n in 40..50 {
        bench.connect_and_say(n, &[Message::Pex(Vec::new())]);
        // What it says meanwhile is nobody's.
        bench.say(n, &Message::Pex(vec![bench.told(60)]));
    }
    let told: Vec<u16> = (39..50).filter(|n| bench.named_to(*n).len() == PEX_LEN_MAX).collect();
    assert_eq!(told, [40, 41], "a few at a time");
    assert_eq!(bench.sent_away[1..], (42..50).map(id).collect::<Vec<_>>(), "the others go at once");
    bench.run(Duration::from_millis(1500));
    assert_eq!(bench.sent_away[9..], [id(40), id(41)]);
    assert_eq!((bench.dialled.len(), bench.dropped.len()), (0, 0));
    bench.connect_and_say(70, &[Message::Pex(Vec::new())]);
    assert_eq!(bench.named_to(70).len(), PEX_LEN_MAX, "there is room for another");
    // Somebody goes, and whoever comes again has a place: it is not closed for having had none.
    bench.input(Input::Disconnected(id(1)));
    bench.say(70, &handshake());
    bench.run(S(2));
    assert!(!bench.sent_away.contains(&id(70)), "{:?}", bench.sent_away);
    assert!(bench.engine.stats(&CHANNEL.into()).unwrap().neighbours.iter().any(|n| n.peer == id(70)));
}

#[test]
fn who_knows_nobody_else_asks_whomever_it_meets() {
    let mut bench = Bench::new();
    bench.connect(1);
    assert!(bench.said.contains(&(id(1), Message::Pex(Vec::new()))), "{:?}", bench.said);
    // Whom it may dial it asks nobody for.
    let (peer, addrs) = (id(60), vec![addr(60)]);
    bench.input(Input::Candidates(CHANNEL.into(), vec![Candidate { peer, addrs, source: false, cost: 0 }]));
    bench.connect(2);
    assert!(!bench.said.contains(&(id(2), Message::Pex(Vec::new()))), "{:?}", bench.said);
}
