//! Measures delivery over seeds and sizes; ignored unless asked for. Constants come from the environment:
//!
//! ```text
//! SWEEP="slot_fill_percent=80,leaf_delay=100" K=4 PAYLOAD=10600 NS=6,20,60 SEEDS=5 \
//!   cargo test -p caudal-sim --release --test sweep -- --ignored --nocapture
//! ```

mod common;

use std::time::Duration;

use caudal_sim::policy;
use caudal_sim::profile::Place;
use caudal_sim::reference::{Rule, Setting};
use caudal_sim::transport::TransportModel;
use common::report::Figures;
use common::{MS, Net, S, World, percentile, seeds};

fn env<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn apply(net: &mut Net) {
    for pair in env("SWEEP", String::new()).split(',').filter(|pair| !pair.is_empty()) {
        policy::set(&mut net.policy, pair).expect("a constant of the policy");
    }
}

/// The 95th percentile of the greedy snowball.
fn snowball(net: &Net, viewers: usize, chunk_bytes: usize) -> Duration {
    let upload_bps = net.viewer_bps.expect("a line");
    let network = net.network();
    let setting = Setting {
        places: &vec![Place { class: 0, region: 0, isp: 0, upload_bps }; viewers],
        network: &network,
        source_region: 0,
        source_bps: net.source_bps.expect("a line"),
        rate_bps: u64::from(net.rate_bps),
        chunk_wire_bytes: TransportModel::default().chunk_wire_bytes(chunk_bytes as u64),
    };
    let delays: Vec<Duration> = setting.run(Rule::Greedy).into_iter().map(Duration::from_micros).collect();
    percentile(&delays, 95)
}

fn run(net: &Net, viewers: usize, seed: u64) -> Figures {
    let mut world = World::swarm(net.clone(), viewers, seed + 300);
    world.run(S(env("SETTLE", 5)));
    let before = world.before();
    world.run(S(env("SPAN", 20)));
    world.assert_peace();
    if env("REPORT", 0) == 1 {
        world.report(world.now.saturating_sub(S(20)));
    }
    world.figures(&before)
}

#[test]
#[ignore = "a measurement"]
fn sweep() {
    let open = Net { viewer_bps: Some(20_000_000), source_bps: Some(20_000_000), ..Net::default() };
    let narrow = Net { viewer_bps: Some(1_500_000), source_bps: Some(6_000_000), ..Net::default() };
    for (name, mut net) in [("open", open), ("narrow", narrow)] {
        if !env("NETS", "open,narrow".to_owned()).contains(name) {
            continue;
        }
        net.substreams = env("K", net.substreams);
        net.chunk_payload = env("PAYLOAD", net.chunk_payload);
        net.key_every_parts = env("KEY", net.key_every_parts);
        net.join_gap = MS(env("GAP", 60));
        net.tell_upload = env("TELL", 1) == 1;
        net.loss = env("LOSS", 0.0);
        apply(&mut net);
        for n in env("NS", "6,20,60".to_owned()).split(',') {
            let n: usize = n.parse().expect("a number of viewers");
            let runs: Vec<Figures> = seeds(5).map(|seed| run(&net, n, seed)).collect();
            let mean = |f: fn(&Figures) -> Duration| {
                runs.iter().map(f).sum::<Duration>().as_millis() / runs.len() as u128
            };
            let share = |f: fn(&Figures) -> f64| runs.iter().map(f).sum::<f64>() * 100.0 / runs.len() as f64;
            let worst = runs.iter().map(|f| f.p95).max().unwrap_or_default().as_millis();
            let mut startups: Vec<Duration> = runs.iter().flat_map(|f| f.startups.clone()).collect();
            startups.sort_unstable();
            let chunk = runs[0].chunk + 108;
            let p95 = snowball(&net, n, chunk).as_millis().max(1);
            println!(
                "{name:6} N {n:3} p50 {:4} p95 {:4} (worst {worst:4}, small parts {:4}) p99 {:4} max {:4} ms | reference {p95:4}, ratio {:.2} | late {:4} dup {:.2} pulled {:.2} % copies {:.3} control {:.2} % startup {} / {} ms lacked {} lost {}",
                mean(|f| f.p50),
                mean(|f| f.p95),
                mean(|f| f.p95_small),
                mean(|f| f.p99),
                mean(|f| f.max),
                mean(|f| f.p95) as f64 / p95 as f64,
                runs.iter().map(|f| f.late).sum::<usize>(),
                share(|f| f.duplicates),
                share(|f| f.pulled),
                share(|f| f.copies) / 100.0,
                share(|f| f.control),
                percentile(&startups, 90).as_millis(),
                runs.iter().map(|f| f.startup).max().unwrap_or_default().as_millis(),
                runs.iter().map(|f| f.lacked).sum::<usize>(),
                runs.iter().map(|f| f.lost).sum::<usize>(),
            );
        }
    }
}
