//! Update streams (RFC 8895), and maps that are followed: through edits, wrong edits and outages.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::common::{RFC, Running};
use caudal_alto::client::{AltoClient, ClientOptions, FollowOptions, Follower};
use caudal_alto::server::Limits;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The file's change must arrive within this.
const IN_TIME: Duration = Duration::from_secs(2);

fn impatient() -> FollowOptions {
    FollowOptions::default().with_waits(
        Duration::from_millis(100),
        Duration::from_millis(50),
        Duration::from_millis(200),
    )
}

/// Waits until `holds`, and tells how long that took.
async fn until(follower: &mut Follower, holds: impl Fn(&Follower) -> bool) -> Duration {
    let begun = Instant::now();
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !holds(follower) {
            follower.changed().await;
        }
    });
    waited.await.expect("what was waited for happens");
    begun.elapsed()
}

fn cost(follower: &Follower) -> Option<f64> {
    follower.snapshot()?.cost(ip("192.0.2.1"), ip("198.51.100.200"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_reaches_subscribers_and_a_wrong_one_does_not() {
    let server = Running::start(RFC).await;
    let mut follower = Follower::start(server.client(), impatient());
    until(&mut follower, |follower| cost(follower) == Some(5.0)).await;
    // A cost.
    let edited = RFC.replace("PID2 = 5", "PID2 = 7");
    server.folder.write(&edited);
    let took = until(&mut follower, |follower| cost(follower) == Some(7.0)).await;
    assert!(took < IN_TIME, "{took:?}");
    // The network: an address moves, a PID comes.
    let moved = edited
        .replace("\"198.51.100.128/25\"", "\"198.51.100.192/26\"")
        .replace("PID3 = [\"0", "PID4 = [\"198.51.100.128/26\"]\nPID3 = [\"0");
    server.folder.write(&moved);
    let pid =
        |follower: &Follower| follower.snapshot().unwrap().pid(ip("198.51.100.130")).unwrap().to_string();
    let took = until(&mut follower, |follower| pid(follower) == "PID4").await;
    assert!(took < IN_TIME, "{took:?}");
    let snapshot = follower.snapshot().unwrap();
    assert_eq!(cost(&follower), Some(7.0));
    assert_eq!(snapshot.network().vtag(), snapshot.costs()[0].network().vtag());
    // What is wrong is not served.
    let tag = server.get("/networkmap/my-default-network-map").await.header("etag").unwrap().to_owned();
    server.folder.write(&moved.replace("\"0.0.0.0/0\", ", ""));
    let refused = async {
        loop {
            let metrics = server.get("/metrics").await;
            if String::from_utf8_lossy(&metrics.body).contains("alto_reloads_refused_total 1\n") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(IN_TIME, refused).await.unwrap();
    assert_eq!(server.get("/networkmap/my-default-network-map").await.header("etag"), Some(tag.as_str()));
    assert_eq!(pid(&follower), "PID4");
    // And the next right one is.
    server.folder.write(RFC);
    let took = until(&mut follower, |follower| cost(follower) == Some(5.0)).await;
    assert!(took < IN_TIME, "{took:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_outlive_their_server_and_tell_their_age() {
    let server = Running::start(RFC).await;
    let mut follower = Follower::start(server.client(), impatient());
    until(&mut follower, |follower| cost(follower) == Some(5.0)).await;
    assert_eq!(follower.problem(), None);
    assert!(follower.age().unwrap() < Duration::from_secs(2));
    let address = server.stop().await;
    until(&mut follower, |follower| follower.problem().is_some()).await;
    assert_eq!(cost(&follower), Some(5.0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let age = follower.age().unwrap();
    assert!(age >= Duration::from_millis(300), "{age:?}");
    // It comes back with another map.
    let server = Running::start_on(address, &RFC.replace("PID2 = 5", "PID2 = 9"), Limits::default()).await;
    until(&mut follower, |follower| cost(follower) == Some(9.0)).await;
    assert_eq!(follower.problem(), None);
    assert!(follower.age().unwrap() < age);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_is_taken_away_ends_its_substreams() {
    let extra = format!("{RFC}[maps.extra.pids]\nall = [\"0.0.0.0/0\"]\n[maps.extra.costs]\nsame = 3\n");
    let server = Running::start(&extra).await;
    let mut follower = Follower::start(server.client(), impatient().with_map(Some("extra".to_owned())));
    until(&mut follower, |follower| cost(follower) == Some(3.0)).await;
    server.folder.write(RFC);
    until(&mut follower, |follower| follower.problem().is_some()).await;
    assert_eq!(cost(&follower), Some(3.0), "the last map stays");
    server.stop().await;
}

/// What a stream looks like: whole maps first, the network map before the costs, then merge patches.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_those_of_rfc_8895() {
    let server = Running::start(RFC).await;
    let tag = server.get("/networkmap/my-default-network-map").await.json()["meta"]["vtag"]["tag"].clone();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = r#"{"add":{
        "z":{"resource-id":"my-default-network-map"},
        "a":{"resource-id":"my-default-network-map-num-routingcost"},
        "whole":{"resource-id":"my-default-network-map-ord-routingcost","incremental-changes":false}}}"#;
    let request = format!(
        "POST /updates HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream,application/alto-error+json\r\n\
         Content-Type: application/alto-updatestreamparams+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut events = async |count: usize| -> Vec<(String, Value)> {
        loop {
            let found: Vec<(String, Value)> = text
                .split("event: ")
                .skip(1)
                .filter_map(|event| {
                    let (name, rest) = event.split_once('\n')?;
                    let data: String = rest.split("data: ").nth(1)?.to_owned();
                    // Chunk sizes stand between the pieces.
                    let json = &data[data.find('{')?..=data.rfind('}')?];
                    Some((name.trim().to_owned(), serde_json::from_str(json).ok()?))
                })
                .collect();
            if found.len() >= count {
                return found;
            }
            let mut piece = [0; 4096];
            let length =
                tokio::time::timeout(Duration::from_secs(5), stream.read(&mut piece)).await.unwrap().unwrap();
            text += &String::from_utf8_lossy(&piece[..length]);
        }
    };
    let first = events(3).await;
    assert!(
        text_head(&first)
            == [
                "application/alto-networkmap+json,z",
                "application/alto-costmap+json,a",
                "application/alto-costmap+json,whole"
            ],
        "{first:?}"
    );
    assert_eq!(first[0].1["meta"]["vtag"]["tag"], tag);
    assert_eq!(first[1].1["meta"]["dependent-vtags"][0]["tag"], tag);
    assert_eq!(first[1].1["cost-map"]["PID1"]["PID2"], 5);
    server.folder.write(&RFC.replace("PID2 = 5", "PID2 = 25"));
    let after = events(5).await;
    assert_eq!(
        text_head(&after[3..]),
        ["application/merge-patch+json,a", "application/alto-costmap+json,whole"]
    );
    assert_eq!(after[3].1["cost-map"], serde_json::json!({ "PID1": { "PID2": 25 } }));
    assert_eq!(after[4].1["cost-map"]["PID1"]["PID2"], 6);
    server.stop().await;
}

fn text_head(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

/// What a client has already is not sent; too many subscribers are sent away.
#[tokio::test(flavor = "multi_thread")]
async fn known_versions_are_left_out_and_subscribers_are_bounded() {
    let limits = Limits { subscribers: 1, ..Limits::default() };
    let server = Running::start_on("127.0.0.1:0".parse().unwrap(), RFC, limits).await;
    let mut follower = Follower::start(server.client(), impatient());
    until(&mut follower, |follower| cost(follower) == Some(5.0)).await;
    let body = r#"{"add":{"a":{"resource-id":"my-default-network-map"}}}"#;
    let answer = server.post("/updates", "application/alto-updatestreamparams+json", body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    drop(follower);
    let tag = server.get("/networkmap/my-default-network-map").await.json()["meta"]["vtag"]["tag"].clone();
    let body = format!(r#"{{"add":{{"a":{{"resource-id":"my-default-network-map","tag":{tag}}}}}}}"#);
    let subscribed = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            let answer = server.post("/updates", "application/alto-updatestreamparams+json", &body).await;
            if answer.status == 200 {
                return answer;
            }
        }
    });
    // The stream is open and silent: the answer never ends.
    assert!(subscribed.await.is_err());
    server.stop().await;
}

/// A server without update streams is asked now and then.
#[tokio::test(flavor = "multi_thread")]
async fn without_update_streams_the_client_asks_again() {
    let server = Running::start(RFC).await;
    let proxy = without_updates(server.address).await;
    let client = AltoClient::new(&format!("http://{proxy}/"), &ClientOptions::default()).unwrap();
    let mut follower = Follower::start(client, impatient());
    until(&mut follower, |follower| cost(follower) == Some(5.0)).await;
    server.folder.write(&RFC.replace("PID2 = 5", "PID2 = 6"));
    let took = until(&mut follower, |follower| cost(follower) == Some(6.0)).await;
    assert!(took < IN_TIME, "{took:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(follower.age().unwrap() < Duration::from_millis(300), "304 counts as being told");
    server.stop().await;
}

/// Passes on everything but what makes the directory's update stream one.
async fn without_updates(server: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                let length = client.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..length])
                    .replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                let mut upstream = TcpStream::connect(server).await.unwrap();
                upstream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                upstream.read_to_end(&mut answer).await.unwrap();
                let answer =
                    String::from_utf8(answer).unwrap().replace("text/event-stream", "text/other-stream");
                let _gone = client.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}
