-- What stands in the way of a swap: one object of each kind that is refused. finalize names it, and
-- goes when it is gone.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE ROLE preflight_reader;
CREATE ROLE preflight_owner;
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE pre (id integer PRIMARY KEY, k integer NOT NULL, v text, day date, UNIQUE (k, v), UNIQUE (v));
INSERT INTO parent SELECT generate_series(1, 10);
INSERT INTO pre SELECT i, i % 3, 'v' || i, '2024-01-01'::date + i FROM generate_series(1, 10) i;
CREATE UNIQUE INDEX pre_lower ON pre (lower(v));

-- errors, by what they are about
CREATE FUNCTION pg_temp.errors() RETURNS TABLE (object text, problem text, remedy text) LANGUAGE sql AS
    $$ SELECT object, problem, remedy FROM migrate_ext.preflight('pre') WHERE severity = 'error' ORDER BY 1, 2 $$;

SELECT migrate_ext.partition_by_list('pre', 'k', options => '{"groups": {"few": [0, 1]}}');
SELECT * FROM migrate_ext.preflight('pre');
CALL migrate_ext.run('pre');
-- told in words; nothing wrong yet but unique keys, and rows in the default partition
SELECT * FROM migrate_ext.preflight('pre');

CREATE TABLE child (id integer PRIMARY KEY REFERENCES pre);
SELECT * FROM pg_temp.errors();
DROP TABLE child;
ALTER TABLE pre ADD CONSTRAINT out_fk FOREIGN KEY (id) REFERENCES parent;
SELECT * FROM pg_temp.errors();
ALTER TABLE pre DROP CONSTRAINT out_fk, ADD CONSTRAINT self_fk FOREIGN KEY (k) REFERENCES pre (id) NOT VALID;
SELECT * FROM pg_temp.errors();
ALTER TABLE pre DROP CONSTRAINT self_fk;
CREATE VIEW pre_view AS SELECT id, v FROM pre;
CREATE MATERIALIZED VIEW pre_mat AS SELECT count(*) FROM pre;
SELECT * FROM pg_temp.errors();
DROP VIEW pre_view;
DROP MATERIALIZED VIEW pre_mat;
CREATE RULE pre_rule AS ON DELETE TO pre WHERE OLD.id < 0 DO INSTEAD NOTHING;
SELECT * FROM pg_temp.errors();
DROP RULE pre_rule ON pre;
CREATE FUNCTION pre_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "User's" BEFORE INSERT ON pre FOR EACH ROW EXECUTE FUNCTION pre_trigger();
CREATE TRIGGER off AFTER UPDATE ON pre EXECUTE FUNCTION pre_trigger();
ALTER TABLE pre DISABLE TRIGGER off;
SELECT * FROM pg_temp.errors();
DROP TRIGGER "User's" ON pre;
DROP TRIGGER off ON pre;
DROP FUNCTION pre_trigger();
CREATE PUBLICATION pre_pub FOR TABLE pre (id, v);
SELECT * FROM pg_temp.errors();
DROP PUBLICATION pre_pub;
CREATE PUBLICATION pre_all FOR ALL TABLES;
CREATE PUBLICATION pre_schema FOR TABLES IN SCHEMA public;
SELECT * FROM pg_temp.errors();
DROP PUBLICATION pre_all;
DROP PUBLICATION pre_schema;
ALTER TABLE pre ADD CONSTRAINT pre_excl EXCLUDE USING btree (id WITH =);
SELECT * FROM pg_temp.errors();
ALTER TABLE pre DROP CONSTRAINT pre_excl;
CREATE FUNCTION of_row(pre) RETURNS integer LANGUAGE sql AS 'SELECT $1.id';
CREATE FUNCTION rows_of() RETURNS SETOF pre LANGUAGE sql AS 'SELECT * FROM pre';
CREATE FUNCTION body() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM pre; END;
CREATE TABLE holds (id integer, one pre, many pre[]);
CREATE DOMAIN pre_domain AS pre;
CREATE TYPE has_pre AS (x integer, y pre);
SELECT * FROM pg_temp.errors();
DROP FUNCTION of_row(pre), rows_of(), body();
DROP TABLE holds;
DROP DOMAIN pre_domain;
DROP TYPE has_pre;
CREATE TABLE heir () INHERITS (pre);
SELECT * FROM pg_temp.errors();
DROP TABLE heir;
CREATE TABLE ancestor (v text);
ALTER TABLE pre INHERIT ancestor;
SELECT * FROM pg_temp.errors();
ALTER TABLE pre NO INHERIT ancestor;
DROP TABLE ancestor;
ALTER TABLE pre CLUSTER ON pre_pkey;
SELECT * FROM pg_temp.errors();
ALTER TABLE pre SET WITHOUT CLUSTER;
ALTER TABLE pre OWNER TO preflight_owner;
SELECT * FROM pg_temp.errors();
ALTER TABLE pre OWNER TO CURRENT_USER;
CREATE SCHEMA preflight_schema;
ALTER TABLE pre SET SCHEMA preflight_schema;
SELECT * FROM pg_temp.errors();
ALTER TABLE preflight_schema.pre SET SCHEMA public;
ALTER EXTENSION amcheck ADD TABLE pre;
SELECT * FROM pg_temp.errors();
ALTER EXTENSION amcheck DROP TABLE pre;
CREATE TABLE uses_default (id integer DEFAULT 1);
CREATE INDEX pre_late ON pre (day);
SELECT * FROM pg_temp.errors();
DROP INDEX pre_late;
SELECT * FROM pg_temp.errors();
DROP TABLE uses_default;

-- finalize refuses with MX003 and names them; what is in nobody's way isn't named
CREATE VIEW pre_view AS SELECT id, v FROM pre;
CREATE RULE pre_rule AS ON DELETE TO pre WHERE OLD.id < 0 DO INSTEAD NOTHING;
CREATE TABLE holds (id integer, one pre);
CREATE FUNCTION harmless() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM pre';
CREATE VIEW on_target AS SELECT count(*) FROM pre_new;
CREATE SEQUENCE pre_seq OWNED BY pre.k;
COMMENT ON TABLE pre IS 'with a comment';
CALL migrate_ext.finalize('pre');
\echo :LAST_ERROR_SQLSTATE
SELECT state, goal, last_error FROM migrate_ext.migrations WHERE migration = 'pre';
SELECT severity, object, problem FROM migrate_ext.preflight('pre');
-- the swap in one's own transaction, too
CALL migrate_ext.verify('pre');
SELECT migrate_ext.swap('pre');
DROP VIEW pre_view;
DROP RULE pre_rule ON pre;
DROP TABLE holds;
CALL migrate_ext.finalize('pre');
SELECT obj_description('pre'::regclass), pg_get_serial_sequence('pre', 'k');
SELECT * FROM on_target;

-- the way back looks at the partitioned table
CREATE VIEW pre_view AS SELECT id, v FROM pre;
CREATE TRIGGER t AFTER INSERT ON pre FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE holds (id integer, one pre);
SELECT * FROM pg_temp.errors();
CALL migrate_ext.undo('pre');
\echo :LAST_ERROR_SQLSTATE
DROP VIEW pre_view, on_target;
DROP TRIGGER t ON pre;
DROP TABLE holds;
CALL migrate_ext.undo('pre');

-- warnings and infos
BEGIN;
UPDATE pre SET v = 'prepared' WHERE id = 1;
PREPARE TRANSACTION 'preflight';
SELECT severity, object, problem, remedy FROM migrate_ext.preflight('pre') WHERE object LIKE 'prepared%';
\set VERBOSITY terse
CALL migrate_ext.finalize('pre', '1 second');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE
COMMIT PREPARED 'preflight';
CALL migrate_ext.finalize('pre');
SELECT * FROM migrate_ext.preflight('pre');
CALL migrate_ext.complete('pre', drop_original => true);
-- nothing of one that is finished
SELECT * FROM migrate_ext.preflight('pre');
SELECT * FROM migrate_ext.preflight('nosuch');
SELECT * FROM migrate_ext.preflight(NULL);
SET ROLE preflight_reader;
SELECT * FROM migrate_ext.preflight('pre');
RESET ROLE;
SELECT migrate_ext.forget('pre');
-- a pause is in the way, too
CREATE TABLE paused (id integer PRIMARY KEY);
SELECT migrate_ext.partition_by_hash('paused', 'id', 1);
SELECT migrate_ext.pause('paused', 'a word');
SELECT * FROM migrate_ext.preflight('paused');
CALL migrate_ext.cancel('paused');
SELECT migrate_ext.forget('paused');
DROP TABLE paused;
DROP FUNCTION harmless();
DROP TABLE pre, parent;
DROP SCHEMA preflight_schema;
DROP ROLE preflight_reader, preflight_owner;
