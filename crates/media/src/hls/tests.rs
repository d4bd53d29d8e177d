use super::*;
use crate::{
    fmp4::write_init,
    sample::{Codec, TrackConfig},
};

/// Init data of a picture this wide, with sound.
fn init(width: u32) -> Bytes {
    let avcc = [1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 2, 0x68, 0xee];
    let video = TrackConfig {
        codec: Codec::H264 { avcc: Bytes::copy_from_slice(&avcc) },
        timescale: 90_000,
        width,
        height: 720,
        channels: 0,
        sample_rate: 0,
    };
    let audio = TrackConfig {
        codec: Codec::Aac { config: Bytes::from_static(&[0x11, 0x90]) },
        timescale: 48_000,
        width: 0,
        height: 0,
        channels: 2,
        sample_rate: 48_000,
    };
    write_init(&[&video, &audio]).unwrap()
}

const START_US: u64 = 1_704_067_200_000_000;

fn part(number: u64, segment_start: bool) -> Part {
    Part {
        number,
        segment_start,
        discontinuity: false,
        capture_unix_us: START_US + 200_000 * number,
        duration_us: 200_000,
        init: segment_start.then(|| init(1280)),
        media: Bytes::from(vec![number as u8; 5000]),
    }
}

/// A playlist of `parts` parts, segments of five.
fn playlist(parts: u64) -> Playlist {
    let mut playlist = Playlist::new(PlaylistConfig::default());
    for number in 0..parts {
        playlist.push(part(number, number % 5 == 0)).unwrap();
    }
    playlist
}

fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

fn ready(playlist: &Playlist, text: &str) -> String {
    match playlist.media_playlist(&query(text)) {
        PlaylistAnswer::Ready(body) => body,
        other => panic!("{text}: {other:?}"),
    }
}

fn waits(playlist: &Playlist, text: &str) -> bool {
    matches!(playlist.media_playlist(&query(text)), PlaylistAnswer::Wait)
}

fn refused(playlist: &Playlist, text: &str) -> bool {
    matches!(playlist.media_playlist(&query(text)), PlaylistAnswer::BadRequest(_))
}

#[test]
fn a_low_latency_playlist_as_the_specification_writes_it() {
    let expected = "\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.630000,CAN-SKIP-UNTIL=12.000000
#EXT-X-PART-INF:PART-TARGET=0.210000
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI=\"init-0.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2024-01-01T00:00:00.000Z
#EXT-X-PART:DURATION=0.200000,URI=\"part-0.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.200000,URI=\"part-0.1.m4s\"
#EXT-X-PART:DURATION=0.200000,URI=\"part-0.2.m4s\"
#EXT-X-PART:DURATION=0.200000,URI=\"part-0.3.m4s\"
#EXT-X-PART:DURATION=0.200000,URI=\"part-0.4.m4s\"
#EXTINF:1.000000,
seg-0.m4s
#EXT-X-PROGRAM-DATE-TIME:2024-01-01T00:00:01.000Z
#EXT-X-PART:DURATION=0.200000,URI=\"part-1.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.200000,URI=\"part-1.1.m4s\"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-1.2.m4s\"
";
    assert_eq!(ready(&playlist(7), ""), expected);
}

#[test]
fn the_multivariant_playlist_names_codecs_size_and_rate() {
    let body = playlist(7).multivariant_playlist().unwrap();
    // 5 × 5000 bytes in a second.
    let line = "#EXT-X-STREAM-INF:BANDWIDTH=200000,AVERAGE-BANDWIDTH=200000,CODECS=\"avc1.64001f,mp4a.40.2\",\
                RESOLUTION=1280x720\nlive.m3u8\n";
    assert!(body.ends_with(line), "{body}");
    assert_eq!(playlist(0).multivariant_playlist(), None);
}

#[test]
fn blocking_requests_wait_for_their_part_and_no_further() {
    // Segments 0 and 1 are complete, 2 has parts 0 and 1.
    let mut playlist = playlist(12);
    for (text, wait) in [
        ("_HLS_msn=0&_HLS_part=3", false),
        ("_HLS_msn=1", false),
        ("_HLS_msn=2&_HLS_part=1", false),
        ("_HLS_msn=2&_HLS_part=2", true),
        ("_HLS_msn=2", true),
        ("_HLS_msn=3", true),
        ("_HLS_msn=3&_HLS_part=0", true),
        // Past the end of a complete segment means the next one's first part, which is there.
        ("_HLS_msn=1&_HLS_part=5", false),
    ] {
        assert_eq!(waits(&playlist, text), wait, "{text}");
    }
    assert!(refused(&playlist, "_HLS_msn=4"));
    assert!(refused(&playlist, "_HLS_msn=2&_HLS_part=17"));
    assert!(Query::parse("_HLS_part=1").is_err());
    assert!(Query::parse("_HLS_msn=-1").is_err());
    playlist.push(part(12, false)).unwrap();
    assert!(ready(&playlist, "_HLS_msn=2&_HLS_part=2").contains("part-2.2.m4s\"\n#EXT-X-PRELOAD-HINT"));
    // The segment ends one part early: who waits for its fourth part gets the next segment's first.
    assert!(waits(&playlist, "_HLS_msn=2&_HLS_part=3"));
    playlist.push(part(13, true)).unwrap();
    assert!(!waits(&playlist, "_HLS_msn=2&_HLS_part=3"));
    playlist.end();
    assert!(
        ready(&playlist, "_HLS_msn=99").ends_with("seg-3.m4s\n#EXT-X-ENDLIST\n"),
        "nothing more can come"
    );
}

#[test]
fn without_a_complete_segment_a_playlist_waits() {
    assert!(waits(&playlist(0), ""));
    assert!(waits(&playlist(5), "_HLS_msn=0&_HLS_part=1"));
    assert!(refused(&playlist(5), "_HLS_msn=7"));
    assert!(!waits(&playlist(6), ""));
}

#[test]
fn delta_updates_skip_what_is_older_than_six_targets() {
    let playlist = playlist(5 * 40 + 2);
    let (full, delta) = (ready(&playlist, ""), ready(&playlist, "_HLS_msn=39&_HLS_skip=YES"));
    // 40.4 s in the window; whatever ends more than 12 s before its end may be skipped.
    assert!(delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=28\n#EXT-X-PROGRAM-DATE-TIME"), "{delta}");
    assert!(!delta.contains("#EXT-X-MAP"), "the client has the map of what it skips");
    assert!(delta.contains("#EXT-X-MEDIA-SEQUENCE:0\n"));
    let rest = delta.split_once("SEGMENTS=28\n").unwrap().1;
    assert!(full.ends_with(rest), "a delta is the end of the full playlist");
    // Parts are listed for the last three targets only.
    assert!(!full.contains("part-33.0.m4s") && full.contains("part-34.4.m4s"), "{full}");
    assert!(!ready(&self::playlist(12), "_HLS_skip=YES").contains("EXT-X-SKIP"), "nothing is old enough");
}

#[test]
fn the_window_slides_and_counts_what_left() {
    let mut playlist = playlist(5 * 10);
    let mut change = part(50, true);
    (change.discontinuity, change.init) = (true, Some(init(640)));
    playlist.push(change).unwrap();
    assert!(ready(&playlist, "").contains("#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-1.mp4\"\n"));
    assert!(playlist.multivariant_playlist().unwrap().contains("RESOLUTION=640x720"));
    assert_eq!(playlist.init(0), Some(init(1280)));
    for number in 51..5 * 80 {
        let mut next = part(number, number % 5 == 0);
        next.init = next.init.map(|_| init(640));
        playlist.push(next).unwrap();
    }
    let body = ready(&playlist, "");
    assert!((60_000_000..61_000_001).contains(&playlist.duration_us()));
    assert!(body.contains("#EXT-X-MEDIA-SEQUENCE:20\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "{body}");
    assert!(
        body.contains("#EXT-X-MAP:URI=\"init-1.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2024-01-01T00:00:20.000Z")
    );
    assert_eq!((playlist.init(0), playlist.segment(19)), (None, None));
}

#[test]
fn names_in_the_playlist_lead_to_the_bytes() {
    let playlist = playlist(7);
    let bytes = |n: u64| Bytes::from(vec![n as u8; 5000]);
    let get = |name: &str| playlist.resource(Resource::parse(name).unwrap());
    assert_eq!(get("init-0.mp4"), ResourceAnswer::Ready(vec![init(1280)]));
    assert_eq!(get("seg-0.m4s"), ResourceAnswer::Ready((0..5).map(bytes).collect()));
    assert_eq!(get("part-1.1.m4s"), ResourceAnswer::Ready(vec![bytes(6)]));
    assert_eq!(get("part-1.2.m4s"), ResourceAnswer::Wait, "the preload hint");
    for gone in ["part-1.3.m4s", "part-0.5.m4s", "seg-9.m4s", "init-7.mp4"] {
        assert_eq!(get(gone), ResourceAnswer::NotFound);
    }
    for junk in ["", "seg-.m4s", "seg-+1.m4s", "part-1.m4s", "part-1.-2.m4s", "init-0.m4s", "../seg-1.m4s"] {
        assert_eq!(Resource::parse(junk), None, "{junk}");
    }
    for same in ["init-00.mp4", "seg-01.m4s", "seg-00.m4s", "part-01.1.m4s", "part-1.01.m4s", "part-1.00.m4s"]
    {
        assert_eq!(Resource::parse(same), None, "{same}: a cache would keep it once more");
    }
}

#[test]
fn targets_cover_every_part_and_segment_and_do_not_waver() {
    let mut playlist = playlist(7);
    let target = |playlist: &Playlist| {
        ready(playlist, "").lines().find(|l| l.contains("PART-TARGET")).unwrap().to_owned()
    };
    let before = target(&playlist);
    // A millisecond of jitter, and the short last part of a segment.
    for (number, duration_us) in [(7, 201_000), (8, 199_000), (9, 40_000)] {
        playlist.push(Part { duration_us, ..part(number, false) }).unwrap();
    }
    assert_eq!(target(&playlist), before);
    for number in 10..50 {
        playlist.push(part(number, number == 10)).unwrap();
    }
    playlist.push(part(50, true)).unwrap();
    assert!(ready(&playlist, "").contains("#EXT-X-TARGETDURATION:8\n"), "a segment of 8 s");
}

#[test]
fn parts_that_cannot_be_played_are_refused() {
    let mut playlist = Playlist::new(PlaylistConfig::default());
    assert_eq!(playlist.push(part(3, false)), Err(HlsError::NoSegment(3)));
    let junk = Part { init: Some(Bytes::from_static(b"junk")), ..part(0, true) };
    assert!(matches!(playlist.push(junk), Err(HlsError::BadInit { part: 0, .. })));
    assert!(matches!(playlist.push(Part { init: None, ..part(0, true) }), Err(HlsError::BadInit { .. })));
    playlist.push(part(5, true)).unwrap();
    playlist.end();
    assert_eq!(playlist.push(part(6, false)), Err(HlsError::Ended));
}

#[test]
fn a_stream_without_key_frames_stays_within_the_window() {
    let mut playlist = Playlist::new(PlaylistConfig::default());
    for number in 0..10_000 {
        playlist.push(part(number, number == 0)).unwrap();
    }
    assert!(playlist.duration_us() <= 200_000 * (WINDOW_PARTS_MAX as u64 + 1));
}

#[test]
fn init_data_that_changes_with_every_part_counts_as_what_is_kept() {
    let bytes_max = 1 << 20;
    let mut playlist = Playlist::new(PlaylistConfig { bytes_max, ..PlaylistConfig::default() });
    for number in 0..100_u32 {
        let mut part = part(u64::from(number), true);
        // A hostile source: other padding each time, and no time that passes.
        let mut padded = init(1280).to_vec();
        padded.extend_from_slice(&(200_000_u32).to_be_bytes());
        padded.extend_from_slice(b"free");
        padded.extend_from_slice(&number.to_be_bytes());
        padded.resize(padded.len() + 200_000 - 12, 0);
        (part.init, part.duration_us) = (Some(padded.into()), 0);
        playlist.push(part).unwrap();
    }
    let kept = (0..100).filter_map(|id| playlist.init(id)).map(|init| init.len()).sum::<usize>();
    assert!((1..=bytes_max + 400_000).contains(&kept), "{kept} bytes of init data are kept");
}
