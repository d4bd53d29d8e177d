//! Whom a source feeds: everybody while its upload carries everybody, those who relay most once it does not.
//!
//! Owns the water marks. Who is displaced for whom is [`children`](super::children)'s decision, whom a viewer prefers
//! [`policy`](super::policy)'s; this module never ends what is under way: a viewer that is fed stays fed until another feeds it.

use alloc::vec::Vec;

use super::children::Child;
use super::policy::{ACCEPT_URGENT, Policy};
use super::{Role, Swarm};
use crate::record::PeerRecord;
use crate::time::Timestamp;
use crate::wire::SUGGESTIONS_MAX;

/// A source whose upload carries the stream at least this often feeds whoever comes; with less it pushes to relays alone.
pub(super) const AMPLE_COPIES: u64 = 4;
/// Of such an upload, what is pushed: headers take 7 %, control and repair the rest.
const PUSHED_PERCENT: u64 = 90;
/// From this share of the places taken on, newcomers have no place of right: those who relay more displace those who relay less, and
/// what is left is for those with no other parent.
const HIGH_WATER_PERCENT: u32 = 90;
/// Below this share everybody is welcome again.
const LOW_WATER_PERCENT: u32 = 75;
/// Of what is above a mark, this part at a time is handed over; the next part follows when that has found its place.
const HANDED_OVER: u32 = 4;
/// So many children a substream has at a source in any case, if it has them: what only one passes on goes with it.
const KEPT_MIN: u32 = 2;
/// Neighbours of a source for each copy that its upload carries: not everybody takes all substreams from it …
const NEIGHBOURS_PER_COPY: u64 = 2;
/// … and the most it ever has.
const NEIGHBOURS_MOST: usize = 256;

/// Whether there is a place for everybody.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Admission {
    is_closed: bool,
}

impl Admission {
    /// Of `slots` places `used` are taken.
    fn observe(&mut self, used: u32, slots: u32) {
        let mark = if self.is_closed { LOW_WATER_PERCENT } else { HIGH_WATER_PERCENT };
        self.is_closed = u64::from(used) * 100 >= u64::from(slots) * u64::from(mark);
    }

    pub(super) fn is_open(self) -> bool {
        !self.is_closed
    }
}

impl Swarm {
    /// A source that feeds all viewers itself: none is told of another.
    pub(super) fn serves_alone(&self) -> bool {
        matches!(self.config.role, Role::Source { alone: true, .. })
    }

    /// A source whose upload carries many copies.
    pub(super) fn is_ample(&self) -> bool {
        self.is_source() && self.upload_bps() >= self.rate_bps * AMPLE_COPIES
    }

    /// What such a source pushes, in substreams of the stream.
    pub(super) fn ample_slots(&self, carried: u32) -> u32 {
        let k = u64::from(self.substream_count());
        if u64::from(carried) < AMPLE_COPIES * k {
            return carried;
        }
        (u64::from(carried) * PUSHED_PERCENT / 100) as u32
    }

    /// Places were taken or left.
    pub(super) fn watch_water(&mut self) {
        if self.is_source() {
            let (used, slots) = (self.slots_used(), self.source_slots());
            self.admission.observe(used, slots);
        }
    }

    /// Once a second: children that are too many look elsewhere, those that relay least first: one after another above the high mark, more at a
    /// time beyond what the upload carries. Who has nobody else to go to is kept.
    pub(super) fn hand_over_to_swarm(&mut self, now: Timestamp) {
        if !self.is_source() || self.serves_alone() || self.is_displacing(now) {
            return;
        }
        let (used, slots) = (self.slots_settled(), self.source_slots());
        let is_ample = self.is_ample();
        let mark =
            if is_ample { (u64::from(slots) * u64::from(HIGH_WATER_PERCENT) / 100) as u32 } else { slots };
        if used <= mark {
            return;
        }
        let many = used.saturating_sub(slots).div_ceil(HANDED_OVER).max(1);
        let mut leaving: Vec<(Child, u8)> = (0..self.substream_count())
            .flat_map(|s| self.substreams[usize::from(s)].children.iter().map(move |child| (*child, s)))
            .collect();
        leaving.sort_by_key(|(child, s)| (child.interior, child.value, child.since, child.peer, *s));
        let mut left = many;
        for (child, s) in leaving {
            if left == 0 {
                break;
            }
            if self.substreams[usize::from(s)].settled() <= KEPT_MIN {
                continue;
            }
            let to = self.with_room(now, s, &child, used > slots);
            if !to.is_empty() {
                self.hand_over(now, s, child.peer, to);
                left -= 1;
            }
        }
    }

    /// Neighbours that would take `child` in substream `s`; `urgent`: also those who have room for people in need alone.
    fn with_room(&self, now: Timestamp, s: u8, child: &Child, urgent: bool) -> Vec<PeerRecord> {
        // Who would have to displace a child of its own has no room.
        let takes = |accept: u8| accept == 0 || urgent && accept == ACCEPT_URGENT;
        let others = self.neighbours.values().filter(|n| n.peer != child.peer && n.epoch == self.epoch());
        let mut others: Vec<_> = others
            .filter(|n| {
                n.lag_us(s).is_some()
                    && n.state.substreams.get(usize::from(s)).is_some_and(|sub| takes(sub.accept))
            })
            .map(|n| (n.lag_us(s), n.peer))
            .collect();
        others.sort_unstable();
        let introduced = others.into_iter().filter_map(|(_, peer)| self.introduction(now, &peer));
        introduced.take(SUGGESTIONS_MAX).collect()
    }

    /// The most neighbours that this node has.
    pub(super) fn neighbours_max(&self) -> usize {
        let policy = &self.config.policy;
        if !self.is_source() {
            return policy.neighbours_max;
        }
        if self.serves_alone() {
            return NEIGHBOURS_MOST;
        }
        policy.source_neighbours(self.upload_bps() / self.rate_bps.max(1))
    }
}

impl Policy {
    /// The most neighbours of a source whose upload carries the stream so many times.
    pub fn source_neighbours(&self, copies: u64) -> usize {
        let least = self.source_neighbours_max;
        if copies < AMPLE_COPIES {
            return least;
        }
        least.max((copies.saturating_mul(NEIGHBOURS_PER_COPY)).min(NEIGHBOURS_MOST as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_the_marks_it_stays_as_it_was() {
        let mut admission = Admission::default();
        let mut open = |used| {
            admission.observe(used, 160);
            admission.is_open()
        };
        assert!(open(0) && open(143));
        assert!(!open(144) && !open(160) && !open(150) && !open(120), "three quarters are still full");
        assert!(open(119) && open(143), "and from there on there is room up to the high mark");
        assert!(!open(144));
    }

    #[test]
    fn a_source_without_places_is_closed() {
        let mut admission = Admission::default();
        admission.observe(0, 0);
        assert!(!admission.is_open());
    }

    #[test]
    fn neighbours_follow_the_copies() {
        let policy = Policy { source_neighbours_max: 32, ..Policy::default() };
        assert_eq!(
            [2, 20, 1_000_000].map(|copies| policy.source_neighbours(copies)),
            [32, 40, NEIGHBOURS_MOST]
        );
    }
}
