//! Metrics of the ledger.

use opossum_ledger::{LedgerError, LedgerObserver};
use prometheus::{IntCounter, IntCounterVec};

use super::metrics::Builder;
use super::names;

/// The series of the ledger.
#[derive(Debug)]
pub struct LedgerMetrics {
    written: IntCounter,
    dropped: IntCounter,
    failures: IntCounterVec,
}

impl LedgerMetrics {
    pub(super) fn new(make: &Builder) -> prometheus::Result<Self> {
        let rows = make.counters(
            names::LEDGER_ROWS,
            "Rows of usage by what became of them: written to the database, or dropped because it does not keep up \
             or was away for too long.",
            &["result"],
        )?;
        let row = |result| rows.with_label_values(&[result]);
        Ok(Self {
            written: row("written"),
            dropped: row("dropped"),
            failures: make.counters(
                names::LEDGER_FAILURES,
                "Calls to the ledger's database that failed, by why.",
                &["reason"],
            )?,
        })
    }
}

impl LedgerObserver for LedgerMetrics {
    fn usage_written(&self, rows: u64) {
        self.written.inc_by(rows);
    }

    fn usage_dropped(&self, rows: u64) {
        self.dropped.inc_by(rows);
    }

    fn failed(&self, error: LedgerError) {
        self.failures.with_label_values(&[error.label()]).inc();
    }
}
