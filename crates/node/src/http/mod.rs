//! What a player, a page and Prometheus see of a node: the page, sessions, events, HLS, the streaming response, stats, metrics.
//!
//! Only requests that mean this server are answered (DNS rebinding), and what changes anything needs the token. Connections are
//! bounded, and slow clients are cut. The routes, their shapes and their errors: `docs/http.md`.
//!
//! | module | owns |
//! |---|---|
//! | `guard`, [`token`](Token) | who is answered |
//! | `page` | the page, or what to do where there is none |
//! | `api` | sessions, the desk, stats, metrics |
//! | `events` | server-sent events: reports, the list of channels |
//! | `media` | what players read |
//! | `serve` | connections and their limits |

mod api;
mod events;
mod guard;
pub(crate) mod media;
mod page;
pub(crate) mod serve;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{delete, get, post};
use caudal_tracker::page::Page;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::NodeError;
use crate::desk::Desk;
use crate::directory::Directory;
use crate::network::reachable;
use crate::sessions::Sessions;

pub use token::Token;

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 128;
/// Most streams of events at a time.
const EVENTS_MAX: usize = 32;
/// Longest request body: a link and some.
const BODY_LEN_MAX: usize = 8 * 1024;

/// What the server shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// `viewer` or `source`.
    pub role: &'static str,
    /// What stands on the front page where there is no page.
    pub title: String,
    /// The page.
    pub page: Page,
    /// The channels of this node.
    pub sessions: Arc<Sessions>,
    /// The list of channels; none: this node shows none.
    pub directory: Option<Arc<Directory>>,
    /// The broadcaster's desk.
    pub desk: Option<Arc<Desk>>,
}

/// What handlers see.
#[derive(Debug, Clone)]
struct Served {
    shown: Arc<Shown>,
    /// As in `shown`.
    sessions: Arc<Sessions>,
    token: Token,
    is_open: bool,
    events: Arc<Semaphore>,
}

/// A bound server that does not serve yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    addr: SocketAddr,
    token: Token,
}

impl HttpServer {
    /// Binds, and makes the token.
    async fn bind(addr: SocketAddr, flag: &'static str) -> Result<Self, NodeError> {
        let failed = |source| NodeError::Listen { addr, what: "the page and players", flag, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, addr, token: Token::new()? })
    }

    /// Binds to `addr`; without one, to `port` of this computer, or to a free port where that is taken. What a browser remembers
    /// of a page hangs on the port. `flag` is the option by which a person chooses another.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind_or(addr: Option<SocketAddr>, port: u16, flag: &'static str) -> Result<Self, NodeError> {
        if let Some(addr) = addr {
            return Self::bind(addr, flag).await;
        }
        match Self::bind(SocketAddr::from(([127, 0, 0, 1], port)), flag).await {
            Ok(server) => Ok(server),
            Err(_) => Self::bind(SocketAddr::from(([127, 0, 0, 1], 0)), flag).await,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address, such as `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn is_open(&self) -> bool {
        !self.addr.ip().is_loopback()
    }

    /// What players' addresses begin with: the server's own, and where others can connect the token, which they need there.
    pub fn players_url(&self) -> String {
        if !self.is_open() {
            return self.url();
        }
        format!("http://{}{}{}", reachable(self.addr), token::TOKEN_PREFIX, self.token.reveal())
    }

    /// The page's address, with the token.
    pub fn page_url(&self) -> String {
        if self.is_open() {
            return format!("{}/", self.players_url());
        }
        format!("{}/#token={}", self.url(), self.token.reveal())
    }

    /// Serves for as long as the node lives.
    pub fn serve(self, shown: Shown) {
        let (is_open, token) = (self.is_open(), self.token);
        let served = Served {
            sessions: Arc::clone(&shown.sessions),
            shown: Arc::new(shown),
            token: token.clone(),
            is_open,
            events: Arc::new(Semaphore::new(EVENTS_MAX)),
        };
        let guard = guard::Guard { token: token.clone(), is_open };
        let router = Router::new()
            .route("/", get(page::front))
            .route("/icon.svg", get(page::icon))
            .route("/assets/{name}", get(page::asset))
            .route("/live.mp4", get(media::stream))
            .route("/hls/{name}", get(media::hls))
            .route("/s/{id}/live.mp4", get(media::session_stream))
            .route("/s/{id}/hls/{name}", get(media::session_hls))
            .route("/api/v1/node", get(api::node))
            .route("/api/v1/sessions", get(api::sessions).post(api::open))
            .route("/api/v1/sessions/{id}", delete(api::close))
            .route("/api/v1/sessions/{id}/events", get(events::session))
            .route("/api/v1/sessions/{id}/rendition", post(api::rendition))
            .route("/api/v1/channels/events", get(events::channels))
            .route("/api/v1/desk", get(api::desk))
            .route("/api/v1/desk/listed", post(api::desk_listed))
            .route("/api/v1/desk/trace", get(api::desk_trace))
            .route("/api/v1/desk/stop", post(api::desk_stop))
            .route("/api/v1/stats", get(api::stats))
            .route("/metrics", get(api::metrics))
            .fallback(api::nothing)
            .method_not_allowed_fallback(api::other_method)
            .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
            .layer(middleware::from_fn_with_state(guard, guard::guard))
            .with_state(served);
        // All come from one computer.
        let limits = serve::Limits { all: CONNECTIONS_MAX, of_one: CONNECTIONS_MAX };
        tokio::spawn(serve::accept(self.listener, limits, move |mut request| {
            guard::take_token(&token, &mut request);
            router.clone().oneshot(request.map(Body::new))
        }));
    }
}
