//! The statements about files.

use std::time::Duration;

use bytes::Bytes;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Deleted, FileRecord, NewFile, ObjectKey, Page};
use crate::store::millis;

type Result<T> = std::result::Result<T, sqlx::Error>;

const BEGIN: &str = "
    INSERT INTO opossum_files (tenant, id, state, purpose, filename, bytes, created_ms, expires_ms)
    SELECT $1, $2, 'writing', '', '', 0, c.now_ms, 0 FROM opossum_clock c WHERE true
    ON CONFLICT (tenant, id) DO UPDATE SET state = 'writing', created_ms = excluded.created_ms";

const EMPTY: &str = "DELETE FROM opossum_file_pieces WHERE tenant = $1 AND id = $2";

const ADD: &str = "
    INSERT INTO opossum_file_pieces (tenant, id, number, data) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant, id, number) DO UPDATE SET data = excluded.data";

const FINISH: &str = "
    UPDATE opossum_files
    SET state = 'ready', purpose = $3, filename = $4, bytes = $5, expires_ms = created_ms + $6
    WHERE tenant = $1 AND id = $2 AND state = 'writing'
    RETURNING id, purpose, filename, bytes, created_ms, expires_ms";

const GET: &str = "
    SELECT f.id, f.purpose, f.filename, f.bytes, f.created_ms, f.expires_ms
    FROM opossum_files f, opossum_clock c
    WHERE f.tenant = $1 AND f.id = $2 AND f.state = 'ready' AND f.expires_ms > c.now_ms";

const PIECE: &str = "
    SELECT p.data FROM opossum_file_pieces p, opossum_files f
    WHERE p.tenant = $1 AND p.id = $2 AND p.number = $3 AND f.tenant = p.tenant AND f.id = p.id
        AND f.state = 'ready'";

const DELETE: &str = "
    UPDATE opossum_files SET state = 'gone'
    WHERE tenant = $1 AND id = $2 AND state <> 'gone'
        AND (state = 'writing' OR expires_ms > (SELECT now_ms FROM opossum_clock))
        AND NOT EXISTS (
            SELECT 1 FROM opossum_batches b WHERE b.tenant = $1 AND b.input_file = $2 AND b.is_over = 0)";

const EXPIRE: &str = "
    UPDATE opossum_files SET state = 'gone'
    WHERE (state = 'ready' AND expires_ms <= (SELECT now_ms FROM opossum_clock)
            AND NOT EXISTS (
                SELECT 1 FROM opossum_batches b
                WHERE b.tenant = opossum_files.tenant AND b.input_file = opossum_files.id AND b.is_over = 0))
        OR (state = 'writing' AND created_ms <= (SELECT now_ms FROM opossum_clock) - $1)";

const PRUNE_PIECES: &str = "
    DELETE FROM opossum_file_pieces WHERE (tenant, id, number) IN (
        SELECT p.tenant, p.id, p.number
        FROM opossum_files f JOIN opossum_file_pieces p ON p.tenant = f.tenant AND p.id = f.id
        WHERE f.state = 'gone' LIMIT $1)";

const PRUNE_FILES: &str = "
    DELETE FROM opossum_files WHERE state = 'gone' AND NOT EXISTS (
        SELECT 1 FROM opossum_file_pieces p WHERE p.tenant = opossum_files.tenant AND p.id = opossum_files.id)";

pub(crate) async fn begin(connection: &mut AnyConnection, key: &ObjectKey) -> Result<()> {
    for statement in [BEGIN, EMPTY] {
        sqlx::query(statement).bind(&*key.tenant).bind(&*key.id).execute(&mut *connection).await?;
    }
    Ok(())
}

pub(crate) async fn add(
    connection: &mut AnyConnection,
    key: &ObjectKey,
    number: u64,
    piece: &Bytes,
) -> Result<()> {
    let query = sqlx::query(ADD).bind(&*key.tenant).bind(&*key.id).bind(whole(number)).bind(piece.to_vec());
    query.execute(connection).await.map(|_| ())
}

pub(crate) async fn finish(
    connection: &mut AnyConnection,
    key: &ObjectKey,
    file: &NewFile,
) -> Result<Option<FileRecord>> {
    let query = sqlx::query(FINISH)
        .bind(&*key.tenant)
        .bind(&*key.id)
        .bind(file.purpose.as_str())
        .bind(file.filename.as_str())
        .bind(whole(file.bytes))
        .bind(millis(file.keep));
    query.fetch_optional(connection).await?.as_ref().map(record).transpose()
}

pub(crate) async fn get(connection: &mut AnyConnection, key: &ObjectKey) -> Result<Option<FileRecord>> {
    let query = sqlx::query(GET).bind(&*key.tenant).bind(&*key.id);
    query.fetch_optional(connection).await?.as_ref().map(record).transpose()
}

/// Two files of the same millisecond follow each other by their ids.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    tenant: &str,
    purpose: Option<&str>,
    page: &Page,
) -> Result<Vec<FileRecord>> {
    let statement = if page.newest_first { NEWEST } else { OLDEST };
    let query = sqlx::query(statement)
        .bind(tenant)
        .bind(purpose.unwrap_or(""))
        .bind(page.after.as_deref().unwrap_or(""))
        .bind(i64::from(page.limit));
    query.fetch_all(connection).await?.iter().map(record).collect()
}

macro_rules! list {
    ($before:literal, $order:literal) => {
        concat!(
            "SELECT f.id, f.purpose, f.filename, f.bytes, f.created_ms, f.expires_ms
            FROM opossum_files f, opossum_clock c
            WHERE f.tenant = $1 AND f.state = 'ready' AND f.expires_ms > c.now_ms
                AND ($2 = '' OR f.purpose = $2)
                AND ($3 = '' OR EXISTS (
                    SELECT 1 FROM opossum_files a
                    WHERE a.tenant = $1 AND a.id = $3
                        AND (f.created_ms ",
            $before,
            " a.created_ms OR (f.created_ms = a.created_ms AND f.id ",
            $before,
            " a.id))))
            ORDER BY f.created_ms ",
            $order,
            ", f.id ",
            $order,
            " LIMIT $4"
        )
    };
}

const NEWEST: &str = list!("<", "DESC");
const OLDEST: &str = list!(">", "ASC");

pub(crate) async fn piece(
    connection: &mut AnyConnection,
    key: &ObjectKey,
    number: u64,
) -> Result<Option<Bytes>> {
    let query = sqlx::query(PIECE).bind(&*key.tenant).bind(&*key.id).bind(whole(number));
    let row = query.fetch_optional(connection).await?;
    row.map(|row| row.try_get::<Vec<u8>, _>("data").map(Bytes::from)).transpose()
}

pub(crate) async fn delete(connection: &mut AnyConnection, key: &ObjectKey) -> Result<Deleted> {
    let query = sqlx::query(DELETE).bind(&*key.tenant).bind(&*key.id);
    if query.execute(&mut *connection).await?.rows_affected() > 0 {
        return Ok(Deleted::Gone);
    }
    let found = get(connection, key).await?;
    Ok(if found.is_some() { Deleted::InUse } else { Deleted::Missing })
}

/// Deletes at most `limit` pieces of files that are gone, that have expired or whose writing began so long ago
/// without an end; how many.
pub(crate) async fn prune(connection: &mut AnyConnection, unfinished: Duration, limit: u32) -> Result<u64> {
    sqlx::query(EXPIRE).bind(millis(unfinished)).execute(&mut *connection).await?;
    let pieces = sqlx::query(PRUNE_PIECES).bind(i64::from(limit)).execute(&mut *connection).await?;
    sqlx::query(PRUNE_FILES).execute(connection).await?;
    Ok(pieces.rows_affected())
}

fn record(row: &AnyRow) -> Result<FileRecord> {
    let bytes: i64 = row.try_get("bytes")?;
    Ok(FileRecord {
        id: row.try_get::<&str, _>("id")?.into(),
        purpose: row.try_get("purpose")?,
        filename: row.try_get("filename")?,
        bytes: bytes.max(0).unsigned_abs(),
        created_ms: row.try_get("created_ms")?,
        expires_ms: row.try_get("expires_ms")?,
    })
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
