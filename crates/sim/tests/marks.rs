//! A source feeds viewers as far as its upload goes: nobody misses anything when the audience or the upload crosses the water marks.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use caudal_proto::time::Timestamp;
use common::{MS, Net, S, World};

const RATE: u64 = 1_000_000;
const SUBSTREAMS: u8 = 8;
/// What a source with six copies pushes, in substreams: 89 % of its line is for chunks, 90 % of that for pushing.
const PLACES: u32 = 38;

/// Viewers that carry `percent` of the stream, and a source that carries `copies`.
fn net(copies: u64, percent: u64) -> Net {
    Net {
        viewer_bps: Some(RATE * percent / 100),
        source_bps: Some(RATE * copies),
        copies_percent: None,
        ..Net::default()
    }
}

/// Children of the source, over all substreams.
fn fed(world: &World) -> u32 {
    world.stats(0).neighbours.iter().map(|n| n.child_in.count_ones()).sum()
}

/// Per viewer and substream: whether the source feeds it.
fn fed_by_source(world: &World, viewers: impl IntoIterator<Item = usize>) -> BTreeMap<(usize, u8), bool> {
    let mut all = BTreeMap::new();
    for viewer in viewers {
        let stats = world.stats(viewer);
        let from_source = stats.neighbours.iter().find(|n| n.source).map_or(0, |n| n.parent_in);
        all.extend((0..SUBSTREAMS).map(|s| ((viewer, s), from_source & (1 << s) != 0)));
    }
    all
}

/// Looks ten times a second at what the source feeds.
struct Watch {
    last: BTreeMap<(usize, u8), bool>,
    returns: BTreeMap<(usize, u8), u32>,
    /// Of the places of the source that were taken.
    least: u32,
    most: u32,
}

impl Watch {
    fn new(world: &World, viewers: impl IntoIterator<Item = usize>) -> Self {
        let last = fed_by_source(world, viewers);
        Self { last, returns: BTreeMap::new(), least: u32::MAX, most: 0 }
    }

    fn run(&mut self, world: &mut World, span: Duration) {
        let until = world.now + span;
        while world.now < until {
            world.run(MS(100));
            let fed = fed(world);
            (self.least, self.most) = (self.least.min(fed), self.most.max(fed));
            let viewers: BTreeSet<usize> = self.last.keys().map(|(viewer, _)| *viewer).collect();
            let now = fed_by_source(world, viewers);
            for (which, is_fed) in &now {
                if *is_fed && !self.last[which] {
                    *self.returns.entry(*which).or_default() += 1;
                }
            }
            self.last = now;
        }
    }

    fn assert_calm(&self, seed: u64) {
        let most = self.returns.values().max().copied().unwrap_or(0);
        assert!(
            most <= 2,
            "seed {seed}: a substream came back to the source {most} times: {:?}",
            self.returns
        );
    }
}

fn assert_smooth(world: &World, viewers: impl IntoIterator<Item = usize>, from: Timestamp, to: Timestamp) {
    for viewer in viewers {
        let late = world.late(viewer, MS(1500), from, to);
        assert!(late.is_empty(), "viewer {viewer} lacked {late:?} at 1.5 s");
    }
}

/// Twelve residents feed each other and are fed; thirteen guests, more than the source can have at its usual share come and go.
#[test]
fn an_audience_that_crosses_the_marks_ten_times_misses_nothing() {
    let residents = 1..=12;
    for seed in 1..4 {
        let mut world = World::swarm(net(6, 120), 12, seed);
        let (from, mut crossed) = (world.now, 0);
        for _ in 0..5 {
            let mut watch = Watch::new(&world, residents.clone());
            let first = world.nodes.len();
            for _ in 0..13 {
                world.viewer();
                watch.run(&mut world, MS(900));
            }
            watch.run(&mut world, S(6));
            crossed += u32::from(watch.most * 100 >= PLACES * 90);
            watch.assert_calm(seed);
            let mut watch = Watch::new(&world, residents.clone());
            for guest in first..world.nodes.len() {
                world.leave(guest);
                watch.run(&mut world, MS(200));
            }
            watch.run(&mut world, S(6));
            crossed += u32::from(watch.least * 100 < PLACES * 75);
            watch.assert_calm(seed);
        }
        assert!(crossed >= 9, "seed {seed}: the marks were crossed {crossed} times of ten");
        assert_smooth(&world, residents.clone(), from, world.now.saturating_sub(S(2)));
        world.assert_peace();
    }
}

#[test]
fn a_source_whose_upload_falls_hands_viewers_over_and_takes_them_back() {
    for seed in 1..4 {
        let mut world = World::swarm(net(10, 150), 14, seed);
        world.run(S(5));
        let (before, from) = (fed(&world), world.now);
        world.set_line(0, RATE * 5);
        world.run(S(12));
        let fewer = fed(&world);
        // What it holds its line for is what it has measured, in chunk bytes.
        let stats = world.stats(0);
        let carried = stats.upload_capacity_bps.expect("measured") * u64::from(SUBSTREAMS) / stats.rate_bps;
        assert!(carried < 56, "seed {seed}: the line is still held for one of {carried} substreams");
        assert!(
            u64::from(fewer) <= carried,
            "seed {seed}: {before} are fed, {fewer} where {carried} are carried"
        );

        assert_smooth(&world, 1..=14, from, world.now.saturating_sub(S(2)));
        world.set_line(0, RATE * 10);
        world.run(S(20));
        let again = fed(&world);
        assert!(
            again > fewer,
            "seed {seed}: {before}, then {fewer}, and with all of the upload again {again}"
        );
        assert_smooth(&world, 1..=14, from, world.now.saturating_sub(S(2)));
        world.assert_peace();
    }
}
