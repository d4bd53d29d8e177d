//! The control messages, field by field.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;

use bytes::Bytes;

use super::codec::{Reader, put_varint};
use super::record::{
    PEER_RECORD_LEN_MIN, decode_addr, decode_peer, decode_record, encode_peer, encode_record,
};
use super::{RangeList, VERSION, WireError};
use crate::broadcast::{CERTIFICATE_LEN, LIVE_NOTE_LEN, SUBSTREAMS_MAX};
use crate::hop::{HOP_REPORT_LEN_MIN, Hop, HopReport};
use crate::id::{ChannelId, RenditionId};
use crate::record::{PeerRecord, Record, encode_addr};

/// Most ancestors in a path; a deeper tree is refused.
pub const PATH_LEN_MAX: usize = 24;
/// Most peers in one PEX message.
pub const PEX_LEN_MAX: usize = 4;
/// Most segment starts in a HAVE.
pub const SEGMENT_STARTS_MAX: usize = 8;
/// Reports are wanted from peers this many hops away at most.
pub const TRACE_WANTS_MAX: u8 = 8;
/// Most peers that a REJECT suggests.
pub const SUGGESTIONS_MAX: usize = 3;
/// The lag of a substream that a peer does not receive; also the largest that is told, ms.
pub const LAG_UNKNOWN_MS: u16 = 16_383;

/// [`PeerId::tag`](crate::id::PeerId::tag)s from the parent up to the source.
pub type Path = Vec<u64>;

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First in each direction for each swarm: names the channel that the frame's handle stands for.
    Handshake(Handshake),
    /// A broadcast certificate, as [`crate::broadcast::Certificate::encode`] writes it.
    Certificate(Bytes),
    /// A live note, as [`crate::broadcast::LiveNote::encode`] writes it.
    LiveNote(Bytes),
    /// The sender's whole have map.
    Have(Have),
    /// What the sender can do for children.
    State(State),
    /// "Be my parent in this substream."
    Attach(Attach),
    /// "I am."
    Accept(Accept),
    /// "I am not", or "no longer".
    Reject(Reject),
    /// "You need not push this substream to me any more."
    Detach {
        /// The substream.
        substream: u8,
    },
    /// A parent's ancestors changed.
    Path(Accept),
    /// "Send me these chunks."
    Request(Request),
    /// "I have them now."
    Cancel(RangeList),
    /// "I shall not send these."
    Refuse {
        /// Why.
        reason: RefuseReason,
        /// Which.
        chunks: RangeList,
    },
    /// "Are you there?"
    Ping(u32),
    /// "I am", with the PING's number.
    Pong(u32),
    /// Peers that the sender is connected to, in their own words; none: "name me some".
    Pex(Vec<PeerRecord>),
    /// "I leave this swarm."
    Bye,
    /// "This is where I see you."
    Seen(SocketAddr),
    /// "This is where I am": the sender's own record.
    Record(Record),
    /// Where the sender stands towards tracing.
    Trace(Trace),
    /// A peer's word on a traced chunk, handed on.
    Hop(Box<Hop>),
}

/// Who speaks, and of which swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The channel.
    pub channel: ChannelId,
    /// The rendition.
    pub rendition: RenditionId,
    /// The sender publishes the channel. A claim: only signatures prove it.
    pub source: bool,
    /// The sender's measured or configured upload, kbit/s; 0 = it does not upload.
    pub upload_kbps: u32,
}

/// Which chunks the sender holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// The broadcast.
    pub epoch: u64,
    /// The chunks.
    pub chunks: RangeList,
    /// Where a joiner may start: the newest segments among them, oldest first; told to newcomers only.
    pub segment_starts: Vec<SegmentStart>,
}

/// A segment that the sender holds the first chunk of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStart {
    /// The number of the segment's first chunk.
    pub number: u64,
    /// How long ago the sender received it, ms.
    pub age_ms: u32,
}

/// What a peer can do for others, renewed every second or so, and when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Measured upload, kbit/s.
    pub upload_kbps: u32,
    /// How long a chunk handed to the sender's uplink waits now, ms.
    pub wait_ms: u16,
    /// For each substream in order.
    pub substreams: Vec<SubstreamState>,
}

/// One substream in a [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubstreamState {
    /// How far behind the signature the sender receives it, ms; [`LAG_UNKNOWN_MS`] = not at all.
    pub lag_ms: u16,
    /// What a peer must count at least to be accepted as a child (`docs/protocol.md`, STATE): 0 = anybody, 255 = nobody.
    pub accept: u8,
}

/// A child's application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attach {
    /// The substream.
    pub substream: u8,
    /// The sender will relay this substream: serve it first.
    pub interior: bool,
    /// The sender has no parent in it and found no better one.
    pub urgent: bool,
    /// The sender's upload, kbit/s.
    pub upload_kbps: u32,
    /// The first chunk the sender lacks: push from here.
    pub from: u64,
}

/// A parent's word (ACCEPT), or its news (PATH).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// The substream.
    pub substream: u8,
    /// The parent's own ancestors, nearest first; empty at the source.
    pub path: Path,
}

/// A parent's refusal or the end of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The substream.
    pub substream: u8,
    /// Why.
    pub reason: RejectReason,
    /// Whom to try, and where they say that they are.
    pub suggestions: Vec<PeerRecord>,
}

/// Why a child is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    /// All slots are taken by peers with more upload.
    Full = 0,
    /// A peer with more upload takes the slot: the sender goes on pushing for a moment, until the child has moved.
    Displaced = 1,
    /// The applicant is an ancestor of the parent.
    Loop = 2,
    /// The sender does not receive the substream itself.
    Starving = 3,
}

/// Where the sender stands towards tracing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trace {
    /// It reports hops, and may be named in its neighbours' reports.
    pub reports: bool,
    /// It wants to be handed the reports that the receiver learns, and may ask this many hops further on for them; 0: it wants none.
    pub wants: u8,
}

/// A request for chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How long the answer is of use, ms.
    pub deadline_ms: u16,
    /// The sender has just joined: it may be given more.
    pub joining: bool,
    /// The chunks, most urgent first within the list's order.
    pub chunks: RangeList,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RefuseReason {
    /// The sender does not hold it.
    Absent = 0,
    /// The sender's uplink is busy.
    Busy = 1,
}

impl Message {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Handshake(m) => {
                out.extend_from_slice(&[1, VERSION]);
                out.extend_from_slice(&m.channel.0);
                out.extend_from_slice(&[m.rendition.0, u8::from(m.source)]);
                put_varint(out, u64::from(m.upload_kbps.min(UPLOAD_KBPS_MAX)));
            }
            Self::Certificate(bytes) => {
                out.push(2);
                out.extend_from_slice(bytes);
            }
            Self::LiveNote(bytes) => {
                out.push(3);
                out.extend_from_slice(bytes);
            }
            Self::Have(m) => {
                out.push(4);
                put_varint(out, m.epoch);
                m.chunks.encode(out);
                let starts = &m.segment_starts[..m.segment_starts.len().min(SEGMENT_STARTS_MAX)];
                out.push(starts.len() as u8);
                for start in starts {
                    put_varint(out, start.number);
                    put_varint(out, u64::from(start.age_ms));
                }
            }
            Self::State(m) => {
                out.push(5);
                put_varint(out, u64::from(m.upload_kbps.min(UPLOAD_KBPS_MAX)));
                put_varint(out, u64::from(m.wait_ms.min(LAG_UNKNOWN_MS)));
                out.push(m.substreams.len().min(usize::from(SUBSTREAMS_MAX)) as u8);
                for substream in m.substreams.iter().take(usize::from(SUBSTREAMS_MAX)) {
                    put_varint(out, u64::from(substream.lag_ms.min(LAG_UNKNOWN_MS)));
                    out.push(substream.accept);
                }
            }
            Self::Attach(m) => {
                out.extend_from_slice(&[6, m.substream, u8::from(m.interior) | (u8::from(m.urgent) << 1)]);
                put_varint(out, u64::from(m.upload_kbps.min(UPLOAD_KBPS_MAX)));
                put_varint(out, m.from);
            }
            Self::Accept(m) => encode_path(out, 7, m),
            Self::Path(m) => encode_path(out, 8, m),
            Self::Reject(m) => {
                let suggestions = &m.suggestions[..m.suggestions.len().min(SUGGESTIONS_MAX)];
                out.extend_from_slice(&[9, m.substream, m.reason as u8, suggestions.len() as u8]);
                suggestions.iter().for_each(|peer| encode_peer(out, peer));
            }
            Self::Detach { substream } => out.extend_from_slice(&[10, *substream]),
            Self::Request(m) => {
                out.extend_from_slice(&[11, u8::from(m.joining)]);
                put_varint(out, u64::from(m.deadline_ms.min(LAG_UNKNOWN_MS)));
                m.chunks.encode(out);
            }
            Self::Cancel(chunks) => {
                out.push(12);
                chunks.encode(out);
            }
            Self::Refuse { reason, chunks } => {
                out.extend_from_slice(&[13, *reason as u8]);
                chunks.encode(out);
            }
            Self::Ping(number) => {
                out.push(14);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Pong(number) => {
                out.push(15);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Pex(peers) => {
                let peers = &peers[..peers.len().min(PEX_LEN_MAX)];
                out.extend_from_slice(&[16, peers.len() as u8]);
                peers.iter().for_each(|peer| encode_peer(out, peer));
            }
            Self::Bye => out.push(17),
            Self::Seen(addr) => {
                out.push(18);
                encode_addr(out, addr);
            }
            Self::Record(record) => {
                out.push(19);
                encode_record(out, record);
            }
            Self::Trace(m) => {
                out.extend_from_slice(&[20, u8::from(m.reports), m.wants.min(TRACE_WANTS_MAX)]);
            }
            Self::Hop(hop) => {
                out.push(21);
                out.extend_from_slice(&hop.above.to_be_bytes());
                hop.report.encode(out);
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, WireError> {
        Ok(match reader.u8()? {
            1 => Self::Handshake(decode_handshake(reader)?),
            2 => Self::Certificate(reader.bytes(CERTIFICATE_LEN)?),
            3 => Self::LiveNote(reader.bytes(LIVE_NOTE_LEN)?),
            4 => Self::Have(Have {
                epoch: reader.varint()?,
                chunks: RangeList::decode(reader)?,
                segment_starts: decode_segment_starts(reader)?,
            }),
            5 => Self::State(decode_state(reader)?),
            6 => {
                let (substream, flags) = (decode_substream(reader)?, reader.u8()?);
                if flags > 3 {
                    return Err(WireError::OutOfRange);
                }
                let (upload_kbps, from) = (decode_upload(reader)?, reader.varint()?);
                Self::Attach(Attach {
                    substream,
                    interior: flags & 1 != 0,
                    urgent: flags & 2 != 0,
                    upload_kbps,
                    from,
                })
            }
            7 => Self::Accept(decode_path(reader)?),
            8 => Self::Path(decode_path(reader)?),
            9 => Self::Reject(decode_reject(reader)?),
            10 => Self::Detach { substream: decode_substream(reader)? },
            11 => Self::Request(Request {
                joining: decode_bool(reader)?,
                deadline_ms: reader.varint_up_to(u64::from(LAG_UNKNOWN_MS))? as u16,
                chunks: RangeList::decode(reader)?,
            }),
            12 => Self::Cancel(RangeList::decode(reader)?),
            13 => Self::Refuse {
                reason: if decode_bool(reader)? { RefuseReason::Busy } else { RefuseReason::Absent },
                chunks: RangeList::decode(reader)?,
            },
            14 => Self::Ping(reader.u32()?),
            15 => Self::Pong(reader.u32()?),
            16 => {
                let count = decode_count(reader, PEX_LEN_MAX, PEER_RECORD_LEN_MIN)?;
                Self::Pex((0..count).map(|_| decode_peer(reader)).collect::<Result<_, _>>()?)
            }
            17 => Self::Bye,
            18 => Self::Seen(decode_addr(reader)?),
            19 => Self::Record(decode_record(reader)?),
            20 => {
                let (reports, wants) = (decode_bool(reader)?, reader.u8()?);
                if wants > TRACE_WANTS_MAX {
                    return Err(WireError::OutOfRange);
                }
                Self::Trace(Trace { reports, wants })
            }
            21 => {
                if reader.0.len() < 8 + HOP_REPORT_LEN_MIN {
                    return Err(WireError::Short);
                }
                Self::Hop(Box::new(Hop { above: reader.u64()?, report: HopReport::decode(reader)? }))
            }
            other => return Err(WireError::UnknownType(other)),
        })
    }
}

/// Largest upload that is told: 1 Tbit/s.
const UPLOAD_KBPS_MAX: u32 = 1_000_000_000;

fn encode_path(out: &mut Vec<u8>, kind: u8, message: &Accept) {
    let path = &message.path[..message.path.len().min(PATH_LEN_MAX)];
    out.extend_from_slice(&[kind, message.substream, path.len() as u8]);
    path.iter().for_each(|tag| out.extend_from_slice(&tag.to_be_bytes()));
}

fn decode_handshake(reader: &mut Reader) -> Result<Handshake, WireError> {
    if reader.u8()? != VERSION {
        return Err(WireError::OutOfRange);
    }
    Ok(Handshake {
        channel: ChannelId(reader.array()?),
        rendition: RenditionId(reader.u8()?),
        source: decode_bool(reader)?,
        upload_kbps: decode_upload(reader)?,
    })
}

fn decode_segment_starts(reader: &mut Reader) -> Result<Vec<SegmentStart>, WireError> {
    let count = decode_count(reader, SEGMENT_STARTS_MAX, 2)?;
    (0..count)
        .map(|_| {
            let number = reader.varint()?;
            let age_ms = reader.varint_up_to(u64::from(u32::MAX))? as u32;
            Ok(SegmentStart { number, age_ms })
        })
        .collect()
}

fn decode_state(reader: &mut Reader) -> Result<State, WireError> {
    let upload_kbps = decode_upload(reader)?;
    let wait_ms = reader.varint_up_to(u64::from(LAG_UNKNOWN_MS))? as u16;
    let count = decode_count(reader, usize::from(SUBSTREAMS_MAX), 2)?;
    let substreams = (0..count)
        .map(|_| {
            let lag_ms = reader.varint_up_to(u64::from(LAG_UNKNOWN_MS))? as u16;
            Ok(SubstreamState { lag_ms, accept: reader.u8()? })
        })
        .collect::<Result<_, WireError>>()?;
    Ok(State { upload_kbps, wait_ms, substreams })
}

fn decode_path(reader: &mut Reader) -> Result<Accept, WireError> {
    let substream = decode_substream(reader)?;
    let count = decode_count(reader, PATH_LEN_MAX, 8)?;
    let path = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    Ok(Accept { substream, path })
}

fn decode_reject(reader: &mut Reader) -> Result<Reject, WireError> {
    let substream = decode_substream(reader)?;
    let reason = match reader.u8()? {
        0 => RejectReason::Full,
        1 => RejectReason::Displaced,
        2 => RejectReason::Loop,
        3 => RejectReason::Starving,
        _ => return Err(WireError::OutOfRange),
    };
    let count = decode_count(reader, SUGGESTIONS_MAX, PEER_RECORD_LEN_MIN)?;
    let suggestions = (0..count).map(|_| decode_peer(reader)).collect::<Result<_, _>>()?;
    Ok(Reject { substream, reason, suggestions })
}

fn decode_upload(reader: &mut Reader) -> Result<u32, WireError> {
    Ok(reader.varint_up_to(u64::from(UPLOAD_KBPS_MAX))? as u32)
}

fn decode_substream(reader: &mut Reader) -> Result<u8, WireError> {
    let substream = reader.u8()?;
    if substream < SUBSTREAMS_MAX { Ok(substream) } else { Err(WireError::OutOfRange) }
}

fn decode_bool(reader: &mut Reader) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::OutOfRange),
    }
}

/// A list's length, refused before anything is reserved when its items of at least `item_len` bytes cannot follow.
fn decode_count(reader: &mut Reader, max: usize, item_len: usize) -> Result<usize, WireError> {
    let count = usize::from(reader.u8()?);
    if count > max {
        return Err(WireError::OutOfRange);
    }
    if count * item_len > reader.0.len() {
        return Err(WireError::Short);
    }
    Ok(count)
}
