//! Connecting: pools, what each connection is told first, and the tables.

use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection, SqlSafeStr};

use crate::address::{Address, Dialect};
use crate::error::LedgerError;

/// The table that remembers which migrations have been applied; the database may be shared with others.
const MIGRATIONS: &str = "opossum_migrations";
/// Connections to a PostgreSQL, of each replica.
const POSTGRES_CONNECTIONS: u32 = 8;
/// Connections that read from an SQLite file.
const SQLITE_READERS: u32 = 2;
/// In WAL mode readers and the writer do not wait for each other; FULL flushes every commit, so that not even
/// a power cut takes back what was confirmed.
const SQLITE_WRITER: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
    PRAGMA busy_timeout = 3000; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -8192";
/// The tables' versions: each is applied once, and never changed afterwards.
const SQLITE_TABLES: [&str; 3] = [
    include_str!("../../migrations/sqlite/0001_ledger.sql"),
    include_str!("../../migrations/sqlite/0002_files.sql"),
    include_str!("../../migrations/sqlite/0003_batches.sql"),
];
const POSTGRES_TABLES: [&str; 3] = [
    include_str!("../../migrations/postgres/0001_ledger.sql"),
    include_str!("../../migrations/postgres/0002_files.sql"),
    include_str!("../../migrations/postgres/0003_batches.sql"),
];
/// What each version brought.
const VERSIONS: [&str; 3] = ["ledger", "files", "batches"];
const SQLITE_READER: &str = "PRAGMA busy_timeout = 3000; PRAGMA query_only = ON";

/// The writing connection and the reading ones.
pub(super) async fn sqlite(address: &Address, timeout: Duration) -> Result<(AnyPool, AnyPool), LedgerError> {
    make_folder(address)?;
    let write = pool(address, 1, SQLITE_WRITER.to_owned(), timeout).await?;
    migrate(&write, address.dialect, SQLITE_TABLES).await?;
    let read = pool(address, SQLITE_READERS, SQLITE_READER.to_owned(), timeout).await?;
    Ok((write, read))
}

/// The connections. Statements are given up by the server itself when their caller no longer waits.
pub(super) async fn postgres(address: &Address, timeout: Duration) -> Result<AnyPool, LedgerError> {
    let ms = timeout.as_millis();
    let setup = format!(
        "SET statement_timeout = {ms}; SET idle_in_transaction_session_timeout = {ms}; \
         SET application_name = 'opossum'; SET timezone = 'UTC'"
    );
    let pool = pool(address, POSTGRES_CONNECTIONS, setup, timeout).await?;
    migrate(&pool, address.dialect, POSTGRES_TABLES).await?;
    Ok(pool)
}

fn make_folder(address: &Address) -> Result<(), LedgerError> {
    let options: SqliteConnectOptions = address.url().parse().map_err(|_| LedgerError::Disk)?;
    let folder = options.get_filename().parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| {
        tracing::debug!(%error, "the folder of the ledger cannot be made");
        LedgerError::Disk
    })
}

/// A connection may take most of a call's time to be had: that there is none is then said in time.
async fn pool(
    address: &Address,
    connections: u32,
    setup: String,
    timeout: Duration,
) -> Result<AnyPool, LedgerError> {
    install_default_drivers();
    let refused = |error: sqlx::Error| {
        tracing::debug!(%error, "the ledger cannot be connected to");
        LedgerError::of(address.dialect, &error)
    };
    try_once(address.url(), setup.clone(), timeout).await?.map_err(refused)?;
    let options = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(timeout * 3 / 5)
        .after_connect(move |connection, _| {
            let setup = AssertSqlSafe(setup.clone());
            Box::pin(async move { sqlx::raw_sql(setup).execute(connection).await.map(|_| ()) })
        });
    options.connect_lazy(&address.url()).map_err(refused)
}

/// Connects without a pool, which would try again and again until its time is over, and then could only say
/// that. Boxed, since the compiler cannot see otherwise that it may change threads.
fn try_once(
    url: String,
    setup: String,
    timeout: Duration,
) -> BoxFuture<'static, Result<Result<(), sqlx::Error>, LedgerError>> {
    let work = async move {
        let mut connection = AnyConnection::connect(&url).await?;
        sqlx::raw_sql(AssertSqlSafe(setup)).execute(&mut connection).await?;
        connection.close().await
    };
    Box::pin(async move { tokio::time::timeout(timeout, work).await.map_err(|_| LedgerError::Timeout) })
}

async fn migrate(
    pool: &AnyPool,
    dialect: Dialect,
    tables: [&'static str; VERSIONS.len()],
) -> Result<(), LedgerError> {
    let version = |(number, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let versions = (1..).zip(VERSIONS.into_iter().zip(tables)).map(version).collect();
    let mut migrator = Migrator::with_migrations(versions);
    migrator.dangerous_set_table_name(MIGRATIONS);
    migrator.run(pool).await.map_err(|error| {
        tracing::warn!(%error, "the tables of the ledger cannot be brought up to date");
        LedgerError::of_migration(dialect, &error)
    })
}
