//! Parts into a file or a pipe, as fragmented MP4.
//!
//! Whole parts only: whatever happens (a full disk, Ctrl-C), what is there can be played to its last part.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use caudal_media::assemble::StreamWriter;
use tokio::io::{AsyncSeekExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::NodeError;
use crate::live::{Read, Reader};

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
}

/// An open recording.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    /// There was no such file before.
    is_new: bool,
    sink: Sink,
    writer: StreamWriter,
    recorded: Recorded,
}

#[derive(Debug)]
enum Sink {
    File(tokio::fs::File),
    Pipe(tokio::io::Stdout),
}

impl Recording {
    /// Opens the output before anything else happens, so that a wrong path is said at once.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn open(output: &Output) -> Result<Self, NodeError> {
        let mut is_new = false;
        let (path, sink) = match output {
            Output::File(path) => {
                // What the file held stays until there is something to write.
                is_new = !path.exists();
                let mut open = tokio::fs::OpenOptions::new();
                let file = open.write(true).create(true).truncate(false).open(path).await;
                let file = file.map_err(|source| NodeError::Output { path: path.clone(), source })?;
                (path.clone(), Sink::File(file))
            }
            Output::Stdout => (PathBuf::from("standard output"), Sink::Pipe(tokio::io::stdout())),
        };
        Ok(Self { path, is_new, sink, writer: StreamWriter::recording(), recorded: Recorded::default() })
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
                            return Ok(self.recorded);
                        }
                        let error = NodeError::Output { path: self.path, source };
                        return Err((error, self.recorded));
                    }
                    self.recorded.parts += 1;
                }
                Some(Read::Skipped(parts)) => self.recorded.skipped += parts,
                None => break,
            }
        }
        if self.recorded.parts == 0 && self.is_new {
            // Nothing came: no empty file stays behind.
            let _ = tokio::fs::remove_file(&self.path).await;
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
            Self::Pipe(pipe) => pipe,
        }
    }
}
