//! A viewer among renditions: what it looks at and the moves it makes, as a node does. `proto::qos` decides; here are its eyes and
//! hands.

use core::time::Duration;

use caudal_proto::chunk::Header;
use caudal_proto::id::{RenditionId, SwarmId};
use caudal_proto::io::{Candidate, Input};
use caudal_proto::qos::behind::Behind;
use caudal_proto::qos::crossing::{Crossing, Waiting};
use caudal_proto::qos::playout::{Bounds, PlayoutDelay};
use caudal_proto::qos::rendition::{Look, Move, Offered, RenditionChoice, Wanted};
use caudal_proto::swarm::Role;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::time::Timestamp;

use super::people::TRACKER_US;
use super::player::Parts;
use super::{Happening, Node, Published, UNIX_START_US, World};
use crate::diary::Diary;

/// What plays is looked at this often, µs.
const LOOK_PERIOD_US: u64 = 100_000;
/// What is sent is looked at this often, µs.
const COUNT_PERIOD_US: u64 = 1_000_000;
/// Most parts of the tried rendition that wait.
const WAITING_MAX: usize = 256;
/// What begins so much later than what was given ends leaves a hole, µs.
const HOLE_US: i64 = 60_000;

/// A rendition that is tried beside what plays.
#[derive(Debug)]
struct Trying {
    parts: Parts,
    crossing: Crossing,
    waiting: Vec<Waiting>,
}

impl Trying {
    fn collect(&mut self, now: Timestamp) {
        while let Some(part) = self.parts.poll() {
            if self.waiting.len() >= WAITING_MAX {
                self.waiting.remove(0);
            }
            self.crossing.came(now);
            self.waiting.push(part);
        }
    }
}

/// What a viewer sends, counted once a second.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    at: u64,
    bytes: u64,
    bps: u64,
    capacity_bps: Option<u64>,
    /// In swarms that were left.
    left_bytes: u64,
}

/// What a viewer makes of a channel's renditions.
#[derive(Debug)]
pub(crate) struct Watching {
    choice: RenditionChoice,
    playing: Parts,
    tried: Option<Trying>,
    behind: Behind,
    delay: PlayoutDelay,
    received_bytes: u64,
    sent: Sent,
    /// The next part of what plays, held back for the other's to begin with it.
    gated: Option<(Waiting, Timestamp)>,
    last_part: u64,
    /// Where everything given ends, µs.
    reached_us: Option<i64>,
    /// The next part given is another rendition's.
    is_entering: bool,
    has_changed: bool,
    /// Something came that was not looked at.
    is_stirred: bool,
    pub(crate) diary: Diary,
}

/// What players get next.
enum Next {
    Part(Waiting),
    GoOver(Vec<Waiting>),
}

impl Watching {
    fn new(now: Timestamp, rates_bps: &[u64], part_us: u64) -> Self {
        let first = RenditionId(0);
        let mut choice = RenditionChoice::new(first, Wanted::Auto);
        choice.offer(
            rates_bps.iter().zip(0..).map(|(rate, id)| Offered { id: RenditionId(id), rate_bps: *rate }),
        );
        Self {
            choice,
            playing: Parts::new(first, part_us),
            tried: None,
            behind: Behind::new(now),
            delay: PlayoutDelay::new(Bounds::USUAL),
            received_bytes: 0,
            sent: Sent::default(),
            gated: None,
            last_part: now.as_micros(),
            reached_us: None,
            is_entering: false,
            has_changed: false,
            is_stirred: false,
            diary: Diary::new(first, part_us),
        }
    }

    /// The parts of a rendition that is followed.
    fn parts_of(&mut self, rendition: RenditionId) -> Option<&mut Parts> {
        let tried = self.tried.as_mut().map(|tried| &mut tried.parts);
        [Some(&mut self.playing), tried].into_iter().flatten().find(|parts| parts.rendition == rendition)
    }

    /// What players get next, at `now` by a clock that is off by `skew_us`.
    fn next(&mut self, now: Timestamp, skew_us: i64, part: Duration) -> Option<Next> {
        if let Some(tried) = &mut self.tried {
            tried.collect(now);
            let at = self.reached_us.and_then(|reached| tried.crossing.enter(now, reached, &tried.waiting));
            if let Some(at) = at {
                let parts = tried.waiting.split_off(at);
                parts.last().into_iter().for_each(|last| self.count(now, skew_us, part, last));
                return Some(Next::GoOver(parts));
            }
        }
        if let Some((held, since)) = self.gated.take() {
            if self.tried.is_some() && Crossing::is_worth_waiting(now, since) {
                self.gated = Some((held, since));
                return None;
            }
            return Some(Next::Part(held));
        }
        let next = self.playing.poll()?;
        if !self.behind.has_begun() {
            self.choice.began(now);
        }
        self.count(now, skew_us, part, &next);
        self.last_part = now.as_micros();
        if next.starts_segment && self.tried.as_ref().is_some_and(|tried| tried.crossing.is_proven(now)) {
            self.gated = Some((next, now));
            return None;
        }
        Some(Next::Part(next))
    }

    fn count(&mut self, now: Timestamp, skew_us: i64, part: Duration, last: &Waiting) {
        self.behind.arrived(now, unix_us(now, skew_us), UNIX_START_US + last.end_us as u64, part);
    }

    /// Another broadcast begins on a timeline of its own.
    fn begin_anew(&mut self, now: Timestamp) {
        self.reached_us = None;
        self.behind = Behind::new(now);
        self.gated = None;
        self.delay.restart();
    }

    /// A part for players; what is missing before it where another rendition begins, µs.
    fn give(&mut self, now: Timestamp, skew_us: i64, part: Duration, given: Waiting) -> Option<i64> {
        let reached = self.reached_us.unwrap_or(given.start_us);
        if self.is_entering && given.end_us <= reached {
            // Decoded in an instant, and not seen.
            return None;
        }
        let hole = (given.start_us - reached).max(0);
        let is_hole = std::mem::take(&mut self.is_entering) && hole > HOLE_US;
        self.diary.given(now.as_micros(), reached, given.end_us);
        self.reached_us = Some(given.end_us);
        self.delay.arrived(now, unix_us(now, skew_us), UNIX_START_US + given.end_us as u64, part);
        is_hole.then_some(hole)
    }

    /// What plays from here on are these parts.
    fn follow(&mut self, now: u64, parts: Parts) {
        let to = parts.rendition;
        self.playing = parts;
        self.gated = None;
        self.choice.arrived(Timestamp::from_micros(now), to);
        self.is_entering = true;
        self.diary.changed(now, self.reached_us, to);
    }
}

fn unix_us(now: Timestamp, skew_us: i64) -> u64 {
    (UNIX_START_US + now.as_micros()).saturating_add_signed(skew_us)
}

impl Node {
    /// Whether its player needs this chunk, of whatever rendition played at that time.
    pub(crate) fn is_due(&self, published: &Published) -> bool {
        let watching = self.watching.as_ref();
        watching.is_none_or(|w| w.diary.plays(published.at as i64) == published.chunk.header().rendition)
    }
}

impl World {
    /// Whoever comes may choose, where there is a choice.
    pub(super) fn watch_renditions(&mut self, index: usize) {
        if self.broadcast.lanes.len() < 2 {
            return;
        }
        let rates: Vec<u64> = self.broadcast.lanes.iter().map(|lane| lane.rate_bps).collect();
        let watching = Watching::new(Timestamp::from_micros(self.now), &rates, self.part_us());
        self.nodes[index].watching = Some(Box::new(watching));
        self.queue.push(self.now + LOOK_PERIOD_US, Happening::Watch(index as u32));
    }

    /// Somebody chooses for `index`.
    pub fn choose(&mut self, index: usize, wanted: Wanted) {
        if let Some(watching) = &mut self.nodes[index].watching {
            watching.choice.choose(wanted);
        }
    }

    /// The rendition that `index` plays.
    pub fn plays(&self, index: usize) -> RenditionId {
        self.nodes[index].watching.as_ref().map_or(RenditionId(0), |watching| watching.choice.playing())
    }

    /// Its line down is another from now on.
    pub(super) fn line_set(&mut self, index: usize, down_bps: u64) {
        let now = self.now;
        if let Some(watching) = &mut self.nodes[index].watching {
            let playing = watching.choice.playing();
            watching.diary.line_set(now, down_bps, playing);
        }
    }

    /// Its engine delivered a chunk.
    pub(super) fn came(&mut self, index: usize, header: &Header) {
        let Some(watching) = &mut self.nodes[index].watching else { return };
        watching.received_bytes += u64::from(header.len);
        watching.is_stirred = true;
        if let Some(parts) = watching.parts_of(header.rendition) {
            parts.chunk(header);
        }
    }

    /// Its engine says where a broadcast begins for it.
    pub(super) fn begins(&mut self, index: usize, rendition: RenditionId, epoch: u64, number: u64) {
        let serial = self.broadcast.serial(epoch, rendition, number);
        let part = serial.map(|serial| self.broadcast.published[serial].chunk.header().part);
        let Some((part, began)) = part.zip(self.broadcast.began(epoch)) else { return };
        let now = Timestamp::from_micros(self.now);
        let Some(watching) = &mut self.nodes[index].watching else { return };
        let Some(parts) = watching.parts_of(rendition) else { return };
        let is_new = parts.epoch != epoch;
        parts.begin(epoch, began, part);
        if rendition != watching.playing.rendition {
            return;
        }
        let is_other = std::mem::take(&mut watching.has_changed);
        if is_new && !is_other {
            watching.begin_anew(now);
        }
    }

    /// It looks at how it goes, and makes the move that this asks for.
    pub(super) fn watch(&mut self, index: usize) {
        if !self.nodes[index].is_alive() {
            return;
        }
        self.queue.push(self.now + LOOK_PERIOD_US, Happening::Watch(index as u32));
        let (now, patience_us) = (self.now, self.config.patience.as_micros() as u64);
        self.count_sent(index);
        let Some(watching) = &mut self.nodes[index].watching else { return };
        watching.playing.tick(now, patience_us);
        if let Some(tried) = &mut watching.tried
            && tried.parts.tick(now, patience_us)
        {
            tried.waiting.clear();
            tried.crossing.broke();
        }
        watching.is_stirred = true;
        self.show(index);
        let skew_us = self.nodes[index].skew_us;
        let Some(watching) = &mut self.nodes[index].watching else { return };
        let silent = Duration::from_micros(now - watching.last_part);
        let now = Timestamp::from_micros(now);
        let look = Look {
            behind: watching.behind.at(unix_us(now, skew_us)),
            uneven: Some(Duration::ZERO),
            kept: watching.delay.wanted(),
            silent,
            received_bytes: watching.received_bytes,
            upload_bps: watching.sent.bps,
            upload_capacity_bps: watching.sent.capacity_bps,
        };
        match watching.choice.look(now, &look) {
            Move::Stay => {}
            Move::Switch { to, .. } => self.switch(index, to),
            Move::Try { to, .. } => self.try_beside(index, to),
            Move::GiveUp { .. } => {
                watching.diary.gave_up.push(now.as_micros());
                self.leave_tried(index);
            }
        }
    }

    /// Gives players all that is there for them.
    pub(super) fn show(&mut self, index: usize) {
        let (now, part) = (Timestamp::from_micros(self.now), Duration::from_micros(self.part_us()));
        loop {
            let skew_us = self.nodes[index].skew_us;
            let Some(watching) = self.nodes[index].watching.as_mut().filter(|w| w.is_stirred) else { return };
            let playing = watching.playing.rendition;
            match watching.next(now, skew_us, part) {
                None => {
                    watching.is_stirred = false;
                    return;
                }
                Some(Next::Part(given)) => {
                    if let Some(us) = watching.give(now, skew_us, part, given) {
                        self.fail_hole(index, playing, us);
                    }
                }
                Some(Next::GoOver(parts)) => self.go_over(index, parts),
            }
        }
    }

    /// The tried rendition plays from here on, with these parts first.
    fn go_over(&mut self, index: usize, first: Vec<Waiting>) {
        let Some(watching) = &mut self.nodes[index].watching else { return };
        let Some(tried) = watching.tried.take() else { return };
        let (from, to) = (watching.playing.rendition, tried.parts.rendition);
        watching.follow(self.now, tried.parts);
        let (now, part) = (Timestamp::from_micros(self.now), Duration::from_micros(self.part_us()));
        let skew_us = self.nodes[index].skew_us;
        for given in first {
            let Some(watching) = &mut self.nodes[index].watching else { return };
            if let Some(us) = watching.give(now, skew_us, part, given) {
                self.fail_hole(index, to, us);
            }
        }
        self.leave_swarm(index, from);
    }

    /// It leaves what plays and enters `to` where players have come to.
    fn switch(&mut self, index: usize, to: RenditionId) {
        self.leave_tried(index);
        let (now, part_us, skew_us) = (self.now, self.part_us(), self.nodes[index].skew_us);
        let sources = self.sources_of(index);
        let way = self.all_stats(index).flat_map(|stats| stats.neighbours).map(|n| n.rtt_us).min();
        let Some(watching) = &mut self.nodes[index].watching else { return };
        let from = watching.playing.rendition;
        let behind = watching.behind.at(unix_us(Timestamp::from_micros(now), skew_us));
        watching.has_changed = true;
        watching.follow(now, Parts::new(to, part_us));
        let policy = self.config.policy.clone().at_place(behind, Duration::from_micros(way.unwrap_or(0)));
        self.leave_swarm(index, from);
        self.join(index, to, policy, sources);
    }

    fn try_beside(&mut self, index: usize, to: RenditionId) {
        let (now, part_us) = (self.now, self.part_us());
        let Some(watching) = &mut self.nodes[index].watching else { return };
        let parts = Parts::new(to, part_us);
        watching.tried = Some(Trying { parts, crossing: Crossing::new(), waiting: Vec::new() });
        watching.diary.tries.push(now);
        let sources = self.sources_of(index);
        self.join(index, to, self.config.policy.clone().beside(), sources);
    }

    fn leave_tried(&mut self, index: usize) {
        let tried = self.nodes[index].watching.as_mut().and_then(|watching| watching.tried.take());
        if let Some(tried) = tried {
            self.leave_swarm(index, tried.parts.rendition);
        }
    }

    /// Sources among its neighbours: whoever publishes the channel is in all of its swarms.
    fn sources_of(&self, index: usize) -> Vec<Candidate> {
        let neighbours = self.all_stats(index).flat_map(|stats| stats.neighbours);
        let candidate = |peer| Candidate { peer, addrs: Vec::new(), source: true, cost: 0 };
        let mut sources: Vec<Candidate> =
            neighbours.filter(|neighbour| neighbour.source).map(|n| candidate(n.peer)).collect();
        sources.dedup_by_key(|candidate| candidate.peer);
        sources
    }

    fn join(&mut self, index: usize, rendition: RenditionId, policy: Policy, sources: Vec<Candidate>) {
        let swarm: SwarmId = self.swarm(rendition);
        self.enter(index, rendition, Role::Viewer, policy);
        if let Some(certificate) = self.broadcast.certificate {
            self.input(index, Input::Broadcast(swarm, certificate, None));
        }
        self.input(index, Input::Candidates(swarm, sources));
        self.list(index, rendition);
        self.queue.push(self.now + TRACKER_US, Happening::Track(index as u32, rendition));
    }

    fn leave_swarm(&mut self, index: usize, rendition: RenditionId) {
        let bytes = self.stats_of(index, rendition).map_or(0, |stats| stats.bytes_out);
        if let Some(watching) = &mut self.nodes[index].watching {
            watching.sent.left_bytes += bytes;
        }
        let member = &mut self.nodes[index].members[usize::from(rendition.0)];
        (member.is_in, member.has_left, member.epoch) = (false, true, 0);
        self.input(index, Input::Leave(self.swarm(rendition)));
        self.unlist_in(index, rendition);
    }

    fn count_sent(&mut self, index: usize) {
        let (now, plays) = (self.now, self.plays(index));
        let is_due = |w: &Watching| now >= w.sent.at + COUNT_PERIOD_US;
        if !self.nodes[index].watching.as_ref().is_some_and(|w| is_due(w)) {
            return;
        }
        let bytes: u64 = self.all_stats(index).map(|stats| stats.bytes_out).sum();
        let capacity_bps = self.stats_of(index, plays).and_then(|stats| stats.upload_capacity_bps);
        let Some(watching) = &mut self.nodes[index].watching else { return };
        let Sent { at, bytes: before, left_bytes, .. } = watching.sent;
        let bytes = bytes + left_bytes;
        let bps = (bytes - before.min(bytes)) * 8_000_000 / (now - at).max(1);
        watching.sent = Sent { at: now, bytes, bps, capacity_bps, left_bytes };
    }
}
