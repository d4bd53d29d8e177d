//! Telling a tracker of this node and hearing of others from it, for as long as the node lives.
//!
//! One task per tracker. It registers, reports, asks for peers when the swarm needs some, and listens for takedowns;
//! when the tracker goes away it keeps trying, and when it comes back, forgetful, it registers again at once. Nothing
//! that plays depends on it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::id::{PeerId, RenditionId, SecretKey, SwarmId};
use caudal_proto::io::Candidate;
use caudal_tracker::client::{ChannelEvent, ClientError, Events, Join, SourceRole, SwarmView, TrackerClient};
use caudal_tracker::descriptor::{Descriptor, SignedDescriptor};
use caudal_tracker::message::Qos;
use caudal_tracker::url::{AllowedUrl, AltoUrl, TrackerUrl};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Peers asked for at once.
const PEERS_WANTED: u32 = 20;
/// First and longest wait before a tracker is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// A source renews its live note at the tracker this often.
const NOTE_PERIOD: Duration = Duration::from_secs(4);
/// Who came over from another swarm of the channel reports so soon: the tracker may have forgotten what it said there.
const SOON: Duration = Duration::from_secs(5);
/// Asking for peers more often than this tells nothing new.
const FIND_PERIOD: Duration = Duration::from_millis(900);
/// A channel that was taken down is asked about again after this long.
const TAKEN_DOWN_RETRY: Duration = Duration::from_secs(10);
/// Most news that wait for the node.
const NEWS_MAX: usize = 64;

/// What a tracker said.
#[derive(Debug)]
pub enum News {
    /// Peers to dial.
    Peers(Vec<Candidate>),
    /// The newest broadcast; freshness is the swarm's to judge.
    Broadcast(Box<(Certificate, LiveNote)>),
    /// The operator took the channel down.
    TakenDown(String),
    /// How many watch.
    Viewers(u32),
    /// From which address it sees this node ask.
    SeenAs(SocketAddr),
    /// Which of the trackers says where the map of the network is, or that there is none.
    Map(TrackerUrl, Option<AltoUrl>),
    /// The tracker answers (again).
    Online,
    /// The tracker does not answer; told once until it does.
    Offline(ClientError),
    /// What the channel's owner signed of it; a tracker may have an old one.
    Descriptor(Box<Descriptor>),
    /// What is wrong with an edge.
    Edge(String),
}

/// What a source shows to be one.
#[derive(Debug, Clone)]
pub struct SourceSide {
    /// The channel key's word.
    pub certificate: Certificate,
    /// Signs proofs.
    pub broadcast_key: SecretKey,
    /// The channel's descriptor; the first rendition's side brings it.
    pub descriptor: Option<watch::Receiver<SignedDescriptor>>,
    /// The newest live note.
    pub note: watch::Receiver<LiveNote>,
}

/// Who announces what.
#[derive(Debug, Clone)]
pub struct TrackingConfig {
    /// This node's key.
    pub key: SecretKey,
    /// The swarm; what is told of the channel, the first rendition's side hears.
    pub swarm: SwarmId,
    /// UDP ports of this node.
    pub ports: Vec<u16>,
    /// Addresses of this node; only a tracker on the same machine believes them.
    pub addresses: Vec<SocketAddr>,
    /// Upload to offer, bit/s.
    pub upload_bps: Option<u64>,
    /// It is in another swarm of the channel, and may leave that for this one.
    pub comes_over: bool,
    /// Set on a source.
    pub source: Option<SourceSide>,
}

/// A node's side towards all its trackers.
#[derive(Debug)]
pub struct Tracking {
    need: Arc<Notify>,
    qos: Arc<Mutex<Qos>>,
    clients: Vec<Arc<TrackerClient>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    swarm: SwarmId,
    /// What trackers say.
    pub news: mpsc::Receiver<News>,
}

impl Tracking {
    /// Starts one task for each tracker.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn start(trackers: &[AllowedUrl], config: &TrackingConfig) -> Result<Self, ClientError> {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let (need, qos) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Qos::default())));
        let swarm = config.swarm;
        let (mut clients, mut tasks) = (Vec::new(), Vec::new());
        for url in trackers {
            let client = Arc::new(TrackerClient::new(url.clone(), config.key.clone())?);
            clients.push(Arc::clone(&client));
            let task = Task {
                client,
                config: config.clone(),
                swarm,
                need: Arc::clone(&need),
                qos: Arc::clone(&qos),
                news: sender.clone(),
                online: None,
            };
            tasks.push(tokio::spawn(task.run()));
        }
        Ok(Self { need, qos, clients, tasks, swarm, news })
    }

    /// The swarm needs peers.
    pub fn need_peers(&self) {
        self.need.notify_waiters();
    }

    /// What the next report says.
    pub fn set_qos(&self, qos: Qos) {
        *self.qos.lock().unwrap_or_else(PoisonError::into_inner) = qos;
    }

    /// Tells every tracker that this node leaves; a tracker that is not there is not waited for.
    pub async fn leave(self) {
        for task in &self.tasks {
            task.abort();
        }
        for client in self.clients {
            let _ = tokio::time::timeout(Duration::from_millis(500), client.leave(self.swarm)).await;
        }
    }
}

struct Task {
    client: Arc<TrackerClient>,
    config: TrackingConfig,
    swarm: SwarmId,
    need: Arc<Notify>,
    qos: Arc<Mutex<Qos>>,
    news: mpsc::Sender<News>,
    online: Option<bool>,
}

impl Task {
    async fn run(mut self) {
        let mut wait = RETRY.0;
        loop {
            match self.connect().await {
                Ok(interval) => {
                    wait = RETRY.0;
                    self.attend(interval).await;
                    sleep(RETRY.0).await;
                }
                Err(ClientError::TakenDown { reason, .. }) => {
                    self.tell(News::TakenDown(reason)).await;
                    sleep(TAKEN_DOWN_RETRY).await;
                }
                Err(error) => {
                    let pause = error.retry_after().unwrap_or(wait).max(wait);
                    if self.online != Some(false) {
                        self.online = Some(false);
                        self.tell(News::Offline(error)).await;
                    }
                    sleep(pause).await;
                    wait = (wait * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Duration, ClientError> {
        let note = self.config.source.as_ref().map(|source| *source.note.borrow());
        let told = self.config.source.as_mut().and_then(|source| source.descriptor.as_mut());
        let descriptor = told.map(|descriptor| descriptor.borrow_and_update().clone());
        let source = self.config.source.as_ref().zip(note.as_ref());
        let join = Join {
            swarm: self.swarm,
            ports: &self.config.ports,
            addresses: &self.config.addresses,
            upload_bps: self.config.upload_bps,
            peer_count: PEERS_WANTED,
            source: source.map(|(source, live_note)| SourceRole {
                certificate: &source.certificate,
                live_note,
                broadcast_key: &source.broadcast_key,
                descriptor: descriptor.as_ref(),
            }),
        };
        let view = self.client.connect(&join).await?;
        if self.online != Some(true) {
            self.online = Some(true);
            self.tell(News::Online).await;
        }
        let interval = view.interval;
        if let Some(seen_as) = view.seen_as {
            self.tell(News::SeenAs(seen_as)).await;
        }
        self.tell(News::Map(self.client.url().clone(), view.alto.clone())).await;
        self.take(view).await;
        Ok(interval)
    }

    /// Until the tracker is gone or has forgotten this node.
    async fn attend(&mut self, interval: Duration) {
        let mut events = None;
        if self.swarm.rendition == RenditionId(0) || self.config.source.is_none() {
            events = self.client.channel_events(&self.swarm.channel).await.ok();
        }
        let interval = if self.config.source.is_some() { interval.min(NOTE_PERIOD) } else { interval };
        let first = if std::mem::take(&mut self.config.comes_over) { interval.min(SOON) } else { interval };
        let mut report_at = Instant::now() + first;
        let mut descriptor = self.config.source.as_ref().and_then(|source| source.descriptor.clone());
        let mut find_after = Instant::now();
        loop {
            tokio::select! {
                event = next(&mut events) => match event {
                    Ok(Some(event)) => self.hear(event).await,
                    Ok(None) | Err(_) => return,
                },
                () = self.need.notified() => {
                    if Instant::now() >= find_after {
                        find_after = Instant::now() + FIND_PERIOD;
                        match self.client.find(self.swarm, PEERS_WANTED).await {
                            Ok(view) => self.take(view).await,
                            Err(_) => return,
                        }
                    }
                }
                () = changed(&mut descriptor) => report_at = Instant::now(),
                () = sleep_until(report_at) => {
                    match self.report().await {
                        Ok(view) => self.take(view).await,
                        Err(_) => return,
                    }
                    report_at = Instant::now() + interval;
                }
            }
        }
    }

    async fn report(&mut self) -> Result<SwarmView, ClientError> {
        let qos = *self.qos.lock().unwrap_or_else(PoisonError::into_inner);
        let note = self.config.source.as_ref().map(|source| *source.note.borrow());
        let told = self.config.source.as_mut().and_then(|source| source.descriptor.as_mut());
        let news = told.filter(|descriptor| descriptor.has_changed().unwrap_or(false));
        let descriptor = news.map(|descriptor| descriptor.borrow_and_update().clone());
        let source = self.config.source.as_ref().zip(note.as_ref());
        let role = source.map(|(source, live_note)| SourceRole {
            certificate: &source.certificate,
            live_note,
            broadcast_key: &source.broadcast_key,
            descriptor: descriptor.as_ref(),
        });
        self.client.stat_report(self.swarm, qos, role).await
    }

    async fn take(&self, view: SwarmView) {
        if let Some(broadcast) = view.broadcast {
            self.tell(News::Broadcast(Box::new(broadcast))).await;
        }
        if !view.peers.is_empty() {
            let own = PeerId(self.config.key.public());
            let peers = view.peers.into_iter().filter(|peer| peer.peer != own);
            let peers =
                peers.map(|p| Candidate { peer: p.peer, addrs: p.addresses, source: p.source, cost: p.cost });
            self.tell(News::Peers(peers.collect())).await;
        }
        self.tell(News::Viewers(view.viewers)).await;
    }

    async fn hear(&self, event: ChannelEvent) {
        match event {
            ChannelEvent::TakenDown { reason } => self.tell(News::TakenDown(reason)).await,
            ChannelEvent::Note(broadcast) => self.tell(News::Broadcast(broadcast)).await,
            ChannelEvent::Viewers(viewers) => self.tell(News::Viewers(viewers)).await,
            ChannelEvent::State(view) => {
                if let Some(takedown) = view.takedown {
                    self.tell(News::TakenDown(takedown.reason)).await;
                } else if let Some(broadcast) = view.broadcast {
                    self.tell(News::Broadcast(Box::new(broadcast))).await;
                }
                if let Some(descriptor) = view.descriptor {
                    self.tell(News::Descriptor(Box::new(descriptor))).await;
                }
            }
            _ => {}
        }
    }

    async fn tell(&self, news: News) {
        // The node is gone when nobody listens; the task ends with it.
        let _ = self.news.send(news).await;
    }
}

async fn next(events: &mut Option<Events<ChannelEvent>>) -> Result<Option<ChannelEvent>, ClientError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

async fn changed(descriptor: &mut Option<watch::Receiver<SignedDescriptor>>) {
    if let Some(descriptor) = descriptor
        && descriptor.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
