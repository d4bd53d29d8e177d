//! A viewer of ordinary HLS: reads the playlist again and again, and fetches each new segment once and in order, over one
//! connection that is kept.
//!
//! Plays nothing: what it saw is judged afterwards ([`super::hls`]). Works as players do (RFC 8216, section 6.3): the playlist is
//! read again after a target duration, after half of one where nothing was new.

use super::super::meter::Series;
use super::super::netns;
use super::super::process;
use super::playlist::{Playlist, Segment};
use anyhow::{Context, Result, bail, ensure};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A read waits so long, then looks whether the viewer should end.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longest head and body of an answer that are read.
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 64 << 20;
/// Between two entries of what was received.
const RECEIVED_EVERY_S: f64 = 0.1;

/// What a viewer saw until it ended.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// From its start to the end of its first segment.
    pub(super) startup_ms: Option<f64>,
    /// Bytes of segments received so far, by seconds since the run began.
    pub(super) received: Series,
    /// Segments that came whole, and when, in seconds since 1970.
    pub(super) fetched: Vec<(u64, f64)>,
    /// All segments that its playlists named, in order.
    pub(super) listed: Vec<Segment>,
    /// Processor time ÷ the time it ran.
    pub(super) cpu_core_share: f64,
}

/// A viewer at work.
pub(super) struct Client<'a> {
    pub(super) namespace: &'a str,
    pub(super) server: SocketAddr,
    /// The playlist's path; segments lie beside it.
    pub(super) playlist: &'a str,
    /// When the run began.
    pub(super) began: Instant,
    pub(super) stop: &'a AtomicBool,
}

/// Where a viewer stands.
struct State {
    connection: Option<TcpStream>,
    started: Instant,
    last: Option<u64>,
    total: u64,
    seen: Seen,
}

impl Client<'_> {
    /// Watches until told to end.
    pub(super) fn watch(&self) -> Result<Seen> {
        let mut state =
            State { connection: None, started: Instant::now(), last: None, total: 0, seen: Seen::default() };
        while !self.stop.load(Relaxed) {
            if let Err(error) = self.round(&mut state) {
                if self.stop.load(Relaxed) {
                    break;
                }
                // As a player does: a new connection, from where it was.
                state.connection = None;
                eprintln!("    a viewer connects again: {error:#}");
                self.wait(Instant::now() + Duration::from_secs(1));
            }
        }
        let cpu_seconds = process::cpu_of_this_thread()?;
        state.seen.cpu_core_share = cpu_seconds / state.started.elapsed().as_secs_f64();
        Ok(state.seen)
    }

    /// Reads the playlist, fetches what is new, and waits until it should be read again.
    fn round(&self, state: &mut State) -> Result<()> {
        let asked = Instant::now();
        let text = self.get(state, self.playlist, false)?.context("there is no playlist")?;
        let playlist = Playlist::read(std::str::from_utf8(&text).context("the playlist is no text")?)?;
        let known = state.seen.listed.last().map(|segment| segment.sequence);
        let is_new = |segment: &&Segment| known.is_none_or(|known| segment.sequence > known);
        state.seen.listed.extend(playlist.segments.iter().filter(is_new).cloned());
        let mut pause_s = playlist.target_s / 2.0;
        while let Some(segment) = playlist.next_after(state.last) {
            pause_s = playlist.target_s;
            // A segment may be gone by now: the playlist says where to go on.
            let whole = self.get(state, &format!("/{}", segment.uri), true)?.is_some();
            state.last = Some(segment.sequence);
            if whole {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                state.seen.fetched.push((segment.sequence, now.as_secs_f64()));
                let startup = state.started.elapsed().as_secs_f64() * 1e3;
                state.seen.startup_ms.get_or_insert(startup);
            }
        }
        self.wait(asked + Duration::from_secs_f64(pause_s));
        Ok(())
    }

    fn wait(&self, until: Instant) {
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if self.stop.load(Relaxed) {
                break;
            }
            std::thread::sleep(left.min(PATIENCE));
        }
    }

    /// The body of an answer, `None` where there is nothing under that path. Bytes of segments are counted.
    fn get(&self, state: &mut State, path: &str, is_segment: bool) -> Result<Option<Vec<u8>>> {
        let mut connection = match state.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        write!(connection, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.server)?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let head_len = loop {
            if let Some(at) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(answer.len() < HEAD_MAX, "an answer's head is longer than {HEAD_MAX} bytes");
            let read = self.read(&mut connection, &mut buffer)?;
            answer.extend_from_slice(&buffer[..read]);
        };
        let (status, body_len) = head(&answer[..head_len])?;
        ensure!(body_len <= BODY_MAX, "an answer is longer than {BODY_MAX} bytes");
        let mut body = answer.split_off(head_len);
        let mut arrived = body.len();
        loop {
            let is_whole = body.len() >= body_len;
            if is_segment && status == 200 {
                self.count(state, arrived, is_whole);
            }
            if is_whole {
                break;
            }
            arrived = self.read(&mut connection, &mut buffer)?;
            body.extend_from_slice(&buffer[..arrived]);
        }
        state.connection = Some(connection);
        match status {
            200 => Ok(Some(body)),
            404 => Ok(None),
            _ => bail!("GET {path}: status {status}"),
        }
    }

    fn count(&self, state: &mut State, bytes: usize, is_whole: bool) {
        state.total += bytes as u64;
        let at_s = self.began.elapsed().as_secs_f64();
        if is_whole || state.seen.received.last_s().is_none_or(|last_s| at_s >= last_s + RECEIVED_EVERY_S) {
            state.seen.received.push(at_s, state.total);
        }
    }

    fn connect(&self) -> Result<TcpStream> {
        let connection = netns::inside(self.namespace, || {
            TcpStream::connect_timeout(&self.server, CONNECT_TIMEOUT).map_err(Into::into)
        })
        .with_context(|| format!("cannot connect to {}", self.server))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }

    fn read(&self, connection: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match connection.read(buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(read) => return Ok(read),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    ensure!(!self.stop.load(Relaxed), "told to end");
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Status and length of the body that an answer's head announces.
fn head(head: &[u8]) -> Result<(u16, usize)> {
    let head = std::str::from_utf8(head).context("an answer's head is no text")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    let status = status.context("an answer without status")?;
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|(_, value)| value.trim().parse().ok());
    Ok((status, length.context("an answer without Content-Length")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_how_much_follows() {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 12\r\n\r\n").unwrap(), (200, 12));
        assert_eq!(head(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap(), (404, 0));
        assert!(head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(head(b"\r\n\r\n").is_err());
    }
}
