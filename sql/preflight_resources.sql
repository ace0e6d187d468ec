-- What preflight() tells of the server, and of statements. (pg_stat_statements itself: test/t/010_preflight.pl.)
SET client_min_messages = warning;
CREATE TABLE res (id integer PRIMARY KEY, k integer NOT NULL, "K x" integer, t text);
CREATE INDEX ON res (t);
INSERT INTO res SELECT i, i % 4, i FROM generate_series(1, 20) i;
SELECT migrate_ext.partition_by_hash('res', 'k', 4);
SELECT id FROM migrate_ext.migration WHERE name = 'res' \gset

-- all is well
SELECT * FROM migrate_ext.preflight_resources(:id);

-- too few workers
SELECT migrate_ext.configure('res', 'workers', '64');
SELECT severity, object, regexp_replace(problem, '^\d+ of', 'N of') AS problem, remedy FROM migrate_ext.preflight('res') WHERE object ~ '^max';
SELECT migrate_ext.configure('res', 'workers', '1');

-- locks
CREATE TABLE many (LIKE res) PARTITION BY HASH (k);
DO $$ BEGIN FOR i IN 0 .. 499 LOOP EXECUTE format('CREATE TABLE many_%s PARTITION OF many FOR VALUES WITH (MODULUS 500, REMAINDER %s)', i, i); END LOOP; END $$;
CREATE TABLE res2 (LIKE res INCLUDING ALL);
SELECT migrate_ext.create_migration('res2', 'many');
SELECT severity, object, problem, remedy FROM migrate_ext.preflight('res2') WHERE object ~ '^max';
CALL migrate_ext.cancel('res2');
SELECT migrate_ext.forget('res2');

-- room on disk: what there is to know
BEGIN;
UPDATE pg_class SET relpages = 1000000 WHERE relname = 'res';
SELECT severity, object, regexp_replace(problem, '7813 \wB', 'SIZE') AS problem, remedy FROM migrate_ext.preflight('res') WHERE object = 'disk';
ROLLBACK;

-- what else may hold a swap up
BEGIN;
UPDATE pg_class SET relfrozenxid = (relfrozenxid::text::bigint - 190000000 & 4294967295)::text::xid WHERE relname = 'res';
SELECT severity, object, regexp_replace(problem, '1\d{8}', 'N') AS problem, remedy FROM migrate_ext.preflight('res') WHERE problem ~ 'transactions old';
ROLLBACK;
CREATE FUNCTION res_object() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER res_see ON ddl_command_end WHEN tag IN ('CREATE VIEW') EXECUTE FUNCTION res_object();
SELECT * FROM migrate_ext.preflight('res') WHERE object ~ 'event trigger';
DROP EVENT TRIGGER res_see;
DROP FUNCTION res_object();

-- statements, as pg_stat_statements would give them
CREATE FUNCTION pg_temp.reads(id bigint, VARIADIC statements text[]) RETURNS TABLE (object text, problem text) LANGUAGE sql AS $$
    SELECT r.object, left(r.problem, 60) FROM migrate_ext.preflight_reads(id, statements) r ORDER BY r.object COLLATE "C", r.problem
$$;
SELECT * FROM pg_temp.reads(:id, VARIADIC ARRAY[
    -- read every partition
    'SELECT * FROM res WHERE id = $1',
    'SELECT k FROM public.res AS r WHERE r.id = $1',
    'UPDATE ONLY "res" SET t = $1 WHERE id = $2',
    'DELETE FROM res WHERE kk = $1',
    'SELECT * FROM other o JOIN res r USING (id) WHERE o.x = $1',
    'SELECT * FROM other, res WHERE other.id = res.id',
    -- do not, or did before
    'SELECT * FROM res WHERE k = $1 AND id = $2',
    'SELECT * FROM res WHERE "k" = $1',
    'SELECT count(*) FROM res',
    'SELECT * FROM resort WHERE id = $1',
    'SELECT * FROM other WHERE id = $1',
    'INSERT INTO res VALUES ($1)',
    'SELECT s.xmin FROM ONLY public.res s WHERE s.ctid >= $1',
    'ALTER TABLE res ADD CHECK (id > 0)',
    -- move rows
    'UPDATE res SET k = $1 WHERE k = $2 AND id = $3',
    'UPDATE public.res AS r SET t = $1, "k" = $2 WHERE r.k = 1',
    'UPDATE res SET t = k WHERE k = $1',
    -- name a partition
    'SELECT * FROM res_p1 WHERE id = $1',
    'SELECT * FROM res_p10 WHERE k = 3']);
SELECT severity, object, problem, remedy FROM migrate_ext.preflight_reads(:id, ARRAY['UPDATE res SET k = 1 WHERE id = 2', 'SELECT * FROM res_p1']) ORDER BY 3;
SELECT * FROM pg_temp.reads(:id, VARIADIC '{}');
SELECT relid FROM pg_partition_tree('res_new') ORDER BY 1;
CALL migrate_ext.cancel('res');
SELECT migrate_ext.forget('res');
DROP TABLE res, res2, many;
