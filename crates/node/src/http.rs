//! What a player, a page and Prometheus see on loopback: HLS, the streaming response, stats, metrics.
//!
//! Only requests that mean this server are answered: the Host must be an address of this machine's own, and a page of
//! another origin gets nothing (DNS rebinding). Connections are bounded, and slow clients are cut.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use caudal_media::assemble::StreamWriter;
use caudal_media::hls::{
    MEDIA_URI, MULTIVARIANT_URI, Playlist, PlaylistAnswer, Query, Resource, ResourceAnswer,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::NodeError;
use crate::live::{Live, Read, Reader};
use crate::metrics::prometheus;

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 128;
/// A request's head must come within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client may leave an answer unread for this long: longer than any player buffers ahead, and paused players come back.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest request head.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// A blocking playlist or part request waits for this long.
const BLOCK_MAX: Duration = Duration::from_secs(10);

/// A report, as JSON.
pub type Report = Pin<Box<dyn Future<Output = serde_json::Value> + Send>>;

/// What the server shows.
#[derive(Clone)]
pub struct Shown {
    /// Parts for players.
    pub live: Arc<Live>,
    /// Makes a report.
    pub report: Arc<dyn Fn() -> Report + Send + Sync>,
    /// What stands on the front page.
    pub title: String,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("title", &self.title).finish_non_exhaustive()
    }
}

/// A bound server that does not serve yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
}

impl HttpServer {
    /// Binds.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(addr: SocketAddr) -> Result<Self, NodeError> {
        let listener = TcpListener::bind(addr).await.map_err(|source| NodeError::Listen {
            addr,
            what: "players",
            flag: "--listen",
            source,
        })?;
        Ok(Self { listener })
    }

    /// Its address, such as `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        self.listener.local_addr().map_or_else(|_| String::new(), |addr| format!("http://{addr}"))
    }

    /// Serves for as long as the node lives.
    pub fn serve(self, shown: Shown) {
        let router = Router::new()
            .route("/", get(front))
            .route("/live.mp4", get(stream))
            .route("/hls/{name}", get(hls))
            .route("/api/v1/stats", get(stats))
            .route("/metrics", get(metrics))
            .layer(middleware::from_fn(guard))
            .with_state(shown);
        tokio::spawn(accept(self.listener, router));
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                    open.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (router, open) = (router.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    serve(stream, router).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                tracing::warn!("accepting a player: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let _not_fatal = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a player's connection: {error}");
    }
}

/// Answers only what means this server and comes from nowhere else.
async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_own_host(headers) {
        return refuse("this address answers to its own name only: open it as http://127.0.0.1:PORT");
    }
    if is_foreign(headers) {
        return refuse("pages of other sites may not use this server");
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; media-src 'self'; style-src 'self'; frame-ancestors 'none'",
        ),
    );
    response
}

fn refuse(why: &'static str) -> Response {
    (StatusCode::FORBIDDEN, why).into_response()
}

/// The Host header names this machine by number or as localhost: a name that somebody else controls never does.
fn is_own_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    host.parse::<SocketAddr>().is_ok()
        || host.parse::<std::net::IpAddr>().is_ok()
        || host.strip_prefix("localhost").is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        || host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let own = text("host").map(|host| format!("http://{host}"));
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("?"));
    let other_origin = origin.is_some_and(|origin| Some(origin) != own.as_deref());
    let cross_site = text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    other_origin || cross_site
}

async fn front(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    let text = format!(
        "{}\n\nPlay it:\n  mpv http://{host}/live.mp4          (least delay)\n  mpv http://{host}/hls/{MULTIVARIANT_URI}   (LL-HLS: VLC, Safari, hls.js too)\n\nHow it goes:\n  http://{host}/api/v1/stats\n  http://{host}/metrics\n",
        shown.title
    );
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn stats(State(shown): State<Shown>) -> Response {
    let report = (shown.report)().await;
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], report.to_string())
        .into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let report = (shown.report)().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], prometheus(&report)).into_response()
}

/// One long response of fragmented MP4, from the newest segment start on.
async fn stream(State(shown): State<Shown>) -> Response {
    let reader = shown.live.reader();
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

async fn hls(State(shown): State<Shown>, Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let blocked = tokio::time::timeout(BLOCK_MAX, hls_answer(&shown.live, &name, query.as_deref())).await;
    blocked.unwrap_or_else(|_| (StatusCode::SERVICE_UNAVAILABLE, "nothing came in time").into_response())
}

async fn hls_answer(live: &Live, name: &str, query: Option<&str>) -> Response {
    let mut changes = live.changes();
    loop {
        changes.borrow_and_update();
        let answer = match name {
            MULTIVARIANT_URI => live.playlist(Playlist::multivariant_playlist).map(playlist_response),
            MEDIA_URI => match Query::parse(query.unwrap_or_default()) {
                Err(why) => Some((StatusCode::BAD_REQUEST, why).into_response()),
                Ok(query) => match live.playlist(|playlist| playlist.media_playlist(&query)) {
                    PlaylistAnswer::Ready(text) => Some(playlist_response(text)),
                    PlaylistAnswer::Wait => None,
                    PlaylistAnswer::BadRequest(why) => Some((StatusCode::BAD_REQUEST, why).into_response()),
                },
            },
            _ => match Resource::parse(name) {
                None => Some(StatusCode::NOT_FOUND.into_response()),
                Some(resource) => match live.playlist(|playlist| playlist.resource(resource)) {
                    ResourceAnswer::Ready(pieces) => Some(media_response(&pieces)),
                    ResourceAnswer::Wait => None,
                    ResourceAnswer::NotFound => Some(StatusCode::NOT_FOUND.into_response()),
                },
            },
        };
        if let Some(answer) = answer {
            return answer;
        }
        if changes.changed().await.is_err() {
            return StatusCode::NOT_FOUND.into_response();
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_this_machine_by_number_is_its_own_host() {
        for (host, own) in [
            ("127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("localhost", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:80", false),
        ] {
            assert_eq!(is_own_host(&headers(&[("host", host)])), own, "{host}");
        }
        assert!(!is_own_host(&HeaderMap::new()));
    }

    #[test]
    fn other_origins_are_foreign() {
        let host = ("host", "127.0.0.1:1");
        assert!(!is_foreign(&headers(&[host])));
        assert!(!is_foreign(&headers(&[
            host,
            ("origin", "http://127.0.0.1:1"),
            ("sec-fetch-site", "same-origin")
        ])));
        assert!(is_foreign(&headers(&[host, ("origin", "http://127.0.0.1:2")])));
        assert!(is_foreign(&headers(&[host, ("origin", "null")])));
        assert!(is_foreign(&headers(&[host, ("sec-fetch-site", "cross-site")])));
    }
}
