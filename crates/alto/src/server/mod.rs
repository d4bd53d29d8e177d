//! An ALTO server: maps, filtered maps, endpoint properties and costs, and their changes as they happen.
//!
//! | module | owns |
//! |---|---|
//! | `site` | one version of everything that is served, and the directory of it |
//! | `http` | paths, methods, media types, statuses |
//! | `params`, `error` | from a request's body to what it asks for, or the ALTO error |
//! | `filtered`, `endpoint` | the services that are asked by POST |
//! | `updates` | update streams (RFC 8895) |
//! | `listen` | connections, TLS, limits |
//!
//! A version of the site is immutable. A file that changed makes the next version, which replaces the old one at once for
//! new requests; a file that is wrong is refused and the old version stays.

mod endpoint;
mod error;
mod filtered;
mod http;
mod listen;
mod params;
mod site;
mod updates;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::{Config, LoadError, ServerConfig};
use site::Site;

pub use http::ClientAddress;

/// How often the file is looked at. It is read once two looks in a row see the same: not while it is being written.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long open requests may take to end when the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// Longest request body, bytes.
pub const REQUEST_LEN_MAX: usize = 1024 * 1024;
/// Most pairs of endpoints whose costs one request may ask for.
pub const ENDPOINT_PAIRS_MAX: usize = 250_000;
/// Most substreams of an update stream.
pub const SUBSTREAMS_MAX: usize = 64;

/// Bounds on what the server keeps and accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most TCP connections.
    pub connections: usize,
    /// Most TCP connections from one address (IPv6: one /64). Loopback and trusted proxies are exempt.
    pub connections_per_address: u32,
    /// Most update streams, each of which holds a connection. Below `connections`, so that requests get through.
    pub subscribers: usize,
    /// Most requests that wait for a processor; more are told to come again.
    pub waiting: usize,
    /// Most bytes of answers to POST that wait for clients to read them; who asks for more is told to come again.
    pub answers_len: usize,
    /// How long a client may take to send a request's head, and how long a connection may idle.
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            connections_per_address: 128,
            subscribers: 1536,
            waiting: 256,
            answers_len: 256 * 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The file.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The certificate or its key.
    #[error("{path}: {why}; a PEM file with the server's {what} is expected")]
    Tls {
        /// The file.
        path: String,
        /// Of what.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The listener is unusable.
    #[error("the listening socket: {0}")]
    Listener(#[from] std::io::Error),
}

/// A server, ready to serve.
pub struct AltoServer {
    path: Option<PathBuf>,
    seen: Option<Seen>,
    config: ServerConfig,
    tls: Option<tokio_rustls::TlsAcceptor>,
    limits: Limits,
    site: Site,
}

impl std::fmt::Debug for AltoServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AltoServer").field("path", &self.path).field("is_https", &self.is_https()).finish()
    }
}

/// How a file looked when it was read.
type Seen = (SystemTime, u64);

/// What every request handler sees.
pub(crate) struct Shared {
    config: ServerConfig,
    limits: Limits,
    site: watch::Sender<Arc<Site>>,
    workers: Semaphore,
    /// Room for answers, KiB.
    answers: Arc<Semaphore>,
    counts: Counts,
    started: Instant,
    stop: watch::Sender<bool>,
}

/// What `/metrics` tells.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) subscribers: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) overloaded: AtomicU64,
    pub(crate) endpoint_pairs: AtomicU64,
    pub(crate) reloads: AtomicU64,
    pub(crate) reloads_refused: AtomicU64,
}

impl AltoServer {
    /// Reads a file, and looks at it again and again while it serves.
    ///
    /// # Errors
    /// [`ServerError`] when the file, or the certificate that it names, is wrong.
    pub fn open(path: PathBuf, limits: Limits) -> Result<Self, ServerError> {
        // Before reading: what is written meanwhile is read again.
        let seen = look(&path);
        let server = Self::new(Config::load(&path)?, limits)?;
        Ok(Self { path: Some(path), seen, ..server })
    }

    /// Serves what `config` says, for ever.
    ///
    /// # Errors
    /// [`ServerError`] when the certificate is wrong.
    pub fn new(config: Config, limits: Limits) -> Result<Self, ServerError> {
        let tls = config.server.tls.as_ref().map(listen::acceptor).transpose()?;
        let server = config.server.clone();
        Ok(Self { path: None, seen: None, config: server, tls, limits, site: Site::new(config, None) })
    }

    /// Whether it speaks HTTPS.
    pub fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// PIDs, prefixes and metrics of each map, for people.
    pub fn summary(&self) -> Vec<String> {
        self.site.summary()
    }

    /// Serves on `listener` until `shutdown` resolves; requests under way get a moment to end.
    ///
    /// # Errors
    /// None today; the listener may fail in versions to come.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServerError> {
        let (path, seen, tls) = (self.path.clone(), self.seen, self.tls.clone());
        let shared = self.share();
        let accepting = tokio::spawn(listen::accept(Arc::clone(&shared), listener, tls));
        let reloading = async {
            match path {
                Some(path) => reload(&shared, path, seen).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = reloading => {}
        }
        shared.stop.send_replace(true);
        let _stopped = accepting.await;
        let deadline = Instant::now() + STOP_WITHIN;
        while Arc::strong_count(&shared) > 1 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl AltoServer {
    fn share(self) -> Arc<Shared> {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Arc::new(Shared {
            config: self.config,
            limits: self.limits,
            site: watch::Sender::new(Arc::new(self.site)),
            workers: Semaphore::new(workers),
            answers: Arc::new(Semaphore::new(self.limits.answers_len >> 10)),
            counts: Counts::default(),
            started: Instant::now(),
            stop: watch::Sender::new(false),
        })
    }

    /// For a program that serves HTTP itself: the maps as a part of what it serves, below whatever path it likes. Its file is
    /// looked at until this is dropped. Connections, TLS and their limits are then that program's. Needs a tokio runtime.
    pub fn into_part(self) -> Part {
        let (path, seen) = (self.path.clone(), self.seen);
        let shared = self.share();
        let looking = path.map(|path| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { reload(&shared, path, seen).await })
        });
        Part { shared, looking }
    }
}

/// Maps that another server serves.
pub struct Part {
    shared: Arc<Shared>,
    looking: Option<tokio::task::JoinHandle<()>>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Part")
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

impl Part {
    /// Answers what is below the path where this stands. Requests carry the client's address as
    /// [`ClientAddress`].
    pub fn router(&self) -> axum::Router {
        http::router(&self.shared)
    }

    /// The default map with its costs, as it is now.
    pub fn snapshot(&self) -> Option<crate::client::Snapshot> {
        let site = self.shared.site();
        let map = site.maps.first()?;
        crate::client::Snapshot::new(Arc::clone(&map.network), map.costs.clone())
    }

    /// Ends open update streams: the program stops.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }
}

/// A file's time and length; `None` when it is not there.
fn look(path: &std::path::Path) -> Option<Seen> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Looks at the file for as long as the server runs.
async fn reload(shared: &Arc<Shared>, path: PathBuf, mut seen: Option<Seen>) {
    let mut last = seen;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (file, before, settled, current) = (path.clone(), seen, last, shared.site());
        let has_subscribers = shared.counts.subscribers.load(Ordering::Relaxed) > 0;
        // Reading and rendering take long for large maps, so they are done off the runtime's threads.
        let looked = tokio::task::spawn_blocking(move || {
            let now = look(&file);
            // While it is being replaced it may be gone for a moment.
            if now == before || now.is_none() || now != settled {
                return (now, None);
            }
            let base = has_subscribers.then_some(&*current);
            (now, Some(Config::load(&file).map(|config| Site::new(config, base))))
        });
        let Ok((now, loaded)) = looked.await else {
            tracing::error!("reading the maps failed; the old ones stay");
            continue;
        };
        last = now;
        if loaded.is_some() {
            seen = now;
        }
        match loaded {
            None => {}
            Some(Ok(site)) => {
                for line in site.summary() {
                    tracing::info!("maps read again: {line}");
                }
                shared.counts.reloads.fetch_add(1, Ordering::Relaxed);
                shared.site.send_replace(Arc::new(site));
            }
            Some(Err(error)) => {
                shared.counts.reloads_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    "{error}. The file is not used: the maps that were read before are still served"
                );
            }
        }
    }
}

impl Shared {
    /// The version that is served now.
    fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.borrow())
    }

    /// Resolves when the server stops.
    async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // An error would mean that the sender is gone, which is as good.
        let _stopping = stop.wait_for(|stop| *stop).await.is_ok();
    }

    /// An answer that is counted until it has been read; `None` when too much waits for that.
    fn answer(&self, bytes: Vec<u8>) -> Option<Bytes> {
        let room = u32::try_from((bytes.len() >> 10) + 1).ok()?;
        let room = Arc::clone(&self.answers).try_acquire_many_owned(room).ok()?;
        Some(Bytes::from_owner(Answer { bytes, _room: room }))
    }

    /// Runs `work` on a thread of its own, as many at a time as there are processors; `None` when too many wait.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let waiting = Waiting::enter(&self.counts, self.limits.waiting)?;
        let permit = self.workers.acquire().await.ok()?;
        drop(waiting);
        let done = tokio::task::spawn_blocking(work).await.ok();
        drop(permit);
        done
    }
}

/// An answer that takes room until it has been read.
struct Answer {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A request that waits for a processor.
struct Waiting<'a>(&'a Counts);

impl<'a> Waiting<'a> {
    fn enter(counts: &'a Counts, max: usize) -> Option<Self> {
        let before = counts.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(counts);
        (before < max as u64).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
