//! Names at the broker. They are part of the public contract.

/// Messages that nobody could be told about, and jobs that were given up.
pub(crate) const DEAD: &str = "opossum.jobs.dead";
/// What the broker took out of the job queues: expired, or delivered too often. The responder empties it.
pub(crate) const UNDELIVERED: &str = "opossum.jobs.undelivered";
/// Replies whose queue is gone.
pub(crate) const PARKED: &str = "opossum.replies.parked";
/// The fanout that every worker listens to.
pub(crate) const CONTROL: &str = "opossum.control";

/// The queues whose depth is told.
pub(crate) const WATCHED: [&str; 9] = [
    "opossum.jobs.high",
    "opossum.jobs.normal",
    "opossum.jobs.batch",
    "opossum.jobs.retry.5s",
    "opossum.jobs.retry.30s",
    "opossum.jobs.retry.5m",
    UNDELIVERED,
    DEAD,
    PARKED,
];

/// Header of a reply: the HTTP status.
pub(crate) const STATUS: &str = "x-opossum-status";
/// Header of a piece of a streamed answer: its number, from 1.
pub(crate) const SEQUENCE: &str = "x-opossum-seq";
/// Header of a piece: which run made it, as a job that is run again begins anew at 1.
pub(crate) const RUN: &str = "x-opossum-run";
/// Header of a dead message: why.
pub(crate) const REASON: &str = "x-opossum-reason";
/// Header of a parked reply: where it was to go.
pub(crate) const PARKED_FOR: &str = "x-opossum-reply-to";
/// `type` of a reply.
pub(crate) const REPLY_KIND: &str = "opossum.reply.v1";
/// `type` of a piece.
pub(crate) const CHUNK_KIND: &str = "opossum.chunk.v1";

#[cfg(test)]
mod tests {
    use opossum_core::jobs::{Lane, RetryQueue};

    use super::*;

    #[test]
    fn every_queue_that_jobs_wait_in_is_watched() {
        let jobs = Lane::ALL.map(Lane::queue);
        let retries = RetryQueue::ALL.map(RetryQueue::queue);
        assert!(jobs.iter().chain(&retries).all(|queue| WATCHED.contains(queue)));
    }
}
