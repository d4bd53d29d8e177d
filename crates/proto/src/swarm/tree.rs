//! Substream trees, upwards: for each substream one parent that pushes. Downwards is [`children`](super::children).
//!
//! Loops are avoided by the path of ancestors; a late chunk makes this node ask its parent whether it is there, and
//! a silent or starving parent is replaced. Whom to ask and whom to accept is [`policy`](super::policy)'s choice.

use alloc::vec::Vec;
use core::time::Duration;

use super::children::{BACKLOG_MAX, Child};
use super::policy::{ChildView, Overlay, ParentView, Policy};
use super::{Swarm, SwarmOutput};
use crate::id::PeerId;
use crate::time::Timestamp;
use crate::wire::{Accept, Attach, LAG_UNKNOWN_MS, Message, PATH_LEN_MAX, Path, Reject, RejectReason};

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
/// What arrives later than this is not offered to children: no player waits for it …
const LAG_OFFERED_MAX_MS: u64 = 6_000;
/// … nor is what should have come so long ago.
const BEHIND_OFFERED_MAX_MS: u64 = 3_000;
/// So many neighbours without room show that there is little.
const SEVERAL: usize = 3;
/// A parent that has pushed nothing yet may promise to be this late, µs.
const LATENESS_MAX_US: u64 = 2_000_000;
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
    /// It has had a parent.
    had_parent: bool,
    consider_at: Timestamp,
    /// Factor on the hold time, in tenths; grows with every change.
    hold: u32,
    pub(super) children: Vec<Child>,
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
    /// At a source: for so many seconds its chunks have gone nowhere.
    pub(super) nowhere: u8,
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
            had_parent: false,
            consider_at: now,
            hold: 10,
            children: Vec::new(),
            path_changed: false,
            lag_us: None,
            lateness_us: 0,
            newest: None,
            behind: Duration::ZERO,
            evicted: None,
            nowhere: 0,
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
    pub(super) fn settled(&self) -> u32 {
        self.children.iter().filter(|child| child.leaving.is_none()).count() as u32
    }

    pub(super) fn lateness(&self) -> Duration {
        // Who has not pushed anything yet is as late as it says.
        let promised = if self.proven { 0 } else { self.lag_us.unwrap_or(0).min(LATENESS_MAX_US) };
        Duration::from_micros(self.lateness_us.max(promised))
    }

    /// This node's own ancestors: its parent and the parent's.
    pub(super) fn path(&self) -> Path {
        let Some(parent) = &self.parent else { return Path::new() };
        core::iter::once(parent.peer.tag()).chain(parent.path.iter().copied()).take(PATH_LEN_MAX).collect()
    }

    /// The tag of the parent's parent.
    pub(super) fn grandparent(&self) -> Option<u64> {
        self.parent.as_ref().and_then(|parent| parent.path.first().copied())
    }

    /// The parent is gone; its last chunks may still arrive.
    fn lose_parent(&mut self, now: Timestamp) -> Option<PeerId> {
        let parent = self.parent.take()?.peer;
        self.evicted = None;
        self.orphan_since = now;
        Some(parent)
    }

    pub(super) fn remove_child(&mut self, peer: &PeerId) {
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
            .and_then(|neighbour| neighbour.invited.get(s))
            .is_some_and(|at| now.since(at) < FORMER_GRACE)
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
            neighbour.invited.set(s, Some(now));
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
        // What was missing before it was the parent says nothing of it.
        if since.is_some_and(|since| since < sub.parent_since) {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && let Some(promised) = neighbour.promised_us(s)
        {
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
        // What has dried up further up is worth nothing to a child, whatever it was worth before. That everything is late is another
        // matter: a swarm in which all are late must not fall apart.
        let dried_up = sub.behind > self.config.policy.probe_after + sub.lateness() * 2;
        let behind_ms = if dried_up { sub.behind.as_millis() as u64 } else { 0 };
        let lag_ms = lag_us / 1000 + behind_ms;
        let is_offered = behind_ms < BEHIND_OFFERED_MAX_MS && lag_ms < LAG_OFFERED_MAX_MS;
        if is_offered { lag_ms as u16 } else { LAG_UNKNOWN_MS }
    }

    pub(super) fn hear_accept(&mut self, now: Timestamp, peer: PeerId, accept: Accept) {
        let s = accept.substream;
        let Some(sub) = self.substreams.get_mut(usize::from(s)) else { return };
        if sub.pending.is_none_or(|pending| pending.peer != peer) {
            // Too late: this node looked elsewhere. A confirmation by the parent it has is harmless.
            if !sub.is_parent(&peer) {
                // Who was never asked earns nothing by accepting.
                if self.neighbours.get(&peer).is_some_and(|n| n.invited.get(s).is_some()) {
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
        // Until it has pushed something its word is what there is: who waits for the first chunk lets everybody below wait.
        let promised = self.neighbours.get(&peer).and_then(|n| n.promised_us(s));
        let sub = &mut self.substreams[usize::from(s)];
        sub.parent_since = now;
        sub.proven = false;
        sub.had_parent = true;
        sub.elsewhere = 0;
        sub.evicted = None;
        sub.parent = Some(Parent { peer, path: accept.path });
        sub.lag_us = promised;
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
            neighbour.refused_until.set(s, Some(now + REFUSED_FOR));
        }
        self.meet(now, peer, &reject.suggestions);
        if reject.reason != RejectReason::Displaced {
            return;
        }
        // Whom a displaced child may try has just got room. Other suggestions lift no refusal: two full parents that
        // name each other would be asked in turn for ever.
        for suggested in &reject.suggestions {
            if let Some(neighbour) = self.neighbours.get_mut(&suggested.peer) {
                neighbour.refused_until.set(s, None);
            }
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
        if self.fetches_place(now) {
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
                    neighbour.refused_until.set(s, Some(now + REFUSED_FOR));
                }
            }
            match self.substreams[usize::from(s)].parent() {
                None => self.seek_parent(now, s, None),
                Some(parent) => self.watch_parent(now, s, parent, age),
            }
        }
        self.balance_classes(now);
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
        // Whoever was heard just now is there, and late.
        let is_due = age > policy.probe_after / 2 + usual;
        if is_due && self.neighbours.get(&parent).is_some_and(|n| now.since(n.heard) > policy.probe_after) {
            self.probe(now, parent);
        }
        let owes = self.neighbours.get(&parent).is_some_and(|n| n.owes_answer(now));
        if owes {
            self.look_around(now);
        }
        let policy = &self.config.policy;
        let sub = &self.substreams[usize::from(s)];
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
        } else if owes || sub.evicted.is_some() {
            self.seek_parent(now, s, Some(u64::MAX));
        } else if age > policy.probe_after + usual * 2 {
            // It says itself that nothing comes to it: who waits for it waits in vain.
            let dry = self.neighbours.get(&parent).is_some_and(|n| n.lag_us(s).is_none())
                && age > policy.starve_after / 2;
            if dry {
                self.seek_parent(now, s, Some(u64::MAX));
            }
        } else if now >= sub.consider_at {
            // Who is fed from elsewhere does not wait longer each time.
            let patience = if self.is_imported(s) { 10 } else { sub.hold };
            let hold = policy.switch_hold * patience / 10;
            let (reliance, substreams) = (self.reliance(&parent), self.substream_count());
            let neighbour = self.neighbours.get(&parent);
            let eggs = match neighbour {
                Some(n) if !n.source => Policy::kept_us(reliance, substreams),
                _ => Policy::eggs_us(reliance.saturating_sub(1), substreams),
            };
            let away = policy.away(policy.is_interior(self.class, s));
            let away = neighbour.map_or(0, |n| self.away_us(n, away));
            let current = sub.lag_us.map(|lag| lag + eggs + away);
            // Jitter keeps the swarm from moving in step.
            let jitter = Duration::from_millis(self.rng.u64(..400));
            self.substreams[usize::from(s)].consider_at = now + hold + jitter;
            self.seek_parent(now, s, current);
        }
    }

    /// Applies to the best parent; with a `current` lag only to one that is clearly better.
    fn seek_parent(&mut self, now: Timestamp, s: u8, current: Option<u64>) {
        let sub = &self.substreams[usize::from(s)];
        let waits = !sub.has_parent() && now.since(sub.orphan_since) > self.config.policy.urgent_after;
        // Who is starving cannot afford to ask whose network it is.
        let is_calm = current != Some(u64::MAX) || sub.evicted.is_some();
        let policy = &self.config.policy;
        let away = if is_calm { policy.away(policy.is_interior(self.class, s)) } else { Duration::ZERO };
        let easy = if waits { None } else { self.best_parent(now, s, false, away) };
        // Who has nothing yet, and heard several who have no room, need not wait to hear it again.
        let urgent =
            waits || easy.is_none() && !sub.has_parent() && !sub.had_parent && self.has_heard_several();
        let best = if urgent { self.best_parent(now, s, true, Duration::ZERO) } else { easy };
        let Some((score, peer, rtt)) = best else { return };
        let policy = &self.config.policy;
        if sub.has_parent() && !current.is_some_and(|current| policy.is_worth_switching(current, score)) {
            return;
        }
        let until = now + policy.attach_timeout + rtt * 2;
        let attach = self.application(s, urgent);
        self.substreams[usize::from(s)].pending = Some(Pending { peer, until });
        self.invite(now, peer, s);
        self.send(peer, &Message::Attach(attach));
    }

    /// What to tell a parent in substream `s`.
    pub(super) fn application(&self, s: u8, urgent: bool) -> Attach {
        Attach {
            substream: s,
            interior: self.config.policy.is_interior(self.class, s),
            urgent,
            upload_kbps: self.upload_kbps(),
            // What the new parent has and the old one lacks, nobody else would push: a chunk that comes twice costs less.
            from: self.first_wanted(s),
        }
    }

    fn has_heard_several(&self) -> bool {
        self.neighbours.values().filter(|n| n.met && !n.source && n.epoch == self.epoch()).count() >= SEVERAL
    }

    /// The best parent in substream `s` among the neighbours that would accept; its score and round trip.
    /// One outside the own PID counts `away` worse.
    fn best_parent(
        &self,
        now: Timestamp,
        s: u8,
        urgent: bool,
        away: Duration,
    ) -> Option<(u64, PeerId, Duration)> {
        let policy = &self.config.policy;
        let sub = &self.substreams[usize::from(s)];
        let interior = policy.is_interior(self.class, s);
        let upload_kbps = self.upload_kbps();
        // Without a parent, or with one that may be gone, it cannot afford to ask another who is gone.
        let at_once = sub.parent().and_then(|p| self.neighbours.get(&p)).is_none_or(|p| p.owes_answer(now));
        self.neighbours
            .values()
            .filter(|n| {
                n.met
                    && !n.suspect
                    && n.epoch == self.epoch()
                    && !sub.is_child(&n.peer)
                    && !sub.is_parent(&n.peer)
            })
            .filter(|n| urgent || now >= n.shunned_until)
            // Who let down this node has one substream to make good, who brought nothing yet one to begin with.
            .filter(|n| !n.is_on_probation() || !self.substreams.iter().any(|sub| sub.relies_on(&n.peer)))
            .filter(|n| n.refused_until.get(s).is_none_or(|until| now >= until))
            .filter_map(|n| {
                let view = ParentView {
                    lag_us: n.lag_us(s)?
                        + n.bias_us()
                        + n.doubt_us()
                        + n.unproven_us()
                        + if self.may_replace_parent(sub, n) { 0 } else { self.away_us(n, away) }
                        + if at_once { n.quiet_us(now) } else { 0 },
                    wait_us: n.wait().as_micros() as u64,
                    rtt_us: n.rtt.as_micros() as u64,
                    accept: n.state.substreams.get(usize::from(s))?.accept,
                    already: self.reliance(&n.peer),
                };
                let (one_way_us, side) = (n.one_way_us(), self.side(n));
                let own = ChildView { interior, upload_kbps, one_way_us, side };
                policy
                    .parent_score(
                        &view,
                        policy.child_value(&own, self.rate_bps),
                        urgent,
                        self.substream_count(),
                    )
                    .map(|score| (score, n.peer, n.rtt))
            })
            .min()
    }

    /// Substreams in which `peer` is, or was asked to be, the parent.
    pub(super) fn reliance(&self, peer: &PeerId) -> u32 {
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
        self.store.signed_since(next).map_or(Duration::ZERO, |since| now.since(since))
    }

    pub(super) fn send(&mut self, peer: PeerId, message: &Message) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.send(&mut self.unsent, message);
        }
    }
}
