//! Names, media types, cost types and version tags (RFC 7285, sections 10 and 14; RFC 9439 for metrics).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::{Value, json};

/// Longest PID name and resource ID, characters (RFC 7285, section 10.1).
pub const NAME_LEN_MAX: usize = 64;
/// Longest cost metric, characters (section 10.6).
pub const METRIC_LEN_MAX: usize = 32;
/// Longest tag of a version, characters (section 10.3).
pub const TAG_LEN_MAX: usize = 64;

/// Media types (RFC 7285, section 14.1; RFC 8895, section 10; RFC 7396). None of them has parameters.
pub mod media {
    /// Information resource directory.
    pub const DIRECTORY: &str = "application/alto-directory+json";
    /// Network map, whole or filtered.
    pub const NETWORK_MAP: &str = "application/alto-networkmap+json";
    /// What a filtered network map is asked for with.
    pub const NETWORK_MAP_FILTER: &str = "application/alto-networkmapfilter+json";
    /// Cost map, whole or filtered.
    pub const COST_MAP: &str = "application/alto-costmap+json";
    /// What a filtered cost map is asked for with.
    pub const COST_MAP_FILTER: &str = "application/alto-costmapfilter+json";
    /// Endpoint properties.
    pub const ENDPOINT_PROP: &str = "application/alto-endpointprop+json";
    /// What endpoint properties are asked for with.
    pub const ENDPOINT_PROP_PARAMS: &str = "application/alto-endpointpropparams+json";
    /// Endpoint costs.
    pub const ENDPOINT_COST: &str = "application/alto-endpointcost+json";
    /// What endpoint costs are asked for with.
    pub const ENDPOINT_COST_PARAMS: &str = "application/alto-endpointcostparams+json";
    /// Errors.
    pub const ERROR: &str = "application/alto-error+json";
    /// An update stream.
    pub const EVENT_STREAM: &str = "text/event-stream";
    /// What an update stream is asked for with.
    pub const UPDATE_STREAM_PARAMS: &str = "application/alto-updatestreamparams+json";
    /// What a server says about an update stream in it.
    pub const UPDATE_STREAM_CONTROL: &str = "application/alto-updatestreamcontrol+json";
    /// A change to a resource, as a merge patch.
    pub const MERGE_PATCH: &str = "application/merge-patch+json";
}

/// Why a name, an address or a cost type is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// Not a PID name or resource ID.
    #[error("{0:?} is no name: 1 to 64 letters, digits and - : @ _ . are expected")]
    Name(String),
    /// Not a cost metric.
    #[error(
        "{0:?} is no cost metric: routingcost, hopcount, one of RFC 9439 (delay-rt, lossrate, tput, …) or priv:NAME"
    )]
    Metric(String),
    /// Not a cost mode.
    #[error("{0:?} is no cost mode: numerical or ordinal")]
    Mode(String),
    /// Not a typed endpoint address.
    #[error("{0:?} is no endpoint: ipv4:ADDRESS or ipv6:ADDRESS is expected")]
    Endpoint(String),
}

/// The name of a PID: a part of a network map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PidName(Arc<str>);

impl PidName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`TypeError::Name`] unless it obeys RFC 7285, section 10.1.
    pub fn new(text: &str) -> Result<Self, TypeError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(TypeError::Name(shortened(text))) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether `text` may name a PID or a resource.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:@_.".contains(&byte);
    (1..=NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// A version of a resource: which, and an opaque tag. Two are equal when both are, byte for byte (section 10.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionTag {
    /// The resource.
    pub resource_id: String,
    /// The tag.
    pub tag: String,
}

impl VersionTag {
    pub(crate) fn json(&self) -> Value {
        json!({ "resource-id": self.resource_id, "tag": self.tag })
    }
}

/// How costs are meant (section 10.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CostMode {
    /// One may calculate with them.
    Numerical,
    /// Only their order counts: lower is preferred.
    Ordinal,
}

impl CostMode {
    /// As in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Numerical => "numerical",
            Self::Ordinal => "ordinal",
        }
    }

    /// Reads a mode.
    ///
    /// # Errors
    /// [`TypeError::Mode`].
    pub fn parse(text: &str) -> Result<Self, TypeError> {
        match text {
            "numerical" => Ok(Self::Numerical),
            "ordinal" => Ok(Self::Ordinal),
            _ => Err(TypeError::Mode(shortened(text))),
        }
    }
}

/// What costs measure (section 10.6; RFC 9439, sections 3 to 5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metric(Arc<str>);

/// The metrics of RFC 7285 and RFC 9439: name, unit, and whether more is better.
const METRICS: &[(&str, &str, bool)] = &[
    ("routingcost", "", false),
    ("hopcount", "hops", false),
    ("delay-ow", "µs", false),
    ("delay-rt", "µs", false),
    ("delay-variation", "µs", false),
    ("lossrate", "%", false),
    ("tput", "byte/s", true),
    ("bw-residual", "byte/s", true),
    ("bw-available", "byte/s", true),
];
/// Statistics that may follow a metric of RFC 9439 after a colon; `p` and a number is a percentile.
const STATISTICS: [&str; 7] = ["cur", "min", "max", "median", "mean", "stddev", "stdvar"];

impl Metric {
    /// The metric that every server offers.
    pub fn routingcost() -> Self {
        Self("routingcost".into())
    }

    /// Checks a metric that is to be offered: a registered one, perhaps with a statistic (`delay-rt:p95`), or `priv:NAME`.
    ///
    /// # Errors
    /// [`TypeError::Metric`].
    pub fn new(text: &str) -> Result<Self, TypeError> {
        let (base, statistic) = text.split_once(':').map_or((text, None), |(base, rest)| (base, Some(rest)));
        let known = METRICS.iter().any(|(name, ..)| *name == base);
        let ok = match statistic {
            None => known,
            Some(rest) if base == "priv" => !rest.is_empty() && !rest.contains('.'),
            Some(rest) => known && base != "routingcost" && is_statistic(rest),
        };
        if ok { Self::read(text) } else { Err(TypeError::Metric(shortened(text))) }
    }

    /// Checks a metric that somebody else offers: any that is well formed.
    ///
    /// # Errors
    /// [`TypeError::Metric`].
    pub fn read(text: &str) -> Result<Self, TypeError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:_.".contains(&byte);
        let ok = (1..=METRIC_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if ok { Ok(Self(text.into())) } else { Err(TypeError::Metric(shortened(text))) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The unit, empty for a number without one.
    pub fn unit(&self) -> &'static str {
        self.known().map_or("", |(_, unit, _)| unit)
    }

    /// Whether a larger value is preferred, as for throughput.
    pub fn is_more_better(&self) -> bool {
        self.known().is_some_and(|(.., more)| *more)
    }

    /// Whether RFC 9439 defines it, so that the source of its values is told.
    pub fn is_performance(&self) -> bool {
        self.known().is_some_and(|(name, ..)| *name != "routingcost")
    }

    fn known(&self) -> Option<&'static (&'static str, &'static str, bool)> {
        let base = self.0.split(':').next()?;
        METRICS.iter().find(|(name, ..)| *name == base)
    }
}

fn is_statistic(text: &str) -> bool {
    let percentile = text.strip_prefix('p').and_then(|number| number.parse::<f64>().ok());
    STATISTICS.contains(&text) || percentile.is_some_and(|number| (0.0..=100.0).contains(&number))
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where the values of a performance metric come from (RFC 9439, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CostSource {
    /// Configured.
    Nominal,
    /// Promised.
    Sla,
    /// Measured or derived; what is assumed when nothing is said.
    Estimation,
}

impl CostSource {
    /// As in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nominal => "nominal",
            Self::Sla => "sla",
            Self::Estimation => "estimation",
        }
    }

    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Nominal, Self::Sla, Self::Estimation].into_iter().find(|source| source.as_str() == text)
    }
}

/// What costs measure, and how they are meant (section 10.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostType {
    /// What they measure.
    pub metric: Metric,
    /// How they are meant.
    pub mode: CostMode,
    /// Where they come from, if that is said.
    pub source: Option<CostSource>,
}

impl CostType {
    /// `routingcost` to calculate with: what a client usually wants.
    pub fn routingcost() -> Self {
        Self { metric: Metric::routingcost(), mode: CostMode::Numerical, source: None }
    }

    pub(crate) fn json(&self) -> Value {
        let mut json = json!({ "cost-mode": self.mode.as_str(), "cost-metric": self.metric.as_str() });
        if let Some(source) = self.source {
            json["cost-context"] = json!({ "cost-source": source.as_str() });
        }
        json
    }

    /// Reads one that somebody else wrote; `None` when it is none.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let metric = Metric::read(value.get("cost-metric")?.as_str()?).ok()?;
        let mode = CostMode::parse(value.get("cost-mode")?.as_str()?).ok()?;
        let source = value.get("cost-context").and_then(|context| context.get("cost-source"));
        Some(Self { metric, mode, source: source.and_then(Value::as_str).and_then(CostSource::parse) })
    }
}

/// Reads a typed endpoint address (section 10.4.1).
///
/// # Errors
/// [`TypeError::Endpoint`].
pub fn parse_endpoint(text: &str) -> Result<IpAddr, TypeError> {
    let address = match text.split_once(':') {
        Some(("ipv4", address)) => address.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
        Some(("ipv6", address)) => address.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        _ => None,
    };
    address.ok_or_else(|| TypeError::Endpoint(shortened(text)))
}

/// Writes a typed endpoint address.
pub fn endpoint(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("ipv4:{ip}"),
        IpAddr::V6(ip) => format!("ipv6:{ip}"),
    }
}

/// What is repeated of something wrong that may be long.
pub(crate) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A cost as JSON: whole numbers without a fraction.
pub(crate) fn push_number(out: &mut Vec<u8>, value: f64) {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    let _written = if value.fract() == 0.0 && value.abs() < 1e15 {
        write!(out, "{}", value as i64)
    } else {
        write!(out, "{value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_section_10() {
        for good in ["PID1", "a", "isp-a:b@c_d", "x.y", &"k".repeat(64)] {
            assert!(PidName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a#", "é", "a\"", &"k".repeat(65)] {
            assert!(PidName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metrics_are_registered_ones_with_a_statistic_or_private() {
        for good in
            ["routingcost", "delay-rt", "delay-rt:p95", "delay-ow:p99.9", "lossrate:max", "tput", "priv:x"]
        {
            assert!(Metric::new(good).is_ok(), "{good}");
        }
        for bad in ["", "cost", "priv:", "priv", "delay-rt:p101", "delay-rt:often", "routingcost:min", "a b"]
        {
            assert!(Metric::new(bad).is_err(), "{bad}");
        }
        let metric = |text| Metric::new(text).unwrap();
        assert_eq!(metric("delay-rt:p95").unit(), "µs");
        assert!(metric("tput:mean").is_more_better() && !metric("lossrate").is_more_better());
    }

    #[test]
    fn endpoints_are_typed() {
        assert_eq!(parse_endpoint("ipv4:192.0.2.1"), Ok("192.0.2.1".parse().unwrap()));
        assert_eq!(parse_endpoint("ipv6:2001:db8::1"), Ok("2001:db8::1".parse().unwrap()));
        for bad in
            ["192.0.2.1", "ipv4:2001:db8::1", "ipv6:192.0.2.1", "ipv4:192.0.2.1/32", "mac:1", "ipv4:", ""]
        {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
        let ip = "2001:db8::1".parse().unwrap();
        assert_eq!(parse_endpoint(&endpoint(ip)), Ok(ip));
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        let text = |value| {
            let mut out = Vec::new();
            push_number(&mut out, value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!([text(1.0), text(0.5), text(-0.0), text(20_000.0)], ["1", "0.5", "0", "20000"]);
        for value in [1e300, 1e-300, 123_456.789, 1e15] {
            let read: f64 = serde_json::from_str(&text(value)).unwrap();
            assert!((read - value).abs() <= value * 1e-12, "{value}");
        }
    }
}
