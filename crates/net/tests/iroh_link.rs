//! What only the QUIC link must withstand: strangers, floods, vanished processes, and peers that come back.
#![allow(clippy::unwrap_used)] // The lint's exemption for tests does not see their helpers.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use caudal_net::iroh_link::config::{CONNECTION_WINDOW, Control, transport_config};
use caudal_net::iroh_link::{ACCEPTED_MAX, CHUNKS_IN_MAX, CLOSE_DUPLICATE, FRAMES_IN_MAX, PREFACE};
use caudal_net::link::CHUNKS_OUT_MAX;
use caudal_net::{IrohConfig, IrohLink, Link, NetError};
use caudal_proto::io::{ChunkOutcome, ChunkToken, Input, Transmit};
use caudal_proto::wire::ALPN;
use common::{Node, PATIENCE, config, frame, iroh_link, key};
use iroh::endpoint::{Connection, ConnectionError, SendStream, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, TransportAddr};
use tokio::time::timeout;

/// A stranger: an endpoint without a link.
async fn stranger(seed: u8) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&key(seed).to_bytes()))
        .relay_mode(RelayMode::Disabled)
        .transport_config(transport_config(Duration::from_secs(5), Control::Ours).build())
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .unwrap()
        .bind()
        .await
        .unwrap()
}

fn target(node: &impl Link) -> EndpointAddr {
    let id = EndpointId::from_bytes(&node.local().0).unwrap();
    EndpointAddr::from_parts(id, node.local_addrs().into_iter().map(TransportAddr::Ip))
}

/// Connects a stranger that speaks the protocol's first words.
async fn meet(stranger: &Endpoint, link: &mut IrohLink) -> (Connection, SendStream) {
    let connection = stranger.connect(target(link), ALPN).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[PREFACE]).await.unwrap();
    assert!(matches!(take(link).await[..], [Input::Connected(_)]));
    (connection, send)
}

async fn take(link: &mut IrohLink) -> Vec<Input> {
    let mut inputs = Vec::new();
    timeout(PATIENCE, link.inputs(&mut inputs, 64)).await.expect("something should have happened");
    inputs.retain(|input| !matches!(input, Input::Path(..)));
    inputs
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let mut link = iroh_link(1).await;
    let stranger = stranger(2).await;
    let error = stranger.connect(target(&link), b"other/1").await.unwrap_err();
    assert!(format!("{error:?}").contains("doesn't support any known protocol"), "{error:?}");
    let nothing = timeout(Duration::from_millis(100), link.inputs(&mut Vec::new(), 1)).await;
    assert!(nothing.is_err());
}

#[tokio::test]
async fn a_wrong_preface_is_closed_before_anyone_hears_of_it() {
    let mut link = iroh_link(1).await;
    let stranger = stranger(2).await;
    let connection = stranger.connect(target(&link), ALPN).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed:?}") };
    assert_eq!(close.error_code, VarInt::from_u32(caudal_proto::io::CloseCode::Violation as u32));
    assert!(timeout(Duration::from_millis(50), link.inputs(&mut Vec::new(), 1)).await.is_err());
}

#[tokio::test]
async fn a_flood_of_chunks_and_frames_waits_with_the_peer() {
    let mut link = iroh_link(1).await;
    let flooder = stranger(2).await;
    let (connection, mut control) = meet(&flooder, &mut link).await;
    let streams = connection.clone();
    let chunks = tokio::spawn(async move {
        while let Ok(mut stream) = streams.open_uni().await {
            if stream.write_all(&[0; 16_000]).await.is_err() {
                break;
            }
        }
    });
    let frames =
        tokio::spawn(async move { while control.write_all(&frame(&[0; 10]).repeat(100)).await.is_ok() {} });
    let most = CHUNKS_IN_MAX + FRAMES_IN_MAX;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let held = connection.stats().udp_tx.bytes;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(link.queued(), most, "the engine took nothing");
    // What the flooder got rid of fits into the shares and windows, and it has come to a standstill.
    let most_bytes = (CHUNKS_IN_MAX * 16_384) as u64 + 2 * u64::from(CONNECTION_WINDOW);
    let sent = connection.stats().udp_tx.bytes;
    assert!(sent < most_bytes && sent - held < 20_000, "{held} then {sent} bytes");

    // Others are not held up, even while the flooder goes on.
    let mut other = Node::run(iroh_link(3).await);
    other.say(Transmit::Connect { peer: link.local(), addrs: link.local_addrs() });
    let mut met = false;
    while !met {
        met = take(&mut link)
            .await
            .iter()
            .any(|input| matches!(input, Input::Connected(c) if c.peer == other.id));
        assert!(link.queued() <= most + 1, "{}", link.queued());
    }
    other.connected().await;
    let before = Instant::now();
    link.execute(Transmit::Control { peer: other.id, bytes: frame(b"still here").into() });
    while before.elapsed() < PATIENCE {
        tokio::select! {
            input = other.next() => {
                assert!(matches!(input, Input::Control(_, bytes) if bytes == b"still here"[..]));
                break;
            }
            _ = take(&mut link) => assert!(link.queued() <= most + 1, "{}", link.queued()),
        }
    }
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    connection.close(VarInt::from_u32(0), b"");
    let _ = (chunks.await, frames.await);
}

#[tokio::test]
async fn control_garbage_and_endless_streams_are_reported_once() {
    let mut link = iroh_link(1).await;
    let flooder = stranger(2).await;
    let (connection, mut control) = meet(&flooder, &mut link).await;
    let garbage = tokio::spawn(async move { while control.write_all(&[0xff; 4096]).await.is_ok() {} });
    let streams = connection.clone();
    let endless = tokio::spawn(async move {
        while let Ok(mut stream) = streams.open_uni().await {
            while stream.write_all(&[0; 4096]).await.is_ok() {}
        }
    });
    let mut violations = 0;
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        let mut inputs = Vec::new();
        let _ = timeout(Duration::from_millis(50), link.inputs(&mut inputs, 64)).await;
        for input in inputs {
            match input {
                Input::Violation(..) => violations += 1,
                Input::Path(..) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(link.queued() <= CHUNKS_IN_MAX + 1, "{}", link.queued());
    }
    assert_eq!(violations, 1);
    let code = caudal_proto::io::CloseCode::Violation;
    let peer = caudal_proto::id::PeerId(key(2).public());
    link.execute(Transmit::Disconnect { peer, code });
    assert!(matches!(take(&mut link).await[..], [Input::Disconnected(who)] if who == peer));
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    assert!(
        matches!(closed, ConnectionError::ApplicationClosed(close) if close.error_code == (code as u32).into())
    );
    let _ = (garbage.await, endless.await);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_dropped_as_silent() {
    let mut link = iroh_link(1).await;
    let deaf = stranger(2).await;
    // The stranger's control stream is never read, so that its window fills.
    let connection = deaf.connect(target(&link), ALPN).await.unwrap();
    let (mut send, _unread) = connection.open_bi().await.unwrap();
    send.write_all(&[PREFACE]).await.unwrap();
    take(&mut link).await;
    let peer = caudal_proto::id::PeerId(key(2).public());
    for _ in 0..100 {
        link.execute(Transmit::Control { peer, bytes: vec![0; 4096].into() });
    }
    assert!(matches!(take(&mut link).await[..], [Input::Disconnected(who)] if who == peer));
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let silent = caudal_proto::io::CloseCode::Silent as u32;
    assert!(matches!(closed, ConnectionError::ApplicationClosed(close) if close.error_code == silent.into()));
}

#[tokio::test]
async fn a_chunk_that_waits_for_the_peer_can_be_reset() {
    let (mut a, mut b) = (iroh_link(1).await, iroh_link(2).await);
    let (peer, addrs) = (b.local(), b.local_addrs());
    a.execute(Transmit::Connect { peer, addrs });
    take(&mut a).await;
    take(&mut b).await;
    let head = bytes::Bytes::new();
    let body = bytes::Bytes::from_static(&[1; 16_000]);
    let chunk = |a: &mut IrohLink, token: u64| {
        let (head, body) = (head.clone(), body.clone());
        a.execute(Transmit::Chunk { peer, token: ChunkToken(token), priority: 0, head, body });
    };
    // `b` takes nothing: it has as many chunks as it has shares, and its transport about as many again.
    let first = CHUNKS_OUT_MAX as u64;
    (0..first).for_each(|token| chunk(&mut a, token));
    let (mut delivered, mut inputs) = (0, Vec::new());
    while timeout(Duration::from_millis(200), a.inputs(&mut inputs, 64)).await.is_ok() {
        delivered += inputs.drain(..).filter(|input| matches!(input, Input::ChunkDone(..))).count();
    }
    assert!((CHUNKS_IN_MAX..=2 * CHUNKS_IN_MAX).contains(&delivered), "{delivered}");
    let all = first + 8;
    (first..all).for_each(|token| chunk(&mut a, token));
    assert!(timeout(Duration::from_millis(100), a.inputs(&mut Vec::new(), 1)).await.is_err(), "more fit");
    let token = ChunkToken(all - 1);
    a.execute(Transmit::Reset { peer, token });
    let done = take(&mut a).await;
    assert!(
        matches!(done[..], [Input::ChunkDone(_, which, ChunkOutcome::Dropped)] if which == token),
        "{done:?}"
    );
    let mut arrived = 0;
    while arrived < all - 1 {
        arrived += take(&mut b).await.len() as u64;
    }
    assert!(
        timeout(Duration::from_millis(100), b.inputs(&mut Vec::new(), 1)).await.is_err(),
        "the reset one arrived"
    );
}

#[tokio::test]
async fn a_process_that_dies_is_missed_after_the_idle_timeout() {
    let idle_timeout = Duration::from_millis(800);
    let mut a = Node::run(IrohLink::bind(IrohConfig { idle_timeout, ..config(1) }).await.unwrap());
    let (die, dies) = tokio::sync::oneshot::channel();
    let (peer, addrs) = (a.id, a.addrs.clone());
    // A runtime that is no longer polled is a process that was killed: its sockets stay open, and say nothing.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let link = runtime.block_on(async {
            let mut link = iroh_link(2).await;
            link.execute(Transmit::Connect { peer, addrs });
            link.inputs(&mut Vec::new(), 1).await;
            dies.await.unwrap();
            link
        });
        std::mem::forget((runtime, link));
    });
    let who = a.connected().await.peer;
    die.send(()).unwrap();
    let before = Instant::now();
    assert_eq!(a.disconnected().await, who);
    assert!(before.elapsed() < idle_timeout * 3, "{:?}", before.elapsed());
    a.quiet(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_peer_that_comes_back_replaces_its_connection() {
    let mut a = Node::run(iroh_link(1).await);
    let (first, second) = (stranger(2).await, stranger(2).await);
    let id = EndpointId::from_bytes(&a.id.0).unwrap();
    let target = EndpointAddr::from_parts(id, a.addrs.iter().copied().map(TransportAddr::Ip));
    let mut connections = Vec::new();
    for endpoint in [&first, &second] {
        let connection = endpoint.connect(target.clone(), ALPN).await.unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&[PREFACE]).await.unwrap();
        if !connections.is_empty() {
            a.disconnected().await;
        }
        a.connected().await;
        connections.push((connection, send, recv));
    }
    assert!(timeout(PATIENCE, connections[0].0.closed()).await.is_ok());
    a.quiet(Duration::from_millis(50)).await;
    connections[1].1.write_all(&frame(b"back")).await.unwrap();
    assert!(matches!(a.next().await, Input::Control(_, bytes) if bytes == b"back"[..]));
}

#[tokio::test]
async fn a_second_dial_right_after_its_own_is_a_duplicate() {
    // Of the keys 1 and 2, the smaller id settles simultaneous dials.
    let (small, large) = if key(1).public() < key(2).public() { (1, 2) } else { (2, 1) };
    let mut a = Node::run(iroh_link(small).await);
    let other = Endpoint::builder(presets::Minimal)
        .secret_key(iroh::SecretKey::from_bytes(&key(large).to_bytes()))
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .unwrap()
        .bind()
        .await
        .unwrap();
    let peer = caudal_proto::id::PeerId(key(large).public());
    a.say(Transmit::Connect { peer, addrs: other.bound_sockets() });
    let first = other.accept().await.unwrap().accept().unwrap().await.unwrap();
    a.connected().await;
    let id = EndpointId::from_bytes(&a.id.0).unwrap();
    let target = EndpointAddr::from_parts(id, a.addrs.iter().copied().map(TransportAddr::Ip));
    let second = other.connect(target, ALPN).await.unwrap();
    let (mut send, _recv) = second.open_bi().await.unwrap();
    send.write_all(&[PREFACE]).await.unwrap();
    let closed = timeout(PATIENCE, second.closed()).await.unwrap();
    assert!(
        matches!(closed, ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_DUPLICATE.into())
    );
    a.quiet(Duration::from_millis(50)).await;
    assert!(first.close_reason().is_none());
}

#[tokio::test]
async fn only_so_many_are_accepted() {
    let mut link = iroh_link(1).await;
    let mut kept = Vec::new();
    let mut refused = 0;
    for seed in 0..ACCEPTED_MAX as u8 + 3 {
        let endpoint = stranger(100 + seed).await;
        match endpoint.connect(target(&link), ALPN).await {
            Ok(connection) => {
                let (mut send, recv) = connection.open_bi().await.unwrap();
                send.write_all(&[PREFACE]).await.unwrap();
                take(&mut link).await;
                kept.push((endpoint, connection, send, recv));
            }
            Err(_) => refused += 1,
        }
    }
    assert_eq!((kept.len(), refused), (ACCEPTED_MAX, 3));
    kept[0].1.close(VarInt::from_u32(0), b"");
    assert!(matches!(take(&mut link).await[..], [Input::Disconnected(_)]));
    let late = stranger(99).await;
    assert!(late.connect(target(&link), ALPN).await.is_ok(), "a freed slot is free");
}

#[tokio::test]
async fn errors_name_what_was_asked() {
    let taken = iroh_link(1).await.local_addrs();
    let link = iroh_link(2).await;
    let in_use = IrohConfig { bind: link.local_addrs(), ..config(3) };
    let text = IrohLink::bind(in_use).await.unwrap_err().to_string();
    assert!(text.contains(&link.local_addrs()[0].to_string()), "{text}");
    let two = IrohConfig { bind: vec![taken[0], "127.0.0.2:0".parse().unwrap()], ..config(3) };
    assert!(matches!(IrohLink::bind(two).await, Err(NetError::SameFamily(_))));
}

#[tokio::test]
async fn a_node_that_listens_everywhere_knows_its_addresses() {
    let link = IrohLink::bind(IrohConfig::new(key(1))).await.unwrap();
    let addrs = link.local_addrs();
    assert!(addrs.iter().all(|addr| !addr.ip().is_unspecified() && addr.port() != 0), "{addrs:?}");
    assert!(!addrs.is_empty());
}
