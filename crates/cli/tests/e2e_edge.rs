//! An edge behind a real nginx as CDN: each part is fetched once however many viewers ask, who watches without P2P meets
//! nobody, and nothing forged on the way is played.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::capture::Capture;
use common::{
    Caudal, Folder, PATIENCE, get, link, number, publish_card, request, run_clean, start_tool, tracker,
    wait_for,
};

/// Where those are who are in the swarm; who watches by HTTP alone is not.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 78, 1);
const EDGE: Ipv4Addr = Ipv4Addr::new(127, 0, 78, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 78, 3);

/// nginx as a cache before `origin`.
struct Nginx {
    child: Child,
    url: String,
    log: std::path::PathBuf,
}

impl Nginx {
    fn start(home: &Folder, origin: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
        let dir = home.path().display();
        let log = home.join("access.log");
        // As docs/http.md has it, with all that nginx writes in the test's folder.
        let config = format!(
            "daemon off; pid {dir}/nginx.pid; worker_processes 1; events {{ worker_connections 256; }}
             http {{
                 log_format seen '$upstream_cache_status $status $request_uri';
                 access_log {} seen;
                 proxy_cache_path {dir}/cache keys_zone=caudal:1m;
                 proxy_temp_path {dir}/proxy; client_body_temp_path {dir}/body; fastcgi_temp_path {dir}/fastcgi;
                 uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                 server {{
                     listen 127.0.0.1:{port};
                     location /v1/channels/ {{
                         proxy_pass {origin}; proxy_http_version 1.1; proxy_set_header Connection \"\";
                         proxy_cache caudal; proxy_cache_lock on;
                         proxy_cache_lock_timeout 10s; proxy_cache_lock_age 10s;
                     }}
                 }}
             }}",
            log.display()
        );
        let path = home.join("nginx.conf");
        std::fs::write(&path, config).expect("a folder of the test's own");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(home.path()).arg("-c").arg(&path).arg("-e").arg(home.join("error.log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("nginx is needed (Debian: nginx-light)");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, url: format!("http://127.0.0.1:{port}"), log }
    }

    /// How often each part was fetched from the origin, and how often it was answered.
    fn parts(&self) -> BTreeMap<String, (u32, u32)> {
        let log = std::fs::read_to_string(&self.log).expect("nginx logs");
        let mut parts = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains("/parts/")) {
            let words: Vec<&str> = line.split(' ').collect();
            let counts: &mut (u32, u32) = parts.entry(words[2].to_owned()).or_default();
            counts.0 += u32::from(words[0] != "HIT" && words[1] == "200");
            counts.1 += u32::from(words[1] == "200");
        }
        parts
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        common::signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

/// Whether a part is to be forged: its number, and whether caches are passed over.
type Chosen = dyn Fn(u64, bool) -> bool + Send + Sync;

/// Something between a viewer and an edge that changes the last byte of those parts that are chosen.
fn forger(
    origin: &str,
    chosen: impl Fn(u64, bool) -> bool + Send + Sync + 'static,
) -> (String, Arc<AtomicU32>) {
    let origin: SocketAddr = origin.trim_start_matches("http://").parse().expect("http://IP:PORT");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let forged = Arc::new(AtomicU32::new(0));
    let (count, chosen) = (Arc::clone(&forged), Arc::new(chosen));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (count, chosen) = (Arc::clone(&count), Arc::clone(&chosen));
            std::thread::spawn(move || forge(&stream, origin, &*chosen, &count));
        }
    });
    (url, forged)
}

fn forge(stream: &TcpStream, origin: SocketAddr, chosen: &Chosen, forged: &AtomicU32) {
    let mut head = String::new();
    let mut lines = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let Ok(mut upstream) = TcpStream::connect(origin) else { return };
    let _ = write!(upstream, "GET {path} HTTP/1.1\r\nHost: {origin}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = upstream.read_to_end(&mut answer);
    let part =
        path.rsplit_once('-').filter(|_| path.contains("/parts/")).map(|(_, part)| part.parse::<u64>());
    let is_afresh = head.to_lowercase().contains("no-cache");
    let is_chosen = part.is_some_and(|part| part.is_ok_and(|part| chosen(part, is_afresh)));
    if is_chosen && answer.starts_with(b"HTTP/1.1 200") {
        if let Some(last) = answer.last_mut() {
            *last ^= 1;
        }
        forged.fetch_add(1, Ordering::Relaxed);
    }
    let mut stream = stream;
    let _ = stream.write_all(&answer);
}

/// Inodes of the sockets of a process.
fn sockets(id: u32) -> BTreeSet<String> {
    let files = std::fs::read_dir(format!("/proc/{id}/fd")).expect("the process runs");
    let links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    let inode = |link: std::path::PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

/// Of the system's table, such as `tcp6`: local and remote ports of the sockets in `of`.
fn ports(table: &str, of: &BTreeSet<String>) -> Vec<(u16, u16)> {
    let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let port = |word: &str| u16::from_str_radix(word.rsplit(':').next().unwrap_or_default(), 16).unwrap_or(0);
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(9).is_some_and(|inode| of.contains(*inode)))
        .map(|row| (port(row[1]), port(row[2])))
        .collect()
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port")
}

/// It has no UDP socket, and of TCP none but to tracker and edge, and those of its own server.
fn meets_nobody(viewer: &Caudal, allowed: &[&str]) {
    let sockets = sockets(viewer.id());
    for table in ["udp", "udp6", "raw", "raw6"] {
        assert_eq!(ports(table, &sockets), [], "{} has sockets in {table}", viewer.name);
    }
    let own = port_of(viewer.told("http"));
    let allowed: Vec<u16> = allowed.iter().map(|url| port_of(url)).collect();
    let open = [ports("tcp", &sockets), ports("tcp6", &sockets)].concat();
    assert!(open.iter().any(|(_, remote)| allowed.contains(remote)), "{open:?}");
    for (local, remote) in open {
        assert!(local == own || allowed.contains(&remote), "{}: a socket to port {remote}", viewer.name);
    }
}

#[test]
fn however_many_watch_through_a_cdn_each_part_leaves_the_edge_once_and_nobody_is_met() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &["--bind", &format!("{SOURCE}:0")]);
    let link = link(&source);
    let edge =
        Caudal::start(&home, &["edge", &link, "--listen", "127.0.0.1:0", "--bind", &format!("{EDGE}:0")]);
    let origin = edge.told("edge").to_owned();
    // Somebody who does take part: what comes to it and from it is captured.
    let other = Caudal::start(&home, &["watch", &link, "--bind", &format!("{OTHER}:0")]);
    common::wait_until_playing(&other);
    let capture = Capture::start(
        &home,
        &format!("udp and net 127.0.78.0/24 or tcp port {}", port_of(other.told("http"))),
    );
    assert!(edge.told("link").contains(&format!("&edge={origin}")), "{}", edge.ready);
    edge.wait_until("filled", PATIENCE, |stats| number(stats, "/edge/parts_held") >= 8.0);
    let nginx = Nginx::start(&home, &origin);
    let (forging, forged) = forger(&origin, |part, is_afresh| part % 5 == 3 && !is_afresh);
    // What one begins with is genuine, and nothing after it.
    let first = AtomicU64::new(u64::MAX);
    let (betraying, _) =
        forger(&origin, move |part, _| part > first.fetch_min(part, Ordering::Relaxed).min(part));

    let watch_at = |edges: &[&str]| {
        let args = ["watch", &link, "--no-p2p", "--listen", "127.0.0.1:0", "--duration", "6s"];
        Caudal::start(&home, &[&args[..], edges].concat())
    };
    let watch = |through: &str| watch_at(&["--edge", through]);
    let viewers: Vec<Caudal> = (0..4).map(|_| watch(&nginx.url)).collect();
    let deceived = watch(&forging);
    let betrayed = watch_at(&["--edge", &betraying, "--edge", &origin]);
    for viewer in &viewers {
        common::wait_until_playing(viewer);
        meets_nobody(viewer, &[tracker.told("http"), &nginx.url]);
    }
    assert!(!ports("udp", &sockets(edge.id())).is_empty(), "who is in the swarm would be seen");
    meets_nobody(&deceived, &[tracker.told("http"), &forging]);
    players_and_caches(&nginx.url, edge.told("channel"));

    for viewer in viewers {
        let name = viewer.name.clone();
        let (status, report, said) = viewer.ended();
        let report: serde_json::Value = serde_json::from_str(&report.expect("a report")).expect("JSON");
        assert!(status.success(), "{name}: {said}: {report}");
        assert_eq!(number(&report, "/gaps"), 0.0, "{report}");
        assert_eq!(number(&report, "/chunks/missing"), 0.0, "{report}");
        assert!(number(&report, "/continuity/3000") >= 0.98, "{report}");
        assert!(number(&report, "/parts") > 22.0, "{report}");
        // HTTP's bytes are the server's.
        assert_eq!(number(&report, "/offload_ratio"), 0.0, "{report}");
        assert!(number(&report, "/useful_bytes") > 500_000.0, "{report}");
        assert_eq!(report["useful_bytes"], report["useful_bytes_from_edge"], "{report}");
        assert_eq!(
            (&report["peers"], number(&report, "/bytes_out")),
            (&serde_json::json!([]), 0.0),
            "{report}"
        );
    }
    let parts = nginx.parts();
    assert!(parts.len() > 22, "{parts:?}");
    assert!(parts.values().all(|(fetched, _)| *fetched == 1), "fetched more than once: {parts:?}");
    assert!(parts.values().filter(|(_, answered)| *answered >= 4).count() > 15, "{parts:?}");

    let (status, report, said) = deceived.ended();
    let report: serde_json::Value = serde_json::from_str(&report.expect("a report")).expect("JSON");
    assert!(status.success(), "{said}: {report}");
    let times = f64::from(forged.load(Ordering::Relaxed));
    assert!(times >= 4.0 && number(&report, "/chunks_forged") >= times - 1.0, "forged {times}: {report}");
    assert_eq!(number(&report, "/gaps"), 0.0, "it asks past the cache, and plays on: {report}");
    assert!(report["dropped"][0].as_str().is_some_and(|why| why.contains("not signed")), "{report}");

    let (status, report, said) = betrayed.ended();
    let report: serde_json::Value = serde_json::from_str(&report.expect("a report")).expect("JSON");
    assert!(status.success(), "{said}: {report}");
    assert!(number(&report, "/chunks_forged") >= 4.0, "{report}");
    assert!(number(&report, "/parts") > 15.0, "the good edge is asked then: {report}");
    assert_eq!(number(&report, "/gaps"), 0.0, "also for what the other one forged: {report}");

    // Nobody but source and edge exchanged a packet with the one in the swarm, nor with each other.
    let packets = capture.end();
    let swarm = [SOURCE, EDGE, OTHER];
    let strange = packets.iter().find(|p| !swarm.contains(&p.from.0) || !swarm.contains(&p.to.0));
    assert!(strange.is_none(), "{:?}", strange.map(|p| (p.from, p.to)));
    let fed = packets.iter().filter(|p| p.to.0 == OTHER && p.payload > 1000).count();
    assert!(fed > 20, "the capture saw the swarm: {fed} large packets");
    other.end();
    let (report, status) = edge.end();
    assert!(status.success(), "{report}");
    assert_eq!((report["role"].as_str(), number(&report, "/bytes_out")), (Some("edge"), 0.0), "{report}");
}

/// LL-HLS plays in a player that knows nothing of Caudal; what caches hold can be asked for as the standards say.
fn players_and_caches(cdn: &str, channel: &str) {
    let base = format!("/v1/channels/{channel}");
    let probe = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", "-i"];
    let playlist = format!("{cdn}{base}/hls/index.m3u8");
    let probed = run_clean(Command::new("ffprobe").args(probe).arg(playlist));
    let codecs = String::from_utf8_lossy(&probed);
    assert!(codecs.contains("h264") && codecs.contains("aac"), "{codecs}");
    let (status, view) = get(cdn, &format!("{base}/edge"));
    assert_eq!(status, 200);
    let view: serde_json::Value = serde_json::from_slice(&view).expect("JSON");
    let part = format!("{base}/parts/{}-{}", view["epoch"], view["newest"]);
    let (status, whole) = get(cdn, &part);
    assert_eq!(status, 200);
    let host = cdn.trim_start_matches("http://");
    let ask = |more: &str| {
        let text = format!("GET {part} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n\r\n");
        request(host.parse().expect("IP:PORT"), &text)
    };
    let (status, some) = ask("Range: bytes=8-107");
    assert_eq!((status, &some[..]), (206, &whole[8..108]));
    let known = format!("If-None-Match: \"{}-{}\"", view["epoch"], view["newest"]);
    assert_eq!(ask(&known), (304, Vec::new()));
}

#[test]
fn a_restarted_source_is_followed_and_old_names_keep_their_meaning() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let mut source = publish_card(&home, &tracker, &[]);
    let link = link(&source);
    let edge = Caudal::start(&home, &["edge", &link, "--listen", "127.0.0.1:0"]);
    let url = edge.told("edge").to_owned();
    let viewer = Caudal::start(&home, &["watch", edge.told("link"), "--no-p2p", "--listen", "127.0.0.1:0"]);
    common::wait_until_playing(&viewer);
    let base = format!("/v1/channels/{}", edge.told("channel"));
    let view =
        || serde_json::from_slice::<serde_json::Value>(&get(&url, &format!("{base}/edge")).1).expect("JSON");
    let before = view();
    let old = format!("{base}/parts/{}-{}", before["epoch"], before["newest"]);
    let (_, old_part) = get(&url, &old);
    source.kill();
    let source = publish_card(&home, &tracker, &[]);
    let parts = number(&viewer.stats(), "/parts");
    viewer.wait_until("playing the new broadcast", PATIENCE, |stats| number(stats, "/parts") >= parts + 5.0);
    let after = view();
    assert!(number(&after, "/epoch") > number(&before, "/epoch"), "{before} {after}");
    assert_eq!(get(&url, &old), (200, old_part), "what a name means is for ever");
    // The broadcaster ends: who watches is done, the edge waits for the next broadcast.
    drop(source.end());
    let (status, report, said) = viewer.ended();
    assert!(status.success(), "{said}");
    assert!(report.is_some_and(|report| report.contains("\"state\":\"ended\"")), "{said}");
    let stats = edge.wait_until("ended", PATIENCE, |stats| stats["state"] == "ended");
    assert!(number(&stats, "/edge/parts_held") > 10.0, "{stats}");
}

/// Packets of this UDP port are thrown away, for as long as it lives.
struct Cut;

impl Cut {
    const TABLE: &str = "caudal_e2e_edge";

    fn new(port: u16) -> Self {
        let table = Self::TABLE;
        let hook = "{ type filter hook input priority 0; }";
        run_clean(Command::new("nft").arg(format!(
            "add table inet {table}; add chain inet {table} in {hook}; \
             add rule inet {table} in udp dport {port} drop; add rule inet {table} in udp sport {port} drop"
        )));
        Self
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table", "inet", Self::TABLE]).status();
    }
}

#[test]
fn what_the_swarm_fails_to_bring_comes_from_the_edge_within_its_share() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &[]);
    let edge = Caudal::start(&home, &["edge", &link(&source), "--listen", "127.0.0.1:0"]);
    let port = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let bind = format!("127.0.0.1:{port}");
    let viewer = Caudal::start(
        &home,
        &["watch", edge.told("link"), "--no-upload", "--bind", &bind, "--listen", "127.0.0.1:0"],
    );
    common::wait_until_playing(&viewer);
    assert_eq!(number(&viewer.stats(), "/useful_bytes_from_edge"), 0.0, "nothing is urgent");
    let cut = Cut::new(port);
    let stats = viewer.wait_until("helped", PATIENCE, |stats| number(stats, "/useful_bytes_from_edge") > 0.0);
    drop(cut);
    // A tenth of the stream, and ten seconds of that to begin with; a part more may be under way.
    let most = (number(&stats, "/duration_ms") / 1e3 + 10.0) * number(&stats, "/rate_bps") / 80.0 + 60_000.0;
    assert!(number(&stats, "/useful_bytes_from_edge") <= most, "{most}: {stats}");
    assert_eq!(number(&stats, "/offload_ratio"), 0.0, "source and edge are the server: {stats}");
    assert!(number(&edge.stats(), "/edge/parts_sent") >= 1.0);
}

/// Ten seconds of a picture of this size with sound, a key frame each second.
fn encode(home: &Folder, size: &str, kbps: u32) -> PathBuf {
    let path = home.join(&format!("{size}.mp4"));
    let rate = format!("{kbps}k");
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-y", "-f", "lavfi", "-i", &format!("testsrc2=s={size}:r=25:d=10")])
        .args(["-f", "lavfi", "-i", "sine=r=48000:d=10", "-c:v", "libx264", "-preset", "ultrafast"])
        .args(["-g", "25", "-keyint_min", "25", "-sc_threshold", "0", "-bf", "0", "-pix_fmt", "yuv420p"])
        .args(["-b:v", &rate, "-c:a", "aac", "-b:a", "64k"])
        .arg(&path);
    assert!(wait_for(&mut start_tool(&mut command), PATIENCE).success());
    path
}

#[test]
fn an_edge_has_every_rendition_for_players_for_those_without_p2p_and_for_the_swarm() {
    let home = Folder::new();
    let files = [("320x180", 400), ("160x90", 150)].map(|(size, kbps)| encode(&home, size, kbps));
    let [high, low] = files.each_ref().map(|file| file.to_str().expect("text"));
    let tracker = tracker(&home);
    let args = ["publish", "--name", "Two", "--listen", "127.0.0.1:0", "--tracker", tracker.told("http")];
    let source = Caudal::start(&home, &[&args[..], &["--input", high, "--input", low]].concat());
    let edge = Caudal::start(&home, &["edge", &link(&source), "--listen", "127.0.0.1:0"]);
    let port = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let watch = |more: &[&str]| {
        let args = ["watch", edge.told("link"), "--rendition", "1", "--listen", "127.0.0.1:0"];
        Caudal::start(&home, &[&args[..], more].concat())
    };
    let viewer = watch(&["--no-p2p"]);
    let in_swarm = watch(&["--no-upload", "--bind", &format!("127.0.0.1:{port}")]);
    common::wait_until_playing(&viewer);
    common::wait_until_playing(&in_swarm);

    // Over HTTP alone: the chosen one plays, and another one when that is chosen.
    let stats = viewer.stats();
    assert_eq!(number(&stats, "/rendition"), 1.0, "{stats}");
    viewer.wait_until("told of both", PATIENCE, |stats| {
        stats["renditions"].as_array().is_some_and(|all| all.len() == 2)
    });
    let (_, sessions) = get(viewer.told("http"), "/api/v1/sessions");
    let sessions: serde_json::Value = serde_json::from_slice(&sessions).expect("JSON");
    let (page, token) = viewer.told("page").split_once("/#token=").expect("a page with a token");
    let host = page.trim_start_matches("http://");
    let ask = format!(
        "POST /api/v1/sessions/{}/rendition HTTP/1.1\r\nHost: {host}\r\nX-Caudal-Token: {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{{\"rendition\":\"0\"}}",
        sessions[0]["id"].as_str().expect("an id")
    );
    assert_eq!(request(host.parse().expect("IP:PORT"), &ask).0, 204);

    // In the swarm: what fails to come is fetched of the rendition that plays.
    assert_eq!(number(&in_swarm.stats(), "/useful_bytes_from_edge"), 0.0, "nothing is urgent");
    let cut = Cut::new(port);
    let stats =
        in_swarm.wait_until("helped", PATIENCE, |stats| number(stats, "/useful_bytes_from_edge") > 0.0);
    assert_eq!(number(&stats, "/rendition"), 1.0, "{stats}");
    drop(cut);
    viewer.wait_until("as chosen", PATIENCE, |stats| number(stats, "/rendition") == 0.0);

    // Any player: both pictures behind one playlist, each by itself.
    let base = format!("/v1/channels/{}", edge.told("channel"));
    let (status, view) = get(edge.told("edge"), &format!("{base}/renditions/1/edge"));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&view));
    let playlist = edge.told("hls");
    let mut probe = Command::new("ffprobe");
    probe.args(["-v", "error", "-show_entries", "stream=codec_name,width", "-of", "csv=p=0", playlist]);
    let probed = String::from_utf8(run_clean(&mut probe)).expect("text");
    for wanted in ["h264,320", "h264,160", "aac"] {
        assert!(probed.contains(wanted), "{wanted} in {probed}");
    }
    let mut decode = Command::new("ffmpeg");
    decode.args(["-v", "error", "-i", playlist, "-map", "0:v:1", "-frames:v", "10", "-f", "null", "-"]);
    run_clean(&mut decode);

    let (report, status) = viewer.end();
    assert!(status.success(), "{report}");
    assert_eq!((number(&report, "/gaps"), number(&report, "/rendition_changes")), (0.0, 1.0), "{report}");
    assert_eq!(report["useful_bytes"], report["useful_bytes_from_edge"], "{report}");
    let (report, status) = edge.end();
    assert!(status.success(), "{report}");
}

#[test]
fn an_edge_that_is_not_there_or_not_known_is_said_with_the_remedy() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let link = format!("caudal:{}?tracker={}", "a".repeat(52), tracker.told("http"));
    let watch = |more: &[&str], within: &str| {
        let args = ["watch", &link, "--no-p2p", "--listen", "127.0.0.1:0", "--duration", within];
        Caudal::spawn(&home, &[&args[..], more].concat()).ended()
    };
    let (status, _, said) = watch(&["--edge", "http://127.0.0.1:1"], "700ms");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("edge http://127.0.0.1:1 cannot be reached"), "{said}");
    // An address that is none of an edge: said once, however often it is asked.
    let (status, _, said) = watch(&["--edge", tracker.told("http")], "1500ms");
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.matches("has nothing of this channel (HTTP status 404)").count(), 1, "{said}");
    let (status, _, said) = watch(&["--edge", "http://cdn.example"], "700ms");
    assert_eq!(status.code(), Some(1), "{said}");
    for (bad, words) in
        [("nonsense", "https://"), ("http://169.254.169.254", "metadata"), ("http://8.8.8.8", "https://")]
    {
        let (status, _, said) = watch(&["--edge", bad], "1s");
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains(bad) && said.contains(words), "{said}");
    }
    // A stranger's edge is not asked, and the rest goes on.
    let inward = format!("{link}&edge=http://192.168.1.7");
    let (status, _, said) =
        Caudal::spawn(&home, &["watch", &inward, "--no-p2p", "--listen", "127.0.0.1:0", "--duration", "1s"])
            .ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("192.168.1.7") && said.contains("--lan"), "{said}");
}
