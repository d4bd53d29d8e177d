//! What players read: one long response of fragmented MP4, and LL-HLS (RFC 8216bis).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_media::assemble::StreamWriter;
use caudal_media::hls::{
    MEDIA_URI, MULTIVARIANT_URI, Playlist, PlaylistAnswer, Query, Resource, ResourceAnswer,
};

use super::Served;
use super::api::no_session;
use crate::live::{Live, Read, Reader};

/// A blocking playlist or part request waits for this long.
const BLOCK_MAX: Duration = Duration::from_secs(10);

/// The stream of what the command line began.
pub(super) async fn stream(State(served): State<Served>) -> Response {
    served.sessions.first().map_or_else(no_session, |session| streamed(session.live()))
}

/// The stream of one session.
pub(super) async fn session_stream(State(served): State<Served>, Path(id): Path<String>) -> Response {
    served.sessions.get(&id).map_or_else(no_session, |session| streamed(session.live()))
}

/// A playlist or a part of what the command line began.
pub(super) async fn hls(
    State(served): State<Served>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    match served.sessions.first() {
        Some(session) => hls_within(session.live(), &name, query.as_deref()).await,
        None => no_session(),
    }
}

/// A playlist or a part of one session.
pub(super) async fn session_hls(
    State(served): State<Served>,
    Path((id, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    match served.sessions.get(&id) {
        Some(session) => hls_within(session.live(), &name, query.as_deref()).await,
        None => no_session(),
    }
}

/// One long response of fragmented MP4, from the newest segment start on.
fn streamed(live: &Arc<Live>) -> Response {
    let reader = live.reader();
    let pieces = futures_util::stream::unfold((reader, StreamWriter::new(), Vec::new()), next_piece);
    let headers = [(header::CONTENT_TYPE, "video/mp4"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(pieces)).into_response()
}

type Streaming = (Reader, StreamWriter, Vec<Bytes>);

async fn next_piece(
    (mut reader, mut writer, mut ready): Streaming,
) -> Option<(Result<Bytes, Infallible>, Streaming)> {
    loop {
        if let Some(piece) = ready.pop() {
            return Some((Ok(piece), (reader, writer, ready)));
        }
        match reader.next().await? {
            Read::Part(part) => {
                ready = writer.write(&part).collect();
                ready.reverse();
            }
            Read::Skipped(parts) => tracing::debug!("a player was too slow for {parts} parts"),
        }
    }
}

async fn hls_within(live: &Live, name: &str, query: Option<&str>) -> Response {
    match hls_found(live, name, query).await {
        Found::Playlist(text) => playlist_response(text),
        Found::Media { pieces, .. } => media_response(&pieces),
        Found::BadRequest(why) => (StatusCode::BAD_REQUEST, why).into_response(),
        Found::Nothing => StatusCode::NOT_FOUND.into_response(),
        Found::Late => (StatusCode::SERVICE_UNAVAILABLE, "nothing came in time").into_response(),
    }
}

/// What stands behind a name of LL-HLS.
#[derive(Debug)]
pub(crate) enum Found {
    /// A playlist.
    Playlist(String),
    /// Bytes, in pieces.
    Media {
        /// They are shared.
        pieces: Vec<Bytes>,
        /// Nothing will be added to them.
        is_final: bool,
    },
    /// The query makes no sense.
    BadRequest(&'static str),
    /// Nothing is there.
    Nothing,
    /// Nothing came in time.
    Late,
}

/// Looks a name up, and waits for what is announced.
pub(crate) async fn hls_found(live: &Live, name: &str, query: Option<&str>) -> Found {
    let mut changes = live.changes();
    let wait = async {
        loop {
            changes.borrow_and_update();
            if let Some(found) = hls_now(live, name, query) {
                return found;
            }
            if changes.changed().await.is_err() {
                return Found::Nothing;
            }
        }
    };
    tokio::time::timeout(BLOCK_MAX, wait).await.unwrap_or(Found::Late)
}

/// `None`: not yet.
fn hls_now(live: &Live, name: &str, query: Option<&str>) -> Option<Found> {
    if name == MULTIVARIANT_URI {
        return live.playlist(Playlist::multivariant_playlist).map(Found::Playlist);
    }
    if name == MEDIA_URI {
        let query = match Query::parse(query.unwrap_or_default()) {
            Ok(query) => query,
            Err(why) => return Some(Found::BadRequest(why)),
        };
        return match live.playlist(|playlist| playlist.media_playlist(&query)) {
            PlaylistAnswer::Ready(text) => Some(Found::Playlist(text)),
            PlaylistAnswer::Wait => None,
            PlaylistAnswer::BadRequest(why) => Some(Found::BadRequest(why)),
        };
    }
    let Some(resource) = Resource::parse(name) else { return Some(Found::Nothing) };
    live.playlist(|playlist| match playlist.resource(resource) {
        ResourceAnswer::Ready(pieces) => Some(Found::Media { pieces, is_final: playlist.is_final(resource) }),
        ResourceAnswer::Wait => None,
        ResourceAnswer::NotFound => Some(Found::Nothing),
    })
}

fn playlist_response(text: String) -> Response {
    let kind = "application/vnd.apple.mpegurl";
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

fn media_response(pieces: &[Bytes]) -> Response {
    let len: usize = pieces.iter().map(Bytes::len).sum();
    let pieces: Vec<Result<Bytes, Infallible>> = pieces.iter().cloned().map(Ok).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("video/mp4")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=60")),
        (header::CONTENT_LENGTH, HeaderValue::from(len)),
    ];
    (headers, body).into_response()
}
