//! Metrics of the job queue.

use std::sync::Arc;
use std::time::Duration;

use opossum_core::jobs::Lane;
use opossum_jobs::JobEvents;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};
use tokio::sync::Notify;

use super::metrics::Builder;
use super::names;

/// Seconds; from a queue without a backlog to one that is hours behind.
const WAIT_BUCKETS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4.0 * 3600.0, 24.0 * 3600.0];

/// The series of the job queue.
#[derive(Debug)]
pub struct JobMetrics {
    depth: IntGaugeVec,
    age: IntGaugeVec,
    wait: HistogramVec,
    jobs: IntCounterVec,
    connected: IntGaugeVec,
    /// Notified whenever a connection to the broker comes or goes.
    changed: Arc<Notify>,
}

impl JobMetrics {
    pub(super) fn new(make: &Builder) -> prometheus::Result<Self> {
        Ok(Self {
            depth: make.gauges(
                names::QUEUE_DEPTH,
                "Messages that wait in a queue of the broker, seconds ago.",
                &["queue"],
            )?,
            age: make.gauges(
                names::QUEUE_AGE,
                "Seconds that the oldest job of a queue has waited, at the broker or in this process; by the \
                 messages' timestamps and by when the queue was last empty, whichever is less.",
                &["queue"],
            )?,
            wait: make.times(
                names::JOB_WAIT,
                "Seconds from a job's publishing to an attempt at it, to the second as its message says it.",
                &["lane"],
                WAIT_BUCKETS,
            )?,
            jobs: make.counters(
                names::JOBS,
                "Messages of the job queues by what became of them here; retried is a failed attempt that \
                 another will follow, replayed a stored reply sent again.",
                &["lane", "outcome"],
            )?,
            connected: make.gauges(
                names::AMQP_CONNECTED,
                "1 when this connection to the broker works, else 0.",
                &["link"],
            )?,
            changed: Arc::default(),
        })
    }

    /// Notified whenever a connection to the broker comes or goes.
    pub fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

impl JobEvents for JobMetrics {
    fn started(&self, lane: Lane, age: Option<Duration>) {
        if let Some(age) = age {
            self.wait.with_label_values(&[lane.as_str()]).observe(age.as_secs_f64());
        }
    }

    fn ended(&self, lane: Lane, outcome: &'static str) {
        self.jobs.with_label_values(&[lane.as_str(), outcome]).inc();
    }

    fn depth(&self, queue: &'static str, messages: u32) {
        self.depth.with_label_values(&[queue]).set(messages.into());
    }

    fn age(&self, queue: &'static str, oldest: Duration) {
        self.age.with_label_values(&[queue]).set(oldest.as_secs().try_into().unwrap_or(i64::MAX));
    }

    fn uncounted(&self) {
        // Better no figure than an old one: what watches them sees that they are missing.
        self.depth.reset();
        self.age.reset();
    }

    fn link(&self, name: &'static str, up: bool) {
        let gauge = self.connected.with_label_values(&[name]);
        if gauge.get() != i64::from(up) {
            gauge.set(up.into());
            self.changed.notify_one();
        }
    }
}
