//! Messages to people. While a view fills the terminal they are kept for its pane; otherwise they go to standard error.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_tracker::text::{clean, is_plain};

/// Messages kept; the oldest goes.
pub(crate) const LINES_MAX: usize = 200;
/// Longest message kept, characters.
const LINE_CHARS_MAX: usize = 600;
/// Most that a program says before it ends a line, bytes.
const OPEN_LINE_MAX: usize = 2048;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it was said, after the first could be.
    pub(crate) at: Duration,
    /// Plain text, without line ends.
    pub(crate) text: String,
}

#[derive(Debug)]
struct Kept {
    since: Instant,
    lines: VecDeque<Line>,
}

impl Kept {
    fn add(&mut self, text: &str) {
        for text in text.split(['\n', '\r']).map(|text| clean(text, LINE_CHARS_MAX)) {
            if text.is_empty() {
                continue;
            }
            if self.lines.len() >= LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back(Line { at: self.since.elapsed(), text });
        }
    }
}

/// `None`: nothing is kept.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on messages are kept.
pub(crate) fn keep() {
    lock().get_or_insert_with(|| Kept { since: Instant::now(), lines: VecDeque::new() });
}

/// What was kept, the oldest first; from now on messages go to standard error.
pub(crate) fn release() -> Vec<Line> {
    lock().take().map(|kept| kept.lines.into()).unwrap_or_default()
}

/// The newest `count` messages, the oldest of them first.
pub(crate) fn newest(count: usize) -> Vec<Line> {
    let kept = lock();
    let Some(kept) = kept.as_ref() else { return Vec::new() };
    kept.lines.iter().skip(kept.lines.len().saturating_sub(count)).cloned().collect()
}

/// `text` as a terminal may have it, whoever wrote it: line ends stay, other control and direction characters go.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || is_plain(*c)).collect()
}

/// A message. On a terminal the status line gives way to it.
pub(crate) fn tell(text: &str) {
    if let Some(kept) = lock().as_mut() {
        kept.add(text);
        return;
    }
    let mut out = io::stderr().lock();
    let clear = if out.is_terminal() { "\r\x1b[K" } else { "" };
    // Nobody is left to be told that standard error is gone.
    let _ = writeln!(out, "{clear}{}", plain(text));
}

/// Where tracing writes, a message at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match lock().as_mut() {
            Some(kept) => kept.add(&String::from_utf8_lossy(bytes)),
            // The escape character is that of tracing's own colours: those in a message it has made harmless.
            None => {
                let text = String::from_utf8_lossy(bytes);
                let text: String =
                    text.chars().filter(|c| matches!(c, '\n' | '\x1b') || is_plain(*c)).collect();
                io::stderr().write_all(text.as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What another program writes, cut into messages where it ends a line or begins it anew.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    open: Vec<u8>,
}

impl Splitter {
    /// Tells what is complete.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if !matches!(byte, b'\n' | b'\r') && self.open.len() < OPEN_LINE_MAX {
                self.open.push(*byte);
                continue;
            }
            if !self.open.is_empty() {
                tell(&String::from_utf8_lossy(&self.open));
                self.open.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because there is one log.
    #[test]
    fn messages_are_kept_plain_and_no_more_than_fit() {
        assert!(newest(9).is_empty());
        keep();
        tell("first\nsecond \u{1b}[31mred\u{202e}\u{7}");
        let texts = |lines: Vec<Line>| lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(newest(9)), ["first", "second [31mred"]);
        assert_eq!(texts(newest(1)), ["second [31mred"]);
        for n in 0..LINES_MAX {
            Writer.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        let lines = texts(newest(usize::MAX));
        assert_eq!((lines.len(), lines[0].as_str()), (LINES_MAX, "line 0"));
        let mut splitter = Splitter::default();
        splitter.take(b"AV: 1\rAV: 2\rhal");
        splitter.take(&[b'x'; 3 * OPEN_LINE_MAX]);
        splitter.take(b"\nend\n");
        let lines = texts(newest(6));
        assert!(lines.iter().all(|line| line.chars().count() <= LINE_CHARS_MAX));
        assert_eq!((lines[0].as_str(), lines[1].as_str()), ("AV: 1", "AV: 2"));
        assert_eq!(lines.last().map(String::as_str), Some("end"));
        assert_eq!(release().len(), LINES_MAX);
        assert!(newest(9).is_empty() && release().is_empty());
    }
}
