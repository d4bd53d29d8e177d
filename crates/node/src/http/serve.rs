//! Connections over TCP, for every HTTP server of a node: bounded in number, in how long a head may take, and in how long an
//! answer may stay unread.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

/// A request's head must come within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client may leave an answer unread for this long: longer than any player buffers ahead, and paused players come back.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest request head.
const HEAD_LEN_MAX: usize = 16 * 1024;

/// Answers requests with `handle`, over at most `connections_max` connections at a time, for as long as the node lives.
pub(crate) async fn accept<H, F>(listener: TcpListener, connections_max: usize, handle: H)
where
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if open.fetch_add(1, Ordering::Relaxed) >= connections_max {
                    open.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (handle, open) = (handle.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    serve(stream, handle).await;
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

async fn serve<H, F>(stream: TcpStream, handle: H)
where
    H: Fn(hyper::Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    let _not_fatal = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), hyper::service::service_fn(handle))
        .await;
    if let Err(error) = served {
        tracing::debug!("a player's connection: {error}");
    }
}
