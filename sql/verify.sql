-- Verification: what it must tell, byte for byte, and what it reads again.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
CREATE SCHEMA verify;
SET search_path = verify;
SET TimeZone = 'UTC';
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (a integer, b text);
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

-- columns in another order than the target's, one dropped, and more than 64
CREATE TABLE t (id integer, gone integer, k integer NOT NULL, c_boolean boolean, c_smallint smallint, c_integer integer, c_bigint bigint,
    c_real real, c_double double precision, c_numeric numeric, c_text text, c_ignore text COLLATE ignore_case, c_varchar varchar(10),
    c_char character(5), "c ""char""" "char", c_name name, c_bytea bytea, c_uuid uuid, c_timestamptz timestamptz, c_interval interval,
    c_timetz timetz, c_inet inet, c_jsonb jsonb, c_json json, c_array integer[], c_mood mood, c_pair pair, c_range numrange, c_long text,
    c_compressed text, c_null text, c_zero integer);
DO $$ BEGIN FOR i IN 1 .. 50 LOOP EXECUTE format('ALTER TABLE t ADD COLUMN f%s integer', i); END LOOP; END $$;
ALTER TABLE t DROP COLUMN gone, ADD PRIMARY KEY (id), ALTER COLUMN c_long SET STORAGE EXTERNAL;
INSERT INTO t (id, k, c_integer) SELECT i, i % 3, i FROM generate_series(1, 300) i;

-- the same row with one other value on the target's side
CREATE TABLE probe (n integer GENERATED ALWAYS AS IDENTITY, col text, source text, target text);
INSERT INTO probe (col, source, target) VALUES ('c_boolean', 'true', 'false'), ('c_smallint', '1', '257'), ('c_integer', '1', '65537'),
    ('c_bigint', '1', '4294967297'), ('c_real', '0', '-0'), ('c_double', '0', '-0'), ('c_double', 'NaN', 'Infinity'), ('c_numeric', '1.0', '1.00'),
    ('c_text', 'a', 'a '), ('c_text', '', NULL), ('c_text', 'ab', 'ba'), ('c_text', '12345678', '12345678' || E'\x01'), ('c_ignore', 'straße', 'STRASSE'),
    ('c_varchar', 'a', 'A'), ('c_char', 'a', 'b'), ('c "char"', 'a', 'b'), ('c_name', 'a', 'ab'), ('c_bytea', '\x00', '\x0000'), ('c_bytea', '\x', '\x00'),
    ('c_uuid', '00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000001'), ('c_timestamptz', 'infinity', '-infinity'),
    ('c_interval', '1 month', '30 days'), ('c_interval', '1 day', '24 hours'), ('c_timetz', '12:00+00', '13:00+01'), ('c_inet', '10.0.0.1', '10.0.0.1/24'),
    ('c_jsonb', '{"a": 1.0}', '{"a": 1.00}'), ('c_json', '{"a":1}', '{"a": 1}'), ('c_array', '{1}', '[0:0]={1}'), ('c_mood', 'sad', 'happy'),
    ('c_pair', '(1,)', '(1,"")'), ('c_range', '[1.0,2]', '[1.00,2]'), ('c_long', repeat('x', 20000) || 'a', repeat('x', 20000) || 'b'),
    ('c_compressed', repeat('x', 5000) || 'a', repeat('x', 5000) || 'b'), ('c_null', NULL, ''), ('c_zero', NULL, '0'), ('f1', '0', '1'), ('f50', NULL, '0');

CREATE PROCEDURE verify.found(INOUT missing bigint DEFAULT NULL, INOUT extra bigint DEFAULT NULL, INOUT different bigint DEFAULT NULL)
LANGUAGE plpgsql AS $$
BEGIN
    CALL migrate_ext.verify('t');
    SELECT v.missing, v.extra, v.different INTO found.missing, found.extra, found.different
    FROM migrate_ext.verifications v WHERE migration = 't' ORDER BY verified_at DESC LIMIT 1;
END
$$;
-- front is what the application writes, back the other
CREATE PROCEDURE verify.tell(front regclass, back regclass)
LANGUAGE plpgsql AS $$
DECLARE
    p verify.probe;
    missing bigint;
    extra bigint;
    different bigint;
    named text[];
    told integer := 0;
BEGIN
    FOR p IN SELECT * FROM verify.probe ORDER BY n LOOP
        EXECUTE format('UPDATE %s SET %I = %L WHERE id = 7', front, p.col, p.source);
        EXECUTE format('UPDATE %s SET %I = %L WHERE id = 7', back, p.col, p.target);
        CALL verify.found(missing, extra, different);
        SELECT columns INTO named FROM migrate_ext.differences('t');
        EXECUTE format('UPDATE %s SET %I = %L WHERE id = 7', back, p.col, p.source);
        IF (missing, extra, different) <> (0, 0, 1) OR named <> ARRAY[p.col] THEN
            RAISE WARNING '%, % and %: % missing, % extra, % different, %', p.col, left(p.source, 20), left(p.target, 20), missing, extra, different, named;
        END IF;
        told := told + 1;
    END LOOP;
    CALL verify.found(missing, extra, different);
    RAISE WARNING '% differences told; %, %, % left', told, missing, extra, different;
END
$$;

DO $$
BEGIN
    EXECUTE (SELECT format('CREATE TABLE t_new (%s, PRIMARY KEY (id, k)) PARTITION BY LIST (k)', string_agg(format('%I %s %s %s', attname,
             CASE attname WHEN 'id' THEN 'bigint' ELSE format_type(atttypid, atttypmod) END, CASE attname WHEN 'c_ignore' THEN 'COLLATE ignore_case' END,
             CASE WHEN attnotnull THEN 'NOT NULL' END), ', ' ORDER BY attnum DESC))
             FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped);
END
$$;
CREATE TABLE t_p0 PARTITION OF t_new FOR VALUES IN (0);
CREATE TABLE t_p1 (LIKE t INCLUDING ALL);
ALTER TABLE t_p1 ALTER COLUMN id TYPE bigint, DROP CONSTRAINT t_p1_pkey;
ALTER TABLE t_new ATTACH PARTITION t_p1 FOR VALUES IN (1);
CREATE TABLE t_p2 PARTITION OF t_new FOR VALUES IN (2);
SELECT migrate_ext.create_migration('t', 't_new');
CALL migrate_ext.run('t');
CALL verify.tell('t', 't_new');

-- rows missing, too many, twice, exchanged
DELETE FROM t_new WHERE id IN (3, 300);
INSERT INTO t_new (id, k) VALUES (9001, 1);
INSERT INTO t_new SELECT (jsonb_populate_record(n, '{"k": 2}')).* FROM t_new n WHERE id = 4;
UPDATE t_new n SET c_integer = 11 - n.c_integer WHERE id IN (5, 6);
CALL verify.found();
SELECT identity, kind, columns FROM migrate_ext.differences('t');
SELECT migrate_ext.repair('t');
-- the swap reads again what has changed; not what was written past the trigger since
CALL migrate_ext.finalize('t', '1 minute');
CALL migrate_ext.undo('t', '1 minute');
CALL verify.found();
UPDATE t_new SET c_text = 'early' WHERE id = 8;
CALL migrate_ext.finalize('t', '1 minute');
SELECT identity, kind, columns FROM migrate_ext.differences('t');
SELECT migrate_ext.repair('t');
CALL migrate_ext.finalize('t', '1 minute');
-- the same the other way round
CALL verify.tell('t', 't_orig');
SELECT count(*) > 0 AS ranges, bool_and(verified) AS verified, sum(checked_rows) AS rows, sum(missing + extra + different) AS differ
FROM migrate_ext.verified_ranges WHERE migration = 't';

-- without a type that changes equal is equal both ways: what was found before the swap counts after it
CALL migrate_ext.complete('t');
SELECT migrate_ext.forget('t');
CREATE TABLE kept (id integer PRIMARY KEY, k integer NOT NULL, note text) WITH (autovacuum_enabled = off);
INSERT INTO kept SELECT i, i % 4, 'note ' || i FROM generate_series(1, 100000) i;
SELECT migrate_ext.partition_by_hash('kept', 'k', 2, options => '{}');
CALL migrate_ext.run('kept');
CALL migrate_ext.verify('kept');
SELECT range, above, up_to, verified, checked_rows FROM migrate_ext.verified_ranges WHERE migration = 'kept' ORDER BY range LIMIT 1;
CREATE VIEW again AS SELECT detail->>'missing' AS missing, detail->>'extra' AS extra, detail->>'different' AS different
FROM migrate_ext.events WHERE migration = 'kept' AND kind = 'verified' ORDER BY at DESC LIMIT 1;
CREATE TABLE old_range AS SELECT * FROM migrate_ext.verified_ranges WHERE migration = 'kept' AND range > 1;
CALL migrate_ext.finalize('kept', '1 minute');
-- pages of rows that are gone from the original, of which vacuum has left no trace
DELETE FROM kept_orig WHERE id BETWEEN 1000 AND 1999;
VACUUM kept_orig;
CALL migrate_ext.undo('kept', '1 minute');
TABLE again;
SELECT count(*) > 0 AS as_before FROM migrate_ext.verified_ranges r JOIN old_range USING (migration, range, verified_at);
SELECT migrate_ext.repair('kept');
CALL migrate_ext.undo('kept', '1 minute');
-- a row that was put into a page of another range: the last one
DELETE FROM kept WHERE id = 10;
CALL migrate_ext.verify('kept');
INSERT INTO kept_new VALUES (10, 2, 'past the trigger');
CALL migrate_ext.finalize('kept', '1 minute');
TABLE again;
CALL migrate_ext.cancel('kept');

-- an error that passes costs a range one reading, in verify() and in a swap: not all begins anew
CREATE SEQUENCE tries;
CREATE SEQUENCE calls;
CREATE FUNCTION verify.busy(id integer, v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    codes constant text[] := '{40001,40P01,55P03}';
    code text;
BEGIN
    PERFORM nextval('verify.calls');
    code := CASE WHEN id = 30000 THEN codes[nextval('verify.tries') - 100] END;
    IF code IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = code, MESSAGE = 'not now';
    END IF;
    RETURN v;
END
$$;
CREATE TABLE busy (id integer PRIMARY KEY, v text);
INSERT INTO busy SELECT i, 'row ' || i FROM generate_series(1, 60000) i;
SELECT migrate_ext.partition_by_hash('busy', 'id', 2, options => '{"columns": {"v": "verify.busy(s.id, s.v)"}}');
SELECT migrate_ext.configure('busy', 'batch_target_ms', '10');
CALL migrate_ext.run('busy');
SELECT setval('tries', 100), setval('calls', 1);
CALL migrate_ext.verify('busy', '2 minutes');
SELECT checked_rows, missing + extra + different AS differ, complete FROM migrate_ext.verifications WHERE migration = 'busy';
SELECT (SELECT last_value FROM tries) AS tries, (SELECT last_value < 130000 FROM calls) AS others_once,
       (SELECT sum(attempts) FROM migrate_ext.verified_range) AS attempts_left, count(*) AS passes
FROM migrate_ext.events WHERE migration = 'busy' AND kind = 'verified';
UPDATE busy SET v = 'written' WHERE id = 30000;
SELECT setval('tries', 100), setval('calls', 1);
CALL migrate_ext.finalize('busy', '2 minutes');
SELECT (SELECT last_value FROM tries) AS tries, (SELECT last_value < 130000 FROM calls) AS others_once, count(*) AS passes
FROM migrate_ext.events WHERE migration = 'busy' AND kind = 'verified';
CALL migrate_ext.complete('busy', true);
-- one that is not of that kind is told at once
CREATE TABLE stuck (id integer PRIMARY KEY, v integer);
INSERT INTO stuck VALUES (1, 1), (2, 2);
CREATE FUNCTION verify.stuck(v integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE currval('verify.tries') WHEN 1 THEN 1 / (v - 2) ELSE v END;
END
$$;
SELECT setval('tries', 2);
SELECT migrate_ext.partition_by_hash('stuck', 'id', 2, options => '{"columns": {"v": "verify.stuck(s.v)"}}');
CALL migrate_ext.run('stuck');
SELECT setval('tries', 1);
\set VERBOSITY terse
CALL migrate_ext.verify('stuck');
\set VERBOSITY default
SELECT setval('tries', 2);
CALL migrate_ext.verify('stuck');
SELECT checked_rows, missing + extra + different AS differ FROM migrate_ext.verifications WHERE migration = 'stuck';
CALL migrate_ext.cancel('stuck');
-- the same for a migration that fills a key
CREATE TABLE keyed (id integer PRIMARY KEY, k integer);
INSERT INTO keyed VALUES (30000);
CREATE FUNCTION verify.no_key(id integer) RETURNS integer IMMUTABLE LANGUAGE sql AS $$ SELECT NULL::integer FROM verify.busy(id, '') $$;
SELECT setval('tries', 1000);
SELECT migrate_ext.add_sharding_key('keyed', 'k', 'integer', 'verify.no_key(s.id)', false);
SELECT migrate_ext.backfill_key('keyed', 'k', '{"on_null_key": "skip"}');
CALL migrate_ext.run('keyed');
SELECT setval('tries', 100);
CALL migrate_ext.verify('keyed');
SELECT checked_rows, missing, skipped, complete FROM migrate_ext.verifications WHERE migration = 'keyed';
SELECT last_value > 103 AS again FROM tries;
CALL migrate_ext.cancel('keyed');

SET client_min_messages = error;
SELECT migrate_ext.forget(m) FROM unnest('{kept,busy,stuck,keyed}'::text[]) m;
DROP SCHEMA verify CASCADE;
