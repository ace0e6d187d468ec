-- add_sharding_key and its trigger: what it makes, every refusal, and what fills a row.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
RESET client_min_messages;
CREATE SCHEMA sharding_key;
SET search_path = sharding_key;
\pset tuples_only on
\pset format unaligned

CREATE TABLE diffs (id bigint PRIMARY KEY, project_id bigint);
CREATE TABLE commits (diff_id bigint, place int, sha text, PRIMARY KEY (diff_id, place));
INSERT INTO diffs VALUES (1, 10), (2, 20), (3, NULL);
INSERT INTO commits SELECT d, p, 'old' FROM generate_series(1, 4) d, generate_series(1, 2) p;
CREATE VIEW made AS
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, k.value, k.fill,
        (SELECT string_agg(tgname || ' ' || tgenabled::text, ', ' ORDER BY tgname) AS triggers FROM pg_trigger WHERE tgrelid = a.attrelid)
    FROM migrate_ext.sharding_key k JOIN pg_attribute a ON a.attrelid = k.relation AND a.attnum = k.attnum
    WHERE k.relation = 'commits'::regclass ORDER BY a.attnum;

-- what is refused, with nothing changed
SELECT helper.try($$SELECT migrate_ext.add_sharding_key(NULL, 'k', 'bigint')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', NULL, 'bigint')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', NULL)$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', NULL, NULL)$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', '', 'bigint')$$);
SELECT helper.try(format($$SELECT migrate_ext.add_sharding_key('commits', %L, 'bigint')$$, repeat('x', 64)));
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'ctid', 'tid')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'nothing')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint; DROP TABLE diffs')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'json')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'anyelement')$$);
CREATE DOMAIN positive AS bigint CHECK (VALUE > 0);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'positive')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'sha', 'bigint')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('made', 'k', 'bigint')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('migrate_ext.migration', 'k', 'bigint')$$);
-- the value
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '1 +')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '1), (2')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '1) FROM diffs; --')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', 's.nothing')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '(SELECT x FROM nothing)')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', 's.sha')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', 'max(s.diff_id)')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '(SELECT max(s.diff_id))')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', 'row_number() OVER ()')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', 'generate_series(1, 2)')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'float8', 'random()')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'float8', '(SELECT random() FROM diffs)')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '(SELECT d.id FROM diffs d FOR UPDATE)')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '(WITH x AS (DELETE FROM diffs RETURNING id) SELECT id FROM x)')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '(SELECT d.id, d.project_id FROM diffs d)')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'text', 's.ctid::text')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'text', 's::text')$$);
CREATE TEMP TABLE passing (id bigint);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '(SELECT id FROM passing)')$$);
-- the rights
CREATE ROLE sharding_owner;
CREATE ROLE sharding_other;
GRANT USAGE ON SCHEMA sharding_key TO sharding_owner, sharding_other;
ALTER TABLE commits OWNER TO sharding_owner;
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint', '(SELECT d.id FROM diffs d LIMIT 1)')$$);
SET ROLE sharding_other;
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'k', 'bigint')$$);
RESET ROLE;
SELECT attname FROM pg_attribute WHERE attrelid = 'commits'::regclass AND attnum > 0 ORDER BY attnum;
SELECT count(*) FROM made;

-- what is made: names are those of the caller's search_path, rows stay where they are
GRANT SELECT ON diffs TO sharding_owner;
GRANT SELECT, INSERT, UPDATE ON commits TO sharding_other;
GRANT CREATE ON SCHEMA sharding_key TO sharding_owner;
SELECT pg_relation_filenode('commits') AS node \gset
SET ROLE sharding_owner;
SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'bigint',
    '(SELECT d.project_id FROM diffs d WHERE d.id = s.diff_id)');
RESET ROLE;
SELECT * FROM made;
SELECT pg_relation_filenode('commits') = :node AS not_rewritten, count(*) FILTER (WHERE project_id IS NULL) FROM commits;
-- the same again, in other words and from elsewhere
SET search_path = pg_catalog;
SELECT migrate_ext.add_sharding_key('sharding_key.commits', 'project_id', 'int8',
    '(SELECT d.project_id FROM sharding_key.diffs AS d WHERE (d.id) = diff_id) -- comment');
SET search_path = sharding_key;
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'bigint', '1')$$);
SELECT helper.try($$SELECT migrate_ext.add_sharding_key('commits', 'project_id', 'int')$$);

-- what fills a row: whoever writes it, without a right to read the parent
SET ROLE sharding_other;
INSERT INTO commits VALUES (1, 3, 'derived', NULL), (2, 3, 'given', 99), (3, 3, 'parent without', NULL), (4, 3, 'no parent', NULL);
INSERT INTO commits (diff_id, place) SELECT 2, p FROM generate_series(4, 6) p;
UPDATE commits SET sha = 'written' WHERE place = 1;
RESET ROLE;
SELECT * FROM commits ORDER BY 1, 2;
-- a parent of the same transaction, and of the same statement
BEGIN;
INSERT INTO diffs VALUES (5, 50);
INSERT INTO commits VALUES (5, 1, 'same transaction');
WITH d AS (INSERT INTO diffs VALUES (6, 60) RETURNING id) INSERT INTO commits SELECT id, 1, 'same statement' FROM d;
SELECT * FROM commits WHERE diff_id > 4 ORDER BY 1;
ROLLBACK;
-- whatever the session's settings; and not by COPY's back door
SET session_replication_role = replica;
INSERT INTO commits VALUES (1, 8, 'replica');
RESET session_replication_role;
COPY commits (diff_id, place, sha) FROM stdin;
2	8	copied
\.
SELECT * FROM commits WHERE place = 8 ORDER BY 1;
-- two parents are an error, as in any scalar subquery; the row that has its key isn't held up
ALTER TABLE diffs DROP CONSTRAINT diffs_pkey;
INSERT INTO diffs VALUES (1, 11);
INSERT INTO commits VALUES (1, 9, 'two parents', 10);
SELECT helper.try($$INSERT INTO commits VALUES (1, 10, 'two parents')$$);
DELETE FROM diffs WHERE project_id = 11;
-- the parent's table is altered under the session
ALTER TABLE diffs ALTER project_id TYPE int;
INSERT INTO commits VALUES (2, 11, 'altered') RETURNING project_id;
ALTER TABLE commits ADD COLUMN note text;
INSERT INTO commits VALUES (2, 12, 'altered') RETURNING project_id;

-- a column that is there is taken over; without value there is nothing to fill
SELECT migrate_ext.add_sharding_key('commits', 'note', 'text');
SELECT migrate_ext.add_sharding_key('commits', 'note', 'text');
-- a value without subquery, a second key, one that is not filled
SELECT migrate_ext.add_sharding_key('commits', 'half', 'integer', 's.place / 2');
SELECT migrate_ext.add_sharding_key('commits', 'third', 'numeric(4,1)', 'place::numeric / 3', false);
INSERT INTO commits VALUES (2, 13, 'keys') RETURNING *;
SELECT * FROM made;
-- rolled back, nothing stays; a dropped column can be added anew
BEGIN;
SELECT migrate_ext.add_sharding_key('commits', 'gone', 'uuid');
ROLLBACK;
ALTER TABLE commits DROP COLUMN half;
INSERT INTO commits VALUES (2, 14, 'dropped') RETURNING project_id;
SELECT migrate_ext.add_sharding_key('commits', 'half', 'bigint');
SELECT count(*) FROM made;
-- the trigger's function elsewhere
CREATE TABLE other (id bigint PRIMARY KEY, project_id bigint);
CREATE TRIGGER stolen BEFORE INSERT ON other FOR EACH ROW EXECUTE FUNCTION migrate_ext.fill_key('1');
INSERT INTO other VALUES (1), (2);
CREATE TRIGGER wrong AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION migrate_ext.fill_key('1');
SELECT helper.try($$INSERT INTO other VALUES (3)$$);
SELECT helper.try($$SELECT migrate_ext.derive_key(NULL::bigint, NULL, 1)$$);

DROP SCHEMA sharding_key CASCADE;
DROP ROLE sharding_owner, sharding_other;
DELETE FROM migrate_ext.sharding_key;
