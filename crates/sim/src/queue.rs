//! The event queue: a calendar of half-millisecond buckets. Events of one time come out in the order they went in.

use std::collections::{BTreeMap, BinaryHeap};

/// Width of a bucket, as a power of two of µs.
const BUCKET_BITS: u32 = 9;
/// Buckets on the wheel: events further ahead than about 8 s wait elsewhere.
const BUCKETS: u64 = 1 << 14;

struct Entry<T> {
    at: u64,
    seq: u64,
    what: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.seq)
    }
}

// The heap gives the earliest first.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        other.key().cmp(&self.key())
    }
}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<T> Eq for Entry<T> {}

/// Events by time.
pub(crate) struct Queue<T> {
    wheel: Vec<Vec<Entry<T>>>,
    /// The bucket being emptied, latest first.
    current: Vec<Entry<T>>,
    /// What was added to that bucket meanwhile.
    added: BinaryHeap<Entry<T>>,
    bucket: u64,
    far: BTreeMap<u64, Vec<Entry<T>>>,
    seq: u64,
    len: usize,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            wheel: (0..BUCKETS).map(|_| Vec::new()).collect(),
            current: Vec::new(),
            added: BinaryHeap::new(),
            bucket: 0,
            far: BTreeMap::new(),
            seq: 0,
            len: 0,
        }
    }

    /// Adds an event at `at` µs, no earlier than the last one taken.
    pub(crate) fn push(&mut self, at: u64, what: T) {
        self.seq += 1;
        self.len += 1;
        let entry = Entry { at, seq: self.seq, what };
        let bucket = at >> BUCKET_BITS;
        if bucket <= self.bucket {
            self.added.push(entry);
        } else if bucket < self.bucket + BUCKETS {
            self.wheel[(bucket % BUCKETS) as usize].push(entry);
        } else {
            self.far.entry(bucket).or_default().push(entry);
        }
    }

    /// The earliest event no later than `until`, with its time.
    pub(crate) fn pop(&mut self, until: u64) -> Option<(u64, T)> {
        loop {
            let from_current = match (self.current.last(), self.added.peek()) {
                (Some(a), Some(b)) => a.key() < b.key(),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => {
                    if self.len == 0 || self.bucket >= until >> BUCKET_BITS {
                        return None;
                    }
                    self.advance();
                    continue;
                }
            };
            let next = if from_current { self.current.last() } else { self.added.peek() };
            if next.is_none_or(|entry| entry.at > until) {
                return None;
            }
            self.len -= 1;
            let entry = if from_current { self.current.pop() } else { self.added.pop() };
            return entry.map(|entry| (entry.at, entry.what));
        }
    }

    /// What waits, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let wheel = self.wheel.iter().flatten().chain(&self.current).chain(&self.added);
        wheel.chain(self.far.values().flatten()).map(|entry| &entry.what)
    }

    fn advance(&mut self) {
        self.bucket += 1;
        std::mem::swap(&mut self.current, &mut self.wheel[(self.bucket % BUCKETS) as usize]);
        if self.far.first_key_value().is_some_and(|(bucket, _)| *bucket <= self.bucket)
            && let Some((_, entries)) = self.far.pop_first()
        {
            self.current.extend(entries);
        }
        self.current.sort_unstable_by_key(|entry| core::cmp::Reverse(entry.key()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sorts_by_time_and_then_by_arrival() {
        let (mut queue, mut rng) = (Queue::new(), fastrand::Rng::with_seed(5));
        let mut expected: Vec<(u64, u64)> = Vec::new();
        let (mut now, mut got, mut n) = (0, Vec::new(), 0u64);
        for _ in 0..2000 {
            for _ in 0..rng.usize(..5) {
                let at = now + if rng.u8(..9) == 0 { rng.u64(..40_000_000) } else { rng.u64(..3000) };
                queue.push(at, n);
                expected.push((at, n));
                n += 1;
            }
            let until = now + rng.u64(..2000);
            while let Some(event) = queue.pop(until) {
                assert!(event.0 >= now && event.0 <= until);
                now = event.0;
                got.push(event);
            }
            now = until;
        }
        while let Some(event) = queue.pop(u64::MAX >> 1) {
            got.push(event);
        }
        expected.sort_unstable();
        assert_eq!(got, expected);
        assert_eq!(queue.iter().count(), 0);
    }
}
