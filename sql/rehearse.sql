-- rehearse(): the swap and its way back under the real locks, rolled back.
SET client_min_messages = warning;
CREATE ROLE rehearse_owner;
CREATE ROLE rehearse_stranger;
GRANT CREATE ON SCHEMA public TO rehearse_owner;
SET ROLE rehearse_owner;
CREATE TABLE rehearsed (id serial PRIMARY KEY, k integer DEFAULT 3 NOT NULL, CONSTRAINT k CHECK (k > 0));
CREATE INDEX rehearsed_k ON rehearsed (k DESC) WHERE id > 5;
COMMENT ON TABLE rehearsed IS 'rehearsed';
INSERT INTO rehearsed (k) SELECT i % 4 + 1 FROM generate_series(1, 20) i;
SELECT migrate_ext.partition_by_hash('rehearsed', 'k', 2);

-- everything of which a trace could be left; what autovacuum notes of other tables, it notes when it likes
CREATE FUNCTION pg_temp.trace() RETURNS text LANGUAGE sql AS $$
    SELECT md5(concat(migrate_ext.describe('rehearsed')::text,
        (SELECT jsonb_agg(to_jsonb(m)) FROM migrate_ext.migrations m),
        (SELECT jsonb_agg(jsonb_build_array(oid, relname, relkind, relacl::text, relfilenode, relhastriggers, reloptions, CASE WHEN relname ~ '^rehearsed' THEN reltuples END) ORDER BY oid)
         FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'migrate_ext'::regnamespace)),
        (SELECT jsonb_agg(jsonb_build_array(oid, tgrelid, tgname, tgenabled, xmin::text) ORDER BY oid) FROM pg_trigger),
        (SELECT jsonb_agg(jsonb_build_array(classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype) ORDER BY classid, objid, objsubid, refclassid, refobjid, refobjsubid)
         FROM pg_depend WHERE refobjid IN ('rehearsed'::regclass, to_regclass('rehearsed_new'), to_regclass('rehearsed_orig'))),
        (SELECT jsonb_agg(jsonb_build_array(conname, conrelid, xmin::text) ORDER BY oid) FROM pg_constraint)))
$$;
CREATE FUNCTION pg_temp.swaps() RETURNS TABLE (direction text, attempts integer, waited boolean, held boolean, blockers jsonb) LANGUAGE sql AS $$
    SELECT direction, attempts, wait_ms >= 0, hold_ms > 0 AND hold_ms < 10000, blockers FROM migrate_ext.swaps WHERE migration = 'rehearsed' ORDER BY at
$$;

-- not before it is live
CALL migrate_ext.rehearse('rehearsed');
CALL migrate_ext.run('rehearsed');
-- the first one makes what the leader had no time for
CALL migrate_ext.rehearse('rehearsed');
SELECT pg_temp.trace() AS before \gset
CALL migrate_ext.rehearse('rehearsed');
SELECT pg_temp.trace() = :'before' AS no_trace;
SELECT * FROM pg_temp.swaps();
SELECT message, detail - 'swap_ms' - 'back_ms' - 'hold_ms' AS detail, (detail->>'swap_ms')::float > 0 AS swap, (detail->>'back_ms')::float > 0 AS back,
       (detail->>'hold_ms')::float >= (detail->>'swap_ms')::float + (detail->>'back_ms')::float AS hold
FROM migrate_ext.events WHERE migration = 'rehearsed' AND kind = 'rehearsed';
SELECT count(*) FROM migrate_ext.events WHERE migration = 'rehearsed' AND kind = 'renamed';
SELECT verified_at FROM migrate_ext.verifications WHERE migration = 'rehearsed';

-- the table goes on as it was
INSERT INTO rehearsed (k) VALUES (4);
RESET ROLE;
SELECT * FROM helper.check('rehearsed');
SET ROLE rehearse_owner;

-- swapped: the way back first
CALL migrate_ext.finalize('rehearsed');
SELECT pg_temp.trace() AS before \gset
CALL migrate_ext.rehearse('rehearsed');
SELECT pg_temp.trace() = :'before' AS no_trace;
SELECT direction, attempts FROM pg_temp.swaps();
INSERT INTO rehearsed (k) VALUES (2);
RESET ROLE;
SELECT * FROM helper.check('rehearsed');
SET ROLE rehearse_owner;
CALL migrate_ext.undo('rehearsed');
RESET ROLE;
SELECT * FROM helper.check('rehearsed');
SET ROLE rehearse_owner;

-- what finalize would be refused for is the error, and leaves no trace either
CREATE TABLE typed (r rehearsed);
SELECT pg_temp.trace() AS before \gset
CALL migrate_ext.rehearse('rehearsed');
SELECT pg_temp.trace() = :'before' AS no_trace;
DROP TABLE typed;

-- so is what only the way back would be refused for, found when the swap had been made
CREATE TABLE typed (r rehearsed_new);
SELECT pg_temp.trace() AS before \gset
CALL migrate_ext.rehearse('rehearsed');
SELECT pg_temp.trace() = :'before' AS no_trace;
DROP TABLE typed;
SELECT direction, attempts FROM pg_temp.swaps();

-- what the application would find changed
DO $$
DECLARE
    p regclass;
BEGIN
    FOR p IN SELECT relid FROM pg_partition_tree('rehearsed_new') WHERE isleaf LOOP
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 55)', p);
    END LOOP;
END
$$;
CALL migrate_ext.rehearse('rehearsed');
SELECT jsonb_pretty(detail->'swapped'), detail->'returned' AS returned FROM migrate_ext.events WHERE migration = 'rehearsed' AND kind = 'rehearsed' ORDER BY at DESC LIMIT 1;

-- a tampered trigger, a pause
ALTER TABLE rehearsed DISABLE TRIGGER "!migrate_ext_sync";
CALL migrate_ext.rehearse('rehearsed');
SELECT migrate_ext.pause('rehearsed', 'for a reason');
CALL migrate_ext.rehearse('rehearsed');

-- whom it is for, and wrong calls
RESET ROLE;
SET ROLE rehearse_stranger;
CALL migrate_ext.rehearse('rehearsed');
RESET ROLE;
CALL migrate_ext.rehearse(NULL);
CALL migrate_ext.rehearse('nothing');
BEGIN;
CALL migrate_ext.rehearse('rehearsed');
ROLLBACK;
SET default_transaction_read_only = on;
CALL migrate_ext.rehearse('rehearsed');
RESET default_transaction_read_only;
CALL migrate_ext.cancel('rehearsed');
CALL migrate_ext.rehearse('rehearsed');
SELECT migrate_ext.forget('rehearsed');
DROP TABLE rehearsed;
REVOKE CREATE ON SCHEMA public FROM rehearse_owner;
DROP FUNCTION pg_temp.trace(), pg_temp.swaps();
DROP ROLE rehearse_owner, rehearse_stranger;
