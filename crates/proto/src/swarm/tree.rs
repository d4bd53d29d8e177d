//! Substream trees: for each substream one parent that pushes, and the children this node pushes to.
//!
//! Loops are avoided by the path of ancestors; a late chunk makes this node ask its parent whether it is there, and
//! a silent or starving parent is replaced. Whom to ask and whom to accept is [`policy`](super::policy)'s choice.

use alloc::vec::Vec;
use core::time::Duration;

use super::policy::{ACCEPT_NOBODY, ACCEPT_URGENT, Overlay, ParentView, Policy, child_value};
use super::{Offer, Swarm, SwarmOutput};
use crate::chunk::VerifiedChunk;
use crate::id::PeerId;
use crate::time::Timestamp;
use crate::wire::{
    Accept, Attach, LAG_UNKNOWN_MS, Message, PATH_LEN_MAX, Path, Reject, RejectReason, SUGGESTIONS_MAX,
};

/// Chunks that a new child is pushed from before it came.
const BACKLOG_MAX: usize = 12;
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

    /// Books the arrival of a chunk of substream `s`, known to exist `since`.
    pub(super) fn note_arrival(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        s: u8,
        lag_us: u64,
        since: Option<Timestamp>,
        requested: bool,
    ) {
        let grace = self.config.policy.attach_timeout;
        let sub = &mut self.substreams[usize::from(s)];
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
        match sub.lag_us {
            Some(lag) if sub.has_parent() => ((lag / 1000).min(u64::from(LAG_UNKNOWN_MS) - 1)) as u16,
            _ => LAG_UNKNOWN_MS,
        }
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

    /// A source sells whole copies of every substream; its owner counted the headers.
    fn source_slots(&self) -> u32 {
        (self.upload_bps() * u64::from(self.substream_count()) / self.rate_bps.max(1)) as u32
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
        let here = self.substreams[usize::from(s)].children();
        let used: u32 = self.substreams.iter().map(Substream::children).sum();
        if self.is_source() {
            let slots = self.source_slots();
            let each = slots.div_ceil(u32::from(k.max(1)));
            return if used < slots && here < each { Room::Ease } else { Room::None };
        }
        if self.uplink.usual_wait > self.config.policy.shed_wait / 2 {
            return Room::None;
        }
        let (ease, fill) = self.config.policy.slots(self.upload_bps(), self.rate_bps, k);
        let interior = u32::from(k.div_ceil(self.config.policy.interior_every.max(1))).max(1);
        if used < ease && here < ease.div_ceil(interior) + 1 {
            Room::Ease
        } else if used < fill {
            Room::Tight
        } else {
            Room::None
        }
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

    /// Substreams that one child may have from this node when others want them: half of all, and of a source's copies
    /// what is left for each when all neighbours have as many, so that nobody depends on the source alone.
    fn share(&self) -> usize {
        let half = self.substreams.len() / 2;
        if !self.is_source() {
            return half;
        }
        let neighbours = self.neighbours.values().filter(|n| n.met).count().max(1);
        (self.source_slots() as usize).div_ceil(neighbours).clamp(1, half.max(1))
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
        } else if sub.is_child(&peer) {
            Ok(None)
        } else {
            match self.accept_code(s) {
                _ if self.advertised_lag_ms(s) == LAG_UNKNOWN_MS => Err(RejectReason::Starving),
                ACCEPT_URGENT if attach.urgent => Ok(None),
                ACCEPT_NOBODY | ACCEPT_URGENT => Err(RejectReason::Full),
                _ if self.room(s) == Room::Ease => Ok(None),
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
                    self.substreams[usize::from(s)].remove_child(&displaced.peer);
                    let mut suggestions = self.suggestions(s, displaced.peer);
                    suggestions.insert(0, peer);
                    suggestions.truncate(SUGGESTIONS_MAX);
                    let reason = RejectReason::Displaced;
                    self.send(displaced.peer, &Message::Reject(Reject { substream: s, reason, suggestions }));
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
        let child = Child { peer, interior: attach.interior, value };
        // Strongest first: the order in which a chunk is pushed.
        let at = sub
            .children
            .partition_point(|other| (other.interior, other.value) >= (child.interior, child.value));
        sub.children.insert(at, child);
        let k = u64::from(self.substream_count());
        let end = self.store.have().end();
        let mut backlog: Vec<(VerifiedChunk, Timestamp, u64)> = self
            .store
            .range(attach.from.max(end.saturating_sub(BACKLOG_MAX as u64 * k))..end.max(attach.from))
            .filter(|(number, _)| number % k == u64::from(s))
            .filter(|(number, _)| self.neighbours.get(&peer).is_some_and(|n| !n.has(*number)))
            .map(|(_, held)| (held.chunk.clone(), held.received, held.lag_us))
            .collect();
        backlog.drain(..backlog.len().saturating_sub(BACKLOG_MAX));
        for (chunk, received, lag_us) in backlog {
            let expires = now + self.config.policy.push_expiry;
            self.put(SwarmOutput::Offer(Offer {
                peer,
                chunk,
                due: now,
                expires,
                requested: false,
                received,
                lag_us,
            }));
        }
    }

    /// Children of this node that relay substream `s`, the strongest first.
    fn suggestions(&self, s: u8, not: PeerId) -> Vec<PeerId> {
        let children = self.substreams[usize::from(s)].children.iter();
        children.filter(|c| c.interior && c.peer != not).map(|c| c.peer).take(SUGGESTIONS_MAX).collect()
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
        } else if sub.is_parent(&peer) {
            self.leave_parent(now, s);
        } else {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.refused_until.insert(s, now + REFUSED_FOR);
        }
        if reject.reason != RejectReason::Displaced {
            return;
        }
        // Whom a displaced child may try has just got room. Other suggestions lift no refusal: two full parents that
        // name each other would be asked in turn for ever.
        for suggested in &reject.suggestions {
            if let Some(neighbour) = self.neighbours.get_mut(suggested) {
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
        if self.is_source() || !self.phase.is_joined() || self.config.policy.overlay == Overlay::Mesh {
            return;
        }
        let ages = self.oldest_missing(now);
        let stalled = self.store.stalled(now);
        for s in 0..self.substream_count() {
            let sub = &mut self.substreams[usize::from(s)];
            if let Some(pending) = sub.pending {
                if now < pending.until {
                    continue;
                }
                sub.pending = None;
                if let Some(neighbour) = self.neighbours.get_mut(&pending.peer) {
                    neighbour.refused_until.insert(s, now + REFUSED_FOR);
                }
            }
            let age = ages.get(usize::from(s)).copied().unwrap_or_default().max(stalled);
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
        } else if age > policy.probe_after + usual * 2 {
            self.probe(now, parent);
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

    /// For each substream the age of its oldest missing chunk that nobody was asked for, burst left out.
    fn oldest_missing(&self, now: Timestamp) -> Vec<Duration> {
        let k = u64::from(self.substream_count());
        let mut ages: Vec<Duration> = alloc::vec![Duration::ZERO; k as usize];
        let edge = self.store.edge();
        let burst_end = match self.phase {
            super::join::Phase::Joined { burst_end } => burst_end,
            _ => 0,
        };
        let low = self.store.start().max(burst_end).max(edge.saturating_sub(k * 24)).min(edge);
        for number in self.store.have().missing(low..edge) {
            let slot = &mut ages[(number % k) as usize];
            if slot.is_zero()
                && let Some(since) = self.store.known_since(number)
            {
                *slot = now.since(since);
            }
        }
        ages
    }

    /// Offers a new chunk to the children in its substream.
    pub(super) fn push(&mut self, now: Timestamp, chunk: &VerifiedChunk, lag_us: u64, from: Option<PeerId>) {
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
                due: now.saturating_sub(Duration::from_micros(lag_us.min(2_000_000) * age / 100))
                    + sibling_delay * place as u32
                    + if child.interior { Duration::ZERO } else { leaf_delay },
                expires: now + expiry,
                requested: false,
                received: now,
                lag_us,
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
