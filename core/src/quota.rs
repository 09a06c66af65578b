//! When a vendor's allowance comes back, and how long an upstream asks to be left alone.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};

/// The next 00:00 in America/Los_Angeles after `now`, when Gemini renews the allowances of the day.
///
/// The day may have 23 or 25 hours: the zone's calendar counts, not 24 hours.
pub fn next_pacific_midnight(now: Timestamp) -> Timestamp {
    let midnight = now
        .in_tz("America/Los_Angeles")
        .and_then(|local| local.tomorrow())
        .and_then(|tomorrow| tomorrow.start_of_day());
    match midnight {
        Ok(midnight) => midnight.timestamp(),
        // The zone is built in, so only the end of the calendar leads here; a day is the best guess.
        Err(_) => now.checked_add(24.hours()).unwrap_or(Timestamp::MAX),
    }
}

/// Reads a `Retry-After` header: seconds (a fraction is accepted) or an HTTP date.
///
/// A date in the past is a wait of zero. `None` for what is neither, and for a negative number. The result
/// is not capped: that is the breaker's rule.
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    let plain = header.starts_with(|first: char| first.is_ascii_digit()) && !header.contains(['e', 'E']);
    if let Some(seconds) = plain.then(|| header.parse::<f64>().ok()).flatten() {
        return Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    let date = Timestamp::try_from(httpdate::parse_http_date(header).ok()?).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ts(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn midnight_follows_the_zone_in_winter_and_summer() {
        assert_eq!(next_pacific_midnight(ts("2026-01-15T12:00:00Z")), ts("2026-01-16T08:00:00Z"));
        assert_eq!(next_pacific_midnight(ts("2026-07-15T12:00:00Z")), ts("2026-07-16T07:00:00Z"));
    }

    #[test]
    fn the_edges_of_a_day() {
        // 23:59 and 00:01 in the zone, and midnight itself, which belongs to the new day.
        assert_eq!(next_pacific_midnight(ts("2026-01-16T07:59:00Z")), ts("2026-01-16T08:00:00Z"));
        assert_eq!(next_pacific_midnight(ts("2026-01-16T08:01:00Z")), ts("2026-01-17T08:00:00Z"));
        assert_eq!(next_pacific_midnight(ts("2026-01-16T08:00:00Z")), ts("2026-01-17T08:00:00Z"));
    }

    #[test]
    fn both_nights_of_the_clock_change() {
        // 8 March 2026 has 23 hours, 1 November 2026 has 25.
        assert_eq!(next_pacific_midnight(ts("2026-03-08T08:00:00Z")), ts("2026-03-09T07:00:00Z"));
        assert_eq!(next_pacific_midnight(ts("2026-03-08T07:59:00Z")), ts("2026-03-08T08:00:00Z"));
        assert_eq!(next_pacific_midnight(ts("2026-11-01T07:00:00Z")), ts("2026-11-02T08:00:00Z"));
        assert_eq!(next_pacific_midnight(ts("2026-11-02T07:59:00Z")), ts("2026-11-02T08:00:00Z"));
    }

    #[test]
    fn waits_in_seconds() {
        let now = ts("2026-01-15T12:00:00Z");
        assert_eq!(retry_after("3", now), Some(Duration::from_secs(3)));
        assert_eq!(retry_after(" 86400 ", now), Some(Duration::from_secs(86400)));
        assert_eq!(retry_after("1.5", now), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after("0", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999999999999999", now), Some(Duration::MAX));
    }

    #[test]
    fn waits_by_date() {
        let now = ts("2026-01-15T12:00:00Z");
        assert_eq!(retry_after("Thu, 15 Jan 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Thursday, 15-Jan-26 12:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Thu, 15 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_no_wait() {
        let now = ts("2026-01-15T12:00:00Z");
        for header in ["", "-1", "+3", "soon", "nan", "inf", "1e400", "3 s", "Thu, 99 Jan 2026 12:00:30 GMT"]
        {
            assert_eq!(retry_after(header, now), None, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn midnight_is_ahead_and_at_most_25_hours_away(second in -2_000_000_000i64..4_000_000_000) {
            let now = Timestamp::from_second(second).unwrap();
            let midnight = next_pacific_midnight(now);
            prop_assert!(midnight > now);
            prop_assert!(midnight.duration_since(now) <= jiff::SignedDuration::from_hours(25));
            // Every midnight of the zone that lies between now and then would have to be that one.
            let before = midnight.checked_sub(jiff::SignedDuration::from_secs(1)).unwrap();
            prop_assert_eq!(next_pacific_midnight(before.max(now)), midnight);
        }

        #[test]
        fn no_header_breaks_the_reader(header in "\\PC{0,40}", second in 0i64..4_000_000_000) {
            let _ = retry_after(&header, Timestamp::from_second(second).unwrap());
        }
    }
}
