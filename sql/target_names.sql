-- Names of every kind, and what a target takes over from its source.
-- All is made in transactions that are rolled back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
RESET client_min_messages;
SET TimeZone = 'UTC';

-- The target and its partitions in the order in which they were made.
CREATE FUNCTION pg_temp.tables(migration text) RETURNS TABLE (name name, bytes integer, bound text)
LANGUAGE sql AS $$
    SELECT relname, octet_length(relname), pg_get_expr(relpartbound, c.oid)
    FROM migrate_ext.migration m, pg_partition_tree(m.target) t JOIN pg_class c ON c.oid = relid
    WHERE m.name = migration ORDER BY c.oid
$$;

-- quoted, mixed case, Unicode, injection
BEGIN;
CREATE SCHEMA "Odd ""schema""";
CREATE TABLE "Odd ""schema"""."My Table; DROP TABLE x --" ("The ""Key""" integer PRIMARY KEY, "100%s" text CHECK ("100%s" <> '%d'));
INSERT INTO "Odd ""schema"""."My Table; DROP TABLE x --" VALUES (1), (2);
SELECT migrate_ext.partition_by_range('"Odd ""schema"""."My Table; DROP TABLE x --"', 'The "Key"', 2, headroom => 1);
SELECT * FROM pg_temp.tables('My Table; DROP TABLE x --');
SELECT schema_name, table_name, source, target, definition FROM migrate_ext.migration WHERE schema_name = 'Odd "schema"';
SELECT message, detail FROM migrate_ext.event e JOIN migrate_ext.migration m ON m.id = e.migration WHERE m.schema_name = 'Odd "schema"';
-- a column's name is taken as it is: quotes are part of it
SAVEPOINT before;
SELECT migrate_ext.partition_by_range('"Odd ""schema"""."My Table; DROP TABLE x --"', '"The ""Key"""', 2);
ROLLBACK TO before;
CREATE TABLE "ÄÖÜ" ("schlüssel" text PRIMARY KEY);
INSERT INTO "ÄÖÜ" VALUES ('ß'), ('日本');
SELECT migrate_ext.partition_by_list('"ÄÖÜ"', 'schlüssel');
SELECT * FROM pg_temp.tables('ÄÖÜ');
-- reserved words
CREATE TABLE "table" ("select" integer PRIMARY KEY, "order" integer NOT NULL);
SELECT migrate_ext.partition_by_hash('"table"', 'order', 2);
SELECT * FROM pg_temp.tables('table');
ROLLBACK;

-- names of 63 bytes: shortened at a character, and never twice the same
BEGIN;
CREATE TABLE a123456789b123456789c123456789d123456789e123456789f123456789xyz (id integer PRIMARY KEY);
CREATE TABLE a123456789b123456789c123456789d123456789e123456789f123456789xyy (id integer PRIMARY KEY);
INSERT INTO a123456789b123456789c123456789d123456789e123456789f123456789xyz VALUES (-5), (2000000000);
SELECT migrate_ext.partition_by_hash('a123456789b123456789c123456789d123456789e123456789f123456789xyy', 'id', 2);
SELECT * FROM pg_temp.tables('a123456789b123456789c123456789d123456789e123456789f123456789xyy');
SELECT migrate_ext.partition_by_hash('a123456789b123456789c123456789d123456789e123456789f123456789xyz', 'id', 2);
SELECT * FROM pg_temp.tables('a123456789b123456789c123456789d123456789e123456789f123456789xyz');
ROLLBACK;
BEGIN;
SELECT repeat('ü', 31) || 'x' AS long \gset
CREATE TABLE :"long" (id integer PRIMARY KEY);
INSERT INTO :"long" VALUES (1);
SELECT migrate_ext.partition_by_range(quote_ident(:'long')::regclass, 'id', 10, headroom => 1);
SELECT * FROM pg_temp.tables(:'long');
ROLLBACK;

-- names of partitions that are taken by tables or types
BEGIN;
CREATE TABLE t (id integer PRIMARY KEY);
CREATE TABLE t_p0 (id integer);
CREATE TYPE t_p1 AS ENUM ('x');
CREATE TABLE t1_p1 (id integer);
SELECT migrate_ext.partition_by_hash('t', 'id', 3);
SELECT * FROM pg_temp.tables('t');
ROLLBACK;

-- the migration's name: the table's, with its schema where that is taken
BEGIN;
CREATE SCHEMA elsewhere;
CREATE TABLE t (id integer PRIMARY KEY);
CREATE TABLE elsewhere.t (id integer PRIMARY KEY);
SELECT migrate_ext.partition_by_hash('t', 'id', 1);
SELECT migrate_ext.partition_by_hash('elsewhere.t', 'id', 1);
SELECT migrate_ext.partition_by_hash('elsewhere.t', 'id', 1);
SELECT name, source, target FROM migrate_ext.migration WHERE table_name = 't' ORDER BY id;
SELECT * FROM pg_temp.tables('elsewhere.t');
ROLLBACK;
BEGIN;
CREATE TABLE t (id integer PRIMARY KEY);
SELECT migrate_ext.partition_by_hash('t', 'id', 1, migration => 'Mein Name, äöü');
SELECT migrate_ext.partition_by_hash('t', 'id', 1, migration => 'Mein Name, äöü');
SELECT name FROM migrate_ext.migration WHERE table_name = 't';
-- a finished one gives its name up
UPDATE migrate_ext.migration SET state = 'cancelled', name = 't' WHERE table_name = 't';
DROP TABLE t_new;
SELECT migrate_ext.partition_by_hash('t', 'id', 1);
ROLLBACK;

-- what the target takes over
BEGIN;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN code AS varchar(5) CHECK (VALUE ~ '^[a-z]+$');
CREATE TYPE pair AS (a integer, b text);
CREATE TABLE rich (
    gone integer,
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number serial,
    also_gone text,
    feeling mood DEFAULT 'sad',
    codes code[],
    span int4range,
    spans int4multirange,
    couple pair,
    doc jsonb DEFAULT '{}',
    long text COLLATE "C" DEFAULT repeat('x', 3),
    squeezed text COMPRESSION pglz,
    twice bigint GENERATED ALWAYS AS (id * 2) STORED,
    day date NOT NULL,
    CONSTRAINT sane CHECK (length(long) < 100000 AND day > '2000-01-01'),
    CONSTRAINT untold CHECK (feeling <> 'happy') NO INHERIT
) WITH (fillfactor = 80, autovacuum_enabled = off, toast.autovacuum_vacuum_threshold = 7);
ALTER TABLE rich DROP gone, DROP also_gone, ALTER long SET STORAGE EXTERNAL;
INSERT INTO rich (feeling, codes, span, spans, couple, long, day)
    SELECT 'sad', '{ab,cd}', '[1,5)', '{[1,2),[4,5)}', ROW (i, 'x')::pair, repeat('long', 2000 * i), '2024-01-31'::date + i
    FROM generate_series(1, 3) i;
ALTER TABLE rich ADD CONSTRAINT later CHECK (length(long) > 10000) NOT VALID;
COMMENT ON COLUMN rich.doc IS 'what''s 100 % in it';
COMMENT ON CONSTRAINT sane ON rich IS 'it''s 100 % sane';
SELECT migrate_ext.partition_by_range('rich', 'day', '1 month', headroom => 0);
\d+ rich_new
\d+ rich_p2024_02
SELECT c.relname, c.reloptions, t.reloptions AS toast FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
WHERE c.relname ~ '^rich_(p|default)' AND c.relkind = 'r' ORDER BY 1;
SELECT conname, conrelid::regclass, convalidated, connoinherit, obj_description(oid, 'pg_constraint')
FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text ~ '^rich' ORDER BY 2, 1;
SELECT attrelid::regclass, attcompression FROM pg_attribute
WHERE attname = 'squeezed' AND attrelid IN ('rich_new'::regclass, 'rich_p2024_02'::regclass) ORDER BY attrelid;
-- the source is as it was
\d rich
-- rows fit
INSERT INTO rich_new (id, number, feeling, codes, span, spans, couple, doc, long, day)
    SELECT id, number, feeling, codes, span, spans, couple, doc, long, day FROM rich WHERE id > 1;
SELECT tableoid::regclass, id, number, twice, couple, length(long) FROM rich_new ORDER BY id;
ROLLBACK;

-- an identity that is no primary key; a key of several columns
BEGIN;
CREATE TABLE several (a integer NOT NULL, b uuid NOT NULL, c text, UNIQUE (b, a) INCLUDE (c));
ALTER TABLE several REPLICA IDENTITY USING INDEX several_b_a_c_key;
SELECT migrate_ext.partition_by_hash('several', 'c', 2);
\d several_new
ROLLBACK;

-- a table in a tablespace of its own
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_target_space LOCATION '';
BEGIN;
CREATE TABLE placed (id integer PRIMARY KEY) TABLESPACE regress_target_space;
CREATE TABLE unplaced (id integer PRIMARY KEY);
SET LOCAL default_tablespace = regress_target_space;
SELECT migrate_ext.partition_by_hash('placed', 'id', 1);
SELECT migrate_ext.partition_by_hash('unplaced', 'id', 1);
SELECT relname, spcname FROM pg_class LEFT JOIN pg_tablespace s ON s.oid = reltablespace
WHERE relname ~ '^(un)?placed_(new|p0)$' ORDER BY 1;
ROLLBACK;
DROP TABLESPACE regress_target_space;
