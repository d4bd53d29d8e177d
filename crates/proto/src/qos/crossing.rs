//! When to go over from the rendition that plays to the one that is tried beside it, and with which of its parts.
//!
//! Best is the start of a segment of the tried one that lies where what plays has come to: nothing needs to be decoded twice, and
//! what plays may wait there for a moment. Where segments do not lie alike, one is entered in its middle.

use core::time::Duration;

use crate::time::Timestamp;

/// What is tried must have brought parts for so long before it is gone over to …
const PROVEN_AFTER: Duration = Duration::from_millis(500);
/// … and is entered within a segment when none of its segments has begun where what plays had come to after so long.
const SEAM_PATIENCE: Duration = Duration::from_millis(700);
/// What plays waits so long at a seam for the other's part.
const GATE_MAX: Duration = Duration::from_millis(400);
/// One whose encoder is slower by no more than this is gone over to all the same: players keep more ahead, and need nothing while
/// it catches up, µs.
const SLOWER_MAX_US: i64 = 500_000;
/// What begins nearer than this to the point reached lies on it, µs: renditions count in ticks of their own.
const ON_POINT_US: i64 = 3_000;

/// A part of what is tried that waits, by the channel's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// When it begins, µs.
    pub start_us: i64,
    /// When it ends, µs.
    pub end_us: i64,
    /// It begins a segment.
    pub starts_segment: bool,
}

/// Looks at what is tried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crossing {
    /// Since when its parts have come without a hole.
    since: Option<Timestamp>,
}

impl Crossing {
    /// Nothing of it has come yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part came.
    pub fn came(&mut self, now: Timestamp) {
        self.since.get_or_insert(now);
    }

    /// A part did not come: what follows is a beginning.
    pub fn broke(&mut self) {
        self.since = None;
    }

    /// Whether its parts have come for long enough: from then on what plays waits at the starts of segments.
    pub fn is_proven(&self, now: Timestamp) -> bool {
        self.since.is_some_and(|since| now.since(since) >= PROVEN_AFTER)
    }

    /// Which of the parts that wait to go over with now; what plays has come to `reached_us`.
    pub fn enter(&self, now: Timestamp, reached_us: i64, waiting: &[Waiting]) -> Option<usize> {
        let since = self.since.filter(|_| self.is_proven(now))?;
        let starts = |part: &Waiting, at: bool| part.starts_segment && at;
        let is_on_point = |part: &Waiting| (part.start_us - reached_us).abs() <= ON_POINT_US;
        if let Some(at) = waiting.iter().position(|part| starts(part, is_on_point(part))) {
            return Some(at);
        }
        let is_late = now.since(since) >= PROVEN_AFTER + SEAM_PATIENCE;
        let goes_beyond = waiting.last().is_some_and(|part| part.end_us > reached_us - SLOWER_MAX_US);
        let within = || waiting.iter().rposition(|part| starts(part, part.start_us <= reached_us));
        if is_late && goes_beyond { within() } else { None }
    }

    /// Whether what plays still waits, which it has done since `since`.
    pub fn is_worth_waiting(now: Timestamp, since: Timestamp) -> bool {
        now.since(since) < GATE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1000;

    fn parts(from_ms: i64, count: i64) -> alloc::vec::Vec<Waiting> {
        let part = |n: i64| {
            let start_us = (from_ms + n * 200) * MS;
            Waiting { start_us, end_us: start_us + 200 * MS, starts_segment: start_us % (1000 * MS) == 0 }
        };
        (0..count).map(part).collect()
    }

    #[test]
    fn a_segment_is_entered_where_what_plays_has_come_to() {
        let (mut crossing, at) = (Crossing::new(), Timestamp::from_millis);
        crossing.came(at(100));
        let waiting = parts(1000, 8);
        assert_eq!(crossing.enter(at(500), 2000 * MS, &waiting), None, "not proven");
        assert_eq!(crossing.enter(at(600), 1800 * MS, &waiting), None, "no segment begins there");
        assert_eq!(crossing.enter(at(600), 2000 * MS + 2, &waiting), Some(5));
        crossing.broke();
        assert_eq!(crossing.enter(at(600), 2000 * MS, &waiting), None, "it has a hole");
    }

    #[test]
    fn where_segments_do_not_lie_alike_one_is_entered_within() {
        let (mut crossing, at) = (Crossing::new(), Timestamp::from_millis);
        crossing.came(at(0));
        let waiting = parts(1000, 8);
        assert_eq!(crossing.enter(at(1199), 2300 * MS, &waiting), None);
        assert_eq!(crossing.enter(at(1200), 2300 * MS, &waiting), Some(5));
        assert_eq!(crossing.enter(at(1200), 900 * MS, &waiting), None, "it has nothing of that");
        assert_eq!(crossing.enter(at(1200), 3100 * MS, &waiting), None, "nor has it come so far");
        assert_eq!(crossing.enter(at(1200), 2900 * MS, &waiting), Some(5), "its encoder is a little slower");
    }
}
