//! Climbing: a strong peer below a weaker one gets to know that one's parent, and may take a place there.
//!
//! Neighbours are few and chosen without regard to the trees: of a crowd, hardly anybody knows those near the source.
//! A parent that is weaker than its child therefore names its own parent to it. Whether the child moves, and who gives way,
//! is decided as always ([`tree`](super::tree), [`children`](super::children)); this module only makes acquaintances.

use core::time::Duration;

use super::Swarm;
use super::policy::Overlay;
use crate::id::PeerId;
use crate::record::PeerRecord;
use crate::time::Timestamp;
use crate::wire::Message;

/// A child is told of its grandparent in one substream this often at most.
const TELL_PERIOD: Duration = Duration::from_secs(5);
/// Nobody dials grandparents more often than this.
const DIAL_PERIOD: Duration = Duration::from_secs(1);

impl Swarm {
    /// Once a second: names this node's parent to a child that can relay twice as much; less may be an error of measurement.
    pub(super) fn lift_the_stronger(&mut self, now: Timestamp) {
        if self.is_source() || self.config.policy.overlay != Overlay::Hybrid {
            return;
        }
        let clearly_more = self.upload_kbps().saturating_mul(2);
        for s in 0..self.substream_count() {
            let sub = &mut self.substreams[usize::from(s)];
            let Some(parent) = sub.parent() else { continue };
            let Some(child) =
                sub.children.iter_mut().find(|child| child.outranks(clearly_more) && now >= child.lift_at)
            else {
                continue;
            };
            child.lift_at = now + TELL_PERIOD;
            let peer = child.peer;
            if let Some(told) = self.introduction(now, &parent) {
                self.send(peer, &Message::Pex(alloc::vec![told]));
                return;
            }
        }
    }

    /// `from` named peers: one that is its own parent, in a substream where `from` is this node's, is dialled at once.
    pub(super) fn climb(&mut self, now: Timestamp, from: PeerId, told: &[PeerRecord]) {
        let [told] = told else { return };
        if now < self.climb_at || self.neighbours.contains_key(&told.peer) {
            return;
        }
        let tag = told.peer.tag();
        if !self.substreams.iter().any(|sub| sub.is_parent(&from) && sub.grandparent() == Some(tag)) {
            return;
        }
        self.climb_at = now + DIAL_PERIOD;
        if self.neighbours.len() >= self.config.policy.neighbours_max {
            self.make_room(now);
        }
        self.meet(now, from, core::slice::from_ref(told));
    }
}
