//! Reads fragments back: every sample with its times, and the wall clock a part was stamped with.
//!
//! For tests, benchmarks and reports that compare access units; a player does its own demuxing. Tolerates any bytes: the worst
//! answer is an error. ISO/IEC 14496-12 §8.8.

use bytes::Bytes;
use mp4_atom::{Atom as _, Moof, Prft, Tfhd, Traf, TrunEntry};

use super::{
    Fmp4Error,
    fragment::ntp_to_unix_us,
    init::{Boxes, InitTrack, read_moov},
};
use crate::sample::TrackKind;

/// Most samples returned by one [`read_samples`].
pub const SAMPLES_READ_MAX: usize = 4 << 20;

/// One access unit read from a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSample {
    /// Picture or sound.
    pub track: TrackKind,
    /// Ticks per second of the times below.
    pub timescale: u32,
    /// Which `moov` of the stream describes it, counted from 0.
    pub init: usize,
    /// Decode time, ticks.
    pub dts: u64,
    /// Presentation time, ticks.
    pub pts: i64,
    /// Ticks.
    pub duration: u32,
    /// A sync sample.
    pub key: bool,
    /// The access unit.
    pub data: Bytes,
}

/// Every sample of a byte stream of init segments and fragments, in the order of the fragments, track by track.
/// A `moov` in the middle of the stream applies from there on.
///
/// # Errors
/// [`Fmp4Error::Malformed`] at the first box that is not as it should be.
pub fn read_samples(stream: &Bytes) -> Result<Vec<ReadSample>, Fmp4Error> {
    read(stream, Vec::new())
}

/// The samples of a part of these tracks.
pub(crate) fn read_part(media: &Bytes, tracks: &[InitTrack]) -> Result<Vec<ReadSample>, Fmp4Error> {
    read(media, tracks.to_vec())
}

fn read(stream: &Bytes, mut tracks: Vec<InitTrack>) -> Result<Vec<ReadSample>, Fmp4Error> {
    let mut inits = usize::from(!tracks.is_empty());
    let mut samples = Vec::new();
    // Decode time after the last fragment, for the ones without tfdt.
    let mut ends: Vec<(u32, u64)> = Vec::new();
    for found in Boxes::new(stream) {
        let found = found?;
        match &found.kind {
            b"moov" => {
                tracks = read_moov(found.at, found.body)?;
                inits += 1;
                ends.clear();
            }
            b"moof" => {
                let mut body = found.body;
                let moof =
                    Moof::decode_body(&mut body).map_err(|e| Fmp4Error::malformed("moof", found.at, e))?;
                for traf in &moof.traf {
                    let id = traf.tfhd.track_id;
                    let Some(track) = tracks.iter().find(|t| t.id == id) else {
                        return Err(Fmp4Error::malformed(
                            "traf",
                            found.at,
                            format!("no track {id} in the moov before"),
                        ));
                    };
                    let known_end = ends.iter().position(|(track, _)| *track == id);
                    let start = known_end.map_or(0, |i| ends[i].1);
                    let reader = TrafReader { stream, moof_at: found.at, track, init: inits - 1 };
                    let end = reader.read(traf, start, &mut samples)?;
                    match known_end {
                        Some(i) => ends[i].1 = end,
                        None => ends.push((id, end)),
                    }
                }
            }
            _ => {}
        }
    }
    Ok(samples)
}

struct TrafReader<'a> {
    stream: &'a Bytes,
    moof_at: usize,
    track: &'a InitTrack,
    init: usize,
}

impl TrafReader<'_> {
    /// Appends the samples of one traf and returns the decode time after the last.
    fn read(&self, traf: &Traf, start: u64, out: &mut Vec<ReadSample>) -> Result<u64, Fmp4Error> {
        let base =
            traf.tfhd.base_data_offset.map_or(Some(self.moof_at), |offset| usize::try_from(offset).ok());
        let base = base.ok_or_else(|| self.malformed("a base offset beyond the data"))?;
        let mut dts = traf.tfdt.as_ref().map_or(start, |tfdt| tfdt.base_media_decode_time);
        let mut at = base;
        for trun in &traf.trun {
            // A run without per-sample fields is a bare count: it cannot be longer than what was received.
            if trun.samples.len() > self.stream.len() || out.len() + trun.samples.len() > SAMPLES_READ_MAX {
                return Err(Fmp4Error::TooMany {
                    what: "samples",
                    max: SAMPLES_READ_MAX.min(self.stream.len()),
                });
            }
            if let Some(offset) = trun.data_offset {
                at = isize::try_from(offset)
                    .ok()
                    .and_then(|offset| base.checked_add_signed(offset))
                    .ok_or_else(|| self.malformed("a data offset before the stream"))?;
            }
            for entry in &trun.samples {
                let sample = self.sample(&traf.tfhd, &entry, dts, at)?;
                at += sample.data.len();
                dts = dts
                    .checked_add(u64::from(sample.duration))
                    .ok_or_else(|| self.malformed("a decode time past 64 bits"))?;
                out.push(sample);
            }
        }
        Ok(dts)
    }

    fn sample(&self, tfhd: &Tfhd, entry: &TrunEntry, dts: u64, at: usize) -> Result<ReadSample, Fmp4Error> {
        let size = entry.size.or(tfhd.default_sample_size).unwrap_or(0) as usize;
        let end = at.checked_add(size).filter(|end| *end <= self.stream.len());
        let end = end.ok_or_else(|| self.malformed("a sample that reaches past the data"))?;
        let flags = entry.flags.or(tfhd.default_sample_flags).unwrap_or(0);
        let pts = i64::try_from(dts).ok().and_then(|dts| dts.checked_add(entry.cts.unwrap_or(0)));
        Ok(ReadSample {
            track: self.track.kind,
            timescale: self.track.config.timescale,
            init: self.init,
            dts,
            pts: pts.ok_or_else(|| self.malformed("a presentation time past 63 bits"))?,
            duration: entry.duration.or(tfhd.default_sample_duration).unwrap_or(0),
            // sample_is_non_sync_sample
            key: flags & 0x0001_0000 == 0,
            data: self.stream.slice(at..end),
        })
    }

    fn malformed(&self, reason: &str) -> Fmp4Error {
        Fmp4Error::malformed("traf", self.moof_at, reason)
    }
}

/// The wall clock that a part's `prft` was stamped with, µs since the Unix epoch.
///
/// # Errors
/// [`Fmp4Error::Malformed`] when there is no readable `prft` before the `moof`.
pub fn prft_unix_us(media: &[u8]) -> Result<u64, Fmp4Error> {
    for found in Boxes::new(media) {
        let found = found?;
        if found.kind == *b"prft" {
            let mut body = found.body;
            let prft = Prft::decode_body(&mut body).map_err(|e| Fmp4Error::malformed("prft", found.at, e))?;
            return Ok(ntp_to_unix_us(prft.ntp_timestamp));
        }
    }
    Err(Fmp4Error::malformed("part", media.len(), "no prft box"))
}
