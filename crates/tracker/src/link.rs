//! The channel link: what a broadcaster hands to viewers (`caudal:CHANNEL?tracker=URL&edge=URL&name=…`, RFC 3986 syntax).
//!
//! A link is written by a stranger. Parsing one resolves and asks nothing; its URLs still have to pass
//! [`TrackerUrl::check`].

use std::fmt;
use std::str::FromStr;

use caudal_proto::id::ChannelId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::descriptor::NAME_CHARS_MAX;
use crate::text;
use crate::url::{EdgeUrl, TrackerUrl, UrlError};

/// Longest link, bytes.
pub const LINK_LEN_MAX: usize = 2048;
/// Most trackers in a link or a descriptor.
pub const TRACKERS_MAX: usize = 4;
/// Most edges in a link or a descriptor.
pub const EDGES_MAX: usize = 4;

/// Everything that a query value may hold as it stands; the rest is percent-encoded.
const QUERY_VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'/');

/// A channel and where to ask for its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The channel.
    pub channel: ChannelId,
    /// Up to [`TRACKERS_MAX`], unchecked: see [`TrackerUrl::check`].
    pub trackers: Vec<TrackerUrl>,
    /// Up to [`EDGES_MAX`] edges that have it, unchecked likewise.
    pub edges: Vec<EdgeUrl>,
    /// What the channel's name was when the link was made, for people; the descriptor is what counts.
    pub name: Option<String>,
}

/// Why a text is not a channel link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Wrong shape.
    #[error(
        "{link:?} is not a channel link ({why}); a link looks like caudal:CHANNEL?tracker=https://tracker.example"
    )]
    Malformed {
        /// What was given, cut to a readable length.
        link: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One of its tracker or edge URLs is none.
    #[error("in the channel link: {0}")]
    Tracker(#[from] UrlError),
}

impl Link {
    /// What to call the channel before its descriptor is there.
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("Channel {}", self.channel.short()))
    }
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        let refuse = |why| LinkError::Malformed { link: crate::text::shortened(text), why };
        if text.len() > LINK_LEN_MAX {
            return Err(refuse("longer than 2048 bytes"));
        }
        let scheme = text.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("caudal:"));
        if scheme.is_none() {
            return Err(refuse("it does not begin with caudal:"));
        }
        let rest = text[7..].trim_start_matches('/');
        let (channel, query) = rest.split_once('?').unwrap_or((rest, ""));
        let channel = channel
            .trim_end_matches('/')
            .parse()
            .map_err(|_| refuse("what follows caudal: is no channel's id (52 characters of a-z and 2-7): it was mistyped, or cut"))?;
        let mut link = Self { channel, trackers: Vec::new(), edges: Vec::new(), name: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8().map_err(|_| refuse("it is not UTF-8"))?;
            match key {
                "tracker" => {
                    let tracker: TrackerUrl = value.parse()?;
                    if !link.trackers.contains(&tracker) {
                        link.trackers.push(tracker);
                    }
                }
                "edge" => {
                    let edge: EdgeUrl = value.parse()?;
                    if !link.edges.contains(&edge) {
                        link.edges.push(edge);
                    }
                }
                "name" => {
                    link.name = Some(text::clean(&value, NAME_CHARS_MAX)).filter(|name| !name.is_empty());
                }
                // Later versions may say more; what they say must not break the link here.
                _ => {}
            }
            if link.trackers.len() > TRACKERS_MAX {
                return Err(refuse("it names more than 4 trackers"));
            }
            if link.edges.len() > EDGES_MAX {
                return Err(refuse("it names more than 4 edges"));
            }
        }
        Ok(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "caudal:{}", self.channel)?;
        let mut separator = '?';
        let trackers = self.trackers.iter().map(|url| ("tracker", url));
        for (what, url) in trackers.chain(self.edges.iter().map(|url| ("edge", url))) {
            write!(f, "{separator}{what}={}", utf8_percent_encode(url.as_str(), QUERY_VALUE))?;
            separator = '&';
        }
        if let Some(name) = &self.name {
            write!(f, "{separator}name={}", utf8_percent_encode(name, QUERY_VALUE))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn a_link_survives_text() {
        let link = Link {
            channel: ID.parse().unwrap(),
            trackers: vec!["http://127.0.0.1:7777".parse().unwrap(), "https://t.example/a".parse().unwrap()],
            edges: vec!["https://cdn.example/live".parse().unwrap()],
            name: Some("Canal 1 & más = 50%#?+".into()),
        };
        let text = link.to_string();
        assert!(text.starts_with(&format!(
            "caudal:{ID}?tracker=http://127.0.0.1:7777&tracker=https://t.example/a&edge=https://cdn.example/live&name=Canal%201"
        )));
        assert_eq!(text.parse(), Ok(link));
    }

    #[test]
    fn links_are_read_generously_where_it_is_safe() {
        let link: Link =
            format!(" CAUDAL://{ID}/?tracker=https%3A%2F%2Ft.example&tracker=https://t.example&x=1 ")
                .parse()
                .unwrap();
        assert_eq!(link.trackers.len(), 1);
        let bare: Link = format!("caudal:{ID}").parse().unwrap();
        assert_eq!((bare.trackers.len(), bare.name), (0, None));
        let named: Link = format!("caudal:{ID}?name=%E2%80%AE%00a").parse().unwrap();
        assert_eq!(named.name.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_no_link_says_what_one_looks_like() {
        let five = |what: &str| (0..5).map(|n| format!("&{what}=https://t{n}.example")).collect::<String>();
        for bad in [
            String::new(),
            "http://x".into(),
            "caudal:".into(),
            format!("caudal:{}", &ID[1..]),
            "caudal:é".into(),
            "cauda\u{e9}:".into(),
            format!("caudal:{ID}?name={}", "a".repeat(LINK_LEN_MAX)),
            format!("caudal:{ID}?{}", five("tracker")),
            format!("caudal:{ID}?{}", five("edge")),
            format!("caudal:{ID}?name=%ff"),
        ] {
            let error = bad.parse::<Link>().unwrap_err().to_string();
            assert!(error.contains("a link looks like caudal:"), "{error}");
        }
        for what in ["tracker", "edge"] {
            let bad = format!("caudal:{ID}?{what}=ftp://x").parse::<Link>();
            assert!(matches!(bad, Err(LinkError::Tracker(_))), "{what}");
        }
    }
}
