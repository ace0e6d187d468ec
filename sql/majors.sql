-- What PostgreSQL has since some major: carried over, or refused before anything starts. A result file for each of them.
SELECT current_setting('server_version_num')::integer >= 170000 AS since_17, current_setting('server_version_num')::integer >= 180000 AS since_18 \gset
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE majors_reader;

-- identity columns: since 17 the partitions have them too
CREATE TABLE numbered (id integer GENERATED ALWAYS AS IDENTITY, k integer NOT NULL, PRIMARY KEY (id, k));
INSERT INTO numbered (k) VALUES (1), (2);
SELECT migrate_ext.partition_by_list('numbered', 'k', options => '{"groups": {"all": [1, 2]}}');
CALL migrate_ext.run('numbered');
CREATE FUNCTION pg_temp.identity() RETURNS TABLE (relation name, identity "char") LANGUAGE sql AS $$
    SELECT relname, attidentity FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE relkind IN ('r', 'p') AND relname ~ '^numbered' AND attname = 'id' ORDER BY 1
$$;
CALL migrate_ext.finalize('numbered');
SELECT * FROM pg_temp.identity();
INSERT INTO numbered (k) VALUES (1) RETURNING id;
\if :since_17
INSERT INTO numbered_p_all (k) VALUES (2) RETURNING id;
\endif
BEGIN;
ALTER TABLE numbered ALTER id DROP IDENTITY;
SELECT * FROM pg_temp.identity();
ROLLBACK;
CALL migrate_ext.undo('numbered');
SELECT * FROM pg_temp.identity();
INSERT INTO numbered (k) VALUES (1) RETURNING id > 3 AS goes_on;
CALL migrate_ext.cancel('numbered');
DROP TABLE numbered;

-- privileges
CREATE TABLE maintained (id integer PRIMARY KEY);
SELECT migrate_ext.partition_by_hash('maintained', 'id', 2);
\if :since_17
GRANT MAINTAIN ON maintained TO majors_reader WITH GRANT OPTION;
\endif
CALL migrate_ext.run('maintained');
CALL migrate_ext.finalize('maintained');
SELECT privilege_type, is_grantable FROM pg_class, aclexplode(relacl) WHERE oid = 'maintained'::regclass AND grantee = 'majors_reader'::regrole;
CALL migrate_ext.complete('maintained', drop_original => true);
DROP TABLE maintained;

\if :since_18
-- names and comments of NOT NULL
CREATE TABLE named (id integer CONSTRAINT never_null NOT NULL, k integer, v text, CONSTRAINT key PRIMARY KEY (id),
    CONSTRAINT told CHECK (k < 3) NOT ENFORCED);
INSERT INTO named VALUES (1, 7, 'x');
COMMENT ON CONSTRAINT never_null ON named IS 'never';
SELECT migrate_ext.partition_by_hash('named', 'id', 2);
CALL migrate_ext.run('named');
ALTER TABLE named ADD CONSTRAINT late CHECK (k < 2) NOT ENFORCED;
COMMENT ON CONSTRAINT never_null ON named IS 'never again';
SELECT * FROM migrate_ext.preflight('named') WHERE severity = 'error';
CALL migrate_ext.finalize('named');
SELECT conrelid::regclass, conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint') FROM pg_constraint
WHERE conrelid::regclass::text ~ '^named' ORDER BY conrelid::regclass::text COLLATE "C", conname COLLATE "C";
INSERT INTO named VALUES (2, 8, 'y');
CALL migrate_ext.verify('named');
CALL migrate_ext.undo('named');
TABLE named ORDER BY id;
CALL migrate_ext.cancel('named');
DROP TABLE named;
-- a key that may be NULL, and whose constraint's name is taken
CREATE TABLE nullable (id integer PRIMARY KEY, k integer, CONSTRAINT nullable_k_not_null CHECK (k > 0));
SELECT migrate_ext.partition_by_list('nullable', 'k', options => '{"groups": {"all": [1]}}');
CALL migrate_ext.run('nullable');
CALL migrate_ext.finalize('nullable');
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'nullable'::regclass ORDER BY conname COLLATE "C";
CALL migrate_ext.undo('nullable');
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'nullable'::regclass ORDER BY conname COLLATE "C";
CALL migrate_ext.cancel('nullable');
DROP TABLE nullable;

-- what is refused at once
CREATE TABLE refused (id integer PRIMARY KEY, k integer NOT NULL, double integer GENERATED ALWAYS AS (k * 2) VIRTUAL);
SELECT migrate_ext.partition_by_hash('refused', 'id', 2);
ALTER TABLE refused DROP double, ADD v text;
ALTER TABLE refused ADD CONSTRAINT v_known NOT NULL v NOT VALID;
SELECT migrate_ext.partition_by_hash('refused', 'id', 2);
ALTER TABLE refused DROP CONSTRAINT v_known, DROP CONSTRAINT refused_pkey, ADD PRIMARY KEY (id) DEFERRABLE;
SELECT migrate_ext.partition_by_hash('refused', 'id', 2);
ALTER TABLE refused DROP CONSTRAINT refused_pkey, ADD during tsrange NOT NULL, ADD room int4range, ADD PRIMARY KEY (room, during WITHOUT OVERLAPS);
SELECT migrate_ext.partition_by_hash('refused', 'k', 2);

-- and what comes later
ALTER TABLE refused DROP CONSTRAINT refused_pkey, ADD PRIMARY KEY (id);
CREATE TABLE others (id integer PRIMARY KEY, room int4range, during tsrange, UNIQUE (room, during WITHOUT OVERLAPS));
SELECT migrate_ext.partition_by_hash('refused', 'id', 2);
CALL migrate_ext.run('refused');
ALTER TABLE refused ADD CONSTRAINT not_enforced FOREIGN KEY (k) REFERENCES others NOT ENFORCED;
ALTER TABLE refused ADD CONSTRAINT period FOREIGN KEY (room, PERIOD during) REFERENCES others (room, PERIOD during);
ALTER TABLE refused ADD CONSTRAINT not_apart UNIQUE (room, during WITHOUT OVERLAPS);
ALTER TABLE refused ADD CONSTRAINT v_known NOT NULL v NOT VALID;
ALTER TABLE refused ADD double integer GENERATED ALWAYS AS (k * 2) VIRTUAL;
SELECT object, problem, remedy FROM migrate_ext.preflight('refused') WHERE severity = 'error' ORDER BY object COLLATE "C", problem COLLATE "C";
CALL migrate_ext.finalize('refused', '1 s');
INSERT INTO refused (id, k, during, room, v) VALUES (1, 1, 'empty', 'empty', NULL);
INSERT INTO refused (id, k, during, room, v) VALUES (1, 1, '[2024-01-01,2024-01-02)', '[1,2)', '');
SELECT migrate_ext.replace_sync('refused');
CALL migrate_ext.cancel('refused');
DROP TABLE refused, others;
\endif
DO $$ BEGIN PERFORM migrate_ext.forget(migration) FROM migrate_ext.migrations WHERE state IN ('completed', 'cancelled'); END $$;
DROP ROLE majors_reader;
