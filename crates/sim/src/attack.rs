//! Attackers: real engines whose words and chunks are twisted on their way out, and who say things of their own accord.
//!
//! They come in addition to the honest viewers, with a fast line, and take part in everything else as anybody does.

use bytes::{Bytes, BytesMut};
use caudal_proto::id::PeerId;
use caudal_proto::io::{ChunkToken, Transmit};
use caudal_proto::record::PeerRecord;
use caudal_proto::time::Timestamp;
use caudal_proto::wire::{
    Accept, Attach, FrameReader, FrameWriter, Have, Message, Messages, PEX_LEN_MAX, RangeList, RefuseReason,
    Request, SubstreamState,
};

use crate::error::SimError;
use crate::event::percent;

/// A chunk delayer holds each chunk for this long, µs.
const DELAY_US: u64 = 400_000;
/// A replayer sends each chunk this often again.
const REPLAYS: u64 = 3;
/// Attackers speak of their own accord this often, µs.
pub(crate) const EXTRA_PERIOD_US: u64 = 100_000;
/// Uplink of an attacker, in multiples of the rate.
pub(crate) const UPLOAD: u64 = 5;

/// A share of the swarm that attacks.
#[derive(Debug, Clone, PartialEq)]
pub struct Attack {
    /// How.
    pub kind: AttackKind,
    /// Of all viewers, the honest ones included.
    pub share: f64,
}

/// What attackers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttackKind {
    /// Flips a bit in every chunk.
    Polluter,
    /// Sends every chunk again and again.
    Replayer,
    /// Promises the best, accepts every child, and sends nothing.
    Silent,
    /// Sends every chunk late.
    Delayer,
    /// Claims all chunks, of the future too, and has not got them when asked.
    FalseHave,
    /// Takes, and gives nothing: it says that it does not upload.
    FreeRider,
    /// Asks everybody for everything, and to be everybody's child.
    Flooder,
    /// Names nobody but its accomplices, often, with records that they signed, and sends nothing.
    Eclipse,
}

const KINDS: [(&str, AttackKind); 8] = [
    ("polluter", AttackKind::Polluter),
    ("replayer", AttackKind::Replayer),
    ("silent", AttackKind::Silent),
    ("delayer", AttackKind::Delayer),
    ("false-have", AttackKind::FalseHave),
    ("free-rider", AttackKind::FreeRider),
    ("flooder", AttackKind::Flooder),
    ("eclipse", AttackKind::Eclipse),
];

impl AttackKind {
    /// All kinds, with their names.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        KINDS.into_iter()
    }

    /// As it is typed.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl std::str::FromStr for Attack {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let wrong = |what| SimError::Attack(text.to_owned(), what);
        let kinds = "KIND=SHARE is expected; kinds: polluter, replayer, silent, delayer, false-have, free-rider, \
                     flooder, eclipse";
        let (name, share) = text.split_once('=').ok_or_else(|| wrong(kinds))?;
        let kind = KINDS.iter().find(|(known, _)| *known == name).ok_or_else(|| wrong(kinds))?.1;
        let share = percent(share).filter(|share| *share < 0.95);
        Ok(Self { kind, share: share.ok_or_else(|| wrong("a share of less than 95% is expected"))? })
    }
}

/// What makes a real engine hostile.
pub trait Hostile {
    /// Its kind, where it is one of those that a configuration names.
    fn kind(&self) -> Option<AttackKind> {
        None
    }

    /// How often it is asked what it says of its own accord, µs.
    fn period_us(&self) -> u64 {
        EXTRA_PERIOD_US
    }

    /// What it makes of what its engine wants sent: each with a delay, µs.
    fn twist(&mut self, transmit: Transmit, rng: &mut fastrand::Rng) -> Vec<(u64, Transmit)>;

    /// What it says of its own accord.
    fn extra(&mut self, scene: &Scene<'_>, rng: &mut fastrand::Rng) -> Vec<Transmit>;
}

/// What a hostile peer knows when it speaks of its own accord.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The time.
    pub now: Timestamp,
    /// With whom it is connected.
    pub peers: &'a [PeerId],
    /// The other hostile peers, in their own word.
    pub accomplices: &'a [PeerRecord],
    /// Chunks of the broadcast so far.
    pub edge: u64,
}

/// The state of an attacker of a kind that a configuration names.
#[derive(Debug)]
pub(crate) struct Hostility {
    kind: AttackKind,
    turn: u64,
}

impl Hostility {
    pub(crate) fn new(kind: AttackKind) -> Self {
        Self { kind, turn: 0 }
    }
}

impl Hostile for Hostility {
    fn kind(&self) -> Option<AttackKind> {
        Some(self.kind)
    }

    fn twist(&mut self, transmit: Transmit, rng: &mut fastrand::Rng) -> Vec<(u64, Transmit)> {
        let kind = self.kind;
        match transmit {
            Transmit::Chunk { peer, token, priority, head, body } => {
                let chunk = |token, body| Transmit::Chunk { peer, token, priority, head: head.clone(), body };
                self.twist_chunk(peer, token, &body, rng, chunk)
            }
            Transmit::Control { peer, bytes } => {
                let bytes = match kind {
                    AttackKind::Silent | AttackKind::Eclipse | AttackKind::Polluter => rewrite(&bytes, tempt),
                    AttackKind::FalseHave => rewrite(&bytes, claim),
                    _ => bytes,
                };
                vec![(0, Transmit::Control { peer, bytes })]
            }
            other => vec![(0, other)],
        }
    }

    fn extra(&mut self, scene: &Scene<'_>, rng: &mut fastrand::Rng) -> Vec<Transmit> {
        let Scene { peers, accomplices, edge, .. } = *scene;
        self.turn += 1;
        let messages = match self.kind {
            AttackKind::Flooder => flood(self.turn, edge),
            AttackKind::Eclipse if self.turn.is_multiple_of(5) && !accomplices.is_empty() => {
                let pick = |_| accomplices[rng.usize(..accomplices.len())];
                vec![Message::Pex((0..PEX_LEN_MAX).map(pick).collect())]
            }
            _ => return Vec::new(),
        };
        let bytes = frame(&messages);
        peers.iter().map(|peer| Transmit::Control { peer: *peer, bytes: bytes.clone() }).collect()
    }
}

impl Hostility {
    fn twist_chunk(
        &mut self,
        peer: PeerId,
        token: ChunkToken,
        body: &Bytes,
        rng: &mut fastrand::Rng,
        chunk: impl Fn(ChunkToken, Bytes) -> Transmit,
    ) -> Vec<(u64, Transmit)> {
        match self.kind {
            AttackKind::Silent | AttackKind::Eclipse => Vec::new(),
            AttackKind::Polluter => {
                let mut forged = body.to_vec();
                let at = rng.usize(108..forged.len());
                forged[at] ^= 1;
                vec![(0, chunk(token, forged.into()))]
            }
            AttackKind::Replayer => {
                let mut out = vec![(0, chunk(token, body.clone()))];
                for _ in 0..REPLAYS {
                    self.turn += 1;
                    out.push((0, chunk(ChunkToken(u64::MAX - self.turn), body.clone())));
                }
                out
            }
            AttackKind::Delayer => vec![(DELAY_US, chunk(token, body.clone()))],
            AttackKind::FalseHave => {
                let number =
                    body.get(8..16).and_then(|raw| raw.try_into().ok()).map_or(0, u64::from_be_bytes);
                let chunks = RangeList::from_numbers([number]);
                let refuse = Message::Refuse { reason: RefuseReason::Absent, chunks };
                vec![(0, Transmit::Control { peer, bytes: frame(&[refuse]) })]
            }
            AttackKind::Flooder | AttackKind::FreeRider => vec![(0, chunk(token, body.clone()))],
        }
    }
}

fn flood(turn: u64, edge: u64) -> Vec<Message> {
    let from = edge.saturating_sub(64);
    let chunks = RangeList::from_ranges(core::iter::once(from..from + 64));
    let attach =
        Attach { substream: (turn % 8) as u8, interior: true, urgent: true, upload_kbps: 500_000, from };
    vec![Message::Request(Request { deadline_ms: 16_000, joining: true, chunks }), Message::Attach(attach)]
}

/// The best of promises: no lag, no queue, room for everybody, and no path that could form a loop.
fn tempt(message: Message) -> Vec<Message> {
    match message {
        Message::State(mut state) => {
            (state.wait_ms, state.upload_kbps) = (0, 900_000);
            state.substreams.iter_mut().for_each(|s| *s = SubstreamState { lag_ms: 0, accept: 0 });
            vec![Message::State(state)]
        }
        Message::Reject(reject) => {
            vec![Message::Accept(Accept { substream: reject.substream, path: Vec::new() })]
        }
        Message::Accept(accept) => vec![Message::Accept(Accept { path: Vec::new(), ..accept })],
        Message::Path(_) | Message::Refuse { .. } => Vec::new(),
        other => vec![other],
    }
}

fn claim(message: Message) -> Vec<Message> {
    match message {
        Message::Have(have) => {
            let chunks = RangeList::from_ranges(core::iter::once(0..1 << 40));
            vec![Message::Have(Have { chunks, ..have })]
        }
        other => tempt(other),
    }
}

/// Each message of whole frames becomes what `f` makes of it.
fn rewrite(bytes: &Bytes, f: impl Fn(Message) -> Vec<Message>) -> Bytes {
    let (mut reader, mut out) = (FrameReader::default(), BytesMut::new());
    reader.extend(bytes);
    while let Ok(Some(frame)) = reader.next_frame() {
        let Ok(messages) = Messages::open(frame) else { return bytes.clone() };
        let mut writer = FrameWriter::new(messages.handle);
        for message in messages.flatten().flat_map(&f) {
            out.extend(writer.push(&message));
        }
        out.extend(writer.finish());
    }
    out.freeze()
}

/// Messages of the engine's first swarm.
fn frame(messages: &[Message]) -> Bytes {
    let (mut writer, mut out) = (FrameWriter::new(0), BytesMut::new());
    for message in messages {
        out.extend(writer.push(message));
    }
    out.extend(writer.finish());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_are_read_by_name() {
        for (name, kind) in AttackKind::all() {
            let attack: Attack = format!("{name}=20%").parse().expect("known");
            assert_eq!((attack.kind, attack.share, kind.name()), (kind, 0.2, name));
        }
        assert!("polluter".parse::<Attack>().is_err());
        assert!("pirate=3%".parse::<Attack>().is_err_and(|error| error.to_string().contains("pirate")));
        assert!("silent=99%".parse::<Attack>().is_err());
    }
}
