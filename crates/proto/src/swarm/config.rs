//! A swarm's settings and what it reports.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::locality::{NetworkMap, PathCost};
use super::policy::Policy;
use crate::broadcast::Certificate;
use crate::chunk::Verify;
use crate::id::{ChannelId, PeerId, RenditionId, SwarmId};
use crate::record::RecordKeys;

/// What this node does in a swarm.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// Publishes: its chunks come from [`Input::Publish`](crate::io::Input::Publish).
    Source {
        /// The broadcast's certificate.
        certificate: Certificate,
        /// How many times the stream rate it sends at most, in hundredths (200 = two copies); `None`: as the uplink allows.
        copies_percent: Option<u32>,
        /// It feeds every viewer itself and tells none of another.
        alone: bool,
    },
    /// Watches and relays.
    Viewer,
}

/// A swarm's settings.
pub struct SwarmConfig {
    /// The channel.
    pub channel: ChannelId,
    /// The rendition.
    pub rendition: RenditionId,
    /// What this node does here.
    pub role: Role,
    /// Whether it uploads at all.
    pub upload: bool,
    /// Chunks are kept, offered and accepted for this long behind the live edge (the discard window).
    pub retention: Duration,
    /// Neighbours on private and loopback addresses are dialled and passed on.
    pub lan: bool,
    /// Every constant and choice of delivery.
    pub policy: Policy,
    /// Checks chunks' signatures.
    pub verifier: Box<dyn Verify + Send>,
    /// Signs and checks peer records.
    pub records: Box<dyn RecordKeys + Send>,
    /// What is known of the network; `None`: distance is what round trips say.
    pub network_map: Option<Box<dyn NetworkMap>>,
}

impl SwarmConfig {
    /// Which swarm it is.
    pub fn swarm_id(&self) -> SwarmId {
        SwarmId { channel: self.channel, rendition: self.rendition }
    }
}

impl core::fmt::Debug for SwarmConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SwarmConfig")
            .field("channel", &self.channel)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A swarm's counters and gauges; counters grow from the moment it was opened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SwarmStats {
    /// The broadcast followed, 0 before there is one.
    pub epoch: u64,
    /// Measured stream rate, bit/s.
    pub rate_bps: u64,
    /// Chunk payload bytes sent to anybody, also to neighbours that have gone.
    pub bytes_out: u64,
    /// One past the newest chunk known to exist.
    pub edge: u64,
    /// Chunks held.
    pub held: u64,
    /// Chunks verified and new.
    pub received: u64,
    /// Chunk payload bytes of those.
    pub useful_bytes: u64,
    /// Of `useful_bytes`, those that came from the source itself.
    pub useful_bytes_from_source: u64,
    /// Of `useful_bytes`, those that came over HTTP from an edge.
    pub useful_bytes_from_edge: u64,
    /// Of `useful_bytes`, those that came from this node's own PID, as its map said then.
    pub useful_bytes_own_pid: u64,
    /// Of `bytes_out`, those that went to this node's own PID.
    pub bytes_out_own_pid: u64,
    /// Chunks that arrived again.
    pub duplicates: u64,
    /// Chunks that left the discard window without arriving.
    pub missed: u64,
    /// Chunks that arrived in answer to a request.
    pub pulled: u64,
    /// Chunks whose signature or shape was wrong.
    pub forged: u64,
    /// Control bytes sent.
    pub control_bytes_out: u64,
    /// Control bytes received.
    pub control_bytes_in: u64,
    /// Upload that this node's line is believed to carry, bit/s of chunks; `None` while nothing has queued on it.
    pub upload_capacity_bps: Option<u64>,
    /// How long a chunk that is to be sent now would wait, µs.
    pub upload_wait_us: u64,
    /// There are viewers, and on this uplink and most of theirs chunks wait no longer than [`Policy::queueing_wait`]: long ones will do.
    pub uplinks_clear: bool,
    /// Substreams with a parent.
    pub parents: u8,
    /// Substreams of this broadcast.
    pub substreams: u8,
    /// Children over all substreams.
    pub children: u32,
    /// For each neighbour, by id.
    pub neighbours: Vec<NeighbourStats>,
}

/// One neighbour in [`SwarmStats`].
#[derive(Debug, Clone, PartialEq)]
pub struct NeighbourStats {
    /// Who.
    pub peer: PeerId,
    /// It claims to publish the channel, and the tracker or its first signed chunk confirmed nothing to the contrary.
    pub source: bool,
    /// Round-trip time, µs.
    pub rtt_us: u64,
    /// What this node's map of the network says of the way to it, if it speaks of it.
    pub path: Option<PathCost>,
    /// Substreams it is this node's parent in, one bit each.
    pub parent_in: u16,
    /// Substreams it is this node's child in, one bit each.
    pub child_in: u16,
    /// Useful payload bytes received from it.
    pub useful_bytes_in: u64,
    /// Chunk payload bytes sent to it.
    pub bytes_out: u64,
}
