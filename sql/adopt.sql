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
\d orders_wide
\d orders_wide_2_0
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
\d orders
CALL migrate_ext.finalize('orders');
CALL migrate_ext.complete('orders', drop_original => true);
SELECT count(*), min(at), max(at) FROM orders;
\d orders
DROP TABLE orders;

-- LIST partitions without a default: a row that none takes is set aside, and keeps the swap back
CREATE TABLE listed (id integer PRIMARY KEY, site integer NOT NULL, v text);
INSERT INTO listed SELECT i, i % 4, 'v' FROM generate_series(1, 20) i;
CREATE TABLE listed_new (LIKE listed) PARTITION BY LIST (site);
CREATE TABLE listed_0 PARTITION OF listed_new FOR VALUES IN (0, 1);
CREATE TABLE listed_2 PARTITION OF listed_new FOR VALUES IN (2);
SELECT migrate_ext.create_migration('listed', 'listed_new');
CALL migrate_ext.run('listed');
SELECT * FROM migrate_ext.failed_rows WHERE migration = 'listed' ORDER BY identity->'id' \gx
SELECT state, log_entries, failed FROM migrate_ext.progress WHERE migration = 'listed';
UPDATE listed SET site = 9 WHERE id = 2;
UPDATE listed SET site = 2 WHERE id = 3;
DELETE FROM listed WHERE id = 7;
\set VERBOSITY verbose
\set SHOW_CONTEXT never
CALL migrate_ext.finalize('listed');
\set VERBOSITY default
\set SHOW_CONTEXT errors
SELECT identity FROM migrate_ext.failed_rows WHERE migration = 'listed' ORDER BY identity->'id';
SELECT * FROM helper.check('listed');
CREATE TABLE listed_3 PARTITION OF listed_new FOR VALUES IN (3, 9);
CALL migrate_ext.finalize('listed');
SELECT state, paused, pause_reason FROM migrate_ext.migrations WHERE migration = 'listed';
SELECT migrate_ext.resume('listed');
CALL migrate_ext.finalize('listed');
SELECT state, failed FROM migrate_ext.progress WHERE migration = 'listed';
SELECT * FROM helper.check('listed');
