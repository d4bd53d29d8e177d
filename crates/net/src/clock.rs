//! The driver's two clocks: monotonic µs from its start (tokio's, so that a test may pause it), and the wall clock,
//! which is told to the engine at the start and again only when it departs from the monotonic one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caudal_proto::time::Timestamp;
use tokio::time::Instant;

/// The wall clock may depart from the monotonic one by this much before the engine hears of it.
pub(crate) const WALL_DRIFT_MAX: Duration = Duration::from_millis(100);
/// The wall clock is read at most this often.
const WALL_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Reads the wall clock: µs since the Unix epoch.
pub type WallClock = Box<dyn Fn() -> u64 + Send>;

/// The operating system's wall clock.
pub(crate) fn system_wall_clock() -> WallClock {
    Box::new(|| {
        // A machine whose clock stands before 1970 is told as 1970: freshness rules refuse everything then, and say so.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

pub(crate) struct Clock {
    start: Instant,
    wall: WallClock,
    /// The wall clock at `start`, as last told to the engine.
    wall_at_start: u64,
    checked: Option<Instant>,
}

impl Clock {
    pub(crate) fn new(wall: WallClock) -> Self {
        Self { start: Instant::now(), wall, wall_at_start: 0, checked: None }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.timestamp(Instant::now())
    }

    fn timestamp(&self, at: Instant) -> Timestamp {
        let elapsed = at.saturating_duration_since(self.start);
        Timestamp::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }

    /// When `at` is, for a timer; `None` when it lies beyond every timer.
    pub(crate) fn instant(&self, at: Timestamp) -> Option<Instant> {
        if at == Timestamp::FAR_FUTURE {
            return None;
        }
        self.start.checked_add(Duration::from_micros(at.as_micros()))
    }

    /// The wall clock, when the engine must hear of it: at first, and after it jumped or drifted. Cheap to ask often.
    pub(crate) fn wall_news(&mut self) -> Option<u64> {
        let now = Instant::now();
        let first = self.checked.is_none();
        if self.checked.is_some_and(|at| now.saturating_duration_since(at) < WALL_CHECK_EVERY) {
            return None;
        }
        self.checked = Some(now);
        let wall = (self.wall)();
        let expected = self.wall_at_start.saturating_add(self.timestamp(now).as_micros());
        if !first && u128::from(wall.abs_diff(expected)) <= WALL_DRIFT_MAX.as_micros() {
            return None;
        }
        self.wall_at_start = wall.saturating_sub(self.timestamp(now).as_micros());
        Some(wall)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_is_told_first_and_after_a_jump_only() {
        let jump = Arc::new(AtomicU64::new(1_000_000_000));
        let (start, offset) = (Instant::now(), Arc::clone(&jump));
        let mut clock = Clock::new(Box::new(move || {
            offset.load(Ordering::Relaxed) + u64::try_from(start.elapsed().as_micros()).unwrap()
        }));
        assert_eq!(clock.wall_news(), Some(1_000_000_000));
        for _ in 0..5 {
            tokio::time::advance(Duration::from_millis(700)).await;
            assert_eq!(clock.wall_news(), None);
        }
        jump.fetch_add(90_000, Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.wall_news(), None, "90 ms is within tolerance");
        jump.fetch_sub(500_000, Ordering::Relaxed);
        assert_eq!(clock.wall_news(), None, "not read again within a second");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.wall_news(), Some(1_000_000_000 - 410_000 + 6_500_000));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.wall_news(), None, "told once");
    }
}
