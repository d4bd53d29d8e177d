//! The picture: what stands where on the card, what stands still, and what is drawn anew for each frame.
//!
//! Laid out for 1280×720 and scaled to the height or width, whichever is tighter. Never encodes.

use std::f32::consts::TAU;

use super::canvas::{Canvas, Color, Mask, Rect};
use super::clock::Clock;
use super::code::{self, Code};
use super::river::River;
use super::text::{Style, Text, Weight};
use super::{CardError, TestCardConfig};

const GROUND: u32 = 0x0C_16_26;
/// The part of the dial not yet filled.
const TRACK: u32 = 0x25_37_50;
const INK: u32 = 0xF4_F7_FB;
const MUTED: u32 = 0x8D_A2_BA;
const ACCENT: u32 = 0x3A_D1_C4;
const LIVE: u32 = 0xF2_5C_5C;

/// EBU 75 % bars, then a grey staircase from white to black.
const BARS: [u32; 8] =
    [0xBF_BF_BF, 0xBF_BF_00, 0x00_BF_BF, 0x00_BF_00, 0xBF_00_BF, 0xBF_00_00, 0x00_00_BF, 0x08_08_08];
const GREYS: [u32; 8] =
    [0xFF_FF_FF, 0xDB_DB_DB, 0xB6_B6_B6, 0x92_92_92, 0x6D_6D_6D, 0x49_49_49, 0x24_24_24, 0x00_00_00];

/// Places, in design pixels of 1280×720.
const MARGIN: f32 = 64.0;
const RIGHT: f32 = 1280.0 - MARGIN;
const CLOCK_BASELINE: f32 = 304.0;
const CLOCK_PX: f32 = 164.0;
const MILLIS_PX: f32 = 54.0;
const DATE_BASELINE: f32 = 362.0;
const DIAL: (f32, f32) = (1094.0, 256.0);
const DIAL_OUTER: f32 = 104.0;
const DIAL_INNER: f32 = 92.0;
const TONE: (f32, f32, f32, f32) = (640.0, 334.0, 120.0, 40.0);
const RIVER_TOP: f32 = 468.0;
const RIVER_BOTTOM: f32 = 640.0;

/// Design coordinates to pixels.
#[derive(Debug, Clone, Copy)]
struct Layout {
    scale: f32,
    left: f32,
    top: f32,
}

impl Layout {
    fn new(width: usize, height: usize) -> Self {
        let scale = (width as f32 / 1280.0).min(height as f32 / 720.0);
        Self {
            scale,
            left: (width as f32 - 1280.0 * scale) / 2.0,
            top: (height as f32 - 720.0 * scale) / 2.0,
        }
    }

    fn x(self, x: f32) -> f32 {
        self.left + x * self.scale
    }

    fn y(self, y: f32) -> f32 {
        self.top + y * self.scale
    }

    fn rect(self, x: f32, y: f32, w: f32, h: f32) -> Rect {
        let (left, top) = (self.x(x).round() as i32, self.y(y).round() as i32);
        let (right, bottom) = (self.x(x + w).round() as i32, self.y(y + h).round() as i32);
        Rect { x: left, y: top, w: right - left, h: bottom - top }
    }

    fn style(self, weight: Weight, px: f32, color: u32) -> Style {
        Style { weight, px: px * self.scale, color: Color::rgb(color), tracking: 0.0 }
    }
}

/// The picture and everything needed to draw the next one.
pub(super) struct Scene {
    layout: Layout,
    text: Text,
    river: River,
    dial: Dial,
    tone: bool,
    fps: u32,
    /// What never changes.
    ground: Canvas,
    canvas: Canvas,
    shown_second: Option<u64>,
}

impl Scene {
    pub(super) fn new(config: &TestCardConfig) -> Result<Self, CardError> {
        let (width, height) = (config.width as usize, config.height as usize);
        let layout = Layout::new(width, height);
        let sky = Color::rgb(GROUND);
        let mut ground = Canvas::new(width, height, sky);
        let mut text = Text::new()?;
        draw_header(&mut ground, &mut text, layout, config);
        draw_bars(&mut ground, layout);
        draw_tone_label(&mut ground, &mut text, layout, config);
        let (cx, cy) = (layout.x(DIAL.0), layout.y(DIAL.1));
        ground.ring((cx, cy), DIAL_INNER * layout.scale, DIAL_OUTER * layout.scale, Color::rgb(TRACK));
        let label = Style { tracking: 3.0 * layout.scale, ..layout.style(Weight::Bold, 17.0, MUTED) };
        let x = cx - text.width("FRAME", label) / 2.0;
        text.draw(&mut ground, "FRAME", label, x, cy - 22.0 * layout.scale);

        // The strip is black and white: neutral chroma lies under it, and each frame writes luma only.
        let [x, y, w, h] = code::area(width, height).map(|v| v as i32);
        ground.rounded(Rect { x, y, w, h }, 0.0, Color::rgb(0));

        let (top, bottom) = (layout.y(RIVER_TOP) as i32 & !1, layout.y(RIVER_BOTTOM) as i32 & !1);
        let river =
            River::new(Rect { x: 0, y: top, w: config.width as i32, h: bottom - top }, layout.scale, sky);
        let dial = Dial::new((cx, cy), DIAL_INNER * layout.scale, DIAL_OUTER * layout.scale);
        let canvas = ground.clone();
        Ok(Self {
            layout,
            text,
            river,
            dial,
            tone: config.audio,
            fps: config.fps,
            ground,
            canvas,
            shown_second: None,
        })
    }

    /// Draws frame `frame` as of `now_unix_us`, with the given strength of grain, and lends it.
    pub(super) fn draw(&mut self, frame: u64, now_unix_us: u64, grain: f32) -> &Canvas {
        let seconds = frame as f64 / f64::from(self.fps);
        self.draw_clock(now_unix_us);
        self.draw_dial(frame, now_unix_us);
        if self.tone {
            self.draw_tone(seconds);
        }
        self.river.draw(&mut self.canvas, seconds, frame, grain);
        let (width, height) = (self.canvas.width, self.canvas.height);
        let code = Code { unix_ms: now_unix_us / 1000, frame: frame as u32 };
        code::draw(&mut self.canvas.y, width, height, width, code);
        &self.canvas
    }

    fn draw_clock(&mut self, now_unix_us: u64) {
        let layout = self.layout;
        let clock = Clock::at(now_unix_us);
        let style = layout.style(Weight::Bold, CLOCK_PX, INK);
        let left = layout.x(MARGIN - 8.0);
        let baseline = layout.y(CLOCK_BASELINE);
        let millis_at = left + self.text.width("00:00:00", style);
        if self.shown_second != Some(clock.second) {
            self.shown_second = Some(clock.second);
            let area = layout.rect(MARGIN - 16.0, CLOCK_BASELINE - 130.0, 700.0, 140.0);
            self.canvas.restore(&self.ground, area);
            self.text.draw(&mut self.canvas, &clock.time(), style, left, baseline);
            self.canvas.restore(&self.ground, layout.rect(MARGIN, DATE_BASELINE - 28.0, 500.0, 40.0));
            let date = layout.style(Weight::Regular, 26.0, MUTED);
            let utc = Style { color: Color::rgb(ACCENT), weight: Weight::Bold, ..date };
            let (x, y) = (layout.x(MARGIN), layout.y(DATE_BASELINE));
            let pen = self.text.draw(&mut self.canvas, "UTC", utc, x, y);
            self.text.draw(&mut self.canvas, &clock.date(), date, pen + 16.0 * layout.scale, y);
        }
        let style = layout.style(Weight::Bold, MILLIS_PX, ACCENT);
        let s = layout.scale;
        let area = Rect {
            x: millis_at.round() as i32 + 2,
            y: (baseline - 46.0 * s) as i32,
            w: (140.0 * s) as i32,
            h: (54.0 * s) as i32,
        };
        self.canvas.restore(&self.ground, area);
        self.text.draw(
            &mut self.canvas,
            &format!(".{:03}", clock.millis),
            style,
            millis_at + 6.0 * s,
            baseline,
        );
    }

    fn draw_dial(&mut self, frame: u64, now_unix_us: u64) {
        self.canvas.restore(&self.ground, self.dial.area());
        self.dial.draw(&mut self.canvas, now_unix_us, Color::rgb(ACCENT), Color::rgb(INK));
        let number = frame.to_string();
        let px = if number.len() > 8 { 24.0 } else { 38.0 };
        let style = self.layout.style(Weight::Bold, px, INK);
        let x = self.layout.x(DIAL.0) - self.text.width(&number, style) / 2.0;
        self.text.draw(&mut self.canvas, &number, style, x, self.layout.y(DIAL.1 + 24.0));
    }

    /// A sine running through its box while there is a tone.
    fn draw_tone(&mut self, seconds: f64) {
        let (x, y, w, h) = TONE;
        let area = self.layout.rect(x, y, w, h);
        self.canvas.restore(&self.ground, area);
        let s = self.layout.scale;
        let phase = (seconds * 1.5).rem_euclid(1.0) as f32;
        let middle = area.y as f32 + area.h as f32 / 2.0;
        let (amplitude, length) = (13.0 * s, 40.0 * s);
        self.canvas.paint(area, Color::rgb(ACCENT), |px, py| {
            let angle = ((px - area.x as f32) / length - phase) * TAU;
            let slope = amplitude * TAU / length * angle.cos();
            let distance = (py - middle - amplitude * angle.sin()).abs() / slope.hypot(1.0);
            let ends = ((px - area.x as f32).min((area.x + area.w) as f32 - px) / (10.0 * s)).min(1.0);
            (1.6 * s + 0.5 - distance).clamp(0.0, 1.0) * ends
        });
    }
}

fn draw_header(ground: &mut Canvas, text: &mut Text, layout: Layout, config: &TestCardConfig) {
    let s = layout.scale;
    let kicker = Style { tracking: 4.0 * s, ..layout.style(Weight::Bold, 18.0, ACCENT) };
    text.draw(ground, "CAUDAL TEST CARD", kicker, layout.x(MARGIN), layout.y(62.0));
    let title = layout.style(Weight::Bold, 54.0, INK);
    let line = text.one_line(&config.title, title, 800.0 * s);
    text.draw(ground, &line, title, layout.x(MARGIN - 3.0), layout.y(126.0));

    let badge = Style { tracking: 2.0 * s, ..layout.style(Weight::Bold, 19.0, INK) };
    let width = text.width("LIVE", badge) / s + 46.0;
    let pill = layout.rect(RIGHT - width, 42.0, width, 34.0);
    ground.rounded(pill, pill.h as f32 / 2.0, Color::rgb(LIVE));
    ground.ring((layout.x(RIGHT - width + 19.0), layout.y(59.0)), 0.0, 5.0 * s, Color::rgb(INK));
    text.draw(ground, "LIVE", badge, layout.x(RIGHT - width + 32.0), layout.y(66.0));

    let facts = layout.style(Weight::Regular, 20.0, MUTED);
    let rate = f64::from(config.bitrate_bps) / 1e6;
    let line = format!("{}×{}  ·  {} fps  ·  {rate:.1} Mbit/s", config.width, config.height, config.fps);
    let x = layout.x(RIGHT) - text.width(&line, facts);
    text.draw(ground, &line, facts, x, layout.y(116.0));
}

fn draw_bars(ground: &mut Canvas, layout: Layout) {
    let (top, height) = (396.0, 50.0);
    for (row, colors) in [BARS, GREYS].iter().enumerate() {
        let (y, h) = if row == 0 { (top, height - 18.0) } else { (top + height - 18.0, 18.0) };
        for (i, &color) in colors.iter().enumerate() {
            let width = (RIGHT - MARGIN) / colors.len() as f32;
            ground.rounded(layout.rect(MARGIN + width * i as f32, y, width, h), 0.0, Color::rgb(color));
        }
    }
}

fn draw_tone_label(ground: &mut Canvas, text: &mut Text, layout: Layout, config: &TestCardConfig) {
    let style = layout.style(Weight::Regular, 26.0, MUTED);
    let (x, _, w, _) = TONE;
    let label = if config.audio { format!("{} Hz", config.tone_hz) } else { "no sound".to_owned() };
    let x = if config.audio { x + w + 14.0 } else { x };
    text.draw(ground, &label, style, layout.x(x), layout.y(DATE_BASELINE));
}

/// A ring that fills during even seconds and empties during odd ones, with a bead at its end.
struct Dial {
    centre: (f32, f32),
    middle: f32,
    bead: f32,
    x: i32,
    y: i32,
    /// The whole ring, and for each of its pixels the angle from twelve o'clock, clockwise, in turns.
    ring: Mask,
    turns: Vec<f32>,
    arc: Mask,
}

impl Dial {
    fn new(centre: (f32, f32), inner: f32, outer: f32) -> Self {
        let reach = outer.ceil() as i32 + 8;
        let (x, y) = (centre.0 as i32 - reach, centre.1 as i32 - reach);
        let side = 2 * reach + 1;
        let (mut coverage, mut turns) = (Vec::new(), Vec::new());
        for row in 0..side {
            for column in 0..side {
                let dx = (x + column) as f32 + 0.5 - centre.0;
                let dy = (y + row) as f32 + 0.5 - centre.1;
                let distance = dx.hypot(dy);
                let value =
                    (outer - distance + 0.5).clamp(0.0, 1.0) * (distance - inner + 0.5).clamp(0.0, 1.0);
                coverage.push((value * 255.0) as u8);
                turns.push((dx.atan2(-dy) / TAU).rem_euclid(1.0));
            }
        }
        let ring = Mask { w: side, h: side, coverage };
        let (middle, bead) = (f32::midpoint(inner, outer), (outer - inner) * 0.8);
        Self { centre, middle, bead, x, y, arc: ring.clone(), ring, turns }
    }

    fn area(&self) -> Rect {
        Rect { x: self.x, y: self.y, w: self.ring.w, h: self.ring.h }
    }

    fn draw(&mut self, canvas: &mut Canvas, now_unix_us: u64, arc: Color, bead: Color) {
        let phase = (now_unix_us % 1_000_000) as f32 / 1e6;
        let fills = (now_unix_us / 1_000_000).is_multiple_of(2);
        let pixels = self.ring.coverage.iter().zip(&self.turns);
        for (out, (&coverage, &turns)) in self.arc.coverage.iter_mut().zip(pixels) {
            *out = if (turns < phase) == fills { coverage } else { 0 };
        }
        canvas.stamp(self.x, self.y, &self.arc, arc);
        let (sin, cos) = (phase * TAU).sin_cos();
        let at = (self.centre.0 + self.middle * sin, self.centre.1 - self.middle * cos);
        canvas.ring(at, 0.0, self.bead, bead);
    }
}
