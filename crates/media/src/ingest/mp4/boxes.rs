//! From `moov` to the tracks that can be played (ISO/IEC 14496-12 §8, 14496-14 §5.6, 14496-15 §5.4).
//!
//! Walks boxes itself and hands the leaves that matter to `mp4-atom`, so that a strange box beside them (there are
//! many in the wild) cannot make a file unplayable. Never reads sample data.

use bytes::Bytes;
use mp4_atom::{Atom, Co64, Ctts, Elst, Mdhd, Mvhd, Stco, Stsc, Stss, Stsz, Stts, Trex};

use super::super::codec;
use super::super::timeline::rescale;
use super::Mp4Error;
use super::tables::{ChunkOffsets, Tables};
use crate::fmp4::TIMESCALE_MAX;
use crate::sample::{TrackConfig, TrackKind};

/// One track of the file that can be played.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) id: u32,
    pub(super) kind: TrackKind,
    pub(super) config: TrackConfig,
    pub(super) tables: Tables,
    /// From the file's decode times to the presentation timeline of its edit list, in the track's timescale.
    pub(super) edit: i64,
    /// Values that fragments of this track inherit.
    pub(super) trex: Option<Trex>,
    /// Bytes before each NAL unit, for video.
    pub(super) length_size: usize,
    /// What every audio unit lasts. Files tell the last one's shorter (what was asked for) and odd first ones.
    pub(super) unit_duration: Option<u32>,
}

/// What a sample description says.
struct Description {
    kind: TrackKind,
    config: TrackConfig,
    length_size: usize,
    unit_duration: Option<u32>,
}

/// What `moov` says.
#[derive(Debug, Default)]
pub(super) struct Movie {
    pub(super) tracks: Vec<Track>,
    pub(super) fragmented: bool,
    /// What is left out, in words for the broadcaster.
    pub(super) warnings: Vec<String>,
}

/// A box in memory, which starts at `offset` of the file and whose body does at `body_offset`.
#[derive(Debug, Clone, Copy)]
pub(super) struct BoxIn<'a> {
    pub(super) kind: [u8; 4],
    pub(super) offset: u64,
    pub(super) body_offset: u64,
    pub(super) body: &'a [u8],
}

impl<'a> BoxIn<'a> {
    /// The boxes in this one's body, after `skip` bytes; ends with an error when one does not fit.
    pub(super) fn children(self, skip: usize) -> impl Iterator<Item = Result<BoxIn<'a>, Mp4Error>> {
        let mut rest = self.body.get(skip..).unwrap_or_default();
        let mut offset = self.body_offset + skip as u64;
        std::iter::from_fn(move || {
            // Fewer bytes than a header are padding (QuickTime ends lists with four zeros).
            if rest.len() < 8 {
                return None;
            }
            let mut len = u64::from(u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]));
            let kind = [rest[4], rest[5], rest[6], rest[7]];
            let mut head = 8;
            if len == 1 {
                len = rest.get(8..16).map_or(0, |b| b.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
                head = 16;
            } else if len == 0 {
                len = rest.len() as u64;
            }
            let at = offset;
            let found = usize::try_from(len)
                .ok()
                .filter(|len| *len >= head)
                .and_then(|len| rest.split_at_checked(len));
            let Some((whole, after)) = found else {
                rest = &[];
                return Some(Err(Mp4Error::Malformed {
                    offset: at,
                    kind: text(kind),
                    reason: "its length is wrong".into(),
                }));
            };
            rest = after;
            offset += len;
            Some(Ok(BoxIn { kind, offset: at, body_offset: at + head as u64, body: &whole[head..] }))
        })
    }

    /// The first child of a kind.
    pub(super) fn child(self, kind: &[u8; 4]) -> Result<Option<BoxIn<'a>>, Mp4Error> {
        for child in self.children(0) {
            let child = child?;
            if &child.kind == kind {
                return Ok(Some(child));
            }
        }
        Ok(None)
    }

    fn need(self, kind: &[u8; 4]) -> Result<BoxIn<'a>, Mp4Error> {
        self.child(kind)?.ok_or_else(|| Mp4Error::Malformed {
            offset: self.offset,
            kind: text(self.kind),
            reason: format!("it has no “{}” box", text(*kind)),
        })
    }

    /// The body as `mp4-atom` reads it.
    pub(super) fn read<A: Atom>(self) -> Result<A, Mp4Error> {
        A::decode_body(&mut &*self.body).map_err(|error| Mp4Error::Malformed {
            offset: self.offset,
            kind: text(self.kind),
            reason: error.to_string(),
        })
    }

    fn read_child<A: Atom>(self) -> Result<Option<A>, Mp4Error> {
        self.child(A::KIND.as_ref())?.map(BoxIn::read).transpose()
    }
}

pub(super) fn text(kind: [u8; 4]) -> String {
    kind.escape_ascii().to_string()
}

/// Reads a `moov` box.
pub(super) fn movie(moov: BoxIn<'_>) -> Result<Movie, Mp4Error> {
    let mut movie = Movie::default();
    let timescale = moov.read_child::<Mvhd>()?.map_or(1000, |mvhd| mvhd.timescale);
    let mut defaults: Vec<Trex> = Vec::new();
    if let Some(mvex) = moov.child(b"mvex")? {
        movie.fragmented = true;
        for child in mvex.children(0) {
            let child = child?;
            if &child.kind == b"trex" {
                defaults.push(child.read()?);
            }
        }
    }
    for child in moov.children(0) {
        let child = child?;
        if &child.kind != b"trak" {
            continue;
        }
        let Some(mut track) = self::track(child, timescale, &mut movie.warnings)? else { continue };
        if movie.tracks.iter().any(|known| known.kind == track.kind) {
            let what = if track.kind == TrackKind::Video { "picture" } else { "sound" };
            movie.warnings.push(format!("The file has several {what} tracks; the first is played."));
            continue;
        }
        track.trex = defaults.iter().find(|trex| trex.track_id == track.id).cloned();
        movie.tracks.push(track);
    }
    Ok(movie)
}

/// Reads a `trak` box. `None` when it is neither picture nor sound, or of a codec that is not supported.
fn track(
    trak: BoxIn<'_>,
    movie_timescale: u32,
    warnings: &mut Vec<String>,
) -> Result<Option<Track>, Mp4Error> {
    let mdia = trak.need(b"mdia")?;
    let handler = mdia.need(b"hdlr")?;
    match handler.body.get(8..12) {
        Some(b"vide" | b"soun") => {}
        _ => return Ok(None),
    }
    let mdhd: Mdhd = mdia.need(b"mdhd")?.read()?;
    if !(1..=TIMESCALE_MAX).contains(&mdhd.timescale) {
        let reason = format!("its timescale is {}; 1 to {TIMESCALE_MAX} is expected", mdhd.timescale);
        return Err(Mp4Error::Malformed { offset: mdia.offset, kind: "mdhd".into(), reason });
    }
    let stbl = mdia.need(b"minf")?.need(b"stbl")?;
    let Some(Description { kind, config, length_size, unit_duration }) =
        description(stbl.need(b"stsd")?, mdhd.timescale, warnings)?
    else {
        return Ok(None);
    };
    let tkhd = trak.need(b"tkhd")?;
    // Creation and modification time before the id: 2 × 4 bytes in version 0, 2 × 8 in version 1.
    let at = if tkhd.body.first() == Some(&1) { 20 } else { 12 };
    let id = tkhd.body.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let edits: Option<Elst> = match trak.child(b"edts")? {
        Some(edts) => edts.read_child()?,
        None => None,
    };
    let edit = edit_offset(edits.as_ref(), movie_timescale, mdhd.timescale, warnings);
    let chunks = match (stbl.read_child::<Co64>()?, stbl.read_child::<Stco>()?) {
        (Some(co64), _) => ChunkOffsets::Wide(co64.entries),
        (None, Some(stco)) => ChunkOffsets::Narrow(stco.entries),
        (None, None) => ChunkOffsets::Narrow(Vec::new()),
    };
    let tables = Tables {
        stts: stbl.read_child::<Stts>()?.unwrap_or_default().entries,
        ctts: stbl.read_child::<Ctts>()?.unwrap_or_default().entries,
        stsc: stbl.read_child::<Stsc>()?.unwrap_or_default().entries,
        sizes: stbl.read_child::<Stsz>()?.unwrap_or_default().samples,
        chunks,
        sync: if kind == TrackKind::Audio {
            None
        } else {
            stbl.read_child::<Stss>()?.map(|stss| stss.entries)
        },
    };
    Ok(Some(Track { id, kind, config, tables, edit, trex: None, length_size, unit_duration }))
}

/// What an edit list adds to every time of its track: a delay before it starts, less what is cut off its front.
fn edit_offset(
    edits: Option<&Elst>,
    movie_timescale: u32,
    timescale: u32,
    warnings: &mut Vec<String>,
) -> i64 {
    let mut delay = 0i128;
    let mut rest = edits.map(|elst| &elst.entries[..]).unwrap_or_default();
    while let [first, after @ ..] = rest {
        let Some(media_time) = first.media_time else {
            delay += i128::from(first.segment_duration) * i128::from(timescale)
                / i128::from(movie_timescale.max(1));
            rest = after;
            continue;
        };
        if after.iter().any(|edit| edit.media_time.is_some()) {
            let what =
                "The file has cuts in its edit list; it is played without them. Re-encode it to apply them.";
            warnings.push(what.to_owned());
        }
        return (delay - i128::from(media_time)).clamp(-(1 << 56), 1 << 56) as i64;
    }
    0
}

/// Finds the codec configuration in a sample description box.
fn description(
    stsd: BoxIn<'_>,
    timescale: u32,
    warnings: &mut Vec<String>,
) -> Result<Option<Description>, Mp4Error> {
    // Version, flags and entry count come before the entries.
    let mut entries = stsd.children(8);
    let Some(entry) = entries.next().transpose()? else {
        let reason = "it describes no codec".to_owned();
        return Err(Mp4Error::Malformed { offset: stsd.offset, kind: text(stsd.kind), reason });
    };
    if entries.next().is_some() {
        warnings.push(
            "The file changes its codec settings midway; only what uses the first ones is played.".into(),
        );
    }
    let bad = |reason: String| Mp4Error::Malformed { offset: entry.offset, kind: text(entry.kind), reason };
    match &entry.kind {
        b"avc1" | b"avc3" => {
            let avcc = find(entry, &[78], b"avcC")?.ok_or_else(|| bad("it has no “avcC” box".into()))?;
            let avcc = Bytes::copy_from_slice(avcc.body);
            let (config, info) =
                codec::h264_track(avcc, timescale).map_err(|error| bad(error.to_string()))?;
            let length_size = info.length_size;
            Ok(Some(Description { kind: TrackKind::Video, config, length_size, unit_duration: None }))
        }
        b"mp4a" => {
            // QuickTime's second and third version of the entry are longer, and wrap `esds` in `wave`.
            let mut esds = find(entry, &[28, 44, 64], b"esds")?;
            if let (None, Some(wave)) = (esds, find(entry, &[28, 44, 64], b"wave")?) {
                esds = wave.child(b"esds")?;
            }
            let esds = esds.ok_or_else(|| bad("it has no “esds” box".into()))?;
            let Some(config) = audio_specific_config(esds.body) else {
                warnings.push(unsupported("sound", "not AAC", "-c:v copy -c:a aac"));
                return Ok(None);
            };
            let config = Bytes::copy_from_slice(config);
            let (config, info) =
                codec::aac_track(config, Some(timescale)).map_err(|error| bad(error.to_string()))?;
            let unit = rescale(info.frame_len.into(), info.sample_rate, timescale)
                .clamp(1, i64::from(u32::MAX)) as u32;
            Ok(Some(Description {
                kind: TrackKind::Audio,
                config,
                length_size: 0,
                unit_duration: Some(unit),
            }))
        }
        b"encv" | b"enca" => {
            warnings.push("A track of the file is encrypted and is left out.".into());
            Ok(None)
        }
        other => {
            let (what, fix) = match other {
                b"hvc1" | b"hev1" => ("H.265/HEVC", "-c:v libx264 -c:a copy"),
                b"av01" => ("AV1", "-c:v libx264 -c:a copy"),
                b"vp08" | b"vp09" => ("VP8 or VP9", "-c:v libx264 -c:a copy"),
                b"Opus" => ("Opus", "-c:v copy -c:a aac"),
                b"ac-3" | b"ec-3" => ("Dolby Digital", "-c:v copy -c:a aac"),
                b".mp3" => ("MP3", "-c:v copy -c:a aac"),
                _ => ("of another codec", "-c:v libx264 -c:a aac"),
            };
            let name = text(*other);
            warnings.push(unsupported(&format!("track “{name}”"), what, fix));
            Ok(None)
        }
    }
}

fn unsupported(track: &str, what: &str, fix: &str) -> String {
    format!(
        "The file's {track} is {what}, which is not supported yet, and is left out. \
         Convert it: ffmpeg -i INPUT {fix} OUTPUT.mp4"
    )
}

/// A child box of a sample entry whose fixed fields have one of these lengths.
fn find<'a>(entry: BoxIn<'a>, skips: &[usize], kind: &[u8; 4]) -> Result<Option<BoxIn<'a>>, Mp4Error> {
    for skip in skips {
        // With the wrong length the boxes make no sense, which is no error.
        let found = entry.children(*skip).map_while(Result::ok).find(|child| &child.kind == kind);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The `AudioSpecificConfig` in an `esds` body (ISO/IEC 14496-1 §7.2.6), or `None` when it is not AAC.
fn audio_specific_config(esds: &[u8]) -> Option<&[u8]> {
    let (tag, es) = descriptor(esds.get(4..)?)?;
    let flags = *es.get(2).filter(|_| tag == 3)?;
    let mut skip = 3;
    if flags & 0x80 != 0 {
        skip += 2;
    }
    if flags & 0x40 != 0 {
        skip += 1 + usize::from(*es.get(skip)?);
    }
    if flags & 0x20 != 0 {
        skip += 2;
    }
    let (tag, decoder) = descriptor(es.get(skip..)?)?;
    // 0x40: MPEG-4 audio; 0x66–0x68: MPEG-2 AAC.
    if tag != 4 || !matches!(decoder.first(), Some(0x40 | 0x66..=0x68)) {
        return None;
    }
    let (tag, config) = descriptor(decoder.get(13..)?)?;
    (tag == 5).then_some(config)
}

/// A descriptor: tag, length in up to four 7-bit groups, body.
fn descriptor(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, mut rest) = bytes.split_first()?;
    let mut len = 0;
    for _ in 0..4 {
        let (byte, after) = rest.split_first()?;
        rest = after;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((*tag, rest.get(..len)?))
}
