//! Where and how fast newcomers start, and in which broadcast.

mod common;

use std::time::Duration;

use caudal_proto::chunk::Flags;
use caudal_proto::io::Input;
use caudal_proto::time::Timestamp;
use common::{MS, Net, S, World, seeds};

/// Whether the start is a segment start, and the time from opening to its first part whole.
fn startup(world: &World, viewer: usize) -> Duration {
    let node = &world.nodes[viewer];
    let &(epoch, number, _) = node.joined.first().expect("joined");
    let header = *world.published[&(epoch, number)].1.header();
    assert!(header.index == 0 && header.flags.has(Flags::SEGMENT_START), "it starts at a segment");
    let part = number..number + u64::from(header.count);
    let whole = part.map(|n| node.got.get(&(epoch, n)).copied().unwrap_or(Timestamp::FAR_FUTURE)).max();
    whole.expect("a part has chunks").since(node.opened)
}

/// How much media lay between the chosen start and the live edge, and how old the newest start was, on joining.
fn behind(world: &World, viewer: usize) -> (Duration, Duration) {
    let node = &world.nodes[viewer];
    let &(epoch, number, at) = node.joined.first().expect("joined");
    let newest = world.published.iter().rev().find(|((e, _), (t, chunk))| {
        *e == epoch && *t <= at && chunk.header().index == 0 && chunk.header().flags.has(Flags::SEGMENT_START)
    });
    let age = |at: Timestamp, number| at.since(world.published[&(epoch, number)].0);
    (age(at, number), age(at, newest.expect("a segment").0.1))
}

#[test]
fn newcomers_start_at_the_newest_segment_they_can_complete() {
    for (key_every_parts, seed) in [(5, 1), (10, 2), (41, 3)] {
        let mut world = World::swarm(Net { key_every_parts, ..Net::default() }, 6, seed);
        world.run(S(9));
        let segment = MS(200 * key_every_parts);
        for i in 0..8 {
            let viewer = world.viewer();
            world.run(MS(1_370));
            let took = startup(&world, viewer);
            let limit = if key_every_parts == 41 { MS(1_000) } else { MS(500) };
            assert!(took < limit, "join {i} with segments of {segment:?}: {took:?}");
            let (behind, newest) = behind(&world, viewer);
            // Far enough back to fill a buffer where segments are short, otherwise no further than the newest.
            assert!(behind <= MS(2_900) || behind == newest, "{behind:?} behind, newest {newest:?}");
        }
        world.run(S(3));
        for viewer in world.viewers() {
            // The burst is caught up with, and from then on nothing is late.
            let joined = world.nodes[viewer].joined[0].2;
            let late = world.late(viewer, MS(1500), joined, world.now.saturating_sub(S(2)));
            assert!(late.is_empty(), "viewer {viewer}: {late:?}");
            let (epoch, start, _) = world.nodes[viewer].joined[0];
            let end = world.late(viewer, S(3_600), Timestamp::ZERO, world.now.saturating_sub(S(2)));
            assert!(end.is_empty(), "viewer {viewer} of {epoch} from {start} never got {end:?}");
        }
        world.assert_peace();
    }
}

#[test]
fn six_may_come_at_the_same_moment() {
    for seed in seeds(3) {
        let mut world = World::swarm(Net { loss: 0.005, ..Net::default() }, 4, 20 + seed);
        // Just before a key frame's part is out, which is the worst moment.
        world.run(MS(190));
        let newcomers: Vec<usize> = (0..6).map(|_| world.viewer()).collect();
        world.run(S(6));
        for viewer in newcomers {
            let took = startup(&world, viewer);
            assert!(took < MS(700), "seed {seed}, viewer {viewer}: {took:?}");
            let joined = world.nodes[viewer].joined[0].2;
            let late = world.late(viewer, MS(1500), joined, world.now.saturating_sub(S(2)));
            assert!(late.is_empty(), "seed {seed}, viewer {viewer}: {late:?}");
        }
        world.assert_peace();
    }
}

#[test]
fn the_first_viewers_of_a_new_broadcast_start_with_it() {
    let mut world = World::new(Net::default(), 1);
    world.source();
    for _ in 0..4 {
        world.viewer();
    }
    world.run(S(3));
    for viewer in world.viewers() {
        assert!(startup(&world, viewer) < S(1), "viewer {viewer}");
        assert_eq!(world.nodes[viewer].joined[0].1, 0);
    }
}

#[test]
fn viewers_may_wait_for_the_broadcast() {
    let mut world = World::new(Net::default(), 2);
    for _ in 0..4 {
        world.viewer();
    }
    world.run(S(20));
    world.source();
    world.run(S(6));
    for viewer in world.viewers() {
        assert!(!world.nodes[viewer].joined.is_empty(), "viewer {viewer}");
    }
}

#[test]
fn a_stale_note_starts_nothing_and_a_fresh_one_does() {
    let mut world = World::swarm(Net::default(), 3, 5);
    world.set_tracker(false);
    let newcomer = world.viewer();
    let (channel, certificate) = (world.channel(), world.certificate.expect("on air"));
    let old = world.unix_us() - 60_000_000;
    let stale = world.old_note(&certificate, old);
    world.input(newcomer, Input::Broadcast(channel.into(), certificate, Some(stale)));
    world.run(S(3));
    assert!(world.nodes[newcomer].joined.is_empty());
    let forged = world.old_note(&certificate, world.unix_us());
    let forged = caudal_proto::broadcast::LiveNote { next_number: 1 << 50, ..forged };
    world.input(newcomer, Input::Broadcast(channel.into(), certificate, Some(forged)));
    world.run(S(3));
    assert!(world.nodes[newcomer].joined.is_empty(), "a note is checked, whoever hands it in");
    world.set_tracker(true);
    world.track(newcomer);
    world.run(S(1));
    assert!(!world.nodes[newcomer].joined.is_empty());
}

#[test]
fn clocks_that_are_five_seconds_off_harm_nobody() {
    for source_skew in [-5_000_000, 0, 5_000_000] {
        let mut world = World::new(Net::default(), 6);
        let source = world.source();
        world.set_clock(source, source_skew);
        world.run(S(3));
        for skew in [-5_000_000, 5_000_000, 0, -2_000_000, 3_000_000, 5_000_000] {
            world.viewer_with(world.net.viewer_bps, skew);
            world.run(MS(60));
        }
        world.run(S(3));
        let from = world.now;
        world.run(S(10));
        world.assert_nothing_late(from);
        world.assert_peace();
        for viewer in world.viewers() {
            let took = startup(&world, viewer);
            assert!(took < MS(500), "viewer {viewer}: {took:?}");
        }
    }
}

#[test]
fn the_end_of_a_broadcast_reaches_everybody() {
    let mut world = World::swarm(Net::default(), 8, 7);
    let from = world.now;
    world.run(S(3));
    world.end();
    world.run(S(3));
    for viewer in world.viewers() {
        assert!(world.nodes[viewer].ended, "viewer {viewer}");
        assert!(world.late(viewer, MS(1500), from, world.now).is_empty(), "viewer {viewer} has all of it");
    }
    world.assert_peace();
}

#[test]
fn a_new_broadcast_replaces_the_old_one() {
    let mut world = World::swarm(Net::default(), 6, 8);
    world.end();
    world.run(S(2));
    world.kill(0);
    world.source();
    world.run(S(5));
    let epoch = world.certificate.expect("on air").epoch;
    for viewer in world.viewers() {
        assert_eq!(world.nodes[viewer].joined.last().expect("joined").0, epoch, "viewer {viewer}");
        let late =
            world.late(viewer, MS(1500), world.now.saturating_sub(S(3)), world.now.saturating_sub(S(2)));
        assert!(late.is_empty());
    }
    world.assert_peace();
}

#[test]
fn a_swarm_whose_places_are_all_taken_lets_newcomers_in() {
    for seed in seeds(3) {
        let mut world = World::swarm(Net::default(), 40, seed + 900);
        world.run(S(45));
        for _ in 0..4 {
            let viewer = world.viewer();
            world.run(MS(700));
            let neighbours = world.stats(viewer).neighbours.len();
            assert!(neighbours >= 6, "seed {seed}: {neighbours} neighbours after 700 ms");
        }
        world.assert_peace();
    }
}

#[test]
fn who_cannot_complete_its_start_begins_with_the_next_segment() {
    let mut leapt = 0;
    for seed in seeds(4) {
        // A crowd on lines that carry little more than the stream.
        let (viewer_bps, source_bps) = (Some(1_500_000), Some(6_000_000));
        let net = Net { viewer_bps, source_bps, key_every_parts: 10, chunk_payload: 6_950, ..Net::default() };
        let mut world = World::swarm(net, 12, seed + 950);
        for _ in 0..12 {
            world.viewer();
            world.run(MS(60));
        }
        world.run(S(14));
        for viewer in world.viewers() {
            let joined = &world.nodes[viewer].joined;
            for pair in joined.windows(2) {
                leapt += 1;
                let ((epoch, before, _), (again, after, at)) = (pair[0], pair[1]);
                let header = *world.published[&(again, after)].1.header();
                assert!(header.index == 0 && header.flags.has(Flags::SEGMENT_START), "at a segment");
                assert!(epoch == again && after > before, "forwards");
                assert!(at.since(world.nodes[viewer].opened) < S(5), "and only while it joins");
            }
            let &(epoch, start, _) = joined.last().expect("joined");
            let got = &world.nodes[viewer].got;
            assert!((start..start + 80).all(|n| got.contains_key(&(epoch, n))), "viewer {viewer} has holes");
        }
        world.assert_peace();
    }
    assert!(leapt > 0, "nobody was short of anything: the test tests nothing");
}
