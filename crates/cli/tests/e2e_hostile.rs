//! Peers that forge, truncate, replay, lie and flood: nothing of theirs is played, they are dropped, and whoever is
//! honest neither loses a chunk nor is dropped.

mod common;
mod hostile;

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Chunk, Flags, HEADER_LEN, PartIn, Signer};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, RenditionId, SecretKey};
use caudal_proto::wire::{Accept, Have, Message, RangeList, RefuseReason, SegmentStart};
use common::{Caudal, Folder, link, number, tracker};
use hostile::{Account, Behaviour, Happening, Node, register};
use serde_json::Value;

const S: fn(u64) -> Duration = Duration::from_secs;

/// Whether a behaviour is wrong enough to be dropped for, and within how many deeds.
type Limit = Option<u32>;

fn publish(home: &Folder, tracker_url: &str) -> Caudal {
    let key = home.join("channel.key").display().to_string();
    Caudal::start(
        home,
        &[
            "publish",
            "--name",
            "Hostile",
            "--input",
            "test",
            "--tracker",
            tracker_url,
            "--card-rate",
            "1M",
            "--card-size",
            "640x360",
            "--key",
            &key,
        ],
    )
}

/// A viewer whose UDP address the test knows.
struct Viewer {
    caudal: Caudal,
    peer: PeerId,
    addr: SocketAddr,
}

fn watch(home: &Folder, link: &str) -> Viewer {
    let port = UdpSocket::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let caudal = Caudal::start(home, &["watch", link, "--bind", &port.to_string()]);
    let peer = caudal.stats()["peer"].as_str().expect("a peer id").parse().expect("a peer id");
    Viewer { caudal, peer, addr: port }
}

fn playing(viewer: &Viewer) {
    viewer.caudal.wait_until("playing", S(20), |stats| number(stats, "/parts") >= 5.0);
}

fn dropped(stats: &Value) -> Vec<String> {
    let all = stats["dropped"].as_array().expect("a list");
    all.iter().map(|reason| reason.as_str().expect("text").to_owned()).collect()
}

/// Nothing was lost, and whoever was dropped is one of `hostile`.
fn unharmed(stats: &Value, hostile: &[PeerId]) {
    let lost = ["/chunks/late", "/chunks/missing", "/gaps"].map(|path| number(stats, path));
    assert_eq!(lost, [0.0; 3], "late, missing, gaps: {stats}");
    for reason in dropped(stats) {
        let known = hostile.iter().any(|peer| reason.starts_with(&peer.short()));
        assert!(known, "an honest peer was dropped: {reason}");
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

fn flip_payload(chunk: &Chunk) -> Bytes {
    let mut bytes = chunk.encoded().to_vec();
    *bytes.last_mut().expect("not empty") ^= 1;
    bytes.into()
}

/// A chunk with the number and epoch of a real one, signed by a key of the forger's own.
fn signed_by_another(channel: ChannelId, chunk: &Chunk) -> Bytes {
    let header = chunk.header();
    let key = SecretKey::from_bytes(&[7; 32]);
    let mut signer = Signer::new(key, channel, header.epoch, RenditionId(0), 16 * 1024);
    let part = PartIn {
        flags: Flags::default(),
        capture_unix_us: header.capture_unix_us,
        payload: Bytes::from_static(b"spam"),
    };
    loop {
        let chunks = signer.sign(&part, header.signed_unix_us());
        if chunks[0].header().number == header.number {
            return chunks[0].encoded().clone();
        }
    }
}

/// Asks each victim for its newest chunk, and once it has come does `deed` (each tick, for as long as it says so).
fn with_a_real_chunk(mut deed: impl FnMut(&mut Node, PeerId, &Chunk, u32) + Send + 'static) -> Behaviour {
    Box::new(move |node, peer, happening| match happening {
        Happening::Said(Message::Have(have)) if node.peers[&peer].chunks.is_empty() => {
            let newest = have.chunks.iter().last().map_or(0, |range| range.end - 1);
            node.ask(peer, [newest]);
        }
        Happening::Tick => {
            let seen = &node.peers[&peer];
            let Some(chunk) = seen.chunks.values().next().cloned() else { return };
            let deeds = seen.deeds;
            deed(node, peer, &chunk, deeds);
        }
        _ => {}
    })
}

struct Attack {
    name: &'static str,
    limit: Limit,
    behaviour: Behaviour,
}

/// What can be done by whoever dials a viewer that has all it needs.
fn attacks_by_dialling(channel_key: &SecretKey, epoch: u64) -> Vec<Attack> {
    let channel = channel_key.channel();
    let old = yesterday(channel_key, epoch - 86_400_000);
    let once = |deed: fn(&mut Node, PeerId, &Chunk)| {
        with_a_real_chunk(move |node, peer, chunk, deeds| {
            if deeds == 0 {
                node.did(peer);
                deed(node, peer, chunk);
            }
        })
    };
    vec![
        Attack {
            name: "forged payload",
            limit: Some(1),
            behaviour: once(|node, peer, chunk| node.send(peer, false, flip_payload(chunk))),
        },
        Attack {
            name: "signed by another key",
            limit: Some(1),
            behaviour: with_a_real_chunk(move |node, peer, chunk, deeds| {
                if deeds == 0 {
                    node.did(peer);
                    node.send(peer, false, signed_by_another(channel, chunk));
                }
            }),
        },
        Attack {
            name: "truncated",
            limit: Some(1),
            behaviour: once(|node, peer, chunk| {
                let half = chunk.encoded().len() / 2;
                node.send(peer, false, chunk.encoded().slice(..half));
            }),
        },
        Attack {
            name: "cut within the header",
            limit: Some(1),
            behaviour: once(|node, peer, chunk| {
                node.send(peer, false, chunk.encoded().slice(..HEADER_LEN / 2));
            }),
        },
        Attack {
            name: "replayed",
            // The chunk itself came from the victim: sending it back once is the first of the six.
            limit: Some(6),
            behaviour: with_a_real_chunk(|node, peer, chunk, deeds| {
                if deeds < 6 {
                    node.did(peer);
                    node.send(peer, true, chunk.encoded().clone());
                }
            }),
        },
        Attack { name: "yesterday's broadcast", limit: Some(5), behaviour: old },
        Attack {
            name: "flood of requests",
            limit: None,
            behaviour: Box::new(|node, peer, happening| {
                if matches!(happening, Happening::Tick) && node.peers[&peer].have.is_some() {
                    let have = node.peers[&peer].have.clone().expect("just seen");
                    let Some(range) = have.chunks.iter().last() else { return };
                    for _ in 0..8 {
                        node.did(peer);
                        node.ask(peer, range.start..range.end + 1000);
                        node.ask(peer, (0..64).map(|n| range.end + n * 1_000_003));
                    }
                }
            }),
        },
        Attack {
            name: "garbage for control",
            limit: Some(1),
            behaviour: Box::new(|node, peer, happening| {
                if matches!(happening, Happening::Said(Message::Have(_))) && node.peers[&peer].deeds == 0 {
                    node.did(peer);
                    let mut bytes: Vec<u8> = (0..4000).map(|_| fastrand::u8(..)).collect();
                    // A frame of legal length, for this swarm, full of no message.
                    bytes[..4].copy_from_slice(&[0x4f, 0x00, 0, 200]);
                    node.raw(peer, bytes.into());
                }
            }),
        },
    ]
}

/// An older broadcast of the same channel, rightly signed: certificate, note, HAVE and chunks, again and again.
fn yesterday(channel_key: &SecretKey, epoch: u64) -> Behaviour {
    let (certificate, note, chunks) = old_broadcast(channel_key, epoch);
    Box::new(move |node, peer, happening| match happening {
        Happening::Connected => offer_old(node, peer, &certificate, &note, epoch, &chunks),
        Happening::Tick => {
            let seen = &node.peers[&peer];
            let deeds = seen.deeds;
            let due = seen.last.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
            // Its HAVE says that the victim has read this node's HANDSHAKE.
            if deeds < 5 && due && seen.have.is_some() {
                node.did(peer);
                node.send(peer, false, chunks[deeds as usize].clone());
            }
        }
        _ => {}
    })
}

fn old_broadcast(channel_key: &SecretKey, epoch: u64) -> (Certificate, LiveNote, Vec<Bytes>) {
    let channel = channel_key.channel();
    let then = unix_us() - 86_400_000_000;
    let key = SecretKey::from_bytes(&[9; 32]);
    let terms = CertificateTerms {
        epoch,
        not_before_unix_us: then,
        not_after_unix_us: unix_us() + 86_400_000_000,
        substreams: 8,
        rate_bps: 1_000_000,
    };
    let certificate = Certificate::sign(channel_key, BroadcastId(key.public()), terms);
    let note = LiveNote::sign(&key, channel, epoch, 64, then + 1_000_000, false);
    let mut signer = Signer::new(key, channel, epoch, RenditionId(0), 1024);
    let flags = Flags::SEGMENT_START.with(Flags::INIT, true);
    let chunks = (0..64).flat_map(|_| {
        let part = PartIn { flags, capture_unix_us: then, payload: Bytes::from(vec![1; 500]) };
        signer.sign(&part, then).iter().map(|chunk| chunk.encoded().clone()).collect::<Vec<_>>()
    });
    let chunks = chunks.collect();
    (certificate, note, chunks)
}

fn offer_old(
    node: &mut Node,
    peer: PeerId,
    certificate: &Certificate,
    note: &LiveNote,
    epoch: u64,
    chunks: &[Bytes],
) {
    let segment_starts = vec![SegmentStart { number: 0, age_ms: 1000 }];
    let have = Have {
        epoch,
        chunks: RangeList::from_ranges(std::iter::once(0..chunks.len() as u64)),
        segment_starts,
    };
    node.say(
        peer,
        &[
            Message::Certificate(certificate.encode().into()),
            Message::LiveNote(note.encode().into()),
            Message::Have(have),
            Node::boast(),
        ],
    );
}

fn read_channel_key(home: &Folder) -> SecretKey {
    let text = std::fs::read_to_string(home.join("channel.key")).expect("publish made the key");
    let digits = text.lines().nth(1).expect("a second line");
    SecretKey::from_bytes(&std::array::from_fn(|i| {
        u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hexadecimal")
    }))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn who_dials_in_to_forge_replay_lie_or_flood_is_dropped_and_nobody_loses_anything() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish(&home, tracker.told("http"));
    let viewers: Vec<Viewer> = (0..3).map(|_| watch(&home, &link(&source))).collect();
    viewers.iter().for_each(playing);
    // Older chunks may still be on their way for ten seconds after a broadcast began: an offence only then.
    std::thread::sleep(S(11));
    let epoch = number(&source.stats(), "/epoch") as u64;
    let key = read_channel_key(&home);
    let runtime = runtime();
    let mut hostile: Vec<(&str, Limit, PeerId, Arc<Mutex<Account>>)> = Vec::new();
    let mut tasks = Vec::new();
    for Attack { name, limit, behaviour } in attacks_by_dialling(&key, epoch) {
        let (mut node, _) = runtime.block_on(Node::bind(key.channel()));
        runtime.block_on(async {
            for viewer in &viewers {
                node.dial(viewer.peer, viewer.addr);
            }
        });
        hostile.push((name, limit, node.id, Arc::clone(&node.account)));
        tasks.push(runtime.spawn(node.run(behaviour)));
    }
    let ids: Vec<PeerId> = hostile.iter().map(|(_, _, id, _)| *id).collect();
    let to_drop = hostile.iter().filter(|(_, limit, ..)| limit.is_some()).count();
    for viewer in &viewers {
        let deadline = Instant::now() + S(10);
        while dropped(&viewer.caudal.stats()).len() < to_drop && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    std::thread::sleep(S(3));
    for viewer in &viewers {
        let stats = viewer.caudal.stats();
        let reasons = dropped(&stats);
        for (name, limit, id, account) in &hostile {
            let deeds = account.lock().expect("whole").deeds.get(&viewer.peer).copied().unwrap_or(0);
            let reason = reasons.iter().find(|reason| reason.starts_with(&id.short()));
            println!("{name}: {deeds} deeds, {reason:?}");
            assert!(deeds > 0, "{name}: did nothing");
            match limit {
                Some(limit) => {
                    assert!(reason.is_some() && deeds <= *limit, "{name}: {deeds} deeds, {reasons:?}");
                }
                None => assert!(deeds > 50, "{name}: no flood at all"),
            }
        }
        assert_eq!(number(&stats, "/chunks_forged"), 2.0, "the two that were forged: {stats}");
        unharmed(&stats, &ids);
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    for viewer in viewers {
        let (report, status) = viewer.caudal.end();
        unharmed(&report, &ids);
        assert!(status.success(), "{report}");
    }
}

/// Greets newcomers as somebody who has everything, and answers what they ask with `answer`.
fn braggart(ahead: u64, mut answer: impl FnMut(&mut Node, PeerId, u64) + Send + 'static) -> Behaviour {
    Box::new(move |node, peer, happening| match happening {
        Happening::Connected | Happening::Tick => {
            let due = matches!(happening, Happening::Connected)
                || node.peers[&peer].last.is_none_or(|at| at.elapsed() > Duration::from_millis(300));
            let Some(mut have) = node.newest_have().filter(|_| due) else { return };
            let (certificate, note) = {
                let account = node.account.lock().expect("whole");
                (account.certificate.clone(), account.note.clone())
            };
            let range = have.chunks.iter().next().map_or(0, |range| range.start)
                ..have.chunks.iter().last().map_or(0, |range| range.end) + ahead;
            have.chunks = RangeList::from_ranges([range]);
            let mut messages: Vec<Message> = certificate.map(Message::Certificate).into_iter().collect();
            messages.extend(note.map(Message::LiveNote));
            messages.extend([Message::Have(have), Node::boast()]);
            node.say(peer, &messages);
            if let Some(seen) = node.peers.get_mut(&peer) {
                seen.last = Some(Instant::now());
            }
        }
        Happening::Said(Message::Attach(attach)) => {
            node.say(peer, &[Message::Accept(Accept { substream: attach.substream, path: Vec::new() })]);
        }
        Happening::Said(Message::Request(request)) => {
            for number in request.chunks.numbers(256).collect::<Vec<_>>() {
                answer(node, peer, number);
            }
        }
        _ => {}
    })
}

/// One newcomer meets one hostile peer that it asks, among two honest ones.
fn newcomer_meets(
    name: &str,
    limit: Limit,
    ahead: u64,
    answer: impl FnMut(&mut Node, PeerId, u64) + Send + 'static,
) {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish(&home, tracker.told("http"));
    let first: Vec<Viewer> = (0..2).map(|_| watch(&home, &link(&source))).collect();
    first.iter().for_each(playing);
    std::thread::sleep(S(2));
    let runtime = runtime();
    let (mut node, key) = runtime.block_on(Node::bind(read_channel_key(&home).channel()));
    runtime.block_on(async { node.dial(first[0].peer, first[0].addr) });
    let _client = runtime.block_on(register(tracker.told("http"), &node, key));
    let (id, account) = (node.id, Arc::clone(&node.account));
    let task = runtime.spawn(node.run(braggart(ahead, answer)));
    std::thread::sleep(Duration::from_millis(800));
    // Whether a newcomer hears of it before it has all it needs is chance.
    let newcomer = (0..6).find_map(|_| {
        let newcomer = watch(&home, &link(&source));
        playing(&newcomer);
        account.lock().expect("whole").deeds.contains_key(&newcomer.peer).then_some(newcomer)
    });
    let newcomer = newcomer.unwrap_or_else(|| panic!("{name}: it was never asked"));
    let deadline = Instant::now() + S(8);
    while Instant::now() < deadline && dropped(&newcomer.caudal.stats()).is_empty() {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(S(2));
    let stats = newcomer.caudal.stats();
    let deeds = account.lock().expect("whole").deeds.get(&newcomer.peer).copied().unwrap_or(0);
    println!("{name}: {deeds} deeds, {:?}, startup {} ms", dropped(&stats), number(&stats, "/startup_ms"));
    if let Some(limit) = limit {
        // Whoever is no longer asked cannot lie as often as it takes.
        assert!(!dropped(&stats).is_empty() || deeds < limit, "{name}: not dropped after {deeds}: {stats}");
        assert!(deeds <= limit, "{name}: dropped only after {deeds}");
    }
    assert!(number(&stats, "/startup_ms") < 2500.0, "{name}: {stats}");
    unharmed(&stats, &[id]);
    for viewer in &first {
        unharmed(&viewer.caudal.stats(), &[id]);
    }
    task.abort();
}

#[test]
fn a_newcomer_drops_whoever_answers_with_forged_chunks() {
    newcomer_meets("forged answer", Some(1), 200, |node, peer, number| {
        let channel = node.channel;
        if node.peers[&peer].deeds > 0 {
            return;
        }
        let Some(epoch) = node.newest_have().map(|have| have.epoch) else { return };
        node.did(peer);
        let mut signer = Signer::new(SecretKey::from_bytes(&[5; 32]), channel, epoch, RenditionId(0), 1024);
        let part = PartIn {
            flags: Flags::default(),
            capture_unix_us: unix_us(),
            payload: Bytes::from_static(b"spam"),
        };
        let forged = loop {
            let chunk = signer.sign(&part, unix_us()).remove(0);
            if chunk.header().number == number {
                break chunk;
            }
        };
        node.send(peer, true, forged.encoded().clone());
    });
}

#[test]
fn a_newcomer_drops_whoever_refuses_what_it_claims() {
    // One false claim is one HAVE and the refusal of what was asked because of it.
    let mut claimed = std::collections::BTreeMap::new();
    newcomer_meets("false claim, refused", Some(5), 200, move |node, peer, number| {
        let claim = node.peers[&peer].last;
        if claimed.insert(peer, claim) != Some(claim) {
            *node.account.lock().expect("whole").deeds.entry(peer).or_default() += 1;
        }
        let chunks = RangeList::from_numbers([number]);
        node.say(peer, &[Message::Refuse { reason: RefuseReason::Absent, chunks }]);
    });
}

#[test]
fn a_newcomer_is_not_held_up_by_whoever_claims_and_stays_silent() {
    newcomer_meets("false claim, silence", None, 200, |node, peer, _| _ = node.did(peer));
}

/// A newcomer that only knows a peer with yesterday's broadcast, rightly signed, plays nothing of it.
#[test]
fn an_eclipsed_newcomer_does_not_play_yesterdays_broadcast() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let channel_key = SecretKey::from_bytes(&[3; 32]);
    let runtime = runtime();
    let (node, key) = runtime.block_on(Node::bind(channel_key.channel()));
    let epoch = unix_us() / 1000 - 86_400_000;
    let (certificate, note, chunks) = old_broadcast(&channel_key, epoch);
    let _client = runtime.block_on(register(tracker.told("http"), &node, key));
    let account = Arc::clone(&node.account);
    let task = runtime.spawn(node.run(Box::new(move |node, peer, happening| match happening {
        Happening::Connected => {
            node.did(peer);
            offer_old(node, peer, &certificate, &note, epoch, &chunks);
        }
        Happening::Said(Message::Request(request)) => {
            for number in request.chunks.numbers(64) {
                node.send(peer, true, chunks[number as usize].clone());
            }
        }
        _ => {}
    })));
    let link = format!("caudal:{}?tracker={}", channel_key.channel(), tracker.told("http"));
    let viewer = Caudal::start(&home, &["watch", &link]);
    let deadline = Instant::now() + S(10);
    while account.lock().expect("whole").deeds.is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(S(3));
    assert_eq!(account.lock().expect("whole").deeds.len(), 1, "it was offered");
    let stats = viewer.stats();
    assert_eq!((number(&stats, "/parts"), number(&stats, "/chunks_received")), (0.0, 0.0), "{stats}");
    assert_eq!(stats["state"], "joining");
    task.abort();
    let (_, status) = viewer.end();
    assert_eq!(status.code(), Some(1), "nothing was played, and the exit code says so");
}
