//! Many come, or go, at once: how fast trees stand again.

use std::time::Duration;

use caudal_sim::config::Churn;
use caudal_sim::profile::Profile;
use caudal_sim::world::Second;
use caudal_sim::{SimConfig, World};

/// Homes that come within a second.
fn homes(seed: u64) -> SimConfig {
    let profile = Profile::load("residential").expect("in the repository");
    let mut config = SimConfig::new(60, profile);
    config.seed = seed;
    config.part = Duration::ZERO;
    config.warmup = Duration::from_secs(1);
    config.ramp = Duration::from_secs(1);
    config.duration = Duration::from_secs(20);
    config.churn = Churn::None;
    config.command = "caudal sim --peers 60".to_owned();
    config
}

const fn s(seconds: u64) -> u64 {
    seconds * 1_000_000
}

/// Of all substreams of all viewers those without a parent.
fn orphaned(world: &World) -> f64 {
    let stats = world.viewers().filter_map(|viewer| world.stats(viewer));
    let (all, with) = stats.fold((0u32, 0u32), |(all, with), stats| {
        (all + u32::from(stats.substreams), with + u32::from(stats.parents))
    });
    f64::from(all - with) / f64::from(all.max(1))
}

/// Of all substreams of all viewers those whose parent is gone.
fn deceived(world: &World) -> u32 {
    let is_gone = |peer: &caudal_proto::id::PeerId| {
        world.index(peer).is_none_or(|index| !world.look_at(index).is_alive)
    };
    let stats = world.viewers().filter_map(|viewer| world.stats(viewer));
    stats
        .flat_map(|stats| stats.neighbours)
        .filter(|n| is_gone(&n.peer))
        .map(|n| n.parent_in.count_ones())
        .sum()
}

#[test]
fn the_trees_of_a_crowd_stand_after_four_seconds() {
    let mut left = 0.0;
    for seed in 1..=3 {
        let mut world = World::new(homes(seed)).expect("it makes sense");
        world.run_until(s(5) + s(1) / 2);
        left += orphaned(&world) / 3.0;
        world.run_until(s(10));
        assert_eq!(world.failures(), [""; 0]);
    }
    // It was a half while nobody offered what had not come yet.
    assert!(left < 0.2, "{left} of all substreams have no parent four seconds after the last came");
}

#[test]
fn parents_that_are_gone_are_noticed_within_a_second() {
    let mut config = homes(1);
    config.upload_mean = Some(2.0);
    let mut world = World::new(config).expect("it makes sense");
    world.run_until(s(14));
    let leaving: Vec<usize> = world.viewers().step_by(3).collect();
    leaving.into_iter().for_each(|viewer| world.kill(viewer));
    let all = deceived(&world);
    world.run_until(s(15));
    let left = deceived(&world);
    assert!(all > 50, "a third of the parents are gone: {all}");
    assert!(left * 4 < all, "{left} of {all} still count on parents that are gone");
    world.run_until(s(17));
    assert_eq!(deceived(&world), 0);
}

#[test]
fn each_second_is_told() {
    static SECONDS: std::sync::Mutex<Vec<Second>> = std::sync::Mutex::new(Vec::new());
    let mut config = homes(2);
    config.upload_mean = Some(4.0);
    config.each_second = Some(|second| SECONDS.lock().expect("nobody panics").push(*second));
    World::new(config).expect("it makes sense").run_until(s(12) + s(1) / 2);
    let seconds = SECONDS.lock().expect("nobody panics");
    assert_eq!(seconds.iter().map(|second| second.at).collect::<Vec<_>>(), (0..=12).collect::<Vec<_>>());
    let (first, last) = (&seconds[1], &seconds[12]);
    assert!(first.viewers < 60 && first.orphaned > 0.5, "they come: {first}");
    assert!(
        last.viewers == 60 && last.started == 1.0 && last.orphaned < 0.02 && last.on_time > 0.99,
        "{last}"
    );
    assert!((0.9..1.1).contains(&last.useful) && last.used < 0.5 && last.source_copies < 3.0, "{last}");
    assert_eq!(last.to_string().len(), Second::HEAD.len());
}
