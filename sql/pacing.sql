-- Pacing: what may be set, and what a session that does the work itself is told.
SET client_min_messages = warning;
CREATE TABLE paced (id int PRIMARY KEY, v text);
INSERT INTO paced SELECT i, 'v' || i FROM generate_series(1, 1000) i;
CREATE TABLE paced_load (level numeric);
INSERT INTO paced_load VALUES (1);
RESET client_min_messages;
SELECT migrate_ext.partition_by_hash('paced', 'id', 2);
SELECT name, setting, min_val, max_val, unit, context FROM pg_settings WHERE name LIKE 'migrate\_ext.throttle%' ORDER BY 1;

-- limits are whole numbers, 0 is off
SELECT migrate_ext.configure('paced', 'throttle_rows_per_second', '-1');
SELECT migrate_ext.configure('paced', 'throttle_replay_lag_s', '1 min');
SELECT migrate_ext.configure('paced', 'throttle_wraparound', '2');
SELECT migrate_ext.configure('paced', 'throttle_nosuch', '1');
SELECT migrate_ext.configure('paced', 'throttle_rows_per_second', '0');

-- the query is looked at when it is set
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT nosuch');
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT level FROM paced_load');
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT 1; SELECT 2');
SELECT migrate_ext.configure('paced', 'throttle_query', 'DELETE FROM public.paced_load RETURNING 1');
SELECT migrate_ext.configure('paced', 'throttle_query', 'SHOW work_mem');
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT 1, 2');
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT now()');
SELECT settings FROM migrate_ext.migration WHERE name = 'paced';

-- at 1 it stops. What a CALL tells goes by the time it takes: events tell instead
SET client_min_messages = warning;
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT level FROM public.paced_load');
CALL migrate_ext.run('paced', 'copying');
CALL migrate_ext.run('paced', 'live', '1500 ms');
SELECT DISTINCT message FROM migrate_ext.events WHERE kind = 'throttled';
SELECT state, rows_done, waiting_for FROM migrate_ext.progress JOIN migrate_ext.migrations USING (migration, state) WHERE migration = 'paced';
SELECT count(*) FROM paced_new;

-- what can't be read slows down, and lets it go on
TRUNCATE paced_load;
CALL migrate_ext.run('paced', 'indexing');
SELECT count(*) FROM paced_new;
CALL migrate_ext.cancel('paced');
SELECT migrate_ext.forget('paced');

-- other ways to fail; a function can't write
CREATE FUNCTION paced_writes() RETURNS int LANGUAGE sql AS 'INSERT INTO public.paced_load VALUES (0) RETURNING 1';
SELECT migrate_ext.partition_by_hash('paced', 'id', 2);
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT public.paced_writes()');
CALL migrate_ext.run('paced', 'indexing');
SELECT DISTINCT message FROM migrate_ext.events WHERE kind = 'throttled';
CALL migrate_ext.cancel('paced');
SELECT migrate_ext.forget('paced');
SELECT migrate_ext.partition_by_hash('paced', 'id', 2);
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT 1 / (pg_catalog.count(*) - 1000) FROM public.paced');
CALL migrate_ext.run('paced', 'indexing');
SELECT DISTINCT message FROM migrate_ext.events WHERE kind = 'throttled';
CALL migrate_ext.cancel('paced');
SELECT migrate_ext.forget('paced');
SELECT migrate_ext.partition_by_hash('paced', 'id', 2);
SELECT migrate_ext.configure('paced', 'throttle_query', 'SELECT pg_catalog.pg_sleep(60) IS NULL');
CALL migrate_ext.run('paced', 'indexing');
SELECT DISTINCT message FROM migrate_ext.events WHERE kind = 'throttled';
SELECT count(*) FROM paced_load;

-- for good
SELECT migrate_ext.configure('paced', 'throttle_query', '');
CALL migrate_ext.run('paced', 'live');
CALL migrate_ext.verify('paced');
CALL migrate_ext.cancel('paced');
SELECT migrate_ext.forget('paced');
SELECT count(*) FROM migrate_ext.throttle;
RESET client_min_messages;
DROP FUNCTION paced_writes();
DROP TABLE paced, paced_load;
