//! Peers leave, die, part and come back: the others go on.

mod common;

use std::time::Duration;

use common::{MS, Net, S, World, seeds};

/// The viewers with the most children first.
fn by_children(world: &World) -> Vec<usize> {
    let mut viewers = world.viewers();
    viewers.sort_by_key(|&i| std::cmp::Reverse(world.stats(i).children));
    viewers
}

/// Kills and lets 8 s pass; the longest delay that a survivor met since.
fn kill(world: &mut World, victims: &[usize]) -> Duration {
    let from = world.now.saturating_sub(S(1));
    victims.iter().for_each(|&victim| world.kill(victim));
    world.run(S(8));
    world.assert_nothing_late(from);
    world.assert_peace();
    let slowest = world.viewers().iter().filter_map(|&i| world.delays(i, from).last().copied()).max();
    slowest.unwrap_or_default()
}

#[test]
fn any_viewer_may_be_killed() {
    let mut slowest = Duration::ZERO;
    for victim in 1..=6 {
        let mut world = World::swarm(Net::default(), 6, 40 + victim as u64);
        let took = kill(&mut world, &[victim]);
        println!("victim {victim}: longest delay {took:?}");
        slowest = slowest.max(took);
    }
    // What a handover costs: a chunk was due, its parent was asked, did not answer, and another parent was found.
    assert!(slowest < S(1), "{slowest:?}");
}

#[test]
fn the_two_with_most_children_may_be_killed_at_once() {
    for seed in seeds(6) {
        let mut world = World::swarm(Net::default(), 6 + seed as usize, 60 + seed);
        let victims = by_children(&world);
        let took = kill(&mut world, &victims[..2]);
        println!("seed {seed}: longest delay {took:?}");
    }
}

#[test]
fn any_pair_of_six_may_be_killed() {
    for pair in 0..15 {
        let pairs: Vec<(usize, usize)> = (1..=6).flat_map(|a| (a + 1..=6).map(move |b| (a, b))).collect();
        let (a, b) = pairs[pair];
        let mut world = World::swarm(Net { loss: 0.005, ..Net::default() }, 6, 80 + pair as u64);
        let took = kill(&mut world, &[a, b]);
        println!("{a} and {b}: longest delay {took:?}");
    }
}

#[test]
fn a_third_of_twenty_may_be_killed_at_once() {
    for seed in seeds(3) {
        let mut world = World::swarm(Net::default(), 20, 100 + seed);
        let victims = by_children(&world);
        let victims: Vec<usize> = victims.into_iter().step_by(3).take(6).collect();
        let took = kill(&mut world, &victims);
        println!("seed {seed}: longest delay {took:?}");
    }
}

#[test]
fn who_says_goodbye_is_not_missed() {
    let mut world = World::swarm(Net::default(), 6, 120);
    let from = world.now;
    for _ in 0..3 {
        let victim = by_children(&world)[0];
        world.leave(victim);
        world.run(S(3));
    }
    world.run(S(2));
    world.assert_peace();
    for viewer in world.viewers() {
        let late = world.late(viewer, MS(700), from, world.now.saturating_sub(S(1)));
        assert!(late.is_empty(), "viewer {viewer}: {late:?}");
    }
}

#[test]
fn sessions_of_a_few_seconds_harm_nobody() {
    for seed in seeds(2) {
        sessions(seed);
    }
}

fn sessions(seed: u64) {
    let net = Net { loss: 0.005, jitter: MS(8), ..Net::default() };
    let mut world = World::swarm(net, 10, 130 + seed);
    let (from, stayers) = (world.now, world.viewers()[..4].to_vec());
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..24 {
        world.viewer();
        let others: Vec<usize> = world.viewers().into_iter().filter(|v| !stayers.contains(v)).collect();
        let victim = others[rng.usize(..others.len())];
        if rng.bool() {
            world.kill(victim);
        } else {
            world.leave(victim);
        }
        world.run(MS(700));
    }
    world.run(S(3));
    world.assert_peace();
    for viewer in stayers {
        let late = world.late(viewer, MS(1500), from, world.now.saturating_sub(S(2)));
        assert!(late.is_empty(), "viewer {viewer}: {late:?}");
    }
}

/// Time from the new broadcast's first key frame to each viewer's first delivered part of it.
fn resumes(world: &mut World) {
    let epoch = world.certificate.expect("on air").epoch;
    let began = world.published.iter().find(|((e, _), _)| *e == epoch).map(|(_, p)| p.0);
    world.run(S(8));
    world.assert_peace();
    let began = began.or_else(|| world.published.iter().find(|((e, _), _)| *e == epoch).map(|(_, p)| p.0));
    for viewer in world.viewers() {
        let first = world.nodes[viewer].got.iter().find(|((e, _), _)| *e == epoch).map(|(_, at)| *at);
        let took = first.expect("resumed").since(began.expect("published"));
        assert!(took < S(2), "viewer {viewer} resumed after {took:?}");
        let from = began.expect("published") + S(3);
        let late = world.late(viewer, MS(1500), from, world.now.saturating_sub(S(2)));
        assert!(late.is_empty(), "viewer {viewer}: {late:?}");
    }
}

#[test]
fn a_restarted_source_is_followed() {
    for (seed, gap) in [(1, 1), (2, 5), (3, 40)] {
        for same_id in [true, false] {
            let mut world = World::swarm(Net::default(), 8, 140 + seed);
            world.kill(0);
            world.run(S(gap));
            if same_id {
                world.restart_source(0);
            } else {
                world.source();
            }
            println!("gap {gap} s, same id {same_id}");
            resumes(&mut world);
        }
    }
}

#[test]
fn a_source_that_restarts_without_a_tracker_is_followed_under_its_old_id() {
    let mut world = World::swarm(Net::default(), 6, 150);
    world.kill(0);
    world.run(S(1));
    world.set_tracker(false);
    world.restart_source(0);
    // Nobody gave it addresses: its viewers dial it again.
    world.run(S(12));
    let epoch = world.certificate.expect("on air").epoch;
    for viewer in world.viewers() {
        assert!(world.nodes[viewer].got.keys().any(|(e, _)| *e == epoch), "viewer {viewer}");
    }
    world.assert_peace();
}

#[test]
fn a_partition_of_three_seconds_heals() {
    for seed in seeds(4) {
        let mut world = World::swarm(Net::default(), 10, 160 + seed);
        let before = world.now;
        world.part_world([2, 5, 7, 9], S(3));
        world.run(S(12));
        world.assert_peace();
        let from = before + S(5);
        world.assert_nothing_late(from);
        for viewer in world.viewers() {
            // The side of the source loses nothing at all; the other one gets everything in the end.
            let (deadline, side) =
                if [2, 5, 7, 9].contains(&viewer) { (S(6), "far") } else { (MS(1500), "near") };
            let late = world.late(viewer, deadline, before, before + S(5));
            assert!(late.is_empty(), "seed {seed}, viewer {viewer} on the {side} side: {late:?}");
        }
    }
}

#[test]
fn nothing_stops_while_the_tracker_is_away() {
    let mut world = World::swarm(Net::default(), 6, 170);
    world.set_tracker(false);
    let from = world.now;
    world.kill(2);
    world.run(S(20));
    world.assert_nothing_late(from);
    world.assert_peace();
}

#[test]
fn who_knows_one_viewer_finds_the_others_without_a_tracker() {
    for seed in seeds(3) {
        let mut world = World::swarm(Net::default(), 6, 180 + seed);
        world.set_tracker(false);
        let hosts = world.viewers();
        let newcomers: Vec<usize> = (0..6)
            .map(|n| {
                world.run(MS(500));
                world.invited(hosts[n % 2])
            })
            .collect();
        world.run(S(10));
        for newcomer in &newcomers {
            let neighbours = world.stats(*newcomer).neighbours.len();
            assert!(neighbours >= 6, "seed {seed}: {newcomer} has {neighbours} neighbours");
        }
        // Whoever let them in goes, and so does the half of the others.
        let from = world.now;
        hosts.iter().take(4).for_each(|host| world.kill(*host));
        world.run(S(12));
        world.assert_peace();
        world.assert_nothing_late(from + S(4));
    }
}
