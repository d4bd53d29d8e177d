//! Endpoint properties and endpoint costs (sections 11.4 and 11.5). Costs are those between the endpoints' PIDs.

use std::collections::HashSet;
use std::net::IpAddr;

use super::ENDPOINT_PAIRS_MAX;
use super::error::Problem;
use super::params::{self, Object};
use super::site::{MapSite, Site};
use crate::map::{PidIndex, Ranks};
use crate::types::{CostMode, endpoint, parse_endpoint, push_number};

/// Endpoint properties: the PID of each endpoint in each map that is asked about.
pub(crate) fn properties(site: &Site, body: &[u8]) -> Result<Vec<u8>, Problem> {
    let value = params::parse(body)?;
    let root = Object::root(&value)?;
    let names = root.required_strings("properties")?;
    let endpoints = root.required_strings("endpoints")?;
    for (field, list) in [("properties", &names), ("endpoints", &endpoints)] {
        if list.is_empty() {
            return Err(Problem::wrong_text(root.path(field), "[]"));
        }
    }
    let mut maps: Vec<&MapSite> = Vec::new();
    for name in names {
        let map =
            site.map_of_property(name).ok_or_else(|| Problem::wrong_text(root.path("properties"), name))?;
        if !maps.iter().any(|other| other.id() == map.id()) {
            maps.push(map);
        }
    }
    let endpoints = read(&root.path("endpoints"), &endpoints)?;
    let vtags: Vec<String> = maps.iter().map(|map| map.network.vtag().json().to_string()).collect();
    let mut out = format!(r#"{{"meta":{{"dependent-vtags":[{}]}},"endpoint-properties":{{"#, vtags.join(","));
    for (at, (text, ip)) in endpoints.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        out.push_str(&format!("{comma}\"{text}\":{{"));
        let mut first = true;
        for map in &maps {
            // A property without a value for an endpoint is left out.
            let Some(pid) = map.network.pid_of(*ip) else { continue };
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            out.push_str(&format!("{comma}\"{}.pid\":\"{}\"", map.id(), map.network.name(pid)));
        }
        out.push('}');
    }
    out.push_str("}}");
    Ok(out.into_bytes())
}

/// Endpoint costs, and how many pairs were looked at. `client` stands for a list that is empty.
pub(crate) fn costs(site: &Site, client: IpAddr, body: &[u8]) -> Result<(Vec<u8>, u64), Problem> {
    let value = params::parse(body)?;
    let root = Object::root(&value)?;
    let Some(map) = site.maps.first() else { return Err(Problem::syntax("there is no map")) };
    let (cost_type, costs) = params::cost_type(&root, map)?;
    let constraints = params::constraints(&root, site.cost_constraints)?;
    let lists = root.required_object("endpoints")?;
    let list =
        |name| -> Result<_, Problem> { read(&lists.path(name), &lists.strings(name)?.unwrap_or_default()) };
    let (mut srcs, mut dsts) = (list("srcs")?, list("dsts")?);
    let own = endpoint(client);
    match (srcs.is_empty(), dsts.is_empty()) {
        (true, true) => {
            return Err(Problem::wrong_value(root.path("endpoints"), root.required("endpoints")?));
        }
        (true, false) => srcs = vec![(own.as_str(), client)],
        (false, true) => dsts = vec![(own.as_str(), client)],
        (false, false) => {}
    }
    let pairs = srcs.len().saturating_mul(dsts.len());
    if pairs > ENDPOINT_PAIRS_MAX {
        let value = format!("{pairs} pairs; at most {ENDPOINT_PAIRS_MAX} may be asked for at once");
        return Err(Problem::wrong_text(root.path("endpoints"), &value));
    }
    let place = |(text, ip): (&'_ str, IpAddr)| (text.to_owned(), map.network.pid_of(ip));
    let srcs: Vec<(String, Option<PidIndex>)> = srcs.into_iter().map(place).collect();
    let dsts: Vec<(String, Option<PidIndex>)> = dsts.into_iter().map(place).collect();
    let cost = |src: Option<PidIndex>, dst: Option<PidIndex>| costs.get(src?, dst?);
    let ranks = (cost_type.mode == CostMode::Ordinal).then(|| {
        let all = srcs.iter().flat_map(|(_, src)| dsts.iter().filter_map(|(_, dst)| cost(*src, *dst)));
        Ranks::new(all, cost_type.metric.is_more_better())
    });
    let mut out =
        format!(r#"{{"meta":{{"cost-type":{}}},"endpoint-cost-map":{{"#, cost_type.json()).into_bytes();
    for (at, (text, src)) in srcs.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        crate::map::push_key(&mut out, text);
        out.push(b'{');
        for (text, dst) in &dsts {
            let cost = cost(*src, *dst).map(|cost| ranks.as_ref().map_or(cost, |ranks| ranks.rank(cost)));
            let Some(cost) = cost.filter(|cost| constraints.iter().all(|c| c.allows(*cost))) else {
                continue;
            };
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            crate::map::push_key(&mut out, text);
            push_number(&mut out, cost);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
    Ok((out, pairs as u64))
}

/// Endpoints as they were written, each once. What is an endpoint needs no escapes in JSON.
fn read<'a>(path: &str, texts: &[&'a str]) -> Result<Vec<(&'a str, IpAddr)>, Problem> {
    let mut seen = HashSet::with_capacity(texts.len());
    let mut endpoints = Vec::with_capacity(texts.len());
    for text in texts {
        let ip = parse_endpoint(text).map_err(|_| Problem::wrong_text(path.to_owned(), text))?;
        if seen.insert(*text) {
            endpoints.push((*text, ip));
        }
    }
    Ok(endpoints)
}
