//! Which trackers and edges are asked about a link: the one rule for what is typed, what a page opens and what a desktop hands over.
//!
//! Decides by where the link came from; asks and resolves nothing.

use caudal_tracker::link::Link;
use caudal_tracker::url::{AllowedUrl, UrlError, UrlOrigin};

/// How a link came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSource {
    /// Somebody typed or pasted it: this machine may be meant.
    Typed,
    /// A page asked for it. It was pasted there, unless it names a tracker of the person's own: then it is out of a list,
    /// where strangers write.
    Page,
    /// Another program handed it over, after a click on some page: a stranger's word.
    Desktop,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTrackers {
    /// At least one.
    pub allowed: Vec<AllowedUrl>,
    /// What the link names besides, and why it is not asked.
    pub refused: Vec<UrlError>,
}

/// Nobody may be asked about a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkTrackersError {
    /// There is nobody.
    #[error(
        "this link names no tracker; a link looks like caudal:CHANNEL?tracker=https://…, and --tracker says whom to ask \
         about one that names none"
    )]
    None,
    /// All were refused; the first of the reasons.
    #[error(transparent)]
    Refused(UrlError),
}

/// Whom to ask about `link`, where the person named the trackers `own`, which may be anywhere. They are asked about links
/// that name none.
///
/// # Errors
/// [`LinkTrackersError`].
pub fn link_trackers(
    link: &Link,
    source: LinkSource,
    own: &[AllowedUrl],
    lan: bool,
) -> Result<LinkTrackers, LinkTrackersError> {
    let named = |url| own.iter().find(|tracker| tracker.url() == url);
    let origin = match source {
        LinkSource::Typed => UrlOrigin::TypedLink,
        LinkSource::Page if link.trackers.iter().any(|url| named(url).is_some()) => UrlOrigin::Foreign,
        LinkSource::Page => UrlOrigin::TypedLink,
        LinkSource::Desktop => UrlOrigin::Foreign,
    };
    let mut asked = LinkTrackers { allowed: Vec::new(), refused: Vec::new() };
    for url in &link.trackers {
        match named(url).map_or_else(|| url.check(origin, lan), |own| Ok(own.clone())) {
            Ok(url) => asked.allowed.push(url),
            Err(error) => asked.refused.push(error),
        }
    }
    if link.trackers.is_empty() {
        asked.allowed.extend_from_slice(own);
    }
    if asked.allowed.is_empty() {
        let refused = asked.refused.into_iter().next();
        return Err(refused.map_or(LinkTrackersError::None, LinkTrackersError::Refused));
    }
    Ok(asked)
}

/// Which of a link's edges may be asked, and why not the others. Those that the person named come first; `lan` is LAN mode.
pub fn link_edges(
    link: &Link,
    source: LinkSource,
    own: &[AllowedUrl],
    lan: bool,
) -> (Vec<AllowedUrl>, Vec<UrlError>) {
    // What a page asks for may be out of a list, and a list is no reason to ask this computer anything.
    let origin = if source == LinkSource::Typed { UrlOrigin::TypedLink } else { UrlOrigin::Foreign };
    let (mut allowed, mut refused) = (own.to_vec(), Vec::new());
    for url in &link.edges {
        match url.check(origin, lan) {
            _ if own.iter().any(|edge| edge.url() == url) => {}
            Ok(url) => allowed.push(url),
            Err(error) => refused.push(error),
        }
    }
    (allowed, refused)
}

#[cfg(test)]
mod tests {
    use caudal_tracker::url::TrackerUrl;

    use super::*;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OWN: &str = "tracker=http://127.0.0.1:7777";
    const OTHER: &str = "tracker=http://127.0.0.1:1";
    const ROUTER: &str = "tracker=http://192.168.1.1";

    fn ask_as(source: LinkSource, query: &str, lan: bool) -> Result<(usize, usize), String> {
        let typed = |url: &str| url.parse::<TrackerUrl>().unwrap().check(UrlOrigin::Typed, false).unwrap();
        let link: Link = format!("caudal:{ID}{query}").parse().unwrap();
        link_trackers(&link, source, &[typed("http://127.0.0.1:7777")], lan)
            .map(|asked| (asked.allowed.len(), asked.refused.len()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_entry_cannot_lead_a_node_into_its_own_network() {
        let ask = |query: &str| ask_as(LinkSource::Page, query, false);
        assert_eq!(ask(""), Ok((1, 0)), "a link without trackers is asked about at one's own");
        assert_eq!(ask(&format!("?{OWN}&{OTHER}")), Ok((1, 1)), "what a list adds is a stranger's word");
        assert_eq!(ask(&format!("?{OTHER}")), Ok((1, 0)), "a link that was pasted may mean this machine");
        assert!(ask(&format!("?{ROUTER}")).is_err_and(|why| why.contains("192.168.1.1")));
        assert_eq!(ask(&format!("?{OWN}&tracker=https://tracker.example")), Ok((2, 0)));
    }

    #[test]
    fn a_typed_link_may_mean_this_machine_and_one_from_the_desktop_may_not() {
        let (typed, clicked) = (LinkSource::Typed, LinkSource::Desktop);
        assert_eq!(ask_as(typed, "", false), Ok((1, 0)), "--tracker is asked about a link that names none");
        assert_eq!(ask_as(typed, &format!("?{OWN}&{OTHER}&{ROUTER}"), false), Ok((2, 1)));
        assert!(ask_as(typed, &format!("?{ROUTER}"), false).is_err_and(|why| why.contains("--lan")));
        assert_eq!(ask_as(typed, &format!("?{ROUTER}"), true), Ok((1, 0)));
        for inward in [OTHER, ROUTER, "tracker=http://localhost:7777", "tracker=https://printer"] {
            assert!(ask_as(clicked, &format!("?{inward}"), false).is_err(), "{inward}");
        }
        assert_eq!(ask_as(clicked, "?tracker=https://tracker.example", false), Ok((1, 0)));
        assert_eq!(ask_as(clicked, &format!("?{OTHER}"), true), Ok((1, 0)), "--lan is the person's word");
    }

    #[test]
    fn edges_are_allowed_by_the_same_rule() {
        let edges = |source, query: &str, lan| {
            let link: Link = format!("caudal:{ID}?{query}").parse().unwrap();
            let (allowed, refused) = link_edges(&link, source, &[], lan);
            (allowed.len(), refused.len())
        };
        let (public, here) = ("edge=https://cdn.example/live", "edge=http://127.0.0.1:7781");
        for source in [LinkSource::Typed, LinkSource::Page, LinkSource::Desktop] {
            assert_eq!(edges(source, public, false), (1, 0));
            assert_eq!(edges(source, "edge=http://192.168.1.1", false), (0, 1));
            assert_eq!(edges(source, "edge=http://169.254.169.254", true), (0, 1));
            assert_eq!(edges(source, "edge=http://cdn.example", false), (0, 1), "not encrypted");
            assert_eq!(edges(source, here, true), (1, 0));
        }
        assert_eq!(edges(LinkSource::Typed, here, false), (1, 0));
        assert_eq!(edges(LinkSource::Page, here, false), (0, 1));
        assert_eq!(edges(LinkSource::Desktop, here, false), (0, 1));
    }

    #[test]
    fn a_link_that_leads_nowhere_says_what_is_missing() {
        let link: Link = format!("caudal:{ID}").parse().unwrap();
        let why = link_trackers(&link, LinkSource::Typed, &[], false).unwrap_err().to_string();
        assert!(why.contains("no tracker") && why.contains("--tracker"), "{why}");
    }
}
