//! Addresses and peer records in messages: RECORD, PEX, REJECT, SEEN.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::WireError;
use super::codec::Reader;
use crate::id::PeerId;
use crate::record::{PeerRecord, Record, encode_addr};

/// Fewest bytes of a [`PeerRecord`].
pub(super) const PEER_RECORD_LEN_MIN: usize = 107;

pub(super) fn encode_record(out: &mut Vec<u8>, record: &Record) {
    encode_addr(out, &record.addr);
    out.extend_from_slice(&record.expires_unix_s.to_be_bytes());
    out.extend_from_slice(&record.signature);
}

pub(super) fn encode_peer(out: &mut Vec<u8>, told: &PeerRecord) {
    out.extend_from_slice(&told.peer.0);
    encode_record(out, &told.record);
}

pub(super) fn decode_addr(reader: &mut Reader) -> Result<SocketAddr, WireError> {
    let ip: IpAddr = match reader.u8()? {
        4 => Ipv4Addr::from(reader.array::<4>()?).into(),
        6 => Ipv6Addr::from(reader.array::<16>()?).into(),
        _ => return Err(WireError::OutOfRange),
    };
    Ok(SocketAddr::new(ip, reader.u16()?))
}

pub(super) fn decode_record(reader: &mut Reader) -> Result<Record, WireError> {
    Ok(Record { addr: decode_addr(reader)?, expires_unix_s: reader.u32()?, signature: reader.array()? })
}

pub(super) fn decode_peer(reader: &mut Reader) -> Result<PeerRecord, WireError> {
    Ok(PeerRecord { peer: PeerId(reader.array()?), record: decode_record(reader)? })
}
