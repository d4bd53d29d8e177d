//! A stream reaches every viewer through other viewers.

mod common;

use std::time::Duration;

use caudal_proto::io::Input;
use caudal_proto::swarm::NeighbourStats;
use caudal_proto::time::Timestamp;
use common::{MS, Net, S, World};

/// Other viewers that brought a tenth of what `viewer` got.
fn givers(world: &World, viewer: usize) -> usize {
    let stats = world.stats(viewer);
    let gave = |n: &&NeighbourStats| !n.source && n.useful_bytes_in * 10 > stats.useful_bytes;
    stats.neighbours.iter().filter(gave).count()
}

#[test]
fn six_viewers_lose_nothing_and_feed_each_other() {
    for seed in 1..12 {
        let mut world = World::swarm(Net::default(), 6, seed);
        let (from, before) = (world.now, world.before());
        world.run(S(20));
        world.report(from);
        let figures = world.figures(&before);
        assert!(figures.copies < 2.3, "{figures:?}");
        assert!(figures.duplicates < 0.005, "{figures:?}");
        assert!(figures.p95 <= MS(250), "{figures:?}");
        let to = world.now.saturating_sub(S(1));
        for viewer in 1..=6 {
            assert!(world.late(viewer, MS(500), from, to).is_empty(), "viewer {viewer}");
            assert!(givers(&world, viewer) >= 2, "viewer {viewer} is fed by too few others");
        }
        world.assert_peace();
    }
}

/// Who comes early finds the source and one viewer, and gives half to each: it takes from others when they have come.
#[test]
fn who_came_early_does_not_rest_on_one_viewer() {
    for seed in 1..30 {
        let near = Duration::from_micros(100);
        let net =
            Net { one_way: near, jitter: near / 2, viewer_bps: None, join_gap: MS(400), ..Net::default() };
        let mut world = World::swarm(net, 6, seed);
        world.run(S(20));
        for viewer in 1..=6 {
            assert!(givers(&world, viewer) >= 2, "seed {seed}: viewer {viewer} is fed by too few others");
        }
    }
}

#[test]
fn who_sends_no_longer_is_left_without_a_gap_and_may_send_again() {
    for seed in 1..6 {
        let mut world = World::swarm(Net::default(), 6, seed);
        let feeds = |world: &World, viewer| {
            world.stats(viewer).neighbours.iter().map(|n| n.child_in.count_ones()).sum::<u32>()
        };
        let busiest = (1..=6).max_by_key(|viewer| feeds(&world, *viewer)).expect("six");
        assert!(feeds(&world, busiest) > 0, "seed {seed}");
        let (from, swarm) = (world.now, world.channel().into());
        world.input(busiest, Input::Upload(swarm, false));
        world.run(S(2));
        assert_eq!(feeds(&world, busiest), 0, "seed {seed}");
        let sent = world.stats(busiest).bytes_out;
        world.run(S(8));
        assert_eq!(world.stats(busiest).bytes_out, sent, "seed {seed}: it sends nothing any more");
        world.input(busiest, Input::Upload(swarm, true));
        world.run(S(30));
        assert!(world.stats(busiest).bytes_out > sent, "seed {seed}: it is asked again");
        world.assert_nothing_late(from);
        world.assert_peace();
    }
}

#[test]
fn loss_and_distance_lose_nothing() {
    for seed in 2..4 {
        let net = Net { one_way: MS(40), loss: 0.02, jitter: MS(10), ..Net::default() };
        let mut world = World::swarm(net, 12, seed);
        let from = world.now;
        world.run(S(20));
        world.report(from);
        world.assert_nothing_late(from);
        world.assert_peace();
    }
}

#[test]
fn narrow_uplinks_suffice() {
    let net = Net { viewer_bps: Some(1_500_000), source_bps: Some(6_000_000), ..Net::default() };
    let mut world = World::swarm(net, 20, 3);
    world.run(S(5));
    let from = world.now;
    world.run(S(20));
    world.report(from);
    world.assert_nothing_late(from);
    world.assert_peace();
}

#[test]
fn a_joiner_starts_within_half_a_second() {
    let mut world = World::swarm(Net::default(), 6, 4);
    for _ in 0..10 {
        let viewer = world.viewer();
        world.run(S(2));
        let node = &world.nodes[viewer];
        let &(epoch, number, _) = node.joined.first().expect("joined");
        let part = world.published[&(epoch, number)].1.header().part;
        let first: Vec<_> =
            world.published.iter().filter(|(_, p)| p.1.header().part == part).map(|(key, _)| *key).collect();
        let whole = first.iter().map(|key| node.got.get(key).copied().unwrap_or(Timestamp::FAR_FUTURE)).max();
        let startup: Duration = whole.unwrap_or_default().since(node.opened);
        assert!(startup < MS(500), "{startup:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let trace = |seed| {
        let mut world = World::swarm(Net { loss: 0.01, ..Net::default() }, 5, seed);
        world.kill(3);
        world.run(S(5));
        world.trace()
    };
    assert_eq!(trace(9), trace(9));
    assert_ne!(trace(9), trace(10));
}
