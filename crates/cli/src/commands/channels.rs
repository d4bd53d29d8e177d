//! `caudal channels`

use caudal_node::network::random_key;
use caudal_tracker::client::TrackerClient;
use caudal_tracker::link::Link;
use serde_json::json;

use crate::args::ChannelsArgs;
use crate::run::{Failure, print_json, say, typed_trackers};

/// Channels asked for.
const LIMIT: u32 = 100;

pub(crate) async fn run(args: ChannelsArgs) -> Result<(), Failure> {
    let url = typed_trackers(std::slice::from_ref(&args.tracker), false)?.remove(0);
    let tracker = url.url().clone();
    let client = TrackerClient::new(url, random_key()?)?;
    let list = client.channels(&args.search, 0, LIMIT).await?;
    let link = |channel, name: Option<String>| {
        Link { channel, trackers: vec![tracker.clone()], edges: Vec::new(), name }.to_string()
    };
    if args.json {
        let channels: Vec<_> = list
            .channels
            .iter()
            .map(|c| {
                let descriptor = c.descriptor.as_ref();
                let name = descriptor.map(|d| d.name.clone());
                json!({
                    "channel": c.channel.to_string(),
                    "name": name,
                    "language": descriptor.map(|d| d.language.clone()),
                    "viewers": c.viewers,
                    "link": link(c.channel, name.clone()),
                })
            })
            .collect();
        print_json(&json!({ "total": list.total, "channels": channels }))?;
    } else if list.channels.is_empty() {
        say!("Nothing is on the air at {tracker}.");
        say!("To change that: caudal publish --name NAME --tracker {tracker} --listed");
    } else {
        for c in &list.channels {
            let name = c.descriptor.as_ref().map_or("(no name)", |d| d.name.as_str());
            let viewers = if c.viewers == 1 { "viewer" } else { "viewers" };
            say!("{name}  ·  {} {viewers}\n  {}", c.viewers, link(c.channel, Some(name.to_owned())));
        }
        if list.total > list.channels.len() as u64 {
            say!("… and {} more: narrow them down with --search", list.total - list.channels.len() as u64);
        }
    }
    Ok(())
}
