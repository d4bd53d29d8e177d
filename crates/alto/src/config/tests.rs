use super::*;
use crate::types::{CostSource, Metric};

const ISSUE: &str = r#"[pids]
isp-a = ["203.0.113.0/24", "2001:db8:a::/48"]
isp-b = ["198.51.100.0/24"]
default = ["0.0.0.0/0", "::/0"]
[costs]
same = 1
peering = 5
transit = 20
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/alto"))
}

fn cost(map: &CostMap, src: &str, dst: &str) -> Option<f64> {
    map.get(map.network().index(src).unwrap(), map.network().index(dst).unwrap())
}

#[test]
fn the_smallest_file_gives_a_map_and_costs() {
    let config = parse(ISSUE).unwrap();
    assert_eq!(config.maps.len(), 1);
    let costs = &config.maps[0].costs[0];
    assert_eq!(cost(costs, "isp-a", "isp-a"), Some(1.0));
    assert_eq!(cost(costs, "isp-a", "isp-b"), Some(20.0));
    assert_eq!(config.maps[0].network.vtag().resource_id, "network");
    assert_eq!(config.server, ServerConfig::default());
}

#[test]
fn peerings_tables_metrics_and_more_maps() {
    let text = format!(
        r#"map = "isps"
[server]
cost-constraints = false
trusted-proxies = ["127.0.0.1"]
tls-certificate = "cert.pem"
tls-key = "/keys/key.pem"
{ISSUE}peerings = [["isp-a", "isp-b"]]
[costs.table]
isp-a.default = 7.5
[metrics."delay-rt:p95"]
source = "sla"
table.isp-a.isp-b = 25000
[metrics.lossrate]
transit = 0.5
[maps.coarse.pids]
everybody = ["0.0.0.0/0"]
[maps.coarse.costs]
same = 1
"#
    );
    let config = parse(&text).unwrap();
    let isps = &config.maps[0];
    assert_eq!(isps.network.vtag().resource_id, "isps");
    assert_eq!(cost(&isps.costs[0], "isp-a", "isp-b"), Some(5.0));
    assert_eq!(cost(&isps.costs[0], "isp-b", "isp-a"), Some(5.0));
    assert_eq!(cost(&isps.costs[0], "isp-a", "default"), Some(7.5));
    assert_eq!(cost(&isps.costs[0], "default", "isp-a"), Some(20.0));
    let delay = &isps.costs[1];
    assert_eq!(delay.cost_type().metric, Metric::new("delay-rt:p95").unwrap());
    assert_eq!(delay.cost_type().source, Some(CostSource::Sla));
    assert_eq!((cost(delay, "isp-a", "isp-b"), cost(delay, "isp-a", "isp-a")), (Some(25_000.0), None));
    assert_eq!(cost(&isps.costs[2], "isp-a", "isp-b"), Some(0.5));
    assert_eq!(config.maps[1].network.vtag().resource_id, "coarse");
    assert!(!config.server.cost_constraints);
    let tls = config.server.tls.unwrap();
    assert_eq!((tls.certificate, tls.key), ("/etc/alto/cert.pem".into(), "/keys/key.pem".into()));
}

/// Each wrong file, the line that is named, and a word of what is said.
#[test]
fn what_is_wrong_is_named_with_its_line() {
    let cases: &[(&str, usize, &str)] = &[
        (
            "[pids]\na = [\"0.0.0.0/0\"]\nb = [\"10.0.0.0/8\"]\nc = [\"10.0.0.0/8\"]\n[costs]\nsame = 1",
            4,
            "in b too, on line 3",
        ),
        (
            "[pids]\na = [\n \"0.0.0.0/0\",\n \"10.0.0.0/8\",\n \"10.0.0.0/8\",\n]\n[costs]\nsame = 1",
            5,
            "on line 4 too",
        ),
        ("\n\n[pids]\na = [\"10.0.0.0/8\", \"::/0\"]\n[costs]\nsame = 1", 3, "default = [\"0.0.0.0/0\"]"),
        ("[pids]\na = [\"0.0.0.0/0\", \"2001:db8::/32\"]\n[costs]\nsame = 1", 1, "::/0"),
        ("[pids]\na = [\"0.0.0.0/0\",\n  \"192.0.2.1/24\"]\n[costs]\nsame = 1", 3, "was 192.0.2.0/24 meant"),
        ("[pids]\na = [\"0.0.0.0/0\",\n  \"here\"]\n[costs]\nsame = 1", 3, "is no prefix"),
        ("[pids]\na = [\"0.0.0.0/0\",\n  7]\n[costs]\nsame = 1", 3, "in quotes"),
        ("[pids]\na = \"0.0.0.0/0\"\n[costs]\nsame = 1", 2, "list in brackets"),
        ("[pids]\n\"a b\" = [\"0.0.0.0/0\"]\n[costs]\nsame = 1", 2, "cannot name a PID"),
        ("[pids]\n\"a.b\" = [\"0.0.0.0/0\"]\n[costs]\nsame = 1", 2, "dots"),
        ("[pids]\na = []\n[costs]\nsame = 1", 1, "no prefix"),
        ("[costs]\nsame = 1", 1, "no [pids]"),
        ("[pids]\na = [\"0.0.0.0/0\"]", 1, "no [costs]"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\n", 3, "gives no cost"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = -1", 4, "number from 0"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = \"1\"", 4, "number from 0"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = inf", 4, "number from 0"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\ntransitt = 2", 5, "costs.transitt"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\npeerings = [[\"a\",\n\"z\"]]", 6, "no PID \"z\""),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\n[costs.table]\nz.a = 1", 6, "no PID \"z\""),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\n[metrics.speed]\nsame = 1", 5, "no cost metric"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\n[metrics.lossrate]\nsame = 101", 5, "percentage"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\n[metrics.tput]\nsource = \"x\"", 6, "no source"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\n[maps.network.pids]\na = [\"::/0\"]", 5, "already"),
        ("map = \"a b\"\n[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1", 1, "cannot name a map"),
        ("[pids]\na = [\"0.0.0.0/0\"]\n[costs]\nsame = 1\n[server]\ntls-key = \"k\"", 6, "tls-certificate"),
        ("[pids]\na = [\"0.0.0.0/0\"\n[costs]\nsame = 1", 3, ""),
        ("pids = 7", 1, "table"),
        ("[pids]\na = [\"0.0.0.0/0\"]\na = [\"::/0\"]\n[costs]\nsame = 1", 3, "duplicate"),
    ];
    for (text, line, word) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.line == *line && error.what.contains(word), "{text}\ngives {error}");
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let text = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&text).is_err());
    let text = format!("[{}a]", "a.".repeat(100_000));
    assert!(parse(&text).is_err());
}

#[test]
fn a_cost_map_that_nobody_could_read_is_refused() {
    let file = |length: usize| {
        let pids: String = (0..1500).map(|n| format!("{}{n:04} = []\n", "p".repeat(length))).collect();
        format!("[costs]\nsame = 1\n[pids]\ndefault = [\"0.0.0.0/0\"]\n{pids}")
    };
    assert!(parse(&file(4)).is_ok());
    let error = parse(&file(50)).unwrap_err();
    assert!(error.line == 3 && error.what.contains("64 MiB"), "{error}");
}
