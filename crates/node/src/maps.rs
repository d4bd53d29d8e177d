//! Maps of the network (ALTO, RFC 7285), as this node sees them: which are followed, and where in them it is.
//!
//! Whole maps are fetched and looked up here: a server that was asked about each peer would learn who talks with whom. One
//! follower for each server and process, however many channels are open. What a map says is advice; a stale one says nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use caudal_alto::client::{
    AddressRule, AltoClient, ClientError, ClientOptions, FollowOptions, Follower, Snapshot,
};
use caudal_proto::addr::{Class, classify};
use caudal_proto::swarm::{NetworkMap, PathCost, SwarmStats};
use caudal_tracker::url::{AltoUrl, TrackerUrl};

use crate::report::NetworkReport;

/// Most servers that are followed at a time.
pub const SERVERS_MAX: usize = 4;
/// A tracker that names another map sooner is not followed there: it must not lead all its viewers from server to server.
const CHANGE_MIN: Duration = Duration::from_secs(60);
/// A server that a tracker named is asked again after so long where it has no update stream …
const POLL_TOLD: Duration = Duration::from_secs(300);
/// … and when it does not answer, after so long at first and at last: it may never have asked for company.
const RETRY_TOLD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));

/// Which map a person wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MapChoice {
    /// The one that the tracker names.
    #[default]
    Told,
    /// None.
    Off,
    /// That of the server at this address, wherever it is.
    Server(String),
}

/// A server, and how far it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Server {
    Typed(String),
    Told(AltoUrl),
}

/// The maps that this process follows.
#[derive(Debug)]
pub struct Maps {
    choice: MapChoice,
    /// Dead once no session looks at it.
    followed: Mutex<Vec<(Server, Weak<Follower>)>>,
}

impl Maps {
    /// Follows nobody yet.
    ///
    /// # Errors
    /// When the chosen server's address is none.
    pub fn new(choice: MapChoice) -> Result<Arc<Self>, ClientError> {
        if let MapChoice::Server(url) = &choice {
            AltoClient::new(url, &ClientOptions::default())?;
        }
        Ok(Arc::new(Self { choice, followed: Mutex::default() }))
    }

    /// The follower of that server, also when another session began it. None when [`SERVERS_MAX`] are followed already.
    fn follow(&self, server: &Server) -> Option<Arc<Follower>> {
        let mut followed = lock(&self.followed);
        followed.retain(|(_, follower)| follower.strong_count() > 0);
        let there = followed.iter().find(|(other, _)| other == server);
        if let Some(follower) = there.and_then(|(_, follower)| follower.upgrade()) {
            return Some(follower);
        }
        if followed.len() >= SERVERS_MAX {
            tracing::warn!("the maps of {SERVERS_MAX} servers are followed already; another is not");
            return None;
        }
        let (url, options, waits) = match server {
            Server::Typed(url) => (url.as_str(), ClientOptions::default(), FollowOptions::default()),
            Server::Told(url) => {
                let reach = url.reach();
                let rule = AddressRule::new(move |ip| reach.allows(ip));
                let waits = FollowOptions::default().with_waits(POLL_TOLD, RETRY_TOLD.0, RETRY_TOLD.1);
                (url.as_str(), ClientOptions::default().with_addresses(rule), waits)
            }
        };
        let client = AltoClient::new(url, &options);
        let client = client.inspect_err(|error| tracing::warn!("{error}; going on without a map")).ok()?;
        let follower = Arc::new(Follower::start(client, waits));
        followed.push((server.clone(), Arc::downgrade(&follower)));
        Some(follower)
    }
}

/// Where a session's node is, and in which map.
#[derive(Debug)]
pub struct Vantage {
    maps: Arc<Maps>,
    /// This node's own addresses.
    local: Vec<SocketAddr>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    server: Option<Server>,
    follower: Option<Arc<Follower>>,
    /// The tracker that named the server.
    by: Option<TrackerUrl>,
    /// When another server was chosen.
    chosen: Option<Instant>,
    /// Where a tracker last saw this node.
    seen: Option<IpAddr>,
    /// The network since when shares are counted, and the counters then.
    since: Option<(String, Counters)>,
}

/// What came and went, in all and within the own network.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    received: u64,
    received_inside: u64,
    sent: u64,
    sent_inside: u64,
}

impl Counters {
    fn of(stats: &SwarmStats) -> Self {
        Self {
            received: stats.useful_bytes,
            received_inside: stats.useful_bytes_own_pid,
            sent: stats.bytes_out,
            sent_inside: stats.bytes_out_own_pid,
        }
    }
}

impl Vantage {
    /// Looks at the chosen map, or at none until a tracker names one. Needs a tokio runtime.
    pub fn new(maps: Arc<Maps>, local: Vec<SocketAddr>) -> Arc<Self> {
        let mut inner = Inner::default();
        if let MapChoice::Server(url) = &maps.choice {
            let server = Server::Typed(url.clone());
            inner.follower = maps.follow(&server);
            inner.server = Some(server);
        }
        Arc::new(Self { maps, local, inner: Mutex::new(inner) })
    }

    /// For the engine.
    pub fn network_map(self: &Arc<Self>) -> Box<dyn NetworkMap> {
        Box::new(View(Arc::clone(self)))
    }

    /// A tracker says where the map is, or that there is none.
    pub fn told(&self, tracker: &TrackerUrl, alto: Option<AltoUrl>) {
        let mut inner = lock(&self.inner);
        let is_others = inner.by.as_ref().is_some_and(|by| by != tracker);
        if self.maps.choice != MapChoice::Told || is_others {
            return;
        }
        let server = alto.map(Server::Told);
        if server == inner.server || inner.chosen.is_some_and(|at| at.elapsed() < CHANGE_MIN) {
            return;
        }
        inner.follower = server.as_ref().and_then(|server| self.maps.follow(server));
        inner.by = server.as_ref().map(|_| tracker.clone());
        inner.server = server;
        inner.chosen = Some(Instant::now());
    }

    /// A tracker says from which address this node asks.
    pub fn seen_as(&self, ip: IpAddr) {
        lock(&self.inner).seen = Some(ip.to_canonical());
    }

    /// A fresh map, and where this node is.
    fn look(&self) -> Option<(Arc<Snapshot>, IpAddr)> {
        let inner = lock(&self.inner);
        let snapshot = inner.follower.as_ref()?.fresh()?;
        Some((snapshot, own_address(inner.seen, &self.local)?))
    }

    /// The name of this node's own network, where the map knows it.
    pub fn pid(&self) -> Option<String> {
        let (snapshot, own) = self.look()?;
        let pid = snapshot.known_pid(own)?;
        Some(snapshot.network().name(pid).to_string())
    }

    fn cost(&self, ip: IpAddr) -> Option<PathCost> {
        let (snapshot, own) = self.look()?;
        let (from, ip) = (snapshot.known_pid(own)?, ip.to_canonical());
        let is_own = snapshot.known_pid(ip) == Some(from);
        let cost = match snapshot.cost(own, ip) {
            // What is larger than there is room for is as far away as can be said.
            Some(cost) => (cost * 1000.0).round() as u32,
            None if is_own => 0,
            None => return None,
        };
        Some(PathCost { cost, is_own })
    }

    /// The own network and what stays inside, for a report. Shares are counted from when the network was first known.
    pub(crate) fn report(&self, stats: &SwarmStats) -> NetworkReport {
        let pid = self.pid();
        let mut inner = lock(&self.inner);
        let map_age_ms = inner.follower.as_ref().and_then(|follower| follower.age());
        let map_age_ms = map_age_ms.map(|age| age.as_millis() as u64);
        let Some(pid) = pid else {
            inner.since = None;
            return NetworkReport { map_age_ms, ..NetworkReport::default() };
        };
        let now = Counters::of(stats);
        let since = match &inner.since {
            Some((of, since)) if *of == pid => *since,
            _ => {
                inner.since = Some((pid.clone(), now));
                now
            }
        };
        let share = |inside: u64, inside_since: u64, all: u64, all_since: u64| {
            let all = all.saturating_sub(all_since);
            let inside = inside.saturating_sub(inside_since);
            (all > 0).then(|| (inside as f64 / all as f64).min(1.0))
        };
        NetworkReport {
            pid: Some(pid),
            received_inside: share(now.received_inside, since.received_inside, now.received, since.received),
            sent_inside: share(now.sent_inside, since.sent_inside, now.sent, since.sent),
            map_age_ms,
        }
    }
}

/// Where this node is: where a tracker saw it. A tracker on this machine sees loopback, which says nothing where the node has
/// another address.
fn own_address(seen: Option<IpAddr>, local: &[SocketAddr]) -> Option<IpAddr> {
    if let Some(seen) = seen.filter(|ip| classify(*ip) != Class::Loopback) {
        return Some(seen);
    }
    let rank = |ip: &IpAddr| match classify(*ip) {
        Class::Public => 0,
        Class::Private => 1,
        Class::Shared => 2,
        Class::Loopback => 3,
        Class::Never => 4,
    };
    let own = local.iter().map(|addr| addr.ip().to_canonical());
    let own = own.filter(|ip| classify(*ip) != Class::Never).min_by_key(rank);
    own.or(seen)
}

struct View(Arc<Vantage>);

impl NetworkMap for View {
    fn cost(&self, ip: IpAddr) -> Option<PathCost> {
        self.0.cost(ip)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use caudal_tracker::url::UrlOrigin;

    use super::*;

    fn tracker(url: &str) -> caudal_tracker::url::AllowedUrl {
        url.parse::<TrackerUrl>().unwrap().check(UrlOrigin::Typed, false).unwrap()
    }

    #[test]
    fn a_node_is_where_it_is_seen_and_on_one_machine_where_it_listens() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let local = ["127.1.0.1:4000".parse().unwrap()];
        assert_eq!(own_address(Some(ip("8.8.8.8")), &local), Some(ip("8.8.8.8")));
        assert_eq!(own_address(Some(ip("127.0.0.1")), &local), Some(ip("127.1.0.1")));
        assert_eq!(own_address(None, &local), Some(ip("127.1.0.1")));
        let more = [local[0], "192.168.1.7:4000".parse().unwrap()];
        assert_eq!(own_address(Some(ip("127.0.0.1")), &more), Some(ip("192.168.1.7")));
        assert_eq!(own_address(Some(ip("127.0.0.1")), &[]), Some(ip("127.0.0.1")));
    }

    #[tokio::test]
    async fn one_follower_for_each_server_and_no_more_than_there_is_room_for() {
        let tracker = tracker("https://t.example");
        let told = |n: usize| tracker.alto(&format!("https://a{n}.example/")).unwrap();
        let maps = Maps::new(MapChoice::Told).unwrap();
        let vantages: Vec<_> =
            (0..SERVERS_MAX + 1).map(|_| Vantage::new(Arc::clone(&maps), vec![])).collect();
        for (n, vantage) in vantages.iter().enumerate() {
            vantage.told(tracker.url(), Some(told(n)));
        }
        let follows = |vantage: &Vantage| lock(&vantage.inner).follower.is_some();
        assert_eq!(vantages.iter().filter(|vantage| follows(vantage)).count(), SERVERS_MAX);
        let same = Vantage::new(Arc::clone(&maps), vec![]);
        same.told(tracker.url(), Some(told(0)));
        let [one, other] =
            [&same, &vantages[0]].map(|vantage| lock(&vantage.inner).follower.clone().unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other, same, vantages));
        let next = Vantage::new(maps, vec![]);
        next.told(tracker.url(), Some(told(9)));
        assert!(follows(&next), "who left makes room");
    }

    #[tokio::test]
    async fn a_tracker_leads_nobody_from_server_to_server() {
        let (one, two) = (tracker("https://t.example"), tracker("https://u.example"));
        let told = |name: &str| one.alto(&format!("https://{name}.example/")).ok();
        let server = |vantage: &Vantage| match &lock(&vantage.inner).server {
            Some(Server::Told(url)) => url.as_str().to_owned(),
            other => format!("{other:?}"),
        };
        let vantage = Vantage::new(Maps::new(MapChoice::Told).unwrap(), vec![]);
        vantage.told(one.url(), None);
        vantage.told(one.url(), told("a"));
        vantage.told(one.url(), told("b"));
        vantage.told(two.url(), told("c"));
        assert_eq!(server(&vantage), "https://a.example/");
        for choice in [MapChoice::Off, MapChoice::Server("https://mine.example/".into())] {
            let vantage = Vantage::new(Maps::new(choice.clone()).unwrap(), vec![]);
            let before = server(&vantage);
            vantage.told(one.url(), told("a"));
            assert_eq!(server(&vantage), before, "a person's word goes before a tracker's");
        }
        assert!(Maps::new(MapChoice::Server("ftp://x".into())).is_err());
    }
}
