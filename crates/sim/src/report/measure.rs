//! From what peers recorded to figures.

use std::collections::BTreeMap;

use caudal_proto::qos::playout::Bounds;

use super::{
    AttackReport, Chunks, ClassReport, EventReport, HopReport, ON_TIME, PLAYOUT_DELAYS_MS, Percentiles,
    Report, SCHEMA,
};
use crate::event::What;
use crate::profile::Place;
use crate::reference::{Rule, Setting};
use crate::world::{Node, World};

/// Nothing is due for this long after coming, µs.
const GRACE_US: u64 = 1_000_000;
/// A chunk counts as missing after this long, µs.
const MISSING_US: u64 = 3_000_000;
/// Bins of continuity over time, µs.
pub(crate) const BIN_US: u64 = 250_000;
/// How long after an event those who stayed are looked at, µs.
const AFTER_US: u64 = 10_000_000;
/// Normal is this share on time.
const NORMAL: f64 = 0.999;
/// Chunk bytes around a payload: header, signature, stream head.
pub(super) const AROUND_PAYLOAD_BYTES: u64 = 112;

/// Counts by tenth of a millisecond.
#[derive(Debug, Clone)]
struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Histogram {
    const STEP_US: u64 = 100;

    fn new() -> Self {
        Self { counts: vec![0; 400_000], total: 0, max_us: 0 }
    }

    fn add(&mut self, us: u64) {
        let last = self.counts.len() - 1;
        self.counts[((us / Self::STEP_US) as usize).min(last)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    fn percentile(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share) as u64).min(self.total.saturating_sub(1));
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > rank {
                return step as f64 * Self::STEP_US as f64 / 1000.0;
            }
        }
        self.max_us as f64 / 1000.0
    }

    /// By percent.
    fn curve(&self) -> Vec<f64> {
        (0..=100).map(|percent| self.percentile(f64::from(percent) / 100.0)).collect()
    }

    fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.percentile(0.5),
            p95: self.percentile(0.95),
            p99: self.percentile(0.99),
            max: self.max_us as f64 / 1000.0,
        }
    }
}

/// Percentiles of a few numbers, µs.
pub(super) fn percentiles(mut us: Vec<u64>) -> Percentiles {
    us.sort_unstable();
    let at = |share: f64| {
        let rank = ((us.len() as f64 * share) as usize).min(us.len().saturating_sub(1));
        us.get(rank).map_or(0.0, |us| *us as f64 / 1000.0)
    };
    Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
}

/// Ascending µs as ms by percent.
fn curve(us: &[u64]) -> Vec<f64> {
    let at = |percent: usize| us.get((us.len() * percent / 100).min(us.len().saturating_sub(1)));
    (0..=100).map(|percent| at(percent).map_or(0.0, |us| *us as f64 / 1000.0)).collect()
}

/// A quarter of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Bin {
    pub(crate) due: u64,
    pub(crate) on_time: u64,
}

/// A viewer that was due fewer chunks says nothing about the worst.
const WORST_DUE_MIN: u64 = 20;

/// What all records come to.
pub(super) struct Measured {
    delays: Histogram,
    by_class: Vec<Histogram>,
    by_isp: Vec<Histogram>,
    due: [u64; PLAYOUT_DELAYS_MS.len()],
    on_time: [u64; PLAYOUT_DELAYS_MS.len()],
    missing: u64,
    worst: f64,
    depths: Vec<u64>,
    bins: Vec<Bin>,
}

impl Measured {
    pub(super) fn of(world: &World) -> Self {
        let classes = world.config.profile.class.len();
        let bins = world.config.duration.as_micros() as u64 / BIN_US + 1;
        let mut measured = Self {
            delays: Histogram::new(),
            by_class: vec![Histogram::new(); classes],
            by_isp: vec![Histogram::new(); world.config.profile.isp.len()],
            due: [0; PLAYOUT_DELAYS_MS.len()],
            on_time: [0; PLAYOUT_DELAYS_MS.len()],
            missing: 0,
            worst: 1.0,
            depths: vec![0; 256],
            bins: vec![Bin::default(); bins as usize],
        };
        for node in world.nodes.iter().filter(|node| !node.is_source && node.is_honest()) {
            measured.add(world, node);
        }
        measured
    }

    fn add(&mut self, world: &World, node: &Node) {
        let (from, end) = (world.measured_from(), world.end());
        let record = &node.record;
        let until = record.left.unwrap_or(end).min(end);
        let start = record.start.unwrap_or(usize::MAX);
        let first = world.broadcast.published.partition_point(|p| p.at < from);
        let (mut due_here, mut on_time_here) = (0u64, 0u64);
        for (serial, published) in world.broadcast.published.iter().enumerate().skip(first) {
            if published.at >= until {
                break;
            }
            if !node.is_due(published) {
                continue;
            }
            let delay = record.delay(serial).map(u64::from);
            let is_grown = published.at >= record.opened + GRACE_US;
            for (i, playout_ms) in PLAYOUT_DELAYS_MS.iter().enumerate() {
                let at = published.at + playout_ms * 1000;
                let is_due = is_grown || (serial >= start && at > record.opened + GRACE_US);
                if !is_due || at > until {
                    continue;
                }
                let is_on_time = delay.is_some_and(|delay| delay <= playout_ms * 1000);
                self.due[i] += 1;
                self.on_time[i] += u64::from(is_on_time);
                if i == ON_TIME {
                    due_here += 1;
                    on_time_here += u64::from(is_on_time);
                    if let Some(bin) = self.bins.get_mut(((published.at - from) / BIN_US) as usize) {
                        bin.due += 1;
                        bin.on_time += u64::from(is_on_time);
                    }
                }
            }
            if is_grown && published.at + MISSING_US <= until {
                match delay {
                    Some(delay) => {
                        self.delays.add(delay);
                        self.by_class[node.place.class].add(delay);
                        if let Some(delays) = self.by_isp.get_mut(node.place.isp) {
                            delays.add(delay);
                        }
                        self.depths[usize::from(record.depth(serial))] += 1;
                    }
                    None => self.missing += 1,
                }
            }
        }
        if due_here > WORST_DUE_MIN {
            self.worst = self.worst.min(on_time_here as f64 / due_here as f64);
        }
    }

    pub(super) fn report(self, world: &World) -> Report {
        let config = &world.config;
        let (now, before) = (&world.ledger, &world.before);
        let useful = (now.useful_bytes - before.useful_bytes).max(1) as f64;
        let stream = (now.published_bytes - before.published_bytes).max(1) as f64;
        let received = (now.useful_chunks - before.useful_chunks).max(1) as f64;
        let ratio = |after: u64, before: u64, of: f64| (after - before) as f64 / of;
        let chunk_bytes = stream as u64 / (now.published - before.published).max(1);
        let setting = Setting {
            places: &world.measured,
            network: &config.profile.network,
            source_region: 0,
            source_bps: config.source_bps(),
            rate_bps: config.rate_bps,
            chunk_wire_bytes: config.transport.chunk_wire_bytes(chunk_bytes + AROUND_PAYLOAD_BYTES),
        };
        let (greedy_us, better_us) = (setting.run(Rule::Greedy), setting.best());
        let curves = [self.delays.curve(), curve(&greedy_us), curve(&better_us)];
        let greedy = percentiles(greedy_us);
        let chunk_delay_ms = self.delays.percentiles();
        let (startup_ms, never_started) = startup(world);
        let checks = super::checks(world);
        let depth_total = self.depths.iter().sum::<u64>().max(1) as f64;
        let depths = self.depths.iter().enumerate().filter(|(_, count)| **count > 0);
        let neighbours = neighbours(world);
        Report {
            schema: SCHEMA,
            commit: String::new(),
            command: config.command.clone(),
            seed: config.seed,
            peers: config.peers,
            duration_ms: config.duration.as_millis() as u64,
            rate_bps: config.rate_bps,
            chunk_delay_ms,
            reference_delay_ms: greedy,
            reference_better_ms: percentiles(better_us),
            delay_ratio: divide(chunk_delay_ms, greedy),
            rate_max_bps: setting.rate_max_bps(config.wire_factor()),
            continuity: PLAYOUT_DELAYS_MS
                .iter()
                .enumerate()
                .map(|(i, ms)| (*ms, self.on_time[i] as f64 / self.due[i].max(1) as f64))
                .collect(),
            continuity_worst: self.worst,
            playout: super::PlayoutReport::of(world, Bounds::USUAL),
            playout_at_most_2s: super::PlayoutReport::of(world, Bounds::within(super::MAX_DELAY)),
            startup_ms,
            never_started,
            chunks: Chunks {
                due: self.due[ON_TIME],
                on_time: self.on_time[ON_TIME],
                late: (self.due[ON_TIME] - self.on_time[ON_TIME]).saturating_sub(self.missing),
                missing: self.missing,
                duplicate: now.duplicates - before.duplicates,
            },
            duplicate_ratio: ratio(now.duplicates, before.duplicates, received),
            pulled_ratio: ratio(now.pulled, before.pulled, received),
            control_ratio: ratio(now.control_wire_bytes, before.control_wire_bytes, useful),
            control_payload_ratio: ratio(now.control_bytes, before.control_bytes, useful),
            wire_ratio: ratio(now.wire_bytes, before.wire_bytes, useful),
            source_copies: ratio(now.source_wire_bytes, before.source_wire_bytes, stream),
            offload_ratio: 1.0 - ratio(now.useful_bytes_from_source, before.useful_bytes_from_source, useful),
            offload_ceiling: setting.offload_ceiling(config.wire_factor()),
            depth: depths.map(|(depth, count)| (depth as u8, *count as f64 / depth_total)).collect(),
            upload_use: upload_use(world, |_| true),
            neighbours,
            classes: self.classes(world, stream),
            renditions: super::RenditionsReport::of(world),
            isps: super::IspsReport::of(
                world,
                &self.by_isp.iter().map(Histogram::percentiles).collect::<Vec<_>>(),
            ),
            events: events(world, &self.bins),
            attacks: attacks(world),
            trace: trace(world),
            wall_ms: 0,
            inputs: world.inputs,
            trace_hash: format!("{:016x}", world.hash.value()),
            ok: checks.iter().all(|check| check.ok),
            checks,
            bins: self.bins,
            curves,
        }
    }

    fn classes(&self, world: &World, stream: f64) -> Vec<ClassReport> {
        let from = world.measured_from();
        let rate = world.config.rate_bps as f64;
        let class = |(index, class): (usize, &crate::profile::Class)| {
            let here = |node: &&Node| {
                node.place.class == index
                    && !node.is_source
                    && node.record.left.is_none_or(|left| left > from)
            };
            let nodes: Vec<&Node> = world.nodes.iter().filter(here).collect();
            let relayed: u64 = nodes.iter().map(|node| node.record.relayed).sum();
            // Peers that were there for a part of the time count as that part.
            let time: f64 = nodes.iter().map(|node| presence(world, node)).sum();
            ClassReport {
                name: class.name.clone(),
                peers: nodes.len() as u64,
                upload: nodes.first().map_or(0.0, |node| node.place.upload_bps as f64 / rate),
                copies: relayed as f64 / (stream * time.max(1e-9)),
                upload_use: upload_use(world, |node| node.place.class == index),
                chunk_delay_ms: self.by_class[index].percentiles(),
            }
        };
        world.config.profile.class.iter().enumerate().map(class).collect()
    }
}

/// The share of the measured time that a peer was there.
fn presence(world: &World, node: &Node) -> f64 {
    let (from, end) = (world.measured_from(), world.end());
    let left = node.record.left.unwrap_or(end);
    left.saturating_sub(node.record.opened.max(from)) as f64 / (end - from) as f64
}

fn upload_use(world: &World, which: impl Fn(&Node) -> bool) -> f64 {
    let seconds = world.config.duration.as_secs_f64();
    let (mut sent, mut could) = (0.0, 0.0);
    for node in world.nodes.iter().filter(|node| !node.is_source && which(node)) {
        sent += (node.record.sent - node.record.sent_before) as f64 * 8.0;
        could += node.place.upload_bps as f64 * presence(world, node) * seconds;
    }
    if could > 0.0 { sent / could } else { 0.0 }
}

fn neighbours(world: &World) -> f64 {
    let (mut count, mut links) = (0usize, 0usize);
    for index in world.viewers() {
        count += 1;
        links += world.nodes[index].links.len();
    }
    links as f64 / count.max(1) as f64
}

fn divide(a: Percentiles, b: Percentiles) -> Percentiles {
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    Percentiles {
        p50: ratio(a.p50, b.p50),
        p95: ratio(a.p95, b.p95),
        p99: ratio(a.p99, b.p99),
        max: ratio(a.max, b.max),
    }
}

/// Of those who came while measured, or of all when nobody did; and how many of them never started.
fn startup(world: &World) -> (Percentiles, u64) {
    let from = world.measured_from();
    let came = |node: &&Node| !node.is_source && node.is_honest() && node.record.opened >= from;
    let mut nodes: Vec<&Node> = world.nodes.iter().filter(came).collect();
    if nodes.is_empty() {
        nodes = world.nodes.iter().filter(|node| !node.is_source && node.is_honest()).collect();
    }
    startup_of(world, &nodes)
}

fn startup_of(world: &World, nodes: &[&Node]) -> (Percentiles, u64) {
    let never = nodes.iter().filter(|node| {
        let stayed = node.record.left.unwrap_or(world.end()).saturating_sub(node.record.opened);
        node.record.startup.is_none() && stayed > 5_000_000
    });
    let never = never.count() as u64;
    let mut times: Vec<u64> = nodes.iter().filter_map(|node| node.record.startup).collect();
    // Who never starts waits for ever: percentiles say so.
    times.extend(std::iter::repeat_n(world.config.duration.as_micros() as u64, never as usize));
    (percentiles(times), never)
}

fn events(world: &World, bins: &[Bin]) -> Vec<EventReport> {
    let from = world.measured_from();
    let report = |(at, what, text): (u64, What, &str)| {
        let span = match what {
            What::Join(_, over) | What::Invite(_, over) => over.as_micros() as u64,
            _ => AFTER_US,
        };
        let (stayers_continuity, stayers_worst) = stayers(world, at, at + span.max(AFTER_US));
        let first = ((at - from) / BIN_US) as usize;
        let playable = world.end().saturating_sub(from + PLAYOUT_DELAYS_MS[ON_TIME] * 1000) / BIN_US;
        let normal = |bin: &Bin| bin.due == 0 || bin.on_time as f64 >= bin.due as f64 * NORMAL;
        let bins = &bins[first.min(bins.len())..(playable as usize).max(first).min(bins.len())];
        let last_bad = bins.iter().rposition(|bin| !normal(bin));
        let normal_after_ms = match last_bad {
            None => Some(0.0),
            Some(bad) if bad + 4 < bins.len() => Some((bad + 1) as f64 * BIN_US as f64 / 1000.0),
            Some(_) => None,
        };
        let startup_ms = matches!(what, What::Join(..) | What::Invite(..)).then(|| {
            let came = |node: &&Node| {
                node.is_honest() && !node.is_source && (at..=at + span).contains(&node.record.opened)
            };
            startup_of(world, &world.nodes.iter().filter(came).collect::<Vec<_>>()).0
        });
        let at_ms = (at - from) as f64 / 1000.0;
        let event = text.to_owned();
        EventReport { event, at_ms, stayers_continuity, stayers_worst, normal_after_ms, startup_ms }
    };
    world.events().map(report).collect()
}

/// Of those who were there before `at` and until after `to`: chunks of that time on time, over all and of the worst.
fn stayers(world: &World, at: u64, to: u64) -> (f64, f64) {
    let playout = PLAYOUT_DELAYS_MS[ON_TIME] * 1000;
    let to = to.min(world.end().saturating_sub(playout));
    let (mut due, mut on_time, mut worst) = (0u64, 0u64, 1.0f64);
    for node in world.nodes.iter().filter(|node| !node.is_source && node.is_honest()) {
        let record = &node.record;
        if record.opened + GRACE_US > at || record.left.is_some_and(|left| left < to + playout) {
            continue;
        }
        let (mut due_here, mut on_time_here) = (0u64, 0u64);
        for (serial, published) in world.broadcast.published.iter().enumerate() {
            if (at..to).contains(&published.at) && node.is_due(published) {
                due_here += 1;
                on_time_here +=
                    u64::from(record.delay(serial).is_some_and(|delay| u64::from(delay) <= playout));
            }
        }
        (due, on_time) = (due + due_here, on_time + on_time_here);
        worst = worst.min(on_time_here as f64 / due_here.max(1) as f64);
    }
    (on_time as f64 / due.max(1) as f64, worst)
}

fn attacks(world: &World) -> Vec<AttackReport> {
    let of = |attack: &crate::attack::Attack| {
        let is_one = |node: &Node| {
            node.hostility.as_ref().is_some_and(|hostility| hostility.kind() == Some(attack.kind))
        };
        let honest = || world.nodes.iter().filter(|node| node.is_honest());
        let links = honest().flat_map(|node| &node.links);
        AttackReport {
            attack: attack.kind.name().to_owned(),
            peers: world.nodes.iter().filter(|node| is_one(node)).count() as u64,
            dropped: honest().map(|node| u64::from(node.record.dropped.1)).sum(),
            forgeries: honest().map(|node| u64::from(node.record.forgeries)).sum(),
            links: links.filter(|(peer, _)| is_one(&world.nodes[*peer as usize])).count() as u64,
        }
    };
    world.config.attacks.iter().map(of).collect()
}

fn trace(world: &World) -> Vec<HopReport> {
    let Some(published) = world.trace.serial().and_then(|serial| world.broadcast.published.get(serial))
    else {
        return Vec::new();
    };
    let since = |us: u64| us.saturating_sub(published.at) as f64 / 1000.0;
    let mut depths: BTreeMap<usize, u8> = BTreeMap::from([(world.source, 0)]);
    let hop = |hop: &crate::trace::Hop| {
        let depth = depths.get(&hop.from).copied().unwrap_or(0) + 1;
        depths.entry(hop.to).or_insert(depth);
        HopReport {
            from: hop.from,
            to: hop.to,
            depth,
            sent_ms: since(hop.sent),
            arrived_ms: since(hop.arrived),
            requested: hop.is_requested,
        }
    };
    world.trace.hops.iter().map(hop).collect()
}

/// The places of everybody who is there.
pub(crate) fn places(world: &World) -> Vec<Place> {
    world.viewers().filter(|i| world.nodes[*i].is_honest()).map(|i| world.nodes[i].place).collect()
}
