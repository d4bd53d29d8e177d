//! Watching by HTTP alone: in place of swarms it yields the same events, from an edge or a CDN in front of one.
//!
//! Contacts trackers (to read the channel's descriptor, live notes and takedowns; it never registers) and edges, nobody
//! else. Applies a joiner's rules: a valid certificate, a fresh note, never an older epoch, every chunk verified.
//!
//! | module | owns |
//! |---|---|
//! | `fetcher` | one rendition: part after part from one edge, or from the next one |
//! | `place` | where in a broadcast to begin and how far one has come; when an edge is left |

mod fetcher;
mod place;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caudal_proto::id::{ChannelId, RenditionId, SecretKey};
use caudal_proto::io::Event;
use caudal_proto::swarm::SwarmStats;
use caudal_tracker::client::{ChannelEvent, ClientError, TrackerClient};
use caudal_tracker::descriptor::Tracker;
use caudal_tracker::url::{AllowedUrl, UrlOrigin};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::client::{EDGES_MAX, EdgeClient};
use crate::tracking::News;
use fetcher::Fetcher;

/// Events and news that wait for the viewer.
const EVENTS_MAX: usize = 256;
/// First and longest wait before an edge or a tracker is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// What a feed is told.
#[derive(Debug, Clone)]
pub struct FeedConfig {
    /// What to watch.
    pub channel: ChannelId,
    /// Which rendition to begin with.
    pub rendition: RenditionId,
    /// Whom to ask for its descriptor.
    pub trackers: Vec<AllowedUrl>,
    /// Edges that are known; the descriptor may name more.
    pub edges: Vec<AllowedUrl>,
    /// LAN mode: edges that a descriptor names may be inside.
    pub lan: bool,
}

/// Where a rendition is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// At the newest segment that has something after its start.
    Newest,
    /// At the segment that begins next.
    Next,
    /// At the newest segment that was captured no later than this, µs since the Unix epoch.
    Before(u64),
}

/// What a feed tells: events as a driver has them, and what trackers and edges say.
pub type Told = (mpsc::Receiver<Event>, mpsc::Receiver<News>);

/// A running feed.
#[derive(Debug)]
pub struct Feed {
    common: Arc<Common>,
    listeners: Vec<JoinHandle<()>>,
    fetchers: BTreeMap<RenditionId, JoinHandle<()>>,
}

/// What all renditions of a feed have in common.
#[derive(Debug)]
struct Common {
    channel: ChannelId,
    /// Edges that are known.
    known: watch::Sender<Vec<AllowedUrl>>,
    /// A client for each of them, whose connections all renditions use.
    clients: Mutex<Vec<EdgeClient>>,
    /// The edge that served last.
    at: AtomicUsize,
    /// The newest broadcast that was taken: no rendition goes back to an older one.
    epoch: AtomicU64,
    /// When the newest descriptor was issued, ms since the Unix epoch.
    issued_unix_ms: AtomicU64,
    /// Bytes of parts as they came, also of those that are not whole yet.
    read: AtomicU64,
    events: mpsc::Sender<Event>,
    news: mpsc::Sender<News>,
    counters: Arc<Counters>,
}

/// What came over HTTP, of the renditions that are fetched now.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<RenditionId, SwarmStats>>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RenditionId, SwarmStats>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A rendition's, in the words of a swarm.
    pub fn stats(&self, rendition: RenditionId) -> Option<SwarmStats> {
        self.lock().get(&rendition).cloned()
    }

    /// Counts, unless the rendition was left.
    fn count(&self, rendition: RenditionId, count: impl FnOnce(&mut SwarmStats)) {
        if let Some(stats) = self.lock().get_mut(&rendition) {
            count(stats);
        }
    }
}

impl Feed {
    /// Starts asking.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn start(config: &FeedConfig, key: &SecretKey) -> Result<(Self, Told), ClientError> {
        let (events, events_out) = mpsc::channel(EVENTS_MAX);
        let (news, news_out) = mpsc::channel(EVENTS_MAX);
        let common = Arc::new(Common {
            channel: config.channel,
            known: watch::Sender::new(config.edges.clone()),
            clients: Mutex::default(),
            at: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            issued_unix_ms: AtomicU64::new(0),
            read: AtomicU64::new(0),
            events,
            news,
            counters: Arc::default(),
        });
        let mut listeners = Vec::new();
        for url in &config.trackers {
            let client = TrackerClient::new(url.clone(), key.clone())?;
            listeners.push(tokio::spawn(listen(client, config.lan, Arc::clone(&common))));
        }
        let mut feed = Self { common, listeners, fetchers: BTreeMap::new() };
        feed.join(config.rendition, Entry::Newest);
        Ok((feed, (events_out, news_out)))
    }

    /// What came.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.common.counters)
    }

    /// How much came, also of parts that are not whole yet: a narrow line brings few whole ones, and is not silent.
    pub fn read_bytes(&self) -> u64 {
        self.common.read.load(Ordering::Relaxed)
    }

    /// Fetches one more rendition.
    pub fn join(&mut self, rendition: RenditionId, entry: Entry) {
        self.common.counters.lock().insert(rendition, SwarmStats::default());
        let fetcher = Fetcher::new(Arc::clone(&self.common), rendition, entry);
        if let Some(old) = self.fetchers.insert(rendition, tokio::spawn(fetcher.run())) {
            old.abort();
        }
    }

    /// Fetches a rendition no longer; gives what came of it.
    pub fn leave(&mut self, rendition: RenditionId) -> Option<SwarmStats> {
        if let Some(fetcher) = self.fetchers.remove(&rendition) {
            fetcher.abort();
        }
        self.common.counters.lock().remove(&rendition)
    }

    /// Whether there is an edge to ask.
    pub fn knows_edges(&self) -> bool {
        !self.common.known.borrow().is_empty()
    }

    /// Asks nobody any more.
    pub fn stop(&self) {
        self.listeners.iter().chain(self.fetchers.values()).for_each(JoinHandle::abort);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Those of the edges that a descriptor names that may be asked.
pub(crate) fn told_edges(told: &[Tracker], lan: bool) -> impl Iterator<Item = AllowedUrl> + '_ {
    told.iter().filter_map(move |edge| edge.0.check(UrlOrigin::Foreign, lan).ok())
}

/// Reads what a tracker says of the channel, for as long as the feed runs.
async fn listen(client: TrackerClient, lan: bool, common: Arc<Common>) {
    let Common { channel, known, news, .. } = &*common;
    let (mut wait, mut online) = (RETRY.0, None);
    loop {
        match client.channel_events(channel).await {
            Ok(mut events) => {
                if online.replace(true) != Some(true) {
                    let _ = news.send(News::Online).await;
                }
                wait = RETRY.0;
                while let Ok(Some(event)) = events.next().await {
                    if let ChannelEvent::State(view) = &event
                        && let Some(descriptor) = &view.descriptor
                    {
                        // Trackers may have an old one.
                        let issued = descriptor.issued_unix_ms;
                        if common.issued_unix_ms.fetch_max(issued, Ordering::Relaxed) <= issued {
                            learn(known, told_edges(&descriptor.edges, lan));
                        }
                        let _ = news.send(News::Descriptor(Box::new(descriptor.clone()))).await;
                    }
                    let heard = match event {
                        ChannelEvent::TakenDown { reason } => News::TakenDown(reason),
                        ChannelEvent::Viewers(viewers) => News::Viewers(viewers),
                        ChannelEvent::State(view) => match view.takedown {
                            Some(takedown) => News::TakenDown(takedown.reason),
                            None => News::Viewers(view.viewers),
                        },
                        _ => continue,
                    };
                    let _ = news.send(heard).await;
                }
            }
            Err(ClientError::TakenDown { reason, .. }) => {
                let _ = news.send(News::TakenDown(reason)).await;
            }
            Err(error) => {
                if online.replace(false) != Some(false) {
                    let _ = news.send(News::Offline(error)).await;
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

fn learn(edges: &watch::Sender<Vec<AllowedUrl>>, told: impl Iterator<Item = AllowedUrl>) {
    for url in told {
        edges.send_if_modified(|known| {
            let is_new = known.len() < EDGES_MAX && known.iter().all(|other| other.url() != url.url());
            if is_new {
                known.push(url);
            }
            is_new
        });
    }
}
