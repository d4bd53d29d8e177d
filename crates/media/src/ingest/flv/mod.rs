//! FLV: what RTMP carries, and files of it.
//!
//! [`Tags`] owns the meaning of tag bodies (Adobe FLV 10.1 annex E.4.2–E.4.3, Enhanced RTMP v2) and turns them into
//! [`Ingest`]; [`Demuxer`] owns the framing of files (annex E.2–E.3). Codecs are told apart here only: another one
//! is another arm in `video` or `audio`.

mod demux;

use std::collections::{BTreeSet, VecDeque};

use bytes::{Buf, Bytes};

pub use demux::{Demuxer, FlvError, TAG_LEN_MAX, Tag};

use super::codec::{self, AvcInfo};
use super::timeline::{COMPOSITION_TICKS_MAX, Origin, Stamped, TICKS_PER_SECOND, Timeline, Unroll};
use crate::sample::{Ingest, TrackConfig, TrackKind};

/// FLV tag type of sound.
pub const TAG_AUDIO: u8 = 8;
/// FLV tag type of picture.
pub const TAG_VIDEO: u8 = 9;
/// FLV tag type of metadata, which is not used.
pub const TAG_SCRIPT: u8 = 18;

/// Ticks per millisecond.
const TICKS_PER_MS: i64 = TICKS_PER_SECOND as i64 / 1000;
/// Different warnings that one stream may raise.
const WARNINGS_MAX: usize = 32;

/// Reads tag bodies, in order, into [`Ingest`] events.
///
/// Tolerates what encoders send: metadata, unknown packet types, repeated configurations (no event), changed ones
/// (a new [`Ingest::Track`]), empty access units, either track alone. What is left out is said once in a
/// [`Ingest::Warning`].
#[derive(Debug, Default)]
pub struct Tags {
    timeline: Timeline,
    unroll: Option<Unroll>,
    video: Option<(TrackConfig, AvcInfo)>,
    audio: Option<TrackConfig>,
    warned: BTreeSet<String>,
}

/// One tag while it is looked at.
struct Packet {
    stamp_ms: u32,
    arrived_unix_us: u64,
}

impl Tags {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream beside another, see [`Timeline::beside`].
    pub fn beside(origin: Origin) -> Self {
        Self { timeline: Timeline::beside(origin), ..Self::default() }
    }

    /// A stream behind others that are over, see [`Timeline::at`].
    pub fn at(ticks: i64) -> Self {
        Self { timeline: Timeline::at(ticks), ..Self::default() }
    }

    /// See [`Timeline::as_stamped`].
    pub fn as_stamped() -> Self {
        Self { timeline: Timeline::as_stamped(), ..Self::default() }
    }

    /// See [`Timeline::origin`].
    pub fn origin(&self) -> Option<Origin> {
        self.timeline.origin()
    }

    /// What follows continues what came before, whatever its timestamps: a file starts over.
    pub fn splice(&mut self) {
        self.timeline.splice();
        self.unroll = None;
    }

    /// What follows comes from another connection: it continues the timeline behind an [`Ingest::Discontinuity`], and
    /// tracks are announced again only if they differ.
    pub fn restart(&mut self) {
        self.timeline.restart();
        self.unroll = None;
        self.warned.clear();
    }

    /// The same, beside another that went on meanwhile.
    pub fn restart_beside(&mut self, origin: Origin) {
        self.restart();
        self.timeline.restart_beside(origin);
    }

    /// The same where nobody went on, but others came to `ticks`.
    pub fn restart_at(&mut self, ticks: i64) {
        self.restart();
        self.timeline.restart_at(ticks);
    }

    /// Where the timeline ends, in ticks of [`TICKS_PER_SECOND`].
    pub fn end_ticks(&self) -> i64 {
        self.timeline.end_ticks()
    }

    /// Reads one tag: its type (8, 9 or 18; others are ignored), timestamp in ms (wraps at 32 bits) and body.
    pub fn push(
        &mut self,
        tag_type: u8,
        timestamp_ms: u32,
        body: Bytes,
        arrived_unix_us: u64,
        out: &mut VecDeque<Ingest>,
    ) {
        let packet = Packet { stamp_ms: timestamp_ms, arrived_unix_us };
        match tag_type {
            TAG_VIDEO => self.video_tag(&packet, body, out),
            TAG_AUDIO => self.audio_tag(&packet, body, out),
            _ => {}
        }
    }

    fn video_tag(&mut self, packet: &Packet, mut body: Bytes, out: &mut VecDeque<Ingest>) {
        if body.is_empty() {
            return;
        }
        let first = body.get_u8();
        let frame_type = first >> 4 & 7;
        // 5: a command to the player (start and end of seeking), no picture.
        if frame_type == 5 {
            return;
        }
        let key = matches!(frame_type, 1 | 4);
        if first & 0x80 != 0 {
            return self.enhanced_video(packet, first & 0x0f, key, body, out);
        }
        match first & 0x0f {
            7 if body.len() >= 4 => {
                let packet_type = body.get_u8();
                let composition_ms = signed_24(&mut body);
                self.h264(packet, packet_type, composition_ms, key, body, out);
            }
            7 => {}
            2 => self.refuse_video("Sorenson H.263", out),
            4 => self.refuse_video("VP6", out),
            12 => self.refuse_video("H.265/HEVC (in the old, unofficial FLV form)", out),
            other => self.refuse_video(&format!("FLV video codec {other}"), out),
        }
    }

    /// Enhanced RTMP: packet type, then a FourCC. Types 0–3 are used; HDR metadata (4) and later ones are not.
    fn enhanced_video(
        &mut self,
        packet: &Packet,
        packet_type: u8,
        key: bool,
        mut body: Bytes,
        out: &mut VecDeque<Ingest>,
    ) {
        if matches!(packet_type, 6 | 7) {
            let what =
                "Multitrack or extended video packets are not supported: publish one picture and one sound.";
            return self.warn(what.to_owned(), out);
        }
        if body.len() < 4 || !matches!(packet_type, 0..=3) {
            return;
        }
        let four_cc = body.split_to(4);
        match &four_cc[..] {
            b"avc1" => {
                let composition_ms = match packet_type {
                    1 if body.len() >= 3 => signed_24(&mut body),
                    1 => return,
                    _ => 0,
                };
                // 3 is "coded frames without composition time"; the rest is numbered as in the old form.
                let packet_type = if packet_type == 3 { 1 } else { packet_type };
                self.h264(packet, packet_type, composition_ms, key, body, out);
            }
            b"hvc1" => self.refuse_video("H.265/HEVC", out),
            b"av01" => self.refuse_video("AV1", out),
            b"vp09" => self.refuse_video("VP9", out),
            b"vp08" => self.refuse_video("VP8", out),
            other => self.refuse_video(&four_cc_text(other), out),
        }
    }

    /// An H.264 packet: 0 = configuration, 1 = access unit, 2 = end of sequence (another may follow).
    fn h264(
        &mut self,
        packet: &Packet,
        packet_type: u8,
        composition_ms: i64,
        key: bool,
        data: Bytes,
        out: &mut VecDeque<Ingest>,
    ) {
        match packet_type {
            0 => match codec::h264_track(data, TICKS_PER_SECOND) {
                Ok((config, info)) => {
                    if self.video.as_ref().map(|(known, _)| known) != Some(&config) {
                        out.push_back(Ingest::Track(TrackKind::Video, config.clone()));
                        self.video = Some((config, info));
                    }
                }
                Err(error) => self.warn(format!("Video configuration ignored: {error}."), out),
            },
            1 if data.is_empty() => {}
            1 => {
                let Some((_, info)) = &self.video else {
                    let what = "Video frames came before the H.264 sequence header and were left out. \
                                Stop and start the stream in the encoder.";
                    return self.warn(what.to_owned(), out);
                };
                let Some(unit) = codec::h264_access_unit(&data, info.length_size) else {
                    let what = "A damaged video frame was left out (its NAL unit lengths do not add up).";
                    return self.warn(what.to_owned(), out);
                };
                // Parameter sets or an access unit delimiter alone are no picture; nothing to time or to show.
                if unit.slices {
                    let stamped =
                        self.stamp(packet, TrackKind::Video, composition_ms, key || unit.idr, unit.data, out);
                    self.timeline.push(stamped, out);
                }
            }
            _ => {}
        }
    }

    fn audio_tag(&mut self, packet: &Packet, mut body: Bytes, out: &mut VecDeque<Ingest>) {
        if body.is_empty() {
            return;
        }
        let first = body.get_u8();
        match first >> 4 {
            9 => self.enhanced_audio(packet, first & 0x0f, body, out),
            10 if !body.is_empty() => {
                let packet_type = body.get_u8();
                self.aac(packet, packet_type, body, out);
            }
            10 => {}
            2 | 14 => self.refuse_audio("MP3", out),
            11 => self.refuse_audio("Speex", out),
            4..=6 => self.refuse_audio("Nellymoser", out),
            7 | 8 => self.refuse_audio("G.711", out),
            0 | 1 | 3 => self.refuse_audio("PCM", out),
            other => self.refuse_audio(&format!("FLV audio codec {other}"), out),
        }
    }

    /// Enhanced RTMP: packet type, then a FourCC. 0 = configuration, 1 = access unit.
    fn enhanced_audio(
        &mut self,
        packet: &Packet,
        packet_type: u8,
        mut body: Bytes,
        out: &mut VecDeque<Ingest>,
    ) {
        if matches!(packet_type, 5 | 7) {
            let what =
                "Multitrack or extended audio packets are not supported: publish one picture and one sound.";
            return self.warn(what.to_owned(), out);
        }
        if body.len() < 4 || !matches!(packet_type, 0 | 1) {
            return;
        }
        let four_cc = body.split_to(4);
        match &four_cc[..] {
            b"mp4a" => self.aac(packet, packet_type, body, out),
            b"Opus" => self.refuse_audio("Opus", out),
            b"fLaC" => self.refuse_audio("FLAC", out),
            b".mp3" => self.refuse_audio("MP3", out),
            b"ac-3" | b"ec-3" => self.refuse_audio("Dolby Digital", out),
            other => self.refuse_audio(&four_cc_text(other), out),
        }
    }

    fn aac(&mut self, packet: &Packet, packet_type: u8, data: Bytes, out: &mut VecDeque<Ingest>) {
        match packet_type {
            // Some encoders repeat an empty configuration.
            0 if data.is_empty() => {}
            0 => match codec::aac_track(data, None) {
                Ok((config, info)) => {
                    if self.audio.as_ref() != Some(&config) {
                        self.timeline.set_audio(info.sample_rate, info.frame_len);
                        out.push_back(Ingest::Track(TrackKind::Audio, config.clone()));
                        self.audio = Some(config);
                    }
                }
                Err(error) => self.warn(format!("Audio configuration ignored: {error}."), out),
            },
            1 if data.is_empty() => {}
            1 if self.audio.is_none() => {
                let what = "Audio came before the AAC sequence header and was left out. \
                            Stop and start the stream in the encoder.";
                self.warn(what.to_owned(), out);
            }
            1 => {
                let stamped = self.stamp(packet, TrackKind::Audio, 0, true, data, out);
                self.timeline.push(stamped, out);
            }
            _ => {}
        }
    }

    fn stamp(
        &mut self,
        packet: &Packet,
        track: TrackKind,
        composition_ms: i64,
        key: bool,
        data: Bytes,
        out: &mut VecDeque<Ingest>,
    ) -> Stamped {
        let unroll = self.unroll.get_or_insert_with(|| Unroll::new(32));
        let dts = unroll.unroll(packet.stamp_ms.into()).saturating_mul(TICKS_PER_MS);
        let composition = composition_ms * TICKS_PER_MS;
        if composition.abs() > COMPOSITION_TICKS_MAX {
            let what = "Presentation times over 10 s away from their decode times are ignored: the encoder's are wrong.";
            self.warn(what.to_owned(), out);
        }
        Stamped { track, dts, composition, key, data, arrived_unix_us: packet.arrived_unix_us }
    }

    fn refuse_video(&mut self, codec: &str, out: &mut VecDeque<Ingest>) {
        let text = format!(
            "The picture is {codec}, which is not supported yet, and was left out. Send H.264: in OBS, Settings → \
             Output → Video Encoder: an H.264 one (x264, or a hardware H.264 encoder); in ffmpeg, -c:v libx264."
        );
        self.warn(text, out);
    }

    fn refuse_audio(&mut self, codec: &str, out: &mut VecDeque<Ingest>) {
        let text = format!(
            "The sound is {codec}, which is not supported yet, and was left out. Send AAC: in OBS, Settings → \
             Output → Audio Encoder: AAC; in ffmpeg, -c:a aac."
        );
        self.warn(text, out);
    }

    /// Says a thing once.
    fn warn(&mut self, text: String, out: &mut VecDeque<Ingest>) {
        if self.warned.len() < WARNINGS_MAX && self.warned.insert(text.clone()) {
            out.push_back(Ingest::Warning(text));
        }
    }
}

/// Takes a signed 24-bit number from the front; the caller has checked that it is there.
fn signed_24(body: &mut Bytes) -> i64 {
    let value = body.get_int(3);
    debug_assert!((-0x80_0000..0x80_0000).contains(&value));
    value
}

fn four_cc_text(four_cc: &[u8]) -> String {
    format!("“{}”", four_cc.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Codec, Sample};

    const ASC: &[u8] = &[0x11, 0x90];

    fn avcc(level: u8) -> Vec<u8> {
        let mut avcc = super::super::codec::tests::AVCC_720P.to_vec();
        avcc[3] = level;
        avcc
    }

    struct Feed(Tags, VecDeque<Ingest>);

    impl Feed {
        fn new() -> Self {
            Self(Tags::new(), VecDeque::new())
        }

        fn video(&mut self, ms: u32, head: &[u8], body: &[u8]) -> &mut Self {
            let bytes = Bytes::from([head, body].concat());
            self.0.push(TAG_VIDEO, ms, bytes, 1_000_000 + u64::from(ms) * 1000, &mut self.1);
            self
        }

        fn audio(&mut self, ms: u32, head: &[u8], body: &[u8]) -> &mut Self {
            let bytes = Bytes::from([head, body].concat());
            self.0.push(TAG_AUDIO, ms, bytes, 1_000_000 + u64::from(ms) * 1000, &mut self.1);
            self
        }

        fn samples(&self) -> Vec<&Sample> {
            self.1
                .iter()
                .filter_map(|event| if let Ingest::Sample(sample) = event { Some(sample) } else { None })
                .collect()
        }

        fn warnings(&self) -> Vec<&str> {
            self.1
                .iter()
                .filter_map(
                    |event| if let Ingest::Warning(text) = event { Some(text.as_str()) } else { None },
                )
                .collect()
        }

        fn tracks(&self) -> Vec<&TrackConfig> {
            self.1
                .iter()
                .filter_map(|event| if let Ingest::Track(_, config) = event { Some(config) } else { None })
                .collect()
        }
    }

    const IDR: &[u8] = &[0, 0, 0, 2, 0x65, 0x88];
    const P: &[u8] = &[0, 0, 0, 2, 0x41, 0x9a];

    #[test]
    fn configuration_repeated_is_silent_and_changed_is_a_track() {
        let mut feed = Feed::new();
        feed.video(0, &[0x17, 0, 0, 0, 0], &avcc(0x1f)).video(0, &[0x17, 1, 0, 0, 80], IDR);
        feed.video(40, &[0x17, 0, 0, 0, 0], &avcc(0x1f)).video(40, &[0x27, 1, 0xff, 0xff, 0xd8], P);
        feed.video(80, &[0x17, 2, 0, 0, 0], &[]);
        feed.video(80, &[0x17, 0, 0, 0, 0], &avcc(0x28)).video(80, &[0x17, 1, 0, 0, 0], IDR);
        assert_eq!(feed.tracks().len(), 2);
        assert_eq!((feed.tracks()[0].width, feed.tracks()[0].height), (1280, 720));
        let times: Vec<_> = feed.samples().iter().map(|s| (s.dts, s.pts, s.key)).collect();
        assert_eq!(times, [(0, 7200, true), (3600, 0, false), (7200, 7200, true)]);
        assert_eq!(feed.samples()[0].arrived_unix_us, 1_000_000);
        assert_eq!(feed.samples()[0].data, IDR);
        assert_eq!(feed.warnings(), [""; 0]);
    }

    #[test]
    fn audio_first_audio_only_and_the_exact_clock() {
        let mut feed = Feed::new();
        feed.audio(100, &[0xaf, 0], ASC).audio(100, &[0xaf, 1], &[1, 2, 3]).audio(121, &[0xaf, 1], &[4]);
        feed.audio(121, &[0xaf, 0], &[]).audio(142, &[0xaf, 1], &[]).audio(143, &[0xaf, 1], &[5]);
        assert_eq!(feed.tracks().len(), 1);
        assert_eq!((feed.tracks()[0].timescale, feed.tracks()[0].channels), (48_000, 2));
        assert_eq!(feed.samples().iter().map(|s| s.dts).collect::<Vec<_>>(), [0, 1024, 2048]);
    }

    #[test]
    fn codecs_unknown_are_named_once_with_what_to_set() {
        let mut feed = Feed::new();
        for ms in 0..3 {
            feed.video(ms, &[0x90], b"hvc1....").video(ms, &[0x90], b"av01....").video(
                ms,
                &[0x1c, 1, 0, 0, 0],
                b"x",
            );
            feed.audio(ms, &[0x90], b"Opus....").audio(ms, &[0x2f], b"mp3");
        }
        let warnings = feed.warnings();
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        assert!(
            warnings[0].contains("HEVC") && warnings[0].contains("OBS") && warnings[0].contains("libx264")
        );
        assert!(warnings[1].contains("AV1"));
        assert!(warnings[3].contains("Opus") && warnings[3].contains("AAC"));
        assert!(feed.samples().is_empty());
    }

    #[test]
    fn enhanced_avc1_and_mp4a_are_the_same_codecs() {
        let mut feed = Feed::new();
        feed.video(0, b"\x90avc1", &avcc(0x1f)).video(0, b"\x91avc1\x00\x00\x28", IDR).video(
            40,
            b"\xa3avc1",
            P,
        );
        feed.audio(0, b"\x90mp4a", ASC).audio(0, b"\x91mp4a", b"aac");
        feed.video(41, b"\x94avc1", b"hdr metadata").video(41, b"\x9f", b"");
        assert!(matches!(feed.tracks()[0].codec, Codec::H264 { .. }));
        assert!(matches!(feed.tracks()[1].codec, Codec::Aac { .. }));
        let times: Vec<_> = feed.samples().iter().map(|s| (s.dts, s.pts)).collect();
        assert_eq!(times, [(0, 3600), (3600, 3600), (0, 0)]);
        assert_eq!(feed.warnings(), [""; 0]);
    }

    #[test]
    fn frames_without_configuration_or_damaged_are_left_out_and_said() {
        let mut feed = Feed::new();
        feed.video(0, &[0x17, 1, 0, 0, 0], IDR).audio(0, &[0xaf, 1], b"aac");
        feed.video(0, &[0x17, 0, 0, 0, 0], b"junk").video(0, &[0x17, 0, 0, 0, 0], &avcc(0x1f));
        feed.video(0, &[0x17, 1, 0, 0, 0], &[0, 0, 0, 9, 0x65]).video(
            0,
            &[0x17, 1, 0, 0, 0],
            &[0, 0, 0, 1, 9],
        );
        feed.video(0, &[0x17, 1, 0, 0, 0], IDR);
        assert_eq!(feed.samples().len(), 1);
        assert_eq!(feed.warnings().len(), 4, "{:?}", feed.warnings());
    }

    #[test]
    fn random_bodies_never_panic() {
        let mut state = 99u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut feed = Feed::new();
        feed.video(0, &[0x17, 0, 0, 0, 0], &avcc(0x1f)).audio(0, &[0xaf, 0], ASC);
        let heads: [&[u8]; 7] =
            [&[0x17, 0, 0, 0, 0], &[0x27, 1], b"\x90avc1", b"\x91avc1", &[0xaf, 0], &[0xaf, 1], &[]];
        for round in 0..100_000u32 {
            let len = next() as usize % 48;
            let mut body = heads[next() as usize % heads.len()].to_vec();
            body.extend((0..len).map(|_| next() as u8));
            feed.0.push((next() % 20) as u8, next() as u32, body.into(), u64::from(round), &mut feed.1);
            feed.1.clear();
        }
        assert!(feed.0.warned.len() <= WARNINGS_MAX);
    }
}
