//! The statements about usage.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use opossum_core::answer::Usage;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{UsageRecord, arm, storable};

type Result<T> = std::result::Result<T, sqlx::Error>;

const COLUMNS: &str = "writer, number, at_ms, request_id, tenant, endpoint, asked_model, backend, model, \
    attempts, cache, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_nano_usd, \
    latency_us, first_token_us, outcome";
const COLUMN_COUNT: usize = 19;

/// Rows are inserted so many at a time: few statements, each prepared once and kept.
const SIZES: [usize; 3] = [64, 8, 1];

static INSERTS: LazyLock<[String; 3]> = LazyLock::new(|| SIZES.map(insert_statement));

/// A row whose key is there already is one whose first commit was not heard of.
fn insert_statement(rows: usize) -> String {
    let tuple = |row: usize| {
        let first = row * COLUMN_COUNT + 1;
        let places: Vec<String> = (first..first + COLUMN_COUNT).map(|place| format!("${place}")).collect();
        format!("({})", places.join(", "))
    };
    let tuples: Vec<String> = (0..rows).map(tuple).collect();
    format!("INSERT INTO opossum_usage ({COLUMNS}) VALUES {} ON CONFLICT DO NOTHING", tuples.join(", "))
}

const RECENT: &str = "
    SELECT at_ms, request_id, tenant, endpoint, asked_model, backend, model, attempts, cache, prompt_tokens,
        completion_tokens, cached_tokens, reasoning_tokens, cost_nano_usd, latency_us, first_token_us, outcome
    FROM opossum_usage WHERE at_ms >= $1 ORDER BY at_ms DESC, writer, number DESC LIMIT $2";

const PRUNE: &str = "
    DELETE FROM opossum_usage WHERE (writer, number) IN (
        SELECT u.writer, u.number FROM opossum_usage u, opossum_clock c
        WHERE u.at_ms <= c.now_ms - $1 LIMIT $2)";

/// Inserts rows numbered from `first` on by their writer.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    writer: i64,
    rows: &[(i64, UsageRecord)],
) -> Result<()> {
    let mut rest = rows;
    for (size, statement) in SIZES.iter().zip(INSERTS.iter()) {
        while rest.len() >= *size {
            let (chunk, more) = rest.split_at(*size);
            rest = more;
            let mut query = sqlx::query(statement.as_str());
            for (number, row) in chunk {
                query = bind(query.bind(writer).bind(*number), row);
            }
            query.execute(&mut *connection).await?;
        }
    }
    Ok(())
}

type Query = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

fn bind(query: Query, row: &UsageRecord) -> Query {
    let tokens = row.tokens;
    let arm = row.arm.as_ref();
    query
        .bind(row.at_ms)
        .bind(storable(&row.request_id))
        .bind(storable(&row.tenant))
        .bind(storable(&row.endpoint))
        .bind(storable(&row.asked_model))
        .bind(arm.map(|arm| storable(arm.service.as_str())))
        .bind(arm.map(|arm| storable(arm.model.as_str())))
        .bind(i64::from(row.attempts))
        .bind(storable(&row.cache))
        // No prompt is without tokens: theirs were not told.
        .bind(tokens.filter(|t| t.prompt > 0).map(|t| whole(t.prompt)))
        .bind(tokens.map(|t| whole(t.completion)))
        .bind(tokens.map(|t| whole(t.cached)))
        .bind(tokens.map(|t| whole(t.reasoning)))
        .bind(row.cost_nano_usd)
        .bind(micros(row.latency))
        .bind(row.first_token.map(micros))
        .bind(storable(&row.outcome))
}

/// The newest rows since a time, newest first.
pub(crate) async fn recent(
    connection: &mut AnyConnection,
    since_ms: i64,
    limit: u32,
) -> Result<Vec<UsageRecord>> {
    let query = sqlx::query(RECENT).bind(since_ms).bind(i64::from(limit));
    query.fetch_all(connection).await?.iter().map(record).collect()
}

/// Deletes at most `limit` rows older than this; how many.
pub(crate) async fn prune(connection: &mut AnyConnection, age: Duration, limit: u32) -> Result<u64> {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let query = sqlx::query(PRUNE).bind(age).bind(i64::from(limit));
    Ok(query.execute(connection).await?.rows_affected())
}

fn record(row: &AnyRow) -> Result<UsageRecord> {
    let text = |column: &str| row.try_get::<&str, _>(column).map(Arc::<str>::from);
    let word = |column: &str| row.try_get::<String, _>(column).map(Cow::Owned);
    let number = |column: &str| row.try_get::<i64, _>(column);
    let maybe = |column: &str| row.try_get::<Option<i64>, _>(column);
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    let part = |column: &str| Ok::<_, sqlx::Error>(positive(maybe(column)?.unwrap_or(0)));
    let tokens = match maybe("completion_tokens")? {
        None => None,
        Some(completion) => Some(Usage {
            prompt: part("prompt_tokens")?,
            completion: positive(completion),
            cached: part("cached_tokens")?,
            reasoning: part("reasoning_tokens")?,
        }),
    };
    Ok(UsageRecord {
        at_ms: number("at_ms")?,
        request_id: text("request_id")?,
        tenant: text("tenant")?,
        endpoint: word("endpoint")?,
        asked_model: text("asked_model")?,
        arm: arm(row.try_get("backend")?, row.try_get("model")?),
        attempts: u32::try_from(number("attempts")?).unwrap_or(0),
        cache: word("cache")?,
        tokens,
        cost_nano_usd: maybe("cost_nano_usd")?,
        latency: Duration::from_micros(positive(number("latency_us")?)),
        first_token: maybe("first_token_us")?.map(|us| Duration::from_micros(positive(us))),
        outcome: word("outcome")?,
    })
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
