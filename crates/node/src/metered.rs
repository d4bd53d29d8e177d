//! Whether this computer's connection is paid by the byte, as its network manager says.
//!
//! Asks NetworkManager (`org.freedesktop.NetworkManager`, property `Metered`) through systemd's `busctl`, where there are both;
//! elsewhere nothing is known, and nothing is assumed. What follows from it is whoever asks' choice.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch;

/// It is asked again after this long: a phone's tether comes and goes.
const PERIOD: Duration = Duration::from_secs(15);
/// Whoever does not answer within this is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The question.
const QUESTION: [&str; 6] = [
    "--system",
    "get-property",
    "org.freedesktop.NetworkManager",
    "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager",
    "Metered",
];

/// Follows it for as long as somebody listens. False where nobody knows.
pub fn follow() -> watch::Receiver<bool> {
    let (told, listen) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let Some(now) = ask().await else { return };
            told.send_if_modified(|before| std::mem::replace(before, now) != now);
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = told.closed() => return,
            }
        }
    });
    listen
}

/// Asks once; `None` where there is nobody to ask.
async fn ask() -> Option<bool> {
    let mut busctl = Command::new("busctl");
    busctl.args(QUESTION).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let answer = tokio::time::timeout(ANSWER_MAX, busctl.output()).await;
    // A slow answer may be a quick one next time.
    let Ok(answer) = answer else { return Some(false) };
    Some(is_metered(&String::from_utf8_lossy(&answer.ok()?.stdout)))
}

/// `u 1` is yes and `u 3` a guess that it is; 0, 2 and 4 are unknown, no and a guess that it is not (`NMMetered`).
fn is_metered(answer: &str) -> bool {
    matches!(answer.trim(), "u 1" | "u 3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_manager_says_is_understood() {
        assert_eq!(
            ["u 0\n", "u 1\n", "u 2\n", "u 3\n", "u 4\n"].map(is_metered),
            [false, true, false, true, false]
        );
        assert_eq!(["", "1", "Failed to get property: u 1x"].map(is_metered), [false; 3]);
    }
}
