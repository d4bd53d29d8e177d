//! TCP connections: accepted up to a limit, served as HTTP/1.1, and cut when they stall.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::server::Shared;
use crate::server::config::{host, is_exempt};
use crate::server::http::Connected;

/// Longest request head, bytes.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Most header lines in a request.
const HEADERS_MAX: usize = 64;
/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `shared.stop` says so; connections end soon after.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, router: Router) {
    let open = Arc::new(Open { shared: Arc::clone(&shared), by_host: Mutex::default() });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client is gone already; neither is a reason to stop listening.
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(guard) = Open::enter(&open, peer.ip().to_canonical()) else {
            shared.metrics.connections_refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (shared, router) = (Arc::clone(&shared), router.clone());
        tokio::spawn(async move {
            serve_connection(&shared, stream, peer, router).await;
            drop(guard);
        });
    }
}

async fn serve_connection(shared: &Shared, stream: TcpStream, peer: SocketAddr, router: Router) {
    // Answers are small and complete: nothing is gained by waiting to fill a segment.
    let _not_fatal = stream.set_nodelay(true);
    // A subscriber that stopped reading must not keep its place for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(shared.limits.write_timeout()));
    let io = TokioIo::new(Box::pin(stream));
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Connected(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.header_timeout())
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("connection: {error}");
    }
}

/// Which connections are open.
struct Open {
    shared: Arc<Shared>,
    by_host: Mutex<BTreeMap<u128, u32>>,
}

/// One open connection.
struct Guard {
    open: Arc<Open>,
    host: Option<u128>,
}

impl Open {
    /// Room for one more from `ip`, if there is.
    fn enter(open: &Arc<Self>, ip: IpAddr) -> Option<Guard> {
        let shared = &open.shared;
        let limits = &shared.limits;
        if shared.metrics.connections.load(Ordering::Relaxed) >= limits.connections as u64 {
            return None;
        }
        let proxy = shared.trusted_proxies.iter().any(|proxy| proxy.to_canonical() == ip);
        let host = (!proxy && !is_exempt(ip, shared.lan)).then(|| host(ip));
        if let Some(host) = host {
            let mut by_host = open.by_host.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_host.entry(host).or_default();
            if *count >= limits.connections_per_address {
                return None;
            }
            *count += 1;
        }
        shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
        Some(Guard { open: Arc::clone(open), host })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(host) = self.host else { return };
        let mut by_host = self.open.by_host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                by_host.remove(&host);
            }
        }
    }
}
