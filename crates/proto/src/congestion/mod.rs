//! Congestion control of one connection: how many bytes may be under way, by how long they take.
//!
//! After LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus): the window grows while round trips are less than [`TARGET`] above
//! the least of them, and shrinks as far as they are more. A loss without a queue is no sign of congestion: radio links
//! lose a packet in a hundred. How fast a node sends altogether is [`uplink`](crate::uplink)'s business; this only keeps
//! what lies beyond its own line from being flooded. Never reads a clock, and knows nothing of streams.
//!
//! Who goes by delay alone starves beside a flow that goes by losses, since that one fills every queue. So what the
//! connection used to carry is kept up against such flows (`compete`): whoever watches needs the stream's rate. More
//! than that yields.

mod compete;

use core::time::Duration;

use crate::time::Timestamp;
use compete::{Compete, Verdict};

/// The queue that is aimed at.
pub const TARGET: Duration = Duration::from_millis(100);
/// Packets that may be under way whatever happens: a chunk takes a round trip or two, never ten.
pub const WINDOW_MIN_PACKETS: u64 = 16;
/// Packets that may be under way at the beginning: one chunk of the largest size.
pub const WINDOW_FIRST_PACKETS: u64 = 24;
/// Packets that may be under way for two round trips, to see how long they take without this connection's own queue.
pub const WINDOW_DRAIN_PACKETS: u64 = 4;
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
    /// Next to nothing is under way, until what is sent from this moment on has arrived.
    drains_until: Option<Timestamp>,
    compete: Compete,
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
            drains_until: None,
            compete: Compete::default(),
        }
    }

    /// Bytes that may be under way.
    pub fn window(&self) -> u64 {
        match self.drains_until {
            Some(_) => self.window.min(WINDOW_DRAIN_PACKETS * self.packet),
            None => self.window,
        }
    }

    /// It holds its rate against a flow that fills the queue.
    pub fn is_competing(&self) -> bool {
        self.compete.is_on()
    }

    /// Packets are `packet_bytes` long from now on.
    pub fn set_packet(&mut self, packet_bytes: u64) {
        self.packet = packet_bytes;
        self.clamp();
    }

    /// `bytes` were acknowledged `rtt` after they had been sent; `idle`: the window was not what held more back.
    pub fn acked(&mut self, now: Timestamp, rtt: Duration, bytes: u64, idle: bool) {
        let queue = self.note_base(now, rtt);
        self.queue = (self.queue * 3 + queue) / 4;
        self.rtt = rtt;
        self.arrived += bytes;
        self.turn(now);
        if self.queue >= TARGET * 3 / 4 {
            self.is_starting = false;
        }
        if let Some(until) = self.drains_until {
            if now.saturating_sub(rtt) >= until {
                self.drains_until = None;
                self.compete.begin_interval(now);
            }
            return;
        }
        match self.compete.acked(now, rtt, queue, bytes, idle) {
            Verdict::Nothing => {}
            // The transport paces it.
            Verdict::Compete => self.window = self.window.max(self.compete.needed(rtt)),
            // What it held against others must not become a queue of its own.
            Verdict::Alone => self.window = self.window.min(self.compete.fair_window(self.least() + TARGET)),
        }
        if self.compete.is_on() {
            self.window = self.compete.grown(self.window, self.packet, bytes, rtt, idle);
        } else if self.queue > TARGET {
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
        let is_many = self.lost * 100 > (self.arrived + self.lost) * LOSS_PERCENT;
        let is_full =
            if self.compete.is_on() { self.compete.is_full(self.queue) } else { self.queue > TARGET / 2 };
        if all {
            self.is_starting = false;
            self.window = 0;
        } else if !self.reduced && (is_full || is_many) && self.lost > 2 * self.packet {
            self.is_starting = false;
            self.reduce(self.window * 3 / 10);
            if self.compete.is_on() {
                self.compete.reduced();
                // Somebody fills the queue: what is longer than the least is not the path.
                self.base_since = now;
            }
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

    fn least(&self) -> Duration {
        self.base.0.min(self.base.1)
    }

    /// Keeps the least round trip; gives by how much this one is longer. A queue that stands when the least is about to be
    /// forgotten is drained first, or it would be taken for the path (LEDBAT++, section 4.4: periodic slowdowns).
    fn note_base(&mut self, now: Timestamp, rtt: Duration) -> Duration {
        if now.since(self.base_since) > BASE_PERIOD {
            (self.base, self.base_since) = ((rtt, self.base.0), now);
            if self.queue > TARGET / 4 && !self.compete.is_on() {
                // What is under way now has arrived a round trip from now.
                self.drains_until = Some(now + self.rtt);
            }
        }
        self.base.0 = self.base.0.min(rtt);
        rtt.saturating_sub(self.least())
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
mod tests;
