//! Watching a channel: join, put parts together, feed the live window, say how it goes.

mod follow;
mod outlook;
pub(crate) mod playout;
mod rendition;
mod shared;
mod urgent;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caudal_net::Handle;
use caudal_proto::broadcast::Certificate;
use caudal_proto::hop::Tracing;
use caudal_proto::id::{ChannelId, PeerId, RenditionId, SwarmId};
use caudal_proto::io::{self, Event, Input};
use caudal_proto::qos::playout::{Bounds, PlayoutDelay};
use caudal_proto::qos::rendition::Reason;
use caudal_proto::swarm::SwarmStats;
use caudal_proto::swarm::policy::Policy;
use caudal_tracker::descriptor::{Delivery, Rendition};
use caudal_tracker::url::AllowedUrl;
use tokio::sync::{mpsc, watch};

use crate::NodeError;
use crate::clock::unix_us;
use crate::edge::feed::{Counters, Feed, FeedConfig, Told, told_edges};
use crate::edge::lanes::Lanes;
use crate::edge::shelf::Shelf;
use crate::live::Live;
use crate::maps::{Maps, Vantage};
use crate::meter::Meter;
use crate::metered::Metered;
use crate::network::{Network, NetworkConfig, random_key};
use crate::rates::Rates;
use crate::trace::Traces;
use crate::tracking::{News, Tracking, TrackingConfig};
use follow::Joining;
use outlook::{NO_EDGE, Outlook};
use playout::Playout;
use rendition::{LOOK_PERIOD, Renditions};
pub use rendition::{Playing, Preference, PreferenceError};
pub use shared::Glance;
pub(crate) use shared::{check, gauge, peers};
use urgent::Fetches;

/// Chunks and parts are kept for this long behind the live edge.
pub const RETENTION: Duration = Duration::from_secs(60);
/// Time between looks at what time changes.
const TICK: Duration = Duration::from_millis(250);
/// After the broadcast ended, its last chunks are waited for this long.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Most reasons of drops kept for the report.
const DROPPED_MAX: usize = 32;

/// What a viewer is told.
#[derive(Debug)]
pub struct ViewerConfig {
    /// What to watch.
    pub channel: ChannelId,
    /// Whom to ask for peers.
    pub trackers: Vec<AllowedUrl>,
    /// The UDP side.
    pub network: NetworkConfig,
    /// Maps of the network.
    pub maps: Arc<Maps>,
    /// Whether to upload.
    pub upload: bool,
    /// Whether to meet other viewers at all; otherwise everything comes from edges.
    pub p2p: bool,
    /// Edges that are known; the channel's descriptor may name more.
    pub edges: Vec<AllowedUrl>,
    /// Share of the stream's rate that a swarm's holes may be filled with from edges, percent; 0: they are not.
    pub edge_share: u32,
    /// Private addresses are used: trackers and edges.
    pub lan: bool,
    /// Where an edge keeps the signed parts that it serves.
    pub shelf: Option<Arc<Shelf>>,
    /// Whether it reports hops of traced chunks, and wants those of others.
    pub tracing: Tracing,
    /// Within which players' delay adapts to how unevenly parts arrive.
    pub bounds: Bounds,
    /// Which rendition.
    pub rendition: Preference,
    /// When the process started.
    pub started: Instant,
    /// The command as it was typed.
    pub command: String,
    /// The build's commit.
    pub commit: &'static str,
}

/// How a viewer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Looking for peers and for where to start.
    Joining,
    /// Playing.
    Live,
    /// Nothing new comes.
    Waiting,
    /// The broadcaster ended.
    Ended,
    /// The operator ended it.
    TakenDown,
    /// Nobody who has it, or who knows who does, can be reached.
    Unreachable,
}

impl State {
    /// As reports say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Live => "live",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
            Self::TakenDown => "taken down",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What others may look at while the viewer runs.
#[derive(Debug)]
pub struct Shared {
    channel: ChannelId,
    peer: PeerId,
    origin: Origin,
    command: String,
    commit: &'static str,
    started: Instant,
    upload: bool,
    inner: Mutex<Inner>,
    /// Which rendition somebody wants to see.
    preference: watch::Sender<Preference>,
    vantage: Arc<Vantage>,
    shelf: Option<Arc<Shelf>>,
    /// Traced chunks, where their reports are wanted.
    pub traces: Traces,
    /// Parts for players.
    pub live: Arc<Live>,
}

/// Where the figures come from.
#[derive(Debug)]
enum Origin {
    Swarm(Handle),
    Edges(Arc<Counters>),
}

#[derive(Debug)]
struct Inner {
    /// The line is paid by the byte.
    metered: bool,
    meter: Meter,
    delay: PlayoutDelay,
    state: State,
    parts: u64,
    gaps: u64,
    dropped: Vec<String>,
    last_part: Option<Instant>,
    /// Why it is as it is, where that is to be said.
    reason: Option<String>,
    rates: Rates,
    shown: Shown,
    /// The last look at the swarm; kept so that a report can be made after it was left.
    stats: SwarmStats,
}

/// Which rendition is shown.
#[derive(Debug, Default)]
struct Shown {
    rendition: RenditionId,
    tried: Option<RenditionId>,
    /// What an edge has beside the first.
    beside: Vec<RenditionId>,
    changes: u32,
    reason: Option<Reason>,
    offered: Vec<Rendition>,
    /// What was counted in swarms that were left.
    left: SwarmStats,
}

/// A viewer.
#[derive(Debug)]
pub struct Viewer {
    shared: Arc<Shared>,
    side: Side,
    events: mpsc::Receiver<Event>,
    news: mpsc::Receiver<News>,
    playout: Playout,
    renditions: Renditions,
    /// The renditions beside the first, on an edge.
    lanes: Lanes,
    /// What further swarms of the channel are joined with; none where everything comes from edges.
    joining: Option<Joining>,
    certificate: Option<Certificate>,
    /// The swarm that is followed is another than before, and has not begun.
    has_changed: bool,
    ended_at: Option<Instant>,
    outlook: Outlook,
    fetches: Fetches,
    edge_share: u32,
    lan: bool,
    metered: Metered,
    /// The source feeds everybody itself: no other viewer is met in any swarm of the channel.
    served_alone: bool,
    /// When the descriptor that counts was issued, ms since the Unix epoch.
    issued_unix_ms: u64,
}

/// Whom the stream comes from.
#[derive(Debug)]
enum Side {
    Swarm(Handle, Tracking),
    Edges(Feed),
}

impl Viewer {
    /// Binds, joins the swarm, starts talking to trackers; or asks trackers and edges alone.
    ///
    /// # Errors
    /// When a socket cannot be bound or TLS cannot be set up.
    pub async fn start(config: ViewerConfig) -> Result<Self, NodeError> {
        // Anybody can have a descriptor on a tracker in one's own network: that alone is no reason to ask this computer anything.
        let lan = config.lan;
        if !config.p2p {
            let key = random_key()?;
            let feed = FeedConfig {
                channel: config.channel,
                rendition: Renditions::new(config.rendition).playing(),
                trackers: config.trackers.clone(),
                edges: config.edges.clone(),
                lan,
            };
            let (feed, told) = Feed::start(&feed, &key)?;
            let vantage = Vantage::new(Arc::clone(&config.maps), Vec::new());
            let origin = Origin::Edges(feed.counters());
            let has_none = config.edges.is_empty();
            let mut viewer =
                Self::new(config, PeerId(key.public()), origin, vantage, Side::Edges(feed), told);
            viewer.outlook.edge = has_none.then(|| NO_EDGE.to_owned());
            return Ok(viewer);
        }
        let upload_bps = config.network.upload_limit_bps;
        let network = Network::start(config.network.clone()).await?;
        let addresses = network.handle.local_addrs().await;
        let vantage = Vantage::new(Arc::clone(&config.maps), addresses.clone());
        let rendition = Renditions::new(config.rendition).playing();
        let swarm = SwarmId { channel: config.channel, rendition };
        let joining = Joining {
            trackers: config.trackers.clone(),
            upload: config.upload && !config.network.metered.now(),
            hops: config.tracing,
            key: network.key.clone(),
            tracking: TrackingConfig {
                key: network.key.clone(),
                swarm,
                ports: network.ports().await,
                addresses,
                upload_bps: if config.upload { upload_bps } else { Some(0) },
                comes_over: false,
                source: None,
            },
        };
        let opened = joining.swarm(swarm, &vantage, Policy::default());
        if let Err(error) = network.handle.input(Input::Open(Box::new(opened))).await {
            return Err(network.give_up(error).await);
        }
        let mut tracking = match joining.track(swarm, false) {
            Ok(tracking) => tracking,
            Err(error) => return Err(network.give_up(error).await),
        };
        let news = std::mem::replace(&mut tracking.news, mpsc::channel(1).1);
        let Network { handle, events, .. } = network;
        let (peer, origin) = (handle.local(), Origin::Swarm(handle.clone()));
        let _ = handle.input(Input::Trace(swarm, config.tracing)).await;
        let edges = config.edges.clone();
        let side = Side::Swarm(handle, tracking);
        let mut viewer = Self::new(config, peer, origin, vantage, side, (events, news));
        viewer.joining = Some(joining);
        viewer.learn_edges(edges.into_iter()).await;
        Ok(viewer)
    }

    fn new(
        config: ViewerConfig,
        peer: PeerId,
        origin: Origin,
        vantage: Arc<Vantage>,
        side: Side,
        (events, news): Told,
    ) -> Self {
        let lan = config.lan;
        let (channel, edge_share, metered) =
            (config.channel, config.edge_share, config.network.metered.clone());
        // An edge has all of them, and nobody looks at what it follows.
        let preference =
            if config.shelf.is_some() { Preference::Id(RenditionId(0)) } else { config.rendition };
        let renditions = Renditions::new(preference);
        let outlook = Outlook::new(config.trackers.len());
        let shared = Arc::new(Shared {
            channel: config.channel,
            peer,
            origin,
            command: config.command,
            commit: config.commit,
            started: config.started,
            upload: config.upload && config.p2p,
            inner: Mutex::new(Inner {
                metered: config.network.metered.now(),
                meter: Meter::new(config.started),
                delay: PlayoutDelay::new(config.bounds),
                state: State::Joining,
                parts: 0,
                gaps: 0,
                dropped: Vec::new(),
                last_part: None,
                reason: None,
                rates: Rates::default(),
                shown: Shown { rendition: renditions.playing(), ..Shown::default() },
                stats: SwarmStats::default(),
            }),
            preference: watch::Sender::new(preference),
            vantage,
            shelf: config.shelf,
            traces: Traces::new(config.channel),
            live: Live::new(RETENTION),
        });
        Self {
            shared,
            side,
            events,
            news,
            playout: Playout::new(),
            renditions,
            lanes: Lanes::default(),
            joining: None,
            certificate: None,
            has_changed: false,
            ended_at: None,
            outlook,
            fetches: Fetches::new(channel),
            edge_share,
            lan,
            metered,
            served_alone: false,
            issued_unix_ms: 0,
        }
    }

    /// What others may look at.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Watches until the broadcast ends, the channel is taken down or `stop` says so.
    ///
    /// # Errors
    /// [`NodeError::TakenDown`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), NodeError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = 0u32;
        let mut looks = tokio::time::interval(LOOK_PERIOD);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut preferences = self.shared.preference.subscribe();
        let mut metered = self.metered.clone();
        let result = loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.event(event).await,
                    None => break Ok(()),
                },
                news = self.news.recv() => {
                    if let Some(reason) = self.news(news).await {
                        break Err(NodeError::TakenDown(reason));
                    }
                }
                (fetched, why) = self.fetches.next() => {
                    if let Some(why) = why {
                        self.complain_of_edge(&why);
                    }
                    let rendition = fetched.part.rendition;
                    let swarm = SwarmId { channel: self.shared.channel, rendition };
                    self.input(Input::Fetched(swarm, fetched)).await;
                }
                _ = looks.tick() => self.look().await,
                () = metered.changed() => self.meter_changed(metered.now()).await,
                Ok(()) = preferences.changed() => {
                    let preference = *preferences.borrow_and_update();
                    self.renditions.prefer(preference);
                }
                _ = ticks.tick() => {
                    turn = turn.wrapping_add(1);
                    if self.tick(turn).await {
                        break Ok(());
                    }
                }
                () = async { let _ = stop.wait_for(|stop| *stop).await; } => break Ok(()),
            }
        };
        self.shared.refresh().await;
        self.shared.live.end();
        {
            let mut inner = self.shared.lock();
            if inner.state == State::Joining {
                inner.reason = self.outlook.known();
            }
        }
        if let Some(tracking) = self.renditions.tried.take().and_then(|tried| tried.tracking) {
            tracking.leave().await;
        }
        self.lanes.leave().await;
        match self.side {
            Side::Swarm(handle, tracking) => {
                tracking.leave().await;
                handle.shutdown().await;
            }
            Side::Edges(feed) => feed.stop(),
        }
        result
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Chunk(swarm, chunk) => {
                let header = chunk.header();
                let len = u64::from(header.len);
                self.renditions.received_bytes += len;
                if let Some(shelf) = &self.shared.shelf {
                    shelf.chunk(&chunk);
                }
                if swarm != self.swarm() {
                    if let Some(playout) = self.beside(swarm) {
                        playout.chunk(chunk);
                        self.play().await;
                    }
                    return;
                }
                self.shared.lock().meter.chunk(header.number, header.signed_unix_us(), len, unix_us());
                self.playout.chunk(chunk);
                self.play().await;
            }
            Event::Joined { swarm, epoch, number } if swarm != self.swarm() => {
                if let Some(playout) = self.beside(swarm) {
                    playout.begin(epoch, number);
                }
            }
            Event::Joined { epoch, number, .. } => {
                tracing::info!("joined broadcast {epoch} at chunk {number}");
                let is_new = self.playout.epoch() != epoch;
                if is_new {
                    self.ended_at = None;
                }
                self.playout.begin(epoch, number);
                let is_other = std::mem::take(&mut self.has_changed);
                if is_new && !is_other {
                    self.renditions.begin_anew();
                }
                let mut inner = self.shared.lock();
                if is_other {
                    inner.meter.changed(number, unix_us());
                } else {
                    inner.meter.joined(epoch, number, unix_us());
                    inner.delay.restart();
                }
            }
            Event::Ended(swarm, _) if swarm != self.swarm() => {}
            Event::Ended(..) => {
                tracing::info!("the broadcaster ended the broadcast");
                self.ended_at = Some(Instant::now());
            }
            Event::Dropped { peer, reason, .. } => {
                tracing::warn!("dropped neighbour {}: {reason}", peer.short());
                let mut inner = self.shared.lock();
                if inner.dropped.len() < DROPPED_MAX {
                    inner.dropped.push(format!("{}: {reason}", peer.short()));
                }
            }
            Event::NeedPeers(swarm) if swarm != self.swarm() => {
                if let Some(tracking) = self.tracking_beside(swarm) {
                    tracking.need_peers();
                }
            }
            Event::NeedPeers(_) => {
                if let Side::Swarm(_, tracking) = &self.side {
                    tracking.need_peers();
                }
            }
            Event::Hop(_, hop) => self.shared.traces.add(*hop),
            Event::FetchPart(_, part, len_max) => self.fetches.fetch(part, len_max),
            Event::Certificate(certificate) => {
                self.certificate = Some(certificate);
                self.fetches.follow(certificate);
                if let Some(shelf) = &self.shared.shelf {
                    shelf.certificate(certificate);
                }
            }
            Event::Note(note) => {
                if let Some(shelf) = &self.shared.shelf {
                    shelf.note(note);
                }
            }
            _ => {}
        }
    }

    /// A takedown ends watching.
    async fn news(&mut self, news: Option<News>) -> Option<String> {
        let news = news?;
        self.outlook.heard |= matches!(news, News::Broadcast(_) | News::Descriptor(_));
        match news {
            News::Peers(peers) => {
                self.outlook.named = self.outlook.named.max(peers.len());
                self.hear_of(self.renditions.playing(), News::Peers(peers)).await;
            }
            news @ News::Broadcast(_) => self.hear_of(self.renditions.playing(), news).await,
            News::TakenDown(reason) => {
                let mut inner = self.shared.lock();
                inner.state = State::TakenDown;
                inner.reason = Some(reason.clone());
                return Some(reason);
            }
            News::Offline(error) => {
                tracing::warn!("{error}; what plays goes on, and I keep trying");
                self.outlook.error = Some(error.to_string());
                self.outlook.answered &= self.outlook.trackers > 1;
            }
            News::Online => {
                self.outlook.answered = true;
                tracing::info!("a tracker answers");
            }
            News::SeenAs(addr) => self.shared.vantage.seen_as(addr.ip()),
            News::Map(tracker, alto) => self.shared.vantage.told(&tracker, alto),
            News::Edge(why) => {
                self.complain_of_edge(&why);
                self.outlook.edge = Some(why);
            }
            // Trackers may not have the same one, and what an old one says holds no longer.
            News::Descriptor(told) if told.issued_unix_ms < self.issued_unix_ms => {}
            News::Descriptor(told) => {
                self.issued_unix_ms = told.issued_unix_ms;
                self.served_alone = told.delivery == Delivery::ServerOnly;
                for swarm in self.swarms() {
                    self.input(Input::ServedAlone(swarm, self.served_alone)).await;
                }
                self.offered(told.renditions);
                if matches!(self.side, Side::Swarm(..)) {
                    self.learn_edges(told_edges(&told.edges, self.lan)).await;
                }
            }
            News::Viewers(_) => {}
        }
        None
    }

    fn complain_of_edge(&self, why: &str) {
        tracing::warn!("{why}");
        let mut inner = self.shared.lock();
        if inner.dropped.len() < DROPPED_MAX {
            inner.dropped.push(why.to_owned());
        }
    }

    /// The swarm may have its holes filled from these. An edge has the channel from the swarm alone: it does not ask itself.
    async fn learn_edges(&mut self, edges: impl Iterator<Item = AllowedUrl>) {
        if self.shared.shelf.is_none() && self.edge_share > 0 && self.fetches.add(edges) {
            self.input(Input::Edge(self.shared.channel, self.edge_share)).await;
        }
    }

    /// For the engine, where there is one. It is gone only when this node leaves.
    async fn input(&self, input: Input) {
        if let Side::Swarm(handle, _) = &self.side {
            let _ = handle.input(input).await;
        }
    }

    /// True when the broadcast is over.
    async fn tick(&mut self, turn: u32) -> bool {
        self.playout.tick();
        self.lanes.tick();
        self.play().await;
        if self.ended_at.is_some_and(|at| at.elapsed() > END_PATIENCE) {
            self.shared.lock().state = State::Ended;
            // An edge is there for the next broadcast, too.
            if self.shared.shelf.is_none() {
                return true;
            }
        }
        if turn.is_multiple_of(4) {
            self.shared.refresh().await;
            self.look_out();
            let qos = self.shared.look();
            if let Side::Swarm(_, tracking) = &self.side {
                tracking.set_qos(qos);
            }
            let playout =
                io::Playout { buffer_ms: self.shared.buffer_ms(), next_number: self.playout.next_number() };
            self.input(Input::Playout(self.swarm(), playout)).await;
        }
        false
    }
}

impl Viewer {
    /// Whether it has to be said, or no longer, that nobody can be reached.
    fn look_out(&mut self) {
        if let Side::Edges(feed) = &self.side
            && feed.knows_edges()
        {
            self.outlook.edge.take_if(|why| why == NO_EDGE);
        }
        let mut inner = self.shared.lock();
        if !inner.stats.neighbours.is_empty() {
            self.outlook.alone_since = Instant::now();
        }
        let why = self.outlook.unreachable();
        match inner.state {
            State::Joining if why.is_some() => {
                inner.state = State::Unreachable;
                inner.reason = why;
            }
            State::Unreachable if why.is_none() => {
                inner.state = State::Joining;
                inner.reason = None;
            }
            _ => {}
        }
    }
}
