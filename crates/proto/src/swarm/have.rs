//! A have map: which chunk numbers somebody holds, as ascending disjoint ranges (RFC 7574 §4 calls it that, too).

use alloc::vec::Vec;
use core::ops::Range;

use crate::wire::{RANGES_MAX, RangeList};

/// Most ranges that a neighbour's map is read into.
const _: () = assert!(RANGES_MAX <= 64, "a neighbour's have map stays small");

/// A set of chunk numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HaveMap {
    /// Start and end (exclusive) of each range, ascending. Ranges neither touch nor overlap. There are few of them, and
    /// they are searched for every hole and every neighbour: a vector is several times faster than a tree.
    ranges: Vec<(u64, u64)>,
    /// One past the last number held, at hand for those who look at every neighbour's.
    end: u64,
}

impl HaveMap {
    pub(crate) fn from_list(list: &RangeList) -> Self {
        let mut map = Self::default();
        list.iter().for_each(|range| map.insert_range(range));
        map
    }

    /// The newest [`RANGES_MAX`] ranges, as they travel.
    pub(crate) fn to_list(&self) -> RangeList {
        let skip = self.ranges.len().saturating_sub(RANGES_MAX);
        RangeList::from_ranges(self.ranges[skip..].iter().map(|&(start, end)| start..end))
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        // Most questions are about the newest range, or beyond it.
        if number >= self.end {
            return false;
        }
        match self.ranges.last() {
            Some(&(start, end)) if number >= start => number < end,
            _ => {
                let after = self.ranges.partition_point(|&(start, _)| start <= number);
                after > 0 && number < self.ranges[after - 1].1
            }
        }
    }

    pub(crate) fn insert(&mut self, number: u64) {
        self.insert_range(number..number + 1);
    }

    pub(crate) fn insert_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.end = self.end.max(range.end);
        // The ranges that touch the new one are swallowed by it.
        let first = self.ranges.partition_point(|&(_, end)| end < range.start);
        let after = self.ranges.partition_point(|&(start, _)| start <= range.end);
        if first == after {
            self.ranges.insert(first, (range.start, range.end));
            return;
        }
        let end = self.ranges[after - 1].1.max(range.end);
        let start = self.ranges[first].0.min(range.start);
        self.ranges[first] = (start, end);
        self.ranges.drain(first + 1..after);
    }

    /// Forgets everything below `floor`.
    pub(crate) fn discard_below(&mut self, floor: u64) {
        let gone = self.ranges.partition_point(|&(_, end)| end <= floor);
        self.ranges.drain(..gone);
        match self.ranges.first_mut() {
            Some((start, _)) => *start = (*start).max(floor),
            None => self.end = 0,
        }
    }

    /// The first number held.
    pub(crate) fn start(&self) -> Option<u64> {
        self.ranges.first().map(|&(start, _)| start)
    }

    /// One past the last number held; 0 when nothing is.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The numbers of `within` that are not held, ascending.
    pub(crate) fn missing(&self, within: Range<u64>) -> impl Iterator<Item = u64> + '_ {
        self.gaps(within).flatten()
    }

    /// The ranges of `within` that are not held, ascending.
    pub(crate) fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let skip = self.ranges.partition_point(|&(_, end)| end <= within.start);
        let mut at = within.start;
        let mut rest = self.ranges[skip..].iter();
        let mut done = false;
        core::iter::from_fn(move || {
            while !done {
                let gap = match rest.next() {
                    Some(&(start, end)) if start < within.end => {
                        let gap = at..start;
                        at = end;
                        gap
                    }
                    _ => {
                        done = true;
                        at..within.end
                    }
                };
                if gap.start < gap.end {
                    return Some(gap);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn it_agrees_with_a_set() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let (mut map, mut set) = (HaveMap::default(), BTreeSet::new());
            for _ in 0..60 {
                match rng.u8(..6) {
                    0 => {
                        let floor = rng.u64(..40);
                        map.discard_below(floor);
                        set.retain(|&n| n >= floor);
                    }
                    1 => {
                        let start = rng.u64(..100);
                        let range = start..start + rng.u64(..9);
                        map.insert_range(range.clone());
                        set.extend(range);
                    }
                    _ => {
                        let number = rng.u64(..100);
                        map.insert(number);
                        set.insert(number);
                    }
                }
                let within = rng.u64(..60)..rng.u64(40..120);
                let missing: Vec<u64> = within.clone().filter(|n| !set.contains(n)).collect();
                assert_eq!(map.missing(within).collect::<Vec<_>>(), missing);
                assert!((0..110).all(|n| map.contains(n) == set.contains(&n)));
                assert_eq!((map.start(), map.end()), (set.first().copied(), set.last().map_or(0, |n| n + 1)));
                let list = HaveMap::from_list(&map.to_list());
                assert_eq!(list, map);
            }
        }
    }
}
