//! The examples of RFC 7285, sections 9 to 11, as the client reads them. (The server's side of those that it can be set up for
//! is in `protocol.rs`.)

use std::sync::Arc;

use caudal_alto::client::{Directory, read_endpoint_costs, read_properties};
use caudal_alto::map::{CostMap, MapError, NetworkMap};
use caudal_alto::types::{CostMode, Metric};

/// Section 9.2.3, without the comma too many after the entry `endpoint-property`'s capabilities.
const DIRECTORY: &str = r#"{
  "meta": {
    "cost-types": {
      "num-routing": { "cost-mode": "numerical", "cost-metric": "routingcost", "description": "My default" },
      "num-hop": { "cost-mode": "numerical", "cost-metric": "hopcount" },
      "ord-routing": { "cost-mode": "ordinal", "cost-metric": "routingcost" },
      "ord-hop": { "cost-mode": "ordinal", "cost-metric": "hopcount" }
    },
    "default-alto-network-map": "my-default-network-map"
  },
  "resources": {
    "my-default-network-map": {
      "uri": "http://alto.example.com/networkmap",
      "media-type": "application/alto-networkmap+json"
    },
    "numerical-routing-cost-map": {
      "uri": "http://alto.example.com/costmap/num/routingcost",
      "media-type": "application/alto-costmap+json",
      "capabilities": { "cost-type-names": [ "num-routing" ] },
      "uses": [ "my-default-network-map" ]
    },
    "numerical-hopcount-cost-map": {
      "uri": "http://alto.example.com/costmap/num/hopcount",
      "media-type": "application/alto-costmap+json",
      "capabilities": { "cost-type-names": [ "num-hop" ] },
      "uses": [ "my-default-network-map" ]
    },
    "custom-maps-resources": {
      "uri": "http://custom.alto.example.com/maps",
      "media-type": "application/alto-directory+json"
    },
    "endpoint-property": {
      "uri": "http://alto.example.com/endpointprop/lookup",
      "media-type": "application/alto-endpointprop+json",
      "accepts": "application/alto-endpointpropparams+json",
      "capabilities": { "prop-types": [ "my-default-network-map.pid", "priv:ietf-example-prop" ] }
    },
    "endpoint-cost": {
      "uri": "http://alto.example.com/endpointcost/lookup",
      "media-type": "application/alto-endpointcost+json",
      "accepts": "application/alto-endpointcostparams+json",
      "capabilities": {
        "cost-constraints": true,
        "cost-type-names": [ "num-routing", "num-hop", "ord-routing", "ord-hop" ]
      }
    }
  }
}"#;

/// Section 9.2.4: a directory without a network map of its own.
const CUSTOM: &str = r#"{
  "meta": { "cost-types": { "ord-routing": { "cost-mode": "ordinal", "cost-metric": "routingcost" } } },
  "resources": {
    "filtered-network-map": {
      "uri": "http://custom.alto.example.com/networkmap/filtered",
      "media-type": "application/alto-networkmap+json",
      "accepts": "application/alto-networkmapfilter+json",
      "uses": [ "my-default-network-map" ]
    },
    "ordinal-routing-cost-map": {
      "uri": "http://custom.alto.example.com/ord/routingcost",
      "media-type": "application/alto-costmap+json",
      "capabilities": { "cost-type-names": [ "ord-routing" ] },
      "uses": [ "my-default-network-map" ]
    }
  }
}"#;

#[test]
fn directories() {
    let url = "http://alto.example.com/directory".parse().unwrap();
    let directory = Directory::read(&url, DIRECTORY.as_bytes()).unwrap();
    assert_eq!(directory.resources().count(), 6);
    let map = directory.network_map(None).unwrap();
    assert_eq!(
        (map.id.as_str(), map.url.as_str()),
        ("my-default-network-map", "http://alto.example.com/networkmap")
    );
    let (costs, cost_type) = directory.cost_map(&map.id, &Metric::routingcost()).unwrap();
    assert_eq!((costs.id.as_str(), cost_type.mode), ("numerical-routing-cost-map", CostMode::Numerical));
    let endpoint_cost = directory.resources().find(|resource| resource.id == "endpoint-cost").unwrap();
    assert!(endpoint_cost.has_cost_constraints && endpoint_cost.cost_types.len() == 4);
    let custom = Directory::read(&url, CUSTOM.as_bytes()).unwrap();
    assert!(custom.network_map(None).is_err(), "a filtered map is not a whole one");
    let (costs, cost_type) = custom.cost_map("my-default-network-map", &Metric::routingcost()).unwrap();
    assert_eq!((costs.id.as_str(), cost_type.mode), ("ordinal-routing-cost-map", CostMode::Ordinal));
}

fn network(tag: &str, pids: &str) -> Result<NetworkMap, MapError> {
    let meta = format!(r#"{{ "vtag": {{ "resource-id": "my-default-network-map", "tag": "{tag}" }} }}"#);
    NetworkMap::read(format!(r#"{{ "meta": {meta}, "network-map": {pids} }}"#).as_bytes())
}

fn pid(map: &NetworkMap, ip: &str) -> String {
    map.pid_of(ip.parse().unwrap()).map_or_else(String::new, |index| map.name(index).to_string())
}

/// Sections 11.2.1.7 and 11.2.2.
#[test]
fn network_maps() {
    let map = network(
        "da65eca2eb7a10ce8b059740b0b2e3f8eb1d4785",
        r#"{ "PID1": { "ipv4": [ "192.0.2.0/24", "198.51.100.0/25" ] }, "PID2": { "ipv4": [ "198.51.100.128/25" ] },
             "PID3": { "ipv4": [ "0.0.0.0/0" ], "ipv6": [ "::/0" ] } }"#,
    );
    let map = map.unwrap();
    map.check_complete().unwrap();
    assert_eq!(map.vtag().tag, "da65eca2eb7a10ce8b059740b0b2e3f8eb1d4785");
    // Figure 3's endpoints.
    assert_eq!([pid(&map, "192.0.2.34"), pid(&map, "198.51.100.100")], ["PID1", "PID1"]);
    assert_eq!(pid(&map, "198.51.100.200"), "PID2");
    let map = network(
        "1",
        r#"{ "PID0": { "ipv6": [ "::/0" ] }, "PID1": { "ipv4": [ "0.0.0.0/0" ] },
             "PID2": { "ipv4": [ "192.0.2.0/24", "198.51.100.0/24" ] },
             "PID3": { "ipv4": [ "192.0.2.0/25", "192.0.2.128/25" ] } }"#,
    );
    assert_eq!(pid(&map.unwrap(), "192.0.2.1"), "PID3");
}

/// Section 11.3.1.7: its two PIDs have one prefix in common, once written as 198.51.100.128/24. Section 11.2.2 forbids that, so
/// it is refused.
#[test]
fn the_filtered_network_map_contradicts_the_rules_for_maps() {
    let map = network(
        "c0ce023b8678a7b9ec00324673b98e54656d1f6d",
        r#"{ "PID1": { "ipv4": [ "192.0.2.0/24", "198.51.100.0/24" ] }, "PID2": { "ipv4": [ "198.51.100.128/24" ] } }"#,
    );
    assert!(matches!(map, Err(MapError::Overlap { .. })));
}

/// Sections 11.2.3.7 and 11.3.2.7.
#[test]
fn cost_maps() {
    let pids = r#"{ "PID1": {}, "PID2": {}, "PID3": {} }"#;
    for (tag, costs, expected) in [
        (
            "3ee2cb7e8d63d9fab71b9b34cbf764436315542e",
            r#"{ "PID1": { "PID1": 1, "PID2": 5, "PID3": 10 }, "PID2": { "PID1": 5, "PID2": 1, "PID3": 15 },
                 "PID3": { "PID1": 20, "PID2": 15 } }"#,
            [Some(5.0), Some(20.0), None],
        ),
        (
            "75ed013b3cb58f896e839582504f622838ce670f",
            r#"{ "PID1": { "PID1": 0, "PID2": 1, "PID3": 2 } }"#,
            [Some(1.0), None, None],
        ),
    ] {
        let network = Arc::new(network(tag, pids).unwrap());
        let json = format!(
            r#"{{ "meta": {{ "dependent-vtags": [ {{ "resource-id": "my-default-network-map", "tag": "{tag}" }} ],
            "cost-type": {{ "cost-mode": "numerical", "cost-metric": "routingcost" }} }}, "cost-map": {costs} }}"#
        );
        let map = CostMap::read(json.as_bytes(), &network).unwrap();
        let cost = |src, dst| map.get(network.index(src).unwrap(), network.index(dst).unwrap());
        assert_eq!([cost("PID1", "PID2"), cost("PID3", "PID1"), cost("PID3", "PID3")], expected, "{tag}");
    }
}

/// Sections 11.4.1.7 and 11.5.1.7.
#[test]
fn endpoint_answers() {
    let properties = br#"{
      "meta": { "dependent-vtags": [
        { "resource-id": "my-default-network-map", "tag": "7915dc0290c2705481c491a2b4ffbec482b3cf62" } ] },
      "endpoint-properties": {
        "ipv4:192.0.2.34": { "my-default-network-map.pid": "PID1", "priv:ietf-example-prop": "1" },
        "ipv4:203.0.113.129": { "my-default-network-map.pid": "PID3" }
      } }"#;
    let pids = read_properties(properties, "my-default-network-map.pid").unwrap();
    assert_eq!(pids.into_values().collect::<Vec<_>>(), ["PID1", "PID3"]);
    assert_eq!(read_properties(properties, "priv:ietf-example-prop").unwrap().len(), 1);
    let costs = br#"{
      "meta": { "cost-type": { "cost-mode": "ordinal", "cost-metric": "routingcost" } },
      "endpoint-cost-map": { "ipv4:192.0.2.2": {
        "ipv4:192.0.2.89": 1, "ipv4:198.51.100.34": 2, "ipv4:203.0.113.45": 3 } } }"#;
    let costs = read_endpoint_costs(costs).unwrap();
    assert_eq!(costs["ipv4:192.0.2.2"].values().copied().collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
}
