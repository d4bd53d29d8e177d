//! `caudal watch`

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use caudal_media::hls::MULTIVARIANT_URI;
use caudal_node::directory::Directory;
use caudal_node::http::{HttpServer, Shown};
use caudal_node::link_trackers::{LinkSource, link_edges, link_trackers};
use caudal_node::live::Reader;
use caudal_node::maps::{MapChoice, Maps};
use caudal_node::metered::Metered;
use caudal_node::network::{NetworkConfig, random_key};
use caudal_node::record::{Output, Recorded, Recording};
use caudal_node::sessions::{SessionSettings, Sessions};
use caudal_node::viewer::{Shared, State, Viewer, ViewerConfig};
use caudal_proto::hop::Tracing;
use caudal_proto::qos::playout::Bounds;
use caudal_tracker::link::{EDGES_MAX, Link};
use caudal_tracker::url::AllowedUrl;
use serde_json::json;
use tokio::sync::watch;

use crate::args::WatchArgs;
use crate::consent::{Consent, ask};
use crate::messages;
use crate::player::play;
use crate::run::{
    COMMIT, Context, Failure, PAGE, open_browser, print_json, tell, typed_trackers, until_ended,
    until_stopped, warn_of_strangers,
};
use crate::state;
use crate::tui::view::{Addresses, GAUGE_CELLS, gauge_text};
use crate::tui::{app as view, terminal};

/// Where the page is unless `--listen` says so: a browser remembers by the port what was chosen there.
const PORT: u16 = 7778;
/// The status line is renewed this often.
const STATUS_PERIOD: Duration = Duration::from_millis(500);
/// Without anything new for so long, who watches is told: longer than a missing part is waited for.
const SILENT_AFTER: Duration = Duration::from_secs(8);
/// What was played last may take this long to be written.
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn run(mut args: WatchArgs, context: Context) -> Result<(), Failure> {
    if args.tui {
        check_view(&args)?;
        messages::keep();
    }
    let listed = typed_trackers(&args.tracker, args.lan)?;
    let Some(typed) = &args.link else {
        if listed.is_empty() {
            return Err(Failure::usage(anyhow::anyhow!(
                "say what to watch: a channel's link (caudal watch LINK), or whose channels to list (caudal watch --tracker URL)"
            )));
        }
        let stop = until_stopped(args.duration)?;
        return browse(&args, listed, context, stop).await;
    };
    let link: Link = typed.parse().map_err(Failure::usage)?;
    let trackers = trackers(&link, &args, &listed)?;
    let edges = edges(&link, &args)?;
    // Before Ctrl-C means more than to end the process, and before anything is sent.
    let mut agreed = false;
    if args.foreign_link && !args.no_upload && !args.no_p2p {
        match ask(&link.title())? {
            Consent::Upload => agreed = true,
            Consent::NoUpload => args.no_upload = true,
            Consent::No => return Ok(()),
        }
    }
    let stop = until_stopped(args.duration)?;
    let http = HttpServer::bind_or(args.listen, PORT, "--listen").await?;
    let output = args.output.as_deref().map(|path| match path {
        path if path == Path::new("-") => Output::Stdout,
        path => Output::File(path.to_owned()),
    });
    let recording = match &output {
        Some(output) => Some(open(output, stop.clone()).await?),
        None => None,
    };
    if !agreed && !args.no_p2p {
        say_once_about_addresses(!args.no_upload);
    }
    warn_of_strangers(http.addr());
    let mut known = listed;
    for url in &trackers {
        if known.iter().all(|other| other.url() != url.url()) {
            known.push(url.clone());
        }
    }
    let maps = maps(&args)?;
    let metered = metered(&args).await;
    let sessions = sessions(&args, known.clone(), &context, &maps, &metered)?;
    let started = context.started;
    let config = ViewerConfig { trackers, edges, ..config(&args, &link, context, maps, &metered) };
    let viewer = Viewer::start(config).await?;
    let shared = viewer.shared();
    sessions.add_viewer(&link, Arc::clone(&shared))?;
    let (url, players, page) = (http.url(), http.players_url(), http.page_url());
    let title = link.title();
    serve(http, title.clone(), &known, &sessions)?;
    // With --output - standard output belongs to the stream.
    let json = args.json && output != Some(Output::Stdout);
    let greeted = if json {
        print_json(&json!({
            "ready": true, "role": "viewer", "channel": link.channel.to_string(), "link": args.link, "http": url, "page": page,
        }))
    } else if args.tui {
        Ok(())
    } else {
        eprintln!(
            "Watch it on its page: {page}\n\
             Or play it: {players}/live.mp4 (least delay) or {players}/hls/{MULTIVARIANT_URI} (any player). Ctrl-C ends it."
        );
        Ok(())
    };
    // A viewer that nobody was told of takes its leave all the same.
    let (end, ended) = until_ended(stop, greeted.is_err());
    let view = if args.tui {
        let addresses = Addresses {
            page: page.clone(),
            live: format!("{players}/live.mp4"),
            playlist: format!("{players}/hls/{MULTIVARIANT_URI}"),
        };
        let (shared, ended, end) = (Arc::clone(&shared), ended.clone(), end.clone());
        let config = view::Config { title, addresses, shared, started, ended, end };
        Some(view::View::open(config).context("--tui: the terminal cannot be used")?)
    } else {
        None
    };
    let (finish, finished) = watch::channel(false);
    let recorder = recording.map(|recording| {
        let reader = shared.live.reader_from_start();
        let path = recording.path().to_owned();
        (path, tokio::spawn(record(recording, reader, finished.clone(), end)))
    });
    if args.open {
        open_browser(&page);
    }
    if let Some(player) = &args.player {
        tokio::spawn(play(player.clone(), players, Arc::clone(&shared), args.tui));
    }
    if !args.json && !args.tui && std::io::stderr().is_terminal() {
        tokio::spawn(status(Arc::clone(&shared)));
    }
    tokio::spawn(tell_of_silence(Arc::clone(&shared), json));
    let result = viewer.run(ended).await;
    let viewed = match view {
        Some(view) => view.close().await.context("the view of the terminal failed, which ends watching"),
        None => Ok(()),
    };
    sessions.leave().await;
    // The window has ended: the recorder drains it and stops by itself.
    let recorded = match recorder {
        Some((path, task)) => {
            let drained = tokio::time::timeout(DRAIN_MAX, task).await;
            finish.send_replace(true);
            Some((path, drained.ok().and_then(Result::ok)))
        }
        None => None,
    };
    greeted?;
    conclude(&args, &shared, json, recorded, result)?;
    Ok(viewed?)
}

/// What a view cannot be combined with.
fn check_view(args: &WatchArgs) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::usage(anyhow::anyhow!("--tui {why}")));
    if !terminal::is_there() {
        return refuse(
            "fills a terminal, and there is none that can show it: leave it away; --json tells programs how it goes",
        );
    }
    let is_stream = args.output.as_deref() == Some(Path::new("-"));
    if std::io::stdout().is_terminal() && (args.json || is_stream) {
        let other = if is_stream { "--output -" } else { "--json" };
        return refuse(&format!(
            "fills the terminal, and {other} would write across it: send standard output to a file or a pipe"
        ));
    }
    Ok(())
}

/// Whether this connection is paid by the byte. Who sends nothing need not ask.
async fn metered(args: &WatchArgs) -> Metered {
    if args.no_upload || args.no_p2p {
        return Metered::default();
    }
    let metered = Metered::follow(args.metered).await;
    if metered.now() {
        tell!(
            "This connection is metered: nothing is sent to other viewers. (--metered no sends all the same.)"
        );
    }
    metered
}

/// The maps that this process follows.
fn maps(args: &WatchArgs) -> Result<Arc<Maps>, Failure> {
    // A map's server is neither a tracker nor an edge.
    let told = if args.no_p2p { MapChoice::Off } else { MapChoice::Told };
    Maps::new(args.alto.clone().unwrap_or(told)).map_err(Failure::usage)
}

/// Without trackers and edges.
fn config(
    args: &WatchArgs,
    link: &Link,
    context: Context,
    maps: Arc<Maps>,
    metered: &Metered,
) -> ViewerConfig {
    ViewerConfig {
        channel: link.channel,
        trackers: Vec::new(),
        edges: Vec::new(),
        edge_share: args.edge_share,
        tracing: tracing(args),
        bounds: bounds(args),
        p2p: !args.no_p2p,
        lan: args.lan,
        shelf: None,
        rendition: args.rendition,
        network: NetworkConfig {
            bind: args.bind.clone(),
            upload_limit_bps: args.upload_limit.bps(),
            relay: args.relay.clone(),
            metered: metered.clone(),
        },
        maps,
        upload: !args.no_upload,
        started: context.started,
        command: context.typed,
        commit: COMMIT,
    }
}

fn sessions(
    args: &WatchArgs,
    trackers: Vec<AllowedUrl>,
    context: &Context,
    maps: &Arc<Maps>,
    metered: &Metered,
) -> Result<Arc<Sessions>, Failure> {
    Ok(Arc::new(Sessions::new(Some(SessionSettings {
        trackers,
        upload: !args.no_upload,
        p2p: !args.no_p2p,
        edges: typed_edges(args)?,
        edge_share: args.edge_share,
        tracing: tracing(args),
        bounds: bounds(args),
        rendition: args.rendition,
        network: NetworkConfig {
            bind: Vec::new(),
            upload_limit_bps: args.upload_limit.bps(),
            relay: args.relay.clone(),
            metered: metered.clone(),
        },
        maps: Arc::clone(maps),
        lan: args.lan,
        command: context.typed.clone(),
        commit: COMMIT,
    }))))
}

fn tracing(args: &WatchArgs) -> Tracing {
    Tracing { reports: args.trace_hops, wants: false }
}

/// Edges that somebody typed.
fn typed_edges(args: &WatchArgs) -> Result<Vec<AllowedUrl>, Failure> {
    if args.edge.len() > EDGES_MAX {
        return Err(Failure::usage(anyhow::anyhow!("--edge: at most {EDGES_MAX} edges are expected")));
    }
    typed_trackers(&args.edge, args.lan)
}

/// Edges that may be asked; says which not.
fn edges(link: &Link, args: &WatchArgs) -> Result<Vec<AllowedUrl>, Failure> {
    let source = if args.foreign_link { LinkSource::Desktop } else { LinkSource::Typed };
    let (allowed, refused) = link_edges(link, source, &typed_edges(args)?, args.lan);
    for error in refused {
        tell!("caudal: {error}; this edge of the link is not asked");
    }
    Ok(allowed)
}

fn serve(
    http: HttpServer,
    title: String,
    trackers: &[AllowedUrl],
    sessions: &Arc<Sessions>,
) -> Result<(), Failure> {
    let directory = Some(Directory::start(trackers, &random_key()?)?);
    let sessions = Arc::clone(sessions);
    http.serve(Shown { role: "viewer", title, page: PAGE, sessions, directory, desk: None });
    Ok(())
}

/// Without a link: the page, from which channels are opened.
async fn browse(
    args: &WatchArgs,
    trackers: Vec<AllowedUrl>,
    context: Context,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let http = HttpServer::bind_or(args.listen, PORT, "--listen").await?;
    if !args.no_p2p {
        say_once_about_addresses(!args.no_upload);
    }
    warn_of_strangers(http.addr());
    let sessions = sessions(args, trackers.clone(), &context, &maps(args)?, &metered(args).await)?;
    let (url, page) = (http.url(), http.page_url());
    serve(http, "Channels".to_owned(), &trackers, &sessions)?;
    if args.json {
        print_json(&json!({ "ready": true, "role": "viewer", "http": url, "page": page }))?;
    } else {
        eprintln!("The channels are on this page: {page}\nCtrl-C ends it.");
    }
    if args.open {
        open_browser(&page);
    }
    let _ = stop.wait_for(|stop| *stop).await;
    sessions.leave().await;
    Ok(())
}

/// Opens the output; a named pipe opens when somebody reads it.
async fn open(output: &Output, mut stop: watch::Receiver<bool>) -> Result<Recording, Failure> {
    tokio::select! {
        open = Recording::open(output) => Ok(open?),
        _ = stop.wait_for(|stop| *stop) => {
            Err(anyhow::anyhow!("--output: nobody opened the other end of the pipe").into())
        }
    }
}

type Written = Result<Recorded, (caudal_node::NodeError, Recorded)>;
/// `None`: it did not end.
type Drained = (std::path::PathBuf, Option<Written>);

/// Records, and says at once when that fails: whoever watches goes on watching, and would find out too late. When the
/// reader of `--output -` goes, so does whoever watched, and the viewer is told to `end`.
async fn record(
    recording: Recording,
    reader: Reader,
    finished: watch::Receiver<bool>,
    end: watch::Sender<bool>,
) -> Written {
    let written = recording.run(reader, finished).await;
    if written.as_ref().is_ok_and(|recorded| recorded.reader_left) {
        end.send_replace(true);
    }
    if let Err((error, recorded)) = &written {
        tell!(
            "caudal: {error} Recording has stopped; its {} whole parts can be played. Watching goes on.",
            recorded.parts
        );
    }
    written
}

fn conclude(
    args: &WatchArgs,
    shared: &Shared,
    json: bool,
    recorded: Option<Drained>,
    result: Result<(), caudal_node::NodeError>,
) -> Result<(), Failure> {
    let report = shared.last_report();
    let mut failed = None;
    let (mut is_whole, mut is_left) = (true, false);
    if let Some((path, done)) = recorded {
        let name = path.display();
        let (recorded, error) = match done {
            Some(Ok(recorded)) => (recorded, None),
            Some(Err((error, recorded))) => (recorded, Some(error.into())),
            None => {
                let seconds = DRAIN_MAX.as_secs();
                let error = anyhow::anyhow!(
                    "{name}: nobody took the end of the recording for {seconds} s; it is cut off"
                );
                (Recorded::default(), Some(error))
            }
        };
        if recorded.parts > 0 {
            tell!("{name}: {:.1} MB, {} parts", recorded.bytes as f64 / 1e6, recorded.parts);
        }
        if recorded.skipped > 0 {
            is_whole = false;
            tell!("{name}: {} parts are missing, because writing was too slow", recorded.skipped);
        }
        is_left = recorded.reader_left;
        failed = error;
    }
    if shared.glance().state == State::Ended {
        tell!("The broadcaster ended the broadcast.");
    }
    if json {
        print_json(&report)?;
    } else if !args.json {
        tell!("\n{}", summary(&report));
    } else {
        tell!("{}", serde_json::to_string(&report)?);
    }
    result?;
    if let Some(error) = failed {
        return Err(Failure::CouldNot(error));
    }
    // Who went before anything came did not want it.
    if report.ok && is_whole || is_left && report.parts == 0 {
        return Ok(());
    }
    if !args.json && report.parts == 0 {
        let hint = if args.no_p2p { "does the edge have it?" } else { "does your network let UDP through?" };
        match report.reason {
            Some(why) => tell!("Nothing arrived: {why}"),
            None => tell!("Nothing arrived. Is the channel on the air, and {hint}"),
        }
    }
    Err(Failure::NotOk)
}

fn times(count: u64) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

fn summary(report: &caudal_node::report::ViewerReport) -> String {
    let percent = |ratio: f64| (ratio * 1000.0).round() / 10.0;
    let startup = report.startup_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
    let (mut delay, mut continuity) = ("-".to_owned(), "-".to_owned());
    if report.chunks.due > 0 {
        delay = format!("{:.0} ms", report.chunk_delay_ms.p50);
        continuity = format!("{} %", percent(report.continuity.get(&1500).copied().unwrap_or(0.0)));
    }
    format!(
        "Received {:.1} MB ({} % from other viewers), sent {:.1} MB. Start {startup}, chunk delay {delay} (median), \
         continuity {continuity}, {} gaps, stood still {}.",
        report.useful_bytes as f64 / 1e6,
        percent(report.offload_ratio),
        report.bytes_out as f64 / 1e6,
        report.gaps,
        times(report.stalls),
    )
}

/// Whom to ask about the link; says whom not.
fn trackers(link: &Link, args: &WatchArgs, own: &[AllowedUrl]) -> Result<Vec<AllowedUrl>, Failure> {
    let source = if args.foreign_link { LinkSource::Desktop } else { LinkSource::Typed };
    let asked = link_trackers(link, source, own, args.lan).map_err(Failure::usage)?;
    for error in &asked.refused {
        tell!("caudal: {error}; going on with the link's other trackers");
    }
    Ok(asked.allowed)
}

/// The first time, plainly: peers see one another. Who was told of the addresses alone is told of the upload when there is
/// one for the first time.
pub(crate) fn say_once_about_addresses(upload: bool) {
    let Ok(Some(dir)) = state::state_dir() else { return };
    let [told_all, told_addresses] =
        ["told-about-addresses", "told-about-addresses-without-upload"].map(|name| dir.join(name));
    if told_all.exists() || !upload && told_addresses.exists() {
        return;
    }
    let mark = if upload {
        tell!(
            "Other viewers will see your network address, as you see theirs, and you upload to them what you watch.\n\
             --no-upload watches without sending. (This is said once.)"
        );
        told_all
    } else {
        tell!(
            "Other viewers will see your network address, as you see theirs. You upload nothing to them. (This is said \
             once.)"
        );
        told_addresses
    };
    let _ = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&mark, ""));
}

/// Says once when nothing comes any more or nobody can be reached, and once when it goes on.
async fn tell_of_silence(shared: Arc<Shared>, json: bool) {
    let mut ticks = tokio::time::interval(STATUS_PERIOD);
    let (mut told, mut has_played) = (false, false);
    loop {
        ticks.tick().await;
        let look = shared.glance();
        has_played |= look.state == State::Live && !told;
        let silent = look.silent.unwrap_or_default();
        let words = match look.state {
            State::Waiting if !told && silent >= SILENT_AFTER => format!(
                "Nothing new has come for {} s: the broadcaster has stopped, or cannot be reached. Waiting for it; Ctrl-C \
                 ends this.",
                silent.as_secs()
            ),
            State::Unreachable if !told => {
                let why = shared.state().1.unwrap_or_else(|| "nobody can be reached".to_owned());
                format!("Nothing has come yet ({why}). Trying on; Ctrl-C ends this.")
            }
            State::Live if told && !has_played => "It comes now.".to_owned(),
            State::Live if told => "The broadcast goes on.".to_owned(),
            _ => continue,
        };
        told = !told;
        tell!("{words}");
        if json {
            let state = look.state.as_str();
            let _ = print_json(&json!({ "state": state, "silent_ms": silent.as_millis() as u64 }));
        }
    }
}

async fn status(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(STATUS_PERIOD);
    loop {
        ticks.tick().await;
        let look = shared.glance();
        let gauge = gauge_text(look.buffer_ms, GAUGE_CELLS);
        let words = match look.state {
            State::Joining => "looking for viewers who have it",
            State::Live => "live",
            State::Waiting => "the broadcaster is silent, waiting",
            State::Ended => "ended",
            State::TakenDown => "taken down",
            State::Unreachable => "nobody can be reached",
        };
        let (from, to) = (look.senders, look.receivers);
        let (percent, delay) = ((look.offload_ratio * 100.0).round(), look.delay_ms);
        let inside = look.received_inside.map(|share| format!("  {:.0} % from your network", share * 100.0));
        let inside = inside.unwrap_or_default();
        let playing = look.playing.map(|playing| format!("  {playing}")).unwrap_or_default();
        eprint!(
            "\r\x1b[K{gauge}  {words}{playing}  you ← {from}  you → {to}  {percent} % from viewers{inside}  {delay:.0} ms"
        );
        let _ = std::io::stderr().flush();
    }
}

fn bounds(args: &WatchArgs) -> Bounds {
    match args.max_delay {
        Some(most) => Bounds::within(most),
        None if args.smooth => Bounds::SMOOTH,
        None => Bounds::USUAL,
    }
}
