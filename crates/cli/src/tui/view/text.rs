//! Words into cells: every text goes through here, and leaves behind what could lie about it or move the cursor.

use caudal_tracker::text::is_plain;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Span;

/// Cells that `text` takes.
pub(super) fn width(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| is_plain(*c)).collect()
}

/// `text` in at most `cells`; what does not fit ends in `…`.
fn fit(text: &str, cells: u16) -> String {
    let mut text = plain(text);
    if width(&text) <= cells {
        return text;
    }
    while width(&text) >= cells && text.pop().is_some() {}
    if cells > 0 {
        text.push('…');
    }
    text
}

/// Writes one row. Gives the cells that it took.
pub(super) fn put(text: &str, row: Rect, style: Style, buffer: &mut Buffer) -> u16 {
    if row.is_empty() {
        return 0;
    }
    let text = fit(text, row.width);
    buffer.set_stringn(row.x, row.y, &text, usize::from(row.width), style);
    width(&text)
}

/// Writes one row that ends at the right.
pub(super) fn put_right(text: &str, row: Rect, style: Style, buffer: &mut Buffer) -> u16 {
    let text = fit(text, row.width);
    let free = row.width - width(&text).min(row.width);
    put(&text, Rect { x: row.x + free, width: row.width - free, ..row }, style, buffer)
}

/// Writes as many of `lines` as there are rows.
pub(super) fn rows_of(lines: &[String], area: Rect, style: Style, buffer: &mut Buffer) {
    for (row, line) in area.rows().zip(lines) {
        put(line, row, style, buffer);
    }
}

/// `text` in lines of at most `cells`, broken between words where that can be.
pub(super) fn wrap(text: &str, cells: u16) -> Vec<String> {
    let text = plain(text);
    if cells == 0 || text.is_empty() {
        return if text.is_empty() { vec![String::new(); usize::from(cells > 0)] } else { Vec::new() };
    }
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let last = lines.last().map_or(0, |line| width(line));
        if last > 0 && last + width(word.trim_end()) > cells {
            lines.push(String::new());
        }
        for c in word.chars() {
            let mut utf8 = [0; 4];
            let full = lines.last().is_some_and(|line| width(line) + width(c.encode_utf8(&mut utf8)) > cells);
            if full && c == ' ' {
                continue;
            }
            if full {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(c);
            }
        }
    }
    lines
}
