//! How a command runs: its runtime, its signals, its output.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use caudal_tracker::page::Page;
use caudal_tracker::url::{AllowedUrl, EdgeUrl, TrackerUrl, UrlOrigin};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// The build's commit.
pub(crate) const COMMIT: &str = env!("CAUDAL_COMMIT");

/// The page, where the build had it.
pub(crate) const PAGE: Page = Page {
    files: include!(concat!(env!("OUT_DIR"), "/page.rs")),
    version: env!("CARGO_PKG_VERSION"),
    commit: COMMIT,
};

/// What follows it is a secret.
const STREAM_KEY_FLAG: &str = "--stream-key";

/// What every command knows.
#[derive(Debug)]
pub(crate) struct Context {
    /// When the process started.
    pub(crate) started: Instant,
    /// What was typed, without its secrets.
    pub(crate) typed: String,
}

/// A command as it may be shown to whoever asks for stats: the stream key lets its owner publish.
pub(crate) fn shown(arguments: impl Iterator<Item = String>) -> String {
    let mut shown = "caudal".to_owned();
    let mut secret = false;
    for argument in arguments {
        shown.push(' ');
        if std::mem::replace(&mut secret, argument == STREAM_KEY_FLAG) {
            shown.push_str("***");
        } else if argument.strip_prefix(STREAM_KEY_FLAG).is_some_and(|rest| rest.starts_with('=')) {
            shown.push_str(STREAM_KEY_FLAG);
            shown.push_str("=***");
        } else {
            shown.push_str(&argument);
        }
    }
    shown
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The report says so.
    NotOk,
    /// It was asked for in words that make no sense.
    Usage(anyhow::Error),
    /// It could not be done.
    CouldNot(anyhow::Error),
}

impl Failure {
    /// What was typed is wrong, as `error` says.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::CouldNot(error.into())
    }
}

/// Runs a node: one thread, because a thread more is a context switch more for every packet.
pub(crate) fn on_one_thread(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Runs a server of many.
pub(crate) fn on_threads(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Set for the processes of a demo, whose standard input is a pipe from it: its end is the demo's, however that ended.
pub(crate) const END_WITH_STDIN: &str = "CAUDAL_END_WITH_STDIN";

/// Whether this is one of the processes of a demo.
pub(crate) fn is_of_demo() -> bool {
    std::env::var_os(END_WITH_STDIN).is_some()
}

/// Becomes true on Ctrl-C, SIGTERM, or after `duration`. A second Ctrl-C ends the process at once.
pub(crate) fn until_stopped(duration: Option<Duration>) -> Result<watch::Receiver<bool>, Failure> {
    let (stop, stopped) = watch::channel(false);
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let parent = is_of_demo().then(|| {
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = tell.send(());
        });
        told
    });
    tokio::spawn(async move {
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let gone = async {
            match parent {
                Some(told) => _ = told.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
            () = over => {}
            () = gone => {}
        }
        stop.send_replace(true);
        interrupts.recv().await;
        crate::tui::terminal::give_back();
        std::process::exit(130);
    });
    Ok(stopped)
}

/// Becomes true with `stop`, or by the sender that is given: there are more reasons to end than those that a person has.
pub(crate) fn until_ended(
    mut stop: watch::Receiver<bool>,
    at_once: bool,
) -> (watch::Sender<bool>, watch::Receiver<bool>) {
    let (end, ended) = watch::channel(at_once);
    let tell = end.clone();
    tokio::spawn(async move {
        let _ = stop.wait_for(|stop| *stop).await;
        tell.send_replace(true);
    });
    (end, ended)
}

/// One line of JSON on standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(print(&line)?)
}

/// Text on standard output. A reader that has what it wanted and went (`| head -1`) is no error.
pub(crate) fn print(text: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// A line for people on standard output; unlike `println!` it does not panic when nobody reads.
macro_rules! say {
    ($($text:tt)*) => {
        // Nobody can be told that a full disk did not take a message to a person.
        let _ = $crate::run::print(format!("{}\n", format_args!($($text)*)).as_bytes());
    };
}
pub(crate) use say;

/// A message to people: on standard error, or in the view that fills the terminal.
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::messages::tell(&format!($($text)*))
    };
}
pub(crate) use tell;

/// Says so when everybody on the network reaches what this node serves.
pub(crate) fn warn_of_strangers(listen: SocketAddr) {
    if !listen.ip().is_loopback() {
        tell!(
            "--listen {listen}: others on the network can connect. Who has an address with the token in it can watch, and \
             change what this node does: give it only to whom you trust. 127.0.0.1 keeps everybody else out."
        );
    }
}

/// Says so when viewers elsewhere will not ask an edge at `url`.
pub(crate) fn warn_of_edge(flag: &str, url: &EdgeUrl) {
    if let Err(error) = url.check(UrlOrigin::Foreign, false) {
        tell!(
            "{flag}: only viewers with --lan, or whose link has its address in it, will ask this edge: {error}"
        );
    }
}

/// Opens an address in the desktop's browser; says so where that cannot be done.
pub(crate) fn open_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let null = std::process::Stdio::null;
    let spawned =
        std::process::Command::new(program).arg(url).stdin(null()).stdout(null()).stderr(null()).spawn();
    match spawned {
        // It hands the address on and ends; nobody has to wait for it.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => {
            tell!("caudal: --open: cannot start {program} ({error}); open the address above yourself");
        }
    }
}

/// The window that a desktop opened for a link closes with the program: what went wrong is read first.
pub(crate) fn until_read() {
    use std::io::IsTerminal as _;
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        eprintln!("Enter closes this window.");
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

/// Trackers that somebody typed.
pub(crate) fn typed_trackers(urls: &[String], lan: bool) -> Result<Vec<AllowedUrl>, Failure> {
    let check = |url: &String| -> Result<AllowedUrl, Failure> {
        url.parse::<TrackerUrl>().and_then(|url| url.check(UrlOrigin::Typed, lan)).map_err(Failure::usage)
    };
    urls.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_key_is_not_shown() {
        for typed in ["publish --stream-key s3cret --name A", "publish --stream-key=s3cret --name A"] {
            let shown = shown(typed.split(' ').map(str::to_owned));
            assert!(!shown.contains("s3cret") && shown.ends_with("--name A"), "{shown}");
        }
    }
}
