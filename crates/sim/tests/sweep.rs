//! Measures delivery over seeds and sizes; ignored unless asked for. Constants come from the environment:
//!
//! ```text
//! SWEEP="slot_fill_percent=80,leaf_delay=100" K=4 PAYLOAD=10600 NS=6,20,60 SEEDS=5 \
//!   cargo test -p caudal-proto --release --test sweep -- --ignored --nocapture
//! ```

mod common;

use std::time::Duration;

use common::report::Figures;
use common::{MS, Net, S, World, percentile, reference, seeds};

fn env<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn apply(net: &mut Net) {
    let policy = &mut net.policy;
    for pair in env("SWEEP", String::new()).split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').expect("name=value");
        let number: u64 = value.parse().expect("a number");
        match name {
            "slot_fill_percent" => policy.slot_fill_percent = number as u32,
            "slot_fill_urgent_percent" => policy.slot_fill_urgent_percent = number as u32,
            "overdue_percent" => policy.overdue_percent = number as u32,
            "overdue_after" => policy.overdue_after = MS(number),
            "last_call_after" => policy.last_call_after = MS(number),
            "serve_wait_overdue" => policy.serve_wait_overdue = MS(number),
            "joining_max" => policy.joining_max = MS(number),
            "interior_every" => policy.interior_every = number as u8,
            "class_period" => policy.class_period = MS(number),
            "shed_wait" => policy.shed_wait = MS(number),
            "age_percent" => policy.age_percent = number as u32,
            "sibling_delay" => policy.sibling_delay = MS(number),
            "leaf_delay" => policy.leaf_delay = MS(number),
            "state_period_min" => policy.state_period_min = MS(number),
            "state_period_max" => policy.state_period_max = MS(number),
            "control_percent" => policy.control_percent = number as u32,
            "switch_gain_percent" => policy.switch_gain_percent = number as u32,
            "switch_gain" => policy.switch_gain = MS(number),
            "switch_hold" => policy.switch_hold = MS(number),
            "probe_after" => policy.probe_after = MS(number),
            "starve_after" => policy.starve_after = MS(number),
            "urgent_after" => policy.urgent_after = MS(number),
            "requests_joining" => policy.requests_joining = number as usize,
            "pipeline_joining" => policy.pipeline_joining = number as usize,
            "serve_after_joining" => policy.serve_after_joining = MS(number),
            "serve_wait_joining" => policy.serve_wait_joining = MS(number),
            "crowded_wait" => policy.crowded_wait = MS(number),
            "join_wait_max" => policy.join_wait_max = MS(number),
            "join_back" => policy.join_back = MS(number),
            "pull_after" => policy.pull_after = MS(number),
            "pull_after_has" => policy.pull_after_has = MS(number),
            "pull_orphan_after" => policy.pull_orphan_after = MS(number),
            "serve_wait" => policy.serve_wait = MS(number),
            "serve_standing" => policy.serve_standing = MS(number),
            "serve_after" => policy.serve_after = MS(number),
            "push_expiry" => policy.push_expiry = MS(number),
            "neighbours_first" => policy.neighbours_first = number as usize,
            "dial_period" => policy.dial_period = MS(number),
            "neighbours_wanted" => policy.neighbours_wanted = number as usize,
            other => panic!("no constant {other}"),
        }
    }
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
            let p95 = percentile(&reference::snowball(&net, n, chunk), 95).as_millis().max(1);
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
