//! One access unit, and the tracks it belongs to: the type every ingest produces and the segmenter consumes.
//!
//! Never holds container framing: H.264 is length-prefixed NAL units (ISO/IEC 14496-15), AAC is raw
//! access units without ADTS (ISO/IEC 14496-3).

use bytes::Bytes;

/// Which track of the stream. One of each at most: a channel is one picture and one sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrackKind {
    /// The picture; track id 1 in fMP4.
    Video,
    /// The sound; track id 2 in fMP4.
    Audio,
}

/// What a decoder must know before the first sample of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// H.264/AVC.
    H264 {
        /// The `AVCDecoderConfigurationRecord`, as FLV and `avcC` carry it.
        avcc: Bytes,
    },
    /// AAC (any object type a player supports).
    Aac {
        /// The `AudioSpecificConfig`.
        config: Bytes,
    },
}

/// One track's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackConfig {
    /// Codec and decoder configuration.
    pub codec: Codec,
    /// Ticks per second of this track's `dts` and `pts`.
    pub timescale: u32,
    /// Coded picture size in pixels (0 × 0 for audio).
    pub width: u32,
    /// See `width`.
    pub height: u32,
    /// Audio channels (0 for video).
    pub channels: u16,
    /// Audio sampling rate in Hz (0 for video).
    pub sample_rate: u32,
}

/// One access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The track it belongs to.
    pub track: TrackKind,
    /// Decode time in the track's timescale, made monotonic by the ingest; starts near 0.
    pub dts: i64,
    /// Presentation time in the track's timescale; may precede `dts` by encoder error.
    pub pts: i64,
    /// A sample where decoding may start (IDR; every audio sample).
    pub key: bool,
    /// The access unit.
    pub data: Bytes,
    /// When its last byte reached us, in µs since the Unix epoch, as handed in by the caller.
    pub arrived_unix_us: u64,
}

/// What an ingest says, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ingest {
    /// A track begins, or changes its decoder configuration or size.
    Track(TrackKind, TrackConfig),
    /// One access unit.
    Sample(Sample),
    /// Timestamps do not continue those before (jump, wrap that could not be unrolled, a new publisher):
    /// the next samples start a new timeline.
    Discontinuity,
    /// As a discontinuity, but for the times: they say where the next samples lie on the timeline, since other renditions went on.
    Resumed,
    /// Something the broadcaster should know, in words, with what to set.
    Warning(String),
    /// The encoder ended the stream.
    End,
}
