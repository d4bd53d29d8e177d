//! H.264 from OpenH264: pictures in, length-prefixed access units and the decoder configuration out.
//!
//! One thread, no B-frames, no skipped frames, key frames only where asked for. Parameter sets travel in the
//! `AVCDecoderConfigurationRecord` alone (ISO/IEC 14496-15, 5.3.3), as `avc1` wants it.

use bytes::{BufMut, Bytes, BytesMut};
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, QpRange, RateControlMode,
    SpsPpsStrategy, UsageType, VuiConfig,
};
use openh264::{OpenH264API, Timestamp};

use super::CardError;
use super::canvas::Canvas;

/// `nal_unit_type` of ITU-T H.264, table 7-1.
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;

/// One encoded picture.
pub(super) struct Encoded {
    /// NAL units, each after its length in four bytes.
    pub(super) data: Bytes,
    /// Whether it is an IDR picture.
    pub(super) key: bool,
}

/// The encoder and the parameter sets it last wrote.
pub(super) struct Video {
    encoder: Encoder,
    started: bool,
    sps: Bytes,
    pps: Bytes,
}

impl Video {
    /// `bitrate_bps` only chooses the level; the quantiser is `qp` throughout.
    pub(super) fn new(fps: u32, bitrate_bps: u32, qp: u8) -> Result<Self, CardError> {
        // The buffer-based mode moves the quantiser within its range and touches nothing else: a range of one value
        // fixes it, and no frame is ever skipped.
        let config = EncoderConfig::new()
            .usage_type(UsageType::CameraVideoRealTime)
            .rate_control_mode(RateControlMode::Bufferbased)
            .bitrate(BitRate::from_bps(bitrate_bps))
            .max_frame_rate(FrameRate::from_hz(fps as f32))
            .skip_frames(false)
            .num_threads(1)
            .complexity(Complexity::Low)
            .qp(QpRange::new(qp, qp))
            .sps_pps_strategy(SpsPpsStrategy::ConstantId)
            .scene_change_detect(false)
            .background_detection(false)
            .adaptive_quantization(false)
            .vui(VuiConfig::bt709());
        let encoder =
            Encoder::with_api_config(OpenH264API::from_source(), config).map_err(CardError::Video)?;
        Ok(Self { encoder, started: false, sps: Bytes::new(), pps: Bytes::new() })
    }

    /// Encodes one picture; the first one is a key frame whether asked for or not.
    pub(super) fn encode(&mut self, picture: &Canvas, key: bool, at_ms: u64) -> Result<Encoded, CardError> {
        if key && self.started {
            self.encoder.force_intra_frame();
        }
        let at = Timestamp::from_millis(at_ms.min(i64::MAX as u64));
        let stream = self.encoder.encode_at(picture, at).map_err(CardError::Video)?;
        self.started = true;
        let key = stream.frame_type() == FrameType::IDR;
        let mut data = BytesMut::new();
        for layer in (0..stream.num_layers()).filter_map(|i| stream.layer(i)) {
            for unit in (0..layer.nal_count()).filter_map(|i| layer.nal_unit(i)) {
                let nal = without_start_code(unit);
                match nal.first().map(|header| header & 0x1F) {
                    Some(NAL_SPS) if self.sps != nal => self.sps = Bytes::copy_from_slice(nal),
                    Some(NAL_PPS) if self.pps != nal => self.pps = Bytes::copy_from_slice(nal),
                    None | Some(NAL_SPS | NAL_PPS) => {}
                    Some(_) => {
                        data.put_u32(u32::try_from(nal.len()).map_err(|_| CardError::Skipped)?);
                        data.put_slice(nal);
                    }
                }
            }
        }
        if data.is_empty() {
            return Err(CardError::Skipped);
        }
        Ok(Encoded { data: data.freeze(), key })
    }

    /// The `AVCDecoderConfigurationRecord` of the parameter sets written so far; `None` before the first picture.
    pub(super) fn avcc(&self) -> Option<Bytes> {
        let &[profile, compatibility, level, ..] = self.sps.get(1..)? else { return None };
        let (sps_len, pps_len) = (u16::try_from(self.sps.len()).ok()?, u16::try_from(self.pps.len()).ok()?);
        let mut out = BytesMut::with_capacity(11 + self.sps.len() + self.pps.len());
        // Version 1; lengths of four bytes; one SPS; one PPS. OpenH264 writes Baseline, which has no extension.
        out.put_slice(&[1, profile, compatibility, level, 0xFC | 3, 0xE0 | 1]);
        out.put_u16(sps_len);
        out.put_slice(&self.sps);
        out.put_u8(1);
        out.put_u16(pps_len);
        out.put_slice(&self.pps);
        Some(out.freeze())
    }
}

/// A NAL unit as the encoder hands it out, without its Annex B start code of three or four bytes.
fn without_start_code(unit: &[u8]) -> &[u8] {
    unit.strip_prefix(&[0, 0, 0, 1]).or_else(|| unit.strip_prefix(&[0, 0, 1])).unwrap_or(unit)
}
