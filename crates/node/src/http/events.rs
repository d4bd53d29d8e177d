//! Server-sent events (WHATWG HTML, section 9.2): a session's report once a second and its state at once, and the merged list
//! of channels.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::api::{error, no_session};
use super::{EVENTS_MAX, Served};
use crate::directory::{Change, Directory};
use crate::sessions::{Session, Sessions};

/// The state is looked at this often; a report goes out at every tenth look.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
const LOOKS_PER_REPORT: u32 = 10;
/// A comment goes out after so long without an event, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

fn enter(served: &Served) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&served.events).try_acquire_owned().ok()
}

fn full() -> Response {
    let why = format!("{EVENTS_MAX} pages listen to this node already; close one, then try again");
    error(StatusCode::SERVICE_UNAVAILABLE, &why)
}

fn respond<S: Send + 'static, F>(state: S, next: impl FnMut(S) -> F + Send + 'static) -> Response
where
    F: Future<Output = Option<(Result<Event, Infallible>, S)>> + Send + 'static,
{
    let events = stream::unfold(state, next);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn event(name: &str, data: &Value) -> Result<Event, Infallible> {
    Ok(Event::default().event(name).data(data.to_string()))
}

struct Watching {
    session: Arc<Session>,
    sessions: Arc<Sessions>,
    looks: Interval,
    turn: u32,
    told: Option<(&'static str, Option<String>)>,
    _permit: OwnedSemaphorePermit,
}

impl Watching {
    /// The next event; none when the session was closed.
    async fn next(&mut self) -> Option<(&'static str, Value)> {
        loop {
            self.looks.tick().await;
            self.sessions.get(&self.session.id)?;
            let state = self.session.state();
            if self.told.as_ref() != Some(&state) {
                let data = json!({ "state": state.0, "reason": state.1 });
                self.told = Some(state);
                return Some(("state", data));
            }
            self.turn = self.turn.wrapping_add(1);
            if self.turn % LOOKS_PER_REPORT == 1 {
                let mut report = self.session.report().await;
                report["gauge"] = serde_json::to_value(self.session.gauge()).unwrap_or_default();
                return Some(("report", report));
            }
        }
    }
}

/// Reports and states of a session.
pub(super) async fn session(State(served): State<Served>, Path(id): Path<String>) -> Response {
    let Some(session) = served.sessions.get(&id) else { return no_session() };
    let Some(permit) = enter(&served) else { return full() };
    let mut looks = interval(LOOK_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sessions = Arc::clone(&served.sessions);
    let watching = Watching { session, sessions, looks, turn: 0, told: None, _permit: permit };
    respond(watching, |mut watching| async move {
        let (name, data) = watching.next().await?;
        Some((event(name, &data), watching))
    })
}

struct Listing {
    directory: Arc<Directory>,
    /// The whole list, when it is due.
    whole: Option<Change>,
    changes: Receiver<Change>,
    _permit: OwnedSemaphorePermit,
}

impl Listing {
    async fn next(&mut self) -> Option<Change> {
        if let Some(whole) = self.whole.take() {
            return Some(whole);
        }
        match self.changes.recv().await {
            Ok(change) => Some(change),
            Err(RecvError::Lagged(_)) => {
                let (whole, changes) = self.directory.subscribe();
                self.changes = changes;
                Some(whole)
            }
            Err(RecvError::Closed) => None,
        }
    }
}

/// The list of channels, and what changes in it.
pub(super) async fn channels(State(served): State<Served>) -> Response {
    let Some(directory) = served.shown.directory.clone() else {
        return error(StatusCode::NOT_FOUND, "this node shows no list; caudal watch --tracker URL has one");
    };
    let Some(permit) = enter(&served) else { return full() };
    let (whole, changes) = directory.subscribe();
    respond(Listing { directory, whole: Some(whole), changes, _permit: permit }, |mut listing| async move {
        let change = listing.next().await?;
        Some((event(change.name, &change.data), listing))
    })
}
