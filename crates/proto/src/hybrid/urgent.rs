//! When a hole is fetched over HTTP, and how much of that a channel may have: the server helps where the swarm is about to
//! fail a player, and no further.
//!
//! Owns the account and what is under way, one for all renditions of a channel. Where the holes are, and when they are due, is the
//! swarm's knowledge.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::part::PartId;
use crate::time::Timestamp;

/// A hole is urgent when it is due within this: the swarm has had its time, and HTTP takes a round trip or two.
pub const DUE_WITHIN: Duration = Duration::from_millis(700);
/// A hole that is known for less long may be on its way.
pub const KNOWN_FOR: Duration = Duration::from_millis(300);
/// Parts under way at a time.
pub const UNDER_WAY_MAX: usize = 2;
/// What a channel does not use of its share is saved for this long.
pub const SAVED: Duration = Duration::from_secs(10);
/// Share of the stream's rate that may come this way, percent, unless said otherwise.
pub const SHARE_PERCENT: u32 = 10;
/// A part that did not come is not asked for again for this long …
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// … and for twice as long after each failure that follows, so often at most: where nothing comes from anybody, all viewers ask.
const DOUBLED_MAX: u32 = 5;
/// A fetch of which nobody told how it ended is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(30);
/// Failures that are remembered.
const FAILED_MAX: usize = 32;
/// No part is longer than so many seconds of the stream, or than this where that is less.
const PART_SECONDS_MAX: u64 = 4;
const PART_LEN_LEAST: usize = 256 * 1024;
/// A debt is no larger than this, so that it ends: the longest part there may be.
const DEBT_MAX_BYTES: i64 = 16 << 20;
/// A part is taken to last this long until it has come.
const PART_MS: u64 = 250;

/// What one channel may fetch, and fetches.
#[derive(Debug, Default)]
pub(crate) struct Urgent {
    /// Of the stream's rate, percent; none: there is no edge.
    share_percent: u32,
    /// Bytes that may be fetched; negative after a part that was larger than what was set aside for it.
    left: i64,
    at: Timestamp,
    /// Since when, and what was set aside for it.
    under_way: BTreeMap<PartId, (Timestamp, u64)>,
    /// And until when they are left alone.
    failed: BTreeMap<PartId, Timestamp>,
    /// Failures, one after another.
    failures: u32,
}

impl Urgent {
    /// An edge is there, for `share_percent` of the stream's rate; 0: none, or no longer. To begin with, all that is ever saved
    /// may be spent: players that start have the least to spare.
    pub(crate) fn set_share(&mut self, now: Timestamp, share_percent: u32, rate_bps: u64) {
        if self.share_percent == 0 {
            self.at = now;
            self.left = signed(most(share_percent, rate_bps));
        }
        self.share_percent = share_percent;
    }

    pub(crate) fn is_on(&self) -> bool {
        self.share_percent > 0
    }

    /// Whether part `id` is fetched now, for a hole that is `due` and was known `since`; it is booked if so.
    pub(crate) fn admits(
        &mut self,
        now: Timestamp,
        rate_bps: u64,
        id: PartId,
        due: Timestamp,
        since: Option<Timestamp>,
    ) -> bool {
        self.earn(now, rate_bps);
        self.under_way.retain(|_, (begun, _)| now.since(*begun) < FORGET_AFTER);
        self.failed.retain(|_, until| now < *until);
        let is_urgent = due <= now + DUE_WITHIN && since.is_none_or(|since| now.since(since) >= KNOWN_FOR);
        if !is_urgent
            || self.under_way.len() >= UNDER_WAY_MAX
            || self.under_way.contains_key(&id)
            || self.failed.contains_key(&id)
        {
            return false;
        }
        let expected = rate_bps / 8 * PART_MS / 1000;
        if self.left < signed(expected) {
            return false;
        }
        self.left -= signed(expected);
        self.under_way.insert(id, (now, expected));
        true
    }

    /// The fetch of `id` is over: `bytes` came, none that were of use if it failed. False when nobody asked for it.
    pub(crate) fn done(&mut self, now: Timestamp, id: PartId, bytes: u64, failed: bool) -> bool {
        let Some((_, expected)) = self.under_way.remove(&id) else { return false };
        // What came was carried, whether it was of use or not. A debt is worked off before anything else is fetched.
        self.left =
            self.left.saturating_add(signed(expected)).saturating_sub(signed(bytes)).max(-DEBT_MAX_BYTES);
        if failed {
            if self.failed.len() >= FAILED_MAX {
                self.failed.pop_first();
            }
            self.failed.insert(id, now + AGAIN_AFTER * (1 << self.failures.min(DOUBLED_MAX)));
            self.failures += 1;
        } else {
            self.failures = 0;
        }
        true
    }

    fn earn(&mut self, now: Timestamp, rate_bps: u64) {
        let most = most(self.share_percent, rate_bps);
        let idle_us = (now.since(self.at).as_micros() as u64).min(SAVED.as_micros() as u64);
        let earned = most.saturating_mul(idle_us) / SAVED.as_micros() as u64;
        if earned > 0 {
            self.left = self.left.saturating_add(signed(earned)).min(signed(most));
            self.at = now;
        }
    }
}

/// The most that is read of a part of a stream of `rate_bps`, bytes.
pub(crate) fn part_len_max(rate_bps: u64) -> usize {
    usize::try_from((rate_bps / 8).saturating_mul(PART_SECONDS_MAX)).unwrap_or(usize::MAX).max(PART_LEN_LEAST)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The most that is ever saved, bytes.
fn most(share_percent: u32, rate_bps: u64) -> u64 {
    (rate_bps / 8).saturating_mul(u64::from(share_percent)) / 100 * SAVED.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RenditionId;

    const RATE_BPS: u64 = 1_000_000;
    const PART: u64 = 25_000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn id(part: u64) -> PartId {
        PartId { rendition: RenditionId(0), epoch: 1, part }
    }

    fn with_share(percent: u32) -> Urgent {
        let mut urgent = Urgent::default();
        urgent.set_share(at(0), percent, RATE_BPS);
        urgent
    }

    #[test]
    fn only_what_is_due_soon_and_known_for_a_while_is_fetched_and_once() {
        let mut urgent = with_share(10);
        let now = at(10_000);
        let mut asks = |part, due_ms, since_ms| urgent.admits(now, RATE_BPS, id(part), at(due_ms), since_ms);
        assert!(!asks(1, 10_701, Some(at(0))), "there is time");
        assert!(!asks(1, 10_500, Some(at(9_701))), "it may be on its way");
        assert!(asks(1, 10_700, Some(at(9_700))));
        assert!(!asks(1, 10_500, None), "it is under way");
        assert!(asks(2, 9_000, None), "what was due before is still waited for");
        assert!(!asks(3, 10_000, None), "two at a time");
        assert!(urgent.done(now, id(1), PART, false) && !urgent.done(now, id(1), PART, false));
        assert!(urgent.admits(now, RATE_BPS, id(3), now, None));
    }

    #[test]
    fn what_failed_is_left_alone_for_a_second_and_for_longer_each_time() {
        let mut urgent = with_share(10);
        let mut now = at(0);
        for pause_ms in [1000, 2000, 4000, 8000, 16_000, 32_000, 32_000] {
            assert!(urgent.admits(now, RATE_BPS, id(1), now, None));
            assert!(urgent.done(now, id(1), 0, true));
            now += Duration::from_millis(pause_ms - 1);
            assert!(!urgent.admits(now, RATE_BPS, id(1), now, None), "{pause_ms} ms");
            now += Duration::from_millis(1);
        }
        assert!(urgent.admits(now, RATE_BPS, id(2), now, None) && urgent.done(now, id(2), PART, false));
        assert!(urgent.admits(now, RATE_BPS, id(1), now, None) && urgent.done(now, id(1), 0, true));
        let later = now + Duration::from_secs(1);
        assert!(urgent.admits(later, RATE_BPS, id(1), later, None), "what comes makes up for it");
    }

    #[test]
    fn a_channel_has_its_share_of_the_rate_and_no_more_whatever_its_parts() {
        // Even ones, key frames among small ones, and half seconds; each GOP is what the rate makes of it.
        let gops: [&[u64]; 4] = [&[PART], &[85_000, 10_000, 10_000, 10_000, 10_000], &[5000], &[62_500]];
        for (percent, gop) in [0, 5, 10, 50].into_iter().flat_map(|percent| gops.map(|gop| (percent, gop))) {
            let mut urgent = with_share(percent);
            let (mut bytes, mut part) = (0, 0);
            // Every hole there could be, for a hundred seconds.
            for ms in (0..100_000).step_by(20) {
                part += 1;
                if urgent.is_on() && urgent.admits(at(ms), RATE_BPS, id(part), at(ms), None) {
                    let len = gop[(part % gop.len() as u64) as usize];
                    assert!(urgent.done(at(ms), id(part), len, false));
                    bytes += len;
                }
            }
            let whole = RATE_BPS / 8 * 100;
            let share = whole * u64::from(percent) / 100;
            // And what may be spent to begin with: ten seconds of the share.
            let most = share + share / 10;
            let largest = gop.iter().max().copied().unwrap_or(0) * u64::from(percent.min(1));
            assert!(bytes <= most + largest, "{percent} %, {gop:?}: {bytes} of {most}");
            assert!(bytes + 2 * largest.max(PART * 2) >= most, "{percent} %, {gop:?}: {bytes} of {most}");
        }
    }

    #[test]
    fn parts_that_are_larger_than_thought_are_paid_for() {
        let mut urgent = with_share(10);
        assert!(urgent.admits(at(0), RATE_BPS, id(1), at(0), None));
        // 125 kB were saved, 12.5 kB are earned each second.
        assert!(urgent.done(at(0), id(1), 250_000, true));
        assert!(!urgent.admits(at(10_000), RATE_BPS, id(2), at(0), None));
        assert!(urgent.admits(at(12_600), RATE_BPS, id(2), at(0), None), "the debt is worked off");
        assert!(urgent.done(at(12_600), id(2), u64::MAX, true));
        assert!(!urgent.admits(at(600_000), RATE_BPS, id(3), at(0), None), "by a lie, too, and that ends");
        let mut now = at(12_600);
        while !urgent.admits(now, RATE_BPS, id(3), at(0), None) {
            now += Duration::from_secs(1);
        }
        assert!(now < at(3_600_000));
    }
}
