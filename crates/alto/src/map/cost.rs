//! What it costs to go from one PID to another (sections 6 and 11.2.3).

use std::net::IpAddr;
use std::sync::Arc;

use super::network::push_key;
use super::{NetworkMap, PidIndex, tag};
use crate::types::{CostMode, CostType, push_number};

/// A cost for each pair of PIDs that has one, row by row; not a number where there is none.
#[derive(Debug, Clone)]
pub struct Costs {
    pids: usize,
    cells: Vec<f64>,
}

impl Costs {
    /// No costs yet between the PIDs of `network`.
    pub fn new(network: &NetworkMap) -> Self {
        let pids = network.pids().len();
        Self { pids, cells: vec![f64::NAN; pids * pids] }
    }

    /// The cost from `src` to `dst`.
    pub fn get(&self, src: PidIndex, dst: PidIndex) -> Option<f64> {
        let cost = *self.cells.get(src.get() * self.pids + dst.get())?;
        (!cost.is_nan()).then_some(cost)
    }

    /// Sets the cost from `src` to `dst`; `None` takes it away.
    pub fn set(&mut self, src: PidIndex, dst: PidIndex, cost: Option<f64>) {
        if src.get() < self.pids && dst.get() < self.pids {
            self.cells[src.get() * self.pids + dst.get()] = cost.unwrap_or(f64::NAN);
        }
    }

    /// How many pairs have a cost.
    pub fn len(&self) -> usize {
        self.cells.iter().filter(|cost| !cost.is_nan()).count()
    }

    /// Whether no pair has a cost.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A cost map. Its tag changes exactly when the map, its network map or its cost type does.
#[derive(Debug, Clone)]
pub struct CostMap {
    network: Arc<NetworkMap>,
    cost_type: CostType,
    costs: Costs,
    tag: String,
}

impl CostMap {
    /// Costs between the PIDs of `network`.
    pub fn new(network: Arc<NetworkMap>, cost_type: CostType, costs: Costs) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(network.vtag().resource_id.as_bytes()).update(b"\n");
        hasher.update(network.vtag().tag.as_bytes()).update(b"\n");
        hasher.update(cost_type.json().to_string().as_bytes());
        for cost in &costs.cells {
            // Not a number has many forms.
            let cost = if cost.is_nan() { f64::NAN } else { *cost };
            hasher.update(&cost.to_le_bytes());
        }
        let tag = tag(&hasher);
        Self { network, cost_type, costs, tag }
    }

    /// The network map that the PIDs are from.
    pub fn network(&self) -> &Arc<NetworkMap> {
        &self.network
    }

    /// What the costs are.
    pub fn cost_type(&self) -> &CostType {
        &self.cost_type
    }

    /// The costs.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// A tag of this version.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The cost from one PID to another.
    pub fn get(&self, src: PidIndex, dst: PidIndex) -> Option<f64> {
        self.costs.get(src, dst)
    }

    /// The cost from the PID of one address to that of another.
    pub fn between(&self, src: IpAddr, dst: IpAddr) -> Option<f64> {
        self.get(self.network.pid_of(src)?, self.network.pid_of(dst)?)
    }

    /// The same as ranks (section 6.1.2.2): from 1, equal costs share one, and 1 is what is preferred.
    #[must_use]
    pub fn to_ordinal(&self) -> Self {
        let ranks = Ranks::new(self.costs.cells.iter().copied(), self.cost_type.metric.is_more_better());
        let cells = self.costs.cells.iter().map(|cost| ranks.rank(*cost)).collect();
        let cost_type = CostType { mode: CostMode::Ordinal, ..self.cost_type.clone() };
        Self::new(Arc::clone(&self.network), cost_type, Costs { pids: self.costs.pids, cells })
    }

    /// The map as a message (section 11.2.3.6).
    pub(crate) fn write(&self) -> Vec<u8> {
        let all: Vec<PidIndex> = self.network.indices().collect();
        self.write_pairs(&self.cost_type, &all, &all, |src, dst| self.get(src, dst))
    }

    /// A message with the costs that `cost` gives between `srcs` and `dsts`.
    pub(crate) fn write_pairs(
        &self,
        cost_type: &CostType,
        srcs: &[PidIndex],
        dsts: &[PidIndex],
        cost: impl Fn(PidIndex, PidIndex) -> Option<f64>,
    ) -> Vec<u8> {
        let head = format!(
            r#"{{"meta":{{"dependent-vtags":[{}],"cost-type":{}}},"cost-map":{{"#,
            self.network.vtag().json(),
            cost_type.json()
        );
        let mut out = head.into_bytes();
        for src in srcs {
            let mut is_begun = false;
            for dst in dsts {
                let Some(cost) = cost(*src, *dst) else { continue };
                if std::mem::replace(&mut is_begun, true) {
                    out.push(b',');
                } else {
                    if out.last() == Some(&b'}') {
                        out.push(b',');
                    }
                    push_key(&mut out, self.network.name(*src).as_str());
                    out.push(b'{');
                }
                push_key(&mut out, self.network.name(*dst).as_str());
                push_number(&mut out, cost);
            }
            if is_begun {
                out.push(b'}');
            }
        }
        out.extend_from_slice(b"}}");
        out
    }
}

/// Ranks of costs among each other.
pub(crate) struct Ranks {
    sorted: Vec<f64>,
    is_more_better: bool,
}

impl Ranks {
    pub(crate) fn new(costs: impl Iterator<Item = f64>, is_more_better: bool) -> Self {
        let mut sorted: Vec<f64> = costs.filter(|cost| !cost.is_nan()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.dedup();
        Self { sorted, is_more_better }
    }

    /// From 1; not a number for what is none.
    pub(crate) fn rank(&self, cost: f64) -> f64 {
        match self.sorted.binary_search_by(|other| other.total_cmp(&cost)) {
            Ok(at) if self.is_more_better => (self.sorted.len() - at) as f64,
            Ok(at) => (at + 1) as f64,
            Err(_) => f64::NAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Metric, PidName};

    fn map(metric: &str, costs: &[(u16, u16, f64)]) -> CostMap {
        let pids = ["a", "b", "c"].map(|name| (PidName::new(name).unwrap(), Vec::new()));
        let network = Arc::new(NetworkMap::new("network", pids.into_iter().collect()).unwrap());
        let mut cells = Costs::new(&network);
        for (src, dst, cost) in costs {
            cells.set(PidIndex(*src), PidIndex(*dst), Some(*cost));
        }
        let cost_type = CostType { metric: Metric::new(metric).unwrap(), ..CostType::routingcost() };
        CostMap::new(network, cost_type, cells)
    }

    #[test]
    fn ranks_have_the_order_of_what_is_preferred() {
        let costs = [(0, 0, 1.0), (0, 1, 5.0), (1, 0, 5.0), (2, 1, 0.25), (2, 2, 20.0)];
        let ranked = map("routingcost", &costs).to_ordinal();
        let rank = |map: &CostMap, src, dst| map.get(PidIndex(src), PidIndex(dst));
        assert_eq!(
            costs.map(|(src, dst, _)| rank(&ranked, src, dst)),
            [2, 3, 3, 1, 4].map(|n| Some(f64::from(n)))
        );
        assert_eq!(rank(&ranked, 1, 2), None);
        // More throughput is preferred, and a lower rank.
        let ranked = map("tput", &costs).to_ordinal();
        assert_eq!(
            costs.map(|(src, dst, _)| rank(&ranked, src, dst)),
            [3, 2, 2, 4, 1].map(|n| Some(f64::from(n)))
        );
        assert_eq!(ranked.cost_type().mode, CostMode::Ordinal);
    }

    #[test]
    fn the_tag_changes_exactly_when_content_does() {
        let base = map("routingcost", &[(0, 1, 5.0)]);
        assert_eq!(base.tag(), map("routingcost", &[(0, 1, 5.0)]).tag());
        assert_ne!(base.tag(), map("routingcost", &[(0, 1, 6.0)]).tag());
        assert_ne!(base.tag(), map("routingcost", &[(1, 0, 5.0)]).tag());
        assert_ne!(base.tag(), map("hopcount", &[(0, 1, 5.0)]).tag());
        assert_ne!(base.tag(), base.to_ordinal().tag());
    }

    #[test]
    fn pairs_without_a_cost_are_left_out() {
        let json: serde_json::Value =
            serde_json::from_slice(&map("routingcost", &[(0, 1, 5.0), (2, 0, 0.5)]).write()).unwrap();
        assert_eq!(json["cost-map"], serde_json::json!({ "a": { "b": 5 }, "c": { "a": 0.5 } }));
        let empty: serde_json::Value = serde_json::from_slice(&map("routingcost", &[]).write()).unwrap();
        assert_eq!(empty["cost-map"], serde_json::json!({}));
    }
}
