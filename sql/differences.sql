-- Which rows differ, and putting them right.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
CREATE SCHEMA differences;
SET search_path = differences;
CREATE TABLE p (id int PRIMARY KEY, k int);
INSERT INTO p SELECT i, i FROM generate_series(1, 4) i;
CREATE TABLE t (a int, "b c" text, p int NOT NULL, note text, PRIMARY KEY (a, "b c"));
INSERT INTO t SELECT i, 'x' || i, i % 4 + 1, 'n' FROM generate_series(1, 3000) i;
SELECT migrate_ext.add_sharding_key('t', 'k', 'int', '(SELECT p.k FROM p WHERE p.id = s.p)', fill => false);
SELECT migrate_ext.partition_by_list('t', 'k');
SELECT * FROM migrate_ext.differences('t');
SELECT migrate_ext.repair('t');
CALL migrate_ext.run('t');
SELECT * FROM migrate_ext.differences('t');
-- behind the trigger's back
UPDATE t_new SET note = 'wrong' WHERE a = 1;
UPDATE t_new SET p = 4, note = NULL WHERE a = 2;
DELETE FROM t_new WHERE a IN (3, 2999);
INSERT INTO t_new VALUES (9001, 'extra', 1, 'n', 1);
INSERT INTO t_new VALUES (5, 'x5', 2, 'twice', 3);
UPDATE p SET k = 3 WHERE id = 4;
SELECT identity, kind, columns, source_row, target_row FROM migrate_ext.differences('t') WHERE kind <> 'stale_key';
SELECT identity, kind, columns, source_row, target_row FROM migrate_ext.differences('t', 10000) WHERE kind = 'stale_key' LIMIT 2;
SELECT kind, count(*) FROM migrate_ext.differences('t', 10000) GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM migrate_ext.differences('t', 7);
BEGIN;
SELECT migrate_ext.repair('t');
ROLLBACK;
SELECT kind, count(*) FROM migrate_ext.differences('t', 10000) GROUP BY 1 ORDER BY 1;
SELECT migrate_ext.repair('t');
CALL migrate_ext.finalize('t', '30 seconds');
SELECT relkind, (SELECT count(*) FROM t) FROM pg_class WHERE oid = 't'::regclass;
-- swapped: the original is what is put right
SELECT * FROM migrate_ext.differences('t');
UPDATE t_orig SET note = 'wrong' WHERE a = 10;
DELETE FROM t_orig WHERE a = 11;
INSERT INTO t_orig (a, "b c", p) VALUES (9002, 'extra', 1);
SELECT identity, kind, columns, source_row, target_row FROM migrate_ext.differences('t');
SELECT migrate_ext.repair('t');
CALL migrate_ext.undo('t', '30 seconds');
SELECT relkind, (SELECT count(*) FROM t), (SELECT count(*) FROM t WHERE note = 'n') AS right FROM pg_class WHERE oid = 't'::regclass;
SELECT * FROM migrate_ext.differences('t');

-- rows that failed are tried again
INSERT INTO t VALUES (9100, 'no parent', 99, 'n');
CALL migrate_ext.finalize('t', '30 seconds');
SELECT identity, sqlstate FROM migrate_ext.failed_rows WHERE migration = 't';
SELECT identity, kind FROM migrate_ext.differences('t');
INSERT INTO p VALUES (99, 2);
SELECT migrate_ext.retry_failed('t');
CALL migrate_ext.finalize('t', '30 seconds');
SELECT count(*) FROM migrate_ext.failed_rows WHERE migration = 't';
SELECT a, k FROM t WHERE a = 9100;
SELECT migrate_ext.retry_failed('t');

-- wrong calls
SELECT * FROM migrate_ext.differences('t', 0);
SELECT * FROM migrate_ext.differences('t', NULL);
SELECT * FROM migrate_ext.differences('nosuch');
SELECT migrate_ext.repair(NULL);
CALL migrate_ext.complete('t');
SELECT migrate_ext.repair('t');
SELECT migrate_ext.retry_failed('t');
SET client_min_messages = error;
SELECT migrate_ext.forget('t');
DROP SCHEMA differences CASCADE;
