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
/// Whoever starts waits so long for the first answer.
const FIRST_MAX: Duration = Duration::from_millis(300);
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

/// What a person says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The network manager knows.
    Ask,
    /// It is, or is not, whatever that says.
    Is(bool),
}

/// Whether the connection is paid by the byte, now and from now on.
#[derive(Debug, Clone, Default)]
pub struct Metered {
    is_so: bool,
    told: Option<watch::Receiver<bool>>,
}

impl Metered {
    /// Follows it; the first answer is waited for shortly.
    pub async fn follow(choice: Choice) -> Self {
        if let Choice::Is(is_so) = choice {
            return Self { is_so, told: None };
        }
        let mut told = follow();
        let _ = tokio::time::timeout(FIRST_MAX, told.changed()).await;
        Self { is_so: false, told: Some(told) }
    }

    /// Whether it is.
    pub fn now(&self) -> bool {
        self.told.as_ref().map_or(self.is_so, |told| *told.borrow())
    }

    /// Waits until that is otherwise; for ever where it stays.
    pub async fn changed(&mut self) {
        let is_told = match &mut self.told {
            Some(told) => told.changed().await.is_ok(),
            None => false,
        };
        if !is_told {
            // There is nobody to ask, or no more.
            std::future::pending::<()>().await;
        }
    }
}

/// Asks for as long as somebody listens. False where nobody knows.
fn follow() -> watch::Receiver<bool> {
    let (told, listen) = watch::channel(false);
    tokio::spawn(async move {
        let mut is_first = true;
        loop {
            let Some(now) = ask().await else { return };
            let is_first = std::mem::take(&mut is_first);
            told.send_if_modified(|before| std::mem::replace(before, now) != now || is_first);
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
