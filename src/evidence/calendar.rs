//! Times since 1970 as dates in UTC, in the proleptic Gregorian calendar.

use std::time::Duration;

/// A date and a time of the day.
struct Date {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

/// The days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;

impl Date {
    /// The date of a time since 1970. The day of a year that begins on 1 March has its
    /// leap day last, so that months follow from one formula.
    fn of(wall: Duration) -> Date {
        /// From 0000-03-01 to 1970-01-01.
        const EPOCH_DAYS: u64 = 719_468;
        let seconds = wall.as_secs();
        let days = seconds / 86_400 + EPOCH_DAYS;
        let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
        let leap_days = day_of_era / 1_460 + day_of_era / (ERA_DAYS - 1) - day_of_era / 36_524;
        let year_of_era = (day_of_era - leap_days) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // From March, 0, to February, 11.
        let month = (5 * day_of_year + 2) / 153;
        Date {
            year: era * 400 + year_of_era + u64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day_of_year - (153 * month + 2) / 5 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

/// A time since 1970 as `20261127T101530Z`, for names.
pub(super) fn stamp(wall: Duration) -> String {
    date(wall).replace(['-', ':'], "")
}

/// A time since 1970 as `2026-11-27T10:15:30Z` (RFC 3339).
#[must_use]
pub fn date(wall: Duration) -> String {
    let Date {
        year,
        month,
        day,
        hour,
        minute,
        second,
    } = Date::of(wall);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_774_530, "2026-11-27T10:15:30Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), text);
        }
        assert_eq!(
            stamp(Duration::from_secs(1_795_774_530)),
            "20261127T101530Z"
        );
        // The clock is hostile input, too.
        let _ = date(Duration::MAX);
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = String::new();
        for day in 0..200 * 365 {
            let text = date(Duration::from_secs(day * 86_400));
            assert!(text > before, "{text}");
            before = text;
        }
    }
}
