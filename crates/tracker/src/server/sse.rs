//! The two event streams: the directory's and one channel's.
//!
//! A subscriber subscribes first and takes its snapshot after, so that nothing falls between; an event may repeat what
//! the snapshot said, which does no harm.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use caudal_proto::id::ChannelId;
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::message::{ChannelEntry, ChannelState};
use crate::server::hub::Rendered;
use crate::server::{Shared, http};

/// A comment goes out after so long without an event, so that both sides notice a dead connection.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a stream is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Topic {
    Directory,
    Channel(ChannelId),
}

struct Subscriber {
    shared: Arc<Shared>,
    topic: Topic,
    events: Receiver<Rendered>,
    /// Whether a snapshot is due: at the start, and after having missed events.
    snapshot_due: bool,
    _counted: Counted,
}

/// Counts a subscriber for as long as its connection lives.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endless response.
pub(crate) fn respond(shared: &Arc<Shared>, topic: Topic) -> Response {
    let Some(subscriber) = Subscriber::enter(shared, topic) else {
        return http::unavailable("too many subscribers; ask for the list now and then instead");
    };
    let stream = stream::unfold(subscriber, |mut subscriber| async move {
        let rendered = subscriber.next().await?;
        let event = Event::default().event(rendered.name).data(&*rendered.data);
        Some((Ok::<_, Infallible>(event), subscriber))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

impl Subscriber {
    /// One more, if there is room.
    fn enter(shared: &Arc<Shared>, topic: Topic) -> Option<Self> {
        let before = shared.metrics.subscribers.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(shared));
        if before >= shared.limits.subscribers as u64 {
            return None;
        }
        let events = shared.subscribe(topic);
        Some(Self { shared: Arc::clone(shared), topic, events, snapshot_due: true, _counted: counted })
    }

    async fn next(&mut self) -> Option<Rendered> {
        if !self.snapshot_due {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = self.shared.stopped() => return None,
            };
            match event {
                Ok(rendered) => return Some(rendered),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
            // What is still queued is older than the snapshot that follows.
            self.events = self.events.resubscribe();
        }
        self.snapshot_due = false;
        Some(self.snapshot())
    }

    fn snapshot(&self) -> Rendered {
        match self.topic {
            Topic::Directory => Rendered::new("snapshot", &self.shared.page("", 0, http::PAGE_MAX)),
            Topic::Channel(channel) => {
                let known = self.shared.with(|registry, now| registry.channel(now, &channel));
                let waiting = ChannelEntry {
                    channel,
                    state: ChannelState::Waiting,
                    name: None,
                    descriptor: None,
                    broadcast: None,
                    since_unix_ms: None,
                    viewers: 0,
                    quality: None,
                    takedown: None,
                };
                Rendered::new("snapshot", &known.unwrap_or(waiting))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::channel::Audience;
    use crate::server::lists::ListFiles;
    use crate::server::registry::{Change, What};
    use crate::server::{TrackerConfig, lock};

    #[tokio::test]
    async fn who_missed_events_gets_a_snapshot_and_then_only_what_is_newer() {
        let lists = ListFiles::open(None, None).unwrap();
        let guard = crate::server::guard::Guard::new(([127, 0, 0, 1], 1).into(), false, &[]);
        let shared = Arc::new(Shared::new(TrackerConfig::default(), true, guard, Vec::new(), &lists));
        let id = ChannelId([7; 32]);
        let viewers = |count| Change {
            channel: id,
            listed: true,
            what: What::Audience(Audience { viewers: count, quality: None }),
        };
        for topic in [Topic::Directory, Topic::Channel(id)] {
            let mut subscriber = Subscriber::enter(&shared, topic).unwrap();
            assert_eq!(subscriber.next().await.unwrap().name, "snapshot");
            lock(&shared.hub).publish(&viewers(1));
            assert_eq!(subscriber.next().await.unwrap().name, "viewers");
            for count in 0..1000 {
                lock(&shared.hub).publish(&viewers(count));
            }
            assert_eq!(subscriber.next().await.unwrap().name, "snapshot", "{topic:?}");
            lock(&shared.hub).publish(&viewers(4321));
            let newer = subscriber.next().await.unwrap();
            assert!(newer.data.contains("4321"), "{topic:?}: {}", newer.data);
        }
        assert_eq!(shared.metrics.subscribers.load(Ordering::Relaxed), 0);
        lock(&shared.hub).expire();
        assert_eq!(lock(&shared.hub).channels().count(), 0);
    }
}
