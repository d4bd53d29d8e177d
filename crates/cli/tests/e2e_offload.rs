//! Viewers feed viewers: who sends what to whom is counted on the wire, by a capture, beside what the nodes report.
//!
//! Every process has a loopback address of its own, so that a capture of the loopback interface tells them apart. It needs
//! root (or the right to capture) and tcpdump.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use common::capture::{Capture, Packet};
use common::{Caudal, Folder, desk, link, number, publish_card, tracker, wait_until_playing};

const VIEWERS: u8 = 6;
const RUN: Duration = Duration::from_secs(32);
/// Large datagrams that make a sender of media; QUIC's probes of the path's MTU are as large, some ten a connection.
const LARGE_MIN: u64 = 30;
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 77, 1);

/// The address of viewer `n`.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 77, 10 + n)
}

/// IP bytes that a burst makes on a link of 1,500 bytes: each datagram has 28 bytes of headers. How a burst was cut is
/// not in a capture; datagrams of 1,200 bytes (QUIC's smallest limit) make the most headers, so this never counts too few.
fn ip_bytes(packet: &Packet) -> u64 {
    packet.payload + 28 * packet.payload.div_ceil(1200).max(1)
}

#[test]
fn the_source_sends_two_copies_and_viewers_the_rest() {
    let home = Folder::new();
    let capture = Capture::start(&home, "udp and net 127.0.77.0/24");
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--source-copies", "2", "--bind", &format!("{SOURCE}:0")]);
    let link = link(&source);
    let viewers: Vec<Caudal> = (0..VIEWERS)
        .map(|n| Caudal::start(&home, &["watch", &link, "--bind", &format!("{}:0", address(n))]))
        .collect();
    viewers.iter().for_each(wait_until_playing);
    std::thread::sleep(RUN);

    let reports: Vec<_> = viewers.iter().map(Caudal::stats).collect();
    // They have all told their tracker how it goes, and the broadcaster is told what that comes to.
    let (status, desk) = desk(&source);
    assert_eq!(status, 200, "{desk}");
    assert!(number(&desk, "/audience/reports") >= f64::from(VIEWERS - 1), "{desk}");
    assert!(
        number(&desk, "/audience/continuity") > 0.9 && number(&desk, "/audience/delay_p95_ms") > 0.0,
        "{desk}"
    );
    for viewer in viewers {
        viewer.end();
    }
    let (source_report, _) = source.end();
    let packets = capture.end();

    let sum = |path| reports.iter().map(|report| number(report, path)).sum::<f64>();
    let offload = 1.0 - sum("/useful_bytes_from_source") / sum("/useful_bytes");
    let sent: u64 = packets.iter().filter(|packet| packet.from.0 == SOURCE).map(ip_bytes).sum();
    let copies = sent as f64 / number(&source_report, "/useful_bytes");
    println!("offload {offload:.3}, source copies in IP bytes {copies:.3}");

    let mut few = Vec::new();
    for (n, report) in (0..).zip(&reports) {
        let useful = number(report, "/useful_bytes");
        let peers = report["peers"].as_array().expect("peers");
        let shares = peers.iter().filter(|peer| peer["source"] == false);
        let shares: Vec<f64> = shares.map(|peer| number(peer, "/useful_bytes_in") / useful).collect();
        // Datagrams as large as media makes them, by where they came from.
        let mut heard: BTreeMap<(Ipv4Addr, u16), u64> = BTreeMap::new();
        for packet in packets.iter().filter(|packet| packet.to.0 == address(n) && packet.payload >= 1000) {
            *heard.entry(packet.from).or_default() += 1;
        }
        heard.retain(|_, datagrams| *datagrams >= LARGE_MIN);
        let ports: BTreeSet<_> = packets.iter().filter(|p| p.to.0 == address(n)).map(|p| p.to.1).collect();
        let control = number(report, "/control_ratio");
        println!(
            "viewer {n}: control ratio {control:.3}, shares {shares:.3?}, heard {heard:?}, at ports {ports:?}"
        );
        let good = shares.iter().filter(|share| **share >= 0.10).count();
        if good < 2 {
            few.push(format!("viewer {n} has 10 % of its bytes from {good} other viewers: {shares:.3?}"));
        }
        if heard.len() < 3 {
            few.push(format!("viewer {n} hears from {heard:?} only"));
        }
        if number(report, "/chunks/missing") > 0.0 || report["ok"] != true {
            few.push(format!("viewer {n} did not get the stream whole: {report}"));
        }
    }
    assert!(few.is_empty(), "{few:#?}");
    assert!(offload >= 0.60, "offload ratio {offload:.3}");
    assert!(copies <= 2.3, "the source sent {copies:.3} copies");
    // What the capture counted and what the source says it sent must be about the same thing.
    assert!(sent as f64 >= number(&source_report, "/bytes_out"), "the capture missed some: {sent}");
}
