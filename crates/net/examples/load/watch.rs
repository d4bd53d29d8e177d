//! A link that lets everything through and keeps an eye on what a node releases: whenever a chunk goes, no other may be
//! waiting that is due earlier and whose connection has room.
//!
//! When a requested chunk is due follows from the engine's policy and the request. Only what the engine knew for certain
//! counts: what came in with the same batch of inputs as caused a release does not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_net::{IrohLink, Link};
use caudal_proto::chunk::Chunk;
use caudal_proto::id::PeerId;
use caudal_proto::io::{Input, Transmit};
use caudal_proto::swarm::policy::Policy;
use caudal_proto::wire::{FrameReader, Message, Messages};

use crate::series::Samples;

/// With fewer chunks under way, a connection has room whatever its round trip is (`uplink::UNSENT_PER_CONNECTION`).
const ROOM: usize = 2;
/// The engine and this link look at the clock one after the other.
const TOLERANCE: Duration = Duration::from_millis(3);
const RTT_EVERY: Duration = Duration::from_millis(50);
/// The most chunks that one request names.
const REQUESTED_MAX: usize = 512;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) rtts: Samples,
    pub(crate) released: u64,
    pub(crate) bytes: u64,
    /// Releases while another chunk waited that could have gone.
    pub(crate) choices: u64,
    /// … and was due earlier.
    pub(crate) wrong: u64,
    pub(crate) refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    due: Instant,
    expires: Instant,
}

/// The watching link.
pub(crate) struct Watch {
    link: IrohLink,
    began: Instant,
    policy: Policy,
    seen: Arc<Mutex<Seen>>,
    waiting: BTreeMap<(PeerId, u64), Waiting>,
    under_way: BTreeMap<PeerId, usize>,
    /// What came in with the last batch.
    fresh: Vec<((PeerId, u64), Waiting)>,
    done: Vec<PeerId>,
    rtt_at: Instant,
}

impl Watch {
    pub(crate) fn new(link: IrohLink, began: Instant, policy: Policy) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watch = Self {
            link,
            began,
            policy,
            seen: Arc::clone(&seen),
            waiting: BTreeMap::new(),
            under_way: BTreeMap::new(),
            fresh: Vec::new(),
            done: Vec::new(),
            rtt_at: began,
        };
        (watch, seen)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch of inputs before the engine gets it.
    fn note(&mut self, batch: &[Input]) {
        let now = Instant::now();
        self.waiting.extend(self.fresh.drain(..));
        for peer in self.done.drain(..) {
            self.under_way.entry(peer).and_modify(|count| *count = count.saturating_sub(1));
        }
        self.waiting.retain(|_, waiting| waiting.expires > now);
        for input in batch {
            match input {
                Input::Connected(connected) => _ = self.under_way.insert(connected.peer, 0),
                Input::ChunkDone(peer, ..) => self.done.push(*peer),
                Input::Control(peer, frame) => {
                    let Ok(messages) = Messages::open(frame.clone()) else { continue };
                    for message in messages.flatten() {
                        let Message::Request(request) = message else { continue };
                        let after = if request.joining {
                            self.policy.serve_after_joining
                        } else {
                            self.policy.serve_after
                        };
                        let expiry =
                            self.policy.pull_expiry.min(Duration::from_millis(request.deadline_ms.into()));
                        let waiting = Waiting { due: now + after, expires: now + expiry };
                        let numbers = request.chunks.numbers(REQUESTED_MAX);
                        self.fresh.extend(numbers.map(|number| ((*peer, number), waiting)));
                    }
                }
                _ => {}
            }
        }
        if now >= self.rtt_at {
            self.rtt_at = now + RTT_EVERY;
            let rtts = self.under_way.keys().filter_map(|peer| crate::rtt_ms(&self.link, *peer));
            let rtts: Vec<f64> = rtts.collect();
            let at = self.began.elapsed();
            rtts.into_iter().for_each(|rtt| self.seen().rtts.add(at, rtt));
        }
    }

    fn forget(&mut self, key: &(PeerId, u64)) -> Option<Waiting> {
        if let Some(at) = self.fresh.iter().position(|(fresh, _)| fresh == key) {
            return Some(self.fresh.swap_remove(at).1);
        }
        self.waiting.remove(key)
    }

    fn released(&mut self, peer: PeerId, body: &bytes::Bytes) {
        let Ok(chunk) = Chunk::decode(body.clone()) else { return };
        let known = self.forget(&(peer, chunk.header().number));
        let now = Instant::now();
        let has_room = |peer: &PeerId| self.under_way.get(peer).is_some_and(|count| *count < ROOM);
        let others =
            self.waiting.iter().filter(|((peer, _), w)| w.expires > now + TOLERANCE && has_room(peer));
        let earliest = others.map(|(_, waiting)| waiting.due).min();
        let mut seen = self.seen();
        seen.released += 1;
        seen.bytes += body.len() as u64;
        if let (Some(known), Some(earliest)) = (known, earliest) {
            seen.choices += 1;
            seen.wrong += u64::from(earliest + TOLERANCE < known.due);
        }
        drop(seen);
        *self.under_way.entry(peer).or_default() += 1;
    }

    fn said(&mut self, peer: PeerId, bytes: &[u8]) {
        let mut reader = FrameReader::default();
        reader.extend(bytes);
        while let Ok(Some(frame)) = reader.next_frame() {
            let Ok(messages) = Messages::open(frame) else { continue };
            for message in messages.flatten() {
                let Message::Refuse { chunks, .. } = message else { continue };
                for number in chunks.numbers(REQUESTED_MAX) {
                    self.forget(&(peer, number));
                    self.seen().refused += 1;
                }
            }
        }
    }
}

impl Link for Watch {
    fn local(&self) -> PeerId {
        self.link.local()
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.link.local_addrs()
    }

    fn execute(&mut self, transmit: Transmit) {
        match &transmit {
            Transmit::Chunk { peer, body, .. } => self.released(*peer, body),
            Transmit::Control { peer, bytes } => self.said(*peer, bytes),
            _ => {}
        }
        self.link.execute(transmit);
    }

    async fn inputs(&mut self, into: &mut Vec<Input>, max: usize) {
        let before = into.len();
        self.link.inputs(into, max).await;
        self.note(&into[before..]);
    }

    async fn close(&mut self) {
        self.link.close().await;
    }
}
