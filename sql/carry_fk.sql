-- Foreign keys follow the table: through finalize, undo, finalize and complete.
SET client_min_messages = warning;
CREATE SCHEMA "Other s";
CREATE TABLE "Other s"."Parent's" (id integer PRIMARY KEY, code text COLLATE "C" UNIQUE);
CREATE TABLE pair (a integer, b integer, PRIMARY KEY (a, b));
CREATE TABLE parted (id bigint PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
INSERT INTO "Other s"."Parent's" SELECT i, 'c' || i FROM generate_series(1, 20) i;
INSERT INTO pair SELECT i, i FROM generate_series(1, 20) i;
INSERT INTO parted SELECT generate_series(1, 9);
CREATE TABLE "Fk's" (
    gone integer,
    id integer PRIMARY KEY,
    p integer CONSTRAINT "a ""key""" REFERENCES "Other s"."Parent's" ON DELETE CASCADE ON UPDATE CASCADE,
    code text DEFAULT 'c20' CONSTRAINT by_code REFERENCES "Other s"."Parent's" (code) ON DELETE SET DEFAULT DEFERRABLE,
    a integer, "B b" integer,
    part bigint CONSTRAINT to_parted REFERENCES parted DEFERRABLE INITIALLY DEFERRED,
    up integer CONSTRAINT self REFERENCES "Fk's" ON DELETE SET NULL,
    CONSTRAINT pair_full FOREIGN KEY ("B b", a) REFERENCES pair (b, a) MATCH FULL ON DELETE SET NULL,
    CONSTRAINT pair_some FOREIGN KEY ("B b", a) REFERENCES pair (b, a) ON DELETE SET NULL (a)
);
ALTER TABLE "Fk's" DROP COLUMN gone;
INSERT INTO "Fk's" SELECT i, i, 'c' || i, i, i, 1 + i % 9, NULLIF(i - 1, 0) FROM generate_series(1, 18) i;

-- name, definition, validity, and how many triggers of it sleep on each side
CREATE VIEW fks AS
    SELECT k.conname, pg_get_constraintdef(k.oid) AS definition,
           (SELECT bool_and(x.convalidated) FROM migrate_ext.fk_tree(k.oid) x) AS valid,
           (SELECT string_agg(DISTINCT enabled::text, '') FROM migrate_ext.fk_out_triggers(k.oid) x) AS triggers
    FROM pg_constraint k
    WHERE k.conparentid = 0 AND k.contype = 'f' AND k.conrelid = to_regclass(current_setting('carry.side'));
CREATE FUNCTION differ() RETURNS TABLE (only_front bigint, only_back bigint) LANGUAGE plpgsql AS $$
DECLARE
    b text := COALESCE(to_regclass('"Fk''s_orig"'), to_regclass('"Fk''s_new"'));
BEGIN
    RETURN QUERY EXECUTE format('SELECT (SELECT count(*) FROM (TABLE "Fk''s" EXCEPT ALL TABLE %1$s) x), (SELECT count(*) FROM (TABLE %1$s EXCEPT ALL TABLE "Fk''s") x)', b);
END $$;
-- statements that a foreign key refuses, and what it does; all undone
CREATE PROCEDURE works() LANGUAGE plpgsql AS $$
DECLARE
    statement text;
    told text;
    shown text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[
        'INSERT INTO "Fk''s" (id, p) VALUES (50, 99)',
        'UPDATE "Fk''s" SET code = ''none'' WHERE id = 3',
        'UPDATE "Fk''s" SET a = NULL WHERE id = 3',
        'UPDATE "Fk''s" SET part = 10 WHERE id = 3',
        'UPDATE "Fk''s" SET up = 99 WHERE id = 3',
        'DELETE FROM parted WHERE id = 2',
        'DELETE FROM "Other s"."Parent''s" WHERE id = 5',
        'UPDATE "Other s"."Parent''s" SET id = 30 WHERE id = 6',
        'DELETE FROM pair WHERE a = 7',
        'DELETE FROM "Fk''s" WHERE id = 8']
    LOOP
        BEGIN
            EXECUTE statement;
            SET CONSTRAINTS ALL IMMEDIATE;
            SELECT string_agg(f::text, ' ') INTO shown FROM "Fk's" f WHERE id BETWEEN 5 AND 9;
            SELECT format('%s [%s %s]', shown, d.only_front, d.only_back) INTO told FROM differ() d;
            RAISE EXCEPTION USING ERRCODE = 'P0099';
        EXCEPTION WHEN SQLSTATE 'P0099' THEN
            RAISE INFO '%: %', statement, told;
        WHEN OTHERS THEN
            -- what a partition's part of a key is called differs by major
            RAISE INFO '%: % %', statement, SQLSTATE, regexp_replace(SQLERRM, '(on table "[^"]*_p?\d" violates foreign key constraint) ".*" on', '\1 ... on');
        END;
    END LOOP;
END $$;

SET carry.side = '"Fk''s"';
SELECT * FROM fks ORDER BY 1;
CALL works();
CREATE TABLE definitions AS SELECT conname, definition FROM fks;
SELECT migrate_ext.partition_by_range('"Fk''s"', 'id', 10, 0, 20, 0, migration => 'f');
CALL migrate_ext.run('f');
SELECT * FROM migrate_ext.preflight('f') WHERE severity = 'error';
CALL works();

-- what can't be had on a partitioned table is told
ALTER TABLE "Fk's" ADD CONSTRAINT unseen FOREIGN KEY (a) REFERENCES "Other s"."Parent's" NOT VALID;
ALTER TABLE "Fk's_new" ADD CONSTRAINT by_code CHECK (a > 0);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
SELECT * FROM migrate_ext.preflight('f') WHERE severity = 'error' ORDER BY 2;
ALTER TABLE "Fk's" DROP CONSTRAINT unseen;
ALTER TABLE "Fk's_new" DROP CONSTRAINT by_code;

CALL migrate_ext.finalize('f');
SET carry.side = '"Fk''s"';
TABLE definitions EXCEPT SELECT conname, definition FROM fks;
SELECT count(*), bool_and(valid) AS valid, string_agg(DISTINCT triggers, '') FROM fks;
SET carry.side = '"Fk''s_orig"';
SELECT count(*), bool_and(valid) AS valid, string_agg(DISTINCT triggers, '') FROM fks;
CALL works();
-- a key that comes and one that goes while swapped, and a partition, which has them all
ALTER TABLE "Fk's" DROP CONSTRAINT pair_some, ADD CONSTRAINT late FOREIGN KEY (a) REFERENCES "Other s"."Parent's";
INSERT INTO "Fk's" (id, a, "B b") SELECT 19, 19, 19;
BEGIN;
CREATE TABLE more PARTITION OF "Fk's" FOR VALUES FROM (20) TO (30);
SELECT conname, convalidated FROM pg_constraint WHERE conrelid = 'more'::regclass AND contype = 'f' ORDER BY 1;
ROLLBACK;

CALL migrate_ext.undo('f');
SET carry.side = '"Fk''s"';
SELECT * FROM fks ORDER BY 1;
ALTER TABLE "Fk's" DROP CONSTRAINT late, ADD CONSTRAINT pair_some FOREIGN KEY ("B b", a) REFERENCES pair (b, a) ON DELETE SET NULL (a);
TABLE definitions EXCEPT SELECT conname, definition FROM fks;
SELECT count(*), bool_and(valid) AS valid, string_agg(DISTINCT triggers, '') FROM fks;
CALL works();

CALL migrate_ext.finalize('f');
TABLE definitions EXCEPT SELECT conname, definition FROM fks;
SELECT count(*), bool_and(valid) AS valid, string_agg(DISTINCT triggers, '') FROM fks;
CALL works();
CALL migrate_ext.complete('f');
TABLE definitions EXCEPT SELECT conname, definition FROM fks;
SELECT count(*), bool_and(valid) AS valid, string_agg(DISTINCT triggers, '') FROM fks;
-- a copy that nobody writes must not keep rows of others from being deleted
SELECT conname FROM pg_constraint WHERE conrelid = '"Fk''s_orig"'::regclass AND contype = 'f' ORDER BY 1;
DELETE FROM "Fk's" WHERE id = 9;
DELETE FROM pair WHERE a = 9;

SELECT migrate_ext.forget('f');
DROP VIEW fks;
DROP FUNCTION differ();
DROP PROCEDURE works();
DROP TABLE definitions, "Fk's_orig", "Fk's", parted, pair, "Other s"."Parent's";
DROP SCHEMA "Other s";
