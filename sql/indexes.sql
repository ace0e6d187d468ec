-- Indexes of every kind: the target's are the source's, under the same names after the swap; after an
-- undo the source's are what they were, to the letter.
SET client_min_messages = warning;

-- Name and definition of each index of a table, and of its constraint.
CREATE FUNCTION pg_temp.indexes(name regclass) RETURNS TABLE (index name, definition text, con text)
LANGUAGE sql AS $$
    SELECT c.relname, regexp_replace(pg_get_indexdef(i.indexrelid), ' ON (ONLY )?', ' ON '), pg_get_constraintdef(k.oid)
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
    WHERE i.indrelid = name AND i.indisvalid
$$;

CREATE TABLE kinds (
    id integer,
    k integer NOT NULL,
    a integer,
    b text,
    c text COLLATE "C",
    d timestamptz,
    list integer[],
    doc jsonb,
    spot point,
    words tsvector,
    CONSTRAINT "the key" PRIMARY KEY (id) INCLUDE (b) WITH (fillfactor = 70),
    CONSTRAINT kinds_a_unique UNIQUE (a),
    CONSTRAINT kinds_deferrable UNIQUE (k, b) DEFERRABLE,
    CONSTRAINT kinds_deferred UNIQUE (b, a) INCLUDE (d) DEFERRABLE INITIALLY DEFERRED,
    UNIQUE NULLS NOT DISTINCT (c, d)
);
INSERT INTO kinds
SELECT i, i % 4, i, 'b' || i, CASE WHEN i % 3 > 0 THEN 'c' || i END, '2024-01-01'::timestamptz + i * interval '1 hour', ARRAY[i, i % 7],
       jsonb_build_object('i', i), point(i, -i), to_tsvector('english', 'word' || i)
FROM generate_series(1, 200) i;
CREATE INDEX ON kinds (a);
CREATE INDEX kinds_expression ON kinds (lower(b), (a + k), ((doc ->> 'i')::integer));
CREATE INDEX kinds_partial ON kinds (d) WHERE a > 100 AND b IS NOT NULL;
CREATE INDEX kinds_order ON kinds (a DESC NULLS LAST, k ASC NULLS FIRST, d DESC);
CREATE INDEX kinds_opclass ON kinds (b text_pattern_ops, c COLLATE "en-x-icu" varchar_pattern_ops DESC);
CREATE INDEX kinds_include ON kinds (k) INCLUDE (a, doc) WITH (fillfactor = 50, deduplicate_items = off);
CREATE INDEX kinds_hash ON kinds USING hash (b);
CREATE INDEX kinds_gin ON kinds USING gin (list) WITH (fastupdate = off);
CREATE INDEX kinds_gin_path ON kinds USING gin (doc jsonb_path_ops);
CREATE INDEX kinds_gist ON kinds USING gist (spot);
CREATE INDEX kinds_gist_options ON kinds USING gist (words tsvector_ops (siglen = 100));
CREATE INDEX kinds_spgist ON kinds USING spgist (spot);
CREATE INDEX kinds_brin ON kinds USING brin (d timestamptz_minmax_multi_ops, a) WITH (pages_per_range = 8, autosummarize = on);
CREATE UNIQUE INDEX kinds_unique_partial ON kinds (b) WHERE a < 50;
CREATE UNIQUE INDEX kinds_unique_expression ON kinds (upper(b), k);
CREATE UNIQUE INDEX kinds_nulls ON kinds (c, a) NULLS NOT DISTINCT;
CREATE UNIQUE INDEX "with ) and ""(" ON kinds ((b || ')('), (CASE WHEN a > 0 THEN '(,"' ELSE b END));
CREATE INDEX twin_1 ON kinds (a, b);
CREATE INDEX twin_2 ON kinds (a, b);
ALTER INDEX kinds_expression ALTER COLUMN 2 SET STATISTICS 500;
COMMENT ON INDEX kinds_hash IS 'hash';
COMMENT ON INDEX kinds_a_unique IS 'unique';
COMMENT ON CONSTRAINT kinds_a_unique ON kinds IS 'constraint';
CREATE TEMP TABLE before AS SELECT * FROM pg_temp.indexes('kinds');
SELECT count(*) FROM before;

SELECT migrate_ext.partition_by_list('kinds', 'k');
CALL migrate_ext.run('kinds');
SELECT message FROM migrate_ext.events WHERE migration = 'kinds' AND kind LIKE 'unique%' ORDER BY at, message;
SELECT index FROM pg_temp.indexes('kinds_new') ORDER BY index;
UPDATE kinds SET a = -a, b = upper(b), list = list || 5, spot = point(0, a), doc = doc || '{"x": 1}' WHERE id % 5 = 0;
DELETE FROM kinds WHERE id % 9 = 0;
INSERT INTO kinds (id, k, b, c, list) VALUES (1000, 1, 'new', 'new', '{5}'), (1001, 9, 'newer', 'other', '{5}');
SELECT * FROM helper.check('kinds');
CALL migrate_ext.finalize('kinds');

-- the same names; what differs is unique
SELECT count(*) FROM pg_temp.indexes('kinds');
SELECT * FROM pg_temp.indexes('kinds') EXCEPT TABLE before ORDER BY 1;
SELECT * FROM before EXCEPT SELECT * FROM pg_temp.indexes('kinds') ORDER BY 1;
SELECT index FROM pg_temp.indexes('kinds_orig') ORDER BY 1;
SELECT relname, obj_description(c.oid, 'pg_class'), obj_description(k.oid, 'pg_constraint')
FROM pg_class c LEFT JOIN pg_constraint k ON conindid = c.oid WHERE relname IN ('kinds_hash', 'kinds_a_unique') ORDER BY 1;
-- every leaf has all of them, attached, its names made of its own
SELECT indrelid::regclass, count(*), count(*) FILTER (WHERE relispartition) AS attached FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE indrelid IN (SELECT relid FROM pg_partition_tree('kinds') WHERE isleaf) GROUP BY 1 ORDER BY 1;
SELECT relname, reloptions FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'kinds_p2'::regclass ORDER BY 1;
SELECT attrelid::regclass, attnum, attstattarget FROM pg_attribute WHERE attstattarget > 0 AND attrelid::regclass::text ~ 'kinds' ORDER BY 1;

-- plans use them, and they find what is there
CREATE FUNCTION pg_temp.used(query text) RETURNS TABLE (index text, rows bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_partition_pruning = on AS $$
DECLARE
    line text;
    plan text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        plan := plan || line || E'\n';
    END LOOP;
    index := COALESCE(substring(plan FROM '(kinds_p1_\S+|"kinds_p1_[^\n]+")'), plan);
    EXECUTE 'SELECT count(*) FROM (' || query || ') q' INTO rows;
    RETURN NEXT;
END $$;
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE id = 77 AND k = 1');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND lower(b) = ''b13''');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND b LIKE ''b1%'' AND c IS NOT NULL');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND list @> ARRAY[5]');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND doc @> ''{"x": 1}''');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND spot <@ box ''((-1,-1000),(1,1000))''');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND words @@ ''word13''::tsquery');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND d BETWEEN ''2024-01-02'' AND ''2024-01-03'' AND a > 100 AND b IS NOT NULL');
SELECT * FROM pg_temp.used('SELECT * FROM kinds WHERE k = 1 AND upper(b) = ''B5''');

-- written to while swapped, then back: the very same
UPDATE kinds SET a = a + 1000, list = list || 6, spot = point(0, 1), b = b || 'x' WHERE id % 7 = 0;
DELETE FROM kinds WHERE id % 11 = 0;
SELECT * FROM helper.check('kinds');
CALL migrate_ext.undo('kinds');
(SELECT * FROM pg_temp.indexes('kinds') EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT SELECT * FROM pg_temp.indexes('kinds'));
SELECT index FROM pg_temp.indexes('kinds_new') ORDER BY index;
CALL migrate_ext.finalize('kinds');
SELECT count(*) FROM (SELECT * FROM pg_temp.indexes('kinds') EXCEPT TABLE before) d;
CALL migrate_ext.complete('kinds', drop_original => true);
SELECT count(*) FROM pg_temp.indexes('kinds');
DROP TABLE kinds, before;

-- names of 63 bytes that are the same up to the last: those of the target come to one name when cut
CREATE TABLE long_names (id integer NOT NULL, a integer, b integer, c integer, d integer);
INSERT INTO long_names SELECT i, i, i, i, i FROM generate_series(1, 20) i;
CREATE INDEX "x123456789x123456789x123456789x123456789x123456789x123456789xy1" ON long_names (a);
CREATE INDEX "x123456789x123456789x123456789x123456789x123456789x123456789xy2" ON long_names (b);
CREATE INDEX "x123456789x123456789x123456789x123456789x123456789x123456789xy3" ON long_names (c);
ALTER TABLE long_names ADD CONSTRAINT "x123456789x123456789x123456789x123456789x123456789x123456789xy4" UNIQUE (d);
ALTER TABLE long_names ADD CONSTRAINT "x123456789x123456789x123456789x123456789x123456789x123456789xy5" PRIMARY KEY (id);
CREATE TEMP TABLE before AS SELECT * FROM pg_temp.indexes('long_names');
SELECT migrate_ext.partition_by_hash('long_names', 'id', 2);
CALL migrate_ext.run('long_names');
SELECT * FROM pg_temp.indexes('long_names_new') ORDER BY 1;
CALL migrate_ext.finalize('long_names');
SELECT * FROM pg_temp.indexes('long_names') EXCEPT TABLE before ORDER BY 1;
SELECT * FROM pg_temp.indexes('long_names_orig') ORDER BY 1;
CALL migrate_ext.undo('long_names');
(SELECT * FROM pg_temp.indexes('long_names') EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT SELECT * FROM pg_temp.indexes('long_names'));
CALL migrate_ext.finalize('long_names');
SELECT * FROM pg_temp.indexes('long_names') EXCEPT TABLE before ORDER BY 1;
CALL migrate_ext.complete('long_names', drop_original => true);
DROP TABLE long_names, before;

-- meanwhile, at the source: an index renamed, built anew, dropped, added
CREATE TABLE busy (id integer PRIMARY KEY, a integer, b integer, c integer);
INSERT INTO busy SELECT i, i, i, i FROM generate_series(1, 20) i;
CREATE INDEX busy_a ON busy (a);
CREATE INDEX busy_b ON busy (b);
CREATE INDEX busy_c ON busy (c);
SELECT migrate_ext.partition_by_hash('busy', 'id', 2);
CALL migrate_ext.run('busy');
ALTER INDEX busy_a RENAME TO busy_renamed;
REINDEX INDEX CONCURRENTLY busy_b;
DROP INDEX busy_c;
CREATE INDEX busy_late ON busy (c DESC);
CREATE UNIQUE INDEX busy_late_unique ON busy (b, a);
SELECT * FROM migrate_ext.preflight('busy');
CALL migrate_ext.finalize('busy');
DROP INDEX busy_late_unique;
CREATE INDEX busy_of_mine ON busy_new (c DESC);
CALL migrate_ext.finalize('busy');
SELECT * FROM pg_temp.indexes('busy') ORDER BY 1;
SELECT * FROM pg_temp.indexes('busy_orig') ORDER BY 1;
CALL migrate_ext.undo('busy');
SELECT * FROM pg_temp.indexes('busy') ORDER BY 1;
SELECT * FROM pg_temp.indexes('busy_new') ORDER BY 1;
CALL migrate_ext.cancel('busy');
SELECT * FROM pg_temp.indexes('busy') ORDER BY 1;
DROP TABLE busy;

-- an index of the source that isn't valid is none
CREATE TABLE invalid (id integer PRIMARY KEY, a integer);
INSERT INTO invalid SELECT i, 1 FROM generate_series(1, 20) i;
CREATE UNIQUE INDEX CONCURRENTLY invalid_a ON invalid (a);
SELECT migrate_ext.partition_by_hash('invalid', 'id', 2);
CALL migrate_ext.run('invalid');
SELECT * FROM pg_temp.indexes('invalid_new');
CALL migrate_ext.finalize('invalid');
SELECT * FROM pg_temp.indexes('invalid');
CALL migrate_ext.complete('invalid', drop_original => true);
DROP TABLE invalid;
SELECT count(migrate_ext.forget(migration)::text) FROM migrate_ext.migrations;
