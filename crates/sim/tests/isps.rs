//! A swarm over four providers, small: maps of the network keep the stream inside them, and maps that are wrong harm nobody.

use std::time::Duration;

use caudal_sim::config::Churn;
use caudal_sim::isp::{self, Alto, Isp};
use caudal_sim::profile::Profile;
use caudal_sim::report::IspsReport;
use caudal_sim::{Report, SimConfig};

/// Homes of four providers, with upload to spare: what is tested must not depend on the day's tuning.
fn homes(alto: Alto) -> SimConfig {
    let mut profile = Profile::load("residential").expect("in the repository");
    profile.isp = isp::load("4").expect("a number");
    let mut config = SimConfig::new(80, profile);
    config.alto = alto;
    config.upload_mean = Some(2.0);
    config.rate_bps = 1_000_000;
    config.warmup = Duration::from_secs(12);
    config.ramp = Duration::from_secs(4);
    config.duration = Duration::from_secs(10);
    config.churn = Churn::None;
    config.command = "caudal sim --isps 4".to_owned();
    config
}

fn run(config: SimConfig) -> Report {
    let report = caudal_sim::run(config).expect("it makes sense");
    println!("{report}");
    assert!(report.ok, "{:?}", report.checks);
    assert_eq!(report.never_started, 0);
    report
}

fn isps(report: &Report) -> &IspsReport {
    report.isps.as_ref().expect("there are ISPs")
}

/// As much on time as with random selection, within what one seed differs from the next.
fn assert_loses_nothing(report: &Report, random: &Report) {
    let name = &isps(report).alto;
    let (here, there) = (report.continuity[&1500], random.continuity[&1500]);
    assert!(here > there - 0.005, "{name}: {here} beside {there} on time");
    let (here, there) = (report.chunk_delay_ms.p95, random.chunk_delay_ms.p95);
    assert!(here < there * 1.25, "{name}: p95 {here} beside {there} ms");
}

#[test]
fn a_map_keeps_the_stream_inside_networks() {
    let random = run(homes(Alto::Off));
    let expected = isps(&random).random_cross_ratio;
    assert!((expected - 0.7).abs() < 0.01, "40, 30, 20 and 10 %: {expected}");
    let crosses = isps(&random).cross_ratio;
    assert!((crosses - expected).abs() < 0.05, "random selection: {crosses} of the bytes, not {expected}");
    let total: u64 = isps(&random).bytes.iter().flatten().sum();
    assert!(total as f64 > 80.0 * 10.0 * 1e6 / 8.0, "everybody's stream is counted: {total}");

    let maps = run(homes(Alto::On));
    let kept = isps(&maps).cross_ratio;
    assert!(kept < crosses * 0.4, "{kept} of the bytes instead of {crosses}");
    assert_loses_nothing(&maps, &random);

    let mut deaf = homes(Alto::On);
    deaf.policy.locality = false;
    let deaf = run(deaf);
    assert!(
        isps(&deaf).cross_ratio > 0.6,
        "maps that are not heeded change nothing: {}",
        isps(&deaf).cross_ratio
    );
}

#[test]
fn maps_that_are_wrong_or_change_or_go_lose_nothing() {
    let random = run(homes(Alto::Off));
    for alto in [Alto::Lying, Alto::Flat, Alto::Changing, Alto::Down] {
        assert_loses_nothing(&run(homes(alto)), &random);
    }
}

#[test]
fn who_has_too_little_upload_is_fed_by_others() {
    let under_seeded = |alto| {
        let mut config = homes(alto);
        config.profile.isp[2] = Isp { upload: 0.1, ..config.profile.isp[2].clone() };
        run(config)
    };
    let (random, maps) = (under_seeded(Alto::Off), under_seeded(Alto::On));
    assert_loses_nothing(&maps, &random);
    let imported = isps(&maps).isps[2].copies_imported;
    // Sixteen viewers, who can upload some two copies between them.
    assert!(imported > 8.0, "it imports what it lacks: {imported}");
    assert!(isps(&maps).cross_ratio < isps(&random).cross_ratio * 0.6);
}
