//! The page as people use it: a real swarm here, a real Chromium in `web/test/page.mjs`, which does the looking and judging.
//!
//! `CAUDAL_PAGE_TRIES`, `CAUDAL_PAGE_SECONDS`, `CAUDAL_PAGE_CARD` (a size) and `CAUDAL_PAGE_SHOTS` (a folder) make it the
//! long run whose figures stand in `docs/benchmarks.md`, and take the pictures of the README.

mod common;

use std::time::Duration;

use common::{Caudal, Folder, PATIENCE, browse, link, wait_until_playing};
use serde_json::json;

/// The browser's whole round takes a minute; the long one with pictures takes four.
const ROUND: Duration = Duration::from_secs(400);
/// Viewers that carry the channel to the page's node.
const RESIDENTS: usize = 3;

/// Wherever this machine is, it is in this network, which the page names.
const MAP: &str = r#"[pids]
isp-rio = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]
rest = ["0.0.0.0/0", "::/0"]
[costs]
same = 1
transit = 20
"#;

fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

fn publish(home: &Folder, tracker: &Caudal, [name, about, language]: [&str; 3], card: [&str; 2]) -> Caudal {
    // Traced more often than usual, so that the desk has something to draw.
    let card = [
        "--input",
        "test",
        "--card-size",
        card[0],
        "--card-rate",
        card[1],
        "--listed",
        "--trace-every",
        "40",
    ];
    let card = [&card[..], &["--description", about, "--language", language]].concat();
    let args = [&["publish", "--name", name, "--tracker", tracker.told("http")], &card[..]].concat();
    let source = Caudal::start(home, &args);
    source.wait_until("live", PATIENCE, |stats| stats["state"] == "live");
    source
}

#[test]
fn the_page_shows_the_channel_within_a_second_and_keeps_its_promises() {
    let home = Folder::new();
    let deny = home.join("taken-down.txt");
    std::fs::write(&deny, "").expect("the operator's list can be written");
    let deny = deny.to_str().expect("a plain path");
    let map = home.join("alto.toml");
    std::fs::write(&map, MAP).expect("the map can be written");
    let map = map.to_str().expect("a plain path");
    let args = ["tracker", "--listen", "127.0.0.1:0", "--deny", deny, "--alto", map];
    let tracker = Caudal::start(&home, &args);
    let source = publish(
        &home,
        &tracker,
        ["Canal Río", "El río a su paso por la ciudad, día y noche.", "es"],
        [&setting("CAUDAL_PAGE_CARD", "640x360"), "1M"],
    );
    // All but the first report hops of traced chunks.
    let switch = |n| if n > 0 { "on" } else { "off" };
    let viewers: Vec<_> = (0..RESIDENTS)
        .map(|n| Caudal::start(&home, &["watch", &link(&source), "--trace-hops", switch(n)]))
        .collect();
    viewers.iter().for_each(wait_until_playing);
    let peers: serde_json::Map<_, _> = viewers
        .iter()
        .map(|viewer| (viewer.stats()["peer"].as_str().unwrap_or_default().to_owned(), json!(viewer.id())))
        .collect();

    // The page's node watches something else: what is pressed in the list is joined anew each time.
    let other = publish(
        &home,
        &tracker,
        ["Harbour TV", "Ships, weather and talk from the pier.", "en"],
        ["640x360", "300k"],
    );
    let node = Caudal::start(&home, &["watch", &link(&other)]);
    let to_tracker = ["--tracker", tracker.told("http")];
    let house = Caudal::start(&home, &[&["watch", "--listen", "0.0.0.0:0"], &to_tracker[..]].concat());
    let studio = ["publish", "--name", "Estudio", "--input", "rtmp://127.0.0.1:0/live"];
    let studio = Caudal::start(&home, &[&studio[..], &to_tracker[..]].concat());
    let caudal = env!("CARGO_BIN_EXE_caudal");
    let newcomer = json!([
        caudal,
        "publish",
        "--name",
        "Newcomer",
        "--input",
        "test",
        "--card-size",
        "640x360",
        "--card-rate",
        "300k",
        "--listed",
        "--tracker",
        tracker.told("http"),
        "--json"
    ]);

    let (peers, newcomer) = (json!(peers).to_string(), newcomer.to_string());
    let (tries, seconds) = (setting("CAUDAL_PAGE_TRIES", "3"), setting("CAUDAL_PAGE_SECONDS", "8"));
    let mut args = vec!["--page", node.told("page"), "--desk", source.told("page"), "--name", "Canal Río"];
    args.extend(["--house", house.told("page"), "--studio", studio.told("page"), "--deny", deny]);
    args.extend(to_tracker);
    args.extend(["--peers", &peers, "--publish", &newcomer, "--tries", &tries, "--seconds", &seconds]);
    browse(&home, "page", &args, ROUND);
    // The last press was on the desk: stop.
    let (status, _, said) = source.ended();
    assert!(status.success(), "a broadcast that the desk stopped ends in order: {status}: {said}");
}
