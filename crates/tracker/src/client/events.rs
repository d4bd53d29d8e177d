//! Server-sent events (WHATWG HTML, section 9.2), as far as trackers send them, and what they mean.

use std::time::Duration;

use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::id::ChannelId;
use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::client::{ChannelView, ClientError, transport};
use crate::message::{
    ChannelEntry, ChannelPage, ChannelState, Gone, LiveBroadcast, Quality, Takedown, Viewers,
};
use crate::url::TrackerUrl;

/// Longest event, bytes.
pub const EVENT_LEN_MAX: usize = transport::ANSWER_LEN_MAX;
/// A tracker sends at least a comment every 10 s; after so long without a byte the connection is dead.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What happens to one channel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ChannelEvent {
    /// How it is: first of all, after events were missed, and when it comes up or changes.
    State(Box<ChannelView>),
    /// A newer live note; both signatures were checked.
    Note(Box<(Certificate, LiveNote)>),
    /// The operator took it down: stop, and say why.
    TakenDown {
        /// The operator's words.
        reason: String,
    },
    /// The broadcast ended, or its source fell silent.
    Ended(ChannelState),
    /// Another number of viewers.
    Viewers(u32),
}

/// What happens in the directory.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DirectoryEvent {
    /// The listed channels (the first 100, by viewers); replaces what was known.
    Snapshot(Vec<ChannelView>),
    /// One came up or changed.
    Channel(Box<ChannelView>),
    /// One left the directory.
    Gone {
        /// Which.
        channel: ChannelId,
        /// How it is now.
        state: ChannelState,
    },
    /// Another number of viewers, or another quality.
    Viewers {
        /// Of which channel.
        channel: ChannelId,
        /// How many.
        viewers: u32,
        /// Means over those who reported.
        quality: Option<Quality>,
    },
}

/// Makes an event of a name and data; `Ok(None)` for one that this version does not know.
type Read<T> = Box<dyn Fn(&str, &str) -> Result<Option<T>, String> + Send + Sync>;

/// A stream of events. Dropping it ends the subscription.
pub struct Events<T> {
    url: TrackerUrl,
    response: Response,
    parser: Parser,
    read: Read<T>,
}

impl<T> std::fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("url", &self.url).finish_non_exhaustive()
    }
}

impl<T> Events<T> {
    pub(crate) fn new(url: TrackerUrl, response: Response, read: Read<T>) -> Self {
        Self { url, response, parser: Parser::default(), read }
    }

    /// The next event; `None` when the tracker ended the stream. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the connection fails or is silent for [`SILENCE_MAX`], or the tracker sends what it should not.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            while let Some((name, data)) = self.parser.next() {
                let event = (self.read)(&name, &data);
                if let Some(event) = event.map_err(|why| ClientError::bad_answer(&self.url, &why))? {
                    return Ok(Some(event));
                }
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| ClientError::Timeout { url: self.url.clone() })?;
            match chunk.map_err(|error| transport::unreachable(&self.url, &error))? {
                Some(bytes) => {
                    self.parser.push(&bytes).map_err(|why| ClientError::bad_answer(&self.url, &why))?;
                }
                None => return Ok(None),
            }
        }
    }
}

/// Lines to events.
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no line end.
    scanned: usize,
    name: String,
    data: String,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        if self.buffer.len() + self.data.len() + bytes.len() > EVENT_LEN_MAX {
            return Err("an event longer than 2 MiB");
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Option<(String, String)> {
        let mut start = 0;
        let mut event = None;
        while event.is_none() {
            let from = start.max(self.scanned);
            let Some(end) = self.buffer[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at)
            else {
                break;
            };
            let line = String::from_utf8_lossy(&self.buffer[start..end]).trim_end_matches('\r').to_owned();
            start = end + 1;
            event = self.line(&line);
        }
        self.buffer.drain(..start);
        self.scanned = if event.is_some() { 0 } else { self.buffer.len() };
        event
    }

    fn line(&mut self, line: &str) -> Option<(String, String)> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then_some((name, data));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments, ids and retry times.
            _ => {}
        }
        None
    }
}

fn json<T: DeserializeOwned>(name: &str, data: &str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|error| format!("event {name}: {error}"))
}

/// Reads the events of one channel.
pub(crate) fn read_channel(
    channel: ChannelId,
    name: &str,
    data: &str,
) -> Result<Option<ChannelEvent>, String> {
    Ok(Some(match name {
        "snapshot" | "channel" => {
            let view = ChannelView::open(json::<ChannelEntry>(name, data)?)?;
            if view.channel != channel {
                return Err("an event about another channel".to_owned());
            }
            match view.takedown {
                Some(takedown) => ChannelEvent::TakenDown { reason: takedown.reason },
                None => ChannelEvent::State(Box::new(view)),
            }
        }
        "note" => {
            let opened = json::<LiveBroadcast>(name, data)?.open(&channel);
            ChannelEvent::Note(Box::new(opened.map_err(|error| format!("live note: {error}"))?))
        }
        "takedown" => ChannelEvent::TakenDown { reason: super::reason(&json::<Takedown>(name, data)?) },
        "ended" => ChannelEvent::Ended(json::<Gone>(name, data)?.state),
        "viewers" => ChannelEvent::Viewers(json::<Viewers>(name, data)?.viewers),
        _ => return Ok(None),
    }))
}

/// Reads the events of the directory.
pub(crate) fn read_directory(name: &str, data: &str) -> Result<Option<DirectoryEvent>, String> {
    Ok(Some(match name {
        "snapshot" => {
            DirectoryEvent::Snapshot(ChannelView::open_all(json::<ChannelPage>(name, data)?.channels))
        }
        "channel" => match ChannelView::open(json::<ChannelEntry>(name, data)?) {
            Ok(view) => DirectoryEvent::Channel(Box::new(view)),
            // One that cannot be verified is as good as not there.
            Err(_) => return Ok(None),
        },
        "gone" => {
            let Gone { channel, state } = json(name, data)?;
            DirectoryEvent::Gone { channel, state }
        }
        "viewers" => {
            let Viewers { channel, viewers, quality } = json(name, data)?;
            DirectoryEvent::Viewers { channel, viewers, quality }
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_arrive_whole_however_they_were_cut() {
        let text =
            b": hello\n\nevent: a\ndata: 1\r\ndata:2\n\nid: 7\nevent: none\n\nevent: b\ndata: \xc3\xa9\n\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in text.chunks(size) {
                parser.push(piece).unwrap();
                while let Some(event) = parser.next() {
                    events.push(event);
                }
            }
            let expected = [("a".to_owned(), "1\n2".to_owned()), ("b".to_owned(), "é".to_owned())];
            assert_eq!(events, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let piece = [b'x'; 4096];
        let refused = (0..1024).find(|_| parser.push(&piece).is_err() || parser.next().is_some());
        assert_eq!(refused, Some(EVENT_LEN_MAX / 4096));
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &[b'y'; 4096], b"\n"].concat();
        let refused = (0..1024).find(|_| parser.push(&line).is_err() || parser.next().is_some());
        assert!(refused.is_some(), "data of many lines is bounded too");
    }
}
