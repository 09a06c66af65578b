//! The statements about batches.

use std::time::Duration;

use bytes::Bytes;
use opossum_core::batches::{Batch, Mark};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{BatchRecord, Held, LineMark, LineNote, LineOutput};
use crate::files::{ObjectKey, Page};
use crate::store::millis;

type Result<T> = std::result::Result<T, sqlx::Error>;

const CREATE: &str = "
    INSERT INTO opossum_batches (tenant, id, input_file, record, created_ms, changed_ms)
    SELECT $1, $2, $3, $4, c.now_ms, c.now_ms FROM opossum_clock c WHERE true";

const GET: &str = "SELECT tenant, id, record, cancel_ms FROM opossum_batches WHERE tenant = $1 AND id = $2";

const CANCEL: &str = "
    UPDATE opossum_batches SET cancel_ms = (SELECT now_ms FROM opossum_clock)
    WHERE tenant = $1 AND id = $2 AND is_over = 0 AND cancel_ms IS NULL";

/// The second look at the lease is for those who waited for another's change of the row.
const TAKE: &str = "
    UPDATE opossum_batches SET worker = $1, lease_ms = (SELECT now_ms FROM opossum_clock) + $2
    WHERE (tenant, id) IN (
            SELECT b.tenant, b.id FROM opossum_batches b, opossum_clock c
            WHERE b.is_over = 0 AND b.lease_ms <= c.now_ms
            ORDER BY b.created_ms, b.id LIMIT 1)
        AND lease_ms <= (SELECT now_ms FROM opossum_clock)
    RETURNING tenant, id, record, cancel_ms";

const SAVE: &str = "
    UPDATE opossum_batches
    SET record = $4, is_over = $5, lease_ms = (SELECT now_ms FROM opossum_clock) + $6,
        changed_ms = (SELECT now_ms FROM opossum_clock)
    WHERE tenant = $1 AND id = $2 AND worker = $3 AND is_over = 0
    RETURNING cancel_ms";

const RELEASE: &str = "
    UPDATE opossum_batches SET worker = NULL, lease_ms = 0
    WHERE substr(worker, 1, length($1)) = $1 AND is_over = 0";

const NOTE: &str = "
    INSERT INTO opossum_batch_lines
        (tenant, batch_id, line, attempt, faults, next_ms, outcome, output)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (tenant, batch_id, line) DO UPDATE SET
        attempt = excluded.attempt, faults = excluded.faults, next_ms = excluded.next_ms,
        outcome = excluded.outcome, output = excluded.output
    WHERE opossum_batch_lines.outcome IS NULL";

const MARKS: &str = "
    SELECT line, attempt, faults, next_ms, outcome FROM opossum_batch_lines
    WHERE tenant = $1 AND batch_id = $2 ORDER BY line";

const OUTPUTS: &str = "
    SELECT line, outcome, output FROM opossum_batch_lines
    WHERE tenant = $1 AND batch_id = $2 AND line >= $3 AND outcome IS NOT NULL ORDER BY line LIMIT $4";

/// Lines of batches that are over: a few at a time, each may be as large as an answer.
const PRUNE_LINES: &str = "
    DELETE FROM opossum_batch_lines WHERE (tenant, batch_id, line) IN (
        SELECT l.tenant, l.batch_id, l.line
        FROM opossum_batch_lines l JOIN opossum_batches b ON b.tenant = l.tenant AND b.id = l.batch_id
        WHERE b.is_over = 1 LIMIT $1)";

const PRUNE: &str = "
    DELETE FROM opossum_batches WHERE (tenant, id) IN (
        SELECT b.tenant, b.id FROM opossum_batches b, opossum_clock c
        WHERE b.is_over = 1 AND b.changed_ms <= c.now_ms - $1
            AND NOT EXISTS (
                SELECT 1 FROM opossum_batch_lines l WHERE l.tenant = b.tenant AND l.batch_id = b.id)
        LIMIT $2)";

pub(crate) async fn create(connection: &mut AnyConnection, key: &ObjectKey, batch: &Batch) -> Result<()> {
    let query = sqlx::query(CREATE)
        .bind(&*key.tenant)
        .bind(&*key.id)
        .bind(batch.order.input_file_id.as_str())
        .bind(text(batch)?);
    query.execute(connection).await.map(|_| ())
}

pub(crate) async fn get(connection: &mut AnyConnection, key: &ObjectKey) -> Result<Option<BatchRecord>> {
    let query = sqlx::query(GET).bind(&*key.tenant).bind(&*key.id);
    query.fetch_optional(connection).await?.as_ref().map(record).transpose()
}

macro_rules! list {
    ($before:literal, $order:literal) => {
        concat!(
            "SELECT b.tenant, b.id, b.record, b.cancel_ms FROM opossum_batches b
            WHERE b.tenant = $1
                AND ($2 = '' OR EXISTS (
                    SELECT 1 FROM opossum_batches a
                    WHERE a.tenant = $1 AND a.id = $2
                        AND (b.created_ms ",
            $before,
            " a.created_ms OR (b.created_ms = a.created_ms AND b.id ",
            $before,
            " a.id))))
            ORDER BY b.created_ms ",
            $order,
            ", b.id ",
            $order,
            " LIMIT $3"
        )
    };
}

const NEWEST: &str = list!("<", "DESC");
const OLDEST: &str = list!(">", "ASC");

pub(crate) async fn list(
    connection: &mut AnyConnection,
    tenant: &str,
    page: &Page,
) -> Result<Vec<BatchRecord>> {
    let statement = if page.newest_first { NEWEST } else { OLDEST };
    let query = sqlx::query(statement)
        .bind(tenant)
        .bind(page.after.as_deref().unwrap_or(""))
        .bind(i64::from(page.limit));
    query.fetch_all(connection).await?.iter().map(record).collect()
}

pub(crate) async fn cancel(connection: &mut AnyConnection, key: &ObjectKey) -> Result<Option<BatchRecord>> {
    sqlx::query(CANCEL).bind(&*key.tenant).bind(&*key.id).execute(&mut *connection).await?;
    get(connection, key).await
}

pub(crate) async fn take(
    connection: &mut AnyConnection,
    worker: &str,
    lease: Duration,
) -> Result<Option<BatchRecord>> {
    let query = sqlx::query(TAKE).bind(worker).bind(millis(lease));
    query.fetch_optional(connection).await?.as_ref().map(record).transpose()
}

pub(crate) async fn save(
    connection: &mut AnyConnection,
    record: &BatchRecord,
    worker: &str,
    lease: Duration,
) -> Result<Held> {
    let query = sqlx::query(SAVE)
        .bind(&*record.key.tenant)
        .bind(&*record.key.id)
        .bind(worker)
        .bind(text(&record.batch)?)
        .bind(i64::from(record.batch.status.is_final()))
        .bind(millis(lease));
    match query.fetch_optional(connection).await? {
        Some(row) => Ok(Held::Yes { cancelled: row.try_get("cancel_ms")? }),
        None => Ok(Held::Lost),
    }
}

pub(crate) async fn release(connection: &mut AnyConnection, worker: &str) -> Result<u64> {
    Ok(sqlx::query(RELEASE).bind(worker).execute(connection).await?.rows_affected())
}

pub(crate) async fn note(
    connection: &mut AnyConnection,
    batch: &ObjectKey,
    notes: &[LineNote],
) -> Result<()> {
    for note in notes {
        let outcome = note.outcome.as_ref().map(|(good, _)| if *good { "succeeded" } else { "failed" });
        let output = note.outcome.as_ref().map(|(_, output)| output.to_vec());
        let query = sqlx::query(NOTE)
            .bind(&*batch.tenant)
            .bind(&*batch.id)
            .bind(i64::from(note.line))
            .bind(i64::from(note.mark.attempt))
            .bind(i64::from(note.mark.faults))
            .bind(note.mark.not_before)
            .bind(outcome)
            .bind(output);
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

pub(crate) async fn marks(connection: &mut AnyConnection, batch: &ObjectKey) -> Result<Vec<LineMark>> {
    let query = sqlx::query(MARKS).bind(&*batch.tenant).bind(&*batch.id);
    let mark = |row: &AnyRow| {
        let outcome: Option<&str> = row.try_get("outcome")?;
        Ok(LineMark {
            line: small(row, "line")?,
            mark: Mark {
                attempt: small(row, "attempt")?,
                faults: small(row, "faults")?,
                not_before: row.try_get("next_ms")?,
            },
            outcome: outcome.map(|word| word == "succeeded"),
        })
    };
    query.fetch_all(connection).await?.iter().map(mark).collect()
}

pub(crate) async fn outputs(
    connection: &mut AnyConnection,
    batch: &ObjectKey,
    from: u32,
    limit: u32,
) -> Result<Vec<LineOutput>> {
    let query = sqlx::query(OUTPUTS)
        .bind(&*batch.tenant)
        .bind(&*batch.id)
        .bind(i64::from(from))
        .bind(i64::from(limit));
    let output = |row: &AnyRow| {
        Ok(LineOutput {
            line: small(row, "line")?,
            is_good: row.try_get::<&str, _>("outcome")? == "succeeded",
            output: Bytes::from(row.try_get::<Vec<u8>, _>("output")?),
        })
    };
    query.fetch_all(connection).await?.iter().map(output).collect()
}

/// Deletes at most `limit` lines of batches that are over, and batches that have been over for so long; how many
/// lines.
pub(crate) async fn prune(connection: &mut AnyConnection, keep: Duration, limit: u32) -> Result<u64> {
    let lines = sqlx::query(PRUNE_LINES).bind(i64::from(limit)).execute(&mut *connection).await?;
    let query = sqlx::query(PRUNE).bind(millis(keep)).bind(i64::from(limit));
    query.execute(connection).await?;
    Ok(lines.rows_affected())
}

/// As it is: a batch that was called off may not have been looked at since.
fn record(row: &AnyRow) -> Result<BatchRecord> {
    let mut batch: Batch =
        serde_json::from_str(row.try_get("record")?).map_err(|error| sqlx::Error::Decode(error.into()))?;
    if let Some(cancelled) = row.try_get("cancel_ms")? {
        batch.cancel(cancelled);
    }
    let key = ObjectKey::new(row.try_get::<&str, _>("tenant")?, row.try_get::<&str, _>("id")?);
    Ok(BatchRecord { key, batch })
}

fn text(batch: &Batch) -> Result<String> {
    serde_json::to_string(batch).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn small(row: &AnyRow, column: &str) -> Result<u32> {
    let number: i64 = row.try_get(column)?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}
