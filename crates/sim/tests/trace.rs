//! Hop reports of the real swarm beside the world's own knowledge of a chunk's way.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use caudal_proto::hop::{DELAY_UNKNOWN_US, Hop, HopReport};
use caudal_proto::id::PeerId;
use caudal_proto::io::Transmit;
use caudal_proto::wire::{FrameWriter, Message, Trace};
use caudal_sim::paper::PaperKeys;
use common::{MS, Net, S, World};

/// 20 viewers, of whom `is_open` say who reports; the newest traced chunk has reached everybody and was reported.
fn traced(seed: u64, is_open: fn(usize) -> bool) -> World {
    let net = Net { traced_every: 60, ..Net::default() };
    let mut world = World::swarm(net, 20, seed);
    for index in (0..world.nodes.len()).filter(|index| is_open(*index)) {
        world.trace_hops(index, true, index == 0);
    }
    world.run(S(6));
    settle(&mut world);
    world
}

/// Runs until a chunk that is traced from now on has been reported by everybody.
fn settle(world: &mut World) {
    let before = world.followed().0;
    for _ in 0..200 {
        world.run(MS(50));
        if world.followed().0 != before {
            // Less than from one traced chunk to the next.
            world.run(S(2));
            return;
        }
    }
    panic!("no chunk was traced for 10 s");
}

/// What `index` was told of the newest traced chunk.
fn told(world: &World, index: usize) -> Vec<Hop> {
    let (epoch, number) = world.followed().0.expect("a chunk was traced");
    let hops = world.nodes[index].hops.iter();
    hops.filter(|hop| hop.report.epoch == epoch && hop.report.number == number).cloned().collect()
}

fn tag(world: &World, index: usize) -> u64 {
    world.nodes[index].id.tag()
}

/// From whom each node had the newest traced chunk first, and when.
fn truth(world: &World) -> BTreeMap<usize, (usize, u64)> {
    let mut first = BTreeMap::new();
    for arrival in world.followed().1 {
        first.entry(arrival.to).or_insert((arrival.from, arrival.arrived.as_micros()));
    }
    first
}

#[test]
fn the_tree_that_is_reported_is_the_way_that_the_chunk_went() {
    for seed in 1..4 {
        let world = traced(seed, |_| true);
        let (hops, truth) = (told(&world, 0), truth(&world));
        assert_eq!(hops.len(), 21, "seed {seed}: the source and every viewer");
        let peers: BTreeSet<PeerId> = hops.iter().map(|hop| hop.report.peer).collect();
        assert_eq!(peers.len(), 21);
        for Hop { report, .. } in &hops {
            assert!(report.verify(&mut PaperKeys(report.peer), &world.channel()), "signed");
            let index = (0..21).find(|index| world.nodes[*index].id == report.peer).expect("a node");
            if report.source {
                assert_eq!((index, report.from, report.rtt_us), (0, 0, 0));
                continue;
            }
            let (from, arrived) = truth[&index];
            assert_eq!(report.from, tag(&world, from), "seed {seed}: who fed {index}");
            assert_eq!(report.arrived_unix_us, world.unix_us() - world.now.as_micros() + arrived);
            assert!(report.hops_us < DELAY_UNKNOWN_US, "every hop added its share");
            // Who fed it says that it did, and when: not before the chunk was there, not after it had arrived.
            let parent = hops.iter().find(|hop| hop.report.peer.tag() == report.from).expect("reported");
            let forward = parent.report.forwards.iter().find(|forward| forward.to == report.peer.tag());
            let given = parent.report.arrived_unix_us + u64::from(forward.expect("handed on").after_us);
            let way_us = report.arrived_unix_us - given;
            assert!((5_000..120_000).contains(&way_us), "10 ms, and what the line takes: {way_us} µs");
        }
        world.assert_peace();
    }
}

#[test]
fn who_does_not_report_is_named_by_nobody_and_leaves_a_gap() {
    let mut gaps = 0;
    for seed in 1..4 {
        let world = traced(seed, |index| index == 0 || index % 2 == 1);
        let (hops, truth) = (told(&world, 0), truth(&world));
        let quiet: BTreeSet<u64> = (1..21).filter(|i| i % 2 == 0).map(|i| tag(&world, i)).collect();
        assert_eq!(hops.len(), 11, "seed {seed}: the source and every second viewer");
        for Hop { above, report } in &hops {
            let named = report.forwards.iter().map(|forward| forward.to);
            let named = named.chain([report.peer.tag(), report.from, *above]);
            assert!(named.into_iter().all(|tag| !quiet.contains(&tag)), "seed {seed}: {report:?}");
            let index = (0..21).find(|index| world.nodes[*index].id == report.peer).expect("a node");
            if report.source {
                continue;
            }
            let mut up = truth[&index].0;
            if up.is_multiple_of(2) && up != 0 {
                gaps += 1;
                assert_eq!(report.from, 0);
                // The next one up that reports is where the gap hangs.
                while up.is_multiple_of(2) && up != 0 {
                    up = truth[&up].0;
                }
                assert_eq!(*above, tag(&world, up), "seed {seed}: {index}");
            } else {
                assert_eq!((report.from, *above), (tag(&world, up), 0));
            }
        }
        world.assert_peace();
    }
    assert!(gaps > 0, "no viewer was fed by one that does not report");
}

#[test]
fn who_wants_reports_gets_those_of_all_also_far_from_the_source() {
    let mut world = traced(2, |_| true);
    // One that meets a single viewer, which has to ask for it.
    let host = 7;
    world.set_tracker(false);
    let watcher = world.invited(host);
    world.trace_hops(watcher, false, true);
    world.run(S(6));
    settle(&mut world);
    let hops = told(&world, watcher);
    assert!(hops.len() >= 21, "{} of 21", hops.len());
    assert!(hops.iter().all(|hop| hop.report.peer != world.nodes[watcher].id), "it does not report itself");
    // And nobody goes on asking when it has gone.
    world.leave(watcher);
    world.run(S(40));
    let asked = |world: &mut World| {
        let before: Vec<u64> = (0..21).map(|index| world.stats(index).control_bytes_out).collect();
        world.run(S(20));
        (0..21).map(|index| world.stats(index).control_bytes_out - before[index]).sum::<u64>()
    };
    let with_reports = asked(&mut world);
    for index in 0..21 {
        world.trace_hops(index, false, false);
    }
    world.run(S(5));
    let without = asked(&mut world);
    println!("control of 21 nodes in 20 s: {with_reports} with hop reports, {without} without");
    assert!(with_reports < without * 3 / 2);
    world.assert_peace();
}

/// Bytes of one frame on handle 0 for `to`.
fn control(to: PeerId, messages: &[Message]) -> Transmit {
    let mut writer = FrameWriter::new(0);
    for message in messages {
        assert!(writer.push(message).is_none(), "they fit one frame");
    }
    Transmit::Control { peer: to, bytes: writer.finish().expect("messages") }
}

/// Everybody reports, and one of them sends what `make` makes of a report of its own for the newest traced chunk, every 20 ms:
/// for what the one that had given it that chunk dropped it, for what the others did, and the most reports that the source has of
/// one chunk.
fn with_liar(seed: u64, make: fn(&HopReport, u64) -> Hop) -> (Vec<String>, Vec<String>, usize) {
    let mut world = World::swarm(Net { traced_every: 60, ..Net::default() }, 12, seed);
    for index in 0..world.nodes.len() {
        world.trace_hops(index, true, index == 0);
    }
    let mut turn = 0u64;
    let liar = world.nodes[3].id;
    settle(&mut world);
    let own = told(&world, 0).into_iter().find(|hop| hop.report.peer == liar).expect("it reports");
    let parent = own.report.from;
    assert_ne!(parent, 0, "its parent reports, too");
    let extra = move |_: &mut fastrand::Rng, _, peers: &[PeerId]| {
        turn += 1;
        let hop = |n| Message::Hop(Box::new(make(&own.report, turn * 8 + n)));
        peers.iter().map(|peer| control(*peer, &(0..8).map(hop).collect::<Vec<_>>())).collect()
    };
    world.turn(3, None, Some(Box::new(extra)));
    world.run(S(6));
    let (mut by_parent, mut by_others) = (Vec::new(), Vec::new());
    for node in world.nodes.iter().filter(|node| !node.hostile) {
        let reasons =
            node.dropped.iter().filter(|(peer, ..)| *peer == liar).map(|(_, reason, _)| reason.clone());
        if node.id.tag() == parent { by_parent.extend(reasons) } else { by_others.extend(reasons) }
    }
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for hop in &world.nodes[0].hops {
        *counts.entry(hop.report.number).or_default() += 1;
    }
    (by_parent, by_others, counts.into_values().max().unwrap_or(0))
}

#[test]
fn reports_of_chunks_that_are_not_traced_and_replays_end_a_neighbours_stay() {
    let untraced = |report: &HopReport, n: u64| Hop {
        above: 0,
        report: HopReport { number: report.number + 1 + n % 3, signature: [n as u8; 64], ..report.clone() },
    };
    let replayed = |report: &HopReport, _| Hop { above: 0, report: report.clone() };
    let unknown = |report: &HopReport, n: u64| Hop {
        above: 0,
        report: HopReport { number: report.number + 5_000, signature: [n as u8; 64], ..report.clone() },
    };
    for (what, make) in [
        ("not traced", untraced as fn(&HopReport, u64) -> Hop),
        ("replayed", replayed),
        ("did not get here", unknown),
    ] {
        let (by_parent, by_others, _) = with_liar(4, make);
        assert!(by_parent.len() == 1 && by_parent[0].contains(what), "{what}: {by_parent:?}");
        let expected = |reason: &String| reason.contains(what) || reason.contains("nobody asked");
        assert!(!by_others.is_empty() && by_others.iter().all(expected), "{what}: {by_others:?}");
    }
}

#[test]
fn forged_reports_of_a_traced_chunk_stay_within_their_limits() {
    // Of peers that do not exist, each once: relays cannot tell, and hand on no more than so many.
    let forged = |report: &HopReport, n: u64| {
        let mut signature = [0; 64];
        signature[..8].copy_from_slice(&n.to_be_bytes());
        let mut peer = report.peer;
        peer.0[8..16].copy_from_slice(&n.to_be_bytes());
        Hop { above: 0, report: HopReport { peer, signature, ..report.clone() } }
    };
    let (by_parent, by_others, count) = with_liar(5, forged);
    println!("{count} reports of one chunk reached the source; dropped for {by_parent:?} and {by_others:?}");
    assert!(by_parent.len() == 1 && by_parent[0].contains("floods"), "{by_parent:?}");
    assert!(!by_others.is_empty(), "those who gave it nothing of the chunk hear nothing of it");
    // Thirteen nodes, of which one says 256 things.
    assert!((13..=13 + 256).contains(&count), "{count}");
}

#[test]
fn who_asks_without_end_and_says_that_it_reports_is_heard_for_no_more_than_its_words() {
    let mut world = traced(3, |_| true);
    let ask = |_: &mut fastrand::Rng, _, peers: &[PeerId]| {
        let wants = Message::Trace(Trace { reports: true, wants: 8 });
        peers.iter().map(|peer| control(*peer, &[wants.clone(), wants.clone()])).collect()
    };
    world.turn(5, None, Some(Box::new(ask)));
    let before: u64 = (0..21).map(|index| world.stats(index).control_bytes_out).sum();
    world.run(S(20));
    let after: u64 = (0..21).map(|index| world.stats(index).control_bytes_out).sum();
    // 21 nodes, 12 neighbours each: what one asker adds is reports of a few chunks.
    println!("{} control bytes a second and node", (after - before) / 20 / 21);
    assert!((after - before) / 20 / 21 < 8_000);
    world.assert_peace();
}
