//! Publishing a channel: what an input brings is cut, signed and handed to the swarm; live notes say where the edge is.

mod cutter;
mod input;
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
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::io::{Event, Input};
use caudal_proto::record::Ed25519Records;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig, SwarmStats};
use caudal_tracker::descriptor::{Delivery, Descriptor, Rendition, SignedDescriptor, Tracker};
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
use crate::report::{Gauge, InputReport, SCHEMA, SourceReport};
use crate::trace::Traces;
use crate::tracking::{News, SourceSide, Tracking, TrackingConfig};
use crate::viewer::{RETENTION, check, gauge, peers};
use cutter::Cutter;

pub use input::CardSettings;
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
    /// A file, looped in real time.
    File(PathBuf),
    /// The built-in test card.
    Card(CardSettings),
}

impl InputConfig {
    /// Which of them.
    pub fn kind(&self) -> InputKind {
        match self {
            Self::Rtmp(_) => InputKind::Rtmp,
            Self::File(_) => InputKind::File,
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
    bytes: u64,
    chunks: u64,
    viewers: u32,
    /// A tracker has taken the channel.
    announced: bool,
    facts: Facts,
    advice: VecDeque<String>,
    stats: SwarmStats,
    rates: Rates,
}

/// A source.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
    network: Network,
    tracking: Tracking,
    ingest: mpsc::Receiver<Ingest>,
    cutter: Cutter,
    broadcast_key: SecretKey,
    label: Label,
    note: watch::Sender<LiveNote>,
    said: mpsc::UnboundedSender<String>,
    /// What the broadcaster should read; taken once.
    pub advice: Option<mpsc::UnboundedReceiver<String>>,
}

/// What is measured of the input may differ by this share from what the directory says …
const LABEL_DRIFT: f64 = 0.25;
/// … for this long: a scene is no reason to tell everybody.
const LABEL_PERIOD: Duration = Duration::from_secs(15);

/// What the directory says of the channel; renewed when other codecs or pictures arrive.
#[derive(Debug)]
struct Label {
    key: SecretKey,
    descriptor: Descriptor,
    signed: watch::Sender<SignedDescriptor>,
    /// When it was written anew.
    renewed: Option<Instant>,
}

impl Label {
    fn renew(&mut self, input: &InputReport) {
        if input.codecs.is_empty() || input.rate_bps == 0 {
            return;
        }
        let is_told = self.descriptor.renditions.first().is_some_and(|told| {
            let near = |told: f64, now: f64| (told - now).abs() <= told * LABEL_DRIFT;
            let measured = near(told.bandwidth_bps as f64, input.rate_bps as f64)
                && near(told.fps.unwrap_or(0.0), input.fps);
            told.codecs == input.codecs
                && told.width.unwrap_or(0) == input.width
                && told.height.unwrap_or(0) == input.height
                && (measured || self.renewed.is_some_and(|at| at.elapsed() < LABEL_PERIOD))
        });
        if is_told {
            return;
        }
        self.renewed = Some(Instant::now());
        let picture = input.width > 0;
        self.descriptor.renditions = vec![Rendition {
            id: 0,
            codecs: input.codecs.clone(),
            width: picture.then_some(input.width),
            height: picture.then_some(input.height),
            fps: (input.fps > 0.0).then_some((input.fps * 100.0).round() / 100.0),
            bandwidth_bps: input.rate_bps,
        }];
        self.sign();
    }

    fn list(&mut self, listed: bool) {
        if std::mem::replace(&mut self.descriptor.listed, listed) != listed {
            self.sign();
        }
    }

    fn sign(&mut self) {
        self.descriptor.issued_unix_ms = unix_ms().max(self.descriptor.issued_unix_ms + 1);
        match self.descriptor.sign(&self.key) {
            Ok(signed) => drop(self.signed.send_replace(signed)),
            Err(error) => tracing::warn!("the channel's description: {error}"),
        }
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
        let swarm = SwarmConfig {
            channel,
            rendition: RenditionId(0),
            role: Role::Source {
                certificate,
                copies_percent: copies_percent(config.delivery, config.copies),
                alone: config.delivery == Delivery::ServerOnly,
            },
            upload: true,
            retention: RETENTION,
            lan: is_lan(&config.trackers),
            policy: Policy::default(),
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Ed25519Records(network.key.clone())),
            network_map: Some(vantage.network_map()),
        };
        if let Err(error) = network.handle.input(Input::Open(Box::new(swarm))).await {
            return Err(network.give_up(error).await);
        }
        if config.traced_every > 0 {
            // Whoever publishes is known anyway: naming it gives nothing away.
            let tracing = Tracing { reports: true, wants: true };
            let _ = network.handle.input(Input::Trace(channel, tracing)).await;
        }
        let note = LiveNote::sign(&broadcast_key, channel, epoch, 0, unix_us(), false);
        let (note, notes) = watch::channel(note);
        let tracking = TrackingConfig {
            key: network.key.clone(),
            channel,
            ports: network.ports().await,
            addresses,
            upload_bps,
            source: Some(SourceSide {
                certificate,
                broadcast_key: broadcast_key.clone(),
                descriptor: descriptors,
                note: notes,
            }),
        };
        let tracking = match Tracking::start(&config.trackers, &tracking) {
            Ok(tracking) => tracking,
            Err(error) => return Err(network.give_up(error).await),
        };
        let (said, advice) = mpsc::unbounded_channel();
        let (ingest, events) = mpsc::channel(INGEST_MAX);
        let opened = match config.input {
            InputConfig::Rtmp(server) => {
                server.serve(ingest, said.clone());
                Ok(())
            }
            InputConfig::File(path) => input::play_file(&path, ingest),
            InputConfig::Card(settings) => input::draw_card(&config.name, &settings, ingest),
        };
        if let Err(error) = opened {
            tracking.leave().await;
            return Err(network.give_up(error).await);
        }
        let cutter = Cutter::new(
            broadcast_key.clone(),
            channel,
            epoch,
            SUBSTREAMS,
            config.rate_bps,
            config.traced_every,
        );
        let shared = Arc::new(Shared {
            channel,
            peer: network.handle.local(),
            handle: network.handle.clone(),
            epoch,
            started: config.started,
            command: config.command,
            commit: config.commit,
            delivery: config.delivery,
            inner: Mutex::new(Inner { state: "waiting", ..Inner::default() }),
            vantage,
            listed: watch::Sender::new(config.listed),
            traces: Traces::new(channel),
            live: Live::new(RETENTION),
        });
        let label = Label { key: config.channel_key, descriptor: announced, signed, renewed: None };
        let advice = Some(advice);
        Ok(Self {
            shared,
            network,
            tracking,
            ingest: events,
            cutter,
            broadcast_key,
            label,
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
                    Some(ingest) => self.ingest(ingest).await,
                    None => break Ok(()),
                },
                event = self.network.events.recv() => match event {
                    Some(Event::NeedPeers(_)) => self.tracking.need_peers(),
                    Some(Event::Hop(_, hop)) => self.shared.traces.add(*hop),
                    Some(Event::Dropped { peer, reason, .. }) => {
                        tracing::warn!("dropped neighbour {}: {reason}", peer.short());
                    }
                    Some(_) => {}
                    None => break Ok(()),
                },
                news = self.tracking.news.recv() => {
                    if let Some(reason) = self.news(news).await {
                        break Err(NodeError::TakenDown(reason));
                    }
                }
                _ = notes.tick() => self.sign_note(false).await,
                Ok(()) = listed.changed() => {
                    let listed = *listed.borrow_and_update();
                    // Nothing to see yet: it is listed with the first part.
                    self.label.list(listed && self.cutter.next_number() > 0);
                }
                _ = seconds.tick() => {
                    self.shared.refresh().await;
                    let clear = self.shared.lock().stats.uplinks_clear;
                    self.cutter.uplinks(Instant::now(), clear);
                    self.label.renew(&input_report(&self.cutter.facts()));
                }
            }
        };
        // What a tracker said last may not have been read yet.
        while let Ok(news) = self.tracking.news.try_recv() {
            self.shared.lock().announced |= matches!(news, News::Online);
        }
        self.ingest(Ingest::End).await;
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
        self.tracking.leave().await;
        self.network.handle.shutdown().await;
        result
    }

    async fn ingest(&mut self, ingest: Ingest) {
        for advice in self.cutter.push(ingest) {
            self.advise(advice);
        }
        while let Some(part) = self.cutter.poll() {
            self.publish(part).await;
        }
    }

    async fn publish(&mut self, part: Part) {
        let signed = self.cutter.sign(&part);
        let first = signed.first().is_some_and(|chunk| chunk.header().number == 0);
        {
            let mut inner = self.shared.lock();
            inner.state = "live";
            inner.chunks += signed.len() as u64;
            inner.bytes += signed.iter().map(|chunk| u64::from(chunk.header().len)).sum::<u64>();
            inner.facts = self.cutter.facts();
        }
        self.shared.live.push(part);
        let _ = self.network.handle.input(Input::Publish(self.shared.channel, signed)).await;
        if first {
            self.sign_note(false).await;
            self.label.list(self.shared.is_listed());
        }
    }

    async fn sign_note(&mut self, ended: bool) {
        let (channel, epoch) = (self.shared.channel, self.shared.epoch);
        let next = self.cutter.next_number();
        let note = LiveNote::sign(&self.broadcast_key, channel, epoch, next, unix_us(), ended);
        self.note.send_replace(note);
        let _ = self.network.handle.input(Input::PublishNote(note)).await;
    }

    async fn news(&mut self, news: Option<News>) -> Option<String> {
        match news? {
            News::Peers(peers) => {
                let _ = self.network.handle.input(Input::Candidates(self.shared.channel, peers)).await;
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
            News::Broadcast(_) | News::Edges(_) | News::Edge(_) | News::Delivery(_) => {}
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
        if let Some(stats) = self.handle.stats(self.channel).await {
            let mut inner = self.lock();
            inner.rates.look(Instant::now(), &stats);
            inner.stats = stats;
        }
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
        let announced = if inner.announced { "a tracker took the channel" } else { NEVER_ANNOUNCED };
        let checks = vec![
            check("published", inner.chunks > 0, format!("{} chunks signed", inner.chunks)),
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
            useful_bytes: inner.bytes,
            bytes_out: stats.bytes_out,
            delivery: self.delivery,
            source_copies: stats.bytes_out as f64 / inner.bytes.max(1) as f64,
            control_bytes: stats.control_bytes_in + stats.control_bytes_out,
            chunks_signed: inner.chunks,
            viewers: inner.viewers,
            input: input_report(&inner.facts),
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
