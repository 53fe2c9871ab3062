-- The first schema. Times are microseconds since the Unix epoch, 0 when not
-- set; hashes, seals and sealed values are bytes; lists are JSON arrays of
-- strings, which the database never looks into. There is no default, no
-- counter and no clock in here: every value comes from the program.
--
-- Vocabularies such as statuses are open and belong to the program, which
-- refuses a word that it does not know; the checks below hold what can never
-- change.

CREATE TABLE agentkey_organizations (
    id         TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    locked     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    seal       BLOB    NOT NULL,
    CONSTRAINT agentkey_organizations_pkey PRIMARY KEY (id),
    CONSTRAINT agentkey_organizations_id CHECK (id <> ''),
    CONSTRAINT agentkey_organizations_revision CHECK (revision >= 1),
    CONSTRAINT agentkey_organizations_locked CHECK (locked IN (0, 1))
) STRICT;

CREATE TABLE agentkey_agents (
    organization     TEXT    NOT NULL,
    id               TEXT    NOT NULL,
    revision         INTEGER NOT NULL,
    name             TEXT    NOT NULL,
    description      TEXT    NOT NULL,
    owner            TEXT    NOT NULL,
    created_by       TEXT    NOT NULL,
    created_by_label TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    seal             BLOB    NOT NULL,
    CONSTRAINT agentkey_agents_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_agents_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_agents_revision CHECK (revision >= 1)
) STRICT;

CREATE TABLE agentkey_keys (
    organization TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    agent_id     TEXT    NOT NULL,
    digest       BLOB    NOT NULL,
    revision     INTEGER NOT NULL,
    status       TEXT    NOT NULL,
    expires_at   INTEGER NOT NULL,
    addresses    TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    seal         BLOB    NOT NULL,
    CONSTRAINT agentkey_keys_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_keys_digest_key UNIQUE (digest),
    CONSTRAINT agentkey_keys_agent_fkey FOREIGN KEY (organization, agent_id) REFERENCES agentkey_agents (organization, id),
    CONSTRAINT agentkey_keys_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_keys_revision CHECK (revision >= 1),
    CONSTRAINT agentkey_keys_digest CHECK (length(digest) = 32)
) STRICT;

CREATE INDEX agentkey_keys_agent ON agentkey_keys (organization, agent_id, id);
CREATE INDEX agentkey_keys_due ON agentkey_keys (expires_at, organization, id)
    WHERE status = 'active' AND expires_at <> 0;

CREATE TABLE agentkey_tools (
    organization       TEXT    NOT NULL,
    id                 TEXT    NOT NULL,
    config_key         TEXT    NOT NULL,
    revision           INTEGER NOT NULL,
    name               TEXT    NOT NULL,
    description        TEXT    NOT NULL,
    url                TEXT    NOT NULL,
    auth_type          TEXT    NOT NULL,
    mode               TEXT    NOT NULL,
    required_approvals INTEGER NOT NULL,
    instructions       TEXT    NOT NULL,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    seal               BLOB    NOT NULL,
    CONSTRAINT agentkey_tools_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_tools_config_key_key UNIQUE (organization, config_key),
    CONSTRAINT agentkey_tools_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_tools_revision CHECK (revision >= 1)
) STRICT;

CREATE TABLE agentkey_grants (
    organization       TEXT    NOT NULL,
    id                 TEXT    NOT NULL,
    agent_id           TEXT    NOT NULL,
    tool_id            TEXT    NOT NULL,
    revision           INTEGER NOT NULL,
    cycle              INTEGER NOT NULL,
    status             TEXT    NOT NULL,
    asked_duration     INTEGER NOT NULL,
    asked_max_vends    INTEGER NOT NULL,
    asked_scopes       TEXT    NOT NULL,
    granted_duration   INTEGER NOT NULL,
    granted_max_vends  INTEGER NOT NULL,
    granted_scopes     TEXT    NOT NULL,
    reason             TEXT    NOT NULL,
    denial_reason      TEXT    NOT NULL,
    ticket             TEXT    NOT NULL,
    requested_at       INTEGER NOT NULL,
    decided_at         INTEGER NOT NULL,
    approved_at        INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    vends_used         INTEGER NOT NULL,
    decided_by         TEXT    NOT NULL,
    decided_by_label   TEXT    NOT NULL,
    decided_by_kind    TEXT    NOT NULL,
    required_approvals INTEGER NOT NULL,
    approvals          INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL,
    seal               BLOB    NOT NULL,
    CONSTRAINT agentkey_grants_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_grants_pair_key UNIQUE (organization, agent_id, tool_id),
    CONSTRAINT agentkey_grants_agent_fkey FOREIGN KEY (organization, agent_id) REFERENCES agentkey_agents (organization, id),
    CONSTRAINT agentkey_grants_tool_fkey FOREIGN KEY (organization, tool_id) REFERENCES agentkey_tools (organization, id),
    CONSTRAINT agentkey_grants_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_grants_revision CHECK (revision >= 1)
) STRICT;

CREATE INDEX agentkey_grants_tool ON agentkey_grants (organization, tool_id, id);
CREATE INDEX agentkey_grants_status ON agentkey_grants (organization, status, id);
CREATE INDEX agentkey_grants_due ON agentkey_grants (expires_at, organization, id)
    WHERE status = 'approved' AND expires_at <> 0;

-- A tool's own credential has no grant.
CREATE TABLE agentkey_credentials (
    organization    TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    tool_id         TEXT    NOT NULL,
    grant_id        TEXT,
    revision        INTEGER NOT NULL,
    auth_type       TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    expires_at      INTEGER NOT NULL,
    rotated_at      INTEGER NOT NULL,
    sealed          BLOB    NOT NULL,
    sealed_revision INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    seal            BLOB    NOT NULL,
    CONSTRAINT agentkey_credentials_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_credentials_tool_fkey FOREIGN KEY (organization, tool_id) REFERENCES agentkey_tools (organization, id),
    CONSTRAINT agentkey_credentials_grant_fkey FOREIGN KEY (organization, grant_id) REFERENCES agentkey_grants (organization, id),
    CONSTRAINT agentkey_credentials_id CHECK (organization <> '' AND id <> '' AND grant_id <> ''),
    CONSTRAINT agentkey_credentials_revision CHECK (revision >= 1)
) STRICT;

CREATE UNIQUE INDEX agentkey_credentials_place_key ON agentkey_credentials (organization, tool_id, coalesce(grant_id, ''));
CREATE INDEX agentkey_credentials_grant ON agentkey_credentials (organization, grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX agentkey_credentials_due ON agentkey_credentials (expires_at, organization, id)
    WHERE status = 'active' AND expires_at <> 0;

CREATE TABLE agentkey_approvals (
    organization      TEXT    NOT NULL,
    grant_id          TEXT    NOT NULL,
    cycle             INTEGER NOT NULL,
    actor_kind        TEXT    NOT NULL,
    actor             TEXT    NOT NULL,
    revision          INTEGER NOT NULL,
    actor_label       TEXT    NOT NULL,
    verdict           TEXT    NOT NULL,
    reason            TEXT    NOT NULL,
    time              INTEGER NOT NULL,
    granted_duration  INTEGER NOT NULL,
    granted_max_vends INTEGER NOT NULL,
    granted_scopes    TEXT    NOT NULL,
    owner_alone       INTEGER NOT NULL,
    seal              BLOB    NOT NULL,
    CONSTRAINT agentkey_approvals_pkey PRIMARY KEY (organization, grant_id, cycle, actor_kind, actor),
    CONSTRAINT agentkey_approvals_grant_fkey FOREIGN KEY (organization, grant_id) REFERENCES agentkey_grants (organization, id),
    CONSTRAINT agentkey_approvals_id CHECK (organization <> '' AND grant_id <> ''),
    CONSTRAINT agentkey_approvals_revision CHECK (revision >= 1),
    CONSTRAINT agentkey_approvals_owner_alone CHECK (owner_alone IN (0, 1))
) STRICT;

CREATE TABLE agentkey_data_keys (
    organization TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    purpose      TEXT    NOT NULL,
    revision     INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    provider     TEXT    NOT NULL,
    wrapped      BLOB    NOT NULL,
    reserved     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    seal         BLOB    NOT NULL,
    CONSTRAINT agentkey_data_keys_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_data_keys_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_data_keys_revision CHECK (revision >= 1)
) STRICT;

CREATE UNIQUE INDEX agentkey_data_keys_active_key ON agentkey_data_keys (organization, purpose) WHERE state = 'active';

-- The heads: one row for each log, rewritten by every commit.
CREATE TABLE agentkey_logs (
    organization TEXT    NOT NULL,
    epoch        INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    edge         BLOB    NOT NULL,
    signed       BLOB    NOT NULL,
    time         INTEGER NOT NULL,
    seal         BLOB    NOT NULL,
    kept_size    INTEGER NOT NULL,
    kept_time    INTEGER NOT NULL,
    CONSTRAINT agentkey_logs_pkey PRIMARY KEY (organization),
    CONSTRAINT agentkey_logs_id CHECK (organization <> ''),
    CONSTRAINT agentkey_logs_size CHECK (size >= 0 AND kept_size >= 0 AND kept_size <= size),
    CONSTRAINT agentkey_logs_edge CHECK (length(edge) % 32 = 0 AND (size = 0) = (length(edge) = 0)),
    CONSTRAINT agentkey_logs_signed CHECK (size = 0 OR length(signed) > 0)
) STRICT;

-- What was logged. Every write here is paid for by a vend, so that the table
-- has no index but its key. A NULL is what was never there or was erased.
CREATE TABLE agentkey_events (
    organization TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    content      BLOB,
    personal     BLOB,
    CONSTRAINT agentkey_events_pkey PRIMARY KEY (organization, seq),
    CONSTRAINT agentkey_events_seq CHECK (organization <> '' AND seq >= 0)
) STRICT;

-- The leaves of the logs, kept for ever.
CREATE TABLE agentkey_leaves (
    organization TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    hash         BLOB    NOT NULL,
    CONSTRAINT agentkey_leaves_pkey PRIMARY KEY (organization, seq),
    CONSTRAINT agentkey_leaves_seq CHECK (organization <> '' AND seq >= 0),
    CONSTRAINT agentkey_leaves_hash CHECK (length(hash) = 32)
) STRICT, WITHOUT ROWID;

CREATE TABLE agentkey_checkpoints (
    organization TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    signed       BLOB    NOT NULL,
    CONSTRAINT agentkey_checkpoints_pkey PRIMARY KEY (organization, size),
    CONSTRAINT agentkey_checkpoints_size CHECK (organization <> '' AND size >= 1),
    CONSTRAINT agentkey_checkpoints_signed CHECK (length(signed) > 0)
) STRICT, WITHOUT ROWID;

-- What the log is searched by. The three tables are derived from the events,
-- behind the log's back, up to the cursor; they may be emptied at any time.
CREATE TABLE agentkey_event_cursors (
    organization TEXT    NOT NULL,
    next_seq     INTEGER NOT NULL,
    CONSTRAINT agentkey_event_cursors_pkey PRIMARY KEY (organization),
    CONSTRAINT agentkey_event_cursors_seq CHECK (organization <> '' AND next_seq >= 0)
) STRICT;

CREATE TABLE agentkey_event_times (
    organization TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    time         INTEGER NOT NULL,
    CONSTRAINT agentkey_event_times_pkey PRIMARY KEY (organization, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX agentkey_event_times_time ON agentkey_event_times (organization, time, seq);

CREATE TABLE agentkey_event_terms (
    organization TEXT    NOT NULL,
    term         TEXT    NOT NULL,
    value        TEXT    NOT NULL,
    seq          INTEGER NOT NULL,
    CONSTRAINT agentkey_event_terms_pkey PRIMARY KEY (organization, term, value, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE agentkey_records (
    organization TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    revision     INTEGER NOT NULL,
    entries      TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    updated_at   INTEGER NOT NULL,
    seal         BLOB    NOT NULL,
    CONSTRAINT agentkey_records_pkey PRIMARY KEY (organization, kind, id),
    CONSTRAINT agentkey_records_id CHECK (organization <> '' AND id <> '' AND octet_length(id) <= 200),
    CONSTRAINT agentkey_records_kind CHECK (length(kind) BETWEEN 1 AND 64 AND kind NOT GLOB '*[^a-z_]*'),
    CONSTRAINT agentkey_records_revision CHECK (revision >= 1),
    CONSTRAINT agentkey_records_payload CHECK (length(payload) <= 1048576)
) STRICT;

CREATE INDEX agentkey_records_route ON agentkey_records (kind, id, organization);

CREATE TABLE agentkey_record_index (
    organization TEXT NOT NULL,
    kind         TEXT NOT NULL,
    name         TEXT NOT NULL,
    value        TEXT NOT NULL,
    id           TEXT NOT NULL,
    CONSTRAINT agentkey_record_index_pkey PRIMARY KEY (organization, kind, name, value, id),
    CONSTRAINT agentkey_record_index_entry_key UNIQUE (organization, kind, id, name),
    CONSTRAINT agentkey_record_index_record_fkey FOREIGN KEY (organization, kind, id) REFERENCES agentkey_records (organization, kind, id),
    CONSTRAINT agentkey_record_index_entry CHECK (name <> '' AND octet_length(value) <= 512)
) STRICT, WITHOUT ROWID;

CREATE TABLE agentkey_outbox (
    organization TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    state        TEXT    NOT NULL,
    attempts     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    next_at      INTEGER NOT NULL,
    lease_until  INTEGER NOT NULL,
    lease_node   TEXT    NOT NULL,
    last_error   TEXT    NOT NULL,
    CONSTRAINT agentkey_outbox_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_outbox_id CHECK (organization <> '' AND id <> '')
) STRICT;

CREATE INDEX agentkey_outbox_due ON agentkey_outbox (next_at, organization, id) WHERE state = 'pending';

CREATE TABLE agentkey_windows (
    organization TEXT    NOT NULL,
    tier         TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    times        BLOB    NOT NULL,
    updated_at   INTEGER NOT NULL,
    CONSTRAINT agentkey_windows_pkey PRIMARY KEY (organization, tier, subject),
    CONSTRAINT agentkey_windows_id CHECK (organization <> ''),
    CONSTRAINT agentkey_windows_times CHECK (length(times) > 0)
) STRICT;

-- The log only grows, and what stands in it can only be erased. The triggers
-- stop accidents; against an attacker stands the signed head.

CREATE TRIGGER agentkey_logs_grow BEFORE UPDATE ON agentkey_logs
WHEN new.organization IS NOT old.organization OR new.size < old.size OR new.epoch < old.epoch
    OR new.time < old.time OR new.kept_size < old.kept_size
BEGIN SELECT RAISE(ABORT, 'agentkey: a log only grows'); END;

CREATE TRIGGER agentkey_logs_stay BEFORE DELETE ON agentkey_logs
WHEN old.size > 0
BEGIN SELECT RAISE(ABORT, 'agentkey: a log only grows'); END;

CREATE TRIGGER agentkey_events_erase BEFORE UPDATE ON agentkey_events
WHEN new.organization IS NOT old.organization OR new.seq IS NOT old.seq
    OR (new.content IS NOT NULL AND new.content IS NOT old.content)
    OR (new.personal IS NOT NULL AND new.personal IS NOT old.personal)
BEGIN SELECT RAISE(ABORT, 'agentkey: an event is erased, never changed'); END;

CREATE TRIGGER agentkey_events_stay BEFORE DELETE ON agentkey_events
BEGIN SELECT RAISE(ABORT, 'agentkey: an event is erased, never deleted'); END;

CREATE TRIGGER agentkey_leaves_keep BEFORE UPDATE ON agentkey_leaves
BEGIN SELECT RAISE(ABORT, 'agentkey: a leaf is never changed'); END;

CREATE TRIGGER agentkey_leaves_stay BEFORE DELETE ON agentkey_leaves
BEGIN SELECT RAISE(ABORT, 'agentkey: a leaf is never deleted'); END;

CREATE TRIGGER agentkey_checkpoints_keep BEFORE UPDATE ON agentkey_checkpoints
BEGIN SELECT RAISE(ABORT, 'agentkey: a checkpoint is never changed'); END;

CREATE TRIGGER agentkey_checkpoints_stay BEFORE DELETE ON agentkey_checkpoints
BEGIN SELECT RAISE(ABORT, 'agentkey: a checkpoint is never deleted'); END;
