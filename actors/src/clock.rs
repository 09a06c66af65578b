//! Reading the clocks.

use opossum_core::moment::Moment;
use tokio::time::Instant;

/// Both clocks now; the monotonic one is tokio's, which tests can hold still.
pub(crate) fn moment() -> Moment {
    Moment::new(Instant::now().into_std(), jiff::Timestamp::now())
}
