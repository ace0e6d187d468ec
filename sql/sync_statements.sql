-- Every kind of statement in every state: the same results as on a table that nobody migrates, and
-- both tables equal.
\getenv abs_srcdir PG_ABS_SRCDIR
\cd :abs_srcdir
SET client_min_messages = warning;
CREATE TABLE acts (id integer PRIMARY KEY, u integer UNIQUE DEFERRABLE INITIALLY DEFERRED, v text);

-- a table that nobody migrates
\i sql/parts/statements.sql
CREATE TEMP TABLE plain AS TABLE acts;

SELECT migrate_ext.partition_by_hash('acts', 'id', 3);
CALL migrate_ext.run('acts', 'logging');
\i sql/parts/statements.sql
CALL migrate_ext.run('acts');
SELECT * FROM helper.check('acts');

-- live
\i sql/parts/statements.sql
SELECT * FROM helper.check('acts');

CALL migrate_ext.finalize('acts');
-- swapped
\i sql/parts/statements.sql
SELECT * FROM helper.check('acts');

CALL migrate_ext.undo('acts');
-- live again
\i sql/parts/statements.sql
SELECT * FROM helper.check('acts');
CALL migrate_ext.finalize('acts');
SELECT count(*) AS not_like_the_plain_one FROM (SELECT * FROM acts EXCEPT TABLE plain) d;
CALL migrate_ext.complete('acts', drop_original => true);
SELECT migrate_ext.forget('acts');
DROP TABLE acts, plain;

-- keys: what another unique key refuses or not, and ON CONFLICT, by state
CREATE TABLE keys (id integer PRIMARY KEY, k integer NOT NULL, u integer UNIQUE, v text);
INSERT INTO keys SELECT i, i % 3, i, 'v' FROM generate_series(1, 9) i;
SELECT migrate_ext.partition_by_list('keys', 'k');
CALL migrate_ext.run('keys');
INSERT INTO keys VALUES (10, 0, 1, 'taken');
INSERT INTO keys VALUES (1, 1, 10, 'taken');
INSERT INTO keys VALUES (1, 0, 10, 'put') ON CONFLICT (id) DO UPDATE SET v = excluded.v, k = excluded.k;
INSERT INTO keys VALUES (11, 0, 2, 'put') ON CONFLICT (u) DO UPDATE SET v = excluded.v, k = 2;
SELECT * FROM helper.check('keys');
CALL migrate_ext.finalize('keys');
INSERT INTO keys VALUES (1, 1, 10, 'taken');
INSERT INTO keys VALUES (1, 0, 10, 'put') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
INSERT INTO keys VALUES (1, 0, 10, 'put after') ON CONFLICT (id, k) DO UPDATE SET v = excluded.v, k = 1;
UPDATE keys SET id = 2 WHERE id = 3;
UPDATE keys SET id = CASE id WHEN 4 THEN 5 ELSE 4 END, k = k + 1 WHERE id IN (4, 5);
SELECT * FROM helper.check('keys');
CALL migrate_ext.undo('keys');
TABLE keys ORDER BY id;
CALL migrate_ext.cancel('keys');
DROP TABLE keys;

-- TRUNCATE
CREATE TABLE t (id serial PRIMARY KEY, k integer NOT NULL, v text);
CREATE TABLE other (id integer);
INSERT INTO t (k, v) SELECT i % 3, 'v' || i FROM generate_series(1, 30) i;
SELECT migrate_ext.partition_by_list('t', 'k');
SET client_min_messages = notice;
CALL migrate_ext.run('t', 'logging');
-- while logging: the copy starts over
TRUNCATE t;
INSERT INTO t (k, v) SELECT i % 3, 'again' FROM generate_series(1, 5) i;
CALL migrate_ext.run('t');
SELECT * FROM helper.check('t');
-- rolled back, and with DML around it
BEGIN;
INSERT INTO t VALUES (100, 1, 'gone');
TRUNCATE t RESTART IDENTITY;
INSERT INTO t (k) VALUES (1);
ROLLBACK;
SELECT * FROM helper.check('t');
BEGIN;
UPDATE t SET v = 'gone';
SAVEPOINT s;
TRUNCATE other, t;
INSERT INTO t VALUES (100, 1, 'never');
ROLLBACK TO s;
TRUNCATE t, other RESTART IDENTITY CASCADE;
INSERT INTO t (k, v) VALUES (0, 'after'), (1, 'after'), (7, 'after');
UPDATE t SET k = k + 1;
COMMIT;
SELECT * FROM helper.check('t');
TABLE t ORDER BY id;
SET client_min_messages = warning;
CALL migrate_ext.finalize('t');
-- swapped: a partition, the whole, ONLY
INSERT INTO t (k, v) SELECT i % 4, 'more' FROM generate_series(1, 12) i;
TRUNCATE t_p2;
SELECT * FROM helper.check('t');
BEGIN;
INSERT INTO t (k, v) VALUES (2, 'in'), (0, 'in');
TRUNCATE t_p0, t_default;
INSERT INTO t (k, v) VALUES (0, 'after');
COMMIT;
SELECT k, count(*) FROM t GROUP BY k ORDER BY k;
SELECT * FROM helper.check('t');
TRUNCATE ONLY t;
BEGIN;
TRUNCATE t;
SELECT count(*) FROM t_orig;
ROLLBACK;
SELECT * FROM helper.check('t');
BEGIN;
INSERT INTO t (k, v) VALUES (1, 'before');
TRUNCATE t RESTART IDENTITY;
INSERT INTO t (k, v) VALUES (1, 'first') RETURNING id;
COMMIT;
SELECT * FROM helper.check('t');
CALL migrate_ext.undo('t');
INSERT INTO t (k, v) VALUES (1, 'second') RETURNING id;
CALL migrate_ext.finalize('t');
CALL migrate_ext.complete('t', drop_original => true);
TRUNCATE t;
DROP TABLE t, other;

-- triggers of users: they write the same row again, other rows, refuse, and stand before ours by name
\set SHOW_CONTEXT never
CREATE TABLE t (id integer PRIMARY KEY, k integer NOT NULL, v text, n integer DEFAULT 0);
INSERT INTO t SELECT i, i % 3, 'v' FROM generate_series(1, 10) i;
CREATE FUNCTION pg_temp.change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.v = 'refuse' THEN RAISE 'refused'; END IF;
    IF NEW.v = 'skip' THEN RETURN NULL; END IF;
    NEW.n := COALESCE(NEW.n, 0) + 1;
    RETURN NEW;
END $$;
CREATE FUNCTION pg_temp.again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
    UPDATE t SET v = v || '+', k = k + 1 WHERE id = NEW.id;
    UPDATE t SET n = n + 10 WHERE id = NEW.id % 10 + 1;
    DELETE FROM t WHERE id = NEW.id + 100;
    RETURN NULL;
END $$;
CREATE TRIGGER "a before" BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.change();
CREATE TRIGGER "  first" AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.again();
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT OR UPDATE ON t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.v NOT LIKE '%+') EXECUTE FUNCTION pg_temp.again();
SELECT migrate_ext.partition_by_list('t', 'k');
CALL migrate_ext.run('t', 'logging');
UPDATE t SET v = 'logging' WHERE id IN (1, 3);
INSERT INTO t VALUES (101, 1, 'x'), (11, 1, 'y');
UPDATE t SET v = 'refuse' WHERE id = 4;
UPDATE t SET v = 'skip' WHERE id = 5;
CALL migrate_ext.run('t');
SELECT * FROM helper.check('t');
UPDATE t SET v = 'live' WHERE id IN (1, 3);
INSERT INTO t VALUES (102, 1, 'x'), (12, 1, 'y'), (2, 0, 'conflict') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
UPDATE t SET id = id + 100, v = 'moved' WHERE id = 7;
BEGIN;
UPDATE t SET v = 'block' WHERE id < 3;
SET CONSTRAINTS ALL IMMEDIATE;
UPDATE t SET v = 'refuse' WHERE id = 4;
ROLLBACK;
UPDATE t SET v = 'refuse' WHERE id = 4;
\set SHOW_CONTEXT errors
SELECT * FROM helper.check('t');
TABLE t ORDER BY id;
SELECT * FROM migrate_ext.preflight('t') WHERE severity = 'error' ORDER BY object, problem;
CALL migrate_ext.cancel('t');
DROP TABLE t;

-- DDL committed in the transaction of changes: the application goes on; the migration notices
CREATE TABLE t (id integer PRIMARY KEY, k integer NOT NULL, v text);
INSERT INTO t SELECT i, i % 3, 'v' FROM generate_series(1, 10) i;
SELECT migrate_ext.partition_by_hash('t', 'id', 2);
CALL migrate_ext.run('t', 'logging');
BEGIN;
UPDATE t SET v = 'before' WHERE id = 1;
ALTER TABLE t ADD COLUMN later integer DEFAULT 7;
UPDATE t SET v = 'after', later = 8 WHERE id = 2;
COMMIT;
CALL migrate_ext.run('t');
SELECT state, paused, pause_reason FROM migrate_ext.migrations WHERE migration = 't';
ALTER TABLE t DROP COLUMN later;
CALL migrate_ext.cancel('t');
SELECT migrate_ext.forget('t');
SELECT migrate_ext.partition_by_hash('t', 'id', 2);
CALL migrate_ext.run('t');
BEGIN;
UPDATE t SET v = 'before' WHERE id = 3;
ALTER TABLE t ADD COLUMN later integer DEFAULT 7;
UPDATE t SET v = 'after', later = 8 WHERE id = 4;
INSERT INTO t VALUES (11, 2, 'new', 9);
COMMIT;
UPDATE t SET v = 'later' WHERE id = 5;
DELETE FROM t WHERE id = 6;
CALL migrate_ext.finalize('t');
SELECT state, paused, pause_reason FROM migrate_ext.migrations WHERE migration = 't';
TABLE t ORDER BY id;
CALL migrate_ext.cancel('t');
SELECT migrate_ext.forget('t');
ALTER TABLE t DROP COLUMN later;
SELECT migrate_ext.partition_by_hash('t', 'id', 2);
CALL migrate_ext.run('t');
CALL migrate_ext.finalize('t');
-- swapped
BEGIN;
UPDATE t SET v = 'before' WHERE id = 1;
ALTER TABLE t ADD COLUMN later integer DEFAULT 7;
UPDATE t SET v = 'after', later = 8 WHERE id = 2;
COMMIT;
INSERT INTO t VALUES (12, 2, 'new', 9);
BEGIN;
UPDATE t SET v = 'before' WHERE id = 3;
CREATE INDEX ON t (v);
UPDATE t SET v = 'after' WHERE id = 3;
COMMIT;
CALL migrate_ext.undo('t');
SELECT state, paused, pause_reason FROM migrate_ext.migrations WHERE migration = 't';
ALTER TABLE t DROP COLUMN later;
SELECT migrate_ext.resume('t');
CALL migrate_ext.undo('t');
SELECT * FROM helper.check('t');
TABLE t ORDER BY id;
CALL migrate_ext.cancel('t');
SELECT migrate_ext.forget('t');

-- the swap in a transaction with changes on both sides of it, and of two tables at once
CREATE TABLE t2 (id integer PRIMARY KEY, v text);
INSERT INTO t2 SELECT i, 'v' FROM generate_series(1, 10) i;
SELECT migrate_ext.partition_by_hash('t', 'id', 2);
SELECT migrate_ext.partition_by_hash('t2', 'id', 2);
CALL migrate_ext.run('t');
CALL migrate_ext.run('t2');
-- not before all is ready
SELECT migrate_ext.swap('t');
CALL migrate_ext.finalize('t');
CALL migrate_ext.finalize('t2');
CALL migrate_ext.undo('t');
CALL migrate_ext.undo('t2');
CALL migrate_ext.verify('t');
CALL migrate_ext.verify('t2');
BEGIN;
UPDATE t SET v = 'before' WHERE id = 1;
INSERT INTO t2 VALUES (20, 'before');
SELECT migrate_ext.swap('t');
SELECT migrate_ext.swap('t2');
UPDATE t SET v = 'after' WHERE id IN (1, 2);
UPDATE t2 SET id = 21 WHERE id = 20;
SELECT relname, relkind FROM pg_class WHERE oid IN ('t'::regclass, 't2'::regclass) ORDER BY 1;
ROLLBACK;
SELECT migration, state FROM migrate_ext.migrations WHERE migration IN ('t', 't2') ORDER BY 1;
SELECT * FROM helper.check('t');
BEGIN;
UPDATE t SET v = 'before' WHERE id = 1;
INSERT INTO t2 VALUES (20, 'before');
SELECT migrate_ext.swap('t');
SELECT migrate_ext.swap('t2');
UPDATE t SET v = 'after' WHERE id IN (1, 2);
UPDATE t2 SET id = 21 WHERE id = 20;
COMMIT;
SELECT migration, state, source, target FROM migrate_ext.migrations WHERE migration IN ('t', 't2') ORDER BY 1;
SELECT * FROM helper.check('t');
SELECT * FROM helper.check('t2');
SELECT migrate_ext.unswap('t');
CALL migrate_ext.verify('t');
BEGIN;
UPDATE t SET v = 'back' WHERE id = 3;
SELECT migrate_ext.unswap('t');
UPDATE t SET v = 'back again' WHERE id = 3;
INSERT INTO t VALUES (30, 0, 'new');
COMMIT;
SELECT * FROM helper.check('t');
SELECT direction, hold_ms IS NULL AS not_measured FROM migrate_ext.swaps WHERE migration = 't' ORDER BY at;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT migrate_ext.unswap('t2');
ROLLBACK;
CALL migrate_ext.cancel('t');
CALL migrate_ext.complete('t2');
DROP TABLE t, t2, t2_orig;
SELECT count(migrate_ext.forget(migration)::text) FROM migrate_ext.migrations;
