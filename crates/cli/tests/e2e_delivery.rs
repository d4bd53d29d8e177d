//! Who carries a channel: what `--delivery` promises, with real processes.

mod common;

use std::process::Command;
use std::time::Duration;

use common::{Caudal, Folder, PATIENCE, link, number, publish_card, tracker, wait_until_playing};
use serde_json::Value;

fn peers(stats: &Value) -> Vec<&Value> {
    stats["peers"].as_array().expect("peers").iter().collect()
}

#[test]
fn a_server_feeds_everybody_and_nobody_hears_of_another_viewer() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--delivery", "server-only", "--price-per-gb", "0.05"]);
    let link = link(&source);
    let viewers: Vec<Caudal> = (0..4).map(|_| Caudal::start(&home, &["watch", &link])).collect();
    viewers.iter().for_each(wait_until_playing);
    for viewer in &viewers {
        let stats = viewer.wait_until("a while", PATIENCE, |stats| number(stats, "/parts") >= 25.0);
        assert_eq!(number(&stats, "/offload_ratio"), 0.0, "{stats}");
        let known = peers(&stats);
        assert!(known.len() == 1 && known[0]["source"] == true, "it knows another viewer: {known:?}");
        assert_eq!((number(&stats, "/bytes_out"), number(&stats, "/gaps")), (0.0, 0.0), "{stats}");
    }
    let stats = source.stats();
    assert_eq!(stats["delivery"], "server-only");
    let fed = peers(&stats).into_iter().filter(|peer| number(peer, "/bytes_out") > 0.0).count();
    assert_eq!(fed, 4, "{stats}");
}

#[test]
fn viewers_who_met_while_they_waited_leave_each_other() {
    let home = Folder::new();
    let tracker = tracker(&home);
    // The channel's key, so that there is a link before there is a channel.
    let key = home.join("card.key");
    let key = key.to_str().expect("a path");
    let made =
        Command::new(env!("CARGO_BIN_EXE_caudal")).args(["key", "new", "--file", key, "--json"]).output();
    let made: Value = serde_json::from_slice(&made.expect("caudal starts").stdout).expect("JSON");
    let channel = made["channel"].as_str().expect("a channel");
    let link = format!("caudal:{channel}?tracker={}", tracker.told("http"));
    let viewers: Vec<Caudal> = (0..2).map(|_| Caudal::start(&home, &["watch", &link])).collect();
    for viewer in &viewers {
        viewer.wait_until("met", PATIENCE, |stats| peers(stats).iter().any(|peer| peer["source"] == false));
    }
    let _source = publish_card(&home, &tracker, &["--delivery", "server-only", "--key", key]);
    viewers.iter().for_each(wait_until_playing);
    for viewer in &viewers {
        viewer.wait_until(
            "alone with the source",
            PATIENCE,
            |stats| matches!(&peers(stats)[..], [only] if only["source"] == true),
        );
    }
    let sent = |viewer: &Caudal| number(&viewer.stats(), "/bytes_out");
    let before: Vec<f64> = viewers.iter().map(sent).collect();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(viewers.iter().map(sent).collect::<Vec<_>>(), before, "they send each other nothing any more");
}

#[test]
fn a_swarm_carries_the_stream_where_the_source_sends_it_twice() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--delivery", "swarm-only"]);
    let link = link(&source);
    let viewers: Vec<Caudal> = (0..6).map(|_| Caudal::start(&home, &["watch", &link])).collect();
    viewers.iter().for_each(wait_until_playing);
    let before = source.stats();
    std::thread::sleep(Duration::from_secs(6));
    let after = source.stats();
    let grown = |pointer: &str| number(&after, pointer) - number(&before, pointer);
    let copies = grown("/bytes_out") / grown("/useful_bytes");
    assert!(copies < 3.0, "two copies and a little repair: {copies}");
    assert!(viewers.iter().all(|viewer| number(&viewer.stats(), "/gaps") == 0.0));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let fails = |more: &[&str], word: &str| {
        let mut args =
            vec!["publish", "--name", "Card", "--tracker", "http://127.0.0.1:9", "--input", "test"];
        args.extend(more);
        let output = Command::new(env!("CARGO_BIN_EXE_caudal")).args(&args).output().expect("caudal starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(word), "{more:?}: {said}");
    };
    fails(&["--delivery", "server-only", "--source-copies", "2"], "--upload-limit");
    fails(&["--delivery", "servers"], "swarm-only");
    fails(&["--price-per-gb", "cheap"], "0.05");
}
