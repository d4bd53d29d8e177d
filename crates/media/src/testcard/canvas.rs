//! An I420 picture and the few ways the card paints on it: flat colours through coverage masks.
//!
//! Works in Y'CbCr of ITU-R BT.709, limited range, so that no frame is converted. Never knows what it draws.

use openh264::formats::YUVSource;

/// A colour as it is stored: Y', Cb, Cr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Color {
    pub(super) y: u8,
    pub(super) cb: u8,
    pub(super) cr: u8,
}

impl Color {
    /// From `0xRRGGBB` (gamma-encoded, full range), by BT.709's matrix.
    pub(super) fn rgb(hex: u32) -> Self {
        let [_, r, g, b] = hex.to_be_bytes().map(|v| f32::from(v) / 255.0);
        let luma = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let byte = |v: f32| v.round().clamp(0.0, 255.0) as u8;
        Self {
            y: byte(16.0 + 219.0 * luma),
            cb: byte(128.0 + 224.0 * (b - luma) / 1.8556),
            cr: byte(128.0 + 224.0 * (r - luma) / 1.5748),
        }
    }
}

/// A rectangle in whole pixels; may reach beyond the picture, where nothing is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) w: i32,
    pub(super) h: i32,
}

/// An 8-bit coverage mask of `w` columns, row by row.
#[derive(Debug, Clone)]
pub(super) struct Mask {
    pub(super) w: i32,
    pub(super) h: i32,
    pub(super) coverage: Vec<u8>,
}

impl Mask {
    fn at(&self, x: i32, y: i32) -> u16 {
        if x < 0 || y < 0 || x >= self.w || y >= self.h {
            return 0;
        }
        u16::from(self.coverage[(y * self.w + x) as usize])
    }
}

/// One picture: planar Y', Cb, Cr, 4:2:0, both sides even, no padding.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) y: Vec<u8>,
    pub(super) cb: Vec<u8>,
    pub(super) cr: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize, color: Color) -> Self {
        let chroma = width / 2 * (height / 2);
        Self {
            width,
            height,
            y: vec![color.y; width * height],
            cb: vec![color.cb; chroma],
            cr: vec![color.cr; chroma],
        }
    }

    /// Paints `color` where `coverage` (from 0 to 1, asked at pixel centres) says so.
    pub(super) fn paint(&mut self, area: Rect, color: Color, coverage: impl Fn(f32, f32) -> f32) {
        let mut mask = Vec::with_capacity((area.w.max(0) * area.h.max(0)) as usize);
        for y in area.y..area.y + area.h {
            for x in area.x..area.x + area.w {
                let value = coverage(x as f32 + 0.5, y as f32 + 0.5);
                mask.push((value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
            }
        }
        self.stamp(area.x, area.y, &Mask { w: area.w.max(0), h: area.h.max(0), coverage: mask }, color);
    }

    /// Paints `color` through a mask whose upper left corner is at (`x`, `y`).
    pub(super) fn stamp(&mut self, x: i32, y: i32, mask: &Mask, color: Color) {
        let (width, height) = (self.width as i32, self.height as i32);
        let (left, right) = (x.max(0), (x + mask.w).min(width));
        let (top, bottom) = (y.max(0), (y + mask.h).min(height));
        for row in top..bottom {
            for column in left..right {
                let coverage = mask.at(column - x, row - y);
                if coverage > 0 {
                    blend(&mut self.y[(row * width + column) as usize], color.y, coverage * 4);
                }
            }
        }
        // A chroma sample is covered as much as its four pixels are on average.
        for row in top / 2..(bottom + 1) / 2 {
            for column in left / 2..(right + 1) / 2 {
                let (mx, my) = (column * 2 - x, row * 2 - y);
                let coverage =
                    mask.at(mx, my) + mask.at(mx + 1, my) + mask.at(mx, my + 1) + mask.at(mx + 1, my + 1);
                if coverage > 0 {
                    let i = (row * (width / 2) + column) as usize;
                    blend(&mut self.cb[i], color.cb, coverage);
                    blend(&mut self.cr[i], color.cr, coverage);
                }
            }
        }
    }

    /// A rectangle with rounded corners.
    pub(super) fn rounded(&mut self, area: Rect, radius: f32, color: Color) {
        let (half_w, half_h) = (area.w as f32 / 2.0, area.h as f32 / 2.0);
        let (cx, cy) = (area.x as f32 + half_w, area.y as f32 + half_h);
        self.paint(area, color, |x, y| {
            let dx = (x - cx).abs() - half_w + radius;
            let dy = (y - cy).abs() - half_h + radius;
            let distance = dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius;
            0.5 - distance
        });
    }

    /// A ring (a disc when `inner` is 0) around (`cx`, `cy`).
    pub(super) fn ring(&mut self, (cx, cy): (f32, f32), inner: f32, outer: f32, color: Color) {
        let reach = outer.ceil() as i32 + 1;
        let area = Rect { x: cx as i32 - reach, y: cy as i32 - reach, w: 2 * reach + 1, h: 2 * reach + 1 };
        self.paint(area, color, |x, y| {
            let distance = (x - cx).hypot(y - cy);
            let hole = if inner > 0.0 { (distance - inner + 0.5).clamp(0.0, 1.0) } else { 1.0 };
            (outer - distance + 0.5).clamp(0.0, 1.0) * hole
        });
    }

    /// Takes `area`, widened to even coordinates, from a picture of the same size.
    pub(super) fn restore(&mut self, from: &Canvas, area: Rect) {
        let left = (area.x.max(0) & !1) as usize;
        let top = (area.y.max(0) & !1) as usize;
        let right = ((area.x + area.w + 1).max(0) as usize & !1).min(self.width);
        let bottom = ((area.y + area.h + 1).max(0) as usize & !1).min(self.height);
        if left >= right || top >= bottom {
            return;
        }
        for row in top..bottom {
            let span = row * self.width + left..row * self.width + right;
            self.y[span.clone()].copy_from_slice(&from.y[span]);
        }
        for row in top / 2..bottom / 2 {
            let start = row * (self.width / 2);
            let span = start + left / 2..start + right / 2;
            self.cb[span.clone()].copy_from_slice(&from.cb[span.clone()]);
            self.cr[span.clone()].copy_from_slice(&from.cr[span]);
        }
    }
}

/// Moves `under` towards `over` by `coverage` of 1020 (four times 255).
fn blend(under: &mut u8, over: u8, coverage: u16) {
    let (from, to) = (i32::from(*under), i32::from(over));
    *under = (from + ((to - from) * i32::from(coverage) + 510 * (to - from).signum()) / 1020) as u8;
}

impl YUVSource for Canvas {
    fn dimensions(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.width, self.width / 2, self.width / 2)
    }

    fn y(&self) -> &[u8] {
        &self.y
    }

    fn u(&self) -> &[u8] {
        &self.cb
    }

    fn v(&self) -> &[u8] {
        &self.cr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_limited_range_bt709() {
        assert_eq!(Color::rgb(0x000000), Color { y: 16, cb: 128, cr: 128 });
        assert_eq!(Color::rgb(0xFFFFFF), Color { y: 235, cb: 128, cr: 128 });
        assert_eq!(Color::rgb(0xFF0000), Color { y: 63, cb: 102, cr: 240 });
        assert_eq!(Color::rgb(0x0000FF), Color { y: 32, cb: 240, cr: 118 });
    }

    #[test]
    fn full_coverage_is_the_colour_and_none_is_the_ground() {
        let (ground, ink) = (Color::rgb(0x102030), Color::rgb(0xFFEEAA));
        let mut canvas = Canvas::new(64, 64, ground);
        canvas.rounded(Rect { x: 8, y: 8, w: 32, h: 32 }, 4.0, ink);
        let at = |x: usize, y: usize| (canvas.y[y * 64 + x], canvas.cb[y / 2 * 32 + x / 2]);
        assert_eq!(at(24, 24), (ink.y, ink.cb));
        assert_eq!(at(50, 50), (ground.y, ground.cb));
        assert_eq!(at(8, 8).0, ground.y, "the corner is rounded away");
    }

    #[test]
    fn shapes_beyond_the_border_are_cut_and_restored() {
        let ground = Canvas::new(64, 64, Color::rgb(0x102030));
        let mut canvas = ground.clone();
        let area = Rect { x: -20, y: 40, w: 200, h: 100 };
        canvas.rounded(area, 8.0, Color::rgb(0xFFFFFF));
        assert_ne!(canvas.y, ground.y);
        canvas.restore(&ground, area);
        assert_eq!((canvas.y, canvas.cb, canvas.cr), (ground.y, ground.cb, ground.cr));
    }
}
