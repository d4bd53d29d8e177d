//! What strangers and CDNs may read of an edge: signed parts, where the live edge is, and plain LL-HLS. Nothing else of the
//! node: no control, no token, nothing that changes anything.
//!
//! Addresses, headers and limits: `docs/http.md`, *An edge*.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use caudal_media::hls::{MEDIA_URI, MULTIVARIANT_URI, Playlist, add_reports, number};
use caudal_proto::hybrid::part::PartId;
use caudal_proto::id::{RENDITION_ID_END, RenditionId};
use caudal_tracker::page::protect;
use futures_util::FutureExt as _;
use futures_util::stream;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::object::{self, Object, SHORT};
use super::shelf::{Lack, Served, Shelf};
use crate::NodeError;
use crate::http::media::{Found, hls_found};
use crate::http::serve;
use crate::live::Live;
use crate::network::random;

/// Most connections at a time …
pub const CONNECTIONS_MAX: usize = 1024;
/// … and of one host: it leaves others connections, and places among the requests that wait, one for each connection.
const CONNECTIONS_OF_ONE_MAX: usize = CONNECTIONS_MAX / 2;
/// Type of a part's signed chunks.
const PART_TYPE: &str = "application/octet-stream";
/// Who is told to come again does so after this long, s.
const RETRY_AFTER_S: &str = "1";
/// The multivariant playlist waits so long for the first rendition where others are there.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// A bound server that does not serve yet.
#[derive(Debug)]
pub struct EdgeServer {
    listener: TcpListener,
    addr: SocketAddr,
}

#[derive(Debug, Clone)]
struct Shown {
    shelf: Arc<Shelf>,
    live: Arc<Live>,
    /// Names this run: HLS counts segments anew in each, and what was cached of another must not be taken for its own.
    run: Arc<str>,
}

impl EdgeServer {
    /// Binds.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(addr: SocketAddr) -> Result<Self, NodeError> {
        let failed = |source| NodeError::Listen { addr, what: "viewers", flag: "--listen", source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves for as long as the node lives.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn serve(self, shelf: Arc<Shelf>, live: Arc<Live>) -> Result<(), NodeError> {
        let run = format!("{:08x}", u32::from_be_bytes(random()?)).into();
        let router = router(Shown { shelf, live, run });
        let limits = serve::Limits { all: CONNECTIONS_MAX, of_one: CONNECTIONS_OF_ONE_MAX };
        tokio::spawn(serve::accept(self.listener, limits, move |request| {
            router.clone().oneshot(request.map(Body::new))
        }));
        Ok(())
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/v1/channels/{id}/edge", get(first_edge))
        .route("/v1/channels/{id}/parts/{name}", get(first_part))
        .route("/v1/channels/{id}/renditions/{rendition}/edge", get(edge))
        .route("/v1/channels/{id}/renditions/{rendition}/parts/{name}", get(part))
        .route("/v1/channels/{id}/hls/{name}", get(hls_front))
        .route("/v1/channels/{id}/hls/{run}/{name}", get(first_hls))
        .route("/v1/channels/{id}/hls/{run}/{rendition}/{name}", get(hls))
        .fallback(nothing)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&shown.shelf), public))
        .with_state(shown)
}

/// Other sites may read all of it, and browsers execute none of it.
async fn public(State(shelf): State<Arc<Shelf>>, request: Request, next: Next) -> Response {
    let is_get = *request.method() == Method::GET;
    let mut response = if *request.method() == Method::OPTIONS {
        let allowed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Range, If-None-Match, If-Range"),
            (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        ];
        (StatusCode::NO_CONTENT, allowed).into_response()
    } else if is_misspelled(request.uri()) {
        nothing().await
    } else {
        next.run(request).await
    };
    Served::add(&shelf.served.requests, 1);
    if is_get && response.status().is_success() {
        let said =
            response.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        Served::add(&shelf.served.bytes, said.or(response.body().size_hint().exact()).unwrap_or(0));
    }
    let headers = response.headers_mut();
    protect(headers);
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Content-Length, Content-Range, ETag"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
        (header::HeaderName::from_static("timing-allow-origin"), "*"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What never changes has one spelling, or caches keep it many times over: no address needs an escape, and none but a playlist's a
/// query.
fn is_misspelled(uri: &Uri) -> bool {
    uri.path().contains('%') || uri.query().is_some() && !uri.path().ends_with(".m3u8")
}

/// Words, kept as shortly as what stands behind the address may need to come.
fn words(status: StatusCode, caching: &'static str, words: &str) -> Response {
    let kind = "text/plain; charset=utf-8";
    let headers = [(header::CACHE_CONTROL, caching), (header::CONTENT_TYPE, kind)];
    (status, headers, format!("{words}\n")).into_response()
}

async fn nothing() -> Response {
    words(StatusCode::NOT_FOUND, SHORT, "there is nothing here; see docs/http.md, An edge")
}

async fn other_method() -> Response {
    let mut response =
        words(StatusCode::METHOD_NOT_ALLOWED, "no-store", "an edge can only be read: GET or HEAD");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}

fn busy() -> Response {
    let mut response = words(StatusCode::SERVICE_UNAVAILABLE, "no-store", "too many wait here; try again");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    response
}

fn elsewhere(location: &str) -> Response {
    let mut response = words(StatusCode::TEMPORARY_REDIRECT, SHORT, location);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

impl Shown {
    fn refusal(&self, id: &str) -> Option<Response> {
        let channel = self.shelf.channel().to_string();
        let why = || format!("this edge has another channel: {channel}");
        (id != channel).then(|| words(StatusCode::NOT_FOUND, SHORT, &why()))
    }

    fn refusal_of_run(&self, id: &str, run: &str) -> Option<Response> {
        let why = "this edge was restarted: open the playlist anew";
        let other_run = || (*run != *self.run).then(|| words(StatusCode::NOT_FOUND, SHORT, why));
        self.refusal(id).or_else(other_run)
    }
}

async fn front(State(shown): State<Shown>) -> Response {
    let channel = shown.shelf.channel();
    let text = format!(
        "An edge of a Caudal channel.\n\nPlay it:\n  /v1/channels/{channel}/hls/{MULTIVARIANT_URI}   (LL-HLS: any player)\n\nFor programs:\n  \
         /v1/channels/{channel}/edge\n  /v1/channels/{channel}/parts/EPOCH-N\n\nEach rendition beside the first:\n  \
         /v1/channels/{channel}/renditions/R/edge\n  /v1/channels/{channel}/renditions/R/parts/EPOCH-N"
    );
    words(StatusCode::OK, SHORT, &text)
}

async fn first_edge(State(shown): State<Shown>, Path(id): Path<String>) -> Response {
    edge_of(&shown, &id, Some(RenditionId(0)))
}

async fn edge(State(shown): State<Shown>, Path((id, rendition)): Path<(String, String)>) -> Response {
    edge_of(&shown, &id, read_rendition(&rendition))
}

fn edge_of(shown: &Shown, id: &str, rendition: Option<RenditionId>) -> Response {
    if let Some(refusal) = shown.refusal(id) {
        return refusal;
    }
    let Some(rendition) = rendition else { return no_rendition() };
    let Some(json) = shown.shelf.view(rendition).and_then(|view| serde_json::to_string(&view).ok()) else {
        return words(
            StatusCode::NOT_FOUND,
            SHORT,
            "nothing has come yet: the broadcast has not begun, or cannot be reached",
        );
    };
    let headers = [(header::CACHE_CONTROL, SHORT), (header::CONTENT_TYPE, "application/json")];
    (headers, json).into_response()
}

async fn first_part(
    State(shown): State<Shown>,
    Path((id, name)): Path<(String, String)>,
    method: Method,
    asked: HeaderMap,
) -> Response {
    part_of(&shown, &id, Some(RenditionId(0)), &name, (method, asked)).await
}

async fn part(
    State(shown): State<Shown>,
    Path((id, rendition, name)): Path<(String, String, String)>,
    method: Method,
    asked: HeaderMap,
) -> Response {
    part_of(&shown, &id, read_rendition(&rendition), &name, (method, asked)).await
}

async fn part_of(
    shown: &Shown,
    id: &str,
    rendition: Option<RenditionId>,
    name: &str,
    (method, asked): (Method, HeaderMap),
) -> Response {
    if let Some(refusal) = shown.refusal(id) {
        return refusal;
    }
    let Some(rendition) = rendition else { return no_rendition() };
    let wanted = match read_name(name) {
        Some((Some(epoch), part)) => PartId { rendition, epoch, part },
        Some((None, part)) => {
            // A number alone means another part in the next broadcast: it leads to the name that means one for ever.
            return match shown.shelf.epoch() {
                Some(epoch) => elsewhere(&format!("{epoch}-{part}")),
                None => words(StatusCode::NOT_FOUND, SHORT, "the broadcast has not begun"),
            };
        }
        None => {
            let why = "a part is called EPOCH-N: the broadcast's epoch and the part's number";
            return words(StatusCode::NOT_FOUND, SHORT, why);
        }
    };
    let pieces = match shown.shelf.part(wanted).await {
        Ok(pieces) => pieces,
        Err(Lack::Gone) => return words(StatusCode::NOT_FOUND, SHORT, "that part is not here"),
        // Whoever asks too early must not make caches say so to those who ask in time.
        Err(Lack::Early) => return words(StatusCode::NOT_FOUND, "no-store", "that part is not here yet"),
        Err(Lack::Busy) => return busy(),
    };
    let tag = match rendition.0 {
        0 => format!("{}-{}", wanted.epoch, wanted.part),
        other => format!("r{other}-{}-{}", wanted.epoch, wanted.part),
    };
    let object = Object { pieces, tag, content_type: PART_TYPE };
    let response = object::answer(&object, &method, &asked);
    if method == Method::GET && response.status().is_success() {
        Served::add(&shown.shelf.served.parts, 1);
    }
    response
}

/// `EPOCH-N`, or `N` alone. One way to write each number: a CDN keeps what has two names twice.
fn read_name(name: &str) -> Option<(Option<u64>, u64)> {
    match name.split_once('-') {
        Some((epoch, part)) => Some((Some(number(epoch)?), number(part)?)),
        None => Some((None, number(name)?)),
    }
}

/// A rendition beside the first, whose addresses name none.
fn read_rendition(text: &str) -> Option<RenditionId> {
    let id = number(text).and_then(|id| u8::try_from(id).ok())?;
    (1..RENDITION_ID_END).contains(&id).then_some(RenditionId(id))
}

fn no_rendition() -> Response {
    let why = "a rendition is called by its number, 1 to 63; the first one's addresses name none";
    words(StatusCode::NOT_FOUND, SHORT, why)
}

async fn hls_front(State(shown): State<Shown>, Path((id, name)): Path<(String, String)>) -> Response {
    if let Some(refusal) = shown.refusal(&id) {
        return refusal;
    }
    if name != MULTIVARIANT_URI {
        return nothing().await;
    }
    elsewhere(&format!("{}/{MULTIVARIANT_URI}", shown.run))
}

async fn first_hls(
    State(shown): State<Shown>,
    Path((id, run, name)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    asked: HeaderMap,
) -> Response {
    if let Some(refusal) = shown.refusal_of_run(&id, &run) {
        return refusal;
    }
    let (variants, first) = (&shown.shelf.variants, &shown.live);
    let answer = hls_of(&shown, (RenditionId(0), first), &name, query.as_deref(), (method, asked), &run);
    if name != MULTIVARIANT_URI {
        return answer.await;
    }
    // What is waited for is the first rendition; with several, all that are there are named, whether it is among them or not.
    let answer = if variants.playlist(first).is_some() {
        tokio::time::timeout(FIRST_WAIT, answer).await.unwrap_or_else(|_| busy())
    } else {
        answer.await
    };
    variants.playlist(first).map_or(answer, playlist)
}

async fn hls(
    State(shown): State<Shown>,
    Path((id, run, rendition, name)): Path<(String, String, String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    asked: HeaderMap,
) -> Response {
    if let Some(refusal) = shown.refusal_of_run(&id, &run) {
        return refusal;
    }
    let found = read_rendition(&rendition).and_then(|id| Some((id, shown.shelf.variants.live(id)?)));
    let Some((id, live)) = found else {
        return words(
            StatusCode::NOT_FOUND,
            SHORT,
            "the channel has no such rendition, or it has not come yet",
        );
    };
    // All are named in one place.
    if name == MULTIVARIANT_URI {
        return nothing().await;
    }
    let within = format!("{run}-r{rendition}");
    hls_of(&shown, (id, &live), &name, query.as_deref(), (method, asked), &within).await
}

fn playlist(text: String) -> Response {
    let kind = "application/vnd.apple.mpegurl";
    ([(header::CACHE_CONTROL, SHORT), (header::CONTENT_TYPE, kind)], text).into_response()
}

/// `within` is what a name means something in.
async fn hls_of(
    shown: &Shown,
    (rendition, live): (RenditionId, &Live),
    name: &str,
    query: Option<&str>,
    (method, asked): (Method, HeaderMap),
    within: &str,
) -> Response {
    let mut found = pin!(hls_found(live, name, query));
    // What is there takes no place among those that wait.
    let found = match found.as_mut().now_or_never() {
        Some(found) => found,
        None => {
            let Some(_waits) = shown.shelf.may_wait() else { return busy() };
            found.await
        }
    };
    match found {
        Found::Playlist(mut text) => {
            if name == MEDIA_URI && live.playlist(Playlist::last_part).is_some() {
                add_reports(&mut text, &shown.shelf.variants.reports(rendition, &shown.live));
            }
            playlist(text)
        }
        Found::Media { pieces, is_final } => {
            let object = Object { pieces, tag: format!("{within}-{name}"), content_type: "video/mp4" };
            if is_final {
                return object::answer(&object, &method, &asked);
            }
            // It grows: neither ranges of it nor copies are the same a moment later.
            growing(object, &method)
        }
        Found::BadRequest(why) => words(StatusCode::BAD_REQUEST, "no-store", why),
        Found::Nothing => words(StatusCode::NOT_FOUND, SHORT, "that is not here"),
        Found::Late => busy(),
    }
}

/// Something as far as it goes now. Its pieces are shared: an answer that nobody reads holds no copy.
fn growing(object: Object, method: &Method) -> Response {
    let len: usize = object.pieces.iter().map(Bytes::len).sum();
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_TYPE, HeaderValue::from_static(object.content_type)),
        (header::CONTENT_LENGTH, HeaderValue::from(len)),
    ];
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(stream::iter(object.pieces.into_iter().map(Ok::<_, Infallible>)))
    };
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {

    use axum::body::to_bytes;

    use super::super::shelf::tests::{filled, filled_with};
    use super::*;

    fn shown() -> (Router, String) {
        let (shelf, _) = filled(7, 12);
        let base = format!("/v1/channels/{}", shelf.channel());
        let live = Live::new(Duration::from_secs(60));
        (router(Shown { shelf, live, run: "0badcafe".into() }), base)
    }

    async fn ask(router: &Router, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path).header("host", "cdn.example");
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    fn says(response: &Response, name: header::HeaderName) -> &str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn parts_are_for_ever_and_what_is_not_there_is_not() {
        let (router, base) = shown();
        let there = ask(&router, Method::GET, &format!("{base}/parts/7-3")).await;
        assert_eq!(there.status(), StatusCode::OK);
        assert_eq!(says(&there, header::CACHE_CONTROL), "public, max-age=31536000, immutable");
        assert_eq!(says(&there, header::ETAG), "\"7-3\"");
        assert_eq!(says(&there, header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert_eq!(to_bytes(there.into_body(), 10_000).await.unwrap().len(), 3 * 1108);
        for gone in [
            "8-3",
            "07-3",
            "7-03",
            "7-",
            "-3",
            "+7-3",
            "x",
            "7-3-3",
            "18446744073709551616",
            "%37-3",
            "7%2D3",
            "7-%33",
        ] {
            let gone = ask(&router, Method::GET, &format!("{base}/parts/{gone}")).await;
            assert_eq!((gone.status(), says(&gone, header::CACHE_CONTROL)), (StatusCode::NOT_FOUND, SHORT));
        }
        for early in ["7-99", "7-18446744073709551615"] {
            let early = ask(&router, Method::GET, &format!("{base}/parts/{early}")).await;
            assert_eq!((early.status().as_u16(), says(&early, header::CACHE_CONTROL)), (404, "no-store"));
        }
        let named = ask(&router, Method::GET, &format!("{base}/parts/3")).await;
        assert_eq!((named.status().as_u16(), says(&named, header::LOCATION)), (307, "7-3"));
        let other = ask(&router, Method::GET, &format!("/v1/channels/{}/parts/7-3", "a".repeat(52))).await;
        assert_eq!(other.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn each_rendition_has_addresses_of_its_own_and_the_first_one_one_only() {
        let (shelf, _) = filled(7, 12);
        let parts = filled_with(&shelf, 7, RenditionId(2), 7);
        let base = format!("/v1/channels/{}", shelf.channel());
        let live = Live::new(Duration::from_secs(60));
        let other = Live::new(Duration::from_secs(60));
        other.push(crate::record::tests::part());
        shelf.variants.add(RenditionId(2), other);
        let router = router(Shown { shelf, live, run: "0badcafe".into() });
        let there = ask(&router, Method::GET, &format!("{base}/renditions/2/parts/7-3")).await;
        assert_eq!(there.status(), StatusCode::OK);
        assert_eq!(says(&there, header::CACHE_CONTROL), "public, max-age=31536000, immutable");
        assert_eq!(says(&there, header::ETAG), "\"r2-7-3\"");
        let signed: Vec<u8> = parts[3].iter().flat_map(|chunk| chunk.encoded().to_vec()).collect();
        assert_eq!(to_bytes(there.into_body(), 10_000).await.unwrap(), signed);
        let named = ask(&router, Method::GET, &format!("{base}/renditions/2/parts/3")).await;
        assert_eq!((named.status().as_u16(), says(&named, header::LOCATION)), (307, "7-3"));
        let edge = ask(&router, Method::GET, &format!("{base}/renditions/2/edge")).await;
        assert_eq!((edge.status(), says(&edge, header::CACHE_CONTROL)), (StatusCode::OK, SHORT));
        let view: serde_json::Value =
            serde_json::from_slice(&to_bytes(edge.into_body(), 10_000).await.unwrap()).unwrap();
        assert_eq!((&view["newest"], &view["starts"][1]["part"]), (&5.into(), &5.into()), "{view}");
        let init = ask(&router, Method::GET, &format!("{base}/hls/0badcafe/2/init-0.mp4")).await;
        assert_eq!(
            (init.status(), says(&init, header::ETAG)),
            (StatusCode::OK, "\"0badcafe-r2-init-0.mp4\"")
        );
        for gone in [
            "renditions/0/parts/7-3",
            "renditions/02/parts/7-3",
            "renditions/64/parts/7-3",
            "renditions/x/edge",
            "renditions/0/edge",
            "renditions/1/edge",
            "renditions/1/parts/7-3",
            "hls/0badcafe/0/live.m3u8",
            "hls/0badcafe/1/live.m3u8",
            "hls/0badcafe/02/init-0.mp4",
            "hls/0badcafe/2/index.m3u8",
            "hls/deadbeef/2/live.m3u8",
        ] {
            let gone = ask(&router, Method::GET, &format!("{base}/{gone}")).await;
            assert_eq!((gone.status(), says(&gone, header::CACHE_CONTROL)), (StatusCode::NOT_FOUND, SHORT));
        }
    }

    #[tokio::test]
    async fn the_edge_is_kept_for_a_second_at_most_and_names_this_run() {
        let (router, base) = shown();
        let edge = ask(&router, Method::GET, &format!("{base}/edge")).await;
        assert_eq!((edge.status(), says(&edge, header::CACHE_CONTROL)), (StatusCode::OK, SHORT));
        let hls = ask(&router, Method::GET, &format!("{base}/hls/index.m3u8")).await;
        assert_eq!((hls.status().as_u16(), says(&hls, header::LOCATION)), (307, "0badcafe/index.m3u8"));
        let old = ask(&router, Method::GET, &format!("{base}/hls/deadbeef/part-0.0.m4s")).await;
        assert_eq!(old.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn each_address_has_one_spelling() {
        let (router, base) = shown();
        assert_eq!(ask(&router, Method::GET, &format!("{base}/parts/7-3")).await.status(), StatusCode::OK);
        let (start, last) = base.split_at(base.len() - 1);
        let id = format!("{start}%{:02x}", last.as_bytes()[0]);
        for other in [
            format!("{id}/parts/7-3"),
            format!("{id}/edge"),
            format!("{base}/parts/%33"),
            format!("{base}/parts/7-3?x=1"),
            format!("{base}/edge?"),
            format!("{base}/hls/%30badcafe/index.m3u8"),
        ] {
            let other = ask(&router, Method::GET, &other).await;
            assert_eq!((other.status(), says(&other, header::CACHE_CONTROL)), (StatusCode::NOT_FOUND, SHORT));
        }
    }

    #[tokio::test]
    async fn only_who_waits_takes_a_place() {
        let (shelf, _) = filled(7, 12);
        let base = format!("/v1/channels/{}/hls/0badcafe", shelf.channel());
        let live = Live::new(Duration::from_secs(60));
        let router = router(Shown { shelf: Arc::clone(&shelf), live, run: "0badcafe".into() });
        let places: Vec<_> = std::iter::from_fn(|| shelf.may_wait()).collect();
        // No playlist yet: that is waited for.
        let waits = ask(&router, Method::GET, &format!("{base}/index.m3u8")).await;
        assert_eq!((waits.status().as_u16(), says(&waits, header::RETRY_AFTER)), (503, RETRY_AFTER_S));
        // What can be answered at once is.
        for now in ["nonsense", "media.m3u8?_HLS_msn=x"] {
            let now = ask(&router, Method::GET, &format!("{base}/{now}")).await;
            assert!(now.status().is_client_error(), "{}", now.status());
        }
        drop(places);
    }

    #[tokio::test]
    async fn a_growing_segment_is_sent_in_shared_pieces_and_a_head_has_no_body() {
        let piece = Bytes::from(vec![7; 100_000]);
        let object = || Object {
            pieces: vec![piece.clone(), piece.clone()],
            tag: String::new(),
            content_type: "video/mp4",
        };
        let head = growing(object(), &Method::HEAD);
        assert_eq!(
            (says(&head, header::CONTENT_LENGTH), says(&head, header::CACHE_CONTROL)),
            ("200000", "no-store")
        );
        assert!(to_bytes(head.into_body(), 10).await.unwrap().is_empty());
        let all = growing(object(), &Method::GET);
        assert_eq!(says(&all, header::CONTENT_LENGTH), "200000");
        let mut frames = all.into_body().into_data_stream();
        let first = futures_util::StreamExt::next(&mut frames).await.unwrap().unwrap();
        assert_eq!((first.len(), first.as_ptr()), (piece.len(), piece.as_ptr()), "it is no copy");
    }

    #[tokio::test]
    async fn nothing_of_the_node_is_there_and_nothing_can_be_changed() {
        let (router, base) = shown();
        for path in [
            "/api/v1/node",
            "/api/v1/stats",
            "/api/v1/sessions",
            "/metrics",
            "/live.mp4",
            "/t/x/",
            "/assets/x",
        ] {
            assert_eq!(ask(&router, Method::GET, path).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let refused = ask(&router, method, &format!("{base}/parts/7-3")).await;
            assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
        }
        let preflight = ask(&router, Method::OPTIONS, &format!("{base}/parts/7-3")).await;
        assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
        assert_eq!(says(&preflight, header::ACCESS_CONTROL_ALLOW_METHODS), "GET, HEAD");
    }
}
