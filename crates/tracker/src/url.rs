//! Tracker URLs, and those of edges, and who may lead this node to which of them.
//!
//! A [`TrackerUrl`] is only well-formed. Before it can be asked it is checked against where it came from, which gives an
//! [`AllowedUrl`], the one thing that [`crate::client::TrackerClient`] takes; the same rule is applied again to every
//! address that its name resolves to, so that a name cannot be pointed inwards after the check.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use caudal_proto::addr::{Class, classify};
use url::{Host, Url};

/// Longest tracker URL, bytes.
pub const TRACKER_URL_LEN_MAX: usize = 256;

/// Where a URL came from, and so how far it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlOrigin {
    /// The user typed the URL itself (`--tracker URL`): the whole local network is open to it.
    Typed,
    /// The user typed or pasted a channel link that holds the URL: this machine and the public network.
    TypedLink,
    /// A descriptor, another peer, a link followed by a click: the public network only.
    Foreign,
}

/// Why a tracker URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Not a tracker URL at all.
    #[error(
        "{url:?} is not the URL of a tracker or an edge ({why}); one looks like https://tracker.example or http://127.0.0.1:7777"
    )]
    Malformed {
        /// What was given, cut to a readable length.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `http` towards the public network.
    #[error("{url}: plain http is for this machine and the local network; use https://")]
    NotEncrypted {
        /// The URL.
        url: String,
    },
    /// Points at this machine or into the local network, and the user did not type it.
    #[error(
        "{url} points at {what}, and links and descriptors are written by strangers; \
         if you trust whoever gave you this one, add --lan"
    )]
    Inward {
        /// The URL.
        url: String,
        /// What it points at.
        what: &'static str,
    },
    /// Link-local, metadata, multicast and the like.
    #[error("{url} has an address that no server can have (link-local, multicast, metadata or reserved)")]
    Impossible {
        /// The URL.
        url: String,
    },
}

/// The URL of an edge: well-formed in the same way, and allowed by the same rule.
pub type EdgeUrl = TrackerUrl;

/// A well-formed tracker URL: `http` or `https`, a host, perhaps a port and a path prefix, nothing else.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackerUrl(String);

/// Which addresses an [`AllowedUrl`] may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    public: bool,
    private: bool,
    shared: bool,
    loopback: bool,
}

impl Reach {
    /// Whether a connection may be made to `ip`, which must be canonical (no IPv4-mapped form).
    pub fn allows(&self, ip: IpAddr) -> bool {
        match classify(ip) {
            Class::Public => self.public,
            Class::Private => self.private,
            Class::Shared => self.shared,
            Class::Loopback => self.loopback,
            Class::Never => false,
        }
    }
}

/// A tracker URL that may be asked, and the addresses it may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedUrl {
    url: TrackerUrl,
    reach: Reach,
    lan: bool,
}

impl AllowedUrl {
    /// The URL.
    pub fn url(&self) -> &TrackerUrl {
        &self.url
    }

    /// What the URL may lead to.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Whether asking this tracker puts the node in LAN mode: asked for, or implied by a typed tracker inside.
    pub fn is_lan(&self) -> bool {
        self.lan
    }
}

/// The address of a map of the network that a tracker told, and the addresses that it may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltoUrl {
    url: String,
    reach: Reach,
}

impl AltoUrl {
    /// The address.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// What it may lead to, with all that it names and redirects to.
    pub fn reach(&self) -> Reach {
        self.reach
    }
}

impl AllowedUrl {
    /// Checks where this tracker says that the map of the network is. A tracker is no reason to reach into one's own network:
    /// it may name its own host, which is asked anyway, and servers on the public network with https. One on this machine may
    /// also name others on this machine and in the local network, and one with an address in the local network others there;
    /// `--lan` adds nothing.
    ///
    /// # Errors
    /// [`UrlError`] when the address must not be asked.
    pub fn alto(&self, told: &str) -> Result<AltoUrl, UrlError> {
        let text = if told.contains("://") {
            told.to_owned()
        } else {
            format!("{}/{}", self.url, told.trim_start_matches('/'))
        };
        let url: TrackerUrl = text.parse()?;
        let public = !url.is_plain();
        let reach = if url.host() == self.url.host() && (public || self.url.is_plain()) {
            Reach { public, ..self.reach }
        } else {
            let own = self.url.class();
            let loopback = own == Some(Class::Loopback);
            Reach { public, private: loopback || own == Some(Class::Private), shared: false, loopback }
        };
        let refused = |what| UrlError::Inward { url: url.0.clone(), what };
        match url.class() {
            Some(Class::Never) => return Err(UrlError::Impossible { url: url.0 }),
            Some(Class::Public) if !reach.public => return Err(UrlError::NotEncrypted { url: url.0 }),
            Some(Class::Loopback) if !reach.loopback => return Err(refused("this computer")),
            Some(Class::Private) if !reach.private => return Err(refused("the local network")),
            Some(Class::Shared) if !reach.shared => return Err(refused("the provider's network")),
            None if !public && !reach.private => return Err(UrlError::NotEncrypted { url: url.0 }),
            _ => {}
        }
        // As it was told: a slash at the end matters to what the directory leads to.
        Ok(AltoUrl { url: text, reach })
    }
}

impl TrackerUrl {
    /// The URL as text, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `http` rather than `https`.
    pub fn is_plain(&self) -> bool {
        self.0.starts_with("http:")
    }

    /// Whether the host is written as an address of this machine or of the local network, or as `localhost`.
    pub fn is_inside(&self) -> bool {
        matches!(self.class(), Some(Class::Loopback | Class::Private | Class::Shared))
    }

    /// Whether the host is written as an address of this machine, or as `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.class() == Some(Class::Loopback)
    }

    /// Checks the URL against where it came from; `lan` is LAN mode, asked for by the user.
    ///
    /// # Errors
    /// [`UrlError`] when the URL must not be asked.
    pub fn check(&self, origin: UrlOrigin, lan: bool) -> Result<AllowedUrl, UrlError> {
        let class = self.class();
        let typed = origin == UrlOrigin::Typed;
        let inside = typed || lan;
        // A link that the user pasted may name this machine, in so many words, but not a name that resolves to it.
        let loopback = inside || (origin == UrlOrigin::TypedLink && class == Some(Class::Loopback));
        let reach = Reach { public: !self.is_plain(), private: inside, shared: typed, loopback };
        let url = self.0.clone();
        match class {
            Some(Class::Never) => return Err(UrlError::Impossible { url }),
            Some(Class::Public) if self.is_plain() => return Err(UrlError::NotEncrypted { url }),
            Some(Class::Loopback) if !loopback => {
                return Err(UrlError::Inward { url, what: "this computer" });
            }
            Some(Class::Private) if !inside => {
                return Err(UrlError::Inward { url, what: "the local network" });
            }
            Some(Class::Shared) if !typed => {
                return Err(UrlError::Inward { url, what: "the provider's network" });
            }
            Some(_) => {}
            None if !inside && self.is_plain() => return Err(UrlError::NotEncrypted { url }),
            None if !inside && self.is_local_name() => {
                return Err(UrlError::Inward { url, what: "the local network" });
            }
            None => {}
        }
        Ok(AllowedUrl {
            url: self.clone(),
            reach,
            lan: lan || (typed && self.is_inside()) || (loopback && class == Some(Class::Loopback)),
        })
    }

    /// The class of a host that is written as an address; `None` for a name that has to be resolved.
    fn class(&self) -> Option<Class> {
        match self.host() {
            Host::Ipv4(ip) => Some(classify(ip.into())),
            Host::Ipv6(ip) => Some(classify(ip.into())),
            Host::Domain(name) if is_localhost(&name) => Some(Class::Loopback),
            Host::Domain(_) => None,
        }
    }

    fn host(&self) -> Host<String> {
        let url = Url::parse(&self.0).ok();
        let host = url.as_ref().and_then(Url::host).map(|host| host.to_owned());
        host.expect("a TrackerUrl was parsed with a host when it was made")
    }

    /// Names that only a local resolver answers.
    fn is_local_name(&self) -> bool {
        let Host::Domain(name) = self.host() else { return false };
        let name = name.trim_end_matches('.');
        !name.contains('.')
            || [".local", ".lan", ".internal", ".home.arpa", ".home", ".intranet"]
                .iter()
                .any(|suffix| name.ends_with(suffix))
    }
}

/// Names that lead to this machine whoever answers for the rest (RFC 6761, section 6.3).
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

impl FromStr for TrackerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |why| UrlError::Malformed { url: crate::text::shortened(text), why };
        if text.len() > TRACKER_URL_LEN_MAX {
            return Err(refuse("longer than 256 bytes"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refuse("it has spaces or control characters"));
        }
        let url = Url::parse(text).map_err(|_| refuse("it does not parse"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it holds a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it has a query or fragment"));
        }
        if url.host().is_none() {
            return Err(refuse("it has no host"));
        }
        if url.port() == Some(0) {
            return Err(refuse("port 0"));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, origin: UrlOrigin, lan: bool) -> Result<AllowedUrl, UrlError> {
        url.parse::<TrackerUrl>()?.check(origin, lan)
    }

    #[test]
    fn what_the_user_types_may_point_inwards_and_what_strangers_write_may_not() {
        use UrlOrigin::{Foreign, Typed, TypedLink};
        for url in ["http://127.0.0.1:7777", "http://localhost:7777", "http://[::1]:7777"] {
            assert!(check(url, Typed, false).unwrap().is_lan(), "{url}");
            assert!(check(url, TypedLink, false).unwrap().is_lan(), "{url}");
            assert!(matches!(check(url, Foreign, false), Err(UrlError::Inward { .. })), "{url}");
        }
        for url in ["http://192.168.1.1", "https://10.0.0.8/x", "http://[fd00::5]"] {
            assert!(check(url, Typed, false).is_ok(), "{url}");
            assert!(matches!(check(url, TypedLink, false), Err(UrlError::Inward { .. })), "{url}");
            assert!(matches!(check(url, Foreign, false), Err(UrlError::Inward { .. })), "{url}");
            assert!(check(url, TypedLink, true).is_ok(), "{url}");
        }
        for url in ["https://printer", "https://nas.local", "https://db.internal"] {
            assert!(matches!(check(url, Foreign, false), Err(UrlError::Inward { .. })), "{url}");
        }
        for url in ["http://169.254.169.254", "https://0.0.0.0", "https://[fe80::1]", "https://2852039166"] {
            for origin in [Typed, TypedLink, Foreign] {
                assert!(matches!(check(url, origin, true), Err(UrlError::Impossible { .. })), "{url}");
            }
        }
    }

    #[test]
    fn the_public_network_is_encrypted_and_names_are_checked_again_when_resolved() {
        use UrlOrigin::{Foreign, Typed};
        assert!(matches!(check("http://1.1.1.1", Typed, false), Err(UrlError::NotEncrypted { .. })));
        assert!(matches!(
            check("http://tracker.example", Foreign, false),
            Err(UrlError::NotEncrypted { .. })
        ));
        // Typed names over http may turn out to be inside, and only that.
        let named = check("http://tracker.example", Typed, false).unwrap();
        assert!(!named.reach().allows("1.1.1.1".parse().unwrap()));
        assert!(named.reach().allows("192.168.1.7".parse().unwrap()));
        let foreign = check("https://tracker.example", Foreign, false).unwrap();
        assert!(foreign.reach().allows("1.1.1.1".parse().unwrap()));
        for inside in ["127.0.0.1", "10.1.1.1", "::1", "169.254.169.254", "100.64.0.1"] {
            assert!(!foreign.reach().allows(inside.parse().unwrap()), "{inside}");
        }
    }

    #[test]
    fn a_tracker_leads_nobody_into_their_own_network_by_a_map() {
        use UrlOrigin::{Foreign, Typed};
        let outside = check("https://t.example", Typed, true).unwrap();
        for inward in [
            "http://127.0.0.1:631",
            "https://127.0.0.1",
            "http://localhost:7780",
            "http://192.168.1.1",
            "https://10.0.0.1",
            "https://[fd00::5]",
            "https://100.64.0.1",
            "http://169.254.169.254/latest",
            "http://8.8.8.8",
            "http://alto.example",
            "ftp://t.example",
            "https://u:p@t.example",
        ] {
            assert!(outside.alto(inward).is_err(), "{inward}");
        }
        // A name may lead outside only, and so may what is below the tracker's own address.
        for told in ["https://alto.example/directory", "https://8.8.8.8/"] {
            let alto = outside.alto(told).unwrap();
            assert_eq!(alto.as_str(), told);
            let inside = ["127.0.0.1", "192.168.1.1", "10.0.0.1", "100.64.0.1", "::1", "169.254.169.254"];
            assert!(inside.iter().all(|ip| !alto.reach().allows(ip.parse().unwrap())), "{told}");
            assert!(alto.reach().allows("1.1.1.1".parse().unwrap()));
        }
        let foreign = check("https://t.example/caudal", Foreign, false).unwrap();
        let own = foreign.alto("alto/directory").unwrap();
        assert_eq!(own.as_str(), "https://t.example/caudal/alto/directory");
        assert!(!own.reach().allows("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_tracker_inside_may_name_a_map_inside() {
        use UrlOrigin::Typed;
        let here = check("http://127.0.0.1:7777", Typed, false).unwrap();
        for told in
            ["http://127.0.0.1:7780/", "http://localhost:7780", "http://192.168.1.5:7780", "alto/directory"]
        {
            assert!(here.alto(told).is_ok(), "{told}");
        }
        let house = check("http://192.168.1.2:7777", Typed, false).unwrap();
        assert!(house.alto("http://192.168.1.2:7780").is_ok() && house.alto("http://192.168.1.5").is_ok());
        assert!(house.alto("http://127.0.0.1:631").is_err(), "this computer is not the tracker's");
        assert!(house.alto("http://8.8.8.8").is_err(), "public means https");
    }

    #[test]
    fn what_is_no_tracker_url_says_why() {
        for url in [
            "",
            "x",
            "ftp://a.example",
            "https://u:p@a.example",
            "https://a.example?x",
            "https://",
            "https://a b",
        ] {
            assert!(matches!(url.parse::<TrackerUrl>(), Err(UrlError::Malformed { .. })), "{url}");
        }
        assert_eq!(
            "HTTPS://Tracker.Example:443/".parse::<TrackerUrl>().unwrap().as_str(),
            "https://tracker.example"
        );
    }
}
