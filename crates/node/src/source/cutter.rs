//! Samples to parts to signed chunks, with an eye on what the encoder sends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use caudal_media::ingest::health::{Advisor, Facts};
use caudal_media::part::Part;
use caudal_media::sample::Ingest;
use caudal_media::segment::{Segmenter, SegmenterConfig};
use caudal_proto::chunk::{CHUNK_PAYLOAD_MAX, Flags, PartIn, Signer, VerifiedChunk};
use caudal_proto::id::{SecretKey, SwarmId};

use crate::clock::unix_us;

/// Chunks of each substream that the chunk size aims at in [`RATE_WINDOW_US`]: fewer, and a parent's silence shows late; more, and
/// headers, signatures and acknowledgements cost more. Where uplinks queue, a chunk that is half as long is passed on
/// twice as soon.
const CHUNKS_PER_SUBSTREAM: u64 = 10;
/// As many where uplinks do not queue.
const CHUNKS_PER_SUBSTREAM_CLEAR: u64 = 7;
/// Uplinks are clear once they have not queued for this long: each newcomer to a line that is nearly full makes it queue.
const CLEAR_AFTER: Duration = Duration::from_secs(8);
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
    /// Since when no chunk has waited on the viewers' uplinks.
    clear_since: Option<Instant>,
    clear: bool,
}

impl Cutter {
    pub(super) fn new(
        key: SecretKey,
        swarm: SwarmId,
        epoch: u64,
        substreams: u8,
        rate_bps: u32,
        traced_every: u64,
    ) -> Self {
        let payload = chunk_payload(u64::from(rate_bps), substreams, false);
        Self {
            segmenter: Segmenter::new(SegmenterConfig::default()),
            advisor: Advisor::new(None),
            signer: Signer::new(key, swarm.channel, epoch, swarm.rendition, payload)
                .with_traced(traced_every),
            substreams,
            window: VecDeque::new(),
            clear_since: None,
            clear: false,
        }
    }

    /// Whether the viewers' uplinks are clear now: decides how long the chunks signed from here on are.
    pub(super) fn uplinks(&mut self, now: Instant, clear: bool) {
        self.clear_since = clear.then(|| self.clear_since.unwrap_or(now));
        self.clear =
            self.clear_since.is_some_and(|since| now.saturating_duration_since(since) >= CLEAR_AFTER);
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
            self.signer.set_payload_max(chunk_payload(bytes * 8_000_000 / span, self.substreams, self.clear));
        }
    }
}

fn chunk_payload(rate_bps: u64, substreams: u8, clear: bool) -> usize {
    let chunks = if clear { CHUNKS_PER_SUBSTREAM_CLEAR } else { CHUNKS_PER_SUBSTREAM };
    let bytes = rate_bps * RATE_WINDOW_US / 8_000_000 / (chunks * u64::from(substreams));
    (bytes as usize).clamp(CHUNK_PAYLOAD_MIN, CHUNK_PAYLOAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_proto::id::ChannelId;

    /// Chunk payloads of the last of 100 parts of 25 kB, 200 ms apart, with uplinks that are clear in the seconds `clear`.
    fn payloads(clear: impl Fn(u64) -> bool) -> Vec<u16> {
        let key = SecretKey::from_bytes(&[7; 32]);
        let channel = ChannelId(key.public());
        let mut cutter = Cutter::new(key, channel.into(), 1, 8, 1_000_000, 500);
        let start = Instant::now();
        let mut last = Vec::new();
        for n in 0..100u64 {
            if n % 5 == 0 {
                cutter.uplinks(start + Duration::from_millis(n * 200), clear(n / 5));
            }
            let part = Part {
                number: n,
                segment_start: n == 0,
                discontinuity: false,
                capture_unix_us: 1_000_000 + n * 200_000,
                duration_us: 200_000,
                init: None,
                media: vec![0; 25_000].into(),
            };
            last = cutter.sign(&part).iter().map(|chunk| chunk.header().len).collect();
        }
        last
    }

    #[test]
    fn chunks_are_long_where_no_uplink_queues_and_short_where_one_does() {
        assert_eq!(payloads(|_| true).len(), 3);
        assert_eq!(payloads(|_| false).len(), 4);
        assert_eq!(payloads(|second| second != 14).len(), 4, "five seconds are not long enough to be sure");
        assert_eq!(payloads(|second| second >= 10).len(), 3);
    }
}
