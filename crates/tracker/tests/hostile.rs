//! What strangers send to the port: each gets a clear refusal, and the tracker goes on.

mod common;

use std::time::{Duration, Instant};

use caudal_proto::id::SecretKey;
use caudal_tracker::message::{REQUEST_LEN_MAX, sign_request};
use caudal_tracker::server::TrackerConfig;
use common::{Air, Running, connect_body, unix_ms};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn key() -> SecretKey {
    SecretKey::from_bytes(&[8; 32])
}

fn signed(body: &str) -> String {
    format!("Caudal-Signature: {}\r\n", sign_request(&key(), body.as_bytes()))
}

fn code(answer: &str) -> i64 {
    let json = answer.split_once("\r\n\r\n").expect("a head and a body").1;
    let json: serde_json::Value = serde_json::from_str(json).expect("the body is JSON");
    json["PPSPTrackerProtocol"]["error_code"].as_i64().expect("error_code is a number")
}

#[tokio::test]
async fn malformed_requests_are_refused_with_what_is_wrong() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let air = Air::new(1);
    let good = connect_body(&key(), &air, unix_ms());
    let bad = [
        ("no JSON", "hello".to_owned(), 1, "PPSPTrackerProtocol"),
        ("nothing", String::new(), 1, "PPSPTrackerProtocol"),
        ("no envelope", "{}".to_owned(), 1, "PPSPTrackerProtocol"),
        ("not UTF-8's business", "[1,2,3]".to_owned(), 1, "PPSPTrackerProtocol"),
        ("version", good.replace("\"version\":1", "\"version\":2"), 2, "version 2"),
        ("type of a value", good.replace("\"port\":4433", "\"port\":\"x\""), 1, "peer_addr[0].port"),
        ("port too large", good.replace("4433", "70000"), 1, "peer_addr[0].port"),
        ("privileged port", good.replace("4433", "53"), 1, "1024"),
        ("unknown member", good.replace("\"tracker\"", "\"trakcer\""), 1, "trakcer"),
        ("peer id", good.replace("\"peer_id\":\"", "\"peer_id\":\"1"), 1, "52 characters"),
        ("request type", good.replace("\"CONNECT\"", "\"FIND\""), 1, "request_type"),
        ("nothing to do", good.replace("\"JOIN\"", "\"JUMP\""), 1, "JUMP"),
        ("source without proof", good.replace("LEECH", "SEED"), 6, "prove"),
        ("deep", format!("{}{}", "[".repeat(8000), "]".repeat(8000)), 1, ""),
        (
            "deep inside",
            good.replace("[{\"port\":4433}]", &format!("{}{}", "[".repeat(500), "]".repeat(500))),
            1,
            "",
        ),
        ("too long", format!("{good}{}", " ".repeat(REQUEST_LEN_MAX)), 1, "16384 bytes"),
    ];
    for (what, body, number, says) in bad {
        let (status, answer) = tracker.post(&signed(&body), body.as_bytes()).await;
        assert!((400..=451).contains(&status), "{what}: {answer}");
        assert_eq!(code(&answer), number, "{what}: {answer}");
        assert!(answer.contains(says), "{what}: {answer}");
    }
    let (status, answer) = tracker.post(&signed(&good), good.as_bytes()).await;
    assert_eq!((status, code(&answer)), (200, 0), "{answer}");
    tracker.stop().await;
}

#[tokio::test]
async fn nobody_speaks_for_somebody_else() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let air = Air::new(1);
    let body = connect_body(&key(), &air, unix_ms());
    let (status, answer) = tracker.post("", body.as_bytes()).await;
    assert_eq!((status, code(&answer)), (401, 6), "unsigned");
    let other =
        format!("Caudal-Signature: {}\r\n", sign_request(&SecretKey::from_bytes(&[9; 32]), body.as_bytes()));
    let (status, answer) = tracker.post(&other, body.as_bytes()).await;
    assert_eq!((status, code(&answer)), (401, 6), "another key");
    let changed = body.replace("4433", "4434");
    let (status, answer) = tracker.post(&signed(&body), changed.as_bytes()).await;
    assert_eq!((status, code(&answer)), (401, 6), "changed on the way");
    let (status, answer) = tracker.post(&signed(&body), body.as_bytes()).await;
    assert_eq!((status, code(&answer)), (200, 0), "{answer}");
    let (status, answer) = tracker.post(&signed(&body), body.as_bytes()).await;
    assert_eq!((status, code(&answer)), (409, 69), "replayed");
    let old = connect_body(&key(), &air, unix_ms() - 300_000);
    let (status, answer) = tracker.post(&signed(&old), old.as_bytes()).await;
    assert_eq!((status, code(&answer)), (400, 66), "old");
    assert!(answer.contains("clock"), "{answer}");
    tracker.stop().await;
}

#[tokio::test]
async fn wrong_paths_methods_and_queries_say_so() {
    let tracker = Running::start(TrackerConfig::default()).await;
    for (path, status) in [
        ("/", 200),
        ("/nothing", 404),
        ("/api/v1/node", 200),
        ("/v1/ppstp", 405),
        ("/v1/channels/xyz", 400),
        ("/v1/channels?limit=x", 400),
        ("/v1/channels?nope=1", 400),
        ("/v1/channels/xyz/events", 400),
        ("/healthz", 200),
        ("/v1/channels", 200),
        ("/v1/channels?offset=18446744073709551615", 200),
        ("/v1/channels/%ff", 400),
        ("/metrics", 200),
    ] {
        let answer = tracker.get(path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(status == 200 || answer.contains("\"error\":\""), "{path}: {answer}");
    }
    tracker.stop().await;
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let mut config = TrackerConfig::default();
    (config.limits.header_timeout_ms, config.limits.body_timeout_ms) = (200, 200);
    let tracker = Running::start(config).await;
    let begun = Instant::now();
    for start in
        ["GET / HT", "", "POST /v1/ppstp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"]
    {
        let mut stream = TcpStream::connect(tracker.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let cut = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
        assert!(cut.is_ok(), "{start:?} still holds its connection after {:?}", begun.elapsed());
    }
    tracker.stop().await;
}

#[tokio::test]
async fn connections_are_bounded_and_closed_ones_make_room() {
    let mut config = TrackerConfig::default();
    config.limits.connections = 2;
    let tracker = Running::start(config).await;
    let hold = [
        TcpStream::connect(tracker.address).await.unwrap(),
        TcpStream::connect(tracker.address).await.unwrap(),
    ];
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        tracker.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.is_empty(),
        "closed at the limit"
    );
    drop(hold);
    for _ in 0..50 {
        if tracker.get("/healthz").await.starts_with("HTTP/1.1 200") {
            tracker.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("closed connections still count");
}

#[tokio::test]
async fn random_bytes_do_no_harm() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let mut random = fastrand::Rng::with_seed(1);
    let air = Air::new(1);
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        let mut bytes: Vec<u8> = (0..random.usize(..2000)).map(|_| random.u8(..)).collect();
        match sent % 3 {
            0 => {
                tracker.raw(&bytes).await;
            }
            1 => {
                tracker.post(&signed("x"), &bytes).await;
            }
            _ => {
                // A good request with a few bytes changed gets deeper.
                bytes = connect_body(&key(), &air, unix_ms()).into_bytes();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
                let header = format!("Caudal-Signature: {}\r\n", sign_request(&key(), &bytes));
                tracker.post(&header, &bytes).await;
            }
        }
        sent += 1;
    }
    assert!(sent > 30, "{sent}");
    let body = connect_body(&key(), &air, unix_ms() + 5000);
    let (status, answer) = tracker.post(&signed(&body), body.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    tracker.stop().await;
}

/// It asks and asks, reads nothing, and holds a connection: it is let go, and the next one gets its place.
#[tokio::test]
async fn who_reads_no_answers_is_let_go() {
    let mut config = TrackerConfig::default();
    config.limits.write_timeout_ms = 300;
    let tracker = Running::start(config).await;
    let mut stream = TcpStream::connect(tracker.address).await.expect("listens");
    let ask = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(64);
    let began = Instant::now();
    // Answers fill both sockets' buffers; then nothing is read any more, and writing ends when the tracker has closed.
    let refused = loop {
        assert!(began.elapsed() < Duration::from_secs(20), "it is still there");
        match tokio::time::timeout(Duration::from_secs(5), stream.write_all(&ask)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => break Some(error),
            Err(_) => break None,
        }
    };
    assert!(refused.is_some(), "the tracker closed the connection instead of waiting for ever");
    assert!(tracker.get("/v1/channels").await.contains("channels"));
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_with_what_is_wrong() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let ask = async |path: &str, headers: &str| {
        let asked = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        String::from_utf8(tracker.raw(asked.as_bytes()).await).unwrap()
    };
    for (headers, named) in [
        ("Host: evil.example\r\n", "Host"),
        ("Host: localhost\r\nOrigin: https://evil.example\r\n", "Origin"),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", "Sec-Fetch-Site"),
    ] {
        let answer = ask("/v1/channels", headers).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains(named), "{headers}: {answer}");
        assert!(answer.contains("\"error_code\":3,"), "{answer}");
        assert!(answer.contains("\r\ncross-origin-resource-policy: same-origin\r\n"), "{answer}");
    }
    let followed = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    for (path, headers) in [
        ("/", followed),
        ("/v1/channels", "Host: localhost\r\nOrigin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"),
    ] {
        let answer = ask(path, headers).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\r\ncross-origin-resource-policy: same-origin\r\n"), "{answer}");
    }
    // A peer whose tracker is named beyond this machine.
    let everywhere = Running::start_on("0.0.0.0:0".parse().unwrap(), TrackerConfig::default()).await;
    let answer =
        everywhere.raw(b"GET /v1/channels HTTP/1.1\r\nHost: tracker.lan\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    everywhere.stop().await;
    tracker.stop().await;
}
