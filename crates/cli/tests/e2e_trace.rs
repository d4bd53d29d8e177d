//! `caudal trace`: sampled chunks followed through real processes, of which one does not report.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{Caudal, Folder, get, link, number, publish_card, tracker, wait_until_playing};
use serde_json::Value;

/// Of a broadcast.
const SUBSTREAMS: u64 = 8;

fn short(stats: &Value) -> String {
    stats["peer"].as_str().expect("an id")[..10].to_owned()
}

fn rows(line: &Value) -> &Vec<Value> {
    line["trace"]["rows"].as_array().unwrap_or_else(|| panic!("no tree in {line}"))
}

#[test]
fn a_traced_chunk_shows_who_fed_whom_and_whoever_does_not_report_is_a_gap() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--delivery", "swarm-only", "--trace-every", "1"]);
    let link = link(&source);
    let open: Vec<Caudal> =
        (0..3).map(|_| Caudal::start(&home, &["watch", &link, "--trace-hops", "on"])).collect();
    let quiet = Caudal::start(&home, &["watch", &link]);
    open.iter().chain([&quiet]).for_each(wait_until_playing);
    // Before anybody else comes who does not report: the gap is the quiet viewer's.
    let newest = whole(&source);
    let tracer = Caudal::start(&home, &["trace", &link]);
    assert_eq!(tracer.told("role"), "tracer");

    // Who feeds whom in which substream, as the viewers' own reports have it meanwhile.
    let names: Vec<String> = open.iter().map(|viewer| short(&viewer.stats())).collect();
    let (source_name, quiet_name) = (short(&source.stats()), short(&quiet.stats()));
    let mut fed: BTreeSet<(String, String, u64)> = BTreeSet::new();
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        for (viewer, name) in open.iter().zip(&names) {
            for peer in viewer.stats()["peers"].as_array().expect("peers") {
                let parent = short(peer);
                let substreams = peer["substreams_in"].as_array().expect("substreams").iter();
                fed.extend(substreams.filter_map(Value::as_u64).map(|s| (name.clone(), parent.clone(), s)));
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let (status, _) = get(source.told("http"), "/api/v1/desk/trace");
    assert_eq!(status, 403, "the desk's figures need its token");
    let lines = end(&tracer);
    let (report, traced) = lines.split_last().expect("a report");
    assert!(report["ok"] == true && number(report, "/forged") == 0.0, "{report}");
    assert_eq!(number(report, "/chunks"), traced.len() as f64, "{report}");
    assert!(number(report, "/hop_delay_ms/p50") < 2_000.0, "{report}");
    assert!(traced.len() >= 2, "one each second or two: {lines:?}");

    let (mut pushed, mut agree, mut from_source) = (0, 0, 0);
    for line in traced.iter().chain([&newest]) {
        let (rows, chunk) = (rows(line), line["trace"]["number"].as_u64().expect("a number"));
        // Of a chunk that was reported while the tracer came or went some reports may be missing.
        for source in rows.iter().filter(|row| row["kind"] == "source") {
            from_source += 1;
            assert_eq!(source["peer"], source_name.as_str());
        }
        for row in rows.iter().filter(|row| row["kind"] != "source") {
            let Some(peer) = row["peer"].as_str() else { continue };
            let is_known = peer == source_name || names.iter().any(|name| name == peer);
            assert!(is_known, "{peer} is none of those that report: {line}");
            let Some(above) = row["parent"].as_u64().map(|at| &rows[at as usize]) else { continue };
            let Some(parent) = above["peer"].as_str() else { continue };
            if row["requested"] == false && line != &newest {
                pushed += 1;
                let told = (peer.to_owned(), parent.to_owned(), chunk % SUBSTREAMS);
                agree += usize::from(fed.contains(&told));
            }
        }
        assert!(!line.to_string().contains(&quiet_name), "who does not report is named: {line}");
    }
    println!("{} chunks, {pushed} hops that were pushed, {agree} as the viewers say", traced.len());
    assert!(from_source > 1, "the desk's tree and the tracer's begin at the source");
    assert!(pushed > 0 && agree * 10 >= pushed * 8, "{agree} of {pushed} are as the viewers say: {fed:?}");
    for viewer in open.iter().chain([&quiet]) {
        let stats = viewer.stats();
        assert_eq!(number(&stats, "/gaps"), 0.0, "traced chunks are chunks like any other: {stats}");
    }
}

/// What the tracer printed after its ready line; its report last.
fn end(tracer: &Caudal) -> Vec<Value> {
    common::signal(tracer.id(), "INT");
    let mut lines = Vec::new();
    loop {
        let line = tracer.line(common::PATIENCE);
        let is_report = line["role"] == "tracer";
        lines.push(line);
        if is_report {
            return lines;
        }
    }
}

/// The newest traced chunk that everybody had and all who report reported.
fn whole(source: &Caudal) -> Value {
    let until = Instant::now() + common::PATIENCE;
    loop {
        let newest = desk_trace(source);
        let count = |key: &str| newest.pointer(&format!("/trace/summary/{key}")).and_then(Value::as_u64);
        if count("reported") == Some(4) && count("gaps").is_some_and(|gaps| gaps > 0) {
            return newest;
        }
        assert!(Instant::now() < until, "no chunk shows three viewers and a gap: {newest}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The newest traced chunk that the broadcaster's desk shows.
fn desk_trace(source: &Caudal) -> Value {
    let token = source.told("page").split_once("#token=").expect("a token").1;
    let (status, body) = get(source.told("http"), &format!("/t/{token}/api/v1/desk/trace"));
    assert_eq!(status, 200);
    serde_json::from_slice(&body).expect("JSON")
}
