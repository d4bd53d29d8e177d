//! Connections over TCP, for every HTTP server of a node: bounded in number, in how long a head may take, and in how long an
//! answer may stay unread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
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

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// At a time.
    pub(crate) all: usize,
    /// Of one address at a time, or of one IPv6 network (/64), which one host has to itself.
    pub(crate) of_one: usize,
}

/// Connections that are open, by whose they are.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_host: HashMap<IpAddr, usize>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
struct Place {
    open: Arc<Mutex<Open>>,
    host: IpAddr,
}

impl Place {
    /// None when there are too many.
    fn take(open: &Arc<Mutex<Open>>, addr: IpAddr, limits: Limits) -> Option<Self> {
        let host = host(addr);
        let mut counts = open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = counts.by_host.get(&host).copied().unwrap_or_default();
        if counts.all >= limits.all || of_host >= limits.of_one {
            return None;
        }
        counts.all += 1;
        counts.by_host.insert(host, of_host + 1);
        Some(Self { open: Arc::clone(open), host })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        match counts.by_host.get_mut(&self.host) {
            Some(of_host) if *of_host > 1 => *of_host -= 1,
            _ => drop(counts.by_host.remove(&self.host)),
        }
    }
}

fn host(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Answers requests with `handle`, over no more connections than `limits` says, for as long as the node lives.
pub(crate) async fn accept<H, F>(listener: TcpListener, limits: Limits, handle: H)
where
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    let open = Arc::new(Mutex::new(Open::default()));
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => {
                let Some(place) = Place::take(&open, addr.ip(), limits) else { continue };
                let handle = handle.clone();
                tokio::spawn(async move {
                    serve(stream, handle).await;
                    drop(place);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_leaves_places_for_others() {
        let limits = Limits { all: 4, of_one: 2 };
        let open = Arc::new(Mutex::new(Open::default()));
        let take = |addr: &str| Place::take(&open, addr.parse().unwrap(), limits);
        let greedy = [take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap()];
        assert!(take("192.0.2.1").is_none());
        let other = take("2001:db8::1").unwrap();
        let _neighbour = take("2001:db8::ffff:1").unwrap();
        assert!(take("2001:db8::2").is_none(), "one host has all of its network");
        assert!(take("2001:db8:0:1::2").is_none(), "there are four");
        drop(other);
        assert!(take("192.0.2.1").is_none());
        assert!(take("2001:db8::3").is_some());
        drop(greedy);
        let counts = open.lock().unwrap();
        assert_eq!((counts.all, counts.by_host.len()), (1, 1), "who left is forgotten");
    }
}
