//! Whether a viewer that has had nothing yet can hope for something, and why not.

use std::time::{Duration, Instant};

/// Alone for so long, a viewer that has had nothing yet says that nobody can be reached.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(10);
/// … and that nobody is known to ask, after this.
const NO_EDGE_AFTER: Duration = Duration::from_secs(2);
/// A tracker answers, and that is all.
const UNKNOWN: &str =
    "the tracker answers, and knows nobody who has this channel: is it on the air, and is the link whole?";
/// Until an edge was named.
pub(super) const NO_EDGE: &str = "no edge is known: neither the link nor what the channel says of itself names one that may be asked; name one \
                       with --edge URL, or watch without --no-p2p";

/// What is known of whether anybody can be reached.
#[derive(Debug)]
pub(super) struct Outlook {
    /// Nobody was there from here on.
    pub(super) alone_since: Instant,
    /// Most peers that a tracker named at once.
    pub(super) named: usize,
    /// How many trackers there are.
    pub(super) trackers: usize,
    /// A tracker has answered, and where there is one alone it has not been lost since.
    pub(super) answered: bool,
    /// A tracker has told something of the channel itself.
    pub(super) heard: bool,
    /// What the last tracker that did not answer gave as the cause.
    pub(super) error: Option<String>,
    /// The same of edges, where everything comes from there.
    pub(super) edge: Option<String>,
}

impl Outlook {
    pub(super) fn new(trackers: usize) -> Self {
        Self {
            alone_since: Instant::now(),
            named: 0,
            trackers,
            answered: false,
            heard: false,
            error: None,
            edge: None,
        }
    }

    /// What is known to be wrong, without waiting for it to last: for who goes before anything came.
    pub(super) fn known(&self) -> Option<String> {
        self.of_edges().or(self.error.as_ref().filter(|_| !self.answered)).cloned()
    }

    /// What is wrong with edges. Only who knows what the channel says of itself knows that it names none.
    fn of_edges(&self) -> Option<&String> {
        self.edge.as_ref().filter(|why| *why != NO_EDGE || self.heard)
    }

    /// Why nobody can be reached, once that has lasted.
    pub(super) fn unreachable(&self) -> Option<String> {
        let of_edges = self.of_edges();
        let has_none = of_edges.is_some_and(|why| why == NO_EDGE);
        let patience = if has_none { NO_EDGE_AFTER } else { UNREACHABLE_AFTER };
        if self.alone_since.elapsed() < patience {
            return None;
        }
        if let Some(why) = of_edges {
            return Some(why.clone());
        }
        if self.named > 0 {
            return Some(format!(
                "the tracker named {} who have this channel, and none of them can be reached: does this network let UDP \
                 through?",
                self.named
            ));
        }
        match (self.answered, self.heard) {
            (false, _) => self.error.clone(),
            (true, false) => Some(UNKNOWN.to_owned()),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(for_so_long: Duration) -> Outlook {
        let alone_since = Instant::now().checked_sub(for_so_long).expect("the machine has run for longer");
        Outlook { alone_since, ..Outlook::new(1) }
    }

    fn why(outlook: &Outlook) -> String {
        outlook.unreachable().unwrap_or_default()
    }

    #[test]
    fn who_has_waited_for_long_is_told_what_is_wrong() {
        let mut outlook = alone(UNREACHABLE_AFTER / 2);
        outlook.answered = true;
        assert_eq!(outlook.unreachable(), None, "patience");
        assert_eq!(outlook.known(), None);
        (outlook.answered, outlook.error) = (false, Some("no tracker answers".to_owned()));
        assert_eq!(outlook.unreachable(), None);
        assert_eq!(outlook.known().as_deref(), Some("no tracker answers"), "who goes now is told");
        let mut outlook = alone(UNREACHABLE_AFTER * 2);
        assert_eq!(outlook.unreachable(), None, "the tracker has not been heard yet");
        outlook.error = Some("no tracker answers".to_owned());
        assert_eq!(why(&outlook), "no tracker answers");
        outlook.answered = true;
        assert_eq!(why(&outlook), UNKNOWN);
        outlook.heard = true;
        assert_eq!(outlook.unreachable(), None, "the channel is there, and silent");
        outlook.named = 3;
        assert!(why(&outlook).contains("3 who have this channel") && why(&outlook).contains("UDP"));
    }

    #[test]
    fn that_there_is_no_edge_is_said_by_who_knows_what_the_channel_says() {
        let mut outlook = alone(NO_EDGE_AFTER * 2);
        outlook.edge = Some(NO_EDGE.to_owned());
        assert_eq!(outlook.unreachable(), None, "the channel may yet name one");
        outlook.heard = true;
        assert_eq!(why(&outlook), NO_EDGE, "and soon");
        let mut outlook = alone(UNREACHABLE_AFTER * 2);
        outlook.edge = Some(NO_EDGE.to_owned());
        outlook.answered = true;
        assert_eq!(why(&outlook), UNKNOWN, "nobody knows the channel");
        outlook.edge = Some("the edge is not there".to_owned());
        assert_eq!(why(&outlook), "the edge is not there");
    }
}
