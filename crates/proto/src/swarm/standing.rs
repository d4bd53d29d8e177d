//! What peers have earned and forfeited here. It outlives their stay: who leaves and comes back begins where it stood.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::neighbour::{Allowance, Recent};
use super::spread::Barren;
use crate::id::PeerId;
use crate::time::Timestamp;

/// Most peers that are remembered after they have gone; then the one that went first is forgotten.
const LEFT_MAX: usize = 256;
/// Who stayed away for this long is forgotten.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// Peer records of one peer that are checked at once …
const CHECKS_MAX: u64 = 16;
/// … and for as long as it likes, one each this long: a signature costs 50 µs.
const CHECK_PERIOD: Duration = Duration::from_secs(2);

/// Chunks that it may ask for at once, and for as long as it likes one each this long: three times what whoever finds nothing
/// but holes asks one neighbour for.
const ASKED_MAX: u64 = 1024;
const ASKED_PERIOD: Duration = Duration::from_micros(7_800);
/// Asking for more is counted against a peer once in this long.
const PRESSING_PERIOD: Duration = Duration::from_secs(1);

/// What may be had all at once, and again as time passes.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    taken: u64,
    at: Timestamp,
}

impl Bucket {
    /// Takes `n` of at most `most`, of which one comes back every `period`; false where there are fewer.
    pub(crate) fn take(&mut self, now: Timestamp, n: u64, most: u64, period: Duration) -> bool {
        let (since, period) = (now.since(self.at).as_micros() as u64, (period.as_micros() as u64).max(1));
        self.taken = self.taken.saturating_sub(since / period);
        // What is left of a period counts towards the next.
        self.at = now.saturating_sub(Duration::from_micros(since % period));
        let may = self.taken + n <= most;
        self.taken += if may { n } else { 0 };
        may
    }
}

/// One peer's.
#[derive(Debug)]
pub(crate) struct Standing {
    strikes: u32,
    strike_at: Timestamp,
    /// Bytes of requests that it may still be served, and since when they were counted.
    credit: i64,
    credit_at: Timestamp,
    /// Records that were checked for it, and chunks that it asked for.
    checked: Bucket,
    asked: Bucket,
    /// When it last wanted too much.
    pressing_at: Option<Timestamp>,
    /// Chunks this node got from it lately, to tell a replay from a race.
    pub(crate) taken: Recent,
    /// Chunks it got from this node lately, before its have map says so.
    pub(crate) given: Recent,
    /// It was fed and passed nothing on.
    pub(crate) barren: Barren,
    /// It brought a chunk that this node did not have.
    pub(crate) proven: bool,
}

impl Standing {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            strikes: 0,
            strike_at: now,
            credit: i64::MAX,
            credit_at: now,
            checked: Bucket::default(),
            asked: Bucket::default(),
            pressing_at: None,
            taken: Recent::default(),
            given: Recent::default(),
            barren: Barren::default(),
            proven: false,
        }
    }

    /// Takes `bytes` from what it may be served on request; false when there is not so much.
    pub(crate) fn charge(&mut self, now: Timestamp, bytes: u64, allowance: Allowance) -> bool {
        let earned = now.since(self.credit_at).as_micros() as u64 * allowance.per_second / 1_000_000;
        self.credit_at = now;
        self.credit = self.credit.saturating_add(earned as i64).min(allowance.most as i64);
        if self.credit < bytes as i64 {
            return false;
        }
        self.credit -= bytes as i64;
        true
    }

    /// One more record; false when there were too many.
    pub(crate) fn may_have_checked(&mut self, now: Timestamp) -> bool {
        self.checked.take(now, 1, CHECKS_MAX, CHECK_PERIOD)
    }

    /// It asks for so many chunks; false when that is more than anybody can want.
    pub(crate) fn may_ask(&mut self, now: Timestamp, chunks: u64) -> bool {
        self.asked.take(now, chunks, ASKED_MAX, ASKED_PERIOD)
    }

    /// It wanted too much; true when that is to be counted against it.
    pub(crate) fn presses(&mut self, now: Timestamp) -> bool {
        let counts = self.pressing_at.is_none_or(|at| now.since(at) >= PRESSING_PERIOD);
        self.pressing_at = if counts { Some(now) } else { self.pressing_at };
        counts
    }

    /// One more false step; true when that is one too many.
    pub(crate) fn strike(&mut self, now: Timestamp, max: u32, decay: Duration) -> bool {
        let forgiven = now.since(self.strike_at).as_micros() / decay.as_micros().max(1);
        if forgiven > 0 {
            self.strikes = self.strikes.saturating_sub(forgiven.min(u128::from(u32::MAX)) as u32);
            self.strike_at = now;
        }
        self.strikes += 1;
        self.strikes >= max
    }

    /// Another broadcast: numbers begin again.
    pub(crate) fn forget_chunks(&mut self) {
        (self.taken, self.given) = Default::default();
    }
}

/// Of those who have left.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    left: BTreeMap<PeerId, (Timestamp, Standing)>,
}

impl Standings {
    /// A peer leaves.
    pub(crate) fn keep(&mut self, now: Timestamp, peer: PeerId, standing: Standing) {
        self.left.insert(peer, (now, standing));
        if self.left.len() > LEFT_MAX
            && let Some(first) = self.left.iter().min_by_key(|(id, (at, _))| (*at, **id)).map(|(id, _)| *id)
        {
            self.left.remove(&first);
        }
    }

    /// A peer comes, perhaps again.
    pub(crate) fn of(&mut self, now: Timestamp, peer: &PeerId) -> Standing {
        let kept = self.left.remove(peer).filter(|(at, _)| now.since(*at) < REMEMBERED_FOR);
        kept.map_or_else(|| Standing::new(now), |(_, standing)| standing)
    }

    /// See [`Standing::forget_chunks`].
    pub(crate) fn forget_chunks(&mut self) {
        self.left.values_mut().for_each(|(_, standing)| standing.forget_chunks());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> PeerId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PeerId(id)
    }

    #[test]
    fn who_comes_back_begins_where_it_stood_and_strangers_cannot_grow_the_table() {
        let decay = Duration::from_secs(60);
        let allowance = Allowance { most: 1000, per_second: 10 };
        let mut all = Standings::default();
        let now = Timestamp::from_millis(1);
        let mut standing = all.of(now, &peer(0));
        assert!(standing.charge(now, 1000, allowance));
        for _ in 0..4 {
            assert!(!standing.strike(now, 5, decay));
        }
        all.keep(now, peer(0), standing);
        let mut standing = all.of(now, &peer(0));
        assert!(!standing.charge(now, 1, allowance), "its allowance was spent before it left");
        assert!(standing.strike(now, 5, decay), "the fifth");
        for n in 0..3 * LEFT_MAX {
            all.keep(now + Duration::from_millis(n as u64), peer(n), Standing::new(now));
        }
        assert_eq!(all.left.len(), LEFT_MAX);
        let later = now + Duration::from_secs(700);
        all.keep(now, peer(1), standing);
        assert!(all.of(later, &peer(1)).charge(later, 1000, allowance), "long ago");
    }
}
