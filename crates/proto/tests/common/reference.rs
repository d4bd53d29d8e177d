//! The greedy snowball: one chunk alone, at every step each holder sends to a peer that lacks it. A reference for what
//! serialisation and propagation make of a chunk's delay, not a strict bound.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{LINE_BITS_PER_BYTE_TENTHS, Net};

/// Delay of one chunk of `bytes` at each of `viewers` equal viewers, ascending.
pub fn snowball(net: &Net, viewers: usize, bytes: usize) -> Vec<Duration> {
    let line = |bps: Option<u64>| {
        let us = bps.map_or(0, |bps| bytes as u64 * LINE_BITS_PER_BYTE_TENTHS * 100_000 / bps);
        Duration::from_micros(us)
    };
    let copies = net.copies_percent.map_or(usize::MAX, |percent| (percent as usize).div_ceil(100));
    let travel = net.one_way + net.jitter / 2;
    // (free at, tie-breaker, copies left, time per copy)
    let mut holders = BTreeSet::from([(Duration::ZERO, 0, copies, line(net.source_bps))]);
    let mut delays = Vec::new();
    while delays.len() < viewers {
        let Some((free, id, left, each)) = holders.pop_first() else { break };
        let sent = free + each;
        delays.push(sent + travel);
        if left > 1 {
            holders.insert((sent, id, left - 1, each));
        }
        holders.insert((sent + travel, delays.len(), usize::MAX, line(net.viewer_bps)));
    }
    delays.sort_unstable();
    delays
}

#[test]
fn a_snowball_doubles() {
    let net = Net { viewer_bps: Some(1_500_000), source_bps: Some(6_000_000), ..Net::default() };
    let delays = snowball(&net, 20, 5_000);
    let ms: Vec<u128> = delays.iter().map(Duration::as_millis).collect();
    assert_eq!(ms[..2], [18, 25], "{ms:?}");
    assert!((120..220).contains(&ms[19]), "{ms:?}");
}
