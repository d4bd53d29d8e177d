//! What was measured: figures that flow into rows, and the last two minutes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::symbols::bar;

use super::text::{put, width};
use super::{DIM, HISTORY_MAX, PLAIN, Scene};

/// The rendition's place in the list: small windows have it, too.
const RENDITION_AT: usize = 2;
/// Between one figure and the next.
const SPACE: u16 = 3;

/// `2.1 Mbit/s`, `64 kbit/s`
fn rate(bps: u64) -> String {
    if bps >= 1_000_000 {
        format!("{:.1} Mbit/s", bps as f64 / 1e6)
    } else {
        format!("{:.0} kbit/s", bps as f64 / 1e3)
    }
}

fn percent(ratio: f64) -> String {
    // 99.96 % is not all of it.
    format!("{} %", (ratio * 1000.0).floor() / 10.0)
}

/// What matters most first: small windows show only the beginning.
fn list(scene: &Scene) -> Vec<(&'static str, String)> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    let gauge = &scene.gauge;
    let seconds = |ms: f64| format!("{:.1} s", ms / 1000.0);
    let mut list = vec![
        ("Behind the source", or_none(gauge.edge_behind_ms.map(|ms| seconds(ms as f64)))),
        ("From viewers", percent(scene.offload_ratio)),
        ("In", rate(gauge.rate_in_bps)),
        ("Out", rate(gauge.rate_out_bps)),
        ("In time", or_none(scene.continuity.map(percent))),
        ("Missing", format!("{} of {} chunks", scene.missing, scene.due)),
        ("Standstills", scene.stalls.to_string()),
        ("Holes", scene.gaps.to_string()),
        ("Chunk delay", or_none((scene.due > 0).then(|| format!("{:.0} ms", scene.chunk_delay_ms)))),
        ("Stream", rate(gauge.rate_bps)),
        ("Startup", or_none(scene.startup_ms.map(|ms| format!("{ms:.0} ms")))),
        ("Received", format!("{:.1} MB", scene.received_bytes as f64 / 1e6)),
        ("Sent", format!("{:.1} MB", scene.sent_bytes as f64 / 1e6)),
    ];
    if let Some(playing) = &scene.playing {
        let how = if playing.is_auto { "auto" } else { "by hand" };
        list.insert(RENDITION_AT, ("Rendition", format!("{playing} of {}, {how}", playing.count)));
    }
    if let Some(network) = &scene.network {
        let [received, sent] = scene.inside.map(|share| or_none(share.map(percent)));
        list.push(("Your network", network.clone()));
        list.push(("Received inside it", received));
        list.push(("Sent inside it", sent));
    }
    list
}

/// Where each figure goes: row and column.
fn places(scene: &Scene, cells: u16) -> Vec<(u16, u16, &'static str, String)> {
    let (mut row, mut column, mut placed) = (0, 0, Vec::new());
    for (name, value) in list(scene) {
        let len = width(name) + 1 + width(&value);
        if column > 0 && column + len > cells {
            (row, column) = (row + 1, 0);
        }
        placed.push((row, column, name, value));
        column += len + SPACE;
    }
    placed
}

/// How many rows they get in `window`.
pub(super) fn rows(scene: &Scene, window: Rect) -> usize {
    let most = match window.height {
        ..12 => 2,
        12..18 => 3,
        _ => 6,
    };
    places(scene, window.width).last().map_or(0, |last| usize::from(last.0) + 1).min(most)
}

pub(super) fn draw(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    for (row, column, name, value) in places(scene, area.width) {
        if row >= area.height {
            break;
        }
        let cell = Rect { x: area.x + column, y: area.y + row, width: area.width - column, height: 1 };
        let taken = put(&format!("{name} "), cell, DIM, buffer);
        put(&value, Rect { x: cell.x + taken, width: cell.width - taken, ..cell }, PLAIN, buffer);
    }
}

/// One value for each of `columns`: the largest of the seconds that it stands for. The newest is at the right.
pub(super) fn columns(history: &[u64], columns: usize) -> Vec<Option<u64>> {
    let columns = columns.min(HISTORY_MAX);
    let history = &history[history.len().saturating_sub(HISTORY_MAX)..];
    let before = HISTORY_MAX - history.len();
    let of = |column: usize| {
        let (from, to) = (column * HISTORY_MAX / columns, (column + 1) * HISTORY_MAX / columns);
        history.get(from.saturating_sub(before)..to.saturating_sub(before))?.iter().copied().max()
    };
    (0..columns).map(of).collect()
}

/// What came in over the last two minutes, as bars over all rows but the first.
pub(super) fn history(received_bps: &[u64], area: Rect, buffer: &mut Buffer) {
    let columns = columns(received_bps, usize::from(area.width));
    let most = columns.iter().flatten().copied().max().unwrap_or(0);
    let label = format!("Received in the last two minutes, at most {}", rate(most));
    put(&label, area, DIM, buffer);
    let rows = u64::from(area.height.saturating_sub(1));
    for (x, value) in (area.x..).zip(&columns) {
        // Eighths of a cell.
        let mut left = value.unwrap_or(0) * rows * 8 / most.max(1);
        for y in (area.y + 1..area.bottom()).rev() {
            let cell = Rect { x, y, width: 1, height: 1 };
            put(BARS[left.min(8) as usize], cell, PLAIN.fg(Color::Cyan), buffer);
            left = left.saturating_sub(8);
        }
    }
}

const BARS: [&str; 9] = [
    " ",
    bar::ONE_EIGHTH,
    bar::ONE_QUARTER,
    bar::THREE_EIGHTHS,
    bar::HALF,
    bar::FIVE_EIGHTHS,
    bar::THREE_QUARTERS,
    bar::SEVEN_EIGHTHS,
    bar::FULL,
];
