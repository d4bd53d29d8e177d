//! `caudal trace`

mod draw;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use caudal_node::link_trackers::{LinkSource, link_trackers};
use caudal_node::maps::{MapChoice, Maps};
use caudal_node::network::NetworkConfig;
use caudal_node::report::SCHEMA;
use caudal_node::trace::{Kind, TraceView};
use caudal_node::viewer::{Preference, Viewer, ViewerConfig};
use caudal_proto::hop::Tracing;
use caudal_proto::qos::playout::Bounds;
use caudal_tracker::link::Link;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::args::TraceArgs;
use crate::commands::watch::say_once_about_addresses;
use crate::run::{COMMIT, Context, Failure, print_json, say, tell, typed_trackers, until_stopped};

/// Traced chunks are looked for this often.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// Without any for so long, the person is told what that may mean.
const NOTHING_AFTER: Duration = Duration::from_secs(45);
/// Delays of hops that the summary is made of; later ones are not in it.
const DELAYS_MAX: usize = 100_000;

pub(crate) async fn run(args: TraceArgs, context: Context) -> Result<(), Failure> {
    let link: Link = args.link.parse().map_err(Failure::usage)?;
    let own = typed_trackers(&args.tracker, args.lan)?;
    let asked = link_trackers(&link, LinkSource::Typed, &own, args.lan).map_err(Failure::usage)?;
    for error in &asked.refused {
        tell!("caudal: {error}; going on with the link's other trackers");
    }
    let stop = until_stopped(args.duration)?;
    say_once_about_addresses(false);
    let (started, command) = (context.started, context.typed.clone());
    let viewer = Viewer::start(ViewerConfig {
        channel: link.channel,
        trackers: asked.allowed,
        network: NetworkConfig {
            bind: args.bind,
            upload_limit_bps: None,
            relay: args.relay,
            ..NetworkConfig::default()
        },
        maps: Maps::new(MapChoice::Off).map_err(Failure::usage)?,
        // It looks on: it takes the stream, as every viewer does, and sends it to nobody.
        upload: false,
        p2p: true,
        edges: Vec::new(),
        edge_share: 0,
        tracing: Tracing { reports: false, wants: true },
        bounds: Bounds::USUAL,
        rendition: Preference::default(),
        lan: args.lan,
        shelf: None,
        started,
        command: context.typed,
        commit: COMMIT,
    })
    .await?;
    let shared = viewer.shared();
    let greeted = if args.json {
        print_json(
            &json!({ "ready": true, "role": "tracer", "channel": link.channel.to_string(), "link": args.link }),
        )
    } else {
        tell!(
            "Following {}: about one chunk in 500 is traced, one each 15 s at least. Ctrl-C ends it.",
            link.title()
        );
        Ok(())
    };
    let (finish, finished) = watch::channel(greeted.is_err());
    let mut total = Total::new(started);
    let mut watching = tokio::spawn(viewer.run(finished));
    let (mut stop, mut shown, mut is_told) = (stop, Ok(()), false);
    let mut looks = tokio::time::interval(LOOK_PERIOD);
    let result = loop {
        let over = tokio::select! {
            _ = looks.tick() => None,
            _ = stop.wait_for(|stop| *stop) => {
                finish.send_replace(true);
                Some((&mut watching).await)
            }
            // The broadcast ended, or was taken down.
            result = &mut watching => Some(result),
        };
        for view in shared.traces.take_settled(over.is_some()) {
            total.add(&view);
            shown = shown.and_then(|()| show(&view, args.json));
        }
        if let Some(result) = over {
            break result;
        }
        if shown.is_err() {
            finish.send_replace(true);
        }
        if total.chunks == 0 && !is_told && started.elapsed() > NOTHING_AFTER {
            is_told = true;
            tell!("caudal: {}", total.why_nothing(shared.glance().state.as_str()));
        }
    };
    shown?;
    greeted?;
    let report = total.report(&command, &link);
    if args.json {
        print_json(&report)?;
    } else {
        tell!("{}", total.summary());
    }
    result??;
    if total.chunks > 0 {
        return Ok(());
    }
    if !args.json {
        tell!("caudal: {}", total.why_nothing(shared.glance().state.as_str()));
    }
    Err(Failure::NotOk)
}

fn show(view: &TraceView, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&json!({ "trace": view }));
    }
    say!("{}", draw::draw(view, std::io::stdout().is_terminal()));
    Ok(())
}

/// Of all chunks that were shown.
#[derive(Debug)]
struct Total {
    started: Instant,
    chunks: u64,
    reports: u64,
    gaps: u64,
    forged: u64,
    depth: u32,
    delays: Vec<f64>,
}

impl Total {
    fn new(started: Instant) -> Self {
        Self { started, chunks: 0, reports: 0, gaps: 0, forged: 0, depth: 0, delays: Vec::new() }
    }

    fn add(&mut self, view: &TraceView) {
        self.chunks += 1;
        self.reports += u64::from(view.summary.reported);
        self.gaps += u64::from(view.summary.gaps);
        self.forged += u64::from(view.forged);
        self.depth = self.depth.max(view.summary.depth);
        let single = view.rows.iter().filter(|row| row.kind == Kind::Peer && !row.across);
        let room = DELAYS_MAX.saturating_sub(self.delays.len());
        self.delays.extend(single.filter_map(|row| row.hop_ms).take(room));
        self.delays.sort_by(f64::total_cmp);
    }

    fn percentile(&self, percent: usize) -> Option<f64> {
        let last = self.delays.len().checked_sub(1)?;
        self.delays.get((self.delays.len() * percent / 100).min(last)).copied()
    }

    fn report(&self, command: &str, link: &Link) -> Value {
        json!({
            "schema": SCHEMA, "commit": COMMIT, "command": command, "role": "tracer", "channel": link.channel.to_string(),
            "duration_ms": self.started.elapsed().as_millis() as u64, "chunks": self.chunks, "hop_reports": self.reports,
            "gaps": self.gaps, "forged": self.forged, "depth": self.depth,
            "hop_delay_ms": { "p50": self.percentile(50), "p95": self.percentile(95) },
            "ok": self.chunks > 0,
        })
    }

    fn summary(&self) -> String {
        let ms =
            |percent| self.percentile(percent).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        format!(
            "{} traced chunks, {} hop reports, {}, {} hops deep at most. Delay of a hop: median {}, p95 {}.",
            self.chunks,
            self.reports,
            draw::gaps(self.gaps),
            self.depth,
            ms(50),
            ms(95)
        )
    }

    fn why_nothing(&self, state: &str) -> String {
        if state == "live" {
            "no hop was reported. Is the broadcaster's build old, or did it say --trace-every 0? A source whose places are all \
             taken does not speak to this node, and then others must report: caudal watch --trace-hops on"
                .to_owned()
        } else {
            format!("no hop was reported: the stream is not here ({state}). Is the channel on the air?")
        }
    }
}
