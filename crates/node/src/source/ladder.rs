//! A ladder: the system's ffmpeg makes lower renditions of what comes in, and publishes them to this node's own RTMP server.
//!
//! It reads the preview, whose times are the channel's, and keeps them; its key frames lie where the preview's do. It ends with
//! the source, and is started again when it ends before.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{RtmpServer, Shared};

/// The source's picture is waited for by looking this often.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// An ffmpeg that ended is started again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// No rung takes less, kbit/s.
const KBPS_MIN: u64 = 150;
/// What comes in is measured for so long before the ladder begins: a key frame, or a dark one, says nothing of the rest.
const MEASURED_FOR: Duration = Duration::from_secs(5);
/// So much of its last words is told.
const TOLD_MAX: usize = 200;

/// Which lower renditions are made, and how.
#[derive(Debug)]
pub struct LadderConfig {
    /// Heights of the pictures.
    pub heights: Vec<u32>,
    /// The program.
    pub ffmpeg: PathBuf,
    /// The preview's URL.
    pub preview: String,
    /// Where to publish, with the stream key.
    pub publish: String,
    /// The server for that, where the input has none.
    pub server: Option<RtmpServer>,
}

/// The name of a rendition of such a height, behind the stream key.
pub fn rung_name(height: u32) -> String {
    format!("{height}p")
}

/// What a picture of such a height takes, kbit/s, made of one of `of.0` lines that takes `of.1` bit/s.
fn rung_kbps(height: u32, of: (u32, u64)) -> u64 {
    // 2.5 Mbit/s at 720 lines …
    let usual = u64::from(height) * u64::from(height) * 48 / 10_000;
    // … and less than what it is made of, as much as the picture is smaller; what begins dark does not stay dark.
    let share = (f64::from(height) / f64::from(of.0.max(1))).powf(1.5);
    let most = (of.1 as f64 * share / 1000.0) as u64;
    most.clamp(usual / 4, usual).max(KBPS_MIN)
}

/// A running ladder; ends when dropped.
#[derive(Debug)]
pub(super) struct Ladder(JoinHandle<()>);

impl Drop for Ladder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Ladder {
    pub(super) fn start(
        config: LadderConfig,
        shared: Arc<Shared>,
        said: mpsc::UnboundedSender<String>,
    ) -> Self {
        Self(tokio::spawn(keep(config, shared, said)))
    }
}

async fn keep(config: LadderConfig, shared: Arc<Shared>, said: mpsc::UnboundedSender<String>) {
    let mut has_told = false;
    loop {
        let (height, rate_bps) = measured(&shared).await;
        let lower: Vec<u32> = config.heights.iter().copied().filter(|rung| *rung < height).collect();
        if lower.is_empty() {
            let text = format!(
                "--ladder: nothing is lower than the {height} lines that come in; there is one rendition."
            );
            let _ = said.send(text);
            return;
        }
        if lower.len() < config.heights.len() && !std::mem::replace(&mut has_told, true) {
            let left_out = config.heights.iter().filter(|rung| **rung >= height);
            let left_out: Vec<String> = left_out.map(|rung| rung_name(*rung)).collect();
            let text = format!("--ladder: {height} lines come in, so {} is not made.", left_out.join(", "));
            let _ = said.send(text);
        }
        let told = match spawn(&config, &lower, (height, rate_bps)) {
            Ok(child) => watch(child).await,
            Err(error) => error.to_string(),
        };
        // It ends with the broadcast too, and nobody is told of that: by then this task is gone.
        tokio::time::sleep(AGAIN_AFTER).await;
        let _ = said.send(format!("The ladder's ffmpeg ended: {told}. It is started again."));
    }
}

/// Lines of the picture that comes in, and what it takes, bit/s.
async fn measured(shared: &Shared) -> (u32, u64) {
    while shared.height().is_none() {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    tokio::time::sleep(MEASURED_FOR).await;
    loop {
        match shared.height().zip(shared.rate_bps()) {
            Some(known) => return known,
            None => tokio::time::sleep(LOOK_PERIOD).await,
        }
    }
}

fn spawn(config: &LadderConfig, heights: &[u32], of: (u32, u64)) -> std::io::Result<Child> {
    let mut command = Command::new(&config.ffmpeg);
    command.args(["-v", "error", "-nostdin", "-fflags", "nobuffer", "-analyzeduration", "1000000"]);
    command.args(["-copyts", "-i", &config.preview]);
    for height in heights {
        let kbps = rung_kbps(*height, of);
        command.args(["-map", "0:v:0", "-map", "0:a:0?", "-vf", &format!("scale=-2:{height}")]);
        command.args(["-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-bf", "0"]);
        // A key frame where the input has one, and nowhere else.
        command.args(["-force_key_frames", "source", "-sc_threshold", "0", "-g", "100000"]);
        command.args(["-fps_mode", "passthrough", "-pix_fmt", "yuv420p"]);
        command.args(["-b:v", &format!("{kbps}k"), "-maxrate", &format!("{kbps}k")]);
        command.args(["-bufsize", &format!("{}k", kbps / 2), "-c:a", "copy", "-flush_packets", "1"]);
        command.args(["-f", "flv", &format!("{}_{}", config.publish, rung_name(*height))]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn()
}

/// Until it ends; its last words, without what has an address in it.
async fn watch(mut child: Child) -> String {
    let mut last = String::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            // A stream key or a page's token stands in an address.
            if !line.contains("rtmp://") && !line.contains("/t/") {
                tracing::debug!("ffmpeg: {line}");
                last = line.chars().filter(|c| !c.is_control()).take(TOLD_MAX).collect();
            }
        }
    }
    let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    if last.is_empty() { status } else { format!("{status}, {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_takes_less_than_the_one_above() {
        let kbps = [1080, 720, 480, 360, 240, 144].map(|height| rung_kbps(height, (2160, 30_000_000)));
        assert!(kbps.is_sorted_by(|a, b| a > b), "{kbps:?}");
        assert_eq!(kbps[1], 2488);
        let home = [720, 360].map(|height| rung_kbps(height, (1080, 2_000_000)));
        assert_eq!(home, [1088, 384], "a home's line makes 1080 lines of 2 Mbit/s: 720 take less");
        assert_eq!(rung_kbps(720, (1080, 40_000)), 622, "it began dark");
    }
}
