-- The database's own clock, so that all who share it agree on when a lease ends.
CREATE VIEW opossum_clock (now_ms) AS SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER);

CREATE TABLE opossum_jobs (
    tenant        TEXT    NOT NULL,
    message_id    TEXT    NOT NULL,
    body_hash     BLOB,
    state         TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    worker        TEXT,
    lease_ms      INTEGER NOT NULL DEFAULT 0,
    runs          INTEGER NOT NULL DEFAULT 0,
    created_ms    INTEGER NOT NULL,
    changed_ms    INTEGER NOT NULL,
    reply_status  INTEGER,
    reply_headers TEXT,
    reply_body    BLOB,
    PRIMARY KEY (tenant, message_id)
) STRICT;

CREATE INDEX opossum_jobs_by_state ON opossum_jobs (state, changed_ms);

CREATE TABLE opossum_usage (
    writer            INTEGER NOT NULL,
    number            INTEGER NOT NULL,
    at_ms             INTEGER NOT NULL,
    request_id        TEXT    NOT NULL,
    tenant            TEXT    NOT NULL,
    endpoint          TEXT    NOT NULL,
    asked_model       TEXT    NOT NULL,
    backend           TEXT,
    model             TEXT,
    attempts          INTEGER NOT NULL,
    cache             TEXT    NOT NULL,
    prompt_tokens     INTEGER,
    completion_tokens INTEGER,
    cached_tokens     INTEGER,
    reasoning_tokens  INTEGER,
    cost_nano_usd     INTEGER,
    latency_us        INTEGER NOT NULL,
    first_token_us    INTEGER,
    outcome           TEXT    NOT NULL,
    PRIMARY KEY (writer, number)
) STRICT;

CREATE INDEX opossum_usage_by_time ON opossum_usage (at_ms);

CREATE TABLE opossum_pulse (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    at_ms    INTEGER NOT NULL
) STRICT;
