//! A picture whose parameters change, or a track that is missing for a while, told under the init data that the reader has already.
//!
//! A second `moov` in a stream is skipped by demuxers (ffmpeg's says so), and what follows is decoded with the wrong
//! parameters. H.264 parameter sets may also come in band, before each key frame (ISO/IEC 14496-10 §7.4.1.2.1): decoders
//! take them from there, and the stream keeps its one `moov`.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::fmp4::{Fmp4Error, Fragment, InitTrack, Run, RunSample, prft_unix_us, read_part};
use crate::sample::{Codec, TrackKind};

/// Access unit delimiter (ISO/IEC 14496-10 table 7-1): nothing may precede it.
const NAL_DELIMITER: u8 = 9;
/// Bytes of a NAL unit's length, as every encoder writes it.
const LENGTH_BYTES: usize = 4;

/// How parts of a later configuration are written under an earlier one.
#[derive(Debug)]
pub(super) struct Carry {
    tracks: Vec<InitTrack>,
    /// Sequence and picture parameter sets, each with its length.
    parameter_sets: Bytes,
}

impl Carry {
    /// From the tracks that the reader was told of to those that there are `now`: perhaps fewer, and the picture with other
    /// parameters. `None` where more differs.
    pub(super) fn new(told: &[InitTrack], now: &[InitTrack]) -> Option<Self> {
        let is_told = |b: &InitTrack| {
            let alike = |a: &InitTrack| {
                let timed = (a.id, a.kind, a.config.timescale) == (b.id, b.kind, b.config.timescale);
                timed && (a.kind == TrackKind::Video || a.config == b.config)
            };
            told.iter().any(alike)
        };
        if !now.iter().all(is_told) {
            return None;
        }
        let picture = now.iter().find(|track| track.kind == TrackKind::Video);
        let parameter_sets = match picture.map(|track| &track.config.codec) {
            Some(Codec::H264 { avcc }) => parameter_sets(avcc)?,
            Some(_) => return None,
            None => Bytes::new(),
        };
        Some(Self { tracks: now.to_vec(), parameter_sets })
    }

    /// The part `number`, with the parameter sets before each key frame.
    pub(super) fn rewrite(&self, number: u64, media: &Bytes) -> Result<Bytes, Fmp4Error> {
        let mut runs: Vec<Run> = Vec::with_capacity(2);
        for sample in read_part(media, &self.tracks)? {
            let is_picture = sample.track == TrackKind::Video;
            let data = if is_picture && sample.key { self.with_sets(&sample.data) } else { sample.data };
            let cts = sample.pts.saturating_sub(sample.dts as i64);
            let cts = cts.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            let run = match runs.iter_mut().position(|run| run.kind == sample.track) {
                Some(at) => &mut runs[at],
                None => {
                    runs.push(Run { kind: sample.track, base_dts: sample.dts, samples: Vec::new() });
                    let last = runs.len() - 1;
                    &mut runs[last]
                }
            };
            run.samples.push(RunSample { duration: sample.duration, cts, key: sample.key, data });
        }
        let sequence = (number as u32).wrapping_add(1);
        Fragment { sequence, arrived_unix_us: prft_unix_us(media)?, runs }.write()
    }

    fn with_sets(&self, sample: &Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(sample.len() + self.parameter_sets.len());
        let head = match sample.get(LENGTH_BYTES) {
            Some(kind) if kind & 0x1f == NAL_DELIMITER => delimiter_len(sample),
            _ => 0,
        };
        out.put_slice(&sample[..head]);
        out.put_slice(&self.parameter_sets);
        out.put_slice(&sample[head..]);
        out.freeze()
    }
}

fn delimiter_len(sample: &[u8]) -> usize {
    let length =
        sample.first_chunk::<LENGTH_BYTES>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    (LENGTH_BYTES + length).min(sample.len())
}

/// What an `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1) says, as NAL units with lengths of four bytes; `None`
/// where samples have other lengths, or the record is cut short.
fn parameter_sets(avcc: &[u8]) -> Option<Bytes> {
    let (head, mut rest) = avcc.split_at_checked(5)?;
    if head[4] & 3 != LENGTH_BYTES as u8 - 1 {
        return None;
    }
    let mut out = BytesMut::with_capacity(avcc.len() + 16);
    // Sequence parameter sets, then picture parameter sets; the count of the former is in five bits.
    for mask in [0x1f, 0xff] {
        let (count, after) = rest.split_first()?;
        rest = after;
        for _ in 0..count & mask {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (set, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            out.put_u32(set.len() as u32);
            out.put_slice(set);
            rest = after;
        }
    }
    (!out.is_empty()).then(|| out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_are_read_or_refused() {
        let avcc = [1, 100, 0, 31, 0xff, 0xe1, 0, 2, 0x67, 1, 1, 0, 1, 0x68];
        assert_eq!(parameter_sets(&avcc).unwrap()[..], [0, 0, 0, 2, 0x67, 1, 0, 0, 0, 1, 0x68]);
        for cut in 0..avcc.len() {
            assert_eq!(parameter_sets(&avcc[..cut]), None, "cut at {cut}");
        }
        let mut short = avcc;
        short[4] = 0xfd;
        assert_eq!(parameter_sets(&short), None, "lengths of two bytes");
    }

    #[test]
    fn nothing_comes_before_a_delimiter() {
        let carry = Carry { tracks: Vec::new(), parameter_sets: Bytes::from_static(b"SETS") };
        let delimited = Bytes::from_static(&[0, 0, 0, 2, 9, 0xf0, 0, 0, 0, 1, 0x65]);
        assert_eq!(carry.with_sets(&delimited)[..], *b"\x00\x00\x00\x02\x09\xf0SETS\x00\x00\x00\x01\x65");
        assert_eq!(carry.with_sets(&Bytes::from_static(b"\0\0\0\x01\x65"))[..], *b"SETS\0\0\0\x01\x65");
        assert_eq!(carry.with_sets(&Bytes::from_static(&[0, 0, 0, 99, 9]))[..], *b"\x00\x00\x00\x63\x09SETS");
    }
}
