//! Flows through one line in virtual time: ours, alone and together, and beside TCP Cubic (RFC 9438).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::*;

const PACKET: u64 = 1200;
const RTT: Duration = Duration::from_millis(50);
const MS: fn(u64) -> Timestamp = Timestamp::from_millis;
const TICK: Duration = Duration::from_micros(500);
/// The stream comes in chunks.
const CHUNK: u64 = 16 << 10;

/// TCP Cubic with a slow start, as far as a queue sees it; in packets and seconds.
#[derive(Debug)]
struct Cubic {
    window: f64,
    threshold: f64,
    most: f64,
    epoch: Option<Timestamp>,
    reduced: Timestamp,
}

impl Cubic {
    fn new() -> Self {
        Self { window: 10.0, threshold: f64::MAX, most: 0.0, epoch: None, reduced: Timestamp::ZERO }
    }

    fn acked(&mut self, now: Timestamp, rtt: Duration) {
        if self.window < self.threshold {
            self.window += 1.0;
            return;
        }
        let t = (now.since(*self.epoch.get_or_insert(now)) + rtt).as_secs_f64();
        let k = (self.most * 0.3 / 0.4).cbrt();
        let cubic = 0.4 * (t - k).powi(3) + self.most;
        let reno = self.most * 0.7 + 0.53 * t / rtt.as_secs_f64();
        let aim = cubic.max(reno).min(self.window * 1.5);
        self.window += ((aim - self.window) / self.window).max(0.0);
    }

    fn lost(&mut self, now: Timestamp, rtt: Duration) {
        if now.since(self.reduced) > rtt || self.reduced == Timestamp::ZERO {
            (self.most, self.reduced, self.epoch) = (self.window, now, None);
            self.window = (self.window * 0.7).max(2.0);
            self.threshold = self.window;
        }
    }
}

#[derive(Debug)]
enum Control {
    Ours(Box<Congestion>),
    Cubic(Cubic),
}

#[derive(Debug)]
struct Flow {
    control: Control,
    /// Bit/s that there is to send; `None`: always more.
    offered: Option<u64>,
    from: Timestamp,
    until: Timestamp,
    backlog: u64,
    made: Timestamp,
    under_way: u64,
    rtt: Duration,
    /// Arrived bytes, in each second.
    carried: Vec<u64>,
    /// When it began and ceased to compete.
    turns: Vec<(Timestamp, bool)>,
}

impl Flow {
    fn new(control: Control, offered: Option<u64>) -> Self {
        Self {
            control,
            offered,
            from: Timestamp::ZERO,
            until: Timestamp::FAR_FUTURE,
            backlog: 0,
            made: Timestamp::ZERO,
            under_way: 0,
            rtt: RTT,
            carried: vec![0; 200],
            turns: Vec::new(),
        }
    }

    fn ours(offered: Option<u64>) -> Self {
        Self::new(Control::Ours(Box::new(Congestion::new(PACKET))), offered)
    }

    fn cubic(from_s: u64, until_s: u64) -> Self {
        let flow = Self::new(Control::Cubic(Cubic::new()), None);
        Self { from: MS(from_s * 1000), until: MS(until_s * 1000), ..flow }
    }

    fn produce(&mut self, now: Timestamp) {
        match self.offered {
            None => self.backlog = CHUNK,
            Some(bps) => {
                let gap = Duration::from_micros(CHUNK * 8_000_000 / bps);
                if now.since(self.made) >= gap {
                    self.made += gap;
                    self.backlog += CHUNK;
                }
            }
        }
        if now < self.from || now > self.until {
            (self.backlog, self.made) = (0, now);
        }
    }

    fn may_send(&self) -> bool {
        let window = match &self.control {
            Control::Ours(control) => control.window(),
            Control::Cubic(cubic) => cubic.window as u64 * PACKET,
        };
        self.backlog >= PACKET && self.under_way + PACKET <= window
    }

    fn acked(&mut self, now: Timestamp, rtt: Duration) {
        self.rtt = rtt;
        self.under_way -= PACKET;
        self.carried[(now.as_micros() / 1_000_000) as usize] += PACKET;
        let idle = self.backlog < PACKET;
        match &mut self.control {
            Control::Ours(control) => {
                let before = control.is_competing();
                control.acked(now, rtt, PACKET, idle);
                if control.is_competing() != before {
                    self.turns.push((now, !before));
                }
            }
            Control::Cubic(cubic) => cubic.acked(now, rtt),
        }
    }

    fn lost(&mut self, now: Timestamp) {
        self.under_way -= PACKET;
        self.backlog += PACKET;
        match &mut self.control {
            Control::Ours(control) => control.lost(now, PACKET, false),
            Control::Cubic(cubic) => cubic.lost(now, self.rtt),
        }
    }

    /// Bit/s on average from one second to another.
    fn bps(&self, from_s: usize, to_s: usize) -> u64 {
        self.carried[from_s..to_s].iter().sum::<u64>() * 8 / (to_s - from_s) as u64
    }

    fn competes(&self) -> bool {
        matches!(&self.control, Control::Ours(control) if control.is_competing())
    }
}

/// A line that drops what would wait for longer than `buffer`, and one packet in `loss_every` besides.
struct Line {
    bps: u64,
    buffer: Duration,
    loss_every: u64,
    rtt: Duration,
    /// From when on it carries only so much.
    slow: Option<(Timestamp, u64)>,
}

impl Line {
    fn new(bps: u64, buffer_ms: u64) -> Self {
        Self { bps, buffer: Duration::from_millis(buffer_ms), loss_every: 0, rtt: RTT, slow: None }
    }

    /// Runs for so many seconds; gives the longest queue in each.
    fn run(&self, flows: &mut [Flow], seconds: u64) -> Vec<Duration> {
        let mut longest = vec![Duration::ZERO; seconds as usize + 1];
        let mut free = Timestamp::ZERO;
        let mut flying: VecDeque<(Timestamp, Timestamp, usize, bool)> = VecDeque::new();
        let (mut sent, mut now, mut turn) = (0u64, Timestamp::ZERO, 0);
        while now < MS(seconds * 1000) {
            while let Some(&(at, left, flow, ok)) = flying.front().filter(|packet| packet.0 <= now) {
                flying.pop_front();
                if ok { flows[flow].acked(now, at.since(left)) } else { flows[flow].lost(now) }
            }
            flows.iter_mut().for_each(|flow| flow.produce(now));
            // Each in its turn, and the turns begin with another flow each time.
            turn += 1;
            let mut quiet = 0;
            while quiet < flows.len() {
                turn += 1;
                let index = turn % flows.len();
                if !flows[index].may_send() {
                    quiet += 1;
                    continue;
                }
                quiet = 0;
                sent += 1;
                flows[index].backlog -= PACKET;
                flows[index].under_way += PACKET;
                let fits = free.since(now) < self.buffer;
                if fits {
                    let slow = self.slow.filter(|(from, _)| now >= *from);
                    let bps = slow.map_or(self.bps, |(_, bps)| bps);
                    free = free.max(now) + Duration::from_micros(PACKET * 8_000_000 / bps);
                }
                let second = (now.as_micros() / 1_000_000) as usize;
                longest[second] = longest[second].max(free.since(now));
                let ok = fits && !(self.loss_every > 0 && sent.is_multiple_of(self.loss_every));
                flying.push_back((free.max(now) + self.rtt, now, index, ok));
            }
            now += TICK;
        }
        longest
    }
}

/// One flow that always has more: the share of the line that it used and the longest queue in the second half.
fn alone(line: &Line) -> (f64, Duration) {
    let mut flows = [Flow::ours(None)];
    let queues = line.run(&mut flows, 20);
    let longest = queues[10..].iter().max().copied().unwrap_or_default();
    (flows[0].bps(10, 20) as f64 / line.bps as f64, longest)
}

#[test]
fn a_deep_buffer_is_not_filled_and_the_line_is_used() {
    let (used, queue) = alone(&Line::new(5_000_000, 300));
    assert!(used > 0.9, "{used}");
    assert!(queue < Duration::from_millis(150), "{queue:?}");
}

#[test]
fn losses_without_a_queue_do_not_count() {
    let (used, queue) = alone(&Line { loss_every: 50, ..Line::new(5_000_000, 300) });
    assert!(used > 0.85, "{used}");
    assert!(queue < Duration::from_millis(150), "{queue:?}");
}

#[test]
fn a_line_that_drops_instead_of_queueing_is_not_flooded() {
    let (used, _) = alone(&Line::new(5_000_000, 5));
    assert!(used > 0.6, "{used}");
}

#[test]
fn the_window_stays_within_its_limits() {
    let mut control = Congestion::new(PACKET);
    for ms in 0..2000 {
        control.acked(MS(ms), Duration::from_millis(1), 1 << 16, false);
    }
    assert_eq!(control.window(), WINDOW_MAX);
    control.lost(MS(2000), PACKET, true);
    assert_eq!(control.window(), WINDOW_MIN_PACKETS * PACKET);
}

#[test]
fn a_queue_that_stands_for_minutes_is_not_taken_for_the_path() {
    let mut flows = [Flow::ours(None)];
    let queues = Line::new(5_000_000, 600).run(&mut flows, 180);
    let longest = queues[100..].iter().max().copied().unwrap_or_default();
    assert!(longest < Duration::from_millis(150), "{longest:?}");
    assert!(flows[0].bps(100, 180) > 4_600_000, "{}", flows[0].bps(100, 180));
}

#[test]
fn what_is_watched_keeps_its_rate_beside_cubic_and_goes_by_delay_again_afterwards() {
    for (bps, buffer_ms, stream) in [
        (5_000_000, 300, 1_500_000),
        (5_000_000, 300, 2_000_000),
        (5_000_000, 600, 1_500_000),
        (10_000_000, 200, 4_000_000),
        (3_000_000, 400, 800_000),
    ] {
        let mut flows = [Flow::ours(Some(stream)), Flow::cubic(10, 60)];
        let queues = Line::new(bps, buffer_ms).run(&mut flows, 80);
        let (ours, theirs) = (flows[0].bps(15, 60), flows[1].bps(15, 60));
        assert!(ours * 100 >= stream * 97, "{ours} of {stream} at {bps}");
        assert!(theirs * 100 >= (bps - stream) * 70, "{theirs} beside {ours} at {bps}");
        assert!(!flows[0].competes());
        assert!(queues[70..].iter().all(|queue| *queue < TARGET), "{:?}", &queues[60..]);
    }
}

#[test]
fn what_takes_all_it_can_get_yields_to_cubic() {
    let mut flows = [Flow::ours(None), Flow::cubic(10, 60)];
    Line::new(5_000_000, 300).run(&mut flows, 80);
    assert!(flows[0].turns.is_empty(), "{:?}", flows[0].turns);
    assert!(flows[1].bps(15, 60) > 4_000_000, "{}", flows[1].bps(15, 60));
    assert!(flows[0].bps(65, 80) > 4_500_000, "{}", flows[0].bps(65, 80));
}

#[test]
fn alone_or_among_its_like_it_goes_by_delay() {
    // More than the line carries, all at once or one after the other.
    for (flows, bps, offered) in [
        (1, 2_000_000, 3_000_000),
        (1, 600_000, 900_000),
        (2, 2_000_000, 1_500_000),
        (4, 5_000_000, 1_500_000),
    ] {
        for apart_s in [0, 4] {
            let mut all: Vec<Flow> = (0..flows).map(|_| Flow::ours(Some(offered))).collect();
            for (place, flow) in all.iter_mut().enumerate() {
                flow.from = MS(place as u64 * apart_s * 1000);
            }
            Line::new(bps, 600).run(&mut all, 90);
            let turns: Vec<_> = all.iter().flat_map(|flow| flow.turns.clone()).collect();
            assert!(turns.is_empty(), "{flows} flows of {offered} at {bps}: {turns:?}");
        }
    }
}

#[test]
fn a_line_that_becomes_slow_is_no_competitor() {
    // Too slow for the least window, which alone makes a queue of a third of a second.
    let line = Line { slow: Some((MS(10_000), 500_000)), ..Line::new(2_000_000, 2000) };
    let mut flows = [Flow::ours(Some(1_500_000))];
    let queues = line.run(&mut flows, 120);
    let longest = queues[10..].iter().max().copied().unwrap_or_default();
    assert!(longest < Duration::from_millis(1200), "{longest:?} while it finds out");
    let late = flows[0].turns.iter().filter(|turn| turn.0 > MS(60_000));
    assert_eq!(late.count(), 0, "{:?}", flows[0].turns);
    let longest = queues[60..].iter().max().copied().unwrap_or_default();
    assert!(longest < Duration::from_millis(400), "{longest:?}");
}

#[test]
fn losses_without_a_queue_do_not_count_beside_cubic_either() {
    let mut flows = [Flow::ours(Some(1_500_000)), Flow::cubic(10, 60)];
    let line = Line { loss_every: 50, ..Line::new(5_000_000, 300) };
    line.run(&mut flows, 60);
    assert!(flows[0].bps(15, 60) > 1_450_000, "{}", flows[0].bps(15, 60));
}
