//! Anything may be handed to an engine, in any order: it never panics, and its tables stay within their limits.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Ed25519Verifier, Flags, PartIn, Signer, VerifiedChunk};
use caudal_proto::engine::{CONNECTIONS_MAX, Engine, EngineConfig};
use caudal_proto::hop::{Forward, Hop, HopReport, Tracing};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::io::{Candidate, ChunkOutcome, ChunkToken, Connected, Input, Output, Playout, Transmit};
use caudal_proto::record::{Ed25519Records, PeerRecord, Record};
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig};
use caudal_proto::time::Timestamp;
use caudal_proto::wire::{
    Accept, Attach, ChunkHead, FrameReader, FrameWriter, Handshake, Have, Message, RangeList, RefuseReason,
    Reject, RejectReason, Request, SegmentStart, State, SubstreamState, Trace,
};

const UNIX_US: u64 = 1_800_000_000_000_000;
/// Peers that speak.
const PEERS: u8 = 30;
/// The key of the engine that listens.
const LOCAL: u8 = 200;

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

fn addr(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1000 + index as u16))
}

struct Fuzz {
    rng: fastrand::Rng,
    peers: Vec<PeerId>,
    channel: ChannelId,
    certificates: Vec<Certificate>,
    notes: Vec<LiveNote>,
    chunks: Vec<VerifiedChunk>,
    tokens: Vec<(PeerId, ChunkToken)>,
}

impl Fuzz {
    fn new(seed: u64) -> Self {
        let (key, broadcast) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let (mut certificates, mut notes, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        for epoch in 1..4 {
            let terms = CertificateTerms {
                epoch,
                not_before_unix_us: UNIX_US - 1_000_000,
                not_after_unix_us: UNIX_US + 3_600_000_000,
                substreams: 4 * epoch as u8,
                rate_bps: 1_000_000,
            };
            certificates.push(Certificate::sign(&key, BroadcastId(broadcast.public()), terms));
            let mut signer =
                Signer::new(broadcast.clone(), key.channel(), epoch, RenditionId(0), 1024).with_traced(3);
            for part in 0..20u64 {
                let unix_us = UNIX_US + part * 200_000;
                let flags = Flags::default().with(Flags::SEGMENT_START, part % 5 == 0);
                let payload = Bytes::from(vec![part as u8; 3_000]);
                chunks.extend(signer.sign(&PartIn { flags, capture_unix_us: unix_us, payload }, unix_us));
                let (next, ended) = (signer.next_number(), part == 19);
                notes.push(LiveNote::sign(&broadcast, key.channel(), epoch, next, unix_us, ended));
            }
        }
        let rng = fastrand::Rng::with_seed(seed);
        let peers = (0..PEERS).map(|n| PeerId(self::key(n).public())).collect();
        Self { rng, peers, channel: key.channel(), certificates, notes, chunks, tokens: Vec::new() }
    }

    fn peer(&mut self) -> PeerId {
        Self::pick(&mut self.rng, &self.peers)
    }

    fn pick<T: Clone>(rng: &mut fastrand::Rng, all: &[T]) -> T {
        all[rng.usize(..all.len())].clone()
    }

    fn number(&mut self) -> u64 {
        match self.rng.u8(..8) {
            0 => self.rng.u64(..),
            1 => 1 << self.rng.u32(..64),
            _ => self.rng.u64(..80),
        }
    }

    fn ranges(&mut self) -> RangeList {
        let mut ends: Vec<u64> = (0..self.rng.usize(1..8) * 2).map(|_| self.number()).collect();
        ends.sort_unstable();
        RangeList::from_ranges(ends.chunks(2).map(|pair| pair[0]..pair[1]))
    }

    fn path(&mut self) -> Accept {
        let path = (0..self.rng.usize(..24)).map(|_| self.peer().tag()).collect();
        Accept { substream: self.rng.u8(..16), path }
    }

    /// A record of `peer`, now and then one that is not, of another channel, or of another time.
    fn record(&mut self, peer: PeerId) -> Record {
        let addr = addr(if self.rng.bool() { 3 } else { self.rng.usize(..60) });
        let channel = if self.rng.u8(..200) == 0 { ChannelId([9; 32]) } else { self.channel };
        let expires = (UNIX_US / 1_000_000) as u32 + self.rng.u32(..700);
        let own = (0..PEERS).find(|n| self.peers[usize::from(*n)] == peer).expect("one of them");
        let mut record = Record::sign(&mut Ed25519Records(key(own)), &channel, addr, expires);
        if self.rng.u8(..100) == 0 {
            record.expires_unix_s = self.rng.u32(..);
        }
        record
    }

    fn told(&mut self) -> Vec<PeerRecord> {
        let count = self.rng.usize(..3);
        let told = |_| {
            let peer = self.peer();
            PeerRecord { peer, record: self.record(peer) }
        };
        (0..count).map(told).collect()
    }

    /// A hop report of a peer, or one that nobody signed.
    fn hop(&mut self) -> Hop {
        let own = self.rng.u8(..PEERS);
        let forward = |n: u64| Forward { to: self.peers[usize::from(own)].tag() ^ n, after_us: n as u32 };
        let forwards = (0..self.rng.u64(..32)).map(forward).collect();
        let mut report = HopReport {
            epoch: self.rng.u64(..4),
            number: self.number(),
            rendition: RenditionId(self.rng.u8(..10) / 9),
            peer: self.peers[usize::from(own)],
            from: if self.rng.bool() { 0 } else { self.rng.u64(..) },
            requested: self.rng.bool(),
            source: self.rng.bool(),
            arrived_unix_us: self.rng.u64(..),
            lag_us: self.rng.i32(..),
            hops_us: self.rng.u32(..),
            rtt_us: self.rng.u32(..),
            forwards,
            signature: [self.rng.u8(..); 64],
        };
        if self.rng.bool() {
            report.sign(&mut Ed25519Records(key(own)), &self.channel);
        }
        Hop { above: self.rng.u64(..3), report }
    }

    fn message(&mut self) -> Message {
        let substream = self.rng.u8(..16);
        match self.rng.u8(..25) {
            0 | 1 => Message::Handshake(Handshake {
                channel: self.channel,
                rendition: RenditionId(self.rng.u8(..10) / 9),
                source: self.rng.bool(),
                upload_kbps: self.rng.u32(..),
            }),
            2 => Message::Certificate(Self::pick(&mut self.rng, &self.certificates).encode().into()),
            3 => Message::LiveNote(Self::pick(&mut self.rng, &self.notes).encode().into()),
            4..7 => Message::Have(Have {
                epoch: self.rng.u64(..4),
                chunks: self.ranges(),
                segment_starts: (0..self.rng.usize(..8))
                    .map(|_| SegmentStart { number: self.number(), age_ms: self.rng.u32(..5_000) })
                    .collect(),
            }),
            7 | 8 => Message::State(State {
                upload_kbps: self.rng.u32(..),
                wait_ms: self.rng.u16(..),
                substreams: (0..self.rng.usize(..16))
                    .map(|_| SubstreamState { lag_ms: self.rng.u16(..500), accept: self.rng.u8(..) })
                    .collect(),
            }),
            9 => Message::Attach(Attach {
                substream,
                interior: self.rng.bool(),
                urgent: self.rng.bool(),
                upload_kbps: self.rng.u32(..),
                from: self.number(),
            }),
            10 => Message::Accept(self.path()),
            11 => Message::Path(self.path()),
            12 => Message::Reject(Reject {
                substream,
                reason: RejectReason::Displaced,
                suggestions: self.told(),
            }),
            13 => Message::Detach { substream },
            14 => {
                let (deadline_ms, joining) = (self.rng.u16(..), self.rng.bool());
                Message::Request(Request { deadline_ms, joining, chunks: self.ranges() })
            }
            15 => Message::Cancel(self.ranges()),
            16 => {
                let reason = if self.rng.bool() { RefuseReason::Absent } else { RefuseReason::Busy };
                Message::Refuse { reason, chunks: self.ranges() }
            }
            17 => Message::Ping(self.rng.u32(..)),
            18 | 19 => Message::Pex(self.told()),
            20 => Message::Seen(addr(self.rng.usize(..5))),
            21 => {
                let peer = self.peer();
                Message::Record(self.record(peer))
            }
            22 => Message::Trace(Trace { reports: self.rng.bool(), wants: self.rng.u8(..9) }),
            23 => Message::Hop(Box::new(self.hop())),
            _ if self.rng.u8(..10) == 0 => Message::Bye,
            _ => Message::Pong(self.rng.u32(..)),
        }
    }

    fn frame(&mut self) -> Bytes {
        if self.rng.u8(..30) == 0 {
            let mut bytes = vec![0; self.rng.usize(..200)];
            self.rng.fill(&mut bytes);
            return bytes.into();
        }
        let mut writer = FrameWriter::new(self.rng.u8(..10) / 8);
        for _ in 0..self.rng.usize(1..4) {
            let message = self.message();
            let _ = writer.push(&message);
        }
        let mut reader = FrameReader::default();
        reader.extend(&writer.finish().expect("messages"));
        reader.next_frame().expect("a frame").expect("whole")
    }

    fn stream(&mut self) -> Bytes {
        let head = ChunkHead { handle: 0, requested: self.rng.bool(), lag_ms: self.rng.u16(..600) }.encode();
        let chunk = Self::pick(&mut self.rng, &self.chunks);
        let mut bytes = [&head[..], &chunk.encoded()[..]].concat();
        if self.rng.u8(..40) == 0 {
            let at = self.rng.usize(..bytes.len());
            bytes[at] ^= self.rng.u8(..);
            bytes.truncate(self.rng.usize(..=bytes.len()));
        }
        bytes.into()
    }

    fn input(&mut self, now: Timestamp) -> Input {
        let (channel, peer) = (self.channel, self.peer());
        match self.rng.u8(..40) {
            0..6 => {
                let rtt = Duration::from_millis(self.rng.u64(..400));
                let addr = self.rng.bool().then(|| addr(3));
                Input::Connected(Connected { peer, addr, rtt, dialled: self.rng.bool() })
            }
            6 => Input::Disconnected(peer),
            7 => Input::DialFailed(peer),
            8..20 => Input::Control(peer, self.frame()),
            20..30 => Input::ChunkStream(peer, self.stream()),
            30..33 => match self.tokens.pop() {
                Some((peer, token)) if self.rng.bool() => {
                    Input::ChunkDone(peer, token, ChunkOutcome::Delivered)
                }
                Some((peer, token)) => Input::ChunkDone(peer, token, ChunkOutcome::Dropped),
                None => Input::ChunkDone(peer, ChunkToken(self.rng.u64(..)), ChunkOutcome::Delivered),
            },
            33 => Input::Path(peer, Duration::from_millis(self.rng.u64(..3_000))),
            34 => {
                let addrs = vec![addr(self.rng.usize(..60))];
                Input::Candidates(
                    channel.into(),
                    vec![Candidate { peer, addrs, source: self.rng.bool(), cost: 0 }],
                )
            }
            35 => {
                let note = Self::pick(&mut self.rng, &self.notes);
                Input::Broadcast(channel.into(), Self::pick(&mut self.rng, &self.certificates), Some(note))
            }
            36 => Input::Playout(
                channel.into(),
                Playout { buffer_ms: self.rng.u32(..), next_number: self.number() },
            ),
            37 if self.rng.u8(..20) == 0 => Input::Violation(peer, "too many streams"),
            38 if self.rng.u8(..60) == 0 => Input::Leave(channel.into()),
            38 => Input::Trace(
                channel.into(),
                Tracing { reports: self.rng.u8(..4) > 0, wants: self.rng.bool() },
            ),
            39 => Input::UnixTime(UNIX_US + now.as_micros() + self.rng.u64(..2_000_000)),
            _ => Input::Tick,
        }
    }
}

fn open(channel: ChannelId, role: Role) -> Input {
    Input::Open(Box::new(SwarmConfig {
        channel,
        rendition: RenditionId(0),
        role,
        upload: true,
        retention: Duration::from_secs(5),
        lan: true,
        policy: Policy::default(),
        verifier: Box::new(Ed25519Verifier),
        records: Box::new(Ed25519Records(key(LOCAL))),
        network_map: None,
    }))
}

#[test]
fn no_input_panics_and_every_table_is_bounded() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    for seed in 0..seeds {
        let mut fuzz = Fuzz::new(seed);
        let upload_limit_bps = (seed % 3 == 0).then_some(1_000_000);
        let mut engine =
            Engine::new(EngineConfig { local: PeerId(key(LOCAL).public()), seed, upload_limit_bps });
        let role = match seed % 4 {
            0 => Role::Source { certificate: fuzz.certificates[2], copies_percent: Some(200), alone: false },
            _ => Role::Viewer,
        };
        let mut now = Timestamp::from_millis(1);
        engine.handle_input(now, Input::UnixTime(UNIX_US + now.as_micros()));
        engine.handle_input(now, open(fuzz.channel, role.clone()));
        let mut connected = 0i64;
        for _ in 0..3_000 {
            now += Duration::from_micros(fuzz.rng.u64(..8_000));
            let input = fuzz.input(now);
            connected += i64::from(matches!(input, Input::Connected(_)));
            engine.handle_input(now, input);
            let mut outputs = 0;
            loop {
                match engine.poll_output() {
                    Output::Timeout(at) => {
                        assert!(at > now.saturating_sub(Duration::from_millis(1)), "it wants to spin");
                        break;
                    }
                    Output::Transmit(Transmit::Chunk { peer, token, .. }) => fuzz.tokens.push((peer, token)),
                    _ => {}
                }
                outputs += 1;
                assert!(outputs < 5_000, "one input, {outputs} outputs");
            }
            match engine.stats(&fuzz.channel.into()) {
                Some(stats) => {
                    assert!(stats.neighbours.len() <= 32.min(CONNECTIONS_MAX));
                    assert!(stats.held <= 60 && stats.children <= 32 * 16);
                }
                None => engine.handle_input(now, open(fuzz.channel, role.clone())),
            }
        }
        assert!(connected > 100);
    }
}
