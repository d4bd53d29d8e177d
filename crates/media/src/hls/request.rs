//! What a player asks for: delivery directives and resource names, from the text of a request.

/// The delivery directives of a media playlist request (draft-pantos-hls-rfc8216bis §6.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Query {
    /// `_HLS_msn`: answer once this segment (or its part `part`) is in the playlist.
    pub msn: Option<u64>,
    /// `_HLS_part`
    pub part: Option<usize>,
    /// `_HLS_skip=YES` or `v2`: a delta update will do.
    pub skip: bool,
}

impl Query {
    /// Reads the part of a URL after `?`. Unknown parameters are ignored.
    ///
    /// # Errors
    /// What to answer with status 400.
    pub fn parse(query: &str) -> Result<Self, &'static str> {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "_HLS_msn" => parsed.msn = Some(value.parse().map_err(|_| "_HLS_msn is not a whole number")?),
                "_HLS_part" => {
                    parsed.part = Some(value.parse().map_err(|_| "_HLS_part is not a whole number")?);
                }
                "_HLS_skip" => parsed.skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        if parsed.part.is_some() && parsed.msn.is_none() {
            return Err("_HLS_part needs _HLS_msn");
        }
        Ok(parsed)
    }
}

/// A name that playlists use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `init-ID.mp4`
    Init(u64),
    /// `seg-MSN.m4s`
    Segment(u64),
    /// `part-MSN.INDEX.m4s`
    Part(u64, usize),
}

impl Resource {
    /// Reads a file name; `None` when playlists never name such a file.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(id) = name.strip_prefix("init-").and_then(|rest| rest.strip_suffix(".mp4")) {
            return Some(Self::Init(number(id)?));
        }
        let stem = name.strip_suffix(".m4s")?;
        if let Some(msn) = stem.strip_prefix("seg-") {
            return Some(Self::Segment(number(msn)?));
        }
        let (msn, index) = stem.strip_prefix("part-")?.split_once('.')?;
        Some(Self::Part(number(msn)?, usize::try_from(number(index)?).ok()?))
    }
}

impl core::fmt::Display for Resource {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Init(id) => write!(f, "init-{id}.mp4"),
            Self::Segment(msn) => write!(f, "seg-{msn}.m4s"),
            Self::Part(msn, index) => write!(f, "part-{msn}.{index}.m4s"),
        }
    }
}

/// A whole number in the one way to write it: `parse` alone would take a sign and leading zeros, and a cache would keep one object
/// under any number of names.
pub fn number(text: &str) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}
