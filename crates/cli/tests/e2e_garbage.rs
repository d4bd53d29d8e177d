//! Random bytes to every open port: nothing crashes, nothing grows, and who watches sees nothing of it.

mod common;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Caudal, Folder, link, number, tracker};

const S: fn(u64) -> Duration = Duration::from_secs;
/// How long the garbage comes.
const STORM: Duration = Duration::from_secs(10);
/// Datagrams per second and sender, at most: the machine is to be tested, not its kernel's queue.
const DATAGRAMS_PER_SECOND: u32 = 12_000;

/// Local ports of a process, as `/proc/net` knows them.
fn ports(id: u32, table: &str) -> BTreeSet<u16> {
    let mut sockets = BTreeSet::new();
    for file in std::fs::read_dir(format!("/proc/{id}/fd")).expect("an own child").flatten() {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            sockets.insert(inode.to_owned());
        }
    }
    let mut found = BTreeSet::new();
    for name in [table.to_owned(), format!("{table}6")] {
        let text = std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        for fields in text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            // TCP: only what listens.
            let open = table == "udp" || fields.get(3) == Some(&"0A");
            if open && fields.get(9).is_some_and(|inode| sockets.contains(*inode)) {
                let port = fields[1].rsplit(':').next().expect("ADDR:PORT");
                found.insert(u16::from_str_radix(port, 16).expect("hexadecimal"));
            }
        }
    }
    found
}

/// Resident memory, KiB.
fn resident_kib(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).expect("an own child");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn loopback(port: u16) -> SocketAddr {
    (IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()
}

/// Looks like the beginning of something now and then, so that it gets further than the first byte.
fn datagram(rng: &mut fastrand::Rng, buffer: &mut [u8; 1400]) -> usize {
    let len = rng.usize(1..1400);
    rng.fill(&mut buffer[..len]);
    match rng.u8(..4) {
        // A QUIC version 1 Initial with an 8 byte connection id.
        0 if len > 1200 => buffer[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
        // A short header.
        1 => buffer[0] = 0x40 | (buffer[0] & 0x3f),
        _ => {}
    }
    len
}

fn shoot(ports: &[u16], seed: u64, stop: &AtomicBool, sent: &AtomicU64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut buffer = [0; 1400];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..DATAGRAMS_PER_SECOND / 200 {
            let len = datagram(&mut rng, &mut buffer);
            let port = ports[rng.usize(..ports.len())];
            sent.fetch_add(
                u64::from(socket.send_to(&buffer[..len], loopback(port)).is_ok()),
                Ordering::Relaxed,
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn babble(ports: &[u16], seed: u64, stop: &AtomicBool, made: &AtomicU64) {
    const HEADS: [&[u8]; 5] = [
        b"",
        b"\x03",
        b"GET /hls/",
        b"POST /v1/tracker HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000000000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    ];
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let port = ports[rng.usize(..ports.len())];
        let Ok(mut stream) = TcpStream::connect_timeout(&loopback(port), S(1)) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
        let len = rng.usize(1..bytes.len());
        rng.fill(&mut bytes[..len]);
        let head = HEADS[rng.usize(..HEADS.len())];
        let _ = stream.write_all(head).and_then(|()| stream.write_all(&bytes[..len]));
        let _ = stream.read(&mut bytes[..1024]);
        made.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn publish(home: &Folder, tracker: &Caudal, more: &[&str]) -> Caudal {
    let common = ["publish", "--tracker", tracker.told("http")];
    Caudal::start(home, &[&common, more].concat())
}

#[test]
fn random_bytes_to_every_port_do_no_harm() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let card = ["--name", "Garbage", "--input", "test", "--card-rate", "1M", "--card-size", "640x360"];
    let source = publish(&home, &tracker, &card);
    let rtmp = publish(&home, &tracker, &["--name", "Encoder", "--input", "rtmp://127.0.0.1:0/live"]);
    let viewers: Vec<Caudal> = (0..3).map(|_| Caudal::start(&home, &["watch", &link(&source)])).collect();
    for viewer in &viewers {
        viewer.wait_until("playing", S(20), |stats| number(stats, "/parts") >= 5.0);
    }
    let mut all: Vec<&Caudal> = vec![&tracker, &source, &rtmp];
    all.extend(&viewers);
    let gather = |table: &str| -> Vec<u16> { all.iter().flat_map(|p| ports(p.id(), table)).collect() };
    let (udp, tcp) = (gather("udp"), gather("tcp"));
    assert!(udp.len() >= 5 && tcp.len() == 7, "every node's ports: {udp:?}, {tcp:?}");
    // Most of what grows anyway (chunks kept for a minute, allocators) does so before it is weighed.
    std::thread::sleep(S(15));
    let before: Vec<u64> = all.iter().map(|p| resident_kib(p.id())).collect();
    let (stop, datagrams, connections) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (udp, tcp, stop) = (&udp, &tcp, &stop);
            let (datagrams, connections) = (&datagrams, &connections);
            scope.spawn(move || shoot(udp, seed, stop, datagrams));
            scope.spawn(move || babble(tcp, seed, stop, connections));
        }
        std::thread::sleep(STORM);
        stop.store(true, Ordering::Relaxed);
    });
    std::thread::sleep(S(3));
    let (datagrams, connections) = (datagrams.into_inner(), connections.into_inner());
    println!("{datagrams} datagrams, {connections} connections");
    assert!(datagrams > 100_000 && connections > 200, "a real storm: {datagrams}, {connections}");
    for (process, before) in all.iter().zip(before) {
        let (after, allowed) = (resident_kib(process.id()), before + before / 20 + 4096);
        println!("{}: {before} → {after} KiB", process.name);
        assert!(after <= allowed, "{}: {before} KiB grew to {after}, {allowed} allowed", process.name);
    }
    for viewer in &viewers {
        let stats = viewer.stats();
        let lost = ["/chunks/late", "/chunks/missing", "/gaps", "/stalls"].map(|path| number(&stats, path));
        assert_eq!(lost, [0.0; 4], "late, missing, gaps, stalls: {stats}");
        assert_eq!(stats["dropped"].as_array().map(Vec::len), Some(0), "{stats}");
    }
    for process in viewers.into_iter().chain([source]) {
        let (report, status) = process.end();
        assert!(status.success(), "{report}");
    }
    assert_eq!(common::get(tracker.told("http"), "/v1/channels").0, 200);
    assert_eq!(common::get(rtmp.told("http"), "/api/v1/stats").0, 200);
}
