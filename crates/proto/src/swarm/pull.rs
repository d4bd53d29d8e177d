//! Holes are asked for, earliest first, and requests of others are answered.
//!
//! A lock keeps a chunk from being asked of two neighbours at once; it lasts for what the round trip and the
//! sender's queue make likely. Serving has an admission limit: past it, late pulls make load, and load late chunks.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::join::Phase;
use super::neighbour::{Allowance, Asked, Neighbour};
use super::overdue::Share;
use super::policy::Overlay;
use super::{Offer, Role, Swarm, SwarmOutput};
use crate::id::PeerId;
use crate::time::Timestamp;
use crate::uplink::Done;
use crate::wire::{Message, RangeList, RefuseReason, Request};

/// Holes looked at in one go.
const HOLES_MAX: usize = 512;
/// Chunks of one REQUEST that are looked at; more are refused.
pub(super) const REQUESTED_MAX: usize = 64;
/// Chunks queued for one neighbour in answer to its requests.
const SERVING_MAX: usize = 64;
/// A request neither answered nor refused for this long counts against the neighbour, if it is there.
const UNANSWERED_AFTER: Duration = Duration::from_secs(3);
/// Who should have a chunk by now, but never said so, is asked at this pace.
const GUESS_PERIOD: Duration = Duration::from_millis(80);
/// What it counts against a neighbour that a request was not answered in time.
const SLOW_COST: Duration = Duration::from_millis(100);
/// A neighbour that is busy is not asked again for this long …
const BUSY_FOR: Duration = Duration::from_millis(300);
/// … and by a joiner for this long.
const BUSY_FOR_JOINING: Duration = Duration::from_millis(120);
/// A chunk that only the source has goes beyond its budget while it is this young.
const ONLY_HERE_MAX: Duration = Duration::from_secs(3);
/// A source may owe this part of what it may save.
const DEBT_PARTS: i64 = 4;
/// Holes are asked for this often at most, all that are due at once …
const PULL_PERIOD: Duration = Duration::from_millis(100);
/// … by joiners this often: they ask as they go. Nobody looks for any more often.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

impl Swarm {
    pub(super) fn pull(&mut self, now: Timestamp) {
        let Phase::Joined { burst_end } = self.phase else { return };
        // Every message is a chance to look; asking at each of them would make more packets than chunks.
        if now < self.pull_at {
            return;
        }
        self.pull_at = now + LOOK_PERIOD;
        self.end_locks(now);
        self.guess_after.retain(|_, after| now < *after);
        let joining = self.is_joining(now);
        if !self.neighbours.values().any(|n| self.may_ask(now, n, joining)) {
            return;
        }
        // What a newcomer shows first does not give way: it is a few chunks, and somebody waits for them. Nor does what a player has
        // come to.
        let first_part = match joining {
            true if !self.config.policy.join_leaps => 0..burst_end,
            true => self.first_part(),
            false => 0..0,
        };
        let mut requests: BTreeMap<(PeerId, bool), Vec<u64>> = BTreeMap::new();
        for number in self.holes(now, burst_end) {
            let gives_way = joining && !first_part.contains(&number);
            let wait = self.wait_asked(now, number, gives_way);
            if joining && self.locks.len() >= self.config.policy.requests_joining {
                break;
            }
            if let Some(peer) = self.choose_holder(now, number, joining, wait) {
                let until = now + self.lock_time(&peer, gives_way);
                self.locks.insert(number, peer);
                if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                    neighbour.asked.insert(number, Asked { at: now, until });
                    neighbour.requested.note(number);
                }
                requests.entry((peer, gives_way)).or_default().push(number);
            }
        }
        let deadline_ms = self.config.policy.pull_expiry.as_millis() as u16;
        if !joining && !requests.is_empty() {
            self.pull_at = now + PULL_PERIOD;
        }
        for ((peer, joining), numbers) in requests {
            let chunks = RangeList::from_numbers(numbers);
            self.send(peer, &Message::Request(Request { deadline_ms, joining, chunks }));
        }
    }

    /// What was there when this node came is not here yet. After a while that is a hole like others: who goes on giving way
    /// to everybody never gets it.
    pub(super) fn is_joining(&self, now: Timestamp) -> bool {
        let Phase::Joined { burst_end } = self.phase else { return false };
        let lacks = self.store.have().end() < burst_end || self.has_holes(burst_end);
        lacks && now.since(self.joining.joined_at) < self.config.policy.joining_max
    }

    fn has_holes(&self, burst_end: u64) -> bool {
        let start = self.store.start().max(self.joining.first);
        start < burst_end && self.store.have().missing(start..burst_end).next().is_some()
    }

    /// What may be asked for now, earliest first.
    fn holes(&self, now: Timestamp, burst_end: u64) -> Vec<u64> {
        let policy = &self.config.policy;
        let k = u64::from(self.substream_count()).max(1);
        let edge = self.store.far_edge();
        // A player that still speaks of another broadcast is not heard.
        let playing = Some(self.playout.next_number).filter(|next| *next <= edge).unwrap_or(0);
        let start = self.store.start().max(playing).max(self.joining.first);
        let claimed =
            self.neighbours.values().filter(|n| n.epoch == self.epoch()).map(|n| n.have.end()).max();
        let end = claimed.unwrap_or(0).min(edge.max(burst_end) + self.claim_ahead()).max(edge);
        let mut holes = Vec::new();
        for number in self.store.have().missing(start.min(end)..end).take(HOLES_MAX) {
            if self.locks.contains_key(&number) {
                continue;
            }
            if number < burst_end {
                holes.push(number);
                continue;
            }
            let sub = &self.substreams[(number % k) as usize];
            // A parent that may be gone is as good as none.
            let parent = sub.parent().and_then(|p| self.neighbours.get(&p)).filter(|n| !n.owes_answer(now));
            let parent_has = parent.map(|n| n.have.contains(number));
            let age = match self.store.known_since(number) {
                Some(since) => now.since(since),
                None if number < edge => Duration::MAX,
                // Nobody but a neighbour says that it exists: its parent will bring it, if there is one.
                None if parent_has.is_some() && policy.overlay != Overlay::Mesh => continue,
                None => policy.pull_orphan_after,
            };
            let usual = policy.pull_age(parent_has, sub.lateness());
            let unproven = parent_has.is_some() && !sub.is_proven() && policy.overlay == Overlay::Hybrid;
            if age >= if unproven { policy.pull_unproven_after.max(sub.lateness()) } else { usual } {
                holes.push(number);
            }
        }
        holes
    }

    /// Whether `n` may be asked for anything now: holes are looked for only when somebody may.
    fn may_ask(&self, now: Timestamp, n: &Neighbour, joining: bool) -> bool {
        let policy = &self.config.policy;
        let pipeline = if joining { policy.pipeline_joining } else { policy.pipeline };
        n.met
            && !n.suspect
            && n.epoch == self.epoch()
            && now >= n.busy_until
            && n.asked.len() < pipeline
            && n.wait() <= policy.serve_wait.max(policy.serve_wait_joining).max(policy.serve_wait_overdue)
    }

    /// Whose chunks wait longer than this on its uplink would refuse `number`: asking costs both sides for nothing.
    fn wait_asked(&self, now: Timestamp, number: u64, joining: bool) -> Duration {
        let policy = &self.config.policy;
        let overdue = number < self.store.edge()
            && self.store.known_since(number).is_none_or(|since| now.since(since) > policy.overdue_after);
        if joining {
            policy.serve_wait_joining
        } else if overdue {
            policy.serve_wait_overdue
        } else {
            policy.serve_wait
        }
    }

    /// The neighbour to ask: it holds the chunk, has room in its pipeline, and answers soonest.
    fn choose_holder(
        &mut self,
        now: Timestamp,
        number: u64,
        joining: bool,
        wait_most: Duration,
    ) -> Option<PeerId> {
        let policy = &self.config.policy;
        let pipeline = if joining { policy.pipeline_joining } else { policy.pipeline };
        let interval_us = 8_000_000 * 8192 / self.rate_bps.max(1);
        let s = (number % u64::from(self.substream_count()).max(1)) as u8;
        let since = self.store.known_since(number);
        let parent = self.substreams.get(usize::from(s)).and_then(super::tree::Substream::parent);
        let may_guess = !self.guess_after.contains_key(&number);
        // What players soon wait for may come from anywhere.
        let is_late = since.is_some_and(|since| now.since(since) > policy.overdue_after);
        let away = if is_late { Duration::ZERO } else { policy.away_pull };
        let mut rng = self.rng.clone();
        let best = self
            .neighbours
            .values()
            .filter(|n| n.met && !n.suspect && n.epoch == self.certificate.map_or(0, |c| c.epoch))
            .filter(|n| n.asked.len() < pipeline && now >= n.busy_until && !n.asked.contains_key(&number))
            .filter(|n| n.wait() <= wait_most)
            // What the parent should have it will push.
            .filter(|n| {
                n.have.contains(number)
                    || (may_guess && parent != Some(n.peer) && n.has_or_should(now, number, s, since))
            })
            .min_by_key(|n| {
                // A source has few copies to give: others first, where they are not much slower.
                let source = if n.source { 60_000 } else { 0 };
                // It would have pushed it: something is wrong there.
                let late = if parent == Some(n.peer) { 200_000 } else { 0 };
                let guess = if n.have.contains(number) { 0 } else { 40_000 };
                let queued = n.asked.len() as u64 * interval_us / 4;
                let cost = (n.rtt + n.wait()).as_micros() as u64 + source + queued;
                let away = self.away_us(n, away);
                (cost + late + guess + away + n.quiet_us(now) + n.doubt_us() + rng.u64(..5_000), n.peer)
            })
            .map(|n| n.peer);
        self.rng = rng;
        best
    }

    fn lock_time(&self, peer: &PeerId, joining: bool) -> Duration {
        let policy = &self.config.policy;
        let turn = if joining { policy.serve_after_joining } else { policy.serve_after };
        let Some(neighbour) = self.neighbours.get(peer) else { return policy.lock + turn };
        let ahead = Duration::from_millis(20) * neighbour.asked.len() as u32;
        policy.lock + turn + neighbour.rtt * 2 + neighbour.wait() + ahead
    }

    /// Ends locks whose time is up, and counts requests that nobody answered.
    fn end_locks(&mut self, now: Timestamp) {
        let mut silent = Vec::new();
        for neighbour in self.neighbours.values_mut().filter(|n| !n.asked.is_empty()) {
            let (peer, heard, chunk_at) = (neighbour.peer, neighbour.heard, neighbour.chunk_at);
            let (mut unanswered, mut slow) = (false, 0);
            neighbour.asked.retain(|number, asked| {
                if now >= asked.until && self.locks.get(number) == Some(&peer) {
                    self.locks.remove(number);
                    slow += 1;
                }
                let over = now.since(asked.at) > UNANSWERED_AFTER;
                // Who sends other chunks meanwhile has a narrow line, and is no liar.
                unanswered |= over && heard > asked.at && chunk_at <= asked.at;
                !over
            });
            neighbour.doubt(SLOW_COST * slow);
            if unanswered && neighbour.is_new_claim(now) {
                silent.push(peer);
            }
        }
        for peer in silent {
            self.strike(now, peer, "it claims chunks and does not send them");
        }
    }

    /// Chunk `number` is no longer wanted of `peer`, which was asked for it.
    pub(super) fn take_back(&mut self, peer: PeerId, number: u64) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && neighbour.asked.remove(&number).is_some()
        {
            neighbour.send(&mut self.unsent, &Message::Cancel(RangeList::from_numbers([number])));
        }
    }

    pub(super) fn hear_refuse(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        reason: RefuseReason,
        chunks: &RangeList,
    ) {
        let joining = self.is_joining(now);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let mut lied = false;
        for number in chunks.numbers(REQUESTED_MAX) {
            if neighbour.asked.remove(&number).is_none() {
                continue;
            }
            if self.locks.get(&number) == Some(&peer) {
                self.locks.remove(&number);
            }
            if reason == RefuseReason::Absent {
                neighbour.absent.note(number);
                self.guess_after.insert(number, now + GUESS_PERIOD);
            }
            if reason == RefuseReason::Absent && neighbour.have.contains(number) {
                // What leaves the other end of its window is no lie.
                lied |= neighbour.have.start().is_some_and(|start| number > start + 64);
                neighbour.have.discard_below(number + 1);
            }
        }
        if reason == RefuseReason::Busy {
            neighbour.busy_until = now + if joining { BUSY_FOR_JOINING } else { BUSY_FOR };
        }
        if lied && neighbour.is_new_claim(now) {
            self.strike(now, peer, "it claims chunks that it has not");
        }
    }

    pub(super) fn serve(&mut self, now: Timestamp, peer: PeerId, request: &Request) {
        let (spent, allowance) = (self.is_spent(now, request.joining), self.allowance());
        let in_debt = self.is_in_debt(now);
        let share = self.overdue_share();
        self.overdue.earn(now, share);
        let policy = &self.config.policy;
        let (usual_limit, after) = if request.joining {
            (policy.serve_wait_joining, policy.serve_after_joining)
        } else {
            (policy.serve_wait, policy.serve_after)
        };
        let never = !self.config.upload;
        let is_source = self.is_source();
        let policy = &self.config.policy;
        let mut wait = self.uplink.wait;
        let standing = self.uplink.standing_wait;
        let expires = now + policy.pull_expiry.min(Duration::from_millis(u64::from(request.deadline_ms)));
        let (mut absent, mut refused, mut offers) = (Vec::new(), Vec::new(), Vec::new());
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        for number in request.chunks.numbers(REQUESTED_MAX) {
            let age = self.store.get(number).map_or(Duration::ZERO, |held| now.since(held.received));
            // Its age is this node's own knowledge: nobody gets ahead by a claim.
            let is_refused = wait > usual_limit || spent || standing > policy.serve_standing;
            let is_last_call = age > policy.last_call_after && is_refused;
            let overdue = !request.joining
                && age > policy.overdue_after
                && self.overdue.allows(age, is_last_call, share);
            // Nor are old holes refused by a source that has sent its copies: they go on account of later requests.
            let is_busy = if overdue { wait > policy.serve_wait_overdue || in_debt } else { is_refused };
            // What the source has not given to anybody nobody can have: it goes once, whatever else was spent. Only while
            // players wait for it, and while it is known what was given.
            let only_here = is_source
                && age < ONLY_HERE_MAX
                && !self.given_out.contains(number)
                && !self.promised.contains(number);
            match self.store.get(number) {
                None => absent.push(number),
                Some(_) if neighbour.serving >= SERVING_MAX => refused.push(number),
                Some(_) if (never || is_busy) && !only_here => refused.push(number),
                // It has arrived there: the question and the chunk crossed each other.
                Some(_) if neighbour.standing.given.contains(number) => refused.push(number),
                Some(held) => {
                    let bytes = held.chunk.encoded().len() as u64;
                    if only_here {
                        self.promised.note(number);
                    } else if !neighbour.standing.charge(now, bytes, allowance) {
                        refused.push(number);
                        continue;
                    }
                    if overdue {
                        self.overdue.charge(bytes);
                    }
                    wait += Duration::from_micros(bytes * 8_000_000 / self.uplink.pace_bps.max(1));
                    neighbour.serving += 1;
                    let (chunk, received, hops_us) = (held.chunk.clone(), held.received, held.hops_us);
                    offers.push(Offer {
                        peer,
                        chunk,
                        due: if overdue { now.saturating_sub(age) } else { now + after },
                        expires,
                        requested: true,
                        overdue,
                        offered: now,
                        received,
                        hops_us,
                    });
                }
            }
        }
        for (reason, numbers) in [(RefuseReason::Absent, absent), (RefuseReason::Busy, refused)] {
            if !numbers.is_empty() {
                neighbour.send(
                    &mut self.unsent,
                    &Message::Refuse { reason, chunks: RangeList::from_numbers(numbers) },
                );
            }
        }
        // What is admitted now counts for the next request of the same moment.
        self.uplink.wait = wait;
        for offer in offers {
            self.spend(now, u64::from(offer.chunk.header().len));
            self.put(SwarmOutput::Offer(offer));
        }
    }

    /// What may go to overdue holes before anything else.
    fn overdue_share(&self) -> Share {
        let percent = u64::from(self.config.policy.overdue_percent);
        Share { bytes_per_second: self.upload_bps() / 8 * percent / 100, is_source: self.is_source() }
    }

    /// Whether a source has sent so much beyond its copies that even old holes must wait until later requests have paid for it.
    fn is_in_debt(&mut self, now: Timestamp) -> bool {
        let most = self.spend(now, 0);
        self.savings < -(most / DEBT_PARTS)
    }

    /// Whether a source that may send a set number of copies has sent them. Joiners, who can ask others, do not get the
    /// last of them: when those who had a chunk first are gone, nobody but the source has it.
    fn is_spent(&mut self, now: Timestamp, joining: bool) -> bool {
        let most = self.spend(now, 0);
        if joining && self.unsold_slots() >= u32::from(self.substream_count()) {
            // Whole copies are left over: the first viewers need not wait.
            return false;
        }
        let reserve = if joining { most / 10 * 3 } else { 0 };
        self.savings < reserve
    }

    /// What one neighbour may be served on request: more than any joiner needs, and less than a flood wants; by a source
    /// that pushes all it may, what repair takes.
    pub(super) fn allowance(&self) -> Allowance {
        let per_second = self.rate_bps / 8;
        if self.is_sold_out() {
            Allowance { most: per_second * 2, per_second: per_second / 32 }
        } else {
            Allowance { most: per_second * 4, per_second: per_second / 8 }
        }
    }

    /// Books bytes against the copies that a source may send; what it does not send is saved for a while.
    /// Gives the most that is ever saved.
    pub(super) fn spend(&mut self, now: Timestamp, bytes: u64) -> i64 {
        let Role::Source { copies_percent: Some(percent), .. } = self.config.role else { return 0 };
        let policy = &self.config.policy;
        let per_second = self.rate_bps * u64::from(percent + policy.source_repair_percent) / 800;
        let earned = now.since(self.saved_at).as_micros() as u64 * per_second / 1_000_000;
        self.saved_at = now;
        // When those who had a chunk first are gone, nobody but the source has it: there must be savings.
        let most = policy.source_savings.as_millis() as u64 * (self.rate_bps / 8) / 1000;
        self.savings = (self.savings + earned as i64).min(most as i64) - bytes as i64;
        most as i64
    }

    pub(super) fn hear_cancel(&mut self, peer: PeerId, chunks: &RangeList) {
        for number in chunks.numbers(REQUESTED_MAX) {
            self.put(SwarmOutput::Withdraw(peer, number));
        }
    }

    /// An offer left the uplink: sent, or dropped there.
    pub(crate) fn offer_done(&mut self, done: &Done) {
        let unsent = done.requested && !done.merged && done.sent_bytes.is_none();
        if done.overdue && done.sent_bytes.is_none() {
            let held = self.store.get(done.number);
            self.overdue.give_back(held.map_or(0, |held| held.chunk.encoded().len() as u64));
        }
        if unsent && self.is_source() {
            // It was booked when it was admitted: a request that expires at once must not use up what is for others.
            let held = self.store.get(done.number);
            self.savings += held.map_or(0, |held| i64::from(held.chunk.header().len));
            self.promised.forget(done.number);
        }
        if let Some(neighbour) = self.neighbours.get_mut(&done.peer) {
            neighbour.serving = neighbour.serving.saturating_sub(usize::from(done.requested));
            if let Some(bytes) = done.sent_bytes {
                neighbour.bytes_out += bytes;
                self.stats.bytes_out += bytes;
                if neighbour.is_own_pid() {
                    self.stats.bytes_out_own_pid += bytes;
                }
                neighbour.standing.given.note(done.number);
                self.given_out.note(done.number);
            } else if unsent {
                // Every request is answered: what expired in the queue may be asked of somebody else.
                let chunks = RangeList::from_numbers([done.number]);
                neighbour.send(&mut self.unsent, &Message::Refuse { reason: RefuseReason::Busy, chunks });
            }
        }
    }
}
