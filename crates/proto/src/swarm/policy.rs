//! Delivery policy: every constant and every choice between peers, in one place, so that it can be swapped and tuned.
//!
//! Owns no state and does no bookkeeping: the swarm asks, this module answers. Substream trees with an interior
//! restriction, after the measurements in `docs/overlay.md`.

use core::time::Duration;

use super::locality::Side;
use crate::id::PeerId;

/// How chunks find their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlay {
    /// Pushed along substream trees, holes pulled from the mesh.
    #[default]
    Hybrid,
    /// Pushed only: what a tree alone can do.
    Tree,
    /// Pulled only: what a mesh alone can do.
    Mesh,
}

/// The constants. Durations say what they bound; ratios are in percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How chunks find their way.
    pub overlay: Overlay,
    /// Neighbours that a viewer dials for.
    pub neighbours_wanted: usize,
    /// What a map of the network says is heeded, where there is one.
    pub locality: bool,
    /// A parent outside the own PID counts this much worse for a leaf, half as much where that costs little …
    pub away: Duration,
    /// … this much for a relay, since many profit of its way …
    pub away_relay: Duration,
    /// … and a holder of a hole this much, while there is time.
    pub away_pull: Duration,
    /// Links out of the own PID that are kept, so that nothing falls apart.
    pub links_out: usize,
    /// So many of them are dialled at once. The others follow one by one, `dial_period` apart: a new connection costs both
    /// uplinks two or three chunks, and every newcomer makes as many as it dials.
    pub neighbours_first: usize,
    /// See `neighbours_first`.
    pub dial_period: Duration,
    /// Neighbours that it accepts.
    pub neighbours_max: usize,
    /// Neighbours that a source accepts.
    pub source_neighbours_max: usize,
    /// Share of upload given to children; the rest pays for repair and joiners.
    pub slot_fill_percent: u32,
    /// The same for somebody who finds no other parent: pulled, the chunks would cost more.
    pub slot_fill_urgent_percent: u32,
    /// Each peer is interior in one of this many substreams, evenly spaced.
    pub interior_every: u8,
    /// Time between considering another class, up to twice as long.
    pub class_period: Duration,
    /// Leaves are served this much after interior children, when both wait. At `push_expiry` and beyond: only when nothing waits
    /// for those who relay; what expires meanwhile they ask for.
    pub leaf_delay: Duration,
    /// A node whose pushed chunks wait this long takes no children, from half of it on, and sheds one a second.
    pub shed_wait: Duration,
    /// A chunk that has travelled long goes before others by this share of its lag.
    pub age_percent: u32,
    /// A chunk's second child is served this much after its first, and so on, when other chunks wait.
    pub sibling_delay: Duration,
    /// State and have map go out this often at least …
    pub state_period_min: Duration,
    /// … and this often at most; between them as the control budget allows.
    pub state_period_max: Duration,
    /// Share of the stream rate that state may cost; less of it while the neighbours receive every substream.
    pub control_percent: u32,
    /// A better parent must be better by this much …
    pub switch_gain_percent: u32,
    /// … and by this much.
    pub switch_gain: Duration,
    /// Time between considering better parents; grows with every change.
    pub switch_hold: Duration,
    /// A parent's late chunk is asked about after this long beyond its usual lateness.
    pub probe_after: Duration,
    /// A probe unanswered for this long, beyond four round trips, means silence.
    pub probe_timeout: Duration,
    /// A parent that answers but brings nothing is replaced after this long.
    pub starve_after: Duration,
    /// An application unanswered for this long, beyond two round trips, has failed.
    pub attach_timeout: Duration,
    /// A child that is nearer by this much counts as much as one that can upload the stream once more.
    pub near_worth: Duration,
    /// Without a parent for this long, any is asked, interior there or not.
    pub urgent_after: Duration,
    /// A hole is pulled when it is this old and the parent lacks the chunk …
    pub pull_after: Duration,
    /// … and this much later when the parent says it has it.
    pub pull_after_has: Duration,
    /// With a parent that has not pushed anything yet a hole is pulled when it is this old.
    pub pull_unproven_after: Duration,
    /// Without a parent a hole is pulled when it is this old.
    pub pull_orphan_after: Duration,
    /// The receiver's lock on a requested chunk, beyond two round trips and the sender's wait.
    pub lock: Duration,
    /// Chunks requested from one neighbour at a time.
    pub pipeline: usize,
    /// Chunks requested from one neighbour at a time while joining.
    pub pipeline_joining: usize,
    /// Chunks requested from all neighbours at a time while joining: what is needed first must not wait behind the rest.
    pub requests_joining: usize,
    /// Requests are served while the uplink's queue is shorter than this …
    pub serve_wait: Duration,
    /// … and those of joiners while it is shorter than this.
    pub serve_wait_joining: Duration,
    /// Neither is while the queue has been longer than this for a while: repair that makes a queue stand makes more to repair.
    /// Overdue chunks are, within their share.
    pub serve_standing: Duration,
    /// A hole this old is asked for, and served, before anything newer: soon nobody waits for it any more …
    pub overdue_after: Duration,
    /// … while the uplink's queue is shorter than this …
    pub serve_wait_overdue: Duration,
    /// … with this share of the upload at most: where there is no more to spare, old holes make new ones.
    pub overdue_percent: u32,
    /// Holes this old may have some of that share in advance, where they would be refused otherwise.
    pub last_call_after: Duration,
    /// Requested chunks take their turn this much after pushed ones: who relays goes first …
    pub serve_after: Duration,
    /// … and those of joiners this much: after what is pushed to relays, before what leaves are given.
    pub serve_after_joining: Duration,
    /// A pushed chunk that waited this long is dropped.
    pub push_expiry: Duration,
    /// A requested chunk that waited this long is dropped.
    pub pull_expiry: Duration,
    /// A joiner starts at the newest segment that began at least this long ago, if that costs no more than `join_back_max`.
    pub join_back: Duration,
    /// … or this long, when chunks wait longer than `scarce_wait` on the uplinks of most neighbours.
    pub join_back_scarce: Duration,
    /// See `join_back_scarce`.
    pub scarce_wait: Duration,
    /// Chunks that wait longer than this on the uplinks of most neighbours should be short ones.
    pub queueing_wait: Duration,
    /// A joiner gives way to others for this long.
    pub joining_max: Duration,
    /// Where they wait longer than this, a joiner waits for the next segment …
    pub crowded_wait: Duration,
    /// … if it comes this soon, and fetches nothing that has passed.
    pub join_wait_max: Duration,
    /// See `join_back`.
    pub join_back_max: Duration,
    /// A joiner begins with the segment that comes next, if that is not long: it has another rendition to show until then.
    pub join_next: bool,
    /// A start that has not come soon may be given up for a newer one; not where a player has come to that very place.
    pub join_leaps: bool,
    /// A replayed chunk or a false claim counts this many against a peer at most before it is dropped.
    pub strikes_max: u32,
    /// A source that sends a set number of copies may answer requests with this share of the rate beyond them …
    pub source_repair_percent: u32,
    /// … and with what it saved, up to so much of the stream.
    pub source_savings: Duration,
    /// One strike is forgiven this often.
    pub strike_decay: Duration,
    /// A live note goes to neighbours at most this often.
    pub note_period: Duration,
    /// Known peers are told to neighbours this often.
    pub pex_period: Duration,
    /// A neighbour unheard for this long is asked; see `probe_timeout`.
    pub silence: Duration,
    /// A failed dial is repeated after this long, doubled each time up to a minute.
    pub redial_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            overlay: Overlay::Hybrid,
            neighbours_wanted: 12,
            locality: true,
            away: ms(600),
            away_relay: ms(100),
            away_pull: ms(150),
            links_out: 2,
            neighbours_first: 8,
            dial_period: ms(2000),
            neighbours_max: 20,
            source_neighbours_max: 32,
            slot_fill_percent: 90,
            slot_fill_urgent_percent: 120,
            interior_every: 2,
            class_period: ms(2000),
            leaf_delay: ms(600),
            shed_wait: ms(350),
            age_percent: 0,
            sibling_delay: ms(1),
            state_period_min: ms(350),
            state_period_max: ms(1000),
            control_percent: 2,
            switch_gain_percent: 15,
            switch_gain: ms(15),
            switch_hold: ms(500),
            probe_after: ms(150),
            probe_timeout: ms(150),
            starve_after: ms(900),
            attach_timeout: ms(250),
            near_worth: ms(30),
            urgent_after: ms(200),
            pull_after: ms(450),
            pull_after_has: ms(600),
            pull_unproven_after: ms(250),
            pull_orphan_after: ms(150),
            lock: ms(250),
            pipeline: 8,
            pipeline_joining: 12,
            requests_joining: 16,
            serve_wait: ms(150),
            serve_wait_joining: ms(100),
            serve_standing: ms(50),
            overdue_after: ms(1300),
            last_call_after: ms(4500),
            serve_wait_overdue: ms(400),
            overdue_percent: 5,
            serve_after: ms(30),
            serve_after_joining: ms(250),
            push_expiry: ms(600),
            pull_expiry: ms(400),
            join_back: ms(300),
            join_back_scarce: ms(200),
            scarce_wait: ms(30),
            queueing_wait: ms(10),
            joining_max: ms(2000),
            crowded_wait: ms(100),
            join_wait_max: ms(2000),
            join_back_max: ms(2600),
            join_next: false,
            join_leaps: true,
            strikes_max: 5,
            source_repair_percent: 8,
            source_savings: Duration::from_secs(5),
            strike_decay: Duration::from_secs(60),
            note_period: Duration::from_secs(3),
            pex_period: Duration::from_secs(20),
            silence: ms(2500),
            redial_after: ms(500),
        }
    }
}

/// What is entered where a player has come to begins so much before, and as much again as the way there takes, up to the latter:
/// a part is told of when it is whole, and ages are not exact.
const BEFORE_PLACE: Duration = Duration::from_millis(300);
const WAY_MAX: Duration = Duration::from_millis(150);
/// How much further back a segment may have begun.
const SEGMENT_MAX: Duration = Duration::from_secs(10);

impl Policy {
    /// The same for a swarm that is entered where a player has come to, who has fallen `behind` and is `way` from its neighbours
    /// and back.
    pub fn at_place(self, behind: Duration, way: Duration) -> Self {
        let join_back = behind + BEFORE_PLACE + way.min(WAY_MAX);
        Self { join_back, join_back_max: join_back + SEGMENT_MAX, join_leaps: false, ..self }
    }

    /// The same for a swarm that is tried beside one that plays.
    pub fn beside(self) -> Self {
        Self { join_next: true, ..self }
    }
}

/// What is known of a possible parent in one substream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParentView {
    /// How far behind the signature it receives the substream, µs; 0 at the source.
    pub(crate) lag_us: u64,
    /// Queue on its uplink, µs.
    pub(crate) wait_us: u64,
    /// Round-trip time, µs.
    pub(crate) rtt_us: u64,
    /// Its acceptance, as in [`crate::wire::SubstreamState::accept`].
    pub(crate) accept: u8,
    /// Substreams in which it already is the asker's parent.
    pub(crate) already: u32,
}

/// The value of `accept` for: nobody.
pub(crate) const ACCEPT_NOBODY: u8 = 255;
/// The value of `accept` for: only those who find nobody else.
pub(crate) const ACCEPT_URGENT: u8 = 254;

/// A relay in the parent's own PID counts so much …
const OWN_WORTH_PERCENT: u64 = 125;
/// … and one in another so much.
const AWAY_WORTH_PERCENT: u64 = 75;
/// Leaves count at most this: less than anybody who relays.
const LEAF_VALUE_MAX: u64 = 3;

/// A child as its parent weighs it; the child itself knows the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChildView {
    /// It relays the substream.
    pub(crate) interior: bool,
    /// What it says it can upload.
    pub(crate) upload_kbps: u32,
    /// Half the least round trip between the two, µs.
    pub(crate) one_way_us: u64,
    /// Where it is beside the parent.
    pub(crate) side: Side,
}

impl Policy {
    /// Whether a peer of interior class `class` relays substream `s` as a matter of course.
    pub(crate) fn is_interior(&self, class: u8, s: u8) -> bool {
        s % self.interior_every.max(1) == class
    }

    /// The interior class of `peer`, where nothing speaks for another.
    pub(crate) fn usual_class(&self, peer: &PeerId) -> u8 {
        (peer.tag() % u64::from(self.interior_every.max(1))) as u8
    }

    /// What a child counts when slots are scarce: those that relay by their upload, in 64 kbit/s, and by how near they are;
    /// leaves by how near they are only.
    pub(crate) fn child_value(&self, child: &ChildView, rate_bps: u64) -> u8 {
        let near_us = (self.near_worth.as_micros() as u64).max(1);
        let leaf = LEAF_VALUE_MAX.saturating_sub(child.one_way_us / near_us);
        let leaf = match child.side {
            Side::Unknown => leaf,
            // It displaces one from elsewhere, and no other of its own PID: moves cost more than distance does.
            Side::Own => LEAF_VALUE_MAX,
            Side::Away => 0,
        };
        if !child.interior {
            return leaf as u8;
        }
        let upload = u64::from(child.upload_kbps / 64);
        // A round trip that was measured through a queue is not all distance.
        let distance = (child.one_way_us * (rate_bps / 64_000) / near_us).min(upload / 2);
        let worth = upload - distance;
        let worth = match child.side {
            Side::Unknown => worth,
            Side::Own => worth * OWN_WORTH_PERCENT / 100,
            Side::Away => worth * AWAY_WORTH_PERCENT / 100,
        };
        (LEAF_VALUE_MAX + worth.max(1)).min(253) as u8
    }

    /// What a parent outside the own PID counts worse.
    pub(crate) fn away(&self, interior: bool) -> Duration {
        if interior { self.away_relay } else { self.away }
    }

    /// Children (over all substreams) that an upload carries.
    pub(crate) fn slots(&self, fill_percent: u32, upload_bps: u64, rate_bps: u64, substreams: u8) -> u32 {
        let bps = upload_bps * u64::from(fill_percent) / 100 * u64::from(substreams);
        u32::try_from(bps / rate_bps.max(1)).unwrap_or(u32::MAX)
    }

    /// How good a parent would be: the delay expected through it, µs; `None` when it would refuse.
    pub(crate) fn parent_score(
        &self,
        view: &ParentView,
        own_value: u8,
        urgent: bool,
        substreams: u8,
    ) -> Option<u64> {
        let accepts = match view.accept {
            ACCEPT_NOBODY => false,
            ACCEPT_URGENT => urgent,
            // Nobody can tell from afar whether it has room for somebody without a parent.
            threshold => urgent || own_value >= threshold,
        };
        let eggs = Self::eggs_us(view.already, substreams);
        accepts.then(|| view.lag_us + view.wait_us + view.rtt_us / 2 + eggs)
    }

    /// What it counts against a parent, µs, that `already` other substreams depend on it: many from one are many lost at
    /// once when it leaves, or lies. 10 ms for each, and past half of all so much that only those without a choice do it.
    pub(crate) fn eggs_us(already: u32, substreams: u8) -> u64 {
        let many = if already * 2 >= u32::from(substreams) { 200_000 } else { 0 };
        u64::from(already) * 10_000 + many
    }

    /// The same for a viewer that is the parent of `reliance` substreams. One that brings half of all is left for another that costs
    /// little more: between the source and one viewer, each a half, a third would stay for ever, since any other is a hop further.
    pub(crate) fn kept_us(reliance: u32, substreams: u8) -> u64 {
        let half = if reliance * 2 >= u32::from(substreams) { 100_000 } else { 0 };
        Self::eggs_us(reliance.saturating_sub(1), substreams) + half
    }

    /// Whether a parent with score `new` is worth leaving one that brings `current`, both in µs.
    pub(crate) fn is_worth_switching(&self, current: u64, new: u64) -> bool {
        let gain = current.saturating_sub(new);
        gain >= self.switch_gain.as_micros() as u64
            && gain >= current / 100 * u64::from(self.switch_gain_percent)
    }

    /// How old a hole must be before it is pulled, with a parent that has or lacks the chunk, or without one.
    pub(crate) fn pull_age(&self, parent_has: Option<bool>, usual_lateness: Duration) -> Duration {
        match (self.overlay, parent_has) {
            (Overlay::Tree, _) => Duration::MAX,
            (Overlay::Mesh, _) => Duration::ZERO,
            (Overlay::Hybrid, None) => self.pull_orphan_after,
            (Overlay::Hybrid, Some(false)) => self.pull_after.max(usual_lateness + self.pull_after / 2),
            (Overlay::Hybrid, Some(true)) => {
                self.pull_after_has.max(usual_lateness + self.pull_after_has / 2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_children_count_for_more_and_whoever_relays_for_more_than_a_leaf() {
        let policy = Policy::default();
        let value = |interior, upload_kbps, one_way_ms: u64| {
            let one_way_us = one_way_ms * 1000;
            let child = ChildView { interior, upload_kbps, one_way_us, side: Side::Unknown };
            policy.child_value(&child, 3_000_000)
        };
        let near = |upload_kbps| value(true, upload_kbps, 0);
        // One stream rate of upload is worth 30 ms: 3 Mbit/s are 46 of 64 kbit/s.
        assert_eq!(near(6_000) - value(true, 6_000, 30), 46);
        assert_eq!(value(true, 6_000, 10_000), 3 + 93 - 46, "a queue never takes more than half");
        assert!(value(true, 12_000, 20) > near(6_000), "twice the upload is worth a short way");
        assert!(value(true, 0, 1_000) > value(false, 1_000_000, 0), "leaves come last");
        assert_eq!([0, 30, 60, 500].map(|ms| value(false, 0, ms)), [3, 2, 1, 0]);
        assert!(near(u32::MAX) < ACCEPT_URGENT);
    }

    #[test]
    fn of_equals_the_one_in_the_own_pid_counts_more_and_a_leaf_never_as_much_as_a_relay() {
        let policy = Policy::default();
        let value = |interior, upload_kbps, one_way_ms: u64, side| {
            let child = ChildView { interior, upload_kbps, one_way_us: one_way_ms * 1000, side };
            policy.child_value(&child, 3_000_000)
        };
        let displaces = |value: u8, weakest: u8| value > weakest + (weakest / 2).max(1);
        let (own, away) = (value(false, 0, 80, Side::Own), value(false, 0, 0, Side::Away));
        assert!(displaces(own, away) && !displaces(away, own), "leaves: {own} and {away}");
        assert!(value(true, 0, 0, Side::Away) > own, "whoever relays goes before any leaf");
        let relay = |kbps, side| value(true, kbps, 0, side);
        assert!(displaces(relay(3_000, Side::Own), relay(3_000, Side::Away)));
        assert!(
            displaces(relay(9_000, Side::Away), relay(3_000, Side::Own)),
            "a stronger one of another PID"
        );
        assert!(relay(u32::MAX, Side::Own) < ACCEPT_URGENT);
    }
}
