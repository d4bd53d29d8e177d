//! Another program that plays what is watched.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use caudal_media::hls::MULTIVARIANT_URI;
use caudal_node::viewer::Shared;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::messages;
use crate::run::tell;

/// Plays it in `player`. Beside a view the player has no say on the terminal: neither its words nor its keys.
pub(crate) async fn play(player: String, url: String, shared: Arc<Shared>, is_viewed: bool) {
    let mut changes = shared.live.changes();
    // A player that finds nothing gives up.
    let _ = changes.wait_for(|version| *version > 0).await;
    let mut words = player.split_whitespace();
    let Some(program) = words.next() else { return };
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program);
    let (quick, quiet): (&[&str], &[&str]) = match name {
        "mpv" => (
            &["--profile=low-latency", "--cache=no", "--untimed=no"],
            &["--input-terminal=no", "--quiet", "--msg-level=all=error"],
        ),
        "ffplay" => (&["-fflags", "nobuffer", "-loglevel", "warning"], &["-nostats"]),
        _ => (&[], &[]),
    };
    let source = if name == "vlc" || name == "cvlc" {
        format!("{url}/hls/{MULTIVARIANT_URI}")
    } else {
        format!("{url}/live.mp4")
    };
    let mut command = Command::new(program);
    command.args(words).args(quick).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    if is_viewed {
        command.args(quiet).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    }
    let spawned = command.arg(source).spawn().with_context(|| {
        format!("cannot start the player {program}; is it installed? Or open {url}/live.mp4 in another")
    });
    match spawned {
        Ok(mut child) => {
            let (out, errors) = (child.stdout.take(), child.stderr.take());
            tokio::join!(tell_what_it_says(out), tell_what_it_says(errors));
            let _ = child.wait().await;
            tell!("The player was closed; still watching. Ctrl-C ends it.");
        }
        Err(error) => tell!("caudal: {error:#}"),
    }
}

/// Until it says no more.
async fn tell_what_it_says(said: Option<impl AsyncRead + Unpin>) {
    let (Some(mut said), mut splitter, mut bytes) = (said, messages::Splitter::default(), [0; 1024]) else {
        return;
    };
    while let Ok(len @ 1..) = said.read(&mut bytes).await {
        splitter.take(&bytes[..len]);
    }
}
