//! The statements about jobs. Each is one atomic change in either database; what it did not do is then read.
//!
//! `INSERT … SELECT … FROM opossum_clock` takes the time from the database. `WHERE true` keeps SQLite from
//! reading the `ON` of `ON CONFLICT` as that of a join.

use std::time::Duration;

use opossum_core::jobs::{BodyHash, Claimed, Finished, JobKey, JobState, Renewal, StoredReply};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{Claiming, Enqueued, JobRecord, JobSummary};
use crate::batches::KnownJob;
use crate::store::millis;

type Result<T> = std::result::Result<T, sqlx::Error>;

/// A row that changes between two statements is looked at again, so often.
const LOOKS: usize = 4;

const ENQUEUE: &str = "
    INSERT INTO opossum_jobs (tenant, message_id, body_hash, state, created_ms, changed_ms)
    SELECT $1, $2, $3, 'queued', c.now_ms, c.now_ms FROM opossum_clock c WHERE true
    ON CONFLICT (tenant, message_id) DO NOTHING
    RETURNING runs";

const CLAIM: &str = "
    INSERT INTO opossum_jobs
        (tenant, message_id, body_hash, state, worker, lease_ms, runs, created_ms, changed_ms)
    SELECT $1, $2, $3, 'running', $4, c.now_ms + $5, 1, c.now_ms, c.now_ms
    FROM opossum_clock c WHERE true
    ON CONFLICT (tenant, message_id) DO UPDATE SET
        state = 'running', worker = excluded.worker, lease_ms = excluded.lease_ms,
        runs = opossum_jobs.runs + 1, changed_ms = excluded.changed_ms
    WHERE opossum_jobs.body_hash = excluded.body_hash
        AND (opossum_jobs.state = 'queued'
            OR (opossum_jobs.state = 'running'
                AND (opossum_jobs.worker = excluded.worker
                    OR opossum_jobs.lease_ms <= excluded.changed_ms)))
    RETURNING runs";

const RENEW: &str = "
    UPDATE opossum_jobs SET lease_ms = (SELECT now_ms FROM opossum_clock) + $4
    WHERE tenant = $1 AND message_id = $2 AND worker = $3 AND state = 'running'
    RETURNING runs";

const RELEASE: &str = "
    UPDATE opossum_jobs
    SET state = 'queued', worker = NULL, lease_ms = 0, changed_ms = (SELECT now_ms FROM opossum_clock)
    WHERE tenant = $1 AND message_id = $2 AND worker = $3 AND state = 'running'";

const RELEASE_ALL: &str = "
    UPDATE opossum_jobs
    SET state = 'queued', worker = NULL, lease_ms = 0, changed_ms = (SELECT now_ms FROM opossum_clock)
    WHERE worker = $1 AND state = 'running'";

const FINISH: &str = "
    INSERT INTO opossum_jobs
        (tenant, message_id, body_hash, state, created_ms, changed_ms,
         reply_status, reply_headers, reply_body)
    SELECT $1, $2, $3, $4, c.now_ms, c.now_ms, $5, $6, $7 FROM opossum_clock c WHERE true
    ON CONFLICT (tenant, message_id) DO UPDATE SET
        state = excluded.state, body_hash = excluded.body_hash, worker = NULL, lease_ms = 0,
        changed_ms = excluded.changed_ms, reply_status = excluded.reply_status,
        reply_headers = excluded.reply_headers, reply_body = excluded.reply_body
    WHERE opossum_jobs.reply_status IS NULL
        AND (opossum_jobs.body_hash IS NULL OR opossum_jobs.body_hash = excluded.body_hash)
        AND (opossum_jobs.state <> 'cancelled' OR excluded.state = 'cancelled')
    RETURNING runs";

const CANCEL: &str = "
    INSERT INTO opossum_jobs (tenant, message_id, state, created_ms, changed_ms)
    SELECT $1, $2, 'cancelled', c.now_ms, c.now_ms FROM opossum_clock c WHERE true
    ON CONFLICT (tenant, message_id) DO UPDATE SET
        state = 'cancelled', body_hash = NULL, worker = NULL, lease_ms = 0, changed_ms = excluded.changed_ms
    WHERE opossum_jobs.state IN ('queued', 'running')
    RETURNING runs";

const GET: &str = "
    SELECT tenant, message_id, body_hash, state, runs, created_ms, changed_ms,
        reply_status, reply_headers, reply_body, lease_ms, c.now_ms AS now_ms
    FROM opossum_jobs, opossum_clock c WHERE tenant = $1 AND message_id = $2";

/// Completed by a list of places, one for each id.
const KNOWN: &str = "
    SELECT tenant, message_id, body_hash, state, runs, created_ms, changed_ms,
        reply_status, reply_headers, reply_body, lease_ms, c.now_ms AS now_ms
    FROM opossum_jobs, opossum_clock c WHERE tenant = $1 AND message_id IN";

const LIST: &str = "
    SELECT tenant, message_id, state, runs, created_ms, changed_ms, lease_ms, c.now_ms AS now_ms
    FROM opossum_jobs, opossum_clock c WHERE state = $1
    ORDER BY changed_ms DESC, tenant, message_id LIMIT $2";

const PRUNE: &str = "
    DELETE FROM opossum_jobs WHERE (tenant, message_id) IN (
        SELECT j.tenant, j.message_id FROM opossum_jobs j, opossum_clock c
        WHERE (j.state IN ('succeeded', 'failed', 'cancelled') AND j.changed_ms <= c.now_ms - $1)
            OR (j.state IN ('queued', 'running') AND j.changed_ms <= c.now_ms - $2)
        LIMIT $3)";

/// A row as it is, with what only claims need.
struct Found {
    record: JobRecord,
    hash: Option<Vec<u8>>,
    lease_ms: i64,
}

impl Found {
    fn asks_something_else(&self, hash: BodyHash) -> bool {
        self.hash.as_ref().is_some_and(|known| *known != hash.0)
    }
}

pub(crate) async fn enqueue(
    connection: &mut AnyConnection,
    key: &JobKey,
    hash: BodyHash,
) -> Result<Enqueued> {
    for _ in 0..LOOKS {
        let made = sqlx::query(ENQUEUE)
            .bind(&*key.tenant)
            .bind(&*key.id)
            .bind(hash.0.to_vec())
            .fetch_optional(&mut *connection)
            .await?;
        if made.is_some() {
            return Ok(Enqueued::New);
        }
        if let Some(found) = find(connection, key).await? {
            let reused = found.asks_something_else(hash);
            return Ok(if reused { Enqueued::Reused } else { Enqueued::Known(found.record.summary.state) });
        }
    }
    Err(sqlx::Error::RowNotFound)
}

pub(crate) async fn claim(connection: &mut AnyConnection, claiming: &Claiming) -> Result<Claimed> {
    for _ in 0..LOOKS {
        let taken = sqlx::query(CLAIM)
            .bind(&*claiming.key.tenant)
            .bind(&*claiming.key.id)
            .bind(claiming.hash.0.to_vec())
            .bind(claiming.worker.as_str())
            .bind(millis(claiming.lease))
            .fetch_optional(&mut *connection)
            .await?;
        if taken.is_some() {
            return Ok(Claimed::Yours);
        }
        // Pruned or given up since: the next claim may win.
        let Some(found) = find(connection, &claiming.key).await? else { continue };
        if found.asks_something_else(claiming.hash) {
            return Ok(Claimed::Reused);
        }
        match (found.record.reply, found.record.summary.state) {
            (Some(reply), _) => return Ok(Claimed::Done(reply)),
            (None, JobState::Cancelled) => return Ok(Claimed::Cancelled),
            (None, JobState::Running) => return Ok(Claimed::Running { until: found.lease_ms }),
            (None, _) => {}
        }
    }
    Err(sqlx::Error::RowNotFound)
}

pub(crate) async fn renew(
    connection: &mut AnyConnection,
    key: &JobKey,
    worker: &str,
    lease: Duration,
) -> Result<Renewal> {
    let held = sqlx::query(RENEW)
        .bind(&*key.tenant)
        .bind(&*key.id)
        .bind(worker)
        .bind(millis(lease))
        .fetch_optional(&mut *connection)
        .await?;
    if held.is_some() {
        return Ok(Renewal::Held);
    }
    let is_cancelled =
        |record: &JobRecord| record.summary.state == JobState::Cancelled && record.reply.is_none();
    let found = get(connection, key).await?;
    Ok(if found.as_ref().is_some_and(is_cancelled) { Renewal::Cancelled } else { Renewal::Lost })
}

/// Whether the job was the worker's.
pub(crate) async fn release(connection: &mut AnyConnection, key: &JobKey, worker: &str) -> Result<bool> {
    let query = sqlx::query(RELEASE).bind(&*key.tenant).bind(&*key.id).bind(worker);
    Ok(query.execute(connection).await?.rows_affected() > 0)
}

/// How many jobs were the worker's.
pub(crate) async fn release_all(connection: &mut AnyConnection, worker: &str) -> Result<u64> {
    Ok(sqlx::query(RELEASE_ALL).bind(worker).execute(connection).await?.rows_affected())
}

pub(crate) async fn finish(
    connection: &mut AnyConnection,
    key: &JobKey,
    hash: BodyHash,
    reply: &StoredReply,
) -> Result<Finished> {
    let headers = serde_json::to_string(&reply.headers).map_err(|error| sqlx::Error::Encode(error.into()))?;
    for _ in 0..LOOKS {
        let stored = sqlx::query(FINISH)
            .bind(&*key.tenant)
            .bind(&*key.id)
            .bind(hash.0.to_vec())
            .bind(reply.state().as_str())
            .bind(i64::from(reply.status))
            .bind(headers.as_str())
            .bind(reply.body.to_vec())
            .fetch_optional(&mut *connection)
            .await?;
        if stored.is_some() {
            return Ok(Finished::Stored);
        }
        let Some(found) = find(connection, key).await? else { continue };
        if found.asks_something_else(hash) {
            return Ok(Finished::Reused);
        }
        match (found.record.reply, found.record.summary.state) {
            (Some(first), _) => return Ok(Finished::Already(first)),
            (None, JobState::Cancelled) => return Ok(Finished::Cancelled),
            (None, _) => {}
        }
    }
    Err(sqlx::Error::RowNotFound)
}

/// Whether there was anything to cancel.
pub(crate) async fn cancel(connection: &mut AnyConnection, key: &JobKey) -> Result<bool> {
    let query = sqlx::query(CANCEL).bind(&*key.tenant).bind(&*key.id);
    Ok(query.fetch_optional(connection).await?.is_some())
}

pub(crate) async fn get(connection: &mut AnyConnection, key: &JobKey) -> Result<Option<JobRecord>> {
    Ok(find(connection, key).await?.map(|found| found.record))
}

/// Those of these jobs that are known, at most as many as a statement has places.
pub(crate) async fn known(
    connection: &mut AnyConnection,
    tenant: &str,
    ids: &[String],
) -> Result<Vec<KnownJob>> {
    // As many places as the next power of two, so that few statements are prepared; a name again finds nothing new.
    let places = ids.len().next_power_of_two();
    let list: Vec<String> = (2..).take(places).map(|place| format!("${place}")).collect();
    let mut query = sqlx::query(AssertSqlSafe(format!("{KNOWN} ({})", list.join(", ")))).bind(tenant);
    for place in 0..places {
        query = query.bind(ids[place.min(ids.len() - 1)].as_str());
    }
    let known = |row: &AnyRow| {
        let Found { record, .. } = found(row)?;
        let JobRecord { summary, reply } = record;
        Ok(KnownJob { id: summary.key.id.to_string(), state: summary.state, reply })
    };
    query.fetch_all(connection).await?.iter().map(known).collect()
}

/// The jobs in a state as it was last stored, the one that changed last first.
pub(crate) async fn list(
    connection: &mut AnyConnection,
    state: JobState,
    limit: u32,
) -> Result<Vec<JobSummary>> {
    let query = sqlx::query(LIST).bind(state.as_str()).bind(i64::from(limit));
    query.fetch_all(connection).await?.iter().map(summary).collect()
}

/// Deletes at most `limit` jobs that ended so long ago, or have not changed for even longer; how many.
pub(crate) async fn prune(
    connection: &mut AnyConnection,
    ended: Duration,
    stale: Duration,
    limit: u32,
) -> Result<u64> {
    let query = sqlx::query(PRUNE).bind(millis(ended)).bind(millis(stale)).bind(i64::from(limit));
    Ok(query.execute(connection).await?.rows_affected())
}

async fn find(connection: &mut AnyConnection, key: &JobKey) -> Result<Option<Found>> {
    let query = sqlx::query(GET).bind(&*key.tenant).bind(&*key.id);
    query.fetch_optional(connection).await?.as_ref().map(found).transpose()
}

fn found(row: &AnyRow) -> Result<Found> {
    let status: Option<i64> = row.try_get("reply_status")?;
    let reply = match status {
        None => None,
        Some(status) => Some(StoredReply {
            status: u16::try_from(status).map_err(|error| sqlx::Error::Decode(error.into()))?,
            headers: serde_json::from_str(row.try_get("reply_headers")?)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            body: row.try_get::<Vec<u8>, _>("reply_body")?.into(),
        }),
    };
    Ok(Found {
        record: JobRecord { summary: summary(row)?, reply },
        hash: row.try_get("body_hash")?,
        lease_ms: row.try_get("lease_ms")?,
    })
}

fn summary(row: &AnyRow) -> Result<JobSummary> {
    let (lease_ms, now_ms): (i64, i64) = (row.try_get("lease_ms")?, row.try_get("now_ms")?);
    let state = match row.try_get("state")? {
        "running" if lease_ms > now_ms => JobState::Running,
        "queued" | "running" => JobState::Queued,
        "succeeded" => JobState::Succeeded,
        "failed" => JobState::Failed,
        "cancelled" => JobState::Cancelled,
        other => return Err(sqlx::Error::Decode(format!("the state {other}").into())),
    };
    let runs: i64 = row.try_get("runs")?;
    Ok(JobSummary {
        key: JobKey::new(row.try_get::<&str, _>("tenant")?, row.try_get::<&str, _>("message_id")?),
        state,
        runs: u32::try_from(runs).unwrap_or(u32::MAX),
        created_ms: row.try_get("created_ms")?,
        changed_ms: row.try_get("changed_ms")?,
    })
}
