//! Who is answered: every program, and of browsers those that show the tracker's own page.
//!
//! A browser asks what any page tells it to, from inside the network that its user is in. What gives such requests away are
//! headers that browsers alone send, and that no page can change; peers and scrapers send none of them.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Method, header};
use url::Url;

use crate::page::is_address;
use crate::url::is_localhost;

/// What the guard goes by.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Names that a Host header may hold beside addresses and `localhost`; `None`: any. Where only this machine connects, a
    /// name that was never given is one that somebody pointed here (DNS rebinding).
    names: Option<Vec<String>>,
    /// The origins of the tracker's public URLs: its page may be at these whatever Host a proxy passes on.
    origins: Vec<String>,
}

/// A request, as far as the guard looks at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// It came through a trusted proxy, which may have put its own Host.
    pub(crate) proxied: bool,
}

impl Guard {
    /// The guard of a tracker on `listen`, known by `public_urls`.
    pub(crate) fn new(listen: SocketAddr, has_proxies: bool, public_urls: &[String]) -> Self {
        let urls: Vec<Url> = public_urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
        let is_private = listen.ip().to_canonical().is_loopback() && !has_proxies;
        let names = urls.iter().filter_map(|url| Some(url.host_str()?.to_owned()));
        Self {
            names: is_private.then(|| names.collect()),
            origins: urls.iter().map(|url| url.origin().ascii_serialization()).collect(),
        }
    }

    /// Why `asked` gets no answer, if it gets none.
    pub(crate) fn refusal(&self, asked: Asked<'_>) -> Option<&'static str> {
        if !self.is_own_host(asked.headers) {
            return Some(
                "this tracker does not know itself by the name in Host: use its address or localhost, or start it with \
                 --public-url and the URL that has the name",
            );
        }
        if self.is_foreign_origin(asked) {
            return Some(
                "pages of other sites may not use this tracker (Origin is not Host; a proxy should pass Host on, or start \
                 the tracker with --public-url)",
            );
        }
        if is_from_other_site(asked) {
            return Some(
                "pages of other sites may not use this tracker (Sec-Fetch-Site); they may link to its page",
            );
        }
        None
    }

    fn is_own_host(&self, headers: &HeaderMap) -> bool {
        let Some(names) = &self.names else { return true };
        let Some(host) = text(headers, "host") else { return false };
        if is_address(host) {
            return true;
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
        is_localhost(&name) || names.contains(&name)
    }

    fn is_foreign_origin(&self, asked: Asked<'_>) -> bool {
        let Some(origin) = asked.headers.get(header::ORIGIN) else { return false };
        let Ok(origin) = origin.to_str() else { return true };
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        let own = text(asked.headers, "host");
        let is_own = authority.zip(own).is_some_and(|(authority, own)| authority.eq_ignore_ascii_case(own));
        // Behind a proxy that puts its own Host the browser's word for it is as good.
        let is_said = asked.proxied && text(asked.headers, "sec-fetch-site") == Some("same-origin");
        !(is_own || is_said || self.origins.iter().any(|own| own == origin))
    }
}

/// A browser says that another site asks, and not by a link to the page that somebody followed.
fn is_from_other_site(asked: Asked<'_>) -> bool {
    let says = |name, value| text(asked.headers, name) == Some(value);
    let is_other = asked.headers.contains_key("sec-fetch-site")
        && !says("sec-fetch-site", "same-origin")
        && !says("sec-fetch-site", "none");
    let is_followed_link = *asked.method == Method::GET
        && asked.path == "/"
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document");
    is_other && !is_followed_link
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'static str, &'static str)];

    const HERE: &str = "127.0.0.1:7777";
    const EVERYWHERE: &str = "0.0.0.0:7777";

    fn guard(listen: &str, has_proxies: bool, public_urls: &[&str]) -> Guard {
        let urls: Vec<String> = public_urls.iter().map(|url| (*url).to_owned()).collect();
        Guard::new(listen.parse().unwrap(), has_proxies, &urls)
    }

    fn passes_to(guard: &Guard, proxied: bool, method: &Method, path: &str, pairs: Pairs<'_>) -> bool {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        guard.refusal(Asked { method, path, headers: &headers, proxied }).is_none()
    }

    fn passes(guard: &Guard, pairs: Pairs<'_>) -> bool {
        passes_to(guard, false, &Method::GET, "/v1/channels", pairs)
    }

    #[test]
    fn on_this_machine_no_name_is_answered_but_its_own() {
        let own =
            ["127.0.0.1:7777", "localhost:7777", "localhost", "[::1]:7777", "[::1]", "a.localhost:7777"];
        let others = [
            "evil.example",
            "evil.example:7777",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7777",
            "",
        ];
        let (bare, named) = (guard(HERE, false, &[]), guard(HERE, false, &["https://t.example/x"]));
        for (hosts, own) in [(&own[..], true), (&others[..], false)] {
            for host in hosts {
                assert_eq!(passes(&bare, &[("host", host)]), own, "{host}");
                assert_eq!(passes(&named, &[("host", host)]), own, "{host}");
                assert!(
                    passes(&guard(EVERYWHERE, false, &[]), &[("host", host)]),
                    "{host}: others have names"
                );
                assert!(passes(&guard(HERE, true, &[]), &[("host", host)]), "{host}: so has a proxy");
            }
        }
        assert!(passes(&named, &[("host", "T.example")]) && passes(&named, &[("host", "t.example:443")]));
        assert!(!passes(&bare, &[("host", "t.example")]) && !passes(&bare, &[]));
        assert!(!passes(&guard("[::ffff:127.0.0.1]:1", false, &[]), &[("host", "t.example")]));
    }

    #[test]
    fn pages_of_other_origins_are_not_answered() {
        for guard in [guard(HERE, false, &[]), guard(EVERYWHERE, false, &[]), guard(HERE, true, &[])] {
            let host = ("host", "127.0.0.1:7777");
            assert!(passes(&guard, &[host, ("origin", "http://127.0.0.1:7777")]));
            assert!(passes(&guard, &[host, ("origin", "https://127.0.0.1:7777")]), "a proxy adds TLS");
            for origin in
                ["http://127.0.0.1:7778", "http://127.0.0.1", "https://evil.example", "null", "ñ", ""]
            {
                assert!(!passes(&guard, &[host, ("origin", origin)]), "{origin}");
            }
        }
    }

    #[test]
    fn behind_a_proxy_that_puts_its_own_host_the_page_still_works() {
        let page =
            [("host", "127.0.0.1:7777"), ("origin", "https://t.example"), ("sec-fetch-site", "same-origin")];
        let behind = guard(HERE, true, &[]);
        assert!(passes_to(&behind, true, &Method::GET, "/assets/a.js", &page));
        assert!(!passes_to(&behind, false, &Method::GET, "/assets/a.js", &page), "did not come through it");
        assert!(!passes_to(&behind, true, &Method::GET, "/v1/channels", &page[..2]));
        assert!(passes(&guard(HERE, false, &["https://t.example/caudal"]), &page[..2]), "its public URL");
    }

    #[test]
    fn another_site_may_link_to_the_page_and_no_more() {
        let guard = guard(EVERYWHERE, false, &[]);
        let asks = |site, mode, dest, method: &Method, path| {
            let pairs = [
                ("host", "t.lan"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ];
            passes_to(&guard, false, method, path, &pairs)
        };
        for site in ["cross-site", "same-site"] {
            assert!(asks(site, "navigate", "document", &Method::GET, "/"));
            assert!(!asks(site, "navigate", "document", &Method::POST, "/"));
            assert!(!asks(site, "navigate", "document", &Method::GET, "/v1/channels"));
            assert!(!asks(site, "navigate", "iframe", &Method::GET, "/"));
            assert!(!asks(site, "no-cors", "document", &Method::GET, "/"));
            assert!(!asks(site, "cors", "empty", &Method::GET, "/v1/channels/events"));
        }
        assert!(asks("same-origin", "cors", "empty", &Method::GET, "/v1/channels/events"));
        assert!(asks("none", "navigate", "document", &Method::GET, "/v1/channels"));
        assert!(passes_to(&guard, false, &Method::POST, "/v1/ppstp", &[("host", "t.lan")]), "a peer");
    }
}
