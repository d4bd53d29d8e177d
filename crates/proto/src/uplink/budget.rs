//! How much this node can upload: configured, or measured from how long chunks take to be acknowledged.
//!
//! The first burst that queues tells the line's rate: acknowledgements come at it (BBR's delivery rate), from the first
//! of them on. From then on chunks are let go a little faster than that, and no longer once a short queue stands. Every half second is weighed by the chunk that
//! was delayed least, in the manner of LEDBAT (RFC 6817), since a queue in this line delays all of them and one at a
//! receiver only some. Delayed by much, what comes through is the rate, and the queue is let drain; by little, the rate
//! is at least what came through. The connections' own congestion control stays underneath.

use core::time::Duration;

use super::Least;
use crate::time::Timestamp;

/// Evidence is weighed this often.
const INTERVAL: Duration = Duration::from_millis(500);
/// Even the fastest chunk of an interval was delayed by this much: a queue stands in the line.
const STANDING_QUEUE: Duration = Duration::from_millis(100);
/// The fastest chunk of an interval was delayed by no more than this: none does.
const CLEAR: Duration = Duration::from_millis(30);
/// Fewer chunks than this prove nothing.
const SAMPLES_MIN: u32 = 4;
/// A chunk that took this much longer than two round trips waited behind others.
const QUEUED: Duration = Duration::from_millis(40);
/// The first capacity is believed when a chunk waited this long, as the last of so many in a row that waited.
const QUEUED_FIRST: Duration = Duration::from_millis(80);
const RUN_MIN: u32 = 4;
/// … and its acknowledgements came over at least so long.
const SPAN_MIN: Duration = Duration::from_millis(20);
/// Other chunks under way when a chunk was released that waited for this line, and not for somebody else's.
const UNDER_WAY_MIN: usize = 2;
/// A chunk that took longer than this was held up by something else: a loss, or silence.
const QUEUED_MAX: Duration = Duration::from_millis(3000);
/// Chunks are let go at these percentages of the capacity: the first as a rule, so that a line that is faster than
/// believed shows it; the next ones while it does, one interval each; the last for as long as it does.
const GAINS: [u64; 4] = [108, 125, 150, 150];
/// When it queued as it should, it is not tried for this long.
const FULL_FOR: Duration = Duration::from_secs(7);
/// A burst shows whether the line is faster than believed when it outran it by this much.
const AHEAD_MIN: Duration = Duration::from_millis(60);
/// A line carries what it can when this percentage of its capacity goes through it.
const PRESSED_PERCENT: u64 = 90;
/// A line may be full when this percentage of the pace went into it.
const LOADED_PERCENT: u64 = 75;
/// The pace looks at the fastest chunk of one to two of these …
const GLANCE_MS: u64 = 100;
/// … and where it was delayed by more than this, holds the queue, or lets it drain, at these percentages.
const QUEUE_WANTED: Duration = Duration::from_millis(15);
const HOLD: u64 = 100;
const EASE: u64 = 92;
/// A line whose queue stands is given this percentage.
const DRAIN: u64 = 80;
/// What a limit of 100 bytes on the line is good for in chunk bytes: the rest is headers, acknowledgements and control.
const LIMIT_USEFUL_PERCENT: u64 = 89;
/// Chunks that may be under way on all connections together while nothing is known of the line; one more for each that
/// did not queue, as in a slow start.
const WINDOW_FIRST: usize = 6;
/// The smallest capacity that is believed.
const CAPACITY_MIN_BPS: u64 = 100_000;
/// The most that got through is forgotten after one to two of these; until then no less than half of it is believed.
const MEMORY: Duration = Duration::from_secs(30);

/// What had got through when a chunk was let go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Bytes acknowledged so far …
    bytes: u64,
    /// … and when the last of them were, or when the line was idle last.
    at: Timestamp,
    /// Chunks under way then: with few, it is not this line that they wait for.
    under_way: usize,
    /// By how much the pace had outrun the line by then, if that is as fast as believed.
    ahead: Duration,
}

/// The upload budget.
#[derive(Debug)]
pub(super) struct Budget {
    limit_bps: Option<u64>,
    /// Known only once chunks have queued.
    capacity_bps: Option<u64>,
    proven_bps: u64,
    /// Bytes acknowledged since the beginning.
    acknowledged: u64,
    acknowledged_at: Timestamp,
    /// The most that got through in an interval of this and of the last stretch of [`MEMORY`], and when this one began.
    most_bps: (u64, u64),
    most_since: Timestamp,
    /// The first acknowledgement since the line was idle: when, and how many bytes there were with it. From there on
    /// acknowledgements come at the line's rate.
    first: Option<(Timestamp, u64)>,
    window: usize,
    /// How many chunks in a row queued.
    run: u32,
    interval_start: Option<Timestamp>,
    /// Acknowledged in this interval, let go in it, and how many acknowledgements there were.
    bytes: u64,
    released: u64,
    samples: u32,
    least_excess: Duration,
    /// The same of the last moments: what the pace follows at once.
    glance: Least<GLANCE_MS>,
    /// By how much chunks let go one after another have outrun the line, if that is as fast as believed.
    ahead: Duration,
    /// A burst that was let go faster than the line is believed to be queued as it should.
    full_at: Timestamp,
    /// One did not, in this interval.
    is_faster: bool,
    /// Where in [`GAINS`] the pace is; `None`: the line's queue drains.
    gain: Option<usize>,
}

impl Budget {
    pub(super) fn new(limit_bps: Option<u64>) -> Self {
        Self {
            limit_bps,
            capacity_bps: limit_bps.map(|bps| bps * LIMIT_USEFUL_PERCENT / 100),
            proven_bps: 0,
            acknowledged: 0,
            acknowledged_at: Timestamp::ZERO,
            most_bps: (0, 0),
            most_since: Timestamp::ZERO,
            first: None,
            window: WINDOW_FIRST,
            run: 0,
            interval_start: None,
            bytes: 0,
            released: 0,
            samples: 0,
            least_excess: Duration::MAX,
            glance: Least::new(Timestamp::ZERO),
            ahead: Duration::ZERO,
            full_at: Timestamp::ZERO,
            is_faster: false,
            gain: Some(1),
        }
    }

    /// The rate at which chunks are let go; `None`: as they come.
    pub(super) fn pace_bps(&self) -> Option<u64> {
        let limit = self.limit();
        let paced = self.capacity_bps.map(|bps| bps * self.percent() / 100);
        paced.map_or(limit, |paced| Some(limit.map_or(paced, |limit| paced.min(limit))))
    }

    fn limit(&self) -> Option<u64> {
        self.limit_bps.map(|bps| bps * LIMIT_USEFUL_PERCENT / 100)
    }

    /// Upload as far as it is known, in chunk bytes: the limit, or less when the line gives less.
    pub(super) fn upload_bps(&self) -> Option<u64> {
        match (self.limit(), self.capacity_bps) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Chunks that may be under way on all connections together.
    pub(super) fn window(&self) -> usize {
        if self.upload_bps().is_some() { usize::MAX } else { self.window }
    }

    /// The most that got through in an interval.
    pub(super) fn proven_bps(&self) -> u64 {
        self.proven_bps
    }

    /// A chunk is let go while so many others are under way; `follows`: right after the one before it, as the pace allows.
    pub(super) fn released(&mut self, now: Timestamp, bytes: u64, under_way: usize, follows: bool) -> Mark {
        self.interval_start.get_or_insert(now);
        self.released += bytes;
        if under_way == 0 {
            self.acknowledged_at = now;
            self.first = None;
        }
        let own = self.capacity_bps.map_or(Duration::ZERO, |bps| transmission(bytes, bps));
        let paced = if self.capacity_bps == self.upload_bps() { self.percent() } else { 100 };
        let before = if follows { self.ahead } else { Duration::ZERO };
        self.ahead = (before + own).saturating_sub(own * 100 / paced as u32);
        Mark { bytes: self.acknowledged, at: self.acknowledged_at, under_way, ahead: self.ahead }
    }

    /// The pace in percent of the capacity.
    fn percent(&self) -> u64 {
        let Some(gain) = self.gain else { return DRAIN };
        let queue = self.glance.get();
        if gain > 0 || queue == Duration::MAX {
            return GAINS[gain];
        }
        if queue > QUEUE_WANTED * 2 {
            EASE
        } else if queue > QUEUE_WANTED {
            HOLD
        } else {
            GAINS[0]
        }
    }

    /// A chunk was acknowledged that took so long since its release at `mark`; a round trip on an idle line takes `rtt`.
    pub(super) fn delivered(
        &mut self,
        now: Timestamp,
        bytes: u64,
        rtt: Duration,
        took: Duration,
        mark: Mark,
    ) {
        self.acknowledged += bytes;
        self.acknowledged_at = now;
        let first = *self.first.get_or_insert((now, self.acknowledged));
        self.bytes += bytes;
        self.samples += 1;
        let own = self.capacity_bps.map_or(Duration::ZERO, |bps| transmission(bytes, bps));
        let excess = took.saturating_sub(rtt + own);
        self.least_excess = self.least_excess.min(excess);
        self.glance.note(now, excess);
        if mark.ahead > AHEAD_MIN {
            if excess < mark.ahead / 2 {
                self.is_faster = true;
            } else if excess < mark.ahead * 2 {
                self.full_at = now;
                // That is known now: nothing is gained by the rest of the trial.
                self.gain = self.gain.map(|_| 0);
            }
        }
        if took <= rtt * 2 + QUEUED {
            self.window = self.window.saturating_add(1);
            self.run = 0;
        } else if took < QUEUED_MAX {
            self.run += 1;
            let is_full = self.run >= RUN_MIN && mark.under_way >= UNDER_WAY_MIN;
            // The first burst tells: nobody waits for the end of an interval.
            if self.capacity_bps.is_none() && is_full && took > rtt * 2 + QUEUED_FIRST {
                let (at, before) = if mark.bytes < first.1 { first } else { (mark.at, mark.bytes) };
                let span = now.since(at);
                // Acknowledgements that came together tell nothing of the line.
                if span >= SPAN_MIN {
                    let bps = (self.acknowledged - before) * 8_000_000 / span.as_micros() as u64;
                    self.capacity_bps = Some(bps.max(CAPACITY_MIN_BPS));
                }
            }
        }
        let start = *self.interval_start.get_or_insert(now);
        if now.since(start) >= INTERVAL {
            self.weigh(now, now.since(start));
            self.interval_start = Some(now);
            (self.bytes, self.released, self.samples) = (0, 0, 0);
            self.least_excess = Duration::MAX;
            self.is_faster = false;
        }
    }

    fn weigh(&mut self, now: Timestamp, span: Duration) {
        let rate = |bytes: u64| bytes * 8_000_000 / (span.as_micros() as u64).max(1);
        let got_bps = rate(self.bytes);
        self.proven_bps = self.proven_bps.max(got_bps);
        if now.since(self.most_since) > MEMORY {
            (self.most_bps, self.most_since) = ((0, self.most_bps.0), now);
        }
        self.most_bps.0 = self.most_bps.0.max(got_bps);
        let Some(capacity) = self.capacity_bps.filter(|_| self.samples >= SAMPLES_MIN) else { return };
        if self.least_excess > STANDING_QUEUE {
            let pace = capacity * self.percent().min(100) / 100;
            if rate(self.released) * 100 < pace * LOADED_PERCENT {
                // They may wait for somebody else's line: this one is not full.
                self.capacity_bps = Some((capacity - capacity / 32).max(got_bps.min(capacity)));
                self.gain = Some(0);
                return;
            }
            // What comes through is what the line carries, where more is given to it. Acknowledgements that queue elsewhere
            // make it look poorer than it is: not all is believed at once.
            let weight = if self.gain.is_none() { 2 } else { 4 };
            let least = CAPACITY_MIN_BPS.max(self.most_bps.0.max(self.most_bps.1) / 2);
            self.capacity_bps = Some(((capacity * (weight - 1) + got_bps) / weight).max(least));
            (self.gain, self.full_at) = (None, now);
            return;
        }
        let mut proven = got_bps.min(rate(self.released));
        let pressed = proven * 100 >= capacity * PRESSED_PERCENT;
        let is_faster = self.is_faster && now.since(self.full_at) > span;
        if is_faster {
            proven = proven.max(capacity + capacity / 16);
        }
        self.capacity_bps = Some(capacity.max(proven));
        let tried = now.since(self.full_at) > FULL_FOR;
        self.gain = match self.gain {
            Some(gain) if tried && pressed && self.least_excess < CLEAR => {
                Some((gain + 1).min(GAINS.len() - 1))
            }
            _ => Some(usize::from(tried)),
        };
    }
}

/// How long a line of `bps` takes for `bytes`.
pub(super) fn transmission(bytes: u64, bps: u64) -> Duration {
    Duration::from_micros(bytes * 8_000_000 / bps.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;

    /// Chunks of 8 KiB through a line of `line_bps`, offered at `offered_bps` or what the budget says, for 20 s.
    fn run(budget: &mut Budget, line_bps: u64, offered_bps: u64) -> Duration {
        let (bytes, rtt) = (8192u64, Duration::from_millis(20));
        let (mut now, mut line_free) = (Timestamp::ZERO, Timestamp::ZERO);
        let mut last = Duration::ZERO;
        let mut flying: VecDeque<(Timestamp, Timestamp, Mark)> = VecDeque::new();
        while now < Timestamp::from_millis(20_000) {
            while let Some(&(at, released, before)) = flying.front().filter(|flight| flight.0 <= now) {
                last = at.since(released);
                budget.delivered(at, bytes, rtt, last, before);
                flying.pop_front();
            }
            let before = budget.released(now, bytes, flying.len(), true);
            line_free = line_free.max(now) + Duration::from_micros(bytes * 8_000_000 / line_bps);
            flying.push_back((line_free + Duration::from_millis(20), now, before));
            let bps = budget.pace_bps().unwrap_or(u64::MAX).min(offered_bps);
            now += Duration::from_micros(bytes * 8_000_000 / bps);
        }
        last
    }

    #[test]
    fn a_slow_line_is_found_out_and_its_queue_drains() {
        let mut budget = Budget::new(None);
        let delay = run(&mut budget, 1_500_000, 6_000_000);
        let capacity = budget.upload_bps().expect("congested");
        assert!((1_200_000..1_700_000).contains(&capacity), "{capacity}");
        assert!(delay < Duration::from_millis(500), "{delay:?}");
    }

    #[test]
    fn a_fast_line_is_never_mistaken_for_a_slow_one() {
        let mut budget = Budget::new(None);
        run(&mut budget, 100_000_000, 6_000_000);
        assert_eq!(budget.upload_bps(), None);
        assert!(budget.proven_bps() > 5_000_000);
        assert_eq!(Budget::new(Some(700)).pace_bps(), Some(623));
    }
}
