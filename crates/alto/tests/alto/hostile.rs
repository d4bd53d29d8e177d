//! What is huge, deep, slow or malformed costs bounded memory and time, and ends in a clear error.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{RFC, Running, ask};
use caudal_alto::map::{CostMap, NetworkMap, PIDS_MAX};
use caudal_alto::server::{ENDPOINT_PAIRS_MAX, Limits};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const COST_PARAMS: &str = "application/alto-endpointcostparams+json";

/// 100,000 prefixes in 50 PIDs.
fn large() -> String {
    let mut text =
        String::from("[costs]\nsame = 1\ntransit = 20\n[pids]\ndefault = [\"0.0.0.0/0\", \"::/0\"]\n");
    for pid in 0..50u32 {
        let _written = write!(text, "p{pid} = [");
        for n in 0..2000u32 {
            let bits = (pid * 2000 + n) << 12;
            let _written = write!(text, "\"{}/20\", ", std::net::Ipv4Addr::from_bits(bits));
        }
        text += "]\n";
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_100000_prefixes_is_read_served_and_fetched() {
    let begun = Instant::now();
    let server = Running::start(&large()).await;
    let client = server.client();
    let directory = client.directory().await.unwrap();
    let maps = client.maps(&directory, None, &[caudal_alto::types::Metric::routingcost()]).await.unwrap();
    assert_eq!(maps.network().prefix_count(), 100_002);
    assert_eq!(maps.pid("0.0.16.1".parse().unwrap()).unwrap().as_str(), "p0");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_ask_for_too_much_are_refused() {
    let server = Running::start(RFC).await;
    let many: Vec<String> =
        (0..600u32).map(|n| format!("ipv4:{}", std::net::Ipv4Addr::from_bits(n << 8))).collect();
    let body = json!({
        "cost-type": { "cost-mode": "numerical", "cost-metric": "routingcost" },
        "endpoints": { "srcs": many, "dsts": many },
    });
    assert!(many.len() * many.len() > ENDPOINT_PAIRS_MAX);
    let (code, field, value) = server.post("/endpointcost", COST_PARAMS, &body.to_string()).await.error();
    assert_eq!((code.as_str(), field.as_deref()), ("E_INVALID_FIELD_VALUE", Some("endpoints")));
    assert!(value.unwrap().contains("360000 pairs"));
    // Deeply nested: refused by the parser, not by the stack.
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{{\"pids\":{}{}}}", open.repeat(100_000), close.repeat(100_000));
        let answer = server
            .post("/networkmap/my-default-network-map", "application/alto-networkmapfilter+json", &deep)
            .await;
        assert_eq!(answer.error().0, "E_SYNTAX");
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_silent_clients_are_cut() {
    let short = Duration::from_millis(300);
    let limits =
        Limits { header_timeout: short, body_timeout: short, write_timeout: short, ..Limits::default() };
    let server = Running::start_on("127.0.0.1:0".parse().unwrap(), &large(), limits).await;
    let closed = async |sent: &[u8]| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "still open after {:?}", String::from_utf8_lossy(sent));
        answer
    };
    closed(b"").await;
    closed(b"GET /direct").await;
    let half = format!(
        "POST /endpointcost HTTP/1.1\r\nHost: x\r\nContent-Type: {COST_PARAMS}\r\nContent-Length: 50\r\n\r\n{{"
    );
    let answer = closed(half.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    // One that asks again and again, and reads nothing.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let flood = "GET /networkmap/network HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    stream.write_all(flood.as_bytes()).await.unwrap();
    let begun = Instant::now();
    loop {
        let metrics = server.get("/metrics").await;
        // The one that asks for metrics is open, too.
        if String::from_utf8_lossy(&metrics.body).contains("alto_connections 1\n") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the connection that nobody reads is still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_work_than_the_server_has_room_for_is_told_to_come_again() {
    let limits = Limits { waiting: 0, ..Limits::default() };
    let server = Running::start_on("127.0.0.1:0".parse().unwrap(), RFC, limits).await;
    let headers = [("Content-Type", "application/alto-networkmapfilter+json")];
    let answer =
        ask(server.address, "POST", "/networkmap/my-default-network-map", &headers, b"{\"pids\":[]}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    server.stop().await;
}

/// What is answered and not read takes room, of which there is so much.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_bounded() {
    let mut text = String::from("[costs]\nsame = 1\ntransit = 20\n[pids]\ndefault = [\"0.0.0.0/0\"]\n");
    for n in 0..1000 {
        let _written = writeln!(text, "p{n} = [\"10.{}.{}.0/24\"]", n / 250, n % 250);
    }
    let limits = Limits { answers_len: 32 * 1024 * 1024, ..Limits::default() };
    let server = Running::start_on("127.0.0.1:0".parse().unwrap(), &text, limits).await;
    // The whole cost map: 10 MB, more than the system's buffers take.
    let body = r#"{"cost-type":{"cost-mode":"numerical","cost-metric":"routingcost"}}"#;
    let status = async |silent: &mut Vec<TcpStream>| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = "POST /costmap/network HTTP/1.1\r\nHost: x\r\nContent-Type: application/alto-costmapfilter+json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        silent.push(stream);
        String::from_utf8_lossy(&begin[9..]).into_owned()
    };
    let mut silent = Vec::new();
    while status(&mut silent).await == "200" {
        assert!(silent.len() < 5, "more waits than there is room for");
    }
    assert!(silent.len() > 2, "{} answers fit", silent.len());
    // What is small is still answered.
    let small = "application/alto-networkmapfilter+json";
    assert_eq!(server.post("/networkmap/network", small, r#"{"pids":["p1"]}"#).await.status, 200);
    // Who is gone leaves room.
    silent.clear();
    let begun = Instant::now();
    while status(&mut silent).await != "200" {
        assert!(begun.elapsed() < Duration::from_secs(5), "room comes back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop().await;
}

/// A client's memory does not grow with what a server sends, however small its pieces are.
#[test]
fn maps_that_are_too_large_or_no_maps_are_errors() {
    let meta = r#""meta":{"vtag":{"resource-id":"n","tag":"t"}}"#;
    let pids: String = (0..=PIDS_MAX).map(|n| format!("\"p{n}\":{{}},")).collect();
    let many = format!("{{{meta},\"network-map\":{{{}}}}}", pids.trim_end_matches(','));
    assert!(NetworkMap::read(many.as_bytes()).unwrap_err().to_string().contains("more than 2048 PIDs"));
    let network = Arc::new(
        NetworkMap::read(
            format!("{{{meta},\"network-map\":{{\"a\":{{\"ipv4\":[\"0.0.0.0/0\"]}}}}}}").as_bytes(),
        )
        .unwrap(),
    );
    for (map, wrong) in [
        ("", "EOF"),
        ("7", "object"),
        ("{}", "meta/vtag"),
        (r#"{"network-map":{}}"#, "meta/vtag"),
        (r#"{"meta":{"vtag":{"resource-id":"n","tag":"a b"}},"network-map":{}}"#, "meta/vtag"),
        (r#"{"meta":{"vtag":{"resource-id":"n","tag":"t"}}}"#, "network-map is missing"),
        (r#"{"network-map":{"a":null}}"#, "null"),
        (r#"{"network-map":{"a":{"ipv4":["2001:db8::/32"]}}}"#, "no prefix"),
        (r#"{"network-map":{"a":{"ipv4":[7]}}}"#, "integer"),
        (r#"{"network-map":{"a b":{}}}"#, "no name"),
        (r#"{"network-map":{},"network-map":{}}"#, "twice"),
        (
            r#"{"meta":{"vtag":{"resource-id":"n","tag":"t"}},"network-map":{"a":{"ipv4":["10.0.0.0/8"]},"b":{"ipv4":["10.0.0.0/8"]}}}"#,
            "in a and in b",
        ),
    ] {
        let error = NetworkMap::read(map.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(wrong), "{map}: {error}");
    }
    let good = r#"{"dependent-vtags":[{"resource-id":"n","tag":"t"}],"cost-type":{"cost-mode":"numerical","cost-metric":"routingcost"}}"#;
    for (map, wrong) in [
        (format!(r#"{{"meta":{good},"cost-map":{{"a":{{"a":"1"}}}}}}"#), "string"),
        (format!(r#"{{"meta":{good},"cost-map":{{"a":{{"a":null}}}}}}"#), "null"),
        (format!(r#"{{"meta":{good},"cost-map":{{"a":[1]}}}}"#), "sequence"),
        (format!(r#"{{"meta":{good}}}"#), "cost-map is missing"),
        (r#"{"cost-map":{}}"#.to_owned(), "cost-type is missing"),
        (format!(r#"{{"meta":{},"cost-map":{{}}}}"#, good.replace("\"t\"", "\"u\"")), "version u"),
        (format!(r#"{{"meta":{},"cost-map":{{}}}}"#, good.replace("numerical", "other")), "no cost mode"),
    ] {
        let error = CostMap::read(map.as_bytes(), &network).unwrap_err().to_string();
        assert!(error.contains(wrong), "{map}: {error}");
    }
    let deep = format!("{{{meta},\"x\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let begun = Instant::now();
    assert!(NetworkMap::read(deep.as_bytes()).is_err());
    assert!(begun.elapsed() < Duration::from_secs(2));
}
