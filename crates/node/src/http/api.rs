//! JSON for pages and programs: what this node is, its sessions, its desk, stats, metrics. Errors are `{"error":"…"}`.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{BODY_LEN_MAX, Served};
use crate::metrics::prometheus;
use crate::report::SCHEMA;
use crate::sessions::{OpenError, SessionView};

/// A request's body must come within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn error(status: StatusCode, why: &str) -> Response {
    answer(status, &json!({ "error": why }))
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let Ok(body) = serde_json::to_string(body) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    (status, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body)
        .into_response()
}

pub(super) fn no_session() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "this node does not have that channel open; /api/v1/sessions lists those that it has",
    )
}

pub(super) async fn nothing() -> Response {
    error(StatusCode::NOT_FOUND, "there is nothing here; see docs/http.md")
}

pub(super) async fn other_method() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "this address takes another method; see docs/http.md")
}

/// A body of JSON within its size and time.
async fn read<T: DeserializeOwned>(body: Body, shape: &str) -> Result<T, Response> {
    let bad = || error(StatusCode::BAD_REQUEST, &format!("a body of JSON is expected: {shape}"));
    let whole = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LEN_MAX)).await;
    let whole = whole.ok().and_then(Result::ok).ok_or_else(bad)?;
    serde_json::from_slice(&whole).map_err(|_| bad())
}

fn views(served: &Served) -> Vec<SessionView> {
    served.sessions.all().iter().map(|session| session.view()).collect()
}

pub(super) async fn node(State(served): State<Served>) -> Response {
    let shown = &served.shown;
    answer(
        StatusCode::OK,
        &json!({
            "schema": SCHEMA, "role": shown.role, "version": shown.page.version, "commit": shown.page.commit,
            "can": {
                "watch": served.sessions.can_open(), "desk": shown.desk.is_some(),
                "upload": served.sessions.may_upload(), "p2p": served.sessions.meets_others(),
            },
            "channels": shown.directory.is_some().then_some("/api/v1/channels/events"),
            "sessions": views(&served),
        }),
    )
}

pub(super) async fn sessions(State(served): State<Served>) -> Response {
    answer(StatusCode::OK, &views(&served))
}

#[derive(Deserialize)]
struct Open {
    link: String,
    #[serde(default = "yes")]
    upload: bool,
}

fn yes() -> bool {
    true
}

pub(super) async fn open(State(served): State<Served>, body: Body) -> Response {
    let wanted: Open = match read(body, r#"{"link":"caudal:…","upload":true}"#).await {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal,
    };
    // Boxed: starting a viewer is a large future, and this one is rarely run.
    match Box::pin(served.sessions.open(&wanted.link, wanted.upload)).await {
        Ok((session, true)) => answer(StatusCode::CREATED, &session.view()),
        Ok((session, false)) => answer(StatusCode::OK, &session.view()),
        Err(why @ OpenError::Bad(_)) => error(StatusCode::BAD_REQUEST, &why.to_string()),
        Err(why @ OpenError::Full) => error(StatusCode::CONFLICT, &why.to_string()),
        Err(why @ OpenError::Node(_)) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}

pub(super) async fn close(State(served): State<Served>, Path(id): Path<String>) -> Response {
    match served.sessions.close(&id) {
        Some(true) => StatusCode::NO_CONTENT.into_response(),
        Some(false) => error(
            StatusCode::CONFLICT,
            "this channel was opened in a terminal and goes on there; Ctrl-C in that terminal ends it",
        ),
        None => no_session(),
    }
}

#[derive(Deserialize)]
struct Choice {
    rendition: String,
}

pub(super) async fn rendition(State(served): State<Served>, Path(id): Path<String>, body: Body) -> Response {
    let Some(session) = served.sessions.get(&id) else { return no_session() };
    let choice =
        match read::<Choice>(body, r#"{"rendition":"auto"}, a number as in "1" or a height as in "720p""#)
            .await
        {
            Ok(choice) => choice,
            Err(refusal) => return refusal,
        };
    match choice.rendition.parse() {
        Ok(preference) if session.prefer(preference) => StatusCode::NO_CONTENT.into_response(),
        Ok(_) => error(
            StatusCode::CONFLICT,
            "this node publishes that channel: a viewer chooses among its renditions",
        ),
        Err(why) => error(StatusCode::BAD_REQUEST, &format!("rendition: {why}")),
    }
}

fn no_desk() -> Response {
    error(StatusCode::NOT_FOUND, "this node does not publish; caudal publish has a desk")
}

pub(super) async fn desk(State(served): State<Served>) -> Response {
    let session = served.sessions.first();
    match &served.shown.desk {
        Some(desk) => answer(StatusCode::OK, &desk.view(session.as_ref().map(|session| session.id.as_str()))),
        None => no_desk(),
    }
}

pub(super) async fn desk_trace(State(served): State<Served>) -> Response {
    match &served.shown.desk {
        Some(desk) => answer(StatusCode::OK, &desk.trace()),
        None => no_desk(),
    }
}

#[derive(Deserialize)]
struct Listed {
    listed: bool,
}

pub(super) async fn desk_listed(State(served): State<Served>, body: Body) -> Response {
    let Some(desk) = &served.shown.desk else { return no_desk() };
    match read::<Listed>(body, r#"{"listed":true}"#).await {
        Ok(wanted) => {
            desk.list(wanted.listed);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => refusal,
    }
}

pub(super) async fn desk_stop(State(served): State<Served>) -> Response {
    let Some(desk) = &served.shown.desk else { return no_desk() };
    desk.stop();
    StatusCode::NO_CONTENT.into_response()
}

pub(super) async fn stats(State(served): State<Served>) -> Response {
    match served.sessions.first() {
        Some(session) => answer(StatusCode::OK, &session.report().await),
        None => no_session(),
    }
}

pub(super) async fn metrics(State(served): State<Served>) -> Response {
    let Some(session) = served.sessions.first() else { return no_session() };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], prometheus(&session.report().await))
        .into_response()
}
