//! One fragment: `prft` + `moof` + `mdat`, from samples whose durations are known.
//!
//! ISO/IEC 14496-12 §8.8 (moof, traf, trun), §8.8.12 (tfdt), §8.16.5 (prft); one `traf` per track with one `trun`,
//! offsets relative to the `moof` as CMAF (ISO/IEC 23000-19 §7.5) asks.

use bytes::Bytes;
use mp4_atom::{
    Encode as _, Mfhd, Moof, Prft, ReferenceTime, Tfdt, Tfhd, Traf, Trun, TrunEntry, TrunSamples,
};

use super::Fmp4Error;
use crate::sample::TrackKind;

/// Depends on no other sample; a sync sample (ISO/IEC 14496-12 §8.8.3.1).
const FLAGS_SYNC: u32 = 0x0200_0000;
/// Depends on others; not a sync sample.
const FLAGS_DELTA: u32 = 0x0101_0000;
/// Seconds from the NTP epoch (1900) to the Unix epoch.
const NTP_OFFSET_S: u64 = 2_208_988_800;

/// One sample of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunSample {
    /// Ticks.
    pub(crate) duration: u32,
    /// Presentation minus decode time, ticks.
    pub(crate) cts: i32,
    pub(crate) key: bool,
    pub(crate) data: Bytes,
}

/// One track's samples in a fragment.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) kind: TrackKind,
    /// Decode time of the first sample, ticks.
    pub(crate) base_dts: u64,
    pub(crate) samples: Vec<RunSample>,
}

/// One fragment to be written.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub(crate) sequence: u32,
    /// When the first sample of the first run arrived, µs since the Unix epoch.
    pub(crate) arrived_unix_us: u64,
    /// The first run is the one that `prft` refers to. No run is empty.
    pub(crate) runs: Vec<Run>,
}

impl Fragment {
    /// `prft` + `moof` + `mdat`.
    pub(crate) fn write(&self) -> Result<Bytes, Fmp4Error> {
        let mut out = Vec::new();
        self.write_boxes(&mut out).map_err(|e| Fmp4Error::malformed("fragment", 0, e))?;
        Ok(out.into())
    }

    fn write_boxes(&self, out: &mut Vec<u8>) -> Result<(), mp4_atom::Error> {
        let data_len: usize = self.runs.iter().flat_map(|run| &run.samples).map(|s| s.data.len()).sum();
        if let Some(run) = self.runs.first() {
            let prft = Prft {
                reference_track_id: run.kind.track_id(),
                ntp_timestamp: unix_us_to_ntp(self.arrived_unix_us),
                media_time: run.base_dts,
                utc_time_semantics: ReferenceTime::Output,
            };
            prft.encode(out)?;
        }
        let mut moof = Moof {
            mfhd: Mfhd { sequence_number: self.sequence },
            traf: self.runs.iter().map(traf).collect(),
        };
        // Data offsets count from the moof's first byte, so they depend on its length, which does not depend on them.
        let moof_at = out.len();
        moof.encode(out)?;
        let mut offset = out.len() - moof_at + 8;
        for (traf, run) in moof.traf.iter_mut().zip(&self.runs) {
            let data_offset = i32::try_from(offset).map_err(|_| mp4_atom::Error::InvalidSize)?;
            traf.trun[0].data_offset = Some(data_offset);
            offset += run.samples.iter().map(|s| s.data.len()).sum::<usize>();
        }
        out.truncate(moof_at);
        out.reserve(moof_at + offset);
        moof.encode(out)?;
        let mdat_len = u32::try_from(data_len + 8).map_err(|_| mp4_atom::Error::InvalidSize)?;
        out.extend_from_slice(&mdat_len.to_be_bytes());
        out.extend_from_slice(b"mdat");
        for sample in self.runs.iter().flat_map(|run| &run.samples) {
            out.extend_from_slice(&sample.data);
        }
        Ok(())
    }
}

/// One `traf`, with what all samples share said once in `tfhd`.
fn traf(run: &Run) -> Traf {
    let default_flags = if run.kind == TrackKind::Audio { FLAGS_SYNC } else { FLAGS_DELTA };
    let flags = |s: &RunSample| if s.key { FLAGS_SYNC } else { FLAGS_DELTA };
    let differs = |s: &RunSample| flags(s) != default_flags;
    let first_only = !run.samples.iter().skip(1).any(differs);
    let duration = run.samples.first().map_or(0, |s| s.duration);
    let same_duration = run.samples.iter().all(|s| s.duration == duration);
    let reordered = run.samples.iter().any(|s| s.cts != 0);
    let entries = run.samples.iter().enumerate().map(|(i, s)| TrunEntry {
        duration: (!same_duration).then_some(s.duration),
        size: Some(s.data.len() as u32),
        flags: (!first_only || (i == 0 && differs(s))).then(|| flags(s)),
        cts: reordered.then_some(i64::from(s.cts)),
    });
    Traf {
        tfhd: Tfhd {
            track_id: run.kind.track_id(),
            default_sample_duration: same_duration.then_some(duration),
            default_sample_flags: Some(default_flags),
            default_base_is_moof: true,
            ..Default::default()
        },
        tfdt: Some(Tfdt { base_media_decode_time: run.base_dts }),
        trun: vec![Trun { data_offset: Some(0), samples: TrunSamples::Explicit(entries.collect()) }],
        ..Default::default()
    }
}

/// 32.32 fixed point seconds since 1900, era 0 (RFC 5905 §6), as `prft` carries it.
fn unix_us_to_ntp(unix_us: u64) -> u64 {
    let seconds = (unix_us / 1_000_000).wrapping_add(NTP_OFFSET_S) & 0xffff_ffff;
    let fraction = ((unix_us % 1_000_000) << 32).div_ceil(1_000_000);
    (seconds << 32) | fraction
}

/// The inverse, exact to the microsecond; times past 2036 are era 1.
pub(super) fn ntp_to_unix_us(ntp: u64) -> u64 {
    let mut seconds = ntp >> 32;
    if seconds < NTP_OFFSET_S {
        seconds += 1 << 32;
    }
    (seconds - NTP_OFFSET_S) * 1_000_000 + (((ntp & 0xffff_ffff) * 1_000_000) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_times_come_back_to_the_microsecond() {
        for unix_us in [0, 1, 999_999, 1_763_800_000_123_457, 1_763_800_000_999_999, 2_300_000_000_000_001] {
            assert_eq!(ntp_to_unix_us(unix_us_to_ntp(unix_us)), unix_us);
        }
        // 2024-01-01T00:00:00Z is 0xE93C7F00 seconds after 1900.
        assert_eq!(unix_us_to_ntp(1_704_067_200_500_000), 0xE93C_7F00_8000_0000);
    }
}
