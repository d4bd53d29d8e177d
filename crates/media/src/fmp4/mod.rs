//! The boxes of fragmented MP4: init segments and fragments written, and read back.
//!
//! Follows ISO/IEC 14496-12 (box structure), ISO/IEC 23000-19 (CMAF constraints on it) and RFC 6381 (codec strings).
//! Never decides where a part ends and never keeps state between calls: that is [`crate::segment`]'s.
//! The box library's types stay inside this module.

mod codec;
mod fragment;
mod init;
mod read;
mod times;

pub use init::{InitTrack, TIMESCALE_MAX, TRACKS_MAX, read_init, write_init};
pub use read::{ReadSample, SAMPLES_READ_MAX, prft_unix_us, read_samples};
pub use times::{fragment_start_us, move_times};

pub(crate) use codec::frame_ticks;
pub(crate) use fragment::{Fragment, Run, RunSample};
pub(crate) use read::read_part;

use crate::sample::TrackKind;

/// Why boxes could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fmp4Error {
    /// A track's decoder configuration cannot be described to a player.
    #[error(
        "the {track:?} track's configuration cannot be used: {reason}; the encoder must send a valid one"
    )]
    Config {
        /// Which track.
        track: TrackKind,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not the boxes they should be.
    #[error("malformed MP4 at byte {at}, in {what}: {reason}")]
    Malformed {
        /// Which box, or what was being looked for.
        what: &'static str,
        /// Offset in the input.
        at: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A sample entry this crate does not know.
    #[error("unsupported sample entry {0:?}; known are avc1 and mp4a")]
    UnsupportedCodec(String),
    /// More tracks, samples or bytes than a named limit allows.
    #[error("{what} exceed the limit of {max}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

impl Fmp4Error {
    fn malformed(what: &'static str, at: usize, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { what, at, reason: format!("{reason}") }
    }
}

impl TrackKind {
    /// The track id this crate writes in fMP4: 1 for video, 2 for audio.
    pub const fn track_id(self) -> u32 {
        match self {
            Self::Video => 1,
            Self::Audio => 2,
        }
    }
}
