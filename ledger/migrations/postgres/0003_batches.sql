-- Batches: what they are is in the record; who works on one holds a lease, as with jobs.
CREATE TABLE opossum_batches (
    tenant     TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    input_file TEXT   NOT NULL,
    record     TEXT   NOT NULL,
    is_over    BIGINT NOT NULL DEFAULT 0,
    worker     TEXT,
    lease_ms   BIGINT NOT NULL DEFAULT 0,
    cancel_ms  BIGINT,
    created_ms BIGINT NOT NULL,
    changed_ms BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX opossum_batches_by_time ON opossum_batches (tenant, created_ms, id);
CREATE INDEX opossum_batches_by_lease ON opossum_batches (is_over, lease_ms);
CREATE INDEX opossum_batches_by_file ON opossum_batches (tenant, input_file, is_over);

-- A line has a row once something came of it: its part of the batch's files, or a failure that may pass.
CREATE TABLE opossum_batch_lines (
    tenant   TEXT   NOT NULL,
    batch_id TEXT   NOT NULL,
    line     BIGINT NOT NULL,
    attempt  BIGINT NOT NULL,
    faults   BIGINT NOT NULL,
    next_ms  BIGINT NOT NULL,
    outcome  TEXT   CHECK (outcome IN ('succeeded', 'failed')),
    output   BYTEA,
    PRIMARY KEY (tenant, batch_id, line)
);
