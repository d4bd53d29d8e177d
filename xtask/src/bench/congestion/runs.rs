//! One run of a case: the load in two namespaces around the link emulator, and what it comes to.

use super::super::netns::World;
use super::super::process::Process;
use super::super::trial;
use super::cases::{Case, Load};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Until then figures do not count.
const WARM_UP: Duration = Duration::from_secs(5);
/// The window on the wire ends so long before the load does.
const MARGIN: Duration = Duration::from_millis(300);
/// When a TCP flow begins and ends, and when the load does then; seconds.
const TCP_FROM: usize = 6;
const TCP_UNTIL: usize = 22;
const TCP_ALL: usize = 30;
const PORT: u16 = 4433;
/// What the crowd's node publishes.
const STREAM_BPS: u64 = 1_000_000;

/// Figures by path, `ours/…` and `cubic/…`.
pub(super) type Figures = BTreeMap<String, f64>;

/// What a run needs.
pub(super) struct Runner<'a> {
    pub(super) load: &'a Path,
    /// Emptied, then filled with the processes' state and logs.
    pub(super) dir: &'a Path,
    pub(super) seed: u64,
    pub(super) duration: Duration,
    pub(super) stop: &'a AtomicBool,
}

impl Runner<'_> {
    pub(super) fn run(&self, case: &Case) -> Result<Figures> {
        if self.dir.exists() {
            std::fs::remove_dir_all(self.dir)
                .with_context(|| format!("cannot empty {}", self.dir.display()))?;
        }
        std::fs::create_dir_all(self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let mut figures = self.with(case, "ours")?;
        if case.has_baseline {
            figures.extend(self.with(case, "cubic")?);
        }
        Ok(figures)
    }

    fn with(&self, case: &Case, control: &str) -> Result<Figures> {
        let duration = match case.load {
            Load::BesideTcp { .. } => Duration::from_secs(TCP_ALL as u64),
            _ => self.duration,
        };
        // Dropped last, after the processes inside have ended.
        let world = World::emulated(&case.lines(), case.path(), self.seed)?;
        let (here, there) =
            (format!("{}:{PORT}", World::address(0)), format!("{}:{PORT}", World::address(1)));
        let seconds = duration.as_secs_f64().to_string();
        let (slack, warm_up) = ((duration.as_secs_f64() + 10.0).to_string(), WARM_UP.as_secs().to_string());
        let start = |name: &str, peer: usize, args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            let stop = || self.stop.load(Ordering::Relaxed);
            Process::start(
                &format!("{control}-{name}"),
                Some(world.peer(peer)),
                self.load,
                &args,
                self.dir,
                &stop,
            )
        };
        let (other, sender) = match case.load {
            Load::Chunks { bps } | Load::BesideTcp { bps } => {
                let rate = bps.to_string();
                let sink = start("sink", 1, &["sink", "--bind", &there, "--duration", &slack])?;
                let mut args =
                    vec!["send", "--bind", &here, "--to", &there, "--control", control, "--rate", &rate];
                args.extend(["--duration", &seconds, "--warm-up", &warm_up]);
                let (from, until) = (TCP_FROM.to_string(), TCP_UNTIL.to_string());
                if let Load::BesideTcp { .. } = case.load {
                    args.extend(["--tcp-from", &from, "--tcp-until", &until]);
                }
                (sink, start("send", 0, &args)?)
            }
            Load::Crowd { peers } => {
                let (rate, peers, seed) = (STREAM_BPS.to_string(), peers.to_string(), self.seed.to_string());
                let mut args = vec!["source", "--bind", &here, "--rate", &rate];
                args.extend(["--duration", &seconds, "--warm-up", &warm_up]);
                let source = start("source", 0, &args)?;
                let mut args = vec!["crowd", "--bind", &there, "--to", &here, "--peers", &peers];
                args.extend(["--seed", &seed, "--duration", &slack]);
                (start("crowd", 1, &args)?, source)
            }
        };
        trial::pause(WARM_UP, self.stop)?;
        let (began, before) = (Instant::now(), world.wire()?[0]);
        trial::pause(duration.saturating_sub(WARM_UP + MARGIN), self.stop)?;
        let (span, after) = (began.elapsed().as_secs_f64(), world.wire()?[0]);
        let report = sender.report()?;
        drop(other);
        let path = self.dir.join(format!("{control}-report.json"));
        std::fs::write(&path, format!("{report:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut figures = shown(&report, case);
        if let Some(tally) = world.tally() {
            eprintln!(
                "    {control}: the emulator lost {} packets, dropped {} at full queues, and was {} ms late at worst",
                tally.lost,
                tally.dropped,
                tally.late.as_millis()
            );
            let all = world.wire()?[0].out_packets + tally.dropped;
            figures.insert("dropped".to_owned(), tally.dropped as f64 / (all as f64).max(1.0));
        }
        if let Some(bps) = case.bps() {
            let bytes = after.out_bytes - before.out_bytes;
            figures.insert("used".to_owned(), bytes as f64 * 8.0 / span / bps);
        }
        Ok(figures.into_iter().map(|(path, value)| (format!("{control}/{path}"), value)).collect())
    }
}

/// What a sender reports, flat, and what follows from its series.
fn shown(report: &Value, case: &Case) -> Figures {
    let mut figures = Figures::new();
    for (name, value) in report.as_object().into_iter().flatten() {
        if let Some(number) = value.as_f64() {
            figures.insert(name.clone(), number);
        }
        for (part, value) in value.as_object().into_iter().flatten() {
            figures.extend(value.as_f64().map(|number| (format!("{name}/{part}"), number)));
        }
    }
    if let Load::BesideTcp { bps } = case.load {
        let line = case.bps().unwrap_or(1.0);
        let ours = |from, until| mean(&report["bps"], from, until);
        figures.insert("tcp".to_owned(), mean(&report["tcp_bps"], TCP_FROM + 2, TCP_UNTIL) / line);
        figures.insert("after".to_owned(), ours(TCP_UNTIL + 3, TCP_ALL) / line);
        if bps > 0 {
            figures.insert("beside".to_owned(), ours(TCP_FROM + 2, TCP_UNTIL) / bps as f64);
            figures.insert("first".to_owned(), ours(TCP_FROM, TCP_FROM + 3) / bps as f64);
        }
    }
    figures
}

/// The mean of a series from one second to another; a second that it lacks had nothing.
fn mean(series: &Value, from: usize, until: usize) -> f64 {
    let value = |second: usize| series.get(second).and_then(Value::as_f64).unwrap_or(0.0);
    (from..until).map(value).sum::<f64>() / (until - from) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reports_are_flattened_and_series_are_averaged_over_the_flows_time() {
        let mut bps = vec![2_000_000.0; TCP_ALL];
        bps[TCP_FROM] = 500_000.0;
        let report =
            json!({"schema": 1, "rtt_ms": {"p95": 120.5}, "chunk_ms": null, "bps": bps, "tcp_bps": [0.0]});
        let case = super::super::CASES.iter().find(|case| case.name == "watched").unwrap();
        let figures = shown(&report, case);
        assert_eq!(figures["rtt_ms/p95"], 120.5);
        assert_eq!(figures["beside"], 1.0);
        assert_eq!(figures["first"], 0.75);
        assert_eq!(figures["tcp"], 0.0);
    }
}
