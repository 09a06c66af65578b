-- The database's own clock, so that all who share it agree on when a lease ends.
CREATE VIEW opossum_clock (now_ms) AS SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT);

CREATE TABLE opossum_jobs (
    tenant        TEXT    NOT NULL,
    message_id    TEXT    NOT NULL,
    body_hash     BYTEA,
    state         TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    worker        TEXT,
    lease_ms      BIGINT  NOT NULL DEFAULT 0,
    runs          BIGINT  NOT NULL DEFAULT 0,
    created_ms    BIGINT  NOT NULL,
    changed_ms    BIGINT  NOT NULL,
    reply_status  BIGINT,
    reply_headers TEXT,
    reply_body    BYTEA,
    PRIMARY KEY (tenant, message_id)
);

CREATE INDEX opossum_jobs_by_state ON opossum_jobs (state, changed_ms);

CREATE TABLE opossum_usage (
    writer            BIGINT  NOT NULL,
    number            BIGINT  NOT NULL,
    at_ms             BIGINT  NOT NULL,
    request_id        TEXT    NOT NULL,
    tenant            TEXT    NOT NULL,
    endpoint          TEXT    NOT NULL,
    asked_model       TEXT    NOT NULL,
    backend           TEXT,
    model             TEXT,
    attempts          BIGINT  NOT NULL,
    cache             TEXT    NOT NULL,
    prompt_tokens     BIGINT,
    completion_tokens BIGINT,
    cached_tokens     BIGINT,
    reasoning_tokens  BIGINT,
    cost_nano_usd     BIGINT,
    latency_us        BIGINT  NOT NULL,
    first_token_us    BIGINT,
    outcome           TEXT    NOT NULL,
    PRIMARY KEY (writer, number)
);

CREATE INDEX opossum_usage_by_time ON opossum_usage (at_ms);

CREATE TABLE opossum_pulse (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    at_ms    BIGINT NOT NULL
);
