//! What old holes may have of an uplink before anything else: a share of it, some of it in advance.
//!
//! Owns the account. Who is served is [`pull`](super::pull)'s decision.

use core::time::Duration;

use crate::time::Timestamp;

/// What is not spent is saved for this long, in seconds …
const SAVED_S: u64 = 1;
/// … and last calls may spend this much in advance …
const AHEAD_S: u64 = 3;
/// … from a source this much: its line may be idle, its copies sent.
const AHEAD_SOURCE_S: u64 = 12;
/// No player waits for what is older: it comes with what anybody asks for.
const OLDEST: Duration = Duration::from_secs(10);

/// The account, in bytes; negative where last calls took in advance.
#[derive(Debug)]
pub(super) struct Overdue {
    left: i64,
    at: Timestamp,
}

/// What a node may spend on old holes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) bytes_per_second: u64,
    pub(super) is_source: bool,
}

impl Share {
    fn advance(self) -> i64 {
        let seconds = if self.is_source { AHEAD_SOURCE_S } else { AHEAD_S };
        self.bytes_per_second.saturating_mul(seconds).min(i64::MAX as u64) as i64
    }
}

impl Overdue {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { left: 0, at: now }
    }

    /// Books what was earned since the last time. A debt is no larger than the advance, whatever the share once was.
    pub(super) fn earn(&mut self, now: Timestamp, share: Share) {
        let idle_us = (now.since(self.at).as_micros() as u64).min(60_000_000);
        let earned = share.bytes_per_second.saturating_mul(idle_us) / 1_000_000;
        if earned > 0 {
            let most = share.bytes_per_second.saturating_mul(SAVED_S).min(i64::MAX as u64) as i64;
            self.left = self.left.saturating_add(earned.min(i64::MAX as u64) as i64).min(most);
            self.at = now;
        }
        self.left = self.left.max(-share.advance());
    }

    /// Whether a chunk of this `age` may go; `is_last_call`: it is about to be given up, and nothing else would send it.
    pub(super) fn allows(&self, age: Duration, is_last_call: bool, share: Share) -> bool {
        age < OLDEST && (self.left > 0 || is_last_call && self.left.saturating_add(share.advance()) > 0)
    }

    pub(super) fn charge(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes as i64);
    }

    /// It was not sent after all.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.left = self.left.saturating_add(bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: Share = Share { bytes_per_second: 10_000, is_source: false };
    const OLD: Duration = Duration::from_secs(5);

    /// Bytes that go at `now`, a thousand at a time.
    fn spend(account: &mut Overdue, now: Timestamp, age: Duration, is_last_call: bool, share: Share) -> u64 {
        account.earn(now, share);
        let mut spent = 0;
        while account.allows(age, is_last_call, share) && spent < 10_000_000 {
            account.charge(1000);
            spent += 1000;
        }
        spent
    }

    #[test]
    fn a_second_is_saved_and_last_calls_have_three_in_advance_or_twelve() {
        for (is_source, ahead) in [(false, 30_000), (true, 120_000)] {
            let share = Share { is_source, ..RELAY };
            let mut account = Overdue::new(Timestamp::ZERO);
            let mut now = Timestamp::ZERO + Duration::from_secs(1000);
            assert_eq!(spend(&mut account, now, OLD, false, share), 10_000);
            assert_eq!(spend(&mut account, now, OLD, true, share), ahead);
            assert_eq!(spend(&mut account, now, OLD, true, share), 0);
            now += Duration::from_secs(2);
            assert_eq!(spend(&mut account, now, OLD, false, share), 0, "the advance is paid back first");
            assert_eq!(spend(&mut account, now, OLD, true, share), 20_000);
        }
    }

    #[test]
    fn nobody_can_burn_it() {
        let mut account = Overdue::new(Timestamp::ZERO);
        let mut now = Timestamp::from_millis(1000);
        assert_eq!(spend(&mut account, now, Duration::from_secs(11), true, RELAY), 0, "nobody plays that");
        assert_eq!(spend(&mut account, now, OLD, true, RELAY), 40_000);
        account.give_back(40_000);
        assert_eq!(spend(&mut account, now, OLD, true, RELAY), 40_000, "unsent, it counts for nothing");
        // Looking at it all the time keeps nobody from earning.
        for _ in 0..100_000 {
            now += Duration::from_micros(10);
            account.earn(now, RELAY);
        }
        assert_eq!(spend(&mut account, now, OLD, true, RELAY), 10_000);
    }

    #[test]
    fn a_line_that_becomes_narrow_owes_no_more_than_its_own_advance() {
        let mut account = Overdue::new(Timestamp::ZERO);
        let wide = Share { bytes_per_second: u64::MAX, is_source: true };
        let now = Timestamp::from_millis(5000);
        account.earn(now, wide);
        account.charge(u64::MAX >> 1);
        account.charge(u64::MAX >> 1);
        assert_eq!(spend(&mut account, now, OLD, true, RELAY), 0);
        assert_eq!(spend(&mut account, now + Duration::from_secs(3), OLD, true, RELAY), 30_000);
    }
}
