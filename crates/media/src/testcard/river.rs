//! The moving water of the card: waves that show motion, and grain that gives the encoder something to spend bits on.
//!
//! A still card would compress to almost nothing, and a benchmark fed with it would measure nothing. The grain is new
//! in every frame, so no motion search predicts it; its strength is set from outside. Same frame, same picture.

use std::f32::consts::TAU;

use super::canvas::{Canvas, Color, Rect};

/// Strongest grain; [`River::draw`] takes 0 (none) to this.
pub(super) const GRAIN_MAX: f32 = 255.0;
/// Length of the noise table; rows start anywhere in it.
const NOISE_LEN: usize = 1 << 16;
/// Colours from the far bank to the near one, each in front of the one before.
const LAYERS: [u32; 4] = [0x2F_B5_AE, 0x1F_8F_A3, 0x18_6C_8C, 0x13_4D_72];

/// One wave train, in design pixels: rest level below the area's top, two sines (amplitude, wave length) that travel
/// together, pixels a second.
struct Wave {
    rest: f32,
    swell: (f32, f32),
    ripple: (f32, f32),
    speed: f32,
}

/// The nearer, the larger and the faster. At 30 frames a second each moves by whole pixels, which an encoder predicts
/// for next to nothing: the bits are left to the grain, which is under control.
const WAVES: [Wave; LAYERS.len()] = [
    Wave { rest: 22.0, swell: (9.0, 410.0), ripple: (3.0, 133.0), speed: 30.0 },
    Wave { rest: 52.0, swell: (11.0, 530.0), ripple: (4.0, 171.0), speed: 60.0 },
    Wave { rest: 88.0, swell: (13.0, 640.0), ripple: (4.0, 197.0), speed: 90.0 },
    Wave { rest: 128.0, swell: (14.0, 850.0), ripple: (5.0, 233.0), speed: 120.0 },
];

/// The water's table and place. Covers the whole width of the picture.
pub(super) struct River {
    area: Rect,
    scale: f32,
    sky: Color,
    layers: [Color; LAYERS.len()],
    noise: Vec<i8>,
    /// The table at the strength of this frame, and one row more, so that a row may start anywhere.
    grain: Vec<i16>,
    /// Where each layer begins in each column, in 1/256 pixel below the area's top.
    crests: Vec<[i32; LAYERS.len()]>,
    /// Layers passed so far in each column, while drawing downwards.
    depth: Vec<u8>,
}

impl River {
    /// `area` must lie inside the picture, span its width and have even coordinates; `sky` is what lies above it.
    pub(super) fn new(area: Rect, scale: f32, sky: Color) -> Self {
        let columns = area.w.max(0) as usize;
        Self {
            area,
            scale,
            sky,
            layers: LAYERS.map(Color::rgb),
            noise: noise_table(),
            grain: vec![0; NOISE_LEN + columns],
            crests: vec![[0; LAYERS.len()]; columns],
            depth: vec![0; columns],
        }
    }

    /// Draws the water `seconds` after the start, with grain drawn from `seed`.
    pub(super) fn draw(&mut self, canvas: &mut Canvas, seconds: f64, seed: u64, grain: f32) {
        self.find_crests(seconds);
        self.depth.fill(0);
        let strength = (grain.clamp(0.0, GRAIN_MAX) * 16.0) as i32;
        for (out, &noise) in self.grain.iter_mut().zip(self.noise.iter().cycle()) {
            *out = (i32::from(noise) * strength / 2048) as i16;
        }
        let mut random = Random(seed);
        for row in 0..self.area.h {
            self.draw_row(canvas, row, random.next() as usize % NOISE_LEN);
            if row % 2 == 0 {
                self.draw_chroma_row(canvas, row);
            }
        }
    }

    fn find_crests(&mut self, seconds: f64) {
        for (column, crests) in self.crests.iter_mut().enumerate() {
            let x = column as f64 / f64::from(self.scale);
            let mut above = 0;
            for (crest, wave) in crests.iter_mut().zip(&WAVES) {
                let along = x - f64::from(wave.speed) * seconds;
                let sine = |(amplitude, length): (f32, f32)| {
                    let turns = (along / f64::from(length)).rem_euclid(1.0);
                    amplitude * (turns as f32 * TAU).sin()
                };
                let height = (wave.rest + sine(wave.swell) + sine(wave.ripple)) * self.scale;
                above = ((height * 256.0) as i32).max(above);
                *crest = above;
            }
        }
    }

    fn draw_row(&mut self, canvas: &mut Canvas, row: i32, start: usize) {
        let first = (self.area.y + row) as usize * canvas.width;
        let pixels = &mut canvas.y[first..first + self.crests.len()];
        let top = row * 256;
        let columns = self.crests.iter().zip(&mut self.depth).zip(&self.grain[start..]);
        for (pixel, ((crests, depth), &grain)) in pixels.iter_mut().zip(columns) {
            let mut layer = usize::from(*depth);
            while layer < LAYERS.len() && crests[layer] <= top {
                layer += 1;
            }
            *depth = layer as u8;
            let mut luma = i32::from(if layer == 0 { self.sky.y } else { self.layers[layer - 1].y });
            if layer < LAYERS.len() && crests[layer] < top + 256 {
                let covered = top + 256 - crests[layer];
                luma += (i32::from(self.layers[layer].y) - luma) * covered / 256;
            }
            if layer > 0 {
                luma += i32::from(grain);
            }
            *pixel = luma.clamp(16, 235) as u8;
        }
    }

    /// The chroma of this row and the next, which one sample stands for.
    fn draw_chroma_row(&self, canvas: &mut Canvas, row: i32) {
        let first = (self.area.y + row) as usize / 2 * (canvas.width / 2);
        let bottom = (row + 2) * 256;
        let columns = self.crests.iter().zip(&self.depth).step_by(2);
        for (i, (crests, depth)) in columns.enumerate() {
            let layer = usize::from(*depth);
            let under = if layer == 0 { self.sky } else { self.layers[layer - 1] };
            let (mut cb, mut cr) = (i32::from(under.cb), i32::from(under.cr));
            for (crest, over) in
                crests.iter().zip(&self.layers).skip(layer).take_while(|(crest, _)| **crest < bottom)
            {
                let covered = (bottom - crest).min(512);
                cb += (i32::from(over.cb) - cb) * covered / 512;
                cr += (i32::from(over.cr) - cr) * covered / 512;
            }
            canvas.cb[first + i] = cb as u8;
            canvas.cr[first + i] = cr as u8;
        }
    }
}

/// Noise smeared along the row, so that it glitters like water and not like a detuned receiver.
fn noise_table() -> Vec<i8> {
    let mut random = Random(0x00CA_0DA1);
    let raw: Vec<i32> = (0..NOISE_LEN).map(|_| (random.next() >> 56) as i32 - 128).collect();
    (0..NOISE_LEN)
        .map(|i| {
            let sum: i32 = (0..4).map(|k| raw[(i + k) % NOISE_LEN]).sum();
            (sum / 3).clamp(-127, 127) as i8
        })
        .collect()
}

/// SplitMix64: enough for grain, repeatable from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seconds: f64, seed: u64, grain: f32) -> Canvas {
        let sky = Color::rgb(0x101820);
        let mut canvas = Canvas::new(640, 160, sky);
        River::new(Rect { x: 0, y: 0, w: 640, h: 160 }, 1.0, sky).draw(&mut canvas, seconds, seed, grain);
        canvas
    }

    #[test]
    fn the_same_frame_is_the_same_picture_and_another_is_not() {
        assert_eq!(drawn(1.0, 30, 20.0).y, drawn(1.0, 30, 20.0).y);
        assert_ne!(drawn(1.0, 30, 20.0).y, drawn(1.0, 31, 20.0).y, "grain is new in every frame");
        assert_ne!(drawn(1.0, 30, 0.0).y, drawn(1.5, 30, 0.0).y, "waves move");
    }

    #[test]
    fn luma_stays_in_the_limited_range_and_the_sky_stays_clean() {
        let canvas = drawn(1e9, u64::MAX, 1e9);
        assert!(canvas.y.iter().all(|p| (16..=235).contains(p)));
        assert!(canvas.y[..640].iter().all(|&p| p == Color::rgb(0x101820).y));
    }
}
