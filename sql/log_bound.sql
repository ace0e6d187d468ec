-- A change log under an old snapshot: drained entries can't be removed, but they are not read again and again, and the log is no larger
-- than they and what is undrained make it; when the snapshot has gone, they go too.
SET client_min_messages = warning;
CREATE SCHEMA log_bound;
CREATE EXTENSION dblink SCHEMA log_bound;
SET search_path = log_bound, helper, public;
CREATE TABLE t (id integer PRIMARY KEY, v integer NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 500) i;
SELECT migrate_ext.partition_by_hash('t', 'id', 1);
CALL migrate_ext.run('t', 'catching_up');
SELECT format('migrate_ext.log_%s', id) AS log FROM migrate_ext.migration WHERE name = 't' \gset
ALTER TABLE :log SET (autovacuum_enabled = off);
CREATE VIEW log_bound.now AS SELECT (SELECT count(*) = 0 FROM :log) AS drained, pg_relation_size(:'log') / 8192 AS pages,
    (SELECT idx_tup_read FROM pg_stat_all_indexes WHERE relid = :'log'::regclass) AS read;
CREATE TABLE measure (n integer GENERATED ALWAYS AS IDENTITY, pages bigint, read bigint);

SELECT FROM unnest('{old,runner}'::text[]) c, dblink_connect(c, format('host=%s port=%s dbname=%s',
    split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
-- with its lock the migration stays in catching_up
SELECT dblink_exec('old', 'BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK log_bound.t IN ROW EXCLUSIVE MODE; DECLARE c CURSOR FOR SELECT');
-- what the looks of this session read is not to count
SET enable_indexonlyscan = off;
SET enable_indexscan = off;
SET enable_bitmapscan = off;

-- 1,996 entries of 499 rows are drained, then what may be removed is.
CREATE PROCEDURE log_bound.round(log text) LANGUAGE plpgsql AS $$
DECLARE
    done boolean;
BEGIN
    FOR i IN 1 .. 4 LOOP
        UPDATE log_bound.t SET v = v + 1 WHERE id <= 499;
    END LOOP;
    COMMIT;
    PERFORM dblink_send_query('runner', 'CALL migrate_ext.run(''t'')');
    FOR i IN 1 .. 6000 LOOP
        SELECT drained INTO done FROM log_bound.now;
        COMMIT;
        EXIT WHEN done;
        PERFORM pg_sleep(0.01);
    END LOOP;
    IF done IS NOT TRUE THEN
        RAISE 'the log is not drained';
    END IF;
    PERFORM dblink_cancel_query('runner');
    PERFORM FROM dblink_get_result('runner', false) AS r (x text);
    PERFORM FROM dblink_get_result('runner', false) AS r (x text);
    PERFORM dblink_exec('runner', 'VACUUM ' || log);
    PERFORM FROM dblink('runner', 'SELECT pg_stat_force_next_flush()::text') AS r (x text);
    COMMIT;
    INSERT INTO log_bound.measure (pages, read) SELECT pages, read FROM log_bound.now;
END
$$;
CALL round(:'log'); CALL round(:'log'); CALL round(:'log'); CALL round(:'log');
CALL round(:'log'); CALL round(:'log'); CALL round(:'log'); CALL round(:'log');
-- what was written since is carried over, each row once a round whatever the number of its entries
SELECT count(*) AS rows, count(*) FILTER (WHERE v = 32) AS new, (SELECT n_tup_upd FROM pg_stat_all_tables WHERE relid = 't_p0'::regclass) AS updates FROM t_new;
-- the log is as large as eight rounds of entries are, and no round has read more than its own
SELECT max(pages) <= 8 * min(pages) + 8 AS as_large_as_forbidden, max(pages) > 5 * min(pages) AS they_stay FROM measure;
CREATE VIEW log_bound.reads AS SELECT n, read - lag(read, 1, 0::bigint) OVER (ORDER BY n) AS read FROM measure;
SELECT bool_and(read < 5 * 1996) AS no_more_read FROM reads;

-- without the snapshot the room is used again
SELECT dblink_exec('old', 'ROLLBACK; BEGIN; LOCK log_bound.t IN ROW EXCLUSIVE MODE');
CALL round(:'log'); CALL round(:'log'); CALL round(:'log'); CALL round(:'log');
SELECT min(pages) FILTER (WHERE n > 8) <= min(pages) FILTER (WHERE n = 1) + 1 AS small_again FROM measure;
SELECT dblink_exec('old', 'ROLLBACK');
CALL migrate_ext.run('t');
SELECT * FROM helper.check('t');
SELECT FROM unnest('{old,runner}'::text[]) c, dblink_disconnect(c);
DROP VIEW reads, now;
CALL migrate_ext.cancel('t');
SELECT migrate_ext.forget('t');
SET client_min_messages = error;
DROP SCHEMA log_bound CASCADE;
