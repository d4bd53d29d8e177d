//! Lines of an update stream to events (RFC 8895, section 5, as in the HTML standard).

use super::transport::ANSWER_LEN_MAX;

/// Longest event, bytes: a whole map.
pub const EVENT_LEN_MAX: usize = ANSWER_LEN_MAX;
/// Longest name of an event, bytes.
const NAME_LEN_MAX: usize = 256;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The media type, and perhaps the substream that it is about.
    pub(super) name: String,
    pub(super) data: Vec<u8>,
}

impl Event {
    /// The media type and the substream.
    pub(super) fn parts(&self) -> (&str, &str) {
        // A media type may hold commas, a substream's name may not.
        self.name.rsplit_once(',').unwrap_or((&self.name, ""))
    }
}

/// Bytes to events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no line end.
    scanned: usize,
    name: String,
    data: Vec<u8>,
}

impl Parser {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.buffer.len() + self.data.len() + bytes.len() > EVENT_LEN_MAX {
            return Err(format!("an event longer than {} MiB", EVENT_LEN_MAX >> 20));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        let buffer = std::mem::take(&mut self.buffer);
        let (mut start, mut from, mut event) = (0, self.scanned, None);
        while let Some(end) = buffer[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at) {
            let line = &buffer[start..end];
            event = self.line(line.strip_suffix(b"\r").unwrap_or(line));
            start = end + 1;
            from = start;
            if event.is_some() {
                break;
            }
        }
        self.buffer = buffer;
        self.buffer.drain(..start);
        self.scanned = if event.is_some() { 0 } else { self.buffer.len() };
        event
    }

    fn line(&mut self, line: &[u8]) -> Option<Event> {
        if line.is_empty() {
            let event = Event { name: std::mem::take(&mut self.name), data: std::mem::take(&mut self.data) };
            return (!event.data.is_empty()).then_some(event);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => {
                self.name = String::from_utf8_lossy(&value[..value.len().min(NAME_LEN_MAX)]).into_owned();
            }
            b"data" => {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
            }
            // Comments, ids and retry times.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_arrive_whole_however_they_were_cut() {
        let text = b": hello\n\nevent: application/a+json,s1\ndata: 1\r\ndata:2\n\nid: 7\nevent: none\n\nevent: b\ndata: \xc3\xa9\n\n";
        for size in 1..text.len() {
            let (mut parser, mut events) = (Parser::default(), Vec::new());
            for piece in text.chunks(size) {
                parser.push(piece).unwrap();
                while let Some(event) = parser.next() {
                    events.push(event);
                }
            }
            assert_eq!(events.len(), 2, "pieces of {size}");
            assert_eq!(events[0].parts(), ("application/a+json", "s1"));
            assert_eq!(events[0].data, b"1\n2");
            assert_eq!((events[1].parts(), events[1].data.as_slice()), (("b", ""), "é".as_bytes()));
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let piece = vec![b'x'; 1024 * 1024];
        let lines = [b"data: ".as_slice(), &piece, b"\n"].concat();
        for piece in [piece, lines] {
            let mut parser = Parser::default();
            let refused = (0..100).find(|_| parser.push(&piece).is_err() || parser.next().is_some());
            assert!(refused.is_some_and(|at| at <= 64), "{refused:?}");
        }
    }
}
