//! Takes the terminal, and gives it back as it was: at the end, on an error, on a panic of any thread, before the process exits.
//!
//! The view is written to the controlling terminal itself, so that standard output and standard error stay what they are.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Mutex, Once, TryLockError};
use std::time::Duration;

use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

const TERMINAL: &str = "/dev/tty";
/// A terminal that takes nothing is not waited for longer than this many times the pause.
const LEAVE_TRIES: u32 = 20;
const LEAVE_PAUSE: Duration = Duration::from_millis(25);

/// The terminal while the view has it.
static TAKEN: Mutex<Option<File>> = Mutex::new(None);
static HOOK: Once = Once::new();

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(TERMINAL)
}

/// Whether there is a terminal that a view can fill.
pub(crate) fn is_there() -> bool {
    open().is_ok() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// Takes the terminal. From now on a panic gives it back before it says anything.
///
/// # Errors
/// When there is none, or it cannot be set.
pub(crate) fn take() -> io::Result<Screen> {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
    let mut terminal = open()?;
    enable_raw_mode()?;
    let entered = execute!(terminal, EnterAlternateScreen, Hide);
    if let Ok(mut taken) = TAKEN.lock() {
        *taken = Some(terminal);
    }
    if entered.is_err() {
        give_back();
    }
    entered.map(|()| Screen)
}

/// Whether the view still has the terminal.
pub(crate) fn is_taken() -> bool {
    TAKEN.lock().is_ok_and(|taken| taken.is_some())
}

/// Gives the terminal back; once is enough, more do no harm.
pub(crate) fn give_back() {
    for _ in 0..LEAVE_TRIES {
        let mut taken = match TAKEN.try_lock() {
            Ok(taken) => taken,
            Err(TryLockError::Poisoned(taken)) => taken.into_inner(),
            // Somebody draws. If the terminal takes nothing any more, it will not take this either.
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(LEAVE_PAUSE);
                continue;
            }
        };
        if let Some(mut terminal) = taken.take() {
            let _ = execute!(terminal, LeaveAlternateScreen, Show);
            let _ = disable_raw_mode();
        }
        return;
    }
    let _ = disable_raw_mode();
}

/// Writes to the terminal while the view has it, and to nowhere afterwards.
#[derive(Debug)]
pub(crate) struct Screen;

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = TAKEN.lock().map_err(|_| io::Error::other("the terminal was given up"))?;
        taken.as_ref().map_or(Ok(bytes.len()), |mut terminal| terminal.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
