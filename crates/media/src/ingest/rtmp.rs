//! The server side of one RTMP connection that publishes (Adobe RTMP 1.0).
//!
//! Owns: the decision points (who may publish, when to close) and the limits of a connection. Handshake, chunk
//! stream and AMF0 are the `rtmp-runtime` crate's, none of whose types show. Never touches a socket; does not serve
//! players.
//!
//! `rtmp-runtime` admits a publisher the moment it asks. Until that moment bytes are therefore handed to it one at
//! a time (there are a few hundred), so that its answer to `publish` comes alone and can be held back until the
//! caller has decided. A second reader of the same bytes, the *watcher*, notices `play`, which the crate ignores.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};
use rtmp_runtime::amf0::{Amf0Value, Command};
use rtmp_runtime::chunk::{ChunkAssembler, ChunkWriter, Message};
use rtmp_runtime::handshake::HANDSHAKE_PACKET_LEN;
use rtmp_runtime::message::{ProtocolControl, msg_type};
use rtmp_runtime::server::{DEFAULT_CHUNK_SIZE, ServerConfig, ServerEvent, ServerSession};

use super::flv::Tags;
use super::timeline::Origin;
use crate::sample::Ingest;

/// Most bytes a client may send before it asks to publish, handshake included; encoders need about 5,000.
pub const BYTES_BEFORE_PUBLISH_MAX: usize = 64 << 10;
/// Most bytes kept while the caller decides about a publisher; encoders wait for the answer.
pub const BYTES_UNDECIDED_MAX: usize = 1 << 20;
/// Most bytes of unfinished messages of one connection. No message may be longer (the crate refuses over 8 MiB).
pub const MESSAGE_BYTES_MAX: usize = 10 << 20;
/// Longest application name or stream key passed on.
pub const NAME_LEN_MAX: usize = 512;

/// Why a connection cannot go on. The caller closes it, once [`Session::poll_output`] is drained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RtmpError {
    /// Not RTMP, or broken RTMP.
    #[error("not valid RTMP at byte {offset} of the connection or shortly after: {reason}")]
    Protocol {
        /// Bytes received before the input that failed.
        offset: u64,
        /// What was wrong.
        reason: String,
    },
    /// A client that talks and never publishes, or does not wait for the answer.
    #[error("the RTMP client sent over {limit} bytes {when}")]
    TooMuch {
        /// The limit passed.
        limit: usize,
        /// In which situation.
        when: &'static str,
    },
    /// The connection failed or was closed before; the caller kept feeding it.
    #[error("the RTMP session is over; open a new one for a new connection")]
    Over,
}

/// What a session wants done, in order. Its `Debug` form does not show the stream key, which is a secret.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RtmpOutput {
    /// Bytes to send.
    Write(Bytes),
    /// Somebody wants to publish: answer with [`Session::accept`] or [`Session::reject`].
    PublishRequest {
        /// Application name, the first part of the URL's path (`live` in `rtmp://host/live/KEY`).
        app: String,
        /// Stream key (`KEY` above), as sent: with a query string if the encoder appends one.
        stream_key: String,
    },
    /// Media.
    Ingest(Ingest),
    /// Send what is left, then close the connection; the reason is for the log.
    Close(String),
}

impl fmt::Debug for RtmpOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(bytes) => write!(f, "Write({} bytes)", bytes.len()),
            Self::PublishRequest { app, .. } => write!(f, "PublishRequest {{ app: {app:?}, stream_key: … }}"),
            Self::Ingest(event) => f.debug_tuple("Ingest").field(event).finish(),
            Self::Close(reason) => f.debug_tuple("Close").field(reason).finish(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Handshake, `connect`, `createStream`.
    Greeting,
    /// Asked to publish; the caller has not answered.
    Undecided,
    Publishing,
    /// The encoder said that it stops, and has one more thing to say before it goes.
    Ending,
    Over,
}

/// One connection. See the [module](self).
///
/// Contract: [`handle_data`](Self::handle_data) with every piece received, then drain
/// [`poll_output`](Self::poll_output); after answering a [`RtmpOutput::PublishRequest`], drain again. Timeouts are the
/// caller's. After [`Ingest::End`] the stream is over although the connection may last until the encoder closes it;
/// when the connection drops without it, the encoder vanished, and the caller decides what that means.
pub struct Session {
    inner: ServerSession,
    watcher: Watcher,
    tags: Tags,
    state: State,
    received: u64,
    /// The crate's admission of a publisher, held back until the caller has decided.
    admission: Bytes,
    stream_id: u32,
    /// What arrived while undecided, and when its first byte did.
    undecided: BytesMut,
    undecided_since_us: u64,
    out: VecDeque<RtmpOutput>,
    media: VecDeque<Ingest>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("state", &self.state)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A fresh connection.
    pub fn new() -> Self {
        Self {
            inner: ServerSession::new(ServerConfig::default().with_max_in_progress_bytes(MESSAGE_BYTES_MAX)),
            watcher: Watcher::new(),
            tags: Tags::new(),
            state: State::Greeting,
            received: 0,
            admission: Bytes::new(),
            stream_id: 0,
            undecided: BytesMut::new(),
            undecided_since_us: 0,
            out: VecDeque::new(),
            media: VecDeque::new(),
        }
    }

    /// Takes bytes received at `now_unix_us`, which becomes the arrival time of the samples they complete.
    ///
    /// # Errors
    /// [`RtmpError`]: drain the output, then close the connection.
    pub fn handle_data(&mut self, now_unix_us: u64, bytes: &[u8]) -> Result<(), RtmpError> {
        let result = self.take(now_unix_us, bytes);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    fn take(&mut self, now_unix_us: u64, mut bytes: &[u8]) -> Result<(), RtmpError> {
        if self.state == State::Over {
            return Err(RtmpError::Over);
        }
        while let (State::Greeting, Some((first, rest))) = (self.state, bytes.split_first()) {
            if self.received >= BYTES_BEFORE_PUBLISH_MAX as u64 {
                return Err(RtmpError::TooMuch {
                    limit: BYTES_BEFORE_PUBLISH_MAX,
                    when: "without asking to publish",
                });
            }
            self.greet(*first)?;
            bytes = rest;
        }
        match self.state {
            _ if bytes.is_empty() => Ok(()),
            State::Undecided => {
                if self.undecided.len() + bytes.len() > BYTES_UNDECIDED_MAX {
                    let when = "before its publish request was answered";
                    return Err(RtmpError::TooMuch { limit: BYTES_UNDECIDED_MAX, when });
                }
                if self.undecided.is_empty() {
                    self.undecided_since_us = now_unix_us;
                }
                self.undecided.extend_from_slice(bytes);
                Ok(())
            }
            State::Publishing | State::Ending => self.publish(now_unix_us, bytes),
            // It ended with one of these bytes; what came behind that is of no interest.
            State::Greeting | State::Over => Ok(()),
        }
    }

    /// What to do next, or `None` until more arrives.
    pub fn poll_output(&mut self) -> Option<RtmpOutput> {
        self.out.pop_front()
    }

    /// Lets the publisher in. Does nothing unless a [`RtmpOutput::PublishRequest`] is waiting for its answer.
    ///
    /// # Errors
    /// As [`handle_data`](Self::handle_data), about bytes that had to wait.
    pub fn accept(&mut self) -> Result<(), RtmpError> {
        if self.state != State::Undecided {
            return Ok(());
        }
        self.state = State::Publishing;
        let admission = std::mem::take(&mut self.admission);
        self.write(admission);
        let waiting = self.undecided.split().freeze();
        self.handle_data(self.undecided_since_us, &waiting)
    }

    /// As [`accept`](Self::accept), for a publisher that comes back: its media continues what an earlier connection
    /// brought (see [`take_stream`](Self::take_stream)) behind an [`Ingest::Discontinuity`], or behind an
    /// [`Ingest::Resumed`] where another's that went on has come to, or one's that is over too: to `end_ticks`.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_after(
        &mut self,
        mut earlier: Tags,
        beside: Option<Origin>,
        end_ticks: i64,
    ) -> Result<(), RtmpError> {
        if self.state == State::Undecided {
            match beside {
                Some(origin) => earlier.restart_beside(origin),
                None => earlier.restart_at(end_ticks),
            }
            self.tags = earlier;
        }
        self.accept()
    }

    /// Accepts a publisher beside another, on that one's timeline.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_beside(&mut self, origin: Origin) -> Result<(), RtmpError> {
        if self.state == State::Undecided {
            self.tags = Tags::beside(origin);
        }
        self.accept()
    }

    /// Accepts a publisher behind others that are over and came to `end_ticks`.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_at(&mut self, end_ticks: i64) -> Result<(), RtmpError> {
        if self.state == State::Undecided {
            self.tags = Tags::at(end_ticks);
        }
        self.accept()
    }

    /// Accepts a publisher whose stamps are places on the timeline.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_as_stamped(&mut self) -> Result<(), RtmpError> {
        if self.state == State::Undecided {
            self.tags = Tags::as_stamped();
        }
        self.accept()
    }

    /// What [`accept_beside`](Self::accept_beside) needs of this stream; `None` before its first sample.
    pub fn origin(&self) -> Option<Origin> {
        self.tags.origin()
    }

    /// The state of the stream when the connection is over, for [`accept_after`](Self::accept_after).
    pub fn take_stream(&mut self) -> Tags {
        std::mem::take(&mut self.tags)
    }

    /// Refuses the publisher with `NetStream.Publish.BadName`, which encoders show, and closes. `reason` is sent to
    /// the encoder: say what is wrong and what to do. Does nothing unless a request is waiting.
    pub fn reject(&mut self, reason: &str) {
        if self.state == State::Undecided {
            self.refuse(self.stream_id, "NetStream.Publish.BadName", reason);
        }
    }

    /// Before `publish`: one byte at a time, for the reason that the module gives.
    fn greet(&mut self, byte: u8) -> Result<(), RtmpError> {
        // Said at the first byte: the crate would wait for the 1,537 bytes of a whole hello.
        if self.received == 0 && byte != 3 {
            let reason = match byte {
                0x16 => "this is TLS; use rtmp:// instead of rtmps://",
                b'A'..=b'Z' => "this looks like HTTP; the address is for an encoder (rtmp://)",
                6 => "this is RTMPE; use rtmp://",
                _ => "the first byte of an RTMP client is 3",
            };
            return Err(RtmpError::Protocol { offset: 0, reason: reason.to_owned() });
        }
        if let Some(stream_id) = self.watcher.play_asked(byte) {
            let reason = "This address takes streams in and does not play them. \
                          Open the channel link with `caudal watch` instead.";
            self.refuse(stream_id, "NetStream.Play.Failed", reason);
            return Ok(());
        }
        let (reply, events) = self.feed(&[byte])?;
        for event in events {
            if let ServerEvent::Publish { app, stream_key, stream_id } = event {
                if app.len() > NAME_LEN_MAX || stream_key.len() > NAME_LEN_MAX {
                    self.refuse(stream_id, "NetStream.Publish.BadName", "The stream key is too long.");
                    return Ok(());
                }
                self.stream_id = stream_id;
                self.admission = reply;
                self.state = State::Undecided;
                self.out.push_back(RtmpOutput::PublishRequest { app, stream_key });
                return Ok(());
            }
            if event == ServerEvent::Eof {
                self.write(reply);
                self.close("the client left without publishing");
                return Ok(());
            }
        }
        self.write(reply);
        Ok(())
    }

    fn publish(&mut self, now_unix_us: u64, bytes: &[u8]) -> Result<(), RtmpError> {
        let (reply, events) = self.feed(bytes)?;
        self.write(reply);
        for event in events {
            match event {
                ServerEvent::Media { flv } => {
                    self.media(now_unix_us, Bytes::from(flv));
                }
                // Encoders stop with `FCUnpublish` and `deleteStream`. Closing between the two makes ffmpeg fail.
                ServerEvent::Eof if self.state == State::Publishing => {
                    self.state = State::Ending;
                    self.out.push_back(RtmpOutput::Ingest(Ingest::End));
                }
                ServerEvent::Eof if self.state == State::Ending => {
                    self.close("the encoder ended the stream");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what the crate makes of a media message: one FLV tag, the first with a file header before it.
    fn media(&mut self, now_unix_us: u64, flv: Bytes) {
        let tag = if flv.starts_with(b"FLV") { flv.slice(13.min(flv.len())..) } else { flv };
        let (Some(head), true) = (tag.first_chunk::<11>(), tag.len() >= 15) else { return };
        let timestamp_ms = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
        let body = tag.slice(11..tag.len() - 4);
        self.tags.push(head[0], timestamp_ms, body, now_unix_us, &mut self.media);
        self.out.extend(self.media.drain(..).map(RtmpOutput::Ingest));
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(Bytes, Vec<ServerEvent>), RtmpError> {
        let offset = self.received;
        self.received += bytes.len() as u64;
        match self.inner.handle_data(bytes) {
            Ok((reply, events)) => Ok((reply.into(), events)),
            Err(error) => Err(RtmpError::Protocol { offset, reason: error.to_string() }),
        }
    }

    fn write(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.push_back(RtmpOutput::Write(bytes));
        }
    }

    /// Sends an `onStatus` error (Adobe RTMP 1.0 §7.2.2) and closes.
    fn refuse(&mut self, stream_id: u32, code: &str, reason: &str) {
        let text = |key: &str, value: &str| (key.to_owned(), Amf0Value::String(value.to_owned()));
        let status = Command {
            name: "onStatus".to_owned(),
            transaction_id: 0.0,
            arguments: vec![
                Amf0Value::Null,
                Amf0Value::Object(vec![
                    text("level", "error"),
                    text("code", code),
                    text("description", reason),
                ]),
            ],
        };
        let mut writer = ChunkWriter::new();
        // What the crate announced in its answer to `connect`, which every refusal follows.
        writer.set_chunk_size(DEFAULT_CHUNK_SIZE);
        let sent = status.to_body().and_then(|payload| {
            writer.write(&Message {
                chunk_stream_id: 3,
                timestamp: 0,
                message_type_id: msg_type::COMMAND_AMF0,
                message_stream_id: stream_id,
                payload,
            })
        });
        // A reason too long for AMF0 is not sent; the connection closes all the same.
        self.write(sent.unwrap_or_default().into());
        self.close(reason);
    }

    fn close(&mut self, reason: &str) {
        self.state = State::Over;
        self.undecided.clear();
        self.out.push_back(RtmpOutput::Close(reason.to_owned()));
    }
}

/// Reads along before `publish` to notice `play`.
#[derive(Debug)]
struct Watcher {
    handshake_left: usize,
    chunks: ChunkAssembler,
}

impl Watcher {
    fn new() -> Self {
        // C0, C1 and C2.
        Self {
            handshake_left: 1 + 2 * HANDSHAKE_PACKET_LEN,
            chunks: ChunkAssembler::new().with_max_in_progress_bytes(BYTES_BEFORE_PUBLISH_MAX),
        }
    }

    /// The message stream id of a `play` command that this byte completes. Errors are the real reader's to report.
    fn play_asked(&mut self, byte: u8) -> Option<u32> {
        if self.handshake_left > 0 {
            self.handshake_left -= 1;
            return None;
        }
        for message in self.chunks.push(&[byte]).ok()? {
            if let Ok(Some(ProtocolControl::SetChunkSize(size))) = ProtocolControl::from_message(&message) {
                self.chunks.set_chunk_size(size);
            }
            if message.message_type_id == msg_type::COMMAND_AMF0
                && Command::parse(&message.payload)
                    .is_ok_and(|command| matches!(&*command.name, "play" | "play2"))
            {
                return Some(message.message_stream_id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(messages: &[(u8, u32, u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0; 1 + 2 * HANDSHAKE_PACKET_LEN];
        bytes[0] = 3;
        let mut writer = ChunkWriter::new();
        for (kind, stream, timestamp, payload) in messages {
            bytes.extend(
                writer
                    .write(&Message {
                        chunk_stream_id: 3 + u32::from(*kind),
                        timestamp: *timestamp,
                        message_type_id: *kind,
                        message_stream_id: *stream,
                        payload: payload.clone(),
                    })
                    .unwrap(),
            );
        }
        bytes
    }

    fn command(name: &str, transaction_id: f64, arguments: Vec<Amf0Value>) -> (u8, u32, u32, Vec<u8>) {
        (20, 1, 0, Command { name: name.to_owned(), transaction_id, arguments }.to_body().unwrap())
    }

    fn hello(last: &str, key: &str) -> Vec<(u8, u32, u32, Vec<u8>)> {
        let app = Amf0Value::Object(vec![("app".to_owned(), Amf0Value::String("live".to_owned()))]);
        vec![
            command("connect", 1.0, vec![app]),
            command("releaseStream", 2.0, vec![Amf0Value::Null, Amf0Value::String(key.to_owned())]),
            command("createStream", 4.0, vec![Amf0Value::Null]),
            command(last, 5.0, vec![Amf0Value::Null, Amf0Value::String(key.to_owned())]),
        ]
    }

    fn drain(session: &mut Session) -> (Vec<u8>, Vec<RtmpOutput>) {
        let (mut sent, mut rest) = (Vec::new(), Vec::new());
        while let Some(output) = session.poll_output() {
            match output {
                RtmpOutput::Write(bytes) => sent.extend(bytes),
                other => rest.push(other),
            }
        }
        (sent, rest)
    }

    fn contains(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn a_publisher_waits_for_its_answer_and_media_follows() {
        let mut messages = hello("publish", "KEY");
        messages.push((8, 1, 0, vec![0xaf, 0, 0x11, 0x90]));
        messages.push((8, 1, 0, vec![0xaf, 1, 1, 2, 3]));
        messages.push(command(
            "FCUnpublish",
            5.0,
            vec![Amf0Value::Null, Amf0Value::String("KEY".to_owned())],
        ));
        messages.push(command("deleteStream", 6.0, vec![Amf0Value::Null, Amf0Value::Number(1.0)]));
        for step in [1, 7, 1000, usize::MAX] {
            let mut session = Session::new();
            for piece in client(&messages).chunks(step) {
                session.handle_data(77, piece).unwrap();
            }
            let (sent, rest) = drain(&mut session);
            assert_eq!(rest, [RtmpOutput::PublishRequest { app: "live".into(), stream_key: "KEY".into() }]);
            assert!(
                contains(&sent, "NetConnection.Connect.Success") && !contains(&sent, "NetStream.Publish")
            );
            session.accept().unwrap();
            let (sent, rest) = drain(&mut session);
            assert!(contains(&sent, "NetStream.Publish.Start"));
            assert!(matches!(rest[0], RtmpOutput::Ingest(Ingest::Track(..))), "{rest:?}");
            let RtmpOutput::Ingest(Ingest::Sample(sample)) = &rest[1] else { panic!("{rest:?}") };
            assert_eq!((&sample.data[..], sample.arrived_unix_us), (&[1u8, 2, 3][..], 77));
            assert_eq!(rest[2], RtmpOutput::Ingest(Ingest::End));
            assert!(matches!(rest[3], RtmpOutput::Close(_)));
            assert_eq!(session.handle_data(0, b"more"), Err(RtmpError::Over));
        }
    }

    #[test]
    fn a_publisher_that_comes_back_continues_its_timeline() {
        let mut messages = hello("publish", "KEY");
        messages.push((8, 1, 0, vec![0xaf, 0, 0x11, 0x90]));
        messages.push((8, 1, 500, vec![0xaf, 1, 1, 2, 3]));
        let mut first = Session::new();
        first.handle_data(1, &client(&messages)).unwrap();
        first.accept().unwrap();
        let (_, rest) = drain(&mut first);
        assert_eq!(rest.len(), 3, "{rest:?}");
        let mut second = Session::new();
        second.handle_data(2, &client(&messages)).unwrap();
        second.accept_after(first.take_stream(), None, 0).unwrap();
        let (_, rest) = drain(&mut second);
        assert_eq!(rest[1], RtmpOutput::Ingest(Ingest::Discontinuity), "{rest:?}");
        let RtmpOutput::Ingest(Ingest::Sample(sample)) = &rest[2] else { panic!("{rest:?}") };
        assert_eq!((sample.dts, rest.len()), (1024, 3));
    }

    #[test]
    fn a_refusal_says_why_and_closes() {
        let mut session = Session::new();
        session.handle_data(0, &client(&hello("publish", "WRONG"))).unwrap();
        drain(&mut session);
        session.reject("Wrong stream key: paste the one that caudal publish printed.");
        let (sent, rest) = drain(&mut session);
        assert!(contains(&sent, "NetStream.Publish.BadName") && contains(&sent, "Wrong stream key"));
        assert!(!contains(&sent, "Publish.Start"));
        assert!(matches!(&rest[..], [RtmpOutput::Close(reason)] if reason.contains("Wrong")), "{rest:?}");
        session.accept().unwrap();
        assert_eq!(session.poll_output(), None);
    }

    #[test]
    fn players_are_told_where_to_go() {
        let mut session = Session::new();
        session.handle_data(0, &client(&hello("play", "KEY"))).unwrap();
        let (sent, rest) = drain(&mut session);
        assert!(contains(&sent, "NetStream.Play.Failed") && contains(&sent, "caudal watch"));
        assert!(matches!(&rest[..], [RtmpOutput::Close(_)]));
    }

    #[test]
    fn talkers_and_impatient_publishers_hit_limits() {
        let mut session = Session::new();
        let mut messages = hello("releaseStream", "KEY");
        messages.extend(vec![command("nothing", 9.0, vec![]); 4000]);
        let error = session.handle_data(0, &client(&messages)).unwrap_err();
        assert!(matches!(error, RtmpError::TooMuch { limit: BYTES_BEFORE_PUBLISH_MAX, .. }), "{error}");

        let mut session = Session::new();
        session.handle_data(0, &client(&hello("publish", "KEY"))).unwrap();
        let error = (0..20).find_map(|_| session.handle_data(0, &vec![0; 100_000]).err()).unwrap();
        assert!(matches!(error, RtmpError::TooMuch { limit: BYTES_UNDECIDED_MAX, .. }), "{error}");
    }

    #[test]
    fn random_and_damaged_bytes_never_panic() {
        let mut state = 5u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut messages = hello("publish", "KEY");
        messages.push((9, 1, 0, [&[0x17u8, 0, 0, 0, 0][..], super::super::codec::tests::AVCC_720P].concat()));
        messages.extend((0..20).map(|ms| (9, 1, ms, vec![0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 1])));
        let good = client(&messages);
        for _ in 0..300 {
            let mut bytes = good.clone();
            for _ in 0..1 + next() % 4 {
                let at = (1 + 2 * HANDSHAKE_PACKET_LEN + next() as usize % (bytes.len() - 3073))
                    .min(bytes.len() - 1);
                bytes[at] = next() as u8;
            }
            bytes.truncate(bytes.len() - next() as usize % 200);
            let mut session = Session::new();
            for piece in bytes.chunks(1 + next() as usize % 900) {
                if session.handle_data(1, piece).is_err() {
                    break;
                }
                while let Some(output) = session.poll_output() {
                    if matches!(output, RtmpOutput::PublishRequest { .. }) && session.accept().is_err() {
                        break;
                    }
                }
            }
        }
        let noise: Vec<u8> = (0..20_000).map(|_| next() as u8).collect();
        assert!(Session::new().handle_data(0, &noise).is_err());
        let error = Session::new().handle_data(0, b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("HTTP"));
        let error = Session::new().handle_data(0, &[0x16, 3, 1]).unwrap_err();
        assert!(error.to_string().contains("rtmp:// instead of rtmps://"));
    }
}
