//! A traced chunk as a tree of lines.

use std::fmt::Write as _;

use caudal_node::trace::{Kind, Row, TraceView};

const DIM: &str = "\u{1b}[2m";
const BOLD: &str = "\u{1b}[1m";
const SLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";
/// A hop that takes this long is one to look at, ms.
const SLOW_MS: f64 = 250.0;

/// The tree, with the delay of each hop; colours where `colour`.
pub(super) fn draw(view: &TraceView, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour && !text.is_empty() { format!("{code}{text}{PLAIN}") } else { text.to_owned() }
    };
    let mut out = String::new();
    let summary = &view.summary;
    let ms = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
    let title = format!("chunk {}", view.number);
    let _ = write!(
        out,
        "{}  {} reported, {}, {} deep; hop {} (p95 {}), last {} after capture",
        paint(BOLD, &title),
        summary.reported,
        gaps(u64::from(summary.gaps)),
        summary.depth,
        ms(summary.hop_p50_ms),
        ms(summary.hop_p95_ms),
        ms(summary.lag_max_ms),
    );
    if view.forged > 0 {
        let _ = write!(out, "; {} forged reports left out", view.forged);
    }
    for (at, row) in view.rows.iter().enumerate() {
        let (name, delays) = (name(row), delays(row));
        let name = if row.kind == Kind::Gap { paint(DIM, &name) } else { name };
        let is_slow = row.hop_ms.is_some_and(|ms| ms >= SLOW_MS);
        let delays = if is_slow { paint(SLOW, &delays) } else { delays };
        let _ = write!(out, "\n  {}{name}  {delays}", paint(DIM, &branches(&view.rows, at)));
        out.truncate(out.trim_end().len());
    }
    out
}

/// So many gaps, in words.
pub(super) fn gaps(count: u64) -> String {
    if count == 1 { "1 gap".to_owned() } else { format!("{count} gaps") }
}

/// The lines from the roots to row `at`.
fn branches(rows: &[Row], at: usize) -> String {
    let mut levels = Vec::new();
    let mut below = at;
    while let Some(parent) = rows[below].parent {
        let has_next =
            rows.iter().enumerate().any(|(other, row)| other > below && row.parent == Some(parent));
        levels.push(match (below == at, has_next) {
            (true, true) => "├─ ",
            (true, false) => "└─ ",
            (false, true) => "│  ",
            (false, false) => "   ",
        });
        below = parent;
    }
    levels.into_iter().rev().collect()
}

fn name(row: &Row) -> String {
    let peer = row.peer.as_deref().unwrap_or("…");
    match row.kind {
        Kind::Source => format!("{peer} (source)"),
        Kind::Peer => peer.to_owned(),
        Kind::Silent => format!("{peer} (no report)"),
        Kind::Gap if row.count > 1 => format!("… {} that do not report", row.count),
        Kind::Gap => "… does not report".to_owned(),
    }
}

/// What is measured, and what is inferred (`~`).
fn delays(row: &Row) -> String {
    let mut words = Vec::new();
    if let Some(ms) = row.hop_ms {
        let hops = if row.across { " over several hops" } else { "" };
        words.push(match row.clock_ms {
            Some(clock) => format!("≈0 ms{hops} (clocks differ by {clock:.0} ms or more)"),
            None => format!("+{ms:.0} ms{hops}"),
        });
    }
    let parts: Vec<String> = [
        row.queue_ms.map(|ms| format!("waited {ms:.0}")),
        row.way_ms.filter(|_| row.hop_ms.is_some()).map(|ms| format!("way ~{ms:.0}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !parts.is_empty() {
        words.push(format!("[{}]", parts.join(", ")));
    }
    if let Some(ms) = row.lag_ms {
        words.push(format!("{ms:.0} ms after capture"));
    }
    if row.requested {
        words.push("requested".to_owned());
    }
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_node::trace::Summary;

    fn row(kind: Kind, parent: Option<usize>, peer: Option<&str>, lag_ms: Option<f64>) -> Row {
        Row {
            kind,
            depth: 0,
            parent,
            peer: peer.map(str::to_owned),
            count: 0,
            requested: false,
            lag_ms,
            travelled_ms: None,
            hop_ms: None,
            across: false,
            clock_ms: None,
            queue_ms: None,
            way_ms: None,
        }
    }

    #[test]
    fn a_tree_is_drawn_with_gaps_and_clocks_as_they_are() {
        let mut rows = vec![
            row(Kind::Source, None, Some("srcsrcsrcs"), Some(200.0)),
            row(Kind::Peer, Some(0), Some("aaaaaaaaaa"), Some(240.0)),
            row(Kind::Peer, Some(1), Some("bbbbbbbbbb"), Some(230.0)),
            row(Kind::Gap, Some(0), None, None),
            row(Kind::Peer, Some(3), Some("cccccccccc"), Some(600.0)),
        ];
        (rows[1].hop_ms, rows[1].queue_ms, rows[1].way_ms) = (Some(40.0), Some(1.0), Some(20.0));
        (rows[2].hop_ms, rows[2].clock_ms) = (Some(0.0), Some(10.0));
        (rows[4].hop_ms, rows[4].across, rows[4].requested) = (Some(400.0), true, true);
        rows[3].count = 2;
        let summary = Summary { reported: 4, gaps: 1, depth: 2, ..Summary::default() };
        let view = TraceView { epoch: 1, number: 496, captured_unix_ms: 0, rows, summary, forged: 0 };
        assert_eq!(
            draw(&view, false),
            "chunk 496  4 reported, 1 gap, 2 deep; hop - (p95 -), last - after capture\n  \
             srcsrcsrcs (source)  200 ms after capture\n  \
             ├─ aaaaaaaaaa  +40 ms  [waited 1, way ~20]  240 ms after capture\n  \
             │  └─ bbbbbbbbbb  ≈0 ms (clocks differ by 10 ms or more)  230 ms after capture\n  \
             └─ … 2 that do not report\n     \
             └─ cccccccccc  +400 ms over several hops  600 ms after capture  requested"
        );
        assert!(!draw(&view, false).contains('\u{1b}') && draw(&view, true).contains(SLOW));
    }
}
