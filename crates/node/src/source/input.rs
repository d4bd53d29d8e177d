//! Files and the test card, in real time, on threads of their own: both would block the node's.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant};

use caudal_media::ingest::file::FileSource;
use caudal_media::sample::Ingest;
use caudal_media::testcard::{TestCard, TestCardConfig};

use super::intake::Intake;
use crate::NodeError;
use crate::clock::unix_us;

/// What the test card is told; the rest are its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct CardSettings {
    /// Picture and sound, bit/s.
    pub rate_bps: u32,
    /// Time between key frames.
    pub keyframe_interval: Duration,
    /// Width and height.
    pub size: (u32, u32),
}

/// Events looked at for a file's first sample.
const FIRST_EVENTS_MAX: usize = 64;
/// A card that falls behind by more than this skips frames.
const CARD_BEHIND_MAX: Duration = Duration::from_millis(200);

/// When files begin to play, all at once: by the wall clock and by the other one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Began {
    unix_us: u64,
    at: Instant,
}

impl Began {
    /// In a moment, when all of them are open.
    pub(super) fn soon() -> Self {
        Self { unix_us: unix_us(), at: Instant::now() }
    }
}

/// Plays `path` for ever, in real time.
pub(super) fn play_file(path: &Path, began: Began, ingest: Intake) -> Result<(), NodeError> {
    let refuse = |reason: String| NodeError::Input { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| refuse(format!("{error}; give an MP4 or FLV file")))?;
    let source = FileSource::open(BufReader::new(file), began.unix_us);
    let mut source = source.map_err(|error| refuse(error.to_string()))?;
    let name = path.display().to_string();
    // Read up to the first sample, so that a file that holds nothing playable is refused before anybody is told of it.
    let mut first = VecDeque::new();
    while !matches!(first.back(), Some((_, Ingest::Sample(_)))) && first.len() < FIRST_EVENTS_MAX {
        first.push_back(source.next_event().map_err(|error| refuse(error.to_string()))?);
    }
    spawn("file input", move || {
        let began = began.at;
        loop {
            let next = first.pop_front().map_or_else(|| source.next_event(), Ok);
            let event = match next {
                Ok((_, Ingest::Warning(text))) => Ingest::Warning(format!("{name}: {text}")),
                Ok((media_us, event)) => {
                    let due = began + Duration::from_micros(media_us);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    event
                }
                Err(error) => {
                    let _ = ingest.blocking_send(Ingest::Warning(format!("{name}: {error}")));
                    let _ = ingest.blocking_send(Ingest::End);
                    return;
                }
            };
            if ingest.blocking_send(event).is_err() {
                return;
            }
        }
    })
}

/// Draws the test card, in real time.
pub(super) fn draw_card(title: &str, settings: &CardSettings, ingest: Intake) -> Result<(), NodeError> {
    let mut card = TestCard::new(TestCardConfig {
        title: title.to_owned(),
        width: settings.size.0,
        height: settings.size.1,
        bitrate_bps: settings.rate_bps,
        keyframe_interval: settings.keyframe_interval,
        ..TestCardConfig::default()
    })?;
    spawn("test card", move || {
        let began = Instant::now();
        for frame in 0u64.. {
            let due = began + card.due(frame);
            let now = Instant::now();
            if now > due + CARD_BEHIND_MAX {
                continue;
            }
            std::thread::sleep(due.saturating_duration_since(now));
            for event in card.tick(frame, unix_us()) {
                if ingest.blocking_send(event).is_err() {
                    return;
                }
            }
        }
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), NodeError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(|error| NodeError::Input { path: name.into(), reason: error.to_string() })
}
