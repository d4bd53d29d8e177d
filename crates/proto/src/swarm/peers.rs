//! Whom this node knows and dials: candidates from trackers and neighbours ([`pex`](super::pex)); silent neighbours noticed,
//! useless ones left, idle ones sent away for others.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::locality::{Dialable, PathCost};
use super::neighbour::Probe;
use super::pex::Word;
use super::policy::Policy;
use super::{Swarm, SwarmOutput};
use crate::addr::is_dialable;
use crate::id::PeerId;
use crate::io::{CANDIDATES_PER_INPUT_MAX, Candidate, CloseCode, Event};
use crate::time::Timestamp;
use crate::wire::Message;

/// Most peers known and not connected.
pub(super) const KNOWN_MAX: usize = 256;
/// Most addresses kept for one.
const ADDRS_MAX: usize = 8;
/// Most dials under way.
pub(super) const DIALS_MAX: usize = 8;
/// A dial that was neither answered nor refused for this long has failed.
const DIAL_MAX: Duration = Duration::from_secs(15);
/// A peer that fails this often in a row is forgotten.
const FAILURES_MAX: u32 = 6;
/// The tracker is asked for peers this often at most while nothing arrives …
const NEED_PEERS_PERIOD: Duration = Duration::from_millis(1000);
/// … and, when asking brought no more of them, this often at most while the stream is there.
const NEED_PEERS_PERIOD_MAX: Duration = Duration::from_secs(16);
/// A neighbour is asked this often at most: every answer is a reason to look again, and must not be one to ask again.
const PROBE_PERIOD: Duration = Duration::from_millis(120);
/// A neighbour that is younger than this is not sent away: it has not had the time to be of use.
const IDLE_AFTER: Duration = Duration::from_secs(3);
/// A viewer to whom nothing comes changes a neighbour this often.
const STARVED_PERIOD: Duration = Duration::from_secs(4);
/// A claimed upload of more than so many stream rates makes no better neighbour of a source: words cost nothing.
const CLAIM_RATES_MAX: u32 = 4;
/// Of a source's places for neighbours one in so many is for those whom it feeds nothing and who came first.
const WITNESSES_SHARE: usize = 4;
/// Idle neighbours are sent away for others this often at most.
const MAKE_ROOM_PERIOD: Duration = Duration::from_millis(200);
/// All neighbours that were not heard of for this long are asked at once when a parent may be gone …
const LOOK_AROUND_QUIET: Duration = Duration::from_millis(150);
/// … this often at most.
const LOOK_AROUND_PERIOD: Duration = Duration::from_millis(1000);
/// A probed neighbour that stays silent for this long is disconnected.
const SILENT_FOR: Duration = Duration::from_secs(4);

/// A peer that is known of.
#[derive(Debug)]
pub(super) struct Known {
    addrs: Vec<SocketAddr>,
    source: bool,
    cost: u32,
    /// A dial is under way until then, whatever the driver says of it.
    dialling: Option<Timestamp>,
    failures: u32,
    next_dial: Timestamp,
    /// It is known by a neighbour's word; `None`: a tracker named it.
    pub(super) word: Option<Word>,
    /// It was met.
    met: bool,
    /// What the map says of the way to it.
    pub(super) path: Option<PathCost>,
}

impl Known {
    pub(super) fn is_being_dialled(&self, now: Timestamp) -> bool {
        self.dialling.is_some_and(|until| now < until)
    }

    pub(super) fn may_be_dialled(&self, now: Timestamp) -> bool {
        !self.is_being_dialled(now) && now >= self.next_dial
    }

    /// The word by which it is known, where no tracker and no connection has confirmed it.
    pub(super) fn hearsay(&self) -> Option<Word> {
        self.word.filter(|_| !self.met)
    }

    pub(super) fn is_at(&self, ip: IpAddr) -> bool {
        self.addrs.iter().any(|addr| addr.ip() == ip)
    }

    /// The map puts it into this node's own PID.
    pub(super) fn is_own_pid(&self) -> bool {
        self.path.is_some_and(|path| path.is_own)
    }

    pub(super) fn is_being_dialled_near(&self) -> bool {
        self.dialling.is_some() && self.is_own_pid()
    }

    pub(super) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// How dear the way to it is: by this node's own map, by the tracker's where that does not speak of it.
    pub(super) fn cost(&self) -> u32 {
        match (self.path, self.cost) {
            (Some(path), _) if path.is_own => 0,
            (Some(path), _) => path.cost.max(1),
            (None, 0) => u32::MAX,
            (None, cost) => cost,
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn connected(&mut self) {
        self.met = true;
        self.dialling = None;
        self.failures = 0;
    }

    /// The connection, or the attempt at one, ended.
    pub(super) fn lost(&mut self, now: Timestamp, policy: &Policy) {
        self.dialling = None;
        self.failures += 1;
        self.next_dial = now + policy.redial_after * (1 << self.failures.min(7));
    }
}

impl Swarm {
    /// Whether this swarm is dialling, or would dial, `peer`.
    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        self.known.contains_key(peer)
    }

    pub(crate) fn candidates(&mut self, now: Timestamp, candidates: Vec<Candidate>) {
        for candidate in candidates.into_iter().take(CANDIDATES_PER_INPUT_MAX) {
            self.know(now, candidate, None);
        }
        self.dial(now);
    }

    /// Hearsay (`word`) takes no tracker's candidate's place: it must not be a way to choose whom this node meets.
    pub(super) fn know(&mut self, now: Timestamp, candidate: Candidate, word: Option<Word>) {
        let Candidate { peer, mut addrs, source, cost } = candidate;
        addrs.retain(|addr| is_dialable(addr, self.config.lan));
        addrs.truncate(ADDRS_MAX);
        if peer == self.local
            || addrs.is_empty()
            || self.banned.contains(&peer)
            || self.served_alone && !source
        {
            return;
        }
        let path = self.path_to(&addrs);
        let is_new = !self.known.contains_key(&peer);
        if self.known.len() >= KNOWN_MAX && is_new {
            let rng = &mut self.rng;
            let neighbours = &self.neighbours;
            let others = self
                .known
                .iter()
                .filter(|(id, k)| !neighbours.contains_key(id) && (k.hearsay().is_some() || word.is_none()));
            // Among equals any: whoever could choose its id would choose whom it replaces.
            let worst = others
                .max_by_key(|(_, k)| (!k.source, k.hearsay().is_some(), k.failures, k.cost, rng.u64(..)));
            let Some(worst) = worst.map(|(id, _)| *id) else { return };
            self.known.remove(&worst);
        }
        let known = self.known.get_or_insert_with(peer, || Known {
            addrs: Vec::new(),
            source,
            cost,
            dialling: None,
            failures: 0,
            next_dial: now,
            word,
            met: false,
            path: None,
        });
        // Who heard of it first is who it is counted for, until a tracker names it.
        known.word = known.word.and_then(|first| Some(Word { until: word?.until, ..first }));
        known.source |= source;
        known.cost = cost;
        known.path = path;
        if known.addrs != addrs {
            // A new address is a new chance.
            known.addrs = addrs;
            known.failures = 0;
            known.next_dial = known.next_dial.min(now + Duration::from_millis(100));
        }
    }

    pub(crate) fn dial_failed(&mut self, now: Timestamp, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.lost(now, &self.config.policy);
            if known.failures > FAILURES_MAX {
                self.known.remove(&peer);
            }
        }
    }

    pub(super) fn dials_under_way(&self, now: Timestamp) -> usize {
        self.known.values().filter(|known| known.is_being_dialled(now)).count()
    }

    fn dial(&mut self, now: Timestamp) {
        let dialling = self.dials_under_way(now);
        let policy = &self.config.policy;
        let has = self.neighbours.len() + dialling;
        let mut room = policy.neighbours_first.min(policy.neighbours_wanted).saturating_sub(has);
        if room == 0 && has < policy.neighbours_wanted && now >= self.dial_at {
            room = 1;
        }
        room = room.min(DIALS_MAX.saturating_sub(dialling));
        if room == 0 {
            return;
        }
        self.dial_at = now + policy.dial_period;
        self.dial_some(now, room);
    }

    fn dial_some(&mut self, now: Timestamp, room: usize) {
        let rng = &mut self.rng;
        let mut ready: Vec<Dialable> = self
            .known
            .iter()
            .filter(|(peer, known)| known.may_be_dialled(now) && !self.neighbours.contains_key(peer))
            .map(|(peer, known)| Dialable {
                peer: *peer,
                usual: (!known.source, known.failures, known.hearsay().is_some()),
                cost: known.cost(),
                any: rng.u64(..),
            })
            .collect();
        let peers: Vec<PeerId> = if self.has_map() {
            self.mix(ready, room)
        } else {
            ready.sort_unstable_by_key(|dialable| (dialable.usual, dialable.any, dialable.peer));
            ready.into_iter().take(room).map(|dialable| dialable.peer).collect()
        };
        for peer in peers {
            self.connect(now, peer);
        }
    }

    pub(super) fn connect(&mut self, now: Timestamp, peer: PeerId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.dialling = Some(now + DIAL_MAX);
            self.out.push_back(SwarmOutput::Connect(peer, known.addrs.clone()));
        }
    }

    /// Once a second: dial, ask for more, tell neighbours of each other.
    pub(super) fn tend_peers(&mut self, now: Timestamp) {
        self.neighbours.values_mut().for_each(super::neighbour::Neighbour::fade);
        self.forget_expired(now);
        self.dial(now);
        self.seek_near(now);
        let few = self.neighbours.len() < self.config.policy.neighbours_wanted / 2;
        let silent = !self.is_source() && now.since(self.last_chunk()) > Duration::from_secs(2);
        if silent && now >= self.starved_at {
            self.starved_at = now + STARVED_PERIOD;
            self.leave_the_useless(now);
        }
        if (few || silent) && now >= self.need_peers_at {
            self.need_peers_after = if silent {
                NEED_PEERS_PERIOD
            } else {
                (self.need_peers_after * 2).min(NEED_PEERS_PERIOD_MAX)
            };
            self.need_peers_at = now + self.need_peers_after;
            self.event(Event::NeedPeers(self.config.swarm_id()));
            self.ask_for_peers(now);
        }
        self.renew_records(now);
        self.tell_pex(now);
    }

    fn last_chunk(&self) -> Timestamp {
        let edge = self.store.edge();
        self.store
            .range(edge.saturating_sub(1)..edge)
            .next()
            .map_or(self.epoch_since, |(_, held)| held.received)
    }

    /// A viewer that has all the neighbours it takes lets the farthest go of those that are of no use: those who were
    /// there first must not be closed to those who come. The nearest that it dialled itself it keeps: strangers cannot choose
    /// all its neighbours. False when all others are of use, or young.
    pub(super) fn make_room(&mut self, now: Timestamp) -> bool {
        if self.is_source() || now < self.make_room_at {
            return false;
        }
        let Some(peer) = self.farthest_idle(now) else { return false };
        self.make_room_at = now + MAKE_ROOM_PERIOD;
        self.forget(now, peer);
        self.out.push_back(SwarmOutput::Disconnect(peer, CloseCode::Full));
        true
    }

    /// Nothing comes, and there are neighbours enough: whoever has brought nothing for the longest goes, so that another can
    /// be dialled. Neighbours that only claim to be of use must not hold a viewer captive.
    fn leave_the_useless(&mut self, now: Timestamp) {
        if self.neighbours.len() < self.config.policy.neighbours_wanted {
            return;
        }
        let grown = self.neighbours.values().filter(|n| now.since(n.connected) > IDLE_AFTER && !n.source);
        let Some(peer) = grown.min_by_key(|n| (n.chunk_at, n.peer)).map(|n| n.peer) else { return };
        self.forget(now, peer);
        self.out.push_back(SwarmOutput::Disconnect(peer, CloseCode::Done));
        self.dial_some(now, 1);
    }

    /// Of the neighbours that are of no use at the moment, and have had the time to be, the farthest.
    fn farthest_idle(&self, now: Timestamp) -> Option<PeerId> {
        let mut own: Vec<_> = self
            .neighbours
            .values()
            .filter(|n| n.dialled)
            .map(|n| (self.makes_room_first(n), n.rtt, n.peer))
            .collect();
        own.sort_unstable();
        own.truncate(self.config.policy.neighbours_wanted / 2);
        let idle = self.neighbours.values().filter(|n| {
            now.since(n.connected) > IDLE_AFTER
                && !n.source
                && !own.iter().any(|(.., peer)| *peer == n.peer)
                && n.asked.is_empty()
                && n.serving == 0
                && self.reliance(&n.peer) == 0
                && !self.feeds(&n.peer)
        });
        idle.max_by_key(|n| (self.makes_room_first(n), n.rtt, n.peer)).map(|n| n.peer)
    }

    /// What the channel's descriptor says: its source feeds everybody.
    pub(crate) fn set_served_alone(&mut self, now: Timestamp, so: bool) {
        self.served_alone = so && !self.is_source();
        self.leave_viewers(now);
    }

    /// Where the source feeds everybody no viewer is met: what others, or a tracker that knows no better, name is left.
    pub(super) fn leave_viewers(&mut self, now: Timestamp) {
        if !self.served_alone {
            return;
        }
        self.known.retain(|known| known.source);
        let viewers = self.neighbours.values().filter(|n| n.met && !n.source).map(|n| n.peer);
        for peer in viewers.collect::<Vec<_>>() {
            self.forget(now, peer);
            self.out.push_back(SwarmOutput::Disconnect(peer, CloseCode::Done));
        }
    }

    /// A source has more who want to be its neighbours than it can have: of those it feeds nothing, the weakest makes room
    /// for a stronger one, and one place stays free to find out who is stronger. What uploads are is what peers say: those
    /// who came first stay whatever they say, as witnesses of where chunks arrive, and great words count no more than good ones.
    pub(super) fn keep_the_stronger(&mut self, now: Timestamp) {
        if !self.is_source() || self.neighbours.len() < self.neighbours_max() {
            return;
        }
        let believed =
            u32::try_from(self.rate_bps / 1000).unwrap_or(u32::MAX).saturating_mul(CLAIM_RATES_MAX);
        let mut idle: Vec<_> = self
            .neighbours
            .values()
            .filter(|n| n.met && !self.feeds(&n.peer))
            .map(|n| (n.connected, n.upload_kbps.min(believed), n.peer))
            .collect();
        idle.sort_unstable();
        let witnesses = self.neighbours_max() / WITNESSES_SHARE;
        let others = idle.into_iter().skip(witnesses);
        let weakest =
            others.min_by_key(|(connected, upload, peer)| (*upload, core::cmp::Reverse(*connected), *peer));
        if let Some((.., peer)) = weakest
            && self.forget(now, peer)
        {
            self.out.push_back(SwarmOutput::Disconnect(peer, CloseCode::Full));
        }
    }

    /// Asks `peer` whether it is there, unless that question is under way.
    pub(super) fn probe(&mut self, now: Timestamp, peer: PeerId) {
        let timeout = self.config.policy.probe_timeout;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if neighbour.probe.is_some() || now.since(neighbour.pinged) < PROBE_PERIOD {
            return;
        }
        neighbour.pinged = now;
        self.next_ping = self.next_ping.wrapping_add(1);
        let number = self.next_ping;
        neighbour.probe = Some(Probe { sent: now, until: now + timeout + neighbour.rtt * 4 });
        self.tick_at = self.tick_at.min(neighbour.answer_due(now));
        neighbour.send(&mut self.unsent, &Message::Ping(number));
    }

    /// A parent may be gone, and others with it: who was not heard of lately is asked, so that nobody looks for help among
    /// those who have left.
    pub(super) fn look_around(&mut self, now: Timestamp) {
        if now < self.look_around_at {
            return;
        }
        self.look_around_at = now + LOOK_AROUND_PERIOD;
        let quiet = |n: &&super::neighbour::Neighbour| now.since(n.heard) > LOOK_AROUND_QUIET;
        let quiet: Vec<PeerId> = self.neighbours.values().filter(quiet).map(|n| n.peer).collect();
        for peer in quiet {
            self.probe(now, peer);
        }
    }

    /// The uplink has chunks under way to `peer` that it does not acknowledge.
    pub(crate) fn stalled(&mut self, now: Timestamp, peer: PeerId) {
        if self.neighbours.get(&peer).is_some_and(|n| now.since(n.heard) > n.rtt * 2) {
            self.probe(now, peer);
        }
    }

    /// Notices who no longer answers.
    pub(super) fn watch_neighbours(&mut self, now: Timestamp) {
        let silence = self.config.policy.silence;
        let (mut ask, mut silent, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for neighbour in self.neighbours.values_mut() {
            match neighbour.probe {
                Some(probe) if now.since(probe.sent) > SILENT_FOR => {
                    gone.push((neighbour.peer, CloseCode::Silent));
                }
                Some(probe) if now >= probe.until && !neighbour.suspect => {
                    neighbour.suspect = true;
                    silent.push(neighbour.peer);
                }
                Some(probe) if !neighbour.suspect => self.tick_at = self.tick_at.min(probe.until),
                None if now.since(neighbour.heard) > silence => ask.push(neighbour.peer),
                _ => {}
            }
            if !neighbour.met && now.since(neighbour.connected) > SILENT_FOR {
                gone.push((neighbour.peer, CloseCode::Done));
            }
        }
        for peer in ask {
            self.probe(now, peer);
        }
        for peer in silent {
            self.locks.retain(|_, holder| *holder != peer);
            self.stop_relying_on(now, peer);
        }
        for (peer, code) in gone {
            if self.forget(now, peer) {
                self.out.push_back(SwarmOutput::Disconnect(peer, code));
            }
        }
    }
}
