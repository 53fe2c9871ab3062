-- SQLite looks a record's entries up by the primary key, of which it used only
-- the kind: whatever removed a record walked the entries of all of its kind. Now
-- the key begins with the record, and what is scanned has an index of its own.
CREATE TABLE agentkey_record_entries (
    organization TEXT NOT NULL,
    kind         TEXT NOT NULL,
    name         TEXT NOT NULL,
    value        TEXT NOT NULL,
    id           TEXT NOT NULL,
    CONSTRAINT agentkey_record_index_pkey PRIMARY KEY (organization, kind, id, name),
    CONSTRAINT agentkey_record_index_record_fkey FOREIGN KEY (organization, kind, id) REFERENCES agentkey_records (organization, kind, id),
    CONSTRAINT agentkey_record_index_entry CHECK (name <> '' AND octet_length(value) <= 512)
) STRICT, WITHOUT ROWID;
INSERT INTO agentkey_record_entries (organization, kind, name, value, id) SELECT organization, kind, name, value, id FROM agentkey_record_index;
DROP TABLE agentkey_record_index;
ALTER TABLE agentkey_record_entries RENAME TO agentkey_record_index;
CREATE INDEX agentkey_record_index_value ON agentkey_record_index (organization, kind, name, value, id);
