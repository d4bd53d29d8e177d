//! `caudal alto serve`

use anyhow::Context as _;
use caudal_alto::server::{AltoServer, Limits};
use caudal_node::network::reachable;
use serde_json::json;
use tokio::net::TcpListener;

use super::args::ServeArgs;
use crate::run::{Failure, print_json, say, until_stopped};

pub(super) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let server = AltoServer::open(args.config.clone(), Limits::default())?;
    if args.check {
        if args.json {
            print_json(&json!({ "ok": true, "maps": server.summary() }))?;
        } else {
            say!("{} is right.", args.config.display());
            for line in server.summary() {
                say!("  {line}");
            }
        }
        return Ok(());
    }
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        let addr = args.listen;
        format!("cannot listen on {addr}; is another program using the port? Choose another with --listen")
    })?;
    let scheme = if server.is_https() { "https" } else { "http" };
    let url = format!("{scheme}://{}", reachable(listener.local_addr()?));
    if args.json {
        print_json(&json!({
            "ready": true, "role": "alto", "http": url, "directory": format!("{url}/directory"),
            "maps": server.summary(),
        }))?;
    } else {
        say!("ALTO server: {url}/directory\nMetrics: {url}/metrics");
        for line in server.summary() {
            say!("  {line}");
        }
        say!("Edits of {} are served at once. Ctrl-C ends it.", args.config.display());
    }
    let mut stop = until_stopped(None)?;
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    Ok(server.serve(listener, stopped).await?)
}
