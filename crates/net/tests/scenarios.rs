//! What every link promises, over each of them: the same scenarios in memory (paused time) and over QUIC.
#![allow(clippy::unwrap_used)] // The lint's exemption for tests does not see their helpers.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use caudal_net::memory_link::Hub;
use caudal_proto::io::{ChunkOutcome, ChunkToken, Input, Transmit};
use caudal_proto::wire::{CHUNK_STREAM_LEN_MAX, FRAME_LEN_MAX};
use common::{Node, frame, iroh_link, key};

/// Makes nodes of one network.
enum Net {
    Memory(Hub),
    Iroh,
}

impl Net {
    fn memory() -> Self {
        let hub = Hub::new();
        hub.set_delay(Duration::from_millis(25));
        Self::Memory(hub)
    }

    async fn node(&self, seed: u8) -> Node {
        match self {
            Self::Memory(hub) => Node::run(hub.link(caudal_proto::id::PeerId(key(seed).public()))),
            Self::Iroh => Node::run(iroh_link(seed).await),
        }
    }

    async fn pair(&self) -> (Node, Node) {
        let (mut a, mut b) = (self.node(1).await, self.node(2).await);
        a.dial(&b);
        let (here, there) = (a.connected().await, b.connected().await);
        assert!(here.dialled && !there.dialled);
        assert_eq!((here.peer, there.peer), (b.id, a.id));
        assert_eq!((here.addr, there.addr), (Some(b.addrs[0]), Some(a.addrs[0])));
        if let Self::Memory(_) = self {
            assert_eq!((here.rtt, there.rtt), (Duration::from_millis(50), Duration::from_millis(50)));
        } else {
            assert!(here.rtt < Duration::from_millis(100), "{:?}", here.rtt);
        }
        (a, b)
    }
}

macro_rules! over_both {
    ($($scenario:ident),* $(,)?) => {
        mod memory { $( #[tokio::test(start_paused = true)] async fn $scenario() { super::$scenario(super::Net::memory()).await; } )* }
        mod iroh { $( #[tokio::test] async fn $scenario() { super::$scenario(super::Net::Iroh).await; } )* }
    };
}

over_both!(
    control_frames_arrive_in_order_both_ways,
    chunks_arrive_whole_and_are_told_delivered,
    three_nodes_speak_to_each_other,
    a_reset_chunk_never_arrives,
    a_chunk_too_long_is_a_violation,
    a_frame_too_long_is_a_violation,
    dialling_nobody_fails,
    a_disconnection_is_told_once_to_each,
    both_dialling_makes_one_connection,
    too_many_unacknowledged_chunks_are_dropped,
    closing_tells_the_others,
);

async fn control_frames_arrive_in_order_both_ways(net: Net) {
    let (mut a, mut b) = net.pair().await;
    let bodies: Vec<Vec<u8>> =
        (0..100_u16).map(|n| n.to_be_bytes().repeat(1 + usize::from(n) * 20)).collect();
    for body in &bodies {
        assert!(body.len() <= FRAME_LEN_MAX);
        a.control(&b, frame(body));
        b.control(&a, [frame(body), frame(b"two in one")].concat());
    }
    for body in &bodies {
        assert!(matches!(b.next().await, Input::Control(from, got) if from == a.id && got == body));
        assert!(matches!(a.next().await, Input::Control(from, got) if from == b.id && got == body));
        assert!(matches!(a.next().await, Input::Control(_, got) if got == b"two in one"[..]));
    }
}

async fn chunks_arrive_whole_and_are_told_delivered(net: Net) {
    const CHUNKS: u64 = 200;
    let (mut a, mut b) = net.pair().await;
    let body = |n: u64| n.to_be_bytes().repeat(2048);
    let (mut sent, mut delivered, mut got) = (0, 0, BTreeMap::new());
    while delivered < CHUNKS {
        while sent < CHUNKS && sent - delivered < 40 {
            a.chunk(&b, sent, body(sent));
            sent += 1;
        }
        let (_, outcome) = a.done().await;
        assert_eq!(outcome, ChunkOutcome::Delivered);
        delivered += 1;
    }
    while (got.len() as u64) < CHUNKS {
        let Input::ChunkStream(from, bytes) = b.next().await else { panic!("expected chunks only") };
        assert_eq!(from, a.id);
        let n = u64::from_be_bytes(bytes[4..12].try_into().unwrap());
        assert!(bytes.starts_with(b"head") && bytes[4..] == body(n));
        assert!(got.insert(n, ()).is_none(), "chunk {n} arrived twice");
    }
    a.quiet(Duration::from_millis(50)).await;
    b.quiet(Duration::from_millis(50)).await;
}

async fn three_nodes_speak_to_each_other(net: Net) {
    let (mut a, mut b) = net.pair().await;
    let mut c = net.node(3).await;
    c.dial(&a);
    c.dial(&b);
    let mut met = [c.connected().await.peer, c.connected().await.peer];
    met.sort_unstable();
    let mut expected = [a.id, b.id];
    expected.sort_unstable();
    assert_eq!(met, expected);
    assert_eq!((a.connected().await.peer, b.connected().await.peer), (c.id, c.id));
    c.chunk(&a, 1, vec![1; 9000]);
    c.chunk(&b, 2, vec![2; 9000]);
    a.control(&b, frame(b"hello"));
    assert!(
        matches!(a.next().await, Input::ChunkStream(from, bytes) if from == c.id && bytes[4..] == [1; 9000])
    );
    let mut seen = [false; 2];
    for _ in 0..2 {
        match b.next().await {
            Input::ChunkStream(from, bytes) if from == c.id => seen[0] = bytes[4..] == [2; 9000],
            Input::Control(from, bytes) if from == a.id => seen[1] = bytes == b"hello"[..],
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [true; 2]);
    let mut done = [c.done().await, c.done().await];
    done.sort_by_key(|&(token, _)| token);
    assert_eq!(done, [(1, ChunkOutcome::Delivered), (2, ChunkOutcome::Delivered)]);
}

async fn a_reset_chunk_never_arrives(net: Net) {
    let (mut a, mut b) = net.pair().await;
    a.chunk(&b, 1, vec![1; 16_000]);
    a.say(Transmit::Reset { peer: b.id, token: ChunkToken(1) });
    a.say(Transmit::Reset { peer: b.id, token: ChunkToken(1) });
    assert_eq!(a.done().await, (1, ChunkOutcome::Dropped));
    a.chunk(&b, 2, vec![2; 16_000]);
    assert!(matches!(b.next().await, Input::ChunkStream(_, bytes) if bytes[4..] == [2; 16_000]));
    assert_eq!(a.done().await, (2, ChunkOutcome::Delivered));
    a.say(Transmit::Reset { peer: b.id, token: ChunkToken(2) });
    a.quiet(Duration::from_millis(50)).await;
    b.quiet(Duration::from_millis(50)).await;
}

async fn a_chunk_too_long_is_a_violation(net: Net) {
    let (mut a, mut b) = net.pair().await;
    a.chunk(&b, 1, vec![0; CHUNK_STREAM_LEN_MAX - 4]);
    assert!(matches!(b.next().await, Input::ChunkStream(_, bytes) if bytes.len() == CHUNK_STREAM_LEN_MAX));
    assert_eq!(a.done().await, (1, ChunkOutcome::Delivered));
    a.chunk(&b, 2, vec![0; CHUNK_STREAM_LEN_MAX - 3]);
    assert!(matches!(b.next().await, Input::Violation(from, _) if from == a.id));
    // What the sender is told depends on when the receiver noticed; it must be told something.
    assert_eq!(a.done().await.0, 2);
    a.chunk(&b, 3, vec![0; 10]);
    b.quiet(Duration::from_millis(50)).await;
    b.disconnect(&a);
    assert_eq!(b.disconnected().await, a.id);
    // A transport may still acknowledge what nobody reads any more.
    let last = match a.next().await {
        Input::ChunkDone(_, ChunkToken(3), _) => a.next().await,
        other => other,
    };
    assert!(matches!(last, Input::Disconnected(peer) if peer == b.id), "{last:?}");
}

async fn a_frame_too_long_is_a_violation(net: Net) {
    let (a, mut b) = net.pair().await;
    a.control(&b, frame(&[7; FRAME_LEN_MAX]));
    a.control(&b, frame(&[7; FRAME_LEN_MAX + 1]));
    a.control(&b, frame(b"too late"));
    assert!(matches!(b.next().await, Input::Control(_, bytes) if bytes.len() == FRAME_LEN_MAX));
    assert!(matches!(b.next().await, Input::Violation(from, _) if from == a.id));
    b.quiet(Duration::from_millis(50)).await;
}

async fn dialling_nobody_fails(net: Net) {
    let mut a = net.node(1).await;
    let gone = net.node(9).await;
    let (peer, addrs) = (gone.id, gone.addrs.clone());
    gone.close().await;
    a.say(Transmit::Connect { peer, addrs });
    a.say(Transmit::Connect { peer: a.id, addrs: a.addrs.clone() });
    assert!(matches!(a.next().await, Input::DialFailed(who) if who == a.id), "a node does not dial itself");
    assert!(matches!(a.next().await, Input::DialFailed(who) if who == peer));
}

async fn a_disconnection_is_told_once_to_each(net: Net) {
    let (mut a, mut b) = net.pair().await;
    a.control(&b, frame(b"last words"));
    a.disconnect(&b);
    a.control(&b, frame(b"to nobody"));
    assert_eq!(a.disconnected().await, b.id);
    assert!(matches!(b.next().await, Input::Control(_, bytes) if bytes == b"last words"[..]));
    assert_eq!(b.disconnected().await, a.id);
    b.dial(&a);
    assert!(b.connected().await.dialled);
    assert!(!a.connected().await.dialled);
    a.quiet(Duration::from_millis(50)).await;
    b.quiet(Duration::from_millis(50)).await;
}

async fn both_dialling_makes_one_connection(net: Net) {
    let mut nodes = Vec::new();
    for seed in 10..18 {
        nodes.push(net.node(seed).await);
    }
    for pair in nodes.chunks_exact(2) {
        pair[0].dial(&pair[1]);
        pair[1].dial(&pair[0]);
    }
    for pair in nodes.chunks_exact_mut(2) {
        let [a, b] = pair else { unreachable!() };
        assert_eq!((a.connected().await.peer, b.connected().await.peer), (b.id, a.id));
        a.control(b, frame(b"from a"));
        b.control(a, frame(b"from b"));
        assert!(matches!(a.next().await, Input::Control(_, bytes) if bytes == b"from b"[..]));
        assert!(matches!(b.next().await, Input::Control(_, bytes) if bytes == b"from a"[..]));
    }
    for node in &mut nodes {
        node.quiet(Duration::from_millis(30)).await;
    }
}

async fn too_many_unacknowledged_chunks_are_dropped(net: Net) {
    let (mut a, b) = net.pair().await;
    let many = caudal_net::link::CHUNKS_OUT_MAX as u64 + 10;
    for token in 0..many {
        a.chunk(&b, token, Bytes::from_static(&[0; 1000]));
    }
    let (mut delivered, mut dropped) = (0, 0);
    for _ in 0..many {
        match a.done().await.1 {
            ChunkOutcome::Delivered => delivered += 1,
            ChunkOutcome::Dropped => dropped += 1,
        }
    }
    assert!(dropped <= 10 && delivered >= caudal_net::link::CHUNKS_OUT_MAX, "{delivered} {dropped}");
}

async fn closing_tells_the_others(net: Net) {
    let (mut a, b) = net.pair().await;
    let id = b.id;
    tokio::time::timeout(Duration::from_secs(1), b.close()).await.expect("closing takes a second at most");
    assert_eq!(a.disconnected().await, id);
}
