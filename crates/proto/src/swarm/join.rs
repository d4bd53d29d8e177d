//! Where a newcomer starts: the newest segment that it can complete in time, and the proof that it is one.
//!
//! Where segments start is hearsay until a signed chunk says so: until then nothing is delivered.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Swarm, SwarmOutput};
use crate::broadcast::LiveNote;
use crate::chunk::{Flags, VerifiedChunk};
use crate::id::PeerId;
use crate::io::Event;
use crate::time::Timestamp;

/// How far this node has come in the broadcast it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It looks for neighbours that hold a segment start, and for a fresh live note.
    Waiting,
    /// It publishes the broadcast itself.
    Source,
    /// It takes part; chunks below `burst_end` existed when it came and are pulled at once.
    Joined {
        /// One past the newest chunk that a neighbour claimed then.
        burst_end: u64,
    },
}

/// A start whose first chunk has not come after this long is given up for another, if there is one.
const PROOF_MAX: Duration = Duration::from_millis(2000);
/// A start is given up for the next segment when it could not be played after this long.
const LEAP_AFTER: Duration = Duration::from_millis(500);
/// A newcomer that has heard one neighbour waits for a second one for so long.
const SECOND_VOICE: Duration = Duration::from_millis(40);
/// A claim beyond the signed edge is asked for at once for so long.
const CLAIM_TRUSTED: Duration = Duration::from_millis(600);
/// Starts remembered as false or fruitless.
const REFUSED_MAX: usize = 32;
/// How far beyond the signed edge a neighbour's claim is believed enough to ask for it, chunks.
const CLAIM_AHEAD: u64 = 256;
/// The segment that comes next may be this late before it is not waited for any longer.
const COMING_GRACE: Duration = Duration::from_secs(6);
/// Who comes to a place that a player waits at asks for that before anything is pushed to it, for so long at most.
const PLACE_FIRST: Duration = Duration::from_millis(800);
/// With so many neighbours heard, a start that only one of them names is not chosen if there is another.
const VOTERS_MIN: usize = 3;

/// The start that was chosen and not yet proven.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unproven {
    since: Timestamp,
    number: u64,
    /// Who named it; nobody else is to blame if it is false.
    named_by: PeerId,
}

/// What joining remembers of one broadcast.
#[derive(Debug, Default)]
pub(super) struct Joining {
    unproven: Option<Unproven>,
    /// This node relays already, and starts with the segment that comes next, if it has come by then.
    coming: Option<Timestamp>,
    /// It did not come.
    waited: bool,
    /// Nothing below is delivered.
    pub(super) first: u64,
    pub(super) joined_at: Timestamp,
    /// When the first neighbour named a start.
    first_named: Option<Timestamp>,
    /// Starts that proved false, or that nobody delivered (`false`).
    refused: BTreeMap<u64, bool>,
}

impl Phase {
    pub(crate) fn is_joined(self) -> bool {
        !matches!(self, Self::Waiting)
    }
}

impl Swarm {
    pub(super) fn try_join(&mut self, now: Timestamp) {
        if let Some(unproven) = self.joining.unproven
            && now.since(unproven.since) > PROOF_MAX
        {
            // Nobody delivered it. That may be a narrow line or a lie: elsewhere, if there is an elsewhere.
            if let Some(neighbour) = self.neighbours.get_mut(&unproven.named_by) {
                neighbour.doubt(PROOF_MAX);
            }
            self.refuse_start(unproven.number, false);
        }
        if let Phase::Joined { burst_end } = self.phase {
            // What nobody has shown by now did not exist, whoever claimed it.
            if now.since(self.joining.joined_at) > CLAIM_TRUSTED && burst_end > self.store.edge() {
                self.phase = Phase::Joined { burst_end: self.store.edge() };
            }
        }
        if self.joining.coming.is_some_and(|until| now > until) {
            // No segment began when one should have: what there is must do.
            self.joining.coming = None;
            self.joining.waited = true;
            self.look_again();
        }
        if self.phase != Phase::Waiting {
            return;
        }
        let (Some(certificate), Some(note)) = (self.certificate, self.note) else { return };
        if !note.is_fresh(self.unix_us(now)) {
            return;
        }
        // A claim beyond what the note and the rate make possible is not believed.
        let believable = note.next_number + self.plausible_ahead(now, &note);
        let Some((start, named_by)) = self.choose_start(now, certificate.epoch, believable) else { return };
        // Where a player has come to, those who came with it and have nothing yet say nothing.
        let may_be_new = self.config.policy.join_leaps;
        let mut claims: Vec<u64> = (self.neighbours.values().filter(|n| n.epoch == certificate.epoch))
            .map(|n| n.have.end())
            .filter(|end| may_be_new || *end > start)
            .collect();
        claims.sort_unstable();
        // Of two claims the smaller has two voices.
        let claimed =
            if let [.., second, _] = claims[..] { second } else { claims.first().copied().unwrap_or(0) };
        let burst_end = claimed.clamp(start, believable.max(start));
        self.joining.joined_at = now;
        if let Some(wait) = self.wait_for_next(now, start, named_by) {
            // Whoever is furthest behind: the next segment's first chunk must not be missed.
            let behind = claims.first().copied().unwrap_or(0);
            let edge = behind.clamp(start + 1, believable.max(start + 1));
            self.store.begin_at(edge);
            self.store.raise_edge(edge, now);
            self.phase = Phase::Joined { burst_end: edge };
            self.joining.coming = Some(now + wait + COMING_GRACE);
        } else {
            self.store.begin_at(start);
            self.store.raise_edge(note.next_number, now);
            self.phase = Phase::Joined { burst_end };
            self.joining.first = start;
            self.joining.unproven = Some(Unproven { since: now, number: start, named_by });
        }
        self.class = self.choose_class();
        self.class_at = now + self.config.policy.class_period;
        for substream in &mut self.substreams {
            substream.seek(now);
        }
        self.prove_start(now);
    }

    /// The newest segment start that is old enough to fill a buffer and not too old to fetch, else the newest; and who
    /// named it.
    fn choose_start(&mut self, now: Timestamp, epoch: u64, believable: u64) -> Option<(u64, PeerId)> {
        let policy = &self.config.policy;
        let is_scarce = policy.join_leaps && self.is_busy(policy.scarce_wait);
        let back = if is_scarce { policy.join_back_scarce } else { policy.join_back };
        let (back, back_max) = (back.as_millis() as u64, policy.join_back_max.as_millis() as u64);
        // Each start: how many name it, its age as the one who names it first puts it, and who that is.
        let mut starts: BTreeMap<u64, (usize, u64, PeerId)> = BTreeMap::new();
        let mut voters = 0;
        for neighbour in self.neighbours.values().filter(|n| n.met && n.epoch == epoch) {
            voters += usize::from(!neighbour.segment_starts.is_empty());
            let elapsed = now.since(neighbour.starts_at).as_millis() as u64;
            for start in &neighbour.segment_starts {
                if neighbour.have.contains(start.number) && start.number < believable {
                    let age = u64::from(start.age_ms) + elapsed;
                    let entry = starts.entry(start.number).or_insert((0, age, neighbour.peer));
                    *entry = (entry.0 + 1, entry.1.max(age), entry.2);
                }
            }
        }
        let others = self.neighbours.len() + self.dials_under_way(now);
        if voters == 1 && others > 1 {
            let since = *self.joining.first_named.get_or_insert(now);
            if now.since(since) < SECOND_VOICE {
                return None;
            }
        }
        starts.retain(|number, _| self.joining.refused.get(number) != Some(&true));
        let fruitless = |number: &u64| self.joining.refused.contains_key(number);
        if starts.keys().any(|number| !fruitless(number)) {
            starts.retain(|number, _| !fruitless(number));
        }
        if voters >= VOTERS_MIN && starts.values().any(|(votes, ..)| *votes > 1) {
            starts.retain(|_, (votes, ..)| *votes > 1);
        }
        let filled = starts.iter().rev().find(|(_, (_, age, _))| (back..=back_max).contains(age));
        filled.or(starts.last_key_value()).map(|(number, (.., peer))| (*number, *peer))
    }

    /// How long until the segment after the one that `named_by` says began with `start`, where it is better to wait for
    /// it than to fetch what has passed of this one: there is little to spare, and it is not long.
    fn wait_for_next(&self, now: Timestamp, start: u64, named_by: PeerId) -> Option<Duration> {
        let policy = &self.config.policy;
        let neighbour = self
            .neighbours
            .get(&named_by)
            .filter(|_| policy.join_next || policy.join_leaps && self.is_busy(policy.crowded_wait))
            .filter(|_| !self.joining.waited)?;
        let at = neighbour.segment_starts.iter().position(|known| known.number == start)?;
        let newest = neighbour.segment_starts.get(at)?;
        let before = neighbour.segment_starts.get(at.checked_sub(1)?)?;
        let lasts = Duration::from_millis(u64::from(before.age_ms.saturating_sub(newest.age_ms)));
        let age = Duration::from_millis(u64::from(newest.age_ms)) + now.since(neighbour.starts_at);
        let wait = lasts.saturating_sub(age);
        (age > policy.join_back_scarce && wait <= policy.join_wait_max).then_some(wait)
    }

    /// A chunk is in the store: it is told, or proves where this node started.
    pub(super) fn deliver(&mut self, now: Timestamp, chunk: VerifiedChunk) {
        let header = chunk.header();
        if self.phase == Phase::Waiting {
            return;
        }
        let begins_segment = header.index == 0 && header.flags.has(Flags::SEGMENT_START);
        if self.joining.coming.is_some() {
            if begins_segment {
                self.joining.coming = None;
                self.begin_with(header.number);
            }
            return;
        }
        if header.number < self.joining.first {
            return;
        }
        if begins_segment && self.is_better_start(now, header.number) {
            self.leap(header.number);
            return;
        }
        match self.joining.unproven {
            None => self.put(SwarmOutput::Event(Event::Chunk(self.config.swarm_id(), chunk))),
            Some(unproven) if unproven.number == chunk.header().number => self.prove_start(now),
            Some(_) => {}
        }
    }

    /// Whether to begin with the segment that begins now, at `number`, and comes by itself: what this node wanted to begin
    /// with has been asked for long enough, and nothing of it can be played yet. To go on asking would take from everybody
    /// what the swarm lacks.
    fn is_better_start(&self, now: Timestamp, number: u64) -> bool {
        let Phase::Joined { burst_end } = self.phase else { return false };
        if !self.config.policy.join_leaps {
            return false;
        }
        let first = self.joining.first;
        if number < burst_end || !self.is_joining(now) || now.since(self.joining.joined_at) < LEAP_AFTER {
            return false;
        }
        let Some(held) = self.store.get(first) else { return true };
        let part = first..first + u64::from(held.chunk.header().count);
        self.store.have().missing(part).next().is_some()
    }

    /// Whether what a player waits for is still on its way: what is newer would only delay it.
    pub(super) fn fetches_place(&self, now: Timestamp) -> bool {
        let Phase::Joined { burst_end } = self.phase else { return false };
        let first = self.joining.first;
        !self.config.policy.join_leaps
            && now.since(self.joining.joined_at) < PLACE_FIRST
            && first < burst_end
            && self.store.have().missing(first..burst_end).next().is_some()
    }

    /// The chunks of the part that this node began with, as far as it knows them.
    pub(super) fn first_part(&self) -> core::ops::Range<u64> {
        let first = self.joining.first;
        let count = self.store.get(first).map_or(1, |held| held.chunk.header().count);
        first..first + u64::from(count)
    }

    /// Gives up the start for the one at `number`.
    fn leap(&mut self, number: u64) {
        self.joining.unproven = None;
        let given_up = self.locks.range(..number).map(|(chunk, holder)| (*chunk, *holder));
        for (chunk, holder) in given_up.collect::<Vec<_>>() {
            self.locks.remove(&chunk);
            self.take_back(holder, chunk);
        }
        self.begin_with(number);
    }

    /// If the start's first chunk is there, it decides whether joining succeeded.
    fn prove_start(&mut self, now: Timestamp) {
        let Some(unproven) = self.joining.unproven else { return };
        let Some(held) = self.store.get(unproven.number) else { return };
        let header = held.chunk.header();
        if header.index != 0 || !header.flags.has(Flags::SEGMENT_START) {
            self.refuse_start(unproven.number, true);
            self.drop_peer(now, unproven.named_by, "it named a segment start that is none");
            return;
        }
        self.joining.unproven = None;
        self.begin_with(unproven.number);
    }

    /// Chunk `number` begins a segment: from here on everything is delivered.
    fn begin_with(&mut self, number: u64) {
        self.joining.first = number;
        let (swarm, epoch) = (self.config.swarm_id(), self.epoch());
        self.event(Event::Joined { swarm, epoch, number });
        let held: Vec<VerifiedChunk> =
            self.store.range(number..u64::MAX).map(|(_, held)| held.chunk.clone()).collect();
        for chunk in held {
            self.event(Event::Chunk(swarm, chunk));
        }
    }

    /// Back to looking for a start, but not this one.
    fn refuse_start(&mut self, number: u64, is_false: bool) {
        self.joining.unproven = None;
        if self.joining.refused.len() >= REFUSED_MAX {
            self.joining.refused.pop_first();
        }
        self.joining.refused.insert(number, is_false);
        self.look_again();
    }

    /// Another start is looked for.
    fn look_again(&mut self) {
        self.phase = Phase::Waiting;
        for neighbour in self.neighbours.values_mut() {
            // What lay below the old start was thrown away and may come again.
            neighbour.standing.taken = super::neighbour::Recent::default();
        }
    }

    /// How many chunks may have followed a live note: the broadcast's mean rate since it began, and some.
    fn plausible_ahead(&self, now: Timestamp, note: &LiveNote) -> u64 {
        let lasted_ms = (note.unix_us / 1000).saturating_sub(note.epoch).max(1);
        let age_ms = self.unix_us(now).saturating_sub(note.unix_us) / 1000 + 1_000;
        if lasted_ms < 3_000 {
            return CLAIM_AHEAD;
        }
        let chunks = u128::from(note.next_number) * u128::from(age_ms) * 3 / 2 / u128::from(lasted_ms);
        u64::try_from(chunks).unwrap_or(u64::MAX).clamp(16, CLAIM_AHEAD)
    }

    /// How far beyond the signed edge a neighbour's claim is believed enough to ask for it.
    pub(super) fn claim_ahead(&self) -> u64 {
        CLAIM_AHEAD
    }
}
