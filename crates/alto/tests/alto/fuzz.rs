//! Every decoder with damaged, spliced and random input: none panics, and what is taken can be written and read again.
//!
//! Decoders: network map and cost map, directory, endpoint costs and properties, `alto.toml`, IP-to-ASN tables, and, through
//! the running server, the bodies of all five POST resources and HTTP itself. (Changes and events of update streams have their
//! own tests beside them, where they can be reached.)

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{RFC, Running};
use caudal_alto::build::{BuildOptions, build};
use caudal_alto::client::{Directory, read_endpoint_costs, read_properties};
use caudal_alto::config::Config;
use caudal_alto::map::{CostMap, NetworkMap};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Rounds for each decoder in an ordinary test run; `FUZZ_ROUNDS` sets another number.
fn rounds(usual: u32) -> u32 {
    std::env::var("FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

const WORDS: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "-1",
    "1e999",
    "0.0.0.0/0",
    "::/0",
    "ipv4",
    "\\u0000",
    "\n",
    "\t",
    "=",
    "meta",
    "PID1",
    "\u{ff}",
    "999999999999999999999999",
];

/// Damages `seed`: flips, cuts, repeats, splices words in.
fn damaged(rng: &mut fastrand::Rng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = if bytes.is_empty() { 0 } else { rng.usize(..bytes.len()) };
        let end = (at + rng.usize(..20)).min(bytes.len());
        match rng.u8(..6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes.truncate(at),
            2 => _ = bytes.drain(at..end),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let word = WORDS[rng.usize(..WORDS.len())];
                bytes.splice(at..end, word.bytes());
            }
            _ => {
                let piece: Vec<u8> = (0..rng.usize(..8)).map(|_| rng.u8(..)).collect();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_never_panic() {
    let server = Running::start(RFC).await;
    let get = async |path: &str| server.get(path).await.body;
    let network_json = get("/networkmap/my-default-network-map").await;
    let costs_json = get("/costmap/my-default-network-map/num-routingcost").await;
    let directory_json = get("/directory").await;
    server.stop().await;
    let network = Arc::new(NetworkMap::read(&network_json).unwrap());
    let url = "http://192.0.2.1/".parse().unwrap();
    let endpoint_costs = br#"{"endpoint-cost-map":{"ipv4:192.0.2.1":{"ipv4:192.0.2.2":1.5}}}"#;
    let properties = br#"{"endpoint-properties":{"ipv4:192.0.2.1":{"n.pid":"PID1"}}}"#;
    let table = "192.0.2.0\t192.0.2.255\t64500\tES\tONE\n2001:db8::/32,AS64501,IT,TWO\n";
    let mut rng = fastrand::Rng::with_seed(6);
    let mut taken = 0;
    for _ in 0..rounds(3_000) {
        if let Ok(map) = NetworkMap::read(&damaged(&mut rng, &network_json)) {
            taken += 1;
            // Looking up in whatever came out is fine.
            let _pid = map.pid_of("192.0.2.1".parse().unwrap());
        }
        let _read = CostMap::read(&damaged(&mut rng, &costs_json), &network);
        let _read = Directory::read(&url, &damaged(&mut rng, &directory_json));
        let _read = read_endpoint_costs(&damaged(&mut rng, endpoint_costs));
        let _read = read_properties(&damaged(&mut rng, properties), "n.pid");
        let text = damaged(&mut rng, RFC.as_bytes());
        if let Ok(text) = std::str::from_utf8(&text)
            && let Ok(config) = Config::parse(text, Path::new(""))
        {
            for map in &config.maps {
                map.network.check_complete().unwrap();
            }
        }
        let text = damaged(&mut rng, table.as_bytes());
        if let Ok(text) = std::str::from_utf8(&text)
            && let Ok(built) = build(text, &BuildOptions::default())
        {
            let config = Config::parse(&built.text, Path::new(""));
            let config = config.unwrap_or_else(|error| panic!("{error}\nof {text:?}\n{}", built.text));
            assert_eq!(config.maps[0].network.pids().len(), built.pids);
        }
    }
    assert!(taken > 10, "damage that leaves a map a map is among it: {taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_requests_are_answered() {
    let server = Running::start(RFC).await;
    let cost_type = r#""cost-type":{"cost-mode":"numerical","cost-metric":"routingcost"}"#;
    let bodies = [
        (
            "/networkmap/my-default-network-map",
            "networkmapfilter",
            r#"{"pids":["PID1"],"address-types":["ipv4"]}"#.to_owned(),
        ),
        (
            "/costmap/my-default-network-map",
            "costmapfilter",
            format!(r#"{{{cost_type},"constraints":["gt 1"],"pids":{{"srcs":["PID1"],"dsts":[]}}}}"#),
        ),
        (
            "/endpointprop",
            "endpointpropparams",
            r#"{"properties":["my-default-network-map.pid"],"endpoints":["ipv4:192.0.2.1"]}"#.to_owned(),
        ),
        (
            "/endpointcost",
            "endpointcostparams",
            format!(
                r#"{{{cost_type},"endpoints":{{"srcs":["ipv4:192.0.2.1"],"dsts":["ipv6:2001:db8::1"]}}}}"#
            ),
        ),
        // One that is wrong to begin with: a right one would be an endless answer.
        (
            "/updates",
            "updatestreamparams",
            r#"{"add":{"a":{"resource-id":"nothing","tag":"t","incremental-changes":true}}}"#.to_owned(),
        ),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..rounds(400) {
        for (path, media_type, body) in &bodies {
            let body = damaged(&mut rng, body.as_bytes());
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/alto-{media_type}+json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            let answer = read_answer(&mut stream).await;
            let shown = String::from_utf8_lossy(&body);
            assert!(
                answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 400"),
                "{path} {shown}: {answer}"
            );
        }
    }
    // HTTP itself.
    for _ in 0..rounds(100) {
        let request = damaged(
            &mut rng,
            b"GET /directory HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"a\"\r\nAccept: */*\r\n\r\n",
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _gone = stream.write_all(&request).await;
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop().await;
}

/// One answer of a connection that stays open.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut piece = vec![0; 16 * 1024];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut piece));
        let length = read.await.expect("an answer comes").unwrap();
        assert!(length > 0, "the connection was closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let wanted = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if wanted.and_then(|length| length.parse::<usize>().ok()) == Some(body.len()) {
                return text.into_owned();
            }
        }
    }
}
