//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

/// µs since the Unix epoch; 0 on a clock set before it.
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// ms since the Unix epoch.
pub fn unix_ms() -> u64 {
    unix_us() / 1000
}
