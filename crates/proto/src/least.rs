//! The least of a duration lately: what a path takes without queues.

use core::time::Duration;

use crate::time::Timestamp;

/// The least of a duration lately: of this and of the last stretch of `MS` milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Least<const MS: u64> {
    current: Duration,
    previous: Duration,
    since: Timestamp,
}

impl<const MS: u64> Least<MS> {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { current: Duration::MAX, previous: Duration::MAX, since: now }
    }

    pub(crate) fn starting(now: Timestamp, value: Duration) -> Self {
        Self { current: value, previous: Duration::MAX, since: now }
    }

    pub(crate) fn note(&mut self, now: Timestamp, value: Duration) {
        if now.since(self.since) > Duration::from_millis(MS) {
            (self.previous, self.current, self.since) = (self.current, value, now);
        }
        self.current = self.current.min(value);
    }

    pub(crate) fn get(&self) -> Duration {
        self.current.min(self.previous)
    }
}
