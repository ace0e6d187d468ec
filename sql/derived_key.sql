-- A migration by a key that old rows lack: derived through a parent in the copy, the drain, the
-- write-through and the verification; there and back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
CREATE SCHEMA derived_key;
SET search_path = derived_key;
CREATE TABLE diffs (id bigint PRIMARY KEY, project_id bigint);
CREATE TABLE commits (diff_id bigint, place int, sha text, PRIMARY KEY (diff_id, place));
INSERT INTO diffs SELECT d, (d - 1) / 4 * 10 FROM generate_series(1, 12) d;
INSERT INTO commits SELECT d, p, 'old' FROM generate_series(1, 12) d, generate_series(1, 3) p;
SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'bigint',
    '(SELECT d.project_id FROM diffs d WHERE d.id = s.diff_id)');
UPDATE commits SET sha = 'filled' WHERE diff_id IN (2, 6);
SELECT migrate_ext.partition_by_range('commits', 'project_id', 10, 0, 30, 0);
CREATE VIEW state AS
    SELECT p.state, p.skipped, p.failed, v.complete, v.checked_rows, v.missing, v.extra, v.different, v.skipped AS left_out, v.stale_key
    FROM migrate_ext.progress p
    LEFT JOIN LATERAL (SELECT * FROM migrate_ext.verifications v WHERE v.migration = p.migration
        ORDER BY v.verified_at DESC LIMIT 1) v ON true
    WHERE p.migration = 'commits';

SELECT severity, object, problem FROM migrate_ext.preflight('commits')
WHERE object LIKE 'column%' AND problem NOT LIKE '%(since add_sharding_key,%'; -- which goes by statistics
CALL migrate_ext.run('commits');
CALL migrate_ext.verify('commits');
SELECT * FROM state;
SELECT tableoid::regclass AS leaf, count(*), min(project_id), max(project_id) FROM commits_new GROUP BY 1 ORDER BY 1;
SELECT count(*) FILTER (WHERE project_id IS NULL) AS without, count(*) FROM commits;

-- written while live: filled by the trigger, given, moved, deleted
UPDATE commits SET sha = 'live' WHERE diff_id = 1 AND place = 1;
UPDATE commits SET project_id = 25 WHERE diff_id = 1 AND place = 2;
UPDATE commits SET place = 30 WHERE diff_id = 1 AND place = 3;
DELETE FROM commits WHERE diff_id = 3;
INSERT INTO commits VALUES (4, 4, 'new', NULL), (4, 5, 'given', 29);
-- without the trigger it is derived by the write-through alone
ALTER TABLE commits DISABLE TRIGGER "!migrate_ext_fill";
UPDATE commits SET sha = 'not filled' WHERE diff_id = 5 AND place = 1;
DELETE FROM commits WHERE diff_id = 5 AND place = 2;
INSERT INTO commits VALUES (5, 9, 'not filled');
-- a parent that moved: seen when its row is next written, or told as stale_key
UPDATE diffs SET project_id = 21 WHERE id IN (5, 7);
UPDATE commits SET sha = 'moved' WHERE diff_id = 5 AND place = 3;
SELECT tableoid::regclass AS leaf, * FROM commits_new WHERE diff_id IN (1, 4, 5) ORDER BY diff_id, place;
CALL migrate_ext.verify('commits');
SELECT * FROM state;
UPDATE commits SET sha = sha WHERE diff_id IN (5, 7);
ALTER TABLE commits ENABLE ALWAYS TRIGGER "!migrate_ext_fill";
CALL migrate_ext.verify('commits');
SELECT * FROM state;

-- a row without parent can't be carried over: it is named, and stops the swap
ALTER TABLE commits DISABLE TRIGGER "!migrate_ext_fill";
INSERT INTO commits VALUES (99, 1, 'no parent');
ALTER TABLE commits ENABLE ALWAYS TRIGGER "!migrate_ext_fill";
\set VERBOSITY sqlstate
CALL migrate_ext.finalize('commits', '20 seconds');
\set VERBOSITY default
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows WHERE migration = 'commits';
INSERT INTO diffs VALUES (99, 22);
SELECT * FROM commits WHERE diff_id = 99;

-- there: its parent has come, and what failed is tried again
CREATE TABLE before AS TABLE commits;
CALL migrate_ext.finalize('commits', '30 seconds');
SELECT tableoid::regclass AS leaf, count(*) FROM commits GROUP BY 1 ORDER BY 1;
SELECT * FROM commits WHERE diff_id = 99;
-- old rows of the original are as they were
SELECT count(*) AS changed FROM (TABLE before EXCEPT TABLE commits_orig) x;
UPDATE commits SET sha = 'swapped' WHERE diff_id = 8 AND place = 1;
DELETE FROM commits WHERE diff_id = 8 AND place = 2;
UPDATE commits SET project_id = 3 WHERE diff_id = 8 AND place = 3;
INSERT INTO commits VALUES (8, 7, 'swapped', 15);
\set VERBOSITY sqlstate
INSERT INTO commits VALUES (9, 1, 'second', 1);
\set VERBOSITY default
SELECT * FROM commits_orig WHERE diff_id IN (8, 9) ORDER BY 1, 2;
CALL migrate_ext.verify('commits');
SELECT * FROM state;
-- and back: written rows have brought their keys, the others lack them as before
CALL migrate_ext.undo('commits', '30 seconds');
SELECT count(*) FILTER (WHERE project_id IS NULL) AS without, count(*) FROM commits;
SELECT count(*) AS changed FROM (TABLE before EXCEPT TABLE commits) x;
INSERT INTO commits VALUES (8, 8, 'filled again') RETURNING *;
CALL migrate_ext.verify('commits');
SELECT * FROM state;
CALL migrate_ext.cancel('commits');
SELECT migrate_ext.forget('commits');

-- two parents: the copy finds out, and the drain tells
DROP VIEW state;
TRUNCATE commits;
ALTER TABLE diffs DROP CONSTRAINT diffs_pkey;
INSERT INTO commits VALUES (1, 1, 'two parents', 0), (2, 1, 'one', NULL), (50, 1, 'none', NULL);
UPDATE commits SET project_id = NULL;
ALTER TABLE commits DISABLE TRIGGER "!migrate_ext_fill";
UPDATE commits SET project_id = NULL;
INSERT INTO diffs VALUES (1, 10);
SELECT migrate_ext.partition_by_list('commits', 'project_id');
CALL migrate_ext.run('commits');
SELECT tableoid::regclass AS leaf, * FROM commits_new;
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows WHERE migration = 'commits' ORDER BY identity;
CALL migrate_ext.cancel('commits');
SELECT migrate_ext.forget('commits');

-- rows without parent are left out, if one wants: in the original they stay
DELETE FROM diffs WHERE id = 1 AND project_id = 10;
SELECT migrate_ext.partition_by_hash('commits', 'project_id', 2, options => '{"on_null_key": "skip"}');
CALL migrate_ext.run('commits');
INSERT INTO commits VALUES (51, 1, 'live, none');
SELECT rows_done, skipped, failed FROM migrate_ext.progress WHERE migration = 'commits';
CALL migrate_ext.finalize('commits', '30 seconds');
SELECT checked_rows, missing, extra, different, skipped, failed, stale_key FROM migrate_ext.verifications WHERE migration = 'commits';
SELECT * FROM commits ORDER BY 1;
SELECT * FROM commits_orig ORDER BY 1;
CALL migrate_ext.undo('commits', '30 seconds');
SELECT * FROM commits ORDER BY 1;
-- and come in when their parent does
INSERT INTO diffs VALUES (51, 7);
UPDATE commits SET sha = 'live, one' WHERE diff_id = 51;
SELECT * FROM commits_new ORDER BY 1;
DELETE FROM diffs WHERE id = 51;
UPDATE commits SET sha = 'live, none' WHERE diff_id = 51;
SELECT * FROM commits_new ORDER BY 1;
CALL migrate_ext.verify('commits');
SELECT skipped, failed FROM migrate_ext.progress WHERE migration = 'commits';
CALL migrate_ext.cancel('commits');
SELECT migrate_ext.forget('commits');

-- in place or by a statement: the day of an instant isn't the writer's to choose
CREATE TABLE direct (id bigint PRIMARY KEY, at timestamptz);
CREATE TABLE looked (id bigint PRIMARY KEY, at timestamptz);
SELECT migrate_ext.add_sharding_key('direct', 'day', 'date', 's.at::date');
SELECT migrate_ext.add_sharding_key('looked', 'day', 'date', '(SELECT s.at::date)');
ALTER TABLE direct DISABLE TRIGGER "!migrate_ext_fill";
ALTER TABLE looked DISABLE TRIGGER "!migrate_ext_fill";
INSERT INTO direct VALUES (1, '2026-01-01 20:00+00');
INSERT INTO looked VALUES (1, '2026-01-01 20:00+00');
SELECT migrate_ext.partition_by_hash('direct', 'day', 2), migrate_ext.partition_by_hash('looked', 'day', 2);
CALL migrate_ext.run('direct');
CALL migrate_ext.run('looked');
SET TimeZone = 'Asia/Tokyo';
INSERT INTO direct VALUES (2, '2026-01-01 20:00+00');
INSERT INTO looked VALUES (2, '2026-01-01 20:00+00');
RESET TimeZone;
SELECT id, d.day AS direct, l.day AS looked FROM direct_new d JOIN looked_new l USING (id) ORDER BY id;
CALL migrate_ext.verify('direct');
CALL migrate_ext.verify('looked');
SELECT migration, checked_rows, missing, extra, different, stale_key FROM migrate_ext.verifications
WHERE migration IN ('direct', 'looked') ORDER BY 1;
CALL migrate_ext.cancel('direct');
CALL migrate_ext.cancel('looked');
SELECT migrate_ext.forget('direct'), migrate_ext.forget('looked');

-- many rows: a first batch looks keys up row by row; where that has a look-up for each row, the next
-- ones join. Two parents are an error either way, and the other rows are none the worse
CREATE TABLE parents (id int, k int);
CREATE INDEX ON parents (id);
INSERT INTO parents SELECT i, i % 7 FROM generate_series(1, 3000) i;
INSERT INTO parents VALUES (2500, 0);
CREATE TABLE scattered (id int PRIMARY KEY, parent_id int, filler text);
INSERT INTO scattered SELECT i, i, repeat('x', 700) FROM generate_series(1, 3000) i;
CREATE TABLE gathered (id int PRIMARY KEY, parent_id int, filler text);
INSERT INTO gathered SELECT i, 2300 + (i + 9) / 10, repeat('x', 700) FROM generate_series(1, 3000) i;
VACUUM ANALYZE parents, scattered, gathered;
SELECT pg_relation_size('scattered') > 200 * 8192 AS several_batches;
SELECT migrate_ext.add_sharding_key(t, 'k', 'int', '(SELECT p.k FROM parents p WHERE p.id = s.parent_id)')
FROM unnest('{scattered,gathered}'::regclass[]) t;
SELECT migrate_ext.partition_by_hash('scattered', 'k', 2), migrate_ext.partition_by_hash('gathered', 'k', 2);
CALL migrate_ext.run('scattered');
CALL migrate_ext.run('gathered');
SELECT migration, identity, sqlstate FROM migrate_ext.failed_rows WHERE migration IN ('scattered', 'gathered') ORDER BY 1, (identity ->> 'id')::int;
SELECT count(*), count(*) FILTER (WHERE n.k = n.parent_id % 7) AS right FROM scattered_new n;
SELECT count(*), count(*) FILTER (WHERE n.k = n.parent_id % 7) AS right FROM gathered_new n;
CALL migrate_ext.cancel('scattered');
CALL migrate_ext.cancel('gathered');
SELECT migrate_ext.forget('scattered'), migrate_ext.forget('gathered');

-- rows side by side whose parameters are equal, NULL or look different
CREATE TABLE spelled (id int PRIMARY KEY, n numeric);
INSERT INTO spelled VALUES (1, 1.0), (2, 1.0), (3, 1.00), (4, 1.00), (5, NULL), (6, NULL), (7, 1.0), (8, 'NaN'), (9, NULL);
CREATE TABLE spellings (n text PRIMARY KEY, k int);
INSERT INTO spellings VALUES ('1.0', 10), ('1.00', 100), ('none', -1), ('NaN', 0);
SELECT migrate_ext.add_sharding_key('spelled', 'k', 'int', '(SELECT p.k FROM spellings p WHERE p.n = coalesce(s.n::text, ''none''))');
SELECT migrate_ext.partition_by_list('spelled', 'k');
CALL migrate_ext.run('spelled');
SELECT * FROM spelled_new ORDER BY id;
CALL migrate_ext.cancel('spelled');
SELECT migrate_ext.forget('spelled');

DROP SCHEMA derived_key CASCADE;
DELETE FROM migrate_ext.sharding_key;
