//! `cargo xtask bench glass`: from the encoder's picture to the one on a viewer's screen, share by share.
//!
//! The encoder is a real one (x264 in ffmpeg, set up as for streaming): raw pictures go in at their times, and each is timed until its
//! bytes come out. Delivery and players are the simulator's, since nobody has a thousand viewers at hand: `proto::qos` says for each
//! how much it keeps ahead. What a browser takes to show a picture is an allowance, held against what `web/test/page.mjs` measures.

use super::figures::percentile;
use super::report::{self, Target, Unit, aligned};
use super::simulated;
use super::trial;
use crate::{sh, system};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Arguments of `cargo xtask bench glass`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Viewers.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    peers: u32,
    /// How many seeds, from 1.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=30))]
    seeds: u8,
    #[command(flatten)]
    program: trial::Program,
}

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
const FPS: u32 = 30;
/// Pictures that are encoded …
const PICTURES: usize = 300;
/// … of which the first ones, while the encoder starts, do not count.
const SKIPPED: usize = 30;
/// Decoding and the screen: two pictures. The page's own figure leaves less than that (docs/benchmarks.md, *The page*).
const SCREEN_MS: f64 = 2.0 * 1000.0 / FPS as f64;
/// What a part waits to be full.
const PART_MS: f64 = 200.0;
/// What all of it may take.
const GOAL_MS: f64 = 2_000.0;
/// The stream, and what its source may send: twenty copies.
const RATE_BPS: u32 = 3_000_000;
const COPIES: u32 = 20;

/// One share of the delay, ms.
struct Share {
    label: &'static str,
    how: &'static str,
    p50_ms: f64,
    p95_ms: f64,
}

/// Runs the benchmark; true when the target was met.
pub(super) fn run(args: &Args) -> Result<bool> {
    let caudal = args.program.get(&system::TO_BENCH[..1])?;
    system::ensure(system::TO_ENCODE)?;
    sh::say(&format!("x264 by ffmpeg, {WIDTH}×{HEIGHT}, {FPS} pictures a second, {PICTURES} of them"));
    let encoder = encode()?;
    sh::say(&format!("{} viewers in virtual time, seeds 1 to {}", args.peers, args.seeds));
    let simulated = simulate(args, &caudal)?;
    let mean = |path: &str| {
        let values = simulated.iter().filter_map(|report| report.pointer(path)?.as_f64());
        let values: Vec<f64> = values.collect();
        ensure!(values.len() == simulated.len(), "the simulator said nothing of {path}");
        Ok(values.iter().sum::<f64>() / values.len() as f64)
    };
    let of = |label, how, path: &str| -> Result<Share> {
        let [p50_ms, p95_ms] = ["p50", "p95"].map(|share| mean(&format!("/playout/{path}/{share}")));
        Ok(Share { label, how, p50_ms: p50_ms?, p95_ms: p95_ms? })
    };
    let behind = of("part, way and kept ahead", "simulated, each viewer's sum", "behind_ms")?;
    let shares = [
        Share {
            label: "encoder",
            how: "real",
            p50_ms: percentile(&encoder, 50.0).unwrap_or_default(),
            p95_ms: percentile(&encoder, 95.0).unwrap_or_default(),
        },
        Share { label: "part that fills", how: "its length", p50_ms: PART_MS, p95_ms: PART_MS },
        of("way through the swarm", "simulated", "way_ms")?,
        of("kept ahead", "simulated, as `proto::qos` wants", "wanted_ms")?,
        Share { label: "decoder and screen", how: "two pictures", p50_ms: SCREEN_MS, p95_ms: SCREEN_MS },
    ];
    // The shares between encoder and screen are not each at their worst for the same viewer: their sum is known.
    let total = |pick: fn(&Share) -> f64| pick(&shares[0]) + pick(&behind) + pick(&shares[4]);
    let (p50_ms, p95_ms) = (total(|share| share.p50_ms), total(|share| share.p95_ms));
    let on_time = mean("/playout/on_time")?;
    let target = Target::AtMost(GOAL_MS);
    let ok = target.met(p95_ms);
    let text = format!(
        "{}\nGlass to glass: p50 {}, p95 {} (asked: {}) {}. Of parts, {} are in time for what is kept ahead.\n",
        table(&shares, &behind),
        Unit::Ms.shown(p50_ms),
        Unit::Ms.shown(p95_ms),
        target.shown(Unit::Ms).unwrap_or_default(),
        if ok { "ok" } else { "FAIL" },
        Unit::Percent.shown(on_time),
    );
    println!("\n{text}");
    let commit = simulated.first().and_then(|report| report["commit"].as_str()).unwrap_or("unknown");
    args.program.write_json(&json!({
        "schema": 1, "commit": commit, "command": trial::command_line(), "machine": report::machine(), "ok": ok,
        "shares": shares.iter().map(|share| json!({
            "name": share.label, "how": share.how, "p50_ms": share.p50_ms, "p95_ms": share.p95_ms,
        })).collect::<Vec<_>>(),
        "p50_ms": p50_ms, "p95_ms": p95_ms, "on_time_ratio": on_time,
    }))?;
    if args.program.write_docs {
        report::may_write_docs(commit)?;
        let section = format!(
            "{}, commit {commit}, {}. {} viewers, seeds 1 to {}.\nCommand: `{}`\n\n{text}",
            report::today()?,
            report::machine(),
            args.peers,
            args.seeds,
            trial::command_line(),
        );
        report::write_section("glass", &section)?;
    }
    Ok(ok)
}

fn table(shares: &[Share], behind: &Share) -> String {
    let row = |share: &Share| {
        [
            share.label.to_owned(),
            Unit::Ms.shown(share.p50_ms),
            Unit::Ms.shown(share.p95_ms),
            share.how.to_owned(),
        ]
    };
    let mut lines = vec![["share", "median", "p95", "how"].map(str::to_owned)];
    lines.extend(shares.iter().map(row));
    lines.push(row(behind));
    aligned(&lines)
}

fn simulate(args: &Args, caudal: &Path) -> Result<Vec<Value>> {
    let mut command = Command::new(caudal);
    command.args([
        "sim",
        "--json",
        "--delivery",
        "hybrid",
        "--ramp",
        "30s",
        "--warmup",
        "70s",
        "--duration",
        "40s",
    ]);
    command.args(["--peers", &args.peers.to_string(), "--seeds", &args.seeds.to_string()]);
    command.args(["--rate", &RATE_BPS.to_string(), "--source-copies", &COPIES.to_string()]);
    simulated::run(&mut command, usize::from(args.seeds))
}

/// How long pictures are in the encoder, ms, sorted.
fn encode() -> Result<Vec<f64>> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args([
        "-v",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        "-probesize",
        "32",
        "-fflags",
        "nobuffer",
    ]);
    ffmpeg.args(["-s", &format!("{WIDTH}x{HEIGHT}"), "-r", &FPS.to_string(), "-i", "-"]);
    ffmpeg.args(["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-g", "60", "-b:v", "3M"]);
    ffmpeg.args(["-flush_packets", "1", "-f", "flv", "-"]);
    let mut ffmpeg =
        ffmpeg.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start ffmpeg")?;
    let mut pictures = ffmpeg.stdin.take().context("ffmpeg takes no pictures")?;
    let stream = ffmpeg.stdout.take().context("ffmpeg gives no stream")?;
    let reader = std::thread::spawn(move || arrivals(stream));
    let begun = Instant::now();
    let mut given = Vec::with_capacity(PICTURES);
    let mut picture = vec![128_u8; WIDTH * HEIGHT * 3 / 2];
    for n in 0..PICTURES {
        draw(&mut picture, n);
        std::thread::sleep(
            (begun + Duration::from_secs(1) * n as u32 / FPS).saturating_duration_since(Instant::now()),
        );
        given.push(Instant::now());
        pictures.write_all(&picture).context("ffmpeg takes no more pictures")?;
    }
    drop(pictures);
    let came = reader.join().map_err(|_| anyhow::anyhow!("the reader of ffmpeg's stream died"))??;
    ensure!(ffmpeg.wait()?.success(), "ffmpeg failed");
    ensure!(came.len() == PICTURES, "{PICTURES} pictures went in, {} came out", came.len());
    let took = given.iter().zip(&came).skip(SKIPPED).map(|(given, came)| came.duration_since(*given));
    let mut took: Vec<f64> = took.map(|took| took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// Something that moves everywhere, so that there is something to encode.
fn draw(picture: &mut [u8], n: usize) {
    for (y, line) in picture[..WIDTH * HEIGHT].chunks_exact_mut(WIDTH).enumerate() {
        for (x, dot) in line.iter_mut().enumerate() {
            *dot = ((x * 3 + n * 7) ^ (y * 2 + n * 5)) as u8 / 2 + 60;
        }
    }
}

/// When each picture of an FLV stream (Adobe's specification, version 10.1, annex E) came.
fn arrivals(mut stream: impl Read) -> Result<Vec<Instant>> {
    /// Type of a tag with pictures, and of an AVC packet that holds one.
    const VIDEO: u8 = 9;
    const NAL_UNITS: u8 = 1;
    let mut header = [0; 13];
    stream.read_exact(&mut header).context("ffmpeg writes no FLV header")?;
    let mut came = Vec::new();
    let mut tag = [0; 11];
    while stream.read_exact(&mut tag).is_ok() {
        let len = u32::from_be_bytes([0, tag[1], tag[2], tag[3]]) as usize;
        let mut body = vec![0; len + 4];
        stream.read_exact(&mut body).context("ffmpeg's stream ends within a tag")?;
        if tag[0] == VIDEO && body.get(1) == Some(&NAL_UNITS) {
            came.push(Instant::now());
        }
    }
    Ok(came)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_counted_and_other_tags_are_not() {
        let tag = |kind: u8, body: &[u8]| {
            let mut tag = vec![kind, 0, 0, body.len() as u8, 0, 0, 0, 0, 0, 0, 0];
            tag.extend_from_slice(body);
            tag.extend([0; 4]);
            tag
        };
        let header = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
        let all = [
            header,
            tag(18, b"x"),
            tag(9, &[0x17, 0, 0]),
            tag(9, &[0x17, 1, 9]),
            tag(8, &[1, 1]),
            tag(9, &[0x27, 1]),
        ];
        assert_eq!(arrivals(&all.concat()[..]).unwrap().len(), 2);
        assert!(arrivals(&b"FLV"[..]).is_err());
    }
}
