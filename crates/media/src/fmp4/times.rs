//! Decode times of a fragment, read and moved in place: nothing but `tfdt` and `prft` changes, and no length does.
//!
//! ISO/IEC 14496-12 §8.8.12 (tfdt), §8.8.7 (tfhd), §8.16.5 (prft).

use std::ops::Range;

use bytes::Bytes;

use super::Fmp4Error;
use super::init::{Boxes, InitTrack};

/// A time in a fragment: whose it is, and where it stands.
struct Found {
    track: u32,
    at: Range<usize>,
    ticks: u64,
}

/// When the earliest track of a fragment begins, µs; `None` when no `tfdt` says so.
///
/// # Errors
/// [`Fmp4Error::Malformed`] when the boxes are not as they should be.
pub fn fragment_start_us(media: &[u8], tracks: &[InitTrack]) -> Result<Option<u64>, Fmp4Error> {
    let times = decode_times(media)?;
    let us = |found: &Found| {
        let timescale = timescale(tracks, found.track)?;
        u64::try_from(u128::from(found.ticks) * 1_000_000 / u128::from(timescale)).ok()
    };
    Ok(times.iter().filter_map(us).min())
}

/// The fragment with all its times moved by `by_us`, at the earliest to 0.
///
/// # Errors
/// [`Fmp4Error::Malformed`] when the boxes are not as they should be.
pub fn move_times(media: &Bytes, tracks: &[InitTrack], by_us: i64) -> Result<Bytes, Fmp4Error> {
    let mut times = decode_times(media)?;
    times.extend(reference_time(media)?);
    let mut out = media.to_vec();
    for found in times {
        let Some(timescale) = timescale(tracks, found.track) else { continue };
        let ticks = i128::from(found.ticks) + i128::from(by_us) * i128::from(timescale) / 1_000_000;
        let ticks = u64::try_from(ticks.max(0)).unwrap_or(u64::MAX).to_be_bytes();
        let len = found.at.len();
        // A 32-bit time does not grow.
        out[found.at].copy_from_slice(&ticks[8 - len..]);
    }
    Ok(out.into())
}

fn timescale(tracks: &[InitTrack], id: u32) -> Option<u32> {
    tracks.iter().find(|track| track.id == id).map(|track| track.config.timescale).filter(|t| *t > 0)
}

/// The `tfdt` of each `traf` of each `moof`.
fn decode_times(media: &[u8]) -> Result<Vec<Found>, Fmp4Error> {
    let mut times = Vec::new();
    for moof in children(media, 0..media.len(), *b"moof")? {
        for traf in children(media, moof, *b"traf")? {
            let Some(tfhd) = children(media, traf.clone(), *b"tfhd")?.into_iter().next() else { continue };
            let track = u32_at(media, tfhd.start + 4, &tfhd)?;
            let Some(tfdt) = children(media, traf, *b"tfdt")?.into_iter().next() else { continue };
            times.push(time(media, track, tfdt.start, tfdt.start + 4, &tfdt)?);
        }
    }
    Ok(times)
}

/// The media time of a `prft`.
fn reference_time(media: &[u8]) -> Result<Option<Found>, Fmp4Error> {
    let Some(prft) = children(media, 0..media.len(), *b"prft")?.into_iter().next() else { return Ok(None) };
    let track = u32_at(media, prft.start + 4, &prft)?;
    time(media, track, prft.start, prft.start + 16, &prft).map(Some)
}

/// The time at `at`, of 64 bits when the version that stands at `version` says so.
fn time(
    media: &[u8],
    track: u32,
    version: usize,
    at: usize,
    within: &Range<usize>,
) -> Result<Found, Fmp4Error> {
    let high = u32_at(media, at, within)?;
    if media[version] == 0 {
        return Ok(Found { track, at: at..at + 4, ticks: u64::from(high) });
    }
    let low = u32_at(media, at + 4, within)?;
    Ok(Found { track, at: at..at + 8, ticks: u64::from(high) << 32 | u64::from(low) })
}

fn u32_at(media: &[u8], at: usize, within: &Range<usize>) -> Result<u32, Fmp4Error> {
    let bytes = media.get(at..at + 4).filter(|_| at + 4 <= within.end);
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_be_bytes).ok_or_else(|| Fmp4Error::malformed("box", within.start, "too short"))
}

/// Where the bodies of the boxes of one kind stand.
fn children(media: &[u8], within: Range<usize>, kind: [u8; 4]) -> Result<Vec<Range<usize>>, Fmp4Error> {
    let mut found = Vec::new();
    for child in Boxes::new(&media[within.clone()]) {
        let child = child?;
        if child.kind == kind {
            let start = within.start + child.body_at;
            found.push(start..start + child.body.len());
        }
    }
    Ok(found)
}
