-- replace_sync: target and trigger follow what ALTER TABLE did, in one transaction with it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
CREATE SCHEMA replace_sync;
SET search_path = replace_sync;
CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b varchar(5), "odd ""name" int);
INSERT INTO t SELECT i, i, 'b' || i, i FROM generate_series(1, 100) i;
SELECT migrate_ext.partition_by_hash('t', 'id', 2);
CREATE FUNCTION shape(OUT attname name, OUT type text, OUT nn boolean, OUT gen "char", OUT "default" text) RETURNS SETOF record
LANGUAGE sql AS $$
    SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS nn, a.attgenerated AS gen,
           pg_get_expr(d.adbin, d.adrelid) AS "default"
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = 't_new'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
$$;
CREATE FUNCTION differing() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint; columns text;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) INTO columns FROM pg_attribute
    WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped;
    EXECUTE format('SELECT count(*) FROM ((SELECT %1$s FROM t EXCEPT ALL SELECT %1$s FROM t_new)
        UNION ALL (SELECT %1$s FROM t_new EXCEPT ALL SELECT %1$s FROM t)) d', columns) INTO n;
    RETURN n;
END $$;

-- created: the target gets the column, no trigger comes
BEGIN;
ALTER TABLE t ADD COLUMN c1 text DEFAULT 'const' NOT NULL;
SELECT migrate_ext.replace_sync('t');
COMMIT;
SELECT * FROM shape();
SELECT state, goal FROM migrate_ext.migrations WHERE migration = 't';
-- logging
CALL migrate_ext.run('t', 'logging');
BEGIN;
UPDATE t SET a = -1 WHERE id = 1;
ALTER TABLE t ADD COLUMN c2 int DEFAULT 7;
UPDATE t SET c2 = 8 WHERE id = 2;
SELECT migrate_ext.replace_sync('t');
UPDATE t SET c2 = 9 WHERE id = 3;
COMMIT;
CALL migrate_ext.run('t');
SELECT differing(), (SELECT count(*) FROM t_new WHERE c2 = 7);
-- live: added with a constant, a volatile and no default, generated; renamed, retyped, dropped
BEGIN;
ALTER TABLE t ADD COLUMN c3 int NOT NULL DEFAULT 3, ADD COLUMN c4 float8 NOT NULL DEFAULT random(), ADD COLUMN c5 int,
    ADD COLUMN c6 int GENERATED ALWAYS AS (a * 2) STORED, ALTER COLUMN b TYPE varchar(50), DROP COLUMN c1, ALTER a DROP NOT NULL;
ALTER TABLE t RENAME COLUMN "odd ""name" TO "Odder ""name";
ALTER TABLE t ALTER COLUMN c3 SET DEFAULT 33;
INSERT INTO t (id, c5, b) VALUES (200, 5, 'a longer text than was allowed');
SELECT migrate_ext.replace_sync('t');
UPDATE t SET c5 = 6 WHERE id = 4;
COMMIT;
SELECT * FROM shape();
CALL migrate_ext.finalize('t', '30 seconds');
SELECT relkind FROM pg_class WHERE oid = 't'::regclass;
-- swapped: the original follows
BEGIN;
ALTER TABLE t ADD COLUMN c7 text DEFAULT 'seven';
UPDATE t SET c7 = '7' WHERE id = 5;
SELECT migrate_ext.replace_sync('t');
UPDATE t SET c7 = 'VII' WHERE id = 6;
COMMIT;
CALL migrate_ext.undo('t', '30 seconds');
SELECT relkind FROM pg_class WHERE oid = 't'::regclass;
SELECT differing(), (SELECT array_agg(c7 ORDER BY id) FROM t WHERE id IN (4, 5, 6));
CALL migrate_ext.verify('t');

-- ALTER TABLE came alone, and writes since: the migration is paused by its leader; this mends it
SELECT migrate_ext.start('t');
ALTER TABLE t ADD COLUMN late int;
UPDATE t SET late = id WHERE id <= 10;
SELECT helper.wait_until($$SELECT paused FROM migrate_ext.migrations WHERE migration = 't'$$);
CALL migrate_ext.verify('t');
SELECT migrate_ext.replace_sync('t');
SELECT paused FROM migrate_ext.migrations WHERE migration = 't';
CALL migrate_ext.finalize('t', '30 seconds');
CALL migrate_ext.undo('t', '30 seconds');
SELECT differing(), (SELECT count(*) FROM t_new WHERE late = id);

-- nothing changes with an error
ALTER TABLE t ALTER COLUMN id TYPE bigint;
SELECT migrate_ext.replace_sync('t');
-- not while the leader is about to pause for it: that would come after resume
SELECT helper.wait_until($$SELECT paused FROM migrate_ext.migrations WHERE migration = 't'$$);
ALTER TABLE t ALTER COLUMN id TYPE int;
SELECT migrate_ext.resume('t');
SELECT migrate_ext.replace_sync('nosuch');
SELECT migrate_ext.replace_sync(NULL);
CREATE ROLE regress_replace;
GRANT USAGE ON SCHEMA replace_sync TO regress_replace;
SET ROLE regress_replace;
SELECT migrate_ext.replace_sync('t');
RESET ROLE;
DROP OWNED BY regress_replace;
DROP ROLE regress_replace;
CALL migrate_ext.finalize('t', '30 seconds');
CALL migrate_ext.complete('t', true);
SELECT migrate_ext.replace_sync('t');
SELECT migrate_ext.forget('t');
-- the sharding key gets another value to be derived from
CREATE TABLE p (id int PRIMARY KEY, k int NOT NULL, k2 int NOT NULL);
INSERT INTO p SELECT i, i % 2, i % 3 FROM generate_series(1, 20) i;
CREATE TABLE c (id int PRIMARY KEY, p int NOT NULL);
INSERT INTO c SELECT i, i % 20 + 1 FROM generate_series(1, 200) i;
SELECT migrate_ext.add_sharding_key('c', 'k', 'int', '(SELECT p.k FROM p WHERE p.id = s.p)', fill => false);
SELECT migrate_ext.partition_by_hash('c', 'k', 4);
CALL migrate_ext.run('c');
SELECT count(*) FILTER (WHERE n.k = p.k) AS by_k, count(*) FILTER (WHERE n.k = p.k2) AS by_k2 FROM c_new n JOIN p ON p.id = n.p;
-- (not by dropping it: the change log has it)
BEGIN;
ALTER TABLE c DROP COLUMN k;
SELECT migrate_ext.add_sharding_key('c', 'k', 'int', '(SELECT p.k2 FROM p WHERE p.id = s.p)', fill => false);
SELECT migrate_ext.replace_sync('c');
ROLLBACK;
-- a key that comes while the table is migrated
BEGIN;
SET LOCAL client_min_messages = notice;
SELECT migrate_ext.add_sharding_key('c', 'k3', 'int', 's.id');
SELECT migrate_ext.replace_sync('c');
COMMIT;
UPDATE c SET p = p WHERE id = 3;
SELECT id, k3 FROM c_new WHERE id IN (3, 4);
UPDATE migrate_ext.sharding_key SET value = replace(value, 'p.k ', 'p.k2 ') WHERE relation = 'c'::regclass;
SELECT migrate_ext.replace_sync('c');
CALL migrate_ext.run('c', 'live');
CALL migrate_ext.finalize('c', '30 seconds');
SELECT count(*) FILTER (WHERE n.k = p.k) AS by_k, count(*) FILTER (WHERE n.k = p.k2) AS by_k2 FROM c n JOIN p ON p.id = n.p;
CALL migrate_ext.complete('c');
-- the name of a type is no statement
SET client_min_messages = error;
CREATE ROLE mallory;
GRANT USAGE, CREATE ON SCHEMA replace_sync TO mallory;
SET SESSION AUTHORIZATION mallory;
SET search_path = replace_sync;
CREATE TABLE own (id int PRIMARY KEY, k int NOT NULL);
SELECT migrate_ext.partition_by_hash('own', 'k', 2);
CREATE FUNCTION evil() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE mallory SUPERUSER; END IF;
	RETURN ''' || replace_sync.evil() || ''';
END $$;
CREATE TYPE "a' || replace_sync.evil() || '" AS ENUM ('x');
ALTER TABLE own ADD COLUMN c "a' || replace_sync.evil() || '" DEFAULT 'x';
SELECT migrate_ext.replace_sync('own');
SELECT a.atttypid::regtype, r.rolsuper FROM pg_attribute a, pg_roles r
WHERE a.attrelid = 'own_new'::regclass AND a.attname = 'c' AND r.rolname = 'mallory';
CALL migrate_ext.cancel('own');
RESET SESSION AUTHORIZATION;
SELECT count(migrate_ext.forget(migration)::text) > 0 FROM migrate_ext.migrations WHERE state IN ('completed', 'cancelled');
DROP SCHEMA replace_sync CASCADE;
DROP ROLE mallory;
