//! What the ledger tells whoever counts.

use crate::error::LedgerError;

/// Hears what becomes of usage rows and when the database fails. Called on the ledger's tasks and, for drops,
/// on the caller's thread: it must not block.
pub trait LedgerObserver: Send + Sync {
    /// Rows are in the database.
    fn usage_written(&self, rows: u64);
    /// Rows are lost: the queue was full, the database refused them, or the service ended first.
    fn usage_dropped(&self, rows: u64);
    /// A call to the database failed.
    fn failed(&self, error: LedgerError);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl LedgerObserver for NoObserver {
    fn usage_written(&self, _rows: u64) {}
    fn usage_dropped(&self, _rows: u64) {}
    fn failed(&self, _error: LedgerError) {}
}
