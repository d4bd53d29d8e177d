//! Draws a [`Scene`]: what is to be seen, as plain data. Large windows show all of it, small ones what matters most.
//!
//! What strangers wrote (names, reasons, messages) loses its control characters and direction marks in [`text`], through
//! which all words go.

mod figures;
mod peers;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use caudal_node::report::{Gauge, PeerReport};
use caudal_node::viewer::{Playing, State};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::messages::Line;
use text::{put, put_right, rows_of, width, wrap};

/// Seconds of history.
pub(crate) const HISTORY_MAX: usize = 120;
/// Narrower or lower than this, a window shows state and gauge alone.
const WIDTH_MIN: u16 = 36;
const HEIGHT_MIN: u16 = 8;
/// Cells of the buffer gauge.
pub(crate) const GAUGE_CELLS: usize = 10;
/// A full gauge, ms.
const GAUGE_MS: i64 = 1500;
/// Rows of the hint that a state comes with.
const HINT_ROWS_MAX: usize = 4;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const PLAIN: Style = Style::new();

/// Where else the channel can be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) page: String,
    pub(crate) live: String,
    pub(crate) playlist: String,
}

/// What is to be seen.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) title: String,
    pub(crate) addresses: Addresses,
    pub(crate) state: State,
    /// Why, where that is to be said.
    pub(crate) reason: Option<String>,
    /// Since the last part.
    pub(crate) silent: Option<Duration>,
    /// Since the start.
    pub(crate) age: Duration,
    pub(crate) gauge: Gauge,
    /// Which rendition, where the channel has several.
    pub(crate) playing: Option<Playing>,
    pub(crate) chunk_delay_ms: f64,
    pub(crate) offload_ratio: f64,
    /// The own network, where a map names it.
    pub(crate) network: Option<String>,
    /// How much of what is received and sent stays inside it.
    pub(crate) inside: [Option<f64>; 2],
    /// None before anything was due.
    pub(crate) continuity: Option<f64>,
    pub(crate) stalls: u64,
    pub(crate) gaps: u64,
    /// Chunks.
    pub(crate) missing: u64,
    /// Chunks.
    pub(crate) due: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) startup_ms: Option<f64>,
    /// Whoever carries most first.
    pub(crate) peers: Vec<PeerReport>,
    /// What came in, each second of the last two minutes, the newest last.
    pub(crate) received_bps: Vec<u64>,
    /// Messages, the newest last.
    pub(crate) log: Vec<Line>,
}

/// What the keys chose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The first neighbour that is shown.
    pub(crate) first: usize,
    /// How many were shown last.
    pub(crate) shown: usize,
    /// The keys are explained.
    pub(crate) help: bool,
    /// Nothing moves.
    pub(crate) paused: bool,
}

impl Place {
    /// Down, or up.
    pub(crate) fn scroll(&mut self, rows: isize) {
        self.first = self.first.saturating_add_signed(rows);
    }

    /// By what the window shows.
    pub(crate) fn page(&mut self, pages: isize) {
        self.scroll(pages.saturating_mul(self.shown.max(1) as isize));
    }

    /// Of `count` neighbours `shown` fit.
    pub(crate) fn settle(&mut self, count: usize, shown: usize) {
        self.shown = shown;
        self.first = self.first.min(count.saturating_sub(shown));
    }
}

/// What is left of the window.
struct Room(Rect);

impl Room {
    fn top(&mut self, rows: usize) -> Rect {
        let rows = u16::try_from(rows).unwrap_or(u16::MAX).min(self.0.height);
        let top = Rect { height: rows, ..self.0 };
        self.0.y += rows;
        self.0.height -= rows;
        top
    }

    fn bottom(&mut self, rows: usize) -> Rect {
        let rows = u16::try_from(rows).unwrap_or(u16::MAX).min(self.0.height);
        self.0.height -= rows;
        Rect { y: self.0.y + self.0.height, height: rows, ..self.0 }
    }
}

/// Draws all of it. Gives how many neighbours are shown.
pub(crate) fn draw(scene: &Scene, place: Place, buffer: &mut Buffer) -> usize {
    let window = buffer.area;
    if window.is_empty() {
        return 0;
    }
    if window.width < WIDTH_MIN || window.height < HEIGHT_MIN {
        small(scene, buffer);
        return 0;
    }
    let mut room = Room(window);
    bottom_line(scene, place, room.bottom(1), buffer);
    if place.help {
        help(scene, room.0, buffer);
        return 0;
    }
    head(scene, place, &mut room, buffer);
    figures::draw(scene, room.top(figures::rows(scene, window)), buffer);
    if window.height >= 14 {
        addresses(&scene.addresses, room.bottom(2), buffer);
    }
    if window.height >= 16 {
        messages(&scene.log, room.bottom(1 + usize::from(window.height / 5).min(8)), buffer);
    }
    if window.height >= 20 {
        figures::history(&scene.received_bps, room.top(3), buffer);
    }
    peers::draw(scene, place, room.0, buffer)
}

/// The state, and what to do about it.
pub(crate) fn words(scene: &Scene) -> (&'static str, String) {
    let reason = scene.reason.clone().unwrap_or_default();
    match scene.state {
        State::Joining => (
            "Looking for viewers who have it",
            "This takes a second. If it takes longer, the channel may have few viewers.".to_owned(),
        ),
        State::Live => ("Live", String::new()),
        State::Waiting => (
            "The source is silent",
            format!(
                "Nothing new for {} s. The picture comes back by itself when the broadcaster sends again.",
                scene.silent.unwrap_or_default().as_secs()
            ),
        ),
        State::Ended => ("The broadcast has ended", String::new()),
        State::TakenDown => ("Taken down by the tracker's operator", reason),
        State::Unreachable => (
            "Nobody can be reached",
            format!(
                "{} – If it is UDP, try another network, turn a VPN off or on, or allow UDP for Caudal in the firewall; on a \
                 LAN, start with --lan.",
                if reason.is_empty() { "nobody answers" } else { &reason }
            ),
        ),
    }
}

fn colour(state: State) -> Style {
    let colour = match state {
        State::Live => Color::Green,
        State::Joining | State::Waiting => Color::Yellow,
        State::TakenDown | State::Unreachable => Color::Red,
        State::Ended => Color::Reset,
    };
    BOLD.fg(colour)
}

/// State and gauge, as much of them as there is room for.
fn small(scene: &Scene, buffer: &mut Buffer) {
    let mut room = Room(buffer.area);
    if buffer.area.height > 1 {
        gauge(scene, room.bottom(1), buffer);
    }
    let (title, hint) = words(scene);
    let lines = wrap(title, room.0.width);
    let rows = room.top(lines.len());
    rows_of(&lines, rows, colour(scene.state), buffer);
    rows_of(&wrap(&hint, room.0.width), room.0, PLAIN, buffer);
}

fn head(scene: &Scene, place: Place, room: &mut Room, buffer: &mut Buffer) {
    let row = room.top(1);
    let age = if place.paused { "paused; p goes on".to_owned() } else { clock(scene.age) };
    let taken = put_right(&age, row, if place.paused { BOLD } else { DIM }, buffer);
    let left = Rect { width: row.width.saturating_sub(taken + 1), ..row };
    put(&scene.title, left, BOLD, buffer);
    let (title, hint) = words(scene);
    put(&format!("● {title}"), room.top(1), colour(scene.state), buffer);
    let most = if buffer.area.height < 14 { 2 } else { HINT_ROWS_MAX };
    let mut lines = if hint.is_empty() { Vec::new() } else { wrap(&hint, room.0.width) };
    lines.truncate(most);
    let rows = room.top(lines.len());
    rows_of(&lines, rows, PLAIN, buffer);
}

/// `0:42`, `12:03`, `3:00:00`
fn clock(age: Duration) -> String {
    let (hours, minutes, seconds) = (age.as_secs() / 3600, age.as_secs() / 60 % 60, age.as_secs() % 60);
    if hours == 0 { format!("{minutes}:{seconds:02}") } else { format!("{hours}:{minutes:02}:{seconds:02}") }
}

fn addresses(addresses: &Addresses, area: Rect, buffer: &mut Buffer) {
    let mut room = Room(area);
    put(&format!("Page     {}", addresses.page), room.top(1), PLAIN, buffer);
    put(&format!("Players  {}", addresses.live), room.top(1), PLAIN, buffer);
}

fn messages(log: &[Line], area: Rect, buffer: &mut Buffer) {
    let mut room = Room(area);
    put("Messages", room.top(1), DIM.add_modifier(Modifier::UNDERLINED), buffer);
    let height = usize::from(room.0.height);
    let newest = &log[log.len().saturating_sub(height)..];
    let lines: Vec<String> = newest
        .iter()
        .flat_map(|line| wrap(&format!("{}  {}", clock(line.at), line.text), area.width))
        .collect();
    rows_of(&lines[lines.len().saturating_sub(height)..], room.0, PLAIN, buffer);
}

/// The gauge of what is ready: `▓▓▓▓▓▓░░░░ 0.9 s`
pub(crate) fn gauge_text(buffer_ms: i64, cells: usize) -> String {
    let filled = (buffer_ms.clamp(0, GAUGE_MS) * cells as i64 / GAUGE_MS) as usize;
    let cells: String = (0..cells).map(|cell| if cell < filled { '▓' } else { '░' }).collect();
    format!("{cells} {:.1} s", buffer_ms.max(0) as f64 / 1000.0)
}

/// Gives its width.
fn gauge(scene: &Scene, row: Rect, buffer: &mut Buffer) -> u16 {
    let buffer_ms = scene.gauge.buffer_ms;
    let percent = buffer_ms.clamp(0, GAUGE_MS) * 100 / GAUGE_MS;
    let colour = match percent {
        50.. => Color::Green,
        20..50 => Color::Yellow,
        _ => Color::Red,
    };
    let cells = if row.width < WIDTH_MIN { GAUGE_CELLS / 2 } else { GAUGE_CELLS };
    put(&format!("{} {percent} %", gauge_text(buffer_ms, cells)), row, PLAIN.fg(colour), buffer)
}

fn bottom_line(scene: &Scene, place: Place, row: Rect, buffer: &mut Buffer) {
    let taken = gauge(scene, row, buffer);
    let keys = if place.help { "? back  q quit" } else { "q quit  ? help  ↑↓ scroll  p pause" };
    let keys = if taken + 2 + width(keys) > row.width { "q quit ? help" } else { keys };
    if taken + 1 + width(keys) <= row.width {
        put_right(keys, row, DIM, buffer);
    }
}

fn help(scene: &Scene, area: Rect, buffer: &mut Buffer) {
    let addresses = &scene.addresses;
    let lines = [
        "q, Esc, Ctrl-C  quit; the terminal is as it was",
        "↑ ↓ PgUp PgDn   scroll the neighbours",
        "p               pause the view; watching goes on",
        "?, h            this, and back",
        "",
        "Buffer: what is ready beyond what a player 1.5 s behind has played. From viewers: the share that the source did not \
         have to send. Sub in, sub out: the substreams that a neighbour sends to you, and you to it.",
        "",
        "The page, and addresses for players:",
        &addresses.page,
        &addresses.live,
        &addresses.playlist,
    ];
    let lines: Vec<String> = lines.iter().flat_map(|line| wrap(line, area.width)).collect();
    rows_of(&lines, area, PLAIN, buffer);
}
