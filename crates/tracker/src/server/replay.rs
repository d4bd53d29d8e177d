//! No request counts twice: the last timestamps of every peer, as IPsec keeps the last sequence numbers.
//!
//! A peer never uses a timestamp twice. A few recent ones are kept rather than the newest alone, because requests for
//! several channels overtake each other on the way.

use std::collections::BTreeMap;

use caudal_proto::id::PeerId;

use crate::message::{Code, REQUEST_AGE_MAX_MS};
use crate::server::verify::Problem;

/// Timestamps remembered per peer.
const WINDOW: usize = 8;

/// The last [`WINDOW`] timestamps of a peer; unused places are 0.
type Recent = [u64; WINDOW];

/// What was seen of whom.
#[derive(Debug)]
pub(crate) struct Replay {
    peers: BTreeMap<PeerId, Recent>,
    peers_max: usize,
}

impl Replay {
    pub(crate) fn new(peers_max: usize) -> Self {
        Self { peers: BTreeMap::new(), peers_max }
    }

    /// Whether a request of that time may count.
    pub(crate) fn check(&self, now_unix_ms: u64, peer: &PeerId, timestamp_ms: u64) -> Result<(), Problem> {
        if now_unix_ms.abs_diff(timestamp_ms) > REQUEST_AGE_MAX_MS {
            let (side, by) = if timestamp_ms < now_unix_ms {
                ("behind", now_unix_ms - timestamp_ms)
            } else {
                ("ahead of", timestamp_ms - now_unix_ms)
            };
            let message = format!("your clock is {} s {side} the tracker's; set it (NTP)", by / 1000);
            return Err(Problem::new(Code::Clock, message));
        }
        let Some(recent) = self.peers.get(peer) else { return Ok(()) };
        let oldest = recent.iter().min().copied().unwrap_or(0);
        if recent.contains(&timestamp_ms) || timestamp_ms < oldest {
            return Err(Problem::new(
                Code::Replayed,
                "this timestamp was used before; every request needs a new one",
            ));
        }
        Ok(())
    }

    /// Whether `peer` can be remembered.
    pub(crate) fn check_room(&self, peer: &PeerId) -> Result<(), Problem> {
        if self.peers.len() < self.peers_max || self.peers.contains_key(peer) {
            return Ok(());
        }
        Err(Problem::new(Code::Unavailable, "the tracker is full; try again in a minute"))
    }

    /// Whether `peer` is remembered already.
    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Remembers a request that had an effect, within the room there is.
    pub(crate) fn record(&mut self, peer: PeerId, timestamp_ms: u64) {
        if self.check_room(&peer).is_err() {
            return;
        }
        let recent = self.peers.entry(peer).or_default();
        if let Some(oldest) = recent.iter_mut().min() {
            *oldest = timestamp_ms;
        }
    }

    /// Forgets peers whose newest timestamp would be refused as too old by now.
    pub(crate) fn expire(&mut self, now_unix_ms: u64) {
        self.peers.retain(|_, recent| {
            recent.iter().max().is_some_and(|newest| newest + REQUEST_AGE_MAX_MS >= now_unix_ms)
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_counts_once_and_overtaking_is_forgiven() {
        let mut replay = Replay::new(10);
        let (peer, now) = (PeerId([1; 32]), 1_000_000);
        for time in [now, now + 5, now + 2, now - 9] {
            assert_eq!(replay.check(now, &peer, time), Ok(()));
            replay.record(peer, time);
            assert_eq!(replay.check(now, &peer, time).unwrap_err().code, Code::Replayed);
        }
        for time in 10..30 {
            replay.record(peer, now + time);
        }
        assert_eq!(
            replay.check(now, &peer, now + 1).unwrap_err().code,
            Code::Replayed,
            "older than the window"
        );
        assert_eq!(replay.check(now, &peer, now - REQUEST_AGE_MAX_MS - 1).unwrap_err().code, Code::Clock);
        assert_eq!(replay.check(now, &peer, now + REQUEST_AGE_MAX_MS + 1).unwrap_err().code, Code::Clock);
    }

    #[test]
    fn it_is_forgotten_only_when_too_old_to_be_replayed_and_never_grows_past_its_bound() {
        let mut replay = Replay::new(2);
        let now = 1_000_000;
        replay.record(PeerId([1; 32]), now);
        replay.record(PeerId([2; 32]), now);
        assert_eq!(replay.check_room(&PeerId([2; 32])), Ok(()));
        assert_eq!(replay.check_room(&PeerId([3; 32])).unwrap_err().code, Code::Unavailable);
        replay.record(PeerId([3; 32]), now);
        replay.expire(now + REQUEST_AGE_MAX_MS);
        assert_eq!(replay.len(), 2);
        replay.expire(now + REQUEST_AGE_MAX_MS + 1);
        assert_eq!(replay.len(), 0);
    }
}
