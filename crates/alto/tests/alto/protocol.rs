//! The server against RFC 7285: what it offers, and what it answers, with the RFC's examples where it can be set up for them.

use crate::common::{RFC, Running, ask};
use serde_json::{Value, json};

const NETWORK_FILTER: &str = "application/alto-networkmapfilter+json";
const COST_FILTER: &str = "application/alto-costmapfilter+json";
const PROP_PARAMS: &str = "application/alto-endpointpropparams+json";
const COST_PARAMS: &str = "application/alto-endpointcostparams+json";
const NETWORK: &str = "/networkmap/my-default-network-map";
const COSTS: &str = "/costmap/my-default-network-map";

/// Sections 9.2.2 and 9.2.3.
#[tokio::test]
async fn the_root_directory_leads_to_everything() {
    let server = Running::start(RFC).await;
    for at in ["/", "/directory"] {
        let answer = server.get(at).await;
        let directory = answer.of("application/alto-directory+json");
        assert_eq!(directory["meta"]["default-alto-network-map"], "my-default-network-map");
        let types = directory["meta"]["cost-types"].as_object().unwrap();
        assert_eq!(
            types["num-routingcost"],
            json!({ "cost-mode": "numerical", "cost-metric": "routingcost" })
        );
        assert_eq!(types["ord-hopcount"], json!({ "cost-mode": "ordinal", "cost-metric": "hopcount" }));
        let base: url::Url = format!("http://{}{at}", server.address).parse().unwrap();
        let resources = directory["resources"].as_object().unwrap();
        assert!(resources["endpoint-cost"].get("uses").is_none(), "section 11.5.1.5");
        for (id, entry) in resources {
            let relative = entry["uri"].as_str().unwrap();
            assert!(!relative.contains("://"), "{id}");
            let url = base.join(relative).unwrap();
            for used in entry["uses"].as_array().into_iter().flatten() {
                assert!(resources.contains_key(used.as_str().unwrap()), "{id} uses {used}");
            }
            for name in entry["capabilities"]["cost-type-names"].as_array().into_iter().flatten() {
                assert!(types.contains_key(name.as_str().unwrap()), "{id}: {name}");
            }
            // By GET where nothing is accepted, by POST where something is, and by nothing else.
            let is_get = entry.get("accepts").is_none();
            let got = server.get(url.path()).await;
            if is_get {
                got.of(entry["media-type"].as_str().unwrap());
                assert!(
                    entry["capabilities"]["cost-type-names"].as_array().is_none_or(|names| names.len() == 1)
                );
            } else {
                assert!(got.status == 405 || got.status == 200, "{id}: {}", got.status);
                let wrong = server.post(url.path(), entry["accepts"].as_str().unwrap(), "{").await;
                assert_eq!(wrong.error().0, "E_SYNTAX", "{id}");
            }
        }
        // One path takes both: two entries.
        let at_map: Vec<_> = resources
            .iter()
            .filter(|(_, entry)| entry["uri"] == NETWORK[1..])
            .map(|(id, entry)| (id.as_str(), entry.get("accepts").is_some()))
            .collect();
        assert_eq!(at_map, [("my-default-network-map", false), ("my-default-network-map-filtered", true)]);
    }
    server.stop().await;
}

/// No media type has parameters.
#[tokio::test]
async fn media_types_are_exact() {
    let server = Running::start(RFC).await;
    let costs = r#"{"cost-type":{"cost-mode":"numerical","cost-metric":"routingcost"}"#;
    let answers = [
        (server.get("/directory").await, "application/alto-directory+json"),
        (server.get(NETWORK).await, "application/alto-networkmap+json"),
        (server.post(NETWORK, NETWORK_FILTER, r#"{"pids":[]}"#).await, "application/alto-networkmap+json"),
        (server.get(&format!("{COSTS}/num-routingcost")).await, "application/alto-costmap+json"),
        (server.post(COSTS, COST_FILTER, &format!("{costs}}}")).await, "application/alto-costmap+json"),
        (
            server
                .post(
                    "/endpointprop",
                    PROP_PARAMS,
                    r#"{"properties":["my-default-network-map.pid"],"endpoints":["ipv4:192.0.2.1"]}"#,
                )
                .await,
            "application/alto-endpointprop+json",
        ),
        (
            server
                .post(
                    "/endpointcost",
                    COST_PARAMS,
                    &format!(r#"{costs},"endpoints":{{"dsts":["ipv4:192.0.2.1"]}}}}"#),
                )
                .await,
            "application/alto-endpointcost+json",
        ),
    ];
    for (answer, media_type) in answers {
        answer.of(media_type);
    }
    server.stop().await;
}

/// Section 11.2.1.7.
#[tokio::test]
async fn the_network_map_of_the_example() {
    let server = Running::start(RFC).await;
    let map = server.get(NETWORK).await.of("application/alto-networkmap+json");
    assert_eq!(
        map["network-map"],
        json!({
            "PID1": { "ipv4": ["192.0.2.0/24", "198.51.100.0/25"] },
            "PID2": { "ipv4": ["198.51.100.128/25"] },
            "PID3": { "ipv4": ["0.0.0.0/0"], "ipv6": ["::/0"] },
        })
    );
    assert_eq!(map["meta"]["vtag"]["resource-id"], "my-default-network-map");
    let tag = map["meta"]["vtag"]["tag"].as_str().unwrap();
    assert!((1..=64).contains(&tag.len()) && tag.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
    server.stop().await;
}

/// Section 11.2.3.7, and the ordinal mode of the same costs.
#[tokio::test]
async fn the_cost_map_of_the_example() {
    let server = Running::start(RFC).await;
    let network = server.get(NETWORK).await.json();
    let map = server.get(&format!("{COSTS}/num-routingcost")).await.of("application/alto-costmap+json");
    assert_eq!(
        map["cost-map"],
        json!({
            "PID1": { "PID1": 1, "PID2": 5, "PID3": 10 },
            "PID2": { "PID1": 5, "PID2": 1, "PID3": 15 },
            "PID3": { "PID1": 20, "PID2": 15 },
        })
    );
    assert_eq!(map["meta"]["dependent-vtags"], json!([network["meta"]["vtag"]]));
    assert_eq!(map["meta"]["cost-type"], json!({ "cost-mode": "numerical", "cost-metric": "routingcost" }));
    let ranks = server.get(&format!("{COSTS}/ord-routingcost")).await.of("application/alto-costmap+json");
    assert_eq!(
        ranks["cost-map"],
        json!({
            "PID1": { "PID1": 1, "PID2": 2, "PID3": 3 },
            "PID2": { "PID1": 2, "PID2": 1, "PID3": 4 },
            "PID3": { "PID1": 5, "PID2": 4 },
        })
    );
    assert_eq!(ranks["meta"]["cost-type"]["cost-mode"], "ordinal");
    server.stop().await;
}

/// Section 11.3.1, with the example of 11.3.1.7.
#[tokio::test]
async fn network_maps_are_filtered() {
    let server = Running::start(RFC).await;
    let whole = server.get(NETWORK).await.json();
    let filtered = async |body: &str| {
        let map = server.post(NETWORK, NETWORK_FILTER, body).await.of("application/alto-networkmap+json");
        assert_eq!(map["meta"], whole["meta"], "the tag is the whole map's");
        map["network-map"].clone()
    };
    let pids = |names: &[&str]| -> Value {
        names.iter().map(|name| ((*name).to_owned(), whole["network-map"][name].clone())).collect()
    };
    assert_eq!(filtered(r#"{ "pids": [ "PID1", "PID2" ] }"#).await, pids(&["PID1", "PID2"]));
    assert_eq!(filtered(r#"{"pids":[]}"#).await, whole["network-map"]);
    assert_eq!(filtered(r#"{"pids":["PID2","PID2"]}"#).await, pids(&["PID2"]));
    assert_eq!(filtered(r#"{"pids":["PID2","nobody"]}"#).await, pids(&["PID2"]));
    assert_eq!(filtered(r#"{"pids":["nobody"]}"#).await, json!({}));
    assert_eq!(filtered(r#"{"pids":[],"address-types":[]}"#).await, whole["network-map"]);
    let ipv6 = json!({ "PID1": {}, "PID2": {}, "PID3": { "ipv6": ["::/0"] } });
    assert_eq!(filtered(r#"{"pids":[],"address-types":["ipv6"]}"#).await, ipv6);
    assert_eq!(filtered(r#"{"pids":[],"address-types":["ipv6","ipv6","mac"]}"#).await, ipv6);
    assert_eq!(
        filtered(r#"{"pids":["PID3"],"address-types":["ipv4"]}"#).await,
        json!({ "PID3": { "ipv4": ["0.0.0.0/0"] } })
    );
    server.stop().await;
}

fn costs_of(mode: &str, metric: &str, rest: &str) -> String {
    format!(r#"{{"cost-type":{{"cost-mode":"{mode}","cost-metric":"{metric}"}}{rest}}}"#)
}

/// Section 11.3.2, with the shape of the example in 11.3.2.7.
#[tokio::test]
async fn cost_maps_are_filtered_and_constrained() {
    let server = Running::start(RFC).await;
    let network = server.get(NETWORK).await.json();
    let filtered = async |mode: &str, rest: &str| {
        let answer = server.post(COSTS, COST_FILTER, &costs_of(mode, "routingcost", rest)).await;
        let map = answer.of("application/alto-costmap+json");
        assert_eq!(map["meta"]["dependent-vtags"], json!([network["meta"]["vtag"]]));
        assert_eq!(map["meta"]["cost-type"]["cost-mode"], mode);
        map["cost-map"].clone()
    };
    let whole = server.get(&format!("{COSTS}/num-routingcost")).await.json()["cost-map"].clone();
    assert_eq!(filtered("numerical", "").await, whole);
    assert_eq!(filtered("numerical", r#","pids":{"srcs":[],"dsts":[]}"#).await, whole);
    assert_eq!(
        filtered("numerical", r#","pids":{"srcs":["PID1"],"dsts":["PID1","PID2","PID3"]}"#).await,
        json!({ "PID1": { "PID1": 1, "PID2": 5, "PID3": 10 } })
    );
    let repeated = r#","pids":{"srcs":["PID3","PID3","nobody"],"dsts":["PID2","PID2"]}"#;
    assert_eq!(filtered("numerical", repeated).await, json!({ "PID3": { "PID2": 15 } }));
    assert_eq!(filtered("numerical", r#","pids":{"srcs":["nobody"],"dsts":[]}"#).await, json!({}));
    // The description is ignored, and so is what is not known.
    let described = r#","more":{"deep":[1]},"constraints":[]"#;
    assert_eq!(filtered("numerical", described).await, whole);
    for (constraints, expected) in [
        (r#"["gt 15"]"#, json!({ "PID3": { "PID1": 20 } })),
        (r#"["lt 5"]"#, json!({ "PID1": { "PID1": 1 }, "PID2": { "PID2": 1 } })),
        (r#"["ge 15"]"#, json!({ "PID2": { "PID3": 15 }, "PID3": { "PID1": 20, "PID2": 15 } })),
        (r#"["le 1"]"#, json!({ "PID1": { "PID1": 1 }, "PID2": { "PID2": 1 } })),
        (r#"["eq 10"]"#, json!({ "PID1": { "PID3": 10 } })),
        (r#"["ge 5","le 10"]"#, json!({ "PID1": { "PID2": 5, "PID3": 10 }, "PID2": { "PID1": 5 } })),
        (r#"["gt 5","lt 5"]"#, json!({})),
    ] {
        let rest = format!(r#","constraints":{constraints}"#);
        assert_eq!(filtered("numerical", &rest).await, expected, "{constraints}");
    }
    // Ranks are among what was asked for (section 6.2).
    let row = r#","pids":{"srcs":["PID2"],"dsts":[]}"#;
    assert_eq!(filtered("ordinal", row).await, json!({ "PID2": { "PID1": 2, "PID2": 1, "PID3": 3 } }));
    server.stop().await;
}

/// Points of both modes in one order, for every metric.
#[tokio::test]
async fn numerical_and_ordinal_agree_in_order() {
    let server = Running::start(RFC).await;
    for metric in ["routingcost", "hopcount"] {
        let map = async |mode: &str| {
            let map = server.get(&format!("{COSTS}/{mode}-{metric}")).await.json()["cost-map"].clone();
            let rows = map.as_object().unwrap().clone();
            rows.values()
                .flat_map(|row| {
                    row.as_object().unwrap().values().map(|c| c.as_f64().unwrap()).collect::<Vec<_>>()
                })
                .collect::<Vec<_>>()
        };
        let (numerical, ordinal) = (map("num").await, map("ord").await);
        assert_eq!(numerical.len(), ordinal.len());
        for (a, x) in numerical.iter().zip(&ordinal) {
            assert!(x.fract() == 0.0 && *x >= 0.0);
            for (b, y) in numerical.iter().zip(&ordinal) {
                assert_eq!(a.partial_cmp(b), x.partial_cmp(y), "{metric}");
            }
        }
    }
    server.stop().await;
}

/// Section 11.4.1; the example of 11.4.1.7 without its private property.
#[tokio::test]
async fn every_map_has_its_pid_property() {
    let text = format!("{RFC}[maps.coarse.pids]\nworld = [\"0.0.0.0/0\"]\n[maps.coarse.costs]\nsame = 1\n");
    let server = Running::start(&text).await;
    let network = server.get(NETWORK).await.json();
    let ask = async |body: &str| {
        server.post("/endpointprop", PROP_PARAMS, body).await.of("application/alto-endpointprop+json")
    };
    let one = ask(
        r#"{"properties":["my-default-network-map.pid"],"endpoints":["ipv4:192.0.2.34","ipv4:203.0.113.129","ipv4:192.0.2.34"]}"#,
    )
    .await;
    assert_eq!(one["meta"]["dependent-vtags"], json!([network["meta"]["vtag"]]));
    assert_eq!(
        one["endpoint-properties"],
        json!({
            "ipv4:192.0.2.34": { "my-default-network-map.pid": "PID1" },
            "ipv4:203.0.113.129": { "my-default-network-map.pid": "PID3" },
        })
    );
    let both = ask(r#"{"properties":["coarse.pid","my-default-network-map.pid","coarse.pid"],"endpoints":["ipv6:2001:db8::1","ipv4:198.51.100.200"]}"#).await;
    assert_eq!(both["meta"]["dependent-vtags"].as_array().unwrap().len(), 2);
    assert_eq!(
        both["endpoint-properties"],
        json!({
            // A map without the family has no value for the endpoint.
            "ipv6:2001:db8::1": { "my-default-network-map.pid": "PID3" },
            "ipv4:198.51.100.200": { "coarse.pid": "world", "my-default-network-map.pid": "PID2" },
        })
    );
    server.stop().await;
}

/// Section 11.5.1, with the example of 11.5.1.7.
#[tokio::test]
async fn endpoint_costs_and_the_implicit_client() {
    let server = Running::start(RFC).await;
    let ask = async |mode: &str, endpoints: &str| {
        let body = costs_of(mode, "routingcost", &format!(r#","endpoints":{endpoints}"#));
        let answer = server.post("/endpointcost", COST_PARAMS, &body).await;
        let costs = answer.of("application/alto-endpointcost+json");
        assert_eq!(costs["meta"]["cost-type"], json!({ "cost-mode": mode, "cost-metric": "routingcost" }));
        costs["endpoint-cost-map"].clone()
    };
    let example = r#"{ "srcs": [ "ipv4:192.0.2.2" ],
        "dsts": [ "ipv4:192.0.2.89", "ipv4:198.51.100.134", "ipv4:203.0.113.45" ] }"#;
    let ranks = json!({ "ipv4:192.0.2.2": {
        "ipv4:192.0.2.89": 1, "ipv4:198.51.100.134": 2, "ipv4:203.0.113.45": 3 } });
    assert_eq!(ask("ordinal", example).await, ranks);
    // The client, on loopback, is in PID3; a list may be empty or not there.
    let from_client = json!({ "ipv4:127.0.0.1": { "ipv4:192.0.2.1": 20 } });
    assert_eq!(ask("numerical", r#"{"dsts":["ipv4:192.0.2.1"]}"#).await, from_client);
    assert_eq!(ask("numerical", r#"{"srcs":[],"dsts":["ipv4:192.0.2.1"]}"#).await, from_client);
    let to_client = json!({ "ipv4:192.0.2.1": { "ipv4:127.0.0.1": 10 } });
    assert_eq!(ask("numerical", r#"{"srcs":["ipv4:192.0.2.1"]}"#).await, to_client);
    let repeated =
        r#"{"srcs":["ipv6:2001:db8::1","ipv6:2001:db8::1"],"dsts":["ipv4:192.0.2.1","ipv4:192.0.2.1"]}"#;
    assert_eq!(ask("numerical", repeated).await, json!({ "ipv6:2001:db8::1": { "ipv4:192.0.2.1": 20 } }));
    // PID3 to PID3 has no cost.
    assert_eq!(
        ask("numerical", r#"{"srcs":["ipv4:8.8.8.8"],"dsts":["ipv4:9.9.9.9"]}"#).await,
        json!({ "ipv4:8.8.8.8": {} })
    );
    server.stop().await;
}

/// A proxy that the operator named tells whose request it is.
#[tokio::test]
async fn the_client_behind_a_trusted_proxy_is_the_one_it_names() {
    let body = costs_of("numerical", "routingcost", r#","endpoints":{"dsts":["ipv4:192.0.2.1"]}"#);
    let headers = [("Content-Type", COST_PARAMS), ("X-Forwarded-For", "203.0.113.9, 198.51.100.200")];
    for (proxies, expected) in [("[]", "ipv4:127.0.0.1"), (r#"["127.0.0.1"]"#, "ipv4:198.51.100.200")] {
        let server = Running::start(&format!("{RFC}[server]\ntrusted-proxies = {proxies}\n")).await;
        let answer = ask(server.address, "POST", "/endpointcost", &headers, body.as_bytes()).await;
        assert_eq!(answer.json()["endpoint-cost-map"].as_object().unwrap().keys().next().unwrap(), expected);
        server.stop().await;
    }
}

/// RFC 9439: metrics beside routing costs, with the source of their values.
#[tokio::test]
async fn performance_metrics_are_served_where_the_file_has_them() {
    let text = format!(
        "{RFC}[metrics.\"delay-rt:p95\"]\nsource = \"sla\"\nsame = 2000\ntransit = 25000.5\n\
         [metrics.lossrate]\ntransit = 0.25\n[metrics.tput]\nsource = \"nominal\"\nsame = 125000000\ntransit = 1250000\n"
    );
    let server = Running::start(&text).await;
    let directory = server.get("/").await.json();
    let delay = json!({ "cost-mode": "numerical", "cost-metric": "delay-rt:p95", "cost-context": { "cost-source": "sla" } });
    assert_eq!(directory["meta"]["cost-types"]["num-delay-rt:p95"], delay);
    let entry = &directory["resources"]["my-default-network-map-num-delay-rt:p95"];
    let map =
        server.get(&format!("/{}", entry["uri"].as_str().unwrap())).await.of("application/alto-costmap+json");
    assert_eq!(map["meta"]["cost-type"], delay);
    assert_eq!(map["cost-map"]["PID1"], json!({ "PID1": 2000, "PID2": 25000.5, "PID3": 25000.5 }));
    let loss = server.get(&format!("{COSTS}/num-lossrate")).await.json();
    assert_eq!(loss["cost-map"]["PID1"], json!({ "PID2": 0.25, "PID3": 0.25 }));
    assert_eq!(loss["meta"]["cost-type"].get("cost-context"), None, "an estimation unless said otherwise");
    // More throughput is preferred: a lower rank.
    let rank = server.get(&format!("{COSTS}/ord-tput")).await.json();
    assert_eq!(rank["cost-map"]["PID1"], json!({ "PID1": 1, "PID2": 2, "PID3": 2 }));
    let body = costs_of(
        "numerical",
        "tput",
        r#","endpoints":{"srcs":["ipv4:192.0.2.1"],"dsts":["ipv4:192.0.2.2"]}"#,
    );
    let costs =
        server.post("/endpointcost", COST_PARAMS, &body).await.of("application/alto-endpointcost+json");
    assert_eq!(costs["endpoint-cost-map"]["ipv4:192.0.2.1"]["ipv4:192.0.2.2"], 125_000_000);
    server.stop().await;
}

/// Section 8.3.6: what the client has is not sent again, until it changes.
#[tokio::test]
async fn entity_tags_save_what_did_not_change() {
    let server = Running::start(RFC).await;
    for path in ["/", NETWORK, &format!("{COSTS}/num-routingcost"), &format!("{COSTS}/ord-hopcount")] {
        let first = server.get(path).await;
        let etag = first.header("etag").unwrap().to_owned();
        assert_eq!(first.header("cache-control"), Some("no-cache"));
        let weak = format!("W/{etag}, \"other\"");
        for known in [etag.as_str(), &weak, "*"] {
            let again = ask(server.address, "GET", path, &[("If-None-Match", known)], b"").await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path} {known}");
            assert_eq!(again.header("etag"), Some(etag.as_str()));
        }
        let other = ask(server.address, "GET", path, &[("If-None-Match", "\"other\"")], b"").await;
        assert_eq!((other.status, &other.body), (200, &first.body));
        let head = ask(server.address, "HEAD", path, &[], b"").await;
        assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, Some(etag.as_str())));
    }
    server.stop().await;
}
