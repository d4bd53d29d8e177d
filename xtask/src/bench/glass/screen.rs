//! What the page on a viewer's machine takes, by the clock in the picture: a real source, viewer and browser on this machine.
//!
//! Of what the picture is behind, the way here and what the node says is to be kept ahead are the swarm's; the rest belongs to the
//! machines at both ends: the part that fills, the source's encoder, the player, the decoder and the screen.

use super::encoder::{HEIGHT, WIDTH};
use crate::bench::figures::percentile;
use crate::bench::process::Process;
use crate::{sh, web, workspace};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// How long the clock in the picture is read.
const SECONDS: u32 = 30;
/// Source and viewer end by themselves after so long, whatever happens here.
const LIFETIME: &str = "120s";
/// What the channel is called in the page's list.
const NAME: &str = "Glass";

/// The ends' share of each reading, ms, sorted.
pub(super) fn times(caudal: &Path, rate_bps: u32, dir: &Path) -> Result<Vec<f64>> {
    let start = |name: &str, args: &[&str]| {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Process::start(name, None, caudal, &args, dir, &|| false)
    };
    let told = |process: &Process, what: &str| {
        let told = process.ready[what].as_str().map(str::to_owned);
        told.with_context(|| format!("a program said no {what} when it was ready"))
    };
    let tracker = start("tracker", &["tracker", "--listen", "127.0.0.1:0"])?;
    let (size, rate) = (format!("{WIDTH}x{HEIGHT}"), rate_bps.to_string());
    let to_tracker = told(&tracker, "http")?;
    let card = ["--input", "test", "--card-size", &size, "--card-rate", &rate, "--listed"];
    let publish = ["publish", "--name", NAME, "--tracker", &to_tracker, "--duration", LIFETIME];
    let source = start("source", &[&publish[..], &card].concat())?;
    let viewer = start("viewer", &["watch", &told(&source, "link")?, "--duration", LIFETIME])?;
    let mut browser = Command::new("node");
    browser.arg(web::dir().join("test/glass.mjs")).current_dir(workspace::root());
    browser.args(["--page", &told(&viewer, "page")?, "--name", NAME, "--seconds", &SECONDS.to_string()]);
    let read = sh::output(&mut browser)?;
    let read: Value = serde_json::from_str(read.trim()).context("the browser's report is no JSON")?;
    let stats = viewer.stats()?;
    let known = |name: &str| {
        stats.pointer(name).and_then(Value::as_f64).with_context(|| format!("the viewer said no {name}"))
    };
    // A page that has stalled keeps more ahead than its node asks for: nothing could be told from that.
    ensure!(read["stalls"] == 0, "the page stalled: nothing else may run beside this benchmark");
    let swarm_ms = known("/wanted_ms")? + known("/chunk_delay_ms/p50")?;
    let behind = read["behind_ms"].as_array().context("the browser read no clock")?;
    let mut ends: Vec<f64> =
        behind.iter().filter_map(Value::as_f64).map(|behind| behind - swarm_ms).collect();
    ensure!(ends.len() > SECONDS as usize, "the clock in the picture could hardly be read");
    ends.sort_by(f64::total_cmp);
    sh::say(&format!(
        "the picture is {:.0} ms behind its source (median), {swarm_ms:.0} ms of them kept ahead or under way",
        percentile(&ends, 50.0).unwrap_or_default() + swarm_ms,
    ));
    Ok(ends)
}
