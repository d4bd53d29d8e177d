//! Durations, rates and sizes as people write them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use caudal_node::metered::Choice;

/// `200ms`, `30s`, `1.5m`, `2h`; a number alone is refused, because nobody knows what it means.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write 500ms, 30s, 5m or 1h");
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let seconds = match &text[unit..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..unit].trim().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|d| d.as_secs() < 366 * 86_400)
        .ok_or_else(wrong)
}

/// An address of this computer to listen on. The one name that is taken is `localhost`: others may have several addresses,
/// and tomorrow other ones.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let port = text.rsplit_once(':').filter(|(host, _)| host.eq_ignore_ascii_case("localhost"));
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        None => Err(
            "an address of this computer and a port are expected, like 127.0.0.1:7777, localhost:7777 or \
                     [::1]:7777, or 0.0.0.0:7777 for everybody who reaches it"
                .to_owned(),
        ),
    }
}

/// Bit/s: `800k`, `20M`, `1.5M`, `1G`, or plain `1000000`.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a rate in bit/s; write 800k, 20M or 1.5M");
    let text = text.trim_end_matches("bit/s").trim_end_matches("bps").trim();
    let (number, factor) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 1e3),
        Some('M' | 'm') => (&text[..text.len() - 1], 1e6),
        Some('G' | 'g') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let rate = number.trim().parse::<f64>().map_err(|_| wrong())? * factor;
    if (1_000.0..=1e12).contains(&rate) { Ok(rate as u64) } else { Err(wrong()) }
}

/// The most that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadLimit {
    /// What the line carries.
    Auto,
    /// So many bit/s.
    Bps(u64),
}

impl UploadLimit {
    /// `None`: as measured.
    pub(crate) fn bps(self) -> Option<u64> {
        match self {
            Self::Auto => None,
            Self::Bps(bps) => Some(bps),
        }
    }
}

/// `auto`, or a rate.
pub(crate) fn parse_upload(text: &str) -> Result<UploadLimit, String> {
    if text == "auto" {
        return Ok(UploadLimit::Auto);
    }
    parse_rate(text).map(UploadLimit::Bps).map_err(|error| format!("{error}, or auto"))
}

/// `auto`, `yes` or `no`.
pub(crate) fn parse_metered(text: &str) -> Result<Choice, String> {
    match text {
        "auto" => Ok(Choice::Ask),
        "yes" => Ok(Choice::Is(true)),
        "no" => Ok(Choice::Is(false)),
        _ => Err(format!("{text:?} is none of auto, yes and no")),
    }
}

/// `720p`.
pub(crate) fn parse_height(text: &str) -> Result<u32, String> {
    let lines = text.trim().strip_suffix('p').and_then(|lines| lines.parse().ok());
    let lines = lines.filter(|lines| (90..=4320).contains(lines) && lines % 2 == 0);
    lines.ok_or_else(|| format!("{text:?} is not the height of a picture; write 720p or 360p"))
}

/// `1280x720`.
pub(crate) fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let size = text.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    size.ok_or_else(|| format!("{text:?} is not a picture size; write 1280x720"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_units() {
        assert_eq!(parse_duration("8.3s"), Ok(Duration::from_millis(8300)));
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse_rate("1.5M"), Ok(1_500_000));
        assert_eq!(parse_rate("800k"), Ok(800_000));
        assert_eq!(parse_rate("20Mbit/s"), Ok(20_000_000));
        assert_eq!(parse_size("1280x720"), Ok((1280, 720)));
        assert_eq!(parse_listen("localhost:7791"), Ok(([127, 0, 0, 1], 7791).into()));
        assert_eq!(parse_listen("[::1]:80"), "[::1]:80".parse().map_err(|_| String::new()));
        for bad in ["", "7791", ":7791", "localhost", "localhost:", "localhost:99999", "example.org:80"] {
            assert!(parse_listen(bad).is_err_and(|said| said.contains("localhost:7777")), "{bad}");
        }
        for bad in ["", "10", "s", "-1s", "1e300h", "nans", "1 week"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "M", "-5M", "NaNM", "1e30", "5"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert!(parse_size("1280").is_err());
    }
}
