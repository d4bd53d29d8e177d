//! Civil time from the Unix clock, for people to read off the card. UTC only; no leap seconds, as POSIX has it.

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// One instant, split for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// Whole seconds since the epoch.
    pub(super) second: u64,
    /// 0 to 999.
    pub(super) millis: u64,
}

impl Clock {
    pub(super) fn at(unix_us: u64) -> Self {
        Self { second: unix_us / 1_000_000, millis: unix_us / 1000 % 1000 }
    }

    /// `HH:MM:SS`.
    pub(super) fn time(self) -> String {
        let of_day = self.second % 86_400;
        format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
    }

    /// Weekday, day, month and year in words.
    pub(super) fn date(self) -> String {
        let since_epoch = self.second / 86_400;
        let weekday = DAYS[(since_epoch % 7) as usize];
        // The Gregorian calendar repeats every 146,097 days (400 years), so that at most 399 years are walked.
        let mut year = 1970 + since_epoch / 146_097 * 400;
        let mut day = since_epoch % 146_097;
        while day >= days_in_year(year) {
            day -= days_in_year(year);
            year += 1;
        }
        let mut month = 0;
        while day >= days_in_month(year, month) {
            day -= days_in_month(year, month);
            month += 1;
        }
        format!("{weekday} {} {} {year}", day + 1, MONTHS[month])
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

/// `month` counts from 0.
fn days_in_month(year: u64, month: usize) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_the_calendars() {
        let show = |second: u64| {
            let clock = Clock::at(second * 1_000_000 + 42_999);
            (clock.date(), clock.time(), clock.millis)
        };
        let expect = |date: &str, time: &str| (date.to_owned(), time.to_owned(), 42);
        assert_eq!(show(0), expect("Thursday 1 January 1970", "00:00:00"));
        assert_eq!(show(951_825_599), expect("Tuesday 29 February 2000", "11:59:59"));
        assert_eq!(show(1_000_000_000), expect("Sunday 9 September 2001", "01:46:40"));
        assert_eq!(show(1_735_689_599), expect("Tuesday 31 December 2024", "23:59:59"));
        assert_eq!(show(4_107_542_400), expect("Monday 1 March 2100", "00:00:00"));
        assert!(!Clock::at(u64::MAX).date().is_empty());
    }
}
