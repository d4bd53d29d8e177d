//! Everything that differs from codec to codec: sample entry, RFC 6381 string, nominal frame duration.
//!
//! HEVC, AV1 and Opus follow by adding an arm to each `match` here (and a variant to [`Codec`]); no other
//! module looks into a configuration. H.264: ISO/IEC 14496-15 §5.3.3; AAC: ISO/IEC 14496-3 §1.6.2.

use bytes::Bytes;
use mp4_atom::{
    Atom as _, Audio, Avc1, Avcc, Codec as Entry, Mp4a, Visual,
    esds::{DecoderConfig, DecoderSpecific, EsDescriptor, Esds, SLConfig},
};

use super::Fmp4Error;
use crate::sample::{Codec, TrackConfig, TrackKind};

/// The kind of track a codec makes.
pub(super) fn kind(codec: &Codec) -> TrackKind {
    match codec {
        Codec::H264 { .. } => TrackKind::Video,
        Codec::Aac { .. } => TrackKind::Audio,
    }
}

/// The sample entry that describes a track.
pub(super) fn sample_entry(config: &TrackConfig) -> Result<Entry, Fmp4Error> {
    match &config.codec {
        Codec::H264 { avcc } => {
            let avcc = parse_avcc(avcc)?;
            let visual = Visual {
                data_reference_index: 1,
                width: u16::try_from(config.width).unwrap_or(u16::MAX),
                height: u16::try_from(config.height).unwrap_or(u16::MAX),
                ..Default::default()
            };
            Ok(Entry::Avc1(Avc1 { visual, avcc, ..Default::default() }))
        }
        Codec::Aac { config: asc } => {
            aac_object_type(asc)?;
            let specific = DecoderSpecific { profile: 0, freq_index: 0, chan_conf: 0, raw: asc.to_vec() };
            let dec_config = DecoderConfig {
                object_type_indication: 0x40,
                stream_type: 5,
                dec_specific: Some(specific),
                ..Default::default()
            };
            let es_desc = EsDescriptor {
                es_id: TrackKind::Audio.track_id() as u16,
                dec_config,
                sl_config: SLConfig {},
                ..Default::default()
            };
            // Rates above 16 bits do not fit the sample entry, which then says 0 and leaves it to the config.
            let sample_rate = u16::try_from(config.sample_rate).unwrap_or(0);
            Ok(Entry::Mp4a(Mp4a {
                audio: Audio {
                    data_reference_index: 1,
                    channel_count: config.channels,
                    sample_size: 16,
                    sample_rate: sample_rate.into(),
                },
                esds: Esds { es_desc },
                btrt: None,
                taic: None,
            }))
        }
    }
}

/// Reads a sample entry back into a configuration; `timescale` is the track's.
pub(super) fn from_sample_entry(entry: &Entry, timescale: u32) -> Result<TrackConfig, Fmp4Error> {
    match entry {
        Entry::Avc1(avc1) => {
            let mut body = Vec::new();
            avc1.avcc.encode_body(&mut body).map_err(|e| bad(TrackKind::Video, e))?;
            Ok(TrackConfig {
                codec: Codec::H264 { avcc: body.into() },
                timescale,
                width: u32::from(avc1.visual.width),
                height: u32::from(avc1.visual.height),
                channels: 0,
                sample_rate: 0,
            })
        }
        Entry::Mp4a(mp4a) => {
            let Some(specific) = &mp4a.esds.es_desc.dec_config.dec_specific else {
                return Err(bad(TrackKind::Audio, "esds without AudioSpecificConfig"));
            };
            Ok(TrackConfig {
                codec: Codec::Aac { config: Bytes::from(specific.raw.clone()) },
                timescale,
                width: 0,
                height: 0,
                channels: mp4a.audio.channel_count,
                sample_rate: u32::from(mp4a.audio.sample_rate.integer()),
            })
        }
        other => Err(Fmp4Error::UnsupportedCodec(entry_name(other))),
    }
}

/// The RFC 6381 `codecs` value of one track, as players compare it.
pub(super) fn codecs(codec: &Codec) -> Result<String, Fmp4Error> {
    match codec {
        Codec::H264 { avcc } => {
            let Some([profile, compatibility, level]) = avcc.get(1..4) else {
                return Err(bad(TrackKind::Video, "avcC shorter than 4 bytes"));
            };
            Ok(format!("avc1.{profile:02x}{compatibility:02x}{level:02x}"))
        }
        Codec::Aac { config } => Ok(format!("mp4a.40.{}", aac_object_type(config)?)),
    }
}

/// How long one frame lasts in ticks of the track's timescale, where the codec fixes it (AAC: 1024 or 960 samples).
pub(crate) fn frame_ticks(config: &TrackConfig) -> Option<i64> {
    match &config.codec {
        Codec::H264 { .. } => None,
        Codec::Aac { config: asc } => {
            let rate = i64::from(config.sample_rate);
            if rate == 0 {
                return None;
            }
            let samples = if aac_is_960(asc) { 960 } else { 1024 };
            Some(((samples * i64::from(config.timescale) + rate / 2) / rate).max(1))
        }
    }
}

fn parse_avcc(avcc: &Bytes) -> Result<Avcc, Fmp4Error> {
    let mut body = &avcc[..];
    let parsed = Avcc::decode_body(&mut body).map_err(|e| bad(TrackKind::Video, e))?;
    if parsed.sequence_parameter_sets.is_empty() || parsed.picture_parameter_sets.is_empty() {
        return Err(bad(TrackKind::Video, "avcC without SPS or PPS"));
    }
    Ok(parsed)
}

/// The audio object type: 5 bits, or 32 + 6 bits after an escape of 31 (ISO/IEC 14496-3 table 1.16).
fn aac_object_type(asc: &[u8]) -> Result<u8, Fmp4Error> {
    let &[first, second, ..] = asc else {
        return Err(bad(TrackKind::Audio, "AudioSpecificConfig shorter than 2 bytes"));
    };
    Ok(match first >> 3 {
        0 => return Err(bad(TrackKind::Audio, "audio object type 0")),
        31 => 32 + (((first & 7) << 3) | (second >> 5)),
        object_type => object_type,
    })
}

/// `frameLengthFlag` of the GASpecificConfig that follows a plain two-byte header; other layouts mean 1024.
fn aac_is_960(asc: &[u8]) -> bool {
    let &[first, second, ..] = asc else { return false };
    let object_type = first >> 3;
    let rate_index = ((first & 7) << 1) | (second >> 7);
    matches!(object_type, 1..=4) && rate_index != 15 && second & 0b100 != 0
}

fn entry_name(entry: &Entry) -> String {
    match entry {
        Entry::Unknown(kind, _) => kind.to_string(),
        // The name of the variant, without the contents that Debug would print after it.
        known => {
            let text = format!("{known:?}");
            text.split(['(', ' ', '{']).next().unwrap_or_default().to_ascii_lowercase()
        }
    }
}

fn bad(track: TrackKind, reason: impl std::fmt::Display) -> Fmp4Error {
    Fmp4Error::Config { track, reason: format!("{reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aac(config: &[u8], timescale: u32, sample_rate: u32) -> TrackConfig {
        let codec = Codec::Aac { config: Bytes::copy_from_slice(config) };
        TrackConfig { codec, timescale, width: 0, height: 0, channels: 2, sample_rate }
    }

    #[test]
    fn codec_strings_follow_rfc_6381() {
        let avcc = Bytes::from_static(&[1, 0x64, 0x00, 0x1f, 0xff]);
        assert_eq!(codecs(&Codec::H264 { avcc }).unwrap(), "avc1.64001f");
        // AAC-LC, HE-AAC (SBR), and the escaped xHE-AAC (42).
        for (asc, expected) in
            [([0x12, 0x10], "mp4a.40.2"), ([0x2b, 0x11], "mp4a.40.5"), ([0xf9, 0x48], "mp4a.40.42")]
        {
            assert_eq!(codecs(&Codec::Aac { config: Bytes::copy_from_slice(&asc) }).unwrap(), expected);
        }
        assert!(codecs(&Codec::Aac { config: Bytes::from_static(&[0x12]) }).is_err());
        assert!(codecs(&Codec::H264 { avcc: Bytes::from_static(&[1, 2]) }).is_err());
    }

    #[test]
    fn an_aac_frame_lasts_1024_samples_in_any_timescale() {
        assert_eq!(frame_ticks(&aac(&[0x12, 0x10], 44_100, 44_100)), Some(1024));
        assert_eq!(frame_ticks(&aac(&[0x11, 0x90], 1000, 48_000)), Some(21));
        assert_eq!(frame_ticks(&aac(&[0x11, 0x94], 48_000, 48_000)), Some(960));
        assert_eq!(frame_ticks(&aac(&[0x11, 0x90], 1000, 0)), None);
    }
}
