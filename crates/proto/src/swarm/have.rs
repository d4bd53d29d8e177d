//! A have map: which chunk numbers somebody holds, as ascending disjoint ranges (RFC 7574 §4 calls it that, too).

use alloc::collections::BTreeMap;
use core::ops::Range;

use crate::wire::{RANGES_MAX, RangeList};

/// Most ranges that a neighbour's map is read into.
const _: () = assert!(RANGES_MAX <= 64, "a neighbour's have map stays small");

/// A set of chunk numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HaveMap {
    /// Start of each range, and its end (exclusive). Ranges neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
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
        RangeList::from_ranges(self.ranges.iter().skip(skip).map(|(&start, &end)| start..end))
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }

    pub(crate) fn insert(&mut self, number: u64) {
        self.insert_range(number..number + 1);
    }

    pub(crate) fn insert_range(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Swallow every range that touches the new one, from the right.
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.ranges.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.ranges.insert(start, end);
    }

    /// Forgets everything below `floor`.
    pub(crate) fn discard_below(&mut self, floor: u64) {
        while let Some((&start, &end)) = self.ranges.first_key_value() {
            if start >= floor {
                return;
            }
            self.ranges.remove(&start);
            if end > floor {
                self.ranges.insert(floor, end);
                return;
            }
        }
    }

    /// The first number held.
    pub(crate) fn start(&self) -> Option<u64> {
        self.ranges.first_key_value().map(|(&start, _)| start)
    }

    /// One past the last number held; 0 when nothing is.
    pub(crate) fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// The numbers of `within` that are not held, ascending.
    pub(crate) fn missing(&self, within: Range<u64>) -> impl Iterator<Item = u64> + '_ {
        self.gaps(within).flatten()
    }

    /// The ranges of `within` that are not held, ascending.
    pub(crate) fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self
            .ranges
            .range(..=within.start)
            .next_back()
            .map_or(within.start, |(_, &end)| end.max(within.start));
        let mut at = first;
        let mut rest = self.ranges.range(first..within.end.max(first));
        let mut done = false;
        core::iter::from_fn(move || {
            while !done {
                let gap = match rest.next() {
                    Some((&start, &end)) => {
                        let gap = at..start.min(within.end);
                        at = end;
                        gap
                    }
                    None => {
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
    use alloc::vec::Vec;

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
