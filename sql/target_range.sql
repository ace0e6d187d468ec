-- partition_by_range: bounds, their alignment, names and headroom, for every kind of key.
-- All is made in transactions that are rolled back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
RESET client_min_messages;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';

-- The partitions of <name>_new in the order in which they were made.
CREATE FUNCTION pg_temp.partitions(name text) RETURNS TABLE (partition text, bound text)
LANGUAGE sql AS $$
    SELECT relid::regclass::text, pg_get_expr(relpartbound, relid)
    FROM pg_partition_tree((name || '_new')::regclass) JOIN pg_class ON pg_class.oid = relid
    WHERE isleaf ORDER BY pg_class.oid
$$;

-- integers: bounds from the data, rounded outwards; headroom is 6 unless given
BEGIN;
CREATE TABLE numbers (id bigint PRIMARY KEY, small smallint NOT NULL, n numeric NOT NULL);
INSERT INTO numbers VALUES (-7, -32768, -2.5), (0, 0, 'NaN'), (25, 32767, 7), (12, 1, 'Infinity');
SAVEPOINT made;
SELECT migrate_ext.partition_by_range('numbers', 'id', 10);
SELECT * FROM pg_temp.partitions('numbers');
SELECT name, kind, source, target, state, goal, options, definition, made_target
FROM migrate_ext.migration WHERE name = 'numbers';
SELECT kind, message, detail FROM migrate_ext.event
WHERE migration = (SELECT id FROM migrate_ext.migration WHERE name = 'numbers');
-- made again in another spelling it is the same request
SELECT migrate_ext.partition_by_range('numbers', 'id', ' 10 ', headroom => 6);
ROLLBACK TO made;
-- given bounds
SELECT migrate_ext.partition_by_range('numbers', 'id', 10, start => 5, stop => 11, headroom => 0);
SELECT * FROM pg_temp.partitions('numbers');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('numbers', 'id', '10', '0', '20', headroom => 1);
SELECT * FROM pg_temp.partitions('numbers');
ROLLBACK TO made;
-- at the ends of the type
SELECT migrate_ext.partition_by_range('numbers', 'small', 20000);
SELECT * FROM pg_temp.partitions('numbers');
ROLLBACK TO made;
UPDATE numbers SET id = -9223372036854775808 WHERE id = -7;
UPDATE numbers SET id = 9223372036854775807 WHERE id = 25;
SELECT migrate_ext.partition_by_range('numbers', 'id', 5000000000000000000);
SELECT * FROM pg_temp.partitions('numbers');
ROLLBACK TO made;
-- what is infinite or no number goes to the default partition
SELECT migrate_ext.partition_by_range('numbers', 'n', 5, headroom => 1);
SELECT * FROM pg_temp.partitions('numbers');
INSERT INTO numbers_new SELECT * FROM numbers;
SELECT tableoid::regclass, n FROM numbers_new ORDER BY n;
ROLLBACK TO made;
-- no rows: from zero
TRUNCATE numbers;
SELECT migrate_ext.partition_by_range('numbers', 'id', 100, headroom => 1);
SELECT * FROM pg_temp.partitions('numbers');
ROLLBACK TO made;
TRUNCATE numbers;
SELECT migrate_ext.partition_by_range('numbers', 'id', 100, stop => -100, headroom => 0);
SELECT * FROM pg_temp.partitions('numbers');
ROLLBACK;

-- dates: calendar units, named so that they sort
BEGIN;
CREATE TABLE days (id integer PRIMARY KEY, day date NOT NULL);
INSERT INTO days VALUES (1, '2024-02-29'), (2, '2024-04-30'), (3, 'infinity'), (4, '-infinity');
SAVEPOINT made;
SELECT migrate_ext.partition_by_range('days', 'day', '1 month', headroom => 1);
SELECT * FROM pg_temp.partitions('days');
-- the same month in other words
SELECT migrate_ext.partition_by_range('days', 'day', interval '1 mon', headroom => 1);
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('days', 'day', '3 months', headroom => 1);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('days', 'day', '6 months', headroom => 1);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('days', 'day', '1 year', headroom => 1);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('days', 'day', '1 decade', headroom => 0);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
-- weeks begin on Monday
SELECT migrate_ext.partition_by_range('days', 'day', '1 week', start => '2024-12-24', stop => '2025-01-02', headroom => 0);
SELECT *, extract(isodow FROM substring(bound FROM '\d{4}-\d\d-\d\d')::date) FROM pg_temp.partitions('days');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('days', 'day', '14 days', stop => '2024-03-10', headroom => 0);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('days', 'day', '10 days', stop => '2024-03-10', headroom => 0);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('days', 'day', '24:00', stop => '2024-03-02', headroom => 0);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
-- before our era
UPDATE days SET day = '0044-03-15 BC' WHERE id = 1;
SELECT migrate_ext.partition_by_range('days', 'day', '1000 years', headroom => 0);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK TO made;
-- the way dates are written in this session doesn't matter but for what it says itself
SET LOCAL DateStyle = 'SQL, DMY';
SELECT migrate_ext.partition_by_range('days', 'day', '1 day', start => '01/03/2024', stop => '03/03/2024', headroom => 0);
SELECT * FROM pg_temp.partitions('days');
ROLLBACK;

-- timestamps
BEGIN;
CREATE TABLE times (id integer PRIMARY KEY, plain timestamp NOT NULL, at timestamptz NOT NULL);
INSERT INTO times VALUES (1, '2024-12-31 23:50:30', '2024-12-31 23:50:30Z'),
    (2, '2025-01-01 00:10', '2025-01-01 00:10Z'), (3, 'infinity', '-infinity');
SAVEPOINT made;
SELECT migrate_ext.partition_by_range('times', 'plain', '15 minutes', headroom => 1);
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('times', 'plain', '20 seconds', stop => '2024-12-31 23:51:00', headroom => 0);
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('times', 'at', '12 hours', headroom => 1);
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
-- units of the time zone asked for, not of the session's
SET LOCAL TimeZone = 'Asia/Tokyo';
SELECT migrate_ext.partition_by_range('times', 'at', '1 month', start => '2024-12-01', headroom => 0, options => '{"timezone": "Europe/Berlin"}');
SET LOCAL TimeZone = 'UTC';
SELECT * FROM pg_temp.partitions('times');
SELECT definition FROM migrate_ext.migration WHERE name = 'times';
ROLLBACK TO made;
SET LOCAL TimeZone = 'Europe/Berlin';
SELECT migrate_ext.partition_by_range('times', 'at', interval '1 month', '2024-12-01', '2025-01-01', 0, options => '{"timezone": "Europe/Berlin"}');
SET LOCAL TimeZone = 'UTC';
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
-- a key without time zone and a bound with one: what the session's clock shows
SET LOCAL TimeZone = 'Asia/Tokyo';
SELECT migrate_ext.partition_by_range('times', 'plain', interval '1 month', '2024-12-01', '2025-01-01', 0);
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
-- the hour that the clock skips, the one that it shows twice, and a midnight that isn't there
SELECT migrate_ext.partition_by_range('times', 'at', '1 hour', '2024-03-10 00:00', '2024-03-10 05:00', 0, options => '{"timezone": "America/New_York"}');
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('times', 'at', '1 hour', '2024-11-03 00:00', '2024-11-03 04:00', 0, options => '{"timezone": "America/New_York"}');
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
SELECT migrate_ext.partition_by_range('times', 'at', '1 day', '2018-11-03', '2018-11-06', 0, options => '{"timezone": "America/Sao_Paulo"}');
SELECT * FROM pg_temp.partitions('times');
ROLLBACK TO made;
-- no rows: from now
TRUNCATE times;
SELECT migrate_ext.partition_by_range('times', 'at', '1 day', headroom => 1);
INSERT INTO times_new VALUES (1, now(), now()), (2, now(), now() + interval '1 day'), (3, now(), now() + interval '2 days');
SELECT id, tableoid::regclass::text = 'times_p' || to_char(at, 'YYYY_MM_DD') AS in_its_partition FROM times_new ORDER BY id;
ROLLBACK;

-- uuids of version 7 begin with a time
BEGIN;
CREATE TABLE uuids (id uuid PRIMARY KEY);
INSERT INTO uuids VALUES ('018e0000-0000-7abc-8def-0123456789ab'), ('018f0000-0000-7abc-8def-0123456789ab');
SELECT migrate_ext.partition_by_range('uuids', 'id', '1 month', headroom => 1);
SELECT * FROM pg_temp.partitions('uuids');
INSERT INTO uuids_new SELECT * FROM uuids;
SELECT tableoid::regclass, id FROM uuids_new ORDER BY id;
ROLLBACK;

-- a domain is cut as the type below it
BEGIN;
CREATE DOMAIN positive AS integer CHECK (VALUE >= 0);
CREATE TABLE domains (id positive PRIMARY KEY);
INSERT INTO domains VALUES (7), (19);
SELECT migrate_ext.partition_by_range('domains', 'id', 10, headroom => 0);
SELECT * FROM pg_temp.partitions('domains');
ROLLBACK;

-- the key may be computed on the way
BEGIN;
CREATE TABLE texts (id integer PRIMARY KEY, day date, written text NOT NULL);
INSERT INTO texts VALUES (1, NULL, '20240215'), (2, NULL, '20240316');
SELECT migrate_ext.partition_by_range('texts', 'day', '1 month', headroom => 0,
    options => '{"columns": {"day": "make_date(left(s.written, 4)::int, substr(s.written, 5, 2)::int, 1)"}}');
SELECT * FROM pg_temp.partitions('texts');
ROLLBACK;

-- preview: the same partitions, from statistics
BEGIN;
CREATE TABLE numbers (id integer PRIMARY KEY, day date);
INSERT INTO numbers SELECT i, CASE WHEN i % 2 = 0 THEN '2024-01-10'::date ELSE '2024-02-10' END FROM generate_series(1, 1000) i;
SELECT * FROM migrate_ext.preview('numbers', 'id', step => '250');
ROLLBACK;
BEGIN;
CREATE TABLE numbers (id integer PRIMARY KEY, day date);
INSERT INTO numbers SELECT i, CASE WHEN i % 4 = 0 THEN '2024-01-10'::date ELSE '2024-02-10' END FROM generate_series(1, 1000) i;
ANALYZE numbers;
SELECT partition, rows, bytes > 0 AS has_bytes FROM migrate_ext.preview('numbers', 'id', step => '250');
SELECT partition, rows, bytes > 0 AS has_bytes FROM migrate_ext.preview('numbers', 'day', step => '1 month');
SELECT count(*) FROM migrate_ext.migration WHERE source = 'numbers'::regclass;
ROLLBACK;
