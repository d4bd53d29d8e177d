//! Movie fragments (ISO/IEC 14496-12 §8.8): one `moof` into places of samples.

use mp4_atom::{Tfdt, Tfhd, Trun};

use super::Mp4Error;
use super::boxes::{BoxIn, Track};
use super::tables::SampleRef;

/// Most samples kept ahead of playing, over all tracks: about half an hour.
pub const FRAGMENT_SAMPLES_MAX: usize = 200_000;

/// Bit of the sample flags: decoding cannot start here.
const NON_SYNC: u32 = 1 << 16;

/// Reads a `moof`: calls `found` with each sample and the index of its track. `next_dts` holds, by track, where a
/// fragment without a time of its own continues, and is brought up to date.
pub(super) fn moof(
    moof: BoxIn<'_>,
    tracks: &[Track],
    next_dts: &mut [i64],
    mut found: impl FnMut(usize, SampleRef),
) -> Result<(), Mp4Error> {
    let too_many = |offset| Mp4Error::Malformed {
        offset,
        kind: "trun".into(),
        reason: format!("fragments hold more than {FRAGMENT_SAMPLES_MAX} samples at once"),
    };
    let mut count = 0usize;
    // Where data of a fragment without any offset lies: behind that of the one before.
    let mut data_end = moof.offset;
    for traf in moof.children(0) {
        let traf = traf?;
        if &traf.kind != b"traf" {
            continue;
        }
        let Some(header) = traf.child(b"tfhd")? else { continue };
        let header: Tfhd = header.read()?;
        let base = match header.base_data_offset {
            Some(base) => base,
            None if header.default_base_is_moof => moof.offset,
            None => data_end,
        };
        let track = tracks.iter().position(|track| track.id == header.track_id);
        let trex = track.and_then(|index| tracks[index].trex.as_ref());
        let duration =
            header.default_sample_duration.or(trex.map(|t| t.default_sample_duration)).unwrap_or(0);
        let size = header.default_sample_size.or(trex.map(|t| t.default_sample_size)).unwrap_or(0);
        let flags = header.default_sample_flags.or(trex.map(|t| t.default_sample_flags)).unwrap_or(0);
        let mut dts = track.map_or(0, |index| next_dts[index]);
        if let Some(tfdt) = traf.child(b"tfdt")? {
            let tfdt: Tfdt = tfdt.read()?;
            dts = tfdt.base_media_decode_time.min(1 << 56) as i64;
        }
        let mut at = base;
        for child in traf.children(0) {
            let child = child?;
            if &child.kind != b"trun" {
                continue;
            }
            let run: Trun = child.read()?;
            count = count.saturating_add(run.samples.len());
            if count > FRAGMENT_SAMPLES_MAX {
                return Err(too_many(child.offset));
            }
            if let Some(offset) = run.data_offset {
                at = base.saturating_add_signed(offset.into());
            }
            for entry in &run.samples {
                let sample = SampleRef {
                    offset: at,
                    size: entry.size.unwrap_or(size),
                    dts,
                    composition: entry.cts.map_or(0, |cts| i64::from(cts as i32)),
                    duration: entry.duration.unwrap_or(duration),
                    key: entry.flags.unwrap_or(flags) & NON_SYNC == 0,
                };
                at = at.saturating_add(sample.size.into());
                dts = dts.saturating_add(sample.duration.into());
                if let Some(index) = track {
                    found(index, sample);
                }
            }
        }
        data_end = at;
        if let Some(index) = track {
            next_dts[index] = dts;
        }
    }
    Ok(())
}
