//! `caudal alto`: a map is made of a table, served, asked for by a person, edited, and refused when it is wrong.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Caudal, Folder, get};
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
