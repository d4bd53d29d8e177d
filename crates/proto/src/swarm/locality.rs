//! What a map of the network says of the ways to other peers. Advice: the swarm works without it, and against it.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Swarm;
use super::children::Child;
use super::neighbour::Neighbour;
use super::peers::Known;
use super::tree::Substream;
use crate::id::PeerId;
use crate::record::PeerRecord;
use crate::time::Timestamp;
use crate::wire::Message;

/// What a map of the network says of the way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathCost {
    /// Lower is nearer; no unit. In thousandths of the map's own numbers.
    pub cost: u32,
    /// It is in this node's own PID.
    pub is_own: bool,
}

/// A map of the network, seen from this node; it may change at any time. Advice.
pub trait NetworkMap: Send {
    /// `None`: no map speaks of it (there is none, or it is too old).
    fn cost(&self, ip: IpAddr) -> Option<PathCost>;
}

/// Where a peer is beside this node, as both can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// No map speaks of it, or none is heeded.
    Unknown,
    /// In the same PID.
    Own,
    /// In another.
    Away,
}

/// Those who are near are sought this often, while a substream comes from elsewhere …
const SEEK_NEAR_PERIOD: Duration = Duration::from_secs(1);
/// … twice as long each time, up to this.
const SEEK_NEAR_PERIOD_MAX: Duration = Duration::from_secs(8);
/// Who accepts children of this value has a place for a leaf of its own PID.
const ROOMY: u8 = 2;
/// Neighbours are looked up again this many a second: maps change.
const LOOKED_UP_MAX: usize = 16;

impl Swarm {
    /// What the map says of a peer at these addresses: the nearest counts.
    pub(super) fn path_to<'a>(&self, addrs: impl IntoIterator<Item = &'a SocketAddr>) -> Option<PathCost> {
        let map = self.config.network_map.as_ref()?;
        addrs.into_iter().filter_map(|addr| map.cost(addr.ip())).min()
    }

    /// Once a second: some neighbours are looked up again, in turn.
    pub(super) fn look_up_paths(&mut self) {
        if self.config.network_map.is_none() {
            return;
        }
        let after = self.looked_up;
        let mut turn: Vec<PeerId> = self.neighbours.values().map(|n| n.peer).collect();
        let begin = turn.partition_point(|peer| Some(*peer) <= after);
        turn.rotate_left(begin);
        for peer in turn.into_iter().take(LOOKED_UP_MAX) {
            let Some(addr) = self.neighbours.get(&peer).map(|n| n.addr) else { continue };
            let path = self.path_to(&addr);
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.path = path;
            }
            self.looked_up = Some(peer);
        }
        self.measure_costs();
        self.look_up_known();
    }

    /// Peers that are known and not connected, in turn.
    fn look_up_known(&mut self) {
        let after = self.looked_up_known;
        let mut turn: Vec<PeerId> = self.known.iter().map(|(peer, _)| *peer).collect();
        let begin = turn.partition_point(|peer| Some(*peer) <= after);
        turn.rotate_left(begin);
        for peer in turn.into_iter().take(LOOKED_UP_MAX) {
            let path = self.known.get(&peer).and_then(|known| self.path_to(known.addrs()));
            if let Some(known) = self.known.get_mut(&peer) {
                known.path = path;
            }
            self.looked_up_known = Some(peer);
        }
    }

    /// The map is there and heeded.
    pub(super) fn has_map(&self) -> bool {
        self.config.policy.locality && self.config.network_map.is_some()
    }

    /// Where a neighbour is. A source treats all alike, and all treat it so: it must not feed one network alone.
    pub(super) fn side(&self, n: &Neighbour) -> Side {
        match n.path.filter(|_| self.config.policy.locality && !n.source && !self.is_source()) {
            None => Side::Unknown,
            Some(path) if path.is_own => Side::Own,
            Some(_) => Side::Away,
        }
    }

    /// What it counts against a neighbour that the way to it is dear, of `most` at most, µs: nothing in the own PID and where no
    /// map speaks, half for the cheapest way out of it.
    pub(super) fn away_us(&self, n: &Neighbour, most: Duration) -> u64 {
        let Some(path) = n.path.filter(|path| self.config.policy.locality && !path.is_own) else { return 0 };
        let most = most.as_micros() as u64;
        let (near, far) = self.costs;
        let above = u64::from(path.cost.saturating_sub(near).min(far.saturating_sub(near)));
        let whole = u64::from(far.saturating_sub(near));
        if whole == 0 { most } else { most / 2 + most / 2 * above / whole }
    }

    /// Whether `n`, the parent of the parent that this node has in `sub`, may be as near as that one whatever it costs: who feeds a
    /// network should be strong, and somebody weak does now.
    pub(super) fn may_replace_parent(&self, sub: &Substream, n: &Neighbour) -> bool {
        let parent = sub.parent().and_then(|parent| self.neighbours.get(&parent));
        sub.grandparent() == Some(n.peer.tag())
            && parent.is_some_and(|parent| {
                parent.is_own_pid() && self.upload_kbps() >= parent.upload_kbps.saturating_mul(2)
            })
    }

    /// The parent of substream `s` is in another PID.
    pub(super) fn is_imported(&self, s: u8) -> bool {
        let parent = self.substreams.get(usize::from(s)).and_then(Substream::parent);
        parent.and_then(|peer| self.neighbours.get(&peer)).is_some_and(|n| self.side(n) == Side::Away)
    }

    /// Of peers to be named to `to`, if it is in this node's own PID, those first that are, too, and have room for children.
    pub(super) fn put_near_with_room_first(&self, told: &mut [PeerRecord], to: &PeerId) {
        if self.neighbours.get(to).is_none_or(|n| self.side(n) != Side::Own) {
            return;
        }
        let rank = |peer: &PeerId| {
            let own = self.neighbours.get(peer).filter(|n| self.side(n) == Side::Own);
            let has_room = own.is_some_and(|n| n.state.substreams.iter().any(|sub| sub.accept <= ROOMY));
            (own.is_none(), !has_room)
        };
        told.sort_by_key(|record| rank(&record.peer));
    }

    /// Of children to be named to `to` those first that are on the same side as it, or at least as dear to reach.
    pub(super) fn put_alike_first(&self, children: &mut [&Child], to: &PeerId) {
        let path = |peer: &PeerId| self.neighbours.get(peer).and_then(|n| n.path);
        let Some(wanted) = path(to).filter(|_| self.config.policy.locality) else { return };
        children.sort_by_key(|child| path(&child.peer) != Some(wanted));
    }

    /// The least and the most that it costs to leave the PID, of the neighbours' paths.
    fn measure_costs(&mut self) {
        let away = self.neighbours.values().filter_map(|n| n.path).filter(|path| !path.is_own);
        let costs = away.map(|path| path.cost);
        self.costs = costs.fold((u32::MAX, 0), |(near, far), cost| (near.min(cost), far.max(cost)));
    }

    fn count_sides(&self) -> (usize, usize) {
        let own = self.neighbours.values().filter(|n| n.is_own_pid()).count();
        (own, self.neighbours.len() - own)
    }

    /// Of those who may be dialled, in any order, up to `room` that keep a mixture: half of the neighbours near, the others any.
    pub(super) fn mix(&mut self, mut ready: Vec<Dialable>, room: usize) -> Vec<PeerId> {
        let wanted = self.config.policy.neighbours_wanted / 2;
        let (own, _) = self.count_sides();
        let near = wanted.saturating_sub(own + self.near_dials()).min(room);
        ready.sort_unstable_by_key(|dialable| dialable.order(true));
        let last = ready.first().map(|dialable| dialable.cost);
        // Where nobody is nearer than others there is nobody to prefer.
        let is_level = ready.last().map(|dialable| dialable.cost) == last;
        let split = if is_level { 0 } else { near.min(ready.len()) };
        let mut rest = ready.split_off(split);
        rest.sort_unstable_by_key(|dialable| dialable.order(false));
        ready.into_iter().chain(rest).take(room).map(|dialable| dialable.peer).collect()
    }

    fn near_dials(&self) -> usize {
        self.known.values().filter(|known| known.is_being_dialled_near()).count()
    }

    /// Idle neighbours in the order in which they make room: those away first, as long as enough links lead out of the PID.
    pub(super) fn makes_room_first(&self, n: &Neighbour) -> bool {
        let (_, away) = self.count_sides();
        self.side(n) == Side::Away && away > self.config.policy.links_out * 2
    }

    /// Once a second: a substream that comes from elsewhere is a reason to meet more of those who are near.
    pub(super) fn seek_near(&mut self, now: Timestamp) {
        if !self.has_map() || self.is_source() || now < self.seek_near_at {
            return;
        }
        if !(0..self.substream_count()).any(|s| self.is_imported(s)) {
            self.seek_near_after = SEEK_NEAR_PERIOD;
            return;
        }
        self.seek_near_at = now + self.seek_near_after;
        self.seek_near_after = (self.seek_near_after * 2).min(SEEK_NEAR_PERIOD_MAX);
        let own: Vec<PeerId> =
            self.neighbours.values().filter(|n| n.met && self.side(n) == Side::Own).map(|n| n.peer).collect();
        if let Some(peer) = self.rng.choice(&own).copied() {
            self.send(peer, &Message::Pex(Vec::new()));
        }
        let is_near = |known: &Known| known.is_own_pid() && known.may_be_dialled(now);
        let near: Vec<PeerId> = self
            .known
            .iter()
            .filter(|(peer, known)| is_near(known) && !self.neighbours.contains_key(peer))
            .map(|(peer, _)| *peer)
            .collect();
        let Some(peer) = self.rng.choice(&near).copied() else { return };
        let policy = &self.config.policy;
        let is_full = self.neighbours.len() + self.dials_under_way(now) >= policy.neighbours_max;
        if !is_full || self.make_room(now) {
            self.connect(now, peer);
        }
    }
}

/// Somebody who may be dialled.
#[derive(Debug)]
pub(super) struct Dialable {
    pub(super) peer: PeerId,
    /// Not the source, failures, hearsay.
    pub(super) usual: (bool, u32, bool),
    pub(super) cost: u32,
    pub(super) any: u64,
}

impl Dialable {
    fn order(&self, by_cost: bool) -> (bool, u32, bool, u32, u64) {
        let (not_source, failures, hearsay) = self.usual;
        (not_source, failures, hearsay, if by_cost { self.cost } else { 0 }, self.any)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::boxed::Box;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;
    use crate::chunk::Ed25519Verifier;
    use crate::id::{ChannelId, RenditionId, SecretKey};
    use crate::io::{Candidate, Connected};
    use crate::record::Ed25519Records;
    use crate::swarm::policy::Policy;
    use crate::swarm::{Role, SwarmConfig, SwarmOutput};

    /// Own PID: 10.1.0.0/16; each other second byte is a PID that costs so much. At 0 it speaks of nothing, at 2 all is near.
    struct Map(Arc<AtomicU8>);

    impl NetworkMap for Map {
        fn cost(&self, ip: IpAddr) -> Option<PathCost> {
            let IpAddr::V4(ip) = ip else { return None };
            let pid = ip.octets()[1];
            match self.0.load(Ordering::Relaxed) {
                0 => None,
                1 => Some(PathCost { cost: u32::from(pid) * 1000, is_own: pid == 1 }),
                _ => Some(PathCost { cost: 1000, is_own: true }),
            }
        }
    }

    fn id(n: u16) -> PeerId {
        let mut id = [7; 32];
        id[30..].copy_from_slice(&n.to_be_bytes());
        PeerId(id)
    }

    fn at(pid: u8, n: u16) -> SocketAddr {
        let [a, b] = n.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, pid, a, b), 4000))
    }

    fn swarm() -> (Swarm, Arc<AtomicU8>) {
        let says = Arc::new(AtomicU8::new(1));
        let config = SwarmConfig {
            channel: ChannelId([1; 32]),
            rendition: RenditionId(0),
            role: Role::Viewer,
            upload: true,
            retention: Duration::from_secs(60),
            lan: true,
            policy: Policy::default(),
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Ed25519Records(SecretKey::from_bytes(&[5; 32]))),
            network_map: Some(Box::new(Map(Arc::clone(&says)))),
        };
        (Swarm::new(Timestamp::from_millis(1), config, id(0), 0, 1), says)
    }

    fn connect(swarm: &mut Swarm, n: u16, pid: u8) {
        let rtt = Duration::from_millis(20);
        let connected = Connected { peer: id(n), addr: Some(at(pid, n)), rtt, dialled: true };
        swarm.connected(Timestamp::from_millis(1), &connected);
    }

    /// Which PIDs a swarm that is told of these many of each dials into.
    fn dials(swarm: &mut Swarm, each: &[(u8, u16)]) -> Vec<u8> {
        let all = each.iter().flat_map(|(pid, count)| (0..*count).map(move |n| (*pid, n)));
        let candidates = all.map(|(pid, n)| Candidate {
            peer: id(u16::from(pid) * 100 + n),
            addrs: std::vec![at(pid, n)],
            source: false,
            cost: 0,
        });
        swarm.candidates(Timestamp::from_millis(1), candidates.collect());
        let out = core::iter::from_fn(|| swarm.poll());
        let peers = out.filter_map(|output| match output {
            SwarmOutput::Connect(_, addrs) => Some(addrs),
            _ => None,
        });
        peers
            .map(|addrs| match addrs[0].ip() {
                IpAddr::V4(ip) => ip.octets()[1],
                IpAddr::V6(_) => 0,
            })
            .collect()
    }

    #[test]
    fn half_of_the_neighbours_are_near_and_the_others_are_not_chosen_by_cost() {
        let (mut near_by, _) = swarm();
        let dialled = dials(&mut near_by, &[(1, 30), (5, 30), (9, 30)]);
        assert_eq!(dialled.len(), 8);
        let own = dialled.iter().filter(|pid| **pid == 1).count();
        assert!((6..=8).contains(&own), "half of twelve, and perhaps some by chance: {dialled:?}");

        let (mut alone, _) = swarm();
        let dialled = dials(&mut alone, &[(5, 30), (9, 30)]);
        assert!(dialled.iter().filter(|pid| **pid == 5).count() >= 6, "the cheapest: {dialled:?}");

        let (mut told_nothing, says) = swarm();
        says.store(0, Ordering::Relaxed);
        assert_eq!(dials(&mut told_nothing, &[(1, 2), (9, 30)]).len(), 8, "no map stops nobody");
    }

    #[test]
    fn a_parent_elsewhere_counts_worse_by_cost_and_less_than_nothing_stops_it() {
        let (mut swarm, says) = swarm();
        for (n, pid) in [(1, 1), (2, 5), (3, 9)] {
            connect(&mut swarm, n, pid);
        }
        swarm.look_up_paths();
        let away = |swarm: &Swarm, n: u16| {
            swarm.away_us(swarm.neighbours.get(&id(n)).expect("connected"), Duration::from_millis(100))
        };
        assert_eq!([1, 2, 3].map(|n| away(&swarm, n)), [0, 50_000, 100_000]);
        // The map changes, and is looked up again.
        says.store(2, Ordering::Relaxed);
        swarm.look_up_paths();
        assert_eq!([1, 2, 3].map(|n| away(&swarm, n)), [0, 0, 0], "all in one PID: all alike");
        says.store(0, Ordering::Relaxed);
        swarm.look_up_paths();
        assert_eq!([1, 2, 3].map(|n| away(&swarm, n)), [0, 0, 0], "no map: all alike");
        says.store(1, Ordering::Relaxed);
        swarm.look_up_paths();
        swarm.config.policy.locality = false;
        assert_eq!([1, 2, 3].map(|n| away(&swarm, n)), [0, 0, 0], "not heeded");
        assert!(swarm.stats().neighbours.iter().all(|n| n.path.is_some()), "but reported");
    }

    #[test]
    fn whoever_makes_room_leaves_links_out_of_the_pid() {
        let (mut swarm, _) = swarm();
        for n in 0..8 {
            connect(&mut swarm, n + 1, if n < 5 { 9 } else { 1 });
        }
        let first = |swarm: &Swarm| swarm.neighbours.values().filter(|n| swarm.makes_room_first(n)).count();
        assert_eq!(first(&swarm), 5, "those away");
        swarm.forget(Timestamp::from_millis(1), id(1));
        assert_eq!(first(&swarm), 0, "four links lead out: they are no longer the first to go");
    }
}
