-- Files that callers keep here, in pieces: none of them has to lie in memory whole.
CREATE TABLE opossum_files (
    tenant     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('writing', 'ready', 'gone')),
    purpose    TEXT    NOT NULL,
    filename   TEXT    NOT NULL,
    bytes      INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE INDEX opossum_files_by_time ON opossum_files (tenant, created_ms, id);
CREATE INDEX opossum_files_by_end ON opossum_files (state, expires_ms);

CREATE TABLE opossum_file_pieces (
    tenant TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    number INTEGER NOT NULL,
    data   BLOB    NOT NULL,
    PRIMARY KEY (tenant, id, number)
) STRICT;
