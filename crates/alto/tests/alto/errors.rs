//! What is wrong with a request: every ALTO error code with field and value (RFC 7285, section 8.5.2), and HTTP's own.

use crate::common::{RFC, Running, ask};

const MAP: &str = "/networkmap/my-default-network-map";
const COSTS: &str = "/costmap/my-default-network-map";
const PATHS: [(&str, &str); 5] = [
    (MAP, "application/alto-networkmapfilter+json"),
    (COSTS, "application/alto-costmapfilter+json"),
    ("/endpointprop", "application/alto-endpointpropparams+json"),
    ("/endpointcost", "application/alto-endpointcostparams+json"),
    ("/updates", "application/alto-updatestreamparams+json"),
];

/// Path, body, and the code, field and value that must come.
type Case<'a> = (&'a str, String, &'a str, Option<&'a str>, Option<&'a str>);

fn type_of(path: &str) -> &'static str {
    PATHS.iter().find(|(other, _)| *other == path).unwrap().1
}

#[tokio::test]
async fn every_code_comes_with_its_field_and_value() {
    let server = Running::start(RFC).await;
    let num = r#""cost-type":{"cost-mode":"numerical","cost-metric":"routingcost"}"#;
    let long = "p".repeat(65);
    let cases: Vec<Case<'_>> = vec![
        // Filtered network map.
        (MAP, "{}".into(), "E_MISSING_FIELD", Some("pids"), None),
        (MAP, r#"{"pids":"PID1"}"#.into(), "E_INVALID_FIELD_TYPE", Some("pids"), None),
        (MAP, r#"{"pids":null}"#.into(), "E_INVALID_FIELD_TYPE", Some("pids"), None),
        // An element of the wrong type is a wrong value, told as text, with the array's name.
        (MAP, r#"{"pids":["PID1",17]}"#.into(), "E_INVALID_FIELD_VALUE", Some("pids"), Some("17")),
        (MAP, r#"{"pids":[{"a":1}]}"#.into(), "E_INVALID_FIELD_VALUE", Some("pids"), Some(r#"{"a":1}"#)),
        (
            MAP,
            r#"{"pids":["no such#name"]}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("pids"),
            Some("no such#name"),
        ),
        (MAP, format!(r#"{{"pids":["{long}"]}}"#), "E_INVALID_FIELD_VALUE", Some("pids"), Some(&long)),
        (
            MAP,
            r#"{"pids":[],"address-types":"ipv4"}"#.into(),
            "E_INVALID_FIELD_TYPE",
            Some("address-types"),
            None,
        ),
        (
            MAP,
            r#"{"pids":[],"address-types":[4]}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("address-types"),
            Some("4"),
        ),
        // Filtered cost map.
        (COSTS, "{}".into(), "E_MISSING_FIELD", Some("cost-type"), None),
        (COSTS, r#"{"cost-type":"routingcost"}"#.into(), "E_INVALID_FIELD_TYPE", Some("cost-type"), None),
        (
            COSTS,
            r#"{"cost-type":{"cost-mode":"numerical"}}"#.into(),
            "E_MISSING_FIELD",
            Some("cost-type/cost-metric"),
            None,
        ),
        (
            COSTS,
            r#"{"cost-type":{"cost-metric":"routingcost"}}"#.into(),
            "E_MISSING_FIELD",
            Some("cost-type/cost-mode"),
            None,
        ),
        (
            COSTS,
            r#"{"cost-type":{"cost-mode":1,"cost-metric":"routingcost"}}"#.into(),
            "E_INVALID_FIELD_TYPE",
            Some("cost-type/cost-mode"),
            None,
        ),
        (
            COSTS,
            r#"{"cost-type":{"cost-mode":"foo","cost-metric":"routingcost"}}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("cost-type/cost-mode"),
            Some("foo"),
        ),
        (
            COSTS,
            r#"{"cost-type":{"cost-mode":"ordinal","cost-metric":"delay-rt"}}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("cost-type/cost-metric"),
            Some("delay-rt"),
        ),
        (
            COSTS,
            format!(r#"{{{num},"constraints":"gt 1"}}"#),
            "E_INVALID_FIELD_TYPE",
            Some("constraints"),
            None,
        ),
        (
            COSTS,
            format!(r#"{{{num},"constraints":["gt 1","ne 2"]}}"#),
            "E_INVALID_FIELD_VALUE",
            Some("constraints"),
            Some("ne 2"),
        ),
        (
            COSTS,
            format!(r#"{{{num},"constraints":[5]}}"#),
            "E_INVALID_FIELD_VALUE",
            Some("constraints"),
            Some("5"),
        ),
        (COSTS, format!(r#"{{{num},"pids":[]}}"#), "E_INVALID_FIELD_TYPE", Some("pids"), None),
        (COSTS, format!(r#"{{{num},"pids":{{"srcs":[]}}}}"#), "E_MISSING_FIELD", Some("pids/dsts"), None),
        (COSTS, format!(r#"{{{num},"pids":{{"dsts":[]}}}}"#), "E_MISSING_FIELD", Some("pids/srcs"), None),
        (
            COSTS,
            format!(r#"{{{num},"pids":{{"srcs":[true],"dsts":[]}}}}"#),
            "E_INVALID_FIELD_VALUE",
            Some("pids/srcs"),
            Some("true"),
        ),
        // Endpoint properties.
        ("/endpointprop", "{}".into(), "E_MISSING_FIELD", Some("properties"), None),
        (
            "/endpointprop",
            r#"{"properties":["my-default-network-map.pid"]}"#.into(),
            "E_MISSING_FIELD",
            Some("endpoints"),
            None,
        ),
        (
            "/endpointprop",
            r#"{"properties":[],"endpoints":["ipv4:192.0.2.1"]}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("properties"),
            Some("[]"),
        ),
        (
            "/endpointprop",
            r#"{"properties":["my-default-network-map.pid"],"endpoints":[]}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("endpoints"),
            Some("[]"),
        ),
        (
            "/endpointprop",
            r#"{"properties":["other.pid"],"endpoints":["ipv4:192.0.2.1"]}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("properties"),
            Some("other.pid"),
        ),
        (
            "/endpointprop",
            r#"{"properties":["my-default-network-map.pid"],"endpoints":["192.0.2.1"]}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("endpoints"),
            Some("192.0.2.1"),
        ),
        // Endpoint costs.
        ("/endpointcost", format!("{{{num}}}"), "E_MISSING_FIELD", Some("endpoints"), None),
        (
            "/endpointcost",
            format!(r#"{{{num},"endpoints":[]}}"#),
            "E_INVALID_FIELD_TYPE",
            Some("endpoints"),
            None,
        ),
        (
            "/endpointcost",
            format!(r#"{{{num},"endpoints":{{}}}}"#),
            "E_INVALID_FIELD_VALUE",
            Some("endpoints"),
            Some("{}"),
        ),
        (
            "/endpointcost",
            format!(r#"{{{num},"endpoints":{{"srcs":[],"dsts":[]}}}}"#),
            "E_INVALID_FIELD_VALUE",
            Some("endpoints"),
            Some(r#"{"dsts":[],"srcs":[]}"#),
        ),
        (
            "/endpointcost",
            format!(r#"{{{num},"endpoints":{{"srcs":["ipv4:300.1.1.1"]}}}}"#),
            "E_INVALID_FIELD_VALUE",
            Some("endpoints/srcs"),
            Some("ipv4:300.1.1.1"),
        ),
        (
            "/endpointcost",
            format!(r#"{{{num},"endpoints":{{"dsts":[7]}}}}"#),
            "E_INVALID_FIELD_VALUE",
            Some("endpoints/dsts"),
            Some("7"),
        ),
        // Update streams (RFC 8895, section 6.5).
        ("/updates", "{}".into(), "E_MISSING_FIELD", Some("add"), None),
        ("/updates", r#"{"add":[]}"#.into(), "E_INVALID_FIELD_TYPE", Some("add"), None),
        ("/updates", r#"{"add":{}}"#.into(), "E_INVALID_FIELD_VALUE", Some("add"), Some("{}")),
        (
            "/updates",
            r#"{"add":{"a/b":{"resource-id":"my-default-network-map"}}}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("add"),
            Some("a/b"),
        ),
        ("/updates", r#"{"add":{"a":{}}}"#.into(), "E_MISSING_FIELD", Some("add/a/resource-id"), None),
        (
            "/updates",
            r#"{"add":{"a":{"resource-id":"nothing"}}}"#.into(),
            "E_INVALID_FIELD_VALUE",
            Some("add/a/resource-id"),
            Some("nothing"),
        ),
        (
            "/updates",
            r#"{"add":{"a":{"resource-id":"my-default-network-map","tag":1}}}"#.into(),
            "E_INVALID_FIELD_TYPE",
            Some("add/a/tag"),
            None,
        ),
        (
            "/updates",
            r#"{"add":{"a":{"resource-id":"my-default-network-map","incremental-changes":"no"}}}"#.into(),
            "E_INVALID_FIELD_TYPE",
            Some("add/a/incremental-changes"),
            None,
        ),
    ];
    for (path, body, code, field, value) in cases {
        let (got, at, what) = server.post(path, type_of(path), &body).await.error();
        assert_eq!((got.as_str(), at.as_deref(), what.as_deref()), (code, field, value), "{path} {body}");
    }
    for (path, media_type) in PATHS {
        for body in ["", "{", "[]", "\"x\"", "{\"pids\":[}", "\u{0}"] {
            let answer = server.post(path, media_type, body).await;
            let (code, field, value) = answer.error();
            assert_eq!((code.as_str(), field, value), ("E_SYNTAX", None, None), "{path} {body}");
            assert!(!answer.json()["meta"]["syntax-error"].as_str().unwrap().is_empty());
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn constraints_are_refused_where_they_are_not_offered() {
    let server = Running::start(&format!("{RFC}[server]\ncost-constraints = false\n")).await;
    let directory = server.get("/").await.json();
    for (id, path, rest) in [
        ("my-default-network-map-costs-filtered", COSTS, ""),
        ("endpoint-cost", "/endpointcost", r#","endpoints":{"dsts":["ipv4:192.0.2.1"]}"#),
    ] {
        assert_eq!(directory["resources"][id]["capabilities"]["cost-constraints"], false);
        let num = r#""cost-type":{"cost-mode":"numerical","cost-metric":"routingcost"}"#;
        let body = format!(r#"{{{num},"constraints":["gt 1"]{rest}}}"#);
        let (code, field, _) = server.post(path, type_of(path), &body).await.error();
        assert_eq!(
            (code.as_str(), field.as_deref()),
            ("E_INVALID_FIELD_VALUE", Some("constraints")),
            "{path}"
        );
        assert_eq!(server.post(path, type_of(path), &format!("{{{num}{rest}}}")).await.status, 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn methods_types_and_sizes_that_do_not_fit() {
    let server = Running::start(RFC).await;
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        ask(server.address, method, path, headers, body).await
    };
    for path in ["/nothing", "/networkmap/other", "/costmap/my-default-network-map/num-other", "//"] {
        assert_eq!(ask("GET", path, &[], b"").await.status, 404, "{path}");
    }
    for (method, path, allow) in [
        ("PUT", "/directory", "GET, HEAD"),
        ("POST", "/directory", "GET, HEAD"),
        ("DELETE", MAP, "GET, HEAD, POST"),
        ("GET", COSTS, "POST"),
        ("GET", "/endpointcost", "POST"),
        ("POST", "/costmap/my-default-network-map/num-routingcost", "GET, HEAD"),
    ] {
        let answer = ask(method, path, &[], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
    assert_eq!(ask("OPTIONS", MAP, &[], b"").await.header("allow"), Some("GET, HEAD, POST"));
    // Accept.
    let errors_only = "application/alto-error+json";
    for (accept, status) in [
        ("application/alto-networkmap+json,application/alto-error+json", 200),
        ("APPLICATION/*;q=0.5", 200),
        ("text/html, */*;q=0.1", 200),
        (errors_only, 406),
        ("text/html", 406),
        ("application/alto-networkmap+json;q=0", 406),
    ] {
        assert_eq!(ask("GET", MAP, &[("Accept", accept)], b"").await.status, status, "{accept}");
        let headers = [("Accept", accept), ("Content-Type", type_of(MAP))];
        assert_eq!(ask("POST", MAP, &headers, br#"{"pids":[]}"#).await.status, status, "{accept}");
    }
    // Content-Type.
    for (path, media_type) in PATHS {
        for wrong in ["application/json", "text/plain", "application/alto-costmap+json"] {
            assert_eq!(
                ask("POST", path, &[("Content-Type", wrong)], b"{}").await.status,
                415,
                "{path} {wrong}"
            );
        }
        assert_eq!(ask("POST", path, &[], b"{}").await.status, 415, "{path}");
        let with_parameter = format!("{media_type}; charset=utf-8");
        assert_eq!(ask("POST", path, &[("Content-Type", &with_parameter)], b"{").await.status, 400, "{path}");
    }
    let too_long = vec![b' '; caudal_alto::server::REQUEST_LEN_MAX + 1];
    assert_eq!(ask("POST", MAP, &[("Content-Type", type_of(MAP))], &too_long).await.status, 413);
    server.stop().await;
}
