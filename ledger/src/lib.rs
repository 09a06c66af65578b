//! The ledger: what was asked, by whom, what came of it and what it cost, in a database.
//!
//! It keeps three things. **Jobs**: who works on which message and the reply once there is one, so that a
//! message that is delivered twice is computed once and answered alike. **Files** of callers. **Usage**: one
//! row a request. They live in an embedded SQLite file unless a PostgreSQL is configured, which several
//! replicas may share; the statements are the same for both.
//!
//! # Jobs
//! | call | what it does |
//! | --- | --- |
//! | [`Ledger::enqueue`] | notes a job that the broker has confirmed, for those who ask before it is claimed |
//! | [`Ledger::claim`] | takes a job for a worker until a lease ends; of any number of claimants one wins |
//! | [`Ledger::renew`] | prolongs the lease, and hears of a cancellation |
//! | [`Ledger::release`] | gives a claim up without a reply, to be claimed again |
//! | [`Ledger::finish`] | stores the reply, before it is published and the message acknowledged |
//! | [`Ledger::cancel`] | leaves a tombstone, also for a job not seen yet |
//! | [`Ledger::job`], [`Ledger::jobs`] | read |
//!
//! The first reply stored for a job is its reply for good: whoever finishes later is given that one to send,
//! so replies never conflict whatever died in between. What may follow what is
//! [`opossum_core::jobs::Entry`]'s decision; a test holds the statements against it. Leases are counted by the database's clock. A call
//! that returns without an error is on disk. Finished jobs are kept for 24 hours.
//!
//! # Files
//! [`Ledger::begin_file`], [`Ledger::add_piece`] and [`Ledger::finish_file`] write a file piece by piece; it is
//! seen once it is finished, by its tenant only, and until it expires or [`Ledger::delete_file`] takes it away.
//! What is left of files that are gone is deleted in the background.
//!
//! # Batches
//! [`Ledger::create_batch`] keeps a batch, [`Ledger::take_batch`] gives one that nobody works on to a worker until
//! a lease ends, and [`Ledger::save_batch`] writes how far it has come. What came of each line is noted beside it
//! by [`Ledger::note_lines`]; the first outcome of a line is its outcome for good.
//!
//! # Usage
//! [`Ledger::record`] hands a row to a bounded queue and returns at once; a task writes the queue in batches.
//! A full queue drops rows, which are counted, named in the log and told to the [`LedgerObserver`]. A batch
//! whose fate is unknown is written again under the same keys, so no row counts twice.
//!
//! # Failure
//! Every call ends within [`LedgerConfig::timeout`] and fails with a [`LedgerError`] of a few words without
//! secrets. [`Ledger::start`] never fails: a database that is away at start is looked for with growing
//! patience, and [`Ledger::probe`] says what is wrong meanwhile. Times are Unix milliseconds, costs billionths
//! of a US dollar.

mod address;
mod batches;
mod error;
mod files;
mod jobs;
mod keeper;
mod ledger;
mod names;
mod observer;
mod store;
mod tasks;
mod usage;

pub use address::{Address, AddressError};
pub use batches::{BatchRecord, Held, KnownJob, LineMark, LineNote, LineOutput};
pub use error::LedgerError;
pub use files::{Deleted, FileRecord, NewFile, ObjectKey, PIECE, Page};
pub use jobs::{Claiming, Enqueued, JobRecord, JobSummary};
pub use ledger::{Ledger, LedgerConfig};
pub use observer::{LedgerObserver, NoObserver};
pub use usage::UsageRecord;
