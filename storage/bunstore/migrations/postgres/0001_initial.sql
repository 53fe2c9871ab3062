-- The first schema. Times are microseconds since the Unix epoch, 0 when not
-- set; hashes, seals and sealed values are bytes; lists are JSON arrays of
-- strings, which the database never looks into. There is no default, no
-- counter and no clock in here: every value comes from the program.
--
-- Vocabularies such as statuses are open and belong to the program, which
-- refuses a word that it does not know; the checks below hold what can never
-- change.

CREATE TABLE ${schema}.agentkey_organizations (
    id         text COLLATE "C" NOT NULL,
    revision   bigint           NOT NULL,
    name       text COLLATE "C" NOT NULL,
    locked     boolean          NOT NULL,
    created_at bigint           NOT NULL,
    updated_at bigint           NOT NULL,
    seal       bytea            NOT NULL,
    CONSTRAINT agentkey_organizations_pkey PRIMARY KEY (id),
    CONSTRAINT agentkey_organizations_id CHECK (id <> ''),
    CONSTRAINT agentkey_organizations_revision CHECK (revision >= 1)
);

CREATE TABLE ${schema}.agentkey_agents (
    organization     text COLLATE "C" NOT NULL,
    id               text COLLATE "C" NOT NULL,
    revision         bigint           NOT NULL,
    name             text COLLATE "C" NOT NULL,
    description      text COLLATE "C" NOT NULL,
    owner            text COLLATE "C" NOT NULL,
    created_by       text COLLATE "C" NOT NULL,
    created_by_label text COLLATE "C" NOT NULL,
    status           text COLLATE "C" NOT NULL,
    created_at       bigint           NOT NULL,
    updated_at       bigint           NOT NULL,
    seal             bytea            NOT NULL,
    CONSTRAINT agentkey_agents_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_agents_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_agents_revision CHECK (revision >= 1)
);

CREATE TABLE ${schema}.agentkey_keys (
    organization text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    agent_id     text COLLATE "C" NOT NULL,
    digest       bytea            NOT NULL,
    revision     bigint           NOT NULL,
    status       text COLLATE "C" NOT NULL,
    expires_at   bigint           NOT NULL,
    addresses    text COLLATE "C" NOT NULL,
    created_at   bigint           NOT NULL,
    updated_at   bigint           NOT NULL,
    seal         bytea            NOT NULL,
    CONSTRAINT agentkey_keys_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_keys_digest_key UNIQUE (digest),
    CONSTRAINT agentkey_keys_agent_fkey FOREIGN KEY (organization, agent_id) REFERENCES ${schema}.agentkey_agents (organization, id),
    CONSTRAINT agentkey_keys_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_keys_revision CHECK (revision >= 1),
    CONSTRAINT agentkey_keys_digest CHECK (length(digest) = 32)
);

CREATE INDEX agentkey_keys_agent ON ${schema}.agentkey_keys (organization, agent_id, id);
CREATE INDEX agentkey_keys_due ON ${schema}.agentkey_keys (expires_at, organization, id)
    WHERE status = 'active' AND expires_at <> 0;

CREATE TABLE ${schema}.agentkey_tools (
    organization       text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL,
    config_key         text COLLATE "C" NOT NULL,
    revision           bigint           NOT NULL,
    name               text COLLATE "C" NOT NULL,
    description        text COLLATE "C" NOT NULL,
    url                text COLLATE "C" NOT NULL,
    auth_type          text COLLATE "C" NOT NULL,
    mode               text COLLATE "C" NOT NULL,
    required_approvals bigint           NOT NULL,
    instructions       text COLLATE "C" NOT NULL,
    created_at         bigint           NOT NULL,
    updated_at         bigint           NOT NULL,
    seal               bytea            NOT NULL,
    CONSTRAINT agentkey_tools_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_tools_config_key_key UNIQUE (organization, config_key),
    CONSTRAINT agentkey_tools_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_tools_revision CHECK (revision >= 1)
);

CREATE TABLE ${schema}.agentkey_grants (
    organization       text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL,
    agent_id           text COLLATE "C" NOT NULL,
    tool_id            text COLLATE "C" NOT NULL,
    revision           bigint           NOT NULL,
    cycle              bigint           NOT NULL,
    status             text COLLATE "C" NOT NULL,
    asked_duration     bigint           NOT NULL,
    asked_max_vends    bigint           NOT NULL,
    asked_scopes       text COLLATE "C" NOT NULL,
    granted_duration   bigint           NOT NULL,
    granted_max_vends  bigint           NOT NULL,
    granted_scopes     text COLLATE "C" NOT NULL,
    reason             text COLLATE "C" NOT NULL,
    denial_reason      text COLLATE "C" NOT NULL,
    ticket             text COLLATE "C" NOT NULL,
    requested_at       bigint           NOT NULL,
    decided_at         bigint           NOT NULL,
    approved_at        bigint           NOT NULL,
    expires_at         bigint           NOT NULL,
    vends_used         bigint           NOT NULL,
    decided_by         text COLLATE "C" NOT NULL,
    decided_by_label   text COLLATE "C" NOT NULL,
    decided_by_kind    text COLLATE "C" NOT NULL,
    required_approvals bigint           NOT NULL,
    approvals          bigint           NOT NULL,
    created_at         bigint           NOT NULL,
    updated_at         bigint           NOT NULL,
    seal               bytea            NOT NULL,
    CONSTRAINT agentkey_grants_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_grants_pair_key UNIQUE (organization, agent_id, tool_id),
    CONSTRAINT agentkey_grants_agent_fkey FOREIGN KEY (organization, agent_id) REFERENCES ${schema}.agentkey_agents (organization, id),
    CONSTRAINT agentkey_grants_tool_fkey FOREIGN KEY (organization, tool_id) REFERENCES ${schema}.agentkey_tools (organization, id),
    CONSTRAINT agentkey_grants_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_grants_revision CHECK (revision >= 1)
);

CREATE INDEX agentkey_grants_tool ON ${schema}.agentkey_grants (organization, tool_id, id);
CREATE INDEX agentkey_grants_status ON ${schema}.agentkey_grants (organization, status, id);
CREATE INDEX agentkey_grants_due ON ${schema}.agentkey_grants (expires_at, organization, id)
    WHERE status = 'approved' AND expires_at <> 0;

-- A tool's own credential has no grant.
CREATE TABLE ${schema}.agentkey_credentials (
    organization    text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    tool_id         text COLLATE "C" NOT NULL,
    grant_id        text COLLATE "C",
    revision        bigint           NOT NULL,
    auth_type       text COLLATE "C" NOT NULL,
    status          text COLLATE "C" NOT NULL,
    expires_at      bigint           NOT NULL,
    rotated_at      bigint           NOT NULL,
    sealed          bytea            NOT NULL,
    sealed_revision bigint           NOT NULL,
    created_at      bigint           NOT NULL,
    updated_at      bigint           NOT NULL,
    seal            bytea            NOT NULL,
    CONSTRAINT agentkey_credentials_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_credentials_tool_fkey FOREIGN KEY (organization, tool_id) REFERENCES ${schema}.agentkey_tools (organization, id),
    CONSTRAINT agentkey_credentials_grant_fkey FOREIGN KEY (organization, grant_id) REFERENCES ${schema}.agentkey_grants (organization, id),
    CONSTRAINT agentkey_credentials_id CHECK (organization <> '' AND id <> '' AND grant_id <> ''),
    CONSTRAINT agentkey_credentials_revision CHECK (revision >= 1)
);

CREATE UNIQUE INDEX agentkey_credentials_place_key ON ${schema}.agentkey_credentials (organization, tool_id, coalesce(grant_id, ''));
CREATE INDEX agentkey_credentials_grant ON ${schema}.agentkey_credentials (organization, grant_id) WHERE grant_id IS NOT NULL;
CREATE INDEX agentkey_credentials_due ON ${schema}.agentkey_credentials (expires_at, organization, id)
    WHERE status = 'active' AND expires_at <> 0;

CREATE TABLE ${schema}.agentkey_approvals (
    organization      text COLLATE "C" NOT NULL,
    grant_id          text COLLATE "C" NOT NULL,
    cycle             bigint           NOT NULL,
    actor_kind        text COLLATE "C" NOT NULL,
    actor             text COLLATE "C" NOT NULL,
    revision          bigint           NOT NULL,
    actor_label       text COLLATE "C" NOT NULL,
    verdict           text COLLATE "C" NOT NULL,
    reason            text COLLATE "C" NOT NULL,
    time              bigint           NOT NULL,
    granted_duration  bigint           NOT NULL,
    granted_max_vends bigint           NOT NULL,
    granted_scopes    text COLLATE "C" NOT NULL,
    owner_alone       boolean          NOT NULL,
    seal              bytea            NOT NULL,
    CONSTRAINT agentkey_approvals_pkey PRIMARY KEY (organization, grant_id, cycle, actor_kind, actor),
    CONSTRAINT agentkey_approvals_grant_fkey FOREIGN KEY (organization, grant_id) REFERENCES ${schema}.agentkey_grants (organization, id),
    CONSTRAINT agentkey_approvals_id CHECK (organization <> '' AND grant_id <> ''),
    CONSTRAINT agentkey_approvals_revision CHECK (revision >= 1)
);

CREATE TABLE ${schema}.agentkey_data_keys (
    organization text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    purpose      text COLLATE "C" NOT NULL,
    revision     bigint           NOT NULL,
    state        text COLLATE "C" NOT NULL,
    provider     text COLLATE "C" NOT NULL,
    wrapped      bytea            NOT NULL,
    reserved     bigint           NOT NULL,
    created_at   bigint           NOT NULL,
    updated_at   bigint           NOT NULL,
    seal         bytea            NOT NULL,
    CONSTRAINT agentkey_data_keys_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_data_keys_id CHECK (organization <> '' AND id <> ''),
    CONSTRAINT agentkey_data_keys_revision CHECK (revision >= 1)
);

CREATE UNIQUE INDEX agentkey_data_keys_active_key ON ${schema}.agentkey_data_keys (organization, purpose) WHERE state = 'active';

-- The heads: one row for each log, rewritten by every commit. The free space
-- lets a new version stand beside the old one, in the same page.
CREATE TABLE ${schema}.agentkey_logs (
    organization text COLLATE "C" NOT NULL,
    epoch        bigint           NOT NULL,
    size         bigint           NOT NULL,
    edge         bytea            NOT NULL,
    signed       bytea            NOT NULL,
    time         bigint           NOT NULL,
    seal         bytea            NOT NULL,
    kept_size    bigint           NOT NULL,
    kept_time    bigint           NOT NULL,
    CONSTRAINT agentkey_logs_pkey PRIMARY KEY (organization),
    CONSTRAINT agentkey_logs_id CHECK (organization <> ''),
    CONSTRAINT agentkey_logs_size CHECK (size >= 0 AND kept_size >= 0 AND kept_size <= size),
    CONSTRAINT agentkey_logs_edge CHECK (length(edge) % 32 = 0 AND (size = 0) = (length(edge) = 0)),
    CONSTRAINT agentkey_logs_signed CHECK (size = 0 OR length(signed) > 0)
) WITH (fillfactor = 25);

-- What was logged. Every write here is paid for by a vend, so that the table
-- has no index but its key. A NULL is what was never there or was erased.
CREATE TABLE ${schema}.agentkey_events (
    organization text COLLATE "C" NOT NULL,
    seq          bigint           NOT NULL,
    content      bytea,
    personal     bytea,
    CONSTRAINT agentkey_events_pkey PRIMARY KEY (organization, seq),
    CONSTRAINT agentkey_events_seq CHECK (organization <> '' AND seq >= 0)
);

-- The leaves of the logs, kept for ever.
CREATE TABLE ${schema}.agentkey_leaves (
    organization text COLLATE "C" NOT NULL,
    seq          bigint           NOT NULL,
    hash         bytea            NOT NULL,
    CONSTRAINT agentkey_leaves_pkey PRIMARY KEY (organization, seq),
    CONSTRAINT agentkey_leaves_seq CHECK (organization <> '' AND seq >= 0),
    CONSTRAINT agentkey_leaves_hash CHECK (length(hash) = 32)
);

CREATE TABLE ${schema}.agentkey_checkpoints (
    organization text COLLATE "C" NOT NULL,
    size         bigint           NOT NULL,
    signed       bytea            NOT NULL,
    CONSTRAINT agentkey_checkpoints_pkey PRIMARY KEY (organization, size),
    CONSTRAINT agentkey_checkpoints_size CHECK (organization <> '' AND size >= 1),
    CONSTRAINT agentkey_checkpoints_signed CHECK (length(signed) > 0)
);

-- What the log is searched by. The three tables are derived from the events,
-- behind the log's back, up to the cursor; they may be emptied at any time.
CREATE TABLE ${schema}.agentkey_event_cursors (
    organization text COLLATE "C" NOT NULL,
    next_seq     bigint           NOT NULL,
    CONSTRAINT agentkey_event_cursors_pkey PRIMARY KEY (organization),
    CONSTRAINT agentkey_event_cursors_seq CHECK (organization <> '' AND next_seq >= 0)
);

CREATE TABLE ${schema}.agentkey_event_times (
    organization text COLLATE "C" NOT NULL,
    seq          bigint           NOT NULL,
    time         bigint           NOT NULL,
    CONSTRAINT agentkey_event_times_pkey PRIMARY KEY (organization, seq)
);

CREATE INDEX agentkey_event_times_time ON ${schema}.agentkey_event_times (organization, time, seq);

CREATE TABLE ${schema}.agentkey_event_terms (
    organization text COLLATE "C" NOT NULL,
    term         text COLLATE "C" NOT NULL,
    value        text COLLATE "C" NOT NULL,
    seq          bigint           NOT NULL,
    CONSTRAINT agentkey_event_terms_pkey PRIMARY KEY (organization, term, value, seq)
);

CREATE TABLE ${schema}.agentkey_records (
    organization text COLLATE "C" NOT NULL,
    kind         text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    revision     bigint           NOT NULL,
    entries      text COLLATE "C" NOT NULL,
    payload      bytea            NOT NULL,
    updated_at   bigint           NOT NULL,
    seal         bytea            NOT NULL,
    CONSTRAINT agentkey_records_pkey PRIMARY KEY (organization, kind, id),
    CONSTRAINT agentkey_records_id CHECK (organization <> '' AND id <> '' AND octet_length(id) <= 200),
    CONSTRAINT agentkey_records_kind CHECK (kind ~ '^[a-z_]{1,64}$'),
    CONSTRAINT agentkey_records_revision CHECK (revision >= 1),
    CONSTRAINT agentkey_records_payload CHECK (length(payload) <= 1048576)
);

CREATE INDEX agentkey_records_route ON ${schema}.agentkey_records (kind, id, organization);

CREATE TABLE ${schema}.agentkey_record_index (
    organization text COLLATE "C" NOT NULL,
    kind         text COLLATE "C" NOT NULL,
    name         text COLLATE "C" NOT NULL,
    value        text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    CONSTRAINT agentkey_record_index_pkey PRIMARY KEY (organization, kind, name, value, id),
    CONSTRAINT agentkey_record_index_entry_key UNIQUE (organization, kind, id, name),
    CONSTRAINT agentkey_record_index_record_fkey FOREIGN KEY (organization, kind, id) REFERENCES ${schema}.agentkey_records (organization, kind, id),
    CONSTRAINT agentkey_record_index_entry CHECK (name <> '' AND octet_length(value) <= 512)
);

CREATE TABLE ${schema}.agentkey_outbox (
    organization text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    topic        text COLLATE "C" NOT NULL,
    payload      bytea            NOT NULL,
    state        text COLLATE "C" NOT NULL,
    attempts     bigint           NOT NULL,
    created_at   bigint           NOT NULL,
    next_at      bigint           NOT NULL,
    lease_until  bigint           NOT NULL,
    lease_node   text COLLATE "C" NOT NULL,
    last_error   text COLLATE "C" NOT NULL,
    CONSTRAINT agentkey_outbox_pkey PRIMARY KEY (organization, id),
    CONSTRAINT agentkey_outbox_id CHECK (organization <> '' AND id <> '')
);

CREATE INDEX agentkey_outbox_due ON ${schema}.agentkey_outbox (next_at, organization, id) WHERE state = 'pending';

CREATE TABLE ${schema}.agentkey_windows (
    organization text COLLATE "C" NOT NULL,
    tier         text COLLATE "C" NOT NULL,
    subject      text COLLATE "C" NOT NULL,
    times        bytea            NOT NULL,
    updated_at   bigint           NOT NULL,
    CONSTRAINT agentkey_windows_pkey PRIMARY KEY (organization, tier, subject),
    CONSTRAINT agentkey_windows_id CHECK (organization <> ''),
    CONSTRAINT agentkey_windows_times CHECK (length(times) > 0)
) WITH (fillfactor = 50);

-- The log only grows, and what stands in it can only be erased. The triggers
-- stop accidents; against an attacker stands the signed head.

CREATE FUNCTION ${schema}.agentkey_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'agentkey: % is refused on %', TG_OP, TG_TABLE_NAME;
END
$$;

CREATE TRIGGER agentkey_logs_grow BEFORE UPDATE ON ${schema}.agentkey_logs FOR EACH ROW
    WHEN (new.organization <> old.organization OR new.size < old.size OR new.epoch < old.epoch
        OR new.time < old.time OR new.kept_size < old.kept_size)
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_logs_stay BEFORE DELETE ON ${schema}.agentkey_logs FOR EACH ROW
    WHEN (old.size > 0)
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_events_erase BEFORE UPDATE ON ${schema}.agentkey_events FOR EACH ROW
    WHEN (new.organization <> old.organization OR new.seq <> old.seq
        OR (new.content IS NOT NULL AND new.content IS DISTINCT FROM old.content)
        OR (new.personal IS NOT NULL AND new.personal IS DISTINCT FROM old.personal))
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_events_stay BEFORE DELETE ON ${schema}.agentkey_events FOR EACH ROW
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_leaves_keep BEFORE UPDATE OR DELETE ON ${schema}.agentkey_leaves FOR EACH ROW
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_checkpoints_keep BEFORE UPDATE OR DELETE ON ${schema}.agentkey_checkpoints FOR EACH ROW
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_logs_truncate BEFORE TRUNCATE ON ${schema}.agentkey_logs
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_events_truncate BEFORE TRUNCATE ON ${schema}.agentkey_events
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_leaves_truncate BEFORE TRUNCATE ON ${schema}.agentkey_leaves
    EXECUTE FUNCTION ${schema}.agentkey_refuse();

CREATE TRIGGER agentkey_checkpoints_truncate BEFORE TRUNCATE ON ${schema}.agentkey_checkpoints
    EXECUTE FUNCTION ${schema}.agentkey_refuse();
