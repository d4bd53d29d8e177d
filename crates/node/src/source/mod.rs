//! Publishing a channel: what an input brings is cut, signed and handed to the swarm; live notes say where the edge is.

mod cutter;
mod input;
mod intake;
mod label;
mod ladder;
pub(crate) mod lane;
mod rtmp;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_media::ingest::health::Facts;
use caudal_media::part::Part;
use caudal_media::sample::Ingest;
use caudal_net::Handle;
use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::Ed25519Verifier;
use caudal_proto::hop::Tracing;
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey, SwarmId};
use caudal_proto::io::{Event, Input};
use caudal_proto::record::Ed25519Records;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig, SwarmStats};
use caudal_tracker::descriptor::{Delivery, Descriptor, RENDITIONS_MAX, Tracker};
use caudal_tracker::message::Qos;
use caudal_tracker::url::{AllowedUrl, EdgeUrl};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::NodeError;
use crate::clock::{unix_ms, unix_us};
use crate::live::Live;
use crate::maps::{Maps, Vantage};
use crate::network::{Network, NetworkConfig, is_lan, random_key};
use crate::rates::Rates;
use crate::report::{Gauge, InputReport, SCHEMA, SourceRenditionReport, SourceReport};
use crate::trace::Traces;
use crate::tracking::{News, SourceSide, Tracking, TrackingConfig};
use crate::viewer::{RETENTION, check, gauge, peers};
use cutter::Cutter;
use input::Began;
use intake::Intake;
use label::Label;
use ladder::Ladder;
use lane::{Figures, Lane, PAUSED_AFTER, SILENT_MAX};

pub use input::CardSettings;
pub use ladder::{LadderConfig, rung_name};
pub use rtmp::{RtmpServer, RtmpSettings};

/// A live note is signed this often.
const NOTE_PERIOD: Duration = Duration::from_secs(2);
/// A certificate is valid for this long.
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Copies that a source sends where the swarm alone delivers.
const SWARM_COPIES: f64 = 2.0;
/// Substreams of a broadcast.
const SUBSTREAMS: u8 = 8;
/// Ingest events that wait to be cut.
const INGEST_MAX: usize = 256;
/// Most advice kept for the report.
const ADVICE_MAX: usize = 64;
/// Why a broadcast that nobody could find is not ok.
const NEVER_ANNOUNCED: &str = "no tracker took the channel, so nobody could find it; see --tracker";
/// After the end, the last chunks and the ending note get this long to spread.
const END_GRACE: Duration = Duration::from_millis(1200);

/// Where the stream comes from.
#[derive(Debug)]
pub enum InputConfig {
    /// An encoder publishes over RTMP to the server given.
    Rtmp(RtmpServer),
    /// Files, looped in real time; each is a rendition.
    Files(Vec<PathBuf>),
    /// The built-in test card.
    Card(CardSettings),
}

impl InputConfig {
    /// Which of them.
    pub fn kind(&self) -> InputKind {
        match self {
            Self::Rtmp(_) => InputKind::Rtmp,
            Self::Files(_) => InputKind::File,
            Self::Card(_) => InputKind::Card,
        }
    }
}

/// Which input a source has; as JSON in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// An encoder.
    Rtmp,
    /// A file.
    File,
    /// The test card.
    Card,
}

/// What a source is told.
#[derive(Debug)]
pub struct SourceConfig {
    /// The channel's key.
    pub channel_key: SecretKey,
    /// The last epoch of this channel that is known; the new one is larger.
    pub last_epoch: u64,
    /// The channel's name.
    pub name: String,
    /// More about it.
    pub description: String,
    /// Its language (BCP 47), or empty.
    pub language: String,
    /// Whether directories list it.
    pub listed: bool,
    /// Trackers to announce it to.
    pub trackers: Vec<AllowedUrl>,
    /// Edges that have it over HTTP, for its descriptor.
    pub edges: Vec<EdgeUrl>,
    /// The stream.
    pub input: InputConfig,
    /// Lower renditions that are made of it.
    pub ladder: Option<LadderConfig>,
    /// The UDP side.
    pub network: NetworkConfig,
    /// Maps of the network.
    pub maps: Arc<Maps>,
    /// Who carries the stream to viewers.
    pub delivery: Delivery,
    /// Copies of the stream that this node sends at most; `None`: as its uplink allows, or two where the swarm alone delivers.
    pub copies: Option<f64>,
    /// About one chunk in so many is marked for tracing; 0: none.
    pub traced_every: u64,
    /// Expected rate of the stream, bit/s.
    pub rate_bps: u32,
    /// When the process started.
    pub started: Instant,
    /// The command as it was typed.
    pub command: String,
    /// The build's commit.
    pub commit: &'static str,
}

/// What others may look at while the source runs.
#[derive(Debug)]
pub struct Shared {
    channel: ChannelId,
    peer: PeerId,
    handle: Handle,
    epoch: u64,
    started: Instant,
    command: String,
    commit: &'static str,
    delivery: Delivery,
    inner: Mutex<Inner>,
    vantage: Arc<Vantage>,
    /// Whether directories list it; the desk may change that.
    listed: watch::Sender<bool>,
    /// Traced chunks.
    pub traces: Traces,
    /// Parts for a preview.
    pub live: Arc<Live>,
}

#[derive(Debug, Default)]
struct Inner {
    state: &'static str,
    /// Why it was taken down.
    reason: Option<String>,
    /// Of each rendition, the first one first.
    lanes: Vec<Figures>,
    viewers: u32,
    /// A tracker has taken the channel.
    announced: bool,
    advice: VecDeque<String>,
    /// All swarms as one.
    stats: SwarmStats,
    rates: Rates,
}

/// A source.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
    network: Network,
    tracking: Tracking,
    ingest: mpsc::Receiver<(RenditionId, Ingest)>,
    /// The first rendition's is always there.
    lanes: Vec<Lane>,
    opening: Opening,
    label: Label,
    /// Since when something has come of one rendition at least.
    flows_since: Option<Instant>,
    /// Runs for as long as the source does.
    _ladder: Option<Ladder>,
    note: watch::Sender<LiveNote>,
    said: mpsc::UnboundedSender<String>,
    /// What the broadcaster should read; taken once.
    pub advice: Option<mpsc::UnboundedReceiver<String>>,
}

/// What a further rendition is opened with.
#[derive(Debug)]
struct Opening {
    broadcast_key: SecretKey,
    certificate: Certificate,
    rate_bps: u32,
    traced_every: u64,
    trackers: Vec<AllowedUrl>,
    tracking: TrackingConfig,
    copies_percent: Option<u32>,
}

impl Opening {
    fn swarm(
        &self,
        swarm: SwarmId,
        delivery: Delivery,
        key: &SecretKey,
        vantage: &Arc<Vantage>,
    ) -> SwarmConfig {
        SwarmConfig {
            channel: swarm.channel,
            rendition: swarm.rendition,
            role: Role::Source {
                certificate: self.certificate,
                copies_percent: self.copies_percent,
                alone: delivery == Delivery::ServerOnly,
            },
            upload: true,
            retention: RETENTION,
            lan: is_lan(&self.trackers),
            policy: Policy::default(),
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Ed25519Records(key.clone())),
            network_map: Some(vantage.network_map()),
        }
    }

    /// Whoever publishes is known anyway: naming it in hop reports gives nothing away.
    fn trace(&self, swarm: SwarmId) -> Input {
        let so = self.traced_every > 0;
        Input::Trace(swarm, Tracing { reports: so, wants: so })
    }

    fn lane(&self, swarm: SwarmId) -> Lane {
        let epoch = self.certificate.epoch;
        let key = self.broadcast_key.clone();
        let cutter = Cutter::new(key, swarm, epoch, SUBSTREAMS, self.rate_bps, self.traced_every);
        Lane { swarm, cutter, tracking: None, cut_at: None }
    }
}

impl Source {
    /// Binds, certifies a new broadcast, announces the channel and starts its input.
    ///
    /// # Errors
    /// When a socket cannot be bound, the input cannot be read, or TLS cannot be set up.
    pub async fn start(config: SourceConfig) -> Result<Self, NodeError> {
        let channel = config.channel_key.channel();
        let broadcast_key = random_key()?;
        let certificate = certify(&config, &broadcast_key);
        let epoch = certificate.epoch;
        let announced = descriptor(&config, channel);
        let signed = announced.sign(&config.channel_key).map_err(|error| NodeError::Input {
            path: PathBuf::from("the channel's description"),
            reason: error.to_string(),
        })?;
        let (signed, descriptors) = watch::channel(signed);
        let upload_bps = config.network.upload_limit_bps;
        let network = Network::start(config.network).await?;
        let addresses = network.handle.local_addrs().await;
        let vantage = Vantage::new(config.maps, addresses.clone());
        let note = LiveNote::sign(&broadcast_key, channel, epoch, 0, unix_us(), false);
        let (note, notes) = watch::channel(note);
        let opening = Opening {
            broadcast_key: broadcast_key.clone(),
            certificate,
            rate_bps: config.rate_bps,
            traced_every: config.traced_every,
            trackers: config.trackers,
            tracking: TrackingConfig {
                key: network.key.clone(),
                swarm: channel.into(),
                ports: network.ports().await,
                addresses,
                upload_bps,
                comes_over: false,
                source: Some(SourceSide {
                    certificate,
                    broadcast_key,
                    descriptor: Some(descriptors),
                    note: notes,
                }),
            },
            copies_percent: copies_percent(config.delivery, config.copies),
        };
        let swarm = opening.swarm(channel.into(), config.delivery, &network.key, &vantage);
        if let Err(error) = network.handle.input(Input::Open(Box::new(swarm))).await {
            return Err(network.give_up(error).await);
        }
        let _ = network.handle.input(opening.trace(channel.into())).await;
        let tracking = match Tracking::start(&opening.trackers, &opening.tracking) {
            Ok(tracking) => tracking,
            Err(error) => return Err(network.give_up(error).await),
        };
        let (said, advice) = mpsc::unbounded_channel();
        let (ingest, events) = mpsc::channel(INGEST_MAX);
        let ingest = Intake::new(ingest);
        let mut ladder = config.ladder;
        if let Some(server) = ladder.as_mut().and_then(|ladder| ladder.server.take()) {
            server.serve(ingest.clone(), said.clone());
        }
        let opened = match config.input {
            InputConfig::Rtmp(server) => {
                server.serve(ingest, said.clone());
                Ok(())
            }
            InputConfig::Files(paths) => play_files(&paths, &ingest),
            InputConfig::Card(settings) => input::draw_card(&config.name, &settings, ingest),
        };
        if let Err(error) = opened {
            tracking.leave().await;
            return Err(network.give_up(error).await);
        }
        let lanes = vec![opening.lane(channel.into())];
        let shared = Arc::new(Shared {
            channel,
            peer: network.handle.local(),
            handle: network.handle.clone(),
            epoch,
            started: config.started,
            command: config.command,
            commit: config.commit,
            delivery: config.delivery,
            inner: Mutex::new(Inner {
                state: "waiting",
                lanes: vec![Figures::default()],
                ..Inner::default()
            }),
            vantage,
            listed: watch::Sender::new(config.listed),
            traces: Traces::new(channel),
            live: Live::new(RETENTION),
        });
        let label = Label::new(config.channel_key, announced, signed);
        let advice = Some(advice);
        let ladder = ladder.map(|ladder| Ladder::start(ladder, Arc::clone(&shared), said.clone()));
        Ok(Self {
            shared,
            network,
            tracking,
            ingest: events,
            lanes,
            opening,
            label,
            flows_since: None,
            _ladder: ladder,
            note,
            said,
            advice,
        })
    }

    /// What others may look at.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Publishes until `stop` says so, the input ends or the channel is taken down.
    ///
    /// # Errors
    /// [`NodeError::TakenDown`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), NodeError> {
        let mut notes = tokio::time::interval(NOTE_PERIOD);
        notes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut listed = self.shared.listed.subscribe();
        let result = loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break Ok(()),
                ingest = self.ingest.recv() => match ingest {
                    Some((rendition, ingest)) => self.ingest(rendition, ingest).await,
                    None => break Ok(()),
                },
                event = self.network.events.recv() => match event {
                    Some(Event::NeedPeers(swarm)) => self.need_peers(swarm),
                    Some(Event::Hop(_, hop)) => self.shared.traces.add(*hop),
                    Some(Event::Dropped { peer, reason, .. }) => {
                        tracing::warn!("dropped neighbour {}: {reason}", peer.short());
                    }
                    Some(_) => {}
                    None => break Ok(()),
                },
                news = self.tracking.news.recv() => {
                    if let Some(reason) = self.news(self.shared.channel.into(), news).await {
                        break Err(NodeError::TakenDown(reason));
                    }
                }
                _ = notes.tick() => self.sign_note(false).await,
                Ok(()) = listed.changed() => {
                    let listed = *listed.borrow_and_update();
                    // Nothing to see yet: it is listed with the first part.
                    self.label.list(listed && self.lanes.iter().any(|lane| lane.cut_at.is_some()));
                }
                _ = seconds.tick() => {
                    self.shared.refresh().await;
                    self.every_second().await;
                }
            }
        };
        // What a tracker said last may not have been read yet.
        while let Ok(news) = self.tracking.news.try_recv() {
            self.shared.lock().announced |= matches!(news, News::Online);
        }
        for rendition in self.lanes.iter().map(|lane| lane.swarm.rendition).collect::<Vec<_>>() {
            self.ingest(rendition, Ingest::End).await;
        }
        self.sign_note(true).await;
        self.tracking.set_qos(Qos::default());
        self.shared.live.end();
        {
            // Said before the grace: pages that listen hear it while the process is still there.
            let mut inner = self.shared.lock();
            inner.state = "ended";
            if let Err(NodeError::TakenDown(reason)) = &result {
                (inner.state, inner.reason) = ("taken down", Some(reason.clone()));
            }
        }
        tokio::time::sleep(END_GRACE).await;
        self.shared.refresh().await;
        for lane in self.lanes {
            if let Some(tracking) = lane.tracking {
                tracking.leave().await;
            }
        }
        self.tracking.leave().await;
        self.network.handle.shutdown().await;
        result
    }

    async fn ingest(&mut self, rendition: RenditionId, ingest: Ingest) {
        let Some(at) = self.lane(rendition).await else { return };
        let mut said = self.lanes[at].cutter.push(ingest);
        if rendition != RenditionId(0) {
            said.iter_mut().for_each(|text| *text = format!("Rendition {}: {text}", rendition.0));
        }
        for advice in said {
            self.advise(advice);
        }
        while let Some(part) = self.lanes[at].cutter.poll() {
            self.publish(at, part).await;
        }
    }

    /// Where the lane of `rendition` is; the first thing that comes of one opens its swarm. `None`: that failed.
    async fn lane(&mut self, rendition: RenditionId) -> Option<usize> {
        if let Some(at) = self.lanes.iter().position(|lane| lane.swarm.rendition == rendition) {
            return Some(at);
        }
        let swarm = SwarmId { channel: self.shared.channel, rendition };
        let opening = &self.opening;
        let config = opening.swarm(swarm, self.shared.delivery, &self.network.key, &self.shared.vantage);
        self.network.handle.input(Input::Open(Box::new(config))).await.ok()?;
        self.network.handle.input(opening.trace(swarm)).await.ok()?;
        let mut tracking = opening.tracking.clone();
        tracking.swarm = swarm;
        if let Some(source) = &mut tracking.source {
            source.descriptor = None;
        }
        let tracking = Tracking::start(&opening.trackers, &tracking).ok()?;
        let mut lane = opening.lane(swarm);
        lane.tracking = Some(tracking);
        self.lanes.push(lane);
        self.shared.lock().lanes.push(Figures { rendition, ..Figures::default() });
        self.sign_note(false).await;
        Some(self.lanes.len() - 1)
    }

    fn need_peers(&self, swarm: SwarmId) {
        let lane = self.lanes.iter().find(|lane| lane.swarm == swarm);
        lane.and_then(|lane| lane.tracking.as_ref()).unwrap_or(&self.tracking).need_peers();
    }

    async fn every_second(&mut self) {
        let mut news = Vec::new();
        let now = Instant::now();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let clear = self.shared.lock().lanes.get(at).is_some_and(|lane| lane.stats.uplinks_clear);
            lane.cutter.uplinks(now, clear);
            while let Some(told) = lane.tracking.as_mut().and_then(|tracking| tracking.news.try_recv().ok()) {
                if let News::Peers(_) = told {
                    news.push((lane.swarm, told));
                }
            }
        }
        // What else trackers say the first rendition's side hears.
        for (swarm, told) in news {
            self.news(swarm, Some(told)).await;
        }
        // An encoder that stopped takes its rendition with it, be it the first: who watches that goes to another. While none
        // comes, and until all may have come again, it is the source that pauses, and all stay named.
        let flows = self.lanes.iter().any(|lane| lane.cut_within(PAUSED_AFTER));
        self.flows_since = self.flows_since.filter(|_| flows).or(flows.then(Instant::now));
        let Some(since) = self.flows_since else { return };
        let has_settled = since.elapsed() >= SILENT_MAX;
        let is_there = |lane: &&Lane| {
            lane.cut_within(SILENT_MAX) || !has_settled && self.label.names(lane.swarm.rendition)
        };
        let renditions: Vec<_> = self.lanes.iter().filter(is_there).filter_map(Lane::rendition).collect();
        self.label.renew(renditions);
    }

    async fn publish(&mut self, at: usize, part: Part) {
        let lane = &mut self.lanes[at];
        let signed = lane.cutter.sign(&part);
        let first = lane.cut_at.is_none();
        lane.cut_at = Some(Instant::now());
        let swarm = lane.swarm;
        {
            let mut inner = self.shared.lock();
            inner.state = "live";
            let figures = &mut inner.lanes[at];
            figures.chunks += signed.len() as u64;
            figures.bytes += signed.iter().map(|chunk| u64::from(chunk.header().len)).sum::<u64>();
            figures.facts = lane.cutter.facts();
        }
        if at == 0 {
            self.shared.live.push(part);
        }
        let _ = self.network.handle.input(Input::Publish(swarm, signed)).await;
        if first {
            self.sign_note(false).await;
            self.label.list(self.shared.is_listed());
        }
    }

    async fn sign_note(&mut self, ended: bool) {
        for lane in &self.lanes {
            let next = lane.cutter.next_number();
            let key = &self.opening.broadcast_key;
            let note = LiveNote::sign(key, lane.swarm, self.shared.epoch, next, unix_us(), ended);
            // Trackers keep one note of a channel.
            if lane.swarm.rendition == RenditionId(0) {
                self.note.send_replace(note);
            }
            let _ = self.network.handle.input(Input::PublishNote(note)).await;
        }
    }

    async fn news(&mut self, swarm: SwarmId, news: Option<News>) -> Option<String> {
        match news? {
            News::Peers(peers) => {
                let _ = self.network.handle.input(Input::Candidates(swarm, peers)).await;
            }
            News::SeenAs(addr) => self.shared.vantage.seen_as(addr.ip()),
            News::Map(tracker, alto) => self.shared.vantage.told(&tracker, alto),
            News::Viewers(viewers) => self.shared.lock().viewers = viewers,
            News::TakenDown(reason) => return Some(reason),
            News::Offline(error) => tracing::warn!("{error}; who watches goes on, and I keep trying"),
            News::Online => {
                self.shared.lock().announced = true;
                tracing::info!("a tracker answers");
            }
            News::Broadcast(_) | News::Edge(_) | News::Descriptor(_) => {}
        }
        None
    }

    fn advise(&self, text: String) {
        let mut inner = self.shared.lock();
        if inner.advice.len() == ADVICE_MAX {
            inner.advice.pop_front();
        }
        inner.advice.push_back(text.clone());
        drop(inner);
        // Nobody reads it when the command has ended.
        let _ = self.said.send(text);
    }
}

/// Each file is a rendition, the first one first; all begin at once.
fn play_files(paths: &[PathBuf], ingest: &Intake) -> Result<(), NodeError> {
    let began = Began::soon();
    for (path, rendition) in paths.iter().zip(0..RENDITIONS_MAX as u8) {
        input::play_file(path, began, ingest.of(RenditionId(rendition)))?;
    }
    Ok(())
}

fn certify(config: &SourceConfig, broadcast_key: &SecretKey) -> Certificate {
    let now = unix_us();
    let terms = CertificateTerms {
        epoch: unix_ms().max(config.last_epoch + 1),
        not_before_unix_us: now,
        not_after_unix_us: now + CERTIFICATE_VALIDITY.as_micros() as u64,
        substreams: SUBSTREAMS,
        rate_bps: config.rate_bps,
    };
    Certificate::sign(&config.channel_key, BroadcastId(broadcast_key.public()), terms)
}

fn descriptor(config: &SourceConfig, channel: ChannelId) -> Descriptor {
    Descriptor {
        description: config.description.clone(),
        language: config.language.clone(),
        // With the first part it is.
        listed: false,
        trackers: config.trackers.iter().map(|url| Tracker(url.url().clone())).collect(),
        edges: config.edges.iter().cloned().map(Tracker).collect(),
        delivery: config.delivery,
        ..Descriptor::new(channel, &config.name, unix_ms())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broadcast's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How it stands, and why when it was taken down.
    pub fn state(&self) -> (&'static str, Option<String>) {
        let inner = self.lock();
        (inner.state, inner.reason.clone())
    }

    /// Lines of the first rendition's picture, once it comes.
    fn height(&self) -> Option<u32> {
        let inner = self.lock();
        inner.lanes.first()?.facts.video.as_ref().map(|video| video.height).filter(|height| *height > 0)
    }

    /// What the first rendition takes, bit/s, once that is known.
    fn rate_bps(&self) -> Option<u64> {
        let inner = self.lock();
        Some(input_report(&inner.lanes.first()?.facts).rate_bps).filter(|rate_bps| *rate_bps > 0)
    }

    /// Whether directories list the channel.
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Lists it, or no longer; trackers are told at once.
    pub fn list(&self, listed: bool) {
        self.listed.send_replace(listed);
    }

    /// What a page's gauge shows.
    pub fn gauge(&self) -> Gauge {
        let inner = self.lock();
        gauge(&self.live, 0, &inner.stats, &inner.rates)
    }

    async fn refresh(&self) {
        let renditions: Vec<_> = self.lock().lanes.iter().map(|lane| lane.rendition).collect();
        for (at, rendition) in renditions.into_iter().enumerate() {
            let swarm = SwarmId { channel: self.channel, rendition };
            if let Some(stats) = self.handle.stats(swarm).await {
                self.lock().lanes[at].stats = stats;
            }
        }
        let mut inner = self.lock();
        inner.stats = lane::sum(inner.lanes.iter().map(|lane| &lane.stats));
        let Inner { rates, stats, .. } = &mut *inner;
        rates.look(Instant::now(), stats);
    }

    /// Who carries the stream to viewers.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// How it goes, now.
    pub async fn report(&self) -> SourceReport {
        self.refresh().await;
        self.last_report()
    }

    /// How it went at the last look: also after the source has left.
    pub fn last_report(&self) -> SourceReport {
        let inner = self.lock();
        let stats = &inner.stats;
        let (bytes, chunks) =
            inner.lanes.iter().fold((0, 0), |sum, lane| (sum.0 + lane.bytes, sum.1 + lane.chunks));
        let renditions = inner.lanes.iter().map(|lane| SourceRenditionReport {
            id: lane.rendition.0,
            input: input_report(&lane.facts),
            useful_bytes: lane.bytes,
            bytes_out: lane.stats.bytes_out,
        });
        let announced = if inner.announced { "a tracker took the channel" } else { NEVER_ANNOUNCED };
        let checks = vec![
            check("published", chunks > 0, format!("{chunks} chunks signed")),
            check("announced", inner.announced, announced.to_owned()),
        ];
        SourceReport {
            schema: SCHEMA,
            commit: self.commit,
            command: self.command.clone(),
            role: "source",
            channel: self.channel.to_string(),
            peer: self.peer.to_string(),
            state: inner.state,
            duration_ms: self.started.elapsed().as_millis() as u64,
            rate_bps: stats.rate_bps,
            epoch: self.epoch,
            useful_bytes: bytes,
            bytes_out: stats.bytes_out,
            delivery: self.delivery,
            source_copies: stats.bytes_out as f64 / bytes.max(1) as f64,
            control_bytes: stats.control_bytes_in + stats.control_bytes_out,
            chunks_signed: chunks,
            viewers: inner.viewers,
            input: inner.lanes.first().map(|lane| input_report(&lane.facts)).unwrap_or_default(),
            renditions: renditions.collect(),
            advice: inner.advice.iter().cloned().collect(),
            network: self.vantage.report(stats),
            peers: peers(stats, &inner.rates),
            ok: checks.iter().all(|check| check.ok),
            checks,
        }
    }
}

/// In hundredths.
fn copies_percent(delivery: Delivery, copies: Option<f64>) -> Option<u32> {
    let copies = match delivery {
        Delivery::Hybrid => copies,
        Delivery::SwarmOnly => Some(copies.unwrap_or(SWARM_COPIES)),
        Delivery::ServerOnly => None,
    };
    copies.map(|copies| (copies * 100.0).clamp(1.0, 1e6) as u32)
}

fn input_report(facts: &Facts) -> InputReport {
    let (video, audio) = (facts.video.as_ref(), facts.audio.as_ref());
    let codecs = video.map(|v| v.codec.clone()).into_iter().chain(audio.map(|a| a.codec.clone()));
    InputReport {
        codecs: codecs.collect::<Vec<_>>().join(","),
        width: video.map_or(0, |v| v.width),
        height: video.map_or(0, |v| v.height),
        fps: video.map_or(0.0, |v| v.fps),
        key_interval_ms: video.and_then(|v| v.key_interval_us).map(|us| us / 1000),
        rate_bps: video.map_or(0, |v| v.rate_bps) + audio.map_or(0, |a| a.rate_bps),
        jitter_ms: facts.jitter_us as f64 / 1000.0,
        drift_ms: facts.drift_us / 1000,
        samples: facts.samples,
        discontinuities: facts.discontinuities,
    }
}
