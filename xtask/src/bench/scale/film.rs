//! What is broadcast: a test pattern at a constant rate, encoded before anything is measured and looped then. An encoder beside the
//! viewers would be measured with them: with sixty on two cores the test card no longer makes its rate.

use crate::sh;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Between key frames; the length of a segment of HLS.
pub(super) const KEY_S: u32 = 2;
/// Longer than any buffer, and a multiple of [`KEY_S`].
const LENGTH_S: u32 = 60;
const PICTURES_A_SECOND: u32 = 25;
/// Of the bytes of a stream what is pictures; the rest is what a swarm's parts, or segments in MPEG-TS, put around them.
const OF_FMP4: f64 = 0.99;
const OF_MPEG_TS: f64 = 0.955;

/// The pattern in MP4 files which, in each mode's container, are streams of the same rate.
pub(super) struct Films {
    /// For a swarm's parts.
    pub(super) ours: PathBuf,
    /// For segments of HLS.
    pub(super) hls: PathBuf,
}

impl Films {
    /// Encodes them into `folder`.
    pub(super) fn encode(folder: &Path, rate_bps: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let ffmpeg = sh::which("ffmpeg").context("ffmpeg is not installed")?;
        sh::say(&format!("encoding what is broadcast: {LENGTH_S} s at {} kbit/s", rate_bps / 1000));
        let encode = |name: &str, pictures: f64| {
            let path = folder.join(name);
            sh::output(Command::new(&ffmpeg).args(args((rate_bps as f64 * pictures) as u64)).arg(&path))?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Self { ours: encode("ours.mp4", OF_FMP4)?, hls: encode("hls.mp4", OF_MPEG_TS)? })
    }
}

/// For pictures alone of `rate_bps`.
fn args(rate_bps: u64) -> Vec<String> {
    let rate = rate_bps.to_string();
    let pattern = format!("testsrc2=size=640x360:rate={PICTURES_A_SECOND}:duration={LENGTH_S}");
    // The rate is kept with filler where the pattern needs less.
    let key = format!("nal-hrd=cbr:keyint={0}:min-keyint={0}:scenecut=0", PICTURES_A_SECOND * KEY_S);
    let fixed = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p";
    let mut args: Vec<String> =
        ["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &pattern].map(str::to_owned).to_vec();
    args.extend(fixed.split_whitespace().map(str::to_owned));
    for (name, value) in [
        ("-b:v", rate.clone()),
        ("-minrate", rate.clone()),
        ("-maxrate", rate),
        ("-bufsize", (rate_bps / 4).to_string()),
        ("-x264-params", key),
    ] {
        args.extend([name.to_owned(), value]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_loops_at_a_key_frame() {
        assert_eq!(LENGTH_S % KEY_S, 0);
        let args = args(990_000);
        let at = args.iter().position(|arg| arg == "-minrate").unwrap();
        assert_eq!(args[at + 1], "990000", "a constant rate");
    }
}
