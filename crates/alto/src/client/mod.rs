//! Asking ALTO servers: directories, maps, costs, and maps as they change.
//!
//! | module | owns |
//! |---|---|
//! | `transport` | HTTP and TLS, limits, waiting as long as a server asks for |
//! | `directory` | what a server offers |
//! | `events` | lines of an update stream to events |
//! | `follow` | the newest maps, kept through outages |
//!
//! A client fetches whole maps and looks up in them itself: a server that is asked about each peer would learn who talks with
//! whom. What a server says is bounded before it is read, and of the type that was asked for.

mod directory;
mod events;
mod follow;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use url::{Host, Url};

pub use directory::{Directory, Resource};
pub use events::EVENT_LEN_MAX;
pub use follow::{FollowOptions, Follower, SILENCE_MAX, STALE_AFTER};
pub use transport::{ANSWER_LEN_MAX, BODY_TIMEOUT, TIMEOUT};

use crate::map::{CostMap, MapError, NetworkMap, PidIndex};
use crate::types::{CostMode, CostType, Metric, PidName, endpoint, media};
use transport::Fetched;

/// Most directories that are read of one server: the root and those that it leads to.
pub const DIRECTORIES_MAX: usize = 8;
/// How often maps are fetched again because they do not fit each other.
const REFETCHES_MAX: u32 = 3;

/// Why a server gave no answer, or not the wanted one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Not an address of a server.
    #[error(
        "{url:?} is not the address of an ALTO server ({why}); http://HOST:PORT/ or https://HOST/ is expected"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection.
    #[error("{url} cannot be reached ({why}); check the address and this computer's network")]
    Unreachable {
        /// What was asked for.
        url: Box<Url>,
        /// The cause.
        why: String,
    },
    /// No answer in time.
    #[error("{url} did not answer in time")]
    Timeout {
        /// What was asked for.
        url: Box<Url>,
    },
    /// An ALTO error (RFC 7285, section 8.5).
    #[error("{url} refused: {code}{}{}", in_field(field), with_value(value))]
    Alto {
        /// What was asked for.
        url: Box<Url>,
        /// The code, such as `E_INVALID_FIELD_VALUE`.
        code: String,
        /// The field that is wrong.
        field: Option<String>,
        /// Its value, or what is wrong with the request's syntax.
        value: Option<String>,
    },
    /// Another refusal.
    #[error("{url} answered with status {status}{}", said(message))]
    Status {
        /// What was asked for.
        url: Box<Url>,
        /// The HTTP status.
        status: u16,
        /// The server's words.
        message: String,
        /// How long to wait before asking again, if the server said so.
        retry_after: Option<Duration>,
    },
    /// The answer is of another type than what was asked for (section 8.3.4.2).
    #[error("{url} gave {got:?} where {expected} is expected; is it the address of an ALTO server?")]
    MediaType {
        /// What was asked for.
        url: Box<Url>,
        /// The type that was asked for.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// An answer that is none.
    #[error("{url} answered with what is not ALTO: {why}")]
    BadAnswer {
        /// What was asked for.
        url: Box<Url>,
        /// What is wrong.
        why: String,
    },
    /// The server does not offer it.
    #[error("{url} does not offer {what}")]
    NotOffered {
        /// The directory.
        url: Box<Url>,
        /// What is not there.
        what: String,
    },
    /// Cost map and network map are of different versions, again and again.
    #[error("{url} gives a cost map for another version of its network map, also when asked again")]
    Mismatch {
        /// The cost map.
        url: Box<Url>,
    },
    /// The server leads to where it may not.
    #[error("{url} is not asked: the server may not lead there")]
    Forbidden {
        /// What would have been asked for.
        url: Box<Url>,
    },
    /// This machine cannot do TLS.
    #[error("TLS cannot be set up: {why}")]
    Tls {
        /// The cause.
        why: String,
    },
}

fn in_field(field: &Option<String>) -> String {
    field.as_ref().map_or_else(String::new, |field| format!(" in {field}"))
}

fn with_value(value: &Option<String>) -> String {
    value.as_ref().map_or_else(String::new, |value| format!(" ({value})"))
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl ClientError {
    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Which addresses a client may connect to.
#[derive(Clone)]
pub struct AddressRule(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl AddressRule {
    /// Those for which `allows` holds; it is asked about canonical ones (no IPv4-mapped form).
    pub fn new(allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allows))
    }

    fn allows(&self, ip: IpAddr) -> bool {
        (self.0)(ip.to_canonical())
    }

    /// Whether `url` may be asked for, as far as its host says: a name is looked at when it is resolved.
    fn allows_url(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(ip)) => self.allows(ip.into()),
            Some(Host::Ipv6(ip)) => self.allows(ip.into()),
            Some(Host::Domain(_)) => true,
            None => false,
        }
    }
}

impl std::fmt::Debug for AddressRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressRule")
    }
}

/// How a client asks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Certificates (PEM) of authorities to trust instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// A server that asks to come again within so long is waited for.
    pub wait_max: Duration,
    /// Which addresses may be connected to; all unless there is a rule. It holds for whatever the server leads to: what its
    /// names resolve to, redirects, and the resources of its directory, which must not lead from https to http either.
    pub addresses: Option<AddressRule>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { authorities: None, wait_max: Duration::from_secs(10), addresses: None }
    }
}

impl ClientOptions {
    /// Trusts these authorities (PEM) instead of the system's.
    #[must_use]
    pub fn with_authorities(self, pem: Vec<u8>) -> Self {
        Self { authorities: Some(pem), ..self }
    }

    /// Waits at most so long for a server that is busy.
    #[must_use]
    pub fn with_wait_max(self, wait_max: Duration) -> Self {
        Self { wait_max, ..self }
    }

    /// Connects only to addresses that `rule` allows.
    #[must_use]
    pub fn with_addresses(self, rule: AddressRule) -> Self {
        Self { addresses: Some(rule), ..self }
    }
}

/// A client of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AltoClient {
    url: Url,
    http: Client,
    wait_max: Duration,
    addresses: Option<AddressRule>,
}

/// The maps of one moment, which fit each other. Looking up is two tries and one table.
#[derive(Debug, Clone)]
pub struct Snapshot {
    network: Arc<NetworkMap>,
    costs: Vec<Arc<CostMap>>,
}

impl Snapshot {
    /// These maps; `None` when a cost map is for another network map.
    pub fn new(network: Arc<NetworkMap>, costs: Vec<Arc<CostMap>>) -> Option<Self> {
        let fit = costs.iter().all(|costs| Arc::ptr_eq(costs.network(), &network));
        fit.then_some(Self { network, costs })
    }

    /// The network map.
    pub fn network(&self) -> &Arc<NetworkMap> {
        &self.network
    }

    /// The cost maps, in the order in which their metrics were asked for.
    pub fn costs(&self) -> &[Arc<CostMap>] {
        &self.costs
    }

    /// The PID of an address.
    pub fn pid(&self, ip: IpAddr) -> Option<&PidName> {
        self.network.pid_of(ip).map(|index| self.network.name(index))
    }

    /// The cost from one address to another by the first metric; `None` where the map says nothing.
    pub fn cost(&self, src: IpAddr, dst: IpAddr) -> Option<f64> {
        self.costs.first()?.between(src, dst)
    }

    /// The cost by that metric.
    pub fn cost_by(&self, metric: &Metric, src: IpAddr, dst: IpAddr) -> Option<f64> {
        self.costs.iter().find(|costs| costs.cost_type().metric == *metric)?.between(src, dst)
    }

    /// The network that an address is in, as far as the map knows it. What only the rest of the world holds, a prefix of length
    /// 0, is in no network that is known.
    pub fn known_pid(&self, ip: IpAddr) -> Option<PidIndex> {
        let (index, prefix) = self.network.longest_match(ip)?;
        (prefix.prefix_len() > 0).then_some(index)
    }

    /// Whether both are of the same versions.
    pub fn is_same(&self, other: &Self) -> bool {
        self.network.vtag() == other.network.vtag()
            && self.costs.iter().map(|costs| costs.tag()).eq(other.costs.iter().map(|costs| costs.tag()))
    }
}

/// The costs between endpoints, by source and destination as the server wrote them.
pub type EndpointCosts = BTreeMap<String, BTreeMap<String, f64>>;

impl AltoClient {
    /// A client of the server whose directory is at `url`. Connects when first asked.
    ///
    /// # Errors
    /// [`ClientError::Url`], or [`ClientError::Tls`] when TLS cannot be set up.
    pub fn new(url: &str, options: &ClientOptions) -> Result<Self, ClientError> {
        let wrong = |why: String| ClientError::Url { url: crate::types::shortened(url), why };
        let parsed: Url = url.parse().map_err(|error: url::ParseError| wrong(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host().is_none() {
            return Err(wrong("neither http nor https".to_owned()));
        }
        let http = transport::client(options)?;
        Ok(Self { url: parsed, http, wait_max: options.wait_max, addresses: options.addresses.clone() })
    }

    /// Whether the server may lead there.
    fn check(&self, url: &Url) -> Result<(), ClientError> {
        let Some(rule) = &self.addresses else { return Ok(()) };
        let is_downgrade = self.url.scheme() == "https" && url.scheme() != "https";
        if is_downgrade || !rule.allows_url(url) {
            return Err(ClientError::Forbidden { url: Box::new(url.clone()) });
        }
        Ok(())
    }

    /// The directory's address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// What the server offers: its root directory and those that it leads to (section 8.3.1).
    ///
    /// # Errors
    /// [`ClientError`]; directories beside the root that cannot be read are passed over.
    pub async fn directory(&self) -> Result<Directory, ClientError> {
        let bytes = self.get(&self.url, media::DIRECTORY).await?;
        let mut root = Directory::read(&self.url, &bytes)?;
        let mut seen = BTreeSet::from([self.url.clone()]);
        let mut next: Vec<Url> = root.more().collect();
        while let Some(url) = next.pop() {
            if seen.len() == DIRECTORIES_MAX || !seen.insert(url.clone()) {
                continue;
            }
            let read = self.get(&url, media::DIRECTORY).await.and_then(|bytes| Directory::read(&url, &bytes));
            match read {
                Ok(directory) => {
                    next.extend(directory.more());
                    root.add(directory);
                }
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(root)
    }

    /// A network map: the one of that resource ID, or the default one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn network_map(
        &self,
        directory: &Directory,
        id: Option<&str>,
    ) -> Result<NetworkMap, ClientError> {
        let resource = directory.network_map(id)?;
        let bytes = self.get(&resource.url, media::NETWORK_MAP).await?;
        NetworkMap::read(&bytes).map_err(|error| bad_map(&resource.url, &error))
    }

    /// A network map and cost maps that fit each other; fetched again when they do not (section 11.3.2.6).
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Mismatch`] when they never fit.
    pub async fn maps(
        &self,
        directory: &Directory,
        id: Option<&str>,
        metrics: &[Metric],
    ) -> Result<Snapshot, ClientError> {
        let network = directory.network_map(id)?;
        let costs = metrics.iter().map(|metric| directory.cost_map(&network.id, metric));
        let costs: Vec<_> = costs.collect::<Result<_, _>>()?;
        Ok(self.tagged_maps(network, &costs).await?.0)
    }

    /// The same with the entity tag of each, where the server gave one.
    async fn tagged_maps(
        &self,
        network: &Resource,
        wanted: &[(&Resource, CostType)],
    ) -> Result<(Snapshot, Vec<Option<String>>), ClientError> {
        let mut round = 0;
        'again: loop {
            let (bytes, tag) =
                whole(&network.url, self.fetch(&network.url, media::NETWORK_MAP, None).await?)?;
            let map = Arc::new(NetworkMap::read(&bytes).map_err(|error| bad_map(&network.url, &error))?);
            let (mut costs, mut tags) = (Vec::new(), vec![tag]);
            for (resource, cost_type) in wanted {
                let (bytes, tag) = self.costs(resource, cost_type).await?;
                let read = CostMap::read_any(&bytes, &map).map_err(|error| bad_map(&resource.url, &error))?;
                if read.depends_on != *map.vtag() {
                    round += 1;
                    if round > REFETCHES_MAX {
                        return Err(ClientError::Mismatch { url: Box::new(resource.url.clone()) });
                    }
                    continue 'again;
                }
                costs.push(read.map);
                tags.push(tag);
            }
            return Ok((Snapshot { network: map, costs }, tags));
        }
    }

    /// A whole cost map's bytes, by GET, or by POST where only filtered ones are offered.
    async fn costs(
        &self,
        resource: &Resource,
        cost_type: &CostType,
    ) -> Result<(Vec<u8>, Option<String>), ClientError> {
        if resource.accepts.is_none() {
            return whole(&resource.url, self.fetch(&resource.url, media::COST_MAP, None).await?);
        }
        let body = json!({ "cost-type": cost_type.json(), "pids": { "srcs": [], "dsts": [] } });
        let bytes = self.post(&resource.url, media::COST_MAP_FILTER, media::COST_MAP, &body).await?;
        Ok((bytes, None))
    }

    /// Costs between endpoints, as the server sees them. Tells the server who asks about whom.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn endpoint_costs(
        &self,
        directory: &Directory,
        cost_type: &CostType,
        srcs: &[IpAddr],
        dsts: &[IpAddr],
    ) -> Result<EndpointCosts, ClientError> {
        let resource = directory.find(media::ENDPOINT_COST, "endpoint costs", |resource| {
            resource.cost_types.iter().any(|offered| offered.is_like(cost_type))
        })?;
        let list = |ips: &[IpAddr]| ips.iter().copied().map(endpoint).collect::<Vec<_>>();
        let body = json!({
            "cost-type": cost_type.json(),
            "endpoints": { "srcs": list(srcs), "dsts": list(dsts) },
        });
        let bytes =
            self.post(&resource.url, media::ENDPOINT_COST_PARAMS, media::ENDPOINT_COST, &body).await?;
        read_endpoint_costs(&bytes)
            .map_err(|why| ClientError::BadAnswer { url: Box::new(resource.url.clone()), why })
    }

    /// The PID of each endpoint, as the server sees it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn endpoint_pids(
        &self,
        directory: &Directory,
        map: Option<&str>,
        endpoints: &[IpAddr],
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let property = format!("{}.pid", directory.network_map(map)?.id);
        let resource = directory.find(media::ENDPOINT_PROP, "endpoint properties", |resource| {
            resource.prop_types.contains(&property)
        })?;
        let list: Vec<String> = endpoints.iter().copied().map(endpoint).collect();
        let body = json!({ "properties": [&property], "endpoints": list });
        let bytes =
            self.post(&resource.url, media::ENDPOINT_PROP_PARAMS, media::ENDPOINT_PROP, &body).await?;
        read_properties(&bytes, &property)
            .map_err(|why| ClientError::BadAnswer { url: Box::new(resource.url.clone()), why })
    }

    async fn get(&self, url: &Url, media_type: &'static str) -> Result<Vec<u8>, ClientError> {
        Ok(whole(url, self.fetch(url, media_type, None).await?)?.0)
    }

    async fn fetch(
        &self,
        url: &Url,
        media_type: &'static str,
        etag: Option<&str>,
    ) -> Result<Fetched, ClientError> {
        self.check(url)?;
        transport::exchange(self.wait_max, url, media_type, || {
            let request = self.http.get(url.clone()).header("accept", transport::accept(media_type));
            match etag {
                Some(etag) => request.header("if-none-match", etag),
                None => request,
            }
        })
        .await
    }

    async fn post(
        &self,
        url: &Url,
        sent: &'static str,
        media_type: &'static str,
        body: &Value,
    ) -> Result<Vec<u8>, ClientError> {
        self.check(url)?;
        let body = body.to_string();
        let fetched = transport::exchange(self.wait_max, url, media_type, || {
            let request = self.http.post(url.clone()).header("accept", transport::accept(media_type));
            request.header("content-type", sent).body(body.clone())
        });
        Ok(whole(url, fetched.await?)?.0)
    }
}

/// Bytes and entity tag of an answer that was not asked about before.
fn whole(url: &Url, fetched: Fetched) -> Result<(Vec<u8>, Option<String>), ClientError> {
    match fetched {
        Fetched::Whole { bytes, etag } => Ok((bytes, etag)),
        Fetched::Same => {
            Err(ClientError::BadAnswer { url: Box::new(url.clone()), why: "status 304 unasked".to_owned() })
        }
    }
}

impl CostType {
    /// Whether two are the same but for where the values come from.
    fn is_like(&self, other: &Self) -> bool {
        self.metric == other.metric && self.mode == other.mode
    }

    /// Whether a client that wants `metric` can use it.
    fn suits(&self, metric: &Metric, mode: CostMode) -> bool {
        self.metric == *metric && self.mode == mode
    }
}

fn bad_map(url: &Url, error: &MapError) -> ClientError {
    ClientError::BadAnswer { url: Box::new(url.clone()), why: error.to_string() }
}

/// Reads an answer with endpoint costs (section 11.5.1.6).
///
/// # Errors
/// What is wrong with it.
pub fn read_endpoint_costs(json: &[u8]) -> Result<EndpointCosts, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(rename = "endpoint-cost-map")]
        costs: EndpointCosts,
    }
    serde_json::from_slice::<Answer>(json).map(|answer| answer.costs).map_err(|error| error.to_string())
}

/// Reads one property of an answer with endpoint properties (section 11.4.1.6).
///
/// # Errors
/// What is wrong with it.
pub fn read_properties(json: &[u8], property: &str) -> Result<BTreeMap<String, String>, String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(rename = "endpoint-properties")]
        properties: BTreeMap<String, BTreeMap<String, String>>,
    }
    let answer: Answer = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let own = answer.properties.into_iter();
    Ok(own.filter_map(|(endpoint, mut all)| Some((endpoint, all.remove(property)?))).collect())
}
