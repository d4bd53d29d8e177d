//! A node's HTTP side as pages and strangers meet it: the token, foreign sites, sessions, the list of channels.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{Caudal, Folder, PATIENCE, get, link, number, publish_card, request, run_clean, tracker};
use serde_json::Value;

/// A page sees a change of the list within this.
const LIST_WITHIN: Duration = Duration::from_secs(2);

fn addr(node: &Caudal) -> SocketAddr {
    node.told("http").trim_start_matches("http://").parse().expect("IP:PORT")
}

fn token(node: &Caudal) -> String {
    node.told("page").rsplit('=').next().expect("a token").to_owned()
}

/// Asks with more header lines: status and JSON.
fn ask(node: &Caudal, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
    let (host, len) = (addr(node), body.len());
    let host = if headers.contains("Host:") { String::new() } else { format!("Host: {host}\r\n") };
    let text = format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    );
    let (status, body) = request(addr(node), &text);
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// Server-sent events of `path`.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(node: &Caudal, path: &str) -> Self {
        let mut stream = TcpStream::connect(addr(node)).expect("the node listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", addr(node)).expect("taken");
        Self(BufReader::new(stream))
    }

    /// The next event called one of `names`.
    fn next(&mut self, names: &[&str]) -> (String, Value) {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).expect("events go on") > 0,
                "the events ended before {names:?}"
            );
            if let Some(told) = line.strip_prefix("event: ") {
                told.trim().clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ").filter(|_| names.contains(&name.as_str()))
            {
                return (name, serde_json::from_str(data.trim()).expect("JSON"));
            }
        }
    }
}

#[test]
fn strangers_and_changes_without_the_token_are_refused() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let node = Caudal::start(&home, &["watch", "--tracker", tracker.told("http")]);
    let good = format!("X-Caudal-Token: {}\r\n", token(&node));
    assert_eq!(ask(&node, "GET", "/api/v1/node", "", "").1["can"]["watch"], true);
    for headers in [
        "Host: evil.example\r\n",
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        for path in ["/", "/api/v1/node", "/api/v1/channels/events", "/metrics"] {
            let (status, said) = ask(&node, "GET", path, &format!("{headers}{good}"), "");
            assert_eq!(status, 403, "{path} {headers}");
            assert!(said["error"].is_string(), "{path} {headers}");
        }
    }
    for (method, path) in [
        ("POST", "/api/v1/sessions"),
        ("DELETE", "/api/v1/sessions/00000000"),
        ("POST", "/api/v1/desk/stop"),
        ("GET", "/api/v1/desk"),
    ] {
        for headers in ["", "X-Caudal-Token: 0123\r\n"] {
            assert_eq!(ask(&node, method, path, headers, "{}").0, 403, "{method} {path} {headers}");
        }
    }
    assert_eq!(ask(&node, "POST", "/api/v1/sessions", &good, r#"{"link":"nonsense"}"#).0, 400);
    assert_eq!(ask(&node, "POST", "/api/v1/sessions", &good, "[").0, 400);
    assert_eq!(ask(&node, "DELETE", "/api/v1/sessions/00000000", &good, "").0, 404);
    assert_eq!(get(node.told("http"), "/s/00000000/live.mp4").0, 404);
}

#[test]
fn a_page_opens_two_channels_hears_of_them_each_second_and_leaves_one() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let node = Caudal::start(&home, &["watch", "--tracker", tracker.told("http")]);
    let good = format!("X-Caudal-Token: {}\r\n", token(&node));
    let mut list = Events::open(&node, "/api/v1/channels/events");
    list.next(&["snapshot"]);
    let one = publish_card(&home, &tracker, &["--listed"]);
    let (_, entry) = list.next(&["channel"]);
    assert_eq!(entry["channel"], one.told("channel"));
    let other =
        ["publish", "--name", "Other", "--input", "test", "--card-rate", "1M", "--card-size", "640x360"];
    let other = Caudal::start(&home, &[&other[..], &["--tracker", tracker.told("http")]].concat());
    let open = |link: &str| ask(&node, "POST", "/api/v1/sessions", &good, &format!(r#"{{"link":"{link}"}}"#));
    let (status, first) = open(&link(&one));
    assert_eq!(status, 201, "{first}");
    let (status, again) = open(&link(&one));
    assert_eq!((status, &again["id"]), (200, &first["id"]), "one channel has one session");
    let (status, second) = open(&link(&other));
    assert_eq!(status, 201, "{second}");
    let id = |session: &Value| session["id"].as_str().expect("an id").to_owned();
    let mut reports = Events::open(&node, &format!("/api/v1/sessions/{}/events", id(&first)));
    while reports.next(&["state"]).1["state"] != "live" {}
    let begun = Instant::now();
    for _ in 0..4 {
        let (_, report) = reports.next(&["report"]);
        assert_eq!(report["role"], "viewer");
        number(&report, "/gauge/edge_behind_ms");
        number(&report, "/gauge/last_part_media_ms");
    }
    let took = begun.elapsed();
    assert!((Duration::from_millis(2500)..Duration::from_secs(8)).contains(&took), "4 reports in {took:?}");
    assert_eq!(ask(&node, "DELETE", &format!("/api/v1/sessions/{}", id(&second)), &good, "").0, 204);
    let (_, left) = ask(&node, "GET", "/api/v1/sessions", "", "");
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    assert_eq!(id(&left[0]), id(&first));
    // The end of a broadcast leaves the list.
    let ended = Instant::now();
    let source_token = format!("X-Caudal-Token: {}\r\n", token(&one));
    assert_eq!(ask(&one, "POST", "/api/v1/desk/stop", &source_token, "").0, 204);
    assert_eq!(list.next(&["gone"]).1["channel"], entry["channel"]);
    assert!(ended.elapsed() < LIST_WITHIN, "{:?}", ended.elapsed());
}

#[test]
fn a_player_elsewhere_reads_below_the_token_and_nothing_without_it() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &[]);
    let node = Caudal::start(&home, &["watch", &link(&source), "--listen", "0.0.0.0:0"]);
    let page = node.told("page").to_owned();
    let token = page.trim_end_matches('/').rsplit('/').next().expect("a token").to_owned();
    let port = addr(&node).port();
    let base = format!("http://127.0.0.1:{port}");
    for path in ["/", "/live.mp4", "/hls/index.m3u8", "/api/v1/stats", "/metrics", "/t/0123/hls/index.m3u8"] {
        assert_eq!(get(&base, path).0, 403, "{path}");
    }
    let url = format!("{base}/t/{token}/hls/index.m3u8");
    run_clean(
        std::process::Command::new("ffmpeg").args(["-v", "error", "-i", &url, "-t", "3", "-f", "null", "-"]),
    );
}
