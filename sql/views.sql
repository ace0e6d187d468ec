-- What is promised: views with their columns, functions with their signatures, who may use them, and
-- a comment on each.

-- columns of the views, in their order
SELECT c.relname AS view, a.attnum, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'migrate_ext'::regnamespace AND c.relkind = 'v' AND c.relname <> 'any_migration'
ORDER BY 1, 2;

-- functions and procedures: arguments, result
\pset format unaligned
SET IntervalStyle = 'postgres';
SELECT p.oid::regproc AS function, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE pg_get_function_result(p.oid) END AS returns,
       pg_get_function_arguments(p.oid) AS arguments
FROM pg_proc p WHERE p.pronamespace = 'migrate_ext'::regnamespace
ORDER BY p.oid::regprocedure::text;

-- all are volatile, parallel unsafe, not strict (a NULL is an error), not security definer, in C; others are internal
SELECT p.oid::regproc AS function, l.lanname, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proconfig
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'migrate_ext'::regnamespace
  AND (l.lanname, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef) <> ('c', 'v', 'u', false, false)
ORDER BY p.oid::regprocedure::text;

-- what everybody may call and see; the rest is for functions of the extension
SELECT DISTINCT p.proname AS not_for_everybody FROM pg_proc p
WHERE p.pronamespace = 'migrate_ext'::regnamespace AND NOT has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1;
SELECT c.relkind, has_table_privilege('public', c.oid, 'SELECT') AS everybody, c.relname
FROM pg_class c WHERE c.relnamespace = 'migrate_ext'::regnamespace AND c.relkind IN ('r', 'v', 'S')
  AND c.relname !~ '^(fill|log)_\d' -- of keys and migrations of other tests
ORDER BY 1, 2, 3;
SELECT c.relname, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'migrate_ext'::regnamespace AND a.grantee = 0 AND a.privilege_type <> 'SELECT';
SELECT has_schema_privilege('public', 'migrate_ext', 'USAGE') AS usage, has_schema_privilege('public', 'migrate_ext', 'CREATE') AS create;
SELECT c.relname, c.reloptions FROM pg_class c
WHERE c.relnamespace = 'migrate_ext'::regnamespace AND c.relkind = 'v' AND NOT 'security_barrier=true' = ANY (COALESCE(c.reloptions, '{}'));

-- every table has a primary key, as publications want
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = 'migrate_ext'::regnamespace AND c.relkind = 'r'
  AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary);

-- every object has a comment, and every column of a view
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS lacks_a_comment
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'migrate_ext')
  AND d.deptype = 'e'
  AND NOT (d.classid = 'pg_type'::regclass)
  AND NOT (d.classid = 'pg_class'::regclass AND (SELECT relkind IN ('i', 't') FROM pg_class WHERE oid = d.objid))
  AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i') -- identity columns
  AND NOT EXISTS (SELECT FROM pg_description c WHERE c.classoid = d.classid AND c.objoid = d.objid AND c.objsubid = 0)
ORDER BY 1;
SELECT a.attrelid::regclass || '.' || a.attname AS lacks_a_comment
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'migrate_ext'::regnamespace AND c.relkind = 'v' AND c.relname <> 'any_migration' AND a.attnum > 0
  AND col_description(a.attrelid, a.attnum) IS NULL;
SELECT obj_description(oid, 'pg_extension'), extversion, extrelocatable FROM pg_extension WHERE extname = 'migrate_ext';

-- who sees what: members of the owner and of pg_monitor
SET client_min_messages = warning;
CREATE ROLE views_owner;
CREATE ROLE views_member ROLE views_owner;
CREATE ROLE views_of_owner IN ROLE views_owner;
CREATE ROLE views_monitor IN ROLE pg_monitor;
CREATE ROLE views_stranger;
CREATE TABLE seen (id integer PRIMARY KEY, k integer NOT NULL);
ALTER TABLE seen OWNER TO views_owner;
GRANT CREATE ON SCHEMA public TO views_owner;
INSERT INTO seen SELECT i, i % 2 FROM generate_series(1, 10) i;
CREATE FUNCTION pg_temp.rows_seen() RETURNS TABLE (view text, rows bigint) LANGUAGE sql AS $$
    SELECT 'migrations', count(*) FROM migrate_ext.migrations UNION ALL SELECT 'progress', count(*) FROM migrate_ext.progress
    UNION ALL SELECT 'batches', count(*) FROM migrate_ext.batches UNION ALL SELECT 'failed_rows', count(*) FROM migrate_ext.failed_rows
    UNION ALL SELECT 'verifications', count(*) FROM migrate_ext.verifications UNION ALL SELECT 'swaps', count(*) FROM migrate_ext.swaps
    UNION ALL SELECT 'events', count(*) FROM migrate_ext.events WHERE kind = 'state'
$$;
SET ROLE views_owner;
SELECT migrate_ext.partition_by_list('seen', 'k', options => '{"groups": {"none": [0]}}');
CALL migrate_ext.run('seen');
CALL migrate_ext.finalize('seen');
SELECT * FROM pg_temp.rows_seen();
SELECT * FROM migrate_ext.migration;
SELECT migrate_ext.preflight_errors(0, 0);
SET ROLE views_of_owner;
SELECT * FROM pg_temp.rows_seen();
CALL migrate_ext.undo('seen');
SET ROLE views_member;
SELECT sum(rows) FROM pg_temp.rows_seen();
SET ROLE views_monitor;
SELECT sum(rows) > 5 AS sees FROM pg_temp.rows_seen();
SELECT migrate_ext.pause('seen');
CALL migrate_ext.finalize('seen');
RESET ROLE;
SELECT id FROM migrate_ext.migration WHERE name = 'seen' \gset
SET ROLE views_stranger;
SELECT sum(rows) FROM pg_temp.rows_seen();
SELECT migrate_ext.log_entries(:id), migrate_ext.default_rows(:id), migrate_ext.leader(:id), migrate_ext.workers(:id);
SET ROLE views_owner;
SELECT migrate_ext.log_entries(:id), migrate_ext.default_rows(:id), migrate_ext.leader(:id), migrate_ext.workers(:id);
RESET ROLE;

-- what they say of a migration on its way, and of one that is finished
\x on
SELECT migration, kind, table_name, source, target, original, state, goal, paused, pause_reason, last_error, owner,
       created_at < live_at AS live, live_at < swapped_at AS swapped, completed_at FROM migrate_ext.migrations WHERE migration = 'seen';
SELECT migration, state, bar, percent, rows_done, rows_total, bytes_done, bytes_total, rows_per_second > 0 AS pace, eta, log_entries,
       default_rows, skipped, failed, workers, waiting_for, next_step, rows_per_second_overall > 0 AS pace_overall, eta_error
FROM migrate_ext.progress WHERE migration = 'seen';
SELECT migration, batch, relation, first_block, last_block, rows, logged, state, pid = pg_backend_pid() AS ours,
       started_at < now() AS started, took_ms > 0 AS took FROM migrate_ext.batches WHERE migration = 'seen' ORDER BY batch;
SELECT migration, complete, checked_rows, missing, extra, different, skipped, failed, stale_key FROM migrate_ext.verifications WHERE migration = 'seen' ORDER BY verified_at;
SELECT migration, direction, attempts, wait_ms >= 0 AS waited, hold_ms > 0 AS held, blockers FROM migrate_ext.swaps WHERE migration = 'seen' ORDER BY at;
\x off
SELECT kind, message, CASE WHEN kind NOT IN ('indexes', 'renamed') THEN detail END AS detail FROM migrate_ext.events WHERE migration = 'seen' ORDER BY at;
-- of paces, with batches as they might be: four of 100 blocks, within ten seconds, of 600 blocks more; and the same, 20 seconds ago
BEGIN;
UPDATE migrate_ext.migration SET state = 'copying', goal = 'live', paused = false, end_block = 1000 WHERE name = 'seen';
DELETE FROM migrate_ext.batch WHERE migration = (SELECT id FROM migrate_ext.migration WHERE name = 'seen');
INSERT INTO migrate_ext.batch (migration, batch, kind, epoch, relation, first_block, last_block, rows, state, started_at, took_ms)
SELECT m.id, n, 'copy', m.epoch, m.source, n * 100, n * 100 + 99, 1000, 'done', clock_timestamp() - b.began * interval '1 s', b.took_ms
FROM migrate_ext.migration m, (VALUES (0, 10, 1000), (1, 9, 1000), (2, 8, 1000), (3, 3, 3000)) b (n, began, took_ms) WHERE m.name = 'seen';
SELECT rows_done, rows_per_second BETWEEN 350 AND 400 AS pace, rows_per_second_overall BETWEEN 399 AND 401 AS overall,
       eta BETWEEN '15 s' AND '17 s' AS eta, eta_error BETWEEN '5 s' AND '6 s' AS spread FROM migrate_ext.progress WHERE migration = 'seen';
UPDATE migrate_ext.batch b SET started_at = started_at - interval '20 s' FROM migrate_ext.migration m WHERE m.id = b.migration AND m.name = 'seen';
SELECT rows_per_second BETWEEN 120 AND 134 AS pace, rows_per_second_overall BETWEEN 399 AND 401 AS overall,
       eta BETWEEN '45 s' AND '48 s' AS eta, eta_error BETWEEN '30 s' AND '33 s' AS difference FROM migrate_ext.progress WHERE migration = 'seen';
UPDATE migrate_ext.migration SET end_block = 742 WHERE name = 'seen';
SELECT bar, percent FROM migrate_ext.progress WHERE migration = 'seen';
ROLLBACK;
CALL migrate_ext.cancel('seen');
SELECT state, bar, percent, eta, log_entries, default_rows, workers, waiting_for, next_step FROM migrate_ext.progress WHERE migration = 'seen';
SELECT migrate_ext.forget('seen');
SELECT sum(rows) FROM pg_temp.rows_seen();
DROP TABLE seen;
REVOKE CREATE ON SCHEMA public FROM views_owner;
DROP ROLE views_member, views_of_owner, views_owner, views_monitor, views_stranger;
