//! Renditions as encoders bring them: two of them publish to one channel, and a viewer stays with the one that stays; a ladder makes a
//! lower one of what there is, and says which it does not make.

mod common;
mod encoder;

use std::process::Command;
use std::time::Duration;

use common::{Caudal, Folder, PATIENCE, link, number, start_tool, tracker, wait_until_playing};
use encoder::Ffmpeg;
use serde_json::Value;

/// An encoder that is gone is missed after ten seconds, and the tracker tells of it.
const MISSED: Duration = Duration::from_secs(30);

/// An encoder in real time, a key frame each second.
fn encode(size: &str, kbps: u32, to: &str) -> Ffmpeg {
    let rate = format!("{kbps}k");
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-re", "-f", "lavfi", "-i", &format!("testsrc2=s={size}:r=25")])
        .args(["-re", "-f", "lavfi", "-i", "sine=r=48000"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"])
        .args(["-g", "25", "-keyint_min", "25", "-sc_threshold", "0"])
        .args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate, "-c:a", "aac", "-b:a", "64k"])
        .args(["-f", "flv", to]);
    Ffmpeg(start_tool(&mut command))
}

/// Heights of the renditions that the channel has, as the report says.
fn heights(stats: &Value) -> Vec<u64> {
    let all = stats["renditions"].as_array().into_iter().flatten();
    all.filter_map(|one| one["height"].as_u64()).collect()
}

#[test]
fn two_encoders_are_two_renditions_and_who_watches_stays_with_the_one_that_stays() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let args =
        ["publish", "--name", "Two", "--tracker", tracker.told("http"), "--input", "rtmp://127.0.0.1:0/live"];
    let source = Caudal::start(&home, &args);
    let to = format!("{}/{}", source.told("rtmp_url"), source.told("stream_key"));
    let first = encode("640x360", 700, &to);
    source.wait_until("live", PATIENCE, |stats| stats["state"] == "live");
    // Encoders that do not begin together have timestamps that say nothing of each other: they are placed by when they come.
    std::thread::sleep(Duration::from_secs(3));
    let _second = encode("320x180", 250, &format!("{to}_180p"));

    let viewer = Caudal::start(&home, &["watch", &link(&source), "--listen", "127.0.0.1:0"]);
    wait_until_playing(&viewer);
    let stats = viewer.wait_until("two renditions", PATIENCE, |stats| heights(stats).len() == 2);
    assert_eq!((heights(&stats), number(&stats, "/rendition")), (vec![360, 180], 0.0), "{stats}");

    // What most begin with is gone, and the other goes on.
    drop(first);
    let stats = viewer.wait_until("gone over", MISSED, |stats| number(stats, "/rendition") == 1.0);
    let parts = number(&stats, "/parts");
    let stats = viewer.wait_until("playing on", PATIENCE, |stats| number(stats, "/parts") >= parts + 10.0);
    assert_eq!(heights(&stats), [180], "the channel no longer says that it has the other: {stats}");
    let newcomer = Caudal::start(&home, &["watch", &link(&source), "--listen", "127.0.0.1:0"]);
    newcomer.wait_until("playing what there is", PATIENCE, |stats| {
        number(stats, "/rendition") == 1.0 && number(stats, "/parts") >= 10.0
    });

    // It comes back.
    let _again = encode("640x360", 700, &to);
    viewer.wait_until("two renditions again", PATIENCE, |stats| heights(stats).len() == 2);
    viewer.wait_until("up", MISSED, |stats| number(stats, "/rendition") == 0.0);
}

#[test]
fn a_ladder_makes_what_is_lower_and_says_what_it_does_not_make() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = Caudal::start(
        &home,
        &[
            "publish",
            "--name",
            "Ladder",
            "--tracker",
            tracker.told("http"),
            "--input",
            "test",
            "--card-size",
            "640x360",
        ]
        .into_iter()
        .chain(["--card-rate", "1M", "--ladder", "720p,180p"])
        .collect::<Vec<_>>(),
    );
    source.wait_for_error("360 lines come in, so 720p is not made", PATIENCE);
    let viewer =
        Caudal::start(&home, &["watch", &link(&source), "--listen", "127.0.0.1:0", "--rendition", "180p"]);
    let is_lower = |stats: &Value| {
        heights(stats) == [360, 180] && number(stats, "/rendition") > 0.0 && number(stats, "/parts") > 20.0
    };
    let stats = viewer.wait_until("the lower one", MISSED, is_lower);
    let rate = |at: usize| number(&stats, &format!("/renditions/{at}/bandwidth_bps"));
    assert!(rate(1) < rate(0), "it takes less than what it is made of: {stats}");
    let (report, status) = viewer.end();
    assert!(status.success() && number(&report, "/gaps") == 0.0, "{report}");
    let (_, _, said) = {
        common::signal(source.id(), "INT");
        source.ended()
    };
    assert!(
        !said.contains("ffmpeg ended"),
        "it ends with the broadcast, and nobody needs to be told: {said}"
    );
}
