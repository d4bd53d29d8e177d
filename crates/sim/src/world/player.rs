//! What a node's player is to the swarms: chunks put together to parts in order, and when to stop waiting for one.

use std::collections::BTreeMap;

use caudal_proto::chunk::{Flags, Header};
use caudal_proto::id::RenditionId;
use caudal_proto::qos::crossing::Waiting;

/// What came of a part that is not out.
#[derive(Debug, Clone, Copy)]
struct Came {
    chunks: u16,
    of: u16,
    starts_segment: bool,
}

/// One rendition's parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) rendition: RenditionId,
    /// The broadcast; 0 before the first.
    pub(crate) epoch: u64,
    /// When that began, and how long a part is, µs.
    began_us: i64,
    part_us: i64,
    /// What comes next; unknown before joining.
    next: Option<u64>,
    came: BTreeMap<u64, Came>,
    /// The part that is waited for while later ones are there, and since when.
    waiting: Option<(u64, u64)>,
}

impl Parts {
    pub(crate) fn new(rendition: RenditionId, part_us: u64) -> Self {
        Self {
            rendition,
            epoch: 0,
            began_us: 0,
            part_us: part_us as i64,
            next: None,
            came: BTreeMap::new(),
            waiting: None,
        }
    }

    /// A broadcast that began at `began` begins here with this part.
    pub(crate) fn begin(&mut self, epoch: u64, began: u64, part: u64) {
        (self.epoch, self.began_us, self.next) = (epoch, began as i64, Some(part));
        self.came.clear();
        self.waiting = None;
    }

    pub(crate) fn chunk(&mut self, header: &Header) {
        if header.epoch != self.epoch || self.next.is_none_or(|next| header.part < next) {
            return;
        }
        let starts_segment = header.flags.has(Flags::SEGMENT_START);
        let came = Came { chunks: 0, of: header.count, starts_segment };
        self.came.entry(header.part).or_insert(came).chunks += 1;
    }

    /// The next part, if it is whole.
    pub(crate) fn poll(&mut self) -> Option<Waiting> {
        let next = self.next?;
        let came = self.came.get(&next).copied().filter(|came| came.chunks >= came.of)?;
        self.came.remove(&next);
        self.next = Some(next + 1);
        let end_us = self.began_us + next as i64 * self.part_us;
        Some(Waiting { start_us: end_us - self.part_us, end_us, starts_segment: came.starts_segment })
    }

    /// Time passed: what was waited for too long is given up for the next segment; true then.
    pub(crate) fn tick(&mut self, now: u64, patience_us: u64) -> bool {
        let Some(next) = self.next else { return false };
        if self.came.keys().next_back().is_none_or(|newest| *newest <= next) {
            self.waiting = None;
            return false;
        }
        match self.waiting {
            Some((part, since)) if part == next => {
                let segment = self.came.iter().find(|(part, came)| **part > next && came.starts_segment);
                let Some((&segment, _)) = segment.filter(|_| now - since > patience_us) else { return false };
                self.next = Some(segment);
                self.came = self.came.split_off(&segment);
                self.waiting = None;
                true
            }
            _ => {
                self.waiting = Some((next, now));
                false
            }
        }
    }
}
