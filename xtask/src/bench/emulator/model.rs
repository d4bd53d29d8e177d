//! What happens to a packet between two peers: the sender's line, propagation, loss. Virtual time, one seed, no I/O.
//!
//! ```text
//! send ──► the sender's line (rate, a queue of so long) ──► lost? ──► propagation + jitter ──► deliver
//! ```

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// How every path between two peers behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Path {
    /// One way, without queueing.
    pub(crate) delay: Duration,
    /// Up to so much more, evenly; packets overtake each other then.
    pub(crate) jitter: Duration,
    /// Share of packets lost, 0 to 1.
    pub(crate) loss: f64,
    /// How many packets in a row are lost on average once one is (Gilbert–Elliott); 1: independently.
    pub(crate) loss_burst: f64,
}

impl Path {
    /// Nothing but the wire.
    pub(crate) const CLEAN: Self =
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, loss_burst: 1.0 };

    /// Half a round trip each way, and independent losses.
    pub(crate) const fn new(rtt: Duration, loss: f64) -> Self {
        Self { delay: Duration::from_nanos(rtt.as_nanos() as u64 / 2), loss, ..Self::CLEAN }
    }
}

/// What a peer's uplink carries; bytes are those of IP packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// Bit/s; `None`: as much as the machine.
    pub(crate) bps: Option<u64>,
    /// A packet that would wait longer than this is dropped, as a home router does.
    pub(crate) queue: Duration,
}

/// A packet on its way to `to`.
#[derive(Debug)]
struct Flight<P> {
    due: Duration,
    order: u64,
    to: usize,
    packet: P,
}

impl<P> Ord for Flight<P> {
    /// The earliest first; at the same moment in the order of sending.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

impl<P> PartialOrd for Flight<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Flight<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Flight<P> {}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It will arrive.
    Sent,
    /// It left, and is lost.
    Lost,
    /// The line's queue was full: it never left.
    Dropped,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Model<P> {
    lines: Vec<Line>,
    path: Path,
    rng: fastrand::Rng,
    /// When each line has sent what it was given.
    free: Vec<Duration>,
    /// Whether the path from a peer is losing everything just now.
    losing: Vec<bool>,
    flights: BinaryHeap<Flight<P>>,
    order: u64,
}

impl<P> Model<P> {
    /// Peers with these lines, alike paths between them.
    pub(crate) fn new(lines: Vec<Line>, path: Path, seed: u64) -> Self {
        let (free, losing) = (vec![Duration::ZERO; lines.len()], vec![false; lines.len()]);
        let rng = fastrand::Rng::with_seed(seed);
        Self { lines, path, rng, free, losing, flights: BinaryHeap::new(), order: 0 }
    }

    /// A peer puts a packet of so many bytes on its line. `now` never runs backwards.
    pub(crate) fn send(&mut self, now: Duration, from: usize, to: usize, bytes: usize, packet: P) -> Fate {
        let line = self.lines[from];
        let mut gone = now;
        if let Some(bps) = line.bps {
            let begins = self.free[from].max(now);
            if begins - now > line.queue {
                return Fate::Dropped;
            }
            gone = begins + Duration::from_nanos(bytes as u64 * 8_000_000_000 / bps.max(1));
            self.free[from] = gone;
        }
        if self.is_lost(from) {
            return Fate::Lost;
        }
        let jitter = self.path.jitter.mul_f64(self.rng.f64());
        self.order += 1;
        let due = gone + self.path.delay + jitter;
        self.flights.push(Flight { due, order: self.order, to, packet });
        Fate::Sent
    }

    /// The path from each peer is good or loses everything; it turns bad and good again so often that the share of lost packets
    /// and the length of bursts are as asked.
    fn is_lost(&mut self, from: usize) -> bool {
        let Path { loss, loss_burst, .. } = self.path;
        if loss <= 0.0 {
            return false;
        }
        let ends = 1.0 / loss_burst.max(1.0);
        let begins = (loss * ends / (1.0 - loss).max(f64::EPSILON)).min(1.0);
        let turns = self.rng.f64() < if self.losing[from] { ends } else { begins };
        self.losing[from] ^= turns;
        self.losing[from]
    }

    /// When the next packet arrives.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.flights.peek().map(|flight| flight.due)
    }

    /// A packet that has arrived by `now`, and at whom.
    pub(crate) fn deliver(&mut self, now: Duration) -> Option<(usize, P)> {
        self.flights.peek().filter(|flight| flight.due <= now)?;
        self.flights.pop().map(|flight| (flight.to, flight.packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn arrivals(model: &mut Model<u32>) -> Vec<(u64, u32)> {
        let mut all = Vec::new();
        while let Some(due) = model.next_due() {
            all.extend(model.deliver(due).map(|(_, packet)| (due.as_millis() as u64, packet)));
        }
        all
    }

    #[test]
    fn a_line_sends_one_packet_after_the_other_and_drops_what_would_wait_too_long() {
        // 1,250 bytes take 10 ms at 1 Mbit/s.
        let line = Line { bps: Some(1_000_000), queue: MS(25) };
        let mut model = Model::new(vec![line; 2], Path { delay: MS(20), ..Path::CLEAN }, 1);
        let fates: Vec<Fate> = (0..5).map(|n| model.send(MS(0), 0, 1, 1250, n)).collect();
        assert_eq!(fates, [Fate::Sent, Fate::Sent, Fate::Sent, Fate::Dropped, Fate::Dropped]);
        assert_eq!(arrivals(&mut model), [(30, 0), (40, 1), (50, 2)]);
        // Another line is free, and this one is after a while.
        assert_eq!(model.send(MS(100), 1, 0, 1250, 7), Fate::Sent);
        assert_eq!(model.send(MS(100), 0, 1, 1250, 8), Fate::Sent);
        assert_eq!(arrivals(&mut model), [(130, 7), (130, 8)]);
    }

    #[test]
    fn losses_are_as_many_and_as_long_as_asked_and_the_same_for_the_same_seed() {
        let open = Line { bps: None, queue: MS(0) };
        for burst in [1.0, 4.0] {
            let path = Path { loss: 0.02, loss_burst: burst, ..Path::CLEAN };
            let run = |seed| {
                let mut model = Model::new(vec![open; 2], path, seed);
                (0..200_000u32).map(|n| model.send(MS(0), 0, 1, 100, n) == Fate::Lost).collect::<Vec<_>>()
            };
            let lost = run(5);
            assert_eq!(lost, run(5));
            assert_ne!(lost, run(6));
            let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
            assert!((0.017..0.023).contains(&share), "{share}");
            let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
            let length = lost.iter().filter(|lost| **lost).count() as f64 / bursts as f64;
            assert!((length / burst - 1.0).abs() < 0.1, "bursts of {length}");
        }
    }

    #[test]
    fn jitter_lets_packets_overtake_but_not_arrive_early() {
        let open = Line { bps: None, queue: MS(0) };
        let path = Path { delay: MS(20), jitter: MS(10), ..Path::CLEAN };
        let mut model = Model::new(vec![open; 2], path, 3);
        for n in 0..100 {
            model.send(MS(u64::from(n)), 0, 1, 100, n);
        }
        let got = arrivals(&mut model);
        assert_eq!(got.len(), 100);
        assert!(got.iter().all(|(at, n)| (20..=30).contains(&(at - u64::from(*n)))));
        assert!(got.windows(2).any(|pair| pair[0].1 > pair[1].1));
    }
}
