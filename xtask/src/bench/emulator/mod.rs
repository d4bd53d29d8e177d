//! The link emulator: a TUN device in each namespace, and a thread that carries packets from one to the other as
//! [`model`] says. The kernel here has no netem.
//!
//! Owns the devices, the clock and the counters; decides nothing about a packet. What it counts is what
//! peers put on the wire: IP bytes, also of what is lost afterwards. A TUN device takes no super-packets: the kernel cuts
//! them into segments before it hands them over.

pub(crate) mod model;

use super::netns::{self, MTU, Wire, World};
use anyhow::{Context, Result};
use model::{Fate, Line, Model, Path};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// The name of each namespace's device.
pub(super) const DEVICE: &str = "tun0";
/// Packets that a device holds until the emulator reads them.
const DEVICE_QUEUE: u32 = 2_000;
/// Packets read from one device before the others get a turn.
const BATCH: usize = 32;
/// The thread looks whether it should end this often.
const PATIENCE: Duration = Duration::from_millis(50);

/// What one peer has put on the wire.
#[derive(Debug, Default)]
struct Counter {
    bytes: AtomicU64,
    packets: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    /// By peer; the hub last.
    counters: Vec<Counter>,
    oversize: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
    /// The longest by which a packet was delivered later than the model said, µs.
    late_us: AtomicU64,
    stop: AtomicBool,
}

/// The running emulator; ends when dropped.
#[derive(Debug)]
pub(super) struct Emulator {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

/// What the emulator did besides carrying packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Packets lost on the way.
    pub(super) lost: u64,
    /// Packets that found a full queue.
    pub(super) dropped: u64,
    /// How late the machine was at worst.
    pub(super) late: Duration,
}

impl Emulator {
    /// Makes a device in each namespace (the hub's is the last, and its line is open) and begins to carry packets.
    pub(super) fn start(namespaces: &[&str], lines: &[Line], path: Path, seed: u64) -> Result<Self> {
        let devices: Vec<SyncDevice> =
            namespaces.iter().map(|namespace| netns::inside(namespace, device)).collect::<Result<_>>()?;
        let shared = Arc::new(Shared {
            counters: namespaces.iter().map(|_| Counter::default()).collect(),
            oversize: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            late_us: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let model = Model::new(lines.to_vec(), path, seed);
        let worker = Worker { shared: Arc::clone(&shared), devices, model, began: Instant::now() };
        let worker = std::thread::Builder::new()
            .name("link emulator".to_owned())
            .spawn(move || worker.run())
            .context("cannot start the link emulator")?;
        Ok(Self { shared, worker: Some(worker) })
    }

    /// What each peer has put on the wire so far.
    pub(super) fn wire(&self, peers: usize) -> Vec<Wire> {
        let counters = self.shared.counters.iter().take(peers);
        counters
            .map(|c| Wire { out_bytes: c.bytes.load(Relaxed), out_packets: c.packets.load(Relaxed) })
            .collect()
    }

    /// Packets larger than the MTU.
    pub(super) fn oversize(&self) -> u64 {
        self.shared.oversize.load(Relaxed)
    }

    /// What was lost, and how late the machine was.
    pub(super) fn tally(&self) -> Tally {
        Tally {
            lost: self.shared.lost.load(Relaxed),
            dropped: self.shared.dropped.load(Relaxed),
            late: Duration::from_micros(self.shared.late_us.load(Relaxed)),
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn device() -> Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(DEVICE)
        .layer(Layer::L3)
        .mtu(MTU as u16)
        .tx_queue_len(DEVICE_QUEUE)
        .build_sync()
        .context("cannot make a TUN device (is /dev/net/tun there?)")?;
    device.set_nonblocking(true).context("cannot make the TUN device non-blocking")?;
    Ok(device)
}

struct Worker {
    shared: Arc<Shared>,
    devices: Vec<SyncDevice>,
    model: Model<Box<[u8]>>,
    began: Instant,
}

impl Worker {
    fn run(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while !self.shared.stop.load(Relaxed) {
            self.deliver();
            let now = self.began.elapsed();
            let wait = self.model.next_due().map_or(PATIENCE, |due| due.saturating_sub(now).min(PATIENCE));
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
            let mut fds: Vec<PollFd<'_>> =
                self.devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
            if poll(&mut fds, Some(&wait)).is_err() {
                continue;
            }
            let ready: Vec<usize> =
                (0..fds.len()).filter(|i| fds[*i].revents().contains(PollFlags::IN)).collect();
            for from in ready {
                for _ in 0..BATCH {
                    let Ok(bytes) = self.devices[from].recv(&mut buffer) else { break };
                    self.take(from, &buffer[..bytes]);
                }
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.began.elapsed();
        if let Some(due) = self.model.next_due().filter(|due| *due < now) {
            self.shared.late_us.fetch_max((now - due).as_micros() as u64, Relaxed);
        }
        while let Some((to, packet)) = self.model.deliver(now) {
            // A device that takes nothing more has a receiver that does not read: the packet is lost there.
            let _ = self.devices[to].send(&packet);
        }
    }

    fn take(&mut self, from: usize, packet: &[u8]) {
        let Some(to) = destination(packet, self.devices.len() - 1) else { return };
        let now = self.began.elapsed();
        let fate = self.model.send(now, from, to, packet.len(), packet.into());
        if fate == Fate::Dropped {
            self.shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        if fate == Fate::Lost {
            self.shared.lost.fetch_add(1, Relaxed);
        }
        let counter = &self.shared.counters[from];
        counter.bytes.fetch_add(packet.len() as u64, Relaxed);
        counter.packets.fetch_add(1, Relaxed);
        if packet.len() > MTU as usize {
            self.shared.oversize.fetch_add(1, Relaxed);
        }
    }
}

/// Which of `peers` peers an IPv4 packet is for, or the hub, which comes after them.
fn destination(packet: &[u8], peers: usize) -> Option<usize> {
    let header = packet.first_chunk::<20>().filter(|header| header[0] >> 4 == 4)?;
    let to = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    if to == World::hub_address() {
        return Some(peers);
    }
    (0..peers).find(|peer| World::address(*peer) == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_find_their_peer_and_nobody_else() {
        let to = |addr: Ipv4Addr| {
            let mut packet = [0u8; 20];
            packet[0] = 0x45;
            packet[16..].copy_from_slice(&addr.octets());
            destination(&packet, 3)
        };
        assert_eq!(to(World::address(0)), Some(0));
        assert_eq!(to(World::address(2)), Some(2));
        assert_eq!(to(World::address(3)), None);
        assert_eq!(to(World::hub_address()), Some(3));
        assert_eq!(to(Ipv4Addr::new(8, 8, 8, 8)), None);
        assert_eq!(destination(&[0x60; 40], 3), None, "IPv6 is not carried");
        assert_eq!(destination(&[0x45; 19], 3), None);
    }

    /// Datagrams over a real device on each side: round trips as long as asked, as many lost as asked, bytes counted from the IP
    /// header on. Without root there are no namespaces, and the world says so.
    #[test]
    fn datagrams_take_as_long_as_asked() {
        use std::net::UdpSocket;
        let has_tun = std::path::Path::new("/dev/net/tun").exists();
        if !rustix::process::geteuid().is_root() || !has_tun {
            eprintln!("not run: it needs root and /dev/net/tun");
            return;
        }
        let line = Line { bps: Some(8_000_000), queue: Duration::from_millis(400) };
        let path = Path::new(Duration::from_millis(40), 0.0);
        let world = World::emulated(&[line, line], path, 1).unwrap();
        let socket = |peer: usize| {
            netns::inside(world.peer(peer), || Ok(UdpSocket::bind((World::address(peer), 9))?)).unwrap()
        };
        let (here, there) = (socket(0), socket(1));
        there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        here.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            for _ in 0..20 {
                let (bytes, from) = there.recv_from(&mut buffer).unwrap();
                there.send_to(&buffer[..bytes], from).unwrap();
            }
        });
        let mut rtts = Vec::new();
        for _ in 0..20 {
            let began = Instant::now();
            here.send_to(&[7; 972], (World::address(1), 9)).unwrap();
            here.recv_from(&mut [0; 1500]).unwrap();
            rtts.push(began.elapsed());
        }
        echo.join().unwrap();
        // 1,000 bytes on each line take a millisecond.
        let fastest = *rtts.iter().min().unwrap();
        assert!(fastest >= Duration::from_millis(42), "{fastest:?}");
        assert!(fastest < Duration::from_millis(60), "{fastest:?}");
        assert_eq!(world.wire().unwrap()[0], Wire { out_bytes: 20_000, out_packets: 20 });
    }
}
