-- A target that has rows and indexes already: compared with the source and put right, not copied twice.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
CREATE SCHEMA adopt_filled;
SET search_path = adopt_filled;
CREATE TABLE t (id int NOT NULL, kind int NOT NULL, note text, PRIMARY KEY (id));
CREATE INDEX t_note ON t (note);
INSERT INTO t SELECT i, i % 4, 'n' || i FROM generate_series(1, 1000) i;
CREATE TABLE t_parts (id int NOT NULL, kind int NOT NULL, note text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
CREATE TABLE t_parts_0 PARTITION OF t_parts FOR VALUES IN (0);
CREATE TABLE t_parts_1 PARTITION OF t_parts FOR VALUES IN (1);
CREATE TABLE t_parts_2 PARTITION OF t_parts FOR VALUES IN (2);
CREATE TABLE t_parts_3 PARTITION OF t_parts FOR VALUES IN (3);
CREATE INDEX t_parts_kind ON t_parts (kind);

-- a hand-written trigger fills it; the backfill by hand was given up half-way, and got some rows wrong
CREATE FUNCTION t_sync() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM adopt_filled.t_parts WHERE id = OLD.id;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE adopt_filled.t_parts SET kind = NEW.kind, note = NEW.note WHERE id = NEW.id;
    ELSE
        INSERT INTO adopt_filled.t_parts VALUES (NEW.*);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER t_sync AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION t_sync();
INSERT INTO t_parts SELECT * FROM t WHERE id <= 600;
UPDATE t_parts SET note = 'wrong' WHERE id IN (10, 20);
UPDATE t_parts SET kind = 3 WHERE id = 12;
INSERT INTO t_parts VALUES (13, 2, 'twice'), (5000, 0, 'extra'), (5001, 3, 'extra');
INSERT INTO t VALUES (1001, 1, 'by the trigger');
CREATE FUNCTION differing(OUT count bigint) RETURNS SETOF bigint LANGUAGE sql AS $$
    SELECT count(*) FROM (SELECT * FROM t EXCEPT ALL SELECT * FROM t_parts) a
    UNION ALL SELECT count(*) FROM (SELECT * FROM t_parts EXCEPT ALL SELECT * FROM t) b
$$;
SELECT * FROM differing();

SET client_min_messages = notice;
SELECT migrate_ext.create_migration('t', 't_parts');
SELECT migrate_ext.create_migration('t', 't_parts');
-- two triggers that write the same rows: refused as long as the other is there
SELECT migrate_ext.start('t');
SELECT migrate_ext.replace_sync('t', ARRAY['nosuch']);
SELECT migrate_ext.replace_sync('t', ARRAY['!migrate_ext_sync']);
SELECT migrate_ext.replace_sync('t', ARRAY['t_sync', NULL]);
SELECT migrate_ext.replace_sync('t', NULL);
SET client_min_messages = warning;
SELECT state, goal FROM migrate_ext.migrations WHERE migration = 't';
-- disabled in the lock in which ours comes
BEGIN;
SELECT migrate_ext.replace_sync('t', ARRAY['t_sync']);
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal ORDER BY tgname;
SELECT state, goal FROM migrate_ext.migrations WHERE migration = 't';
COMMIT;
SET client_min_messages = notice;
SELECT migrate_ext.replace_sync('t', ARRAY['t_sync']);
SET client_min_messages = warning;
-- what is written now is logged
UPDATE t SET note = 'logged', kind = 2 WHERE id = 700;
DELETE FROM t WHERE id = 30;
UPDATE t SET kind = 0 WHERE id = 31;
INSERT INTO t VALUES (1002, 3, 'logged');
-- how far comparing is
ANALYZE t;
BEGIN;
UPDATE migrate_ext.comparison SET compared = 250 WHERE migration = (SELECT id FROM migrate_ext.migration WHERE name = 't');
UPDATE migrate_ext.migration SET state = 'catching_up' WHERE name = 't';
SELECT bar, percent, rows_done, rows_total FROM migrate_ext.progress WHERE migration = 't';
ROLLBACK;
SELECT migrate_ext.start('t');
CALL migrate_ext.wait_for('t', 'live', '60 seconds');
CALL migrate_ext.verify('t');
SELECT * FROM differing();
SELECT migration, state, rows_done > 900 AS compared FROM migrate_ext.progress WHERE migration = 't';
SELECT kind, message FROM migrate_ext.events WHERE migration = 't' AND kind IN ('adopted', 'trigger_replaced', 'reconciled', 'indexes');
-- the hand-written trigger is dropped when nobody has to wait for it; there is one index of each kind
SELECT helper.wait_until($$SELECT NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 't_sync')$$);
SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal ORDER BY tgname;
SELECT indexrelid::regclass::text AS index FROM pg_index WHERE indrelid = 't_parts'::regclass ORDER BY 1;
SELECT missing, extra, different FROM migrate_ext.verifications WHERE migration = 't';
-- swapped, and back
INSERT INTO t VALUES (1003, 0, 'live');
CALL migrate_ext.finalize('t', '30 seconds');
SELECT relkind, (SELECT count(*) FROM t) FROM pg_class WHERE oid = 't'::regclass;
INSERT INTO t VALUES (1004, 1, 'swapped');
CALL migrate_ext.undo('t', '30 seconds');
SELECT relkind, (SELECT count(*) FROM t) FROM pg_class WHERE oid = 't'::regclass;
SELECT * FROM differing();
-- cancelled: the target is as it was given, but for its rows and the index that it didn't have
CALL migrate_ext.cancel('t');
SELECT indexrelid::regclass::text AS index FROM pg_index WHERE indrelid = 't_parts'::regclass ORDER BY 1;
SELECT count(*) FROM t_parts;
SELECT migrate_ext.forget('t');

-- cancelled before anything was built, and started over after a TRUNCATE: the given indexes stay
SELECT migrate_ext.create_migration('t', 't_parts');
CALL migrate_ext.cancel('t');
SELECT migrate_ext.create_migration('t', 't_parts');
CALL migrate_ext.run('t', 'logging');
TRUNCATE t;
INSERT INTO t VALUES (1, 1, 'after');
CALL migrate_ext.run('t');
TABLE t_parts;
SELECT indexrelid::regclass::text AS index FROM pg_index WHERE indrelid = 't_parts'::regclass ORDER BY 1;
CALL migrate_ext.cancel('t');
DROP TABLE t, t_parts;

-- empty, but with indexes; and its key is computed
CREATE TABLE e (id bigint PRIMARY KEY, at timestamptz NOT NULL);
INSERT INTO e SELECT i, '2024-01-01 UTC'::timestamptz + i * interval '1 day' FROM generate_series(0, 99) i;
CREATE TABLE e_parts (id bigint, at timestamptz NOT NULL, month int NOT NULL, PRIMARY KEY (id, month)) PARTITION BY LIST (month);
CREATE TABLE e_parts_other PARTITION OF e_parts DEFAULT;
CREATE TABLE e_parts_1 PARTITION OF e_parts FOR VALUES IN (1);
INSERT INTO e_parts SELECT id, at, 2 FROM e WHERE id < 5;
SELECT migrate_ext.create_migration('e', 'e_parts',
    options => '{"columns": {"month": "extract(month from s.at at time zone ''UTC'')::int"}}');
CALL migrate_ext.run('e');
CALL migrate_ext.verify('e');
SELECT checked_rows, missing, extra, different FROM migrate_ext.verifications WHERE migration = 'e';
SELECT tableoid::regclass, count(*) FROM e_parts GROUP BY 1 ORDER BY 1;
CALL migrate_ext.cancel('e');

-- a key that can't be compared in ranges is refused at once
CREATE TABLE c (id int PRIMARY KEY);
CREATE TABLE c_parts (id text PRIMARY KEY) PARTITION BY HASH (id);
CREATE TABLE c_parts_0 PARTITION OF c_parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT migrate_ext.create_migration('c', 'c_parts', options => '{"columns": {"id": "(s.id + 1)::text"}}');
SET client_min_messages = error;
SELECT count(migrate_ext.forget(migration)::text) > 0 FROM migrate_ext.migrations WHERE state IN ('completed', 'cancelled');
DROP SCHEMA adopt_filled CASCADE;
