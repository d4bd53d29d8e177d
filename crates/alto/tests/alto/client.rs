//! The client against the server, and against servers that do what they should not.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::{RFC, Running, data};
use caudal_alto::client::{AddressRule, AltoClient, ClientError, ClientOptions, FollowOptions, Follower};
use caudal_alto::types::{CostMode, CostType, Metric};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn routing() -> Vec<Metric> {
    vec![Metric::routingcost()]
}

#[tokio::test]
async fn maps_are_fetched_whole_and_looked_up_here() {
    let server = Running::start(RFC).await;
    let client = server.client();
    let directory = client.directory().await.unwrap();
    let maps = client
        .maps(&directory, None, &[Metric::routingcost(), Metric::new("hopcount").unwrap()])
        .await
        .unwrap();
    assert_eq!(maps.pid(ip("192.0.2.34")).unwrap().as_str(), "PID1");
    assert_eq!(maps.cost(ip("192.0.2.34"), ip("198.51.100.200")), Some(5.0));
    assert_eq!(maps.cost(ip("8.8.8.8"), ip("2001:db8::1")), None);
    assert_eq!(maps.cost_by(&Metric::new("hopcount").unwrap(), ip("8.8.8.8"), ip("192.0.2.1")), Some(4.0));
    let ordinal = CostType { mode: CostMode::Ordinal, ..CostType::routingcost() };
    let costs = client
        .endpoint_costs(&directory, &ordinal, &[ip("192.0.2.1")], &[ip("192.0.2.2"), ip("9.9.9.9")])
        .await;
    let costs = costs.unwrap();
    assert_eq!(costs["ipv4:192.0.2.1"]["ipv4:9.9.9.9"], 2.0);
    let pids = client.endpoint_pids(&directory, None, &[ip("2001:db8::7")]).await.unwrap();
    assert_eq!(pids["ipv6:2001:db8::7"], "PID3");
    let error = client.endpoint_costs(&directory, &CostType::routingcost(), &[], &[]).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Alto { code, field, .. }
        if code == "E_INVALID_FIELD_VALUE" && field.as_deref() == Some("endpoints")),
        "{error}"
    );
    let unknown = client.maps(&directory, Some("other"), &routing()).await.unwrap_err();
    assert!(matches!(unknown, ClientError::NotOffered { .. }), "{unknown}");
    server.stop().await;
}

#[tokio::test]
async fn https_is_spoken_and_strangers_are_not_believed() {
    let tls = format!(
        "{RFC}[server]\ntls-certificate = {:?}\ntls-key = {:?}\n",
        data("test-cert.pem"),
        data("test-key.pem")
    );
    let server = Running::start(&tls).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let authority = std::fs::read(data("test-cert.pem")).unwrap();
    let options = ClientOptions::default().with_authorities(authority);
    let directory = AltoClient::new(&url, &options).unwrap().directory().await.unwrap();
    assert!(directory.resources().all(|resource| resource.url.scheme() == "https"));
    let stranger = AltoClient::new(&url, &ClientOptions::default()).unwrap().directory().await.unwrap_err();
    assert!(
        matches!(&stranger, ClientError::Unreachable { why, .. } if why.contains("ertificate")),
        "{stranger}"
    );
    for bad in ["", "alto.example", "ftp://alto.example/", "file:///etc/passwd"] {
        assert!(matches!(AltoClient::new(bad, &options), Err(ClientError::Url { .. })), "{bad}");
    }
    server.stop().await;
}

/// A server that answers by hand: for each path the answers one after the other, the last again and again.
struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

type Script = Vec<(&'static str, Vec<String>)>;

impl Scripted {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<(String, Instant)>>> = Arc::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    let mut piece = [0; 4096];
                    let length = stream.read(&mut piece).await.unwrap_or(0);
                    if length == 0 {
                        break;
                    }
                    request.extend_from_slice(&piece[..length]);
                }
                let head = String::from_utf8_lossy(&request);
                let path = head.split(' ').nth(1).unwrap_or("").to_owned();
                let before = log.lock().unwrap().iter().filter(|(other, _)| *other == path).count();
                log.lock().unwrap().push((path.clone(), Instant::now()));
                let answers = script.iter().find(|(other, _)| *other == path).map(|(_, answers)| answers);
                let answer = answers
                    .map_or("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", |answers| {
                        &answers[before.min(answers.len() - 1)]
                    });
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, asked }
    }

    fn client(&self, options: &ClientOptions) -> AltoClient {
        AltoClient::new(&format!("http://{}/", self.address), options).unwrap()
    }

    fn times(&self, path: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(other, _)| other == path).map(|(_, at)| *at).collect()
    }
}

fn ok(media_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

const DIRECTORY: &str = "application/alto-directory+json";
const NETWORK: &str = "application/alto-networkmap+json";
const COSTS: &str = "application/alto-costmap+json";

fn directory(meta: &str) -> String {
    ok(
        DIRECTORY,
        &format!(
            r#"{{"meta":{{"cost-types":{{"num":{{"cost-mode":"numerical","cost-metric":"routingcost"}}}}{meta}}},
            "resources":{{"net":{{"uri":"net","media-type":"{NETWORK}"}},
            "broken":7,"else":{{"uri":"gopher://x","media-type":"x"}},
            "costs":{{"uri":"/costs","media-type":"{COSTS}","capabilities":{{"cost-type-names":["num","unknown"]}},"uses":["net"]}}}}}}"#
        ),
    )
}

fn network(tag: &str) -> String {
    ok(
        NETWORK,
        &format!(
            r#"{{"more":[{{"deep":true}}],"meta":{{"vtag":{{"resource-id":"net","tag":"{tag}","x":1}},"x":{{}}}},
            "network-map":{{"a":{{"ipv4":["0.0.0.0/0"],"mac":["00:00"]}},"b":{{"token":[1]}}}}}}"#
        ),
    )
}

fn costs(tag: &str) -> String {
    ok(
        COSTS,
        &format!(
            r#"{{"meta":{{"dependent-vtags":[{{"resource-id":"net","tag":"{tag}"}}],
            "cost-type":{{"cost-mode":"numerical","cost-metric":"routingcost","description":"x"}}}},
            "cost-map":{{"a":{{"a":1,"nobody":2}},"nobody":{{"a":3}}}},"x":null}}"#
        ),
    )
}

#[tokio::test]
async fn unknown_fields_are_ignored_and_a_default_map_is_found() {
    for meta in ["", r#","default-alto-network-map":"gone""#, r#","default-alto-network-map":7"#] {
        let script =
            vec![("/", vec![directory(meta)]), ("/net", vec![network("1")]), ("/costs", vec![costs("1")])];
        let server = Scripted::start(script).await;
        let client = server.client(&ClientOptions::default());
        let maps = client.maps(&client.directory().await.unwrap(), None, &routing()).await.unwrap();
        assert_eq!(maps.cost(ip("192.0.2.1"), ip("192.0.2.2")), Some(1.0));
        // A PID without families that are known is still one.
        assert!(maps.network().index("b").is_some());
    }
}

#[tokio::test]
async fn maps_that_do_not_fit_are_fetched_again() {
    let script = vec![
        ("/", vec![directory("")]),
        ("/net", vec![network("1"), network("2")]),
        ("/costs", vec![costs("2")]),
    ];
    let server = Scripted::start(script).await;
    let client = server.client(&ClientOptions::default());
    let maps = client.maps(&client.directory().await.unwrap(), None, &routing()).await.unwrap();
    assert_eq!(maps.network().vtag().tag, "2");
    let script = vec![("/", vec![directory("")]), ("/net", vec![network("1")]), ("/costs", vec![costs("2")])];
    let server = Scripted::start(script).await;
    let client = server.client(&ClientOptions::default());
    let never = client.maps(&client.directory().await.unwrap(), None, &routing()).await.unwrap_err();
    assert!(matches!(never, ClientError::Mismatch { .. }), "{never}");
    assert!(server.times("/net").len() <= 5);
}

#[tokio::test]
async fn what_is_of_another_type_is_not_read() {
    let body = r#"{"meta":{},"resources":{}}"#;
    for wrong in [
        ok("application/json", body),
        ok("text/html", "<html>"),
        ok(NETWORK, body),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    ] {
        let server = Scripted::start(vec![("/", vec![wrong.clone()])]).await;
        let error = server.client(&ClientOptions::default()).directory().await.unwrap_err();
        assert!(
            matches!(&error, ClientError::MediaType { expected, .. } if *expected == DIRECTORY),
            "{wrong}: {error}"
        );
    }
    // A parameter is not another type.
    let lenient = ok("application/alto-directory+json; charset=utf-8", body);
    let server = Scripted::start(vec![("/", vec![lenient])]).await;
    assert!(server.client(&ClientOptions::default()).directory().await.is_ok());
    for bad in ["", "{", "[]", r#"{"meta":{}}"#, r#"{"resources":[]}"#] {
        let server = Scripted::start(vec![("/", vec![ok(DIRECTORY, bad)])]).await;
        let error = server.client(&ClientOptions::default()).directory().await.unwrap_err();
        assert!(matches!(error, ClientError::BadAnswer { .. }), "{bad}: {error}");
    }
}

/// Section 8.5.3.
#[tokio::test]
async fn a_busy_server_is_left_alone_as_long_as_it_asks() {
    let busy = |seconds: u32| {
        format!(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Type: text/plain\r\n\
             Content-Length: 5\r\nConnection: close\r\n\r\nbusy\n"
        )
    };
    let server = Scripted::start(vec![("/", vec![busy(1), directory("")])]).await;
    server.client(&ClientOptions::default()).directory().await.unwrap();
    let times = server.times("/");
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= Duration::from_secs(1));
    // Longer than the caller has time: it is told how long.
    let server = Scripted::start(vec![("/", vec![busy(3600)])]).await;
    let error = server.client(&ClientOptions::default()).directory().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(error.to_string().contains("busy"), "{error}");
    assert_eq!(server.times("/").len(), 1);
    // For ever busy: given up.
    let options = ClientOptions::default().with_wait_max(Duration::from_secs(1));
    let server = Scripted::start(vec![("/", vec![busy(0)])]).await;
    assert!(server.client(&options).directory().await.is_err());
    assert!(server.times("/").len() <= 4);
}

/// Who follows a stranger's word goes nowhere else by it: not by a name, a redirect or the directory's own resources.
#[tokio::test]
async fn a_server_leads_only_to_addresses_that_are_allowed() {
    let rule = |allowed: &'static str| AddressRule::new(move |address| address == ip(allowed));
    let here = ClientOptions::default().with_addresses(rule("127.0.0.1"));
    let elsewhere = ClientOptions::default().with_addresses(rule("192.0.2.1"));
    let server = Scripted::start(vec![("/", vec![directory("")]), ("/net", vec![network("1")])]).await;
    assert!(server.client(&here).directory().await.is_ok());
    let refused = server.client(&elsewhere).directory().await.unwrap_err();
    assert!(matches!(refused, ClientError::Forbidden { .. }), "{refused}");
    let named = format!("http://localhost:{}/", server.address.port());
    let refused = AltoClient::new(&named, &elsewhere).unwrap().directory().await.unwrap_err();
    assert!(refused.to_string().contains("may not lead"), "{refused}");
    assert_eq!(server.times("/").len(), 1, "nobody was asked");

    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:9/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let server = Scripted::start(vec![("/", vec![moved.to_owned()])]).await;
    let refused = server.client(&here).directory().await.unwrap_err();
    assert!(refused.to_string().contains("may not lead"), "{refused}");

    let lure = directory("").replace(r#""uri":"net""#, r#""uri":"http://[::ffff:127.0.0.2]:9/n""#);
    let length = lure.split("\r\n\r\n").nth(1).map_or(0, str::len);
    let server = Scripted::start(vec![("/", vec![ok(DIRECTORY, &lure[lure.len() - length..])])]).await;
    let client = server.client(&here);
    let refused = client.maps(&client.directory().await.unwrap(), None, &routing()).await.unwrap_err();
    assert!(matches!(refused, ClientError::Forbidden { .. }), "{refused}");
}

/// RFC 8895 leaves it to the server how many may listen.
#[tokio::test]
async fn a_server_with_no_room_for_another_stream_is_asked_now_and_then() {
    let streams = directory("").replace(
        r#""broken":7"#,
        r#""up":{"uri":"up","media-type":"text/event-stream","accepts":"application/alto-updatestreamparams+json","uses":["net","costs"]}"#,
    );
    let length = streams.split("\r\n\r\n").nth(1).map_or(0, str::len);
    let full =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
    let server = Scripted::start(vec![
        ("/", vec![ok(DIRECTORY, &streams[streams.len() - length..])]),
        ("/up", vec![full]),
        ("/net", vec![network("1"), network("2")]),
        ("/costs", vec![costs("1"), costs("2")]),
    ])
    .await;
    let waits = [50, 10, 20].map(Duration::from_millis);
    let options = FollowOptions::default().with_waits(waits[0], waits[1], waits[2]);
    let follower = Follower::start(server.client(&ClientOptions::default()), options);
    let begun = Instant::now();
    while follower.snapshot().is_none_or(|maps| maps.network().vtag().tag != "2") {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", follower.problem());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(follower.fresh().is_some());
    assert_eq!(server.times("/up").len(), 1);
}

/// Section 9.2.4: directories that lead to each other.
#[tokio::test]
async fn other_directories_are_read_and_circles_end() {
    let root = ok(
        DIRECTORY,
        &format!(
            r#"{{"meta":{{"default-alto-network-map":"net"}},"resources":{{
            "net":{{"uri":"/net","media-type":"{NETWORK}"}},
            "more":{{"uri":"/more","media-type":"{DIRECTORY}"}},"gone":{{"uri":"/gone","media-type":"{DIRECTORY}"}}}}}}"#
        ),
    );
    let more = ok(
        DIRECTORY,
        &format!(
            r#"{{"meta":{{"cost-types":{{"mine":{{"cost-mode":"ordinal","cost-metric":"routingcost"}}}}}},"resources":{{
            "back":{{"uri":"/","media-type":"{DIRECTORY}"}},"self":{{"uri":"/more","media-type":"{DIRECTORY}"}},
            "costs":{{"uri":"/costs","media-type":"{COSTS}","accepts":"application/alto-costmapfilter+json",
            "capabilities":{{"cost-type-names":["mine"]}},"uses":["net"]}}}}}}"#
        ),
    );
    let script = vec![
        ("/", vec![root]),
        ("/more", vec![more]),
        ("/net", vec![network("1")]),
        ("/costs", vec![costs("1")]),
    ];
    let server = Scripted::start(script).await;
    let client = server.client(&ClientOptions::default());
    let directory = client.directory().await.unwrap();
    assert!((2..=3).contains(&server.times("/").len()) || server.times("/").len() == 1);
    assert_eq!(server.times("/more").len(), 1);
    // Only a filtered map is offered: it is asked for all.
    let maps = client.maps(&directory, None, &routing()).await.unwrap();
    assert_eq!(maps.cost(ip("192.0.2.1"), ip("192.0.2.2")), Some(1.0));
}
