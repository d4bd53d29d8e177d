//! Interior classes: which substreams this node relays as a matter of course, so that trees stay shallow.
//!
//! A newcomer takes the class that lacks uploads most. Where that turns out badly, nodes with room to spare move over, one
//! by one. This module never takes or gives up a parent or a child: who is fed stays fed.

use super::Swarm;
use super::neighbour::Neighbour;
use super::policy::{ACCEPT_URGENT, Overlay};
use crate::time::Timestamp;
use crate::wire::Message;

/// A class has this many times as much room as another before anybody moves over: what neighbours say is a sample.
const UNEVEN: usize = 3;
/// Room in so many substreams of neighbours at least, or there is nothing to spare.
const ROOM_MIN: usize = 4;
/// One in so many of those that could move over does, each time: all at once would only turn the tables.
const ONE_IN: u8 = 3;

impl Swarm {
    /// The interior class in which the neighbours can upload least: substreams must not depend on how names fell.
    pub(super) fn choose_class(&self) -> u8 {
        let policy = &self.config.policy;
        let usual = policy.usual_class(&self.local);
        let supply = |class: u8| -> u64 {
            let relays = |n: &&Neighbour| {
                let mut states = (0u8..).zip(&n.state.substreams);
                states.any(|(s, state)| policy.is_interior(class, s) && state.accept < ACCEPT_URGENT)
            };
            let relaying = self.neighbours.values().filter(|n| n.met && !n.source).filter(relays);
            relaying.map(|n| u64::from(n.upload_kbps)).sum()
        };
        (0..policy.interior_every.max(1))
            .min_by_key(|class| (supply(*class), *class != usual))
            .unwrap_or(usual)
    }

    /// Moves over to a class whose relays have little room left, when those of this node's class have much, and it has some itself.
    pub(super) fn balance_classes(&mut self, now: Timestamp) {
        let policy = &self.config.policy;
        if now < self.class_at || self.is_source() || policy.overlay != Overlay::Hybrid {
            return;
        }
        let period = policy.class_period;
        self.class_at = now + period + period * u32::from(self.rng.u8(..8)) / 8;
        let room = |class: u8| -> usize {
            let near = self.neighbours.values().filter(|n| n.met && !n.source && n.epoch == self.epoch());
            let each = near.flat_map(|n| (0u8..).zip(&n.state.substreams));
            each.filter(|(s, state)| policy.is_interior(class, *s) && state.accept == 0).count()
        };
        let here = room(self.class);
        let Some((there, class)) = (0..policy.interior_every)
            .filter(|class| *class != self.class)
            .map(|class| (room(class), class))
            .min()
        else {
            return;
        };
        let spare = (0..self.substream_count())
            .any(|s| policy.is_interior(self.class, s) && self.accept_code(s) == 0);
        if here < ROOM_MIN || there * UNEVEN > here || !spare || self.rng.u8(..ONE_IN) > 0 {
            return;
        }
        self.class = class;
        self.class_at = now + period * 8;
        for s in 0..self.substream_count() {
            // Its parents should know that it relays now, and feed it first.
            if self.config.policy.is_interior(class, s)
                && let Some(parent) = self.substreams[usize::from(s)].parent()
            {
                let attach = self.application(s, false);
                self.send(parent, &Message::Attach(attach));
            }
        }
        self.tell_room(now);
    }
}
