//! Reports put together: who got the chunk from whom, and how long each hop took.
//!
//! A tree is what peers say: signed words of each, placed below whom they name. One that was fed by a peer that does not report
//! hangs below a gap, where the first relay above says that it belongs, or below the root where nobody says so. Reports that
//! contradict each other make no loop: each is shown once.

use std::collections::BTreeMap;

use caudal_proto::hop::{DELAY_UNKNOWN_US, Hop};
use caudal_proto::id::PeerId;
use serde::Serialize;

/// Deeper than this nothing is shown.
const DEPTH_MAX: u32 = 32;

/// What a row of the tree stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The source.
    Source,
    /// A peer that reported.
    Peer,
    /// A peer that another names, and that has not reported itself.
    Silent,
    /// One peer or more that do not report.
    Gap,
}

/// One line of the tree. Times in ms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// See [`Kind`].
    pub kind: Kind,
    /// How far below the root.
    pub depth: u32,
    /// The row above in the tree, counted from 0; none at a root.
    pub parent: Option<usize>,
    /// The first ten characters of its id.
    pub peer: Option<String>,
    /// Of a gap: how many peers it stands for, where that is known.
    pub count: u32,
    /// The chunk was requested, not pushed.
    pub requested: bool,
    /// Measured: from the signed capture time to the arrival, by this peer's clock.
    pub lag_ms: Option<f64>,
    /// As the hops added it up since the signature: queues measured by each, ways inferred from round trips.
    pub travelled_ms: Option<f64>,
    /// The lag beyond that of the nearest peer above that reported; 0 where clocks say less, see `clock_ms`.
    pub hop_ms: Option<f64>,
    /// `hop_ms` spans a gap: more than one hop.
    pub across: bool,
    /// By so much the two clocks put the arrival before that of the peer above: they differ by no less.
    pub clock_ms: Option<f64>,
    /// Of the hop, measured by the peer above: from its arrival there until it was given to the connection.
    pub queue_ms: Option<f64>,
    /// Of the hop, inferred: half the round trip.
    pub way_ms: Option<f64>,
}

/// What a tree comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Peers that reported.
    pub reported: u32,
    /// Places where peers do not report.
    pub gaps: u32,
    /// The deepest row.
    pub depth: u32,
    /// Median of `hop_ms` over single hops.
    pub hop_p50_ms: Option<f64>,
    /// 95th percentile of it.
    pub hop_p95_ms: Option<f64>,
    /// The greatest lag.
    pub lag_max_ms: Option<f64>,
}

/// One traced chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceView {
    /// Its broadcast.
    pub epoch: u64,
    /// Its number.
    pub number: u64,
    /// When it was captured, ms since the Unix epoch, by the clock of whoever reported first.
    pub captured_unix_ms: u64,
    /// The tree, from the root downwards.
    pub rows: Vec<Row>,
    /// What it comes to.
    pub summary: Summary,
    /// Reports whose signature did not hold: not shown.
    pub forged: u32,
}

/// A place in the tree before it has a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The report with this index.
    Hop(usize),
    /// Named by others alone.
    Silent(u64),
    /// Below the report with this index, or below nobody who is known.
    Gap(Option<usize>),
}

struct Builder<'a> {
    hops: &'a [Hop],
    /// Reports by tag.
    by_tag: BTreeMap<u64, usize>,
    below: BTreeMap<Place, Vec<Place>>,
    rows: Vec<Row>,
    is_shown: Vec<bool>,
}

/// The tree of one chunk.
pub(super) fn view(epoch: u64, number: u64, hops: &[Hop], forged: u32) -> TraceView {
    let mut builder = Builder {
        hops,
        by_tag: hops.iter().enumerate().map(|(index, hop)| (hop.report.peer.tag(), index)).collect(),
        below: BTreeMap::new(),
        rows: Vec::new(),
        is_shown: vec![false; hops.len()],
    };
    builder.hang();
    let sources = (0..hops.len()).filter(|index| hops[*index].report.source);
    for root in sources.map(Place::Hop).collect::<Vec<_>>() {
        builder.show(root, None, 0);
    }
    let roots: Vec<Place> = builder.below.keys().copied().collect();
    let is_root = |place: &Place| matches!(place, Place::Silent(_) | Place::Gap(None));
    for root in roots.into_iter().filter(is_root) {
        if !builder.is_named(root) {
            builder.show(root, None, 0);
        }
    }
    // Words that contradict each other: whoever names somebody below it as the one above.
    for index in 0..hops.len() {
        if !builder.is_shown[index] {
            builder.show(Place::Hop(index), None, 0);
        }
    }
    let first =
        hops.iter().map(|hop| &hop.report).min_by_key(|report| (!report.source, report.arrived_unix_us));
    let captured = first.map_or(0, |r| r.arrived_unix_us.saturating_add_signed(-i64::from(r.lag_us)));
    TraceView {
        epoch,
        number,
        captured_unix_ms: captured / 1000,
        summary: summary(&builder.rows),
        rows: builder.rows,
        forged,
    }
}

impl Builder<'_> {
    /// Puts every place below another.
    fn hang(&mut self) {
        for (index, hop) in self.hops.iter().enumerate() {
            let report = &hop.report;
            if !report.source {
                let above = match (report.from, hop.above) {
                    (0, 0) => Place::Gap(None),
                    (0, tag) => Place::Gap(self.by_tag.get(&tag).copied()),
                    (tag, _) => self.by_tag.get(&tag).map_or(Place::Silent(tag), |at| Place::Hop(*at)),
                };
                self.below.entry(above).or_default().push(Place::Hop(index));
            }
            let tags = report.forwards.iter().map(|forward| forward.to);
            let silent = tags.filter(|tag| *tag != 0 && !self.by_tag.contains_key(tag));
            let silent: Vec<Place> = silent.map(Place::Silent).collect();
            self.below.entry(Place::Hop(index)).or_default().extend(silent);
            let is_gap = report.forwards.iter().any(|forward| forward.to == 0);
            if is_gap {
                self.below.entry(Place::Gap(Some(index))).or_default();
            }
        }
        let gaps: Vec<Place> = self.below.keys().copied().collect();
        for gap in gaps {
            if let Place::Gap(Some(index)) = gap {
                self.below.entry(Place::Hop(index)).or_default().push(gap);
            }
        }
    }

    /// Somebody says that it gave the chunk to it.
    fn is_named(&self, place: Place) -> bool {
        self.below.iter().any(|(above, below)| matches!(above, Place::Hop(_)) && below.contains(&place))
    }

    fn show(&mut self, place: Place, parent: Option<usize>, depth: u32) {
        if let Place::Hop(index) = place
            && std::mem::replace(&mut self.is_shown[index], true)
        {
            return;
        }
        let at = self.rows.len();
        let row = self.row(place, parent, depth);
        self.rows.push(row);
        if depth == DEPTH_MAX {
            return;
        }
        let mut below = self.below.get(&place).cloned().unwrap_or_default();
        below.sort_by_key(|place| (self.reached_us(*place), *place));
        below.dedup();
        for place in below {
            self.show(place, Some(at), depth + 1);
        }
    }

    /// Orders those below one: the first that was reached first, gaps last.
    fn reached_us(&self, place: Place) -> i64 {
        match place {
            Place::Hop(index) => i64::from(self.hops[index].report.lag_us),
            Place::Silent(_) => i64::MAX - 1,
            Place::Gap(_) => i64::MAX,
        }
    }

    /// The nearest row from `parent` upwards that reported, and whether something lies between.
    fn reported_above(&self, parent: Option<usize>) -> Option<(usize, bool)> {
        let (mut at, mut across) = (parent?, false);
        loop {
            let row = &self.rows[at];
            if matches!(row.kind, Kind::Source | Kind::Peer) {
                return Some((at, across));
            }
            (at, across) = (row.parent?, true);
        }
    }

    fn row(&self, place: Place, parent: Option<usize>, depth: u32) -> Row {
        let none = Row {
            kind: Kind::Gap,
            depth,
            parent,
            peer: None,
            count: 0,
            requested: false,
            lag_ms: None,
            travelled_ms: None,
            hop_ms: None,
            across: false,
            clock_ms: None,
            queue_ms: None,
            way_ms: None,
        };
        let index = match place {
            Place::Gap(None) => return none,
            Place::Gap(Some(index)) => {
                let unnamed = self.hops[index].report.forwards.iter().filter(|forward| forward.to == 0);
                return Row { count: unnamed.count() as u32, ..none };
            }
            Place::Silent(tag) => return Row { kind: Kind::Silent, peer: Some(short(tag)), ..none },
            Place::Hop(index) => index,
        };
        let report = &self.hops[index].report;
        let mut row = Row {
            kind: if report.source { Kind::Source } else { Kind::Peer },
            peer: Some(report.peer.short()),
            requested: report.requested,
            lag_ms: Some(ms(i64::from(report.lag_us))),
            travelled_ms: known(report.hops_us),
            way_ms: (!report.source).then(|| ms(i64::from(report.rtt_us / 2))),
            ..none
        };
        let Some((above, across)) = self.reported_above(parent) else { return row };
        let above_ms = self.rows[above].lag_ms.unwrap_or(0.0);
        let by_clocks = row.lag_ms.unwrap_or(0.0) - above_ms;
        row.hop_ms = Some(by_clocks.max(0.0));
        row.clock_ms = (by_clocks < 0.0).then_some(-by_clocks);
        row.across = across;
        if across {
            row.way_ms = None;
        } else if let Some(index) = self.by_tag.get(&report.from) {
            let forwards = self.hops[*index].report.forwards.iter();
            let forward =
                forwards.filter(|forward| forward.to == report.peer.tag()).map(|f| f.after_us).next();
            row.queue_ms = forward.and_then(known);
        }
        row
    }
}

fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}

fn known(us: u32) -> Option<f64> {
    (us != DELAY_UNKNOWN_US).then(|| ms(i64::from(us)))
}

/// The first characters of the id that begins with `tag`.
fn short(tag: u64) -> String {
    let mut id = PeerId([0; 32]);
    id.0[..8].copy_from_slice(&tag.to_be_bytes());
    id.short()
}

fn summary(rows: &[Row]) -> Summary {
    let mut hops: Vec<f64> = rows.iter().filter(|row| !row.across).filter_map(|row| row.hop_ms).collect();
    hops.sort_by(f64::total_cmp);
    let at =
        |percent: usize| hops.get((hops.len() * percent / 100).min(hops.len().saturating_sub(1))).copied();
    Summary {
        reported: rows.iter().filter(|row| matches!(row.kind, Kind::Source | Kind::Peer)).count() as u32,
        gaps: rows.iter().filter(|row| row.kind == Kind::Gap).count() as u32,
        depth: rows.iter().map(|row| row.depth).max().unwrap_or(0),
        hop_p50_ms: at(50),
        hop_p95_ms: at(95),
        lag_max_ms: rows.iter().filter_map(|row| row.lag_ms).max_by(f64::total_cmp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_proto::hop::{Forward, HopReport};
    use caudal_proto::id::RenditionId;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn tag(n: u8) -> u64 {
        if n == 0 { 0 } else { peer(n).tag() }
    }

    fn hop(n: u8, from: u8, above: u8, lag_ms: i32, to: &[u8]) -> Hop {
        let forwards = to.iter().map(|n| Forward { to: tag(*n), after_us: 2_000 }).collect();
        let report = HopReport {
            epoch: 1,
            number: 5,
            rendition: RenditionId(0),
            peer: peer(n),
            from: tag(from),
            requested: false,
            source: n == 1,
            arrived_unix_us: 1_000_000_000 + lag_ms as u64 * 1000,
            lag_us: lag_ms * 1000,
            hops_us: DELAY_UNKNOWN_US,
            rtt_us: if n == 1 { 0 } else { 20_000 },
            forwards,
            signature: [0; 64],
        };
        Hop { above: tag(above), report }
    }

    /// Depth, kind and peer of each row.
    fn drawn(hops: &[Hop]) -> Vec<(u32, Kind, Option<String>)> {
        view(1, 5, hops, 0).rows.into_iter().map(|row| (row.depth, row.kind, row.peer)).collect()
    }

    #[test]
    fn reports_in_any_order_make_the_tree_that_they_tell_of() {
        let hops = [
            hop(3, 2, 0, 290, &[]),
            hop(1, 0, 0, 200, &[2, 0]),
            hop(4, 0, 1, 320, &[9]),
            hop(2, 1, 0, 240, &[3]),
        ];
        let id = |n| Some(peer(n).short());
        assert_eq!(
            drawn(&hops),
            [
                (0, Kind::Source, id(1)),
                (1, Kind::Peer, id(2)),
                (2, Kind::Peer, id(3)),
                (1, Kind::Gap, None),
                (2, Kind::Peer, id(4)),
                (3, Kind::Silent, id(9)),
            ]
        );
        let view = view(1, 5, &hops, 0);
        let three = &view.rows[2];
        assert_eq!((three.hop_ms, three.queue_ms, three.way_ms), (Some(50.0), Some(2.0), Some(10.0)));
        assert_eq!(three.parent, Some(1));
        let four = &view.rows[4];
        assert_eq!((four.hop_ms, four.across, four.queue_ms, four.way_ms), (Some(120.0), true, None, None));
        assert_eq!((view.summary.reported, view.summary.gaps, view.summary.depth), (4, 1, 3));
        assert_eq!((view.summary.hop_p50_ms, view.summary.lag_max_ms), (Some(50.0), Some(320.0)));
        assert_eq!(view.rows[3].count, 1);
    }

    #[test]
    fn clocks_that_disagree_are_shown_as_what_they_are() {
        let view = view(1, 5, &[hop(1, 0, 0, 200, &[2]), hop(2, 1, 0, 150, &[])], 0);
        assert_eq!((view.rows[1].hop_ms, view.rows[1].clock_ms), (Some(0.0), Some(50.0)));
        assert_eq!(view.rows[0].clock_ms, None);
    }

    #[test]
    fn words_that_contradict_each_other_make_no_loop() {
        let loops = [hop(2, 3, 0, 10, &[3]), hop(3, 2, 0, 20, &[2]), hop(4, 4, 0, 20, &[4])];
        assert_eq!(drawn(&loops).len(), 3);
        let gap_loop = [hop(2, 0, 3, 10, &[0]), hop(3, 0, 2, 20, &[0])];
        assert!(drawn(&gap_loop).len() <= 4);
        // Somebody whose report has not come is placed where others name it, once.
        let missing = [hop(1, 0, 0, 200, &[7]), hop(3, 7, 0, 250, &[])];
        let rows = drawn(&missing);
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), [0, 1, 2], "{rows:?}");
        assert_eq!(rows[1].1, Kind::Silent);
        // A long chain ends.
        let chain: Vec<Hop> = (1..=60).map(|n| hop(n, n - 1, 0, i32::from(n), &[n + 1])).collect();
        assert!(drawn(&chain).iter().all(|row| row.0 <= DEPTH_MAX));
    }
}
