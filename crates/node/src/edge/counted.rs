//! HTTP to one edge, every byte counted and limited from the connection on: also what comes before an answer's head, or instead of one.
//!
//! Connections, their reuse and TLS are libraries'; owns the account of bytes. Follows nobody elsewhere and asks no proxy.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use caudal_tracker::client::{Checked, ClientError, IDLE, TIMEOUT, USER_AGENT, tls_config};
use caudal_tracker::url::AllowedUrl;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::Service;

/// What an answer may be longer than what it brings, bytes: its head, and what TLS adds.
pub(super) const AROUND_MAX: u64 = 64 * 1024;
/// Connections that wait for the next request.
const IDLE_MAX: usize = 8;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client of one edge.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<Connect>, Empty<Bytes>>,
    account: Arc<Mutex<Account>>,
}

/// What may come, and came.
#[derive(Debug, Default)]
struct Account {
    /// What the requests under way may bring at most, together.
    under_way: u64,
    /// Bytes that may still come.
    left: u64,
    /// Bytes that came and that nobody has counted.
    uncounted: u64,
}

/// More came than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("it sends more than was asked for")]
struct TooMuch;

impl Http {
    /// Connects when first asked.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new(url: &AllowedUrl) -> Result<Self, ClientError> {
        let account = Arc::default();
        let mut tcp = HttpConnector::new_with_resolver(Names(Checked(url.reach())));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls_config(url)?).https_or_http().enable_http1();
        let connector = https.wrap_connector(Connect { tcp, account: Arc::clone(&account) });
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Ok(Self { client, account })
    }

    /// Asks for what is at `uri`, of `len_max` bytes at most. It is under way until the second value is dropped.
    pub(super) fn get(
        &self,
        uri: &str,
        afresh: bool,
        len_max: usize,
    ) -> Result<(impl Future<Output = Result<Response<Incoming>, Error>> + use<>, UnderWay), hyper::http::Error>
    {
        let mut request =
            Request::get(uri).header(header::USER_AGENT, USER_AGENT).header(header::ACCEPT, "*/*");
        if afresh {
            request = request.header(header::CACHE_CONTROL, "no-cache");
        }
        let request = request.body(Empty::new())?;
        let under_way = UnderWay { account: Arc::clone(&self.account), most: len_max as u64 + AROUND_MAX };
        lock(&self.account).begin(under_way.most);
        Ok((self.client.request(request), under_way))
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    account: Arc<Mutex<Account>>,
    most: u64,
}

impl UnderWay {
    /// Bytes of the answer that whoever asked counts itself.
    pub(super) fn counted(&self, bytes: u64) {
        let mut account = lock(&self.account);
        account.uncounted = account.uncounted.saturating_sub(bytes);
    }

    /// Bytes that came beside those, with this answer or another, since this was last asked.
    pub(super) fn rest(&self) -> u64 {
        std::mem::take(&mut lock(&self.account).uncounted)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.account).end(self.most);
    }
}

impl Account {
    fn begin(&mut self, most: u64) {
        self.under_way += most;
        self.left += most;
    }

    /// What a request did not need is not there for the next one.
    fn end(&mut self, most: u64) {
        self.under_way = self.under_way.saturating_sub(most);
        self.left = self.left.min(self.under_way + AROUND_MAX);
    }

    fn came(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.uncounted = self.uncounted.saturating_add(bytes);
    }
}

fn lock(account: &Mutex<Account>) -> std::sync::MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names, and only the addresses that the URL may lead to.
#[derive(Debug, Clone)]
struct Names(Checked);

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let checked = self.0;
        async move { Ok(checked.lookup(name.as_str()).await?.into_iter()) }.boxed()
    }
}

/// Makes connections whose bytes are counted.
#[derive(Debug, Clone)]
struct Connect {
    tcp: HttpConnector<Names>,
    account: Arc<Mutex<Account>>,
}

impl Service<Uri> for Connect {
    type Response = TokioIo<Counted>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, account) = (self.tcp.call(uri), Arc::clone(&self.account));
        async move { Ok(TokioIo::new(Counted { tcp: connecting.await?.into_inner(), account })) }.boxed()
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
struct Counted {
    tcp: TcpStream,
    account: Arc<Mutex<Account>>,
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = usize::try_from(lock(&self.account).left).unwrap_or(usize::MAX);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other(TooMuch)));
        }
        let before = buf.filled().len();
        let read = if left >= buf.remaining() {
            ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))
        } else {
            // What is read beyond the limit would be owed by the next requests.
            let mut within = ReadBuf::new(buf.initialize_unfilled_to(left));
            let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut within));
            let len = within.filled().len();
            buf.advance(len);
            read
        };
        lock(&self.account).came((buf.filled().len() - before) as u64);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_does_not_need_is_not_there_for_the_next() {
        let mut account = Account { left: AROUND_MAX, ..Account::default() };
        for _ in 0..100 {
            account.begin(1_000_000);
            account.came(1_000);
            account.begin(1_000_000);
            account.end(1_000_000);
            account.end(1_000_000);
            assert!(account.left <= AROUND_MAX, "{account:?}");
        }
        account.begin(1_000_000);
        account.came(10_000_000);
        assert_eq!((account.left, account.uncounted), (0, 10_100_000));
    }
}
