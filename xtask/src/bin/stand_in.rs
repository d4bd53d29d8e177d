//! Behaves as `caudal` does towards `cargo xtask bench`, for xtask's own tests: the same arguments, ready line, stats
//! and report. Its swarm is a chain: the source sends to the first viewer, and each viewer to the next.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// One packet is one chunk.
const CHUNK_BYTES: u64 = 1200;
const PEER_PORT: u16 = 4433;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let role = args.get(1).context("no role")?.clone();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    let http = TcpListener::bind(option("--listen").context("no --listen")?)?;
    println!(
        "{}",
        json!({"ready": true, "role": role, "link": "caudal:x", "http": format!("http://{}", http.local_addr()?)})
    );
    let chunks = Arc::new(AtomicU64::new(0));
    let first = option("--bind").is_some_and(|bind| bind.starts_with("10.77.1.2:"));
    serve(http, Arc::clone(&chunks), first);
    if let Some(bind) = option("--bind") {
        let bind: SocketAddrV4 = bind.parse()?;
        let next = SocketAddrV4::new(u32::from(*bind.ip()).wrapping_add(1).into(), PEER_PORT);
        let socket = UdpSocket::bind(bind)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.set_nonblocking(false)?;
        while !stop.load(Relaxed) {
            let mut packet = [7; CHUNK_BYTES as usize];
            if role == "publish" {
                std::thread::sleep(Duration::from_millis(10));
            } else if socket.recv(&mut packet).is_err() {
                continue;
            }
            chunks.fetch_add(1, Relaxed);
            // The last of the chain has nobody: its packets go nowhere.
            let _ = socket.send_to(&packet, next);
        }
    }
    while !stop.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{}", report(chunks.load(Relaxed), first));
    Ok(())
}

fn serve(http: TcpListener, chunks: Arc<AtomicU64>, first: bool) {
    std::thread::spawn(move || {
        for mut stream in http.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{}", report(chunks.load(Relaxed), first));
        }
    });
}

fn report(chunks: u64, first: bool) -> Value {
    let bytes = chunks * CHUNK_BYTES;
    json!({
        "schema": 1, "useful_bytes": bytes, "useful_bytes_from_source": if first { bytes } else { 0 },
        "chunks": {"due": chunks, "on_time": chunks, "late": 0, "missing": 0, "duplicate": 0},
        "chunk_delay_ms": {"p50": 1, "p95": 2, "p99": 2, "max": 3}, "chunk_delay_histogram_ms": {"2": chunks},
        "arrival_gap_histogram_ms": {"50": chunks},
        "chunk_payload_bytes": CHUNK_BYTES, "control_ratio": 0, "startup_ms": 100, "continuity": {"1500": 1},
        "peers": [{"rtt_ms": 0.2}], "ok": true,
    })
}
