//! The cases: a line, a load, and what is asked of it.

use super::super::emulator::model::{Line, Path};
use super::super::report::{Target, Unit};
use std::time::Duration;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// Chunks of 16 KiB at so many bit/s on one connection; 0: as fast as they go.
    Chunks { bps: u64 },
    /// The same, and for a while a TCP Cubic flow through the same line.
    BesideTcp { bps: u64 },
    /// So many peers ask a node for more than its line carries, each on a connection of its own.
    Crowd { peers: u8 },
}

/// One line and one load.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// The sender's line; `None`: open.
    pub(super) line: Option<(u64, u64)>,
    pub(super) rtt_ms: u64,
    pub(super) loss: f64,
    pub(super) load: Load,
    /// Run again with the transport's own control.
    pub(super) has_baseline: bool,
    pub(super) figures: &'static [Figure],
}

/// A figure and its target.
pub(super) struct Figure {
    pub(super) path: &'static str,
    pub(super) label: &'static str,
    pub(super) unit: Unit,
    pub(super) target: Target,
}

const fn figure(path: &'static str, label: &'static str, unit: Unit, target: Target) -> Figure {
    Figure { path, label, unit, target }
}

use Target::{AtLeast, AtMost, Below, None as Free};
use Unit::{Count, Ms, Percent};

/// What is watched in the case of that name, bit/s.
const WATCHED_BPS: u64 = 2_000_000;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "loss",
        what: "4 Mbit/s of 16 KiB chunks on one connection, round trips of 50 ms, 2 % of packets lost each way",
        line: None,
        rtt_ms: 50,
        loss: 0.02,
        load: Load::Chunks { bps: 4_000_000 },
        has_baseline: true,
        figures: &[
            figure("ours/chunk_ms/p99", "chunk acknowledged, p99", Ms, AtMost(400.0)),
            figure("ours/chunk_ms/p50", "chunk acknowledged, p50", Ms, Free),
            figure("ours/unfinished", "chunks not there at the end", Count, Free),
        ],
    },
    Case {
        name: "overload",
        what: "more than it carries through a line of 5 Mbit/s with a queue of 300 ms, round trips of 20 ms",
        line: Some((5_000_000, 300)),
        rtt_ms: 20,
        loss: 0.0,
        load: Load::Chunks { bps: 0 },
        has_baseline: true,
        figures: &[
            figure("ours/rtt_ms/p95", "round trip, p95", Ms, AtMost(130.0)),
            figure("ours/rtt_ms/p50", "round trip, p50", Ms, Free),
            figure("ours/used", "line used", Percent, AtLeast(0.9)),
            figure("ours/dropped", "packets dropped since start", Percent, Below(0.005)),
        ],
    },
    Case {
        name: "watched",
        what: "2 Mbit/s of a stream beside a TCP Cubic flow, the line of overload",
        line: Some((5_000_000, 300)),
        rtt_ms: 20,
        loss: 0.0,
        load: Load::BesideTcp { bps: WATCHED_BPS },
        has_baseline: true,
        figures: &[
            figure("ours/beside", "of its rate, from 2 s after TCP began", Percent, AtLeast(0.99)),
            figure("ours/first", "of its rate, in the first 3 s of TCP", Percent, Free),
            figure("ours/chunk_ms/p95", "chunk acknowledged, p95", Ms, Free),
            figure("ours/tcp", "TCP's share of the line", Percent, Free),
            figure("ours/rtt_after_ms/p95", "round trip from 5 s after TCP ended, p95", Ms, AtMost(130.0)),
        ],
    },
    Case {
        name: "relaying",
        what: "as much as it can get beside a TCP Cubic flow, the line of overload",
        line: Some((5_000_000, 300)),
        rtt_ms: 20,
        loss: 0.0,
        load: Load::BesideTcp { bps: 0 },
        has_baseline: true,
        figures: &[
            figure("ours/tcp", "TCP's share of the line", Percent, AtLeast(0.8)),
            figure("ours/after", "line used by chunks from 3 s after TCP ended", Percent, AtLeast(0.85)),
            figure("ours/rtt_after_ms/p95", "round trip from 5 s after TCP ended, p95", Ms, AtMost(130.0)),
        ],
    },
    Case {
        name: "sixteen",
        what: "16 peers ask a node for more than its line of 3 Mbit/s carries, round trips of 20 ms",
        line: Some((3_000_000, 400)),
        rtt_ms: 20,
        loss: 0.0,
        load: Load::Crowd { peers: 16 },
        has_baseline: false,
        figures: &[
            figure("ours/out_of_order", "chunks that went before an earlier deadline", Count, AtMost(0.0)),
            figure(
                "ours/choices",
                "chunks that went while others waited that could have",
                Count,
                AtLeast(100.0),
            ),
            figure("ours/rtt_ms/p95", "round trip, all connections, p95", Ms, AtMost(130.0)),
            figure("ours/rtt_ms/p50", "round trip, all connections, p50", Ms, Free),
            figure("ours/used", "line used", Percent, Free),
            figure("ours/dropped", "packets dropped since start", Percent, Free),
        ],
    },
];

pub(super) const FOOTNOTE: &str = "Cubic: the same load with the transport's own congestion control, median. Round trips are the transport's \
    smoothed ones, every 50 ms. A chunk that has not arrived counts with its age at the end. *watched* and *relaying*: the TCP flow is the kernel's, \
    from the seventh second to the 23rd of 31.";

impl Case {
    pub(super) fn lines(&self) -> [Line; 2] {
        let open = Line { bps: None, queue: Duration::ZERO };
        let narrow = |(bps, queue_ms)| Line { bps: Some(bps), queue: Duration::from_millis(queue_ms) };
        [self.line.map_or(open, narrow), open]
    }

    pub(super) fn path(&self) -> Path {
        Path::new(Duration::from_millis(self.rtt_ms), self.loss)
    }

    /// The line's rate, if it has one.
    pub(super) fn bps(&self) -> Option<f64> {
        self.line.map(|(bps, _)| bps as f64)
    }
}
