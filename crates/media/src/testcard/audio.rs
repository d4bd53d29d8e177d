//! A continuous sine as AAC-LC: 48 kHz, two channels, one access unit per 1024 samples.
//!
//! Never looks at a clock: time is the number of samples. The encoder's transform delays the sound by one access
//! unit (21 ms), which a steady tone does not show.

use bytes::Bytes;
use std::f64::consts::TAU;

use super::CardError;

/// Samples a second, and the timescale of the track.
pub(super) const SAMPLE_RATE: u32 = 48_000;
/// Samples of an access unit (ISO/IEC 14496-3, AAC-LC).
pub(super) const FRAME_SAMPLES: u64 = 1024;
pub(super) const CHANNELS: u16 = 2;
/// What the tone takes from the card's bit rate.
pub(super) const BITRATE_BPS: u32 = 64_000;
/// −18 dBFS, the EBU's alignment level (R 68).
const AMPLITUDE: f64 = 0.125_892_541;

/// The tone and its encoder.
pub(super) struct Tone {
    encoder: syom::Encoder,
    turns_per_sample: f64,
    turns: f64,
    block: Vec<f32>,
}

impl Tone {
    pub(super) fn new(hz: u32) -> Result<Self, CardError> {
        let options = syom::EncodeOptions::raw().with_bitrate_bps(BITRATE_BPS);
        let encoder = syom::Encoder::new(SAMPLE_RATE, usize::from(CHANNELS), &options)
            .map_err(|e| CardError::Audio(e.to_string()))?;
        let turns_per_sample = f64::from(hz) / f64::from(SAMPLE_RATE);
        Ok(Self { encoder, turns_per_sample, turns: 0.0, block: vec![0.0; FRAME_SAMPLES as usize] })
    }

    /// The `AudioSpecificConfig`.
    pub(super) fn config(&self) -> Bytes {
        Bytes::copy_from_slice(self.encoder.asc())
    }

    /// The next access unit.
    pub(super) fn encode(&mut self) -> Result<Bytes, CardError> {
        for sample in &mut self.block {
            *sample = (AMPLITUDE * (self.turns * TAU).sin()) as f32;
            self.turns = (self.turns + self.turns_per_sample).fract();
        }
        let mut unit = Bytes::new();
        self.encoder
            .feed(&[&self.block, &self.block], |frame| {
                unit = Bytes::copy_from_slice(frame.payload);
                Ok(())
            })
            .map_err(|e| CardError::Audio(e.to_string()))?;
        if unit.is_empty() {
            return Err(CardError::Audio("no access unit for a full block of samples".to_owned()));
        }
        Ok(unit)
    }
}
