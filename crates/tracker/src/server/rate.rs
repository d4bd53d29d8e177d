//! How often one address may ask: a token bucket each (time handed in).

use std::collections::BTreeMap;

/// Most addresses with a bucket of their own; the rest share one, so that a flood from everywhere is bounded too.
const ADDRESSES_MAX: usize = 65_536;

/// Thousandths of a request.
const MILLI: u64 = 1000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens_milli: u64,
    at_ms: u64,
}

/// Buckets by host.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u64,
    burst: u64,
    buckets: BTreeMap<u128, Bucket>,
    shared: Bucket,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let burst = u64::from(burst.max(1));
        let shared = Bucket { tokens_milli: burst * MILLI, at_ms: 0 };
        Self { per_second: u64::from(per_second.max(1)), burst, buckets: BTreeMap::new(), shared }
    }

    /// Takes a token, or says after how many ms there will be one.
    pub(crate) fn take(&mut self, now_ms: u64, host: u128) -> Result<(), u64> {
        let full = Bucket { tokens_milli: self.burst * MILLI, at_ms: now_ms };
        let bucket = if self.buckets.len() < ADDRESSES_MAX || self.buckets.contains_key(&host) {
            self.buckets.entry(host).or_insert(full)
        } else {
            &mut self.shared
        };
        let elapsed = now_ms.saturating_sub(bucket.at_ms).min(self.burst * MILLI);
        bucket.tokens_milli = (bucket.tokens_milli + elapsed * self.per_second).min(self.burst * MILLI);
        bucket.at_ms = now_ms;
        if bucket.tokens_milli >= MILLI {
            bucket.tokens_milli -= MILLI;
            return Ok(());
        }
        Err((MILLI - bucket.tokens_milli).div_ceil(self.per_second))
    }

    /// Drops buckets that are full again.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let full_after_ms = self.burst * MILLI / self.per_second;
        self.buckets.retain(|_, bucket| now_ms.saturating_sub(bucket.at_ms) < full_after_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_others_are_not_touched() {
        let mut limit = RateLimit::new(10, 5);
        for _ in 0..5 {
            assert_eq!(limit.take(0, 1), Ok(()));
        }
        assert_eq!(limit.take(0, 1), Err(100));
        assert_eq!(limit.take(0, 2), Ok(()));
        assert_eq!(limit.take(99, 1), Err(1));
        assert_eq!(limit.take(100, 1), Ok(()));
        limit.expire(10_000);
        assert!(limit.buckets.is_empty());
    }

    #[test]
    fn a_flood_from_everywhere_shares_one_bucket() {
        let mut limit = RateLimit::new(1, 2);
        for host in 0..ADDRESSES_MAX as u128 {
            assert_eq!(limit.take(0, host), Ok(()));
        }
        let allowed = (0..1000).filter(|n| limit.take(0, (ADDRESSES_MAX + n) as u128).is_ok()).count();
        assert_eq!((allowed, limit.buckets.len()), (2, ADDRESSES_MAX));
    }
}
