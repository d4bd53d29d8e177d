//! Substream trees, downwards: the children that this node pushes to. Upwards is [`tree`](super::tree).
//!
//! A child is accepted for as long as there are slots, and displaced by one that is worth more: it is told whom to try
//! and pushed to until it has moved. What a child counts is [`policy`](super::policy)'s choice.

use alloc::vec::Vec;
use core::time::Duration;

use super::locality::Side;
use super::policy::{ACCEPT_NOBODY, ACCEPT_URGENT, ChildView, Overlay};
use super::tree::Substream;
use super::{Offer, Role, Swarm, SwarmOutput};
use crate::chunk::VerifiedChunk;
use crate::id::PeerId;
use crate::record::PeerRecord;
use crate::time::Timestamp;
use crate::wire::{
    Accept, Attach, LAG_UNKNOWN_MS, Message, PATH_LEN_MAX, Reject, RejectReason, SUGGESTIONS_MAX,
};

/// Chunks that a new child is pushed from before it came: what bridges a handover. Children that come and go must not be
/// what fills an uplink.
pub(super) const BACKLOG_MAX: usize = 6;
/// Older chunks than this are not among them: who wants them asks.
const BACKLOG_AGE_MAX: Duration = Duration::from_millis(1200);
/// A displaced child is pushed to for this long at most while it looks elsewhere.
const LEAVING_MAX: Duration = Duration::from_millis(1500);
/// Children are displaced this often at most, over all substreams: until it has gone each costs a slot.
const DISPLACE_PERIOD: Duration = Duration::from_millis(500);
/// A child that is worth this much is displaced by nobody; what must be offered for one stays below [`ACCEPT_URGENT`].
const DISPLACED_MAX: u8 = 150;
/// A source's first copy of a chunk may wait this many times as long as others.
const SOURCE_PATIENCE: u32 = 4;
/// With so many neighbours a source's slots go to whoever relays best; with fewer each has its share.
const SOURCE_NEIGHBOURS_MANY: usize = 12;

#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) peer: PeerId,
    pub(super) interior: bool,
    upload_kbps: u32,
    pub(super) value: u8,
    /// Since when it is a child.
    pub(super) since: Timestamp,
    /// It was told to go elsewhere, and is pushed to until it has, or until then.
    pub(super) leaving: Option<Timestamp>,
    /// If it found nobody by then it stays: its place was given to nobody.
    may_stay: bool,
    /// It is not told of its grandparent in this substream before.
    pub(super) lift_at: Timestamp,
}

impl Child {
    /// It relays, is to stay, and can upload at least this much.
    pub(super) fn outranks(&self, upload_kbps: u32) -> bool {
        self.interior && self.leaving.is_none() && self.upload_kbps >= upload_kbps
    }
}

/// How much room there is for another child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Enough.
    Ease,
    /// Enough for somebody who finds no other parent.
    Tight,
    /// None.
    None,
}

impl Swarm {
    /// Least value of a child that would be accepted in substream `s`.
    pub(super) fn accept_code(&self, s: u8) -> u8 {
        let receives = self.is_source() || self.advertised_lag_ms(s) < LAG_UNKNOWN_MS;
        if !receives || self.config.policy.overlay == Overlay::Mesh {
            return ACCEPT_NOBODY;
        }
        let interior = self.is_source() || self.config.policy.is_interior(self.class, s);
        let otherwise = match self.room(s) {
            Room::Ease if interior => return 0,
            Room::Ease => return ACCEPT_URGENT,
            Room::Tight => ACCEPT_URGENT,
            Room::None => ACCEPT_NOBODY,
        };
        // A displaced child costs a handover: the newcomer must be clearly worth more.
        match self.weakest_child(s) {
            Some(weakest) if interior && weakest.value < DISPLACED_MAX => {
                weakest.value + 1 + (weakest.value / 2).max(1)
            }
            _ => otherwise,
        }
    }

    /// Children over all substreams that a source may have; its owner counted the headers when naming the copies.
    pub(super) fn source_slots(&self) -> u32 {
        let k = u64::from(self.substream_count());
        let carried = (self.upload_bps() * k / self.rate_bps.max(1)) as u32;
        match self.config.role {
            // What a momentary swing of the rate does to the quotient must not close a substream.
            Role::Source { copies_percent: Some(percent), .. } => {
                let sold = (u64::from(percent) * k / 100) as u32;
                if carried + k as u32 / 2 >= sold { sold } else { carried }
            }
            _ => self.ample_slots(carried),
        }
    }

    /// Children over all substreams that are to stay.
    pub(super) fn slots_settled(&self) -> u32 {
        self.substreams.iter().map(Substream::settled).sum()
    }

    /// Children over all substreams.
    pub(super) fn slots_used(&self) -> u32 {
        self.substreams.iter().map(Substream::children).sum()
    }

    /// A substream's own share of `slots`, the `place`th of `of`: no substream is closed because others took its slots.
    fn quota(slots: u32, place: u32, of: u32) -> u32 {
        slots * (place + 1) / of.max(1) - slots * place / of.max(1)
    }

    /// A source with a set number of copies that pushes all of them.
    pub(super) fn is_sold_out(&self) -> bool {
        let limited = matches!(self.config.role, Role::Source { copies_percent: Some(_), .. });
        limited && self.unsold_slots() == 0
    }

    pub(super) fn unsold_slots(&self) -> u32 {
        self.source_slots().saturating_sub(self.slots_used())
    }

    fn room(&self, s: u8) -> Room {
        let k = self.substream_count();
        let here = self.substreams[usize::from(s)].settled();
        if self.is_source() {
            let quota = Self::quota(self.source_slots(), u32::from(s), u32::from(k));
            return match here < quota {
                _ if self.serves_alone() => Room::Ease,
                false => Room::None,
                true if self.is_ample() && !self.admission.is_open() => Room::Tight,
                true => Room::Ease,
            };
        }
        if self.uplink.usual_wait > self.config.policy.shed_wait / 2 {
            return Room::None;
        }
        let used = self.slots_used();
        let policy = &self.config.policy;
        let slots = |fill| policy.slots(fill, self.upload_bps(), self.rate_bps, k);
        if used >= slots(policy.slot_fill_urgent_percent) {
            return Room::None;
        }
        let slots = slots(policy.slot_fill_percent);
        if used >= slots {
            return Room::Tight;
        }
        let interior = u32::from(k.div_ceil(self.config.policy.interior_every.max(1))).max(1);
        if here < slots.div_ceil(interior) { Room::Ease } else { Room::Tight }
    }

    /// An uplink that is always late serves nobody: its least useful child is better off elsewhere.
    pub(super) fn shed(&mut self, now: Timestamp) {
        if self.is_source() || self.uplink.usual_wait <= self.config.policy.shed_wait {
            return;
        }
        let all = (0..self.substream_count()).filter_map(|s| Some((self.weakest_child(s)?, s)));
        let Some((child, s)) = all.min_by_key(|(child, s)| (child.interior, child.value, *s)) else { return };
        self.substreams[usize::from(s)].remove_child(&child.peer);
        let suggestions = self.suggestions(now, s, child.peer);
        let reject = Reject { substream: s, reason: RejectReason::Full, suggestions };
        self.send(child.peer, &Message::Reject(reject));
        self.put(SwarmOutput::WithdrawPushes(child.peer, s));
    }

    /// Whether `peer` leaves what it is sent unacknowledged: then it is no child. A place that is taken and not used is one that
    /// others lack, and a node that knows little of its uplink has few.
    pub(crate) fn takes_nothing(&mut self, peer: PeerId, so: bool) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if core::mem::replace(&mut neighbour.takes_nothing, so) || !so {
            return;
        }
        for s in 0..self.substream_count() {
            if self.substreams[usize::from(s)].is_child(&peer) {
                self.hear_detach(peer, s);
                let reject = Reject { substream: s, reason: RejectReason::Full, suggestions: Vec::new() };
                self.send(peer, &Message::Reject(reject));
            }
        }
    }

    /// Tells `child` to go elsewhere, first of all to `to`, which took its place; it is pushed to until it has.
    fn displace(&mut self, now: Timestamp, s: u8, child: PeerId, to: PeerId) {
        let mut suggestions = self.suggestions(now, s, child);
        suggestions.retain(|other| other.peer != to);
        if let Some(first) = self.introduction(now, &to) {
            suggestions.insert(0, first);
        }
        suggestions.truncate(SUGGESTIONS_MAX);
        self.displace_at = now + DISPLACE_PERIOD;
        self.send_away(now, s, child, false, suggestions);
    }

    /// Tells `child` to look elsewhere, first of all with those named; where there is no room after all it stays.
    pub(super) fn hand_over(&mut self, now: Timestamp, s: u8, child: PeerId, to: Vec<PeerRecord>) {
        self.send_away(now, s, child, true, to);
    }

    /// A viewer sends from now on, or no longer: its children are pushed to until they have moved.
    pub(crate) fn set_upload(&mut self, now: Timestamp, so: bool) {
        if self.is_source() || self.config.upload == so {
            return;
        }
        self.config.upload = so;
        for s in (0..self.substream_count()).filter(|_| !so) {
            let children = &self.substreams[usize::from(s)].children;
            for child in children.iter().map(|child| child.peer).collect::<Vec<_>>() {
                let suggestions = self.suggestions(now, s, child);
                self.send_away(now, s, child, false, suggestions);
            }
        }
        self.tell_room(now);
    }

    fn send_away(&mut self, now: Timestamp, s: u8, child: PeerId, may_stay: bool, to: Vec<PeerRecord>) {
        let children = &mut self.substreams[usize::from(s)].children;
        let Some(entry) = children.iter_mut().find(|entry| entry.peer == child) else { return };
        (entry.leaving, entry.may_stay) = (Some(now + LEAVING_MAX), may_stay);
        let reason = RejectReason::Displaced;
        self.send(child, &Message::Reject(Reject { substream: s, reason, suggestions: to }));
    }

    /// Displaced children whose time is up are children no longer.
    pub(super) fn end_leaving(&mut self, now: Timestamp) {
        for s in 0..self.substream_count() {
            let children = &mut self.substreams[usize::from(s)].children;
            for child in children.iter_mut().filter(|child| child.may_stay) {
                child.leaving = child.leaving.filter(|until| now < *until);
            }
            let over: Vec<PeerId> = children
                .iter()
                .filter(|c| c.leaving.is_some_and(|until| now >= until))
                .map(|c| c.peer)
                .collect();
            children.retain(|child| !over.contains(&child.peer));
            for peer in over {
                let reject = Reject { substream: s, reason: RejectReason::Full, suggestions: Vec::new() };
                self.send(peer, &Message::Reject(reject));
                self.put(SwarmOutput::WithdrawPushes(peer, s));
            }
        }
    }

    /// Somebody is on the way out, or only just was.
    pub(super) fn is_displacing(&self, now: Timestamp) -> bool {
        now < self.displace_at
            || self.substreams.iter().any(|sub| sub.children.iter().any(|c| c.leaving.is_some()))
    }

    /// Substreams that one child may have from this node when others want them: half of all, and of a source's copies
    /// what is left for each when all neighbours have as many, so that nobody depends on the source alone.
    fn share(&self) -> usize {
        let half = self.substreams.len() / 2;
        if !self.is_source() {
            return half;
        }
        let neighbours = self.neighbours.values().filter(|n| n.met).count().max(1);
        if neighbours >= SOURCE_NEIGHBOURS_MANY {
            return half.max(1);
        }
        (self.source_slots() as usize).div_ceil(neighbours).clamp(1, half.max(1))
    }

    /// Whether `peer` is a child in any substream.
    pub(super) fn feeds(&self, peer: &PeerId) -> bool {
        self.substreams.iter().any(|sub| sub.is_child(peer))
    }

    fn substreams_of_child(&self, peer: &PeerId) -> usize {
        self.substreams.iter().filter(|sub| sub.is_child(peer)).count()
    }

    fn weakest_child(&self, s: u8) -> Option<Child> {
        // Who takes more than its share from one node leaves too little for others, whatever it is worth.
        let share = self.share();
        let worth =
            |child: &Child| if self.substreams_of_child(&child.peer) > share { 0 } else { child.value };
        let children = self.substreams[usize::from(s)].children.iter();
        // The relay that has been next to a source for longest stays: what passes the stream on now is not given up for a
        // promise. It is not one that takes more than its share.
        let may_stay = |child: &&Child| {
            self.is_source() && child.interior && self.substreams_of_child(&child.peer) <= share
        };
        let senior = children.clone().filter(may_stay).min_by_key(|child| (child.since, child.peer));
        let senior = senior.map(|child| child.peer);
        children
            .filter(|child| child.leaving.is_none() && Some(child.peer) != senior)
            .map(|child| Child { value: worth(child), ..*child })
            .min_by_key(|child| (child.value, child.peer))
    }

    pub(super) fn hear_attach(&mut self, now: Timestamp, peer: PeerId, attach: Attach) {
        let s = attach.substream;
        if usize::from(s) >= self.substreams.len() {
            return;
        }
        let child = ChildView {
            interior: attach.interior,
            upload_kbps: attach.upload_kbps,
            one_way_us: self.neighbours.get(&peer).map_or(0, super::neighbour::Neighbour::one_way_us),
            side: self.neighbours.get(&peer).map_or(Side::Unknown, |n| self.side(n)),
        };
        let value = self.config.policy.child_value(&child, self.rate_bps);
        let sub = &self.substreams[usize::from(s)];
        let path = sub.path();
        let verdict = if path.contains(&peer.tag()) || path.len() == PATH_LEN_MAX {
            Err(RejectReason::Loop)
        } else if self.neighbours.get(&peer).is_none_or(|neighbour| neighbour.takes_nothing) {
            Err(RejectReason::Full)
        } else if sub.children.iter().any(|child| child.peer == peer && child.leaving.is_none()) {
            Ok(None)
        } else if self.is_source()
            && self.neighbours.get(&peer).is_some_and(|n| n.standing.barren.is_refused(now))
        {
            Err(RejectReason::Full)
        } else {
            let room = self.room(s);
            match self.accept_code(s) {
                _ if self.advertised_lag_ms(s) == LAG_UNKNOWN_MS => Err(RejectReason::Starving),
                ACCEPT_URGENT if attach.urgent => Ok(None),
                ACCEPT_NOBODY | ACCEPT_URGENT => Err(RejectReason::Full),
                _ if room == Room::Ease || attach.urgent && room == Room::Tight => Ok(None),
                _ if self.is_displacing(now) => Err(RejectReason::Full),
                // Who has its share already displaces nobody: one peer must not become everybody's parent.
                threshold if value >= threshold && self.substreams_of_child(&peer) < self.share() => {
                    Ok(self.weakest_child(s))
                }
                _ => Err(RejectReason::Full),
            }
        };
        match verdict {
            Err(reason) => {
                // Whoever is refused counts on nothing any more, whatever it was before.
                self.hear_detach(peer, s);
                let suggestions = self.suggestions(now, s, peer);
                self.send(peer, &Message::Reject(Reject { substream: s, reason, suggestions }));
            }
            Ok(displaced) => {
                if let Some(displaced) = displaced {
                    self.displace(now, s, displaced.peer, peer);
                }
                self.adopt(now, peer, &attach, value);
                self.watch_water();
                self.send(peer, &Message::Accept(Accept { substream: s, path }));
            }
        }
    }

    fn adopt(&mut self, now: Timestamp, peer: PeerId, attach: &Attach, value: u8) {
        let s = attach.substream;
        let sub = &mut self.substreams[usize::from(s)];
        // Who says again that it is a child has been one for as long as before.
        let before = sub.children.iter().find(|child| child.peer == peer && child.leaving.is_none());
        let since = before.map_or(now, |child| child.since);
        sub.remove_child(&peer);
        let child = Child {
            peer,
            interior: attach.interior,
            upload_kbps: attach.upload_kbps,
            value,
            since,
            leaving: None,
            may_stay: false,
            lift_at: now,
        };
        // Strongest first: the order in which a chunk is pushed.
        let at = sub
            .children
            .partition_point(|other| (other.interior, other.value) >= (child.interior, child.value));
        sub.children.insert(at, child);
        let k = u64::from(self.substream_count());
        let end = self.store.have().end();
        let mut backlog: Vec<(VerifiedChunk, Timestamp, Option<u64>)> = self
            .store
            .range(attach.from.max(end.saturating_sub(BACKLOG_MAX as u64 * k))..end.max(attach.from))
            .filter(|(number, held)| number % k == u64::from(s) && now.since(held.received) < BACKLOG_AGE_MAX)
            .filter(|(number, _)| self.neighbours.get(&peer).is_some_and(|n| !n.has(*number)))
            .map(|(_, held)| (held.chunk.clone(), held.received, held.hops_us))
            .collect();
        backlog.drain(..backlog.len().saturating_sub(BACKLOG_MAX));
        // What waits is for children that have been there for longer.
        if self.uplink.wait > self.config.policy.serve_wait {
            backlog.clear();
        }
        // Who leaves and comes back gets no second helping.
        let allowance = self.allowance();
        for (chunk, received, hops_us) in backlog {
            let bytes = chunk.encoded().len() as u64;
            let pays = |n: &mut super::neighbour::Neighbour| n.standing.charge(now, bytes, allowance);
            if !self.neighbours.get_mut(&peer).is_some_and(pays) {
                break;
            }
            self.spend(now, u64::from(chunk.header().len));
            let expires = now + self.config.policy.push_expiry;
            self.put(SwarmOutput::Offer(Offer {
                peer,
                chunk,
                due: now,
                expires,
                requested: false,
                overdue: false,
                offered: now,
                received,
                hops_us,
            }));
        }
    }

    /// Children of this node that relay substream `s`, the strongest first.
    fn suggestions(&self, now: Timestamp, s: u8, not: PeerId) -> Vec<PeerRecord> {
        let mut children: Vec<&Child> = self.substreams[usize::from(s)].children.iter().collect();
        self.put_alike_first(&mut children, &not);
        children
            .into_iter()
            .filter(|c| c.interior && c.peer != not && c.leaving.is_none())
            .filter_map(|c| self.introduction(now, &c.peer))
            .take(SUGGESTIONS_MAX)
            .collect()
    }

    pub(super) fn hear_detach(&mut self, peer: PeerId, s: u8) {
        if let Some(sub) = self.substreams.get_mut(usize::from(s)) {
            sub.remove_child(&peer);
            self.put(SwarmOutput::WithdrawPushes(peer, s));
            self.watch_water();
        }
    }

    /// Offers a new chunk to the children in its substream.
    pub(super) fn push(
        &mut self,
        now: Timestamp,
        chunk: &VerifiedChunk,
        hops_us: Option<u64>,
        from: Option<PeerId>,
    ) {
        let k = u64::from(self.substream_count()).max(1);
        let number = chunk.header().number;
        let policy = &self.config.policy;
        let (expiry, leaf_delay, sibling_delay) =
            (policy.push_expiry, policy.leaf_delay, policy.sibling_delay);
        let age = u64::from(policy.age_percent);
        let Some(sub) = self.substreams.get((number % k) as usize) else { return };
        // What the source does not give to anybody nobody ever has: its first copy waits for longer.
        let first_expiry = if self.is_source() { expiry * SOURCE_PATIENCE } else { expiry };
        let offers: Vec<Offer> = sub
            .children
            .iter()
            .filter(|child| Some(child.peer) != from)
            .filter(|child| self.neighbours.get(&child.peer).is_some_and(|n| !n.has(number)))
            .enumerate()
            .map(|(place, child)| Offer {
                peer: child.peer,
                chunk: chunk.clone(),
                due: now
                    .saturating_sub(Duration::from_micros(hops_us.unwrap_or(0).min(2_000_000) * age / 100))
                    + sibling_delay * place as u32
                    + if child.interior { Duration::ZERO } else { leaf_delay },
                expires: now + if place == 0 { first_expiry } else { expiry },
                requested: false,
                overdue: false,
                offered: now,
                received: now,
                hops_us,
            })
            .collect();
        for offer in offers {
            self.spend(now, u64::from(offer.chunk.header().len));
            self.put(SwarmOutput::Offer(offer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_substream_has_its_share_of_the_slots_and_nothing_is_lost() {
        for (slots, of) in [(18, 8), (17, 8), (8, 8), (5, 4), (3, 8), (0, 8)] {
            let each: Vec<u32> = (0..of).map(|place| Swarm::quota(slots, place, of)).collect();
            assert_eq!(each.iter().sum::<u32>(), slots);
            assert!(each.iter().all(|n| (slots / of..=slots.div_ceil(of)).contains(n)), "{slots}: {each:?}");
        }
    }
}
