//! What a run comes to: sums by the second, and quantiles.

use std::time::Duration;

use serde_json::{Value, json};

/// Sums by the second since the beginning.
#[derive(Debug, Default, Clone)]
pub(crate) struct BySecond(Vec<f64>);

impl BySecond {
    pub(crate) fn add(&mut self, at: Duration, amount: f64) {
        let second = at.as_secs() as usize;
        if self.0.len() <= second {
            self.0.resize(second + 1, 0.0);
        }
        self.0[second] += amount;
    }

    /// Sums of bytes as bit/s.
    pub(crate) fn bps(&self) -> Vec<f64> {
        self.0.iter().map(|bytes| bytes * 8.0).collect()
    }
}

/// Values and when they were seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<(Duration, f64)>);

impl Samples {
    pub(crate) fn add(&mut self, at: Duration, value: f64) {
        self.0.push((at, value));
    }

    /// The largest of each second.
    pub(crate) fn largest(&self) -> Vec<f64> {
        let mut largest: Vec<f64> = Vec::new();
        for (at, value) in &self.0 {
            let second = at.as_secs() as usize;
            largest.resize(largest.len().max(second + 1), 0.0);
            largest[second] = largest[second].max(*value);
        }
        largest
    }

    /// Those seen from one moment to another.
    pub(crate) fn between(&self, from: Duration, until: Duration) -> Value {
        let seen = self.0.iter().filter(|(at, _)| *at >= from && *at < until);
        quantiles(seen.map(|(_, value)| *value).collect())
    }
}

/// Median, 90th, 95th and 99th percentile, and the largest.
fn quantiles(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return Value::Null };
    let at = |share: f64| values[(last as f64 * share).ceil() as usize];
    json!({"count": values.len(), "p50": at(0.5), "p90": at(0.9), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)})
}
