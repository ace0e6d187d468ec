-- partition_by_list, partition_by_hash and create_migration.
-- All is made in transactions that are rolled back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
RESET client_min_messages;

-- The partitions of <name>_new in the order in which they were made.
CREATE FUNCTION pg_temp.partitions(name text) RETURNS TABLE (partition text, bound text)
LANGUAGE sql AS $$
    SELECT relid::regclass::text, pg_get_expr(relpartbound, relid)
    FROM pg_partition_tree((name || '_new')::regclass) JOIN pg_class ON pg_class.oid = relid
    WHERE isleaf ORDER BY pg_class.oid
$$;

BEGIN;
CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
CREATE TABLE things (
    id integer PRIMARY KEY,
    word text NOT NULL,
    feeling mood NOT NULL,
    number integer NOT NULL,
    yes boolean NOT NULL,
    tags text[] NOT NULL,
    span int4range NOT NULL,
    day date NOT NULL
);
INSERT INTO things VALUES
    (1, 'a b', 'happy', 5, true, '{x}', '[1,3)', '2024-01-02'),
    (2, 'a-b', 'sad', -5, false, '{x,"y z"}', 'empty', '2024-01-01'),
    (3, 'A_B', 'so so', 0, true, '{}', '[,)', '2024-01-01'),
    (4, '', 'sad', 5, true, '{x}', '[1,3)', '2024-01-01'),
    (5, 'it''s', 'sad', 5, true, '{x}', '[1,3)', '2024-01-01'),
    (6, 'Ärger', 'sad', 5, true, '{x}', '[1,3)', '2024-01-01'),
    (7, '7up', 'sad', 5, true, '{x}', '[1,3)', '2024-01-01'),
    (8, 'default', 'sad', 5, true, '{x}', '[1,3)', '2024-01-01'),
    (9, 'a text that is longer than what a name would show of it', 'sad', 5, true, '{x}', '[1,3)', '2024-01-01');
SAVEPOINT made;

-- a partition a value, whatever the type
SELECT migrate_ext.partition_by_list('things', 'word');
SELECT * FROM pg_temp.partitions('things');
INSERT INTO things_new SELECT * FROM things;
SELECT tableoid::regclass, word FROM things_new ORDER BY id;
SELECT definition FROM migrate_ext.migration WHERE name = 'things';
-- made again it is the same, although the values are others by now
INSERT INTO things SELECT 10, 'new', feeling, number, yes, tags, span, day FROM things WHERE id = 1;
SELECT migrate_ext.partition_by_list('things', 'word');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_list('things', 'feeling');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_list('things', 'number');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_list('things', 'yes');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_list('things', 'tags');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_list('things', 'span');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;
SET LOCAL DateStyle = 'SQL, DMY';
SELECT migrate_ext.partition_by_list('things', 'day');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;

-- groups
SELECT migrate_ext.partition_by_list('things', 'number', options => '{"groups": {"low": [-5, 0], "High!": ["5", 6]}}');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_list('things', 'yes', 'answers', '{"groups": {"both": [true, false]}}');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;
DELETE FROM things;
SELECT migrate_ext.partition_by_list('things', 'word', options => '{"groups": {"one": ["x"]}}');
SELECT * FROM pg_temp.partitions('things');
ROLLBACK TO made;

-- hash
SELECT migrate_ext.partition_by_hash('things', 'word', 3);
SELECT * FROM pg_temp.partitions('things');
SELECT definition FROM migrate_ext.migration WHERE name = 'things';
SELECT migrate_ext.partition_by_hash('things', 'word', 3);
ROLLBACK TO made;
SELECT migrate_ext.partition_by_hash('things', 'tags', 1, migration => 'by tags');
SELECT * FROM pg_temp.partitions('things');
SELECT name FROM migrate_ext.migration WHERE source = 'things'::regclass;
ROLLBACK TO made;

-- preview
ANALYZE things;
SELECT partition, rows FROM migrate_ext.preview('things', 'number') ORDER BY partition;
SELECT partition, rows FROM migrate_ext.preview('things', 'word') ORDER BY partition;
SELECT partition, rows FROM migrate_ext.preview('things', 'number', 4);
-- the hash of the preview is that of the partitions
SELECT migrate_ext.partition_by_hash('things', 'number', 4);
INSERT INTO things_new SELECT * FROM things;
SELECT tableoid::regclass, count(*) FROM things_new GROUP BY 1 ORDER BY 1;
ROLLBACK;

-- values that the statistics don't name
BEGIN;
CREATE TABLE many (id integer PRIMARY KEY, v integer NOT NULL);
INSERT INTO many SELECT i, CASE WHEN i % 2 = 0 THEN 0 ELSE i % 400 END FROM generate_series(1, 4000) i;
ALTER TABLE many ALTER v SET STATISTICS 1;
ANALYZE many;
SELECT partition ~ '^(many_p0|many_default|\(\d+ other values\))$' AS expected, rows BETWEEN 1000 AND 3000 AS half FROM migrate_ext.preview('many', 'v');
ROLLBACK;
-- an empty table
BEGIN;
CREATE TABLE nothing (id integer PRIMARY KEY);
SELECT * FROM migrate_ext.preview('nothing', 'id', 2);
SELECT * FROM migrate_ext.preview('nothing', 'id', step => '10');
ROLLBACK;

-- a target of the caller's own
BEGIN;
CREATE TABLE orders (id bigint PRIMARY KEY, price numeric(8,2), amount integer, site integer);
INSERT INTO orders VALUES (1, 2.5, 2, 3);
CREATE TABLE mine (site integer NOT NULL, id bigint NOT NULL, total numeric, label text DEFAULT 'none') PARTITION BY LIST (site);
CREATE TABLE mine_3 PARTITION OF mine FOR VALUES IN (3);
CREATE TABLE mine_other PARTITION OF mine DEFAULT PARTITION BY HASH (id);
CREATE TABLE mine_other_0 PARTITION OF mine_other FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT migrate_ext.create_migration('orders', 'mine', options => '{"columns": {"total": "s.price * s.amount"}}');
SELECT name, source, target, made_target, definition FROM migrate_ext.migration WHERE name = 'orders';
SELECT kind, message FROM migrate_ext.event WHERE migration = (SELECT id FROM migrate_ext.migration WHERE name = 'orders');
SELECT migrate_ext.create_migration('orders', 'mine', options => '{"columns": {"total": "s.price * s.amount"}}');
ROLLBACK;
