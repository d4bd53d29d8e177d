//! What `caudal sim` says of a case that was run with real processes: the same viewers, lines and stream in virtual time.
//!
//! The simulator's model of the transport has one figure that belongs to the machine and not to the network: what a host takes to
//! pass a chunk on. It is fitted on the cases marked so; the others are predictions.

use super::figures::{Shape, median};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Passing a chunk on takes a process of this machine so long: of 1 to 4 ms the one with the least error (in logarithms) of p50 and
/// p95 in *clean-20* and *loss* together.
const HOST_DELAY: Duration = Duration::from_micros(2_500);
/// A part with a key frame is so many mean parts long; so is the test card's.
const KEY_SIZE: f64 = 1.65;
/// An open line, in multiples of the rate.
const OPEN: f64 = 1_000.0;
/// Shortest one-way delay that the simulator knows, ms.
const ONE_WAY_MS_MIN: f64 = 0.05;
/// Runs, with seeds from 1.
const SEEDS: u32 = 3;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Population {
    pub(super) viewers: usize,
    pub(super) rate_bps: u64,
    pub(super) shape: Shape,
    pub(super) rtt_ms: u64,
    pub(super) loss: f64,
    pub(super) killed_percent: usize,
    /// What the source pushes; `None`: what its line carries, as a hybrid's does.
    pub(super) source_copies: Option<usize>,
    /// As measured; the simulator's own choice where nothing was.
    pub(super) chunk_bytes: Option<u64>,
    /// Viewers come during this …
    pub(super) ramp: Duration,
    /// … and everything settles for as long as this.
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// Medians over the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Simulated {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
}

impl Population {
    /// Runs it with the simulator of the program under test; `profile` is a file that may be overwritten.
    pub(super) fn simulate(&self, caudal: &Path, profile: &Path) -> Result<Simulated> {
        read(&self.reports(caudal, profile, SEEDS)?)
    }

    /// The reports of so many seeds, from 1.
    pub(super) fn reports(&self, caudal: &Path, profile: &Path, seeds: u32) -> Result<Vec<Value>> {
        std::fs::write(profile, self.profile())
            .with_context(|| format!("cannot write {}", profile.display()))?;
        let mut command = Command::new(caudal);
        command
            .args(self.args())
            .args(["--seeds", &seeds.to_string()])
            .arg("--profile")
            .arg(profile)
            .stderr(Stdio::inherit());
        let output = command.output().context("cannot run the simulator")?;
        if !output.status.success() {
            bail!("the simulator failed: {command:?}");
        }
        reports(&output.stdout)
    }

    fn profile(&self) -> String {
        let upload = match self.shape {
            Shape::Open => OPEN,
            Shape::Narrow { viewer_bps, .. } => viewer_bps as f64 / self.rate_bps as f64,
        };
        let one_way_ms = (self.rtt_ms as f64 / 2.0).max(ONE_WAY_MS_MIN);
        format!(
            "[[class]]\nname = \"viewer\"\nshare = 1.0\nupload = {upload:?}\n\n[network]\nregion_share = [1.0]\n\
             one_way_ms = [[{one_way_ms:?}]]\njitter_ms = 0.0\nloss = {:?}\nloss_burst = 1.0\nreordered = 0.0\n\
             reordered_ms = 0.0\nduplicated = 0.0\ndownload = {OPEN:?}\n",
            self.loss,
        )
    }

    fn args(&self) -> Vec<String> {
        let line = match self.shape {
            Shape::Open => OPEN,
            Shape::Narrow { source_bps, .. } => source_bps as f64 / self.rate_bps as f64,
        };
        let warm_up = self.ramp + self.warm_up;
        let mut args = vec!["sim".to_owned(), "--json".to_owned()];
        for (name, value) in [
            ("--peers", self.viewers.to_string()),
            ("--rate", self.rate_bps.to_string()),
            ("--key-size", KEY_SIZE.to_string()),
            ("--upload-mean", "profile".to_owned()),
            ("--told", "nothing".to_owned()),
            ("--churn", "none".to_owned()),
            ("--goodbyes", "0%".to_owned()),
            ("--source-copies", line.to_string()),
            ("--ramp", format!("{}ms", self.ramp.as_millis())),
            ("--warmup", format!("{}ms", warm_up.as_millis())),
            ("--duration", format!("{}ms", self.duration.as_millis())),
            ("--host-delay", format!("{}ms", HOST_DELAY.as_secs_f64() * 1e3)),
        ] {
            args.extend([name.to_owned(), value]);
        }
        match self.source_copies {
            Some(copies) => args.extend(["--source-fill".to_owned(), (copies as f64 / line).to_string()]),
            None => args.extend(["--delivery", "hybrid"].map(str::to_owned)),
        }
        if let Some(bytes) = self.chunk_bytes {
            args.extend(["--chunk".to_owned(), bytes.to_string()]);
        }
        if self.killed_percent > 0 {
            args.extend(["--event".to_owned(), format!("leave {}% at 0ms", self.killed_percent)]);
        }
        args
    }
}

/// Runs `caudal sim` as `command` has it, for one report a seed.
pub(super) fn run(command: &mut Command, seeds: usize) -> Result<Vec<Value>> {
    let output = command.stderr(Stdio::inherit()).output().context("cannot run the simulator")?;
    let reports = reports(&output.stdout)?;
    if reports.len() != seeds {
        bail!("the simulator failed: {command:?}");
    }
    Ok(reports)
}

/// What the simulator printed: one report after the other, as JSON.
fn reports(printed: &[u8]) -> Result<Vec<Value>> {
    serde_json::Deserializer::from_slice(printed)
        .into_iter()
        .collect::<Result<_, _>>()
        .context("the simulator printed something else than JSON")
}

fn read(reports: &[Value]) -> Result<Simulated> {
    let of = |name: &str| {
        let values: Vec<f64> =
            reports.iter().filter_map(|report| report["chunk_delay_ms"][name].as_f64()).collect();
        median(&values).with_context(|| format!("the simulator reported no {name}"))
    };
    Ok(Simulated { p50_ms: of("p50")?, p95_ms: of("p95")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_and_their_median_taken() {
        let text = r#"{"chunk_delay_ms":{"p50":3,"p95":9}} {"chunk_delay_ms":{"p50":1,"p95":8}}
            {"chunk_delay_ms":{"p50":2,"p95":7}}"#;
        let read = |text: &str| reports(text.as_bytes()).and_then(|reports| read(&reports));
        assert_eq!(read(text).unwrap(), Simulated { p50_ms: 2.0, p95_ms: 8.0 });
        assert!(read("{}").is_err() && read("").is_err() && read("no").is_err());
    }

    #[test]
    fn a_narrow_line_is_told_as_a_multiple_of_the_rate() {
        let population = Population {
            viewers: 20,
            rate_bps: 1_000_000,
            shape: Shape::Narrow { source_bps: 6_000_000, viewer_bps: 1_500_000 },
            rtt_ms: 20,
            loss: 0.0,
            killed_percent: 30,
            source_copies: Some(2),
            chunk_bytes: Some(7_000),
            ramp: Duration::from_secs(5),
            warm_up: Duration::from_secs(12),
            duration: Duration::from_secs(15),
        };
        assert!(population.profile().contains("upload = 1.5\n") && population.profile().contains("[[10.0]]"));
        let args = population.args().join(" ");
        assert!(args.contains("--source-copies 6 ") && args.contains("--source-fill 0.3333"), "{args}");
        assert!(args.contains("--warmup 17000ms") && args.ends_with("--event leave 30% at 0ms"), "{args}");
    }
}
