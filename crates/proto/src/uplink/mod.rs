//! The node's one pacer and one deadline queue, above all its swarms and connections.
//!
//! Bytes handed to a connection cannot be reordered, and one uplink carries some sixteen connections: so order is
//! decided here, and chunks are handed over late, a few at a time. Never chooses what to send or to whom: swarms do.

mod budget;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::{PeerId, SwarmId};
use crate::io::ChunkToken;
use crate::peer_map::PeerMap;
use crate::swarm::{Offer, UplinkView};
use crate::time::Timestamp;
use budget::{Budget, Mark};

/// Most offers that wait; past it the latest due are dropped.
pub const QUEUE_LEN_MAX: usize = 8192;
/// Chunks handed to one connection and not yet acknowledged, at a round trip of nothing.
pub const UNSENT_PER_CONNECTION: usize = 2;
/// One more for each of these that a round trip lasts: what is under way is not unsent.
const ROUND_TRIP_STEP: Duration = Duration::from_millis(25);
/// Most chunks under way on one connection.
pub const UNDER_WAY_MAX: usize = 16;
/// Offers looked at for one whose connection has room.
const SCAN_MAX: usize = 256;
/// A chunk unacknowledged for this long, beyond four round trips, makes its receiver suspect.
const STALLED_AFTER: Duration = Duration::from_millis(300);
/// A chunk unacknowledged for this long is held up by its receiver, not by this node's line.
const HELD_UP_AFTER: Duration = Duration::from_millis(1500);
/// Who acknowledges nothing for this long is no child any more, and none again before it does.
const TAKES_NOTHING_AFTER: Duration = Duration::from_secs(3);
/// How long pushed chunks waited counts half after this long without any.
const USUAL_HALF_LIFE: Duration = Duration::from_millis(500);
/// The least round trip is forgotten after one to two of these: paths change.
const LEAST_PERIOD: Duration = Duration::from_secs(30);
/// A queue that has not been empty for one to two of these stands. Longer than from one part of the stream to the next, each
/// of which is some chunks at once.
const STANDING_PERIOD: Duration = Duration::from_millis(250);
/// What waits in the line is looked at this often at most.
const LINE_LOOK_PERIOD: Duration = Duration::from_millis(10);
/// The pacer forgives this much idleness: what a timer may be late.
const BURST: Duration = Duration::from_millis(8);

/// A chunk on its way.
#[derive(Debug)]
struct Flight {
    swarm: SwarmId,
    number: u64,
    requested: bool,
    overdue: bool,
    bytes: u64,
    released: Timestamp,
    mark: Mark,
}

/// The least of a duration lately: of this and of the last stretch of `MS` milliseconds.
#[derive(Debug, Default)]
struct Least<const MS: u64> {
    current: Duration,
    previous: Duration,
    since: Timestamp,
}

impl<const MS: u64> Least<MS> {
    fn new(now: Timestamp) -> Self {
        Self { current: Duration::MAX, previous: Duration::MAX, since: now }
    }

    fn note(&mut self, now: Timestamp, value: Duration) {
        if now.since(self.since) > Duration::from_millis(MS) {
            (self.previous, self.current, self.since) = (self.current, value, now);
        }
        self.current = self.current.min(value);
    }

    fn get(&self) -> Duration {
        self.current.min(self.previous)
    }
}

#[derive(Debug, Default)]
struct Connection {
    rtt: Duration,
    least: Least<{ LEAST_PERIOD.as_millis() as u64 }>,
    /// Nothing was under way when it was made: its round trip has no queue of this node's in it.
    calm: bool,
    /// Tokens ascend: the first flight is the oldest.
    flights: BTreeMap<ChunkToken, Flight>,
    /// When that was released, at hand for those who look at every connection's.
    oldest: Option<Timestamp>,
    /// It was reported as one that takes nothing.
    took_nothing: bool,
}

impl Connection {
    fn new(now: Timestamp, calm: bool) -> Self {
        Self { least: Least::new(now), calm, ..Self::default() }
    }

    fn note_rtt(&mut self, now: Timestamp, rtt: Duration) {
        self.rtt = rtt;
        self.least.note(now, rtt);
    }

    fn least_rtt(&self) -> Duration {
        self.least.get()
    }

    fn begin(&mut self, token: ChunkToken, flight: Flight) {
        self.oldest.get_or_insert(flight.released);
        self.flights.insert(token, flight);
    }

    fn end(&mut self, token: &ChunkToken) -> Option<Flight> {
        let flight = self.flights.remove(token)?;
        self.oldest = self.flights.first_key_value().map(|(_, first)| first.released);
        Some(flight)
    }

    fn has_room(&self) -> bool {
        // A round trip that queues have lengthened must not lengthen queues.
        let steps = self.least_rtt().as_millis() / ROUND_TRIP_STEP.as_millis();
        self.flights.len() < (UNSENT_PER_CONNECTION + steps as usize).min(UNDER_WAY_MAX)
    }
}

/// A chunk released to its connection.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) token: ChunkToken,
    pub(crate) swarm: SwarmId,
    pub(crate) offer: Offer,
    /// Time since signing up to now and through this node's own uplink as the hops added it up, µs.
    pub(crate) hops_us: Option<u64>,
}

/// An offer that ended: what its swarm is told.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) swarm: SwarmId,
    pub(crate) peer: PeerId,
    pub(crate) number: u64,
    pub(crate) requested: bool,
    /// It was charged to what old holes may have.
    pub(crate) overdue: bool,
    /// The same chunk is on its way to the same peer already.
    pub(crate) merged: bool,
    pub(crate) sent_bytes: Option<u64>,
}

/// Pacer and queue.
#[derive(Debug)]
pub(crate) struct Uplink {
    queue: BTreeMap<(Timestamp, u64), (SwarmId, Offer)>,
    /// Where each offer stands in the queue.
    waiting: BTreeMap<(SwarmId, PeerId, u64), (Timestamp, u64)>,
    queued_bytes: u64,
    /// How long pushed chunks waited, smoothed, µs.
    usual_wait_us: u64,
    /// When it was last smoothed.
    usual_at: Timestamp,
    connections: PeerMap<Connection>,
    /// Chunks under way on all connections.
    under_way: usize,
    budget: Budget,
    next: u64,
    /// Nothing in the queue expires before.
    expires_at: Timestamp,
    /// How long chunks wait in the line itself, and until when that is good enough.
    line_wait: (Duration, Timestamp),
    /// The least wait.
    standing: Least<{ STANDING_PERIOD.as_millis() as u64 }>,
    /// When the pacer lets the next chunk go.
    free_at: Timestamp,
}

impl Uplink {
    pub(crate) fn new(limit_bps: Option<u64>) -> Self {
        Self {
            queue: BTreeMap::new(),
            waiting: BTreeMap::new(),
            queued_bytes: 0,
            usual_wait_us: 0,
            usual_at: Timestamp::ZERO,
            connections: PeerMap::default(),
            under_way: 0,
            budget: Budget::new(limit_bps),
            next: 0,
            expires_at: Timestamp::FAR_FUTURE,
            line_wait: (Duration::ZERO, Timestamp::ZERO),
            standing: Least::new(Timestamp::ZERO),
            free_at: Timestamp::ZERO,
        }
    }

    /// A connection stands, or its round trip changed; gives the least one lately.
    pub(crate) fn connected(&mut self, now: Timestamp, peer: PeerId, rtt: Duration) -> Duration {
        let calm = self.under_way == 0;
        let connection = self.connections.get_or_insert_with(peer, || Connection::new(now, calm));
        connection.note_rtt(now, rtt);
        connection.least_rtt()
    }

    /// Forgets a connection; gives back what waited for it. What was under way counts as sent: hanging up pays for nothing.
    pub(crate) fn disconnected(&mut self, peer: &PeerId) -> Vec<Done> {
        let gone = self.connections.remove(peer);
        self.under_way -= gone.map_or(0, |connection| connection.flights.len());
        let gone: Vec<_> =
            self.queue.iter().filter(|(_, (_, o))| o.peer == *peer).map(|(key, _)| *key).collect();
        gone.iter().filter_map(|at| self.remove(at)).map(|(swarm, offer)| done(swarm, &offer)).collect()
    }

    /// Queues an offer; a displaced one is given back.
    pub(crate) fn offer(&mut self, swarm: SwarmId, offer: Offer) -> Option<Done> {
        if !self.connections.contains_key(&offer.peer) {
            return Some(done(swarm, &offer));
        }
        if self.is_under_way(&swarm, &offer) {
            return Some(Done { merged: true, ..done(swarm, &offer) });
        }
        let key = (swarm, offer.peer, offer.chunk.header().number);
        if let Some(at) = self.waiting.get(&key).copied() {
            // Pushed and requested at once: it goes once, at the earlier turn, and until the later expiry.
            let (_, old) = self.remove(&at)?;
            let given_back =
                Done { merged: true, requested: old.requested && offer.requested, ..done(swarm, &old) };
            let merged = Offer {
                due: old.due.min(offer.due),
                expires: old.expires.max(offer.expires),
                requested: old.requested || offer.requested,
                ..offer
            };
            self.insert(swarm, merged);
            return Some(given_back);
        }
        self.insert(swarm, offer);
        if self.queue.len() <= QUEUE_LEN_MAX {
            return None;
        }
        let last = *self.queue.last_key_value()?.0;
        self.remove(&last).map(|(swarm, offer)| done(swarm, &offer))
    }

    fn insert(&mut self, swarm: SwarmId, offer: Offer) {
        self.next += 1;
        self.queued_bytes += offer.chunk.encoded().len() as u64;
        let at = (offer.due, self.next);
        self.expires_at = self.expires_at.min(offer.expires);
        self.waiting.insert((swarm, offer.peer, offer.chunk.header().number), at);
        self.queue.insert(at, (swarm, offer));
    }

    fn is_under_way(&self, swarm: &SwarmId, offer: &Offer) -> bool {
        let number = offer.chunk.header().number;
        let flights = self.connections.get(&offer.peer).map(|connection| connection.flights.values());
        flights.is_some_and(|mut flights| flights.any(|f| f.swarm == *swarm && f.number == number))
    }

    /// The peer has the chunk already: do not send it; a released one is to be reset.
    pub(crate) fn withdraw(
        &mut self,
        swarm: &SwarmId,
        peer: &PeerId,
        number: u64,
    ) -> (Option<Done>, Option<ChunkToken>) {
        if let Some(key) = self.waiting.get(&(*swarm, *peer, number)).copied() {
            return (self.remove(&key).map(|(swarm, offer)| done(swarm, &offer)), None);
        }
        let flights = self.connections.get(peer).map(|connection| &connection.flights);
        let token = flights.and_then(|f| f.iter().find(|(_, f)| f.swarm == *swarm && f.number == number));
        (None, token.map(|(token, _)| *token))
    }

    /// The peer is silent: what waits for it goes, what is under way stays.
    pub(crate) fn withdraw_all(&mut self, swarm: &SwarmId, peer: &PeerId) -> Vec<Done> {
        let range = (*swarm, *peer, 0)..=(*swarm, *peer, u64::MAX);
        let gone: Vec<_> = self.waiting.range(range).map(|(_, at)| *at).collect();
        gone.iter().filter_map(|at| self.remove(at)).map(|(swarm, offer)| done(swarm, &offer)).collect()
    }

    /// What of a swarm was released to the peer and is not acknowledged.
    pub(crate) fn under_way(&self, swarm: &SwarmId, peer: &PeerId) -> Vec<ChunkToken> {
        let flights = self.connections.get(peer).into_iter().flat_map(|connection| &connection.flights);
        flights.filter(|(_, flight)| flight.swarm == *swarm).map(|(token, _)| *token).collect()
    }

    /// What was released in swarms that this node is not in, and is not acknowledged.
    pub(crate) fn under_way_outside(&self, is_in: impl Fn(&SwarmId) -> bool) -> Vec<(PeerId, ChunkToken)> {
        let flights = self.connections.iter().flat_map(|(peer, connection)| {
            connection.flights.iter().map(move |(token, flight)| (*peer, *token, flight.swarm))
        });
        flights.filter(|(.., swarm)| !is_in(swarm)).map(|(peer, token, _)| (peer, token)).collect()
    }

    /// The peer is no child any more: chunks that wait to be pushed to it and match go; requested ones stay.
    pub(crate) fn withdraw_pushes(&mut self, swarm: &SwarmId, peer: &PeerId, matches: impl Fn(u64) -> bool) {
        let range = (*swarm, *peer, 0)..=(*swarm, *peer, u64::MAX);
        let gone: Vec<_> = self
            .waiting
            .range(range)
            .filter(|((.., number), _)| matches(*number))
            .map(|(_, at)| *at)
            .collect();
        for at in gone {
            if self.queue.get(&at).is_some_and(|(_, offer)| !offer.requested) {
                self.remove(&at);
            }
        }
    }

    /// The node leaves a swarm.
    pub(crate) fn forget(&mut self, swarm: &SwarmId) {
        let gone: Vec<_> = self.queue.iter().filter(|(_, (c, _))| c == swarm).map(|(key, _)| *key).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// What expired in the queue.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Done> {
        if now < self.expires_at {
            return Vec::new();
        }
        let gone: Vec<_> =
            self.queue.iter().filter(|(_, (_, o))| o.expires <= now).map(|(key, _)| *key).collect();
        let done = gone
            .iter()
            .filter_map(|key| self.remove(key))
            .map(|(swarm, offer)| done(swarm, &offer))
            .collect();
        let next = self.queue.values().map(|(_, offer)| offer.expires).min();
        self.expires_at = next.unwrap_or(Timestamp::FAR_FUTURE);
        done
    }

    /// Peers that have not acknowledged a chunk for suspiciously long.
    pub(crate) fn stalled(&self, now: Timestamp) -> impl Iterator<Item = PeerId> {
        self.connections.iter().filter_map(move |(peer, connection)| {
            (now.since(connection.oldest?) > STALLED_AFTER + connection.rtt * 4).then_some(*peer)
        })
    }

    /// Peers that have acknowledged nothing for so long that their places are better given to others, and those that no longer do so.
    pub(crate) fn takes_nothing(&mut self, now: Timestamp) -> impl Iterator<Item = (PeerId, bool)> {
        self.connections.iter_mut().filter_map(move |(peer, connection)| {
            let is_so = connection.oldest.is_some_and(|oldest| now.since(oldest) > TAKES_NOTHING_AFTER);
            let was_so = core::mem::replace(&mut connection.took_nothing, is_so);
            (is_so || was_so).then_some((*peer, is_so))
        })
    }

    /// As many chunks are under way as the line may be given while nothing is known of it. Those that a peer does not acknowledge
    /// are not on the line: nobody may hold it up for others.
    fn is_window_full(&self, now: Timestamp) -> bool {
        let window = self.budget.window();
        if self.under_way < window {
            return false;
        }
        let flights = self.connections.values().flat_map(|connection| connection.flights.values());
        flights.filter(|flight| now.since(flight.released) < HELD_UP_AFTER).count() >= window
    }

    /// The next chunk to hand over, if pacer and connections let one go now.
    pub(crate) fn release(&mut self, now: Timestamp) -> Option<Release> {
        let under_way = self.under_way;
        if now < self.free_at || self.is_window_full(now) {
            return None;
        }
        let ready = |(_, (_, offer)): &(&(Timestamp, u64), &(SwarmId, Offer))| {
            offer.expires > now && self.connections.get(&offer.peer).is_some_and(Connection::has_room)
        };
        let key = *self.queue.iter().take(SCAN_MAX).find(ready)?.0;
        let (swarm, offer) = self.remove(&key)?;
        let bytes = offer.chunk.encoded().len() as u64;
        let follows = self.free_at + BURST >= now;
        let mut transmission = Duration::ZERO;
        if let Some(bps) = self.budget.pace_bps() {
            transmission = budget::transmission(bytes, bps);
            self.free_at = self.free_at.max(now.saturating_sub(BURST)) + transmission;
        }
        self.next += 1;
        let token = ChunkToken(self.next);
        let flight = Flight {
            swarm,
            number: offer.chunk.header().number,
            requested: offer.requested,
            overdue: offer.overdue,
            bytes,
            released: now,
            mark: self.budget.released(now, bytes, under_way, follows),
        };
        self.connections.get_mut(&offer.peer)?.begin(token, flight);
        self.under_way += 1;
        if !offer.requested {
            let waited = now.since(offer.offered).as_micros() as u64;
            self.usual_wait_us = (self.usual_wait(now) * 15 + waited.min(2_000_000)) / 16;
            self.usual_at = now;
        }
        let here_us = (now.since(offer.received) + transmission).as_micros() as u64;
        let hops_us = offer.hops_us.map(|hops_us| hops_us + here_us);
        Some(Release { token, swarm, offer, hops_us })
    }

    /// A released chunk ended.
    pub(crate) fn ended(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        token: ChunkToken,
        delivered: bool,
    ) -> Option<Done> {
        let least = self.connections.values().map(Connection::least_rtt).min()?;
        let connection = self.connections.get_mut(peer)?;
        let flight = connection.end(&token)?;
        self.under_way -= 1;
        if delivered {
            let took = now.since(flight.released);
            // What was connected through a queue may take it for distance; nobody is nearer than the nearest.
            let rtt = if connection.calm { connection.least_rtt() } else { least };
            self.budget.delivered(now, flight.bytes, rtt, took, flight.mark);
        }
        let sent_bytes = delivered.then_some(flight.bytes);
        Some(Done {
            swarm: flight.swarm,
            peer: *peer,
            number: flight.number,
            requested: flight.requested,
            overdue: flight.overdue,
            merged: false,
            sent_bytes,
        })
    }

    /// When to look again: the pacer's next turn, or the first expiry.
    pub(crate) fn timeout(&self, now: Timestamp) -> Timestamp {
        if self.queue.is_empty() {
            return Timestamp::FAR_FUTURE;
        }
        if self.free_at > now {
            return self.free_at;
        }
        // Every connection is full: an acknowledgement comes first, or an expiry.
        now + Duration::from_millis(100)
    }

    pub(crate) fn view(&mut self, now: Timestamp) -> UplinkView {
        if now >= self.line_wait.1 {
            self.line_wait = (self.look_at_line(now), now + LINE_LOOK_PERIOD);
        }
        let paced = self.budget.pace_bps().unwrap_or(50_000_000).max(1);
        let queued = Duration::from_micros(self.queued_bytes * 8_000_000 / paced);
        let wait = (queued + self.free_at.since(now)).max(self.line_wait.0);
        self.standing.note(now, wait);
        UplinkView {
            standing_wait: self.standing.get(),
            upload_bps: self.budget.upload_bps(),
            proven_bps: self.budget.proven_bps(),
            pace_bps: paced,
            wait,
            usual_wait: Duration::from_micros(self.usual_wait(now)),
        }
    }

    /// How long pushed chunks waited lately, µs; it fades when there are none: who has lost its children may have others.
    fn usual_wait(&self, now: Timestamp) -> u64 {
        let halvings = now.since(self.usual_at).as_millis() / USUAL_HALF_LIFE.as_millis();
        self.usual_wait_us >> halvings.min(63)
    }

    /// How long chunks wait in the line itself, beyond what this queue knows: every connection in use has one that has
    /// been unacknowledged for at least this much longer than two round trips. Silent peers say nothing of the line.
    fn look_at_line(&self, now: Timestamp) -> Duration {
        let waits = self.connections.values().filter_map(|connection| {
            let waited = now.since(connection.oldest?);
            let longer = waited.saturating_sub(connection.least_rtt() * 2);
            (longer < STALLED_AFTER).then_some(longer)
        });
        waits.min().unwrap_or_default()
    }

    fn remove(&mut self, key: &(Timestamp, u64)) -> Option<(SwarmId, Offer)> {
        let removed = self.queue.remove(key)?;
        self.queued_bytes -= removed.1.chunk.encoded().len() as u64;
        self.waiting.remove(&(removed.0, removed.1.peer, removed.1.chunk.header().number));
        Some(removed)
    }
}

fn done(swarm: SwarmId, offer: &Offer) -> Done {
    let number = offer.chunk.header().number;
    let (requested, overdue) = (offer.requested, offer.overdue);
    Done { swarm, peer: offer.peer, number, requested, overdue, merged: false, sent_bytes: None }
}

#[cfg(test)]
mod tests;
