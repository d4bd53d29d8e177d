//! A channel in several renditions, whose viewers choose: the controller of `proto::qos` above real swarms, over lines that change.

use std::time::Duration;

use caudal_proto::id::RenditionId;
use caudal_proto::qos::rendition::Wanted;
use caudal_sim::config::{Churn, Delivery};
use caudal_sim::event::What;
use caudal_sim::profile::{Class, Profile};
use caudal_sim::report::Check;
use caudal_sim::{Report, SimConfig, World};

const S: fn(u64) -> Duration = Duration::from_secs;

/// Homes whose lines carry so many Mbit/s down and up, by share; clean lines, as near as in one country.
fn homes(peers: usize, lines: &[(f64, f64, f64)]) -> SimConfig {
    let mut profile = Profile::load("fibre").expect("in the repository");
    let rate = 3.4;
    let class = |&(share, down, up): &(f64, f64, f64)| Class {
        name: format!("{down}/{up}"),
        share,
        upload: up / rate,
        download: Some(down / rate),
    };
    profile.class = lines.iter().map(class).collect();
    let mut config = SimConfig::new(peers, profile);
    config.set_renditions(vec![3_400_000, 1_300_000, 450_000]);
    config.upload_mean = None;
    (config.delivery, config.source_copies) = (Delivery::Hybrid, 6.0);
    config.churn = Churn::None;
    config.warmup = S(9);
    config.ramp = S(4);
    config.command = format!("caudal sim --peers {peers} --renditions 3.4M,1.3M,450k");
    config
}

/// What must hold, but for what these checks say.
fn finish(mut world: World, but: &[&str]) -> Report {
    world.run();
    let report = Report::new(&world);
    println!("{report}");
    let failed = report.checks.iter().filter(|check| !check.ok && !but.contains(&check.name.as_str()));
    assert_eq!(failed.collect::<Vec<_>>(), Vec::<&Check>::new());
    report
}

#[test]
fn a_third_goes_down_with_its_lines_and_comes_back() {
    let mut config = homes(40, &[(1.0, 20.0, 14.0)]);
    config.key_interval = S(1);
    config.duration = S(26);
    config.events =
        ["line 33% 1M at 1s", "line 33% back at 7s"].map(|text| text.parse().expect("an event")).to_vec();
    let report = finish(World::new(config).expect("it makes sense"), &[]);
    let renditions = report.renditions.expect("there are several");
    let (down, up) = (renditions.down_ms.expect("down"), renditions.up_ms.expect("up"));
    assert!(down.p95 <= 2_000.0 && renditions.down_never == 0, "down within two seconds: {down}");
    assert!(up.max <= 20_000.0 && renditions.up_never <= 2, "up within twenty: {up}");
    // What has passed of a segment takes such a line a second: a picture may stand for a moment, once.
    assert!(renditions.stalls <= 24 && renditions.stalled_time < 0.02, "{renditions}");
    assert!(renditions.changes_unprovoked <= 16, "whose lines are as they were stay: {renditions}");
    assert!(renditions.changes_most <= 6, "{renditions}");
    assert!(report.continuity[&2000] > 0.99, "{:?}", report.continuity);
    let best = &renditions.renditions[0];
    assert!(best.offload_ratio > best.offload_ceiling - 0.2, "{best:?}");
}

#[test]
fn a_crowd_behind_lines_of_all_kinds_settles() {
    let mut config = homes(24, &[(0.25, 1.0, 0.5), (0.25, 2.2, 1.0), (0.25, 6.0, 4.0), (0.25, 20.0, 10.0)]);
    (config.warmup, config.ramp, config.duration) = (S(5), S(2), S(20));
    config.churn = Churn::Exponential(S(60));
    // The narrowest lines lose the point reached at times: it takes them longer to fetch than a player waits.
    let report =
        finish(World::new(config).expect("it makes sense"), &["no part is missing where renditions change"]);
    let renditions = report.renditions.as_ref().expect("there are several");
    assert_eq!(report.never_started, 0);
    assert!(
        renditions.changes <= 2.0 && renditions.changes_most <= 6,
        "nobody goes up and down: {renditions}"
    );
    assert!(renditions.stalled_time < 0.07, "{renditions}");
    let time = |place: usize| renditions.renditions[place].time;
    assert!(time(0) > 0.3 && time(2) > 0.2, "each plays what its line carries: {renditions}");
}

#[test]
fn a_choice_by_hand_wins() {
    let mut config = homes(12, &[(1.0, 8.0, 8.0)]);
    (config.warmup, config.ramp, config.duration) = (S(6), S(3), S(6));
    let mut world = World::new(config).expect("it makes sense");
    world.run_until(5_000_000);
    let chosen: Vec<usize> = world.viewers().step_by(3).collect();
    for index in &chosen {
        world.choose(*index, Wanted::Fixed(RenditionId(2)));
    }
    world.run_until(11_000_000);
    let plays = |index: &usize| world.plays(*index).0;
    assert_eq!(chosen.iter().map(plays).collect::<Vec<_>>(), vec![2; chosen.len()]);
    let others = world.viewers().filter(|index| !chosen.contains(index));
    assert!(others.map(|index| world.plays(index)).all(|plays| plays == RenditionId(0)));
    finish(world, &[]);
}

#[test]
fn one_rendition_is_what_it_was() {
    let run = |renditions: &[u64]| {
        let mut config = homes(8, &[(1.0, 20.0, 10.0)]);
        config.renditions.clear();
        config.transport.line_queue_us = u64::MAX;
        config.set_renditions(renditions.to_vec());
        (config.warmup, config.ramp, config.duration) = (S(4), S(2), S(2));
        caudal_sim::run(config).expect("it makes sense")
    };
    let (one, none) = (run(&[3_400_000]), run(&[]));
    assert!(one.renditions.is_none());
    assert_eq!(one.trace_hash, none.trace_hash);
}

#[test]
fn nonsense_is_refused_by_name() {
    for rates in [&[1_300_000, 3_400_000][..], &[3_400_000, 3_400_000], &[3_400_000, 4_000], &[1_000_000; 9]]
    {
        let mut config = homes(3, &[(1.0, 5.0, 5.0)]);
        config.set_renditions(rates.to_vec());
        assert!(World::new(config).is_err_and(|error| error.to_string().contains("renditions")), "{rates:?}");
    }
    let event: caudal_sim::event::Scheduled = "line 30% 1M at 20s".parse().expect("an event");
    assert_eq!(event.what, What::Line(0.3, 1_000_000));
}
