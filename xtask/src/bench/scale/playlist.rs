//! Reads live media playlists (RFC 8216, section 4.3) as far as a viewer of ordinary HLS needs them: which segments there are, how
//! long they last, and when each ended by the wall clock.

use anyhow::{Context, Result, ensure};

/// More segments in one playlist than a live one lists.
const SEGMENTS_MAX: usize = 1_000;

/// One live playlist, as it was served.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Playlist {
    /// The longest that a segment lasts, in seconds.
    pub(super) target_s: f64,
    pub(super) segments: Vec<Segment>,
}

/// A segment of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) uri: String,
    pub(super) duration_s: f64,
    /// When its last picture was taken, in seconds since 1970.
    pub(super) ends_unix_s: f64,
}

impl Playlist {
    /// Reads a playlist in which each segment has a time.
    pub(super) fn read(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        ensure!(lines.next() == Some("#EXTM3U"), "no playlist: the first line is not #EXTM3U");
        let (mut playlist, mut sequence) = (Self::default(), 0);
        let (mut duration_s, mut starts_unix_s) = (None, None);
        for line in lines {
            if let Some(value) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                playlist.target_s = value.parse().context("EXT-X-TARGETDURATION is no number")?;
            } else if let Some(value) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                sequence = value.parse().context("EXT-X-MEDIA-SEQUENCE is no number")?;
            } else if let Some(value) = line.strip_prefix("#EXTINF:") {
                let value = value.split(',').next().unwrap_or_default();
                duration_s = Some(value.parse::<f64>().context("EXTINF is no number")?);
            } else if let Some(value) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
                starts_unix_s = Some(unix_s(value).with_context(|| format!("{value:?} is no time"))?);
            } else if !line.starts_with('#') && !line.is_empty() {
                let duration_s = duration_s.take().context("a segment without EXTINF")?;
                let starts: f64 =
                    starts_unix_s.take().context("a segment without EXT-X-PROGRAM-DATE-TIME")?;
                ensure!(playlist.segments.len() < SEGMENTS_MAX, "more than {SEGMENTS_MAX} segments");
                let (uri, ends_unix_s) = (line.to_owned(), starts + duration_s);
                playlist.segments.push(Segment { sequence, uri, duration_s, ends_unix_s });
                sequence += 1;
            }
        }
        ensure!(playlist.target_s > 0.0, "a playlist without EXT-X-TARGETDURATION");
        Ok(playlist)
    }

    /// What a viewer fetches after segment `last`: the next one; where it has none yet, or fell out of the list, the one from
    /// which three are left (RFC 8216, section 6.3.3).
    pub(super) fn next_after(&self, last: Option<u64>) -> Option<&Segment> {
        let next = last.and_then(|last| self.segments.iter().find(|segment| segment.sequence == last + 1));
        let is_waiting =
            self.segments.last().is_some_and(|newest| last.is_some_and(|last| newest.sequence <= last));
        if next.is_some() || is_waiting {
            return next;
        }
        self.segments.get(self.segments.len().saturating_sub(super::PLAYOUT_SEGMENTS))
    }
}

/// Seconds since 1970 of a time such as `2026-11-27T17:30:01.123+0000` (or `Z`, or `+00:00`).
fn unix_s(text: &str) -> Option<f64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    let rest = text.get(17..)?;
    let zone = rest.find(['Z', '+', '-'])?;
    let second: f64 = rest[..zone].parse().ok()?;
    let digits: String = rest[zone + 1..].chars().filter(char::is_ascii_digit).collect();
    let sign = if rest[zone..].starts_with('-') { -1 } else { 1 };
    let offset_min = match digits.len() {
        0 => 0,
        4 => sign * (digits[..2].parse::<i64>().ok()? * 60 + digits[2..].parse::<i64>().ok()?),
        _ => return None,
    };
    // Days of the proleptic Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let minutes = (days * 24 + hour) * 60 + minute - offset_min;
    Some((minutes * 60) as f64 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n\
        #EXT-X-INDEPENDENT-SEGMENTS\n#EXTINF:2.000000,\n#EXT-X-PROGRAM-DATE-TIME:1970-01-02T00:00:01.500+0000\n7.ts\n\
        #EXTINF:1.5,\n#EXT-X-PROGRAM-DATE-TIME:1970-01-02T00:00:03.500+0000\n8.ts\n";

    #[test]
    fn segments_have_numbers_and_ends() {
        let playlist = Playlist::read(TEXT).unwrap();
        assert_eq!(playlist.target_s, 2.0);
        let [first, second] = playlist.segments.as_slice() else { panic!("{playlist:?}") };
        assert_eq!((first.sequence, first.uri.as_str(), first.ends_unix_s), (7, "7.ts", 86_403.5));
        assert_eq!((second.sequence, second.duration_s, second.ends_unix_s), (8, 1.5, 86_405.0));
    }

    #[test]
    fn what_is_no_playlist_is_refused() {
        for bad in ["", "<html>", "#EXTM3U\n7.ts\n", "#EXTM3U\n#EXT-X-TARGETDURATION:two\n", "#EXTM3U\n"] {
            assert!(Playlist::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_read_with_their_zone() {
        assert_eq!(unix_s("1970-01-01T00:00:00.000+0000"), Some(0.0));
        // As `date --date=… +%s` says.
        assert_eq!(unix_s("2026-11-27T17:30:01.250+0000"), Some(1_795_800_601.25));
        assert_eq!(unix_s("2026-11-27T18:30:01.250+01:00"), Some(1_795_800_601.25));
        assert_eq!(unix_s("2024-02-29T12:00:00Z"), Some(1_709_208_000.0));
        assert_eq!(unix_s("yesterday"), None);
    }

    #[test]
    fn a_viewer_begins_three_from_the_end_and_goes_on_in_order() {
        let segment = |sequence| Segment { sequence, uri: String::new(), duration_s: 2.0, ends_unix_s: 0.0 };
        let playlist = Playlist { target_s: 2.0, segments: (10..16).map(segment).collect() };
        let next = |last| playlist.next_after(last).map(|segment| segment.sequence);
        assert_eq!(next(None), Some(13));
        assert_eq!(next(Some(13)), Some(14));
        assert_eq!(next(Some(15)), None, "the next is not there yet");
        assert_eq!(next(Some(4)), Some(13), "fell out of the list");
    }
}
