-- Foreign keys of other tables follow the table: through finalize, undo, finalize and complete.
SET client_min_messages = warning;
CREATE SCHEMA "Other s";
CREATE TABLE "In's" (gone integer, id integer PRIMARY KEY, "B b" integer NOT NULL, code text UNIQUE, v integer, UNIQUE (id, "B b"));
ALTER TABLE "In's" DROP COLUMN gone;
INSERT INTO "In's" SELECT i, i, 'c' || i FROM generate_series(1, 18) i;
CREATE TABLE plain (id integer PRIMARY KEY, ref integer CONSTRAINT "a ""key""" REFERENCES "In's" ON DELETE CASCADE ON UPDATE CASCADE);
COMMENT ON CONSTRAINT "a ""key""" ON plain IS 'it''s commented';
CREATE TABLE "Other s"."Child's" (ref integer REFERENCES "In's" ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    a integer, b integer, CONSTRAINT pair_full FOREIGN KEY (b, a) REFERENCES "In's" ("B b", id) MATCH FULL ON DELETE SET NULL (a, b));
-- twice the same, one not valid, and a name of 63 bytes
CREATE TABLE twice (ref integer REFERENCES "In's", CONSTRAINT again FOREIGN KEY (ref) REFERENCES "In's");
INSERT INTO twice VALUES (6);
INSERT INTO plain VALUES (1, 1), (2, 2);
ALTER TABLE plain ADD o integer DEFAULT 98, ADD CONSTRAINT aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg FOREIGN KEY (o) REFERENCES "In's" NOT VALID;
CREATE TABLE parted (k integer, ref integer CONSTRAINT to_in REFERENCES "In's" ON DELETE CASCADE) PARTITION BY LIST (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY LIST (k);
CREATE TABLE parted_2_2 PARTITION OF parted_2 FOR VALUES IN (2);
INSERT INTO parted VALUES (1, 3), (2, 3), (2, 4);
INSERT INTO "Other s"."Child's" VALUES (5, 5, 5), (5, 7, 7);

-- name, definition, validity, and whether it sleeps
CREATE VIEW fks AS
    SELECT k.conrelid::regclass AS child, k.conname, k.confrelid::regclass AS points_at, pg_get_constraintdef(k.oid) AS definition, k.convalidated AS valid,
           (SELECT string_agg(DISTINCT enabled::text, '') FROM migrate_ext.fk_in_triggers(k.oid) x) AS triggers,
           obj_description(k.oid, 'pg_constraint') AS comment
    FROM pg_constraint k
    WHERE k.contype = 'f' AND k.conrelid IN ('plain'::regclass, '"Other s"."Child''s"'::regclass, 'twice'::regclass, 'parted'::regclass, 'parted_2_2'::regclass)
      -- not those to the partitions of what it points at
      AND NOT EXISTS (SELECT FROM pg_constraint o WHERE o.oid = k.conparentid AND o.conrelid = k.conrelid);
CREATE FUNCTION differ() RETURNS TABLE (only_front bigint, only_back bigint) LANGUAGE plpgsql AS $$
DECLARE
    b text := COALESCE(to_regclass('"In''s_orig"'), to_regclass('"In''s_new"'), '"In''s"');
BEGIN
    RETURN QUERY EXECUTE format('SELECT (SELECT count(*) FROM (TABLE "In''s" EXCEPT ALL TABLE %1$s) x), (SELECT count(*) FROM (TABLE %1$s EXCEPT ALL TABLE "In''s") x)', b);
END $$;
-- statements that a foreign key refuses, and what it does; all undone
CREATE PROCEDURE works() LANGUAGE plpgsql AS $$
DECLARE
    statement text;
    told text;
BEGIN
    FOREACH statement IN ARRAY ARRAY[
        'INSERT INTO plain VALUES (50, 99, NULL)',
        'INSERT INTO plain VALUES (50, NULL, 99)',
        'INSERT INTO parted VALUES (2, 99)',
        'UPDATE "Other s"."Child''s" SET ref = 99',
        'UPDATE "Other s"."Child''s" SET a = NULL WHERE a = 5',
        'DELETE FROM "In''s" WHERE id IN (1, 3)',
        'DELETE FROM "In''s" WHERE id = 6',
        'DELETE FROM "In''s" WHERE id = 5',
        'UPDATE "In''s" SET id = 15 WHERE id = 1',
        'TRUNCATE "In''s"',
        'TRUNCATE "In''s" CASCADE']
    LOOP
        BEGIN
            EXECUTE statement;
            SET CONSTRAINTS ALL IMMEDIATE;
            SELECT format('plain %s child %s twice %s parted %s [%s %s]', (SELECT array_agg(p ORDER BY p) FROM plain p),
                          (SELECT array_agg(p ORDER BY p) FROM "Other s"."Child's" p), (SELECT array_agg(p ORDER BY p) FROM twice p),
                          (SELECT array_agg(p ORDER BY p) FROM parted p), d.only_front, d.only_back) INTO told FROM differ() d;
            RAISE EXCEPTION USING ERRCODE = 'P0099';
        EXCEPTION WHEN SQLSTATE 'P0099' THEN
            RAISE INFO '%: %', statement, told;
        WHEN OTHERS THEN
            -- what a partition's part of a key is called differs by major
            RAISE INFO '%: % %', statement, SQLSTATE, regexp_replace(SQLERRM, '(on table "[^"]*_p?\d" violates foreign key constraint) ".*" on', '\1 ... on');
        END;
    END LOOP;
END $$;

SELECT * FROM fks ORDER BY 1, 2;
CALL works();
CREATE TABLE definitions AS SELECT * FROM fks;
SELECT migrate_ext.partition_by_hash('"In''s"', 'id', 3, migration => 'f');
CALL migrate_ext.run('f');
SELECT severity, object, problem FROM migrate_ext.preflight('f') WHERE severity = 'error' ORDER BY 2;
SELECT * FROM fks EXCEPT TABLE definitions ORDER BY 1, 2;
SELECT count(*) FROM fks JOIN definitions USING (child, conname, points_at, definition, valid, triggers);
CALL works();

CALL migrate_ext.finalize('f');
SELECT child, conname, definition, valid, triggers, comment FROM definitions EXCEPT SELECT child, conname, definition, valid, triggers, comment FROM fks;
SELECT child, conname, points_at, valid, triggers FROM fks EXCEPT SELECT child, conname, points_at, valid, triggers FROM definitions ORDER BY 1, 2;
CALL works();
-- one that comes and one that goes while swapped
ALTER TABLE twice DROP CONSTRAINT again;
CREATE TABLE late (ref integer REFERENCES "In's" ON DELETE CASCADE);
INSERT INTO late VALUES (9);
-- and one that can't point at the original
CREATE TABLE hopeless (a integer, code text, FOREIGN KEY (a, code) REFERENCES "In's" (id, code));
ALTER TABLE "In's" ADD UNIQUE (id, v);
CREATE TABLE hopeless_2 (a integer, v integer, FOREIGN KEY (a, v) REFERENCES "In's" (id, v));
SELECT * FROM migrate_ext.preflight('f') WHERE severity = 'error' ORDER BY 2;
CALL migrate_ext.undo('f');
DROP TABLE hopeless;
CALL migrate_ext.undo('f', options => '{"incoming_fks": "drop"}');
SELECT message FROM migrate_ext.events WHERE kind = 'foreign_key_dropped';
SELECT * FROM definitions EXCEPT SELECT * FROM fks;
SELECT count(*) FROM fks WHERE points_at = '"In''s"'::regclass AND triggers <> 'O';
DELETE FROM "In's" WHERE id = 9;
TABLE late;
ALTER TABLE twice ADD CONSTRAINT again FOREIGN KEY (ref) REFERENCES "In's";
CALL works();

CALL migrate_ext.finalize('f');
SELECT child, conname, definition, valid, triggers, comment FROM definitions EXCEPT SELECT child, conname, definition, valid, triggers, comment FROM fks;
CALL works();
CALL migrate_ext.complete('f', true);
SELECT child, conname, definition, valid, triggers, comment FROM definitions EXCEPT SELECT child, conname, definition, valid, triggers, comment FROM fks;
SELECT conname FROM fks EXCEPT SELECT conname FROM definitions;
DELETE FROM "In's" WHERE id IN (1, 3);
TABLE plain;
TABLE parted;
SELECT migrate_ext.forget('f');
DROP TABLE plain, "Other s"."Child's", twice, parted, late, hopeless_2, definitions, "In's" CASCADE;
DROP FUNCTION differ();
DROP PROCEDURE works();
DROP SCHEMA "Other s";

-- what can't point at the partitioned table stays on the original, and is enforced there
CREATE TABLE r (id integer PRIMARY KEY, k integer NOT NULL);
INSERT INTO r SELECT i, i FROM generate_series(1, 9) i;
CREATE TABLE rc (ref integer CONSTRAINT cascades REFERENCES r ON DELETE CASCADE, other integer CONSTRAINT restricts REFERENCES r);
INSERT INTO rc VALUES (1, NULL), (NULL, 2);
CREATE VIEW fks AS
    SELECT k.conname, k.confrelid::regclass AS points_at, k.convalidated AS valid,
           (SELECT string_agg(DISTINCT enabled::text, '') FROM migrate_ext.fk_in_triggers(k.oid) x) AS triggers
    FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = 'rc'::regclass AND k.conparentid = 0;
SELECT migrate_ext.partition_by_range('r', 'k', 10, 0, 20, 0);
SELECT * FROM migrate_ext.preflight('r') WHERE object LIKE '%rc%' ORDER BY object;
CALL migrate_ext.run('r');
CALL migrate_ext.finalize('r');
TABLE fks ORDER BY 1;
INSERT INTO rc VALUES (99, NULL);
DELETE FROM r WHERE id = 2;
DELETE FROM r WHERE id = 1;
TABLE rc;
CALL migrate_ext.complete('r');
CALL migrate_ext.undo('r');
TABLE fks ORDER BY 1;
ALTER TABLE rc DROP CONSTRAINT restricts;
CALL migrate_ext.finalize('r', options => '{"incoming_fks": "drop"}');
TABLE fks ORDER BY 1;
SELECT message FROM migrate_ext.events WHERE migration = 'r' AND kind = 'foreign_key_dropped';
CALL migrate_ext.complete('r', true);
SELECT migrate_ext.forget('r');

-- what could is kept where it is, if asked for
ALTER TABLE r ADD UNIQUE (id, k);
DROP TABLE rc CASCADE;
CREATE TABLE h (id integer PRIMARY KEY, v integer);
INSERT INTO h SELECT generate_series(1, 9);
CREATE TABLE rc (ref integer CONSTRAINT cascades REFERENCES h ON DELETE CASCADE);
INSERT INTO rc VALUES (1), (2), (3);
CREATE VIEW fks AS
    SELECT k.conname, k.confrelid::regclass AS points_at, k.convalidated AS valid,
           (SELECT string_agg(DISTINCT enabled::text, '') FROM migrate_ext.fk_in_triggers(k.oid) x) AS triggers
    FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = 'rc'::regclass AND k.conparentid = 0;
SELECT migrate_ext.partition_by_hash('h', 'id', 2);
CALL migrate_ext.run('h');
CALL migrate_ext.finalize('h', options => '{"incoming_fks": "keep"}');
TABLE fks ORDER BY 1;
INSERT INTO rc VALUES (99);
DELETE FROM h WHERE id = 1;
TABLE rc;
CALL migrate_ext.undo('h');
TABLE fks ORDER BY 1;
DELETE FROM h WHERE id = 2;
TABLE rc;
-- the one that sleeps goes with the target
CALL migrate_ext.cancel('h');
TABLE fks;
SELECT migrate_ext.forget('h');

-- a target of one's own, with a key of one's own: it is left as it was
CREATE TABLE h2 (LIKE h, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE h2_0 PARTITION OF h2 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO h2 TABLE h;
ALTER TABLE rc ADD CONSTRAINT mine FOREIGN KEY (ref) REFERENCES h2 ON DELETE CASCADE;
SELECT migrate_ext.create_migration('h', 'h2');
CALL migrate_ext.run('h');
CALL migrate_ext.finalize('h');
TABLE fks ORDER BY 1;
CALL migrate_ext.undo('h');
TABLE fks ORDER BY 1;
CALL migrate_ext.cancel('h');
TABLE fks ORDER BY 1;
SELECT migrate_ext.forget('h');

-- whose owner the table's owner is not: it stays as well, and so does one of a table that is moved itself
CREATE ROLE carry_owner;
CREATE ROLE carry_other;
GRANT CREATE ON SCHEMA public TO carry_owner, carry_other;
ALTER TABLE h OWNER TO carry_owner;
GRANT REFERENCES ON h TO carry_other;
SET ROLE carry_other;
CREATE TABLE foreign_c (ref integer CONSTRAINT fk REFERENCES h);
RESET ROLE;
CREATE TABLE moved (id integer PRIMARY KEY, ref integer REFERENCES h);
SELECT migrate_ext.partition_by_hash('h', 'id', 2);
SELECT migrate_ext.partition_by_hash('moved', 'id', 2);
SELECT object, problem, remedy FROM migrate_ext.preflight('h') WHERE object LIKE 'constraint%' ORDER BY 1, 2;
CALL migrate_ext.cancel('moved');
GRANT carry_other TO carry_owner;
SELECT object, problem, remedy FROM migrate_ext.preflight('h') WHERE object LIKE 'constraint%' ORDER BY 1, 2;
CALL migrate_ext.run('h');
CALL migrate_ext.finalize('h');
SELECT conname, confrelid::regclass, convalidated FROM pg_constraint WHERE conrelid = 'foreign_c'::regclass AND conparentid = 0 ORDER BY 1;
DROP TABLE moved, rc CASCADE;
CALL migrate_ext.complete('h', true);
SELECT conname, confrelid::regclass, convalidated FROM pg_constraint WHERE conrelid = 'foreign_c'::regclass AND conparentid = 0 ORDER BY 1;
SELECT migrate_ext.forget('h'), migrate_ext.forget('moved');
DROP TABLE foreign_c, r, h, h2 CASCADE;
REVOKE CREATE ON SCHEMA public FROM carry_owner, carry_other;
DROP ROLE carry_owner, carry_other;
