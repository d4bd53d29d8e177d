//! When a connection holds its rate against flows that fill queues, and how.
//!
//! What it holds is what it used to carry while its window held nothing back: towards whoever watches that is the
//! stream's share, and a connection that always takes all it can get, as one that only relays does, has no such rate and
//! yields. It competes when it carries less than that while the queue never comes near empty for some round trips, which
//! it would if everybody in it went by delay (Copa, NSDI 2018, section 2.2). Then it first takes the window that its rate
//! needs at the round trips there are. If the queue is its own, because the line has become slower, it only waits longer
//! in it and carries no more: it goes back. If it carries more, somebody else was in its place: the window goes by losses
//! (RFC 5681) from there on, until the queue has gone, or competing does not help.

use core::time::Duration;

use super::TARGET;
use crate::time::Timestamp;

/// Rates and queues are judged this often, at least a round trip apart.
const INTERVAL: Duration = Duration::from_millis(500);
/// Who goes by delay does not let a queue stand that is longer than this.
const STANDING: Duration = Duration::from_millis(TARGET.as_millis() as u64 * 11 / 10);
/// A queue that gets shorter than this is nobody's who fills it.
const GONE: Duration = Duration::from_millis(TARGET.as_millis() as u64 / 2);
/// A connection carries what is asked of it when the application held back this share of what was acknowledged: 1 in so many.
const IDLE_SHARE: u64 = 8;
/// It starves when it carries less than this percentage of what it used to.
const STARVING_PERCENT: u64 = 90;
/// Intervals in which it must come to carry more.
const PROOF_MAX: u32 = 3;
/// Until then round trips count up to this percentage of what they were: its own queue must not feed itself.
const PROOF_RTT_PERCENT: u32 = 150;
/// Intervals without a standing queue before it goes by delay again.
const GONE_MIN: u32 = 4;
/// Intervals that competing does not better before it counts as vain.
const VAIN_MIN: u32 = 10;
/// Competing betters a rate when it brings it to this percentage of what it was.
const BETTER_PERCENT: u64 = 125;
/// It tries again after this long when the queue was its own …
const TRY_PERIOD: Duration = Duration::from_secs(4);
/// … and after this long when competing was in vain: everybody else may be one of its like.
const VAIN_PERIOD: Duration = Duration::from_secs(30);
/// The window grows fast up to this percentage of what the rate needs: what was held up meanwhile must catch up …
const CATCH_UP_PERCENT: u64 = 125;
/// … and no further than to this.
const WINDOW_PERCENT: u64 = 200;

/// What an acknowledgement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// Compete from now on.
    Compete,
    /// The competition is over.
    Alone,
}

/// What a connection used to carry, and whether it must fight for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Compete {
    is_on: bool,
    /// Bytes per second while the application held back; 0: not known.
    wanted: u64,
    /// This interval: its beginning, its bytes, those while the application held back, and the shortest queue.
    since: Option<Timestamp>,
    bytes: u64,
    idle: u64,
    least: Duration,
    /// Intervals left in which it must come to carry more.
    proof: u32,
    /// The window was reduced in this interval.
    is_reduced: bool,
    /// Intervals in a row that saw no queue, or were in vain.
    gone: u32,
    vain: u32,
    /// It does not try before.
    tries_from: Timestamp,
    /// Bytes per second, and the round trip, when it began.
    before: u64,
    rtt: Duration,
    /// The longest queue while it competes: a full one.
    longest: Duration,
}

impl Compete {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Notes an acknowledgement of a packet that waited for `queue`.
    pub(super) fn acked(
        &mut self,
        now: Timestamp,
        rtt: Duration,
        queue: Duration,
        bytes: u64,
        idle: bool,
    ) -> Verdict {
        let since = *self.since.get_or_insert(now);
        self.least = if self.bytes == 0 { queue } else { self.least.min(queue) };
        self.longest = self.longest.max(queue);
        self.bytes += bytes;
        self.idle += if idle { bytes } else { 0 };
        let span = now.since(since);
        if span < INTERVAL.max(rtt) {
            return Verdict::Nothing;
        }
        let rate = self.bytes * 1_000_000 / span.as_micros() as u64;
        let is_held_back = self.idle * IDLE_SHARE < self.bytes;
        self.begin_interval(now);
        if !is_held_back {
            // Smoothed: the stream comes in bursts.
            self.wanted = if self.wanted == 0 { rate } else { (self.wanted * 3 + rate) / 4 };
        }
        if self.is_on {
            return self.go_on(now, rate, is_held_back);
        }
        if !is_held_back || !self.is_starving(rate) || self.least <= STANDING || now < self.tries_from {
            return Verdict::Nothing;
        }
        (self.is_on, self.before, self.rtt, self.longest) = (true, rate, rtt, self.least);
        (self.proof, self.is_reduced, self.gone, self.vain) = (PROOF_MAX, false, 0, 0);
        Verdict::Compete
    }

    /// What came before says nothing of what follows.
    pub(super) fn begin_interval(&mut self, now: Timestamp) {
        // One acknowledgement that came late is no measure for ever.
        self.longest = self.longest * 7 / 8;
        (self.since, self.bytes, self.idle) = (Some(now), 0, 0);
    }

    /// An interval of competing is over.
    fn go_on(&mut self, now: Timestamp, rate: u64, is_held_back: bool) -> Verdict {
        if self.proof > 0 {
            let is_proven = !is_held_back || rate * 4 >= self.before * 3 + self.wanted;
            // Losses say nothing of whose queue it is.
            let counts = u32::from(!core::mem::take(&mut self.is_reduced));
            self.proof = if is_proven { 0 } else { self.proof - counts };
            if self.proof == 0 && !is_proven {
                return self.give_up(now + TRY_PERIOD);
            }
        }
        self.gone = if self.least < GONE { self.gone + 1 } else { 0 };
        let is_bettered = !self.is_starving(rate) || rate * 100 > self.before * BETTER_PERCENT;
        self.vain = if is_held_back && !is_bettered { self.vain + 1 } else { 0 };
        if self.vain >= VAIN_MIN {
            return self.give_up(now + VAIN_PERIOD);
        }
        if self.gone < GONE_MIN {
            return Verdict::Nothing;
        }
        self.is_on = false;
        Verdict::Alone
    }

    /// The line carries less than it did. Half of it is believed: somebody else may have come at the same time.
    fn give_up(&mut self, tries_from: Timestamp) -> Verdict {
        (self.is_on, self.tries_from) = (false, tries_from);
        self.wanted = (self.wanted + self.before) / 2;
        Verdict::Alone
    }

    fn is_starving(&self, rate: u64) -> bool {
        rate * 100 < self.wanted * STARVING_PERCENT
    }

    /// What the rate needs when a round trip takes `rtt`.
    pub(super) fn fair_window(&self, rtt: Duration) -> u64 {
        (u128::from(self.wanted) * rtt.as_micros() / 1_000_000) as u64
    }

    /// What the rate needs now.
    pub(super) fn needed(&self, rtt: Duration) -> u64 {
        let most = if self.proof > 0 { self.rtt * PROOF_RTT_PERCENT / 100 } else { Duration::MAX };
        self.fair_window(rtt.min(most))
    }

    /// The window after `bytes` more were acknowledged: half as much again with each round trip up to what the rate
    /// needs to catch up, a packet more from there on, and nothing while the application holds back.
    pub(super) fn grown(&self, window: u64, packet: u64, bytes: u64, rtt: Duration, idle: bool) -> u64 {
        let needed = self.needed(rtt);
        let (fair, most) = if self.proof > 0 {
            (needed, needed)
        } else {
            (needed * CATCH_UP_PERCENT / 100, needed * WINDOW_PERCENT / 100)
        };
        if idle || window >= most {
            return window;
        }
        let more = if window < fair { bytes / 2 } else { packet * bytes / window.max(1) };
        (window + more).min(most)
    }

    /// The window was reduced.
    pub(super) fn reduced(&mut self) {
        self.is_reduced = true;
    }

    /// A loss at a queue this long comes from its being full.
    pub(super) fn is_full(&self, queue: Duration) -> bool {
        queue * 4 >= self.longest * 3
    }
}
