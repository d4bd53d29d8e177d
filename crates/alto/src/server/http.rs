//! The HTTP interface: which path, method and media types (RFC 7285, section 8.3). Decides nothing about maps.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::error::{Problem, plain, unavailable};
use super::site::{Document, Site, Target};
use super::{REQUEST_LEN_MAX, Shared, endpoint, filtered, updates};
use crate::types::media;

/// The other end of the TCP connection, as an extension of a request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub SocketAddr);

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new().fallback(answer).with_state(Arc::clone(shared))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.counts.requests.fetch_add(1, Ordering::Relaxed);
    let mut response = route(&shared, request).await;
    if response.status().is_client_error() {
        shared.counts.refused.fetch_add(1, Ordering::Relaxed);
    }
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        shared.counts.overloaded.fetch_add(1, Ordering::Relaxed);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What a POST is about; the media types are what it accepts and what it gives.
#[derive(Clone, Copy)]
enum Service {
    FilteredNetworkMap,
    FilteredCostMap,
    EndpointProperties,
    EndpointCosts,
    Updates,
}

impl Service {
    fn accepts(self) -> &'static str {
        match self {
            Self::FilteredNetworkMap => media::NETWORK_MAP_FILTER,
            Self::FilteredCostMap => media::COST_MAP_FILTER,
            Self::EndpointProperties => media::ENDPOINT_PROP_PARAMS,
            Self::EndpointCosts => media::ENDPOINT_COST_PARAMS,
            Self::Updates => media::UPDATE_STREAM_PARAMS,
        }
    }

    fn gives(self) -> &'static str {
        match self {
            Self::FilteredNetworkMap => media::NETWORK_MAP,
            Self::FilteredCostMap => media::COST_MAP,
            Self::EndpointProperties => media::ENDPOINT_PROP,
            Self::EndpointCosts => media::ENDPOINT_COST,
            Self::Updates => media::EVENT_STREAM,
        }
    }
}

async fn route(shared: &Arc<Shared>, request: Request) -> Response {
    let site = shared.site();
    let path = request.uri().path();
    match path {
        "/healthz" if request.method() == Method::GET => return "ok\n".into_response(),
        "/metrics" if request.method() == Method::GET => return metrics(shared),
        _ => {}
    }
    let (document, service) = match site.target(path) {
        None => return plain(StatusCode::NOT_FOUND, "there is nothing here; the directory is at /directory"),
        Some(Target::Document(document)) => (Some(document), None),
        Some(Target::NetworkMap(document, _)) => (Some(document), Some(Service::FilteredNetworkMap)),
        Some(Target::FilteredCosts(_)) => (None, Some(Service::FilteredCostMap)),
        Some(Target::EndpointProperties) => (None, Some(Service::EndpointProperties)),
        Some(Target::EndpointCosts) => (None, Some(Service::EndpointCosts)),
        Some(Target::Updates) => (None, Some(Service::Updates)),
    };
    match *request.method() {
        Method::GET | Method::HEAD => {
            if let Some(document) = document {
                let id = document.id.clone();
                return get(shared, &site, &id, request.headers()).await;
            }
        }
        Method::POST => {
            if let Some(service) = service {
                return post(shared, site, service, request).await;
            }
        }
        _ => {}
    }
    let allow = match (document.is_some(), service.is_some()) {
        (true, true) => "GET, HEAD, POST",
        (true, false) => "GET, HEAD",
        _ => "POST",
    };
    let is_question = request.method() == Method::OPTIONS;
    let mut response = if is_question {
        StatusCode::NO_CONTENT.into_response()
    } else {
        plain(StatusCode::METHOD_NOT_ALLOWED, &format!("this resource takes {allow}"))
    };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// A document, or only that the client has it already.
async fn get(shared: &Arc<Shared>, site: &Arc<Site>, id: &str, headers: &HeaderMap) -> Response {
    fn find<'a>(site: &'a Site, id: &str) -> &'a Document {
        site.document(id).unwrap_or(&site.directory)
    }
    let document = find(site, id);
    if !accepts(headers, document.media_type) {
        return not_acceptable(document.media_type);
    }
    let etag = format!("\"{}\"", document.tag);
    let cached = is_cached(headers, &etag);
    let body = if cached {
        Bytes::new()
    } else if document.is_written() {
        document.body()
    } else {
        let (site, id) = (Arc::clone(site), id.to_owned());
        match shared.work(move || find(&site, &id).body()).await {
            Some(body) => body,
            None => return busy(),
        }
    };
    let status = if cached { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if !cached {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(document.media_type));
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    // May be kept, and asked about: network map and cost map of different ages do not fit.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn post(shared: &Arc<Shared>, site: Arc<Site>, service: Service, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !accepts(&parts.headers, service.gives()) {
        return not_acceptable(service.gives());
    }
    if !is_of_type(&parts.headers, service.accepts()) {
        let what = format!("this resource takes {} (in Content-Type)", service.accepts());
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, &what);
    }
    let Some(ClientAddress(peer)) = parts.extensions.get::<ClientAddress>().copied() else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the connection has no address");
    };
    let client = client_ip(shared, peer.ip().to_canonical(), &parts.headers);
    let whole = axum::body::to_bytes(body, REQUEST_LEN_MAX);
    let body = match tokio::time::timeout(shared.limits.body_timeout, whole).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let what = format!("a request has at most {REQUEST_LEN_MAX} bytes, all of which arrive");
            return plain(StatusCode::PAYLOAD_TOO_LARGE, &what);
        }
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the request's body took too long to arrive"),
    };
    if matches!(service, Service::Updates) {
        return updates::respond(shared, &site, &body);
    }
    let path = parts.uri.path().to_owned();
    let Some(done) = shared.work(move || serve(&site, service, &path, client, &body)).await else {
        return busy();
    };
    match done {
        Ok((body, pairs)) => {
            shared.counts.endpoint_pairs.fetch_add(pairs, Ordering::Relaxed);
            let Some(body) = shared.answer(body) else { return busy() };
            (StatusCode::OK, [(header::CONTENT_TYPE, service.gives())], body).into_response()
        }
        Err(problem) => problem.response(),
    }
}

/// The answer, and how many pairs of endpoints it is about.
fn serve(
    site: &Site,
    service: Service,
    path: &str,
    client: IpAddr,
    body: &[u8],
) -> Result<(Vec<u8>, u64), Problem> {
    let alone = |written: Vec<u8>| (written, 0);
    match (service, site.target(path)) {
        (_, Some(Target::NetworkMap(_, map))) => filtered::network_map(map, body).map(alone),
        (_, Some(Target::FilteredCosts(map))) => {
            filtered::cost_map(map, site.cost_constraints, body).map(alone)
        }
        (Service::EndpointProperties, _) => endpoint::properties(site, body).map(alone),
        _ => endpoint::costs(site, client, body),
    }
}

fn busy() -> Response {
    unavailable("the server has too much to do; ask again in a moment")
}

fn not_acceptable(media_type: &str) -> Response {
    plain(StatusCode::NOT_ACCEPTABLE, &format!("this resource is {media_type}; Accept must allow it"))
}

/// The last entry of `X-Forwarded-For` is the one that the trusted proxy itself wrote.
fn client_ip(shared: &Shared, connected: IpAddr, headers: &HeaderMap) -> IpAddr {
    if !shared.config.trusted_proxies.iter().any(|proxy| proxy.to_canonical() == connected) {
        return connected;
    }
    let last = headers.get_all("x-forwarded-for").iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
    last.and_then(|text| text.trim().parse::<IpAddr>().ok()).map_or(connected, |ip| ip.to_canonical())
}

/// Whether `Accept` allows `media_type`; it does where it is not there (RFC 9110, section 12.5.1).
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let own_kind = media_type.split('/').next().unwrap_or_default();
    let mut is_there = false;
    for value in headers.get_all(header::ACCEPT) {
        is_there = true;
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let kind = name.strip_suffix("/*");
            let is_match = name == "*/*"
                || name.eq_ignore_ascii_case(media_type)
                || kind.is_some_and(|kind| own_kind.eq_ignore_ascii_case(kind));
            let quality = parts.find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
            if is_match && quality.is_none_or(|quality| quality > 0.0) {
                return true;
            }
        }
    }
    !is_there
}

fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let name = value.and_then(|value| value.split(';').next());
    name.is_some_and(|name| name.trim().eq_ignore_ascii_case(media_type))
}

/// `If-None-Match` (RFC 9110, section 13.1.2).
fn is_cached(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// For Prometheus.
fn metrics(shared: &Shared) -> Response {
    let counts = &shared.counts;
    let site = shared.site();
    let pids: usize = site.maps.iter().map(|map| map.network.pids().len()).sum();
    let prefixes: usize = site.maps.iter().map(|map| map.network.prefix_count()).sum();
    let rows = [
        ("connections", "gauge", counts.connections.load(Ordering::Relaxed)),
        ("connections_refused_total", "counter", counts.connections_refused.load(Ordering::Relaxed)),
        ("subscribers", "gauge", counts.subscribers.load(Ordering::Relaxed)),
        ("requests_total", "counter", counts.requests.load(Ordering::Relaxed)),
        ("requests_refused_total", "counter", counts.refused.load(Ordering::Relaxed)),
        ("requests_overloaded_total", "counter", counts.overloaded.load(Ordering::Relaxed)),
        ("endpoint_pairs_total", "counter", counts.endpoint_pairs.load(Ordering::Relaxed)),
        ("reloads_total", "counter", counts.reloads.load(Ordering::Relaxed)),
        ("reloads_refused_total", "counter", counts.reloads_refused.load(Ordering::Relaxed)),
        ("pids", "gauge", pids as u64),
        ("prefixes", "gauge", prefixes as u64),
        ("uptime_seconds", "gauge", shared.started.elapsed().as_secs()),
    ];
    let lines = rows.map(|(name, kind, value)| format!("# TYPE alto_{name} {kind}\nalto_{name} {value}\n"));
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, Body::from(lines.concat())).into_response()
}
