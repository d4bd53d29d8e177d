//! Where a newcomer starts: the newest segment that it can complete in time.

use super::Swarm;
use crate::io::Event;
use crate::time::Timestamp;

/// How far this node has come in the broadcast it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It looks for neighbours that hold a segment start, and for a fresh live note.
    Waiting,
    /// It publishes the broadcast itself.
    Source,
    /// It takes part; chunks below `burst_end` existed when it came and are pulled at once.
    Joined {
        /// One past the newest chunk that a neighbour claimed then.
        burst_end: u64,
    },
}

impl Phase {
    pub(crate) fn is_joined(self) -> bool {
        !matches!(self, Self::Waiting)
    }
}

impl Swarm {
    pub(super) fn try_join(&mut self, now: Timestamp) {
        if self.phase != Phase::Waiting {
            return;
        }
        let (Some(certificate), Some(note)) = (self.certificate, self.note) else { return };
        if !note.is_fresh(self.unix_us(now)) {
            return;
        }
        let Some(start) = self.choose_start(now, certificate.epoch) else { return };
        // A claim beyond what the note and the rate make possible is not believed.
        let claimed =
            self.neighbours.values().filter(|n| n.epoch == certificate.epoch).map(|n| n.have.end()).max();
        let believable = note.next_number.max(start) + self.claim_ahead();
        let burst_end = claimed.unwrap_or(0).clamp(start, believable);
        self.store = super::store::Store::default();
        self.store.begin_at(start);
        self.store.raise_edge(note.next_number.max(start), now);
        self.phase = Phase::Joined { burst_end };
        for substream in &mut self.substreams {
            substream.seek(now);
        }
        self.event(Event::Joined { channel: self.config.channel, epoch: certificate.epoch, number: start });
    }

    /// The newest segment start that is old enough to fill a buffer and not too old to fetch, else the newest.
    fn choose_start(&self, now: Timestamp, epoch: u64) -> Option<u64> {
        let policy = &self.config.policy;
        let (back, back_max) = (policy.join_back.as_millis() as u64, policy.join_back_max.as_millis() as u64);
        let mut newest: Option<u64> = None;
        let mut filled: Option<u64> = None;
        for neighbour in self.neighbours.values().filter(|n| n.met && n.epoch == epoch) {
            let elapsed = now.since(neighbour.have_at).as_millis() as u64;
            for start in neighbour.segment_starts.iter().filter(|start| neighbour.have.contains(start.number))
            {
                let age = u64::from(start.age_ms) + elapsed;
                newest = newest.max(Some(start.number));
                if (back..=back_max).contains(&age) {
                    filled = filled.max(Some(start.number));
                }
            }
        }
        filled.or(newest)
    }

    /// How far beyond the signed edge a neighbour's claim is believed enough to ask for it.
    pub(super) fn claim_ahead(&self) -> u64 {
        256
    }
}
