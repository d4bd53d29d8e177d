//! What happens during a run: `leave 30% at 20s`, `join 900 at 20s over 10s`, `invite 9 at 20s over 10s`,
//! `partition 30% at 20s for 5s`, `outage source at 20s for 5s`, `outage tracker at 20s for 10s`, `slow 10% at 20s for 10s`,
//! `line 30% 1M at 20s`, `line 30% back at 40s`.

use std::time::Duration;

use crate::error::SimError;

/// What a line may be set to, bit/s.
const LINE_BPS: std::ops::RangeInclusive<u64> = 50_000..=10_000_000_000;

/// Something that happens at a time, counted from the start of measuring.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled {
    /// When.
    pub at: Duration,
    /// What.
    pub what: What,
    /// As it was typed.
    pub text: String,
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What {
    /// This share leaves at once, without a word.
    Leave(f64),
    /// So many come, spread over this time.
    Join(usize, Duration),
    /// So many come, spread over this time, each of whom knows one viewer that is there, and where to find it.
    Invite(usize, Duration),
    /// Nothing passes between this share and the rest for this long.
    Partition(f64, Duration),
    /// The source is away for this long and comes back with a new broadcast.
    SourceOutage(Duration),
    /// The tracker does not answer for this long.
    TrackerOutage(Duration),
    /// This share's lines carry a fifth for this long.
    Slow(f64, Duration),
    /// This share's lines carry so many bit/s down, and no more than that up, from now on.
    Line(f64, u64),
    /// Lines of this share of all, of those that were changed, the first ones first, are as they were.
    LineBack(f64),
}

impl std::str::FromStr for Scheduled {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let wrong = |what| SimError::Event(text.to_owned(), what);
        let words: Vec<&str> = text.split_whitespace().collect();
        if let ["line", share, carries, "at", at] = words[..] {
            let at = duration(at).ok_or_else(|| wrong("a time such as 20s is expected after 'at'"))?;
            let share = percent(share).ok_or_else(|| wrong("a share such as 30% is expected"))?;
            let line = rate(carries).filter(|bps| LINE_BPS.contains(bps));
            let what = match (carries, line) {
                ("back", _) => What::LineBack(share),
                (_, Some(bps)) => What::Line(share, bps),
                _ => return Err(wrong("'back', or a line from 50k to 10000M is expected")),
            };
            return Ok(Self { at, what, text: text.to_owned() });
        }
        let (&[verb, what, "at", at], rest) = words.split_at(words.len().min(4)) else {
            return Err(wrong("expected WHAT AMOUNT at TIME, such as 'leave 30% at 20s'"));
        };
        let at = duration(at).ok_or_else(|| wrong("a time such as 20s is expected after 'at'"))?;
        let span = |word: &str| match *rest {
            [w, span] if w == word => duration(span).ok_or_else(|| wrong("a time such as 5s is expected")),
            _ => Err(wrong(
                "'join' and 'invite' need 'over TIME'; 'partition', 'outage' and 'slow' need 'for TIME'",
            )),
        };
        let share = || percent(what).ok_or_else(|| wrong("a share such as 30% is expected"));
        let what = match (verb, what) {
            ("leave", _) if rest.is_empty() => What::Leave(share()?),
            ("leave", _) => return Err(wrong("nothing is expected after the time")),
            ("join" | "invite", count) => {
                let count = count.parse().map_err(|_| wrong("a number of viewers is expected"))?;
                let over = span("over")?;
                if verb == "join" { What::Join(count, over) } else { What::Invite(count, over) }
            }
            ("partition", _) => What::Partition(share()?, span("for")?),
            ("outage", "source") => What::SourceOutage(span("for")?),
            ("outage", "tracker") => What::TrackerOutage(span("for")?),
            ("slow", _) => What::Slow(share()?, span("for")?),
            _ => {
                return Err(wrong(
                    "expected leave, join, invite, partition, outage source, outage tracker, slow or line (line 30% 1M at 20s)",
                ));
            }
        };
        Ok(Self { at, what, text: text.to_owned() })
    }
}

/// `30%` or `0.3`.
pub(crate) fn percent(text: &str) -> Option<f64> {
    let share = match text.strip_suffix('%') {
        Some(number) => number.parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// `3M`, `800k`, `1200000`.
pub(crate) fn rate(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'k') => (&text[..text.len() - 1], 1e3),
        _ => (text, 1.0),
    };
    let number: f64 = digits.parse().ok()?;
    (0.0..1e10).contains(&number).then_some((number * unit) as u64)
}

/// `200ms`, `20s`, `10m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..digits].parse().ok()?;
    let seconds = match &text[digits..] {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    (0.0..1e6).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_read_and_nonsense_is_named() {
        let read = |text: &str| text.parse::<Scheduled>().map(|event| (event.at.as_secs(), event.what));
        assert_eq!(read("leave 30% at 20s"), Ok((20, What::Leave(0.3))));
        assert_eq!(read("join 900 at 1m over 10s"), Ok((60, What::Join(900, Duration::from_secs(10)))));
        let five = Duration::from_secs(5);
        assert_eq!(read("invite 9 at 0s over 5s"), Ok((0, What::Invite(9, five))));
        assert_eq!(read("partition 0.5 at 0s for 5s"), Ok((0, What::Partition(0.5, five))));
        assert_eq!(read("outage source at 3s for 5s"), Ok((3, What::SourceOutage(five))));
        assert_eq!(read("line 30% 1.2M at 20s"), Ok((20, What::Line(0.3, 1_200_000))));
        assert_eq!(read("line 30% back at 40s"), Ok((40, What::LineBack(0.3))));
        assert!(read("line 30% 1k at 40s").is_err() && read("line 30% 1M at 40s for 3s").is_err());
        for bad in ["", "leave", "leave 30% at", "leave 130% at 3s", "leave 3% at 3", "join x at 3s over 3s"]
        {
            assert!(read(bad).is_err_and(|error| error.to_string().contains(bad)), "{bad}");
        }
        assert!(read("outage moon at 3s for 5s").is_err());
        assert!(read("slow 10% at 3s").is_err());
    }
}
