//! Whether those whom a source feeds pass anything on. A viewer that is let down looks elsewhere; a source is let down by
//! nobody, and places next to it are worth most to whoever wants the stream to end there.
//!
//! Owns the suspicion. It rests on what neighbours that are not fed in a substream say they hold: to have honest children given up
//! four in five must lie, to hide those that pass nothing on one in five.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Swarm, SwarmOutput};
use crate::id::PeerId;
use crate::time::Timestamp;
use crate::wire::{Message, Reject, RejectReason};

/// A chunk should have reached most of a swarm after this long …
const SPREAD_AFTER: Duration = Duration::from_millis(2500);
/// … and neighbours have told of it that said something this long after it was published.
const HEARD_AFTER: Duration = Duration::from_millis(1200);
/// What is older says nothing of the children that there are now.
const SPREAD_UNTIL: Duration = Duration::from_secs(6);
/// Fewer voices are not asked.
const VOTERS_MIN: usize = 5;
/// Where fewer percent of them hold it, it went nowhere. Where a whole swarm is late, more do.
const WENT_NOWHERE_PERCENT: usize = 20;
/// A substream whose chunks went nowhere for so many seconds in a row is fed to others.
const SECONDS: u8 = 2;
/// How long a child that passed nothing on is refused, doubled each time it happens …
const REFUSED_FOR: Duration = Duration::from_secs(15);
/// … this often at most.
const DOUBLINGS_MAX: u32 = 6;

/// A child's record.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Barren {
    times: u32,
    until: Option<Timestamp>,
}

impl Barren {
    /// It passed nothing on.
    fn note(&mut self, now: Timestamp) {
        self.until = Some(now + REFUSED_FOR * (1 << self.times.min(DOUBLINGS_MAX)));
        self.times += 1;
    }

    /// It is not to be fed.
    pub(super) fn is_refused(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

impl Swarm {
    /// Once a second, for a source: children of a substream whose chunks went nowhere make room for others.
    pub(super) fn watch_spread(&mut self, now: Timestamp) {
        // Nobody is to pass on what a source that feeds everybody sends.
        if !self.is_source() || self.serves_alone() {
            return;
        }
        for s in 0..self.substream_count() {
            let Some((number, went_nowhere)) = self.went_nowhere(now, s) else { continue };
            let sub = &mut self.substreams[usize::from(s)];
            sub.nowhere = if went_nowhere { sub.nowhere + 1 } else { 0 };
            if sub.nowhere >= SECONDS {
                sub.nowhere = 0;
                self.replace_children(now, s, number);
            }
        }
    }

    /// The newest chunk of `s` that should be everywhere, and whether it is nowhere. `None` where that cannot be said.
    fn went_nowhere(&self, now: Timestamp, s: u8) -> Option<(u64, bool)> {
        let sub = &self.substreams[usize::from(s)];
        let k = u64::from(self.substream_count());
        let (number, held) =
            self.store.range(0..self.store.edge()).rev().find(|(number, held)| {
                number % k == u64::from(s) && now.since(held.received) > SPREAD_AFTER
            })?;
        let is_fed = sub.children.iter().any(|child| self.was_given(&child.peer, number));
        if !is_fed || now.since(held.received) > SPREAD_UNTIL || !self.given_out.contains(number) {
            return None;
        }
        let voters: Vec<bool> = self
            .neighbours
            .values()
            .filter(|n| n.met && n.epoch == self.epoch() && !sub.is_child(&n.peer))
            .filter(|n| n.have_at > held.received + HEARD_AFTER)
            .filter(|n| n.have.start().is_some_and(|start| start <= number))
            .map(|n| n.have.contains(number))
            .collect();
        let have = voters.iter().filter(|has| **has).count();
        let went_nowhere = have * 100 < voters.len() * WENT_NOWHERE_PERCENT;
        (voters.len() >= VOTERS_MIN).then_some((number, went_nowhere))
    }

    fn was_given(&self, peer: &PeerId, number: u64) -> bool {
        self.neighbours.get(peer).is_some_and(|n| n.standing.given.contains(number))
    }

    /// Those who were given chunk `number`, which went nowhere, are fed no longer; leaves never promised to pass it on.
    fn replace_children(&mut self, now: Timestamp, s: u8, number: u64) {
        let children = self.substreams[usize::from(s)].children.iter();
        let barren: Vec<(PeerId, bool)> = children
            .filter(|child| self.was_given(&child.peer, number))
            .map(|child| (child.peer, child.interior))
            .collect();
        for (peer, interior) in barren {
            if interior && let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.standing.barren.note(now);
            }
            self.substreams[usize::from(s)].remove_child(&peer);
            let reject = Reject { substream: s, reason: RejectReason::Full, suggestions: Vec::new() };
            self.send(peer, &Message::Reject(reject));
            self.put(SwarmOutput::WithdrawPushes(peer, s));
        }
        self.tell_room(now);
    }
}
