//! How much a player keeps ahead of the picture: as much as arrival is uneven, so that 999 of 1,000 parts come in time.
//!
//! A part is late by what passes between the end of its media, as the source's clock said, and its arrival. The least of that over
//! the last minutes is distance and costs nobody anything (base delay, as RFC 6817 tracks it); what is above it is what a player must
//! bridge. Clocks need not agree: only differences count, except for what is aimed at and for a limit on the whole delay.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::time::Timestamp;

/// Of a thousand parts so many may be late …
const LATE_PER_THOUSAND: u64 = 1;
/// … and so many where fewer would put the picture further behind than is aimed at.
const LATE_BEYOND_PER_THOUSAND: u64 = 5;
/// What passes before the source and after the player: the encoder, the decoder and the screen (26 to 43 ms measured: docs/benchmarks.md,
/// *From camera to screen*).
const ENDS: Duration = Duration::from_millis(50);
/// What is usual is known without so many of a thousand.
const UNUSUAL_PER_THOUSAND: u64 = 100;
/// Lateness is counted in steps of this …
const STEP_US: u64 = 10_000;
/// … and so many of them: what is later than ten seconds is no question of a player's patience.
const STEPS: usize = 1000;
/// After so many parts all that was counted counts half: a line that was bad for a minute is forgiven after ten.
const HALVED_AFTER: u32 = 1500;
/// What one part counts, so that halves are exact for long.
const WEIGHT: u32 = 1 << 8;
/// Before so many parts have come nothing is concluded.
const PARTS_MIN: u32 = 25;
/// A newcomer gets what has passed in one burst: what comes in this time says nothing of the line.
const SETTLING: Duration = Duration::from_secs(3);
/// The base delay is the least of one to two of these.
const BASE_PERIOD: Duration = Duration::from_secs(60);
/// Beyond what was measured: what the browser and this computer take.
const MARGIN: Duration = Duration::from_millis(60);
/// A source's clock that steps by more than this begins a new count.
const STEPPED_US: i64 = 10_000_000;

/// Within which the playout delay adapts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// No less is kept ahead, however even arrival is: it outlasts the loss of a neighbour …
    pub least: Duration,
    /// … and no more.
    pub most: Duration,
    /// How far the picture should be behind the camera in all. Who would have to be further behind for the last few late parts
    /// goes without those.
    pub behind_aim: Option<Duration>,
    /// How far the picture may be behind the camera in all; what this leaves beside the way here is kept ahead, even less than `least`.
    pub behind_most: Option<Duration>,
}

impl Bounds {
    /// What suits most: soon, and no stall that half a second more would have prevented.
    pub const USUAL: Self = Self {
        least: Duration::from_millis(700),
        most: Duration::from_secs(4),
        behind_aim: Some(Duration::from_secs(2)),
        behind_most: None,
    };
    /// For whoever would rather wait than see it stand still.
    pub const SMOOTH: Self = Self {
        least: Duration::from_secs(2),
        most: Duration::from_secs(8),
        behind_aim: None,
        behind_most: None,
    };
    /// Least that is kept ahead where the whole delay is limited.
    pub const AHEAD_MIN: Duration = Duration::from_millis(200);

    /// At most `behind` in all.
    pub fn within(behind: Duration) -> Self {
        Self { behind_aim: None, behind_most: Some(behind), ..Self::USUAL }
    }
}

/// What arrival has been like.
#[derive(Debug, Clone)]
pub struct PlayoutDelay {
    bounds: Bounds,
    /// How often parts were so many steps later than the base.
    counts: Vec<u32>,
    parts: u32,
    halved_at: u32,
    /// The least lateness of this and of the last period, µs, and since when this one lasts.
    base: (i64, i64),
    base_since: Timestamp,
    settled_at: Option<Timestamp>,
    last_us: i64,
    /// How long the last part lasts.
    part: Duration,
}

impl PlayoutDelay {
    /// Nothing has come yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            counts: vec![0; STEPS],
            parts: 0,
            halved_at: 0,
            base: (i64::MAX, i64::MAX),
            base_since: Timestamp::ZERO,
            settled_at: None,
            last_us: 0,
            part: Duration::ZERO,
        }
    }

    /// A part is whole that lasts for `part` and whose media ended at `end_unix_us`; `now_unix_us` is this node's clock.
    pub fn arrived(&mut self, now: Timestamp, now_unix_us: u64, end_unix_us: u64, part: Duration) {
        let late_us = now_unix_us.cast_signed().saturating_sub_unsigned(end_unix_us);
        if self.base.0 != i64::MAX && late_us.saturating_sub(self.last_us).saturating_abs() > STEPPED_US {
            self.restart();
        }
        self.last_us = late_us;
        self.part = part;
        let settled_at = *self.settled_at.get_or_insert(now + SETTLING);
        if now < settled_at {
            return;
        }
        if now.since(self.base_since) > BASE_PERIOD {
            (self.base, self.base_since) = ((i64::MAX, self.base.0), now);
        }
        self.base.0 = self.base.0.min(late_us);
        let above_us = late_us.saturating_sub(self.base_us()).unsigned_abs();
        let step = usize::try_from(above_us / STEP_US).unwrap_or(STEPS).min(STEPS - 1);
        self.counts[step] = self.counts[step].saturating_add(WEIGHT);
        self.parts = self.parts.saturating_add(1);
        self.halved_at += 1;
        if self.halved_at >= HALVED_AFTER {
            self.halved_at = 0;
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// What comes from now on comes otherwise: another broadcast, or a newcomer's burst.
    pub fn restart(&mut self) {
        *self = Self::new(self.bounds);
    }

    fn base_us(&self) -> i64 {
        self.base.0.min(self.base.1)
    }

    /// By how much all but one in a thousand parts were later than the soonest; `None` before enough have come.
    pub fn jitter(&self) -> Option<Duration> {
        self.jitter_but(LATE_PER_THOUSAND)
    }

    /// By how much nine of ten parts at most were later than the soonest; `None` before enough have come.
    pub fn uneven(&self) -> Option<Duration> {
        self.jitter_but(UNUSUAL_PER_THOUSAND)
    }

    /// The same of all but so many.
    fn jitter_but(&self, per_thousand: u64) -> Option<Duration> {
        if self.parts < PARTS_MIN {
            return None;
        }
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let may_be_late = all * per_thousand / 1000;
        let mut later = 0;
        for (step, count) in self.counts.iter().enumerate().rev() {
            later += u64::from(*count);
            if later > may_be_late {
                return Some(Duration::from_micros((step as u64 + 1) * STEP_US));
            }
        }
        None
    }

    /// How much media a player should keep ahead of the picture, at its lowest between two parts.
    pub fn wanted(&self) -> Duration {
        let Bounds { least, most, behind_aim, .. } = self.bounds;
        let for_all_but = |per_thousand| {
            self.jitter_but(per_thousand).map_or(least, |jitter| (jitter + MARGIN).clamp(least, most))
        };
        let mut wanted = for_all_but(LATE_PER_THOUSAND);
        // With clocks that disagree, or over a way that leaves nothing of it, there is nothing to aim at.
        let aim = behind_aim.filter(|_| self.base_us() >= 0).map(|aim| self.ahead_within(aim));
        if let Some(aim) = aim.filter(|aim| *aim >= least && *aim < wanted) {
            wanted = for_all_but(LATE_BEYOND_PER_THOUSAND).max(aim);
        }
        wanted.min(self.most())
    }

    /// How late the part was that came soonest; nothing before one has, or where clocks make it come before it ended.
    pub fn way(&self) -> Duration {
        let way_us = if self.parts == 0 { 0 } else { u64::try_from(self.base_us()).unwrap_or(0) };
        Duration::from_micros(way_us)
    }

    /// No player should keep more ahead than this: with the way here and the part that is on it, it is the whole delay.
    pub fn most(&self) -> Duration {
        let Some(behind) = self.bounds.behind_most else { return self.bounds.most };
        self.ahead_within(behind).clamp(Bounds::AHEAD_MIN, self.bounds.most)
    }

    /// What can be kept ahead if the picture is to be so far behind.
    fn ahead_within(&self, behind: Duration) -> Duration {
        behind.saturating_sub(self.way().saturating_add(self.part).saturating_add(ENDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART_US: u64 = 200_000;
    /// The viewer's clock is an hour ahead, which must not matter.
    const AHEAD_US: u64 = 3_600_000_000;

    /// Parts for so many seconds that take `way` each; how many of the last half came later than was wanted when they were due.
    fn run(delay: &mut PlayoutDelay, seconds: u64, mut way: impl FnMut(u64) -> u64) -> (u64, u64) {
        let (mut late, mut all) = (0, 0);
        let parts = seconds * 1_000_000 / PART_US;
        for n in 0..parts {
            let end = 1_000_000_000_000 + n * PART_US;
            let way = way(n);
            let now = Timestamp::from_micros(n * PART_US + way);
            if n * 2 > parts {
                all += 1;
                let above = i64::try_from(way).unwrap_or(i64::MAX) - (delay.base_us() - AHEAD_US as i64);
                late += u64::from(above > delay.wanted().as_micros() as i64);
            }
            delay.arrived(now, end + AHEAD_US + way, end, Duration::from_micros(PART_US));
        }
        (late, all)
    }

    #[test]
    fn even_arrival_wants_the_least_and_distance_costs_nothing() {
        let mut delay = PlayoutDelay::new(Bounds::USUAL);
        assert_eq!((delay.wanted(), delay.jitter()), (Bounds::USUAL.least, None));
        run(&mut delay, 60, |_| 900_000);
        assert_eq!(delay.wanted(), Bounds::USUAL.least);
        assert!(delay.jitter().is_some_and(|jitter| jitter <= Duration::from_millis(10)));
    }

    #[test]
    fn all_but_one_in_a_thousand_come_in_time() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut delay = PlayoutDelay::new(Bounds { behind_aim: None, ..Bounds::USUAL });
        // Usually up to 300 ms, one in a hundred up to 1.6 s.
        let way = |_| if rng.u32(..100) == 0 { rng.u64(..1_600_000) } else { rng.u64(..300_000) };
        let (late, all) = run(&mut delay, 1800, way);
        assert!(late * 500 <= all, "{late} of {all} came too late");
        assert!((Duration::from_millis(1200)..Duration::from_millis(1700)).contains(&delay.wanted()));
    }

    #[test]
    fn a_bad_minute_is_forgiven_and_bounds_hold() {
        let mut delay = PlayoutDelay::new(Bounds::USUAL);
        run(&mut delay, 60, |n| if n % 20 == 0 { 9_000_000 } else { 0 });
        assert_eq!(delay.wanted(), Bounds::USUAL.most, "never more than is bearable");
        let mut smooth = PlayoutDelay::new(Bounds::SMOOTH);
        run(&mut smooth, 60, |_| 0);
        assert_eq!(smooth.wanted(), Bounds::SMOOTH.least);
        let mut once = PlayoutDelay::new(Bounds::USUAL);
        run(&mut once, 3600, |n| if (500..510).contains(&n) { 2_000_000 } else { 50_000 });
        assert_eq!(once.wanted(), Bounds::USUAL.least);
    }

    #[test]
    fn a_limit_on_the_whole_delay_leaves_what_the_way_does_not_take() {
        let mut delay = PlayoutDelay::new(Bounds::within(Duration::from_secs(2)));
        for n in 0..300 {
            let at = n * PART_US;
            delay.arrived(Timestamp::from_micros(at), at + 1_500_000, at, Duration::from_micros(PART_US));
        }
        assert_eq!((delay.wanted(), delay.most()), (Duration::from_millis(250), Duration::from_millis(250)));
        let mut far = PlayoutDelay::new(Bounds::within(Duration::from_secs(1)));
        for n in 0..300 {
            let at = n * PART_US;
            far.arrived(Timestamp::from_micros(at), at + 1_500_000, at, Duration::from_micros(PART_US));
        }
        assert_eq!(far.wanted(), Bounds::AHEAD_MIN);
    }

    #[test]
    fn for_the_last_late_parts_nobody_is_further_behind_than_is_aimed_at() {
        // Four in a thousand are late by 2.2 s, fifty by 0.9 s, the others not.
        let way = |n: u64| match n % 1000 {
            0 | 250 | 500 | 750 => 2_300_000,
            n if n % 20 == 1 => 1_000_000,
            _ => 100_000,
        };
        let mut usual = PlayoutDelay::new(Bounds::USUAL);
        run(&mut usual, 250, way);
        // 2 s less the part and the ends.
        let mut near = PlayoutDelay::new(Bounds::USUAL);
        for n in 0..1250 {
            let (at, way) = (n * PART_US, way(n));
            let now = Timestamp::from_micros(at + way);
            near.arrived(now, at + way, at, Duration::from_micros(PART_US));
        }
        assert_eq!(near.wanted(), Duration::from_millis(2000 - 100 - 200 - 50));
        assert!(usual.wanted() > Duration::from_millis(2200), "by clocks that disagree nothing is aimed at");
        let mut smooth = PlayoutDelay::new(Bounds::SMOOTH);
        run(&mut smooth, 250, way);
        assert!(smooth.wanted() > Duration::from_millis(2200));
    }

    #[test]
    fn a_newcomers_burst_and_a_clock_that_steps_say_nothing_of_the_line() {
        let mut delay = PlayoutDelay::new(Bounds::USUAL);
        for n in 0..20 {
            delay.arrived(Timestamp::from_millis(n), 10_000_000, n * PART_US, Duration::ZERO);
        }
        assert_eq!(delay.jitter(), None);
        let mut stepped = PlayoutDelay::new(Bounds::USUAL);
        run(&mut stepped, 60, |_| 0);
        stepped.arrived(Timestamp::from_millis(61_000), u64::MAX, 0, Duration::MAX);
        stepped.arrived(Timestamp::from_millis(61_200), 0, u64::MAX, Duration::MAX);
        assert_eq!((stepped.jitter(), stepped.wanted()), (None, Bounds::USUAL.least));
    }
}
