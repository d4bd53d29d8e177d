//! Where in a broadcast a feed begins, how far it has come, and what is to be thought of the edge that it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caudal_proto::broadcast::LiveNote;
use tokio::time::Instant;

use super::Entry;
use crate::edge::shelf::{EdgeView, STARTS_MAX, Start};

/// The newest segment start is taken if so many parts follow it, or else the one before: there is something to begin with.
const FOLLOWED_BY: u64 = 2;
/// A part that does not come is asked for so often.
pub(super) const TRIES_MAX: u32 = 3;
/// An edge that fails so often beyond what it does right is left for a moment, or for another.
const FAILED_MAX: u32 = 12;
/// Where there is another edge, so does one that did not give so many parts, beyond one for each …
const WITHHELD_MAX: u32 = 4;
/// … so many genuine ones. Playing goes on where a segment begins, so that one part in each is all of it.
const GENUINE_FOR_WITHHELD: u32 = 12;
/// An edge that gives no genuine part for so long, while its notes say that there are new ones, is left for another.
const BARREN_MAX: Duration = Duration::from_secs(5);
/// An edge that was asked where it is, and has not said it for so long, may be far behind the broadcast.
const NO_WORD_MAX: Duration = Duration::from_secs(3);
/// What one edge did not give is asked of another for so long: then playing steps over it.
const GIVEN_UP_FOR: Duration = Duration::from_secs(6);
/// An edge's newest part may be so many parts newer than its live note: a note is renewed every few seconds.
const AHEAD_OF_NOTE_MAX: u64 = 64;

/// How far a broadcast was fetched.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) epoch: u64,
    /// The next part to ask for.
    pub(super) next: u64,
    /// Those before it that were asked for and have not come.
    pub(super) lacking: BTreeSet<u64>,
    /// Those that an edge did not give, and since when.
    given_up: BTreeMap<u64, Instant>,
    /// Those of them that another edge was asked for: that is done once.
    asked_again: BTreeSet<u64>,
}

impl Place {
    pub(super) fn new(epoch: u64, next: u64) -> Self {
        Self { epoch, next, ..Self::default() }
    }

    pub(super) fn give_up(&mut self, part: u64, now: Instant) {
        self.lacking.remove(&part);
        self.given_up.retain(|_, since| now.duration_since(*since) < GIVEN_UP_FOR);
        self.given_up.insert(part, now);
    }

    /// Another edge may have what the one before did not give.
    pub(super) fn ask_another(&mut self, view: &EdgeView, now: Instant) {
        let next = self.next;
        self.asked_again.retain(|part| part.saturating_add(AHEAD_OF_NOTE_MAX) >= next);
        for (part, since) in std::mem::take(&mut self.given_up) {
            let is_new = now.duration_since(since) < GIVEN_UP_FOR && part >= view.first;
            if is_new && self.asked_again.insert(part) {
                self.lacking.insert(part);
            }
        }
    }

    pub(super) fn oldest(&self) -> u64 {
        self.lacking.first().copied().unwrap_or(self.next)
    }

    /// Where what comes next has left the edge's window, on from what there is.
    pub(super) fn leap(&mut self, view: &EdgeView) {
        if self.next < view.first
            && let Some(start) = choose_start(view, Entry::Newest)
        {
            self.next = start.part;
        }
    }
}

/// What following an edge comes to. What it answers says nothing; genuine parts do.
#[derive(Debug)]
pub(super) struct Standing {
    /// Failures that no genuine part has made up for.
    failed: u32,
    /// Parts that it did not give and no genuine ones have made up for, in parts of [`GENUINE_FOR_WITHHELD`].
    withheld: u32,
    /// When the last genuine part came, or else when it was first asked.
    genuine_at: Instant,
    /// What the live note said by then: the next chunk's number.
    signed: u64,
}

impl Standing {
    pub(super) fn new(signed: u64, now: Instant) -> Self {
        Self { failed: 0, withheld: 0, genuine_at: now, signed }
    }

    /// A part proved right.
    pub(super) fn genuine(&mut self, signed: u64, now: Instant) {
        let (failed, withheld) = (self.failed.saturating_sub(1), self.withheld.saturating_sub(1));
        *self = Self { failed, withheld, genuine_at: now, signed };
    }

    /// It failed so often. True: it is to be left.
    pub(super) fn fail(&mut self, times: u32) -> bool {
        self.failed = self.failed.saturating_add(times);
        self.failed >= FAILED_MAX
    }

    /// It did not give a part, however often it was asked.
    pub(super) fn withhold(&mut self) {
        self.withheld = self.withheld.saturating_add(GENUINE_FOR_WITHHELD);
    }

    /// It withholds parts again and again.
    pub(super) fn withholds(&self) -> bool {
        self.withheld >= WITHHELD_MAX * GENUINE_FOR_WITHHELD
    }

    /// The broadcast goes on, or nobody can tell since the edge was last asked, and nothing of it comes.
    pub(super) fn is_barren(&self, signed: u64, asked: Option<Instant>, now: Instant) -> bool {
        let goes_on =
            signed > self.signed || asked.is_some_and(|asked| now.duration_since(asked) >= NO_WORD_MAX);
        goes_on && now.duration_since(self.genuine_at) >= BARREN_MAX
    }
}

/// What an edge says of its parts, as far as it can be: every part has a chunk, and the note says how many of those there are.
pub(super) fn bound(view: &mut EdgeView, note: &LiveNote) {
    view.newest = view.newest.min(note.next_number.saturating_add(AHEAD_OF_NOTE_MAX));
    view.first = view.first.min(view.newest);
    view.starts.retain(|start| (view.first..=view.newest).contains(&start.part));
    view.starts.truncate(STARTS_MAX);
}

/// Where to begin: the newest start with something after it, or else the newest; or the newest that was captured no later than is said,
/// or else the oldest.
pub(super) fn choose_start(view: &EdgeView, entry: Entry) -> Option<Start> {
    if let Entry::Before(unix_us) = entry
        && view.starts.iter().all(|start| start.captured_unix_us > 0)
    {
        let is_before = |start: &&Start| start.captured_unix_us <= unix_us;
        return view.starts.iter().rev().find(is_before).or(view.starts.first()).copied();
    }
    let is_followed = |start: &&Start| start.part.saturating_add(FOLLOWED_BY) <= view.newest;
    let followed = view.starts.iter().rev().find(is_followed);
    followed.or(view.starts.last()).copied()
}

/// The part that the next segment will begin with, by how long the last one was; what is asked for from there on need not be thrown
/// away. Where that cannot be told: the next part.
pub(super) fn next_start(view: &EdgeView) -> u64 {
    let next = view.newest.saturating_add(1);
    let [.., before, last] = view.starts[..] else { return next };
    let len = last.part.saturating_sub(before.part).max(1);
    let segments = (next.saturating_sub(last.part)).div_ceil(len);
    last.part.saturating_add(segments.saturating_mul(len)).min(next.saturating_add(len))
}

#[cfg(test)]
mod tests {
    use caudal_proto::id::SecretKey;
    use caudal_tracker::message::LiveBroadcast;

    use super::*;

    fn view(first: u64, newest: u64, starts: &[u64]) -> EdgeView {
        let broadcast = LiveBroadcast { certificate: Vec::new(), live_note: Vec::new() };
        let starts = starts
            .iter()
            .map(|part| Start {
                part: *part,
                number: part.saturating_mul(3),
                captured_unix_us: part.saturating_mul(200).max(1),
            })
            .collect();
        EdgeView { channel: String::new(), epoch: 7, broadcast, first, newest, starts }
    }

    fn note(next_number: u64) -> LiveNote {
        let key = SecretKey::from_bytes(&[2; 32]);
        LiveNote::sign(&key, key.channel(), 7, next_number, 1, false)
    }

    #[test]
    fn it_begins_where_something_follows() {
        let start = |newest, starts: &[u64]| {
            choose_start(&view(0, newest, starts), Entry::Newest).map(|start| start.part)
        };
        assert_eq!(start(12, &[0, 5, 10]), Some(10));
        assert_eq!(start(11, &[0, 5, 10]), Some(5));
        assert_eq!(start(0, &[0]), Some(0), "or at what there is");
        assert_eq!(start(9, &[]), None);
    }

    #[test]
    fn who_goes_over_begins_before_the_point_reached() {
        let mut there = view(0, 17, &[0, 5, 10, 15]);
        let start =
            |view: &EdgeView, unix_us| choose_start(view, Entry::Before(unix_us)).map(|start| start.part);
        for (unix_us, part) in [(3_500, 15), (3_000, 15), (2_999, 10), (1_100, 5), (900, 0)] {
            assert_eq!(start(&there, unix_us), Some(part), "{unix_us}");
        }
        there.starts.remove(0);
        assert_eq!(start(&there, 900), Some(5), "or with what there is");
        there.starts[2].captured_unix_us = 0;
        assert_eq!(start(&there, 900), Some(15), "an edge that does not say when: as usual");
    }

    #[test]
    fn who_waits_for_the_next_segment_asks_for_nothing_before() {
        for (newest, starts, next) in [
            (12, &[0, 5, 10][..], 15),
            (14, &[0, 5, 10], 15),
            (10, &[0, 5, 10], 15),
            (17, &[0, 5, 10], 20),
            (7, &[5], 8),
            (7, &[], 8),
        ] {
            assert_eq!(next_start(&view(0, newest, starts)), next, "{newest} {starts:?}");
        }
        let boast = view(0, u64::MAX, &[0, u64::MAX]);
        assert_eq!(next_start(&boast), u64::MAX);
    }

    #[test]
    fn an_edge_that_withholds_or_forges_is_left_and_one_that_stumbles_is_not() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut withholds = Standing::new(100, begun);
        assert!(!withholds.is_barren(130, None, at(4_900)));
        assert!(withholds.is_barren(130, None, at(5_000)));
        assert!(!withholds.is_barren(100, None, at(60_000)), "the broadcast stands still, not the edge");
        assert!(!withholds.is_barren(100, Some(at(58_000)), at(60_000)), "it was only just asked");
        assert!(withholds.is_barren(100, Some(at(57_000)), at(60_000)), "it says nothing");
        withholds.genuine(130, at(5_000));
        assert!(!withholds.is_barren(160, None, at(9_900)));

        let parts_until_left = |is_given_up: fn(u32) -> bool| {
            let mut edge = Standing::new(100, begun);
            (1..=1_000).find(|part| match is_given_up(*part) {
                true => edge.fail(TRIES_MAX),
                false => {
                    edge.genuine(100, begun);
                    false
                }
            })
        };
        assert_eq!(parts_until_left(|_| true), Some(4));
        assert_eq!(parts_until_left(|part| part % 2 == 0), Some(12), "a part now and then does not help it");
        assert_eq!(parts_until_left(|part| part % 5 == 0), None);
        let parts_until_withholding = |period: u32| {
            let mut edge = Standing::new(100, begun);
            (1..=1_000).find(|part| {
                if part % period == 0 {
                    edge.withhold();
                } else {
                    edge.genuine(100, begun);
                }
                edge.withholds()
            })
        };
        assert_eq!(parts_until_withholding(5), Some(30), "each segment's first: six segments of a second");
        assert_eq!(parts_until_withholding(20), None, "one now and then");
        let mut busy = Standing::new(100, begun);
        for _ in 0..1_000 {
            assert!(!busy.fail(1), "what fails once and then comes is no reason");
            busy.genuine(100, begun);
        }
        assert!((0..FAILED_MAX).any(|_| busy.fail(1)));
    }

    #[test]
    fn what_one_edge_does_not_give_is_asked_of_one_other() {
        let begun = Instant::now();
        let mut place = Place::new(7, 20);
        place.lacking.insert(12);
        for part in [3, 11, 12] {
            place.give_up(part, begun);
        }
        assert_eq!(place.oldest(), 20);
        place.ask_another(&view(10, 30, &[10]), begun);
        assert_eq!(place.lacking, BTreeSet::from([11, 12]), "what it may have");
        place.give_up(11, begun);
        place.ask_another(&view(10, 30, &[10]), begun);
        assert_eq!(place.lacking, BTreeSet::from([12]), "not from one to the other for ever");
        place.give_up(15, begun);
        place.ask_another(&view(10, 30, &[10]), begun + GIVEN_UP_FOR);
        assert_eq!(place.lacking, BTreeSet::from([12]), "playing has stepped over it");
    }

    #[test]
    fn an_edge_that_boasts_leads_nobody_beyond_what_was_signed() {
        let mut boast = view(u64::MAX, u64::MAX, &[3, 90, u64::MAX]);
        bound(&mut boast, &note(100));
        assert_eq!((boast.first, boast.newest), (164, 164));
        assert_eq!(choose_start(&boast, Entry::Newest), None);
        let mut honest = view(2, 33, &[5, 30]);
        bound(&mut honest, &note(100));
        assert_eq!(honest, view(2, 33, &[5, 30]));
        let mut place = Place::new(7, 1);
        place.leap(&honest);
        assert_eq!(place.next, 30, "what has left the window is stepped over");
        place.leap(&honest);
        assert_eq!(place.next, 30);
    }
}
