//! Every message there and back, vectors against `docs/protocol.md`, and hostile bytes.

use super::*;
use crate::broadcast::{CERTIFICATE_LEN, LIVE_NOTE_LEN};
use crate::hop::{FORWARDS_MAX, Forward, Hop, HopReport};
use crate::id::{ChannelId, PeerId, RenditionId};
use crate::record::{PeerRecord, Record};
use alloc::vec;

fn told(n: u8, addr: &str) -> PeerRecord {
    let record =
        Record { addr: addr.parse().unwrap(), expires_unix_s: 1_800_000_600, signature: [n + 0xa0; 64] };
    PeerRecord { peer: PeerId([n; 32]), record }
}

fn hop_report(forwards: usize) -> HopReport {
    HopReport {
        epoch: 1_800_000_000_000,
        number: 77,
        rendition: RenditionId(0),
        peer: PeerId([3; 32]),
        from: 2,
        requested: true,
        source: false,
        arrived_unix_us: 1_800_000_000_290_000,
        lag_us: 290_000,
        hops_us: 90_000,
        rtt_us: 40_000,
        forwards: vec![Forward { to: 4, after_us: 700 }; forwards],
        signature: [0x0b; 64],
    }
}

fn samples() -> Vec<Message> {
    let chunks = RangeList::from_ranges([5..9, 100..101]);
    let path = Accept { substream: 3, path: vec![1, u64::MAX] };
    vec![
        Message::Handshake(Handshake {
            channel: ChannelId([0xaa; 32]),
            rendition: RenditionId(0),
            source: true,
            upload_kbps: 20_000,
        }),
        Message::Certificate(Bytes::from(vec![7; CERTIFICATE_LEN])),
        Message::LiveNote(Bytes::from(vec![8; LIVE_NOTE_LEN])),
        Message::Have(Have {
            epoch: 1_000,
            chunks: chunks.clone(),
            segment_starts: vec![SegmentStart { number: 5, age_ms: 900 }],
        }),
        Message::State(State {
            upload_kbps: 1_500,
            wait_ms: 12,
            substreams: vec![
                SubstreamState { lag_ms: 90, accept: 0 },
                SubstreamState { lag_ms: 200, accept: 255 },
            ],
        }),
        Message::Attach(Attach {
            substream: 15,
            interior: true,
            urgent: false,
            upload_kbps: 3_000,
            from: 77,
        }),
        Message::Accept(path.clone()),
        Message::Path(path),
        Message::Reject(Reject {
            substream: 0,
            reason: RejectReason::Displaced,
            suggestions: vec![told(9, "192.0.2.9:4009")],
        }),
        Message::Detach { substream: 2 },
        Message::Request(Request { deadline_ms: 1_500, joining: true, chunks: chunks.clone() }),
        Message::Cancel(chunks.clone()),
        Message::Refuse { reason: RefuseReason::Busy, chunks },
        Message::Ping(0xdead_beef),
        Message::Pong(1),
        Message::Pex(vec![told(1, "192.0.2.1:4000"), told(2, "[2001:db8::1]:4001")]),
        Message::Bye,
        Message::Seen("192.0.2.3:4003".parse().unwrap()),
        Message::Record(told(3, "192.0.2.3:4003").record),
        Message::Trace(Trace { reports: true, wants: 8 }),
        Message::Hop(alloc::boxed::Box::new(Hop { above: 1, report: hop_report(2) })),
    ]
}

fn frames(messages: &[Message]) -> Vec<u8> {
    let mut writer = FrameWriter::new(4);
    let mut out = Vec::new();
    for message in messages {
        out.extend(writer.push(message).unwrap_or_default());
    }
    out.extend(writer.finish().unwrap_or_default());
    out
}

fn read(bytes: &[u8], step: usize) -> Result<Vec<Message>, WireError> {
    let (mut reader, mut messages) = (FrameReader::default(), Vec::new());
    for piece in bytes.chunks(step) {
        reader.extend(piece);
        while let Some(frame) = reader.next_frame()? {
            for message in Messages::open(frame)? {
                messages.push(message?);
            }
        }
    }
    Ok(messages)
}

#[test]
fn every_message_survives_in_pieces_of_any_size() {
    let many: Vec<Message> = samples().into_iter().cycle().take(200).collect();
    let bytes = frames(&many);
    for step in [1, 7, 1000, bytes.len()] {
        assert_eq!(read(&bytes, step).as_ref(), Ok(&many));
    }
}

/// The vectors of `docs/protocol.md`, taken from the page itself: a change to one is a change to both.
#[test]
fn the_documented_vectors_hold() {
    let page = include_str!("../../../../docs/protocol.md");
    let names = [
        "handshake",
        "certificate",
        "livenote",
        "have",
        "state",
        "attach",
        "accept",
        "path",
        "reject",
        "detach",
        "request",
        "cancel",
        "refuse",
        "ping",
        "pong",
        "pex",
        "bye",
        "seen",
        "record",
        "trace",
        "hop",
    ];
    let samples = samples();
    assert_eq!(names.len(), samples.len(), "every message has a vector");
    for (name, message) in names.iter().zip(&samples) {
        let prefix = std::format!("vector {name}: ");
        let documented = page.lines().find_map(|line| line.strip_prefix(&prefix));
        let ours = data_encoding::HEXLOWER.encode(&frames(core::slice::from_ref(message)));
        assert_eq!(documented, Some(ours.as_str()), "{message:?}");
    }
}

#[test]
fn hostile_bytes_are_errors() {
    let mut rng = fastrand::Rng::with_seed(1);
    let good = frames(&samples());
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        bytes.truncate(rng.usize(..=bytes.len()));
        let _ = read(&bytes, 512);
    }
    assert!(matches!(read(&[0x7f, 0xff], 2), Err(WireError::FrameTooLong(_))));
    assert!(matches!(read(&[0xff], 1), Err(WireError::FrameTooLong(_))));
    assert_eq!(read(&[2, 0, 99], 3), Err(WireError::UnknownType(99)));
}

#[test]
fn the_longest_message_fits_a_frame() {
    let pex = told(1, "[2001:db8::1]:4001");
    let wide =
        RangeList::from_ranges((0..RANGES_MAX as u64).map(|i| (i * 2) << 50..((i * 2) << 50) + (1 << 49)));
    for message in [
        Message::Have(Have {
            epoch: VARINT_MAX,
            chunks: wide,
            segment_starts: vec![SegmentStart { number: VARINT_MAX, age_ms: u32::MAX }; SEGMENT_STARTS_MAX],
        }),
        Message::Pex(vec![pex; PEX_LEN_MAX]),
        Message::Hop(alloc::boxed::Box::new(Hop { above: u64::MAX, report: hop_report(FORWARDS_MAX) })),
    ] {
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert!(encoded.len() < FRAME_LEN_MAX, "{}", encoded.len());
    }
}
