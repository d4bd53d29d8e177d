//! How far what plays has fallen behind: how late its newest part is beyond what is usual.
//!
//! Clocks need not agree: only differences count. Every rendition of a channel is counted as one.

use core::time::Duration;

use crate::time::Timestamp;

/// How late the soonest parts come is the least of one to two of these.
const BASE_PERIOD: Duration = Duration::from_secs(30);

/// Counts how late parts come.
#[derive(Debug, Clone)]
pub struct Behind {
    /// The least of this and of the last period, µs, and since when this one lasts.
    base: (i64, i64),
    since: Timestamp,
    /// When the media of the newest part ended, by the source's clock, and how long the part is.
    end_unix_us: u64,
    part_us: i64,
}

impl Behind {
    /// Nothing has come yet.
    pub fn new(now: Timestamp) -> Self {
        Self { base: (i64::MAX, i64::MAX), since: now, end_unix_us: 0, part_us: 0 }
    }

    /// Whether a part has come.
    pub fn has_begun(&self) -> bool {
        self.end_unix_us != 0
    }

    /// When the media ended that came last, by the source's clock, µs since the Unix epoch; 0 before the first part.
    pub fn reached_unix_us(&self) -> u64 {
        self.end_unix_us
    }

    /// A part that plays is whole: its media ended at `end_unix_us` by the source's clock; `now_unix_us` is this node's. One that
    /// ended before what has come already says nothing: another rendition's segment is entered where it began.
    pub fn arrived(&mut self, now: Timestamp, now_unix_us: u64, end_unix_us: u64, part: Duration) {
        if end_unix_us < self.end_unix_us {
            return;
        }
        self.part_us = i64::try_from(part.as_micros()).unwrap_or(i64::MAX);
        self.end_unix_us = end_unix_us;
        if now.since(self.since) > BASE_PERIOD {
            (self.base, self.since) = ((i64::MAX, self.base.0), now);
        }
        self.base.0 = self.base.0.min(self.late_us(now_unix_us));
    }

    fn late_us(&self, now_unix_us: u64) -> i64 {
        now_unix_us.cast_signed().saturating_sub_unsigned(self.end_unix_us)
    }

    /// How far what plays has fallen behind; nothing before the first part.
    pub fn at(&self, now_unix_us: u64) -> Duration {
        if !self.has_begun() {
            return Duration::ZERO;
        }
        let base = self.base.0.min(self.base.1);
        // The next part is due one part's length after the last.
        let above = self.late_us(now_unix_us).saturating_sub(base).saturating_sub(self.part_us);
        Duration::from_micros(u64::try_from(above).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_nothing_and_silence_is_all() {
        let part = Duration::from_millis(200);
        let at = |ms: u64| (Timestamp::from_millis(ms), 1_000_000_000 + ms * 1000);
        let mut behind = Behind::new(Timestamp::ZERO);
        assert_eq!((behind.has_begun(), behind.at(5_000_000)), (false, Duration::ZERO));
        for n in 1..50 {
            // Its clock is a second ahead, and the way takes 150 ms.
            let (now, unix_us) = at(n * 200);
            behind.arrived(now, unix_us, unix_us - 1_150_000, part);
        }
        let (_, last) = at(49 * 200);
        assert_eq!(behind.at(last), Duration::ZERO);
        assert_eq!(behind.at(last + 200_000), Duration::ZERO, "the next is not due before");
        assert_eq!(behind.at(last + 1_200_000), Duration::from_secs(1));
        // Another rendition's segment began before the point reached.
        behind.arrived(Timestamp::from_millis(11_000), last + 1_200_000, last - 3_000_000, part);
        assert_eq!(behind.at(last + 1_200_000), Duration::from_secs(1));
    }
}
