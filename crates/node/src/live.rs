//! The window of parts that players and recorders read: one writer, any number of readers, each at its own place.
//!
//! A reader that falls out of the window goes on at the newest segment start. Parts are shared, never copied.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caudal_media::fmp4::fragment_start_us;
use caudal_media::hls::{Playlist, PlaylistConfig};
use caudal_media::part::Part;
use tokio::sync::watch;

/// Most parts kept for streaming readers, whatever the retention.
pub const PARTS_MAX: usize = 2048;
/// Most bytes kept for streaming readers, whatever the retention. They are the playlist's own buffers.
pub const BYTES_MAX: usize = 256 << 20;

/// The live window.
#[derive(Debug)]
pub struct Live {
    window: Mutex<Window>,
    /// Counts pushes; readers wait on it.
    version: watch::Sender<u64>,
}

#[derive(Debug)]
struct Window {
    playlist: Playlist,
    parts: VecDeque<Arc<Part>>,
    /// The place of the first part in `parts`.
    first: u64,
    bytes: usize,
    duration_us: u64,
    retention_us: u64,
    bytes_max: usize,
    newest: Option<Newest>,
    ended: bool,
}

/// Where the newest part ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// By the source's clock, µs since the Unix epoch.
    pub unix_us: u64,
    /// On the media timeline (decode times), µs; unknown when the part does not say.
    pub media_us: Option<u64>,
}

/// A reader's place.
#[derive(Debug)]
pub struct Reader {
    live: Arc<Live>,
    changed: watch::Receiver<u64>,
    next: u64,
}

/// What a reader reads.
#[derive(Debug, Clone)]
pub enum Read {
    /// The next part.
    Part(Arc<Part>),
    /// The reader was too slow: this many parts left the window before it came.
    Skipped(u64),
}

impl Live {
    /// An empty window that keeps `retention` of media.
    pub fn new(retention: Duration) -> Arc<Self> {
        Self::within(retention, BYTES_MAX)
    }

    /// One that keeps no more than `bytes_max`, whatever the retention.
    pub fn within(retention: Duration, bytes_max: usize) -> Arc<Self> {
        let playlist = Playlist::new(PlaylistConfig { retention, bytes_max, ..PlaylistConfig::default() });
        Arc::new(Self {
            window: Mutex::new(Window {
                playlist,
                parts: VecDeque::new(),
                first: 0,
                bytes: 0,
                duration_us: 0,
                retention_us: retention.as_micros() as u64,
                bytes_max,
                newest: None,
                ended: false,
            }),
            version: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a part; a part that no player could use is dropped and said.
    pub fn push(&self, part: Part) {
        let mut window = self.lock();
        if let Err(error) = window.playlist.push(part.clone()) {
            tracing::debug!("part {} is not for players: {error}", part.number);
            return;
        }
        let begins = window.playlist.tracks().and_then(|t| fragment_start_us(&part.media, t).ok().flatten());
        let duration_us = u64::from(part.duration_us);
        window.newest = Some(Newest {
            unix_us: part.capture_unix_us + duration_us,
            media_us: begins.map(|begins| begins + duration_us),
        });
        window.bytes += part.kept_len();
        window.duration_us += u64::from(part.duration_us);
        window.parts.push_back(Arc::new(part));
        while window.parts.len() > PARTS_MAX
            || window.bytes > window.bytes_max
            || window.duration_us > window.retention_us.max(1)
        {
            let Some(old) = window.parts.pop_front() else { break };
            window.bytes -= old.kept_len();
            window.duration_us -= u64::from(old.duration_us);
            window.first += 1;
        }
        drop(window);
        self.version.send_modify(|version| *version += 1);
    }

    /// Nothing follows.
    pub fn end(&self) {
        let mut window = self.lock();
        window.playlist.end();
        window.ended = true;
        drop(window);
        self.version.send_modify(|version| *version += 1);
    }

    /// Where the newest part ends; none before the first.
    pub fn newest(&self) -> Option<Newest> {
        self.lock().newest
    }

    /// Looks at the playlist.
    pub fn playlist<T>(&self, look: impl FnOnce(&Playlist) -> T) -> T {
        look(&self.lock().playlist)
    }

    /// Tells when something was added.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// A reader from the newest segment start on (or from whatever comes first).
    pub fn reader(self: &Arc<Self>) -> Reader {
        let window = self.lock();
        let back = window.parts.iter().rev().position(|part| part.segment_start);
        let next = back.map_or(window.first + window.parts.len() as u64, |back| {
            window.first + (window.parts.len() - 1 - back) as u64
        });
        drop(window);
        Reader { live: Arc::clone(self), changed: self.changes(), next }
    }

    /// A reader from the first part on that is or will be there.
    pub fn reader_from_start(self: &Arc<Self>) -> Reader {
        let next = self.lock().first;
        Reader { live: Arc::clone(self), changed: self.changes(), next }
    }
}

impl Reader {
    /// The next part; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Read> {
        loop {
            self.changed.borrow_and_update();
            if let Some(read) = self.try_next() {
                return read;
            }
            self.changed.changed().await.ok()?;
        }
    }

    /// `None` to wait, `Some(None)` at the end.
    fn try_next(&mut self) -> Option<Option<Read>> {
        let window = self.live.lock();
        if self.next < window.first {
            let start = window.parts.iter().rposition(|part| part.segment_start).unwrap_or(0) as u64;
            let skipped = window.first + start - self.next;
            self.next = window.first + start;
            return Some(Some(Read::Skipped(skipped)));
        }
        match window.parts.get((self.next - window.first) as usize) {
            Some(part) => {
                self.next += 1;
                Some(Some(Read::Part(Arc::clone(part))))
            }
            None if window.ended => Some(None),
            None => None,
        }
    }
}
