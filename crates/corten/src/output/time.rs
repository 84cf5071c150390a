//! Times as people say them, and as programs read them.

use std::time::{SystemTime, UNIX_EPOCH};

const SECOND_NS: i64 = 1_000_000_000;

/// Nanoseconds since 1970, by this machine's clock.
pub fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// `2 minutes`: how long it is from one time to another.
pub fn span(from_ns: i64, to_ns: i64) -> String {
    let seconds = (to_ns.saturating_sub(from_ns) / SECOND_NS).max(0);
    // Each unit is used from twice itself on: "90 seconds", then "2 minutes".
    for (unit, each) in [
        ("year", 365 * 86_400),
        ("month", 30 * 86_400),
        ("week", 7 * 86_400),
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
    ] {
        if seconds >= 2 * each {
            return format!("{} {unit}s", seconds / each);
        }
    }
    match seconds {
        0 => "less than a second".to_owned(),
        1 => "1 second".to_owned(),
        _ => format!("{seconds} seconds"),
    }
}

/// `2 minutes ago`; nothing for a time that never was.
pub fn ago(then_ns: i64, now_ns: i64) -> String {
    if then_ns == 0 { String::new() } else { format!("{} ago", span(then_ns, now_ns)) }
}

/// `2026-11-21T10:37:14.123456789Z`.
pub fn rfc3339(time_ns: i64) -> String {
    let (seconds, nanoseconds) = (time_ns.div_euclid(SECOND_NS), time_ns.rem_euclid(SECOND_NS));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

/// Year, month and day of a number of days since 1970. Counted in years that
/// begin in March, so that a leap day is the last of its year.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 400 * 365 + 97;
    // 1970-01-01 is 719,468 days after 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_people_say_them() {
        for (seconds, text) in [
            (0, "less than a second"),
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (20 * 86_400, "2 weeks"),
            (90 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(span(0, seconds * SECOND_NS), text);
        }
        assert_eq!(span(5 * SECOND_NS, 0), "less than a second", "clocks go back");
        assert_eq!(ago(0, 1), "");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_825_600, "2000-02-29T12:00:00.000000000Z"),
            (1_795_257_434, "2026-11-21T10:37:14.000000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * SECOND_NS), text);
        }
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
