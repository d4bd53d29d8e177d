//! `caudal publish`

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use caudal_node::NodeError;
use caudal_node::desk::{Desk, DeskConfig};
use caudal_node::http::{HttpServer, Shown};
use caudal_node::maps::Maps;
use caudal_node::network::{NetworkConfig, random, random_key};
use caudal_node::report::SourceReport;
use caudal_node::sessions::Sessions;
use caudal_node::source::{
    CardSettings, InputConfig, InputKind, LadderConfig, RtmpServer, RtmpSettings, Source, SourceConfig,
    rung_name,
};
use caudal_tracker::descriptor::{Delivery, Descriptor, DescriptorError, NAME_CHARS_MAX, RENDITIONS_MAX};
use caudal_tracker::link::{EDGES_MAX, Link};
use caudal_tracker::url::AllowedUrl;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::args::PublishArgs;
use crate::run::{
    COMMIT, Context, Failure, PAGE, open_browser, print_json, say, typed_trackers, until_ended,
    until_stopped, warn_of_edge, warn_of_strangers,
};
use crate::state::{ChannelKey, go_on_air, last_epoch, store_epoch};

/// The rate that a stream is taken to have until it was measured, bit/s.
const RATE_UNKNOWN_BPS: u32 = 3_000_000;
/// Where the desk is unless `--listen` says so: a browser remembers by the port what was chosen there.
const PORT: u16 = 7779;

pub(crate) async fn run(args: PublishArgs, context: Context) -> Result<(), Failure> {
    let stop = until_stopped(args.duration)?;
    let trackers = typed_trackers(&args.tracker, args.lan)?;
    if !(1..=NAME_CHARS_MAX).contains(&args.name.trim().chars().count()) {
        return Err(Failure::usage(anyhow::anyhow!(
            "--name {:?}: a name of 1 to {NAME_CHARS_MAX} characters is expected",
            args.name
        )));
    }
    let (input, rtmp) = open_input(&args).await?;
    let http = HttpServer::bind_or(args.listen, PORT, "--listen").await?;
    let ladder = open_ladder(&args, rtmp.as_ref(), &http).await?;
    warn_of_strangers(http.addr());
    let kept = ChannelKey::open(args.key.as_deref(), &args.name)?;
    let channel = kept.key.channel();
    let words = Descriptor {
        description: args.description.clone(),
        language: args.language.clone(),
        ..Descriptor::new(channel, &args.name, 0)
    };
    if let Err(DescriptorError::Member { member, why }) = words.validate() {
        return Err(Failure::usage(anyhow::anyhow!("--{member} {why}")));
    }
    let mut on_air = go_on_air(&channel)?;
    let trackers_of_link = trackers.iter().map(|url: &AllowedUrl| url.url().clone()).collect();
    if args.delivery == Delivery::ServerOnly && args.source_copies.is_some() {
        return Err(Failure::usage(anyhow::anyhow!(
            "--delivery server-only sends each viewer a copy: leave --source-copies out; --upload-limit is what limits it"
        )));
    }
    if args.edge.len() > EDGES_MAX {
        return Err(Failure::usage(anyhow::anyhow!("--edge: at most {EDGES_MAX} edges are expected")));
    }
    args.edge.iter().for_each(|url| warn_of_edge("--edge", url));
    let name = Some(args.name.clone());
    let link = Link { channel, trackers: trackers_of_link, edges: args.edge.clone(), name };
    let kind = input.kind();
    let rate_bps = match kind {
        InputKind::Card => u32::try_from(args.card_rate).unwrap_or(u32::MAX),
        InputKind::Rtmp | InputKind::File => RATE_UNKNOWN_BPS,
    };
    // Boxed: a large future that is run once.
    let mut source = Box::pin(Source::start(SourceConfig {
        last_epoch: last_epoch(&channel),
        channel_key: kept.key.clone(),
        name: args.name.clone(),
        description: args.description.clone(),
        language: args.language.clone(),
        listed: args.listed,
        trackers: trackers.clone(),
        edges: args.edge.clone(),
        input,
        ladder,
        network: NetworkConfig {
            bind: args.bind.clone(),
            upload_limit_bps: args.upload_limit.bps(),
            relay: args.relay.clone(),
            ..NetworkConfig::default()
        },
        maps: Maps::new(args.alto.clone().unwrap_or_default()).map_err(Failure::usage)?,
        delivery: args.delivery,
        copies: args.source_copies,
        traced_every: args.trace_every,
        rate_bps,
        started: context.started,
        command: context.typed,
        commit: COMMIT,
    }))
    .await?;
    kept.keep();
    on_air.keep();
    let shared = source.shared();
    if let Err(error) = store_epoch(&channel, shared.epoch()) {
        tracing::warn!("cannot remember this broadcast's epoch: {error:#}");
    }
    let (url, page) = (http.url(), http.page_url());
    let (end, stop) = until_ended(stop, false);
    let sessions = Arc::new(Sessions::new(None));
    sessions.add_source(&link, Arc::clone(&shared))?;
    let desk = DeskConfig {
        name: args.name.clone(),
        description: args.description.clone(),
        language: args.language.clone(),
        link: link.clone(),
        rtmp: rtmp.clone(),
        input: kind,
        upload_limit_bps: args.upload_limit.bps(),
        price_per_gb: args.price_per_gb,
    };
    let desk = Desk::open(desk, &trackers, &random_key()?, Arc::clone(&shared), end)?;
    http.serve(Shown {
        role: "source",
        title: format!("Preview of {}", args.name),
        page: PAGE,
        sessions,
        directory: None,
        desk: Some(desk),
    });
    let link = link.to_string();
    let greeted = if args.json {
        print_json(&json!({
            "ready": true, "role": "source", "channel": channel.to_string(), "link": link, "http": url, "page": page,
            "rtmp_url": rtmp.as_ref().map(|rtmp| &rtmp.0), "stream_key": rtmp.as_ref().map(|rtmp| &rtmp.1),
        }))
    } else {
        greet(&args, &link, &page, rtmp.as_ref());
        Ok(())
    };
    if args.open {
        open_browser(&page);
    }
    if let Some(advice) = source.advice.take() {
        tokio::spawn(tell(advice));
    }
    // A source that nobody was told of takes its leave all the same.
    let stop = if greeted.is_ok() { stop } else { watch::channel(true).1 };
    let result = source.run(stop).await;
    greeted?;
    conclude(&args, &shared.last_report(), result)
}

fn conclude(args: &PublishArgs, report: &SourceReport, result: Result<(), NodeError>) -> Result<(), Failure> {
    if args.json {
        print_json(report)?;
    } else {
        let sent = report.bytes_out as f64 / 1e6;
        eprintln!("The broadcast ended: {sent:.1} MB sent, {:.2} times the stream.", report.source_copies);
    }
    result?;
    if report.ok {
        return Ok(());
    }
    if !args.json {
        for check in report.checks.iter().filter(|check| !check.ok) {
            crate::messages::tell(&format!("caudal: not {}: {}", check.name, check.detail));
        }
    }
    Err(Failure::NotOk)
}

fn greet(args: &PublishArgs, link: &str, page: &str, rtmp: Option<&(String, String)>) {
    say!("Channel link (give it to viewers):\n  {link}\n");
    if let Some((url, key)) = rtmp {
        say!("OBS → Settings → Stream → Custom\n  Server:     {url}\n  Stream key: {key}\n");
        say!(
            "ffmpeg\n  ffmpeg -re -i FILE -c:v libx264 -g 30 -tune zerolatency -c:a aac -f flv {url}/{key}\n"
        );
    }
    let listed = if args.listed {
        "listed in the tracker's directory"
    } else {
        "not listed: only who has the link finds it"
    };
    say!(
        "{} is {listed}.\nYour desk, with preview and figures: {page}\nCtrl-C ends the broadcast.",
        args.name
    );
}

async fn tell(mut advice: mpsc::UnboundedReceiver<String>) {
    while let Some(text) = advice.recv().await {
        crate::messages::tell(&format!("• {text}"));
    }
}

/// The input, and for RTMP its URL and stream key.
async fn open_input(args: &PublishArgs) -> Result<(InputConfig, Option<(String, String)>), Failure> {
    let refuse = |input: &str, why: &str| Err(Failure::usage(anyhow::anyhow!("--input {input}: {why}")));
    let is_file = |input: &&String| *input != "test" && !input.contains("://");
    let input = match &args.input[..] {
        [input] => input,
        several => {
            if let Some(other) = several.iter().find(|input| !is_file(input)) {
                return refuse(
                    other,
                    "several inputs are files, each of which is a rendition; an encoder publishes further ones with the stream key and _NAME behind it",
                );
            }
            if several.len() > RENDITIONS_MAX {
                return refuse(
                    &several[RENDITIONS_MAX],
                    &format!("a channel has at most {RENDITIONS_MAX} renditions"),
                );
            }
            return Ok((InputConfig::Files(several.iter().map(PathBuf::from).collect()), None));
        }
    };
    if input == "test" {
        let settings = CardSettings {
            rate_bps: u32::try_from(args.card_rate).unwrap_or(u32::MAX),
            keyframe_interval: args.card_keyframe,
            size: args.card_size,
        };
        return Ok((InputConfig::Card(settings), None));
    }
    let Some(rest) = input.strip_prefix("rtmp://") else {
        if input.contains("://") {
            return refuse(input, "rtmp://HOST:PORT/APP, a file, or test is expected");
        }
        return Ok((InputConfig::Files(vec![PathBuf::from(input)]), None));
    };
    let (host, app) = rest.split_once('/').unwrap_or((rest, "live"));
    let app = app.trim_matches('/');
    let listen = resolve(host).with_context(|| {
        format!("--input {input}: an address of this computer is expected, as in rtmp://127.0.0.1:1935/live")
    })?;
    let key = match &args.stream_key {
        Some(key) => key.clone(),
        None => random_stream_key()?,
    };
    let app = if app.is_empty() { "live" } else { app }.to_owned();
    let settings = RtmpSettings { listen, app, key, rungs: rungs(args), only_rungs: false };
    let server = RtmpServer::bind(settings).await?;
    let told = (server.url(), server.key().to_owned());
    Ok((InputConfig::Rtmp(server), Some(told)))
}

fn random_stream_key() -> Result<String, Failure> {
    Ok(random::<12>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Names of the ladder's renditions.
fn rungs(args: &PublishArgs) -> Vec<String> {
    args.ladder.iter().map(|height| rung_name(*height)).collect()
}

/// The ladder: it publishes where the encoder does, or at a server of its own on this computer.
async fn open_ladder(
    args: &PublishArgs,
    rtmp: Option<&(String, String)>,
    http: &HttpServer,
) -> Result<Option<LadderConfig>, Failure> {
    if args.ladder.is_empty() {
        return Ok(None);
    }
    let refuse = |why: String| Err(Failure::usage(anyhow::anyhow!("--ladder: {why}")));
    if args.input.len() > 1 {
        return refuse(
            "it is made of one input, and there are several: leave one of the two away".to_owned(),
        );
    }
    let mut heights = args.ladder.clone();
    heights.sort_unstable();
    heights.dedup();
    if heights.len() < args.ladder.len() {
        return refuse("a height stands there twice".to_owned());
    }
    if args.ladder.len() + args.input.len() > RENDITIONS_MAX {
        return refuse(format!("a channel has at most {RENDITIONS_MAX} renditions"));
    }
    let Some(ffmpeg) = find_ffmpeg() else {
        return refuse(
            "it needs ffmpeg, and there is none on this system: install it (apt install ffmpeg, brew install ffmpeg), or \
             have your encoder publish the renditions (docs/broadcasting.md, Several renditions)"
                .to_owned(),
        );
    };
    let (server, publish) = match rtmp {
        Some((url, key)) => (None, format!("{url}/{key}")),
        None => {
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let key = random_stream_key()?;
            let settings =
                RtmpSettings { listen, app: "ladder".to_owned(), key, rungs: rungs(args), only_rungs: true };
            let server = RtmpServer::bind(settings).await?;
            let publish = format!("{}/{}", server.url(), server.key());
            (Some(server), publish)
        }
    };
    let preview = format!("{}/live.mp4", http.players_url());
    Ok(Some(LadderConfig { heights: args.ladder.clone(), ffmpeg, preview, publish, server }))
}

fn find_ffmpeg() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("ffmpeg")).find(|file| file.is_file())
}

fn resolve(host: &str) -> anyhow::Result<SocketAddr> {
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:1935")
    };
    with_port.to_socket_addrs()?.next().context("that host has no address")
}
