//! The parts that are kept, as segments, with the init data they need.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{HlsError, PlaylistConfig, Rates, WINDOW_BYTES_MAX, WINDOW_PARTS_MAX};
use crate::{
    fmp4::{self, InitTrack},
    part::Part,
    sample::TrackKind,
};

/// A program date that differs by more from what media time predicts is taken as it is, µs: the encoder's clock and
/// ours drift apart slowly, while arrival jitters from segment to segment.
const DATE_DRIFT_MAX_US: u64 = 500_000;
/// Headroom of the declared part target, µs: encoders that stamp in milliseconds give parts that differ by one or two.
const PART_TARGET_HEADROOM_US: u64 = 2_000;
/// The declared part target is a multiple of this, µs.
const PART_TARGET_STEP_US: u64 = 10_000;

/// Init data, numbered when it changes.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) id: u64,
    pub(super) data: Bytes,
    pub(super) tracks: Vec<InitTrack>,
}

#[derive(Debug)]
pub(super) struct WindowPart {
    pub(super) duration_us: u64,
    /// Starts with a key frame (or there is only sound).
    pub(super) independent: bool,
    pub(super) media: Bytes,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) msn: u64,
    pub(super) init: u64,
    pub(super) discontinuity: bool,
    /// When its first sample was captured, µs since the Unix epoch, smoothed.
    pub(super) date_unix_us: u64,
    pub(super) parts: Vec<WindowPart>,
    pub(super) duration_us: u64,
    pub(super) bytes: usize,
    /// Init data that came with it.
    init_bytes: usize,
    pub(super) complete: bool,
}

/// Segments in order, the last one possibly open.
#[derive(Debug, Default)]
pub(super) struct Window {
    segments: VecDeque<Segment>,
    inits: VecDeque<Init>,
    next_msn: u64,
    next_init: u64,
    parts: usize,
    bytes: usize,
    /// Discontinuities that left the window.
    pub(super) discontinuities_gone: u64,
    longest_part_us: u64,
    part_target_us: u64,
}

impl Window {
    pub(super) fn push(&mut self, part: Part) -> Result<(), HlsError> {
        if part.segment_start {
            self.open(&part)?;
        } else {
            self.split_if_endless();
        }
        let Some(segment) = self.segments.back_mut().filter(|segment| !segment.complete) else {
            return Err(HlsError::NoSegment(part.number));
        };
        let duration_us = u64::from(part.duration_us);
        let sound_only =
            self.inits.back().is_some_and(|init| init.tracks.iter().all(|t| t.kind == TrackKind::Audio));
        segment.duration_us += duration_us;
        segment.bytes += part.media.len();
        self.bytes += part.media.len();
        self.parts += 1;
        self.longest_part_us = self.longest_part_us.max(duration_us);
        segment.parts.push(WindowPart {
            duration_us,
            independent: part.segment_start || sound_only,
            media: part.media,
        });
        if self.longest_part_us > self.part_target_us {
            let target_us = self.longest_part_us + PART_TARGET_HEADROOM_US;
            self.part_target_us = target_us.next_multiple_of(PART_TARGET_STEP_US);
        }
        Ok(())
    }

    /// Begins the segment that `part` starts.
    fn open(&mut self, part: &Part) -> Result<(), HlsError> {
        let bad = |reason: String| HlsError::BadInit { part: part.number, reason };
        let Some(data) = &part.init else { return Err(bad("it carries none".into())) };
        let known = self.inits.back().filter(|init| init.data == *data);
        let changed = known.is_none() && !self.inits.is_empty();
        // Init data counts with the first segment that needs it.
        let mut new_init = 0;
        if known.is_none() {
            let tracks = fmp4::read_init(data).map_err(|e| bad(e.to_string()))?;
            // A copy: a slice would keep the whole part it came in.
            let data = Bytes::copy_from_slice(data);
            new_init = data.len();
            self.inits.push_back(Init { id: self.next_init, data, tracks });
            self.next_init += 1;
        }
        let mut date_unix_us = part.capture_unix_us;
        let mut first = true;
        if let Some(last) = self.segments.back_mut() {
            last.complete = true;
            first = false;
            let predicted = last.date_unix_us.saturating_add(last.duration_us);
            if !part.discontinuity && predicted.abs_diff(date_unix_us) <= DATE_DRIFT_MAX_US {
                date_unix_us = predicted;
            }
        }
        self.segments.push_back(Segment {
            msn: self.next_msn,
            init: self.next_init - 1,
            discontinuity: !first && (part.discontinuity || changed),
            date_unix_us,
            parts: Vec::new(),
            duration_us: 0,
            bytes: 0,
            init_bytes: new_init,
            complete: false,
        });
        self.bytes += new_init;
        self.next_msn += 1;
        Ok(())
    }

    /// A stream without key frames would be one segment that never leaves the window: beyond half of what the
    /// window may hold, it goes on in another segment, which can be watched only from the one before.
    fn split_if_endless(&mut self) {
        let Some(last) = self.segments.back_mut().filter(|last| !last.complete) else { return };
        if last.parts.len() < WINDOW_PARTS_MAX / 2 && last.bytes < WINDOW_BYTES_MAX / 2 {
            return;
        }
        last.complete = true;
        let next = Segment {
            msn: self.next_msn,
            init: last.init,
            discontinuity: false,
            date_unix_us: last.date_unix_us.saturating_add(last.duration_us),
            parts: Vec::new(),
            duration_us: 0,
            bytes: 0,
            init_bytes: 0,
            complete: false,
        };
        self.segments.push_back(next);
        self.next_msn += 1;
    }

    pub(super) fn end(&mut self) {
        if let Some(last) = self.segments.back_mut() {
            last.complete = true;
        }
    }

    /// Drops old segments; the newest complete one and the open one always stay.
    pub(super) fn evict(&mut self, config: &PlaylistConfig) {
        let retention_us = u64::try_from(config.retention.as_micros()).unwrap_or(u64::MAX);
        while self.segments.len() > 2 {
            let oldest = &self.segments[0];
            let without_us = self.duration_us() - oldest.duration_us;
            let over = self.bytes > config.bytes_max || self.parts > WINDOW_PARTS_MAX;
            if !over && without_us < retention_us {
                break;
            }
            let Some(gone) = self.segments.pop_front() else { break };
            self.bytes -= gone.bytes + gone.init_bytes;
            self.parts -= gone.parts.len();
            self.discontinuities_gone += u64::from(gone.discontinuity);
        }
        let oldest_init = self.segments.front().map_or(0, |segment| segment.init);
        while self.inits.front().is_some_and(|init| init.id < oldest_init) {
            self.inits.pop_front();
        }
    }

    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter()
    }

    pub(super) fn segment(&self, msn: u64) -> Option<&Segment> {
        let first = self.segments.front()?.msn;
        self.segments.get(usize::try_from(msn.checked_sub(first)?).ok()?)
    }

    pub(super) fn init(&self, id: u64) -> Option<&Init> {
        self.inits.iter().find(|init| init.id == id)
    }

    pub(super) fn newest_init(&self) -> Option<&Init> {
        self.inits.back()
    }

    /// The newest complete segment's number.
    pub(super) fn last_complete(&self) -> Option<u64> {
        self.segments.iter().rev().find(|segment| segment.complete).map(|segment| segment.msn)
    }

    /// Where the next part goes if it continues the open segment: what the preload hint names.
    pub(super) fn next_part(&self) -> Option<(u64, usize)> {
        let last = self.segments.back()?;
        Some(if last.complete { (self.next_msn, 0) } else { (last.msn, last.parts.len()) })
    }

    /// The newest part's segment, and its place there.
    pub(super) fn last_part(&self) -> Option<(u64, usize)> {
        let last = self.segments.iter().rev().find(|segment| !segment.parts.is_empty())?;
        Some((last.msn, last.parts.len() - 1))
    }

    /// What segments take; none while there is nothing.
    pub(super) fn rates(&self) -> Option<Rates> {
        let rate = |segment: &Segment| (segment.bytes as u64 * 8_000_000).checked_div(segment.duration_us);
        // The peak of complete segments; before there is one, what has come of the first.
        let complete = self.segments().filter(|segment| segment.complete).filter_map(rate).max();
        let peak_bps = complete.or_else(|| self.segments().filter_map(rate).max())?.max(1);
        let bytes: usize = self.segments().map(|segment| segment.bytes).sum();
        let average = (bytes as u64 * 8_000_000).checked_div(self.duration_us()).unwrap_or(0);
        Some(Rates { peak_bps, average_bps: average.clamp(1, peak_bps) })
    }

    pub(super) fn duration_us(&self) -> u64 {
        self.segments.iter().map(|segment| segment.duration_us).sum()
    }

    pub(super) fn longest_segment_us(&self) -> u64 {
        self.segments.iter().map(|segment| segment.duration_us).max().unwrap_or(0)
    }

    /// At least the duration of every part so far; it grows only when a part would exceed it.
    pub(super) fn part_target_us(&self) -> u64 {
        self.part_target_us
    }
}
