-- What preflight tells of keys: whether the application gives the sharding key, values that a column
-- can't hold, what no longer works as the unique keys get wider. As an owner who is nobody special.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE EXTENSION IF NOT EXISTS migrate_ext;
CREATE ROLE preflight_key_owner;
CREATE SCHEMA preflight_key AUTHORIZATION preflight_key_owner;
SET search_path = preflight_key;
SET ROLE preflight_key_owner;
\pset format unaligned
\pset tuples_only on
-- of an object like this; times differ from run to run
CREATE FUNCTION told(migration text, like_this text DEFAULT '%') RETURNS TABLE (severity text, object text, problem text, remedy text)
LANGUAGE sql AS $$
    SELECT p.severity, p.object, regexp_replace(p.problem, '\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'TIME'), p.remedy
    FROM migrate_ext.preflight(told.migration) p WHERE p.object LIKE like_this $$;

-- does the application give the key?
CREATE TABLE diffs (id bigint PRIMARY KEY, project_id bigint);
CREATE TABLE commits (diff_id bigint, place int, sha text, PRIMARY KEY (diff_id, place));
INSERT INTO diffs SELECT d, d % 3 FROM generate_series(1, 4) d;
INSERT INTO commits SELECT d, p, 'old' FROM generate_series(1, 5) d, generate_series(1, 2) p;
SELECT pg_stat_force_next_flush();
SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'bigint',
    '(SELECT d.project_id FROM diffs d WHERE d.id = s.diff_id)');
SELECT migrate_ext.partition_by_hash('commits', 'project_id', 2);
SELECT pg_stat_force_next_flush();
-- nothing has been inserted; rows 5 have no parent
SELECT * FROM told('commits');
-- by all INSERTs
INSERT INTO commits VALUES (1, 3, 'given', 1), (2, 3, 'given', 2), (3, 3, 'given', 0);
SELECT pg_stat_force_next_flush();
SELECT severity, problem, remedy FROM told('commits', 'column project_id%') WHERE problem !~ '^has a value';
-- not by these; an UPDATE of an old row is none of them, an INSERT rolled back is
INSERT INTO commits VALUES (1, 4, 'left out');
UPDATE commits SET sha = 'old, written' WHERE place = 1;
BEGIN;
INSERT INTO commits VALUES (2, 4, 'rolled back');
ROLLBACK;
SELECT pg_stat_force_next_flush();
SELECT severity, problem, remedy FROM told('commits', 'column project_id%') WHERE problem !~ '^has a value';
RESET ROLE;
SELECT extract(epoch FROM now()) - last_value BETWEEN 0 AND 60 AS now
FROM (SELECT format('migrate_ext.fill_%s', id)::regclass::oid FROM migrate_ext.sharding_key WHERE relation = 'commits'::regclass) k (oid)
CROSS JOIN LATERAL pg_sequence_last_value(k.oid) last_value;
SET ROLE preflight_key_owner;
-- rows that got none: the value comes to nothing, or the trigger is away
DELETE FROM commits WHERE diff_id = 5;
INSERT INTO commits VALUES (6, 1, 'no parent');
ALTER TABLE commits DISABLE TRIGGER "!migrate_ext_fill";
INSERT INTO commits VALUES (3, 5, 'not filled');
SELECT severity, object, problem, remedy FROM told('commits') WHERE problem ~ 'NULL';
ALTER TABLE commits ENABLE ALWAYS TRIGGER "!migrate_ext_fill";
-- a sample that would cost too much isn't taken
SET seq_page_cost = 1000000;
SET random_page_cost = 1000000;
SELECT severity, object, regexp_replace(problem, '\d+', 'N'), remedy FROM told('commits') WHERE problem ~ 'planner';
RESET seq_page_cost;
RESET random_page_cost;
-- what the value names is no longer there; the application that gives the key doesn't notice
ALTER TABLE diffs RENAME project_id TO project;
SELECT severity, object, problem, remedy FROM told('commits', 'migration%');
\set VERBOSITY sqlstate
INSERT INTO commits VALUES (1, 6, 'left out');
\set VERBOSITY default
INSERT INTO commits VALUES (1, 6, 'given', 1);
ALTER TABLE diffs RENAME project TO project_id;
SELECT count(*) FROM told('commits', 'migration%');
-- live, swapped (nothing of all that: a row without key is refused there), back
DELETE FROM commits WHERE diff_id = 6;
CALL migrate_ext.run('commits');
SELECT severity, object FROM told('commits');
CALL migrate_ext.finalize('commits', '30 seconds');
SELECT * FROM told('commits');
\set VERBOSITY sqlstate
INSERT INTO commits VALUES (1, 7, 'left out');
\set VERBOSITY default
CALL migrate_ext.undo('commits', '30 seconds');
SELECT severity, object FROM told('commits');
CALL migrate_ext.cancel('commits');
SELECT * FROM told('commits');
SELECT migrate_ext.forget('commits');

-- left out of the migration by rule
INSERT INTO commits VALUES (6, 1, 'no parent');
SELECT migrate_ext.partition_by_hash('commits', 'project_id', 2, options => '{"on_null_key": "skip"}');
SELECT * FROM told('commits', 'key of%');
CALL migrate_ext.cancel('commits');
SELECT migrate_ext.forget('commits');

-- a value of a wider type, one of the row alone, a key nobody derives or fills
SELECT migrate_ext.add_sharding_key('commits', 'narrow', 'integer', '(SELECT d.project_id FROM diffs d WHERE d.id = s.diff_id)');
SELECT migrate_ext.partition_by_hash('commits', 'narrow', 2);
SELECT severity, object, problem, remedy FROM told('commits', 'column narrow%') WHERE problem ~ 'out of range';
CALL migrate_ext.cancel('commits');
SELECT migrate_ext.forget('commits');
SELECT pg_stat_force_next_flush();
SELECT migrate_ext.add_sharding_key('commits', 'half', 'integer', 's.place / 2');
SELECT migrate_ext.add_sharding_key('commits', 'bare', 'integer');
SELECT migrate_ext.partition_by_hash('commits', 'half', 2);
SELECT pg_stat_force_next_flush();
SELECT severity, object, problem FROM told('commits', 'column half%');
CALL migrate_ext.cancel('commits');
SELECT migrate_ext.forget('commits');
UPDATE commits SET bare = 1 WHERE place = 1;
SELECT migrate_ext.partition_by_list('commits', 'bare', options => '{"on_null_key": "skip"}');
SELECT severity, object, problem, remedy FROM told('commits') WHERE problem ~ 'NULL';
CALL migrate_ext.cancel('commits');
SELECT migrate_ext.forget('commits');
DROP TABLE commits, diffs;

-- what a column can't hold: by its sequence, by that of the column it points at, by an index, by its type alone
CREATE TABLE parents (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
CREATE TABLE numbers (id serial PRIMARY KEY, parent integer REFERENCES parents, small integer, big bigint, seen bigint,
    same smallint, word text, code varchar(5), at timestamp, plain bigint);
CREATE INDEX numbers_seen ON numbers (seen);
CREATE INDEX numbers_same ON numbers (same);
INSERT INTO parents OVERRIDING SYSTEM VALUE VALUES (1);
INSERT INTO numbers VALUES (1, 1, 1, 1, 2000000000, 30000, 'a', 'b', '2026-01-01', 1);
CREATE TABLE numbers_parts (id bigint, parent bigint, small bigint, big integer, seen integer, same smallint,
    word varchar(10), code text, at timestamptz, plain bigint) PARTITION BY HASH (id);
CREATE TABLE numbers_parts_0 PARTITION OF numbers_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT migrate_ext.create_migration('numbers', 'numbers_parts',
    options => '{"columns": {"at": "s.at AT TIME ZONE ''UTC''"}, "reverse_columns": {"at": "s.at AT TIME ZONE ''UTC''"}}');
SELECT * FROM told('numbers', 'column%');
SELECT setval('numbers_id_seq', 1600000000), setval('parents_id_seq', 2147483650);
SELECT severity, object, problem FROM told('numbers', 'column id%') UNION ALL SELECT severity, object, problem FROM told('numbers', 'column parent%');
-- after the swap as well, by the sequences
ALTER TABLE numbers DROP CONSTRAINT numbers_parent_fkey;
CALL migrate_ext.run('numbers');
CALL migrate_ext.finalize('numbers', '30 seconds');
SELECT severity, object, problem, remedy FROM told('numbers', 'column id%');
CALL migrate_ext.complete('numbers', drop_original => true);
SELECT migrate_ext.forget('numbers');
DROP TABLE numbers, parents;
-- near the end on both sides
CREATE TABLE late (id serial PRIMARY KEY);
SELECT migrate_ext.partition_by_hash('late', 'id', 1);
SELECT setval('late_id_seq', 1700000000);
SELECT * FROM told('late');
SELECT setval('late_id_seq', 1800000000);
SELECT * FROM told('late');
CALL migrate_ext.cancel('late');
SELECT migrate_ext.forget('late');
DROP TABLE late;

-- unique keys that get wider: statements in functions, and foreign keys that point at them
CREATE TABLE "Busy table" (id int PRIMARY KEY, k int NOT NULL, a int, b int, UNIQUE (a, b), CONSTRAINT whole UNIQUE (id, k));
INSERT INTO "Busy table" VALUES (1, 1);
CREATE TABLE child (id int REFERENCES "Busy table", k int, FOREIGN KEY (id, k) REFERENCES "Busy table" (id, k));
CREATE FUNCTION f_id() RETURNS void LANGUAGE sql AS 'INSERT INTO "Busy table" AS t (id, k) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET k = 1';
CREATE FUNCTION f_ba() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO preflight_key . "Busy table" VALUES (2, 1);
    INSERT INTO preflight_key."Busy table" SELECT 1, 1
        ON   CONFLICT ( b, "a" ) DO NOTHING; END $$;
CREATE FUNCTION f_none() RETURNS void LANGUAGE sql AS 'INSERT INTO "Busy table" VALUES (1, 1) ON CONFLICT DO NOTHING';
CREATE FUNCTION f_constraint() RETURNS void LANGUAGE sql AS 'INSERT INTO "Busy table" VALUES (1, 1) ON CONFLICT ON CONSTRAINT "Busy table_pkey" DO NOTHING';
-- these go on working, or are of another table
CREATE FUNCTION g_whole() RETURNS void LANGUAGE sql AS 'INSERT INTO "Busy table" VALUES (1, 1) ON CONFLICT (id, k) DO NOTHING';
CREATE FUNCTION g_constraint() RETURNS void LANGUAGE sql AS 'INSERT INTO "Busy table" VALUES (1, 1) ON CONFLICT ON CONSTRAINT whole DO NOTHING';
CREATE FUNCTION g_other() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO "Busy table 2" VALUES (1, 1) ON CONFLICT (id) DO NOTHING; END $$;
CREATE FUNCTION g_two() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO "Busy table" VALUES (1, 1); INSERT INTO other VALUES (1, 1) ON CONFLICT (id) DO NOTHING; END $$;
SELECT migrate_ext.partition_by_list('"Busy table"', 'k', 'busy');
SELECT * FROM told('busy');
ALTER TABLE child DROP CONSTRAINT child_id_fkey, DROP CONSTRAINT child_id_k_fkey;
CALL migrate_ext.run('busy');
CALL migrate_ext.finalize('busy', '30 seconds');
-- as was told
\set VERBOSITY sqlstate
SELECT f_id();
SELECT f_ba();
\set VERBOSITY default
-- a foreign key by hand on the original
ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES "Busy table_orig" (id);
SELECT * FROM told('busy', 'constraint%');
\set VERBOSITY sqlstate
CALL migrate_ext.complete('busy');
\set VERBOSITY default
CALL migrate_ext.complete('busy', options => '{"incoming_fks": "drop"}');
SELECT migrate_ext.forget('busy');
DROP TABLE "Busy table", "Busy table_orig", child;

-- a table that was dropped, before and after the swap: said clearly. What knew the owner is gone then.
CREATE TABLE gone (id int PRIMARY KEY);
SELECT migrate_ext.partition_by_hash('gone', 'id', 1);
DROP TABLE gone_new;
SELECT object LIKE 'table with OID %', problem, remedy FROM told('gone', 'table%');
DROP TABLE gone;
RESET ROLE;
SELECT object LIKE 'table with OID %', problem, remedy FROM told('gone', 'table%');
CALL migrate_ext.cancel('gone');
SELECT migrate_ext.forget('gone');

-- counters of keys that are no more go when the next one is made
CREATE TABLE next (id int PRIMARY KEY);
SELECT migrate_ext.add_sharding_key('next', 'k', 'int', 's.id');
SELECT c.relname = 'fill_' || k.id AS this_one, obj_description(c.oid)
FROM pg_class c LEFT JOIN migrate_ext.sharding_key k ON k.relation = 'next'::regclass
WHERE c.relnamespace = 'migrate_ext'::regnamespace AND c.relname LIKE 'fill\_%' AND c.relkind = 'S';
DROP SCHEMA preflight_key CASCADE;
DROP ROLE preflight_key_owner;
DELETE FROM migrate_ext.sharding_key;
