//! What others may look at while a viewer runs: its state, its figures, its report.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_media::part::Part;
use caudal_proto::id::{RenditionId, SwarmId};
use caudal_proto::qos::rendition::Reason;
use caudal_proto::swarm::SwarmStats;
use caudal_proto::time::Timestamp;
use caudal_tracker::message::Qos;

use super::rendition::{Playing, Preference};
use super::{Inner, Origin, Shared, State};
use crate::clock::unix_us;
use crate::live::Live;
use crate::rates::Rates;
use crate::report::{Check, Gauge, PeerReport, SCHEMA, ViewerReport};
use crate::source::lane::sum;

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `viewer`, or `edge` where what comes is served to others over HTTP.
    pub fn role(&self) -> &'static str {
        if self.shelf.is_some() { "edge" } else { "viewer" }
    }

    /// Whether this viewer sends to others.
    pub fn uploads(&self) -> bool {
        self.upload && !self.lock().metered
    }

    /// Whether it would, on a line that is not paid by the byte.
    pub(super) fn may_upload(&self) -> bool {
        self.upload
    }

    pub(super) fn part(&self, part: Part) {
        let duration = Duration::from_micros(u64::from(part.duration_us));
        let now = Timestamp::from_micros(self.started.elapsed().as_micros() as u64);
        let end = part.capture_unix_us.saturating_add(u64::from(part.duration_us));
        let mut inner = self.lock();
        inner.delay.arrived(now, unix_us(), end, duration);
        inner.meter.part(duration);
        inner.parts += 1;
        inner.last_part = Some(Instant::now());
        inner.state = State::Live;
        inner.reason = None;
        drop(inner);
        self.live.push(part);
    }

    pub(super) fn buffer_ms(&self) -> u32 {
        u32::try_from(self.lock().meter.buffer_ms()).unwrap_or(0)
    }

    /// What somebody wants to see.
    pub fn preference(&self) -> Preference {
        *self.preference.borrow()
    }

    /// Somebody wants to see something else; heard at once.
    pub fn prefer(&self, preference: Preference) {
        self.preference.send_replace(preference);
    }

    pub(super) async fn refresh(&self) {
        let renditions: Vec<RenditionId> = {
            let shown = &self.lock().shown;
            [shown.rendition].into_iter().chain(shown.tried).chain(shown.beside.iter().copied()).collect()
        };
        let mut all = Vec::new();
        for rendition in renditions {
            all.extend(match &self.origin {
                Origin::Swarm(handle) => handle.stats(SwarmId { channel: self.channel, rendition }).await,
                Origin::Edges(counters) => counters.stats(rendition),
            });
        }
        let mut inner = self.lock();
        if !all.is_empty() {
            let stats = sum(all.iter().chain([&inner.shown.left]));
            inner.rates.look(Instant::now(), &stats);
            inner.stats = stats;
        }
        inner.meter.count(unix_us());
        let quiet = inner.last_part.is_some_and(|at| at.elapsed() > Duration::from_secs(3));
        if quiet && inner.state == State::Live {
            inner.state = State::Waiting;
        }
    }

    pub(super) fn look(&self) -> Qos {
        let inner = self.lock();
        let (stats, delay) = (&inner.stats, inner.meter.delay());
        Qos {
            uploaded_bytes: Some(stats.bytes_out),
            downloaded_bytes: None,
            useful_bytes: Some(stats.useful_bytes),
            upload_bps: None,
            continuity: (inner.meter.chunks(0).due > 0)
                .then(|| inner.meter.continuity().get(&1500).copied().unwrap_or(1.0)),
            offload_ratio: Some(offload(stats)),
            edge_ratio: (stats.useful_bytes > 0)
                .then(|| stats.useful_bytes_from_edge as f64 / stats.useful_bytes as f64),
            startup_ms: inner.meter.startup_ms(),
            delay_p50_ms: Some(delay.p50),
            delay_p95_ms: Some(delay.p95),
            buffer_ms: Some(inner.meter.buffer_ms().max(0) as f64),
            stalls: Some(inner.meter.stalls()),
            // Of one alone there is nothing to say, and an edge has all of them.
            rendition: (self.shelf.is_none() && inner.shown.offered.len() > 1)
                .then_some(inner.shown.rendition.0),
        }
    }

    /// For the status line.
    pub fn glance(&self) -> Glance {
        let inner = self.lock();
        Glance {
            state: inner.state,
            silent: inner.last_part.map(|at| at.elapsed()),
            buffer_ms: inner.meter.buffer_ms(),
            senders: inner.stats.neighbours.iter().filter(|n| n.parent_in != 0).count(),
            receivers: inner.stats.neighbours.iter().filter(|n| n.child_in != 0).count(),
            delay_ms: inner.meter.delay().p50,
            offload_ratio: offload(&inner.stats),
            gaps: inner.gaps,
            received_inside: self.vantage.report(&inner.stats).received_inside,
            playing: Playing::of(&inner.shown, self.preference()),
        }
    }

    /// How it stands, and why where that is to be said.
    pub fn state(&self) -> (&'static str, Option<String>) {
        let inner = self.lock();
        (inner.state.as_str(), inner.reason.clone())
    }

    /// What a page's gauge shows.
    pub fn gauge(&self) -> Gauge {
        let inner = self.lock();
        let wanted = |kept: Duration| Some(kept.as_millis() as u64);
        Gauge {
            wanted_ms: wanted(inner.delay.wanted()),
            wanted_most_ms: wanted(inner.delay.most()),
            ..gauge(&self.live, inner.meter.buffer_ms(), &inner.stats, &inner.rates)
        }
    }

    /// How it goes, now.
    pub async fn report(&self) -> ViewerReport {
        self.refresh().await;
        self.last_report()
    }

    /// How it went at the last look: also after the viewer has left.
    pub fn last_report(&self) -> ViewerReport {
        let inner = self.lock();
        let (meter, stats) = (&inner.meter, &inner.stats);
        let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let (continuity, stands_still) = (meter.continuity(), meter.stands_still());
        let checks = vec![
            check("plays", inner.parts > 0, format!("{} parts", inner.parts)),
            check(
                "no part is missing",
                inner.gaps == 0 && !stands_still,
                format!(
                    "{} gaps{}",
                    inner.gaps,
                    if stands_still { ", and it stands still though chunks come" } else { "" }
                ),
            ),
            check("nothing forged was played", true, format!("{} forged chunks refused", stats.forged)),
        ];
        ViewerReport {
            schema: SCHEMA,
            commit: self.commit,
            command: self.command.clone(),
            role: self.role(),
            channel: self.channel.to_string(),
            peer: self.peer.to_string(),
            state: inner.state.as_str(),
            reason: inner.reason.clone(),
            duration_ms: meter.age().as_millis() as u64,
            rate_bps: stats.rate_bps,
            chunk_delay_ms: meter.delay(),
            chunk_delay_histogram_ms: meter.histogram(),
            arrival_gap_histogram_ms: meter.arrival_gaps(),
            continuity,
            startup_ms: meter.startup_ms(),
            chunks: meter.chunks(stats.duplicates),
            duplicate_ratio: ratio(stats.duplicates, stats.received),
            control_ratio: ratio(stats.control_bytes_in + stats.control_bytes_out, stats.useful_bytes),
            offload_ratio: offload(stats),
            useful_bytes: stats.useful_bytes,
            useful_bytes_from_source: stats.useful_bytes_from_source,
            useful_bytes_from_edge: stats.useful_bytes_from_edge,
            metered: inner.metered,
            bytes_out: stats.bytes_out,
            upload_capacity_bps: stats.upload_capacity_bps,
            upload_wait_ms: stats.upload_wait_us / 1000,
            parents: stats.parents,
            children: stats.children,
            chunks_received: stats.received,
            chunks_pulled: stats.pulled,
            chunks_forged: stats.forged,
            chunk_payload_bytes: meter.chunk_payload_bytes(),
            parts: inner.parts,
            gaps: inner.gaps,
            buffer_ms: meter.buffer_ms(),
            wanted_ms: inner.delay.wanted().as_millis() as u64,
            jitter_ms: inner.delay.jitter().map(|jitter| jitter.as_millis() as u64),
            stalls: meter.stalls(),
            dropped: inner.dropped.clone(),
            rendition: inner.shown.rendition.0,
            rendition_wanted: self.preference().to_string(),
            rendition_tried: inner.shown.tried.map(|rendition| rendition.0),
            rendition_changes: inner.shown.changes,
            rendition_reason: inner.shown.reason.map(Reason::as_str),
            renditions: inner.shown.offered.clone(),
            network: self.vantage.report(stats),
            edge: self.shelf.as_ref().map(|shelf| shelf.report()),
            peers: peers(stats, &inner.rates),
            ok: checks.iter().all(|check| check.ok),
            checks,
        }
    }
}

/// What a status line shows.
#[derive(Debug, Clone)]
pub struct Glance {
    /// How it stands.
    pub state: State,
    /// Since the last part came; none before the first.
    pub silent: Option<Duration>,
    /// Media ready, ms.
    pub buffer_ms: i64,
    /// Neighbours that send to this node.
    pub senders: usize,
    /// Neighbours that this node sends to.
    pub receivers: usize,
    /// Median chunk delay.
    pub delay_ms: f64,
    /// Useful bytes from peers ÷ useful bytes.
    pub offload_ratio: f64,
    /// Holes stepped over.
    pub gaps: u64,
    /// Of the useful bytes, those from the own network, where a map says what that is.
    pub received_inside: Option<f64>,
    /// Which rendition, where the channel has several.
    pub playing: Option<Playing>,
}

pub(crate) fn check(name: &str, ok: bool, detail: String) -> Check {
    Check { name: name.to_owned(), ok, detail }
}

fn offload(stats: &SwarmStats) -> f64 {
    if stats.useful_bytes == 0 {
        return 0.0;
    }
    let from_server = stats.useful_bytes_from_source + stats.useful_bytes_from_edge;
    stats.useful_bytes.saturating_sub(from_server) as f64 / stats.useful_bytes as f64
}

/// What a gauge shows of `live`.
pub(crate) fn gauge(live: &Live, buffer_ms: i64, stats: &SwarmStats, rates: &Rates) -> Gauge {
    let newest = live.newest();
    let (rate_in_bps, rate_out_bps) = rates.all();
    Gauge {
        edge_behind_ms: newest
            .map(|newest| unix_us().cast_signed().saturating_sub_unsigned(newest.unix_us) / 1000),
        buffer_ms,
        rate_bps: stats.rate_bps,
        rate_in_bps,
        rate_out_bps,
        last_part_unix_ms: newest.map(|newest| newest.unix_us / 1000),
        wanted_ms: None,
        wanted_most_ms: None,
        last_part_media_ms: newest.and_then(|newest| newest.media_us).map(|us| us / 1000),
    }
}

fn numbers(bits: u16) -> Vec<u8> {
    (0..16).filter(|bit| bits >> bit & 1 == 1).collect()
}

pub(crate) fn peers(stats: &SwarmStats, rates: &Rates) -> Vec<PeerReport> {
    let report = |n: &caudal_proto::swarm::NeighbourStats| PeerReport {
        peer: n.peer.to_string(),
        source: n.source,
        useful_bytes_in: n.useful_bytes_in,
        bytes_out: n.bytes_out,
        rtt_ms: n.rtt_us as f64 / 1000.0,
        parent_in: n.parent_in.count_ones(),
        child_in: n.child_in.count_ones(),
        rate_in_bps: rates.of(&n.peer).0,
        rate_out_bps: rates.of(&n.peer).1,
        substreams_in: numbers(n.parent_in),
        substreams_out: numbers(n.child_in),
        inside: n.path.map(|path| path.is_own),
    };
    stats.neighbours.iter().map(report).collect()
}
