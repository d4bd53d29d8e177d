//! LL-HLS: a window of parts, the playlists over it, and the bytes that they name.
//!
//! RFC 8216 and draft-pantos-hls-rfc8216bis: partial segments, blocking reload, preload hints, delta updates. Owns the
//! window and what a request may be answered with; never waits (the answer [`PlaylistAnswer::Wait`] does not
//! either: the server asks again when a part has come, and owns the time limit) and never speaks HTTP.
//!
//! | name served | what |
//! |---|---|
//! | [`MULTIVARIANT_URI`] | [`Playlist::multivariant_playlist`] |
//! | [`MEDIA_URI`]`?_HLS_msn=…` | [`Playlist::media_playlist`], the query read by [`Query::parse`] |
//! | `init-ID.mp4`, `seg-MSN.m4s`, `part-MSN.INDEX.m4s` | [`Playlist::resource`], the name read by [`Resource::parse`] |

mod render;
mod request;
mod window;

use core::time::Duration;

use bytes::Bytes;

use crate::{fmp4::InitTrack, part::Part};
pub use request::{Query, Resource, number};
use window::Window;

/// The multivariant playlist's name, as a player is given it.
pub const MULTIVARIANT_URI: &str = "index.m3u8";
/// The media playlist's name, relative to the multivariant playlist.
pub const MEDIA_URI: &str = "live.m3u8";
/// Most parts a window keeps, whatever the retention.
pub const WINDOW_PARTS_MAX: usize = 4096;
/// Most bytes a window keeps, whatever the retention: 60 s at 34 Mbit/s.
pub const WINDOW_BYTES_MAX: usize = 256 << 20;

/// What a playlist may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaylistConfig {
    /// Media kept (whole segments, at least the newest two).
    pub retention: Duration,
    /// EXT-X-TARGETDURATION to begin with; it grows when a segment turns out longer, and never shrinks. Small values
    /// let players start closer to the live edge; the advice to broadcasters is a key frame every 1–2 s.
    pub target_duration_s: u32,
    /// Most bytes kept, at most [`WINDOW_BYTES_MAX`].
    pub bytes_max: usize,
}

impl Default for PlaylistConfig {
    fn default() -> Self {
        Self { retention: Duration::from_secs(60), target_duration_s: 2, bytes_max: WINDOW_BYTES_MAX }
    }
}

/// Why a part was not taken into the window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HlsError {
    /// The window is empty and this part does not start a segment.
    #[error(
        "part {0} does not start a segment, and there is none before it; feed parts from a segment start on"
    )]
    NoSegment(u64),
    /// A segment start without init data, or with init data that cannot be read.
    #[error("part {part} starts a segment without usable init data: {reason}")]
    BadInit {
        /// Part number.
        part: u64,
        /// What is wrong.
        reason: String,
    },
    /// [`Playlist::end`] was called before.
    #[error("the playlist has ended")]
    Ended,
}

/// The answer to a request for the media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaylistAnswer {
    /// The playlist.
    Ready(String),
    /// Not yet: ask again with the same query when a part was pushed, or the playlist has ended.
    Wait,
    /// HTTP status 400, with the reason in words.
    BadRequest(&'static str),
}

/// The answer to a request for bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceAnswer {
    /// The bytes, in pieces to be sent one after another (they are shared, not copied).
    Ready(Vec<Bytes>),
    /// The next part, as hinted: ask again when a part was pushed, or the playlist has ended.
    Wait,
    /// HTTP status 404: gone from the window, or never there.
    NotFound,
}

/// A rendition, as a multivariant playlist names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its media playlist, relative to the multivariant one.
    pub uri: String,
    /// Codecs as in RFC 6381, without quotes.
    pub codecs: String,
    /// The most that a segment takes, bit/s.
    pub peak_bps: u64,
    /// What it takes on the whole, bit/s.
    pub average_bps: Option<u64>,
    /// Width and height, pixels.
    pub resolution: Option<(u32, u32)>,
    /// Pictures a second.
    pub frames_per_second: Option<f64>,
}

/// What the window's segments take, bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// The most that one of them takes.
    pub peak_bps: u64,
    /// What they take on the whole.
    pub average_bps: u64,
}

/// What a media playlist says of how far another rendition's has come (EXT-X-RENDITION-REPORT), so that whoever goes over knows
/// what to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionReport {
    /// The other's media playlist, relative to this one.
    pub uri: String,
    /// Its newest part: the segment's number, and its place there.
    pub last: (u64, usize),
}

/// Adds what is to be said of other renditions to a media playlist.
pub fn add_reports(playlist: &mut String, reports: &[RenditionReport]) {
    render::reports(playlist, reports);
}

/// The multivariant playlist of several renditions; what stands first is what players begin with.
pub fn multivariant_playlist(variants: &[Variant]) -> String {
    render::variants(variants)
}

/// A live window of parts and its playlists. Parts are pushed as they come; everything else reads.
#[derive(Debug)]
pub struct Playlist {
    config: PlaylistConfig,
    window: Window,
    /// EXT-X-TARGETDURATION, s.
    target_duration_s: u32,
    ended: bool,
}

impl Playlist {
    /// An empty window.
    pub fn new(mut config: PlaylistConfig) -> Self {
        config.bytes_max = config.bytes_max.min(WINDOW_BYTES_MAX);
        config.target_duration_s = config.target_duration_s.max(1);
        let target_duration_s = config.target_duration_s;
        Self { config, window: Window::default(), target_duration_s, ended: false }
    }

    /// Takes the next part; old segments leave the window.
    ///
    /// # Errors
    /// [`HlsError`]: the part was not taken.
    pub fn push(&mut self, part: Part) -> Result<(), HlsError> {
        if self.ended {
            return Err(HlsError::Ended);
        }
        self.window.push(part)?;
        let longest_us = self.window.longest_segment_us();
        // RFC 8216 §4.3.3.1: durations rounded to the nearest second must not exceed the target.
        let seconds = u32::try_from((longest_us + 500_000) / 1_000_000).unwrap_or(u32::MAX);
        self.target_duration_s = self.target_duration_s.max(seconds);
        self.window.evict(&self.config);
        Ok(())
    }

    /// No part will follow: the last segment is complete, and playlists carry EXT-X-ENDLIST.
    pub fn end(&mut self) {
        self.ended = true;
        self.window.end();
    }

    /// The media playlist, when it may be answered. Without directives it waits for the first complete segment,
    /// because players refuse a playlist that has none.
    pub fn media_playlist(&self, query: &Query) -> PlaylistAnswer {
        match self.admit(query) {
            Admit::Ready => PlaylistAnswer::Ready(render::media(self, query.skip)),
            Admit::Wait => PlaylistAnswer::Wait,
            Admit::BadRequest(reason) => PlaylistAnswer::BadRequest(reason),
        }
    }

    /// The multivariant playlist; `None` until the first part has come.
    pub fn multivariant_playlist(&self) -> Option<String> {
        render::multivariant(self)
    }

    /// What its segments take; `None` before one is complete.
    pub fn rates(&self) -> Option<Rates> {
        self.window.last_complete().and_then(|_| self.window.rates())
    }

    /// The newest part: its segment's number, and its place there; none before the first, and none once nothing follows.
    pub fn last_part(&self) -> Option<(u64, usize)> {
        if self.ended { None } else { self.window.last_part() }
    }

    /// The bytes behind a name.
    pub fn resource(&self, resource: Resource) -> ResourceAnswer {
        let pieces = match resource {
            Resource::Init(id) => self.init(id).map(|init| vec![init]),
            Resource::Segment(msn) => self.segment(msn),
            Resource::Part(msn, index) => match self.part(msn, index) {
                Some(part) => Some(vec![part]),
                None if !self.ended && self.window.next_part() == Some((msn, index)) => {
                    return ResourceAnswer::Wait;
                }
                None => None,
            },
        };
        pieces.map_or(ResourceAnswer::NotFound, ResourceAnswer::Ready)
    }

    /// Whether nothing will be added to what stands behind a name: a segment grows until the next one begins.
    pub fn is_final(&self, resource: Resource) -> bool {
        match resource {
            Resource::Segment(msn) => self.window.segment(msn).is_some_and(|segment| segment.complete),
            Resource::Init(_) | Resource::Part(..) => true,
        }
    }

    /// Init data by the id that EXT-X-MAP names.
    pub fn init(&self, id: u64) -> Option<Bytes> {
        self.window.init(id).map(|init| init.data.clone())
    }

    /// The parts of a segment, complete or so far.
    pub fn segment(&self, msn: u64) -> Option<Vec<Bytes>> {
        let segment = self.window.segment(msn)?;
        Some(segment.parts.iter().map(|part| part.media.clone()).collect())
    }

    /// One part of a segment.
    pub fn part(&self, msn: u64, index: usize) -> Option<Bytes> {
        Some(self.window.segment(msn)?.parts.get(index)?.media.clone())
    }

    /// What the newest init data describes.
    pub fn tracks(&self) -> Option<&[InitTrack]> {
        self.window.newest_init().map(|init| &init.tracks[..])
    }

    /// Media in the window, µs.
    pub fn duration_us(&self) -> u64 {
        self.window.duration_us()
    }

    /// Rules of draft-pantos-hls-rfc8216bis §6.2.5.2.
    fn admit(&self, query: &Query) -> Admit {
        if query.msn.is_none() && query.part.is_some() {
            return Admit::BadRequest("_HLS_part needs _HLS_msn");
        }
        // Directives are ignored once nothing can change.
        if self.ended {
            return Admit::Ready;
        }
        let Some(last_complete) = self.window.last_complete() else {
            return if query.msn.is_some_and(|msn| msn > 2) {
                Admit::BadRequest("_HLS_msn is more than two segments ahead")
            } else {
                Admit::Wait
            };
        };
        let Some(msn) = query.msn else { return Admit::Ready };
        if msn > last_complete.saturating_add(2) {
            return Admit::BadRequest("_HLS_msn is more than two segments ahead");
        }
        if msn <= last_complete {
            // A part past the end of a complete segment means the first of the next one.
            let past_end = |part| self.window.segment(msn).is_some_and(|segment| part >= segment.parts.len());
            let wants_next = msn == last_complete && query.part.is_some_and(past_end);
            let next_begun = self.window.segment(msn + 1).is_some();
            return if wants_next && !next_begun { Admit::Wait } else { Admit::Ready };
        }
        let open_parts = self.window.segment(msn).map(|segment| segment.parts.len());
        match (query.part, open_parts) {
            (Some(part), Some(parts)) if part < parts => Admit::Ready,
            (Some(part), parts) if part >= parts.unwrap_or(0) + self.advance_part_limit() => {
                Admit::BadRequest("_HLS_part is too far ahead")
            }
            _ => Admit::Wait,
        }
    }

    /// How many parts ahead may be asked for: three seconds of them.
    fn advance_part_limit(&self) -> usize {
        let target_us = self.window.part_target_us().max(1);
        usize::try_from(3_000_000_u64.div_ceil(target_us)).unwrap_or(3).max(3)
    }
}

enum Admit {
    Ready,
    Wait,
    BadRequest(&'static str),
}

#[cfg(test)]
mod tests;
