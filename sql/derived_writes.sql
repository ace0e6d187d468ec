-- A key that can't be derived, or doesn't fit, is the migration's trouble: the application's writes
-- go on, and what could not be carried over is named.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
CREATE SCHEMA derived_writes;
SET search_path = derived_writes;
\set VERBOSITY terse
CREATE VIEW failed AS
    SELECT identity, sqlstate, message FROM migrate_ext.failed_rows WHERE migration = 't' ORDER BY identity::text;
CREATE VIEW verified AS
    SELECT checked_rows, missing, extra, different, skipped, failed, stale_key
    FROM migrate_ext.verifications WHERE migration = 't' ORDER BY verified_at DESC LIMIT 1;
CREATE TABLE parent (id int PRIMARY KEY, k bigint);
INSERT INTO parent VALUES (1, 10), (2, 110), (3, 99999999999), (4, NULL);
CREATE TABLE t (id int PRIMARY KEY, parent_id int, v text);

-- the target's key is smaller than the source's: the row's own key doesn't fit, or the derived one
INSERT INTO t SELECT g, 1 + g % 2, 'old' FROM generate_series(1, 4) g;
SELECT migrate_ext.add_sharding_key('t', 'k', 'bigint', '(SELECT p.k FROM parent p WHERE p.id = s.parent_id)', false);
CREATE TABLE t_new (id int, parent_id int, v text, k int) PARTITION BY RANGE (k);
CREATE TABLE t_a PARTITION OF t_new FOR VALUES FROM (0) TO (100);
CREATE TABLE t_b PARTITION OF t_new FOR VALUES FROM (100) TO (300);
SELECT migrate_ext.create_migration('t', 't_new');
CALL migrate_ext.run('t', 'logging');
INSERT INTO t VALUES (5, 1, 'own', 99999999999), (6, 3, 'derived', NULL);
CALL migrate_ext.run('t');
SELECT tableoid::regclass AS leaf, * FROM t_new ORDER BY id;
TABLE failed;
INSERT INTO t VALUES (7, 1, 'own', 99999999999), (8, 3, 'derived', NULL);
UPDATE t SET v = 'again' WHERE id >= 5;
UPDATE t SET k = 99999999999 WHERE id = 1;
UPDATE t SET parent_id = 3 WHERE id = 2;
DELETE FROM t WHERE id = 5;
UPDATE t SET k = 20, v = 'fits' WHERE id IN (6, 7);
UPDATE t SET id = 9 WHERE id = 1;
UPDATE t SET k = NULL WHERE id = 9;
SELECT * FROM t ORDER BY id;
CALL migrate_ext.finalize('t', '20 seconds');
TABLE failed;
SELECT tableoid::regclass AS leaf, * FROM t_new ORDER BY id;
UPDATE t SET parent_id = 1 WHERE id IN (2, 8);
CALL migrate_ext.finalize('t', '20 seconds');
TABLE verified;
CALL migrate_ext.complete('t', true);
SELECT migrate_ext.forget('t');
DROP TABLE t;

DROP SCHEMA derived_writes CASCADE;
