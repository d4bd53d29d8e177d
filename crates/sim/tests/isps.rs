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
    let mut config = SimConfig::new(60, profile);
    config.alto = alto;
    config.upload_mean = Some(3.0);
    config.source_copies = 5.0;
    config.part = Duration::ZERO;
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

/// The same for three seeds: one differs from the next by a fifth.
fn runs(config: &SimConfig) -> Vec<Report> {
    let seeded = |seed: u64| run(SimConfig { seed, ..config.clone() });
    std::thread::scope(|scope| {
        let running = [1, 2, 3].map(|seed| scope.spawn(move || seeded(seed)));
        running.map(|thread| thread.join().expect("it ends")).into()
    })
}

fn mean(reports: &[Report], of: impl Fn(&Report) -> f64) -> f64 {
    reports.iter().map(of).sum::<f64>() / reports.len() as f64
}

/// As much on time as with random selection, and later by no more than a factor.
fn assert_loses_nothing(reports: &[Report], random: &[Report], later: f64) {
    let name = &isps(&reports[0]).alto;
    let on_time = |reports| mean(reports, |report| report.continuity[&1500]);
    let (here, there) = (on_time(reports), on_time(random));
    assert!(here > there - 0.001, "{name}: {here} beside {there} on time");
    let p95 = |reports| mean(reports, |report| report.chunk_delay_ms.p95);
    let (here, there) = (p95(reports), p95(random));
    assert!(here < there * later, "{name}: p95 {here} beside {there} ms");
}

#[test]
fn a_map_keeps_the_stream_inside_networks() {
    let random = run(homes(Alto::Off));
    let expected = isps(&random).random_cross_ratio;
    assert!((expected - 0.7).abs() < 0.01, "40, 30, 20 and 10 %: {expected}");
    let crosses = isps(&random).cross_ratio;
    assert!((crosses - expected).abs() < 0.05, "random selection: {crosses} of the bytes, not {expected}");
    let total: u64 = isps(&random).bytes.iter().flatten().sum();
    assert!(total as f64 > 60.0 * 10.0 * 3e6 / 8.0, "everybody's stream is counted: {total}");

    let maps = run(homes(Alto::On));
    let kept = isps(&maps).cross_ratio;
    assert!(kept < crosses * 0.4, "{kept} of the bytes instead of {crosses}");

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
fn maps_that_are_right_or_wrong_or_change_or_go_lose_nothing() {
    let random = runs(&homes(Alto::Off));
    for alto in [Alto::On, Alto::Lying, Alto::Flat, Alto::Changing, Alto::Down] {
        assert_loses_nothing(&runs(&homes(alto)), &random, 1.4);
    }
}

#[test]
fn who_has_too_little_upload_is_fed_by_others() {
    let under_seeded = |alto| {
        let mut config = homes(alto);
        config.profile.isp[2] = Isp { upload: 0.1, ..config.profile.isp[2].clone() };
        runs(&config)
    };
    let (random, maps) = (under_seeded(Alto::Off), under_seeded(Alto::On));
    // Its own leaves wait for its own parents before they turn elsewhere (1.2 to 1.5 times, measured).
    assert_loses_nothing(&maps, &random, 1.75);
    let imported = mean(&maps, |report| isps(report).isps[2].copies_imported);
    // Twelve viewers, who can upload some four copies between them.
    assert!(imported > 6.0, "it imports what it lacks: {imported}");
    let crosses = |reports| mean(reports, |report| isps(report).cross_ratio);
    assert!(crosses(&maps) < crosses(&random) * 0.6);
}
