//! The tracker: PPSTP over HTTP, the channel directory, events, metrics.
//!
//! | module | owns |
//! |---|---|
//! | `config` | what an operator can set |
//! | `verify` | from bytes to a request that its peer signed |
//! | `registry`, `channel`, `replay` | all soft state and every decision; no IO, time handed in |
//! | `maps`, `near`, `pick` | maps of the network (ALTO): where they come from, who is near to whom, who is told of whom |
//! | `lists` | the operator's allow and deny lists |
//! | `rate` | how often one address may ask |
//! | `guard` | what browsers may ask |
//! | `hub`, `sse` | events to subscribers |
//! | `http`, `listen`, `metrics` | the outside |
//!
//! Endpoints and messages: `docs/tracker.md`. No address is ever logged.

mod channel;
mod config;
mod guard;
mod http;
mod hub;
mod listen;
mod lists;
mod maps;
mod metrics;
mod near;
mod pick;
mod rate;
mod registry;
mod replay;
mod sse;
mod verify;

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use caudal_proto::id::ChannelId;
use tokio::net::TcpListener;
use tokio::sync::broadcast::Receiver;
use tokio::sync::watch;

pub use config::{Limits, TrackerConfig};
pub use lists::{LIST_LEN_MAX, ListError, REASON_CHARS_MAX};

use crate::message::{ChannelPage, ChannelState};
use crate::page::Page;
use crate::url::{TrackerUrl, UrlError};
use guard::Guard;
use hub::{Hub, Rendered};
use lists::ListFiles;
use maps::{Maps, Origin};
use metrics::Metrics;
use rate::RateLimit;
use registry::{Now, Registry};
use sse::Topic;

/// How often silent peers are forgotten, viewer counts told and the lists looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long open requests may take to end when the tracker stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Why a tracker cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A list is wrong.
    #[error(transparent)]
    List(#[from] ListError),
    /// One of the tracker's own public URLs is wrong.
    #[error("public_urls: {0}")]
    PublicUrl(#[from] UrlError),
    /// The address of an ALTO server is wrong.
    #[error("alto: {0}")]
    Alto(#[from] caudal_alto::client::ClientError),
    /// The file with the map is wrong.
    #[error(transparent)]
    AltoFile(#[from] caudal_alto::server::ServerError),
    /// What peers are told of the map is no address.
    #[error("the address by which peers find the map: {0}")]
    PublicAlto(#[source] UrlError),
    /// The listener is unusable.
    #[error("the listening socket: {0}")]
    Listener(#[from] std::io::Error),
}

/// A tracker, ready to serve.
#[derive(Debug)]
pub struct Tracker {
    config: TrackerConfig,
    public_urls: Vec<String>,
    lists: ListFiles,
    alto: Option<Origin>,
}

/// What every request handler sees.
#[derive(Debug)]
pub(crate) struct Shared {
    lan: bool,
    limits: Limits,
    trusted_proxies: Vec<IpAddr>,
    guard: Guard,
    registry: Mutex<Registry>,
    hub: Mutex<Hub>,
    rate: Mutex<RateLimit>,
    page: Page,
    metrics: Metrics,
    maps: Option<Maps>,
    started: Instant,
    stop: watch::Sender<bool>,
}

impl Tracker {
    /// Checks the configuration and reads the lists.
    ///
    /// # Errors
    /// When a list or a map cannot be read or has a wrong line, or a URL is none.
    pub fn new(config: TrackerConfig) -> Result<Self, ServerError> {
        let lists = ListFiles::open(config.allow_list.as_deref(), config.deny_list.as_deref())?;
        let urls = config.public_urls.iter().map(|url| url.parse::<TrackerUrl>().map(|url| url.to_string()));
        let public_urls = urls.collect::<Result<_, _>>()?;
        let public = config.public_alto.as_deref();
        let alto = config.alto.as_deref().map(|alto| Origin::open(alto, public)).transpose()?;
        Ok(Self { config, public_urls, lists, alto })
    }

    /// Serves on `listener` until `shutdown` resolves; requests under way get a moment to end.
    ///
    /// # Errors
    /// When the listener has no address.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServerError> {
        let Self { config, public_urls, lists, alto } = self;
        let listen = listener.local_addr()?;
        let lan = config.is_lan(listen);
        let guard = Guard::new(listen, !config.trusted_proxies.is_empty(), &public_urls);
        let (maps, told) = alto.map(Origin::start).unzip();
        let shared = Arc::new(Shared { maps, ..Shared::new(config, lan, guard, public_urls, &lists) });
        if let Some(told) = told {
            shared.with(|registry, _| registry.tell_alto(told));
        }
        tracing::info!(lan, "tracker serving");
        let accepting = tokio::spawn(listen::accept(Arc::clone(&shared), listener, http::router(&shared)));
        tokio::select! {
            () = shutdown => {}
            () = tick(&shared, lists) => {}
        }
        shared.stop.send_replace(true);
        shared.maps.iter().for_each(Maps::stop);
        let _stopped = accepting.await;
        let deadline = Instant::now() + STOP_WITHIN;
        while Arc::strong_count(&shared) > 1 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// Once a second, for as long as the tracker serves.
async fn tick(shared: &Arc<Shared>, mut lists: ListFiles) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        // Files may lie on a slow disk or network, so they are read off the runtime's threads.
        let polled = tokio::task::spawn_blocking(move || {
            let changed = lists.poll();
            (lists, changed)
        });
        let Ok((returned, changed)) = polled.await else {
            tracing::error!("reading the lists failed; the tracker stops");
            return;
        };
        lists = returned;
        if let Some(changed) = changed {
            tracing::info!(
                denied = changed.deny.len(),
                allow_list = changed.allow.is_some(),
                "lists reloaded"
            );
            let subscribed: Vec<ChannelId> = lock(&shared.hub).channels().collect();
            shared.with(|registry, _| registry.set_lists(changed, &subscribed));
        }
        if let Some(maps) = &shared.maps {
            let fresh = maps.fresh();
            shared.with(|registry, _| registry.set_map(fresh));
        }
        shared.with(Registry::tick);
        lock(&shared.hub).expire();
        let now_ms = shared.now().mono_ms;
        lock(&shared.rate).expire(now_ms);
    }
}

impl Shared {
    fn new(
        config: TrackerConfig,
        lan: bool,
        guard: Guard,
        public_urls: Vec<String>,
        lists: &ListFiles,
    ) -> Self {
        let limits = config.limits;
        let registry = Registry::new(lan, limits, public_urls, lists.current().clone(), fastrand::u64(..));
        Self {
            lan,
            limits,
            trusted_proxies: config.trusted_proxies,
            guard,
            registry: Mutex::new(registry),
            hub: Mutex::new(Hub::new()),
            rate: Mutex::new(RateLimit::new(limits.requests_per_second, limits.requests_burst)),
            page: config.page,
            metrics: Metrics::default(),
            maps: None,
            started: Instant::now(),
            stop: watch::Sender::new(false),
        }
    }

    /// Resolves when the tracker stops.
    async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // An error would mean that the sender is gone, which is as good.
        let _stopping = stop.wait_for(|stop| *stop).await.is_ok();
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: millis(self.started.elapsed()), unix_ms: millis(unix) }
    }

    /// Runs `work` on the registry, and tells subscribers what it changed before anybody else changes more.
    fn with<T>(&self, work: impl FnOnce(&mut Registry, Now) -> T) -> T {
        let mut registry = lock(&self.registry);
        let out = work(&mut registry, self.now());
        let changes = registry.take_changes();
        if !changes.is_empty() {
            let hub = lock(&self.hub);
            for change in &changes {
                hub.publish(change);
            }
        }
        out
    }

    fn subscribe(&self, topic: Topic) -> Receiver<Rendered> {
        let mut hub = lock(&self.hub);
        match topic {
            Topic::Directory => hub.subscribe_directory(),
            Topic::Channel(channel) => hub.subscribe_channel(channel),
        }
    }

    fn take_token(&self, host: u128) -> Result<(), u64> {
        let now_ms = self.now().mono_ms;
        lock(&self.rate).take(now_ms, host)
    }

    /// A page of the directory.
    fn page(&self, query: &str, offset: usize, limit: usize) -> ChannelPage {
        self.with(|registry, _| {
            let listed = registry.listed(query);
            let rest = listed.get(offset..).unwrap_or_default();
            let shown = &rest[..rest.len().min(limit)];
            let next = (rest.len() > limit).then(|| (offset + limit) as u64);
            let entry = |(id, channel): &(ChannelId, &channel::Channel)| {
                registry::entry(*id, channel, ChannelState::Live)
            };
            ChannelPage { channels: shown.iter().map(entry).collect(), total: listed.len() as u64, next }
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A panic elsewhere leaves soft state that is still better than none.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
