//! One connection while it stands: its control stream both ways, the chunks that arrive, and its end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use caudal_proto::id::PeerId;
use caudal_proto::io::{CloseCode, Input};
use caudal_proto::wire::FrameReader;
use iroh::endpoint::{
    Connection, ConnectionError, Path, PathId, RecvStream, SendStream, TransportErrorCode, VarInt,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::chunk::{self, Received};
use super::{CHUNKS_IN_MAX, Command, DISCONNECT_FLUSH_MAX, FRAMES_IN_MAX, News, PREFACE, Shared};
use crate::link::{VIOLATION_CHUNK, VIOLATION_FRAME, VIOLATION_PREFACE, VIOLATION_TRANSPORT};

/// Most bytes taken from a control stream at once.
const CONTROL_READ_MAX: usize = 4096;

/// What a connection's tasks know.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: PeerId,
    pub(super) id: u64,
    pub(super) connection: Connection,
}

impl Running {
    /// Starts the connection's three tasks; they end with it.
    pub(super) fn spawn(
        self,
        send: SendStream,
        recv: RecvStream,
        commands: mpsc::UnboundedReceiver<Command>,
        control_out: Arc<AtomicUsize>,
        expects_preface: bool,
        owes_preface: bool,
    ) {
        tokio::spawn(self.clone().control_in(recv, expects_preface));
        tokio::spawn(self.clone().chunks_in());
        let preface = owes_preface.then(|| Bytes::from_static(&[PREFACE]));
        tokio::spawn(self.control_out(send, commands, control_out, preface));
    }

    fn violation(&self, reason: &'static str) {
        self.shared.send(self.peer, self.id, News::Input(Input::Violation(self.peer, reason)), None);
    }

    /// Reads frames. Each takes a share of the peer's limit until the engine has it; without one, reading stops, and
    /// the stream's window stops the peer.
    async fn control_in(self, mut recv: RecvStream, mut expects_preface: bool) {
        let shares = Arc::new(Semaphore::new(FRAMES_IN_MAX));
        let mut frames = FrameReader::default();
        // An error or the stream's end needs no word: the connection's end follows.
        while let Ok(Some(mut bytes)) = recv.read_chunk(CONTROL_READ_MAX).await {
            if std::mem::take(&mut expects_preface) {
                if bytes.first() != Some(&PREFACE) {
                    return self.violation(VIOLATION_PREFACE);
                }
                bytes = bytes.slice(1..);
            }
            frames.extend(&bytes);
            loop {
                let frame = match frames.next_frame() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(_) => return self.violation(VIOLATION_FRAME),
                };
                let Ok(share) = Arc::clone(&shares).acquire_owned().await else { return };
                let news = News::Input(Input::Control(self.peer, frame));
                self.shared.send(self.peer, self.id, news, Some(share));
            }
        }
    }

    /// Accepts chunk streams, each read by a task of its own. A stream's share is taken before it is accepted and
    /// given back when the engine has the chunk, so that a peer cannot fill more than [`CHUNKS_IN_MAX`].
    async fn chunks_in(self) {
        let shares = Arc::new(Semaphore::new(CHUNKS_IN_MAX));
        loop {
            let Ok(share) = Arc::clone(&shares).acquire_owned().await else { return };
            let Ok(stream) = self.connection.accept_uni().await else { return };
            let (shared, peer, id) = (Arc::clone(&self.shared), self.peer, self.id);
            tokio::spawn(async move {
                let input = match chunk::receive(stream).await {
                    Received::Whole(bytes) => Input::ChunkStream(peer, bytes),
                    Received::TooLong => Input::Violation(peer, VIOLATION_CHUNK),
                    Received::Gone => return,
                };
                shared.send(peer, id, News::Input(input), Some(share));
            });
        }
    }

    /// Writes the control stream, and sees the connection to its end.
    async fn control_out(
        self,
        mut send: SendStream,
        mut commands: mpsc::UnboundedReceiver<Command>,
        queued: Arc<AtomicUsize>,
        preface: Option<Bytes>,
    ) {
        // Held until the end: the link waits for it when it closes.
        let _farewell = self.shared.farewell.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut unsent: VecDeque<Bytes> = preface.into_iter().collect();
        let mut closed = std::pin::pin!(self.connection.closed());
        let code = loop {
            tokio::select! {
                error = &mut closed => {
                    self.shared.retire(self.peer, self.id, broken_rule(&error));
                    return;
                }
                command = commands.recv() => match command {
                    Some(Command::Control(bytes)) => unsent.push_back(bytes),
                    Some(Command::Close(code)) => break code,
                    None => break CloseCode::Done,
                },
                written = write_some(&mut send, &mut unsent, &queued), if !unsent.is_empty() => {
                    if !written {
                        // The peer stopped its control stream. It will be found silent; nothing more is kept for it.
                        unsent.clear();
                    }
                }
            }
        };
        self.shared.retire(self.peer, self.id, None);
        if matches!(code, CloseCode::Done | CloseCode::Full) {
            // What was said last may be why, so it may take a moment to arrive.
            let _ = timeout(DISCONNECT_FLUSH_MAX, flush(&mut send, &mut unsent, &queued)).await;
        }
        self.connection.close(VarInt::from_u32(code as u32), b"");
    }
}

/// Writes as much of `unsent` as there is room for; false when the stream takes no more. Cancel-safe.
async fn write_some(send: &mut SendStream, unsent: &mut VecDeque<Bytes>, queued: &AtomicUsize) -> bool {
    let mut rest = unsent.make_contiguous();
    let all = rest.len();
    let Ok(written) = send.write_many_chunks(&mut rest).await else { return false };
    let done = all - rest.len();
    unsent.drain(..done);
    // The preface was never counted, hence the saturation.
    let _ =
        queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |was| Some(was.saturating_sub(written)));
    true
}

/// Writes the rest and waits until the peer has it.
async fn flush(send: &mut SendStream, unsent: &mut VecDeque<Bytes>, queued: &AtomicUsize) {
    while !unsent.is_empty() {
        if !write_some(send, unsent, queued).await {
            return;
        }
    }
    if send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}

/// The rule of QUIC that the peer broke, when that ended the connection. A lost path or an idle peer broke none.
fn broken_rule(error: &ConnectionError) -> Option<&'static str> {
    let ConnectionError::TransportError(error) = error else { return None };
    let broke = [
        TransportErrorCode::FLOW_CONTROL_ERROR,
        TransportErrorCode::STREAM_LIMIT_ERROR,
        TransportErrorCode::STREAM_STATE_ERROR,
        TransportErrorCode::FINAL_SIZE_ERROR,
        TransportErrorCode::FRAME_ENCODING_ERROR,
        TransportErrorCode::PROTOCOL_VIOLATION,
    ];
    broke.contains(&error.code).then_some(VIOLATION_TRANSPORT)
}

/// The round-trip time of the path in use.
pub(super) fn rtt(connection: &Connection) -> Option<Duration> {
    let paths = connection.paths();
    let selected = paths.iter().find(Path::is_selected).map(|path| path.rtt());
    selected.or_else(|| connection.rtt(PathId::ZERO))
}
