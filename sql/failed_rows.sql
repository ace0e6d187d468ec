-- Rows that can't be carried over: found one by one, whatever it is that fails, and set aside; the
-- rest is copied. Mended by the application or tried again they leave failed_rows.
CREATE SCHEMA failed;
SET search_path = failed, helper, public;
SET client_min_messages = warning;

-- A cast that fails in many ways, a check and a key that can, a value too long for a block.
CREATE FUNCTION failed.strict(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    IF v = 'raise' THEN RAISE EXCEPTION 'no such thing: %', v;
    ELSIF v = 'class 55' THEN RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'not now';
    ELSIF v = 'internal' THEN RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = 'cache lookup failed';
    ELSIF v = 'number' THEN RETURN v::int;
    ELSIF v = 'missing' THEN RETURN (SELECT failed.nowhere());
    END IF;
    RETURN v;
END $$;
CREATE FUNCTION failed.key_of(k int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 100 / k * k; END $$;
-- about eight rows a block
CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, n int NOT NULL DEFAULT 1, v text NOT NULL DEFAULT 'fine', pad text NOT NULL DEFAULT repeat('x', 900), long text);
ALTER TABLE t ALTER pad SET STORAGE PLAIN, ALTER long SET STORAGE EXTERNAL;
CREATE TABLE t_new (id int NOT NULL, k int NOT NULL, n int NOT NULL CHECK (10 / n > 0), v text NOT NULL CHECK (v <> 'unwanted'), pad text NOT NULL, long text)
    PARTITION BY LIST (failed.key_of(k));
ALTER TABLE t_new ALTER long SET STORAGE PLAIN;
CREATE TABLE t_100 PARTITION OF t_new FOR VALUES IN (100, 99);
CREATE TABLE t_rest PARTITION OF t_new FOR VALUES IN (90, 96);
INSERT INTO t (id, k) SELECT g, 1 + g % 2 FROM generate_series(1, 2000) g;
UPDATE t SET v = v.v FROM (VALUES (3, 'raise'), (4, 'class 55'), (500, 'internal'), (501, 'number'), (502, 'missing'), (1999, 'unwanted')) AS v (id, v) WHERE t.id = v.id;
UPDATE t SET n = 0 WHERE id = 700;
UPDATE t SET n = 20 WHERE id = 701;
UPDATE t SET k = 0 WHERE id = 900;
UPDATE t SET k = 60 WHERE id = 901;
UPDATE t SET long = repeat('long', 2500) WHERE id IN (1200, 1201, 1700);
SELECT migrate_ext.create_migration('t', 't_new', 't', '{"columns": {"v": "failed.strict(s.v)"}, "reverse_columns": {"v": "s.v"}}');

CREATE FUNCTION failed.aside() RETURNS TABLE (id int, sqlstate text, message text) LANGUAGE sql AS
    $$ SELECT (identity->>'id')::int, sqlstate, message FROM migrate_ext.failed_rows WHERE migration = 't' ORDER BY 1 $$;
CREATE VIEW failed.lost AS
    SELECT (SELECT count(*) FROM t) AS source, (SELECT count(*) FROM t_new) AS target,
           (SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE t.id NOT IN (SELECT id FROM t_new)) AS missing;

-- They are seen as soon as they are met: the copy's end is enough.
CALL migrate_ext.run('t', 'indexing');
SELECT * FROM aside();
SELECT failed, log_entries FROM migrate_ext.progress WHERE migration = 't';
-- ranges were cut only where writing a row failed, and down to the block only there
SELECT count(*) < 40 AS few, count(*) FILTER (WHERE first_block = last_block) BETWEEN 1 AND 10 AS alone, sum(rows) AS rows
FROM migrate_ext.batches WHERE migration = 't' AND first_block IS NOT NULL;
CALL migrate_ext.run('t');
SELECT * FROM aside();
TABLE lost;

-- finalize tries them again, and refuses
\set VERBOSITY terse
CALL migrate_ext.finalize('t');
\echo :LAST_ERROR_SQLSTATE
SELECT migrate_ext.retry_failed('t');
CALL migrate_ext.verify('t');
-- mended by the application: they are carried over by themselves
UPDATE t SET v = 'mended' WHERE id IN (4, 500);
DELETE FROM t WHERE id = 501;
UPDATE t SET n = 2, id = 2700 WHERE id = 700;
UPDATE t SET long = NULL WHERE id IN (1200, 1700);
SELECT helper.wait_until($$SELECT log_entries = 0 FROM migrate_ext.progress WHERE migration = 't'$$);
SELECT id, sqlstate FROM aside();
-- mended from the other side: tried again when asked
CREATE FUNCTION failed.nowhere() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'missing' $$;
CREATE TABLE t_60 PARTITION OF t_new FOR VALUES IN (60);
CREATE UNIQUE INDEX ON t_60 (id);
SELECT helper.wait_until($$SELECT paused FROM migrate_ext.migrations WHERE migration = 't'$$);
SELECT migrate_ext.resume('t');
SELECT migrate_ext.retry_failed('t');
SELECT helper.wait_until($$SELECT log_entries = 0 FROM migrate_ext.progress WHERE migration = 't'$$);
SELECT * FROM aside();
-- or accepted as they are
CALL migrate_ext.finalize('t', options => '{"accept_failed": "true"}');
SELECT state FROM migrate_ext.migrations WHERE migration = 't';
SELECT count(*), count(*) FILTER (WHERE id = 2700) AS moved FROM t;
CALL migrate_ext.undo('t');
CALL migrate_ext.cancel('t');
DROP VIEW lost;
DROP TABLE t, t_new;

-- A value out of line that can't be read: the copy fails when it writes it.
CREATE EXTENSION pg_surgery;
CREATE TABLE torn (id int PRIMARY KEY, k int NOT NULL, v text);
ALTER TABLE torn ALTER v SET STORAGE EXTERNAL;
INSERT INTO torn SELECT g, g, CASE WHEN g IN (10, 300) THEN repeat('x', 3000) END FROM generate_series(1, 400) g;
SELECT heap_force_kill(reltoastrelid, ARRAY['(0,1)'::tid]) FROM pg_class WHERE oid = 'torn'::regclass;
SELECT migrate_ext.partition_by_hash('torn', 'k', 2);
CALL migrate_ext.run('torn');
SELECT identity, sqlstate, regexp_replace(message, '\d{5,}', 'N', 'g') AS message FROM migrate_ext.failed_rows WHERE migration = 'torn';
SELECT count(*), max(length(v)) FROM torn_new;
UPDATE torn SET v = 'mended' WHERE id = 10;
CALL migrate_ext.finalize('torn');
SELECT state FROM migrate_ext.migrations WHERE migration = 'torn';
CALL migrate_ext.complete('torn', true);
DROP TABLE torn;
DROP EXTENSION pg_surgery;

-- All rows are bad: the definition is wrong, which shows after some of them.
CREATE TABLE wrong (id int PRIMARY KEY, k int NOT NULL, v text NOT NULL DEFAULT 'one');
INSERT INTO wrong SELECT g, g FROM generate_series(1, 30000) g;
CREATE FUNCTION failed.number(v text) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT v::int $$;
CREATE TABLE wrong_new (id int NOT NULL, k int NOT NULL, v int NOT NULL) PARTITION BY HASH (k);
CREATE TABLE wrong_0 PARTITION OF wrong_new FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT migrate_ext.create_migration('wrong', 'wrong_new', 'wrong', '{"columns": {"v": "failed.number(s.v)"}}');
SELECT migrate_ext.configure('wrong', 'max_failed_rows', '5000');
CALL migrate_ext.run('wrong');
\echo :LAST_ERROR_SQLSTATE
SELECT state, paused, regexp_replace(pause_reason, '^\d+', 'N') AS pause_reason FROM migrate_ext.migrations WHERE migration = 'wrong';
SELECT failed BETWEEN 5000 AND 29999 AS some, log_entries = failed AS logged FROM migrate_ext.progress WHERE migration = 'wrong';
-- put right, it goes on; those that failed are tried again by themselves
CREATE OR REPLACE FUNCTION failed.number(v text) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT CASE v WHEN 'one' THEN 1 END $$;
SELECT migrate_ext.resume('wrong');
CALL migrate_ext.wait_for('wrong', 'live', '60 s');
SELECT failed, log_entries FROM migrate_ext.progress WHERE migration = 'wrong';
SELECT count(*), sum(v) FROM wrong_new;
CALL migrate_ext.cancel('wrong');
DROP TABLE wrong, wrong_new;

-- What an expression names is gone: no row's fault, if no row of a batch can be copied.
CREATE TABLE named (id int PRIMARY KEY, k int NOT NULL, v text NOT NULL DEFAULT 'one');
INSERT INTO named SELECT g, g FROM generate_series(1, 3000) g;
CREATE FUNCTION failed.named(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN failed.known(v); END $$;
CREATE TABLE named_new (LIKE named) PARTITION BY HASH (k);
CREATE TABLE named_0 PARTITION OF named_new FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT migrate_ext.create_migration('named', 'named_new', 'named', '{"columns": {"v": "failed.named(s.v)"}}');
CALL migrate_ext.run('named');
\echo :LAST_ERROR_SQLSTATE
SELECT state, paused FROM migrate_ext.migrations WHERE migration = 'named';
SELECT failed, log_entries FROM migrate_ext.progress WHERE migration = 'named';
SELECT migrate_ext.start('named');
SELECT helper.wait_until($$SELECT last_error IS NOT NULL FROM migrate_ext.migrations WHERE migration = 'named'$$);
SELECT last_error FROM migrate_ext.migrations WHERE migration = 'named';
CREATE FUNCTION failed.known(v text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT upper(v) $$;
CALL migrate_ext.wait_for('named', 'live', '60 s');
SELECT last_error FROM migrate_ext.migrations WHERE migration = 'named';
SELECT count(*), min(v) FROM named_new;
CALL migrate_ext.cancel('named');
DROP TABLE named, named_new;

SELECT migrate_ext.forget(migration) FROM migrate_ext.migrations WHERE migration IN ('t', 'torn', 'wrong', 'named');
RESET search_path;
DROP SCHEMA failed CASCADE;
