//! What a batch is, its statuses and what may follow what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::jobs::{Endpoint, UnixMillis};

/// How long a batch may take.
pub const WINDOW_MS: UnixMillis = 24 * 3600 * 1000;

/// Where a batch stands, in the dialect's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its file is being read.
    Validating,
    /// Its file cannot be used.
    Failed,
    /// Its requests are being answered.
    InProgress,
    /// All is answered, or time is up; the files with the answers are being written.
    Finalizing,
    /// All its requests were answered.
    Completed,
    /// Time was up before.
    Expired,
    /// It was called off; the files with what was answered until then are being written.
    Cancelling,
    /// It was called off.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 8] = [
        Status::Validating,
        Status::Failed,
        Status::InProgress,
        Status::Finalizing,
        Status::Completed,
        Status::Expired,
        Status::Cancelling,
        Status::Cancelled,
    ];

    /// Whether nothing more will happen to the batch.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Failed | Status::Completed | Status::Expired | Status::Cancelled)
    }
}

/// What a caller wants answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What every line asks.
    pub endpoint: Endpoint,
    /// The file.
    pub input_file_id: String,
    /// The caller's own words.
    pub metadata: Option<BTreeMap<String, String>>,
    /// How long the files with the answers are kept.
    pub keep_output_seconds: u64,
}

/// What is wrong with a line of the file, or with all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// For a program.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The line's field.
    pub param: Option<String>,
    /// The line, counted from 1.
    pub line: Option<u32>,
}

/// What came of how many requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// In the file.
    pub total: u32,
    /// Answered.
    pub completed: u32,
    /// Answered with an error.
    pub failed: u32,
}

/// When a batch became what it is; Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after the statuses")]
pub struct Times {
    pub created: UnixMillis,
    pub expires: UnixMillis,
    pub in_progress: Option<UnixMillis>,
    pub finalizing: Option<UnixMillis>,
    pub completed: Option<UnixMillis>,
    pub failed: Option<UnixMillis>,
    pub expired: Option<UnixMillis>,
    pub cancelling: Option<UnixMillis>,
    pub cancelled: Option<UnixMillis>,
}

/// Tokens that the answers of a batch took, by the backends' counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Of the prompts.
    pub input: u64,
    /// The part of them that backends had cached.
    pub cached: u64,
    /// Of the answers.
    pub output: u64,
    /// The part of them that were thoughts.
    pub reasoning: u64,
}

/// What a batch left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// The file with the answers, where there were any.
    pub output_file_id: Option<String>,
    /// The file with the requests that were not answered, where there were any.
    pub error_file_id: Option<String>,
    /// The model that answered first.
    pub model: Option<String>,
    /// What the answers took.
    pub tokens: Tokens,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// What is wanted.
    pub order: Order,
    /// Where it stands.
    pub status: Status,
    /// What came of how many requests.
    pub counts: Counts,
    /// Why it failed.
    pub faults: Vec<LineFault>,
    /// When it became what.
    pub times: Times,
    /// What it left behind, once it is over.
    pub results: Option<Results>,
}

impl Batch {
    /// A batch that was just ordered.
    pub fn new(order: Order, now: UnixMillis) -> Self {
        let times = Times {
            created: now,
            expires: now.saturating_add(WINDOW_MS),
            in_progress: None,
            finalizing: None,
            completed: None,
            failed: None,
            expired: None,
            cancelling: None,
            cancelled: None,
        };
        let (status, counts) = (Status::Validating, Counts::default());
        Self { order, status, counts, faults: Vec::new(), times, results: None }
    }

    /// Its file is good: so many requests.
    pub fn accept(&mut self, total: u32, now: UnixMillis) {
        if self.status == Status::Validating {
            self.status = Status::InProgress;
            self.counts.total = total;
            self.times.in_progress = Some(now);
        }
    }

    /// Its file cannot be used.
    pub fn refuse(&mut self, faults: Vec<LineFault>, now: UnixMillis) {
        if self.status == Status::Validating {
            self.status = Status::Failed;
            self.faults = faults;
            self.times.failed = Some(now);
        }
    }

    /// It is called off. One whose files are being written, or that is over, goes its way.
    pub fn cancel(&mut self, now: UnixMillis) {
        if matches!(self.status, Status::Validating | Status::InProgress) {
            self.status = Status::Cancelling;
            self.times.cancelling = Some(now);
        }
    }

    /// Nothing more will be answered: all was, or time is up.
    pub fn finalize(&mut self, now: UnixMillis) {
        if self.status == Status::InProgress {
            self.status = Status::Finalizing;
            self.times.finalizing = Some(now);
        }
    }

    /// Its files are written.
    pub fn end(&mut self, results: Results, now: UnixMillis) {
        let all = self.counts.completed + self.counts.failed >= self.counts.total;
        let (status, when) = match self.status {
            Status::Cancelling => (Status::Cancelled, &mut self.times.cancelled),
            Status::Finalizing if all => (Status::Completed, &mut self.times.completed),
            Status::Finalizing => (Status::Expired, &mut self.times.expired),
            _ => return,
        };
        *when = Some(now);
        self.status = status;
        self.results = Some(results);
    }

    /// Whether its time is up.
    pub fn is_late(&self, now: UnixMillis) -> bool {
        now >= self.times.expires
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ordered() -> Batch {
        let order = Order {
            endpoint: Endpoint::Chat,
            input_file_id: "file-1".to_owned(),
            metadata: None,
            keep_output_seconds: 3600,
        };
        Batch::new(order, 1000)
    }

    #[test]
    fn a_batch_is_validated_answered_written_and_completed() {
        let mut batch = ordered();
        batch.accept(2, 2000);
        batch.counts = Counts { total: 2, completed: 1, failed: 1 };
        batch.finalize(3000);
        assert_eq!(batch.status, Status::Finalizing);
        batch.end(Results::default(), 4000);
        assert_eq!(
            (batch.status, batch.times.completed, batch.times.expired),
            (Status::Completed, Some(4000), None)
        );
        assert_eq!((batch.times.in_progress, batch.times.finalizing), (Some(2000), Some(3000)));
    }

    #[test]
    fn one_that_did_not_get_to_its_end_in_time_has_expired() {
        let mut batch = ordered();
        batch.accept(2, 2000);
        assert!(!batch.is_late(1000 + WINDOW_MS - 1) && batch.is_late(1000 + WINDOW_MS));
        batch.finalize(1000 + WINDOW_MS);
        batch.end(Results::default(), 9);
        assert_eq!((batch.status, batch.times.expired), (Status::Expired, Some(9)));
    }

    #[test]
    fn one_whose_files_are_being_written_is_not_called_off() {
        let mut batch = ordered();
        batch.accept(0, 2000);
        batch.finalize(3000);
        batch.cancel(3500);
        batch.end(Results::default(), 4000);
        assert_eq!((batch.status, batch.times.cancelling), (Status::Completed, None));
    }

    proptest! {
        /// Whatever is told in whatever order, what is over stays as it is, and a time is there for each
        /// status that was reached.
        #[test]
        fn what_is_over_stays_over(steps in proptest::collection::vec(0..5_u8, 1..12)) {
            let mut batch = ordered();
            for (now, step) in (2000..).zip(steps) {
                let before = batch.clone();
                match step {
                    0 => batch.accept(1, now),
                    1 => batch.refuse(Vec::new(), now),
                    2 => batch.cancel(now),
                    3 => batch.finalize(now),
                    _ => batch.end(Results::default(), now),
                }
                if before.status.is_final() {
                    prop_assert_eq!(&batch, &before);
                }
                let times = batch.times;
                let reached = match batch.status {
                    Status::Validating => Some(times.created),
                    Status::Failed => times.failed,
                    Status::InProgress => times.in_progress,
                    Status::Finalizing => times.finalizing,
                    Status::Completed => times.completed,
                    Status::Expired => times.expired,
                    Status::Cancelling => times.cancelling,
                    Status::Cancelled => times.cancelled,
                };
                prop_assert!(reached.is_some());
            }
        }
    }
}
