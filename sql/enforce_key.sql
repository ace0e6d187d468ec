-- enforce_key: NOT NULL by way of a check; what is refused, what was begun before, and beside migrations.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
RESET client_min_messages;
CREATE SCHEMA enforce_key;
SET search_path = enforce_key;
\pset tuples_only on
\pset format unaligned

CREATE ROLE enforce_owner;
CREATE ROLE enforce_other;
GRANT USAGE, CREATE ON SCHEMA enforce_key TO enforce_owner;
GRANT USAGE ON SCHEMA enforce_key TO enforce_other;
SET ROLE enforce_owner;
CREATE TYPE pair AS (a int, b int);
CREATE TABLE t (id int PRIMARY KEY, k int, "Odd ""name" text, p pair);
INSERT INTO t SELECT g, g, 'x' FROM generate_series(1, 100) g;
CREATE VIEW looks AS SELECT * FROM t;
CREATE FUNCTION constraints(t regclass) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT attname || ' NOT NULL' FROM pg_attribute WHERE attrelid = t AND attnum > 0 AND attnotnull AND attname <> 'id'
    UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = t AND contype = 'c' ORDER BY 1
$$;

-- what is refused
CALL migrate_ext.enforce_key(NULL, 'k');
CALL migrate_ext.enforce_key('t', NULL);
CALL migrate_ext.enforce_key('t', 'nothing');
CALL migrate_ext.enforce_key('t', 'ctid');
CALL migrate_ext.enforce_key('t', 'p');
CALL migrate_ext.enforce_key('looks', 'k');
CALL migrate_ext.enforce_key('t_pkey', 'k');
CALL migrate_ext.enforce_key(1, 'k');
BEGIN;
CALL migrate_ext.enforce_key('t', 'k');
ROLLBACK;
SET default_transaction_read_only = on;
CALL migrate_ext.enforce_key('t', 'k');
SET default_transaction_read_only = off;
RESET ROLE;
SET ROLE enforce_other;
CALL migrate_ext.enforce_key('enforce_key.t', 'k');
RESET ROLE;
SET ROLE enforce_owner;
UPDATE t SET k = NULL WHERE id IN (7, 8);
CALL migrate_ext.enforce_key('t', 'k');
SELECT constraints('t');

-- what it makes, and again
UPDATE t SET k = id;
CALL migrate_ext.enforce_key('t', 'k');
SELECT constraints('t');
CALL migrate_ext.enforce_key('t', 'k');
CALL migrate_ext.enforce_key('t', 'Odd "name');
SELECT constraints('t');

-- a call that was interrupted: after the check, after its validation, after SET NOT NULL
ALTER TABLE t ALTER k DROP NOT NULL, ADD CONSTRAINT k_migrate_ext_not_null CHECK (k IS NOT NULL) NOT VALID;
CALL migrate_ext.enforce_key('t', 'k');
SELECT constraints('t');
ALTER TABLE t ALTER k DROP NOT NULL, ADD CONSTRAINT k_migrate_ext_not_null CHECK (k IS NOT NULL);
CALL migrate_ext.enforce_key('t', 'k');
SELECT constraints('t');
ALTER TABLE t ADD CONSTRAINT k_migrate_ext_not_null CHECK (k IS NOT NULL);
CALL migrate_ext.enforce_key('t', 'k');
SELECT constraints('t');
-- with rows that break it: it must not stay
ALTER TABLE t ALTER k DROP NOT NULL;
UPDATE t SET k = NULL WHERE id = 5;
ALTER TABLE t ADD CONSTRAINT k_migrate_ext_not_null CHECK (k IS NOT NULL) NOT VALID;
CALL migrate_ext.enforce_key('t', 'k');
SELECT constraints('t');
UPDATE t SET k = 5 WHERE id = 5;
-- the user's own check serves, and stays; one of ours by name alone is nobody's
ALTER TABLE t ADD CONSTRAINT mine CHECK (k IS NOT NULL);
CALL migrate_ext.enforce_key('t', 'k');
SELECT constraints('t');
ALTER TABLE t ALTER k DROP NOT NULL, DROP CONSTRAINT mine, ADD CONSTRAINT k_migrate_ext_not_null CHECK (k > 0);
CALL migrate_ext.enforce_key('t', 'k');
ALTER TABLE t DROP CONSTRAINT k_migrate_ext_not_null;

-- a partitioned table
CREATE TABLE parts (id int, k int) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
INSERT INTO parts VALUES (1, 1), (2, NULL);
CALL migrate_ext.enforce_key('parts', 'k');
DELETE FROM parts WHERE k IS NULL;
CALL migrate_ext.enforce_key('parts', 'k');
SELECT constraints('parts'), constraints('parts_1'), constraints('parts_2');

-- beside a migration, in each of its states: it goes on
CREATE TABLE u (id int PRIMARY KEY, k int, a int, b int, c int, d int, e int, f int);
INSERT INTO u SELECT g, g, g, g, g, g, g, g FROM generate_series(1, 1000) g;
SELECT migrate_ext.partition_by_hash('u', 'k', 2);
CALL migrate_ext.enforce_key('u', 'a');
SET client_min_messages = warning;
CALL migrate_ext.run('u', 'logging');
CALL migrate_ext.enforce_key('u', 'k');
CALL migrate_ext.run('u', 'copying');
CALL migrate_ext.enforce_key('u', 'b');
CALL migrate_ext.run('u');
CALL migrate_ext.enforce_key('u', 'c');
INSERT INTO u VALUES (1001, 1, 1, 1, 1, 1, 1, 1);
CALL migrate_ext.finalize('u');
-- swapped: the front is the partitioned table
CALL migrate_ext.enforce_key('u', 'd');
CALL migrate_ext.enforce_key('u_orig', 'e');
INSERT INTO u VALUES (1002, 2, 2, 2, 2, 2, 2, 2);
CALL migrate_ext.undo('u');
CALL migrate_ext.enforce_key('u', 'f');
CALL migrate_ext.finalize('u');
CALL migrate_ext.verify('u');
RESET client_min_messages;
SELECT state, paused, pause_reason, last_error FROM migrate_ext.migrations WHERE migration = 'u';
SELECT relname, string_agg(attname, ' ' ORDER BY attname) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
WHERE relname IN ('u', 'u_orig') AND attnotnull AND attnum > 0 GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM (TABLE u EXCEPT TABLE u_orig) d;
\set VERBOSITY terse
CALL migrate_ext.complete('u');
\set VERBOSITY default
SELECT migrate_ext.forget(migration) FROM migrate_ext.migrations;

RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA enforce_key CASCADE;
DROP ROLE enforce_owner, enforce_other;
