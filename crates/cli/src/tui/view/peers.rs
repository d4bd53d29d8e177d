//! The table of neighbours.

use caudal_node::report::PeerReport;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::text::{put, put_right, width};
use super::{DIM, PLAIN, Place, Room, Scene};

/// As much of an id as tells peers apart, characters.
const ID_CHARS: usize = 8;
/// From this width on, substreams are named; below they are left out.
const WIDE: u16 = 72;
/// Columns: their names and widths, all right of the name.
const COLUMNS: [(&str, u16); 3] = [("in bit/s", 10), ("out bit/s", 10), ("RTT ms", 7)];
const SUBSTREAMS: u16 = 14;

/// `2.10 M`, `64 k`, `0`
fn short_rate(bps: u64) -> String {
    match bps {
        1_000_000.. => format!("{:.2} M", bps as f64 / 1e6),
        1_000.. => format!("{:.0} k", bps as f64 / 1e3),
        _ => bps.to_string(),
    }
}

/// `0 3 5`, or how many where they do not fit.
fn substreams(numbers: &[u8]) -> String {
    let list = numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
    if width(&list) < SUBSTREAMS { list } else { format!("{} of them", numbers.len()) }
}

fn name(peer: &PeerReport, is_wide: bool) -> String {
    let id: String = peer.peer.chars().take(ID_CHARS).collect();
    match (peer.source, is_wide) {
        (true, true) => format!("{id} source"),
        (true, false) => "source".to_owned(),
        (false, _) => id,
    }
}

fn line(cells: [&str; 6], is_wide: bool, row: Rect, style: Style, buffer: &mut Buffer) {
    let [name, numbers @ .., sub_in, sub_out] = cells;
    let mut x = if is_wide { ID_CHARS as u16 + 8 } else { ID_CHARS as u16 + 1 };
    put(name, Rect { width: x.min(row.width), ..row }, style, buffer);
    for (text, (_, cells)) in numbers.into_iter().zip(COLUMNS) {
        let cell = Rect { x: row.x + x, width: cells.min(row.width.saturating_sub(x)), ..row };
        put_right(text, cell, style, buffer);
        x += cells;
    }
    if is_wide {
        for text in [sub_in, sub_out] {
            let cell =
                Rect { x: row.x + x + 2, width: row.width.saturating_sub(x + 2).min(SUBSTREAMS), ..row };
            put(text, cell, style, buffer);
            x += SUBSTREAMS;
        }
    }
}

/// Gives how many are shown.
pub(super) fn draw(scene: &Scene, place: Place, area: Rect, buffer: &mut Buffer) -> usize {
    let mut room = Room(area);
    let peers = &scene.peers;
    let senders = peers.iter().filter(|peer| peer.parent_in > 0).count();
    let receivers = peers.iter().filter(|peer| peer.child_in > 0).count();
    let title = room.top(1);
    let is_wide = area.width >= WIDE;
    let shown = usize::from(room.0.height.saturating_sub(1)).min(peers.len());
    let first = place.first.min(peers.len() - shown);
    let range = match peers.len() {
        0 => String::new(),
        all if shown < all && shown > 0 => format!("{}–{} of {all}", first + 1, first + shown),
        all => all.to_string(),
    };
    let taken = put_right(&range, title, DIM, buffer);
    let left = Rect { width: title.width.saturating_sub(taken + 1), ..title };
    put(&format!("{senders} send to you, you send to {receivers}"), left, PLAIN, buffer);
    let header = room.top(1);
    if peers.is_empty() {
        put("Nobody yet.", header, DIM, buffer);
        return 0;
    }
    let [input, output, rtt] = COLUMNS.map(|column| column.0);
    let style = DIM.add_modifier(Modifier::UNDERLINED);
    line(["neighbour", input, output, rtt, "sub in", "sub out"], is_wide, header, style, buffer);
    for (row, peer) in room.0.rows().zip(&peers[first..]) {
        let style = if peer.source { PLAIN.fg(Color::Cyan) } else { PLAIN };
        let cells = [
            &name(peer, is_wide),
            &short_rate(peer.rate_in_bps),
            &short_rate(peer.rate_out_bps),
            &format!("{:.0}", peer.rtt_ms),
            &substreams(&peer.substreams_in),
            &substreams(&peer.substreams_out),
        ];
        line(cells.map(String::as_str), is_wide, row, style, buffer);
    }
    shown
}
