-- What a session's settings, and functions of the owner's that change them, must not do.
SET client_min_messages = warning;
SET timezone = 'UTC';

-- A day computed from an instant is the same whatever the writer's time zone, before and after.
CREATE TABLE zone (id int PRIMARY KEY, at timestamptz NOT NULL, day date);
INSERT INTO zone SELECT i, timestamptz '2024-01-01 00:30+00' + i * interval '1 day' FROM generate_series(1, 4) i;
CREATE TABLE zone_new (id int NOT NULL, at timestamptz NOT NULL, day date NOT NULL) PARTITION BY RANGE (day);
CREATE TABLE zone_p0 PARTITION OF zone_new FOR VALUES FROM ('2024-01-01') TO ('2024-01-04');
CREATE TABLE zone_p1 PARTITION OF zone_new FOR VALUES FROM ('2024-01-04') TO ('2024-02-01');
SELECT migrate_ext.create_migration('zone', 'zone_new',
    options => '{"columns": {"day": "s.at::date"}, "reverse_columns": {"day": "s.day"}}');
SET timezone = 'Asia/Tokyo';
CALL migrate_ext.run('zone');
SET timezone = 'America/New_York';
UPDATE zone SET id = 30 WHERE id = 3;
INSERT INTO zone VALUES (5, '2024-01-09 00:30+00');
SET timezone = 'UTC';
UPDATE zone SET at = at + interval '1 hour' WHERE id IN (2, 30);
SELECT tableoid::regclass, * FROM zone_new ORDER BY id;
SHOW timezone;
SET client_min_messages = notice;
CALL migrate_ext.verify('zone');
SET client_min_messages = warning;
CALL migrate_ext.cancel('zone');
SELECT migrate_ext.forget('zone');
DROP TABLE zone, zone_new;

-- Nor is how a value is written as text the writer's to choose, nor how a derived key's own text is read.
CREATE TABLE spelled (id int PRIMARY KEY, raw bytea NOT NULL, words text);
INSERT INTO spelled VALUES (1, '\x6100', NULL);
CREATE TABLE spelled_new (id int NOT NULL, raw bytea NOT NULL, words text NOT NULL) PARTITION BY HASH (id);
CREATE TABLE spelled_p0 PARTITION OF spelled_new FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT migrate_ext.create_migration('spelled', 'spelled_new',
    options => '{"columns": {"words": "s.raw::text"}, "reverse_columns": {"words": "s.words"}}');
CREATE TABLE looked (id int PRIMARY KEY);
INSERT INTO looked VALUES (1);
SELECT migrate_ext.add_sharding_key('looked', 'k', 'text', $$(SELECT 'a\x41' || s.id)$$, fill => false);
SELECT migrate_ext.partition_by_hash('looked', 'k', 1);
CALL migrate_ext.run('spelled');
CALL migrate_ext.run('looked');
\c -
SET client_min_messages = error;
SET bytea_output = 'escape';
SET standard_conforming_strings = off;
INSERT INTO spelled VALUES (2, E'a\\000');
INSERT INTO looked VALUES (2);
RESET standard_conforming_strings;
RESET bytea_output;
SET client_min_messages = warning;
SELECT id, words FROM spelled_new ORDER BY id;
SELECT id, k FROM looked_new ORDER BY id;
SET client_min_messages = notice;
CALL migrate_ext.verify('spelled');
CALL migrate_ext.verify('looked');
SET client_min_messages = warning;
CALL migrate_ext.cancel('spelled');
CALL migrate_ext.cancel('looked');
SELECT migrate_ext.forget('spelled'), migrate_ext.forget('looked');
DROP TABLE spelled, spelled_new, looked;
SET timezone = 'UTC';

-- An owner's function sets what the superuser's session would go on with.
CREATE ROLE regress_setter;
CREATE SCHEMA setter AUTHORIZATION regress_setter;
SET ROLE regress_setter;
CREATE FUNCTION setter.f(x int) RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM set_config('search_path', 'setter, pg_catalog', false);
    RETURN x;
END $$;
CREATE TABLE setter.t (id int PRIMARY KEY, k int NOT NULL, v int);
INSERT INTO setter.t SELECT i, i, i FROM generate_series(1, 19) i;
CREATE TABLE setter.t_new (id int NOT NULL, k int NOT NULL, v int) PARTITION BY RANGE (k);
CREATE TABLE setter.t_p0 PARTITION OF setter.t_new FOR VALUES FROM (0) TO (10);
CREATE TABLE setter.t_p1 PARTITION OF setter.t_new FOR VALUES FROM (10) TO (20);
SELECT migrate_ext.create_migration('setter.t', 'setter.t_new', 'setter',
    '{"columns": {"v": "setter.f(s.v)"}}');
RESET ROLE;
CALL migrate_ext.run('setter');
SHOW search_path;
UPDATE setter.t SET v = 100 WHERE id = 1;
SHOW search_path;
CALL migrate_ext.verify('setter');
SHOW search_path;
CALL migrate_ext.cancel('setter');
SELECT migrate_ext.forget('setter');
DROP SCHEMA setter CASCADE;
DROP ROLE regress_setter;

-- Names of a row that differ and are equal: the row keeps its place, or moves, but isn't doubled.
CREATE TABLE equal (id numeric PRIMARY KEY, k int NOT NULL);
INSERT INTO equal VALUES (1.0, 1), (2.0, 12), (3.0, 3);
SELECT migrate_ext.partition_by_range('equal', 'k', 10, 0, 20, 0);
CALL migrate_ext.run('equal', 'logging');
UPDATE equal SET id = 3.00, k = 13 WHERE id = 3;
CALL migrate_ext.run('equal');
UPDATE equal SET id = 1.00 WHERE id = 1;
UPDATE equal SET id = 2.00, k = 2 WHERE id = 2;
SELECT tableoid::regclass, * FROM equal_new ORDER BY id;
CALL migrate_ext.finalize('equal');
UPDATE equal SET id = 1.000 WHERE id = 1;
UPDATE equal SET id = 2.000, k = 12 WHERE id = 2;
SELECT * FROM equal_orig ORDER BY id;
CALL migrate_ext.undo('equal');
SELECT * FROM equal ORDER BY id;
CALL migrate_ext.cancel('equal');
SELECT migrate_ext.forget('equal');
DROP TABLE equal;

-- After the swap: a row that could not be carried back is drained later, and the original has a
-- deferred foreign key.
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE late (id int PRIMARY KEY, k int NOT NULL, parent int, note text);
INSERT INTO late VALUES (1, 1, NULL, 'a'), (2, 12, 1, 'b');
SELECT migrate_ext.partition_by_range('late', 'k', 10, 0, 20, 0);
CALL migrate_ext.run('late');
CALL migrate_ext.finalize('late');
ALTER TABLE late_orig ADD FOREIGN KEY (parent) REFERENCES parent DEFERRABLE INITIALLY DEFERRED,
    ADD CONSTRAINT note CHECK (note <> 'c');
INSERT INTO late VALUES (3, 3, 1, 'c');
ALTER TABLE late_orig DROP CONSTRAINT note;
CALL migrate_ext.undo('late', '20 s');
SELECT * FROM late ORDER BY id;
SELECT identity, message FROM migrate_ext.failed_rows WHERE migration = 'late';
CALL migrate_ext.cancel('late');
SELECT migrate_ext.forget('late');
DROP TABLE late, parent;

-- The key that names a row must have one order on both sides.
CREATE TABLE ordered (id text COLLATE "C" PRIMARY KEY, k int NOT NULL);
CREATE TABLE ordered_new (id text COLLATE "POSIX" NOT NULL, k int NOT NULL) PARTITION BY LIST (k);
CREATE TABLE ordered_p PARTITION OF ordered_new DEFAULT;
SELECT migrate_ext.create_migration('ordered', 'ordered_new');
DROP TABLE ordered, ordered_new;
