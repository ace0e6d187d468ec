-- backfill_key: what is refused, a whole life, rows that can't be filled, what a table's own triggers
-- do, and what goes on beside a migration to partitions.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
RESET client_min_messages;
CREATE SCHEMA backfill_key;
SET search_path = backfill_key;
\pset tuples_only on
\pset format unaligned

CREATE ROLE backfill_owner;
CREATE ROLE backfill_other;
GRANT USAGE, CREATE ON SCHEMA backfill_key TO backfill_owner;
GRANT USAGE ON SCHEMA backfill_key TO backfill_other;
CREATE TABLE diffs (id bigint PRIMARY KEY, project_id bigint);
CREATE TABLE commits (diff_id bigint, place int, sha text, PRIMARY KEY (diff_id, place));
ALTER TABLE diffs OWNER TO backfill_owner;
ALTER TABLE commits OWNER TO backfill_owner;
INSERT INTO diffs SELECT d, d * 10 FROM generate_series(1, 50) d;
INSERT INTO commits SELECT d, p, 'old' FROM generate_series(1, 50) d, generate_series(1, 100) p;
CREATE VIEW looks AS SELECT * FROM commits;
CREATE TABLE parted (id int, k int) PARTITION BY LIST (id);

-- what is refused, with nothing changed
SELECT helper.try($$SELECT migrate_ext.backfill_key(NULL, 'k')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', NULL)$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'sha', NULL)$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'sha', '[]')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'sha', '{"timezone": "UTC"}')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'sha', '{"on_null_key": true}')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'sha', '{"on_null_key": "ignore"}')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'nothing')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'ctid')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'sha')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('looks', 'sha')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('parted', 'k')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('migrate_ext.migration', 'name')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key(1, 'k')$$);
SET ROLE backfill_other;
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'sha')$$);
SET ROLE backfill_owner;
SELECT migrate_ext.add_sharding_key('commits', 'note', 'text');
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'note')$$);
SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'bigint', '(SELECT d.project_id FROM diffs d WHERE d.id = s.diff_id)', false);
BEGIN READ ONLY;
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'project_id')$$);
ROLLBACK;
SELECT count(*) FROM migrate_ext.migrations;

-- what is recorded; the same again, and another
SELECT migrate_ext.backfill_key('commits', 'project_id');
SELECT migrate_ext.backfill_key('backfill_key.commits', 'project_id', '{"on_null_key": "error"}');
SELECT helper.try($$SELECT migrate_ext.backfill_key('commits', 'project_id', '{"on_null_key": "skip"}')$$);
BEGIN;
SELECT migrate_ext.add_sharding_key('commits', 'other', 'int', 's.place', false);
SELECT migrate_ext.backfill_key('commits', 'other');
SELECT migrate_ext.add_sharding_key('commits', 'third', 'int', 's.place', false);
SELECT migrate_ext.backfill_key('commits', 'third');
ROLLBACK;
SELECT migration, kind, table_name, source, target, original, state, goal, owner FROM migrate_ext.migrations;
SELECT state, percent, rows_done, log_entries, default_rows, skipped, failed, waiting_for, next_step FROM migrate_ext.progress;
SELECT * FROM migrate_ext.preflight('commits');

-- what a migration of this kind has not
SELECT helper.try($$SELECT migrate_ext.install_sync('commits')$$);
SELECT helper.try($$SELECT migrate_ext.swap('commits')$$);
SELECT helper.try($$SELECT migrate_ext.unswap('commits')$$);
\set VERBOSITY terse
CALL migrate_ext.wait_for('commits', 'swapped');
CALL migrate_ext.undo('commits');
CALL migrate_ext.finalize('commits');
CALL migrate_ext.complete('commits');
CALL migrate_ext.verify('commits');
\set VERBOSITY default
RESET ROLE;
SET ROLE backfill_other;
SELECT helper.try($$SELECT migrate_ext.start('commits')$$);
SELECT count(*) FROM migrate_ext.progress;
RESET ROLE;

-- a life; rows that have their key stay as they are
SET ROLE backfill_owner;
UPDATE commits SET project_id = -1 WHERE place = 1;
SELECT migrate_ext.configure('commits', 'batch_target_ms', '10');
CALL migrate_ext.run('commits');
CALL migrate_ext.run('commits');
SELECT count(*), count(*) FILTER (WHERE project_id = diff_id * 10), count(*) FILTER (WHERE project_id = -1 AND place = 1) FROM commits;
SELECT state, percent, rows_done, rows_total, eta, skipped, failed, workers, waiting_for, next_step FROM migrate_ext.progress;
SELECT sum(rows), sum(logged), bool_and(state = 'done'), min(first_block) FROM migrate_ext.batches;
CALL migrate_ext.verify('commits');
SELECT complete, checked_rows, missing, extra, different, skipped, failed, stale_key FROM migrate_ext.verifications ORDER BY verified_at;
-- a row comes without the key; finalize finds it
INSERT INTO commits VALUES (50, 101, 'new', NULL);
CALL migrate_ext.verify('commits');
CALL migrate_ext.wait_for('commits', 'live');
SELECT helper.try($$SELECT migrate_ext.plan('commits')$$);
\set VERBOSITY terse
CALL migrate_ext.rehearse('commits');
\set VERBOSITY default
CALL migrate_ext.complete('commits', drop_original => true, options => '{"incoming_fks": "drop"}');
SELECT * FROM commits WHERE place = 101;
SELECT state, goal, original, swapped_at FROM migrate_ext.migrations;
SELECT next_step, percent FROM migrate_ext.progress;
CALL migrate_ext.finalize('commits');
CALL migrate_ext.wait_for('commits', 'live');
SELECT helper.try($$SELECT migrate_ext.start('commits')$$);
SELECT kind, message FROM migrate_ext.events;
SELECT migrate_ext.forget('commits');
SELECT (SELECT count(*) FROM migrate_ext.migrations) + (SELECT count(*) FROM migrate_ext.batches);
RESET ROLE;

-- rows that can't be filled: no parent, a parent without, two parents, out of range, a check, a trigger that
-- keeps the row back or raises, a value too long
CREATE TABLE parents (id int, k bigint);
INSERT INTO parents SELECT p, p FROM generate_series(1, 1000) p;
INSERT INTO parents VALUES (11, 1), (12, 2);
UPDATE parents SET k = NULL WHERE id IN (21, 22);
UPDATE parents SET k = 1::bigint << 40 WHERE id IN (31, 32);
UPDATE parents SET k = 666 WHERE id IN (41, 666);
CREATE TABLE children (id int PRIMARY KEY, pad text);
INSERT INTO children SELECT c, repeat('x', 100) FROM generate_series(1, 1004) c;
ALTER TABLE parents OWNER TO backfill_owner;
ALTER TABLE children OWNER TO backfill_owner;
SET ROLE backfill_owner;
SELECT migrate_ext.add_sharding_key('children', 'k', 'int', '(SELECT p.k FROM parents p WHERE p.id = s.id)', false);
ALTER TABLE children ADD CHECK (k <> 666);
-- seen is found by the search_path of who called backfill_key
CREATE TABLE seen (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.id IN (51, 52) THEN RETURN NULL; END IF;
    IF new.id = 61 THEN RAISE 'not this one'; END IF;
    INSERT INTO seen VALUES (new.id);
    RETURN new;
END
$$;
CREATE TRIGGER note BEFORE UPDATE OF k ON children FOR EACH ROW EXECUTE FUNCTION note();
-- a deferred one can't wait for the commit of a restricted operation
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON children DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late();
SELECT migrate_ext.backfill_key('children', 'k');
SELECT * FROM migrate_ext.preflight('children');
SET search_path = pg_catalog;
CALL migrate_ext.run('children');
SET search_path = backfill_key;
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows ORDER BY (identity->>'id')::int;
SELECT count(*) FILTER (WHERE k = id), string_agg(id::text, ',' ORDER BY id) FILTER (WHERE k IS NULL), count(*) FILTER (WHERE k <> id) FROM children;
SELECT count(*), count(DISTINCT id) FROM seen;
SELECT state, rows_done, skipped, failed, waiting_for FROM migrate_ext.progress WHERE migration = 'children';
CALL migrate_ext.verify('children');
SELECT * FROM migrate_ext.preflight('children') WHERE severity = 'error';
CALL migrate_ext.finalize('children');
SELECT p.state, m.goal, p.waiting_for FROM migrate_ext.progress p JOIN migrate_ext.migrations m USING (migration);
-- some are mended: they are found again by finalize
INSERT INTO parents VALUES (1001, 1001), (1002, 1002);
DELETE FROM parents WHERE id = k + 10;
UPDATE parents SET k = id WHERE id < 40;
DELETE FROM children WHERE id = 666;
CALL migrate_ext.finalize('children');
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows ORDER BY (identity->>'id')::int;
CALL migrate_ext.finalize('children', options => '{"accept_failed": true}');
SELECT state, failed FROM migrate_ext.progress;
SELECT migrate_ext.forget('children');
-- left out instead; a value too long is the row's fault, and not cut
DROP TRIGGER note ON children;
SELECT migrate_ext.add_sharding_key('children', 'name', 'varchar(3)',
    '(SELECT CASE WHEN s.id = 7 THEN ''too long'' ELSE ''p'' END FROM parents p WHERE p.id = s.id)', false);
SELECT migrate_ext.backfill_key('children', 'name', '{"on_null_key": "skip"}');
CALL migrate_ext.run('children');
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows ORDER BY (identity->>'id')::int;
SELECT string_agg(id::text, ',' ORDER BY id) FROM children WHERE name IS NULL;
SELECT rows_done, skipped, failed FROM migrate_ext.progress;
CALL migrate_ext.verify('children');
-- cancelled: what is filled stays
CALL migrate_ext.cancel('children');
SELECT state, count(*) FROM migrate_ext.migrations, children WHERE name IS NOT NULL GROUP BY state;
SELECT kind, message FROM migrate_ext.events ORDER BY at DESC LIMIT 1;
SELECT migrate_ext.forget('children');
RESET ROLE;

-- the table changes under it
SET ROLE backfill_owner;
SELECT migrate_ext.add_sharding_key('children', 'third', 'int', 's.id', false);
SELECT migrate_ext.backfill_key('children', 'third');
SELECT migrate_ext.pause('children', 'not now');
\set VERBOSITY terse
CALL migrate_ext.run('children');
SELECT migrate_ext.resume('children');
ALTER TABLE children RENAME third TO fourth;
CALL migrate_ext.run('children');
SELECT paused, pause_reason FROM migrate_ext.migrations;
ALTER TABLE children RENAME fourth TO third;
-- resume begins a worker
SELECT migrate_ext.resume('children');
CALL migrate_ext.wait_for('children', 'live');
SELECT count(*) - count(*) FILTER (WHERE third = id) FROM children;
TRUNCATE children;
CALL migrate_ext.finalize('children');
SELECT migrate_ext.forget('children');
INSERT INTO children SELECT g FROM generate_series(1, 10) g;
SELECT migrate_ext.backfill_key('children', 'third');
DROP TABLE children;
CALL migrate_ext.run('children');
SELECT state, pause_reason, waiting_for, next_step FROM migrate_ext.progress JOIN migrate_ext.migrations USING (migration, state);
SELECT severity, problem, remedy FROM migrate_ext.preflight('children');
CALL migrate_ext.cancel('children');
SELECT migrate_ext.forget('children');
RESET ROLE;
\set VERBOSITY default

-- so does what its key is made of; each harm is mended, and then it goes on
SET ROLE backfill_owner;
CREATE TABLE looked_up (id int PRIMARY KEY, k int);
CREATE TABLE harmed (id int PRIMARY KEY, v text);
INSERT INTO looked_up SELECT g, g % 3 FROM generate_series(1, 1000) g;
INSERT INTO harmed SELECT g, 'v' FROM generate_series(1, 1000) g;
SELECT migrate_ext.add_sharding_key('harmed', 'k', 'int', '(SELECT l.k FROM looked_up l WHERE l.id = s.id)');
SELECT migrate_ext.backfill_key('harmed', 'k');
\set VERBOSITY terse
ALTER TABLE harmed DISABLE TRIGGER ALL;
INSERT INTO harmed VALUES (1001, 'v');
INSERT INTO looked_up VALUES (1001, 2);
ALTER TABLE looked_up RENAME TO elsewhere;
CALL migrate_ext.run('harmed', timeout => '1 minute');
SELECT state, paused, count(*) - count(k) AS to_be_filled FROM migrate_ext.migrations, harmed WHERE migration = 'harmed' GROUP BY 1, 2;
ALTER TABLE elsewhere RENAME TO looked_up;
ALTER TABLE harmed ALTER k TYPE bigint;
CALL migrate_ext.run('harmed', timeout => '1 minute');
SELECT state, paused, count(*) - count(k) AS to_be_filled FROM migrate_ext.migrations, harmed WHERE migration = 'harmed' GROUP BY 1, 2;
ALTER TABLE harmed ALTER k TYPE int;
SELECT migrate_ext.resume('harmed');
CALL migrate_ext.wait_for('harmed', 'live');
SELECT count(*) - count(k) AS to_be_filled FROM harmed;
ALTER TABLE harmed DROP k CASCADE;
CALL migrate_ext.finalize('harmed', '1 minute');
SELECT state, paused, pause_reason FROM migrate_ext.migrations WHERE migration = 'harmed';
CALL migrate_ext.cancel('harmed');
SELECT migrate_ext.forget('harmed');
INSERT INTO harmed VALUES (1002, 'v');
RESET ROLE;
\set VERBOSITY default

-- beside a migration to partitions: neither is in the other's way, and what is filled is carried over
SET ROLE backfill_owner;
CREATE TABLE beside (id int PRIMARY KEY, v text);
INSERT INTO beside SELECT g, 'v' FROM generate_series(1, 1000) g;
SELECT migrate_ext.add_sharding_key('beside', 'k', 'int', 's.id % 3', false);
SELECT migrate_ext.backfill_key('beside', 'k');
SELECT migrate_ext.partition_by_hash('beside', 'k', 3);
SELECT migrate_ext.partition_by_hash('beside', 'k', 3);
SET client_min_messages = warning;
CALL migrate_ext.run('backfill_key.beside');
CALL migrate_ext.run('beside');
SELECT * FROM migrate_ext.preflight('beside');
SELECT count(*), count(k) FROM beside;
CALL migrate_ext.verify('backfill_key.beside');
RESET client_min_messages;
SELECT checked_rows, missing, extra, different, stale_key FROM migrate_ext.verifications WHERE migration = 'backfill_key.beside';
SELECT migration, kind, source, target, state FROM migrate_ext.migrations ORDER BY 1;
-- after the swap the table is another one
CALL migrate_ext.finalize('backfill_key.beside');
SELECT helper.try($$SELECT migrate_ext.backfill_key('beside', 'k')$$);
SELECT helper.try($$SELECT migrate_ext.backfill_key('beside_orig', 'k')$$);
\set VERBOSITY terse
CALL migrate_ext.verify('beside');
CALL migrate_ext.complete('backfill_key.beside');
CALL migrate_ext.verify('beside');
CALL migrate_ext.cancel('beside');
SELECT migrate_ext.forget(migration) FROM migrate_ext.migrations;
\set VERBOSITY default
RESET ROLE;

-- two parents of a key that a foreign key points at, and rows that are referenced
SET ROLE backfill_owner;
CREATE TABLE pointed (id int PRIMARY KEY);
INSERT INTO pointed SELECT g FROM generate_series(1, 100) g;
SELECT migrate_ext.add_sharding_key('pointed', 'k', 'int', 's.id', true);
ALTER TABLE pointed ADD UNIQUE (k);
CREATE TABLE pointing (k int REFERENCES pointed (k));
SELECT migrate_ext.backfill_key('pointed', 'k');
SET client_min_messages = warning;
CALL migrate_ext.run('pointed');
CALL migrate_ext.finalize('pointed');
RESET client_min_messages;
SELECT count(*) FROM pointed WHERE k = id;
SELECT migrate_ext.forget('pointed');
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA backfill_key CASCADE;
DELETE FROM migrate_ext.sharding_key;
DROP ROLE backfill_owner, backfill_other;
