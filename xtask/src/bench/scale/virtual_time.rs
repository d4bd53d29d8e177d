//! The swarm beyond what one machine can run: `caudal sim` with the same stream, lines and origin.

use super::super::figures::{Run, Shape};
use super::super::simulated::Population;
use super::super::trial::JOIN_INTERVAL;
use super::{Mode, SWARM_COPIES};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Viewers come within this …
const RAMP_MAX: Duration = Duration::from_secs(30);
/// … unless more than so many came in it: how many a swarm takes in at once is another question than how many it carries.
const RAMP_VIEWERS_MAX: usize = 1000;
/// … and have so long at least to find each other: of 1,000 that came within 15 s, fed two copies, a third had what was due 10 s
/// later, and all of them 30 s later.
const SETTLE_MIN: Duration = Duration::from_secs(30);

/// Whether there is something to simulate: what a server does alone, theory says.
pub(super) fn knows(mode: Mode) -> bool {
    matches!(mode, Mode::SwarmOnly | Mode::Hybrid)
}

/// What to simulate.
pub(super) struct Swarm {
    pub(super) mode: Mode,
    pub(super) viewers: usize,
    pub(super) rate_bps: u64,
    pub(super) shape: Shape,
    pub(super) chunk_bytes: Option<u64>,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

impl Swarm {
    /// Runs it once, seed 1; `profile` is a file that may be overwritten.
    pub(super) fn simulate(&self, caudal: &Path, profile: &Path) -> Result<Run> {
        let reports = self.population().reports(caudal, profile, 1)?;
        ensure!(reports.len() == 1, "the simulator printed {} reports instead of one", reports.len());
        Ok(figures(&reports[0], self.rate_bps))
    }

    fn ramp(&self) -> Duration {
        let crowds = self.viewers.div_ceil(RAMP_VIEWERS_MAX) as u32;
        (JOIN_INTERVAL * self.viewers as u32).min(RAMP_MAX * crowds)
    }

    fn population(&self) -> Population {
        Population {
            viewers: self.viewers,
            rate_bps: self.rate_bps,
            shape: self.shape,
            rtt_ms: 0,
            loss: 0.0,
            killed_percent: 0,
            source_copies: (self.mode == Mode::SwarmOnly).then_some(SWARM_COPIES),
            chunk_bytes: self.chunk_bytes,
            ramp: self.ramp(),
            warm_up: self.warm_up.max(SETTLE_MIN),
            duration: self.duration,
        }
    }
}

/// A report's figures under the names of a real run's.
fn figures(report: &Value, rate_bps: u64) -> Run {
    let number = |path: &str| report.pointer(&format!("/{path}")).and_then(Value::as_f64);
    let rate_bps = rate_bps as f64;
    let mut run = Run { commit: report["commit"].as_str().unwrap_or_default().to_owned(), ..Run::default() };
    for path in ["chunk_delay_ms/p50", "chunk_delay_ms/p95", "startup_ms/p50", "startup_ms/p95", "wire_ratio"]
    {
        run.set(path, number(path));
    }
    run.set("rate_bps", Some(rate_bps));
    run.set("on_time_ratio", number("continuity/1500"));
    let came = number("chunks/due").zip(number("chunks/missing")).map(|(due, missing)| 1.0 - missing / due);
    run.set("received_ratio", came);
    run.set("received_bps/mean", came.map(|came| came * rate_bps));
    run.set("source_bps/mean", number("source_copies").map(|copies| copies * rate_bps));
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn swarm(mode: Mode, viewers: usize) -> Population {
        let shape = Shape::Narrow { source_bps: 20_000_000, viewer_bps: 1_500_000 };
        let (warm_up, duration) = (Duration::from_secs(15), Duration::from_secs(20));
        Swarm { mode, viewers, rate_bps: 1_000_000, shape, chunk_bytes: None, warm_up, duration }.population()
    }

    #[test]
    fn the_hybrid_may_send_what_its_line_carries() {
        assert_eq!(swarm(Mode::Hybrid, 100).source_copies, None);
        assert_eq!(swarm(Mode::SwarmOnly, 100).source_copies, Some(2));
        assert_eq!(swarm(Mode::Hybrid, 1_000).ramp, RAMP_MAX);
        assert_eq!(swarm(Mode::Hybrid, 10_000).ramp, Duration::from_secs(300));
    }

    #[test]
    fn a_report_becomes_a_runs_figures() {
        let report = json!({
            "commit": "x", "continuity": {"1500": 0.999}, "chunks": {"due": 1000, "missing": 10},
            "chunk_delay_ms": {"p50": 100.0, "p95": 300.0}, "source_copies": 2.5,
        });
        let run = figures(&report, 1_000_000);
        assert_eq!(run.get("received_bps/mean"), Some(990_000.0));
        assert_eq!(run.get("source_bps/mean"), Some(2_500_000.0));
        assert_eq!((run.get("on_time_ratio"), run.get("chunk_delay_ms/p95")), (Some(0.999), Some(300.0)));
    }
}
