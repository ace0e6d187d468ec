-- Identities, partition keys and values of every kind, through a whole life: logged, copied, written
-- through, carried back, undone. helper.live_through() compares both tables at each stage, before
-- and after its statements.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN code AS varchar(5) CHECK (VALUE ~ '^[a-z]+$');
CREATE TYPE pair AS (a integer, b text);
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

-- One table a type. Row 1 goes to and fro between the first two values, which may be equal without
-- being the same (1.0 and 1.00); row 3 has the third, is deleted and comes back.
CREATE PROCEDURE pg_temp.by_type(type text, key text, VARIADIC ids text[])
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE by_type (v integer NOT NULL, id %s PRIMARY KEY, note text)', type);
    EXECUTE format('INSERT INTO by_type VALUES (1, %L, %L), (3, %L, NULL)', ids[1], type, ids[3]);
    PERFORM migrate_ext.partition_by_hash('by_type', key, 3, migration => type);
    CALL helper.live_through(type,
        'UPDATE by_type SET note = concat(note, ''$stage'')',
        format('UPDATE by_type SET id = CASE WHEN $stage %% 2 = 1 THEN %L ELSE %L END::%s WHERE v = 1', ids[2], ids[1], type),
        'DELETE FROM by_type WHERE v = 3',
        format('INSERT INTO by_type VALUES (3, %L, ''$stage'')', ids[3]));
    CALL migrate_ext.complete(type, drop_original => true);
    PERFORM migrate_ext.forget(type);
    DROP TABLE by_type;
END
$$;
CALL pg_temp.by_type('smallint', 'id', '-32768', '32767', '0');
CALL pg_temp.by_type('integer', 'id', '-2147483648', '2147483647', '0');
CALL pg_temp.by_type('bigint', 'id', '-9223372036854775808', '9223372036854775807', '0');
CALL pg_temp.by_type('numeric', 'id', '1.0', '1.00', 'NaN');
CALL pg_temp.by_type('numeric(10,2)', 'id', '-5', '12345678.91', '0');
CALL pg_temp.by_type('real', 'id', '0', '-0', '1e-30');
CALL pg_temp.by_type('double precision', 'id', 'Infinity', '-0', 'NaN');
CALL pg_temp.by_type('text', 'id', '', ' ', E'\\x\t"''');
CALL pg_temp.by_type('text COLLATE "C"', 'id', 'a', 'A', 'ä');
CALL pg_temp.by_type('text COLLATE "en-x-icu"', 'id', 'a', 'A', 'ä');
CALL pg_temp.by_type('text COLLATE ignore_case', 'id', 'straße', 'STRASSE', 'ä');
CALL pg_temp.by_type('text COLLATE ignore_case', 'v', 'a', 'A', 'ä');
CALL pg_temp.by_type('varchar(5)', 'id', 'abc', 'abc ', '12345');
CALL pg_temp.by_type('character(5)', 'id', 'abc', '12345', '');
CALL pg_temp.by_type('"char"', 'id', 'a', 'b', 'c');
CALL pg_temp.by_type('name', 'id', 'a', 'A', repeat('x', 63));
CALL pg_temp.by_type('bytea', 'id', '\x', '\x00', '\xdeadbeef');
CALL pg_temp.by_type('uuid', 'id', '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '018e0000-0000-7abc-8def-0123456789ab');
CALL pg_temp.by_type('date', 'id', '-infinity', '2024-02-29', '0044-03-15 BC');
CALL pg_temp.by_type('time', 'id', '00:00', '24:00', '23:59:59.999999');
CALL pg_temp.by_type('timetz', 'id', '12:00+00', '13:00+01', '00:00-12');
CALL pg_temp.by_type('timestamp', 'id', 'infinity', '2024-02-29 12:00', '-infinity');
CALL pg_temp.by_type('timestamptz', 'id', '2024-02-29 12:00+02', 'infinity', '2024-10-27 02:30 Europe/Berlin');
CALL pg_temp.by_type('interval', 'id', '1 month', '30 days', '-1 second');
CALL pg_temp.by_type('boolean', 'v', 'true', 'true', 'false');
CALL pg_temp.by_type('money', 'v', '1.00', '2.00', '-3.00');
CALL pg_temp.by_type('inet', 'id', '10.0.0.1', '10.0.0.1/24', '::1');
CALL pg_temp.by_type('cidr', 'id', '10.0.0.0/8', '10.0.0.0/24', '::1/128');
CALL pg_temp.by_type('macaddr', 'id', '08:00:2b:01:02:03', '08-00-2b-01-02-04', '00:00:00:00:00:00');
CALL pg_temp.by_type('bit(3)', 'v', '101', '000', '111');
CALL pg_temp.by_type('bit varying', 'v', '101', '', '1');
CALL pg_temp.by_type('oid', 'id', '0', '4294967295', '1');
CALL pg_temp.by_type('pg_lsn', 'id', '0/0', 'FFFFFFFF/FFFFFFFF', '0/1');
CALL pg_temp.by_type('tid', 'id', '(0,1)', '(1,0)', '(4294967295,65535)');
CALL pg_temp.by_type('xid8', 'id', '0', '18446744073709551615', '1');
CALL pg_temp.by_type('tsvector', 'v', 'a:1 b:2', 'a:1', '');
CALL pg_temp.by_type('jsonb', 'id', '{"a": 1.0}', '{"a": 1.00}', 'null');
CALL pg_temp.by_type('int4range', 'id', '[1,5)', 'empty', '(,)');
CALL pg_temp.by_type('numrange', 'id', '[1.0,5.0]', '[1.00,5]', '(,1)');
CALL pg_temp.by_type('datemultirange', 'id', '{}', '{[2024-01-01,2024-02-01),[2025-01-01,)}', '{(,)}');
CALL pg_temp.by_type('integer[]', 'id', '{}', '{NULL}', '[0:1]={1,2}');
CALL pg_temp.by_type('numeric[]', 'id', '{1.0}', '{1.00}', '{{1,2},{3,4}}');
CALL pg_temp.by_type('text[]', 'id', '{a}', '{"",NULL}', '{"NULL"}');
CALL pg_temp.by_type('mood', 'id', 'sad', 'happy', 'ok');
CALL pg_temp.by_type('mood[]', 'id', '{sad}', '{happy,sad}', '{}');
CALL pg_temp.by_type('code', 'id', 'a', 'abcde', 'z');
CALL pg_temp.by_type('code[]', 'id', '{a}', '{abcde,z}', '{}');
CALL pg_temp.by_type('pair', 'id', '(1,)', '(1,"")', '(,x)');
CALL pg_temp.by_type('pair[]', 'id', '{}', '{"(1,)"}', '{NULL}');
DROP PROCEDURE pg_temp.by_type;

-- identity of several columns, in another order than theirs; partition key the last of the table
CREATE TABLE mixed (note text, c uuid, b text COLLATE "C", a smallint, k date NOT NULL, PRIMARY KEY (a, c, b));
INSERT INTO mixed SELECT 'n' || i, md5(i::text)::uuid, 'b' || i % 3, i % 5, '2024-01-01'::date + i FROM generate_series(1, 90) i;
SELECT migrate_ext.partition_by_range('mixed', 'k', '1 month');
CALL helper.live_through('mixed',
    'UPDATE mixed SET note = note || $stage WHERE a = $stage - 1',
    'UPDATE mixed SET a = a + 10 WHERE a = $stage - 1',
    'UPDATE mixed SET b = ''x'' || b, c = md5(c::text)::uuid WHERE a = $stage',
    'UPDATE mixed SET k = k + 31 WHERE b LIKE ''x%''',
    'UPDATE mixed SET k = k - 1, a = a + 100, note = NULL WHERE note LIKE ''%3''',
    'DELETE FROM mixed WHERE a % 10 = 4 AND b = ''b'' || $stage % 3',
    'INSERT INTO mixed SELECT NULL, md5(a::text)::uuid, ''$stage'', a, ''2023-12-31''::date + a * 40 FROM generate_series(1, 5) a');
SELECT tableoid::regclass, count(*) FROM mixed GROUP BY 1 ORDER BY 1;
SELECT * FROM helper.describe('mixed');
CALL migrate_ext.complete('mixed', drop_original => true);
DROP TABLE mixed;

-- a replica identity index instead of a primary key; a deferrable primary key names no row
CREATE TABLE replica (id integer, code text NOT NULL, site integer NOT NULL, v text, UNIQUE (site, code), UNIQUE (id) DEFERRABLE);
ALTER TABLE replica ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED;
SELECT migrate_ext.partition_by_list('replica', 'site');
ALTER TABLE replica REPLICA IDENTITY USING INDEX replica_site_code_key;
INSERT INTO replica SELECT i, 'c' || i, i % 3, 'v' FROM generate_series(1, 30) i;
SELECT migrate_ext.partition_by_list('replica', 'site');
CALL helper.live_through('replica',
    'UPDATE replica SET v = v || $stage WHERE id % 5 = 0',
    'UPDATE replica SET code = code || ''x'' WHERE id % 7 = 0',
    'UPDATE replica SET site = site + 1 WHERE id % 11 = $stage',
    'UPDATE replica SET id = -id WHERE id % 3 = 0',
    -- deferred: two rows exchange their numbers
    'UPDATE replica SET id = CASE id WHEN 1 THEN 2 ELSE 1 END WHERE id IN (1, 2)',
    'DELETE FROM replica WHERE id = $stage + 20',
    'INSERT INTO replica VALUES (100 + $stage, ''new$stage'', $stage, NULL)');
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'replica'::regclass AND contype <> 'n' ORDER BY 1;
SELECT relname, relreplident FROM pg_class WHERE oid IN (SELECT relid FROM pg_partition_tree('replica')) OR relname = 'replica_orig' ORDER BY 1;
CALL migrate_ext.complete('replica', drop_original => true);
DROP TABLE replica;

-- large values: compressed, out of line, both; written, kept by an UPDATE of something else, moved
CREATE TABLE large (id integer PRIMARY KEY, site integer NOT NULL, squeezed text, external text, main text, list integer[], couple pair, doc jsonb, raw bytea);
ALTER TABLE large ALTER external SET STORAGE EXTERNAL, ALTER main SET STORAGE MAIN;
CREATE FUNCTION pg_temp.noise(seed integer, n integer) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT string_agg(md5((seed * 1000 + i)::text), '') FROM generate_series(1, n) i $$;
INSERT INTO large
SELECT i, i % 4, repeat('x', 10000 * i), pg_temp.noise(i, 100), repeat('main', 1000), array_agg(j), ROW (i, pg_temp.noise(i, 120))::pair,
       jsonb_build_object('noise', pg_temp.noise(i, 140)), convert_to(pg_temp.noise(i, 160), 'UTF8')
FROM generate_series(1, 12) i, generate_series(1, 3000) j GROUP BY i;
SELECT count(*) > 0 AS out_of_line FROM large WHERE pg_column_size(external) > 2000;
SELECT migrate_ext.partition_by_hash('large', 'site', 3);
CALL helper.live_through('large',
    'UPDATE large SET site = site WHERE id % 2 = 0',
    'UPDATE large SET site = site + 1 WHERE id % 4 = $stage % 4',
    'UPDATE large SET id = id + 100 WHERE id = $stage + 1',
    'UPDATE large SET external = external || external WHERE id % 5 = 0',
    'UPDATE large SET squeezed = pg_temp.noise(id, 200), main = NULL WHERE id % 7 = $stage',
    'UPDATE large SET list = list || id, couple.a = 7 WHERE id % 3 = 0',
    'UPDATE large SET doc = doc || ''{"stage": $stage}'', raw = raw || ''\x00'' WHERE id % 4 = 0',
    'DELETE FROM large WHERE id = 13 - $stage',
    'INSERT INTO large SELECT id - $stage * 1000, site, external, squeezed, squeezed, list, couple, doc, raw FROM large WHERE id BETWEEN 5 AND 7');
-- nothing points into the original's TOAST table
CREATE TEMP TABLE before AS SELECT id, md5(large::text) AS digest FROM large;
CALL migrate_ext.complete('large', drop_original => true);
SELECT count(*), count(*) FILTER (WHERE md5(large::text) = digest) AS same FROM large FULL JOIN before USING (id);
DROP TABLE large, before;

-- values that an identity may have, compressed in its index
CREATE TABLE wide (id text PRIMARY KEY, v integer);
INSERT INTO wide SELECT repeat(chr(64 + i), 3000 * i), i FROM generate_series(1, 10) i;
SELECT migrate_ext.partition_by_hash('wide', 'id', 2);
CALL helper.live_through('wide',
    'UPDATE wide SET v = v + 1',
    'UPDATE wide SET id = id || repeat(''z'', 5000) WHERE v % 3 = $stage % 3',
    'DELETE FROM wide WHERE id ~ (''^'' || chr(64 + $stage))',
    'INSERT INTO wide VALUES (repeat(''!'', 10000 * $stage), 0)');
CALL migrate_ext.complete('wide', drop_original => true);
DROP TABLE wide;

-- columns that were dropped, added later with a value that no row has on disk, and generated
CREATE TABLE shape (gone integer, id integer, also_gone text, k integer NOT NULL, v text, twice integer GENERATED ALWAYS AS (k * 2) STORED, PRIMARY KEY (id));
INSERT INTO shape SELECT i, i, 'x', i % 10, 'v' || i FROM generate_series(1, 40) i;
ALTER TABLE shape DROP gone, DROP also_gone;
ALTER TABLE shape ADD later integer NOT NULL DEFAULT 7, ADD later_text text DEFAULT 'later', ADD later_null text;
ALTER TABLE shape ADD thrice integer GENERATED ALWAYS AS (k * 3) STORED;
INSERT INTO shape (id, k) SELECT i, i % 10 FROM generate_series(41, 50) i;
SELECT migrate_ext.partition_by_range('shape', 'k', 4, headroom => 1);
SELECT attnum, attname FROM pg_attribute WHERE attrelid = 'shape_new'::regclass AND attnum > 0 ORDER BY 1;
CALL helper.live_through('shape',
    'UPDATE shape SET v = v || ''$stage'' WHERE id % 3 = 0',
    'UPDATE shape SET later = DEFAULT, later_text = NULL, later_null = ''x'' WHERE id % 5 = 0',
    'UPDATE shape SET k = k + 1 WHERE id % 7 = $stage',
    'UPDATE shape SET id = -id WHERE id % 6 = $stage',
    'DELETE FROM shape WHERE id = $stage * 8',
    'INSERT INTO shape (k, id) VALUES ($stage, 100 + $stage)',
    'COPY shape (id, k, later) FROM PROGRAM ''echo "20$stage	3	4"''');
SELECT count(*), sum(twice) = sum(k) * 2 AS twice, sum(thrice) = sum(k) * 3 AS thrice FROM shape;
CALL migrate_ext.complete('shape', drop_original => true);
DROP TABLE shape;

-- numbers go on: identity ALWAYS and BY DEFAULT, serial, and a sequence that several columns share
CREATE SEQUENCE shared;
CREATE TABLE numbers (id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 10) PRIMARY KEY, a integer GENERATED BY DEFAULT AS IDENTITY, b serial, c bigint NOT NULL DEFAULT nextval('shared'), v text);
INSERT INTO numbers (v) SELECT 'v' FROM generate_series(1, 20);
SELECT migrate_ext.partition_by_hash('numbers', 'b', 2);
CALL helper.live_through('numbers',
    'INSERT INTO numbers (v) VALUES (''$stage'')',
    'INSERT INTO numbers (id, a, v) OVERRIDING SYSTEM VALUE VALUES (-$stage, -$stage, ''given'')',
    'INSERT INTO numbers (v) VALUES (''$stage again'')',
    'UPDATE numbers SET id = DEFAULT, a = DEFAULT, b = DEFAULT WHERE v = ''given''',
    'UPDATE numbers SET v = ''given before'' WHERE v = ''given''');
INSERT INTO numbers (id, v) VALUES (1, 'refused');
TABLE numbers ORDER BY c OFFSET 20;
SELECT attrelid::regclass, attname, attidentity, pg_get_serial_sequence(attrelid::regclass::text, attname)
FROM pg_attribute WHERE attrelid IN ('numbers'::regclass, 'numbers_orig'::regclass) AND attname IN ('id', 'a', 'b') ORDER BY 1, attnum;
CALL migrate_ext.undo('numbers');
SELECT attrelid::regclass, attname, attidentity, pg_get_serial_sequence(attrelid::regclass::text, attname)
FROM pg_attribute WHERE attrelid IN ('numbers'::regclass, 'numbers_new'::regclass) AND attname IN ('id', 'a', 'b') ORDER BY 1, attnum;
INSERT INTO numbers (v) VALUES ('undone') RETURNING *;
CALL migrate_ext.finalize('numbers');
CALL migrate_ext.complete('numbers', drop_original => true);
INSERT INTO numbers (v) VALUES ('completed') RETURNING *;
DROP TABLE numbers;
DROP SEQUENCE shared;
SELECT relname FROM pg_class WHERE relkind = 'S' AND relname ~ 'numbers';

-- nothing but a key; a table without rows; a hundred columns
CREATE TABLE bare (id integer PRIMARY KEY);
INSERT INTO bare SELECT generate_series(1, 10);
SELECT migrate_ext.partition_by_hash('bare', 'id', 2);
CALL helper.live_through('bare', 'UPDATE bare SET id = id + 100 WHERE id % 5 = 0', 'DELETE FROM bare WHERE id = $stage', 'INSERT INTO bare VALUES (-$stage)');
CALL migrate_ext.complete('bare');
DROP TABLE bare, bare_orig;
CREATE TABLE empty (id integer PRIMARY KEY, k date NOT NULL);
SELECT migrate_ext.partition_by_range('empty', 'k', '1 year', '2024-01-01', '2025-01-01', headroom => 0);
CALL helper.live_through('empty', 'DELETE FROM empty');
INSERT INTO empty VALUES (1, '2024-01-01');
SELECT * FROM helper.check('empty');
CALL migrate_ext.complete('empty', drop_original => true);
DROP TABLE empty;
DO $$ BEGIN
    EXECUTE format('CREATE TABLE hundred (%s, PRIMARY KEY (c97, c3, c50))',
                   (SELECT string_agg(format('c%s text DEFAULT %L', i, i), ', ') FROM generate_series(1, 100) i));
END $$;
INSERT INTO hundred (c97, c3) SELECT i, i FROM generate_series(1, 20) i;
SELECT migrate_ext.partition_by_hash('hundred', 'c50', 2);
CALL helper.live_through('hundred',
    'UPDATE hundred SET c1 = c1 || ''$stage'', c100 = NULL WHERE c97 ~ ''1''',
    'UPDATE hundred SET c50 = ''$stage'' WHERE c97 ~ ''2''',
    'DELETE FROM hundred WHERE c97 = ''1$stage''',
    'INSERT INTO hundred (c3, c97) VALUES (''$stage'', ''new'')');
CALL migrate_ext.complete('hundred', drop_original => true);
DROP TABLE hundred;

-- names: mixed case, quotes, beyond ASCII, 63 bytes, words of SQL, formats; a schema outside the search_path
CREATE SCHEMA "Else Where";
CREATE TABLE "Else Where"."Ta.""ble %s" ("I""d" integer, "Größe, ß" integer NOT NULL, "select" text, "%I $1 \" text, "c9" text, "123456789a123456789b123456789c123456789d123456789e123456789f123" text, PRIMARY KEY ("I""d"));
CREATE UNIQUE INDEX "the ""index"" of %s" ON "Else Where"."Ta.""ble %s" ("123456789a123456789b123456789c123456789d123456789e123456789f123", "select" DESC);
INSERT INTO "Else Where"."Ta.""ble %s" SELECT i, i % 5, 's' || i, '%s', '$1', i FROM generate_series(1, 20) i;
SELECT migrate_ext.partition_by_list('"Else Where"."Ta.""ble %s"', 'Größe, ß');
SELECT migration, table_name, source, target FROM migrate_ext.migrations ORDER BY migration;
CALL helper.live_through('Ta."ble %s',
    'UPDATE "Else Where"."Ta.""ble %s" SET "%I $1 \" = "%I $1 \" || ''\'' WHERE "I""d" % 3 = 0',
    'UPDATE "Else Where"."Ta.""ble %s" SET "Größe, ß" = "Größe, ß" + 1 WHERE "I""d" % 4 = 0',
    'UPDATE "Else Where"."Ta.""ble %s" SET "I""d" = -"I""d" WHERE "I""d" = $stage',
    'UPDATE "Else Where"."Ta.""ble %s" SET "123456789a123456789b123456789c123456789d123456789e123456789f123" = ''x$stage'' WHERE "I""d" = 10 + $stage',
    'DELETE FROM "Else Where"."Ta.""ble %s" WHERE "I""d" = -$stage',
    'INSERT INTO "Else Where"."Ta.""ble %s" VALUES (100 + $stage, $stage, ''"'', '''''''', ''%'', ''ü$stage'')');
SELECT relname, relkind FROM pg_class WHERE relnamespace = '"Else Where"'::regnamespace AND relkind <> 't' ORDER BY 1;
CALL migrate_ext.undo('Ta."ble %s');
SELECT relname FROM pg_class WHERE relnamespace = '"Else Where"'::regnamespace AND relkind IN ('r', 'p') AND relname !~ '_p|_default' ORDER BY 1;
CALL migrate_ext.cancel('Ta."ble %s');
SELECT relname, relkind FROM pg_class WHERE relnamespace = '"Else Where"'::regnamespace AND relkind <> 't' ORDER BY 1;
DROP SCHEMA "Else Where" CASCADE;
CREATE TABLE "ä123456789b123456789c123456789d123456789e123456789f123456789g1" (id integer PRIMARY KEY, "Ä123456789b123456789c123456789d123456789e123456789f123456789g1" integer NOT NULL);
INSERT INTO "ä123456789b123456789c123456789d123456789e123456789f123456789g1" SELECT i, i % 3 FROM generate_series(1, 9) i;
SELECT migrate_ext.partition_by_hash('"ä123456789b123456789c123456789d123456789e123456789f123456789g1"', 'Ä123456789b123456789c123456789d123456789e123456789f123456789g1', 3);
CALL helper.live_through('ä123456789b123456789c123456789d123456789e123456789f123456789g1',
    'UPDATE "ä123456789b123456789c123456789d123456789e123456789f123456789g1" SET id = id + 10 WHERE id % 3 = $stage % 3',
    'UPDATE "ä123456789b123456789c123456789d123456789e123456789f123456789g1" SET "Ä123456789b123456789c123456789d123456789e123456789f123456789g1" = $stage WHERE id % 2 = 0',
    'DELETE FROM "ä123456789b123456789c123456789d123456789e123456789f123456789g1" WHERE id = $stage');
SELECT relname, relkind FROM pg_class WHERE relname ~ '^ä' ORDER BY 1;
CALL migrate_ext.complete('ä123456789b123456789c123456789d123456789e123456789f123456789g1', drop_original => true);
SELECT relname, relkind FROM pg_class WHERE relname ~ '^ä' ORDER BY 1;
DROP TABLE "ä123456789b123456789c123456789d123456789e123456789f123456789g1";

SELECT count(migrate_ext.forget(migration)::text) FROM migrate_ext.migrations;
DROP TYPE mood, pair;
DROP DOMAIN code;
DROP COLLATION ignore_case;
