//! Values with units on the command line: `1M`, `1500k`, `60s`, `200ms`.

use std::time::Duration;

/// Bits per second: `1M`, `1.5M`, `800k`, `1000000`.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.trim().char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'M')) => (&text[..at], 1e6),
        Some((at, 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value > 0.0 && value * factor <= 1e12 => Ok((value * factor).round() as u64),
        _ => Err(format!("{text:?} is no rate: write bits per second like 1M, 1.5M or 800k")),
    }
}

/// A duration: `60s`, `2m`, `200ms`; at most a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let factor = match &text[split..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => f64::NAN,
    };
    match text[..split].parse::<f64>() {
        Ok(value) if value * factor > 0.0 && value * factor <= 86_400.0 => {
            Ok(Duration::from_secs_f64(value * factor))
        }
        _ => Err(format!("{text:?} is no duration: write a number with its unit, like 60s, 2m or 200ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(rate("1M"), Ok(1_000_000));
        assert_eq!(rate("1.5M"), Ok(1_500_000));
        assert_eq!(rate("800k"), Ok(800_000));
        assert_eq!(rate("64000"), Ok(64_000));
        for bad in ["", "M", "-1M", "1MB", "fast", "1e30"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_must_have_units() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "60", "s", "-3s", "0s", "9999h", "1 fortnight"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
