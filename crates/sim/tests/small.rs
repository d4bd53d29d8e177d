//! A small swarm of homes, quickly: it gets what it must, the same seed gives the same bytes, and checks that fail say
//! how to replay it.

use std::time::Duration;

use caudal_sim::attack::AttackKind;
use caudal_sim::config::Churn;
use caudal_sim::profile::Profile;
use caudal_sim::world::Fault;
use caudal_sim::{Report, SimConfig, World};

/// Homes with upload to spare: what the engine does there must not depend on the day's tuning.
fn homes(peers: usize) -> SimConfig {
    let mut config = SimConfig::new(peers, Profile::load("residential").expect("in the repository"));
    config.upload_mean = Some(4.0);
    config.source_copies = 5.0;
    config.warmup = Duration::from_secs(8);
    config.ramp = Duration::from_secs(4);
    config.duration = Duration::from_secs(10);
    config.command = "caudal sim --peers 30".to_owned();
    config
}

fn run(config: SimConfig) -> Report {
    let report = caudal_sim::run(config).expect("it makes sense");
    println!("{report}");
    report
}

#[test]
fn homes_get_the_stream_from_each_other() {
    let report = run(homes(30));
    assert!(report.ok, "{:?}", report.checks);
    assert!(report.continuity[&3000] > 0.99, "{:?}", report.continuity);
    assert!(report.offload_ratio > 0.7 && report.offload_ratio <= report.offload_ceiling + 0.01);
    assert!(report.source_copies <= 5.0, "its line carries no more: {}", report.source_copies);
    assert!(report.delay_ratio.p50 > 0.9, "nobody beats physics by much: {}", report.delay_ratio.p50);
    assert!(report.wire_ratio > 1.07, "headers are charged: {}", report.wire_ratio);
    assert!(report.upload_use < 1.0, "{}", report.upload_use);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let hash = |seed| {
        let mut config = homes(15);
        config.seed = seed;
        config.churn = Churn::Exponential(Duration::from_secs(20));
        config.events = vec!["leave 20% at 2s".parse().expect("an event")];
        run(config).trace_hash
    };
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}

#[test]
fn planted_faults_are_caught_and_can_be_replayed() {
    let faults = [
        (Fault::RelaysForgeries, "nothing unverified is relayed"),
        (Fault::SpeaksToStrangers, "nobody talks to departed peers"),
        (Fault::LosesChunks, "chunks are conserved"),
    ];
    for (fault, caught_by) in faults {
        let mut world = World::new(homes(10)).expect("it makes sense");
        world.plant(fault, 3);
        world.run();
        let report = Report::new(&world);
        assert!(!report.ok);
        let failed: Vec<&str> =
            report.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
        assert!(failed.contains(&caught_by), "{fault:?}: {failed:?}");
        let text = report.to_string();
        assert!(text.contains("FAILED") && text.contains("caudal sim --peers 30"), "{text}");
    }
}

#[test]
fn no_attack_makes_honest_peers_deliver_or_relay_forgeries() {
    for (name, kind) in AttackKind::all() {
        let mut config = homes(16);
        config.duration = Duration::from_secs(6);
        config.attacks = vec![format!("{name}=20%").parse().expect("an attack")];
        let report = run(config);
        let safe = |check: &&caudal_sim::report::Check| check.name.starts_with("nothing unverified");
        assert!(report.checks.iter().filter(safe).all(|check| check.ok), "{name}: {:?}", report.checks);
        assert_eq!(report.attacks[0].peers, 4, "{name}");
        if kind == AttackKind::Polluter {
            let attack = &report.attacks[0];
            assert!(attack.forgeries > 0 && attack.dropped > 0, "{attack:?}");
        }
    }
}

#[test]
fn those_who_promise_much_and_pass_on_nothing_do_not_keep_the_stream_at_its_source() {
    let on_time = |seed| {
        let mut config = homes(40);
        (config.upload_mean, config.source_copies) = (Some(2.5), 3.0);
        (config.part, config.churn) = (Duration::ZERO, Churn::None);
        config.warmup = Duration::from_secs(20);
        config.duration = Duration::from_secs(8);
        config.attacks = vec!["silent=20%".parse().expect("an attack")];
        config.seed = seed;
        run(config).continuity[&3000]
    };
    let mean = (1..=3).map(on_time).sum::<f64>() / 3.0;
    assert!(mean > 0.8, "{mean}");
}

#[test]
fn what_was_lost_in_a_partition_comes_after_it() {
    let mut config = homes(20);
    config.duration = Duration::from_secs(15);
    config.churn = Churn::None;
    config.events = vec!["partition 30% at 2s for 2s".parse().expect("an event")];
    let report = run(config);
    assert!(report.ok, "{:?}", report.checks);
    let healed = report.checks.iter().find(|check| check.name.contains("heals")).expect("checked");
    assert!(healed.ok && healed.detail.contains("chunks"), "{healed:?}");
}

#[test]
fn a_chunk_is_followed_from_hop_to_hop() {
    let mut config = homes(12);
    (config.trace, config.churn) = (Some(20), Churn::None);
    let report = run(config);
    assert!(report.trace.len() >= 12, "{:?}", report.trace);
    assert!(report.trace.iter().all(|hop| hop.arrived_ms >= hop.sent_ms && hop.depth >= 1));
    assert!(report.trace.iter().any(|hop| hop.from == 0 && hop.depth == 1));
}

/// Its tracker is gone for good; every twelve seconds 30 % leave without a word, and newcomers come who know one viewer.
#[test]
fn a_swarm_without_its_tracker_stays_whole() {
    for seed in 1..=2 {
        let mut config = homes(30);
        config.seed = seed;
        config.churn = Churn::None;
        config.duration = Duration::from_secs(56);
        let events = [
            "outage tracker at 0s for 60s",
            "invite 10 at 1s over 6s",
            "leave 30% at 12s",
            "invite 10 at 13s over 6s",
            "leave 30% at 24s",
            "invite 10 at 25s over 6s",
            "leave 30% at 36s",
            "invite 10 at 37s over 6s",
            "leave 30% at 46s",
        ];
        config.events = events.into_iter().map(|text| text.parse().expect("an event")).collect();
        let report = run(config);
        assert!(report.ok, "{:?}", report.checks);
        assert_eq!(report.never_started, 0);
        assert!(report.neighbours > 9.0, "{}", report.neighbours);
        for event in &report.events {
            assert!(event.stayers_worst > 0.9, "{event:?}");
            let startup = event.startup_ms.map_or(0.0, |startup| startup.max);
            assert!(startup < 6_000.0, "{event:?}");
        }
    }
}

/// A fifth of the swarm names nobody but itself to everybody: viewers who came to know whom the tracker named still have others.
#[test]
fn an_eclipse_takes_nobody_all_neighbours() {
    let mut config = homes(24);
    config.duration = Duration::from_secs(20);
    config.churn = Churn::None;
    config.attacks = vec!["eclipse=20%".parse().expect("an attack")];
    config.events = ["outage tracker at 0s for 60s", "invite 6 at 1s over 3s"]
        .into_iter()
        .map(|text| text.parse().expect("an event"))
        .collect();
    let report = run(config);
    assert!(report.ok, "{:?}", report.checks);
    assert_eq!(report.never_started, 0);
    assert!(report.continuity[&3000] > 0.95, "{:?}", report.continuity);
}
