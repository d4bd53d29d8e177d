//! What became of one viewer among renditions, for the report.

use caudal_proto::id::RenditionId;

/// A picture is shown so long after it was signed, µs.
pub(crate) const PLAYOUT_US: i64 = 2_000_000;
/// Nothing is due for this long after the first part, µs.
const GRACE_US: u64 = 1_000_000;

/// It went over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) at: u64,
    pub(crate) to: RenditionId,
}

/// Its line was changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineSet {
    pub(crate) at: u64,
    pub(crate) down_bps: u64,
    /// What played then.
    pub(crate) playing: RenditionId,
}

/// One viewer's.
#[derive(Debug)]
pub(crate) struct Diary {
    part_us: i64,
    /// From which point of the channel's timeline on which rendition plays, µs.
    spans: Vec<(i64, RenditionId)>,
    pub(crate) changes: Vec<Change>,
    /// When it tried another beside what played, and gave that up.
    pub(crate) tries: Vec<u64>,
    pub(crate) gave_up: Vec<u64>,
    pub(crate) lines: Vec<LineSet>,
    first_at: Option<u64>,
    /// The picture stands.
    is_stalled: bool,
    /// When pictures began to stand, µs.
    pub(crate) stalls: Vec<u64>,
    /// Parts that were not there in time: when they were due, µs.
    pub(crate) late: Vec<u64>,
    /// Where everything given ends, µs.
    reached_us: i64,
}

impl Diary {
    pub(crate) fn new(playing: RenditionId, part_us: u64) -> Self {
        Self {
            part_us: part_us as i64,
            spans: vec![(i64::MIN, playing)],
            changes: Vec::new(),
            tries: Vec::new(),
            gave_up: Vec::new(),
            lines: Vec::new(),
            first_at: None,
            is_stalled: false,
            stalls: Vec::new(),
            late: Vec::new(),
            reached_us: i64::MAX,
        }
    }

    /// What plays from which point of the timeline on, in order.
    pub(crate) fn spans(&self) -> &[(i64, RenditionId)] {
        &self.spans
    }

    /// What played where the part ended that was signed `at`.
    pub(crate) fn plays(&self, at: i64) -> RenditionId {
        let after = self.spans.partition_point(|(from, _)| *from < at);
        self.spans[after.max(1) - 1].1
    }

    /// At `now` it went over; all that was given before ends at `reached_us`.
    pub(crate) fn changed(&mut self, now: u64, reached_us: Option<i64>, to: RenditionId) {
        self.changes.push(Change { at: now, to });
        let reached = reached_us.unwrap_or(i64::MIN);
        while self.spans.last().is_some_and(|(from, _)| *from >= reached) {
            self.spans.pop();
        }
        self.spans.push((reached, to));
    }

    pub(crate) fn line_set(&mut self, at: u64, down_bps: u64, playing: RenditionId) {
        self.lines.push(LineSet { at, down_bps, playing });
    }

    /// Players were given a part that ends there; before it everything ended at `reached_us`.
    pub(crate) fn given(&mut self, now: u64, reached_us: i64, end_us: i64) {
        let first_at = *self.first_at.get_or_insert(now);
        let mut end = reached_us + self.part_us;
        // Parts that were stepped over are late for ever.
        while end < end_us {
            self.due(first_at, end, true);
            end += self.part_us;
        }
        self.due(first_at, end_us, now as i64 > end_us + PLAYOUT_US);
        self.reached_us = end_us;
    }

    fn due(&mut self, first_at: u64, end_us: i64, is_late: bool) {
        let at = (end_us + PLAYOUT_US).max(0) as u64;
        if at < first_at + GRACE_US {
            return;
        }
        if is_late {
            self.late.push(at);
            if !self.is_stalled {
                self.stalls.push(at);
            }
        }
        self.is_stalled = is_late;
    }

    /// Whether the picture stands at `end`, and since when if that was not counted yet.
    pub(crate) fn stands_at(&self, end: u64) -> Option<u64> {
        let at = self.reached_us.saturating_add(self.part_us + PLAYOUT_US).max(0) as u64;
        (!self.is_stalled && at < end && self.first_at.is_some()).then_some(at)
    }
}
