//! What this node tells its neighbours of itself: have map, state, live notes; and what it reads in theirs.

use alloc::vec::Vec;
use core::time::Duration;

use super::Swarm;
use super::have::HaveMap;
use super::neighbour::Neighbour;
use super::policy::{ACCEPT_NOBODY, ACCEPT_URGENT};
use crate::id::PeerId;
use crate::time::Timestamp;
use crate::wire::{Have, LAG_UNKNOWN_MS, Message, State, SubstreamState};

/// Bytes that one state update to one neighbour costs on the wire, IP and QUIC headers included.
const STATE_COST_BYTES: u64 = 150;

/// A settled neighbour is told this often at least, where the control budget allows.
const SELDOM: Duration = Duration::from_millis(1200);
/// A lag that differs by more than this, and half of what was told, is news.
const LAG_NEWS_MS: u16 = 100;

/// What every neighbour was told, or is about to be: settled ones hear more often only of what differs from it.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// Changes with each news.
    pub(super) version: u32,
    substreams: Vec<(u16, Room)>,
}

/// Who would be accepted as a child, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Anybody,
    Stronger,
    Urgent,
    Nobody,
}

impl Room {
    fn of(accept: u8) -> Self {
        match accept {
            0 => Self::Anybody,
            ACCEPT_URGENT => Self::Urgent,
            ACCEPT_NOBODY => Self::Nobody,
            _ => Self::Stronger,
        }
    }
}

impl Swarm {
    /// Everything a new neighbour needs: one flight after the handshake it can ask for chunks.
    pub(super) fn greet(&mut self, now: Timestamp, peer: PeerId) {
        self.tell_broadcast(peer);
        self.introduce(now, peer);
        self.tell_tracing(peer);
        self.tell_state(now, peer, self.state());
    }

    /// Sends what is due.
    pub(super) fn gossip(&mut self, now: Timestamp) {
        let often = self.state_period();
        let seldom = SELDOM.max(often);
        let state = self.state();
        self.look_for_news(&state);
        let version = self.announced.version;
        let is_due = |n: &&Neighbour| {
            n.met && (now >= n.state_due || n.told_version != version && now >= n.told + often)
        };
        let due: Vec<PeerId> = self.neighbours.values().filter(is_due).map(|n| n.peer).collect();
        for peer in due {
            let note_age = self.note.map_or(0, |note| note.unix_us);
            let tell_note = self.neighbours.get(&peer).is_some_and(|n| {
                n.certificate_sent != self.epoch()
                    || note_age > n.note_sent_us + self.config.policy.note_period.as_micros() as u64 / 2
                    || self.note.is_some_and(|note| note.ended)
            });
            if tell_note {
                self.tell_broadcast(peer);
            }
            self.tell_state(now, peer, state.clone());
            // Who has all its parents asks for little and looks for little.
            let is_settled = self.neighbours.get(&peer).is_some_and(Neighbour::is_settled);
            let period = if is_settled { seldom } else { often };
            // Spread over the period, so that neighbours are not all told in one burst.
            let jitter = Duration::from_micros(self.rng.u64(..=period.as_micros() as u64 / 4));
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.state_due = now + (period - jitter);
                neighbour.told_version = version;
            }
        }
    }

    /// Whether anything changed that a neighbour would act on: a substream came, dried up or became much slower, or there is
    /// room where there was none.
    fn look_for_news(&mut self, state: &State) {
        let substreams: Vec<_> =
            state.substreams.iter().map(|told| (told.lag_ms, Room::of(told.accept))).collect();
        let told = &self.announced.substreams;
        let is_news = |((lag, room), (old_lag, old_room)): (&(u16, Room), &(u16, Room))| {
            room != old_room || lag.abs_diff(*old_lag) > LAG_NEWS_MS + old_lag / 2
        };
        if substreams.len() != told.len() || substreams.iter().zip(told).any(is_news) {
            self.announced = Announced { version: self.announced.version.wrapping_add(1), substreams };
        }
    }

    /// As often as the share of the rate that control may cost allows.
    fn state_period(&self) -> Duration {
        let policy = &self.config.policy;
        let bits = self.neighbours.len() as u64 * STATE_COST_BYTES * 8;
        let budget_bps = (self.rate_bps * u64::from(policy.control_percent) / 100).max(1);
        Duration::from_micros(bits * 1_000_000 / budget_bps)
            .clamp(policy.state_period_min, policy.state_period_max)
    }

    /// What this node can do for others now.
    fn state(&self) -> State {
        State {
            upload_kbps: self.upload_kbps(),
            wait_ms: self.uplink.usual_wait.as_millis().min(u128::from(LAG_UNKNOWN_MS)) as u16,
            substreams: (0..self.substream_count())
                .map(|s| SubstreamState { lag_ms: self.advertised_lag_ms(s), accept: self.accept_code(s) })
                .collect(),
        }
    }

    fn tell_state(&mut self, now: Timestamp, peer: PeerId, state: State) {
        if self.certificate.is_none() {
            return;
        }
        let epoch = self.epoch();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.told = now;
        let newcomer = neighbour.epoch != epoch || neighbour.have.end() == 0;
        let segment_starts = if newcomer { self.store.segment_starts(now).collect() } else { Vec::new() };
        neighbour.send(
            &mut self.unsent,
            &Message::Have(Have { epoch, chunks: self.store.have().to_list(), segment_starts }),
        );
        neighbour.send(&mut self.unsent, &Message::State(state));
    }

    /// A segment began: those who wait for one are told with the next tick.
    pub(super) fn tell_newcomers(&mut self, now: Timestamp) {
        let epoch = self.epoch();
        for neighbour in self.neighbours.values_mut() {
            if neighbour.met && (neighbour.epoch != epoch || neighbour.have.end() == 0) {
                neighbour.state_due = now;
            }
        }
    }

    pub(super) fn hear_have(&mut self, now: Timestamp, peer: PeerId, have: &Have) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if neighbour.epoch != have.epoch {
            neighbour.segment_starts.clear();
        }
        neighbour.epoch = have.epoch;
        neighbour.have = HaveMap::from_list(&have.chunks);
        neighbour.have_at = now;
        neighbour.absent = super::neighbour::Recent::default();
        if !have.segment_starts.is_empty() {
            neighbour.segment_starts.clone_from(&have.segment_starts);
            neighbour.starts_at = now;
        }
        // Who claims nothing new need not be compared with the others.
        if self.phase.is_joined() && neighbour.have.end() > self.store.far_edge() {
            let (mut first, mut second) = (None, None);
            for end in self.neighbours.values().filter(|n| n.epoch == have.epoch).map(|n| n.have.end()) {
                if first.is_none_or(|first| end >= first) {
                    (first, second) = (Some(end), first);
                } else if second.is_none_or(|second| end > second) {
                    second = Some(end);
                }
            }
            // One neighbour may lie; two that agree are worth asking.
            if let Some(second) = second
                && have.epoch == self.epoch()
            {
                self.store.raise_rumour(second.min(self.store.edge() + self.claim_ahead()), now);
            }
        }
    }

    /// There are viewers, and on this uplink and most of theirs chunks hardly wait.
    pub(super) fn uplinks_clear(&self) -> bool {
        let limit = self.config.policy.queueing_wait;
        let viewers = self.neighbours.values().any(|n| n.met && !n.source);
        viewers && self.uplink.usual_wait <= limit && !self.is_busy(limit)
    }

    /// Chunks wait longer than `limit` on the uplinks of most neighbours: there is little to spare for what lies back.
    pub(super) fn is_busy(&self, limit: Duration) -> bool {
        let viewers = || self.neighbours.values().filter(|n| n.met && !n.source);
        let waiting = viewers().filter(|n| n.wait() > limit).count();
        // One may lie.
        waiting > 1 && waiting * 2 >= viewers().count()
    }
}
