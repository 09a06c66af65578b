//! Until when a job may run.

use std::time::Duration;

use super::UnixMillis;
use super::message::HeaderValue;

/// The longest time from a job's arrival at a worker to its end. RabbitMQ closes the channel of a consumer
/// that keeps a message for 30 minutes, so this stays well below.
pub const LONGEST: Duration = Duration::from_secs(15 * 60);

/// A job's deadline, as its publisher gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Deadline(Option<UnixMillis>);

impl Deadline {
    /// A deadline at this time.
    pub fn at(when: UnixMillis) -> Self {
        Self(Some(when))
    }

    /// Reads the header: milliseconds as an integer of any width, as a whole number in floating point or as
    /// digits, or an AMQP timestamp, which counts seconds. No header is no deadline; `None` is a header that
    /// is none of these.
    pub fn from_header(value: Option<&HeaderValue>) -> Option<Self> {
        let Some(value) = value else { return Some(Self(None)) };
        value.as_millis().map(Self::at)
    }

    /// When it is, if there is one.
    pub fn when(self) -> Option<UnixMillis> {
        self.0
    }

    /// Whether it has passed.
    pub fn is_past(self, now: UnixMillis) -> bool {
        self.0.is_some_and(|when| when <= now)
    }

    /// The time that a job which arrived now has, at most [`LONGEST`]; zero once the deadline has passed.
    pub fn remaining(self, now: UnixMillis) -> Duration {
        let Some(when) = self.0 else { return LONGEST };
        let left = when.saturating_sub(now).max(0);
        Duration::from_millis(left.unsigned_abs()).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_a_header_a_job_has_a_quarter_of_an_hour() {
        let deadline = Deadline::from_header(None).unwrap_or(Deadline::at(0));
        assert_eq!((deadline.remaining(5), deadline.is_past(5)), (LONGEST, false));
    }

    #[test]
    fn every_form_of_a_number_is_read() {
        let at = Some(Deadline::at(1_700_000_000_000));
        for form in [
            HeaderValue::Int(1_700_000_000_000),
            HeaderValue::Float(1.7e12),
            HeaderValue::Text("1700000000000".into()),
            HeaderValue::Seconds(1_700_000_000),
        ] {
            assert_eq!(Deadline::from_header(Some(&form)), at, "{form:?}");
        }
        for bad in [
            HeaderValue::Other,
            HeaderValue::Text("soon".into()),
            HeaderValue::Text(String::new()),
            HeaderValue::Float(0.5),
            HeaderValue::Float(f64::NAN),
            HeaderValue::Float(1e300),
            HeaderValue::Seconds(u64::MAX),
        ] {
            assert_eq!(Deadline::from_header(Some(&bad)), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_remains_is_zero_exactly_when_the_deadline_is_past(when: i64, now: i64) {
            let deadline = Deadline::at(when);
            let left = deadline.remaining(now);
            prop_assert_eq!(left.is_zero(), deadline.is_past(now));
            prop_assert!(left <= LONGEST);
        }
    }
}
