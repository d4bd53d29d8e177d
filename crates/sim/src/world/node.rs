//! One peer in the world: a real engine behind lines, and what it has received.

use std::collections::BTreeSet;

use caudal_proto::engine::Engine;
use caudal_proto::id::PeerId;

use crate::attack::Hostile;
use crate::config::Told;
use crate::profile::Place;
use crate::transport::{Line, LossState};

use super::watching::Watching;

/// Chunks from before a peer came that are remembered: what it may begin with.
const BEFORE: usize = 512;

/// One peer.
pub(crate) struct Node {
    pub(crate) id: PeerId,
    /// `None` once it has left.
    pub(crate) engine: Option<Box<Engine>>,
    pub(crate) is_source: bool,
    pub(crate) hostility: Option<Box<dyn Hostile>>,
    pub(crate) place: Place,
    /// Of its uplink.
    pub(crate) told: Told,
    pub(crate) skew_us: i64,
    pub(crate) up: Line,
    pub(crate) down: Line,
    pub(crate) loss: LossState,
    /// Peers with a connection and its number, ascending.
    pub(crate) links: Vec<(u32, u32)>,
    /// When the engine wants to be called, and when it will be.
    pub(crate) timeout: u64,
    pub(crate) wake: u64,
    /// What it does in each rendition's swarm.
    pub(crate) members: Vec<Member>,
    /// What it makes of renditions, where there are several.
    pub(crate) watching: Option<Box<Watching>>,
    /// Since its line was changed, how manieth that was.
    pub(crate) line_changed: Option<u64>,
    pub(crate) record: Record,
}

/// What a peer does in one rendition's swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    pub(crate) is_in: bool,
    /// It was in, and left.
    pub(crate) has_left: bool,
    /// Place in the tracker's list.
    pub(crate) listed: Option<usize>,
    /// The first chunk it was told to expect.
    pub(crate) start: Option<usize>,
    /// What it may be given once more, since it began again in the same broadcast.
    pub(crate) again: BTreeSet<usize>,
    /// The broadcast it joined last.
    pub(crate) epoch: u64,
}

impl Node {
    pub(crate) fn is_honest(&self) -> bool {
        self.hostility.is_none()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.engine.is_some()
    }

    pub(crate) fn link_to(&self, peer: u32) -> Option<u32> {
        self.links.binary_search_by_key(&peer, |link| link.0).ok().map(|at| self.links[at].1)
    }

    pub(crate) fn add_link(&mut self, peer: u32, link: u32) {
        match self.links.binary_search_by_key(&peer, |link| link.0) {
            Ok(at) => self.links[at].1 = link,
            Err(at) => self.links.insert(at, (peer, link)),
        }
    }

    pub(crate) fn remove_link(&mut self, peer: u32, link: u32) -> bool {
        match self.links.binary_search_by_key(&peer, |link| link.0) {
            Ok(at) if self.links[at].1 == link => {
                self.links.remove(at);
                true
            }
            _ => false,
        }
    }
}

/// What a peer received, by chunk in order of publication over all broadcasts.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// When it came and, once it left, when that was.
    pub(crate) opened: u64,
    pub(crate) left: Option<u64>,
    /// The first chunk it was told to expect, and when.
    pub(crate) start: Option<usize>,
    pub(crate) joined: u64,
    /// From coming to the first decodable part.
    pub(crate) startup: Option<u64>,
    base: usize,
    /// Delay of each chunk, µs; `u32::MAX` = it never came.
    delays: Vec<u32>,
    /// Hops from the source; 0 = unknown.
    depths: Vec<u8>,
    /// IP bytes sent, and at the start of measuring.
    pub(crate) sent: u64,
    pub(crate) sent_before: u64,
    /// Chunk bytes sent since measuring began.
    pub(crate) relayed: u64,
    pub(crate) dials: u64,
    /// When it was told that somebody is gone: (peer, when), lately.
    pub(crate) departed: Vec<(u32, u64)>,
    /// Honest peers that it dropped, hostile ones that it dropped.
    pub(crate) dropped: (u32, u32),
    /// Forgeries that reached it.
    pub(crate) forgeries: u32,
}

impl Record {
    pub(crate) fn new(now: u64, published: usize) -> Self {
        Self { opened: now, base: published.saturating_sub(BEFORE), ..Self::default() }
    }

    fn slot(&mut self, serial: usize) -> Option<usize> {
        let slot = serial.checked_sub(self.base)?;
        if slot >= self.delays.len() {
            self.delays.resize(slot + 1, u32::MAX);
            self.depths.resize(slot + 1, 0);
        }
        Some(slot)
    }

    pub(crate) fn has(&self, serial: usize) -> bool {
        self.delay(serial).is_some()
    }

    /// Delay of a chunk, µs.
    pub(crate) fn delay(&self, serial: usize) -> Option<u32> {
        let delay = *self.delays.get(serial.checked_sub(self.base)?)?;
        (delay != u32::MAX).then_some(delay)
    }

    pub(crate) fn depth(&self, serial: usize) -> u8 {
        serial.checked_sub(self.base).and_then(|slot| self.depths.get(slot)).copied().unwrap_or(0)
    }

    /// Books a chunk; false when it was booked before.
    pub(crate) fn book(&mut self, serial: usize, delay: u64) -> bool {
        let Some(slot) = self.slot(serial) else { return true };
        let new = self.delays[slot] == u32::MAX;
        if new {
            self.delays[slot] = u32::try_from(delay).unwrap_or(u32::MAX - 1).min(u32::MAX - 1);
        }
        new
    }

    /// Whether the part of so many chunks from `part_start` on is whole: then a player begins.
    pub(crate) fn begin(&mut self, now: u64, part_start: usize, count: u16) {
        let is_begun = self.start.is_some_and(|start| part_start >= start);
        if is_begun && (part_start..part_start + usize::from(count)).all(|serial| self.has(serial)) {
            self.startup = Some(now - self.opened);
        }
    }

    /// What it was given from `serial` on.
    pub(crate) fn given_from(&self, serial: usize) -> BTreeSet<usize> {
        (serial..self.base + self.delays.len()).filter(|serial| self.has(*serial)).collect()
    }

    pub(crate) fn set_depth(&mut self, serial: usize, depth: u8) {
        if let Some(slot) = self.slot(serial) {
            self.depths[slot] = depth;
        }
    }
}
