//! Viewers feed viewers: who sends what to whom is counted on the wire, by a capture, beside what the nodes report.
//!
//! Every process has a loopback address of its own, so that a capture of the loopback interface tells them apart. It needs
//! root (or the right to capture) and tcpdump.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    Caudal, Folder, PATIENCE, link, number, publish_card, signal, start_tool, tracker, wait_for,
    wait_until_playing,
};

const VIEWERS: u8 = 6;
const RUN: Duration = Duration::from_secs(32);
/// Large datagrams that make a sender of media; QUIC's probes of the path's MTU are as large, some ten a connection.
const LARGE_MIN: u64 = 30;
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 77, 1);

/// The address of viewer `n`.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 77, 10 + n)
}

/// One captured packet: the loopback interface takes a burst of equal datagrams (UDP GSO) as one.
struct Packet {
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    /// UDP payload of the whole burst, bytes.
    payload: u64,
}

/// A running capture of the test's own addresses.
struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    fn start(home: &Folder) -> Self {
        let file = home.join("loopback.pcap");
        let mut command = Command::new("tcpdump");
        command.args(["-i", "lo", "-n", "-U", "-s", "64", "-B", "65536", "-Z", "root", "-w"]).arg(&file);
        command.args(["udp", "and", "net", "127.0.77.0/24"]);
        let tcpdump = start_tool(command.stderr(Stdio::piped()));
        let mut capture = Self { tcpdump, file };
        // The file's header is there when the interface is open.
        let deadline = Instant::now() + PATIENCE;
        while std::fs::metadata(&capture.file).map_or(0, |file| file.len()) < 24 {
            let running = matches!(capture.tcpdump.try_wait(), Ok(None));
            assert!(running, "tcpdump cannot capture: {}; this test needs root", capture.said());
            assert!(Instant::now() < deadline, "tcpdump does not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        capture
    }

    fn said(&mut self) -> String {
        self.tcpdump.stderr.take().and_then(|said| std::io::read_to_string(said).ok()).unwrap_or_default()
    }

    /// Ends it. Nothing may have been lost: counts would mean nothing.
    fn end(mut self) -> Vec<Packet> {
        signal(self.tcpdump.id(), "INT");
        wait_for(&mut self.tcpdump, PATIENCE);
        let said = self.said();
        assert!(said.contains("\n0 packets dropped by kernel"), "the capture is not whole: {said}");
        read_capture(&self.file)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// Reads a capture of Ethernet frames (which loopback pretends to carry) with IPv4 and UDP in them.
fn read_capture(file: &Path) -> Vec<Packet> {
    let bytes = std::fs::read(file).expect("tcpdump wrote its file");
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes(), "a little-endian pcap file");
    let (mut packets, mut at) = (Vec::new(), 24);
    while let Some(header) = bytes.get(at..at + 16) {
        let len = u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize;
        let frame = &bytes[at + 16..at + 16 + len];
        at += 16 + len;
        let ip = &frame[14..];
        assert_eq!((ip[0], ip[9]), (0x45, 17), "IPv4 without options, UDP");
        let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        let addr = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let payload = u64::from(word(24)) - 8;
        packets.push(Packet { from: (addr(12), word(20)), to: (addr(16), word(22)), payload });
    }
    packets
}

/// IP bytes that a burst makes on a link of 1,500 bytes: each datagram has 28 bytes of headers. How a burst was cut is
/// not in a capture; datagrams of 1,200 bytes (QUIC's smallest limit) make the most headers, so this never counts too few.
fn ip_bytes(packet: &Packet) -> u64 {
    packet.payload + 28 * packet.payload.div_ceil(1200).max(1)
}

#[test]
fn the_source_sends_two_copies_and_viewers_the_rest() {
    let home = Folder::new();
    let capture = Capture::start(&home);
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--source-copies", "2", "--bind", &format!("{SOURCE}:0")]);
    let link = link(&source);
    let viewers: Vec<Caudal> = (0..VIEWERS)
        .map(|n| Caudal::start(&home, &["watch", &link, "--bind", &format!("{}:0", address(n))]))
        .collect();
    viewers.iter().for_each(wait_until_playing);
    std::thread::sleep(RUN);

    let reports: Vec<_> = viewers.iter().map(Caudal::stats).collect();
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
