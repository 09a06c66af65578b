//! Whoever answers jobs.

use std::time::Duration;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use opossum_core::jobs::{Job, Lane, Refusal, StoredReply};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Answers jobs. Lives on the door's thread, so it need not be shared between threads.
pub trait Runner: 'static {
    /// Makes one attempt. Dropping the future cancels the work wherever it is.
    fn run<'a>(&'a self, task: Task<'a>) -> LocalBoxFuture<'a, Ran>;

    /// The reply that tells a requester of a fault, in the shape of every other error.
    fn error(&self, fault: &Fault, request_id: &str) -> StoredReply;
}

/// One attempt at a job.
pub struct Task<'a> {
    /// The job.
    pub job: &'a Job,
    /// The queue it came from.
    pub lane: Lane,
    /// When the attempt must be over.
    pub deadline: Instant,
    /// Takes the pieces of a streamed answer.
    pub chunks: Chunks,
}

/// Takes the pieces of a streamed answer, each of them one JSON text. They are a courtesy: the reply holds all
/// of the answer.
#[derive(Clone, Debug)]
pub struct Chunks {
    pub(crate) sender: Option<mpsc::Sender<Bytes>>,
}

impl Chunks {
    /// Sends a piece, waiting while the broker is slower than the answer.
    pub async fn send(&self, chunk: Bytes) {
        if let Some(sender) = &self.sender {
            // Whoever took them is gone only with the attempt itself.
            sender.send(chunk).await.ok();
        }
    }

    /// Whether anybody takes them.
    pub fn are_wanted(&self) -> bool {
        self.sender.is_some()
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// With a reply: an answer, or an error that another attempt would not mend.
    Reply(StoredReply),
    /// With an error that may be gone later.
    Failed {
        /// What the requester is told if there is no time for another attempt.
        reply: StoredReply,
        /// When another attempt may be worth it, where that is known.
        retry_after: Option<Duration>,
    },
    /// This process is too busy to begin; it may try again after a while.
    Busy {
        /// The while.
        retry_after: Duration,
    },
    /// This process is shutting down and began nothing: another worker is to have the job.
    Leaving,
}

/// What a requester is told that no attempt said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The message is no job.
    Refused(Refusal),
    /// The message id came before with another body.
    MessageIdReused,
    /// The deadline passed.
    DeadlineExceeded,
    /// The job was cancelled.
    Cancelled,
    /// Every attempt failed.
    JobFailed,
}
