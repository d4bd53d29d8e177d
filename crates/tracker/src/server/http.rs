//! The HTTP interface: routes, limits, statuses. Decides nothing about channels or peers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use caudal_alto::server::ClientAddress;
use caudal_proto::id::{ChannelId, IdError};
use serde::{Deserialize, Serialize};

use crate::descriptor::SignedDescriptor;
use crate::message::{Code, Envelope, ErrorBody, REQUEST_LEN_MAX, SIGNATURE_HEADER, Takedown};
use crate::server::Shared;
use crate::server::config::{host, is_exempt};
use crate::server::guard::Asked;
use crate::server::maps::{ALTO_PATH, Maps};
use crate::server::registry::refuse;
use crate::server::sse::{self, Topic};
use crate::server::verify::{Problem, verify};

/// Channels on a page unless asked otherwise.
pub(crate) const PAGE_DEFAULT: usize = 50;
/// Most channels on a page.
pub(crate) const PAGE_MAX: usize = 100;
/// Longest search, bytes.
const QUERY_LEN_MAX: usize = 128;
/// What a client is told to wait when the tracker is full, s.
const RETRY_WHEN_FULL_S: u64 = 30;

/// The other end of the TCP connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected(pub(crate) SocketAddr);

/// The client's address: the connection's, or what a trusted proxy says.
#[derive(Debug, Clone, Copy)]
struct ClientIp(IpAddr);

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let own_map = shared.maps.as_ref().and_then(Maps::router);
    let router = own_map.map_or_else(Router::new, |map| Router::new().nest_service(ALTO_PATH, map));
    router
        .route("/v1/ppstp", post(ppstp))
        .route("/v1/channels", get(channels))
        .route("/v1/channels/events", get(directory_events))
        .route("/v1/channels/{id}", get(channel).put(put_channel))
        .route("/v1/channels/{id}/events", get(channel_events))
        .route("/metrics", get(metrics))
        .route("/", get(front))
        .route(
            "/icon.svg",
            get(|State(shared): State<Arc<Shared>>| async move { shared.page.answer("icon.svg") }),
        )
        .route("/assets/{name}", get(asset))
        .route("/api/v1/node", get(node))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async {
            error(StatusCode::NOT_FOUND, Code::BadRequest, "there is nothing here; see docs/tracker.md")
        })
        .method_not_allowed_fallback(|| async {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::BadRequest,
                "this address takes another method; see docs/tracker.md",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(shared), admit))
        .with_state(Arc::clone(shared))
}

/// Before anything else: who asks, and not too often. After: what browsers may do with the answer.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = answer(&shared, request, next).await;
    let headers = response.headers_mut();
    crate::page::protect(headers);
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn answer(shared: &Shared, mut request: Request, next: Next) -> Response {
    let Some(Connected(peer)) = request.extensions().get::<Connected>().copied() else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "the connection has no address");
    };
    let ip = client_ip(shared, peer.ip().to_canonical(), request.headers());
    if !is_exempt(ip, shared.lan)
        && let Err(wait_ms) = shared.take_token(host(ip))
    {
        shared.metrics.rate_limited.fetch_add(1, Ordering::Relaxed);
        let mut response =
            error(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, "asked too often; wait a little");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1000)));
        return response;
    }
    let asked = Asked {
        method: request.method(),
        path: request.uri().path(),
        headers: request.headers(),
        proxied: is_proxy(shared, peer.ip().to_canonical()),
    };
    if let Some(why) = shared.guard.refusal(asked) {
        shared.metrics.refused(Code::Forbidden);
        return error(StatusCode::FORBIDDEN, Code::Forbidden, why);
    }
    request.extensions_mut().insert(ClientIp(ip));
    request.extensions_mut().insert(ClientAddress(SocketAddr::new(ip, peer.port())));
    next.run(request).await
}

fn is_proxy(shared: &Shared, connected: IpAddr) -> bool {
    shared.trusted_proxies.iter().any(|proxy| proxy.to_canonical() == connected)
}

/// The last entry of `X-Forwarded-For` is the one that the trusted proxy itself wrote.
fn client_ip(shared: &Shared, connected: IpAddr, headers: &HeaderMap) -> IpAddr {
    if !is_proxy(shared, connected) {
        return connected;
    }
    let last = headers.get_all("x-forwarded-for").iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
    last.and_then(|text| text.trim().parse::<IpAddr>().ok()).map_or(connected, |ip| ip.to_canonical())
}

async fn ppstp(
    State(shared): State<Arc<Shared>>,
    Extension(ClientIp(ip)): Extension<ClientIp>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let signature = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok());
    let verified = match read(&shared, body).await.and_then(|body| verify(&body, signature)) {
        Ok(verified) => verified,
        Err(problem) => {
            shared.metrics.refused(problem.code);
            let mut answer = shared.with(|registry, now| registry.response(now, None));
            refuse(&mut answer, &problem);
            return ppstp_response(answer);
        }
    };
    shared.metrics.request(verified.request.request_type);
    let answer = shared.with(|registry, now| registry.handle(now, ip, &verified));
    if answer.error_code != 0 {
        shared.metrics.refused(Code::from_number(answer.error_code));
    }
    ppstp_response(answer)
}

fn ppstp_response(answer: crate::message::Response) -> Response {
    let code = Code::from_number(answer.error_code);
    let mut response = json(status(code), &Envelope { body: answer });
    if code == Code::Unavailable {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_WHEN_FULL_S));
    }
    response
}

/// A body within its size and time.
async fn read(shared: &Shared, body: Body) -> Result<Bytes, Problem> {
    let whole = axum::body::to_bytes(body, REQUEST_LEN_MAX);
    match tokio::time::timeout(shared.limits.body_timeout(), whole).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Problem::new(
            Code::BadRequest,
            format!("a request has at most {REQUEST_LEN_MAX} bytes, all of which arrive"),
        )),
        Err(_) => Err(Problem::new(Code::BadRequest, "the request's body took too long to arrive")),
    }
}

/// What `GET /v1/channels` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    #[serde(default)]
    q: String,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
}

async fn channels(
    State(shared): State<Arc<Shared>>,
    search: Result<Query<Search>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(search)) = search else {
        let message = "the query may have q (text), limit (1 to 100) and offset (channels to skip)";
        return error(StatusCode::BAD_REQUEST, Code::BadRequest, message);
    };
    if search.q.len() > QUERY_LEN_MAX {
        return error(StatusCode::BAD_REQUEST, Code::BadRequest, "q has at most 128 bytes");
    }
    let limit = search.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    json(StatusCode::OK, &shared.page(&search.q, search.offset, limit))
}

async fn channel(State(shared): State<Arc<Shared>>, id: ChannelPath) -> Response {
    let id = match channel_id(id) {
        Ok(id) => id,
        Err(wrong) => return bad_id(wrong),
    };
    match shared.with(|registry, now| registry.channel(now, &id)) {
        Some(entry) => match entry.takedown {
            Some(takedown) => refused(&Problem::new(Code::TakenDown, takedown.reason)),
            None => json(StatusCode::OK, &entry),
        },
        None => error(StatusCode::NOT_FOUND, Code::UnknownPeer, "nobody is in this channel at this tracker"),
    }
}

async fn put_channel(State(shared): State<Arc<Shared>>, id: ChannelPath, body: Body) -> Response {
    let id = match channel_id(id) {
        Ok(id) => id,
        Err(wrong) => return bad_id(wrong),
    };
    let opened = read(&shared, body).await.and_then(|body| {
        let signed: SignedDescriptor =
            serde_json::from_slice(&body).map_err(|wrong| Problem::new(Code::BadRequest, wrong))?;
        let descriptor = signed.open(&id).map_err(|wrong| {
            let signature = wrong == crate::descriptor::DescriptorError::Signature;
            let code = if signature { Code::AuthenticationRequired } else { Code::BadRequest };
            Problem::new(code, wrong)
        })?;
        Ok((signed, descriptor))
    });
    let outcome = opened.and_then(|(signed, descriptor)| {
        shared.with(|registry, now| registry.put_descriptor(now, &id, signed, descriptor))
    });
    match outcome {
        Ok(entry) => json(StatusCode::OK, &entry),
        Err(problem) => {
            shared.metrics.refused(problem.code);
            refused(&problem)
        }
    }
}

async fn directory_events(State(shared): State<Arc<Shared>>) -> Response {
    sse::respond(&shared, Topic::Directory)
}

async fn channel_events(State(shared): State<Arc<Shared>>, id: ChannelPath) -> Response {
    match channel_id(id) {
        Ok(id) => sse::respond(&shared, Topic::Channel(id)),
        Err(wrong) => bad_id(wrong),
    }
}

/// The page, or for people without it where the channels are.
async fn front(State(shared): State<Arc<Shared>>) -> Response {
    if shared.page.is_there() {
        return shared.page.answer("");
    }
    let text = "A Caudal tracker. This program was built without its page; one that has it is built by: cargo xtask web, then \
                cargo build --release.\n\nChannels:\n  /v1/channels\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

async fn asset(
    State(shared): State<Arc<Shared>>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Response {
    match name {
        Ok(Path(name)) => shared.page.answer(&format!("assets/{name}")),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What the page needs to know of its server (`docs/http.md`).
async fn node(State(shared): State<Arc<Shared>>) -> Response {
    let about = serde_json::json!({
        "schema": 1, "role": "tracker", "version": shared.page.version, "commit": shared.page.commit,
        "can": { "watch": false, "desk": false }, "channels": "/v1/channels/events", "sessions": [],
    });
    json(StatusCode::OK, &about)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let totals = shared.with(|registry, _| registry.totals());
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let map = shared.maps.as_ref().map(Maps::state);
    (headers, shared.metrics.render(&totals, map.as_ref())).into_response()
}

/// A path's `{id}`, which may not even be UTF-8.
type ChannelPath = Result<Path<String>, axum::extract::rejection::PathRejection>;

fn channel_id(path: ChannelPath) -> Result<ChannelId, IdError> {
    path.map_err(|_| IdError)?.0.parse()
}

fn bad_id(wrong: IdError) -> Response {
    error(StatusCode::BAD_REQUEST, Code::BadRequest, &format!("channel id: {wrong}"))
}

pub(crate) fn unavailable(message: &str) -> Response {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_WHEN_FULL_S));
    response
}

fn refused(problem: &Problem) -> Response {
    let takedown = (problem.code == Code::TakenDown).then(|| Takedown { reason: problem.message.clone() });
    let body = ErrorBody { error_code: problem.code.number(), error: problem.message.clone(), takedown };
    json(status(problem.code), &body)
}

fn error(status: StatusCode, code: Code, message: &str) -> Response {
    json(status, &ErrorBody { error_code: code.number(), error: message.to_owned(), takedown: None })
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::BAD_REQUEST)
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
