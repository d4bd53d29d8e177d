//! What really went over the loopback interface: a capture by tcpdump, read back. It needs root (or the right to capture).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Folder, PATIENCE, signal, start_tool, wait_for};

/// One captured packet: the loopback interface takes a burst of equal datagrams (UDP GSO) as one.
pub struct Packet {
    pub from: (Ipv4Addr, u16),
    pub to: (Ipv4Addr, u16),
    /// What follows IP and ports of the whole burst, bytes: of UDP the payload.
    pub payload: u64,
}

/// A running capture.
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// Begins to capture IPv4 that `filter` (as tcpdump reads it) lets through.
    pub fn start(home: &Folder, filter: &str) -> Self {
        let file = home.join("loopback.pcap");
        let mut command = Command::new("tcpdump");
        command.args(["-i", "lo", "-n", "-U", "-s", "64", "-B", "65536", "-Z", "root", "-w"]).arg(&file);
        command.arg(filter);
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
    pub fn end(mut self) -> Vec<Packet> {
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

/// Reads a capture of Ethernet frames (which loopback pretends to carry) with IPv4 and UDP or TCP in them.
fn read_capture(file: &Path) -> Vec<Packet> {
    let bytes = std::fs::read(file).expect("tcpdump wrote its file");
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes(), "a little-endian pcap file");
    let (mut packets, mut at) = (Vec::new(), 24);
    while let Some(header) = bytes.get(at..at + 16) {
        let len = u32::from_le_bytes(header[8..12].try_into().expect("four bytes")) as usize;
        let frame = &bytes[at + 16..at + 16 + len];
        at += 16 + len;
        let ip = &frame[14..];
        assert!(ip[0] == 0x45 && matches!(ip[9], 6 | 17), "IPv4 without options, UDP or TCP");
        let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        let addr = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let payload = u64::from(if ip[9] == 17 { word(24) - 8 } else { word(2) - 20 });
        packets.push(Packet { from: (addr(12), word(20)), to: (addr(16), word(22)), payload });
    }
    packets
}
