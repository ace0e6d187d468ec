-- Comments, extended statistics, properties of columns, CHECK constraints, storage parameters,
-- replica identity and security labels follow the table at a swap, either way.
SET client_min_messages = warning;
CREATE ROLE properties_owner;
CREATE ROLE properties_analyst;
CREATE SCHEMA properties AUTHORIZATION properties_owner;
SET search_path = properties, public;
SET ROLE properties_owner;
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION positive(integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
CREATE TABLE "T" (gone integer, id integer PRIMARY KEY, k integer NOT NULL, "Odd 'c" text DEFAULT 'old', doc text, n integer, note text, UNIQUE (n, k),
                  CONSTRAINT "it's positive" CHECK (id > 0), CONSTRAINT short CHECK (length("T".doc) < 1000));
ALTER TABLE "T" DROP COLUMN gone;
INSERT INTO "T" SELECT i, i % 3, 'x', repeat('d', i), -i, 'note' FROM generate_series(1, 20) i;
CREATE INDEX t_doc ON "T" (doc);
CREATE STATISTICS "Stat 1" (dependencies, ndistinct) ON k, "Odd 'c" FROM "T";
CREATE STATISTICS stat_expression ON (lower(doc)) FROM "T";
CREATE STATISTICS stat_long_name_long_name_long_name_long_name_long_name_long_nam (mcv) ON (id % 2), k, note FROM "T";
ALTER STATISTICS "Stat 1" SET STATISTICS 77;
ALTER TABLE "T" ALTER doc SET STATISTICS 50, ALTER n SET (n_distinct = -0.5), ALTER k SET (n_distinct = 3);
ALTER TABLE "T" ADD CONSTRAINT not_yet CHECK (n > 0) NOT VALID;
COMMENT ON TABLE "T" IS 'it''s the table';
COMMENT ON COLUMN "T"."Odd 'c" IS 'odd';
COMMENT ON CONSTRAINT not_yet ON "T" IS 'not yet';
COMMENT ON CONSTRAINT "T_pkey" ON "T" IS 'key';
COMMENT ON INDEX t_doc IS 'documents';
COMMENT ON STATISTICS "Stat 1" IS 'first';
CREATE POLICY pol ON "T";
COMMENT ON POLICY pol ON "T" IS 'policy';
RESET ROLE;
ALTER STATISTICS stat_expression OWNER TO properties_analyst;
INSERT INTO pg_seclabel VALUES ('"T"'::regclass, 'pg_class'::regclass, 0, 'properties', 'secret'),
    ('"T"'::regclass, 'pg_class'::regclass, 4, 'properties', 'odd');

CREATE FUNCTION pg_temp.properties(name regclass) RETURNS TABLE (what text, value text) LANGUAGE sql AS $$
    SELECT 'column ' || attname, concat_ws(' ', pg_get_expr(adbin, adrelid), 'statistics', COALESCE(attstattarget, -1), 'storage', attstorage, attcompression,
        (SELECT option_value FROM pg_options_to_table(attoptions) WHERE option_name LIKE 'n_distinct%' ORDER BY option_name = 'n_distinct_inherited' DESC LIMIT 1),
        col_description(attrelid, attnum))
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = name AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'check ' || conname, concat_ws(' ', pg_get_expr(conbin, conrelid), convalidated, obj_description(oid, 'pg_constraint'))
    FROM pg_constraint WHERE conrelid = name AND contype = 'c'
    UNION ALL SELECT 'index ' || relname, concat_ws(' ', obj_description(i.indexrelid, 'pg_class'), indisreplident,
        (SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conindid = i.indexrelid AND conrelid = name AND contype IN ('p', 'u')))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE indrelid = name
    UNION ALL SELECT 'statistics ' || stxname, concat_ws(' ', stxowner::regrole, COALESCE(stxstattarget, -1), stxkind, pg_get_statisticsobjdef_columns(oid),
        obj_description(oid, 'pg_statistic_ext')) FROM pg_statistic_ext WHERE stxrelid = name
    UNION ALL SELECT 'policy ' || polname, obj_description(oid, 'pg_policy') FROM pg_policy WHERE polrelid = name
    UNION ALL SELECT 'label ' || COALESCE(attname, ''), concat_ws(' ', provider, label) FROM pg_seclabel
    LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid AND objsubid > 0 WHERE objoid = name
    UNION ALL SELECT 'table', concat_ws(' ', relreplident, obj_description(oid, 'pg_class')) FROM pg_class WHERE oid = name
$$;
CREATE TABLE pg_temp.before (what text, value text);
CREATE FUNCTION pg_temp.changed(name regclass) RETURNS TABLE (how text, what text, value text) LANGUAGE sql AS $$
    (SELECT 'now', * FROM pg_temp.properties(name) EXCEPT SELECT 'now', * FROM pg_temp.before)
    UNION ALL (SELECT 'before', * FROM pg_temp.before EXCEPT SELECT 'before', * FROM pg_temp.properties(name))
    ORDER BY 2, 1
$$;
-- a partition: what it has that others have, too
CREATE FUNCTION pg_temp.partitions() RETURNS TABLE (partition text, options text[], toast text[], identity "char", statistics text, columns text, checks text)
LANGUAGE sql AS $$
    SELECT c.relname, c.reloptions, t.reloptions, c.relreplident,
        (SELECT string_agg(regexp_replace(stxname, '_\d{4,}', '_<OID>', 'g') || ' ' || COALESCE(stxdndistinct::text, ''), ', ' ORDER BY stxname COLLATE "C")
         FROM pg_statistic_ext s LEFT JOIN pg_statistic_ext_data d ON d.stxoid = s.oid WHERE stxrelid = c.oid),
        (SELECT string_agg(concat_ws(' ', attname, COALESCE(attstattarget, -1), (SELECT option_value FROM pg_options_to_table(attoptions) WHERE option_name = 'n_distinct'), attcompression, attstorage), ', ' ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = c.oid AND attname IN ('doc', 'n', 'k')),
        (SELECT string_agg(conname || CASE WHEN convalidated THEN '' ELSE ' NOT VALID' END, ', ' ORDER BY conname COLLATE "C") FROM pg_constraint WHERE conrelid = c.oid AND contype = 'c')
    FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
    WHERE c.relname LIKE 'T%p\_few' OR c.relname LIKE 'T%default'
    ORDER BY c.relname COLLATE "C"
$$;
INSERT INTO pg_temp.before SELECT * FROM pg_temp.properties('"T"');
SELECT * FROM pg_temp.before ORDER BY what COLLATE "C", value COLLATE "C";

SELECT migrate_ext.partition_by_list('"T"', 'k', migration => 't', options => '{"groups": {"few": [0, 1]}}');
ANALYZE "T";
CALL migrate_ext.run('t');
SELECT object, problem, remedy FROM migrate_ext.preflight('t') WHERE severity = 'error';
-- what breaks the constraint that is not valid was carried over
SELECT count(*) FROM "T_new";
CALL migrate_ext.finalize('t');
SELECT * FROM pg_temp.changed('"T"');
SELECT * FROM pg_temp.partitions();
SELECT stxname FROM pg_statistic_ext WHERE stxrelid = '"T_orig"'::regclass ORDER BY stxname COLLATE "C";
-- what is not valid is enforced from now on
UPDATE "T" SET n = -2 WHERE id = 1;
CALL migrate_ext.undo('t');
SELECT * FROM pg_temp.changed('"T"');
SELECT * FROM helper.check('t');

-- changes while it is live are followed ...
SET ROLE properties_owner;
ALTER TABLE "T" ALTER "Odd 'c" SET DEFAULT 'new ' || CURRENT_DATE, ALTER note SET DEFAULT 'note', ALTER doc SET STATISTICS 60,
    ALTER doc SET STORAGE EXTERNAL, ALTER doc SET COMPRESSION pglz, ALTER n RESET (n_distinct), ALTER k SET (n_distinct = -0.2);
ALTER TABLE "T" SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_enabled = off), REPLICA IDENTITY FULL;
UPDATE "T" SET n = id;
ALTER TABLE "T" VALIDATE CONSTRAINT not_yet, DROP CONSTRAINT short, ADD CONSTRAINT short CHECK (length(doc) < 2000),
    ADD CONSTRAINT row_positive CHECK (positive(k + 1)), DROP CONSTRAINT "it's positive";
DROP STATISTICS stat_long_name_long_name_long_name_long_name_long_name_long_nam;
DROP STATISTICS "Stat 1";
CREATE STATISTICS "Stat 1" (ndistinct) ON id, k FROM "T";
CREATE STATISTICS stat_2 (ndistinct) ON id, k FROM "T";
COMMENT ON STATISTICS stat_2 IS 'two';
COMMENT ON TABLE "T" IS NULL;
COMMENT ON COLUMN "T".doc IS 'document';
COMMENT ON CONSTRAINT short ON "T" IS 'shorter';
COMMENT ON INDEX t_doc IS 'all documents';
COMMENT ON CONSTRAINT "T_pkey" ON "T" IS NULL;
COMMENT ON POLICY pol ON "T" IS 'a policy';
RESET ROLE;
UPDATE pg_seclabel SET label = 'public' WHERE provider = 'properties' AND objsubid = 0 AND objoid = '"T"'::regclass;
DELETE FROM pg_seclabel WHERE provider = 'properties' AND objsubid = 4 AND objoid = '"T"'::regclass;
TRUNCATE pg_temp.before;
INSERT INTO pg_temp.before SELECT * FROM pg_temp.properties('"T"');
CALL migrate_ext.finalize('t');
SELECT * FROM pg_temp.changed('"T"');
SELECT * FROM pg_temp.partitions();
INSERT INTO "T" (id, k, n) VALUES (21, 0, 1);
SELECT "Odd 'c" = 'new ' || CURRENT_DATE AS new, note FROM "T" WHERE id = 21;
-- ... and while it is swapped
SET ROLE properties_owner;
ALTER TABLE "T" ALTER "Odd 'c" DROP DEFAULT, ALTER note SET STATISTICS 10, ALTER n SET (n_distinct_inherited = 7), REPLICA IDENTITY DEFAULT;
ALTER TABLE "T" DROP CONSTRAINT not_yet, ADD CONSTRAINT below CHECK (n < 1000);
ALTER TABLE "T_p_few" SET (fillfactor = 90);
CREATE STATISTICS stat_3 ON n, k FROM "T";
DROP STATISTICS "Stat 1";
COMMENT ON TABLE "T" IS 'partitioned';
COMMENT ON INDEX t_doc IS 'still';
RESET ROLE;
INSERT INTO pg_seclabel VALUES ('"T"'::regclass, 'pg_class'::regclass, 2, 'properties', 'key');
TRUNCATE pg_temp.before;
INSERT INTO pg_temp.before SELECT * FROM pg_temp.properties('"T"');
CALL migrate_ext.undo('t');
SELECT * FROM pg_temp.changed('"T"');
SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxname = 'stat_3';
CALL migrate_ext.finalize('t');
SELECT * FROM pg_temp.changed('"T"');
-- which partitions were tuned by their owner
SELECT * FROM pg_temp.partitions();
CALL migrate_ext.complete('t', drop_original => true);
SELECT * FROM pg_temp.changed('"T"');
SELECT stxname FROM pg_statistic_ext WHERE stxnamespace = 'properties'::regnamespace ORDER BY stxname COLLATE "C";
SELECT migrate_ext.forget('t');
DROP TABLE "T";

-- REPLICA IDENTITY USING INDEX, chosen late; a target of one's own keeps what it has
SET ROLE properties_owner;
CREATE TABLE r (id integer PRIMARY KEY, k integer NOT NULL, UNIQUE (k, id));
INSERT INTO r VALUES (1, 1);
RESET ROLE;
SELECT migrate_ext.partition_by_list('r', 'k');
CALL migrate_ext.run('r');
ALTER TABLE r REPLICA IDENTITY USING INDEX r_k_id_key;
CALL migrate_ext.finalize('r');
SELECT c.relname, c.relreplident, i.indexrelid::regclass FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident
WHERE c.relname ~ '^r(_p.*|_default|_orig)?$' AND c.relkind IN ('r', 'p') ORDER BY c.relname COLLATE "C";
ALTER TABLE r REPLICA IDENTITY NOTHING;
CALL migrate_ext.undo('r');
SELECT relreplident FROM pg_class WHERE oid = 'r'::regclass;
CALL migrate_ext.cancel('r');
SELECT migrate_ext.forget('r');
DROP TABLE r;

CREATE TABLE given (id integer PRIMARY KEY, k integer NOT NULL DEFAULT 1, v varchar DEFAULT 'theirs', CONSTRAINT positive CHECK (id > 0));
CREATE TABLE given_parts (id integer, k integer, v text DEFAULT 'mine', PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE given_p1 PARTITION OF given_parts FOR VALUES IN (1);
INSERT INTO given VALUES (1, 1, 'x');
COMMENT ON COLUMN given.v IS 'theirs';
COMMENT ON COLUMN given.k IS 'theirs';
COMMENT ON COLUMN given_parts.v IS 'mine';
CREATE STATISTICS theirs ON k, v FROM given;
CREATE STATISTICS expression ON (lower(v)) FROM given;
CREATE STATISTICS mine ON id, v FROM given_parts;
SELECT migrate_ext.create_migration('given', 'given_parts');
CALL migrate_ext.run('given');
SELECT severity, object, problem, remedy FROM migrate_ext.preflight('given') WHERE object !~ 'index';
CALL migrate_ext.finalize('given');
SELECT * FROM pg_temp.properties('given') ORDER BY what COLLATE "C";
CALL migrate_ext.undo('given');
SELECT * FROM pg_temp.properties('given') ORDER BY what COLLATE "C";
CALL migrate_ext.cancel('given');
SELECT migrate_ext.forget('given');
DROP TABLE given, given_parts;

RESET search_path;
DROP SCHEMA properties CASCADE;
DROP ROLE properties_owner, properties_analyst;
