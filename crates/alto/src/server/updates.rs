//! Update streams (RFC 8895): a subscriber is sent each resource whole, and then what changes in it.
//!
//! A stream holds no queue of its own: it remembers which version it sent last, and sends the way from there to the newest.
//! Who reads slowly therefore misses versions, never grows, and is cut after the write timeout. Stream control (section 7) is
//! not offered: a subscriber who wants other resources closes the stream and opens another.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::error::{Problem, unavailable};
use super::params::{self, Object};
use super::site::{Document, Site};
use super::{SUBSTREAMS_MAX, Shared};
use crate::types::{is_name, media};

/// A comment goes out after so long without an event, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a subscriber is sent about one resource.
#[derive(Debug)]
struct Substream {
    /// Called so by the subscriber.
    id: String,
    resource: String,
    /// Changes may be sent instead of the whole.
    is_incremental: bool,
    /// What the subscriber has.
    has: Option<String>,
}

struct Subscriber {
    shared: Arc<Shared>,
    site: watch::Receiver<Arc<Site>>,
    substreams: Vec<Substream>,
    /// Pieces of events to send before anything else is looked at.
    ready: VecDeque<Bytes>,
    _counted: Counted,
}

/// Counts a subscriber for as long as its connection lives.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counts.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The endless response.
pub(crate) fn respond(shared: &Arc<Shared>, site: &Site, body: &[u8]) -> Response {
    let substreams = match read(site, body) {
        Ok(substreams) => substreams,
        Err(problem) => return problem.response(),
    };
    let before = shared.counts.subscribers.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(Arc::clone(shared));
    if before >= shared.limits.subscribers as u64 {
        return unavailable("too many subscribers; ask for the maps now and then instead");
    }
    let mut receiver = shared.site.subscribe();
    receiver.mark_changed();
    let subscriber = Subscriber {
        shared: Arc::clone(shared),
        site: receiver,
        substreams,
        // Tells proxies and the client that the stream has begun.
        ready: VecDeque::from([Bytes::from_static(b":\n\n")]),
        _counted: counted,
    };
    let pieces = stream::unfold(subscriber, |mut subscriber| async move {
        let piece = subscriber.next().await?;
        Some((Ok::<_, Infallible>(piece), subscriber))
    });
    let headers = [(header::CONTENT_TYPE, media::EVENT_STREAM), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(pieces)).into_response()
}

/// What is subscribed to (section 6.5).
fn read(site: &Site, body: &[u8]) -> Result<Vec<Substream>, Problem> {
    let value = params::parse(body)?;
    let root = Object::root(&value)?;
    let add = root.required("add")?;
    let add = add.as_object().ok_or_else(|| Problem::wrong_type("add".to_owned()))?;
    if add.is_empty() {
        return Err(Problem::wrong_text("add".to_owned(), "{}"));
    }
    if add.len() > SUBSTREAMS_MAX {
        let value = format!("{} substreams; at most {SUBSTREAMS_MAX} are possible", add.len());
        return Err(Problem::wrong_text("add".to_owned(), &value));
    }
    add.iter().map(|(id, request)| substream(site, id, request)).collect()
}

fn substream(site: &Site, id: &str, request: &Value) -> Result<Substream, Problem> {
    if !is_name(id) || id.contains('.') {
        return Err(Problem::wrong_text("add".to_owned(), id));
    }
    let path = |field: &str| format!("add/{id}/{field}");
    let Some(request) = request.as_object() else { return Err(Problem::wrong_type(format!("add/{id}"))) };
    let resource = request.get("resource-id").ok_or_else(|| Problem::missing(path("resource-id")))?;
    let resource = resource.as_str().ok_or_else(|| Problem::wrong_type(path("resource-id")))?;
    if site.document(resource).is_none() {
        return Err(Problem::wrong_text(path("resource-id"), resource));
    }
    let has = match request.get("tag") {
        None => None,
        Some(Value::String(tag)) => Some(tag.clone()),
        Some(_) => return Err(Problem::wrong_type(path("tag"))),
    };
    let is_incremental = match request.get("incremental-changes") {
        None => true,
        Some(value) => value.as_bool().ok_or_else(|| Problem::wrong_type(path("incremental-changes")))?,
    };
    if let Some(input) = request.get("input") {
        return Err(Problem::wrong_value(path("input"), input));
    }
    Ok(Substream { id: id.to_owned(), resource: resource.to_owned(), is_incremental, has })
}

impl Subscriber {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.substreams.is_empty() {
                return None;
            }
            tokio::select! {
                changed = self.site.changed() => changed.ok()?,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b":\n\n")),
                () = self.shared.stopped() => return None,
            }
            let site = Arc::clone(&self.site.borrow_and_update());
            // Whole maps are written off the runtime's threads when they are not there yet.
            let to_write = Arc::clone(&site);
            let wanted: Vec<String> = self.substreams.iter().map(|sub| sub.resource.clone()).collect();
            let write = move || {
                for document in wanted.iter().filter_map(|id| to_write.document(id)) {
                    let _written = document.body();
                }
            };
            let _written = tokio::task::spawn_blocking(write).await;
            self.stop_what_is_gone(&site);
            // In the site's order: network maps before the cost maps that depend on them.
            for document in &site.documents {
                for sub in self.substreams.iter_mut().filter(|sub| sub.resource == document.id) {
                    push(&mut self.ready, sub, document);
                }
            }
        }
    }

    /// Resources that the new version has not: their substreams end (section 5.3).
    fn stop_what_is_gone(&mut self, site: &Site) {
        let is_gone = |sub: &Substream| site.document(&sub.resource).is_none();
        let gone: Vec<&str> =
            self.substreams.iter().filter(|sub| is_gone(sub)).map(|sub| sub.id.as_str()).collect();
        if !gone.is_empty() {
            let said = json!({ "stopped": gone, "description": "the resource is not served any more" });
            let event = format!("event: {}\ndata: {said}\n\n", media::UPDATE_STREAM_CONTROL);
            self.ready.push_back(event.into());
        }
        self.substreams.retain(|sub| !is_gone(sub));
    }
}

/// The change from what the subscriber has, or the whole.
fn push(ready: &mut VecDeque<Bytes>, sub: &mut Substream, document: &Document) {
    if sub.has.as_deref() == Some(document.tag.as_str()) {
        return;
    }
    let patch =
        document.patch.as_ref().filter(|(from, _)| sub.is_incremental && sub.has.as_ref() == Some(from));
    let (media_type, data) = match patch {
        Some((_, patch)) => (media::MERGE_PATCH, patch.clone()),
        None => (document.media_type, document.body()),
    };
    sub.has = Some(document.tag.clone());
    ready.push_back(format!("event: {media_type},{}\ndata: ", sub.id).into());
    // All subscribers share the bytes.
    ready.push_back(data);
    ready.push_back(Bytes::from_static(b"\n\n"));
}
