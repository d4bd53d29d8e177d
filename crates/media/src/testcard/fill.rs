//! Keeps the stream at its bit rate by the strength of the grain, at a quantiser that never changes.
//!
//! OpenH264's own rate control is not used: it skips frames or misses the rate, and cannot bring a quiet picture up to
//! it. Here the picture itself is the control: more grain costs more bits, and quality stays the same in every frame.

use super::TestCardConfig;
use super::river::GRAIN_MAX;

/// Bits per pixel of 3 Mbit/s at 1280×720 and 30 frames a second, and the quantiser that suits it.
const REFERENCE_BITS_PER_PIXEL: f64 = 0.1085;
const REFERENCE_QP: f64 = 24.0;
/// Steps of the quantiser for each halving of the rate. Measured at 1280×720: what must be drawn (clock, waves,
/// code) then takes a fifth of the bits at 6 Mbit/s and nearly all at 500 kbit/s with a key frame every second.
const QP_PER_HALVING: f64 = 4.5;
const QP_MIN: f64 = 14.0;
const QP_MAX: f64 = 44.0;

/// Below this the grain vanishes in rounding, and could not be multiplied back into sight.
const GRAIN_MIN: f64 = 1.0;
/// Near where the controller settles for any rate, because the quantiser follows the rate.
const GRAIN_FIRST: f64 = 9.0;
/// How much of an error in one frame's size the next frame's grain answers, as an exponent.
const GAIN: f64 = 0.25;
/// Largest error answered, as a factor: one odd frame must not upset the grain.
const ERROR_MAX: f64 = 4.0;
/// Seconds over which bits owed or overdrawn (after a key frame) are made up for.
const SETTLE_SECONDS: f64 = 0.5;
/// Most that is owed or overdrawn, in seconds of the rate; the rest is forgotten.
const DEBT_SECONDS_MAX: f64 = 0.75;

/// The controller.
#[derive(Debug)]
pub(super) struct Fill {
    fps: f64,
    bits_per_frame: f64,
    bits_per_pixel: f64,
    /// Bits that should have been produced and were not; negative when there were too many.
    debt: f64,
    grain: f64,
}

impl Fill {
    pub(super) fn new(config: &TestCardConfig, video_bps: u32) -> Self {
        let fps = f64::from(config.fps);
        let bits_per_frame = f64::from(video_bps) / fps;
        let bits_per_pixel = bits_per_frame / f64::from(config.width * config.height);
        Self { fps, bits_per_frame, bits_per_pixel, debt: 0.0, grain: GRAIN_FIRST }
    }

    /// The quantiser for the whole stream.
    pub(super) fn qp(&self) -> u8 {
        let halvings = (REFERENCE_BITS_PER_PIXEL / self.bits_per_pixel).log2();
        (REFERENCE_QP + QP_PER_HALVING * halvings).round().clamp(QP_MIN, QP_MAX) as u8
    }

    /// Strength of the grain for the next frame.
    pub(super) fn grain(&self) -> f32 {
        self.grain as f32
    }

    /// Takes note of an encoded frame's size.
    pub(super) fn produced(&mut self, bytes: usize, key: bool) {
        let bits = (bytes as f64 * 8.0).max(1.0);
        let debt_max = self.bits_per_frame * self.fps * DEBT_SECONDS_MAX;
        self.debt = (self.debt + self.bits_per_frame - bits).clamp(-debt_max, debt_max);
        if key {
            // Its size says little about the grain: all of the picture was drawn anew.
            return;
        }
        let wanted = self.bits_per_frame + self.debt / (self.fps * SETTLE_SECONDS);
        let error = (wanted / bits).clamp(1.0 / ERROR_MAX, ERROR_MAX);
        self.grain = (self.grain * error.powf(GAIN)).clamp(GRAIN_MIN, f64::from(GRAIN_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An encoder whose frames cost a fixed part and a part that grows with the grain.
    fn settled_rate(fixed: f64, key_every: usize) -> f64 {
        let config = TestCardConfig::default();
        let mut fill = Fill::new(&config, 3_000_000);
        let mut last_seconds = 0.0;
        for frame in 0..600 {
            let key = frame % key_every == 0;
            let bits = if key { 300_000.0 } else { fixed } + 400.0 * f64::from(fill.grain()).powf(1.6);
            fill.produced((bits / 8.0) as usize, key);
            if frame >= 300 {
                last_seconds += bits;
            }
        }
        last_seconds / 10.0
    }

    #[test]
    fn it_settles_at_the_rate() {
        for key_every in [30, 60, 249] {
            let rate = settled_rate(20_000.0, key_every);
            assert!((2_850_000.0..3_150_000.0).contains(&rate), "{rate} with a key frame every {key_every}");
        }
    }

    #[test]
    fn the_quantiser_follows_the_rate() {
        let qp = |bps| Fill::new(&TestCardConfig::default(), bps).qp();
        assert_eq!((qp(3_000_000), qp(12_000_000), qp(750_000)), (24, 15, 33));
        assert_eq!((qp(1_000), qp(u32::MAX)), (44, 14));
    }
}
