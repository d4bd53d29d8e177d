//! The usual streaming, for comparison: ffmpeg cuts live HLS from a film, nginx serves it, viewers fetch it, all over the same lines
//! as the swarm's.
//!
//! The playlist and its segments lie in memory. Every process here would also end alone, by `timeout`. Delays are those of whole
//! segments, from their last picture to their last byte; a segment is on time within [`PLAYOUT_SEGMENTS`] of them.

use super::super::figures::{Run, median, percentile};
use super::super::meter::Meter;
use super::super::netns::{self, Uplink, World};
use super::super::process;
use super::super::trial::{self, JOIN_INTERVAL, UPLINK_QUEUE};
use super::PLAYOUT_SEGMENTS;
use super::client::{Client, Seen};
use super::film::KEY_S;
use super::playlist::{Playlist, Segment};
use crate::sh;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PORT: u16 = 8080;
/// Segments in the playlist, and how many more are kept for who is behind.
const LISTED: u32 = 6;
const KEPT: u32 = 3;
/// The beginning of the name of a folder in memory; the number of the process follows.
const FOLDER: &str = "caudal-bench-scale-";
/// Until there are enough segments to begin with.
const PLAYLIST_TIMEOUT: Duration = Duration::from_secs(30);

/// What is run.
pub(super) struct Hls<'a> {
    pub(super) viewers: usize,
    /// What is broadcast, looped.
    pub(super) film: &'a Path,
    pub(super) origin_bps: u64,
    pub(super) viewer_bps: u64,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// Emptied, then filled with logs.
    pub(super) dir: &'a Path,
    pub(super) stop: &'a AtomicBool,
}

/// The measured window, by seconds since the run began and since 1970, with what was read at its ends.
struct Ends {
    at_s: f64,
    unix_s: f64,
    cpu_seconds: f64,
    machine: (f64, f64),
}

impl Hls<'_> {
    /// One run.
    pub(super) fn run(&self) -> Result<Run> {
        if self.dir.exists() {
            std::fs::remove_dir_all(self.dir)
                .with_context(|| format!("cannot empty {}", self.dir.display()))?;
        }
        std::fs::create_dir_all(self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let uplink = |bps| Some(Uplink { bps, queue: UPLINK_QUEUE });
        let viewers = std::iter::repeat_n(uplink(self.viewer_bps), self.viewers);
        // Dropped last, after what is inside has ended.
        let world = World::new(&std::iter::once(uplink(self.origin_bps)).chain(viewers).collect::<Vec<_>>())?;
        let began = Instant::now();
        let meter = Meter::start(world.peer(0), "eth0", began)?;
        let folder = Folder::new()?;
        let ffmpeg = self.packager(&world, &folder.0)?;
        let nginx = self.server(&world, &folder.0)?;
        self.wait_for_segments(&folder.0)?;
        let told = AtomicBool::new(false);
        let address = SocketAddr::from((World::address(0), PORT));
        let (before, after, seen) = std::thread::scope(|scope| {
            let mut audience = Vec::new();
            let measured = (|| {
                for number in 1..=self.viewers {
                    let (namespace, stop) = (world.peer(number), &told);
                    let client = Client { namespace, server: address, playlist: "/live.m3u8", began, stop };
                    audience.push(scope.spawn(move || client.watch()));
                    trial::pause(JOIN_INTERVAL, self.stop)?;
                }
                eprintln!("    {} viewers joined; settling for {}", self.viewers, sh::seconds(self.warm_up));
                trial::pause(self.warm_up, self.stop)?;
                eprintln!("    measuring for {}", sh::seconds(self.duration));
                let before = ends(began, &[&ffmpeg, &nginx])?;
                trial::pause(self.duration, self.stop)?;
                Ok::<_, anyhow::Error>((before, ends(began, &[&ffmpeg, &nginx])?))
            })();
            told.store(true, Relaxed);
            let seen: Vec<Result<Seen>> = audience
                .into_iter()
                .map(|viewer| viewer.join().unwrap_or_else(|_| Err(anyhow!("a viewer panicked"))))
                .collect();
            let (before, after) = measured?;
            Ok::<_, anyhow::Error>((before, after, seen.into_iter().collect::<Result<Vec<_>>>()?))
        })?;
        let oversize_packets = world.oversize_packets()?;
        let sent = meter.end()?;
        let mut run = figures(&before, &after, &seen);
        run.set("oversize_packets", Some(oversize_packets as f64));
        run.set(
            "source_bps/mean",
            Some(sent.between(before.at_s, after.at_s) * 8.0 / (after.at_s - before.at_s)),
        );
        run.set("source_bps/second_max", sent.most_in(1.0).map(|bytes| bytes * 8.0));
        Ok(run)
    }

    /// The film in real time, in segments.
    fn packager(&self, world: &World, folder: &Path) -> Result<Guard> {
        let names = |name: &str| folder.join(name).display().to_string();
        let mut args: Vec<String> = "-hide_banner -loglevel warning -nostdin -re -stream_loop -1 -i"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        args.push(self.film.display().to_string());
        for (name, value) in [
            ("-c", "copy".to_owned()),
            ("-f", "hls".to_owned()),
            ("-hls_time", KEY_S.to_string()),
            ("-hls_list_size", LISTED.to_string()),
            ("-hls_delete_threshold", KEPT.to_string()),
            ("-hls_flags", "delete_segments+program_date_time+temp_file+independent_segments".to_owned()),
            ("-hls_segment_filename", names("%d.ts")),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args.push(names("live.m3u8"));
        let ffmpeg = sh::which("ffmpeg").context("ffmpeg is not installed")?;
        Guard::start("ffmpeg", world, &ffmpeg, &args, self.lifetime(), self.dir)
    }

    fn server(&self, world: &World, folder: &Path) -> Result<Guard> {
        let config = self.dir.join("nginx.conf");
        std::fs::write(&config, config_of(folder, self.dir))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let path = |path: &Path| path.display().to_string();
        let log = path(&self.dir.join("nginx-error.log"));
        let args = ["-p", &path(self.dir), "-c", &path(&config), "-e", &log].map(str::to_owned);
        let nginx = sh::which("nginx").context("nginx is not installed")?;
        Guard::start("nginx", world, &nginx, &args, self.lifetime(), self.dir)
    }

    /// Until a viewer can begin three segments before the end.
    fn wait_for_segments(&self, folder: &Path) -> Result<()> {
        let deadline = Instant::now() + PLAYLIST_TIMEOUT;
        loop {
            let text = std::fs::read_to_string(folder.join("live.m3u8")).unwrap_or_default();
            if Playlist::read(&text).is_ok_and(|playlist| playlist.segments.len() >= PLAYOUT_SEGMENTS) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("ffmpeg wrote no playlist: its log is {}", self.dir.join("ffmpeg.log").display());
            }
            trial::pause(Duration::from_millis(100), self.stop)?;
        }
    }

    /// After this long every process ends by itself, should nobody be left to tell it.
    fn lifetime(&self) -> Duration {
        self.warm_up + self.duration + JOIN_INTERVAL * self.viewers as u32 * 2 + Duration::from_secs(120)
    }
}

fn config_of(folder: &Path, dir: &Path) -> String {
    let (folder, dir) = (folder.display(), dir.display());
    format!(
        "daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  default_type application/octet-stream;\n  client_body_temp_path {dir}/body;\n  \
         types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; }}\n  sendfile on;\n  tcp_nopush on;\n  \
         keepalive_timeout 120s;\n  keepalive_requests 100000;\n  \
         server {{ listen {}:{PORT}; root {folder}; }}\n}}\n",
        World::address(0)
    )
}

fn ends(began: Instant, servers: &[&Guard]) -> Result<Ends> {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let cpu = servers.iter().map(|server| process::cpu_of_tree(server.0.id()));
    Ok(Ends {
        at_s: began.elapsed().as_secs_f64(),
        unix_s,
        cpu_seconds: cpu.sum::<Result<f64>>()?,
        machine: process::machine_seconds()?,
    })
}

/// What the viewers saw within the window.
fn figures(before: &Ends, after: &Ends, seen: &[Seen]) -> Run {
    let mut run = Run::default();
    let seconds = after.at_s - before.at_s;
    let rates: Vec<f64> =
        seen.iter().map(|seen| seen.received.between(before.at_s, after.at_s) * 8.0 / seconds).collect();
    run.set("received_bps/mean", Some(rates.iter().sum::<f64>() / rates.len() as f64));
    run.set("received_bps/min", rates.into_iter().min_by(f64::total_cmp));
    // Whoever read a playlist knows what there was; all together know it best.
    let all: BTreeMap<u64, &Segment> =
        seen.iter().flat_map(|seen| &seen.listed).map(|segment| (segment.sequence, segment)).collect();
    let window = before.unix_s..after.unix_s;
    let deadline = |segment: &Segment| segment.ends_unix_s + PLAYOUT_SEGMENTS as f64 * f64::from(KEY_S);
    let due: Vec<&Segment> =
        all.values().copied().filter(|segment| window.contains(&deadline(segment))).collect();
    let (mut on_time, mut delays_ms) = (0, Vec::new());
    for seen in seen {
        let fetched: BTreeMap<u64, f64> = seen.fetched.iter().copied().collect();
        let is_on_time =
            |segment: &&&Segment| fetched.get(&segment.sequence).is_some_and(|at| *at <= deadline(segment));
        on_time += due.iter().filter(is_on_time).count();
        let delays = fetched.iter().filter(|(_, at_s)| window.contains(*at_s));
        delays_ms.extend(
            delays.filter_map(|(sequence, at_s)| Some((at_s - all.get(sequence)?.ends_unix_s) * 1e3)),
        );
    }
    delays_ms.sort_by(f64::total_cmp);
    run.set("on_time_ratio", Some(on_time as f64 / (due.len() * seen.len()) as f64));
    run.set("segment_delay_ms/p50", percentile(&delays_ms, 50.0));
    run.set("segment_delay_ms/p95", percentile(&delays_ms, 95.0));
    let mut startups: Vec<f64> = seen.iter().filter_map(|seen| seen.startup_ms).collect();
    startups.sort_by(f64::total_cmp);
    run.set("startup_ms/p50", percentile(&startups, 50.0));
    run.set("startup_ms/p95", percentile(&startups, 95.0));
    run.set("started_ratio", Some(startups.len() as f64 / seen.len() as f64));
    let cpu = seen.iter().map(|seen| seen.cpu_core_share).collect::<Vec<_>>();
    run.set("cpu_core_share_per_peer", median(&cpu));
    run.set("cpu_core_share_source", Some((after.cpu_seconds - before.cpu_seconds) / seconds));
    let (busy, available) = (after.machine.0 - before.machine.0, after.machine.1 - before.machine.1);
    run.set("machine_busy_ratio", Some(busy / available));
    run
}

/// A folder in memory, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        // What runs that were killed have left behind is memory.
        for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
            let owner =
                entry.file_name().to_str().and_then(|name| name.strip_prefix(FOLDER)?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let path = parent.join(format!("{FOLDER}{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process inside the origin's namespace, under `timeout`; ended when dropped.
struct Guard(Child);

impl Guard {
    fn start(
        name: &str,
        world: &World,
        program: &Path,
        args: &[String],
        lifetime: Duration,
        dir: &Path,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command: Command = netns::in_namespace(world.peer(0), "timeout")?;
        command.arg("--kill-after=5").arg(lifetime.as_secs().to_string()).arg(program).args(args);
        let log = dir.join(format!("{name}.log"));
        let log = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        // A process group of its own: Ctrl-C reaches only us.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("cannot start {name}"))?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Our own child, not yet waited for; `timeout` passes it on to what it runs.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_at(at_s: f64) -> Ends {
        Ends { at_s, unix_s: 1000.0 + at_s, cpu_seconds: at_s / 10.0, machine: (at_s, at_s * 2.0) }
    }

    /// Segments that end every two seconds from 1000 on; those fetched, and after how long.
    fn seen(delays_s: &[(u64, f64)]) -> Seen {
        let ends = |sequence: u64| 1000.0 + 2.0 * sequence as f64;
        let segment =
            |sequence| Segment { sequence, uri: String::new(), duration_s: 2.0, ends_unix_s: ends(sequence) };
        let mut seen = Seen { listed: (0..20).map(segment).collect(), ..Seen::default() };
        seen.fetched =
            delays_s.iter().map(|(sequence, delay_s)| (*sequence, ends(*sequence) + delay_s)).collect();
        seen
    }

    #[test]
    fn a_segment_is_on_time_within_three_and_due_whether_it_came_or_not() {
        // Due within 10 to 20 s are those that ended within 4 to 14 s: numbers 2 to 6.
        let prompt = seen(&[(2, 0.5), (3, 0.5), (4, 0.5), (5, 0.5), (6, 0.5), (7, 0.5)]);
        let slow = seen(&[(2, 5.9), (4, 6.1)]);
        let run = figures(&ends_at(10.0), &ends_at(20.0), &[prompt, slow]);
        assert_eq!(run.get("on_time_ratio"), Some(0.6));
        // Of what came within the window: numbers 5 to 7 of the first, none of the second's but number 4 at 14.1 s.
        assert_eq!(run.get("segment_delay_ms/p95").map(f64::round), Some(6100.0));
        assert_eq!(run.get("cpu_core_share_source").map(|share| (share * 100.0).round()), Some(10.0));
        assert_eq!(run.get("started_ratio"), Some(0.0));
    }

    #[test]
    fn the_server_writes_only_where_it_is_told() {
        let config = config_of(Path::new("/dev/shm/x"), Path::new("/run/y"));
        assert!(config.contains("listen 10.77.1.1:8080; root /dev/shm/x;"), "{config}");
        assert!(config.contains("pid /run/y/nginx.pid;") && config.contains("daemon off;"), "{config}");
    }
}
