//! `cargo xtask bench …`: measurements with real processes on this machine, in network namespaces of their own.
//!
//! | module | owns |
//! |---|---|
//! | [`relay`] | what relaying costs: 20 viewers on the kernel's bridge |
//! | [`swarm`] | case by case over the link emulator, beside PeerStreamer |
//! | [`sim`] | populations in virtual time, beside the prototype |
//! | [`glass`] | from the encoder's picture to the one on the screen, share by share |
//! | [`isps`] | what maps of the network change, in virtual time |
//! | [`alto`] | the ALTO server with a large map |
//! | [`alto_peers`] | what a map of the network saves: bytes between ranges of addresses, with and without it |
//! | [`scale`] | what each viewer gets as viewers become more: a server, the swarm, and both |
//! | [`simulated`] | what the simulator says of a case that was run for real |
//! | [`congestion`] | connections that meet loss, queues, TCP and each other, over the link emulator |
//! | [`trial`] | one run: a source, viewers, a measured window; what all benchmarks are told and do with runs |
//! | [`meter`] | what leaves a device within a second |
//! | [`netns`] | the namespaces, what joins them, shaping, and what is counted on the wire |
//! | [`emulator`] | delay, loss and rates between namespaces, by TUN devices |
//! | [`process`] | `caudal` processes: starting, asking, ending, and what they cost |
//! | [`figures`] | what nodes report, and what a run comes to |
//! | [`snowball`] | the reference that delays are held against |
//! | [`stream`] | the same with parts that come as several chunks at once |
//! | [`report`] | targets, tables, JSON, and the table in `docs/benchmarks.md` |

mod alto;
mod alto_peers;
mod congestion;
mod emulator;
mod figures;
mod glass;
mod isps;
mod meter;
mod netns;
mod process;
mod relay;
mod report;
mod scale;
mod sim;
mod simulated;
mod snowball;
mod stream;
mod swarm;
mod trial;
mod units;

use anyhow::Result;

/// The benchmarks.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// What relaying costs: 20 viewers, a source that sends two copies; uplinks open, then narrow.
    Relay(relay::Args),
    /// Real processes over the link emulator: delay, loss, narrow uplinks, viewers that are killed, HD.
    Swarm(swarm::Args),
    /// Populations in virtual time: the usual one, departures, crowds, attackers, misjudged lines; beside the prototype.
    Sim(sim::Args),
    /// What maps of the network change, in virtual time: bytes between ISPs, beside random selection; maps that lie, fail, change.
    SimAlto(isps::Args),
    /// Real connections over the link emulator: loss, full queues, beside TCP, sixteen on one line.
    Congestion(congestion::Args),
    /// 1 to 60 viewers and beyond: nginx with HLS, the source alone, the swarm alone, both; rates, delays, origin's bytes.
    Scale(scale::Args),
    /// The ALTO server with a large map: endpoint costs per second of a core, and how soon an edit arrives.
    Alto(alto::Args),
    /// From the encoder's picture to the one on the screen among 1,000 viewers: an encoder for real, delivery and players in virtual time.
    Glass(glass::Args),
    /// Peers in four ranges of addresses: what crosses between them without a map of the network and with one.
    AltoPeers(alto_peers::Args),
}

/// Runs a benchmark; true when every target was met.
pub(crate) fn run(bench: &Bench) -> Result<bool> {
    match bench {
        Bench::Relay(args) => relay::run(args),
        Bench::Swarm(args) => swarm::run(args),
        Bench::Sim(args) => sim::run(args),
        Bench::SimAlto(args) => isps::run(args),
        Bench::Congestion(args) => congestion::run(args),
        Bench::Scale(args) => scale::run(args),
        Bench::Alto(args) => alto::run(args),
        Bench::Glass(args) => glass::run(args),
        Bench::AltoPeers(args) => alto_peers::run(args),
    }
}
