//! A server on loopback with a file of its own, and HTTP by hand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use caudal_alto::client::{AltoClient, ClientOptions};
use caudal_alto::server::{AltoServer, Limits};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The file of RFC 7285's examples: the network map of section 11.2.1.7 with the costs of section 11.2.3.7.
pub(crate) const RFC: &str = r#"map = "my-default-network-map"
[pids]
PID1 = ["192.0.2.0/24", "198.51.100.0/25"]
PID2 = ["198.51.100.128/25"]
PID3 = ["0.0.0.0/0", "::/0"]
[costs.table]
PID1 = { PID1 = 1, PID2 = 5, PID3 = 10 }
PID2 = { PID1 = 5, PID2 = 1, PID3 = 15 }
PID3 = { PID1 = 20, PID2 = 15 }
[metrics.hopcount]
same = 1
transit = 4
"#;

/// A folder that goes away with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("alto-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("alto.toml")
    }

    /// As editors do it: a new file takes the old one's place.
    pub(crate) fn write(&self, text: &str) {
        let new = self.0.join("alto.toml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) folder: Folder,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(text: &str) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), text, Limits::default()).await
    }

    pub(crate) async fn start_on(address: SocketAddr, text: &str, limits: Limits) -> Self {
        let folder = Folder::new();
        folder.write(text);
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = AltoServer::open(folder.file(), limits).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async move { _ = stopped.await };
            server.serve(listener, shutdown).await.unwrap();
        });
        Self { address, folder, stop, task }
    }

    pub(crate) async fn stop(self) -> SocketAddr {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
        self.address
    }

    pub(crate) fn client(&self) -> AltoClient {
        AltoClient::new(&format!("http://{}/", self.address), &ClientOptions::default()).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        ask(self.address, "GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        ask(self.address, "POST", path, &[("Content-Type", content_type)], body.as_bytes()).await
    }
}

/// An answer to the letter.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of a good answer of that type.
    pub(crate) fn of(&self, media_type: &str) -> Value {
        assert_eq!(self.status, 200, "{} {}", self.head, String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some(media_type));
        self.json()
    }

    /// Code, field and value of an ALTO error.
    pub(crate) fn error(&self) -> (String, Option<String>, Option<String>) {
        assert_eq!((self.status, self.header("content-type")), (400, Some("application/alto-error+json")));
        let meta = self.json()["meta"].clone();
        let text = |name: &str| meta[name].as_str().map(str::to_owned);
        (text("code").unwrap(), text("field"), text("value"))
    }
}

pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if method == "POST" || !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    stream.write_all(&[request.as_bytes(), body].concat()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}
