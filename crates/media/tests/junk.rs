//! Bytes of strangers into everything that parses: errors, never a panic.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use bytes::Bytes;
use caudal_media::{
    fmp4,
    hls::{Playlist, PlaylistConfig, Query, Resource},
    part::Part,
    sample::{Ingest, Sample, TrackKind},
    segment::{Segmenter, SegmenterConfig},
};
use support::{Source, ingest, segment, stream};

/// A small generator with a printed seed; xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn read_everything(bytes: &Bytes) {
    let _ = fmp4::read_init(bytes);
    let _ = fmp4::read_samples(bytes);
    let _ = fmp4::prft_unix_us(bytes);
    if let Ok(part) = Part::from_payload(0, true, false, 0, bytes) {
        let mut playlist = Playlist::new(PlaylistConfig::default());
        let _ = playlist.push(part);
        let _ = playlist.multivariant_playlist();
    }
}

#[test]
fn random_and_damaged_bytes_never_panic() {
    let small = Source { seconds: "1", size: "64x64", ..Source::default() }.encode();
    let parts = segment(ingest(&small));
    let good =
        [stream(&parts[..2]), parts[0].to_payload(), parts[0].init.clone().unwrap(), small.slice(..4000)];
    let mut random = Random(0x5eed);
    for round in 0..40_000 {
        let bytes = if round % 4 == 0 {
            let len = random.below(300);
            random.bytes(len)
        } else {
            let mut bytes = good[random.below(good.len())].to_vec();
            for _ in 0..1 + random.below(6) {
                let at = random.below(bytes.len().min(2000));
                bytes[at] = if random.below(2) == 0 {
                    random.next() as u8
                } else {
                    [0, 1, 0x7f, 0xff][random.below(4)]
                };
            }
            if random.below(4) == 0 {
                bytes.truncate(random.below(bytes.len()));
            }
            bytes
        };
        read_everything(&bytes.into());
    }
}

#[test]
fn requests_of_strangers_never_panic() {
    let mut random = Random(7);
    let words = [
        "_HLS_msn=",
        "_HLS_part=",
        "_HLS_skip=",
        "YES",
        "&",
        "18446744073709551615",
        "-1",
        "seg-",
        "part-",
        ".",
        ".m4s",
    ];
    for _ in 0..20_000 {
        let text: String = (0..random.below(6)).map(|_| words[random.below(words.len())]).collect();
        let playlist = Playlist::new(PlaylistConfig::default());
        if let Ok(query) = Query::parse(&text) {
            let _ = playlist.media_playlist(&query);
        }
        if let Some(resource) = Resource::parse(&text) {
            let _ = playlist.resource(resource);
        }
    }
}

/// Tracks, times and sizes without any sense: whatever comes out is well formed, and times never run backwards.
#[test]
fn senseless_ingest_gives_well_formed_parts() {
    let small = Source { seconds: "1", size: "64x64", ..Source::default() }.encode();
    let announcements: Vec<Ingest> = ingest(&small).into_iter().take(2).collect();
    for seed in 1..150 {
        let mut random = Random(seed);
        let mut segmenter = Segmenter::new(SegmenterConfig::default());
        let mut parts: Vec<Part> = Vec::new();
        let mut clock = 0_i64;
        let mut kept = 0_u64;
        for _ in 0..400 {
            let item = match random.below(60) {
                0 => Ingest::Discontinuity,
                1 => Ingest::End,
                2..=5 => match announcements[random.below(2)].clone() {
                    Ingest::Track(kind, mut config) => {
                        config.timescale = [1, 1000, 48_000, 90_000, u32::MAX][random.below(5)];
                        config.width = random.next() as u32;
                        Ingest::Track(kind, config)
                    }
                    other => other,
                },
                kind => {
                    clock = match random.below(40) {
                        0 => random.next() as i64,
                        1 => clock.wrapping_sub(500),
                        _ => clock.saturating_add(random.below(4000) as i64),
                    };
                    Ingest::Sample(Sample {
                        track: if kind % 2 == 0 { TrackKind::Video } else { TrackKind::Audio },
                        dts: clock,
                        pts: if random.below(50) == 0 {
                            random.next() as i64
                        } else {
                            clock.wrapping_add(50)
                        },
                        key: random.below(10) == 0,
                        data: vec![0; random.below(100)].into(),
                        arrived_unix_us: if random.below(50) == 0 { random.next() } else { clock as u64 },
                    })
                }
            };
            let is_sample = matches!(item, Ingest::Sample(_));
            kept += u64::from(segmenter.push(item).is_ok() && is_sample);
            parts.extend(std::iter::from_fn(|| segmenter.poll()));
        }
        segmenter.push(Ingest::End).unwrap();
        parts.extend(std::iter::from_fn(|| segmenter.poll()));
        assert!(parts.first().is_none_or(|part| part.segment_start), "seed {seed}");
        let samples = fmp4::read_samples(&stream(&parts)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(
            samples.len() as u64 + segmenter.dropped_samples(),
            kept,
            "seed {seed}: samples must be accounted for"
        );
    }
}
