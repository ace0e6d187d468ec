-- The leader keeps range partitions ahead of the greatest key, live and swapped.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS migrate_ext;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';

-- Wait for a partition that the leader is to make.
CREATE PROCEDURE await(partition text) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 600 LOOP
        IF to_regclass(partition) IS NOT NULL THEN
            RETURN;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.05);
    END LOOP;
    RAISE 'partition % was not made in time', partition;
END
$$;
CREATE VIEW partitions AS
    SELECT c.relname, pg_get_expr(relpartbound, c.oid) AS bound
    FROM migrate_ext.migration m, pg_partition_tree(m.target) t JOIN pg_class c ON c.oid = relid
    WHERE m.name = 'ahead' AND isleaf ORDER BY (relname ~ 'default'), relname;

-- what partitions have of the table, those too that come later; and nothing of default privileges
CREATE ROLE ahead_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO ahead_reader;
ALTER DEFAULT PRIVILEGES GRANT UPDATE ON TABLES TO PUBLIC;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE ahead_space LOCATION '';
CREATE VIEW parameters AS
    SELECT c.relname, c.reloptions, t.reloptions AS toast, s.spcname,
           (SELECT string_agg(a.grantee::regrole || ' ' || a.privilege_type, ', ') FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner) AS others
    FROM migrate_ext.migration m, pg_partition_tree(m.target) p JOIN pg_class c ON c.oid = p.relid
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
    WHERE m.name = 'ahead' ORDER BY p.level, c.relname ~ 'default', c.relname;

CREATE TABLE ahead (id integer PRIMARY KEY, at timestamptz NOT NULL, note text CHECK (note <> '')) WITH (fillfactor = 90) TABLESPACE ahead_space;
REVOKE ALL ON ahead FROM ahead_reader, PUBLIC;
CREATE INDEX ahead_note ON ahead (note);
INSERT INTO ahead VALUES (1, '2024-01-15'), (2, '2024-02-15');
SELECT migrate_ext.partition_by_range('ahead', 'at', '1 month', headroom => 2);
SELECT migrate_ext.start('ahead');
CALL migrate_ext.wait_for('ahead', 'live', '1 minute');
SELECT * FROM partitions;

SELECT * FROM parameters;
ALTER TABLE ahead SET (autovacuum_vacuum_scale_factor = 0.03, toast.autovacuum_enabled = off);

-- live: a row in the first of them makes it two again, a complete partition each
INSERT INTO ahead VALUES (3, '2024-03-31 23:59:59.999999');
CALL await('ahead_p2024_05');
SELECT * FROM partitions;
SELECT c.reloptions, i.indexrelid::regclass AS index FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
WHERE c.relname = 'ahead_p2024_05' ORDER BY 2;
SELECT tgname, tgenabled, tgparentid <> 0 AS inherited FROM pg_trigger WHERE tgrelid = 'ahead_p2024_05'::regclass ORDER BY 1;
SELECT conname, contype FROM pg_constraint WHERE conrelid = 'ahead_p2024_05'::regclass AND contype <> 'n' ORDER BY 1;
-- rows go there, and nobody takes it for tampering
INSERT INTO ahead VALUES (4, '2024-05-01', 'in a new one');
CALL await('ahead_p2024_07');
SELECT tableoid::regclass, * FROM ahead_new ORDER BY id;

SELECT * FROM parameters;

-- swapped: the same; a row in the default partition leaves out what it forbids
CALL migrate_ext.finalize('ahead');
INSERT INTO ahead VALUES (5, '2024-09-15', 'too early'), (6, '2024-07-01', NULL);
CALL await('ahead_p2024_10');
SELECT * FROM partitions;
SELECT tableoid::regclass, * FROM ahead ORDER BY id;
SELECT * FROM parameters WHERE relname ~ 'p2024_10|^ahead$';
SELECT has_table_privilege('ahead_reader', 'ahead', 'SELECT') AS read, has_table_privilege('ahead_reader', 'ahead', 'UPDATE') AS update;
(TABLE ahead EXCEPT TABLE ahead_orig) UNION ALL (TABLE ahead_orig EXCEPT TABLE ahead);
SELECT kind, message FROM migrate_ext.events WHERE kind IN ('partition_added', 'headroom_blocked') ORDER BY at, message;

-- and back
CALL migrate_ext.undo('ahead');
SELECT state, last_error FROM migrate_ext.migrations WHERE migration = 'ahead';
INSERT INTO ahead VALUES (7, '2024-10-10');
CALL await('ahead_p2024_11');
CALL await('ahead_p2024_12');
(TABLE ahead EXCEPT TABLE ahead_new) UNION ALL (TABLE ahead_new EXCEPT TABLE ahead);

CALL migrate_ext.cancel('ahead');
SELECT migrate_ext.forget('ahead');
SELECT relname FROM pg_class WHERE relname ~ '^ahead' ORDER BY 1;
DROP VIEW partitions, parameters;
DROP PROCEDURE await;
DROP TABLE ahead;
DROP TABLESPACE ahead_space;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM ahead_reader;
ALTER DEFAULT PRIVILEGES REVOKE UPDATE ON TABLES FROM PUBLIC;
DROP ROLE ahead_reader;
