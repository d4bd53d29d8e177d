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
/// Where there is no answer, twice as long each time, up to this.
const PERIOD_MAX: Duration = Duration::from_secs(240);
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
        let (mut is_first, mut period) = (true, PERIOD);
        loop {
            match ask().await {
                Answer::Is(now) => {
                    period = PERIOD;
                    let is_first = std::mem::take(&mut is_first);
                    told.send_if_modified(|before| std::mem::replace(before, now) != now || is_first);
                }
                // What it said last holds: a slow answer is no permission.
                Answer::Unknown => period = (period * 2).min(PERIOD_MAX),
                Answer::NobodyToAsk => return,
            }
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = told.closed() => return,
            }
        }
    });
    listen
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Is(bool),
    Unknown,
    NobodyToAsk,
}

/// Asks once.
async fn ask() -> Answer {
    let mut busctl = Command::new("busctl");
    busctl.args(QUESTION).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(ANSWER_MAX, busctl.output()).await {
        Ok(Ok(output)) => read(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Answer::NobodyToAsk,
        Ok(Err(_)) | Err(_) => Answer::Unknown,
    }
}

/// `u 1` is yes and `u 3` a guess that it is, 2 is no and 4 a guess that it is not; 0 is unknown (`NMMetered`).
fn read(answer: &str) -> Answer {
    match answer.trim() {
        "u 1" | "u 3" => Answer::Is(true),
        "u 2" | "u 4" => Answer::Is(false),
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_manager_says_is_understood() {
        let (yes, no) = (Answer::Is(true), Answer::Is(false));
        assert_eq!(["u 1\n", "u 2\n", "u 3\n", "u 4\n"].map(read), [yes, no, yes, no]);
        assert_eq!(["u 0\n", "", "1", "Failed to get property"].map(read), [Answer::Unknown; 4]);
    }
}
