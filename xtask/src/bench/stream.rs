//! References for a stream whose parts come as several chunks at once: what an all-knowing greedy scheduler makes of
//! them, and a strict bound by the work that uplinks can do.
//!
//! The snowball has the uplinks to itself; a live stream has not. Parts come all 200 ms, each of them some chunks at the
//! same moment, and every uplink carries them one after another. Whenever an uplink is free, its holder sends, of the
//! chunks it has, the one that fewest peers have or are being sent, to a peer that lacks it: no request, no loss, no
//! message, and everybody knows everything at once. That is a heuristic; the work bound beside it is not.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::snowball::{Snowball, WIRE_OVERHEAD};

/// Parts that are let go by, so that what is measured is the steady state, and parts measured.
const WARM_UP: usize = 20;
const MEASURED: usize = 100;
/// How finely the work bound is looked for, and where that ends.
const WORK_STEP_MS: f64 = 0.1;
const WORK_MS_MAX: f64 = 10_000.0;

/// A stream through the population of a [`Snowball`].
pub(super) struct Stream<'a> {
    /// Who there is, and how large a chunk.
    pub(super) ball: &'a Snowball,
    /// Chunks of one part.
    pub(super) chunks_per_part: usize,
    /// Time between parts.
    pub(super) part_ms: f64,
}

/// When in ns, the order of events, the node, and the chunk that arrives there; none: its uplink is free.
type Event = (u64, usize, usize, Option<usize>);

struct Chunk {
    at_ns: u64,
    /// Has it, or is being sent it: by node, the source first.
    promised: Vec<bool>,
    copies: usize,
    by_source: usize,
}

impl Stream<'_> {
    /// How long each chunk took to each peer, in ms, in ascending order; empty when uplinks cannot carry the stream.
    pub(super) fn delays_ms(&self) -> Vec<f64> {
        let nodes = self.ball.peers_bps.len() + 1;
        let part_ns = (self.part_ms * 1e6) as u64;
        let propagation_ns = (self.ball.propagation_ms * 1e6).round() as u64;
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut events: BinaryHeap<Reverse<Event>> = BinaryHeap::new();
        for part in 0..WARM_UP + MEASURED {
            for _ in 0..self.chunks_per_part {
                let at_ns = part as u64 * part_ns;
                let mut promised = vec![false; nodes];
                promised[0] = true;
                events.push(Reverse((at_ns, chunks.len(), 0, Some(chunks.len()))));
                chunks.push(Chunk { at_ns, promised, copies: 1, by_source: 0 });
            }
        }
        let mut order = chunks.len();
        let mut held: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); nodes];
        let mut idle = vec![true; nodes];
        let mut delays = Vec::new();
        while let Some(Reverse((now_ns, _, node, arrived))) = events.pop() {
            match arrived {
                Some(chunk) => {
                    held[node].insert(chunk);
                    if node > 0 && chunk >= WARM_UP * self.chunks_per_part {
                        delays.push((now_ns - chunks[chunk].at_ns) as f64 / 1e6);
                    }
                    if !idle[node] {
                        continue;
                    }
                }
                None => idle[node] = true,
            }
            let Some((chunk, to)) = self.choose(&mut held[node], &chunks, node) else { continue };
            let bps = if node == 0 { self.ball.source_bps } else { self.ball.peers_bps[node - 1] };
            chunks[chunk].promised[to] = true;
            chunks[chunk].copies += 1;
            chunks[chunk].by_source += usize::from(node == 0);
            let sent_ns = now_ns + (self.ball.chunk_bytes * WIRE_OVERHEAD * 8e9 / bps).round() as u64;
            idle[node] = false;
            order += 2;
            events.push(Reverse((sent_ns, order, node, None)));
            events.push(Reverse((sent_ns + propagation_ns, order + 1, to, Some(chunk))));
        }
        delays.sort_by(f64::total_cmp);
        delays
    }

    /// Before when nobody can have done better: the delays of one part alone, in ms, in ascending order, were every
    /// uplink busy with something useful from the moment at which it can hold its first chunk. A strict bound: by the
    /// time of the nth delivery n chunks must have left some uplink. Empty when there is nobody to send.
    pub(super) fn work_bound_ms(&self) -> Vec<f64> {
        let ball = self.ball;
        let bits = ball.chunk_bytes * WIRE_OVERHEAD * 8.0;
        let peers = ball.peers_bps.len();
        let mut by_speed = ball.peers_bps.clone();
        by_speed.sort_by(|a, b| b.total_cmp(a));
        // Nobody begins sooner than the snowball lets it, whatever chunk it begins with; the source may give each of its
        // chunks to somebody else.
        let first = Snowball { source_copies: None, ..ball.clone() }.delays_ms();
        let from_source = ball.source_copies.unwrap_or(peers) * self.chunks_per_part;
        let sent_by = |ms: f64| {
            let source = (ball.source_bps * ms / 1e3).min(from_source as f64 * bits);
            let each = by_speed.iter().zip(&first).map(|(bps, from)| bps * (ms - from).max(0.0) / 1e3);
            source + each.sum::<f64>()
        };
        let mut ms = 0.0;
        let mut bound = Vec::new();
        for n in 1..=peers * self.chunks_per_part {
            while sent_by(ms) < n as f64 * bits {
                ms += WORK_STEP_MS;
                if ms > WORK_MS_MAX {
                    return Vec::new();
                }
            }
            // A step too far is a step too late.
            bound.push((ms - WORK_STEP_MS).max(0.0) + ball.propagation_ms);
        }
        bound
    }

    /// What `node` sends next, and to whom; chunks that everybody has are forgotten.
    fn choose(&self, held: &mut BTreeSet<usize>, chunks: &[Chunk], node: usize) -> Option<(usize, usize)> {
        let bps = if node == 0 { self.ball.source_bps } else { self.ball.peers_bps[node - 1] };
        if bps <= 0.0 {
            return None;
        }
        let nodes = self.ball.peers_bps.len() + 1;
        held.retain(|chunk| chunks[*chunk].copies < nodes);
        let most = self.ball.source_copies.unwrap_or(usize::MAX);
        let open = held.iter().filter(|chunk| node > 0 || chunks[**chunk].by_source < most);
        let chunk = *open.min_by_key(|chunk| (chunks[**chunk].copies, **chunk))?;
        // The peer after this one: nobody is everybody's first.
        let to = (1..nodes).map(|step| (node + step) % nodes).find(|to| !chunks[chunk].promised[*to])?;
        Some((chunk, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ball(peers: usize) -> Snowball {
        let chunk_bytes = 12_500.0 / WIRE_OVERHEAD;
        let peers_bps = vec![1e6; peers];
        Snowball { chunk_bytes, source_bps: 1e6, source_copies: None, peers_bps, propagation_ms: 0.0 }
    }

    #[test]
    fn one_chunk_at_a_time_is_a_snowball() {
        let ball = ball(7);
        let delays = Stream { ball: &ball, chunks_per_part: 1, part_ms: 1000.0 }.delays_ms();
        assert_eq!(delays.len(), 7 * MEASURED);
        for (n, expected) in ball.delays_ms().into_iter().enumerate() {
            assert!((delays[n * MEASURED] - expected).abs() < 1e-6, "{} {expected}", delays[n * MEASURED]);
        }
    }

    #[test]
    fn two_chunks_at_once_share_the_uplinks() {
        // One peer, 100 ms a chunk: the second waits for the first.
        let delays = Stream { ball: &ball(1), chunks_per_part: 2, part_ms: 1000.0 }.delays_ms();
        assert!((delays[0] - 100.0).abs() < 1e-6 && (delays[2 * MEASURED - 1] - 200.0).abs() < 1e-6);
    }

    #[test]
    fn work_alone_takes_as_long_as_all_uplinks_need_together() {
        // One chunk to one peer: 100 ms. Two chunks to two peers, two copies of each from the source: four times 100 ms of
        // its uplink; the first peer may help after 100 ms, the second after 200 ms.
        let near = |ms: f64, expected: f64| assert!((ms - expected).abs() < 0.2, "{ms} {expected}");
        near(Stream { ball: &ball(1), chunks_per_part: 1, part_ms: 1000.0 }.work_bound_ms()[0], 100.0);
        let two = Snowball { source_copies: Some(2), ..ball(2) };
        let bound = Stream { ball: &two, chunks_per_part: 2, part_ms: 1000.0 }.work_bound_ms();
        assert_eq!(bound.len(), 4);
        near(bound[0], 100.0);
        near(bound[1], 150.0);
        near(bound[2], 200.0);
        near(bound[3], 233.3);
        let greedy = Stream { ball: &two, chunks_per_part: 2, part_ms: 1000.0 }.delays_ms();
        assert!(greedy[greedy.len() - 1] >= bound[3]);
    }
}
