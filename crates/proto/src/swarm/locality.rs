//! What a map of the network says of the ways to other peers. Advice: the swarm works without it, and against it.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::Swarm;
use crate::id::PeerId;

/// What a map of the network says of the way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathCost {
    /// Lower is nearer; no unit. In thousandths of the map's own numbers.
    pub cost: u32,
    /// It is in this node's own PID.
    pub is_own: bool,
}

/// A map of the network, seen from this node; it may change at any time. Advice.
pub trait NetworkMap: Send {
    /// `None`: no map speaks of it (there is none, or it is too old).
    fn cost(&self, ip: IpAddr) -> Option<PathCost>;
}

/// Neighbours are looked up again this many a second: maps change.
const LOOKED_UP_MAX: usize = 16;

impl Swarm {
    /// What the map says of a peer at these addresses: the nearest counts.
    pub(super) fn path_to<'a>(&self, addrs: impl IntoIterator<Item = &'a SocketAddr>) -> Option<PathCost> {
        let map = self.config.network_map.as_ref()?;
        addrs.into_iter().filter_map(|addr| map.cost(addr.ip())).min()
    }

    /// Once a second: some neighbours are looked up again, in turn.
    pub(super) fn look_up_paths(&mut self) {
        if self.config.network_map.is_none() {
            return;
        }
        let after = self.looked_up;
        let mut turn: Vec<PeerId> = self.neighbours.values().map(|n| n.peer).collect();
        let begin = turn.partition_point(|peer| Some(*peer) <= after);
        turn.rotate_left(begin);
        for peer in turn.into_iter().take(LOOKED_UP_MAX) {
            let Some(addr) = self.neighbours.get(&peer).map(|n| n.addr) else { continue };
            let path = self.path_to(&addr);
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.path = path;
            }
            self.looked_up = Some(peer);
        }
    }
}
