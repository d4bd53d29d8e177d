//! `caudal alto`: a map is made of a table, served, asked for by a person, edited, and refused when it is wrong; and trackers
//! and viewers go by it, for as long as it is there.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Caudal, Folder, PATIENCE, get, link, number, publish_card, wait_until_playing};
use serde_json::{Value, json};

const MAP: &str = r#"[pids]
isp-a = ["203.0.113.0/24", "2001:db8:a::/48"]
isp-b = ["198.51.100.0/24"]
default = ["0.0.0.0/0", "::/0"]
[costs]
same = 1
peering = 5
transit = 20
peerings = [["isp-a", "isp-b"]]
[metrics.delay-rt]
same = 4000
transit = 60000
"#;

/// What a person who types this reads.
fn said(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_caudal")).args(args).output().expect("caudal starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a program that types this reads.
fn told(args: &[&str]) -> Value {
    serde_json::from_str(&said(&[args, &["--json"]].concat())).expect("JSON")
}

/// As editors do it: a new file takes the old one's place.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, file).expect("replaced");
}

#[test]
fn a_map_is_served_and_asked_for() {
    let home = Folder::new();
    let file = home.join("alto.toml");
    std::fs::write(&file, MAP).expect("written");
    let config = file.to_str().expect("a path");
    assert!(
        said(&["alto", "serve", "--config", config, "--check"])
            .contains("3 PIDs, 5 prefixes, routingcost, delay-rt")
    );
    let server = Caudal::start(&home, &["alto", "serve", "--config", config, "--listen", "127.0.0.1:0"]);
    let url = server.told("http");
    let query = |more: &[&str]| said(&[&["alto", "query", url], more].concat());
    let json = |more: &[&str]| told(&[&["alto", "query", url], more].concat());

    let directory = query(&[]);
    for words in
        ["Default map: network", "network-num-routingcost", "numerical routingcost", "network.pid", "POST"]
    {
        assert!(directory.contains(words), "{words:?} is missing in:\n{directory}");
    }
    assert_eq!(json(&["directory"])["default_map"], "network");
    let map = query(&["network-map"]);
    assert!(
        map.contains("network: 3 PIDs, 5 prefixes")
            && map.contains("isp-a    203.0.113.0/24, 2001:db8:a::/48"),
        "{map}"
    );
    assert_eq!(json(&["network-map"])["pids"]["isp-b"], json!(["198.51.100.0/24"]));
    let costs = query(&["cost-map"]);
    assert!(costs.lines().any(|line| line.split_whitespace().eq(["isp-a", "20", "1", "5"])), "{costs}");
    assert_eq!(json(&["cost-map"])["costs"]["isp-a"], json!({ "default": 20.0, "isp-a": 1.0, "isp-b": 5.0 }));
    assert!(query(&["--metric", "delay-rt", "cost-map"]).contains("in µs"));

    let pids = query(&["pid", "203.0.113.7", "2001:db8:a::1", "8.8.8.8"]);
    assert!(pids.contains("203.0.113.7    isp-a    by 203.0.113.0/24"), "{pids}");
    let by_map = json(&["cost", "203.0.113.7", "198.51.100.1", "8.8.8.8"]);
    let by_server = json(&["--by-server", "cost", "203.0.113.7", "198.51.100.1", "8.8.8.8"]);
    for told in [&by_map, &by_server] {
        assert_eq!((&told["to"][0]["cost"], &told["to"][1]["cost"]), (&json!(5.0), &json!(20.0)), "{told}");
    }
    assert_eq!(json(&["--by-server", "pid", "8.8.8.8"])["8.8.8.8"]["pid"], "default");
    assert!(query(&["cost", "203.0.113.7", "198.51.100.1"]).contains("198.51.100.1 (isp-b)  5"));

    // An edit is served at once; a wrong one is not, and the line is named.
    let edited = MAP.replace("peering = 5", "peering = 7");
    replace(&file, &edited);
    let begun = Instant::now();
    while json(&["cost-map"])["costs"]["isp-a"]["isp-b"] != 7.0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the edit is not served");
    }
    replace(&file, &edited.replace("\"0.0.0.0/0\", ", ""));
    let warning = server.wait_for_error("alto.toml:", Duration::from_secs(5));
    assert!(
        warning.contains("alto.toml:1:") && warning.contains("0.0.0.0/0") && warning.contains("still served"),
        "{warning}"
    );
    assert_eq!(json(&["cost-map"])["costs"]["isp-a"]["isp-b"], 7.0);
    let (status, metrics) = get(url, "/metrics");
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&metrics).contains("alto_reloads_refused_total 1"));
    assert!(server.end().1.success());
}

#[test]
fn a_table_becomes_a_map_and_what_is_wrong_is_said() {
    let home = Folder::new();
    let table = home.join("table.tsv");
    let slice = concat!(env!("CARGO_MANIFEST_DIR"), "/../alto/tests/data/asn-slice.tsv");
    std::fs::copy(slice, &table).expect("copied");
    let (table, map) = (table.to_str().expect("a path").to_owned(), home.join("alto.toml"));
    let out = map.to_str().expect("a path");
    assert_eq!(said(&["alto", "build", "--asn", &table, "--pids", "20", "--out", out]), "");
    assert!(said(&["alto", "serve", "--config", out, "--check"]).contains("is right"));
    let printed = said(&["alto", "build", "--asn", &table, "--pids", "20"]);
    assert_eq!(std::fs::read_to_string(&map).expect("read"), printed);

    let fails = |code: i32, args: &[&str], words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_caudal")).args(args).output().expect("caudal starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        for word in words {
            assert!(errors.contains(word), "{args:?}: {word:?} is missing in: {errors}");
        }
    };
    std::fs::write(&map, MAP.replace("198.51.100.0/24", "203.0.113.0/24")).expect("written");
    fails(3, &["alto", "serve", "--config", out], &["alto.toml:3:", "isp-a", "on line 2"]);
    std::fs::write(&table, "192.0.2.0\t192.0.2.255\t64500\tES\tONE\nnonsense\n").expect("written");
    fails(3, &["alto", "build", "--asn", &table], &["line 2", "iptoasn.com"]);
    std::fs::write(&table, [0x1f, 0x8b, 8, 0]).expect("written");
    fails(3, &["alto", "build", "--asn", &table], &["gunzip"]);
    fails(2, &["alto", "query", "alto.example"], &["http://HOST:PORT/"]);
    fails(2, &["alto", "query", "http://127.0.0.1:1", "--metric", "a b", "cost-map"], &["cost metric"]);
    fails(3, &["alto", "query", "http://127.0.0.1:1"], &["cannot be reached"]);
}

/// All of 127.0.0.0/8 is this machine, so that two networks fit on it.
const LOOPBACK_MAP: &str = r#"[pids]
isp-a = ["127.1.0.0/16"]
isp-b = ["127.2.0.0/16"]
default = ["0.0.0.0/0", "::/0"]
[costs]
same = 1
transit = 20
"#;

#[test]
fn tracker_and_viewers_go_by_a_map_and_go_on_without_it() {
    let home = Folder::new();
    let file = home.join("alto.toml");
    std::fs::write(&file, LOOPBACK_MAP).expect("written");
    let config = file.to_str().expect("a path");
    let mut server = Caudal::start(&home, &["alto", "serve", "--config", config, "--listen", "127.0.0.1:0"]);
    let tracker =
        Caudal::start(&home, &["tracker", "--listen", "127.0.0.1:0", "--alto", server.told("http")]);
    let metric = |name: &str| {
        let text = String::from_utf8(get(tracker.told("http"), "/metrics").1).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("caudal_tracker_{name} ")));
        line.and_then(|value| value.parse::<f64>().ok())
    };
    let begun = Instant::now();
    while metric("map_used") != Some(1.0) {
        assert!(begun.elapsed() < PATIENCE, "the tracker has no map");
        std::thread::sleep(Duration::from_millis(50));
    }
    let source = publish_card(&home, &tracker, &["--bind", "127.1.0.1:0"]);
    let link = link(&source);
    let watch = |more: &[&str]| Caudal::start(&home, &[&["watch", &link], more].concat());
    let near = watch(&["--bind", "127.1.0.2:0"]);
    let far = watch(&["--bind", "127.2.0.1:0"]);
    let off = watch(&["--bind", "127.1.0.3:0", "--alto", "off"]);
    [&near, &far, &off].into_iter().for_each(wait_until_playing);

    // Nobody told the viewers where the map is but the tracker.
    let is_in = |pid: &'static str| move |stats: &Value| stats["network"]["pid"] == pid;
    near.wait_until("in isp-a", PATIENCE, is_in("isp-a"));
    far.wait_until("in isp-b", PATIENCE, is_in("isp-b"));
    // Neighbours that were met before the map came are looked up in their turn, once a second.
    let stats = near.wait_until("inside with the source", PATIENCE, |stats| {
        let mut peers = stats["peers"].as_array().into_iter().flatten();
        let is_told = stats["network"]["received_inside"].as_f64().is_some_and(|share| share > 0.0);
        is_told && peers.any(|peer| peer["source"] == true && peer["inside"] == true)
    });
    assert!(
        number(&stats, "/network/received_inside") <= 1.0 && number(&stats, "/network/map_age_ms") < 60e3
    );
    assert_eq!(off.stats()["network"]["pid"], Value::Null);
    assert!(metric("answers_by_map_total").is_some_and(|answers| answers > 0.0));
    let (status, metrics) = get(near.told("http"), "/metrics");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(status == 200 && metrics.contains("caudal_received_inside_ratio "), "{metrics}");

    // A change reaches them, and nobody needs the server after that.
    replace(&file, &LOOPBACK_MAP.replace("isp-a", "isp-new"));
    near.wait_until("in the new map", Duration::from_secs(10), is_in("isp-new"));
    server.kill();
    let parts = |viewer: &Caudal| number(&viewer.stats(), "/parts");
    let before = [parts(&near), parts(&far)];
    near.wait_until("going on", PATIENCE, |stats| number(stats, "/parts") > before[0] + 5.0);
    far.wait_until("going on", PATIENCE, |stats| number(stats, "/parts") > before[1] + 5.0);
    assert_eq!(near.stats()["network"]["pid"], "isp-new", "the last map is still good");
    assert_eq!(metric("map_used"), Some(1.0));
}

#[test]
fn a_tracker_serves_the_map_that_it_was_given() {
    let home = Folder::new();
    let file = home.join("alto.toml");
    std::fs::write(&file, MAP).expect("written");
    let config = file.to_str().expect("a path");
    let tracker = Caudal::start(&home, &["tracker", "--listen", "127.0.0.1:0", "--alto", config]);
    let url = format!("{}/alto/directory", tracker.told("http"));
    assert_eq!(told(&["alto", "query", &url, "network-map"])["pids"]["isp-b"], json!(["198.51.100.0/24"]));
    let costs = told(&["alto", "query", &url, "--by-server", "cost", "203.0.113.7", "8.8.8.8"]);
    assert_eq!(costs["to"][0]["cost"], 20.0);
    let metrics = String::from_utf8(get(tracker.told("http"), "/metrics").1).expect("text");
    assert!(
        metrics.contains("caudal_tracker_map_pids 3") && metrics.contains("map_info{version="),
        "{metrics}"
    );
    drop(tracker);
    std::fs::write(&file, MAP.replace("transit = 20", "transit = \"far\"")).expect("written");
    let refused = Command::new(env!("CARGO_BIN_EXE_caudal"))
        .args(["tracker", "--listen", "127.0.0.1:0", "--alto", config])
        .output()
        .expect("caudal starts");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("alto.toml:8"), "{words}");
}
