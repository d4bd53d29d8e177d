//! What viewers made of a channel's renditions.

use core::fmt;

use caudal_proto::id::RenditionId;
use serde::Serialize;

use super::Percentiles;
use super::measure::percentiles;
use crate::diary::{Diary, LineSet, PLAYOUT_US};
use crate::reference::offload_ceiling;
use crate::world::{Node, World};

/// One rendition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RenditionReport {
    /// What it takes.
    pub rate_bps: u64,
    /// Of the viewers' time, what it was played.
    pub time: f64,
    /// Useful bytes in its swarm from peers ÷ useful bytes.
    pub offload_ratio: f64,
    /// The most that could be, by who played it for how long.
    pub offload_ceiling: f64,
}

/// What viewers made of renditions while measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RenditionsReport {
    /// Each of them, the best first.
    pub renditions: Vec<RenditionReport>,
    /// Viewers.
    pub viewers: usize,
    /// Changes per viewer: mean, and of the one with most.
    pub changes: f64,
    /// See `changes`.
    pub changes_most: usize,
    /// Changes of all whose lines were not changed.
    pub changes_unprovoked: usize,
    /// Renditions tried beside what played per viewer; those that were given up again.
    pub tries: f64,
    /// See `tries`.
    pub tries_failed: f64,
    /// From a line's drop to what it carries, of those who played more.
    pub down_ms: Option<Percentiles>,
    /// Those who did not get there.
    pub down_never: usize,
    /// From a line's recovery to what was played before its drop.
    pub up_ms: Option<Percentiles>,
    /// Those who did not get there.
    pub up_never: usize,
    /// Pictures that stood still, 2 s behind the source.
    pub stalls: usize,
    /// Viewers whose did.
    pub stalled: usize,
    /// Of all pictures' time, what they stood still for.
    pub stalled_time: f64,
}

/// A viewer and its diary.
struct Viewer<'a> {
    diary: &'a Diary,
    upload_bps: u64,
    /// When it was there, of the measured time, µs.
    from: u64,
    to: u64,
}

impl<'a> Viewer<'a> {
    fn of(world: &World, node: &'a Node) -> Option<Self> {
        let diary = &node.watching.as_ref()?.diary;
        let from = world.measured_from().max(node.record.opened);
        let to = node.record.left.unwrap_or(u64::MAX).min(world.end());
        (to > from).then_some(Self { diary, upload_bps: node.place.upload_bps, from, to })
    }

    fn is_there(&self, at: &u64) -> bool {
        (self.from..self.to).contains(at)
    }

    fn changes(&self) -> usize {
        self.diary.changes.iter().filter(|change| self.is_there(&change.at)).count()
    }

    fn stalls(&self) -> usize {
        let last = self.diary.stands_at(self.to);
        self.diary.stalls.iter().chain(&last).filter(|at| self.is_there(at)).count()
    }

    /// How long it played a rendition, µs.
    fn time(&self, rendition: RenditionId) -> u64 {
        let (from, to) = (self.from as i64, self.to as i64);
        let spans = self.diary.spans();
        let ends = spans.iter().skip(1).map(|(at, _)| *at).chain([i64::MAX]);
        let mine = spans.iter().zip(ends).filter(|((_, id), _)| *id == rendition);
        mine.map(|((begin, _), end)| (end.min(to) - (*begin).max(from)).max(0) as u64).sum()
    }

    /// When it first played what `is_wanted` from `at` on, before its line was changed again. `None`: it left, or the run ended,
    /// before that could be told.
    fn plays_after(&self, set: &LineSet, is_wanted: impl Fn(RenditionId) -> bool) -> Option<u64> {
        let next = self.diary.lines.iter().map(|line| line.at).find(|at| *at > set.at);
        let until = next.unwrap_or(self.to);
        let mut changes = self.diary.changes.iter().filter(|change| (set.at..until).contains(&change.at));
        changes.find(|change| is_wanted(change.to)).map(|change| change.at - set.at)
    }
}

/// How long something took those who had to; how many never came to it.
#[derive(Default)]
struct Times {
    us: Vec<u64>,
    never: usize,
}

impl Times {
    fn add(&mut self, us: Option<u64>) {
        match us {
            Some(us) => self.us.push(us),
            None => self.never += 1,
        }
    }

    fn percentiles(self) -> Option<Percentiles> {
        (!self.us.is_empty()).then(|| percentiles(self.us))
    }
}

impl RenditionsReport {
    /// `None` where there is one.
    pub(super) fn of(world: &World) -> Option<Self> {
        let rates = &world.config.renditions;
        if rates.len() < 2 {
            return None;
        }
        let nodes = world.nodes.iter().filter(|node| node.is_honest());
        let viewers: Vec<Viewer<'_>> = nodes.filter_map(|node| Viewer::of(world, node)).collect();
        let all = viewers.len().max(1) as f64;
        let time: u64 = viewers.iter().map(|viewer| viewer.to - viewer.from).sum();
        let count = |of: &dyn Fn(&Viewer<'_>) -> usize| viewers.iter().map(of).sum::<usize>();
        let there =
            |viewer: &Viewer<'_>, times: &[u64]| times.iter().filter(|at| viewer.is_there(at)).count();
        let (down, up) = moves(world, &viewers);
        let late = count(&|viewer| there(viewer, &viewer.diary.late)) as u64;
        Some(Self {
            renditions: (0..rates.len()).map(|place| rendition(world, &viewers, place, time)).collect(),
            viewers: viewers.len(),
            changes: count(&|viewer| viewer.changes()) as f64 / all,
            changes_most: viewers.iter().map(Viewer::changes).max().unwrap_or(0),
            changes_unprovoked: count(&|v| if v.diary.lines.is_empty() { v.changes() } else { 0 }),
            tries: count(&|viewer| there(viewer, &viewer.diary.tries)) as f64 / all,
            tries_failed: count(&|viewer| there(viewer, &viewer.diary.gave_up)) as f64 / all,
            down_never: down.never,
            down_ms: down.percentiles(),
            up_never: up.never,
            up_ms: up.percentiles(),
            stalls: count(&|viewer| viewer.stalls()),
            stalled: count(&|viewer| usize::from(viewer.stalls() > 0)),
            stalled_time: (late * world.part_us()) as f64 / time.max(1) as f64,
        })
    }
}

fn rendition(world: &World, viewers: &[Viewer<'_>], place: usize, time: u64) -> RenditionReport {
    let (rate_bps, id) = (world.config.renditions[place], RenditionId(place as u8));
    let (now, before) = (world.ledger.useful_of[place], world.before.useful_of[place]);
    let (useful, from_source) = (now.0 - before.0, now.1 - before.1);
    let span = world.config.duration.as_micros() as f64;
    // Who played it for a part of the time counts as that part.
    let share = |viewer: &Viewer<'_>| viewer.time(id) as f64 / span;
    let count: f64 = viewers.iter().map(share).sum();
    let upload: f64 = viewers.iter().map(|viewer| share(viewer) * viewer.upload_bps as f64).sum();
    RenditionReport {
        rate_bps,
        time: viewers.iter().map(|viewer| viewer.time(id)).sum::<u64>() as f64 / time.max(1) as f64,
        offload_ratio: 1.0 - from_source as f64 / useful.max(1) as f64,
        offload_ceiling: offload_ceiling(count, upload, rate_bps as f64, world.config.wire_factor()),
    }
}

/// How long viewers took to go down to what their lines carry, and up again.
fn moves(world: &World, viewers: &[Viewer<'_>]) -> (Times, Times) {
    let rates = &world.config.renditions;
    let (mut down, mut up) = (Times::default(), Times::default());
    let wire = world.config.wire_factor();
    let last = RenditionId(rates.len() as u8 - 1);
    for viewer in viewers {
        // What played before the line dropped.
        let mut before: Option<(u64, RenditionId)> = None;
        for set in viewer.diary.lines.iter().filter(|set| viewer.is_there(&set.at)) {
            let fits =
                |id: RenditionId| id == last || rates[usize::from(id.0)] as f64 * wire <= set.down_bps as f64;
            match before {
                Some((bps, best)) if bps < set.down_bps => {
                    if set.playing > best {
                        up.add(viewer.plays_after(set, |id| id <= best));
                    }
                    before = None;
                }
                _ => {
                    if !fits(set.playing) {
                        down.add(viewer.plays_after(set, fits));
                    }
                    before = Some((set.down_bps, set.playing));
                }
            }
        }
    }
    (down, up)
}

impl fmt::Display for RenditionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, one) in self.renditions.iter().enumerate() {
            writeln!(
                f,
                "rendition {place}            {} kbit/s: {:.1} % of viewers' time; offload {:.2} % of at most {:.2} %",
                one.rate_bps / 1000,
                one.time * 100.0,
                one.offload_ratio * 100.0,
                one.offload_ceiling * 100.0
            )?;
        }
        writeln!(
            f,
            "changes per viewer     {:.2}, at most {}, {} in all where the line was not changed; {:.2} tries, {:.2} failed",
            self.changes, self.changes_most, self.changes_unprovoked, self.tries, self.tries_failed
        )?;
        for (name, times, never) in
            [("down after", self.down_ms, self.down_never), ("up again after", self.up_ms, self.up_never)]
        {
            match times {
                Some(times) => writeln!(f, "{name:22} {times}, {never} never")?,
                None if never > 0 => writeln!(f, "{name:22} {never} never")?,
                None => {}
            }
        }
        let playout_s = PLAYOUT_US / 1_000_000;
        writeln!(
            f,
            "stalls at {playout_s} s          {} by {} of {} viewers, {:.3} % of the time",
            self.stalls,
            self.stalled,
            self.viewers,
            self.stalled_time * 100.0
        )
    }
}
