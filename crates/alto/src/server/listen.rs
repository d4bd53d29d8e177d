//! Connections: accepted up to a limit, perhaps in TLS, served as HTTP/1.1, and cut when they stall.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::http::{self, ClientAddress};
use super::{ServerError, Shared};
use crate::config::TlsFiles;

/// Longest request head, bytes.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Most header lines in a request.
const HEADERS_MAX: usize = 64;
/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reads a certificate and its key.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServerError> {
    let wrong =
        |path: &Path, what, why: String| ServerError::Tls { path: path.display().to_string(), what, why };
    let certificates = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
    let certificates: Vec<_> =
        certificates.map_err(|error| wrong(&files.certificate, "certificate", error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.map_err(|error| wrong(&files.key, "private key", error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(certificates, key));
    let mut config = config.map_err(|error| wrong(&files.certificate, "certificate", error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until `shared.stop` says so; connections end soon after.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let router = http::router(&shared);
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
            shared.counts.connections_refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (shared, router, tls) = (Arc::clone(&shared), router.clone(), tls.clone());
        tokio::spawn(async move {
            serve_stream(&shared, stream, peer, router, tls).await;
            drop(guard);
        });
    }
}

async fn serve_stream(
    shared: &Shared,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
) {
    let _not_fatal = stream.set_nodelay(true);
    // A subscriber that stopped reading must not keep its place for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(shared.limits.write_timeout));
    let stream = Box::pin(stream);
    let Some(tls) = tls else { return serve_connection(shared, stream, peer, router).await };
    match tokio::time::timeout(shared.limits.header_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(shared, stream, peer, router).await,
        Ok(Err(error)) => tracing::debug!("TLS: {error}"),
        Err(_) => tracing::debug!("TLS: the client took too long"),
    }
}

async fn serve_connection<S>(shared: &Shared, stream: S, peer: SocketAddr, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.header_timeout)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        // Otherwise each connection gets a copy of a map instead of sharing its bytes.
        .writev(true)
        .serve_connection(TokioIo::new(stream), service);
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

/// The host whose connections are counted together: an IPv4 address, an IPv6 /64.
fn host(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

impl Open {
    /// Room for one more from `ip`, if there is.
    fn enter(open: &Arc<Self>, ip: IpAddr) -> Option<Guard> {
        let shared = &open.shared;
        let limits = &shared.limits;
        if shared.counts.connections.load(Ordering::Relaxed) >= limits.connections as u64 {
            return None;
        }
        let is_proxy = shared.config.trusted_proxies.iter().any(|proxy| proxy.to_canonical() == ip);
        let host = (!is_proxy && !ip.is_loopback()).then(|| host(ip));
        if let Some(host) = host {
            let mut by_host = open.by_host.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_host.entry(host).or_default();
            if *count >= limits.connections_per_address {
                return None;
            }
            *count += 1;
        }
        shared.counts.connections.fetch_add(1, Ordering::Relaxed);
        Some(Guard { open: Arc::clone(open), host })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.shared.counts.connections.fetch_sub(1, Ordering::Relaxed);
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
