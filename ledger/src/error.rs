//! What can go wrong with the database, in words that give nothing away.

use crate::address::Dialect;

/// Why the ledger did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LedgerError {
    /// Nobody has connected yet.
    #[error("not connected yet")]
    Starting,
    /// The database cannot be reached, or the connection was lost.
    #[error("cannot be reached")]
    Unreachable,
    /// It does not let us in: user, password, database or TLS.
    #[error("refuses the user, the password or the database's name")]
    Denied,
    /// Somebody else holds a lock for too long.
    #[error("locked by somebody else")]
    Locked,
    /// No space is left.
    #[error("no space is left")]
    Full,
    /// It cannot be written to.
    #[error("read-only")]
    ReadOnly,
    /// The file cannot be opened, read or written.
    #[error("the file cannot be opened, read or written")]
    Disk,
    /// The file is no database, or a damaged one.
    #[error("the file is damaged or no database")]
    Damaged,
    /// Its tables are not those of this version.
    #[error("the tables are not those of this version")]
    Schema,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Too many calls wait already.
    #[error("too many calls wait")]
    Overloaded,
    /// The ledger is closed.
    #[error("closed")]
    Closed,
    /// The database refused these values; asked again, it would again.
    #[error("refused the values")]
    Refused,
    /// Anything else.
    #[error("failed")]
    Failed,
}

impl LedgerError {
    /// A word for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            LedgerError::Starting => "starting",
            LedgerError::Unreachable => "unreachable",
            LedgerError::Denied => "denied",
            LedgerError::Locked => "locked",
            LedgerError::Full => "full",
            LedgerError::ReadOnly => "read_only",
            LedgerError::Disk => "disk",
            LedgerError::Damaged => "damaged",
            LedgerError::Schema => "schema",
            LedgerError::Timeout => "timeout",
            LedgerError::Overloaded => "overloaded",
            LedgerError::Closed => "closed",
            LedgerError::Refused => "refused",
            LedgerError::Failed => "failed",
        }
    }

    /// Whether it says something about the database, and not only about one call.
    pub(crate) fn is_of_database(self) -> bool {
        !matches!(self, LedgerError::Refused | LedgerError::Overloaded | LedgerError::Closed)
    }

    pub(crate) fn of(dialect: Dialect, error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(said) => match (dialect, said.code()) {
                (Dialect::Sqlite, Some(code)) => code.parse().map_or(LedgerError::Failed, of_sqlite),
                (Dialect::Postgres, Some(state)) => of_postgres(&state),
                (_, None) => LedgerError::Failed,
            },
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => {
                LedgerError::Unreachable
            }
            sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => LedgerError::Denied,
            sqlx::Error::PoolClosed => LedgerError::Closed,
            sqlx::Error::Encode(_) => LedgerError::Refused,
            _ => LedgerError::Failed,
        }
    }

    pub(crate) fn of_migration(dialect: Dialect, error: &sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Self::of(dialect, error)
            }
            _ => LedgerError::Schema,
        }
    }
}

/// By the low byte of an extended result code (sqlite.org/rescode.html).
fn of_sqlite(code: i32) -> LedgerError {
    match code & 0xff {
        5 | 6 => LedgerError::Locked,
        8 => LedgerError::ReadOnly,
        10 | 14 => LedgerError::Disk,
        11 | 26 => LedgerError::Damaged,
        13 => LedgerError::Full,
        1 => LedgerError::Schema,
        18..=20 => LedgerError::Refused,
        _ => LedgerError::Failed,
    }
}

/// By SQLSTATE (PostgreSQL manual, appendix A).
fn of_postgres(state: &str) -> LedgerError {
    match state {
        "53100" => LedgerError::Full,
        "25006" => LedgerError::ReadOnly,
        "55P03" => LedgerError::Locked,
        "57014" => LedgerError::Timeout,
        _ => match state.get(..2) {
            Some("08" | "57" | "53") => LedgerError::Unreachable,
            Some("28" | "3D") => LedgerError::Denied,
            Some("40") => LedgerError::Locked,
            Some("22" | "23") => LedgerError::Refused,
            Some("42" | "3F") => LedgerError::Schema,
            Some("58") => LedgerError::Disk,
            Some("XX") => LedgerError::Damaged,
            _ => LedgerError::Failed,
        },
    }
}
