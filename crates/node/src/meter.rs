//! What a viewer measures: chunk delay, continuity, startup, and a model player that is 1.5 s behind.
//!
//! Due chunks are counted from 1 s after joining whether or not playback began. A chunk that never came is due when
//! the one before it was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::report::{Chunks, Percentiles};

/// Playout delays that continuity is reported for, ms; the second is the model player's.
pub const PLAYOUT_DELAYS_MS: [u64; 4] = [1000, 1500, 2000, 3000];
/// After joining, nothing is due for this long.
const GRACE_US: u64 = 1_000_000;
/// A chunk is given up for the count when it is this late.
const GIVE_UP_US: u64 = 8_000_000;
/// Most numbers waiting to be counted.
const WAITING_MAX: usize = 8192;
/// Delays are kept to the millisecond up to here.
const DELAY_MS_MAX: usize = 10_000;

/// Measures one viewer.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    startup: Option<Duration>,
    /// The broadcast that was joined last, and when.
    epoch: Option<u64>,
    joined_unix_us: u64,
    /// The next number to count.
    next: u64,
    /// Numbers received and not counted: when signed, how late.
    waiting: BTreeMap<u64, (u64, u64)>,
    last_signed_us: u64,
    delays: Vec<u32>,
    delay_count: u64,
    delay_max_us: u64,
    /// Times between two arrivals, by ms.
    gaps: Vec<u32>,
    arrived_unix_us: Option<u64>,
    /// When the last chunk came.
    arrived: Option<Instant>,
    due: [u64; PLAYOUT_DELAYS_MS.len()],
    on_time: [u64; PLAYOUT_DELAYS_MS.len()],
    missing: u64,
    bytes: u64,
    chunks: u64,
    player: Option<Player>,
    stalls: u64,
}

/// A player that began `delay` behind and plays at rate 1.
#[derive(Debug)]
struct Player {
    /// Wall clock at which media position 0 plays.
    origin: Instant,
    /// Media received in order.
    media: Duration,
}

/// Behind by so much while chunks come: it stands still.
const STANDS_STILL_MS: i64 = 1_000;
/// A chunk within this long: they come.
const THEY_COME: Duration = Duration::from_secs(2);

impl Meter {
    /// A viewer whose process started at `started`.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            startup: None,
            epoch: None,
            joined_unix_us: 0,
            next: 0,
            waiting: BTreeMap::new(),
            last_signed_us: 0,
            delays: vec![0; DELAY_MS_MAX + 1],
            delay_count: 0,
            delay_max_us: 0,
            gaps: vec![0; DELAY_MS_MAX + 1],
            arrived_unix_us: None,
            arrived: None,
            due: [0; PLAYOUT_DELAYS_MS.len()],
            on_time: [0; PLAYOUT_DELAYS_MS.len()],
            missing: 0,
            bytes: 0,
            chunks: 0,
            player: None,
            stalls: 0,
        }
    }

    /// Joined (again) at chunk `number`. Before anything was played that is only a newer start: what is due counts from the
    /// first joining. Afterwards what is stepped over was due, and is missing.
    pub fn joined(&mut self, epoch: u64, number: u64, now_unix_us: u64) {
        if self.epoch.replace(epoch) == Some(epoch) {
            if self.startup.is_some() {
                return;
            }
            self.next = number;
            self.waiting = self.waiting.split_off(&number);
            self.last_signed_us = 0;
            return;
        }
        self.joined_unix_us = now_unix_us;
        self.next = number;
        self.waiting.clear();
        self.last_signed_us = 0;
    }

    /// Another rendition is followed from here on, whose chunks are numbered anew; `number` is the first that counts.
    pub fn changed(&mut self, number: u64, now_unix_us: u64) {
        self.joined_unix_us = now_unix_us;
        self.next = number;
        self.waiting.clear();
        self.last_signed_us = 0;
    }

    /// A chunk was verified.
    pub fn chunk(&mut self, number: u64, signed_unix_us: u64, len: u64, now_unix_us: u64) {
        if self.waiting.contains_key(&number) {
            // Given once more after a newer start.
            return;
        }
        self.bytes += len;
        self.chunks += 1;
        self.arrived = Some(Instant::now());
        if let Some(before) = self.arrived_unix_us.replace(now_unix_us) {
            let gap_us = now_unix_us.saturating_sub(before);
            self.gaps[((gap_us / 1000) as usize).min(DELAY_MS_MAX)] += 1;
        }
        let delay_us = now_unix_us.saturating_sub(signed_unix_us);
        if signed_unix_us >= self.joined_unix_us {
            self.delays[((delay_us / 1000) as usize).min(DELAY_MS_MAX)] += 1;
            self.delay_count += 1;
            self.delay_max_us = self.delay_max_us.max(delay_us);
        }
        if number >= self.next && self.waiting.len() < WAITING_MAX {
            self.waiting.insert(number, (signed_unix_us, delay_us));
        }
        self.count(now_unix_us);
    }

    /// Counts every number whose fate is known.
    pub fn count(&mut self, now_unix_us: u64) {
        while let Some((&first, &(first_signed, delay))) = self.waiting.first_key_value() {
            if first == self.next {
                self.last_signed_us = first_signed;
                self.waiting.remove(&first);
                self.book(first_signed, Some(delay));
            } else if now_unix_us > first_signed + GIVE_UP_US || self.waiting.len() >= WAITING_MAX {
                let signed = if self.last_signed_us == 0 { first_signed } else { self.last_signed_us };
                self.book(signed, None);
            } else {
                return;
            }
            self.next += 1;
        }
    }

    fn book(&mut self, signed_us: u64, delay_us: Option<u64>) {
        for (i, playout_ms) in PLAYOUT_DELAYS_MS.iter().enumerate() {
            let playout_us = playout_ms * 1000;
            if signed_us + playout_us <= self.joined_unix_us + GRACE_US {
                continue;
            }
            self.due[i] += 1;
            match delay_us {
                Some(delay) if delay <= playout_us => self.on_time[i] += 1,
                Some(_) => {}
                None if i == 1 => self.missing += 1,
                None => {}
            }
        }
    }

    /// A part came in order.
    pub fn part(&mut self, duration: Duration) {
        let now = Instant::now();
        self.startup.get_or_insert_with(|| now.duration_since(self.started));
        let delay = Duration::from_millis(PLAYOUT_DELAYS_MS[1]);
        let player = self.player.get_or_insert(Player { origin: now + delay, media: Duration::ZERO });
        let position = now.saturating_duration_since(player.origin);
        if position > player.media {
            // It stood still, and plays on from here.
            player.origin += position - player.media;
            self.stalls += 1;
        }
        player.media += duration;
    }

    /// Media ready beyond what the model player has played, ms; negative while it stands still.
    pub fn buffer_ms(&self) -> i64 {
        let Some(player) = &self.player else { return 0 };
        let position = Instant::now().saturating_duration_since(player.origin);
        player.media.as_millis() as i64 - position.as_millis() as i64
    }

    /// From process start to the first decodable part.
    pub fn startup_ms(&self) -> Option<f64> {
        self.startup.map(|startup| startup.as_secs_f64() * 1000.0)
    }

    /// Since the process started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Times that the model player stood still.
    pub fn stalls(&self) -> u64 {
        self.stalls + u64::from(self.stands_still())
    }

    /// Chunks come, and the model player has had nothing to play for a while: parts are missing, and no way around them has come yet.
    pub fn stands_still(&self) -> bool {
        self.buffer_ms() < -STANDS_STILL_MS
            && self.arrived.is_some_and(|arrived| arrived.elapsed() < THEY_COME)
    }

    /// Mean chunk payload, bytes.
    pub fn chunk_payload_bytes(&self) -> u64 {
        self.bytes / self.chunks.max(1)
    }

    /// Chunk delay of chunks signed since joining.
    pub fn delay(&self) -> Percentiles {
        let at = |share: f64| {
            let rank = (self.delay_count as f64 * share).ceil() as u64;
            let mut seen = 0;
            let found = self.delays.iter().position(|&count| {
                seen += u64::from(count);
                seen >= rank.max(1)
            });
            found.map_or(0.0, |ms| ms as f64)
        };
        let max = self.delay_max_us as f64 / 1000.0;
        Percentiles { p50: at(0.50), p95: at(0.95), p99: at(0.99), max }
    }

    /// The delays themselves: upper bound in ms, and how many.
    pub fn histogram(&self) -> BTreeMap<u64, u64> {
        histogram(&self.delays)
    }

    /// Times for which no new chunk came: upper bound in ms, and how many.
    pub fn arrival_gaps(&self) -> BTreeMap<u64, u64> {
        histogram(&self.gaps)
    }

    /// Share of due chunks that came in time, by playout delay.
    pub fn continuity(&self) -> BTreeMap<u64, f64> {
        let delays = PLAYOUT_DELAYS_MS.iter().enumerate().filter(|(i, _)| self.due[*i] > 0);
        delays.map(|(i, ms)| (*ms, self.on_time[i] as f64 / self.due[i] as f64)).collect()
    }

    /// Counts at the model player's playout delay.
    pub fn chunks(&self, duplicate: u64) -> Chunks {
        let (due, on_time, missing) = (self.due[1], self.on_time[1], self.missing);
        Chunks { due, on_time, late: due - on_time - missing, missing, duplicate }
    }
}

fn histogram(counts: &[u32]) -> BTreeMap<u64, u64> {
    let counted = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    counted.map(|(ms, &count)| (ms as u64 + 1, u64::from(count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    #[test]
    fn late_and_missing_chunks_are_told_apart_and_early_ones_are_not_due() {
        let mut meter = Meter::new(Instant::now());
        let join = 1_000_000 * MS;
        meter.joined(7, 100, join);
        // Fetched from before joining: not due at 1.5 s if signed more than 0.5 s before.
        meter.chunk(100, join - 2000 * MS, 10, join + 50 * MS);
        meter.chunk(101, join + 100 * MS, 10, join + 200 * MS);
        meter.chunk(103, join + 300 * MS, 10, join + 400 * MS);
        meter.chunk(102, join + 200 * MS, 10, join + 1900 * MS);
        meter.chunk(105, join + 500 * MS, 10, join + 1950 * MS);
        meter.count(join + 500 * MS + GIVE_UP_US + 1);
        let chunks = meter.chunks(0);
        assert_eq!((chunks.due, chunks.on_time, chunks.late, chunks.missing), (5, 3, 1, 1));
        assert_eq!(meter.continuity()[&3000], 0.8);
        assert_eq!(meter.delay().p50, 100.0);
        assert_eq!(meter.histogram().values().sum::<u64>(), 4);
        // Five arrivals, the longest pause between the third and the fourth.
        assert_eq!(meter.arrival_gaps().last_key_value(), Some((&1501, &1)));
        assert_eq!(meter.arrival_gaps().values().sum::<u64>(), 4);
    }

    #[test]
    fn a_newer_start_before_anything_was_played_counts_nothing_twice() {
        let mut meter = Meter::new(Instant::now());
        let join = 1_000_000 * MS;
        meter.joined(7, 100, join);
        meter.chunk(101, join - 500 * MS, 10, join + 100 * MS);
        meter.chunk(121, join + 900 * MS, 10, join + 1000 * MS);
        meter.joined(7, 120, join + 1050 * MS);
        meter.chunk(121, join + 900 * MS, 10, join + 1050 * MS);
        meter.chunk(120, join + 890 * MS, 10, join + 1050 * MS);
        meter.chunk(123, join + 990 * MS, 10, join + 1060 * MS);
        meter.count(join + 1000 * MS + GIVE_UP_US);
        // Of 120 to 123 only 122 is missing; 121 came once, 100 ms late.
        let chunks = meter.chunks(0);
        assert_eq!((chunks.due, chunks.on_time, chunks.missing), (4, 3, 1));
        assert_eq!(meter.histogram().values().sum::<u64>(), 3);
        // What plays and is given up for a newer segment was due.
        meter.part(Duration::from_millis(200));
        meter.joined(7, 130, join + 2500 * MS);
        meter.chunk(130, join + 2400 * MS, 10, join + 2500 * MS);
        meter.count(join + 2400 * MS + GIVE_UP_US + 1);
        let chunks = meter.chunks(0);
        assert_eq!((chunks.due, chunks.on_time, chunks.missing), (11, 4, 7), "124 to 129");
        // Another broadcast is another joining.
        meter.joined(8, 0, join + 9000 * MS);
        meter.chunk(0, join + 9100 * MS, 10, join + 9150 * MS);
        assert_eq!(meter.histogram().values().sum::<u64>(), 5);
    }
}
