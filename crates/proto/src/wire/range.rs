//! Lists of chunk ranges as they travel: ascending, disjoint, never unpacked into more memory than they came in.

use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use super::WireError;
use super::codec::{Reader, VARINT_MAX, put_varint};

/// Most ranges in one list.
pub const RANGES_MAX: usize = 64;

/// Ascending, disjoint, non-empty ranges of chunk numbers.
///
/// Encoding: count, then for each range its distance from the end of the one before (from 0 for the first) and its
/// length; all variable-length integers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeList {
    count: usize,
    /// The (distance, length) pairs; checked when they were decoded.
    pairs: Bytes,
}

impl RangeList {
    /// From ascending, disjoint ranges; empty ones are left out, those past [`RANGES_MAX`] too.
    pub fn from_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let (mut count, mut end, mut pairs) = (0, 0, Vec::new());
        for range in ranges {
            if range.is_empty() || range.start < end || range.end > VARINT_MAX || count == RANGES_MAX {
                continue;
            }
            put_varint(&mut pairs, range.start - end);
            put_varint(&mut pairs, range.end - range.start);
            end = range.end;
            count += 1;
        }
        Self { count, pairs: pairs.into() }
    }

    /// From ascending numbers; neighbours are joined.
    pub fn from_numbers(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some(last) if last.end == number => last.end += 1,
                _ => ranges.push(number..number + 1),
            }
        }
        Self::from_ranges(ranges)
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let (mut reader, mut end) = (Reader(self.pairs.clone()), 0);
        core::iter::from_fn(move || {
            let start = end + reader.varint().ok()?;
            end = start + reader.varint().ok()?;
            Some(start..end)
        })
    }

    /// At most `limit` numbers of the ranges, ascending: what a hostile range of 2⁶² numbers costs is the caller's choice.
    pub fn numbers(&self, limit: usize) -> impl Iterator<Item = u64> + use<> {
        self.iter().flatten().take(limit)
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.count as u64);
        out.extend_from_slice(&self.pairs);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, WireError> {
        let count = reader.varint_up_to(RANGES_MAX as u64)? as usize;
        let all = reader.0.clone();
        let (mut end, mut first) = (0u64, true);
        for _ in 0..count {
            let (distance, len) = (reader.varint()?, reader.varint()?);
            if len == 0 || (distance == 0 && !first) {
                return Err(WireError::OutOfRange);
            }
            first = false;
            end = end.checked_add(distance).and_then(|e| e.checked_add(len)).ok_or(WireError::OutOfRange)?;
            if end > VARINT_MAX {
                return Err(WireError::OutOfRange);
            }
        }
        Ok(Self { count, pairs: all.slice(..all.len() - reader.0.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn numbers_become_ranges_and_come_back() {
        let list = RangeList::from_numbers([3, 4, 5, 9, 11, 12]);
        assert_eq!(list.iter().collect::<Vec<_>>(), vec![3..6, 9..10, 11..13]);
        let mut out = Vec::new();
        list.encode(&mut out);
        assert_eq!(RangeList::decode(&mut Reader(out.into())), Ok(list.clone()));
        assert_eq!(list.numbers(4).collect::<Vec<_>>(), vec![3, 4, 5, 9]);
    }

    #[test]
    fn overlapping_empty_and_endless_lists_are_refused() {
        for bad in [
            &[1u8, 3, 0][..],
            &[2, 3, 1, 0, 1],
            &[65],
            &[1, 3],
            &[1, 0xff, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert!(RangeList::decode(&mut Reader(Bytes::copy_from_slice(bad))).is_err(), "{bad:?}");
        }
    }
}
