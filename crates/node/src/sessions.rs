//! The channels that one node receives or publishes: the one from the command line, and those that its page opened.
//!
//! Each viewer has a network side of its own, so that one channel's neighbours never learn of another's. Owns the table and
//! when a session leaves it; decides nothing about delivery.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_proto::hop::Tracing;
use caudal_proto::id::ChannelId;
use caudal_proto::qos::playout::Bounds;
use caudal_tracker::link::Link;
use caudal_tracker::url::AllowedUrl;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::NodeError;
use crate::link_trackers::{LinkSource, link_edges, link_trackers};
use crate::live::Live;
use crate::maps::Maps;
use crate::network::{NetworkConfig, random};
use crate::report::Gauge;
use crate::viewer::{Preference, RETENTION, Viewer, ViewerConfig};
use crate::{source, viewer};

/// Most sessions at a time.
pub const SESSIONS_MAX: usize = 4;
/// When the node ends, its sessions have this long to take their leave.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// What a session watches or publishes.
#[derive(Debug, Clone)]
enum Side {
    Viewer(Arc<viewer::Shared>),
    Source(Arc<source::Shared>),
}

/// One channel on this node.
#[derive(Debug)]
pub struct Session {
    /// Eight hexadecimal digits.
    pub id: String,
    /// The channel.
    pub channel: ChannelId,
    name: String,
    link: String,
    side: Side,
    /// Ends it; none for what the command line began, which ends with the process.
    stop: Option<watch::Sender<bool>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A session, as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct SessionView {
    id: String,
    channel: String,
    name: String,
    link: String,
    role: &'static str,
    state: &'static str,
    reason: Option<String>,
    live: String,
    hls: String,
    retention_ms: u64,
    upload: bool,
    stays: bool,
}

impl Session {
    /// Parts for players.
    pub fn live(&self) -> &Arc<Live> {
        match &self.side {
            Side::Viewer(shared) => &shared.live,
            Side::Source(shared) => &shared.live,
        }
    }

    /// How it stands, and why where that is to be said.
    pub fn state(&self) -> (&'static str, Option<String>) {
        match &self.side {
            Side::Viewer(shared) => shared.state(),
            Side::Source(shared) => shared.state(),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state().0, "ended" | "taken down")
    }

    /// As JSON says it.
    pub fn view(&self) -> SessionView {
        let (state, reason) = self.state();
        SessionView {
            id: self.id.clone(),
            channel: self.channel.to_string(),
            name: self.name.clone(),
            link: self.link.clone(),
            role: if matches!(self.side, Side::Viewer(_)) { "viewer" } else { "source" },
            state,
            reason,
            live: format!("/s/{}/live.mp4", self.id),
            hls: format!("/s/{}/hls/index.m3u8", self.id),
            retention_ms: RETENTION.as_millis() as u64,
            upload: match &self.side {
                Side::Viewer(shared) => shared.uploads(),
                Side::Source(_) => true,
            },
            stays: self.stop.is_none(),
        }
    }

    /// Somebody wants to see another rendition; false where nothing is watched.
    pub fn prefer(&self, preference: Preference) -> bool {
        let Side::Viewer(shared) = &self.side else { return false };
        shared.prefer(preference);
        true
    }

    /// The viewer's or the source's report.
    pub async fn report(&self) -> Value {
        let report = match &self.side {
            Side::Viewer(shared) => serde_json::to_value(shared.report().await),
            Side::Source(shared) => serde_json::to_value(shared.report().await),
        };
        report.unwrap_or_default()
    }

    /// What a page's gauge shows.
    pub fn gauge(&self) -> Gauge {
        match &self.side {
            Side::Viewer(shared) => shared.gauge(),
            Side::Source(shared) => shared.gauge(),
        }
    }
}

/// What every session of a node is started with.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Trackers that the person named; links may name others.
    pub trackers: Vec<AllowedUrl>,
    /// Whether sessions may upload at all.
    pub upload: bool,
    /// Whether sessions may meet other viewers at all.
    pub p2p: bool,
    /// Edges that the person named.
    pub edges: Vec<AllowedUrl>,
    /// See [`ViewerConfig::edge_share`].
    pub edge_share: u32,
    /// See [`ViewerConfig::tracing`].
    pub tracing: Tracing,
    /// See [`ViewerConfig::bounds`].
    pub bounds: Bounds,
    /// Which rendition is shown until somebody chooses.
    pub rendition: Preference,
    /// The UDP side. Its fixed ports are the command line's session's: others take free ones.
    pub network: NetworkConfig,
    /// Maps of the network, for all sessions together.
    pub maps: Arc<Maps>,
    /// Trackers and peers on private addresses are used.
    pub lan: bool,
    /// The command as it was typed.
    pub command: String,
    /// The build's commit.
    pub commit: &'static str,
}

/// Why a session was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Bad(String),
    /// [`SESSIONS_MAX`].
    #[error(
        "this node has {SESSIONS_MAX} channels open already, which is all that it takes; leave one, then try again"
    )]
    Full,
    /// It could not be done.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// The sessions of a node.
#[derive(Debug)]
pub struct Sessions {
    /// None on a node that only publishes.
    settings: Option<SessionSettings>,
    table: Mutex<Vec<Arc<Session>>>,
    /// Held while one is started, so that two requests for a channel do not start two.
    opening: tokio::sync::Mutex<()>,
}

impl Sessions {
    /// None yet. Without `settings` a page can start none.
    pub fn new(settings: Option<SessionSettings>) -> Self {
        Self { settings, table: Mutex::default(), opening: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether those that a page starts may send to others.
    pub fn may_upload(&self) -> bool {
        self.settings.as_ref().is_none_or(|settings| settings.upload && settings.p2p)
    }

    /// Whether those that a page starts meet other viewers.
    pub fn meets_others(&self) -> bool {
        self.settings.as_ref().is_none_or(|settings| settings.p2p)
    }

    /// Whether a page can start some.
    pub fn can_open(&self) -> bool {
        self.settings.is_some()
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.lock().clone()
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<Arc<Session>> {
        self.lock().iter().find(|session| session.id == id).cloned()
    }

    /// The one that the command line began.
    pub fn first(&self) -> Option<Arc<Session>> {
        self.lock().iter().find(|session| session.stop.is_none()).cloned()
    }

    /// Adds the viewer that the command line began.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn add_viewer(&self, link: &Link, shared: Arc<viewer::Shared>) -> Result<Arc<Session>, NodeError> {
        self.add(link.channel, link.title(), link.to_string(), Side::Viewer(shared), None)
    }

    /// Adds the source that the command line began.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn add_source(&self, link: &Link, shared: Arc<source::Shared>) -> Result<Arc<Session>, NodeError> {
        self.add(link.channel, link.title(), link.to_string(), Side::Source(shared), None)
    }

    fn add(
        &self,
        channel: ChannelId,
        name: String,
        link: String,
        side: Side,
        stop: Option<watch::Sender<bool>>,
    ) -> Result<Arc<Session>, NodeError> {
        let id = format!("{:08x}", u32::from_be_bytes(random()?));
        let session = Arc::new(Session { id, channel, name, link, side, stop, task: Mutex::default() });
        self.lock().push(Arc::clone(&session));
        Ok(session)
    }

    /// Watches what `link` names. Gives the session, and whether it is new: one channel has one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, link: &str, upload: bool) -> Result<(Arc<Session>, bool), OpenError> {
        let bad = |why: &dyn std::fmt::Display| OpenError::Bad(why.to_string());
        let Some(settings) = &self.settings else {
            return Err(OpenError::Bad("this node only publishes; to watch, start: caudal watch".to_owned()));
        };
        let link: Link = link.parse().map_err(|error| bad(&error))?;
        let asked = link_trackers(&link, LinkSource::Page, &settings.trackers, settings.lan);
        let trackers = asked.map_err(|error| bad(&error))?.allowed;
        // Those that may not be asked stay out of what the page remembers: pasted again, the link would name them.
        let (edges, _) = link_edges(&link, LinkSource::Page, &settings.edges, settings.lan);
        let urls = |of: &[AllowedUrl]| of.iter().map(|url| url.url().clone()).collect();
        let link = Link { trackers: urls(&trackers), edges: urls(&edges), ..link };
        let _opening = self.opening.lock().await;
        let there = self.lock().iter().find(|s| s.channel == link.channel && !s.is_over()).cloned();
        if let Some(session) = there {
            return Ok((session, false));
        }
        {
            let mut table = self.lock();
            table.retain(|session| session.stop.is_none() || !session.is_over());
            if table.len() >= SESSIONS_MAX {
                return Err(OpenError::Full);
            }
        }
        let viewer = Viewer::start(ViewerConfig {
            channel: link.channel,
            trackers,
            network: NetworkConfig { bind: Vec::new(), ..settings.network.clone() },
            maps: Arc::clone(&settings.maps),
            upload: upload && settings.upload,
            p2p: settings.p2p,
            edges,
            edge_share: settings.edge_share,
            tracing: settings.tracing,
            bounds: settings.bounds,
            lan: settings.lan,
            shelf: None,
            rendition: settings.rendition,
            started: Instant::now(),
            command: settings.command.clone(),
            commit: settings.commit,
        })
        .await?;
        let (stop, stopped) = watch::channel(false);
        let side = Side::Viewer(viewer.shared());
        let session = self.add(link.channel, link.title(), link.to_string(), side, Some(stop))?;
        let task = tokio::spawn(async move {
            // What ended it stands in the session's state.
            if let Err(error) = Box::pin(viewer.run(stopped)).await {
                tracing::info!("a session ended: {error}");
            }
        });
        *session.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok((session, true))
    }

    /// Ends one that a page began. `None`: there is none; `Some(false)`: it is the command line's.
    pub fn close(&self, id: &str) -> Option<bool> {
        let mut table = self.lock();
        let at = table.iter().position(|session| session.id == id)?;
        let Some(stop) = &table[at].stop else { return Some(false) };
        stop.send_replace(true);
        table.remove(at);
        Some(true)
    }

    /// Ends all that a page began, and waits a moment for them to take their leave.
    pub async fn leave(&self) {
        let all: Vec<_> = self.lock().drain(..).collect();
        for stop in all.iter().filter_map(|session| session.stop.as_ref()) {
            stop.send_replace(true);
        }
        let tasks = all
            .iter()
            .filter_map(|session| session.task.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _not_in_time = tokio::time::timeout(LEAVE_MAX, futures_util::future::join_all(tasks)).await;
    }
}
