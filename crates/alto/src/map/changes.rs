//! What changed between two versions of a map, as a merge patch (RFC 7396), which RFC 8895 sends instead of the whole.

use super::network::{push_key, write_group};
use super::{CostMap, NetworkMap, Pid};
use crate::types::push_number;

impl NetworkMap {
    /// The patch that makes this map of `old`.
    pub(crate) fn patch_from(&self, old: &Self) -> Vec<u8> {
        let head = format!(r#"{{"meta":{{"vtag":{}}},"network-map":{{"#, self.vtag().json());
        let mut out = head.into_bytes();
        for pid in old.pids().iter().filter(|pid| self.index(pid.name.as_str()).is_none()) {
            next(&mut out);
            push_key(&mut out, pid.name.as_str());
            out.extend_from_slice(b"null");
        }
        for pid in self.pids() {
            let before = old.index(pid.name.as_str()).map(|index| &old.pids()[index.get()]);
            if before == Some(pid) {
                continue;
            }
            next(&mut out);
            push_key(&mut out, pid.name.as_str());
            match before {
                Some(before) => write_changed(&mut out, before, pid),
                None => write_group(&mut out, pid, true, true),
            }
        }
        out.extend_from_slice(b"}}");
        out
    }
}

/// The families that changed; one that is gone is null, for lists are replaced and not merged.
fn write_changed(out: &mut Vec<u8>, before: &Pid, pid: &Pid) {
    let mut group = Vec::new();
    write_group(&mut group, pid, before.ipv4 != pid.ipv4, before.ipv6 != pid.ipv6);
    let _closing = group.pop();
    let gone = [
        ("ipv4", !before.ipv4.is_empty() && pid.ipv4.is_empty()),
        ("ipv6", !before.ipv6.is_empty() && pid.ipv6.is_empty()),
    ];
    for (family, _) in gone.into_iter().filter(|(_, is_gone)| *is_gone) {
        next(&mut group);
        push_key(&mut group, family);
        group.extend_from_slice(b"null");
    }
    group.push(b'}');
    out.append(&mut group);
}

impl CostMap {
    /// The patch that makes this map of `old`, which has the same cost type.
    pub(crate) fn patch_from(&self, old: &Self) -> Vec<u8> {
        let head =
            format!(r#"{{"meta":{{"dependent-vtags":[{}]}},"cost-map":{{"#, self.network().vtag().json());
        let mut out = head.into_bytes();
        let (new_pids, old_pids) = (self.network(), old.network());
        let has_row = |map: &Self, src| map.network().indices().any(|dst| map.get(src, dst).is_some());
        for src in old_pids.indices().filter(|src| has_row(old, *src)) {
            let name = old_pids.name(src).as_str();
            if !new_pids.index(name).is_some_and(|src| has_row(self, src)) {
                next(&mut out);
                push_key(&mut out, name);
                out.extend_from_slice(b"null");
            }
        }
        for src in new_pids.indices().filter(|src| has_row(self, *src)) {
            let name = new_pids.name(src).as_str();
            let old_src = old_pids.index(name);
            let mut row = Vec::new();
            for dst in new_pids.indices() {
                let dst_name = new_pids.name(dst).as_str();
                let before = old_src.zip(old_pids.index(dst_name)).and_then(|(src, dst)| old.get(src, dst));
                let now = self.get(src, dst);
                if before == now {
                    continue;
                }
                next(&mut row);
                push_key(&mut row, dst_name);
                match now {
                    Some(cost) => push_number(&mut row, cost),
                    None => row.extend_from_slice(b"null"),
                }
            }
            // Destinations that are no PIDs any more.
            for dst in old_pids.indices().filter(|dst| new_pids.index(old_pids.name(*dst).as_str()).is_none())
            {
                if old_src.is_some_and(|src| old.get(src, dst).is_some()) {
                    next(&mut row);
                    push_key(&mut row, old_pids.name(dst).as_str());
                    row.extend_from_slice(b"null");
                }
            }
            if !row.is_empty() {
                next(&mut out);
                push_key(&mut out, name);
                out.push(b'{');
                out.append(&mut row);
                out.push(b'}');
            }
        }
        out.extend_from_slice(b"}}");
        out
    }
}

/// A comma before every member but the first.
fn next(out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b'{')) {
        out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::map::Costs;
    use crate::types::{CostType, PidName};

    /// RFC 7396, as it is written there.
    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = Value::Object(serde_json::Map::new());
        }
        let Value::Object(target) = target else { return };
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn random(rng: &mut fastrand::Rng) -> CostMap {
        let mut pids: BTreeMap<PidName, Vec<ipnet::IpNet>> = BTreeMap::new();
        for name in 0..rng.u8(1..8) {
            let name = rng.u8(0..8).wrapping_add(name) % 8;
            let v4 = (0..rng.u8(0..3)).map(|n| format!("10.{name}.{n}.0/24").parse().unwrap());
            let v6 = (0..rng.u8(0..3)).map(|n| format!("2001:db8:{name}:{n}::/64").parse().unwrap());
            pids.insert(PidName::new(&format!("p{name}")).unwrap(), v4.chain(v6).collect());
        }
        let network = Arc::new(NetworkMap::new("network", pids).unwrap());
        let mut costs = Costs::new(&network);
        for src in network.indices() {
            for dst in network.indices() {
                costs.set(src, dst, rng.bool().then(|| f64::from(rng.u8(0..4)) / 2.0));
            }
        }
        CostMap::new(network, CostType::routingcost(), costs)
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_patch_makes_the_new_map_of_the_old_one() {
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..500 {
            let (old, new) = (random(&mut rng), random(&mut rng));
            let (old_net, new_net) = (old.network(), new.network());
            let whole = |map: &NetworkMap| json(&map.write(|_| true, true, true));
            let patch = new_net.patch_from(old_net);
            let mut merged = whole(old_net);
            merge(&mut merged, &json(&patch));
            assert_eq!(merged, whole(new_net), "round {round}");
            let patched = Arc::new(old_net.patched(&patch).unwrap());
            assert_eq!((patched.pids(), patched.vtag()), (new_net.pids(), new_net.vtag()), "round {round}");
            let patch = new.patch_from(&old);
            let mut merged = json(&old.write());
            merge(&mut merged, &json(&patch));
            assert_eq!(merged, json(&new.write()), "round {round}");
            let read = old.patched(&patch, &patched).unwrap();
            assert_eq!((read.map.tag(), &read.depends_on), (new.tag(), new_net.vtag()), "round {round}");
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..100 {
            let map = random(&mut rng);
            let network = Arc::new(NetworkMap::read(&map.network().write(|_| true, true, true)).unwrap());
            assert_eq!((network.pids(), network.vtag()), (map.network().pids(), map.network().vtag()));
            assert_eq!(CostMap::read(&map.write(), &network).unwrap().tag(), map.tag());
        }
    }
}
