//! What an ALTO server said, as people like to read it. Names are those that RFC 7285 allows, and prefixes and numbers are
//! written by this program: nothing here can harm a terminal, but for text of directories, which is made plain.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caudal_alto::client::{Directory, Resource};
use caudal_alto::map::{CostMap, NetworkMap, Pid};
use caudal_alto::types::{CostMode, CostType, media};

use crate::run::say;

/// Prefixes of a PID that are shown.
const PREFIXES_SHOWN: usize = 4;
/// Up to so many PIDs a cost map is shown as a table.
const TABLE_PIDS_MAX: usize = 12;

/// An address, its PID, and the cost to get there.
pub(super) type CostRow = (IpAddr, Option<String>, Option<f64>);

/// Metric, mode and source in words.
pub(super) fn cost_type(cost_type: &CostType) -> String {
    let source = cost_type.source.map_or_else(String::new, |source| format!(" ({})", source.as_str()));
    format!("{} {}{source}", cost_type.mode.as_str(), cost_type.metric)
}

pub(super) fn directory(directory: &Directory) {
    say!("ALTO server {}", plain(directory.url().as_str()));
    if let Ok(map) = directory.network_map(None) {
        say!("Default map: {}", map.id);
    }
    let kinds: [(&str, &str); 7] = [
        ("Network maps", media::NETWORK_MAP),
        ("Cost maps", media::COST_MAP),
        ("Endpoint properties", media::ENDPOINT_PROP),
        ("Endpoint costs", media::ENDPOINT_COST),
        ("Update streams", media::EVENT_STREAM),
        ("Directories", media::DIRECTORY),
        ("Others", ""),
    ];
    let width = directory.resources().map(|resource| resource.id.len()).max().unwrap_or(0);
    for (title, media_type) in kinds {
        let is_other = |resource: &Resource| !kinds.iter().any(|(_, known)| *known == resource.media_type);
        let of_kind = directory.resources().filter(|resource| {
            if media_type.is_empty() { is_other(resource) } else { resource.media_type == media_type }
        });
        for (at, resource) in of_kind.enumerate() {
            if at == 0 {
                say!("\n{title}");
            }
            let method = if resource.accepts.is_some() { "POST" } else { "GET " };
            let line = format!("  {:width$}  {method}  {}", resource.id, details(resource));
            say!("{}", line.trim_end());
        }
    }
}

fn details(resource: &Resource) -> String {
    let mut parts = Vec::new();
    match resource.cost_types.as_slice() {
        [] => {}
        [one] => parts.push(cost_type(one)),
        many => {
            let mut metrics: Vec<&str> = many.iter().map(|cost_type| cost_type.metric.as_str()).collect();
            metrics.dedup();
            parts.push(metrics.join(", "));
        }
    }
    if resource.has_cost_constraints {
        parts.push("constraints".to_owned());
    }
    if !resource.prop_types.is_empty() {
        parts.push(resource.prop_types.join(", "));
    }
    if resource.media_type == media::EVENT_STREAM {
        parts.push(format!("{} resources", resource.uses.len()));
    }
    plain(&parts.join("; "))
}

pub(super) fn network_map(network: &NetworkMap) {
    let (vtag, pids) = (network.vtag(), network.pids());
    say!(
        "{}: {} PIDs, {} prefixes, version {}\n",
        vtag.resource_id,
        pids.len(),
        network.prefix_count(),
        vtag.tag
    );
    let width = pids.iter().map(|pid| pid.name.as_str().len()).max().unwrap_or(0);
    for pid in pids {
        say!("  {:width$}  {}", pid.name, prefixes(pid));
    }
}

fn prefixes(pid: &Pid) -> String {
    let all = pid.ipv4.iter().map(ToString::to_string).chain(pid.ipv6.iter().map(ToString::to_string));
    let count = pid.ipv4.len() + pid.ipv6.len();
    let shown: Vec<String> = all.take(PREFIXES_SHOWN).collect();
    match count.saturating_sub(PREFIXES_SHOWN) {
        _ if count == 0 => "(no prefixes)".to_owned(),
        0 => shown.join(", "),
        more => format!("{} … and {more} more", shown.join(", ")),
    }
}

pub(super) fn cost_map(costs: &CostMap) {
    let (network, unit) = (costs.network(), costs.cost_type().metric.unit());
    let unit = if unit.is_empty() || costs.cost_type().mode == CostMode::Ordinal {
        String::new()
    } else {
        format!(" in {unit}")
    };
    say!(
        "{}: {}{unit}, from the PID on the left to the one above\n",
        network.vtag().resource_id,
        cost_type(costs.cost_type())
    );
    if network.pids().len() > TABLE_PIDS_MAX {
        return cost_summary(costs);
    }
    let cell = |src, dst| costs.get(src, dst).map_or_else(|| "–".to_owned(), |cost| cost.to_string());
    let name = |index| network.name(index).as_str();
    let left = network.indices().map(|index| name(index).len()).max().unwrap_or(0);
    let widths: Vec<usize> = network
        .indices()
        .map(|dst| {
            network
                .indices()
                .map(|src| cell(src, dst).chars().count())
                .max()
                .unwrap_or(0)
                .max(name(dst).len())
        })
        .collect();
    let line = |head: &str, cells: Vec<String>| {
        let cells: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        say!("  {head:left$}  {}", cells.join("  "));
    };
    line("", network.indices().map(|dst| name(dst).to_owned()).collect());
    for src in network.indices() {
        line(name(src), network.indices().map(|dst| cell(src, dst)).collect());
    }
}

/// A map that is too wide for a table: how often each cost comes.
fn cost_summary(costs: &CostMap) {
    /// Costs that are listed.
    const SHOWN: usize = 20;
    let network = costs.network();
    let mut pairs: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for src in network.indices() {
        for cost in network.indices().filter_map(|dst| costs.get(src, dst)) {
            pairs.entry(cost.to_string()).or_insert((cost, 0)).1 += 1;
        }
    }
    let mut pairs: Vec<(f64, usize)> = pairs.into_values().collect();
    pairs.sort_by(|(one, _), (two, _)| one.total_cmp(two));
    say!("  {:>12}  pairs of PIDs", "cost");
    for (cost, count) in pairs.iter().take(SHOWN) {
        say!("  {cost:>12}  {count}");
    }
    if pairs.len() > SHOWN {
        say!("  … and {} more costs", pairs.len() - SHOWN);
    }
    say!(
        "\n{} PIDs are too many for a table: `cost SRC DST` tells one cost, --json all.",
        network.pids().len()
    );
}

pub(super) fn pids(found: &[(String, Option<(String, String)>)]) {
    let width = found.iter().map(|(ip, _)| ip.len()).max().unwrap_or(0);
    let pid_width =
        found.iter().filter_map(|(_, found)| found.as_ref()).map(|(pid, _)| pid.len()).max().unwrap_or(0);
    for (ip, found) in found {
        let found = match found {
            Some((pid, prefix)) if prefix.is_empty() => plain(pid),
            Some((pid, prefix)) => format!("{pid:pid_width$}  by {prefix}"),
            None => "in no PID of this map".to_owned(),
        };
        say!("{ip:width$}  {found}");
    }
}

pub(super) fn costs(src: IpAddr, src_pid: Option<&str>, rows: &[CostRow], cost_type: &CostType) {
    let unit = match (cost_type.mode, cost_type.metric.unit()) {
        (CostMode::Ordinal, _) | (_, "") => String::new(),
        (CostMode::Numerical, unit) => format!(" {unit}"),
    };
    let pid = |pid: Option<&str>| pid.map_or_else(String::new, |pid| format!(" ({pid})"));
    say!("From {src}{}, {}:", pid(src_pid), self::cost_type(cost_type));
    let names: Vec<String> =
        rows.iter().map(|(dst, name, _)| format!("{dst}{}", pid(name.as_deref()))).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for (name, (.., cost)) in names.iter().zip(rows) {
        let cost = cost.map_or_else(|| "no cost is told".to_owned(), |cost| format!("{cost}{unit}"));
        say!("  {name:width$}  {cost}");
    }
}

/// A stranger's text without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}
