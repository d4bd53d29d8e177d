//! The test vectors of `docs/protocol.md` that need keys: certificate, live note, signed chunk and its stream.
//!
//! The page is read, not repeated: a change to the format is a change to the page.

use bytes::Bytes;
use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::chunk::{Chunk, Ed25519Verifier, Flags, PartIn, Signer, VerifiedChunk};
use caudal_proto::hop::{Forward, HopReport};
use caudal_proto::hybrid::part::{PartId, read_part};
use caudal_proto::id::{BroadcastId, Domain, PeerId, RenditionId, SecretKey};
use caudal_proto::record::{Ed25519Records, Record};
use caudal_proto::wire::ChunkHead;
use data_encoding::HEXLOWER;

fn documented(name: &str) -> Vec<u8> {
    let page = include_str!("../../../docs/protocol.md");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("vector {name}: ")));
    let hex = line.unwrap_or_else(|| panic!("docs/protocol.md has no vector {name}"));
    HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal")
}

fn keys() -> (SecretKey, SecretKey) {
    (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]))
}

fn certificate() -> Certificate {
    let (channel, broadcast) = keys();
    let terms = CertificateTerms {
        epoch: 1_800_000_000_000,
        not_before_unix_us: 1_800_000_000_000_000,
        not_after_unix_us: 1_800_086_400_000_000,
        substreams: 4,
        rate_bps: 1_000_000,
    };
    Certificate::sign(&channel, BroadcastId(broadcast.public()), terms)
}

fn chunk() -> VerifiedChunk {
    let (channel, broadcast) = keys();
    let mut signer = Signer::new(broadcast, channel.channel(), 1_800_000_000_000, RenditionId(0), 1024);
    let part = PartIn {
        flags: Flags::SEGMENT_START.with(Flags::INIT, true),
        capture_unix_us: 1_800_000_000_000_000,
        payload: Bytes::from_static(b"caudal"),
    };
    signer.sign(&part, 1_800_000_000_200_000).remove(0)
}

#[test]
fn keys_and_broadcast_vectors_hold() {
    let (channel, broadcast) = keys();
    assert_eq!(documented("channel-key"), channel.public());
    assert_eq!(documented("broadcast-key"), broadcast.public());
    assert_eq!(documented("signed-certificate"), certificate().encode());
    let note =
        LiveNote::sign(&broadcast, channel.channel(), 1_800_000_000_000, 1, 1_800_000_000_250_000, false);
    assert_eq!(documented("signed-live-note"), note.encode());
    let read = Certificate::decode(&channel.channel(), &documented("signed-certificate")).expect("decodes");
    assert!(LiveNote::decode(&read, &documented("signed-live-note")).is_ok());
}

#[test]
fn chunk_vectors_hold() {
    let (channel, _) = keys();
    let chunk = chunk();
    assert_eq!(documented("signed-chunk"), chunk.encoded()[..]);
    // What the signature covers, put together from the page's words alone.
    let mut signed = b"caudal chunk v1\0".to_vec();
    signed.extend_from_slice(&channel.public());
    signed.extend_from_slice(&chunk.encoded()[..44]);
    signed.extend_from_slice(blake3::hash(b"caudal").as_bytes());
    assert_eq!(documented("chunk-signature-input"), signed);
    let read = Chunk::decode(documented("signed-chunk").into()).expect("decodes");
    let key = certificate().broadcast;
    assert!(VerifiedChunk::new(read, &channel.channel(), &key, &mut Ed25519Verifier).is_ok());
    // Over HTTP it is a part of its own.
    let id = PartId { rendition: RenditionId(0), epoch: 1_800_000_000_000, part: 0 };
    let part = read_part(&documented("signed-chunk").into(), id, &certificate(), &mut Ed25519Verifier);
    assert_eq!((part.error, &part.chunks[..]), (None, &[chunk.clone()][..]));
    let head = ChunkHead { handle: 4, requested: true, lag_ms: 90 };
    let mut stream = head.encode().to_vec();
    stream.extend_from_slice(chunk.encoded());
    assert_eq!(documented("chunk-stream"), stream);
    assert_eq!(ChunkHead::decode(documented("chunk-stream").into()).expect("decodes").0, head);
}

#[test]
fn hop_report_vectors_hold() {
    let (channel, key) = (keys().0.channel(), SecretKey::from_bytes(&[3; 32]));
    let peer = PeerId(key.public());
    let mut report = HopReport {
        epoch: 1_800_000_000_000,
        number: 496,
        rendition: RenditionId(0),
        peer,
        from: 0x0102_0304_0506_0708,
        requested: false,
        source: false,
        arrived_unix_us: 1_800_000_022_290_000,
        lag_us: 290_000,
        hops_us: 90_000,
        rtt_us: 40_000,
        forwards: vec![
            Forward { to: 0x1112_1314_1516_1718, after_us: 700 },
            Forward { to: 0, after_us: 1_300 },
        ],
        signature: [0; 64],
    };
    report.sign(&mut Ed25519Records(key), &channel);
    // What is sent and what is signed, put together from the page's words alone.
    let claim = [
        &1_800_000_000_000u64.to_be_bytes()[..],
        &496u64.to_be_bytes(),
        &[0],
        &peer.0,
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[0],
        &1_800_000_022_290_000u64.to_be_bytes(),
        &290_000u32.to_be_bytes(),
        &90_000u32.to_be_bytes(),
        &40_000u32.to_be_bytes(),
        &[2],
        &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
        &700u32.to_be_bytes(),
        &[0; 8],
        &1_300u32.to_be_bytes(),
    ]
    .concat();
    assert_eq!(Domain::Hop.prefix(), b"caudal hop report v1\0");
    assert!(peer.verify(Domain::Hop, &[&channel.0[..], &claim].concat(), &report.signature));
    assert!(report.is_genuine(&channel));
    let sent = [&claim[..], &report.signature].concat();
    assert_eq!(HEXLOWER.encode(&documented("signed-hop-report")), HEXLOWER.encode(&sent));
}

#[test]
fn peer_record_vectors_hold() {
    let (channel, key) = (keys().0.channel(), SecretKey::from_bytes(&[3; 32]));
    let peer = PeerId(key.public());
    let addr = "192.0.2.3:4003".parse().expect("an address");
    let record = Record::sign(&mut Ed25519Records(key.clone()), &channel, addr, 1_800_000_600);
    // What is sent and what is signed, put together from the page's words alone.
    let claim = [&[4, 192, 0, 2, 3][..], &4003u16.to_be_bytes(), &1_800_000_600u32.to_be_bytes()].concat();
    let signed = [&channel.0[..], &claim].concat();
    assert!(peer.verify(Domain::Record, &signed, &record.signature));
    assert_eq!(Domain::Record.prefix(), b"caudal peer record v1\0");
    let sent = [&peer.0[..], &claim, &record.signature].concat();
    assert_eq!(HEXLOWER.encode(&documented("signed-peer-record")), HEXLOWER.encode(&sent));
    assert!(record.verify(&mut Ed25519Records(key), &channel, &peer));
}
