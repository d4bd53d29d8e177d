//! The lists of several trackers as one: a channel that two of them know stands once.
//!
//! One task per tracker listens to its directory and tries again when it is gone. Signatures were checked by the client;
//! nothing here is kept but what trackers list now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caudal_proto::id::{ChannelId, SecretKey};
use caudal_tracker::client::{ChannelView, ClientError, DirectoryEvent, TrackerClient};
use caudal_tracker::link::{Link, TRACKERS_MAX};
use caudal_tracker::message::ChannelState;
use caudal_tracker::url::{AllowedUrl, TrackerUrl, UrlOrigin};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::Instant;

/// Most channels kept of one tracker.
pub const CHANNELS_MAX: usize = 500;
/// Changes that a slow page may be behind; then it is given the whole list again.
const CHANGES_MAX: usize = 256;
/// First and longest wait before a tracker is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// What a tracker listed is shown for so long after it was lost.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// An event for pages: its name and its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `snapshot`, `channel`, `gone` or `viewers`.
    pub name: &'static str,
    /// As the tracker's own events (`docs/tracker.md`), and a link in each entry.
    pub data: Value,
}

/// The merged list.
#[derive(Debug)]
pub struct Directory {
    trackers: Vec<TrackerUrl>,
    /// By tracker.
    known: Mutex<Vec<BTreeMap<ChannelId, ChannelView>>>,
    changes: broadcast::Sender<Change>,
}

impl Directory {
    /// Listens to `trackers` for as long as the node lives, with a key of its own.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn start(trackers: &[AllowedUrl], key: &SecretKey) -> Result<Arc<Self>, ClientError> {
        let clients = trackers.iter().map(|url| TrackerClient::new(url.clone(), key.clone()));
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        let directory = Arc::new(Self {
            trackers: trackers.iter().map(|url| url.url().clone()).collect(),
            known: Mutex::new(vec![BTreeMap::new(); trackers.len()]),
            changes: broadcast::Sender::new(CHANGES_MAX),
        });
        for (at, client) in clients.into_iter().enumerate() {
            tokio::spawn(Arc::clone(&directory).listen(at, client));
        }
        Ok(directory)
    }

    async fn listen(self: Arc<Self>, at: usize, client: TrackerClient) {
        let mut wait = RETRY.0;
        let mut lost = None;
        loop {
            if let Ok(mut events) = client.directory_events().await {
                while let Ok(Some(event)) = events.next().await {
                    (wait, lost) = (RETRY.0, None);
                    self.hear(at, event);
                }
            }
            let since = *lost.get_or_insert_with(Instant::now);
            if since.elapsed() > LOST_AFTER {
                self.hear(at, DirectoryEvent::Snapshot(Vec::new()));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BTreeMap<ChannelId, ChannelView>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, at: usize, event: DirectoryEvent) {
        let mut known = self.lock();
        let touched: Vec<ChannelId> = match &event {
            DirectoryEvent::Snapshot(views) => {
                known[at].keys().copied().chain(views.iter().map(|view| view.channel)).collect()
            }
            DirectoryEvent::Channel(view) => vec![view.channel],
            DirectoryEvent::Gone { channel, .. } | DirectoryEvent::Viewers { channel, .. } => vec![*channel],
            _ => return,
        };
        let before: BTreeMap<_, _> = touched.into_iter().map(|c| (c, self.entry(&known, &c))).collect();
        let mut state = ChannelState::Ended;
        match event {
            DirectoryEvent::Snapshot(views) => {
                known[at] = views.into_iter().take(CHANNELS_MAX).map(|view| (view.channel, view)).collect();
            }
            DirectoryEvent::Channel(view)
                if known[at].len() < CHANNELS_MAX || known[at].contains_key(&view.channel) =>
            {
                known[at].insert(view.channel, *view);
            }
            DirectoryEvent::Gone { channel, state: now } => {
                known[at].remove(&channel);
                state = now;
            }
            DirectoryEvent::Viewers { channel, viewers, quality } => {
                if let Some(view) = known[at].get_mut(&channel) {
                    (view.viewers, view.quality) = (viewers, quality);
                }
            }
            _ => {}
        }
        for (channel, before) in before {
            if let Some(change) = change(channel, state, before, self.entry(&known, &channel)) {
                // Nobody may be looking.
                let _ = self.changes.send(change);
            }
        }
    }

    /// A channel as pages are told of it: with the most viewers that a tracker counts.
    fn entry(&self, known: &[BTreeMap<ChannelId, ChannelView>], channel: &ChannelId) -> Option<Value> {
        let views = known.iter().zip(&self.trackers).filter_map(|(of, url)| Some((of.get(channel)?, url)));
        let views: Vec<_> = views.collect();
        let (view, _) =
            views.iter().max_by_key(|(view, _)| view.descriptor.as_ref().map(|d| d.issued_unix_ms))?;
        let most = views.iter().map(|(view, _)| view).max_by_key(|view| view.viewers);
        let name = view.descriptor.as_ref().map(|descriptor| descriptor.name.clone());
        let told =
            view.descriptor.iter().flat_map(|descriptor| &descriptor.trackers).map(|tracker| &tracker.0);
        // What a stranger wrote leads nobody to this computer or its networks, today or when the link is used again.
        let told = told.filter(|url| url.check(UrlOrigin::Foreign, false).is_ok());
        let mut trackers: Vec<TrackerUrl> = Vec::new();
        for url in views.iter().map(|(_, url)| *url).chain(told) {
            if trackers.len() < TRACKERS_MAX && !trackers.contains(url) {
                trackers.push(url.clone());
            }
        }
        let told = view.descriptor.iter().flat_map(|descriptor| &descriptor.edges).map(|edge| edge.0.clone());
        let edges = told.filter(|url| url.check(UrlOrigin::Foreign, false).is_ok()).collect();
        let link = Link { channel: *channel, trackers, edges, name: name.clone() }.to_string();
        Some(json!({
            "channel": channel.to_string(),
            "state": view.state,
            "name": name,
            "descriptor": view.signed,
            "since_unix_ms": view.since_unix_ms,
            "viewers": most.map(|view| view.viewers),
            "quality": most.and_then(|view| view.quality.as_ref()),
            "link": link,
        }))
    }

    /// All that is listed now, by viewers, and what changes from here on.
    pub fn subscribe(&self) -> (Change, broadcast::Receiver<Change>) {
        // Subscribed first: an event may repeat what the list says, which does no harm.
        let changes = self.changes.subscribe();
        (self.snapshot(), changes)
    }

    /// All that is listed now, by viewers.
    pub fn snapshot(&self) -> Change {
        let known = self.lock();
        let mut ids: Vec<_> = known.iter().flat_map(BTreeMap::keys).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let mut channels: Vec<_> = ids.iter().filter_map(|id| self.entry(&known, id)).collect();
        channels.sort_by_key(|entry| std::cmp::Reverse(entry["viewers"].as_u64()));
        let total = channels.len();
        Change { name: "snapshot", data: json!({ "channels": channels, "total": total }) }
    }
}

fn change(
    channel: ChannelId,
    state: ChannelState,
    before: Option<Value>,
    now: Option<Value>,
) -> Option<Change> {
    let id = channel.to_string();
    match (before, now) {
        (Some(_), None) => Some(Change { name: "gone", data: json!({ "channel": id, "state": state }) }),
        (Some(mut before), Some(now)) if before != now => {
            for member in ["viewers", "quality"] {
                before[member] = now[member].clone();
            }
            let data = json!({ "channel": id, "viewers": now["viewers"], "quality": now["quality"] });
            Some(if before == now {
                Change { name: "viewers", data }
            } else {
                Change { name: "channel", data: now }
            })
        }
        (None, Some(now)) => Some(Change { name: "channel", data: now }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(channel: &str, viewers: u32) -> ChannelView {
        ChannelView {
            channel: channel.repeat(52).parse().unwrap(),
            state: ChannelState::Live,
            descriptor: None,
            signed: None,
            broadcast: None,
            since_unix_ms: None,
            viewers,
            quality: None,
            takedown: None,
        }
    }

    #[test]
    fn a_channel_known_to_two_trackers_stands_once_and_goes_when_both_let_it_go() {
        let trackers = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(|url| url.parse().unwrap()).to_vec();
        let directory = Directory {
            trackers,
            known: Mutex::new(vec![BTreeMap::new(); 2]),
            changes: broadcast::Sender::new(CHANGES_MAX),
        };
        let (empty, mut changes) = directory.subscribe();
        assert_eq!(empty.data["total"], 0);
        let mut told =
            || std::iter::from_fn(|| changes.try_recv().ok()).map(|c| (c.name, c.data)).collect::<Vec<_>>();
        directory.hear(0, DirectoryEvent::Snapshot(vec![view("a", 3)]));
        assert_eq!(told()[0].0, "channel");
        directory.hear(1, DirectoryEvent::Channel(Box::new(view("a", 5))));
        let told_of_both = told();
        assert_eq!(told_of_both[0].1["viewers"], 5);
        assert!(told_of_both[0].1["link"].as_str().is_some_and(|link| link.matches("tracker=").count() == 2));
        assert_eq!(directory.snapshot().data["total"], 1);
        directory
            .hear(1, DirectoryEvent::Viewers { channel: view("a", 0).channel, viewers: 6, quality: None });
        assert_eq!(told()[0].0, "viewers");
        let gone = || DirectoryEvent::Gone { channel: view("a", 0).channel, state: ChannelState::TakenDown };
        directory.hear(0, gone());
        assert_eq!(told()[0].0, "channel", "the other tracker still lists it");
        directory.hear(1, gone());
        let last = told();
        assert_eq!((last[0].0, &last[0].1["state"]), ("gone", &json!("taken_down")));
    }
}
