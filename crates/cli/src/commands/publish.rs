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
    CardSettings, InputConfig, InputKind, RtmpServer, RtmpSettings, Source, SourceConfig,
};
use caudal_tracker::descriptor::{Delivery, Descriptor, DescriptorError, NAME_CHARS_MAX};
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
    let http = HttpServer::bind_or(args.listen, PORT).await?;
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
            "--delivery server-only sends each viewer a copy: leave --source-copies out, or name a limit with --upload-limit"
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
    let mut source = Source::start(SourceConfig {
        last_epoch: last_epoch(&channel),
        channel_key: kept.key.clone(),
        name: args.name.clone(),
        description: args.description.clone(),
        language: args.language.clone(),
        listed: args.listed,
        trackers: trackers.clone(),
        edges: args.edge.clone(),
        input,
        network: NetworkConfig {
            bind: args.bind.clone(),
            upload_limit_bps: args.upload_limit,
            relay: args.relay.clone(),
        },
        maps: Maps::new(args.alto.clone().unwrap_or_default()).map_err(Failure::usage)?,
        delivery: args.delivery,
        copies: args.source_copies,
        traced_every: args.trace_every,
        rate_bps,
        started: context.started,
        command: context.typed,
        commit: COMMIT,
    })
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
        upload_limit_bps: args.upload_limit,
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
    if args.input == "test" {
        let settings = CardSettings {
            rate_bps: u32::try_from(args.card_rate).unwrap_or(u32::MAX),
            keyframe_interval: args.card_keyframe,
            size: args.card_size,
        };
        return Ok((InputConfig::Card(settings), None));
    }
    let Some(rest) = args.input.strip_prefix("rtmp://") else {
        if args.input.contains("://") {
            let input = &args.input;
            return Err(Failure::usage(anyhow::anyhow!(
                "--input {input}: rtmp://HOST:PORT/APP, a file, or test is expected"
            )));
        }
        return Ok((InputConfig::File(PathBuf::from(&args.input)), None));
    };
    let (host, app) = rest.split_once('/').unwrap_or((rest, "live"));
    let app = app.trim_matches('/');
    let listen = resolve(host).with_context(|| {
        format!(
            "--input {}: an address of this computer is expected, as in rtmp://127.0.0.1:1935/live",
            args.input
        )
    })?;
    let key = match &args.stream_key {
        Some(key) => key.clone(),
        None => random::<12>()?.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let settings = RtmpSettings { listen, app: if app.is_empty() { "live" } else { app }.to_owned(), key };
    let server = RtmpServer::bind(settings).await?;
    let told = (server.url(), server.key().to_owned());
    Ok((InputConfig::Rtmp(server), Some(told)))
}

fn resolve(host: &str) -> anyhow::Result<SocketAddr> {
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:1935")
    };
    with_port.to_socket_addrs()?.next().context("that host has no address")
}
