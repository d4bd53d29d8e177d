//! `caudal tracker`

use anyhow::Context as _;
use caudal_node::network::reachable;
use caudal_tracker::server::{Tracker, TrackerConfig};
use serde_json::json;
use tokio::net::TcpListener;

use crate::args::TrackerArgs;
use crate::run::{Failure, PAGE, print_json, say, until_stopped};

pub(crate) async fn run(args: TrackerArgs) -> Result<(), Failure> {
    let config = TrackerConfig {
        lan: args.lan.then_some(true),
        trusted_proxies: args.trusted_proxy,
        public_urls: args.public_url,
        allow_list: args.allow,
        deny_list: args.deny,
        alto: args.alto,
        public_alto: args.public_alto,
        page: PAGE,
        ..TrackerConfig::default()
    };
    let tracker = Tracker::new(config)?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        let addr = args.listen;
        format!("cannot listen on {addr}; is another program using the port? Choose another with --listen")
    })?;
    let url = format!("http://{}", reachable(listener.local_addr()?));
    if args.json {
        print_json(&json!({ "ready": true, "role": "tracker", "http": url, "page": format!("{url}/") }))?;
    } else {
        say!(
            "Tracker, and a page with its channels: {url}\nChannels: {url}/v1/channels\nMetrics: {url}/metrics\nCtrl-C ends it."
        );
    }
    let mut stop = until_stopped(None)?;
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    Ok(tracker.serve(listener, stopped).await?)
}
