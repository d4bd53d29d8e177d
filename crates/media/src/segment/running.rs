//! The running timeline: where parts are cut, and what goes into each.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    PART_BYTES_MAX, PART_SAMPLES_MAX, SegmentError, SegmenterConfig, TRACK_SILENT_MAX, init_of,
    queue::{Timebase, Track, to_us},
    us,
};
use crate::{
    fmp4::Fragment,
    part::Part,
    sample::{Sample, TrackConfig, TrackKind},
};

/// How long (by arrival) the picture may stand still before sound goes into parts of its own.
const PICTURE_STALLED_US: u64 = 500_000;

/// Finished parts.
#[derive(Debug, Default)]
pub(super) struct Sink {
    /// The next part's number.
    pub(super) number: u64,
    pub(super) ready: VecDeque<Part>,
}

/// The tracks of one timeline, from its first sample on.
#[derive(Debug)]
pub(super) struct Running {
    /// By [`TrackKind`].
    tracks: [Option<Track>; 2],
    init: Bytes,
    offset_us: i64,
    /// Where the last part ended, µs.
    clock_us: i64,
    segment_start_us: i64,
    /// The next part starts the first segment of this configuration.
    fresh: bool,
    /// The next segment does not continue the one before.
    pub(super) discontinuity: bool,
    target_us: i64,
    audio_segment_us: i64,
}

impl Running {
    /// `tracks` by kind, each with the arrival time of its first sample.
    pub(super) fn new(
        config: &SegmenterConfig,
        base: Timebase,
        tracks: [Option<(TrackConfig, u64)>; 2],
    ) -> Result<Self, SegmentError> {
        let [video, audio] = tracks;
        let make = |kind, track: Option<(TrackConfig, u64)>| {
            track.map(|(config, arrived)| Track::new(kind, config, base.offset_us, base.floor_us, arrived))
        };
        let tracks = [make(TrackKind::Video, video), make(TrackKind::Audio, audio)];
        Ok(Self {
            init: init_of(tracks.each_ref().map(|track| track.as_ref().map(|track| &track.config)))?,
            tracks,
            offset_us: base.offset_us,
            clock_us: base.start_us,
            segment_start_us: base.start_us,
            fresh: true,
            discontinuity: false,
            target_us: us(config.part_target),
            audio_segment_us: us(config.audio_segment),
        })
    }

    fn track(&self, kind: TrackKind) -> Option<&Track> {
        self.tracks[kind as usize].as_ref()
    }

    pub(super) fn has(&self, kind: TrackKind) -> bool {
        self.track(kind).is_some()
    }

    pub(super) fn config(&self, kind: TrackKind) -> Option<&TrackConfig> {
        self.track(kind).map(|track| &track.config)
    }

    /// This sample's time does not continue its track's.
    pub(super) fn jumped(&self, sample: &Sample) -> bool {
        self.track(sample.track).is_some_and(|track| track.jumped(sample.dts))
    }

    /// The track takes part, but sent nothing for long while the other went on.
    pub(super) fn silent(&self, kind: TrackKind, now: &Sample) -> bool {
        kind != now.track
            && self.track(kind).is_some_and(|track| {
                let silence_us = now.arrived_unix_us.saturating_sub(track.arrived_unix_us);
                u128::from(silence_us) > TRACK_SILENT_MAX.as_micros()
            })
    }

    /// Where everything taken ends, µs.
    pub(super) fn end_us(&self) -> i64 {
        self.tracks.iter().flatten().map(Track::end_us).fold(self.clock_us, i64::max)
    }

    /// Samples that wait. After [`Self::flush`]: sound that came before a first key frame that never did.
    pub(super) fn waiting(&self) -> usize {
        self.tracks.iter().flatten().map(Track::len).sum()
    }

    /// Takes a sample of a configured track, and cuts the parts that it completes.
    pub(super) fn push(&mut self, sample: Sample, sink: &mut Sink) -> Result<(), SegmentError> {
        let kind = sample.track;
        let arrived = sample.arrived_unix_us;
        let Some(track) = &mut self.tracks[kind as usize] else { return Ok(()) };
        track.push(sample);
        match kind {
            TrackKind::Video if self.newest_is_key() => {
                let before = self.track(kind).map_or(0, Track::known);
                self.cut_at(kind, before, sink)?;
            }
            TrackKind::Audio if self.has(TrackKind::Video) => {
                let picture = self.track(TrackKind::Video).map_or(arrived, |track| track.arrived_unix_us);
                if !self.fresh && arrived.saturating_sub(picture) > PICTURE_STALLED_US {
                    self.cut_sound(sink)?;
                }
            }
            TrackKind::Video | TrackKind::Audio => {
                while let Some(count) = self.track(kind).and_then(|track| track.nearest_cut(self.target_us)) {
                    let number = sink.number;
                    self.cut_at(kind, count, sink)?;
                    if sink.number == number {
                        break;
                    }
                }
            }
        }
        self.cut_when_full(sink)
    }

    /// Everything that waits becomes a part, the newest samples lasting as long as their codec or predecessor says.
    pub(super) fn flush(&mut self, sink: &mut Sink) -> Result<(), SegmentError> {
        for track in self.tracks.iter_mut().flatten() {
            track.seal(None);
        }
        self.emit([usize::MAX; 2], None, sink)
    }

    /// Finishes the part at `at` and goes on with the tracks `wanted`, on the same timeline; returns how many samples
    /// had to go because their configuration never saw a key frame.
    pub(super) fn reconfigure(
        &mut self,
        wanted: [Option<TrackConfig>; 2],
        at: &Sample,
        at_timescale: u32,
        sink: &mut Sink,
    ) -> Result<usize, SegmentError> {
        let init = init_of(wanted.each_ref().map(Option::as_ref))?;
        let at_us = to_us(at.dts, at_timescale).saturating_add(self.offset_us);
        let mut counts = [usize::MAX; 2];
        for kind in TrackKind::BOTH {
            let Some(track) = &mut self.tracks[kind as usize] else { continue };
            let continues = wanted[kind as usize].as_ref() == Some(&track.config);
            if kind == at.track {
                track.seal(Some((at.dts, at_timescale)));
            } else if continues {
                // Its newest samples go into the next part: nothing of this track is lost or cut short.
                counts[kind as usize] = track.known_before(at_us);
            } else {
                track.seal(None);
            }
        }
        let mut lost = 0;
        self.emit(counts, Some(at_us), sink)?;
        for (kind, config) in TrackKind::BOTH.into_iter().zip(wanted) {
            let slot = &mut self.tracks[kind as usize];
            match config {
                Some(config) if slot.as_ref().is_some_and(|track| track.config == config) => {}
                Some(config) => {
                    let floor_us = slot.as_ref().map_or(0, Track::end_us);
                    lost += slot.as_ref().map_or(0, Track::len);
                    *slot = Some(Track::new(kind, config, self.offset_us, floor_us, at.arrived_unix_us));
                }
                None => lost += slot.take().map_or(0, |track| track.len()),
            }
        }
        self.init = init;
        self.fresh = true;
        self.discontinuity = true;
        Ok(lost)
    }

    fn newest_is_key(&self) -> bool {
        self.track(TrackKind::Video).is_some_and(Track::newest_is_key)
    }

    /// Cuts before the waiting sample `count` of the track that decides boundaries.
    fn cut_at(&mut self, kind: TrackKind, count: usize, sink: &mut Sink) -> Result<(), SegmentError> {
        let Some(until_us) = self.track(kind).and_then(|track| track.dts_us(count)) else { return Ok(()) };
        let mut counts = [count; 2];
        if kind == TrackKind::Video {
            counts[1] = self.track(TrackKind::Audio).map_or(0, |track| track.known_before(until_us));
        }
        self.emit(counts, Some(until_us), sink)
    }

    /// Sound alone, while the picture stands still.
    fn cut_sound(&mut self, sink: &mut Sink) -> Result<(), SegmentError> {
        let Some(track) = self.track(TrackKind::Audio) else { return Ok(()) };
        let known = track.known();
        let Some(until_us) = track.dts_us(known) else { return Ok(()) };
        if until_us.saturating_sub(self.clock_us) < self.target_us {
            return Ok(());
        }
        self.emit([0, known], Some(until_us), sink)
    }

    /// Keeps what waits within the limits of a part.
    fn cut_when_full(&mut self, sink: &mut Sink) -> Result<(), SegmentError> {
        let samples = self.waiting();
        let bytes: usize = self.tracks.iter().flatten().map(Track::bytes).sum();
        if samples < PART_SAMPLES_MAX && bytes < PART_BYTES_MAX {
            return Ok(());
        }
        if self.fresh && self.track(TrackKind::Video).is_some_and(|track| track.known() == 0) {
            // The segment's first picture must lead, even if its successor has not told its duration.
            for track in self.tracks.iter_mut().flatten() {
                track.seal(None);
            }
        }
        self.emit([usize::MAX; 2], None, sink)
    }

    /// Makes one part of the first `counts` samples (by kind, as far as their durations are known). It ends
    /// at `until_us`, or where its samples do.
    fn emit(
        &mut self,
        counts: [usize; 2],
        until_us: Option<i64>,
        sink: &mut Sink,
    ) -> Result<(), SegmentError> {
        let [video, audio] = &mut self.tracks;
        let picture_known = video.as_ref().map_or(0, |track| track.known().min(counts[0]));
        let starts_with_key = picture_known > 0 && video.as_ref().is_some_and(Track::starts_with_key);
        if self.fresh && video.is_some() && !starts_with_key {
            return Ok(());
        }
        let taken = [
            video.as_mut().and_then(|track| track.take(counts[0])),
            audio.as_mut().and_then(|track| track.take(counts[1])),
        ];
        let sound_only = video.is_none();
        let mut arrived_unix_us = None;
        let mut runs = Vec::with_capacity(2);
        for (run, arrived) in taken.into_iter().flatten() {
            arrived_unix_us.get_or_insert(arrived);
            runs.push(run);
        }
        let Some(arrived_unix_us) = arrived_unix_us else { return Ok(()) };
        let end_us = until_us.unwrap_or_else(|| self.end_us()).max(self.clock_us);
        let segment_us = self.clock_us.saturating_sub(self.segment_start_us);
        let long_enough = segment_us >= self.audio_segment_us - self.target_us / 2;
        let segment_start = self.fresh || starts_with_key || (sound_only && long_enough);
        let sequence = (sink.number as u32).wrapping_add(1);
        let media = Fragment { sequence, arrived_unix_us, runs }.write()?;
        sink.ready.push_back(Part {
            number: sink.number,
            segment_start,
            discontinuity: segment_start && self.discontinuity,
            capture_unix_us: arrived_unix_us,
            duration_us: u32::try_from(end_us.saturating_sub(self.clock_us)).unwrap_or(u32::MAX),
            init: segment_start.then(|| self.init.clone()),
            media,
        });
        sink.number += 1;
        if segment_start {
            self.segment_start_us = self.clock_us;
            self.fresh = false;
            self.discontinuity = false;
        }
        self.clock_us = end_us;
        Ok(())
    }
}
