-- create_migration: targets of one's own.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';

-- integer keys become bigint; columns computed forth and back, and one that only the target has
CREATE TABLE orders (id integer PRIMARY KEY, site integer NOT NULL, cents integer, note varchar(20), at timestamp NOT NULL);
INSERT INTO orders SELECT i, i % 5, i * 10, 'note' || i, '2024-01-01'::timestamp + i * interval '1 day' FROM generate_series(1, 100) i;
CREATE INDEX ON orders (note) WHERE cents > 500;
CREATE TABLE orders_wide (
    at timestamptz NOT NULL,
    added text NOT NULL DEFAULT 'none',
    site bigint NOT NULL,
    id bigint NOT NULL,
    euros numeric(10,2),
    note text,
    CHECK (euros >= 0),
    CONSTRAINT no_later CHECK (at < '2030-01-01')
) PARTITION BY RANGE (at);
CREATE TABLE orders_wide_1 PARTITION OF orders_wide FOR VALUES FROM (MINVALUE) TO ('2024-03-01') PARTITION BY LIST (site);
CREATE TABLE orders_wide_1_even PARTITION OF orders_wide_1 FOR VALUES IN (0, 2, 4);
CREATE TABLE orders_wide_1_rest PARTITION OF orders_wide_1 DEFAULT;
CREATE TABLE orders_wide_2 PARTITION OF orders_wide FOR VALUES FROM ('2024-03-01') TO (MAXVALUE) PARTITION BY HASH (id);
CREATE TABLE orders_wide_2_0 (note text, id bigint NOT NULL, gone integer, site bigint NOT NULL, euros numeric(10,2), at timestamptz NOT NULL, added text NOT NULL DEFAULT 'none',
    CONSTRAINT orders_wide_euros_check CHECK (euros >= 0), CONSTRAINT no_later CHECK (at < '2030-01-01'));
ALTER TABLE orders_wide_2_0 DROP gone;
ALTER TABLE orders_wide_2 ATTACH PARTITION orders_wide_2_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE orders_wide_2_1 PARTITION OF orders_wide_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT migrate_ext.create_migration('orders', 'orders_wide', options =>
    '{"columns": {"at": "s.at AT TIME ZONE ''UTC''", "euros": "s.cents / 100.0"},
      "reverse_columns": {"at": "s.at AT TIME ZONE ''UTC''", "cents": "(s.euros * 100)::integer"}}');
SELECT * FROM migrate_ext.preflight('orders');
CREATE FUNCTION pg_temp.differences(source text, target text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH a AS (SELECT id, site, cents, note, at FROM %s), b AS (SELECT id, site, (euros * 100)::integer, note, at AT TIME ZONE ''UTC'' FROM %s)
         (SELECT ''source: '' || a::text FROM (SELECT * FROM a EXCEPT ALL SELECT * FROM b) a)
         UNION ALL (SELECT ''target: '' || b::text FROM (SELECT * FROM b EXCEPT ALL SELECT * FROM a) b) ORDER BY 1', source, target);
END $$;
CALL migrate_ext.run('orders', 'logging');
UPDATE orders SET site = site + 1 WHERE id % 10 = 0;
DELETE FROM orders WHERE id = 50;
CALL migrate_ext.run('orders');
SELECT * FROM pg_temp.differences('orders', 'orders_wide');
SELECT tableoid::regclass, count(*), sum(euros), min(added) FROM orders_wide GROUP BY 1 ORDER BY 1;
SELECT * FROM helper.describe('orders_wide');
SELECT * FROM helper.describe('orders_wide_2_0');
-- live: the leaf, the sub-table, and what the target alone refuses
UPDATE orders SET at = at + interval '2 months', id = id + 1000 WHERE id % 7 = 0;
UPDATE orders SET site = site + 1, cents = cents + 1 WHERE id % 3 = 0;
INSERT INTO orders VALUES (2000, 3, 5, 'new', '2025-01-01');
DELETE FROM orders WHERE id = 51;
SELECT * FROM pg_temp.differences('orders', 'orders_wide');
UPDATE orders SET cents = -1 WHERE id = 1;
INSERT INTO orders VALUES (2001, 3, 5, 'late', '2031-01-01');
SELECT * FROM pg_temp.differences('orders', 'orders_wide');
SELECT log_entries, failed FROM migrate_ext.progress WHERE migration = 'orders';
CALL migrate_ext.finalize('orders');
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows WHERE migration = 'orders' ORDER BY identity->'id';
SELECT * FROM migrate_ext.preflight('orders') WHERE severity = 'error';
UPDATE orders SET cents = 1 WHERE id = 1;
DELETE FROM orders WHERE id = 2001;
CALL migrate_ext.finalize('orders');
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows WHERE migration = 'orders';
SELECT * FROM pg_temp.differences('orders_orig', 'orders');
-- swapped: what the original can't hold
UPDATE orders SET added = 'more', euros = euros + 0.01 WHERE id % 2 = 0;
UPDATE orders SET at = at - interval '2 months' WHERE id % 7 = 3;
INSERT INTO orders (id, site, euros, note, at) VALUES (3000, 1, 1.5, 'fits', '2024-05-05Z');
SELECT * FROM pg_temp.differences('orders_orig', 'orders');
INSERT INTO orders (id, site, euros, note, at) VALUES (3000000000, 1, 1.5, 'too great', '2024-05-05Z');
UPDATE orders SET note = 'a note of more than twenty characters' WHERE id = 2;
SELECT * FROM pg_temp.differences('orders_orig', 'orders');
SELECT failed FROM migrate_ext.progress WHERE migration = 'orders';
CALL migrate_ext.undo('orders');
SELECT identity, sqlstate, message FROM migrate_ext.failed_rows WHERE migration = 'orders' ORDER BY identity->'id';
DELETE FROM orders WHERE id = 3000000000;
UPDATE orders SET note = 'short' WHERE id = 2;
UPDATE orders SET added = DEFAULT WHERE added = 'more';
CALL migrate_ext.undo('orders');
SELECT * FROM pg_temp.differences('orders', 'orders_wide');
SELECT * FROM helper.describe('orders');
CALL migrate_ext.finalize('orders');
CALL migrate_ext.complete('orders', drop_original => true);
SELECT count(*), min(at), max(at) FROM orders;
SELECT * FROM helper.describe('orders');
DROP TABLE orders;

-- LIST partitions without a default: a row that none takes is set aside, and keeps the swap back
CREATE TABLE listed (id integer PRIMARY KEY, site integer NOT NULL, v text);
INSERT INTO listed SELECT i, i % 4, 'v' FROM generate_series(1, 20) i;
CREATE TABLE listed_new (LIKE listed) PARTITION BY LIST (site);
CREATE TABLE listed_0 PARTITION OF listed_new FOR VALUES IN (0, 1);
CREATE TABLE listed_2 PARTITION OF listed_new FOR VALUES IN (2);
SELECT migrate_ext.create_migration('listed', 'listed_new');
CALL migrate_ext.run('listed');
SELECT identity, sqlstate, message, attempts FROM migrate_ext.failed_rows WHERE migration = 'listed' ORDER BY identity->'id';
SELECT state, log_entries, failed FROM migrate_ext.progress WHERE migration = 'listed';
UPDATE listed SET site = 9 WHERE id = 2;
UPDATE listed SET site = 2 WHERE id = 3;
DELETE FROM listed WHERE id = 7;
CALL migrate_ext.finalize('listed');
\echo :LAST_ERROR_SQLSTATE
SELECT identity FROM migrate_ext.failed_rows WHERE migration = 'listed' ORDER BY identity->'id';
SELECT * FROM helper.check('listed');
CREATE TABLE listed_3 PARTITION OF listed_new FOR VALUES IN (3, 9);
CALL migrate_ext.finalize('listed');
SELECT state, paused, pause_reason FROM migrate_ext.migrations WHERE migration = 'listed';
SELECT migrate_ext.resume('listed');
-- which wakes a leader; it stays until the end
SELECT helper.wait_until($$SELECT workers > 0 FROM migrate_ext.progress WHERE migration = 'listed'$$);
CALL migrate_ext.finalize('listed');
SELECT state, failed FROM migrate_ext.progress WHERE migration = 'listed';
SELECT * FROM helper.check('listed');
-- a partition more while swapped
CREATE TABLE listed_4 PARTITION OF listed FOR VALUES IN (4);
INSERT INTO listed VALUES (100, 4, 'x'), (101, 4, 'y');
SELECT * FROM helper.check('listed');
-- the leader notices by itself
SELECT helper.wait_until($$SELECT paused FROM migrate_ext.migrations WHERE migration = 'listed'$$);
SELECT state, paused, pause_reason FROM migrate_ext.migrations WHERE migration = 'listed';
CALL migrate_ext.undo('listed');
SELECT migrate_ext.resume('listed');
CALL migrate_ext.undo('listed');
INSERT INTO listed VALUES (102, 4, 'z');
CALL migrate_ext.finalize('listed');
TRUNCATE listed_4;
SELECT * FROM helper.check('listed');
CALL migrate_ext.undo('listed');

-- cancelled: the target stays, with its rows, without our triggers and indexes; it can be taken again
CREATE INDEX of_mine ON listed_new (v);
CALL migrate_ext.cancel('listed');
SELECT * FROM helper.describe('listed_new');
SELECT * FROM helper.describe('listed_3');
SELECT count(*) FROM listed_new;
SELECT migrate_ext.forget('listed');
DROP INDEX of_mine;
TRUNCATE listed_new;
SELECT migrate_ext.create_migration('listed', 'listed_new');
-- from any state
CALL migrate_ext.cancel('listed');
SELECT migrate_ext.create_migration('listed', 'listed_new', 'other name');
CALL migrate_ext.run('other name', 'logging');
CALL migrate_ext.cancel('other name');
SELECT migrate_ext.create_migration('listed', 'listed_new');
CALL migrate_ext.run('listed', 'copying');
CALL migrate_ext.cancel('listed');
TRUNCATE listed_new;
SELECT migrate_ext.create_migration('listed', 'listed_new');
CALL migrate_ext.run('listed', 'indexing');
CALL migrate_ext.cancel('listed');
TRUNCATE listed_new;
SELECT migrate_ext.create_migration('listed', 'listed_new');
CALL migrate_ext.run('listed', 'catching_up');
CALL migrate_ext.cancel('listed');
SELECT * FROM helper.describe('listed_new');
SELECT count(*) FROM pg_index WHERE indrelid IN (SELECT relid FROM pg_partition_tree('listed_new'));
SELECT tgname FROM pg_trigger WHERE tgrelid = 'listed'::regclass OR tgrelid IN (SELECT relid FROM pg_partition_tree('listed_new'));
SELECT relname FROM pg_class WHERE relnamespace = 'migrate_ext'::regnamespace AND relname LIKE 'log%';
DROP TABLE listed, listed_new;

-- a unique index that a partition key with an expression lets no partitioned table have: on each leaf
CREATE TABLE expression (id integer PRIMARY KEY, v text);
INSERT INTO expression SELECT i, 'v' || i FROM generate_series(1, 10) i;
CREATE INDEX ON expression (v);
CREATE TABLE expression_new (LIKE expression) PARTITION BY LIST ((id % 2));
CREATE TABLE expression_0 PARTITION OF expression_new FOR VALUES IN (0);
CREATE TABLE expression_1 PARTITION OF expression_new FOR VALUES IN (1);
SELECT migrate_ext.create_migration('expression', 'expression_new');
CALL helper.live_through('expression',
    'UPDATE expression SET id = id + 11 WHERE id % 3 = 0',
    'UPDATE expression SET v = v || $stage WHERE id % 4 = 0',
    'DELETE FROM expression WHERE id = $stage',
    'INSERT INTO expression VALUES (100 + $stage, NULL)');
SELECT message FROM migrate_ext.events WHERE migration = 'expression' AND kind LIKE 'unique%';
SELECT * FROM helper.describe('expression');
SELECT * FROM helper.describe('expression_1');
CALL migrate_ext.undo('expression');
CALL migrate_ext.cancel('expression');
SELECT count(*) FROM pg_index WHERE indrelid IN (SELECT relid FROM pg_partition_tree('expression_new'));
DROP TABLE expression, expression_new;

-- a target that can't be undone: told before; and what is refused at once
CREATE TABLE one_way (id integer PRIMARY KEY, v text, w text);
INSERT INTO one_way SELECT i, 'v' || i, 'w' FROM generate_series(1, 10) i;
CREATE TABLE one_way_new (id integer NOT NULL, v text, w text, secret integer NOT NULL) PARTITION BY HASH (id);
CREATE TABLE one_way_0 PARTITION OF one_way_new FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT migrate_ext.create_migration('one_way', 'one_way_new');
SELECT migrate_ext.create_migration('one_way', 'one_way_new', options => '{"columns": {"secret": "s.nosuch"}}');
SELECT migrate_ext.create_migration('one_way', 'one_way_new', options => '{"columns": {"nosuch": "1", "secret": "1"}}');
SELECT migrate_ext.create_migration('one_way', 'one_way_new', options => '{"columns": {"secret": "''text''::text"}}');
SELECT migrate_ext.create_migration('one_way', 'one_way_new', options => '{"columns": {"secret": "random()"}}');
SELECT migrate_ext.create_migration('one_way', 'one_way_new', options => '{"columns": {"secret": "1); DROP TABLE one_way; SELECT (1"}}');
SELECT migrate_ext.create_migration('one_way', 'one_way_new', options => '{"columns": {"secret": "length(s.v)", "v": "md5(s.v)"}}');
SELECT severity, object, problem FROM migrate_ext.preflight('one_way');
CALL migrate_ext.run('one_way');
INSERT INTO one_way VALUES (11, 'v11', 'x');
UPDATE one_way SET v = 'other' WHERE id = 1;
CALL migrate_ext.finalize('one_way');
SELECT count(*), count(*) FILTER (WHERE length(v) = 32) AS digests, sum(secret) FROM one_way;
-- the original is left behind
INSERT INTO one_way VALUES (12, 'raw', 'x', 3);
DELETE FROM one_way WHERE id = 2;
UPDATE one_way SET w = 'after' WHERE id = 3;
SELECT count(*) FROM one_way_orig;
CALL migrate_ext.undo('one_way');
CALL migrate_ext.complete('one_way');
SELECT count(*) FROM one_way_orig;
DROP TABLE one_way, one_way_orig;

-- rows that no partition takes and the swap without them
CREATE TABLE part_of_it (id integer PRIMARY KEY);
INSERT INTO part_of_it SELECT generate_series(1, 10);
CREATE TABLE part_of_it_new (LIKE part_of_it) PARTITION BY RANGE (id);
CREATE TABLE part_of_it_1 PARTITION OF part_of_it_new FOR VALUES FROM (1) TO (9);
SELECT migrate_ext.create_migration('part_of_it', 'part_of_it_new');
CALL migrate_ext.run('part_of_it');
CALL migrate_ext.finalize('part_of_it');
CALL migrate_ext.finalize('part_of_it', options => '{"accept_failed": true}');
SELECT count(*) FROM part_of_it;
SELECT state, failed FROM migrate_ext.progress WHERE migration = 'part_of_it';
SELECT * FROM migrate_ext.preflight('part_of_it');
SELECT complete, checked_rows, missing, extra, different, failed FROM migrate_ext.verifications WHERE migration = 'part_of_it' ORDER BY verified_at;
INSERT INTO part_of_it VALUES (9);
UPDATE part_of_it SET id = 9 WHERE id = 8;
UPDATE part_of_it SET id = -id WHERE id = 1;
-- the way back finds them again
CALL migrate_ext.undo('part_of_it');
SELECT count(*) FROM part_of_it;
CALL migrate_ext.finalize('part_of_it');
CALL migrate_ext.finalize('part_of_it', options => '{"accept_failed": true}');
CALL migrate_ext.complete('part_of_it', drop_original => true);
DROP TABLE part_of_it;
SELECT count(migrate_ext.forget(migration)::text) FROM migrate_ext.migrations;
