-- Postgres looks a record's entries up by the constraint entry_key, as it should:
-- this number is for SQLite, which did not.
SELECT 1;
