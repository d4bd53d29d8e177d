//! Which members of a channel are near to an asker, as a map of the network says (ALTO, RFC 7285): the map, and the members by the
//! network that they are in.
//!
//! A map is advice, and may be wrong: it never decides alone whom an asker is told of. That is [`super::pick`]'s.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use caudal_alto::client::Snapshot;
use caudal_alto::map::PidIndex;
use caudal_proto::id::PeerId;

/// A version of the map.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    snapshot: Arc<Snapshot>,
    /// Another one for each version; never 0.
    version: u64,
}

/// Where an address is in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pid: PidIndex,
    /// A prefix names its network; otherwise it is in the rest of the world, whose members have nothing in common.
    pub(crate) known: bool,
}

impl Map {
    pub(crate) fn new(snapshot: Arc<Snapshot>, version: u64) -> Self {
        Self { snapshot, version: version.max(1) }
    }

    pub(crate) fn is_same(&self, snapshot: &Snapshot) -> bool {
        self.snapshot.is_same(snapshot)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn place(&self, ip: IpAddr) -> Option<Place> {
        let (pid, prefix) = self.snapshot.network().longest_match(ip)?;
        Some(Place { pid, known: prefix.prefix_len() > 0 })
    }

    /// The cost from one place to another, by the map's own numbers.
    pub(crate) fn cost(&self, from: Place, to: Place) -> Option<f64> {
        self.snapshot.costs().first()?.get(from.pid, to.pid)
    }

    /// The same as peers are told it: in thousandths, from 1, because 0 says that nothing is known.
    pub(crate) fn told_cost(&self, from: Place, to: Place) -> Option<u32> {
        // What is larger than there is room for is as far away as can be said.
        self.cost(from, to).map(|cost| ((cost * 1000.0).round() as u32).max(1))
    }
}

/// The members of a channel by place, so that those of an asker's network are found among many others in little time.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Of the map that they were sorted by; 0: they are not sorted.
    pub(crate) version: u64,
    by_place: BTreeMap<Place, Vec<PeerId>>,
    /// Those that came since.
    pub(crate) unsorted: Vec<PeerId>,
}

impl Groups {
    /// Forgets everybody.
    pub(crate) fn clear(&mut self, version: u64) {
        *self = Self { version, ..Self::default() };
    }

    /// Adds a member; gives its index.
    pub(crate) fn add(&mut self, place: Place, peer: PeerId) -> usize {
        let group = self.by_place.entry(place).or_default();
        group.push(peer);
        group.len() - 1
    }

    /// Removes the member at `index`; gives the one that took its index.
    pub(crate) fn remove(&mut self, place: Place, index: usize) -> Option<PeerId> {
        let group = self.by_place.get_mut(&place)?;
        if index >= group.len() {
            return None;
        }
        group.swap_remove(index);
        let moved = group.get(index).copied();
        if group.is_empty() {
            self.by_place.remove(&place);
        }
        moved
    }

    pub(crate) fn group(&self, place: Place) -> &[PeerId] {
        self.by_place.get(&place).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.by_place.keys().copied()
    }

    /// The `count` places other than `own` to which it costs least to get from there; chance decides among equals.
    pub(crate) fn nearest(
        &self,
        map: &Map,
        own: Place,
        count: usize,
        random: &mut fastrand::Rng,
    ) -> Vec<Place> {
        let others = self.places().filter(|place| *place != own);
        let mut costs: Vec<(f64, u32, Place)> = others
            .filter_map(|place| map.cost(own, place).map(|cost| (cost, random.u32(..), place)))
            .collect();
        costs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        costs.into_iter().take(count).map(|(_, _, place)| place).collect()
    }
}
