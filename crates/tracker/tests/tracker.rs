//! The real server on loopback, driven by the real client.

mod common;

use std::time::{Duration, Instant};

use caudal_proto::id::SecretKey;
use caudal_tracker::client::{ChannelEvent, ClientError, DirectoryEvent, Join, SourceRole};
use caudal_tracker::descriptor::{Descriptor, SignedDescriptor};
use caudal_tracker::message::{ChannelState, Code, Qos, SwarmId};
use caudal_tracker::server::TrackerConfig;
use common::{Air, Running, answering, unix_ms};

fn join(swarm: SwarmId, ports: &[u16]) -> Join<'_> {
    Join { swarm, ports, addresses: &[], upload_bps: Some(5_000_000), peer_count: 20, source: None }
}

fn role<'a>(air: &'a Air, descriptor: Option<&'a SignedDescriptor>) -> SourceRole<'a> {
    SourceRole { certificate: &air.certificate, live_note: &air.note, broadcast_key: &air.key, descriptor }
}

#[tokio::test]
async fn a_viewer_finds_the_source_and_other_viewers_in_one_round_trip() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let air = Air::new(1);
    let (source, one, two) = (tracker.client(1), tracker.client(2), tracker.client(3));
    let as_source = Join { source: Some(role(&air, None)), ..join(air.swarm(), &[4001]) };
    assert_eq!(source.connect(&as_source).await.unwrap().peers, []);
    let first = one.connect(&join(air.swarm(), &[4002])).await.unwrap();
    assert_eq!(first.peers.len(), 1);
    assert!(first.peers[0].source);
    assert_eq!(first.peers[0].peer, source.peer());
    assert_eq!(first.peers[0].addresses, ["127.0.0.1:4001".parse().unwrap()]);
    assert_eq!(first.seen_as, Some("127.0.0.1:4002".parse().unwrap()));
    assert_eq!(first.interval, Duration::from_secs(20));
    let second = two.connect(&join(air.swarm(), &[4003])).await.unwrap();
    assert_eq!((second.peers.len(), second.viewers), (2, 2));
    assert_eq!(second.broadcast, Some((air.certificate, air.note)));
    let found = one.find(air.swarm(), 20).await.unwrap();
    assert!(found.peers.iter().any(|peer| peer.peer == two.peer() && !peer.source));
    let qos = Qos { continuity: Some(1.0), stalls: Some(0), ..Qos::default() };
    assert_eq!(one.stat_report(air.swarm(), qos, None).await.unwrap().viewers, 2);
    two.leave(air.swarm()).await.unwrap();
    let found = one.find(air.swarm(), 20).await.unwrap();
    assert_eq!(found.peers.iter().map(|peer| peer.peer).collect::<Vec<_>>(), [source.peer()]);
    tracker.stop().await;
}

#[tokio::test]
async fn what_is_not_listed_is_found_by_its_id_only() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let (shown, hidden) = (Air::new(1), Air::new(2));
    for (n, air, listed) in [(1, &shown, true), (2, &hidden, false)] {
        let descriptor = Descriptor { listed, ..Descriptor::new(air.id(), &format!("Canal {n}"), unix_ms()) };
        let signed = descriptor.sign(&air.channel).unwrap();
        let connect = Join { source: Some(role(air, Some(&signed))), ..join(air.swarm(), &[4001]) };
        tracker.client(n).connect(&connect).await.unwrap();
    }
    let client = tracker.client(9);
    let list = client.channels("", 0, 50).await.unwrap();
    assert_eq!(list.channels.iter().map(|view| view.channel).collect::<Vec<_>>(), [shown.id()]);
    assert_eq!(list.channels[0].descriptor.as_ref().unwrap().name, "Canal 1");
    assert_eq!(list.channels[0].since_unix_ms, Some(shown.certificate.not_before_unix_us / 1000));
    assert_eq!(client.channels("canal 1", 0, 50).await.unwrap().total, 1);
    assert_eq!(client.channels("a & b # é", 0, 50).await.unwrap().total, 0);
    let view = client.channel(&hidden.id()).await.unwrap();
    assert_eq!((view.state, view.descriptor.unwrap().name), (ChannelState::Live, "Canal 2".to_owned()));
    assert_eq!(view.broadcast, Some((hidden.certificate, hidden.note)));
    let nobody = client.channel(&SecretKey::from_bytes(&[9; 32]).channel()).await.unwrap_err();
    assert_eq!(nobody.code(), Some(Code::UnknownPeer));
    // A descriptor signed by another key, and an older one.
    let forged = Descriptor::new(hidden.id(), "Forged", unix_ms());
    let mut signed = Descriptor { channel: shown.id(), ..forged.clone() }.sign(&shown.channel).unwrap();
    let refused = client.put_descriptor(&hidden.id(), &signed).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::AuthenticationRequired));
    signed = Descriptor { issued_unix_ms: 5, ..forged }.sign(&hidden.channel).unwrap();
    let refused = client.put_descriptor(&hidden.id(), &signed).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Superseded));
    tracker.stop().await;
}

#[tokio::test]
async fn a_takedown_written_to_the_list_reaches_viewers_within_three_seconds() {
    let dir = std::env::temp_dir().join(format!("caudal-takedown-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let deny = dir.join("deny");
    std::fs::write(&deny, "# nothing yet\n").unwrap();
    let tracker =
        Running::start(TrackerConfig { deny_list: Some(deny.clone()), ..TrackerConfig::default() }).await;
    let air = Air::new(1);
    let (source, viewer) = (tracker.client(1), tracker.client(2));
    let connect = Join { source: Some(role(&air, None)), ..join(air.swarm(), &[4001]) };
    source.connect(&connect).await.unwrap();
    viewer.connect(&join(air.swarm(), &[4002])).await.unwrap();
    let mut events = viewer.channel_events(&air.id()).await.unwrap();
    let Some(ChannelEvent::State(state)) = events.next().await.unwrap() else {
        panic!("a snapshot comes first")
    };
    assert_eq!(state.state, ChannelState::Live);
    let written = Instant::now();
    std::fs::write(&deny, format!("{} court order 12/3\n", air.id())).unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            match events.next().await.unwrap() {
                Some(ChannelEvent::TakenDown { reason }) => return reason,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    });
    assert_eq!(reason.await.expect("within 3 s"), "court order 12/3");
    println!("takedown after {:?}", written.elapsed());
    for refused in [
        viewer.stat_report(air.swarm(), Qos::default(), None).await.unwrap_err(),
        viewer.find(air.swarm(), 5).await.unwrap_err(),
        source.connect(&connect).await.unwrap_err(),
        viewer.channel(&air.id()).await.map(|_| ()).unwrap_err(),
    ] {
        assert!(
            matches!(&refused, ClientError::TakenDown { reason, .. } if reason == "court order 12/3"),
            "{refused}"
        );
        assert_eq!(refused.code(), Some(Code::TakenDown));
    }
    let mut late = viewer.channel_events(&air.id()).await.unwrap();
    assert!(matches!(late.next().await.unwrap(), Some(ChannelEvent::TakenDown { .. })));
    tracker.stop().await;
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn the_directory_pushes_what_comes_changes_and_goes() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let air = Air::new(1);
    let source = tracker.client(1);
    let watcher = tracker.client(5);
    let mut events = watcher.directory_events().await.unwrap();
    assert_eq!(events.next().await.unwrap(), Some(DirectoryEvent::Snapshot(Vec::new())));
    let named = |name: &str, later| {
        let descriptor = Descriptor { listed: true, ..Descriptor::new(air.id(), name, unix_ms() + later) };
        descriptor.sign(&air.channel).unwrap()
    };
    let first = named("First", 0);
    let connect = Join { source: Some(role(&air, Some(&first))), ..join(air.swarm(), &[4001]) };
    source.connect(&connect).await.unwrap();
    let Some(DirectoryEvent::Channel(up)) = events.next().await.unwrap() else { panic!("it came up") };
    assert_eq!((up.channel, up.descriptor.unwrap().name), (air.id(), "First".to_owned()));
    source.put_descriptor(&air.id(), &named("Second", 10)).await.unwrap();
    let Some(DirectoryEvent::Channel(changed)) = events.next().await.unwrap() else { panic!("it changed") };
    assert_eq!(changed.descriptor.unwrap().name, "Second");
    tracker.client(7).connect(&join(air.swarm(), &[4002])).await.unwrap();
    let counted = events.next().await.unwrap();
    assert_eq!(counted, Some(DirectoryEvent::Viewers { channel: air.id(), viewers: 1, quality: None }));
    let mut latecomer = watcher.directory_events().await.unwrap();
    let Some(DirectoryEvent::Snapshot(snapshot)) = latecomer.next().await.unwrap() else {
        panic!("a snapshot")
    };
    assert_eq!((snapshot.len(), snapshot[0].viewers), (1, 1));
    source.leave(air.swarm()).await.unwrap();
    let gone = DirectoryEvent::Gone { channel: air.id(), state: ChannelState::Silent };
    assert_eq!(events.next().await.unwrap(), Some(gone));
    let metrics = tracker.get("/metrics").await;
    assert!(metrics.contains("\ncaudal_tracker_subscribers 2\n"), "{metrics}");
    assert!(metrics.contains("\ncaudal_tracker_requests_total{type=\"CONNECT\"} 3\n"), "{metrics}");
    assert!(!metrics.contains("127.0.0.1"), "no address in the metrics");
    tracker.stop().await;
    // A stopped tracker ends its streams instead of leaving them hanging.
    while let Ok(Some(_)) = events.next().await {}
}

#[tokio::test]
async fn after_a_restart_a_report_says_connect_again() {
    let tracker = Running::start(TrackerConfig::default()).await;
    let air = Air::new(1);
    let viewer = tracker.client(2);
    viewer.connect(&join(air.swarm(), &[4002])).await.unwrap();
    let address = tracker.address;
    tracker.stop().await;
    let unreachable = viewer.stat_report(air.swarm(), Qos::default(), None).await.unwrap_err();
    assert!(matches!(unreachable, ClientError::Unreachable { .. }), "{unreachable:?}");
    assert!(unreachable.to_string().ends_with("start one with: caudal tracker"), "{unreachable}");
    let text = unreachable.to_string();
    assert!(text.contains(&format!("http://{address}")) && text.contains("check the address"), "{text}");
    let tracker = Running::start_on(address, TrackerConfig::default()).await;
    let unknown = viewer.stat_report(air.swarm(), Qos::default(), None).await.unwrap_err();
    assert!(unknown.needs_connect(), "{unknown}");
    assert!(viewer.find(air.swarm(), 5).await.unwrap_err().needs_connect());
    viewer.connect(&join(air.swarm(), &[4002])).await.unwrap();
    viewer.stat_report(air.swarm(), Qos::default(), None).await.unwrap();
    tracker.stop().await;
}

#[tokio::test]
async fn limits_answer_with_what_to_wait() {
    let mut config = TrackerConfig { lan: Some(false), ..TrackerConfig::default() };
    (config.limits.requests_per_second, config.limits.requests_burst) = (1, 3);
    let tracker = Running::start(config).await;
    let air = Air::new(1);
    let viewer = tracker.client(2);
    let refused = viewer.connect(&join(air.swarm(), &[4002])).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Forbidden));
    assert!(refused.to_string().contains("--lan"), "{refused}");
    let mut last = refused;
    for _ in 0..4 {
        last = viewer.find(air.swarm(), 5).await.unwrap_err();
    }
    assert_eq!(
        (last.code(), last.retry_after()),
        (Some(Code::TooManyRequests), Some(Duration::from_secs(1)))
    );
    tracker.stop().await;

    let mut config = TrackerConfig::default();
    config.limits.subscribers = 1;
    let tracker = Running::start(config).await;
    let viewer = tracker.client(2);
    let first = viewer.directory_events().await.unwrap();
    let full = viewer.channel_events(&air.id()).await.unwrap_err();
    assert_eq!((full.code(), full.retry_after()), (Some(Code::Unavailable), Some(Duration::from_secs(30))));
    drop(first);
    for _ in 0..50 {
        if viewer.channel_events(&air.id()).await.is_ok() {
            tracker.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a subscriber that left still holds its place");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_forwarded_address_counts() {
    let config =
        TrackerConfig { trusted_proxies: vec!["127.0.0.1".parse().unwrap()], ..TrackerConfig::default() };
    let tracker = Running::start(config).await;
    let air = Air::new(1);
    let body = common::connect_body(&SecretKey::from_bytes(&[8; 32]), &air, unix_ms());
    let signature = caudal_tracker::message::sign_request(&SecretKey::from_bytes(&[8; 32]), body.as_bytes());
    let headers = format!("Caudal-Signature: {signature}\r\nX-Forwarded-For: 9.9.9.9, 93.184.216.34\r\n");
    let (status, answer) = tracker.post(&headers, body.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("93.184.216.34") && !answer.contains("9.9.9.9"), "{answer}");
    tracker.stop().await;
}

/// What a tracker says is quoted in errors, which end on terminals.
#[tokio::test]
async fn a_hostile_trackers_words_are_plain_and_short_in_errors() {
    let evil = format!("\\u001b]0;owned\\u0007\u{9b}2J\u{202e}{}", "x".repeat(5000));
    let id = SecretKey::from_bytes(&[9; 32]).channel();
    let entry = format!(r#"{{"channel":"{id}","state":"{evil}","viewers":0}}"#);
    let page = format!(r#"{{"channels":[{entry}],"total":1}}"#);
    let events = format!("event: snapshot\ndata: {entry}\n\n");
    let refusal = format!(r#"{{"error_code":5,"error":"{evil}"}}"#);
    let takedown = format!(r#"{{"error_code":65,"error":"{evil}","takedown":{{"reason":"{evil}"}}}}"#);
    for (status, body) in [(200, page), (200, entry), (200, events), (503, refusal), (451, takedown)] {
        let client = answering(status, body).await;
        let air = Air::new(1);
        let mut said = vec![
            client.channels("", 0, 1).await.err(),
            client.channel(&id).await.err(),
            client.connect(&join(air.swarm(), &[4001])).await.err(),
        ];
        said.push(match client.channel_events(&id).await {
            Ok(mut events) => events.next().await.err(),
            Err(error) => Some(error),
        });
        assert!(said.iter().any(Option::is_some));
        for error in said.into_iter().flatten() {
            let text = error.to_string();
            assert!(text.chars().all(caudal_tracker::text::is_plain), "{text:?}");
            assert!(text.chars().count() < 600, "{} characters", text.chars().count());
        }
    }
}
