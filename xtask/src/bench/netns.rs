//! Network namespaces: one per peer, one with the bridge between them (and the tracker), all removed at the end.
//!
//! Packets are counted as they would be on a cable. The devices take no segmentation offload (`gso_max_segs 1`), so that
//! the kernel cuts super-packets into segments before they are counted; and a rule on the bridge counts every packet
//! larger than the MTU, which must stay at none. Names carry our process id: what a killed run left is found and removed.
//! Nothing leaves these namespaces: the bridge has no way out.

use super::emulator::model::{Line, Path};
use super::emulator::{self, Emulator, Tally};
use crate::sh;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::process::Command;

/// The MTU of every link, as on an ordinary home connection.
pub(super) const MTU: u32 = 1500;
/// What Ethernet puts in front of every IP packet that the device counters include.
pub(super) const ETHERNET_HEADER_BYTES: u64 = 14;
/// The most peers that one bridge here can have: their addresses are 10.77.1.1 and up.
pub(super) const PEERS_MAX: usize = 250;
const NAME_PREFIX: &str = "caudal-bench-";

/// How a peer's uplink is narrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uplink {
    /// Bit/s on the wire.
    pub(super) bps: u64,
    /// How long a packet may wait, as a home router lets it.
    pub(super) queue: std::time::Duration,
}

/// Peers around a bridge, or around a link emulator.
pub(super) struct World {
    hub: String,
    peers: Vec<String>,
    /// `None`: the kernel's bridge.
    emulator: Option<Emulator>,
    _table: Option<NeighbourTable>,
}

/// The kernel's table of link-layer addresses, one for all namespaces together, made large enough; as before when it is dropped.
struct NeighbourTable {
    before: String,
}

impl NeighbourTable {
    const LIMIT: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

    /// Everybody may know everybody: past the limit whoever comes last reaches nobody.
    fn hold(peers: usize) -> Option<Self> {
        let needed = 2 * (peers + 2).pow(2);
        let before = std::fs::read_to_string(Self::LIMIT).ok()?;
        let is_enough = before.trim().parse::<usize>().is_ok_and(|limit| limit >= needed);
        (!is_enough && std::fs::write(Self::LIMIT, needed.to_string()).is_ok()).then_some(Self { before })
    }
}

impl Drop for NeighbourTable {
    fn drop(&mut self) {
        if std::fs::write(Self::LIMIT, self.before.trim()).is_err() {
            eprintln!("    {} could not be set back to {}", Self::LIMIT, self.before.trim());
        }
    }
}

/// What one peer has sent and received since its link exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wire {
    /// IP bytes that the peer put on the wire.
    pub(super) out_bytes: u64,
    /// Packets that the peer put on the wire.
    pub(super) out_packets: u64,
}

impl World {
    /// Creates namespaces for peers with these uplinks (`None`: not narrowed) around a bridge.
    pub(super) fn new(uplinks: &[Option<Uplink>]) -> Result<Self> {
        let world = Self::namespaces(uplinks.len())?;
        let hub = world.hub.clone();
        ip(&format!("-n {hub} link add br0 type bridge mcast_snooping 0"))?;
        quiet_ipv6(&hub, "br0");
        no_packet_filter(&hub);
        ip(&format!("-n {hub} addr add {}/16 dev br0", Self::hub_address()))?;
        ip(&format!("-n {hub} link set br0 up"))?;
        world.guard_packet_sizes()?;
        for (index, uplink) in uplinks.iter().enumerate() {
            world.connect(index, *uplink)?;
        }
        Ok(world)
    }

    /// Creates namespaces for peers with these lines around the link emulator.
    pub(super) fn emulated(lines: &[Line], path: Path, seed: u64) -> Result<Self> {
        let mut world = Self::namespaces(lines.len())?;
        let open = Line { bps: None, queue: std::time::Duration::ZERO };
        let lines: Vec<Line> = lines.iter().copied().chain([open]).collect();
        let namespaces: Vec<&str> = world.peers.iter().chain([&world.hub]).map(String::as_str).collect();
        world.emulator = Some(Emulator::start(&namespaces, &lines, path, seed)?);
        let addresses = (0..world.peers.len()).map(Self::address).chain([Self::hub_address()]);
        for (namespace, address) in world.peers.iter().chain([&world.hub]).zip(addresses) {
            quiet_ipv6(namespace, emulator::DEVICE);
            ip(&format!("-n {namespace} addr add {address}/16 dev {}", emulator::DEVICE))?;
            ip(&format!("-n {namespace} link set {} up", emulator::DEVICE))?;
            ip(&format!("-n {namespace} route add default dev {}", emulator::DEVICE))?;
        }
        Ok(world)
    }

    /// Empty namespaces: a hub and so many peers.
    fn namespaces(peers: usize) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root: repeat as root (sudo)");
        ensure!(peers <= PEERS_MAX, "{peers} peers: {PEERS_MAX} is the most");
        sweep()?;
        // Counted, because one process may have several worlds.
        static WORLDS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let world = WORLDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = |what: &str| format!("{NAME_PREFIX}{}-{world}-{what}", std::process::id());
        // From here on dropping it removes what exists so far.
        let table = NeighbourTable::hold(peers);
        let mut world = Self { hub: name("hub"), peers: Vec::new(), emulator: None, _table: table };
        ip(&format!("netns add {}", world.hub))?;
        ip(&format!("-n {} link set lo up", world.hub))?;
        for index in 0..peers {
            let peer = name(&index.to_string());
            ip(&format!("netns add {peer}"))?;
            world.peers.push(peer.clone());
            ip(&format!("-n {peer} link set lo up"))?;
        }
        Ok(world)
    }

    /// Joins a peer to the bridge.
    fn connect(&self, index: usize, uplink: Option<Uplink>) -> Result<()> {
        let name = self.peers[index].as_str();
        let (hub, link) = (self.hub.as_str(), format!("mtu {MTU} gso_max_segs 1"));
        ip(&format!("-n {name} link add eth0 {link} type veth peer name p{index} netns {hub}"))?;
        ip(&format!("-n {hub} link set p{index} {link}"))?;
        quiet_ipv6(hub, &format!("p{index}"));
        quiet_ipv6(name, "eth0");
        ip(&format!("-n {hub} link set p{index} master br0 up"))?;
        ip(&format!("-n {name} addr add {}/16 dev eth0", Self::address(index)))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} route add default via {}", Self::hub_address()))?;
        if let Some(Uplink { bps, queue }) = uplink {
            // A small bucket, so that what is measured is the rate.
            let shape = format!("rate {bps}bit burst 5kb latency {}ms", queue.as_millis());
            run("tc", &format!("-n {name} qdisc add dev eth0 root tbf {shape}"))?;
        }
        Ok(())
    }

    /// Counts packets larger than the MTU: there must be none, or the byte counts would miss headers.
    fn guard_packet_sizes(&self) -> Result<()> {
        let rules = format!(
            "add table bridge guard\n\
             add chain bridge guard passing {{ type filter hook forward priority 0 ; }}\n\
             add counter bridge guard oversize\n\
             add rule bridge guard passing meta length > {MTU} counter name oversize\n"
        );
        self.nft(&["-f", "-"], &rules).map(drop)
    }

    fn nft(&self, args: &[&str], stdin: &str) -> Result<String> {
        use std::io::Write;
        let mut child = in_namespace(&self.hub, "nft")?
            .args(args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("cannot start nft")?;
        child.stdin.take().expect("stdin was asked for as a pipe").write_all(stdin.as_bytes())?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "nft refused the bridge's packet counter");
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Counts from now on what crosses the bridge between ranges of peers, which follow one another.
    pub(super) fn count_between(&self, sizes: &[usize]) -> Result<()> {
        ensure!(self.emulator.is_none(), "bytes between ranges are counted on the kernel's bridge");
        let mut rules = String::from(
            "add table bridge ranges\n\
             add chain bridge ranges passing { type filter hook forward priority 1 ; }\n",
        );
        let starts =
            sizes.iter().scan(0, |next, size| Some((*next, std::mem::replace(next, *next + size) + size)));
        let ranges: Vec<String> = starts
            .map(|(first, end)| format!("{}-{}", Self::address(first), Self::address(end - 1)))
            .collect();
        for (from, source) in ranges.iter().enumerate() {
            for (to, destination) in ranges.iter().enumerate() {
                let name = format!("r{from}to{to}");
                rules.push_str(&format!(
                    "add counter bridge ranges {name}\n\
                     add rule bridge ranges passing ip saddr {source} ip daddr {destination} counter name {name}\n"
                ));
            }
        }
        self.nft(&["-f", "-"], &rules).map(drop)
    }

    /// IP bytes from each of so many ranges to each, since they are counted.
    pub(super) fn between(&self, ranges: usize) -> Result<Vec<Vec<u64>>> {
        let listed = self.nft(&["-j", "list", "counters", "table", "bridge", "ranges"], "")?;
        let listed: Value = serde_json::from_str(&listed).context("nft wrote no JSON")?;
        let counters = listed["nftables"].as_array().context("nft lists nothing")?;
        let bytes = |from: usize, to: usize| {
            let name = format!("r{from}to{to}");
            let found = counters.iter().find(|entry| entry["counter"]["name"] == name);
            found
                .and_then(|entry| entry["counter"]["bytes"].as_u64())
                .with_context(|| format!("nft lists no {name}"))
        };
        (0..ranges).map(|from| (0..ranges).map(|to| bytes(from, to)).collect()).collect()
    }

    /// How many packets larger than the MTU crossed the bridge so far.
    pub(super) fn oversize_packets(&self) -> Result<u64> {
        if let Some(emulator) = &self.emulator {
            return Ok(emulator.oversize());
        }
        let listed = self.nft(&["-j", "list", "counters", "table", "bridge", "guard"], "")?;
        let listed: Value = serde_json::from_str(&listed).context("nft wrote no JSON")?;
        let counters = listed["nftables"].as_array().into_iter().flatten();
        counters
            .filter_map(|entry| entry["counter"]["packets"].as_u64())
            .next()
            .context("nft lists no counter")
    }

    /// What every peer has put on the wire so far, by its index.
    pub(super) fn wire(&self) -> Result<Vec<Wire>> {
        if let Some(emulator) = &self.emulator {
            return Ok(emulator.wire(self.peers.len()));
        }
        let listed = sh::output(program("ip")?.args(["-n", &self.hub, "-s", "-j", "link", "show"]))?;
        wire_from(&serde_json::from_str(&listed).context("ip wrote no JSON")?, self.peers.len())
    }

    /// What the emulator did, where there is one.
    pub(super) fn tally(&self) -> Option<Tally> {
        self.emulator.as_ref().map(Emulator::tally)
    }

    /// The namespace of a peer.
    pub(super) fn peer(&self, index: usize) -> &str {
        &self.peers[index]
    }

    /// The namespace of bridge and tracker.
    pub(super) fn hub(&self) -> &str {
        &self.hub
    }

    /// The bridge's own address, where the tracker listens.
    pub(super) const fn hub_address() -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 1)
    }

    /// The address of a peer; `index` is below [`PEERS_MAX`].
    pub(super) fn address(index: usize) -> Ipv4Addr {
        let last = u8::try_from(index + 1).expect("World::new limits the number of peers");
        Ipv4Addr::new(10, 77, 1, last)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Its devices go before the namespaces that they are in.
        self.emulator = None;
        for name in self.peers.iter().chain([&self.hub]) {
            if ip(&format!("netns del {name}")).is_err() {
                eprintln!("    namespace {name} could not be removed: type `ip netns del {name}`");
            }
        }
    }
}

/// A command that runs inside a namespace.
pub(super) fn in_namespace(namespace: &str, program_name: &str) -> Result<Command> {
    let inner = if program_name.contains('/') { program_name.into() } else { find(program_name)? };
    let mut command = program("ip")?;
    command.args(["netns", "exec", namespace]).arg(inner);
    Ok(command)
}

/// Does something on a thread that has moved into a namespace's network, and hands back what came of it.
pub(super) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    use std::os::fd::AsFd;
    let handle = std::fs::File::open(std::path::Path::new("/run/netns").join(namespace))
        .with_context(|| format!("namespace {namespace} is gone"))?;
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(handle.as_fd(), network)
                .with_context(|| format!("cannot enter namespace {namespace}"))?;
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Removes what runs that were killed have left behind.
fn sweep() -> Result<()> {
    let listed = sh::output(program("ip")?.args(["netns", "list"]))?;
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        if owner(name).is_some_and(|pid| !std::path::Path::new("/proc").join(pid.to_string()).exists()) {
            sh::say(&format!("removing namespace {name}, left by a run that was killed"));
            ip(&format!("netns del {name}"))?;
        }
    }
    Ok(())
}

/// The process that made a namespace, when a benchmark of ours did.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(NAME_PREFIX)?.split('-').next()?.parse().ok()
}

/// Reads the bridge's ports `p0`, `p1`, …: what they received is what the peers sent.
fn wire_from(links: &Value, peers: usize) -> Result<Vec<Wire>> {
    let mut wire = vec![None; peers];
    for link in links.as_array().context("ip lists no links")? {
        let port = link["ifname"]
            .as_str()
            .and_then(|name| name.strip_prefix('p'))
            .and_then(|n| n.parse::<usize>().ok());
        let Some(slot) = port.and_then(|port| wire.get_mut(port)) else { continue };
        let rx = &link["stats64"]["rx"];
        let (Some(bytes), Some(packets)) = (rx["bytes"].as_u64(), rx["packets"].as_u64()) else {
            bail!("ip shows no counters for {}", link["ifname"]);
        };
        *slot = Some(Wire {
            out_bytes: bytes.saturating_sub(ETHERNET_HEADER_BYTES * packets),
            out_packets: packets,
        });
    }
    wire.into_iter().collect::<Option<Vec<_>>>().context("a peer's link is gone")
}

fn find(name: &str) -> Result<std::path::PathBuf> {
    sh::which(name).with_context(|| format!("{name} is not installed"))
}

fn program(name: &str) -> Result<Command> {
    Ok(Command::new(find(name)?))
}

/// Runs a program with the words of a line as its arguments; none of ours contains a space.
fn run(name: &str, line: &str) -> Result<()> {
    sh::output(program(name)?.args(line.split_whitespace())).map(drop)
}

fn ip(line: &str) -> Result<()> {
    run("ip", line)
}

/// Keeps a device from announcing itself over IPv6, which would be counted. A kernel without IPv6 refuses and is quiet
/// anyway.
fn quiet_ipv6(namespace: &str, device: &str) {
    let _ = ip(&format!("-n {namespace} link set {device} addrgenmode none"));
}

/// Keeps the host's packet filter off a bridge, where `br_netfilter` puts it: it is work that no viewer's own machine has. A kernel
/// without it has none to switch off.
fn no_packet_filter(namespace: &str) {
    let _ = inside(namespace, || {
        for filter in ["iptables", "ip6tables", "arptables"] {
            let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{filter}"), "0");
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_on_the_wire_are_counted_from_the_ip_header_on() {
        let port = |name: &str, bytes: u64, packets: u64| json!({"ifname": name, "stats64": {"rx": {"bytes": bytes, "packets": packets}, "tx": {"bytes": 1, "packets": 1}}});
        let links = json!([port("lo", 5, 5), port("br0", 9, 9), port("p1", 15_140, 10), port("p0", 14, 1)]);
        let wire = wire_from(&links, 2).unwrap();
        assert_eq!(
            wire,
            [Wire { out_bytes: 0, out_packets: 1 }, Wire { out_bytes: 15_000, out_packets: 10 }]
        );
        assert!(wire_from(&links, 3).is_err());
    }

    #[test]
    fn only_namespaces_of_ours_have_an_owner() {
        assert_eq!(owner("caudal-bench-4711-0-hub"), Some(4711));
        assert_eq!(owner("caudal-bench-x"), None);
        assert_eq!(owner("somebody-elses"), None);
    }

    /// A TCP transfer, which the kernel sends in super-packets: counted as segments, and nothing is oversize. Without
    /// root the world cannot be made, and says so.
    #[test]
    fn super_packets_count_as_their_segments() {
        const BYTES: usize = 200_000;
        let made = World::new(&[
            None,
            Some(Uplink { bps: 6_000_000, queue: std::time::Duration::from_millis(400) }),
        ]);
        if !rustix::process::geteuid().is_root() {
            let Err(error) = made else { panic!("made namespaces without root") };
            assert!(error.to_string().contains("root"), "{error}");
            return;
        }
        let world = made.unwrap();
        let listener =
            inside(world.peer(1), || Ok(std::net::TcpListener::bind((World::address(1), 9))?)).unwrap();
        let reader = std::thread::spawn(move || {
            std::io::copy(&mut listener.accept().unwrap().0, &mut std::io::sink())
        });
        inside(world.peer(0), || {
            use std::io::Write;
            Ok(std::net::TcpStream::connect((World::address(1), 9))?.write_all(&vec![7; BYTES])?)
        })
        .unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), BYTES as u64);
        let sent = world.wire().unwrap()[0];
        let segments = BYTES as u64 / u64::from(MTU - 52);
        // TCP may send a segment twice, so there is no exact figure; a super-packet would break every one of these.
        assert!(sent.out_packets >= segments, "{sent:?} for {segments} segments");
        assert!(sent.out_bytes >= BYTES as u64 + 52 * segments, "{sent:?}: headers are missing");
        assert!(
            sent.out_bytes <= u64::from(MTU) * sent.out_packets,
            "{sent:?}: more than fits into these packets"
        );
        assert_eq!(world.oversize_packets().unwrap(), 0);
        let hub = world.hub().to_owned();
        drop(world);
        assert!(!sh::output(program("ip").unwrap().args(["netns", "list"])).unwrap().contains(&hub));
    }
}
