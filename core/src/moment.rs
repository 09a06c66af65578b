//! The two clocks a decision may need, read once by the caller.

use std::time::Instant;

use jiff::Timestamp;

/// One reading of both clocks.
///
/// Everything that waits uses `mono`, which no operator and no time server can set back. Only a daily
/// allowance, which its vendor renews by the wall clock of a time zone, uses `wall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The monotonic clock.
    pub mono: Instant,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// Joins two readings.
    pub fn new(mono: Instant, wall: Timestamp) -> Self {
        Self { mono, wall }
    }
}
