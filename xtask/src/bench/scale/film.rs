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
        let encode = |name: &str, container: Container| {
            let path = folder.join(name);
            sh::output(Command::new(&ffmpeg).args(args(rate_bps, container)).arg(&path))?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Self { ours: encode("ours.mp4", Container::Fmp4)?, hls: encode("hls.mp4", Container::MpegTs)? })
    }
}

/// What carries the pictures.
#[derive(Clone, Copy, Debug)]
enum Container {
    MpegTs,
    Fmp4,
}

impl Container {
    /// Of the bytes of the stream what is pictures; the rest is what the container puts around them.
    fn pictures(self) -> f64 {
        match self {
            Self::MpegTs => 0.955,
            Self::Fmp4 => 0.99,
        }
    }
}

fn args(rate_bps: u64, container: Container) -> Vec<String> {
    let rate = ((rate_bps as f64 * container.pictures()) as u64).to_string();
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
    fn a_container_leaves_room_for_itself() {
        let rate = |container| {
            let args = args(1_000_000, container);
            let at = args.iter().position(|arg| arg == "-b:v").unwrap();
            args[at + 1].clone()
        };
        assert_eq!([Container::MpegTs, Container::Fmp4].map(rate), ["955000", "990000"]);
        assert_eq!(LENGTH_S % KEY_S, 0, "it loops at a key frame");
    }
}
