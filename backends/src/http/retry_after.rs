//! How long an upstream asks to be left alone.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// The longest wait believed; what is longer is a mistake or means "not today", which has its own class.
const MAX_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The wait that `retry-after-ms` or `Retry-After` (seconds or an HTTP date) asks for, at most a week.
///
/// A date that is past means no wait; a value that is neither is ignored.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text =
        |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).map(str::trim);
    let wait = text(http::HeaderName::from_static("retry-after-ms"))
        .and_then(|millis| seconds(millis, 1e-3))
        .or_else(|| {
            let value = text(header::RETRY_AFTER)?;
            seconds(value, 1.0).or_else(|| {
                let until = httpdate::parse_http_date(value).ok()?;
                Some(until.duration_since(now).unwrap_or(Duration::ZERO))
            })
        })?;
    Some(wait.min(MAX_WAIT))
}

fn seconds(text: &str, unit: f64) -> Option<Duration> {
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() || value < 0.0 {
        return None;
    }
    Some(Duration::try_from_secs_f64(value * unit).unwrap_or(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn wait(name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
    }

    #[test]
    fn every_form_is_understood() {
        assert_eq!(wait("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(wait("retry-after", " 1.5 "), Some(Duration::from_millis(1500)));
        assert_eq!(wait("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        // 2001-09-09T01:46:40Z is second 1e9.
        assert_eq!(wait("retry-after", "Sun, 09 Sep 2001 01:46:50 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(wait("retry-after", "Sun, 09 Sep 2001 01:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("retry-after", "86400"), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn nonsense_is_no_wait_and_no_panic() {
        for value in ["soon", "-1", "NaN", "inf", ""] {
            assert_eq!(wait("retry-after", value), None, "{value}");
        }
        assert_eq!(wait("retry-after", "1e300"), Some(MAX_WAIT));
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    fn milliseconds_win() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "60".parse().unwrap());
        headers.insert("retry-after-ms", "20".parse().unwrap());
        assert_eq!(retry_after(&headers, SystemTime::UNIX_EPOCH), Some(Duration::from_millis(20)));
    }
}
