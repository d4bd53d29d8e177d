//! One chunk's stream, out or in.

use bytes::Bytes;
use caudal_proto::io::ChunkOutcome;
use caudal_proto::wire::CHUNK_STREAM_LEN_MAX;
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;

/// The stream's error code when its deadline has passed.
const RESET_LATE: VarInt = VarInt::from_u32(0);
/// Packets taken from the transport at once.
const PIECES: usize = 8;

/// Sends one chunk and waits until the peer has acknowledged all of it, or `reset` speaks or vanishes.
pub(super) async fn send(
    connection: &Connection,
    priority: i32,
    mut parts: [Bytes; 2],
    mut reset: oneshot::Receiver<()>,
) -> ChunkOutcome {
    let mut stream = tokio::select! {
        opened = connection.open_uni() => match opened {
            Ok(stream) => stream,
            Err(_) => return ChunkOutcome::Dropped,
        },
        _ = &mut reset => return ChunkOutcome::Dropped,
    };
    tokio::select! {
        outcome = deliver(&mut stream, priority, &mut parts) => outcome,
        _ = &mut reset => {
            // An error means that it was all acknowledged just now; the engine has given it up all the same.
            let _ = stream.reset(RESET_LATE);
            ChunkOutcome::Dropped
        }
    }
}

async fn deliver(stream: &mut SendStream, priority: i32, parts: &mut [Bytes]) -> ChunkOutcome {
    let handed_over = stream.set_priority(priority).is_ok()
        && stream.write_all_chunks(parts).await.is_ok()
        && stream.finish().is_ok();
    match stream.stopped().await {
        Ok(None) if handed_over => ChunkOutcome::Delivered,
        _ => ChunkOutcome::Dropped,
    }
}

/// What became of an incoming stream.
#[derive(Debug)]
pub(super) enum Received {
    Whole(Bytes),
    TooLong,
    /// Reset by the peer, or lost with the connection.
    Gone,
}

/// Reads a whole stream. What is held grows with what was received, up to four times as much and never more than a
/// chunk; each byte is copied once, so that small packets do not pin large buffers.
pub(super) async fn receive(mut stream: RecvStream) -> Received {
    let mut whole = Vec::new();
    let mut pieces = [const { Bytes::new() }; PIECES];
    loop {
        let count = match stream.read_many_chunks(&mut pieces).await {
            Ok(Some(count)) => count,
            Ok(None) => return Received::Whole(whole.into_boxed_slice().into()),
            Err(_) => return Received::Gone,
        };
        for piece in &mut pieces[..count] {
            let piece = std::mem::take(piece);
            let len = whole.len() + piece.len();
            if len > CHUNK_STREAM_LEN_MAX {
                return Received::TooLong;
            }
            if len > whole.capacity() {
                whole.reserve_exact((4 * len).min(CHUNK_STREAM_LEN_MAX) - whole.len());
            }
            whole.extend_from_slice(&piece);
        }
    }
}
