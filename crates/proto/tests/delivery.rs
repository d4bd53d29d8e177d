//! A stream reaches every viewer through other viewers.

mod common;

use std::time::Duration;

use caudal_proto::time::Timestamp;
use common::{Net, World, percentile};

const S: fn(u64) -> Duration = Duration::from_secs;

fn report(world: &World, from: Timestamp) {
    for i in 0..world.nodes.len() {
        let (stats, delays) = (world.stats(i), world.delays(i, from));
        println!(
            "{i:2} p50 {:4} p95 {:4} max {:4} ms got {:5} dup {:3} pulled {:3} src {:3}% parents {}/{} children {:2} nb {:2} missed {} sent {}",
            percentile(&delays, 50).as_millis(),
            percentile(&delays, 95).as_millis(),
            percentile(&delays, 100).as_millis(),
            stats.received,
            stats.duplicates,
            stats.pulled,
            stats.useful_bytes_from_source * 100 / stats.useful_bytes.max(1),
            stats.parents,
            stats.substreams,
            stats.children,
            stats.neighbours.len(),
            stats.missed,
            world.nodes[i].sent_bytes,
        );
        if !world.nodes[i].dropped.is_empty() {
            println!("   dropped {:?}", world.nodes[i].dropped);
        }
    }
}

fn swarm(net: Net, viewers: usize, seed: u64) -> World {
    let mut world = World::new(net, seed);
    world.source();
    world.run(S(3));
    for _ in 0..viewers {
        world.viewer();
        world.run(Duration::from_millis(60));
    }
    world.run(S(5));
    world
}

#[test]
fn six_viewers_lose_nothing_and_feed_each_other() {
    let mut world = swarm(Net::default(), 6, 1);
    let (from, sent) = (world.now, world.nodes[0].sent_bytes);
    let before: Vec<u64> = (0..=6).map(|i| world.stats(i).duplicates).collect();
    world.run(S(20));
    report(&world, from);
    let to = world.now.saturating_sub(S(1));
    let useful: u64 =
        world.published.values().filter(|p| p.0 >= from).map(|p| u64::from(p.1.header().len)).sum();
    let copies = (world.nodes[0].sent_bytes - sent) as f64 / useful as f64;
    assert!(copies < 2.3, "the source sent {copies} copies");
    for viewer in 1..=6 {
        assert_eq!(world.late(viewer, Duration::from_millis(500), from, to), [], "viewer {viewer}");
        let stats = world.stats(viewer);
        let duplicates = stats.duplicates - before[viewer];
        assert!(duplicates * 200 < stats.received, "{duplicates} duplicates");
        assert!(world.nodes[viewer].dropped.is_empty());
        let givers = stats
            .neighbours
            .iter()
            .filter(|n| !n.source && n.useful_bytes_in * 10 > stats.useful_bytes)
            .count();
        assert!(givers >= 2, "viewer {viewer} is fed by {givers} others");
    }
}

#[test]
fn loss_and_distance_lose_nothing() {
    let one_way = Duration::from_millis(40);
    let mut world =
        swarm(Net { one_way, loss: 0.02, jitter: Duration::from_millis(10), ..Net::default() }, 12, 2);
    let from = world.now;
    world.run(S(20));
    report(&world, from);
    let to = world.now.saturating_sub(S(2));
    for viewer in 1..=12 {
        assert_eq!(world.late(viewer, Duration::from_millis(1500), from, to), [], "viewer {viewer}");
    }
}

#[test]
fn narrow_uplinks_suffice() {
    let net = Net { viewer_bps: Some(1_500_000), source_bps: Some(6_000_000), ..Net::default() };
    let mut world = swarm(net, 20, 3);
    world.run(S(5));
    let from = world.now;
    world.run(S(20));
    report(&world, from);
    let to = world.now.saturating_sub(S(2));
    for viewer in 1..=20 {
        assert_eq!(world.late(viewer, Duration::from_millis(1500), from, to), [], "viewer {viewer}");
    }
}

#[test]
fn a_joiner_starts_within_half_a_second() {
    let mut world = swarm(Net::default(), 6, 4);
    for _ in 0..10 {
        let viewer = world.viewer();
        world.run(S(2));
        let node = &world.nodes[viewer];
        let &(epoch, number, _) = node.joined.first().expect("joined");
        let part = world.published[&(epoch, number)].1.header().part;
        let first: Vec<_> =
            world.published.iter().filter(|(_, p)| p.1.header().part == part).map(|(key, _)| *key).collect();
        let whole = first.iter().map(|key| node.got.get(key).copied().unwrap_or(Timestamp::FAR_FUTURE)).max();
        let startup = whole.unwrap_or_default().since(node.opened);
        assert!(startup < Duration::from_millis(500), "{startup:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut world = swarm(Net { loss: 0.01, ..Net::default() }, 5, seed);
        world.run(S(5));
        (world.trace, world.nodes.iter().map(|n| n.sent_bytes).collect::<Vec<_>>())
    };
    assert_eq!(trace(9), trace(9));
    assert_ne!(trace(9).0, trace(10).0);
}
