//! Filtered network maps and filtered cost maps (section 11.3).

use super::error::Problem;
use super::params::{self, Object};
use super::site::MapSite;
use crate::map::Ranks;
use crate::map::{NetworkMap, PidIndex};
use crate::types::CostMode;

/// A filtered network map: only some PIDs, only some families. PIDs and families that are not known are as if they were
/// not named, but naming only such ones is not naming none: then nothing is told.
pub(crate) fn network_map(map: &MapSite, body: &[u8]) -> Result<Vec<u8>, Problem> {
    let value = params::parse(body)?;
    let root = Object::root(&value)?;
    let wanted = mask(&map.network, &root.pids("pids")?);
    let families = root.strings("address-types")?.unwrap_or_default();
    let is_wanted = |family| families.is_empty() || families.contains(&family);
    Ok(map.network.write(|index| wanted[index.get()], is_wanted("ipv4"), is_wanted("ipv6")))
}

/// A filtered cost map.
pub(crate) fn cost_map(
    map: &MapSite,
    are_constraints_offered: bool,
    body: &[u8],
) -> Result<Vec<u8>, Problem> {
    let value = params::parse(body)?;
    let root = Object::root(&value)?;
    let (cost_type, costs) = params::cost_type(&root, map)?;
    let constraints = params::constraints(&root, are_constraints_offered)?;
    let (srcs, dsts) = match root.object("pids")? {
        Some(pids) => (pids.pids("srcs")?, pids.pids("dsts")?),
        None => (Vec::new(), Vec::new()),
    };
    let network = &*map.network;
    let chosen = |names: &[&str]| -> Vec<PidIndex> {
        let wanted = mask(network, names);
        network.indices().filter(|index| wanted[index.get()]).collect()
    };
    let (srcs, dsts) = (chosen(&srcs), chosen(&dsts));
    let is_allowed = |cost: &f64| constraints.iter().all(|constraint| constraint.allows(*cost));
    let written = match cost_type.mode {
        CostMode::Numerical => costs.write_pairs(&cost_type, &srcs, &dsts, |src, dst| {
            costs.get(src, dst).filter(|cost| is_allowed(cost))
        }),
        CostMode::Ordinal => {
            // Ranks are among the pairs that are asked for (section 6.2).
            let asked = srcs.iter().flat_map(|src| dsts.iter().filter_map(|dst| costs.get(*src, *dst)));
            let ranks = Ranks::new(asked, cost_type.metric.is_more_better());
            costs.write_pairs(&cost_type, &srcs, &dsts, |src, dst| {
                costs.get(src, dst).map(|cost| ranks.rank(cost)).filter(|rank| is_allowed(rank))
            })
        }
    };
    Ok(written)
}

/// Which PIDs are named; all when none is.
fn mask(network: &NetworkMap, names: &[&str]) -> Vec<bool> {
    let mut mask = vec![names.is_empty(); network.pids().len()];
    for index in names.iter().filter_map(|name| network.index(name)) {
        mask[index.get()] = true;
    }
    mask
}
