//! Codec configurations and access units, read just far enough to describe and check them.
//!
//! Owns: `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3), picture size from the SPS (ITU-T H.264 §7.3.2.1),
//! length-prefixed NAL units, `AudioSpecificConfig` (ISO/IEC 14496-3 §1.6.2) and RFC 6381 codec strings.
//! Never decodes a picture or a sound.

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp;

use crate::sample::{Codec, TrackConfig};

/// Most bytes a codec configuration may have; real ones are under 200.
pub const CONFIG_LEN_MAX: usize = 64 << 10;

/// Why a codec configuration cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(&'static str);

/// What an H.264 configuration says, beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AvcInfo {
    /// Cropped picture size in pixels; 0 × 0 when the SPS cannot be read.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes of the length before each NAL unit: 1, 2 or 4.
    pub(crate) length_size: usize,
}

/// Reads an `AVCDecoderConfigurationRecord`; bytes after the last PPS are kept but not looked at.
pub(crate) fn avc_info(avcc: &[u8]) -> Result<AvcInfo, ConfigError> {
    if avcc.len() < 7 || avcc.len() > CONFIG_LEN_MAX {
        return Err(ConfigError("the H.264 configuration is empty or cut short"));
    }
    if avcc[0] != 1 {
        return Err(ConfigError("the H.264 configuration has an unknown version"));
    }
    let length_size = usize::from(avcc[4] & 3) + 1;
    if length_size == 3 {
        return Err(ConfigError(
            "the H.264 configuration asks for 3-byte NAL lengths, which no standard allows",
        ));
    }
    let mut at = 6;
    let first_sps = parameter_sets(avcc, &mut at, usize::from(avcc[5] & 0x1f))?;
    let count = usize::from(*avcc.get(at).ok_or(ConfigError("the H.264 configuration ends before its PPS"))?);
    at += 1;
    let first_pps = parameter_sets(avcc, &mut at, count)?;
    let (Some(sps), Some(_)) = (first_sps, first_pps) else {
        return Err(ConfigError("the H.264 configuration has no SPS or no PPS"));
    };
    let (width, height) = picture_size(sps).unwrap_or((0, 0));
    Ok(AvcInfo { width, height, length_size })
}

/// Walks `count` 16-bit length-prefixed parameter sets from `at`, and returns the first.
fn parameter_sets<'a>(avcc: &'a [u8], at: &mut usize, count: usize) -> Result<Option<&'a [u8]>, ConfigError> {
    let mut first = None;
    for _ in 0..count {
        let cut = ConfigError("the H.264 configuration ends inside a parameter set");
        let len = avcc.get(*at..*at + 2).ok_or(cut)?;
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        let set = avcc.get(*at + 2..*at + 2 + len).ok_or(cut)?;
        *at += 2 + len;
        if !set.is_empty() {
            first.get_or_insert(set);
        }
    }
    Ok(first)
}

/// Cropped picture size of a sequence parameter set (with its NAL header).
fn picture_size(sps: &[u8]) -> Option<(u32, u32)> {
    let bits = rbsp::decode_nal(sps).ok()?;
    SeqParameterSet::from_bits(rbsp::BitReader::new(&bits[..])).ok()?.pixel_dimensions().ok()
}

/// What an `AudioSpecificConfig` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AacInfo {
    /// Audio object type as signalled first (2 = LC, 5 = HE, 29 = HE v2).
    pub(crate) object_type: u8,
    /// Rate of the core codec, Hz: one access unit is `frame_len` samples at this rate.
    pub(crate) sample_rate: u32,
    pub(crate) channels: u16,
    /// Samples per access unit, 1024 or 960.
    pub(crate) frame_len: u32,
}

/// Sampling rates by index, ISO/IEC 14496-3 table 1.18.
const AAC_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Reads an `AudioSpecificConfig`.
pub(crate) fn aac_info(config: &[u8]) -> Result<AacInfo, ConfigError> {
    if config.len() > CONFIG_LEN_MAX {
        return Err(ConfigError("the AAC configuration is too long"));
    }
    let mut bits = Bits { bytes: config, at: 0 };
    let cut = ConfigError("the AAC configuration is empty or cut short");
    let mut inner = bits.object_type().ok_or(cut)?;
    let object_type = inner;
    let sample_rate = bits.rate().ok_or(cut)?;
    let channel_config = bits.take(4).ok_or(cut)?;
    if matches!(object_type, 5 | 29) {
        bits.rate().ok_or(cut)?;
        inner = bits.object_type().ok_or(cut)?;
    }
    // frameLengthFlag opens GASpecificConfig, which these object types carry.
    let short = matches!(inner, 1..=4 | 6 | 7 | 17 | 19..=23) && bits.take(1) == Some(1);
    if sample_rate == 0 {
        return Err(ConfigError("the AAC configuration has a reserved sampling rate"));
    }
    let channels = match channel_config {
        7 | 12 | 14 => 8,
        11 => 7,
        // 0: described by a program config element inside the stream; stereo is what it nearly always is.
        0 => 2,
        n @ 1..=6 => n as u16,
        _ => return Err(ConfigError("the AAC configuration has a reserved channel layout")),
    };
    Ok(AacInfo { object_type, sample_rate, channels, frame_len: if short { 960 } else { 1024 } })
}

/// Reads bits from the front of a slice.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn object_type(&mut self) -> Option<u8> {
        match self.take(5)? {
            31 => Some(32 + self.take(6)? as u8),
            n => Some(n as u8),
        }
    }

    /// A sampling rate; 0 when the index is reserved.
    fn rate(&mut self) -> Option<u32> {
        match self.take(4)? {
            15 => self.take(24),
            index => Some(AAC_RATES.get(index as usize).copied().unwrap_or(0)),
        }
    }
}

/// A video track's description from its `AVCDecoderConfigurationRecord`.
pub(crate) fn h264_track(avcc: Bytes, timescale: u32) -> Result<(TrackConfig, AvcInfo), ConfigError> {
    let info = avc_info(&avcc)?;
    let config = TrackConfig {
        codec: Codec::H264 { avcc },
        timescale,
        width: info.width,
        height: info.height,
        channels: 0,
        sample_rate: 0,
    };
    Ok((config, info))
}

/// An audio track's description from its `AudioSpecificConfig`; `timescale` is the sampling rate unless given.
pub(crate) fn aac_track(
    config: Bytes,
    timescale: Option<u32>,
) -> Result<(TrackConfig, AacInfo), ConfigError> {
    let info = aac_info(&config)?;
    let track = TrackConfig {
        codec: Codec::Aac { config },
        timescale: timescale.unwrap_or(info.sample_rate),
        width: 0,
        height: 0,
        channels: info.channels,
        sample_rate: info.sample_rate,
    };
    Ok((track, info))
}

/// The RFC 6381 name of a codec as `CODECS=` and `MediaSource` want it, such as `avc1.64001f` or `mp4a.40.2`.
pub fn rfc6381(codec: &Codec) -> String {
    match codec {
        Codec::H264 { avcc } => match avcc.get(1..4) {
            Some(p) => format!("avc1.{:02x}{:02x}{:02x}", p[0], p[1], p[2]),
            None => "avc1".to_owned(),
        },
        Codec::Aac { config } => match aac_info(config) {
            Ok(info) => format!("mp4a.40.{}", info.object_type),
            Err(_) => "mp4a.40.2".to_owned(),
        },
    }
}

/// An access unit of length-prefixed NAL units, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AccessUnit {
    /// The same bytes, without empty NAL units, which some decoders stumble over.
    pub(crate) data: Bytes,
    /// It holds an IDR slice.
    pub(crate) idr: bool,
    /// It holds any coded slice; without one there is no picture.
    pub(crate) slices: bool,
}

/// Checks that `data` is whole NAL units behind lengths of `length_size` bytes. `None` when it is not.
pub(crate) fn h264_access_unit(data: &Bytes, length_size: usize) -> Option<AccessUnit> {
    let (mut idr, mut slices, mut empty) = (false, false, false);
    let mut at = 0;
    while at < data.len() {
        let len = nal_len(data, at, length_size)?;
        let nal = data.get(at + length_size..(at + length_size).checked_add(len)?)?;
        match nal.first() {
            None => empty = true,
            Some(header) => {
                let kind = header & 0x1f;
                idr |= kind == 5;
                slices |= (1..=5).contains(&kind);
            }
        }
        at += length_size + len;
    }
    let data = if empty { without_empty_nals(data, length_size)? } else { data.clone() };
    Some(AccessUnit { data, idr, slices })
}

fn nal_len(data: &[u8], at: usize, length_size: usize) -> Option<usize> {
    let prefix = data.get(at..at + length_size)?;
    Some(prefix.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
}

fn without_empty_nals(data: &Bytes, length_size: usize) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(data.len());
    let mut at = 0;
    while at < data.len() {
        let end = at + length_size + nal_len(data, at, length_size)?;
        if end > at + length_size {
            out.put_slice(data.get(at..end)?);
        }
        at = end;
    }
    Some(out.freeze())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Main profile, level 3.1, 1280×720, as x264 writes it.
    pub(crate) const AVCC_720P: &[u8] = &[
        0x01, 0x4d, 0x40, 0x1f, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x4d, 0x40, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec,
        0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x03, 0xc6, 0x0c, 0xa8, 0x01, 0x00, 0x04,
        0x68, 0xee, 0x0f, 0xc8,
    ];

    #[test]
    fn avcc_yields_size_and_codec_string() {
        let info = avc_info(AVCC_720P).unwrap();
        assert_eq!((info.width, info.height, info.length_size), (1280, 720, 4));
        assert_eq!(rfc6381(&Codec::H264 { avcc: Bytes::from_static(AVCC_720P) }), "avc1.4d401f");
    }

    #[test]
    fn cut_avcc_is_an_error_at_every_length() {
        for len in 0..AVCC_720P.len() {
            assert!(avc_info(&AVCC_720P[..len]).is_err(), "{len} bytes were taken for whole");
        }
    }

    #[test]
    fn aac_configs_of_the_wild() {
        let lc = aac_info(&[0x11, 0x90]).unwrap();
        assert_eq!((lc.object_type, lc.sample_rate, lc.channels, lc.frame_len), (2, 48_000, 2, 1024));
        let explicit = aac_info(&[0x17, 0x80, 0x56, 0x22, 0x08]).unwrap();
        assert_eq!((explicit.sample_rate, explicit.channels), (44_100, 1));
        // HE-AAC signalled explicitly: 22.05 kHz core, 44.1 kHz out.
        let he = aac_info(&[0x2b, 0x92, 0x08, 0x00]).unwrap();
        assert_eq!((he.object_type, he.sample_rate, he.channels), (5, 22_050, 2));
        let short = aac_info(&[0x11, 0x94]).unwrap();
        assert_eq!(short.frame_len, 960);
        assert!(aac_info(&[]).is_err());
        assert!(aac_info(&[0x16, 0xff]).is_err());
        assert_eq!(rfc6381(&Codec::Aac { config: Bytes::from_static(&[0x11, 0x90]) }), "mp4a.40.2");
    }

    #[test]
    fn empty_nals_go_and_bad_lengths_are_noticed() {
        let au = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 2, 0x65, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x41]);
        let read = h264_access_unit(&au, 4).unwrap();
        assert_eq!(&read.data[..], &[0, 0, 0, 2, 0x65, 1, 0, 0, 0, 1, 0x41]);
        assert!(read.idr && read.slices);
        assert_eq!(h264_access_unit(&Bytes::from_static(&[0, 0, 0, 9, 0x65]), 4), None);
        assert_eq!(h264_access_unit(&Bytes::from_static(&[0, 0, 1]), 4), None);
        assert_eq!(h264_access_unit(&Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]), 4), None);
    }
}
