//! Turns a chunk's signing time into a lag that is free of clock skew.
//!
//! The hops add up what they know: queues and half round trips. What they cannot see (transmission) shows in the
//! difference between this node's clock and the signature's, whose smallest value stands for the skew. Nobody signs what
//! hops say, so every neighbour has a smallest value of its own, and the middle one of them counts: a liar among honest
//! neighbours changes nothing.

use alloc::vec::Vec;
use core::time::Duration;

use super::Swarm;
use crate::time::Timestamp;

/// Halves of the window over which the smallest difference is kept.
const WINDOW: Duration = Duration::from_secs(20);

/// What one neighbour's pushes show of the difference between two clocks, µs.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    current: Option<i64>,
    previous: Option<i64>,
    turn_at: Timestamp,
}

impl Skew {
    /// A push came, with `skew_us` left of the clocks' difference after what its hops explain.
    pub(crate) fn note(&mut self, now: Timestamp, skew_us: i64) {
        if now >= self.turn_at {
            self.previous = self.current.take();
            self.turn_at = now + WINDOW;
        }
        self.current = Some(self.current.map_or(skew_us, |least| least.min(skew_us)));
    }

    fn least(&self) -> Option<i64> {
        self.current.into_iter().chain(self.previous).min()
    }
}

impl Swarm {
    /// Asks all neighbours again, now and then: chunks are many, and clocks drift slowly.
    pub(super) fn measure_skew(&mut self) {
        let skews = self.neighbours.values().filter_map(|neighbour| neighbour.skew.least());
        self.skew_us = middle(skews.collect());
    }

    /// The lag of a chunk received `difference_us` after its signature by the two clocks, of which the hops know `hops_us`.
    pub(super) fn lag_us(&self, difference_us: i64, hops_us: Option<u64>) -> u64 {
        let skew = self.skew_us.unwrap_or(difference_us);
        u64::try_from(difference_us.saturating_sub(skew)).unwrap_or(0).max(hops_us.unwrap_or(0))
    }
}

/// The middle value, of two the smaller.
fn middle(mut values: Vec<i64>) -> Option<i64> {
    let at = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable(at).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_liar_among_honest_neighbours_changes_nothing() {
        assert_eq!(middle(alloc::vec![]), None);
        assert_eq!(middle(alloc::vec![5]), Some(5));
        assert_eq!(middle(alloc::vec![5, -2_000_000]), Some(-2_000_000));
        assert_eq!(middle(alloc::vec![7, -2_000_000, 5]), Some(5));
        assert_eq!(middle(alloc::vec![7, 2_000_000, 5, -2_000_000]), Some(5));
    }

    #[test]
    fn the_smallest_difference_is_forgotten_after_one_to_two_windows() {
        let mut skew = Skew::default();
        skew.note(Timestamp::from_millis(1), -500);
        for s in [5, 15, 25, 35] {
            skew.note(Timestamp::from_millis(s * 1000), 100);
        }
        assert_eq!(skew.least(), Some(-500));
        skew.note(Timestamp::from_millis(45_000), 100);
        assert_eq!(skew.least(), Some(100));
    }
}
