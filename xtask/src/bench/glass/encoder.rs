//! x264 in ffmpeg, set up as for streaming: raw pictures go in at their times, and each is timed until its bytes come out.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const WIDTH: usize = 1280;
pub(super) const HEIGHT: usize = 720;
pub(super) const FPS: u32 = 30;
/// Pictures that are encoded …
pub(super) const PICTURES: usize = 300;
/// … of which the first ones, while the encoder starts, do not count.
const SKIPPED: usize = 30;

/// How long pictures are in the encoder, ms, sorted.
pub(super) fn times() -> Result<Vec<f64>> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-probesize", "32"]);
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
