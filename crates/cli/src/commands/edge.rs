//! `caudal edge`

use std::sync::Arc;

use caudal_media::hls::MULTIVARIANT_URI;
use caudal_node::edge::server::EdgeServer;
use caudal_node::edge::shelf::Shelf;
use caudal_node::http::{HttpServer, Shown};
use caudal_node::link_trackers::{LinkSource, link_trackers};
use caudal_node::maps::{MapChoice, Maps};
use caudal_node::network::{NetworkConfig, reachable};
use caudal_node::report::ViewerReport;
use caudal_node::sessions::Sessions;
use caudal_node::viewer::{Preference, Viewer, ViewerConfig};
use caudal_proto::hop::Tracing;
use caudal_proto::qos::playout::Bounds;
use caudal_tracker::link::{EDGES_MAX, Link};
use caudal_tracker::url::EdgeUrl;
use serde_json::json;

use crate::args::EdgeArgs;
use crate::run::{
    COMMIT, Context, Failure, PAGE, print_json, say, tell, typed_trackers, until_ended, until_stopped,
    warn_of_edge, warn_of_strangers,
};

pub(crate) async fn run(args: EdgeArgs, context: Context) -> Result<(), Failure> {
    let link: Link = args.link.parse().map_err(Failure::usage)?;
    let own = typed_trackers(&args.tracker, args.lan)?;
    let asked = link_trackers(&link, LinkSource::Typed, &own, args.lan).map_err(Failure::usage)?;
    for error in &asked.refused {
        tell!("caudal: {error}; going on with the link's other trackers");
    }
    let stop = until_stopped(args.duration)?;
    let server = EdgeServer::bind(args.listen).await?;
    let control = HttpServer::bind_or(args.control, 0, "--control").await?;
    warn_of_strangers(control.addr());
    let url = match &args.public_url {
        Some(url) => {
            warn_of_edge("--public-url", url);
            url.clone()
        }
        None => format!("http://{}", reachable(server.addr())).parse().map_err(Failure::usage)?,
    };
    let shelf = Shelf::new(link.channel);
    let viewer = Viewer::start(ViewerConfig {
        rendition: Preference::default(),
        channel: link.channel,
        trackers: asked.allowed,
        network: NetworkConfig {
            bind: args.bind,
            upload_limit_bps: None,
            relay: args.relay,
            ..NetworkConfig::default()
        },
        maps: Maps::new(MapChoice::Told).map_err(Failure::usage)?,
        // It serves by HTTP, and is a peer that only receives.
        upload: false,
        p2p: true,
        edges: Vec::new(),
        edge_share: 0,
        tracing: Tracing::default(),
        bounds: Bounds::USUAL,
        lan: args.lan,
        shelf: Some(Arc::clone(&shelf)),
        started: context.started,
        command: context.typed,
        commit: COMMIT,
    })
    .await?;
    let shared = viewer.shared();
    server.serve(shelf, Arc::clone(&shared.live))?;
    let sessions = Arc::new(Sessions::new(None));
    let link = with_edge(link, &url);
    sessions.add_viewer(&link, Arc::clone(&shared))?;
    let (http, page, title) = (control.url(), control.page_url(), link.title());
    control.serve(Shown { role: "edge", title, page: PAGE, sessions, directory: None, desk: None });
    let playlist = format!("{url}/v1/channels/{}/hls/{MULTIVARIANT_URI}", link.channel);
    let greeted = if args.json {
        print_json(&json!({
            "ready": true, "role": "edge", "channel": link.channel.to_string(), "link": link.to_string(),
            "edge": url.as_str(), "hls": playlist, "http": http, "page": page,
        }))
    } else {
        say!("Channel link with this edge (give it to viewers):\n  {link}\n");
        say!(
            "Any player: {playlist}\nStats and metrics, for you alone: {http}/api/v1/stats {http}/metrics\nCtrl-C ends it."
        );
        Ok(())
    };
    // An edge that nobody was told of takes its leave all the same.
    let (_end, ended) = until_ended(stop, greeted.is_err());
    let result = viewer.run(ended).await;
    greeted?;
    let report = shared.last_report();
    if args.json {
        print_json(&report)?;
    } else {
        tell!("{}", summary(&report));
    }
    result?;
    if report.ok { Ok(()) } else { Err(Failure::NotOk) }
}

/// The link, with this edge first.
fn with_edge(link: Link, url: &EdgeUrl) -> Link {
    let others = link.edges.iter().filter(|other| *other != url).cloned();
    let edges = std::iter::once(url.clone()).chain(others).take(EDGES_MAX).collect();
    Link { edges, ..link }
}

fn summary(report: &ViewerReport) -> String {
    let edge = report.edge.unwrap_or_default();
    format!(
        "Received {:.1} MB of the stream; answered {} requests with {} parts and {:.1} MB.",
        report.useful_bytes as f64 / 1e6,
        edge.requests,
        edge.parts_sent,
        edge.bytes_sent as f64 / 1e6,
    )
}
