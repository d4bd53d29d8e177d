//! Costs by rule (the same PID, one that it peers with, any other) and by table.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::read::{self, At};
use super::{ConfigError, METRICS_MAX};
use crate::map::{CostMap, Costs, NetworkMap, PidIndex};
use crate::types::{CostMode, CostSource, CostType, Metric};

/// Pairs that peer, each in both directions.
type Peerings = BTreeSet<(PidIndex, PidIndex)>;

/// The cost maps of a map's table: routing costs first.
pub(super) fn read(map: &At<'_>, network: &Arc<NetworkMap>) -> Result<Vec<Arc<CostMap>>, ConfigError> {
    let costs = map.required_table("costs", "say there what same, peering and transit cost")?;
    costs.only(&["same", "peering", "transit", "peerings", "table"])?;
    let peerings = peerings(&costs, network)?;
    let routing = cost_map(&costs, network, &peerings, Metric::routingcost(), None)?;
    let mut maps = vec![Arc::new(routing)];
    for (key, table) in map.tables("metrics")? {
        let at = key.span().start;
        let metric = Metric::new(key.get_ref()).map_err(|error| map.lines.error(at, error.to_string()))?;
        if metric == Metric::routingcost() {
            return Err(map.lines.error(at, "routing costs are given in [costs]".to_owned()));
        }
        if maps.len() == METRICS_MAX {
            return Err(map
                .lines
                .error(at, format!("more than {METRICS_MAX} metrics, routingcost included")));
        }
        table.only(&["same", "peering", "transit", "table", "source"])?;
        let source = match table.string("source")? {
            None => None,
            Some((text, at)) => Some(CostSource::parse(text).ok_or_else(|| {
                map.lines.error(at, format!("{text:?} is no source: nominal, sla or estimation (RFC 9439)"))
            })?),
        };
        maps.push(Arc::new(cost_map(&table, network, &peerings, metric, source)?));
    }
    Ok(maps)
}

/// `peerings = [["a", "b"], ["c", "d", "e"]]`: those in one list peer with each other.
fn peerings(costs: &At<'_>, network: &NetworkMap) -> Result<Peerings, ConfigError> {
    let mut pairs = Peerings::new();
    let Some(value) = costs.spanned("peerings") else { return Ok(pairs) };
    for group in read::array(costs.lines, value, &costs.full("peerings"))? {
        let mut members = Vec::new();
        for member in read::array(costs.lines, group, "each of the peerings")? {
            let name = member.get_ref().as_str().unwrap_or_default();
            members.push(pid(costs, network, name, member.span().start)?);
        }
        for src in &members {
            pairs.extend(members.iter().map(|dst| (*src, *dst)));
        }
    }
    Ok(pairs)
}

fn pid(table: &At<'_>, network: &NetworkMap, name: &str, at: usize) -> Result<PidIndex, ConfigError> {
    network.index(name).ok_or_else(|| {
        let name = crate::types::shortened(name);
        table.lines.error(at, format!("there is no PID {name:?} in {}", network.vtag().resource_id))
    })
}

fn cost_map(
    table: &At<'_>,
    network: &Arc<NetworkMap>,
    peerings: &Peerings,
    metric: Metric,
    source: Option<CostSource>,
) -> Result<CostMap, ConfigError> {
    let mut costs = Costs::new(network);
    let [same, peering, transit] = ["same", "peering", "transit"].map(|rule| table.cost(rule));
    let (same, peering, transit) = (same?, peering?, transit?);
    for src in network.indices() {
        for dst in network.indices() {
            costs.set(src, dst, if src == dst { same } else { transit });
        }
    }
    if peering.is_some() {
        for (src, dst) in peerings.iter().filter(|(src, dst)| src != dst) {
            costs.set(*src, *dst, peering);
        }
    }
    for (key, row) in table.tables("table")? {
        let src = pid(table, network, key.get_ref(), key.span().start)?;
        for (key, value) in row.entries_in_order() {
            let dst = pid(table, network, key.get_ref(), key.span().start)?;
            let cost = read::cost(value.get_ref()).ok_or_else(|| {
                let name = row.full(key.get_ref());
                table.lines.error(value.span().start, format!("{name} is a number from 0, such as 5 or 2.5"))
            })?;
            costs.set(src, dst, Some(cost));
        }
    }
    let is_share = metric.as_str().split(':').next() == Some("lossrate");
    let is_too_much = |src, dst| costs.get(src, dst).is_some_and(|cost| is_share && cost > 100.0);
    if network.indices().any(|src| network.indices().any(|dst| is_too_much(src, dst))) {
        return Err(table.lines.error(table.start, "a lossrate is a percentage, from 0 to 100".to_owned()));
    }
    if costs.is_empty() {
        return Err(table.lines.error(
            table.start,
            format!("[{0}] gives no cost: set same, peering and transit, or [{0}.table]", table.path),
        ));
    }
    Ok(CostMap::new(Arc::clone(network), CostType { metric, mode: CostMode::Numerical, source }, costs))
}
