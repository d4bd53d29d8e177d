//! Samples to parts to signed chunks, with an eye on what the encoder sends.

use std::collections::VecDeque;

use caudal_media::ingest::health::{Advisor, Facts};
use caudal_media::part::Part;
use caudal_media::sample::Ingest;
use caudal_media::segment::{Segmenter, SegmenterConfig};
use caudal_proto::chunk::{CHUNK_PAYLOAD_MAX, Flags, PartIn, Signer, VerifiedChunk};
use caudal_proto::id::{ChannelId, RenditionId, SecretKey};

use crate::clock::unix_us;

/// Chunks per second and substream that the chunk size aims at: fewer, and a parent's silence shows late; more, and headers,
/// signatures and acknowledgements cost more.
const CHUNKS_PER_SUBSTREAM: u64 = 2;
/// Smallest chunk that is aimed at: below it, headers cost more than the delay saved is worth.
const CHUNK_PAYLOAD_MIN: usize = 4 * 1024;
/// The rate is measured over this, and believed from half of it on, µs.
const RATE_WINDOW_US: u64 = 5_000_000;

/// Cuts and signs one broadcast.
#[derive(Debug)]
pub(super) struct Cutter {
    segmenter: Segmenter,
    advisor: Advisor,
    signer: Signer,
    substreams: u8,
    /// Capture time and bytes of parts.
    window: VecDeque<(u64, u64)>,
}

impl Cutter {
    pub(super) fn new(key: SecretKey, channel: ChannelId, epoch: u64, substreams: u8, rate_bps: u32) -> Self {
        let payload = chunk_payload(u64::from(rate_bps), substreams);
        Self {
            segmenter: Segmenter::new(SegmenterConfig::default()),
            advisor: Advisor::new(None),
            signer: Signer::new(key, channel, epoch, RenditionId(0), payload),
            substreams,
            window: VecDeque::new(),
        }
    }

    /// Takes what an ingest says; gives what the broadcaster should know.
    pub(super) fn push(&mut self, ingest: Ingest) -> Vec<String> {
        let mut said = Vec::new();
        if let Ingest::Warning(text) = &ingest {
            said.push(text.clone());
        }
        self.advisor.observe(&ingest);
        while let Some(advice) = self.advisor.poll_advice() {
            said.push(advice.text);
        }
        if let Err(error) = self.segmenter.push(ingest) {
            said.push(error.to_string());
        }
        said
    }

    /// The next whole part.
    pub(super) fn poll(&mut self) -> Option<Part> {
        self.segmenter.poll()
    }

    /// Signs a part, in chunks that suit the measured rate.
    pub(super) fn sign(&mut self, part: &Part) -> Vec<VerifiedChunk> {
        let payload = part.to_payload();
        self.measure(part.capture_unix_us, payload.len() as u64);
        let flags = Flags::default()
            .with(Flags::SEGMENT_START, part.segment_start)
            .with(Flags::DISCONTINUITY, part.discontinuity)
            .with(Flags::INIT, part.init.is_some());
        self.signer.sign(&PartIn { flags, capture_unix_us: part.capture_unix_us, payload }, unix_us())
    }

    /// The number that the next chunk will have.
    pub(super) fn next_number(&self) -> u64 {
        self.signer.next_number()
    }

    /// What arrives from the encoder.
    pub(super) fn facts(&self) -> Facts {
        self.advisor.facts()
    }

    fn measure(&mut self, capture_us: u64, bytes: u64) {
        self.window.push_back((capture_us, bytes));
        let oldest = |window: &VecDeque<(u64, u64)>| window.front().map_or(capture_us, |(at, _)| *at);
        while capture_us.saturating_sub(oldest(&self.window)) > RATE_WINDOW_US {
            self.window.pop_front();
        }
        let span = capture_us.saturating_sub(oldest(&self.window));
        if span > RATE_WINDOW_US / 2 {
            let bytes: u64 = self.window.iter().map(|(_, bytes)| bytes).sum();
            self.signer.set_payload_max(chunk_payload(bytes * 8_000_000 / span, self.substreams));
        }
    }
}

fn chunk_payload(rate_bps: u64, substreams: u8) -> usize {
    let bytes = rate_bps / 8 / (CHUNKS_PER_SUBSTREAM * u64::from(substreams));
    (bytes as usize).clamp(CHUNK_PAYLOAD_MIN, CHUNK_PAYLOAD_MAX)
}
