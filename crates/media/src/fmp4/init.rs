//! The init segment: `ftyp` + `moov` with no samples, and what a player or playlist reads from one.
//!
//! ISO/IEC 14496-12 §8.2 (moov), §8.8 (mvex, trex); CMAF header brands of ISO/IEC 23000-19 §7.
//! The same tracks always give the same bytes, so that a change of init data is a comparison.

use bytes::Bytes;
use mp4_atom::{
    Atom as _, Decode as _, Dinf, Dref, DrefEntry, Encode as _, FourCC, Ftyp, Hdlr, Header, Mdhd, Mdia, Minf,
    Moov, Mvex, Mvhd, Smhd, Stbl, Stco, Stsd, Tkhd, Trak, Trex, Url, Vmhd,
};

use super::{Fmp4Error, codec};
use crate::sample::{TrackConfig, TrackKind};

/// Most tracks read from one `moov`.
pub const TRACKS_MAX: usize = 16;

/// Finest timescale written, ticks per second: ten seconds still fit a 32-bit sample duration many times over.
pub const TIMESCALE_MAX: u32 = 100_000_000;

/// One track as an init segment describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitTrack {
    /// The id that fragments use.
    pub id: u32,
    /// Picture or sound.
    pub kind: TrackKind,
    /// Codec, timescale and size.
    pub config: TrackConfig,
    /// The RFC 6381 codec string, such as `avc1.64001f`.
    pub codecs: String,
}

/// Writes `ftyp` + `moov` for these tracks (video has track id 1, audio 2).
///
/// # Errors
/// [`Fmp4Error::Config`] when a configuration is not one a player could read.
pub fn write_init(tracks: &[&TrackConfig]) -> Result<Bytes, Fmp4Error> {
    let mut traks = Vec::with_capacity(tracks.len());
    let mut trex = Vec::with_capacity(tracks.len());
    for config in tracks {
        traks.push(trak(config)?);
        trex.push(Trex {
            track_id: codec::kind(&config.codec).track_id(),
            default_sample_description_index: 1,
            ..Default::default()
        });
    }
    let ftyp = Ftyp {
        major_brand: FourCC::new(b"iso6"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"cmfc", b"cmf2", b"mp41"].map(FourCC::new).to_vec(),
    };
    let moov = Moov {
        mvhd: Mvhd { timescale: 1000, next_track_id: 3, ..mvhd() },
        mvex: Some(Mvex { mehd: None, trex }),
        trak: traks,
        ..Default::default()
    };
    let mut out = Vec::with_capacity(1024);
    let written = ftyp.encode(&mut out).and_then(|()| moov.encode(&mut out));
    written.map_err(|e| Fmp4Error::malformed("moov", 0, e))?;
    Ok(out.into())
}

fn mvhd() -> Mvhd {
    Mvhd {
        creation_time: 0,
        modification_time: 0,
        timescale: 1000,
        duration: 0,
        rate: 1.into(),
        volume: 1.into(),
        matrix: Default::default(),
        next_track_id: 1,
    }
}

fn trak(config: &TrackConfig) -> Result<Trak, Fmp4Error> {
    let kind = codec::kind(&config.codec);
    if !(1..=TIMESCALE_MAX).contains(&config.timescale) {
        let reason = format!("a timescale of {}, outside 1 to {TIMESCALE_MAX}", config.timescale);
        return Err(Fmp4Error::Config { track: kind, reason });
    }
    let is_video = kind == TrackKind::Video;
    let (handler, name) = match kind {
        TrackKind::Video => (b"vide", "VideoHandler"),
        TrackKind::Audio => (b"soun", "SoundHandler"),
    };
    Ok(Trak {
        tkhd: Tkhd {
            track_id: kind.track_id(),
            enabled: true,
            in_movie: true,
            volume: u8::from(!is_video).into(),
            width: u16::try_from(config.width).unwrap_or(u16::MAX).into(),
            height: u16::try_from(config.height).unwrap_or(u16::MAX).into(),
            ..Default::default()
        },
        mdia: Mdia {
            mdhd: Mdhd { timescale: config.timescale, language: "und".into(), ..Default::default() },
            hdlr: Hdlr { handler: FourCC::new(handler), name: name.into() },
            minf: Minf {
                vmhd: is_video.then(Vmhd::default),
                smhd: (!is_video).then(Smhd::default),
                dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
                stbl: Stbl {
                    stsd: Stsd { codecs: vec![codec::sample_entry(config)?] },
                    stco: Some(Stco::default()),
                    ..Default::default()
                },
                ..Default::default()
            },
        },
        ..Default::default()
    })
}

/// Reads the tracks of an init segment (other boxes around the `moov` are skipped).
///
/// # Errors
/// [`Fmp4Error::Malformed`] when there is no readable `moov`; [`Fmp4Error::UnsupportedCodec`] for an unknown one.
pub fn read_init(init: &[u8]) -> Result<Vec<InitTrack>, Fmp4Error> {
    for found in Boxes::new(init) {
        let found = found?;
        if found.kind == *b"moov" {
            return read_moov(found.at, found.body);
        }
    }
    Err(Fmp4Error::malformed("init segment", init.len(), "no moov box"))
}

pub(super) fn read_moov(at: usize, body: &[u8]) -> Result<Vec<InitTrack>, Fmp4Error> {
    let mut buf = body;
    let moov = Moov::decode_body(&mut buf).map_err(|e| Fmp4Error::malformed("moov", at, e))?;
    if moov.trak.len() > TRACKS_MAX {
        return Err(Fmp4Error::TooMany { what: "tracks in one moov", max: TRACKS_MAX });
    }
    let mut tracks = Vec::with_capacity(moov.trak.len());
    for trak in &moov.trak {
        let Some(entry) = trak.mdia.minf.stbl.stsd.codecs.first() else {
            return Err(Fmp4Error::malformed("stsd", at, "no sample entry"));
        };
        let config = codec::from_sample_entry(entry, trak.mdia.mdhd.timescale)?;
        if config.timescale == 0 {
            return Err(Fmp4Error::malformed("mdhd", at, "a timescale of 0"));
        }
        tracks.push(InitTrack {
            id: trak.tkhd.track_id,
            kind: codec::kind(&config.codec),
            codecs: codec::codecs(&config.codec)?,
            config,
        });
    }
    Ok(tracks)
}

/// Top-level boxes of a buffer, one after another, checked against its length.
pub(super) struct Boxes<'a> {
    data: &'a [u8],
    at: usize,
}

pub(super) struct FoundBox<'a> {
    pub(super) kind: [u8; 4],
    /// Offset of the box header.
    pub(super) at: usize,
    /// Offset of the body.
    pub(super) body_at: usize,
    pub(super) body: &'a [u8],
}

impl<'a> Boxes<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<FoundBox<'a>, Fmp4Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let mut rest = self.data.get(at..).filter(|rest| !rest.is_empty())?;
        // Whatever is wrong, there is nothing after it.
        self.at = self.data.len();
        let available = rest.len();
        let header = match Header::decode(&mut rest) {
            Ok(header) => header,
            Err(e) => return Some(Err(Fmp4Error::malformed("box header", at, e))),
        };
        let size = header.size.unwrap_or(rest.len());
        let Some(body) = rest.get(..size) else {
            return Some(Err(Fmp4Error::malformed("box header", at, "the box is longer than the data")));
        };
        let body_at = at + (available - rest.len());
        self.at = body_at + size;
        Some(Ok(FoundBox { kind: header.kind.into(), at, body_at, body }))
    }
}
