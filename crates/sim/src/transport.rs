//! What the transport underneath does to bytes: their cost on the wire, lines that serialise, a congestion window for
//! each connection, losses and how they are repaired. The simulator's stand-in for QUIC over an access line.
//!
//! Times are µs. Takes no decision about what is sent: it says when what was sent arrives.

use crate::profile::Network;

/// Everything that calibration may turn. Defaults: measured on the real transport where a comment says so.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportModel {
    /// IP bytes for each chunk byte, per mille: headers and acknowledgements of 1,452-byte QUIC payloads (measured:
    /// 1,052 without acknowledgements, 1,060 with one per ten packets, 1,076 with one per two).
    pub chunk_wire_permille: u64,
    /// IP bytes beyond a control frame's own: IP, UDP, QUIC header and tag, its acknowledgement.
    pub control_frame_overhead_bytes: u64,
    /// IP bytes that each side sends for a connection: handshake and address validation.
    pub handshake_bytes: u64,
    /// Chunk bytes in one packet.
    pub packet_payload_bytes: u64,
    /// Congestion window of a new connection, bytes …
    pub window_initial_bytes: u64,
    /// … its smallest …
    pub window_min_bytes: u64,
    /// … and its largest.
    pub window_max_bytes: u64,
    /// What remains of it after a loss, percent.
    pub window_after_loss_percent: u64,
    /// A chunk is acknowledged this long after its last packet came.
    pub ack_delay_us: u64,
    /// A loss among the last so many packets of a chunk is noticed by a probe timeout only.
    pub tail_packets: u64,
    /// That timeout in percent of the round trip …
    pub probe_rtt_percent: u64,
    /// … and beyond it.
    pub probe_extra_us: u64,
    /// What a machine takes to pass a chunk on: sockets, timers, signatures. 0: nothing beside lines and distances.
    pub host_us: u64,
    /// Share of the line's queue that a control frame waits for, percent: hosts and home routers queue fairly.
    pub control_wait_percent: u64,
    /// Most chunks that wait before a line, up or down, as time; the rest waits at its senders and can be taken back there.
    /// Delay-based congestion control sees to that. `u64::MAX`: all waits before the line.
    pub line_queue_us: u64,
    /// Line of those who do not upload, for control and acknowledgements, bit/s.
    pub return_line_bps: u64,
}

impl Default for TransportModel {
    fn default() -> Self {
        Self {
            chunk_wire_permille: 1075,
            control_frame_overhead_bytes: 90,
            handshake_bytes: 3_600,
            packet_payload_bytes: 1_400,
            window_initial_bytes: 14_720,
            window_min_bytes: 2_900,
            window_max_bytes: 1 << 20,
            window_after_loss_percent: 90,
            ack_delay_us: 8_000,
            tail_packets: 3,
            probe_rtt_percent: 150,
            probe_extra_us: 25_000,
            host_us: 0,
            control_wait_percent: 10,
            line_queue_us: u64::MAX,
            return_line_bps: 256_000,
        }
    }
}

/// The wire's price list.
pub type WireCost = TransportModel;

impl TransportModel {
    /// IP bytes of a chunk of `bytes`.
    pub fn chunk_wire_bytes(&self, bytes: u64) -> u64 {
        bytes * self.chunk_wire_permille / 1000
    }

    /// IP bytes of a control transmission of `bytes`.
    pub fn control_wire_bytes(&self, bytes: u64) -> u64 {
        bytes + self.control_frame_overhead_bytes
    }
}

/// An access line in one direction: a queue that serialises.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) bps: u64,
    free_at: u64,
}

impl Line {
    pub(crate) fn new(bps: u64) -> Self {
        Self { bps: bps.max(1), free_at: 0 }
    }

    /// Time that `bytes` take.
    pub(crate) fn time(&self, bytes: u64) -> u64 {
        bytes * 8_000_000 / self.bps
    }

    /// What stands before `now`'s bytes.
    pub(crate) fn wait(&self, now: u64) -> u64 {
        self.free_at.saturating_sub(now)
    }

    /// Queues `bytes`; when the last of them has left.
    pub(crate) fn send(&mut self, now: u64, bytes: u64) -> u64 {
        self.free_at = self.free_at.max(now) + self.time(bytes);
        self.free_at
    }

    /// `bytes` whose last one comes at `now` have passed a line that forwards as it receives.
    pub(crate) fn receive(&mut self, now: u64, bytes: u64) -> u64 {
        self.free_at = now.max(self.free_at + self.time(bytes));
        self.free_at
    }
}

/// Gilbert–Elliott: losses come in bursts. One state for each access line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LossState {
    good_left: u64,
    bad_left: u64,
}

/// What befell the packets of one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    pub(crate) lost: u64,
    /// Counted from the end, 0 = the last packet; the one nearest to the end.
    pub(crate) nearest_to_end: u64,
}

impl LossState {
    pub(crate) fn new(network: &Network, rng: &mut fastrand::Rng) -> Self {
        let mut state = Self { good_left: 0, bad_left: 0 };
        state.good_left = state.draw_good(network, rng);
        state
    }

    fn draw_good(&self, network: &Network, rng: &mut fastrand::Rng) -> u64 {
        // In the long run `loss` of all packets, in bursts of `loss_burst` on average.
        geometric(network.loss_burst * (1.0 - network.loss) / network.loss.max(1e-12), rng)
    }

    /// Sends `packets` in a row.
    pub(crate) fn pass(&mut self, packets: u64, network: &Network, rng: &mut fastrand::Rng) -> Losses {
        let mut losses = Losses::default();
        if network.loss <= 0.0 {
            return losses;
        }
        let mut left = packets;
        while left > 0 {
            if self.good_left >= left {
                self.good_left -= left;
                break;
            }
            left -= self.good_left;
            self.good_left = 0;
            if self.bad_left == 0 {
                self.bad_left = geometric(network.loss_burst, rng);
            }
            let lost = self.bad_left.min(left);
            (self.bad_left, left) = (self.bad_left - lost, left - lost);
            losses = Losses { lost: losses.lost + lost, nearest_to_end: left };
            if self.bad_left == 0 {
                self.good_left = self.draw_good(network, rng);
            }
        }
        losses
    }
}

/// At least 1, with this mean.
fn geometric(mean: f64, rng: &mut fastrand::Rng) -> u64 {
    if mean <= 1.0 {
        return 1;
    }
    let u = 1.0 - rng.f64();
    1 + (u.ln() / (1.0 - 1.0 / mean).ln()) as u64
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    window: u64,
    under_way: u64,
    /// When the last control bytes arrive: that stream is ordered.
    pub(crate) ordered_at: u64,
}

impl Flow {
    pub(crate) fn new(model: &TransportModel) -> Self {
        Self { window: model.window_initial_bytes, under_way: 0, ordered_at: 0 }
    }

    /// Begins to send `bytes`, whose serialisation takes `line_us`; the time for which the window holds the last of
    /// them back beyond that.
    pub(crate) fn begin(&mut self, model: &TransportModel, bytes: u64, rtt_us: u64, line_us: u64) -> u64 {
        let (mut room, mut rest, mut rounds) = (self.window.saturating_sub(self.under_way), bytes, 0);
        let limited = self.under_way + bytes > self.window / 2;
        while rest > room {
            rest -= room;
            rounds += 1;
            // Slow start: each round trip doubles what a round trip carries.
            self.window = (self.window + room.max(model.packet_payload_bytes)).min(model.window_max_bytes);
            room = self.window;
        }
        if limited && rounds == 0 {
            self.window = (self.window + bytes / 2).min(model.window_max_bytes);
        }
        self.under_way += bytes;
        (rounds * rtt_us).saturating_sub(line_us)
    }

    /// These bytes were acknowledged, or given up.
    pub(crate) fn end(&mut self, bytes: u64) {
        self.under_way = self.under_way.saturating_sub(bytes);
    }

    pub(crate) fn lose(&mut self, model: &TransportModel) {
        let left = self.window * model.window_after_loss_percent / 100;
        self.window = left.max(model.window_min_bytes);
    }
}

impl TransportModel {
    /// How much later than without losses a message is whole: retransmissions, which may be lost as well.
    pub(crate) fn repair_us(
        &self,
        losses: Losses,
        rtt_us: u64,
        network: &Network,
        rng: &mut fastrand::Rng,
    ) -> u64 {
        if losses.lost == 0 {
            return 0;
        }
        let probe = rtt_us * self.probe_rtt_percent / 100 + self.probe_extra_us;
        let mut time = if losses.nearest_to_end < self.tail_packets { probe } else { rtt_us };
        let again = (network.loss * losses.lost as f64).min(0.5);
        let mut backoff = 1;
        while rng.f64() < again {
            time += probe * backoff;
            backoff = (backoff * 2).min(8);
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn losses_are_as_many_as_asked_for_and_come_in_bursts() {
        let mut network = Profile::load("residential").expect("in the repository").network;
        (network.loss, network.loss_burst) = (0.02, 3.0);
        let rng = &mut fastrand::Rng::with_seed(1);
        let mut state = LossState::new(&network, rng);
        let (mut lost, mut hit) = (0, 0);
        for _ in 0..50_000 {
            let losses = state.pass(12, &network, rng);
            lost += losses.lost;
            hit += u64::from(losses.lost > 0);
            assert!(losses.lost <= 12 && losses.nearest_to_end < 12);
        }
        let share = lost as f64 / 600_000.0;
        assert!((0.018..0.022).contains(&share), "{share}");
        assert!((1.8..3.2).contains(&(lost as f64 / hit as f64)), "{lost} in {hit}");
    }

    #[test]
    fn a_line_serialises_and_a_window_holds_back() {
        let mut line = Line::new(8_000_000);
        assert_eq!((line.send(0, 1_000), line.send(500, 1_000), line.wait(500)), (1_000, 2_000, 1_500));
        let mut down = Line::new(80_000_000);
        assert_eq!((down.receive(5_000, 1_000), down.receive(5_000, 1_000)), (5_000, 5_100));
        let model = TransportModel::default();
        let mut flow = Flow::new(&model);
        assert_eq!(flow.begin(&model, 16_000, 50_000, 0), 50_000, "the first window is smaller than a chunk");
        flow.end(16_000);
        assert_eq!(flow.begin(&model, 16_000, 50_000, 0), 0, "the second is not");
        assert_eq!(flow.begin(&model, 160_000, 50_000, 1_000_000), 0, "a slow line is slower");
    }
}
