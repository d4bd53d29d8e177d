//! Which peers an asker is told of, where a map of the network speaks of its address.
//!
//! Half of them because they are near, and half of those the strongest of the asker's own network: who is to be fed from within needs
//! somebody there who can. A quarter by chance, the rest for their upload. Near ones alone would make islands, and
//! whoever writes the map would decide who meets whom: so at least two are of other networks where there are any, and where an
//! asker's own network has few peers, fewer are chosen by cost and more by chance.

use std::collections::BTreeSet;

use caudal_proto::id::PeerId;

use super::channel::Channel;
use super::near::{Map, Place};

/// Fewest peers of other networks in an answer, if there are so many.
pub(crate) const OUTSIDE_MIN: usize = 2;
/// Other networks that are looked into for near peers, cheapest first; the sample has some of the others.
const NETWORKS_NEAR: usize = 3;
/// Draws from a network for each peer that is wanted of it: some do not fit.
const DRAWS: usize = 4;

/// What peers are chosen for.
pub(crate) struct Wish<'a> {
    pub(crate) map: &'a Map,
    /// Where the asker is.
    pub(crate) own: Place,
    /// How many peers.
    pub(crate) room: usize,
    /// Who may be named at all.
    pub(crate) fits: &'a dyn Fn(&PeerId) -> bool,
}

/// Peers for an asker, none twice. `sample` are some of the members that fit, in random order.
pub(crate) fn pick(
    channel: &Channel,
    wish: &Wish<'_>,
    sample: &[PeerId],
    random: &mut fastrand::Rng,
) -> Vec<PeerId> {
    let Wish { map, own, room, .. } = *wish;
    let inside = draw(channel, wish, own, room * 2, random);
    let by_cost = (room / 2).min(inside.len() + room / 4);
    let mut near = inside;
    for place in channel.groups.nearest(map, own, NETWORKS_NEAR, random) {
        near.extend(draw(channel, wish, place, room / 2, random));
    }
    near.extend_from_slice(sample);
    random.shuffle(&mut near);
    let cost = |peer: &PeerId| {
        let cost = channel.place(peer).and_then(|place| map.cost(own, place));
        cost.unwrap_or(f64::INFINITY)
    };
    // The sort is stable: equals stay shuffled.
    near.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    let upload = |peer: &PeerId| channel.member(peer).map_or(0, |member| member.upload_bps);
    let mut strong_near: Vec<PeerId> =
        near.iter().copied().filter(|peer| channel.place(peer) == Some(own)).collect();
    strong_near.sort_by_key(|peer| std::cmp::Reverse(upload(peer)));
    let mut picked = Picked::default();
    picked.take(strong_near, by_cost / 2);
    picked.take(near, by_cost);
    picked.take(sample.iter().copied(), by_cost + room / 4);
    let mut strong = sample.to_vec();
    strong.sort_by_key(|peer| std::cmp::Reverse(upload(peer)));
    picked.take(strong, room);
    let is_outside = |peer: &PeerId| channel.place(peer) != Some(own);
    let outside = picked.list.iter().filter(|peer| is_outside(peer)).count();
    if outside < OUTSIDE_MIN && room > OUTSIDE_MIN {
        let missing = OUTSIDE_MIN - outside;
        let found = outsiders(channel, wish, sample, missing, &picked.known, random);
        // In the place of those that are nearest last.
        let free = room.saturating_sub(picked.list.len());
        for _ in free..found.len() {
            let last = picked.list.iter().take(by_cost).rposition(|peer| !is_outside(peer));
            last.map(|at| picked.list.remove(at));
        }
        picked.list.extend(found);
        picked.list.truncate(room);
    }
    picked.list
}

/// Peers so far.
#[derive(Default)]
struct Picked {
    list: Vec<PeerId>,
    known: BTreeSet<PeerId>,
}

impl Picked {
    /// Takes the first of `peers` that are new, until there are `count` in all.
    fn take(&mut self, peers: impl IntoIterator<Item = PeerId>, count: usize) {
        for peer in peers {
            if self.list.len() >= count {
                return;
            }
            if self.known.insert(peer) {
                self.list.push(peer);
            }
        }
    }
}

/// Up to `wanted` of the members at `place` that fit, at random.
fn draw(
    channel: &Channel,
    wish: &Wish<'_>,
    place: Place,
    wanted: usize,
    random: &mut fastrand::Rng,
) -> Vec<PeerId> {
    let group = channel.groups.group(place);
    let mut drawn: Vec<PeerId> = if group.len() <= wanted * DRAWS {
        group.to_vec()
    } else {
        let places: BTreeSet<usize> = (0..wanted * DRAWS).map(|_| random.usize(..group.len())).collect();
        places.into_iter().map(|at| group[at]).collect()
    };
    random.shuffle(&mut drawn);
    drawn.retain(|peer| (wish.fits)(peer));
    drawn.truncate(wanted);
    drawn
}

/// Up to `count` members of other networks that fit and are not `known`: of the sample, then of whatever network has some.
fn outsiders(
    channel: &Channel,
    wish: &Wish<'_>,
    sample: &[PeerId],
    count: usize,
    known: &BTreeSet<PeerId>,
    random: &mut fastrand::Rng,
) -> Vec<PeerId> {
    let is_new = |peer: &&PeerId| !known.contains(peer) && channel.place(peer) != Some(wish.own);
    let mut found: Vec<PeerId> = sample.iter().filter(is_new).copied().take(count).collect();
    if found.len() == count {
        return found;
    }
    let mut places: Vec<Place> = channel.groups.places().filter(|place| *place != wish.own).collect();
    random.shuffle(&mut places);
    for place in places {
        for peer in draw(channel, wish, place, wish.room / 2, random) {
            if found.len() == count {
                return found;
            }
            if !known.contains(&peer) && !found.contains(&peer) {
                found.push(peer);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
