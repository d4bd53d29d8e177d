//! Parts into a file or a pipe, as fragmented MP4.
//!
//! Whole parts only: whatever happens (a full disk, Ctrl-C), what is there can be played to its last part. A file to
//! which nothing came does not stay behind.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use caudal_media::assemble::StreamWriter;
use tokio::io::{AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;

use crate::NodeError;
use crate::live::{Read, Reader};

/// Standard output, as a file.
const STDOUT_PATH: &str = "/proc/self/fd/1";

/// Where to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A file, replaced when it exists.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Parts written.
    pub parts: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Parts that were lost because writing was too slow.
    pub skipped: u64,
    /// Whoever read standard output went before the end.
    pub reader_left: bool,
}

/// An open recording.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    /// There was no such file before.
    new: NewFile,
    sink: Sink,
    writer: StreamWriter,
    recorded: Recorded,
}

#[derive(Debug)]
enum Sink {
    File(tokio::fs::File),
    /// And what tells when nobody reads any more, if it is such a pipe.
    Pipe(tokio::io::Stdout, Option<pipe::Sender>),
}

/// A file that was made for a recording, until there is something in it: it goes again however the recording ends.
#[derive(Debug)]
struct NewFile(Option<PathBuf>);

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Nobody can be helped with the empty file of a recording that failed.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Recording {
    /// Opens the output before anything else happens, so that a wrong path is said at once.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn open(output: &Output) -> Result<Self, NodeError> {
        let mut new = NewFile(None);
        let (path, sink) = match output {
            Output::File(path) => {
                // What the file held stays until there is something to write.
                let is_new = !path.exists();
                let mut open = tokio::fs::OpenOptions::new();
                let file = open.write(true).create(true).truncate(false).open(path).await;
                let file = file.map_err(|source| NodeError::Output { path: path.clone(), source })?;
                new.0 = is_new.then(|| path.clone());
                (path.clone(), Sink::File(file))
            }
            Output::Stdout => {
                // Opened once more, because watching needs a pipe that does not block, and others may write to this one.
                // What is no pipe cannot be watched; writing to it tells.
                let reader = pipe::OpenOptions::new().open_sender(STDOUT_PATH).ok();
                (PathBuf::from("standard output"), Sink::Pipe(tokio::io::stdout(), reader))
            }
        };
        Ok(Self { path, new, sink, writer: StreamWriter::recording(), recorded: Recorded::default() })
    }

    /// Where it goes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes parts until the stream ends or `stop` resolves, whole parts only.
    ///
    /// # Errors
    /// When writing fails; what was written before is whole.
    pub async fn run(
        mut self,
        mut reader: Reader,
        mut stop: tokio::sync::watch::Receiver<bool>,
    ) -> Result<Recorded, (NodeError, Recorded)> {
        loop {
            let read = tokio::select! {
                biased;
                read = reader.next() => read,
                // The next part may be long in coming; who has had enough is not kept waiting for it.
                () = self.sink.reader_left() => {
                    self.recorded.reader_left = true;
                    return Ok(self.recorded);
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match read {
                Some(Read::Part(part)) => {
                    let pieces: Vec<_> = self.writer.write(&part).collect();
                    if self.recorded.parts == 0
                        && let Err(source) = self.empty().await
                    {
                        return Err((NodeError::Output { path: self.path, source }, self.recorded));
                    }
                    if let Err(source) = self.write(&pieces).await {
                        // Whoever read it has had enough; that is how a pipe to a player ends.
                        if source.kind() == std::io::ErrorKind::BrokenPipe {
                            self.recorded.reader_left = matches!(self.sink, Sink::Pipe(..));
                            return Ok(self.recorded);
                        }
                        let error = NodeError::Output { path: self.path, source };
                        return Err((error, self.recorded));
                    }
                    self.recorded.parts += 1;
                    self.new.0 = None;
                }
                Some(Read::Skipped(parts)) => self.recorded.skipped += parts,
                None => break,
            }
        }
        match self.flush().await {
            Ok(()) => Ok(self.recorded),
            Err(source) => Err((NodeError::Output { path: self.path, source }, self.recorded)),
        }
    }

    /// Removes what the file held before; a pipe or device has nothing to remove.
    async fn empty(&mut self) -> std::io::Result<()> {
        match &self.sink {
            Sink::File(file) if file.metadata().await?.is_file() => file.set_len(0).await,
            _ => Ok(()),
        }
    }

    async fn write(&mut self, pieces: &[bytes::Bytes]) -> std::io::Result<()> {
        let len: usize = pieces.iter().map(bytes::Bytes::len).sum();
        let mut written = Ok(());
        for piece in pieces {
            written = self.sink.as_write().write_all(piece).await;
            if written.is_err() {
                break;
            }
        }
        if written.is_ok() {
            written = self.sink.as_write().flush().await;
        }
        if let (Err(_), Sink::File(file)) = (&written, &mut self.sink) {
            // A part that is there in half would make the file unreadable at its end.
            let _ = file.set_len(self.recorded.bytes).await;
            let _ = file.seek(SeekFrom::Start(self.recorded.bytes)).await;
        }
        written?;
        self.recorded.bytes += len as u64;
        Ok(())
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        self.sink.as_write().flush().await
    }
}

impl Sink {
    fn as_write(&mut self) -> &mut (dyn AsyncWrite + Unpin + Send) {
        match self {
            Self::File(file) => file,
            Self::Pipe(pipe, _) => pipe,
        }
    }

    /// Until the other end of the pipe is closed.
    async fn reader_left(&self) {
        let Self::Pipe(_, Some(reader)) = self else { return std::future::pending().await };
        if reader.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use caudal_media::part::Part;
    use caudal_media::segment::{Segmenter, SegmenterConfig};
    use caudal_media::testcard::{TestCard, TestCardConfig};

    use super::*;
    use crate::live::Live;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("caudal-record-{}-{name}.mp4", std::process::id()))
    }

    /// The test card's first.
    pub(crate) fn part() -> Part {
        let mut card =
            TestCard::new(TestCardConfig { width: 640, height: 360, ..TestCardConfig::default() }).unwrap();
        let mut segmenter = Segmenter::new(SegmenterConfig::default());
        for frame in 0.. {
            for event in card.tick(frame, frame * 40_000) {
                segmenter.push(event).unwrap();
            }
            if let Some(part) = segmenter.poll() {
                return part;
            }
        }
        unreachable!("the card goes on for ever")
    }

    #[tokio::test]
    async fn a_recording_that_never_began_leaves_no_file_of_its_own() {
        let new = path("new");
        drop(Recording::open(&Output::File(new.clone())).await.unwrap());
        assert!(!new.exists());
        let old = path("old");
        std::fs::write(&old, "kept").unwrap();
        drop(Recording::open(&Output::File(old.clone())).await.unwrap());
        assert_eq!(std::fs::read(&old).unwrap(), b"kept");
        std::fs::remove_file(old).unwrap();
    }

    #[tokio::test]
    async fn a_recording_that_fails_at_its_first_part_leaves_no_empty_file() {
        let path = path("fails");
        let mut recording = Recording::open(&Output::File(path.clone())).await.unwrap();
        // As a disk that takes nothing.
        recording.sink = Sink::File(tokio::fs::File::open(&path).await.unwrap());
        let live = Live::new(Duration::from_secs(60));
        live.push(part());
        let reader = live.reader_from_start();
        live.end();
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let failed = recording.run(reader, stopped).await;
        assert!(matches!(failed, Err((NodeError::Output { .. }, _))), "{failed:?}");
        assert!(!path.exists());
    }
}
