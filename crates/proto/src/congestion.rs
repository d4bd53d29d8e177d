//! Congestion control of one connection: how many bytes may be under way, by how long they take.
//!
//! After LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus): the window grows while round trips are less than [`TARGET`] above
//! the least of them, and shrinks as far as they are more. A loss without a queue is no sign of congestion: radio links
//! lose a packet in a hundred. How fast a node sends altogether is [`uplink`](crate::uplink)'s business; this only keeps
//! what lies beyond its own line from being flooded. Never reads a clock, and knows nothing of streams.

use core::time::Duration;

use crate::time::Timestamp;

/// The queue that is aimed at.
pub const TARGET: Duration = Duration::from_millis(100);
/// Packets that may be under way whatever happens: a chunk takes a round trip or two, never ten.
pub const WINDOW_MIN_PACKETS: u64 = 16;
/// Packets that may be under way at the beginning: one chunk of the largest size.
pub const WINDOW_FIRST_PACKETS: u64 = 24;
/// Most bytes under way.
pub const WINDOW_MAX: u64 = 8 << 20;
/// A loss that so many percent of a round trip's bytes share is a sign of congestion, queue or not: some lines drop what
/// exceeds their rate instead of queueing it.
const LOSS_PERCENT: u64 = 10;
/// The least round trip is forgotten after one to two of these: paths change.
const BASE_PERIOD: Duration = Duration::from_secs(30);

/// The congestion window of one direction of a connection.
#[derive(Debug, Clone)]
pub struct Congestion {
    window: u64,
    packet: u64,
    /// The window doubles with each round trip, until a queue shows.
    is_starting: bool,
    /// The least round trip of this and of the last stretch of [`BASE_PERIOD`], and when this one began.
    base: (Duration, Duration),
    base_since: Timestamp,
    /// Round trips beyond the least, smoothed.
    queue: Duration,
    rtt: Duration,
    /// This round trip's bytes that arrived and that were lost, and when it ends.
    arrived: u64,
    lost: u64,
    round_end: Timestamp,
    /// The window was reduced in this round trip.
    reduced: bool,
}

impl Congestion {
    /// A new connection whose packets are `packet_bytes` long.
    pub fn new(packet_bytes: u64) -> Self {
        Self {
            window: WINDOW_FIRST_PACKETS * packet_bytes,
            packet: packet_bytes,
            is_starting: true,
            base: (Duration::MAX, Duration::MAX),
            base_since: Timestamp::ZERO,
            queue: Duration::ZERO,
            rtt: Duration::ZERO,
            arrived: 0,
            lost: 0,
            round_end: Timestamp::ZERO,
            reduced: false,
        }
    }

    /// Bytes that may be under way.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Packets are `packet_bytes` long from now on.
    pub fn set_packet(&mut self, packet_bytes: u64) {
        self.packet = packet_bytes;
        self.clamp();
    }

    /// `bytes` were acknowledged `rtt` after they had been sent; `idle`: the window was not what held more back.
    pub fn acked(&mut self, now: Timestamp, rtt: Duration, bytes: u64, idle: bool) {
        if now.since(self.base_since) > BASE_PERIOD {
            (self.base, self.base_since) = ((rtt, self.base.0), now);
        }
        self.base.0 = self.base.0.min(rtt);
        let queue = rtt.saturating_sub(self.base.0.min(self.base.1));
        self.queue = (self.queue * 3 + queue) / 4;
        self.rtt = rtt;
        self.arrived += bytes;
        self.turn(now);
        if self.queue >= TARGET * 3 / 4 {
            self.is_starting = false;
        }
        if self.queue > TARGET {
            if !self.reduced {
                // By as much as the queue exceeds the target, at most by half.
                let excess = (self.queue - TARGET).min(TARGET).as_micros() as u64;
                self.reduce(self.window * excess / (2 * TARGET.as_micros() as u64));
            }
        } else if !idle && self.is_starting {
            self.window += bytes;
        } else if !idle {
            // A packet more for each round trip, and less the nearer the target is.
            let room = (TARGET - self.queue).as_micros() as u64;
            self.window += self.packet * bytes * room / (self.window.max(1) * TARGET.as_micros() as u64);
        }
        self.clamp();
    }

    /// `bytes` were lost; `all`: nothing came through for so long that the path may be another.
    pub fn lost(&mut self, now: Timestamp, bytes: u64, all: bool) {
        self.lost += bytes;
        self.turn(now);
        if all {
            self.is_starting = false;
            self.window = 0;
        } else if !self.reduced
            && (self.queue > TARGET / 2 || self.lost * 100 > (self.arrived + self.lost) * LOSS_PERCENT)
            && self.lost > 2 * self.packet
        {
            self.is_starting = false;
            self.reduce(self.window * 3 / 10);
        }
        self.clamp();
    }

    /// A router marked a packet (ECN, RFC 3168): it had a queue.
    pub fn marked(&mut self, now: Timestamp) {
        self.turn(now);
        self.is_starting = false;
        if !self.reduced {
            self.reduce(self.window * 3 / 10);
        }
        self.clamp();
    }

    fn reduce(&mut self, by: u64) {
        self.window -= by;
        self.reduced = true;
    }

    /// A round trip is over: what happened in it is history.
    fn turn(&mut self, now: Timestamp) {
        if now >= self.round_end {
            (self.arrived, self.lost, self.reduced) = (self.arrived / 2, self.lost / 2, false);
            self.round_end = now + self.rtt;
        }
    }

    fn clamp(&mut self) {
        self.window = self.window.clamp(WINDOW_MIN_PACKETS * self.packet, WINDOW_MAX);
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;

    use super::*;

    const PACKET: u64 = 1200;

    /// Packets through a line of `bps` whose buffer lasts `buffer`, with a round trip of 50 ms; one in `loss_every` is lost.
    /// Gives the share of the line that was used and the queue in the second half.
    fn run(bps: u64, buffer: Duration, loss_every: u64) -> (f64, Duration) {
        let mut control = Congestion::new(PACKET);
        let (mut now, mut line_free) = (Timestamp::ZERO, Timestamp::ZERO);
        let mut flying: VecDeque<(Timestamp, Timestamp, bool)> = VecDeque::new();
        let (mut sent, mut carried, mut worst) = (0u64, 0u64, Duration::ZERO);
        let end = Timestamp::from_millis(20_000);
        while now < end {
            while let Some(&(at, left, ok)) = flying.front().filter(|packet| packet.0 <= now) {
                flying.pop_front();
                if ok {
                    control.acked(now, at.since(left), PACKET, false);
                    if now.since(Timestamp::from_millis(10_000)) > Duration::ZERO {
                        carried += PACKET;
                        worst = worst.max(at.since(left) - Duration::from_millis(50));
                    }
                } else {
                    control.lost(now, PACKET, false);
                }
            }
            while (flying.len() as u64 + 1) * PACKET <= control.window() {
                sent += 1;
                let fits = line_free.since(now) < buffer;
                if fits {
                    line_free = line_free.max(now) + Duration::from_micros(PACKET * 8_000_000 / bps);
                }
                let ok = fits && !(loss_every > 0 && sent.is_multiple_of(loss_every));
                flying.push_back((line_free.max(now) + Duration::from_millis(50), now, ok));
            }
            now += Duration::from_micros(500);
        }
        (carried as f64 * 8.0 / 10.0 / bps as f64, worst)
    }

    #[test]
    fn a_deep_buffer_is_not_filled_and_the_line_is_used() {
        let (used, queue) = run(5_000_000, Duration::from_millis(300), 0);
        assert!(used > 0.9, "{used}");
        assert!(queue < Duration::from_millis(150), "{queue:?}");
    }

    #[test]
    fn losses_without_a_queue_do_not_count() {
        let (used, queue) = run(5_000_000, Duration::from_millis(300), 50);
        assert!(used > 0.85, "{used}");
        assert!(queue < Duration::from_millis(150), "{queue:?}");
    }

    #[test]
    fn a_line_that_drops_instead_of_queueing_is_not_flooded() {
        let (used, _) = run(5_000_000, Duration::from_millis(5), 0);
        assert!(used > 0.6, "{used}");
    }

    #[test]
    fn the_window_stays_within_its_limits() {
        let mut control = Congestion::new(PACKET);
        for ms in 0..2000 {
            control.acked(Timestamp::from_millis(ms), Duration::from_millis(1), 1 << 16, false);
        }
        assert_eq!(control.window(), WINDOW_MAX);
        control.lost(Timestamp::from_millis(2000), PACKET, true);
        assert_eq!(control.window(), WINDOW_MIN_PACKETS * PACKET);
    }
}
