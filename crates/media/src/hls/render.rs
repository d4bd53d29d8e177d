//! The text of playlists (draft-pantos-hls-rfc8216bis §4.4).

use std::fmt::{self, Write as _};

use super::{MEDIA_URI, Playlist, RenditionReport, Resource, Variant, window::Segment};
use crate::sample::TrackKind;

/// The delta update and part listing rules count in target durations (§4.4.3.8, §6.2.2).
const SKIP_TARGETS: u64 = 6;
const PARTS_LISTED_TARGETS: u64 = 3;
/// Playlists are in this version: EXT-X-SKIP needs 9.
const VERSION: u32 = 9;

pub(super) fn media(playlist: &Playlist, skip: bool) -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String cannot fail.
    let _ = write_media(&mut out, playlist, skip);
    out
}

fn write_media(out: &mut String, playlist: &Playlist, skip: bool) -> fmt::Result {
    let window = &playlist.window;
    let part_target_us = window.part_target_us();
    let target_us = u64::from(playlist.target_duration_s) * 1_000_000;
    let first = window.segments().next();
    writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{VERSION}")?;
    writeln!(out, "#EXT-X-TARGETDURATION:{}", playlist.target_duration_s)?;
    writeln!(
        out,
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},CAN-SKIP-UNTIL={}",
        Seconds(3 * part_target_us),
        Seconds(SKIP_TARGETS * target_us)
    )?;
    writeln!(out, "#EXT-X-PART-INF:PART-TARGET={}", Seconds(part_target_us))?;
    writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.map_or(0, |segment| segment.msn))?;
    writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", window.discontinuities_gone)?;
    writeln!(out, "#EXT-X-INDEPENDENT-SEGMENTS")?;

    let mut to_end_us = window.duration_us();
    let mut skipped = 0;
    if skip {
        let old = window.segments().take_while(|segment| {
            let after_us = to_end_us - segment.duration_us;
            let skippable = segment.complete && after_us > SKIP_TARGETS * target_us;
            to_end_us = if skippable { after_us } else { to_end_us };
            skippable
        });
        skipped = old.count();
        if skipped > 0 {
            writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
        }
    }
    // A skipped segment takes its EXT-X-MAP with it: the client has it already.
    let mut init =
        skipped.checked_sub(1).and_then(|last| window.segments().nth(last)).map(|segment| segment.init);
    let parts_from_us = PARTS_LISTED_TARGETS * target_us;
    for segment in window.segments().skip(skipped) {
        if segment.discontinuity {
            writeln!(out, "#EXT-X-DISCONTINUITY")?;
        }
        if init != Some(segment.init) {
            init = Some(segment.init);
            writeln!(out, "#EXT-X-MAP:URI=\"{}\"", Resource::Init(segment.init))?;
        }
        write_segment(out, segment, !playlist.ended && to_end_us <= parts_from_us + segment.duration_us)?;
        to_end_us -= segment.duration_us;
    }
    if playlist.ended {
        writeln!(out, "#EXT-X-ENDLIST")?;
    } else if let Some((msn, index)) = window.next_part() {
        writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{}\"", Resource::Part(msn, index))?;
    }
    Ok(())
}

fn write_segment(out: &mut String, segment: &Segment, with_parts: bool) -> fmt::Result {
    writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", Date(segment.date_unix_us))?;
    if with_parts {
        for (index, part) in segment.parts.iter().enumerate() {
            let uri = Resource::Part(segment.msn, index);
            let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
            writeln!(out, "#EXT-X-PART:DURATION={},URI=\"{uri}\"{independent}", Seconds(part.duration_us))?;
        }
    }
    if segment.complete {
        writeln!(out, "#EXTINF:{},\n{}", Seconds(segment.duration_us), Resource::Segment(segment.msn))?;
    }
    Ok(())
}

pub(super) fn multivariant(playlist: &Playlist) -> Option<String> {
    let window = &playlist.window;
    let init = window.newest_init()?;
    let codecs: Vec<&str> = init.tracks.iter().map(|track| &track.codecs[..]).collect();
    let rates = window.rates()?;
    let picture = init.tracks.iter().find(|track| track.kind == TrackKind::Video);
    let resolution = picture
        .filter(|track| track.config.width > 0 && track.config.height > 0)
        .map(|track| (track.config.width, track.config.height));
    Some(variants(&[Variant {
        uri: MEDIA_URI.to_owned(),
        codecs: codecs.join(","),
        peak_bps: rates.peak_bps,
        average_bps: Some(rates.average_bps),
        resolution,
        frames_per_second: None,
    }]))
}

pub(super) fn reports(out: &mut String, reports: &[RenditionReport]) {
    for RenditionReport { uri, last: (msn, part) } in reports {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={msn},LAST-PART={part}");
    }
}

pub(super) fn variants(variants: &[Variant]) -> String {
    let mut out = format!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-INDEPENDENT-SEGMENTS\n");
    for variant in variants {
        // Writing to a String cannot fail.
        let _ = write_variant(&mut out, variant);
    }
    out
}

fn write_variant(out: &mut String, variant: &Variant) -> fmt::Result {
    write!(out, "#EXT-X-STREAM-INF:BANDWIDTH={}", variant.peak_bps)?;
    if let Some(average) = variant.average_bps {
        write!(out, ",AVERAGE-BANDWIDTH={average}")?;
    }
    write!(out, ",CODECS=\"{}\"", variant.codecs)?;
    if let Some((width, height)) = variant.resolution {
        write!(out, ",RESOLUTION={width}x{height}")?;
    }
    if let Some(frames) = variant.frames_per_second {
        write!(out, ",FRAME-RATE={frames:.3}")?;
    }
    writeln!(out, "\n{}", variant.uri)
}

/// Microseconds as decimal seconds, exact.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Microseconds since the Unix epoch as ISO 8601 in UTC, with milliseconds.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0 / 1000;
        let (days, day_ms) = (ms / 86_400_000, ms % 86_400_000);
        // Count in 400-year cycles that begin on 1 March, so that the leap day is the last of a year.
        let shifted = days + 719_468;
        let (era, day) = (shifted / 146_097, shifted % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hour, minute) = (day_ms / 3_600_000, day_ms / 60_000 % 60);
        let (second, milli) = (day_ms / 1000 % 60, day_ms % 1000);
        write!(f, "{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_iso_8601() {
        for (unix_us, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_789_000, "2024-02-29T12:34:56.789Z"),
            (1_735_689_599_000_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Date(unix_us).to_string(), expected);
        }
    }
}
