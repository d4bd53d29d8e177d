//! What was measured, by mode and number of viewers; what theory says; the targets; tables and JSON.

use super::super::figures::{Run, median};
use super::super::report::{self, Unit};
use super::Mode;
use serde_json::{Value, json};

/// A swarm's and the hybrid's continuity, and how much of the stream viewers get. Counted in chunks: rates over a window depend on
/// where key frames fall.
const CONTINUITY_MIN: f64 = 0.999;
const RATE_MIN: f64 = 0.99;
/// The hybrid may be worse than the better of its halves by this much: the greater of a share and so many ms; and so much continuity.
const DELAY_SHARE: f64 = 0.1;
const DELAY_MS: f64 = 20.0;
const CONTINUITY_LOST_MAX: f64 = 0.001;
/// A server with too many viewers gives each what theory leaves: not more, and not less than headers and control explain. Who gets
/// less wastes the uplink, which is another thing than sharing it.
const OF_THEORY_MAX: f64 = 1.05;
const OF_THEORY_MIN: f64 = 0.85;
/// Headers and control on the wire for each byte of the stream: viewers whom the cap covers leave room for them.
const WIRE_RATIO: f64 = 1.12;
/// Chunks lost beyond this share have no 95th percentile: the percentile is of all that were due.
const P95_NEEDS: f64 = 0.95;
/// The machine's cores are busier than this: what is measured is the machine.
const BUSY_MAX: f64 = 0.9;

pub(super) const FOOTNOTE: &str = "Rate: of the stream's bytes, received in the window, mean and least of the viewers. On time: within 1.5 s of signing \
    (chunks); within three segments of their end (HLS). Delay: of chunks since they were signed; of HLS segments since they ended. Origin: its IP \
    bytes, mean of the window, and the most in any second since it started. ¹ simulated. ² the cores were more than 90 % busy: \
    the machine is measured rather than the network.";

/// One mode with so many viewers.
pub(super) struct Point {
    pub(super) mode: Mode,
    pub(super) viewers: usize,
    /// Empty where it could not be measured.
    pub(super) runs: Vec<Run>,
    pub(super) is_simulated: bool,
}

/// What the origin and the viewers have.
pub(super) struct Setup {
    pub(super) rate_bps: u64,
    pub(super) cap_bps: u64,
    pub(super) viewer_bps: u64,
    /// What the measured program was built from.
    pub(super) commit: String,
}

/// A target that was held against what was measured.
pub(super) struct Check {
    pub(super) name: String,
    pub(super) ok: bool,
    pub(super) detail: String,
}

impl Check {
    pub(super) fn json(&self) -> Value {
        json!({ "name": self.name, "ok": self.ok, "detail": self.detail })
    }
}

impl Point {
    fn values(&self, path: &str) -> Vec<f64> {
        self.runs.iter().filter_map(|run| run.get(path)).collect()
    }

    pub(super) fn median(&self, path: &str) -> Option<f64> {
        median(&self.values(path))
    }

    fn most(&self, path: &str) -> Option<f64> {
        self.values(path).into_iter().max_by(f64::total_cmp)
    }

    fn least(&self, path: &str) -> Option<f64> {
        self.values(path).into_iter().min_by(f64::total_cmp)
    }

    /// The 95th percentile of the delay of all that was due: what never came was infinitely late.
    pub(super) fn p95_ms(&self) -> Option<f64> {
        let is_there = self.median("on_time_ratio").is_some_and(|ratio| ratio >= P95_NEEDS);
        self.median(self.delay_path(95)).filter(|_| is_there)
    }

    fn delay_path(&self, percentile: u8) -> &'static str {
        match (self.mode, percentile) {
            (Mode::Nginx, 50) => "segment_delay_ms/p50",
            (Mode::Nginx, _) => "segment_delay_ms/p95",
            (_, 50) => "chunk_delay_ms/p50",
            (_, _) => "chunk_delay_ms/p95",
        }
    }

    fn is_busy(&self) -> bool {
        self.most("machine_busy_ratio").is_some_and(|busy| busy > BUSY_MAX)
    }
}

impl Setup {
    /// What a server leaves each of so many viewers: the stream, or an equal share of its uplink.
    pub(super) fn server_bps(&self, viewers: f64) -> f64 {
        (self.rate_bps as f64).min(self.cap_bps as f64 / viewers)
    }

    /// What everybody's uplinks together leave each viewer.
    pub(super) fn swarm_bps(&self, viewers: f64) -> f64 {
        (self.rate_bps as f64).min(self.cap_bps as f64 / viewers + self.viewer_bps as f64)
    }

    /// The cap covers so many viewers, headers included.
    fn covers(&self, viewers: usize) -> bool {
        viewers as f64 * self.rate_bps as f64 * WIRE_RATIO <= self.cap_bps as f64
    }

    pub(super) fn table(&self, points: &[Point]) -> String {
        let header = [
            "viewers",
            "mode",
            "kbit/s",
            "least",
            "theory",
            "on time",
            "delay p50",
            "p95",
            "startup p95",
            "origin Mbit/s",
            "in a second",
            "CPU: origin",
            "a viewer",
            "all cores",
        ];
        let mut lines = vec![header.map(str::to_owned)];
        for point in points {
            let shown = |path: &str, show: &dyn Fn(f64) -> String| {
                point.median(path).map_or_else(|| "–".to_owned(), show)
            };
            let kbit = |bps: f64| format!("{:.0}", bps / 1e3);
            let mbit = |bps: f64| format!("{:.2}", bps / 1e6);
            let theory = match point.mode {
                Mode::Nginx | Mode::ServerOnly => self.server_bps(point.viewers as f64),
                Mode::SwarmOnly | Mode::Hybrid => self.swarm_bps(point.viewers as f64),
            };
            let percent = |ratio: f64| Unit::Percent.shown(ratio);
            let ms = |ms: f64| Unit::Ms.shown(ms);
            let note = if point.is_busy() { " ²" } else { "" };
            lines.push([
                format!("{}{}", point.viewers, if point.is_simulated { " ¹" } else { "" }),
                point.mode.label().to_owned(),
                shown("received_bps/mean", &kbit),
                shown("received_bps/min", &kbit),
                kbit(theory),
                shown("on_time_ratio", &percent),
                shown(point.delay_path(50), &ms),
                shown(point.delay_path(95), &ms),
                shown("startup_ms/p95", &ms),
                shown("source_bps/mean", &mbit),
                point.most("source_bps/second_max").map_or_else(|| "–".to_owned(), mbit),
                shown("cpu_core_share_source", &percent),
                shown("cpu_core_share_per_peer", &percent),
                shown("machine_busy_ratio", &|busy| format!("{:.0} %{note}", busy * 100.0)),
            ]);
        }
        report::aligned(&lines)
    }

    pub(super) fn json(&self, points: &[Point]) -> Vec<Value> {
        let point = |point: &Point| {
            json!({
                "mode": point.mode.name(), "peers": point.viewers, "simulated": point.is_simulated,
                "theory_server_bps": self.server_bps(point.viewers as f64),
                "theory_swarm_bps": self.swarm_bps(point.viewers as f64),
                "runs": point.runs.iter().map(|run| json!(run.figures)).collect::<Vec<_>>(),
            })
        };
        points.iter().map(point).collect()
    }

    /// Every target, for what was asked to run. A figure that was not measured misses its target.
    pub(super) fn checks(&self, points: &[Point]) -> Vec<Check> {
        let mut checks = Vec::new();
        for point in points {
            let name = |what: &str| format!("{}, {} viewers: {what}", point.mode.name(), point.viewers);
            match point.mode {
                Mode::Nginx | Mode::ServerOnly => checks.extend(self.collapse(point, &name)),
                Mode::SwarmOnly | Mode::Hybrid => checks.extend(self.full(point, &name)),
            }
            if !point.is_simulated {
                let most = point.most("source_bps/second_max");
                checks.push(Check {
                    name: name("origin within a second"),
                    ok: most.is_some_and(|most| most <= self.cap_bps as f64),
                    detail: format!("{} (asked: ≤ {:.2} Mbit/s)", mbit(most), self.cap_bps as f64 / 1e6),
                });
            }
        }
        for hybrid in points.iter().filter(|point| point.mode == Mode::Hybrid) {
            let is_beside =
                |point: &&Point| (point.viewers, point.is_simulated) == (hybrid.viewers, hybrid.is_simulated);
            let beside = |mode: Mode| points.iter().filter(is_beside).find(|point| point.mode == mode);
            let (server, swarm) = (beside(Mode::ServerOnly), beside(Mode::SwarmOnly));
            if let Some(server) = server.filter(|_| self.covers(hybrid.viewers)) {
                checks.push(delay(
                    "hybrid beside server-only, which the cap covers",
                    hybrid,
                    server.p95_ms(),
                ));
            }
            // Of a server alone nothing is simulated.
            let halves: Vec<&Point> = [server, swarm].into_iter().flatten().collect();
            if !halves.is_empty() {
                let p95_ms = halves.iter().filter_map(|half| half.p95_ms()).min_by(f64::total_cmp);
                checks.push(delay("hybrid beside the better", hybrid, p95_ms));
                checks.push(continuity(hybrid, &halves));
            }
        }
        checks
    }

    /// More viewers than a server's cap covers get what theory leaves them.
    fn collapse(&self, point: &Point, name: &dyn Fn(&str) -> String) -> Option<Check> {
        let theory = self.server_bps(point.viewers as f64);
        if theory >= self.rate_bps as f64 {
            return None;
        }
        let (least, most) = (point.least("received_bps/mean"), point.most("received_bps/mean"));
        let is_within =
            |least: f64, most: f64| least >= theory * OF_THEORY_MIN && most <= theory * OF_THEORY_MAX;
        Some(Check {
            name: name("collapses as theory says"),
            ok: least.zip(most).is_some_and(|(least, most)| is_within(least, most)),
            detail: format!("{} to {} each, theory {}", mbit(least), mbit(most), mbit(Some(theory))),
        })
    }

    /// Everybody gets the stream, in time.
    fn full(&self, point: &Point, name: &dyn Fn(&str) -> String) -> [Check; 2] {
        let share = point.least("received_ratio");
        let on_time = point.least("on_time_ratio");
        [("of the stream received", share, RATE_MIN), ("on time", on_time, CONTINUITY_MIN)].map(
            |(what, value, least)| Check {
                name: name(what),
                ok: value.is_some_and(|value| value >= least),
                detail: format!("{} (asked: ≥ {})", percent(value), Unit::Percent.shown(least)),
            },
        )
    }
}

/// The hybrid's delay beside another's; where that one has none, there is nothing to be worse than.
fn delay(what: &str, hybrid: &Point, other_ms: Option<f64>) -> Check {
    let most_ms = other_ms.map_or(f64::INFINITY, |ms| ms + (ms * DELAY_SHARE).max(DELAY_MS));
    let ms = |ms: Option<f64>| ms.map_or_else(|| "none".to_owned(), |ms| Unit::Ms.shown(ms));
    let p95_ms = hybrid.p95_ms();
    Check {
        name: format!("{what}, {} viewers: p95", hybrid.viewers),
        ok: p95_ms.is_some_and(|p95_ms| p95_ms <= most_ms),
        detail: format!("{} beside {}", ms(p95_ms), ms(other_ms)),
    }
}

fn continuity(hybrid: &Point, halves: &[&Point]) -> Check {
    let better = halves.iter().filter_map(|half| half.median("on_time_ratio")).max_by(f64::total_cmp);
    let got = hybrid.median("on_time_ratio");
    Check {
        name: format!("hybrid beside the better, {} viewers: on time", hybrid.viewers),
        ok: got.is_some_and(|got| got >= better.unwrap_or(0.0) - CONTINUITY_LOST_MAX),
        detail: format!("{} beside {}", percent(got), percent(better)),
    }
}

fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "not measured".to_owned(), |ratio| Unit::Percent.shown(ratio))
}

fn mbit(bps: Option<f64>) -> String {
    bps.map_or_else(|| "not measured".to_owned(), |bps| format!("{:.2} Mbit/s", bps / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: Setup =
        Setup { rate_bps: 1_000_000, cap_bps: 20_000_000, viewer_bps: 1_500_000, commit: String::new() };

    fn point(mode: Mode, viewers: usize, on_time: f64, p95: f64, rate: f64) -> Point {
        let figures = [
            ("on_time_ratio", on_time),
            ("chunk_delay_ms/p95", p95),
            ("received_bps/mean", rate),
            ("received_ratio", rate / 1e6),
            ("source_bps/second_max", 19.9e6),
        ];
        let run = Run { figures: figures.into_iter().collect(), ..Run::default() };
        Point { mode, viewers, runs: vec![run], is_simulated: false }
    }

    /// The names of what fails.
    fn missed(points: &[Point]) -> Vec<String> {
        SETUP.checks(points).into_iter().filter(|check| !check.ok).map(|check| check.name).collect()
    }

    #[test]
    fn theory_shares_the_uplink_and_no_more_than_the_stream() {
        assert_eq!([1.0, 20.0, 40.0, 10_000.0].map(|n| SETUP.server_bps(n)), [1e6, 1e6, 5e5, 2e3]);
        assert_eq!(SETUP.swarm_bps(10_000.0), 1e6);
        let poor = Setup { viewer_bps: 400_000, commit: String::new(), ..SETUP };
        assert_eq!(poor.swarm_bps(40.0), 9e5);
        assert!(SETUP.covers(17) && !SETUP.covers(18), "headers take their part");
    }

    #[test]
    fn the_hybrid_is_held_against_the_better_of_its_halves() {
        let few = |hybrid_ms| {
            let server = point(Mode::ServerOnly, 10, 1.0, 10.0, 1e6);
            [
                server,
                point(Mode::SwarmOnly, 10, 1.0, 300.0, 1e6),
                point(Mode::Hybrid, 10, 1.0, hybrid_ms, 1e6),
            ]
        };
        assert_eq!(missed(&few(29.0)), [""; 0]);
        assert_eq!(missed(&few(31.0)).len(), 2, "beside server-only, and beside the better");
        // A server that loses half has no percentile, however soon the other half comes.
        let many = |hybrid_ms, on_time| {
            let server = point(Mode::ServerOnly, 40, 0.5, 10.0, 4.6e5);
            let swarm = point(Mode::SwarmOnly, 40, 1.0, 300.0, 1e6);
            [server, swarm, point(Mode::Hybrid, 40, on_time, hybrid_ms, 1e6)]
        };
        assert_eq!(missed(&many(329.0, 1.0)), [""; 0]);
        assert_eq!(missed(&many(331.0, 1.0)), ["hybrid beside the better, 40 viewers: p95"]);
        assert_eq!(missed(&many(300.0, 0.9985)).len(), 2, "below 99.9 %, and 0.1 point worse than the swarm");
    }

    #[test]
    fn what_was_not_measured_misses_and_a_server_need_not_hold_the_rate() {
        assert_eq!(missed(&[point(Mode::Nginx, 40, 0.1, 9e3, 4.9e5)]), [""; 0]);
        assert_eq!(
            missed(&[point(Mode::Nginx, 40, 0.1, 9e3, 6e5)]),
            ["nginx, 40 viewers: collapses as theory says"]
        );
        let less = point(Mode::ServerOnly, 30, 0.01, 1e4, 1.5e5);
        assert_eq!(
            missed(&[less]),
            ["server-only, 30 viewers: collapses as theory says"],
            "it wastes its uplink"
        );
        let lost = Point { runs: Vec::new(), ..point(Mode::SwarmOnly, 5, 1.0, 1.0, 1e6) };
        assert_eq!(missed(&[lost]).len(), 3);
    }
}
