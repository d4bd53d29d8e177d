//! One track's samples on the output timeline, until a part takes them.
//!
//! A sample's duration is the distance to the next one, so the newest sample always stays behind until its
//! successor (or the end) says how long it lasts: decode times and durations of consecutive parts then fit without
//! gap or overlap, whatever the encoder's clock does.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{JUMP_BACK_MAX, JUMP_FORWARD_MAX};
use crate::{
    fmp4::{Run, RunSample, frame_ticks},
    sample::{Sample, TrackConfig, TrackKind},
};

/// How the encoder's times map to the output's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timebase {
    /// Added to every time, µs.
    pub(super) offset_us: i64,
    /// Where the first part starts, µs of the output timeline.
    pub(super) start_us: i64,
    /// Where the timeline before ended: nothing decodes earlier.
    pub(super) floor_us: i64,
}

/// A track of the running timeline.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) kind: TrackKind,
    pub(super) config: TrackConfig,
    /// Ticks added to the encoder's times.
    offset: i64,
    queue: VecDeque<Queued>,
    bytes: usize,
    /// The encoder's own decode time of the newest sample.
    last_in: Option<i64>,
    /// The last distance between two samples, ticks.
    step: i64,
    /// Where the last taken sample ended, ticks.
    end: i64,
    /// When the newest sample arrived.
    pub(super) arrived_unix_us: u64,
}

#[derive(Debug)]
struct Queued {
    dts: i64,
    cts: i32,
    key: bool,
    data: Bytes,
    arrived_unix_us: u64,
    /// `None` for the newest sample.
    duration: Option<u32>,
}

impl Track {
    /// A track whose samples are moved by `offset_us` and never decode before `floor_us`.
    pub(super) fn new(
        kind: TrackKind,
        config: TrackConfig,
        offset_us: i64,
        floor_us: i64,
        arrived_unix_us: u64,
    ) -> Self {
        let config_timescale = config.timescale;
        let offset = to_ticks(offset_us, config_timescale);
        // Until two samples are seen: the codec's frame, or 30 pictures a second.
        let step = frame_ticks(&config).unwrap_or(i64::from(config.timescale / 30)).max(1);
        Self {
            kind,
            config,
            offset,
            queue: VecDeque::new(),
            bytes: 0,
            last_in: None,
            step,
            end: to_ticks(floor_us, config_timescale),
            arrived_unix_us,
        }
    }

    pub(super) fn jumped(&self, dts: i64) -> bool {
        let Some(last) = self.last_in else { return false };
        let distance_us = to_us(dts.saturating_sub(last), self.config.timescale);
        distance_us > super::us(JUMP_FORWARD_MAX) || distance_us < -super::us(JUMP_BACK_MAX)
    }

    pub(super) fn push(&mut self, sample: Sample) {
        let floor = self.queue.back().map_or(self.end, |back| back.dts.saturating_add(1));
        let dts = sample.dts.saturating_add(self.offset).max(floor);
        if let Some(back) = self.queue.back_mut() {
            self.step = dts.saturating_sub(back.dts);
            back.duration = Some(u32::try_from(self.step).unwrap_or(u32::MAX));
        }
        let cts = sample.pts.saturating_add(self.offset).saturating_sub(dts);
        self.last_in = Some(sample.dts);
        self.arrived_unix_us = sample.arrived_unix_us;
        self.bytes += sample.data.len();
        self.queue.push_back(Queued {
            dts,
            cts: cts.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32,
            key: sample.key,
            data: sample.data,
            arrived_unix_us: sample.arrived_unix_us,
            duration: None,
        });
    }

    /// Gives the newest sample a duration: up to the encoder's decode time `until` (in ticks of `timescale`) where that
    /// is plausible, else what its codec or its predecessor says.
    pub(super) fn seal(&mut self, until: Option<(i64, u32)>) {
        let step = frame_ticks(&self.config).unwrap_or(self.step);
        let timescale = self.config.timescale;
        let offset = self.offset;
        let Some(back) = self.queue.back_mut().filter(|back| back.duration.is_none()) else { return };
        let until = until.map(|(dts, theirs)| {
            let dts = if theirs == timescale { dts } else { to_ticks(to_us(dts, theirs), timescale) };
            dts.saturating_add(offset).saturating_sub(back.dts)
        });
        let longest = to_ticks(super::us(JUMP_FORWARD_MAX), timescale);
        let ticks = until.filter(|ticks| (1..=longest).contains(ticks)).unwrap_or(step);
        back.duration = Some(u32::try_from(ticks).unwrap_or(u32::MAX));
    }

    /// Samples that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many samples at the front have a duration.
    pub(super) fn known(&self) -> usize {
        self.queue.len() - usize::from(self.queue.back().is_some_and(|back| back.duration.is_none()))
    }

    /// How many samples at the front have a duration and decode before `limit_us`.
    pub(super) fn known_before(&self, limit_us: i64) -> usize {
        let known = self.known();
        self.queue.iter().take(known).take_while(|s| to_us(s.dts, self.config.timescale) < limit_us).count()
    }

    /// Decode time of the waiting sample `i`, µs.
    pub(super) fn dts_us(&self, i: usize) -> Option<i64> {
        self.queue.get(i).map(|sample| to_us(sample.dts, self.config.timescale))
    }

    pub(super) fn newest_is_key(&self) -> bool {
        self.queue.back().is_some_and(|sample| sample.key)
    }

    pub(super) fn starts_with_key(&self) -> bool {
        self.queue.front().is_some_and(|sample| sample.key)
    }

    /// Where what was taken ends, µs.
    pub(super) fn end_us(&self) -> i64 {
        to_us(self.end, self.config.timescale)
    }

    /// How many samples at the front make a part nearest to `target_us`, once that is decided: the
    /// newest sample begins the next part, or is as close to the boundary as the next one could be.
    pub(super) fn nearest_cut(&self, target_us: i64) -> Option<usize> {
        let newest = self.queue.len().checked_sub(1)?;
        let start = self.queue.front()?.dts;
        let span = |i: usize| to_us(self.queue[i].dts.saturating_sub(start), self.config.timescale);
        if newest == 0 || span(newest).saturating_add(to_us(self.step, self.config.timescale) / 2) < target_us
        {
            return None;
        }
        let previous = newest - 1;
        let nearer = previous > 0 && span(previous).abs_diff(target_us) < span(newest).abs_diff(target_us);
        Some(if nearer { previous } else { newest })
    }

    /// Takes `count` samples (all with a duration) for a part, with the arrival time of the first.
    pub(super) fn take(&mut self, count: usize) -> Option<(Run, u64)> {
        let count = count.min(self.known());
        let first = self.queue.front().filter(|_| count > 0)?;
        let arrived_unix_us = first.arrived_unix_us;
        // The timebase makes times start at 0 or later.
        let base_dts = u64::try_from(first.dts).unwrap_or(0);
        let mut samples = Vec::with_capacity(count);
        for queued in self.queue.drain(..count) {
            let duration = queued.duration.unwrap_or(1);
            self.end = queued.dts.saturating_add(i64::from(duration));
            self.bytes -= queued.data.len();
            samples.push(RunSample { duration, cts: queued.cts, key: queued.key, data: queued.data });
        }
        Some((Run { kind: self.kind, base_dts, samples }, arrived_unix_us))
    }
}

/// Ticks to microseconds, rounded down.
pub(super) fn to_us(ticks: i64, timescale: u32) -> i64 {
    let us = (i128::from(ticks) * 1_000_000).div_euclid(i128::from(timescale.max(1)));
    us.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Microseconds to ticks, rounded to the nearest.
fn to_ticks(us: i64, timescale: u32) -> i64 {
    let ticks = (i128::from(us) * i128::from(timescale) + 500_000).div_euclid(1_000_000);
    ticks.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}
