//! The samples kept until it is known which tracks a stream has.
//!
//! Encoders announce picture and sound in any order, or only one of them: starting at the first sample would write
//! an init segment without the other track, and dropping until both are there would lose the first GOP.

use std::collections::VecDeque;

use super::{KEY_WAIT_MAX, PENDING_BYTES_MAX, PENDING_SAMPLES_MAX, SegmenterConfig, queue::to_us, us};
use crate::sample::{Sample, TrackKind};

/// Samples in the order of arrival, video from its first key frame on.
#[derive(Debug, Default)]
pub(super) struct Gather {
    samples: VecDeque<(Sample, i64)>,
    bytes: usize,
    seen: [bool; 2],
}

/// How to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// By [`TrackKind`]: which tracks take part.
    pub(super) tracks: [bool; 2],
    /// Decode time of the first key frame, µs of the encoder's timeline, when there is a picture.
    pub(super) key_us: Option<i64>,
    pub(super) arrived_unix_us: u64,
}

impl Gather {
    pub(super) fn has(&self, kind: TrackKind) -> bool {
        self.seen[kind as usize]
    }

    pub(super) fn push(&mut self, sample: Sample, timescale: u32) {
        self.bytes += sample.data.len();
        self.seen[sample.track as usize] = true;
        let at_us = to_us(sample.dts, timescale);
        self.samples.push_back((sample, at_us));
    }

    /// Whether to start, and with what; `announced` by [`TrackKind`].
    pub(super) fn plan(&self, announced: [bool; 2], now: bool, config: &SegmenterConfig) -> Option<Plan> {
        let first = self.samples.front()?;
        let [picture, sound] = self.seen;
        let full = self.samples.len() >= PENDING_SAMPLES_MAX || self.bytes >= PENDING_BYTES_MAX;
        let span_us = self.last_us().saturating_sub(self.first_us());
        let waited = span_us >= us(config.start_wait);
        // A picture that was announced but has no key frame yet is worth a longer wait than a track nobody spoke of.
        let waited_for_key = !announced[TrackKind::Video as usize] || span_us >= us(KEY_WAIT_MAX);
        let ready = match (picture, sound) {
            (true, true) => true,
            (true, false) => waited,
            (false, _) => waited && waited_for_key,
        };
        let key = self.samples.iter().find(|(sample, _)| sample.track == TrackKind::Video);
        (ready || now || full).then(|| Plan {
            tracks: self.seen,
            key_us: key.map(|(_, at_us)| *at_us),
            arrived_unix_us: first.0.arrived_unix_us,
        })
    }

    /// Sound long before the picture would only delay it; returns how many samples went.
    pub(super) fn drop_audio_before(&mut self, limit_us: i64) -> u64 {
        let before = self.samples.len();
        self.samples.retain(|(sample, at_us)| sample.track == TrackKind::Video || *at_us >= limit_us);
        (before - self.samples.len()) as u64
    }

    /// The earliest decode time, µs.
    pub(super) fn first_us(&self) -> i64 {
        self.samples.iter().map(|(_, at_us)| *at_us).min().unwrap_or(0)
    }

    fn last_us(&self) -> i64 {
        self.samples.iter().map(|(_, at_us)| *at_us).max().unwrap_or(0)
    }

    pub(super) fn into_samples(self) -> impl ExactSizeIterator<Item = Sample> {
        self.samples.into_iter().map(|(sample, _)| sample)
    }
}
