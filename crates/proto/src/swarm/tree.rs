//! Substream trees: for each substream one parent that pushes, and the children this node pushes to.
//!
//! Loops are avoided by the path of ancestors; a late chunk makes this node ask its parent whether it is there, and
//! a silent or starving parent is replaced. Whom to ask and whom to accept is [`policy`](super::policy)'s choice.

use alloc::vec::Vec;
use core::time::Duration;

use super::policy::{ACCEPT_NOBODY, ACCEPT_URGENT, Overlay, ParentView, Policy, child_value};
use super::{Offer, Swarm, SwarmOutput};
use crate::addr::is_dialable;
use crate::chunk::VerifiedChunk;
use crate::id::PeerId;
use crate::time::Timestamp;
use crate::wire::{
    Accept, Attach, LAG_UNKNOWN_MS, Message, PATH_LEN_MAX, Path, PexPeer, Reject, RejectReason,
    SUGGESTIONS_MAX,
};

/// Chunks that a new child is pushed from before it came: what bridges a handover. Children that come and go must not be
/// what fills an uplink.
const BACKLOG_MAX: usize = 6;
/// Older chunks than this are not among them: who wants them asks.
const BACKLOG_AGE_MAX: Duration = Duration::from_millis(1200);
/// Chunks of somebody who was, or was asked to be, a parent are welcome for this long.
const FORMER_GRACE: Duration = Duration::from_secs(15);
/// A parent that refused is asked again after this long.
const REFUSED_FOR: Duration = Duration::from_millis(800);
/// State is told again this soon at most.
const STATE_GAP_MIN: Duration = Duration::from_millis(120);
/// So many chunks of a substream in a row came from others than its parent: it brings nothing.
const ELSEWHERE_MAX: u32 = 10;
/// What it counts against a parent that a substream starved through it.
const STARVED_COST: Duration = Duration::from_millis(150);
/// What arrives later than this is not offered to children.
const LAG_OFFERED_MAX_MS: u64 = 3_000;
/// A displaced child is pushed to for this long at most while it looks elsewhere.
const LEAVING_MAX: Duration = Duration::from_millis(1500);
/// Children are displaced this often at most, over all substreams: until it has gone each costs a slot.
const DISPLACE_PERIOD: Duration = Duration::from_millis(500);
/// With so many neighbours a source's slots go to whoever relays best; with fewer each has its share.
const SOURCE_NEIGHBOURS_MANY: usize = 12;
/// Largest factor by which changes lengthen the hold time, in tenths.
const HOLD_MAX: u32 = 100;

#[derive(Debug)]
struct Parent {
    peer: PeerId,
    /// Its ancestors, nearest first.
    path: Path,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    peer: PeerId,
    until: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Child {
    peer: PeerId,
    interior: bool,
    value: u8,
    /// It was told to go elsewhere, and is pushed to until it has, or until then.
    leaving: Option<Timestamp>,
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

/// One substream, towards its parent and towards its children.
#[derive(Debug)]
pub(super) struct Substream {
    parent: Option<Parent>,
    /// Since when there is this parent.
    parent_since: Timestamp,
    /// It has pushed something.
    proven: bool,
    /// Chunks of this substream that came from others since the parent last pushed one.
    elsewhere: u32,
    pending: Option<Pending>,
    orphan_since: Timestamp,
    consider_at: Timestamp,
    /// Factor on the hold time, in tenths; grows with every change.
    hold: u32,
    children: Vec<Child>,
    /// Its children have not been told its path.
    path_changed: bool,
    /// How far behind the signature it arrives, smoothed, µs.
    lag_us: Option<u64>,
    /// How long after a chunk is known to exist it arrives, smoothed, µs.
    lateness_us: u64,
    /// The newest chunk that arrived from anybody.
    newest: Option<u64>,
    /// For how long the one after it has been known to exist.
    behind: Duration,
    /// The parent wants to be left; until then it still pushes.
    evicted: Option<Timestamp>,
}

impl Substream {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            parent: None,
            parent_since: now,
            proven: false,
            elsewhere: 0,
            pending: None,
            orphan_since: now,
            consider_at: now,
            hold: 10,
            children: Vec::new(),
            path_changed: false,
            lag_us: None,
            lateness_us: 0,
            newest: None,
            behind: Duration::ZERO,
            evicted: None,
        }
    }

    /// Joining begins: look for a parent from now on.
    pub(super) fn seek(&mut self, now: Timestamp) {
        self.orphan_since = now;
    }

    pub(super) fn has_parent(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether the parent, if there is one, has pushed anything yet.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    pub(super) fn is_parent(&self, peer: &PeerId) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.peer == *peer)
    }

    /// `peer` is, or was asked to be, the parent.
    fn relies_on(&self, peer: &PeerId) -> bool {
        self.is_parent(peer) || self.pending.is_some_and(|pending| pending.peer == *peer)
    }

    pub(super) fn parent(&self) -> Option<PeerId> {
        self.parent.as_ref().map(|parent| parent.peer)
    }

    pub(super) fn is_child(&self, peer: &PeerId) -> bool {
        self.children.iter().any(|child| child.peer == *peer)
    }

    pub(super) fn children(&self) -> u32 {
        self.children.len() as u32
    }

    /// Children that are to stay.
    fn settled(&self) -> u32 {
        self.children.iter().filter(|child| child.leaving.is_none()).count() as u32
    }

    pub(super) fn lateness(&self) -> Duration {
        Duration::from_micros(self.lateness_us)
    }

    /// This node's own ancestors: its parent and the parent's.
    fn path(&self) -> Path {
        let Some(parent) = &self.parent else { return Path::new() };
        core::iter::once(parent.peer.tag()).chain(parent.path.iter().copied()).take(PATH_LEN_MAX).collect()
    }

    /// The parent is gone; its last chunks may still arrive.
    fn lose_parent(&mut self, now: Timestamp) -> Option<PeerId> {
        let parent = self.parent.take()?.peer;
        self.evicted = None;
        self.orphan_since = now;
        Some(parent)
    }

    fn remove_child(&mut self, peer: &PeerId) {
        self.children.retain(|child| child.peer != *peer);
    }
}

impl Swarm {
    /// Whether chunks of substream `s` may come from `peer` unasked.
    pub(super) fn was_parent(&self, now: Timestamp, peer: &PeerId, s: u8) -> bool {
        self.substreams.get(usize::from(s)).is_some_and(|sub| {
            sub.is_parent(peer) || sub.pending.is_some_and(|pending| pending.peer == *peer)
        }) || self
            .neighbours
            .get(peer)
            .and_then(|neighbour| neighbour.invited.get(&s))
            .is_some_and(|at| now.since(*at) < FORMER_GRACE)
    }

    /// The parent of `s`, if any, is one no longer; what it still pushes is no offence.
    fn leave_parent(&mut self, now: Timestamp, s: u8) -> Option<PeerId> {
        let parent = self.substreams.get_mut(usize::from(s))?.lose_parent(now)?;
        self.invite(now, parent, s);
        Some(parent)
    }

    /// What `peer` pushes of `s` from now on, for a while, is no offence.
    fn invite(&mut self, now: Timestamp, peer: PeerId, s: u8) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.invited.insert(s, now);
        }
    }

    /// The parent pushed a chunk that had come otherwise: late, but alive.
    pub(super) fn note_late_push(&mut self, peer: &PeerId, s: u8) {
        if let Some(sub) = self.substreams.get_mut(usize::from(s)).filter(|sub| sub.is_parent(peer)) {
            sub.proven = true;
            sub.elsewhere = 0;
        }
    }

    /// Books the arrival of chunk `number`, known to exist `since`.
    pub(super) fn note_arrival(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        number: u64,
        lag_us: u64,
        since: Option<Timestamp>,
        requested: bool,
    ) {
        let s = (number % u64::from(self.substream_count()).max(1)) as u8;
        let grace = self.config.policy.attach_timeout;
        let sub = &mut self.substreams[usize::from(s)];
        sub.newest = sub.newest.max(Some(number));
        if !sub.is_parent(&peer) && sub.has_parent() && now.since(sub.parent_since) > grace {
            sub.elsewhere += 1;
        }
        if requested || !sub.is_parent(&peer) {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.trust();
        }
        sub.proven = true;
        sub.elsewhere = 0;
        sub.lag_us = Some(sub.lag_us.map_or(lag_us, |old| (old * 3 + lag_us) / 4));
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && let Some(promised) = neighbour.lag_us(s)
        {
            let promised =
                promised + neighbour.wait().as_micros() as u64 + neighbour.rtt.as_micros() as u64 / 2;
            neighbour.learn_bias(lag_us as i64 - promised as i64);
        }
        let late = since.map_or(0, |since| now.since(since).as_micros() as u64);
        sub.lateness_us = (sub.lateness_us * 7 + late) / 8;
    }

    /// How late substream `s` is here, for neighbours to weigh.
    pub(super) fn advertised_lag_ms(&self, s: u8) -> u16 {
        if self.is_source() {
            return 0;
        }
        let sub = &self.substreams[usize::from(s)];
        let Some(lag_us) = sub.lag_us.filter(|_| sub.has_parent()) else { return LAG_UNKNOWN_MS };
        // What has dried up further up is worth nothing to a child, whatever it was worth before.
        let behind = sub.behind > self.config.policy.probe_after + sub.lateness() * 2;
        let lag_ms = lag_us / 1000 + if behind { sub.behind.as_millis() as u64 } else { 0 };
        if lag_ms < LAG_OFFERED_MAX_MS { lag_ms as u16 } else { LAG_UNKNOWN_MS }
    }

    /// Least value of a child that would be accepted in substream `s`.
    pub(super) fn accept_code(&self, s: u8) -> u8 {
        let receives = self.is_source() || self.advertised_lag_ms(s) < LAG_UNKNOWN_MS;
        if !receives || self.config.policy.overlay == Overlay::Mesh {
            return ACCEPT_NOBODY;
        }
        let interior = self.is_source() || self.config.policy.is_interior(&self.local, s);
        match self.room(s) {
            Room::Ease if interior => return 0,
            Room::Ease | Room::Tight => return ACCEPT_URGENT,
            Room::None => {}
        }
        // A displaced child costs a handover: the newcomer must be clearly worth more.
        match self.weakest_child(s) {
            Some(weakest) if interior && weakest.value < 200 => weakest.value + 1 + weakest.value / 8,
            _ => ACCEPT_NOBODY,
        }
    }

    /// Children over all substreams that a source may have; its owner counted the headers when naming the copies.
    fn source_slots(&self) -> u32 {
        let k = u64::from(self.substream_count());
        let carried = (self.upload_bps() * k / self.rate_bps.max(1)) as u32;
        match self.config.role {
            // What a momentary swing of the rate does to the quotient must not close a substream.
            super::Role::Source { copies_percent: Some(percent), .. } => {
                let sold = (u64::from(percent) * k / 100) as u32;
                if carried + k as u32 / 2 >= sold { sold } else { carried }
            }
            _ => carried,
        }
    }

    /// A substream's own share of `slots`, the `place`th of `of`: no substream is closed because others took its slots.
    fn quota(slots: u32, place: u32, of: u32) -> u32 {
        slots * (place + 1) / of.max(1) - slots * place / of.max(1)
    }

    /// A source with a set number of copies that pushes all of them.
    pub(super) fn is_sold_out(&self) -> bool {
        let limited = matches!(self.config.role, super::Role::Source { copies_percent: Some(_), .. });
        limited && self.unsold_slots() == 0
    }

    pub(super) fn unsold_slots(&self) -> u32 {
        self.source_slots().saturating_sub(self.substreams.iter().map(Substream::children).sum())
    }

    fn room(&self, s: u8) -> Room {
        let k = self.substream_count();
        let here = self.substreams[usize::from(s)].settled();
        if self.is_source() {
            let quota = Self::quota(self.source_slots(), u32::from(s), u32::from(k));
            return if here < quota { Room::Ease } else { Room::None };
        }
        if self.uplink.usual_wait > self.config.policy.shed_wait / 2 {
            return Room::None;
        }
        let used: u32 = self.substreams.iter().map(Substream::children).sum();
        let slots = self.config.policy.slots(self.upload_bps(), self.rate_bps, k);
        if used >= slots {
            return Room::None;
        }
        let interior = u32::from(k.div_ceil(self.config.policy.interior_every.max(1))).max(1);
        if here < slots.div_ceil(interior) { Room::Ease } else { Room::Tight }
    }

    /// An uplink that is always late serves nobody: its least useful child is better off elsewhere.
    pub(super) fn shed(&mut self) {
        if self.is_source() || self.uplink.usual_wait <= self.config.policy.shed_wait {
            return;
        }
        let all = (0..self.substream_count()).filter_map(|s| Some((self.weakest_child(s)?, s)));
        let Some((child, s)) = all.min_by_key(|(child, s)| (child.interior, child.value, *s)) else { return };
        self.substreams[usize::from(s)].remove_child(&child.peer);
        let suggestions = self.suggestions(s, child.peer);
        let reject = Reject { substream: s, reason: RejectReason::Full, suggestions };
        self.send(child.peer, &Message::Reject(reject));
        self.put(SwarmOutput::WithdrawPushes(child.peer, s));
    }

    /// Tells `child` to go elsewhere, first of all to `to`, which took its place; it is pushed to until it has.
    fn displace(&mut self, now: Timestamp, s: u8, child: PeerId, to: PeerId) {
        let children = &mut self.substreams[usize::from(s)].children;
        let Some(entry) = children.iter_mut().find(|entry| entry.peer == child) else { return };
        entry.leaving = Some(now + LEAVING_MAX);
        self.displace_at = now + DISPLACE_PERIOD;
        let mut suggestions = self.suggestions(s, child);
        suggestions.retain(|other| other.peer != to);
        if let Some(first) = self.introduction(&to) {
            suggestions.insert(0, first);
        }
        suggestions.truncate(SUGGESTIONS_MAX);
        let reason = RejectReason::Displaced;
        self.send(child, &Message::Reject(Reject { substream: s, reason, suggestions }));
    }

    /// Displaced children whose time is up are children no longer.
    fn end_leaving(&mut self, now: Timestamp) {
        for s in 0..self.substream_count() {
            let children = &mut self.substreams[usize::from(s)].children;
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
    fn is_displacing(&self, now: Timestamp) -> bool {
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
        children
            .filter(|child| child.leaving.is_none())
            .map(|child| Child { value: worth(child), ..*child })
            .min_by_key(|child| (child.value, child.peer))
    }

    pub(super) fn hear_attach(&mut self, now: Timestamp, peer: PeerId, attach: Attach) {
        let s = attach.substream;
        if usize::from(s) >= self.substreams.len() {
            return;
        }
        let value = child_value(attach.interior, attach.upload_kbps);
        let sub = &self.substreams[usize::from(s)];
        let path = sub.path();
        let verdict = if path.contains(&peer.tag()) || path.len() == PATH_LEN_MAX {
            Err(RejectReason::Loop)
        } else if sub.children.iter().any(|child| child.peer == peer && child.leaving.is_none()) {
            Ok(None)
        } else {
            match self.accept_code(s) {
                _ if self.advertised_lag_ms(s) == LAG_UNKNOWN_MS => Err(RejectReason::Starving),
                ACCEPT_URGENT if attach.urgent => Ok(None),
                ACCEPT_NOBODY | ACCEPT_URGENT => Err(RejectReason::Full),
                _ if self.room(s) == Room::Ease => Ok(None),
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
                let suggestions = self.suggestions(s, peer);
                self.send(peer, &Message::Reject(Reject { substream: s, reason, suggestions }));
            }
            Ok(displaced) => {
                if let Some(displaced) = displaced {
                    self.displace(now, s, displaced.peer, peer);
                }
                self.adopt(now, peer, &attach, value);
                self.send(peer, &Message::Accept(Accept { substream: s, path }));
            }
        }
    }

    fn adopt(&mut self, now: Timestamp, peer: PeerId, attach: &Attach, value: u8) {
        let s = attach.substream;
        let sub = &mut self.substreams[usize::from(s)];
        sub.remove_child(&peer);
        let child = Child { peer, interior: attach.interior, value, leaving: None };
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
        for (chunk, received, hops_us) in backlog {
            let expires = now + self.config.policy.push_expiry;
            self.put(SwarmOutput::Offer(Offer {
                peer,
                chunk,
                due: now,
                expires,
                requested: false,
                received,
                hops_us,
            }));
        }
    }

    /// Children of this node that relay substream `s`, the strongest first.
    fn suggestions(&self, s: u8, not: PeerId) -> Vec<PexPeer> {
        let children = self.substreams[usize::from(s)].children.iter();
        children
            .filter(|c| c.interior && c.peer != not && c.leaving.is_none())
            .filter_map(|c| self.introduction(&c.peer))
            .take(SUGGESTIONS_MAX)
            .collect()
    }

    /// A neighbour and its address, where others may be told of it.
    fn introduction(&self, peer: &PeerId) -> Option<PexPeer> {
        let addr = self.neighbours.get(peer)?.addr.filter(|addr| is_dialable(addr, self.config.lan))?;
        Some(PexPeer { peer: *peer, addr })
    }

    pub(super) fn hear_accept(&mut self, now: Timestamp, peer: PeerId, accept: Accept) {
        let s = accept.substream;
        let Some(sub) = self.substreams.get_mut(usize::from(s)) else { return };
        if sub.pending.is_none_or(|pending| pending.peer != peer) {
            // Too late: this node looked elsewhere. A confirmation by the parent it has is harmless.
            if !sub.is_parent(&peer) {
                // Who was never asked earns nothing by accepting.
                if self.neighbours.get(&peer).is_some_and(|n| n.invited.contains_key(&s)) {
                    self.invite(now, peer, s);
                }
                self.send(peer, &Message::Detach { substream: s });
            }
            return;
        }
        sub.pending = None;
        if peer.tag() == self.local.tag() || accept.path.contains(&self.local.tag()) {
            self.send(peer, &Message::Detach { substream: s });
            return;
        }
        let old = self.leave_parent(now, s);
        let sub = &mut self.substreams[usize::from(s)];
        sub.parent_since = now;
        sub.proven = false;
        sub.elsewhere = 0;
        sub.evicted = None;
        sub.parent = Some(Parent { peer, path: accept.path });
        sub.lag_us = None;
        sub.hold = (sub.hold * 8 / 5).min(HOLD_MAX);
        sub.consider_at = now + self.config.policy.switch_hold * sub.hold / 10;
        if let Some(old) = old.filter(|old| *old != peer) {
            self.send(old, &Message::Detach { substream: s });
        }
        self.tell_path(s);
    }

    pub(super) fn hear_path(&mut self, now: Timestamp, peer: PeerId, path: Accept) {
        let s = path.substream;
        let local = self.local.tag();
        let Some(sub) = self.substreams.get_mut(usize::from(s)) else { return };
        let Some(parent) = sub.parent.as_mut().filter(|parent| parent.peer == peer) else { return };
        if path.path.contains(&local) {
            // The two attached to each other at the same time.
            self.leave_parent(now, s);
            self.send(peer, &Message::Detach { substream: s });
        } else if parent.path != path.path {
            parent.path = path.path;
        } else {
            return;
        }
        self.tell_path(s);
    }

    /// Its children are told with the next tick: a parent that changes its path all the time is not passed on as a flood.
    fn tell_path(&mut self, s: u8) {
        self.substreams[usize::from(s)].path_changed = true;
    }

    /// Tells children of paths that changed since the last tick.
    pub(super) fn tell_paths(&mut self) {
        for s in 0..self.substream_count() {
            if core::mem::take(&mut self.substreams[usize::from(s)].path_changed) {
                self.tell_children(s);
            }
        }
    }

    fn tell_children(&mut self, s: u8) {
        let sub = &self.substreams[usize::from(s)];
        let message = Message::Path(Accept { substream: s, path: sub.path() });
        let children: Vec<PeerId> = sub.children.iter().map(|child| child.peer).collect();
        for child in children {
            self.send(child, &message);
        }
    }

    pub(super) fn hear_reject(&mut self, now: Timestamp, peer: PeerId, reject: &Reject) {
        let s = reject.substream;
        let Some(sub) = self.substreams.get_mut(usize::from(s)) else { return };
        if sub.pending.is_some_and(|pending| pending.peer == peer) {
            sub.pending = None;
        } else if sub.is_parent(&peer) && reject.reason == RejectReason::Displaced {
            // It goes on pushing for a moment: the move needs no gap.
            sub.evicted = Some(now);
        } else if sub.is_parent(&peer) {
            self.leave_parent(now, s);
        } else {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.refused_until.insert(s, now + REFUSED_FOR);
        }
        self.meet(now, &reject.suggestions);
        if reject.reason != RejectReason::Displaced {
            return;
        }
        // Whom a displaced child may try has just got room. Other suggestions lift no refusal: two full parents that
        // name each other would be asked in turn for ever.
        for suggested in &reject.suggestions {
            if let Some(neighbour) = self.neighbours.get_mut(&suggested.peer) {
                neighbour.refused_until.remove(&s);
            }
        }
    }

    pub(super) fn hear_detach(&mut self, peer: PeerId, s: u8) {
        if let Some(sub) = self.substreams.get_mut(usize::from(s)) {
            sub.remove_child(&peer);
            self.put(SwarmOutput::WithdrawPushes(peer, s));
        }
    }

    /// A neighbour is gone.
    pub(super) fn lose_everywhere(&mut self, now: Timestamp, peer: PeerId) {
        for s in 0..self.substream_count() {
            let sub = &mut self.substreams[usize::from(s)];
            sub.remove_child(&peer);
            if sub.pending.is_some_and(|pending| pending.peer == peer) {
                sub.pending = None;
            }
            if sub.is_parent(&peer) {
                self.leave_parent(now, s);
            }
        }
    }

    /// Slots have become free: who seeks a parent is told soon, not with the next turn.
    pub(super) fn tell_room(&mut self, now: Timestamp) {
        for neighbour in self.neighbours.values_mut() {
            neighbour.state_due = neighbour.state_due.min(now.max(neighbour.told + STATE_GAP_MIN));
        }
    }

    /// A neighbour is silent: it is not relied on, and told so, should it ever hear it.
    pub(super) fn stop_relying_on(&mut self, now: Timestamp, peer: PeerId) {
        for s in 0..self.substream_count() {
            let sub = &self.substreams[usize::from(s)];
            let pending = sub.pending.is_some_and(|pending| pending.peer == peer);
            if sub.is_child(&peer) {
                let reject = Reject { substream: s, reason: RejectReason::Starving, suggestions: Vec::new() };
                self.send(peer, &Message::Reject(reject));
            }
            if self.substreams[usize::from(s)].is_parent(&peer) || pending {
                self.send(peer, &Message::Detach { substream: s });
            }
        }
        self.lose_everywhere(now, peer);
        self.put(SwarmOutput::WithdrawAll(peer));
        self.tell_room(now);
    }

    /// Looks for parents where there is none or a better one, and asks after late chunks.
    pub(super) fn tend_trees(&mut self, now: Timestamp) {
        self.end_leaving(now);
        if self.is_source() || !self.phase.is_joined() || self.config.policy.overlay == Overlay::Mesh {
            return;
        }
        let stalled = self.store.stalled(now);
        for s in 0..self.substream_count() {
            let age = self.staleness(now, s).max(stalled);
            let sub = &mut self.substreams[usize::from(s)];
            sub.behind = age;
            if let Some(pending) = sub.pending {
                if now < pending.until {
                    continue;
                }
                sub.pending = None;
                if let Some(neighbour) = self.neighbours.get_mut(&pending.peer) {
                    neighbour.refused_until.insert(s, now + REFUSED_FOR);
                }
            }
            match self.substreams[usize::from(s)].parent() {
                None => self.seek_parent(now, s, None),
                Some(parent) => self.watch_parent(now, s, parent, age),
            }
        }
    }

    fn watch_parent(&mut self, now: Timestamp, s: u8, parent: PeerId, age: Duration) {
        let policy = &self.config.policy;
        let sub = &self.substreams[usize::from(s)];
        let usual = sub.lateness();
        // What was late before it came is not its fault.
        let mut age = age.min(now.since(sub.parent_since));
        if sub.elsewhere > if sub.proven { ELSEWHERE_MAX } else { ELSEWHERE_MAX / 2 } {
            // Pulls hide that it brings nothing.
            age = Duration::MAX;
        }
        // Who has not pushed anything yet has no credit.
        let patience = if sub.proven { policy.starve_after } else { policy.starve_after / 2 } + usual;
        let hopeless = if sub.proven { patience * 3 / 2 } else { patience };
        if age > patience {
            self.seek_parent(now, s, Some(u64::MAX));
            let replaced = self.substreams[usize::from(s)].pending.is_some();
            if replaced || age > hopeless {
                if let Some(neighbour) = self.neighbours.get_mut(&parent) {
                    neighbour.doubt(STARVED_COST);
                    neighbour.shun(now);
                }
                // Without a parent it may ask more urgently, and pulls sooner.
                if !replaced && self.leave_parent(now, s).is_some() {
                    self.send(parent, &Message::Detach { substream: s });
                }
            }
        } else if sub.evicted.is_some() {
            self.seek_parent(now, s, Some(u64::MAX));
        } else if age > policy.probe_after + usual * 2 {
            // It says itself that nothing comes to it: who waits for it waits in vain.
            let dry = self.neighbours.get(&parent).is_some_and(|n| n.lag_us(s).is_none())
                && age > policy.starve_after / 2;
            self.probe(now, parent);
            if dry {
                self.seek_parent(now, s, Some(u64::MAX));
            }
        } else if now >= sub.consider_at {
            let hold = policy.switch_hold * sub.hold / 10;
            let eggs = Policy::eggs_us(self.reliance(&parent).saturating_sub(1), self.substream_count());
            let current = sub.lag_us.map(|lag| lag + eggs);
            // Jitter keeps the swarm from moving in step.
            let jitter = Duration::from_millis(self.rng.u64(..400));
            self.substreams[usize::from(s)].consider_at = now + hold + jitter;
            self.seek_parent(now, s, current);
        }
    }

    /// Applies to the best parent; with a `current` lag only to one that is clearly better.
    fn seek_parent(&mut self, now: Timestamp, s: u8, current: Option<u64>) {
        let policy = &self.config.policy;
        let sub = &self.substreams[usize::from(s)];
        let urgent = !sub.has_parent() && now.since(sub.orphan_since) > policy.urgent_after;
        let interior = policy.is_interior(&self.local, s);
        let value = child_value(interior, self.upload_kbps());
        let best = self
            .neighbours
            .values()
            .filter(|n| {
                n.met
                    && !n.suspect
                    && n.epoch == self.epoch()
                    && !sub.is_child(&n.peer)
                    && !sub.is_parent(&n.peer)
            })
            .filter(|n| urgent || now >= n.shunned_until)
            // Who let down this node has one substream to make good.
            .filter(|n| !n.is_on_probation() || !self.substreams.iter().any(|sub| sub.relies_on(&n.peer)))
            .filter(|n| n.refused_until.get(&s).is_none_or(|until| now >= *until))
            .filter_map(|n| {
                let view = ParentView {
                    lag_us: n.lag_us(s)? + n.bias_us() + n.doubt_us(),
                    wait_us: n.wait().as_micros() as u64,
                    rtt_us: n.rtt.as_micros() as u64,
                    accept: n.state.substreams.get(usize::from(s))?.accept,
                    already: self.reliance(&n.peer),
                };
                policy
                    .parent_score(&view, value, urgent, self.substream_count())
                    .map(|score| (score, n.peer, n.rtt))
            })
            .min();
        let Some((score, peer, rtt)) = best else { return };
        if sub.has_parent() && !current.is_some_and(|current| policy.is_worth_switching(current, score)) {
            return;
        }
        let until = now + policy.attach_timeout + rtt * 2;
        // What the new parent has and the old one lacks, nobody else would push: a chunk that comes twice costs less.
        let from = self.first_wanted(s);
        let upload_kbps = self.upload_kbps();
        self.substreams[usize::from(s)].pending = Some(Pending { peer, until });
        self.invite(now, peer, s);
        self.send(peer, &Message::Attach(Attach { substream: s, interior, urgent, upload_kbps, from }));
    }

    /// Substreams in which `peer` is, or was asked to be, the parent.
    fn reliance(&self, peer: &PeerId) -> u32 {
        self.substreams.iter().filter(|sub| sub.relies_on(peer)).count() as u32
    }

    /// The first chunk of substream `s` that a new parent should push.
    fn first_wanted(&self, s: u8) -> u64 {
        let k = u64::from(self.substream_count());
        let burst_end = match self.phase {
            super::join::Phase::Joined { burst_end } => burst_end,
            _ => 0,
        };
        let low =
            self.store.start().max(burst_end).max(self.store.edge().saturating_sub(BACKLOG_MAX as u64 * k));
        let mut missing = self.store.have().missing(low..low.max(self.store.edge()) + k);
        missing.find(|n| n % k == u64::from(s) && !self.locks.contains_key(n)).unwrap_or(low)
    }

    /// For how long the chunk that follows the newest of substream `s` has been known to exist. A hole behind the newest
    /// is no sign that the substream dried up: it is pulled.
    fn staleness(&self, now: Timestamp, s: u8) -> Duration {
        let k = u64::from(self.substream_count()).max(1);
        let burst_end = match self.phase {
            super::join::Phase::Joined { burst_end } => burst_end,
            _ => 0,
        };
        let from = self.store.start().max(burst_end);
        // The first of the substream at or after where pushing is expected to begin.
        let first = from + (u64::from(s) + k - from % k) % k;
        let next = self.substreams[usize::from(s)].newest.map_or(first, |newest| newest + k).max(first);
        self.store.known_since(next).map_or(Duration::ZERO, |since| now.since(since))
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
                    + if child.interior && child.leaving.is_none() { Duration::ZERO } else { leaf_delay },
                expires: now + expiry,
                requested: false,
                received: now,
                hops_us,
            })
            .collect();
        for offer in offers {
            self.spend(now, u64::from(offer.chunk.header().len));
            self.put(SwarmOutput::Offer(offer));
        }
    }

    pub(super) fn send(&mut self, peer: PeerId, message: &Message) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.send(message);
        }
    }
}
