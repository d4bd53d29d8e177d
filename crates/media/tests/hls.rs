//! A live playlist served over HTTP to a real player, which must find every packet and no fault.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use caudal_media::{
    hls::{
        MEDIA_URI, MULTIVARIANT_URI, Playlist, PlaylistAnswer, PlaylistConfig, Query, Resource,
        ResourceAnswer,
    },
    part::Part,
};
use support::{Source, TempFile, ingest, packets, path, run, segment};

/// A source that goes on by `step` parts whenever the playlist is loaded, then ends.
struct Live {
    playlist: Playlist,
    coming: std::vec::IntoIter<Part>,
    step: usize,
}

impl Live {
    fn new(parts: Vec<Part>, at_once: usize, step: usize) -> Self {
        let mut live =
            Self { playlist: Playlist::new(PlaylistConfig::default()), coming: parts.into_iter(), step };
        live.advance(at_once);
        live
    }

    fn advance(&mut self, parts: usize) {
        for _ in 0..parts {
            match self.coming.next() {
                Some(part) => self.playlist.push(part).unwrap(),
                None => self.playlist.end(),
            }
        }
    }

    fn answer(&mut self, target: &str) -> (u16, Vec<Bytes>) {
        let (name, query) = target.trim_start_matches('/').split_once('?').unwrap_or((&target[1..], ""));
        if name == MULTIVARIANT_URI {
            return (200, vec![self.playlist.multivariant_playlist().unwrap().into()]);
        }
        if name == MEDIA_URI {
            let answer = self.playlist.media_playlist(&Query::parse(query).unwrap());
            self.advance(self.step);
            return match answer {
                PlaylistAnswer::Ready(body) => (200, vec![body.into()]),
                other => panic!("the player asked for {target}: {other:?}"),
            };
        }
        match Resource::parse(name).map(|resource| self.playlist.resource(resource)) {
            Some(ResourceAnswer::Ready(pieces)) => (200, pieces),
            _ => (404, vec![]),
        }
    }
}

fn serve(stream: TcpStream, live: &mut Live) -> Option<u16> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut header = String::new();
    while reader.read_line(&mut header).ok()? > 2 {
        header.clear();
    }
    let (status, pieces) = live.answer(request.split(' ').nth(1)?);
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut stream = reader.into_inner();
    write!(stream, "HTTP/1.1 {status} \r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").ok()?;
    pieces.iter().try_for_each(|piece| stream.write_all(piece)).ok()?;
    Some(status)
}

/// Serves `live` while `play` runs with the playlist's address; the statuses that were answered.
fn with_server(mut live: Live, play: impl FnOnce(&str)) -> Vec<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let connections = listener.incoming().take_while(|_| !done.load(Ordering::Relaxed));
            connections.filter_map(|stream| serve(stream.unwrap(), &mut live)).collect::<Vec<u16>>()
        });
        // A failed assertion must end the server too, or the test would wait for it for ever.
        let url = format!("http://{address}/{MULTIVARIANT_URI}");
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&url)));
        done.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(address);
        let statuses = server.join().unwrap();
        played.map_or_else(|failure| std::panic::resume_unwind(failure), |()| statuses)
    })
}

#[test]
fn ffmpeg_plays_the_live_playlist_to_its_end_without_a_fault() {
    let file = Source { gop: "15", seconds: "4", size: "128x96", ..Source::default() }.encode();
    let parts = segment(ingest(&file));
    // Six segments of half a second are there when the player comes, the rest follows as it reloads.
    let live = Live::new(parts, 16, 6);
    let hashes = |packets: Vec<String>| -> Vec<String> {
        packets.iter().map(|line| line.rsplit_once(',').unwrap().1.to_owned()).collect()
    };
    let statuses = with_server(live, |url| {
        // Not at warning level: ffmpeg feeds itself the init data again at every reload, and warns of that.
        let copy = TempFile::new("copy.mkv");
        let args =
            ["-v", "error", "-live_start_index", "0", "-i", url, "-map", "0:v", "-map", "0:a", "-c", "copy"];
        let (_, stderr) = run("ffmpeg", &[&args[..], &[path(&copy)]].concat());
        assert_eq!(stderr, "");
        let input = TempFile::with("input.mp4", [file.clone()]);
        for track in ["v", "a"] {
            assert_eq!(hashes(packets(path(&copy), track)), hashes(packets(path(&input), track)), "{track}");
        }
    });
    assert!(statuses.len() > 10 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[test]
fn ffprobe_reads_codecs_and_size_from_an_ended_playlist() {
    let file = Source { gop: "30", seconds: "2", size: "128x96", ..Source::default() }.encode();
    let live = Live::new(segment(ingest(&file)), 1000, 0);
    with_server(live, |url| {
        let args = [
            "-v",
            "error",
            "-show_entries",
            "stream=codec_name,width,variant_bitrate",
            "-of",
            "csv=p=0",
            url,
        ];
        let (stdout, stderr) = run("ffprobe", &args);
        assert_eq!(stderr, "");
        assert!(stdout.contains("h264,128") && stdout.contains("aac"), "{stdout}");
    });
}
