//! A tracker on loopback, a channel on the air, and HTTP by hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, SecretKey};
use caudal_tracker::client::TrackerClient;
use caudal_tracker::message::SwarmId;
use caudal_tracker::server::{Tracker, TrackerConfig};
use caudal_tracker::url::{AllowedUrl, TrackerUrl, UrlOrigin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(config: TrackerConfig) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), config).await
    }

    pub(crate) async fn start_on(address: SocketAddr, config: TrackerConfig) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let tracker = Tracker::new(config).unwrap();
        let task = tokio::spawn(async move {
            let shutdown = async move { stopped.await.unwrap() };
            tracker.serve(listener, shutdown).await.unwrap();
        });
        Self { address, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }

    pub(crate) fn url(&self) -> AllowedUrl {
        let url: TrackerUrl = format!("http://{}", self.address).parse().unwrap();
        url.check(UrlOrigin::Typed, false).unwrap()
    }

    pub(crate) fn client(&self, n: u8) -> TrackerClient {
        TrackerClient::new(self.url(), SecretKey::from_bytes(&[n; 32])).unwrap()
    }

    /// Sends bytes, closes the sending side, and reads all there is.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The tracker may answer and close before it has read everything.
        let _closed_early = stream.write_all(bytes).await;
        let _closed_early = stream.shutdown().await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let answer = self
            .raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
            .await;
        String::from_utf8(answer).unwrap()
    }

    pub(crate) async fn post(&self, headers: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST /v1/ppstp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = self.raw(&[head.as_bytes(), body].concat()).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer)
    }
}

/// A client of something that answers everything alike.
pub(crate) async fn answering(status: u16, body: String) -> TrackerClient {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: TrackerUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _gone = stream.read(&mut [0; 16 * 1024]).await;
            let _gone = stream.write_all(answer.as_bytes()).await;
            let _gone = stream.shutdown().await;
            let _gone = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    TrackerClient::new(url.check(UrlOrigin::Typed, false).unwrap(), SecretKey::from_bytes(&[1; 32])).unwrap()
}

pub(crate) struct Air {
    pub(crate) channel: SecretKey,
    pub(crate) key: SecretKey,
    pub(crate) certificate: Certificate,
    pub(crate) note: LiveNote,
}

impl Air {
    pub(crate) fn new(n: u8) -> Self {
        let (channel, key) = (SecretKey::from_bytes(&[100 + n; 32]), SecretKey::from_bytes(&[150 + n; 32]));
        let now_us = unix_ms() * 1000;
        let terms = CertificateTerms {
            epoch: unix_ms(),
            not_before_unix_us: now_us,
            not_after_unix_us: now_us + 86_400_000_000,
            substreams: 8,
            rate_bps: 1_000_000,
        };
        let certificate = Certificate::sign(&channel, BroadcastId(key.public()), terms);
        let note = LiveNote::sign(&key, channel.channel(), terms.epoch, 1, now_us, false);
        Self { channel, key, certificate, note }
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.channel.channel()
    }

    pub(crate) fn swarm(&self) -> SwarmId {
        self.id().into()
    }
}

/// A CONNECT written by hand, as `docs/tracker.md` describes it.
pub(crate) fn connect_body(key: &SecretKey, air: &Air, timestamp_unix_ms: u64) -> String {
    let (peer, channel) = (PeerId(key.public()), air.id());
    format!(
        r#"{{"PPSPTrackerProtocol":{{"version":1,"request_type":"CONNECT","transaction_id":"a1","peer_id":"{peer}",
        "timestamp_unix_ms":{timestamp_unix_ms},"tracker":"http://t","connect":{{"peer_num":{{"peer_count":20}},
        "peer_addr":[{{"port":4433}}],"swarm_action":[{{"swarm_id":"{channel}","action":"JOIN","peer_mode":"LEECH"}}]}}}}}}"#
    )
}
