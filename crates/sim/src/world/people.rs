//! Who takes part: viewers that come and go, the tracker that names them to each other, what the scenario does to them.

use std::time::Duration;

use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::id::{PeerId, RenditionId};
use caudal_proto::io::{Candidate, Input};
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig};

use super::node::{Member, Record};
use super::{Happening, Node, World};
use crate::attack::{AttackKind, EXTRA_PERIOD_US, Hostility, UPLOAD};
use crate::config::{Churn, Delivery, Told};
use crate::event::What;
use crate::paper::PaperKeys;
use crate::profile::Place;
use crate::transport::{Line, LossState};

/// What a tracker names at most, looks at, and how many of them are chosen for their upload: as `tracker` does.
const TRACKER_ANSWER: usize = 20;
const TRACKER_SAMPLE: usize = 128;
/// In a larger swarm an answer names the source with a chance of this by its viewers, but in one of so many at least.
const TRACKER_SOURCE_NAMED: usize = 32;
const TRACKER_SOURCE_ANSWERS_MAX: usize = 64;
/// … and this often at most in the long run, µs.
const TRACKER_SOURCE_PERIOD_US: u64 = 125_000;
/// Who left without a word is named for this much longer, µs.
const TRACKER_EXPIRY_US: u64 = 30_000_000;
/// A tracker answers after this long, µs.
pub(super) const TRACKER_US: u64 = 50_000;
/// Every node's retention window.
const RETENTION: Duration = Duration::from_secs(60);
/// Slow lines carry this much less.
const SLOW_FACTOR: u64 = 5;
/// Shape of heavy-tailed sessions.
const PARETO_SHAPE: f64 = 1.5;

fn peer_id(index: usize) -> PeerId {
    let mut rng = fastrand::Rng::with_seed(index as u64 + 77);
    let mut id: [u8; 32] = core::array::from_fn(|_| rng.u8(..));
    id[28..].copy_from_slice(&(index as u32).to_be_bytes());
    PeerId(id)
}

impl World {
    /// The source, and when everybody else comes.
    pub(super) fn populate(&mut self) {
        let place = Place { class: usize::MAX, region: 0, isp: 0, upload_bps: self.config.source_bps() };
        // Whoever feeds viewers as far as the uplink goes has named how far.
        let told =
            if self.config.delivery == Delivery::SwarmOnly { self.config.told } else { Told::Share(1.0) };
        self.source = self.add(place, true, told);
        self.start_source(self.source_copies_percent());
        let honest = self.config.profile.draw(self.config.peers, &self.uploads_bps, &mut self.people);
        let ramp = self.config.ramp.as_micros() as u64;
        let count = honest.len() as u64;
        for (i, place) in honest.into_iter().enumerate() {
            let at = self.now + 500_000 + ramp * i as u64 / count;
            self.queue.push(at, Happening::Viewer(place));
        }
        for (which, attack) in self.config.attacks.iter().enumerate() {
            let many = (count as f64 * attack.share / (1.0 - attack.share)).round() as u64;
            for i in 0..many {
                let at = self.now + 500_000 + ramp * i / many;
                self.queue.push(at, Happening::Attacker(which));
            }
        }
        let from = self.measured_from();
        self.queue.push(from, Happening::Measure);
        self.queue.push(from, Happening::Look);
        self.queue.push(self.now, Happening::Play);
        self.queue.push(self.now, Happening::Second);
        for (i, event) in self.config.events.iter().enumerate() {
            self.queue.push(from + event.at.as_micros() as u64, Happening::Scenario(i));
        }
    }

    fn engine(&mut self, index: usize) -> Box<Engine> {
        let place = self.nodes[index].place;
        let share = match self.nodes[index].told {
            Told::Nothing => None,
            Told::Share(share) => Some(share),
            Told::Within(by) => Some(1.0 + (self.people.f64() * 2.0 - 1.0) * by),
        };
        let limit = share.map(|share| (place.upload_bps as f64 * share) as u64);
        let config = EngineConfig {
            local: self.nodes[index].id,
            seed: self.people.u64(..),
            upload_limit_bps: limit.filter(|bps| *bps > 0),
        };
        Box::new(Engine::new(config))
    }

    pub(super) fn add(&mut self, place: Place, is_source: bool, told: Told) -> usize {
        let index = self.nodes.len();
        let skew = self.config.skew.as_micros() as i64;
        let network = &self.config.profile.network;
        let (up, down) = self.lines(place);
        let node = Node {
            id: peer_id(index),
            engine: None,
            is_source,
            hostility: None,
            place,
            told,
            skew_us: if skew > 0 { self.people.i64(-skew..=skew) } else { 0 },
            up: Line::new(up),
            down: Line::new(down),
            loss: LossState::new(network, &mut self.rng),
            links: Vec::new(),
            timeout: u64::MAX,
            wake: u64::MAX,
            members: vec![Member::default(); self.broadcast.lanes.len()],
            watching: None,
            line_changed: None,
            record: Record::new(self.now, self.broadcast.published.len()),
        };
        self.nodes.push(node);
        index
    }

    /// What the lines of a place carry up and down, IP bit/s.
    pub(super) fn lines(&self, place: Place) -> (u64, u64) {
        let up = place.upload_bps.max(self.config.transport.return_line_bps);
        (up, self.config.profile.download_bps(place.class, self.config.rate_bps))
    }

    /// Its engine starts.
    pub(super) fn open(&mut self, index: usize) {
        let engine = self.engine(index);
        let node = &mut self.nodes[index];
        node.engine = Some(engine);
        (node.timeout, node.wake) = (u64::MAX, u64::MAX);
        let skew = node.skew_us;
        let unix_us = self.unix_us().saturating_add_signed(skew);
        self.input(index, Input::UnixTime(unix_us));
    }

    /// It enters the swarm of a rendition.
    pub(super) fn enter(&mut self, index: usize, rendition: RenditionId, role: Role, policy: Policy) {
        let node = &mut self.nodes[index];
        node.members[usize::from(rendition.0)].is_in = true;
        let (id, upload) = (node.id, node.place.upload_bps > 0);
        let config = SwarmConfig {
            channel: self.channel(),
            rendition,
            role,
            upload,
            retention: RETENTION,
            lan: true,
            policy,
            verifier: Box::new(self.broadcast.verifier.clone()),
            records: Box::new(PaperKeys(id)),
            network_map: self.map_for(index),
        };
        let is_served = self.config.delivery == Delivery::ServerOnly && index != self.source;
        self.input(index, Input::Open(Box::new(config)));
        if is_served {
            self.input(index, Input::ServedAlone(self.swarm(rendition), true));
        }
    }

    /// What the configuration lets the source push; `None`: what its uplink carries.
    fn source_copies_percent(&self) -> Option<u32> {
        let copies = self.config.source_copies * self.config.source_fill;
        (self.config.delivery == Delivery::SwarmOnly).then_some((copies * 100.0) as u32)
    }

    /// The source begins a broadcast, under the id it always has.
    pub(super) fn start_source(&mut self, copies_percent: Option<u32>) {
        let certificate = self.begin_broadcast();
        let alone = self.config.delivery == Delivery::ServerOnly;
        self.open(self.source);
        for place in 0..self.broadcast.lanes.len() {
            let (rendition, policy) = (RenditionId(place as u8), self.config.policy.clone());
            self.enter(self.source, rendition, Role::Source { certificate, copies_percent, alone }, policy);
            self.list(self.source, rendition);
        }
    }

    /// It starts in the first rendition's swarm, and asks the tracker.
    fn begin_watching(&mut self, index: usize) {
        self.open(index);
        let first = RenditionId(0);
        self.enter(index, first, Role::Viewer, self.config.policy.clone());
        self.list(index, first);
        self.queue.push(self.now + TRACKER_US, Happening::Track(index as u32, first));
    }

    /// A viewer comes.
    pub(super) fn viewer(&mut self, place: Place) -> usize {
        let index = self.add(place, false, self.config.told);
        self.watch_renditions(index);
        self.begin_watching(index);
        let session = match self.config.churn {
            Churn::None => return index,
            Churn::Exponential(mean) => -(1.0 - self.people.f64()).ln() * mean.as_secs_f64(),
            Churn::HeavyTailed(mean) => {
                let least = mean.as_secs_f64() * (PARETO_SHAPE - 1.0) / PARETO_SHAPE;
                least * (1.0 - self.people.f64()).powf(-1.0 / PARETO_SHAPE)
            }
        };
        let at = self.now + (session.min(1e6) * 1e6) as u64;
        self.queue.push(at, Happening::Depart(index as u32));
        index
    }

    /// A viewer comes that knows one honest viewer, drawn among those who are there and have started.
    pub(super) fn invited(&mut self, place: Place) {
        let started = |i: &usize| self.nodes[*i].is_honest() && self.nodes[*i].record.startup.is_some();
        let hosts: Vec<usize> = self.viewers().filter(started).collect();
        let index = self.viewer(place);
        if !hosts.is_empty() {
            let host = hosts[self.people.usize(..hosts.len())];
            self.input(index, Input::Candidates(self.channel().into(), vec![self.candidate(host)]));
        }
    }

    /// An attacker comes, and stays.
    pub(super) fn attacker(&mut self, which: usize) {
        let kind = self.config.attacks[which].kind;
        let regions = self.config.profile.network.region_share.len();
        let region = self.people.usize(..regions);
        let isps = self.config.profile.isp.len();
        let isp = if isps > 0 { self.people.usize(..isps) } else { 0 };
        let upload = if kind == AttackKind::FreeRider { 0 } else { UPLOAD };
        let place = Place { class: usize::MAX, region, isp, upload_bps: upload * self.config.rate_bps };
        let index = self.add(place, false, self.config.told);
        self.nodes[index].hostility = Some(Box::new(Hostility::new(kind)));
        self.hostile.push(index as u32);
        self.begin_watching(index);
        self.queue.push(self.now + EXTRA_PERIOD_US, Happening::Extra(index as u32));
    }

    /// A session ends, and somebody like them comes soon.
    pub(super) fn depart(&mut self, index: usize) {
        if !self.nodes[index].is_alive() {
            return;
        }
        let place = self.nodes[index].place;
        if self.people.f64() < self.config.goodbyes {
            self.leave(index);
        } else {
            self.kill(index);
        }
        let after = (-(1.0 - self.people.f64()).ln() * 1e6) as u64;
        self.queue.push(self.now + after, Happening::Viewer(place));
    }

    /// As `kill -9` would: nobody is told.
    pub fn kill(&mut self, index: usize) {
        if index == self.source {
            self.stop_broadcast();
        }
        self.nodes[index].engine = None;
        self.nodes[index].record.left = Some(self.now);
        self.queue.push(self.now + TRACKER_EXPIRY_US, Happening::Unlist(index as u32));
    }

    /// It says goodbye and is gone.
    pub fn leave(&mut self, index: usize) {
        for place in 0..self.broadcast.lanes.len() {
            if self.nodes[index].members[place].is_in {
                self.input(index, Input::Leave(self.swarm(RenditionId(place as u8))));
            }
        }
        for (to, link) in self.nodes[index].links.clone() {
            // The connection is closed once its last bytes are through.
            let state = &self.links[link as usize];
            let end = usize::from(state.ends[1] == index as u32);
            let at = state.flows[end].ordered_at.max(self.now + state.one_way_us);
            self.queue.push(at + 1, Happening::Gone { link, from: index as u32, to });
        }
        self.nodes[index].engine = None;
        self.nodes[index].record.left = Some(self.now);
        self.unlist(index);
    }

    pub(super) fn list(&mut self, index: usize, rendition: RenditionId) {
        let place = usize::from(rendition.0);
        let listed = &mut self.tracked[place].listed;
        if self.nodes[index].members[place].listed.is_none() {
            self.nodes[index].members[place].listed = Some(listed.len());
            listed.push(index as u32);
        }
    }

    /// The tracker forgets it in every swarm.
    pub(super) fn unlist(&mut self, index: usize) {
        if self.nodes[index].is_source && self.nodes[index].is_alive() {
            return;
        }
        for place in 0..self.tracked.len() {
            self.unlist_in(index, RenditionId(place as u8));
        }
    }

    pub(super) fn unlist_in(&mut self, index: usize, rendition: RenditionId) {
        let place = usize::from(rendition.0);
        let Some(at) = self.nodes[index].members[place].listed.take() else { return };
        let listed = &mut self.tracked[place].listed;
        listed.swap_remove(at);
        if let Some(moved) = listed.get(at) {
            self.nodes[*moved as usize].members[place].listed = Some(at);
        }
    }

    /// The tracker, if it is there, answers `index` in the first rendition's swarm.
    pub fn track(&mut self, index: usize) {
        self.track_in(index, RenditionId(0));
    }

    /// The tracker, if it is there, answers `index`: the source, the strongest of a sample, and some of the rest.
    pub(super) fn track_in(&mut self, index: usize, rendition: RenditionId) {
        let place = usize::from(rendition.0);
        let node = &self.nodes[index];
        if self.is_tracker_away || !node.is_alive() || !node.members[place].is_in {
            return;
        }
        let listed = &self.tracked[place].listed;
        let mut sample: Vec<u32> = if listed.len() <= TRACKER_SAMPLE {
            listed.clone()
        } else {
            let count = listed.len();
            let mut sample: Vec<u32> =
                (0..TRACKER_SAMPLE).map(|_| listed[self.people.usize(..count)]).collect();
            sample.sort_unstable();
            sample.dedup();
            sample
        };
        let source = self.source;
        sample.retain(|i| *i as usize != index && *i as usize != source);
        self.people.shuffle(&mut sample);
        let room = TRACKER_ANSWER - 1;
        let near = self.take_near(index, &mut sample, room);
        let room = room - near.len();
        sample.sort_by_key(|i| core::cmp::Reverse(self.nodes[*i as usize].place.upload_bps));
        if sample.len() > room / 2 {
            self.people.shuffle(&mut sample[room / 2..]);
        }
        sample.truncate(room);
        let mut candidates = Vec::with_capacity(TRACKER_ANSWER);
        // Most of a crowd would find the source full.
        let peers =
            self.tracked[place].listed.len().clamp(1, TRACKER_SOURCE_NAMED * TRACKER_SOURCE_ANSWERS_MAX);
        let is_named = self.people.usize(..peers) < TRACKER_SOURCE_NAMED && self.may_name_source(place);
        let is_there = self.nodes[source].is_source && self.nodes[source].members[place].listed.is_some();
        if index != source && is_there && is_named {
            candidates.push(self.candidate(source));
        }
        candidates.extend(near);
        candidates.extend(sample.into_iter().map(|i| self.candidate(i as usize)));
        let swarm = self.swarm(rendition);
        if let Some(certificate) = self.broadcast.certificate {
            let note = self.broadcast.lanes[place].note;
            self.input(index, Input::Broadcast(swarm, certificate, note));
        }
        self.input(index, Input::Candidates(swarm, candidates));
    }

    /// Whether the source's line has time for one more who comes.
    fn may_name_source(&mut self, place: usize) -> bool {
        let tracked = &mut self.tracked[place];
        if tracked.listed.len() <= TRACKER_SOURCE_NAMED {
            return true;
        }
        let owed = tracked.source_named_until.max(self.now) + TRACKER_SOURCE_PERIOD_US;
        let may = owed <= self.now + TRACKER_SOURCE_NAMED as u64 * TRACKER_SOURCE_PERIOD_US;
        tracked.source_named_until = if may { owed } else { tracked.source_named_until };
        may
    }

    /// Where `index` is, as a tracker says it.
    pub fn candidate(&self, index: usize) -> Candidate {
        let node = &self.nodes[index];
        Candidate { peer: node.id, addrs: vec![self.addr(index)], source: node.is_source, cost: 0 }
    }

    /// Viewers that are there, attackers among them.
    pub fn viewers(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&i| self.nodes[i].is_alive() && !self.nodes[i].is_source)
    }

    /// A share of the viewers that are there, drawn.
    fn share(&mut self, share: f64) -> Vec<usize> {
        let mut all: Vec<usize> = self.viewers().filter(|&i| self.nodes[i].is_honest()).collect();
        self.people.shuffle(&mut all);
        let count = (all.len() as f64 * share).round() as usize;
        all.truncate(count);
        all
    }

    pub(super) fn begin_event(&mut self, which: usize) {
        let what = self.config.events[which].what;
        let now = self.now;
        match what {
            What::Leave(share) => self.share(share).into_iter().for_each(|i| self.kill(i)),
            What::Join(count, over) | What::Invite(count, over) => {
                let places = self.config.profile.draw(count, &self.uploads_bps, &mut self.people);
                for (i, place) in places.into_iter().enumerate() {
                    let after = over.as_micros() as u64 * i as u64 / count.max(1) as u64;
                    let comes = match what {
                        What::Invite(..) => Happening::Invited(place),
                        _ => Happening::Viewer(place),
                    };
                    self.queue.push(now + after, comes);
                }
            }
            What::Partition(share, span) => {
                let mut side = vec![false; self.nodes.len()];
                self.share(share).into_iter().for_each(|i| side[i] = true);
                self.partition = Some((side, now + span.as_micros() as u64));
            }
            What::SourceOutage(_) => self.kill(self.source),
            What::TrackerOutage(_) => self.is_tracker_away = true,
            What::Slow(share, _) => {
                for i in self.share(share) {
                    self.nodes[i].up.bps /= SLOW_FACTOR;
                }
            }
            What::Line(share, bps) => self.narrow(share, bps),
            What::LineBack(share) => self.widen(share),
        }
        let span = match what {
            What::Leave(_) | What::Join(..) | What::Invite(..) => return,
            What::Line(..) | What::LineBack(_) => return,
            What::Partition(_, span) | What::SourceOutage(span) => span,
            What::TrackerOutage(span) | What::Slow(_, span) => span,
        };
        self.queue.push(now + span.as_micros() as u64, Happening::ScenarioEnd(which));
    }

    pub(super) fn end_event(&mut self, which: usize) {
        match self.config.events[which].what {
            What::SourceOutage(_) => {
                self.restart_source(self.source_copies_percent());
            }
            What::TrackerOutage(_) => self.is_tracker_away = false,
            What::Slow(..) => {
                for node in &mut self.nodes {
                    node.up.bps = node.place.upload_bps.max(self.config.transport.return_line_bps);
                }
            }
            What::Partition(..) => self.partition = None,
            What::Leave(_) | What::Join(..) | What::Invite(..) => {}
            What::Line(..) | What::LineBack(_) => {}
        }
    }

    /// Lines of a share of the viewers carry this much from now on.
    fn narrow(&mut self, share: f64, bps: u64) {
        for index in self.share(share) {
            let (up, _) = self.lines(self.nodes[index].place);
            self.nodes[index].line_changed = Some(self.now);
            self.set_lines(index, up.min(bps), bps);
        }
    }

    /// Those that were changed are as they were: so many as this share of all, the first ones first.
    fn widen(&mut self, share: f64) {
        let all = self.viewers().filter(|i| self.nodes[*i].is_honest());
        let count = (all.count() as f64 * share).round() as usize;
        let mut changed: Vec<(u64, usize)> =
            self.viewers().filter_map(|i| self.nodes[i].line_changed.map(|at| (at, i))).collect();
        changed.sort_unstable();
        for (_, index) in changed.into_iter().take(count) {
            let (up, down) = self.lines(self.nodes[index].place);
            self.nodes[index].line_changed = None;
            self.set_lines(index, up, down);
        }
    }

    /// From now on the lines of `index` carry so much up and down, IP bit/s; its engine is told nothing.
    pub fn set_lines(&mut self, index: usize, up_bps: u64, down_bps: u64) {
        (self.nodes[index].up.bps, self.nodes[index].down.bps) = (up_bps.max(1), down_bps.max(1));
        self.line_set(index, down_bps);
    }

    /// Its process comes back under the same id: nobody is told that the old connections are gone.
    pub(super) fn restart_source(&mut self, copies_percent: Option<u32>) {
        for (_, link) in std::mem::take(&mut self.nodes[self.source].links) {
            self.links[link as usize].is_closed = true;
        }
        self.nodes[self.source].record.left = None;
        self.start_source(copies_percent);
    }
}
