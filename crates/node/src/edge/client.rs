//! Asking an edge, or any CDN in front of one: within time and size, and only where its URL may lead. What comes is a
//! stranger's until it was verified.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caudal_media::part::PART_LEN_MAX;
use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::chunk::{CHUNK_LEN_MAX, CHUNK_PAYLOAD_MAX, CHUNKS_PER_PART_MAX};
use caudal_proto::hybrid::part::PartId;
use caudal_proto::id::{ChannelId, RenditionId};
use caudal_tracker::client::ClientError;
use caudal_tracker::url::{AllowedUrl, EdgeUrl};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::Incoming;

use super::counted::{Http, UnderWay};
use super::shelf::{EdgeView, WAIT_MAX};

/// How long an edge may take to begin to answer, beyond what it may wait for a part.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take in all.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most edges that are asked in turn.
pub const EDGES_MAX: usize = 8;
/// Longest part with its chunks' headers and signatures, bytes.
pub const PART_LEN_ON_WIRE_MAX: usize =
    PART_LEN_MAX + (CHUNK_LEN_MAX - CHUNK_PAYLOAD_MAX) * CHUNKS_PER_PART_MAX as usize;
/// Longest word on where the live edge is, bytes.
pub const VIEW_LEN_MAX: usize = 16 * 1024;

/// Why an edge gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// It does not have it.
    #[error("edge {url} does not have it (HTTP status 404)")]
    Absent {
        /// The edge.
        url: EdgeUrl,
    },
    /// It has too much to do.
    #[error("edge {url} has too much to do (HTTP status {status})")]
    Busy {
        /// The edge.
        url: EdgeUrl,
        /// What it said.
        status: u16,
    },
    /// No connection, or no answer in time.
    #[error("edge {url} cannot be reached ({why}); check the address and this computer's network")]
    Unreachable {
        /// The edge.
        url: EdgeUrl,
        /// The cause.
        why: String,
    },
    /// An answer that is none.
    #[error("edge {url} answered with something that is not an edge's answer ({why}); is the address right?")]
    BadAnswer {
        /// The edge.
        url: EdgeUrl,
        /// What was wrong.
        why: String,
    },
}

/// Where the live edge is: signatures checked, freshness not, numbers hints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The broadcast.
    pub certificate: Certificate,
    /// Its live note.
    pub note: LiveNote,
    /// The rest.
    pub view: EdgeView,
}

/// A client of one edge for one channel.
#[derive(Debug, Clone)]
pub struct EdgeClient {
    url: EdgeUrl,
    channel: ChannelId,
    http: Http,
}

impl EdgeClient {
    /// Connects when first asked.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(url: &AllowedUrl, channel: ChannelId) -> Result<Self, ClientError> {
        Ok(Self { http: Http::new(url)?, url: url.url().clone(), channel })
    }

    /// A client for each of `edges` that has none yet, as long as there is room.
    pub fn add(clients: &mut Vec<Self>, edges: impl IntoIterator<Item = AllowedUrl>, channel: ChannelId) {
        for url in edges {
            let is_known = clients.iter().any(|client| client.url() == url.url());
            if is_known || clients.len() >= EDGES_MAX {
                continue;
            }
            match Self::new(&url, channel) {
                Ok(client) => clients.push(client),
                Err(error) => tracing::warn!("edge {}: {error}", url.url()),
            }
        }
    }

    /// Whom it asks.
    pub fn url(&self) -> &EdgeUrl {
        &self.url
    }

    /// Where a rendition's live edge is.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn edge(&self, rendition: RenditionId) -> Result<Edge, EdgeError> {
        let uncounted = AtomicU64::new(0);
        let body = self.read(&address(rendition, "edge"), false, TIMEOUT, VIEW_LEN_MAX, &uncounted).await?;
        let bad = |why: &dyn std::fmt::Display| self.bad_answer(why);
        let view: EdgeView = serde_json::from_slice(&body).map_err(|error| bad(&error))?;
        let (certificate, note) = view.broadcast.open(&self.channel).map_err(|error| bad(&error))?;
        Ok(Edge { certificate, note, view })
    }

    /// A part as it came, not verified. `afresh`: caches on the way are to ask the edge itself. `read` counts bytes as they come, also
    /// where it fails.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn part(&self, id: PartId, afresh: bool, read: &AtomicU64) -> Result<Bytes, EdgeError> {
        let path = address(id.rendition, &format!("parts/{}-{}", id.epoch, id.part));
        self.read(&path, afresh, WAIT_MAX + TIMEOUT, PART_LEN_ON_WIRE_MAX, read).await
    }

    /// The same, of `len_max` bytes at most.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn part_within(
        &self,
        id: PartId,
        len_max: usize,
        read: &AtomicU64,
    ) -> Result<Bytes, EdgeError> {
        let path = address(id.rendition, &format!("parts/{}-{}", id.epoch, id.part));
        self.read(&path, false, WAIT_MAX + TIMEOUT, len_max.min(PART_LEN_ON_WIRE_MAX), read).await
    }

    async fn read(
        &self,
        path: &str,
        afresh: bool,
        within: Duration,
        len_max: usize,
        read: &AtomicU64,
    ) -> Result<Bytes, EdgeError> {
        let uri = format!("{}/v1/channels/{}/{path}", self.url, self.channel);
        let (asked, under_way) =
            self.http.get(&uri, afresh, len_max).map_err(|error| self.bad_answer(&error))?;
        let answer = self.answer(asked, within, len_max, (read, &under_way)).await;
        // Also what was no answer was carried.
        read.fetch_add(under_way.rest(), Ordering::Relaxed);
        answer
    }

    async fn answer(
        &self,
        asked: impl Future<Output = Result<hyper::Response<Incoming>, hyper_util::client::legacy::Error>>,
        within: Duration,
        len_max: usize,
        (read, under_way): (&AtomicU64, &UnderWay),
    ) -> Result<Bytes, EdgeError> {
        let response = match tokio::time::timeout(within, asked).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error))?,
            Err(_) => return Err(self.late()),
        };
        let url = self.url.clone();
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(EdgeError::Absent { url }),
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                return Err(EdgeError::Busy { url, status: status.as_u16() });
            }
            status => return Err(self.bad_answer(&format!("HTTP status {status}"))),
        }
        let body = self.body(response.into_body(), len_max, (read, under_way));
        tokio::time::timeout(BODY_TIMEOUT, body).await.unwrap_or_else(|_| Err(self.late()))
    }

    async fn body(
        &self,
        mut coming: Incoming,
        len_max: usize,
        (read, under_way): (&AtomicU64, &UnderWay),
    ) -> Result<Bytes, EdgeError> {
        let mut body = BytesMut::new();
        while let Some(frame) = coming.frame().await {
            // Trailers say nothing that anybody wants to know.
            let Ok(piece) = frame.map_err(|error| self.unreachable(&error))?.into_data() else { continue };
            read.fetch_add(piece.len() as u64, Ordering::Relaxed);
            under_way.counted(piece.len() as u64);
            if body.len() + piece.len() > len_max {
                return Err(self.bad_answer(&format!("longer than {len_max} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    fn late(&self) -> EdgeError {
        EdgeError::Unreachable { url: self.url.clone(), why: "no answer in time".to_owned() }
    }

    fn bad_answer(&self, why: &dyn std::fmt::Display) -> EdgeError {
        EdgeError::BadAnswer { url: self.url.clone(), why: plain(&why.to_string()) }
    }

    /// What went wrong, with the innermost cause, which is the one that says something.
    fn unreachable(&self, error: &dyn std::error::Error) -> EdgeError {
        let mut why = "the connection failed".to_owned();
        let mut source = error.source();
        while let Some(cause) = source {
            why = cause.to_string();
            source = cause.source();
        }
        EdgeError::Unreachable { url: self.url.clone(), why: plain(&why) }
    }
}

/// Below the channel's address; the first rendition's names none.
fn address(rendition: RenditionId, what: &str) -> String {
    match rendition {
        RenditionId(0) => what.to_owned(),
        RenditionId(other) => format!("renditions/{other}/{what}"),
    }
}

/// Words that may quote what a stranger sent.
fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use caudal_tracker::url::UrlOrigin;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::counted::AROUND_MAX;
    use super::*;

    /// An edge that answers whatever it is asked with `bytes`, and then with `more`, over and over.
    async fn edge(bytes: &'static [u8], more: &'static [u8]) -> EdgeClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = [0; 4096];
                    let _ = tcp.read(&mut asked).await;
                    let mut sent = tcp.write_all(bytes).await;
                    while sent.is_ok() && !more.is_empty() {
                        sent = tcp.write_all(&more.repeat(100)).await;
                    }
                });
            }
        });
        let url = url.parse::<EdgeUrl>().unwrap().check(UrlOrigin::Typed, false).unwrap();
        EdgeClient::new(&url, ChannelId([1; 32])).unwrap()
    }

    #[tokio::test]
    async fn what_comes_instead_of_an_answer_is_counted_and_ends() {
        const WANTED: u64 = 100_000;
        let id = PartId { rendition: RenditionId(0), epoch: 1, part: 2 };
        for (bytes, more) in [
            (&b""[..], &b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"[..]),
            (b"HTTP/1.1 200 OK\r\n", b"X: 0123456789012345678901234567890123456789\r\n"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nabcd\r\n"),
        ] {
            let (client, read) = (edge(bytes, more).await, AtomicU64::new(0));
            for n in 1..=3 {
                assert!(client.part_within(id, WANTED as usize, &read).await.is_err());
                let read = read.load(Ordering::Relaxed);
                assert!(read > 0 && read <= n * (WANTED + AROUND_MAX), "{read} bytes after {n}");
            }
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_and_its_head_counted() {
        let (client, read) =
            (edge(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"").await, AtomicU64::new(0));
        let id = PartId { rendition: RenditionId(1), epoch: 1, part: 2 };
        assert_eq!(client.part(id, true, &read).await.unwrap(), "abc");
        assert!((40..200).contains(&read.into_inner()));
    }
}
