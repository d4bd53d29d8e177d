//! What crosses between providers: IP bytes of chunks for each pair, and over time.

/// Width of a bin of traffic over time, µs.
pub(crate) const TRAFFIC_BIN_US: u64 = 1_000_000;

/// Bytes in a bin.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TrafficBin {
    pub(crate) all: u64,
    pub(crate) crossing: u64,
}

/// Counted from the beginning; a report takes the difference of two.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    isps: usize,
    /// From a provider (row) to a provider (column).
    pub(crate) bytes: Vec<u64>,
    /// Of those that crossed, what was asked for.
    pub(crate) asked: u64,
    pub(crate) bins: Vec<TrafficBin>,
}

impl Traffic {
    pub(crate) fn new(isps: usize) -> Self {
        Self { isps, bytes: vec![0; isps * isps], ..Self::default() }
    }

    pub(crate) fn chunk(&mut self, now: u64, from: usize, to: usize, bytes: u64, is_asked: bool) {
        let Some(cell) = self.bytes.get_mut(from * self.isps + to) else { return };
        *cell += bytes;
        let bin = (now / TRAFFIC_BIN_US) as usize;
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, TrafficBin::default());
        }
        self.bins[bin].all += bytes;
        if from != to {
            self.bins[bin].crossing += bytes;
            self.asked += if is_asked { bytes } else { 0 };
        }
    }
}
