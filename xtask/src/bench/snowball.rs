//! The greedy snowball: how fast one chunk could spread if nothing else were on anybody's uplink.
//!
//! One chunk alone; at every step each holder sends to the fastest peer that lacks it, one copy after another. A
//! heuristic and a reference, not a strict bound. It costs what the physics costs (serialisation of the chunk with its
//! packet headers on the sender's uplink, then propagation) and nothing else: no queue, no decision, no other chunk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Packet headers in front of every byte: 1,452-byte QUIC payloads make 16 KiB cost 1.052 times its size.
pub(super) const WIRE_OVERHEAD: f64 = 1.052;

/// One population and one chunk.
#[derive(Clone, Debug)]
pub(super) struct Snowball {
    /// The chunk's payload in bytes.
    pub(super) chunk_bytes: f64,
    /// The source's uplink in bit/s.
    pub(super) source_bps: f64,
    /// How many copies the source sends; `None`: as many as it can.
    pub(super) source_copies: Option<usize>,
    /// Every peer's uplink in bit/s; 0 for a peer that only receives.
    pub(super) peers_bps: Vec<f64>,
    /// From the last bit sent to the last bit received, in ms.
    pub(super) propagation_ms: f64,
}

impl Snowball {
    /// When each peer holds the chunk, in ms after the source has it, in ascending order. Peers that nobody can reach
    /// are infinitely late.
    pub(super) fn delays_ms(&self) -> Vec<f64> {
        // Whoever lacks the chunk is a suffix of this order, because the fastest is always served first.
        let mut order = self.peers_bps.clone();
        order.sort_by(|a, b| b.total_cmp(a));
        let mut waiting = order.into_iter();
        let mut copies_left = self.source_copies.unwrap_or(usize::MAX);
        let mut delays = Vec::with_capacity(self.peers_bps.len());
        // (when in ns, order of creation, uplink, is the source): whole nanoseconds, so that ties break the same way.
        let mut free: BinaryHeap<Reverse<(u64, usize, u64, bool)>> = BinaryHeap::new();
        free.push(Reverse((0, 0, self.source_bps.round() as u64, true)));
        while let Some(Reverse((now_ns, id, bps, is_source))) = free.pop() {
            if bps == 0 || (is_source && copies_left == 0) {
                continue;
            }
            let Some(next_bps) = waiting.next() else { break };
            if is_source {
                copies_left -= 1;
            }
            let sent_ns = now_ns + (self.chunk_bytes * WIRE_OVERHEAD * 8e9 / bps as f64).round() as u64;
            let held_ns = sent_ns + (self.propagation_ms * 1e6).round() as u64;
            delays.push(held_ns as f64 / 1e6);
            free.push(Reverse((sent_ns, id, bps, is_source)));
            free.push(Reverse((held_ns, delays.len(), next_bps.round() as u64, false)));
        }
        delays.extend(waiting.map(|_| f64::INFINITY));
        delays.sort_by(f64::total_cmp);
        delays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk that takes exactly 100 ms on a 1 Mbit/s uplink.
    fn snowball(source_copies: Option<usize>, peers_bps: Vec<f64>) -> Snowball {
        let chunk_bytes = 12_500.0 / WIRE_OVERHEAD;
        Snowball { chunk_bytes, source_bps: 1e6, source_copies, peers_bps, propagation_ms: 0.0 }
    }

    #[test]
    fn equal_uplinks_double_the_holders_at_every_step() {
        // 1 + 2 + 4 peers join the source's side in steps of 100 ms: 8 holders after 3 steps.
        let delays = snowball(None, vec![1e6; 7]).delays_ms();
        assert_eq!(delays, [100.0, 200.0, 200.0, 300.0, 300.0, 300.0, 300.0]);
    }

    #[test]
    fn a_source_of_one_copy_leaves_the_rest_to_the_peers() {
        let delays = snowball(Some(1), vec![1e6; 4]).delays_ms();
        assert_eq!(delays, [100.0, 200.0, 300.0, 300.0]);
    }

    #[test]
    fn the_fastest_peer_is_served_first_and_then_helps() {
        // The peer of 10 Mbit/s holds it at 100 ms and serves the two others, 10 ms each.
        let delays = snowball(Some(1), vec![0.0, 10e6, 0.0]).delays_ms();
        assert_eq!(delays, [100.0, 110.0, 120.0]);
    }

    #[test]
    fn propagation_counts_once_per_hop() {
        let mut ball = snowball(Some(1), vec![1e6; 2]);
        ball.propagation_ms = 7.0;
        assert_eq!(ball.delays_ms(), [107.0, 214.0]);
    }

    #[test]
    fn who_cannot_be_reached_is_infinitely_late() {
        let delays = snowball(Some(1), vec![0.0, 0.0]).delays_ms();
        assert_eq!(delays, [100.0, f64::INFINITY]);
    }
}
